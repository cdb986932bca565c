//! Flags that several subcommands share.

use std::path::PathBuf;

use clap::Args;
use lichen_runtime::cli::args::{bytes, device, number};
use lichen_runtime::device_config::DeviceConfig;
use lichen_runtime::engine::{DeviceChoice, EngineOptions};
use lichen_runtime::Error;
use lichen_trainer::lora::Targets;

/// Names of the seven matrices, in the order of an adapter.
const TARGET_NAMES: [&str; 7] = ["q", "k", "v", "o", "gate", "up", "down"];

/// On what, and within which memory.
#[derive(Args, Clone, Debug)]
pub struct DeviceArgs {
    /// Where to compute: auto or cpu
    #[arg(long, value_name = "DEVICE", default_value = "auto", value_parser = device)]
    pub device: DeviceChoice,
    /// CPU threads [default: all cores this process may use]
    #[arg(long, value_name = "N", allow_hyphen_values = true, value_parser = number(1usize, 1024))]
    pub threads: Option<usize>,
    /// Refuse to start when the memory bill is larger: bytes, or a number with KiB, MiB, GiB, KB, MB, GB
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true, value_parser = bytes)]
    pub memory_budget: Option<usize>,
    /// A board's defaults for the flags above, such as device-configs/jetson-nano-4gb.toml; flags win
    #[arg(long, value_name = "FILE")]
    pub device_config: Option<PathBuf>,
}

impl DeviceArgs {
    /// # Errors
    /// The board's file cannot be read or says something it may not.
    pub fn options(&self, model: Option<PathBuf>) -> Result<EngineOptions, Error> {
        let board = match &self.device_config {
            Some(path) => DeviceConfig::read(path)?,
            None => DeviceConfig::default(),
        };
        Ok(EngineOptions {
            model,
            device: self.device,
            threads: self.threads.or(board.threads),
            memory_budget: self.memory_budget.or(board.memory_budget_bytes()),
            ..EngineOptions::default()
        })
    }
}

/// Which matrices get an adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TargetList(pub Targets);

impl TargetList {
    /// `all`, or names separated by commas: `q`, or `q_proj` as PEFT calls it.
    pub fn parse(text: &str) -> Result<TargetList, String> {
        if text == "all" {
            return Ok(TargetList([true; 7]));
        }
        let mut targets = [false; 7];
        for name in text.split(',') {
            let name = name.trim();
            let short = name.strip_suffix("_proj").unwrap_or(name);
            let wrong = || "all, or some of q,k,v,o,gate,up,down separated by commas".to_string();
            let i = TARGET_NAMES.iter().position(|t| *t == short).ok_or_else(wrong)?;
            targets[i] = true;
        }
        Ok(TargetList(targets))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_targets() {
        let some = |on: &[usize]| TargetList(std::array::from_fn(|i| on.contains(&i)));
        for (text, want) in
            [("all", some(&[0, 1, 2, 3, 4, 5, 6])), ("q,v", some(&[0, 2])), ("down_proj, o", some(&[3, 6]))]
        {
            assert_eq!(TargetList::parse(text), Ok(want), "{text}");
        }
        for text in ["", "q,,v", "qq_proj", "ALL"] {
            assert!(TargetList::parse(text).is_err(), "{text}");
        }
    }
}
