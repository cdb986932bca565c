//! Runs programs, each with a limit and a log of its own.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::Plan;

/// What became of a program.
pub struct Outcome {
    /// Exit code zero.
    pub ok: bool,
    /// `exit 0`, `exit 101`, `stopped after 600 s`, `killed by a signal`.
    pub end: String,
    pub seconds: f64,
    /// Standard output, and standard error after it.
    pub output: String,
    pub stdout: String,
}

/// The path inside the package.
pub fn program(plan: &Plan, name: &str) -> Command {
    Command::new(plan.package.join("bin").join(name))
}

/// Runs all of them, several at once where the machine has cores for it: for what is not timed. In the order given.
pub fn run_all(plan: &Plan, commands: Vec<(String, Command)>) -> Vec<Outcome> {
    // A test binary computes its oracles with several threads; a board of four cores takes one binary at a time.
    let n_at_once = std::thread::available_parallelism().map_or(1, |n| n.get() / 3).clamp(1, 6);
    let outcomes: Vec<Mutex<Option<Outcome>>> = commands.iter().map(|_| Mutex::new(None)).collect();
    let next = Mutex::new(commands.into_iter().enumerate());
    let take = || next.lock().expect("no panic while it is held").next();
    std::thread::scope(|scope| {
        for _ in 0..n_at_once {
            scope.spawn(|| {
                while let Some((i, (name, mut command))) = take() {
                    *outcomes[i].lock().expect("one thread's") = Some(run(plan, &name, &mut command));
                }
            });
        }
    });
    outcomes.into_iter().map(|o| o.into_inner().expect("one thread's").expect("every command ran")).collect()
}

/// Runs to the end or to the limit. What it says goes to logs/NAME.txt too.
pub fn run(plan: &Plan, name: &str, command: &mut Command) -> Outcome {
    let began = Instant::now();
    let logs = plan.out.join("logs");
    let (out_path, err_path) = (logs.join(format!("{name}.txt")), logs.join(format!("{name}.errors.txt")));
    let end = match spawn(command, &out_path, &err_path).and_then(|mut child| wait(&mut child)) {
        Ok(end) => end,
        Err(error) => error.to_string(),
    };
    let stdout = std::fs::read(&out_path).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default();
    let stderr = std::fs::read(&err_path).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default();
    let seconds = began.elapsed().as_secs_f64();
    let mut said = format!("gpu-check: {name}: {end}, {seconds:.1} s");
    let ok = end == "exit 0";
    if !ok {
        // What a test says stands in its standard output, what a program says in the other.
        for text in [&stdout, &stderr] {
            let tail: Vec<&str> = text.lines().rev().take(12).collect();
            tail.iter().rev().for_each(|line| said += &format!("\n    {line}"));
        }
    }
    // At once: others may be speaking too.
    println!("{said}");
    Outcome { ok, end, seconds, output: format!("{stdout}{stderr}"), stdout }
}

fn spawn(command: &mut Command, out: &Path, err: &Path) -> std::io::Result<std::process::Child> {
    command.stdin(Stdio::null()).stdout(File::create(out)?).stderr(File::create(err)?).spawn()
}

fn wait(child: &mut std::process::Child) -> std::io::Result<String> {
    let limit_s = std::env::var("LICHEN_GPU_CHECK_LIMIT_S").ok().and_then(|v| v.parse().ok()).unwrap_or(1200);
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status.code().map_or("killed by a signal".to_string(), |code| format!("exit {code}")));
        }
        if began.elapsed() > Duration::from_secs(limit_s) {
            child.kill()?;
            child.wait()?;
            return Ok(format!("stopped after {limit_s} s"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
