//! Partitions that have to wait while others go on: for their windows to be restored, or for something that their next record
//! needs to be read, such as a schema.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use salver_records::{Assignment, Error as PartError, Partition, Record, Slot};

use super::Driver;
use super::report::{lag, place};
use crate::core::Ticket;
use crate::restore::{Task, Wanted};
use crate::window::Restored;
use crate::{Error, ErrorKind, PartitionStatus, clock};

/// How long to wait before windows are restored that could not be.
const AGAIN: Duration = Duration::from_millis(250);

/// A partition whose windows are being restored, or will be. It stays paused.
#[derive(Debug)]
pub(super) struct Restoring {
    assignment: Assignment,
    number: u64,
    /// Until the thread that restores has it.
    task: Option<Task>,
    since: Instant,
    /// Not before this moment.
    until: Instant,
    /// Why it could not be done before.
    told: String,
    is_ended: bool,
    /// Dropped with this, which calls the restoration off.
    _wanted: Wanted,
}

/// Records of a partition that were taken in, from one on that cannot be read for now.
#[derive(Debug)]
pub(super) struct Held {
    records: VecDeque<(Ticket, Record)>,
    /// How many times the first was tried, and when it will be again.
    n_attempts: u32,
    until: Instant,
}

impl Restoring {
    /// As others see it. Nothing was read, so it is not known how old the oldest record is, but that it has waited since then.
    pub(super) fn status(
        &self,
        places: &HashMap<Slot, Arc<Partition>>,
        ends: &HashMap<Slot, i64>,
        now: Instant,
    ) -> PartitionStatus {
        let Assignment { slot, next } = self.assignment;
        let lag = lag(ends.get(&slot).copied(), next);
        let waited = if lag == Some(0) { Duration::ZERO } else { now.saturating_duration_since(self.since) };
        PartitionStatus {
            partition: place(places, slot),
            committed: next,
            read: None,
            lag,
            lag_time: lag.map(|_| waited),
            in_flight: 0,
            is_paused: true,
            is_ended: self.is_ended,
            is_restoring: true,
        }
    }
}

impl Driver {
    // Windows to be restored

    /// Begins to restore the windows of a partition. The core learns of it when they are there.
    pub(super) fn restore(&mut self, assignment: Assignment) -> Result<(), Error> {
        let Some(windows) = &mut self.windows else { return Ok(()) };
        let partition = self.source.partition(assignment.slot);
        let restoration =
            windows.restoration(partition).map_err(|message| Error::new(ErrorKind::State, message))?;
        self.state.n_restorations += 1;
        let number = self.state.n_restorations;
        let (task, wanted) = Task::new(number, Arc::new(partition.clone()), restoration);
        let told = String::new();
        let (task, now) = (Some(task), clock::now());
        let (since, until) = (now, now);
        let restoring =
            Restoring { assignment, number, task, since, until, told, is_ended: false, _wanted: wanted };
        self.state.restoring.push_back(restoring);
        Ok(())
    }

    /// Gives the thread that restores its next partition, if it has none. Gives when to look again.
    pub(super) fn restore_next(&mut self, now: Instant) -> Result<Option<Instant>, Error> {
        if self.state.is_restoring {
            return Ok(None);
        }
        let mut waiting = self.state.restoring.iter_mut().filter(|one| one.task.is_some());
        let Some(next) = waiting.find(|one| one.until <= now) else {
            return Ok(self.state.restoring.iter().map(|one| one.until).min());
        };
        let sent = self.restorer.as_ref().zip(next.task.take()).map(|(tasks, task)| tasks.try_send(task));
        if !matches!(sent, Some(Ok(()))) {
            return Err(Error::new(ErrorKind::Internal, "the thread that restores windows has ended"));
        }
        self.state.is_restoring = true;
        Ok(None)
    }

    /// The windows of a partition cannot be had for now: it is tried again after a while, and others come first.
    pub(super) fn not_restored(&mut self, task: Task, error: PartError, now: Instant) {
        self.state.is_restoring = false;
        let at = self.state.restoring.iter().position(|one| one.number == task.number());
        let Some(mut restoring) = at.and_then(|at| self.state.restoring.remove(at)) else { return };
        if restoring.told != error.message {
            tracing::warn!("windows are not restored yet: {error}");
            restoring.told = error.message;
        }
        (restoring.task, restoring.until) = (Some(task), now + AGAIN);
        self.state.restoring.push_back(restoring);
    }

    /// The thread that restores is done with a partition, which may not be this process's any more.
    pub(super) fn restored(
        &mut self,
        number: u64,
        restored: Result<Restored, PartError>,
    ) -> Result<(), Error> {
        self.state.is_restoring = false;
        let at = self.state.restoring.iter().position(|one| one.number == number);
        if let Some(Restoring { assignment, is_ended, .. }) =
            at.and_then(|at| self.state.restoring.remove(at))
        {
            let failed = |message: String| Error::new(ErrorKind::State, message);
            let restored = restored.map_err(|error| failed(error.message))?;
            if let Some(windows) = &mut self.windows {
                windows.assign(self.source.partition(assignment.slot), restored).map_err(failed)?;
            }
            let now = clock::now();
            self.core.assigned(assignment.slot, assignment.next, now);
            if self.state.moved.remove(&assignment.slot) {
                self.core.ask(assignment.slot, now);
            }
            if is_ended {
                self.core.ended(assignment.slot);
            }
        }
        Ok(())
    }

    /// The source has given all of a partition.
    pub(super) fn ended(&mut self, slot: Slot) {
        match self.state.restoring.iter_mut().find(|one| one.assignment.slot == slot) {
            Some(restoring) => restoring.is_ended = true,
            None => self.core.ended(slot),
        }
    }

    // Records to be read later

    /// A record cannot be read for now: it is tried again after a while, and what comes behind it waits.
    pub(super) fn hold(&mut self, ticket: Ticket, record: Record, n_attempts: u32, why: &str, now: Instant) {
        let slot = ticket.slot;
        if n_attempts == 1 {
            tracing::warn!("{} waits at offset {}: {why}", self.source.partition(slot), record.offset);
            self.source.pause(&[slot]);
        }
        let doublings = n_attempts.saturating_sub(1).min(20);
        let pause = self.retry.backoff.saturating_mul(1 << doublings).min(self.retry.max_backoff);
        let held = Held { records: VecDeque::from([(ticket, record)]), n_attempts, until: now + pause };
        self.state.held.insert(slot, held);
    }

    /// Keeps a record behind one that cannot be read for now; gives it back if there is none.
    pub(super) fn keep_behind(&mut self, ticket: Ticket, record: Record) -> Option<Record> {
        match self.state.held.get_mut(&ticket.slot) {
            Some(held) => {
                held.records.push_back((ticket, record));
                None
            }
            None => Some(record),
        }
    }

    /// Tries again what could not be read and is due. Gives when to look again.
    pub(super) fn read_held(&mut self, now: Instant) -> Result<Option<Instant>, Error> {
        self.drop_stale();
        let due = self.state.held.iter().filter(|(_, held)| held.until <= now);
        let due: Vec<Slot> = due.map(|(slot, _)| *slot).collect();
        for slot in due {
            let Some(Held { mut records, mut n_attempts, .. }) = self.state.held.remove(&slot) else {
                continue;
            };
            while let Some((ticket, record)) = records.pop_front().filter(|_| !self.core.is_stopping()) {
                self.take_in(ticket, record, n_attempts, now)?;
                n_attempts = 0;
                if let Some(held) = self.state.held.get_mut(&slot) {
                    held.records.append(&mut records);
                }
            }
            if !self.state.held.contains_key(&slot) {
                self.resume(&[slot]);
            }
        }
        Ok(self.state.held.values().map(|held| held.until).min())
    }

    /// Forgets what is held once the pipeline has begun again, as it comes again then, or comes to its end.
    pub(super) fn drop_stale(&mut self) {
        let generation = self.core.generation();
        if self.state.held_in != generation || self.core.is_stopping() {
            self.state.held_in = generation;
            let held: Vec<Slot> = self.state.held.drain().map(|(slot, _)| slot).collect();
            self.resume(&held);
        }
    }

    /// Reads partitions again, but for those that have to wait, here or as the core says.
    pub(super) fn resume(&mut self, slots: &[Slot]) {
        let paused: Vec<Slot> =
            self.core.seen().filter(|seen| seen.is_paused).map(|seen| seen.slot).collect();
        let is_free = |slot: &&Slot| !self.state.held.contains_key(slot) && !paused.contains(slot);
        let free: Vec<Slot> = slots.iter().filter(is_free).copied().collect();
        if !free.is_empty() {
            self.source.resume(&free);
        }
    }

    // Both

    /// These partitions are given to others: nothing of them is waited for any more.
    pub(super) fn let_go(&mut self, slots: &[Slot]) {
        self.state.restoring.retain(|one| !slots.contains(&one.assignment.slot));
        self.state.held.retain(|slot, _| !slots.contains(slot));
    }
}
