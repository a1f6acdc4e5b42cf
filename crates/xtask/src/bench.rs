//! Runs the serving benchmark.

use anyhow::Result;

use crate::place::Place;

/// Server CPU and throughput per interface beside bare echoes, in release code.
pub(crate) fn run(place: &Place, arguments: &[String]) -> Result<()> {
    place.cargo(&["bench", "--package", "salver", "--bench", "serve", "--"]).args(arguments).check()?;
    Ok(())
}
