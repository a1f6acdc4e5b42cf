//! Watches base paths and says which versions of which models are aspired.
//!
//! This room does not know what a model is: a version is a folder or a file whose name is a number, its
//! content is a list of paths, sizes and times, and nothing is ever opened. What is found goes to a callback
//! as [`Aspired`](salver_lifecycle::Aspired) paths; what keeps a base path from being read is that model's
//! [`SourceStatus`] and touches no other model.
//!
//! [`decide()`] is the pure core: from what is listed now, what was seen before and the time, to what is
//! aspired. The [`Poller`] around it owns the thread, the clock and the reading of folders.

#![warn(missing_docs)]

mod content;
mod decide;
mod folder;
mod policy;
mod poller;
mod status;
mod watched;

pub use content::Content;
pub use decide::{Child, Decision, Seen, decide};
pub use folder::{Limits, local_path, version_number};
pub use policy::{VersionPolicy, select};
pub use poller::{OnAspired, OnStatus, PollMode, Poller};
pub use status::{SourceError, SourceErrorKind, SourceStatus};
pub use watched::{Layout, Watched};
