//! Models written, read again and computed; and nodes of older versions.

use std::collections::HashMap;

use bytes::Bytes;
use prost::Message;
use salver_kernels::{Attribute, Attributes};
use salver_tensor::{DType, Shape, Tensor};

use super::proto::attribute_proto::AttributeType;
use super::proto::{AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, ValueInfoProto};
use super::*;
use crate::ir::{Dim, Graph, ValueId};
use crate::{Builder, Error, SALVER, evaluate};

fn floats(dims: &[usize]) -> Tensor {
    let n: usize = dims.iter().product();
    let value = |at: usize| ((at * 37 + 11) % 23) as f32 / 4.0 - 2.5;
    Tensor::from_vec(Shape::new(dims).unwrap(), (0..n).map(value).collect::<Vec<f32>>()).unwrap()
}

fn nothing_beside(name: &str, _: usize, _: Option<usize>) -> Result<Bytes, Error> {
    Err(Error::invalid(format!("no file {name}")))
}

fn read_again(written: &Written) -> Graph {
    let files: HashMap<String, Vec<u8>> = written
        .data
        .iter()
        .map(|data| (data.file_name.clone(), data.pieces().flat_map(|piece| piece.to_vec()).collect()))
        .collect();
    let beside = |name: &str, offset: usize, length: Option<usize>| {
        let file = &files[name];
        Ok(Bytes::copy_from_slice(&file[offset..offset + length.unwrap_or(file.len() - offset)]))
    };
    graph(&decode(written.model.clone()).unwrap(), &beside).unwrap()
}

fn check_round_trip(name: &str, make: impl Fn(&mut Builder, ValueId) -> Result<Vec<ValueId>, Error>) {
    let mut b = Builder::new();
    let x = b.input("x", DType::F32, Some(vec![Dim::symbol("batch"), Dim::Fixed(12)]));
    let outputs = make(&mut b, x).unwrap();
    let names: Vec<String> = (0..outputs.len()).map(|at| format!("out {at}")).collect();
    let outputs: Vec<_> = names.iter().map(String::as_str).zip(outputs).collect();
    let made = b.finish(&outputs).unwrap();
    for weights in [Weights::BesideWhenLarge("w.data"), Weights::Beside("w.data")] {
        let written = bytes(&made, &Labels::default(), weights).unwrap();
        let again = read_again(&written);
        assert_eq!(crate::verify(&again), Ok(()), "{name}");
        let names: Vec<_> = again.outputs().map(|(name, _)| name).collect();
        assert_eq!(names, made.outputs().map(|(name, _)| name).collect::<Vec<_>>(), "{name}");
        let input = [floats(&[2, 12])];
        assert_eq!(evaluate(&again, &input).unwrap(), evaluate(&made, &input).unwrap(), "{name}");
        for ((_, a), (_, b)) in made.outputs().zip(again.outputs()) {
            assert_eq!(made.value(a).dims, again.value(b).dims, "{name}");
        }
    }
}

#[test]
fn what_is_written_can_be_read() {
    let none = Attributes::new;
    check_round_trip("a network", |b, x| {
        let (w, bias) = (b.constant("w", floats(&[12, 40])), b.constant("b", floats(&[40])));
        let y = b.op("dense", "Gemm", &[x, w, bias], none())?;
        let y = b.op("act", "Elu", &[y], none().with("alpha", 0.5f32))?;
        let shape = b.i64s(&[-1, 4, 10]);
        let y = b.op("shape", "Reshape", &[y, shape], none())?;
        let parts = none().with("axis", 1i64).with("num_outputs", 2i64);
        let parts = b.ops("split", "", "Split", &[Some(y)], parts, 2)?;
        let low = b.f32(-1.0);
        let clipped = b.ops("clip", "", "Clip", &[Some(parts[0]), Some(low), None], none(), 1)?;
        Ok(vec![parts[1], clipped[0], parts[1]])
    });
    check_round_trip("casts and types", |b, x| {
        let y = b.op("int", "Cast", &[x], none().with("to", DType::I32))?;
        let z = b.op("half", "Cast", &[x], none().with("to", DType::F16))?;
        let yes = b.constant("yes", Tensor::from_bools(Shape::vector(2).unwrap(), &[true, false]).unwrap());
        Ok(vec![y, z, yes])
    });
    check_round_trip("blocks", |b, x| {
        let limit = b.i64(3);
        b.begin_block()?;
        let at = b.block_input("at", DType::I64, Some(vec![]));
        let go_on = b.block_input("go_on", DType::Bool, Some(vec![]));
        let state = b.block_input("state", DType::F32, Some(vec![Dim::symbol("batch"), Dim::Fixed(12)]));
        let two = b.i64(2);
        let first = b.op("first", "Less", &[at, two], none())?;
        let mut branches = Vec::new();
        for (key, op) in [("then_branch", "Add"), ("else_branch", "Sub")] {
            b.begin_block()?;
            let y = b.op(op, op, &[state, x], none())?;
            branches.push((key, b.end_block(&[y])));
        }
        let next = b.with_blocks("if", "If", &[Some(first)], none(), branches, 1)?[0];
        let body = b.end_block(&[go_on, next, next]);
        b.with_blocks("loop", "Loop", &[Some(limit), None, Some(x)], none(), vec![("body", body)], 2)
    });
    check_round_trip("floor division and other operators of ours", |b, x| {
        let ours = |b: &mut Builder, op: &str, inputs: &[ValueId]| {
            let inputs: Vec<_> = inputs.iter().copied().map(Some).collect();
            b.ops(op, SALVER, op, &inputs, none(), 1).map(|ids| ids[0])
        };
        let ints = b.op("int", "Cast", &[x], none().with("to", DType::I64))?;
        let (three, minus) = (b.i64(3), b.i64(-2));
        let rounded = ours(b, "Rint", &[x])?;
        let quotients = [ours(b, "FloorDiv", &[ints, three])?, ours(b, "FloorDiv", &[ints, minus])?];
        let small = b.f32(0.75);
        let fractions = ours(b, "FloorDiv", &[x, small])?;
        let swish = b.op("swish", "Swish", &[x], none().with("alpha", 0.5f32))?;
        let bits = ours(b, "BitwiseAnd", &[ints, three])?;
        Ok(vec![rounded, quotients[0], quotients[1], fractions, swish, bits])
    });
}

/// A model of one node with constants as further inputs.
fn old(
    version: i64,
    op: &str,
    attributes: &[(&str, Attribute)],
    dims: &[usize],
    constants: &[Tensor],
    n_outputs: usize,
) -> ModelProto {
    let dims: Vec<Dim> = dims.iter().copied().map(Dim::Fixed).collect();
    let mut b = Builder::new();
    let x = b.input("x", DType::F32, Some(dims));
    let y = b.op("y", "Relu", &[x], Attributes::new()).unwrap();
    let mut model = model(&b.finish(&[("y", y)]).unwrap(), &Labels::default()).unwrap();
    let graph = model.graph.as_mut().unwrap();
    let mut node = NodeProto { op_type: Some(op.into()), input: vec!["x".into()], ..NodeProto::default() };
    for (at, tensor) in constants.iter().enumerate() {
        let name = format!("c{at}");
        node.input.push(name.clone());
        graph.initializer.push(super::proto::TensorProto { name: Some(name), ..write::tensor_proto(tensor) });
    }
    node.output = (0..n_outputs).map(|at| format!("y{at}")).collect();
    let proto = |(name, value): &(&str, Attribute)| write::attribute_proto(name, value).unwrap();
    node.attribute = attributes.iter().map(proto).collect();
    graph.node = vec![node];
    graph.output = (0..n_outputs)
        .map(|at| ValueInfoProto { name: Some(format!("y{at}")), ..Default::default() })
        .collect();
    model.opset_import = vec![OperatorSetIdProto { domain: None, version: Some(version) }];
    model
}

#[test]
fn older_versions_mean_what_they_meant() {
    type Case<'a> =
        (i64, &'a str, Vec<(&'a str, Attribute)>, Vec<usize>, Vec<Tensor>, usize, Vec<Vec<usize>>);
    let ints = |ints: &[i64]| Attribute::Ints(ints.to_vec());
    let cases: Vec<Case<'_>> = vec![
        (7, "Unsqueeze", vec![("axes", ints(&[0]))], vec![2, 3], vec![], 1, vec![vec![1, 2, 3]]),
        (12, "Squeeze", vec![("axes", ints(&[1]))], vec![2, 1], vec![], 1, vec![vec![2]]),
        (
            11,
            "ReduceSum",
            vec![("axes", ints(&[1])), ("keepdims", 0i64.into())],
            vec![2, 3],
            vec![],
            1,
            vec![vec![2]],
        ),
        (13, "ReduceMean", vec![("axes", ints(&[0]))], vec![2, 3], vec![], 1, vec![vec![1, 3]]),
        (
            11,
            "Split",
            vec![("axis", 1i64.into()), ("split", ints(&[1, 2]))],
            vec![2, 3],
            vec![],
            2,
            vec![vec![2, 1], vec![2, 2]],
        ),
        (13, "Split", vec![], vec![4, 3], vec![], 2, vec![vec![2, 3], vec![2, 3]]),
        (
            10,
            "Pad",
            vec![("pads", ints(&[0, 1, 0, 2])), ("value", 3.0f32.into())],
            vec![2, 3],
            vec![],
            1,
            vec![vec![2, 6]],
        ),
        (
            9,
            "Slice",
            vec![("starts", ints(&[1])), ("ends", ints(&[3])), ("axes", ints(&[1]))],
            vec![2, 3],
            vec![],
            1,
            vec![vec![2, 2]],
        ),
        (9, "TopK", vec![("k", 2i64.into())], vec![2, 3], vec![], 2, vec![vec![2, 2], vec![2, 2]]),
        (10, "Dropout", vec![("ratio", 0.5f32.into())], vec![2, 3], vec![], 1, vec![vec![2, 3]]),
        (
            7,
            "Upsample",
            vec![("scales", Attribute::Floats(vec![1.0, 1.0, 2.0, 3.0]))],
            vec![1, 1, 2, 2],
            vec![],
            1,
            vec![vec![1, 1, 4, 6]],
        ),
        (
            10,
            "Resize",
            vec![],
            vec![1, 1, 2, 2],
            vec![Tensor::from_vec(Shape::vector(4).unwrap(), vec![1f32, 1.0, 2.0, 2.0]).unwrap()],
            1,
            vec![vec![1, 1, 4, 4]],
        ),
    ];
    for (version, op, attributes, dims, constants, n_outputs, expected) in cases {
        let model = old(version, op, &attributes, &dims, &constants, n_outputs);
        let graph = graph(&model, &nothing_beside).unwrap();
        let outputs = evaluate(&graph, &[floats(&dims)]).unwrap();
        let shapes: Vec<Vec<usize>> = outputs.iter().map(|tensor| tensor.shape().dims().to_vec()).collect();
        assert_eq!(shapes, expected, "{op} of version {version}");
    }
}

#[test]
fn values_of_older_versions() {
    let at = |model: &ModelProto, dims: &[usize]| {
        let made = graph(model, &nothing_beside).unwrap();
        evaluate(&made, &[floats(dims)]).unwrap()[0].to_slice::<f32>().unwrap().to_vec()
    };
    let bounds = [("min", Attribute::Float(-1.0)), ("max", Attribute::Float(0.5))];
    let clipped = at(&old(7, "Clip", &bounds, &[6], &[], 1), &[6]);
    assert!(clipped.iter().all(|&x| (-1.0..=0.5).contains(&x)));
    // One distribution over all dimensions from the first on.
    let soft = at(&old(11, "Softmax", &[("axis", 1i64.into())], &[2, 3, 2], &[], 1), &[2, 3, 2]);
    let sums: Vec<f32> = soft.chunks(6).map(|row| row.iter().sum()).collect();
    assert!(sums.iter().all(|sum| (sum - 1.0).abs() < 1e-6), "{sums:?}");
}

#[test]
fn what_cannot_be_read_is_refused() {
    let relu = || old(18, "Relu", &[], &[2], &[], 1);
    let change = |change: &dyn Fn(&mut ModelProto, &mut GraphProto)| {
        let mut model = relu();
        let mut inner = model.graph.take().unwrap();
        change(&mut model, &mut inner);
        model.graph = Some(inner);
        model
    };
    let cases = [
        (
            change(&|model, _| model.opset_import[0].version = Some(99)),
            "operator set 99 is not known, expected 7 to 22",
        ),
        (change(&|model, _| model.opset_import.clear()), "the model imports no operator set"),
        (
            change(&|_, graph| {
                graph.node.push(NodeProto {
                    op_type: Some("Frob".into()),
                    name: Some("n".into()),
                    ..NodeProto::default()
                });
                let ml = NodeProto {
                    op_type: Some("Trees".into()),
                    domain: Some("ai.onnx.ml".into()),
                    ..NodeProto::default()
                };
                graph.node.push(ml);
            }),
            "operators that are not known: Frob (1, such as node 'n'), ai.onnx.ml.Trees (1, such as node '')",
        ),
        (
            change(&|_, graph| graph.node[0].input[0] = "nowhere".into()),
            "Relu node 'y0': 'nowhere' is made by no input, constant or node before it",
        ),
        (
            change(&|_, graph| {
                let tensor = super::proto::TensorProto {
                    name: Some("w".into()),
                    data_type: Some(1),
                    dims: vec![1 << 60, 1 << 60],
                    ..Default::default()
                };
                graph.initializer.push(tensor);
            }),
            "tensor 'w': ",
        ),
        (
            change(&|_, graph| {
                let graph_attr = AttributeProto {
                    name: Some("value".into()),
                    r#type: Some(AttributeType::TypeProto.into()),
                    ..AttributeProto::default()
                };
                graph.node[0].attribute.push(graph_attr);
            }),
            "Relu node 'y0': attribute 'value' is of kind TYPE_PROTO, which is not read",
        ),
    ];
    for (model, expected) in cases {
        let again = decode(model.encode_to_vec().into()).unwrap();
        let error = graph(&again, &nothing_beside).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}\n{expected}");
    }
    assert!(decode(Bytes::new()).is_err() && decode(Bytes::from_static(b"not a model")).is_err());
}

mod mutations {
    use proptest::prelude::*;

    use super::*;

    /// A written model with blocks, shapes that are computed and weights.
    fn sound() -> Vec<u8> {
        let mut b = Builder::new();
        let x = b.input("x", DType::F32, Some(vec![Dim::symbol("batch"), Dim::Fixed(3), Dim::Fixed(6)]));
        let w = b.constant("w", floats(&[4, 3, 3]));
        let conv = Attributes::new().with("kernel_shape", [3i64]).with("pads", [1i64, 1]);
        let y = b.op("conv", "Conv", &[x, w], conv).unwrap();
        let shape = b.op("shape", "Shape", &[y], Attributes::new()).unwrap();
        let first = b.i64s(&[0]);
        let batch = b.op("batch", "Gather", &[shape, first], Attributes::new()).unwrap();
        let rest = b.i64s(&[2, 12]);
        let target = b.op("target", "Concat", &[batch, rest], Attributes::new().with("axis", 0i64)).unwrap();
        let y = b.op("reshape", "Reshape", &[y, target], Attributes::new()).unwrap();
        let limit = b.i64(3);
        b.begin_block().unwrap();
        let _at = b.block_input("at", DType::I64, Some(vec![]));
        let go_on = b.block_input("go_on", DType::Bool, Some(vec![]));
        let state = b.block_input("state", DType::F32, None);
        let next = b.op("next", "Tanh", &[state], Attributes::new()).unwrap();
        let body = b.end_block(&[go_on, next]);
        let inputs = [Some(limit), None, Some(y)];
        let y =
            b.with_blocks("loop", "Loop", &inputs, Attributes::new(), vec![("body", body)], 1).unwrap()[0];
        model(&b.finish(&[("y", y)]).unwrap(), &Labels::default()).unwrap().encode_to_vec()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        /// Whatever the bytes are: a graph that holds together, or an error.
        #[test]
        fn broken_files_are_refused_without_a_panic(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
            cut in any::<prop::sample::Index>(),
            is_cut in prop::bool::weighted(0.2),
        ) {
            let mut bytes = sound();
            for (at, byte) in &changes {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            if is_cut {
                bytes.truncate(cut.index(bytes.len()));
            }
            if let Ok(made) = decode(bytes.into()).and_then(|model| graph(&model, &nothing_beside)) {
                let (optimised, _) = crate::optimise(&made, &crate::Passes::all());
                prop_assert_eq!(optimised.outputs().len(), made.outputs().len());
            }
        }
    }
}
