//! Models built here, for what no fixture shows.

use std::num::NonZeroUsize;

use prost::Message;
use salver_engine::{ErrorKind, Model};
use salver_tensor::{Shape, Tensor};

use super::*;
use crate::element::Elem;
use crate::proto::NodeExt;
use salver_graph::onnx::proto::type_proto::{Tensor as TensorType, Value as Type};
use salver_graph::onnx::proto::{
    GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TypeProto, ValueInfoProto,
};
use salver_graph::{Attributes, Builder, Dim};

fn info(name: &str, elem: Elem) -> ValueInfoProto {
    let tensor = TensorType { elem_type: Some(elem.into()), shape: None };
    let r#type = TypeProto { value: Some(Type::TensorType(tensor)), ..Default::default() };
    ValueInfoProto { name: Some(name.into()), r#type: Some(r#type), ..Default::default() }
}

fn proto(nodes: Vec<NodeProto>, constants: Vec<TensorProto>, elem: Elem) -> ModelProto {
    let graph = GraphProto {
        node: nodes,
        initializer: constants,
        input: vec![info("x", elem)],
        output: vec![info("y", elem)],
        ..Default::default()
    };
    ModelProto {
        ir_version: Some(8),
        opset_import: vec![OperatorSetIdProto { domain: None, version: Some(17) }],
        graph: Some(graph),
        ..Default::default()
    }
}

fn load(proto: &ModelProto) -> Result<RtenModel, Error> {
    RtenModel::from_bytes(proto.encode_to_vec().into())
}

fn chain(op: &str, len: usize) -> Vec<NodeProto> {
    let name = |at| match at {
        0 => "x".to_owned(),
        _ if at == len => "y".to_owned(),
        _ => format!("v{at}"),
    };
    (0..len).map(|at| NodeProto::new(op, &[&name(at)], &name(at + 1))).collect()
}

#[test]
fn long_chains_run_on_a_workers_stack_and_longer_ones_are_refused() {
    let model = load(&proto(chain("Relu", 4000), Vec::new(), Elem::Float)).unwrap();
    let x = Tensor::from_vec(Shape::new(&[2]).unwrap(), vec![-1.0f32, 2.0]).unwrap();
    model.enter(NonZeroUsize::MIN, &mut || {
        let y = model.session().unwrap().run(0, std::slice::from_ref(&x), &[0]).unwrap();
        assert_eq!(y[0].as_slice::<f32>().unwrap(), [0.0, 2.0]);
    });
    let error = load(&proto(chain("Relu", 4001), Vec::new(), Elem::Float)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

fn check(what: &str, proto: &ModelProto, kind: ErrorKind, message: &str) {
    let error = load(proto).map(|_| ()).expect_err(what);
    assert_eq!((error.kind(), error.to_string().as_str()), (kind, message), "{what}");
}

#[test]
fn refusals_name_what_is_wrong_and_where() {
    let relu = || chain("Relu", 1);
    let constant = |name: &str, elem: Elem, dims: &[i64], raw: &[u8]| TensorProto {
        name: Some(name.into()),
        data_type: Some(elem.into()),
        dims: dims.to_vec(),
        raw_data: Some(Bytes::copy_from_slice(raw)),
        ..Default::default()
    };
    check(
        "a constant with too few bytes",
        &proto(relu(), vec![constant("w", Elem::Float, &[1 << 40], &[0; 4])], Elem::Float),
        ErrorKind::InvalidModel,
        "tensor 'w': float32 tensor of dimensions [1099511627776] takes 4398046511104 bytes, got 4",
    );
    check(
        "an element type that the engine lacks",
        &proto(relu(), vec![constant("w", Elem::Uint64, &[1], &[0; 8])], Elem::Float),
        ErrorKind::Unsupported,
        "tensor 'w': element type uint64 is not one the embedded engine has",
    );
    check(
        "a value that nothing makes",
        &proto(vec![NodeProto::new("Add", &["x", "z"], "y")], Vec::new(), Elem::Float),
        ErrorKind::InvalidModel,
        "node 'y' (Add): it takes 'z', which no input, constant or node before it makes",
    );
    check(
        "a cycle",
        &proto(vec![NodeProto::new("Add", &["x", "y"], "y")], Vec::new(), Elem::Float),
        ErrorKind::InvalidModel,
        "node 'y' (Add): it takes 'y', which no input, constant or node before it makes",
    );
    check(
        "an output of another type than declared",
        &proto(vec![NodeProto::new("Shape", &["x"], "y")], Vec::new(), Elem::Float),
        ErrorKind::InvalidModel,
        "output 'y': declared as float32, but computed as int64",
    );
    check(
        "an operator set of the past",
        &ModelProto {
            opset_import: vec![OperatorSetIdProto { domain: None, version: Some(6) }],
            ..proto(relu(), Vec::new(), Elem::Float)
        },
        ErrorKind::Unsupported,
        "operator set 6 is not one the embedded engine knows (expected 7 to 28)",
    );
    let mut fill = NodeProto::new("ConstantOfShape", &["w"], "y");
    fill.set_tensor("value", constant("", Elem::Float, &[1], &[0; 4]));
    check(
        "a constant of a size that would not fit",
        &proto(vec![fill], vec![constant("w", Elem::Int64, &[1], &(1i64 << 31).to_le_bytes())], Elem::Float),
        ErrorKind::Unsupported,
        "constant 'w': int64 value 2147483648 does not fit the 32 bits that the embedded engine computes in; \
         this model needs another engine",
    );
}

#[test]
fn graphs_are_nested_only_so_deep() {
    let mut graph = GraphProto { output: vec![info("y", Elem::Float)], ..Default::default() };
    for _ in 0..20 {
        let mut node = NodeProto::new("If", &["x"], "y");
        node.set_int("then_branch", 0);
        node.attribute[0].g = Some(graph);
        graph = GraphProto { node: vec![node], output: vec![info("y", Elem::Float)], ..Default::default() };
    }
    let mut model = proto(graph.node, Vec::new(), Elem::Float);
    model.graph.as_mut().unwrap().input = vec![info("x", Elem::Bool)];
    check(
        "nested graphs",
        &model,
        ErrorKind::InvalidModel,
        "node 'y' (If): graphs are nested more than 16 deep",
    );
}

/// Large weights go by memory of their own, small ones with the graph; a value that is an output twice, an input that
/// is an output, and a loop whose body uses values from around it.
#[test]
fn graphs_are_taken_over() {
    let n = 32;
    let mut b = Builder::new();
    let x = b.input("x", salver_tensor::DType::F32, Some(vec![Dim::symbol("batch"), Dim::Fixed(n)]));
    let weights: Vec<f32> = (0..n * n).map(|at| if at / n == at % n { 2.0 } else { 0.0 }).collect();
    let weights = b.constant("w", Tensor::from_vec(Shape::new(&[n, n]).unwrap(), weights).unwrap());
    let doubled = b.op("double", "MatMul", &[x, weights], Attributes::new()).unwrap();
    let (limit, one) = (b.i64(3), b.f32(1.0));
    b.begin_block().unwrap();
    let _at = b.block_input("at", salver_tensor::DType::I64, Some(vec![]));
    let go_on = b.block_input("go_on", salver_tensor::DType::Bool, Some(vec![]));
    let sum =
        b.block_input("sum", salver_tensor::DType::F32, Some(vec![Dim::symbol("batch"), Dim::Fixed(n)]));
    let more = b.op("more", "Add", &[sum, doubled], Attributes::new()).unwrap();
    let more = b.op("more", "Add", &[more, one], Attributes::new()).unwrap();
    let body = b.end_block(&[go_on, more]);
    let looped = b
        .with_blocks(
            "loop",
            "Loop",
            &[Some(limit), None, Some(x)],
            Attributes::new(),
            vec![("body", body)],
            1,
        )
        .unwrap()[0];
    let graph =
        b.finish(&[("looped", looped), ("same", x), ("double", doubled), ("again", doubled)]).unwrap();

    let model = crate::load_graph(&graph, &salver_engine::LoadOptions::default()).unwrap();
    let names: Vec<_> = model.signatures()[0].outputs().iter().map(|spec| spec.name.to_string()).collect();
    assert_eq!(names, ["again", "double", "looped", "same"]);
    let x = Tensor::from_vec(Shape::new(&[1, n]).unwrap(), vec![1.0f32; n]).unwrap();
    model.enter(NonZeroUsize::MIN, &mut || {
        let y = model.session().unwrap().run(0, std::slice::from_ref(&x), &[0, 1, 2, 3]).unwrap();
        let first: Vec<f32> = y.iter().map(|t| t.as_slice::<f32>().unwrap()[0]).collect();
        assert_eq!(first, [2.0, 2.0, 10.0, 1.0]);
    });
}
