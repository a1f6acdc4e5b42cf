use std::fmt;
use std::time::Duration;

/// Why lanes cannot be started.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// A setting that is not supported or contradicts another.
    Config(String),
    /// A session cannot be made.
    Session(salver_engine::Error),
    /// A thread cannot be started.
    Thread(std::io::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Config(message) => f.write_str(message),
            Error::Session(error) => error.fmt(f),
            Error::Thread(error) => write!(f, "cannot start a lane: {error}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Config(_) => None,
            Error::Session(error) => Some(error),
            Error::Thread(error) => Some(error),
        }
    }
}

/// Why a task is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refused {
    /// As many tasks or bytes wait as may. `retry_after` is about how long those that wait will take.
    QueueFull {
        /// Tasks that wait.
        n_waiting: usize,
        /// When there is likely room again.
        retry_after: Duration,
    },
    /// The task has more rows than a batch may have.
    TooLarge {
        /// Its rows.
        n_rows: usize,
        /// The rows of a batch at most.
        max_batch_size: usize,
    },
    /// The lanes are being shut down.
    Closed,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::QueueFull { n_waiting, .. } => write!(
                f,
                "The batch scheduling queue to which this task was submitted is full; currently {n_waiting} tasks are waiting"
            ),
            Refused::TooLarge { n_rows, max_batch_size } => {
                write!(f, "Task size {n_rows} is larger than maximum input batch size {max_batch_size}")
            }
            Refused::Closed => f.write_str("the model is being unloaded"),
        }
    }
}

impl std::error::Error for Refused {}

/// Why a task that was taken has no result.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RunError {
    /// Its deadline passed before it was started.
    DeadlineExceeded,
    /// The lanes were shut down before it was started.
    Closed,
    /// The model's outputs cannot be split by rows, so it cannot be batched.
    NotRows(&'static str),
    /// The engine's own error, or that it panicked.
    Engine(salver_engine::Error),
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RunError::DeadlineExceeded => f.write_str("the deadline passed before the model could run"),
            RunError::Closed => f.write_str("the model was unloaded before the request could run"),
            RunError::NotRows(message) => f.write_str(message),
            RunError::Engine(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for RunError {}
