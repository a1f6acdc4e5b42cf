//! Health and metrics.

use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use prometheus::{Encoder, TextEncoder};

use crate::core::Core;
use crate::rest::reply::{JSON, Reply};
use crate::server::Shared;

pub(crate) fn live() -> Reply {
    Reply::json(Bytes::from_static(b"{\"live\": true}"))
}

/// 200 when every model answers; else 503 with the names of those that do not.
pub(crate) fn ready(core: &Core) -> Reply {
    let ready = core.models.is_ready();
    let unready: Vec<String> = match ready {
        true => Vec::new(),
        false => {
            let models = core.models.list();
            models.iter().filter(|model| !model.is_ready()).map(|model| model.name.to_string()).collect()
        }
    };
    let body = serde_json::json!({ "ready": ready, "unready": unready }).to_string();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    Reply { status, ..Reply::new(JSON, body) }
}

pub(crate) fn metrics(shared: &Shared) -> Reply {
    shared.set_gauges();
    let mut text = Vec::new();
    match TextEncoder::new().encode(&shared.core.registry.gather(), &mut text) {
        Ok(()) => Reply::new(HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"), text),
        Err(error) => {
            tracing::error!(%error, "cannot write the metrics");
            Reply::text(StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be written")
        }
    }
}
