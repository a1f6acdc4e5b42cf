//! What the embedded engine refuses, in whatever process it runs.

use salver_testkit::conformance::{Difference, Refusal};

pub(crate) const DIFFERENCES: &[Difference] = &[
    Difference {
        refusal: Refusal::AtLoad,
        models: &["cast_float64", "double", "double_inside", "double_network", "identity_float64"],
        reason: "its kernels have no float64",
    },
    Difference {
        refusal: Refusal::AtLoad,
        models: &[
            "cast_bfloat16",
            "cast_int16",
            "cast_uint16",
            "cast_uint32",
            "cast_uint64",
            "identity_bfloat16",
            "identity_complex128",
            "identity_complex64",
            "identity_int16",
            "identity_uint16",
            "identity_uint32",
            "identity_uint64",
            "wide_uint32",
        ],
        reason: "its kernels have no such numbers",
    },
    Difference {
        refusal: Refusal::AtLoad,
        models: &["hash", "loop_int64", "wide_fill", "wide_max"],
        reason: "it computes int64 as int32, and the model's constants or loops leave that range",
    },
    Difference {
        refusal: Refusal::InRuns,
        models: &[
            "wide_add",
            "wide_cast",
            "wide_input",
            "wide_mul",
            "wide_neg",
            "wide_pow",
            "wide_sub",
            "wide_sum",
            "widest_int64",
        ],
        reason: "it computes int64 as int32, and these inputs leave that range",
    },
    Difference {
        refusal: Refusal::AtLoad,
        models: &["missing_operators", "resize_cubic", "same_lower", "transpose_same"],
        reason: "it has no such operators or not with these attributes",
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
            "strings",
        ],
        reason: "it has no strings",
    },
];
