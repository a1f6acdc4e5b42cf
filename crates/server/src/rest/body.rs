//! Receiving the body of a request, within all bounds.

use std::time::Instant;

use bytes::{Bytes, BytesMut};
use futures_util::future::poll_immediate;
use http::header::CONTENT_ENCODING;
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use salver_predict::Error;
use salver_tensor::Tensor;
use tokio::time::timeout_at;

use crate::budget::Reservation;
use crate::clock;
use crate::coding::{Coding, CodingError};
use crate::core::Core;
use crate::metrics::Refused;
use crate::rest::reply::Reply;

/// A body that is there, and the memory that it takes.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) bytes: Bytes,
    /// Bytes as sent.
    pub(crate) n_sent: usize,
    reservation: Reservation,
}

impl Received {
    /// Reserves what the tensors take that were read from the body.
    pub(crate) fn reserve_tensors(&self, tensors: &[Tensor]) -> Result<(), Error> {
        self.reserve(tensors.iter().map(Tensor::n_bytes).sum())
    }

    /// Reserves bytes on top of the body's own.
    pub(crate) fn reserve(&self, n_bytes: usize) -> Result<(), Error> {
        self.reservation.grow_to(self.bytes.len().saturating_add(n_bytes))
    }
}

/// Chunked bodies reserve memory in steps of this, doubling.
const STEP_BYTES: usize = 64 << 10;

/// Receives and decompresses.
pub(crate) async fn receive(core: &Core, headers: &HeaderMap, body: Incoming) -> Result<Received, Reply> {
    let coding = Coding::of_content(headers.get(CONTENT_ENCODING))
        .map_err(|text| Reply::text(StatusCode::UNSUPPORTED_MEDIA_TYPE, &text).closing())?;
    let limit = core.config.limits.body_bytes;
    let length = body.size_hint().exact().map(|length| usize::try_from(length).unwrap_or(usize::MAX));
    if length.is_some_and(|length| length > limit) {
        return Err(too_large(core, limit));
    }
    let reservation = core.budget.reserve(length.unwrap_or(0)).map_err(|error| full(core, &error))?;
    let bytes = collect(core, body, length, &reservation).await?;
    let n_sent = bytes.len();
    let bytes = match coding {
        None => bytes,
        Some(coding) => decompress(core, coding, &bytes, &reservation)?,
    };
    Ok(Received { bytes, n_sent, reservation })
}

fn too_large(core: &Core, limit: usize) -> Reply {
    core.metrics.refuse(Refused::BodySize);
    let text = format!("the body is larger than the limit of {limit} bytes");
    Reply::text(StatusCode::PAYLOAD_TOO_LARGE, &text).closing()
}

fn full(core: &Core, error: &Error) -> Reply {
    core.metrics.refuse(Refused::Budget);
    Reply::error(error).closing()
}

/// A body that comes in one piece is passed on as it is; one that comes in several is copied once.
async fn collect(
    core: &Core,
    mut body: Incoming,
    length: Option<usize>,
    reservation: &Reservation,
) -> Result<Bytes, Reply> {
    let limit = core.config.limits.body_bytes;
    let mut pace = Pace { core, end: None };
    let Some(first) = next(&mut body, &mut pace).await? else { return Ok(Bytes::new()) };
    reservation.grow_to(first.len()).map_err(|error| full(core, &error))?;
    if body.is_end_stream() || length == Some(first.len()) {
        return if first.len() > limit { Err(too_large(core, limit)) } else { Ok(first) };
    }
    let mut whole = BytesMut::with_capacity(length.unwrap_or_default().max(first.len()));
    let mut granted = reservation.n_bytes();
    let mut piece = Some(first);
    while let Some(bytes) = piece {
        let n_bytes = whole.len().saturating_add(bytes.len());
        if n_bytes > limit {
            return Err(too_large(core, limit));
        }
        if n_bytes > granted {
            granted = n_bytes.max(granted.saturating_mul(2)).max(STEP_BYTES).min(limit);
            reservation.grow_to(granted).map_err(|error| full(core, &error))?;
        }
        whole.extend_from_slice(&bytes);
        drop(bytes);
        piece = next(&mut body, &mut pace).await?;
    }
    Ok(whole.freeze())
}

/// How long the client may take.
struct Pace<'a> {
    core: &'a Core,
    /// When the whole body must be there; set at the first wait.
    end: Option<Instant>,
}

/// The next bytes. The clock is read only when they have to be waited for.
async fn next(body: &mut Incoming, pace: &mut Pace<'_>) -> Result<Option<Bytes>, Reply> {
    loop {
        let mut frame = body.frame();
        let frame = match poll_immediate(&mut frame).await {
            Some(frame) => frame,
            None => {
                let limits = &pace.core.config.limits;
                let now = clock::now();
                let end = *pace.end.get_or_insert(now + limits.body_timeout);
                match timeout_at((now + limits.read_timeout).min(end).into(), frame).await {
                    Ok(frame) => frame,
                    Err(_) => {
                        pace.core.metrics.refuse(Refused::Slow);
                        let text = "the body did not come in time";
                        return Err(Reply::text(StatusCode::REQUEST_TIMEOUT, text).closing());
                    }
                }
            }
        };
        match frame {
            None => return Ok(None),
            Some(Err(error)) => {
                let text = format!("the body ended early: {error}");
                return Err(Reply::text(StatusCode::BAD_REQUEST, &text).closing());
            }
            Some(Ok(frame)) => {
                if let Ok(bytes) = frame.into_data()
                    && !bytes.is_empty()
                {
                    return Ok(Some(bytes));
                }
            }
        }
    }
}

fn decompress(core: &Core, coding: Coding, bytes: &[u8], reservation: &Reservation) -> Result<Bytes, Reply> {
    let limit = core.config.limits.decompressed_bytes;
    let n_sent = bytes.len();
    coding.decompress(bytes, limit, |n| reservation.grow_to(n_sent.saturating_add(n))).map_err(|error| {
        match error {
            CodingError::Corrupt(error) => {
                let text =
                    format!("the body is not valid {}: {error}", coding.name().to_str().unwrap_or_default());
                Reply::text(StatusCode::BAD_REQUEST, &text)
            }
            CodingError::TooLarge => {
                core.metrics.refuse(Refused::BodySize);
                let text = format!("the decompressed body is larger than the limit of {limit} bytes");
                Reply::text(StatusCode::PAYLOAD_TOO_LARGE, &text)
            }
            CodingError::Refused(error) => {
                core.metrics.refuse(Refused::Budget);
                Reply::error(&error)
            }
        }
    })
}
