//! Every engine through Salver and called directly, on the same models in one run, beside TensorFlow's answers.

mod measure;
mod models;
mod subject;
mod tables;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Args;

use crate::Common;
use measure::Cell;
pub(crate) use models::{Made, make};
pub(crate) use subject::{Side, Through};

/// What the program takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct Settings {
    #[command(flatten)]
    pub(crate) places: Places,
    /// Models to measure
    #[arg(long, value_delimiter = ',')]
    models: Vec<String>,
    /// Rows in a batch
    #[arg(long, value_delimiter = ',', default_values_t = [1, 8, 32])]
    batches: Vec<usize>,
    /// Threads of a run
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2])]
    threads: Vec<usize>,
    /// Rounds in which all sides take turns; fewer, but three, where they take very long
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds for one model, batch size and number of threads; more rounds are run until they are over
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// A few minutes instead of twenty: batches 1 and 8, one thread, the small models and one of pictures
    #[arg(long)]
    quick: bool,
}

/// Where things are.
#[derive(Debug, Clone, Args)]
pub(crate) struct Places {
    /// A Python interpreter with tensorflow and keras
    #[arg(long, default_value = "python3")]
    pub(crate) python: PathBuf,
    /// Folder for the models that are made
    #[arg(long, default_value = "target/bench-engines")]
    pub(crate) folder: PathBuf,
    /// Folder with the engines' libraries, as NAME/VERSION
    #[arg(long, env = "SALVER_RUNTIMES")]
    pub(crate) runtimes: Option<PathBuf>,
}

/// Models of the short run.
const QUICK: [&str; 4] = ["mobilenet_v2", "weather", "crayfish", "bert_mini"];

/// The aim of the issue: through Salver an engine takes at most this much longer than called directly.
const AIM: f64 = 1.03;

impl Settings {
    fn shortened(&self) -> Settings {
        let mut settings = self.clone();
        if self.quick {
            settings.batches.retain(|&batch| batch <= 8);
            settings.threads.truncate(1);
            settings.seconds = settings.seconds.min(4);
            if settings.models.is_empty() {
                settings.models = QUICK.map(str::to_owned).to_vec();
            }
        }
        settings
    }
}

/// Measures and reports.
pub(crate) fn run(common: &Common, settings: &Settings) -> Result<()> {
    let settings = settings.shortened();
    let made = make(common, &settings.places, &settings.models, &settings.batches)?;
    let (mut cells, mut refusals) = (Vec::new(), Vec::new());
    for model in &made {
        for &threads in &settings.threads {
            let threads = NonZeroUsize::new(threads).unwrap_or(NonZeroUsize::MIN);
            let mut subjects = subject::open(model, &settings.places, threads, &mut refusals);
            ensure!(!subjects.is_empty(), "no engine runs {}", model.name);
            for &batch in &settings.batches {
                let budget = Duration::from_secs(settings.seconds);
                let measured = measure::cell(model, batch, &mut subjects, settings.rounds, budget)?;
                progress(model, batch, threads, &measured);
                cells.extend(measured.into_iter().map(|side| Cell::new(model, batch, threads, side)));
            }
        }
    }
    refusals.sort();
    refusals.dedup();
    tables::report(&made, &settings, &cells, &refusals).publish(common)
}

fn progress(model: &Made, batch: usize, threads: NonZeroUsize, measured: &[measure::Measured]) {
    let sides: Vec<String> = measured
        .iter()
        .map(|side| {
            let ratio = side.ratio.map_or_else(String::new, |ratio| format!(" ({ratio:.3})"));
            format!("{} {:.3} ms{ratio}", side.label, side.ms)
        })
        .collect();
    println!("{}, batch {batch}, {threads} threads: {}", model.name, sides.join(", "));
}
