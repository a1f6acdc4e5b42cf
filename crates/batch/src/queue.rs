//! What waits for a lane, and the numbers that go with it.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use salver_tensor::Tensor;
use tokio::sync::oneshot;

use crate::cost::{Costs, Forecast};
use crate::key::{Key, known};
use crate::policy::{Shares, Turns, View};
use crate::{Done, Limit, Priorities, RunError, Task, Waiting};

/// What a run costs of which nothing is known, as far as weights of priorities are concerned.
const UNKNOWN: Duration = Duration::from_millis(1);

/// Of tasks that are foreseen to be late, and of whose kind nothing waits or runs, one in so many is run all the same; more
/// often when nothing runs at all.
const PROBE_EVERY: usize = 16;
const PROBE_IDLE: usize = 4;

/// What the lanes need of a task that the policy does not.
#[derive(Debug)]
pub(crate) struct Ticket {
    pub(crate) id: u64,
    pub(crate) task: Task,
    pub(crate) n_bytes: usize,
    pub(crate) reply: oneshot::Sender<Result<Done, RunError>>,
}

impl Ticket {
    /// Answers the caller, who may have left.
    pub(crate) fn answer(self, result: Result<Done, RunError>) {
        drop(self.reply.send(result));
    }
}

/// A task on its way from the queue to its answer.
#[derive(Debug)]
pub(crate) struct Queued {
    pub(crate) waiting: Waiting<Key>,
    pub(crate) ticket: Ticket,
}

/// Where a caller hears of its task.
pub(crate) type Reply = oneshot::Receiver<Result<Done, RunError>>;

/// Tasks in order of arrival: what the policy sees and what it does not, at equal positions. And the runs under way.
#[derive(Debug)]
pub(crate) struct Queue {
    pub(crate) waiting: VecDeque<Waiting<Key>>,
    tickets: VecDeque<Ticket>,
    pub(crate) n_bytes: usize,
    pub(crate) n_running: usize,
    next_id: u64,
    /// The lanes that run and the kind of what they run, and when they are expected to end.
    running: Vec<(usize, u32)>,
    ends: Vec<Instant>,
    /// How long lanes wait for threads, about.
    delay: Duration,
    shares: Shares,
    turns: Turns,
    pub(crate) limit: Limit,
    /// Tasks of each kind refused as late since the last run of that kind.
    n_late: HashMap<u32, usize>,
    /// No lane starts anything any more.
    pub(crate) stopped: bool,
    /// Lanes that wait for threads to run on.
    pub(crate) n_in_line: usize,
    /// The first deadline that those lanes know of.
    pub(crate) known_deadline: Option<Instant>,
}

impl Queue {
    pub(crate) fn new(limit: Limit) -> Queue {
        Queue {
            waiting: VecDeque::new(),
            tickets: VecDeque::new(),
            n_bytes: 0,
            n_running: 0,
            next_id: 0,
            running: Vec::new(),
            ends: Vec::new(),
            delay: Duration::ZERO,
            shares: Shares::default(),
            turns: Turns::default(),
            limit,
            n_late: HashMap::new(),
            stopped: false,
            n_in_line: 0,
            known_deadline: None,
        }
    }

    /// What the policy sees.
    pub(crate) fn view(&self, n_lanes: usize, n_startable: usize, closing: bool) -> View<'_, Key> {
        View {
            waiting: &self.waiting,
            n_bytes: self.n_bytes,
            closing,
            n_lanes,
            ends: &self.ends,
            n_startable,
            delay: self.delay,
            shares: &self.shares,
            is_contended: self.turns.n_callers() > 1,
        }
    }

    /// A task of this kind is foreseen to be late. Says whether it is time to find out if runs take as long as foreseen:
    /// otherwise one slow run could have all tasks refused, and no other run would ever tell better.
    pub(crate) fn is_probe_due(&mut self, kind: u32) -> bool {
        let is_idle = self.waiting.is_empty() && self.running.is_empty();
        let will_tell = self.running.iter().any(|&(_, running)| running == kind)
            || self.waiting.iter().any(|task| known(task.kind) == kind);
        let n_late = self.n_late.entry(kind).or_default();
        *n_late += 1;
        let is_due = !will_tell && *n_late >= if is_idle { PROBE_IDLE } else { PROBE_EVERY };
        if is_due {
            self.n_late.remove(&kind);
        }
        is_due
    }

    /// Whose tasks wait.
    pub(crate) fn turns(&self) -> &Turns {
        &self.turns
    }

    pub(crate) fn push(&mut self, mut waiting: Waiting<Key>, task: Task, n_bytes: usize) -> (u64, Reply) {
        let (reply, answer) = oneshot::channel();
        let id = self.next_id;
        self.next_id += 1;
        self.n_bytes += n_bytes;
        waiting.turn = self.turns.join(waiting.caller, waiting.n_rows);
        self.shares.joined(waiting.priority);
        self.waiting.push_back(waiting);
        self.tickets.push_back(Ticket { id, task, n_bytes, reply });
        (id, answer)
    }

    /// Takes out the tasks at these positions, which ascend, without running them.
    pub(crate) fn take(&mut self, positions: &[usize]) -> Vec<Queued> {
        self.take_for(positions, false)
    }

    pub(crate) fn take_all(&mut self) -> Vec<Queued> {
        let all: Vec<usize> = (0..self.waiting.len()).collect();
        self.take(&all)
    }

    /// Takes out the task of this number, if it still waits. Numbers ascend, whatever was taken out between.
    pub(crate) fn take_id(&mut self, id: u64) -> Option<Queued> {
        let at = self.tickets.binary_search_by_key(&id, |ticket| ticket.id).ok()?;
        self.remove(at, false)
    }

    /// Takes out the tasks at these positions, which this lane runs now.
    pub(crate) fn start(
        &mut self,
        lane: usize,
        now: Instant,
        positions: &[usize],
        costs: &Costs,
        priorities: &Priorities,
    ) -> Vec<Queued> {
        let batch = self.take_for(positions, true);
        self.n_running += batch.len();
        let n_rows: usize = batch.iter().map(|queued| queued.waiting.n_rows).sum();
        let estimate = batch.first().and_then(|queued| costs.estimate(queued.waiting.kind, n_rows));
        let kind = batch.first().map_or(0, |queued| known(queued.waiting.kind));
        self.n_late.remove(&kind);
        self.running.push((lane, kind));
        self.ends.push(now.checked_add(estimate.unwrap_or_default().p50).unwrap_or(now));
        if let Priorities::Weighted(weights) = priorities {
            let time = estimate.map_or(UNKNOWN, |estimate| estimate.p50);
            for queued in &batch {
                let part = queued.waiting.n_rows as f64 / n_rows.max(1) as f64;
                self.shares.charge(queued.waiting.priority, time.mul_f64(part), weights);
            }
        }
        batch
    }

    fn take_for(&mut self, positions: &[usize], served: bool) -> Vec<Queued> {
        let mut taken: Vec<Queued> =
            positions.iter().rev().filter_map(|&at| self.remove(at, served)).collect();
        taken.reverse();
        taken
    }

    fn remove(&mut self, at: usize, served: bool) -> Option<Queued> {
        let queued = Queued { waiting: self.waiting.remove(at)?, ticket: self.tickets.remove(at)? };
        self.n_bytes -= queued.ticket.n_bytes;
        let Waiting { priority, caller, turn, .. } = queued.waiting;
        self.shares.left(priority);
        self.turns.leave(caller, turn, served);
        Some(queued)
    }

    /// This lane has run so many tasks; some of them had so much time left, or too little.
    pub(crate) fn finished(&mut self, lane: usize, n_tasks: usize, slacks: &[Option<Duration>]) {
        for &slack in slacks {
            self.limit.answered(slack, self.waiting.len() + self.n_running);
        }
        self.n_running -= n_tasks;
        if let Some(at) = self.running.iter().position(|&(running, _)| running == lane) {
            self.running.swap_remove(at);
            self.ends.swap_remove(at);
        }
    }

    /// A lane has waited so long for threads.
    pub(crate) fn delayed(&mut self, time: Duration) {
        self.delay = (self.delay * 7 + time) / 8;
    }

    /// Bytes of the inputs of a task.
    pub(crate) fn bytes_of(task: &Task) -> usize {
        task.inputs.iter().map(Tensor::n_bytes).sum()
    }
}
