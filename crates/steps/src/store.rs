//! The embedded store: what is permanent, on disk.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use redb::{Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition, TableError};

use crate::codec::{NO_CLOCK, Row, decode_rows, put_signed, take_signed};
use crate::partition::Time;
use crate::{Error, ErrorKind};

/// Bytes that the store itself keeps in memory.
const PAGE_CACHE: usize = 64 << 20;
/// What belongs to the whole file, by name.
const ABOUT: TableDefinition<&str, &[u8]> = TableDefinition::new("about");

/// The first of all keys.
const EMPTY: &[u8] = &[];

/// What is remembered of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    /// The changelog offset up to which the rows are complete.
    pub(crate) changelog: i64,
    pub(crate) time: Time,
}

/// One change of the store: all rows of a key, as they are stored, with the clock of the last; or that the key is gone.
#[derive(Debug)]
pub(crate) struct Change<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) rows: Option<(Vec<u8>, i64)>,
}

/// An open store.
#[derive(Debug)]
pub(crate) struct Store {
    path: PathBuf,
    database: Database,
    ring: u32,
    /// Whether keys are found by when they were seen.
    indexed: bool,
}

/// Opens or makes a database in a folder, of this owner and layout. One of another layout is emptied, as all of it can be
/// restored; one of another owner is refused.
pub(crate) fn open_database(
    dir: &Path,
    file: &str,
    owner: &str,
    layout: &str,
) -> Result<(PathBuf, Database), Error> {
    let path = dir.join(file);
    fs::create_dir_all(dir).map_err(|error| {
        Error::new(ErrorKind::Store, format!("cannot make the folder {} for state: {error}", dir.display()))
    })?;
    let failed = |error: redb::Error| Error::store(&path, error);
    let mut builder = Database::builder();
    let database = builder.set_cache_size(PAGE_CACHE).create(&path).map_err(|error| failed(error.into()))?;
    let transaction = database.begin_write().map_err(|error| failed(error.into()))?;
    let was = |name| -> Result<Option<Vec<u8>>, redb::Error> {
        Ok(transaction.open_table(ABOUT)?.get(name)?.map(|value| value.value().to_vec()))
    };
    if let Some(other) = was("owner").map_err(failed)?.filter(|was| was != owner.as_bytes()) {
        return Err(Error::new(
            ErrorKind::Store,
            format!(
                "the state in {} belongs to '{}', expected '{owner}': use another folder",
                path.display(),
                String::from_utf8_lossy(&other)
            ),
        ));
    }
    let write = || -> Result<(), redb::Error> {
        if was("layout")?.is_some_and(|was| was != layout.as_bytes()) {
            for table in transaction.list_tables()?.collect::<Vec<_>>() {
                transaction.delete_table(table)?;
            }
        }
        let mut about = transaction.open_table(ABOUT)?;
        about.insert("owner", owner.as_bytes())?;
        about.insert("layout", layout.as_bytes())?;
        Ok(())
    };
    write().map_err(failed)?;
    transaction.commit().map_err(|error| failed(error.into()))?;
    Ok((path, database))
}

impl Store {
    pub(crate) fn open(dir: &Path, name: &str, ring: u32, indexed: bool) -> Result<Store, Error> {
        let layout = format!("windows 1, ring {ring}, indexed {indexed}");
        let (path, database) = open_database(dir, "windows.redb", name, &layout)?;
        Ok(Store { path, database, ring, indexed })
    }

    fn failed(&self, error: impl Into<redb::Error>) -> Error {
        Error::store(&self.path, error)
    }

    /// What is remembered of a partition, and how many keys it has; `None` if the store does not know it.
    pub(crate) fn mark(&self, partition: i32) -> Result<Option<(Mark, u64)>, Error> {
        let read = || -> Result<_, redb::Error> {
            let transaction = self.database.begin_read()?;
            let mark =
                transaction.open_table(ABOUT)?.get(&*mark_name(partition))?.map(|mark| mark.value().to_vec());
            let n_keys = match transaction.open_table(windows(&windows_name(partition))) {
                Ok(table) => table.len()?,
                Err(TableError::TableDoesNotExist(_)) => 0,
                Err(error) => return Err(error.into()),
            };
            Ok(mark.map(|mark| (mark, n_keys)))
        };
        let Some((bytes, n_keys)) = read().map_err(|error| self.failed(error))? else { return Ok(None) };
        let mut rest = &bytes[..];
        let mut number = || take_signed(&mut rest).map_err(|what| self.damaged(&what));
        let (changelog, clock, offset) = (number()?, number()?, number()?);
        Ok(Some((Mark { changelog, time: Time { clock, offset } }, n_keys)))
    }

    /// The rows of a key.
    pub(crate) fn get(&self, partition: i32, key: &[u8]) -> Result<Option<Vec<Row>>, Error> {
        let read = || -> Result<Option<Bytes>, redb::Error> {
            let transaction = self.database.begin_read()?;
            match transaction.open_table(windows(&windows_name(partition))) {
                Ok(table) => Ok(table.get(key)?.map(|rows| Bytes::copy_from_slice(rows.value()))),
                Err(TableError::TableDoesNotExist(_)) => Ok(None),
                Err(error) => Err(error.into()),
            }
        };
        let bytes = read().map_err(|error| self.failed(error))?;
        let rows = bytes.map(|bytes| decode_rows(&bytes, self.ring)).transpose();
        rows.map_err(|what| self.damaged(&what))
    }

    /// Keys whose last row is of a clock before that, the oldest first, at most so many.
    pub(crate) fn seen_before(&self, partition: i32, clock: i64, n: usize) -> Result<Vec<Vec<u8>>, Error> {
        let read = || -> Result<Vec<Vec<u8>>, redb::Error> {
            let transaction = self.database.begin_read()?;
            let table = match transaction.open_table(seen(&seen_name(partition))) {
                Ok(table) => table,
                Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
                Err(error) => return Err(error.into()),
            };
            let keys = table.range((NO_CLOCK + 1, EMPTY)..(clock, EMPTY))?.take(n);
            keys.map(|entry| Ok(entry?.0.value().1.to_vec())).collect()
        };
        read().map_err(|error| self.failed(error))
    }

    /// Writes changes of a partition and its mark, all or nothing, for good.
    pub(crate) fn write<'a>(
        &self,
        partition: i32,
        changes: impl Iterator<Item = Change<'a>>,
        mark: Option<Mark>,
    ) -> Result<(), Error> {
        let write = || -> Result<(), redb::Error> {
            let transaction = self.database.begin_write()?;
            {
                let (windows_name, seen_name) = (windows_name(partition), seen_name(partition));
                let mut rows = transaction.open_table(windows(&windows_name))?;
                let mut index = match self.indexed {
                    true => Some(transaction.open_table(seen(&seen_name))?),
                    false => None,
                };
                for change in changes {
                    let old = match &change.rows {
                        Some((bytes, _)) => rows.insert(change.key, &bytes[..])?,
                        None => rows.remove(change.key)?,
                    };
                    let Some(index) = &mut index else { continue };
                    if let Some(old) = old {
                        index.remove((self.seen(old.value()), change.key))?;
                    }
                    if let Some((_, clock)) = change.rows {
                        index.insert((clock, change.key), ())?;
                    }
                }
                if let Some(Mark { changelog, time }) = mark {
                    let mut bytes = Vec::new();
                    for number in [changelog, time.clock, time.offset] {
                        put_signed(number, &mut bytes);
                    }
                    transaction.open_table(ABOUT)?.insert(&*mark_name(partition), &bytes[..])?;
                }
            }
            transaction.commit()?;
            Ok(())
        };
        write().map_err(|error| self.failed(error))
    }

    /// The clock under which the index has a key with these rows.
    fn seen(&self, rows: &[u8]) -> i64 {
        let rows = decode_rows(&Bytes::copy_from_slice(rows), self.ring).unwrap_or_default();
        newest_clock(&rows)
    }

    /// Forgets a partition.
    pub(crate) fn clear(&self, partition: i32) -> Result<(), Error> {
        let write = || -> Result<(), redb::Error> {
            let transaction = self.database.begin_write()?;
            transaction.delete_table(windows(&windows_name(partition)))?;
            transaction.delete_table(seen(&seen_name(partition)))?;
            transaction.open_table(ABOUT)?.remove(&*mark_name(partition))?;
            transaction.commit()?;
            Ok(())
        };
        write().map_err(|error| self.failed(error))
    }

    fn damaged(&self, what: &str) -> Error {
        let shown = self.path.display();
        Error::new(
            ErrorKind::Store,
            format!("the state in {shown} is damaged: {what}; delete it, and it is restored"),
        )
    }
}

/// The largest clock of some rows: that of the last row, as clocks never fall.
pub(crate) fn newest_clock(rows: &[Row]) -> i64 {
    rows.iter().map(|row| row.clock).max().unwrap_or(NO_CLOCK)
}

fn windows_name(partition: i32) -> String {
    format!("windows-{partition}")
}

fn seen_name(partition: i32) -> String {
    format!("seen-{partition}")
}

fn mark_name(partition: i32) -> String {
    format!("partition-{partition}")
}

fn windows(name: &str) -> TableDefinition<'_, &'static [u8], &'static [u8]> {
    TableDefinition::new(name)
}

fn seen(name: &str) -> TableDefinition<'_, (i64, &'static [u8]), ()> {
    TableDefinition::new(name)
}
