//! The thread that restores windows, one partition after the other, while the driver goes on with the others. What cannot be
//! restored for now goes back to the driver, so that others do not wait for it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender};

use salver_records::{Error as PartError, Partition, Severity};

use crate::driver::Report;
use crate::watch::Watch;
use crate::window::{Restoration, Restored};

/// Whether a restoration is still wanted: as long as somebody keeps this.
#[derive(Debug, Default)]
pub(crate) struct Wanted(Arc<AtomicBool>);

impl Drop for Wanted {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// A partition to be restored.
pub(crate) struct Task {
    /// By which the driver knows it again.
    number: u64,
    partition: Arc<Partition>,
    restoration: Restoration,
    is_called_off: Arc<AtomicBool>,
}

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task")
            .field("number", &self.number)
            .field("partition", &self.partition)
            .finish_non_exhaustive()
    }
}

impl Task {
    /// It is called off when what comes with it is dropped.
    pub(crate) fn new(number: u64, partition: Arc<Partition>, restoration: Restoration) -> (Task, Wanted) {
        let wanted = Wanted::default();
        let is_called_off = Arc::clone(&wanted.0);
        (Task { number, partition, restoration, is_called_off }, wanted)
    }

    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Restores. Blocks, and ends soon when it is called off.
    fn run(&mut self) -> Result<Restored, PartError> {
        let is_called_off = &self.is_called_off;
        (self.restoration)(&|| !is_called_off.load(Relaxed))
    }
}

/// Restores until there is nobody any more to do it for. Blocks.
pub(crate) fn run(tasks: &Receiver<Task>, reports: &SyncSender<Report>) {
    let watch = Watch::new("the stream's thread that restores windows", reports);
    while let Ok(mut task) = tasks.recv() {
        let report = match task.run() {
            Err(error) if error.severity == Severity::Passing => {
                Report::NotRestored { task: Box::new(task), error }
            }
            restored => Report::Restored { number: task.number, restored },
        };
        if reports.send(report).is_err() {
            break;
        }
    }
    drop(watch);
}
