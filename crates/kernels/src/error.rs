//! Why an operator gives no result.

use std::fmt;

use salver_tensor::{ShapeError, TensorError};

/// Who is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// There is no such operator here, or not with these attributes or element types.
    Unsupported,
    /// The inputs or attributes do not fit the operator.
    Invalid,
    /// The result would not fit in memory.
    TooLarge,
}

/// Why an operator gives no result. The caller knows the node and adds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    kind: ErrorKind,
    message: String,
}

impl Error {
    /// An operator, attribute or element type that is not here.
    pub fn unsupported(message: impl Into<String>) -> Error {
        Error { kind: ErrorKind::Unsupported, message: message.into() }
    }

    /// Inputs or attributes that do not fit.
    pub fn invalid(message: impl Into<String>) -> Error {
        Error { kind: ErrorKind::Invalid, message: message.into() }
    }

    /// A result that does not fit in memory.
    pub fn too_large(message: impl Into<String>) -> Error {
        Error { kind: ErrorKind::TooLarge, message: message.into() }
    }

    /// Who is at fault.
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

/// A result whose elements do not fit its shape, or whose shape is none.
impl From<TensorError> for Error {
    fn from(error: TensorError) -> Error {
        match error {
            TensorError::Shape(error) => Error::from(error),
            other => Error::invalid(other.to_string()),
        }
    }
}

impl From<ShapeError> for Error {
    fn from(error: ShapeError) -> Error {
        match error {
            ShapeError::Overflow(_) => Error::too_large(error.to_string()),
            _ => Error::invalid(error.to_string()),
        }
    }
}
