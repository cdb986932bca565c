//! What the emulator is told through the environment, read once.

use std::env;
use std::sync::OnceLock;
use std::thread;

pub struct Environment {
    /// Capabilities, in the order of ordinals.
    pub devices: Vec<u32>,
    pub memory_bytes: usize,
    pub driver_version: i32,
    pub n_threads: usize,
    pub seed: u64,
    /// Counted from 1; 0 is never.
    pub fail_alloc: u64,
    /// Counted from 1; 0 is never.
    pub lose_after: u64,
    pub faults_stick: bool,
}

/// Ends the process on a value it cannot read: a test that asked for something must get it.
pub fn environment() -> &'static Environment {
    static READ: OnceLock<Environment> = OnceLock::new();
    READ.get_or_init(|| {
        let devices = text("LICHEN_EMULATOR_DEVICES").unwrap_or_else(|| "53".to_string());
        let devices: Vec<u32> = devices.split(',').map(|d| parse("LICHEN_EMULATOR_DEVICES", d.trim())).collect();
        let n_cores = thread::available_parallelism().map_or(1, usize::from);
        Environment {
            devices,
            memory_bytes: number("LICHEN_EMULATOR_MEMORY_MIB", 4096usize) << 20,
            driver_version: number("LICHEN_EMULATOR_DRIVER", 10020),
            n_threads: number("LICHEN_EMULATOR_THREADS", n_cores).max(1),
            seed: number("LICHEN_EMULATOR_SEED", 1),
            fail_alloc: number("LICHEN_EMULATOR_FAIL_ALLOC", 0),
            lose_after: number("LICHEN_EMULATOR_LOSE_AFTER", 0),
            faults_stick: text("LICHEN_EMULATOR_FAULT").is_some_and(|t| t == "sticky"),
        }
    })
}

fn text(name: &str) -> Option<String> {
    env::var(name).ok().filter(|t| !t.is_empty())
}

fn number<T: std::str::FromStr>(name: &str, default: T) -> T {
    text(name).map_or(default, |t| parse(name, &t))
}

fn parse<T: std::str::FromStr>(name: &str, text: &str) -> T {
    text.parse().unwrap_or_else(|_| {
        eprintln!("lichen emulator: {name}: \"{text}\" is not a number");
        std::process::abort()
    })
}
