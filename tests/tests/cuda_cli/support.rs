//! Running `lichen` on a CUDA device: the emulator posing as each architecture, or this machine's own.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use lichen_tests::programs;
use serde_json::Value;

/// The architectures that have PTX of their own.
pub const ARCHS: [u32; 5] = [53, 72, 80, 87, 90];

/// `LICHEN_TEST_DRIVER=machine`: the driver of this machine is tested, not the emulator.
pub fn is_machine() -> bool {
    std::env::var("LICHEN_TEST_DRIVER").is_ok_and(|v| v == "machine")
}

/// Whether there are kernels to test. A build without clang has none: that must be meant, or the test fails.
pub fn has_kernels() -> bool {
    match lichen_kernels::cuda::NOT_COMPILED {
        None => true,
        Some(why) => {
            assert!(std::env::var_os("LICHEN_REQUIRE_CUDA").is_none(), "{why}");
            println!("NOT TESTED: {why}");
            false
        }
    }
}

pub struct Run {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Run {
    /// The one object on standard output.
    pub fn json(&self) -> Value {
        assert_eq!(self.code, Some(0), "{}", self.stderr);
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {}", self.stdout))
    }

    pub fn token_ids(&self) -> Vec<u64> {
        let json = self.json();
        json["token_ids"].as_array().expect("ids").iter().map(|id| id.as_u64().expect("an id")).collect()
    }

    /// One sentence on standard error, exit code 1, nothing on standard output; holds every one of `words`.
    pub fn refuses(&self, words: &[&str]) {
        assert_eq!((self.code, self.stdout.as_str()), (Some(1), ""), "{}", self.stderr);
        let errors: Vec<&str> = self.stderr.lines().filter(|l| l.contains("error")).collect();
        assert_eq!(errors.len(), 1, "{}", self.stderr);
        assert!(!self.stderr.contains("panicked") && !self.stderr.contains("fault inside"), "{}", self.stderr);
        for word in words {
            assert!(errors[0].contains(word), "{word:?} is not in: {}", self.stderr);
        }
    }
}

/// A driver and a device as `lichen` finds them.
#[derive(Clone, Default)]
pub struct Machine {
    env: Vec<(&'static str, String)>,
    no_driver: bool,
}

impl Machine {
    /// No driver at all.
    pub fn without_driver() -> Self {
        Machine { no_driver: true, ..Machine::default() }
    }

    /// The emulator with devices of these architectures.
    pub fn emulated(archs: &[u32]) -> Self {
        let archs: Vec<String> = archs.iter().map(u32::to_string).collect();
        Machine::default().with("LICHEN_EMULATOR_DEVICES", archs.join(","))
    }

    pub fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.env.push((name, value.to_string()));
        self
    }

    pub fn lichen(&self, args: &[&str]) -> Run {
        self.lichen_with_input(args, "")
    }

    pub fn lichen_with_input(&self, args: &[&str], input: &str) -> Run {
        let mut command = Command::new(programs::lichen());
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.env_remove("LICHEN_LOG").env_remove("LICHEN_CUDA_ARCH");
        // Cargo's own search path for tests holds the emulator.
        if self.no_driver {
            command.env_remove("LD_LIBRARY_PATH");
        } else if !is_machine() {
            command.env("LD_LIBRARY_PATH", programs::cuda_emulator().parent().expect("a folder"));
            // Not among what a real driver made.
            command.env("LICHEN_CACHE_DIR", concat!(env!("CARGO_TARGET_TMPDIR"), "/cuda-cache"));
        }
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        let mut child = command.spawn().expect("the program starts");
        let mut stdin = child.stdin.take().expect("piped");
        // A program that refuses its flags never reads.
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        let output = child.wait_with_output().expect("the program ends");
        Run {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).expect("standard output is UTF-8"),
            stderr: String::from_utf8(output.stderr).expect("standard error is UTF-8"),
        }
    }
}

/// A device that runs the kernels of one architecture. None where this machine's is older than that.
pub fn machine_of(arch: u32) -> Option<Machine> {
    if !is_machine() {
        return Some(Machine::emulated(&[arch]));
    }
    let devices = lichen_kernels::cuda::Cuda::list().unwrap_or_else(|e| panic!("{e}"));
    let capability = devices.first().expect("a device").capability;
    (arch <= capability).then(|| Machine::default().with("LICHEN_CUDA_ARCH", arch))
}

/// Any device: the driver's own choice of kernels on this machine, the Nano's on the emulator.
pub fn any_machine() -> Machine {
    if is_machine() {
        Machine::default()
    } else {
        Machine::emulated(&[53])
    }
}

pub fn fixture(name: &str) -> String {
    lichen_tests::fixture(name).to_str().expect("a UTF-8 path").to_string()
}

/// A new name for a file or a folder; what is there is removed when the value goes.
pub struct TempFile(pub PathBuf);

impl TempFile {
    pub fn new() -> Self {
        static N: AtomicUsize = AtomicUsize::new(0);
        let name = format!("lichen-cuda-{}-{}", std::process::id(), N.fetch_add(1, Ordering::Relaxed));
        TempFile(std::env::temp_dir().join(name))
    }

    pub fn path(&self) -> &str {
        self.0.to_str().expect("a UTF-8 path")
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0).or_else(|_| std::fs::remove_dir_all(&self.0));
    }
}
