//! The open loop: calls leave at fixed moments whatever the answers do, and latency counts from the moment a call was
//! meant to leave, so that a stall is seen by every call that it delays.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::load::{Call, Connection, Prepared, Transport, runtime};

/// How long before a call's moment the pacer stops sleeping and spins: sleeping alone is late by more than a small
/// model takes.
const SPIN: Duration = Duration::from_micros(150);
/// Calls that were meant to leave and have not; more means that the generator itself is stuck.
const MAX_LATE: usize = 10_000;

/// A kind of call, with connections that are not in use.
#[derive(Debug)]
pub(crate) struct Stream {
    address: SocketAddr,
    transport: Transport,
    call: Prepared,
    idle: Mutex<Vec<Connection>>,
}

/// One call's fate.
#[derive(Debug)]
pub(crate) struct Sample {
    /// When it was meant to leave.
    pub(crate) at: Instant,
    pub(crate) latency: Duration,
    pub(crate) answer: Result<Bytes>,
    /// Which of the streams it belongs to.
    pub(crate) stream: usize,
}

impl Stream {
    pub(crate) fn new(address: SocketAddr, call: &Call) -> Result<Stream> {
        let prepared = Prepared::new(call, address)?;
        Ok(Stream { address, transport: call.transport, call: prepared, idle: Mutex::default() })
    }

    async fn send(&self, drivers: &Mutex<JoinSet<hyper::Result<()>>>) -> Result<Bytes> {
        let mut connection = match self.take() {
            Some(connection) => connection,
            None => self.open(drivers).await?,
        };
        let answer = connection.send(&self.call).await?;
        if self.transport == Transport::Rest {
            self.lock().push(connection);
        }
        Ok(answer)
    }

    /// An idle connection; of gRPC a sender on the one there is.
    fn take(&self) -> Option<Connection> {
        let mut idle = self.lock();
        match idle.first().and_then(Connection::share) {
            Some(shared) => Some(shared),
            None => idle.pop(),
        }
    }

    async fn open(&self, drivers: &Mutex<JoinSet<hyper::Result<()>>>) -> Result<Connection> {
        let mut own = JoinSet::new();
        let connection = Connection::open(self.address, self.transport, &mut own).await?;
        drivers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .spawn(async move { own.join_next().await.and_then(Result::ok).unwrap_or(Ok(())) });
        if let Some(shared) = connection.share() {
            self.lock().push(shared);
        }
        Ok(connection)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sends `per_second` calls a second in all, the streams taking turns, until `stop` is set and the last answer there.
/// Blocks.
pub(crate) fn open_loop(streams: &[Arc<Stream>], per_second: u32, stop: &AtomicBool) -> Result<Vec<Sample>> {
    let (due, moments) = mpsc::channel(MAX_LATE);
    let period = Duration::from_secs(1) / per_second;
    std::thread::scope(|scope| {
        let sending = scope.spawn(|| runtime()?.block_on(send_all(streams, moments)));
        let start = Instant::now() + Duration::from_millis(20);
        for k in 0.. {
            let moment = start + period * k;
            wait_for(moment);
            if stop.load(Ordering::Relaxed) || due.try_send(moment).is_err() {
                break;
            }
        }
        drop(due);
        sending.join().map_err(|_| anyhow::anyhow!("the sending thread panicked"))?
    })
}

fn wait_for(moment: Instant) {
    std::thread::sleep(moment.saturating_duration_since(Instant::now()).saturating_sub(SPIN));
    while Instant::now() < moment {
        std::hint::spin_loop();
    }
}

async fn send_all(streams: &[Arc<Stream>], mut moments: mpsc::Receiver<Instant>) -> Result<Vec<Sample>> {
    let drivers = Arc::new(Mutex::new(JoinSet::new()));
    let mut calls = JoinSet::new();
    let mut samples = Vec::new();
    let mut turn = 0;
    while let Some(at) = moments.recv().await {
        let stream = turn % streams.len();
        turn += 1;
        let (to, drivers) = (Arc::clone(&streams[stream]), Arc::clone(&drivers));
        calls.spawn(async move {
            let answer = to.send(&drivers).await;
            Sample { at, latency: at.elapsed(), answer, stream }
        });
        while let Some(ended) = calls.try_join_next() {
            samples.push(ended?);
        }
    }
    while let Some(ended) = calls.join_next().await {
        samples.push(ended.context("a call panicked")?);
    }
    Ok(samples)
}
