//! The access log: one event per request, when it is asked for.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use http::{HeaderMap, Method};
use salver_predict::{ModelId, ModelName};

use crate::clock;

/// What is logged of one request. Whoever handles the request fills in the model when it is known.
#[derive(Debug)]
pub(crate) struct Entry {
    started: Instant,
    method: Method,
    path: String,
    traceparent: Option<String>,
    model: OnceLock<String>,
    version: OnceLock<u64>,
}

/// Longer paths are cut in the log.
const MAX_PATH_BYTES: usize = 512;
/// A traceparent of the only version there is has 55.
const MAX_TRACEPARENT_BYTES: usize = 128;

impl Entry {
    pub(crate) fn new(method: &Method, path: &str, headers: &HeaderMap) -> Entry {
        let traceparent = headers.get("traceparent").and_then(|value| value.to_str().ok());
        Entry {
            started: clock::now(),
            method: method.clone(),
            path: cut(path, MAX_PATH_BYTES),
            traceparent: traceparent.map(|text| cut(text, MAX_TRACEPARENT_BYTES)),
            model: OnceLock::new(),
            version: OnceLock::new(),
        }
    }

    pub(crate) fn asked(&self, name: &ModelName) {
        self.model.get_or_init(|| cut(name.as_str(), MAX_PATH_BYTES));
    }

    pub(crate) fn answered_by(&self, id: &ModelId) {
        self.asked(&id.name);
        self.version.get_or_init(|| id.version.0);
    }

    /// Writes the event. `status` is HTTP's over REST and gRPC's over gRPC.
    pub(crate) fn write(&self, status: i32, bytes_in: u64, bytes_out: Option<u64>) {
        let duration: Duration = clock::now().saturating_duration_since(self.started);
        tracing::info!(
            target: "salver::access",
            method = %self.method,
            path = self.path,
            model = self.model.get(),
            version = self.version.get(),
            status,
            bytes_in,
            bytes_out,
            duration_us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX),
            traceparent = self.traceparent,
            "request"
        );
    }
}

fn cut(text: &str, max_bytes: usize) -> String {
    text.get(..text.floor_char_boundary(max_bytes)).unwrap_or_default().to_owned()
}
