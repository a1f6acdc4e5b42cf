//! The server as the binary sees it.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use salver_predict::{Models, Predictor};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};
use tokio_util::task::TaskTracker;
use tonic_health::server::HealthReporter;

use crate::accept::{self, Accepted};
use crate::budget::Budget;
use crate::core::Core;
use crate::health::Health;
use crate::listen::Listeners;
use crate::metrics::Metrics;
use crate::terms::Askers;
use crate::{Addresses, Config, Error, grpc, tls, worker};

/// The fronts of one process. The sockets are open from [`Server::bind`] on; connections are taken while
/// [`Server::acceptor`] is driven and answered while the [`Server::worker`]s are.
#[derive(Debug)]
pub struct Server {
    addresses: Addresses,
    shared: Arc<Shared>,
    listeners: Mutex<Option<Listeners>>,
    receivers: Vec<Mutex<Option<mpsc::Receiver<Accepted>>>>,
    /// The futures that the binary drives.
    driven: TaskTracker,
}

/// What the acceptor and the workers share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) core: Arc<Core>,
    pub(crate) health: Health,
    pub(crate) services: grpc::Services,
    pub(crate) grpc_tls: Option<Arc<rustls::ServerConfig>>,
    pub(crate) rest_tls: Option<Arc<rustls::ServerConfig>>,
    pub(crate) ports: Vec<Port>,
    pub(crate) n_cut: AtomicUsize,
}

/// The way to a worker.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) sender: mpsc::Sender<Accepted>,
    pub(crate) connections: AtomicUsize,
}

/// Connections that wait for one worker.
const HANDED_OVER: usize = 256;

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
        let grpc_tls = config.grpc_tls.as_ref().map(|tls| tls::server_config(tls, &["h2"])).transpose()?;
        let rest_tls =
            config.rest_tls.as_ref().map(|tls| tls::server_config(tls, &["h2", "http/1.1"])).transpose()?;
        let listeners = Listeners::bind(&config)?;
        let core = Arc::new(Core {
            metrics: Metrics::register(registry)?,
            registry: registry.clone(),
            budget: Budget::new(config.limits.bytes_in_flight),
            stop: watch::Sender::new(None),
            askers: Askers::new(config.caller_header.clone()),
            config,
            predictor,
            models,
        });
        let reporter = HealthReporter::new();
        let services = grpc::Services::new(&core, reporter.clone())?;
        let (ports, receivers) = (0..core.config.workers.get())
            .map(|_| {
                let (sender, receiver) = mpsc::channel(HANDED_OVER);
                (Port { sender, connections: AtomicUsize::new(0) }, Mutex::new(Some(receiver)))
            })
            .unzip();
        let shared = Shared {
            health: Health::new(reporter),
            n_cut: AtomicUsize::new(0),
            services,
            grpc_tls,
            rest_tls,
            ports,
            core,
        };
        Ok(Server {
            addresses: listeners.addresses(&shared.core.config),
            shared: Arc::new(shared),
            listeners: Mutex::new(Some(listeners)),
            receivers,
            driven: TaskTracker::new(),
        })
    }

    /// Where the server listens.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Takes connections and hands each to the worker that has the fewest, and keeps health and metrics up to date.
    /// To be driven on one runtime with I/O and time enabled. Ends at [`Server::shutdown`], and at once when it is
    /// not the first.
    pub fn acceptor(&self) -> impl Future<Output = ()> + Send + 'static + use<> {
        let listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner).take();
        let shared = Arc::clone(&self.shared);
        self.driven.track_future(async move {
            if let Some(listeners) = listeners {
                accept::run(shared, listeners).await;
            }
        })
    }

    /// Answers the connections handed to this worker. To be driven on a single-threaded runtime with I/O and time
    /// enabled, on the worker's thread; everything that it spawns stays on that runtime. Ends after
    /// [`Server::shutdown`], when its last request is answered or the grace is over, and at once when it is not the
    /// first of its index or the index is not below [`Config::workers`].
    pub fn worker(&self, index: usize) -> impl Future<Output = ()> + Send + 'static + use<> {
        let slot = self.receivers.get(index);
        let receiver = slot.and_then(|slot| slot.lock().unwrap_or_else(PoisonError::into_inner).take());
        let shared = Arc::clone(&self.shared);
        self.driven.track_future(async move {
            if let Some(receiver) = receiver {
                worker::run(shared, index, receiver).await;
            }
        })
    }

    /// Stops taking connections, tells the clients, and waits until every request in flight is answered or `grace` is
    /// over. Returns the number of connections that were cut off.
    pub fn shutdown(&self, grace: Duration) -> impl Future<Output = usize> + Send + 'static + use<> {
        let shared = Arc::clone(&self.shared);
        let driven = self.driven.clone();
        async move {
            shared.core.stop.send_replace(Some(Instant::now() + grace));
            driven.close();
            // A worker that is busy with one request sees the end of the grace late, or never.
            drop(timeout(grace + Duration::from_millis(500), driven.wait()).await);
            shared.n_cut.load(Relaxed)
        }
    }
}

impl Shared {
    pub(crate) fn set_gauges(&self) {
        self.core.metrics.bytes_in_flight.set(i64::try_from(self.core.budget.used()).unwrap_or(i64::MAX));
        for (index, port) in self.ports.iter().enumerate() {
            let n = i64::try_from(port.connections.load(Relaxed)).unwrap_or(i64::MAX);
            self.core.metrics.connections.with_label_values(&[&index.to_string()]).set(n);
        }
    }
}
