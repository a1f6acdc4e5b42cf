//! Every operator that the engine says it has, against ONNX Runtime's results and the graph's own reference.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use salver_engine::LoadOptions;
use salver_engine_openvino::{DROPS_NAN, OpenVinoEngine, supports_in};
use salver_graph::{Attribute, Attributes, Builder, Dim, Graph, evaluate};
use salver_tensor::{DType, Element, Shape, Tensor};
use serde_json::Value;

use crate::installed;

fn number(value: &Value) -> f64 {
    value.as_str().map_or_else(|| value.as_f64().unwrap(), |text| text.parse().unwrap())
}

/// The tensor of a case; `None` for element types that parts do not hold.
fn tensor(value: &Value) -> Option<Tensor> {
    fn of<T: Element>(shape: Shape, items: &[Value], read: impl Fn(&Value) -> T) -> Option<Tensor> {
        Tensor::from_vec(shape, items.iter().map(read).collect()).ok()
    }
    let dims: Vec<usize> = value[1].as_array()?.iter().map(|dim| dim.as_u64().unwrap() as usize).collect();
    let (shape, items) = (Shape::new(&dims).unwrap(), value[2].as_array()?);
    match value[0].as_str()? {
        "bool" => {
            let flags: Vec<bool> = items.iter().map(|x| x.as_u64() == Some(1)).collect();
            Tensor::from_bools(shape, &flags).ok()
        }
        "float32" => of(shape, items, |x| number(x) as f32),
        "int32" => of(shape, items, |x| x.as_i64().unwrap() as i32),
        "int64" => of(shape, items, |x| x.as_i64().unwrap()),
        _ => None,
    }
}

fn attribute(value: &Value) -> Option<Attribute> {
    Some(match value {
        Value::String(text) => text.as_str().into(),
        Value::Number(n) if n.is_i64() => n.as_i64()?.into(),
        Value::Number(n) => (n.as_f64()? as f32).into(),
        Value::Object(map) if map.contains_key("dtype") => {
            let name = map["dtype"].as_str()?;
            DType::ALL.into_iter().find(|dtype| dtype.name() == name)?.into()
        }
        Value::Object(map) => tensor(&map["tensor"])?.into(),
        Value::Array(items) => match items.first() {
            Some(Value::String(_)) => {
                items.iter().map(|x| x.as_str().unwrap().to_owned()).collect::<Vec<String>>().into()
            }
            Some(Value::Number(n)) if n.is_f64() => {
                items.iter().map(|x| x.as_f64().unwrap() as f32).collect::<Vec<f32>>().into()
            }
            _ => items.iter().map(|x| x.as_i64().unwrap()).collect::<Vec<i64>>().into(),
        },
        _ => return None,
    })
}

struct Case {
    op: String,
    attributes: Attributes,
    inputs: Vec<Option<Tensor>>,
    /// What is expected; `None` for an output that is not looked at. Nothing where the reference says it.
    outputs: Vec<Option<Tensor>>,
}

impl Case {
    /// The case of a line; `None` when it is about element types that parts do not hold.
    fn read(line: &str) -> Option<Case> {
        let case: Value = serde_json::from_str(line).unwrap();
        let mut attributes = Attributes::new();
        for (name, value) in case["attributes"].as_object().unwrap() {
            attributes.set(name, attribute(value)?);
        }
        let list = |key: &str| -> Option<Vec<Option<Tensor>>> {
            let items = case[key].as_array().unwrap().iter();
            items.map(|x| if x.is_null() { Some(None) } else { tensor(x).map(Some) }).collect()
        };
        let (inputs, outputs) = (list("inputs")?, list("outputs")?);
        let case = Case { op: case["op"].as_str().unwrap().to_owned(), attributes, inputs, outputs };
        case.is_narrow().then_some(case)
    }

    /// Whether all int64 fit 32 bits.
    fn is_narrow(&self) -> bool {
        self.inputs.iter().chain(&self.outputs).flatten().all(is_narrow)
    }
}

fn is_narrow(tensor: &Tensor) -> bool {
    tensor.to_slice::<i64>().is_none_or(|ints| ints.iter().all(|&int| i32::try_from(int).is_ok()))
}

/// Operators that are known to give a number for what is none.
fn drops_nan(case: &Case) -> bool {
    let is_nan = |tensor: &Tensor| tensor.to_slice::<f32>().is_some_and(|all| all.iter().any(|x| x.is_nan()));
    DROPS_NAN.contains(&case.op.as_str()) && case.inputs.iter().flatten().any(is_nan)
}

/// What of a case is known when the model is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Known {
    /// Dimensions.
    Shapes,
    /// All inputs but the first; its dimensions are open.
    Constants,
    /// The number of dimensions.
    Ranks,
}

/// A graph of one node for each case, what goes into it, and what is to come out.
struct Made {
    graph: Graph,
    inputs: Vec<Tensor>,
    expected: Vec<Tensor>,
    /// For each output, the case that it is of.
    cases: Vec<usize>,
}

/// The graph of these cases; `None` when nothing is left to compute for one of them.
fn made(cases: &[(usize, &Case)], known: Known) -> Option<Made> {
    let mut builder = Builder::new();
    let (mut inputs, mut outputs, mut of) = (Vec::new(), Vec::new(), Vec::new());
    for (nth, case) in cases {
        let mut ids = Vec::new();
        for (at, input) in case.inputs.iter().enumerate() {
            let Some(tensor) = input else {
                ids.push(None);
                continue;
            };
            if known == Known::Constants && at > 0 {
                ids.push(Some(builder.constant(&format!("c{nth}_{at}"), tensor.clone())));
                continue;
            }
            let dim = |&dim: &usize| if known == Known::Shapes { Dim::Fixed(dim) } else { Dim::Unknown };
            let dims = tensor.shape().dims().iter().map(dim).collect();
            ids.push(Some(builder.input(&format!("x{nth}_{at}"), tensor.dtype(), Some(dims))));
            inputs.push(tensor.clone());
        }
        let n_outputs = case.outputs.len().max(1);
        let values = builder.ops("node", "", &case.op, &ids, case.attributes.clone(), n_outputs).ok()?;
        for (at, value) in values.into_iter().enumerate() {
            if case.outputs.get(at).is_none_or(Option::is_some) {
                outputs.push((format!("y{nth}_{at}"), value));
                of.push(*nth);
            }
        }
    }
    let outputs: Vec<_> = outputs.iter().map(|(name, id)| (name.as_str(), *id)).collect();
    let graph = builder.finish(&outputs).ok()?;
    if graph.body().nodes.len() != cases.len() {
        return None;
    }
    let mut expected = evaluate(&graph, &inputs).ok()?;
    let mut at = 0;
    for (_, case) in cases {
        let stored: Vec<_> = case.outputs.iter().flatten().cloned().collect();
        let n = if case.outputs.is_empty() { 1 } else { stored.len() };
        expected.splice(at..at + stored.len(), stored);
        at += n;
    }
    Some(Made { graph, inputs, expected, cases: of })
}

fn run(
    engine: &OpenVinoEngine,
    graph: &Graph,
    inputs: &[Tensor],
) -> Result<Vec<Tensor>, salver_engine::Error> {
    let model = engine.load_graph(graph, &LoadOptions::default())?;
    let signature = model.signatures()[0].clone();
    let named = |name: &str| graph.inputs().iter().position(|&id| graph.value(id).name == name).unwrap();
    let inputs: Vec<_> = signature.inputs().iter().map(|spec| inputs[named(&spec.name)].clone()).collect();
    let wanted: Vec<_> = graph.outputs().map(|(name, _)| signature.output_index(name).unwrap()).collect();
    model.session()?.run(0, &inputs, &wanted)
}

/// What is wrong with the result, if anything. Floats agree when they differ by less than this, absolutely or relatively.
fn difference(got: &Tensor, want: &Tensor) -> Option<String> {
    const TOLERANCE: f32 = 2e-5;
    if got.dtype() != want.dtype() || got.shape() != want.shape() {
        return Some(format!("{got:?}, expected {want:?}"));
    }
    let Some((a, b)) = got.to_slice::<f32>().zip(want.to_slice::<f32>()) else {
        let ints = |tensor: &Tensor| match tensor.dtype() {
            DType::I32 => tensor.to_slice::<i32>().unwrap().iter().map(|&x| i64::from(x)).collect(),
            DType::I64 => tensor.to_slice::<i64>().unwrap().to_vec(),
            _ => tensor.bytes().unwrap().iter().map(|&x| i64::from(x)).collect::<Vec<_>>(),
        };
        return (got != want).then(|| format!("{:?}, expected {:?}", ints(got), ints(want)));
    };
    let close = |(a, b): (&f32, &f32)| {
        a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= TOLERANCE * b.abs().max(1.0)
    };
    (!a.iter().zip(b.iter()).all(close)).then(|| format!("{a:?}, expected {b:?}"))
}

/// Integers that float32 does not hold, and arithmetic that leaves 32 bits.
fn integers() -> Vec<Case> {
    let wide = [i32::MAX, i32::MAX - 1, i32::MIN + 1, 16_777_217, -16_777_217, 123_456_789, 7, -3, 0, 1];
    let by = [3, -7, 5, 2, 16_777_215, -1_000_003, 2, -3, 9, 1_000_000_007];
    let int32 = |list: &[i32]| Tensor::from_vec(Shape::vector(list.len()).unwrap(), list.to_vec()).unwrap();
    let int64 = |list: &[i32]| {
        let list: Vec<i64> = list.iter().map(|&int| int.into()).collect();
        Tensor::from_vec(Shape::vector(list.len()).unwrap(), list).unwrap()
    };
    let axis = || Tensor::from_vec(Shape::vector(1).unwrap(), vec![0i64]).unwrap();
    let position = || Tensor::from_vec(Shape::scalar(), vec![0i64]).unwrap();
    let mut cases = Vec::new();
    for tensor in [&int32 as &dyn Fn(&[i32]) -> Tensor, &int64] {
        let (a, b) = (tensor(&wide), tensor(&by));
        let mut add = |op: &str, attributes: Attributes, inputs: Vec<Tensor>| {
            let inputs = inputs.into_iter().map(Some).collect();
            cases.push(Case { op: op.to_owned(), attributes, inputs, outputs: Vec::new() });
        };
        for op in [
            "Add",
            "Sub",
            "Mul",
            "Div",
            "Mod",
            "Min",
            "Max",
            "Equal",
            "Less",
            "LessOrEqual",
            "Greater",
            "GreaterOrEqual",
            "BitwiseAnd",
            "BitwiseOr",
            "BitwiseXor",
            "Sum",
        ] {
            add(op, Attributes::new(), vec![a.clone(), b.clone()]);
        }
        add("Mod", Attributes::new().with("fmod", 1i64), vec![a.clone(), b.clone()]);
        add("Pow", Attributes::new(), vec![b.clone(), tensor(&[2, 3, 2, 1, 1, 1, 30, 19, 9, 1])]);
        for op in ["Neg", "Abs", "Sign", "Relu", "Identity", "BitwiseNot"] {
            add(op, Attributes::new(), vec![a.clone()]);
        }
        for op in
            ["ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceMean", "ReduceL1", "ReduceSumSquare"]
        {
            let narrow =
                if matches!(op, "ReduceMax" | "ReduceMin") { a.clone() } else { tensor(&[16_777_217, 2, 7]) };
            add(op, Attributes::new(), vec![narrow, axis()]);
        }
        add("CumSum", Attributes::new(), vec![tensor(&[16_777_217, 2, 16_777_217, 1]), position()]);
        for op in ["ArgMax", "ArgMin"] {
            add(op, Attributes::new(), vec![tensor(&[16_777_216, 16_777_217, 5, -16_777_217, -16_777_216])]);
        }
        add(
            "TopK",
            Attributes::new(),
            vec![a.clone(), Tensor::from_vec(Shape::vector(1).unwrap(), vec![3i64]).unwrap()],
        );
        add(
            "Clip",
            Attributes::new(),
            vec![a.clone(), tensor(&[-16_777_217]).reshape(Shape::scalar()).unwrap()],
        );
        add(
            "Where",
            Attributes::new(),
            vec![
                Tensor::from_bools(
                    Shape::vector(10).unwrap(),
                    &[true, false, true, false, true, true, true, true, false, false],
                )
                .unwrap(),
                a.clone(),
                b.clone(),
            ],
        );
        add("Concat", Attributes::new().with("axis", 0i64), vec![a.clone(), b.clone()]);
        add(
            "Gather",
            Attributes::new(),
            vec![a.clone(), Tensor::from_vec(Shape::vector(3).unwrap(), vec![3i64, -1, 0]).unwrap()],
        );
        for to in [DType::F32, DType::I32, DType::I64, DType::Bool] {
            add("Cast", Attributes::new().with("to", to), vec![a.clone()]);
        }
        let row = Shape::new(&[1, 3]).unwrap();
        let column = Shape::new(&[3, 1]).unwrap();
        let factors = (tensor(&[16_777_217, 3, 5]), tensor(&[3, 16_777_217, 7]));
        add(
            "MatMul",
            Attributes::new(),
            vec![factors.0.reshape(row).unwrap(), factors.1.reshape(column).unwrap()],
        );
    }
    let floats = vec![0.5f32, -0.5, 2.7, -2.7, 0.0, 1e-30, 2e9, -2e9];
    for to in [DType::I32, DType::I64, DType::Bool] {
        let floats = Tensor::from_vec(Shape::vector(8).unwrap(), floats.clone()).unwrap();
        let attributes = Attributes::new().with("to", to);
        cases.push(Case { op: "Cast".into(), attributes, inputs: vec![Some(floats)], outputs: Vec::new() });
    }
    cases
}

/// What is wrong with these cases in one graph; each alone when OpenVINO refuses the graph.
fn failures(engine: &OpenVinoEngine, cases: &[(usize, &Case)], known: Known, wrong: &mut Vec<String>) {
    let Some(made) = made(cases, known) else { panic!("{} {known:?}: no graph", cases[0].1.op) };
    let place = |nth: usize| {
        let (_, case) = cases.iter().find(|(known, _)| *known == nth).unwrap();
        let types = case.inputs.iter().map(|x| x.as_ref().map(|x| format!("{} {}", x.dtype(), x.shape())));
        format!("{} {known:?} case {nth} {:?} {:?}", case.op, case.attributes, types.collect::<Vec<_>>())
    };
    match run(engine, &made.graph, &made.inputs) {
        Ok(got) => {
            for ((got, want), nth) in got.iter().zip(&made.expected).zip(&made.cases) {
                wrong.extend(difference(got, want).map(|what| format!("{}: {what}", place(*nth))));
            }
        }
        Err(error) if cases.len() == 1 => {
            wrong.push(format!("{}: {:?}: {error}", place(cases[0].0), error.kind()));
        }
        Err(_) => cases.iter().for_each(|case| failures(engine, std::slice::from_ref(case), known, wrong)),
    }
}

#[test]
fn what_is_supported_is_computed_right() {
    let Some(engine) = installed::engine() else { return };
    let text = Path::new(env!("CARGO_MANIFEST_DIR")).join("../kernels/testdata/golden.jsonl");
    let text = std::fs::read_to_string(text).unwrap();
    let mut cases: Vec<Case> = text.lines().filter_map(Case::read).collect();
    cases.extend(integers());
    let (mut groups, mut n_graphs) = (BTreeMap::<(&str, Known), Vec<(usize, &Case)>>::new(), 0);
    let mut none: BTreeSet<&str> = cases.iter().map(|case| case.op.as_str()).collect();
    for (nth, case) in cases.iter().enumerate() {
        for known in [Known::Shapes, Known::Constants, Known::Ranks] {
            let Some(made) = made(&[(nth, case)], known) else { continue };
            let is_asked = made.expected.iter().all(is_narrow) && !drops_nan(case);
            if is_asked && supports_in(&made.graph, &made.graph.body().nodes[0]) {
                groups.entry((&case.op, known)).or_default().push((nth, case));
                none.remove(case.op.as_str());
                n_graphs += 1;
            }
        }
    }
    let mut wrong = Vec::new();
    groups.iter().for_each(|((_, known), cases)| failures(&engine, cases, *known, &mut wrong));
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(n_graphs > 1250, "{n_graphs} graphs");
    let refused = [
        "CastLike",
        "Celu",
        "Constant",
        "ConstantOfShape",
        "Dropout",
        "GatherElements",
        "GlobalLpPool",
        "Identity",
        "LRN",
        "Range",
        "ReduceLogSumExp",
        "ThresholdedRelu",
        "TopK",
    ];
    assert_eq!(none.into_iter().collect::<Vec<_>>(), refused);
}
