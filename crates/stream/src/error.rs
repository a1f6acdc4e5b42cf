//! Why a pipeline does not start or ends before it should.

use std::fmt;

/// What kind of trouble ended a pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Settings that contradict each other or the parts given.
    Config,
    /// A record that is refused, where the policy of its class is [`crate::Policy::Fail`].
    Record,
    /// No version of the model that the mapping fits.
    Model,
    /// The source does not go on.
    Source,
    /// The sink does not go on.
    Sink,
    /// The state of windows cannot be kept or restored.
    State,
    /// A thread of the pipeline ended by a panic, or could not be started.
    Internal,
}

/// Why a pipeline does not start or ended before it should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    kind: ErrorKind,
    message: String,
}

impl Error {
    /// An error of that kind.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Error {
        Error { kind, message: message.into() }
    }

    /// Which kind of trouble it is.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What was wrong and where.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}
