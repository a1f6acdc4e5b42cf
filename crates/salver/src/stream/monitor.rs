//! The port that says how a stream fares: `/metrics`, `/livez` and `/readyz`.

use std::convert::Infallible;
use std::fmt::Debug;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus::{Encoder, Registry, TextEncoder};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tracing::{debug, error};

/// Connections at a time; probes and scrapers need a few.
const MAX_CONNECTIONS: usize = 64;

/// Time that a client may take to send its request, and that an idle connection is kept.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(15);

/// Bytes of a request's headers.
const MAX_HEADER_BYTES: usize = 16 << 10;

/// How long the port waits after it could not take a connection.
const PAUSE: Duration = Duration::from_millis(100);

/// What probes ask. Quick: answered on the thread of the port.
pub(crate) trait Health: Debug + Send + Sync + 'static {
    /// Whether the work goes on, or why it has stopped.
    fn live(&self) -> Result<String, String>;

    /// Whether records would be scored, or what is missing.
    fn ready(&self) -> Result<String, String>;
}

/// What the port answers from.
#[derive(Debug)]
struct Known {
    registry: Registry,
    health: Arc<dyn Health>,
}

/// Opens the port and answers on a thread of its own, until the process ends. Gives the address that it has.
///
/// # Errors
/// When the address cannot be had.
pub(crate) fn start(
    address: SocketAddr,
    registry: Registry,
    health: Arc<dyn Health>,
) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind(address).with_context(|| format!("the metrics port {address}"))?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let known = Arc::new(Known { registry, health });
    std::thread::Builder::new().name("monitor".into()).spawn(move || {
        runtime.block_on(async {
            match tokio::net::TcpListener::from_std(listener) {
                Ok(listener) => accept(listener, known).await,
                Err(error) => error!("the metrics port is closed: {error}"),
            }
        });
    })?;
    Ok(address)
}

async fn accept(listener: tokio::net::TcpListener, known: Arc<Known>) {
    let free = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(permit) = Arc::clone(&free).acquire_owned().await else { return };
        let socket = match listener.accept().await {
            Ok((socket, _)) => socket,
            Err(error) => {
                debug!("the metrics port: {error}");
                // Too many open files, most likely: they need a moment, or until a connection ends.
                drop(tokio::time::timeout(PAUSE, connections.join_next()).await);
                continue;
            }
        };
        let known = Arc::clone(&known);
        connections.spawn(async move {
            let service = service_fn(move |request| {
                let response = answer(&known, &request);
                async move { Ok::<_, Infallible>(response) }
            });
            let done = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(CLIENT_TIMEOUT)
                .max_buf_size(MAX_HEADER_BYTES)
                .serve_connection(TokioIo::new(socket), service)
                .await;
            if let Err(error) = done {
                debug!("the metrics port: {error}");
            }
            drop(permit);
        });
    }
}

fn answer(known: &Known, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "expected GET");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match request.uri().path() {
        "/metrics" | "/monitoring/prometheus/metrics" => metrics(&known.registry),
        "/livez" => probe(known.health.live()),
        "/readyz" => probe(known.health.ready()),
        _ => text(StatusCode::NOT_FOUND, "expected /metrics, /livez or /readyz"),
    }
}

fn probe(state: Result<String, String>) -> Response<Full<Bytes>> {
    match state {
        Ok(what) => text(StatusCode::OK, &what),
        Err(why) => text(StatusCode::SERVICE_UNAVAILABLE, &why),
    }
}

fn metrics(registry: &Registry) -> Response<Full<Bytes>> {
    let mut body = Vec::new();
    match TextEncoder::new().encode(&registry.gather(), &mut body) {
        Ok(()) => {
            let mut response = Response::new(Full::new(Bytes::from(body)));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(prometheus::TEXT_FORMAT));
            response
        }
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

fn text(status: StatusCode, body: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(format!("{body}\n"))));
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, plain);
    response
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[derive(Debug, Default)]
    struct Switch(AtomicBool);

    impl Health for Switch {
        fn live(&self) -> Result<String, String> {
            Ok("live".to_owned())
        }

        fn ready(&self) -> Result<String, String> {
            match self.0.load(Ordering::SeqCst) {
                true => Ok("ready".to_owned()),
                false => Err("no partitions yet".to_owned()),
            }
        }
    }

    fn ask(address: SocketAddr, request: &str) -> String {
        let mut socket = TcpStream::connect(address).unwrap();
        let head = format!("{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        socket.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn probes_and_scrapers_are_answered() {
        let registry = Registry::new();
        let counter = prometheus::IntCounter::new("records", "Records.").unwrap();
        counter.inc_by(3);
        registry.register(Box::new(counter)).unwrap();
        let health = Arc::new(Switch::default());
        let address =
            start("127.0.0.1:0".parse().unwrap(), registry, Arc::clone(&health) as Arc<dyn Health>).unwrap();
        let check = |request: &str, status: &str, body: &str| {
            let answer = ask(address, request);
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {answer}");
            assert!(answer.ends_with(body), "{request}: {answer}");
        };
        check("GET /livez", "200", "live\n");
        check("GET /readyz", "503", "no partitions yet\n");
        health.0.store(true, Ordering::SeqCst);
        check("GET /readyz", "200", "ready\n");
        check("GET /metrics", "200", "records 3\n");
        check("POST /metrics", "405", "expected GET\n");
        check("GET /", "404", "or /readyz\n");
    }
}
