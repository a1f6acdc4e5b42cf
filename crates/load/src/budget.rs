//! Bytes that all threads together may keep.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How many bytes are left.
#[derive(Debug)]
pub(crate) struct Budget(AtomicUsize);

impl Budget {
    pub(crate) fn new(n_bytes: usize) -> Arc<Budget> {
        Arc::new(Budget(AtomicUsize::new(n_bytes)))
    }
}

/// Bytes of a budget that are taken; they come back when this goes.
#[derive(Debug)]
pub(crate) struct Held {
    budget: Arc<Budget>,
    n_bytes: usize,
}

impl Held {
    /// Nothing so far.
    pub(crate) fn none(budget: &Arc<Budget>) -> Held {
        Held { budget: Arc::clone(budget), n_bytes: 0 }
    }

    /// Takes more; nothing when there is not as much left.
    pub(crate) fn take(&mut self, n_bytes: usize) -> bool {
        let left = &self.budget.0;
        let is_taken =
            left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(n_bytes)).is_ok();
        if is_taken {
            self.n_bytes += n_bytes;
        }
        is_taken
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.budget.0.fetch_add(self.n_bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_can_be_taken_again() {
        let budget = Budget::new(10);
        let (mut one, mut other) = (Held::none(&budget), Held::none(&budget));
        assert!(one.take(4) && one.take(2) && !other.take(5) && other.take(4) && !one.take(1));
        drop(one);
        assert!(!other.take(7) && other.take(6) && other.take(0));
    }
}
