use std::collections::VecDeque;
use std::time::{Duration, Instant};

use salver_batch::{
    Admission, Costs, Decision, Forecast, Limit, Newcomer, Policy, Priorities, Shares, Turns, View, Waiting,
    admit, decide,
};

use super::{Next, Scheduler, Task};
use crate::{Engine, Random};

/// What a run of which nothing is known counts as, as far as weights of priorities are concerned.
const UNKNOWN: Duration = Duration::from_millis(1);

/// Runs of each size in a sweep.
const N_SWEEPS: usize = 5;

/// Salver's own policy: what `salver_batch::LaneSet` does around the pure functions, without threads.
#[derive(Debug)]
pub struct Salver {
    policy: Policy,
    n_lanes: usize,
    waiting: VecDeque<Waiting<u32>>,
    /// At equal positions.
    ids: VecDeque<usize>,
    costs: Costs,
    limit: Limit,
    shares: Shares,
    turns: Turns,
    /// Lanes that run and when they are expected to end.
    running: Vec<usize>,
    ends: Vec<Instant>,
    n_running: usize,
}

impl Salver {
    /// Knows nothing of the engine.
    pub fn new(policy: Policy, n_lanes: usize) -> Salver {
        let limit = Limit::new(2 * n_lanes, policy.max_queue.get());
        Salver {
            policy,
            n_lanes,
            waiting: VecDeque::new(),
            ids: VecDeque::new(),
            costs: Costs::default(),
            limit,
            shares: Shares::default(),
            turns: Turns::default(),
            running: Vec::new(),
            ends: Vec::new(),
            n_running: 0,
        }
    }

    /// Runs each shape in sizes of powers of two, as the warm-up sweep does.
    #[must_use]
    pub fn swept(mut self, engine: &Engine, random: &mut Random) -> Salver {
        let max = self.policy.batching.as_ref().map_or(1, |batching| batching.max_batch_size.get());
        for shape in (0..).take(engine.shapes.len()) {
            let sizes = std::iter::successors(Some(1), |n| Some(n * 2)).take_while(|&n| n < max).chain([max]);
            for n_rows in sizes.flat_map(|n| std::iter::repeat_n(n, N_SWEEPS)) {
                self.costs.record(shape, n_rows, engine.time(Duration::ZERO, shape, n_rows, random));
            }
        }
        self
    }

    /// What it has learnt of the engine.
    pub fn costs(&self) -> &Costs {
        &self.costs
    }

    fn view(&self) -> View<'_, u32> {
        View {
            n_startable: usize::MAX,
            waiting: &self.waiting,
            n_bytes: 0,
            closing: false,
            n_lanes: self.n_lanes,
            ends: &self.ends,
            delay: Duration::ZERO,
            shares: &self.shares,
            is_contended: self.turns.n_callers() > 1,
        }
    }

    fn take(&mut self, positions: &[usize], served: bool) -> Vec<Task> {
        let taken = positions.iter().rev().filter_map(|&at| {
            let (waiting, id) = (self.waiting.remove(at)?, self.ids.remove(at)?);
            self.shares.left(waiting.priority);
            self.turns.leave(waiting.caller, waiting.turn, served);
            Some(Task {
                id,
                n_rows: waiting.n_rows,
                shape: waiting.kind,
                arrived: waiting.arrived,
                deadline: waiting.deadline,
                priority: waiting.priority,
                caller: waiting.caller,
            })
        });
        let mut taken: Vec<Task> = taken.collect();
        taken.reverse();
        taken
    }

    fn begin(&mut self, now: Instant, lane: usize, batch: &[Task]) {
        let n_rows: usize = batch.iter().map(|task| task.n_rows).sum();
        let estimate = batch.first().and_then(|task| self.costs.estimate(task.shape, n_rows));
        self.n_running += batch.len();
        self.running.push(lane);
        self.ends.push(now + estimate.unwrap_or_default().p50);
        if let Priorities::Weighted(weights) = &self.policy.priorities {
            let time = estimate.map_or(UNKNOWN, |estimate| estimate.p50);
            for task in batch {
                let part = time.mul_f64(task.n_rows as f64 / n_rows.max(1) as f64);
                self.shares.charge(task.priority, part, weights);
            }
        }
    }
}

impl Scheduler for Salver {
    fn arrive(&mut self, now: Instant, task: Task) -> Option<Task> {
        let mut waiting = Waiting {
            key: self.policy.batching.is_some().then_some(task.shape),
            kind: task.shape,
            n_rows: task.n_rows,
            arrived: now,
            deadline: task.deadline,
            priority: task.priority,
            caller: task.caller,
            turn: 0,
        };
        let newcomer = Newcomer {
            task: &waiting,
            n_bytes: 0,
            limit: self.limit.bound(),
            n_running: self.n_running,
            turns: &self.turns,
        };
        let displaced = match admit(now, &self.view(), &newcomer, &self.costs, &self.policy) {
            Admission::Take => None,
            Admission::Displace(at, _) => self.take(&[at], false).pop(),
            Admission::Refuse(_) => return Some(task),
        };
        waiting.turn = self.turns.join(task.caller, task.n_rows);
        self.shares.joined(task.priority);
        self.waiting.push_back(waiting);
        self.ids.push_back(task.id);
        displaced
    }

    fn next(&mut self, now: Instant, lane: usize) -> Next {
        match decide(now, &self.view(), &self.costs, &self.policy) {
            Decision::Wait(until) => Next::Wait(until),
            Decision::Expire(positions) => {
                let n_under_way = self.waiting.len() + self.n_running;
                let expired = self.take(&positions, false);
                expired.iter().for_each(|_| self.limit.answered(None, n_under_way));
                Next::Drop(expired)
            }
            Decision::Start(positions) => {
                let batch = self.take(&positions, true);
                self.begin(now, lane, &batch);
                Next::Start(batch)
            }
        }
    }

    fn ended(&mut self, now: Instant, lane: usize, batch: &[Task], ran: Duration) {
        let n_rows = batch.iter().map(|task| task.n_rows).sum();
        if let Some(first) = batch.first() {
            self.costs.record(first.shape, n_rows, ran);
        }
        let n_under_way = self.waiting.len() + self.n_running;
        for deadline in batch.iter().filter_map(|task| task.deadline) {
            self.limit.answered(deadline.checked_duration_since(now), n_under_way);
        }
        self.n_running -= batch.len();
        if let Some(at) = self.running.iter().position(|&running| running == lane) {
            self.running.swap_remove(at);
            self.ends.swap_remove(at);
        }
    }

    fn n_waiting(&self) -> usize {
        self.waiting.len()
    }
}
