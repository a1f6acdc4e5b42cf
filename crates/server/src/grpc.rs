//! gRPC: which service a call is for, and what holds for all calls.

mod infer;
mod messages;
mod model;
mod predict;
mod unpack;

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use http::{HeaderMap, Request, Response};
use hyper::body::Incoming;
use salver_predict::{Asker, BoxFuture};
use salver_wire::proto::FILE_DESCRIPTOR_SET;
use salver_wire::proto::inference::grpc_inference_service_server::GrpcInferenceServiceServer;
use salver_wire::proto::tensorflow::serving::model_service_server::ModelServiceServer;
use salver_wire::proto::tensorflow::serving::prediction_service_server::PredictionServiceServer;
use tonic::body::Body;
use tonic::codec::CompressionEncoding;
use tonic::metadata::MetadataMap;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};
use tower_service::Service;

use crate::access::Entry;
use crate::body::{Answer, Busy};
use crate::budget::Reservation;
use crate::core::Core;
use crate::server::Shared;
use crate::stream::{Activity, Running};
use crate::terms::Terms;
use crate::{Error, ErrorKind, clock};

use infer::Inference;
use messages::Messages;
use model::ModelAdmin;
use predict::Prediction;
use unpack::Unpacker;

pub(crate) use infer::{MAX_BATCH_SIZE, SERVER_NAME, is_ready, ready_versions};
pub(crate) use model::check_control;

type Answering = BoxFuture<'static, Result<Response<Body>, Infallible>>;
/// A service whose type has no name.
type Erased = Arc<dyn Fn(Request<Messages>) -> Answering + Send + Sync>;

/// All services.
#[derive(Clone)]
pub(crate) struct Services {
    prediction: PredictionServiceServer<Prediction>,
    model: ModelServiceServer<ModelAdmin>,
    inference: GrpcInferenceServiceServer<Inference>,
    health: Option<HealthServer<HealthService>>,
    /// `grpc.reflection.v1` and `v1alpha`.
    reflection: Option<(Erased, Erased)>,
}

impl fmt::Debug for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Services").finish_non_exhaustive()
    }
}

macro_rules! tuned {
    ($service:expr, $core:expr) => {
        $service
            .accept_compressed(CompressionEncoding::Gzip)
            .accept_compressed(CompressionEncoding::Zstd)
            .send_compressed(CompressionEncoding::Gzip)
            .send_compressed(CompressionEncoding::Zstd)
            .max_decoding_message_size(
                $core.config.limits.body_bytes.max($core.config.limits.decompressed_bytes),
            )
            .max_encoding_message_size(i32::MAX as usize)
    };
}

impl Services {
    pub(crate) fn new(core: &Arc<Core>, reporter: HealthReporter) -> Result<Services, Error> {
        let config = &core.config;
        let health = HealthServer::new(HealthService::from_health_reporter(reporter));
        Ok(Services {
            prediction: tuned!(PredictionServiceServer::new(Prediction::new(Arc::clone(core))), core),
            model: tuned!(ModelServiceServer::new(ModelAdmin::new(Arc::clone(core))), core),
            inference: tuned!(GrpcInferenceServiceServer::new(Inference::new(Arc::clone(core))), core),
            health: config.grpc_health.then_some(health),
            reflection: if config.grpc_reflection { Some(reflection()?) } else { None },
        })
    }

    fn call(&self, request: Request<Messages>) -> Answering {
        let path = request.uri().path();
        let service = path.get(1..).and_then(|path| path.split_once('/')).map_or("", |(service, _)| service);
        match (service, &self.health, &self.reflection) {
            ("tensorflow.serving.PredictionService", ..) => self.prediction.clone().call(request),
            ("inference.GRPCInferenceService", ..) => self.inference.clone().call(request),
            ("tensorflow.serving.ModelService", ..) => self.model.clone().call(request),
            ("grpc.health.v1.Health", Some(health), _) => health.clone().call(request),
            ("grpc.reflection.v1.ServerReflection", _, Some((v1, _))) => v1(request),
            ("grpc.reflection.v1alpha.ServerReflection", _, Some((_, v1alpha))) => v1alpha(request),
            _ => {
                let text = format!("there is no service for {path}");
                Box::pin(std::future::ready(Ok(tonic::Status::unimplemented(text).into_http())))
            }
        }
    }
}

fn reflection() -> Result<(Erased, Erased), Error> {
    let builder = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let fail = |error| Error::new(ErrorKind::Reflection, "cannot describe the services", error);
    Ok((erase(builder().build_v1().map_err(fail)?), erase(builder().build_v1alpha().map_err(fail)?)))
}

fn erase<S>(service: S) -> Erased
where
    S: Service<Request<Messages>, Response = Response<Body>, Error = Infallible, Future = Answering>,
    S: Clone + Send + Sync + 'static,
{
    Arc::new(move |request| service.clone().call(request))
}

/// What a call brings besides its message.
#[derive(Debug, Clone)]
pub(crate) struct Arrival {
    started: Instant,
    /// Bytes of the message; whoever decodes it adds what that takes.
    reservation: Arc<Reservation>,
    entry: Option<Arc<Entry>>,
    asker: Result<Asker, salver_predict::Error>,
}

impl Arrival {
    /// By when an answer is wanted, and by whom.
    fn terms(&self, metadata: &MetadataMap) -> Result<Terms, salver_predict::Error> {
        Ok(Terms::by(deadline(self.started, metadata), self.asker.clone()?))
    }
}

/// How long a call goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Course {
    /// One message each way.
    Unary,
    /// Requests and answers for as long as the client likes.
    Inference,
    /// Watching health or asking for descriptors; nobody waits for its end.
    Background,
}

impl Course {
    fn of(path: &str) -> Course {
        match path {
            path if path.starts_with("/grpc.") => Course::Background,
            path if path.ends_with("/ModelStreamInfer") => Course::Inference,
            _ => Course::Unary,
        }
    }
}

/// Answers one call.
pub(crate) fn handle(shared: &Arc<Shared>, activity: &Arc<Activity>, request: Request<Incoming>) -> Handling {
    let core = Arc::clone(&shared.core);
    let running = activity.running(request.version());
    let (mut parts, body) = request.into_parts();
    let entry =
        core.config.access_log.then(|| Arc::new(Entry::new(&parts.method, parts.uri.path(), &parts.headers)));
    // A client that compresses gets a compressed answer. Most clients say that they understand compression, and
    // would pay for it in time.
    if !parts.headers.contains_key("grpc-encoding") {
        parts.headers.remove("grpc-accept-encoding");
    }
    let reservation = Arc::new(core.budget.empty());
    let course = Course::of(parts.uri.path());
    let pauses = course != Course::Unary;
    let unpacker = Unpacker::of_call(&mut parts.headers);
    let messages = Messages::new(body, Arc::clone(&core), Arc::clone(&reservation), pauses, unpacker);
    parts.extensions.insert(Arrival {
        started: clock::now(),
        reservation: Arc::clone(&reservation),
        entry: entry.clone(),
        asker: core.askers.read(&parts.headers),
    });
    core.metrics.in_flight.inc();
    let future = shared.services.call(Request::from_parts(parts, messages));
    Handling {
        future,
        core,
        activity: Arc::clone(activity),
        running: Some(running),
        course,
        entry,
        reservation,
    }
}

/// A call that is being answered.
pub(crate) struct Handling {
    future: Answering,
    core: Arc<Core>,
    activity: Arc<Activity>,
    running: Option<Running>,
    course: Course,
    entry: Option<Arc<Entry>>,
    reservation: Arc<Reservation>,
}

impl Drop for Handling {
    fn drop(&mut self) {
        self.core.metrics.in_flight.dec();
    }
}

impl Future for Handling {
    type Output = Result<Response<Answer<Body>>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let response = match ready!(self.future.as_mut().poll(cx)) {
            Ok(response) => response,
            Err(never) => match never {},
        };
        if let Some(entry) = &self.entry {
            entry.write(status_number(response.headers()), self.reservation.n_bytes() as u64, None);
        }
        let running = self.running.take();
        let busy = match self.course {
            Course::Unary => Busy::Sending { guard: self.activity.sending() },
            Course::Inference => Busy::Running { _guard: running },
            Course::Background => Busy::Streaming { _guard: self.activity.streaming() },
        };
        Poll::Ready(Ok(response.map(|body| Answer::new(body, busy))))
    }
}

/// gRPC's status of an answer that has no message; 0 for one that has.
fn status_number(headers: &HeaderMap) -> i32 {
    let status = headers.get("grpc-status").and_then(|value| value.to_str().ok());
    status.and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// The deadline that the client gave.
fn deadline(started: Instant, metadata: &MetadataMap) -> Option<Instant> {
    let timeout = timeout(metadata.get("grpc-timeout")?.to_str().ok()?)?;
    started.checked_add(timeout)
}

/// At most eight digits and a unit.
fn timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let n: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(n * 3600),
        "M" => Duration::from_secs(n * 60),
        "S" => Duration::from_secs(n),
        "m" => Duration::from_millis(n),
        "u" => Duration::from_micros(n),
        "n" => Duration::from_nanos(n),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_as_the_protocol_says() {
        let cases = [
            ("1H", Some(Duration::from_secs(3600))),
            ("2M", Some(Duration::from_secs(120))),
            ("99999999S", Some(Duration::from_secs(99_999_999))),
            ("250m", Some(Duration::from_millis(250))),
            ("5u", Some(Duration::from_micros(5))),
            ("0n", Some(Duration::ZERO)),
            ("123456789S", None),
            ("-1S", None),
            ("+1S", None),
            ("1", None),
            ("S", None),
            ("", None),
            ("1é", None),
        ];
        for (text, expected) in cases {
            assert_eq!(timeout(text), expected, "{text}");
        }
    }
}
