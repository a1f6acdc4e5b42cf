//! What TensorFlow does not do.

use salver_testkit::conformance::{Difference, Refusal};

pub(crate) const DIFFERENCES: &[Difference] = &[
    Difference {
        refusal: Refusal::NoModel,
        models: &["double_inside", "gru", "loop_float", "loop_int32", "loop_int64", "lstm"],
        reason: "TensorFlow says loops and recurrent layers in another way",
    },
    Difference {
        refusal: Refusal::NoModel,
        models: &[
            "logsoftmax_11_1",
            "logsoftmax_11_2",
            "logsoftmax_11_default",
            "logsoftmax_12_0",
            "missing_operators",
            "pads",
            "pool",
            "pool_ceil",
            "quantise",
            "quantised",
            "resize_cubic",
            "resize_linear",
            "resize_nearest",
            "same_lower",
            "same_lower_even",
            "softmax_11_1",
            "softmax_11_2",
            "softmax_11_default",
            "softmax_12_0",
            "transpose_same",
            "upsample",
        ],
        reason: "TensorFlow has no such operators, or not with these attributes",
    },
];
