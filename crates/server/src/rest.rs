//! REST: from a request to a reply.

mod body;
mod oip;
mod operations;
mod reply;
mod route;
mod tfs;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ALLOW, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, ORIGIN, VARY,
};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body_util::Full;
use hyper::body::Incoming;
use salver_predict::Error;

use crate::access::Entry;
use crate::body::{Answer, Busy};
use crate::clock;
use crate::coding::Coding;
use crate::core::Core;
use crate::metrics::Api;
use crate::server::Shared;
use crate::stream::Activity;
use crate::terms::Terms;

use body::{Received, receive};
use reply::Reply;
use route::{Route, Stray};
use tfs::Circumstances;

type Sent = Result<Response<Answer<Full<Bytes>>>, Infallible>;

/// A header by which a client gives a deadline, in milliseconds; TensorFlow Serving has none.
const TIMEOUT_HEADER: &str = "x-request-timeout-ms";

/// Answers one request.
pub(crate) async fn handle(shared: Arc<Shared>, activity: Arc<Activity>, request: Request<Incoming>) -> Sent {
    let _running = activity.running(request.version());
    let _in_flight = InFlight::new(&shared.core);
    let started = clock::now();
    let (parts, body) = request.into_parts();
    let config = &shared.core.config;
    let entry = config.access_log.then(|| Entry::new(&parts.method, parts.uri.path(), &parts.headers));
    let target = parts.uri.path_and_query().map_or(parts.uri.path(), |target| target.as_str());
    let mut n_sent = 0;
    let reply = match check_head(&parts, config.limits.header_bytes)
        .and_then(|()| route::route(config, &parts.method, target))
    {
        Ok(route) => {
            let visit = Visit { shared: &shared, parts: &parts, started, entry: entry.as_ref() };
            visit.answer(route, body, &mut n_sent).await
        }
        Err(stray) => astray(&parts, stray),
    };
    let reply = if config.cors && is_v1(&parts) { with_cors(reply) } else { reply };
    Ok(finish(&shared.core, &activity, &parts, reply, entry.as_ref(), n_sent))
}

/// Answers one request on the port for metrics.
pub(crate) async fn handle_metrics(
    shared: Arc<Shared>,
    activity: Arc<Activity>,
    request: Request<Incoming>,
) -> Sent {
    let _running = activity.running(request.version());
    let (parts, _) = request.into_parts();
    let route = route::operation(&shared.core.config, parts.uri.path());
    let reply = match (route, &parts.method) {
        (None, _) => astray(&parts, Stray::Unknown),
        (Some(route), &Method::GET | &Method::HEAD) => operation(&shared, &route),
        (Some(_), _) => astray(&parts, Stray::Method("GET, HEAD")),
    };
    Ok(finish(&shared.core, &activity, &parts, reply, None, 0))
}

fn operation(shared: &Shared, route: &Route) -> Reply {
    match route {
        Route::Live => operations::live(),
        Route::Ready => operations::ready(&shared.core),
        _ => operations::metrics(shared),
    }
}

/// Counts a request while it is received and answered.
struct InFlight(Arc<Core>);

impl InFlight {
    fn new(core: &Arc<Core>) -> InFlight {
        core.metrics.in_flight.inc();
        InFlight(Arc::clone(core))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.metrics.in_flight.dec();
    }
}

/// A request whose body is not read yet.
struct Visit<'a> {
    shared: &'a Shared,
    parts: &'a Parts,
    started: Instant,
    entry: Option<&'a Entry>,
}

impl Visit<'_> {
    async fn answer(&self, route: Route, body: Incoming, n_sent: &mut usize) -> Reply {
        let core = &*self.shared.core;
        match route {
            Route::Predict(spec) => {
                self.ask_about(&spec);
                let received = match self.receive(body, n_sent).await {
                    Ok(received) => received,
                    Err(reply) => return reply,
                };
                match self.circumstances() {
                    Ok(about) => tfs::predict(core, &spec, &received, about).await,
                    Err(error) => {
                        core.failed(Api::RestPredict, Some(&spec.name), &error);
                        Reply::error(&error)
                    }
                }
            }
            Route::Example(spec, method) => {
                self.ask_about(&spec);
                let received = match self.receive(body, n_sent).await {
                    Ok(received) => received,
                    Err(reply) => return reply,
                };
                match self.circumstances() {
                    Ok(about) => tfs::example(core, &spec, method, &received, about).await,
                    Err(error) => Reply::error(&error),
                }
            }
            Route::Status(spec) => tfs::status(core, &spec, self.bystander()),
            Route::Metadata(spec) => tfs::metadata(core, &spec, self.bystander()).await,
            Route::Models => tfs::models(core),
            Route::Preflight => preflight(&self.parts.headers),
            Route::Oip(asked) => oip::answer(self, asked, body, n_sent).await,
            route @ (Route::Live | Route::Ready | Route::Metrics) => operation(self.shared, &route),
        }
    }

    fn ask_about(&self, spec: &salver_predict::ModelSpec) {
        if let Some(entry) = self.entry {
            entry.asked(&spec.name);
        }
    }

    async fn receive(&self, body: Incoming, n_sent: &mut usize) -> Result<Received, Reply> {
        let received = receive(&self.shared.core, &self.parts.headers, body).await?;
        *n_sent = received.n_sent;
        Ok(received)
    }

    /// The time that a request may take begins when its body is there.
    fn circumstances(&self) -> Result<Circumstances<'_>, Error> {
        let asker = self.shared.core.askers.read(&self.parts.headers)?;
        let about = self.bystander();
        Ok(Circumstances { terms: Terms { asker, ..about.terms }, ..about })
    }

    /// The same for what asks no model.
    fn bystander(&self) -> Circumstances<'_> {
        let now = clock::now();
        let terms =
            Terms { until: now.checked_add(self.shared.core.config.rest_timeout), ..Terms::default() };
        let asked = timeout(&self.parts.headers).and_then(|timeout| now.checked_add(timeout));
        Circumstances { started: self.started, terms: terms.with(asked, None), entry: self.entry }
    }
}

/// How long the client says that it waits.
fn timeout(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(TIMEOUT_HEADER)?;
    value.to_str().ok()?.trim().parse().ok().map(Duration::from_millis)
}

fn astray(parts: &Parts, stray: Stray) -> Reply {
    match stray {
        Stray::Malformed(text) => Reply::text(StatusCode::BAD_REQUEST, &text),
        Stray::Head(text) => Reply::text(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, &text).closing(),
        Stray::Unknown => {
            let text = format!("there is nothing at {} {}", parts.method, parts.uri.path());
            Reply::text(StatusCode::NOT_FOUND, &text)
        }
        Stray::Method(methods) => {
            let text = format!("method is {}, expected one of {methods}", parts.method);
            Reply::text(StatusCode::METHOD_NOT_ALLOWED, &text).with(ALLOW, HeaderValue::from_static(methods))
        }
    }
}

/// The connection takes heads that are somewhat too long, so that they can be answered and not only cut off.
fn check_head(parts: &Parts, max_bytes: usize) -> Result<(), Stray> {
    let fields = parts.headers.iter().map(|(name, value)| name.as_str().len() + value.len());
    let n_bytes = fields.sum::<usize>() + parts.uri.path().len() + parts.uri.query().map_or(0, str::len);
    if n_bytes <= max_bytes {
        return Ok(());
    }
    Err(Stray::Head(format!("the request's head takes {n_bytes} bytes, at most {max_bytes} are taken")))
}

fn is_v1(parts: &Parts) -> bool {
    let path = parts.uri.path();
    path.get(..4).is_some_and(|prefix| prefix.eq_ignore_ascii_case("/v1/"))
}

/// As TensorFlow Serving: any origin is fine, as long as it is one.
fn preflight(headers: &HeaderMap) -> Reply {
    let origin = headers.get(ORIGIN).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let is_origin = origin.contains("http://") || origin.contains("https://");
    Reply::empty(if is_origin { StatusCode::OK } else { StatusCode::BAD_REQUEST })
}

fn with_cors(reply: Reply) -> Reply {
    reply
        .with(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"))
        .with(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("POST, GET"))
        .with(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("Content-Type"))
}

fn finish(
    core: &Core,
    activity: &Arc<Activity>,
    parts: &Parts,
    reply: Reply,
    entry: Option<&Entry>,
    n_sent: usize,
) -> Response<Answer<Full<Bytes>>> {
    let mut response = compressed(core, parts, reply).into_response(parts.version);
    if let Some(entry) = entry {
        let status = i32::from(response.status().as_u16());
        entry.write(status, n_sent as u64, Some(response.body().len() as u64));
    }
    if parts.method == Method::HEAD {
        let length = HeaderValue::from(response.body().len());
        response.headers_mut().insert(CONTENT_LENGTH, length);
        *response.body_mut() = Bytes::new();
    }
    // The order to drain may reach the connection after this answer; a client must not send another request on it.
    if parts.version <= Version::HTTP_11 && core.stop.borrow().is_some() {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    let busy = Busy::Sending { guard: activity.sending() };
    response.map(|body| Answer::new(Full::new(body), busy))
}

/// A reply whose coding follows what the client accepts.
fn compressed(core: &Core, parts: &Parts, mut reply: Reply) -> Reply {
    if reply.body.len() < core.config.limits.compress_from_bytes {
        return reply;
    }
    let Some(coding) = Coding::accepted(parts.headers.get(ACCEPT_ENCODING)) else { return reply };
    let Some(body) = coding.compress(&reply.body) else { return reply };
    reply.body = body;
    reply.with(CONTENT_ENCODING, coding.name()).with(VARY, HeaderValue::from_static("accept-encoding"))
}
