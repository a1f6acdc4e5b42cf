//! Two models of one server, one of which gets far more than it can answer: what the other's callers see of it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use salver_load::Call;
use serde::{Deserialize, Serialize};

use super::Effort;
use super::drive::{Ask, Offer, Window, capacity};
use super::stage::{Placed, Stage};
use crate::echo::Ping;
use crate::load::Transport;
use crate::report::Table;
use crate::sections::yes;
use crate::server::Server;
use crate::stats::{digits, median};

/// The overloaded model and the one at ease.
const PAIRS: [(&str, &str); 3] =
    [("bert_mini", "weather"), ("bert_mini", "bert_mini"), ("bert_mini", "crayfish")];
/// What the one at ease is called, as it may be the same model again.
const AT_EASE: &str = "at_ease";
/// Of the overloaded model's capacity.
const TIMES: f64 = 4.0;
const DEADLINE: Duration = Duration::from_millis(100);
/// Of the other's capacity, and no more than so many requests per second.
const PART: f64 = 0.1;
const MOST: f64 = 200.0;
const IN_FLIGHT: usize = 32;
/// The overloaded model answers so many per second at least, so that a warm-up is long enough.
const SLOWEST: f64 = 50.0;
/// The overload begins so long before, and ends as long after.
const AROUND: Duration = Duration::from_millis(500);
/// Fewer answers say nothing of a p99.
const LEAST: u64 = 200;
/// The aim: p99 beside the overload by p99 alone.
const AIM: f64 = 1.3;

#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Found {
    cases: Vec<Case>,
    rounds: usize,
}

#[derive(Debug, Serialize, Deserialize)]
struct Case {
    overloaded: String,
    at_ease: String,
    per_second: f64,
    overload_per_second: f64,
    /// What the overloaded model answers alone.
    capacity: f64,
    rounds: Vec<Round>,
}

/// What the callers of the model at ease see.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Seen {
    p50_ms: f64,
    p99_ms: f64,
    /// Requests that were answered, and that were not.
    n_answered: u64,
    n_missed: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Round {
    alone: Seen,
    /// While the same load goes to a bare echo and threads of this process keep all processors busy: what generator,
    /// network and scheduler take.
    beside_others: Seen,
    beside: Seen,
    /// What the overloaded model answers in time per second.
    goodput: f64,
    refused_p99_ms: f64,
    invalid: String,
}

impl From<Window> for Seen {
    fn from(window: Window) -> Seen {
        let (latency, counts) = (window.summary.latency, window.summary.counts);
        Seen {
            p50_ms: latency.p50,
            p99_ms: latency.p99,
            n_answered: counts.answered(),
            n_missed: counts.total() - counts.answered(),
        }
    }
}

pub(crate) fn measure(stage: &Stage<'_>, effort: Effort) -> Result<Found> {
    let rounds = effort.rounds(3);
    let mut found = Found { cases: Vec::new(), rounds };
    for (overloaded, at_ease) in PAIRS {
        let is_there = stage.made(overloaded).is_some() && stage.made(at_ease).is_some();
        if is_there && stage.wants(&format!("{overloaded} {at_ease}")) {
            let case = case(stage, effort, overloaded, at_ease, rounds);
            found.cases.push(case.with_context(|| format!("{overloaded} and {at_ease}"))?);
        }
    }
    Ok(found)
}

fn case(stage: &Stage<'_>, effort: Effort, overloaded: &str, at_ease: &str, n_rounds: usize) -> Result<Case> {
    let [much, little] = [overloaded, at_ease].map(|name| stage.made(name).context("the model is there"));
    let (much, little) = (much?, little?);
    let name = format!("neighbours-{overloaded}-{at_ease}");
    let server = stage.server(
        &name,
        &[much.placed(), Placed { name: AT_EASE, onnx: &little.onnx }],
        "onnxruntime",
        &[],
    )?;
    let (much_ask, little_ask) = (Ask::rows_of(&server, much)?, Ask::rows_by_name(&server, little, AT_EASE)?);
    let much_ask = much_ask.with_warm_up(IN_FLIGHT, SLOWEST);
    let echo = Server::echo(Transport::Grpc)?;
    let body = vec![7; much_ask.calls[0].body.len()].into();
    let echo_ask = Ask::of_calls(&echo, vec![Call::grpc("/bench.Echo/Echo", &Ping { body })?])?;
    let all = capacity(&much_ask, IN_FLIGHT, effort.seconds(1.0), 1)?;
    let per_second = (capacity(&little_ask, IN_FLIGHT, effort.seconds(1.0), 1)? * PART).min(MOST);
    let time = effort.seconds((LEAST as f64 * 1.2 / per_second).clamp(3.0, 8.0));
    let mut rounds = Vec::new();
    for round in 0..n_rounds {
        let seed = round as u64 + 1;
        let small = Offer { per_second, seed, time, deadline: None, is_told: false };
        let large = Offer {
            per_second: all * TIMES,
            seed: seed + 100,
            time: time + AROUND * 2,
            deadline: Some(DEADLINE),
            is_told: true,
        };
        let alone = little_ask.open(small)?.into();
        let (_, beside_others) = while_busy(|| together(&echo_ask, large, &little_ask, small))?;
        let (overload, beside) = together(&much_ask, large, &little_ask, small)?;
        let (summary, invalid) = (&overload.summary, [overload.invalid(), beside.invalid()]);
        rounds.push(Round {
            alone,
            beside_others: beside_others.into(),
            goodput: summary.goodput,
            refused_p99_ms: summary.refused_latency.p99,
            invalid: invalid.iter().filter(|text| !text.is_empty()).cloned().collect::<Vec<_>>().join("; "),
            beside: beside.into(),
        });
    }
    let case = Case {
        overloaded: much.title.to_owned(),
        at_ease: little.title.to_owned(),
        per_second,
        overload_per_second: all * TIMES,
        capacity: all,
        rounds,
    };
    println!("{}", case.row().join("  "));
    Ok(case)
}

/// Does something while as many threads as there are processors compute.
fn while_busy<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    let is_over = AtomicBool::new(false);
    let n = std::thread::available_parallelism()?.get();
    std::thread::scope(|scope| {
        for _ in 0..n {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let result = work();
        is_over.store(true, Ordering::Relaxed);
        result
    })
}

/// One load while there is another.
fn together(much: &Ask, large: Offer, little: &Ask, small: Offer) -> Result<(Window, Window)> {
    std::thread::scope(|scope| {
        let overload = scope.spawn(|| much.open(large));
        std::thread::sleep(AROUND);
        let seen = little.open(small);
        let overload = overload.join().map_err(|_| anyhow!("the overload panicked"))?;
        Ok((overload?, seen?))
    })
}

impl Case {
    /// Whether the rounds say what they seem to say: all were answered, a p99 is more than the slowest of a few, and the
    /// generator kept up in most of them.
    fn is_sound(&self) -> bool {
        let is_whole = |seen: &Seen| seen.n_missed == 0 && seen.n_answered >= LEAST;
        self.rounds.iter().all(|round| is_whole(&round.alone) && is_whole(&round.beside))
            && self.n_kept_up() * 2 > self.rounds.len()
    }

    fn n_kept_up(&self) -> usize {
        self.rounds.iter().filter(|round| round.invalid.is_empty()).count()
    }

    fn row(&self) -> Vec<String> {
        let of = |figure: &dyn Fn(&Round) -> f64| median(self.rounds.iter().map(figure));
        let millis = |figure: &dyn Fn(&Round) -> f64| {
            let ms = of(figure);
            if ms < 1.0 { format!("{ms:.3}") } else { digits(ms) }
        };
        let ratio = of(&|round| round.beside.p99_ms / round.alone.p99_ms);
        let by_others = of(&|round| round.beside.p99_ms / round.beside_others.p99_ms);
        vec![
            format!("{} beside {}", self.at_ease, self.overloaded),
            digits(self.per_second),
            digits(self.overload_per_second),
            millis(&|round| round.alone.p50_ms),
            millis(&|round| round.beside_others.p50_ms),
            millis(&|round| round.beside.p50_ms),
            millis(&|round| round.alone.p99_ms),
            millis(&|round| round.beside_others.p99_ms),
            millis(&|round| round.beside.p99_ms),
            format!("{ratio:.2}"),
            format!("{by_others:.2}"),
            self.rounds.iter().map(|round| round.beside.n_missed).sum::<u64>().to_string(),
            format!("{:.2}", of(&|round| round.goodput) / self.capacity),
            millis(&|round| round.refused_p99_ms),
            format!("{} of {}", self.n_kept_up(), self.rounds.len()),
            yes(ratio <= AIM && self.is_sound()),
        ]
    }
}

impl Found {
    pub(crate) fn notes(&self) -> Vec<String> {
        vec![format!(
            "Neighbours: two models in one server on ONNX Runtime, {} rounds. One is offered {TIMES} times what it can answer \
             (open loop, deadline {} ms), the other a tenth of what it can, at most {MOST} requests per second, without a \
             deadline. \"Beside others\" is the same load sent to a bare echo of another process while as many threads \
             as there are processors compute outside of the server: what generator, network and the system's scheduler cost a request when the processors are busy, \
             whatever the server does. The aim is p99 within {AIM} times its value alone.",
            self.rounds,
            DEADLINE.as_millis(),
        )]
    }

    pub(crate) fn tables(&self) -> Vec<Table> {
        vec![Table {
            title: "Neighbours: latency in ms of the model at ease".to_owned(),
            head: vec![
                "model at ease, overloaded model",
                "requests /s",
                "overload /s",
                "p50 alone",
                "p50 beside others",
                "p50 beside",
                "p99 alone",
                "p99 beside others",
                "p99 beside",
                "ratio",
                "by that beside others",
                "not answered",
                "overloaded: in time, of capacity",
                "overloaded: refused p99 ms",
                "rounds in which the generator kept up",
                "met",
            ],
            rows: self.cases.iter().map(Case::row).collect(),
        }]
    }
}
