//! Loads every model of a sweep folder (`tests/sweep` makes it), runs it, and compares with TensorFlow's answers.
//!
//! `cargo xtask sweep` makes the folder and starts this. The report is `docs/sweep.md` and `FOLDER/report.json`.
#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a program for the terminal that reads clocks to say how long a load takes"
)]

mod case;
mod compare;
mod report;
mod run;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Parser;
use salver_engine::Engine;
use salver_engine_graph::{GraphEngine, Parts};
use salver_engine_rten::{RtenEngine, load_graph, supports_in};

use crate::case::Case;
use crate::run::{Outcome, Status};

#[derive(Debug, Parser)]
#[command(name = "sweep", about = "Compares imported models with TensorFlow's own answers")]
struct Cli {
    /// The folder of cases
    #[arg(long, default_value = "target/sweep")]
    folder: PathBuf,
    /// Only cases whose `family/case` contains one of these texts (any of them, separated by commas)
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Only these formats: h5, keras, savedmodel, frozen
    #[arg(long, value_delimiter = ',')]
    formats: Vec<String>,
    /// Writes the table here
    #[arg(long)]
    table: Option<PathBuf>,
    /// Cases at a time
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Seconds after which a model counts as hanging
    #[arg(long, default_value_t = 120)]
    patience: u64,
    /// Prints every model and not only those at fault
    #[arg(long)]
    all: bool,
}

fn main() -> ExitCode {
    match sweep(&Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Whether every model agrees or is refused by name.
fn sweep(cli: &Cli) -> Result<bool> {
    let cases = case::read_all(&cli.folder)?;
    let wanted: Vec<&Case> = cases.iter().filter(|case| is_wanted(case, &cli.only)).collect();
    if wanted.is_empty() {
        bail!("no case in {}", cli.folder.display());
    }
    // A panic of a model is one line of the report.
    std::panic::set_hook(Box::new(|_| ()));
    let outcomes = outcomes(cli, &wanted);
    drop(std::panic::take_hook());
    report::print(&outcomes);
    let json = cli.folder.join("report.json");
    std::fs::write(&json, report::json(&outcomes))
        .with_context(|| format!("cannot write {}", json.display()))?;
    if let Some(table) = &cli.table {
        std::fs::write(table, report::markdown(&wanted, &outcomes))
            .with_context(|| format!("cannot write {}", table.display()))?;
        println!("wrote {}", table.display());
    }
    Ok(outcomes.iter().all(|outcome| !outcome.status.is_fault()))
}

fn is_wanted(case: &Case, only: &[String]) -> bool {
    let name = format!("{}/{}", case.family, case.name);
    only.is_empty() || only.iter().any(|text| name.contains(text))
}

/// Every model of every case, on a few threads, in the order of the cases.
fn outcomes(cli: &Cli, cases: &[&Case]) -> Vec<Outcome> {
    let engine: Arc<dyn Engine> =
        Arc::new(GraphEngine::new(Parts::new(RtenEngine::new().name(), supports_in, load_graph)));
    let next = AtomicUsize::new(0);
    let found = Mutex::new(Vec::new());
    let patience = Duration::from_secs(cli.patience);
    std::thread::scope(|scope| {
        for _ in 0..cli.threads.max(1) {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    for outcome in run::case(&engine, case, &cli.formats, patience) {
                        tell(&outcome, cli.all);
                        let mut found = found.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                        found.push(outcome);
                    }
                }
            });
        }
    });
    let mut found = found.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    found.sort_by(|a, b| (&a.family, &a.case, &a.format).cmp(&(&b.family, &b.case, &b.format)));
    found
}

fn tell(outcome: &Outcome, all: bool) {
    if all || !matches!(outcome.status, Status::Agrees(_)) {
        println!("{outcome}");
    }
}
