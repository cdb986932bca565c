//! `lichen generate`: one prompt, one answer; with `--prompts`, many ([`crate::generate_batch`]).

use std::cell::RefCell;
use std::io::Read;
use std::path::Path;

use clap::Args;
use lichen_runtime::engine::answer::{Answer, FinishReason};
use lichen_runtime::engine::request::{Prompt, Request};
use lichen_runtime::engine::{Event, LoadedModel};
use lichen_runtime::signals::CatchInterrupts;
use lichen_runtime::text::tokenizer::TEXT_BYTES_MAX;
use lichen_runtime::Error;
use serde_json::{json, Value};

use crate::args::{engine_options, token_ids, MachineArgs, ModelArgs, SamplingArgs, TemplateArgs, TokenIds};
use crate::generate_batch::{self, BatchArgs, Shared};
use crate::opening::{control_text_hint, defaults, open_with};
use crate::output::{self, Failure, Outcome};

const EXAMPLES: &str = "Examples:
  lichen generate --prompt \"What is the capital of Karnataka?\"
  lichen generate --model gemma-3-1b-it-Q8_0.gguf --prompt - --temperature 0 --json < question.txt
  lichen generate --model ./qwen2.5-0.5b --tokens 3,1,4 --max-new-tokens 16 --temperature 0 --json
  lichen generate --model ./qwen2.5-0.5b --prompts prompts.jsonl --batch 32 --out answers.jsonl
  lichen generate --model ./qwen2.5-0.5b --prompts prompts.jsonl --batch 32 --out answers.jsonl --resume

A line of --prompts is a JSON object with \"prompt\", \"messages\" or \"tokens\", and what it wants of its own: system, \
tools, max_new_tokens (or max_tokens), seed, temperature, top_k, top_p, min_p, repeat_penalty, repeat_last_n, ignore_eos, stop, \
parse_special. The content of a message is a text or a list of text parts. Fields of OpenAI's that would change an answer and \
are not supported are refused by name; unknown ones are listed at the end. A line of answers, written as soon as it is \
finished, has all fields of its prompt, the number of the prompt's line in \"line\", and \"text\", \"finish_reason\", \
\"prompt_tokens\", \"new_tokens\" and \"seed\". Line N draws with the seed N - 1 after --seed, whatever it is batched with. \
Lines that cannot be answered are reported and left out, and the exit code is 1. Ctrl-C finishes what has begun; --resume \
goes on with the rest.";

/// Answer one prompt, or a file of them
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct GenerateArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    /// The prompt, put into the model's chat template; - reads it from standard input
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    prompt: Option<String>,
    /// Take the prompt as it is, without the chat template
    #[arg(long, conflicts_with_all = ["system", "tokens"])]
    pub raw: bool,
    /// The prompt as token ids, as they are: 3,1,4
    #[arg(long, value_name = "IDS", allow_hyphen_values = true, conflicts_with_all = ["prompt", "system"],
          value_parser = token_ids)]
    tokens: Option<TokenIds>,
    #[command(flatten)]
    pub batch: BatchArgs,
    #[command(flatten)]
    pub sampling: SamplingArgs,
    #[command(flatten)]
    pub machine: MachineArgs,
    #[command(flatten)]
    pub template: TemplateArgs,
    /// Print one JSON object instead of the text; with --prompts, a summary
    #[arg(long)]
    pub json: bool,
}

pub fn run(args: &GenerateArgs) -> Outcome<()> {
    if let Some(prompts) = &args.batch.prompts {
        let GenerateArgs { model, machine, template, sampling, raw, json, .. } = args;
        let shared = Shared { model, machine, template, sampling, raw: *raw, json: *json };
        return generate_batch::run(&args.batch, &shared, prompts);
    }
    if args.prompt.is_none() && args.tokens.is_none() {
        return Err(Error::usage("--prompt TEXT, --tokens IDS or --prompts FILE is needed").into());
    }
    let text = match args.prompt.as_deref() {
        Some("-") => Some(read_stdin()?),
        other => other.map(str::to_string),
    };
    let defaults = defaults(&args.sampling)?;
    let mut options = engine_options(&args.model, &args.machine)?;
    args.template.fill(&mut options)?;
    let mut engine = open_with(&options)?;
    let request = Request { prompt: prompt(args, text), ..Request::default() }.with_defaults(&defaults);
    let tokenizer = engine.model().tokenizer.as_deref();
    if let Some(note) = tokenizer.and_then(|tokenizer| request.control_text_note(tokenizer)) {
        output::note(&format!("note: {note}; {}", control_text_hint()));
    }
    let sampling = request.sampling.resolve(engine.model().default_sampling);
    let interrupts = CatchInterrupts::new();
    let shown = RefCell::new(Ok(()));
    let mut on_event = |event: Event<'_>| {
        let is_wanted = !args.json && shown.borrow().is_ok();
        if let Event::Text { text, .. } = event {
            if is_wanted {
                *shown.borrow_mut() = output::text(text);
            }
        }
    };
    let mut should_stop = || interrupts.interrupted() || shown.borrow().is_err();
    let (_, answer) = engine.run(request, &mut on_event, &mut should_stop)?;
    let model = engine.model();
    shown.into_inner()?;
    if args.json {
        output::json(&as_json(model, sampling.seed, &answer))?;
    } else if model.tokenizer.is_none() {
        let ids: Vec<String> = answer.token_ids.iter().map(u32::to_string).collect();
        output::line(&ids.join(","))?;
    } else {
        output::line("")?;
    }
    if answer.finish_reason == FinishReason::Cancel {
        Err(Failure::Interrupted)
    } else {
        Ok(())
    }
}

pub fn read_stdin() -> Outcome<String> {
    let stdin = Path::new("standard input");
    let mut bytes = Vec::new();
    let limit = TEXT_BYTES_MAX as u64 + 1;
    std::io::stdin().lock().take(limit).read_to_end(&mut bytes).map_err(|e| Error::io(stdin, &e))?;
    if bytes.len() > TEXT_BYTES_MAX {
        return Err(Error::limit(format!("more than {TEXT_BYTES_MAX} bytes")).in_file(stdin).into());
    }
    let text = String::from_utf8(bytes);
    text.map_err(|e| Error::input(format!("byte {} is not UTF-8", e.utf8_error().valid_up_to())).in_file(stdin).into())
}

fn prompt(args: &GenerateArgs, text: Option<String>) -> Prompt {
    match (&args.tokens, text.unwrap_or_default()) {
        (Some(TokenIds(ids)), _) => Prompt::Tokens(ids.clone()),
        (None, text) if args.raw => Prompt::Raw(text),
        (None, text) => Prompt::Text(text),
    }
}

fn as_json(model: &LoadedModel, seed: u64, answer: &Answer) -> Value {
    let timings = &answer.timings;
    json!({
        "model": model.name,
        "token_ids": answer.token_ids,
        "text": model.tokenizer.as_ref().map(|_| &answer.text),
        "finish_reason": answer.finish_reason.name(),
        "prompt_tokens": timings.prompt_tokens,
        "reused_tokens": timings.reused_tokens,
        "seed": seed,
        "timings": {
            "load_s": model.load_s,
            "prefill_s": timings.prefill_s,
            "decode_s": timings.decode_s,
            "prefill_tokens_per_s": timings.prefill_tokens_per_s(),
            "decode_tokens_per_s": timings.decode_tokens_per_s(),
        },
    })
}
