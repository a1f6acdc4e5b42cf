//! What was found, as a person reads it in a terminal.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use salver_engine::Precision;
use salver_tune::{Aim, CandidateReport, Measured, Share, simplest};

use super::report::{Outcome, digits, memory, small, time};
use super::requests::Origin;

/// Rows of each candidate that are shown unless all are asked for.
const MAX_ROWS: usize = 3;

/// How answers agree, and what was measured.
pub(super) fn text(outcome: &Outcome<'_>, all: bool) -> String {
    let reference = outcome.reference();
    let mut out = String::new();
    line(&mut out, format_args!("{}", outcome.path));
    let processors = if outcome.n_processors == 1 { "processor" } else { "processors" };
    line(&mut out, format_args!("  {} {processors}: {}", outcome.n_processors, outcome.processor));
    let n_rows = outcome.n_rows();
    let rows = if n_rows == 1 { "row" } else { "rows" };
    line(&mut out, format_args!("  asked: {} ({n_rows} {rows})", outcome.origin));
    line(&mut out, format_args!("\nAnswers, compared with {} {}", reference.engine, reference.precision));
    out.push_str(&answers(outcome));
    line(&mut out, format_args!("\nMeasured, the most rows per second first; * is the choice"));
    out.push_str(&measured(outcome, all));
    for failure in outcome.report.failures.iter().filter(|failure| failure.sharing.is_some()) {
        let place = failure.sharing.map_or_else(String::new, |sharing| {
            format!(" with {} threads, {} lanes", sharing.threads, sharing.lanes)
        });
        let batch = failure.batch.map_or_else(String::new, |batch| format!(", batch {batch}"));
        let (engine, precision, reason) = (&failure.engine, failure.precision, &failure.reason);
        line(&mut out, format_args!("  {engine} {precision}{place}{batch}: {reason}"));
    }
    for note in outcome.report.notes.iter().map(String::as_str).chain(of_random_input(outcome)) {
        line(&mut out, format_args!("  note: {note}"));
    }
    out
}

/// What agreement on random input is worth at a reduced precision.
fn of_random_input(outcome: &Outcome<'_>) -> Option<&'static str> {
    let has = |precision: Precision| outcome.report.candidates.iter().any(|one| one.precision == precision);
    match outcome.origin {
        Origin::MadeUp if has(Precision::Int8) => Some(
            "ranges for int8 that were measured on random input mean nothing for real input; record warm-up requests, or \
             give some with --requests",
        ),
        Origin::MadeUp if has(Precision::Bf16) => Some(
            "agreement on random input says little about real input; record warm-up requests, or give some with --requests",
        ),
        _ => None,
    }
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    writeln!(out, "{text}").expect("writing to a string does not fail");
}

/// Rows of cells in columns as wide as their widest cell; the first `n_left` to the left, the others to the right, the last
/// as it is.
fn columns(rows: &[Vec<String>], n_left: usize) -> String {
    let n_columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |at: usize| rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..n_columns).map(|at| width(at).unwrap_or(0)).collect();
    let mut out = String::new();
    for row in rows {
        let mut text = String::new();
        for (at, cell) in row.iter().enumerate() {
            let pad = " ".repeat(widths[at].saturating_sub(cell.chars().count()));
            let gap = if at == 0 { "" } else { "  " };
            let padded = if at < n_left { format!("{gap}{cell}{pad}") } else { format!("{gap}{pad}{cell}") };
            text.push_str(&padded);
        }
        line(&mut out, format_args!("{}", text.trim_end()));
    }
    out
}

fn answers(outcome: &Outcome<'_>) -> String {
    let head = ["  engine", "precision", "rows", "largest difference", "of the scale", "top-1", "equal"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    let mut verdicts = vec![String::new()];
    for (at, one) in outcome.report.candidates.iter().enumerate() {
        let share =
            |share: Option<Share>| share.map_or("-".to_owned(), |share| format!("{}/{}", share.n, share.of));
        let mut cells = vec![format!("  {}", one.engine), one.precision.to_string()];
        match &one.agreement {
            Some(agreement) => cells.extend([
                agreement.n_rows.to_string(),
                small(agreement.max_absolute()),
                small(agreement.max_relative()),
                share(agreement.top_1()),
                share(agreement.equal()),
            ]),
            None => cells.extend(std::iter::repeat_n("-".to_owned(), 5)),
        }
        rows.push(cells);
        verdicts.push(verdict(outcome, at, one));
    }
    let table = columns(&rows, 2);
    let width = table.lines().map(|line| line.chars().count()).max().unwrap_or(0);
    let mut out = String::new();
    for (row, verdict) in table.lines().zip(verdicts) {
        line(&mut out, format_args!("{}", format!("{row:width$}  {verdict}").trim_end()));
    }
    out
}

fn verdict(outcome: &Outcome<'_>, at: usize, one: &CandidateReport) -> String {
    if let Some(failure) = &one.failure {
        return format!("does not run it: {failure}");
    }
    if at == outcome.report.reference {
        return "the reference".to_owned();
    }
    match (&one.refusal, one.times_slower) {
        (Some(refusal), _) => format!("refused: {refusal}"),
        (None, Some(times)) => {
            format!("agrees; {}x slower than the best, not measured further", digits(times))
        }
        (None, None) => "agrees".to_owned(),
    }
}

fn measured(outcome: &Outcome<'_>, all: bool) -> String {
    let choice = outcome.report.choice;
    let mut order: Vec<usize> = (0..outcome.report.measured.len()).collect();
    let row_of = |at: usize| &outcome.report.measured[at];
    order.sort_by(|&a, &b| {
        let (a, b) = (row_of(a), row_of(b));
        b.rows_per_second.total_cmp(&a.rows_per_second).then_with(|| simplest(a, b))
    });
    let mut shown: BTreeMap<usize, usize> = BTreeMap::new();
    let n_all = order.len();
    order.retain(|&at| {
        let n = shown.entry(row_of(at).candidate).or_default();
        *n += 1;
        all || *n <= MAX_ROWS || Some(at) == choice
    });
    let head = [
        "  engine",
        "precision",
        "threads",
        "lanes",
        "batch",
        "one caller",
        "p50",
        "p99",
        "rows/s",
        "CPU/row",
        "memory",
        "rounds",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(order.iter().map(|&at| row(row_of(at), Some(at) == choice)));
    let mut out = columns(&rows, 2);
    if order.len() < n_all {
        line(&mut out, format_args!("  {} more with --all", n_all - order.len()));
    }
    out
}

fn row(one: &Measured, is_choice: bool) -> Vec<String> {
    let mark = if is_choice { '*' } else { ' ' };
    vec![
        format!("{mark} {}", one.engine),
        one.precision.to_string(),
        one.sharing.threads.to_string(),
        one.sharing.lanes.to_string(),
        one.batch.to_string(),
        time(one.one_caller),
        time(one.p50),
        time(one.p99),
        digits(one.rows_per_second),
        time(one.cpu_per_row),
        memory(one.footprint),
        one.n_rounds.to_string(),
    ]
}

/// The choice as a person says it.
pub(super) fn settings(one: &Measured) -> String {
    let plural = |n: usize, one: &str, many: &str| format!("{n} {}", if n == 1 { one } else { many });
    let batch = match one.batch.get() {
        1 => "no batching".to_owned(),
        n => format!("batches of up to {n} rows"),
    };
    format!(
        "{} {}, {}, {}, {batch}",
        one.engine,
        one.precision,
        plural(one.sharing.threads.get(), "thread", "threads"),
        plural(one.sharing.lanes.get(), "lane", "lanes"),
    )
}

/// The choice, what it is worth, and where it was written.
pub(super) fn conclusion(outcome: &Outcome<'_>, written: Option<&Path>, dry_run: bool) -> String {
    let mut out = String::from("\n");
    let Some(choice) = outcome.choice() else {
        line(&mut out, format_args!("No choice: no candidate agrees with the reference."));
        return out;
    };
    let aim = match outcome.goal.aim {
        Aim::Latency => "latency",
        Aim::Throughput => "throughput",
        Aim::Balanced => "a balance of latency and throughput",
    };
    line(&mut out, format_args!("Choice for {aim}: {}", settings(choice)));
    let mut figures = vec![
        format!("{} for one caller", time(choice.one_caller)),
        format!("{} rows/s", digits(choice.rows_per_second)),
    ];
    if choice.footprint.is_some() {
        figures.push(format!("{} of memory", memory(choice.footprint)));
    }
    line(&mut out, format_args!("  {}", figures.join(", ")));
    if let Some(relation) = outcome.relation() {
        let reference = &outcome.reference().engine;
        line(
            &mut out,
            format_args!(
                "  {} for one caller and {} in throughput, compared with the best of {reference} f32",
                faster(relation.latency),
                faster(relation.throughput)
            ),
        );
    }
    let agreement = &choice.agreement;
    let classes = agreement
        .top_1()
        .map_or_else(String::new, |share| format!(", the same class in {} of {} rows", share.n, share.of));
    line(
        &mut out,
        format_args!(
            "  answers differ by {} at most, {} of the scale{classes}",
            small(agreement.max_absolute()),
            small(agreement.max_relative())
        ),
    );
    match written {
        Some(path) => {
            line(&mut out, format_args!("Written to {}; salver serve uses it.", path.display()));
        }
        None if dry_run => line(&mut out, format_args!("Nothing was written (--dry-run).")),
        None => {}
    }
    out
}

fn faster(times: f64) -> String {
    if times >= 1.0 {
        format!("{}x faster", digits(times))
    } else {
        format!("{}x slower", digits(1.0 / times))
    }
}
