//! Whether a peer is used: failures, ejection, checks and trials.

use std::time::{Duration, Instant};

use super::Settings;

/// Calls that a failure rate goes by.
const RATED: f64 = 32.0;
/// Calls before a failure rate says anything.
const RATED_FROM: u32 = 20;

/// Why a peer is out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// Its calls fail.
    Failures,
    /// No connection comes about.
    Unreachable,
}

/// Where a peer stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stand {
    In,
    /// Not used until then; then it is to be checked.
    Out {
        cause: Cause,
        since: Instant,
        until: Instant,
    },
    /// Somebody looks whether a connection comes about.
    Checked {
        cause: Cause,
        since: Instant,
    },
    /// One call at a time, by this number, decides.
    Trial {
        cause: Cause,
        since: Instant,
        call: Option<u64>,
    },
}

#[derive(Debug)]
pub(super) struct Health {
    stand: Stand,
    failed_in_a_row: u32,
    /// Answers in a row that were none. Each was counted as an answer first, which ends a row of failures.
    blamed_in_a_row: u32,
    failure_rate: f64,
    n_rated: u32,
    /// How often it was out without being well for long in between.
    times: u32,
    well_from: Option<Instant>,
    last_out: Duration,
    held_until: Option<Instant>,
}

impl Health {
    pub(super) fn new() -> Health {
        Health {
            stand: Stand::In,
            failed_in_a_row: 0,
            blamed_in_a_row: 0,
            failure_rate: 0.0,
            n_rated: 0,
            times: 0,
            well_from: None,
            last_out: Duration::ZERO,
            held_until: None,
        }
    }

    pub(super) fn stand(&self) -> Stand {
        self.stand
    }

    /// Whether it has asked to be left alone for now.
    pub(super) fn is_held(&self, now: Instant) -> bool {
        self.held_until.is_some_and(|until| now < until)
    }

    pub(super) fn hold(&mut self, until: Instant) {
        self.held_until = self.held_until.max(Some(until));
    }

    pub(super) fn is_out(&self) -> bool {
        self.stand != Stand::In
    }

    /// Out because of failures, whatever is tried with it now.
    pub(super) fn is_ejected(&self) -> bool {
        match self.stand {
            Stand::In => false,
            Stand::Out { cause, .. } | Stand::Checked { cause, .. } | Stand::Trial { cause, .. } => {
                cause == Cause::Failures
            }
        }
    }

    /// A call begins. Whether it is the trial.
    pub(super) fn begin(&mut self, number: u64) -> bool {
        match &mut self.stand {
            Stand::Trial { call: call @ None, .. } => {
                *call = Some(number);
                true
            }
            _ => false,
        }
    }

    /// A call that began at `begun` was answered. Whether it brought the peer back in.
    pub(super) fn answered(&mut self, begun: Instant, now: Instant) -> bool {
        self.rate(0.0);
        self.failed_in_a_row = 0;
        let since = match self.stand {
            Stand::In => {
                let is_well = self.well_from.is_some_and(|from| now >= from + 2 * self.last_out);
                if is_well {
                    self.times = 0;
                    self.well_from = None;
                }
                return false;
            }
            Stand::Out { since, .. } | Stand::Checked { since, .. } | Stand::Trial { since, .. } => since,
        };
        // Those under way when it went out say nothing new.
        let is_new = begun >= since;
        if is_new {
            self.stand = Stand::In;
            self.well_from = Some(now);
            (self.failure_rate, self.n_rated) = (0.0, 0);
        }
        is_new
    }

    /// A call failed. Whether the peer deserves to go out, or again.
    pub(super) fn failed(&mut self, number: u64, settings: &Settings) -> bool {
        self.rate(1.0);
        self.failed_in_a_row = self.failed_in_a_row.saturating_add(1);
        match self.stand {
            Stand::In => self.fails_often(settings) || self.failed_in_a_row >= settings.max_failures.get(),
            Stand::Trial { call, .. } => call == Some(number),
            Stand::Out { .. } | Stand::Checked { .. } => false,
        }
    }

    /// What was counted as an answer is none. Whether the peer deserves to go out.
    pub(super) fn blamed(&mut self, settings: &Settings) -> bool {
        self.rate(1.0);
        self.blamed_in_a_row = self.blamed_in_a_row.saturating_add(1);
        let too_many = self.blamed_in_a_row >= settings.max_failures.get();
        self.stand == Stand::In && (too_many || self.fails_often(settings))
    }

    /// What was counted as an answer is one.
    pub(super) fn confirmed(&mut self) {
        self.blamed_in_a_row = 0;
    }

    fn fails_often(&self, settings: &Settings) -> bool {
        self.n_rated >= RATED_FROM && self.failure_rate > settings.max_failure_rate
    }

    /// A call ended that says nothing; if it was the trial, another one will be.
    pub(super) fn undecided(&mut self, number: u64) {
        if let Stand::Trial { call, .. } = &mut self.stand
            && *call == Some(number)
        {
            *call = None;
        }
    }

    /// Goes out. `jitter` is from 0 to 1: peers and clients that failed together do not come back together.
    pub(super) fn put_out(&mut self, cause: Cause, now: Instant, settings: &Settings, jitter: f64) {
        let most = match cause {
            Cause::Failures => settings.max_ejection,
            Cause::Unreachable => settings.max_reconnect,
        };
        let doubled = settings.ejection.saturating_mul(1u32 << self.times.min(16)).min(most);
        let length = doubled.mul_f64(0.8 + 0.4 * jitter.clamp(0.0, 1.0));
        self.times = self.times.saturating_add(1);
        self.last_out = length;
        self.well_from = None;
        self.stand = Stand::Out { cause, since: now, until: now + length };
    }

    /// When it is to be checked.
    pub(super) fn due(&self) -> Option<Instant> {
        match self.stand {
            Stand::Out { until, .. } => Some(until),
            _ => None,
        }
    }

    /// It is being checked from now on, if it was due.
    pub(super) fn check(&mut self, now: Instant) -> bool {
        match self.stand {
            Stand::Out { cause, since, until } if until <= now => {
                self.stand = Stand::Checked { cause, since };
                true
            }
            _ => false,
        }
    }

    /// A check found a connection: one call may try.
    pub(super) fn reachable(&mut self) {
        if let Stand::Checked { cause, since } = self.stand {
            self.stand = Stand::Trial { cause, since, call: None };
        }
    }

    /// Whether a check is under way.
    pub(super) fn is_checked(&self) -> bool {
        matches!(self.stand, Stand::Checked { .. })
    }

    fn rate(&mut self, failure: f64) {
        self.failure_rate += (failure - self.failure_rate) / RATED;
        self.n_rated = self.n_rated.saturating_add(1);
    }
}
