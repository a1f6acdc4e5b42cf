use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use salver_engine::{DEFAULT_SIGNATURE, ErrorKind, Model, Precision, Session};
use salver_tensor::{DType, Dims, Shape, Tensor, TensorSpec};
use salver_testkit::puppet::{FnModel, half_plus_two_signature};

use super::*;
use crate::{Aim, MemoryUse, Tolerance};

/// A clock and memory that only models move.
#[derive(Debug, Default)]
struct Bench {
    micros: Mutex<u64>,
    memory: Mutex<MemoryUse>,
    n_loaded: AtomicUsize,
    most_loaded: AtomicUsize,
}

impl Meter for Bench {
    fn now(&self) -> Duration {
        Duration::from_micros(*self.micros.lock().unwrap())
    }

    fn cpu(&self) -> Duration {
        self.now() * 2
    }

    fn memory(&self) -> Option<MemoryUse> {
        Some(*self.memory.lock().unwrap())
    }
}

/// `y = x / 2 + 2 + error`, at so many microseconds a run and a row.
#[derive(Debug, Clone, Copy)]
struct Speed {
    per_run: u64,
    per_row: u64,
    error: f32,
}

const PLAIN: Speed = Speed { per_run: 0, per_row: 1_000, error: 0.0 };

/// A model that takes memory as long as it lives.
#[derive(Debug)]
struct Held {
    bench: Arc<Bench>,
    model: Arc<FnModel>,
    n_bytes: u64,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.bench.n_loaded.fetch_sub(1, Ordering::SeqCst);
        self.bench.memory.lock().unwrap().own -= self.n_bytes;
    }
}

impl Model for Held {
    fn signatures(&self) -> &[Arc<Signature>] {
        self.model.signatures()
    }

    fn session(&self) -> Result<Box<dyn Session>, salver_engine::Error> {
        self.model.session()
    }

    fn enter(&self, threads: NonZeroUsize, body: &mut (dyn FnMut() + Send)) {
        self.model.enter(threads, body);
    }

    fn is_entered(&self) -> bool {
        self.model.is_entered()
    }

    fn n_bytes(&self) -> u64 {
        self.n_bytes
    }
}

fn half_plus_two(bench: &Arc<Bench>, speed: Speed, threads: NonZeroUsize) -> Arc<FnModel> {
    let clock = Arc::clone(bench);
    FnModel::new(half_plus_two_signature(), move |inputs| {
        let x = inputs[0].to_slice::<f32>().unwrap();
        let micros = speed.per_run + speed.per_row * x.len() as u64 / threads.get() as u64;
        *clock.micros.lock().unwrap() += micros;
        let y = x.iter().map(|x| x / 2.0 + 2.0 + speed.error).collect();
        Ok(vec![Tensor::from_vec(inputs[0].shape().clone(), y).unwrap()])
    })
}

fn held(bench: &Arc<Bench>, model: Arc<FnModel>) -> Arc<dyn Model> {
    const N_BYTES: u64 = 100;
    bench.memory.lock().unwrap().own += N_BYTES;
    let n = bench.n_loaded.fetch_add(1, Ordering::SeqCst) + 1;
    bench.most_loaded.fetch_max(n, Ordering::SeqCst);
    Arc::new(Held { bench: Arc::clone(bench), model, n_bytes: N_BYTES })
}

fn candidate(bench: &Arc<Bench>, engine: &str, precision: Precision, speed: Speed) -> Candidate {
    let bench = Arc::clone(bench);
    let load = move |threads, _| Ok(held(&bench, half_plus_two(&bench, speed, threads)));
    Candidate { engine: engine.into(), precision, load: Arc::new(load) }
}

fn failing(engine: &str, message: &'static str) -> Candidate {
    let load = move |_, _| Err(salver_engine::Error::new(ErrorKind::Unsupported, message));
    Candidate { engine: engine.into(), precision: Precision::F32, load: Arc::new(load) }
}

fn n(n: usize) -> NonZeroUsize {
    NonZeroUsize::new(n).unwrap()
}

/// One lane, because lanes at the same time would move one clock twice.
fn plan() -> Plan {
    let sharings = [1, 2].map(|threads| Sharing { threads: n(threads), lanes: n(1) }).to_vec();
    let batch_sizes = vec![n(1), n(8)];
    Plan { sharings, batch_sizes, budget: Duration::from_secs(20), max_loaded_bytes: 1 << 20 }
}

fn goal(aim: Aim) -> Goal {
    Goal { aim, allowed: vec![Precision::Bf16], tolerance: Tolerance::default() }
}

fn requests(signatures: &[Arc<Signature>]) -> Result<Vec<Request>, String> {
    let request = |x: f32| {
        let x = Tensor::from_vec(Shape::vector(2).unwrap(), vec![x, x + 1.0]).unwrap();
        Request { signature: Arc::clone(signatures[0].name()), inputs: vec![x] }
    };
    Ok((0..4u8).map(|at| request(f32::from(at))).collect())
}

fn tuned(bench: &Bench, candidates: &[Candidate], plan: &Plan, goal: &Goal) -> Report {
    tune(&Job { candidates, references: &[0], plan, goal }, &requests, bench, &mut |_| {}).unwrap()
}

fn row(report: &Report, candidate: usize, threads: usize, batch: usize) -> &Measured {
    let is_it = |one: &&Measured| {
        (one.candidate, one.sharing.threads.get(), one.batch.get()) == (candidate, threads, batch)
    };
    report.measured.iter().find(is_it).unwrap()
}

#[test]
fn figures_are_those_of_the_clock() {
    let bench = Arc::new(Bench::default());
    let speed = Speed { per_run: 200, per_row: 1_000, error: 0.0 };
    let all = [candidate(&bench, "a", Precision::F32, PLAIN), candidate(&bench, "b", Precision::F32, speed)];
    let report = tuned(&bench, &all, &plan(), &goal(Aim::Balanced));
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    assert_eq!(report.measured.len(), 8, "two candidates, threads and batch sizes");
    let check = |candidate, threads, batch, run: u64, one_caller: u64| {
        let row = row(&report, candidate, threads, batch);
        let run = Duration::from_micros(run);
        assert_eq!((row.p50, row.p99), (run, run));
        assert_eq!(row.one_caller, Duration::from_micros(one_caller));
        let speed = batch as f64 / run.as_secs_f64();
        assert!((row.rows_per_second / speed - 1.0).abs() < 1e-6, "{} {speed}", row.rows_per_second);
        assert_eq!(row.cpu_per_row, run * 2 / u32::try_from(batch).unwrap());
        assert_eq!(row.footprint, Some(Footprint { model: 100, files: 0 }));
    };
    check(0, 1, 1, 1_000, 1_000);
    check(0, 2, 1, 500, 500);
    check(0, 2, 8, 4_000, 500);
    check(1, 1, 1, 1_200, 1_200);
    check(1, 2, 8, 4_200, 700);
    let choice = &report.measured[report.choice.unwrap()];
    assert_eq!((&*choice.engine, choice.sharing.threads.get(), choice.batch.get()), ("a", 2, 1));
    assert_eq!(choice.agreement.n_rows, 8);
}

#[test]
fn what_may_win_is_measured_in_more_rounds() {
    let bench = Arc::new(Bench::default());
    let slower = Speed { per_row: 2_000, ..PLAIN };
    let all = [candidate(&bench, "a", Precision::F32, PLAIN), candidate(&bench, "b", Precision::F32, slower)];
    let report = tuned(&bench, &all, &plan(), &goal(Aim::Balanced));
    assert_eq!(row(&report, 1, 1, 1).n_rounds, 1);
    assert!(row(&report, 0, 2, 1).n_rounds > 3);
    assert!(bench.now() < plan().budget * 2, "{:?}", bench.now());
}

#[test]
fn a_candidate_that_fails_is_a_row_with_its_reason() {
    let bench = Arc::new(Bench::default());
    let panics = Candidate { load: Arc::new(|_, _| panic!("no such thing")), ..failing("panics", "") };
    let other = Arc::new(Bench::default());
    let renamed = Candidate {
        load: Arc::new(move |_, _| {
            let spec = |name: &str| TensorSpec {
                name: name.into(),
                tensor_name: name.into(),
                dtype: DType::F32,
                dims: Dims::new(vec![None]),
                default: None,
            };
            let signature = Signature::new(DEFAULT_SIGNATURE, "m", vec![spec("x")], vec![spec("z")]);
            Ok(held(&other, FnModel::new(signature, |_| Ok(Vec::new()))))
        }),
        ..failing("renamed", "")
    };
    let batches_fail = {
        let bench = Arc::clone(&bench);
        let load = move |threads, _| {
            let inner = half_plus_two(&bench, Speed { per_row: 2_000, ..PLAIN }, threads);
            let model =
                FnModel::new(half_plus_two_signature(), move |inputs| match inputs[0].shape().dims() {
                    [8] => Err(salver_engine::Error::new(ErrorKind::InvalidInput, "eight is too many")),
                    _ => inner.session()?.run(0, inputs, &[0]),
                });
            Ok(held(&bench, model))
        };
        Candidate { engine: "batches".into(), precision: Precision::F32, load: Arc::new(load) }
    };
    let all = [
        candidate(&bench, "a", Precision::F32, PLAIN),
        failing("refuses", "node 'x': no such operator"),
        panics,
        renamed,
        batches_fail,
    ];
    let report = tuned(&bench, &all, &plan(), &goal(Aim::Balanced));
    let reasons: Vec<_> = report.failures.iter().map(|one| (&*one.engine, one.reason.as_str())).collect();
    assert_eq!(
        reasons[..3],
        [
            ("refuses", "node 'x': no such operator"),
            ("panics", "the engine panicked: no such thing"),
            ("renamed", "signature 'serving_default' has the outputs z, in the reference y"),
        ]
    );
    assert_eq!(reasons[3..], [("batches", "eight is too many"); 2]);
    assert_eq!(report.failures[3].batch, Some(n(8)));
    assert_eq!(report.measured.iter().filter(|one| &*one.engine == "batches").count(), 2);
    assert!(report.candidates[1].failure.is_some() && report.candidates[1].agreement.is_none());
    assert_eq!(&*report.measured[report.choice.unwrap()].engine, "a");
}

#[test]
fn answers_that_differ_are_never_chosen() {
    let bench = Arc::new(Bench::default());
    let wrong = Speed { per_row: 10, error: 0.2, ..PLAIN };
    let rough = Speed { per_row: 500, error: 0.02, ..PLAIN };
    let all = [
        candidate(&bench, "a", Precision::F32, PLAIN),
        candidate(&bench, "wrong", Precision::F32, wrong),
        candidate(&bench, "a", Precision::Bf16, rough),
        candidate(&bench, "wrong", Precision::Int8, rough),
    ];
    let report = tuned(&bench, &all, &plan(), &goal(Aim::Balanced));
    // The largest answer of the reference is 4: 3 and 4 half, and 2.
    let refusals: Vec<_> = report.candidates.iter().map(|one| one.refusal.as_deref()).collect();
    assert_eq!(refusals[0], None);
    assert!(refusals[1].unwrap().starts_with("output 'y' differs by 5.00e-2 of its scale"), "{refusals:?}");
    assert_eq!((refusals[2], refusals[3]), (None, Some("int8 was not asked for")));
    let choice = &report.measured[report.choice.unwrap()];
    assert_eq!((&*choice.engine, choice.precision), ("a", Precision::Bf16));
    assert!((choice.agreement.max_absolute() - 0.02).abs() < 1e-6);
    // The refused have their first figure and no more.
    assert_eq!(report.measured.iter().filter(|one| one.candidate == 1).count(), 1);
}

#[test]
fn what_is_far_slower_is_not_measured_further_but_the_reference_is() {
    let bench = Arc::new(Bench::default());
    let slow = Speed { per_row: 9_000, ..PLAIN };
    let slower = Speed { per_row: 10_000, ..PLAIN };
    let all = [
        candidate(&bench, "reference", Precision::F32, slow),
        candidate(&bench, "fast", Precision::F32, PLAIN),
        candidate(&bench, "slow", Precision::F32, slower),
    ];
    let report = tuned(&bench, &all, &plan(), &goal(Aim::Throughput));
    assert_eq!(report.candidates[2].times_slower, Some(10.0));
    let n_rows = |at| report.measured.iter().filter(|one| one.candidate == at).count();
    assert_eq!((n_rows(0), n_rows(1), n_rows(2)), (4, 4, 1));
}

#[test]
fn the_first_reference_that_loads_is_taken() {
    let bench = Arc::new(Bench::default());
    let all = [
        candidate(&bench, "last", Precision::F32, PLAIN),
        failing("first", "not here"),
        candidate(&bench, "second", Precision::F32, PLAIN),
    ];
    let run = |references: &[usize], requests: &Requests<'_>| {
        let job = Job { candidates: &all, references, plan: &plan(), goal: &goal(Aim::Latency) };
        tune(&job, requests, &*bench, &mut |_| {})
    };
    assert_eq!(run(&[1, 2, 0], &requests).unwrap().reference, 2);
    let check = |references: &[usize], requests: &Requests<'_>, expected: &str| {
        assert_eq!(run(references, requests).unwrap_err().to_string(), expected);
    };
    check(&[1], &requests, "no engine runs this model at f32: first: not here");
    check(&[], &requests, "no engine is here that could say what the right answers are");
    check(&[0], &|_| Err("strings".to_owned()), "strings");
    check(&[0], &|_| Ok(Vec::new()), "last answers none of the requests: there are no requests");
    let elsewhere = |signatures: &[Arc<Signature>]| {
        let all = requests(signatures)?;
        Ok(all.into_iter().map(|one| Request { signature: "other".into(), ..one }).collect())
    };
    check(&[0], &elsewhere, "last answers none of the requests: no signature 'other'");
}

#[test]
fn with_little_memory_models_are_measured_in_groups() {
    let bench = Arc::new(Bench::default());
    let all: Vec<_> = ["a", "b", "c"].map(|name| candidate(&bench, name, Precision::F32, PLAIN)).into();
    let little = Plan { max_loaded_bytes: 250, ..plan() };
    let report = tuned(&bench, &all, &little, &goal(Aim::Balanced));
    assert_eq!(report.measured.len(), 12);
    assert!(bench.most_loaded.load(Ordering::SeqCst) <= 4, "two that are kept, and two of a group");
    assert_eq!(report.notes, [GROUPS]);
    assert_eq!(bench.n_loaded.load(Ordering::SeqCst), 0, "all are let go");
}

#[test]
fn lanes_run_at_the_same_time_each_with_its_session() {
    let bench = Arc::new(Bench::default());
    let sharing = Sharing { threads: n(1), lanes: n(3) };
    let all = [candidate(&bench, "a", Precision::F32, PLAIN)];
    let plan = Plan { sharings: vec![Sharing::ONE, sharing], ..plan() };
    let report = tuned(&bench, &all, &plan, &goal(Aim::Throughput));
    let many = report.measured.iter().find(|one| one.sharing == sharing && one.batch == n(1)).unwrap();
    assert_eq!(many.one_caller, Duration::from_millis(1));
    assert!(many.n_runs >= 3 * many.n_rounds, "each lane runs in each round");
}

#[test]
fn without_time_only_the_quickest_and_the_reference_go_on() {
    let bench = Arc::new(Bench::default());
    let speeds = [3_000, 1_000, 1_500, 2_000].map(|per_row| Speed { per_row, ..PLAIN });
    let names = ["reference", "quickest", "b", "c"];
    let all: Vec<_> = names
        .iter()
        .zip(speeds)
        .map(|(name, speed)| candidate(&bench, name, Precision::F32, speed))
        .collect();
    let check = |budget: Duration, expected: [usize; 4], notes: &[&str]| {
        let report = tuned(&bench, &all, &Plan { budget, ..plan() }, &goal(Aim::Balanced));
        let n_rows = [0, 1, 2, 3].map(|at| report.measured.iter().filter(|one| one.candidate == at).count());
        assert_eq!(
            (n_rows, report.notes.iter().map(String::as_str).collect::<Vec<_>>()),
            (expected, notes.to_vec())
        );
    };
    check(Duration::from_secs(20), [4; 4], &[]);
    let note = "for lack of time not measured under all settings: b f32, c f32";
    check(Duration::from_millis(1_500), [4, 4, 1, 1], &[note]);
}

#[test]
fn a_model_is_weighed_with_all_its_lanes() {
    let bench = Arc::new(Bench::default());
    let sharing = Sharing { threads: n(1), lanes: n(2) };
    let one = candidate(&bench, "a", Precision::F32, PLAIN);
    let footprint = weigh(&one, sharing, n(8), &requests, &*bench).unwrap();
    assert_eq!(footprint, Footprint { model: 100, files: 0 });
    assert!(bench.now() >= Duration::from_millis(2 * 8), "each lane runs a batch: {:?}", bench.now());
    assert_eq!(bench.n_loaded.load(Ordering::SeqCst), 0);
    let error = weigh(&failing("b", "not here"), sharing, n(1), &requests, &*bench).unwrap_err();
    assert_eq!(error.to_string(), "not here");
}
