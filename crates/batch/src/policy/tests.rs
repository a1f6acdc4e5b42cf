use std::num::NonZeroUsize;
use std::time::Duration;

use super::*;
use crate::cost::{Estimate, Unknown};
use crate::{N_PRIORITIES, Priorities};

mod admission;
mod histories;

#[expect(clippy::disallowed_methods, reason = "any moment serves as the start of a test's time")]
fn start() -> Instant {
    Instant::now()
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Times of runs that are known: a fixed part and one for each row, the 99th percentile so many times the median.
#[derive(Debug, Clone, Copy)]
struct Line {
    fixed: u64,
    per_row: u64,
    spread: u32,
    enough: usize,
    is_steady: bool,
}

impl Line {
    /// In milliseconds.
    fn new(fixed: u64, per_row: u64) -> Line {
        Line { fixed, per_row, spread: 1, enough: usize::MAX, is_steady: true }
    }
}

impl Forecast for Line {
    fn estimate(&self, _: u32, n_rows: usize) -> Option<Estimate> {
        let p50 = ms(self.fixed + self.per_row * n_rows as u64);
        Some(Estimate { p50, p90: p50 * self.spread.div_ceil(2), p99: p50 * self.spread })
    }

    fn enough(&self, _: u32, max: usize) -> usize {
        self.enough.min(max)
    }

    fn is_steady(&self, _: u32) -> bool {
        self.is_steady
    }
}

fn task(t0: Instant, key: char, n_rows: usize, arrived: u64, deadline: Option<u64>) -> Waiting<char> {
    Waiting {
        key: (key != '-').then_some(key),
        kind: 0,
        n_rows,
        arrived: t0 + ms(arrived),
        deadline: deadline.map(|at| t0 + ms(at)),
        priority: 5,
        caller: 0,
        turn: 0,
    }
}

/// Tasks written as key, rows, arrival and deadline in milliseconds; the key `-` runs alone.
fn queue(t0: Instant, tasks: &[(char, usize, u64, Option<u64>)]) -> VecDeque<Waiting<char>> {
    tasks.iter().map(|&(key, n_rows, arrived, deadline)| task(t0, key, n_rows, arrived, deadline)).collect()
}

fn batching(max: usize, timeout: u64) -> Batching {
    Batching {
        max_batch_size: NonZeroUsize::new(max).unwrap(),
        batch_timeout: ms(timeout),
        ..Batching::default()
    }
}

fn policy(batching: Option<Batching>) -> Policy {
    Policy { batching, ..Policy::default() }
}

/// What the lanes of one model see: one of `n_lanes`, of which all are free.
fn view<'a>(waiting: &'a VecDeque<Waiting<char>>, n_lanes: usize, shares: &'a Shares) -> View<'a, char> {
    View {
        n_startable: usize::MAX,
        waiting,
        n_bytes: 0,
        closing: false,
        n_lanes,
        ends: &[],
        delay: Duration::ZERO,
        shares,
        is_contended: false,
    }
}

fn run(at: &[usize]) -> Decision {
    Decision::Start(at.to_vec())
}

#[test]
fn what_is_there_is_joined() {
    let t0 = start();
    let check = |tasks: &[(char, usize, u64, Option<u64>)], timeout, now, expected: Decision| {
        let (waiting, shares) = (queue(t0, tasks), Shares::default());
        let view = view(&waiting, 1, &shares);
        let policy = policy(Some(batching(4, timeout)));
        assert_eq!(decide(t0 + ms(now), &view, &Unknown, &policy), expected, "{tasks:?} at {now}");
    };
    let until = |at| Decision::Wait(Some(t0 + ms(at)));
    check(&[], 5, 0, Decision::Wait(None));
    // Nothing waits for others without a time-out, but what is there is joined.
    check(&[('a', 1, 0, None)], 0, 0, run(&[0]));
    check(&[('a', 1, 0, None), ('b', 1, 0, None), ('a', 2, 0, None)], 0, 0, run(&[0, 2]));
    // A task that does not fit is not overtaken by a later one of its key.
    check(&[('a', 3, 0, None), ('a', 2, 0, None), ('a', 1, 0, None)], 0, 0, run(&[0]));
    // A task that is larger than a batch runs by itself.
    check(&[('a', 9, 0, None), ('a', 1, 0, None)], 0, 0, run(&[0]));
    // With a time-out: full, waited long enough, or not ready.
    check(&[('a', 1, 0, None), ('b', 4, 1, None)], 5, 1, run(&[1]));
    check(&[('a', 1, 0, None), ('b', 4, 1, None)], 5, 5, run(&[0]));
    check(&[('a', 1, 0, None), ('b', 1, 1, None)], 5, 1, until(5));
    check(&[('a', 3, 0, None), ('a', 2, 0, None)], 5, 1, run(&[0]));
    // A task runs alone at once, also behind others that wait.
    check(&[('a', 1, 0, None), ('-', 1, 0, None)], 5, 0, run(&[1]));
    check(&[('-', 1, 0, None), ('-', 1, 0, None)], 5, 0, run(&[0]));
    // Deadlines: passed, within the time-out, later.
    check(
        &[('a', 1, 0, Some(3)), ('a', 1, 0, None), ('-', 1, 0, Some(2))],
        5,
        3,
        Decision::Expire(vec![0, 2]),
    );
    check(&[('a', 1, 0, None), ('a', 1, 1, Some(4))], 5, 1, run(&[0, 1]));
    check(&[('a', 1, 0, None), ('a', 1, 1, Some(9))], 5, 1, until(5));
}

#[test]
fn a_closing_queue_does_not_wait() {
    let (t0, shares) = (start(), Shares::default());
    let waiting = queue(t0, &[('a', 1, 0, None)]);
    let view = View { closing: true, ..view(&waiting, 1, &shares) };
    assert_eq!(decide(t0, &view, &Unknown, &policy(Some(batching(4, 5)))), run(&[0]));
}

#[test]
fn without_batching_each_task_runs_alone() {
    let (t0, shares) = (start(), Shares::default());
    let waiting = queue(t0, &[('a', 1, 0, Some(9)), ('a', 1, 0, Some(8))]);
    assert_eq!(decide(t0, &view(&waiting, 1, &shares), &Unknown, &policy(None)), run(&[1]));
}

#[test]
fn the_earliest_deadline_is_first() {
    let t0 = start();
    let check = |tasks: &[(char, usize, u64, Option<u64>)], expected: Decision| {
        let (waiting, shares) = (queue(t0, tasks), Shares::default());
        let policy = policy(Some(batching(2, 0)));
        assert_eq!(decide(t0 + ms(9), &view(&waiting, 1, &shares), &Unknown, &policy), expected, "{tasks:?}");
    };
    check(&[('a', 1, 0, Some(30)), ('b', 1, 1, Some(20)), ('b', 1, 1, Some(25))], run(&[1, 2]));
    // Within a key, too.
    check(&[('a', 1, 0, Some(30)), ('a', 1, 1, Some(20)), ('a', 1, 2, Some(25))], run(&[1, 2]));
    // Equal deadlines: who came first.
    check(&[('a', 2, 0, Some(30)), ('a', 2, 1, Some(30))], run(&[0]));
    check(&[('a', 2, 0, None), ('b', 2, 1, None)], run(&[0]));
    // Without a deadline a task counts as if it had a second.
    check(&[('a', 2, 0, None), ('b', 2, 1, Some(999))], run(&[1]));
    check(&[('a', 2, 0, None), ('b', 2, 1, Some(1001))], run(&[0]));
}

#[test]
fn what_cannot_make_its_deadline_never_starts() {
    let t0 = start();
    let check = |line: Line, refuses_early, tasks: &[(char, usize, u64, Option<u64>)], expected: Decision| {
        let (waiting, shares) = (queue(t0, tasks), Shares::default());
        let policy = Policy { refuses_early, ..policy(Some(batching(4, 0))) };
        assert_eq!(decide(t0, &view(&waiting, 1, &shares), &line, &policy), expected, "{line:?} {tasks:?}");
    };
    let line = Line::new(10, 1);
    check(line, true, &[('a', 1, 0, Some(10)), ('a', 1, 0, Some(11))], Decision::Expire(vec![0]));
    check(line, true, &[('a', 1, 0, Some(11)), ('a', 2, 0, Some(11))], Decision::Expire(vec![1]));
    check(line, false, &[('a', 1, 0, Some(10))], run(&[0]));
    check(line, false, &[('a', 1, 0, Some(0))], Decision::Expire(vec![0]));
    // Runs that cannot be foreseen say nothing.
    check(Line { is_steady: false, ..line }, true, &[('a', 1, 0, Some(5))], run(&[0]));
}

#[test]
fn a_batch_is_as_large_as_is_of_use() {
    let t0 = start();
    let check = |line: Line, n_busy: usize, n_tasks: usize, expected: usize| {
        let (waiting, shares) = (queue(t0, &vec![('a', 1, 0, None); n_tasks]), Shares::default());
        let ends = vec![t0 + ms(1); n_busy];
        let view = View { ends: &ends, ..view(&waiting, 3, &shares) };
        let decision = decide(t0, &view, &line, &policy(Some(batching(8, 0))));
        assert_eq!(
            decision,
            Decision::Start((0..expected).collect()),
            "{line:?}, {n_busy} busy, {n_tasks} tasks"
        );
    };
    let line = Line::new(1, 1);
    check(line, 2, 6, 6);
    check(line, 2, 9, 8);
    check(Line { enough: 4, ..line }, 2, 6, 4);
    // Free lanes share the work if that is faster.
    check(line, 0, 6, 2);
    check(line, 1, 6, 3);
    check(Line::new(100, 1), 0, 6, 6);
    check(line, 0, 1, 1);
}

#[test]
fn a_batch_is_not_kept_small_by_one_who_has_little_time() {
    let t0 = start();
    let check = |tasks: &[(char, usize, u64, Option<u64>)], priorities: &[u8], expected: &[usize]| {
        let (mut waiting, shares) = (queue(t0, tasks), Shares::default());
        waiting.iter_mut().zip(priorities).for_each(|(task, &priority)| task.priority = priority);
        let policy = policy(Some(batching(8, 0)));
        let decision = decide(t0, &view(&waiting, 1, &shares), &Line::new(20, 1), &policy);
        assert_eq!(decision, run(expected), "{tasks:?} {priorities:?}");
    };
    let with = |first: &[(char, usize, u64, Option<u64>)], n: usize, deadline| {
        [first, &vec![('a', 1, 0, Some(deadline)); n]].concat()
    };
    // It runs with as many as let it be in time, if that is most of what would run without it.
    check(&with(&[('a', 1, 0, Some(27)); 6], 9, 90), &[], &[0, 1, 2, 3, 4, 5, 6]);
    check(&with(&[('a', 1, 0, Some(21))], 1, 90), &[], &[0]);
    // Where many wait and it would run alone, it is passed over.
    check(&with(&[('a', 1, 0, Some(21))], 9, 90), &[], &[1, 2, 3, 4, 5, 6, 7, 8]);
    check(&with(&[('a', 1, 0, Some(21)); 3], 9, 90), &[], &[3, 4, 5, 6, 7, 8, 9, 10]);
    // Never for somebody less urgent.
    check(&with(&[('a', 1, 0, Some(21))], 9, 90), &[1], &[0]);
    // One who is less urgent and has less time is left out of a batch that others are in time for.
    check(&with(&[('a', 1, 0, Some(90)), ('a', 1, 0, Some(21))], 3, 90), &[1, 9, 9, 9, 9], &[0, 2, 3, 4]);
    // Nor does it keep the batch small for those.
    let priorities = [1, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9];
    check(
        &with(&[('a', 1, 0, Some(90)), ('a', 1, 0, Some(23))], 9, 90),
        &priorities,
        &[0, 2, 3, 4, 5, 6, 7, 8],
    );
    // No more of them than are in time.
    check(&with(&[('a', 1, 0, Some(21))], 9, 24), &[], &[1, 2, 3]);
}

#[test]
fn without_costs_a_batch_is_as_large_as_may_be() {
    let (t0, shares) = (start(), Shares::default());
    let waiting = queue(t0, &[('a', 1, 0, Some(6)); 6]);
    let batching = Batching { by_cost: false, ..batching(8, 0) };
    let line = Line { enough: 2, ..Line::new(1, 1) };
    assert_eq!(
        decide(t0, &view(&waiting, 3, &shares), &line, &policy(Some(batching))),
        run(&[0, 1, 2, 3, 4, 5])
    );
}

#[test]
fn deferred_tasks_wait_as_long_as_is_safe() {
    let t0 = start();
    let check = |tasks: &[(char, usize, u64, Option<u64>)], now, expected: Decision| {
        let (waiting, shares) = (queue(t0, tasks), Shares::default());
        let batching = Batching { is_deferred: true, ..batching(4, 0) };
        let line = Line { spread: 2, ..Line::new(5, 1) };
        let decision = decide(t0 + ms(now), &view(&waiting, 1, &shares), &line, &policy(Some(batching)));
        assert_eq!(decision, expected, "{tasks:?} at {now}");
    };
    let until = |at: u64| Decision::Wait(Some(t0 + Duration::from_micros(at)));
    // With one row more it takes at most 14 ms; a tenth and a millisecond are to spare.
    check(&[('a', 1, 0, Some(50))], 0, until(50_000 - 15_400 - 1_000));
    check(&[('a', 1, 0, Some(50))], 34, run(&[0]));
    check(&[('a', 1, 0, Some(50)), ('a', 1, 1, Some(40))], 1, until(40_000 - 17_600 - 1_000));
    check(&[('a', 4, 0, Some(50))], 0, run(&[0]));
    check(&[('a', 1, 0, None)], 0, run(&[0]));
    check(&[('-', 1, 0, Some(50))], 0, run(&[0]));
    // Where nothing is known, no wait is safe.
    let (waiting, shares) = (queue(t0, &[('a', 1, 0, Some(50))]), Shares::default());
    let deferred = policy(Some(Batching { is_deferred: true, ..batching(4, 0) }));
    assert_eq!(decide(t0, &view(&waiting, 1, &shares), &Unknown, &deferred), run(&[0]));
    // The first that is ready starts, though another is next.
    check(&[('a', 1, 0, Some(50)), ('b', 4, 0, Some(60))], 0, run(&[1]));
}

#[test]
fn nothing_starts_while_something_more_urgent_waits() {
    let (t0, shares) = (start(), Shares::default());
    let mut waiting = queue(t0, &[('a', 1, 0, Some(20)), ('b', 1, 1, Some(90)), ('a', 1, 2, None)]);
    for (at, priority) in [(0, 5), (1, 1), (2, 1)] {
        waiting[at].priority = priority;
    }
    let policy = policy(Some(batching(4, 0)));
    assert_eq!(decide(t0 + ms(2), &view(&waiting, 1, &shares), &Unknown, &policy), run(&[1]));
    waiting.remove(1);
    // What is less urgent may join.
    assert_eq!(decide(t0 + ms(2), &view(&waiting, 1, &shares), &Unknown, &policy), run(&[0, 1]));
}

/// Lets priorities share lanes for a while; gives back how many of 1000 runs each had.
fn served(weights: [u32; N_PRIORITIES], priorities: &[u8]) -> Vec<usize> {
    let (t0, mut shares) = (start(), Shares::default());
    priorities.iter().for_each(|&priority| shares.joined(priority));
    let mut waiting = queue(t0, &vec![('-', 1, 0, None); priorities.len()]);
    for (task, &priority) in waiting.iter_mut().zip(priorities) {
        task.priority = priority;
    }
    let policy = Policy { priorities: Priorities::Weighted(weights), ..policy(None) };
    let mut n_served = vec![0; priorities.len()];
    for _ in 0..1000 {
        let Decision::Start(at) = decide(t0, &view(&waiting, 1, &shares), &Unknown, &policy) else {
            panic!("something waits");
        };
        n_served[at[0]] += 1;
        shares.charge(priorities[at[0]], ms(3), &weights);
    }
    n_served
}

#[test]
fn weights_share_the_lanes() {
    let check = |weights: [u32; N_PRIORITIES], priorities: &[u8], expected: &[usize]| {
        let found = served(weights, priorities);
        let fits = found.iter().zip(expected).all(|(found, expected)| found.abs_diff(*expected) <= 10);
        assert!(fits, "{found:?}, expected {expected:?}");
    };
    check([6, 3, 1, 1, 1, 1, 1, 1, 1], &[1, 2, 3], &[600, 300, 100]);
    check([6, 3, 1, 1, 1, 1, 1, 1, 1], &[2, 9], &[750, 250]);
    check([1; N_PRIORITIES], &[1, 9], &[500, 500]);
    check([u32::MAX, 1, 1, 1, 1, 1, 1, 1, 1], &[1, 2], &[1000, 0]);
}

#[test]
fn time_is_not_saved_up() {
    let weights = [1; N_PRIORITIES];
    let mut shares = Shares::default();
    shares.joined(1);
    (0..100).for_each(|_| shares.charge(1, ms(1), &weights));
    // The one that comes is one task ahead of the other, no more.
    shares.joined(2);
    assert!(shares.places()[2] < shares.places()[1]);
    shares.charge(2, ms(1), &weights);
    assert!(shares.places()[1] < shares.places()[2]);
    // So is one that comes when nothing waits.
    shares.left(1);
    shares.left(2);
    shares.left(2);
    shares.joined(9);
    assert!(shares.places()[9] < shares.places()[1]);
    shares.charge(9, ms(2), &weights);
    assert!(shares.places()[2] < shares.places()[9]);
    // What is no priority counts for nothing.
    shares.joined(200);
    shares.left(200);
    shares.charge(200, ms(1), &weights);
}

#[test]
fn callers_take_turns() {
    let mut turns = Turns::default();
    // Eight rows are a turn.
    let greedy: Vec<u64> = (0..20).map(|_| turns.join(1, 1)).collect();
    assert_eq!(greedy, [[0; 8].as_slice(), &[1; 8], &[2; 4]].concat());
    // A larger task is a turn of its own.
    assert_eq!([turns.join(2, 3), turns.join(2, 30), turns.join(2, 1)], [0, 1, 2]);
    assert_eq!((turns.n_callers(), turns.n_waiting(1), turns.n_waiting(3)), (2, 20, 0));
    assert_eq!(turns.heaviest(), Some((1, 20)));
    // Who comes later begins with the turn that is served.
    turns.leave(1, 1, true);
    assert_eq!(turns.join(3, 1), 1);
    // One that was not served is no turn.
    turns.leave(2, 2, false);
    assert_eq!(turns.join(4, 1), 1);
    // Who has waited while others were served goes on where they are.
    turns.leave(1, 2, true);
    assert_eq!(turns.join(3, 1), 2);
    // Who has nothing waiting is forgotten.
    turns.leave(2, 2, true);
    turns.leave(2, 2, true);
    assert_eq!((turns.n_callers(), turns.n_waiting(2)), (3, 0));
    turns.leave(9, 0, true);
}

#[test]
fn the_next_turn_is_before_the_earlier_deadline() {
    let (t0, shares) = (start(), Shares::default());
    let mut waiting = queue(t0, &[('a', 1, 0, Some(20)), ('b', 1, 0, Some(90)), ('a', 1, 0, Some(50))]);
    waiting[0].turn = 1;
    let check = |is_fair, is_contended, expected: Decision| {
        let policy = Policy { is_fair, ..policy(Some(batching(4, 0))) };
        let view = View { is_contended, ..view(&waiting, 1, &shares) };
        assert_eq!(decide(t0, &view, &Unknown, &policy), expected);
    };
    check(false, true, run(&[0, 2]));
    check(true, false, run(&[0, 2]));
    // Of turn 0, the one with the earlier deadline; the other of its key may join.
    check(true, true, run(&[0, 2]));
    waiting[1].deadline = Some(t0 + ms(40));
    let policy = Policy { is_fair: true, ..policy(Some(batching(4, 0))) };
    let view = View { is_contended: true, ..view(&waiting, 1, &shares) };
    assert_eq!(decide(t0, &view, &Unknown, &policy), run(&[1]));
}
