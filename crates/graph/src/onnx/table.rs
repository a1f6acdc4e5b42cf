//! Lookup tables as `LabelEncoder` of the domain `ai.onnx.ml`, version 2.

use salver_kernels::Attribute;
use salver_tensor::{DType, Tensor};

use super::proto::NodeProto;
use super::write::attribute_proto;
use crate::{Error, Graph, Node};

pub(super) const DOMAIN: &str = "ai.onnx.ml";
pub(super) const VERSION: i64 = 2;

/// Whether a node is a table with constant contents, in element types that the operator has.
pub(super) fn can_write(graph: &Graph, node: &Node) -> bool {
    node.op == "LookupTable" && attributes(graph, node).is_some()
}

pub(super) fn write(
    graph: &Graph,
    node: &Node,
    input: &[String],
    output: Vec<String>,
) -> Result<NodeProto, Error> {
    let attributes = attributes(graph, node).ok_or_else(|| {
        Error::unsupported("a table whose contents are not known has no form in ONNX").at(node.name.clone())
    })?;
    let attribute = attributes.iter().map(|(name, value)| attribute_proto(name, value));
    Ok(NodeProto {
        name: Some(node.name.clone()),
        op_type: Some("LabelEncoder".into()),
        domain: Some(DOMAIN.into()),
        input: input.iter().take(1).cloned().collect(),
        output,
        attribute: attribute.collect::<Result<_, _>>()?,
        ..NodeProto::default()
    })
}

fn attributes(graph: &Graph, node: &Node) -> Option<Vec<(String, Attribute)>> {
    let keys = node.attributes.tensor("keys").ok()??;
    let values = node.attributes.tensor("values").ok()??;
    let default = graph.value(node.input(1)?).constant.as_ref()?;
    let default = match list(default)? {
        Attribute::Ints(ints) => Attribute::Int(*ints.first()?),
        Attribute::Floats(floats) => Attribute::Float(*floats.first()?),
        Attribute::Strings(strings) => Attribute::String(strings.into_iter().next()?),
        _ => return None,
    };
    Some(vec![
        (format!("keys_{}s", kind(keys.dtype())?), list(keys)?),
        (format!("values_{}s", kind(values.dtype())?), list(values)?),
        (format!("default_{}", kind(values.dtype())?), default),
    ])
}

fn kind(dtype: DType) -> Option<&'static str> {
    Some(match dtype {
        DType::I64 => "int64",
        DType::F32 => "float",
        DType::String => "string",
        _ => return None,
    })
}

fn list(tensor: &Tensor) -> Option<Attribute> {
    Some(match tensor.dtype() {
        DType::I64 => Attribute::Ints(tensor.to_slice::<i64>()?.to_vec()),
        DType::F32 => Attribute::Floats(tensor.to_slice::<f32>()?.to_vec()),
        DType::String => {
            let texts = tensor.strings()?.iter().map(|s| String::from_utf8(s.to_vec()).ok());
            Attribute::Strings(texts.collect::<Option<_>>()?)
        }
        _ => return None,
    })
}
