//! Models that are made here: element types, strings, defaults, shapes, frozen graphs.

use half::{bf16, f16};
use salver_engine::{Engine, Format, LoadOptions, ModelSource, Precision};
use salver_tensor::{DType, Dims, Shape, Tensor};
use salver_tensorflow::proto::attr_value::Value;
use salver_tensorflow::read::dtype_number;

use crate::engine::{engine, floats, load, own, run, strings, tensor};
use crate::made::{constant, dtype, frozen, node, placeholder, saved, signature};

/// Three elements of a type, some of them extreme.
fn elements(of: DType) -> Tensor {
    let dims = &[3][..];
    match of {
        DType::Bool => Tensor::from_bools(Shape::new(dims).unwrap(), &[true, false, true]).unwrap(),
        DType::I8 => tensor(dims, &[i8::MIN, 0, i8::MAX]),
        DType::I16 => tensor(dims, &[i16::MIN, 0, i16::MAX]),
        DType::I32 => tensor(dims, &[i32::MIN, 0, i32::MAX]),
        DType::I64 => tensor(dims, &[i64::MIN, 0, i64::MAX]),
        DType::U8 => tensor(dims, &[0, 1, u8::MAX]),
        DType::U16 => tensor(dims, &[0, 1, u16::MAX]),
        DType::U32 => tensor(dims, &[0, 1, u32::MAX]),
        DType::U64 => tensor(dims, &[0, 1, u64::MAX]),
        DType::F16 => tensor(dims, &[f16::MIN, f16::ZERO, f16::INFINITY]),
        DType::BF16 => tensor(dims, &[bf16::MIN, bf16::ZERO, bf16::INFINITY]),
        DType::F32 => tensor(dims, &[f32::MIN, -0.0, f32::NAN]),
        DType::F64 => tensor(dims, &[f64::MIN, -0.0, f64::NAN]),
        DType::C64 => tensor(dims, &[[1.0f32, -1.0], [0.0, f32::MAX], [-0.0, 2.0]]),
        DType::C128 => tensor(dims, &[[1.0f64, -1.0], [0.0, f64::MAX], [-0.0, 2.0]]),
        // Short strings lie in TensorFlow's own 24 bytes, longer ones elsewhere.
        DType::String => strings(dims, &[b"", b"\xff\0 short", &[b'x'; 5000]]),
    }
}

#[test]
fn all_element_types_go_in_and_come_out() {
    let Some(engine) = engine() else { return };
    for of in DType::ALL {
        let folder = tempfile::tempdir().unwrap();
        let nodes = vec![
            placeholder("x", of, &[-1]),
            node("y", "Identity", &["x"], &[("T", dtype(of))]),
            // Another one that computes: it turns the order around.
            node(
                "axis",
                "Const",
                &[],
                &[("dtype", dtype(DType::I32)), ("value", Value::Tensor(axis_zero()))],
            ),
            node("z", "ReverseV2", &["x", "axis"], &[("T", dtype(of)), ("Tidx", dtype(DType::I32))]),
        ];
        let number = dtype_number(of);
        let same = signature(
            &[("x", "x:0", number, &[-1])],
            &[("echo", "x:0", number, &[-1]), ("y", "y:0", number, &[-1]), ("z", "z:0", number, &[-1])],
        );
        let path = saved(folder.path(), nodes, &[("serving_default", same)]);
        let model = load(&engine, &path).unwrap();
        let input = elements(of);
        // What comes from a request may lie at any address.
        for given in [input.clone(), shifted(&input)] {
            for output in ["echo", "y"] {
                let answer = run(&*model, "serving_default", &[("x", given.clone())], output).unwrap();
                assert_eq!(answer, input, "{of} {output}");
            }
            // Not every type has this operator.
            match run(&*model, "serving_default", &[("x", given)], "z") {
                Ok(answer) => {
                    for at in 0..3 {
                        assert_eq!(answer.rows(at, 1), input.rows(2 - at, 1), "{of}");
                    }
                }
                Err(error) => {
                    assert!(error.to_string().contains("No OpKernel was registered"), "{of}: {error}")
                }
            }
        }
        let none = input.rows(0, 0).unwrap();
        let answer = run(&*model, "serving_default", &[("x", none.clone())], "y").unwrap();
        assert_eq!(answer, none, "{of}");
    }
}

fn axis_zero() -> salver_tensorflow::proto::TensorProto {
    salver_tensorflow::proto::TensorProto {
        dtype: dtype_number(DType::I32),
        tensor_shape: Some(crate::made::shape(&[1])),
        int_val: vec![0],
        ..Default::default()
    }
}

/// The same tensor at an odd address, where it has bytes.
fn shifted(tensor: &Tensor) -> Tensor {
    let Some(bytes) = tensor.bytes() else { return tensor.clone() };
    let all = bytes::Bytes::from([&[0; 1], &bytes[..]].concat());
    Tensor::from_bytes(tensor.dtype(), tensor.shape().clone(), all.slice(1..)).unwrap()
}

#[test]
fn strings_a_table_from_a_file_and_defaults() {
    let Some(engine) = engine() else { return };
    let model = load(&engine, &own("text")).unwrap();
    let words = strings(&[3], &[b"two", b"none of them, and longer than a short string is", b"one"]);
    let get = |output: &str| run(&*model, "serving_default", &[("words", words.clone())], output).unwrap();
    assert_eq!(get("ids").to_slice::<i64>().unwrap()[..], [1, -1, 0]);
    assert_eq!(get("n_bytes").to_slice::<i32>().unwrap()[..], [3, 47, 3]);
    assert_eq!(
        get("upper"),
        strings(&[3], &[b"TWO", b"NONE OF THEM, AND LONGER THAN A SHORT STRING IS", b"ONE"])
    );
    assert_eq!(
        get("ended"),
        strings(&[3], &[b"two!", b"none of them, and longer than a short string is!", b"one!"])
    );
    assert_eq!(get("all"), strings(&[], &[b"two none of them, and longer than a short string is one"]));
    let signature = model.signatures().iter().find(|s| &**s.name() == "serving_default").unwrap();
    assert_eq!(signature.inputs()[0].default, Some(strings(&[], &[b"!"])));
    let given = [("words", words.rows(0, 1).unwrap()), ("suffix", strings(&[], &[b"?"]))];
    assert_eq!(run(&*model, "serving_default", &given, "ended").unwrap(), strings(&[1], &[b"two?"]));
}

#[test]
fn outputs_are_given_in_the_order_asked_for() {
    let Some(engine) = engine() else { return };
    let model = load(&engine, &own("text")).unwrap();
    let at = model.signatures().iter().position(|s| &**s.name() == "serving_default").unwrap();
    let signature = &model.signatures()[at];
    let inputs = [strings(&[], &[b"."]), strings(&[2], &[b"one", b"two"])];
    assert_eq!(&*signature.inputs()[0].name, "suffix");
    let mut session = model.session().unwrap();
    let all: Vec<usize> = (0..signature.outputs().len()).collect();
    let expected = session.run(at, &inputs, &all).unwrap();
    for wanted in [&[][..], &[3], &[4, 0], &[2, 2], &[4, 3, 2, 1, 0]] {
        let answers = session.run(at, &inputs, wanted).unwrap();
        let picked: Vec<Tensor> = wanted.iter().map(|&at| expected[at].clone()).collect();
        assert_eq!(answers, picked, "{wanted:?}");
    }
}

#[test]
fn frozen_graphs_take_what_the_importer_takes() {
    let Some(engine) = engine() else { return };
    let folder = tempfile::tempdir().unwrap();
    let with_default = |name: &str, of: &str, dims: &[i64]| {
        let attributes = [("dtype", dtype(DType::F32)), ("shape", Value::Shape(crate::made::shape(dims)))];
        node(name, "PlaceholderWithDefault", &[of], &attributes)
    };
    let t = || [("T", dtype(DType::F32))];
    let nodes = vec![
        placeholder("x", DType::F32, &[-1, 2]),
        constant("rate", &[0.5]),
        with_default("keep", "rate", &[]),
        constant("some", &[10.0, 20.0]),
        with_default("shift", "some", &[2]),
        node("scaled", "Mul", &["x", "keep"], &t()),
        node("y", "AddV2", &["scaled", "shift"], &t()),
    ];
    let binary = frozen(folder.path(), nodes);
    let text = folder.path().join("text");
    std::fs::create_dir(&text).unwrap();
    let text = text.join("frozen.pbtxt");
    std::fs::write(&text, TEXT).unwrap();
    for path in [binary, text] {
        let model = load(&engine, &path).unwrap();
        let [signature] = model.signatures() else { panic!("{:?}", model.signatures()) };
        let names: Vec<&str> = signature.inputs().iter().map(|spec| &*spec.name).collect();
        assert_eq!(names, ["shift", "x"], "{}", path.display());
        assert_eq!(signature.inputs()[1].dims, Dims::new(vec![None, Some(2)]));
        assert_eq!(signature.inputs()[0].default, Some(tensor(&[2], &[10.0f32, 20.0])));
        assert_eq!(signature.outputs()[0].dims, Dims::new(vec![None, Some(2)]));
        assert_eq!((&*signature.outputs()[0].name, signature.outputs()[0].dtype), ("y", DType::F32));
        let x = tensor(&[2, 2], &[2.0f32, 4.0, 6.0, 8.0]);
        let answer = run(&*model, "serving_default", &[("x", x)], "y").unwrap();
        assert_eq!(floats(&answer), [11.0, 22.0, 13.0, 24.0], "{}", path.display());
    }
}

/// The graph of that test, as text.
const TEXT: &str = r#"
node { name: "x" op: "Placeholder" attr { key: "dtype" value { type: DT_FLOAT } }
  attr { key: "shape" value { shape { dim { size: -1 } dim { size: 2 } } } } }
node { name: "rate" op: "Const" attr { key: "dtype" value { type: DT_FLOAT } }
  attr { key: "value" value { tensor { dtype: DT_FLOAT tensor_shape { } float_val: 0.5 } } } }
node { name: "keep" op: "PlaceholderWithDefault" input: "rate" attr { key: "dtype" value { type: DT_FLOAT } }
  attr { key: "shape" value { shape { } } } }
node { name: "some" op: "Const" attr { key: "dtype" value { type: DT_FLOAT } }
  attr { key: "value" value { tensor { dtype: DT_FLOAT tensor_shape { dim { size: 2 } } float_val: 10 float_val: 20 } } } }
node { name: "shift" op: "PlaceholderWithDefault" input: "some" attr { key: "dtype" value { type: DT_FLOAT } }
  attr { key: "shape" value { shape { dim { size: 2 } } } } }
node { name: "scaled" op: "Mul" input: "x" input: "keep" attr { key: "T" value { type: DT_FLOAT } } }
node { name: "y" op: "AddV2" input: "scaled" input: "shift" attr { key: "T" value { type: DT_FLOAT } } }
versions { producer: 2000 }
"#;

#[test]
fn a_batch_gives_what_single_rows_give() {
    let Some(engine) = engine() else { return };
    let model = load(&engine, &own("text")).unwrap();
    let numbers = strings(&[4], &[b"1", b"-2.5", b"1e3", b"0"]);
    let whole = run(&*model, "parse", &[("numbers", numbers.clone())], "values").unwrap();
    assert_eq!(floats(&whole), [1.0, -2.5, 1000.0, 0.0]);
    for at in 0..4 {
        let row = numbers.rows(at, 1).unwrap();
        let one = run(&*model, "parse", &[("numbers", row)], "values").unwrap();
        assert_eq!(Some(one), whole.rows(at, 1));
    }
}

#[test]
fn lanes_run_at_the_same_time_on_any_number_of_threads() {
    let Some(engine) = engine() else { return };
    for (threads, n_lanes) in [(1, 1), (1, 4), (2, 4)] {
        let mut options = LoadOptions::default();
        options.threads = threads.try_into().unwrap();
        options.n_lanes = n_lanes.try_into().unwrap();
        let source = ModelSource { path: own("text"), format: Format::SavedModel };
        let model = engine.load(&source, &options).unwrap();
        std::thread::scope(|scope| {
            for lane in 0..4u8 {
                let model = &model;
                scope.spawn(move || {
                    for at in 0..50u8 {
                        let word = format!("{lane} and {at}");
                        let words = strings(&[1], &[word.as_bytes()]);
                        let answer = run(&**model, "serving_default", &[("words", words)], "all").unwrap();
                        assert_eq!(answer, strings(&[], &[word.as_bytes()]));
                    }
                });
            }
        });
    }
}

#[test]
fn what_the_engine_takes() {
    let engine = salver_engine_tensorflow::TensorFlowEngine::new(salver_engine::Library::new(|| {
        Err(salver_engine::Error::new(salver_engine::ErrorKind::Unsupported, "run 'salver runtime install'"))
    }));
    let mut options = LoadOptions::default();
    assert!(engine.takes(Format::SavedModel, &options) && engine.takes(Format::FrozenGraph, &options));
    options.precision = Precision::Bf16;
    assert!(!engine.takes(Format::SavedModel, &options));
    assert!(!engine.supports(Format::Onnx) && !engine.supports(Format::Keras));
    assert!(!engine.is_present());
    let error = load(&engine, &own("text")).unwrap_err();
    assert_eq!(error.to_string(), "run 'salver runtime install'");
}
