//! The last value of each key of a compacted topic.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use redb::{Database, ReadableDatabase, ReadableTableMetadata, TableDefinition};
use salver_records::{Header, Record, Restore, Severity, Slot};

use crate::codec::{byte, put, put_signed, take, take_signed};
use crate::store::open_database;
use crate::{Error, ErrorKind, TableSettings};

const RECORDS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("records");
const NEXT: TableDefinition<i32, i64> = TableDefinition::new("next");
/// Bytes that may wait to be stored.
const MAX_WAITING: usize = 16 << 20;

/// The last record of each key: memory, or a store on disk with what was not stored yet in memory. In a store, what
/// [`Table::fill`] read is not read again after a restart; what [`Table::apply`] took is.
pub struct Table {
    settings: TableSettings,
    store: Option<(PathBuf, Database)>,
    /// Without a store everything, with one what waits; `None` is a key that was deleted.
    records: HashMap<Bytes, Option<Record>>,
    n_bytes: usize,
    stored_keys: u64,
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table")
            .field("settings", &self.settings)
            .field("records", &self.records.len())
            .field("stored_keys", &self.stored_keys)
            .finish_non_exhaustive()
    }
}

impl Table {
    /// Opens a table. Blocks.
    ///
    /// # Errors
    /// [`ErrorKind::Locked`] when another process has the store open, [`ErrorKind::Store`].
    pub fn open(settings: &TableSettings) -> Result<Table, Error> {
        let store = match &settings.dir {
            Some(dir) => Some(open_database(dir, "table.redb", &settings.name, "table 1")?),
            None => None,
        };
        let mut table =
            Table { settings: settings.clone(), store, records: HashMap::new(), n_bytes: 0, stored_keys: 0 };
        table.count()?;
        Ok(table)
    }

    fn count(&mut self) -> Result<(), Error> {
        let Some((path, database)) = &self.store else { return Ok(()) };
        let count = || -> Result<u64, redb::Error> {
            let transaction = database.begin_write()?;
            let n_keys = transaction.open_table(RECORDS)?.len()?;
            transaction.open_table(NEXT)?;
            transaction.commit()?;
            Ok(n_keys)
        };
        self.stored_keys = count().map_err(|error| Error::store(path, error))?;
        Ok(())
    }

    /// Reads all partitions to where they end now, from where the store ends. Blocks, and asks `is_wanted` with each record
    /// and every few seconds. Returns how many records were read, and where each partition ended, for a source to go on from.
    ///
    /// # Errors
    /// When the topic cannot be read or is not wanted any more, [`ErrorKind::Full`], [`ErrorKind::Store`].
    pub fn fill(
        &mut self,
        restore: &mut dyn Restore,
        is_wanted: &dyn Fn() -> bool,
    ) -> Result<(u64, Vec<i64>), Error> {
        let n_partitions = restore.n_partitions()?;
        let mut n_records = 0;
        'anew: loop {
            let mut ends = Vec::new();
            for partition in 0..n_partitions {
                let from = self.next(partition)?;
                let (mut failed, mut is_called_off) = (None, false);
                let end = restore.restore(partition, from, &mut |record| {
                    is_called_off = !is_wanted();
                    if let (Some(record), false) = (record, is_called_off) {
                        n_records += 1;
                        failed = self.apply(record).err();
                    }
                    failed.is_none() && !is_called_off
                })?;
                if is_called_off {
                    let message = format!("the table {} is not wanted any more", self.settings.name);
                    return Err(salver_records::Error::new(Severity::Passing, message).into());
                }
                if let Some(error) = failed {
                    return Err(Error::fatal(error.kind(), error.to_string()));
                }
                if from.is_some_and(|from| end < from) {
                    // The topic was made anew, and partitions before this one with it.
                    self.clear()?;
                    continue 'anew;
                }
                self.store(Some((partition, end)))?;
                ends.push(end);
            }
            return Ok((n_records, ends));
        }
    }

    fn next(&self, partition: i32) -> Result<Option<i64>, Error> {
        let Some((path, database)) = &self.store else { return Ok(None) };
        let read = || -> Result<Option<i64>, redb::Error> {
            Ok(database.begin_read()?.open_table(NEXT)?.get(partition)?.map(|next| next.value()))
        };
        read().map_err(|error| Error::store(path, error))
    }

    /// The last record of a key.
    ///
    /// # Errors
    /// [`ErrorKind::Store`].
    pub fn get(&self, key: &[u8]) -> Result<Option<Record>, Error> {
        if let Some(record) = self.records.get(key) {
            return Ok(record.clone());
        }
        let Some((path, database)) = &self.store else { return Ok(None) };
        let read = || -> Result<Option<Bytes>, redb::Error> {
            let table = database.begin_read()?.open_table(RECORDS)?;
            Ok(table.get(key)?.map(|record| Bytes::copy_from_slice(record.value())))
        };
        let Some(bytes) = read().map_err(|error| Error::store(path, error))? else { return Ok(None) };
        let damaged = |what| {
            Error::new(
                ErrorKind::Store,
                format!("the table in {} is damaged: {what}; delete it", path.display()),
            )
        };
        decode(Bytes::copy_from_slice(key), &bytes).map(Some).map_err(damaged)
    }

    /// Takes a later record: its value replaces that of its key, and a tombstone deletes it. A record without a key is
    /// passed over.
    ///
    /// # Errors
    /// [`ErrorKind::Full`]: nothing changed. [`ErrorKind::Store`].
    pub fn apply(&mut self, record: Record) -> Result<(), Error> {
        let Some(key) = record.key.clone() else { return Ok(()) };
        let is_one_more = record.value.is_some() && !self.records.contains_key(&key);
        let is_full = is_one_more && self.is_full_but_for(&key)?;
        let old = self.records.get(&key).map(n_bytes);
        let n_keys = self.n_keys();
        let bytes = self.n_bytes.saturating_add(record.n_bytes());
        if is_full
            || (record.value.is_some()
                && self.store.is_none()
                && bytes - old.unwrap_or(0) > self.settings.max_bytes)
        {
            return Err(Error::new(
                ErrorKind::Full,
                format!(
                    "table {} holds {n_keys} keys and {} bytes, and may hold {} and {}; raise the bounds or name a folder",
                    self.settings.name, self.n_bytes, self.settings.max_keys, self.settings.max_bytes
                ),
            ));
        }
        self.n_bytes -= old.unwrap_or(0);
        if record.value.is_none() && self.store.is_none() {
            self.records.remove(&key);
            return Ok(());
        }
        let record = record.value.is_some().then(|| compact(record, &key));
        self.n_bytes += n_bytes(&record);
        // Not a part of what was received, which is larger and would stay.
        self.records.insert(Bytes::copy_from_slice(&key), record);
        if self.store.is_some() && self.n_bytes > MAX_WAITING.min(self.settings.max_bytes) {
            self.store(None)?;
        }
        Ok(())
    }

    /// Whether there is no room for a key that does not wait to be stored, unless it is stored already.
    fn is_full_but_for(&mut self, key: &[u8]) -> Result<bool, Error> {
        if self.n_keys() < self.settings.max_keys || self.get(key)?.is_some() {
            return Ok(false);
        }
        // Keys that wait may be stored already, too.
        self.store(None)?;
        Ok(self.n_keys() >= self.settings.max_keys)
    }

    /// Keys, about: one that waits to be stored may be counted twice.
    pub fn n_keys(&self) -> u64 {
        self.stored_keys + self.records.len() as u64
    }

    /// Writes what waits.
    fn store(&mut self, next: Option<(i32, i64)>) -> Result<(), Error> {
        let Some((path, database)) = &self.store else { return Ok(()) };
        let write = || -> Result<u64, redb::Error> {
            let transaction = database.begin_write()?;
            let n_keys = {
                let mut records = transaction.open_table(RECORDS)?;
                for (key, record) in &self.records {
                    match record {
                        Some(record) => drop(records.insert(&key[..], &encode(record)[..])?),
                        None => drop(records.remove(&key[..])?),
                    }
                }
                if let Some((partition, next)) = next {
                    transaction.open_table(NEXT)?.insert(partition, next)?;
                }
                records.len()?
            };
            transaction.commit()?;
            Ok(n_keys)
        };
        self.stored_keys = write().map_err(|error| Error::store(path, error))?;
        self.records.clear();
        self.n_bytes = 0;
        Ok(())
    }

    fn clear(&mut self) -> Result<(), Error> {
        self.records.clear();
        self.n_bytes = 0;
        if let Some((path, database)) = &self.store {
            let write = || -> Result<(), redb::Error> {
                let transaction = database.begin_write()?;
                transaction.delete_table(RECORDS)?;
                transaction.delete_table(NEXT)?;
                transaction.commit()?;
                Ok(())
            };
            write().map_err(|error| Error::store(path, error))?;
        }
        self.count()
    }
}

fn n_bytes(record: &Option<Record>) -> usize {
    record.as_ref().map_or(64, Record::n_bytes)
}

/// The record in memory of its own.
fn compact(record: Record, key: &Bytes) -> Record {
    let copy = |bytes: Bytes| Bytes::copy_from_slice(&bytes);
    let header = |header: Header| Header { value: header.value.map(copy), ..header };
    Record {
        key: Some(Bytes::copy_from_slice(key)),
        value: record.value.map(copy),
        headers: record.headers.into_iter().map(header).collect(),
        ..record
    }
}

/// What the store holds of a record: a version byte, slot, offset, a byte that says whether there is a timestamp, the
/// timestamp, the headers (number, then name and value, which 0 says is absent), and the value.
fn encode(record: &Record) -> Vec<u8> {
    let mut bytes = vec![1];
    put(u64::from(record.slot.0), &mut bytes);
    put_signed(record.offset, &mut bytes);
    bytes.push(u8::from(record.timestamp_ms.is_some()));
    put_signed(record.timestamp_ms.unwrap_or(0), &mut bytes);
    put(record.headers.len() as u64, &mut bytes);
    for header in &record.headers {
        put(header.name.len() as u64, &mut bytes);
        bytes.extend_from_slice(header.name.as_bytes());
        put(header.value.as_ref().map_or(0, |value| value.len() as u64 + 1), &mut bytes);
        bytes.extend_from_slice(header.value.as_deref().unwrap_or_default());
    }
    bytes.extend_from_slice(record.value.as_deref().unwrap_or_default());
    bytes
}

fn decode(key: Bytes, bytes: &Bytes) -> Result<Record, String> {
    let mut rest = &bytes[..];
    let version = byte(&mut rest)?;
    if version != 1 {
        return Err(format!("a record is of version {version}, expected 1"));
    }
    let slot = Slot(u32::try_from(take(&mut rest)?).map_err(|_| "a slot is out of range")?);
    let offset = take_signed(&mut rest)?;
    let has_timestamp = byte(&mut rest)? != 0;
    let timestamp_ms = Some(take_signed(&mut rest)?).filter(|_| has_timestamp);
    let n_headers = take(&mut rest)?;
    let mut headers = Vec::new();
    for _ in 0..n_headers {
        let n_name = take(&mut rest)?;
        let name = std::str::from_utf8(part(&mut rest, n_name)?).map_err(|_| "a header is not UTF-8")?;
        let value = match take(&mut rest)?.checked_sub(1) {
            Some(n_value) => Some(Bytes::copy_from_slice(part(&mut rest, n_value)?)),
            None => None,
        };
        headers.push(Header { name: Arc::from(name), value });
    }
    let value = Some(bytes.slice(bytes.len() - rest.len()..));
    Ok(Record { slot, offset, key: Some(key), value, headers, timestamp_ms })
}

fn part<'a>(from: &mut &'a [u8], n_bytes: u64) -> Result<&'a [u8], String> {
    let n_bytes = usize::try_from(n_bytes).unwrap_or(usize::MAX);
    let (part, rest) = from.split_at_checked(n_bytes).ok_or("a record is cut off")?;
    *from = rest;
    Ok(part)
}

#[cfg(test)]
mod tests;
