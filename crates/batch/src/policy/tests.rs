use std::num::NonZeroUsize;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

#[expect(clippy::disallowed_methods, reason = "any moment serves as the start of a test's time")]
fn start() -> Instant {
    Instant::now()
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn batching(max: usize, timeout: u64) -> Batching {
    Batching {
        max_batch_size: NonZeroUsize::new(max).unwrap(),
        batch_timeout: ms(timeout),
        ..Batching::default()
    }
}

/// Tasks written as key, rows, arrival and deadline in milliseconds; the key `-` runs alone.
fn queue(t0: Instant, tasks: &[(char, usize, u64, Option<u64>)]) -> VecDeque<Waiting<char>> {
    let task = |&(key, n_rows, arrived, deadline): &(char, usize, u64, Option<u64>)| Waiting {
        key: (key != '-').then_some(key),
        n_rows,
        arrived: t0 + ms(arrived),
        deadline: deadline.map(|at| t0 + ms(at)),
    };
    tasks.iter().map(task).collect()
}

#[test]
fn decisions() {
    let t0 = start();
    let check = |tasks: &[(char, usize, u64, Option<u64>)], timeout, now, expected: Decision| {
        let waiting = queue(t0, tasks);
        let view = QueueView { waiting: &waiting, closing: false };
        assert_eq!(decide(t0 + ms(now), &view, Some(&batching(4, timeout))), expected, "{tasks:?} at {now}");
    };
    let until = |at| Decision::Wait(Some(t0 + ms(at)));
    let run = |at: &[usize]| Decision::Start(at.to_vec());
    check(&[], 5, 0, Decision::Wait(None));
    // Nothing waits for others without a time-out, but what is there is joined.
    check(&[('a', 1, 0, None)], 0, 0, run(&[0]));
    check(&[('a', 1, 0, None), ('b', 1, 0, None), ('a', 2, 0, None)], 0, 0, run(&[0, 2]));
    // A task that does not fit is not overtaken by a later one of its key.
    check(&[('a', 3, 0, None), ('a', 2, 0, None), ('a', 1, 0, None)], 0, 0, run(&[0]));
    // With a time-out: full, waited long enough, or not ready.
    check(&[('a', 1, 0, None), ('b', 4, 1, None)], 5, 1, run(&[1]));
    check(&[('a', 1, 0, None), ('b', 4, 1, None)], 5, 5, run(&[0]));
    check(&[('a', 1, 0, None), ('b', 1, 1, None)], 5, 1, until(5));
    check(&[('a', 3, 0, None), ('a', 2, 0, None)], 5, 1, run(&[0]));
    // A task runs alone at once, also behind others that wait.
    check(&[('a', 1, 0, None), ('-', 1, 0, None)], 5, 0, run(&[1]));
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
    let t0 = start();
    let waiting = queue(t0, &[('a', 1, 0, None)]);
    let view = QueueView { waiting: &waiting, closing: true };
    assert_eq!(decide(t0, &view, Some(&batching(4, 5))), Decision::Start(vec![0]));
}

#[test]
fn without_batching_each_task_runs_alone() {
    let t0 = start();
    let waiting = queue(t0, &[('a', 1, 0, None), ('a', 1, 0, None)]);
    let view = QueueView { waiting: &waiting, closing: false };
    assert_eq!(decide(t0, &view, None), Decision::Start(vec![0]));
}

/// What happens to a queue.
#[derive(Debug, Clone)]
enum Event {
    Arrive {
        key: char,
        n_rows: usize,
        deadline: Option<u64>,
    },
    /// So many milliseconds pass.
    Pass(u64),
    /// A lane is free.
    Free,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => (prop::sample::select(vec!['a', 'b', 'c', '-']), 1usize..5, prop::option::of(0u64..12))
            .prop_map(|(key, n_rows, deadline)| Event::Arrive { key, n_rows, deadline }),
        2 => (0u64..6).prop_map(Event::Pass),
        3 => Just(Event::Free),
    ]
}

/// A queue, and a record of what left it.
struct Model {
    t0: Instant,
    now: Instant,
    batching: Option<Batching>,
    waiting: VecDeque<Waiting<char>>,
    ids: VecDeque<usize>,
    n_arrived: usize,
    n_left: usize,
    last_started: HashMap<char, usize>,
}

impl Model {
    fn step(&mut self, event: &Event) -> Result<(), TestCaseError> {
        match event {
            Event::Arrive { key, n_rows, deadline } => {
                let arrived = self.now.duration_since(self.t0).as_millis() as u64;
                let task = (*key, *n_rows, arrived, deadline.map(|d| arrived + d));
                self.waiting.extend(queue(self.t0, &[task]));
                self.ids.push_back(self.n_arrived);
                self.n_arrived += 1;
                Ok(())
            }
            Event::Pass(n) => {
                self.now += ms(*n);
                Ok(())
            }
            Event::Free => self.free().map(|_| ()),
        }
    }

    fn decision(&self) -> Decision {
        decide(self.now, &QueueView { waiting: &self.waiting, closing: false }, self.batching.as_ref())
    }

    /// Lets a lane take what it may; gives back whether anything left the queue.
    fn free(&mut self) -> Result<bool, TestCaseError> {
        match self.decision() {
            Decision::Wait(until) => {
                prop_assert!(until.is_none_or(|until| until > self.now));
                prop_assert_eq!(until.is_none(), self.waiting.is_empty());
                return Ok(false);
            }
            Decision::Expire(at) => {
                prop_assert!(!at.is_empty());
                for &at in at.iter().rev() {
                    let task = self.remove(at).0;
                    prop_assert!(task.deadline.is_some_and(|deadline| deadline <= self.now));
                }
            }
            Decision::Start(at) => self.begin(&at)?,
        }
        Ok(true)
    }

    fn begin(&mut self, at: &[usize]) -> Result<(), TestCaseError> {
        prop_assert!(!at.is_empty() && at.is_sorted_by(|a, b| a < b));
        let mut tasks: Vec<_> = at.iter().rev().map(|&at| self.remove(at)).collect();
        tasks.reverse();
        let keys: Vec<_> = tasks.iter().map(|(task, _)| task.key).collect();
        prop_assert!(tasks.len() == 1 || keys[0].is_some() && keys.iter().all(|key| *key == keys[0]));
        let max = self.batching.as_ref().map_or(1, |batching| batching.max_batch_size.get());
        let n_rows: usize = tasks.iter().map(|(task, _)| task.n_rows).sum();
        prop_assert!(tasks.len() == 1 || n_rows <= max, "{} rows, at most {}", n_rows, max);
        for (task, id) in tasks {
            prop_assert!(task.deadline.is_none_or(|deadline| deadline > self.now), "started when expired");
            if let Some(key) = task.key {
                prop_assert!(self.last_started.insert(key, id).is_none_or(|last| last < id), "overtaken");
            }
        }
        Ok(())
    }

    fn remove(&mut self, at: usize) -> (Waiting<char>, usize) {
        self.n_left += 1;
        (self.waiting.remove(at).unwrap(), self.ids.remove(at).unwrap())
    }
}

fn model(max: Option<usize>, timeout: u64) -> Model {
    let t0 = start();
    Model {
        t0,
        now: t0,
        batching: max.map(|max| batching(max, timeout)),
        waiting: VecDeque::new(),
        ids: VecDeque::new(),
        n_arrived: 0,
        n_left: 0,
        last_started: HashMap::new(),
    }
}

proptest! {
    /// Order within a key, bounds and deadlines hold whatever happens; and once lanes are free, everything leaves
    /// within one time-out.
    #[test]
    fn whatever_happens(
        max in prop::option::of(4usize..7),
        timeout in 0u64..8,
        events in prop::collection::vec(event(), 0..60),
    ) {
        let mut model = model(max, timeout);
        for event in &events {
            model.step(event)?;
        }
        while model.free()? {}
        model.now += ms(timeout);
        while model.free()? {}
        prop_assert_eq!(model.n_left, model.n_arrived);
    }

    /// However many tasks of other keys keep coming, the oldest starts as soon as a lane is free after its time-out.
    #[test]
    fn nobody_starves(timeout in 0u64..8, n_rows in 1usize..5, n_others in 1usize..20) {
        let mut model = model(Some(4), timeout);
        model.step(&Event::Arrive { key: 'a', n_rows, deadline: None })?;
        model.step(&Event::Pass(timeout))?;
        for _ in 0..n_others {
            model.step(&Event::Arrive { key: 'b', n_rows: 4, deadline: None })?;
        }
        prop_assert_eq!(model.decision(), Decision::Start(vec![0]));
    }
}
