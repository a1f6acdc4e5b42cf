//! What cannot be loaded or run, and how it is said.

use prost::Message;
use salver_engine::{Engine, ErrorKind, LoadOptions, ModelSource};
use salver_tensor::{DType, Dims};
use salver_tensorflow::proto::attr_value::{ListValue, Value};
use salver_tensorflow::proto::op_def::ArgDef;
use salver_tensorflow::proto::{
    FunctionDef, FunctionDefLibrary, NameAttrList, NodeDef, OpDef, SavedModel, SaverDef,
};
use salver_tensorflow::read::dtype_number;

use crate::engine::{engine, floats, load, own, run, strings, tensor};
use crate::made::{constant, dtype, frozen, node, placeholder, saved, signature};

#[test]
fn a_custom_operator_is_named() {
    let Some(engine) = engine() else { return };
    for is_saved in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let nodes = vec![
            placeholder("x", DType::F32, &[-1]),
            node("y", "SentencepieceOp", &["x"], &[("T", dtype(DType::F32))]),
        ];
        let float = dtype_number(DType::F32);
        let def = signature(&[("x", "x:0", float, &[-1])], &[("y", "y:0", float, &[-1])]);
        let path = match is_saved {
            true => saved(folder.path(), nodes, &[("serving_default", def)]),
            false => frozen(folder.path(), nodes),
        };
        let error = load(&engine, &path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        let expected = format!("{}: TensorFlow has no operator 'SentencepieceOp'", path.display());
        assert!(error.to_string().starts_with(&expected), "{error}");
    }
}

#[test]
fn broken_models_say_what_is_broken() {
    let Some(engine) = engine() else { return };
    let check = |path: &std::path::Path, tags: &[&str], kind, text: &str| {
        let mut options = LoadOptions::default();
        options.saved_model_tags = tags.iter().map(|&tag| tag.to_owned()).collect();
        let error = engine.load(&ModelSource::find(path).unwrap(), &options).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(text), "{error}");
        assert!(error.to_string().starts_with(&path.display().to_string()), "{error}");
    };
    let tags = "no graph with the tags [gpu, serve]; there are graphs with [serve]";
    check(&own("text"), &["serve", "gpu"], ErrorKind::InvalidModel, tags);
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("saved_model.pb"), b"\x0a\xff\xff").unwrap();
    check(folder.path(), &["serve"], ErrorKind::InvalidModel, "not a SavedModel");
    // The graph alone, without variables and assets; then without assets.
    std::fs::copy(own("text").join("saved_model.pb"), folder.path().join("saved_model.pb")).unwrap();
    let missing = "the model has variables, and variables/variables.index with their values is missing";
    check(folder.path(), &["serve"], ErrorKind::InvalidModel, missing);
    let (from, to) = (own("text").join("variables"), folder.path().join("variables"));
    std::fs::create_dir(&to).unwrap();
    for file in std::fs::read_dir(&from).unwrap().flatten() {
        std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
    check(folder.path(), &["serve"], ErrorKind::InvalidModel, "TensorFlow: ");
    let folder = tempfile::tempdir().unwrap();
    let path = frozen(folder.path(), vec![node("y", "Neg", &["x"], &[("T", dtype(DType::F32))])]);
    check(&path, &["serve"], ErrorKind::InvalidModel, "there is no node 'x', an input of node 'y'");
}

#[test]
fn signatures_that_cannot_be_run_do_not_harm_others() {
    let Some(engine) = engine() else { return };
    let folder = tempfile::tempdir().unwrap();
    let (float, variant, q) = (dtype_number(DType::F32), 21, 11);
    let nodes = vec![
        placeholder("x", DType::F32, &[-1]),
        node("y", "Neg", &["x"], &[("T", dtype(DType::F32))]),
        node("shape", "Const", &[], &[("dtype", dtype(DType::I32)), ("value", Value::Tensor(minus_one()))]),
        node(
            "list",
            "EmptyTensorList",
            &["shape", "shape"],
            &[("element_dtype", dtype(DType::F32)), ("shape_type", dtype(DType::I32))],
        ),
    ];
    let x = ("x", "x:0", float, &[-1i64][..]);
    let path = saved(
        folder.path(),
        nodes,
        &[
            ("good", signature(&[x], &[("y", "y:0", float, &[-1])])),
            ("said", signature(&[x], &[("list", "list:0", variant, &[])])),
            // It says that it gives floats, and gives a list.
            ("unsaid", signature(&[x], &[("list", "list:0", float, &[])])),
            ("quantised", signature(&[x], &[("y", "y:0", q, &[-1])])),
            ("missing", signature(&[x], &[("y", "nothing:0", float, &[-1])])),
            ("second", signature(&[x], &[("y", "y:1", float, &[-1])])),
        ],
    );
    let model = load(&engine, &path).unwrap();
    let refused: Vec<String> =
        model.refused().iter().map(|(name, error)| format!("{name}: {error}")).collect();
    let has = |text: &str| assert!(refused.iter().any(|line| line == text), "{text}: {refused:#?}");
    has("said: output 'list': tensors of type DT_VARIANT are not supported");
    has("unsaid: output 'list': tensors of type DT_VARIANT are not supported");
    has("quantised: output 'y': tensors of type DT_QINT8 are not supported");
    has("missing: output 'y': there is no node 'nothing'");
    has("second: output 'y': there is no tensor 'y:1' in the graph");
    assert_eq!(refused.len(), 5);
    let answer = run(&*model, "good", &[("x", tensor(&[2], &[1.0f32, -2.0]))], "y").unwrap();
    assert_eq!(floats(&answer), [-1.0, 2.0]);
}

fn minus_one() -> salver_tensorflow::proto::TensorProto {
    salver_tensorflow::proto::TensorProto {
        dtype: dtype_number(DType::I32),
        tensor_shape: Some(crate::made::shape(&[])),
        int_val: vec![-1],
        ..Default::default()
    }
}

#[test]
fn inputs_that_cannot_be_computed_with_are_the_callers_fault() {
    let Some(engine) = engine() else { return };
    let folder = tempfile::tempdir().unwrap();
    let nodes = vec![
        placeholder("x", DType::F32, &[-1, 2]),
        constant("w", &[1.0, 2.0]),
        node("y", "AddV2", &["x", "w"], &[("T", dtype(DType::F32))]),
    ];
    let model = load(&engine, &frozen(folder.path(), nodes)).unwrap();
    let check = |input, texts: &[&str]| {
        let error = run(&*model, "serving_default", &[("x", input)], "y").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        for text in texts {
            assert!(error.to_string().contains(text), "{error}");
        }
    };
    check(tensor(&[1, 3], &[1.0f32, 2.0, 3.0]), &["Incompatible shapes: [1,3] vs. [2]", "{{node y}}"]);
    check(tensor(&[1, 2], &[1i32, 2]), &["float", "int32"]);
    // And it still works, with a shape that the signature does not have: each element is taken for itself.
    assert!(model.signatures()[0].takes_any_shape());
    let answer = run(&*model, "serving_default", &[("x", tensor(&[2], &[1.0f32, 1.0]))], "y").unwrap();
    assert_eq!(floats(&answer), [2.0, 3.0]);
    let text = load(&engine, &own("text")).unwrap();
    let error = run(&*text, "parse", &[("numbers", strings(&[1], &[b"one"]))], "values").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(
        error.to_string().contains("StringToNumberOp could not correctly convert string: one"),
        "{error}"
    );
    let error = text.session().unwrap().run(0, &[], &[0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert_eq!(text.session().unwrap().run(9, &[], &[0]).unwrap_err().kind(), ErrorKind::InvalidInput);
}

/// TensorFlow's kernel of this operator ends the process when it is given another number of dimensions.
#[test]
fn an_input_of_unknown_rank_has_the_rank_that_its_operator_needs() {
    let Some(engine) = engine() else { return };
    let folder = tempfile::tempdir().unwrap();
    let ints = |list: &[i64]| Value::List(ListValue { i: list.to_vec(), ..ListValue::default() });
    let t = ("T", dtype(DType::F32));
    let nodes = vec![
        node("x", "Placeholder", &[], &[("dtype", dtype(DType::F32))]),
        constant("scale", &[0.5]),
        node("half", "Mul", &["x", "scale"], std::slice::from_ref(&t)),
        node("w", "Placeholder", &[], &[("dtype", dtype(DType::F32))]),
        node(
            "y",
            "Conv2D",
            &["half", "w"],
            &[t, ("strides", ints(&[1, 1, 1, 1])), ("padding", Value::S(b"VALID".to_vec().into()))],
        ),
    ];
    let model = load(&engine, &frozen(folder.path(), nodes)).unwrap();
    let signature = &model.signatures()[0];
    for (input, declared) in signature.inputs().iter().zip(signature.declared_inputs()) {
        assert_eq!(
            (&input.dims, &declared.dims),
            (&Dims::new(vec![None; 4]), &Dims::unknown()),
            "{}",
            input.name
        );
    }
    assert!(!signature.takes_any_shape());
    let x = tensor(&[1, 1, 2, 1], &[3.0f32, 4.0]);
    let w = tensor(&[1, 1, 1, 1], &[2.0f32]);
    assert_eq!(floats(&run(&*model, "serving_default", &[("x", x), ("w", w)], "y").unwrap()), [3.0, 4.0]);
}

/// The same where the operator lies in functions that are called, as `tf.function` wraps what it traces.
#[test]
fn an_input_has_the_rank_that_an_operator_in_a_function_needs() {
    let Some(engine) = engine() else { return };
    let argument =
        |name: &str| ArgDef { name: name.into(), r#type: dtype_number(DType::F32), ..ArgDef::default() };
    let function = |name: &str, body: NodeDef, ret: &str| FunctionDef {
        signature: Some(OpDef {
            name: name.into(),
            input_arg: vec![argument("before"), argument("image")],
            output_arg: vec![argument("result")],
            ..OpDef::default()
        }),
        node_def: vec![body],
        ret: [("result".to_owned(), ret.to_owned())].into(),
        ..FunctionDef::default()
    };
    let t = ("T", dtype(DType::F32));
    let ints = |list: &[i64]| Value::List(ListValue { i: list.to_vec(), ..ListValue::default() });
    let ones = ints(&[1, 1, 1, 1]);
    let pool = node(
        "pool",
        "MaxPool",
        &["image"],
        &[t, ("ksize", ones.clone()), ("strides", ones), ("padding", Value::S(b"VALID".to_vec().into()))],
    );
    let call = |name: &str, inputs: &[&str], of: &str| {
        let floats = |n: usize| {
            let r#type = vec![dtype_number(DType::F32); n];
            Value::List(ListValue { r#type, ..ListValue::default() })
        };
        let f = Value::Func(NameAttrList { name: of.into(), ..NameAttrList::default() });
        node(name, "StatefulPartitionedCall", inputs, &[("Tin", floats(2)), ("Tout", floats(1)), ("f", f)])
    };
    let mut graph = crate::made::graph(vec![
        node("x", "Placeholder", &[], &[("dtype", dtype(DType::F32))]),
        constant("scale", &[0.5]),
        call("y", &["scale", "x"], "outer"),
    ]);
    graph.library = Some(FunctionDefLibrary {
        function: vec![
            function("outer", call("inner", &["before", "image"], "pooled"), "inner:output:0"),
            function("pooled", pool, "pool:output:0"),
        ],
        ..FunctionDefLibrary::default()
    });
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("frozen.pb");
    std::fs::write(&path, graph.encode_to_vec()).unwrap();
    let model = load(&engine, &path).unwrap();
    assert_eq!(model.signatures()[0].inputs()[0].dims, Dims::new(vec![None; 4]));
    let x = tensor(&[1, 1, 2, 1], &[3.0f32, 4.0]);
    assert_eq!(floats(&run(&*model, "serving_default", &[("x", x)], "y").unwrap()), [3.0, 4.0]);
}

#[test]
fn variables_without_their_values_fail_the_load() {
    let Some(engine) = engine() else { return };
    let float = dtype_number(DType::F32);
    let shape = Value::Shape(crate::made::shape(&[]));
    let t = || ("dtype", dtype(DType::F32));
    let nodes = vec![
        placeholder("x", DType::F32, &[-1]),
        node("v", "VarHandleOp", &[], &[t(), ("shape", shape)]),
        node("value", "ReadVariableOp", &["v"], &[t()]),
        node("y", "AddV2", &["x", "value"], &[("T", dtype(DType::F32))]),
    ];
    let def = signature(&[("x", "x:0", float, &[-1])], &[("y", "y:0", float, &[-1])]);
    let folder = tempfile::tempdir().unwrap();
    let path = saved(folder.path(), nodes, &[("serving_default", def)]);
    let file = path.join("saved_model.pb");
    let mut model = SavedModel::decode(&*std::fs::read(&file).unwrap()).unwrap();
    let saver = SaverDef { restore_op_name: "restore".into(), ..SaverDef::default() };
    model.meta_graphs[0].saver_def = Some(saver);
    std::fs::write(&file, model.encode_to_vec()).unwrap();
    let error = load(&engine, &path).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidModel);
    let expected = "the model has variables, and variables/variables.index with their values is missing";
    assert_eq!(error.to_string(), format!("{}: {expected}", path.display()));
}
