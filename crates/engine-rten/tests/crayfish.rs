//! A network of the wild, where its file is given.

use std::path::Path;

use salver_engine::{Engine, LoadOptions, ModelSource};
use salver_engine_rten::RtenEngine;
use salver_tensor::{Shape, Tensor};

/// What ONNX Runtime answers for the input below.
const EXPECTED: [[f64; 10]; 2] = [
    [
        0.036_004_964,
        -3.507_587_9,
        1.284_425,
        0.086_915_657,
        1.124_765_2,
        0.758_693_81,
        1.602_163_1,
        -3.067_565_4,
        3.767_708_8,
        -2.390_620_7,
    ],
    [
        -0.452_322_81,
        -3.634_778,
        0.703_830_12,
        -0.281_760_42,
        0.586_789_13,
        1.684_072,
        1.024_114_1,
        -2.266_307_6,
        4.201_587_7,
        -1.517_706_4,
    ],
];

#[test]
#[expect(clippy::disallowed_methods, reason = "a test looks for data that is not part of the checkout")]
fn the_crayfish_network_answers_as_onnx_runtime_does() {
    let Some(folder) = std::env::var_os("SALVER_TESTDATA") else {
        println!("SALVER_TESTDATA is not set: skipped");
        return;
    };
    let source = ModelSource::find(&Path::new(&folder).join("crayfish/model-ffnn.onnx")).unwrap();
    let model = RtenEngine::new().load(&source, &LoadOptions::default()).unwrap();
    let pixels = (0..2 * 784).map(|at| (at % 97) as f32 / 97.0).collect();
    let input = Tensor::from_vec(Shape::new(&[2, 1, 784]).unwrap(), pixels).unwrap();
    let output = model.session().unwrap().run(0, &[input], &[0]).unwrap();
    assert_eq!(output[0].shape().dims(), [2, 10]);
    let got = output[0].as_slice::<f32>().unwrap();
    for (&got, expected) in got.iter().zip(EXPECTED.as_flattened()) {
        assert!((f64::from(got) - expected).abs() < 1e-5, "{got} is not {expected}");
    }
}
