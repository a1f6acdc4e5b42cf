//! Makes models with TensorFlow and compares what the embedded engine computes from them with TensorFlow's answers.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use crate::place::Place;
use crate::python::Environment;

const ENVIRONMENT: Environment = Environment {
    folder: ".venv-sweep",
    requirements: "tests/sweep/requirements.txt",
    without_dependencies: "tests/sweep/requirements-no-deps.txt",
};
const TABLE: &str = "docs/sweep.md";

#[derive(Debug, Clone, Args)]
pub(crate) struct Settings {
    /// Only cases whose `family/case` contains one of these texts, separated by commas
    #[arg(long)]
    only: Option<String>,
    /// Only these formats: h5, keras, savedmodel, frozen
    #[arg(long)]
    formats: Option<String>,
    /// Make the models, load none
    #[arg(long)]
    generate_only: bool,
    /// Load the models that are there, make none; needs no Python
    #[arg(long, conflicts_with = "generate_only")]
    compare_only: bool,
    /// Folder of the models
    #[arg(long)]
    folder: Option<PathBuf>,
    /// Processes that make models, and models that are loaded at a time
    #[arg(long, default_value_t = 2)]
    processes: usize,
}

/// The table in `docs` is written by a run over everything.
pub(crate) fn run(place: &Place, settings: &Settings) -> Result<()> {
    let folder = settings.folder.clone().unwrap_or_else(|| place.target.join("sweep"));
    if !settings.compare_only {
        generate(place, settings, &folder)?;
    }
    if settings.generate_only {
        return Ok(());
    }
    let example = ["--package", "salver-engine-graph", "--example", "sweep"];
    let mut program = place
        .cargo(&["run", "--quiet", "--locked", "--release"])
        .args(example)
        .args(["--"])
        .args(["--threads".to_owned(), settings.processes.to_string()])
        .args(["--folder".as_ref(), folder.as_os_str()]);
    for (flag, value) in [("--only", &settings.only), ("--formats", &settings.formats)] {
        if let Some(value) = value {
            program = program.args([flag, value]);
        }
    }
    if settings.only.is_none() && settings.formats.is_none() {
        program = program.args(["--table", TABLE]);
    }
    program.check()?;
    Ok(())
}

fn generate(place: &Place, settings: &Settings, folder: &std::path::Path) -> Result<()> {
    let python = ENVIRONMENT.python(place)?;
    let mut program = place
        .command(python)
        .args(["tests/sweep/generate.py", "--out"])
        .args([folder])
        .args(["--processes".to_owned(), settings.processes.to_string()])
        .env("PYTHONUNBUFFERED", "1")
        .env("PYTHONDONTWRITEBYTECODE", "1");
    if let Some(only) = &settings.only {
        program = program.args(["--only", only]);
    }
    program.check()?;
    Ok(())
}
