//! The benchmark programs: what Salver costs beside bare echo servers, how a swap shows, how it starts.
//!
//! Each program starts the servers it measures as processes of their own, prints a table with ratios and writes it to
//! `docs/benchmarks`. It speaks to Salver as any client does and knows nothing of its rooms, but for the programs
//! that measure a room in this process: the model's own run, JSON text to tensor, imported models, and engines.
#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "programs that measure: they read clocks, wait for moments and report on the terminal"
)]

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, ensure};
use clap::{Args, Parser, Subcommand};

mod batching;
mod blocking;
mod body;
mod direct;
mod echo;
mod engines;
mod import;
mod json;
mod load;
mod memory;
mod model;
mod open_loop;
mod peers;
mod reload;
mod report;
mod sections;
mod serve;
mod server;
mod start;
mod stats;
mod stream;
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
    /// Imported models beside TensorFlow: first answer and time per prediction
    Import {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        settings: import::Settings,
    },
    /// Every engine through Salver and called directly, beside TensorFlow
    Engines {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        settings: engines::Settings,
    },
    /// Memory over loads and unloads of models on every engine
    Reload {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        settings: reload::Settings,
    },
    /// Salver beside Triton and Flask with TensorFlow: throughput, latency, CPU time, memory, overload
    Peers {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        settings: peers::Settings,
    },
    /// Batching and overload: throughput at saturation, goodput, bad requests, latency at ease, neighbours
    Batching {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        settings: batching::Settings,
    },
    /// Streams: Crayfish's benchmark beside Kafka Streams, latency, models on servers, a file beside Python
    Stream {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        settings: stream::Settings,
    },
    /// All but `import`, `engines`, `reload`, `peers`, `batching` and `stream`
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
    /// One model in a fresh process, started by `import`
    #[command(hide = true)]
    First { path: PathBuf },
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
        Program::Import { common, settings } => import::run(&common, &settings),
        Program::Engines { common, settings } => {
            prepare()?;
            engines::run(&common, &settings)
        }
        Program::Reload { common, settings } => {
            prepare()?;
            reload::run(&common, &settings)
        }
        Program::Peers { common, settings } => peers::run(&common, &settings),
        Program::Batching { common, settings } => {
            prepare()?;
            batching::run(&common, &settings)
        }
        Program::Stream { common, settings } => stream::run(&common, &settings),
        Program::First { path } => import::first(&path),
        Program::Memory { common, settings } => memory::run(&common, &settings),
        Program::Json { common } => json::run(&common),
        Program::All { common } => all(&common),
        Program::Echo { transport } => echo::run(transport),
    }
}

/// Sets what TensorFlow and ONNX Runtime take from the environment, while this thread is the only one.
fn prepare() -> Result<()> {
    ensure!(salver_engine_tensorflow::prepare_process(), "there are other threads already");
    ensure!(salver_engine_onnxruntime::prepare_process(), "ONNX Runtime is not kept from reporting");
    Ok(())
}

fn all(common: &Common) -> Result<()> {
    start::run(common, &start::Settings::default())?;
    json::run(common)?;
    serve::run(common, &serve::Settings::default())?;
    swap::run(common, &swap::Settings::default())?;
    memory::run(common, &memory::Settings::default())
}
