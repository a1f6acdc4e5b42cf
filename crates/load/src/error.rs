//! Why there is nothing to measure.

use std::fmt;

/// What went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// What was asked for makes no sense or cannot be done.
    Input,
    /// No server answers there.
    Connect,
    /// The server answered with an error.
    Server,
    /// This machine refuses something, such as a thread.
    System,
}

/// An error with whom it is about in its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    kind: Kind,
    text: String,
}

impl Error {
    pub(crate) fn new(kind: Kind, text: impl Into<String>) -> Error {
        Error { kind, text: text.into() }
    }

    pub(crate) fn input(text: impl Into<String>) -> Error {
        Error::new(Kind::Input, text)
    }

    /// What went wrong.
    pub fn kind(&self) -> Kind {
        self.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Error {}
