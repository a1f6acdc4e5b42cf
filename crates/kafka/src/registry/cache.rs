//! What a registry said, and when to ask it again. Decisions only: the caller holds the clock and asks.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::time::{Duration, Instant};

/// The first pause after an answer that was no use; each following one doubles it.
pub(super) const FIRST_PAUSE: Duration = Duration::from_secs(5);
/// The longest pause.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What to do about a key.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step<V, E> {
    /// It is known.
    Have(V),
    /// Another thread asks; wait for it and look again.
    Wait,
    /// Ask, then tell [`Cache::done`]; others wait meanwhile. What was known so far stands in where asking fails.
    Ask,
    /// Asking has failed lately: this is how.
    Refuse(E),
}

#[derive(Debug)]
struct Known<V> {
    value: V,
    /// Until when it is not asked for again; `None` for what never changes.
    fresh_until: Option<Instant>,
}

#[derive(Debug)]
struct Failure<E> {
    error: E,
    pause: Duration,
    until: Instant,
}

#[derive(Debug)]
struct Entry<V, E> {
    known: Option<Known<V>>,
    failure: Option<Failure<E>>,
    asking: bool,
}

/// Answers by key. Holds at most a given number of keys and forgets those that it met first.
#[derive(Debug)]
pub(super) struct Cache<K, V, E> {
    entries: HashMap<K, Entry<V, E>>,
    /// The keys in the order in which they were met.
    order: VecDeque<K>,
    max_keys: usize,
    /// How long an answer is taken for true; `None` for ever.
    fresh_for: Option<Duration>,
}

impl<K: Clone + Eq + Hash, V: Clone, E: Clone> Cache<K, V, E> {
    /// An empty cache.
    pub(super) fn new(max_keys: usize, fresh_for: Option<Duration>) -> Self {
        Cache { entries: HashMap::new(), order: VecDeque::new(), max_keys, fresh_for }
    }

    /// What to do about a key.
    pub(super) fn step(&mut self, key: &K, now: Instant) -> Step<V, E> {
        let Some(entry) = self.entries.get_mut(key) else {
            self.make_room();
            self.order.push_back(key.clone());
            self.entries.insert(key.clone(), Entry { known: None, failure: None, asking: true });
            return Step::Ask;
        };
        if let Some(known) = &entry.known {
            let is_fresh = known.fresh_until.is_none_or(|until| now < until);
            let rests = entry.failure.as_ref().is_some_and(|failure| now < failure.until);
            if is_fresh || entry.asking || rests {
                return Step::Have(known.value.clone());
            }
        } else if entry.asking {
            return Step::Wait;
        } else if let Some(failure) = &entry.failure
            && now < failure.until
        {
            return Step::Refuse(failure.error.clone());
        }
        entry.asking = true;
        Step::Ask
    }

    /// What is known of a key, be it that asking has failed lately; nothing if it would have to be asked for.
    pub(super) fn known(&self, key: &K, now: Instant) -> Option<Result<V, E>> {
        let entry = self.entries.get(key)?;
        let failure = || entry.failure.as_ref().filter(|failure| now < failure.until);
        match &entry.known {
            Some(known) => Some(Ok(known.value.clone())),
            None => failure().map(|failure| Err(failure.error.clone())),
        }
    }

    /// What asking came to. Gives what the asker is to be told: an older answer stands in for a failure.
    pub(super) fn done(
        &mut self,
        key: &K,
        now: Instant,
        result: Result<V, E>,
        keeps_failure: Keeps,
    ) -> Result<V, E> {
        let Some(entry) = self.entries.get_mut(key) else { return result };
        entry.asking = false;
        match result {
            Ok(value) => {
                let fresh_until = self.fresh_for.map(|fresh| now + fresh);
                entry.known = Some(Known { value: value.clone(), fresh_until });
                entry.failure = None;
                Ok(value)
            }
            Err(error) => {
                if keeps_failure == Keeps::Yes {
                    let pause = entry
                        .failure
                        .as_ref()
                        .map_or(FIRST_PAUSE, |last| (last.pause * 2).min(LONGEST_PAUSE));
                    entry.failure = Some(Failure { error: error.clone(), pause, until: now + pause });
                }
                entry.known.as_ref().map(|known| known.value.clone()).ok_or(error)
            }
        }
    }

    /// Forgets the key met first that nobody asks for, where the cache is full.
    fn make_room(&mut self) {
        let mut looked_at = 0;
        while self.entries.len() >= self.max_keys && looked_at < self.order.len() {
            let Some(oldest) = self.order.pop_front() else { return };
            if self.entries.get(&oldest).is_some_and(|entry| entry.asking) {
                self.order.push_back(oldest);
                looked_at += 1;
            } else {
                self.entries.remove(&oldest);
            }
        }
    }
}

/// Whether a failure is remembered with its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keeps {
    /// The registry answered, and the answer is about this key.
    Yes,
    /// The registry could not be asked; that says nothing about the key.
    No,
}

/// A registry that cannot be reached is left alone for a while, whatever is wanted of it.
#[derive(Debug, Default)]
pub(super) struct Absence {
    last: Option<(Duration, Instant)>,
}

impl Absence {
    /// Whether to leave it alone now.
    pub(super) fn rests(&self, now: Instant) -> bool {
        self.last.is_some_and(|(_, until)| now < until)
    }

    /// It did not answer.
    pub(super) fn missed(&mut self, now: Instant) {
        // Several threads may have been asking at once; together they count as one.
        if self.rests(now) {
            return;
        }
        let pause = self.last.map_or(FIRST_PAUSE, |(pause, _)| (pause * 2).min(LONGEST_PAUSE));
        self.last = Some((pause, now + pause));
    }

    /// It answered.
    pub(super) fn answered(&mut self) {
        self.last = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Numbers = Cache<u32, u32, &'static str>;

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn start() -> Instant {
        #[allow(clippy::disallowed_methods, reason = "any instant will do; the tests add to it")]
        Instant::now()
    }

    #[test]
    fn what_is_known_is_not_asked_for_again() {
        let now = start();
        let mut cache = Numbers::new(10, None);
        assert_eq!(cache.step(&1, now), Step::Ask);
        assert_eq!(cache.step(&1, now), Step::Wait, "one asks at a time");
        assert_eq!(cache.done(&1, now, Ok(11), Keeps::Yes), Ok(11));
        assert_eq!(cache.step(&1, now + seconds(1_000_000)), Step::Have(11));
    }

    #[test]
    fn pauses_double_up_to_a_minute() {
        let mut now = start();
        let mut cache = Numbers::new(10, None);
        for pause in [5, 10, 20, 40, 60, 60] {
            assert_eq!(cache.step(&1, now), Step::Ask);
            assert_eq!(cache.done(&1, now, Err("not found"), Keeps::Yes), Err("not found"));
            assert_eq!(
                cache.step(&1, now + seconds(pause) - Duration::from_millis(1)),
                Step::Refuse("not found")
            );
            now += seconds(pause);
        }
        assert_eq!(cache.step(&1, now), Step::Ask);
        assert_eq!(cache.done(&1, now, Ok(3), Keeps::Yes), Ok(3));
        assert_eq!(cache.step(&1, now), Step::Have(3));
    }

    #[test]
    fn a_failure_that_is_not_the_keys_own_is_not_kept() {
        let now = start();
        let mut cache = Numbers::new(10, None);
        assert_eq!(cache.step(&1, now), Step::Ask);
        assert_eq!(cache.done(&1, now, Err("away"), Keeps::No), Err("away"));
        assert_eq!(cache.step(&1, now), Step::Ask);
    }

    #[test]
    fn an_older_answer_stands_in_for_a_failure() {
        let now = start();
        let mut cache = Numbers::new(10, Some(seconds(300)));
        assert_eq!(cache.step(&1, now), Step::Ask);
        assert_eq!(cache.done(&1, now, Ok(7), Keeps::Yes), Ok(7));
        let later = now + seconds(300);
        assert_eq!(cache.step(&1, later), Step::Ask, "it is no longer fresh");
        assert_eq!(cache.step(&1, later), Step::Have(7), "others go on with what is known");
        assert_eq!(cache.done(&1, later, Err("gone"), Keeps::Yes), Ok(7));
        assert_eq!(cache.step(&1, later + seconds(4)), Step::Have(7));
        assert_eq!(cache.step(&1, later + seconds(5)), Step::Ask);
        assert_eq!(cache.done(&1, later + seconds(5), Ok(8), Keeps::Yes), Ok(8));
        assert_eq!(cache.step(&1, later + seconds(6)), Step::Have(8));
    }

    #[test]
    fn a_full_cache_forgets_what_it_met_first_but_nothing_that_is_asked_for() {
        let now = start();
        let mut cache = Numbers::new(3, None);
        assert_eq!(cache.step(&0, now), Step::Ask);
        for key in 1..10 {
            assert_eq!(cache.step(&key, now), Step::Ask);
            assert_eq!(cache.done(&key, now, Ok(key), Keeps::Yes), Ok(key));
            assert!(cache.entries.len() <= 3 && cache.order.len() == cache.entries.len());
        }
        assert_eq!(cache.step(&0, now), Step::Wait);
        assert_eq!(cache.step(&9, now), Step::Have(9));
        assert_eq!(cache.step(&1, now), Step::Ask);
    }

    #[test]
    fn a_registry_that_is_away_is_left_alone() {
        let mut now = start();
        let mut absence = Absence::default();
        assert!(!absence.rests(now));
        for pause in [5, 10, 20, 40, 60, 60] {
            absence.missed(now);
            absence.missed(now);
            assert!(absence.rests(now + seconds(pause) - Duration::from_millis(1)));
            now += seconds(pause);
            assert!(!absence.rests(now));
        }
        absence.missed(now);
        absence.answered();
        assert!(!absence.rests(now));
    }
}
