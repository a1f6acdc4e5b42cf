use std::time::{Duration, Instant};

use super::{Fifo, Next, Scheduler, Task};
use crate::Engine;

/// A batch size is planned from profiles so that twice the time of a batch is within the objective. A window of that many
/// rows slides over the queue until its first task has time for the run of the whole window; what is before that
/// is dropped.
///
/// After Shen et al., "Nexus: A GPU Cluster Engine for Accelerating DNN-Based Video Analysis" (SOSP 2019, sections 4.1 for
/// the planned size and 4.3/6.3 for early drop). A session is a model and its latency objective, so each shape with each
/// time-out has a queue of its own. Profiles are the engine's true times, which no server knows; so that runs that take a
/// little longer than usual are no surprise, a run counts as its 90th percentile. The paper's epochs and duty cycles
/// for sessions that share a GPU are left out: the session whose first task is due first is next.
#[derive(Debug)]
pub struct Nexus {
    sessions: Vec<Session>,
    max_queue: usize,
    engine: Engine,
    max_batch: usize,
    objective: Duration,
}

#[derive(Debug)]
struct Session {
    shape: u32,
    timeout: Option<Duration>,
    queue: Fifo,
    /// Rows of a batch.
    planned: usize,
}

impl Nexus {
    /// Plans with the true times of `engine` for what tasks have time for, or `objective` for those without a deadline; at most
    /// `max_batch` rows, and a queue of `max_queue` tasks.
    pub fn new(engine: Engine, max_batch: usize, objective: Duration, max_queue: usize) -> Nexus {
        Nexus { sessions: Vec::new(), max_queue, engine, max_batch, objective }
    }

    fn planned(&self, shape: u32, objective: Duration) -> usize {
        let fits = |&n: &usize| 2.0 * self.engine.seconds_p90(shape, n) <= objective.as_secs_f64();
        (1..=self.max_batch).rev().find(fits).unwrap_or(1)
    }

    fn session(&mut self, shape: u32, timeout: Option<Duration>) -> Option<&mut Session> {
        let is_it = |session: &Session| session.shape == shape && session.timeout == timeout;
        let at = self.sessions.iter().position(is_it).unwrap_or(self.sessions.len());
        if at == self.sessions.len() {
            let planned = self.planned(shape, timeout.unwrap_or(self.objective));
            self.sessions.push(Session { shape, timeout, queue: Fifo::new(self.max_queue), planned });
        }
        self.sessions.get_mut(at)
    }
}

impl Scheduler for Nexus {
    fn arrive(&mut self, _: Instant, task: Task) -> Option<Task> {
        if self.n_waiting() >= self.max_queue {
            return Some(task);
        }
        let timeout = task.deadline.map(|deadline| deadline - task.arrived);
        self.session(task.shape, timeout)?.queue.push(task)
    }

    fn next(&mut self, now: Instant, _: usize) -> Next {
        let objective = self.objective;
        let due = |task: &Task| task.deadline.unwrap_or(task.arrived + objective);
        let first = |session: &Session| session.queue.tasks.front().map(due);
        let waiting = self.sessions.iter().enumerate().filter_map(|(at, one)| Some((first(one)?, at)));
        let Some((_, at)) = waiting.min() else { return Next::Wait(None) };
        let Some(Session { shape, queue, planned, .. }) = self.sessions.get_mut(at) else {
            return Next::Wait(None);
        };
        // The window from each task on: as many rows as were planned, or what there is.
        let time = |first: usize| {
            let mut n_rows = 0;
            for task in queue.tasks.iter().skip(first) {
                if n_rows > 0 && n_rows + task.n_rows > *planned {
                    break;
                }
                n_rows += task.n_rows;
            }
            Duration::from_secs_f64(self.engine.seconds_p90(*shape, n_rows))
        };
        let makes_it = |(at, task): (usize, &Task)| task.deadline.is_none_or(|end| now + time(at) <= end);
        // Those of one session have the same time, so none behind the first that makes it is due before it.
        let n_dropped = queue.tasks.iter().enumerate().position(makes_it).unwrap_or(queue.tasks.len());
        if n_dropped > 0 {
            return Next::Drop(queue.take(n_dropped));
        }
        let (n, _) = queue.run(*planned);
        Next::Start(queue.take(n))
    }

    fn ended(&mut self, _: Instant, _: usize, _: &[Task], _: Duration) {}

    fn n_waiting(&self) -> usize {
        self.sessions.iter().map(|session| session.queue.tasks.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Curve;

    const MS: Duration = Duration::from_millis(1);

    fn task(id: usize, arrived: Instant, timeout: u32) -> Task {
        let deadline = Some(arrived + timeout * MS);
        Task { id, n_rows: 1, shape: 0, arrived, deadline, priority: 5, caller: 0 }
    }

    fn ids(tasks: &[Task]) -> Vec<usize> {
        tasks.iter().map(|task| task.id).collect()
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any moment serves as the start of simulated time")]
    fn each_objective_has_a_queue_and_a_size_of_its_own() {
        // 1 ms a row: 5 rows take half of 10 ms, 20 half of 40 ms.
        let engine = Engine::new(Curve::Affine { fixed: 0.0, per_row: 1e-3 }, 0.0);
        let mut nexus = Nexus::new(engine, 64, 100 * MS, 1000);
        let start = Instant::now();
        for id in 0..30 {
            let timeout = if id % 2 == 0 { 10 } else { 40 };
            assert!(nexus.arrive(start, task(id, start, timeout)).is_none());
        }
        let Next::Start(batch) = nexus.next(start, 0) else { panic!("a batch is due") };
        assert_eq!(ids(&batch), [0, 2, 4, 6, 8]);
        // 6 ms later none of the urgent has time for the five that would run together, until fewer are left.
        let Next::Drop(dropped) = nexus.next(start + 6 * MS, 0) else { panic!("some are late") };
        assert_eq!(ids(&dropped), [10, 12, 14, 16, 18, 20]);
        let Next::Start(batch) = nexus.next(start + 6 * MS, 0) else { panic!("a batch is due") };
        assert_eq!(ids(&batch), [22, 24, 26, 28]);
        let Next::Start(batch) = nexus.next(start + 10 * MS, 0) else { panic!("a batch is due") };
        assert_eq!(batch.len(), 15, "those of the other session");
    }
}
