use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::{Clock, ErrorKind, SystemClock};

const MINUTE: Duration = Duration::from_secs(60);

fn rules(policy: Policy) -> Rules {
    Rules { policy, max_retries: 2, retry_interval: MINUTE, max_retry_interval: 3 * MINUTE, n_ended_kept: 2 }
}

#[test]
fn delays_double_up_to_the_limit() {
    let rules = rules(Policy::default());
    let check =
        |n_attempts, n_minutes| assert_eq!(rules.delay(n_attempts), n_minutes * MINUTE, "{n_attempts}");
    check(1, 1);
    check(2, 2);
    check(3, 3);
    check(40, 3);
    check(u32::MAX, 3);
}

#[derive(Debug, Clone)]
enum Event {
    /// Versions and the fingerprints of their content.
    Aspire(BTreeMap<u64, u64>),
    Forget,
    /// A thread begins the n-th queued load.
    Begin(usize),
    /// The n-th running load ends.
    End(usize, Outcome),
    /// The n-th servable on its way out is dropped.
    Drop(usize),
    Advance(u32),
}

#[derive(Debug, Clone, Copy)]
enum Outcome {
    Good,
    Broken,
    Passing,
}

impl Outcome {
    fn result(self) -> Result<(), LoadError> {
        match self {
            Self::Good => Ok(()),
            Self::Broken => Err(LoadError::permanent(ErrorKind::Invalid, "broken")),
            Self::Passing => Err(LoadError::transient(ErrorKind::Unavailable, "passing")),
        }
    }
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let outcome =
        prop_oneof![3 => Just(Outcome::Good), 1 => Just(Outcome::Broken), 2 => Just(Outcome::Passing)];
    let event = prop_oneof![
        3 => prop::collection::btree_map(1..5_u64, 0..3_u64, 0..4).prop_map(Event::Aspire),
        1 => Just(Event::Forget),
        5 => (0..4_usize).prop_map(Event::Begin),
        5 => (0..4_usize, outcome).prop_map(|(n, outcome)| Event::End(n, outcome)),
        3 => (0..4_usize).prop_map(Event::Drop),
        2 => (1..5_u32).prop_map(Event::Advance),
    ];
    prop::collection::vec(event, 0..60)
}

/// What is around a book: it carries out the effects and checks each against what it knows.
struct World {
    model: Model<u64>,
    rules: Rules,
    now: Instant,
    wish: BTreeMap<u64, u64>,
    queue: BTreeSet<Version>,
    running: BTreeMap<Version, Attempt<u64>>,
    retries: BTreeMap<Version, Instant>,
    available: BTreeSet<Version>,
    leaving: BTreeSet<Version>,
    published: BTreeMap<Version, State>,
}

impl World {
    fn new(policy: Policy) -> Self {
        Self {
            model: Model::new(),
            rules: rules(policy),
            now: SystemClock.now(),
            wish: BTreeMap::new(),
            queue: BTreeSet::new(),
            running: BTreeMap::new(),
            retries: BTreeMap::new(),
            available: BTreeSet::new(),
            leaving: BTreeSet::new(),
            published: BTreeMap::new(),
        }
    }

    fn aspired(&self) -> Vec<AspiredVersion<u64>> {
        let one = |(&number, &fingerprint): (&u64, &u64)| AspiredVersion {
            version: Version::new(number).unwrap(),
            source: fingerprint,
            fingerprint,
        };
        self.wish.iter().map(one).collect()
    }

    fn take(&mut self, event: &Event) {
        let mut effects = Vec::new();
        match event {
            Event::Aspire(wish) => {
                self.wish.clone_from(wish);
                self.model.aspire(self.aspired(), &self.rules, &mut effects);
            }
            Event::Forget => {
                self.wish.clear();
                self.model.forget(&self.rules, &mut effects);
            }
            Event::Begin(n) => self.begin(*n, &mut effects),
            Event::End(n, outcome) => self.end(*n, *outcome, &mut effects),
            Event::Drop(n) => {
                if let Some(version) = self.leaving.iter().nth(*n).copied() {
                    self.leaving.remove(&version);
                    self.model.dropped(version, &self.rules, &mut effects);
                }
            }
            Event::Advance(n_minutes) => self.advance(*n_minutes, &mut effects),
        }
        self.carry_out(effects);
        self.check();
    }

    fn begin(&mut self, n: usize, effects: &mut Vec<Effect>) {
        let Some(version) = self.queue.iter().nth(n).copied() else { return };
        self.queue.remove(&version);
        if let Some(attempt) = self.model.begin(version, effects) {
            assert_eq!(self.wish.get(&version.get()), Some(&attempt.source), "loads what is wanted");
            assert!(!self.available.contains(&version) && !self.leaving.contains(&version));
            assert!(self.running.insert(version, attempt).is_none(), "{version} is loaded twice at a time");
        }
    }

    fn end(&mut self, n: usize, outcome: Outcome, effects: &mut Vec<Effect>) {
        let Some(version) = self.running.keys().nth(n).copied() else { return };
        self.running.remove(&version);
        self.model.loaded(version, outcome.result(), self.now, &self.rules, effects);
        let is_published = effects.contains(&Effect::Publish(version));
        if matches!(outcome, Outcome::Good) && !is_published {
            self.leaving.insert(version);
        }
    }

    fn advance(&mut self, n_minutes: u32, effects: &mut Vec<Effect>) {
        self.now += n_minutes * MINUTE;
        let due: Vec<_> = self.retries.iter().filter(|(_, at)| **at <= self.now).map(|(v, _)| *v).collect();
        for version in due {
            self.retries.remove(&version);
            self.model.wake(version, self.now, effects);
        }
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        let n_available = self.available.len();
        for effect in effects {
            match effect {
                Effect::Changed(version, state) => self.changed(version, state),
                Effect::Queue(version) => assert!(self.queue.insert(version) || !self.wish.is_empty()),
                // One is due at a time: it takes the place of one for content that has changed meanwhile.
                Effect::QueueAt { version, at, .. } => {
                    assert!(at > self.now);
                    self.retries.insert(version, at);
                }
                Effect::Publish(version) => assert!(self.available.insert(version)),
                Effect::Unpublish(version) => {
                    assert_eq!(
                        self.published[&version].phase,
                        Phase::Unloading,
                        "published before it is true"
                    );
                    assert!(self.available.remove(&version) && self.leaving.insert(version));
                }
            }
        }
        if self.rules.policy == Policy::AvailabilityPreserving && n_available > 0 && !self.wish.is_empty() {
            assert!(!self.available.is_empty(), "the last available version went before it was replaced");
        }
    }

    fn changed(&mut self, version: Version, state: State) {
        if state.phase == Phase::Available {
            assert!(self.available.contains(&version), "published after it is true");
        }
        assert!(state.error.is_none() || state.phase == Phase::End);
        let before = self.published.insert(version, state.clone());
        assert_ne!(before, Some(state), "a state is published once");
    }

    fn check(&self) {
        let states = self.model.states();
        assert!(states.is_sorted_by(|a, b| a.version > b.version));
        for state in &states {
            assert_eq!(self.published[&state.version], state.state, "{state:?}");
            assert_eq!(self.wish.contains_key(&state.version.get()), state.aspired, "{state:?}");
        }
        let of = |phase| states.iter().filter(move |s| s.state.phase == phase);
        assert_eq!(of(Phase::Available).map(|s| s.version).collect::<BTreeSet<_>>(), self.available);
        assert_eq!(of(Phase::Unloading).map(|s| s.version).collect::<BTreeSet<_>>(), self.leaving);
        assert!(of(Phase::End).filter(|s| !s.aspired).count() <= self.rules.n_ended_kept);
        assert!(self.wish.keys().all(|v| states.iter().any(|s| s.version.get() == *v)));
        for (version, attempt) in &self.running {
            assert!(self.wish.contains_key(&version.get()) || attempt.cancel.is_cancelled());
        }
        if self.rules.policy == Policy::ResourcePreserving && !self.running.is_empty() {
            let kept = |v: &Version| self.wish.contains_key(&v.get());
            assert!(
                self.available.iter().all(kept) || !self.running.keys().all(kept) || self.wish.is_empty()
            );
        }
    }

    /// Every load goes well from here on, every handle is given back.
    fn finish(&mut self) {
        for _ in 0..100 {
            self.take(&Event::Begin(0));
            self.take(&Event::End(0, Outcome::Good));
            self.take(&Event::Drop(0));
            self.take(&Event::Advance(4));
        }
        assert!(self.running.is_empty() && self.leaving.is_empty() && self.retries.is_empty());
    }

    /// The wished versions, less those that failed for good.
    fn expected(&self) -> BTreeSet<Version> {
        let failed = |version: &Version| {
            let state = &self.published[version];
            state.phase == Phase::End && state.error.is_some()
        };
        let wished = self.wish.keys().map(|v| Version::new(*v).unwrap());
        wished.filter(|version| !failed(version)).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn a_book_holds_its_promises(events in events(), preserve_resources: bool) {
        let policy = if preserve_resources { Policy::ResourcePreserving } else { Policy::AvailabilityPreserving };
        let mut world = World::new(policy);
        for event in &events {
            world.take(event);
        }
        world.finish();
        let expected = world.expected();
        let unreplaced = policy == Policy::AvailabilityPreserving && expected.is_empty() && !world.wish.is_empty();
        if unreplaced {
            // Nothing wanted loads: at most one old version is left to serve.
            prop_assert!(world.available.len() <= 1);
        } else {
            prop_assert_eq!(&world.available, &expected);
        }

        // New content is tried again, and an empty wish leaves nothing.
        let renewed = world.wish.keys().map(|v| (*v, 99)).collect::<BTreeMap<_, _>>();
        world.take(&Event::Aspire(renewed.clone()));
        world.finish();
        prop_assert!(world.available.iter().map(|v| v.get()).eq(renewed.keys().copied()));
        world.take(&Event::Forget);
        world.finish();
        prop_assert!(world.available.is_empty() && world.model.is_gone());
    }
}

#[test]
fn attempts_are_counted() {
    let check = |outcome: Outcome, n_expected: usize| {
        let mut world = World::new(Policy::default());
        world.take(&Event::Aspire([(1, 0)].into()));
        let mut n_attempts = 0;
        for _ in 0..20 {
            world.take(&Event::Begin(0));
            n_attempts += world.running.len();
            world.take(&Event::End(0, outcome));
            world.take(&Event::Advance(3));
        }
        assert_eq!(n_attempts, n_expected, "{outcome:?}");
        n_attempts
    };
    check(Outcome::Good, 1);
    check(Outcome::Broken, 1);
    check(Outcome::Passing, 3);
}

#[test]
fn a_retry_waits_its_time() {
    let mut world = World::new(Policy::default());
    world.take(&Event::Aspire([(1, 0)].into()));
    for n_minutes in [1, 2] {
        world.take(&Event::Begin(0));
        world.take(&Event::End(0, Outcome::Passing));
        assert_eq!(world.published[&Version::new(1).unwrap()].phase, Phase::Loading);
        for _ in 0..n_minutes {
            assert!(world.queue.is_empty());
            world.take(&Event::Advance(1));
        }
        assert!(!world.queue.is_empty());
    }
}

#[test]
fn records_of_the_latest_endings_stay() {
    let mut world = World::new(Policy::default());
    for version in [4, 1, 3, 2] {
        world.take(&Event::Aspire([(version, 0)].into()));
        world.finish();
    }
    let versions: Vec<_> = world.model.states().iter().map(|s| s.version.get()).collect();
    assert_eq!(versions, [3, 2, 1]);
}

#[test]
fn what_makes_a_failed_version_start_again() {
    let aspire = |wish: &[(u64, u64)]| Event::Aspire(wish.iter().copied().collect());
    let check = |case: &str, events: &[Event], is_queued: bool| {
        let mut world = World::new(Policy::default());
        world.take(&aspire(&[(1, 0)]));
        world.take(&Event::Begin(0));
        for event in events {
            world.take(event);
        }
        assert_eq!(!world.queue.is_empty(), is_queued, "{case}");
    };
    let broken = Event::End(0, Outcome::Broken);
    let passing = Event::End(0, Outcome::Passing);
    check("nothing", std::slice::from_ref(&broken), false);
    check("the same wish", &[broken.clone(), aspire(&[(1, 0)])], false);
    check("time", &[broken.clone(), Event::Advance(4)], false);
    check("new content", &[broken.clone(), aspire(&[(1, 1)])], true);
    check("new content while it loads", &[aspire(&[(1, 1)]), broken.clone()], true);
    check("new content while it waits", &[passing, aspire(&[(1, 1)])], true);
    check("wanted again", &[broken.clone(), aspire(&[]), aspire(&[(1, 0)])], true);
    check("wanted again while it loads", &[aspire(&[]), aspire(&[(1, 0)]), broken], true);
}

#[test]
fn what_was_loaded_from_other_content_is_never_published() {
    let aspire = |wish: &[(u64, u64)]| Event::Aspire(wish.iter().copied().collect());
    let check = |case: &str, meanwhile: &[Event], is_published: bool| {
        let mut world = World::new(Policy::default());
        world.take(&aspire(&[(1, 0)]));
        world.take(&Event::Begin(0));
        for event in meanwhile {
            world.take(event);
        }
        world.take(&Event::End(0, Outcome::Good));
        assert_eq!(!world.available.is_empty(), is_published, "{case}");
        world.finish();
        assert_eq!(world.available.len(), 1, "{case}: loaded anew");
    };
    check("nothing", &[], true);
    check("called off and wanted again", &[aspire(&[]), aspire(&[(1, 0)])], false);
    check("new content", &[aspire(&[(1, 1)])], false);
}
