//! `salver tune`: measures on what a model runs best here, compares the answers, and writes the choice beside the model.

mod axes;
mod candidates;
mod chart;
mod progress;
mod record;
mod report;
mod requests;
mod settled;
mod svg;
mod table;
mod weigh;

use std::cell::{Cell, RefCell};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use salver_engine::{ModelSource, Precision};
use salver_runtime::{Cpu, Kind, Machine, Runtimes};
use salver_tune::{Aim, Event, Goal, Job, Plan, Sharing, Tolerance};

use crate::opened;
use crate::runtime::RuntimeDir;

/// Find out on what a model runs best on this machine, and keep that beside the model.
///
/// Measures every engine that runs the model, over threads, lanes and batch sizes, and compares its answers with those of the
/// reference. What is chosen is used by `salver serve`.
#[derive(Debug, Clone, Args)]
pub(crate) struct TuneArgs {
    /// A model file, a version folder, or a folder with versions (the latest is taken).
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    /// Only these engines, between commas: embedded, onnxruntime, openvino, tensorflow.
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    engines: Vec<String>,
    /// Precisions that may be chosen besides f32, between commas: bf16, int8.
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    allow: Vec<Precision>,
    /// How far answers at a reduced precision may be from the reference's: the largest difference, as a share of the largest
    /// value of the output.
    #[arg(long, value_name = "SHARE", default_value_t = Tolerance::default().reduced_relative, value_parser = share)]
    tolerance: f64,
    /// The same for answers at f32.
    #[arg(long, value_name = "SHARE", default_value_t = Tolerance::default().f32_relative, value_parser = share)]
    f32_tolerance: f64,
    /// The share of rows whose class must be the same at a reduced precision.
    #[arg(long, value_name = "SHARE", default_value_t = Tolerance::default().top_1, value_parser = share)]
    top_1: f64,
    /// What the choice is to be best at.
    #[arg(long, value_enum, default_value_t = AimArg::Balanced)]
    goal: AimArg,
    /// Threads that are used in all; by default, all processors.
    #[arg(long, value_name = "N")]
    max_threads: Option<NonZeroUsize>,
    /// Batch sizes that are tried, between commas.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "1,8,32")]
    batch_sizes: Vec<NonZeroUsize>,
    /// Time for all of it in seconds, about. Loading everything and running it once is done in any case.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    budget: u64,
    /// A file with the body of a predict request, as REST takes it, instead of the model's warm-up requests.
    #[arg(long, value_name = "FILE.json")]
    requests: Option<PathBuf>,
    /// Draw latency against throughput.
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
    /// List everything that was measured and not only the best of each engine.
    #[arg(long)]
    all: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Write nothing beside the model.
    #[arg(long)]
    dry_run: bool,
    /// Load this and say what memory it takes: what the command asks of processes of its own.
    #[arg(long, hide = true, value_name = "LOAD")]
    weigh: Option<weigh::Load>,
    /// The ranges that int8 needs there.
    #[arg(long, hide = true, value_name = "FILE", requires = "weigh")]
    weigh_ranges: Option<PathBuf>,
    #[command(flatten)]
    dir: RuntimeDir,
}

/// [`Aim`] as it is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum AimArg {
    /// The shortest time for one caller.
    Latency,
    /// The most rows per second.
    Throughput,
    /// The most rows per second among what takes at most a quarter longer for one caller than the quickest.
    Balanced,
}

impl AimArg {
    fn aim(self) -> Aim {
        match self {
            AimArg::Latency => Aim::Latency,
            AimArg::Throughput => Aim::Throughput,
            AimArg::Balanced => Aim::Balanced,
        }
    }
}

fn share(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| format!("'{text}' is no number"))?;
    if number >= 0.0 { Ok(number) } else { Err(format!("{number}, expected 0 or more")) }
}

/// Where the model lies: what is loaded, and the path that settings lie beside.
#[derive(Debug, Clone)]
struct Subject {
    source: ModelSource,
    /// The model file or the version folder.
    place: PathBuf,
}

/// Measures, writes the choice, and returns what to print. Blocks for as long as that takes.
///
/// # Errors
/// When there is no model, nothing to ask it, no engine that says what is right, or a file that cannot be written.
pub(crate) fn tune(args: &TuneArgs) -> anyhow::Result<String> {
    let subject = Subject { source: opened::find(&args.model)?, place: opened::place(&args.model)? };
    let machine = Machine::here();
    let goal = args.goal();
    let plan = args.plan(&machine)?;
    let asked = Arc::new(OnceLock::new());
    let runtimes = args.dir.runtimes();
    let found = candidates::find(
        &crate::parts::engines(&runtimes),
        &subject.source,
        &args.engines,
        &goal.allowed,
        &asked,
    )?;
    if let Some(load) = &args.weigh {
        return weigh::here(args, &subject, &found, load, args.weigh_ranges.clone());
    }
    let mut progress = progress::Progress::start();
    found.absent_line(&args.engines).into_iter().for_each(|line| progress.note(&line));
    let job = Job { candidates: &found.candidates, references: &found.references, plan: &plan, goal: &goal };
    let origin = Cell::new(requests::Origin::MadeUp);
    let signature = RefCell::new(None);
    let make = |signatures: &[Arc<salver_tensor::Signature>]| {
        let (requests, from) = requests::of(&subject.place, args.requests.as_deref(), signatures)?;
        origin.set(from);
        let first = requests.first().map(|request| Arc::clone(&request.signature));
        *signature.borrow_mut() =
            first.filter(|first| requests.iter().all(|request| request.signature == *first));
        drop(asked.set(candidates::by_name(&requests, signatures)));
        Ok(requests)
    };
    let meter = salver_tune::Machine::new();
    let measured = salver_tune::tune(&job, &make, &meter, &mut |event| progress.event(&event));
    let mut measured =
        measured.inspect_err(|_| progress.finish()).with_context(|| shown(&subject.source.path))?;
    progress.event(&Event::Stage { name: "memory", n_steps: measured.candidates.len() });
    weigh::all(args, &found, &runtimes, &goal, &mut measured, &mut |what| {
        progress.event(&Event::Step { what })
    });
    progress.finish();
    let result = report::Outcome {
        path: shown(&subject.source.path),
        processor: Cpu::here().model,
        n_processors: machine.n_usable,
        goal: &goal,
        library: library(&runtimes, &measured),
        origin: origin.get(),
        signature: signature.take(),
        report: &measured,
    };
    if let Some(path) = &args.plot {
        std::fs::write(path, svg::svg(&result)).with_context(|| path.display().to_string())?;
    }
    let written = match args.dry_run {
        true => None,
        false => record::write(&subject.place, &result, found.ranges.as_deref())?,
    };
    if args.json {
        return report::json(&result, written.as_deref());
    }
    let mut text = table::text(&result, args.all);
    text.push_str(&chart::chart(&result));
    text.push_str(&table::conclusion(&result, written.as_deref(), args.dry_run));
    Ok(text.trim_end().to_owned())
}

/// The native library that the choice runs on, if it is not the engine that is compiled in.
fn library(runtimes: &Runtimes, report: &salver_tune::Report) -> Option<String> {
    let engine = &report.measured.get(report.choice?)?.engine;
    let found = runtimes.find(Kind::from_name(engine)?, None).ok()?;
    Some(format!("{engine} {}", found.version_text()))
}

impl TuneArgs {
    fn goal(&self) -> Goal {
        let mut allowed = self.allow.clone();
        allowed.sort_unstable();
        allowed.dedup();
        allowed.retain(|&precision| precision != Precision::F32);
        let tolerance = Tolerance {
            f32_relative: self.f32_tolerance,
            reduced_relative: self.tolerance,
            top_1: self.top_1,
        };
        Goal { aim: self.goal.aim(), allowed, tolerance }
    }

    fn plan(&self, machine: &Machine) -> anyhow::Result<Plan> {
        let cores = NonZeroUsize::new(machine.n_usable).unwrap_or(NonZeroUsize::MIN);
        let mut batch_sizes = self.batch_sizes.clone();
        batch_sizes.push(NonZeroUsize::MIN);
        batch_sizes.sort_unstable();
        batch_sizes.dedup();
        if let Some(size) = batch_sizes.iter().find(|size| size.get() > MAX_BATCH_SIZE) {
            bail!("--batch-sizes has {size}, expected {MAX_BATCH_SIZE} at most");
        }
        // The other half stays for what runs, and for everybody else.
        let max_loaded_bytes =
            machine.memory_limit.or(machine.memory).map_or(DEFAULT_MEMORY, |bytes| bytes / 2);
        Ok(Plan {
            sharings: Sharing::of_cores(cores, self.max_threads.unwrap_or(cores)),
            batch_sizes,
            budget: Duration::from_secs(self.budget.clamp(1, 24 * 3600)),
            max_loaded_bytes,
        })
    }
}

/// The largest batch size that is tried.
const MAX_BATCH_SIZE: usize = 4096;

/// What loaded models may take where the machine does not say what it has.
const DEFAULT_MEMORY: u64 = 2 << 30;

/// A path in messages.
fn shown(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests;
