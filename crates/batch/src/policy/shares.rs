//! Lanes' time in proportion to the weights of priorities.

use std::time::Duration;

use crate::N_PRIORITIES;

/// The time that each priority had, divided by its weight; the one that had least is next. One that had nothing waiting
/// is brought up to what is served now when it comes back, so that it cannot save up time (start-time fair queueing,
/// Goyal, Vin and Cheng, SIGCOMM 1996).
#[derive(Debug, Clone, Default)]
pub struct Shares {
    had: [u64; N_PRIORITIES + 1],
    n_waiting: [usize; N_PRIORITIES + 1],
    /// What the priority had that was served last, before it was.
    served: u64,
}

impl Shares {
    /// A task of this priority has come.
    pub fn joined(&mut self, priority: u8) {
        let at = usize::from(priority);
        if let (Some(n), Some(had)) = (self.n_waiting.get_mut(at), self.had.get_mut(at)) {
            if *n == 0 {
                *had = (*had).max(self.served);
            }
            *n += 1;
        }
    }

    /// A task of this priority waits no longer.
    pub fn left(&mut self, priority: u8) {
        if let Some(n) = self.n_waiting.get_mut(usize::from(priority)) {
            *n = n.saturating_sub(1);
        }
    }

    /// A task of this priority takes this part of a lane's time.
    pub fn charge(&mut self, priority: u8, time: Duration, weights: &[u32; N_PRIORITIES]) {
        let weight =
            usize::from(priority).checked_sub(1).and_then(|at| weights.get(at)).copied().unwrap_or(1);
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).max(1) / u64::from(weight.max(1));
        if let Some(had) = self.had.get_mut(usize::from(priority)) {
            self.served = self.served.max(*had);
            *had = had.saturating_add(nanos.max(1));
        }
    }

    /// The place of each priority in line, by its number: the smaller, the sooner.
    pub(super) fn places(&self) -> [u64; N_PRIORITIES + 1] {
        // Equals are served in the order of their numbers.
        let mut places = [0; N_PRIORITIES + 1];
        for (at, place) in places.iter_mut().enumerate() {
            let own = self.had.get(at).copied().unwrap_or(0);
            let before = self.had.iter().enumerate().filter(|&(other, &had)| (had, other) < (own, at));
            *place = before.count() as u64;
        }
        places
    }
}
