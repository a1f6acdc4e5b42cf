//! Rows of several lengths, and requests that are wrong: who is right gets the right answer, at nearly the same rate.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use salver_load::Check;
use salver_tensor::{Shape, Tensor};
use serde::{Deserialize, Serialize};

use super::Effort;
use super::drive::{Ask, Window};
use super::stage::{Placed, Stage};
use crate::report::Table;
use crate::sections::yes;
use crate::stats::{digits, median};

/// A feed-forward block over words, and the mean of those that are not 0 (`crates/bench/fixtures/make.py`).
const MODEL: &str = "crates/bench/fixtures/words.onnx";
const NAME: &str = "words";
/// Words that the model knows, 0 to one less.
const N_WORDS: usize = 4096;
const LENGTHS: [usize; 6] = [16, 24, 32, 48, 64, 96];
/// Of so many requests, the last two are bad in the bad run.
const N_CALLS: usize = 100;
const IN_FLIGHT: usize = 64;
/// How far an answer may be from that of the row alone, by its size or by 1.
const TOLERANCE: f64 = 1e-4;
/// The aim: throughput with bad requests by that without.
const AIM: f64 = 0.85;

/// Groups of calls.
const GOOD: usize = 0;
const REFUSED: usize = 1;
const GUILTY: usize = 2;

/// Where and how.
const CASES: [(&str, &str, &str); 3] = [
    ("ONNX Runtime", "onnxruntime", ""),
    ("ONNX Runtime, padded", "onnxruntime", "[batching]\npadding = [32, 64, 96]\n"),
    ("embedded", "embedded", ""),
];

#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Found {
    cases: Vec<Case>,
    rounds: usize,
}

#[derive(Debug, Serialize, Deserialize)]
struct Case {
    label: String,
    rounds: Vec<Round>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Round {
    /// Good answers per second without and with bad requests.
    clean: f64,
    bad: f64,
    /// Good requests of both runs.
    n_good: u64,
    /// Those that were answered wrongly or not at all.
    n_wrong: u64,
    /// Bad requests, and those that were told so.
    n_bad: u64,
    n_told: u64,
    /// What went wrong first, if anything did.
    error: Option<String>,
    p99_clean_ms: f64,
    p99_bad_ms: f64,
}

pub(crate) fn measure(stage: &Stage<'_>, effort: Effort) -> Result<Found> {
    let rounds = effort.rounds(3);
    let mut found = Found { cases: Vec::new(), rounds };
    for (label, engine, config) in CASES {
        if stage.wants(label) {
            found.cases.push(case(stage, effort, (label, engine, config), rounds).context(label)?);
        }
    }
    Ok(found)
}

fn case(
    stage: &Stage<'_>,
    effort: Effort,
    (label, engine, config): (&str, &str, &str),
    n_rounds: usize,
) -> Result<Case> {
    let path = stage.write("mixed.toml", config)?.display().to_string();
    let arguments = if config.is_empty() { vec![] } else { vec!["--config", path.as_str()] };
    let model = Placed { name: NAME, onnx: Path::new(MODEL) };
    let server =
        stage.server(&format!("mixed-{}", label.replace([' ', ','], "")), &[model], engine, &arguments)?;
    let clean = ask(&server, false)?;
    let bad = ask(&server, true)?;
    let time: Duration = effort.seconds(2.0);
    clean.closed_with_errors(IN_FLIGHT, time)?;
    let mut rounds = Vec::new();
    for round in 0..n_rounds {
        let run = |ask: &Ask| ask.closed_with_errors(IN_FLIGHT, time);
        let (clean, bad) = match round % 2 {
            0 => (run(&clean)?, run(&bad)?),
            _ => {
                let bad = run(&bad)?;
                (run(&clean)?, bad)
            }
        };
        rounds.push(Round::new(&clean, &bad));
    }
    let case = Case { label: label.to_owned(), rounds };
    println!("{}", case.row().join("  "));
    Ok(case)
}

/// Rows of all lengths in turn, with the answers that each gets alone.
fn ask(server: &crate::server::Server, is_bad: bool) -> Result<Ask> {
    let n_good = if is_bad { N_CALLS - 2 } else { N_CALLS };
    let mut inputs =
        (0..n_good).map(|at| words(&[1, LENGTHS[at % LENGTHS.len()]], at)).collect::<Result<Vec<_>>>()?;
    if is_bad {
        // One whose shape is refused, and one that only the engine finds out; half a turn apart.
        inputs.insert(N_CALLS / 2 - 1, words(&[1, 8, 4], 0)?);
        let mut numbers = words(&[1, LENGTHS[2]], 7)?.to_slice::<i64>().context("words")?.into_owned();
        numbers[3] = 10 * N_WORDS as i64;
        inputs.push(Tensor::from_vec(Shape::new(&[1, LENGTHS[2]])?, numbers)?);
    }
    let mut ask = Ask::new(server, NAME, &inputs)?;
    let (subject, signature) = ask.decoding.clone().context("answers are decoded")?;
    let check = Check::new(subject, signature, TOLERANCE, inputs.len());
    let guilty = |at: usize| match at {
        _ if !is_bad => GOOD,
        _ if at == N_CALLS / 2 - 1 => REFUSED,
        _ if at == N_CALLS - 1 => GUILTY,
        _ => GOOD,
    };
    for at in 0..inputs.len() {
        ask.calls[at].group = guilty(at);
        match (ask.answer(at), guilty(at)) {
            (Ok(answer), GOOD) => check.expect(at, answer),
            (Err(error), GOOD) => return Err(error.context(format!("request {at} alone"))),
            (answer, _) => ensure!(answer.is_err(), "bad request {at} is answered"),
        }
    }
    ask.check = Some(check);
    Ok(ask)
}

/// Words without a pattern, none of them 0.
fn words(dims: &[usize], seed: usize) -> Result<Tensor> {
    let n: usize = dims.iter().product();
    let word = |at: usize| ((at * 7919 + seed * 104_729) % (N_WORDS - 1) + 1) as i64;
    Ok(Tensor::from_vec(Shape::new(dims)?, (0..n).map(word).collect())?)
}

impl Round {
    fn new(clean: &Window, bad: &Window) -> Round {
        let group = |window: &Window, at: usize| window.summary.groups.get(at).copied().unwrap_or_default();
        let good = [group(clean, GOOD), group(bad, GOOD)];
        let guilty = [group(bad, REFUSED), group(bad, GUILTY)];
        let wrong = [clean, bad].into_iter().find_map(|window| {
            let (text, _) = window.summary.errors.iter().find(|(text, _)| text.starts_with("call "))?;
            Some(text.clone())
        });
        Round {
            clean: good[0].ok as f64 / clean.summary.seconds,
            bad: good[1].ok as f64 / bad.summary.seconds,
            n_good: good.iter().map(|counts| counts.total()).sum(),
            n_wrong: good.iter().map(|counts| counts.total() - counts.ok).sum(),
            n_bad: guilty.iter().map(|counts| counts.total()).sum(),
            n_told: guilty.iter().map(|counts| counts.failed).sum(),
            error: wrong,
            p99_clean_ms: clean.summary.latency.p99,
            p99_bad_ms: bad.summary.latency.p99,
        }
    }
}

impl Case {
    fn ratio(&self) -> f64 {
        median(self.rounds.iter().map(|round| round.bad / round.clean))
    }

    fn row(&self) -> Vec<String> {
        let sum = |count: fn(&Round) -> u64| self.rounds.iter().map(count).sum::<u64>();
        let of = |figure: fn(&Round) -> f64| digits(median(self.rounds.iter().map(figure)));
        let n_wrong = sum(|round| round.n_wrong);
        let all_told = sum(|round| round.n_bad) == sum(|round| round.n_told);
        vec![
            self.label.clone(),
            of(|round| round.clean),
            of(|round| round.bad),
            format!("{:.3}", self.ratio()),
            of(|round| round.p99_clean_ms),
            of(|round| round.p99_bad_ms),
            sum(|round| round.n_good).to_string(),
            n_wrong.to_string(),
            sum(|round| round.n_bad).to_string(),
            sum(|round| round.n_told).to_string(),
            yes(self.ratio() >= AIM && n_wrong == 0 && all_told),
        ]
    }
}

impl Found {
    pub(crate) fn notes(&self) -> Vec<String> {
        let errors =
            self.cases.iter().flat_map(|case| &case.rounds).filter_map(|round| round.error.as_deref());
        let mut notes = vec![format!(
            "Mixed: a small network over rows of {} to {} words, six lengths in turn, closed loop with {IN_FLIGHT} in flight, {} \
             rounds. In the bad run one request in fifty is wrong, in turn one whose shape is refused before it is joined and \
             one with a word that there is not, which only the engine finds out: its batch fails and is run again in halves. \
             Every answer is compared with that of the same row alone (within {TOLERANCE}). Padded: lengths are filled up to \
             32, 64 or 96 words, so that rows of unequal length share a batch. The aim is {AIM} of the clean run's \
             throughput, no wrong answer, and an error for every bad request.",
            LENGTHS[0], LENGTHS[5], self.rounds,
        )];
        notes.extend(errors.take(1).map(|error| format!("The first wrong answer: {error}.")));
        notes
    }

    pub(crate) fn tables(&self) -> Vec<Table> {
        vec![Table {
            title: "Mixed lengths and bad requests: good answers per second".to_owned(),
            head: vec![
                "engine",
                "clean",
                "one in fifty bad",
                "ratio",
                "p99 ms clean",
                "p99 ms bad",
                "good requests",
                "not answered rightly",
                "bad requests",
                "told so",
                "met",
            ],
            rows: self.cases.iter().map(Case::row).collect(),
        }]
    }
}
