//! Every decision of a pipeline: what is read, what is scored together, what may be written, what is committed and when.
//!
//! Pure: events and the present moment come in as arguments, what is to be done goes out as [`Effect`]s. `T` is the work that
//! waits for a worker, `P` what comes of it; neither is looked at.

mod backoff;
mod commit;
mod forming;
mod intake;
mod limits;
mod share;
#[cfg(test)]
mod simulation;
mod tracker;
mod work;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::RandomState;
use std::time::{Duration, Instant};

use salver_records::{Position, Slot};

use crate::{Config, Delivery, Ending, NullKeys, Order};
use backoff::Backoff;
use commit::Interval;
use forming::Rules;
use limits::{Gate, Rate};
use tracker::{Ready, Tracker};

pub(crate) use share::{CANARY, SHADOW, Share};

/// How long the source is not asked when enough is in memory, before partitions are paused. Pausing may cost what a source has read
/// ahead.
const HOLD: Duration = Duration::from_secs(1);

/// How long partitions of which this process was fenced may take to be lost or assigned anew before the group is asked.
const FENCE: Duration = Duration::from_secs(1);

/// How long to wait before something is asked of the source again that it could not do.
const AGAIN: Duration = Duration::from_millis(250);

/// A record under way. The epoch tells assignments of one partition apart, and what was thrown away from what came again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Ticket {
    pub(crate) slot: Slot,
    epoch: u64,
    seq: u64,
}

/// What became of a record that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    In(Ticket),
    /// It is left to others, or comes again.
    LeftOut,
    /// Offsets of the partition have gone back without the source being told to: what they number is not what it was.
    WentBack {
        expected: i64,
    },
}

/// Which of the two models answers a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Primary,
    Canary,
}

impl Part {
    pub(crate) const ALL: [Part; 2] = [Part::Primary, Part::Canary];

    pub(crate) fn index(self) -> usize {
        self as usize
    }
}

/// Work that waits.
#[derive(Debug)]
pub(crate) struct Queued<T> {
    pub(crate) ticket: Ticket,
    pub(crate) offset: i64,
    pub(crate) taken: Instant,
    pub(crate) n_attempts: u32,
    pub(crate) work: T,
}

/// What comes of a record, to be written.
#[derive(Debug)]
pub(crate) struct Sending<P> {
    pub(crate) ticket: Ticket,
    pub(crate) taken: Instant,
    pub(crate) n_outputs: u32,
    pub(crate) payload: P,
}

/// What is to be done, in the order given.
#[derive(Debug)]
pub(crate) enum Effect<P> {
    Pause(Vec<Slot>),
    Resume(Vec<Slot>),
    /// Write these, in order; a transaction is opened for them if it has to be.
    Send(Vec<Sending<P>>),
    /// Commit the transaction with these positions; one is opened if there is none.
    Commit(Vec<Position>),
    /// Commit positions outside of any transaction, and answer with [`Core::remembered`].
    Remember(Vec<Position>),
    /// These positions are committed.
    Committed(Vec<Position>),
    /// Ask the group how far it is, and answer with [`Core::recalled`]. Comes again until it is answered.
    Recall(Vec<Slot>),
    /// Others have come so far, or a commit of which it was not known: what is kept of these partitions is of the past.
    Moved(Vec<Position>),
    /// Read on from these positions, and answer with [`Core::rewound`]; what was read behind them is forgotten. Comes again
    /// until it is answered.
    Rewind(Vec<Position>),
    /// Wait until what was committed of these lasts, and answer with [`Core::settled`] or [`Core::not_settled`].
    Settle(Vec<Slot>),
    GiveUp(Vec<Slot>),
}

/// What may be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Intake {
    /// About so many bytes.
    Open(usize),
    /// Nothing, for a short time.
    Held,
    /// Everything is paused; the source is asked for events only.
    Paused,
}

/// What is next for workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    Start {
        worker: usize,
        part: Part,
        n: usize,
    },
    /// Nothing before this moment, or before something happens.
    Wait(Option<Instant>),
}

#[derive(Debug)]
enum Phase {
    Active,
    /// Others shall have it; what is not finished by then is left to them.
    Draining {
        until: Instant,
        /// When to try again what could not be committed.
        again: Option<Instant>,
    },
    /// It is not known how far it is: others may have had it, or a commit may have come through. The group is asked then.
    Unsure {
        at: Instant,
    },
    /// What was read of it is forgotten, and the source is to go back. It is asked to at that time.
    Rewinding {
        at: Instant,
    },
}

#[derive(Debug)]
struct Assigned<P> {
    epoch: u64,
    tracker: Tracker<P>,
    phase: Phase,
    gate: Gate,
    is_paused: bool,
    /// All of a bounded run was read.
    is_ended: bool,
    /// What was last committed outside of transactions.
    remembered: Option<i64>,
}

impl<P> Assigned<P> {
    fn is_active(&self) -> bool {
        matches!(self.phase, Phase::Active)
    }

    fn is_draining(&self) -> bool {
        matches!(self.phase, Phase::Draining { .. })
    }

    fn is_unsure(&self) -> bool {
        matches!(self.phase, Phase::Unsure { .. })
    }

    fn is_rewinding(&self) -> bool {
        matches!(self.phase, Phase::Rewinding { .. })
    }

    /// Whether it is this process that says how far it is.
    fn is_ours(&self) -> bool {
        matches!(self.phase, Phase::Active | Phase::Rewinding { .. })
    }

    /// What was read is forgotten, and comes again.
    fn rewind(&mut self, now: Instant) {
        self.phase = Phase::Rewinding { at: now };
        self.is_ended = false;
    }

    /// The position to be committed, if it is another than the last.
    fn news(&self) -> Option<i64> {
        self.tracker.position().filter(|position| self.remembered != Some(*position))
    }
}

/// One partition, for those who watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) slot: Slot,
    pub(crate) committed: Option<i64>,
    pub(crate) read: Option<i64>,
    pub(crate) timestamp_ms: Option<i64>,
    pub(crate) n_in_flight: usize,
    pub(crate) is_paused: bool,
    pub(crate) is_ended: bool,
}

/// All partitions together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Totals {
    pub(crate) n_bytes: usize,
    pub(crate) n_records: usize,
    pub(crate) n_started: usize,
    pub(crate) n_released: usize,
}

#[derive(Debug)]
pub(crate) struct Core<T, P> {
    delivery: Delivery,
    order: Order,
    null_keys: NullKeys,
    commit_interval: Duration,
    max_transaction_bytes: usize,
    max_partition_records: usize,
    drain: Duration,
    max_failures: u32,
    rules: Rules,
    keys: RandomState,

    slots: BTreeMap<Slot, Assigned<P>>,
    last_epoch: u64,
    generation: u64,
    queues: [VecDeque<Queued<T>>; 2],
    backoffs: [Backoff; 2],
    loads: Vec<usize>,
    bytes: Gate,
    records: Gate,
    full_since: Option<Instant>,
    rate: Option<Rate>,

    outbox: VecDeque<(Sending<P>, i64, usize)>,
    interval: Interval,
    /// Partitions that were lost while positions of them were on their way. Where they are given back, the group may have said
    /// where they begin before it had these.
    late: BTreeSet<Slot>,
    /// This process was fenced while a commit was on its way, whose outcome is waited for.
    is_fenced: bool,
    /// Commits outside of transactions that were refused in a row, as if this process were not of the group.
    n_refused: u32,
    committed_at: Instant,
    /// Times in a row that writing failed, and how many of them were no troubles that pass.
    n_failures: u32,
    n_grave: u32,
    held_until: Option<Instant>,
    stopping: Option<Instant>,
    ready: Vec<Ready<P>>,
    effects: Vec<Effect<P>>,
}

impl<T, P> Core<T, P> {
    pub(crate) fn new(config: &Config, n_workers: usize, now: Instant) -> Core<T, P> {
        Core {
            delivery: config.delivery,
            order: config.order,
            null_keys: config.null_keys,
            commit_interval: config.commit_interval(),
            max_transaction_bytes: config.max_transaction_bytes,
            max_partition_records: config.max_partition_records.get(),
            drain: config.drain,
            max_failures: config.max_failures,
            rules: Rules {
                max_batch: config.max_batch.get(),
                linger: config.linger,
                in_flight: config.in_flight.get(),
                pipeline_after: config.pipeline_after,
            },
            keys: RandomState::new(),
            slots: BTreeMap::new(),
            last_epoch: 0,
            generation: 0,
            queues: [VecDeque::new(), VecDeque::new()],
            backoffs: Part::ALL.map(|_| Backoff::new(config.retry.clone())),
            loads: vec![0; n_workers],
            bytes: Gate::new(config.max_bytes),
            records: Gate::new(config.max_records.get()),
            full_since: None,
            rate: config.rate.map(|rate| Rate::new(rate, now)),
            outbox: VecDeque::new(),
            interval: Interval::Idle,
            late: BTreeSet::new(),
            is_fenced: false,
            n_refused: 0,
            committed_at: now,
            n_failures: 0,
            n_grave: 0,
            held_until: None,
            stopping: None,
            ready: Vec::new(),
            effects: Vec::new(),
        }
    }

    /// What is to be done since the last time.
    pub(crate) fn effects(&mut self) -> Vec<Effect<P>> {
        std::mem::take(&mut self.effects)
    }

    /// Which life of the sink the effects of now belong to: reports of an earlier one mean nothing, and a transaction that
    /// an earlier one has opened is to be aborted.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    // Partitions

    /// A partition was given to this process, to be read from there on.
    pub(crate) fn assigned(&mut self, slot: Slot, next: Option<i64>, now: Instant) {
        self.last_epoch += 1;
        let phase = if self.late.remove(&slot) { Phase::Unsure { at: now } } else { Phase::Active };
        let assigned = Assigned {
            epoch: self.last_epoch,
            tracker: Tracker::new(next),
            phase,
            gate: Gate::new(self.max_partition_records),
            is_paused: true,
            is_ended: false,
            remembered: next,
        };
        self.slots.insert(slot, assigned);
    }

    /// Others shall have these partitions: what workers have is finished with all that comes before it, nothing more starts.
    pub(crate) fn revoking(&mut self, slots: &[Slot], now: Instant) {
        let until = now + self.drain;
        let mut unknown = Vec::new();
        for slot in slots {
            match self.slots.get_mut(slot) {
                Some(assigned) if !assigned.is_unsure() => {
                    assigned.phase = Phase::Draining { until, again: None };
                    assigned.tracker.bar_rest();
                }
                _ => unknown.push(*slot),
            }
        }
        self.drop_queued();
        self.leave(unknown);
    }

    /// Others have these partitions already, or this process is given them again under the name that it had. A commit of them
    /// that is on its way is then not refused for sure.
    pub(crate) fn lost(&mut self, slots: &[Slot], now: Instant) {
        let has_written = slots.iter().any(|slot| self.interval.is_open_with(*slot));
        for slot in slots {
            self.slots.remove(slot);
            if self.interval.is_committing(*slot) {
                self.late.insert(*slot);
            }
        }
        self.drop_queued();
        if has_written {
            self.roll_back(now);
        }
    }

    /// Knows nothing of this partition for now. It comes with [`Core::assigned`] again.
    pub(crate) fn set_aside(&mut self, slot: Slot) {
        self.slots.remove(&slot);
        self.drop_queued();
    }

    /// It is not known how far this partition is, which was just assigned.
    pub(crate) fn ask(&mut self, slot: Slot, now: Instant) {
        if let Some(assigned) = self.slots.get_mut(&slot) {
            assigned.phase = Phase::Unsure { at: now };
        }
    }

    /// The source has given all of a partition. It says so again after it was rewound.
    pub(crate) fn ended(&mut self, slot: Slot) {
        // What was read of a partition that is not active was left out, and is not all of it.
        let all = |assigned: &&mut Assigned<P>| assigned.is_active() || assigned.tracker.position().is_none();
        if let Some(assigned) = self.slots.get_mut(&slot).filter(all) {
            assigned.is_ended = true;
        }
    }

    // Time

    /// Looks at everything that time or earlier events may have made due. Gives when to look again at the latest.
    pub(crate) fn tick(&mut self, now: Instant) -> Option<Instant> {
        self.read_on(now);
        self.flush(now);
        self.give_up(now);
        self.remember(now);
        self.pause(now);
        self.wake(now)
    }

    /// Ends intake. What workers have is finished with all that comes before it until the grace is over, the rest is left.
    pub(crate) fn stop(&mut self, now: Instant, grace: Duration) {
        let until = now + grace;
        self.stopping = Some(self.stopping.map_or(until, |before| before.min(until)));
        for assigned in self.slots.values_mut() {
            assigned.tracker.bar_rest();
        }
        self.drop_queued();
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.is_some()
    }

    /// When the grace is over, if the end was asked for.
    pub(crate) fn stopping(&self) -> Option<Instant> {
        self.stopping
    }

    /// Whether the pipeline has come to its end.
    pub(crate) fn ending(&mut self, now: Instant) -> Option<Ending> {
        if let Some(until) = self.stopping {
            if self.is_written() && !self.slots.values().any(Assigned::is_draining) {
                return Some(Ending::Stopped);
            }
            return (now >= until).then_some(Ending::Cut);
        }
        let is_read = !self.slots.is_empty()
            && self
                .slots
                .values()
                .all(|assigned| assigned.is_active() && assigned.is_ended && assigned.tracker.is_empty());
        (is_read && self.is_written()).then_some(Ending::Finished)
    }

    /// Whether nothing is under way and all positions are committed.
    fn is_written(&self) -> bool {
        self.outbox.is_empty()
            && matches!(self.interval, Interval::Idle)
            && self.slots.values().all(|assigned| {
                assigned.tracker.is_quiet()
                    && (self.delivery == Delivery::ExactlyOnce
                        || assigned.news().is_none()
                        || !assigned.is_ours())
            })
    }

    /// Whether writing has failed too many times in a row.
    pub(crate) fn is_hopeless(&self) -> bool {
        self.n_grave > self.max_failures
    }

    /// Whether the last attempt to write failed, or the source has not gone back yet.
    pub(crate) fn is_failing(&self) -> bool {
        self.n_failures > 0 || self.slots.values().any(|one| one.is_unsure() || one.is_rewinding())
    }

    /// When positions were last committed.
    pub(crate) fn committed_at(&self) -> Instant {
        self.committed_at
    }
}

/// The earlier of a moment that may be known and one that is.
fn earliest(known: Option<Instant>, other: Instant) -> Option<Instant> {
    Some(known.map_or(other, |known| known.min(other)))
}
