//! How much state is kept, and where.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

/// What is given while a key has fewer rows than a window takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Partial {
    /// Nothing.
    Wait,
    /// A window with zeros before the rows.
    Zeros,
    /// A window with the key's first row repeated before the rows.
    First,
}

/// The windows of a stream.
#[derive(Debug, Clone)]
pub struct StateSettings {
    /// A folder for the store; `None` keeps all in memory. It is made if it is not there.
    pub dir: Option<PathBuf>,
    /// What the state belongs to (the changelog's name, say): a store of another name is refused.
    pub name: String,
    /// Rows of a window.
    pub rows: NonZeroUsize,
    /// Rows that are kept beyond a window, so that so many records of a key can be taken in again and get the windows that
    /// they had. Delivery at least once needs it; exactly once does not. A changelog keeps to the number it was begun with.
    pub history: usize,
    /// Every so manieth record of a key gives a window.
    pub step: NonZeroUsize,
    /// What comes before the first full window.
    pub partial: Partial,
    /// A key begins anew when it has no record for longer than this, by the timestamps of its partition. `None`: never.
    pub ttl: Option<Duration>,
    /// Keys of all partitions; a record with one more is refused.
    pub max_keys: u64,
    /// Bytes of windows in memory. Without a folder a record that takes more is refused; with one, this is what is kept
    /// besides the store, and exceeded by what is under way only.
    pub max_bytes: usize,
}

impl StateSettings {
    /// Windows of so many rows, in memory: a million keys, 1 GiB.
    pub fn of(rows: NonZeroUsize) -> StateSettings {
        StateSettings {
            dir: None,
            name: String::new(),
            rows,
            history: 32,
            step: NonZeroUsize::MIN,
            partial: Partial::Wait,
            ttl: None,
            max_keys: 1_000_000,
            max_bytes: 1 << 30,
        }
    }
}

/// A table of last values.
#[derive(Debug, Clone)]
pub struct TableSettings {
    /// A folder for the store; `None` keeps all in memory. Each table needs one of its own.
    pub dir: Option<PathBuf>,
    /// The topic: a store of another one is refused.
    pub name: String,
    /// Keys.
    pub max_keys: u64,
    /// Bytes in memory. Without a folder the table may not be larger.
    pub max_bytes: usize,
}

impl TableSettings {
    /// A table in memory: ten million keys, 1 GiB.
    pub fn of(name: impl Into<String>) -> TableSettings {
        TableSettings { dir: None, name: name.into(), max_keys: 10_000_000, max_bytes: 1 << 30 }
    }
}
