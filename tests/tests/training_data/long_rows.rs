//! Rows of more than max_seq ids: texts in pieces, conversations that keep their end, and what is said about them.

use lichen_trainer::data::{DataOptions, Dataset, LossOn, Sample, Truncation, IGNORED};
use serde_json::json;

use crate::support::{labelled, open, plain, samples, Chat};

fn open_row(row: &serde_json::Value, chat: Chat, max_seq: usize) -> Result<Dataset, String> {
    open(row.to_string().as_bytes(), Some(chat.encoder()), &DataOptions { max_seq, ..plain() })
}

fn notes(dataset: &Dataset) -> Vec<String> {
    dataset.counts().notes().iter().map(|note| note.text().to_string()).collect()
}

/// The labels of some samples, one behind the other.
fn learned(samples: &[Sample]) -> Vec<i32> {
    samples.iter().flat_map(|s| &s.labels).copied().filter(|&label| label != IGNORED).collect()
}

#[test]
fn every_id_of_a_long_text_is_learned_once() {
    let row = json!({"text": "the ಕನ್ನಡ, and नमस्ते. ".repeat(40)});
    for chat in [Chat::Gemma, Chat::Qwen] {
        let whole = open_row(&row, chat, 4096).unwrap();
        let expected = learned(&samples(&whole));
        assert_eq!((whole.n_train(), notes(&whole).len()), (1, 0));
        let n = whole.counts().longest;
        for max_seq in [2, 3, 64, n - 1, n] {
            let cut = open_row(&row, chat, max_seq).unwrap();
            let pieces = samples(&cut);
            let n_new = max_seq - 1;
            assert_eq!(pieces.len(), (n - 1).div_ceil(n_new), "{chat:?}, {max_seq} of {n}");
            assert_eq!(learned(&pieces), expected, "{chat:?}, {max_seq}");
            assert!(pieces.iter().all(|p| p.ids.len() <= max_seq && p.line == 1));
            let starts_with_bos = pieces.iter().all(|p| p.ids[0] == pieces[0].ids[0]);
            assert!(starts_with_bos || !chat.is_gemma());
            let counts = cut.counts();
            assert_eq!((counts.samples, counts.usable), (pieces.len(), 1));
            assert_eq!((counts.in_pieces, counts.cut, counts.dropped), (usize::from(max_seq < n), 0, 0));
            if max_seq == 64 {
                let n_pieces = pieces.len();
                let said = notes(&cut).concat().replace(',', "");
                assert_eq!(said, format!("line 1: {n} tokens max_seq is 64: cut into {n_pieces} pieces"));
            }
            // Nothing of a text is lost, so there is nothing to drop.
            let drop = DataOptions { max_seq, truncation: Truncation::Drop, ..plain() };
            let dropped = open(row.to_string().as_bytes(), Some(chat.encoder()), &drop).unwrap();
            assert_eq!(samples(&dropped), pieces);
        }
    }
}

#[test]
fn the_pieces_of_a_text_are_held_out_together() {
    let rows: String = (0..20).map(|i| format!("{{\"text\": \"{} the\"}}\n", "a b".repeat(i + 1))).collect();
    let options = DataOptions { max_seq: 8, eval_split: 0.3, seed: 3, ..plain() };
    let dataset = open(rows.as_bytes(), Some(Chat::Gemma.encoder()), &options).unwrap();
    let lines = |samples: Vec<Sample>| samples.iter().map(|s| s.line).collect::<std::collections::BTreeSet<_>>();
    let train = lines(samples(&dataset));
    let eval = lines((0..dataset.n_eval()).map(|i| dataset.eval(i).unwrap()).collect());
    assert_eq!((eval.len(), train.len()), (6, 14));
    assert!(eval.is_disjoint(&train) && dataset.n_eval() > 6);
}

/// Four exchanges behind a system text.
fn long_chat() -> serde_json::Value {
    let mut messages = vec![json!({"role": "system", "content": "be brief"})];
    for i in 0..4 {
        messages.push(json!({"role": "user", "content": format!("the question {i}?")}));
        messages.push(json!({"role": "assistant", "content": format!("the answer {i}.")}));
    }
    messages.push(json!({"role": "user", "content": "bye"}));
    json!({ "messages": messages })
}

/// Whatever the limit, what is kept ends with the last answer, and begins like a conversation of its own.
#[test]
fn long_conversations_keep_their_last_exchanges() {
    for (chat, end) in [(Chat::Gemma, "<end_of_turn>"), (Chat::Qwen, "<|im_end|>"), (Chat::QwenBuiltIn, "<|im_end|>")] {
        let tokenizer = chat.tokenizer();
        let whole = open_row(&long_chat(), chat, 4096).unwrap().train(0, 0).unwrap();
        let answers: Vec<String> = (0..4).map(|i| format!("the answer {i}.{end}")).collect();
        assert_eq!(labelled(&tokenizer, &whole), answers);
        let mut n_kept_seen = std::collections::BTreeSet::new();
        for max_seq in (2..=whole.ids.len()).rev() {
            let Ok(cut) = open_row(&long_chat(), chat, max_seq) else {
                assert!(max_seq < 40, "{chat:?}, {max_seq}");
                continue;
            };
            let sample = cut.train(0, 0).unwrap();
            assert!(sample.ids.len() <= max_seq);
            let kept = labelled(&tokenizer, &sample);
            assert!(answers.ends_with(&kept) && !kept.is_empty(), "{chat:?}, {max_seq}: {kept:?}");
            assert_eq!(cut.counts().cut, usize::from(max_seq < whole.ids.len()));
            let text = tokenizer.decode_with_markers(&sample.ids);
            // While an exchange fits, what is kept is a whole conversation with its system text.
            if !notes(&cut).iter().any(|note| note.contains("its last ")) {
                let first = 4 - kept.len();
                assert!(text.contains("be brief"), "{chat:?}, {max_seq}: {text}");
                assert!(text.contains(&format!("the question {first}?")), "{chat:?}, {max_seq}: {text}");
                assert!(first == 0 || !text.contains(&format!("the question {}?", first - 1)), "{text}");
                n_kept_seen.insert(kept.len());
            }
        }
        assert_eq!(n_kept_seen.into_iter().collect::<Vec<_>>(), [1, 2, 3, 4], "{chat:?}");
    }
}

#[test]
fn what_was_left_out_is_said() {
    let cases = [
        (long_chat(), 100, "its oldest 4 messages are left out"),
        (json!({"instruction": "the ".repeat(100), "output": "b"}), 60, "its last 60 are kept"),
    ];
    for (row, max_seq, want) in cases {
        let said = notes(&open_row(&row, Chat::Gemma, max_seq).unwrap());
        assert!(said.len() == 1 && said[0].starts_with("line 1: ") && said[0].contains(want), "{said:?}");
        assert!(said[0].contains(&format!("tokens, max_seq is {max_seq}: cut, ")), "{said:?}");
    }
    let trailing = json!({"messages": [
        {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"},
        {"role": "user", "content": "the ".repeat(100)},
    ]});
    let said = notes(&open_row(&trailing, Chat::Gemma, 60).unwrap());
    assert!(said[0].ends_with("cut, what follows its last answer is left out"), "{said:?}");
    // An answer that has no room is left out whole, and so is one that would be learned without its beginning.
    let rows = format!("{}\n{}", json!({"instruction": "a", "output": "the ".repeat(100)}), json!({"text": "a"}));
    let left = open(rows.as_bytes(), Some(Chat::Qwen.encoder()), &DataOptions { max_seq: 60, ..plain() }).unwrap();
    let said = notes(&left);
    assert!(said[0].contains("max_seq is 60: left out, its last answer alone has "), "{said:?}");
    assert_eq!((left.counts().dropped, left.n_train()), (1, 1));
}

/// The question's beginning goes first: at every limit the answer is learned whole, or the row is left out.
#[test]
fn an_answer_is_kept_whole_or_not_at_all() {
    let row = json!({"instruction": "the ".repeat(50), "output": "hello the theme"});
    for chat in [Chat::Gemma, Chat::Qwen] {
        let tokenizer = chat.tokenizer();
        let whole = open_row(&row, chat, 4096).unwrap().train(0, 0).unwrap();
        let (expected, n) = (labelled(&tokenizer, &whole), whole.ids.len());
        let mut n_refused = 0;
        for max_seq in 2..n {
            match open_row(&row, chat, max_seq) {
                Ok(cut) => {
                    let sample = cut.train(0, 0).unwrap();
                    assert_eq!(labelled(&tokenizer, &sample), expected, "{chat:?}, {max_seq}");
                    assert!(sample.ids[0] == whole.ids[0] || !chat.is_gemma());
                }
                Err(error) => {
                    assert!(error.contains("(1 too long): nothing to train: max_seq is"), "{error}");
                    n_refused += 1;
                }
            }
            let drop = DataOptions { max_seq, truncation: Truncation::Drop, ..plain() };
            assert!(open(row.to_string().as_bytes(), Some(chat.encoder()), &drop).is_err());
        }
        assert!(n_refused > 2 && n_refused < 40, "{n_refused}");
        let all = DataOptions { max_seq: 30, loss_on: LossOn::All, ..plain() };
        let all = open(row.to_string().as_bytes(), Some(chat.encoder()), &all).unwrap().train(0, 0).unwrap();
        assert_eq!(all.labels.iter().filter(|&&label| label == IGNORED).count(), 1);
    }
}

#[test]
fn rows_of_ids_keep_their_beginning_and_say_when_no_label_is_in_it() {
    let rows =
        "{\"input_ids\": [1, 2, 3, 4, 5], \"completion_mask\": [0, 0, 0, 0, 1]}\n{\"input_ids\": [6, 7, 8, 9]}\n";
    let options = DataOptions { max_seq: 3, ..plain() };
    let dataset = open(rows.as_bytes(), None, &options).unwrap();
    assert_eq!(dataset.train(0, 0).unwrap().ids, [6, 7, 8]);
    let expected = [
        "line 2: 4 tokens, max_seq is 3: cut, its first 3 are kept",
        "line 1: nothing to learn: none of its first 3 ids, of 5, has a label",
    ];
    assert_eq!(notes(&dataset), expected);
}
