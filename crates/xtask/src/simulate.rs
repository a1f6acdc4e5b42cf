//! Builds the simulator of the batching policy in release code and runs it.

use anyhow::Result;

use crate::place::Place;

/// `arguments` go to `salver-simulate`.
pub(crate) fn run(place: &Place, arguments: &[String]) -> Result<()> {
    place.cargo(&["build", "--release", "--locked", "--package", "salver-simulate"]).check()?;
    place.command(place.target.join("release").join("salver-simulate")).args(arguments).check()?;
    Ok(())
}
