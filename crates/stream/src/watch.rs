//! Threads that end by a panic.

use std::sync::mpsc::SyncSender;

use crate::driver::Report;
use crate::{Error, ErrorKind};

/// Held by a thread without which the pipeline cannot go on: tells the driver when it ends by a panic.
pub(crate) struct Watch {
    reports: SyncSender<Report>,
    what: &'static str,
}

impl Watch {
    /// `what` is the thread, for people: `"a worker of the stream"`.
    pub(crate) fn new(what: &'static str, reports: &SyncSender<Report>) -> Watch {
        Watch { reports: reports.clone(), what }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let error = Error::new(ErrorKind::Internal, format!("{} panicked", self.what));
            // The driver may be gone already, and nobody else would want to know.
            drop(self.reports.send(Report::Stop(error)));
        }
    }
}
