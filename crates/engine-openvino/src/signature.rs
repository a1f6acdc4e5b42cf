//! The one signature of a graph, and what an ONNX file says about it.

use salver_engine::{DEFAULT_SIGNATURE, Error, ErrorKind};
use salver_graph::onnx::proto::tensor_shape_proto::dimension::Value as Size;
use salver_graph::onnx::proto::type_proto::Value as Type;
use salver_graph::onnx::proto::{GraphProto, ValueInfoProto};
use salver_graph::{Graph, ValueId, onnx, signature_dims};
use salver_tensor::{DType, Dims, MAX_RANK, Signature, TensorSpec};

use crate::element;

/// The signature as the graph's values say it.
pub(crate) fn of_graph(graph: &Graph) -> Result<Signature, Error> {
    let inputs = graph.inputs().iter().map(|&id| {
        let name = graph.value(id).name.as_str();
        spec(graph, name, id, "input")
    });
    let outputs = graph.outputs().map(|(name, id)| spec(graph, name, id, "output"));
    signature(inputs.collect::<Result<_, _>>()?, outputs.collect::<Result<_, _>>()?)
}

/// The signature with the dimensions that a file declares.
pub(crate) fn of_file(graph: &Graph, file: &GraphProto) -> Result<Signature, Error> {
    let declared = |infos: &[ValueInfoProto], spec: TensorSpec, what: &str| {
        let Some(info) = infos.iter().find(|info| info.name() == &*spec.name) else { return Ok(spec) };
        let place = format!("{what} '{}'", spec.name);
        let (dtype, dims) = stated(info).map_err(|error| error.at(place.clone()))?;
        if dtype.is_some_and(|dtype| dtype != spec.dtype) {
            let dtype = dtype.map_or("", DType::name);
            let message = format!("declared as {dtype}, but computed as {}", spec.dtype);
            return Err(Error::new(ErrorKind::InvalidModel, message).at(place));
        }
        Ok(TensorSpec { dims, ..spec })
    };
    let found = of_graph(graph)?;
    let inputs = found.inputs().iter().map(|spec| declared(&file.input, spec.clone(), "input"));
    let outputs = found.outputs().iter().map(|spec| declared(&file.output, spec.clone(), "output"));
    signature(inputs.collect::<Result<_, _>>()?, outputs.collect::<Result<_, _>>()?)
}

fn signature(inputs: Vec<TensorSpec>, outputs: Vec<TensorSpec>) -> Result<Signature, Error> {
    if outputs.is_empty() {
        return Err(Error::new(ErrorKind::InvalidModel, "the graph has no outputs"));
    }
    for (specs, what) in [(&inputs, "input"), (&outputs, "output")] {
        let mut names: Vec<_> = specs.iter().map(|spec| &*spec.name).collect();
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            let message = format!("two {what}s have this name");
            return Err(Error::new(ErrorKind::InvalidModel, message).at(format!("{what} '{}'", twice[0])));
        }
    }
    Ok(Signature::new(DEFAULT_SIGNATURE, "tensorflow/serving/predict", inputs, outputs))
}

fn spec(graph: &Graph, name: &str, id: ValueId, what: &str) -> Result<TensorSpec, Error> {
    let value = graph.value(id);
    if element::to_openvino(value.dtype).is_none() {
        let message =
            format!("element type {} is not one that OpenVINO has; it needs another engine", value.dtype);
        return Err(Error::new(ErrorKind::Unsupported, message).at(format!("{what} '{name}'")));
    }
    Ok(TensorSpec {
        name: name.into(),
        tensor_name: name.into(),
        dtype: value.dtype,
        dims: signature_dims(value.dims.as_deref()),
        default: None,
    })
}

/// The element type, if it is said, and the dimensions, of which those that have no number are open.
fn stated(info: &ValueInfoProto) -> Result<(Option<DType>, Dims), Error> {
    let Some(Type::TensorType(tensor)) = info.r#type.as_ref().and_then(|t| t.value.as_ref()) else {
        return Ok((None, Dims::unknown()));
    };
    let dtype = onnx::dtype_of(tensor.elem_type());
    let Some(shape) = &tensor.shape else { return Ok((dtype, Dims::unknown())) };
    if shape.dim.len() > MAX_RANK {
        let message = format!("{} dimensions, expected at most {MAX_RANK}", shape.dim.len());
        return Err(Error::new(ErrorKind::InvalidModel, message));
    }
    let dims = shape.dim.iter().map(|dim| match dim.value {
        Some(Size::DimValue(size)) => usize::try_from(size).ok(),
        _ => None,
    });
    Ok((dtype, Dims::new(dims.collect())))
}
