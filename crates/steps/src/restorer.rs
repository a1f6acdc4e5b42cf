//! Making the windows of a partition anew, beside those that are in use.

use std::fmt;
use std::sync::Arc;

use salver_records::{Restore, Severity};

use crate::partition::Partition;
use crate::restoring::Restoring;
use crate::store::{Mark, Store};
use crate::{Error, Restored, StateSettings};

/// Makes the windows of one partition anew, from [`crate::State::begin`]. Has no part of the state but the store, so that
/// it may do so on another thread while other windows are in use.
pub struct Restorer {
    pub(crate) settings: StateSettings,
    pub(crate) partition: i32,
    /// Places of a key's ring.
    pub(crate) ring: u32,
    pub(crate) ttl_ms: Option<i64>,
    pub(crate) store: Option<Arc<Store>>,
}

impl fmt::Debug for Restorer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Restorer").field("partition", &self.partition).finish_non_exhaustive()
    }
}

/// The windows of one partition, to be taken on by [`crate::State::take_on`].
pub struct Filled {
    pub(crate) number: i32,
    pub(crate) partition: Partition,
    pub(crate) restored: Restored,
}

impl fmt::Debug for Filled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Filled").field("partition", &self.number).finish_non_exhaustive()
    }
}

impl Restorer {
    /// Reads the changelog from where the store ends. Without a changelog the partition begins without any state, whatever
    /// the store has. Blocks, and asks `is_wanted` with each record and every few seconds. May be called again after an error.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Changelog`] when it cannot be read or is not one of windows of this size, or when it is not wanted
    /// any more ([`Severity::Passing`]); [`crate::ErrorKind::Full`]; [`crate::ErrorKind::Store`].
    pub fn run(
        &self,
        restore: Option<&mut dyn Restore>,
        is_wanted: &dyn Fn() -> bool,
    ) -> Result<Filled, Error> {
        let number = self.partition;
        let mut partition = Partition::new(number, self.ring, self.ttl_ms, self.store.is_some());
        let Some(restore) = restore else {
            self.clear()?;
            let restored = Restored { keys: 0, records: 0, next: None };
            return Ok(Filled { number, partition, restored });
        };
        let mut known = self.store.as_ref().map(|store| store.mark(number)).transpose()?.flatten();
        let mut from = known.map(|(mark, _)| mark.changelog);
        if known.is_none() {
            // Rows without a mark are of a run that had no changelog.
            self.clear()?;
        }
        loop {
            let mark = known.map(|(mark, _)| mark);
            let store = self.store.as_deref();
            let mut restoring = Restoring::new(store, number, self.ring, self.settings.max_bytes, mark);
            let mut is_called_off = false;
            let end = restore.restore(number, from, &mut |record| {
                is_called_off = !is_wanted();
                !is_called_off && record.is_none_or(|record| restoring.take(&record))
            })?;
            if is_called_off {
                return Err(called_off(number));
            }
            if self.store.is_some() && from.is_some_and(|from| end < from) && restoring.failed.is_none() {
                // The changelog was made anew: what the store has is of another one.
                self.clear()?;
                (known, from) = (None, None);
                continue;
            }
            let records = restoring.records;
            let (time, keys) = restoring.finish(end)?;
            match &self.store {
                Some(store) => {
                    let (mark, n_keys) = store.mark(number)?.unwrap_or((Mark { changelog: end, time }, 0));
                    partition.begin(mark, n_keys);
                }
                None => {
                    partition.fill(keys);
                    partition.covered(end, time);
                }
            }
            let restored = Restored { keys: partition.n_keys(), records, next: Some(end) };
            return Ok(Filled { number, partition, restored });
        }
    }

    fn clear(&self) -> Result<(), Error> {
        self.store.as_ref().map_or(Ok(()), |store| store.clear(self.partition))
    }
}

fn called_off(partition: i32) -> Error {
    let message = format!("the windows of partition {partition} are not wanted any more");
    salver_records::Error::new(Severity::Passing, message).into()
}
