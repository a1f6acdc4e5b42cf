//! What comes back when nothing is wrong.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message as _;
use salver_predict::{Asker, Blame, Code, ModelSpec, Predictor as _, Version, VersionChoice};
use salver_remote::{Address, PeerState, Protocol, Remote, Settings};
use salver_server::Config;
use salver_wire::client::oip_grpc;
use salver_wire::proto::inference::ModelMetadataResponse;
use salver_wire::proto::inference::model_metadata_response::TensorMetadata;
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

use crate::play::{Running, Script, Stage, ask, ask_good, call, latest, remote, run, settings, vector};

/// An hour from now.
#[allow(clippy::disallowed_methods, reason = "a deadline is a moment of the clock")]
fn in_an_hour() -> Instant {
    Instant::now() + Duration::from_secs(3600)
}

fn address(server: &Running, protocol: Protocol) -> String {
    match protocol {
        Protocol::TfsGrpc | Protocol::OipGrpc => server.grpc().to_string(),
        Protocol::TfsRest | Protocol::OipRest => server.rest().to_string(),
    }
}

#[test]
fn every_protocol_gives_the_same() {
    run(async {
        let server = Running::start(Script::Double);
        server.stage.version.store(7, Ordering::SeqCst);
        for protocol in Protocol::ALL {
            let settings = Settings { protocol: Some(protocol), ..settings(&[address(&server, protocol)]) };
            let remote = Remote::new(settings).unwrap();
            let target = remote.resolve(&latest()).await.unwrap();
            assert_eq!(target.id().version, Version(7), "{protocol}");
            // TensorFlow Serving's answers say which version gave them over gRPC only.
            let said = (protocol != Protocol::TfsRest).then_some(Version(7));
            let mut all = call(&*target, &[1.0, 2.5, -3.0]);
            for outputs in [vec![0, 1], vec![1, 0], vec![1], vec![]] {
                all.outputs = outputs.clone();
                let answer = Arc::clone(&target).predict(all.clone()).await.unwrap();
                let expected = [vector(&[2.0, 5.0, -6.0]), vector(&[1.0, 2.5, -3.0])];
                let expected: Vec<_> = outputs.iter().map(|&at| expected[at].clone()).collect();
                assert_eq!((answer.outputs, answer.version), (expected, said), "{protocol} {outputs:?}");
            }
            let other = target.signature("other").map(|signature| signature.name().to_string());
            let has_others = matches!(protocol, Protocol::TfsGrpc | Protocol::TfsRest);
            assert_eq!(other.is_ok(), has_others, "{protocol}: {other:?}");
        }
        server.stop().await;
    });
}

#[test]
fn versions_are_those_asked_for() {
    run(async {
        let server = Running::start(Script::Double);
        server.stage.version.store(3, Ordering::SeqCst);
        for protocol in Protocol::ALL {
            let settings = Settings { protocol: Some(protocol), ..settings(&[address(&server, protocol)]) };
            let remote = Remote::new(settings).unwrap();
            for (version, expected) in [
                (VersionChoice::Latest, Ok(Version(3))),
                (VersionChoice::Number(3), Ok(Version(3))),
                (VersionChoice::Number(4), Err(Code::NotFound)),
            ] {
                let spec = ModelSpec { version: version.clone(), ..latest() };
                let found = remote.resolve(&spec).await.map(|target| target.id().version);
                assert_eq!(found.map_err(|error| error.code()), expected, "{protocol} {version:?}");
            }
        }
        let remote = remote(&[server.grpc()]);
        let spec = ModelSpec { version: VersionChoice::Label("stable".to_owned()), ..latest() };
        let target = remote.resolve(&spec).await.unwrap();
        let question = call(&*target, &[1.0]);
        assert_eq!(target.predict(question).await.unwrap().version, Some(Version(3)));
        server.stop().await;
    });
}

#[test]
fn the_version_that_answers_is_told() {
    run(async {
        let server = Running::start(Script::Double);
        let mut settings = settings(&[server.grpc().to_string()]);
        settings.refresh_every = Duration::from_secs(3600);
        let remote = Remote::new(settings).unwrap();
        let target = remote.resolve(&latest()).await.unwrap();
        assert_eq!(target.id().version, Version(1));
        server.stage.version.store(2, Ordering::SeqCst);
        let question = call(&*target, &[1.0]);
        let answer = target.predict(question).await.unwrap();
        assert_eq!(answer.version, Some(Version(2)));
        assert_eq!(remote.resolve(&latest()).await.unwrap().id().version, Version(1));
        server.stop().await;
    });
}

/// A version takes the place of the one that was asked and takes or gives something else. That is no fault of the request,
/// nor of the server: asked anew, as the model is now, it is answered.
#[test]
fn a_model_that_changed_is_asked_anew() {
    run(async {
        let server = Running::start(Script::Double);
        // What is known is old enough to be asked again only for a reason.
        let refresh_every = Duration::from_secs(3600);
        for protocol in Protocol::ALL {
            let settings = Settings {
                protocol: Some(protocol),
                refresh_every,
                ..settings(&[address(&server, protocol)])
            };
            for version in [10, 20, 30] {
                // What REST says is read as what was expected, where numbers are numbers.
                let is_read = (protocol, version) == (Protocol::TfsRest, 20);
                let remote = Remote::new(settings.clone()).unwrap();
                server.stage.version.store(1, Ordering::SeqCst);
                let target = remote.resolve(&latest()).await.unwrap();
                let question = call(&*target, &[1.0]);
                server.stage.version.store(version, Ordering::SeqCst);
                let answered = Arc::clone(&target).predict(question).await;
                if is_read {
                    assert_eq!(answered.unwrap().outputs, [vector(&[2.0])]);
                    continue;
                }
                let error = answered.unwrap_err();
                assert_eq!(
                    (error.code(), error.blame()),
                    (Code::Aborted, Blame::Peer),
                    "{protocol} {version}"
                );
                let expected = format!("'double' changed: version {version} does not have the signature");
                assert!(error.message().contains(&expected), "{error}");
                let target = remote.resolve(&latest()).await.unwrap();
                assert_eq!(target.id().version, Version(version), "{protocol}");
                let question = call(&*target, &[1.0]);
                assert_eq!(target.predict(question).await.unwrap().outputs.len(), 1);
                assert_eq!(remote.status().peers[0].counts.failures, 0, "{protocol} {version}");
            }
        }
        server.stop().await;
    });
}

#[test]
fn what_is_known_is_kept_and_asked_for_once() {
    run(async {
        let server = Running::start(Script::Double);
        let remote = Arc::new(remote(&[server.grpc()]));
        let waiting = server.stage.resolving.acquire().await.unwrap();
        let resolve = |_| {
            let remote = Arc::clone(&remote);
            tokio::task::spawn_local(async move { remote.resolve(&latest()).await.unwrap() })
        };
        tokio::task::LocalSet::new()
            .run_until(async {
                let all: Vec<_> = (0..10).map(resolve).collect();
                tokio::task::yield_now().await;
                drop(waiting);
                let mut targets = Vec::new();
                for one in all {
                    targets.push(one.await.unwrap());
                }
                let first = &targets[0].signatures()[0];
                assert!(targets.iter().all(|target| Arc::ptr_eq(&target.signatures()[0], first)));
            })
            .await;
        assert_eq!(server.stage.n_resolved.load(Ordering::SeqCst), 1);
        // Without any server, what is known is still known.
        server.stop().await;
        assert!(remote.resolve(&latest()).await.is_ok());
        assert_eq!(ask(&remote, &[1.0]).await.unwrap_err().code(), Code::Unavailable);
    });
}

#[test]
fn the_protocol_is_found_out() {
    run(async {
        let server = Running::start(Script::Double);
        let remote = remote(&[server.grpc()]);
        assert_eq!(remote.status().protocol, None);
        ask_good(&remote).await;
        assert_eq!(remote.status().protocol, Some(Protocol::TfsGrpc));
        server.stop().await;
    });
}

/// A server that speaks the Open Inference Protocol alone, and only to those who say the word.
async fn serve_oip(listener: TcpListener, word: Option<&'static str>) {
    let answer = move |request: http::Request<hyper::body::Incoming>| async move {
        let tensor = |name: &str| TensorMetadata {
            name: name.to_owned(),
            datatype: "FP32".to_owned(),
            shape: vec![-1],
        };
        let described = ModelMetadataResponse {
            name: "double".to_owned(),
            versions: vec!["2".to_owned(), "11".to_owned()],
            platform: "somebody".to_owned(),
            inputs: vec![tensor("x")],
            outputs: vec![tensor("y")],
        };
        let said = request.headers().get("authorization").map(|said| said.to_str().unwrap());
        let (status, message) = match request.uri().path() {
            _ if said != word => ("16", Vec::new()),
            oip_grpc::METADATA => ("0", described.encode_to_vec()),
            _ => ("12", Vec::new()),
        };
        let mut body = vec![0];
        body.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
        body.extend_from_slice(&message);
        http::Response::builder()
            .header("content-type", "application/grpc")
            .header("grpc-status", status)
            .body(Full::new(Bytes::from(body)))
    };
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        let connection = builder.serve_connection(TokioIo::new(stream), service_fn(answer));
        connections.spawn(async move { drop(connection.await) });
    }
}

#[test]
fn the_other_protocol_is_found_out_too() {
    run(async {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let remote = remote(&[listener.local_addr().unwrap()]);
        let serving = tokio::runtime::Handle::current().spawn(serve_oip(listener, None));
        let _serving = AbortOnDropHandle::new(serving);
        let target = remote.resolve(&latest()).await.unwrap();
        assert_eq!((target.id().version, target.platform()), (Version(11), "somebody"));
        assert_eq!(remote.status().protocol, Some(Protocol::OipGrpc));
        let question = call(&*target, &[1.0]);
        assert_eq!(target.predict(question).await.unwrap_err().code(), Code::Unimplemented);
        assert_eq!(remote.status().peers[0].counts.failures, 0);
    });
}

#[test]
fn every_request_carries_the_headers() {
    run(async {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let mut settings = settings(&[listener.local_addr().unwrap().to_string()]);
        let serving = tokio::runtime::Handle::current().spawn(serve_oip(listener, Some("word")));
        let _serving = AbortOnDropHandle::new(serving);
        settings.protocol = Some(Protocol::OipGrpc);
        let stranger = Remote::new(settings.clone()).unwrap();
        assert_eq!(stranger.resolve(&latest()).await.unwrap_err().code(), Code::Unauthenticated);
        settings.headers.insert("authorization", http::HeaderValue::from_static("word"));
        let remote = Remote::new(settings).unwrap();
        let target = remote.resolve(&latest()).await.unwrap();
        let question = call(&*target, &[1.0]);
        assert_eq!(target.predict(question).await.unwrap_err().code(), Code::Unimplemented);
    });
}

#[test]
fn sockets_of_this_machine_are_asked_too() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let config = Config {
            grpc: None,
            rest: None,
            grpc_unix: Some(folder.path().join("s.sock")),
            ..Config::default()
        };
        let server = Running::with(Stage::new(Script::Double), config);
        let remote = Remote::new(settings(&[format!("unix:{}", server.unix().display())])).unwrap();
        ask_good(&remote).await;
        assert_eq!(remote.status().peers[0].peer.address, Address::Unix(server.unix()));
        server.stop().await;
    });
}

#[test]
fn terms_travel() {
    run(async {
        let server = Running::start(Script::Terms);
        for protocol in Protocol::ALL {
            let settings = Settings { protocol: Some(protocol), ..settings(&[address(&server, protocol)]) };
            let remote = Remote::new(settings).unwrap();
            let target = remote.resolve(&latest()).await.unwrap();
            for (asker, deadline, expected) in [
                (Asker::default(), None, [5.0, 0.0, 1.0]),
                (Asker { priority: 2, caller: 77 }, Some(in_an_hour()), [2.0, 1.0, 1.0]),
                (Asker { priority: 200, caller: 0 }, None, [9.0, 0.0, 1.0]),
            ] {
                let question = salver_predict::Call { asker, deadline, ..call(&*target, &[0.0]) };
                let answer = Arc::clone(&target).predict(question).await.unwrap();
                assert_eq!(answer.outputs, [vector(&expected)], "{protocol} {asker:?}");
            }
        }
        server.stop().await;
    });
}

#[test]
fn callers_may_come_from_any_runtime() {
    let server = Running::start(Script::Double);
    let remote = Arc::new(remote(&[server.grpc()]));
    let worker = |number: u32| {
        let remote = Arc::clone(&remote);
        std::thread::spawn(move || {
            // Without time and sockets: nothing of the caller's runtime is used.
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                for at in 0..50 {
                    let value = (number * 100 + at) as f32;
                    let answer = ask(&remote, &[value]).await.unwrap();
                    assert_eq!(answer.outputs, [vector(&[value * 2.0])]);
                }
            });
        })
    };
    let workers: Vec<_> = (0..4).map(worker).collect();
    workers.into_iter().for_each(|worker| worker.join().unwrap());
    let peer = remote.status().peers.remove(0);
    assert_eq!((peer.state, peer.under_way, peer.counts.failures), (PeerState::Used, 0, 0));
    assert!(peer.counts.requests >= 200 && peer.estimate.is_some());
    run(server.stop());
}

#[test]
fn sizes_have_a_bound() {
    run(async {
        let server = Running::start(Script::Double);
        for protocol in Protocol::ALL {
            let address = address(&server, protocol);
            let settings = Settings { protocol: Some(protocol), max_message: 8000, ..settings(&[address]) };
            let remote = Remote::new(settings).unwrap();
            assert!(ask(&remote, &vec![1.0; 500]).await.is_ok(), "{protocol}");
            let error = ask(&remote, &vec![1.5; 5000]).await.unwrap_err();
            assert_eq!((error.code(), error.blame()), (Code::ResourceExhausted, Blame::Client), "{protocol}");
            // The answer alone is too large.
            let target = remote.resolve(&latest()).await.unwrap();
            let mut question = call(&*target, &vec![1.0; 1400]);
            question.outputs = vec![0, 1];
            let error = target.predict(question).await.unwrap_err();
            assert_eq!(error.code(), Code::ResourceExhausted, "{protocol}: {error}");
            if protocol != Protocol::TfsRest {
                assert_eq!(error.blame(), Blame::Peer, "{protocol}: {error}");
            }
        }
        server.stop().await;
    });
}

#[test]
fn questions_that_fit_no_signature_are_not_sent() {
    run(async {
        let server = Running::start(Script::Double);
        let remote = remote(&[server.grpc()]);
        let target = remote.resolve(&latest()).await.unwrap();
        let good = call(&*target, &[1.0]);
        let none = salver_predict::Call { inputs: Vec::new(), ..good.clone() };
        let far = salver_predict::Call { outputs: vec![5], ..good };
        for question in [none, far] {
            let error = Arc::clone(&target).predict(question).await.unwrap_err();
            assert_eq!(error.code(), Code::InvalidArgument);
        }
        assert_eq!(server.stage.n_calls(), 0);
        server.stop().await;
    });
}
