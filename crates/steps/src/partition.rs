//! The windows of one partition: what is permanent, and over it what can be undone.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use salver_tensor::Tensor;

use crate::Error;
use crate::codec::{Layout, NO_CLOCK, Row, encode_rows, place};
use crate::entry::Entry;
use crate::store::{Change, Mark, Store};

/// A key of a record, shared by all that speak of it.
pub(crate) type Key = Arc<[u8]>;

/// Bytes that a key takes besides its entry: it is shared by the maps and queues around.
const KEY_OVERHEAD: usize = 96;
/// Keys that may have expired are looked for so many at a time.
const DUE: usize = 1000;

/// One step that can be undone.
#[derive(Debug)]
struct Update {
    offset: i64,
    key: Key,
    /// The clock and the last offset before it.
    before: Time,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// A row was added.
    Row,
    /// The key was taken away, with what it was.
    Gone(Box<Entry>),
}

/// How far a partition is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Time {
    /// The largest timestamp that was seen.
    pub(crate) clock: i64,
    /// The largest offset that was taken in.
    pub(crate) offset: i64,
}

impl Time {
    /// Before everything.
    pub(crate) const BEGIN: Time = Time { clock: NO_CLOCK, offset: i64::MIN };

    /// The later of each.
    pub(crate) fn max(self, other: Time) -> Time {
        Time { clock: self.clock.max(other.clock), offset: self.offset.max(other.offset) }
    }
}

/// The windows of a partition.
#[derive(Debug)]
pub(crate) struct Partition {
    number: i32,
    /// Places of a key's ring.
    ring: u32,
    ttl_ms: Option<i64>,
    /// What is permanent goes to a store.
    in_store: bool,
    /// Keys in memory as they are now. Without a store all of them; with one, those that are not as stored, and some more.
    /// `None` is a key that is gone while the store still has it.
    live: HashMap<Key, Option<Entry>>,
    /// What is not permanent, by offset.
    journal: VecDeque<Update>,
    /// Keys whose permanent rows are not in the store.
    dirty: HashSet<Key>,
    n_bytes: usize,
    n_keys: u64,
    time: Time,
    /// All before it is permanent.
    committed: i64,
    /// The changelog offset up to which everything is here.
    changelog: Option<i64>,
    /// Without a store: keys by when they were seen when they were put in, with their tickets. One each.
    queue: VecDeque<(i64, u64, Key)>,
    tickets: u64,
    /// Keys that may have expired.
    due: VecDeque<Key>,
}

impl Partition {
    pub(crate) fn new(number: i32, ring: u32, ttl_ms: Option<i64>, in_store: bool) -> Partition {
        Partition {
            number,
            ring,
            ttl_ms,
            in_store,
            live: HashMap::new(),
            journal: VecDeque::new(),
            dirty: HashSet::new(),
            n_bytes: 0,
            n_keys: 0,
            time: Time::BEGIN,
            committed: i64::MIN,
            changelog: None,
            queue: VecDeque::new(),
            tickets: 0,
            due: VecDeque::new(),
        }
    }

    /// Begins with what a store has.
    pub(crate) fn begin(&mut self, mark: Mark, n_keys: u64) {
        self.changelog = Some(mark.changelog);
        self.time = mark.time;
        self.n_keys = n_keys;
    }

    /// Begins with what was restored into memory.
    pub(crate) fn fill(&mut self, keys: HashMap<Key, Vec<Row>>) {
        let ring = self.ring as usize;
        let mut entries: Vec<(Key, Entry)> =
            keys.into_iter().filter_map(|(key, rows)| Some((key, Entry::restored(rows, ring)?))).collect();
        entries.sort_unstable_by_key(|(_, entry)| entry.seen());
        for (key, entry) in entries {
            self.n_keys += 1;
            let seen = entry.seen();
            self.put(key, entry, seen);
        }
    }

    /// All before that offset of the changelog is here; it has rows up to that time.
    pub(crate) fn covered(&mut self, changelog: i64, time: Time) {
        self.changelog = self.changelog.max(Some(changelog));
        self.time = self.time.max(time);
    }

    pub(crate) fn n_bytes(&self) -> usize {
        self.n_bytes
    }

    pub(crate) fn n_keys(&self) -> u64 {
        self.n_keys
    }

    pub(crate) fn time(&self) -> Time {
        self.time
    }

    /// The rows of a key, if it has any. Reads the store if they are not in memory.
    pub(crate) fn find(&mut self, key: &[u8], store: Option<&Store>) -> Result<Option<&Entry>, Error> {
        if let (false, Some(store)) = (self.live.contains_key(key), store)
            && let Some(rows) = store.get(self.number, key)?
            && let Some(entry) = Entry::restored(rows, self.ring as usize)
        {
            self.n_bytes += KEY_OVERHEAD + key.len() + entry.n_bytes();
            self.live.insert(key.into(), Some(entry));
        }
        Ok(self.live.get(key).and_then(Option::as_ref))
    }

    /// Whether a key that was seen last then is as if it never was.
    pub(crate) fn is_expired(&self, seen: i64, clock: i64) -> bool {
        let age = clock.checked_sub(seen);
        self.ttl_ms.is_some_and(|ttl| seen != NO_CLOCK && clock > seen && age.is_none_or(|age| age > ttl))
    }

    /// Adds a row to a key that is in memory or nowhere. The index of the row.
    pub(crate) fn push(&mut self, key: &[u8], offset: i64, clock: i64, row: &Tensor) -> (&Entry, usize) {
        let shared: Key = match self.live.get_key_value(key) {
            Some((key, _)) => key.clone(),
            None => key.into(),
        };
        let begin = || Entry::new(offset, Arc::new(Layout::of(row)));
        if !matches!(self.live.get(key), Some(Some(_))) {
            self.n_keys += 1;
            self.put(shared.clone(), begin(), clock);
        }
        self.journal.push_back(Update { offset, key: shared.clone(), before: self.time, kind: Kind::Row });
        self.time = self.time.max(Time { clock, offset });
        let entry = self.live.entry(shared).or_default().get_or_insert_with(begin);
        let before = entry.n_bytes();
        entry.push(offset, clock, row.bytes().map_or(&[], |bytes| &bytes[..]));
        self.n_bytes += entry.n_bytes() - before;
        let index = entry.last();
        (entry, index)
    }

    /// Takes a key away. The places that its rows have in the changelog.
    pub(crate) fn take_away(&mut self, key: &[u8], offset: i64) -> Vec<u32> {
        let Some((key, slot)) = self.live.remove_entry(key) else { return Vec::new() };
        let Some(entry) = slot else { return Vec::new() };
        self.n_keys -= 1;
        if self.in_store {
            self.live.insert(key.clone(), None);
        } else {
            self.n_bytes -= KEY_OVERHEAD + key.len();
        }
        self.n_bytes -= entry.n_bytes();
        let mut places: Vec<u32> = entry.numbers().map(|number| place(number, self.ring)).collect();
        places.sort_unstable();
        places.dedup();
        let kind = Kind::Gone(Box::new(entry));
        self.journal.push_back(Update { offset, key, before: self.time, kind });
        places
    }

    /// Puts an entry where none is, seen at that clock.
    fn put(&mut self, key: Key, mut entry: Entry, seen: i64) {
        if self.ttl_ms.is_some() && !self.in_store {
            self.tickets += 1;
            entry.ticket = self.tickets;
            self.queue.push_back((seen, entry.ticket, key.clone()));
        }
        self.n_bytes += entry.n_bytes();
        let n_key = KEY_OVERHEAD + key.len();
        if self.live.insert(key, Some(entry)).is_none() {
            self.n_bytes += n_key;
        }
    }

    /// Updates of offsets before `next` are permanent.
    pub(crate) fn commit(&mut self, next: i64) {
        while let Some(update) = self.journal.pop_front_if(|update| update.offset < next) {
            if let Some(Some(entry)) = self.live.get_mut(&update.key) {
                entry.trim(self.ring as usize, next);
            }
            if self.in_store {
                self.dirty.insert(update.key);
            }
        }
        self.committed = self.committed.max(next);
    }

    /// Updates of offsets from `next` on never were.
    pub(crate) fn rewind(&mut self, next: i64) {
        while let Some(update) = self.journal.pop_back_if(|update| update.offset >= next) {
            self.time = update.before;
            match update.kind {
                Kind::Gone(entry) => {
                    self.n_keys += 1;
                    let seen = entry.seen();
                    self.put(update.key, *entry, seen);
                }
                Kind::Row => self.take_back(&update.key),
            }
        }
    }

    /// Takes the last row of a key back, and the key if it was the only one.
    fn take_back(&mut self, key: &Key) {
        let Some(slot) = self.live.get_mut(key) else { return };
        let Some(entry) = slot else { return };
        let before = entry.n_bytes();
        entry.pop();
        self.n_bytes -= before - entry.n_bytes();
        if entry.is_empty() {
            self.n_bytes -= entry.n_bytes();
            self.n_keys -= 1;
            // The store may still have what the key was before.
            *slot = None;
            if !self.in_store {
                self.n_bytes -= KEY_OVERHEAD + key.len();
                self.live.remove(key);
            }
        }
    }

    /// A key that may have expired; of the next few at most one.
    pub(crate) fn next_due(&mut self) -> Option<Key> {
        if let Some(key) = self.due.pop_front() {
            return Some(key);
        }
        let &(seen, ..) = self.queue.front()?;
        if seen != NO_CLOCK && !self.is_expired(seen, self.time.clock) {
            return None;
        }
        let (_, ticket, key) = self.queue.pop_front()?;
        let now = match self.live.get(&key) {
            Some(Some(entry)) if entry.ticket == ticket => entry.seen(),
            _ => return None,
        };
        if self.is_expired(now, self.time.clock) {
            // It is put in again if it is not taken away after all.
            self.queue.push_back((now, ticket, key.clone()));
            return Some(key);
        }
        self.queue.push_back((now, ticket, key));
        None
    }

    /// Keys that wait to be stored.
    pub(crate) fn n_dirty(&self) -> usize {
        self.dirty.len()
    }

    /// Writes what is permanent to the store.
    pub(crate) fn store(&mut self, store: &Store) -> Result<(), Error> {
        // What a key was before it was taken away for now.
        let mut before: HashMap<&[u8], &Entry> = HashMap::new();
        for update in &self.journal {
            if let Kind::Gone(entry) = &update.kind {
                before.entry(&update.key).or_insert(entry);
            }
        }
        let changes = self.dirty.iter().map(|key| {
            let entry = before.get(&**key).copied().or_else(|| self.live.get(key)?.as_ref());
            let rows: Vec<Row> =
                entry.map(|entry| entry.rows_before(self.committed).collect()).unwrap_or_default();
            let rows = &rows[rows.len().saturating_sub(self.ring as usize)..];
            let stored = |last: &Row| (encode_rows(rows.iter(), self.ring), last.clock);
            Change { key, rows: rows.last().map(stored) }
        });
        let mark = self.changelog.map(|changelog| Mark { changelog, time: self.permanent_time() });
        store.write(self.number, changes, mark)?;
        for key in self.dirty.drain() {
            if let Some(None) = self.live.get(&key)
                && !before.contains_key(&*key)
            {
                self.n_bytes -= KEY_OVERHEAD + key.len();
                self.live.remove(&key);
            }
        }
        if let Some(ttl) = self.ttl_ms.filter(|_| self.due.is_empty() && self.time.clock != NO_CLOCK) {
            let due = store.seen_before(self.number, self.time.clock.saturating_sub(ttl), DUE)?;
            self.due.extend(due.into_iter().map(Key::from));
        }
        Ok(())
    }

    /// How far it is without what can be undone.
    fn permanent_time(&self) -> Time {
        self.journal.front().map_or(self.time, |update| update.before)
    }

    /// Gives memory back that only repeats the store, down to `max_bytes` if that is possible.
    pub(crate) fn shrink(&mut self, max_bytes: usize) {
        let held: HashSet<&Key> = self.journal.iter().map(|update| &update.key).chain(&self.dirty).collect();
        let mut n_bytes = self.n_bytes;
        self.live.retain(|key, slot| {
            if n_bytes <= max_bytes || held.contains(key) {
                return true;
            }
            n_bytes -= KEY_OVERHEAD + key.len() + slot.as_ref().map_or(0, Entry::n_bytes);
            false
        });
        self.n_bytes = n_bytes;
    }
}
