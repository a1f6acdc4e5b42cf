//! What the loaded models say of themselves, put into metrics at each scrape.

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{GaugeVec, IntCounterVec, IntGaugeVec, Opts};
use salver_servable::{Servables, VersionSnapshot};

const VERSION_LABELS: [&str; 2] = ["model_name", "version"];

/// Reads every number from the models when it is asked: nothing is counted twice.
#[derive(Debug)]
pub(crate) struct ModelMetrics {
    servables: Servables,
}

impl ModelMetrics {
    pub(crate) fn new(servables: Servables) -> ModelMetrics {
        ModelMetrics { servables }
    }
}

/// The families of one scrape.
struct Families {
    state: IntGaugeVec,
    bytes: IntGaugeVec,
    load_seconds: GaugeVec,
    queue: IntGaugeVec,
    queue_bytes: IntGaugeVec,
    running: IntGaugeVec,
    runs: IntCounterVec,
    tasks_dropped: IntCounterVec,
    filler_rows: IntCounterVec,
}

impl Families {
    fn new() -> prometheus::Result<Families> {
        let gauge = |name: &str, help: &str, labels: &[&str]| IntGaugeVec::new(Opts::new(name, help), labels);
        let counter =
            |name: &str, help: &str, labels: &[&str]| IntCounterVec::new(Opts::new(name, help), labels);
        let [model, version] = VERSION_LABELS;
        Ok(Families {
            state: gauge(
                "salver_model_state",
                "1 for the state that a version is in: START, LOADING, AVAILABLE, UNLOADING or END.",
                &[model, version, "state"],
            )?,
            bytes: gauge(
                "salver_model_bytes",
                "Bytes that a version's weights take, about.",
                &VERSION_LABELS,
            )?,
            load_seconds: GaugeVec::new(
                Opts::new(
                    "salver_model_load_seconds",
                    "Time that the load of a version took, warm-up included.",
                ),
                &VERSION_LABELS,
            )?,
            queue: gauge(
                "salver_queue_depth",
                "Requests that wait for a lane of a version.",
                &VERSION_LABELS,
            )?,
            queue_bytes: gauge(
                "salver_queue_bytes",
                "Bytes of the inputs that wait for a lane.",
                &VERSION_LABELS,
            )?,
            running: gauge(
                "salver_running",
                "Requests that the lanes of a version run now.",
                &VERSION_LABELS,
            )?,
            runs: counter(
                "salver_runs_total",
                "Runs of a version: on a lane (a batch counts once), or inline on the thread that decoded the request.",
                &[model, version, "where"],
            )?,
            tasks_dropped: counter(
                "salver_requests_dropped_total",
                "Requests not run: the queue was full, the deadline had passed, or the caller had left.",
                &[model, version, "reason"],
            )?,
            filler_rows: counter(
                "salver_batch_filler_rows_total",
                "Rows added to reach an allowed batch size.",
                &VERSION_LABELS,
            )?,
        })
    }

    fn add(&self, snapshot: &VersionSnapshot) {
        let version = snapshot.id.version.to_string();
        let labels = [snapshot.id.name.as_str(), version.as_str()];
        let with = |last| [labels[0], labels[1], last];
        self.state.with_label_values(&with(snapshot.state.name())).set(1);
        let Some(servable) = &snapshot.servable else { return };
        let lanes = &servable.lanes;
        self.bytes.with_label_values(&labels).set(gauge(servable.info.n_bytes));
        self.load_seconds.with_label_values(&labels).set(servable.info.load_time.as_secs_f64());
        self.queue.with_label_values(&labels).set(gauge(lanes.n_waiting as u64));
        self.queue_bytes.with_label_values(&labels).set(gauge(lanes.n_waiting_bytes as u64));
        self.running.with_label_values(&labels).set(gauge(lanes.n_running as u64));
        self.runs.with_label_values(&with("lane")).inc_by(lanes.n_lane_runs);
        self.runs.with_label_values(&with("inline")).inc_by(lanes.n_inline_runs);
        self.tasks_dropped.with_label_values(&with("queue_full")).inc_by(lanes.n_refused);
        self.tasks_dropped.with_label_values(&with("deadline")).inc_by(lanes.n_expired);
        self.tasks_dropped.with_label_values(&with("cancelled")).inc_by(lanes.n_cancelled);
        self.filler_rows.with_label_values(&labels).inc_by(lanes.n_filler_rows);
    }

    fn collectors(&self) -> [&dyn Collector; 9] {
        [
            &self.state,
            &self.bytes,
            &self.load_seconds,
            &self.queue,
            &self.queue_bytes,
            &self.running,
            &self.runs,
            &self.tasks_dropped,
            &self.filler_rows,
        ]
    }
}

fn gauge(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

impl Collector for ModelMetrics {
    /// None: the families depend on the models, and no other collector uses these names.
    fn desc(&self) -> Vec<&Desc> {
        Vec::new()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Ok(families) = Families::new() else { return Vec::new() };
        for snapshot in self.servables.snapshot() {
            families.add(&snapshot);
        }
        families.collectors().into_iter().flat_map(|family| family.collect()).collect()
    }
}
