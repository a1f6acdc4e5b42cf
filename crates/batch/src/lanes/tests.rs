use std::sync::atomic::AtomicU64;
use std::sync::mpsc::{Receiver, sync_channel};

use salver_tensor::{DType, Dims, Shape, Signature, TensorSpec};
use salver_testkit::puppet::{FnModel, Puppet, PuppetModel, half_plus_two_signature};

use super::*;
use crate::{Batching, Cores, Done};

mod admission;
mod joining;

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
    Task::new(0, vec![vector(elements)], vec![0])
}

fn config(n_lanes: usize, batching: Option<Batching>) -> Config {
    let n_lanes = NonZeroUsize::new(n_lanes).unwrap();
    let policy = Policy { batching, inline_below: Duration::ZERO, ..Policy::default() };
    Config { n_lanes, policy, ..Config::default() }
}

fn batches_of(max: usize, allowed: &[usize]) -> Option<Batching> {
    let max_batch_size = NonZeroUsize::new(max).unwrap();
    let allowed_batch_sizes = allowed.to_vec();
    Some(Batching { max_batch_size, allowed_batch_sizes, by_cost: false, ..Batching::default() })
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
    check(|config| config.policy.max_queue = NonZeroUsize::new(2).unwrap(), 2);
    check(|config| config.policy.max_queued_bytes = 24, 3);
    // A task larger than the bound is taken when nothing else waits.
    check(|config| config.policy.max_queued_bytes = 1, 1);
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
fn signatures_without_open_rows_or_with_state_are_not_joined() {
    let spec = |name: &str, dim: Option<usize>| TensorSpec {
        name: name.into(),
        tensor_name: name.into(),
        dtype: DType::F32,
        dims: Dims::new(vec![dim]),
        default: None,
    };
    let of = |dim| Signature::new("s", "m", vec![spec("x", dim)], vec![spec("y", dim)]);
    for signature in [of(Some(1)), of(None).with_state()] {
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
    let mut config = config(1, batches_of(4, &[]));
    config.policy.inline_below = inline_below;
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
fn runs_that_nobody_can_foresee_have_lanes() {
    let model = FnModel::new(half_plus_two_signature(), |inputs| Ok(inputs.to_vec())).with_loops();
    let mut config = config(1, batches_of(4, &[]));
    config.policy.inline_below = Duration::from_secs(3600);
    let lanes = LaneSet::start(model.clone(), config, Hand::new()).unwrap();
    for _ in 0..3 {
        entered(&*model, || assert_eq!(outputs(lanes.submit(task(&[1.0])).unwrap()), [1.0]));
    }
    assert_eq!((lanes.stats().n_inline_runs, lanes.stats().n_lane_runs), (0, 3));
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

fn threads(n: usize, bound: Duration) -> Cores {
    Cores::with_bound(NonZeroUsize::new(n).unwrap(), bound)
}

/// A model whose run holds all threads, and one whose lanes have a task and wait for threads.
struct Line {
    clock: Arc<Hand>,
    cores: Cores,
    run: salver_testkit::puppet::PendingRun,
    waiting: LaneSet,
    puppet: Puppet,
    pending: Pending,
    _hanging: (LaneSet, Puppet, Pending),
}

const BOUND: Duration = Duration::from_secs(1_000_000);

fn line(deadline: Option<Duration>) -> Line {
    let (clock, cores) = (Hand::new(), threads(1, BOUND));
    let start = || {
        let (model, puppet) = PuppetModel::new(half_plus_two_signature());
        let config = Config { cores: Some(cores.clone()), ..config(2, None) };
        (LaneSet::start(model, config, clock.clone()).unwrap(), puppet)
    };
    let ((hanging, hanging_puppet), (waiting, puppet)) = (start(), start());
    let hung = hanging.submit(task(&[1.0])).unwrap();
    let run = hanging_puppet.next_run(SOON);
    let deadline = deadline.map(|deadline| clock.now() + deadline);
    let pending = waiting.submit(Task { deadline, ..task(&[2.0]) }).unwrap();
    until(|| waiting.shared.lock().n_in_line > 0);
    Line { clock, cores, run, waiting, puppet, pending, _hanging: (hanging, hanging_puppet, hung) }
}

fn until(is_true: impl Fn() -> bool) {
    while !is_true() {
        std::thread::yield_now();
    }
}

#[test]
fn a_model_that_hangs_stops_no_other() {
    let line = line(None);
    assert!(line.puppet.try_next_run(Duration::ZERO).is_none());
    line.clock.pass(BOUND);
    line.waiting.wake();
    line.puppet.next_run(SOON).echo();
    assert_eq!(outputs(line.pending), [2.0]);
    // What was written off does not count twice when it comes back.
    line.run.echo();
    let first = line.waiting.submit(task(&[3.0])).unwrap();
    let run = line.puppet.next_run(SOON);
    let second = line.waiting.submit(task(&[4.0])).unwrap();
    until(|| line.cores.n_waiting() == 1);
    assert!(line.puppet.try_next_run(Duration::ZERO).is_none());
    run.echo();
    line.puppet.next_run(SOON).echo();
    assert_eq!([first, second].map(outputs), [[3.0], [4.0]]);
}

#[test]
fn deadlines_pass_while_lanes_wait_for_threads() {
    let line = line(Some(Duration::from_secs(5)));
    line.clock.pass(Duration::from_secs(5));
    line.waiting.wake();
    assert_eq!(wait(line.pending).unwrap_err(), RunError::DeadlineExceeded);
    assert_eq!(line.waiting.stats().n_expired, 1);
    until(|| line.cores.n_waiting() == 0);
}

#[test]
#[expect(clippy::disallowed_methods, reason = "what wakes a lane here is the machine's time")]
fn a_deadline_that_comes_later_wakes_lanes_that_wait_for_threads() {
    let (cores, clock) = (threads(1, BOUND), Instant::now);
    let start = || {
        let (model, puppet) = PuppetModel::new(half_plus_two_signature());
        let config = Config { cores: Some(cores.clone()), ..config(1, None) };
        (LaneSet::start(model, config, Arc::new(clock)).unwrap(), puppet)
    };
    let ((hanging, hanging_puppet), (waiting, _puppet)) = (start(), start());
    let _hung = hanging.submit(task(&[1.0])).unwrap();
    let run = hanging_puppet.next_run(SOON);
    let _patient = waiting.submit(task(&[2.0])).unwrap();
    until(|| waiting.shared.lock().n_in_line > 0);
    let deadline = Some(clock() + Duration::from_millis(5));
    let pending = waiting.submit(Task { deadline, ..task(&[3.0]) }).unwrap();
    assert_eq!(wait(pending).unwrap_err(), RunError::DeadlineExceeded);
    drop(run);
}

#[test]
fn lanes_that_wait_for_threads_end_when_they_are_dropped() {
    let Line { waiting, pending, run, _hanging, puppet, .. } = line(None);
    let (sent, ended) = sync_channel(1);
    let thread = std::thread::spawn(move || {
        drop(waiting);
        sent.send(()).unwrap();
    });
    ended.recv_timeout(SOON).expect("the lanes end while another model's run hangs");
    thread.join().unwrap();
    assert_eq!(wait(pending).unwrap_err(), RunError::Closed);
    drop((run, puppet));
}

#[test]
fn lanes_wait_for_threads_only_as_long_as_there_is_a_task() {
    let line = line(None);
    drop(line.pending);
    until(|| line.cores.n_waiting() == 0);
    line.run.echo();
    assert_eq!(line.waiting.stats().n_cancelled, 1);
}

type Gate = (Mutex<bool>, Condvar);

/// A model whose run ends when it is let go, and then fails; says when a run has begun.
fn hanging() -> (Arc<FnModel>, Arc<Gate>, Receiver<()>) {
    let gate: Arc<Gate> = Arc::default();
    let (began, begun) = sync_channel(1);
    let held = Arc::clone(&gate);
    let model = FnModel::new(half_plus_two_signature(), move |_| {
        began.send(()).unwrap();
        drop(held.1.wait_while(held.0.lock().unwrap(), |is_open| !*is_open).unwrap());
        Err(EngineError::new(ErrorKind::Unavailable, "let go"))
    });
    (model, gate, begun)
}

fn let_go(gate: &Gate) {
    *gate.0.lock().unwrap() = true;
    gate.1.notify_all();
}

#[test]
fn runs_that_do_not_end_in_time_are_abandoned() {
    let (model, gate, begun) = hanging();
    let is_abandoned = Arc::new(Mutex::new(false));
    let model = {
        let (gate, is_abandoned) = (Arc::clone(&gate), Arc::clone(&is_abandoned));
        model.abandoned_by(move || {
            *is_abandoned.lock().unwrap() = true;
            let_go(&gate);
        })
    };
    let grace = Duration::from_secs(1_000_000);
    let (lanes, clock) = start(model, Config { unload_grace: grace, ..config(1, None) });
    let pending = lanes.submit(task(&[1.0])).unwrap();
    begun.recv_timeout(SOON).unwrap();
    let shared = Arc::clone(&lanes.shared);
    let unload = std::thread::spawn(move || drop(lanes));
    until(|| shared.lock().stopped);
    assert!(!*is_abandoned.lock().unwrap(), "not before the grace is over");
    until(|| {
        let is_abandoned = is_abandoned.lock().unwrap();
        if !*is_abandoned {
            clock.pass(grace);
            shared.wake(&shared.lock());
        }
        *is_abandoned
    });
    unload.join().unwrap();
    assert_eq!(Arc::strong_count(&shared), 2, "this test's and the answer's: the lanes have ended");
    assert_eq!(wait(pending).unwrap_err().to_string(), "let go");
}

#[test]
fn a_run_that_never_ends_does_not_keep_the_unloading() {
    let (model, gate, begun) = hanging();
    let (lanes, _) = start(model, Config { unload_grace: Duration::ZERO, ..config(1, None) });
    let pending = lanes.submit(task(&[1.0])).unwrap();
    begun.recv_timeout(SOON).unwrap();
    drop(lanes);
    let_go(&gate);
    assert_eq!(wait(pending).unwrap_err().to_string(), "let go", "the lane was left behind");
}

#[test]
fn runs_that_end_in_time_are_not_abandoned() {
    let (model, gate, begun) = hanging();
    let model = model.abandoned_by(|| panic!("not abandoned"));
    let (lanes, _) = start(model, config(1, None));
    let pending = lanes.submit(task(&[1.0])).unwrap();
    begun.recv_timeout(SOON).unwrap();
    let shared = Arc::clone(&lanes.shared);
    let unload = std::thread::spawn(move || drop(lanes));
    until(|| shared.lock().stopped);
    let_go(&gate);
    unload.join().unwrap();
    assert_eq!(wait(pending).unwrap_err().to_string(), "let go");
}

#[test]
#[cfg(target_os = "linux")]
fn pinned_lanes_of_all_models_go_round_the_processors() {
    use rustix::thread::{CpuSet, sched_getaffinity};

    let own = || {
        (0..CpuSet::MAX_CPU).filter(|&cpu| sched_getaffinity(None).unwrap().is_set(cpu)).collect::<Vec<_>>()
    };
    let allowed = own();
    let cores = threads(1, BOUND);
    let processors: Vec<usize> = (0..allowed.len() + 1)
        .map(|_| {
            let seen: Arc<Mutex<Vec<usize>>> = Arc::default();
            let sees = Arc::clone(&seen);
            let model = FnModel::new(half_plus_two_signature(), move |inputs| {
                *sees.lock().unwrap() = own();
                Ok(inputs.to_vec())
            });
            let (lanes, _) =
                start(model, Config { pinned: true, cores: Some(cores.clone()), ..config(1, None) });
            outputs(lanes.submit(task(&[1.0])).unwrap());
            let [processor] = seen.lock().unwrap()[..] else { panic!("one processor") };
            processor
        })
        .collect();
    assert_eq!(processors, [&allowed[..], &allowed[..1]].concat());
}

#[test]
fn a_short_run_does_not_wait_for_a_long_one() {
    let (cores, clock) = (threads(1, BOUND), Hand::new());
    let start = || {
        let (model, puppet) = PuppetModel::new(half_plus_two_signature());
        let config = Config { cores: Some(cores.clone()), ..config(1, None) };
        (LaneSet::start(model, config, clock.clone()).unwrap(), puppet)
    };
    let [(long, long_puppet), (short, short_puppet)] = [start(), start()];
    let learnt = short.submit(task(&[1.0])).unwrap();
    clock.pass(Duration::from_micros(100));
    short_puppet.next_run(SOON).echo();
    assert!(wait(learnt).is_ok());
    let running = long.submit(task(&[2.0])).unwrap();
    let run = long_puppet.next_run(SOON);
    let beside = short.submit(task(&[3.0])).unwrap();
    short_puppet.next_run(SOON).echo();
    assert!(wait(beside).is_ok());
    run.echo();
    assert!(wait(running).is_ok());
}
