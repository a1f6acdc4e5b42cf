//! Runs against a server that answers as it is told.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "a test's server has tasks and clocks of its own")]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};
use salver_load::{
    Arrivals, Check, Goal, Kind, Load, MakeUp, Plan, Protocol, Search, Step, Stop, Subject, Summary, Target,
    Timing, ask, describe, make_up, run, run_with,
};
use salver_predict::{ModelId, ModelName, Version};
use salver_tensor::{DType, Dims, Signature, TensorSpec};

/// What the server does with the request of this number: a gRPC status (0 for an answer), and after how long.
type Script = fn(usize) -> (i32, Duration);

struct Fake {
    address: SocketAddr,
    served: Arc<AtomicUsize>,
    seen: Arc<Seen>,
    _runtime: tokio::runtime::Runtime,
}

/// What the server knows besides its script.
#[derive(Default)]
struct Seen {
    /// The timeouts that it was told.
    timeouts: Mutex<Vec<String>>,
    /// Where there is one, requests are answered one after the other, each after so long.
    one_by_one: Option<(tokio::sync::Mutex<()>, Duration)>,
}

fn signature() -> Arc<Signature> {
    let spec = |name: &str, dims| TensorSpec {
        name: name.into(),
        tensor_name: name.into(),
        dtype: DType::F32,
        dims,
        default: None,
    };
    let dims = || Dims::new(vec![None, Some(2)]);
    Arc::new(Signature::new("serving_default", "", vec![spec("x", dims())], vec![spec("y", dims())]))
}

/// Metadata, or an answer that repeats the input. The number of a request is counted over all connections.
async fn answer(
    request: Request<hyper::body::Incoming>,
    served: Arc<AtomicUsize>,
    seen: Arc<Seen>,
    script: Script,
) -> Result<Response<http_body_util::combinators::BoxBody<Bytes, Infallible>>, Infallible> {
    let is_grpc = request.headers().get("content-type").is_some_and(|value| value == "application/grpc");
    let path = request.uri().path().to_owned();
    let timeout = ["grpc-timeout", "x-request-timeout-ms"].map(|name| request.headers().get(name));
    let timeout = timeout.into_iter().flatten().map(|value| value.to_str().unwrap().to_owned());
    seen.timeouts.lock().unwrap().extend(timeout);
    let body = request.into_body().collect().await.unwrap().to_bytes();
    if !path.ends_with("Predict") && !path.ends_with(":predict") {
        return Ok(metadata(&path));
    }
    let (status, wait) = script(served.fetch_add(1, Ordering::SeqCst));
    tokio::time::sleep(wait).await;
    if let Some((turn, each)) = &seen.one_by_one {
        let _turn = turn.lock().await;
        tokio::time::sleep(*each).await;
    }
    if !is_grpc {
        let http = [200, 503][usize::from(status != 0)];
        let body = r#"{"predictions": [[1.0, 2.0]]}"#;
        return Ok(Response::builder().status(http).body(Full::new(Bytes::from(body)).boxed()).unwrap());
    }
    Ok(grpc(status, &echo(&body)))
}

fn echo(body: &Bytes) -> Vec<u8> {
    use prost::Message as _;
    use salver_wire::proto::tensorflow::serving::{PredictRequest, PredictResponse};
    let request = PredictRequest::decode(body.slice(5..)).unwrap();
    let outputs = request.inputs.into_values().map(|tensor| ("y".to_owned(), tensor)).collect();
    PredictResponse { outputs, model_spec: None }.encode_to_vec()
}

fn metadata(path: &str) -> Response<http_body_util::combinators::BoxBody<Bytes, Infallible>> {
    use prost::Message as _;
    let id = ModelId { name: ModelName::new("m").unwrap(), version: Version(1) };
    match path.ends_with("GetModelMetadata") {
        true => grpc(0, &salver_wire::tfs::metadata_response(&id, &[signature()]).encode_to_vec()),
        false => {
            let body = salver_wire::json::metadata_body(&id, [&*signature()]);
            Response::new(Full::new(Bytes::from(body)).boxed())
        }
    }
}

fn grpc(status: i32, message: &[u8]) -> Response<http_body_util::combinators::BoxBody<Bytes, Infallible>> {
    let mut framed = vec![0];
    framed.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
    framed.extend_from_slice(message);
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", status.into());
    trailers.insert("grpc-message", "as%20told".parse().unwrap());
    let data = (status == 0).then(|| Ok(Frame::data(Bytes::from(framed))));
    let frames = data.into_iter().chain([Ok(Frame::trailers(trailers))]);
    let body = StreamBody::new(tokio_stream(frames.collect()));
    Response::builder().header("content-type", "application/grpc").body(body.boxed()).unwrap()
}

fn tokio_stream<T>(all: Vec<T>) -> impl futures_util::Stream<Item = T> {
    futures_util::stream::iter(all)
}

impl Fake {
    fn start(script: Script) -> Fake {
        Fake::with(script, Seen::default())
    }

    /// One that answers one request after the other, each after 10 ms.
    fn limited() -> Fake {
        let one_by_one = Some((tokio::sync::Mutex::new(()), Duration::from_millis(10)));
        Fake::with(at_once, Seen { one_by_one, ..Seen::default() })
    }

    fn with(script: Script, seen: Seen) -> Fake {
        let seen = Arc::new(seen);
        let shown = Arc::clone(&seen);
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let (address, served) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
        let counted = Arc::clone(&served);
        runtime.spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (served, seen) = (Arc::clone(&counted), Arc::clone(&shown));
                let service = hyper::service::service_fn(move |request| {
                    answer(request, Arc::clone(&served), Arc::clone(&seen), script)
                });
                tokio::spawn(async move {
                    let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                    drop(builder.serve_connection(TokioIo::new(stream), service).await);
                });
            }
        });
        Fake { address, served, seen, _runtime: runtime }
    }

    fn target(&self) -> Target {
        self.address.to_string().parse().unwrap()
    }

    fn plan(&self, protocol: Protocol, load: Load) -> Plan {
        let subject = Subject::new(protocol, "m", None).unwrap();
        let bodies = make_up(&signature(), &MakeUp { n_bodies: 3, ..MakeUp::default() }).unwrap();
        let calls = bodies.iter().map(|inputs| subject.call(inputs).unwrap()).collect();
        let timing =
            Timing { warm_up: Duration::ZERO, window: Duration::from_millis(100), ..Timing::default() };
        Plan { timing: timing.fixed(Duration::from_millis(300)), ..Plan::new(self.target(), calls, load) }
    }
}

fn trace(n: u64) -> Load {
    Load::Open(Arrivals::Trace((0..n).map(Duration::from_millis).collect()))
}

fn at_once(_: usize) -> (i32, Duration) {
    (0, Duration::ZERO)
}

/// Every request that was meant to leave is counted once, whatever becomes of it.
fn check_all_counted(summary: &Summary, fake: &Fake) {
    let counts = summary.counts;
    let sent = usize::try_from(counts.sent()).unwrap();
    assert_eq!(sent, fake.served.load(Ordering::SeqCst), "{counts:?}");
    let groups: u64 = summary.groups.iter().map(|group| group.total()).sum();
    assert_eq!(groups, counts.total());
}

#[test]
fn each_outcome_is_counted_in_its_class() {
    let script = |number| match number % 5 {
        0 => (14, Duration::ZERO),
        1 => (4, Duration::ZERO),
        2 => (3, Duration::ZERO),
        3 => (0, Duration::from_millis(200)),
        _ => (0, Duration::ZERO),
    };
    let fake = Fake::start(script);
    let mut plan = fake.plan(Protocol::TfsGrpc, trace(50));
    plan.deadline = Some(Duration::from_millis(150));
    plan.calls = plan.calls.into_iter().enumerate().map(|(group, call)| call.in_group(group)).collect();
    let summary = run(&plan).unwrap();
    let counts = summary.counts;
    assert_eq!(
        (counts.refused, counts.expired, counts.failed, counts.not_sent),
        (10, 10, 10, 0),
        "{counts:?}"
    );
    assert_eq!((counts.ok + counts.late, counts.wrong), (20, 0));
    assert!(counts.late >= 10, "{counts:?}");
    assert_eq!((summary.groups.len(), summary.latency.n, summary.refused_latency.n), (3, 20, 10));
    let texts: Vec<&str> = summary.errors.iter().map(|(text, _)| text.as_str()).collect();
    assert!(
        texts.contains(&"INVALID_ARGUMENT: as told") && texts.contains(&"UNAVAILABLE: as told"),
        "{texts:?}"
    );
    check_all_counted(&summary, &fake);
}

#[test]
fn rest_is_spoken_too() {
    let script = |number: usize| (if number.is_multiple_of(2) { 0 } else { 14 }, Duration::ZERO);
    let fake = Fake::start(script);
    let summary = run(&fake.plan(Protocol::TfsRest, trace(40))).unwrap();
    assert_eq!((summary.counts.ok, summary.counts.refused), (20, 20), "{summary:?}");
    check_all_counted(&summary, &fake);
}

#[test]
fn several_threads_send_the_whole_schedule() {
    let fake = Fake::start(at_once);
    let mut plan = fake.plan(Protocol::TfsGrpc, trace(100));
    plan.threads = 3;
    let summary = run(&plan).unwrap();
    assert_eq!((summary.counts.ok, summary.generator.threads), (100, 3));
    check_all_counted(&summary, &fake);
}

#[test]
fn a_closed_loop_keeps_its_requests_on_their_way() {
    let fake = Fake::start(|_| (0, Duration::from_millis(5)));
    for protocol in [Protocol::TfsGrpc, Protocol::TfsRest] {
        let summary = run(&fake.plan(protocol, Load::Closed { in_flight: 4 })).unwrap();
        assert!(
            summary.counts.ok >= 4 && summary.counts.total() == summary.counts.ok,
            "{:?}",
            summary.counts
        );
        assert!(summary.windows.iter().all(|row| row.in_flight <= 4));
        assert!(summary.latency.p50 >= 5.0);
        assert!(summary.generator.busy > 0.0 && summary.generator.busy < 1.0, "{:?}", summary.generator);
    }
}

/// A stall of the server is seen by every request that was meant to leave during it.
#[test]
fn latency_counts_from_the_intended_moment() {
    let fake = Fake::start(|number| (0, Duration::from_millis(if number == 0 { 200 } else { 0 })));
    let mut plan = fake.plan(Protocol::TfsRest, trace(100));
    // One request at a time: the others cannot leave, and are counted as such.
    plan.max_in_flight = 1;
    let summary = run(&plan).unwrap();
    assert_eq!(summary.counts.total(), 100);
    assert!(summary.counts.not_sent >= 90 && summary.latency.max >= 200.0, "{:?}", summary.counts);
    check_all_counted(&summary, &fake);
}

#[test]
fn answers_that_are_given_up_have_failed() {
    let fake = Fake::start(|_| (0, Duration::from_secs(60)));
    let mut plan = fake.plan(Protocol::TfsGrpc, trace(10));
    plan.timeout = Duration::from_millis(100);
    let summary = run(&plan).unwrap();
    assert_eq!((summary.counts.failed, summary.errors[0].0.as_str()), (10, "no answer within 100ms"));
}

#[test]
fn a_stop_ends_the_run_with_what_was_measured() {
    let fake = Fake::start(at_once);
    let mut plan = fake.plan(Protocol::TfsGrpc, Load::poisson(500.0, 1));
    plan.timing = plan.timing.fixed(Duration::from_secs(600));
    let stop = Stop::default();
    let mut n_windows = 0;
    let summary = run_with(&plan, &stop, &mut |progress| {
        n_windows = progress.windows.len();
        if n_windows == 2 {
            stop.stop();
        }
    })
    .unwrap();
    assert!(summary.is_interrupted && summary.counts.ok > 0 && summary.seconds >= 0.2 && n_windows <= 3);
}

#[test]
fn runs_end_when_windows_are_alike() {
    let fake = Fake::start(|_| (0, Duration::from_millis(20)));
    let mut plan = fake.plan(Protocol::TfsGrpc, Load::Closed { in_flight: 2 });
    plan.timing =
        Timing { duration: None, within: 10.0, max_duration: Duration::from_secs(30), ..plan.timing };
    let summary = run(&plan).unwrap();
    assert_eq!((summary.is_stable, summary.windows.len()), (Some(true), 3));
    plan.timing = Timing { within: -1.0, max_duration: Duration::from_millis(400), ..plan.timing };
    let summary = run(&plan).unwrap();
    assert_eq!((summary.is_stable, summary.windows.len()), (Some(false), 4));
}

#[test]
fn wrong_answers_are_found() {
    let fake = Fake::start(at_once);
    let mut plan = fake.plan(Protocol::TfsGrpc, trace(9));
    let subject = Subject::new(Protocol::TfsGrpc, "m", None).unwrap();
    let check = Check::new(subject.clone(), signature(), 1e-6, plan.calls.len());
    plan.check = Some(check.clone());
    assert_eq!(run(&plan).unwrap().counts.ok, 9);
    // The first call is held to the answer of the second.
    let other =
        subject.decode(&signature(), &ask(&plan.target, &plan.calls[1], plan.timeout).unwrap()).unwrap();
    let check = Check::new(subject, signature(), 1e-6, plan.calls.len());
    check.expect(0, other);
    plan.check = Some(check);
    let summary = run(&plan).unwrap();
    assert_eq!((summary.counts.ok, summary.counts.wrong), (6, 3), "{:?}", summary.errors);
    assert!(summary.errors[0].0.starts_with("call 0: output 'y' is "), "{:?}", summary.errors);
    assert!(!"max=1h,errors=0%".parse::<Goal>().unwrap().misses(&summary).is_empty());
}

/// What comes after the time that was measured is no throughput of it. The server does 100 a second at most.
#[test]
fn rates_are_of_what_came_in_the_time_that_was_measured() {
    let fake = Fake::limited();
    let mut plan = fake.plan(Protocol::TfsGrpc, Load::Open(Arrivals::Constant { rate: 400.0 }));
    plan.timing = plan.timing.fixed(Duration::from_millis(500));
    let summary = run(&plan).unwrap();
    assert_eq!((summary.counts.ok, summary.counts.total()), (200, 200));
    assert!((summary.offered - 400.0).abs() < 1e-6, "{}", summary.offered);
    let rates = [summary.answered, summary.goodput, summary.rows];
    assert!(rates.iter().all(|rate| (1.0..105.0).contains(rate)), "{rates:?}");
    assert!(summary.falls_behind && summary.in_flight[0] == 0 && summary.in_flight[1] > 100);
    let goal: Goal = "max=1h".parse().unwrap();
    let misses = goal.misses(&summary);
    assert!(misses[0].starts_with("the server does less than is offered"), "{misses:?}");
    // A closed loop offers what is answered.
    plan.load = Load::Closed { in_flight: 20 };
    let summary = run(&plan).unwrap();
    assert!(!summary.falls_behind && summary.answered < 105.0, "{}", summary.answered);
    assert_eq!(goal.misses(&summary), Vec::<String>::new());
}

#[test]
fn a_queue_that_grows_is_not_stable() {
    let fake = Fake::limited();
    let mut plan = fake.plan(Protocol::TfsGrpc, Load::Open(Arrivals::Constant { rate: 300.0 }));
    // All windows with answers are alike.
    plan.timing =
        Timing { duration: None, within: 1e9, max_duration: Duration::from_millis(600), ..plan.timing };
    let summary = run(&plan).unwrap();
    assert_eq!((summary.is_stable, summary.windows.len()), (Some(false), 6));
    plan.load = Load::Open(Arrivals::Constant { rate: 40.0 });
    assert_eq!(run(&plan).unwrap().is_stable, Some(true));
}

/// The search that `salver bench` does, with a goal that any latency meets.
#[test]
fn the_highest_rate_is_not_above_what_the_server_does() {
    let fake = Fake::limited();
    let plan = fake.plan(Protocol::TfsGrpc, Load::Closed { in_flight: 4 });
    let capacity =
        run(&Plan { timing: plan.timing.fixed(Duration::from_secs(1)), ..plan.clone() }).unwrap().answered;
    let goal: Goal = "max=1h".parse().unwrap();
    let mut search = Search::new(capacity / 2.0, 0.2, 1.0, 20);
    let found = loop {
        let rate = match search.next() {
            Step::Try(rate) | Step::Verify(rate) => rate,
            Step::Done(found) => break found.unwrap(),
        };
        let load = Load::Open(Arrivals::Constant { rate });
        let timing = plan.timing.fixed(Duration::from_millis(900));
        search.tell(goal.misses(&run(&Plan { load, timing, ..plan.clone() }).unwrap()).is_empty());
    };
    assert!((0.7..1.2).contains(&(found / capacity)), "{found} of {capacity}");
}

/// The next request after the first would leave in 10 s: the time is waited for all the same.
#[test]
fn a_low_rate_is_measured_for_as_long_as_was_said() {
    let fake = Fake::start(at_once);
    let mut plan = fake.plan(Protocol::TfsGrpc, Load::Open(Arrivals::Constant { rate: 0.1 }));
    let summary = run(&plan).unwrap();
    assert_eq!((summary.counts.total(), summary.windows.len(), summary.seconds), (1, 3, 0.3));
    assert!(summary.answered < 3.4 && !summary.is_interrupted, "{}", summary.answered);
    plan.timing = Timing { duration: None, max_duration: Duration::from_millis(400), ..plan.timing };
    let summary = run(&plan).unwrap();
    assert_eq!((summary.is_stable, summary.windows.len()), (Some(false), 4));
}

/// The server hears what is left of the time since a request was meant to leave.
#[test]
fn deadlines_count_from_the_intended_moment() {
    let check = |protocol, deadline: Duration, unit: &str, most: u64, n_sent: usize| {
        let fake = Fake::start(at_once);
        let mut plan = fake.plan(protocol, trace(20));
        plan.deadline = Some(deadline);
        let summary = run(&plan).unwrap();
        let timeouts = fake.seen.timeouts.lock().unwrap().clone();
        let left = |timeout: &String| timeout.strip_suffix(unit).unwrap().parse::<u64>().unwrap();
        assert!(timeouts.iter().map(left).all(|left| left > 0 && left <= most), "{timeouts:?}");
        assert_eq!((timeouts.len(), summary.counts.overdue), (n_sent, 20 - n_sent as u64));
        check_all_counted(&summary, &fake);
        summary
    };
    // No request leaves in the nanosecond in which it was meant to, so less than all is left.
    check(Protocol::TfsGrpc, Duration::from_secs(60), "u", 59_999_999, 20);
    check(Protocol::TfsRest, Duration::from_secs(60), "", 60_000, 20);
    let summary = check(Protocol::TfsGrpc, Duration::from_nanos(1), "u", 0, 0);
    assert_eq!(summary.errors, [("the deadline was over before it could be sent".to_owned(), 20)]);
    assert_eq!((summary.latency.n, summary.answered), (0, 0.0));
}

#[test]
fn answers_beyond_the_budget_are_not_checked() {
    let fake = Fake::start(at_once);
    let mut plan = fake.plan(Protocol::TfsGrpc, trace(9));
    let subject = Subject::new(Protocol::TfsGrpc, "m", None).unwrap();
    let check = |n_bytes| Some(Check::new(subject.clone(), signature(), 1e-6, 3).keep_at_most(n_bytes));
    plan.check = check(10);
    let summary = run(&plan).unwrap();
    assert_eq!((summary.counts.wrong, summary.errors[0].0.as_str()), (9, "answer too large to check"));
    // There is room for what is read, and then for one of the three that others are held to.
    plan.check = check(70);
    plan.load = Load::Closed { in_flight: 1 };
    let counts = run(&plan).unwrap().counts;
    assert!(counts.wrong > 0 && counts.ok > 0, "{counts:?}");
    plan.check = check(100_000);
    assert_eq!(run(&plan).unwrap().counts.wrong, 0);
}

#[test]
fn models_are_described() {
    let fake = Fake::start(at_once);
    for protocol in [Protocol::TfsGrpc, Protocol::TfsRest] {
        let subject = Subject::new(protocol, "m", None).unwrap();
        let described = describe(&fake.target(), &subject, Duration::from_secs(10)).unwrap();
        assert_eq!(described.signature("").unwrap().inputs()[0].dims.to_string(), "[?,2]");
    }
}

#[test]
fn a_run_that_cannot_be_is_refused() {
    let fake = Fake::start(at_once);
    let good = fake.plan(Protocol::TfsGrpc, trace(1));
    let check = |plan: &Plan, kind: Kind, part: &str| {
        let error = run(plan).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(part), "{error}");
    };
    check(&Plan { calls: Vec::new(), ..good.clone() }, Kind::Input, "nothing to send");
    check(&Plan { load: Load::poisson(0.0, 1), ..good.clone() }, Kind::Input, "rate is 0");
    check(&Plan { load: Load::Closed { in_flight: 0 }, ..good.clone() }, Kind::Input, "0 requests in flight");
    check(
        &Plan { headers: vec![("a b".into(), "c".into())], ..good.clone() },
        Kind::Input,
        "header 'a b: c'",
    );
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let target = closed.to_string().parse().unwrap();
    check(&Plan { target, ..good }, Kind::Connect, "no server answers at 127.0.0.1:");
}
