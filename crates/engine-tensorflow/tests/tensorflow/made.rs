//! Graphs made by hand, as files: what TensorFlow's own tools do not write as small.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use prost::Message;
use salver_tensor::DType;
use salver_tensorflow::proto::attr_value::Value;
use salver_tensorflow::proto::meta_graph_def::MetaInfoDef;
use salver_tensorflow::proto::{
    AttrValue, GraphDef, MetaGraphDef, NodeDef, SavedModel, SignatureDef, TensorInfo, TensorProto,
    TensorShapeProto, VersionDef, tensor_info, tensor_shape_proto,
};
use salver_tensorflow::read::dtype_number;

/// The version of graphs that TensorFlow 2 writes.
const PRODUCER: i32 = 2000;

pub(crate) fn node(name: &str, op: &str, inputs: &[&str], attributes: &[(&str, Value)]) -> NodeDef {
    let attr = attributes
        .iter()
        .map(|(name, value)| ((*name).to_owned(), AttrValue { value: Some(value.clone()) }))
        .collect();
    let input = inputs.iter().map(|&input| input.to_owned()).collect();
    NodeDef { name: name.into(), op: op.into(), input, attr, ..NodeDef::default() }
}

pub(crate) fn dtype(dtype: DType) -> Value {
    Value::Type(dtype_number(dtype))
}

pub(crate) fn shape(dims: &[i64]) -> TensorShapeProto {
    let dim = dims.iter().map(|&size| tensor_shape_proto::Dim { size, ..Default::default() }).collect();
    TensorShapeProto { dim, unknown_rank: false }
}

pub(crate) fn placeholder(name: &str, of: DType, dims: &[i64]) -> NodeDef {
    node(name, "Placeholder", &[], &[("dtype", dtype(of)), ("shape", Value::Shape(shape(dims)))])
}

pub(crate) fn constant(name: &str, values: &[f32]) -> NodeDef {
    let tensor = TensorProto {
        dtype: dtype_number(DType::F32),
        tensor_shape: Some(if values.len() == 1 { shape(&[]) } else { shape(&[values.len() as i64]) }),
        float_val: values.to_vec(),
        ..TensorProto::default()
    };
    node(name, "Const", &[], &[("dtype", dtype(DType::F32)), ("value", Value::Tensor(tensor))])
}

pub(crate) fn graph(nodes: Vec<NodeDef>) -> GraphDef {
    let versions = Some(VersionDef { producer: PRODUCER, ..VersionDef::default() });
    GraphDef { node: nodes, versions, ..GraphDef::default() }
}

/// Name, tensor, element type as a number, dimensions.
pub(crate) type Declared<'a> = (&'a str, &'a str, i32, &'a [i64]);

pub(crate) fn signature(inputs: &[Declared<'_>], outputs: &[Declared<'_>]) -> SignatureDef {
    let infos = |list: &[Declared<'_>]| {
        let info = |&(name, tensor, dtype, dims): &Declared<'_>| {
            let encoding = Some(tensor_info::Encoding::Name(tensor.to_owned()));
            (name.to_owned(), TensorInfo { encoding, dtype, tensor_shape: Some(shape(dims)) })
        };
        list.iter().map(info).collect::<BTreeMap<_, _>>()
    };
    SignatureDef {
        inputs: infos(inputs),
        outputs: infos(outputs),
        method_name: "tensorflow/serving/predict".into(),
        ..SignatureDef::default()
    }
}

/// Writes a frozen graph.
pub(crate) fn frozen(folder: &Path, nodes: Vec<NodeDef>) -> PathBuf {
    let path = folder.join("frozen.pb");
    std::fs::write(&path, graph(nodes).encode_to_vec()).unwrap();
    path
}

/// Writes a SavedModel without variables.
pub(crate) fn saved(folder: &Path, nodes: Vec<NodeDef>, signatures: &[(&str, SignatureDef)]) -> PathBuf {
    let meta = MetaGraphDef {
        meta_info_def: Some(MetaInfoDef { tags: vec!["serve".into()], ..MetaInfoDef::default() }),
        graph_def: Some(graph(nodes)),
        signature_def: signatures.iter().map(|(name, def)| ((*name).to_owned(), def.clone())).collect(),
        ..MetaGraphDef::default()
    };
    let saved = SavedModel { saved_model_schema_version: 1, meta_graphs: vec![meta] };
    std::fs::write(folder.join("saved_model.pb"), saved.encode_to_vec()).unwrap();
    folder.to_path_buf()
}
