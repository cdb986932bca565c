//! The model that ships: transformers' greedy answers on its very weights, turn by turn, and its held-out perplexity.

use std::path::{Path, PathBuf};

use lichen_runtime::engine::conversation::Conversation;
use lichen_runtime::engine::request::{Request, SamplingOverrides};
use lichen_runtime::engine::{Engine, EngineOptions, LoadedModel};
use lichen_runtime::measure::perplexity;
use lichen_runtime::text::chat_template::{encode_chat, Message};
use serde_json::Value;

fn demo_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../host-tools/demo")
}

fn goldens() -> Value {
    let text = std::fs::read_to_string(demo_dir().join("goldens.json")).expect("goldens.json");
    serde_json::from_str(&text).expect("JSON")
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().expect("ids").iter().map(|id| id.as_u64().expect("an id") as u32).collect()
}

#[test]
fn answers_equal_transformers_token_by_token() {
    let goldens = goldens();
    let options = EngineOptions { threads: Some(2), ..EngineOptions::default() };
    let mut engine = Engine::open(&options).expect("the demo model");
    let model = engine.model().clone();
    let template = model.chat_template().expect("a template");
    let tokenizer = model.tokenizer().expect("a tokenizer");
    let mut n_turns = 0;
    for chat in goldens["q8_0"].as_array().expect("chats") {
        let mut conversation = Conversation::new(Request {
            sampling: SamplingOverrides::greedy(),
            max_new_tokens: Some(goldens["max_new_tokens"].as_u64().expect("a count") as usize),
            ..Request::default()
        });
        for turn in chat["turns"].as_array().expect("turns") {
            let question = turn["question"].as_str().expect("a question");
            let answer = conversation.ask(&mut engine, question, &mut |_| {}, &mut || false).expect("an answer");
            let mut got = answer.token_ids.clone();
            got.retain(|id| !model.stop_ids.contains(*id));
            assert_eq!(got, ids(&turn["answer_ids"]), "{question}");
            assert_eq!(answer.text, turn["answer"].as_str().expect("an answer"), "{question}");
            n_turns += 1;
        }
        let first = &chat["turns"][0];
        let messages = [Message::user(first["question"].as_str().expect("a question"))];
        let prompt = encode_chat(tokenizer, template, &messages, true).expect("ids");
        assert_eq!(prompt, ids(&first["prompt_ids"]), "the rendered chat");
    }
    assert!(n_turns >= 20, "{n_turns} turns");
}

#[test]
fn held_out_perplexity_of_q8_0_is_within_half_a_percent_of_f32() {
    let goldens = goldens();
    let f32_value = goldens["perplexity_f32"]["perplexity"].as_f64().expect("a number");
    let text = std::fs::read_to_string(demo_dir().join("heldout/text.txt")).expect("held-out text");
    let options = EngineOptions { threads: Some(2), logit_rows: 16, ..EngineOptions::default() };
    let model = LoadedModel::open(&options).expect("a model");
    let mut session = model.session().expect("room");
    let tokenizer = model.tokenizer().expect("a tokenizer");
    let got = perplexity::measure(&mut session, tokenizer, &text, &mut |_, _| ()).expect("a perplexity");
    assert_eq!(got.tokens as u64, goldens["perplexity_f32"]["tokens"].as_u64().expect("a count"));
    let ratio = got.value() / f32_value;
    println!("perplexity {:.5}, f32 {f32_value}, ratio {ratio:.5}", got.value());
    assert!((ratio - 1.0).abs() <= 0.005, "{ratio}");
}
