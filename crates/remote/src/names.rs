//! Host names and their addresses, looked up again and again.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use salver_predict::BoxFuture;
use tokio::time::{MissedTickBehavior, interval};

use crate::address::Peer;
use crate::pool::Pool;

/// Looks a name up.
pub(crate) type Lookup =
    Arc<dyn Fn(String, u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync>;

/// The system's resolver.
pub(crate) fn system() -> Lookup {
    Arc::new(|host, port| {
        async move { Ok(tokio::net::lookup_host((host.as_str(), port)).await?.collect()) }.boxed()
    })
}

/// Offers the pool all addresses of a name, for ever. There is one look-up at a time, however long it takes.
pub(crate) async fn keep_looking_up(
    pool: Arc<Pool>,
    source: usize,
    (host, port): (String, u16),
    every: Duration,
    lookup: Lookup,
) {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let found = match lookup(host.clone(), port).await {
            Ok(addresses) if addresses.is_empty() => Err(format!("'{host}' has no address")),
            Ok(addresses) => Ok(peers(&host, port, addresses)),
            Err(error) => Err(format!("'{host}' cannot be looked up: {error}")),
        };
        if let Err(problem) = &found {
            tracing::warn!(%problem, "the addresses known before stay");
        }
        pool.offer(source, found);
    }
}

fn peers(host: &str, port: u16, addresses: Vec<SocketAddr>) -> Vec<Peer> {
    let authority = format!("{host}:{port}");
    addresses.into_iter().map(|address| Peer::named(address, &authority)).collect()
}
