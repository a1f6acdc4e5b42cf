//! Which version of which model answers now.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use salver_predict::{Blame, BoxFuture, Code, Error as CallError, ModelId, ModelSpec, Predictor, Target};
use tokio::runtime::{Builder, Handle};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::timeout;

use crate::core::Part;
use crate::driver::Report;
use crate::score::{Role, Scorer};
use crate::watch::Watch;
use crate::{Error, ErrorKind, Mapping};

/// How old an answer from elsewhere may be before it is asked for again.
const FRESH: Duration = Duration::from_millis(100);

/// How old it may be used while it is asked for again.
const USABLE: Duration = Duration::from_secs(2);

/// How long to wait before a version that cannot be used is looked for again.
const AGAIN: Duration = Duration::from_millis(100);

/// How long one look-up may take, and within half the time that the stream waits for a version.
const LOOK_UP: Duration = Duration::from_secs(10);

/// How long a canary that has answered may be gone before the primary model answers in its place.
const STAND_IN_AFTER: Duration = Duration::from_secs(2);

type Found = Result<Arc<dyn Target>, CallError>;

/// What finds the version for a batch.
pub(crate) enum Resolved {
    Ready(Arc<dyn Target>, Arc<Scorer>),
    /// Not before this moment.
    Later(Instant),
    /// The canary has been gone for a while.
    Gone,
    Stop(Error),
}

/// Compiles mappings for versions, and keeps the last one.
#[derive(Debug)]
pub(crate) struct Scorers {
    mapping: Arc<dyn Mapping>,
    signature: String,
    window: Option<String>,
    role: Role,
    last: Option<Arc<Scorer>>,
}

impl Scorers {
    pub(crate) fn new(
        mapping: Arc<dyn Mapping>,
        signature: String,
        window: Option<String>,
        role: Role,
    ) -> Scorers {
        Scorers { mapping, signature, window, role, last: None }
    }

    pub(crate) fn last(&self) -> Option<&Arc<Scorer>> {
        self.last.as_ref()
    }

    /// The mapping for a version. May block when it is a new one with a new signature.
    ///
    /// # Errors
    /// Why the mapping does not fit.
    pub(crate) fn of(&mut self, target: &dyn Target) -> Result<Arc<Scorer>, String> {
        let id = target.id();
        let signature = target.signature(&self.signature).map_err(|error| describe(id, error.message()))?;
        if let Some(last) = &self.last
            && (Arc::ptr_eq(&last.signature, signature) || last.signature == *signature)
        {
            if *last.id == *id {
                return Ok(Arc::clone(last));
            }
            let plan = Arc::clone(&last.plan);
            let scorer = Arc::new(Scorer::new(id, Arc::clone(signature), plan, last.window, self.role));
            self.last = Some(Arc::clone(&scorer));
            return Ok(scorer);
        }
        let plan = self.mapping.plan(signature).map_err(|message| describe(id, &message))?;
        let window = match &self.window {
            None => None,
            Some(name) => {
                let index = signature.input_index(name);
                let missing = || describe(id, &format!("there is no input '{name}' for the window"));
                Some(index.ok_or_else(missing)?)
            }
        };
        let scorer = Arc::new(Scorer::new(id, Arc::clone(signature), plan, window, self.role));
        self.last = Some(Arc::clone(&scorer));
        Ok(scorer)
    }
}

fn describe(id: &ModelId, message: &str) -> String {
    format!("model '{}' version {}: {message}", id.name, id.version)
}

#[derive(Debug)]
struct PartModel {
    spec: Arc<ModelSpec>,
    scorers: Scorers,
    /// What was found by a look-up that had to wait.
    found: Option<(Arc<dyn Target>, Instant)>,
    is_asked: bool,
    /// Since when nothing can be used, and why.
    missing: Option<Instant>,
    trouble: String,
}

/// The models of both parts.
#[derive(Debug)]
pub(crate) struct Models {
    predictor: Arc<dyn Predictor>,
    parts: [Option<PartModel>; 2],
    wait: Duration,
    runtime: Handle,
    lookups: Sender<(Part, BoxFuture<'static, Found>)>,
}

impl Models {
    /// Starts the thread on which look-ups wait. It ends with this.
    ///
    /// # Errors
    /// When there is no runtime or no thread for it.
    pub(crate) fn start(
        predictor: Arc<dyn Predictor>,
        specs: [Option<(ModelSpec, Scorers)>; 2],
        wait: Duration,
        reports: SyncSender<Report>,
    ) -> Result<Models, Error> {
        let failed = |error: std::io::Error| {
            Error::new(ErrorKind::Internal, format!("cannot start the thread that finds models: {error}"))
        };
        let runtime = Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let handle = runtime.handle().clone();
        // One look-up per part at a time.
        let (lookups, asked) = channel(Part::ALL.len());
        let longest = LOOK_UP.min(wait / 2);
        let body = move || {
            let watch = Watch::new("the stream's thread that finds models", &reports);
            runtime.block_on(look_up(asked, longest, &reports));
            drop(watch);
        };
        std::thread::Builder::new().name("models".into()).spawn(body).map_err(failed)?;
        let part = |(spec, scorers): (ModelSpec, Scorers)| PartModel {
            spec: Arc::new(spec),
            scorers,
            found: None,
            is_asked: false,
            missing: None,
            trouble: String::new(),
        };
        Ok(Models { predictor, parts: specs.map(|spec| spec.map(part)), wait, runtime: handle, lookups })
    }

    /// The mapping that was used last.
    pub(crate) fn last(&self, part: Part) -> Option<&Arc<Scorer>> {
        self.parts[part.index()].as_ref()?.scorers.last()
    }

    /// Whether every part has had a version that can be used.
    pub(crate) fn are_known(&self) -> bool {
        self.parts.iter().flatten().all(|part| part.scorers.last().is_some())
    }

    /// Finds the version that answers now, and says whose it is: the primary one stands in for a canary that is gone.
    pub(crate) fn resolve(&mut self, part: Part, now: Instant) -> (Part, Resolved) {
        match self.resolve_own(part, now) {
            Resolved::Gone => (Part::Primary, self.resolve_own(Part::Primary, now)),
            own => (part, own),
        }
    }

    fn resolve_own(&mut self, part: Part, now: Instant) -> Resolved {
        match self.find(part, now) {
            None => self.wait_for(part, None, now),
            Some(found) => self.look(part, found, now),
        }
    }

    /// Takes what a look-up found that had to wait.
    pub(crate) fn found(&mut self, part: Part, found: Found, now: Instant) -> Resolved {
        if let Some(model) = &mut self.parts[part.index()] {
            model.is_asked = false;
            model.found = found.as_ref().ok().map(|target| (Arc::clone(target), now));
        }
        self.look(part, found, now)
    }

    /// `None` while the answer is waited for.
    fn find(&mut self, part: Part, now: Instant) -> Option<Found> {
        let model = self.parts[part.index()].as_mut()?;
        if let Some((target, at)) = &model.found {
            let age = now.saturating_duration_since(*at);
            if age < FRESH || (age < USABLE && model.is_asked) {
                return Some(Ok(Arc::clone(target)));
            }
        }
        if model.is_asked {
            model.found = None;
            return None;
        }
        let (predictor, spec) = (Arc::clone(&self.predictor), Arc::clone(&model.spec));
        let mut future: BoxFuture<'static, Found> = Box::pin(async move { predictor.resolve(&spec).await });
        let entered = self.runtime.enter();
        let polled = pin!(&mut future).poll(&mut Context::from_waker(Waker::noop()));
        drop(entered);
        match polled {
            Poll::Ready(found) => {
                model.found = None;
                Some(found)
            }
            Poll::Pending => {
                model.is_asked = self.lookups.try_send((part, future)).is_ok();
                let usable =
                    model.found.as_ref().filter(|(_, at)| now.saturating_duration_since(*at) < USABLE);
                usable.map(|(target, _)| Ok(Arc::clone(target)))
            }
        }
    }

    fn look(&mut self, part: Part, found: Found, now: Instant) -> Resolved {
        let Some(model) = &mut self.parts[part.index()] else { return Resolved::Later(now + AGAIN) };
        let was_known = model.scorers.last().is_some();
        let trouble = match found {
            Err(error) => error.message().to_owned(),
            Ok(target) => match model.scorers.of(&*target) {
                Ok(scorer) => {
                    if model.missing.take().is_some() && !model.trouble.is_empty() {
                        tracing::info!(model = model.spec.name.as_str(), "there is a version again");
                        model.trouble.clear();
                    }
                    return Resolved::Ready(target, scorer);
                }
                Err(message) if !was_known => return Resolved::Stop(Error::new(ErrorKind::Model, message)),
                Err(message) => message,
            },
        };
        self.wait_for(part, Some(trouble), now)
    }

    /// There is nothing to be used now: what that means depends on how long it has been so.
    fn wait_for(&mut self, part: Part, trouble: Option<String>, now: Instant) -> Resolved {
        let wait = self.wait;
        let Some(model) = &mut self.parts[part.index()] else { return Resolved::Later(now + AGAIN) };
        if let Some(trouble) = trouble.filter(|trouble| *trouble != model.trouble) {
            tracing::warn!(
                model = model.spec.name.as_str(),
                "the stream waits for a version that it can use: {trouble}"
            );
            model.trouble = trouble;
        }
        let since = *model.missing.get_or_insert(now);
        let missing_for = now.saturating_duration_since(since);
        let was_known = model.scorers.last().is_some();
        if part == Part::Canary && was_known {
            let is_gone = missing_for >= STAND_IN_AFTER.min(wait);
            return if is_gone { Resolved::Gone } else { Resolved::Later(now + AGAIN) };
        }
        if missing_for >= wait {
            let trouble =
                if model.trouble.is_empty() { "looking for one has no end" } else { model.trouble.as_str() };
            let message =
                format!("no version of '{}' can be used since {wait:?}: {trouble}", model.spec.name);
            return Resolved::Stop(Error::new(ErrorKind::Model, message));
        }
        Resolved::Later(now + AGAIN)
    }
}

/// Waits for look-ups, each for a limited time.
async fn look_up(
    mut asked: Receiver<(Part, BoxFuture<'static, Found>)>,
    longest: Duration,
    reports: &SyncSender<Report>,
) {
    let mut running = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            Some((part, found)) = running.next(), if !running.is_empty() => {
                if reports.send(Report::Found { part, found }).is_err() {
                    return;
                }
            }
            one = asked.recv() => match one {
                Some((part, lookup)) => running.push(async move {
                    let found = timeout(longest, lookup).await.unwrap_or_else(|_| Err(unanswered(longest)));
                    (part, found)
                }),
                None => return,
            },
        }
    }
}

fn unanswered(after: Duration) -> CallError {
    CallError::new(
        Code::DeadlineExceeded,
        Blame::Peer,
        format!("looking for one had no answer within {after:?}"),
    )
}
