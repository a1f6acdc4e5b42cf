//! Simulated time: requests come, runs end, schedulers decide.

use std::time::{Duration, Instant};

use crate::{Engine, Next, Random, Request, Scheduler, Task, Trace};

/// What became of a request. Times are from the start of the trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is not over yet; none is left so at the end.
    Open,
    /// It was run.
    Answered {
        /// Start of its run.
        started: Duration,
        /// End of its run.
        ended: Duration,
    },
    /// It was not let in, or had to go for another.
    Refused {
        /// When.
        at: Duration,
    },
    /// It was taken out of the queue because of its deadline.
    Dropped {
        /// When.
        at: Duration,
    },
}

/// A run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ran {
    /// When it started.
    pub at: Duration,
    /// How long it took.
    pub took: Duration,
    /// Its rows.
    pub n_rows: usize,
}

/// All that happened.
#[derive(Debug, Clone)]
pub struct History {
    /// By position in the trace.
    pub fates: Vec<Fate>,
    /// In the order in which they started.
    pub runs: Vec<Ran>,
    /// The most tasks that waited at the same time.
    pub max_waiting: usize,
    /// How often a lane was left free although tasks waited.
    pub n_idle: usize,
}

struct Lane {
    batch: Vec<Task>,
    ends: Duration,
    took: Duration,
}

struct World<'a> {
    start: Instant,
    requests: &'a [Request],
    engine: &'a Engine,
    scheduler: &'a mut dyn Scheduler,
    random: Random,
    lanes: Vec<Option<Lane>>,
    history: History,
}

/// Runs the trace to its end, and what then waits. Events at the same moment: ends, then arrivals, then free lanes.
pub fn run(
    trace: &Trace,
    engine: &Engine,
    n_lanes: usize,
    scheduler: &mut dyn Scheduler,
    random: Random,
) -> History {
    #[expect(clippy::disallowed_methods, reason = "any moment serves as the start of simulated time")]
    let start = Instant::now();
    let requests = &trace.requests;
    let history =
        History { fates: vec![Fate::Open; requests.len()], runs: Vec::new(), max_waiting: 0, n_idle: 0 };
    let lanes = (0..n_lanes).map(|_| None).collect();
    let mut world = World { start, requests, engine, scheduler, random, lanes, history };
    let (mut n_come, mut wake) = (0, None);
    loop {
        let arrival = requests.get(n_come).map(|request| request.at);
        let end = world.lanes.iter().flatten().map(|lane| lane.ends).min();
        let Some(now) = [arrival, end, wake].into_iter().flatten().min() else { break };
        world.end(now);
        while let Some(request) = requests.get(n_come).filter(|request| request.at <= now) {
            world.arrive(n_come, request);
            n_come += 1;
        }
        wake = world.fill(now);
    }
    world.history
}

impl World<'_> {
    fn arrive(&mut self, id: usize, request: &Request) {
        let arrived = self.start + request.at;
        let task = Task {
            id,
            n_rows: request.n_rows,
            shape: request.shape,
            arrived,
            deadline: request.timeout.map(|timeout| arrived + timeout),
            priority: request.priority,
            caller: request.caller,
        };
        if let Some(refused) = self.scheduler.arrive(arrived, task) {
            self.settle(refused.id, Fate::Refused { at: request.at });
        }
        self.history.max_waiting = self.history.max_waiting.max(self.scheduler.n_waiting());
    }

    fn end(&mut self, now: Duration) {
        for at in 0..self.lanes.len() {
            let lane = self.lanes.get_mut(at).and_then(|lane| lane.take_if(|lane| lane.ends <= now));
            if let Some(Lane { batch, took, .. }) = lane {
                self.scheduler.ended(self.start + now, at, &batch, took);
            }
        }
    }

    /// Lets free lanes do what they may. Gives back when to ask again, should nothing happen before.
    fn fill(&mut self, now: Duration) -> Option<Duration> {
        while let Some(lane) = self.lanes.iter().position(Option::is_none) {
            match self.scheduler.next(self.start + now, lane) {
                Next::Start(batch) => self.begin(now, lane, batch),
                Next::Drop(tasks) => {
                    assert!(!tasks.is_empty(), "a scheduler that drops nothing is asked for ever");
                    tasks.iter().for_each(|task| self.settle(task.id, Fate::Dropped { at: now }));
                }
                Next::Wait(until) => {
                    self.history.n_idle += usize::from(self.scheduler.n_waiting() > 0);
                    let until = until?.duration_since(self.start);
                    assert!(until > now, "a scheduler that waits for the past is asked for ever");
                    return Some(until);
                }
            }
        }
        None
    }

    fn begin(&mut self, now: Duration, lane: usize, batch: Vec<Task>) {
        let n_rows = batch.iter().map(|task| task.n_rows).sum();
        let shape = batch.first().map_or(0, |task| task.shape);
        let took = self.engine.time(now, shape, n_rows, &mut self.random);
        let ends = now + took;
        batch.iter().for_each(|task| self.settle(task.id, Fate::Answered { started: now, ended: ends }));
        self.history.runs.push(Ran { at: now, took, n_rows });
        if let Some(place) = self.lanes.get_mut(lane) {
            *place = Some(Lane { batch, ends, took });
        }
    }

    fn settle(&mut self, id: usize, fate: Fate) {
        debug_assert!(id < self.requests.len(), "tasks are of the trace");
        if let Some(open) = self.history.fates.get_mut(id) {
            debug_assert_eq!(*open, Fate::Open, "a request has one fate");
            *open = fate;
        }
    }
}
