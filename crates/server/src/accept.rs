//! Taking connections and handing them to the workers.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::{TcpListener, UnixListener};
use tokio::time::{MissedTickBehavior, interval};

use crate::listen::Listeners;
use crate::metrics::Refused;
use crate::server::Shared;

/// What is spoken on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Front {
    Grpc,
    GrpcUnix,
    Rest,
    Metrics,
}

/// A connected socket that belongs to no runtime yet.
#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(std::net::TcpStream),
    Unix(std::os::unix::net::UnixStream),
}

/// A connection for a worker.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) front: Front,
    pub(crate) socket: Socket,
}

/// How often health and gauges are brought up to date, and how long accepting pauses when it fails.
const TICK: Duration = Duration::from_millis(100);
/// Every how many ticks the metrics of versions that are gone are forgotten.
const FORGET_EVERY: u32 = 100;

/// Ends at the shutdown, when all listeners are closed.
pub(crate) async fn run(shared: Arc<Shared>, listeners: Listeners) {
    let mut stop = shared.core.stop.subscribe();
    let stopped = stop.wait_for(Option::is_some);
    let unix_path = shared.core.config.grpc_unix.clone().filter(|_| listeners.grpc_unix.is_some());
    tokio::select! {
        _ = stopped => {}
        () = tcp(&shared, Front::Grpc, listeners.grpc) => {}
        () = unix(&shared, listeners.grpc_unix) => {}
        () = tcp(&shared, Front::Rest, listeners.rest) => {}
        () = tcp(&shared, Front::Metrics, listeners.metrics) => {}
        () = keep_current(&shared) => {}
    }
    if let Some(path) = unix_path
        && let Err(error) = std::fs::remove_file(&path)
    {
        tracing::debug!(%error, path = %path.display(), "cannot remove the socket file");
    }
    shared.health.stop().await;
}

async fn keep_current(shared: &Shared) {
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for n in 0u32.. {
        tick.tick().await;
        let models = shared.core.models.list();
        shared.health.update(shared.core.models.is_ready(), &models).await;
        if n.is_multiple_of(FORGET_EVERY) {
            shared.core.metrics.forget_gone(&models);
        }
        shared.set_gauges();
    }
}

async fn tcp(shared: &Shared, front: Front, listener: Option<std::net::TcpListener>) {
    let Some(listener) = listener else { return std::future::pending().await };
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return broken(front, &error).await,
    };
    loop {
        let accepted = match listener.accept().await {
            Ok((socket, _)) => socket.into_std(),
            Err(error) => Err(error),
        };
        match accepted {
            Ok(socket) => {
                prepare(&socket);
                shared.hand_over(Accepted { front, socket: Socket::Tcp(socket) });
            }
            Err(error) => pause(front, &error).await,
        }
    }
}

async fn unix(shared: &Shared, listener: Option<std::os::unix::net::UnixListener>) {
    let Some(listener) = listener else { return std::future::pending().await };
    let front = Front::GrpcUnix;
    let listener = match UnixListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return broken(front, &error).await,
    };
    loop {
        let accepted = match listener.accept().await {
            Ok((socket, _)) => socket.into_std(),
            Err(error) => Err(error),
        };
        match accepted {
            Ok(socket) => shared.hand_over(Accepted { front, socket: Socket::Unix(socket) }),
            Err(error) => pause(front, &error).await,
        }
    }
}

/// Answers go out at once; the kernel finds peers that vanished.
fn prepare(socket: &std::net::TcpStream) {
    let options = socket2::TcpKeepalive::new().with_time(Duration::from_secs(60));
    let set = socket.set_nodelay(true).and_then(|()| SockRef::from(socket).set_tcp_keepalive(&options));
    if let Err(error) = set {
        tracing::debug!(%error, "cannot set socket options");
    }
}

async fn broken(front: Front, error: &io::Error) {
    tracing::error!(%error, ?front, "a listener cannot be used on this runtime");
    std::future::pending().await
}

/// Accepting fails for one connection that is gone already, or for all when there are no file descriptors left.
async fn pause(front: Front, error: &io::Error) {
    if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
        return;
    }
    tracing::warn!(%error, ?front, "cannot accept a connection");
    let mut tick = interval(TICK);
    tick.tick().await;
    tick.tick().await;
}

impl Shared {
    /// Gives a connection to the worker that has the fewest, or turns it away.
    fn hand_over(&self, accepted: Accepted) {
        let total: usize = self.ports.iter().map(|port| port.connections.load(Relaxed)).sum();
        if total >= self.core.config.limits.connections {
            return self.turn_away(&accepted);
        }
        let Some(port) = self.ports.iter().min_by_key(|port| port.connections.load(Relaxed)) else { return };
        port.connections.fetch_add(1, Relaxed);
        if let Err(error) = port.sender.try_send(accepted) {
            port.connections.fetch_sub(1, Relaxed);
            self.turn_away(&error.into_inner());
        }
    }

    fn turn_away(&self, accepted: &Accepted) {
        self.core.metrics.refuse(Refused::Connections);
        if let (Front::Rest | Front::Metrics, Socket::Tcp(socket), None) =
            (accepted.front, &accepted.socket, &self.rest_tls)
        {
            // The kernel's buffer of a new socket is empty, so this does not block; who does not read it loses it.
            drop(io::Write::write(&mut &*socket, FULL));
        }
    }
}

const FULL: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\n\
connection: close\r\ncontent-length: 48\r\n\r\n{\"error\": \"the server has too many connections\"}";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_refusal_states_its_length() {
        let text = std::str::from_utf8(FULL).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        assert_eq!(length, Some(body.len().to_string().as_str()));
    }
}
