//! All runs of one command, and what is told of them in the end.

use std::fmt;

use salver_load::{Summary, Target};
use salver_runtime::{Cpu, Machine};

use super::flags::BenchArgs;
use super::requests::Asked;
use super::text::digits;

/// One run.
pub(super) struct Run {
    /// What it was for; empty for a run by itself.
    pub(super) role: &'static str,
    pub(super) summary: Summary,
    /// Why it does not meet the goal, if there is one.
    pub(super) misses: Vec<String>,
}

/// What a search came to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Found {
    /// The highest rate that meets the goal.
    Rate(f64),
    /// No rate meets it.
    Nothing,
    /// It was stopped; the highest rate so far that met the goal, without a second look.
    Stopped(Option<f64>),
}

impl Found {
    pub(super) fn new(found: Option<f64>) -> Found {
        found.map_or(Found::Nothing, Found::Rate)
    }

    /// The rate that was found for good.
    pub(super) fn rate(self) -> Option<f64> {
        match self {
            Found::Rate(rate) => Some(rate),
            Found::Nothing | Found::Stopped(_) => None,
        }
    }

    /// The rate that a search had come to when it was stopped.
    pub(super) fn so_far(self) -> Option<f64> {
        match self {
            Found::Stopped(rate) => rate,
            Found::Rate(_) | Found::Nothing => None,
        }
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Found::Rate(rate) => write!(f, "highest rate that meets the goal: {} requests/s", digits(*rate)),
            Found::Nothing => f.write_str("no rate was found that meets the goal"),
            Found::Stopped(Some(rate)) => {
                write!(
                    f,
                    "stopped; the highest so far that met it: {}/s (not looked at twice)",
                    digits(*rate)
                )
            }
            Found::Stopped(None) => f.write_str("stopped before a rate met the goal"),
        }
    }
}

/// Everything that is told.
pub(super) struct Report {
    pub(super) target: Target,
    pub(super) protocol: &'static str,
    pub(super) model: String,
    pub(super) version: Option<u64>,
    /// What was sent, in words.
    pub(super) what: String,
    pub(super) goal: Option<salver_load::Goal>,
    pub(super) runs: Vec<Run>,
    /// What came of a search, if there was one.
    pub(super) found: Option<Found>,
    /// What was to hold and did not.
    pub(super) broken: Vec<String>,
    /// Name and value.
    pub(super) settings: Vec<(&'static str, String)>,
    /// Name and value.
    pub(super) machine: Vec<(&'static str, String)>,
}

impl Report {
    pub(super) fn new(args: &BenchArgs, asked: &Asked, runs: Vec<Run>, found: Option<Found>) -> Report {
        Report {
            target: args.target.clone(),
            protocol: args.protocol().name(),
            model: args.model.clone(),
            version: args.model_version.and_then(|version| u64::try_from(version).ok()).or(asked.version),
            what: asked.what.clone(),
            goal: args.goal.clone(),
            runs,
            found,
            broken: Vec::new(),
            settings: settings(args, asked),
            machine: machine(),
        }
    }

    /// The model and where it was asked.
    pub(super) fn subject(&self) -> String {
        let version = self.version.map(|version| format!(" version {version}")).unwrap_or_default();
        format!("{}{version} at {} over {}", self.model, self.target, self.protocol)
    }

    /// The runs whose figures are asked for: of a search, the one that was found.
    pub(super) fn judged(&self) -> Vec<&Run> {
        match self.found {
            None => self.runs.iter().collect(),
            Some(_) => self.winner().into_iter().collect(),
        }
    }

    /// The run of what a search found.
    pub(super) fn winner(&self) -> Option<&Run> {
        self.found.and_then(Found::rate).and_then(|_| self.runs.last())
    }

    /// Runs at rates that were set, by rate, for a table and plots of them.
    pub(super) fn sweep(&self) -> Vec<&Run> {
        let mut runs: Vec<&Run> = self.runs.iter().filter(|run| run.summary.rate.is_some()).collect();
        let rate = |run: &&Run| run.summary.rate.unwrap_or(0.0);
        runs.sort_by(|one, other| rate(one).total_cmp(&rate(other)));
        if runs.len() > 1 { runs } else { Vec::new() }
    }
}

fn settings(args: &BenchArgs, asked: &Asked) -> Vec<(&'static str, String)> {
    let time = |time: std::time::Duration| format!("{time:?}");
    let mut all = vec![
        ("server", args.target.to_string()),
        ("protocol", args.protocol().name().to_owned()),
        ("model", args.model.clone()),
        ("requests", asked.what.clone()),
        ("deadline", args.deadline.map_or_else(|| "none".to_owned(), time)),
        ("window", time(args.window)),
        ("threads of the generator", args.threads.to_string()),
        ("connections for gRPC", args.connections.to_string()),
        ("requests in flight at most", args.max_in_flight.to_string()),
        ("seed", args.seed.to_string()),
    ];
    match args.duration {
        Some(duration) => all.push(("duration", time(duration))),
        None => all.push((
            "duration",
            format!(
                "until {} windows are within {} %, {:?} at most",
                args.stable_windows,
                args.stable_within * 100.0,
                args.max_duration
            ),
        )),
    }
    if let Some(goal) = &args.goal {
        all.push(("goal", goal.to_string()));
    }
    for (name, value) in &args.headers {
        all.push(("header", format!("{name}: {value}")));
    }
    all
}

fn machine() -> Vec<(&'static str, String)> {
    let (cpu, machine) = (Cpu::here(), Machine::here());
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let gigabytes = machine.memory.map(|bytes| format!("{:.1} GB", bytes as f64 / 1e9));
    vec![
        ("processor", format!("{} x {}", machine.n_usable, cpu.model)),
        ("memory", gigabytes.unwrap_or_default()),
        ("kernel", kernel.trim().to_owned()),
        ("salver", env!("CARGO_PKG_VERSION").to_owned()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_search_came_to_is_told() {
        for (found, rate, so_far, text) in [
            (Found::new(Some(20.0)), Some(20.0), None, "highest rate that meets the goal: 20.0 requests/s"),
            (Found::new(None), None, None, "no rate was found that meets the goal"),
            (
                Found::Stopped(Some(20.0)),
                None,
                Some(20.0),
                "stopped; the highest so far that met it: 20.0/s (not looked at twice)",
            ),
            (Found::Stopped(None), None, None, "stopped before a rate met the goal"),
        ] {
            assert_eq!((found.rate(), found.so_far(), found.to_string().as_str()), (rate, so_far, text));
        }
    }
}
