//! Watches the threads of a run: windows end, and so does the run; what was seen becomes its summary.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::generate::{Shared, Shown};
use crate::outcome::Outcome;
use crate::process::Used;
use crate::run::{Plan, Progress, nanos};
use crate::schedule::{Arrivals, Load};
use crate::stable::{falls_behind, is_stable};
use crate::summary::{Counts, Ended, ServerUse, Summary, WindowRow, reasons};
use crate::tally::Tally;
use crate::timer::now;

/// The processor time of a thread, and the time that it was ready and had no processor.
fn thread_time(shown: &Shown) -> Option<(Duration, Duration)> {
    let thread = shown.thread.load(Ordering::Relaxed);
    let text = std::fs::read_to_string(format!("/proc/self/task/{thread}/schedstat")).ok()?;
    let mut fields = text.split_ascii_whitespace().map(|field| field.parse().ok().map(Duration::from_nanos));
    Some((fields.next()??, fields.next()??))
}

/// Which part of the run counts.
pub(crate) struct Measured {
    /// Numbers of windows, of the requests that were meant to leave in them.
    windows: std::ops::Range<u64>,
    time: Duration,
    /// What ended in these windows.
    ended: Ended,
    /// Requests on their way before and after.
    in_flight: [usize; 2],
    is_stable: Option<bool>,
    is_interrupted: bool,
}

/// Who watches the threads.
pub(crate) struct Watch<'a> {
    plan: &'a Plan,
    shared: &'a Shared,
    shown: &'a [Arc<Shown>],
    start: Instant,
    before: Option<Used>,
    /// When the last window was looked at, and what the server had used until then.
    last: (Duration, Option<Used>),
    rows: Vec<WindowRow>,
    /// As many windows as have to be alike, and the one before them.
    recent: VecDeque<WindowRow>,
    /// What ended since the warm-up.
    ended: Ended,
    /// Requests on their way when the warm-up was over.
    in_flight: usize,
    /// Processor time of the threads when the warm-up was over, and when the last window was.
    threads: [Vec<Option<(Duration, Duration)>>; 2],
}

/// Windows that are listed; a longer run lists its first ones.
const MAX_ROWS: usize = 100_000;

/// How long the watcher sleeps at most.
const LOOK: Duration = Duration::from_millis(20);

impl<'a> Watch<'a> {
    pub(crate) fn new(
        plan: &'a Plan,
        shared: &'a Shared,
        shown: &'a [Arc<Shown>],
        start: Instant,
        before: Option<Used>,
    ) -> Watch<'a> {
        Watch {
            plan,
            shared,
            shown,
            start,
            before,
            last: (Duration::ZERO, before),
            rows: Vec::new(),
            // Before the first window, nothing is on its way.
            recent: VecDeque::from([WindowRow::default()]),
            ended: Ended::default(),
            in_flight: 0,
            threads: [Vec::new(), Vec::new()],
        }
    }

    pub(crate) fn until_the_end(&mut self, tell: &mut dyn FnMut(&Progress<'_>)) -> Measured {
        let timing = self.plan.timing;
        let end = Duration::from_nanos(self.shared.until.load(Ordering::Relaxed));
        let mut boundary = Duration::ZERO;
        let mut n_windows = 0;
        loop {
            let is_warm_up = boundary < timing.warm_up;
            boundary = match is_warm_up {
                true => (boundary + timing.window).min(timing.warm_up),
                false => (boundary + timing.window).min(end),
            };
            if !is_warm_up && n_windows == 0 {
                self.threads[0] = self.shown.iter().map(|shown| thread_time(shown)).collect();
            }
            let ended_early = !self.wait_until(boundary);
            let at = if ended_early { now().saturating_duration_since(self.start) } else { boundary };
            self.window_ended(at, is_warm_up, tell);
            if ended_early {
                return self.ended_at(at);
            }
            if is_warm_up {
                continue;
            }
            n_windows += 1;
            if timing.duration.is_none() && self.is_stable() {
                self.shared.until.store(nanos(boundary), Ordering::Relaxed);
                return self.last_windows(n_windows);
            }
            if boundary >= end {
                let time = end.saturating_sub(timing.warm_up);
                return self.all_windows(time, timing.duration.is_none().then_some(false), false);
            }
        }
    }

    /// The run ended before its time: it was stopped, or a trace has no more moments.
    fn ended_at(&self, at: Duration) -> Measured {
        let is_interrupted = self.shared.stop.load(Ordering::Relaxed);
        let last = match &self.plan.load {
            Load::Open(Arrivals::Trace(moments)) => moments.last().copied().unwrap_or(at).min(at),
            _ => at,
        };
        self.shared.until.fetch_min(nanos(at), Ordering::Relaxed);
        self.all_windows(last.saturating_sub(self.plan.timing.warm_up), None, is_interrupted)
    }

    fn all_windows(&self, time: Duration, is_stable: Option<bool>, is_interrupted: bool) -> Measured {
        let after = self.recent.back().map_or(0, |row| row.in_flight);
        Measured {
            windows: 0..u64::MAX,
            time,
            ended: self.ended,
            in_flight: [self.in_flight, after],
            is_stable,
            is_interrupted,
        }
    }

    /// Those that are alike, of so many.
    fn last_windows(&self, n_windows: u64) -> Measured {
        let timing = &self.plan.timing;
        let (ended, in_flight) = self.seen_lately();
        let n = timing.n_stable as u64;
        Measured {
            windows: n_windows.saturating_sub(n)..n_windows,
            time: timing.window * u32::try_from(n).unwrap_or(u32::MAX),
            ended,
            in_flight,
            is_stable: Some(true),
            is_interrupted: false,
        }
    }

    /// What ended in the last windows, and what was on its way before and after them.
    fn seen_lately(&self) -> (Ended, [usize; 2]) {
        let mut ended = Ended::default();
        self.recent.iter().skip(1).for_each(|row| ended.add(row));
        let in_flight = |row: Option<&WindowRow>| row.map_or(0, |row| row.in_flight);
        (ended, [in_flight(self.recent.front()), in_flight(self.recent.back())])
    }

    /// Whether the moment came; else the run was stopped, or there is nothing more to send: a trace is over, or a thread has
    /// failed. At a low rate, threads may be done long before the time is.
    fn wait_until(&self, boundary: Duration) -> bool {
        let is_trace = matches!(self.plan.load, Load::Open(Arrivals::Trace(_)));
        loop {
            let left = boundary.saturating_sub(now().saturating_duration_since(self.start));
            if left.is_zero() {
                return true;
            }
            let is_over = is_trace && self.shown.iter().all(|shown| shown.is_done.load(Ordering::Acquire));
            let has_failed = self.shown.iter().any(|shown| shown.has_failed.load(Ordering::Relaxed));
            if is_over || has_failed || self.shared.stop.load(Ordering::Relaxed) {
                return false;
            }
            std::thread::park_timeout(left.min(LOOK));
        }
    }

    fn window_ended(&mut self, at: Duration, is_warm_up: bool, tell: &mut dyn FnMut(&Progress<'_>)) {
        let mut live = Tally::default();
        self.shown.iter().for_each(|shown| live.add(&shown.board().take_live()));
        // What was counted is of the time until now, which may be a little after the window's end.
        let seen = now().saturating_duration_since(self.start);
        let used = self.plan.server.and_then(|server| server.used().ok());
        let seconds = seen.saturating_sub(self.last.0).as_secs_f64();
        let cpu = used
            .zip(self.last.1)
            .map(|(used, last)| used.cpu.saturating_sub(last.cpu).as_secs_f64() / seconds);
        let millis = |quantile| live.answered.quantile(quantile).as_secs_f64() * 1e3;
        let row = WindowRow {
            at: at.as_secs_f64() - self.plan.timing.warm_up.as_secs_f64(),
            seconds,
            counts: Counts::from(live.counts),
            rows: live.n_rows,
            answer_bytes: live.n_bytes,
            p50: millis(0.5),
            p99: millis(0.99),
            in_flight: self.shown.iter().map(|shown| shown.in_flight.load(Ordering::Relaxed)).sum(),
            cpu: cpu.filter(|cpu| cpu.is_finite()),
            rss: used.map(|used| used.rss),
        };
        self.last = (seen, used);
        if is_warm_up {
            self.in_flight = row.in_flight;
        } else {
            self.ended.add(&row);
            self.threads[1] = self.shown.iter().map(|shown| thread_time(shown)).collect();
        }
        if self.recent.len() > self.plan.timing.n_stable {
            self.recent.pop_front();
        }
        self.recent.push_back(row.clone());
        if self.rows.len() < MAX_ROWS {
            self.rows.push(row);
            tell(&Progress { windows: &self.rows, is_warm_up });
        }
    }

    /// Whether the last windows are alike, and in an open loop nothing piles up: a queue that grows has windows that are alike
    /// for as long as it grows slowly beside its length.
    fn is_stable(&self) -> bool {
        let timing = &self.plan.timing;
        let last: Vec<(f64, f64)> = self
            .recent
            .iter()
            .skip(1)
            .filter(|row| row.at > 0.0)
            .map(|row| (row.answered_per_second(), row.p99))
            .collect();
        let (ended, [before, after]) = self.seen_lately();
        let is_open = matches!(self.plan.load, Load::Open(_));
        last.len() == timing.n_stable
            && is_stable(&last, timing.within)
            && !(is_open && falls_behind(before, after, ended.counts.total(), 0.0))
    }

    /// After all threads have ended.
    pub(crate) fn summary(self, measured: &Measured) -> Summary {
        let mut tally = Tally::default();
        self.shown.iter().for_each(|shown| tally.add(&shown.board().sum(measured.windows.clone())));
        let mut summary = Summary::of_tally(&tally, measured.time, &measured.ended);
        summary.load = self.plan.load.describe();
        summary.rate = self.plan.load.rate();
        summary.deadline = self.plan.deadline.map(|deadline| deadline.as_secs_f64() * 1e3);
        summary.is_stable = measured.is_stable;
        summary.is_interrupted = measured.is_interrupted;
        summary.in_flight = measured.in_flight;
        summary.falls_behind = self.falls_behind(measured, &tally);
        summary.server = self.server(measured);
        self.generator(&mut summary);
        // A request that is given up is a second late; those that found no room are not.
        let gave_up = if summary.generator.lag.max >= 1e3 { tally.of(Outcome::NotSent) } else { 0 };
        summary.invalid = reasons(&summary, matches!(self.plan.load, Load::Open(_)), gave_up);
        summary.windows = self.rows;
        summary
    }

    /// At a steady rate; a trace may end with a burst.
    fn falls_behind(&self, measured: &Measured, tally: &Tally) -> bool {
        let rate = match &self.plan.load {
            Load::Open(Arrivals::Constant { rate } | Arrivals::Poisson { rate, .. }) => *rate,
            Load::Open(Arrivals::Trace(_)) | Load::Closed { .. } => return false,
        };
        // By Little's law, with the latency of those that found little before them.
        let usual = rate * tally.answered.quantile(0.1).as_secs_f64();
        let [before, after] = measured.in_flight;
        falls_behind(before, after, measured.ended.counts.total(), usual)
    }

    fn server(&self, measured: &Measured) -> Option<ServerUse> {
        let (server, before) = (self.plan.server?, self.before?);
        let after = server.used().ok()?;
        let rows: Vec<&WindowRow> = self.rows.iter().filter(|row| row.at > 0.0).collect();
        let from = usize::try_from(measured.windows.start).unwrap_or(usize::MAX).min(rows.len());
        let rows = rows.get(from..).unwrap_or_default();
        let seconds: f64 = rows.iter().map(|row| row.seconds).sum();
        let cpu: f64 = rows.iter().filter_map(|row| Some(row.cpu? * row.seconds)).sum();
        let n_ended: u64 = rows.iter().map(|row| row.counts.sent()).sum();
        let n_ok: u64 = rows.iter().map(|row| row.counts.ok).sum();
        let each = |n: u64| if n == 0 { 0.0 } else { cpu * 1e6 / n as f64 };
        let seen = self.rows.iter().filter_map(|row| row.rss);
        Some(ServerUse {
            pid: server.pid(),
            cpus: if seconds > 0.0 { cpu / seconds } else { 0.0 },
            cpu_micros_per_request: each(n_ended),
            cpu_micros_per_ok: each(n_ok),
            rss_before: before.rss,
            rss_after: after.rss,
            rss_peak: seen.chain([before.rss, after.rss]).max().unwrap_or(0),
        })
    }

    fn generator(&self, summary: &mut Summary) {
        let seconds = self.ended.seconds;
        let [first, last] = &self.threads;
        let parts = first.iter().zip(last).filter_map(|(first, last)| {
            let (first, last) = (first.as_ref()?, last.as_ref()?);
            let part = |of: fn(&(Duration, Duration)) -> Duration| {
                of(last).saturating_sub(of(first)).as_secs_f64() / seconds
            };
            Some((part(|one| one.0), part(|one| one.1)))
        });
        let generator = &mut summary.generator;
        generator.threads = self.shown.len();
        for (busy, waited) in parts.filter(|(busy, _)| busy.is_finite()) {
            generator.busy = generator.busy.max(busy);
            generator.waited = generator.waited.max(waited);
        }
        let unfinished = self.shown.iter().map(|shown| shown.n_unfinished.load(Ordering::Relaxed));
        generator.unfinished = unfinished.sum();
    }
}
