//! An answer over REST before it is sent.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderName, HeaderValue, StatusCode, Version};
use salver_predict::Error;
use salver_wire::{json, status};

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) content_type: HeaderValue,
    pub(crate) body: Bytes,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    /// Whether the rest of the request is not read, so that the connection cannot go on.
    pub(crate) closes: bool,
}

/// As [`RETRY_AFTER`], in milliseconds. No standard, but some clients know it.
const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");

pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json");

impl Reply {
    pub(crate) fn new(content_type: HeaderValue, body: impl Into<Bytes>) -> Reply {
        Reply { status: StatusCode::OK, content_type, body: body.into(), headers: Vec::new(), closes: false }
    }

    pub(crate) fn json(body: impl Into<Bytes>) -> Reply {
        Reply::new(JSON, body)
    }

    /// An answer without a body.
    pub(crate) fn empty(status: StatusCode) -> Reply {
        Reply { status, ..Reply::json(Bytes::new()) }
    }

    /// `{"error": "..."}`.
    pub(crate) fn text(status: StatusCode, message: &str) -> Reply {
        Reply { status, ..Reply::json(json::error_body(message)) }
    }

    pub(crate) fn error(error: &Error) -> Reply {
        let number = status::http(error.code());
        let status = StatusCode::from_u16(number).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Reply::text(status, error.message()).retry_after(error.retry_after())
    }

    /// Whole seconds, rounded up, as the standard has it; and milliseconds beside it, since a queue is often empty long before a
    /// second is over.
    pub(crate) fn retry_after(self, after: Option<Duration>) -> Reply {
        match after {
            None => self,
            Some(after) => {
                let seconds = after.as_secs().saturating_add(u64::from(after.subsec_nanos() > 0)).max(1);
                let millis = u64::try_from(after.as_micros().div_ceil(1000)).unwrap_or(u64::MAX);
                let reply = self.with(RETRY_AFTER, HeaderValue::from(seconds));
                reply.with(RETRY_AFTER_MS, HeaderValue::from(millis))
            }
        }
    }

    pub(crate) fn with(mut self, name: HeaderName, value: HeaderValue) -> Reply {
        self.headers.push((name, value));
        self
    }

    pub(crate) fn closing(self) -> Reply {
        Reply { closes: true, ..self }
    }

    /// The head and the body of the response.
    pub(crate) fn into_response(self, version: Version) -> http::Response<Bytes> {
        let mut response = http::Response::new(self.body);
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, self.content_type);
        for (name, value) in self.headers {
            headers.insert(name, value);
        }
        // HTTP/2 has no such header; there, an unread body ends its stream alone.
        if self.closes && version != Version::HTTP_2 {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}
