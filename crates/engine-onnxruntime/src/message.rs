//! What an ONNX message says of a model: inputs, outputs, weights and the files beside it.

use std::collections::HashSet;
use std::path::{Component, Path};

use salver_engine::{DEFAULT_SIGNATURE, Error};
use salver_graph::onnx::proto::tensor_proto::DataLocation;
use salver_graph::onnx::proto::tensor_shape_proto::dimension::Value as Dim;
use salver_graph::onnx::proto::type_proto::Value as Type;
use salver_graph::onnx::proto::{GraphProto, ModelProto, NodeProto, TensorProto, TypeProto, ValueInfoProto};
use salver_graph::onnx::{dtype_of, proto};
use salver_tensor::{DType, Dims, MAX_RANK, Signature, TensorSpec};

use crate::error::{invalid, unsupported};

/// What is known of a model before the library sees it.
pub(crate) struct Described {
    pub(crate) signature: Signature,
    /// Bytes of all weights.
    pub(crate) n_bytes: u64,
    /// Whether weights lie in files beside the model.
    pub(crate) has_files: bool,
    /// Whether there is a loop at any depth.
    pub(crate) has_loops: bool,
}

/// Looks at a model.
///
/// # Errors
/// When inputs or outputs are not tensors of types that can be passed on, all of which are named, or weights are said to
/// lie outside the model's folder.
pub(crate) fn describe(model: &ModelProto) -> Result<Described, Error> {
    let graph = model.graph.as_ref().ok_or_else(|| invalid("the file holds no graph"))?;
    let given: HashSet<_> = graph.initializer.iter().map(TensorProto::name).collect();
    let inputs: Vec<_> = graph.input.iter().filter(|info| !given.contains(info.name())).collect();
    let outputs: Vec<_> = graph.output.iter().collect();
    if outputs.is_empty() {
        return Err(invalid("the graph has no outputs"));
    }
    refuse_others(&inputs, &outputs, &graph.node)?;
    let (inputs, outputs) = (specs(&inputs, "input")?, specs(&outputs, "output")?);
    let mut weights = Weights::default();
    weights.add(graph)?;
    model.functions.iter().try_for_each(|function| weights.nodes(&function.node))?;
    let signature = Signature::new(DEFAULT_SIGNATURE, "tensorflow/serving/predict", inputs, outputs);
    let Weights { n_bytes, has_files, has_loops } = weights;
    Ok(Described { signature, n_bytes, has_files, has_loops })
}

/// Refuses a model that takes or gives what is no tensor, and names all of it.
fn refuse_others(
    inputs: &[&ValueInfoProto],
    outputs: &[&ValueInfoProto],
    nodes: &[NodeProto],
) -> Result<(), Error> {
    let others = |infos: &[&ValueInfoProto], what: &str| -> Vec<String> {
        let kinds = infos.iter().filter_map(|info| Some((info.name(), other_kind(info.r#type.as_ref()?)?)));
        kinds.map(|(name, kind)| format!("{what} '{name}' is {kind}")).collect()
    };
    let mut found = others(inputs, "input");
    let n_inputs = found.len();
    found.extend(others(outputs, "output"));
    if found.is_empty() {
        return Ok(());
    }
    let is_zipped = |output: &&ValueInfoProto| {
        let made = |node: &&NodeProto| node.output.iter().any(|name| name == output.name());
        nodes.iter().find(made).is_some_and(|node| node.op_type() == "ZipMap")
    };
    let advice = if n_inputs == 0 && outputs.iter().any(is_zipped) {
        "; export the classifier with the option zipmap=False, which gives a tensor"
    } else {
        ""
    };
    let rest = match outputs.len() + n_inputs - found.len() {
        0 => "",
        _ => " (the other outputs are tensors)",
    };
    Err(unsupported(format!("{}, but only tensors go in and out here{rest}{advice}", found.join(", "))))
}

/// What a value is that is no tensor.
fn other_kind(r#type: &TypeProto) -> Option<&'static str> {
    let Some(value) = &r#type.value else { return None };
    Some(match value {
        Type::TensorType(_) => return None,
        Type::SequenceType(list) => match list.elem_type.as_ref().and_then(|inner| inner.value.as_ref()) {
            Some(Type::MapType(_)) => "a sequence of maps",
            _ => "a sequence",
        },
        Type::MapType(_) => "a map",
        Type::OptionalType(_) => "an optional value",
        Type::SparseTensorType(_) => "a sparse tensor",
        Type::OpaqueType(_) => "an opaque value",
    })
}

fn specs(infos: &[&ValueInfoProto], what: &str) -> Result<Vec<TensorSpec>, Error> {
    let mut names = HashSet::new();
    let mut specs = Vec::with_capacity(infos.len());
    for info in infos {
        let at = |error: Error| error.at(format!("{what} '{}'", info.name()));
        if info.name().is_empty() || info.name().contains('\0') || !names.insert(info.name()) {
            return Err(at(invalid(format!("two {what}s have the same name, or one has none"))));
        }
        specs.push(spec(info).map_err(at)?);
    }
    Ok(specs)
}

fn spec(info: &ValueInfoProto) -> Result<TensorSpec, Error> {
    let Some(Type::TensorType(tensor)) = info.r#type.as_ref().and_then(|t| t.value.as_ref()) else {
        return Err(invalid("no type is given"));
    };
    let dtype = dtype_of(tensor.elem_type()).filter(|dtype| !matches!(dtype, DType::C64 | DType::C128));
    let dtype = dtype.ok_or_else(|| {
        let name = proto::tensor_proto::DataType::try_from(tensor.elem_type());
        let name =
            name.map_or_else(|_| tensor.elem_type().to_string(), |name| name.as_str_name().to_lowercase());
        unsupported(format!("element type {name} is not one that is passed to ONNX Runtime"))
    })?;
    let dims = match &tensor.shape {
        None => Dims::unknown(),
        Some(shape) if shape.dim.len() > MAX_RANK => {
            return Err(invalid(format!("{} dimensions, expected at most {MAX_RANK}", shape.dim.len())));
        }
        Some(shape) => Dims::new(
            shape
                .dim
                .iter()
                .map(|dim| match dim.value {
                    Some(Dim::DimValue(size)) => usize::try_from(size).ok(),
                    _ => None,
                })
                .collect(),
        ),
    };
    Ok(TensorSpec { name: info.name().into(), tensor_name: info.name().into(), dtype, dims, default: None })
}

#[derive(Default)]
struct Weights {
    n_bytes: u64,
    has_files: bool,
    has_loops: bool,
}

impl Weights {
    /// Adds those of a graph and of the graphs in it. What decodes messages bounds how deep they nest.
    fn add(&mut self, graph: &GraphProto) -> Result<(), Error> {
        for tensor in &graph.initializer {
            self.tensor(tensor)?;
        }
        for sparse in &graph.sparse_initializer {
            sparse.values.iter().chain(&sparse.indices).try_for_each(|tensor| self.tensor(tensor))?;
        }
        self.nodes(&graph.node)
    }

    fn nodes(&mut self, nodes: &[NodeProto]) -> Result<(), Error> {
        self.has_loops |= nodes.iter().any(|node| matches!(node.op_type(), "Loop" | "Scan"));
        for attr in nodes.iter().flat_map(|node| &node.attribute) {
            attr.t.iter().chain(&attr.tensors).try_for_each(|tensor| self.tensor(tensor))?;
            attr.g.iter().chain(&attr.graphs).try_for_each(|inner| self.add(inner))?;
        }
        Ok(())
    }

    fn tensor(&mut self, tensor: &TensorProto) -> Result<(), Error> {
        let size = dtype_of(tensor.data_type()).and_then(DType::size).unwrap_or(1) as u64;
        let sizes = tensor.dims.iter().map(|&dim| u64::try_from(dim).unwrap_or(0));
        self.n_bytes = self.n_bytes.saturating_add(sizes.fold(size, u64::saturating_mul));
        if tensor.data_location() != DataLocation::External {
            return Ok(());
        }
        self.has_files = true;
        let entry = tensor.external_data.iter().find(|entry| entry.key() == "location");
        let file = entry.map(|entry| entry.value()).unwrap_or_default();
        let is_below =
            Path::new(file).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        if file.is_empty() || !is_below {
            let message =
                format!("its elements are said to lie in '{file}', expected a file in the model's folder");
            return Err(invalid(message).at(format!("tensor '{}'", tensor.name())));
        }
        Ok(())
    }
}
