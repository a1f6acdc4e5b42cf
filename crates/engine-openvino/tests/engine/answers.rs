//! Graphs, precisions and memory.

use std::num::NonZeroUsize;

use salver_engine::{Engine, ErrorKind, LoadOptions, Model, Precision};
use salver_graph::{Attributes, Builder, Dim, Graph, evaluate};
use salver_tensor::{DType, Shape, Tensor};

use crate::installed;

fn numbers(n: usize, scale: f32) -> Vec<f32> {
    (0..n).map(|at| ((at * 7919 % 1009) as f32 / 1009.0 - 0.5) * scale).collect()
}

fn tensor(dims: &[usize], scale: f32) -> Tensor {
    let shape = Shape::new(dims).unwrap();
    let n = shape.n_elements();
    Tensor::from_vec(shape, numbers(n, scale)).unwrap()
}

/// Two convolutions and a product, over images of 3 by 16 by 16.
fn network() -> Graph {
    let mut b = Builder::new();
    let dims = vec![Dim::symbol("batch"), Dim::Fixed(3), Dim::Fixed(16), Dim::Fixed(16)];
    let x = b.input("image", DType::F32, Some(dims));
    let pads = || Attributes::new().with("pads", [1i64, 1, 1, 1]);
    let w = b.constant("w1", tensor(&[16, 3, 3, 3], 0.5));
    let y = b.op("c1", "Conv", &[x, w], pads()).unwrap();
    let y = b.op("r1", "Relu", &[y], Attributes::new()).unwrap();
    let w = b.constant("w2", tensor(&[32, 16, 3, 3], 0.2));
    let y = b.op("c2", "Conv", &[y, w], pads()).unwrap();
    let pooled = b.op("pool", "GlobalAveragePool", &[y], Attributes::new()).unwrap();
    let flat = b.op("flat", "Flatten", &[pooled], Attributes::new()).unwrap();
    let w = b.constant("w3", tensor(&[32, 10], 1.0));
    let z = b.op("z", "MatMul", &[flat, w], Attributes::new()).unwrap();
    b.finish(&[("scores", z), ("features", y)]).unwrap()
}

fn run(model: &dyn Model, input: &Tensor) -> Vec<Tensor> {
    let outputs: Vec<usize> = (0..model.signatures()[0].outputs().len()).collect();
    model.session().unwrap().run(0, std::slice::from_ref(input), &outputs).unwrap()
}

/// The largest difference, relative to the largest number.
fn distance(a: &Tensor, b: &Tensor) -> f32 {
    assert_eq!(a.shape(), b.shape());
    let (a, b) = (a.to_slice::<f32>().unwrap(), b.to_slice::<f32>().unwrap());
    let largest = b.iter().fold(0f32, |largest, x| largest.max(x.abs()));
    a.iter().zip(b.iter()).fold(0f32, |far, (a, b)| far.max((a - b).abs())) / largest
}

#[test]
fn float32_is_float32_and_bfloat16_differs_a_little() {
    let Some(engine) = installed::engine() else { return };
    let (graph, input) = (network(), tensor(&[2, 3, 16, 16], 2.0));
    let reference = evaluate(&graph, std::slice::from_ref(&input)).unwrap();
    let mut options = LoadOptions::default();
    let model = engine.load_graph(&graph, &options).unwrap();
    let names: Vec<_> = model.signatures()[0].outputs().iter().map(|spec| spec.name.to_string()).collect();
    assert_eq!(names, ["features", "scores"]);
    let exact = run(&*model, &input);
    for (got, want) in [(&exact[1], &reference[0]), (&exact[0], &reference[1])] {
        assert!(distance(got, want) < 1e-5, "{}", distance(got, want));
    }
    options.precision = Precision::Bf16;
    match engine.load_graph(&graph, &options) {
        Ok(model) => {
            let rough = run(&*model, &input);
            for (got, want) in rough.iter().zip(&exact) {
                let far = distance(got, want);
                assert!((1e-5..3e-2).contains(&far), "{far}");
            }
        }
        // A CPU without bfloat16 says so.
        Err(error) => assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}"),
    }
}

/// Inputs are lent to OpenVINO, which must not compute in them; they come in any number of rows, and go out of use.
#[test]
fn inputs_are_left_as_they_are_for_any_batch() {
    let Some(engine) = installed::engine() else { return };
    let mut b = Builder::new();
    let x = b.input("x", DType::F32, Some(vec![Dim::symbol("batch"), Dim::Fixed(64)]));
    let mut y = x;
    for op in ["Relu", "Neg", "Exp", "Tanh"] {
        y = b.op(op, op, &[y], Attributes::new()).unwrap();
    }
    let rest = b.op("rest", "Sigmoid", &[x], Attributes::new()).unwrap();
    let graph = b.finish(&[("y", y), ("rest", rest), ("same", x)]).unwrap();
    let mut options = LoadOptions::default();
    options.n_lanes = NonZeroUsize::new(2).unwrap();
    options.threads = NonZeroUsize::new(2).unwrap();
    let model = engine.load_graph(&graph, &options).unwrap();
    let mut session = model.session().unwrap();
    let order: Vec<_> =
        ["y", "rest", "same"].map(|name| model.signatures()[0].output_index(name).unwrap()).into();
    for n_rows in [1, 7, 0, 32, 1, 128, 3] {
        let input = tensor(&[n_rows, 64], 4.0);
        let before = input.to_slice::<f32>().unwrap().to_vec();
        let got = session.run(0, std::slice::from_ref(&input), &order).unwrap();
        assert_eq!(input.to_slice::<f32>().unwrap(), before, "{n_rows} rows");
        let want = evaluate(&graph, std::slice::from_ref(&input)).unwrap();
        for (got, want) in got.iter().zip(&want) {
            assert_eq!(got.shape(), want.shape());
            let pairs = got.to_slice::<f32>().unwrap().into_owned().into_iter();
            let close = pairs.zip(want.to_slice::<f32>().unwrap().iter()).all(|(a, b)| (a - b).abs() <= 1e-5);
            assert!(close, "{n_rows} rows");
        }
    }
}

/// Resident memory in bytes, about.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[test]
fn models_give_their_memory_back() {
    let Some(engine) = installed::engine() else { return };
    let (graph, input) = (network(), tensor(&[2, 3, 16, 16], 2.0));
    let load = || {
        let model = engine.load_graph(&graph, &LoadOptions::default()).unwrap();
        run(&*model, &input);
    };
    (0..40).for_each(|_| load());
    let before = resident();
    (0..200).for_each(|_| load());
    let after = resident();
    assert!(after < before + before / 10, "{before} bytes before, {after} after 200 loads");
}

#[test]
fn strings_and_wide_values_are_refused_by_name() {
    let Some(engine) = installed::engine() else { return };
    let mut b = Builder::new();
    let x = b.input("words", DType::String, Some(vec![Dim::Unknown]));
    let graph = b.finish(&[("y", x)]).unwrap();
    let error = engine.load_graph(&graph, &LoadOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().starts_with("input 'words': element type string"), "{error}");

    let mut b = Builder::new();
    let x = b.input("ids", DType::I64, Some(vec![Dim::Unknown]));
    let y = b.op("y", "Abs", &[x], Attributes::new()).unwrap();
    let model = engine.load_graph(&b.finish(&[("y", y)]).unwrap(), &LoadOptions::default()).unwrap();
    let wide = Tensor::from_vec(Shape::vector(2).unwrap(), vec![1i64, 1 << 31]).unwrap();
    let error = model.session().unwrap().run(0, &[wide], &[0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().starts_with("input 'ids': element 1 is 2147483648"), "{error}");
    assert!(engine.is_present());
}

/// OpenVINO says nothing of a run that fails on its caller's thread; here each failure shows, and the runs after it are right.
#[test]
fn runs_that_fail_are_told() {
    let Some(engine) = installed::engine() else { return };
    let mut b = Builder::new();
    let row = || Some(vec![Dim::Unknown]);
    let (x, y) = (b.input("a", DType::F32, row()), b.input("b", DType::F32, row()));
    let z = b.op("z", "Add", &[x, y], Attributes::new()).unwrap();
    let graph = b.finish(&[("z", z)]).unwrap();
    let sizes = [(2, 2), (2, 3), (2, 2), (4, 3), (4, 3), (2, 2), (4, 4), (0, 0), (3, 4), (2, 2)];
    for _ in 0..3 {
        let model = engine.load_graph(&graph, &LoadOptions::default()).unwrap();
        let mut session = model.session().unwrap();
        for (n, m) in sizes {
            let inputs = [tensor(&[n], n as f32), tensor(&[m], m as f32)];
            match session.run(0, &inputs, &[0]) {
                Ok(got) => {
                    assert_eq!(n, m);
                    assert_eq!(got, evaluate(&graph, &inputs).unwrap());
                }
                Err(error) => {
                    assert_ne!(n, m, "{error}");
                    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
                }
            }
        }
    }
}
