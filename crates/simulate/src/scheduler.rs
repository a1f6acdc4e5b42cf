//! Who is let in, and what a free lane runs: Salver's policy and three from the literature behind one interface.

mod clipper;
mod fixed;
mod nexus;
mod salver;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

pub use clipper::Clipper;
pub use fixed::FixedWait;
pub use nexus::Nexus;
pub use salver::Salver;

/// A request that has come.
#[derive(Debug, Clone)]
pub struct Task {
    /// Its position in the trace.
    pub id: usize,
    /// Its rows.
    pub n_rows: usize,
    /// Tasks of one shape can be joined and cost alike.
    pub shape: u32,
    /// When it came.
    pub arrived: Instant,
    /// When its answer is of no more use.
    pub deadline: Option<Instant>,
    /// 1 (first) to 9.
    pub priority: u8,
    /// Who asks.
    pub caller: u64,
}

/// What a free lane does.
#[derive(Debug)]
pub enum Next {
    /// Run these as one batch.
    Start(Vec<Task>),
    /// Answer these that they are not run.
    Drop(Vec<Task>),
    /// Nothing before this moment, or before something happens.
    Wait(Option<Instant>),
}

/// A policy with what it remembers.
pub trait Scheduler {
    /// Takes a task. Gives back the one that is refused, if any: this one, or one that waited.
    fn arrive(&mut self, now: Instant, task: Task) -> Option<Task>;

    /// What this lane, which is free, does.
    fn next(&mut self, now: Instant, lane: usize) -> Next;

    /// This lane has run these, which took so long.
    fn ended(&mut self, now: Instant, lane: usize, batch: &[Task], ran: Duration);

    /// Tasks that wait.
    fn n_waiting(&self) -> usize;
}

/// Tasks in order of arrival, as the baselines have them.
#[derive(Debug)]
struct Fifo {
    tasks: VecDeque<Task>,
    max: usize,
}

impl Fifo {
    fn new(max: usize) -> Fifo {
        Fifo { tasks: VecDeque::new(), max }
    }

    fn push(&mut self, task: Task) -> Option<Task> {
        if self.tasks.len() >= self.max {
            return Some(task);
        }
        self.tasks.push_back(task);
        None
    }

    /// How many of the first tasks make up a batch: of one shape, of at most so many rows, at least one.
    fn run(&self, max_rows: usize) -> (usize, usize) {
        let Some(first) = self.tasks.front() else { return (0, 0) };
        let same = self.tasks.iter().take_while(|task| task.shape == first.shape);
        let mut n_rows = 0;
        let fitting = same.take_while(|task| {
            n_rows += task.n_rows;
            n_rows <= max_rows
        });
        let n = fitting.count().max(1);
        (n, self.tasks.iter().take(n).map(|task| task.n_rows).sum())
    }

    fn take(&mut self, n: usize) -> Vec<Task> {
        self.tasks.drain(..n.min(self.tasks.len())).collect()
    }

    /// Takes out what is past its deadline.
    fn expired(&mut self, now: Instant) -> Vec<Task> {
        let is_late = |task: &Task| task.deadline.is_some_and(|deadline| deadline <= now);
        let late: Vec<Task> = self.tasks.iter().filter(|task| is_late(task)).cloned().collect();
        if !late.is_empty() {
            self.tasks.retain(|task| !is_late(task));
        }
        late
    }
}
