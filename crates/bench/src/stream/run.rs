//! One run: a scorer reads a filled topic into a new one, and what it wrote says how fast it was.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};
use rdkafka::Message;
use serde::{Deserialize, Serialize};

use super::kafka::Topic;
use super::record::{Form, created, prediction};
use super::side::{Running, Side};
use super::stage::Stage;

/// How long the first answer may take.
const FIRST: Duration = Duration::from_secs(90);
/// Every so many records an answer is compared with the other sides'.
const SAMPLED: i64 = 509;
/// Fewer records say nothing of CPU time, whose clock ticks every 10 ms.
const LEAST: usize = 500;

/// What one run showed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Run {
    /// Answers per second after the first quarter, by the times at which the broker appended them.
    pub(crate) per_second: f64,
    /// CPU time of the scorer and of its servers for an answer, after the first quarter.
    pub(crate) cpu_us: [f64; 2],
    /// Share of all processors' time that was not idle meanwhile, whoever took it.
    pub(crate) busy: f64,
    pub(crate) n: usize,
}

/// Record -> the model's answer to it, of some records.
pub(crate) type Answers = BTreeMap<i64, Vec<f64>>;

/// Scores the topic until all is answered or so much time is over, counted from the first answer.
pub(crate) fn measured(
    stage: &Stage<'_>,
    side: Side,
    input: &Topic<'_>,
    n: usize,
    limit: Duration,
) -> Result<(Run, Answers)> {
    let output = stage.kafka()?.topic("out")?;
    let running = side.start(stage, &input.name, &output.name)?;
    let is_begun = |n: u64, _| n > 0;
    wait(&running, &output, Instant::now() + FIRST, is_begun)?;
    let started = Instant::now();
    let quarter = |n_done: u64, now: Instant| n_done * 4 >= n as u64 || now >= started + limit / 4;
    wait(&running, &output, started + FIRST, quarter)?;
    let from = Moment::now(&running)?;
    let all = |n_done: u64, now: Instant| n_done >= n as u64 || now >= started + limit;
    let n_done = wait(&running, &output, started + FIRST, all)?;
    let to = Moment::now(&running)?;
    // It finishes what is under way.
    drop(running);
    let (mut times, mut answers) = (Vec::with_capacity(n), Answers::new());
    let expected = if n_done >= n as u64 { n } else { 1 };
    output.read(expected, |message| {
        times.extend(message.timestamp().to_millis());
        let value = message.payload().unwrap_or_default();
        let id = if side.form() == Form::Json { created(value) } else { None };
        if let Some(id) = id.filter(|id| id % SAMPLED == 0) {
            answers.extend(prediction(value).map(|numbers| (id, numbers)));
        }
    })?;
    ensure!(times.len() <= n, "{} answers to {n} records", times.len());
    Ok((Run::new(times, &from, &to)?, answers))
}

fn wait(
    running: &Running,
    output: &Topic<'_>,
    give_up: Instant,
    is_over: impl Fn(u64, Instant) -> bool,
) -> Result<u64> {
    loop {
        let n = match running.n_answered() {
            Some(n) => n,
            None => output.n_offsets()?,
        };
        let now = Instant::now();
        if is_over(n, now) {
            return Ok(n);
        }
        running.check()?;
        ensure!(now < give_up, "{n} answers, and no more in time:\n{}", running.scorer.said());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What the clocks say.
#[derive(Debug)]
struct Moment {
    epoch_ms: i64,
    cpu: [Duration; 2],
    machine: [u64; 2],
}

impl Moment {
    fn now(running: &Running) -> Result<Moment> {
        Ok(Moment { epoch_ms: epoch_us() / 1_000, cpu: running.cpu()?, machine: machine() })
    }
}

/// Microseconds since 1970.
pub(crate) fn epoch_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// Clock ticks of all processors, in all and idle, see proc_stat(5).
fn machine() -> [u64; 2] {
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = text.lines().next().unwrap_or_default();
    let ticks: Vec<u64> = line.split_whitespace().skip(1).take(8).filter_map(|n| n.parse().ok()).collect();
    let idle = ticks.iter().skip(3).take(2).sum();
    [ticks.iter().sum(), idle]
}

impl Run {
    fn new(mut times: Vec<i64>, from: &Moment, to: &Moment) -> Result<Run> {
        times.sort_unstable();
        let n = times.len();
        let meanwhile = times.iter().filter(|time| (from.epoch_ms..to.epoch_ms).contains(time)).count();
        ensure!(
            meanwhile >= LEAST,
            "{meanwhile} of {n} answers came while CPU time was counted: take more records"
        );
        let cpu = |i: usize| (to.cpu[i] - from.cpu[i]).as_secs_f64() * 1e6 / meanwhile as f64;
        let [ticks, idle] = [0, 1].map(|i: usize| (to.machine[i] - from.machine[i]) as f64);
        Ok(Run { per_second: rate(&times), cpu_us: [cpu(0), cpu(1)], busy: 1.0 - idle / ticks.max(1.0), n })
    }
}

/// Answers per second after the first quarter, of sorted milliseconds.
fn rate(times: &[i64]) -> f64 {
    let first = times.len() / 4;
    match times.get(first..) {
        Some([begin, .., end]) if end > begin => {
            (times.len() - first - 1) as f64 * 1e3 / (end - begin) as f64
        }
        _ => 0.0,
    }
}

/// The largest difference of two answers to the same record.
pub(crate) fn difference(one: &Answers, other: &Answers) -> f64 {
    let both = one.iter().filter_map(|(id, numbers)| Some((numbers, other.get(id)?)));
    let differences = both.flat_map(|(one, other)| match one.len() == other.len() {
        true => one.iter().zip(other).map(|(one, other)| (one - other).abs()).collect(),
        false => vec![f64::INFINITY],
    });
    differences.fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_quarter_is_left_out() {
        let check =
            |times: &[i64], expected: f64| assert!((rate(times) - expected).abs() < 1e-9, "{times:?}");
        check(&[], 0.0);
        check(&[7], 0.0);
        check(&[0, 1_000, 1_500, 2_000], 2.0);
        check(&[5, 5, 5, 5], 0.0);
    }

    #[test]
    fn answers_of_other_lengths_differ() {
        let answers = |numbers: &[f64]| Answers::from([(1, numbers.to_vec())]);
        assert!(difference(&answers(&[1.0]), &answers(&[1.0, 2.0])).is_infinite());
        assert!((difference(&answers(&[1.0]), &answers(&[1.5])) - 0.5).abs() < 1e-12);
    }
}
