use std::time::Instant;

/// Where the manager reads the time from; tests pass one that they move by hand.
pub trait Clock: Send + Sync + 'static {
    /// The present moment. Never goes backwards.
    fn now(&self) -> Instant;
}

impl<F: Fn() -> Instant + Send + Sync + 'static> Clock for F {
    fn now(&self) -> Instant {
        self()
    }
}

/// The clock of the machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one place of the room that reads the clock")]
    fn now(&self) -> Instant {
        Instant::now()
    }
}
