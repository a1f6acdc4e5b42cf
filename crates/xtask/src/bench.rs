//! Runs the benchmark programs against the release binary.

use anyhow::Result;

use crate::place::Place;

/// The arguments choose the program; without any, it says which there are.
pub(crate) fn run(place: &Place, arguments: &[String]) -> Result<()> {
    place.cargo(&["build", "--locked", "--release", "--package", "salver"]).check()?;
    place
        .cargo(&["run", "--locked", "--release", "--package", "salver-bench", "--"])
        .args(arguments)
        .check()?;
    Ok(())
}
