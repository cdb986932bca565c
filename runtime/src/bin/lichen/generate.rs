//! `lichen generate`: one prompt, one answer; with `--prompts`, many ([`crate::generate_batch`]).

use std::io::Read;
use std::ops::ControlFlow;
use std::path::Path;

use clap::Args;
use lichen_runtime::adapter::{Adapter, TARGETS};
use lichen_runtime::chat_template::{encode_chat, Message};
use lichen_runtime::engine::{Engine, EngineOptions};
use lichen_runtime::generation::{generate, Answer, FinishReason, Request};
use lichen_runtime::sampler::{Sampler, SamplerConfig};
use lichen_runtime::signals::CatchInterrupts;
use lichen_runtime::tokenizer::{Tokenizer, TEXT_BYTES_MAX};
use lichen_runtime::Error;
use serde_json::{json, Value};

use crate::args::{token_ids, MachineArgs, ModelArgs, SamplingArgs, TokenIds};
use crate::generate_batch::{self, BatchArgs};
use crate::output::{self, Failure, Outcome};

const EXAMPLES: &str = "Examples:
  lichen generate --prompt \"What is the capital of Karnataka?\"
  lichen generate --model gemma-3-1b-it-Q8_0.gguf --prompt - --temperature 0 --json < question.txt
  lichen generate --model ./qwen2.5-0.5b --tokens 3,1,4 --max-new-tokens 16 --temperature 0 --json
  lichen generate --model ./qwen2.5-0.5b --prompts prompts.jsonl --batch 32 --out answers.jsonl
  lichen generate --model ./qwen2.5-0.5b --prompts prompts.jsonl --batch 32 --out answers.jsonl --resume

A line of --prompts is a JSON object with \"prompt\", \"messages\" or \"tokens\", and what it wants of its own: system, \
max_new_tokens, seed, temperature, top_k, top_p, min_p, repeat_penalty, stop. A line of answers, written as soon as it is \
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
    /// Print one JSON object instead of the text; with --prompts, a summary
    #[arg(long)]
    pub json: bool,
}

pub fn run(args: &GenerateArgs) -> Outcome<()> {
    if let Some(prompts) = &args.batch.prompts {
        return generate_batch::run(args, prompts);
    }
    if args.prompt.is_none() && args.tokens.is_none() {
        return Err(Error::usage("--prompt TEXT, --tokens IDS or --prompts FILE is needed").into());
    }
    let text = match args.prompt.as_deref() {
        Some("-") => Some(read_stdin()?),
        other => other.map(str::to_string),
    };
    let engine = open_with(&args.machine.options(&args.model)?)?;
    let prompt = encode(args, &engine, text.as_deref())?;
    let config = sampling(&args.sampling, &engine);
    let mut sampler = Sampler::new(config, engine.model.config.vocab_size)?;
    let mut session = engine.session()?;
    let stop_ids = engine.stop_ids();
    let request = Request {
        prompt: &prompt,
        max_new_tokens: args.sampling.max_new_tokens,
        stop_ids: &stop_ids,
        stop: &args.sampling.stop,
    };
    let interrupts = CatchInterrupts::new();
    let mut shown = Ok(());
    let mut on_text = |piece: &str| {
        if !args.json && !piece.is_empty() && shown.is_ok() {
            shown = output::text(piece);
        }
        if interrupts.interrupted() || shown.is_err() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    };
    let answer = generate(&mut session, engine.tokenizer.as_deref(), &mut sampler, &request, &mut on_text)?;
    shown?;
    if args.json {
        output::json(&as_json(&engine, &config, &answer))?;
    } else if engine.tokenizer.is_none() {
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

/// Opens the model and says what needs to be known about it.
pub fn open_with(options: &EngineOptions) -> Outcome<Engine> {
    let engine = Engine::open(options)?;
    if options.model.is_none() {
        output::note(&format!("note: this is {}", lichen_runtime::demo::DESCRIPTION));
    }
    if let Some(adapter) = &engine.adapter {
        output::note(&adapter_note(adapter, &engine));
    }
    let transcoded = engine.source.as_ref().map(|s| s.transcoded()).unwrap_or_default();
    if !transcoded.is_empty() {
        let list: Vec<String> = transcoded.iter().map(|(format, n)| format!("{n} {format}")).collect();
        output::note(&format!("note: {} matrices were converted to Q8_0 in memory", list.join(", ")));
    }
    Ok(engine)
}

/// An adapter that touches less than somebody thinks must not pass in silence.
pub fn adapter_note(adapter: &Adapter, engine: &Engine) -> String {
    let n_layers = engine.model.config.n_layers;
    let pairs = (0..n_layers).flat_map(|layer| (0..TARGETS.len()).map(move |i| (layer, i)));
    let n = pairs.filter(|(layer, i)| adapter.layer(*layer).pair(*i).is_some()).count();
    let rank = adapter.max_rank();
    format!("note: the adapter applies to {n} of {} matrices, rank {rank}", n_layers * TARGETS.len())
}

/// The flags, over what the model's makers use, over a seed from the clock.
pub fn sampling(args: &SamplingArgs, engine: &Engine) -> SamplerConfig {
    // Greedy means greedy: no family's repetition penalty either, unless it is asked for.
    let greedy = args.temperature == Some(0.0);
    let base = if greedy { SamplerConfig::greedy() } else { engine.default_sampling() };
    SamplerConfig {
        temperature: args.temperature.unwrap_or(base.temperature),
        top_k: args.top_k.unwrap_or(base.top_k),
        top_p: args.top_p.unwrap_or(base.top_p),
        min_p: args.min_p.unwrap_or(base.min_p),
        repeat_penalty: args.repeat_penalty.unwrap_or(base.repeat_penalty),
        seed: args.seed.unwrap_or_else(seed_from_clock),
        ..base
    }
}

fn seed_from_clock() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    // Two starts within a nanosecond are told apart by their process ids. 32 bits are easy to type again.
    now.map_or(0, |n| n.as_nanos() as u64 >> 4 ^ u64::from(std::process::id())) & 0xFFFF_FFFF
}

fn read_stdin() -> Outcome<String> {
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

fn encode(args: &GenerateArgs, engine: &Engine, text: Option<&str>) -> Outcome<Vec<u32>> {
    if let Some(TokenIds(ids)) = &args.tokens {
        return Ok(ids.clone());
    }
    let text = text.unwrap_or_default();
    let tokenizer = engine.tokenizer()?;
    if args.raw {
        return Ok(encode_raw(tokenizer, text)?);
    }
    let mut messages: Vec<Message> = args.sampling.system.iter().map(Message::system).collect();
    messages.push(Message::user(text));
    Ok(encode_chat(tokenizer, &engine.chat_template()?, &messages, true)?)
}

/// Text as it is, behind BOS where the model wants one.
pub fn encode_raw(tokenizer: &Tokenizer, text: &str) -> lichen_runtime::Result<Vec<u32>> {
    let bos = tokenizer.bos_id().filter(|_| tokenizer.add_bos());
    Ok(bos.into_iter().chain(tokenizer.encode(text)?).collect())
}

fn as_json(engine: &Engine, config: &SamplerConfig, answer: &Answer) -> Value {
    let timings = &answer.timings;
    json!({
        "model": engine.name,
        "token_ids": answer.token_ids,
        "text": engine.tokenizer.as_ref().map(|_| &answer.text),
        "finish_reason": answer.finish_reason.name(),
        "prompt_tokens": timings.prompt_tokens,
        "reused_tokens": timings.reused_tokens,
        "seed": config.seed,
        "timings": {
            "load_s": engine.load_s,
            "prefill_s": timings.prefill_s,
            "decode_s": timings.decode_s,
            "prefill_tokens_per_s": timings.prefill_tokens_per_s(),
            "decode_tokens_per_s": timings.decode_tokens_per_s(),
        },
    })
}
