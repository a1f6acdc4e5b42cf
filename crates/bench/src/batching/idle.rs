//! Little to do: requests are answered as soon as by a server that joins none.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::Effort;
use super::drive::{Ask, Offer, capacity};
use super::stage::{Placed, Stage};
use crate::report::Table;
use crate::sections::yes;
use crate::stats::{digits, median};

const MODELS: [&str; 4] = ["crayfish", "weather", "bert_mini", "mobilenet_v2"];
/// Of what the server can answer.
const PART: f64 = 0.1;
/// The aim: p50 with natural batching by p50 without.
const AIM: f64 = 1.05;
const IN_FLIGHT: usize = 16;
/// A window has so many requests, unless that takes too long.
const N_REQUESTS: f64 = 150.0;
const ENGINE: &str = "onnxruntime";

#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Found {
    cases: Vec<Case>,
    rounds: usize,
}

#[derive(Debug, Serialize, Deserialize)]
struct Case {
    title: String,
    per_second: f64,
    rounds: Vec<Round>,
}

/// Milliseconds without batching and with it.
#[derive(Debug, Serialize, Deserialize)]
struct Round {
    p50: [f64; 2],
    p99: [f64; 2],
    /// Why the figures are the generator's, if they are.
    #[serde(default)]
    invalid: String,
}

pub(crate) fn measure(stage: &Stage<'_>, effort: Effort) -> Result<Found> {
    let rounds = effort.rounds(7);
    let mut found = Found { cases: Vec::new(), rounds };
    let made: Vec<_> =
        MODELS.iter().filter(|name| stage.wants(name)).filter_map(|name| stage.made(name)).collect();
    let placed: Vec<Placed<'_>> = made.iter().map(|made| made.placed()).collect();
    let off = stage.server("idle-off", &placed, ENGINE, &["--batching=off"])?;
    let natural = stage.server("idle-natural", &placed, ENGINE, &["--batching=natural"])?;
    for made in made {
        let asks = [Ask::rows_of(&off, made)?, Ask::rows_of(&natural, made)?];
        let all = capacity(&asks[0], IN_FLIGHT, effort.seconds(0.8), 1)?;
        // What is learnt of a model is learnt on both sides.
        capacity(&asks[1], IN_FLIGHT, effort.seconds(0.8), 1)?;
        let per_second = all * PART;
        let time = effort.seconds((N_REQUESTS / per_second).clamp(0.8, 2.0));
        let rounds = (0..rounds).map(|round| {
            let measure = |ask: &Ask| -> Result<([f64; 2], String)> {
                let seed = round as u64 + 1;
                let window = ask.open(Offer { per_second, seed, time, deadline: None, is_told: false })?;
                let latency = window.summary.latency;
                anyhow::ensure!(latency.n > 0, "nothing was answered");
                Ok(([latency.p50, latency.p99], window.invalid()))
            };
            let ((off, one), (natural, other)) = match round % 2 {
                0 => (measure(&asks[0])?, measure(&asks[1])?),
                _ => {
                    let natural = measure(&asks[1])?;
                    (measure(&asks[0])?, natural)
                }
            };
            Ok(Round { p50: [off[0], natural[0]], p99: [off[1], natural[1]], invalid: one + &other })
        });
        let rounds = rounds.collect::<Result<Vec<_>>>().context(made.name)?;
        let case = Case { title: made.title.to_owned(), per_second, rounds };
        println!("{}", case.row().join("  "));
        found.cases.push(case);
    }
    Ok(found)
}

impl Case {
    fn row(&self) -> Vec<String> {
        let of = |figure: &dyn Fn(&Round) -> f64| median(self.rounds.iter().map(figure));
        let millis = |ms: f64| if ms < 1.0 { format!("{ms:.3}") } else { digits(ms) };
        let ratio = of(&|round| round.p50[1] / round.p50[0]);
        let n_sound = self.rounds.iter().filter(|round| round.invalid.is_empty()).count();
        vec![
            self.title.clone(),
            digits(self.per_second),
            millis(of(&|round| round.p50[0])),
            millis(of(&|round| round.p50[1])),
            format!("{ratio:.3}"),
            millis(of(&|round| round.p99[0])),
            millis(of(&|round| round.p99[1])),
            format!("{n_sound} of {}", self.rounds.len()),
            yes(ratio <= AIM && n_sound * 2 > self.rounds.len()),
        ]
    }
}

impl Found {
    pub(crate) fn notes(&self) -> Vec<String> {
        vec![format!(
            "Low load: open loop at a tenth of what the server answers in a closed loop with {IN_FLIGHT} in flight, ONNX \
             Runtime, {} rounds; both servers get the same moments in a round. The ratio is taken within a round; the aim is \
             {AIM}.",
            self.rounds
        )]
    }

    pub(crate) fn tables(&self) -> Vec<Table> {
        vec![Table {
            title: "Low load: latency in ms with batching and without".to_owned(),
            head: vec![
                "model",
                "requests /s",
                "p50 off",
                "p50 natural",
                "ratio",
                "p99 off",
                "p99 natural",
                "rounds in which the generator kept up",
                "met",
            ],
            rows: self.cases.iter().map(Case::row).collect(),
        }]
    }
}
