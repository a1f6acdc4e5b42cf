//! Records of topics, as a member of a group or as a bounded run.

mod begin;
mod group;
mod question;
mod replay;
mod wake;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, RebalanceProtocol};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::{ClientConfig, Offset};
use salver_records::{Error, Event, Group, Lag, Partition, Position, Record, Severity, Slot, Source};

use begin::Asking;
pub(crate) use group::reading;
use question::Question;
pub use replay::{Bound, Replay};

use crate::callbacks::{Callbacks, Member};
use crate::deadline::{Deadline, pause};
use crate::error::failed;
use crate::read::Reader;
use crate::settings::Start;
use crate::slots::{Slots, State};

/// A [`Source`] over topics of Kafka.
///
/// It has no thread of its own: the client's library fetches ahead on its threads, and everything else happens inside of the
/// calls. [`Source::poll`] notes rebalances; partitions are taken over there, and given up in [`Source::give_up`], when the
/// last one of a revocation is. Dropping it leaves the group at once, without committing anything.
pub struct KafkaSource {
    consumer: Arc<BaseConsumer<Callbacks>>,
    slots: Slots,
    reader: Reader,
    mode: Mode,
    /// Positions that were committed and not confirmed yet.
    unsettled: BTreeMap<Slot, i64>,
    /// Partitions of a revocation, and whether they have been given up.
    revoking: BTreeMap<Slot, Given>,
    /// Partitions that are to be read again and could not be yet.
    resuming: BTreeSet<Slot>,
    /// Partitions that were taken over and are not told of yet: where they begin is not settled.
    unplaced: BTreeSet<Slot>,
    /// The question where partitions begin that is on its way.
    asking: Option<Asking>,
    /// How often that was asked since all were placed.
    n_asked: u32,
    /// What wakes the client where it sleeps.
    waking: Option<Question>,
    /// What the next poll tells first.
    events: Vec<Event>,
    trouble: Option<Error>,
    /// For messages: `group g at a:9092`.
    place: String,
    timeout: Duration,
}

#[derive(Debug)]
enum Mode {
    Group(Membership),
    Replay(Positions),
}

/// How the group was joined.
#[derive(Debug)]
struct Membership {
    topics: Vec<String>,
    /// The group is joined by the first poll, when whoever reads is ready for what comes.
    is_joined: bool,
    /// Where a partition begins that the group has no position of.
    start: Start,
    /// What it is joined with.
    config: ClientConfig,
    /// What to join with if the brokers do not have the new protocol; `None` once that is settled.
    fallback: Option<ClientConfig>,
    /// The name of this member is another one's still: until when that is waited for, and the pause before it is tried again.
    is_taken: Option<(Deadline, Deadline)>,
    /// Whether that is the protocol that the group is joined with. In the new one a member's epoch goes on without a rebalance.
    is_classic: bool,
}

/// Whether a bounded run remembers how far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Positions {
    Remembered,
    Forgotten,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Given {
    Not,
    Up,
}

/// What one call of the client gave.
enum Polled {
    Nothing,
    /// A record of so many bytes.
    Record(usize),
    /// Something that the processor does not see.
    Other,
    Failed(KafkaError),
}

/// How long to wait before a seek is tried again that came while a partition was being started.
const SEEK_PAUSE: Duration = Duration::from_millis(5);

/// How long to wait for records while it is on its way where others begin.
const BRIEFLY: Duration = Duration::from_millis(20);

/// How long one question may take that is asked again where it fails.
const STEP: Duration = Duration::from_secs(1);

impl fmt::Debug for KafkaSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaSource")
            .field("place", &self.place)
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}

impl Source for KafkaSource {
    fn poll(
        &mut self,
        wait: Duration,
        max_bytes: usize,
        records: &mut Vec<Record>,
        events: &mut Vec<Event>,
    ) -> Result<(), Error> {
        if let Some(trouble) = self.trouble.take() {
            return Err(trouble);
        }
        self.subscribe()?;
        if let Err(error) = self.try_again(events) {
            // Told with the next poll: partitions may be taken back meanwhile.
            self.trouble = Some(error);
        }
        let until = Deadline::after(if self.unplaced.is_empty() { wait } else { wait.min(BRIEFLY) });
        let (n_records, n_events) = (records.len(), events.len());
        let mut n_bytes = 0;
        events.append(&mut self.events);
        while n_bytes < max_bytes {
            let has_some = records.len() > n_records || events.len() > n_events;
            let left = if has_some { Duration::ZERO } else { until.left() };
            match self.poll_once(left, records, events) {
                Polled::Record(size) => n_bytes += size,
                Polled::Other if !until.is_over() => {}
                Polled::Other => break,
                Polled::Nothing => {
                    self.rebalance(events)?;
                    let has_some = records.len() > n_records || events.len() > n_events;
                    if has_some || until.is_over() {
                        break;
                    }
                }
                Polled::Failed(error) => {
                    let has_some = records.len() > n_records || events.len() > n_events;
                    match self.failed(&error, events) {
                        Ok(()) => {}
                        // What was read must not be taken for lost.
                        Err(error) if has_some => {
                            self.trouble = Some(error);
                            break;
                        }
                        Err(error) => return Err(error),
                    }
                }
            }
        }
        Ok(())
    }

    fn partition(&self, slot: Slot) -> &Partition {
        &self.slots.get(slot).partition
    }

    fn pause(&mut self, slots: &[Slot]) {
        self.resuming.retain(|slot| !slots.contains(slot));
        let slots = self.slots.only(slots, State::Reading);
        if slots.is_empty() {
            return;
        }
        // The client's pause waits until nothing more of them comes, and forgets what it read ahead.
        match self.consumer.pause(&self.slots.list(&slots)) {
            Ok(()) => self.slots.set(&slots, State::Paused),
            Err(error) => tracing::warn!(%error, "cannot pause {}", self.slots.names(&slots)),
        }
    }

    fn resume(&mut self, slots: &[Slot]) {
        let slots = self.slots.only(slots, State::Paused);
        if slots.is_empty() {
            return;
        }
        if let Err(error) = self.try_resume(&slots) {
            tracing::warn!("{error}; trying again");
            self.resuming.extend(slots);
        }
    }

    fn rewind(&mut self, to: &[Position]) -> Result<(), Error> {
        let held = |position: &&Position| {
            matches!(self.slots.get(position.slot).state, State::Paused | State::Reading | State::Ended)
        };
        let held: Vec<_> = to.iter().filter(held).map(|position| (position.slot, position.next)).collect();
        self.seek(&held)?;
        for (slot, next) in &held {
            let entry = self.slots.get_mut(*slot);
            (entry.missed, entry.next, entry.n_back) = (None, Some(*next), 0);
        }
        // A partition that was at its end is read from there on again.
        let ended: Vec<_> = held.into_iter().map(|(slot, _)| slot).collect();
        let ended = self.slots.only(&ended, State::Ended);
        self.slots.set(&ended, State::Paused);
        self.resume(&ended);
        Ok(())
    }

    fn give_up(&mut self, slots: &[Slot]) -> Result<(), Error> {
        for slot in slots {
            if let Some(given) = self.revoking.get_mut(slot) {
                *given = Given::Up;
            }
        }
        if self.revoking.is_empty() || self.revoking.values().any(|given| *given == Given::Not) {
            return Ok(());
        }
        let slots: Vec<_> = std::mem::take(&mut self.revoking).into_keys().collect();
        let settled =
            if slots.iter().any(|slot| self.unsettled.contains_key(slot)) { self.settle() } else { Ok(()) };
        self.forget(&slots);
        let released = self.release(&slots);
        settled.and(released)
    }

    fn commit(&mut self, positions: &[Position]) -> Result<(), Error> {
        let confirmed = self.confirm();
        if matches!(self.mode, Mode::Replay(Positions::Forgotten)) {
            return confirmed;
        }
        for position in positions {
            if self.slots.get(position.slot).state != State::Away {
                self.unsettled.insert(position.slot, position.next);
            }
        }
        // One that was refused may have been late for a rebalance: these go along with the new ones.
        confirmed.and(self.send_positions(CommitMode::Async))
    }

    fn committed(&mut self, slots: &[Slot]) -> Result<Vec<Position>, Error> {
        if matches!(self.mode, Mode::Replay(Positions::Forgotten)) {
            return Err(Error::fatal(format!(
                "it is not known how far {} is: a replay without a group remembers nothing",
                self.place
            )));
        }
        let what = || format!("cannot learn how far {} is with {}", self.place, self.slots.names(slots));
        // Offsets of a transaction that is open are waited for, as only what was committed is read.
        let found = self.consumer.committed_offsets(self.slots.list(slots), STEP.min(self.timeout));
        let found = found.map_err(|error| failed(&what(), &error))?;
        let mut positions = Vec::with_capacity(slots.len());
        for one in found.elements() {
            one.error().map_err(|error| failed(&what(), &error))?;
            if let (Some(slot), Offset::Offset(next)) =
                (self.slots.find(one.topic(), one.partition()), one.offset())
            {
                positions.push(Position { slot, next });
            }
        }
        Ok(positions)
    }

    fn settle(&mut self) -> Result<(), Error> {
        self.send_positions(CommitMode::Sync)?;
        self.unsettled.clear();
        // What came before has been answered in order, and is of no interest any more.
        self.consumer.context().take_committed();
        Ok(())
    }

    fn group(&self) -> Option<Group> {
        match self.mode {
            Mode::Replay(Positions::Forgotten) => None,
            // Its generation changes with each rebalance, of which the client tells. The client forgets who it was as soon as it hears
            // that it was thrown out, and a commit without a name is taken from anybody: so the name of the last rebalance is used.
            Mode::Group(Membership { is_classic: true, .. }) => {
                self.consumer.context().member().map(|member| Group(member))
            }
            _ => Some(Group(Arc::new(Member(self.consumer.group_metadata()?)))),
        }
    }

    fn lags(&mut self) -> Vec<Lag> {
        let marks = self.consumer.context().marks();
        let lags = marks.into_iter().filter_map(|mark| {
            let slot = self.slots.find(&mark.topic, mark.number)?;
            let entry = self.slots.get(slot);
            // The last offsets may be marks of transactions: then nothing is behind though the numbers differ.
            let end = match (entry.state, entry.next) {
                (State::Away, _) => return None,
                (_, Some(next)) if mark.is_read => next,
                (_, next) => mark.end.max(next.unwrap_or(0)),
            };
            Some(Lag { slot, end })
        });
        lags.collect()
    }
}

impl KafkaSource {
    fn new(consumer: BaseConsumer<Callbacks>, mode: Mode, place: String, timeout: Duration) -> KafkaSource {
        KafkaSource {
            consumer: Arc::new(consumer),
            slots: Slots::default(),
            reader: Reader::default(),
            mode,
            unsettled: BTreeMap::new(),
            revoking: BTreeMap::new(),
            resuming: BTreeSet::new(),
            unplaced: BTreeSet::new(),
            asking: None,
            n_asked: 0,
            waking: None,
            events: Vec::new(),
            trouble: None,
            place,
            timeout,
        }
    }

    /// Does what could not be done when it was asked for.
    fn try_again(&mut self, events: &mut Vec<Event>) -> Result<(), Error> {
        let slots: Vec<_> = std::mem::take(&mut self.resuming).into_iter().collect();
        let slots = self.slots.only(&slots, State::Paused);
        if !slots.is_empty()
            && let Err(error) = self.try_resume(&slots)
        {
            self.resuming.extend(slots);
            return Err(Error::new(Severity::Passing, error.message));
        }
        self.place(events)
    }

    /// Reads paused partitions again, first what came of them while they were paused. After an error they are as they were.
    fn try_resume(&mut self, slots: &[Slot]) -> Result<(), Error> {
        let missed: Vec<_> =
            slots.iter().filter_map(|slot| Some((*slot, self.slots.get(*slot).missed?))).collect();
        let is_idle = self.slots.iter().all(|(_, entry)| entry.state != State::Reading);
        self.seek(&missed)?;
        let what = || format!("cannot read {} of {} again", self.slots.names(slots), self.place);
        self.consumer.resume(&self.slots.list(slots)).map_err(|error| failed(&what(), &error))?;
        missed.iter().for_each(|(slot, _)| self.slots.get_mut(*slot).missed = None);
        self.slots.set(slots, State::Reading);
        if is_idle {
            self.wake(slots);
        }
        Ok(())
    }

    fn poll_once(&mut self, wait: Duration, records: &mut Vec<Record>, events: &mut Vec<Event>) -> Polled {
        let taken = match self.consumer.poll(wait) {
            None => return Polled::Nothing,
            Some(Err(error)) => return Polled::Failed(error),
            Some(Ok(message)) => take(&mut self.slots, &mut self.reader, &message),
        };
        match taken {
            Taken::Record(record) => {
                let size = record.n_bytes();
                records.push(record);
                Polled::Record(size)
            }
            Taken::Nothing => Polled::Other,
            Taken::End(slot) => {
                self.end(slot, events);
                Polled::Other
            }
            Taken::Back(slot, offset) => {
                self.forth(slot, offset);
                Polled::Other
            }
        }
    }

    /// Reads a partition from where it was on, after the client has gone back by itself.
    fn forth(&mut self, slot: Slot, offset: i64) {
        let names = self.slots.names(&[slot]);
        let entry = self.slots.get_mut(slot);
        (entry.state, entry.missed) = (State::Paused, entry.next);
        tracing::warn!(
            "the client went back to offset {offset} of {names}, and is sent to {:?} again",
            entry.next
        );
        if let Err(error) = self.consumer.pause(&self.slots.list(&[slot])) {
            tracing::warn!(%error, "cannot pause {names}");
        }
        self.resuming.insert(slot);
    }

    /// What an error of the client's poll means.
    fn failed(&mut self, error: &KafkaError, events: &mut Vec<Event>) -> Result<(), Error> {
        if let KafkaError::PartitionEOF(number) = error {
            // The client does not say of which topic, and a bounded run has one only.
            let mut all = self.slots.iter();
            let found = all.find(|(_, entry)| entry.partition.number == *number).map(|(slot, _)| slot);
            drop(all);
            if let (Mode::Replay(_), Some(slot)) = (&self.mode, found) {
                self.end(slot, events);
            }
            return Ok(());
        }
        let reason = self.consumer.context().take_reason();
        let said = |error: Error| match &reason {
            Some(reason) => Error::new(error.severity, format!("cannot read {}: {reason}", self.place)),
            None => error,
        };
        let what = format!("cannot read {}", self.place);
        match self.consumer.client().fatal_error() {
            Some((code, reason)) => self.ended(code, &reason),
            None => Err(said(failed(&what, error))),
        }
    }

    /// The end of a partition of a bounded run.
    fn end(&mut self, slot: Slot, events: &mut Vec<Event>) {
        if self.slots.get(slot).state != State::Reading {
            return;
        }
        if let Err(error) = self.consumer.pause(&self.slots.list(&[slot])) {
            tracing::warn!(%error, "cannot stop reading {}", self.slots.names(&[slot]));
        }
        self.slots.set(&[slot], State::Ended);
        events.push(Event::End(slot));
    }

    fn seek(&self, to: &[(Slot, i64)]) -> Result<(), Error> {
        let until = Deadline::after(STEP.min(self.timeout));
        let mut left: BTreeSet<_> = to.iter().map(|(slot, _)| *slot).collect();
        while !left.is_empty() {
            let list = self.slots.positions(to.iter().copied().filter(|(slot, _)| left.contains(slot)));
            let names = self.slots.names(&left.iter().copied().collect::<Vec<_>>());
            let what = format!("cannot read {names} of {} on from another offset", self.place);
            let wait = until.left();
            let done = self.consumer.seek_partitions(list, wait).map_err(|error| failed(&what, &error))?;
            let mut error = None;
            for one in done.elements() {
                let Some(slot) = self.slots.find(one.topic(), one.partition()) else { continue };
                match one.error() {
                    Ok(()) => {
                        left.remove(&slot);
                    }
                    Err(found) => error = Some(found),
                }
            }
            let Some(error) = error else { continue };
            // A partition that was just assigned cannot be moved before the client has begun it.
            let code = error.rdkafka_error_code();
            let is_starting =
                matches!(code, Some(RDKafkaErrorCode::State | RDKafkaErrorCode::PreviousInProgress));
            if !is_starting || until.is_over() {
                return Err(Error::new(Severity::Passing, format!("{what}: {error}")));
            }
            pause(SEEK_PAUSE);
        }
        Ok(())
    }

    fn send_positions(&self, mode: CommitMode) -> Result<(), Error> {
        if self.unsettled.is_empty() {
            return Ok(());
        }
        let list = self.slots.positions(self.unsettled.iter().map(|(slot, next)| (*slot, *next)));
        match self.consumer.commit(&list, mode) {
            Ok(()) | Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::NoOffset)) => Ok(()),
            Err(error) => Err(self.not_committed(&error)),
        }
    }

    /// What became of commits that were not waited for. Those that failed for now go along with the next one.
    fn confirm(&mut self) -> Result<(), Error> {
        let mut result = Ok(());
        for committed in self.consumer.context().take_committed() {
            match committed.result {
                Ok(()) => {
                    for ((topic, number), next) in committed.positions {
                        let slot = self.slots.find(&topic, number);
                        let slot = slot.filter(|slot| self.unsettled.get(slot) == Some(&next));
                        slot.and_then(|slot| self.unsettled.remove(&slot));
                    }
                }
                Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::NoOffset)) => {}
                Err(error) => match self.not_committed(&error) {
                    error if error.severity == Severity::Passing => tracing::warn!("{error}"),
                    error => result = Err(error),
                },
            }
        }
        result
    }

    fn not_committed(&self, error: &KafkaError) -> Error {
        let slots: Vec<_> = self.unsettled.keys().copied().collect();
        failed(&format!("cannot commit {} of {}", self.slots.names(&slots), self.place), error)
    }

    /// Nothing of these partitions can be committed any more.
    fn forget(&mut self, slots: &[Slot]) {
        for slot in slots {
            self.unsettled.remove(slot);
            let entry = self.slots.get_mut(*slot);
            entry.state = State::Away;
            entry.next = None;
            entry.n_back = 0;
            entry.missed = None;
            self.unplace(*slot);
        }
    }

    /// Tells the client that these partitions are not ours any more.
    fn release(&self, slots: &[Slot]) -> Result<(), Error> {
        let result = match self.consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => self.consumer.incremental_unassign(&self.slots.list(slots)),
            _ => self.consumer.unassign(),
        };
        result.map_err(|error| {
            let what = format!("cannot give up {} of {}", self.slots.names(slots), self.place);
            Error::new(Severity::Fenced, failed(&what, &error).message)
        })
    }
}

impl Drop for KafkaSource {
    fn drop(&mut self) {
        self.consumer.context().close();
        // The client is ended by whoever drops it last: that shall be this thread.
        (self.asking, self.waking) = (None, None);
        // The client waits for revocations to be answered before it leaves.
        let slots: Vec<_> = std::mem::take(&mut self.revoking).into_keys().collect();
        if !slots.is_empty()
            && let Err(error) = self.release(&slots)
        {
            tracing::debug!("{error}");
        }
    }
}

/// What a message is to the source.
enum Taken {
    Record(Record),
    /// Of a partition that is not read now.
    Nothing,
    /// The bounded run of this partition ends before it.
    End(Slot),
    /// Before where the partition is read: at this offset.
    Back(Slot, i64),
}

/// How often a partition is sent forth again. A topic that was made anew or cut off has gone back for good: then its records are given
/// out, for whoever reads to see it.
const MOST_BACK: u32 = 3;

fn take(slots: &mut Slots, reader: &mut Reader, message: &BorrowedMessage<'_>) -> Taken {
    let Some(slot) = slots.find(message.topic(), message.partition()) else { return Taken::Nothing };
    let offset = message.offset();
    let entry = slots.get_mut(slot);
    if entry.state != State::Reading {
        let first = entry.missed.map_or(offset, |missed| missed.min(offset));
        entry.missed = Some(first);
        return Taken::Nothing;
    }
    if entry.stop.is_some_and(|stop| offset >= stop) {
        return Taken::End(slot);
    }
    if entry.next.is_some_and(|next| offset < next) && entry.n_back < MOST_BACK {
        entry.n_back += 1;
        return Taken::Back(slot, offset);
    }
    (entry.next, entry.n_back) = (Some(offset + 1), 0);
    Taken::Record(reader.record(slot, message))
}

#[cfg(test)]
mod tests;
