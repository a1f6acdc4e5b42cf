//! One request as HTTP carries it, and what comes back.

use std::fmt;
use std::time::{Duration, Instant};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http::header::{HOST, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as _, Incoming};
use prost::Message;
use salver_predict::{Blame, Code, Error};
use salver_wire::client::{grpc_error, http_error};
use salver_wire::oip_rest::HEADER_LEN;

use crate::address::Peer;
use crate::protocol::Transport;

/// By this gRPC servers say when to try again, in milliseconds; below 0 means never (gRFC A6).
const PUSHBACK: &str = "grpc-retry-pushback-ms";
/// The same over REST, beside the standard's `retry-after` in seconds.
const RETRY_AFTER_MS: &str = "retry-after-ms";

/// How much of an answer that is an error is kept for its text.
const ERROR_BYTES: usize = 4 << 10;

/// A gRPC message has a byte for its compression and four for its length in front.
const FRAME: usize = 5;

/// What is asked, whomever.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    pub(crate) transport: Transport,
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// Bytes that an answer may have.
    pub(crate) max_answer: usize,
}

impl Ask {
    /// A gRPC call.
    ///
    /// # Errors
    /// [`Code::ResourceExhausted`] for a message of more than `max_message` bytes.
    pub(crate) fn grpc(path: &str, message: &impl Message, max_message: usize) -> Result<Ask, Error> {
        let n_bytes = message.encoded_len();
        check_len(n_bytes, max_message)?;
        let n = u32::try_from(n_bytes).map_err(|_| too_large(n_bytes, max_message))?;
        let mut body = Vec::with_capacity(n_bytes + FRAME);
        body.put_u8(0);
        body.put_u32(n);
        message.encode(&mut body).expect("a vector grows as needed");
        let mut headers = HeaderMap::new();
        headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(http::header::TE, HeaderValue::from_static("trailers"));
        Ok(Ask {
            transport: Transport::Http2,
            method: Method::POST,
            path: path.to_owned(),
            headers,
            body: body.into(),
            max_answer: max_message,
        })
    }

    /// A REST request with a body.
    ///
    /// # Errors
    /// As [`Ask::grpc`].
    pub(crate) fn post(
        path: String,
        content_type: &'static str,
        body: Bytes,
        max_message: usize,
    ) -> Result<Ask, Error> {
        check_len(body.len(), max_message)?;
        let mut headers = HeaderMap::new();
        headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        let (transport, method) = (Transport::Http1, Method::POST);
        Ok(Ask { transport, method, path, headers, body, max_answer: max_message })
    }

    /// A REST request without one.
    pub(crate) fn get(path: String, max_answer: usize) -> Ask {
        let (headers, body) = (HeaderMap::new(), Bytes::new());
        Ask { transport: Transport::Http1, method: Method::GET, path, headers, body, max_answer }
    }

    /// The request to one peer, which is told how much time is left.
    ///
    /// # Errors
    /// [`Failure::Late`] when none is left; [`Failure::Wrong`] for a path that is none.
    pub(crate) fn request(
        &self,
        peer: &Peer,
        is_secure: bool,
        now: Instant,
        deadline: Instant,
    ) -> Result<Request<Full<Bytes>>, Failure> {
        let left = deadline.saturating_duration_since(now);
        let (name, value) = timeout_header(self.transport, left).ok_or(Failure::Late)?;
        let builder = Request::builder().method(self.method.clone());
        let builder = match self.transport {
            Transport::Http1 => builder.uri(&self.path).header(HOST, &*peer.authority),
            Transport::Http2 => {
                let scheme = if is_secure { "https" } else { "http" };
                builder.uri(format!("{scheme}://{}{}", peer.authority, self.path))
            }
        };
        let wrong = |error: http::Error| Failure::Wrong(format!("request to '{}': {error}", self.path));
        let mut request = builder.body(Full::new(self.body.clone())).map_err(wrong)?;
        request.headers_mut().extend(self.headers.clone());
        if let Ok(mut value) = HeaderValue::from_str(&value) {
            // It differs from request to request, so it is not to drive other headers out of HTTP/2's table.
            value.set_sensitive(true);
            request.headers_mut().insert(HeaderName::from_static(name), value);
        }
        Ok(request)
    }
}

fn check_len(n_bytes: usize, max: usize) -> Result<(), Error> {
    if n_bytes > max { Err(too_large(n_bytes, max)) } else { Ok(()) }
}

fn too_large(n_bytes: usize, max: usize) -> Error {
    Error::client(
        Code::ResourceExhausted,
        format!("request has {n_bytes} bytes, more than the {max} that are sent"),
    )
}

/// How a request says how long its sender still waits: gRPC has a header of at most eight digits and a unit, REST Salver's own
/// in whole milliseconds. `None` when there is no time left.
fn timeout_header(transport: Transport, left: Duration) -> Option<(&'static str, String)> {
    let micros = left.as_micros();
    if micros == 0 {
        return None;
    }
    Some(match transport {
        Transport::Http1 => ("x-request-timeout-ms", micros.div_ceil(1000).to_string()),
        Transport::Http2 => {
            let value = match micros {
                0..=99_999_999 => format!("{micros}u"),
                100_000_000..=99_999_999_999 => format!("{}m", micros / 1000),
                _ => format!("{}S", (micros / 1_000_000).min(99_999_999)),
            };
            ("grpc-timeout", value)
        }
    })
}

/// An answer that is no error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reply {
    /// The body, or of gRPC the message without its frame.
    pub(crate) body: Bytes,
    /// Where binary tensors begin, over REST.
    pub(crate) header_len: Option<usize>,
}

/// Why there is no answer from one peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// No connection came about.
    Unreachable(String),
    /// The connection broke while it carried the call.
    Broken(String),
    /// What came is no answer.
    Garbage(String),
    /// The answer is larger than what is read.
    TooLarge(usize),
    /// The deadline passed.
    Late,
    /// This peer was given so much time, which is less than there is.
    Slow(Duration),
    /// The request cannot be sent to anybody.
    Wrong(String),
    /// The peer answered with an error.
    Status { error: Error, pause: Pause },
}

/// When a peer wants to be asked again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pause {
    /// It did not say.
    Unsaid,
    /// After this time.
    For(Duration),
    /// Not at all, and nobody else either.
    Never,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Unreachable(why)
            | Failure::Broken(why)
            | Failure::Garbage(why)
            | Failure::Wrong(why) => f.write_str(why),
            Failure::TooLarge(max) => write!(f, "answer has more than the {max} bytes that are read"),
            Failure::Late => f.write_str("no answer within the deadline"),
            Failure::Slow(patience) => write!(f, "no answer within {patience:?}"),
            Failure::Status { error, .. } => error.fmt(f),
        }
    }
}

pub(crate) fn broken(error: &hyper::Error) -> Failure {
    use std::error::Error as _;
    Failure::Broken(match error.source() {
        Some(source) => format!("connection: {error}: {source}"),
        None => format!("connection: {error}"),
    })
}

/// Reads an answer to its end.
///
/// # Errors
/// What the answer's status says, or what is wrong with it.
pub(crate) async fn read(response: Response<Incoming>, ask: &Ask) -> Result<Reply, Failure> {
    let (head, body) = response.into_parts();
    let is_good = head.status == StatusCode::OK;
    let n_frame = if ask.transport == Transport::Http2 { FRAME } else { 0 };
    let most = if is_good { ask.max_answer.saturating_add(n_frame) } else { ERROR_BYTES };
    let (body, trailers) = match collect(body, most).await? {
        Collected::Whole(body, trailers) => (body, trailers),
        Collected::Cut(_) if is_good => return Err(Failure::TooLarge(ask.max_answer)),
        Collected::Cut(start) => (start, HeaderMap::new()),
    };
    match ask.transport {
        Transport::Http1 => rest(head.status, &head.headers, body),
        Transport::Http2 => grpc(head.status, &head.headers, &trailers, body),
    }
}

enum Collected {
    Whole(Bytes, HeaderMap),
    Cut(Bytes),
}

async fn collect(mut body: Incoming, most: usize) -> Result<Collected, Failure> {
    // What it says of its length is only believed if it is bad news.
    if body.size_hint().lower() > most as u64 && most > ERROR_BYTES {
        return Ok(Collected::Cut(Bytes::new()));
    }
    let (mut first, mut joined) = (Bytes::new(), BytesMut::new());
    let mut trailers = HeaderMap::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| broken(&error))?;
        match frame.into_data() {
            Err(frame) => trailers.extend(frame.into_trailers().unwrap_or_default()),
            Ok(data) if first.is_empty() && joined.is_empty() => first = data,
            Ok(data) => {
                joined.extend_from_slice(&std::mem::take(&mut first));
                joined.extend_from_slice(&data);
            }
        }
        if first.len().max(joined.len()) > most {
            let start = if joined.is_empty() { first } else { joined.freeze() };
            return Ok(Collected::Cut(start));
        }
    }
    Ok(Collected::Whole(if joined.is_empty() { first } else { joined.freeze() }, trailers))
}

fn rest(status: StatusCode, headers: &HeaderMap, body: Bytes) -> Result<Reply, Failure> {
    let number = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse::<u64>().ok();
    if status == StatusCode::OK {
        let header_len = match headers.get(HEADER_LEN) {
            None => None,
            Some(value) => {
                let parsed = value.to_str().ok().and_then(|text| text.parse().ok());
                Some(parsed.ok_or_else(|| Failure::Garbage(format!("answer's {HEADER_LEN} is no number")))?)
            }
        };
        return Ok(Reply { body, header_len });
    }
    let after = number(RETRY_AFTER_MS).map(Duration::from_millis);
    let after = after.or_else(|| number("retry-after").map(Duration::from_secs));
    let error = http_error(status.as_u16(), &body);
    Err(Failure::Status { error, pause: after.map_or(Pause::Unsaid, Pause::For) })
}

fn grpc(
    status: StatusCode,
    headers: &HeaderMap,
    trailers: &HeaderMap,
    body: Bytes,
) -> Result<Reply, Failure> {
    let text = |name: &str| trailers.get(name).or_else(|| headers.get(name))?.to_str().ok();
    let Some(number) = text("grpc-status") else { return Err(no_grpc_status(status)) };
    let Ok(number) = number.parse::<i32>() else {
        return Err(Failure::Garbage("answer's grpc-status is no number".to_owned()));
    };
    if number != 0 {
        let error = grpc_error(number, text("grpc-message").unwrap_or_default());
        let pause = match text(PUSHBACK).map(str::parse::<i64>) {
            None => Pause::Unsaid,
            Some(Ok(millis)) => {
                u64::try_from(millis).map_or(Pause::Never, |millis| Pause::For(Duration::from_millis(millis)))
            }
            // gRFC A6: what is no number counts as never.
            Some(Err(_)) => Pause::Never,
        };
        return Err(Failure::Status { error, pause });
    }
    unframe(body)
}

/// What gRPC makes of an answer that is not its own, as proxies give it.
fn no_grpc_status(status: StatusCode) -> Failure {
    let code = match status.as_u16() {
        200 => return Failure::Garbage("answer has no grpc-status".to_owned()),
        400 => Code::Internal,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::Unimplemented,
        429 | 502 | 503 | 504 => Code::Unavailable,
        _ => Code::Unknown,
    };
    let text = format!("answer has HTTP status {} and no grpc-status", status.as_u16());
    Failure::Status { error: Error::new(code, Blame::Peer, text), pause: Pause::Unsaid }
}

fn unframe(mut body: Bytes) -> Result<Reply, Failure> {
    let garbage = |text: String| Err(Failure::Garbage(text));
    if body.len() < FRAME {
        return garbage(format!("answer has {} bytes, expected a message", body.len()));
    }
    let is_compressed = body.get_u8() != 0;
    let n_bytes = body.get_u32();
    if is_compressed {
        return garbage("answer is compressed, which was not asked for".to_owned());
    }
    if u64::try_from(body.len()) != Ok(u64::from(n_bytes)) {
        return garbage(format!("answer has a message of {} bytes, its frame says {n_bytes}", body.len()));
    }
    Ok(Reply { body, header_len: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pairs = pairs.iter();
        pairs.map(|&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn deadlines_travel_in_eight_digits() {
        let value = |transport, left| timeout_header(transport, left).map(|(_, value)| value);
        for (left, expected) in [
            (Duration::from_nanos(1999), "1u"),
            (Duration::from_millis(100), "100000u"),
            (Duration::from_secs(100), "100000m"),
            (Duration::from_secs(1_000_000), "1000000S"),
            (Duration::MAX, "99999999S"),
        ] {
            assert_eq!(value(Transport::Http2, left).as_deref(), Some(expected));
        }
        assert_eq!(value(Transport::Http1, Duration::from_micros(99_001)).as_deref(), Some("100"));
        for transport in [Transport::Http1, Transport::Http2] {
            assert_eq!(value(transport, Duration::ZERO), None);
        }
    }

    #[test]
    fn a_request_names_its_peer_and_the_time_left() {
        let peer = Peer::named(([127, 0, 0, 1], 1).into(), "models:8500");
        let now = crate::clock::now();
        let check = |transport, is_secure, uri: &str, host: Option<&str>, timeout: (&str, &str)| {
            let ask = Ask { transport, ..Ask::get("/v1".to_owned(), 10) };
            let request = ask.request(&peer, is_secure, now, now + Duration::from_secs(1)).unwrap();
            assert_eq!(request.uri().to_string(), uri);
            assert_eq!(request.headers().get(HOST).map(|value| value.to_str().unwrap()), host);
            assert_eq!(request.headers().get(timeout.0).unwrap(), timeout.1);
            assert_eq!(ask.request(&peer, is_secure, now, now).unwrap_err(), Failure::Late);
        };
        let (ms, micros) = (("x-request-timeout-ms", "1000"), ("grpc-timeout", "1000000u"));
        check(Transport::Http1, false, "/v1", Some("models:8500"), ms);
        check(Transport::Http2, false, "http://models:8500/v1", None, micros);
        check(Transport::Http2, true, "https://models:8500/v1", None, micros);
        let wrong = Ask::get("/v 1".to_owned(), 10).request(&peer, false, now, now + Duration::from_secs(1));
        assert!(matches!(wrong, Err(Failure::Wrong(_))), "{wrong:?}");
    }

    #[test]
    fn frames_are_checked() {
        let check = |body: &[u8], expected: Result<&[u8], &str>| {
            let got =
                grpc(StatusCode::OK, &headers(&[]), &headers(&[("grpc-status", "0")]), body.to_vec().into());
            match (got, expected) {
                (Ok(reply), Ok(expected)) => assert_eq!(reply.body, expected),
                (Err(Failure::Garbage(text)), Err(expected)) => assert!(text.contains(expected), "{text}"),
                (got, expected) => panic!("{got:?}, expected {expected:?}"),
            }
        };
        check(&[0, 0, 0, 0, 2, 7, 8], Ok(&[7, 8]));
        check(&[0, 0, 0, 0, 0], Ok(&[]));
        check(&[], Err("expected a message"));
        check(&[0, 0, 0, 0, 3, 7, 8], Err("its frame says 3"));
        check(&[0, 255, 255, 255, 255, 7], Err("its frame says 4294967295"));
        check(&[0, 0, 0, 0, 1, 7, 8], Err("its frame says 1"));
        check(&[1, 0, 0, 0, 1, 7], Err("is compressed"));
    }

    #[test]
    fn errors_say_when_to_come_again() {
        let after = |millis| Pause::For(Duration::from_millis(millis));
        let grpc_pause = |value: Option<&'static str>| {
            let mut trailers = headers(&[("grpc-status", "14"), ("grpc-message", "full%21")]);
            trailers.extend(
                value.map(|value| (HeaderName::from_static(PUSHBACK), HeaderValue::from_static(value))),
            );
            match grpc(StatusCode::OK, &headers(&[]), &trailers, Bytes::new()) {
                Err(Failure::Status { error, pause }) => {
                    assert_eq!((error.code(), error.message()), (Code::Unavailable, "full!"));
                    pause
                }
                other => panic!("{other:?}"),
            }
        };
        for (value, expected) in [
            (None, Pause::Unsaid),
            (Some("250"), after(250)),
            (Some("-1"), Pause::Never),
            (Some("soon"), Pause::Never),
        ] {
            assert_eq!(grpc_pause(value), expected, "{value:?}");
        }
        for (pairs, expected) in [
            (&[][..], Pause::Unsaid),
            (&[("retry-after", "2")], after(2000)),
            (&[("retry-after", "1"), ("retry-after-ms", "30")], after(30)),
            (&[("retry-after", "Wed, 21 Oct 2026 07:28:00 GMT")], Pause::Unsaid),
        ] {
            let got =
                rest(StatusCode::SERVICE_UNAVAILABLE, &headers(pairs), Bytes::from("{\"error\": \"x\"}"));
            let Err(Failure::Status { error, pause }) = got else { panic!("{got:?}") };
            assert_eq!((error.code(), error.message(), pause), (Code::Unavailable, "x", expected));
        }
    }

    #[test]
    fn answers_of_proxies_are_told_by_their_status() {
        let check = |status: u16, pairs: &[(&'static str, &'static str)], expected: Option<Code>| {
            let status = StatusCode::from_u16(status).unwrap();
            match (grpc(status, &headers(pairs), &headers(&[]), Bytes::new()), expected) {
                (Err(Failure::Status { error, .. }), Some(code)) => assert_eq!(error.code(), code),
                (Err(Failure::Garbage(_)), None) => {}
                (got, expected) => panic!("{got:?}, expected {expected:?}"),
            }
        };
        check(503, &[], Some(Code::Unavailable));
        check(404, &[], Some(Code::Unimplemented));
        check(200, &[], None);
        check(200, &[("grpc-status", "much")], None);
        check(200, &[("grpc-status", "5")], Some(Code::NotFound));
    }

    #[test]
    fn requests_have_a_bound() {
        let message = salver_wire::proto::inference::ModelMetadataRequest {
            name: "a".repeat(98),
            version: String::new(),
        };
        assert_eq!(message.encoded_len(), 100);
        let ask = Ask::grpc("/x", &message, 100).unwrap();
        assert_eq!(ask.body.len(), 105);
        for error in [
            Ask::grpc("/x", &message, 99).unwrap_err(),
            Ask::post("/x".to_owned(), "a/b", Bytes::from(vec![0; 100]), 99).unwrap_err(),
        ] {
            assert_eq!((error.code(), error.blame()), (Code::ResourceExhausted, Blame::Client));
            assert!(error.message().contains("100 bytes, more than the 99"), "{error}");
        }
    }
}
