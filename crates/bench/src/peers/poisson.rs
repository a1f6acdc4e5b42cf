//! The open loop with random gaps: calls leave whatever the answers do, each is counted by what became of it, and
//! latency counts from the moment a call was meant to leave.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::load::{Call, Connection, Prepared, Rejected, Target, Transport, runtime};

/// The shortest sleep between calls: shorter ones would take a processor from the server.
const NAP: Duration = Duration::from_micros(200);
/// Calls that were meant to leave and have not; more are not sent.
const MAX_DUE: usize = 100_000;
/// Connections of a transport that carries one call at a time.
const MAX_CONNECTIONS: usize = 4_000;
/// Connections of gRPC, which take turns.
const GRPC_CONNECTIONS: usize = 4;
/// How long answers are waited for after the last call.
const DRAIN: Duration = Duration::from_secs(2);
/// How long a server may take to answer promptly again.
const SETTLE: Duration = Duration::from_secs(30);

/// What is offered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Offer {
    pub(crate) per_second: f64,
    pub(crate) time: Duration,
    /// An answer that comes later is of no use.
    pub(crate) deadline: Duration,
}

/// What became of the calls. Those that were meant to leave are the sum of the counts.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Answered within the deadline.
    pub(crate) good: usize,
    /// Answered later.
    pub(crate) late: usize,
    /// The server has said that it has too much to do.
    pub(crate) refused: usize,
    /// Another error.
    pub(crate) failed: usize,
    /// No answer, or not sent at all, when the time was over.
    pub(crate) unanswered: usize,
    /// Of answers, good and late.
    pub(crate) latencies: Vec<Duration>,
    /// How much later than meant the calls left.
    pub(crate) lags: Vec<Duration>,
    /// Why the first failed.
    pub(crate) failure: Option<String>,
}

#[derive(Debug)]
enum Fate {
    Answered(Duration),
    Refused,
    Failed(String),
    NotSent,
}

/// Connections to one server.
#[derive(Debug)]
struct Pool {
    address: SocketAddr,
    transport: Transport,
    call: Prepared,
    idle: Mutex<Vec<Connection>>,
    n_open: AtomicUsize,
    turn: AtomicUsize,
    drivers: Mutex<JoinSet<hyper::Result<()>>>,
    /// Held while a shared connection that broke is opened again.
    repair: tokio::sync::Mutex<()>,
    /// Why the first connection broke.
    broken: Mutex<Option<String>>,
}

impl Pool {
    fn new(target: &impl Target, call: &Call) -> Result<Pool> {
        let address = target.address(call.transport);
        Ok(Pool {
            address,
            transport: call.transport,
            call: Prepared::new(call, address)?,
            idle: Mutex::default(),
            n_open: AtomicUsize::new(0),
            turn: AtomicUsize::new(0),
            drivers: Mutex::default(),
            repair: tokio::sync::Mutex::default(),
            broken: Mutex::default(),
        })
    }

    async fn send(&self, at: Instant) -> Fate {
        let (mut connection, is_own) = match self.take().await {
            Ok(Some(taken)) => taken,
            Ok(None) => return Fate::NotSent,
            Err(error) => return Fate::Failed(format!("{error:#}")),
        };
        let answer = connection.send(&self.call).await;
        let latency = at.elapsed();
        match answer.as_ref().is_err_and(|error| !error.is::<Rejected>()) {
            // A connection that broke is of no more use.
            true => self.leave(is_own),
            false => self.give_back(connection, is_own),
        }
        match answer {
            Ok(_) => Fate::Answered(latency),
            Err(error) => match error.downcast_ref::<Rejected>() {
                Some(rejected) if rejected.is_overload() => Fate::Refused,
                _ => Fate::Failed(format!("{error:#}")),
            },
        }
    }

    /// A connection, and whether no other call is on it; `None` where there are too many.
    async fn take(&self) -> Result<Option<(Connection, bool)>> {
        if self.transport == Transport::Grpc {
            return Ok(Some((self.shared().await?, false)));
        }
        if let Some(idle) = lock(&self.idle).pop() {
            return Ok(Some((idle, true)));
        }
        if self.n_open.fetch_add(1, Ordering::Relaxed) >= MAX_CONNECTIONS {
            self.leave(true);
            return Ok(None);
        }
        match self.open().await {
            Ok(connection) => Ok(Some((connection, true))),
            Err(error) => {
                self.leave(true);
                Err(error)
            }
        }
    }

    /// One of the connections of gRPC, opened again if it broke.
    async fn shared(&self) -> Result<Connection> {
        let at = self.turn.fetch_add(1, Ordering::Relaxed) % GRPC_CONNECTIONS;
        let whole = || {
            let idle = lock(&self.idle);
            idle.get(at).filter(|connection| !connection.is_closed()).and_then(Connection::share)
        };
        if let Some(connection) = whole() {
            return Ok(connection);
        }
        let _one_at_a_time = self.repair.lock().await;
        if let Some(connection) = whole() {
            return Ok(connection);
        }
        let connection = self.open().await?;
        let shared = connection.share().context("gRPC connections are shared")?;
        if let Some(place) = lock(&self.idle).get_mut(at) {
            *place = connection;
        }
        Ok(shared)
    }

    fn give_back(&self, connection: Connection, is_own: bool) {
        match connection {
            _ if !is_own => {}
            Connection::Ended => self.leave(true),
            connection => lock(&self.idle).push(connection),
        }
    }

    fn leave(&self, is_own: bool) {
        if is_own {
            self.n_open.fetch_sub(1, Ordering::Relaxed);
        }
    }

    async fn open(&self) -> Result<Connection> {
        let mut own = JoinSet::new();
        let connection = Connection::open(self.address, self.transport, &mut own).await?;
        let mut drivers = lock(&self.drivers);
        while let Some(ended) = drivers.try_join_next() {
            if let Ok(Err(error)) = ended {
                lock(&self.broken).get_or_insert(format!("{:#}", anyhow::Error::from(error)));
            }
        }
        drivers.spawn(async move { own.join_next().await.and_then(Result::ok).unwrap_or(Ok(())) });
        Ok(connection)
    }

    /// Opens what all calls share.
    async fn prepare(&self) -> Result<()> {
        if self.transport == Transport::Grpc {
            for _ in 0..GRPC_CONNECTIONS {
                let mut connection = self.open().await?;
                // An answer says that the connection is there; what it says is of no matter yet.
                if let Err(error) = connection.send(&self.call).await
                    && !error.is::<Rejected>()
                {
                    return Err(error);
                }
                lock(&self.idle).push(connection);
            }
        }
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Offers calls for the time of the offer and counts what becomes of them. Blocks.
pub(crate) fn offer(target: &impl Target, call: &Call, offer: Offer) -> Result<Outcome> {
    let pool = Arc::new(Pool::new(target, call)?);
    let runtime = runtime()?;
    runtime.block_on(pool.prepare()).context("connecting")?;
    let (due, moments) = mpsc::channel(MAX_DUE);
    let start = Instant::now() + Duration::from_millis(20);
    std::thread::scope(|scope| {
        let pacer = scope.spawn(move || pace(start, offer, &due));
        let mut outcome = runtime.block_on(send_all(&pool, moments, offer.deadline))?;
        outcome.unanswered += pacer.join().map_err(|_| anyhow::anyhow!("the pacer panicked"))?;
        Ok(outcome)
    })
}

/// Says the moments as they come; gives the number of those that found no place.
fn pace(start: Instant, offer: Offer, due: &mpsc::Sender<Instant>) -> usize {
    let mut gaps = Gaps::new(offer.per_second);
    let end = start + offer.time;
    let mut moment = start + gaps.next_gap();
    let mut not_sent = 0;
    while moment < end {
        let early = moment.saturating_duration_since(Instant::now());
        if !early.is_zero() {
            std::thread::sleep(early.max(NAP));
        }
        if due.try_send(moment).is_err() {
            not_sent += 1;
        }
        moment += gaps.next_gap();
    }
    not_sent
}

async fn send_all(
    pool: &Arc<Pool>,
    mut moments: mpsc::Receiver<Instant>,
    deadline: Duration,
) -> Result<Outcome> {
    let mut calls = JoinSet::new();
    let mut outcome = Outcome::default();
    while let Some(at) = moments.recv().await {
        let to = Arc::clone(pool);
        outcome.lags.push(at.elapsed());
        calls.spawn(async move { to.send(at).await });
        while let Some(ended) = calls.try_join_next() {
            outcome.count(ended?, deadline);
        }
    }
    let drain = async {
        while let Some(ended) = calls.join_next().await {
            outcome.count(ended?, deadline);
        }
        anyhow::Ok(())
    };
    if let Ok(drained) = tokio::time::timeout(DRAIN, drain).await {
        drained?;
    }
    outcome.unanswered += calls.len();
    if let (Some(failure), Some(why)) = (&mut outcome.failure, &*lock(&pool.broken)) {
        *failure += &format!(", after a connection broke: {why}");
    }
    Ok(outcome)
}

impl Outcome {
    fn count(&mut self, fate: Fate, deadline: Duration) {
        match fate {
            Fate::Answered(latency) => {
                match latency <= deadline {
                    true => self.good += 1,
                    false => self.late += 1,
                }
                self.latencies.push(latency);
            }
            Fate::Refused => self.refused += 1,
            Fate::Failed(why) => {
                self.failed += 1;
                self.failure.get_or_insert(why);
            }
            Fate::NotSent => self.unanswered += 1,
        }
    }

    pub(crate) fn offered(&self) -> usize {
        self.good + self.late + self.refused + self.failed + self.unanswered
    }
}

/// Waits until a call is answered within `promptly`: what was left of the calls before has been worked off.
pub(crate) fn settle(target: &impl Target, call: &Call, promptly: Duration) -> Result<()> {
    let give_up = Instant::now() + SETTLE;
    let address = target.address(call.transport);
    let prepared = Prepared::new(call, address)?;
    runtime()?.block_on(async {
        while Instant::now() < give_up {
            let mut tasks = JoinSet::new();
            let once =
                async { Connection::open(address, call.transport, &mut tasks).await?.send(&prepared).await };
            let sent = Instant::now();
            let answer = tokio::time::timeout(SETTLE, once).await;
            if matches!(answer, Ok(Ok(_))) && sent.elapsed() <= promptly {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        bail!("no prompt answer for {} s", SETTLE.as_secs())
    })
}

/// Gaps between the arrivals of a Poisson process, the same in each run.
struct Gaps {
    mean: f64,
    state: u64,
}

impl Gaps {
    fn new(per_second: f64) -> Gaps {
        Gaps { mean: 1.0 / per_second.max(1e-3), state: 42 }
    }

    /// The logarithm of a number between 0 and 1 that splitmix64 makes.
    fn next_gap(&mut self) -> Duration {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let part = ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64;
        Duration::from_secs_f64(-(1.0 - part).ln() * self.mean)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_exponential() {
        let mut gaps = Gaps::new(1_000.0);
        let n = 20_000;
        let mut drawn: Vec<f64> = (0..n).map(|_| gaps.next_gap().as_secs_f64() * 1e3).collect();
        drawn.sort_by(f64::total_cmp);
        let mean = drawn.iter().sum::<f64>() / f64::from(n);
        assert!((mean - 1.0).abs() < 0.03, "{mean}");
        for (part, expected) in [(0.5, std::f64::consts::LN_2), (0.9, std::f64::consts::LN_10)] {
            let value = drawn[(f64::from(n) * part) as usize];
            assert!((value - expected).abs() < 0.05, "{part}: {value}");
        }
    }

    #[test]
    fn calls_are_counted_by_their_fate() {
        let mut outcome = Outcome::default();
        for fate in [
            Fate::Answered(Duration::from_millis(100)),
            Fate::Answered(Duration::from_millis(101)),
            Fate::Refused,
            Fate::Failed("first".to_owned()),
            Fate::Failed("second".to_owned()),
            Fate::NotSent,
        ] {
            outcome.count(fate, Duration::from_millis(100));
        }
        let counts = [outcome.good, outcome.late, outcome.refused, outcome.failed, outcome.unanswered];
        assert_eq!(counts, [1, 1, 1, 2, 1]);
        assert_eq!(outcome.offered(), 6);
        assert_eq!(outcome.latencies.len(), 2);
        assert_eq!(outcome.failure.as_deref(), Some("first"));
    }
}
