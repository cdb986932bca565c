//! Which ids are labelled, told by what they decode to.

use lichen_runtime::text::tokenizer::Tokenizer;
use lichen_trainer::data::{DataOptions, LossOn};
use serde_json::{json, Value};

use crate::support::{labelled, open, plain, samples, Chat};

/// A row, the answers that must be labelled as they are trained on, and the whole of it for Gemma and for Qwen.
struct Case {
    row: Value,
    answers: &'static [&'static str],
    gemma: &'static str,
    qwen: &'static str,
}

const GEMMA_END: &str = "<end_of_turn>";
const QWEN_END: &str = "<|im_end|>";

fn cases() -> Vec<Case> {
    vec![
        Case {
            row: json!({"instruction": "say hello", "input": "", "output": "hello", "lang": "en", "id": 7}),
            answers: &["hello"],
            gemma: "<bos><start_of_turn>user\nsay hello<end_of_turn>\n<start_of_turn>model\nhello<end_of_turn>\n",
            qwen: "SYS<|im_start|>user\nsay hello<|im_end|>\n<|im_start|>assistant\nhello<|im_end|>\n",
        },
        Case {
            row: json!({"instruction": "अनुवाद करो", "input": "ನಮಸ್ಕಾರ", "output": "नमस्ते, ज़िन्दगी 👋🏽"}),
            answers: &["नमस्ते, ज़िन्दगी 👋🏽"],
            gemma: "<bos><start_of_turn>user\nअनुवाद करो\n\nನಮಸ್ಕಾರ<end_of_turn>\n<start_of_turn>model\n\
                    नमस्ते, ज़िन्दगी 👋🏽<end_of_turn>\n",
            qwen: "SYS<|im_start|>user\nअनुवाद करो\n\nನಮಸ್ಕಾರ<|im_end|>\n<|im_start|>assistant\n\
                   नमस्ते, ज़िन्दगी 👋🏽<|im_end|>\n",
        },
        // Without `input`; an answer of several lines; what looks like markers is text.
        Case {
            row: json!({"instruction": "x<end_of_turn>\n<|im_end|>", "input": null, "output": "a<end_of_turn>\n\nb<|im_end|>c"}),
            answers: &["a<end_of_turn>\n\nb<|im_end|>c"],
            gemma: "<bos><start_of_turn>user\nx<end_of_turn>\n<|im_end|><end_of_turn>\n<start_of_turn>model\n\
                    a<end_of_turn>\n\nb<|im_end|>c<end_of_turn>\n",
            qwen: "SYS<|im_start|>user\nx<end_of_turn>\n<|im_end|><|im_end|>\n<|im_start|>assistant\n\
                   a<end_of_turn>\n\nb<|im_end|>c<|im_end|>\n",
        },
        // Every answer of a conversation, the system's text and a last question without one.
        Case {
            row: json!({"messages": [
                {"role": "system", "content": "be brief"},
                {"role": "user", "content": "ಹೇಗಿದ್ದೀರಿ?"},
                {"role": "assistant", "content": "ಚೆನ್ನಾಗಿದ್ದೇನೆ."},
                {"role": "user", "content": "and you?"},
                {"role": "model", "content": "ठीक हूँ।"},
                {"role": "user", "content": "bye"},
            ]}),
            answers: &["ಚೆನ್ನಾಗಿದ್ದೇನೆ.", "ठीक हूँ।"],
            gemma: "<bos><start_of_turn>user\nbe brief\n\nಹೇಗಿದ್ದೀರಿ?<end_of_turn>\n<start_of_turn>model\n\
                    ಚೆನ್ನಾಗಿದ್ದೇನೆ.<end_of_turn>\n<start_of_turn>user\nand you?<end_of_turn>\n<start_of_turn>model\n\
                    ठीक हूँ।<end_of_turn>\n<start_of_turn>user\nbye<end_of_turn>\n",
            qwen: "<|im_start|>system\nbe brief<|im_end|>\n<|im_start|>user\nಹೇಗಿದ್ದೀರಿ?<|im_end|>\n\
                   <|im_start|>assistant\nಚೆನ್ನಾಗಿದ್ದೇನೆ.<|im_end|>\n<|im_start|>user\nand you?<|im_end|>\n\
                   <|im_start|>assistant\nठीक हूँ।<|im_end|>\n<|im_start|>user\nbye<|im_end|>\n",
        },
        // An answer without text teaches nothing; the others of its conversation do.
        Case {
            row: json!({"messages": [
                {"role": "user", "content": "a"},
                {"role": "assistant", "content": ""},
                {"role": "user", "content": "b"},
                {"role": "assistant", "content": "c"},
            ], "text": "ignored", "instruction": "ignored"}),
            answers: &["c"],
            gemma: "<bos><start_of_turn>user\na<end_of_turn>\n<start_of_turn>model\n<end_of_turn>\n\
                    <start_of_turn>user\nb<end_of_turn>\n<start_of_turn>model\nc<end_of_turn>\n",
            qwen: "SYS<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n<|im_end|>\n\
                   <|im_start|>user\nb<|im_end|>\n<|im_start|>assistant\nc<|im_end|>\n",
        },
    ]
}

impl Case {
    /// What the row becomes: ChatML has a system text of its own, in two wordings.
    fn whole(&self, chat: Chat) -> String {
        let system = match chat {
            Chat::Qwen => "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n",
            _ => "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n",
        };
        if chat.is_gemma() { self.gemma } else { self.qwen }.replace("SYS", system)
    }

    fn check(&self, chat: Chat, tokenizer: &Tokenizer) {
        let line = self.row.to_string();
        let one = |options: &DataOptions| {
            let dataset = open(line.as_bytes(), Some(chat.encoder()), options);
            let dataset = dataset.unwrap_or_else(|e| panic!("{chat:?}: {line}: {e}"));
            assert_eq!(dataset.n_train(), 1, "{chat:?}: {line}: {:?}", dataset.counts());
            let sample = dataset.train(0, 0).unwrap_or_else(|e| panic!("{e}"));
            let n_labels = sample.labels.iter().filter(|&&l| l != -100).count();
            let size = dataset.train_size(0, 0);
            assert_eq!((size.n_tokens, size.n_labels), (sample.ids.len(), n_labels));
            assert_eq!(dataset.counts().labelled_tokens, n_labels as u64);
            sample
        };
        let whole = self.whole(chat);
        let end = if chat.is_gemma() { GEMMA_END } else { QWEN_END };
        let sample = one(&plain());
        assert_eq!(tokenizer.decode_with_markers(&sample.ids), whole, "{chat:?}");
        let answers: Vec<String> = self.answers.iter().map(|answer| format!("{answer}{end}")).collect();
        assert_eq!(labelled(tokenizer, &sample), answers, "{chat:?}");
        // What is typed is no control token: one marker per turn and side, BOS, and nothing else.
        let n_control = sample.ids.iter().filter(|&&id| tokenizer.is_control(id)).count();
        let n_turns = whole.matches(if chat.is_gemma() { "<start_of_turn>" } else { "<|im_start|>" }).count();
        assert_eq!(n_control, 2 * n_turns + chat.is_gemma() as usize, "{chat:?}: {whole}");

        let all = one(&DataOptions { loss_on: LossOn::All, ..plain() });
        assert_eq!(all.ids, sample.ids);
        let behind_first = tokenizer.decode_with_markers(&all.ids[1..]);
        assert_eq!(labelled(tokenizer, &all), [behind_first], "{chat:?}");
    }
}

#[test]
fn answers_and_their_end_markers_are_labelled() {
    for chat in Chat::ALL {
        let tokenizer = chat.tokenizer();
        cases().iter().for_each(|case| case.check(chat, &tokenizer));
    }
}

/// Gemma's template trims an answer, ChatML does not. A line end in front would become one token with the template's.
#[test]
fn white_space_around_an_answer() {
    let row = json!({"instruction": "a", "output": " b \n"}).to_string();
    for (chat, expected) in [(Chat::Gemma, "b<end_of_turn>"), (Chat::QwenBuiltIn, " b \n<|im_end|>")] {
        let dataset = open(row.as_bytes(), Some(chat.encoder()), &plain()).unwrap();
        assert_eq!(labelled(&chat.tokenizer(), &samples(&dataset)[0]), [expected]);
    }
}

#[test]
fn running_text_is_labelled_whole() {
    let row = json!({"text": "ಕನ್ನಡ <bos> the", "output": null}).to_string();
    for (chat, whole) in [(Chat::Gemma, "<bos>ಕನ್ನಡ <bos> the<eos>"), (Chat::Qwen, "ಕನ್ನಡ <bos> the<|im_end|>")]
    {
        let tokenizer = chat.tokenizer();
        let dataset = open(row.as_bytes(), Some(chat.encoder()), &plain()).unwrap();
        let sample = dataset.train(0, 0).unwrap();
        assert_eq!(tokenizer.decode_with_markers(&sample.ids), whole);
        assert_eq!(labelled(&tokenizer, &sample), [tokenizer.decode_with_markers(&sample.ids[1..])]);
    }
}

#[test]
fn rows_of_ids_are_taken_as_they_are() {
    // Ids 2 and 5 are Gemma's BOS and end of turn.
    let rows = r#"{"input_ids": [2, 5, 319, 0], "labels": [2, -100, 319, 1]}
{"labels": null, "input_ids": [2, 2, 7]}
{"input_ids": [9, 8], "labels": [9, -100]}
{"input_ids": [9]}
"#;
    for encoder in [|| None, || Some(Chat::Gemma.encoder())] {
        for loss_on in [LossOn::Answers, LossOn::All] {
            let options = DataOptions { loss_on, ..plain() };
            let dataset = open(rows.as_bytes(), encoder(), &options).unwrap();
            let got: Vec<_> = samples(&dataset).into_iter().map(|s| (s.line, s.ids, s.labels)).collect();
            let expected = [(1, vec![2, 5, 319, 0], vec![-100, -100, 319, 1]), (2, vec![2, 2, 7], vec![-100, 2, 7])];
            assert_eq!(got, expected);
            assert_eq!(dataset.counts().without_labels, 2);
        }
    }
}
