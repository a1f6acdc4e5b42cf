//! What runs together, and what comes of it.

use std::sync::Mutex;

use super::*;
use crate::{Padding, Rows, Verdict};

/// A batch waits until it is full.
fn full(max: usize) -> Option<Batching> {
    batches_of(max, &[]).map(|batching| Batching { batch_timeout: SOON * 1000, ..batching })
}

/// Rows of two dimensions, both open.
fn open_signature() -> Signature {
    let spec = |name: &str| TensorSpec {
        name: name.into(),
        tensor_name: name.into(),
        dtype: DType::F32,
        dims: Dims::new(vec![None, None]),
        default: None,
    };
    Signature::new("s", "m", vec![spec("x")], vec![spec("y")])
}

fn matrix(dims: [usize; 2], elements: &[f32]) -> Tensor {
    Tensor::from_vec(Shape::new(&dims).unwrap(), elements.to_vec()).unwrap()
}

#[test]
fn a_batch_that_fails_runs_again_in_halves() {
    // Rows of each run, in order.
    let check = |guilty: &[usize], expected: &[usize]| {
        let runs = Arc::new(Mutex::new(Vec::new()));
        let model = {
            let runs = Arc::clone(&runs);
            FnModel::new(half_plus_two_signature(), move |inputs| {
                let x = inputs[0].to_slice::<f32>().unwrap();
                runs.lock().unwrap().push(x.len());
                if x.contains(&13.0) {
                    return Err(EngineError::new(ErrorKind::InvalidInput, "thirteen"));
                }
                Ok(inputs.to_vec())
            })
        };
        let (lanes, _) = start(model, config(1, full(8)));
        let pending: Vec<_> = (0..8)
            .map(|at| lanes.submit(task(&[if guilty.contains(&at) { 13.0 } else { 1.0 }])).unwrap())
            .collect();
        for (at, pending) in pending.into_iter().enumerate() {
            assert_eq!(wait(pending).is_err(), guilty.contains(&at), "task {at}");
        }
        assert_eq!(*runs.lock().unwrap(), expected, "{guilty:?}");
    };
    // While first halves are well, second halves are known to be at fault and not run as a whole.
    check(&[7], &[8, 4, 2, 1, 1]);
    check(&[0], &[8, 4, 2, 1, 1, 2, 4]);
    check(&[1, 6], &[8, 4, 2, 1, 1, 2, 4, 2, 1, 1]);
    check(&[], &[8]);
}

#[test]
fn outputs_that_are_not_rows_end_the_joining() {
    let check = |output: Tensor| {
        let model = FnModel::new(half_plus_two_signature(), move |_| Ok(vec![output.clone()]));
        let (lanes, _) = start(model, config(1, full(2)));
        let pair = [1.0, 2.0].map(|x| lanes.submit(task(&[x])).unwrap());
        for pending in pair {
            wait(pending).unwrap();
        }
        assert_eq!(lanes.stats().n_lane_runs, 3, "together, then each alone");
        // Nothing waits for others any more.
        wait(lanes.submit(task(&[3.0])).unwrap()).unwrap();
        assert_eq!(lanes.stats().n_lane_runs, 4);
    };
    check(vector(&[1.0]).reshape(Shape::scalar()).unwrap());
    check(vector(&[1.0]));
}

#[test]
fn a_task_of_many_rows_is_split() {
    let batching =
        batches_of(2, &[]).map(|batching| Batching { enable_large_batch_splitting: true, ..batching });
    let (lanes, puppet, _) = puppet(config(1, batching));
    let large = lanes.submit(task(&[1.0, 2.0, 3.0, 4.0, 5.0])).unwrap();
    for expected in [&[1.0, 2.0][..], &[3.0, 4.0], &[5.0]] {
        let run = puppet.next_run(SOON);
        assert_eq!(run.inputs(), [vector(expected)]);
        run.echo();
    }
    assert_eq!(outputs(large), [1.0, 2.0, 3.0, 4.0, 5.0]);
    assert_eq!((lanes.stats().n_split, lanes.stats().n_submitted), (1, 1));

    // A part that fails fails the task, and the rest is not run; a caller who leaves takes all parts out.
    let large = lanes.submit(task(&[1.0, 2.0, 3.0, 4.0, 5.0])).unwrap();
    puppet.next_run(SOON).reply(Err(EngineError::new(ErrorKind::InvalidInput, "no")));
    assert_eq!(wait(large).unwrap_err().to_string(), "no");
    puppet.try_next_run(Duration::ZERO).into_iter().for_each(|run| run.echo());
    let running = lanes.submit(task(&[1.0])).unwrap();
    let run = puppet.next_run(SOON);
    let large = lanes.submit(task(&[1.0, 2.0, 3.0])).unwrap();
    assert_eq!(lanes.stats().n_waiting, 2);
    drop(large);
    assert_eq!(lanes.stats().n_waiting, 0);
    run.echo();
    assert_eq!(outputs(running), [1.0]);
}

#[test]
fn rows_of_unequal_shapes_are_padded_and_cut() {
    let check = |padding: Padding, seen: &Tensor, answers: [Tensor; 2]| {
        let batching = full(2).map(|batching| Batching { padding, ..batching });
        let (model, puppet) = PuppetModel::new(open_signature());
        let (lanes, _) = start(model, config(1, batching));
        let of = |x: Tensor| lanes.submit(Task::new(0, vec![x], vec![0])).unwrap();
        let pending = [of(matrix([1, 1], &[5.0])), of(matrix([1, 3], &[1.0, 2.0, 3.0]))];
        let run = puppet.next_run(SOON);
        assert_eq!(run.inputs(), std::slice::from_ref(seen));
        run.echo();
        assert_eq!(pending.map(|pending| wait(pending).unwrap().outputs), answers.map(|y| vec![y]));
    };
    // As TensorFlow Serving does: with the first element, and outputs stay as they are.
    check(
        Padding::Longest,
        &matrix([2, 3], &[5.0, 5.0, 5.0, 1.0, 2.0, 3.0]),
        [matrix([1, 3], &[5.0, 5.0, 5.0]), matrix([1, 3], &[1.0, 2.0, 3.0])],
    );
    check(
        Padding::Buckets(vec![4]),
        &matrix([2, 4], &[5.0, 0.0, 0.0, 0.0, 1.0, 2.0, 3.0, 0.0]),
        [matrix([1, 1], &[5.0]), matrix([1, 3], &[1.0, 2.0, 3.0])],
    );
}

#[test]
fn padding_makes_no_more_bytes_than_may_wait() {
    let spec = |name: &str| TensorSpec {
        name: name.into(),
        tensor_name: name.into(),
        dtype: DType::F32,
        dims: Dims::new(vec![None, None, None]),
        default: None,
    };
    let (model, puppet) = PuppetModel::new(Signature::new("s", "m", vec![spec("x")], vec![spec("y")]));
    let mut config = config(1, full(2).map(|batching| Batching { padding: Padding::Longest, ..batching }));
    config.policy.max_queued_bytes = 2 * 4 * 99;
    let (lanes, _) = start(model, config);
    let of = |dims: [usize; 3]| {
        let x = Tensor::from_vec(Shape::new(&dims).unwrap(), vec![1f32; dims[1] * dims[2]]).unwrap();
        lanes.submit(Task::new(0, vec![x], vec![0])).unwrap()
    };
    // Together they would be two squares of 100 numbers each.
    let pair = [of([1, 10, 1]), of([1, 1, 10])];
    for dims in [[1, 10, 1], [1, 1, 10]] {
        let run = puppet.next_run(SOON);
        assert_eq!(run.inputs()[0].shape().dims(), dims);
        run.echo();
    }
    for pending in pair {
        wait(pending).unwrap();
    }
}

#[test]
fn a_fixed_dimension_of_the_buckets_size_does_not_keep_padding_in() {
    let spec = |name: &str| TensorSpec {
        name: name.into(),
        tensor_name: name.into(),
        dtype: DType::F32,
        dims: Dims::new(vec![None, None, Some(4)]),
        default: None,
    };
    let (model, puppet) = PuppetModel::new(Signature::new("s", "m", vec![spec("x")], vec![spec("y")]));
    let padding = Padding::Buckets(vec![4]);
    let (lanes, _) = start(model, config(1, full(1).map(|batching| Batching { padding, ..batching })));
    let x = Tensor::from_vec(Shape::new(&[1, 3, 4]).unwrap(), vec![1f32; 12]).unwrap();
    let pending = lanes.submit(Task::new(0, vec![x.clone()], vec![0])).unwrap();
    let run = puppet.next_run(SOON);
    assert_eq!(run.inputs()[0].shape().dims(), [1, 4, 4]);
    run.echo();
    assert_eq!(wait(pending).unwrap().outputs, [x]);
}

#[test]
fn odd_shapes_have_batches_of_their_own() {
    let (model, puppet) = PuppetModel::new(open_signature());
    let (lanes, _) = start(model, config(1, batches_of(8, &[])));
    let of = |x: Tensor| lanes.submit(Task::new(0, vec![x], vec![0])).unwrap();
    let first = of(matrix([1, 1], &[0.0]));
    let run = puppet.next_run(SOON);
    let pending = [[1, 1], [1, 2], [1, 1], [1, 2], [1, 1]].map(|dims| of(matrix(dims, &vec![7.0; dims[1]])));
    run.echo();
    for (n_rows, n_columns) in [(3, 1), (2, 2)] {
        let run = puppet.next_run(SOON);
        assert_eq!(run.inputs()[0].shape().dims(), [n_rows, n_columns]);
        run.echo();
    }
    wait(first).unwrap();
    for pending in pending {
        wait(pending).unwrap();
    }
}

#[test]
fn the_policy_changes_while_lanes_work() {
    let (lanes, puppet, _) = puppet(config(1, None));
    let first = lanes.submit(task(&[1.0])).unwrap();
    let run = puppet.next_run(SOON);
    let policy = Policy { batching: batches_of(2, &[]), ..Policy::default() };
    lanes.set_policy(policy.clone()).unwrap();
    assert_eq!(*lanes.policy(), policy);
    let pair = [2.0, 3.0].map(|x| lanes.submit(task(&[x])).unwrap());
    run.echo();
    let run = puppet.next_run(SOON);
    assert_eq!(run.inputs(), [vector(&[2.0, 3.0])]);
    run.echo();
    wait(first).unwrap();
    for pending in pair {
        wait(pending).unwrap();
    }
    let wrong = Policy { batching: batches_of(2, &[4]), ..Policy::default() };
    assert!(lanes.set_policy(wrong).is_err());
    assert_eq!(*lanes.policy(), policy, "what is wrong changes nothing");
}

/// A model of one column, by a function of all rows; each run takes as long as it has rows, in milliseconds.
fn of_rows(clock: &Arc<Hand>, f: impl Fn(&[f32]) -> Vec<f32> + Send + Sync + 'static) -> Arc<FnModel> {
    let clock = Arc::clone(clock);
    FnModel::new(half_plus_two_signature(), move |inputs| {
        let x = inputs[0].to_slice::<f32>().unwrap();
        clock.pass(Duration::from_millis(x.len() as u64));
        Ok(vec![vector(&f(&x))])
    })
}

const NOBODY: crate::CalledOff<'static> = &|| false;

type Column = fn(&[f32]) -> Vec<f32>;

fn on_trial(f: Column, batching: Option<Batching>) -> (LaneSet, Arc<Hand>) {
    let clock = Hand::new();
    (LaneSet::start(of_rows(&clock, f), config(1, batching), clock.clone()).unwrap(), clock)
}

#[test]
fn sizes_are_tried() {
    let check = |f: Column, batching: Option<Batching>, budget: u64, expected: &[usize]| {
        let (lanes, _) = on_trial(f, batching);
        let tasks = [task(&[1.0]), task(&[5.0]), task(&[2.0, 3.0])];
        let largest = lanes.try_sizes(&tasks, Duration::from_millis(budget), NOBODY).unwrap();
        assert_eq!(largest, expected.last().copied().unwrap_or(0));
        let costs = lanes.costs();
        let known = costs.iter().flat_map(|(_, costs)| costs.points()).map(|point| {
            assert_eq!(point.estimate.p50, Duration::from_millis(point.n_rows as u64));
            point.n_rows
        });
        assert_eq!(known.collect::<Vec<_>>(), expected);
    };
    let echo: Column = |x| x.to_vec();
    check(echo, batches_of(8, &[]), 10_000, &[1, 2, 4, 8]);
    check(echo, batches_of(8, &[3, 8]), 10_000, &[3, 8]);
    // Two runs of each of the first sizes, one of four rows: the next would not fit any more.
    check(echo, batches_of(8, &[]), 12, &[1, 2, 4]);
    check(echo, batches_of(1, &[]), 10_000, &[]);
    check(echo, None, 10_000, &[]);
}

#[test]
fn a_size_that_is_slower_than_its_half_does_not_end_the_trial() {
    let check = |time: fn(usize) -> u64, expected: usize| {
        let clock = Hand::new();
        let model = {
            let clock = clock.clone();
            FnModel::new(half_plus_two_signature(), move |inputs| {
                clock.pass(Duration::from_micros(time(inputs[0].shape().n_rows().unwrap())));
                Ok(inputs.to_vec())
            })
        };
        let lanes = LaneSet::start(model, config(1, batches_of(64, &[])), clock.clone()).unwrap();
        let tasks = [task(&[1.0]), task(&[5.0])];
        assert_eq!(lanes.try_sizes(&tasks, SOON, NOBODY).unwrap(), expected);
    };
    // One row is multiplied by other means than several.
    check(|n| if n == 1 { 500 } else { 2000 + 10 * n as u64 }, 64);
    check(|n| 100 * (n * n) as u64, 8);
}

#[test]
fn rows_that_depend_on_others_are_found() {
    let check = |f: Column, tasks: &[Task], expected: Rows| {
        let verdict = match expected {
            Rows::Independent => Verdict::Independent,
            Rows::Dependent(_) => Verdict::Never,
            Rows::Unknown(_) => Verdict::Unknown,
        };
        // The policy may come to join later what it does not join now.
        for batching in [batches_of(8, &[]), batches_of(1, &[]), None] {
            let (lanes, _) = on_trial(f, batching);
            assert_eq!(lanes.check_rows(tasks, NOBODY).unwrap(), expected);
            assert_eq!(lanes.verdict(0), verdict);
            lanes.set_policy(Policy { batching: batches_of(8, &[]), ..(*lanes.policy()).clone() }).unwrap();
            let done = wait(lanes.submit(task(&[1.0; 8])).unwrap()).unwrap();
            assert_eq!(done.batch_size == 8, verdict != Verdict::Never, "it runs alone, as a whole");
            assert_eq!(done.outputs[0].shape().n_rows(), Some(8));
        }
    };
    let dependent =
        || Rows::Dependent("output 0 of a row is another when the row is joined with others".into());
    let unknown = |text: &str| Rows::Unknown(text.into());
    let two = [task(&[1.0]), task(&[5.0])];
    let four = [task(&[1.0]), task(&[5.0]), task(&[2.0, 3.0]), task(&[3.0]), task(&[4.0])];
    for tasks in [&two[..], &[two[1].clone(), two[0].clone()], &four] {
        check(|x| x.to_vec(), tasks, Rows::Independent);
        check(
            |x| x.iter().map(|own| own - x.iter().sum::<f32>() / x.len() as f32).collect(),
            tasks,
            dependent(),
        );
        check(|x| vec![x.iter().copied().fold(0.0, f32::max); x.len()], tasks, dependent());
        check(|x| x.iter().map(|own| own + x.len() as f32).collect(), tasks, dependent());
        let sums: Column = |x| (0..x.len()).map(|at| x[..=at].iter().sum()).collect();
        check(sums, tasks, dependent());
        let sums: Column = |x| (0..x.len()).map(|at| x[at..].iter().sum()).collect();
        check(sums, tasks, dependent());
        // Kernels of other sizes round differently.
        check(
            |x| x.iter().map(|own| own + if x.len() > 1 { 0.01 } else { 0.0 }).collect(),
            tasks,
            Rows::Independent,
        );
        check(|x| vec![7.0; x.len()], tasks, unknown("different rows were all answered alike"));
    }
    check(|x| x.to_vec(), &two[..1], unknown("no two different rows could be joined"));
    check(|x| x.to_vec(), &[task(&[1.0]), task(&[1.0])], unknown("no two different rows could be joined"));
    let (lanes, _) = on_trial(|_| vec![1.0], None);
    let text = "output 0 of 2 joined rows has the shape [1]";
    assert_eq!(lanes.check_rows(&two, NOBODY).unwrap(), Rows::Dependent(text.into()));
}

#[test]
fn what_could_not_be_checked_is_joined_only_if_that_is_asked_for() {
    let check = |joins_unchecked: bool, n_joined: usize| {
        let batching = batches_of(8, &[]).map(|batching| Batching { joins_unchecked, ..batching });
        let (lanes, _) = on_trial(|x| x.to_vec(), batching);
        let sized = |n: usize| wait(lanes.submit(task(&vec![1.0; n])).unwrap()).unwrap().batch_size;
        assert_eq!(sized(8), n_joined);
        // Rows that are not joined are not counted either.
        assert_eq!(lanes.submit(task(&[1.0; 9])).is_err(), joins_unchecked);
        lanes.check_rows(&[task(&[1.0]), task(&[2.0])], NOBODY).unwrap();
        assert_eq!(sized(8), 8);
    };
    check(true, 8);
    check(false, 1);
}

#[test]
fn rows_that_cannot_run_alone_say_nothing_of_joining() {
    let model = FnModel::new(half_plus_two_signature(), |inputs| {
        let x = inputs[0].to_slice::<f32>().unwrap();
        match x.iter().find(|&&x| x == 13.0 || (x == 7.0 && inputs[0].shape().n_rows() != Some(1))) {
            Some(x) => Err(EngineError::new(ErrorKind::InvalidInput, format!("{x}"))),
            None => Ok(inputs.to_vec()),
        }
    });
    let (lanes, _) = start(model, config(1, batches_of(8, &[])));
    let error = lanes.check_rows(&[task(&[1.0]), task(&[13.0])], NOBODY).unwrap_err();
    assert_eq!((error.to_string(), lanes.verdict(0)), ("13".to_owned(), Verdict::Unknown));
    let refused = lanes.check_rows(&[task(&[1.0]), task(&[7.0])], NOBODY).unwrap();
    assert_eq!(refused, Rows::Dependent("joined rows are refused: 7".to_owned()));
}

#[test]
fn a_trial_takes_turns_with_other_models_and_can_be_called_off() {
    let cores = Cores::new(NonZeroUsize::MIN);
    let (model, puppet) = PuppetModel::new(half_plus_two_signature());
    let shared = |batching| Config { cores: Some(cores.clone()), ..config(1, batching) };
    let clock: Arc<dyn Clock> = {
        #[expect(clippy::disallowed_methods, reason = "threads are waited for by the machine's time")]
        let now = Instant::now;
        Arc::new(now)
    };
    let busy = LaneSet::start(model, shared(None), clock.clone()).unwrap();
    let running = busy.submit(task(&[1.0])).unwrap();
    let run = puppet.next_run(SOON);
    let n_runs = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&n_runs);
    let model = FnModel::new(half_plus_two_signature(), move |inputs| {
        counted.fetch_add(1, Ordering::SeqCst);
        Ok(inputs.to_vec())
    });
    let lanes = LaneSet::start(model, shared(batches_of(8, &[])), clock).unwrap();
    let tasks = [task(&[1.0]), task(&[2.0])];
    // It waits for the other model's run; the second time that it looks, it is called off.
    let n_looks = AtomicUsize::new(0);
    let second = || n_looks.fetch_add(1, Ordering::SeqCst) > 0;
    let rows = lanes.check_rows(&tasks, &second).unwrap();
    assert_eq!(rows, Rows::Unknown("the trial was called off".to_owned()));
    assert_eq!((n_runs.load(Ordering::SeqCst), lanes.verdict(0)), (0, Verdict::Unknown));
    run.echo();
    wait(running).unwrap();
    // Between runs as well.
    let n_looks = AtomicUsize::new(0);
    let third = || n_looks.fetch_add(1, Ordering::SeqCst) > 1;
    lanes.check_rows(&tasks, &third).unwrap();
    assert_eq!(n_runs.load(Ordering::SeqCst), 2);
    assert_eq!(lanes.check_rows(&tasks, NOBODY).unwrap(), Rows::Independent);
    assert_eq!(lanes.try_sizes(&tasks, SOON, &|| true).unwrap(), 0);
}

#[test]
fn the_first_cold_run_gives_way_to_later_ones() {
    let clock = Hand::new();
    let n_runs = AtomicU64::new(0);
    let model = {
        let clock = clock.clone();
        FnModel::new(half_plus_two_signature(), move |inputs| {
            let is_first = n_runs.fetch_add(1, Ordering::SeqCst) == 0;
            clock.pass(Duration::from_millis(if is_first { 900 } else { 100 }));
            Ok(inputs.to_vec())
        })
    };
    let lanes = LaneSet::start(model, config(1, batches_of(8, &[])), clock.clone()).unwrap();
    let p99 = || lanes.costs()[0].1.estimate(1).unwrap().p99;
    lanes.warm_up(&task(&[0.0]), NonZeroUsize::MIN).unwrap();
    assert_eq!(p99(), Duration::from_millis(900));
    lanes.check_rows(&[task(&[1.0]), task(&[2.0])], NOBODY).unwrap();
    assert_eq!(p99(), Duration::from_millis(100));
    let points = lanes.costs()[0].1.points().to_vec();
    assert_eq!(points.iter().map(|point| (point.n_rows, point.n_runs)).collect::<Vec<_>>(), [(1, 1), (2, 1)]);
}
