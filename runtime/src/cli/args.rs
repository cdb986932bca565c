//! Flags that several subcommands share, spelled the same everywhere, and the checks of their values.

use std::fmt::Display;
use std::path::PathBuf;
use std::str::FromStr;

use crate::board::device_config::{DeviceConfig, KvCacheChoice};
use crate::engine::request::{Request, SamplingOverrides};
use crate::loader::{AdapterPath, DeviceChoice, EngineOptions, DEFAULT_ADAPTER};
use crate::setting::bytes;
use crate::Error;
use clap::Args;
use lichen_kernels::ops::attention::KvFormat;
use lichen_kernels::Format;

/// Largest value of a flag that counts tokens or rows.
const COUNT_MAX: usize = 1 << 24;

/// Which model.
#[derive(Args, Clone, Debug)]
pub struct ModelArgs {
    /// GGUF file or Hugging Face folder [default: the small demo model inside this program]
    #[arg(long, value_name = "PATH")]
    pub model: Option<PathBuf>,
    /// LoRA adapter: PEFT folder or GGUF file, with an optional factor for its strength
    #[arg(long, value_name = "PATH[:SCALE]", value_parser = adapter)]
    pub adapter: Option<AdapterPath>,
}

/// On what, and within which memory.
#[derive(Args, Clone, Debug)]
pub struct DeviceArgs {
    /// Where to compute: auto, cpu, cuda or cuda:N
    #[arg(long, value_name = "DEVICE", default_value = "auto", value_parser = DeviceChoice::parse)]
    pub device: DeviceChoice,
    /// CPU threads [default: all cores this process may use]
    #[arg(long, value_name = "N", allow_hyphen_values = true, value_parser = number(1usize, 1024))]
    pub threads: Option<usize>,
    /// Refuse to start when the memory plan is larger: bytes, or a number with KiB, MiB, GiB, KB, MB, GB
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true, value_parser = bytes)]
    pub memory_budget: Option<usize>,
    /// A board's defaults for such flags, as in device-configs/jetson-nano-4gb.toml; flags win
    #[arg(long, value_name = "FILE")]
    pub device_config: Option<PathBuf>,
}

impl DeviceArgs {
    /// What an engine is opened with, and the board's file for what else it says: flags first.
    ///
    /// # Errors
    /// The board's file cannot be read or says something it may not.
    pub fn options(&self, model: Option<PathBuf>) -> Result<(EngineOptions, DeviceConfig), Error> {
        let board = match &self.device_config {
            Some(path) => DeviceConfig::read(path)?,
            None => DeviceConfig::default(),
        };
        let options = EngineOptions {
            model,
            device: self.device,
            threads: self.threads,
            memory_budget: self.memory_budget,
            ..EngineOptions::default()
        };
        Ok((options.or_board(&board), board))
    }
}

/// The same, and the limits of a session.
#[derive(Args, Clone, Debug)]
pub struct MachineArgs {
    #[command(flatten)]
    pub device: DeviceArgs,
    /// Positions a conversation can hold [default: 2048, or what the model has]
    #[arg(long, value_name = "TOKENS", allow_hyphen_values = true, value_parser = number(1, COUNT_MAX))]
    pub context: Option<usize>,
    /// How keys and values are kept: auto, f32, f16 or int8 [default: auto, which is f32 where that is small, else f16]
    #[arg(long, value_name = "FORMAT", value_parser = kv_format)]
    pub kv_cache: Option<KvChoice>,
    /// Prompt tokens computed at once [default: 128]
    #[arg(long, value_name = "TOKENS", allow_hyphen_values = true, value_parser = number(1usize, 4096))]
    pub prefill_chunk: Option<usize>,
}

impl MachineArgs {
    /// What the engine is opened with: flags first, then the board's file.
    ///
    /// # Errors
    /// The board's file cannot be read or says something it may not.
    pub fn options(&self, model: &ModelArgs) -> Result<EngineOptions, Error> {
        let (options, board) = self.device.options(model.model.clone())?;
        let options = EngineOptions {
            adapters: model.adapter.iter().map(|file| (DEFAULT_ADAPTER.to_string(), file.clone())).collect(),
            context: self.context,
            // The board's are filled in below, where no flag says otherwise.
            chunk: self.prefill_chunk,
            kv_cache: self.kv_cache.map(|choice| choice.0.map_or(KvCacheChoice::Auto, KvCacheChoice::Format)),
            ..options
        };
        Ok(options.or_board(&board))
    }
}

/// `--kv-cache`; `None` is auto.
#[derive(Clone, Copy, Debug)]
pub struct KvChoice(Option<KvFormat>);

/// How the next token is chosen, and when to stop.
#[derive(Args, Clone, Debug)]
pub struct SamplingArgs {
    /// Random seed [default: another one every time]
    #[arg(long, value_name = "N", allow_hyphen_values = true, value_parser = number(0u64, u64::MAX))]
    pub seed: Option<u64>,
    /// 0 takes the most probable token every time [default: the model family's]
    #[arg(long, value_name = "T", allow_hyphen_values = true, value_parser = number(0.0f32, 5.0))]
    pub temperature: Option<f32>,
    /// Choose among the K most probable tokens; 0 for all
    #[arg(long, value_name = "K", allow_hyphen_values = true, value_parser = number(0, COUNT_MAX))]
    pub top_k: Option<usize>,
    /// Choose among the most probable tokens that together have this probability; 1 for all
    #[arg(long, value_name = "P", allow_hyphen_values = true, value_parser = number(0.0f32, 1.0))]
    pub top_p: Option<f32>,
    /// Drop tokens less probable than this fraction of the most probable; 0 for none
    #[arg(long, value_name = "P", allow_hyphen_values = true, value_parser = number(0.0f32, 1.0))]
    pub min_p: Option<f32>,
    /// Make recent tokens less probable; 1 does nothing
    #[arg(long, value_name = "X", allow_hyphen_values = true, value_parser = number(0.1f32, 10.0))]
    pub repeat_penalty: Option<f32>,
    /// Longest answer
    #[arg(long, value_name = "N", default_value = "512", allow_hyphen_values = true,
          value_parser = number(0, COUNT_MAX))]
    pub max_new_tokens: usize,
    /// Instructions in front of the conversation
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub system: Option<String>,
    /// End the answer at this text; may be given several times
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub stop: Vec<String>,
}

impl SamplingArgs {
    /// What the flags say of every request.
    pub fn request(&self) -> Request {
        Request {
            system: self.system.clone(),
            sampling: SamplingOverrides {
                temperature: self.temperature,
                top_k: self.top_k,
                top_p: self.top_p,
                min_p: self.min_p,
                repeat_penalty: self.repeat_penalty,
                repeat_last_n: None,
                seed: self.seed,
            },
            stop: Some(self.stop.clone()),
            max_new_tokens: Some(self.max_new_tokens),
            ..Request::default()
        }
    }
}

/// A number between two others, both included. NaN lies nowhere.
pub fn number<T>(min: T, max: T) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static
where
    T: FromStr + PartialOrd + Display + Copy + Send + Sync + 'static,
{
    move |text| match text.parse::<T>() {
        Ok(value) if value >= min && value <= max => Ok(value),
        _ => Err(format!("{min} to {max}")),
    }
}

/// Token ids: `3,1,4`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenIds(pub Vec<u32>);

pub fn token_ids(text: &str) -> Result<TokenIds, String> {
    let ids = text.split(',').map(|id| id.trim().parse().ok()).collect::<Option<Vec<u32>>>();
    ids.map(TokenIds).ok_or_else(|| "token ids separated by commas, such as 3,1,4".to_string())
}

fn kv_format(text: &str) -> Result<KvChoice, String> {
    match text {
        "auto" => Ok(KvChoice(None)),
        "f32" => Ok(KvChoice(Some(KvFormat::F32))),
        "f16" => Ok(KvChoice(Some(KvFormat::F16))),
        "int8" => Ok(KvChoice(Some(KvFormat::I8))),
        _ => Err("auto, f32, f16 or int8".to_string()),
    }
}

/// The name `--kv-cache` takes.
pub fn kv_name(format: KvFormat) -> &'static str {
    match format {
        KvFormat::F32 => "f32",
        KvFormat::F16 => "f16",
        KvFormat::I8 => "int8",
    }
}

/// A weight format that can be computed with, in any case.
pub fn weight_format(text: &str) -> Result<Format, String> {
    let computed = Format::ALL.into_iter().filter(|f| f.is_computed());
    computed
        .clone()
        .find(|f| f.name().eq_ignore_ascii_case(text))
        .ok_or_else(|| computed.map(|f| f.name().to_lowercase()).collect::<Vec<_>>().join(", "))
}

/// `PATH` or `PATH:SCALE`. A path that exists is taken whole, whatever it ends in.
pub fn adapter(text: &str) -> Result<AdapterPath, String> {
    const SCALE_MAX: f32 = 100.0;
    let whole = AdapterPath { path: PathBuf::from(text), scale: 1.0 };
    if whole.path.exists() {
        return Ok(whole);
    }
    let Some((path, scale)) = text.rsplit_once(':') else { return Ok(whole) };
    match scale.parse::<f32>() {
        Ok(scale) if scale.abs() <= SCALE_MAX && !path.is_empty() => {
            Ok(AdapterPath { path: PathBuf::from(path), scale })
        }
        Ok(_) => Err(format!("a path, with a scale from -{SCALE_MAX} to {SCALE_MAX}")),
        // A colon inside a name.
        Err(_) => Ok(whole),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let good = [("1", 1), ("1.5GiB", 1_610_612_736), ("800MiB", 838_860_800), ("2KB", 2000), ("7B", 7)];
        for (text, want) in good {
            assert_eq!(bytes(text), Ok(want), "{text}");
        }
        for text in ["", "0", "-1", "nan", "inf", "1e3", "5XB", "GiB", "1 GiB", "9999999GiB", "18446744073709551616"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn numbers_between_two_others() {
        for text in ["nan", "NaN", "inf", "-0.1", "1.1", "", "x", "9223372036854775808"] {
            assert!(number(0.0f32, 1.0)(text).is_err(), "{text}");
            assert!(number(0usize, 9)(text).is_err(), "{text}");
        }
        assert_eq!(number(0.0f32, 1.0)("1"), Ok(1.0));
    }

    #[test]
    fn adapters_with_a_scale() {
        let file = |path: &str, scale| Ok(AdapterPath { path: PathBuf::from(path), scale });
        assert_eq!(adapter("a/b"), file("a/b", 1.0));
        assert_eq!(adapter("a/b:0.5"), file("a/b", 0.5));
        assert_eq!(adapter("a:b"), file("a:b", 1.0));
        for text in ["a:nan", "a:inf", "a:1000", ":1"] {
            assert!(adapter(text).is_err(), "{text}");
        }
    }

    #[test]
    fn lists_of_tokens() {
        assert_eq!(token_ids("3,1, 4"), Ok(TokenIds(vec![3, 1, 4])));
        for text in ["", "3,,4", "-1", "x", "4294967296"] {
            assert!(token_ids(text).is_err(), "{text}");
        }
    }
}
