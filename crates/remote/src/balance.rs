//! Which peer gets the next call: power of two choices over peak EWMA, ejection, trials. Pure: `now` is an argument, nothing
//! waits and nothing is sent.
//!
//! Two peers are drawn and the one with the lower cost gets the call, the cost being the expected latency times the calls
//! that would share the peer. The average of latencies follows a peak at once and comes down slowly (Finagle's and Linkerd's
//! "peak EWMA"), and the age of the oldest call under way counts as latency before there is an answer. A peer that has
//! not answered yet is taken for an average one, so that it is neither flooded nor starved.
//!
//! A peer whose calls fail goes out for a time that doubles, as long as no more than a share of all are out; one that
//! cannot be connected to goes out in any case. When the time is over somebody checks that a connection comes about
//! ([`Balancer::due`]), and then a single call decides. There is always a choice as long as there is a peer: where all are out,
//! all are used.

mod health;
mod load;
mod settings;

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use health::{Cause, Health, Stand};
use load::{Load, Typical};

pub use settings::Settings;

use crate::random::Random;

/// A peer. Never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Id(u64);

/// A call that was given to a peer, to be handed back with [`Balancer::done`].
#[derive(Debug)]
#[must_use]
pub(crate) struct Ticket {
    pub(crate) id: Id,
    number: u64,
    begun: Instant,
    /// When there was a connection for it. Connecting is no latency of the peer: later calls do without.
    pub(crate) sent: Option<Instant>,
    /// How long to wait at most, for a call that is a trial: it is given to a peer of which nothing good is known.
    pub(crate) patience: Option<Duration>,
}

/// What became of a call, as far as it says something of the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// There is an answer.
    Answered,
    /// The request was found wrong. The peer is well, but its haste says nothing.
    Objected,
    /// The peer is alive and wants no calls for this time.
    Refused(Duration),
    /// The peer is at fault.
    Failed,
    /// There was no answer in time. That is the peer's fault if it had more time than it usually needs.
    Late,
    /// No connection came about.
    Unreachable,
    /// Nobody waited for the answer.
    Dropped,
}

/// Where a peer stands, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PeerState {
    /// It gets calls.
    Used,
    /// It asked for a pause, and gets calls only when all others did too or are out.
    Held,
    /// Its calls failed.
    Ejected,
    /// It cannot be connected to.
    Unreachable,
    /// It was out; one call decides whether it still is.
    Trial,
}

/// Figures of one peer.
#[derive(Debug, Clone)]
pub(crate) struct Report {
    pub(crate) id: Id,
    pub(crate) state: PeerState,
    pub(crate) estimate: Option<Duration>,
    pub(crate) under_way: usize,
    pub(crate) counts: Counts,
}

/// What happened to one peer since it is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Calls sent to it, retries among them.
    pub requests: u64,
    /// Those that failed by its fault, including those for which there was no connection.
    pub failures: u64,
    /// Times it went out.
    pub ejections: u64,
    /// Calls sent to it because another peer had failed them.
    pub retries: u64,
}

#[derive(Debug)]
struct Entry {
    id: Id,
    weight: f64,
    load: Load,
    health: Health,
    counts: Counts,
}

/// The peers and all that is known of them.
#[derive(Debug)]
pub(crate) struct Balancer {
    settings: Settings,
    random: Random,
    /// In the order of their ids.
    entries: Vec<Entry>,
    next_id: u64,
    next_call: u64,
    typical: Typical,
    /// Positions of those drawn from, kept for its memory.
    drawn: Vec<usize>,
}

impl Balancer {
    pub(crate) fn new(settings: Settings, random: Random) -> Balancer {
        let entries = Vec::new();
        let typical = Typical::default();
        Balancer { settings, random, entries, next_id: 0, next_call: 0, typical, drawn: Vec::new() }
    }

    /// Another peer. One of weight 2 gets twice the calls of one of weight 1, other things being equal.
    pub(crate) fn add(&mut self, weight: NonZeroU32) -> Id {
        let id = Id(self.next_id);
        self.next_id += 1;
        self.entries.push(Entry {
            id,
            weight: f64::from(weight.get()),
            load: Load::default(),
            health: Health::new(),
            counts: Counts::default(),
        });
        id
    }

    /// A peer is no more. What is under way to it ends without being counted.
    pub(crate) fn remove(&mut self, id: Id) {
        if let Some(at) = self.position(id) {
            let entry = self.entries.remove(at);
            self.typical.change(entry.load.usual(), None);
        }
    }

    pub(crate) fn set_weight(&mut self, id: Id, weight: NonZeroU32) {
        if let Some(at) = self.position(id) {
            self.entries[at].weight = f64::from(weight.get());
        }
    }

    /// Chooses a peer and counts the call as under way. `tried` had their chance with this request and come last.
    /// `None` without peers only.
    pub(crate) fn pick(&mut self, now: Instant, tried: &[Id]) -> Option<Ticket> {
        let best = self.entries.iter().map(|entry| rank(entry, now, tried)).min()?;
        self.drawn.clear();
        let with_best = self.entries.iter().enumerate().filter(|(_, entry)| rank(entry, now, tried) == best);
        self.drawn.extend(with_best.map(|(at, _)| at));
        let at = self.cheaper_of_two(now);
        let number = self.next_call;
        self.next_call += 1;
        let patience = Duration::from_secs_f64(self.assumed() * PUNISHMENT).max(LEAST_PATIENCE);
        let entry = &mut self.entries[at];
        entry.load.begin(number, now);
        let is_trial = entry.health.begin(number);
        entry.counts.requests += 1;
        entry.counts.retries += u64::from(!tried.is_empty());
        let patience = is_trial.then_some(patience);
        Some(Ticket { id: entry.id, number, begun: now, sent: None, patience })
    }

    /// Two of those that may be drawn, and the cheaper of them; the first one when they cost the same.
    fn cheaper_of_two(&mut self, now: Instant) -> usize {
        let n = self.drawn.len();
        let first = self.random.below(n);
        let one = self.drawn[first];
        if n == 1 {
            return one;
        }
        let second = (first + 1 + self.random.below(n - 1)) % n;
        let other = self.drawn[second];
        let assumed = self.assumed();
        let cost = |at: usize| {
            let entry = &self.entries[at];
            entry.load.cost(now, self.settings.decay, assumed) / entry.weight
        };
        if cost(other) < cost(one) { other } else { one }
    }

    /// What a peer is taken to need that has not answered yet, in seconds.
    fn assumed(&self) -> f64 {
        self.typical.mean().unwrap_or(self.settings.first_estimate.as_secs_f64())
    }

    /// A call ended. Whether the peer went out by it, so that a check is due at another time than before.
    pub(crate) fn done(&mut self, now: Instant, ticket: &Ticket, outcome: Outcome) -> bool {
        let Some(at) = self.position(ticket.id) else { return false };
        if !self.entries[at].load.end(ticket.number) {
            return false;
        }
        let took = now.saturating_duration_since(ticket.sent.unwrap_or(ticket.begun));
        let outcome = match outcome {
            Outcome::Late if self.is_unusual(at, took) => Outcome::Failed,
            other => other,
        };
        self.learn(at, took, outcome, now);
        let entry = &mut self.entries[at];
        let health = &mut entry.health;
        match outcome {
            Outcome::Answered | Outcome::Objected => {
                if health.answered(ticket.begun, now) && outcome == Outcome::Answered {
                    // What failures made of its average is over.
                    entry.load.reset(took.as_secs_f64(), now);
                }
                false
            }
            Outcome::Refused(pause) => {
                health.hold(now + pause.min(self.settings.max_hold));
                health.answered(ticket.begun, now);
                false
            }
            Outcome::Late | Outcome::Dropped => {
                health.undecided(ticket.number);
                false
            }
            Outcome::Failed => {
                entry.counts.failures += 1;
                let deserves = health.failed(ticket.number, &self.settings);
                deserves && self.eject(at, now)
            }
            Outcome::Unreachable => {
                entry.counts.failures += 1;
                let again = health.failed(ticket.number, &self.settings);
                let goes = again || !health.is_out();
                if goes {
                    self.put_out(at, Cause::Unreachable, now);
                }
                goes
            }
        }
    }

    /// An answer of this peer, counted as such, is one.
    pub(crate) fn confirm(&mut self, id: Id) {
        if let Some(at) = self.position(id) {
            self.entries[at].health.confirmed();
        }
    }

    /// An answer of this peer, counted as such, turned out to be none. As [`Balancer::done`].
    pub(crate) fn blame(&mut self, now: Instant, id: Id) -> bool {
        let Some(at) = self.position(id) else { return false };
        self.entries[at].counts.failures += 1;
        let deserves = self.entries[at].health.blamed(&self.settings);
        self.learn(at, Duration::ZERO, Outcome::Failed, now);
        deserves && self.eject(at, now)
    }

    fn is_unusual(&self, at: usize, took: Duration) -> bool {
        took.as_secs_f64() > 2.0 * self.usual(at)
    }

    /// What answers of a peer usually take, in seconds.
    fn usual(&self, at: usize) -> f64 {
        self.entries[at].load.usual().unwrap_or(self.assumed())
    }

    /// What a call says of the latency.
    fn learn(&mut self, at: usize, took: Duration, outcome: Outcome, now: Instant) {
        let (decay, usual) = (self.settings.decay, self.usual(at));
        let load = &mut self.entries[at].load;
        let seconds = took.as_secs_f64();
        match outcome {
            Outcome::Answered => {
                let before = load.usual();
                load.took(took, now, decay);
                self.typical.change(before, load.usual());
            }
            // It does not look faster than it is by saying no quickly, nor by saying it for long.
            Outcome::Objected | Outcome::Refused(_) => load.at_least(seconds.max(usual), now, decay),
            Outcome::Late | Outcome::Dropped => load.at_least(seconds, now, decay),
            Outcome::Failed => {
                let punished = load.estimate(now, decay).unwrap_or(usual).max(usual) * PUNISHMENT;
                let punished = punished.clamp(seconds, MOST_PUNISHED.max(seconds));
                match load.usual() {
                    Some(_) => load.at_least(punished, now, decay),
                    None => load.reset(punished, now),
                }
            }
            Outcome::Unreachable => {}
        }
    }

    /// Puts a peer out for its failures, if that leaves enough others.
    fn eject(&mut self, at: usize, now: Instant) -> bool {
        let health = &self.entries[at].health;
        let n_others = self.entries.iter().filter(|entry| entry.health.is_ejected()).count();
        let n_after = n_others + usize::from(!health.is_ejected());
        let allowed = self.entries.len() as f64 * self.settings.max_share_out;
        // One that was out and fails its trial makes no more be out than before.
        let may = health.is_out() || n_after as f64 <= allowed;
        if may {
            self.put_out(at, Cause::Failures, now);
        }
        may
    }

    fn put_out(&mut self, at: usize, cause: Cause, now: Instant) {
        let jitter = self.random.unit();
        let entry = &mut self.entries[at];
        entry.counts.ejections += 1;
        entry.health.put_out(cause, now, &self.settings, jitter);
    }

    /// When the next peer is to be checked.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.entries.iter().filter_map(|entry| entry.health.due()).min()
    }

    /// Those whose time out is over. For each, the caller finds out whether a connection comes about and says so with
    /// [`Balancer::checked`].
    pub(crate) fn due(&mut self, now: Instant) -> Vec<Id> {
        self.entries.iter_mut().filter_map(|entry| entry.health.check(now).then_some(entry.id)).collect()
    }

    /// What a check found.
    pub(crate) fn checked(&mut self, now: Instant, id: Id, check: Check) {
        let Some(at) = self.position(id) else { return };
        match check {
            Check::Connected => self.entries[at].health.reachable(),
            Check::Unreachable if self.entries[at].health.is_checked() => {
                self.put_out(at, Cause::Unreachable, now);
            }
            Check::Unreachable => {}
        }
    }

    pub(crate) fn report(&self, now: Instant) -> Vec<Report> {
        let one = |entry: &Entry| Report {
            id: entry.id,
            state: state(&entry.health, now),
            estimate: entry.load.estimate(now, self.settings.decay).map(Duration::from_secs_f64),
            under_way: entry.load.n_under_way(),
            counts: entry.counts,
        };
        self.entries.iter().map(one).collect()
    }

    /// Whether a peer is there that did not have its chance yet and can be connected to, as far as is known.
    pub(crate) fn has_other(&self, tried: &[Id]) -> bool {
        self.entries.iter().any(|entry| !tried.contains(&entry.id) && !is_unreachable(&entry.health))
    }

    fn position(&self, id: Id) -> Option<usize> {
        self.entries.binary_search_by_key(&id, |entry| entry.id).ok()
    }
}

/// A failed call counts as one that took so many times the usual latency.
const PUNISHMENT: f64 = 8.0;
/// A trial may take this long in any case.
const LEAST_PATIENCE: Duration = Duration::from_millis(100);
/// More seconds than this are not made up.
const MOST_PUNISHED: f64 = 10.0;

/// What a check of a peer found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Check {
    /// A connection is there.
    Connected,
    /// None comes about.
    Unreachable,
}

/// The lower, the sooner a peer is drawn from; only those of the lowest rank that occurs are.
fn rank(entry: &Entry, now: Instant, tried: &[Id]) -> u8 {
    let is_unreachable = is_unreachable(&entry.health);
    if tried.contains(&entry.id) {
        return if is_unreachable { 6 } else { 4 };
    }
    match entry.health.stand() {
        // It is known to be reachable, and nobody else finds out whether it is well. What failed once is no trial.
        Stand::Trial { call: None, .. } if tried.is_empty() && !entry.health.is_held(now) => 0,
        Stand::In if !entry.health.is_held(now) => 1,
        Stand::In => 2,
        _ if !is_unreachable => 3,
        _ => 5,
    }
}

fn is_unreachable(health: &Health) -> bool {
    match health.stand() {
        Stand::Out { cause, .. } | Stand::Checked { cause, .. } => cause == Cause::Unreachable,
        Stand::In | Stand::Trial { .. } => false,
    }
}

fn state(health: &Health, now: Instant) -> PeerState {
    match health.stand() {
        Stand::In if health.is_held(now) => PeerState::Held,
        Stand::In => PeerState::Used,
        Stand::Trial { .. } => PeerState::Trial,
        Stand::Out { cause, .. } | Stand::Checked { cause, .. } => match cause {
            Cause::Failures => PeerState::Ejected,
            Cause::Unreachable => PeerState::Unreachable,
        },
    }
}

#[cfg(test)]
mod replay;
#[cfg(test)]
mod tests;
