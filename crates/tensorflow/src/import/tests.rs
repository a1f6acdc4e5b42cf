//! Real models, and small ones of our own from `testdata/import.py`.

use std::path::Path;

use bytes::Bytes;
use salver_graph::{Model, Node, SignatureGraph, evaluate};
use salver_tensor::{DType, Shape, Tensor};

use super::{import_frozen, import_saved_model};
use crate::Error;
use crate::on_disk::{Folder, shared};
use crate::proto::attr_value::Value;
use crate::proto::{
    AttrValue, DataType, FunctionDef, FunctionDefLibrary, GraphDef, NameAttrList, NodeDef, OpDef, op_def,
};
use crate::read::{Files, SERVE};

fn saved(folder: &Path) -> Model {
    let files = Folder(folder.to_owned());
    let bytes = files.read("saved_model.pb").unwrap().expect("a SavedModel");
    import_saved_model(bytes, &[SERVE], &files).unwrap()
}

fn floats(dims: &[usize], values: &[f32]) -> Tensor {
    Tensor::from_vec(Shape::new(dims).unwrap(), values.to_vec()).unwrap()
}

fn signature<'m>(model: &'m Model, name: &str) -> &'m SignatureGraph {
    let found = model.signatures.iter().find(|signature| signature.name == name);
    found.unwrap_or_else(|| panic!("no signature '{name}'; refused: {:?}", model.refused))
}

/// Runs a signature whose inputs are in the order of the graph's, and gives its outputs by name.
fn run(model: &Model, name: &str, inputs: &[Tensor]) -> Vec<(String, Tensor)> {
    let signature = signature(model, name);
    let outputs = evaluate(&signature.graph, inputs).unwrap();
    signature.graph.outputs().map(|(name, _)| name.to_owned()).zip(outputs).collect()
}

fn near(tensor: &Tensor, expected: &[f32]) {
    let values = tensor.to_slice::<f32>().unwrap();
    assert_eq!(values.len(), expected.len(), "{tensor:?}");
    for (a, b) in values.iter().zip(expected) {
        assert!((a - b).abs() <= 1e-5 * b.abs().max(1.0), "{values:?}, expected {expected:?}");
    }
}

#[test]
fn half_plus_two_in_all_forms() {
    let Some(root) = shared("tfserving") else { return };
    for (folder, x, y) in [
        ("saved_model_half_plus_two_cpu/00000123", [2.0, 3.0, 4.0], [3.0, 3.5, 4.0]),
        ("saved_model_half_plus_two_2_versions/00000123", [2.0, 3.0, 4.0], [3.0, 3.5, 4.0]),
        ("saved_model_half_plus_two_2_versions/00000124", [2.0, 3.0, 4.0], [3.0, 3.5, 4.0]),
        ("saved_model_half_plus_two_tf2_cpu/00000123", [2.0, 3.0, 4.0], [3.0, 3.5, 4.0]),
        ("saved_model_half_plus_two_mlmd/00000123", [2.0, 3.0, 4.0], [3.0, 3.5, 4.0]),
        ("saved_model_half_plus_two_gpu/00000123", [2.0, 3.0, 4.0], [3.0, 3.5, 4.0]),
        ("saved_model_half_plus_two_cpu_with_saved_model_config/00000123", [2.0, 3.0, 4.0], [3.0, 3.5, 4.0]),
        ("matrix_half_plus_two/1", [2.0, 3.0, 4.0], [3.0, 3.5, 4.0]),
        ("saved_model_half_plus_three/00000123", [1.0, 2.0, 5.0], [3.5, 4.0, 5.5]),
    ] {
        let model = saved(&root.join(folder));
        assert!(model.refused.is_empty(), "{folder}: {:?}", model.refused);
        let dims: &[usize] = if folder.starts_with("matrix") { &[1, 3] } else { &[3, 1] };
        let outputs = run(&model, "serving_default", &[floats(dims, &x)]);
        near(&outputs[0].1, &y);
    }
}

#[test]
fn the_counter_keeps_state() {
    let Some(folder) = shared("tfserving/saved_model_counter/00000123") else { return };
    let model = saved(&folder);
    assert!(model.refused.is_empty(), "{:?}", model.refused);
    assert_eq!(model.state.len(), 1);
    let mut counter = model.state[0].initial.clone();
    near(&counter, &[0.0]);
    let mut step = |name: &str, delta: Option<f32>| {
        let signature = signature(&model, name);
        assert!(signature.inputs.len() == usize::from(delta.is_some()));
        let mut inputs: Vec<Tensor> = delta.iter().map(|&delta| floats(&[], &[delta])).collect();
        inputs.extend(signature.state_inputs.iter().map(|_| counter.clone()));
        let outputs = evaluate(&signature.graph, &inputs).unwrap();
        if !signature.state_outputs.is_empty() {
            counter = outputs[1].clone();
        }
        outputs[0].clone()
    };
    for (name, delta, expected) in [
        ("incr_counter", None, 1.0),
        ("incr_counter", None, 2.0),
        ("incr_counter", None, 3.0),
        ("get_counter", None, 3.0),
        ("incr_counter_by", Some(2.0), 5.0),
        ("get_counter", None, 5.0),
        ("reset_counter", None, 0.0),
        ("get_counter", None, 0.0),
    ] {
        near(&step(name, delta), &[expected]);
    }
}

fn nodes<'m>(signature: &'m SignatureGraph, op: &str) -> Vec<&'m Node> {
    let mut found = Vec::new();
    signature.graph.body().visit(&mut |node| {
        if node.op == op {
            found.push(node);
        }
    });
    found
}

#[test]
fn a_loop_of_the_old_kind_has_one_state() {
    let Some(root) = shared("jena/savedmodel/weather") else { return };
    for version in ["1", "2"] {
        let model = saved(&root.join(version));
        let signature = signature(&model, "serving_default");
        let loops = nodes(signature, "Loop");
        assert_eq!(loops.len(), 1);
        assert_eq!(loops[0].inputs.len(), 3, "a number of iterations, no condition, one state");
        assert!(loops[0].inputs[1].is_none());
        assert!(nodes(signature, "If").is_empty());
        let x: Vec<f32> = (0..120 * 14).map(|at| ((at * 37 % 101) as f32 - 50.0) / 50.0).collect();
        let outputs = run(&model, "serving_default", &[floats(&[1, 120, 14], &x)]);
        assert_eq!(outputs[0].1.shape().dims(), [1, 1]);
    }
}

#[test]
fn frozen_graphs_and_keras_saved_models() {
    let Some(root) = shared("") else { return };
    for (path, input, output) in [
        ("fraud/autoencoder_fraud.pb", "CreditCardInput", "Decoder2/Relu"),
        ("retrain/mobilenet025_128_retrained_graph.pb", "input", "final_result"),
        ("retrain/mobilenet025_128_optimized_graph.pb", "input", "final_result"),
        ("retrain/mobilenet_v1_0.25_128_frozen_graph.pb", "input", "MobilenetV1/Predictions/Reshape_1"),
    ] {
        let bytes: Bytes = std::fs::read(root.join(path)).unwrap().into();
        let model = import_frozen(bytes, None, None).unwrap_or_else(|error| panic!("{path}: {error}"));
        let signature = signature(&model, "serving_default");
        let names =
            |ports: &[salver_graph::Port]| ports.iter().map(|port| port.name.clone()).collect::<Vec<_>>();
        assert!(names(&signature.inputs).contains(&input.to_owned()), "{:?}", names(&signature.inputs));
        assert!(names(&signature.outputs).contains(&output.to_owned()), "{:?}", names(&signature.outputs));
    }
    let model = saved(&root.join("crayfish/savedmodel_ffnn/1"));
    assert!(model.refused.is_empty(), "{:?}", model.refused);
}

/// Tensors as `testdata/import.py` writes them: `name=dtype[dims]:elements`, separated by blanks.
fn tensors(text: &str) -> Vec<(String, Tensor)> {
    let one = |text: &str| {
        let (name, rest) = text.split_once('=').unwrap();
        let (dtype, rest) = rest.split_once('[').unwrap();
        let (dims, elements) = rest.split_once("]:").unwrap();
        let dims: Vec<usize> =
            dims.split(',').filter(|dim| !dim.is_empty()).map(|dim| dim.parse().unwrap()).collect();
        let shape = Shape::new(&dims).unwrap();
        let elements = elements.split(',').filter(|element| !element.is_empty());
        let tensor = match dtype {
            "float32" => Tensor::from_vec(shape, elements.map(|e| e.parse::<f32>().unwrap()).collect()),
            "int32" => Tensor::from_vec(shape, elements.map(|e| e.parse::<i32>().unwrap()).collect()),
            "int64" => Tensor::from_vec(shape, elements.map(|e| e.parse::<i64>().unwrap()).collect()),
            "bool" => Tensor::from_bools(shape, &elements.map(|e| e == "True").collect::<Vec<_>>()),
            "string" => Tensor::from_strings(shape, elements.map(|e| Bytes::from(e.to_owned())).collect()),
            other => panic!("{other}"),
        };
        (name.to_owned(), tensor.unwrap())
    };
    text.split(' ').filter(|text| !text.is_empty()).map(one).collect()
}

#[test]
fn our_own_models_answer_as_tensorflow_does() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/import");
    let expected = std::fs::read_to_string(root.join("expected.txt")).unwrap();
    let mut models: std::collections::HashMap<String, (Model, Vec<Tensor>)> =
        std::collections::HashMap::new();
    for line in expected.lines() {
        let parts: Vec<&str> = line.split('|').collect();
        let [place, name, inputs, outputs] = parts[..] else { panic!("{line}") };
        let (model, state) = models.entry(place.to_owned()).or_insert_with(|| {
            let path = root.join(place);
            let model = if place.ends_with(".pb") {
                import_frozen(std::fs::read(path).unwrap().into(), None, None).unwrap()
            } else {
                saved(&path)
            };
            assert!(model.refused.is_empty(), "{place}: {:?}", model.refused);
            let state = model.state.iter().map(|state| state.initial.clone()).collect();
            (model, state)
        });
        let signature = signature(model, name);
        let given = tensors(inputs);
        let input = |value: &salver_graph::ValueId| {
            if let Some((at, _)) = signature.state_inputs.iter().find(|(_, own)| own == value) {
                return state[*at].clone();
            }
            let port = signature.inputs.iter().find(|port| port.value == *value).unwrap();
            let named = given.iter().find(|(name, _)| *name == port.name);
            named.map(|(_, tensor)| tensor.clone()).or(port.default.clone()).unwrap()
        };
        let given: Vec<Tensor> = signature.graph.inputs().iter().map(input).collect();
        let answers = evaluate(&signature.graph, &given).unwrap_or_else(|error| panic!("{line}: {error}"));
        for (name, expected) in tensors(outputs) {
            let at = signature.outputs.iter().position(|port| port.name == name).unwrap();
            let answer = &answers[at];
            assert_eq!(answer.shape(), expected.shape(), "{line}");
            match expected.dtype() {
                DType::F32 => near(answer, &expected.to_slice::<f32>().unwrap()),
                _ => assert_eq!(*answer, expected, "{line}"),
            }
        }
        let answers = &answers[signature.outputs.len()..];
        for ((at, _), answer) in signature.state_outputs.iter().zip(answers) {
            state[*at] = answer.clone();
        }
    }
    let (control, _) = &models["control"];
    let form = |name: &str| {
        nodes(signature(control, name), "Loop").iter().map(|node| node.inputs.len()).collect::<Vec<_>>()
    };
    assert_eq!(form("scan"), [3], "one state; the last output is the state");
    assert!(nodes(signature(control, "scan"), "Loop")[0].inputs[1].is_none());
    assert_eq!(form("collatz"), [4]);
    assert_eq!(control.state.len(), 1);
    let (old, _) = &models["old.pb"];
    let inputs: Vec<_> =
        signature(old, "serving_default").inputs.iter().map(|port| port.name.as_str()).collect();
    assert_eq!(inputs, ["x", "flag"], "a condition with a default is decided");
    assert_eq!(nodes(signature(old, "serving_default"), "If").len(), 1);
}

fn node(name: &str, op: &str, inputs: &[&str]) -> NodeDef {
    let input = inputs.iter().map(|input| (*input).to_owned()).collect();
    NodeDef { name: name.into(), op: op.into(), input, ..NodeDef::default() }
}

fn with(mut node: NodeDef, name: &str, value: Value) -> NodeDef {
    node.attr.insert(name.into(), AttrValue { value: Some(value) });
    node
}

fn float(node: NodeDef, name: &str) -> NodeDef {
    with(node, name, Value::Type(DataType::DtFloat.into()))
}

fn input() -> NodeDef {
    float(node("x", "Placeholder", &[]), "dtype")
}

fn frozen(nodes: Vec<NodeDef>, functions: Vec<FunctionDef>) -> Result<Model, Error> {
    use prost::Message as _;
    let library = Some(FunctionDefLibrary { function: functions, ..FunctionDefLibrary::default() });
    let graph = GraphDef { node: nodes, library, ..GraphDef::default() };
    import_frozen(graph.encode_to_vec().into(), None, None)
}

/// A function of one argument that gives the output of its last node.
fn function(name: &str, nodes: Vec<NodeDef>) -> FunctionDef {
    let argument = |name: &str| op_def::ArgDef {
        name: name.into(),
        r#type: DataType::DtFloat.into(),
        ..op_def::ArgDef::default()
    };
    let last = nodes.last().map_or("a".to_owned(), |node| format!("{}:y:0", node.name));
    let signature = OpDef {
        name: name.into(),
        input_arg: vec![argument("a")],
        output_arg: vec![argument("r")],
        ..OpDef::default()
    };
    FunctionDef {
        signature: Some(signature),
        node_def: nodes,
        ret: std::iter::once(("r".to_owned(), last)).collect(),
        ..FunctionDef::default()
    }
}

fn call(name: &str, input: &str, callee: &str) -> NodeDef {
    let function = NameAttrList { name: callee.into(), ..NameAttrList::default() };
    with(node(name, "PartitionedCall", &[input]), "f", Value::Func(function))
}

#[test]
fn a_long_chain_is_no_deep_call() {
    let mut chain = vec![input()];
    for at in 0..50_000 {
        let from = chain[at].name.clone();
        chain.push(float(node(&format!("n{at}"), "Neg", &[&from]), "T"));
    }
    let model = frozen(chain, vec![]).unwrap();
    let outputs = run(&model, "serving_default", &[floats(&[2], &[1.0, -2.0])]);
    near(&outputs[0].1, &[1.0, -2.0]);
}

#[test]
fn what_cannot_be_imported_is_said() {
    let relu = |name: &str, from: &str| float(node(name, "Relu", &[from]), "T");
    for (nodes, functions, expected) in [
        (
            vec![input(), relu("a", "b"), relu("b", "a"), relu("c", "b")],
            vec![],
            "node 'b': the graph has a cycle outside of loops",
        ),
        (
            vec![
                input(),
                node("a", "Warp", &["x"]),
                node("b", "Warp", &["x"]),
                node("c", "Weave", &["a", "b"]),
            ],
            vec![],
            "2 operators are not supported: Warp (2 nodes, one is 'a'), Weave (node 'c'); \
             the TensorFlow engine knows all of TensorFlow's (salver runtime install tensorflow)",
        ),
        (
            vec![input(), call("y", "x", "f")],
            vec![function("f", vec![call("g", "a", "g")]), function("g", vec![call("f", "a", "f")])],
            "function 'f': the function calls itself",
        ),
        (
            vec![input(), node("y", "VarHandleOp", &[]), relu("z", "y")],
            vec![],
            "variable 'y': it has no value: there is no checkpoint 'variables/variables.index'",
        ),
        (
            vec![
                input(),
                node("m", "Merge", &["x", "n"]),
                node("n", "NextIteration", &["m"]),
                relu("y", "m"),
            ],
            vec![],
            "node 'm': the graph has a cycle outside of loops",
        ),
    ] {
        let error = frozen(nodes, functions).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}\nexpected {expected}");
    }
}

#[test]
fn functions_that_multiply_are_bounded() {
    // Each calls the next one twice; 2^23 calls are refused, not tried.
    let mut functions: Vec<FunctionDef> = (0..22)
        .map(|at| {
            let next = format!("f{}", at + 1);
            function(&format!("f{at}"), vec![call("p", "a", &next), call("q", "p:output:0", &next)])
        })
        .collect();
    functions.push(function("f22", vec![float(node("n", "Neg", &["a"]), "T")]));
    let error = frozen(vec![input(), call("y", "x", "f0")], functions).unwrap_err();
    assert!(error.to_string().contains("nodes after functions are inlined"), "{error}");
}

/// A condition in a condition, so many deep, each in a function.
fn conditions(depth: usize) -> Result<Model, Error> {
    let named = |name: String| Value::Func(NameAttrList { name, ..NameAttrList::default() });
    let choose = |at: usize| {
        let next = format!("f{}", at + 1);
        let choose = with(node("if", "If", &["a", "a"]), "then_branch", named(next));
        function(&format!("f{at}"), vec![with(choose, "else_branch", named("leaf".into()))])
    };
    let mut functions: Vec<FunctionDef> = (0..depth).map(choose).collect();
    functions.push(function(&format!("f{depth}"), vec![float(node("n", "Neg", &["a"]), "T")]));
    functions.push(function("leaf", vec![float(node("n", "Neg", &["a"]), "T")]));
    frozen(vec![float(node("x", "Placeholder", &[]), "dtype"), call("y", "x", "f0")], functions)
}

#[test]
fn nesting_is_bounded() {
    let model = conditions(10).unwrap();
    for x in [1.0, 0.0] {
        near(&run(&model, "serving_default", &[floats(&[], &[x])])[0].1, &[-x]);
    }
    for depth in [23, 200] {
        let error = conditions(depth).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::TooLarge, "{error}");
    }
}

/// The small graphs with control flow.
fn small_graphs() -> Vec<GraphDef> {
    use prost::Message as _;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/import");
    let read = |name: &str| GraphDef::decode(Bytes::from(std::fs::read(root.join(name)).unwrap())).unwrap();
    let saved = std::fs::read(root.join("control/saved_model.pb")).unwrap();
    let saved = crate::proto::SavedModel::decode(Bytes::from(saved)).unwrap();
    let control = saved.meta_graphs.into_iter().next().and_then(|meta| meta.graph_def).unwrap();
    vec![read("old.pb"), read("lowered.pb"), control]
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 96, ..Default::default() })]

    /// Graphs whose edges, operators and attributes are mixed up are imported or refused; nothing panics.
    #[test]
    fn graphs_that_are_mixed_up_do_not_panic(
        which in 0usize..3,
        changes in proptest::collection::vec((0usize..4, proptest::num::usize::ANY, proptest::num::usize::ANY), 1..6),
    ) {
        use prost::Message as _;
        let mut graph = small_graphs().swap_remove(which);
        let functions = graph.library.as_mut().map(|library| &mut library.function);
        let mut lists: Vec<&mut Vec<NodeDef>> = vec![&mut graph.node];
        lists.extend(functions.into_iter().flatten().map(|function| &mut function.node_def));
        for (kind, a, b) in changes {
            let n = lists.len();
            let list = &mut lists[a % n];
            let n = list.len();
            if n == 0 {
                continue;
            }
            let (from, to) = (a / 7 % n, b % n);
            let other = list[from].clone();
            let node = &mut list[to];
            match kind {
                0 if !node.input.is_empty() => {
                    let at = b / 11 % node.input.len();
                    node.input[at] = other.input.first().cloned().unwrap_or(other.name);
                }
                1 => node.op = other.op,
                2 => node.attr = other.attr,
                _ => {
                    node.input.pop();
                }
            }
        }
        if let Err(error) = import_frozen(graph.encode_to_vec().into(), None, None) {
            proptest::prop_assert!(!error.to_string().is_empty());
        }
    }
}

/// The model of our own, changed, with the files that are asked for.
fn changed(change: impl Fn(&mut crate::proto::MetaGraphDef), without: &str) -> Model {
    use prost::Message as _;
    struct Without(Folder, String);
    impl Files for Without {
        fn read(&self, name: &str) -> Result<Option<Bytes>, Error> {
            if name.contains(&self.1) { Ok(None) } else { self.0.read(name) }
        }
    }
    let folder = Folder(Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/import/control"));
    let bytes = folder.read("saved_model.pb").unwrap().unwrap();
    let mut saved = crate::proto::SavedModel::decode(bytes).unwrap();
    change(&mut saved.meta_graphs[0]);
    let files = Without(folder, without.to_owned());
    import_saved_model(saved.encode_to_vec().into(), &[SERVE], &files).unwrap()
}

fn refusal(model: &Model, name: &str) -> String {
    let found = model.refused.iter().find(|(own, _)| own == name);
    found.map(|(_, error)| error.to_string()).unwrap_or_default()
}

#[test]
fn one_signature_does_not_stop_the_others() {
    use crate::proto::tensor_info::{CooSparse, Encoding};
    let sparse = changed(
        |meta| {
            let input = meta.signature_def.get_mut("scan").and_then(|scan| scan.inputs.get_mut("x")).unwrap();
            input.encoding = Some(Encoding::CooSparse(CooSparse::default()));
        },
        "nothing",
    );
    assert!(
        refusal(&sparse, "scan").contains("input 'x': it is a sparse or composite tensor"),
        "{:?}",
        sparse.refused
    );
    let no_variables = changed(|_| {}, "variables.index");
    assert!(
        refusal(&no_variables, "get").contains("variable 'total': it has no value"),
        "{:?}",
        no_variables.refused
    );
    let no_words = changed(|_| {}, "words.txt");
    let words = refusal(&no_words, "words");
    assert!(words.contains("is not filled by the model's initialisers"), "{words}");
    assert!(
        no_words.notes.iter().any(|note| note.contains("there is no file 'assets/words.txt'")),
        "{:?}",
        no_words.notes
    );
    for (model, name) in [(&sparse, "scan"), (&no_variables, "get"), (&no_words, "words")] {
        assert_eq!(refusal(model, "collatz"), "");
        assert!(!model.signatures.iter().any(|signature| signature.name == name));
        signature(model, "collatz");
    }
}
