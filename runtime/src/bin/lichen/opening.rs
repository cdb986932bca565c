//! What every subcommand that answers begins with: the model, and what its flags say of every request.

use lichen_runtime::engine::request::Request;
use lichen_runtime::engine::{Engine, EngineOptions, LoadedModel, NamedAdapter};
use lichen_runtime::model::adapter::{Adapter, TargetModule};
use lichen_runtime::setting::PARSE_SPECIAL;
use lichen_runtime::Result;

use crate::args::SamplingArgs;
use crate::output::{self, Outcome};

/// Opens the model and says what needs to be known about it.
pub fn open_with(options: &EngineOptions) -> Outcome<Engine> {
    let engine = Engine::open(options)?;
    if options.model.is_none() {
        output::note(&format!("note: this is {}", lichen_runtime::loader::demo::DESCRIPTION));
    }
    print_notes(&engine.model().notes);
    for NamedAdapter { adapter, .. } in engine.adapters() {
        output::note(&adapter_note(adapter, engine.model()));
    }
    let transcoded = engine.model().source.as_ref().map(|s| s.transcoded()).unwrap_or_default();
    if !transcoded.is_empty() {
        let list: Vec<String> = transcoded.iter().map(|(format, n)| format!("{n} {format}")).collect();
        output::note(&format!("note: {} matrices were converted to Q8_0 in memory", list.join(", ")));
    }
    Ok(engine)
}

/// What is to be known of a model's adapters.
pub fn print_notes(notes: &[String]) {
    notes.iter().for_each(|note| output::note(&format!("note: {note}")));
}

/// An adapter that touches less than somebody thinks must not pass in silence.
pub fn adapter_note(adapter: &Adapter, model: &LoadedModel) -> String {
    let n_layers = model.model.config.n_layers;
    let pairs = (0..n_layers).flat_map(|layer| TargetModule::ALL.map(|target| (layer, target)));
    let n = pairs.filter(|(layer, target)| adapter.layer(*layer).pair(*target).is_some()).count();
    let rank = adapter.max_rank();
    format!("note: the adapter applies to {n} of {} matrices, rank {rank}", n_layers * TargetModule::ALL.len())
}

/// What to do about control tokens that are read as text.
pub fn control_text_hint() -> String {
    format!("{} reads them as tokens", PARSE_SPECIAL.flag())
}

/// What the flags say of every request, with a seed from the clock where they name none.
///
/// # Errors
/// A value that is not allowed.
pub fn defaults(args: &SamplingArgs) -> Result<Request> {
    let mut request = args.filled()?;
    request.check()?;
    request.sampling.seed.get_or_insert_with(seed_from_clock);
    Ok(request)
}

fn seed_from_clock() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    // Two starts within a nanosecond are told apart by their process ids. 32 bits are easy to type again.
    now.map_or(0, |n| n.as_nanos() as u64 >> 4 ^ u64::from(std::process::id())) & 0xFFFF_FFFF
}
