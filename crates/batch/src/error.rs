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
    /// It would be answered after its deadline, as far as can be foreseen.
    TooLate {
        /// When a task with as much time would be answered in time again, about.
        retry_after: Duration,
    },
    /// As many tasks are under way as were answered in time of late; how long runs take cannot be foreseen.
    Limited {
        /// When there is likely room again.
        retry_after: Duration,
    },
    /// A more urgent task, or one of a caller who has less in the queue, took its place.
    Displaced {
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
    /// The task would be cut into several, and has more rows than such a task may have.
    TooManyRows {
        /// Its rows.
        n_rows: usize,
        /// The rows of a task at most.
        max_task_rows: usize,
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
            Refused::TooLate { .. } => f.write_str(
                "the deadline would pass before the model could answer: it has more requests than it can answer in time",
            ),
            Refused::Limited { .. } => f.write_str(
                "as many requests are under way as the model has been able to answer in time",
            ),
            Refused::Displaced { .. } => {
                f.write_str("the queue is full, and a request that goes before this one took its place")
            }
            Refused::TooLarge { n_rows, max_batch_size } => {
                write!(f, "Task size {n_rows} is larger than maximum input batch size {max_batch_size}")
            }
            Refused::TooManyRows { n_rows, max_task_rows } => write!(
                f,
                "Task size {n_rows} is larger than maximum input batch size {max_task_rows}, \
                 which max_request_rows in the model's settings [batching] says; send fewer rows in a request"
            ),
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
    /// It waited, and then had to make room for another ([`Refused::Displaced`]).
    Refused(Refused),
    /// The engine's own error, or that it panicked.
    Engine(salver_engine::Error),
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RunError::DeadlineExceeded => f.write_str("the deadline passed before the model could run"),
            RunError::Closed => f.write_str("the model was unloaded before the request could run"),
            RunError::Refused(refused) => refused.fmt(f),
            RunError::Engine(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for RunError {}
