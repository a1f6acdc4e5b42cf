//! Sending calls: light clients over hyper with bodies encoded before, and the closed loop.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Version, header};
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

/// What load is sent to.
pub(crate) trait Target: Sync {
    fn address(&self, transport: Transport) -> SocketAddr;

    /// CPU time that it has used so far.
    fn cpu(&self) -> Result<Duration>;
}

impl Target for Server {
    fn address(&self, transport: Transport) -> SocketAddr {
        Server::address(self, transport)
    }

    fn cpu(&self) -> Result<Duration> {
        Server::cpu(self)
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
    /// The server has said that it takes no more calls on it.
    Ended,
}

/// An answer that is not a success.
#[derive(Debug)]
pub(crate) struct Rejected {
    pub(crate) transport: Transport,
    /// The HTTP status, or that of gRPC.
    pub(crate) status: u16,
    pub(crate) message: String,
}

impl Rejected {
    /// Whether the server says that it has too much to do, or that the deadline is over.
    pub(crate) fn is_overload(&self) -> bool {
        match self.transport {
            Transport::Rest => matches!(self.status, 429 | 503 | 504),
            Transport::Grpc => matches!(self.status, 4 | 8 | 14),
        }
    }
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.transport {
            Transport::Rest => "status",
            Transport::Grpc => "grpc-status",
        };
        write!(f, "{kind} {}: {}", self.status, self.message)
    }
}

impl std::error::Error for Rejected {}

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
            Connection::Http1(_) | Connection::Ended => None,
            Connection::Http2(sender) => Some(Connection::Http2(sender.clone())),
        }
    }

    /// Whether nothing can be sent on it any more.
    pub(crate) fn is_closed(&self) -> bool {
        match self {
            Connection::Http1(sender) => sender.is_closed(),
            Connection::Http2(sender) => sender.is_closed(),
            Connection::Ended => true,
        }
    }

    /// Opens the connection again when the server has ended it.
    pub(crate) async fn renew(
        &mut self,
        address: SocketAddr,
        transport: Transport,
        tasks: &mut JoinSet<hyper::Result<()>>,
    ) -> Result<()> {
        if matches!(self, Connection::Ended) {
            while tasks.try_join_next().is_some() {}
            *self = Connection::open(address, transport, tasks).await?;
        }
        Ok(())
    }

    /// Sends one call and returns the body of the answer. Anything but success is an error: [`Rejected`] where the
    /// server has answered.
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
            Connection::Ended => bail!("the server has ended the connection"),
        };
        let (head, body) = response.into_parts();
        let collected = body.collect().await?;
        let trailers = collected.trailers().cloned().unwrap_or_default();
        let body = collected.to_bytes();
        let is_grpc = matches!(self, Connection::Http2(_));
        if !is_grpc && is_last(head.version, &head.headers) {
            *self = Connection::Ended;
        }
        if head.status != 200 {
            let message = String::from_utf8_lossy(&body[..body.len().min(300)]).into_owned();
            let status = head.status.as_u16();
            return Err(Rejected { transport: Transport::Rest, status, message }.into());
        }
        if is_grpc {
            check_grpc(&head.headers, &trailers)?;
        }
        Ok(body)
    }
}

fn check_grpc(headers: &HeaderMap, trailers: &HeaderMap) -> Result<()> {
    let said = |name: &str| trailers.get(name).or_else(|| headers.get(name));
    match said("grpc-status").and_then(|code| code.to_str().ok()) {
        Some("0") => Ok(()),
        code => {
            let status = code.and_then(|code| code.parse().ok()).context("an answer without grpc-status")?;
            let message =
                said("grpc-message").and_then(|text| text.to_str().ok()).unwrap_or_default().to_owned();
            Err(Rejected { transport: Transport::Grpc, status, message }.into())
        }
    }
}

/// Whether the server closes the connection after this answer.
fn is_last(version: Version, headers: &HeaderMap) -> bool {
    let said = headers.get(header::CONNECTION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match version {
        Version::HTTP_10 => !said.eq_ignore_ascii_case("keep-alive"),
        _ => said.eq_ignore_ascii_case("close"),
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
/// A connection that the server ends after an answer is opened anew within the time of the next call.
pub(crate) fn closed_loop(
    server: &impl Target,
    call: &Call,
    in_flight: usize,
    time: Duration,
) -> Result<Window> {
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
        Ok(connections) => runtime.block_on(keep_sending(connections, (address, *transport), call, time)),
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
    (address, transport): (SocketAddr, Transport),
    call: &Prepared,
    time: Duration,
) -> Result<Vec<Duration>> {
    let end = Instant::now() + time;
    let mut loops = JoinSet::new();
    for mut connection in connections {
        let call = call.clone();
        loops.spawn(async move {
            let mut latencies = Vec::new();
            let mut renewed = JoinSet::new();
            let mut sent = Instant::now();
            while sent < end {
                connection.renew(address, transport, &mut renewed).await?;
                connection.send(&call).await?;
                let now = Instant::now();
                latencies.push(now - sent);
                sent = now;
            }
            // The connection goes back, so that closing it is outside of the window.
            anyhow::Ok((latencies, connection, renewed))
        });
    }
    let mut all = Vec::new();
    let mut open = Vec::new();
    while let Some(ended) = loops.join_next().await {
        let (latencies, connection, renewed) = ended.context("a loop ended early")??;
        all.extend(latencies);
        open.push((connection, renewed));
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

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_connection_ends_as_the_server_says() {
        for (version, said, expected) in [
            (Version::HTTP_11, None, false),
            (Version::HTTP_11, Some("keep-alive"), false),
            (Version::HTTP_11, Some("Close"), true),
            (Version::HTTP_10, None, true),
            (Version::HTTP_10, Some("Keep-Alive"), false),
        ] {
            let headers = said.map(|said| (header::CONNECTION, HeaderValue::from_static(said)));
            assert_eq!(is_last(version, &headers.into_iter().collect()), expected, "{version:?} {said:?}");
        }
    }

    #[test]
    fn overload_is_told_from_failure() {
        for (transport, status, expected) in [
            (Transport::Rest, 429, true),
            (Transport::Rest, 503, true),
            (Transport::Rest, 500, false),
            (Transport::Grpc, 8, true),
            (Transport::Grpc, 4, true),
            (Transport::Grpc, 13, false),
        ] {
            let rejected = Rejected { transport, status, message: String::new() };
            assert_eq!(rejected.is_overload(), expected, "{rejected}");
        }
    }
}
