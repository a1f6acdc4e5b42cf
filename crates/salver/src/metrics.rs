//! What the loaded models say of themselves, put into metrics at each scrape.

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Bucket, Histogram, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{GaugeVec, IntCounterVec, IntGaugeVec, Opts};
use salver_batch::{BATCH_BUCKETS, Snapshot};
use salver_servable::{Servables, SignatureCosts, VersionSnapshot};

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
    info: IntGaugeVec,
    bytes: IntGaugeVec,
    load_seconds: GaugeVec,
    queue: IntGaugeVec,
    queue_bytes: IntGaugeVec,
    running: IntGaugeVec,
    runs: IntCounterVec,
    tasks_dropped: IntCounterVec,
    refused: IntCounterVec,
    split: IntCounterVec,
    retried: IntCounterVec,
    filler_rows: IntCounterVec,
    cost: GaugeVec,
    steady: IntGaugeVec,
    limit: IntGaugeVec,
    max_batch_size: IntGaugeVec,
    wrapped_runs: IntCounterVec,
    batch_sizes: BatchSizes,
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
            info: gauge(
                "salver_model_info",
                "1 for the engine that runs a version and the precision that it computes in.",
                &[model, version, "engine", "precision"],
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
                "Requests that waited and were not run: their deadline had passed or could not be kept any more (deadline), or \
                 their caller had left (cancelled); and those refused because the queue was full (queue_full).",
                &[model, version, "reason"],
            )?,
            refused: counter(
                "salver_requests_refused_total",
                "Requests refused at once: the queue was full (full), they would have been answered too late (late), or as many \
                 were under way as are answered in time (limited); and those that made room for others (displaced).",
                &[model, version, "reason"],
            )?,
            split: counter(
                "salver_requests_split_total",
                "Requests of more rows than a batch that were cut into several.",
                &VERSION_LABELS,
            )?,
            retried: counter(
                "salver_batches_retried_total",
                "Batches that failed and were run again in halves, so that only the request at fault fails.",
                &VERSION_LABELS,
            )?,
            filler_rows: counter(
                "salver_batch_filler_rows_total",
                "Rows added to reach an allowed batch size.",
                &VERSION_LABELS,
            )?,
            cost: GaugeVec::new(
                Opts::new(
                    "salver_batch_cost_seconds",
                    "How long a run of so many rows takes, as batches are planned by; at sizes that are powers of two.",
                ),
                &[model, version, "signature", "rows", "quantile"],
            )?,
            steady: gauge(
                "salver_cost_model_steady",
                "1 while runs can be foreseen, so that deadlines are judged by what they cost; 0 while a limit on requests under \
                 way stands in.",
                &VERSION_LABELS,
            )?,
            limit: gauge(
                "salver_concurrency_limit",
                "Requests with deadlines that may be under way while runs cannot be foreseen.",
                &VERSION_LABELS,
            )?,
            max_batch_size: gauge(
                "salver_max_batch_size",
                "Rows that are joined at most, by the settings; 1 where nothing is joined.",
                &VERSION_LABELS,
            )?,
            wrapped_runs: counter(
                ":tensorflow:serving:batching_session:wrapped_run_count",
                "Runs of batches, of all models.",
                &[],
            )?,
            batch_sizes: BatchSizes::default(),
        })
    }

    fn add(&mut self, snapshot: &VersionSnapshot) {
        let version = snapshot.id.version.to_string();
        let labels = [snapshot.id.name.as_str(), version.as_str()];
        let with = |last| [labels[0], labels[1], last];
        self.state.with_label_values(&with(snapshot.state.name())).set(1);
        let Some(servable) = &snapshot.servable else { return };
        let lanes = &servable.lanes;
        let info = [labels[0], labels[1], servable.info.engine, servable.info.precision.name()];
        self.info.with_label_values(&info).set(1);
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
        let refused = [
            ("full", lanes.n_refused),
            ("late", lanes.n_refused_late),
            ("limited", lanes.n_refused_limited),
            ("displaced", lanes.n_displaced),
        ];
        for (reason, n) in refused {
            self.refused.with_label_values(&with(reason)).inc_by(n);
        }
        self.split.with_label_values(&labels).inc_by(lanes.n_split);
        self.retried.with_label_values(&labels).inc_by(lanes.n_retried_batches);
        self.steady.with_label_values(&labels).set(i64::from(lanes.is_steady));
        self.limit.with_label_values(&labels).set(gauge(lanes.limit as u64));
        let max = servable.policy.batching.as_ref().map_or(1, |batching| batching.max_batch_size.get());
        self.max_batch_size.with_label_values(&labels).set(gauge(max as u64));
        if servable.policy.batching.is_some() {
            self.wrapped_runs.with_label_values(&[] as &[&str]).inc_by(lanes.n_lane_runs);
        }
        for costs in &servable.costs {
            self.add_costs(labels, costs);
        }
        self.batch_sizes.add(labels, lanes);
    }

    fn add_costs(&self, labels: [&str; 2], costs: &SignatureCosts) {
        // Powers of two are few, whatever sizes have run.
        for point in costs.points.iter().filter(|point| point.n_rows.is_power_of_two()) {
            let rows = point.n_rows.to_string();
            for (quantile, time) in [("0.5", point.estimate.p50), ("0.99", point.estimate.p99)] {
                let labels = [labels[0], labels[1], &costs.name, &rows, quantile];
                self.cost.with_label_values(&labels).set(time.as_secs_f64());
            }
        }
    }

    fn collectors(&self) -> [&dyn Collector; 18] {
        [
            &self.state,
            &self.info,
            &self.bytes,
            &self.load_seconds,
            &self.queue,
            &self.queue_bytes,
            &self.running,
            &self.runs,
            &self.tasks_dropped,
            &self.refused,
            &self.split,
            &self.retried,
            &self.filler_rows,
            &self.cost,
            &self.steady,
            &self.limit,
            &self.max_batch_size,
            &self.wrapped_runs,
        ]
    }
}

/// The sizes of batches that have run, counted by the lanes in buckets of powers of two.
#[derive(Debug, Default)]
struct BatchSizes {
    versions: Vec<Metric>,
    /// Of all models together, as TensorFlow Serving counts.
    all: Option<Snapshot>,
}

impl BatchSizes {
    fn add(&mut self, labels: [&str; 2], lanes: &Snapshot) {
        let label = |(name, value): (&str, &str)| {
            let mut pair = LabelPair::default();
            pair.set_name(name.to_owned());
            pair.set_value(value.to_owned());
            pair
        };
        let mut metric = Metric::from_label(VERSION_LABELS.into_iter().zip(labels).map(label).collect());
        metric.set_histogram(histogram(lanes));
        self.versions.push(metric);
        let all = self.all.get_or_insert_default();
        all.n_lane_runs += lanes.n_lane_runs;
        all.n_lane_rows += lanes.n_lane_rows;
        all.batch_sizes.iter_mut().zip(lanes.batch_sizes).for_each(|(sum, n)| *sum += n);
    }

    fn families(self) -> Vec<MetricFamily> {
        let own = family("salver_batch_size", "Rows of the batches that have run on lanes.", self.versions);
        let all = self.all.map(|all| {
            let mut metric = Metric::from_label(Vec::new());
            metric.set_histogram(histogram(&all));
            let name = ":tensorflow:serving:batching_session:processed_batch_size";
            family(name, "Rows of the batches that have run, of all models.", vec![metric])
        });
        [own].into_iter().chain(all).collect()
    }
}

fn family(name: &str, help: &str, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(MetricType::HISTOGRAM);
    family.set_metric(metrics);
    family
}

fn histogram(lanes: &Snapshot) -> Histogram {
    let mut histogram = Histogram::default();
    let mut n = 0;
    let finite = lanes.batch_sizes.iter().take(BATCH_BUCKETS - 1).enumerate();
    let buckets = finite.map(|(at, &in_bucket)| {
        n += in_bucket;
        let mut bucket = Bucket::default();
        bucket.set_upper_bound((1u64 << at) as f64);
        bucket.set_cumulative_count(n);
        bucket
    });
    histogram.set_bucket(buckets.collect());
    histogram.set_sample_count(lanes.n_lane_runs);
    histogram.set_sample_sum(lanes.n_lane_rows as f64);
    histogram
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
        let Ok(mut families) = Families::new() else { return Vec::new() };
        for snapshot in self.servables.snapshot() {
            families.add(&snapshot);
        }
        let mut all: Vec<_> = families.collectors().into_iter().flat_map(|family| family.collect()).collect();
        all.extend(families.batch_sizes.families());
        all.retain(|family| !family.get_metric().is_empty());
        all
    }
}
