//! The suite that every engine passes, on its models written as SavedModels.

#[path = "conformance/differences.rs"]
mod differences;
#[path = "tensorflow/engine.rs"]
#[allow(dead_code, clippy::unwrap_used, reason = "shared with the other tests")]
mod engine;

use differences::DIFFERENCES;
use salver_testkit::conformance::{Capabilities, run};

#[test]
fn tensorflow_conforms() {
    let Some(engine) = engine::engine() else { return };
    run(&engine, &Capabilities { differences: DIFFERENCES });
}
