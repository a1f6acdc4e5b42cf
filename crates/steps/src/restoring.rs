//! From the records of a changelog to the windows of a partition.

use std::collections::HashMap;

use bytes::Bytes;
use salver_records::Record;

use crate::codec::{Layout, Row, decode_key, decode_row, encode_rows};
use crate::partition::{Key, Time};
use crate::store::{Change, Mark, Store, newest_clock};
use crate::{Error, ErrorKind};

/// Bytes of restored rows that may wait to be stored.
const MAX_RESTORING: usize = 64 << 20;

/// Takes the records of a changelog in.
pub(crate) struct Restoring<'a> {
    store: Option<&'a Store>,
    partition: i32,
    ring: u32,
    max_bytes: usize,
    /// The rows of each key that was met, by place as the changelog has them.
    keys: HashMap<Key, Vec<Row>>,
    n_bytes: usize,
    pub(crate) records: u64,
    /// After the last record.
    next: i64,
    time: Time,
    pub(crate) failed: Option<Error>,
}

impl<'a> Restoring<'a> {
    /// Of a partition of which the store, if there is one, has what its mark says. Without a store at most `max_bytes`.
    pub(crate) fn new(
        store: Option<&'a Store>,
        partition: i32,
        ring: u32,
        max_bytes: usize,
        mark: Option<Mark>,
    ) -> Restoring<'a> {
        let max_bytes = if store.is_some() { MAX_RESTORING } else { max_bytes };
        let mark = mark.unwrap_or(Mark { changelog: 0, time: Time::BEGIN });
        Restoring {
            store,
            partition,
            ring,
            max_bytes,
            keys: HashMap::new(),
            n_bytes: 0,
            records: 0,
            next: mark.changelog,
            time: mark.time,
            failed: None,
        }
    }

    /// Takes a record; whether more are wanted.
    pub(crate) fn take(&mut self, record: &Record) -> bool {
        let result = self.apply(record);
        self.records += 1;
        self.next = record.offset.saturating_add(1);
        let result = result.and_then(|()| self.spill());
        self.failed = result.err();
        self.failed.is_none()
    }

    fn apply(&mut self, record: &Record) -> Result<(), Error> {
        let wrong = |what: String| {
            let (partition, offset) = (self.partition, record.offset);
            let message = format!(
                "record {offset} of partition {partition} of the changelog is none of a window: {what}"
            );
            Error::new(ErrorKind::Changelog, message)
        };
        let key = record.key.as_deref().ok_or_else(|| wrong("it has no key".into()))?;
        let (place, key) = decode_key(key).map_err(wrong)?;
        let row = match &record.value {
            None => None,
            Some(value) => {
                let (mut row, ring) = decode_row(value).map_err(wrong)?;
                if ring != self.ring {
                    return Err(wrong(format!(
                        "it is of windows with history of {ring} rows, expected {}; take another changelog",
                        self.ring
                    )));
                }
                if row.place(ring) != place {
                    return Err(wrong(format!("row {} is at place {place}", row.number)));
                }
                // Not a part of what was received, which is larger and would stay.
                row.data = Bytes::copy_from_slice(&row.data);
                Some(row)
            }
        };
        if !self.keys.contains_key(key) {
            let stored = self.store.map(|store| store.get(self.partition, key)).transpose()?.flatten();
            let stored = stored.unwrap_or_default();
            self.n_bytes += key.len() + 64 + stored.iter().map(n_bytes).sum::<usize>();
            self.keys.insert(key.into(), stored);
        }
        let Some(rows) = self.keys.get_mut(key) else { return Ok(()) };
        let at = rows.iter().rposition(|row| row.place(self.ring) == place);
        match (at, row) {
            (Some(at), None) => self.n_bytes -= n_bytes(&rows.swap_remove(at)),
            (None, None) => {}
            (at, Some(row)) => {
                self.time = self.time.max(Time { clock: row.clock, offset: row.offset });
                self.n_bytes += n_bytes(&row);
                match at {
                    // A record that came again, after later ones.
                    Some(at) if (rows[at].born, rows[at].number) > (row.born, row.number) => {
                        self.n_bytes -= n_bytes(&row);
                    }
                    Some(at) => self.n_bytes -= n_bytes(&std::mem::replace(&mut rows[at], row)),
                    None => rows.push(row),
                }
            }
        }
        Ok(())
    }

    /// Stores what was gathered if it is much.
    fn spill(&mut self) -> Result<(), Error> {
        if self.n_bytes <= self.max_bytes {
            return Ok(());
        }
        if self.store.is_none() {
            let message = format!(
                "restoring partition {} takes more than the {} bytes that state may take; raise the bound or name a folder",
                self.partition, self.max_bytes
            );
            return Err(Error::fatal(ErrorKind::Full, message));
        }
        self.write(self.next)
    }

    fn write(&mut self, next: i64) -> Result<(), Error> {
        let Some(store) = self.store else { return Ok(()) };
        let changes = self.keys.iter().map(|(key, rows)| {
            let stored = (encode_rows(rows.iter(), self.ring), newest_clock(rows));
            Change { key, rows: (!rows.is_empty()).then_some(stored) }
        });
        store.write(self.partition, changes, Some(Mark { changelog: next, time: self.time }))?;
        self.keys.clear();
        self.n_bytes = 0;
        Ok(())
    }

    /// Everything was read, up to `end`: how far the partition is, and, without a store, what there is.
    pub(crate) fn finish(mut self, end: i64) -> Result<(Time, HashMap<Key, Vec<Row>>), Error> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        self.write(end)?;
        Ok((self.time, self.keys))
    }
}

fn n_bytes(row: &Row) -> usize {
    size_of::<Row>() + row.data.len() + size_of::<Layout>()
}
