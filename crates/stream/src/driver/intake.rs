//! Taking in what the source gives.

use std::sync::Arc;
use std::time::{Duration, Instant};

use salver_records::{Assignment, Event, Record, Severity, Slot};

use super::Driver;
use crate::core::{Part, Queued, Taken, Ticket};
use crate::refuse::{Origin, Outputs};
use crate::score::{Parcel, Work};
use crate::status::add;
use crate::{Class, Error, ErrorKind, PushError, Refused, clock};

/// How long to wait after a trouble of the source.
const TROUBLE: Duration = Duration::from_millis(20);

impl Driver {
    /// Asks the source. Gives whether anything came.
    pub(super) fn read(&mut self, wait: Duration, max_bytes: usize) -> Result<bool, Error> {
        self.drop_stale();
        let (mut records, mut events) =
            (std::mem::take(&mut self.state.records), std::mem::take(&mut self.state.events));
        let polled = self.source.poll(wait, max_bytes, &mut records, &mut events);
        let now = clock::now();
        let came = !records.is_empty() || !events.is_empty();
        let (mut ended, mut anew) = (Vec::new(), Vec::new());
        for event in events.drain(..) {
            if let Event::Assigned(assignments) = &event {
                anew.extend(assignments.iter().map(|assignment| assignment.slot));
            }
            match event {
                // What was read before the end is taken in before it.
                Event::End(slot) => ended.push(slot),
                event => self.occur(event, now)?,
            }
        }
        // A partition that is assigned is paused, so what came with that was read before, as part of what was lost.
        records.retain(|record| !anew.contains(&record.slot));
        add(&self.meter.counters.records_in, records.len());
        for record in records.drain(..) {
            self.take(record, now)?;
        }
        ended.into_iter().for_each(|slot| self.ended(slot));
        (self.state.records, self.state.events) = (records, events);
        match polled {
            Ok(()) => self.state.has_source_trouble = false,
            // Fenced here means that somebody else reads in this one's name, and nothing comes any more.
            Err(error) if matches!(error.severity, Severity::Fatal | Severity::Fenced) => {
                return Err(Error::new(ErrorKind::Source, error.message));
            }
            Err(error) => {
                if !self.state.has_source_trouble {
                    tracing::warn!("the source has trouble: {error}");
                }
                self.state.has_source_trouble = true;
                self.wait_for_report(TROUBLE)?;
            }
        }
        Ok(came)
    }

    fn occur(&mut self, event: Event, now: Instant) -> Result<(), Error> {
        let counters = &self.meter.counters;
        match event {
            Event::Assigned(assignments) => {
                add(&counters.assigned, assignments.len());
                add(&counters.rebalances, 1);
                for assignment in assignments {
                    self.assigned(assignment)?;
                }
            }
            Event::Revoking(slots) => {
                add(&counters.revoked, slots.len());
                add(&counters.rebalances, 1);
                self.let_go(&slots);
                self.core.revoking(&slots, now);
            }
            Event::Lost(slots) => {
                add(&counters.lost, slots.len());
                add(&counters.rebalances, 1);
                self.let_go(&slots);
                for slot in &slots {
                    tracing::warn!("{} is lost to others", self.source.partition(*slot));
                    if let Some(windows) = &mut self.windows {
                        windows.release(self.source.partition(*slot));
                    }
                }
                self.core.lost(&slots, now);
            }
            Event::End(slot) => self.ended(slot),
        }
        Ok(())
    }

    fn assigned(&mut self, assignment: Assignment) -> Result<(), Error> {
        let Assignment { slot, next } = assignment;
        let partition = Arc::new(self.source.partition(slot).clone());
        match next {
            Some(next) => tracing::info!("{partition} is assigned, from offset {next}"),
            None => tracing::info!("{partition} is assigned"),
        }
        self.state.places.insert(slot, partition);
        self.state.moved.remove(&slot);
        if self.windows.is_some() {
            return self.restore(assignment);
        }
        self.core.assigned(slot, next, clock::now());
        Ok(())
    }

    fn take(&mut self, record: Record, now: Instant) -> Result<(), Error> {
        let n_bytes = record.n_bytes();
        add(&self.meter.counters.bytes_in, n_bytes);
        let Record { slot, offset, timestamp_ms, .. } = record;
        let key = record.key.as_deref();
        let ticket = match self.core.take(slot, offset, key, n_bytes, timestamp_ms, now) {
            Taken::In(ticket) => ticket,
            Taken::LeftOut => return Ok(()),
            Taken::WentBack { expected } => {
                self.went_back(slot, offset, expected, now);
                return Ok(());
            }
        };
        match self.keep_behind(ticket, record) {
            Some(record) => self.take_in(ticket, record, 0, now),
            None => Ok(()),
        }
    }

    /// Offsets of a partition have gone back. What comes now may be other records, and would be taken for done.
    fn went_back(&mut self, slot: Slot, offset: i64, expected: i64, now: Instant) {
        let partition = self.source.partition(slot);
        let message = format!(
            "{partition} has gone back to offset {offset}, expected {expected} or more: it was made anew or cut off; to go on, set \
             the group's positions, or take another group"
        );
        self.fail(Error::new(ErrorKind::Source, message), now);
    }

    /// Sees to a record that the core has taken, in the order of its partition.
    pub(super) fn take_in(
        &mut self,
        ticket: Ticket,
        record: Record,
        n_attempts: u32,
        now: Instant,
    ) -> Result<(), Error> {
        let Record { slot, offset, .. } = record;
        let key = record.key.as_deref();
        let Some(partition) = self.state.places.get(&slot).cloned() else { return Ok(()) };
        let (topic, number) = (&*partition.topic, partition.number);
        let is_canary = self.canary.is_some_and(|share| share.has(key, topic, number, offset));
        let part = if is_canary { Part::Canary } else { Part::Primary };
        let mut work = Work { record, partition, window: None, mapped: None, changes: Vec::new() };
        if self.windows.is_some() {
            match self.gather(part, &mut work, n_attempts)? {
                Gathered::Whole => {}
                Gathered::Later(why) => {
                    self.hold(ticket, work.record, n_attempts + 1, &why, now);
                    return Ok(());
                }
                Gathered::Done(outputs) => {
                    let Work { record, partition, .. } = work;
                    let origin = Origin { record, partition, n_attempts: 0, model: None };
                    self.finish(ticket, Parcel { outputs, origin });
                    return Ok(());
                }
                Gathered::Stop(error) => {
                    self.core.bar(ticket);
                    self.fail(error, now);
                    return Ok(());
                }
            }
        }
        self.core.enqueue(part, queued(ticket, offset, now, work));
        Ok(())
    }

    /// Adds a record to the window of its key, in the order of offsets. It was tried so many times before.
    fn gather(&mut self, part: Part, work: &mut Work, n_attempts: u32) -> Result<Gathered, Error> {
        let Some(scorer) = self.models.last(part).cloned() else { return Ok(Gathered::Whole) };
        let mapped = match self.scoring.read_record(&*scorer.plan, &work.record) {
            // The rows behind it have to wait.
            Err(refused) if refused.is_passing && n_attempts + 1 < self.retry.attempts => {
                return Ok(Gathered::Later(refused.message));
            }
            Ok(Some(mapped)) => mapped,
            Ok(None) => {
                add(&self.meter.counters.filtered, 1);
                return Ok(Gathered::Done(Outputs::new()));
            }
            Err(refused) => return Ok(self.refuse(&refused, work)),
        };
        let row = scorer.window.and_then(|index| mapped.inputs.get(index));
        let (Some(windows), Some(row)) = (&mut self.windows, row) else { return Ok(Gathered::Whole) };
        let Some(key) = &work.record.key else {
            let message = "the record has no key, which its window needs".into();
            return Ok(self.refuse(&Refused { class: Class::Format, message, is_passing: false }, work));
        };
        let Record { offset, timestamp_ms, .. } = work.record;
        match windows.push(&work.partition, key, offset, timestamp_ms, row) {
            Ok(pushed) => {
                if pushed.window.is_none() {
                    add(&self.meter.counters.gathering, 1);
                    return Ok(Gathered::Done(pushed.changes.into()));
                }
                work.changes = pushed.changes;
                work.window = pushed.window;
                work.mapped = Some(Box::new((Arc::clone(&scorer.plan), mapped)));
                Ok(Gathered::Whole)
            }
            Err(PushError::Row(message)) => {
                Ok(self.refuse(&Refused { class: Class::Shape, message, is_passing: false }, work))
            }
            Err(PushError::Store(message)) => Err(Error::new(ErrorKind::State, message)),
        }
    }

    fn refuse(&self, refused: &Refused, work: &Work) -> Gathered {
        let (record, partition) = (work.record.clone(), Arc::clone(&work.partition));
        let origin = Origin { record, partition, n_attempts: 0, model: None };
        match self.scoring.refusals.refuse(refused.class, &refused.message, &origin) {
            Ok(outputs) => Gathered::Done(outputs),
            Err(error) => Gathered::Stop(error),
        }
    }
}

enum Gathered {
    /// It cannot be read for now.
    Later(String),
    /// Its window is whole, and the model may be asked.
    Whole,
    Done(Outputs),
    Stop(Error),
}

fn queued(ticket: Ticket, offset: i64, taken: Instant, work: Work) -> Queued<Work> {
    Queued { ticket, offset, taken, n_attempts: 0, work }
}
