//! Every operator that is said to be there, against the results that ONNX Runtime gave when the cases were written.

use salver_engine::{ErrorKind, LoadOptions};
use salver_engine_onnxruntime::{OnnxRuntimeEngine, supports_in};
use salver_graph::{Attribute, Attributes, Builder, Dim, Graph};
use salver_tensor::{DType, Element, Shape, Tensor};
use serde_json::Value;

/// The element types that parts of imported models have.
const TYPES: [DType; 4] = [DType::F32, DType::I32, DType::I64, DType::Bool];

/// Floats agree when they differ by less than this, absolutely or relatively.
const TOLERANCE: f64 = 1e-5;

fn number(value: &Value) -> f64 {
    value.as_str().map_or_else(|| value.as_f64().unwrap(), |text| text.parse().unwrap())
}

fn dtype(name: &str) -> DType {
    DType::ALL.into_iter().find(|dtype| dtype.name() == name).unwrap()
}

/// The tensor of a case; `None` for element types that are not asked about.
fn tensor(value: &Value) -> Option<Tensor> {
    fn of<T: Element>(shape: Shape, items: &[Value], read: impl Fn(&Value) -> T) -> Tensor {
        Tensor::from_vec(shape, items.iter().map(read).collect()).unwrap()
    }
    let dims: Vec<usize> =
        value[1].as_array().unwrap().iter().map(|dim| dim.as_u64().unwrap() as usize).collect();
    let (shape, items) = (Shape::new(&dims).unwrap(), value[2].as_array().unwrap());
    let whole = |x: &Value| x.as_i64().unwrap();
    Some(match dtype(value[0].as_str().unwrap()) {
        DType::Bool => {
            Tensor::from_bools(shape, &items.iter().map(|x| x.as_u64() == Some(1)).collect::<Vec<_>>())
                .unwrap()
        }
        DType::F32 => of(shape, items, |x| number(x) as f32),
        DType::I32 => of(shape, items, |x| i32::try_from(whole(x)).unwrap()),
        DType::I64 => of(shape, items, whole),
        _ => return None,
    })
}

fn attribute(value: &Value) -> Option<Attribute> {
    Some(match value {
        Value::String(text) => text.as_str().into(),
        Value::Number(n) if n.is_i64() => n.as_i64().unwrap().into(),
        Value::Number(n) => (n.as_f64().unwrap() as f32).into(),
        Value::Object(map) if map.contains_key("dtype") => dtype(map["dtype"].as_str().unwrap()).into(),
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
        other => panic!("attribute {other}"),
    })
}

struct Case {
    op: String,
    attributes: Attributes,
    inputs: Vec<Option<Tensor>>,
    outputs: Vec<Option<Tensor>>,
}

/// The case of a line, unless it has element types that are not asked about.
fn case(line: &str) -> Option<Case> {
    let json: Value = serde_json::from_str(line).unwrap();
    let mut attributes = Attributes::new();
    for (name, value) in json["attributes"].as_object().unwrap() {
        attributes.set(name, attribute(value)?);
    }
    let list = |key: &str| -> Option<Vec<Option<Tensor>>> {
        let all = json[key].as_array().unwrap().iter();
        all.map(|x| if x.is_null() { Some(None) } else { tensor(x).map(Some) }).collect()
    };
    let op = json["op"].as_str().unwrap().to_owned();
    let case = Case { op, attributes, inputs: list("inputs")?, outputs: list("outputs")? };
    let all = case.inputs.iter().chain(&case.outputs).flatten();
    all.clone().all(|tensor| TYPES.contains(&tensor.dtype())).then_some(case)
}

/// One node. The first input and those of its element type come with the run, others are constants, as they mostly are in
/// models; or all inputs come with the run.
fn graph(case: &Case, all_vary: bool) -> Option<(Graph, Vec<(String, Tensor)>)> {
    let mut builder = Builder::new();
    let mut given = Vec::new();
    let first = case.inputs.iter().flatten().next().map(Tensor::dtype);
    let inputs = case.inputs.iter().enumerate().map(|(at, tensor)| {
        let tensor = tensor.as_ref()?;
        let name = format!("x{at}");
        if !all_vary && first != Some(tensor.dtype()) {
            return Some(builder.constant(&name, tensor.clone()));
        }
        let dims = tensor.shape().dims().iter().map(|&dim| Dim::Fixed(dim)).collect();
        given.push((name.clone(), tensor.clone()));
        Some(builder.input(&name, tensor.dtype(), Some(dims)))
    });
    let inputs: Vec<_> = inputs.collect();
    let outputs =
        builder.ops("node", "", &case.op, &inputs, case.attributes.clone(), case.outputs.len()).ok()?;
    let names: Vec<String> = (0..outputs.len()).map(|at| format!("y{at}")).collect();
    let outputs: Vec<_> = names.iter().map(String::as_str).zip(outputs).collect();
    Some((builder.finish(&outputs).ok()?, given))
}

fn difference(got: &Tensor, want: &Tensor) -> Option<String> {
    if got.dtype() != want.dtype() || got.shape() != want.shape() {
        return Some(format!("{got:?}, expected {want:?}"));
    }
    let (Some(a), Some(b)) = (got.to_slice::<f32>(), want.to_slice::<f32>()) else {
        return (got != want).then(|| format!("{:?}, expected {:?}", got.bytes(), want.bytes()));
    };
    let close = |(&a, &b): (&f32, &f32)| {
        let (a, b) = (f64::from(a), f64::from(b));
        a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= TOLERANCE * b.abs().max(1.0)
    };
    (!a.iter().zip(b.iter()).all(close)).then(|| format!("{a:?}, expected {b:?}"))
}

fn check(
    engine: &OnnxRuntimeEngine,
    graph: &Graph,
    given: &[(String, Tensor)],
    case: &Case,
) -> Result<(), String> {
    let model = engine.load_graph(graph, &LoadOptions::default()).map_err(|error| error.to_string())?;
    let signature = &model.signatures()[0];
    let named = |name: &str| given.iter().find(|(known, _)| known == name).map(|(_, tensor)| tensor.clone());
    let inputs: Vec<_> = signature.inputs().iter().map(|spec| named(&spec.name).unwrap()).collect();
    let wanted: Vec<_> = (0..signature.outputs().len()).collect();
    let got = model.session().unwrap().run(0, &inputs, &wanted).map_err(|error| error.to_string())?;
    for (spec, got) in signature.outputs().iter().zip(&got) {
        let at: usize = spec.name[1..].parse().unwrap();
        let want = case.outputs[at].as_ref().unwrap();
        if let Some(what) = difference(got, want) {
            return Err(format!("{}: {what}", spec.name));
        }
    }
    Ok(())
}

#[test]
fn operators_that_are_claimed_are_there() {
    let Some(library) = crate::native::library() else { return };
    let engine = OnnxRuntimeEngine::new(library);
    let text = include_str!("../../../kernels/testdata/golden.jsonl");
    let (mut n_run, mut refused, mut wrong) = (0, Vec::new(), Vec::new());
    for (i, line) in text.lines().enumerate() {
        let Some(case) = case(line) else { continue };
        for all_vary in [false, true] {
            let Some((graph, given)) = graph(&case, all_vary) else { continue };
            let Some(node) = graph.body().nodes.first() else { continue };
            if !supports_in(&graph, node) {
                refused.push(case.op.clone());
                continue;
            }
            n_run += 1;
            if let Err(what) = check(&engine, &graph, &given, &case) {
                wrong.push(format!("line {} {} {:?}: {what}", i + 1, case.op, case.attributes));
            }
        }
    }
    refused.sort();
    refused.dedup();
    println!("{n_run} graphs run; with cases that are refused: {refused:?}");
    assert!(wrong.is_empty(), "{} of {n_run}\n{}", wrong.len(), wrong.join("\n"));
    assert!(n_run > 1000, "{n_run} graphs");
}

/// An element type that no kernel takes is refused at load with the node's name, so that the lists can be kept.
#[test]
fn what_has_no_kernel_is_refused_by_node() {
    let Some(library) = crate::native::library() else { return };
    let mut builder = Builder::new();
    let x = builder.input("x", DType::I64, Some([1, 4, 2, 2].map(Dim::Fixed).to_vec()));
    let y = builder.op("cut", "DepthToSpace", &[x], Attributes::new().with("blocksize", 2i64)).unwrap();
    let graph = builder.finish(&[("y", y)]).unwrap();
    assert!(!supports_in(&graph, &graph.body().nodes[0]));
    let error = OnnxRuntimeEngine::new(library).load_graph(&graph, &LoadOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(
        error.to_string().starts_with("node 'cut' (DepthToSpace): ONNX Runtime does not load the model: "),
        "{error}"
    );
}
