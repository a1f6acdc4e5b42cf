//! The windows of all partitions of this process.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use salver_records::{Outgoing, Output, Restore};
use salver_tensor::{DType, MAX_RANK, Tensor};

use crate::codec::{NO_CLOCK, Row, encode_key, encode_row};
use crate::entry::{Entry, NoWindow, Window};
use crate::partition::{Partition, Time};
use crate::restorer::{Filled, Restorer};
use crate::store::Store;
use crate::{Error, ErrorKind, StateSettings};

/// Permanent keys that may wait to be stored, per partition.
const MAX_DIRTY: usize = 10_000;
/// Keys that a push takes away at most because they expired.
const MAX_EXPIRED: usize = 2;

/// What a push gave.
#[derive(Debug)]
pub struct Pushed {
    /// The window that ends with the row; `None` if none is due there.
    pub window: Option<Tensor>,
    /// What the changelog must hold before the update is committed. Of a row that was taken in already, what it holds.
    pub change: Outgoing,
    /// Deletions from the changelog of keys that expired and of windows that ended, to be written like `change`, after it.
    /// Without them the changelog grows.
    pub deleted: Vec<Outgoing>,
}

/// What an assignment found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restored {
    /// Keys of the partition.
    pub keys: u64,
    /// Records of the changelog that were read.
    pub records: u64,
    /// The changelog offset after the last of them; `None` without a changelog.
    pub next: Option<i64>,
}

/// The windows of all partitions of this process. See the crate's documentation for what is kept where.
pub struct State {
    settings: StateSettings,
    ring: u32,
    ttl_ms: Option<i64>,
    store: Option<Arc<Store>>,
    partitions: HashMap<i32, Partition>,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State")
            .field("settings", &self.settings)
            .field("keys", &self.n_keys())
            .field("bytes", &self.n_bytes())
            .finish_non_exhaustive()
    }
}

impl State {
    /// Opens the store if there is one. Blocks.
    ///
    /// # Errors
    /// [`ErrorKind::Locked`] when another process has it open, [`ErrorKind::Store`] when it is damaged or of another owner.
    pub fn open(settings: &StateSettings) -> Result<State, Error> {
        let ring =
            settings.rows.get().checked_add(settings.history).and_then(|ring| u32::try_from(ring).ok());
        let ring = ring.ok_or_else(|| Error::fatal(ErrorKind::Row, "a window has too many rows"))?;
        let ttl_ms = settings.ttl.map(|ttl| i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX));
        let store = match &settings.dir {
            Some(dir) => Some(Arc::new(Store::open(dir, &settings.name, ring, ttl_ms.is_some())?)),
            None => None,
        };
        Ok(State { settings: settings.clone(), ring, ttl_ms, store, partitions: HashMap::new() })
    }

    /// Keys of all partitions.
    pub fn n_keys(&self) -> u64 {
        self.partitions.values().map(Partition::n_keys).sum()
    }

    /// Bytes of windows in memory, about.
    pub fn n_bytes(&self) -> usize {
        self.partitions.values().map(Partition::n_bytes).sum()
    }

    /// Gives a partition up if it is held, and begins to take it on again: see [`Restorer::run`].
    ///
    /// # Errors
    /// [`ErrorKind::Store`].
    pub fn begin(&mut self, partition: i32) -> Result<Restorer, Error> {
        self.release(partition)?;
        let (settings, store) = (self.settings.clone(), self.store.clone());
        Ok(Restorer { settings, partition, ring: self.ring, ttl_ms: self.ttl_ms, store })
    }

    /// Takes a partition on.
    ///
    /// # Errors
    /// [`ErrorKind::Full`] when it is more than state may take.
    pub fn take_on(&mut self, filled: Filled) -> Result<Restored, Error> {
        let Filled { number, partition, restored } = filled;
        let keys = restored.keys;
        let too_many = self.n_keys() + keys > self.settings.max_keys;
        self.partitions.insert(number, partition);
        if too_many || (self.store.is_none() && self.n_bytes() > self.settings.max_bytes) {
            self.partitions.remove(&number);
            let message = format!("partition {number} was restored with {keys} keys: {}", self.bounds());
            return Err(Error::fatal(ErrorKind::Full, message));
        }
        Ok(restored)
    }

    /// [`State::begin`], [`Restorer::run`] and [`State::take_on`] in one. Blocks until the changelog is read.
    ///
    /// # Errors
    /// As these have them.
    pub fn assign(&mut self, partition: i32, restore: Option<&mut dyn Restore>) -> Result<Restored, Error> {
        let filled = self.begin(partition)?.run(restore, &|| true)?;
        self.take_on(filled)
    }

    fn bounds(&self) -> String {
        format!(
            "state holds {} keys and {} bytes in memory, and may hold {} and {}; raise the bounds, set a time to live, or \
             name a folder",
            self.n_keys(),
            self.n_bytes(),
            self.settings.max_keys,
            self.settings.max_bytes
        )
    }

    /// Adds a row to a key, without a timestamp: [`State::push_at`].
    ///
    /// # Errors
    /// As [`State::push_at`].
    pub fn push(&mut self, partition: i32, key: &[u8], offset: i64, row: &Tensor) -> Result<Pushed, Error> {
        self.push_at(partition, key, offset, None, row)
    }

    /// Adds a row to a key: a tensor of dimensions `[1, ...]`, made of the record of that offset and timestamp. A window has
    /// the dimensions `[1, rows, ...]`. Offsets of a partition rise, but for records that come again: of an offset that the
    /// key has taken in nothing changes, and the window is given that was given then.
    ///
    /// A record that was taken in before and is gone, with its key or by later ones, is refused.
    ///
    /// A row of another element type or shape than those before it begins the key's window anew, and so does a row that
    /// comes when the key has expired.
    ///
    /// # Errors
    /// [`ErrorKind::Row`], [`ErrorKind::Replay`], [`ErrorKind::Full`]: the record is refused and nothing changed.
    /// [`ErrorKind::Order`], [`ErrorKind::Store`]: it will not work.
    pub fn push_at(
        &mut self,
        partition: i32,
        key: &[u8],
        offset: i64,
        timestamp_ms: Option<i64>,
        row: &Tensor,
    ) -> Result<Pushed, Error> {
        check_row(row)?;
        let (n_keys, n_bytes) = (self.n_keys(), self.n_bytes());
        let window = Window {
            rows: self.settings.rows.get(),
            step: self.settings.step.get() as u64,
            partial: self.settings.partial,
        };
        let ring = self.ring;
        let store = self.store.as_deref();
        let Some(windows) = self.partitions.get_mut(&partition) else { return Err(not_assigned(partition)) };
        let time = windows.time();
        let clock = time.clock.max(timestamp_ms.unwrap_or(NO_CLOCK));
        let found = windows.find(key, store)?;
        if let Some(entry) = found
            && entry.last_offset().is_some_and(|last| offset <= last)
        {
            return replay(entry, partition, key, offset, window, ring);
        }
        if offset < time.offset {
            // It was taken in, and its key was deleted since.
            return Err(no_window(&NoWindow::Gone, partition, offset));
        }
        let found = windows.find(key, store)?;
        let is_new = found.is_none();
        let begins = found.map(|entry| (!entry.layout().is_of(row), entry.seen()));
        let full = (is_new && n_keys >= self.settings.max_keys)
            || (store.is_none() && n_bytes.saturating_add(row.n_bytes()) > self.settings.max_bytes);
        if full {
            return Err(Error::new(ErrorKind::Full, self.bounds()));
        }
        let mut left = Vec::new();
        if begins.is_some_and(|(other, seen)| other || windows.is_expired(seen, clock)) {
            // What it leaves in the changelog is void once the new row is there, which therefore is written first.
            left = windows.take_away(key, offset);
        }
        let (entry, index) = windows.push(key, offset, clock, row);
        let row = entry.row(index);
        left.retain(|&place| place != row.place(ring));
        let mut deleted: Vec<Outgoing> =
            left.into_iter().map(|place| deletion(partition, place, key)).collect();
        let change = change(partition, key, &row, ring);
        let given = entry.window(index, window).map_err(|error| no_window(&error, partition, offset));
        let given = match given {
            Ok(given) => given,
            Err(error) => {
                windows.rewind(offset);
                return Err(error);
            }
        };
        for _ in 0..MAX_EXPIRED {
            let Some(due) = windows.next_due() else { break };
            let seen = windows.find(&due, store)?.map(Entry::seen);
            if *due != *key && seen.is_some_and(|seen| windows.is_expired(seen, clock)) {
                let places = windows.take_away(&due, offset);
                deleted.extend(places.into_iter().map(|place| deletion(partition, place, &due)));
            }
        }
        Ok(Pushed { window: given, change, deleted })
    }

    /// Updates of source offsets below become permanent: the changelog holds them for good. Writes to the store at times.
    ///
    /// # Errors
    /// [`ErrorKind::Store`].
    pub fn committed(&mut self, partition: i32, next_offset: i64) -> Result<(), Error> {
        let (n_bytes, n_partitions) = (self.n_bytes(), self.partitions.len());
        let Some(windows) = self.partitions.get_mut(&partition) else { return Ok(()) };
        windows.commit(next_offset);
        let Some(store) = &self.store else { return Ok(()) };
        if windows.n_dirty() > MAX_DIRTY || n_bytes > self.settings.max_bytes {
            windows.store(store)?;
            windows.shrink(self.settings.max_bytes / 2 / n_partitions.max(1));
        }
        Ok(())
    }

    /// Says that all of the partition's changelog below that offset is committed and was told by [`State::committed`], so
    /// that the next restoration can begin there. Without it, it begins where the last one ended.
    pub fn covered(&mut self, partition: i32, changelog_next: i64) {
        if let Some(windows) = self.partitions.get_mut(&partition) {
            windows.covered(changelog_next, Time::BEGIN);
        }
    }

    /// Forgets updates of source offsets at or above.
    pub fn rewind(&mut self, partition: i32, next_offset: i64) {
        if let Some(windows) = self.partitions.get_mut(&partition) {
            windows.rewind(next_offset);
        }
    }

    /// Gives a partition up, revoked or lost: forgets what is not committed, stores the rest.
    ///
    /// # Errors
    /// [`ErrorKind::Store`]. The partition is given up all the same.
    pub fn release(&mut self, partition: i32) -> Result<(), Error> {
        let Some(mut windows) = self.partitions.remove(&partition) else { return Ok(()) };
        windows.rewind(i64::MIN);
        match &self.store {
            Some(store) => windows.store(store),
            None => Ok(()),
        }
    }

    /// Gives all partitions up.
    ///
    /// # Errors
    /// As [`State::release`].
    pub fn close(mut self) -> Result<(), Error> {
        let partitions: Vec<i32> = self.partitions.keys().copied().collect();
        partitions.into_iter().try_for_each(|partition| self.release(partition))
    }
}

/// A record of the changelog: the key at a place, with a value or without.
fn changelog(partition: i32, key: Bytes, value: Option<Bytes>) -> Outgoing {
    Outgoing {
        output: Output::Changelog,
        partition: Some(partition),
        key: Some(key),
        value,
        headers: Vec::new(),
        timestamp_ms: None,
    }
}

fn change(partition: i32, key: &[u8], row: &Row, ring: u32) -> Outgoing {
    changelog(partition, encode_key(row.place(ring), key), Some(encode_row(row, ring).into()))
}

fn deletion(partition: i32, place: u32, key: &[u8]) -> Outgoing {
    changelog(partition, encode_key(place, key), None)
}

fn not_assigned(partition: i32) -> Error {
    Error::new(ErrorKind::Order, format!("partition {partition} is not assigned"))
}

fn check_row(row: &Tensor) -> Result<(), Error> {
    let shape = row.shape();
    if row.dtype() == DType::String || shape.dims().first() != Some(&1) || shape.rank() >= MAX_RANK {
        let message =
            format!("a row of a window is {} {shape}, expected numbers of shape [1, ...]", row.dtype());
        return Err(Error::new(ErrorKind::Row, message));
    }
    Ok(())
}

fn no_window(error: &NoWindow, partition: i32, offset: i64) -> Error {
    match error {
        NoWindow::Gone => Error::new(
            ErrorKind::Replay,
            format!(
                "record {offset} of partition {partition} was taken in before, and the rows of its window are gone: more \
                 history is needed, or delivery exactly once"
            ),
        ),
        NoWindow::Shape(error) => {
            Error::new(ErrorKind::Row, format!("no window can be made of such rows: {error}"))
        }
    }
}

/// The window of a record that comes again.
fn replay(
    entry: &Entry,
    partition: i32,
    key: &[u8],
    offset: i64,
    window: Window,
    ring: u32,
) -> Result<Pushed, Error> {
    let gone = || no_window(&NoWindow::Gone, partition, offset);
    // Its place must still be its own: a later row there must not be overwritten in the changelog.
    let index = entry.find(offset).filter(|index| entry.last() - index < ring as usize).ok_or_else(gone)?;
    let given = entry.window(index, window).map_err(|error| no_window(&error, partition, offset))?;
    Ok(Pushed { window: given, change: change(partition, key, &entry.row(index), ring), deleted: Vec::new() })
}
