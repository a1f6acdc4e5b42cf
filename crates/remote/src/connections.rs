//! The connections to one peer, opened as they are needed and again when they break.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioExecutor;
use tokio::task::JoinSet;

use crate::address::Peer;
use crate::clock::now;
use crate::dial::Dialer;
use crate::exchange::{Ask, Failure, Reply, broken, read};
use crate::protocol::Transport;

type Http1 = http1::SendRequest<Full<Bytes>>;
type Http2 = http2::SendRequest<Full<Bytes>>;

/// Bytes of windows: large bodies travel without waiting for leave.
const WINDOW: u32 = 16 << 20;
/// Bytes of the frames that a peer may send.
const FRAME: u32 = 256 << 10;
/// HTTP/1.1 connections that are kept without a call.
const MAX_IDLE: usize = 64;

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What one call goes out on.
#[derive(Debug)]
pub(crate) enum Line {
    Shared(Http2),
    Fresh(Http1),
    /// It has carried calls before.
    Used(Http1),
}

#[derive(Debug)]
pub(crate) struct Connections {
    peer: Peer,
    dialer: Arc<Dialer>,
    /// HTTP/2: calls take turns on these.
    shared: Vec<Shared>,
    turn: AtomicUsize,
    /// HTTP/1.1: those that carry no call.
    idle: Mutex<Vec<Http1>>,
    drivers: Mutex<JoinSet<()>>,
}

/// One connection that calls share.
#[derive(Debug, Default)]
struct Shared {
    sender: tokio::sync::Mutex<Option<Http2>>,
    /// Attempts to connect that failed.
    n_failed: AtomicU64,
}

impl Connections {
    /// `n` for HTTP/2. For HTTP/1.1 there are as many as calls under way, which the caller bounds.
    pub(crate) fn new(peer: Peer, dialer: Arc<Dialer>, n: usize) -> Connections {
        Connections {
            peer,
            dialer,
            shared: (0..n.max(1)).map(|_| Shared::default()).collect(),
            turn: AtomicUsize::new(0),
            idle: Mutex::default(),
            drivers: Mutex::default(),
        }
    }

    pub(crate) fn peer(&self) -> &Peer {
        &self.peer
    }

    /// A connection for one call, opened if need be.
    ///
    /// # Errors
    /// [`Failure::Unreachable`].
    pub(crate) async fn line(&self, transport: Transport) -> Result<Line, Failure> {
        Ok(match transport {
            Transport::Http1 => match self.idle_http1().await {
                Some(sender) => Line::Used(sender),
                None => Line::Fresh(self.open_http1().await?),
            },
            Transport::Http2 => Line::Shared(self.sender().await?),
        })
    }

    /// Sends a request and reads the answer. Dropping the future ends the call; over HTTP/1.1 the connection ends with it.
    ///
    /// # Errors
    /// When there is no answer, or one that is an error. The deadline is told to the peer and not watched here.
    pub(crate) async fn send(&self, line: Line, ask: &Ask, deadline: Instant) -> Result<Reply, Failure> {
        match line {
            Line::Shared(sender) => self.send_http2(sender, ask, deadline).await,
            Line::Fresh(sender) => self.send_http1(sender, ask, deadline).await,
            Line::Used(mut sender) => {
                let request = self.request(ask, deadline)?;
                match sender.send_request(request).await {
                    Ok(response) => self.answer_http1(sender, response, ask).await,
                    // The server may close an idle connection just as it is used again, which says nothing of the server.
                    Err(_) => self.send_http1(self.open_http1().await?, ask, deadline).await,
                }
            }
        }
    }

    /// Whether a connection is there or comes about.
    ///
    /// # Errors
    /// Why not.
    pub(crate) async fn check(&self, transport: Transport) -> Result<(), Failure> {
        match transport {
            Transport::Http1 => {
                let sender = self.open_http1().await?;
                self.keep(sender);
            }
            Transport::Http2 => drop(self.sender().await?),
        }
        Ok(())
    }

    fn request(&self, ask: &Ask, deadline: Instant) -> Result<Request<Full<Bytes>>, Failure> {
        ask.request(&self.peer, self.dialer.is_secure(), now(), deadline)
    }

    async fn send_http1(&self, mut sender: Http1, ask: &Ask, deadline: Instant) -> Result<Reply, Failure> {
        let response = sender.send_request(self.request(ask, deadline)?).await;
        self.answer_http1(sender, response.map_err(|error| broken(&error))?, ask).await
    }

    async fn answer_http1(
        &self,
        sender: Http1,
        response: http::Response<Incoming>,
        ask: &Ask,
    ) -> Result<Reply, Failure> {
        let result = read(response, ask).await;
        // One whose answer was not read to its end is of no more use.
        if matches!(result, Ok(_) | Err(Failure::Status { .. })) {
            self.keep(sender);
        }
        result
    }

    /// One that was kept and that the server has not closed meanwhile.
    async fn idle_http1(&self) -> Option<Http1> {
        loop {
            let mut sender = lock(&self.idle).pop()?;
            if sender.ready().await.is_ok() {
                return Some(sender);
            }
        }
    }

    fn keep(&self, sender: Http1) {
        let mut idle = lock(&self.idle);
        if idle.len() < MAX_IDLE {
            idle.push(sender);
        }
    }

    async fn send_http2(&self, mut sender: Http2, ask: &Ask, deadline: Instant) -> Result<Reply, Failure> {
        let mut sent = sender.try_send_request(self.request(ask, deadline)?).await;
        if let Err(error) = &mut sent
            && let Some(request) = error.take_message()
        {
            // The connection was closing and nothing was sent, which is no fault of the server.
            sent = self.sender().await?.try_send_request(request).await;
        }
        read(sent.map_err(|error| broken(error.error()))?, ask).await
    }

    /// One of the shared connections, opened if need be. Those who wait for one attempt share its failure.
    async fn sender(&self) -> Result<Http2, Failure> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % self.shared.len();
        let shared = &self.shared[turn];
        let n_failed = shared.n_failed.load(Ordering::Acquire);
        let mut slot = shared.sender.lock().await;
        if let Some(sender) = slot.as_ref().filter(|sender| !sender.is_closed()) {
            return Ok(sender.clone());
        }
        if shared.n_failed.load(Ordering::Acquire) != n_failed {
            return Err(Failure::Unreachable("cannot connect: the last attempt failed just now".to_owned()));
        }
        match self.open_http2().await {
            Ok(sender) => Ok(slot.insert(sender).clone()),
            Err(failure) => {
                shared.n_failed.fetch_add(1, Ordering::AcqRel);
                Err(failure)
            }
        }
    }

    async fn open_http1(&self) -> Result<Http1, Failure> {
        let io = self.dialer.dial(&self.peer, Transport::Http1).await.map_err(Failure::Unreachable)?;
        let (sender, driver) = http1::handshake(io).await.map_err(|error| unreachable(&error))?;
        self.drive(driver);
        Ok(sender)
    }

    async fn open_http2(&self) -> Result<Http2, Failure> {
        let io = self.dialer.dial(&self.peer, Transport::Http2).await.map_err(Failure::Unreachable)?;
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .max_frame_size(FRAME);
        let (sender, driver) = builder.handshake(io).await.map_err(|error| unreachable(&error))?;
        self.drive(driver);
        Ok(sender)
    }

    /// How a connection ended is told to the calls that it carried.
    fn drive(&self, driver: impl Future<Output = hyper::Result<()>> + Send + 'static) {
        let mut drivers = lock(&self.drivers);
        while drivers.try_join_next().is_some() {}
        drivers.spawn(async move { drop(driver.await) });
    }
}

fn unreachable(error: &hyper::Error) -> Failure {
    match broken(error) {
        Failure::Broken(why) => Failure::Unreachable(why),
        other => other,
    }
}
