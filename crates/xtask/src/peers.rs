//! The servers that Salver is measured beside, each in a Python environment made once.

use std::path::PathBuf;

use crate::place::Place;
use crate::python::Environment;

/// Triton from the wheel of pytriton, and what its Python backend runs.
const TRITON: Environment = Environment {
    folder: ".peers/triton",
    requirements: "tests/peers/triton.txt",
    without_dependencies: "tests/peers/triton-no-deps.txt",
};

/// The interpreter of Triton's environment. Where that cannot be made, without network for example, it is said in one
/// line, and the others are measured without it.
pub(crate) fn triton(place: &Place) -> Option<PathBuf> {
    match TRITON.python(place) {
        Ok(python) => Some(python),
        Err(error) => {
            println!("skipped: Triton: {error:#}");
            None
        }
    }
}
