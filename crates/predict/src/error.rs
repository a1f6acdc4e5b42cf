//! The closed set of outcomes, and errors that say who caused them.

use std::fmt;
use std::time::Duration;

/// Outcomes, by the names that gRPC and TensorFlow share. `wire` holds the one table to numbers and HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are gRPC's and documented there")]
pub enum Code {
    Ok,
    Cancelled,
    Unknown,
    InvalidArgument,
    DeadlineExceeded,
    NotFound,
    AlreadyExists,
    PermissionDenied,
    ResourceExhausted,
    FailedPrecondition,
    Aborted,
    OutOfRange,
    Unimplemented,
    Internal,
    Unavailable,
    DataLoss,
    Unauthenticated,
}

/// Who caused an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Blame {
    /// The request is at fault: sending it again gives the same.
    Client,
    /// The model is at fault.
    Model,
    /// A peer that was asked is at fault.
    Peer,
    /// This server is at fault or at its limits.
    Us,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    code: Code,
    blame: Blame,
    message: String,
    retry_after: Option<Duration>,
}

impl Error {
    /// An error by whoever caused it.
    pub fn new(code: Code, blame: Blame, message: impl Into<String>) -> Error {
        Error { code, blame, message: message.into(), retry_after: None }
    }

    /// An error in the request.
    pub fn client(code: Code, message: impl Into<String>) -> Error {
        Error::new(code, Blame::Client, message)
    }

    /// [`Code::InvalidArgument`], the commonest error in a request.
    pub fn invalid(message: impl Into<String>) -> Error {
        Error::client(Code::InvalidArgument, message)
    }

    /// A bound of this server was reached; the same request may be sent again after `retry_after`.
    pub fn overloaded(code: Code, message: impl Into<String>, retry_after: Duration) -> Error {
        Error { retry_after: Some(retry_after), ..Error::new(code, Blame::Us, message) }
    }

    /// The outcome.
    pub fn code(&self) -> Code {
        self.code
    }

    /// Who caused it.
    pub fn blame(&self) -> Blame {
        self.blame
    }

    /// What happened, for a person.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// When the same request may be sent again; `None` when that would not help.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// The same error, and when the request may be sent again.
    #[must_use]
    pub fn with_retry_after(self, after: Duration) -> Error {
        Error { retry_after: Some(after), ..self }
    }

    /// The same error with another text in front of its message.
    #[must_use]
    pub fn within(mut self, context: &str) -> Error {
        self.message.insert_str(0, context);
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}
