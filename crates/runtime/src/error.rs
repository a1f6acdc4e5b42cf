//! Why a library cannot be found, installed or removed.

use std::fmt;
use std::path::Path;

/// What went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// There is no such library where it was looked for.
    NotFound,
    /// The file given is not the wheel that is needed.
    Refused,
    /// What is installed is not what was installed.
    Damaged,
    /// The wheel could not be got.
    Fetch,
    /// What was asked for cannot be meant.
    Invalid,
    /// Reading or writing failed.
    Io,
}

/// An error of this room: a text for a person, and what kind it is.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Error {
        Error { kind, message: message.into() }
    }

    pub(crate) fn refused(path: &Path, why: impl fmt::Display) -> Error {
        Error::new(ErrorKind::Refused, format!("{}: {why}", path.display()))
    }

    pub(crate) fn io(what: &str, path: &Path, error: &std::io::Error) -> Error {
        let hint = match error.kind() {
            std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => {
                " (another folder: --runtime_dir or the variable SALVER_RUNTIMES)"
            }
            _ => "",
        };
        Error::new(ErrorKind::Io, format!("cannot {what} {}: {error}{hint}", path.display()))
    }

    /// An error of reading a file that should be there: damage if it is missing.
    pub(crate) fn of_file(path: &Path, error: &std::io::Error) -> Error {
        match error.kind() {
            std::io::ErrorKind::NotFound => {
                Error::new(ErrorKind::Damaged, format!("{}: {error}", path.display()))
            }
            _ => Error::io("read", path, error),
        }
    }

    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}
