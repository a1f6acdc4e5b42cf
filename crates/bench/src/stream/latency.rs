//! From a record's creation to its answer, at half of what a scorer can do while records come.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::crayfish;
use super::paced::{LINGER_MS, Paced, Seen, paced, quantile};
use super::side::{Salver, Side, Streams, Where};
use super::stage::Stage;
use crate::report::Table;
use crate::sections::yes;
use crate::stats::{digits, median};

/// Of what the scorer does at most.
const PART: f64 = 0.5;
/// How long more records are sent than it can answer, in seconds, to find that out, and how many: by what it does where they lie
/// in the topic before.
const FULL_SECONDS: f64 = 8.0;
const FULL: f64 = 0.6;
/// The aim: milliseconds that 99 of 100 answers take at most.
const AIM: f64 = 20.0;
const SECONDS: f64 = 8.0;
/// Rounds tell little more here.
const MOST_ROUNDS: usize = 3;
/// How often answers are committed where they are to be read soon.
const COMMIT_MS: u32 = 10;
/// How long Salver's sink waits for a fuller batch.
const SINK_LINGER_MS: u32 = 2;

#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Found {
    sides: Vec<Measured>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Measured {
    label: String,
    is_salver: bool,
    /// What it answers while more is sent.
    most: f64,
    per_second: f64,
    rounds: Vec<Round>,
}

/// Milliseconds: p50 and p99.
#[derive(Debug, Serialize, Deserialize)]
struct Round {
    appended: [f64; 2],
    visible: [f64; 2],
    /// Until the records themselves were read where nobody scored them.
    alone: [f64; 2],
    invalid: String,
}

/// Sides, and that whose throughput the load is taken from.
fn sides(stage: &Stage<'_>) -> Vec<(Side, Side)> {
    let here = Where::Here(stage.engine());
    let salver = |place, is_exactly_once, commit_ms| {
        let like = Salver::new(place, is_exactly_once);
        (Side::Salver(Salver { commit_ms, linger_ms: Some(SINK_LINGER_MS), ..like }), Side::Salver(like))
    };
    let mut sides = vec![
        salver(here, false, None),
        salver(here, true, None),
        salver(here, true, Some(COMMIT_MS)),
        salver(Where::Server, false, None),
        salver(Where::Server, true, Some(COMMIT_MS)),
    ];
    if stage.settings.kafka_streams.is_some() {
        let streams = Side::Streams(Streams { is_remote: false, maps_once: false });
        sides.push((streams, streams));
    }
    sides.retain(|(side, _)| side.label().contains(&stage.settings.case));
    sides
}

pub(crate) fn measure(stage: &Stage<'_>, crayfish: Option<&crayfish::Found>) -> Result<Found> {
    let Some(crayfish) = crayfish else {
        bail!("the throughput is not known: measure `crayfish` before, or together with this");
    };
    let mut found = Found::default();
    let sides = sides(stage);
    for (side, like) in &sides {
        let label = like.label();
        let most = crayfish.per_second(&label).with_context(|| format!("the throughput of {label}"))?;
        let is_salver = matches!(side, Side::Salver(_));
        let most = sustained(stage, *side, most * FULL).with_context(|| side.label())?;
        println!("{}: {} records/s while they come", side.label(), digits(most));
        let (label, per_second) = (side.label(), most * PART);
        found.sides.push(Measured { label, is_salver, most, per_second, rounds: Vec::new() });
    }
    for round in 0..stage.settings.rounds.min(MOST_ROUNDS) {
        println!("round {}", round + 1);
        for ((side, _), measured) in sides.iter().zip(&mut found.sides) {
            let round = self::round(stage, *side, measured.per_second).with_context(|| side.label())?;
            println!("{}: {round:?}", side.label());
            measured.rounds.push(round);
        }
    }
    Ok(found)
}

/// Answers per second while `offered` records per second are sent, which are more than can be answered, since sending them and
/// reading answers takes its share of the processors. The first quarter is left out.
fn sustained(stage: &Stage<'_>, side: Side, offered: f64) -> Result<f64> {
    let time = stage.settings.seconds(FULL_SECONDS);
    let seen = run(stage, side, offered, time)?.seen;
    let begin = seen.iter().map(|seen| seen.sent_us).min().unwrap_or_default();
    let time = time.as_secs_f64() * 1e3;
    let appended = seen.iter().map(|seen| (seen.sent_us - begin) as f64 / 1e3 + seen.appended());
    let n = appended.filter(|appended| (time / 4.0..time).contains(appended)).count();
    Ok(n as f64 / (time * 0.75e-3))
}

fn run(stage: &Stage<'_>, side: Side, per_second: f64, time: Duration) -> Result<Paced> {
    let (input, output) = (stage.kafka()?.topic("in")?, stage.kafka()?.topic("out")?);
    let mut running = side.start(stage, &input.name, &output.name)?;
    running.wait_ready()?;
    paced(stage, [&input, &output], per_second, time, |_| ()).with_context(|| running.scorer.said())
}

fn round(stage: &Stage<'_>, side: Side, per_second: f64) -> Result<Round> {
    let time = stage.settings.seconds(SECONDS);
    let answers = run(stage, side, per_second, time)?;
    let records = stage.kafka()?.topic("alone")?;
    let alone = paced(stage, [&records, &records], per_second, time, |_| ())?;
    let [appended, visible] = quantiles(answers.seen);
    let [_, alone] = quantiles(alone.seen);
    Ok(Round { appended, visible, alone, invalid: answers.invalid })
}

/// p50 and p99 of the time until appending, and of that until reading. The first quarter is left out.
fn quantiles(mut seen: Vec<Seen>) -> [[f64; 2]; 2] {
    seen.sort_unstable_by_key(|seen| seen.sent_us);
    let seen = &seen[seen.len() / 4..];
    let of = |milliseconds: fn(&Seen) -> f64| {
        let mut values: Vec<f64> = seen.iter().map(milliseconds).collect();
        [quantile(&mut values, 0.5), quantile(&mut values, 0.99)]
    };
    [of(Seen::appended), of(Seen::visible)]
}

impl Measured {
    fn row(&self) -> Vec<String> {
        let of = |figure: &dyn Fn(&Round) -> f64| median(self.rounds.iter().map(figure));
        let n_sound = self.rounds.iter().filter(|round| round.invalid.is_empty()).count();
        let p99 = of(&|round| round.appended[1]);
        vec![
            self.label.clone(),
            digits(self.most),
            digits(self.per_second),
            digits(of(&|round| round.appended[0])),
            digits(p99),
            digits(of(&|round| round.visible[0])),
            digits(of(&|round| round.visible[1])),
            digits(of(&|round| round.alone[0])),
            digits(of(&|round| round.alone[1])),
            format!("{n_sound} of {}", self.rounds.len()),
            if self.is_salver { yes(p99 < AIM && n_sound * 2 > self.rounds.len()) } else { "-".to_owned() },
        ]
    }
}

impl Found {
    pub(crate) fn notes(&self) -> Vec<String> {
        vec![format!(
            "Latency: records are sent evenly, at half of what the same scorer answers while more records come than it can \
             answer (less than above, where they lie in the topic before: one program produces them, the broker takes them in \
             and the answers are read on the same processors), by a producer that waits at most {LINGER_MS} ms for a fuller \
             batch, for {SECONDS} s of which the first quarter is left out; time counts from when a record was meant to be \
             sent. *Appended* is the published definition: until the broker has appended the answer. *Visible* is until a \
             reader of committed records in this program has it: with exactly once that is after the transaction's commit, \
             every 100 ms unless another interval is said, while the answer is appended before. Salver's sink waits \
             {SINK_LINGER_MS} ms (`[kafka.sink] linger_ms`); Kafka Streams has its own defaults, with a producer that waits up \
             to 100 ms. All of it wants the same processors: where the producer did not keep up, or the p99 is far from the \
             p50, that was waited for. *Records alone* is the same rate right after it with no scorer: until the reader has the \
             records themselves, so that producer, broker and reader are what is left. The aim is a p99 of appending under {AIM} ms."
        )]
    }

    pub(crate) fn tables(&self) -> Vec<Table> {
        vec![Table {
            title: "Latency at half load, in ms".to_owned(),
            head: vec![
                "scorer",
                "most /s while records come",
                "records /s",
                "appended p50",
                "p99",
                "visible p50",
                "p99",
                "records alone p50",
                "p99",
                "rounds in which the producer kept up",
                "met",
            ],
            rows: self.sides.iter().map(Measured::row).collect(),
        }]
    }
}
