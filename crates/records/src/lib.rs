//! What passes between sources, the stream processor and sinks: records, where they come from and where they go.
//!
//! A [`Source`] gives records of partitions, in order within each, and learns which of them are done. A [`Sink`] takes
//! [`Outgoing`] records and makes them last, either one by one or all of an interval together with the positions of the
//! source. Both block and belong to one thread each. This room knows no formats, no models, no brokers and no files.

mod error;
mod sink;
mod source;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

pub use error::{Error, Severity};
pub use sink::{Delivery, Outgoing, Output, Receipt, Sink, Transaction};
pub use source::{Assignment, Event, Group, Lag, Position, Restore, Source};

/// The header that a source adds to a record of which it gives the first bytes only, because there are more than it may
/// keep: how many there were, as decimal digits.
pub const CUT_FROM: &str = "salver-cut-from";

/// One sequence of records: a partition of a topic, or a file.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Partition {
    /// The topic, or the name of the file.
    pub topic: Arc<str>,
    /// The number within the topic, or among the files.
    pub number: i32,
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.number)
    }
}

/// A partition, by a small number that its source chose. A source uses each number for one partition only, as long as it
/// lives; [`Source::partition`] tells which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(pub u32);

/// A header: a name, and bytes that may be absent. A name may come several times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The name.
    pub name: Arc<str>,
    /// The value.
    pub value: Option<Bytes>,
}

/// One record as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Where it was read.
    pub slot: Slot,
    /// Its number within the partition. Numbers rise, and may leave gaps.
    pub offset: i64,
    /// What orders it: records of one partition with equal keys are answered in order.
    pub key: Option<Bytes>,
    /// The content; `None` is a tombstone.
    pub value: Option<Bytes>,
    /// In the order of the source.
    pub headers: Vec<Header>,
    /// Milliseconds since 1970, if the source knows.
    pub timestamp_ms: Option<i64>,
}

/// The memory of what a record holds: its bytes, and what goes around headers.
fn n_content_bytes(key: Option<&Bytes>, value: Option<&Bytes>, headers: &[Header]) -> usize {
    let header = |header: &Header| header.name.len() + header.value.as_ref().map_or(0, Bytes::len) + 48;
    key.map_or(0, Bytes::len) + value.map_or(0, Bytes::len) + headers.iter().map(header).sum::<usize>()
}

impl Record {
    /// The memory that the record takes: its bytes and what goes around them.
    pub fn n_bytes(&self) -> usize {
        size_of::<Record>() + n_content_bytes(self.key.as_ref(), self.value.as_ref(), &self.headers)
    }

    /// Bytes that the value had, if the source gives the first of them only: see [`CUT_FROM`].
    pub fn cut_from(&self) -> Option<u64> {
        let header = self.headers.iter().rfind(|header| &*header.name == CUT_FROM)?;
        std::str::from_utf8(header.value.as_ref()?).ok()?.parse().ok()
    }
}
