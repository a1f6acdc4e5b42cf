//! Builds the binary and the benchmark programs in release code, and runs one of the programs.

use anyhow::Result;

use crate::place::Place;

/// `arguments` go to `salver-bench`: the name of a program and its settings. The two builds are apart, so that what
/// the programs depend on changes nothing in the binary that is measured.
pub(crate) fn run(place: &Place, arguments: &[String]) -> Result<()> {
    for package in ["salver", "salver-bench"] {
        place.cargo(&["build", "--release", "--locked", "--package", package]).check()?;
    }
    let release = place.target.join("release");
    let mut program = place.command(release.join("salver-bench"));
    if let Some((name, rest)) = arguments.split_first() {
        program =
            program.args([name]).args(["--salver".as_ref(), release.join("salver").as_os_str()]).args(rest);
    }
    program.check()?;
    Ok(())
}
