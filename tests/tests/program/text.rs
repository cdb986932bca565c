//! Tokens, templates and sampling values of a model, as users meet them.

use lichen_tests::programs::{fixture, TempDir};
use serde_json::{json, Value};

use crate::{lichen, lichen_with_input};

const QUESTION: &str = "What is the capital of India?";
const RENDERED: &str = "<start_of_turn>user\nWhat is the capital of India?<end_of_turn>\n<start_of_turn>model\n";

#[test]
fn tokenize_shows_what_generate_reads() {
    let ids = lichen(&["tokenize", "--chat", "--ids", QUESTION]).ok().stdout;
    let ids = ids.trim();
    let args = ["generate", "--temperature", "0", "--json", "--tokens", ids];
    assert_eq!(lichen(&args).json()["text"], "The capital of India is New Delhi.");
    let n = ids.split(',').count();
    assert_eq!(lichen(&["tokenize", "--chat", "--count", QUESTION]).ok().stdout, format!("{n}\n"));
    // The same written out and parsed, from standard input.
    let parsed = lichen_with_input(&["tokenize", "--parse-special", "--ids"], RENDERED).ok();
    assert_eq!((parsed.stdout.trim(), parsed.stderr.as_str()), (ids, ""));
    let read_as_text = lichen(&["tokenize", "--count", RENDERED]).ok();
    assert!(read_as_text.stdout.trim().parse::<usize>().unwrap() > n);
    assert!(read_as_text.stderr.contains("--parse-special reads them as tokens"), "{}", read_as_text.stderr);
    let json = lichen(&["tokenize", "--json", "ಕ \n"]).json();
    let tokens = json["tokens"].as_array().unwrap();
    assert_eq!((json["count"].as_u64(), &tokens[0]["kind"]), (Some(tokens.len() as u64), &json!("control")));
    let pieces: String = tokens[1..].iter().map(|t| t["piece"].as_str().unwrap()).collect();
    assert_eq!(pieces, "ಕ \n");
    let without = lichen(&["tokenize", "--no-bos", "--json", "ಕ \n"]).json();
    assert_eq!(without["tokens"].as_array().unwrap()[..], tokens[1..]);
    let lines = lichen(&["tokenize", "a\n"]).ok();
    assert!(lines.stdout.contains("\"<bos>\"") && lines.stdout.ends_with("\"\\n\"\n"), "{}", lines.stdout);
    for (args, said) in [
        (&["tokenize", "--chat-template", "gemma", "x"][..], "--chat-template needs --chat"),
        (&["tokenize", "--ids", "--json", "x"], "cannot be used with"),
        (&["tokenize", "--system", "s", "x"], "--chat"),
    ] {
        let run = lichen(args);
        assert!(run.code == Some(2) && run.stderr.contains(said), "{args:?}: {}", run.stderr);
    }
}

#[test]
fn raw_prompts_with_control_tokens_are_told_or_parsed() {
    let args = ["generate", "--raw", "--prompt", RENDERED, "--temperature", "0", "--json"];
    let told = lichen(&args);
    let note =
        "note: control tokens written out (<start_of_turn>, <end_of_turn>) are read as text; --parse-special reads";
    assert!(told.stderr.contains(note), "{}", told.stderr);
    let parsed = lichen(&[&args[..], &["--parse-special"]].concat());
    assert!(!parsed.stderr.contains("control tokens"), "{}", parsed.stderr);
    assert_eq!(parsed.json()["text"], "The capital of India is New Delhi.");
    let lines =
        [json!({"prompt": RENDERED}), json!({"prompt": RENDERED, "parse_special": true}), json!({"prompt": RENDERED})];
    let input: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let args = ["generate", "--raw", "--prompts", "-", "--temperature", "0", "--max-new-tokens", "12"];
    let run = lichen_with_input(&args, &input).ok();
    assert!(run.stderr.contains("in 2 lines, first in line 1, control tokens written out"), "{}", run.stderr);
    let second = run.stdout.lines().find(|line| line.starts_with("{\"line\":2")).unwrap();
    assert!(second.contains("The capital of India is New Delhi."), "{second}");
}

#[test]
fn fields_of_lines_are_used_refused_or_counted() {
    let template = TempDir::new("text");
    let source = "{{ bos_token }}{% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}<start_of_turn>\
                  {{ m.role }}\n{{ m.content }}<end_of_turn>\n{% endfor %}<start_of_turn>model\n";
    std::fs::write(template.path("t.jinja"), source).unwrap();
    let file = template.file("t.jinja");
    let parts = json!([{"type": "text", "text": QUESTION}]);
    let tool = json!({"type": "function", "function": {"name": "move"}});
    let lines = [
        json!({"prompt": QUESTION, "max_tokens": 3, "lang": "en"}),
        json!({"messages": [{"role": "user", "content": parts}], "max_completion_tokens": 3, "lang": "hi", "x": 1}),
        json!({"prompt": QUESTION, "tools": [tool], "max_tokens": 3}),
        json!({"prompt": QUESTION, "n": 2}),
    ];
    let input: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let args = ["generate", "--prompts", "-", "--temperature", "0"];
    let run = lichen_with_input(&[&args[..], &["--chat-template", &file]].concat(), &input);
    assert_eq!(run.code, Some(1), "{}", run.stderr);
    assert!(run.stderr.contains("line 4: has \"n\": 2, which is not supported"), "{}", run.stderr);
    assert!(
        run.stderr.contains("note: unknown fields, copied to the answers: lang (2 lines), x (1 line)"),
        "{}",
        run.stderr
    );
    let answers: Vec<Value> = run.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of_line = |n: u64, field: &str| answers.iter().find(|a| a["line"] == n).unwrap()[field].as_u64().unwrap();
    assert_eq!([1, 2, 3].map(|n| of_line(n, "new_tokens")), [3, 3, 3]);
    assert_eq!(of_line(1, "prompt_tokens"), of_line(2, "prompt_tokens"));
    assert!(of_line(3, "prompt_tokens") > of_line(1, "prompt_tokens") + 5);
    // The demo model's own template has no place for tools, and says so.
    let run = lichen_with_input(&args, &format!("{}\n", lines[2]));
    assert!(run.code == Some(1) && run.stderr.contains("has no place for tools"), "{}", run.stderr);
    let bad = lichen(&["generate", "--prompt", "x", "--chat-template", "/nowhere"]);
    bad.refuses(&["is neither a file nor a built-in chat template"]);
}

/// A folder's `generation_config.json` comes before the family's values, and flags before both.
#[test]
fn a_models_own_sampling_values_are_its_defaults() {
    let dir = TempDir::new("text");
    for name in ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(fixture(&format!("tiny-qwen2-tied/{name}")), dir.path(name)).unwrap();
    }
    let model = dir.file("");
    let args = ["generate", "--model", &model, "--tokens", "3,1,4", "--max-new-tokens", "12", "--json", "--ignore-eos"];
    let ids = |config: &Value, more: &[&str]| {
        std::fs::write(dir.path("generation_config.json"), config.to_string()).unwrap();
        lichen(&[&args[..], more].concat()).token_ids()
    };
    let greedy = ids(&json!({}), &["--temperature", "0"]);
    // Hot, but one candidate; or not sampled at all: the seed does not matter.
    for config in [
        json!({"do_sample": true, "temperature": 5.0, "top_k": 1, "repetition_penalty": 1.0}),
        json!({"do_sample": false}),
        json!({"do_sample": true, "temperature": 0.001, "repetition_penalty": 1.0}),
    ] {
        for seed in ["1", "2"] {
            assert_eq!(ids(&config, &["--seed", seed]), greedy, "{config}");
        }
    }
    let hot = json!({"do_sample": true, "temperature": 5.0, "top_k": 0, "top_p": 1.0});
    assert_ne!(ids(&hot, &["--seed", "1"]), ids(&hot, &["--seed", "2"]));
    assert_eq!(ids(&hot, &["--seed", "2", "--temperature", "0"]), greedy);
    for (config, words) in [
        (json!({"temperature": "hot"}), &["generation_config.json", "temperature is \"hot\"; 0 to 5"][..]),
        (json!({"eos_token_id": [5, 99999999]}), &["generation_config.json", "eos token id 99999999 is outside"]),
    ] {
        std::fs::write(dir.path("generation_config.json"), config.to_string()).unwrap();
        lichen(&args).refuses(words);
    }
}

/// A template that keeps only the end of earlier answers: the chat goes on, and computes what differs.
#[test]
fn a_chat_follows_a_template_that_rewrites_answers() {
    let dir = TempDir::new("text");
    let source = "{{ bos_token }}{% for m in messages %}{% set text = m.content %}{% if m.role == 'assistant' %}{% if '<' in text \
                  or ' is ' in text %}{% set text = text.split(' is ')[-1] %}{% endif %}{% endif %}<start_of_turn>\
                  {{ 'model' if m.role == 'assistant' else 'user' }}\n{{ text }}<end_of_turn>\n{% endfor %}\
                  {% if add_generation_prompt %}<start_of_turn>model\n{% endif %}";
    std::fs::write(dir.path("t.jinja"), source).unwrap();
    let input = format!("{QUESTION}\n{QUESTION}\n/stats\n{QUESTION}\n");
    let args = ["chat", "--temperature", "0", "--threads", "1", "--chat-template", &dir.file("t.jinja")];
    let run = lichen_with_input(&args, &input).ok();
    assert!(run.stdout.starts_with("The capital of India is New Delhi.\n"), "{}", run.stdout);
    // "New Delhi." alone is what the second prompt holds of the first answer.
    let first = lichen(&["tokenize", "--chat", "--count", QUESTION]).ok().stdout.trim().parse::<usize>().unwrap();
    let kept = lichen(&["tokenize", "--no-bos", "--count", "New Delhi."]).ok().stdout.trim().parse::<usize>().unwrap();
    // BOS and the opening stand once in each: 3 of scaffolding after an answer.
    let stats = run.stdout.lines().find(|line| line.starts_with("prompt ")).unwrap();
    let prompt: usize = stats.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(prompt <= 2 * first + kept + 3 && prompt > first + kept, "{stats}: {first} and {kept}");
    let answers = run.stdout.lines().filter(|line| line.ends_with("Delhi.")).count();
    assert!(answers >= 1 && run.stderr.lines().all(|line| !line.contains("error")), "{} {}", run.stdout, run.stderr);
}
