use super::*;

/// What `admit` looks at beyond the tasks.
#[derive(Debug, Clone)]
struct Given {
    line: Option<Line>,
    n_lanes: usize,
    /// Milliseconds from now.
    ends: Vec<u64>,
    delay: u64,
    limit: usize,
    n_running: usize,
    queued_bytes: usize,
    bytes: usize,
    policy: Policy,
}

fn given(line: Line) -> Given {
    Given {
        line: Some(line),
        n_lanes: 1,
        ends: Vec::new(),
        delay: 0,
        limit: usize::MAX,
        n_running: 0,
        queued_bytes: 0,
        bytes: 0,
        policy: policy(Some(batching(4, 0))),
    }
}

fn admission(
    given: &Given,
    waiting: &VecDeque<Waiting<char>>,
    task: &Waiting<char>,
    turns: &Turns,
) -> Admission {
    let now = task.arrived;
    let ends: Vec<Instant> = given.ends.iter().map(|&end| now + ms(end)).collect();
    let shares = Shares::default();
    let view = View {
        n_startable: if given.delay > 0 { 0 } else { usize::MAX },
        n_bytes: given.queued_bytes,
        ends: &ends,
        delay: ms(given.delay),
        is_contended: turns.n_callers() > 1,
        ..view(waiting, given.n_lanes, &shares)
    };
    let newcomer =
        Newcomer { task, n_bytes: given.bytes, limit: given.limit, n_running: given.n_running, turns };
    let forecast: &dyn Forecast = given.line.as_ref().map_or(&Unknown, |line| line);
    admit(now, &view, &newcomer, forecast, &given.policy)
}

fn late(retry_after: u64) -> Admission {
    Admission::Refuse(Why::Late { retry_after: ms(retry_after) })
}

#[test]
fn what_would_be_late_is_refused() {
    let t0 = start();
    let check = |given: &Given, tasks: &[(char, usize, u64, Option<u64>)], deadline, expected: Admission| {
        let newcomer = task(t0, 'a', 1, 0, deadline);
        let found = admission(given, &queue(t0, tasks), &newcomer, &Turns::default());
        assert_eq!(found, expected, "{given:?} {tasks:?} {deadline:?}");
    };
    let line = Line::new(10, 1);
    let free = given(line);
    check(&free, &[], None, Admission::Take);
    check(&free, &[], Some(11), Admission::Take);
    check(&free, &[], Some(10), late(1));
    check(&Given { line: None, ..free.clone() }, &[], Some(1), Admission::Take);
    // After what runs.
    let busy = Given { ends: vec![7], ..free.clone() };
    check(&busy, &[], Some(18), Admission::Take);
    check(&busy, &[], Some(16), late(2));
    // With what waits before it: four rows are a batch, and it is part of the last.
    let four = [('a', 1, 0, Some(20)); 4];
    check(&busy, &four, Some(7 + 14 + 14), Admission::Take);
    check(&busy, &four, Some(7 + 14 + 13), late(1));
    // The last batch grows until it starts, by as much as it has grown so far.
    let one = [('a', 1, 0, Some(9))];
    check(&busy, &one, Some(7 + 13), Admission::Take);
    check(&busy, &one, Some(7 + 12), late(1));
    check(&busy, &four[..3], Some(7 + 14), Admission::Take);
    // What waits for longer is served after it.
    check(&busy, &[('a', 1, 0, Some(90)); 9], Some(18), Admission::Take);
    // Other keys run apart.
    check(&busy, &[('b', 1, 0, Some(9)), ('-', 1, 0, Some(9))], Some(7 + 11 + 11 + 11), Admission::Take);
    check(&busy, &[('b', 1, 0, Some(9)), ('-', 1, 0, Some(9))], Some(7 + 11 + 11 + 9), late(2));
    // Several lanes share the work.
    let two = Given { n_lanes: 2, ends: vec![7, 9], ..free.clone() };
    check(&two, &[('b', 4, 0, Some(9)); 2], Some((16 + 28) / 2 + 11), Admission::Take);
    // A lane that is free need not wait for others.
    let half = Given { n_lanes: 2, ends: vec![900], ..free.clone() };
    check(&half, &[], Some(11), Admission::Take);
    // Threads are waited for, where there are none.
    check(&Given { delay: 5, ..free.clone() }, &[], Some(15), late(1));
    // All of it only where it is wanted.
    let patient = Policy { refuses_early: false, ..free.policy.clone() };
    check(&Given { policy: patient, ..free.clone() }, &[], Some(1), Admission::Take);
}

#[test]
fn the_last_run_counts_by_its_99th_percentile() {
    let t0 = start();
    let check = |spread, deadline, expected: Admission| {
        let given = Given { ends: vec![20], ..given(Line { spread, ..Line::new(9, 1) }) };
        let newcomer = task(t0, 'a', 1, 0, Some(deadline));
        assert_eq!(
            admission(&given, &VecDeque::new(), &newcomer, &Turns::default()),
            expected,
            "{spread} {deadline}"
        );
    };
    check(1, 30, Admission::Take);
    check(2, 40, Admission::Take);
    check(2, 39, late(1));
    // It is no reason to refuse that now and then a run takes longer than a task has: half of its time is for waiting.
    check(10, 40, Admission::Take);
    check(10, 39, late(1));
}

#[test]
fn without_batches_each_task_counts_by_itself() {
    let t0 = start();
    let given = Given { policy: policy(None), ..given(Line::new(10, 0)) };
    let waiting = queue(t0, &[('-', 1, 0, Some(20)), ('-', 1, 0, Some(20))]);
    let check = |deadline, expected: Admission| {
        let newcomer = task(t0, '-', 1, 0, Some(deadline));
        assert_eq!(admission(&given, &waiting, &newcomer, &Turns::default()), expected);
    };
    check(30, Admission::Take);
    check(29, late(1));
}

#[test]
fn a_full_queue_refuses() {
    let t0 = start();
    let check = |n_waiting, queued_bytes, bytes, expected: Admission| {
        let bounds =
            Policy { max_queue: NonZeroUsize::new(3).unwrap(), max_queued_bytes: 100, ..policy(None) };
        let given = Given { queued_bytes, bytes, policy: bounds, ..given(Line::new(5, 0)) };
        let (waiting, newcomer) = (queue(t0, &vec![('a', 1, 0, None); n_waiting]), task(t0, 'a', 1, 0, None));
        assert_eq!(
            admission(&given, &waiting, &newcomer, &Turns::default()),
            expected,
            "{n_waiting} {bytes}"
        );
    };
    let full = |retry_after| Admission::Refuse(Why::Full { retry_after: ms(retry_after) });
    check(2, 50, 50, Admission::Take);
    check(3, 50, 50, full(15));
    check(2, 50, 51, full(10));
    check(0, 0, 500, Admission::Take);
}

#[test]
fn runs_that_cannot_be_foreseen_are_limited_in_number() {
    let t0 = start();
    let check = |n_waiting, n_running, deadline, expected: Admission| {
        let line = Line { is_steady: false, ..Line::new(5, 0) };
        let given = Given { limit: 4, n_running, policy: policy(None), ..given(line) };
        let (waiting, newcomer) =
            (queue(t0, &vec![('-', 1, 0, None); n_waiting]), task(t0, '-', 1, 0, deadline));
        assert_eq!(
            admission(&given, &waiting, &newcomer, &Turns::default()),
            expected,
            "{n_waiting} {n_running}"
        );
    };
    check(2, 1, Some(1), Admission::Take);
    check(2, 2, Some(1), Admission::Refuse(Why::Limited { retry_after: ms(10) }));
    check(0, 4, Some(1), Admission::Refuse(Why::Limited { retry_after: ms(1) }));
    // One without a deadline is never late.
    check(2, 2, None, Admission::Take);
}

#[test]
fn a_full_queue_makes_room_for_what_is_more_urgent() {
    let t0 = start();
    let check = |waiting: &[u8], priority, expected: Admission| {
        let bounds = Policy { max_queue: NonZeroUsize::new(3).unwrap(), ..policy(None) };
        let mut tasks = queue(t0, &vec![('a', 1, 0, None); waiting.len()]);
        tasks.iter_mut().zip(waiting).for_each(|(task, &priority)| task.priority = priority);
        let newcomer = Waiting { priority, ..task(t0, 'a', 1, 0, None) };
        let given = Given { line: None, policy: bounds, ..given(Line::new(5, 0)) };
        assert_eq!(
            admission(&given, &tasks, &newcomer, &Turns::default()),
            expected,
            "{waiting:?} {priority}"
        );
    };
    let why = Why::Full { retry_after: ms(1) };
    check(&[9, 9, 5], 6, Admission::Displace(1, why));
    check(&[9, 9, 5], 9, Admission::Refuse(why));
    check(&[1, 1, 1], 1, Admission::Refuse(why));
    check(&[5, 9], 9, Admission::Take);
}

#[test]
fn what_fills_the_lanes_in_time_is_not_limited() {
    let t0 = start();
    // Batches of 4 rows at most, which take 8 ms; two lanes, on which 8 tasks run.
    let check = |n_waiting, left, expected: bool| {
        let given = Given {
            limit: 1,
            n_lanes: 2,
            n_running: 8,
            ..given(Line { is_steady: false, ..Line::new(4, 1) })
        };
        let (waiting, newcomer) =
            (queue(t0, &vec![('a', 1, 0, None); n_waiting]), task(t0, 'a', 1, 0, Some(left)));
        let admission = admission(&given, &waiting, &newcomer, &Turns::default());
        assert_eq!(admission == Admission::Take, expected, "{n_waiting} with {left} ms");
    };
    check(7, 100, true);
    check(8, 100, false);
    // Two batches of two rows are done in 12 ms, and only as many rows count as fill the lanes with those.
    check(0, 15, false);
    check(0, 16, true);
    check(7, 16, true);
}

/// A queue of tasks of these callers, in turn.
fn of_callers(t0: Instant, callers: &[u64], deadline: Option<u64>) -> (VecDeque<Waiting<char>>, Turns) {
    let mut turns = Turns::default();
    let mut waiting = queue(t0, &vec![('a', 1, 0, deadline); callers.len()]);
    for (task, &caller) in waiting.iter_mut().zip(callers) {
        (task.caller, task.turn) = (caller, turns.join(caller, 1));
    }
    (waiting, turns)
}

#[test]
fn a_full_queue_makes_room_for_who_has_less_than_a_share() {
    let t0 = start();
    let check = |is_fair, callers: &[u64], caller, expected: Admission| {
        let bounds = Policy { max_queue: NonZeroUsize::new(4).unwrap(), is_fair, ..policy(None) };
        let (waiting, turns) = of_callers(t0, callers, None);
        let newcomer = Waiting { caller, ..task(t0, 'a', 1, 0, None) };
        let given = Given { line: None, policy: bounds, ..given(Line::new(5, 0)) };
        assert_eq!(admission(&given, &waiting, &newcomer, &turns), expected, "{callers:?} {caller}");
    };
    let why = Why::Full { retry_after: ms(1) };
    check(true, &[1, 2, 1, 1], 3, Admission::Displace(3, why));
    check(true, &[1, 1, 1, 2], 2, Admission::Displace(2, why));
    check(true, &[1, 1, 1, 2], 1, Admission::Refuse(why));
    check(true, &[1, 1, 2, 2], 2, Admission::Refuse(why));
    check(true, &[1, 2, 3, 4], 5, Admission::Refuse(why));
    check(false, &[1, 2, 1, 1], 3, Admission::Refuse(why));
}

#[test]
fn who_comes_anew_does_not_wait_for_all_of_a_greedy_caller() {
    let t0 = start();
    let check = |is_fair, caller, expected: Admission| {
        let (waiting, turns) = of_callers(t0, &[1; 40], Some(50));
        let newcomer = Waiting { caller, ..task(t0, 'a', 1, 0, Some(60)) };
        let policy = Policy { is_fair, ..policy(Some(batching(4, 0))) };
        let given = Given { policy, ..given(Line::new(9, 1)) };
        assert_eq!(admission(&given, &waiting, &newcomer, &turns), expected, "{is_fair} {caller}");
    };
    // Of the other's forty rows, eight are of the first turn.
    check(true, 2, Admission::Take);
    check(true, 1, late(10 * 13 + 13 - 60));
    check(false, 2, late(10 * 13 + 13 - 60));
}
