//! One thread of the generator: it sends what is due and counts what comes back.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::ask::Answer;
use crate::board::Board;
use crate::call::MAX_ANSWER;
use crate::check::Check;
use crate::connect::{Connections, Failure, Keep, Prepared};
use crate::error::{Error, Kind};
use crate::outcome::{Outcome, classify};
use crate::schedule::{Arrivals, Load};
use crate::tally::Event;
use crate::target::Transport;
use crate::timer::{Timer, now};

/// A request that is later than this is given up: the generator is stuck, and what it would measure is itself.
const MAX_LAG: Duration = Duration::from_secs(1);
/// How long the thread waits at most before it looks whether it is to end.
const LOOK: Duration = Duration::from_millis(50);
/// After so many requests that were due at once, answers get their turn.
const IN_A_ROW: usize = 16;
/// How long a closed loop waits after a request that had no connection, so that a server that is gone is not hammered.
const BACK_OFF: Duration = Duration::from_millis(10);
/// How long answers are waited for after a stop.
const PATIENCE: Duration = Duration::from_secs(2);

/// A call, ready to be sent.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) transport: Transport,
    pub(crate) prepared: Prepared,
    pub(crate) n_rows: u64,
    pub(crate) group: usize,
}

/// What all threads share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) calls: Vec<Ready>,
    pub(crate) load: Load,
    pub(crate) deadline: Option<Duration>,
    pub(crate) timeout: Duration,
    pub(crate) check: Option<Check>,
    /// Nothing is sent that is meant to leave after this many nanoseconds since the start.
    pub(crate) until: AtomicU64,
    pub(crate) stop: Arc<AtomicBool>,
    pub(crate) n_threads: usize,
    /// Of one thread.
    pub(crate) max_in_flight: usize,
}

impl Shared {
    fn until(&self) -> Duration {
        Duration::from_nanos(self.until.load(Ordering::Relaxed))
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// What one thread shows.
#[derive(Debug)]
pub(crate) struct Shown {
    pub(crate) board: Mutex<Board>,
    pub(crate) in_flight: AtomicUsize,
    /// Requests whose answers were no longer waited for when the run was stopped.
    pub(crate) n_unfinished: AtomicUsize,
    pub(crate) is_done: AtomicBool,
    /// The thread ended because it could not do its work.
    pub(crate) has_failed: AtomicBool,
    /// The kernel's number of the thread; 0 before it runs.
    pub(crate) thread: AtomicU64,
}

impl Shown {
    pub(crate) fn new(board: Board) -> Shown {
        Shown {
            board: Mutex::new(board),
            in_flight: AtomicUsize::new(0),
            n_unfinished: AtomicUsize::new(0),
            is_done: AtomicBool::new(false),
            has_failed: AtomicBool::new(false),
            thread: AtomicU64::new(0),
        }
    }

    pub(crate) fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A runtime of one thread.
pub(crate) fn runtime() -> Result<Runtime, Error> {
    let built = tokio::runtime::Builder::new_current_thread().enable_all().event_interval(31).build();
    built.map_err(|error| Error::new(Kind::System, format!("no runtime: {error}")))
}

/// One thread at work.
#[derive(Debug, Clone)]
pub(crate) struct Worker {
    pub(crate) shared: Arc<Shared>,
    pub(crate) shown: Arc<Shown>,
    pub(crate) connections: Arc<Connections>,
    pub(crate) number: usize,
    pub(crate) start: Instant,
}

impl Worker {
    /// Sends until the end, and waits for the answers.
    pub(crate) async fn work(self) -> Result<(), Error> {
        let mut tasks = JoinSet::new();
        match &self.shared.load {
            Load::Open(arrivals) => self.open_loop(arrivals, &mut tasks).await?,
            Load::Closed { in_flight } => {
                let n = self.shared.n_threads;
                let own = in_flight / n + usize::from(self.number < in_flight % n);
                for at in 0..own {
                    // Each loop begins with a call of its own.
                    let first = self.number + at * n;
                    tasks.spawn(self.clone().closed_loop(first, *in_flight));
                }
            }
        }
        self.drain(tasks).await;
        self.shown.is_done.store(true, Ordering::Release);
        Ok(())
    }

    async fn open_loop(&self, arrivals: &Arrivals, tasks: &mut JoinSet<()>) -> Result<(), Error> {
        let (shared, timer) = (&self.shared, Timer::new()?);
        let own = arrivals.moments().enumerate().skip(self.number).step_by(shared.n_threads);
        let mut in_a_row = 0;
        for (number, at) in own {
            let Some(due) = self.start.checked_add(at) else { break };
            loop {
                if at >= shared.until() || shared.is_stopped() {
                    return Ok(());
                }
                let left = due.saturating_duration_since(now());
                if left.is_zero() {
                    break;
                }
                in_a_row = 0;
                timer.wait(left.min(LOOK)).await;
            }
            in_a_row += 1;
            if in_a_row % IN_A_ROW == 0 {
                while tasks.try_join_next().is_some() {}
                tokio::task::yield_now().await;
            }
            let lag = now().saturating_duration_since(due);
            if lag > MAX_LAG || self.shown.in_flight.load(Ordering::Relaxed) >= shared.max_in_flight {
                let event = Event { lag, ..Event::new(Outcome::NotSent, Duration::ZERO) };
                self.shown.board().record(at, &event);
                continue;
            }
            while tasks.try_join_next().is_some() {}
            let (worker, in_flight) = (self.clone(), InFlight::new(&self.shown));
            tasks.spawn(async move {
                worker.exchange(number, at, lag, in_flight).await;
            });
        }
        Ok(())
    }

    async fn closed_loop(self, first: usize, step: usize) {
        let mut number = first;
        loop {
            let at = now().saturating_duration_since(self.start);
            if at >= self.shared.until() || self.shared.is_stopped() {
                return;
            }
            let in_flight = InFlight::new(&self.shown);
            if !self.exchange(number, at, Duration::ZERO, in_flight).await {
                tokio::time::sleep_until(tokio::time::Instant::now() + BACK_OFF).await;
            }
            number = number.wrapping_add(step.max(1));
        }
    }

    /// Sends a call and counts what became of it. Whether there was an answer.
    async fn exchange(&self, number: usize, at: Duration, lag: Duration, _in_flight: InFlight) -> bool {
        let shared = &*self.shared;
        let call_number = number % shared.calls.len();
        let call = &shared.calls[call_number];
        let keep = |check: &Check| Keep { most: MAX_ANSWER, budget: Some(Arc::clone(check.budget())) };
        let keep = shared.check.as_ref().map(keep).unwrap_or_default();
        let due = shared.deadline.and_then(|deadline| self.start.checked_add(at)?.checked_add(deadline));
        let sent = self.connections.send(call.transport, &call.prepared, due, &keep);
        let answer = match tokio::time::timeout(shared.timeout, sent).await {
            Ok(answer) => answer,
            Err(_) => Err(Failure::Broken(format!("no answer within {:?}", shared.timeout))),
        };
        let latency = now().saturating_duration_since(self.start).saturating_sub(at);
        let mut event =
            Event { lag, n_rows: call.n_rows, group: call.group, ..Event::new(Outcome::Failed, latency) };
        let answered = match answer {
            Ok(answer) => {
                event.outcome = classify(answer.reply, latency, shared.deadline);
                event.n_bytes = answer.n_bytes;
                event.text = answer.error().map(|error| error.to_string());
                self.check(call_number, &answer, &mut event);
                true
            }
            Err(failure) => {
                if matches!(failure, Failure::Overdue) {
                    event.outcome = Outcome::Overdue;
                }
                event.text = Some(failure.to_string());
                false
            }
        };
        self.shown.board().record(at, &event);
        answered
    }

    fn check(&self, call: usize, answer: &Answer, event: &mut Event) {
        let Some(check) = &self.shared.check else { return };
        if matches!(event.outcome, Outcome::Ok | Outcome::Late)
            && let Some(what) = check.judge(call, answer)
        {
            event.outcome = Outcome::Wrong;
            event.text = Some(what);
        }
    }

    /// Waits for the answers to what was sent; after a stop, not for long.
    async fn drain(&self, mut tasks: JoinSet<()>) {
        let mut stopped = None;
        loop {
            match tokio::time::timeout(LOOK, tasks.join_next()).await {
                Ok(None) => return,
                Ok(Some(_)) => {}
                Err(_) if self.shared.is_stopped() => {
                    let since = *stopped.get_or_insert_with(now);
                    if since.elapsed() > PATIENCE {
                        self.shown.n_unfinished.store(tasks.len(), Ordering::Relaxed);
                        return;
                    }
                }
                Err(_) => {}
            }
        }
    }
}

/// Counts a request as on its way for as long as it lives.
struct InFlight(Arc<Shown>);

impl InFlight {
    fn new(shown: &Arc<Shown>) -> InFlight {
        shown.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(Arc::clone(shown))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
