//! The benchmark programs: what Salver costs beside bare echo servers, how a swap shows, how it starts.
//!
//! Each program starts the servers it measures as processes of their own, prints a table with ratios and writes it to
//! `docs/benchmarks`. It speaks to Salver as any client does and knows nothing of its rooms, but for the two programs
//! that time a room in this process: the model's own run, and JSON text to tensor.
#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "programs that measure: they read clocks, wait for moments and report on the terminal"
)]

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

mod blocking;
mod body;
mod echo;
mod json;
mod load;
mod memory;
mod model;
mod open_loop;
mod report;
mod serve;
mod server;
mod start;
mod stats;
mod subject;
mod swap;

#[derive(Debug, Parser)]
#[command(name = "salver-bench", about = "Measures Salver beside bare echo servers")]
struct Cli {
    #[command(subcommand)]
    program: Program,
}

#[derive(Debug, Subcommand)]
enum Program {
    /// CPU time per request, throughput and latency of each interface, beside a bare echo of the same body
    Serve {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        settings: serve::Settings,
    },
    /// Failed requests and latency while one model rolls through versions and another is broken
    Swap {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        settings: swap::Settings,
    },
    /// Start to first answer, size of the binary, idle memory
    Start {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        settings: start::Settings,
    },
    /// Memory before and after many reloads of a model
    Memory {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        settings: memory::Settings,
    },
    /// CPU time from JSON text to tensor, in process
    Json {
        #[command(flatten)]
        common: Common,
    },
    /// All of the above
    All {
        #[command(flatten)]
        common: Common,
    },
    /// The bare servers, started by `serve`
    #[command(hide = true)]
    Echo {
        #[arg(value_enum)]
        transport: load::Transport,
    },
}

/// What every program takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct Common {
    /// The binary to measure
    #[arg(long, default_value = "target/release/salver")]
    pub(crate) salver: PathBuf,
    /// Folder for the reports
    #[arg(long, default_value = "docs/benchmarks")]
    pub(crate) out: PathBuf,
    /// Print only, write no report
    #[arg(long)]
    pub(crate) dry: bool,
    /// Folder with the test models; without it a model of the repository takes the place of the Crayfish network
    #[arg(long, env = "SALVER_TESTDATA")]
    pub(crate) testdata: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(Cli::parse().program) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(program: Program) -> Result<()> {
    match program {
        Program::Serve { common, settings } => serve::run(&common, &settings),
        Program::Swap { common, settings } => swap::run(&common, &settings),
        Program::Start { common, settings } => start::run(&common, &settings),
        Program::Memory { common, settings } => memory::run(&common, &settings),
        Program::Json { common } => json::run(&common),
        Program::All { common } => all(&common),
        Program::Echo { transport } => echo::run(transport),
    }
}

fn all(common: &Common) -> Result<()> {
    start::run(common, &start::Settings::default())?;
    json::run(common)?;
    serve::run(common, &serve::Settings::default())?;
    swap::run(common, &swap::Settings::default())?;
    memory::run(common, &memory::Settings::default())
}
