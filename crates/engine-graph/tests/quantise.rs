//! Measuring ranges, the file that keeps them, and models in `int8`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "test data lie where the environment says"
)]

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use salver_engine::{Engine, Error, ErrorKind, Format, Library, LoadOptions, Model, ModelSource, Precision};
use salver_engine_graph::{GraphEngine, Parts, Ranges, Request, calibrate};
use salver_graph::{Builder, Dim, Graph, onnx};
use salver_kernels::Attributes;
use salver_tensor::{DType, Shape, Tensor};

/// An engine that says it has `int8` (it has the operators, if not their speed), and the graphs that it was given.
fn engine() -> (Parts, Arc<Mutex<Vec<Graph>>>) {
    let given: Arc<Mutex<Vec<Graph>>> = Arc::default();
    let noted = Arc::clone(&given);
    let parts = Parts::new("embedded", salver_engine_rten::supports_in, move |graph, options| {
        noted.lock().unwrap().push(graph.clone());
        salver_engine_rten::load_graph(graph, options)
    });
    (parts.with_precisions(&[Precision::F32, Precision::Int8]), given)
}

fn floats(dims: &[usize], f: impl Fn(usize) -> f32) -> Tensor {
    Tensor::from_vec(Shape::new(dims).unwrap(), (0..dims.iter().product()).map(f).collect()).unwrap()
}

fn wave(dims: &[usize], step: f32) -> Tensor {
    floats(dims, |at| (at as f32 * step).sin())
}

/// Numbers between -1 and 1 that look as if drawn at random, so that sums of them do not cancel.
fn noise(dims: &[usize], seed: u64) -> Tensor {
    floats(dims, |at| {
        let mixed = (at as u64 + 1 + (seed << 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mixed = (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    })
}

const PICTURE: [usize; 4] = [1, 3, 8, 8];

/// `x` of 8 by 8 with open rows, through a convolution and two products, or a model without any.
fn model(step: f32, with_products: bool) -> Graph {
    let mut b = Builder::new();
    let dims = vec![Dim::symbol("batch"), Dim::Fixed(3), Dim::Fixed(8), Dim::Fixed(8)];
    let x = b.input("x", DType::F32, Some(dims));
    if !with_products {
        let y = b.op("y", "Sigmoid", &[x], Attributes::new()).unwrap();
        return b.finish(&[("y", y)]).unwrap();
    }
    let (w, bias) = (b.constant("w", wave(&[8, 3, 3, 3], step)), b.constant("b", wave(&[8], 1.0)));
    let y = b.op("conv", "Conv", &[x, w, bias], Attributes::new()).unwrap();
    let y = b.op("relu", "Relu", &[y], Attributes::new()).unwrap();
    let flat = b.i64s(&[-1, 288]);
    let y = b.op("flat", "Reshape", &[y, flat], Attributes::new()).unwrap();
    let (w, bias) = (b.constant("w2", wave(&[288, 16], 0.7)), b.constant("b2", wave(&[16], 2.0)));
    let y = b.op("product", "MatMul", &[y, w], Attributes::new()).unwrap();
    let y = b.op("sum", "Add", &[y, bias], Attributes::new()).unwrap();
    b.finish(&[("y", y)]).unwrap()
}

/// The model as an ONNX file with weights in a file beside it.
fn written(folder: &Path, name: &str, graph: &Graph) -> ModelSource {
    let data = format!("{name}.data");
    let written = onnx::bytes(graph, &onnx::Labels::default(), onnx::Weights::Beside(&data)).unwrap();
    if let Some(data_file) = &written.data {
        std::fs::write(
            folder.join(data),
            data_file.pieces().flat_map(|piece| piece.to_vec()).collect::<Vec<_>>(),
        )
        .unwrap();
    }
    let path = folder.join(format!("{name}.onnx"));
    std::fs::write(&path, &written.model).unwrap();
    ModelSource::find(&path).unwrap()
}

fn requests(n: usize) -> impl FnMut() -> Option<Request> + Send {
    let mut at = 0;
    move || {
        at += 1;
        let inputs = vec![("x".to_owned(), wave(&PICTURE, 0.1 + at as f32))];
        (at <= n).then(|| ("serving_default".to_owned(), inputs))
    }
}

fn int8(ranges: Option<PathBuf>) -> LoadOptions {
    let mut options = LoadOptions::default();
    (options.precision, options.ranges) = (Precision::Int8, ranges);
    options
}

fn run(model: &dyn Model, input: &Tensor) -> Vec<f32> {
    let outputs = model.session().unwrap().run(0, std::slice::from_ref(input), &[0]).unwrap();
    outputs[0].to_slice::<f32>().unwrap().into_owned()
}

#[test]
fn a_measured_model_runs_in_int8() {
    let folder = tempfile::tempdir().unwrap();
    let source = written(folder.path(), "model", &model(0.3, true));
    let (parts, given) = engine();
    let ranges = calibrate(&source, &LoadOptions::default(), &parts, &mut requests(3)).unwrap();
    assert_eq!((ranges.signatures().collect::<Vec<_>>(), ranges.n_values()), (vec!["serving_default"], 2));
    assert_eq!(Ranges::from_json(ranges.to_json().as_bytes()).unwrap(), ranges);
    let again = calibrate(&source, &LoadOptions::default(), &Parts::none(), &mut requests(3)).unwrap();
    let names = |ranges: &Ranges| ranges.to_json().lines().filter(|line| line.contains("\": [")).count();
    assert_eq!(names(&again), names(&ranges));
    let file = folder.path().join("ranges.json");
    std::fs::write(&file, ranges.to_json()).unwrap();

    given.lock().unwrap().clear();
    let engine = GraphEngine::new(parts);
    let loaded = engine.load(&source, &int8(Some(file.clone()))).unwrap();
    // The engine gets everything in one piece.
    let ops: Vec<String> = {
        let given = given.lock().unwrap();
        assert_eq!(given.len(), 1);
        given[0].body().nodes.iter().map(|node| node.op.clone()).collect()
    };
    for (op, n) in [("QuantizeLinear", 3), ("DequantizeLinear", 7), ("Conv", 1), ("Gemm", 1), ("MatMul", 0)] {
        assert_eq!(ops.iter().filter(|found| *found == op).count(), n, "{op} in {ops:?}");
    }
    // The reference computes what the engine computes, and both are near what floats give.
    let reference = GraphEngine::new(Parts::none().with_precisions(&[Precision::Int8]));
    let reference = reference.load(&source, &int8(Some(file))).unwrap();
    let exact = engine.load(&source, &LoadOptions::default()).unwrap();
    let x = wave(&PICTURE, 2.1);
    let (near, same, exact) = (run(&*loaded, &x), run(&*reference, &x), run(&*exact, &x));
    let largest = exact.iter().fold(0f32, |largest, y| largest.max(y.abs()));
    for ((near, same), exact) in near.iter().zip(&same).zip(&exact) {
        assert!((near - exact).abs() <= 0.05 * largest, "{near} {exact} of {largest}");
        // A sum that lies on the edge between two steps may fall to either side.
        assert!((near - same).abs() <= 0.01 * largest, "{near} {same} of {largest}");
    }
}

/// The folder of a native library; `None`, with a line that says so, where it is not installed.
fn native(name: &str) -> Option<PathBuf> {
    let runtimes = std::env::var("SALVER_RUNTIMES").map(PathBuf::from);
    let versions = runtimes.ok().and_then(|folder| std::fs::read_dir(folder.join(name)).ok());
    let mut versions = versions.into_iter().flatten().map(|entry| entry.unwrap().path());
    let found = versions.find(|path| path.is_dir());
    if found.is_none() {
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "no {name} in SALVER_RUNTIMES");
        println!("no {name} in SALVER_RUNTIMES: nothing is tested");
    }
    found
}

/// Convolutions with all that may lie between them, and a product.
fn network() -> Graph {
    let mut b = Builder::new();
    let dims = vec![Dim::symbol("batch"), Dim::Fixed(3), Dim::Fixed(8), Dim::Fixed(8)];
    let x = b.input("x", DType::F32, Some(dims));
    let conv = |b: &mut Builder, name: &str, x, n: usize, depth: usize| {
        let (w, bias) = (noise(&[n, depth, 3, 3], name.len() as u64 + n as u64), noise(&[n], 1));
        let (w, bias) = (b.constant("w", w), b.constant("b", bias));
        b.op(name, "Conv", &[x, w, bias], Attributes::new().with("pads", [1, 1, 1, 1])).unwrap()
    };
    let plain = Attributes::new;
    let kernel = || plain().with("kernel_shape", [3, 3]).with("pads", [1, 1, 1, 1]);
    let one = conv(&mut b, "one", x, 16, 3);
    let one = b.op("relu", "Relu", &[one], plain()).unwrap();
    let two = conv(&mut b, "two", one, 16, 16);
    let sum = b.op("sum", "Add", &[one, two], plain()).unwrap();
    let sum = b.op("relu2", "Relu", &[sum], plain()).unwrap();
    let three = conv(&mut b, "three", sum, 16, 16);
    let mean = b.op("mean", "AveragePool", &[three], kernel()).unwrap();
    let largest = b.op("max", "MaxPool", &[three], kernel()).unwrap();
    let joined = b.op("joined", "Concat", &[mean, largest], plain().with("axis", 1i64)).unwrap();
    let four = conv(&mut b, "four", joined, 8, 32);
    let flat = b.i64s(&[-1, 512]);
    let y = b.op("flat", "Reshape", &[four, flat], plain()).unwrap();
    let (w, bias) = (b.constant("w2", noise(&[512, 16], 2)), b.constant("b2", noise(&[16], 3)));
    let y = b.op("product", "MatMul", &[y, w], plain()).unwrap();
    let y = b.op("biased", "Add", &[y, bias], plain()).unwrap();
    b.finish(&[("y", y)]).unwrap()
}

/// Both fuse all of it to kernels of their own, which round sums that lie between two steps either way.
#[test]
fn native_engines_compute_what_the_reference_does() {
    let folder = tempfile::tempdir().unwrap();
    let source = written(folder.path(), "network", &network());
    let mut seeds = 5..10;
    let mut requests = || {
        seeds.next().map(|seed| ("serving_default".to_owned(), vec![("x".to_owned(), noise(&PICTURE, seed))]))
    };
    let ranges = calibrate(&source, &LoadOptions::default(), &Parts::none(), &mut requests).unwrap();
    let options = int8(Some(folder.path().join("ranges.json")));
    std::fs::write(folder.path().join("ranges.json"), ranges.to_json()).unwrap();
    let of = |parts: Parts, options: &LoadOptions| {
        let engine = GraphEngine::new(parts.with_precisions(&Precision::ALL));
        let model = engine.load(&source, options).unwrap();
        run(&*model, &noise(&PICTURE, 9))
    };
    let reference = of(Parts::none(), &options);
    let exact = of(engine().0, &LoadOptions::default());
    let check = |name: &str, results: &[f32]| {
        let largest = exact.iter().fold(0f32, |largest, y| largest.max(y.abs()));
        for ((y, same), exact) in results.iter().zip(&reference).zip(&exact) {
            assert!((y - same).abs() <= 0.02 * largest, "{name}: {y} {same} of {largest}");
            assert!((y - exact).abs() <= 0.05 * largest, "{name}: {y} {exact} of {largest}");
        }
    };
    check("reference", &reference);
    if let Some(library) = native("onnxruntime") {
        let engine = salver_engine_onnxruntime::OnnxRuntimeEngine::new(Library::at(&library));
        let load = move |graph: &Graph, options: &LoadOptions| engine.load_graph(graph, options);
        check(
            "onnxruntime",
            &of(Parts::new("onnxruntime", salver_engine_onnxruntime::supports_in, load), &options),
        );
    }
    if let Some(library) = native("openvino") {
        let engine = salver_engine_openvino::OpenVinoEngine::new(Library::at(&library));
        let load = move |graph: &Graph, options: &LoadOptions| engine.load_graph(graph, options);
        check("openvino", &of(Parts::new("openvino", salver_engine_openvino::supports_in, load), &options));
    }
}

#[test]
fn only_an_engine_that_has_int8_takes_it() {
    let formats = [Format::Onnx, Format::SavedModel, Format::FrozenGraph, Format::Keras, Format::TfLite];
    let check = |precisions: &'static [Precision], options: &LoadOptions, expected: [bool; 5]| {
        let (parts, _) = engine();
        let engine = GraphEngine::new(parts.with_precisions(precisions));
        assert_eq!(
            formats.map(|format| engine.takes(format, options)),
            expected,
            "{precisions:?} {options:?}"
        );
    };
    let (float, small) = (LoadOptions::default(), int8(None));
    check(&[Precision::F32], &float, [false, true, true, true, false]);
    check(&[Precision::F32], &small, [false; 5]);
    check(&[Precision::F32, Precision::Int8], &float, [false, true, true, true, false]);
    check(&[Precision::F32, Precision::Int8], &small, [true, true, true, true, false]);
}

#[test]
fn what_does_not_fit_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let source = written(folder.path(), "model", &model(0.3, true));
    let other = written(folder.path(), "other", &model(0.4, true));
    let plain = written(folder.path(), "plain", &model(0.3, false));
    let (parts, _) = engine();
    let options = LoadOptions::default();
    let json = calibrate(&source, &options, &parts, &mut requests(1)).unwrap().to_json();
    let engine = GraphEngine::new(parts.clone());
    let check = |source: &ModelSource, text: Option<&str>, kind: ErrorKind, expected: &str| {
        let file = folder.path().join("ranges.json");
        text.iter().for_each(|text| std::fs::write(&file, text).unwrap());
        let error = engine.load(source, &int8(text.map(|_| file))).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(expected), "{error}");
    };
    let again = "'salver tune MODEL --allow int8'";
    check(&source, None, ErrorKind::Unsupported, again);
    check(&other, Some(&json), ErrorKind::InvalidModel, "were measured on another model");
    check(&other, Some(&json), ErrorKind::InvalidModel, again);
    check(&plain, Some(&json), ErrorKind::InvalidModel, "were measured on another model");
    check(&source, Some("{}"), ErrorKind::InvalidModel, "ranges.json: not a file of ranges");
    check(&source, Some("[1"), ErrorKind::InvalidModel, "ranges.json: not a file of ranges");
    let newer = json.replace("\"version\": 1", "\"version\": 2");
    check(&source, Some(&newer), ErrorKind::InvalidModel, "it is of version 2, expected 1");
    let nobody = json.replace("serving_default", "another");
    check(&source, Some(&nobody), ErrorKind::Unsupported, "nothing in the model can be computed in int8");
    let none = |requests: &mut (dyn FnMut() -> Option<Request> + Send), source: &ModelSource| -> Error {
        calibrate(source, &options, &parts, requests).unwrap_err()
    };
    let request = |name: &str, input: &str, dims: &[usize]| {
        let mut one = Some((name.to_owned(), vec![(input.to_owned(), wave(dims, 1.0))]));
        move || one.take()
    };
    for (error, expected) in [
        (none(&mut requests(0), &source), "there are no requests"),
        (none(&mut requests(1), &plain), "nothing in the model can be computed in int8"),
        (none(&mut request("other", "x", &PICTURE), &source), "the model has no signature 'other'"),
        (none(&mut request("serving_default", "z", &PICTURE), &source), "a request lacks input 'x'"),
        (none(&mut request("serving_default", "x", &[8, 8]), &source), "input 'x' is float32[8,8]"),
    ] {
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn ranges_are_the_same_for_two_imports() {
    let Ok(folder) = std::env::var("SALVER_TESTDATA") else {
        println!("SALVER_TESTDATA is not set: nothing is tested");
        return;
    };
    let path = Path::new(&folder).join("retrain/mobilenet025_128_retrained_graph.pb");
    let source = ModelSource::find(&path).unwrap();
    let (parts, _) = engine();
    let measure = || {
        let mut input =
            Some(("serving_default".to_owned(), vec![("input".to_owned(), wave(&[1, 128, 128, 3], 0.01))]));
        calibrate(&source, &LoadOptions::default(), &parts, &mut || input.take()).unwrap()
    };
    let (one, two) = (measure(), measure());
    assert_eq!(one.to_json(), two.to_json());
    assert_eq!(one.n_values(), 30);
}
