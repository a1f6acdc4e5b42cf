//! What was found, in the terms that tables, plots and files share.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use salver_tune::{Agreement, CandidateReport, Footprint, Goal, Measured, Report, best_of};
use serde::Serialize;

use super::requests::Origin;

/// A measurement and what it was made of.
#[derive(Debug)]
pub(super) struct Outcome<'a> {
    pub(super) path: String,
    pub(super) processor: String,
    pub(super) n_processors: usize,
    /// The native library of the choice, with its version.
    pub(super) library: Option<String>,
    pub(super) goal: &'a Goal,
    pub(super) origin: Origin,
    /// What was asked, if all requests were for one signature.
    pub(super) signature: Option<Arc<str>>,
    pub(super) report: &'a Report,
}

/// How the choice stands to the best of the reference.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Relation {
    /// How many times shorter the time for one caller is.
    pub(super) latency: f64,
    /// How many times more rows per second there are.
    pub(super) throughput: f64,
}

impl Outcome<'_> {
    pub(super) fn choice(&self) -> Option<&Measured> {
        self.report.measured.get(self.report.choice?)
    }

    pub(super) fn reference(&self) -> &CandidateReport {
        &self.report.candidates[self.report.reference]
    }

    /// The best that the reference does by the same goal.
    pub(super) fn best_of_reference(&self) -> Option<&Measured> {
        let is_reference = |one: &Measured| one.candidate == self.report.reference;
        self.report.measured.get(best_of(&self.report.measured, self.goal, is_reference)?)
    }

    /// `None` when the choice is the reference.
    pub(super) fn relation(&self) -> Option<Relation> {
        let (choice, reference) = (self.choice()?, self.best_of_reference()?);
        (choice.candidate != reference.candidate).then(|| Relation {
            latency: reference.one_caller.as_secs_f64() / choice.one_caller.as_secs_f64().max(1e-9),
            throughput: choice.rows_per_second / reference.rows_per_second.max(1e-9),
        })
    }

    /// Rows that answers were compared on.
    pub(super) fn n_rows(&self) -> usize {
        self.reference().agreement.as_ref().map_or(0, |agreement| agreement.n_rows)
    }
}

/// Three digits and a unit: `41.2 ms`.
pub(super) fn time(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    match seconds {
        _ if seconds >= 1.0 => format!("{} s", digits(seconds)),
        _ if seconds >= 1e-3 => format!("{} ms", digits(seconds * 1e3)),
        _ => format!("{} us", digits(seconds * 1e6)),
    }
}

/// Three digits, or all of those before the point.
pub(super) fn digits(number: f64) -> String {
    match number.abs() {
        size if size >= 99.95 => {
            let whole = format!("{number:.0}");
            let groups: Vec<&str> = whole
                .as_bytes()
                .rchunks(3)
                .rev()
                .filter_map(|group| std::str::from_utf8(group).ok())
                .collect();
            groups.join(",")
        }
        size if size >= 9.995 => format!("{number:.1}"),
        size if size >= 0.9995 || size == 0.0 => format!("{number:.2}"),
        _ => format!("{number:.3}"),
    }
}

/// A difference: `0`, `1.2e-6`, `inf`.
pub(super) fn small(number: f64) -> String {
    if number == 0.0 { "0".to_owned() } else { format!("{number:.1e}") }
}

/// Bytes: `294 MB`.
pub(super) fn memory(footprint: Option<Footprint>) -> String {
    footprint
        .map_or_else(|| "-".to_owned(), |footprint| format!("{} MB", footprint.total().div_ceil(1_000_000)))
}

/// The measurement as `--json` prints it. Times are in milliseconds, memory in bytes.
#[derive(Debug, Serialize)]
struct Json<'a> {
    path: &'a str,
    processor: &'a str,
    processors: usize,
    requests: String,
    reference: String,
    candidates: Vec<CandidateJson<'a>>,
    measured: Vec<Row<'a>>,
    choice: Option<Row<'a>>,
    times_faster_than_reference: Option<Relation>,
    failures: Vec<FailureJson<'a>>,
    notes: &'a [String],
    written: Option<String>,
}

#[derive(Debug, Serialize)]
struct CandidateJson<'a> {
    engine: &'a str,
    precision: &'static str,
    agreement: Option<AgreementJson>,
    one_caller_ms: Option<f64>,
    failure: Option<&'a str>,
    refusal: Option<&'a str>,
    times_slower: Option<f64>,
}

#[derive(Debug, Serialize)]
struct AgreementJson {
    rows: usize,
    /// A difference that is not finite has no number in JSON.
    max_absolute: Option<f64>,
    max_relative: Option<f64>,
    top_1: Option<f64>,
    equal: Option<f64>,
    outputs: Vec<OutputJson>,
}

#[derive(Debug, Serialize)]
struct OutputJson {
    signature: String,
    output: String,
    max_absolute: Option<f64>,
    max_relative: Option<f64>,
    top_1: Option<f64>,
    equal: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Row<'a> {
    engine: &'a str,
    precision: &'static str,
    threads: usize,
    lanes: usize,
    batch: usize,
    one_caller_ms: f64,
    p50_ms: f64,
    p99_ms: f64,
    rows_per_second: f64,
    cpu_ms_per_row: f64,
    memory_bytes: Option<u64>,
    load_ms: f64,
    runs: usize,
    rounds: usize,
}

#[derive(Debug, Serialize)]
struct FailureJson<'a> {
    engine: &'a str,
    precision: &'static str,
    threads: Option<usize>,
    lanes: Option<usize>,
    batch: Option<usize>,
    reason: &'a str,
}

/// All of it as JSON.
///
/// # Errors
/// None that the types allow.
pub(super) fn json(outcome: &Outcome<'_>, written: Option<&Path>) -> anyhow::Result<String> {
    let report = outcome.report;
    let all = Json {
        path: &outcome.path,
        processor: &outcome.processor,
        processors: outcome.n_processors,
        requests: outcome.origin.to_string(),
        reference: outcome.reference().engine.to_string(),
        candidates: report.candidates.iter().map(candidate).collect(),
        measured: report.measured.iter().map(row).collect(),
        choice: outcome.choice().map(row),
        times_faster_than_reference: outcome.relation(),
        failures: report.failures.iter().map(failure).collect(),
        notes: &report.notes,
        written: written.map(|path| path.display().to_string()),
    };
    Ok(serde_json::to_string_pretty(&all)?)
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn finite(number: f64) -> Option<f64> {
    Some(number).filter(|number| number.is_finite())
}

fn candidate(one: &CandidateReport) -> CandidateJson<'_> {
    CandidateJson {
        engine: &one.engine,
        precision: one.precision.name(),
        agreement: one.agreement.as_deref().map(agreement),
        one_caller_ms: one.one_caller.map(millis),
        failure: one.failure.as_deref(),
        refusal: one.refusal.as_deref(),
        times_slower: one.times_slower,
    }
}

fn agreement(all: &Agreement) -> AgreementJson {
    let output = |one: &salver_tune::OutputAgreement| OutputJson {
        signature: one.signature.to_string(),
        output: one.output.to_string(),
        max_absolute: finite(one.max_absolute),
        max_relative: finite(one.max_relative()),
        top_1: one.top_1.map(salver_tune::Share::fraction),
        equal: one.equal.map(salver_tune::Share::fraction),
    };
    AgreementJson {
        rows: all.n_rows,
        max_absolute: finite(all.max_absolute()),
        max_relative: finite(all.max_relative()),
        top_1: all.top_1().map(salver_tune::Share::fraction),
        equal: all.equal().map(salver_tune::Share::fraction),
        outputs: all.outputs.iter().map(output).collect(),
    }
}

fn row(one: &Measured) -> Row<'_> {
    Row {
        engine: &one.engine,
        precision: one.precision.name(),
        threads: one.sharing.threads.get(),
        lanes: one.sharing.lanes.get(),
        batch: one.batch.get(),
        one_caller_ms: millis(one.one_caller),
        p50_ms: millis(one.p50),
        p99_ms: millis(one.p99),
        rows_per_second: one.rows_per_second,
        cpu_ms_per_row: millis(one.cpu_per_row),
        memory_bytes: one.footprint.map(Footprint::total),
        load_ms: millis(one.load_time),
        runs: one.n_runs,
        rounds: one.n_rounds,
    }
}

fn failure(one: &salver_tune::Failure) -> FailureJson<'_> {
    FailureJson {
        engine: &one.engine,
        precision: one.precision.name(),
        threads: one.sharing.map(|sharing| sharing.threads.get()),
        lanes: one.sharing.map(|sharing| sharing.lanes.get()),
        batch: one.batch.map(std::num::NonZeroUsize::get),
        reason: &one.reason,
    }
}
