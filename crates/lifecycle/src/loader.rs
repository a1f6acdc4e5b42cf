use std::fmt;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::Id;

/// Makes servables of sources.
pub trait Loader: Send + Sync + 'static {
    /// What a servable is made of, for instance a path.
    type Source: Clone + Send + Sync + fmt::Debug + 'static;
    /// What requests are answered with.
    type Servable: Send + Sync + 'static;

    /// Makes the servable, ready for requests (warmed up). May block for as long as it takes: it runs on one
    /// of the manager's load threads, at most once at a time for one id, beside the loads of other ids. It
    /// should return early once `cancel` is set; what it then returns is thrown away. A panic counts as an
    /// error that does not pass.
    fn load(&self, id: &Id, source: &Self::Source, cancel: &Cancel) -> Result<Self::Servable, LoadError>;
}

/// What kind of failure a load ended in; an interface maps it to its own codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The source, or something that it needs, is not there.
    NotFound,
    /// The source is there, but it is broken.
    Invalid,
    /// The source asks for something that is not implemented.
    Unimplemented,
    /// Memory, files or another resource ran out.
    Exhausted,
    /// Something that the load needs cannot be reached at the moment.
    Unavailable,
    /// The load was called off, because its version is no longer wanted.
    Cancelled,
    /// A fault of this program, a panic for instance.
    Internal,
}

/// Why a version did not load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadError {
    /// What kind of failure it is.
    pub kind: ErrorKind,
    /// What was wrong, and where.
    pub message: String,
    /// Whether the error can pass by itself, so that trying again makes sense.
    pub retry: bool,
}

impl LoadError {
    /// An error that stays until the source changes.
    pub fn permanent(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), retry: false }
    }

    /// An error that can pass by itself.
    pub fn transient(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), retry: true }
    }

    /// What a loader returns when it stopped because it was told to.
    pub fn cancelled() -> Self {
        Self::permanent(ErrorKind::Cancelled, "load cancelled")
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for LoadError {}

/// Tells a running load that its result is no longer wanted. Once set it stays set. Clones share the flag.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<Signal>);

#[derive(Debug, Default)]
struct Signal {
    set: Mutex<bool>,
    changed: Condvar,
}

impl Cancel {
    /// A flag that is not set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the flag and wakes every waiter.
    pub fn cancel(&self) {
        *self.0.set.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.changed.notify_all();
    }

    /// Whether the flag is set. Does not block.
    pub fn is_cancelled(&self) -> bool {
        *self.0.set.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Blocks until the flag is set or the time is over; says whether it is set.
    pub fn wait(&self, timeout: Duration) -> bool {
        let guard = self.0.set.lock().unwrap_or_else(PoisonError::into_inner);
        let result = self.0.changed.wait_timeout_while(guard, timeout, |set| !*set);
        *result.unwrap_or_else(PoisonError::into_inner).0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cancel_wakes_a_waiter() {
        let cancel = Cancel::new();
        assert!(!cancel.is_cancelled());
        assert!(!cancel.wait(Duration::ZERO));
        let other = cancel.clone();
        let waiter = std::thread::spawn(move || other.wait(Duration::from_secs(60)));
        cancel.cancel();
        assert!(waiter.join().unwrap());
        assert!(cancel.is_cancelled());
    }
}
