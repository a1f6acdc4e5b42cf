//! The bytes of all requests that are being received or answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use salver_predict::{Code, Error};

/// A number of bytes shared by all requests.
#[derive(Debug)]
pub(crate) struct Budget {
    total: usize,
    used: AtomicUsize,
}

/// Bytes taken from a [`Budget`] until this is dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    budget: Arc<Budget>,
    bytes: AtomicUsize,
}

impl Budget {
    pub(crate) fn new(total: usize) -> Arc<Budget> {
        Arc::new(Budget { total, used: AtomicUsize::new(0) })
    }

    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Nothing yet; to be grown.
    pub(crate) fn empty(self: &Arc<Self>) -> Reservation {
        Reservation { budget: Arc::clone(self), bytes: AtomicUsize::new(0) }
    }

    /// Takes `n_bytes` at once or refuses at once.
    pub(crate) fn reserve(self: &Arc<Self>, n_bytes: usize) -> Result<Reservation, Error> {
        let reservation = self.empty();
        reservation.grow_to(n_bytes)?;
        Ok(reservation)
    }

    fn take(&self, n_bytes: usize) -> bool {
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(n_bytes).filter(|&sum| sum <= self.total)
            })
            .is_ok()
    }
}

impl Reservation {
    pub(crate) fn n_bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Takes what is missing to `n_bytes`; never gives back. One owner calls this at a time.
    pub(crate) fn grow_to(&self, n_bytes: usize) -> Result<(), Error> {
        let missing = n_bytes.saturating_sub(self.bytes.load(Ordering::Relaxed));
        if missing == 0 {
            return Ok(());
        }
        if !self.budget.take(missing) {
            let text = format!(
                "{n_bytes} bytes do not fit: {} of {} bytes in flight are taken by other requests",
                self.budget.used(),
                self.budget.total
            );
            return Err(Error::overloaded(Code::ResourceExhausted, text, Duration::from_secs(1)));
        }
        self.bytes.fetch_add(missing, Ordering::Relaxed);
        Ok(())
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(*self.bytes.get_mut(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_comes_back() {
        let budget = Budget::new(100);
        let first = budget.reserve(60).unwrap();
        let refused = budget.reserve(41).unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted);
        assert!(refused.retry_after().is_some());
        assert_eq!(budget.used(), 60);
        first.grow_to(100).unwrap();
        assert!(first.grow_to(101).is_err());
        assert!(budget.reserve(usize::MAX).is_err());
        drop(first);
        assert_eq!(budget.used(), 0);
    }
}
