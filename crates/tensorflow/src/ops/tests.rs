//! Each operator against TensorFlow's own answer: `testdata/ops.bin`, made by `testdata/ops.py`.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;
use half::{bf16, f16};
use prost::Message as _;
use salver_graph::{Builder, Dim, ValueId, evaluate};
use salver_tensor::{DType, Tensor};

use super::*;
use crate::ErrorKind;
use crate::proto::GraphDef;
use crate::read::decode_tensor;

const CASES: &[u8] = include_bytes!("../../testdata/ops.bin");

/// How the inputs are given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Given {
    /// As constants: everything folds.
    Constants,
    /// At run time, with all sizes known at import.
    Sizes,
    /// At run time, with the numbers of dimensions known.
    Ranks,
}

fn cases() -> BTreeMap<String, GraphDef> {
    let mut bytes = Bytes::from_static(CASES);
    let mut cases = BTreeMap::new();
    while !bytes.is_empty() {
        let graph = GraphDef::decode_length_delimited(&mut bytes).unwrap();
        let name = graph.node[0].name.strip_prefix("case/").unwrap().to_owned();
        cases.insert(name, graph);
    }
    cases
}

fn value_of(node: &crate::proto::NodeDef) -> Tensor {
    decode_tensor(View::of(node).tensor("value").unwrap(), &Budget::default()).unwrap()
}

/// Maps and computes the outputs of a case, beside what is wanted.
fn run(graph: &GraphDef, given: Given) -> Result<Vec<(String, Tensor, Tensor)>, Error> {
    let mut builder = Builder::new();
    let budget = Budget::default();
    let find = |name: &str| graph.node.iter().find(|node| node.name == name).unwrap();
    let mut values: HashMap<&str, Vec<ValueId>> = HashMap::new();
    let mut inputs = Vec::new();
    let mut outputs = Vec::new();
    for node in &graph.node {
        if node.name.starts_with("given/") || node.op == "NoOp" {
            continue;
        }
        let source = |input: &String| {
            let (name, port) = input.split_once(':').unwrap_or((input, "0"));
            values[name][port.parse::<usize>().unwrap()]
        };
        if node.name.starts_with("want/") {
            outputs.push((node.input[0].clone(), source(&node.input[0]), value_of(node)));
            continue;
        }
        let made = if node.op == "Placeholder" {
            let tensor = value_of(find(&format!("given/{}", node.name)));
            let id = match given {
                Given::Constants => builder.constant(&node.name, tensor),
                Given::Sizes | Given::Ranks => {
                    let dims = tensor.shape().dims().iter().enumerate();
                    let dims = dims.map(|(axis, &dim)| match given {
                        Given::Ranks => Dim::symbol(&format!("{}_{axis}", node.name)),
                        _ => Dim::Fixed(dim),
                    });
                    let id = builder.input(&node.name, tensor.dtype(), Some(dims.collect()));
                    inputs.push(tensor);
                    id
                }
            };
            vec![id]
        } else {
            let ids: Vec<ValueId> =
                node.input.iter().filter(|input| !input.starts_with('^')).map(source).collect();
            map(&mut builder, &budget, &View::of(node), &ids)?
        };
        values.insert(&node.name, made);
    }
    let names: Vec<String> = (0..outputs.len()).map(|at| format!("out{at}")).collect();
    let named: Vec<(&str, ValueId)> =
        names.iter().map(String::as_str).zip(outputs.iter().map(|o| o.1)).collect();
    let graph = builder.finish(&named)?;
    for (name, value) in graph.outputs() {
        let known = graph.value(value).dims.as_ref().map(Vec::len);
        assert!(known.is_none_or(|rank| rank <= 8), "{name}");
    }
    let got = evaluate(&graph, &inputs)?;
    for (id, tensor) in graph.outputs().map(|(_, id)| id).zip(&got) {
        let value = graph.value(id);
        assert_eq!(value.dtype, tensor.dtype(), "the type inferred");
        if let Some(dims) = &value.dims {
            let fits = dims.len() == tensor.shape().rank()
                && dims
                    .iter()
                    .zip(tensor.shape().dims())
                    .all(|(dim, size)| dim.fixed().is_none_or(|n| n == *size));
            assert!(fits, "inferred {dims:?}, got {}", tensor.shape());
        }
    }
    Ok(outputs.into_iter().zip(got).map(|((name, _, want), got)| (name, want, got)).collect())
}

fn floats(tensor: &Tensor) -> Option<Vec<f64>> {
    Some(match tensor.dtype() {
        DType::F64 => tensor.to_slice::<f64>()?.to_vec(),
        DType::F32 => tensor.to_slice::<f32>()?.iter().map(|&x| x.into()).collect(),
        DType::F16 => tensor.to_slice::<f16>()?.iter().map(|&x| x.into()).collect(),
        DType::BF16 => tensor.to_slice::<bf16>()?.iter().map(|&x| x.into()).collect(),
        _ => return None,
    })
}

/// What differs: floats by more than a few roundings, everything else at all.
fn difference(case: &str, want: &Tensor, got: &Tensor) -> Option<String> {
    if (want.dtype(), want.shape()) != (got.dtype(), got.shape()) {
        return Some(format!("want {want:?}, got {got:?}"));
    }
    let (Some(a), Some(b)) = (floats(want), floats(got)) else {
        let equal = want == got;
        let show = |tensor: &Tensor| format!("{:?} {:?}", tensor.bytes(), tensor.strings());
        return (!equal).then(|| format!("want {}, got {}", show(want), show(got)));
    };
    let tolerance = match want.dtype() {
        // TensorFlow reads the weights of cubic resizing from a table of 1024 places.
        _ if case.starts_with("ResizeBicubic") => 5e-3,
        DType::F64 => 1e-12,
        DType::F16 => 2e-3,
        DType::BF16 => 1e-2,
        _ => 2e-6,
    };
    let close = |x: f64, y: f64| {
        x == y || (x.is_nan() && y.is_nan()) || (x - y).abs() <= tolerance * x.abs().max(1.0)
    };
    let at = a.iter().zip(&b).position(|(&x, &y)| !close(x, y))?;
    Some(format!("element {at}: want {}, got {}", a[at], b[at]))
}

fn failures(given: Given) -> (Vec<String>, BTreeSet<String>) {
    let (mut failed, mut refused) = (Vec::new(), BTreeSet::new());
    for (name, graph) in cases() {
        match run(&graph, given) {
            Err(error) if given == Given::Ranks && error.kind() == ErrorKind::Unsupported => {
                refused.insert(name.split('/').next().unwrap_or_default().to_owned());
            }
            Err(error) => failed.push(format!("{name}: {error}")),
            Ok(outputs) => {
                for (tensor, want, got) in outputs {
                    if let Some(difference) = difference(&name, &want, &got) {
                        failed.push(format!("{name} {tensor}: {difference}"));
                    }
                }
            }
        }
    }
    (failed, refused)
}

#[test]
fn constants_fold_to_tensorflows_answer() {
    let (failed, _) = failures(Given::Constants);
    assert!(failed.is_empty(), "{}\n{}", failed.len(), failed.join("\n"));
}

#[test]
fn known_sizes_give_tensorflows_answer() {
    let (failed, _) = failures(Given::Sizes);
    assert!(failed.is_empty(), "{}\n{}", failed.len(), failed.join("\n"));
}

/// What needs a size that is not known is refused; all else is computed.
#[test]
fn open_sizes_give_tensorflows_answer_or_are_refused() {
    let (failed, refused) = failures(Given::Ranks);
    assert!(failed.is_empty(), "{}\n{}", failed.len(), failed.join("\n"));
    let expected = [
        "BroadcastArgs",
        "Conv2D",
        "Cumprod",
        "DepthToSpace",
        "DiagPart",
        "ExtractImagePatches",
        "MatrixDiagPart",
        "MatrixDiagPartV2",
        "MatrixDiagPartV3",
        "MatrixSetDiag",
        "MatrixSetDiagV2",
        "MatrixSetDiagV3",
        "ResizeArea",
        "ScaleAndTranslate",
        "SpaceToDepth",
    ];
    assert_eq!(refused.iter().map(String::as_str).collect::<Vec<_>>(), expected);
}

/// Every operator of the table is in some case.
#[test]
fn every_operator_is_tested() {
    let tested: BTreeSet<String> =
        cases().into_values().flat_map(|graph| graph.node).map(|node| node.op).collect();
    let missing: Vec<&str> = table::all().map(|entry| entry.op).filter(|op| !tested.contains(*op)).collect();
    assert_eq!(missing, [""; 0]);
}

#[test]
fn unknown_operators_are_refused_by_name() {
    let node = crate::proto::NodeDef { name: "a/b".into(), op: "DecodeJpeg".into(), ..Default::default() };
    let error = map(&mut Builder::new(), &Budget::default(), &View::of(&node), &[]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert_eq!(error.to_string(), "DecodeJpeg node 'a/b': operator DecodeJpeg is not supported");
    assert!(!is_known("DecodeJpeg") && is_known("Conv2D"));
}

/// `cargo run -p salver-tensorflow --example operators > docs/tensorflow-ops.md` writes the page.
#[test]
fn the_documentation_lists_the_table() {
    assert!(
        include_str!("../../../../docs/tensorflow-ops.md") == documentation(),
        "docs/tensorflow-ops.md is stale"
    );
}
