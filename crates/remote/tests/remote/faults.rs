//! Servers that are away, slow, full, or no servers.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::{Either, select};
use salver_predict::{Blame, Call, Code, Error, ModelName, ModelSpec, Predictor as _, VersionChoice};
use salver_remote::{Apart, Peer, PeerState, PeerStatus, Protocol, Remote, Settings};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

use crate::play::{Running, Script, ask, ask_good, call, finish, latest, remote, run, settings, start};

/// What a socket does with each connection.
#[derive(Debug, Clone, Copy)]
enum Manners {
    /// Closes it at once.
    Close,
    /// Says something that is not HTTP.
    Babble,
    /// Takes everything and says nothing.
    Swallow,
    /// Closes its own side only, and goes on reading.
    HalfClose,
}

/// A socket with bad manners.
async fn rude(manners: Manners) -> (SocketAddr, AbortOnDropHandle<()>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let serve = async move {
        let mut connections = tokio::task::JoinSet::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            connections.spawn(async move {
                let mut buffer = [0; 4096];
                match manners {
                    Manners::Close => return,
                    Manners::Babble => drop(stream.write_all(b"I am no server\r\n\r\n").await),
                    Manners::HalfClose => drop(stream.shutdown().await),
                    Manners::Swallow => {}
                }
                while stream.read(&mut buffer).await.is_ok_and(|n| n > 0) {}
            });
        }
    };
    let handle = tokio::runtime::Handle::current().spawn(serve);
    (address, AbortOnDropHandle::new(handle))
}

fn peer(remote: &Remote, address: SocketAddr) -> PeerStatus {
    let peers = remote.status().peers;
    peers.into_iter().find(|status| status.peer == Peer::new(address)).unwrap()
}

/// Asks until the peer is in this state.
async fn until(remote: &Arc<Remote>, address: SocketAddr, state: PeerState) {
    while peer(remote, address).state != state {
        stir(remote).await;
    }
}

/// A few calls at once, so that not all of them go to the quickest.
async fn stir(remote: &Arc<Remote>) {
    finish(start(remote, 4)).await;
}

/// An address where nobody listens.
async fn nobody() -> SocketAddr {
    TcpListener::bind(("127.0.0.1", 0)).await.unwrap().local_addr().unwrap()
}

#[test]
fn a_server_that_goes_and_comes_back_costs_no_answer() {
    run(async {
        let (one, other) = (Running::start(Script::Double), Running::start(Script::Double));
        let address = one.grpc();
        let remote = Arc::new(remote(&[address, other.grpc()]));
        for _ in 0..20 {
            finish(start(&remote, 10)).await;
        }
        assert!(one.stage.n_calls() > 10 && other.stage.n_calls() > 10);
        one.stop().await;
        until(&remote, address, PeerState::Unreachable).await;
        for _ in 0..100 {
            ask_good(&remote).await;
        }
        let one = Running::again(address, Script::Double);
        until(&remote, address, PeerState::Used).await;
        while one.stage.n_calls() < 10 {
            stir(&remote).await;
        }
        one.stop().await;
        other.stop().await;
    });
}

#[test]
fn a_single_server_that_was_restarted_costs_no_answer() {
    run(async {
        let mut server = Running::start(Script::Double);
        let address = server.grpc();
        let remote = remote(&[address]);
        for _ in 0..5 {
            ask_good(&remote).await;
            server.stop().await;
            server = Running::again(address, Script::Double);
        }
        ask_good(&remote).await;
        server.stop().await;
    });
}

#[test]
fn calls_under_way_move_on_when_their_server_dies() {
    run(async {
        let (one, other) = (Running::start(Script::Hold), Running::start(Script::Double));
        let remote = Arc::new(remote(&[one.grpc(), other.grpc()]));
        // They go to both.
        let calls = start(&remote, 8);
        while *one.stage.held.borrow() == 0 || peer(&remote, other.grpc()).under_way > 0 {
            tokio::task::yield_now().await;
        }
        one.stop().await;
        finish(calls).await;
        other.stop().await;
    });
}

#[test]
fn sockets_without_manners_cost_no_answer() {
    run(async {
        let good = Running::start(Script::Double);
        for protocol in [Protocol::TfsGrpc, Protocol::TfsRest] {
            for manners in [Manners::Close, Manners::Babble, Manners::HalfClose] {
                let (bad, _serving) = rude(manners).await;
                let address = if protocol == Protocol::TfsGrpc { good.grpc() } else { good.rest() };
                let addresses = [address.to_string(), bad.to_string()];
                let settings = Settings { protocol: Some(protocol), ..settings(&addresses) };
                let remote = Remote::new(settings).unwrap();
                while peer(&remote, bad).counts.failures == 0 {
                    ask_good(&remote).await;
                }
                for _ in 0..50 {
                    ask_good(&remote).await;
                }
                assert_eq!(peer(&remote, address).counts.failures, 0, "{protocol} {manners:?}");
            }
        }
        good.stop().await;
    });
}

#[test]
fn without_any_server_an_error_says_why() {
    run(async {
        for protocol in [Protocol::TfsGrpc, Protocol::TfsRest] {
            let address = nobody().await;
            let settings = Settings { protocol: Some(protocol), ..settings(&[address.to_string()]) };
            let remote = Remote::new(settings).unwrap();
            let error = ask(&remote, &[1.0]).await.unwrap_err();
            assert_eq!((error.code(), error.blame()), (Code::Unavailable, Blame::Peer));
            assert!(error.message().starts_with(&format!("{address}: cannot connect")), "{error}");
            assert_eq!(peer(&remote, address).state, PeerState::Unreachable);
        }
        let (bad, _serving) = rude(Manners::Close).await;
        let error = ask(&remote(&[bad]), &[1.0]).await.unwrap_err();
        assert_eq!(error.code(), Code::Unavailable);
    });
}

#[test]
fn a_deadline_ends_a_call_that_nobody_answers() {
    run(async {
        let (bad, _serving) = rude(Manners::Swallow).await;
        for protocol in [Protocol::TfsGrpc, Protocol::TfsRest] {
            let timeout = Duration::from_millis(500);
            let settings = Settings { protocol: Some(protocol), timeout, ..settings(&[bad.to_string()]) };
            let remote = Remote::new(settings).unwrap();
            let error = ask(&remote, &[1.0]).await.unwrap_err();
            assert_eq!((error.code(), error.blame()), (Code::DeadlineExceeded, Blame::Peer), "{error}");
            let peer = peer(&remote, bad);
            assert_eq!((peer.under_way, peer.counts.failures), (0, 1));
        }
    });
}

#[test]
fn a_deadline_of_the_caller_counts() {
    run(async {
        let server = Running::start(Script::Hold);
        let remote = remote(&[server.grpc()]);
        let target = remote.resolve(&latest()).await.unwrap();
        #[allow(clippy::disallowed_methods, reason = "a deadline is a moment of the clock")]
        let now = Instant::now();
        for deadline in [now, now + Duration::from_millis(50)] {
            let question = Call { deadline: Some(deadline), ..call(&*target, &[1.0]) };
            let error = Arc::clone(&target).predict(question).await.unwrap_err();
            assert_eq!(error.code(), Code::DeadlineExceeded, "{error}");
        }
        server.stage.holds(0).await;
        server.stop().await;
    });
}

#[test]
fn a_call_that_is_dropped_is_dropped_at_the_server() {
    run(async {
        let server = Running::start(Script::Hold);
        for protocol in [Protocol::TfsGrpc, Protocol::TfsRest] {
            let address = if protocol == Protocol::TfsGrpc { server.grpc() } else { server.rest() };
            let settings = Settings { protocol: Some(protocol), ..settings(&[address.to_string()]) };
            let remote = Remote::new(settings).unwrap();
            let target = remote.resolve(&latest()).await.unwrap();
            let question = call(&*target, &[1.0]);
            let mut asked = target.predict(question);
            assert!((&mut asked).now_or_never().is_none());
            server.stage.holds(1).await;
            drop(asked);
            server.stage.holds(0).await;
            while peer(&remote, address).under_way > 0 {
                tokio::task::yield_now().await;
            }
            assert_eq!(peer(&remote, address).counts.failures, 0);
        }
        server.stop().await;
    });
}

#[test]
fn a_server_that_hangs_gets_hardly_any_calls() {
    run(async {
        let (slow, quick) = (Running::start(Script::Hold), Running::start(Script::Double));
        let remote = Arc::new(remote(&[slow.grpc(), quick.grpc()]));
        let mut hanging = start(&remote, 8);
        // Those that are quick have ended, and the others wait.
        while *slow.stage.held.borrow() == 0 || peer(&remote, quick.grpc()).under_way > 0 {
            tokio::task::yield_now().await;
        }
        let before = hanging.len();
        for _ in 0..100 {
            let n_held = *slow.stage.held.borrow();
            let mut held = slow.stage.held.subscribe();
            let hangs = std::pin::pin!(held.wait_for(|held| *held > n_held));
            if let Either::Right((_, call)) = select(start(&remote, 1).remove(0), hangs).await {
                hanging.push(call);
            }
        }
        // A stall of the quick one may have made it look the slower of the two, before the other had hung for longer.
        assert!(hanging.len() < before + 10, "{} of 100 calls", hanging.len() - before);
        slow.stage.release(hanging.len());
        finish(hanging).await;
        slow.stop().await;
        quick.stop().await;
    });
}

#[test]
fn a_server_that_asks_for_a_pause_gets_one() {
    run(async {
        let (full, other) = (Running::start(Script::Double), Running::start(Script::Double));
        let remote = Arc::new(remote(&[full.grpc(), other.grpc()]));
        ask_good(&remote).await;
        for code in [Code::Unavailable, Code::ResourceExhausted] {
            full.stage.play(Script::Fail(Error::overloaded(
                code,
                "the queue is full",
                Duration::from_secs(60),
            )));
        }
        until(&remote, full.grpc(), PeerState::Held).await;
        let before = full.stage.n_calls();
        for _ in 0..50 {
            ask_good(&remote).await;
        }
        assert_eq!(full.stage.n_calls(), before);
        assert_eq!(peer(&remote, full.grpc()).counts.failures, 0);
        full.stop().await;
        other.stop().await;
    });
}

#[test]
fn a_server_without_the_model_is_passed_over() {
    run(async {
        let (absent, other) = (Running::start(Script::Double), Running::start(Script::Double));
        let remote = Arc::new(remote(&[absent.grpc(), other.grpc()]));
        ask_good(&remote).await;
        let gone = Error::client(Code::NotFound, "Servable not found for request");
        absent.stage.play(Script::Fail(gone.clone()));
        let before = absent.stage.n_calls();
        while absent.stage.n_calls() == before {
            stir(&remote).await;
        }
        other.stage.play(Script::Fail(gone.clone()));
        assert_eq!(ask(&remote, &[1.0]).await.unwrap_err(), gone);
        absent.stop().await;
        other.stop().await;
    });
}

#[test]
fn errors_of_a_model_are_not_sent_elsewhere() {
    run(async {
        let servers = [Running::start(Script::Double), Running::start(Script::Double)];
        let remote = remote(&[servers[0].grpc(), servers[1].grpc()]);
        for code in [Code::InvalidArgument, Code::Internal, Code::FailedPrecondition] {
            for server in &servers {
                server.stage.play(Script::Fail(Error::client(code, "a reason")));
            }
            let n_calls = || servers[0].stage.n_calls() + servers[1].stage.n_calls();
            let before = n_calls();
            let error = ask(&remote, &[1.0]).await.unwrap_err();
            assert_eq!(error.code(), code);
            assert!(error.message().ends_with("a reason"), "{error}");
            assert_eq!(n_calls(), before + 1, "{code:?}");
        }
        for server in servers {
            server.stop().await;
        }
    });
}

#[test]
fn retries_have_a_budget() {
    run(async {
        let away = Script::Fail(Error::new(Code::Unavailable, Blame::Us, "away"));
        let servers = [Running::start(Script::Double), Running::start(Script::Double)];
        let addresses = [servers[0].grpc().to_string(), servers[1].grpc().to_string()];
        let max_tries = NonZeroUsize::new(2).unwrap();
        // A burst may have 256, a fifth of the requests may come besides, and ten come back each second.
        for (retry_share, n_calls, least) in [(0.0, 20, 0), (0.2, 800, 400)] {
            let settings = Settings { retry_share, max_tries, ..settings(&addresses) };
            let remote = Remote::new(settings).unwrap();
            servers.iter().for_each(|server| server.stage.play(Script::Double));
            ask_good(&remote).await;
            servers.iter().for_each(|server| server.stage.play(away.clone()));
            for _ in 0..n_calls {
                assert_eq!(ask(&remote, &[1.0]).await.unwrap_err().code(), Code::Unavailable);
            }
            let status = remote.status();
            let n_retries: u64 = status.peers.iter().map(|peer| peer.counts.retries).sum();
            assert!(n_retries >= least, "{n_retries} retries with a share of {retry_share}");
            assert!(status.retries_denied > 0 && (n_retries == 0) == (least == 0));
        }
        for server in servers {
            server.stop().await;
        }
    });
}

#[test]
fn a_try_that_takes_too_long_is_made_elsewhere() {
    run(async {
        let (slow, other) = (Running::start(Script::Double), Running::start(Script::Double));
        let addresses = [slow.grpc().to_string(), other.grpc().to_string()];
        let try_timeout = Some(Duration::from_millis(500));
        let remote = Arc::new(Remote::new(Settings { try_timeout, ..settings(&addresses) }).unwrap());
        ask_good(&remote).await;
        slow.stage.play(Script::Hold);
        while peer(&remote, slow.grpc()).counts.failures == 0 {
            stir(&remote).await;
        }
        slow.stage.holds(0).await;
        slow.stop().await;
        other.stop().await;
    });
}

#[test]
fn calls_at_once_have_a_bound() {
    run(async {
        let server = Running::start(Script::Hold);
        let max_calls = NonZeroUsize::new(2).unwrap();
        let remote = Remote::new(Settings { max_calls, ..settings(&[server.grpc().to_string()]) }).unwrap();
        let target = remote.resolve(&latest()).await.unwrap();
        let begin = || {
            let question = call(&*target, &[1.0]);
            tokio::runtime::Handle::current().spawn(Arc::clone(&target).predict(question))
        };
        let first = [begin(), begin()];
        server.stage.holds(2).await;
        let error = begin().await.unwrap().unwrap_err();
        assert_eq!(error.code(), Code::ResourceExhausted);
        assert!(error.retry_after().is_some() && error.blame() == Blame::Us);
        server.stage.release(2);
        for call in first {
            call.await.unwrap().unwrap();
        }
        server.stop().await;
    });
}

#[test]
fn peers_may_come_and_go() {
    run(async {
        let servers = [Running::start(Script::Double), Running::start(Script::Hold)];
        let remote = Arc::new(remote(&[]));
        let mut first = Box::pin(ask(&remote, &[4.0]));
        assert!((&mut first).now_or_never().is_none());
        // None yet, so the first call waits.
        remote.peers().set(&[]);
        remote.peers().set(&[Peer::new(servers[0].grpc())]);
        first.await.unwrap();
        let known = peer(&remote, servers[0].grpc()).counts;
        let both = vec![Peer::new(servers[1].grpc()), Peer::new(servers[0].grpc())];
        remote.peers().set(&both);
        assert_eq!(peer(&remote, servers[0].grpc()).counts, known);
        let calls = start(&remote, 8);
        servers[1].stage.held.subscribe().wait_for(|held| *held > 0).await.unwrap();
        // One that goes still ends what it has.
        remote.peers().set(&[Peer::new(servers[0].grpc())]);
        remote.peers().set(&[]);
        assert_eq!(remote.status().peers.len(), 1);
        let before = servers[1].stage.n_calls.load(Ordering::SeqCst);
        for _ in 0..50 {
            ask_good(&remote).await;
        }
        servers[1].stage.release(calls.len());
        finish(calls).await;
        assert!(servers[1].stage.n_calls() < before + 50);
        for server in servers {
            server.stop().await;
        }
    });
}

#[test]
fn a_target_outlives_the_predictor() {
    run(async {
        let server = Running::start(Script::Hold);
        let remote = remote(&[server.grpc()]);
        let target = remote.resolve(&latest()).await.unwrap();
        let question = call(&*target, &[1.0]);
        let asked = tokio::runtime::Handle::current().spawn(target.predict(question));
        server.stage.holds(1).await;
        drop(remote);
        server.stage.release(1);
        asked.await.unwrap().unwrap();
        server.stop().await;
    });
}

/// What befalls a model that is asked apart: on every server, as often as it takes to put one out.
#[test]
fn what_is_asked_apart_changes_nothing_for_others() {
    let numbered = ModelSpec { version: VersionChoice::Number(1), ..latest() };
    let absent = ModelSpec { name: ModelName::new("absent").unwrap(), ..latest() };
    let code = |code| Script::FailNumbered(Error::new(code, Blame::Model, "it fails"));
    let check = |script: Script, spec: &ModelSpec, expected: Code, state: PeerState| {
        run(async {
            let servers = [Running::start(script.clone()), Running::start(script)];
            let addresses = servers.each_ref().map(|server| server.grpc().to_string());
            let mut settings = settings(&addresses);
            // Whoever is out stays out.
            settings.balance.ejection = Duration::from_secs(600);
            settings.balance.max_ejection = Duration::from_secs(600);
            settings.apart = vec![Apart { role: "shadow".to_owned(), spec: spec.clone() }];
            let remote = Arc::new(Remote::new(settings).unwrap());
            let is_out = |remote: &Remote| {
                let apart = remote.apart();
                let (role, status) = &apart[0];
                assert_eq!(*role, "shadow");
                status.peers.iter().any(|peer| peer.state == state)
            };
            while !is_out(&remote) {
                let error = match remote.resolve(spec).await {
                    Err(error) => error,
                    Ok(target) => {
                        let question = call(&*target, &[1.0]);
                        target.predict(question).await.unwrap_err()
                    }
                };
                assert_eq!(error.code(), expected);
            }
            stir(&remote).await;
            let status = remote.status();
            for peer in &status.peers {
                assert_eq!((peer.state, peer.counts.failures), (PeerState::Used, 0), "{expected:?}");
            }
            assert!(status.peers.iter().map(|peer| peer.counts.requests).sum::<u64>() > 0);
            for server in servers {
                server.stop().await;
            }
        });
    };
    check(code(Code::Internal), &numbered, Code::Internal, PeerState::Ejected);
    check(code(Code::Unknown), &numbered, Code::Unknown, PeerState::Ejected);
    check(code(Code::Unavailable), &numbered, Code::Unavailable, PeerState::Ejected);
    check(Script::Double, &absent, Code::NotFound, PeerState::Held);
}
