//! The suite that every engine passes.

use salver_engine_onnxruntime::OnnxRuntimeEngine;
use salver_testkit::conformance::{Capabilities, Difference, Refusal, run};

use crate::native;

const DIFFERENCES: &[Difference] = &[Difference {
    refusal: Refusal::AtLoad,
    models: &["identity_complex128", "identity_complex64"],
    reason: "the library makes no tensors of complex numbers",
}];

#[test]
fn onnx_runtime_conforms() {
    let Some(library) = native::library() else { return };
    run(&OnnxRuntimeEngine::new(library), &Capabilities { differences: DIFFERENCES });
}
