//! The one error type of the runtime: a kind for the exit code, and one sentence for the person. The sentence knows settings,
//! not flags ([`crate::setting`]).

use std::fmt;
use std::path::Path;

use lichen_kernels::DeviceError;

use crate::setting::Message;

pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong, said in one sentence that names the file, tensor or setting and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    kind: Kind,
    message: Message,
}

/// Why an operation was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A setting or argument is wrong: exit code 2.
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
    fn new(kind: Kind, message: String) -> Self {
        Error { kind, message: Message::new(message) }
    }

    pub fn usage(message: impl Into<String>) -> Self {
        Error::new(Kind::Usage, message.into())
    }

    pub fn input(message: impl Into<String>) -> Self {
        Error::new(Kind::Input, message.into())
    }

    pub fn limit(message: impl Into<String>) -> Self {
        Error::new(Kind::Limit, message.into())
    }

    pub fn io(path: &Path, error: &std::io::Error) -> Self {
        Error::new(Kind::Io, format!("{}: {error}", path.display()))
    }

    /// Puts the file in front: `model.gguf: tensor "..": ..`.
    pub fn in_file(self, path: &Path) -> Self {
        self.behind(path.display())
    }

    /// Puts in front what is meant: a [`Setting`](crate::setting::Setting), a line, a message's number.
    pub fn behind(mut self, place: impl fmt::Display) -> Self {
        self.message = self.message.behind(format!("{place}: "));
        self
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The message as it is, without the escaping of [`fmt::Display`]; settings by their plain names.
    pub fn message(&self) -> &str {
        &self.message.text
    }

    /// The message with every setting as `spell` calls it, such as [`as_flag`](crate::setting::as_flag).
    pub fn spelled(&self, spell: &dyn Fn(&str) -> String) -> String {
        self.message.spelled(spell)
    }
}

impl From<DeviceError> for Error {
    fn from(error: DeviceError) -> Self {
        let kind = if matches!(error, DeviceError::OutOfMemory { .. }) { Kind::Limit } else { Kind::Device };
        Error::new(kind, error.to_string())
    }
}

/// Shown to people: control characters, bidi overrides and C1 codes are escaped, so that no name inside a file can
/// drive the terminal.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&crate::escape::escape(&self.message.text))
    }
}

impl std::error::Error for Error {}
