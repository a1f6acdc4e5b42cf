//! Runs the Python client tests against the release binary.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::counts::{Counts, Runner};
use crate::place::Place;

const REQUIREMENTS: &str = "tests/clients/requirements.txt";
/// Packages whose own requirements are larger than what the tests need of them.
const WITHOUT_DEPENDENCIES: &str = "tests/clients/requirements-no-deps.txt";

/// Builds the binary and the virtual environment, then runs pytest. Without Python the step is skipped with one
/// line, except in CI, where that is an error.
pub(crate) fn run(place: &Place, pytest: &[String]) -> Result<Counts> {
    if place.command("python3").args(["-c", "import ensurepip, venv"]).answer().is_none() {
        return skip(place, "python3 with its venv module is not installed");
    }
    if place.testdata.is_none() {
        skip(place, "SALVER_TESTDATA is not set, so the tests of models from outside do not run")?;
    }
    let python = match environment(place) {
        Ok(python) => python,
        Err(error) => return skip(place, &format!("no Python environment: {error:#}")),
    };
    place.cargo(&["build", "--locked", "--release", "--package", "salver"]).check()?;
    place
        .command(python)
        .args(["-m", "pytest", "tests/clients"])
        .args(pytest)
        .env("SALVER_BIN", place.target.join("release").join("salver"))
        .env("PYTHONUNBUFFERED", "1")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .count(Runner::Pytest)
}

fn skip(place: &Place, why: &str) -> Result<Counts> {
    if place.ci {
        bail!("{why}");
    }
    println!("skipped: {why}");
    Ok(Counts::default())
}

/// The interpreter of a virtual environment that holds exactly what the requirement files name.
fn environment(place: &Place) -> Result<PathBuf> {
    let folder = place.root.join(".venv");
    let python = folder.join("bin").join("python");
    let wanted = read(&place.root.join(REQUIREMENTS))? + &read(&place.root.join(WITHOUT_DEPENDENCIES))?;
    let stamp = folder.join("salver-requirements.txt");
    if read(&stamp).is_ok_and(|found| found == wanted) {
        return Ok(python);
    }
    place.command("python3").args(["-m", "venv", "--clear"]).args([&folder]).check()?;
    let pip =
        || place.command(&python).args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
    pip().args(["--requirement", REQUIREMENTS]).check()?;
    pip().args(["--no-deps", "--requirement", WITHOUT_DEPENDENCIES]).check()?;
    std::fs::write(&stamp, wanted).with_context(|| format!("cannot write {}", stamp.display()))?;
    Ok(python)
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}
