//! Installs the native libraries that the tests of the engines load.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::counts::Counts;
use crate::place::Place;
use crate::python::skip;

const NAMES: [&str; 3] = ["onnxruntime", "openvino", "tensorflow"];

/// Installs what is not there, in the versions that Salver is tested with, by Salver's own command. That takes a download
/// of 360 MB once and 990 MB on the disk. Without network or pip it is said in one line, except in CI, where that is an
/// error.
pub(crate) fn install(place: &Place) -> Result<Counts> {
    let binary = built(place)?;
    let install = place.command(binary).args(["runtime", "install"]).args(NAMES);
    match install.args(["--runtime_dir"]).args([&place.runtimes]).check() {
        Ok(counts) => Ok(counts),
        Err(error) => {
            let why = format!("{error:#}, so the tests of the native engines do not run");
            skip(place, &why).context("native libraries")
        }
    }
}

/// The release binary, built if it is not up to date.
pub(crate) fn built(place: &Place) -> Result<PathBuf> {
    place.cargo(&["build", "--locked", "--release", "--package", "salver"]).check()?;
    Ok(place.target.join("release").join("salver"))
}
