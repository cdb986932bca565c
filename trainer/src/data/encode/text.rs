//! Running text: labelled whole, and cut into pieces where it is long.

use lichen_runtime::escape::thousands;
use lichen_runtime::text::chat_template::{EncodedText, OUTPUT_BYTES_MAX};
use lichen_runtime::text::tokenizer::Tokenizer;

use super::super::DataOptions;
use super::{all_of, unlabel_first, Encoded, Fit, Labelled, Refusal, TextEncoder};

/// BOS where the model's own tokenizer would put it and EOS where it names one, and all of it labelled.
pub(super) fn running_text(encoder: &TextEncoder, text: &str, options: &DataOptions) -> Result<Encoded, Refusal> {
    if text.trim().is_empty() {
        return Err(Refusal::WithoutLabels("\"text\" is empty".to_string()));
    }
    let ids = ids(&encoder.tokenizer, text, options.parse_special).map_err(Refusal::Bad)?;
    let bos = encoder.tokenizer.bos_id().filter(|bos| ids.first() == Some(bos));
    let samples = pieces(&ids, bos, options.max_seq);
    let fit = if samples.len() > 1 { Fit::Pieces } else { Fit::Whole };
    match samples.iter().all(|sample| sample.n_labels() > 0) {
        true => Ok(Encoded { samples, n_whole: ids.len(), fit }),
        false => Err(Refusal::WithoutLabels("\"text\" is one token, which nothing predicts".to_string())),
    }
}

fn ids(tokenizer: &Tokenizer, text: &str, parse_special: bool) -> Result<Vec<u32>, String> {
    // What a conversation may be long. Merging takes up to 180 bytes per character.
    if text.len() > OUTPUT_BYTES_MAX {
        let (n, most) = (thousands(text.len() as u64), thousands(OUTPUT_BYTES_MAX as u64));
        return Err(format!("\"text\" is {n} bytes long; at most {most}"));
    }
    let message = |e: lichen_runtime::Error| e.message().to_string();
    if parse_special {
        let mut ids = EncodedText::with_control_tokens(tokenizer, text).map_err(message)?.ids;
        // Who writes control tokens has written the end too, where one stands there.
        if !ends_in_control(tokenizer, text) {
            ids.extend(tokenizer.eos_id());
        }
        return Ok(ids);
    }
    let mut ids: Vec<u32> = tokenizer.bos_id().filter(|_| tokenizer.add_bos()).into_iter().collect();
    ids.extend(tokenizer.encode(text).map_err(message)?);
    ids.extend(tokenizer.eos_id());
    Ok(ids)
}

/// Whether a control token stands last in `text`, white space aside.
fn ends_in_control(tokenizer: &Tokenizer, text: &str) -> bool {
    let mut rest = text.trim_end();
    while let Some(token) = tokenizer.written_control_token(rest) {
        let at = token.as_ptr() as usize - rest.as_ptr() as usize + token.len();
        rest = &rest[at..];
        if rest.is_empty() {
            return true;
        }
    }
    false
}

/// Samples of at most `max_seq` ids in which every id but the first of all has its label once: each piece begins with BOS,
/// or without one with the last id of the piece before, which it does not learn again.
fn pieces(ids: &[u32], bos: Option<u32>, max_seq: usize) -> Vec<Labelled> {
    if ids.len() <= max_seq {
        return vec![piece(ids.to_vec())];
    }
    let step = max_seq - 1;
    match bos {
        Some(bos) => ids[1..].chunks(step).map(|part| piece([&[bos], part].concat())).collect(),
        None => (0..ids.len() - 1)
            .step_by(step)
            .map(|start| piece(ids[start..(start + max_seq).min(ids.len())].to_vec()))
            .collect(),
    }
}

fn piece(ids: Vec<u32>) -> Labelled {
    let mut labels = all_of(&ids);
    unlabel_first(&mut labels);
    Labelled { ids, labels }
}

#[cfg(test)]
mod tests {
    use super::super::super::IGNORED;
    use super::*;

    #[test]
    fn every_id_of_a_long_text_is_learned_once() {
        for bos in [None, Some(2)] {
            for n in 1..60 {
                let ids: Vec<u32> = bos.into_iter().chain(100..100 + n).collect();
                for max_seq in 2..70 {
                    let pieces = pieces(&ids, bos, max_seq);
                    assert!(pieces.iter().all(|p| p.ids.len() <= max_seq && p.ids.len() == p.labels.len()));
                    assert_eq!(pieces.len() > 1, ids.len() > max_seq, "{n}, {max_seq}");
                    let learned: Vec<i32> =
                        pieces.iter().flat_map(|p| &p.labels).copied().filter(|&l| l != IGNORED).collect();
                    assert_eq!(learned, all_of(&ids[1..]), "{bos:?}, {n}, {max_seq}");
                    for piece in &pieces {
                        let first = piece.ids[0];
                        assert!(bos.is_none_or(|bos| first == bos), "{bos:?}, {n}, {max_seq}");
                        assert!(piece.labels.iter().zip(&piece.ids).skip(1).all(|(&l, &id)| l == id as i32));
                    }
                }
            }
        }
    }
}
