//! More requests than can be answered: what is answered in time, what is refused and how fast, and what memory does.

use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::Effort;
use super::drive::{Ask, MAX_IN_FLIGHT, Offer, Window, capacity};
use super::stage::Stage;
use crate::report::Table;
use crate::server::Server;
use crate::stats::{digits, median};

const DEADLINE: Duration = Duration::from_millis(100);
/// Offered, by what the server has answered in the closed loop.
const TIMES: [f64; 5] = [0.5, 1.0, 1.5, 2.0, 4.0];
const IN_FLIGHT: usize = 64;

/// TensorFlow Serving's parameters for the policy that is compared.
const PARAMETERS: &str = "max_batch_size { value: 32 }\nbatch_timeout_micros { value: 5000 }\n\
    max_enqueued_batches { value: 100 }\n";
/// And what it has not: refusals before the queue is full, and runs without a hand-over.
const PLAIN: &str = "[batching]\nrefuse_early = false\ninline_below_us = 0\n";

/// The models, each with threads that send: where a request costs little, one thread cannot send four times as many.
const CASES: [(&str, usize, &[Side]); 2] =
    [("bert_mini", 1, &Side::ALL), ("crayfish", 2, &[Side::Natural, Side::Fixed])];
/// The slowest model answers so many per second at least, so that a warm-up is long enough.
const SLOWEST: f64 = 80.0;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Side {
    Natural,
    Fixed,
    /// The same, and the deadline is known to the caller alone.
    FixedUntold,
}

impl Side {
    const ALL: [Side; 3] = [Side::Natural, Side::Fixed, Side::FixedUntold];

    fn label(self) -> &'static str {
        match self {
            Side::Natural => "natural",
            Side::Fixed => "fixed wait",
            Side::FixedUntold => "fixed wait, no deadline sent",
        }
    }
}

/// All models.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Found {
    cases: Vec<Case>,
    rounds: usize,
}

#[derive(Debug, Serialize, Deserialize)]
struct Case {
    title: String,
    /// Answers per second in the closed loop.
    capacity: f64,
    fixed_capacity: f64,
    points: Vec<Point>,
}

/// One load on one side in one round.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Point {
    times: f64,
    side: Side,
    offered: f64,
    goodput: f64,
    /// Of what was answered, in milliseconds.
    p50_ms: f64,
    p99_ms: f64,
    refused: f64,
    /// Of what was refused, in milliseconds.
    refused_p99_ms: f64,
    /// Parts of what was offered.
    late: f64,
    expired: f64,
    failed: f64,
    /// Never sent, or given up on.
    not_sent: f64,
    memory: u64,
    memory_after: u64,
    memory_peak: u64,
    generator: f64,
    lag_p99_ms: f64,
    invalid: String,
}

impl Point {
    fn new(times: f64, side: Side, window: &Window) -> Point {
        let summary = &window.summary;
        let counts = summary.counts;
        let n_answered = counts.answered() as f64;
        let n_late = (n_answered * (1.0 - part_within(|q| summary.quantile(q), DEADLINE))).round();
        let total = counts.total().max(1) as f64;
        let part = |n: u64| n as f64 / total;
        let server = summary.server.unwrap_or_default();
        Point {
            times,
            side,
            offered: summary.offered,
            goodput: (n_answered - n_late) / summary.seconds,
            p50_ms: summary.latency.p50,
            p99_ms: summary.latency.p99,
            refused: counts.refused as f64 / summary.seconds,
            refused_p99_ms: summary.refused_latency.p99,
            late: n_late / total,
            expired: part(counts.expired),
            failed: part(counts.failed),
            not_sent: part(counts.not_sent + counts.overdue),
            memory: server.rss_before,
            memory_after: server.rss_after,
            memory_peak: server.rss_peak,
            generator: window.generator,
            lag_p99_ms: summary.generator.lag.p99,
            invalid: window.invalid(),
        }
    }
}

/// The part of the answers that took no longer than this, by their quantiles.
fn part_within(quantile: impl Fn(f64) -> Duration, most: Duration) -> f64 {
    let (mut within, mut beyond) = (0.0, 1.0);
    if quantile(beyond) <= most {
        return 1.0;
    }
    for _ in 0..30 {
        let middle = f64::midpoint(within, beyond);
        if quantile(middle) <= most {
            within = middle;
        } else {
            beyond = middle;
        }
    }
    within
}

pub(crate) fn measure(stage: &Stage<'_>, effort: Effort) -> Result<Found> {
    let rounds = effort.rounds(2);
    let mut found = Found { cases: Vec::new(), rounds };
    for (name, threads, sides) in CASES {
        if stage.made(name).is_some() && stage.wants(name) {
            found.cases.push(case(stage, effort, (name, threads, sides), rounds).context(name)?);
        }
    }
    Ok(found)
}

fn servers(stage: &Stage<'_>, name: &str) -> Result<[Server; 2]> {
    let made = stage.made(name).context("the model is there")?;
    let parameters = stage.write("parameters.txt", PARAMETERS)?.display().to_string();
    let plain = stage.write("plain.toml", PLAIN)?.display().to_string();
    let fixed = ["--enable_batching", "--batching_parameters_file", &parameters, "--config", &plain];
    Ok([
        stage.server(&format!("natural-{name}"), &[made.placed()], "onnxruntime", &[])?,
        stage.server(&format!("fixed-{name}"), &[made.placed()], "onnxruntime", &fixed)?,
    ])
}

fn case(
    stage: &Stage<'_>,
    effort: Effort,
    (name, threads, sides): (&str, usize, &[Side]),
    rounds: usize,
) -> Result<Case> {
    let made = stage.made(name).context("the model is there")?;
    let servers = servers(stage, name)?;
    let ask = |server| anyhow::Ok(Ask::rows_of(server, made)?.with_threads(threads));
    let [natural, fixed] = [ask(&servers[0])?, ask(&servers[1])?];
    let n = if effort.is_quick { 1 } else { 3 };
    let full = |ask: &Ask| {
        let ask = ask.clone().with_warm_up(IN_FLIGHT, SLOWEST);
        ask.closed(IN_FLIGHT, effort.seconds(1.0))?;
        capacity(&ask, IN_FLIGHT, effort.seconds(1.5), n)
    };
    let (all, fixed_capacity) = (full(&natural)?, full(&fixed)?);
    println!("{name}: {} answers/s natural, {} with a fixed wait", digits(all), digits(fixed_capacity));
    let mut points = Vec::new();
    for round in 0..rounds {
        for times in TIMES {
            for at in 0..sides.len() {
                let side = sides[(at + round) % sides.len()];
                let offer = Offer {
                    per_second: all * times,
                    seed: round as u64 + 1,
                    time: effort.seconds(2.5),
                    deadline: Some(DEADLINE),
                    is_told: side != Side::FixedUntold,
                };
                let ask = if side == Side::Natural { &natural } else { &fixed };
                let point = Point::new(times, side, &ask.open(offer)?);
                println!(
                    "{times}x {}: offered {} good {} p99 {:.1} refused {} in {:.1} ms late {:.3} {}",
                    side.label(),
                    digits(point.offered),
                    digits(point.goodput),
                    point.p99_ms,
                    digits(point.refused),
                    point.refused_p99_ms,
                    point.late,
                    point.invalid
                );
                points.push(point);
            }
        }
    }
    Ok(Case { title: made.title.to_owned(), capacity: all, fixed_capacity, points })
}

impl Case {
    fn of(&self, times: f64, side: Side) -> Vec<&Point> {
        let is_it = |point: &&Point| (point.times - times).abs() < 1e-9 && point.side == side;
        self.points.iter().filter(is_it).collect()
    }

    fn row(&self, times: f64, side: Side) -> Vec<String> {
        let points = self.of(times, side);
        let of = |figure: fn(&Point) -> f64| median(points.iter().map(|point| figure(point)));
        let percent = |figure: fn(&Point) -> f64| format!("{:.1} %", of(figure) * 100.0);
        let millis = |figure: fn(&Point) -> f64| format!("{:.1}", of(figure));
        let megabytes = |figure: fn(&Point) -> f64| format!("{:.0}", of(figure) / 1e6);
        vec![
            format!("{times} times, {}", side.label()),
            digits(of(|point| point.offered)),
            digits(of(|point| point.goodput)),
            format!("{:.2}", of(|point| point.goodput) / self.capacity),
            millis(|point| point.p50_ms),
            millis(|point| point.p99_ms),
            digits(of(|point| point.refused)),
            millis(|point| point.refused_p99_ms),
            percent(|point| point.late),
            percent(|point| point.expired),
            percent(|point| point.failed + point.not_sent),
            megabytes(|point| point.memory as f64),
            megabytes(|point| point.memory_peak.max(point.memory_after) as f64),
            format!("{:.2}", of(|point| point.generator)),
            millis(|point| point.lag_p99_ms),
            if points.iter().any(|point| !point.invalid.is_empty()) { "no" } else { "yes" }.to_owned(),
        ]
    }

    fn table(&self) -> Table {
        let lines = TIMES.iter().flat_map(|&times| Side::ALL.map(|side| (times, side)));
        let rows = lines.filter(|&(times, side)| !self.of(times, side).is_empty());
        let rows = rows.map(|(times, side)| self.row(times, side));
        Table {
            title: format!(
                "Overload, {}: capacity {} answers/s, with a fixed wait {}",
                self.title,
                digits(self.capacity),
                digits(self.fixed_capacity)
            ),
            head: vec![
                "load and policy",
                "offered /s",
                "in time /s",
                "of capacity",
                "p50 ms",
                "p99 ms",
                "refused /s",
                "refused p99 ms",
                "late",
                "expired",
                "failed or not sent",
                "memory MB",
                "at most",
                "generator's processors",
                "its lag p99 ms",
                "it kept up",
            ],
            rows: rows.collect(),
        }
    }

    /// The aims at four times the capacity.
    fn aims(&self) -> Vec<Vec<String>> {
        let points = self.of(TIMES[4], Side::Natural);
        let of = |figure: fn(&Point) -> f64| median(points.iter().map(|point| figure(point)));
        let goodput = of(|point| point.goodput) / self.capacity;
        let (p99, refused) = (of(|point| point.p99_ms), of(|point| point.refused_p99_ms));
        // What the server held before any overload, and what it ever held in one.
        let natural = || self.points.iter().filter(|point| point.side == Side::Natural);
        let before = natural().map(|point| point.memory).min().unwrap_or(0) as f64;
        let most = natural().map(|point| point.memory_peak.max(point.memory_after)).max().unwrap_or(0) as f64;
        let has_kept_up = points.iter().all(|point| point.invalid.is_empty() && point.not_sent <= 0.05);
        let is_whole = !points.is_empty() && points.iter().all(|point| point.failed <= 0.0);
        let aim = |what: &str, found: String, aim: &str, is_met| {
            let is_met = match (is_met && is_whole, has_kept_up) {
                (false, _) => "no",
                (true, true) => "yes",
                (true, false) => "as far as was sent",
            };
            vec![format!("{}: {what}", self.title), found, aim.to_owned(), is_met.to_owned()]
        };
        vec![
            aim("in time, of capacity", format!("{goodput:.2}"), "0.90", goodput >= 0.9),
            aim("p99 of what was answered, ms", format!("{p99:.1}"), "100", p99 <= 100.0),
            aim("p99 of refusals, ms", format!("{refused:.1}"), "10", refused <= 10.0),
            aim(
                "memory at most, by that before",
                format!("{:.2}", most / before.max(1.0)),
                "1.10",
                most <= before * 1.1,
            ),
        ]
    }
}

impl Found {
    pub(crate) fn notes(&self) -> Vec<String> {
        vec![format!(
            "Overload: open loop with a deadline of {} ms that travels with the request (`grpc-timeout`), {} rounds; capacity is \
             what the server with natural batching answers in a closed loop with {IN_FLIGHT} in flight, and both servers are \
             offered multiples of it. \"Fixed wait\" is the same server with TensorFlow Serving's parameters (`max_batch_size` \
             32, `batch_timeout_micros` 5000, `max_enqueued_batches` 100), which refuses only when its queue is full; it still \
             drops what is past its deadline before it runs, which TensorFlow Serving does not: without a deadline sent it \
             cannot. Refused is what was said to have no room (`UNAVAILABLE`, `RESOURCE_EXHAUSTED`), expired what was said to be \
             past its deadline. Not sent is what was due while {MAX_IN_FLIGHT} were on their way. A generator that did not keep up has sent less or later than it says, and its line is to be \
             read as a bound. Crayfish is run where its request is decoded: refusing one costs nearly as much as answering it, \
             and four times of what two processors can receive cannot be received.",
            DEADLINE.as_millis(),
            self.rounds
        )]
    }

    pub(crate) fn tables(&self) -> Vec<Table> {
        let aims = Table {
            title: "Overload: at four times the capacity".to_owned(),
            head: vec!["aim", "found", "asked", "met"],
            rows: self.cases.iter().flat_map(Case::aims).collect(),
        };
        [aims].into_iter().chain(self.cases.iter().map(Case::table)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_part_in_time_follows_from_quantiles() {
        let check = |most: u64, expected: f64| {
            // Evenly spread from 0 to 200 ms.
            let found = part_within(|q| Duration::from_secs_f64(q * 0.2), Duration::from_millis(most));
            assert!((found - expected).abs() < 1e-6, "{most} ms: {found}");
        };
        check(100, 0.5);
        check(200, 1.0);
        check(0, 0.0);
    }
}
