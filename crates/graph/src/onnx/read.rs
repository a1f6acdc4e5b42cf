//! Reading ONNX as a graph.

use std::collections::{BTreeMap, HashMap, HashSet};

use bytes::Bytes;
use prost::Message;
use salver_kernels::{Attribute, Attributes};
use salver_tensor::DType;

use super::dtype_of;
use super::proto::attribute_proto::AttributeType;
use super::proto::tensor_shape_proto::dimension;
use super::proto::type_proto::Value as TypeValue;
use super::proto::{AttributeProto, GraphProto, ModelProto, NodeProto, ValueInfoProto};
use super::tensor::{Beside, tensor};
use super::upgrade::{self, Incoming};
use crate::infer::is_known;
use crate::ir::{Block, Dim, Graph, ValueId};
use crate::{Builder, Error};

/// The versions of ONNX's operators whose meaning is known here.
pub const OPSETS: std::ops::RangeInclusive<i64> = 7..=22;

/// Operators that are listed as missing.
const MAX_LISTED: usize = 50;

/// The message in the bytes of a file; raw elements stay slices of it.
///
/// # Errors
/// When the bytes are not one.
pub fn decode(bytes: Bytes) -> Result<ModelProto, Error> {
    if bytes.is_empty() {
        return Err(Error::invalid("the file is empty, expected an ONNX model"));
    }
    ModelProto::decode(bytes).map_err(|error| Error::invalid(format!("not a complete ONNX model: {error}")))
}

/// A model's graph. `beside` gives the content of files beside the model, for weights that are there.
///
/// # Errors
/// [`crate::ErrorKind::Unsupported`] when the operator set is not one of [`OPSETS`] or operators are not known, which
/// are listed; [`crate::ErrorKind::Invalid`] for a broken model. The error names the node.
pub fn graph(model: &ModelProto, beside: &Beside<'_>) -> Result<Graph, Error> {
    let version = version(model)?;
    let graph = model.graph.as_ref().ok_or_else(|| Error::invalid("the model holds no graph"))?;
    refuse_unknown(graph)?;
    let mut reader = Reader { builder: Builder::new(), scopes: vec![HashMap::new()], version, beside };
    reader.define_constants(graph)?;
    let initial: HashSet<&str> = graph.initializer.iter().map(|tensor| tensor.name()).collect();
    for info in graph.input.iter().filter(|info| !initial.contains(info.name())) {
        let (dtype, dims) = type_of(info)?;
        let dtype = dtype.ok_or_else(|| Error::invalid("no type is given").at(place(info)))?;
        let id = reader.builder.input(info.name(), dtype, dims);
        reader.define(info.name(), id);
    }
    reader.nodes(graph)?;
    let outputs = graph.output.iter().map(|info| {
        let id = reader.find(info.name()).map_err(|error| error.at(place(info)))?;
        Ok((info.name(), id))
    });
    let outputs = outputs.collect::<Result<Vec<_>, Error>>()?;
    reader.builder.finish(&outputs)
}

fn place(info: &ValueInfoProto) -> String {
    format!("'{}'", info.name())
}

fn is_own(domain: &str) -> bool {
    matches!(domain, "" | "ai.onnx")
}

fn version(model: &ModelProto) -> Result<i64, Error> {
    let import = model.opset_import.iter().find(|import| is_own(import.domain()));
    let version = import.ok_or_else(|| Error::invalid("the model imports no operator set"))?.version();
    if OPSETS.contains(&version) {
        return Ok(version);
    }
    let (first, last) = (OPSETS.start(), OPSETS.end());
    Err(Error::unsupported(format!("operator set {version} is not known, expected {first} to {last}")))
}

/// Names every operator that is not known, with their number and one node each.
fn refuse_unknown(graph: &GraphProto) -> Result<(), Error> {
    let mut missing = BTreeMap::new();
    collect(graph, &mut missing, 0)?;
    if missing.is_empty() {
        return Ok(());
    }
    let listed = missing.iter().take(MAX_LISTED);
    let listed: Vec<_> = listed.map(|(op, (n, name))| format!("{op} ({n}, such as node '{name}')")).collect();
    let more = missing.len().saturating_sub(MAX_LISTED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    Err(Error::unsupported(format!("operators that are not known: {}{more}", listed.join(", "))))
}

fn collect<'a>(
    graph: &'a GraphProto,
    missing: &mut BTreeMap<String, (usize, &'a str)>,
    depth: usize,
) -> Result<(), Error> {
    if depth > crate::MAX_DEPTH {
        return Err(Error::too_large(format!("graphs nested more than {} deep", crate::MAX_DEPTH)));
    }
    const CHANGED: &[&str] = &["Constant", "CastLike", "Scatter", "Upsample", "Dropout"];
    for node in &graph.node {
        let op = node.op_type();
        if !is_own(node.domain()) {
            missing.entry(format!("{}.{op}", node.domain())).or_insert((0, name_of(node))).0 += 1;
        } else if !CHANGED.contains(&op) && !is_known(op) {
            missing.entry(op.to_owned()).or_insert((0, name_of(node))).0 += 1;
        }
        for inner in node.attribute.iter().filter_map(|attr| attr.g.as_ref()) {
            collect(inner, missing, depth + 1)?;
        }
    }
    Ok(())
}

fn name_of(node: &NodeProto) -> &str {
    if node.name().is_empty() { node.output.first().map_or("", String::as_str) } else { node.name() }
}

/// The element type and dimensions that are stated.
fn type_of(info: &ValueInfoProto) -> Result<(Option<DType>, Option<Vec<Dim>>), Error> {
    let kind = match info.r#type.as_ref().and_then(|t| t.value.as_ref()) {
        Some(TypeValue::TensorType(tensor)) => tensor,
        None => return Ok((None, None)),
        Some(_) => {
            return Err(Error::unsupported("only tensors are read, no sequences, maps or optional values")
                .at(place(info)));
        }
    };
    let dtype = match kind.elem_type() {
        0 => None,
        number => Some(dtype_of(number).ok_or_else(|| {
            Error::unsupported(format!("element type {number} is not one that is read")).at(place(info))
        })?),
    };
    let dims = kind.shape.as_ref().map(|shape| {
        let dim = |value: &Option<dimension::Value>| match value {
            Some(dimension::Value::DimValue(size)) => usize::try_from(*size).map_or(Dim::Unknown, Dim::Fixed),
            Some(dimension::Value::DimParam(name)) if !name.is_empty() => Dim::symbol(name),
            _ => Dim::Unknown,
        };
        shape.dim.iter().map(|d| dim(&d.value)).collect::<Vec<_>>()
    });
    if dims.as_ref().is_some_and(|dims| dims.len() > salver_tensor::MAX_RANK) {
        return Err(
            Error::too_large(format!("more than {} dimensions", salver_tensor::MAX_RANK)).at(place(info))
        );
    }
    Ok((dtype, dims))
}

struct Reader<'a> {
    builder: Builder,
    /// Values by name, of the graph that is read and those around it.
    scopes: Vec<HashMap<String, ValueId>>,
    version: i64,
    beside: &'a Beside<'a>,
}

impl Reader<'_> {
    fn define(&mut self, name: &str, id: ValueId) {
        if let Some(scope) = self.scopes.last_mut() {
            scope.insert(name.to_owned(), id);
        }
    }

    fn find(&self, name: &str) -> Result<ValueId, Error> {
        let found = self.scopes.iter().rev().find_map(|scope| scope.get(name).copied());
        found.ok_or_else(|| {
            Error::invalid(format!("'{name}' is made by no input, constant or node before it"))
        })
    }

    fn define_constants(&mut self, graph: &GraphProto) -> Result<(), Error> {
        if !graph.sparse_initializer.is_empty() {
            return Err(Error::unsupported("sparse tensors are not read"));
        }
        for proto in &graph.initializer {
            let tensor = tensor(proto, self.beside)?;
            let id = self.builder.constant(proto.name(), tensor);
            self.define(proto.name(), id);
        }
        Ok(())
    }

    fn nodes(&mut self, graph: &GraphProto) -> Result<(), Error> {
        for node in &graph.node {
            let at = || format!("{} node '{}'", node.op_type(), name_of(node));
            self.node(node).map_err(|error| if error.place().is_some() { error } else { error.at(at()) })?;
        }
        Ok(())
    }

    fn node(&mut self, node: &NodeProto) -> Result<(), Error> {
        let input = |name: &String| if name.is_empty() { Ok(None) } else { self.find(name).map(Some) };
        let inputs = node.input.iter().map(input).collect::<Result<Vec<_>, _>>()?;
        let mut attributes = Attributes::new();
        for attr in node.attribute.iter().filter(|attr| attr.g.is_none()) {
            if let Some(value) = attribute(attr, self.beside)? {
                attributes.set(attr.name(), value);
            }
        }
        let n_outputs = node.output.len();
        let has_blocks = node.attribute.iter().any(|attr| attr.g.is_some());
        let outputs = if has_blocks {
            self.with_blocks(node, &inputs, attributes)?
        } else {
            let (name, op, version) = (name_of(node), node.op_type().to_owned(), self.version);
            upgrade::add(&mut self.builder, Incoming { name, op, inputs, attributes, n_outputs, version })?
        };
        for (name, id) in node.output.iter().zip(outputs).filter(|(name, _)| !name.is_empty()) {
            self.define(name, id);
        }
        Ok(())
    }

    fn with_blocks(
        &mut self,
        node: &NodeProto,
        inputs: &[Option<ValueId>],
        attributes: Attributes,
    ) -> Result<Vec<ValueId>, Error> {
        if node.op_type() == "Scan" && self.version < 9 {
            return Err(Error::unsupported("Scan with batches is not read"));
        }
        let types = self.block_types(node, inputs);
        let mut blocks = Vec::new();
        for attr in &node.attribute {
            if let Some(graph) = &attr.g {
                blocks.push((attr.name(), self.block(graph, &types)?));
            }
        }
        let n_outputs = node.output.len();
        self.builder.with_blocks(name_of(node), node.op_type(), inputs, attributes, blocks, n_outputs)
    }

    /// The element types that a block's inputs have, by what its node takes.
    fn block_types(&self, node: &NodeProto, inputs: &[Option<ValueId>]) -> Vec<Option<DType>> {
        let given = inputs.iter().map(|id| id.map(|id| self.builder.dtype(id)));
        match node.op_type() {
            "Loop" => [Some(DType::I64), Some(DType::Bool)].into_iter().chain(given.skip(2)).collect(),
            _ => given.collect(),
        }
    }

    fn block(&mut self, graph: &GraphProto, types: &[Option<DType>]) -> Result<Block, Error> {
        self.builder.begin_block()?;
        self.scopes.push(HashMap::new());
        self.define_constants(graph)?;
        for (at, info) in graph.input.iter().enumerate() {
            let (stated, dims) = type_of(info)?;
            let dtype = stated.or(types.get(at).copied().flatten());
            let dtype = dtype.ok_or_else(|| Error::invalid("no type is given").at(place(info)))?;
            let id = self.builder.block_input(info.name(), dtype, dims);
            self.define(info.name(), id);
        }
        self.nodes(graph)?;
        let outputs = graph.output.iter().map(|info| self.find(info.name()));
        let outputs = outputs.collect::<Result<Vec<_>, _>>()?;
        self.scopes.pop();
        Ok(self.builder.end_block(&outputs))
    }
}

/// The value of an attribute; `None` for one that holds nothing.
fn attribute(attr: &AttributeProto, beside: &Beside<'_>) -> Result<Option<Attribute>, Error> {
    let text =
        |bytes: &Vec<u8>| String::from_utf8(bytes.clone()).map_err(|_| Error::invalid("a text is not UTF-8"));
    if attr.ref_attr_name.as_deref().is_some_and(|name| !name.is_empty()) {
        return Err(Error::unsupported("attributes of functions are not read"));
    }
    let value = match attr.r#type() {
        AttributeType::Int => Attribute::Int(attr.i()),
        AttributeType::Float => Attribute::Float(attr.f()),
        AttributeType::String => Attribute::String(text(attr.s.as_ref().unwrap_or(&Vec::new()))?),
        AttributeType::Ints => Attribute::Ints(attr.ints.clone()),
        AttributeType::Floats => Attribute::Floats(attr.floats.clone()),
        AttributeType::Strings => {
            Attribute::Strings(attr.strings.iter().map(text).collect::<Result<_, _>>()?)
        }
        AttributeType::Tensor => match &attr.t {
            Some(proto) => Attribute::Tensor(tensor(proto, beside)?),
            None => return Ok(None),
        },
        AttributeType::Undefined => return Ok(None),
        other => {
            let (name, kind) = (attr.name(), other.as_str_name());
            return Err(Error::unsupported(format!(
                "attribute '{name}' is of kind {kind}, which is not read"
            )));
        }
    };
    Ok(Some(value))
}
