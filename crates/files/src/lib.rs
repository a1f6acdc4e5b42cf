//! Sources and sinks over files: JSON lines and CSV, packed or not, standard input and output.
//!
//! Knows paths, lines, rows, and how far a run has come. Must not know tensors, models, brokers, nor what a line means.
//!
//! - [`FileSource`] gives one record per line (JSON lines) or row (CSV, quoted line breaks included), one partition per
//!   file. The offset of a record is the number of the line on which it begins, from 0, blank lines and the header
//!   counted, so that an editor finds it at offset + 1. Offsets therefore leave gaps.
//! - [`FileSink`] makes an interval last all at once: it appends, forces the bytes to disk, and only then replaces the
//!   progress file, which says how long each file is and up to where the inputs are done. What a killed run wrote after that
//!   is cut off by the next one, so that the output holds every record once.
//! - [`LineSink`] writes to anything that takes bytes, standard output above all: at least once, never resumed.
//! - [`StateLog`] is read back through [`salver_records::Restore`]: the changelog of a run over files.
//!
//! A run is put together so: [`Progress::read`] beside the output, [`FileSource::open`] with it, then [`FileSink::open`]
//! with it. The source's [`salver_records::Source::group`] must reach [`salver_records::Transaction::group`]: through it the
//! sink learns which byte an offset is.
//!
//! ## Files beside an output
//!
//! | file | what it is |
//! |---|---|
//! | `OUTPUT.progress` | JSON, [`Progress`]; replaced as a whole |
//! | `OUTPUT.dead.jsonl` | dead letters, made with the first of them: `key`, `value` (or `key_base64`, `value_base64` where the bytes are not UTF-8), `timestamp_ms`, `headers` |
//! | `OUTPUT.state-N` | the changelog, if there is state; N rises when it is rewritten without what is outdated |

#![warn(missing_docs)]

mod feed;
mod form;
mod frame;
mod input;
mod ledger;
mod letters;
mod lines;
mod meter;
mod progress;
mod sink;
mod source;
mod state;
mod tail;

pub use form::{Form, Packing};
pub use input::Fingerprint;
pub use lines::LineSink;
pub use meter::Meter;
pub use progress::{Done, FORMAT, Progress, StatePart};
pub use sink::{FileSink, SinkSettings};
pub use source::{FileSource, SourceSettings};
pub use state::StateLog;
