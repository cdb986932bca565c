//! Rows to train on, and damage to them.

use super::random::Random;

const ROWS: [&str; 20] = [
    r#"{"instruction": "अनुवाद", "input": "the ಕನ್ನಡ", "output": "नमस्ते"}"#,
    r#"{"instruction": "<end_of_turn>", "output": "a\nb\u0000<|im_end|>"}"#,
    r#"{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": " b"}]}"#,
    r#"{"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "a"},
       {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}, {"role": "assistant", "content": "d"}]}"#,
    r#"{"input_ids": [2, 4, 319, 7], "labels": [-100, 4, -100, 7]}"#,
    r#"{"input_ids": [2, 5, 6]}"#,
    r#"{"text": "hello the\n\ntheme"}"#,
    r#"[{"text": "a"}, {"input_ids": [1, 2]}]"#,
    r#"{"conversations": [{"from": "system", "value": "s"}, {"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}],
       "system": "s", "id": 7}"#,
    r#"{"prompt": [{"role": "user", "content": "a"}], "completion": [{"role": "assistant", "content": "b"}]}"#,
    r#"{"prompt": "a", "completion": " b", "system_prompt": "the", "history": [["c", "d"], ["e", "f"]]}"#,
    r#"{"question": "a", "context": "b", "answer": "c"}"#,
    r#"{"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, "b"], "weight": 0},
       {"role": "assistant", "content": "c", "train": true}]}"#,
    r#"{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": null, "tool_calls":
       [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{\"x\": 1}"}}]},
       {"role": "tool", "content": "7", "tool_call_id": "1"}, {"role": "assistant", "content": "b"}], "tools": "[]"}"#,
    r#"{"conversations": [{"from": "human", "value": "a"}, {"from": "function_call", "value": "{\"name\": \"f\"}"},
       {"from": "observation", "value": "b"}, {"from": "gpt", "value": "c"}], "tools": [{"name": "f"}]}"#,
    r#"{"input_ids": [0, 2, 4, 7, 0], "attention_mask": [0, 1, 1, 1, 0], "completion_mask": [0, 0, 1, true, 0],
       "assistant_masks": [0, 0, 1, 1, 1], "position_ids": [0, 1, 2, 3, 4]}"#,
    r#"{"text": "<bos><start_of_turn>user\na<end_of_turn>\n<|im_start|>the theme of the the the the the the the the the"}"#,
    "{\n  \"text\": \"a\"\n}\n{\n  \"input_ids\": [\n    1,\n    2\n  ]\n}",
    r#"{"instruction": "the", "input": "the the", "output": "and", "images": [], "name": null}"#,
    "",
];

const INSERTS: [&str; 33] = [
    "\"",
    "\\",
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\n",
    "\r\n",
    "\u{feff}",
    "-100",
    "1e999",
    "4294967296",
    "null",
    "true",
    "\\ud800",
    "\\n",
    "<end_of_turn>",
    "<|im_end|>",
    "<bos>",
    "\"output\": \"x\",",
    "\"labels\": [1],",
    "\"weight\": 0.5,",
    "\"tools\": [{}],",
    "\"attention_mask\": [0, 1],",
    "\"from\": \"human\",",
    "\"images\": [1],",
    "\"history\": [[]],",
    "PAR1",
    "\0",
    "\u{10FFFD}",
    "\u{F0041}",
];

/// Some rows of every shape, most of them damaged.
pub fn rows(random: &mut Random) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..1 + random.below(4) {
        bytes.extend_from_slice(random.pick(&ROWS).replace('\n', " ").as_bytes());
        bytes.push(b'\n');
    }
    for _ in 0..random.below(5) {
        let at = random.below(bytes.len() + 1);
        match random.below(5) {
            0 if at < bytes.len() => bytes[at] = random.number() as u8,
            1 if at < bytes.len() => drop(bytes.remove(at)),
            2 => bytes.truncate(at),
            3 => {
                let from = random.below(at + 1);
                let part = bytes[from..at].to_vec();
                bytes.splice(at..at, part);
            }
            _ => drop(bytes.splice(at..at, random.pick(&INSERTS).bytes())),
        }
    }
    bytes
}
