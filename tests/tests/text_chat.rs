//! Chat templates over the public API: equal prompts, no injection, limits.

#[path = "text_support/mod.rs"]
mod text_support;

use lichen_runtime::text::chat_template::{
    encode_chat, encode_continuation, ChatTemplate, JinjaTemplate, Message, Role,
};
use lichen_runtime::text::tokenizer::Tokenizer;
use text_support::{byte_level_arrays, spm_arrays, Random, NASTY_TEXTS};

/// As released Gemma 3 instruct models have it.
const GEMMA: &str = r#"{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- if messages[0]['content'] is string -%}
        {%- set first_user_prefix = messages[0]['content'] + '

' -%}
    {%- else -%}
        {%- set first_user_prefix = messages[0]['content'][0]['text'] + '

' -%}
    {%- endif -%}
    {%- set loop_messages = messages[1:] -%}
{%- else -%}
    {%- set first_user_prefix = "" -%}
    {%- set loop_messages = messages -%}
{%- endif -%}
{%- for message in loop_messages -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception("Conversation roles must alternate user/assistant/user/assistant/...") }}
    {%- endif -%}
    {%- if (message['role'] == 'assistant') -%}
        {%- set role = "model" -%}
    {%- else -%}
        {%- set role = message['role'] -%}
    {%- endif -%}
    {{ '<start_of_turn>' + role + '
' + (first_user_prefix if loop.first else "") }}
    {%- if message['content'] is string -%}
        {{ message['content'] | trim }}
    {%- elif message['content'] is iterable -%}
        {%- for item in message['content'] -%}
            {%- if item['type'] == 'image' -%}
                {{ '<start_of_image>' }}
            {%- elif item['type'] == 'text' -%}
                {{ item['text'] | trim }}
            {%- endif -%}
        {%- endfor -%}
    {%- else -%}
        {{ raise_exception("Invalid content type") }}
    {%- endif -%}
    {{ '<end_of_turn>
' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{'<start_of_turn>model
'}}
{%- endif -%}
"#;

/// As Qwen 2.5 instruct models have it.
const QWEN: &str = r#"{%- if tools %}
    {{- '<|im_start|>system\n' }}
    {%- if messages[0]['role'] == 'system' %}
        {{- messages[0]['content'] }}
    {%- else %}
        {{- 'You are Qwen, created by Alibaba Cloud. You are a helpful assistant.' }}
    {%- endif %}
    {{- "\n\n# Tools\n\n<tools>" }}
    {%- for tool in tools %}
        {{- "\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\n</tools><|im_end|>\n" }}
{%- else %}
    {%- if messages[0]['role'] == 'system' %}
        {{- '<|im_start|>system\n' + messages[0]['content'] + '<|im_end|>\n' }}
    {%- else %}
        {{- '<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n' }}
    {%- endif %}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) or (message.role == "assistant" and not message.tool_calls) %}
        {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}
    {%- elif message.role == "assistant" %}
        {{- '<|im_start|>' + message.role }}
        {%- if message.content %}
            {{- '\n' + message.content }}
        {%- endif %}
        {{- '<|im_end|>\n' }}
    {%- elif message.role == "tool" %}
        {%- if (loop.index0 == 0) or (messages[loop.index0 - 1].role != "tool") %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\n<tool_response>\n' }}
        {{- message.content }}
        {{- '\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
            {{- '<|im_end|>\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
{%- endif %}
"#;

fn gemma_tokenizer() -> Tokenizer {
    let arrays = spm_arrays();
    let rows = arrays.tokens.len();
    Tokenizer::from_arrays(arrays, rows).unwrap()
}

fn qwen_tokenizer() -> Tokenizer {
    let arrays = byte_level_arrays();
    let rows = arrays.tokens.len();
    Tokenizer::from_arrays(arrays, rows).unwrap()
}

fn jinja(source: &str) -> ChatTemplate {
    ChatTemplate::Jinja(Box::new(JinjaTemplate::new(source, "<bos>", "<eos>").unwrap()))
}

fn text(template: &ChatTemplate, messages: &[Message], prompt: bool) -> String {
    template.render(messages, prompt).unwrap().iter().map(|segment| segment.text.as_str()).collect()
}

/// Both tokenizers, each with its built-in template and the model's own.
fn pairs() -> [(Tokenizer, ChatTemplate); 4] {
    [
        (gemma_tokenizer(), ChatTemplate::Gemma),
        (gemma_tokenizer(), jinja(GEMMA)),
        (qwen_tokenizer(), ChatTemplate::ChatMl),
        (qwen_tokenizer(), jinja(QWEN)),
    ]
}

fn conversation(random: &mut Random, contents: &[String]) -> Vec<Message> {
    let mut pick = || contents[random.below(contents.len())].clone();
    let mut messages = vec![Message::system(pick()), Message::user(pick()), Message::assistant(pick())];
    messages.push(Message::user(pick()));
    messages.drain(..if pick().len() % 2 == 0 { 1 } else { 0 });
    messages
}

#[test]
fn conversations_read_as_the_models_were_trained() {
    let messages =
        [Message::system("Be brief."), Message::user(" Hi \n"), Message::assistant("Yes. "), Message::user("Bye")];
    let gemma = "<bos><start_of_turn>user\nBe brief.\n\nHi<end_of_turn>\n<start_of_turn>model\nYes.<end_of_turn>\n\
                 <start_of_turn>user\nBye<end_of_turn>\n<start_of_turn>model\n";
    let qwen = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n Hi \n<|im_end|>\n\
                <|im_start|>assistant\nYes. <|im_end|>\n<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n";
    for template in [ChatTemplate::Gemma, jinja(GEMMA)] {
        assert_eq!(text(&template, &messages, true), gemma);
    }
    for template in [ChatTemplate::ChatMl, jinja(QWEN)] {
        assert_eq!(text(&template, &messages, true), qwen);
        let without_system = text(&template, &messages[1..2], false);
        assert!(without_system.starts_with("<|im_start|>system\nYou are Qwen, created by Alibaba Cloud."));
    }
}

#[test]
fn template_and_built_in_agree_and_equal_encoding_the_whole_text() {
    let contents: Vec<String> = NASTY_TEXTS.iter().map(|text| text.to_string()).collect();
    let mut random = Random::new(3);
    let [gemma, gemma_jinja, qwen, qwen_jinja] = pairs();
    for _ in 0..200 {
        let messages = conversation(&mut random, &contents);
        for (built_in, own) in [(&gemma, &gemma_jinja), (&qwen, &qwen_jinja)] {
            let (tokenizer, template) = built_in;
            let ids = encode_chat(tokenizer, template, &messages, true).unwrap();
            assert_eq!(ids, encode_chat(&own.0, &own.1, &messages, true).unwrap(), "{messages:?}");
            let benign = messages
                .iter()
                .all(|m| tokenizer.encode_with_markers(&m.content).unwrap() == tokenizer.encode(&m.content).unwrap());
            if benign {
                let whole = text(template, &messages, true);
                assert_eq!(ids, tokenizer.encode_with_markers(&whole).unwrap(), "{messages:?}");
            }
        }
    }
}

#[test]
fn no_control_token_comes_from_a_message() {
    let mut random = Random::new(5);
    for (tokenizer, template) in pairs() {
        let control: Vec<u32> = (0..tokenizer.vocab_size() as u32).filter(|&id| tokenizer.is_control(id)).collect();
        let markers: Vec<String> =
            control.iter().map(|&id| String::from_utf8_lossy(tokenizer.token_bytes(id)).into_owned()).collect();
        let n_control = |messages: &[Message]| {
            let ids = encode_chat(&tokenizer, &template, messages, true).unwrap();
            ids.into_iter().filter(|&id| tokenizer.is_control(id)).collect::<Vec<u32>>()
        };
        for _ in 0..200 {
            let mut hostile = Vec::new();
            for _ in 0..4 {
                let marker = &markers[random.below(markers.len())];
                let cut = (0..=marker.len())
                    .filter(|&at| marker.is_char_boundary(at))
                    .nth(random.below(marker.len()))
                    .unwrap();
                let spaces = " ".repeat(random.below(3));
                let parts = [marker.as_str(), &marker[..cut], &marker[cut..], "x", "\n", "<", ">"];
                hostile.push(
                    (0..1 + random.below(5)).map(|_| parts[random.below(parts.len())]).collect::<String>() + &spaces,
                );
            }
            let messages = conversation(&mut random, &hostile);
            let benign: Vec<Message> = messages.iter().map(|m| Message::new(m.role, "x")).collect();
            assert_eq!(n_control(&messages), n_control(&benign), "{messages:?}");
        }
    }
}

#[test]
fn bos_stands_once() {
    let tokenizer = gemma_tokenizer();
    let bos = tokenizer.bos_id().unwrap();
    for template in [ChatTemplate::Gemma, jinja(GEMMA), jinja("{{ messages[0].content }}")] {
        let ids = encode_chat(&tokenizer, &template, &[Message::user("hello")], true).unwrap();
        assert_eq!((ids[0], ids.iter().filter(|&&id| id == bos).count()), (bos, 1), "{ids:?}");
    }
    let ids = encode_chat(&qwen_tokenizer(), &ChatTemplate::ChatMl, &[Message::user("hello")], true).unwrap();
    assert_eq!(ids[0], qwen_tokenizer().token_id("<|im_start|>").unwrap());
}

#[test]
fn a_continuation_is_what_the_next_prompt_adds() {
    let contents: Vec<String> = NASTY_TEXTS.iter().map(|text| text.to_string()).collect();
    let mut random = Random::new(9);
    for (tokenizer, template) in pairs() {
        for round in 0..100 {
            // Trimmed, so that the answer's own ids are what a fresh prompt holds for it.
            let trimmed: Vec<String> =
                contents.iter().map(|c| c.trim().to_string()).filter(|c| !c.is_empty()).collect();
            let mut messages = conversation(&mut random, &trimmed);
            let prompt = encode_chat(&tokenizer, &template, &messages, true).unwrap();
            let answer = &trimmed[round % trimmed.len()];
            messages.push(Message::assistant(answer.clone()));
            let next = &trimmed[random.below(trimmed.len())];
            let after = encode_continuation(&tokenizer, &template, &messages, next, &[]).unwrap();
            let incremental = [prompt.clone(), tokenizer.encode(answer).unwrap(), after].concat();
            messages.push(Message::user(next.clone()));
            let whole = encode_chat(&tokenizer, &template, &messages, true).unwrap();
            // The opening "model\n" and a first line break of the answer may merge in a fresh prompt.
            if tokenizer.encode(&format!("\n{answer}")).unwrap()
                == [tokenizer.encode("\n").unwrap(), tokenizer.encode(answer).unwrap()].concat()
            {
                assert_eq!(incremental, whole, "{messages:?}");
                assert!(whole.starts_with(&prompt));
            }
        }
    }
}

#[test]
fn an_empty_answer_can_be_continued() {
    let messages = [Message::user("a"), Message::assistant("")];
    let ids = encode_continuation(&gemma_tokenizer(), &ChatTemplate::Gemma, &messages, "b", &[]).unwrap();
    let text = gemma_tokenizer().decode_with_markers(&ids);
    assert_eq!(text, "<end_of_turn>\n<start_of_turn>user\nb<end_of_turn>\n<start_of_turn>model\n");
    let error = encode_continuation(&gemma_tokenizer(), &ChatTemplate::Gemma, &messages[..1], "b", &[]).unwrap_err();
    assert_eq!(error.message(), "the conversation does not end with an answer");
}

#[test]
fn roles_out_of_turn_are_refused() {
    let messages = [Message::user("a"), Message::user("b")];
    let error = ChatTemplate::Gemma.render(&messages, true).unwrap_err();
    assert_eq!(
        error.message(),
        "chat template: turn 2 is from user; assistant expected (roles must alternate user/assistant)"
    );
    let error = jinja(GEMMA).render(&messages, true).unwrap_err();
    let said = "Conversation roles must alternate user/assistant/user/assistant/...";
    assert!(error.message().starts_with("chat template, line ") && error.message().ends_with(said), "{error}");
}

#[test]
fn python_is_spoken() {
    let cases = [
        ("{{ ' a '.strip() + '|' + 'xxaxx'.lstrip('x') + '|' + 'a  '.rstrip() }}", "a|axx|a"),
        (
            "{{ 'a,b,c'.split(',') | join('-') }}{{ 'a b  c'.split() | length }}{{ 'a-b-c'.split('-', 1)[1] }}",
            "a-b-c3b-c",
        ),
        ("{{ 'a-b-c'.rsplit('-', 1)[0] }}", "a-b"),
        ("{{ 'abc'.startswith('ab') }} {{ 'abc'.endswith(('x', 'c')) }}", "True True"),
        ("{{ 'ab'.upper() + 'AB'.lower() + 'ab cd'.title() + 'abab'.replace('a', 'c') }}", "ABabAb Cdcbcb"),
        ("{% for k, v in {'a': 1, 'b': 2}.items() %}{{ k }}{{ v }}{% endfor %}{{ {'a': 1}.get('b', 7) }}", "a1b27"),
        ("{{ {'a': 1, 'b': 2}.keys() | list | join(',') }}{{ {'a': 3}.values() | first }}", "a,b3"),
        (
            "{{ {'a': '<b> & \\'c\\' \\\\u003c', 'd': [1, true, none]} | tojson }}",
            r#"{"a": "<b> & 'c' \\u003c", "d": [1, true, null]}"#,
        ),
        ("{% set ns = namespace(x=0) %}{% for i in range(3) %}{% set ns.x = ns.x + i %}{% endfor %}{{ ns.x }}", "3"),
        ("{% if tools is not none %}t{% endif %}{{ strftime_now('%Y') | int > 2020 }}", "True"),
        ("{% if true %}\n  {% set x = 1 %}\nline\n{% endif %}", "line\n"),
    ];
    for (source, want) in cases {
        assert_eq!(text(&jinja(source), &[Message::user("x")], false), want, "{source}");
    }
}

#[test]
fn segments_tell_message_from_template() {
    let segments = ChatTemplate::Gemma.render(&[Message::user("a <b> \u{1F600} c")], true).unwrap();
    let content: Vec<&str> = segments.iter().filter(|s| s.is_content).map(|s| s.text.as_str()).collect();
    assert_eq!(content, ["a <b> \u{1F600} c"]);
    assert_eq!(segments.len(), 3);
}

#[test]
fn templates_that_look_inside_messages_work_and_stay_safe() {
    let thinking = "{% for m in messages %}<start_of_turn>{{ m.content.split('STOP')[-1] }}{% if 'STOP' in m.content %}!{% endif %}<end_of_turn>{% endfor %}";
    let tokenizer = gemma_tokenizer();
    let ids = encode_chat(&tokenizer, &jinja(thinking), &[Message::user("xSTOP<end_of_turn>y")], false).unwrap();
    assert_eq!(ids.iter().filter(|&&id| tokenizer.is_control(id)).count(), 3, "bos, start, end");
    // What compares a message with what it has printed cannot be kept apart.
    let inspects = "{% set m %}<{% endset %}{{ messages[0].content }}{{ m in messages[0].content }}";
    let error = jinja(inspects).render(&[Message::user("a<b")], false).unwrap_err();
    assert!(error.message().starts_with("chat template: rewrites the messages"), "{error}");
    assert_eq!(text(&jinja(inspects), &[Message::user("ab")], false), "abFalse");
}

#[test]
fn private_characters_in_messages_are_just_text() {
    for content in ["\u{F0041}", "\u{100041}", "\u{E000}\u{F8FF}", "\u{10FFFD}", "\u{F0041}\u{FFFD}\u{FFFF}"] {
        let template = ChatTemplate::Gemma;
        assert!(text(&template, &[Message::user(content)], false).contains(content));
        let ids = encode_chat(&gemma_tokenizer(), &template, &[Message::user(content)], false).unwrap();
        assert_eq!(ids.iter().filter(|&&id| gemma_tokenizer().is_control(id)).count(), 3);
    }
    let error = ChatTemplate::Gemma.render(&[Message::user("\u{F0041}\u{100041}")], false).unwrap_err();
    assert_eq!(error.message(), "the messages use both private planes of Unicode");
}

#[test]
fn hostile_templates_are_refused_in_one_sentence() {
    // Closing them too would pass the size limit.
    let nested = "{%if 1%}".repeat(5500);
    let cases = [
        ("a\nb\n{{ x if %}".to_string(), "chat template, line 3: unexpected \"%\""),
        ("{% if %}".to_string(), "chat template, line 1: unexpected \"%}\""),
        ("{% for i in range(10**9) %}{% endfor %}".to_string(), "chat template: used more than 100,000 steps"),
        (
            "{% for i in range(90000) %}{% for j in range(90000) %}{% endfor %}{% endfor %}".to_string(),
            "chat template: used more than 100,000 steps",
        ),
        ("{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}".to_string(), "chat template: nested deeper than 64"),
        (
            "{% set ns = namespace(x='aaaaaaaa') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}"
                .to_string(),
            "chat template: used more than 100,000 steps",
        ),
        (nested, "chat template: nested deeper than 64"),
        (format!("{{{{ {}1{} }}}}", "(".repeat(5000), ")".repeat(5000)), "chat template: nested deeper than 64"),
        (format!("{{{{ {}true }}}}", "not ".repeat(9000)), "chat template: nested deeper than 64"),
        (format!("{{{{ 1{} }}}}", "~1".repeat(9000)), "chat template: nested deeper than 64"),
        (format!("{{% if a %}}{}{{% endif %}}", "{% elif a %}".repeat(4000)), "chat template: nested deeper than 64"),
        (
            format!("{{% for i in range(2500) %}}{}{{% endfor %}}", "x".repeat(500)),
            "chat template: wrote more than 1 MiB",
        ),
        ("a\n{% include 'x' %}".to_string(), "chat template, line 2: \"include\" is not available"),
        ("{%- import 'x' as y %}".to_string(), "chat template, line 1: \"import\" is not available"),
        ("{% extends 'x' %}".to_string(), "chat template, line 1: \"extends\" is not available"),
        ("\n{{ messages | frobnicate }}".to_string(), "chat template, line 2: \"frobnicate\" is not available"),
        ("{{ frobnicate(1) }}".to_string(), "chat template, line 1: \"frobnicate\" is not available"),
        ("{{ 'a'.frobnicate() }}".to_string(), "chat template, line 1: \"frobnicate\" is not available"),
        ("{% frobnicate %}".to_string(), "chat template, line 1: \"frobnicate\" is not available"),
        ("x".repeat(65 * 1024), "chat template: is 65 KiB long; at most 64 KiB"),
        ("{{ raise_exception('no') }}".to_string(), "chat template, line 1: no"),
    ];
    let mut wrong = String::new();
    for (source, want) in cases {
        let shown: String = source.chars().take(60).collect();
        let outcome = JinjaTemplate::new(&source, "", "").and_then(|template| {
            ChatTemplate::Jinja(Box::new(template)).render(&[Message::new(Role::User, "hi")], true)
        });
        let got = outcome.map_err(|e| e.message().to_string());
        if got != Err(want.to_string()) {
            wrong.push_str(&format!("{shown}\n  want {want}\n  got  {got:?}\n"));
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}
