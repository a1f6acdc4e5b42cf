use std::time::{Duration, Instant};

use super::{Fifo, Next, Scheduler, Task};

/// A size cap and a time-out: a batch starts when it is full or its first task has waited long enough. Tasks are served in
/// order of arrival, an odd shape ends the batch, a full queue refuses, deadlines are not looked at.
///
/// After the "BasicBatchScheduler" of Olston et al., "TensorFlow-Serving: Flexible, High-Performance ML Serving" (ML
/// Systems Workshop at NIPS 2017, section 4), whose parameters are `max_batch_size`, `batch_timeout_micros` and
/// `max_enqueued_batches`, and after the dynamic batcher that Triton documents (`max_queue_delay_microseconds`,
/// `max_queue_size`).
#[derive(Debug)]
pub struct FixedWait {
    queue: Fifo,
    max_batch: usize,
    timeout: Duration,
}

impl FixedWait {
    /// Batches of at most `max_batch` rows, tasks that wait at most `timeout` for others, a queue of `max_queue` tasks.
    pub fn new(max_batch: usize, timeout: Duration, max_queue: usize) -> FixedWait {
        FixedWait { queue: Fifo::new(max_queue), max_batch, timeout }
    }
}

impl Scheduler for FixedWait {
    fn arrive(&mut self, _: Instant, task: Task) -> Option<Task> {
        self.queue.push(task)
    }

    fn next(&mut self, now: Instant, _: usize) -> Next {
        let Some(first) = self.queue.tasks.front() else { return Next::Wait(None) };
        let due = first.arrived + self.timeout;
        let (n, n_rows) = self.queue.run(self.max_batch);
        let is_full = n_rows >= self.max_batch || n < self.queue.tasks.len();
        if is_full || due <= now { Next::Start(self.queue.take(n)) } else { Next::Wait(Some(due)) }
    }

    fn ended(&mut self, _: Instant, _: usize, _: &[Task], _: Duration) {}

    fn n_waiting(&self) -> usize {
        self.queue.tasks.len()
    }
}
