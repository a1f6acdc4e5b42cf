use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use salver_lifecycle::{Aspired, AspiredVersion, ModelName};

use crate::content::read_content;
use crate::folder::list;
use crate::{Decision, Limits, Seen, SourceStatus, Watched, decide};

/// How often base paths are scanned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PollMode {
    /// Again and again, this long after the last scan of the same model ended.
    Every(Duration),
    /// Once for each model that is set, and again only until every version found then is complete.
    Once,
    /// Only when asked to, by [`Poller::poll_once`] or [`Poller::wake`].
    Never,
}

impl PollMode {
    /// What TensorFlow Serving's `file_system_poll_wait_seconds` means: 0 is once, a negative number never.
    pub fn from_seconds(seconds: i64) -> Self {
        match u64::try_from(seconds) {
            Ok(0) => Self::Once,
            Ok(seconds) => Self::Every(Duration::from_secs(seconds)),
            Err(_) => Self::Never,
        }
    }

    /// How long to wait for the next scan, if there is one.
    fn pause(self, settle: Duration, is_settled: bool) -> Option<Duration> {
        match self {
            Self::Every(interval) => Some(interval),
            Self::Once if is_settled => None,
            Self::Once => Some(settle.max(Duration::from_millis(100))),
            Self::Never => None,
        }
    }
}

/// Takes the wish for a model whenever it is another than before. It runs while the poller is locked: it must
/// be quick and must not call the poller.
pub type OnAspired = Box<dyn Fn(Aspired<PathBuf>) + Send + Sync>;

/// Takes the status of a model whenever it is another than before, before the wish that goes with it. As
/// quick as [`OnAspired`].
pub type OnStatus = Box<dyn Fn(&ModelName, &SourceStatus) + Send + Sync>;

/// Scans the base paths of models on a thread of its own.
///
/// All methods can be called from any thread. Models are scanned one after the other; a folder that is slow
/// to read holds up the others for the time of its own scan, which [`Limits`] bounds in entries. Dropping the
/// poller ends it without waiting for a scan that runs.
pub struct Poller {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    mode: PollMode,
    limits: Limits,
    on_aspired: OnAspired,
    on_status: OnStatus,
    state: Mutex<State>,
    changed: Condvar,
    /// Held during a scan, so that the thread and `poll_once` do not mix.
    scan: Mutex<()>,
}

#[derive(Default)]
struct State {
    sources: BTreeMap<ModelName, Source>,
    n_sources_ever: u64,
    stopped: bool,
    ended: bool,
}

/// One model that is watched.
struct Source {
    watched: Watched,
    /// Another one whenever what is watched under this name changes.
    number: u64,
    seen: Seen,
    aspired: Option<Vec<AspiredVersion<PathBuf>>>,
    status: SourceStatus,
    /// When the thread scans it; `None` if it does not.
    due: Option<Instant>,
}

impl fmt::Debug for Poller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Poller").field("statuses", &self.statuses()).finish_non_exhaustive()
    }
}

impl Poller {
    /// Starts a poller that watches nothing yet. Fails if its thread cannot be started.
    pub fn new(
        mode: PollMode,
        limits: Limits,
        on_aspired: OnAspired,
        on_status: OnStatus,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            mode,
            limits,
            on_aspired,
            on_status,
            state: Mutex::default(),
            changed: Condvar::new(),
            scan: Mutex::new(()),
        });
        let poller = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("poll".into()).spawn(move || poller.run())?;
        Ok(Self { shared, thread: Mutex::new(Some(thread)) })
    }

    /// Replaces the whole set of models. Returns at once; models that are new or changed are scanned next.
    /// Once this has returned, no callback comes for a model that is not in the set. Of two entries with one
    /// name the later counts.
    pub fn set_models(&self, models: Vec<Watched>) {
        let mut state = self.shared.lock();
        let mut before = std::mem::take(&mut state.sources);
        let due = (self.shared.mode != PollMode::Never).then(clock);
        for watched in models {
            let name = watched.name.clone();
            let kept = state.sources.remove(&name).or_else(|| before.remove(&name));
            state.n_sources_ever += 1;
            let source = Source::new(watched, kept, state.n_sources_ever, due);
            state.sources.insert(name, source);
        }
        self.shared.changed.notify_all();
    }

    /// Scans every model now, on this thread. Blocks while the folders are read.
    pub fn poll_once(&self) {
        self.poll_at(wall_clock());
    }

    /// Like [`Poller::poll_once`], with the time that the ages of files are measured against.
    pub fn poll_at(&self, now: SystemTime) {
        let names: Vec<_> = self.shared.lock().sources.keys().cloned().collect();
        for name in names {
            self.shared.scan(&name, now);
        }
    }

    /// Makes the thread scan every model as soon as it can. Returns at once.
    pub fn wake(&self) {
        let now = clock();
        self.shared.lock().sources.values_mut().for_each(|source| source.due = Some(now));
        self.shared.changed.notify_all();
    }

    /// The status of one model; `None` if it is not watched.
    pub fn status(&self, name: &str) -> Option<SourceStatus> {
        self.shared.lock().sources.get(name).map(|source| source.status.clone())
    }

    /// The status of every model that is watched.
    pub fn statuses(&self) -> BTreeMap<ModelName, SourceStatus> {
        let state = self.shared.lock();
        state.sources.iter().map(|(name, source)| (name.clone(), source.status.clone())).collect()
    }

    /// Ends the poller: no callback comes after this has returned. Blocks until the thread has ended, and
    /// says so, or until the deadline; a scan that hangs is left to itself.
    pub fn shutdown(&self, deadline: Instant) -> bool {
        let mut state = self.shared.lock();
        state.stopped = true;
        self.shared.changed.notify_all();
        while !state.ended {
            let left = deadline.saturating_duration_since(clock());
            if left.is_zero() {
                return false;
            }
            state = self.shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(state);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        thread.is_none_or(|thread| thread.join().is_ok())
    }
}

impl Drop for Poller {
    fn drop(&mut self) {
        self.shared.lock().stopped = true;
        self.shared.changed.notify_all();
    }
}

impl Source {
    /// A source that goes on from the one before under its name, as far as that watched the same.
    fn new(watched: Watched, before: Option<Source>, number: u64, due: Option<Instant>) -> Self {
        match before {
            Some(source) if source.watched == watched => source,
            Some(source)
                if source.watched.base_path == watched.base_path
                    && source.watched.layout == watched.layout =>
            {
                Self { watched, number, due, ..source }
            }
            before => {
                let (seen, aspired) =
                    before.map_or_else(Default::default, |b| (b.seen.elsewhere(), b.aspired));
                Self { watched, number, seen, aspired, status: SourceStatus::default(), due }
            }
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        while let Some(name) = self.next_due() {
            self.scan(&name, wall_clock());
        }
        self.lock().ended = true;
        self.changed.notify_all();
    }

    /// Blocks until a model is due, the one that has waited longest first; `None` when the poller is stopped.
    fn next_due(&self) -> Option<ModelName> {
        let mut state = self.lock();
        while !state.stopped {
            let due = state.sources.iter().filter_map(|(name, source)| Some((source.due?, name))).min();
            let left = due.map(|(at, name)| (at.saturating_duration_since(clock()), name));
            state = match left {
                Some((Duration::ZERO, name)) => return Some(name.clone()),
                Some((left, _)) => {
                    self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
        None
    }

    fn scan(&self, name: &ModelName, now: SystemTime) {
        let _scan = self.scan.lock().unwrap_or_else(PoisonError::into_inner);
        let source = self.lock().sources.get(name).map(|s| (s.watched.clone(), s.number, s.seen.clone()));
        let Some((watched, number, seen)) = source else { return };
        let listing = list(&watched, &self.limits);
        let mut content = |path: &std::path::Path| read_content(path, &self.limits);
        let (seen, decision) = decide(&watched, listing, &mut content, &seen, now);
        self.deliver(name, number, seen, decision);
    }

    /// Takes over what a scan gave, unless the model was set anew or taken away meanwhile.
    fn deliver(&self, name: &ModelName, number: u64, seen: Seen, decision: Decision) {
        let mut state = self.lock();
        if state.stopped {
            return;
        }
        let Some(source) = state.sources.get_mut(name).filter(|source| source.number == number) else {
            return;
        };
        let is_settled = decision.status.unsettled.is_empty();
        let pause = self.mode.pause(source.watched.settle, is_settled);
        source.due = pause.and_then(|pause| clock().checked_add(pause));
        source.seen = seen;
        if source.status != decision.status {
            log_change(name, &source.status, &decision.status);
            source.status = decision.status;
            (self.on_status)(name, &source.status);
        }
        if let Some(versions) = decision.aspired.filter(|versions| source.aspired.as_ref() != Some(versions))
        {
            source.aspired = Some(versions.clone());
            (self.on_aspired)(Aspired { name: name.clone(), versions });
        }
    }
}

/// Says what is new in a status, once.
fn log_change(name: &ModelName, before: &SourceStatus, after: &SourceStatus) {
    match (&before.error, &after.error) {
        (before, Some(error)) if before.as_ref() != Some(error) => tracing::warn!(model = %name, "{error}"),
        (Some(_), None) => tracing::info!(model = %name, "base path can be read again"),
        _ => {}
    }
    for warning in after.warnings.iter().filter(|warning| !before.warnings.contains(warning)) {
        tracing::warn!(model = %name, "{warning}");
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the poller is the driver that reads the clock for its own pauses"
)]
fn clock() -> Instant {
    Instant::now()
}

#[expect(
    clippy::disallowed_methods,
    reason = "the poller is the driver that reads the time files are dated by"
)]
fn wall_clock() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
mod tests;
