//! How far a source has come, for a person to look at.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts that a source keeps and others read. All of them only rise, but for a rewind, which reads again.
#[derive(Debug, Default)]
pub struct Meter {
    total: AtomicU64,
    read: AtomicU64,
    records: AtomicU64,
}

impl Meter {
    /// Bytes of all inputs as they lie on disk; `None` when one of them is a stream, whose end nobody knows.
    pub fn total(&self) -> Option<u64> {
        match self.total.load(Ordering::Relaxed) {
            u64::MAX => None,
            total => Some(total),
        }
    }

    /// Bytes read of them, those of earlier runs included.
    pub fn read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// Records given.
    pub fn records(&self) -> u64 {
        self.records.load(Ordering::Relaxed)
    }

    pub(crate) fn expect(&self, total: Option<u64>) {
        self.total.store(total.unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(crate) fn add_read(&self, bytes: u64) {
        self.read.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn take_back(&self, bytes: u64) {
        self.read.fetch_sub(bytes.min(self.read()), Ordering::Relaxed);
    }

    pub(crate) fn add_records(&self, records: u64) {
        self.records.fetch_add(records, Ordering::Relaxed);
    }
}
