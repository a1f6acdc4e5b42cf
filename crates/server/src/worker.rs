//! One worker: answers the connections that it is handed, on one thread.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::server::conn::auto;
use tokio::sync::mpsc::Receiver;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

use crate::accept::{Accepted, Front, Socket};
use crate::clock;
use crate::conn::{Spawner, any_http, serve};
use crate::server::Shared;
use crate::stream::{Activity, Stream, Transport};
use crate::watch::{Seen, Verdict};
use crate::{grpc, rest};

const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How often the worker looks at its connections once there is a shutdown.
const DRAIN_EVERY: Duration = Duration::from_millis(50);

/// A connection that the worker looks at from time to time.
struct Watched {
    activity: Arc<Activity>,
    seen: Seen,
}

/// What all connections of a worker share.
struct Workshop {
    shared: Arc<Shared>,
    index: usize,
    builder: auto::Builder<Spawner>,
}

/// Ends after the shutdown, when all connections have ended or the grace is over.
pub(crate) async fn run(shared: Arc<Shared>, index: usize, mut accepted: Receiver<Accepted>) {
    let tasks = TaskTracker::new();
    let builder = any_http(&shared.core.config.limits, &Spawner(tasks.clone()));
    let shop = Arc::new(Workshop { shared: Arc::clone(&shared), index, builder });
    let mut stop = shared.core.stop.subscribe();
    let mut watched: Vec<Watched> = Vec::new();
    let mut look = interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let deadline = loop {
        tokio::select! {
            stopped = stop.wait_for(Option::is_some) => break stopped.ok().and_then(|deadline| *deadline),
            Some(connection) = accepted.recv() => {
                let activity = Arc::<Activity>::default();
                watched.push(Watched { activity: Arc::clone(&activity), seen: Seen::new(clock::now()) });
                tasks.spawn(connected(Arc::clone(&shop), connection, activity));
            }
            _ = look.tick() => look_at(&mut watched, &shared),
        }
    };
    // What was handed over and not begun is closed unanswered, as if it had come after the listeners closed.
    accepted.close();
    while let Ok(late) = accepted.try_recv() {
        drop(late);
        shared.ports[index].connections.fetch_sub(1, Relaxed);
    }
    watched.iter().for_each(|one| one.activity.order(Verdict::Drain));
    tasks.close();
    let deadline = deadline.unwrap_or_else(Instant::now);
    if timeout_at(deadline, answered(&tasks, &watched)).await.is_err() {
        let open = watched.iter().filter(|one| !one.activity.is_closed());
        let n_cut = open.inspect(|one| one.activity.order(Verdict::Cut)).count();
        shared.n_cut.fetch_add(n_cut, Relaxed);
        tokio::task::yield_now().await;
    }
}

/// Waits until nobody waits for an answer. Clients that only watch something, which would not end, are cut off.
async fn answered(tasks: &TaskTracker, watched: &[Watched]) {
    let mut look = interval(DRAIN_EVERY);
    look.tick().await;
    loop {
        tokio::select! {
            () = tasks.wait() => return,
            _ = look.tick() => {}
        }
        for one in watched {
            let counts = one.activity.counts();
            if counts.streaming > 0 && !counts.is_answering() {
                one.activity.order(Verdict::Cut);
            }
        }
    }
}

fn look_at(watched: &mut Vec<Watched>, shared: &Shared) {
    let now = clock::now();
    watched.retain_mut(|one| {
        let verdict = one.seen.look(now, one.activity.counts(), &shared.core.config.limits);
        one.activity.order(verdict);
        !one.activity.is_closed()
    });
}

/// Gives the connection's place back, however its task ends.
struct Place {
    shop: Arc<Workshop>,
    activity: Arc<Activity>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.activity.close();
        self.shop.shared.ports[self.shop.index].connections.fetch_sub(1, Relaxed);
    }
}

async fn connected(shop: Arc<Workshop>, accepted: Accepted, activity: Arc<Activity>) {
    let place = Place { shop: Arc::clone(&shop), activity: Arc::clone(&activity) };
    let shared = Arc::clone(&shop.shared);
    let (tls, front) = match accepted.front {
        Front::Grpc => (shared.grpc_tls.as_ref(), Front::Grpc),
        Front::Rest => (shared.rest_tls.as_ref(), Front::Rest),
        front => (None, front),
    };
    let Some(transport) = transport(accepted.socket, tls, &shared).await else { return };
    let stream = Stream { transport, activity: Arc::clone(&activity) };
    match front {
        Front::Grpc | Front::GrpcUnix => {
            let service = service_fn(move |request| grpc::handle(&shared, &activity, request));
            Box::pin(serve(stream, service, &shop.builder)).await;
        }
        Front::Rest => {
            let service =
                service_fn(move |request| rest::handle(Arc::clone(&shared), Arc::clone(&activity), request));
            Box::pin(serve(stream, service, &shop.builder)).await;
        }
        Front::Metrics => {
            let service = service_fn(move |request| {
                rest::handle_metrics(Arc::clone(&shared), Arc::clone(&activity), request)
            });
            Box::pin(serve(stream, service, &shop.builder)).await;
        }
    }
    drop(place);
}

/// The socket on this runtime, after the TLS handshake if there is one.
async fn transport(
    socket: Socket,
    tls: Option<&Arc<rustls::ServerConfig>>,
    shared: &Shared,
) -> Option<Transport> {
    match socket {
        Socket::Unix(socket) => tokio::net::UnixStream::from_std(socket).ok().map(Transport::Unix),
        Socket::Tcp(socket) => {
            let socket = tokio::net::TcpStream::from_std(socket).ok()?;
            let Some(tls) = tls else { return Some(Transport::Tcp(socket)) };
            match timeout(
                shared.core.config.limits.header_timeout,
                TlsAcceptor::from(Arc::clone(tls)).accept(socket),
            )
            .await
            {
                Ok(Ok(stream)) => Some(Transport::Tls(Box::new(stream))),
                Ok(Err(error)) => {
                    tracing::debug!(%error, "TLS handshake failed");
                    None
                }
                Err(_) => None,
            }
        }
    }
}
