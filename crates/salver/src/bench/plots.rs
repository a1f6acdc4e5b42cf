//! The pictures of a report.

use salver_load::{Summary, WindowRow};
use salver_plot::{Axis, Chart, Reference, Series};

use super::report::{Found, Report, Run};

const HEIGHT: u32 = 380;
const WIDTH: u32 = 840;

/// Values that differ by more than this factor are shown by their logarithm.
const WIDE: f64 = 30.0;

/// Windows that are drawn; of more, every second, third and so on.
const MAX_POINTS: usize = 1_500;

/// Lines of several runs in one picture.
const MAX_LINES: usize = 8;

/// The axis of latencies that fits these.
fn latency_axis(values: impl Iterator<Item = f64>) -> Axis {
    let (low, high) = values
        .filter(|value| *value > 0.0)
        .fold((f64::INFINITY, 0.0f64), |(low, high), value| (low.min(value), high.max(value)));
    if high / low > WIDE { Axis::log("latency, ms") } else { Axis::linear("latency, ms") }
}

/// Latency by the part of the answers that is not above it, stretched towards the slowest.
pub(super) fn curves(runs: &[&Run], deadline: Option<f64>) -> Option<String> {
    let shown: Vec<&&Run> = runs.iter().filter(|run| !run.summary.curve.is_empty()).take(MAX_LINES).collect();
    let last = shown
        .iter()
        .flat_map(|run| run.summary.curve.last())
        .map(|point| stretched(point.0))
        .fold(1.0, f64::max);
    if shown.is_empty() {
        return None;
    }
    let values = shown.iter().flat_map(|run| run.summary.curve.iter().map(|point| point.1));
    let marks = [
        (0.0, "0"),
        (0.5, "50"),
        (0.9, "90"),
        (0.99, "99"),
        (0.999, "99.9"),
        (0.9999, "99.99"),
        (0.99999, "99.999"),
    ];
    let marks = marks.map(|(part, text)| (stretched(part), format!("{text} %"))).to_vec();
    let x = Axis::log("part of the answers").from(1.0).to(last.max(20.0)).marks(marks);
    let mut chart =
        Chart::new("Latency of so large a part of the answers", x, latency_axis(values)).size(WIDTH, HEIGHT);
    for run in shown {
        let points = run.summary.curve.iter().map(|(part, millis)| (stretched(*part), *millis)).collect();
        chart = chart.series(Series::new(run.summary.load.clone(), points));
    }
    if let Some(deadline) = deadline {
        chart = chart.reference(Reference::horizontal(deadline, "deadline"));
    }
    Some(chart.svg())
}

fn stretched(part: f64) -> f64 {
    1.0 / (1.0 - part)
}

/// A class of outcomes: name, colour, count.
type Class = (&'static str, usize, fn(&WindowRow) -> u64);

fn shown(windows: &[WindowRow]) -> Vec<&WindowRow> {
    windows.iter().step_by(windows.len().div_ceil(MAX_POINTS).max(1)).collect()
}

/// Latency, outcomes and the server's use over time.
pub(super) fn over_time(summary: &Summary) -> Vec<String> {
    let windows = shown(&summary.windows);
    if windows.len() < 2 {
        return Vec::new();
    }
    let line = |name: &str, of: &dyn Fn(&WindowRow) -> f64| {
        Series::new(name, windows.iter().map(|row| (row.at, of(row))).collect())
    };
    let has_warm_up = windows.first().is_some_and(|row| row.at <= 0.0);
    let finish = |chart: Chart| match has_warm_up {
        true => chart.reference(Reference::vertical(0.0, "end of the warm-up")).size(WIDTH, HEIGHT).svg(),
        false => chart.size(WIDTH, HEIGHT).svg(),
    };
    let time = || {
        let first = windows.first().map_or(0.0, |row| row.at);
        Axis::linear("time, s").from(first.min(0.0)).to(windows.last().map_or(1.0, |row| row.at))
    };
    // A window without answers has no latency.
    let known = |of: fn(&WindowRow) -> f64| {
        move |row: &WindowRow| if row.counts.answered() > 0 { of(row) } else { f64::NAN }
    };
    let latencies = windows.iter().flat_map(|row| [row.p50, row.p99]);
    let mut latency = Chart::new("Latency over time", time(), latency_axis(latencies))
        .series(line("p50", &known(|row| row.p50)))
        .series(line("p99", &known(|row| row.p99)));
    if let Some(deadline) = summary.deadline {
        latency = latency.reference(Reference::horizontal(deadline, "deadline"));
    }
    let per_second =
        |of: fn(&WindowRow) -> u64| move |row: &WindowRow| of(row) as f64 / row.seconds.max(1e-9);
    let classes: [Class; 8] = [
        ("in time", 2, |row| row.counts.ok),
        ("late", 4, |row| row.counts.late),
        ("wrong", 3, |row| row.counts.wrong),
        ("refused", 5, |row| row.counts.refused),
        ("expired", 0, |row| row.counts.expired),
        ("failed", 1, |row| row.counts.failed),
        ("not sent", 7, |row| row.counts.not_sent),
        ("overdue", 6, |row| row.counts.overdue),
    ];
    let happened = classes.into_iter().filter(|(_, _, of)| windows.iter().any(|row| of(row) > 0));
    let stack = happened.map(|(name, colour, of)| line(name, &per_second(of)).colour(colour));
    let mut outcomes =
        Chart::new("What became of the requests", time(), Axis::linear("requests per second")).stack(stack);
    if let Some(rate) = summary.rate {
        outcomes = outcomes.reference(Reference::horizontal(rate, "offered"));
    }
    let mut all = vec![finish(latency), finish(outcomes)];
    if summary.server.is_some() {
        let cpu = Chart::new("The server's processors", time(), Axis::linear("processors in use"))
            .series(line("", &|row| row.cpu.unwrap_or(f64::NAN)));
        let memory = Chart::new("The server's memory", time(), Axis::linear("resident, MB"))
            .series(line("", &|row| row.rss.map_or(f64::NAN, |rss| rss as f64 / 1e6)));
        all.extend([finish(cpu), finish(memory)]);
    }
    all
}

/// Latency and throughput against the rate that was offered.
pub(super) fn sweep(report: &Report) -> Vec<String> {
    let runs = report.sweep();
    if runs.is_empty() {
        return Vec::new();
    }
    let rate = |run: &&Run| run.summary.rate.unwrap_or(0.0);
    let line = |name: &str, of: &dyn Fn(&Summary) -> f64| {
        Series::new(name, runs.iter().map(|run| (rate(run), of(&run.summary))).collect())
    };
    let x = || Axis::linear("offered, requests per second");
    let most = runs.iter().map(rate).fold(0.0, f64::max);
    let least = runs.iter().map(rate).fold(f64::INFINITY, f64::min);
    let mut throughput = Chart::new("Throughput by offered load", x(), Axis::linear("requests per second"))
        .size(WIDTH, HEIGHT)
        .series(line("answered in time", &|summary| summary.goodput))
        .series(line("answered", &|summary| summary.answered).dashed())
        .series(Series::new("all that was offered", vec![(0.0, 0.0), (most, most)]).dashed().colour(7));
    if runs.iter().any(|run| run.summary.counts.refused > 0) {
        let refused = |summary: &Summary| summary.counts.refused as f64 / summary.seconds.max(1e-9);
        throughput = throughput.series(line("refused", &refused).colour(5));
    }
    let values = runs.iter().flat_map(|run| [run.summary.latency.p50, run.summary.latency.p99]);
    let x = if most / least > WIDE { Axis::log("offered, requests per second") } else { x() };
    let known = |of: fn(&Summary) -> f64| {
        move |summary: &Summary| if summary.latency.n > 0 { of(summary) } else { f64::NAN }
    };
    let mut latency = Chart::new("Latency by offered load", x, latency_axis(values))
        .size(WIDTH, HEIGHT)
        .series(line("p50", &known(|summary| summary.latency.p50)))
        .series(line("p99", &known(|summary| summary.latency.p99)))
        .series(line("p99.9", &known(|summary| summary.latency.p999)).dashed());
    let deadline = runs.iter().find_map(|run| run.summary.deadline);
    let goal = report.goal.as_ref().and_then(|goal| goal.latency());
    if let Some((_, at_most)) = goal {
        latency = latency.reference(Reference::horizontal(at_most.as_secs_f64() * 1e3, "goal"));
    } else if let Some(deadline) = deadline {
        latency = latency.reference(Reference::horizontal(deadline, "deadline"));
    }
    if let Some(found) = report.found.and_then(Found::rate) {
        latency = latency.reference(Reference::vertical(found, "found"));
    }
    vec![throughput.svg(), latency.svg()]
}
