//! The commands of the workspace: `cargo xtask ci` is what CI runs, the others are its parts.
//!
//! Knows the files of the workspace and the tools around it; links none of the rooms.
#![expect(clippy::print_stdout, reason = "a command-line program for people and CI logs")]

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::place::Place;
use crate::steps::Steps;

mod arrows;
mod bench;
mod clients;
mod codegen;
mod counts;
mod kafka;
mod peers;
mod place;
mod python;
mod runtimes;
mod simulate;
mod steps;
mod streams;
mod sweep;
mod tools;

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "The commands of the workspace")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Everything that CI checks, in order
    Ci,
    /// Every test: unit, property, documentation and client tests
    Test,
    /// Compare the arrows of ARCHITECTURE.md with the dependencies of the crates
    Arrows,
    /// Write the Rust code of the `.proto` files
    Codegen {
        /// Write nothing; fail when the committed code differs
        #[arg(long)]
        check: bool,
    },
    /// Install cargo-nextest and cargo-deny in the versions that CI uses
    Tools,
    /// Install the native libraries that the tests of the engines load, into .runtimes
    Runtimes,
    /// Run the tests of unmodified clients against the release binary
    Clients {
        /// Arguments for pytest, after `--`
        #[arg(last = true)]
        pytest: Vec<String>,
    },
    /// Start, end and disturb an Apache Kafka of this workspace alone
    #[command(subcommand)]
    Kafka(kafka::Command),
    /// Run the tests of `salver stream` on a real broker, with clients that are not ours
    Stream {
        /// Arguments for pytest, after `--`
        #[arg(last = true)]
        pytest: Vec<String>,
    },
    /// Score a topic while scorers and brokers are killed, and count every record: 200,000 of them, some minutes for each protocol
    Fire {
        /// `--protocol consumer|classic|both` (consumer), `--seed N`, `--records N`, `--keys N`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Make models with TensorFlow and compare the embedded engine's answers with TensorFlow's
    Sweep(sweep::Settings),
    /// Run a benchmark program: `serve`, `json`, `swap`, `start`, `memory`, `import`, `engines`, `reload`, `peers`, `batching`, `stream` or `all`
    Bench {
        /// The program's name and its settings
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Run the batching policy and its baselines against traces in simulated time
    Simulate {
        /// The simulator's settings
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

fn main() -> ExitCode {
    match run(Cli::parse().task) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            let missing = error.downcast_ref::<kafka::Missing>().is_some();
            if missing { ExitCode::from(kafka::EXIT_MISSING) } else { ExitCode::FAILURE }
        }
    }
}

fn run(task: Task) -> Result<ExitCode> {
    let place = Place::find()?;
    match task {
        Task::Ci => return Ok(ci(&place)),
        Task::Test => return Ok(test(&place)),
        Task::Arrows => arrows::check(&place)?,
        Task::Codegen { check } => codegen::run(check)?,
        Task::Tools => tools::install_all(&place)?,
        Task::Runtimes => {
            let mut steps = Steps::new();
            steps.run("native libraries", || runtimes::install(&place));
            return Ok(steps.finish());
        }
        Task::Clients { pytest } => {
            let mut steps = Steps::new();
            steps.run("client tests", || clients::run(&place, &pytest));
            return Ok(steps.finish());
        }
        Task::Kafka(command) => kafka::run(&place, &command)?,
        Task::Stream { pytest } => {
            let mut steps = Steps::new();
            steps.run("Kafka", || kafka::install(&place));
            steps.run("stream tests", || streams::run(&place, &pytest));
            return Ok(steps.finish());
        }
        Task::Fire { arguments } => {
            kafka::install(&place)?;
            streams::fire(&place, &arguments)?;
        }
        Task::Sweep(settings) => sweep::run(&place, &settings)?,
        Task::Bench { arguments } => bench::run(&place, &arguments)?,
        Task::Simulate { arguments } => simulate::run(&place, &arguments)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs every check even when one fails: one run shows all that is wrong.
fn ci(place: &Place) -> ExitCode {
    let mut steps = Steps::new();
    steps.run("format", || place.cargo(&["fmt", "--all", "--check"]).check());
    steps.run("generated code", || codegen::run(true).map(|()| counts::Counts::default()));
    steps.run("clippy", || {
        place.cargo(&["clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"]).check()
    });
    steps.run("without Kafka", || {
        let package =
            ["clippy", "--locked", "--package", "salver", "--no-default-features", "--", "-D", "warnings"];
        place.cargo(&package).check()
    });
    steps.run("arrows", || arrows::check(place).map(|()| counts::Counts::default()));
    rust_tests(place, &mut steps);
    steps.run("documentation", || {
        place
            .cargo(&["doc", "--locked", "--workspace", "--no-deps", "--document-private-items"])
            .env("RUSTDOCFLAGS", "-D warnings")
            .check()
    });
    steps.run("dependencies", || {
        let deny = tools::installed(place, tools::DENY)?;
        place
            .command(deny)
            .args(["deny", "--locked", "check", "--hide-inclusion-graph", "bans", "licenses", "sources"])
            .check()
    });
    python_tests(place, &mut steps);
    steps.finish()
}

fn test(place: &Place) -> ExitCode {
    let mut steps = Steps::new();
    rust_tests(place, &mut steps);
    python_tests(place, &mut steps);
    steps.finish()
}

fn python_tests(place: &Place, steps: &mut Steps) {
    steps.run("client tests", || clients::run(place, &[]));
    steps.run("stream tests", || streams::run(place, &[]));
}

fn rust_tests(place: &Place, steps: &mut Steps) {
    steps.run("native libraries", || runtimes::install(place));
    steps.run("Kafka", || kafka::install(place));
    steps.run("tests", || {
        let nextest = tools::installed(place, tools::NEXTEST)?;
        let broker = kafka::lend(place, "rust-tests", "256m")?;
        let tests = place
            .command(nextest)
            .args(["nextest", "run", "--locked", "--workspace", "--no-fail-fast"])
            .env("SALVER_RUNTIMES", &place.runtimes);
        match &broker {
            Some(broker) => tests.env("SALVER_KAFKA", &broker.bootstrap),
            None => tests,
        }
        .count(counts::Runner::Nextest)
    });
    steps.run("documentation tests", || {
        place.cargo(&["test", "--locked", "--workspace", "--doc"]).count(counts::Runner::Libtest)
    });
}
