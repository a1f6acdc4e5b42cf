//! Crayfish's own method at parallelism 1: Salver with the model here and on a server, beside Kafka Streams.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::record::Form;
use super::run::{Answers, Run, difference, measured};
use super::side::{Salver, Side, Streams, Where};
use super::stage::Stage;
use crate::report::Table;
use crate::sections::yes;
use crate::stats::{digits, median};

/// What the published benchmark has for Kafka Streams at parallelism 1: ONNX embedded, and TensorFlow Serving.
pub(crate) const PAPER: [f64; 2] = [1_911.0, 566.0];
/// The aims: so many times Kafka Streams.
const AIMS: [f64; 2] = [8.0, 10.0];
/// How far answers of two engines to the same record may lie apart.
const TOLERANCE: f64 = 1e-4;
/// How long Kafka Streams scores, in seconds; Salver scores all records.
const STREAMS_SECONDS: f64 = 12.0;
const MOST: Duration = Duration::from_secs(60);

#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Found {
    model: String,
    n_records: usize,
    record_bytes: usize,
    sides: Vec<Measured>,
    /// Of all pairs of answers to one record.
    largest_difference: f64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Measured {
    label: String,
    is_salver: bool,
    is_remote: bool,
    is_raw: bool,
    runs: Vec<Run>,
}

fn sides(stage: &Stage<'_>) -> Vec<Side> {
    let here = Where::Here(stage.engine());
    let mut sides = vec![
        Salver::new(here, true),
        Salver::new(here, false),
        Salver::new(Where::Here("embedded"), true),
        Salver::new(Where::Server, true),
        Salver::new(Where::Server, false),
        Salver { form: Form::Raw, ..Salver::new(here, true) },
        Salver { form: Form::Raw, ..Salver::new(Where::Server, true) },
    ];
    if !stage.has_onnxruntime() {
        sides.remove(2);
    }
    let mut sides: Vec<Side> = sides.into_iter().map(Side::Salver).collect();
    if stage.settings.kafka_streams.is_some() {
        for (is_remote, maps_once) in [(false, false), (false, true), (true, false)] {
            sides.push(Side::Streams(Streams { is_remote, maps_once }));
        }
    } else {
        println!("skipped: Kafka Streams, as there is no --kafka-streams");
    }
    sides.retain(|side| side.label().contains(&stage.settings.case));
    sides
}

pub(crate) fn measure(stage: &Stage<'_>) -> Result<Found> {
    let n = stage.settings.records;
    let json = stage.filled(Form::Json, n)?;
    let raw = stage.filled(Form::Raw, n)?;
    let sides = sides(stage);
    let mut found = Found {
        model: stage.subject.label.to_owned(),
        n_records: n,
        record_bytes: {
            let mut value = Vec::new();
            super::record::Records::new(Form::Json, stage.n_numbers()).write(
                0,
                1_700_000_000_000,
                &mut value,
            );
            value.len()
        },
        sides: sides.iter().map(Measured::new).collect(),
        largest_difference: 0.0,
    };
    let mut known: Option<Answers> = None;
    for round in 0..stage.settings.rounds {
        println!("round {} of {}", round + 1, stage.settings.rounds);
        for turn in 0..sides.len() {
            // Another one begins each round.
            let index = (turn + round) % sides.len();
            let side = sides[index];
            let input = if side.form() == Form::Json { &json } else { &raw };
            let limit = match side {
                Side::Salver(_) => MOST,
                Side::Streams(_) => stage.settings.seconds(STREAMS_SECONDS),
            };
            let (run, answers) = measured(stage, side, input, n, limit).with_context(|| side.label())?;
            println!("{}: {}", side.label(), run.line());
            if side.form() == Form::Json {
                ensure!(!answers.is_empty(), "{}: no answer has a prediction", side.label());
                let known = known.get_or_insert(answers.clone());
                found.largest_difference = found.largest_difference.max(difference(known, &answers));
                ensure!(
                    found.largest_difference <= TOLERANCE,
                    "{} answers otherwise, by {}",
                    side.label(),
                    found.largest_difference
                );
                known.extend(answers);
            }
            found.sides[index].runs.push(run);
        }
    }
    Ok(found)
}

impl Run {
    pub(crate) fn line(&self) -> String {
        let [scorer, server] = self.cpu_us.map(digits);
        let busy = self.busy * 100.0;
        format!(
            "{} records/s, {scorer} + {server} µs CPU a record, machine busy {busy:.0} %",
            digits(self.per_second)
        )
    }
}

impl Measured {
    fn new(side: &Side) -> Measured {
        let (is_salver, is_remote) = match side {
            Side::Salver(salver) => (true, salver.place == Where::Server),
            Side::Streams(streams) => (false, streams.is_remote),
        };
        let is_raw = side.form() == Form::Raw;
        Measured { label: side.label(), is_salver, is_remote, is_raw, runs: Vec::new() }
    }

    fn median(&self, of: impl Fn(&Run) -> f64) -> f64 {
        median(self.runs.iter().map(of))
    }

    fn per_second(&self) -> f64 {
        self.median(|run| run.per_second)
    }

    /// Median over the rounds of what is this side's by the other's.
    fn ratio(&self, other: &Measured) -> f64 {
        let pairs = self.runs.iter().zip(&other.runs);
        median(pairs.map(|(one, other)| one.per_second / other.per_second))
    }
}

impl Found {
    /// Records per second of the side with this label.
    pub(crate) fn per_second(&self, label: &str) -> Option<f64> {
        let side = self.sides.iter().find(|side| side.label == label && !side.runs.is_empty())?;
        Some(side.per_second())
    }

    /// Kafka Streams as published, with the model here or on a server.
    fn published(&self, is_remote: bool) -> Option<&Measured> {
        let published = |side: &&Measured| !side.is_salver && side.is_remote == is_remote;
        self.sides.iter().find(published).filter(|side| !side.runs.is_empty())
    }

    pub(crate) fn notes(&self) -> Vec<String> {
        let [embedded, serving] = PAPER.map(digits);
        vec![format!(
            "Crayfish (EDBT 2024): {} records of a topic of 32 partitions are scored into another; {} model; a record is JSON \
             of {} bytes with a time of creation and 784 random numbers as nested lists of text with eight digits (the \
             published program sends them as one string of the same length), and its answer repeats it with the field \
             `prediction` added; no compression. Records per second are those after the first quarter by the first and last \
             time at which the broker appended them. Everyone has one unit of parallelism: Salver `--workers 1`, Kafka \
             Streams one stream thread, in ONNX Runtime one thread. Kafka Streams reads the same topic from its beginning for \
             {STREAMS_SECONDS} s, Salver all of it, and each answer is there. Some answers of all sides were compared: they \
             differ by {:.1e} at most. *Published* is what the paper has for Kafka Streams on machines of its own: {embedded} \
             embedded, {serving} with TensorFlow Serving. The aims are {} times Kafka Streams embedded and {} times remote. \
             Raw tensors (3,136 bytes) are answered by the model's numbers alone. The machine's share tells what the broker \
             takes beside.",
            digits(self.n_records as f64),
            self.model,
            self.record_bytes,
            self.largest_difference,
            AIMS[0],
            AIMS[1],
        )]
    }

    pub(crate) fn tables(&self) -> Vec<Table> {
        let rows = self.sides.iter().filter(|side| !side.runs.is_empty()).map(|side| {
            let which = usize::from(side.is_remote);
            let beside = self.published(side.is_remote);
            let ratio = beside.map(|other| side.ratio(other));
            let paper = side.per_second() / PAPER[which];
            let judged = side.is_salver && !side.is_raw;
            let times = |ratio: f64| format!("{ratio:.1}");
            vec![
                side.label.clone(),
                digits(side.per_second()),
                digits(side.median(|run| run.cpu_us[0])),
                if side.is_remote { digits(side.median(|run| run.cpu_us[1])) } else { "-".to_owned() },
                format!("{:.0} %", side.median(|run| run.busy) * 100.0),
                ratio.map_or_else(|| "-".to_owned(), times),
                times(paper),
                match ratio {
                    Some(ratio) if judged => yes(ratio >= AIMS[which] && paper >= AIMS[which]),
                    _ => "-".to_owned(),
                },
            ]
        });
        vec![Table {
            title: "Crayfish, parallelism 1".to_owned(),
            head: vec![
                "scorer",
                "records /s",
                "CPU µs a record",
                "server's",
                "machine busy",
                "times Kafka Streams here",
                "times published",
                "met",
            ],
            rows: rows.collect(),
        }]
    }
}
