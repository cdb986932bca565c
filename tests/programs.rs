//! The programs, for tests that need a process: exit codes, signals, limits, drivers. All tests of programs run them by this.

use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::models::temp_dir;

/// Names a folder of programs that were built elsewhere: a board or a server with a GPU may have no cargo.
pub const PROGRAMS: &str = "LICHEN_TEST_PROGRAMS";

/// `lichen`, built with this test's profile.
pub fn lichen() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| build(&["--bin", "lichen"], "lichen")).clone()
}

/// `lichen-host`, built with this test's profile.
pub fn lichen_host() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| build(&["--bin", "lichen-host"], "lichen-host")).clone()
}

/// `lichen-train`, built with this test's profile.
pub fn lichen_train() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| build(&["--bin", "lichen-train"], "lichen-train")).clone()
}

/// The emulator of the CUDA driver, `libcuda.so`, built with this test's profile.
pub fn cuda_emulator() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| build(&["--lib"], "libcuda.so")).clone()
}

/// Cargo builds the programs of a test's own package only, so this asks it for another's: no work when it is there.
fn build(what: &[&str], file: &str) -> PathBuf {
    if let Some(folder) = std::env::var_os(PROGRAMS) {
        return PathBuf::from(folder).join(file);
    }
    let mut cargo = Command::new(env!("CARGO"));
    // The whole workspace's features, as `cargo test --workspace` has them: a package's own would build everything anew.
    cargo.args(["build", "--quiet", "--workspace"]).args(what);
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    let status = cargo.status().expect("cargo runs");
    assert!(status.success(), "{file} does not build");
    // target/<profile>/deps/<test> -> target/<profile>/<file>
    let test = std::env::current_exe().expect("a path");
    test.parent().and_then(|deps| deps.parent()).expect("target folder").join(file)
}

/// A program with these arguments and nothing on its standard input; this test's settings do not reach it.
pub fn command<S: AsRef<OsStr>>(program: PathBuf, arguments: &[S]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).env_remove("LICHEN_LOG").env_remove("LICHEN_SYS_ROOT");
    // Tests that a shell runs in the background ignore SIGINT, and what they start would inherit that.
    // SAFETY:
    // - signal is async-signal-safe, which is what may be called between fork and exec.
    unsafe {
        command.pre_exec(|| match libc::signal(libc::SIGINT, libc::SIG_DFL) {
            libc::SIG_ERR => Err(std::io::Error::last_os_error()),
            _ => Ok(()),
        })
    };
    command
}

/// Runs it to its end.
pub fn run(command: &mut Command) -> Run {
    command.output().expect("the program starts").into()
}

/// The same with text on its standard input.
pub fn run_with_input(command: &mut Command, input: &str) -> Run {
    let mut child = spawn(command.stdin(Stdio::piped()));
    let mut stdin = child.stdin.take().expect("piped");
    // A program that refuses its flags never reads.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    child.wait_with_output().expect("the program ends").into()
}

/// Starts it, with what it prints kept.
pub fn spawn(command: &mut Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts")
}

/// Lets it run for this long, or to its end when that comes first. True when it has ended.
pub fn wait_at_most(child: &mut Child, time: Duration) -> bool {
    let began = Instant::now();
    while child.try_wait().expect("our child").is_none() {
        let left = time.saturating_sub(began.elapsed());
        if left.is_zero() {
            return false;
        }
        std::thread::sleep(left.min(Duration::from_millis(5)));
    }
    true
}

/// Sends a signal to a child that has not been waited for.
pub fn send(child: &Child, signal: i32) {
    // SAFETY:
    // - A number and a process that we have started and that has not been waited for.
    let sent = unsafe { libc::kill(child.id() as i32, signal) };
    assert_eq!(sent, 0);
}

/// `LICHEN_TEST_DRIVER=machine`: the CUDA driver of this machine is tested, not the emulator.
pub fn is_machine() -> bool {
    std::env::var("LICHEN_TEST_DRIVER").is_ok_and(|v| v == "machine")
}

/// Gives a program the emulator for a CUDA driver.
pub fn emulate(command: &mut Command) {
    command.env("LD_LIBRARY_PATH", cuda_emulator().parent().expect("a folder"));
    // Not among what a real driver made: target/<profile>/deps/<test> -> target/tmp.
    let test = std::env::current_exe().expect("a path");
    command.env("LICHEN_CACHE_DIR", test.ancestors().nth(3).expect("target folder").join("tmp/cuda-cache"));
}

/// How a process ended, and what it printed.
#[derive(Debug)]
pub struct Run {
    pub code: Option<i32>,
    pub signal: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl From<Output> for Run {
    fn from(output: Output) -> Self {
        Run {
            code: output.status.code(),
            signal: output.status.signal(),
            stdout: String::from_utf8(output.stdout).expect("standard output is UTF-8"),
            stderr: String::from_utf8(output.stderr).expect("standard error is UTF-8"),
        }
    }
}

impl Run {
    /// The run, once it is known that it ended well.
    pub fn ok(self) -> Run {
        assert!(self.code == Some(0), "{self:?}");
        self
    }

    /// The one object on standard output of a run that ended well.
    pub fn json(&self) -> Value {
        assert_eq!(self.code, Some(0), "{}", self.stderr);
        self.any_json()
    }

    /// The one object on standard output, however the run ended.
    pub fn any_json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    pub fn token_ids(&self) -> Vec<u64> {
        let json = self.json();
        json["token_ids"].as_array().expect("ids").iter().map(|id| id.as_u64().expect("an id")).collect()
    }

    /// Its last line on standard error, which is to be the one error there is.
    pub fn error(&self) -> &str {
        let errors: Vec<&str> = self.stderr.lines().filter_map(|l| l.strip_prefix("error: ")).collect();
        assert!(errors.len() == 1 && self.stdout.is_empty(), "{self:?}");
        assert!(self.stderr.lines().last().is_some_and(|l| l.starts_with("error: ")), "{self:?}");
        errors[0]
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

/// A fixture's path as an argument.
pub fn fixture(name: &str) -> String {
    crate::fixture(name).to_str().expect("a UTF-8 path").to_string()
}

/// An empty folder that goes with the value, unless the test failed.
pub struct TempDir(PathBuf);

impl TempDir {
    /// No two in a process are one, whatever their names.
    pub fn new(name: &str) -> TempDir {
        static N: AtomicUsize = AtomicUsize::new(0);
        TempDir(temp_dir(&format!("{name}-{}", N.fetch_add(1, Ordering::Relaxed))))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// [`TempDir::path`] as an argument.
    pub fn file(&self, name: &str) -> String {
        self.path(name).to_str().expect("a UTF-8 path").to_string()
    }
}

impl AsRef<Path> for TempDir {
    fn as_ref(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}
