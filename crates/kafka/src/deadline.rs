//! By when a call must have come back. Nothing else in this room reads the clock, and no decision depends on it but giving up.

#![allow(
    clippy::disallowed_methods,
    reason = "this is the driver around the client's library, whose waits have limits"
)]

use std::thread;
use std::time::{Duration, Instant};

/// A point in time after which a call gives up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Deadline(Instant);

impl Deadline {
    pub(crate) fn after(wait: Duration) -> Deadline {
        Deadline(Instant::now() + wait)
    }

    pub(crate) fn left(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    pub(crate) fn is_over(self) -> bool {
        self.left().is_zero()
    }
}

/// Waits before something is tried again for which the client's library has no event.
pub(crate) fn pause(wait: Duration) {
    thread::sleep(wait);
}
