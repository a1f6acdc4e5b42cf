//! `salver bench`: asks a server at a rate and says what came back.

mod flags;
mod html;
mod live;
mod plots;
mod record;
mod report;
mod requests;
mod text;

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use salver_load::{Arrivals, Load, Plan, Search, Step, Stop, Summary, Timing, read_trace, run_with};

pub(crate) use self::flags::BenchArgs;
use self::flags::{FailOn, Spread};
use self::live::Live;
use self::report::{Found, Report, Run};

/// What the program ends with when it measured and something did not hold.
const NOT_HELD: u8 = 3;

/// Requests on their way where nothing is said of the load.
const CONCURRENCY: usize = 8;

/// Tries of a search.
const MAX_TRIES: usize = 40;

/// The most windows of a try of a search.
const TRY_WINDOWS: u32 = 8;

/// Windows of the second look at what a search found.
const VERIFY_WINDOWS: u32 = 10;

/// The lowest rate that a search tries, per second.
const LOWEST_RATE: f64 = 0.5;

/// Measures, prints, and tells by the exit code whether what was asked for held.
pub(crate) fn run(args: &BenchArgs) -> ExitCode {
    match measure(args) {
        Ok(report) => {
            say(&report.text());
            if report.broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(NOT_HELD) }
        }
        Err(error) => {
            crate::print(&mut std::io::stderr(), &text::printable(&format!("salver: {error:#}")));
            ExitCode::FAILURE
        }
    }
}

/// A reader that has gone is no reason to fail.
fn say(text: &str) {
    drop(write!(std::io::stdout(), "{text}"));
}

fn measure(args: &BenchArgs) -> anyhow::Result<Report> {
    let asked = requests::prepare(args)?;
    let stop = Stop::default();
    end_on_signals(&stop)?;
    let mut plan = Plan::new(args.target.clone(), asked.calls.clone(), load(args)?);
    plan.timing = timing(args, &plan.load);
    plan.deadline = args.deadline;
    plan.timeout = args.timeout;
    plan.headers.clone_from(&args.headers);
    plan.threads = args.threads;
    plan.connections = args.connections;
    plan.max_in_flight = args.max_in_flight;
    plan.check.clone_from(&asked.check);
    plan.server = requests::server(args)?;
    let mut live = Live::start();
    for note in &asked.notes {
        live.note(note);
    }
    let mut bench = Bench { args, plan, stop, live, runs: Vec::new() };
    let found = bench.all()?;
    let runs = bench.runs;
    let mut report = Report::new(args, &asked, runs, found);
    report.broken = broken(args, &report);
    if let Some(path) = &args.json {
        std::fs::write(path, record::json(&report))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    if let Some(path) = &args.html {
        std::fs::write(path, html::page(&report))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(report)
}

/// The first Ctrl-C ends the run with a report, the second the program.
fn end_on_signals(stop: &Stop) -> anyhow::Result<()> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    use signal_hook::flag;
    for signal in [SIGINT, SIGTERM] {
        flag::register_conditional_shutdown(signal, 128 + signal, stop.flag())?;
        flag::register(signal, stop.flag())?;
    }
    Ok(())
}

fn load(args: &BenchArgs) -> anyhow::Result<Load> {
    if let Some(path) = &args.trace {
        let text = String::from_utf8(requests::read(path)?)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let moments = read_trace(&text, args.trace_speed).with_context(|| path.display().to_string())?;
        return Ok(Load::Open(Arrivals::Trace(moments)));
    }
    Ok(match (args.rate, args.rates.first()) {
        (Some(rate), _) | (None, Some(&rate)) => open(args, rate),
        (None, None) => Load::Closed { in_flight: args.concurrency.unwrap_or(CONCURRENCY) },
    })
}

fn open(args: &BenchArgs, rate: f64) -> Load {
    Load::Open(match args.arrivals {
        Spread::Poisson => Arrivals::Poisson { rate, seed: args.seed },
        Spread::Constant => Arrivals::Constant { rate },
    })
}

fn timing(args: &BenchArgs, load: &Load) -> Timing {
    let trace = match load {
        Load::Open(Arrivals::Trace(moments)) => moments.last().copied(),
        _ => None,
    };
    let default = if trace.is_some() { Duration::ZERO } else { Duration::from_secs(2) };
    let warm_up = args.warm_up.unwrap_or(default);
    // The last moment of a trace belongs to it.
    let of_trace = trace.map(|last| last.saturating_sub(warm_up) + Duration::from_millis(1));
    Timing {
        warm_up,
        window: args.window,
        duration: args.duration.or(of_trace),
        max_duration: args.max_duration,
        n_stable: args.stable_windows,
        within: args.stable_within,
    }
}

/// The time of a second look: longer than that of a try.
fn second_look(timing: Timing) -> Timing {
    match timing.duration {
        Some(duration) => timing.fixed(duration.saturating_mul(2)),
        None => timing.fixed(timing.window * VERIFY_WINDOWS),
    }
}

/// All runs of one command.
struct Bench<'a> {
    args: &'a BenchArgs,
    plan: Plan,
    stop: Stop,
    live: Live,
    runs: Vec<Run>,
}

impl Bench<'_> {
    /// Does what was asked for, and says what came of a search.
    fn all(&mut self) -> anyhow::Result<Option<Found>> {
        if self.args.find_rate {
            return self.search().map(Some);
        }
        if self.args.rates.is_empty() {
            let plan = self.plan.clone();
            self.one(&plan, "")?;
            return Ok(None);
        }
        for rate in &self.args.rates {
            let plan = Plan { load: open(self.args, *rate), ..self.plan.clone() };
            self.one(&plan, "")?;
            if self.stop.is_stopped() {
                break;
            }
        }
        Ok(None)
    }

    fn one(&mut self, plan: &Plan, role: &'static str) -> anyhow::Result<&Summary> {
        let live = &mut self.live;
        live.begin(plan, role);
        let summary = run_with(plan, &self.stop, &mut |progress| live.window(progress));
        live.end();
        let misses = match (&summary, &self.args.goal) {
            (Ok(summary), Some(goal)) => goal.misses(summary),
            _ => Vec::new(),
        };
        self.runs.push(Run { role, summary: summary?, misses });
        let run = self.runs.last().context("a run was just put there")?;
        if !role.is_empty() {
            self.live.note(&text::trial(run));
        }
        Ok(&run.summary)
    }

    fn search(&mut self) -> anyhow::Result<Found> {
        let first = match self.args.start_rate {
            Some(rate) => Some(rate),
            None => self.first_guess()?,
        };
        let Some(first) = first else { return Ok(Found::Stopped(None)) };
        let mut search = Search::new(first, self.args.precision, LOWEST_RATE, MAX_TRIES);
        loop {
            let (rate, role) = match search.next() {
                Step::Done(found) => return Ok(Found::new(found)),
                Step::Try(rate) => (rate, "try"),
                Step::Verify(rate) => (rate, "second look"),
            };
            let mut plan = Plan { load: open(self.args, rate), ..self.plan.clone() };
            plan.timing.max_duration = plan.timing.max_duration.min(plan.timing.window * TRY_WINDOWS);
            if role != "try" {
                plan.timing = second_look(plan.timing);
            }
            let is_whole = !self.one(&plan, role)?.is_interrupted;
            let is_met = self.runs.last().is_some_and(|run| run.misses.is_empty());
            // What was looked at to its end counts, even if it was stopped a moment later. If it missed the goal that may be
            // because of the stop.
            if is_whole && (is_met || !self.stop.is_stopped()) {
                search.tell(is_met);
            }
            if self.stop.is_stopped() && !matches!(search.next(), Step::Done(_)) {
                return Ok(Found::Stopped(search.highest_so_far()));
            }
        }
    }

    /// Half of what one caller after the other gets through; `None` when that was stopped.
    fn first_guess(&mut self) -> anyhow::Result<Option<f64>> {
        let timing =
            Timing { warm_up: self.plan.timing.warm_up, ..self.plan.timing }.fixed(self.plan.timing.window);
        let plan = Plan { load: Load::Closed { in_flight: 1 }, timing, ..self.plan.clone() };
        let answered = self.one(&plan, "first look")?.answered;
        Ok((!self.stop.is_stopped()).then(|| (answered / 2.0).max(LOWEST_RATE)))
    }
}

/// What was to hold and did not.
fn broken(args: &BenchArgs, report: &Report) -> Vec<String> {
    let mut broken = Vec::new();
    if args.find_rate {
        match report.found {
            Some(Found::Nothing) => broken.push("no rate was found that meets the goal".to_owned()),
            Some(Found::Stopped(_)) => broken.push("the search was stopped before its end".to_owned()),
            Some(Found::Rate(_)) | None => {}
        }
    } else if args.goal.is_some() {
        for run in &report.runs {
            broken.extend(run.misses.iter().map(|miss| format!("{}: {miss}", run.summary.load)));
        }
    }
    for run in report.judged() {
        let counts = run.summary.counts;
        let happened = |what: &FailOn| match what {
            FailOn::Errors => (counts.failed + counts.wrong > 0).then(|| {
                format!("{} requests failed, {} were answered wrongly", counts.failed, counts.wrong)
            }),
            FailOn::Refused => (counts.refused + counts.expired > 0)
                .then(|| format!("{} requests were refused", counts.refused + counts.expired)),
            FailOn::Late => (counts.late + counts.overdue > 0).then(|| {
                format!(
                    "{} answers were late, {} requests could not leave in time",
                    counts.late, counts.overdue
                )
            }),
            FailOn::Invalid => (!run.summary.invalid.is_empty()).then(|| "the run is not valid".to_owned()),
        };
        broken.extend(
            args.fail_on.iter().filter_map(happened).map(|what| format!("{}: {what}", run.summary.load)),
        );
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_look_is_longer_than_a_try() {
        let timing = Timing::default();
        let tried = timing.window * TRY_WINDOWS;
        assert!(second_look(timing).duration.is_some_and(|time| time > tried));
        let fixed = timing.fixed(Duration::from_secs(30));
        assert_eq!(second_look(fixed).duration, Some(Duration::from_secs(60)));
    }
}
