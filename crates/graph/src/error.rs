//! Why a graph cannot be made.

use std::fmt;

use salver_kernels as kernels;

/// Who is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The model is sound but asks for something that is not here.
    Unsupported,
    /// The model is broken.
    Invalid,
    /// A bound on size.
    TooLarge,
}

/// Why a graph cannot be made, and at which node or layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    node: Option<String>,
}

impl Error {
    /// Something that is not here.
    pub fn unsupported(message: impl Into<String>) -> Error {
        Error { kind: ErrorKind::Unsupported, message: message.into(), node: None }
    }

    /// A broken model.
    pub fn invalid(message: impl Into<String>) -> Error {
        Error { kind: ErrorKind::Invalid, message: message.into(), node: None }
    }

    /// A bound on size.
    pub fn too_large(message: impl Into<String>) -> Error {
        Error { kind: ErrorKind::TooLarge, message: message.into(), node: None }
    }

    /// The same error at a place, as a person would say it: `node 'conv_1'`. A place that is there already stays
    /// behind the new one.
    #[must_use]
    pub fn at(mut self, place: impl Into<String>) -> Error {
        let place = place.into();
        self.node = Some(match self.node.take() {
            None => place,
            Some(inner) => format!("{place}: {inner}"),
        });
        self
    }

    /// Who is at fault.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What happened, without the place.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The node, layer or file part.
    pub fn place(&self) -> Option<&str> {
        self.node.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.node {
            Some(node) => write!(f, "{node}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl std::error::Error for Error {}

impl From<kernels::Error> for Error {
    fn from(error: kernels::Error) -> Error {
        let message = error.to_string();
        match error.kind() {
            kernels::ErrorKind::Unsupported => Error::unsupported(message),
            kernels::ErrorKind::TooLarge => Error::too_large(message),
            _ => Error::invalid(message),
        }
    }
}
