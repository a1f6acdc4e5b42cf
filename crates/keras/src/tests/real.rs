//! Models that nobody here wrote, where they lie. The answers are those of Keras 2 for the sines of 0, 1, 2, ...

use std::path::PathBuf;

use salver_tensor::{Shape, Tensor};

use super::{compare, read, run};
use crate::import;

struct Case {
    file: &'static str,
    dims: &'static [usize],
    input: &'static str,
    output: &'static str,
    /// The first numbers of the answer.
    answer: &'static [f32],
}

const CASES: [Case; 5] = [
    Case {
        file: "jena/keras/jena_temp_pred.h5",
        dims: &[1, 120, 14],
        input: "gru_1_input",
        output: "dense_1",
        answer: &[0.5414802],
    },
    Case {
        file: "jena/keras/wetterfrosch_v1.h5",
        dims: &[1, 120, 14],
        input: "gru_1_input",
        output: "dense_1",
        answer: &[0.453125],
    },
    Case {
        file: "crayfish/model-ffnn.h5",
        dims: &[1, 784],
        input: "input_1",
        output: "Dense",
        answer: &[-1.217299, -2.455058, -4.530987, -2.211112],
    },
    Case {
        file: "fraud/autoencoder_fraud.h5",
        dims: &[1, 30],
        input: "input_2",
        output: "dense_8",
        answer: &[0.1171509, 0.0, 1.628586, 0.6110878],
    },
    Case {
        file: "keras/simple_mlp.h5",
        dims: &[1, 100],
        input: "dense_1_input",
        output: "dense_2",
        answer: &[0.1342939, 0.1793762, 0.1014403, 0.2436656],
    },
];

#[test]
fn real_models_compute_what_keras_computes() {
    let Some(root) = std::env::var_os("SALVER_TESTDATA").map(PathBuf::from) else {
        println!("skipped: SALVER_TESTDATA is not set");
        return;
    };
    for case in CASES {
        let model = import(&read(&root.join(case.file)), None).unwrap();
        let signature = &model.signatures[0];
        assert_eq!(signature.inputs[0].name, case.input, "{}", case.file);
        assert_eq!(signature.outputs[0].name, case.output, "{}", case.file);
        let shape = Shape::new(case.dims).unwrap();
        let sines: Vec<f32> = (0..shape.n_elements()).map(|at| (at as f64).sin() as f32).collect();
        let input = Tensor::from_vec(shape, sines).unwrap();
        let answer = run(&model, &|_| input.clone()).unwrap().remove(0).1;
        let first = answer.to_slice::<f32>().unwrap()[..case.answer.len()].to_vec();
        let got = Tensor::from_vec(Shape::vector(first.len()).unwrap(), first).unwrap();
        let want = Tensor::from_vec(Shape::vector(case.answer.len()).unwrap(), case.answer.to_vec()).unwrap();
        compare(&got, &want).unwrap_or_else(|error| panic!("{}: {error}", case.file));
    }
}

#[test]
fn a_gru_is_one_node() {
    let Some(root) = std::env::var_os("SALVER_TESTDATA").map(PathBuf::from) else {
        println!("skipped: SALVER_TESTDATA is not set");
        return;
    };
    let model = import(&read(&root.join("jena/keras/wetterfrosch_v1.h5")), None).unwrap();
    let nodes = &model.signatures[0].graph.body().nodes;
    let ops: Vec<&str> = nodes.iter().map(|node| node.op.as_str()).collect();
    assert_eq!(ops.iter().filter(|op| **op == "GRU").count(), 1, "{ops:?}");
    assert!(!ops.contains(&"Loop"), "{ops:?}");
}
