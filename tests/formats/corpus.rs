//! Broken files and the sentence each must be refused with.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use lichen_runtime::escape::escape;
use lichen_runtime::setting::as_flag;

use crate::heap;

/// A folder of its own under the system's temporary folder, removed with everything in it.
pub struct TempDir(PathBuf);

impl TempDir {
    pub fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("lichen-formats-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).expect("temporary folder");
        TempDir(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file in it.
    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, bytes).expect("temporary file");
        path
    }
}

impl Default for TempDir {
    fn default() -> Self {
        TempDir::new()
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// One broken input: its id in the list of malformed inputs, and the golden message, `DIR` standing for its folder.
pub struct Case<I> {
    pub id: &'static str,
    pub input: I,
    pub message: String,
}

impl<I> Case<I> {
    pub fn new(id: &'static str, input: I, message: impl Into<String>) -> Self {
        Case { id, input, message: message.into() }
    }
}

/// Slowest a broken file may be refused.
const MAX_TIME: Duration = Duration::from_millis(200);

/// Runs `open` on a case and compares: refused, with exactly the golden message, in time, within 4 times the input plus
/// 1 MiB of heap. Returns what is wrong, if anything is.
pub fn check<I, T>(
    case: &Case<I>,
    dir: &Path,
    input_bytes: usize,
    open: impl Fn() -> Result<T, lichen_runtime::Error>,
) -> Result<(), String> {
    let mut fastest = Duration::MAX;
    let mut outcome = None;
    // A busy machine may stall any one attempt.
    for _ in 0..3 {
        let start = Instant::now();
        let (result, heap) = heap::measure(&open);
        fastest = fastest.min(start.elapsed());
        outcome = Some((result.err().map(|e| escape(&e.spelled(&as_flag))), heap));
        if fastest < MAX_TIME {
            break;
        }
    }
    let (error, heap) = outcome.expect("one attempt at least");
    let got = error.unwrap_or_else(|| "accepted".into()).replace(&dir.display().to_string(), "DIR");
    if got != case.message {
        return Err(format!("{}:\n     got: {got}\n    want: {}", case.id, case.message));
    }
    if fastest >= MAX_TIME {
        return Err(format!("{}: took {fastest:?}: {got}", case.id));
    }
    let max_heap = 4 * input_bytes + (1 << 20);
    if heap.peak_bytes > max_heap {
        return Err(format!("{}: {} bytes of heap for {input_bytes} of input: {got}", case.id, heap.peak_bytes));
    }
    Ok(())
}

/// Fails with every failure of a table, not only the first.
pub fn report(failures: Vec<String>, n_cases: usize) {
    assert!(failures.is_empty(), "{} of {n_cases} cases:\n{}", failures.len(), failures.join("\n"));
    println!("{n_cases} cases");
}
