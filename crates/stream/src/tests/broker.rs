//! A broker in memory: partitions, a group of one, transactions. It lasts as long as the test holds it, so a pipeline can be
//! started again on it.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use salver_records::{
    Assignment, Delivery, Error, Event, Group, Header, Lag, Outgoing, Output, Partition, Position, Receipt,
    Record, Severity, Sink, Slot, Source, Transaction,
};

/// Records that one poll gives at most.
pub(super) const PER_POLL: usize = 20;

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(60);

/// What was written and lasts.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Kept {
    pub(super) output: Output,
    pub(super) key: Option<Bytes>,
    pub(super) value: Option<Bytes>,
    pub(super) headers: Vec<Header>,
    pub(super) timestamp_ms: Option<i64>,
}

impl Kept {
    fn of(outgoing: Outgoing) -> Kept {
        let Outgoing { output, key, value, headers, timestamp_ms, .. } = outgoing;
        Kept { output, key, value, headers, timestamp_ms }
    }

    pub(super) fn header(&self, name: &str) -> Option<String> {
        let value = self.headers.iter().find(|header| &*header.name == name)?.value.as_ref()?;
        Some(String::from_utf8(value.to_vec()).unwrap())
    }
}

#[derive(Debug, Default)]
pub(super) struct World {
    logs: Vec<Vec<Record>>,
    pub(super) committed: Vec<i64>,
    pub(super) kept: Vec<Kept>,
    pub(super) given_up: Vec<usize>,
    pub(super) is_paused: Vec<bool>,
    pub(super) read_at: Vec<i64>,
    /// Where the group's one member reads; `None` where it does not.
    at: Vec<Option<i64>>,
    has_ended: Vec<bool>,
    events: Vec<Event>,
    is_open_ended: bool,
    n_polls: usize,
    n_commits_to_fail: usize,
    commits_fail_as: Option<Severity>,
    /// Changes when the one member comes back to the group, from which it was out without a word.
    membership: u64,
    /// How many records others do of the first partition before it comes back, while it is out.
    others_do: Option<i64>,
    /// Whether the next commit, of which it is not told, comes through.
    doubted: Option<bool>,
    n_aborts_to_fail: usize,
    n_rewinds_to_fail: usize,
    n_settles_to_fail: usize,
    /// Positions that do not last before they are settled.
    unsettled: Vec<Position>,
    n_deliveries_to_fail: usize,
    refused: Option<Bytes>,
    /// The outputs that are too large with any value, and with none.
    too_large: Vec<Output>,
    too_large_empty: Vec<Output>,
    has_no_transactions: bool,
    sink_panics: bool,
}

#[derive(Debug)]
pub(super) struct Broker {
    world: Mutex<World>,
    changed: Condvar,
    partitions: Vec<Partition>,
}

impl Broker {
    pub(super) fn new(n_partitions: usize) -> Arc<Broker> {
        let partition = |number| Partition { topic: "in".into(), number: i32::try_from(number).unwrap() };
        let world = World {
            logs: vec![Vec::new(); n_partitions],
            committed: vec![0; n_partitions],
            is_paused: vec![true; n_partitions],
            read_at: vec![0; n_partitions],
            at: vec![None; n_partitions],
            has_ended: vec![false; n_partitions],
            ..World::default()
        };
        let partitions = (0..n_partitions).map(partition).collect();
        Arc::new(Broker { world: Mutex::new(world), changed: Condvar::new(), partitions })
    }

    /// With the records `0..n` in each partition, each with one of seven keys.
    pub(super) fn with_numbers(n_partitions: usize, n: usize) -> Arc<Broker> {
        let broker = Broker::new(n_partitions);
        for partition in 0..n_partitions {
            for number in 0..n {
                let key = format!("k{}", number % 7);
                broker.push(partition, Some(&key), Some(&number.to_string()), Vec::new(), None);
            }
        }
        broker
    }

    fn lock(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes something and tells those who wait.
    fn change<T>(&self, change: impl FnOnce(&mut World) -> T) -> T {
        let changed = change(&mut self.lock());
        self.changed.notify_all();
        changed
    }

    pub(super) fn wait_until(&self, holds: impl Fn(&World) -> bool) {
        let world = self.lock();
        let waited = self.changed.wait_timeout_while(world, PATIENCE, |world| !holds(world));
        let (world, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        assert!(!timeout.timed_out(), "{:?} {:?} {}", world.committed, world.read_at, world.kept.len());
    }

    pub(super) fn push(
        &self,
        partition: usize,
        key: Option<&str>,
        value: Option<&str>,
        headers: Vec<Header>,
        timestamp_ms: Option<i64>,
    ) {
        let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
        self.change(|world| {
            let offset = i64::try_from(world.logs[partition].len()).unwrap();
            let slot = Slot(u32::try_from(partition).unwrap());
            let (key, value) = (key.map(bytes), value.map(bytes));
            world.logs[partition].push(Record { slot, offset, key, value, headers, timestamp_ms });
        });
    }

    pub(super) fn kept(&self) -> Vec<Kept> {
        self.lock().kept.clone()
    }

    pub(super) fn committed(&self) -> Vec<i64> {
        self.lock().committed.clone()
    }

    pub(super) fn read_at(&self) -> Vec<i64> {
        self.lock().read_at.clone()
    }

    pub(super) fn n_polls(&self) -> usize {
        self.lock().n_polls
    }

    /// The partitions have no end.
    pub(super) fn keep_open(&self) {
        self.change(|world| world.is_open_ended = true);
    }

    pub(super) fn fail_commits(&self, n: usize) {
        self.change(|world| world.n_commits_to_fail = n);
    }

    /// The next commit finds somebody else in this one's place.
    pub(super) fn fence_a_commit(&self) {
        self.change(|world| (world.n_commits_to_fail, world.commits_fail_as) = (1, Some(Severity::Fenced)));
    }

    /// The one member is out of the group. Others do some records of the first partition at once, and more before it comes
    /// back, which is when it has asked how far the group is.
    pub(super) fn leave_to_others(&self, n_first: i64, n_then: i64) {
        self.change(|world| {
            world.committed[0] += n_first;
            world.others_do = Some(n_then);
        });
    }

    /// Nobody is told what became of the next commit.
    pub(super) fn doubt_a_commit(&self, comes_through: bool) {
        self.change(|world| world.doubted = Some(comes_through));
    }

    /// So many times nothing can be thrown away.
    pub(super) fn fail_aborts(&self, n: usize) {
        self.change(|world| world.n_aborts_to_fail = n);
    }

    /// So many times the source does not go back.
    pub(super) fn fail_rewinds(&self, n: usize) {
        self.change(|world| world.n_rewinds_to_fail = n);
    }

    /// So many times positions do not last yet, which are kept only then.
    pub(super) fn fail_settles(&self, n: usize) {
        self.change(|world| world.n_settles_to_fail = n);
    }

    /// The next records that are sent one by one do not last.
    pub(super) fn fail_deliveries(&self, n: usize) {
        self.change(|world| world.n_deliveries_to_fail = n);
    }

    /// Answers of this value are too large.
    pub(super) fn refuse_value(&self, value: &'static str) {
        self.change(|world| world.refused = Some(Bytes::from_static(value.as_bytes())));
    }

    /// What is written for this is too large, unless it has no value; or even so.
    pub(super) fn refuse_output(&self, output: Output, even_empty: bool) {
        self.change(|world| {
            let refused = if even_empty { &mut world.too_large_empty } else { &mut world.too_large };
            refused.push(output);
        });
    }

    pub(super) fn forbid_transactions(&self) {
        self.change(|world| world.has_no_transactions = true);
    }

    pub(super) fn panic_in_sink(&self) {
        self.change(|world| world.sink_panics = true);
    }

    /// The partition is made anew, with these records, and read from its beginning.
    pub(super) fn make_anew(&self, partition: usize, values: &[&str]) {
        self.change(|world| {
            world.logs[partition].clear();
            world.at[partition] = world.at[partition].map(|_| 0);
        });
        values.iter().for_each(|value| self.push(partition, None, Some(value), Vec::new(), None));
    }

    pub(super) fn assign(&self, partition: usize) {
        self.change(|world| world.assign(partition));
    }

    pub(super) fn revoke(&self, partition: usize) {
        self.change(|world| {
            world.events.push(Event::Revoking(vec![Slot(u32::try_from(partition).unwrap())]))
        });
    }

    pub(super) fn lose(&self, partition: usize) {
        self.change(|world| {
            world.at[partition] = None;
            world.events.push(Event::Lost(vec![Slot(u32::try_from(partition).unwrap())]));
        });
    }

    /// Joins the group: every partition is assigned from what is committed.
    pub(super) fn source(self: &Arc<Self>) -> MemorySource {
        self.change(|world| {
            world.events.clear();
            (0..world.logs.len()).for_each(|partition| world.assign(partition));
        });
        MemorySource(Arc::clone(self))
    }

    pub(super) fn sink(self: &Arc<Self>) -> MemorySink {
        MemorySink { broker: Arc::clone(self), open: None, deliveries: Vec::new() }
    }
}

impl World {
    fn assign(&mut self, partition: usize) {
        let next = self.committed[partition];
        self.at[partition] = Some(next);
        self.is_paused[partition] = true;
        self.has_ended[partition] = false;
        let slot = Slot(u32::try_from(partition).unwrap());
        self.events.push(Event::Assigned(vec![Assignment { slot, next: Some(next) }]));
    }

    fn refuses(&self, record: &Outgoing) -> bool {
        let is_named =
            record.output == Output::Main && record.value.is_some() && record.value == self.refused;
        let is_too_large = self.too_large.contains(&record.output) && record.value.is_some();
        is_named || is_too_large || self.too_large_empty.contains(&record.output)
    }

    fn settle(&mut self) {
        for Position { slot, next } in self.unsettled.drain(..) {
            self.committed[slot.0 as usize] = next;
        }
    }

    fn read(&mut self, records: &mut Vec<Record>) {
        let mut n_left = PER_POLL;
        for (index, log) in self.logs.iter().enumerate() {
            let Some(at) = self.at[index].filter(|_| !self.is_paused[index]) else { continue };
            let start = usize::try_from(at).unwrap().min(log.len());
            let read = &log[start..(start + n_left).min(log.len())];
            n_left -= read.len();
            records.extend(read.iter().cloned());
            let at = at + i64::try_from(read.len()).unwrap();
            self.at[index] = Some(at);
            self.read_at[index] = self.read_at[index].max(at);
            if at == i64::try_from(log.len()).unwrap() && !self.is_open_ended && !self.has_ended[index] {
                self.has_ended[index] = true;
                self.events.push(Event::End(Slot(u32::try_from(index).unwrap())));
            }
        }
    }
}

#[derive(Debug)]
pub(super) struct MemorySource(Arc<Broker>);

impl Source for MemorySource {
    fn poll(
        &mut self,
        wait: Duration,
        _: usize,
        records: &mut Vec<Record>,
        events: &mut Vec<Event>,
    ) -> Result<(), Error> {
        let broker = &self.0;
        let mut world = broker.lock();
        world.n_polls += 1;
        let has_nothing = |world: &mut World| {
            world.read(records);
            events.append(&mut world.events);
            records.is_empty() && events.is_empty()
        };
        let (mut world, _) = broker
            .changed
            .wait_timeout_while(world, wait, has_nothing)
            .unwrap_or_else(PoisonError::into_inner);
        events.append(&mut world.events);
        drop(world);
        broker.changed.notify_all();
        Ok(())
    }

    fn partition(&self, slot: Slot) -> &Partition {
        &self.0.partitions[slot.0 as usize]
    }

    fn pause(&mut self, slots: &[Slot]) {
        self.0.change(|world| slots.iter().for_each(|slot| world.is_paused[slot.0 as usize] = true));
    }

    fn resume(&mut self, slots: &[Slot]) {
        self.0.change(|world| slots.iter().for_each(|slot| world.is_paused[slot.0 as usize] = false));
    }

    fn rewind(&mut self, to: &[Position]) -> Result<(), Error> {
        self.0.change(|world| {
            if world.n_rewinds_to_fail > 0 {
                world.n_rewinds_to_fail -= 1;
                return Err(Error::new(Severity::Passing, "not yet"));
            }
            for Position { slot, next } in to {
                let at = &mut world.at[slot.0 as usize];
                *at = at.map(|_| *next);
                world.has_ended[slot.0 as usize] = false;
            }
            Ok(())
        })
    }

    fn give_up(&mut self, slots: &[Slot]) -> Result<(), Error> {
        self.0.change(|world| {
            for slot in slots {
                world.at[slot.0 as usize] = None;
                world.given_up.push(slot.0 as usize);
            }
        });
        Ok(())
    }

    fn commit(&mut self, positions: &[Position]) -> Result<(), Error> {
        self.0.change(|world| {
            world.unsettled.extend(positions);
            if world.n_settles_to_fail == 0 {
                world.settle();
            }
        });
        Ok(())
    }

    fn settle(&mut self) -> Result<(), Error> {
        self.0.change(|world| {
            if world.n_settles_to_fail > 0 {
                world.n_settles_to_fail -= 1;
                return Err(Error::new(Severity::Passing, "not yet"));
            }
            world.settle();
            Ok(())
        })
    }

    fn committed(&mut self, slots: &[Slot]) -> Result<Vec<Position>, Error> {
        self.0.change(|world| {
            let committed = |slot: &Slot| Position { slot: *slot, next: world.committed[slot.0 as usize] };
            let committed = slots.iter().map(committed).collect();
            if let Some(n) = world.others_do.take() {
                world.committed[0] += n;
                world.membership += 1;
            }
            Ok(committed)
        })
    }

    fn group(&self) -> Option<Group> {
        Some(Group(Arc::new(self.0.lock().membership)))
    }

    fn lags(&mut self) -> Vec<Lag> {
        let world = self.0.lock();
        let lag = |(index, log): (usize, &Vec<Record>)| Lag {
            slot: Slot(u32::try_from(index).unwrap()),
            end: i64::try_from(log.len()).unwrap(),
        };
        world.logs.iter().enumerate().map(lag).collect()
    }
}

#[derive(Debug)]
pub(super) struct MemorySink {
    broker: Arc<Broker>,
    /// What was sent in the transaction that is open.
    open: Option<Vec<Kept>>,
    deliveries: Vec<Delivery>,
}

impl Sink for MemorySink {
    fn send(&mut self, record: Outgoing, receipt: Receipt) -> Result<(), Error> {
        assert!(!self.broker.lock().sink_panics, "as the test wants it");
        let is_refused = self.broker.lock().refuses(&record);
        match &mut self.open {
            Some(_) if is_refused => return Err(Error::new(Severity::Record, "too large")),
            Some(open) => open.push(Kept::of(record)),
            None => {
                let result = self.broker.change(|world| {
                    if is_refused {
                        return Err(Error::new(Severity::Record, "too large"));
                    }
                    if world.n_deliveries_to_fail > 0 {
                        world.n_deliveries_to_fail -= 1;
                        return Err(Error::new(Severity::Passing, "away"));
                    }
                    world.kept.push(Kept::of(record));
                    Ok(())
                });
                self.deliveries.push(Delivery { receipt, result });
            }
        }
        Ok(())
    }

    fn deliveries(&mut self, _: Duration, into: &mut Vec<Delivery>) {
        // Acknowledgements come out of order.
        into.extend(self.deliveries.drain(..).rev());
    }

    fn flush(&mut self) -> Result<(), Error> {
        Ok(())
    }

    fn is_transactional(&self) -> bool {
        !self.broker.lock().has_no_transactions
    }

    fn begin(&mut self) -> Result<(), Error> {
        assert!(self.open.is_none(), "a transaction is open");
        self.open = Some(Vec::new());
        Ok(())
    }

    fn commit(&mut self, transaction: &Transaction) -> Result<(), Error> {
        let member = transaction.group.as_ref().and_then(Group::get::<u64>).copied().expect("who reads");
        let open = self.open.as_mut().expect("a transaction is open");
        self.broker.change(|world| {
            let held = |number: i32| world.at[usize::try_from(number).unwrap()].is_some();
            if !transaction.positions.iter().all(|(partition, _)| held(partition.number)) {
                return Err(Error::new(Severity::Transaction, "others have the partition"));
            }
            if world.others_do.is_some() || member != world.membership {
                return Err(Error::new(Severity::Doubtful, "not a member"));
            }
            if world.n_commits_to_fail > 0 {
                world.n_commits_to_fail -= 1;
                let severity = world.commits_fail_as.unwrap_or(Severity::Transaction);
                return Err(Error::new(severity, "not this time"));
            }
            let doubted = world.doubted.take();
            let doubtful = Err(Error::new(Severity::Doubtful, "no answer"));
            if doubted == Some(false) {
                return doubtful;
            }
            world.kept.append(open);
            for (partition, next) in &transaction.positions {
                let committed = &mut world.committed[usize::try_from(partition.number).unwrap()];
                assert!(*next > *committed, "{partition} from {committed} to {next}");
                *committed = *next;
            }
            doubted.map_or(Ok(()), |_| doubtful)
        })?;
        self.open = None;
        Ok(())
    }

    fn abort(&mut self) -> Result<(), Error> {
        let is_away = self.broker.change(|world| {
            let is_away = world.n_aborts_to_fail > 0;
            world.n_aborts_to_fail = world.n_aborts_to_fail.saturating_sub(1);
            is_away
        });
        if is_away {
            return Err(Error::new(Severity::Passing, "away"));
        }
        self.open = None;
        Ok(())
    }
}
