//! What can go wrong with sources and sinks.

use std::fmt;

/// What is left to do after an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The same call may work later: the far side is away for now. Nothing was lost and nothing was done.
    Passing,
    /// The open transaction cannot be committed. After [`crate::Sink::abort`] the work goes on from the last positions that
    /// were committed.
    Transaction,
    /// It is not known whether the open transaction was committed, or whether others have had what was assigned meanwhile. After
    /// [`crate::Sink::abort`] the work goes on from what [`crate::Source::committed`] says.
    Doubtful,
    /// Another process has taken this one's place, or the group has gone on without it. What was assigned is lost and what
    /// is under way must be thrown away; a source may be assigned partitions anew.
    Fenced,
    /// One record is refused by the far side for what it is (too large, say); others are taken.
    Record,
    /// It will not work: wrong settings, no permission, no such topic, a full disk.
    Fatal,
}

/// A failed call of a source or a sink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// What is left to do.
    pub severity: Severity,
    /// What was wrong, what was expected and where.
    pub message: String,
}

impl Error {
    /// An error of that severity.
    pub fn new(severity: Severity, message: impl Into<String>) -> Error {
        Error { severity, message: message.into() }
    }

    /// An error that will stay.
    pub fn fatal(message: impl Into<String>) -> Error {
        Error::new(Severity::Fatal, message)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}
