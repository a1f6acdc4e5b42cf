//! A model's own time: runs on the engine in this process, without a server.

use std::num::NonZeroUsize;
use std::time::Duration;

use anyhow::{Context, Result};
use salver_engine::Session;
use salver_tensor::{Shape, Tensor};

use crate::stats::{median, thread_cpu};
use crate::subject::Subject;

/// Runs per reading of the clock.
const RUNS: u32 = 50;
const ROUNDS: u32 = 20;

/// The median CPU time of a run on one thread that is inside the engine's pool, as a lane's thread is.
pub(crate) fn own_time(subject: &Subject) -> Result<Duration> {
    let model = salver_engine_rten::load_bytes(subject.model.clone())?;
    let inputs = [Tensor::from_vec(Shape::new(&subject.shape)?, subject.values.clone())?];
    let signature = model.signatures().first().context("the model has no signature")?;
    let outputs: Vec<usize> = (0..signature.outputs().len()).collect();
    let mut session = model.session()?;
    let mut result = Ok(Duration::ZERO);
    model.enter(NonZeroUsize::MIN, &mut || result = median_run(&mut *session, &inputs, &outputs));
    result
}

fn median_run(session: &mut dyn Session, inputs: &[Tensor], outputs: &[usize]) -> Result<Duration> {
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let start = thread_cpu();
        for _ in 0..RUNS {
            std::hint::black_box(session.run(0, inputs, outputs)?);
        }
        times.push(((thread_cpu() - start) / RUNS).as_secs_f64());
    }
    Ok(Duration::from_secs_f64(median(times)))
}
