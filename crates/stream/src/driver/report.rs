//! What workers and the sink's thread tell the driver, and what the driver tells others.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use salver_records::{Partition, Slot};

use super::{Driver, Report};
use crate::core::Seen;
use crate::model::Resolved;
use crate::score::{Parcel, Scored};
use crate::status::add;
use crate::{Error, PartitionStatus, clock};

impl Driver {
    pub(super) fn hear(&mut self, report: Report) -> Result<(), Error> {
        let now = clock::now();
        match report {
            Report::Scored(scored) => self.scored(*scored),
            Report::Lasting { generation, tickets } => {
                let mut taken = std::mem::take(&mut self.state.taken);
                self.core.acked(generation, &tickets, &mut taken);
                self.settled(&mut taken);
                self.state.taken = taken;
            }
            Report::Committed { generation } => {
                let mut taken = std::mem::take(&mut self.state.taken);
                if let Some(took) = self.core.committed(generation, now, &mut taken) {
                    self.state.member = None;
                    self.meter.stages.commit.record(took);
                    add(&self.meter.counters.commits, 1);
                }
                self.settled(&mut taken);
                self.state.taken = taken;
            }
            Report::Failed { generation, error } => {
                tracing::warn!(severity = ?error.severity, "writing failed, and is begun again: {error}");
                add(&self.meter.counters.rollbacks, 1);
                self.core.failed(generation, error.severity, now);
            }
            Report::Found { part, found } => {
                if let Resolved::Stop(error) = self.models.found(part, found, now) {
                    return Err(error);
                }
            }
            Report::Restored { number, restored } => self.restored(number, restored)?,
            Report::NotRestored { task, error } => self.not_restored(*task, error, now),
            Report::Stop(error) => return Err(error),
            Report::Wake | Report::Ended => {}
        }
        Ok(())
    }

    fn scored(&mut self, scored: Scored) {
        let now = clock::now();
        let Scored { worker, part, done, again, trouble, stop, n_answered } = scored;
        self.core.freed(worker);
        self.core.succeeded(part, n_answered);
        for (ticket, parcel) in done {
            self.finish(ticket, parcel);
        }
        if let Some(trouble) = trouble {
            tracing::warn!(n_records = again.len(), "records are tried again: {trouble}");
            self.core.again(part, again, now);
        }
        for (ticket, error) in stop {
            self.core.bar(ticket);
            self.fail(error, now);
        }
    }

    pub(super) fn finish(&mut self, ticket: crate::core::Ticket, parcel: Parcel) {
        let n_outputs = u32::try_from(parcel.outputs.len()).unwrap_or(u32::MAX);
        let n_bytes = parcel.outputs.iter().map(salver_records::Outgoing::n_bytes).sum();
        self.core.finish(ticket, n_outputs, n_bytes, parcel);
    }

    /// Counts records that are done.
    fn settled(&self, taken: &mut Vec<std::time::Instant>) {
        let now = clock::now();
        add(&self.meter.counters.records_done, taken.len());
        for alike in taken.chunk_by(|a, b| a == b) {
            let took = alike.first().map_or(Duration::ZERO, |taken| now.saturating_duration_since(*taken));
            self.meter.stages.total.record_n(took, u64::try_from(alike.len()).unwrap_or(u64::MAX));
        }
        taken.clear();
    }
}

/// One partition as others see it.
pub(super) fn partition(
    seen: &Seen,
    places: &HashMap<Slot, Arc<Partition>>,
    ends: &HashMap<Slot, i64>,
    now_ms: i64,
) -> PartitionStatus {
    let lag = lag(ends.get(&seen.slot).copied(), seen.committed);
    let age = |timestamp: i64| u64::try_from(now_ms.saturating_sub(timestamp)).unwrap_or(0);
    let is_behind = lag.unwrap_or(0) > 0 || seen.n_in_flight > 0;
    let lag_time = match (is_behind, seen.timestamp_ms) {
        (false, _) => Some(Duration::ZERO),
        (true, timestamp) => timestamp.map(|timestamp| Duration::from_millis(age(timestamp))),
    };
    PartitionStatus {
        partition: place(places, seen.slot),
        committed: seen.committed,
        read: seen.read,
        lag,
        lag_time,
        in_flight: seen.n_in_flight,
        is_paused: seen.is_paused,
        is_ended: seen.is_ended,
        is_restoring: false,
    }
}

pub(super) fn place(places: &HashMap<Slot, Arc<Partition>>, slot: Slot) -> Partition {
    let unknown = || Partition { topic: "unknown".into(), number: -1 };
    places.get(&slot).map_or_else(unknown, |partition| (**partition).clone())
}

/// Records between what is committed and the newest.
pub(super) fn lag(end: Option<i64>, committed: Option<i64>) -> Option<u64> {
    let lag = end?.saturating_sub(committed?);
    Some(u64::try_from(lag).unwrap_or(0))
}
