//! Whatever comes, in whatever order: what always holds.

use proptest::prelude::*;

use super::*;

/// What happens to a queue.
#[derive(Debug, Clone)]
enum Event {
    Arrive {
        key: char,
        n_rows: usize,
        deadline: Option<u64>,
        priority: u8,
        caller: u64,
    },
    /// So many milliseconds pass.
    Pass(u64),
    /// A lane is free.
    Free,
}

fn event() -> impl Strategy<Value = Event> {
    let keys = prop::sample::select(vec!['a', 'b', 'c', '-']);
    let priorities = prop::sample::select(vec![1u8, 5, 9]);
    prop_oneof![
        3 => (keys, 1usize..5, prop::option::of(0u64..30), priorities, 0u64..3).prop_map(
            |(key, n_rows, deadline, priority, caller)| Event::Arrive { key, n_rows, deadline, priority, caller }
        ),
        2 => (0u64..6).prop_map(Event::Pass),
        3 => Just(Event::Free),
    ]
}

/// Settings that change what may happen.
fn settings() -> impl Strategy<Value = (Policy, Line)> {
    let batching = (4usize..7, 0u64..8, any::<bool>(), any::<bool>()).prop_map(
        |(max, timeout, is_deferred, by_cost)| Batching {
            is_deferred,
            by_cost,
            ..super::batching(max, timeout)
        },
    );
    let weights = prop::array::uniform9(1u32..9);
    let priorities = prop_oneof![Just(Priorities::Strict), weights.prop_map(Priorities::Weighted)];
    let line = (0u64..4, 0u64..3, 1u32..3, 1usize..9, any::<bool>()).prop_map(
        |(fixed, per_row, spread, enough, is_steady)| Line { fixed, per_row, spread, enough, is_steady },
    );
    (prop::option::of(batching), priorities, any::<bool>(), any::<bool>(), 3usize..20, line).prop_map(
        |(batching, priorities, is_fair, refuses_early, max_queue, line)| {
            let max_queue = NonZeroUsize::new(max_queue).unwrap();
            (Policy { max_queue, priorities, is_fair, refuses_early, batching, ..Policy::default() }, line)
        },
    )
}

/// A queue with one lane whose runs take no time, and a record of what left it.
struct Model {
    t0: Instant,
    now: Instant,
    policy: Policy,
    line: Line,
    waiting: VecDeque<Waiting<char>>,
    shares: Shares,
    turns: Turns,
    n_taken: usize,
    n_left: usize,
}

impl Model {
    fn new(policy: Policy, line: Line) -> Model {
        let t0 = start();
        Model {
            t0,
            now: t0,
            policy,
            line,
            waiting: VecDeque::new(),
            shares: Shares::default(),
            turns: Turns::default(),
            n_taken: 0,
            n_left: 0,
        }
    }

    fn view(&self) -> View<'_, char> {
        View { is_contended: self.turns.n_callers() > 1, ..view(&self.waiting, 1, &self.shares) }
    }

    fn step(&mut self, event: &Event) -> Result<(), TestCaseError> {
        match *event {
            Event::Arrive { key, n_rows, deadline, priority, caller } => {
                let arrived = self.now.duration_since(self.t0).as_millis() as u64;
                let task = task(self.t0, key, n_rows, arrived, deadline.map(|d| arrived + d));
                self.arrive(&Waiting { priority, caller, ..task })
            }
            Event::Pass(n) => {
                self.now += ms(n);
                Ok(())
            }
            Event::Free => self.free().map(|_| ()),
        }
    }

    fn arrive(&mut self, task: &Waiting<char>) -> Result<(), TestCaseError> {
        let newcomer = Newcomer { task, n_bytes: 0, limit: 5, n_running: 0, turns: &self.turns };
        let admission = admit(self.now, &self.view(), &newcomer, &self.line, &self.policy);
        let is_full = self.waiting.len() >= self.policy.max_queue.get();
        match admission {
            Admission::Take => prop_assert!(!is_full, "taken into a full queue"),
            Admission::Displace(at, _) => {
                prop_assert!(is_full);
                let gone = self.remove(at, false);
                let is_less = gone.priority > task.priority;
                let is_other =
                    self.policy.is_fair && gone.priority == task.priority && gone.caller != task.caller;
                prop_assert!(is_less || is_other, "{:?} had to go for {:?}", gone, task);
            }
            Admission::Refuse(why) => {
                let needs_time = matches!(why, Why::Late { .. } | Why::Limited { .. });
                prop_assert!(needs_time || is_full, "{:?} with room", why);
                prop_assert!(!needs_time || self.policy.refuses_early && task.deadline.is_some());
                return Ok(());
            }
        }
        let turn = self.turns.join(task.caller, task.n_rows);
        self.shares.joined(task.priority);
        self.waiting.push_back(Waiting { turn, ..task.clone() });
        self.n_taken += 1;
        Ok(())
    }

    fn decision(&self) -> Decision {
        decide(self.now, &self.view(), &self.line, &self.policy)
    }

    fn waits_for_others(&self) -> bool {
        let waits = |batching: &Batching| batching.is_deferred || !batching.batch_timeout.is_zero();
        self.policy.batching.as_ref().is_some_and(waits)
    }

    /// Lets a lane take what it may; gives back whether anything left the queue.
    fn free(&mut self) -> Result<bool, TestCaseError> {
        match self.decision() {
            Decision::Wait(until) => {
                prop_assert!(until.is_none_or(|until| until > self.now));
                prop_assert_eq!(until.is_none(), self.waiting.is_empty());
                prop_assert!(self.waiting.is_empty() || self.waits_for_others(), "idle while tasks wait");
                return Ok(false);
            }
            Decision::Expire(at) => {
                prop_assert!(!at.is_empty() && at.is_sorted_by(|a, b| a < b));
                for &at in at.iter().rev() {
                    let task = self.remove(at, false);
                    let foresees = self.policy.refuses_early && self.line.is_steady;
                    let least = if foresees {
                        self.line.estimate(0, task.n_rows).unwrap_or_default().p50
                    } else {
                        ms(0)
                    };
                    prop_assert!(task.deadline.is_some_and(|end| end <= self.now || end < self.now + least));
                }
            }
            Decision::Start(at) => self.begin(&at)?,
        }
        Ok(true)
    }

    fn begin(&mut self, at: &[usize]) -> Result<(), TestCaseError> {
        prop_assert!(!at.is_empty() && at.is_sorted_by(|a, b| a < b));
        let mut tasks: Vec<_> = at.iter().rev().map(|&at| self.remove(at, true)).collect();
        tasks.reverse();
        let key = tasks[0].key;
        prop_assert!(tasks.len() == 1 || key.is_some() && tasks.iter().all(|task| task.key == key));
        let max = self.policy.batching.as_ref().map_or(1, |batching| batching.max_batch_size.get());
        let n_rows: usize = tasks.iter().map(|task| task.n_rows).sum();
        prop_assert!(tasks.len() == 1 || n_rows <= max, "{} rows, at most {}", n_rows, max);
        for task in &tasks {
            prop_assert!(task.deadline.is_none_or(|deadline| deadline > self.now), "started when expired");
        }
        self.check_order(&tasks)?;
        if let Priorities::Weighted(weights) = &self.policy.priorities {
            tasks.iter().for_each(|task| self.shares.charge(task.priority, ms(1), weights));
        }
        Ok(())
    }

    /// Nothing that stayed behind should have been before something that started.
    fn check_order(&self, started: &[Waiting<char>]) -> Result<(), TestCaseError> {
        let strict = self.policy.priorities == Priorities::Strict;
        let key = started[0].key;
        let first = started.iter().map(|task| task.priority).min();
        if strict && !self.waits_for_others() {
            let urgent = self.waiting.iter().map(|task| task.priority).min();
            prop_assert!(urgent.is_none_or(|urgent| Some(urgent) >= first), "something more urgent waits");
        }
        let behind = || self.waiting.iter().filter(|task| task.key.is_some() && task.key == key);
        for (task, other) in started.iter().flat_map(|task| behind().map(move |other| (task, other))) {
            // Of one caller's tasks with the same wishes, the first that came is the first that starts.
            let alike = |a: &Waiting<char>| (a.priority, a.caller, a.deadline.map(|d| d - a.arrived));
            prop_assert!(alike(task) != alike(other) || task.arrived <= other.arrived, "overtaken");
        }
        Ok(())
    }

    fn remove(&mut self, at: usize, served: bool) -> Waiting<char> {
        let task = self.waiting.remove(at).unwrap();
        self.shares.left(task.priority);
        self.turns.leave(task.caller, task.turn, served);
        self.n_left += 1;
        task
    }
}

proptest! {
    /// Order, bounds and deadlines hold whatever happens, a lane is idle only if tasks are told to wait for others, and
    /// once lanes are free everything leaves within the longest of time-outs and deadlines.
    #[test]
    fn whatever_happens((policy, line) in settings(), events in prop::collection::vec(event(), 0..60)) {
        let mut model = Model::new(policy, line);
        for event in &events {
            model.step(event)?;
        }
        while model.free()? {}
        model.now += ms(40);
        while model.free()? {}
        prop_assert_eq!(model.n_left, model.n_taken);
    }

    /// However many tasks of other keys keep coming, the oldest starts as soon as a lane is free after its time-out.
    #[test]
    fn nobody_starves(timeout in 0u64..8, n_rows in 1usize..5, n_others in 1usize..20) {
        let policy = policy(Some(batching(4, timeout)));
        let mut model = Model::new(policy, Line::new(0, 0));
        let other = |key, n_rows| Event::Arrive { key, n_rows, deadline: None, priority: 5, caller: 0 };
        model.step(&other('a', n_rows))?;
        model.step(&Event::Pass(timeout))?;
        for _ in 0..n_others {
            model.step(&other('b', 4))?;
        }
        prop_assert_eq!(model.decision(), run(&[0]));
    }

    /// However many tasks with deadlines keep coming, one without starts within a second and the wait of those that
    /// came by then.
    #[test]
    fn no_deadline_is_no_sentence(timeout in 1u64..900) {
        let mut model = Model::new(policy(Some(batching(4, 0))), Line::new(0, 0));
        let event = |key, deadline| Event::Arrive { key, n_rows: 4, deadline, priority: 5, caller: 0 };
        model.step(&event('a', None))?;
        while model.waiting.iter().any(|task| task.key == Some('a')) {
            prop_assert!(model.now <= model.t0 + ms(1010), "it starves");
            model.step(&event('b', Some(timeout)))?;
            model.step(&Event::Free)?;
            model.step(&Event::Pass(10))?;
        }
    }
}
