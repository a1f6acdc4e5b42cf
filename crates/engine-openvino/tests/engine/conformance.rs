//! The suite that every engine passes.

use salver_testkit::conformance::{Capabilities, Difference, Refusal, run};

use crate::installed;

const DIFFERENCES: &[Difference] = &[
    Difference {
        refusal: Refusal::AtLoad,
        models: &[
            "cast_bfloat16",
            "cast_float64",
            "cast_int16",
            "cast_uint16",
            "cast_uint32",
            "cast_uint64",
            "double",
            "double_inside",
            "double_network",
            "identity_bfloat16",
            "identity_complex128",
            "identity_complex64",
            "identity_float64",
            "identity_int16",
            "identity_uint16",
            "identity_uint32",
            "identity_uint64",
            "wide_uint32",
        ],
        reason: "its CPU plugin computes such numbers in another element type",
    },
    Difference {
        refusal: Refusal::AtLoad,
        models: &[
            "identity_string",
            "string_bytes",
            "string_concat",
            "string_equal",
            "string_join",
            "string_label",
            "string_number",
            "string_rows",
        ],
        reason: "its CPU plugin has no strings",
    },
    Difference {
        refusal: Refusal::AtLoad,
        models: &[
            "cast_int64",
            "hash",
            "wide_add",
            "wide_cast",
            "wide_fill",
            "wide_max",
            "wide_mul",
            "wide_neg",
            "wide_pow",
            "wide_sub",
            "wide_sum",
        ],
        reason: "it computes int64 as int32, and the model's arithmetic or constants may leave that range",
    },
    Difference {
        refusal: Refusal::AtLoad,
        models: &["clip_int64", "divide_int32", "divide_int64", "mask_sum"],
        reason: "it computes these operators by way of float32, which does not hold every integer",
    },
    Difference {
        refusal: Refusal::AtLoad,
        models: &["expand_input"],
        reason: "it does not look at all sizes and positions that an input gives before it uses them",
    },
    Difference {
        refusal: Refusal::AtLoad,
        models: &["reduce_18"],
        reason: "ReduceLogSumExp gives a number for what is none",
    },
    Difference {
        refusal: Refusal::AtLoad,
        models: &[
            "loop_float",
            "loop_int32",
            "loop_int64",
            "open_rank",
            "picks",
            "quantised",
            "range_input",
            "reshape_input",
            "to_bool",
            "transpose_same",
        ],
        reason: "it has no such operators, not with these attributes, or computes them otherwise",
    },
    Difference {
        refusal: Refusal::InRuns,
        models: &["wide_input", "widest_int64"],
        reason: "it computes int64 as int32, and these inputs leave that range",
    },
];

#[test]
fn openvino_conforms() {
    let Some(engine) = installed::engine() else { return };
    run(&engine, &Capabilities { differences: DIFFERENCES });
}
