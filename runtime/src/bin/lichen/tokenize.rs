//! `lichen tokenize`: what a model reads of a text. No weight is read.

use clap::Args;
use lichen_runtime::engine::request::{Prompt, Request};
use lichen_runtime::escape::counted;
use lichen_runtime::loader::TextModel;
use lichen_runtime::text::tokenizer::{PieceKind, Tokenizer};
use lichen_runtime::Error;
use serde_json::{json, Value};

use crate::args::{ModelOnlyArgs, TemplateArgs};
use crate::generate::read_stdin;
use crate::opening::control_text_hint;
use crate::output::{self, Outcome};

const EXAMPLES: &str = "Examples:
  lichen tokenize \"What is the capital of India?\"
  lichen tokenize --model gemma-3-1b-it-Q8_0.gguf --chat \"Hello\"
  lichen tokenize --model ./qwen2.5-0.5b --parse-special --ids '<|fim_prefix|>fn main() {<|fim_suffix|>}<|fim_middle|>'
  lichen tokenize --model ./qwen2.5-0.5b --count < README.md

A line of each token: its id, and the bytes it stands for in running text, those that are no whole characters as <E0>. \
What --ids prints, generate --tokens takes. The beginning of a text that the model wants in front is there, as with \
generate --raw; --no-bos leaves it out.";

/// Show the tokens of a text
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct TokenizeArgs {
    /// The text; standard input without one, or for -
    #[arg(value_name = "TEXT", allow_hyphen_values = true)]
    text: Option<String>,
    #[command(flatten)]
    model: ModelOnlyArgs,
    /// Put the text into the chat template, as a user's turn
    #[arg(long)]
    chat: bool,
    #[command(flatten)]
    template: TemplateArgs,
    /// Instructions in front of the conversation
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, requires = "chat")]
    system: Option<String>,
    /// Control tokens written out in the text are tokens, and not text
    #[arg(long)]
    parse_special: bool,
    /// Without the beginning of a text that the model wants in front
    #[arg(long, conflicts_with = "chat")]
    no_bos: bool,
    /// Print the ids alone: 3,1,4
    #[arg(long, conflicts_with_all = ["json", "count"])]
    ids: bool,
    /// Print how many there are, and nothing else
    #[arg(long, conflicts_with = "json")]
    count: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(args: &TokenizeArgs) -> Outcome<()> {
    let mut options = args.model.filled()?;
    args.template.fill(&mut options)?;
    if options.chat_template.is_some() && !args.chat {
        return Err(Error::usage("--chat-template needs --chat").into());
    }
    let text = match args.text.as_deref() {
        None | Some("-") => read_stdin()?,
        Some(text) => text.to_string(),
    };
    let model = TextModel::open(&options)?;
    let prompt = if args.chat { Prompt::Text(text) } else { Prompt::Raw(text) };
    let request =
        Request { prompt, system: args.system.clone(), parse_special: args.parse_special, ..Request::default() };
    let tokenizer = &model.tokenizer;
    if let Some(note) = request.control_text_note(tokenizer) {
        output::note(&format!("note: {note}; {}", control_text_hint()));
    }
    let mut ids = request.encode_by(tokenizer, || model.chat_template())?;
    if args.no_bos && ids.first().copied() == tokenizer.bos_id() && tokenizer.add_bos() {
        ids.remove(0);
    }
    if args.json {
        let tokens: Vec<Value> = ids.iter().map(|id| token_json(tokenizer, *id)).collect();
        return output::json(&json!({"model": model.name, "count": ids.len(), "tokens": tokens}));
    }
    if args.count {
        return output::line(&ids.len().to_string());
    }
    if args.ids {
        let ids: Vec<String> = ids.iter().map(u32::to_string).collect();
        return output::line(&ids.join(","));
    }
    for id in &ids {
        output::line(&format!("{id:>7}  {}", shown(tokenizer.token_bytes(*id))))?;
    }
    output::note(&counted(ids.len() as u64, "token"));
    Ok(())
}

fn token_json(tokenizer: &Tokenizer, id: u32) -> Value {
    let bytes = tokenizer.token_bytes(id);
    let kind = match tokenizer.piece_kind(id) {
        Some(PieceKind::Normal | PieceKind::UserText) => "text",
        Some(PieceKind::Byte) => "byte",
        Some(PieceKind::Marker | PieceKind::Control | PieceKind::Unused) | None => "control",
    };
    match std::str::from_utf8(bytes) {
        Ok(piece) => json!({"id": id, "piece": piece, "kind": kind}),
        // Part of a character.
        Err(_) => json!({"id": id, "piece": String::from_utf8_lossy(bytes), "bytes": bytes, "kind": kind}),
    }
}

/// Bytes between quotes, so that white space shows; what is no text by its numbers.
fn shown(bytes: &[u8]) -> String {
    let mut text = String::from("\"");
    for chunk in bytes.utf8_chunks() {
        text.push_str(&chunk.valid().escape_debug().to_string());
        text.extend(chunk.invalid().iter().map(|byte| format!("<{byte:02X}>")));
    }
    text.push('"');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_show_their_white_space_and_their_broken_characters() {
        for (bytes, want) in [
            (&b" the"[..], "\" the\""),
            (b"\n\t", "\"\\n\\t\""),
            (b"a\xe0\xb2", "\"a<E0><B2>\""),
            ("ನ\"".as_bytes(), "\"ನ\\\"\""),
            (b"", "\"\""),
        ] {
            assert_eq!(shown(bytes), want);
        }
    }
}
