//! Runs the Python client tests against the release binary.

use anyhow::Result;

use crate::counts::{Counts, Runner};
use crate::place::Place;
use crate::python::{Environment, skip};
use crate::runtimes;

pub(crate) const ENVIRONMENT: Environment = Environment {
    folder: ".venv",
    requirements: "tests/clients/requirements.txt",
    without_dependencies: "tests/clients/requirements-no-deps.txt",
};

/// Builds the binary and the virtual environment, then runs pytest. Without Python the step is skipped with one
/// line, except in CI, where that is an error.
pub(crate) fn run(place: &Place, pytest: &[String]) -> Result<Counts> {
    if place.testdata.is_none() {
        skip(place, "SALVER_TESTDATA is not set, so the tests of models from outside do not run")?;
    }
    let python = match ENVIRONMENT.python(place) {
        Ok(python) => python,
        Err(error) => return skip(place, &format!("{error:#}")),
    };
    let binary = runtimes::built(place)?;
    place
        .command(python)
        .args(["-m", "pytest", "tests/clients"])
        .args(pytest)
        .env("SALVER_BIN", binary)
        .env("SALVER_RUNTIMES", &place.runtimes)
        .env("PYTHONUNBUFFERED", "1")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .count(Runner::Pytest)
}
