//! The predictor, and what it resolves to.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName, HeaderValue};
use salver_predict::{
    Answer, Asker, Blame, BoxFuture, Call, Code, Error as PredictError, ModelId, ModelSpec, Phases,
    Predictor, Target,
};
use salver_tensor::Signature;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::time::timeout_at;
use tokio_util::task::AbortOnDropHandle;

use crate::address::{Endpoint, Peer, Place};
use crate::balance::Id;
use crate::clock::now;
use crate::codec;
use crate::dial::Dialer;
use crate::error::{Error, ErrorKind};
use crate::exchange::Ask;
use crate::models::{Known, Models, ended};
use crate::names::{Lookup, keep_looking_up, system};
use crate::pool::{Pool, Status};
use crate::protocol::Protocol;
use crate::settings::{Apart, Settings};

/// The header by which requests say how urgent they are; without it they are of priority 5.
const PRIORITY: HeaderName = HeaderName::from_static("salver-priority");

/// Models on other servers. Its connections live as long as it or one of its targets does.
#[derive(Debug)]
pub struct Remote {
    core: Arc<Core>,
    /// For the models of [`Settings::apart`].
    apart: Vec<(Apart, Arc<Core>)>,
    /// What [`Peers::set`] offers as.
    fed: usize,
}

/// What targets share with the predictor.
#[derive(Debug)]
struct Core {
    pool: Arc<Pool>,
    models: Arc<Models>,
    threads: Threads,
    headers: HeaderMap,
    caller_header: HeaderName,
    timeout: Duration,
}

impl Remote {
    /// Starts the threads that own the connections; connects when it is first asked something. Reads files of certificates.
    ///
    /// # Errors
    /// [`ErrorKind::Settings`] for what makes no sense, [`ErrorKind::Tls`] for certificates that cannot be used,
    /// [`ErrorKind::System`] without threads.
    pub fn new(settings: Settings) -> Result<Remote, Error> {
        Remote::with_lookup(settings, &system())
    }

    fn with_lookup(mut settings: Settings, lookup: &Lookup) -> Result<Remote, Error> {
        settings.check()?;
        let apart = std::mem::take(&mut settings.apart).into_iter().map(|apart| {
            let core = Core::start(&settings, Some(apart.role.clone()), lookup)?;
            Ok((apart, core))
        });
        let apart = apart.collect::<Result<_, Error>>()?;
        let core = Core::start(&settings, None, lookup)?;
        Ok(Remote { core, apart, fed: settings.addresses.len() })
    }

    /// Where other peers than those of the settings are named, at any time.
    pub fn peers(&self) -> Peers {
        let cores = [&self.core].into_iter().chain(self.apart.iter().map(|(_, core)| core));
        Peers { pools: cores.map(|core| Arc::clone(&core.pool)).collect(), source: self.fed }
    }

    /// Figures of all peers, as calls see them but those of models apart. Does not block.
    pub fn status(&self) -> Status {
        self.core.pool.status()
    }

    /// The same as each of [`Settings::apart`] sees them, in that order, with its role. Does not block.
    pub fn apart(&self) -> Vec<(&str, Status)> {
        self.apart.iter().map(|(apart, core)| (apart.role.as_str(), core.pool.status())).collect()
    }

    fn core_of(&self, spec: &ModelSpec) -> &Arc<Core> {
        self.apart.iter().find(|(apart, _)| apart.spec == *spec).map_or(&self.core, |(_, core)| core)
    }
}

fn start(
    pool: &Arc<Pool>,
    tasks: &Handle,
    source: usize,
    endpoint: &Endpoint,
    every: Duration,
    lookup: &Lookup,
) {
    if let Some(peer) = endpoint.peer() {
        pool.offer(source, Ok(vec![peer]));
    }
    if let Place::Name { host, port } = endpoint.place() {
        let name = (host.clone(), *port);
        tasks.spawn(keep_looking_up(Arc::clone(pool), source, name, every, Arc::clone(lookup)));
    }
}

/// A way to name peers while calls run, for whatever discovers them.
#[derive(Debug, Clone)]
pub struct Peers {
    pools: Vec<Arc<Pool>>,
    source: usize,
}

impl Peers {
    /// All peers that there are now, besides those of the settings. One that was there before keeps its connections and
    /// what is known of it; calls to one that is left out run to their end. An empty list changes nothing: servers that
    /// answer are not given up because a registry has forgotten them.
    pub fn set(&self, peers: &[Peer]) {
        if peers.is_empty() {
            return;
        }
        for pool in &self.pools {
            pool.offer(self.source, Ok(peers.to_vec()));
        }
    }
}

/// The threads that own the connections.
#[derive(Debug)]
struct Threads(Option<Runtime>);

impl Threads {
    fn new(n: NonZeroUsize) -> Result<Threads, Error> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(n.get())
            .thread_name("remote")
            .enable_all()
            .build()
            .map_err(|error| Error::new(ErrorKind::System, format!("cannot start threads: {error}")))?;
        Ok(Threads(Some(runtime)))
    }

    fn handle(&self) -> &Handle {
        self.0.as_ref().expect("it is only taken when dropped").handle()
    }
}

impl Drop for Threads {
    /// Whoever drops the last target may be a task of another runtime, which must not block.
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl Predictor for Remote {
    fn resolve<'a>(&'a self, spec: &'a ModelSpec) -> BoxFuture<'a, Result<Arc<dyn Target>, PredictError>> {
        Box::pin(async move {
            let core = self.core_of(spec);
            let known = core.models.get(core.threads.handle(), spec).await?;
            let target = RemoteTarget { core: Arc::clone(core), spec: spec.clone(), known };
            Ok(Arc::new(target) as Arc<dyn Target>)
        })
    }
}

/// What was asked for, as servers describe it. Requests say what was asked for (the latest version, a label), not the version
/// that was found: it may be replaced at any moment, and its successor answers as well.
#[derive(Debug)]
struct RemoteTarget {
    core: Arc<Core>,
    spec: ModelSpec,
    known: Arc<Known>,
}

impl Target for RemoteTarget {
    /// The version that answered when servers were last asked about the model; 0 where they do not number versions.
    fn id(&self) -> &ModelId {
        &self.known.id
    }

    fn signatures(&self) -> &[Arc<Signature>] {
        &self.known.signatures
    }

    fn platform(&self) -> &str {
        if self.known.platform.is_empty() { "remote" } else { &self.known.platform }
    }

    fn predict(self: Arc<Self>, call: Call) -> BoxFuture<'static, Result<Answer, PredictError>> {
        Box::pin(async move {
            let latest = now() + self.core.timeout;
            let deadline = call.deadline.map_or(latest, |deadline: Instant| deadline.min(latest));
            let protocol = self.core.pool.protocol().ok_or_else(ended)?;
            let ask = self.core.request(protocol, &self.spec, &call)?;
            match self.send(protocol, ask, &call, deadline).await {
                Ok(answered) => self.look(answered, &call.signature, deadline).await,
                Err(failed) => Err(self.explain(failed, &call.signature, deadline).await),
            }
        })
    }

    fn refusal(&self, name: &str) -> Option<PredictError> {
        let start = format!("signature '{name}': ");
        let text = self.known.refused.iter().find(|text| text.starts_with(&start))?;
        Some(PredictError::client(Code::FailedPrecondition, text.clone()))
    }
}

/// An answer, and whether it has the dimensions of the signature that was asked.
struct Answered {
    answer: Answer,
    fits: bool,
}

/// Why there is no answer, and whose answer was none.
struct Failed {
    error: PredictError,
    peer: Option<Id>,
}

impl From<PredictError> for Failed {
    fn from(error: PredictError) -> Failed {
        Failed { error, peer: None }
    }
}

impl RemoteTarget {
    async fn send(
        &self,
        protocol: Protocol,
        ask: Ask,
        call: &Call,
        deadline: Instant,
    ) -> Result<Answered, Failed> {
        let core = &self.core;
        let started = now();
        let pool = &core.pool;
        let there = Arc::clone(pool);
        // On the threads that own the connections; it ends when nobody waits for it.
        let task = core.threads.handle().spawn(async move { there.call(&ask, deadline).await });
        let (reply, peer) = AbortOnDropHandle::new(task).await.map_err(|_| ended())??;
        let answer = codec::answer(protocol, &call.signature, &call.outputs, reply, pool.max_message);
        let (outputs, version) = answer.map_err(|error| Failed { error, peer: Some(peer) })?;
        pool.judge(peer, true);
        let fits = codec::fits(&call.signature, &call.outputs, &outputs);
        let phases = Phases { queue: Duration::ZERO, run: now().saturating_duration_since(started) };
        Ok(Answered { answer: Answer { outputs, phases, version }, fits })
    }

    /// Takes an answer for one, unless it is of a version that answers something else.
    async fn look(
        &self,
        answered: Answered,
        signature: &Signature,
        deadline: Instant,
    ) -> Result<Answer, PredictError> {
        let Answered { answer, fits } = answered;
        let is_known = answer.version == Some(self.known.id.version);
        // Servers may say less of their models than is so; only another version is another model.
        if !fits && !is_known {
            return match self.changed(signature, deadline).await {
                Some(changed) => Err(changed),
                None => Ok(answer),
            };
        }
        if answer.version.is_some() && !is_known {
            self.core.models.doubt(self.core.threads.handle(), &self.spec);
        }
        Ok(answer)
    }

    /// The error to be told: that of the server, unless it is that of asking a version for what another one takes.
    async fn explain(&self, failed: Failed, signature: &Signature, deadline: Instant) -> PredictError {
        let Failed { error, peer } = failed;
        let changed = match error.code() {
            code if may_be_outdated(code) => self.changed(signature, deadline).await,
            Code::NotFound => {
                self.core.models.doubt(self.core.threads.handle(), &self.spec);
                None
            }
            _ => None,
        };
        if let (Some(peer), None) = (peer, &changed) {
            self.core.pool.judge(peer, false);
        }
        changed.unwrap_or(error)
    }

    /// Asks servers whether the model still has the signature that was asked, and says so if it does not. What was asked may
    /// fit once it is made anew.
    async fn changed(&self, signature: &Signature, deadline: Instant) -> Option<PredictError> {
        let (models, spec, since) = (Arc::clone(&self.core.models), self.spec.clone(), now());
        let tasks = self.core.threads.handle().clone();
        let asking =
            self.core.threads.handle().spawn(async move {
                timeout_at(deadline.into(), models.get_anew(&tasks, &spec, since)).await
            });
        // Without an answer in time nothing is known to have changed.
        let known = AbortOnDropHandle::new(asking).await.ok()?.ok()?.ok()?;
        if known.has(signature) {
            return None;
        }
        let text = format!(
            "model '{}' changed: version {} does not have the signature '{}' of version {} that was asked",
            self.spec.name,
            known.id.version,
            signature.name(),
            self.known.id.version
        );
        Some(PredictError::new(Code::Aborted, Blame::Peer, text))
    }
}

impl Core {
    fn start(settings: &Settings, role: Option<String>, lookup: &Lookup) -> Result<Arc<Core>, Error> {
        let fed = settings.addresses.len();
        let pool = Arc::new(Pool::new(settings, role, Dialer::new(settings)?, fed + 1));
        let threads = Threads::new(settings.threads)?;
        for (source, endpoint) in settings.addresses.iter().enumerate() {
            start(&pool, threads.handle(), source, endpoint, settings.resolve_every, lookup);
        }
        if fed > 0 {
            // Nobody needs to wait for others.
            pool.offer(fed, Ok(Vec::new()));
        }
        threads.handle().spawn(Arc::clone(&pool).keep_checking());
        let headers = settings.headers.clone();
        let models = Models::new(Arc::clone(&pool), headers, settings.refresh_every, settings.timeout);
        Ok(Arc::new(Core {
            pool,
            models: Arc::new(models),
            threads,
            headers: settings.headers.clone(),
            caller_header: settings.caller_header.clone(),
            timeout: settings.timeout,
        }))
    }

    fn request(&self, protocol: Protocol, spec: &ModelSpec, call: &Call) -> Result<Ask, PredictError> {
        let mut ask = codec::ask(protocol, spec, call, self.pool.max_message)?;
        ask.headers.extend(self.headers.clone());
        ask.headers.extend(self.terms(call.asker));
        Ok(ask)
    }

    /// What tells servers who asks, where it is anything but the usual.
    fn terms(&self, asker: Asker) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
        let usual = Asker::default();
        let priority = (asker.priority != usual.priority)
            .then(|| (PRIORITY, HeaderValue::from(u16::from(asker.priority.clamp(1, 9)))));
        let caller = (asker.caller != usual.caller)
            .then(|| (self.caller_header.clone(), HeaderValue::from(asker.caller)));
        priority.into_iter().chain(caller)
    }
}

/// Whether an error may come from asking a version for what another one takes.
fn may_be_outdated(code: Code) -> bool {
    matches!(code, Code::InvalidArgument | Code::FailedPrecondition | Code::Unimplemented | Code::Internal)
}

#[cfg(test)]
mod tests;
