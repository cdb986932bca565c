//! `lichen logits`: the logits of every position, as a tensor other programs can read.

use std::path::PathBuf;

use clap::Args;
use lichen_runtime::files::disk::write_atomically;
use lichen_runtime::files::formats::safetensors::Dtype;
use lichen_runtime::files::formats::safetensors_write::{Layout, NewTensor};
use lichen_runtime::loader::LoadedModel;
use lichen_runtime::memory_plan::mib;
use lichen_runtime::Error;

use crate::args::{engine_options, token_ids, MachineArgs, ModelArgs, TokenIds};
use crate::opening::print_notes;
use crate::output::{self, Outcome};

const EXAMPLES: &str = "Example:
  lichen logits --model ./gemma-3-270m --tokens 2,3,1,4 --out logits.safetensors

The file holds one f32 tensor, logits, of shape [tokens, vocabulary].";

/// Logit rows kept at once: 16 MiB of them for a vocabulary of 262,144.
const LOGIT_ROWS: usize = 16;

/// Write the logits of every position of a sequence of tokens
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct LogitsArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// Token ids: 3,1,4
    #[arg(long, value_name = "IDS", allow_hyphen_values = true, value_parser = token_ids)]
    tokens: TokenIds,
    /// Where to write; a file that is there is replaced
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    machine: MachineArgs,
}

pub fn run(args: &LogitsArgs) -> Outcome<()> {
    let TokenIds(tokens) = &args.tokens;
    let mut options = engine_options(&args.model, &args.machine)?;
    // Exactly as many positions as are needed, unless somebody asks for another context.
    options.context = options.context.or(Some(tokens.len()));
    options.logit_rows = LOGIT_ROWS.min(tokens.len());
    let model = LoadedModel::open(&options)?;
    print_notes(&model.notes);
    let mut session = model.session()?;
    let vocab_size = model.model.config.vocab_size;
    let layout = Layout::new(vec![NewTensor::new("logits", Dtype::F32, &[tokens.len(), vocab_size])], &[])?;
    // The writer speaks of the disk alone; what the model refuses is carried past it.
    let mut refused: Option<Error> = None;
    let written = write_atomically(&args.out, |out| {
        let mut data = layout.start(out)?;
        let mut failed = None;
        let evaluated = session.evaluate(tokens, &mut |logits| {
            let bytes: &[u8] = bytemuck::cast_slice(logits);
            data.write(bytes).map_err(|e| {
                failed = Some(e);
                Error::input("the disk refused")
            })
        });
        match (failed, evaluated) {
            (Some(error), _) => Err(error),
            (None, Err(error)) => {
                refused = Some(error);
                Err(std::io::Error::other("refused"))
            }
            (None, Ok(())) => {
                data.finish();
                Ok(())
            }
        }
    });
    if let Some(error) = refused {
        return Err(error.into());
    }
    written?;
    let size = mib(layout.file_bytes() as usize);
    output::note(&format!("{}: logits [{}, {vocab_size}] F32, {size}", args.out.display(), tokens.len()));
    Ok(())
}
