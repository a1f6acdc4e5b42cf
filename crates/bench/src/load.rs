//! Sending calls: light clients over hyper with bodies encoded before, and the closed loop.

use std::net::SocketAddr;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::server::Server;

/// What a call travels over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Transport {
    /// HTTP/1.1
    Rest,
    /// gRPC over HTTP/2
    Grpc,
}

impl Transport {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Transport::Rest => "rest",
            Transport::Grpc => "grpc",
        }
    }
}

/// One request, ready to be sent.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) transport: Transport,
    pub(crate) path: String,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Bytes,
}

/// A call as hyper wants it, to be cloned for each send.
#[derive(Debug, Clone)]
pub(crate) struct Prepared(Request<Full<Bytes>>);

impl Prepared {
    pub(crate) fn new(call: &Call, address: SocketAddr) -> Result<Prepared> {
        let mut request = Request::builder().method(Method::POST);
        for (name, value) in &call.headers {
            request = request.header(*name, value);
        }
        request = match call.transport {
            Transport::Rest => request.uri(&call.path).header("host", address.to_string()),
            Transport::Grpc => request.uri(format!("http://{address}{}", call.path)),
        };
        Ok(Prepared(request.body(Full::new(call.body.clone()))?))
    }
}

/// A client's connection. The tasks that drive it live in the set given to [`Connection::open`].
#[derive(Debug)]
pub(crate) enum Connection {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Connection {
    pub(crate) async fn open(
        address: SocketAddr,
        transport: Transport,
        tasks: &mut JoinSet<hyper::Result<()>>,
    ) -> Result<Connection> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        match transport {
            Transport::Rest => {
                let (sender, driver) = http1::handshake(TokioIo::new(stream)).await?;
                tasks.spawn(driver);
                Ok(Connection::Http1(sender))
            }
            Transport::Grpc => {
                let (sender, driver) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
                tasks.spawn(driver);
                Ok(Connection::Http2(sender))
            }
        }
    }

    /// Another sender on the same connection, where the transport allows it.
    pub(crate) fn share(&self) -> Option<Connection> {
        match self {
            Connection::Http1(_) => None,
            Connection::Http2(sender) => Some(Connection::Http2(sender.clone())),
        }
    }

    /// Sends one call and returns the body of the answer. Anything but success is an error.
    pub(crate) async fn send(&mut self, call: &Prepared) -> Result<Bytes> {
        let request = call.0.clone();
        let response = match self {
            Connection::Http1(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
            Connection::Http2(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
        };
        let (head, body) = response.into_parts();
        let collected = body.collect().await?;
        let trailers = collected.trailers().cloned().unwrap_or_default();
        let body = collected.to_bytes();
        if head.status != 200 {
            bail!("status {}: {}", head.status, String::from_utf8_lossy(&body[..body.len().min(300)]));
        }
        if matches!(self, Connection::Http2(_)) {
            check_grpc(&head.headers, &trailers)?;
        }
        Ok(body)
    }
}

fn check_grpc(headers: &HeaderMap, trailers: &HeaderMap) -> Result<()> {
    let said = |name: &str| trailers.get(name).or_else(|| headers.get(name));
    match said("grpc-status").and_then(|code| code.to_str().ok()) {
        Some("0") => Ok(()),
        code => bail!("grpc-status {code:?}: {:?}", said("grpc-message")),
    }
}

pub(crate) fn runtime() -> Result<Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

/// Sends one call over a connection of its own.
pub(crate) fn once(address: SocketAddr, call: &Call) -> Result<Bytes> {
    let prepared = Prepared::new(call, address)?;
    runtime()?.block_on(async {
        let mut tasks = JoinSet::new();
        Connection::open(address, call.transport, &mut tasks).await?.send(&prepared).await
    })
}

/// What a closed loop saw in its time.
#[derive(Debug)]
pub(crate) struct Window {
    pub(crate) latencies: Vec<Duration>,
    pub(crate) wall: Duration,
    /// CPU time of the server's process.
    pub(crate) cpu: Duration,
}

/// Keeps `in_flight` calls on their way for `time`: each answer is followed by the next call at once. The window ends
/// when the last answer is there, so that the CPU time and the count belong together. Each connection has carried a
/// call before the window begins. gRPC shares one connection per thread.
pub(crate) fn closed_loop(server: &Server, call: &Call, in_flight: usize, time: Duration) -> Result<Window> {
    let n_threads = in_flight.min(2);
    let address = server.address(call.transport);
    let call = Prepared::new(call, address).map(|prepared| (prepared, call.transport))?;
    let barrier = Barrier::new(n_threads + 1);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..n_threads)
            .map(|thread| {
                let n = in_flight / n_threads + usize::from(thread < in_flight % n_threads);
                let (call, barrier) = (&call, &barrier);
                scope.spawn(move || one_thread(address, call, n, time, barrier))
            })
            .collect();
        barrier.wait();
        let (cpu, start) = (server.cpu(), Instant::now());
        barrier.wait();
        barrier.wait();
        let (wall, cpu) = (start.elapsed(), server.cpu()?.saturating_sub(cpu?));
        barrier.wait();
        let mut latencies = Vec::new();
        for thread in threads {
            latencies.extend(thread.join().map_err(|_| anyhow::anyhow!("a load thread panicked"))??);
        }
        Ok(Window { latencies, wall, cpu })
    })
}

/// Passes the barrier four times whatever happens: connected, go, done, measured.
fn one_thread(
    address: SocketAddr,
    (call, transport): &(Prepared, Transport),
    n: usize,
    time: Duration,
    barrier: &Barrier,
) -> Result<Vec<Duration>> {
    let runtime = runtime()?;
    let mut drivers = JoinSet::new();
    let connections = runtime.block_on(connect(address, *transport, call, n, &mut drivers));
    barrier.wait();
    barrier.wait();
    let latencies = match connections {
        Ok(connections) => runtime.block_on(keep_sending(connections, call, time)),
        Err(error) => Err(error),
    };
    barrier.wait();
    barrier.wait();
    latencies
}

async fn connect(
    address: SocketAddr,
    transport: Transport,
    call: &Prepared,
    n: usize,
    drivers: &mut JoinSet<hyper::Result<()>>,
) -> Result<Vec<Connection>> {
    let mut connections: Vec<Connection> = Vec::with_capacity(n);
    for _ in 0..n {
        let connection = match connections.first().and_then(Connection::share) {
            Some(connection) => connection,
            None => {
                let mut connection = Connection::open(address, transport, drivers).await?;
                connection.send(call).await?;
                connection
            }
        };
        connections.push(connection);
    }
    Ok(connections)
}

async fn keep_sending(
    connections: Vec<Connection>,
    call: &Prepared,
    time: Duration,
) -> Result<Vec<Duration>> {
    let end = Instant::now() + time;
    let mut loops = JoinSet::new();
    for mut connection in connections {
        let call = call.clone();
        loops.spawn(async move {
            let mut latencies = Vec::new();
            let mut sent = Instant::now();
            while sent < end {
                connection.send(&call).await?;
                let now = Instant::now();
                latencies.push(now - sent);
                sent = now;
            }
            // The connection goes back, so that closing it is outside of the window.
            anyhow::Ok((latencies, connection))
        });
    }
    let mut all = Vec::new();
    let mut open = Vec::new();
    while let Some(ended) = loops.join_next().await {
        let (latencies, connection) = ended.context("a loop ended early")??;
        all.extend(latencies);
        open.push(connection);
    }
    Ok(all)
}

/// Sends `n` calls one after the other over one connection.
pub(crate) fn closed_requests(server: &Server, call: &Call, n: u32) -> Result<()> {
    let address = server.address(call.transport);
    let prepared = Prepared::new(call, address)?;
    runtime()?.block_on(async {
        let mut tasks = JoinSet::new();
        let mut connection = Connection::open(address, call.transport, &mut tasks).await?;
        for _ in 0..n {
            connection.send(&prepared).await?;
        }
        Ok(())
    })
}
