//! What the pipeline asks of the state of windows.

use std::any::Any;
use std::fmt::Debug;

use salver_records::{Error, Outgoing, Partition};
use salver_tensor::Tensor;

/// The windows of one partition as they were restored, for [`Windows::assign`].
pub type Restored = Box<dyn Any + Send>;

/// Restores the windows of one partition, on a thread that has nothing else to do: it may block as long as it takes, and asks
/// what it is given every few seconds whether to go on. Called again after a [`salver_records::Severity::Passing`] error.
pub type Restoration = Box<dyn FnMut(&dyn Fn() -> bool) -> Result<Restored, Error> + Send>;

/// The windows of all keys of this process. Owned by the driver's thread; calls may wait for a disk, and for nothing else.
///
/// What was pushed is pending until its record's position is committed; [`Windows::rewind`] forgets what is pending.
pub trait Windows: Debug + Send {
    /// Which input of the model is collected.
    fn input(&self) -> &str;

    /// What restores the windows of a partition that was assigned. One of them runs at a time.
    ///
    /// # Errors
    /// When the store fails.
    fn restoration(&mut self, partition: &Partition) -> Result<Restoration, String>;

    /// Takes on the windows of a partition as its restoration has made them.
    ///
    /// # Errors
    /// When they are more than there may be.
    fn assign(&mut self, partition: &Partition, restored: Restored) -> Result<(), String>;

    /// Adds a row of a record. Rows of a partition come in the order of offsets; the same again changes nothing.
    ///
    /// # Errors
    /// When the row does not fit or the store fails.
    fn push(
        &mut self,
        partition: &Partition,
        key: &[u8],
        offset: i64,
        timestamp_ms: Option<i64>,
        row: &Tensor,
    ) -> Result<Pushed, PushError>;

    /// Records below this offset are committed.
    ///
    /// # Errors
    /// When the store fails.
    fn committed(&mut self, partition: &Partition, next: i64) -> Result<(), String>;

    /// Records from this offset on come again.
    ///
    /// # Errors
    /// When the store fails.
    fn rewind(&mut self, partition: &Partition, next: i64) -> Result<(), String>;

    /// The partition went to others.
    fn release(&mut self, partition: &Partition);

    /// Memory and store together, as far as is known.
    fn n_bytes(&self) -> u64;
}

/// What a row made of its window.
#[derive(Debug)]
pub struct Pushed {
    /// The whole window with one row for the batch in front (`[1, rows, ..]`); `None` while it has not enough rows.
    pub window: Option<Tensor>,
    /// What the changelog must hold, to be written with the record's answer.
    pub changes: Vec<Outgoing>,
}

/// Why a row was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PushError {
    /// The row is at fault.
    Row(String),
    /// The store is.
    Store(String),
}
