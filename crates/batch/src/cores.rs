//! How much computes at one time, over all models of a process.

mod line;

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::Clock;
use line::Line;

/// How long a run's threads count.
const BOUND: Duration = Duration::from_secs(5);

/// The threads that runs of all models may use together. A lane takes as many as one of its runs uses before it forms a
/// batch, and gives them back after. When there are too few, models take turns, one run each, however many lanes they have.
/// Clones share the same threads.
///
/// A model leaves one run's worth of threads free for another that computes often enough to be expected back (a twentieth
/// of the time), unless it has none itself: a request to a model at ease then finds a thread, though others are overloaded.
///
/// A run that is expected to be short does not wait for threads that others hold: it starts beside them, and the system's
/// scheduler gives each its part. So a model of short runs does not wait for a long one to end. There is one such run at a
/// time for a model that has no threads, and there are no more of them in all than there are threads.
///
/// A run that takes longer than a bound may never end. Its threads count no longer while others wait, so that a model that
/// hangs stops no other; more runs than there are threads may then compute at a time.
///
/// Runs made on calling threads ([`crate::Policy::inline_below`]) take none: they end in microseconds, and there are no
/// more of them than threads that serve.
#[derive(Clone)]
pub struct Cores {
    shared: Arc<Shared>,
}

struct Shared {
    n_all: usize,
    bound: Duration,
    line: Mutex<Line>,
}

/// The lanes of one model among those that share threads.
pub(crate) struct Member {
    cores: Cores,
    clock: Arc<dyn Clock>,
    set: u64,
    woken: Arc<Condvar>,
}

/// A lane's place among those that wait for threads. Dropping it leaves it.
pub(crate) struct Place<'a> {
    member: &'a Member,
    n_calls: u64,
    is_left: bool,
}

/// Threads that are taken until this is dropped.
pub(crate) struct Permit {
    cores: Cores,
    clock: Arc<dyn Clock>,
    id: u64,
}

impl Cores {
    /// So many threads, of which those of a run that takes longer than 5 seconds count no longer.
    pub fn new(n: NonZeroUsize) -> Cores {
        Cores::with_bound(n, BOUND)
    }

    /// So many threads, of which those of a run that takes as long as `bound` count no longer.
    pub fn with_bound(n: NonZeroUsize, bound: Duration) -> Cores {
        let line = Mutex::new(Line::new(n.get(), bound));
        Cores { shared: Arc::new(Shared { n_all: n.get(), bound, line }) }
    }

    /// As many threads as this machine runs at a time.
    pub fn of_machine() -> Cores {
        Cores::new(std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN))
    }

    /// How many threads there are in all.
    pub fn n(&self) -> usize {
        self.shared.n_all
    }

    /// Adds the lanes of a model whose runs use `n` threads each. A run that uses more than there are takes all.
    pub(crate) fn join(&self, n: NonZeroUsize, clock: Arc<dyn Clock>) -> Member {
        let (set, woken) = self.lock().join(n.get());
        Member { cores: self.clone(), clock, set, woken }
    }

    /// The first of the processors for the next lane that is kept on `n` of its own, counted on over all models.
    pub(crate) fn processor(&self, n: NonZeroUsize) -> usize {
        self.lock().processor(n.get())
    }

    fn lock(&self) -> MutexGuard<'_, Line> {
        self.shared.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn warn(&self, n_lost: usize) {
        for _ in 0..n_lost {
            tracing::warn!(
                "a run has taken longer than {:?}: its threads count no longer among the {} that all models share",
                self.shared.bound,
                self.shared.n_all
            );
        }
    }
}

impl Member {
    /// Takes the threads of a run if they are free and nobody waits for any.
    pub(crate) fn try_take(&self, now: Instant) -> Option<Permit> {
        let id = self.cores.lock().try_take(self.set, now)?;
        Some(self.permit(id))
    }

    /// Lets a short run start without threads, if one of this model may.
    pub(crate) fn slip(&self, now: Instant) -> Option<Permit> {
        let id = self.cores.lock().slip(self.set, now)?;
        Some(self.permit(id))
    }

    /// Whether [`Member::slip`] would let one.
    pub(crate) fn may_slip(&self) -> bool {
        self.cores.lock().may_slip(self.set)
    }

    fn permit(&self, id: u64) -> Permit {
        Permit { cores: self.cores.clone(), clock: Arc::clone(&self.clock), id }
    }

    /// Runs of this model that could start now; what others are owed counts only if it has threads already.
    pub(crate) fn n_startable(&self, now: Instant) -> usize {
        self.cores.lock().n_startable(self.set, now)
    }

    /// Takes a place among those that wait.
    pub(crate) fn stand(&self) -> Place<'_> {
        let mut line = self.cores.lock();
        line.stand(self.set);
        let n_calls = line.set(self.set).map_or(0, |set| set.n_calls);
        Place { member: self, n_calls, is_left: false }
    }

    /// Ends [`Place::wait`] for all places of this model.
    pub(crate) fn call(&self) {
        let mut line = self.cores.lock();
        if let Some(set) = line.set(self.set) {
            set.n_calls += 1;
        }
        self.woken.notify_all();
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.cores.lock().leave(self.set);
    }
}

impl Place<'_> {
    /// Blocks until the threads are there. `None`, with the place kept, when this moment comes before, or when the model's
    /// lanes are called or were since the last `None` (or since the place was taken).
    pub(crate) fn wait(&mut self, until: Option<Instant>) -> Option<Permit> {
        let Member { cores, clock, set, woken } = self.member;
        let mut line = cores.lock();
        loop {
            let now = clock.now();
            let n_lost = line.write_off(now);
            if n_lost > 0 {
                drop(line);
                cores.warn(n_lost);
                line = cores.lock();
                continue;
            }
            if let Some(id) = line.pick_up(*set, now) {
                self.is_left = true;
                return Some(self.member.permit(id));
            }
            let n_calls = line.set(*set).map_or(0, |set| set.n_calls);
            if n_calls != self.n_calls || until.is_some_and(|until| until <= now) {
                self.n_calls = n_calls;
                return None;
            }
            let next = line.next_write_off().into_iter().chain(line.next_lapse()).chain(until).min();
            line = match next {
                None => woken.wait(line).unwrap_or_else(PoisonError::into_inner),
                Some(next) => {
                    let left = next.saturating_duration_since(now);
                    woken.wait_timeout(line, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if !self.is_left {
            self.member.cores.lock().step_out(self.member.set);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let now = self.clock.now();
        self.cores.lock().give_back(self.id, now);
    }
}

impl PartialEq for Cores {
    fn eq(&self, other: &Cores) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }
}

impl Eq for Cores {}

impl fmt::Debug for Cores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cores({})", self.shared.n_all)
    }
}

#[cfg(test)]
impl Cores {
    /// Lanes that wait, of all models.
    pub(crate) fn n_waiting(&self) -> usize {
        self.lock().n_waiting()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[expect(clippy::disallowed_methods, reason = "threads are lent by the machine's time here")]
    fn clock() -> Instant {
        Instant::now()
    }

    fn n(n: usize) -> NonZeroUsize {
        NonZeroUsize::new(n).unwrap()
    }

    #[test]
    fn never_more_than_there_are() {
        let cores = Cores::with_bound(n(3), Duration::from_secs(3600));
        let (used, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let members = [1, 2, 3].map(|wanted| (wanted, cores.join(n(wanted), Arc::new(clock))));
        std::thread::scope(|scope| {
            for thread in 0..6 {
                let ((wanted, member), used, most) = (&members[thread % 3], &used, &most);
                scope.spawn(move || {
                    for round in 0..50 {
                        let mut place = member.stand();
                        if (thread + round) % 7 == 0 {
                            member.call();
                            drop(place);
                            continue;
                        }
                        let permit = std::iter::repeat_with(|| place.wait(None)).find_map(|permit| permit);
                        most.fetch_max(used.fetch_add(*wanted, Ordering::SeqCst) + wanted, Ordering::SeqCst);
                        std::thread::yield_now();
                        used.fetch_sub(*wanted, Ordering::SeqCst);
                        drop(permit);
                    }
                });
            }
        });
        assert!(most.into_inner() <= 3);
        assert!(members[2].1.try_take(clock()).is_some());
    }

    #[test]
    fn a_call_before_the_wait_is_heard() {
        let cores = Cores::with_bound(n(1), Duration::from_secs(3600));
        let [holder, member] = [1, 1].map(|wanted| cores.join(n(wanted), Arc::new(clock)));
        let held = holder.try_take(clock()).unwrap();
        let mut place = member.stand();
        member.call();
        assert!(place.wait(None).is_none());
        assert!(place.wait(Some(clock())).is_none());
        drop(held);
        assert!(place.wait(None).is_some(), "the place is kept");
    }
}
