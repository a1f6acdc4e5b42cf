//! Turns: all sides run one after another, round by round, in an order that moves on, so that what the machine does
//! meanwhile falls on all of them alike.

use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use salver_tensor::Tensor;

use super::Made;
use super::subject::{Side, Subject, timed};
use crate::direct::Direct;
use crate::stats::median;

/// How long a turn takes at least, by the first runs, unless one run takes longer.
const TURN: f64 = 0.02;
const MAX_RUNS: f64 = 500.0;
const MAX_ROUNDS: usize = 41;
const FEW_ROUNDS: usize = 3;

/// How many times the time that there is the rounds that were asked for may take.
const OVERTIME: u32 = 5;

/// What one side did with one model and batch size.
#[derive(Debug, Clone)]
pub(crate) struct Measured {
    pub(crate) side: Side,
    pub(crate) label: &'static str,
    /// Milliseconds of a run through Salver.
    pub(crate) ms: f64,
    /// Milliseconds of a run of the engine called directly.
    pub(crate) direct_ms: Option<f64>,
    /// Time through Salver by time called directly: the median over the rounds.
    pub(crate) ratio: Option<f64>,
    /// Largest absolute difference to TensorFlow's answer, through Salver and called directly.
    pub(crate) difference: f64,
    pub(crate) direct_difference: Option<f64>,
    pub(crate) rounds: usize,
}

/// The same, and what was run.
#[derive(Debug, Clone)]
pub(crate) struct Cell {
    pub(crate) model: &'static str,
    pub(crate) batch: usize,
    pub(crate) threads: usize,
    pub(crate) measured: Measured,
}

impl Cell {
    pub(crate) fn new(model: &Made, batch: usize, threads: NonZeroUsize, measured: Measured) -> Cell {
        Cell { model: model.name, batch, threads: threads.get(), measured }
    }
}

/// One side while it is measured.
struct Turns {
    runs: usize,
    through: Vec<f64>,
    direct: Vec<f64>,
    difference: f64,
    direct_difference: Option<f64>,
}

/// Measures all sides on one batch: `rounds` rounds, and more until `budget` is over; fewer where they take much longer.
pub(crate) fn cell(
    model: &Made,
    batch: usize,
    subjects: &mut [Subject],
    rounds: usize,
    budget: Duration,
) -> Result<Vec<Measured>> {
    let start = Instant::now();
    let inputs = [model.input(batch)?];
    let expected = model.answer(batch)?;
    let mut turns = Vec::new();
    for subject in &mut *subjects {
        turns.push(warm_up(subject, &inputs, &expected).with_context(|| subject.side.label)?);
    }
    let mut n_rounds = 0;
    while is_to_go_on(n_rounds, rounds, start.elapsed(), budget) {
        for at in 0..subjects.len() {
            let at = (at + n_rounds) % subjects.len();
            take_turn(&mut subjects[at], &mut turns[at], &inputs, n_rounds % 2 == 0)?;
        }
        n_rounds += 1;
    }
    Ok(subjects.iter().zip(turns).map(|(subject, turns)| turns.measured(subject.side, n_rounds)).collect())
}

/// Whether another round is to be run: few rounds always, as many as were asked for unless they take far more time than
/// there is, and more while there is time.
fn is_to_go_on(done: usize, asked: usize, elapsed: Duration, budget: Duration) -> bool {
    match done {
        _ if done < FEW_ROUNDS.min(asked) => true,
        _ if done < asked => elapsed < budget * OVERTIME,
        _ => done < MAX_ROUNDS && elapsed < budget,
    }
}

fn run_direct(direct: &mut Direct, inputs: &[Tensor], runs: usize) -> Result<(Vec<f64>, Vec<Tensor>)> {
    timed(runs, || direct(inputs))
}

/// First runs, which set up kernels; they also say how many runs make a turn, and whether the answers are right.
fn warm_up(subject: &mut Subject, inputs: &[Tensor], expected: &[f32]) -> Result<Turns> {
    let (_, answer) = subject.through.run(inputs, 1)?;
    let difference = difference(&answer, expected)?;
    let direct_difference = match &mut subject.direct {
        Some(direct) => Some(self::difference(&run_direct(direct, inputs, 2)?.1, expected)?),
        None => None,
    };
    let (times, _) = subject.through.run(inputs, 1)?;
    let runs = (TURN / times.first().copied().unwrap_or(TURN).max(1e-9)).clamp(1.0, MAX_RUNS) as usize;
    Ok(Turns { runs, through: Vec::new(), direct: Vec::new(), difference, direct_difference })
}

fn take_turn(subject: &mut Subject, turns: &mut Turns, inputs: &[Tensor], direct_first: bool) -> Result<()> {
    let mut direct = |turns: &mut Turns| -> Result<()> {
        if let Some(direct) = &mut subject.direct {
            turns.direct.push(median(run_direct(direct, inputs, turns.runs)?.0));
        }
        Ok(())
    };
    if direct_first {
        direct(turns)?;
    }
    turns.through.push(median(subject.through.run(inputs, turns.runs)?.0));
    if !direct_first {
        direct(turns)?;
    }
    Ok(())
}

impl Turns {
    fn measured(self, side: Side, rounds: usize) -> Measured {
        let has_direct = !self.direct.is_empty();
        let ratios = self.through.iter().zip(&self.direct).map(|(through, direct)| through / direct);
        Measured {
            side,
            label: side.label,
            ratio: has_direct.then(|| median(ratios)),
            ms: median(self.through.iter().copied()) * 1e3,
            direct_ms: has_direct.then(|| median(self.direct.iter().copied()) * 1e3),
            difference: self.difference,
            direct_difference: self.direct_difference,
            rounds,
        }
    }
}

/// The largest absolute difference of all outputs to what is expected of them.
fn difference(answer: &[Tensor], expected: &[f32]) -> Result<f64> {
    let mut values = Vec::new();
    for tensor in answer {
        values.extend_from_slice(&tensor.to_slice::<f32>().context("an answer of float32")?);
    }
    anyhow::ensure!(values.len() == expected.len(), "{} numbers, expected {}", values.len(), expected.len());
    let far = values.iter().zip(expected).map(|(a, b)| f64::from((a - b).abs()));
    // A NaN is further away than anything.
    Ok(far.fold(0.0, |most, far| if far.is_nan() { f64::INFINITY } else { f64::max(most, far) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_end_by_number_and_time() {
        let budget = Duration::from_secs(10);
        for (done, seconds, expected) in [
            (0, 0, true),
            (2, 1000, true),
            (3, 49, true),
            (3, 50, false),
            (5, 9, true),
            (5, 10, false),
            (MAX_ROUNDS, 0, false),
        ] {
            let goes_on = is_to_go_on(done, 5, Duration::from_secs(seconds), budget);
            assert_eq!(goes_on, expected, "{done} rounds in {seconds} s");
        }
    }
}
