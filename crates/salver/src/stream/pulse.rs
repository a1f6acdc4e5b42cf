//! How a pipeline fares, for people, probes and scrapers: kept by the thread that looks at it.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use prometheus::Registry;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use salver_lifecycle::Clock;
use salver_stream::{Class, Handle, Policy, Status, Times};
use tracing::info;

use super::config::Config;
use super::metrics::{PeerMetrics, StreamMetrics, Watched, outcomes};
use super::model::Answering;
use super::monitor::{self, Health};
use super::view::{Beside, Figures, Outcome};
use super::wiring::Whole;
use crate::metrics::ModelMetrics;
use crate::serve::seconds_since_1970;
use crate::telemetry::ProcessMetrics;

/// A pipeline whose driver does not move for so long hangs.
const HANGS_AFTER: Duration = Duration::from_secs(60);

/// Times of the last so many looks are what a person is shown.
const SHOWN_OVER: Duration = Duration::from_secs(10);

/// A pipeline, looked at from time to time.
pub(super) struct Pulse {
    handle: Handle,
    seen: Mutex<Seen>,
    /// Nobody wakes it; what waits here waits for time to pass.
    never: Condvar,
    clock: Arc<dyn Clock>,
}

impl fmt::Debug for Pulse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pulse").field("handle", &self.handle).finish_non_exhaustive()
    }
}

struct Seen {
    /// When the driver was last seen to have moved, and what it had said then: the time since its last commit is another
    /// each time it says so.
    moved: (Instant, Duration),
    /// Times as they were a while ago, and the last ones.
    earlier: (Instant, Times),
    last: Times,
}

impl Pulse {
    pub(super) fn new(handle: Handle, clock: Arc<dyn Clock>) -> Pulse {
        let (now, status) = (clock.now(), handle.status());
        let total = status.stages.total;
        let seen = Seen { moved: (now, status.commit_age), earlier: (now, total.clone()), last: total };
        Pulse { handle, seen: Mutex::new(seen), never: Condvar::new(), clock }
    }

    /// Looks, and gives what a person is shown.
    pub(super) fn look(&self, whole: &Whole) -> Figures {
        let (now, status) = (self.clock.now(), self.handle.status());
        let mut seen = self.lock();
        if status.commit_age != seen.moved.1 {
            seen.moved = (now, status.commit_age);
        }
        if now.saturating_duration_since(seen.earlier.0) >= SHOWN_OVER {
            seen.earlier = (now, seen.last.clone());
        }
        seen.last = status.stages.total.clone();
        let lately = status.stages.total.since(&seen.earlier.1);
        let times = if lately.n() > 0 { &lately } else { &status.stages.total };
        Figures { progress: whole.progress(&status), ..figures(&status, times) }
    }

    /// Lets time pass.
    pub(super) fn wait(&self, time: Duration) {
        drop(self.never.wait_timeout(self.lock(), time));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a status says to people; `times` are those of the records that are meant.
fn figures(status: &Status, times: &Times) -> Figures {
    let counts = &status.counts;
    let sum =
        |of: fn(&salver_stream::RefusedCounts) -> u64| status.refused.iter().map(|(_, n)| of(n)).sum::<u64>();
    let lags: Vec<_> = status.partitions.iter().filter_map(|partition| partition.lag).collect();
    let quantile = |share| (times.n() > 0).then(|| times.quantile(share));
    Figures {
        n_read: counts.records_in,
        n_done: counts.records_done,
        n_answered: counts.records_out,
        n_dead: sum(|n| n.dead),
        n_dropped: counts.filtered + counts.gathering + sum(|n| n.skipped),
        lag: (!lags.is_empty()).then(|| lags.iter().sum()),
        lag_time: status.partitions.iter().filter_map(|partition| partition.lag_time).max(),
        n_calls: counts.calls,
        n_rows: counts.rows,
        p50: quantile(0.5),
        p99: quantile(0.99),
        progress: None,
    }
}

/// What came of a run that ended so.
pub(super) fn outcome(config: &Config, status: &Status, took: Duration) -> Outcome {
    let mut reasons = vec![
        ("filtered".to_owned(), status.counts.filtered),
        ("gathering".to_owned(), status.counts.gathering),
    ];
    for (class, counts) in &status.refused {
        for (what, n) in outcomes(counts) {
            let is_usual = (*class, what) == (Class::Tombstone, "passed")
                || config.pipeline.on.of(*class) == Policy::Dead;
            let name = if is_usual { class.to_string() } else { format!("{class} ({what})") };
            reasons.push((name, n));
        }
    }
    let ids = status.model.iter().chain(&status.canary);
    Outcome {
        figures: figures(status, &status.stages.total),
        took,
        to: config.to.to_string(),
        dead: config.dead.as_ref().map(ToString::to_string),
        reasons,
        models: ids.map(|id| format!("{} version {}", id.name, id.version)).collect(),
        shadow: config.shadow_to.as_ref().map(|place| Beside {
            to: place.to_string(),
            n_answered: status.counts.shadow_scored,
            n_dropped: status.counts.shadow_dropped,
            n_failed: status.counts.shadow_failed,
        }),
    }
}

/// What the port knows, from the start of the process on.
#[derive(Debug, Default)]
pub(super) struct Front {
    registry: Registry,
    /// Once the pipeline runs.
    pulse: OnceLock<Arc<Pulse>>,
}

impl Front {
    /// Opens the port.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub(super) fn open(address: SocketAddr) -> anyhow::Result<Arc<Front>> {
        let front = Arc::new(Front::default());
        front.registry.register(Box::new(ProcessMetrics::new(seconds_since_1970())?))?;
        let health = Arc::clone(&front) as Arc<dyn Health>;
        let address = monitor::start(address, front.registry.clone(), health)?;
        info!("metrics at http://{address}/metrics");
        Ok(front)
    }

    /// Adds what answers and the pipeline that asks it.
    ///
    /// # Errors
    /// Never in practice: names are used once.
    pub(super) fn add(&self, answering: &Answering, pulse: &Arc<Pulse>) -> anyhow::Result<()> {
        let mut all: Vec<Box<dyn Collector>> =
            vec![Box::new(StreamMetrics::new(Arc::clone(pulse) as Arc<dyn Watched>))];
        match answering {
            Answering::Here { embedded, .. } => {
                all.push(Box::new(ModelMetrics::new(embedded.servables.clone())))
            }
            Answering::There { peers, .. } => all.push(Box::new(PeerMetrics::new(Arc::clone(peers)))),
        }
        self.registry.register(Box::new(Together(all)))?;
        drop(self.pulse.set(Arc::clone(pulse)));
        Ok(())
    }
}

/// Several collectors that say nothing of their names, of which a registry takes one.
struct Together(Vec<Box<dyn Collector>>);

impl Collector for Together {
    fn desc(&self) -> Vec<&Desc> {
        Vec::new()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.0.iter().flat_map(|one| one.collect()).collect()
    }
}

impl Health for Front {
    fn live(&self) -> Result<String, String> {
        self.pulse.get().map_or_else(|| Ok("live".to_owned()), |pulse| pulse.live())
    }

    fn ready(&self) -> Result<String, String> {
        let coming = || Err("the model is not there yet".to_owned());
        self.pulse.get().map_or_else(coming, |pulse| pulse.ready())
    }
}

impl Watched for Pulse {
    fn status(&self) -> Status {
        self.handle.status()
    }
}

impl Pulse {
    fn live(&self) -> Result<String, String> {
        let still_for = self.clock.now().saturating_duration_since(self.lock().moved.0);
        if still_for >= HANGS_AFTER {
            return Err(format!("nothing has moved for {} s", still_for.as_secs()));
        }
        Ok("live".to_owned())
    }

    fn ready(&self) -> Result<String, String> {
        let status = self.handle.status();
        // A member of a group that has more members than partitions waits for its turn: nothing is wrong with it.
        let has_none = status.partitions.is_empty() && status.n_restoring == 0;
        let is_idle = status.counts.rebalances > 0 && has_none && status.model.is_some();
        match (&status.model, status.is_ready || is_idle) {
            (_, true) => Ok(format!("ready, {} partitions", status.partitions.len())),
            (None, false) => Err("no version of the model answers".to_owned()),
            (_, false) if status.n_restoring > 0 => {
                Err(format!("the windows of {} partitions are being restored", status.n_restoring))
            }
            (Some(_), false) => Err("the source cannot be read, or records cannot be written".to_owned()),
        }
    }
}
