//! The records of one partition from the first that is not done: what state each is in, and in which order they may go.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::time::Instant;

/// What orders a record among others of its partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Chain {
    /// Nothing.
    Free,
    /// All that have this hash. Two keys with one hash are ordered as one, which does no harm.
    Key(u64),
    /// All of the partition.
    Whole,
}

/// A record whose outputs may be written now.
#[derive(Debug)]
pub(crate) struct Ready<P> {
    pub(crate) seq: u64,
    pub(crate) offset: i64,
    pub(crate) taken: Instant,
    pub(crate) n_outputs: u32,
    pub(crate) n_bytes: usize,
    pub(crate) payload: P,
}

#[derive(Debug)]
struct Entry<P> {
    offset: i64,
    taken: Instant,
    timestamp_ms: Option<i64>,
    /// The record, and its outputs once there are any.
    n_bytes: usize,
    chain: Chain,
    /// The next record of the same chain.
    next: Option<u64>,
    /// An earlier record of the same chain is not released.
    is_behind: bool,
    state: State<P>,
}

#[derive(Debug)]
enum State<P> {
    Waiting,
    Started,
    /// Has its outputs, and an earlier one has not.
    Held {
        payload: P,
        n_outputs: u32,
    },
    /// Its outputs are being written, so many of which are not known to last.
    Released {
        n_left: u32,
    },
    Settled,
    /// Never to be done here: nothing of it, and no position behind it, is committed.
    Barred,
}

/// The sizes of a tracker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Sizes {
    pub(crate) n_bytes: usize,
    /// Records that no worker has yet.
    pub(crate) n_waiting: usize,
    /// Records that a worker has.
    pub(crate) n_started: usize,
    /// Records whose outputs are being written.
    pub(crate) n_released: usize,
    /// Records that wait, or are held for earlier ones.
    pub(crate) n_open: usize,
}

/// A ring from the first record that is not settled. Offsets rise and may leave gaps.
#[derive(Debug)]
pub(crate) struct Tracker<P> {
    entries: VecDeque<Entry<P>>,
    /// The number of the first entry.
    base: u64,
    /// The first offset that is not settled.
    position: Option<i64>,
    /// The first offset that was not taken.
    expected: Option<i64>,
    tails: HashMap<u64, u64, BuildHasherDefault<Hashed>>,
    tail: Option<u64>,
    sizes: Sizes,
    settled_timestamp_ms: Option<i64>,
}

impl<P> Tracker<P> {
    pub(crate) fn new(position: Option<i64>) -> Tracker<P> {
        Tracker {
            entries: VecDeque::new(),
            base: 0,
            position,
            expected: position,
            tails: HashMap::default(),
            tail: None,
            sizes: Sizes::default(),
            settled_timestamp_ms: None,
        }
    }

    /// The first offset that is not settled, if any is known.
    pub(crate) fn position(&self) -> Option<i64> {
        self.position
    }

    /// The first offset that was not taken, if any is known.
    pub(crate) fn expected(&self) -> Option<i64> {
        self.expected
    }

    pub(crate) fn sizes(&self) -> Sizes {
        self.sizes
    }

    /// Records that are not settled, or are and wait for earlier ones.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether all that was taken is settled.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether nothing is under way: what is left, if anything, is barred or behind what is barred.
    pub(crate) fn is_quiet(&self) -> bool {
        self.sizes.n_waiting == 0 && self.sizes.n_started == 0 && self.sizes.n_released == 0
    }

    /// A record from this offset on was left out that comes again: the first is kept in mind where nothing else is known.
    pub(crate) fn left_out(&mut self, offset: i64) {
        if self.position.is_none() {
            (self.position, self.expected) = (Some(offset), Some(offset));
        }
    }

    /// Whether the record waits for a worker.
    pub(crate) fn is_waiting(&self, seq: u64) -> bool {
        let index = seq.checked_sub(self.base).and_then(|index| usize::try_from(index).ok());
        let entry = index.and_then(|index| self.entries.get(index));
        entry.is_some_and(|entry| matches!(entry.state, State::Waiting))
    }

    /// The time of the oldest record that is not settled, else of the last that was.
    pub(crate) fn timestamp_ms(&self) -> Option<i64> {
        self.entries.front().map_or(self.settled_timestamp_ms, |entry| entry.timestamp_ms)
    }

    /// Takes a record in, unless its offset is below the one that is expected at least, which is given then.
    pub(crate) fn take(
        &mut self,
        offset: i64,
        chain: Chain,
        n_bytes: usize,
        taken: Instant,
        timestamp_ms: Option<i64>,
    ) -> Result<u64, i64> {
        if let Some(expected) = self.expected.filter(|expected| offset < *expected) {
            return Err(expected);
        }
        let seq = self.base + self.entries.len() as u64;
        let ahead = match chain {
            Chain::Free => None,
            Chain::Key(hash) => self.tails.insert(hash, seq),
            Chain::Whole => self.tail.replace(seq),
        };
        if let Some(ahead) = ahead.and_then(|ahead| self.entry(ahead)) {
            ahead.next = Some(seq);
        }
        self.position.get_or_insert(offset);
        self.expected = Some(offset.saturating_add(1));
        self.sizes.n_bytes += n_bytes;
        self.sizes.n_open += 1;
        self.sizes.n_waiting += 1;
        let (next, is_behind, state) = (None, ahead.is_some(), State::Waiting);
        self.entries.push_back(Entry { offset, taken, timestamp_ms, n_bytes, chain, next, is_behind, state });
        Ok(seq)
    }

    /// A worker has the record now. Gives its offset.
    pub(crate) fn start(&mut self, seq: u64) -> Option<i64> {
        let entry = self.entry(seq).filter(|entry| matches!(entry.state, State::Waiting))?;
        entry.state = State::Started;
        let offset = entry.offset;
        self.sizes.n_open -= 1;
        self.sizes.n_waiting -= 1;
        self.sizes.n_started += 1;
        Some(offset)
    }

    /// The record waits again.
    pub(crate) fn again(&mut self, seq: u64) -> bool {
        let Some(entry) = self.entry(seq).filter(|entry| matches!(entry.state, State::Started)) else {
            return false;
        };
        entry.state = State::Waiting;
        self.sizes.n_open += 1;
        self.sizes.n_waiting += 1;
        self.sizes.n_started -= 1;
        true
    }

    /// The record has its outputs. Appends what may be written now: it, and others that were held for it.
    pub(crate) fn finish(
        &mut self,
        seq: u64,
        n_outputs: u32,
        n_bytes: usize,
        payload: P,
        ready: &mut Vec<Ready<P>>,
    ) {
        let Some(entry) = self.entry(seq) else { return };
        let was_started = matches!(entry.state, State::Started);
        if !was_started && !matches!(entry.state, State::Waiting) {
            return;
        }
        entry.n_bytes += n_bytes;
        entry.state = State::Held { payload, n_outputs };
        self.sizes.n_bytes += n_bytes;
        if was_started {
            self.sizes.n_started -= 1;
            self.sizes.n_open += 1;
        } else {
            self.sizes.n_waiting -= 1;
        }
        let mut at = Some(seq);
        while let Some(seq) = at {
            at = self.release(seq, ready);
        }
    }

    /// Releases a record that is held and not behind another; gives the one behind it.
    fn release(&mut self, seq: u64, ready: &mut Vec<Ready<P>>) -> Option<u64> {
        let entry = self.entry(seq)?;
        if entry.is_behind || !matches!(entry.state, State::Held { .. }) {
            return None;
        }
        let State::Held { payload, n_outputs } = std::mem::replace(&mut entry.state, State::Settled) else {
            return None;
        };
        entry.state = State::Released { n_left: n_outputs };
        let (offset, taken, n_bytes) = (entry.offset, entry.taken, entry.n_bytes);
        let (chain, next) = (entry.chain, entry.next);
        ready.push(Ready { seq, offset, taken, n_outputs, n_bytes, payload });
        self.sizes.n_open -= 1;
        self.sizes.n_released += 1;
        match next.and_then(|next| self.entry(next)) {
            Some(behind) => behind.is_behind = false,
            None => self.end_chain(chain, seq),
        }
        next
    }

    fn end_chain(&mut self, chain: Chain, seq: u64) {
        match chain {
            Chain::Key(hash) if self.tails.get(&hash) == Some(&seq) => drop(self.tails.remove(&hash)),
            Chain::Whole if self.tail == Some(seq) => self.tail = None,
            _ => {}
        }
    }

    /// The record will not be done here.
    pub(crate) fn bar(&mut self, seq: u64) {
        if let Some(index) = seq.checked_sub(self.base).and_then(|index| usize::try_from(index).ok()) {
            self.bar_at(index);
        }
    }

    fn bar_at(&mut self, index: usize) {
        let Some(entry) = self.entries.get_mut(index) else { return };
        match entry.state {
            State::Waiting => {
                self.sizes.n_open -= 1;
                self.sizes.n_waiting -= 1;
            }
            State::Held { .. } => self.sizes.n_open -= 1,
            State::Started => self.sizes.n_started -= 1,
            State::Released { .. } | State::Settled | State::Barred => return,
        }
        entry.state = State::Barred;
    }

    /// Records that wait and are behind all that was begun will not be done here. Those before it are, since what is done
    /// behind a record that is not is done again by others.
    pub(crate) fn bar_rest(&mut self) {
        let rest = self.entries.iter().rev().take_while(|entry| matches!(entry.state, State::Waiting));
        let n_begun = self.entries.len() - rest.count();
        (n_begun..self.entries.len()).for_each(|index| self.bar_at(index));
    }

    /// Neither records that wait nor those that workers have will be done here.
    pub(crate) fn bar_all(&mut self) {
        for index in 0..self.entries.len() {
            if matches!(self.entries[index].state, State::Waiting | State::Started) {
                self.bar_at(index);
            }
        }
    }

    /// One output of the record lasts, or there was none to write. Gives when the record was taken once all of it lasts.
    pub(crate) fn settle(&mut self, seq: u64) -> Option<Instant> {
        let entry = self.entry(seq)?;
        let State::Released { n_left } = &mut entry.state else { return None };
        *n_left = n_left.saturating_sub(1);
        if *n_left > 0 {
            return None;
        }
        let (taken, n_bytes) = (entry.taken, entry.n_bytes);
        entry.state = State::Settled;
        self.sizes.n_released -= 1;
        self.sizes.n_bytes -= n_bytes;
        self.advance();
        Some(taken)
    }

    /// All outputs up to this record last. Appends when each was taken.
    pub(crate) fn settle_through(&mut self, seq: u64, taken: &mut Vec<Instant>) {
        while self.base <= seq {
            match self.entries.front_mut() {
                Some(entry) if matches!(entry.state, State::Released { .. }) => {
                    taken.push(entry.taken);
                    self.sizes.n_released -= 1;
                    self.sizes.n_bytes -= entry.n_bytes;
                    entry.state = State::Settled;
                }
                Some(entry) if matches!(entry.state, State::Settled) => {}
                _ => break,
            }
            self.advance();
        }
    }

    fn advance(&mut self) {
        while let Some(entry) = self.entries.front().filter(|entry| matches!(entry.state, State::Settled)) {
            self.position = Some(entry.offset.saturating_add(1));
            self.settled_timestamp_ms = entry.timestamp_ms.or(self.settled_timestamp_ms);
            self.entries.pop_front();
            self.base += 1;
        }
    }

    fn entry(&mut self, seq: u64) -> Option<&mut Entry<P>> {
        let index = usize::try_from(seq.checked_sub(self.base)?).ok()?;
        self.entries.get_mut(index)
    }
}

/// Takes a number that is a hash already as it is.
#[derive(Debug, Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}
