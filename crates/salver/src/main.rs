//! The binary: reads flags, files and the environment, joins fronts and predictors, and runs until a signal comes.

mod announce;
mod batching;
mod bench;
mod compat;
mod config;
mod convert;
mod discover;
mod doctor;
mod example;
mod flags;
mod inspect;
mod loading;
mod metrics;
mod models;
mod opened;
mod parts;
mod reload;
mod runtime;
mod serve;
mod settings;
mod stream;
mod telemetry;
mod tune;
mod warmup;
mod worker;

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;

use crate::config::Environment;
use crate::flags::{Cli, Command, ServeArgs};

/// Gives memory back after a model is unloaded, and is quick with many threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What TensorFlow Serving ends with where it does not come up.
const COMPAT_FAILURE: u8 = 255;

fn main() -> ExitCode {
    // Before any thread is there: TensorFlow reads how it logs and shares its threads from the environment.
    salver_engine_tensorflow::prepare_process();
    // And ONNX Runtime whether it may report to its maker.
    salver_engine_onnxruntime::prepare_process();
    let mut args = std::env::args_os();
    let program = args.next().unwrap_or_default();
    if Path::new(&program).file_stem().is_some_and(|name| name == compat::PROGRAM) {
        return compatible(compat::parse(args));
    }
    let done = match Cli::parse().command {
        Command::EngineWorker(args) => return worker::run(&args),
        Command::Bench(args) => return bench::run(&args),
        Command::Stream(args) => return stream::run(&args),
        Command::Serve(args) => start(&args),
        Command::Inspect(args) => inspect::inspect(&args).map(|text| print(&mut std::io::stdout(), &text)),
        Command::Tune(args) => tune::tune(&args).map(|text| print(&mut std::io::stdout(), &text)),
        Command::Convert(args) => convert::convert(&args).map(|text| print(&mut std::io::stdout(), &text)),
        Command::Runtime(args) => runtime::run(&args),
        Command::Doctor(args) => doctor::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            print(&mut std::io::stderr(), &format!("salver: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Under the name `tensorflow_model_server`: that program's output and exit codes.
fn compatible(outcome: compat::Outcome) -> ExitCode {
    let out = &mut std::io::stdout();
    let args = match outcome {
        compat::Outcome::Serve(args, unknown) => {
            for argument in &unknown {
                print(out, &format!("unknown argument: {argument}"));
            }
            if !unknown.is_empty() {
                print(out, &compat::usage());
            }
            args
        }
        compat::Outcome::Version => {
            print(out, &format!("TensorFlow ModelServer: Salver {}", env!("CARGO_PKG_VERSION")));
            print(out, "TensorFlow Library: none");
            return ExitCode::SUCCESS;
        }
        compat::Outcome::Usage(reason) => {
            reason.iter().for_each(|reason| print(out, reason));
            print(out, &compat::usage());
            return ExitCode::from(COMPAT_FAILURE);
        }
    };
    match start(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            print(out, &format!("Failed to start server. Error: {error:#}"));
            ExitCode::from(COMPAT_FAILURE)
        }
    }
}

fn start(args: &ServeArgs) -> anyhow::Result<()> {
    let config = config::resolve(args, &Environment::read())?;
    telemetry::start_log(config.log_format, &config.log_level)?;
    serve::serve(&config)
}

/// A reader that has gone is no reason to fail.
fn print(out: &mut impl Write, text: &str) {
    drop(writeln!(out, "{text}"));
}
