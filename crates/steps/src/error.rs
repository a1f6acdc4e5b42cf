//! What can go wrong with state.

use std::fmt;

use salver_records::Severity;

/// A kind of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A row that cannot go into a window: strings, or more than one row.
    Row,
    /// A record that was taken in already, and so many came after it that its window cannot be given again.
    Replay,
    /// There are as many keys or bytes as there may be.
    Full,
    /// A partition that is not assigned.
    Order,
    /// Another process has the store open.
    Locked,
    /// The store cannot be read or written, or is damaged.
    Store,
    /// A record of the changelog is not one of ours, or the changelog cannot be read.
    Changelog,
}

/// A failed call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    kind: ErrorKind,
    severity: Severity,
    message: String,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Error {
        let severity = match kind {
            ErrorKind::Row | ErrorKind::Replay | ErrorKind::Full => Severity::Record,
            _ => Severity::Fatal,
        };
        Error { kind, severity, message: message.into() }
    }

    pub(crate) fn fatal(kind: ErrorKind, message: impl Into<String>) -> Error {
        Error { severity: Severity::Fatal, ..Error::new(kind, message) }
    }

    pub(crate) fn store(path: &std::path::Path, error: impl Into<redb::Error>) -> Error {
        match error.into() {
            redb::Error::DatabaseAlreadyOpen => Error::new(
                ErrorKind::Locked,
                format!("cannot open the state in {}: another process uses it", path.display()),
            ),
            error => Error::new(
                ErrorKind::Store,
                format!(
                    "the state in {} failed: {error}; if it is damaged, delete it, and it is restored from the changelog",
                    path.display()
                ),
            ),
        }
    }

    /// What kind of failure it is.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What is left to do: [`Severity::Record`] if only the record that was pushed is refused.
    pub fn severity(&self) -> Severity {
        self.severity
    }
}

impl From<salver_records::Error> for Error {
    fn from(error: salver_records::Error) -> Error {
        Error { kind: ErrorKind::Changelog, severity: error.severity, message: error.message }
    }
}

impl From<Error> for salver_records::Error {
    fn from(error: Error) -> salver_records::Error {
        salver_records::Error::new(error.severity, error.message)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}
