//! Where records come from.

use std::any::Any;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use crate::{Error, Partition, Record, Slot};

/// Up to where a partition is done: `next` is the offset of the first record that is not. In Kafka's terms, the last offset
/// done plus one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The partition.
    pub slot: Slot,
    /// The first offset that is not done.
    pub next: i64,
}

/// A partition that was given to this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Assignment {
    /// The partition.
    pub slot: Slot,
    /// The first offset that will be read; `None` if the source does not know before it reads.
    pub next: Option<i64>,
}

/// What happens to the partitions of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Partitions that were given to this process, none of which it had. They are paused until [`Source::resume`].
    Assigned(Vec<Assignment>),
    /// Partitions that others shall have. Nothing more of them is read; the source holds them until [`Source::give_up`],
    /// so that what was begun can be finished and committed.
    Revoking(Vec<Slot>),
    /// Partitions that others have already. Nothing of them can be committed any more.
    Lost(Vec<Slot>),
    /// All that the partition will give, or that a bounded run wants of it, has been read. Comes again after
    /// [`Source::rewind`].
    End(Slot),
}

/// How far a partition is behind its newest record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lag {
    /// The partition.
    pub slot: Slot,
    /// The offset that the next record of the partition will have: one past the newest.
    pub end: i64,
}

/// Who reads, as a transaction must know it: made by a source, understood by the sink of the same broker.
#[derive(Debug, Clone)]
pub struct Group(pub Arc<dyn Any + Send + Sync + 'static>);

impl Group {
    /// What a source put in.
    pub fn get<T: Any + Send + Sync>(&self) -> Option<&T> {
        self.0.downcast_ref()
    }
}

/// Gives records. Owned by one thread; all calls block for a short time at most, but for [`Source::poll`], which waits as
/// long as it is told.
pub trait Source: Debug + Send {
    /// Waits up to `wait` for records or events and appends what is there, at most about `max_bytes` of records. Records
    /// of a partition come in order, after the event that assigned it. Called often enough (every few hundred
    /// milliseconds), also while everything is paused, it keeps the process in its group.
    ///
    /// # Errors
    /// [`crate::Severity::Passing`] while the far side is away, for information; [`crate::Severity::Fatal`] otherwise.
    fn poll(
        &mut self,
        wait: Duration,
        max_bytes: usize,
        records: &mut Vec<Record>,
        events: &mut Vec<Event>,
    ) -> Result<(), Error>;

    /// Which partition a slot is.
    fn partition(&self, slot: Slot) -> &Partition;

    /// Reads no more of these partitions. Records that were read ahead may be lost to the source, not to the processor: they come
    /// again after [`Source::resume`].
    fn pause(&mut self, slots: &[Slot]);

    /// Reads these partitions again.
    fn resume(&mut self, slots: &[Slot]);

    /// Reads on from these positions: what was read after them comes again. Tried once; called again where it fails.
    ///
    /// # Errors
    /// When the far side does not take it in time.
    fn rewind(&mut self, to: &[Position]) -> Result<(), Error>;

    /// The answer to [`Event::Revoking`]: all that will be committed of these partitions has been.
    ///
    /// # Errors
    /// When the group does not take it.
    fn give_up(&mut self, slots: &[Slot]) -> Result<(), Error>;

    /// Remembers positions outside of any transaction. May return before they last.
    ///
    /// # Errors
    /// When the far side does not take them.
    fn commit(&mut self, positions: &[Position]) -> Result<(), Error>;

    /// Waits until what was committed lasts.
    ///
    /// # Errors
    /// When it does not.
    fn settle(&mut self) -> Result<(), Error> {
        Ok(())
    }

    /// Up to where these partitions are committed, asked anew of whoever keeps that, once no transaction is open that would
    /// change it. Those are left out of which nothing is committed, or nothing that the processor cannot know of.
    ///
    /// # Errors
    /// [`crate::Severity::Passing`] when it cannot be told yet; [`crate::Severity::Fatal`] where nobody can tell.
    fn committed(&mut self, slots: &[Slot]) -> Result<Vec<Position>, Error> {
        let _ = slots;
        Ok(Vec::new())
    }

    /// Who reads, for a sink's transaction; `None` where there is nothing to say.
    fn group(&self) -> Option<Group> {
        None
    }

    /// Where the assigned partitions end, as far as is known without asking.
    fn lags(&mut self) -> Vec<Lag> {
        Vec::new()
    }
}

/// Reads a changelog or a table from its beginning to where it ends now. Blocks.
pub trait Restore: Debug + Send {
    /// Gives each record of a partition from `from` on (the beginning if `None`), in order, with no value where that was
    /// deleted; ends with the offset after the last one. Only what was committed is seen. While nothing comes, `each` gets
    /// `None` at least every few seconds. Stops when `each` says `false`, at the offset after the last record that it got.
    ///
    /// # Errors
    /// When the far side cannot be read: [`crate::Severity::Passing`] if asking again may help.
    fn restore(
        &mut self,
        partition: i32,
        from: Option<i64>,
        each: &mut dyn FnMut(Option<Record>) -> bool,
    ) -> Result<i64, Error>;

    /// How many partitions there are.
    ///
    /// # Errors
    /// When the far side cannot be asked.
    fn n_partitions(&mut self) -> Result<i32, Error>;
}
