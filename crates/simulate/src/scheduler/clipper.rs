use std::time::{Duration, Instant};

use super::{Fifo, Next, Scheduler, Task};

/// Rows by which the cap grows after a batch that met the objective.
const STEP: f64 = 1.0;

/// What is left of the cap after a batch that did not.
const BACK_OFF: f64 = 0.9;

/// The cap on batches is found by additive increase and multiplicative decrease against a latency objective; a free lane
/// takes what there is up to the cap, in order of arrival. What is past its deadline is dropped when a lane is free.
///
/// After Crankshaw et al., "Clipper: A Low-Latency Online Prediction Serving System" (NSDI 2017, section 4.3): the cap
/// grows by a fixed amount until a batch exceeds the objective and is then cut by 10 %. That expired queries are dropped
/// lazily is as Shen et al. describe Clipper ("Nexus", SOSP 2019, section 4.3).
#[derive(Debug)]
pub struct Clipper {
    queue: Fifo,
    cap: f64,
    max_batch: usize,
    objective: Duration,
}

impl Clipper {
    /// Batches that take at most `objective`, of at most `max_batch` rows, and a queue of `max_queue` tasks.
    pub fn new(max_batch: usize, objective: Duration, max_queue: usize) -> Clipper {
        Clipper { queue: Fifo::new(max_queue), cap: 1.0, max_batch, objective }
    }
}

impl Scheduler for Clipper {
    fn arrive(&mut self, _: Instant, task: Task) -> Option<Task> {
        self.queue.push(task)
    }

    fn next(&mut self, now: Instant, _: usize) -> Next {
        let late = self.queue.expired(now);
        if !late.is_empty() {
            return Next::Drop(late);
        }
        match self.queue.run(self.cap as usize) {
            (0, _) => Next::Wait(None),
            (n, _) => Next::Start(self.queue.take(n)),
        }
    }

    fn ended(&mut self, _: Instant, _: usize, batch: &[Task], ran: Duration) {
        let n_rows: usize = batch.iter().map(|task| task.n_rows).sum();
        if ran > self.objective {
            self.cap = (self.cap * BACK_OFF).max(1.0);
        } else if n_rows as f64 >= self.cap.floor() {
            // Only a batch that was as large as it might be says that more would be well.
            self.cap = (self.cap + STEP).min(self.max_batch as f64);
        }
    }

    fn n_waiting(&self) -> usize {
        self.queue.tasks.len()
    }
}
