//! An engine called in this process by so many threads, each with a session of its own: what a server is measured against.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use salver_tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::drive::process_cpu;
use crate::direct::{self, Direct};
use crate::stats::median;

/// Rows of a batch that are tried.
const BATCHES: [usize; 6] = [1, 2, 4, 8, 16, 32];
/// A batch size is tried for so long.
const TRIAL: Duration = Duration::from_millis(300);
/// Larger batches are not tried when a run is expected to take longer.
const LONGEST: f64 = 3.0;
/// Larger batches are not tried when two in a row gave less than this part of the best.
const FAR_BELOW: f64 = 0.85;
/// So many of the fastest are tried again, so often.
const FINALISTS: usize = 3;
const FINALS: usize = 3;

/// An engine with a model's file.
#[derive(Debug, Clone)]
pub(crate) struct Engine {
    pub(crate) name: &'static str,
    /// Where its library is; nothing for the embedded one.
    pub(crate) library: PathBuf,
}

/// How many threads call, and how the engine is used by each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Form {
    pub(crate) lanes: usize,
    /// Threads of one run.
    pub(crate) threads: usize,
    pub(crate) batch: usize,
}

/// What a window gave.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ran {
    /// Rows per second.
    pub(crate) rows: f64,
    /// CPU time of a row, in microseconds.
    pub(crate) cpu_micros: f64,
}

/// Threads that wait for something to run. They end when this is dropped.
#[derive(Debug)]
pub(crate) struct Lanes {
    orders: Vec<Sender<(Tensor, Duration)>>,
    done: Receiver<Result<(usize, Duration)>>,
}

impl Lanes {
    /// Loads the model once for each lane.
    pub(crate) fn open(engine: &Engine, onnx: &Path, lanes: usize, threads: usize) -> Result<Lanes> {
        let threads = NonZeroUsize::new(threads).context("a run uses a thread")?;
        let (tell, done) = channel();
        let orders = (0..lanes).map(|_| {
            let (order, orders) = channel();
            let (engine, onnx, tell) = (engine.clone(), onnx.to_owned(), tell.clone());
            std::thread::spawn(move || {
                let opened = match engine.name {
                    "embedded" => direct::rten::open(&onnx, threads),
                    _ => direct::onnxruntime::open(&engine.library, &onnx, threads),
                };
                match opened {
                    Ok(model) => one_lane(model, &orders, &tell),
                    // It is told in place of the answer to the first order.
                    Err(error) => drop(tell.send(Err(error))),
                }
            });
            order
        });
        Ok(Lanes { orders: orders.collect(), done })
    }

    /// Lets every lane run the batch over and over for a time, and the last run to its end.
    pub(crate) fn run(&self, batch: &Tensor, time: Duration) -> Result<Ran> {
        let n_rows = batch.shape().n_rows().context("a batch has rows")? as f64;
        let cpu = process_cpu();
        for order in &self.orders {
            // A lane that has ended says why below.
            order.send((batch.clone(), time)).ok();
        }
        let (mut rate, mut n_runs) = (0.0, 0);
        for _ in &self.orders {
            let (runs, took) = self.done.recv().map_err(|_| anyhow!("a lane has ended"))??;
            rate += runs as f64 * n_rows / took.as_secs_f64();
            n_runs += runs;
        }
        let cpu = process_cpu() - cpu;
        Ok(Ran { rows: rate, cpu_micros: cpu.as_secs_f64() * 1e6 / (n_runs as f64 * n_rows) })
    }
}

fn one_lane(
    mut model: Direct,
    orders: &Receiver<(Tensor, Duration)>,
    tell: &Sender<Result<(usize, Duration)>>,
) {
    while let Ok((batch, time)) = orders.recv() {
        let inputs = [batch];
        let (start, mut n) = (Instant::now(), 0);
        let ran = loop {
            if let Err(error) = model(&inputs) {
                break Err(error);
            }
            n += 1;
            let took = start.elapsed();
            if took >= time {
                break Ok((n, took));
            }
        };
        if tell.send(ran).is_err() {
            return;
        }
    }
}

/// What was tried, and the fastest.
pub(crate) struct Search {
    pub(crate) best: Form,
    pub(crate) lanes: Lanes,
    pub(crate) tried: Vec<(Form, f64)>,
}

/// Tries numbers of lanes and batch sizes: one thread for each of 1 to all processors, and one lane with all of them.
/// `rows` has as many rows as the largest batch.
pub(crate) fn search(engine: &Engine, onnx: &Path, rows: &Tensor) -> Result<Search> {
    let n = std::thread::available_parallelism()?.get();
    let mut shapes: Vec<(usize, usize)> = (1..=n).map(|lanes| (lanes, 1)).collect();
    shapes.extend((n > 1).then_some((1, n)));
    let mut tried: Vec<(Form, f64)> = Vec::new();
    for (lanes, threads) in shapes {
        let open = Lanes::open(engine, onnx, lanes, threads)?;
        let (mut best, mut n_below) = (0.0f64, 0);
        for batch in BATCHES {
            let input = rows.rows(0, batch).context("rows of the input")?;
            // The first run of a shape sets up what the others use.
            let first = open.run(&input, Duration::ZERO)?;
            let rate = open.run(&input, TRIAL)?.rows;
            tried.push((Form { lanes, threads, batch }, rate));
            n_below = if rate < best * FAR_BELOW { n_below + 1 } else { 0 };
            best = best.max(rate);
            if n_below == 2 || (batch * lanes * 2) as f64 / first.rows > LONGEST {
                break;
            }
        }
    }
    tried.sort_by(|one, other| other.1.total_cmp(&one.1));
    let best = again(engine, onnx, rows, &mut tried)?;
    Ok(Search { best, lanes: Lanes::open(engine, onnx, best.lanes, best.threads)?, tried })
}

/// Tries the few that were fastest again, in turn and for longer: one short trial may have been lucky.
fn again(engine: &Engine, onnx: &Path, rows: &Tensor, tried: &mut [(Form, f64)]) -> Result<Form> {
    let n = tried.len().min(FINALISTS);
    let mut rates = vec![Vec::new(); n];
    for _ in 0..FINALS {
        for (at, (form, _)) in tried[..n].iter().enumerate() {
            let lanes = Lanes::open(engine, onnx, form.lanes, form.threads)?;
            let input = rows.rows(0, form.batch).context("rows of the input")?;
            lanes.run(&input, Duration::ZERO)?;
            rates[at].push(lanes.run(&input, TRIAL * 2)?.rows);
        }
    }
    for (one, rates) in tried.iter_mut().zip(rates) {
        one.1 = median(rates);
    }
    let best = tried[..n].iter().max_by(|one, other| one.1.total_cmp(&other.1));
    Ok(best.context("something was tried")?.0)
}
