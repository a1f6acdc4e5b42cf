//! Why a model cannot be loaded or run.

use std::fmt;

/// Who or what is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// No model where one was looked for.
    NotFound,
    /// Reading failed in a way that may pass.
    Io,
    /// The model is broken: trying again gives the same.
    InvalidModel,
    /// The model is sound but asks for something that this engine does not have, or not exactly enough.
    Unsupported,
    /// The inputs of one run cannot be computed with.
    InvalidInput,
    /// A bound on memory or size.
    ResourceExhausted,
    /// The engine is away: its process ended and is started again. What was asked may be what ended it.
    Unavailable,
    /// The engine failed in a way that is neither the model's nor the caller's fault.
    Internal,
}

/// An error of loading or running a model: what kind, what happened, and where in the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    location: Option<String>,
}

impl Error {
    /// An error with no particular place.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Error {
        Error { kind, message: message.into(), location: None }
    }

    /// The same error at a file, node or tensor, given as a person would say it: `node 'conv_1'`.
    #[must_use]
    pub fn at(mut self, location: impl Into<String>) -> Error {
        self.location = Some(location.into());
        self
    }

    /// Who or what is at fault.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What happened, without the place.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The file, node or tensor that the error is about.
    pub fn location(&self) -> Option<&str> {
        self.location.as_deref()
    }

    /// Whether trying the same again may succeed.
    pub fn may_pass(&self) -> bool {
        matches!(self.kind, ErrorKind::Io | ErrorKind::ResourceExhausted | ErrorKind::Unavailable)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.location {
            Some(location) => write!(f, "{location}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl std::error::Error for Error {}
