//! The book of one model: which versions are wanted, where each stands, and what follows from an event. It
//! reads no clock and owns no thread; every event gives the effects that the manager must carry out, in this
//! order.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::policy::{Action, Policy, Snapshot, Stage, next_action};
use crate::{AspiredVersion, Cancel, LoadError, Phase, State, Version, VersionState};

/// The rules that a book follows.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    pub(crate) policy: Policy,
    pub(crate) max_retries: u32,
    pub(crate) retry_interval: Duration,
    pub(crate) max_retry_interval: Duration,
    pub(crate) n_ended_kept: usize,
}

impl Rules {
    /// How long to wait after this many failed attempts: the interval, doubled each time up to its limit.
    fn delay(&self, n_attempts: u32) -> Duration {
        let factor = 1_u32.checked_shl(n_attempts.saturating_sub(1)).unwrap_or(u32::MAX);
        let limit = self.max_retry_interval.max(self.retry_interval);
        self.retry_interval.saturating_mul(factor).min(limit)
    }
}

/// What the manager must do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Effect {
    /// A version's published state is now this one.
    Changed(Version, State),
    /// Load this version when a thread is free.
    Queue(Version),
    /// Its load failed with an error that can pass: queue it again at this time.
    QueueAt { version: Version, at: Instant, error: LoadError },
    /// Give out handles to the servable that was just loaded.
    Publish(Version),
    /// Give out no more handles to this version, and let go of the servable.
    Unpublish(Version),
}

/// What a load thread needs to know.
#[derive(Debug)]
pub(crate) struct Attempt<S> {
    pub(crate) source: S,
    pub(crate) cancel: Cancel,
}

#[derive(Debug)]
pub(crate) struct Model<S> {
    versions: BTreeMap<Version, Entry<S>>,
    forgotten: bool,
    n_ended: u64,
}

#[derive(Debug)]
struct Entry<S> {
    wish: Option<Wish<S>>,
    progress: Progress,
    n_attempts: u32,
    published: State,
    /// Grows with each ending of the model's versions, so that the oldest can be told.
    ended_at: u64,
}

#[derive(Debug)]
struct Wish<S> {
    source: S,
    fingerprint: u64,
}

#[derive(Debug)]
enum Progress {
    New,
    Queued,
    Running {
        cancel: Cancel,
        fingerprint: u64,
    },
    Waiting {
        until: Instant,
        fingerprint: u64,
    },
    Ready,
    Unloading,
    /// With the fingerprint of the content that failed to load, if that is why.
    Ended {
        failed: Option<u64>,
    },
}

impl<S> Entry<S> {
    fn new() -> Self {
        let published = State { phase: Phase::Start, error: None };
        Self { wish: None, progress: Progress::New, n_attempts: 0, published, ended_at: 0 }
    }

    fn publish(
        &mut self,
        version: Version,
        phase: Phase,
        error: Option<LoadError>,
        effects: &mut Vec<Effect>,
    ) {
        let state = State { phase, error };
        if self.published != state {
            self.published = state.clone();
            effects.push(Effect::Changed(version, state));
        }
    }

    fn stage(&self) -> Stage {
        match self.progress {
            Progress::New => Stage::New,
            Progress::Queued | Progress::Running { .. } | Progress::Waiting { .. } => Stage::Loading,
            Progress::Ready => Stage::Ready,
            Progress::Unloading => Stage::Unloading,
            Progress::Ended { .. } => Stage::Ended,
        }
    }

    fn restart(&mut self) {
        self.progress = Progress::New;
        self.n_attempts = 0;
    }
}

impl<S> Model<S> {
    pub(crate) fn new() -> Self {
        Self { versions: BTreeMap::new(), forgotten: false, n_ended: 0 }
    }

    /// Nothing is wanted any more, and the name can go when nothing is left of it.
    pub(crate) fn forget(&mut self, rules: &Rules, effects: &mut Vec<Effect>)
    where
        S: Clone,
    {
        self.aspire(Vec::new(), rules, effects);
        self.forgotten = true;
    }

    /// Whether the name was forgotten and nothing is left of it.
    pub(crate) fn is_gone(&self) -> bool {
        self.forgotten && self.is_idle()
    }

    /// Whether nothing is in memory, on its way there or on its way out.
    pub(crate) fn is_idle(&self) -> bool {
        self.versions.values().all(|entry| matches!(entry.progress, Progress::Ended { .. }))
    }

    /// From the highest version down.
    pub(crate) fn states(&self) -> Vec<VersionState> {
        let state = |(&version, entry): (&Version, &Entry<S>)| VersionState {
            version,
            aspired: entry.wish.is_some(),
            state: entry.published.clone(),
        };
        self.versions.iter().rev().map(state).collect()
    }

    /// Takes the complete wish for this model.
    pub(crate) fn aspire(
        &mut self,
        versions: Vec<AspiredVersion<S>>,
        rules: &Rules,
        effects: &mut Vec<Effect>,
    ) {
        self.forgotten = false;
        let wishes: BTreeMap<_, _> = versions
            .into_iter()
            .map(|v| (v.version, Wish { source: v.source, fingerprint: v.fingerprint }))
            .collect();
        let unwanted: Vec<_> = self.versions.keys().filter(|v| !wishes.contains_key(v)).copied().collect();
        for version in unwanted {
            self.unwish(version, effects);
        }
        for (version, wish) in wishes {
            self.wish(version, wish, effects);
        }
        self.settle(rules, effects);
    }

    fn unwish(&mut self, version: Version, effects: &mut Vec<Effect>) {
        let Some(entry) = self.versions.get_mut(&version) else { return };
        entry.wish = None;
        match &entry.progress {
            Progress::New | Progress::Queued | Progress::Waiting { .. } => {
                self.end(version, None, None, effects);
            }
            Progress::Running { cancel, .. } => cancel.cancel(),
            Progress::Ready | Progress::Unloading | Progress::Ended { .. } => {}
        }
    }

    fn wish(&mut self, version: Version, wish: Wish<S>, effects: &mut Vec<Effect>) {
        let mut is_new = false;
        let entry = self.versions.entry(version).or_insert_with(|| {
            is_new = true;
            Entry::new()
        });
        if is_new {
            effects.push(Effect::Changed(version, entry.published.clone()));
        }
        let was_aspired = entry.wish.is_some();
        match &entry.progress {
            Progress::Ended { failed } if !was_aspired || *failed != Some(wish.fingerprint) => {
                entry.restart();
                entry.publish(version, Phase::Start, None, effects);
            }
            Progress::Waiting { fingerprint, .. } if *fingerprint != wish.fingerprint => entry.restart(),
            _ => {}
        }
        entry.wish = Some(wish);
    }

    /// A load thread is free for this version. `None` if it is not to be loaded any more.
    pub(crate) fn begin(&mut self, version: Version, effects: &mut Vec<Effect>) -> Option<Attempt<S>>
    where
        S: Clone,
    {
        let entry = self.versions.get_mut(&version)?;
        let (Progress::Queued, Some(wish)) = (&entry.progress, &entry.wish) else { return None };
        let attempt = Attempt { source: wish.source.clone(), cancel: Cancel::new() };
        entry.progress = Progress::Running { cancel: attempt.cancel.clone(), fingerprint: wish.fingerprint };
        entry.n_attempts += 1;
        entry.publish(version, Phase::Loading, None, effects);
        Some(attempt)
    }

    /// The time of [`Effect::QueueAt`] has come.
    pub(crate) fn wake(&mut self, version: Version, now: Instant, effects: &mut Vec<Effect>) {
        let Some(entry) = self.versions.get_mut(&version) else { return };
        if matches!(entry.progress, Progress::Waiting { until, .. } if until <= now) {
            entry.progress = Progress::Queued;
            effects.push(Effect::Queue(version));
        }
    }

    /// A load has ended. If it went well and the servable is not wanted any more, it is let go without having
    /// been published.
    pub(crate) fn loaded(
        &mut self,
        version: Version,
        result: Result<(), LoadError>,
        now: Instant,
        rules: &Rules,
        effects: &mut Vec<Effect>,
    ) {
        match result {
            Ok(()) => self.succeeded(version, effects),
            Err(error) => self.failed(version, error, now, rules, effects),
        }
        self.settle(rules, effects);
    }

    fn succeeded(&mut self, version: Version, effects: &mut Vec<Effect>) {
        let Some(entry) = self.versions.get_mut(&version) else { return };
        // What was called off, or was loaded from content that is another now, is let go; `dropped` begins anew.
        let is_wanted = match (&entry.progress, &entry.wish) {
            (Progress::Running { cancel, fingerprint }, Some(wish)) => {
                !cancel.is_cancelled() && wish.fingerprint == *fingerprint
            }
            _ => false,
        };
        if is_wanted {
            entry.progress = Progress::Ready;
            effects.push(Effect::Publish(version));
            entry.publish(version, Phase::Available, None, effects);
        } else {
            entry.progress = Progress::Unloading;
            entry.publish(version, Phase::Unloading, None, effects);
        }
    }

    fn failed(
        &mut self,
        version: Version,
        error: LoadError,
        now: Instant,
        rules: &Rules,
        effects: &mut Vec<Effect>,
    ) {
        let Some(entry) = self.versions.get_mut(&version) else { return };
        let Progress::Running { cancel, fingerprint } = &entry.progress else { return };
        let fingerprint = *fingerprint;
        match &entry.wish {
            None => self.end(version, Some(error), None, effects),
            // It failed for a reason that no longer holds: it was called off, or its content is another now.
            Some(wish) if cancel.is_cancelled() || wish.fingerprint != fingerprint => entry.restart(),
            Some(_) if error.retry && entry.n_attempts <= rules.max_retries => {
                let until = now.checked_add(rules.delay(entry.n_attempts)).unwrap_or(now);
                entry.progress = Progress::Waiting { until, fingerprint };
                effects.push(Effect::QueueAt { version, at: until, error });
            }
            Some(_) => self.end(version, Some(error), Some(fingerprint), effects),
        }
    }

    /// The servable of this version was dropped.
    pub(crate) fn dropped(&mut self, version: Version, rules: &Rules, effects: &mut Vec<Effect>) {
        self.end(version, None, None, effects);
        if let Some(entry) = self.versions.get_mut(&version).filter(|entry| entry.wish.is_some()) {
            entry.restart();
            entry.publish(version, Phase::Start, None, effects);
        }
        self.settle(rules, effects);
    }

    fn end(
        &mut self,
        version: Version,
        error: Option<LoadError>,
        failed: Option<u64>,
        effects: &mut Vec<Effect>,
    ) {
        let Some(entry) = self.versions.get_mut(&version) else { return };
        self.n_ended += 1;
        entry.ended_at = self.n_ended;
        entry.progress = Progress::Ended { failed };
        entry.publish(version, Phase::End, error, effects);
    }

    /// Takes actions until the policy has none left, then drops the oldest records of versions that are over.
    fn settle(&mut self, rules: &Rules, effects: &mut Vec<Effect>) {
        while let Some(action) = next_action(rules.policy, &self.snapshots()) {
            self.act(action, effects);
        }
        self.prune(rules.n_ended_kept);
    }

    fn snapshots(&self) -> Vec<Snapshot> {
        let snapshot = |(&version, entry): (&Version, &Entry<S>)| Snapshot {
            version,
            aspired: entry.wish.is_some(),
            stage: entry.stage(),
        };
        self.versions.iter().map(snapshot).collect()
    }

    fn act(&mut self, action: Action, effects: &mut Vec<Effect>) {
        let (Action::Load(version) | Action::Unload(version)) = action;
        let entry = self.versions.get_mut(&version).expect("the policy names a version that it was shown");
        match action {
            Action::Load(_) => {
                entry.progress = Progress::Queued;
                effects.push(Effect::Queue(version));
            }
            Action::Unload(_) => {
                entry.progress = Progress::Unloading;
                entry.publish(version, Phase::Unloading, None, effects);
                effects.push(Effect::Unpublish(version));
            }
        }
    }

    fn prune(&mut self, n_kept: usize) {
        let over = |entry: &Entry<S>| entry.wish.is_none() && entry.stage() == Stage::Ended;
        let mut ended: Vec<_> =
            self.versions.iter().filter(|(_, e)| over(e)).map(|(v, e)| (e.ended_at, *v)).collect();
        ended.sort_unstable();
        for (_, version) in ended.iter().take(ended.len().saturating_sub(n_kept)) {
            self.versions.remove(version);
        }
    }
}

#[cfg(test)]
mod tests;
