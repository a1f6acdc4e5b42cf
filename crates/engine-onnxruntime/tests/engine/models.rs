//! What is particular to this engine: files, kinds of values, memory.

use std::os::unix::ffi::OsStrExt;

use bytes::Bytes;
use prost::Message;
use salver_engine::{Engine, Error, ErrorKind, Format, LoadOptions, Model, ModelSource, Precision};
use salver_engine_onnxruntime::OnnxRuntimeEngine;
use salver_graph::onnx::proto::attribute_proto::AttributeType;
use salver_graph::onnx::proto::tensor_shape_proto::{Dimension, dimension};
use salver_graph::onnx::proto::type_proto::{Map, Sequence, Tensor as TensorType, Value as Type};
use salver_graph::onnx::proto::{
    AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorShapeProto,
    TypeProto, ValueInfoProto,
};
use salver_graph::{Attributes, Builder, Dim, Graph, onnx};
use salver_tensor::{DType, Shape, Tensor};

use crate::native;

fn floats(dims: &[usize], elements: Vec<f32>) -> Tensor {
    Tensor::from_vec(Shape::new(dims).unwrap(), elements).unwrap()
}

fn fixed(dims: &[usize]) -> Option<Vec<Dim>> {
    Some(dims.iter().map(|&dim| Dim::Fixed(dim)).collect())
}

fn run(model: &dyn Model, inputs: &[Tensor]) -> Result<Vec<Tensor>, Error> {
    let wanted: Vec<_> = (0..model.signatures()[0].outputs().len()).collect();
    model.session()?.run(0, inputs, &wanted)
}

/// `y = x * w + b` over rows of `n` numbers.
fn product(n: usize) -> Graph {
    let mut builder = Builder::new();
    let x = builder.input("x", DType::F32, Some(vec![Dim::symbol("rows"), Dim::Fixed(n)]));
    let w = builder.constant("w", floats(&[n, n], vec![0.5; n * n]));
    let b = builder.input("b", DType::F32, fixed(&[n]));
    let xw = builder.op("times", "MatMul", &[x, w], Attributes::new()).unwrap();
    let y = builder.op("plus", "Add", &[xw, b], Attributes::new()).unwrap();
    builder.finish(&[("y", y)]).unwrap()
}

#[test]
fn a_graph_is_loaded_and_run() {
    let Some(library) = native::library() else { return };
    let engine = OnnxRuntimeEngine::new(library);
    let (mut int8, mut bf16) = (LoadOptions::default(), LoadOptions::default());
    (int8.precision, bf16.precision) = (Precision::Int8, Precision::Bf16);
    for options in [LoadOptions::default(), int8] {
        let model = engine.load_graph(&product(2), &options).unwrap();
        let names: Vec<_> = model.signatures()[0].inputs().iter().map(|spec| spec.name.to_string()).collect();
        assert_eq!(names, ["b", "x"]);
        assert_eq!(model.n_bytes(), 16);
        let inputs = [floats(&[2], vec![1.0, 2.0]), floats(&[1, 2], vec![3.0, 5.0])];
        assert_eq!(run(&*model, &inputs).unwrap(), [floats(&[1, 2], vec![5.0, 6.0])]);
    }
    let error = engine.load_graph(&product(2), &bf16).unwrap_err();
    assert_eq!(error.to_string(), "ONNX Runtime does not compute in bf16");
}

#[test]
fn lanes_of_small_and_large_models_agree() {
    let Some(library) = native::library() else { return };
    let engine = OnnxRuntimeEngine::new(library);
    let n = |n: usize| std::num::NonZeroUsize::new(n).unwrap();
    // Weights of 1 MB and 4 MB, and lanes that outnumber the library's sessions.
    for (size, threads) in [(512, 1), (1024, 1), (512, 2)] {
        let mut options = LoadOptions::default();
        (options.n_lanes, options.threads) = (n(3), n(threads));
        let model = engine.load_graph(&product(size), &options).unwrap();
        let inputs = [floats(&[size], vec![1.0; size]), floats(&[2, size], vec![2.0; 2 * size])];
        let expected = floats(&[2, size], vec![1.0 + size as f32; 2 * size]);
        std::thread::scope(|scope| {
            for _ in 0..5 {
                scope.spawn(|| {
                    (0..20).for_each(|_| {
                        assert_eq!(run(&*model, &inputs).unwrap(), std::slice::from_ref(&expected))
                    })
                });
            }
        });
    }
}

#[test]
fn outputs_outlive_inputs_and_models() {
    let Some(library) = native::library() else { return };
    let engine = OnnxRuntimeEngine::new(library);
    for n in [1, 100_000] {
        let mut builder = Builder::new();
        let x = builder.input("x", DType::F32, fixed(&[n]));
        let w = builder.constant("w", floats(&[n], vec![3.0; n]));
        let y = builder.op("twice", "Add", &[x, x], Attributes::new()).unwrap();
        let flat = builder.i64s(&[1, -1]);
        let z = builder.op("flat", "Reshape", &[x, flat], Attributes::new()).unwrap();
        let graph = builder.finish(&[("same", x), ("constant", w), ("twice", y), ("view", z)]).unwrap();
        let model = engine.load_graph(&graph, &LoadOptions::default()).unwrap();
        let mut session = model.session().unwrap();
        let x = floats(&[n], vec![2.0; n]);
        let names: Vec<_> =
            model.signatures()[0].outputs().iter().map(|spec| spec.name.to_string()).collect();
        assert_eq!(names, ["constant", "same", "twice", "view"]);
        let got = session.run(0, &[x], &[0, 1, 2, 3]).unwrap();
        // The memory of the inputs and of an earlier run is used for something else.
        let other = session.run(0, &[floats(&[n], vec![9.0; n])], &[2, 3]).unwrap();
        drop((session, model));
        let all = |tensor: &Tensor, value: f32| tensor.to_slice::<f32>().unwrap().iter().all(|&x| x == value);
        for (tensor, value) in got.iter().zip([3.0, 2.0, 4.0, 2.0]).chain(other.iter().zip([18.0, 9.0])) {
            assert!(all(tensor, value), "{n} elements: {tensor:?} is not {value}");
        }
    }
}

#[test]
fn strings_go_through_as_bytes() {
    let Some(library) = native::library() else { return };
    let engine = OnnxRuntimeEngine::new(library);
    let mut builder = Builder::new();
    let x = builder.input("x", DType::String, Some(vec![Dim::symbol("rows"), Dim::Fixed(2)]));
    let turned = builder.op("turn", "Transpose", &[x], Attributes::new().with("perm", [1i64, 0])).unwrap();
    let graph = builder.finish(&[("y", turned)]).unwrap();
    let model = engine.load_graph(&graph, &LoadOptions::default()).unwrap();
    let texts = |dims: &[usize], texts: &[&'static [u8]]| {
        let texts = texts.iter().map(|&text| Bytes::from_static(text)).collect();
        Tensor::from_strings(Shape::new(dims).unwrap(), texts).unwrap()
    };
    let long: &[u8] = &[b'a'; 300];
    let x = texts(&[2, 2], &[b"one", b"\xff\x00\xfe", b"", long]);
    let y = texts(&[2, 2], &[b"one", b"", b"\xff\x00\xfe", long]);
    assert_eq!(run(&*model, &[x]).unwrap(), [y]);
    assert_eq!(run(&*model, &[texts(&[0, 2], &[])]).unwrap(), [texts(&[2, 0], &[])]);
}

#[test]
fn what_a_node_cannot_compute_is_the_inputs_fault() {
    let Some(library) = native::library() else { return };
    let engine = OnnxRuntimeEngine::new(library);
    let mut builder = Builder::new();
    let x = builder.input("x", DType::F32, Some(vec![Dim::symbol("a")]));
    let shape = builder.input("shape", DType::I64, fixed(&[2]));
    let y = builder.op("fold", "Reshape", &[x, shape], Attributes::new()).unwrap();
    let graph = builder.finish(&[("y", y)]).unwrap();
    let model = engine.load_graph(&graph, &LoadOptions::default()).unwrap();
    let shape = |a, b| Tensor::from_vec(Shape::new(&[2]).unwrap(), vec![a, b]).unwrap();
    let x = || floats(&[4], vec![0.0; 4]);
    assert_eq!(run(&*model, &[shape(2i64, 2), x()]).unwrap()[0].shape().dims(), [2, 2]);
    for (inputs, start) in [
        (vec![shape(3, 2), x()], "node 'fold' (Reshape): the model cannot be run on these inputs: "),
        (vec![shape(2, 2), floats(&[2, 2], vec![0.0; 4])], "input 'x': shape is [2,2], expected [?]"),
        (vec![shape(2, 2), shape(2, 2)], "input 'x': element type is int64, expected float32"),
    ] {
        let error = run(&*model, &inputs).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        assert!(error.to_string().starts_with(start), "{error}, expected {start}");
    }
}

fn value(name: &str, r#type: Type) -> ValueInfoProto {
    let r#type = TypeProto { value: Some(r#type), ..TypeProto::default() };
    ValueInfoProto { name: Some(name.into()), r#type: Some(r#type), ..ValueInfoProto::default() }
}

fn tensor_of(dtype: DType, dims: &[Option<i64>]) -> Type {
    let dim = dims
        .iter()
        .map(|dim| Dimension { value: dim.map(dimension::Value::DimValue), ..Dimension::default() });
    let shape = Some(TensorShapeProto { dim: dim.collect() });
    Type::TensorType(TensorType { elem_type: Some(onnx::elem_of(dtype)), shape })
}

fn node(domain: &str, op: &str, input: &str, output: &str, attribute: Vec<AttributeProto>) -> NodeProto {
    NodeProto {
        domain: Some(domain.into()),
        op_type: Some(op.into()),
        name: Some(op.to_lowercase()),
        input: vec![input.into()],
        output: vec![output.into()],
        attribute,
        ..NodeProto::default()
    }
}

/// Writes a model as sklearn's exporter does and loads it.
fn load_written(
    engine: &OnnxRuntimeEngine,
    node: Vec<NodeProto>,
    input: Vec<ValueInfoProto>,
    output: Vec<ValueInfoProto>,
) -> Result<std::sync::Arc<dyn Model>, Error> {
    load_with(engine, node, input, output, Vec::new())
}

/// The same with functions of the domain `own`.
fn load_with(
    engine: &OnnxRuntimeEngine,
    node: Vec<NodeProto>,
    input: Vec<ValueInfoProto>,
    output: Vec<ValueInfoProto>,
    functions: Vec<FunctionProto>,
) -> Result<std::sync::Arc<dyn Model>, Error> {
    let import =
        |domain: &str, version| OperatorSetIdProto { domain: Some(domain.into()), version: Some(version) };
    let graph = GraphProto { name: Some("g".into()), node, input, output, ..GraphProto::default() };
    let model = ModelProto {
        ir_version: Some(8),
        opset_import: vec![
            import("", 18),
            import("ai.onnx.ml", 3),
            import("own", 1),
            import("com.microsoft", 1),
        ],
        graph: Some(graph),
        functions,
        ..ModelProto::default()
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    std::fs::write(&path, model.encode_to_vec()).unwrap();
    engine.load(&ModelSource { path, format: Format::Onnx }, &LoadOptions::default())
}

#[test]
fn operators_for_tables_are_there_and_maps_are_refused() {
    let Some(library) = native::library() else { return };
    let engine = OnnxRuntimeEngine::new(library);
    let attribute = |name: &str, r#type: AttributeType| AttributeProto {
        name: Some(name.into()),
        r#type: Some(r#type.into()),
        ..AttributeProto::default()
    };
    let keys = vec![b"cat".to_vec(), b"dog".to_vec()];
    let encode = vec![
        AttributeProto { strings: keys, ..attribute("keys_strings", AttributeType::Strings) },
        AttributeProto { ints: vec![7, 9], ..attribute("values_int64s", AttributeType::Ints) },
    ];
    let model = load_written(
        &engine,
        vec![node("ai.onnx.ml", "LabelEncoder", "x", "y", encode)],
        vec![value("x", tensor_of(DType::String, &[None]))],
        vec![value("y", tensor_of(DType::I64, &[None]))],
    );
    let texts = [b"dog".as_slice(), b"cow", b"cat"].map(Bytes::from_static).to_vec();
    let x = Tensor::from_strings(Shape::new(&[3]).unwrap(), texts).unwrap();
    let y = Tensor::from_vec(Shape::new(&[3]).unwrap(), vec![9i64, -1, 7]).unwrap();
    assert_eq!(run(&*model.unwrap(), &[x]).unwrap(), [y]);

    let labels = AttributeProto { ints: vec![0, 1], ..attribute("classlabels_int64s", AttributeType::Ints) };
    let float = Box::new(TypeProto { value: Some(tensor_of(DType::F32, &[])), ..TypeProto::default() });
    let map =
        Type::MapType(Box::new(Map { key_type: Some(onnx::elem_of(DType::I64)), value_type: Some(float) }));
    let map = Box::new(TypeProto { value: Some(map), ..TypeProto::default() });
    let zipped = || Type::SequenceType(Box::new(Sequence { elem_type: Some(map.clone()) }));
    let nodes = || {
        let zip = node("ai.onnx.ml", "ZipMap", "x", "output_probability", vec![labels.clone()]);
        vec![zip, node("", "Identity", "x", "scores", Vec::new())]
    };
    let scores = || value("scores", tensor_of(DType::F32, &[None, Some(2)]));
    let what = "output 'output_probability' is a sequence of maps, but only tensors go in and out here";
    let advice = "; export the classifier with the option zipmap=False, which gives a tensor";
    for (outputs, middle) in [
        (vec![value("output_probability", zipped())], ""),
        (vec![scores(), value("output_probability", zipped())], " (the other outputs are tensors)"),
    ] {
        let error = load_written(
            &engine,
            nodes(),
            vec![value("x", tensor_of(DType::F32, &[None, Some(2)]))],
            outputs,
        );
        let error = error.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().ends_with(&format!("model.onnx: {what}{middle}{advice}")), "{error}");
    }
}

#[test]
fn whole_numbers_divided_by_zero_are_the_inputs_fault() {
    let Some(library) = native::library() else { return };
    let engine = OnnxRuntimeEngine::new(library);
    let numbers =
        |numbers: &[i64]| Tensor::from_vec(Shape::new(&[numbers.len()]).unwrap(), numbers.to_vec()).unwrap();
    for (op, answer) in [("Div", [3, -3]), ("Mod", [1, -1])] {
        let mut divide = node("", op, "a", "y", Vec::new());
        divide.input.push("b_plus".into());
        let mut plus = node("", "Identity", "b", "b_plus", Vec::new());
        plus.name = Some("plus".into());
        let value_of = |name: &str| value(name, tensor_of(DType::I64, &[None]));
        let model = load_written(
            &engine,
            vec![plus, divide],
            vec![value_of("a"), value_of("b")],
            vec![value_of("y")],
        )
        .unwrap();
        let run = |a: &[i64], b: &[i64]| run(&*model, &[numbers(a), numbers(b)]);
        assert_eq!(run(&[7, 7], &[2, -2]).unwrap(), [numbers(&answer)], "{op}");
        for (a, b) in [(7, 0), (i64::MIN, -1)] {
            let error = run(&[1, a], &[1, b]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            let place = format!("node '{}' ({op}): ", op.to_lowercase());
            let expected = format!("{place}a whole number is divided by zero, or the least one by -1");
            assert_eq!(error.to_string(), expected);
        }
    }
}

fn graph_attribute(name: &str, graph: GraphProto) -> AttributeProto {
    AttributeProto {
        name: Some(name.into()),
        r#type: Some(AttributeType::Graph.into()),
        g: Some(graph),
        ..AttributeProto::default()
    }
}

/// In branches, in functions, and where a type is known by a sequence, or in a branch not at all.
#[test]
fn divisions_are_guarded_wherever_they_are() {
    let Some(library) = native::library() else { return };
    let engine = OnnxRuntimeEngine::new(library);
    for op in ["Div", "Mod"] {
        let divide = |a: &str, b: &str, y: &str| {
            let mut divide = node("", op, a, y, Vec::new());
            divide.input.push(b.into());
            divide
        };
        let int_of = |name: &str| value(name, tensor_of(DType::I64, &[None]));
        let branch = |node: NodeProto, is_typed: bool| {
            let name = node.output[0].clone();
            let untyped = ValueInfoProto { name: Some(name.clone()), ..ValueInfoProto::default() };
            let output = vec![if is_typed { int_of(&name) } else { untyped }];
            GraphProto { name: Some("g".into()), node: vec![node], output, ..GraphProto::default() }
        };
        let choose = |then: NodeProto, other: NodeProto, y: &str, is_typed| {
            let branches = vec![
                graph_attribute("then_branch", branch(then, is_typed)),
                graph_attribute("else_branch", branch(other, is_typed)),
            ];
            NodeProto { name: Some(y.into()), ..node("", "If", "c", y, branches) }
        };
        let constant = AttributeProto {
            name: Some("value_int".into()),
            r#type: Some(AttributeType::Int.into()),
            i: Some(1),
            ..AttributeProto::default()
        };
        let mut yes = node("", "Cast", "one", "c", vec![]);
        yes.attribute.push(AttributeProto {
            name: Some("to".into()),
            r#type: Some(AttributeType::Int.into()),
            i: Some(onnx::elem_of(DType::Bool).into()),
            ..AttributeProto::default()
        });
        let mut one = node("", "Constant", "", "one", vec![constant.clone()]);
        one.name = Some("one".into());
        one.input.clear();
        let condition = || vec![one.clone(), yes.clone()];
        let same = |from: &str, to: &str| NodeProto {
            name: Some(to.into()),
            ..node("", "Identity", from, to, Vec::new())
        };
        let mut zero = AttributeProto { i: Some(0), ..constant.clone() };
        zero.name = Some("value_int".into());
        let mut first = node("", "Constant", "", "first", vec![zero]);
        first.input.clear();
        let mut at = node("", "SequenceAt", "list", "b_at", Vec::new());
        at.input.push("first".into());
        let mut call = node("own", "Share", "a", "y", Vec::new());
        call.input.push("b".into());
        let import = OperatorSetIdProto { domain: Some(String::new()), version: Some(18) };
        let function = FunctionProto {
            name: Some("Share".into()),
            domain: Some("own".into()),
            input: vec!["p".into(), "q".into()],
            output: vec!["r".into()],
            node: vec![divide("p", "q", "r")],
            opset_import: vec![import],
            ..FunctionProto::default()
        };
        let with_condition = |more: Vec<NodeProto>| condition().into_iter().chain(more).collect::<Vec<_>>();
        for (what, nodes, functions) in [
            (
                "a branch",
                with_condition(vec![choose(divide("a", "b", "t"), same("a", "e"), "y", true)]),
                vec![],
            ),
            (
                "behind an untyped branch",
                with_condition(vec![
                    choose(same("a", "t"), same("b", "e"), "a2", false),
                    choose(same("b", "t2"), same("b", "e2"), "b2", false),
                    divide("a2", "b2", "y"),
                ]),
                vec![],
            ),
            (
                "a sequence",
                vec![
                    first.clone(),
                    node("", "SequenceConstruct", "b", "list", Vec::new()),
                    at.clone(),
                    divide("a", "b_at", "y"),
                ],
                vec![],
            ),
            ("a function", vec![call.clone()], vec![function.clone()]),
        ] {
            let model =
                load_with(&engine, nodes, vec![int_of("a"), int_of("b")], vec![int_of("y")], functions)
                    .unwrap();
            let numbers =
                |all: &[i64]| Tensor::from_vec(Shape::new(&[all.len()]).unwrap(), all.to_vec()).unwrap();
            let run = |a: &[i64], b: &[i64]| run(&*model, &[numbers(a), numbers(b)]);
            let expected = if op == "Div" { [3, i64::MIN / 2, 0] } else { [1, 0, 0] };
            assert_eq!(run(&[7, i64::MIN, 0], &[2, 2, -1]).unwrap(), [numbers(&expected)], "{op} in {what}");
            let error = run(&[1, i64::MIN], &[1, -1]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{op} in {what}: {error}");
            let place = format!("node '{}' ({op}): ", op.to_lowercase());
            let text = format!("{place}a whole number is divided by zero, or the least one by -1");
            assert_eq!(error.to_string(), text, "{op} in {what}");
            assert_eq!(run(&[1, 5], &[1, 0]).unwrap_err().kind(), ErrorKind::InvalidInput, "{op} in {what}");
        }
    }
}

/// Floats of a type that cannot be told are divided as ever.
#[test]
fn guards_leave_floats_alone() {
    let Some(library) = native::library() else { return };
    let engine = OnnxRuntimeEngine::new(library);
    let float_of = |name: &str| value(name, tensor_of(DType::F32, &[None]));
    let mut divide = node("", "Div", "a2", "y", Vec::new());
    divide.input.push("b2".into());
    // Nothing is known of what operators of other domains give.
    let gelu = |from: &str, to: &str| NodeProto {
        name: Some(to.into()),
        ..node("com.microsoft", "QuickGelu", from, to, Vec::new())
    };
    let model = load_written(
        &engine,
        vec![gelu("a", "a2"), gelu("b", "b2"), divide],
        vec![float_of("a"), float_of("b")],
        vec![float_of("y")],
    )
    .unwrap();
    let line = |all: &[f32]| floats(&[all.len()], all.to_vec());
    let got = run(&*model, &[line(&[0.0, 9.0, f32::INFINITY]), line(&[9.0, 0.0, 9.0])]).unwrap();
    assert_eq!(got, [line(&[0.0, f32::INFINITY, f32::INFINITY])]);
}

#[test]
fn only_divisions_that_the_wanted_outputs_depend_on_count() {
    let Some(library) = native::library() else { return };
    let engine = OnnxRuntimeEngine::new(library);
    let int_of = |name: &str| value(name, tensor_of(DType::I64, &[None]));
    let mut divide = node("", "Div", "a", "q", Vec::new());
    divide.input.push("b".into());
    let nodes = vec![divide, node("", "Neg", "a", "y", Vec::new()), node("", "Abs", "q", "z", Vec::new())];
    let outputs = ["q", "y", "z"].map(int_of).to_vec();
    let model = load_written(&engine, nodes, vec![int_of("a"), int_of("b")], outputs).unwrap();
    let number = |n: i64| Tensor::from_vec(Shape::new(&[1]).unwrap(), vec![n]).unwrap();
    let mut session = model.session().unwrap();
    let mut run = |wanted: &[usize]| session.run(0, &[number(5), number(0)], wanted);
    assert_eq!(run(&[1]).unwrap(), [number(-5)]);
    for wanted in [&[0][..], &[2], &[1, 2]] {
        assert_eq!(run(wanted).unwrap_err().location(), Some("node 'div' (Div)"), "{wanted:?}");
    }
}

#[test]
fn divisions_are_watched_in_models_with_weights_beside_them() {
    let Some(library) = native::library() else { return };
    let engine = OnnxRuntimeEngine::new(library);
    let numbers =
        |numbers: Vec<i64>| Tensor::from_vec(Shape::new(&[numbers.len()]).unwrap(), numbers).unwrap();
    let mut builder = Builder::new();
    let x = builder.input("x", DType::I64, fixed(&[256]));
    let w = builder.constant("w", numbers(vec![100; 256]));
    let y = builder.op("share", "Div", &[w, x], Attributes::new()).unwrap();
    let graph = builder.finish(&[("y", y)]).unwrap();
    let written = onnx::bytes(&graph, &onnx::Labels::default(), onnx::Weights::Beside("w.bin")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    std::fs::write(&path, &written.model).unwrap();
    let weights: Vec<u8> = written.data.unwrap().pieces().flatten().copied().collect();
    std::fs::write(folder.path().join("w.bin"), weights).unwrap();
    let model = engine.load(&ModelSource { path, format: Format::Onnx }, &LoadOptions::default()).unwrap();
    assert_eq!(run(&*model, &[numbers(vec![7; 256])]).unwrap(), [numbers(vec![14; 256])]);
    let error = run(&*model, &[numbers(vec![0; 256])]).unwrap_err();
    assert_eq!(error.location(), Some("node 'share' (Div)"));

    let odd = std::ffi::OsStr::from_bytes(b"od\xff");
    let (to, from) = (folder.path().join(odd), folder.path());
    std::fs::create_dir(&to).unwrap();
    for name in ["model.onnx", "w.bin"] {
        std::fs::copy(from.join(name), to.join(name)).unwrap();
    }
    let source = ModelSource { path: to.join("model.onnx"), format: Format::Onnx };
    let error = engine.load(&source, &LoadOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("in a folder whose name is not UTF-8"), "{error}");
}

#[test]
fn operators_that_are_not_there_are_named() {
    let Some(library) = native::library() else { return };
    let engine = OnnxRuntimeEngine::new(library);
    let x = || vec![value("x", tensor_of(DType::F32, &[None]))];
    let y = || vec![value("y", tensor_of(DType::F32, &[None]))];
    let error = load_written(&engine, vec![node("", "Spin", "x", "y", Vec::new())], x(), y()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(error.to_string().contains("Spin"), "{error}");
    let error = load_written(&engine, vec![node("", "Relu", "z", "y", Vec::new())], x(), y()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidModel, "{error}");
}

#[test]
fn weights_beside_the_model_are_read_from_its_folder_only() {
    let Some(library) = native::library() else { return };
    let engine = OnnxRuntimeEngine::new(library);
    let written =
        onnx::bytes(&product(64), &onnx::Labels::default(), onnx::Weights::Beside("w.bin")).unwrap();
    let weights: Vec<u8> = written.data.unwrap().pieces().flatten().copied().collect();
    let folder = tempfile::tempdir().unwrap();
    let (path, beside) = (folder.path().join("model.onnx"), folder.path().join("w.bin"));
    let source = ModelSource { path: path.clone(), format: Format::Onnx };
    let load = || engine.load(&source, &LoadOptions::default());
    std::fs::write(&path, &written.model).unwrap();
    let error = load().unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::InvalidModel | ErrorKind::NotFound), "{error}");
    std::fs::write(&beside, &weights).unwrap();
    let model = load().unwrap();
    assert_eq!(model.n_bytes(), 64 * 64 * 4);
    let inputs = [floats(&[64], vec![1.0; 64]), floats(&[1, 64], vec![2.0; 64])];
    assert_eq!(run(&*model, &inputs).unwrap(), [floats(&[1, 64], vec![65.0; 64])]);

    let mut proto = onnx::decode(written.model.clone()).unwrap();
    for entry in proto.graph.iter_mut().flat_map(|g| &mut g.initializer).flat_map(|t| &mut t.external_data) {
        if entry.key() == "location" {
            entry.value = Some("../w.bin".into());
        }
    }
    std::fs::write(&path, proto.encode_to_vec()).unwrap();
    let error = load().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidModel);
    let expected =
        "tensor 'w': its elements are said to lie in '../w.bin', expected a file in the model's folder";
    assert!(error.to_string().ends_with(expected), "{error}");
}

/// Resident memory in bytes; 0 where the system does not say.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    text.split_whitespace().nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0) * 4096
}

#[test]
fn models_that_come_and_go_leave_memory_as_it_was() {
    let Some(library) = native::library() else { return };
    let engine = OnnxRuntimeEngine::new(library);
    let graph = product(512);
    let inputs = [floats(&[512], vec![1.0; 512]), floats(&[64, 512], vec![2.0; 64 * 512])];
    let cycle = || {
        let model = engine.load_graph(&graph, &LoadOptions::default()).unwrap();
        run(&*model, &inputs).unwrap()
    };
    (0..20).for_each(|_| drop(cycle()));
    let before = resident();
    (0..200).for_each(|_| drop(cycle()));
    let after = resident();
    println!("{before} bytes after 20 loads, {after} after 220");
    assert!(after <= before + before / 10, "{before} bytes before, {after} after");
}
