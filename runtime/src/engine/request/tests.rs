use super::*;
use crate::loader::{EngineOptions, TextModel};

#[test]
fn what_is_nearer_wins() {
    let line = SamplingOverrides { temperature: Some(0.5), ..SamplingOverrides::default() };
    let flags = SamplingOverrides { temperature: Some(1.5), top_k: Some(7), ..SamplingOverrides::default() };
    let model = SamplerConfig { top_k: 64, top_p: 0.95, seed: 3, ..SamplerConfig::default() };
    let got = line.or(flags).resolve(model);
    assert_eq!(got, SamplerConfig { temperature: 0.5, top_k: 7, top_p: 0.95, seed: 3, ..SamplerConfig::default() });
    let request = Request { stop: Some(Vec::new()), ..Request::text("a") };
    let defaults = Request {
        system: Some("s".into()),
        stop: Some(vec!["x".into()]),
        max_new_tokens: Some(9),
        adapter: AdapterChoice::Named("robot".into()),
        tenant: 5,
        n_drawn: 5,
        ..Request::text("b")
    };
    let got = request.with_defaults(&defaults);
    assert_eq!((got.prompt, got.tenant, got.n_drawn), (Prompt::Text("a".into()), 0, 0));
    // An empty list of stop strings is one.
    assert_eq!((got.stop, got.system.as_deref(), got.max_new_tokens), (Some(Vec::new()), Some("s"), Some(9)));
    assert_eq!(got.adapter, AdapterChoice::Named("robot".into()));
}

#[test]
fn values_out_of_range_are_refused_by_name() {
    type Change = fn(&mut Request);
    let cases: [(Change, &str); 6] = [
        (|r| r.sampling.temperature = Some(f32::NAN), "temperature is NaN; 0 to 5"),
        (|r| r.sampling.top_p = Some(1.5), "top_p is 1.5; 0 to 1"),
        (|r| r.sampling.repeat_penalty = Some(0.0), "repeat_penalty is 0; 0.1 to 10"),
        (|r| r.stop = Some(vec![String::new()]), "stop is 0 bytes long; 1 to 1024"),
        (|r| r.logprobs = Some(21), "logprobs is 21; 0 to 20"),
        (|r| r.stop_tokens = vec![1; 1025], "stop_tokens has 1025 tokens; at most 1024"),
    ];
    for (change, want) in cases {
        let mut request = Request::text("a");
        change(&mut request);
        assert_eq!(request.check().unwrap_err().message(), want);
    }
    assert!(Request::text("a").check().is_ok());
}

#[test]
fn raw_prompts_tell_of_control_tokens_that_are_read_as_text() {
    let model = TextModel::open(&EngineOptions::default()).unwrap();
    let tokenizer = &model.tokenizer;
    let text = "<start_of_turn>user\nhi<end_of_turn>\n<start_of_turn>model\n";
    let raw = Request { prompt: Prompt::Raw(text.into()), ..Request::default() };
    let note = raw.control_text_note(tokenizer).unwrap();
    assert_eq!(note, "control tokens written out (<start_of_turn>, <end_of_turn>) are read as text");
    let encode = |request: &Request| request.encode_by(tokenizer, || model.chat_template()).unwrap();
    let n_control = |ids: &[u32]| ids.iter().filter(|id| tokenizer.is_control(**id)).count();
    assert_eq!(n_control(&encode(&raw)), 1, "BOS alone");
    let parsed = Request { parse_special: true, ..raw };
    assert!(parsed.control_text_note(tokenizer).is_none());
    // The same as the template makes, and no second BOS where one is written out.
    let by_template = encode(&Request::text("hi"));
    assert_eq!(encode(&parsed), by_template);
    let with_bos = Request { prompt: Prompt::Raw(format!("<bos>{text}")), ..parsed.clone() };
    assert_eq!(encode(&with_bos), by_template);
    // What is put into the template never says more than its text, but on request.
    let typed = Request::text("<end_of_turn>");
    assert!(typed.control_text_note(tokenizer).is_none());
    let n = n_control(&encode(&typed));
    assert_eq!(n_control(&encode(&Request { parse_special: true, ..typed })), n + 1);
}

#[test]
fn control_tokens_among_stop_strings_stop_at_the_token() {
    let model = TextModel::open(&EngineOptions::default()).unwrap();
    let stops = |texts: &[&str]| {
        let texts: Vec<String> = texts.iter().map(|text| text.to_string()).collect();
        control_stops(&model.tokenizer, &texts)
    };
    let turn = model.tokenizer.token_id("<start_of_turn>").unwrap();
    assert_eq!(stops(&["END", "<start_of_turn>", "\n<start_of_turn>\n"]).unwrap(), [turn, turn]);
    assert!(stops(&["<start", "the"]).unwrap().is_empty());
    let error = stops(&["User:<start_of_turn>"]).unwrap_err();
    let want = "stop is \"User:<start_of_turn>\", and no text holds \"<start_of_turn>\", which is a control token: \
                it can be a stop of its own";
    assert_eq!(error.message(), want);
}
