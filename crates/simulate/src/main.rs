//! Runs the policy and its baselines through all scenarios and writes what came of it.
#![expect(clippy::print_stdout, reason = "a program that reports on the terminal")]

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::PoisonError;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use salver_simulate::report::{Chapter, Report};
use salver_simulate::scenario::{self, Outcome, Scenario, Who};

const LOADS: [f64; 10] = [0.25, 0.5, 0.75, 0.9, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0];
const FEW_LOADS: [f64; 4] = [0.25, 0.9, 1.5, 4.0];

#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask simulate",
    about = "Salver's batching policy and its baselines in simulated time"
)]
struct Settings {
    /// Says all random numbers
    #[arg(long, default_value_t = 20)]
    seed: u64,
    /// Fewer loads and shorter traces; prints and writes nothing
    #[arg(long)]
    quick: bool,
    /// Requests of a trace at capacity, about
    #[arg(long)]
    requests: Option<usize>,
    /// Only scenarios whose name contains this; prints and writes nothing
    #[arg(long)]
    only: Option<String>,
    /// Print all tables as they would be written
    #[arg(long)]
    tables: bool,
    /// Where the report is written
    #[arg(long, default_value = "docs/benchmarks")]
    out: PathBuf,
}

fn main() -> Result<()> {
    let settings = Settings::parse();
    let n = settings.requests.unwrap_or(if settings.quick { 1500 } else { 20_000 });
    let loads: &[f64] = if settings.quick { &FEW_LOADS } else { &LOADS };
    let mut scenarios = scenario::all();
    if let Some(only) = &settings.only {
        scenarios.retain(|scenario| scenario.name.contains(only.as_str()));
        ensure!(!scenarios.is_empty(), "no scenario's name contains {only:?}");
    }
    println!("seed {}, {n} requests at capacity, {} scenarios", settings.seed, scenarios.len());
    let chapters = simulate(&scenarios, loads, n, settings.seed);
    let report = Report { seed: settings.seed, n, chapters };
    if settings.tables {
        println!("{}", report.markdown());
    } else {
        println!("{}", report.overview());
    }
    if settings.quick || settings.only.is_some() {
        return Ok(());
    }
    let write = |name: &str, text: String| {
        let path = settings.out.join(name);
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    };
    write("simulate.md", report.markdown())?;
    write("simulate.json", format!("{}\n", serde_json::to_string(&report.json())?))?;
    write("simulate.svg", report.svg())?;
    println!("written to {}", settings.out.display());
    Ok(())
}

/// All scenarios with all loads and policies, on all processors.
fn simulate(scenarios: &[Scenario], loads: &[f64], n: usize, seed: u64) -> Vec<Chapter> {
    let each = |load: &f64| Who::COMPARED.map(|who| (*load, who));
    let runs = |scenario| loads.iter().flat_map(each).map(move |(load, who)| (scenario, load, who));
    let jobs: Vec<_> = (0..scenarios.len()).flat_map(runs).collect();
    let next = Mutex::new(jobs.iter().enumerate());
    let done: Mutex<Vec<Option<Outcome>>> = Mutex::new(jobs.iter().map(|_| None).collect());
    let work = || {
        loop {
            // A panic of one thread ends the program when the scope joins it.
            let job = next.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some((at, &(scenario, load, who))) = job else { break };
            let outcome = scenarios
                .get(scenario)
                .map(|scenario| scenario.simulate(who, load, n * scenario.longer, seed));
            if let Some(place) = done.lock().unwrap_or_else(PoisonError::into_inner).get_mut(at) {
                *place = outcome;
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let mut outcomes = done.into_inner().unwrap_or_else(PoisonError::into_inner).into_iter().flatten();
    let n_each = loads.len() * Who::COMPARED.len();
    let chapter = |scenario: &Scenario| Chapter {
        scenario: scenario.clone(),
        outcomes: outcomes.by_ref().take(n_each).collect(),
    };
    scenarios.iter().map(chapter).collect()
}
