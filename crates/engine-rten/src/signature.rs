//! The signature of an ONNX graph.

use std::collections::HashSet;

use salver_engine::{DEFAULT_SIGNATURE, Error, ErrorKind};
use salver_tensor::{Dims, MAX_RANK, Signature, TensorSpec};

use crate::element::{Elem, dtype, elem, shown};
use salver_graph::onnx::proto::tensor_shape_proto::dimension::Value as Dim;
use salver_graph::onnx::proto::type_proto::Value as Type;
use salver_graph::onnx::proto::{GraphProto, ValueInfoProto};

/// Inputs and outputs in the graph's own order; initializers are not inputs.
pub(crate) struct Ports {
    pub(crate) inputs: Vec<TensorSpec>,
    pub(crate) outputs: Vec<TensorSpec>,
}

impl Ports {
    pub(crate) fn of(graph: &GraphProto) -> Result<Ports, Error> {
        let given: HashSet<_> = graph.initializer.iter().map(|tensor| tensor.name()).collect();
        let inputs = graph.input.iter().filter(|info| !given.contains(info.name()));
        let ports = Ports { inputs: specs(inputs, "input")?, outputs: specs(graph.output.iter(), "output")? };
        if ports.outputs.is_empty() {
            return Err(Error::new(ErrorKind::InvalidModel, "the graph has no outputs"));
        }
        Ok(ports)
    }

    pub(crate) fn signature(&self) -> Signature {
        let (inputs, outputs) = (self.inputs.clone(), self.outputs.clone());
        Signature::new(DEFAULT_SIGNATURE, "tensorflow/serving/predict", inputs, outputs)
    }
}

fn specs<'a>(infos: impl Iterator<Item = &'a ValueInfoProto>, what: &str) -> Result<Vec<TensorSpec>, Error> {
    let mut names = HashSet::new();
    infos
        .map(|info| {
            let spec = spec(info).map_err(|error| error.at(format!("{what} '{}'", info.name())))?;
            if info.name().is_empty() || !names.insert(info.name()) {
                let message = format!("two {what}s have the same name or one has none");
                return Err(
                    Error::new(ErrorKind::InvalidModel, message).at(format!("{what} '{}'", info.name()))
                );
            }
            Ok(spec)
        })
        .collect()
}

fn spec(info: &ValueInfoProto) -> Result<TensorSpec, Error> {
    let kind = elem_of(info)?;
    let dtype = dtype(kind).ok_or_else(|| {
        let advice = if kind == Elem::Undefined { "" } else { "; it needs another engine" };
        let message = format!(
            "element type {} is not one the embedded engine computes in exactly{advice}",
            shown(kind)
        );
        Error::new(ErrorKind::Unsupported, message)
    })?;
    Ok(TensorSpec {
        name: info.name().into(),
        tensor_name: info.name().into(),
        dtype,
        dims: dims_of(info)?.map_or_else(Dims::unknown, Dims::new),
        default: None,
    })
}

/// The element type of a tensor; other kinds of values are refused.
pub(crate) fn elem_of(info: &ValueInfoProto) -> Result<Elem, Error> {
    let kind = match info.r#type.as_ref().and_then(|t| t.value.as_ref()) {
        Some(Type::TensorType(tensor)) => return Ok(elem(tensor.elem_type())),
        Some(Type::SequenceType(_)) => "a sequence",
        Some(Type::MapType(_)) => "a map",
        Some(Type::OptionalType(_)) => "an optional value",
        Some(Type::SparseTensorType(_)) => "a sparse tensor",
        Some(Type::OpaqueType(_)) => "an opaque value",
        None => return Err(Error::new(ErrorKind::InvalidModel, "no type is given")),
    };
    Err(Error::new(ErrorKind::Unsupported, format!("it is {kind}, but only tensors go in and out here")))
}

/// The dimensions; `None` for those that are open, and altogether when the graph does not say.
pub(crate) fn dims_of(info: &ValueInfoProto) -> Result<Option<Vec<Option<usize>>>, Error> {
    let Some(Type::TensorType(tensor)) = info.r#type.as_ref().and_then(|t| t.value.as_ref()) else {
        return Ok(None);
    };
    let Some(shape) = &tensor.shape else { return Ok(None) };
    if shape.dim.len() > MAX_RANK {
        let message = format!("{} dimensions, expected at most {MAX_RANK}", shape.dim.len());
        return Err(Error::new(ErrorKind::InvalidModel, message));
    }
    let dims = shape.dim.iter().map(|dim| match dim.value {
        Some(Dim::DimValue(size)) => usize::try_from(size).ok(),
        _ => None,
    });
    Ok(Some(dims.collect()))
}
