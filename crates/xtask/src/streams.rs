//! Runs the tests of `salver stream`: files, and a real broker with clients that are not ours.

use std::path::Path;

use anyhow::{Context, Result};

use crate::counts::{Counts, Runner};
use crate::place::{Place, Program};
use crate::python::skip;
use crate::{clients, kafka, runtimes};

/// Builds the binary and the virtual environment, then runs pytest, which starts brokers through this program. Without
/// Java only the tests that need no broker run, and that is said in one line, except in CI, where that is an error.
pub(crate) fn run(place: &Place, pytest: &[String]) -> Result<Counts> {
    let python = match clients::ENVIRONMENT.python(place) {
        Ok(python) => python,
        Err(error) => return skip(place, &format!("{error:#}")),
    };
    if !kafka::is_installed(place) {
        skip(place, "there is no broker, so only the tests of files run")?;
    }
    kcat(place)?;
    let tests = python_with_binary(place, &python)?.args(["-m", "pytest", "tests/stream"]);
    tests.args(pytest).env("SALVER_RUNTIMES", &place.runtimes).count(Runner::Pytest)
}

/// Runs `tests/stream/fire.py`: a topic is scored while scorers and brokers are killed.
pub(crate) fn fire(place: &Place, arguments: &[String]) -> Result<()> {
    let python = clients::ENVIRONMENT.python(place)?;
    python_with_binary(place, &python)?.args(["tests/stream/fire.py"]).args(arguments).check()?;
    Ok(())
}

/// Python that finds the release binary, and starts brokers through this program.
fn python_with_binary(place: &Place, python: &Path) -> Result<Program> {
    let binary = runtimes::built(place)?;
    let this = std::env::current_exe().context("where this program lies")?;
    let command = place.command(python).env("SALVER_BIN", binary).env("SALVER_XTASK", this);
    Ok(command.env("PYTHONUNBUFFERED", "1").env("PYTHONDONTWRITEBYTECODE", "1"))
}

/// kcat reads and writes beside the Python client. CI installs Debian's where it may.
fn kcat(place: &Place) -> Result<()> {
    let there = || place.command("kcat").args(["-V"]).answer().is_some();
    if !there() && place.ci && Path::new("/usr/bin/apt-get").exists() {
        let apt = || place.command("apt-get").env("DEBIAN_FRONTEND", "noninteractive");
        let install =
            || apt().args(["install", "--yes", "--quiet=2", "--no-install-recommends", "kcat"]).check();
        // The lists of packages may be missing, or old.
        if install().is_err() {
            apt().args(["update", "--quiet=2"]).check()?;
            install()?;
        }
    }
    if !there() {
        skip(place, "kcat is not installed, so its tests do not run")?;
    }
    Ok(())
}
