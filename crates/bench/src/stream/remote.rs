//! What asking servers costs: throughput beside the model embedded on the same processors, and a slow server among three.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::paced::{paced, quantile};
use super::proxy::Proxy;
use super::record::{Form, Records};
use super::run::measured;
use super::side::{Salver, Side, Where, grpc, server};
use super::stage::Stage;
use crate::load::Target;
use crate::peers::tree::Tree;
use crate::report::Table;
use crate::sections::yes;
use crate::server::free_address;
use crate::stats::{digits, median};

/// The aims: the share of throughput that may be lost, and how much worse a p99 may be.
const LOSS: f64 = 0.3;
const WORSE: f64 = 1.05;
/// Both sides may use these.
const PROCESSORS: usize = 2;
const MOST: Duration = Duration::from_secs(60);
/// How much later all answers of the slow server come.
const DELAY: Duration = Duration::from_millis(50);
/// Of the slow server's part: records per second, and the length of a window in seconds.
const PER_SECOND: f64 = 1_500.0;
const WINDOW: f64 = 3.0;
/// Windows of a round, in turn without and with the delay.
const WINDOWS: usize = 16;
const N_SERVERS: usize = 3;
/// Records of the run that is taken off: what starting costs.
const FEW: usize = 64;

#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Found {
    pairs: Vec<Pair>,
    slow: Vec<Slow>,
}

/// Embedded and remote, in this order.
#[derive(Debug, Serialize, Deserialize)]
struct Pair {
    label: String,
    rounds: Vec<[Cost; 2]>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Cost {
    per_second: f64,
    /// Of the scorer and of the server.
    cpu_us: [f64; 2],
}

/// Milliseconds without the delay and with it.
#[derive(Debug, Serialize, Deserialize)]
struct Slow {
    p50: [f64; 2],
    p99: [f64; 2],
    n: [usize; 2],
    invalid: String,
}

pub(crate) fn measure(stage: &Stage<'_>) -> Result<Found> {
    let mut found = Found::default();
    let label = |text: &str| text.contains(&stage.settings.case);
    for (text, is_topic) in [("from topic to topic", true), ("from a file to a pipe", false)] {
        if label(text) {
            let rounds = if is_topic { over_topics(stage) } else { over_files(stage) };
            let rounds = rounds.with_context(|| text.to_owned())?;
            found.pairs.push(Pair { label: text.to_owned(), rounds });
        }
    }
    if label("slow") {
        for round in 0..stage.settings.rounds {
            let slow = slow(stage).context("a slow server")?;
            println!("slow, round {}: {slow:?}", round + 1);
            found.slow.push(slow);
        }
    }
    Ok(found)
}

fn pair(stage: &Stage<'_>) -> [Salver; 2] {
    [Where::Here(stage.engine()), Where::Server]
        .map(|place| Salver { workers: PROCESSORS, ..Salver::new(place, false) })
}

/// In turn, another first each round.
fn rounds(stage: &Stage<'_>, one: impl Fn(Salver) -> Result<Cost>) -> Result<Vec<[Cost; 2]>> {
    let [embedded, remote] = pair(stage);
    let round = |round| -> Result<[Cost; 2]> {
        let costs = match round % 2 {
            0 => [one(embedded)?, one(remote)?],
            _ => {
                let cost = one(remote)?;
                [one(embedded)?, cost]
            }
        };
        println!("{costs:?}");
        Ok(costs)
    };
    (0..stage.settings.rounds).map(round).collect()
}

fn over_topics(stage: &Stage<'_>) -> Result<Vec<[Cost; 2]>> {
    let n = stage.settings.records;
    let topic = stage.filled(Form::Json, n)?;
    rounds(stage, |salver| {
        let (run, _) = measured(stage, Side::Salver(salver), &topic, n, MOST)?;
        Ok(Cost { per_second: run.per_second, cpu_us: run.cpu_us })
    })
}

fn over_files(stage: &Stage<'_>) -> Result<Vec<[Cost; 2]>> {
    let n = stage.settings.records;
    let (few, all) = (stage.path("few.jsonl"), stage.path("all.jsonl"));
    write_lines(stage, &few, FEW)?;
    write_lines(stage, &all, n)?;
    let found = rounds(stage, |salver| {
        let servers = if salver.place == Where::Server { vec![server(stage)?] } else { Vec::new() };
        let (start, start_cpu) = whole(stage, salver, &servers, &few)?;
        let (time, cpu) = whole(stage, salver, &servers, &all)?;
        let n = (n - FEW) as f64;
        let cpu = [0, 1].map(|i: usize| cpu[i].saturating_sub(start_cpu[i]).as_secs_f64() * 1e6 / n);
        Ok(Cost { per_second: n / time.saturating_sub(start).as_secs_f64(), cpu_us: cpu })
    });
    // Large, and of no more use.
    std::fs::remove_file(all)?;
    found
}

fn write_lines(stage: &Stage<'_>, path: &Path, n: usize) -> Result<()> {
    let records = Records::new(Form::Json, stage.n_numbers());
    let mut file = BufWriter::new(File::create(path)?);
    let mut value = Vec::new();
    for index in 0..n as u64 {
        records.write(index, 1_700_000_000_000 + index as i64, &mut value);
        value.push(b'\n');
        file.write_all(&value)?;
    }
    Ok(file.flush()?)
}

/// The time and the CPU time of one whole run over a file, whose answers go to the log.
fn whole(
    stage: &Stage<'_>,
    salver: Salver,
    servers: &[Tree],
    input: &Path,
) -> Result<(Duration, [Duration; 2])> {
    let addresses: Vec<_> = servers.iter().map(grpc).collect();
    let (mut command, metrics) = salver.command(stage, &addresses)?;
    command.arg("--from").arg(input).args(["--to", "-", "--delivery", "at_least_once"]);
    let cpu = |servers: &[Tree]| servers.iter().map(Target::cpu).sum::<Result<Duration>>();
    let before = cpu(servers)?;
    // The answers pass through a pipe, as to a program that reads them.
    let mut sink = std::process::Command::new("cat");
    let (reader, writer) = std::io::pipe()?;
    let mut sink = sink.stdin(reader).stdout(std::process::Stdio::null()).spawn()?;
    let log = stage.path("scorer.log");
    let mut scorer = Tree::start_into(command, writer, metrics, free_address()?, &log)?;
    let give_up = Instant::now() + MOST;
    while !scorer.has_ended() {
        ensure!(Instant::now() < give_up, "not done after {MOST:?}:\n{}", scorer.said());
        std::thread::sleep(Duration::from_millis(2));
    }
    let time = scorer.started.elapsed();
    let used = [scorer.cpu()?, cpu(servers)?.saturating_sub(before)];
    ensure!(scorer.has_succeeded()?, "the scorer has failed:\n{}", scorer.said());
    sink.wait()?;
    Ok((time, used))
}

/// One stream over three servers behind a network; in turn none and one of them is slow.
fn slow(stage: &Stage<'_>) -> Result<Slow> {
    let servers = (0..N_SERVERS).map(|_| server(stage)).collect::<Result<Vec<_>>>()?;
    let proxies = servers.iter().map(|server| Proxy::before(grpc(server))).collect::<Result<Vec<_>>>()?;
    let addresses: Vec<_> = proxies.iter().map(|proxy| proxy.address).collect();
    let salver = Salver { linger_ms: Some(0), ..Salver::new(Where::Server, false) };
    let (input, output) = (stage.kafka()?.topic("in")?, stage.kafka()?.topic("out")?);
    let mut running =
        Side::Salver(salver).start_with(stage, &input.name, &output.name, servers, &addresses)?;
    running.wait_ready()?;
    let window = stage.settings.seconds(WINDOW);
    // Two windows before those that count.
    let time = window * (WINDOWS as u32 + 2);
    let index_at = |after: Duration| (after.as_secs_f64() / window.as_secs_f64()) as usize;
    let is_slow = |index: usize| index >= 2 && index % 2 == 1;
    let answers = paced(stage, [&input, &output], PER_SECOND, time, |after| {
        let by = if is_slow(index_at(after)) { DELAY } else { Duration::ZERO };
        proxies[0].delay(by);
    })
    .with_context(|| running.scorer.said())?;
    let begin = answers.seen.iter().map(|seen| seen.sent_us).min().unwrap_or_default();
    let mut windows: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
    for seen in &answers.seen {
        let index = index_at(Duration::from_micros((seen.sent_us - begin).unsigned_abs()));
        if index >= 2 {
            windows.entry(index).or_default().push(seen.visible());
        }
    }
    // Of each window, and then the median: a pause of the broker or of this program is in one window and not in the rest.
    let mut of = |slow: bool, part: f64| {
        let windows = windows.iter_mut().filter(|(index, _)| is_slow(**index) == slow);
        median(windows.map(|(_, values)| quantile(values, part)))
    };
    let (p50, p99) = ([false, true].map(|slow| of(slow, 0.5)), [false, true].map(|slow| of(slow, 0.99)));
    let n_of = |slow| {
        windows.iter().filter(|(index, _)| is_slow(**index) == slow).map(|(_, values)| values.len()).sum()
    };
    let n = [false, true].map(n_of);
    Ok(Slow { p50, p99, n, invalid: answers.invalid })
}

impl Pair {
    fn row(&self) -> Vec<String> {
        let of = |figure: &dyn Fn(&[Cost; 2]) -> f64| median(self.rounds.iter().map(figure));
        let share = of(&|[embedded, remote]| remote.per_second / embedded.per_second);
        vec![
            self.label.clone(),
            digits(of(&|[embedded, _]| embedded.per_second)),
            digits(of(&|[_, remote]| remote.per_second)),
            format!("{:.0} %", share * 100.0),
            digits(of(&|[embedded, _]| embedded.cpu_us[0])),
            digits(of(&|[_, remote]| remote.cpu_us[0])),
            digits(of(&|[_, remote]| remote.cpu_us[1])),
            yes(share >= 1.0 - LOSS),
        ]
    }
}

impl Found {
    pub(crate) fn notes(&self) -> Vec<String> {
        vec![
            format!(
                "Remote: the Crayfish records scored at least once by one scorer with {PROCESSORS} workers, embedded, and by \
                 asking one `salver serve` that shares the same {PROCESSORS} processors. From topic to topic the broker works \
                 on them as well; from a file to a pipe nobody else does but the program that empties the pipe, and what a \
                 run over {FEW} records takes is taken off. The aim is that remote loses at most {:.0} %.",
                LOSS * 100.0
            ),
            format!(
                "A slow server: one scorer with one worker, at least once, asks {N_SERVERS} servers, each through a relay in \
                 this program; in every second window of {WINDOW} s the relay of one of them hands all answers on {} ms late. \
                 {} records per second come evenly; latency is until a reader has the answer. Finding out that it is slow, \
                 and asking it again now and then, is part of those windows. The p99 is that of each window, and of these the median. The aim is one at most {:.0} % higher.",
                DELAY.as_millis(),
                digits(PER_SECOND),
                (WORSE - 1.0) * 100.0
            ),
        ]
    }

    pub(crate) fn tables(&self) -> Vec<Table> {
        let mut tables = Vec::new();
        if !self.pairs.is_empty() {
            tables.push(Table {
                title: "Remote beside embedded on the same processors".to_owned(),
                head: vec![
                    "records",
                    "embedded /s",
                    "remote /s",
                    "remote by embedded",
                    "CPU µs a record embedded",
                    "remote: scorer",
                    "server",
                    "met",
                ],
                rows: self.pairs.iter().map(Pair::row).collect(),
            });
        }
        if !self.slow.is_empty() {
            let of = |figure: &dyn Fn(&Slow) -> f64| median(self.slow.iter().map(figure));
            let ratio = of(&|slow| slow.p99[1] / slow.p99[0]);
            let n_sound = self.slow.iter().filter(|slow| slow.invalid.is_empty()).count();
            tables.push(Table {
                title: "One slow server of three, in ms".to_owned(),
                head: vec![
                    "p50 without",
                    "with",
                    "p99 without",
                    "with",
                    "ratio",
                    "rounds in which the producer kept up",
                    "met",
                ],
                rows: vec![vec![
                    digits(of(&|slow| slow.p50[0])),
                    digits(of(&|slow| slow.p50[1])),
                    digits(of(&|slow| slow.p99[0])),
                    digits(of(&|slow| slow.p99[1])),
                    format!("{ratio:.3}"),
                    format!("{n_sound} of {}", self.slow.len()),
                    yes(ratio <= WORSE && n_sound * 2 > self.slow.len()),
                ]],
            });
        }
        tables
    }
}
