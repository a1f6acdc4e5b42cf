//! The clock, and a timer that is exact to some ten microseconds without spinning: tokio's own counts in milliseconds.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::io::{Errno, read};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::unix::AsyncFd;

use crate::error::{Error, Kind};

#[expect(
    clippy::disallowed_methods,
    reason = "measuring is reading the clock; what is decided takes moments as arguments"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// A timer of the kernel that the runtime waits for as for a socket.
#[derive(Debug)]
pub(crate) struct Timer(AsyncFd<OwnedFd>);

impl Timer {
    /// Inside of a runtime.
    pub(crate) fn new() -> Result<Timer, Error> {
        let failed = |error: std::io::Error| Error::new(Kind::System, format!("no timer: {error}"));
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags).map_err(|error| failed(error.into()))?;
        #[expect(
            deprecated,
            reason = "its successor is unsafe; an owned descriptor is nobody else's to close"
        )]
        let registered = AsyncFd::new(timer);
        registered.map(Timer).map_err(failed)
    }

    /// Waits so long, or less when the kernel refuses.
    pub(crate) async fn wait(&self, time: Duration) {
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        // A time of 0 would turn the timer off.
        let time = time.max(Duration::from_nanos(1));
        let value = Timespec {
            tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(time.subsec_nanos()),
        };
        let once = Itimerspec { it_interval: zero, it_value: value };
        if timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::empty(), &once).is_err() {
            return;
        }
        loop {
            let Ok(mut guard) = self.0.readable().await else { return };
            let mut expirations = [0u8; 8];
            match read(guard.get_inner(), &mut expirations) {
                Err(Errno::AGAIN) => guard.clear_ready(),
                _ => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_not_early_and_can_be_used_again() {
        crate::generate::runtime().unwrap().block_on(async {
            let timer = Timer::new().unwrap();
            for micros in [0, 300, 50] {
                let (start, time) = (now(), Duration::from_micros(micros));
                timer.wait(time).await;
                assert!(start.elapsed() >= time);
            }
        });
    }
}
