//! How well a model predicts a text: the exponential of the mean negative log-likelihood over all predicted tokens.
//!
//! The text is cut into documents at blank lines. Each starts anew, with BOS where the model has one, and every token
//! after the first is predicted. A document longer than the context is cut into windows that each start anew.

use std::time::Instant;

use crate::error::{Error, Result};
use crate::model::session::Session;
use crate::setting::CONTEXT;
use crate::text::tokenizer::Tokenizer;

/// Sums so far, or of the whole text.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Perplexity {
    /// Sum of -ln p over the predicted tokens.
    pub nll: f64,
    /// Tokens predicted.
    pub tokens: usize,
    pub documents: usize,
    pub seconds: f64,
}

impl Perplexity {
    /// NaN before the first token.
    pub fn value(&self) -> f64 {
        (self.nll / self.tokens as f64).exp()
    }

    pub fn tokens_per_s(&self) -> f64 {
        if self.seconds > 0.0 {
            self.tokens as f64 / self.seconds
        } else {
            0.0
        }
    }
}

/// Documents of a text: runs of lines that are not blank.
pub fn documents(text: &str) -> Vec<&str> {
    let mut documents = Vec::new();
    let (mut start, mut end, mut at) = (0, 0, 0);
    for line in text.split_inclusive('\n') {
        if !line.trim().is_empty() {
            if end == 0 {
                start = at;
            }
            end = at + line.trim_end_matches(['\n', '\r']).len();
        } else if end > 0 {
            documents.push(&text[start..end]);
            end = 0;
        }
        at += line.len();
    }
    if end > 0 {
        documents.push(&text[start..end]);
    }
    documents
}

/// Scores `text`. `on_document` sees the sums after each document, with how many there are.
///
/// # Errors
/// The text is empty, or the context cannot hold two tokens.
pub fn measure(
    session: &mut Session,
    tokenizer: &Tokenizer,
    text: &str,
    on_document: &mut dyn FnMut(&Perplexity, usize),
) -> Result<Perplexity> {
    if session.limits().context < 2 {
        return Err(Error::usage(format!("{CONTEXT} is 1; at least 2 tokens are needed to predict one")));
    }
    let documents = documents(text);
    let start = Instant::now();
    let mut sums = Perplexity::default();
    for document in &documents {
        let bos = tokenizer.bos_id().filter(|_| tokenizer.add_bos());
        let ids = tokenizer.encode(document)?;
        let window = session.limits().context - usize::from(bos.is_some());
        for part in ids.chunks(window.max(1)) {
            let ids: Vec<u32> = bos.into_iter().chain(part.iter().copied()).collect();
            score(session, &ids, &mut sums)?;
        }
        sums.documents += 1;
        sums.seconds = start.elapsed().as_secs_f64();
        on_document(&sums, documents.len());
    }
    if sums.tokens == 0 {
        return Err(Error::input("the text holds no token to predict"));
    }
    Ok(sums)
}

/// Adds the likelihood of each token but the first.
fn score(session: &mut Session, ids: &[u32], sums: &mut Perplexity) -> Result<()> {
    session.reset();
    let mut targets = ids.iter().skip(1);
    session.evaluate(&ids[..ids.len().saturating_sub(1)], &mut |logits| {
        if let Some(&target) = targets.next() {
            sums.nll += negative_log_likelihood(logits, target);
            sums.tokens += 1;
        }
        Ok(())
    })
}

/// `-ln softmax(logits)[target]`, stable for any size of logits.
fn negative_log_likelihood(logits: &[f32], target: u32) -> f64 {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|l| f64::from((l - largest).exp())).sum();
    sum.ln() + f64::from(largest) - f64::from(logits[target as usize])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blank_lines_separate_documents() {
        let cases: [(&str, &[&str]); 6] = [
            ("", &[]),
            ("\n \n", &[]),
            ("a", &["a"]),
            ("a\nb\n", &["a\nb"]),
            ("\n\na\nb\r\n \t\n\nc\n\n", &["a\nb", "c"]),
            ("  a\n\n  b  ", &["  a", "  b  "]),
        ];
        for (text, want) in cases {
            assert_eq!(documents(text), want, "{text:?}");
        }
    }

    #[test]
    fn likelihoods_are_those_of_the_softmax() {
        let uniform = negative_log_likelihood(&[1000.0; 8], 3);
        assert!((uniform - 8f64.ln()).abs() < 1e-6, "{uniform}");
        let certain = negative_log_likelihood(&[-1e30, 50.0, -1e30], 1);
        assert!(certain.abs() < 1e-6, "{certain}");
    }
}
