//! Who gets threads next: a state machine without threads or a clock of its own.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar};
use std::time::{Duration, Instant};

/// A model that computes at least one part in so many of the time is expected back soon.
const SELDOM: u32 = 20;

/// Nobody is expected back for longer than this.
const PATIENCE: Duration = Duration::from_secs(1);

/// Who holds threads and who waits for some. Every method takes time in proportion to what is held or waits, at most.
#[derive(Debug)]
pub(super) struct Line {
    n_all: usize,
    /// How long threads that are held count.
    bound: Duration,
    /// Threads that are held and count, and those granted that nobody has picked up yet.
    n_used: usize,
    held: Vec<Held>,
    next_id: u64,
    sets: BTreeMap<u64, Set>,
    /// The sets with lanes that wait, the next first.
    turns: VecDeque<u64>,
    /// The processor after the last that a pinned lane was put on.
    next_processor: usize,
    /// The last moment that was told.
    now: Option<Instant>,
}

/// Threads that are held and count.
#[derive(Debug)]
struct Held {
    id: u64,
    set: u64,
    /// None for a run that slipped in.
    n: usize,
    since: Instant,
}

/// The lanes of one model, which all take the same number of threads at a time. Which of them waits is of no account.
#[derive(Debug)]
pub(super) struct Set {
    n: usize,
    n_waiting: usize,
    /// How many of them have been given threads and not picked them up yet.
    n_granted: usize,
    /// How many of them hold threads that count.
    n_held: usize,
    /// Whether one of them runs without threads.
    is_slipped: bool,
    /// When its last run ended, and how long that took.
    last: Option<(Instant, Duration)>,
    /// How often they were called.
    pub(super) n_calls: u64,
    /// Signalled once per grant, and to all at a call.
    woken: Arc<Condvar>,
}

impl Line {
    pub(super) fn new(n_all: usize, bound: Duration) -> Line {
        Line {
            n_all,
            bound,
            n_used: 0,
            held: Vec::new(),
            next_id: 0,
            sets: BTreeMap::new(),
            turns: VecDeque::new(),
            next_processor: 0,
            now: None,
        }
    }

    /// Adds lanes that take `n` threads at a time.
    pub(super) fn join(&mut self, n: usize) -> (u64, Arc<Condvar>) {
        let woken = Arc::new(Condvar::new());
        let n = n.min(self.n_all);
        let woken_too = Arc::clone(&woken);
        let set = Set {
            n,
            n_waiting: 0,
            n_granted: 0,
            n_held: 0,
            is_slipped: false,
            last: None,
            n_calls: 0,
            woken: woken_too,
        };
        let id = self.new_id();
        self.sets.insert(id, set);
        (id, woken)
    }

    /// Takes lanes out of which none waits.
    pub(super) fn leave(&mut self, set: u64) {
        self.sets.remove(&set);
    }

    /// The set, for as long as it has not left.
    pub(super) fn set(&mut self, set: u64) -> Option<&mut Set> {
        self.sets.get_mut(&set)
    }

    /// Threads for a lane of this set, if they are free and nobody waits for any.
    pub(super) fn try_take(&mut self, set: u64, now: Instant) -> Option<u64> {
        self.now = Some(now);
        let n = self.sets.get(&set)?.n;
        let is_free = self.turns.is_empty() && self.n_used + n + self.kept_from(set) <= self.n_all;
        is_free.then(|| {
            self.n_used += n;
            self.hold(set, n, now)
        })
    }

    /// Leave for a short run without threads: one for each set that has none, and no more in all than there are threads.
    pub(super) fn slip(&mut self, set: u64, now: Instant) -> Option<u64> {
        self.now = Some(now);
        if !self.may_slip(set) {
            return None;
        }
        self.sets.get_mut(&set)?.is_slipped = true;
        Some(self.hold(set, 0, now))
    }

    /// Whether a short run of this set could start without threads.
    pub(super) fn may_slip(&self, set: u64) -> bool {
        let n_slipped = self.sets.values().filter(|set| set.is_slipped).count();
        let has_none = |set: &Set| !set.is_slipped && set.n_held + set.n_granted == 0;
        n_slipped < self.n_all && self.sets.get(&set).is_some_and(has_none)
    }

    /// Runs of this set that could start now. None while others are before it.
    pub(super) fn n_startable(&mut self, set: u64, now: Instant) -> usize {
        self.now = Some(now);
        let Some(n) = self.sets.get(&set).map(|set| set.n) else { return 0 };
        if self.turns.iter().any(|&turn| turn != set) {
            return 0;
        }
        let kept = self.expected_of_others(set);
        let has_some = self.sets.get(&set).is_some_and(|set| set.n_held + set.n_granted > 0);
        let n_free = self.n_all.saturating_sub(self.n_used);
        let n_startable = n_free.saturating_sub(kept) / n.max(1);
        // The first needs to leave nothing.
        if has_some { n_startable } else { n_startable.max(usize::from(n_free >= n)) }
    }

    /// A lane of this set waits from now on.
    pub(super) fn stand(&mut self, set: u64) {
        let Some(waiting) = self.sets.get_mut(&set) else { return };
        waiting.n_waiting += 1;
        if waiting.n_waiting == 1 {
            self.turns.push_back(set);
        }
        self.grant();
    }

    /// The threads that a lane of this set waited for, if it is their turn. The lane does not wait any more then.
    pub(super) fn pick_up(&mut self, set: u64, now: Instant) -> Option<u64> {
        let waiting = self.sets.get_mut(&set).filter(|set| set.n_granted > 0)?;
        waiting.n_granted -= 1;
        let n = waiting.n;
        self.now = Some(now);
        Some(self.hold(set, n, now))
    }

    /// A lane of this set does not wait any more.
    pub(super) fn step_out(&mut self, set: u64) {
        let Some(waiting) = self.sets.get_mut(&set) else { return };
        if waiting.n_waiting > 0 {
            waiting.n_waiting -= 1;
            if waiting.n_waiting == 0 {
                self.turns.retain(|&turn| turn != set);
            }
        } else if waiting.n_granted > 0 {
            waiting.n_granted -= 1;
            self.n_used -= waiting.n;
        }
        self.grant();
    }

    /// Threads come back; those that count no longer change nothing.
    pub(super) fn give_back(&mut self, id: u64, now: Instant) {
        self.now = Some(now);
        if let Some(at) = self.held.iter().position(|held| held.id == id) {
            let held = self.held.swap_remove(at);
            self.n_used -= held.n;
            if let Some(set) = self.sets.get_mut(&held.set) {
                set.let_go(held.n);
                set.last = Some((now, now.saturating_duration_since(held.since)));
            }
            self.grant();
        }
    }

    /// Counts no longer what has been held for longer than the bound, and says how many runs that were.
    pub(super) fn write_off(&mut self, now: Instant) -> usize {
        self.now = Some(now);
        let n_before = self.held.len();
        let (bound, n_used, sets) = (self.bound, &mut self.n_used, &mut self.sets);
        self.held.retain(|held| {
            let counts = now.saturating_duration_since(held.since) < bound;
            if !counts {
                *n_used -= held.n;
                if let Some(set) = sets.get_mut(&held.set) {
                    set.let_go(held.n);
                }
            }
            counts
        });
        // Also for those who waited only because others were expected back.
        self.grant();
        n_before - self.held.len()
    }

    /// When the next of what is held counts no longer.
    pub(super) fn next_write_off(&self) -> Option<Instant> {
        self.held.iter().map(|held| held.since).min()?.checked_add(self.bound)
    }

    /// When somebody who waits need no longer leave threads to others.
    pub(super) fn next_lapse(&self) -> Option<Instant> {
        let now = self.now?;
        if self.turns.is_empty() {
            return None;
        }
        self.sets
            .values()
            .filter(|set| set.n_held == 0)
            .filter_map(Set::expected_until)
            .filter(|&until| until > now)
            .min()
    }

    /// Threads that a set must leave free because others, who have none now, are expected back: so that a model that always
    /// has work does not hold every thread when another's request comes. Nothing has to be left by who has no thread itself.
    fn kept_from(&self, set: u64) -> usize {
        let has_some = self.sets.get(&set).is_some_and(|set| set.n_held + set.n_granted > 0);
        if has_some { self.expected_of_others(set) } else { 0 }
    }

    /// Threads of the largest run of another set that has none now and is expected back.
    fn expected_of_others(&self, set: u64) -> usize {
        let Some(now) = self.now.filter(|_| self.sets.len() > 1) else { return 0 };
        let is_expected = |set: &Set| {
            set.n_held + set.n_granted == 0 && set.expected_until().is_some_and(|until| until > now)
        };
        let others = self.sets.iter().filter(|&(&other, _)| other != set).map(|(_, set)| set);
        others.filter(|set| is_expected(set)).map(|set| set.n).max().unwrap_or(0)
    }

    /// The first of so many processors for a lane, counted on round all lanes.
    pub(super) fn processor(&mut self, n: usize) -> usize {
        let first = self.next_processor;
        self.next_processor = first.wrapping_add(n);
        first
    }

    /// Gives what is free to those who are next: one lane of each set in turn. Who is next is not passed by others that
    /// need less, but by others when it has threads and may not have more.
    fn grant(&mut self) {
        let mut at = 0;
        while let Some(&id) = self.turns.get(at) {
            let kept = self.kept_from(id);
            let Some(set) = self.sets.get_mut(&id) else {
                self.turns.remove(at);
                continue;
            };
            if self.n_used + set.n > self.n_all {
                return;
            }
            if self.n_used + set.n + kept > self.n_all {
                at += 1;
                continue;
            }
            self.n_used += set.n;
            set.n_waiting -= 1;
            set.n_granted += 1;
            set.woken.notify_one();
            self.turns.remove(at);
            if set.n_waiting > 0 {
                self.turns.push_back(id);
            }
        }
    }

    fn hold(&mut self, set: u64, n: usize, since: Instant) -> u64 {
        let id = self.new_id();
        self.held.push(Held { id, set, n, since });
        if let Some(set) = self.sets.get_mut(&set).filter(|_| n > 0) {
            set.n_held += 1;
        }
        id
    }

    fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }
}

impl Set {
    /// One of its runs holds these threads no longer.
    fn let_go(&mut self, n: usize) {
        match n {
            0 => self.is_slipped = false,
            _ => self.n_held -= 1,
        }
    }

    /// Until when its next run is expected; `None` if it never ran.
    fn expected_until(&self) -> Option<Instant> {
        let (ended, took) = self.last?;
        ended.checked_add(took.saturating_mul(SELDOM).min(PATIENCE))
    }
}

#[cfg(test)]
impl Line {
    /// Lanes that wait, of all sets.
    pub(crate) fn n_waiting(&self) -> usize {
        self.sets.values().map(|set| set.n_waiting).sum()
    }
}

#[cfg(test)]
mod tests;
