//! State around the model: count windows per key, and last-value tables. Held in memory or in an embedded store, restored
//! from a changelog.
//!
//! Knows keys, rows of tensors, offsets, and which updates are permanent. Must not know formats, models, brokers, files of
//! records, threads, nor the time of day: time is what records say.
//!
//! - [`State`] collects the last rows of each key into a window. An update is undone by [`State::rewind`] and permanent
//!   after [`State::committed`]; each comes with the record that a changelog must hold before that.
//! - [`Table`] is the last value of each key of a compacted topic.
//!
//! Neither is shared: the thread that drives the stream owns them. Calls block while a store on disk is read or written. A
//! [`Restorer`] reads a changelog on another thread meanwhile.
//!
//! ## The changelog
//!
//! A window of n rows is kept as a ring of `ring = n + history` places. An update writes its own row only, under a key that
//! names the place, so that a compacted topic keeps the last `ring` rows of each key, and a window of a hundred rows costs
//! one row of writing per record.
//!
//! | bytes of a key | |
//! |---|---|
//! | 1 | version of the layout, 1 |
//! | 1 | `w` |
//! | 4 | the place, big-endian: the row's number modulo `ring` |
//! | rest | the key of the record |
//!
//! | bytes of a value | |
//! |---|---|
//! | 1 | version of the layout, 1 |
//! | 1 | bit 0: a clock is there |
//! | varint | `ring` |
//! | signed varint | the offset of the source at which the key's window began |
//! | varint | the row's number since then |
//! | signed varint | the row's own offset |
//! | signed varint | the clock, if it is there: the largest timestamp of the partition up to this row, milliseconds |
//! | 1 | element type, its place in [`salver_tensor::DType::ALL`] |
//! | 1 | rank, then one varint per dimension |
//! | rest | the elements, little-endian |
//!
//! Varints are LEB128, signed ones zigzag (as in protobuf). A key that expires is deleted place by place. A window that began
//! later makes rows of earlier ones void, so that it does not matter whether their deletion was seen.
//!
//! ## The store
//!
//! With a folder, windows lie in a `redb` file (`windows.redb`): a table `windows-P` per partition, from key to all rows, and
//! `seen-P`, from the clock of its last row to key, if keys expire. Only permanent updates go there, many at a time, with the
//! changelog offset up to which they are complete. What is in memory only is restored from the changelog after that offset;
//! restoring more than is needed does no harm. The file is locked while it is open.

#![warn(missing_docs)]

mod codec;
mod entry;
mod error;
mod partition;
mod restorer;
mod restoring;
mod settings;
mod state;
mod store;
mod table;

pub use error::{Error, ErrorKind};
pub use restorer::{Filled, Restorer};
pub use settings::{Partial, StateSettings, TableSettings};
pub use state::{Pushed, Restored, State};
pub use table::Table;
