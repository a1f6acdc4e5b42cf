//! The suite that every engine passes.

#[path = "conformance/differences.rs"]
mod differences;

use differences::DIFFERENCES;
use salver_engine_rten::RtenEngine;
use salver_testkit::conformance::{Capabilities, Verdict, judge, run};

#[test]
fn the_embedded_engine_conforms() {
    run(&RtenEngine::new(), &Capabilities { differences: DIFFERENCES });
}

/// Answers that differ from ONNX's, and why they may.
const KNOWN: &[&str] = &[
    // Random numbers.
    "test_bernoulli_seed_expanded",
    // One step of quantisation, where a quotient lies at the border between two.
    "test_dynamicquantizelinear",
    "test_dynamicquantizelinear_expanded",
    // ONNX Runtime answers as this engine does.
    "test_resize_downsample_scales_linear_align_corners",
];

/// ONNX's own tests of its operators, where a folder of them is given: each is answered rightly or refused.
#[test]
#[expect(clippy::disallowed_methods, reason = "a test looks for data that is not part of the checkout")]
fn operators_are_answered_rightly_or_refused() {
    let Some(folder) = std::env::var_os("SALVER_ONNX_TESTS") else {
        println!("SALVER_ONNX_TESTS is not set: skipped");
        return;
    };
    let (mut right, mut refused, mut wrong) = (0, Vec::new(), Vec::new());
    for (name, verdict) in judge(&RtenEngine::new(), folder.as_ref()) {
        match verdict {
            Verdict::Right => right += 1,
            Verdict::Refused(error) => refused.push(format!("{name}: {:?}: {error}", error.kind())),
            Verdict::Wrong(_) if KNOWN.contains(&name.as_str()) => {}
            Verdict::Wrong(what) => wrong.push(format!("{name}: {what}")),
        }
    }
    println!("{right} right, {} refused:\n{}", refused.len(), refused.join("\n"));
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}
