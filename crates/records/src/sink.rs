//! Where records go.

use std::fmt::Debug;
use std::time::Duration;

use bytes::Bytes;

use crate::{Error, Group, Header, Partition, n_content_bytes};

/// What a record is written for; a sink knows which topic or file that means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Output {
    /// Answers.
    Main,
    /// Records that could not be answered.
    Dead,
    /// State, to be found again; goes to the partition that [`Outgoing::partition`] names.
    Changelog,
}

/// One record to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// What it is.
    pub output: Output,
    /// The partition, where it matters; `None` leaves it to the sink, by key.
    pub partition: Option<i32>,
    /// The key.
    pub key: Option<Bytes>,
    /// The content; `None` is a tombstone.
    pub value: Option<Bytes>,
    /// In order.
    pub headers: Vec<Header>,
    /// Milliseconds since 1970; `None` leaves it to the sink.
    pub timestamp_ms: Option<i64>,
}

impl Outgoing {
    /// The memory that the record takes: its bytes and what goes around them.
    pub fn n_bytes(&self) -> usize {
        size_of::<Outgoing>() + n_content_bytes(self.key.as_ref(), self.value.as_ref(), &self.headers)
    }
}

/// A number by which a caller knows a record that it sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Receipt(pub u64);

/// What became of a record that was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Which one.
    pub receipt: Receipt,
    /// Whether it lasts now. [`crate::Severity::Record`] if only this record is refused.
    pub result: Result<(), Error>,
}

/// Positions of the source that become true together with what was written.
#[derive(Debug, Clone)]
pub struct Transaction {
    /// The first offset that is not done, per partition.
    pub positions: Vec<(Partition, i64)>,
    /// Who read them, as [`crate::Source::group`] said.
    pub group: Option<Group>,
}

/// Takes records. Owned by one thread. Two ways of use, never mixed: one by one ([`Sink::send`] outside of a transaction,
/// then [`Sink::deliveries`]), or all of an interval at once ([`Sink::begin`], [`Sink::send`], [`Sink::commit`]).
pub trait Sink: Debug + Send {
    /// Takes a record to be written. Returns before it lasts; blocks while the sink holds as much as it may. Records of one
    /// output and key are written in the order in which they are sent.
    ///
    /// # Errors
    /// [`crate::Severity::Record`] when this record will never be taken (it is too large); the others as they are named. Outside
    /// of transactions [`crate::Severity::Transaction`], here or in a delivery, says that all that is not known to last counts as
    /// not written, and is to be sent again.
    fn send(&mut self, record: Outgoing, receipt: Receipt) -> Result<(), Error>;

    /// Appends what became of records sent outside of a transaction; waits up to `wait` if nothing is known yet.
    fn deliveries(&mut self, wait: Duration, into: &mut Vec<Delivery>);

    /// Waits until all that was sent lasts or failed; what failed is told by [`Sink::deliveries`].
    ///
    /// # Errors
    /// When it cannot be known in time.
    fn flush(&mut self) -> Result<(), Error>;

    /// Whether intervals can be written all at once.
    fn is_transactional(&self) -> bool;

    /// Opens a transaction. Blocks.
    ///
    /// # Errors
    /// As [`Sink::commit`], and [`crate::Severity::Passing`].
    fn begin(&mut self) -> Result<(), Error>;

    /// Makes everything sent since [`Sink::begin`] last, together with the positions. Blocks, through passing troubles too,
    /// as long as the transaction may last.
    ///
    /// # Errors
    /// [`crate::Severity::Passing`], when the far side was away for too long, [`crate::Severity::Transaction`],
    /// [`crate::Severity::Fenced`] or [`crate::Severity::Fatal`]: nothing lasts, and the transaction is to be aborted.
    /// [`crate::Severity::Doubtful`]: all of it may last, or nothing.
    fn commit(&mut self, transaction: &Transaction) -> Result<(), Error>;

    /// Throws away what was sent since [`Sink::begin`]; after [`crate::Severity::Doubtful`], sees to it that all of that lasts or
    /// nothing. Blocks.
    ///
    /// # Errors
    /// [`crate::Severity::Passing`] when the far side is away: to be called again. [`crate::Severity::Fenced`] or
    /// [`crate::Severity::Fatal`].
    fn abort(&mut self) -> Result<(), Error>;
}
