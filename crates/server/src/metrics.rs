//! What is measured of requests: TensorFlow Serving's metrics by their names, and this server's own.
//!
//! Looking a metric up by its labels costs more than a small model's run, so the ones that a request needs are looked
//! up once per model and once per signature of a version, and kept. They go when the version goes.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};
use salver_predict::{Code, ModelId, ModelName, ModelStatus, Phases, State, Version};
use salver_tensor::Signature;
use salver_wire::oip_grpc::{Counter, ModelCounters};
use salver_wire::status;

use crate::{Error, ErrorKind};

/// The calls that are measured one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Api {
    GrpcPredict,
    RestPredict,
    GrpcClassify,
    RestClassify,
    GrpcRegress,
    RestRegress,
    GrpcMultiInference,
    GrpcInfer,
    RestInfer,
    RestStatus,
}

impl Api {
    const N: usize = 10;

    /// TensorFlow Serving's labels: the call and where it came in.
    fn labels(self) -> (&'static str, &'static str) {
        match self {
            Api::GrpcPredict => ("Predict", "GRPC"),
            Api::RestPredict => ("predict", "REST"),
            Api::GrpcClassify => ("Classify", "GRPC"),
            Api::RestClassify => ("classify", "REST"),
            Api::GrpcRegress => ("Regress", "GRPC"),
            Api::RestRegress => ("regress", "REST"),
            Api::GrpcMultiInference => ("MultiInference", "GRPC"),
            Api::GrpcInfer => ("ModelInfer", "GRPC"),
            Api::RestInfer => ("infer", "REST"),
            Api::RestStatus => ("", "REST"),
        }
    }

    /// The label of a run, which is the same whichever way the call came in.
    fn runtime(self) -> (usize, &'static str) {
        match self {
            Api::GrpcPredict | Api::RestPredict | Api::RestStatus => (0, "Predict"),
            Api::GrpcInfer | Api::RestInfer => (1, "Infer"),
            Api::GrpcClassify | Api::RestClassify => (2, "Classify"),
            Api::GrpcRegress | Api::RestRegress => (3, "Regress"),
            Api::GrpcMultiInference => (4, "MultiInference"),
        }
    }
}

const N_CODES: usize = 17;

/// The label of a model that the server does not have.
const UNKNOWN: &str = "unknown";

#[derive(Debug)]
pub(crate) struct Metrics {
    request_count: IntCounterVec,
    request_latency: HistogramVec,
    runtime_latency: HistogramVec,
    phases: HistogramVec,
    refused: IntCounterVec,
    pub(crate) in_flight: IntGauge,
    pub(crate) bytes_in_flight: IntGauge,
    pub(crate) connections: IntGaugeVec,
    unknown: Arc<OfModel>,
    known: ArcSwap<Known>,
    /// Held while [`Metrics::known`] is replaced.
    growing: Mutex<()>,
}

/// What has been looked up.
#[derive(Debug, Default, Clone)]
struct Known {
    models: HashMap<ModelName, Arc<OfModel>>,
    signatures: HashMap<(usize, Version), Arc<OfSignature>>,
}

/// More entries than any sane server needs; beyond, what is known is forgotten and looked up again.
const MAX_KNOWN: usize = 10_000;

/// The metrics of one model.
#[derive(Debug)]
pub(crate) struct OfModel {
    name: String,
    counts: [OnceLock<IntCounter>; N_CODES],
    latencies: [OnceLock<Histogram>; Api::N],
}

/// The metrics of one signature of one version.
#[derive(Debug)]
pub(crate) struct OfSignature {
    /// Keeps the address, by which this is found, from being used again.
    signature: Arc<Signature>,
    id: ModelId,
    model: Arc<OfModel>,
    decode: Histogram,
    queue: Histogram,
    run: Histogram,
    encode: Histogram,
    runtime: Runtime,
    n_rows: AtomicU64,
}

/// The run times of one signature by the kind of call, each looked up when it first comes.
#[derive(Debug)]
struct Runtime {
    all: HistogramVec,
    platform: String,
    found: [OnceLock<Histogram>; 5],
}

impl Runtime {
    fn of(&self, model: &OfModel, api: Api) -> Option<&Histogram> {
        let (at, label) = api.runtime();
        let labels = [model.name.as_str(), label, &self.platform];
        Some(self.found.get(at)?.get_or_init(|| self.all.with_label_values(&labels)))
    }
}

/// Reasons for turning something away before any model is asked.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Refused {
    Connections,
    BodySize,
    Budget,
    Slow,
    Queue,
}

impl Refused {
    fn label(self) -> &'static str {
        match self {
            Refused::Connections => "connections",
            Refused::BodySize => "body_size",
            Refused::Budget => "bytes_in_flight",
            Refused::Slow => "slow_client",
            Refused::Queue => "queue",
        }
    }
}

/// 10 x 1.8^i microseconds, as TensorFlow Serving's.
fn microsecond_buckets() -> Vec<f64> {
    prometheus::exponential_buckets(10.0, 1.8, 33).unwrap_or_default()
}

/// 2 microseconds to 8 seconds, doubling.
fn second_buckets() -> Vec<f64> {
    prometheus::exponential_buckets(2e-6, 2.0, 23).unwrap_or_default()
}

impl Metrics {
    pub(crate) fn register(registry: &Registry) -> Result<Metrics, Error> {
        Metrics::try_register(registry)
            .map_err(|error| Error::new(ErrorKind::Metrics, "cannot register the metrics of requests", error))
    }

    fn try_register(registry: &Registry) -> prometheus::Result<Metrics> {
        fn add<C: prometheus::core::Collector + Clone + 'static>(
            registry: &Registry,
            collector: prometheus::Result<C>,
        ) -> prometheus::Result<C> {
            let collector = collector?;
            registry.register(Box::new(collector.clone()))?;
            Ok(collector)
        }
        let counter = |name: &str, help: &str, labels: &[&str]| {
            add(registry, IntCounterVec::new(Opts::new(name, help), labels))
        };
        let histogram = |name: &str, help: &str, buckets: Vec<f64>, labels: &[&str]| {
            add(registry, HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets), labels))
        };
        Ok(Metrics {
            request_count: counter(
                ":tensorflow:serving:request_count",
                "Requests by model and outcome.",
                &["model_name", "status"],
            )?,
            request_latency: histogram(
                ":tensorflow:serving:request_latency",
                "Microseconds from the head of a request to its answer, of requests that succeed.",
                microsecond_buckets(),
                &["model_name", "API", "entrypoint"],
            )?,
            runtime_latency: histogram(
                ":tensorflow:serving:runtime_latency",
                "Microseconds that the model ran, for the whole batch that a request was part of.",
                microsecond_buckets(),
                &["model_name", "API", "runtime"],
            )?,
            phases: histogram(
                "salver_request_phase_seconds",
                "Seconds that a request spent in decode, queue, run and encode.",
                second_buckets(),
                &["model_name", "version", "signature", "phase"],
            )?,
            refused: counter(
                "salver_refused_total",
                "Connections and requests turned away because a bound was reached.",
                &["reason"],
            )?,
            in_flight: add(
                registry,
                IntGauge::new("salver_requests_in_flight", "Requests being received or answered."),
            )?,
            bytes_in_flight: add(
                registry,
                IntGauge::new(
                    "salver_request_bytes_in_flight",
                    "Bytes of requests being received or answered.",
                ),
            )?,
            connections: add(
                registry,
                IntGaugeVec::new(Opts::new("salver_connections", "Open connections by worker."), &["worker"]),
            )?,
            unknown: Arc::new(OfModel::new(UNKNOWN)),
            known: ArcSwap::default(),
            growing: Mutex::new(()),
        })
    }

    pub(crate) fn refuse(&self, reason: Refused) {
        self.refused.with_label_values(&[reason.label()]).inc();
    }

    /// The metrics of a model that exists; those of `unknown` for `None`.
    pub(crate) fn of_model(&self, name: Option<&ModelName>) -> Arc<OfModel> {
        let Some(name) = name else { return Arc::clone(&self.unknown) };
        if let Some(found) = self.known.load().models.get(name) {
            return Arc::clone(found);
        }
        self.grow(|known| {
            Arc::clone(
                known.models.entry(name.clone()).or_insert_with(|| Arc::new(OfModel::new(name.as_str()))),
            )
        })
    }

    /// The metrics of a signature of a version that exists.
    pub(crate) fn of_signature(
        &self,
        id: &ModelId,
        signature: &Arc<Signature>,
        platform: &str,
    ) -> Arc<OfSignature> {
        let key = (Arc::as_ptr(signature).addr(), id.version);
        if let Some(found) = self.known.load().signatures.get(&key).filter(|found| found.id == *id) {
            return Arc::clone(found);
        }
        let model = self.of_model(Some(&id.name));
        let made = Arc::new(OfSignature::new(self, id, signature, platform, model));
        self.grow(|known| {
            known.signatures.insert(key, Arc::clone(&made));
            made
        })
    }

    fn grow<T>(&self, change: impl FnOnce(&mut Known) -> T) -> T {
        let _growing = self.growing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut known = Known::clone(&self.known.load());
        if known.models.len() + known.signatures.len() >= MAX_KNOWN {
            known = Known::default();
        }
        let made = change(&mut known);
        self.known.store(Arc::new(known));
        made
    }

    /// What was counted of one version, over all its signatures.
    pub(crate) fn counters(&self, id: &ModelId) -> ModelCounters {
        let mut sum = ModelCounters::default();
        for of in self.known.load().signatures.values().filter(|of| of.id == *id) {
            of.add_to(&mut sum);
        }
        sum
    }

    /// Forgets the metrics of versions that do not answer any more, so that they do not pile up.
    pub(crate) fn forget_gone(&self, models: &[ModelStatus]) {
        let live: HashSet<(&str, Version)> = models
            .iter()
            .flat_map(|model| model.versions.iter().map(move |version| (model, version)))
            .filter(|(_, version)| matches!(version.state, State::Available | State::Unloading))
            .map(|(model, version)| (model.name.as_str(), version.version))
            .collect();
        let is_gone = |of: &OfSignature| !live.contains(&(of.id.name.as_str(), of.id.version));
        if !self.known.load().signatures.values().any(|of| is_gone(of)) {
            return;
        }
        self.grow(|known| {
            known.signatures.retain(|_, of| {
                let gone = is_gone(of);
                if gone {
                    self.remove(of);
                }
                !gone
            });
        });
    }

    fn remove(&self, of: &OfSignature) {
        let version = of.id.version.to_string();
        for phase in PHASES {
            let labels = [of.id.name.as_str(), &version, of.signature.name(), phase];
            // Another signature of the same name and version may have gone before.
            drop(self.phases.remove_label_values(&labels));
        }
    }

    /// Counts the outcome of a request, and the latency when it was a success.
    pub(crate) fn finish(&self, model: &OfModel, api: Api, code: Code, latency: Duration) {
        model.count(self, code);
        if code == Code::Ok {
            model.latency(self, api).observe(micros(latency));
        }
    }
}

const PHASES: [&str; 4] = ["decode", "queue", "run", "encode"];

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

impl OfModel {
    fn new(name: &str) -> OfModel {
        OfModel { name: name.to_owned(), counts: Default::default(), latencies: Default::default() }
    }

    fn count(&self, metrics: &Metrics, code: Code) {
        let made = || metrics.request_count.with_label_values(&[self.name.as_str(), status::name(code)]);
        match self.counts.get(code as usize) {
            Some(slot) => slot.get_or_init(made).inc(),
            None => made().inc(),
        }
    }

    fn latency(&self, metrics: &Metrics, api: Api) -> &Histogram {
        self.latencies[api as usize].get_or_init(|| {
            let (name, entrypoint) = api.labels();
            metrics.request_latency.with_label_values(&[self.name.as_str(), name, entrypoint])
        })
    }
}

impl OfSignature {
    fn new(
        metrics: &Metrics,
        id: &ModelId,
        signature: &Arc<Signature>,
        platform: &str,
        model: Arc<OfModel>,
    ) -> OfSignature {
        let version = id.version.to_string();
        let phase =
            |phase| metrics.phases.with_label_values(&[id.name.as_str(), &version, signature.name(), phase]);
        let all = metrics.runtime_latency.clone();
        let runtime = Runtime { all, platform: platform.to_owned(), found: Default::default() };
        let [decode, queue, run, encode] = PHASES.map(phase);
        OfSignature {
            signature: Arc::clone(signature),
            id: id.clone(),
            model,
            decode,
            queue,
            run,
            encode,
            runtime,
            n_rows: AtomicU64::new(0),
        }
    }

    fn add_to(&self, sum: &mut ModelCounters) {
        let add = |counter: &mut Counter, histogram: &Histogram| {
            counter.count += histogram.get_sample_count();
            counter.total += Duration::try_from_secs_f64(histogram.get_sample_sum()).unwrap_or_default();
        };
        add(&mut sum.queue, &self.queue);
        add(&mut sum.compute_input, &self.decode);
        add(&mut sum.compute_infer, &self.run);
        add(&mut sum.compute_output, &self.encode);
        let total = sum.queue.total + sum.compute_input.total + sum.compute_infer.total;
        sum.success = Counter { count: sum.queue.count, total: total + sum.compute_output.total };
        sum.n_executions = sum.queue.count;
        sum.n_inferences += self.n_rows.load(Ordering::Relaxed);
    }

    pub(crate) fn model(&self) -> &Arc<OfModel> {
        &self.model
    }

    /// Records one answered request.
    pub(crate) fn answered(
        &self,
        api: Api,
        n_rows: usize,
        decode: Duration,
        phases: Phases,
        encode: Duration,
    ) {
        self.n_rows.fetch_add(n_rows as u64, Ordering::Relaxed);
        self.decode.observe(decode.as_secs_f64());
        self.queue.observe(phases.queue.as_secs_f64());
        self.run.observe(phases.run.as_secs_f64());
        self.encode.observe(encode.as_secs_f64());
        if let Some(runtime) = self.runtime.of(&self.model, api) {
            runtime.observe(micros(phases.run));
        }
    }
}
