//! Flags that several programs share, spelled the same everywhere, and the checks of values that no table of settings has.

use std::fmt::Display;
use std::str::FromStr;

use clap::Arg;
use lichen_kernels::Format;

use super::flags::{Flags, Offer};
use crate::engine::request::{Request, REQUEST_SETTINGS};
use crate::loader::{EngineOptions, ENGINE_SETTINGS};
use crate::setting::table::Entry;
use crate::setting::{
    value, Setting, ADAPTER, CHAT_TEMPLATE, CONTEXT, DEVICE, DEVICE_CONFIG, KV_CACHE, MEMORY_BUDGET, MODEL, PARALLEL,
    PREFILL_CHUNK, STOP, SYSTEM, THREADS,
};
use crate::Result;

/// Flags of [`ENGINE_SETTINGS`]: a type of each list of them.
macro_rules! engine_flags {
    ($($(#[$doc:meta])* $flags:ident, $offer:ident = [$($setting:ident),+];)*) => {$(
        $(#[$doc])*
        pub type $flags = Flags<$offer>;

        $(#[$doc])*
        #[derive(Clone, Debug)]
        pub struct $offer;

        impl Offer for $offer {
            type Target = EngineOptions;

            fn settings() -> Vec<&'static Entry<EngineOptions>> {
                engine_settings(&[$($setting),+])
            }

            fn defaults() -> EngineOptions {
                EngineOptions::default()
            }
        }
    )*};
}

engine_flags! {
    /// Which model.
    ModelArgs, OfModel = [MODEL, ADAPTER];
    /// Which model, where no adapter could change anything.
    ModelOnlyArgs, OfModelOnly = [MODEL];
    /// How conversations are written.
    TemplateArgs, OfTemplate = [CHAT_TEMPLATE];
    /// On what, and within which memory.
    DeviceArgs, OfDevice = [DEVICE, THREADS, MEMORY_BUDGET, DEVICE_CONFIG];
    /// The same, and the limits of a session.
    MachineArgs, OfMachine = [DEVICE, THREADS, MEMORY_BUDGET, DEVICE_CONFIG, CONTEXT, KV_CACHE, PREFILL_CHUNK];
    /// How many at once.
    ParallelArgs, OfParallel = [PARALLEL];
}

/// The entries of these settings, in the order of the table.
pub fn engine_settings(offered: &[Setting]) -> Vec<&'static Entry<EngineOptions>> {
    ENGINE_SETTINGS.iter().filter(|entry| offered.contains(&entry.setting)).collect()
}

/// What is opened: what was typed, then the board's file.
///
/// # Errors
/// A value that is not allowed, or a board's file that cannot be read or says something it may not.
pub fn engine_options(model: &ModelArgs, machine: &MachineArgs) -> Result<EngineOptions> {
    let mut options = model.filled()?;
    machine.fill(&mut options)?;
    Ok(options.with_board()?.0)
}

/// How the next token is chosen, and when to stop.
pub type SamplingArgs = Flags<OfRequest>;

/// All [`REQUEST_SETTINGS`].
#[derive(Clone, Debug)]
pub struct OfRequest;

impl Offer for OfRequest {
    type Target = Request;

    fn settings() -> Vec<&'static Entry<Request>> {
        REQUEST_SETTINGS.iter().collect()
    }

    fn defaults() -> Request {
        Request::default()
    }

    fn adapt(entry: &Entry<Request>, arg: Arg) -> Arg {
        // Texts may begin with a hyphen.
        arg.allow_hyphen_values(entry.setting == SYSTEM || entry.setting == STOP)
    }
}

/// A number between two others, both included. NaN lies nowhere.
pub fn number<T>(min: T, max: T) -> impl Fn(&str) -> std::result::Result<T, String> + Clone + Send + Sync + 'static
where
    T: FromStr + PartialOrd + Display + Copy + Send + Sync + 'static,
{
    move |text| value::number(text, min, max)
}

/// Token ids: `3,1,4`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenIds(pub Vec<u32>);

pub fn token_ids(text: &str) -> std::result::Result<TokenIds, String> {
    let ids = text.split(',').map(|id| id.trim().parse().ok()).collect::<Option<Vec<u32>>>();
    ids.map(TokenIds).ok_or_else(|| "token ids separated by commas, such as 3,1,4".to_string())
}

/// A weight format that can be computed with, in any case.
pub fn weight_format(text: &str) -> std::result::Result<Format, String> {
    let computed = Format::ALL.into_iter().filter(|f| f.is_computed());
    computed
        .clone()
        .find(|f| f.name().eq_ignore_ascii_case(text))
        .ok_or_else(|| computed.map(|f| f.name().to_lowercase()).collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_tokens() {
        assert_eq!(token_ids("3,1, 4"), Ok(TokenIds(vec![3, 1, 4])));
        for text in ["", "3,,4", "-1", "x", "4294967296"] {
            assert!(token_ids(text).is_err(), "{text}");
        }
    }
}
