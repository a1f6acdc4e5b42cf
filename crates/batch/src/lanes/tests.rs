use std::sync::atomic::AtomicU64;

use salver_tensor::{DType, Dims, Shape, Signature, TensorSpec};
use salver_testkit::puppet::{FnModel, Puppet, PuppetModel, half_plus_two_signature};

use super::*;
use crate::Batching;

const SOON: Duration = Duration::from_secs(20);

/// A clock that a test moves; it starts at the machine's time.
struct Hand {
    start: Instant,
    passed: AtomicU64,
}

impl Hand {
    #[expect(clippy::disallowed_methods, reason = "any moment serves as the start of a test's time")]
    fn new() -> Arc<Hand> {
        Arc::new(Hand { start: Instant::now(), passed: AtomicU64::new(0) })
    }

    fn pass(&self, time: Duration) {
        self.passed.fetch_add(time.as_nanos() as u64, Ordering::SeqCst);
    }
}

impl Clock for Hand {
    fn now(&self) -> Instant {
        self.start + Duration::from_nanos(self.passed.load(Ordering::SeqCst))
    }
}

fn vector(elements: &[f32]) -> Tensor {
    Tensor::from_vec(Shape::vector(elements.len()).unwrap(), elements.to_vec()).unwrap()
}

fn task(elements: &[f32]) -> Task {
    Task { signature: 0, inputs: vec![vector(elements)], outputs: vec![0], deadline: None }
}

fn config(n_lanes: usize, batching: Option<Batching>) -> Config {
    let n_lanes = NonZeroUsize::new(n_lanes).unwrap();
    Config { n_lanes, batching, inline_below: Duration::ZERO, ..Config::default() }
}

fn batches_of(max: usize, allowed: &[usize]) -> Option<Batching> {
    let max_batch_size = NonZeroUsize::new(max).unwrap();
    Some(Batching { max_batch_size, allowed_batch_sizes: allowed.to_vec(), ..Batching::default() })
}

fn start(model: Arc<dyn Model>, config: Config) -> (LaneSet, Arc<Hand>) {
    let clock = Hand::new();
    (LaneSet::start(model, config, clock.clone()).unwrap(), clock)
}

fn puppet(config: Config) -> (LaneSet, Puppet, Arc<Hand>) {
    let (model, puppet) = PuppetModel::new(half_plus_two_signature());
    let (lanes, clock) = start(model, config);
    (lanes, puppet, clock)
}

fn wait(pending: Pending) -> Result<Done, RunError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(SOON, pending).await.expect("an answer in time") })
}

fn outputs(pending: Pending) -> Vec<f32> {
    wait(pending).unwrap().outputs[0].to_slice::<f32>().unwrap().into_owned()
}

#[test]
fn a_lane_runs_inside_the_engine() {
    let (lanes, puppet, clock) = puppet(config(1, None));
    let first = lanes.submit(task(&[1.0])).unwrap();
    let run = puppet.next_run(SOON);
    assert!(run.is_entered());
    let second = lanes.submit(task(&[2.0])).unwrap();
    assert_eq!((lanes.stats().n_waiting, lanes.stats().n_waiting_bytes, lanes.stats().n_running), (1, 4, 1));
    clock.pass(Duration::from_millis(7));
    run.echo();
    let done = wait(first).unwrap();
    assert_eq!((done.queued, done.ran, done.batch_size), (Duration::ZERO, Duration::from_millis(7), 1));
    puppet.next_run(SOON).echo();
    let done = wait(second).unwrap();
    assert_eq!((done.queued, done.outputs), (Duration::from_millis(7), vec![vector(&[2.0])]));
}

#[test]
fn a_full_queue_refuses_at_once() {
    let check = |edit: fn(&mut Config), n_taken: usize| {
        let mut config = config(1, None);
        edit(&mut config);
        let (lanes, puppet, clock) = puppet(config);
        let first = lanes.submit(task(&[0.0])).unwrap();
        let run = puppet.next_run(SOON);
        clock.pass(Duration::from_millis(10));
        run.echo();
        wait(first).unwrap();
        let running = lanes.submit(task(&[0.0])).unwrap();
        let run = puppet.next_run(SOON);
        let taken: Vec<_> = (0..n_taken).map(|_| lanes.submit(task(&[1.0, 2.0])).unwrap()).collect();
        let Err(Refused::QueueFull { n_waiting, retry_after }) = lanes.submit(task(&[3.0])) else {
            panic!("the queue is not full");
        };
        assert_eq!((n_waiting, retry_after), (n_taken, Duration::from_millis(10) * n_taken as u32));
        assert_eq!(lanes.stats().n_refused, 1);
        drop((taken, run, running));
    };
    check(|config| config.max_queue = NonZeroUsize::new(2).unwrap(), 2);
    check(|config| config.max_queued_bytes = 24, 3);
    // A task larger than the bound is taken when nothing else waits.
    check(|config| config.max_queued_bytes = 1, 1);
}

#[test]
fn a_task_past_its_deadline_is_not_run() {
    let (lanes, puppet, clock) = puppet(config(1, None));
    let first = lanes.submit(task(&[1.0])).unwrap();
    let run = puppet.next_run(SOON);
    let deadline = clock.now() + Duration::from_millis(5);
    let late = lanes.submit(Task { deadline: Some(deadline), ..task(&[2.0]) }).unwrap();
    let last = lanes.submit(task(&[3.0])).unwrap();
    clock.pass(Duration::from_millis(5));
    run.echo();
    assert_eq!(wait(late).unwrap_err(), RunError::DeadlineExceeded);
    let next = puppet.next_run(SOON);
    assert_eq!(next.inputs(), [vector(&[3.0])]);
    next.echo();
    assert!(wait(first).is_ok() && wait(last).is_ok());
    let now = clock.now();
    let over = lanes.submit(Task { deadline: Some(now), ..task(&[4.0]) }).unwrap();
    assert_eq!(wait(over).unwrap_err(), RunError::DeadlineExceeded);
    assert_eq!(lanes.stats().n_expired, 2);
}

#[test]
fn a_task_whose_caller_left_is_not_run() {
    let (lanes, puppet, _) = puppet(config(1, None));
    let first = lanes.submit(task(&[1.0])).unwrap();
    let run = puppet.next_run(SOON);
    let left = lanes.submit(task(&[2.0])).unwrap();
    let last = lanes.submit(task(&[3.0])).unwrap();
    drop(left);
    assert_eq!((lanes.stats().n_waiting, lanes.stats().n_cancelled), (1, 1));
    run.echo();
    let next = puppet.next_run(SOON);
    assert_eq!(next.inputs(), [vector(&[3.0])]);
    next.echo();
    assert!(wait(first).is_ok() && wait(last).is_ok());
}

#[test]
fn what_queues_while_the_lane_is_busy_is_the_next_batch() {
    let (lanes, puppet, _) = puppet(config(1, batches_of(4, &[2, 4])));
    let first = lanes.submit(task(&[1.0])).unwrap();
    let run = puppet.next_run(SOON);
    assert_eq!(run.inputs(), [vector(&[1.0, 1.0])], "filled up to an allowed size");
    let rest: Vec<_> = [&[2.0][..], &[3.0, 4.0], &[5.0, 6.0]].map(|e| lanes.submit(task(e)).unwrap()).into();
    run.echo();
    assert_eq!(outputs(first), [1.0]);
    let run = puppet.next_run(SOON);
    assert_eq!(run.inputs(), [vector(&[2.0, 3.0, 4.0, 4.0])]);
    run.echo();
    puppet.next_run(SOON).echo();
    let answers: Vec<_> = rest.into_iter().map(outputs).collect();
    assert_eq!(answers, [vec![2.0], vec![3.0, 4.0], vec![5.0, 6.0]]);
    let stats = lanes.stats();
    assert_eq!(
        (stats.n_lane_runs, stats.n_filler_rows, stats.batch_sizes[..3].to_vec()),
        (3, 2, vec![1, 1, 1])
    );
}

#[test]
fn a_batch_waits_for_others_only_as_long_as_it_may() {
    let timeout = Duration::from_millis(500_000);
    let batching = batches_of(2, &[]).map(|batching| Batching { batch_timeout: timeout, ..batching });
    let (lanes, puppet, clock) = puppet(config(1, batching));
    let pair = [1.0, 2.0].map(|x| lanes.submit(task(&[x])).unwrap());
    let run = puppet.next_run(SOON);
    assert_eq!(run.inputs(), [vector(&[1.0, 2.0])]);
    run.echo();
    assert_eq!(pair.map(outputs), [[1.0], [2.0]]);
    let single = lanes.submit(task(&[3.0])).unwrap();
    clock.pass(timeout);
    lanes.wake();
    puppet.next_run(SOON).echo();
    assert_eq!(outputs(single), [3.0]);
}

#[test]
fn a_task_larger_than_a_batch_is_refused() {
    let (lanes, _puppet, _) = puppet(config(1, batches_of(2, &[])));
    let refused = lanes.submit(task(&[1.0, 2.0, 3.0])).unwrap_err();
    assert_eq!(refused.to_string(), "Task size 3 is larger than maximum input batch size 2");
}

/// A model of one column that fails at 13 and panics at 14, and reports the rows it saw at once.
fn superstitious() -> Arc<FnModel> {
    FnModel::new(half_plus_two_signature(), |inputs| {
        let x = inputs[0].to_slice::<f32>().unwrap();
        assert!(!x.contains(&14.0), "fourteen");
        if x.contains(&13.0) {
            return Err(EngineError::new(ErrorKind::InvalidInput, "thirteen"));
        }
        Ok(inputs.to_vec())
    })
}

#[test]
fn only_the_guilty_task_of_a_batch_fails() {
    let check = |guilty: f32, kind: ErrorKind, message: &str| {
        // The time-out holds the lane back until the batch is full.
        let batching = batches_of(3, &[]).map(|b| Batching { batch_timeout: SOON * 1000, ..b });
        let (lanes, _) = start(superstitious(), config(1, batching));
        let pending = [1.0, guilty, 3.0].map(|x| lanes.submit(task(&[x])).unwrap());
        let [first, second, third] = pending.map(wait);
        assert_eq!(
            (first.unwrap().outputs, third.unwrap().outputs),
            (vec![vector(&[1.0])], vec![vector(&[3.0])])
        );
        let Err(RunError::Engine(error)) = second else { panic!("{second:?}") };
        assert_eq!((error.kind(), error.to_string().as_str()), (kind, message));
        assert_eq!(lanes.stats().n_retried_batches, 1);
    };
    check(13.0, ErrorKind::InvalidInput, "thirteen");
    check(14.0, ErrorKind::Internal, "the engine panicked: fourteen");
}

#[test]
fn a_panic_fails_its_task_and_the_session_is_made_anew() {
    let (model, puppet) = PuppetModel::new(half_plus_two_signature());
    let (lanes, _) = start(model.clone(), config(1, None));
    let first = lanes.submit(task(&[1.0])).unwrap();
    puppet.next_run(SOON).panic("boom");
    assert_eq!(wait(first).unwrap_err().to_string(), "the engine panicked: boom");
    let second = lanes.submit(task(&[2.0])).unwrap();
    puppet.next_run(SOON).echo();
    assert_eq!((outputs(second), model.n_sessions()), (vec![2.0], 2));
}

#[test]
fn outputs_that_are_not_rows_are_an_error() {
    let check = |output: Tensor, expected: &str| {
        let model = FnModel::new(half_plus_two_signature(), move |_| Ok(vec![output.clone()]));
        let (lanes, _) = start(model, config(1, batches_of(2, &[])));
        let error = wait(lanes.submit(task(&[1.0])).unwrap()).unwrap_err();
        assert_eq!(error.to_string(), expected);
    };
    let scalar = vector(&[1.0]).reshape(Shape::scalar()).unwrap();
    check(scalar, "Batched output tensor has 0 dimensions");
    check(
        vector(&[1.0, 2.0]),
        "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension sizes of the input tensors",
    );
}

#[test]
fn signatures_without_open_rows_are_not_joined() {
    let fixed = |name: &str| TensorSpec {
        name: name.into(),
        tensor_name: name.into(),
        dtype: DType::F32,
        dims: Dims::new(vec![Some(1)]),
        default: None,
    };
    let signature = Signature::new("s", "m", vec![fixed("x")], vec![fixed("y")]);
    let (model, puppet) = PuppetModel::new(signature);
    let (lanes, _) = start(model, config(1, batches_of(4, &[4])));
    let pending = [1.0, 2.0].map(|x| lanes.submit(task(&[x])).unwrap());
    for x in [1.0, 2.0] {
        let run = puppet.next_run(SOON);
        assert_eq!(run.inputs(), [vector(&[x])]);
        run.echo();
    }
    assert_eq!(pending.map(outputs), [[1.0], [2.0]]);
}

/// Runs `body` on this thread as inside the engine.
fn entered(model: &dyn Model, mut body: impl FnMut() + Send) {
    model.enter(NonZeroUsize::MIN, &mut body);
}

#[test]
fn cheap_runs_are_made_where_they_are_submitted() {
    let clock = Hand::new();
    let cost = Arc::new(AtomicU64::new(3));
    let model = {
        let (clock, cost) = (clock.clone(), cost.clone());
        FnModel::new(half_plus_two_signature(), move |inputs| {
            clock.pass(Duration::from_micros(cost.load(Ordering::SeqCst)));
            Ok(inputs.to_vec())
        })
    };
    let inline_below = Duration::from_micros(50);
    let config = Config { inline_below, ..config(1, batches_of(4, &[])) };
    let lanes = LaneSet::start(model.clone(), config, clock.clone()).unwrap();
    let submit = || outputs(lanes.submit(task(&[1.0])).unwrap());
    let n_runs = || (lanes.stats().n_inline_runs, lanes.stats().n_lane_runs);

    entered(&*model, || assert_eq!(submit(), [1.0]));
    assert_eq!(n_runs(), (0, 1), "the cost is not known yet");
    assert_eq!(submit(), [1.0]);
    assert_eq!(n_runs(), (0, 2), "the thread is outside the engine");
    entered(&*model, || assert_eq!(submit(), [1.0]));
    assert_eq!(n_runs(), (1, 2));
    cost.store(60, Ordering::SeqCst);
    entered(&*model, || assert_eq!([submit(), submit()], [[1.0], [1.0]]));
    assert_eq!(n_runs(), (2, 3), "the first slow run is made here, the next is not");
    lanes.warm_up(&task(&[1.0]), NonZeroUsize::MIN).unwrap();
    entered(&*model, || assert_eq!(submit(), [1.0]));
    assert_eq!(n_runs(), (2, 4));
    cost.store(1, Ordering::SeqCst);
    lanes.warm_up(&task(&[1.0]), NonZeroUsize::MIN).unwrap();
    entered(&*model, || assert_eq!(submit(), [1.0]));
    assert_eq!(n_runs(), (3, 4), "warming up replaces the estimate");
}

#[test]
fn shutting_down_finishes_what_it_can() {
    let (lanes, puppet, clock) = puppet(config(1, None));
    let first = lanes.submit(task(&[1.0])).unwrap();
    let run = puppet.next_run(SOON);
    let second = lanes.submit(task(&[2.0])).unwrap();
    assert!(!lanes.shutdown(clock.now()));
    assert_eq!(lanes.submit(task(&[3.0])).unwrap_err(), Refused::Closed);
    assert_eq!(wait(second).unwrap_err(), RunError::Closed);
    run.echo();
    assert_eq!(outputs(first), [1.0]);
    drop(lanes);
}

#[test]
fn shutting_down_waits_within_its_grace() {
    let (lanes, puppet, clock) = puppet(config(1, None));
    let pending = [1.0, 2.0].map(|x| lanes.submit(task(&[x])).unwrap());
    std::thread::scope(|scope| {
        let shutdown = scope.spawn(|| lanes.shutdown(clock.now() + SOON));
        puppet.next_run(SOON).echo();
        puppet.next_run(SOON).echo();
        assert!(shutdown.join().unwrap());
    });
    assert_eq!(pending.map(outputs), [[1.0], [2.0]]);
}
