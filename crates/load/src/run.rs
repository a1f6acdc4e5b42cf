//! A run: threads are started, watched window by window, and ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use crate::ask::reachable;
use crate::board::Board;
use crate::call::Call;
use crate::check::Check;
use crate::connect::{Connections, Prepared};
use crate::error::{Error, Kind};
use crate::generate::{Ready, Shared, Shown, Worker, runtime};
use crate::process::ProcessTree;
use crate::schedule::Load;
use crate::stable::Timing;
use crate::summary::{Summary, WindowRow};
use crate::target::Target;
use crate::timer::now;
use crate::watch::Watch;

/// What is to be done.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Whom to ask.
    pub target: Target,
    /// What to ask, in turn.
    pub calls: Vec<Call>,
    /// How to send.
    pub load: Load,
    /// How long.
    pub timing: Timing,
    /// Counted from the moment a request was meant to leave. What is left of it is sent with every request, as gRPC's timeout or
    /// as `x-request-timeout-ms`; one with nothing left is not sent, and an answer after it is late.
    pub deadline: Option<Duration>,
    /// How long an answer is waited for.
    pub timeout: Duration,
    /// More headers or metadata, for all calls.
    pub headers: Vec<(String, String)>,
    /// Threads that send.
    pub threads: usize,
    /// Connections for gRPC, all threads together; at least one each.
    pub connections: usize,
    /// The most requests on their way; over HTTP/1 the most connections too. Those beyond are counted as not sent.
    pub max_in_flight: usize,
    /// How answers are looked at, if they are.
    pub check: Option<Check>,
    /// The server's processes, when they run on this machine.
    pub server: Option<ProcessTree>,
}

/// Above this there are too few descriptors and ports.
const MAX_IN_FLIGHT: usize = 60_000;

impl Plan {
    /// One thread, 4 connections for gRPC, 4096 requests on their way, 30 s for an answer, no deadline.
    pub fn new(target: Target, calls: Vec<Call>, load: Load) -> Plan {
        Plan {
            target,
            calls,
            load,
            timing: Timing::default(),
            deadline: None,
            timeout: Duration::from_secs(30),
            headers: Vec::new(),
            threads: 1,
            connections: 4,
            max_in_flight: 4096,
            check: None,
            server: None,
        }
    }

    fn check(&self) -> Result<(), Error> {
        self.load.check()?;
        self.timing.check()?;
        if self.calls.is_empty() {
            return Err(Error::input("there is nothing to send"));
        }
        let n = if let Load::Closed { in_flight } = self.load { in_flight } else { self.max_in_flight };
        if n == 0 || n > MAX_IN_FLIGHT {
            return Err(Error::input(format!("{n} requests in flight, expected 1 to {MAX_IN_FLIGHT}")));
        }
        if !(1..=256).contains(&self.threads) || self.timeout.is_zero() {
            return Err(Error::input(format!(
                "{} threads and {:?} for an answer, expected 1 to 256 and more than 0",
                self.threads, self.timeout
            )));
        }
        Ok(())
    }
}

/// Ends a run from outside: what was measured until then is reported.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Sends nothing more.
    pub fn stop(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it was said.
    pub fn is_stopped(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// The flag itself, for a signal to set.
    pub fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0)
    }
}

/// A window has ended.
#[derive(Debug, Clone, Copy)]
pub struct Progress<'a> {
    /// All windows so far, the last one at the end.
    pub windows: &'a [WindowRow],
    /// Whether that was part of the warm-up.
    pub is_warm_up: bool,
}

/// Does what the plan says. Blocks.
///
/// # Errors
/// As [`run_with`].
pub fn run(plan: &Plan) -> Result<Summary, Error> {
    run_with(plan, &Stop::default(), &mut |_| ())
}

/// Does what the plan says and tells of each window. Blocks until all answers are there or given up.
///
/// # Errors
/// [`Kind::Input`] for a plan that makes no sense, [`Kind::Connect`] when no server answers at the start, [`Kind::System`] when
/// threads or timers are refused. Errors of requests are counted and are none here.
pub fn run_with(plan: &Plan, stop: &Stop, tell: &mut dyn FnMut(&Progress<'_>)) -> Result<Summary, Error> {
    plan.check()?;
    let address = reachable(&plan.target, plan.timeout)?;
    let n_threads = match plan.load {
        Load::Closed { in_flight } => plan.threads.min(in_flight),
        Load::Open(_) => plan.threads,
    };
    let ready = |call: &Call| {
        let prepared = Prepared::new(call, address, &plan.headers)?;
        Ok(Ready { transport: call.transport, prepared, n_rows: call.n_rows, group: call.group })
    };
    let shared = Arc::new(Shared {
        calls: plan.calls.iter().map(ready).collect::<Result<Vec<_>, Error>>()?,
        load: plan.load.clone(),
        deadline: plan.deadline,
        timeout: plan.timeout,
        check: plan.check.clone(),
        until: AtomicU64::new(nanos(plan.timing.warm_up.saturating_add(
            plan.timing.window * u32::try_from(plan.timing.max_windows()).unwrap_or(u32::MAX),
        ))),
        stop: stop.flag(),
        n_threads,
        max_in_flight: plan.max_in_flight.div_ceil(n_threads),
    });
    if let Some(duration) = plan.timing.duration {
        shared.until.store(nanos(plan.timing.warm_up.saturating_add(duration)), Ordering::Relaxed);
    }
    more_descriptors();
    let before = plan.server.and_then(|server| server.used().ok());
    let connections = plan.connections.div_ceil(n_threads).max(1);
    let shown: Vec<Arc<Shown>> = (0..n_threads)
        .map(|_| Arc::new(Shown::new(Board::new(plan.timing.warm_up, plan.timing.window))))
        .collect();
    std::thread::scope(|scope| {
        let (is_ready, ready) = sync_channel(n_threads);
        let mut starts = Vec::new();
        let mut threads = Vec::new();
        for (number, shown) in shown.iter().enumerate() {
            let (start, begin) = sync_channel::<Instant>(1);
            starts.push(start);
            let (shared, shown, is_ready) = (Arc::clone(&shared), Arc::clone(shown), is_ready.clone());
            let connections = Arc::new(Connections::new(address, connections));
            threads.push(
                scope.spawn(move || one_thread(shared, &shown, connections, number, &is_ready, &begin)),
            );
        }
        drop(is_ready);
        let connected = ready.iter().take(n_threads).collect::<Result<Vec<()>, Error>>()?;
        if connected.len() < n_threads {
            // A thread ended before it was ready; the others do so when there is nobody to start them.
            starts.clear();
        }
        let start = now();
        let is_started = !starts.is_empty();
        for one in &starts {
            // A thread that has ended says why below.
            one.send(start).ok();
        }
        let mut watch = Watch::new(plan, &shared, &shown, start, before);
        let measured = is_started.then(|| watch.until_the_end(tell));
        drop(starts);
        for thread in threads {
            let ended =
                thread.join().map_err(|_| Error::new(Kind::System, "a thread of the generator panicked"));
            ended??;
        }
        let measured =
            measured.ok_or_else(|| Error::new(Kind::System, "a thread of the generator did not start"))?;
        Ok(watch.summary(&measured))
    })
}

pub(crate) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Each connection takes a descriptor, and many systems allow no more than 1024 unless they are asked.
fn more_descriptors() {
    let resource = rustix::process::Resource::Nofile;
    let limit = rustix::process::getrlimit(resource);
    let more = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
    // Where that is refused, connections beyond the limit fail and are counted so.
    rustix::process::setrlimit(resource, more).ok();
}

fn one_thread(
    shared: Arc<Shared>,
    shown: &Arc<Shown>,
    connections: Arc<Connections>,
    number: usize,
    is_ready: &SyncSender<Result<(), Error>>,
    begin: &Receiver<Instant>,
) -> Result<(), Error> {
    let thread = rustix::thread::gettid().as_raw_nonzero().get();
    shown.thread.store(u64::try_from(thread).unwrap_or(0), Ordering::Relaxed);
    let runtime = runtime()?;
    let transport = shared.calls.first().map(|call| call.transport);
    let warm = runtime.block_on(async {
        match transport {
            Some(transport) => connections.warm(transport).await,
            None => Ok(()),
        }
    });
    is_ready.send(warm.map_err(|why| Error::new(Kind::Connect, why))).ok();
    // The run is called off when another thread could not connect.
    let Ok(start) = begin.recv() else { return Ok(()) };
    let worked =
        runtime.block_on(Worker { shared, shown: Arc::clone(shown), connections, number, start }.work());
    shown.has_failed.store(worked.is_err(), Ordering::Relaxed);
    shown.is_done.store(true, Ordering::Release);
    // The kernel forgets the times of a thread that has ended, and they are still to be read.
    begin.recv().ok();
    worked
}
