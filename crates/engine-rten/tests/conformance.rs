//! The suite that every engine passes.

use salver_engine_rten::RtenEngine;
use salver_testkit::conformance::{Capabilities, run};

#[test]
fn the_embedded_engine_conforms() {
    let capabilities = Capabilities {
        refused_at_load: &[
            "double",
            "double_inside",
            "hash",
            "identity_float64",
            "identity_uint16",
            "identity_uint32",
            "loop_int64",
            "missing_operators",
            "resize_cubic",
            "same_lower",
            "strings",
            "transpose_same",
            "wide_fill",
            "wide_max",
        ],
        refused_in_runs: &[],
    };
    run(&RtenEngine::new(), &capabilities);
}
