//! Throughput when there is always more to do: through gRPC with one row a request, and the same engine called in process
//! with the batch size and the number of lanes that are best for it.

use std::time::Duration;

use anyhow::{Context, Result};
use salver_load::Call;
use serde::{Deserialize, Serialize};

use super::Effort;
use super::drive::{Ask, Window};
use super::inside::{self, Engine, Form, Ran, Search};
use super::stage::{MOST_ROWS, Stage};
use crate::echo::Ping;
use crate::load::Transport;
use crate::report::Table;
use crate::sections::yes;
use crate::server::Server;
use crate::stats::{digits, median};

/// The aims of the issue: throughput by that of the engine in process.
const AIM: f64 = 0.97;
const AIM_TINY: f64 = 0.7;
const TINY: &str = "crayfish";

/// Requests on their way; of slow models, which need fewer to have enough to do.
const IN_FLIGHT: [usize; 2] = [16, 64];
const FEWER: [usize; 2] = [8, 32];
/// Rows per second below which a model is slow.
const SLOW: f64 = 100.0;
/// A window has so many rows, so that one more or less is no matter, unless that takes too long.
const N_ROWS: f64 = 150.0;

const CASES: [(&str, &str); 7] = [
    ("mobilenet_v2", "onnxruntime"),
    ("mobilenet_v2", "embedded"),
    ("inception_v3", "onnxruntime"),
    ("inception_v3", "embedded"),
    ("bert_mini", "onnxruntime"),
    ("crayfish", "onnxruntime"),
    ("crayfish", "embedded"),
];

/// All cases.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Found {
    cases: Vec<Case>,
    rounds: usize,
    processors: usize,
}

/// A model on an engine.
#[derive(Debug, Serialize, Deserialize)]
struct Case {
    model: String,
    title: String,
    engine: String,
    best: Form,
    in_flight: [usize; 2],
    request_bytes: usize,
    /// Rows per second of every form that was tried in process.
    tried: Vec<(Form, f64)>,
    rounds: Vec<Round>,
}

/// What the sides did in one round.
#[derive(Debug, Serialize, Deserialize)]
struct Round {
    inside: Figures,
    /// In the order of the numbers in flight.
    salver: Vec<Figures>,
    echo: Figures,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Figures {
    rows: f64,
    cpu_micros: f64,
    /// Processors that the generator used.
    generator: f64,
    /// Whether the figures are the server's and not the generator's.
    #[serde(default)]
    is_sound: bool,
}

impl From<Ran> for Figures {
    fn from(ran: Ran) -> Figures {
        Figures { rows: ran.rows, cpu_micros: ran.cpu_micros, generator: 0.0, is_sound: true }
    }
}

impl From<Window> for Figures {
    fn from(window: Window) -> Figures {
        Figures {
            rows: window.rows(),
            cpu_micros: window.cpu_micros(),
            generator: window.generator,
            is_sound: window.invalid().is_empty(),
        }
    }
}

pub(crate) fn measure(stage: &Stage<'_>, effort: Effort) -> Result<Found> {
    let processors = std::thread::available_parallelism()?.get();
    let rounds = effort.rounds(3);
    let mut found = Found { cases: Vec::new(), rounds, processors };
    for (model, engine) in CASES {
        if stage.made(model).is_some() && stage.wants(&format!("{model} {engine}")) {
            let case = case(stage, effort, model, engine, rounds);
            found.cases.push(case.with_context(|| format!("{model} on {engine}"))?);
        }
    }
    Ok(found)
}

/// Where the engine's library is: the newest by name.
fn engine(stage: &Stage<'_>, name: &'static str) -> Result<Engine> {
    let mut library = std::path::PathBuf::new();
    if name != "embedded" {
        let runtimes = stage.settings.places.runtimes.as_ref().context("SALVER_RUNTIMES is not set")?;
        let folder = runtimes.join(name);
        let entries = std::fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
        let newest = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_dir()).max();
        library = newest.with_context(|| format!("{} is empty", folder.display()))?;
    }
    Ok(Engine { name, library })
}

fn case(
    stage: &Stage<'_>,
    effort: Effort,
    name: &str,
    engine_name: &'static str,
    n_rounds: usize,
) -> Result<Case> {
    let made = stage.made(name).context("the model is there")?;
    let input = made.input(MOST_ROWS)?;
    let Search { best, lanes, tried } = inside::search(&engine(stage, engine_name)?, &made.onnx, &input)?;
    let batch = input.rows(0, best.batch).context("rows of the input")?;
    let server =
        stage.server(&format!("saturation-{name}-{engine_name}"), &[made.placed()], engine_name, &[])?;
    let ask = Ask::rows_of(&server, made)?.with_threads(2);
    let echo = Server::echo(Transport::Grpc)?;
    let size = ask.calls[0].body.len() - 5;
    let body = vec![7; size - prost::length_delimiter_len(size) - 1].into();
    let echo_ask =
        Ask::of_calls(&echo, vec![Call::grpc("/bench.Echo/Echo", &Ping { body })?])?.with_threads(2);
    // A window has many batches of the slowest side.
    let run = lanes.run(&batch, Duration::ZERO)?;
    let longest = (best.batch * best.lanes) as f64 / run.rows;
    let in_flight = if run.rows < SLOW { FEWER } else { IN_FLIGHT };
    let ask = ask.with_warm_up(in_flight[1], run.rows);
    let window = effort.seconds((longest * 10.0).max(N_ROWS / run.rows).clamp(1.5, 6.0));
    ask.closed(in_flight[1], window)?;
    let mut rounds = Vec::new();
    for round in 0..n_rounds {
        let inside = || lanes.run(&batch, window).map(Figures::from);
        let first = (round % 2 == 0).then(inside).transpose()?;
        let salver = in_flight.iter().map(|&n| ask.closed(n, window).map(Figures::from));
        let salver = salver.collect::<Result<Vec<_>>>()?;
        let inside = match first {
            Some(first) => first,
            None => inside()?,
        };
        let echo = echo_ask.closed(IN_FLIGHT[0], effort.seconds(0.8))?.into();
        rounds.push(Round { inside, salver, echo });
    }
    let case = Case {
        model: name.to_owned(),
        title: made.title.to_owned(),
        engine: engine_name.to_owned(),
        best,
        in_flight,
        request_bytes: ask.calls[0].body.len(),
        tried,
        rounds,
    };
    println!("{}: {}", case.label(), case.rates(2).join("  "));
    Ok(case)
}

impl Case {
    fn label(&self) -> String {
        let engine = if self.engine == "embedded" { "embedded" } else { "ONNX Runtime" };
        format!("{}, {engine}", self.title)
    }

    fn aim(&self) -> f64 {
        if self.model == TINY { AIM_TINY } else { AIM }
    }

    fn median(&self, figure: impl Fn(&Round) -> f64) -> f64 {
        median(self.rounds.iter().map(figure))
    }

    /// With how many on their way Salver has answered most.
    fn better(&self) -> usize {
        let rows = |at: usize| self.median(|round| round.salver[at].rows);
        (0..self.in_flight.len()).max_by(|&one, &other| rows(one).total_cmp(&rows(other))).unwrap_or(0)
    }

    fn is_sound(&self) -> bool {
        let at = self.better();
        self.rounds.iter().all(|round| round.salver[at].is_sound)
    }

    /// Throughput by that in process.
    fn ratio(&self) -> f64 {
        let at = self.better();
        self.median(|round| round.salver[at].rows / round.inside.rows)
    }

    /// Throughput by that in process on what the generator leaves of the processors.
    fn ratio_of_rest(&self, processors: usize) -> f64 {
        let (at, all) = (self.better(), processors as f64);
        self.median(|round| {
            let rest = (1.0 - round.salver[at].generator / all).max(0.01);
            round.salver[at].rows / (round.inside.rows * rest)
        })
    }

    fn form(&self) -> String {
        let Form { lanes, threads, batch } = self.best;
        let lanes = if threads == 1 { lanes.to_string() } else { format!("{lanes}, {threads} threads each") };
        format!("{batch} rows, lanes {lanes}")
    }

    fn rates(&self, processors: usize) -> Vec<String> {
        let at = self.better();
        let mut row = vec![self.form(), digits(self.median(|round| round.inside.rows))];
        for (at, n) in self.in_flight.iter().enumerate() {
            row.push(format!("{} ({n})", digits(self.median(|round| round.salver[at].rows))));
        }
        row.push(format!("{:.3}", self.ratio()));
        let generator = self.median(|round| round.salver[at].generator) / processors as f64;
        row.push(format!("{:.0} %", generator * 100.0));
        row.push(format!("{:.3}", self.ratio_of_rest(processors)));
        row.push(digits(self.median(|round| round.echo.rows)));
        row.push(format!("{:.2}", self.median(|round| round.salver[at].rows / round.echo.rows)));
        row.push(format!("{:.2}", self.aim()));
        row.push(yes(self.ratio() >= self.aim() && self.is_sound()));
        row
    }

    fn costs(&self) -> Vec<String> {
        let at = self.better();
        let inside = self.median(|round| round.inside.cpu_micros);
        let salver = self.median(|round| round.salver[at].cpu_micros);
        let echo = self.median(|round| round.echo.cpu_micros);
        let by = self.median(|round| round.inside.cpu_micros / round.salver[at].cpu_micros);
        let less = |round: &Round| {
            round.inside.cpu_micros / (round.salver[at].cpu_micros - round.echo.cpu_micros).max(0.01)
        };
        let rest = self.median(less);
        let mut row = vec![self.request_bytes.to_string()];
        row.extend([inside, salver, echo].map(digits));
        row.extend([
            format!("{by:.3}"),
            format!("{rest:.3}"),
            yes(by >= self.aim()),
            yes(rest >= self.aim()),
        ]);
        row
    }
}

impl Found {
    pub(crate) fn notes(&self) -> Vec<String> {
        vec![format!(
            "Saturation: closed loop with {} and {} in flight ({} and {} for slow models), {} rounds; the better of the two counts. In process, the \
             engine is called as its documentation says by 1 to {} threads with a session each, and by one with all \
             processors, on batches of 1 to 32 rows; the fastest three are tried again, and the fastest of these is measured in each round. The generator \
             takes processors that the engine has for itself in process, so throughput is shown by what is left of them too \
             (\"by the rest\"), and CPU time of the server's process alone by row. The echo is a bare tonic server that reads \
             a body of the same size and answers forty bytes: no server on these libraries can answer more requests than that \
             on this machine, whatever its engine does.",
            IN_FLIGHT[0], IN_FLIGHT[1], FEWER[0], FEWER[1], self.rounds, self.processors,
        )]
    }

    pub(crate) fn tables(&self) -> Vec<Table> {
        let labelled = |case: &Case, row: Vec<String>| [vec![case.label()], row].concat();
        vec![
            Table {
                title: "Saturation: rows per second".to_owned(),
                head: vec![
                    "model and engine",
                    "best in process",
                    "in process",
                    "Salver (in flight)",
                    "Salver (in flight)",
                    "ratio",
                    "generator's share",
                    "by the rest",
                    "echo",
                    "Salver by echo",
                    "aim",
                    "met",
                ],
                rows: self.cases.iter().map(|case| labelled(case, case.rates(self.processors))).collect(),
            },
            Table {
                title: "Saturation: CPU time of a row in µs, and rows per CPU second by those in process"
                    .to_owned(),
                head: vec![
                    "model and engine",
                    "request bytes",
                    "in process",
                    "Salver",
                    "echo",
                    "rows per CPU second",
                    "less the echo's",
                    "met",
                    "met less the echo's",
                ],
                rows: self.cases.iter().map(|case| labelled(case, case.costs())).collect(),
            },
        ]
    }
}
