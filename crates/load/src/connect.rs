//! Connections: light clients over hyper.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use salver_wire::oip_rest::HEADER_LEN;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::ask::Answer;
use crate::budget::{Budget, Held};
use crate::call::Call;
use crate::error::Error;
use crate::outcome::Reply;
use crate::target::Transport;
use crate::timer::now;

/// A call as hyper wants it, to be cloned for each send: the body is shared.
#[derive(Debug, Clone)]
pub(crate) struct Prepared {
    request: Request<Full<Bytes>>,
}

/// Bytes of windows: large bodies travel without waiting for leave.
const WINDOW: u32 = 16 << 20;

/// How much of an answer that is an error is kept for its text.
const ERROR_BYTES: usize = 2 << 10;

impl Prepared {
    pub(crate) fn new(
        call: &Call,
        address: SocketAddr,
        headers: &[(String, String)],
    ) -> Result<Prepared, Error> {
        let mut request = Request::builder().method(Method::POST);
        request = match call.transport {
            Transport::Http1 => request.uri(&call.path).header("host", address.to_string()),
            Transport::Http2 => request.uri(format!("http://{address}{}", call.path)),
        };
        let own = call.headers.iter().chain(headers).map(|(name, value)| (name.as_str(), value.as_str()));
        for (name, value) in own {
            let wrong = || Error::input(format!("header '{name}: {value}' is none"));
            let name = HeaderName::from_bytes(name.to_ascii_lowercase().as_bytes()).map_err(|_| wrong())?;
            request = request.header(name, HeaderValue::from_str(value).map_err(|_| wrong())?);
        }
        let request = request.body(Full::new(call.body.clone()));
        Ok(Prepared { request: request.map_err(|error| Error::input(format!("{}: {error}", call.path)))? })
    }

    /// What is sent now, when it is due to be answered at this moment: the server is told the time that is left.
    fn request(&self, transport: Transport, due: Option<Instant>) -> Result<Request<Full<Bytes>>, Failure> {
        let mut request = self.request.clone();
        if let Some(due) = due {
            let left = due.saturating_duration_since(now());
            let (name, value) = timeout_header(transport, left).ok_or(Failure::Overdue)?;
            if let Ok(mut value) = HeaderValue::from_str(&value) {
                // It differs from request to request, so it is not to drive other headers out of HTTP/2's table.
                value.set_sensitive(true);
                request.headers_mut().insert(HeaderName::from_static(name), value);
            }
        }
        Ok(request)
    }

    /// With another method than POST.
    pub(crate) fn get(mut self) -> Prepared {
        *self.request.method_mut() = Method::GET;
        self
    }
}

/// How much of a good answer is kept.
#[derive(Debug, Clone, Default)]
pub(crate) struct Keep {
    pub(crate) most: usize,
    /// What all that is kept has to fit into.
    pub(crate) budget: Option<Arc<Budget>>,
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It was not sent: its deadline was over.
    Overdue,
    /// What went wrong.
    Broken(String),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Failure::Overdue => f.write_str("the deadline was over before it could be sent"),
            Failure::Broken(why) => f.write_str(why),
        }
    }
}

impl From<String> for Failure {
    fn from(why: String) -> Failure {
        Failure::Broken(why)
    }
}

/// How a request says how long its sender still waits: gRPC has a header of at most eight digits and a unit, REST Salver's own,
/// in whole milliseconds, of which the last counts as a whole one. `None` when there is no time left.
fn timeout_header(transport: Transport, left: Duration) -> Option<(&'static str, String)> {
    let micros = left.as_micros();
    if micros == 0 {
        return None;
    }
    Some(match transport {
        Transport::Http1 => ("x-request-timeout-ms", micros.div_ceil(1_000).to_string()),
        Transport::Http2 => {
            let value = match micros {
                0..=99_999_999 => format!("{micros}u"),
                100_000_000..=99_999_999_999 => format!("{}m", micros / 1_000),
                _ => format!("{}S", (micros / 1_000_000).min(99_999_999)),
            };
            ("grpc-timeout", value)
        }
    })
}

type Http1 = http1::SendRequest<Full<Bytes>>;
type Http2 = http2::SendRequest<Full<Bytes>>;

/// The connections of one thread to one server, opened as they are needed and again when they break.
#[derive(Debug)]
pub(crate) struct Connections {
    address: SocketAddr,
    /// HTTP/2: calls take turns on these.
    shared: Vec<tokio::sync::Mutex<Option<Http2>>>,
    turn: AtomicUsize,
    /// HTTP/1: those that carry no call.
    idle: Mutex<Vec<Http1>>,
    drivers: Mutex<JoinSet<()>>,
}

impl Connections {
    /// No more than `n` connections for HTTP/2. For HTTP/1 there are as many as calls on their way, which the caller bounds.
    pub(crate) fn new(address: SocketAddr, n: usize) -> Connections {
        let shared = (0..n.max(1)).map(|_| tokio::sync::Mutex::new(None)).collect();
        Connections {
            address,
            shared,
            turn: AtomicUsize::new(0),
            idle: Mutex::default(),
            drivers: Mutex::default(),
        }
    }

    /// Sends a call and waits for the end of its answer, of which `keep` is kept. One that is due to be answered at a moment
    /// that is past is not sent.
    ///
    /// # Errors
    /// When there is no answer.
    pub(crate) async fn send(
        &self,
        transport: Transport,
        call: &Prepared,
        due: Option<Instant>,
        keep: &Keep,
    ) -> Result<Answer, Failure> {
        match transport {
            Transport::Http1 => self.send_http1(call, due, keep).await,
            Transport::Http2 => self.send_http2(call, due, keep).await,
        }
    }

    async fn send_http1(
        &self,
        call: &Prepared,
        due: Option<Instant>,
        keep: &Keep,
    ) -> Result<Answer, Failure> {
        let mut sender = loop {
            let idle = lock(&self.idle).pop();
            match idle {
                // One that the server has closed meanwhile is passed over.
                Some(mut sender) => {
                    if sender.ready().await.is_ok() {
                        break sender;
                    }
                }
                None => break self.open_http1().await?,
            }
        };
        let request = match call.request(Transport::Http1, due) {
            Ok(request) => request,
            Err(overdue) => {
                lock(&self.idle).push(sender);
                return Err(overdue);
            }
        };
        let response = sender.send_request(request).await.map_err(broken)?;
        let answer = read(response, Transport::Http1, keep).await?;
        lock(&self.idle).push(sender);
        Ok(answer)
    }

    async fn send_http2(
        &self,
        call: &Prepared,
        due: Option<Instant>,
        keep: &Keep,
    ) -> Result<Answer, Failure> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % self.shared.len();
        let mut sender = {
            let mut slot = self.shared[turn].lock().await;
            match slot.as_ref().filter(|sender| !sender.is_closed()) {
                Some(sender) => sender.clone(),
                None => slot.insert(self.open_http2().await?).clone(),
            }
        };
        sender.ready().await.map_err(broken)?;
        let request = call.request(Transport::Http2, due)?;
        let response = sender.send_request(request).await.map_err(broken)?;
        Ok(read(response, Transport::Http2, keep).await?)
    }

    async fn open(&self) -> Result<TokioIo<TcpStream>, String> {
        let failed = |error: std::io::Error| format!("cannot connect to {}: {error}", self.address);
        let stream = TcpStream::connect(self.address).await.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        Ok(TokioIo::new(stream))
    }

    async fn open_http1(&self) -> Result<Http1, String> {
        let (sender, driver) = http1::handshake(self.open().await?).await.map_err(broken)?;
        self.drive(driver);
        Ok(sender)
    }

    async fn open_http2(&self) -> Result<Http2, String> {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.initial_stream_window_size(WINDOW).initial_connection_window_size(WINDOW);
        let (sender, driver) = builder.handshake(self.open().await?).await.map_err(broken)?;
        self.drive(driver);
        Ok(sender)
    }

    /// How a connection ended is told to the calls that it carried.
    fn drive(&self, driver: impl Future<Output = hyper::Result<()>> + Send + 'static) {
        let mut drivers = lock(&self.drivers);
        while drivers.try_join_next().is_some() {}
        drivers.spawn(async move { drop(driver.await) });
    }

    /// Opens what can be opened before, so that the first calls do not wait for it.
    pub(crate) async fn warm(&self, transport: Transport) -> Result<(), String> {
        if transport == Transport::Http2 {
            for slot in &self.shared {
                *slot.lock().await = Some(self.open_http2().await?);
            }
        }
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[expect(clippy::needless_pass_by_value, reason = "it is what errors are mapped with")]
fn broken(error: hyper::Error) -> String {
    use std::error::Error as _;
    match error.source() {
        Some(source) => format!("connection: {error}: {source}"),
        None => format!("connection: {error}"),
    }
}

/// Reads an answer to its end; what is not kept is counted and dropped.
async fn read(response: Response<Incoming>, transport: Transport, keep: &Keep) -> Result<Answer, String> {
    let (head, mut body) = response.into_parts();
    let is_good = head.status == http::StatusCode::OK;
    let mut kept = match is_good {
        true => Kept::new(keep),
        false => Kept::new(&Keep { most: ERROR_BYTES, budget: None }),
    };
    let (mut n_bytes, mut trailers) = (0u64, None);
    while let Some(frame) = body.frame().await {
        match frame.map_err(broken)?.into_data() {
            Ok(data) => {
                n_bytes += data.len() as u64;
                kept.push(data);
            }
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    let reply = match transport {
        Transport::Http2 if is_good => match grpc_status(&head.headers, trailers.as_ref()) {
            Some(number) => Reply::Grpc(number),
            None => return Err("answer has no grpc-status".to_owned()),
        },
        _ => Reply::Http(head.status.as_u16()),
    };
    let text = |name: &str| header(&head.headers, trailers.as_ref(), name).map(str::to_owned);
    let header_len = match transport {
        Transport::Http1 => text(&HEADER_LEN.to_ascii_lowercase()).and_then(|text| text.parse().ok()),
        Transport::Http2 => None,
    };
    let message = match reply {
        Reply::Grpc(0) | Reply::Http(_) | Reply::None => String::new(),
        Reply::Grpc(_) => text("grpc-message").unwrap_or_default(),
    };
    // Of an error, the beginning will do.
    let is_cut = is_good && keep.most > 0 && kept.is_cut;
    let (body, held) = kept.finish();
    Ok(Answer { reply, body, n_bytes, header_len, grpc_message: message, is_cut, _held: held })
}

/// The first bytes of a body; one that comes in one piece is not copied.
struct Kept {
    whole: Bytes,
    joined: BytesMut,
    left: usize,
    /// Its share of what may be kept in all.
    held: Option<Held>,
    is_cut: bool,
}

impl Kept {
    fn new(keep: &Keep) -> Kept {
        Kept {
            whole: Bytes::new(),
            joined: BytesMut::new(),
            left: keep.most,
            held: keep.budget.as_ref().map(Held::none),
            is_cut: false,
        }
    }

    fn push(&mut self, mut data: Bytes) {
        self.is_cut |= data.len() > self.left;
        data.truncate(self.left);
        if self.held.as_mut().is_some_and(|held| !held.take(data.len())) {
            // A part of an answer is of no use, and what it takes is another's.
            *self = Kept { is_cut: true, ..Kept::new(&Keep::default()) };
            return;
        }
        self.left -= data.len();
        if data.is_empty() {
        } else if self.whole.is_empty() && self.joined.is_empty() {
            self.whole = data;
        } else {
            self.joined.extend_from_slice(&std::mem::take(&mut self.whole));
            self.joined.extend_from_slice(&data);
        }
    }

    fn finish(self) -> (Bytes, Option<Arc<Held>>) {
        let body = if self.joined.is_empty() { self.whole } else { self.joined.freeze() };
        (body, self.held.map(Arc::new))
    }
}

fn header<'a>(headers: &'a HeaderMap, trailers: Option<&'a HeaderMap>, name: &str) -> Option<&'a str> {
    trailers.and_then(|trailers| trailers.get(name)).or_else(|| headers.get(name))?.to_str().ok()
}

fn grpc_status(headers: &HeaderMap, trailers: Option<&HeaderMap>) -> Option<i32> {
    header(headers, trailers, "grpc-status")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_travel_in_eight_digits() {
        let value = |transport, left| timeout_header(transport, left).map(|(_, value)| value);
        for (deadline, expected) in [
            (Duration::from_nanos(1_999), "1u"),
            (Duration::from_millis(100), "100000u"),
            (Duration::from_secs(100), "100000m"),
            (Duration::from_secs(1_000_000), "1000000S"),
            (Duration::MAX, "99999999S"),
        ] {
            assert_eq!(value(Transport::Http2, deadline).as_deref(), Some(expected));
        }
        for (micros, expected) in [(1, "1"), (99_001, "100"), (100_000, "100"), (100_001, "101")] {
            assert_eq!(value(Transport::Http1, Duration::from_micros(micros)).as_deref(), Some(expected));
        }
        for transport in [Transport::Http1, Transport::Http2] {
            assert_eq!(value(transport, Duration::ZERO), None);
        }
    }

    #[test]
    fn a_request_tells_the_time_that_is_left() {
        let target: crate::target::Target = "127.0.0.1:1".parse().unwrap();
        let address = target.addresses().unwrap()[0];
        let subject = crate::call::Subject::new(crate::target::Protocol::TfsRest, "m", None).unwrap();
        let prepared = Prepared::new(&subject.json(Bytes::new()), address, &[]).unwrap();
        let told = |due: Option<Instant>| {
            let request = prepared.request(Transport::Http1, due).ok()?;
            Some(
                request.headers().get("x-request-timeout-ms").map(|value| value.to_str().unwrap().to_owned()),
            )
        };
        assert_eq!(told(None), Some(None));
        let hour = Duration::from_secs(3600);
        let left: u64 = told(Some(now() + hour)).unwrap().unwrap().parse().unwrap();
        assert!((3_500_000..=3_600_000).contains(&left), "{left}");
        assert_eq!(told(Some(now())), None);
    }

    #[test]
    fn so_many_bytes_are_kept() {
        for (keep, pieces, expected) in [
            (9, &["ab", "cd", ""] as &[&str], "abcd"),
            (3, &["ab", "cd", "ef"], "abc"),
            (2, &["ab", "cd"], "ab"),
            (0, &["ab"], ""),
        ] {
            let mut kept = Kept::new(&Keep { most: keep, budget: None });
            pieces.iter().for_each(|piece| kept.push(Bytes::copy_from_slice(piece.as_bytes())));
            let is_whole = pieces.concat().len() == expected.len();
            assert_eq!((kept.is_cut, kept.finish().0), (!is_whole, Bytes::from(expected)));
        }
    }

    #[test]
    fn all_that_is_kept_fits_into_one_budget() {
        let keep = Keep { most: 100, budget: Some(Budget::new(10)) };
        let kept = |pieces: &[&'static str]| {
            let mut kept = Kept::new(&keep);
            pieces.iter().for_each(|piece| kept.push(Bytes::from_static(piece.as_bytes())));
            kept
        };
        let (first, second) = (kept(&["abc", "def"]), kept(&["ghi", "jkl", "m"]));
        assert_eq!((first.is_cut, second.is_cut), (false, true));
        // What was cut holds nothing, and what is whole holds its share until the answer goes.
        let third = kept(&["ghij"]);
        assert!(!third.is_cut && kept(&["k"]).is_cut);
        let (body, held) = first.finish();
        assert_eq!((body.as_ref(), second.finish().0.len()), (b"abcdef".as_ref(), 0));
        drop(held);
        assert!(!kept(&["abcdef"]).is_cut);
    }
}
