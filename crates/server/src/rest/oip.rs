//! The Open Inference Protocol's REST interface.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use hyper::body::Incoming;
use salver_predict::{Error, ModelSpec};
use salver_wire::{oip, oip_rest};

use super::Visit;
use super::body::Received;
use super::reply::{JSON, Reply};
use super::route::{OfModel, Oip};
use super::tfs::{Circumstances, limits};
use crate::core::{Core, Question};
use crate::grpc::{MAX_BATCH_SIZE, SERVER_NAME, check_control, is_ready, ready_versions};
use crate::metrics::Api;
use crate::statistics;

/// [`oip_rest::HEADER_LEN`], as header names are compared.
const HEADER_LEN: HeaderName = HeaderName::from_static("inference-header-content-length");

const BINARY: HeaderValue = HeaderValue::from_static("application/octet-stream");

pub(super) async fn answer(visit: &Visit<'_>, asked: Oip, body: Incoming, n_sent: &mut usize) -> Reply {
    match try_answer(visit, asked, body, n_sent).await {
        Ok(reply) | Err(Refusal::Reply(reply)) => reply,
        Err(Refusal::Error(error)) => Reply::error(&error),
    }
}

/// Why there is no answer.
enum Refusal {
    Error(Error),
    Reply(Reply),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Refusal {
        Refusal::Error(error)
    }
}

impl From<Reply> for Refusal {
    fn from(reply: Reply) -> Refusal {
        Refusal::Reply(reply)
    }
}

async fn try_answer(
    visit: &Visit<'_>,
    asked: Oip,
    body: Incoming,
    n_sent: &mut usize,
) -> Result<Reply, Refusal> {
    let core = &*visit.shared.core;
    Ok(match asked {
        Oip::Server => Reply::json(oip_rest::server_body(SERVER_NAME, &core.config.server_version)),
        Oip::Live => Reply::empty(StatusCode::OK),
        Oip::Ready => ready(core.models.is_ready(), StatusCode::SERVICE_UNAVAILABLE),
        Oip::AllStats => Reply::json(oip_rest::statistics_body(&statistics::collect(core, "", "").await?)),
        Oip::Index => {
            let received = visit.receive(body, n_sent).await?;
            Reply::json(oip_rest::index_body(&core.models.list(), asks_for_ready(&received.bytes)))
        }
        Oip::Load(name) => {
            visit.receive(body, n_sent).await?;
            check_control(core)?;
            core.models.load(&name).await?;
            Reply::empty(StatusCode::OK)
        }
        Oip::Unload(name) => {
            visit.receive(body, n_sent).await?;
            check_control(core)?;
            core.models.unload(&name).await?;
            Reply::empty(StatusCode::OK)
        }
        Oip::Model { name, version, what: OfModel::Infer } => {
            let spec = oip::request_spec(&name, &version)?;
            visit.ask_about(&spec);
            let received = visit.receive(body, n_sent).await?;
            infer(core, &spec, &visit.parts.headers, &received, visit.circumstances()?).await
        }
        Oip::Model { name, version, what } => of_model(core, &name, &version, what).await?,
    })
}

fn ready(ready: bool, otherwise: StatusCode) -> Reply {
    Reply::empty(if ready { StatusCode::OK } else { otherwise })
}

/// Whether the request for the index has `"ready": true`. A body that says nothing asks for all.
fn asks_for_ready(body: &[u8]) -> bool {
    let value: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    value.and_then(|value| value.get("ready")?.as_bool()).unwrap_or(false)
}

async fn of_model(core: &Core, name: &str, version: &str, what: OfModel) -> Result<Reply, Error> {
    if what == OfModel::Ready {
        return Ok(ready(is_ready(core, name, version).await?, StatusCode::NOT_FOUND));
    }
    if what == OfModel::Stats {
        return Ok(Reply::json(oip_rest::statistics_body(&statistics::collect(core, name, version).await?)));
    }
    let target = core.resolve(&oip::request_spec(name, version)?, None).await?;
    let body = match what {
        OfModel::Config => oip_rest::config_body(&*target, MAX_BATCH_SIZE)?,
        _ => oip_rest::metadata_body(&*target, ready_versions(core, name))?,
    };
    Ok(Reply::json(body))
}

async fn infer(
    core: &Core,
    spec: &ModelSpec,
    headers: &HeaderMap,
    body: &Received,
    about: Circumstances<'_>,
) -> Reply {
    match try_infer(core, spec, headers, body, about).await {
        Ok(response) => encoded(response),
        Err(error) => {
            core.failed(Api::RestInfer, Some(&spec.name), &error);
            Reply::error(&error)
        }
    }
}

async fn try_infer(
    core: &Core,
    spec: &ModelSpec,
    headers: &HeaderMap,
    body: &Received,
    about: Circumstances<'_>,
) -> Result<oip_rest::Response, Error> {
    let mut request = oip_rest::Infer::decode(&body.bytes, header_len(headers)?, limits(core))?;
    let timeout = request.timeout.and_then(|timeout| about.started.checked_add(timeout));
    let terms = about.terms.with(timeout, request.priority);
    let target = core.resolve(spec, terms.until).await?;
    if let Some(entry) = about.entry {
        entry.answered_by(target.id());
    }
    let signature = Arc::clone(target.signature("")?);
    let outputs = request.select(&signature)?;
    let inputs = request.bind(&signature)?;
    body.reserve_tensors(&inputs)?;
    let question = Question { target, signature, inputs, outputs, terms };
    let answered = core.ask(Api::RestInfer, about.started, question).await?;
    let response = oip_rest::Response::encode(
        &request,
        answered.target.id(),
        &answered.signature,
        &answered.outputs,
        &answered.tensors,
        core.config.non_finite,
    )?;
    core.succeeded(&answered);
    Ok(response)
}

fn header_len(headers: &HeaderMap) -> Result<Option<usize>, Error> {
    let Some(value) = headers.get(HEADER_LEN) else { return Ok(None) };
    let text = value.to_str().unwrap_or("?").trim();
    let text_error = || Error::invalid(format!("{} is '{text}', expected a number", oip_rest::HEADER_LEN));
    text.parse().map(Some).map_err(|_| text_error())
}

fn encoded(response: oip_rest::Response) -> Reply {
    match response.header_len {
        None => Reply::new(JSON, response.into_bytes()),
        Some(length) => {
            let body: Bytes = response.into_bytes();
            Reply::new(BINARY, body).with(HEADER_LEN, HeaderValue::from(length))
        }
    }
}
