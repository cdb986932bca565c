//! The one error type of the runtime: a kind for the exit code, and one sentence for the person.

use std::fmt;
use std::path::Path;

use lichen_kernels::DeviceError;

pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong, said in one sentence that names the file, tensor or flag and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    kind: Kind,
    message: String,
}

/// Why an operation was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A flag or argument is wrong: exit code 2.
    Usage,
    /// A file, its contents or a request is not acceptable.
    Input,
    /// It does not fit the memory budget, the context or the disk.
    Limit,
    /// The operating system refused.
    Io,
    /// The GPU, or its driver.
    Device,
}

impl Error {
    pub fn usage(message: impl Into<String>) -> Self {
        Error { kind: Kind::Usage, message: message.into() }
    }

    pub fn input(message: impl Into<String>) -> Self {
        Error { kind: Kind::Input, message: message.into() }
    }

    pub fn limit(message: impl Into<String>) -> Self {
        Error { kind: Kind::Limit, message: message.into() }
    }

    pub fn io(path: &Path, error: &std::io::Error) -> Self {
        Error { kind: Kind::Io, message: format!("{}: {error}", path.display()) }
    }

    /// Puts the file in front: `model.gguf: tensor "..": ..`.
    pub fn in_file(mut self, path: &Path) -> Self {
        self.message = format!("{}: {}", path.display(), self.message);
        self
    }

    /// Puts the flag in front that asked for it.
    pub fn in_flag(mut self, flag: &str) -> Self {
        self.message = format!("{flag}: {}", self.message);
        self
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The message as it is, without the escaping of [`fmt::Display`].
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl From<DeviceError> for Error {
    fn from(error: DeviceError) -> Self {
        let kind = if matches!(error, DeviceError::OutOfMemory { .. }) { Kind::Limit } else { Kind::Device };
        Error { kind, message: error.to_string() }
    }
}

/// Shown to people: control characters, bidi overrides and C1 codes are escaped, so that no name inside a file can
/// drive the terminal.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&crate::display::escape(&self.message))
    }
}

impl std::error::Error for Error {}
