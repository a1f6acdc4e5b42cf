//! Records of JSON: the fields that are needed, read in one pass, and answers written into the record's own bytes.
//!
//! Whole numbers are exact; others are the nearest double. `NaN` and `Infinity` are taken. Of a name that comes twice in an
//! object the last counts.

mod even;
mod read;
mod text;
mod write;

pub(crate) use read::{Kept, Reader};
pub(crate) use write::{Answer, append, digits, object, write_value};
