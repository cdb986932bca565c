//! Everything the program prints goes through here: errors in one sentence, text made safe, a closed pipe noticed.

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::escape::{escape, escape_running};
use crate::Error;
use serde_json::Value;

/// Why a subcommand did not succeed.
pub enum Failure {
    Error(Error),
    /// Nobody reads standard output any more.
    Closed,
    /// Something was refused and said so, and the rest was done.
    Reported,
    /// SIGINT or SIGTERM ended work that is lost.
    Interrupted,
}

pub type Outcome<T> = Result<T, Failure>;

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Error(error)
    }
}

/// `error: ..`, with nothing in it that could drive a terminal. Multi-line causes become one line.
pub fn error(message: &str) {
    let shown = escape(message);
    clear_progress();
    // Where standard error is closed there is nobody to tell.
    let _ = writeln!(io::stderr(), "error: {shown}");
}

/// A remark that is not part of the output.
pub fn note(message: &str) {
    let shown = escape(message);
    clear_progress();
    let _ = writeln!(io::stderr(), "{shown}");
}

/// True while the terminal's last line is one of [`progress`].
static HAS_PROGRESS: AtomicBool = AtomicBool::new(false);
const CLEAR_LINE: &str = "\r\x1b[K";

/// A line on a terminal that the next one replaces, as does whatever else is written; nothing elsewhere.
pub(super) fn progress(message: &str) {
    if io::stderr().is_terminal() {
        HAS_PROGRESS.store(!message.is_empty(), Ordering::Relaxed);
        let _ = write!(io::stderr(), "{CLEAR_LINE}{message}");
        let _ = io::stderr().flush();
    }
}

/// Makes room where a line of [`progress`] stands.
fn clear_progress() {
    if HAS_PROGRESS.swap(false, Ordering::Relaxed) {
        let _ = write!(io::stderr(), "{CLEAR_LINE}");
        let _ = io::stderr().flush();
    }
}

/// Text on standard output, shown at once. Control characters are escaped; newlines and tabs pass.
pub fn text(text: &str) -> Outcome<()> {
    clear_progress();
    let mut out = io::stdout().lock();
    out.write_all(escape_running(text).as_bytes()).and_then(|()| out.flush()).map_err(|e| failed_write(&e))
}

/// A line on standard output.
pub fn line(line: &str) -> Outcome<()> {
    text(line)?;
    text("\n")
}

/// An object on standard output.
pub fn json(value: &Value) -> Outcome<()> {
    clear_progress();
    let mut out = io::stdout().lock();
    // JSON escapes C0 itself; what else could drive a terminal is escaped here, which JSON reads as the same text.
    let text = json_escape(&serde_json::to_string_pretty(value).unwrap_or_default());
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(|e| failed_write(&e))
}

/// An object that is one line already, on standard output.
pub fn json_line(line: &str) -> Outcome<()> {
    clear_progress();
    let mut out = io::stdout().lock();
    writeln!(out, "{}", json_escape(line)).and_then(|()| out.flush()).map_err(|e| failed_write(&e))
}

fn json_escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        let shown = escape_running(c.encode_utf8(&mut [0; 4]));
        // Every character that is escaped lies in the basic plane, so four digits are enough.
        if shown.starts_with("\\u{") {
            out.push_str(&format!("\\u{:04x}", c as u32));
        } else {
            out.push(c);
        }
    }
    out
}

fn failed_write(error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::Closed,
        _ => Failure::Error(Error::io(Path::new("standard output"), error)),
    }
}

/// Warnings of the library on standard error; LICHEN_LOG=info or debug shows more.
pub fn start_log() {
    let mut builder = env_logger::Builder::new();
    builder.filter_level(log::LevelFilter::Warn);
    if let Ok(filter) = std::env::var("LICHEN_LOG") {
        builder.parse_filters(&filter);
    }
    builder.format(|out, record| {
        let level = match record.level() {
            log::Level::Error => "error",
            log::Level::Warn => "warning",
            log::Level::Info => "note",
            _ => "debug",
        };
        clear_progress();
        writeln!(out, "{level}: {}", escape(&record.args().to_string()))
    });
    builder.init();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_says_the_same_after_escaping() {
        let value = serde_json::json!({"text": "a\u{1b}[31m \u{9b} \u{202e} \n ಕನ್ನಡ \u{200d} 🙂 \\u{1}"});
        let text = json_escape(&serde_json::to_string_pretty(&value).unwrap());
        assert!(!text.contains(['\u{1b}', '\u{9b}', '\u{202e}']), "{text}");
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
    }
}
