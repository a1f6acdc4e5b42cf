//! Writing a graph as ONNX.

use std::collections::{BTreeMap, HashMap, HashSet};

use bytes::Bytes;
use prost::Message;
use salver_kernels::Attribute;
use salver_tensor::{DType, Tensor};

use super::external::{ExternalData, externalise};
use super::lower::lowered;
use super::proto::attribute_proto::AttributeType;
use super::proto::tensor_shape_proto::{Dimension, dimension};
use super::proto::type_proto::{Tensor as TensorType, Value as TypeValue};
use super::proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto,
    TensorProto, TensorShapeProto, TypeProto, ValueInfoProto,
};
use super::{elem_of, table};
use crate::{Block, Dim, Error, Graph, Node, OPSET, SALVER, ValueId};

/// The version of the file format: the one of ONNX 1.13, which brought operator set 18.
const IR_VERSION: i64 = 8;

/// The largest message that protobuf readers take, with room for what is written around it.
const MAX_MESSAGE_BYTES: usize = (1 << 31) - (1 << 16);

/// What a file says about itself.
#[derive(Debug, Clone, Copy, Default)]
pub struct Labels<'a> {
    /// The name of the graph; `graph` when it is empty.
    pub graph_name: &'a str,
    /// The version of this program.
    pub producer_version: &'a str,
    /// Further texts by key, such as the name of the signature.
    pub metadata: &'a [(&'a str, &'a str)],
}

/// Where weights go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weights<'a> {
    /// Into a file of this name beside the model, when the model would be too large for one message (2 GB).
    BesideWhenLarge(&'a str),
    /// Into a file of this name beside the model.
    Beside(&'a str),
}

/// A written model.
#[derive(Debug, Clone)]
pub struct Written {
    /// The content of the model's file.
    pub model: Bytes,
    /// The content of the file of weights, where there is one.
    pub data: Option<ExternalData>,
}

/// The content of an ONNX file that ONNX's own checker accepts.
///
/// # Errors
/// As [`model`], when the model is too large even without its weights, and when not even the number of dimensions of an
/// input or output is known, since a valid file says it.
pub fn bytes(graph: &Graph, labels: &Labels<'_>, weights: Weights<'_>) -> Result<Written, Error> {
    // What has no form in ONNX at all is said before what the file could not say.
    let mut proto = model(graph, labels)?;
    let inputs = graph.inputs().iter().map(|&id| (graph.value(id).name.as_str(), id));
    for (name, id) in inputs.chain(graph.outputs()) {
        if graph.value(id).dims.is_none() {
            let message =
                format!("the number of dimensions of '{name}' is not known, which an ONNX file has to say");
            return Err(Error::unsupported(message));
        }
    }
    let data = match weights {
        Weights::Beside(name) => Some(externalise(&mut proto, name)),
        Weights::BesideWhenLarge(name) => {
            (proto.encoded_len() > MAX_MESSAGE_BYTES).then(|| externalise(&mut proto, name))
        }
    };
    let n_bytes = proto.encoded_len();
    if n_bytes > MAX_MESSAGE_BYTES {
        let message = format!("the model takes {n_bytes} bytes without its weights, expected less than 2 GB");
        return Err(Error::too_large(message));
    }
    let data = data.filter(|data| data.n_bytes() > 0);
    Ok(Written { model: proto.encode_to_vec().into(), data })
}

/// A graph as an ONNX message; the elements of constants are shared with the graph. Inputs keep the names of their
/// values and outputs the names that the graph has for them, unless two would be the same. An input or output of which
/// not even the number of dimensions is known has no shape; engines take that.
///
/// # Errors
/// [`crate::ErrorKind::Unsupported`] when operators are used that ONNX has no form for; all are listed.
pub fn model(graph: &Graph, labels: &Labels<'_>) -> Result<ModelProto, Error> {
    let lowered = lowered(graph);
    let graph = lowered.as_ref().unwrap_or(graph);
    refuse_host_operations(graph)?;
    let mut writer = Writer::new(graph);
    let name = if labels.graph_name.is_empty() { "graph" } else { labels.graph_name };
    let written = writer.root(name)?;
    let import = |domain: &str, version| OperatorSetIdProto {
        domain: Some(domain.to_owned()),
        version: Some(version),
    };
    let mut opset_import = vec![import("", version_for(graph))];
    if writer.has_tables {
        opset_import.push(import(table::DOMAIN, table::VERSION));
    }
    let metadata_props = labels.metadata.iter().map(|&(key, value)| StringStringEntryProto {
        key: Some(key.to_owned()),
        value: Some(value.to_owned()),
    });
    Ok(ModelProto {
        ir_version: Some(IR_VERSION),
        opset_import,
        producer_name: Some("salver".into()),
        producer_version: Some(labels.producer_version.to_owned()),
        graph: Some(written),
        metadata_props: metadata_props.collect(),
        ..ModelProto::default()
    })
}

/// The lowest version that has all operators. Nothing that graphs say changes its meaning from 18 to 20.
fn version_for(graph: &Graph) -> i64 {
    let mut version = OPSET;
    graph.body().visit(&mut |node| {
        let on_texts = || node.input(0).is_some_and(|id| graph.value(id).dtype == DType::String);
        if node.is("Gelu") {
            version = 20;
        } else if node.is("Equal") && on_texts() {
            version = version.max(19);
        }
    });
    version
}

/// Names every operator of ours that has no form in ONNX.
fn refuse_host_operations(graph: &Graph) -> Result<(), Error> {
    let mut found: BTreeMap<&str, (usize, &str)> = BTreeMap::new();
    graph.body().visit(&mut |node| {
        if node.domain == SALVER && !table::can_write(graph, node) {
            found.entry(&node.op).or_insert((0, &node.name)).0 += 1;
        }
    });
    if found.is_empty() {
        return Ok(());
    }
    let listed: Vec<_> =
        found.iter().map(|(op, (n, name))| format!("{op} ({n}, such as node '{name}')")).collect();
    let listed = listed.join(", ");
    Err(Error::unsupported(format!(
        "operators that need host operations, which ONNX has no form for: {listed}"
    )))
}

/// In which block a constant is defined.
#[derive(Clone, Copy, PartialEq)]
enum Home {
    Nowhere,
    /// Only this block uses it; blocks are counted in the order in which they are met.
    Block(usize),
    /// Several use it, so the outermost defines it.
    Outermost,
}

struct Writer<'a> {
    graph: &'a Graph,
    /// By value: the name in the file, once it has one.
    names: Vec<Option<String>>,
    taken: HashSet<String>,
    /// Names of nodes, which ONNX Runtime wants to be unique.
    nodes: HashMap<String, usize>,
    homes: Vec<Home>,
    used: Vec<bool>,
    n_blocks: usize,
    has_tables: bool,
}

impl<'a> Writer<'a> {
    fn new(graph: &'a Graph) -> Writer<'a> {
        let n = graph.values().len();
        let mut writer = Writer {
            graph,
            names: vec![None; n],
            taken: HashSet::new(),
            nodes: HashMap::new(),
            homes: vec![Home::Nowhere; n],
            used: vec![false; n],
            n_blocks: 0,
            has_tables: false,
        };
        writer.find_homes(graph.body());
        writer.n_blocks = 0;
        writer
    }

    fn find_homes(&mut self, block: &Block) {
        let number = self.n_blocks;
        self.n_blocks += 1;
        let graph = self.graph;
        let mut meet = |id: ValueId| {
            self.used[id.index()] = true;
            let home = &mut self.homes[id.index()];
            *home = match *home {
                _ if graph.value(id).constant.is_none() => Home::Nowhere,
                Home::Nowhere => Home::Block(number),
                Home::Block(other) if other == number => Home::Block(number),
                _ => Home::Outermost,
            };
        };
        block.nodes.iter().flat_map(Node::present_inputs).for_each(&mut meet);
        block.outputs.iter().copied().for_each(&mut meet);
        for (_, inner) in block.nodes.iter().flat_map(|node| &node.blocks) {
            self.find_homes(inner);
        }
    }

    /// A name that no value has yet, near the one wanted.
    fn unique(&mut self, wanted: &str) -> String {
        let wanted = if wanted.is_empty() { "value" } else { wanted };
        let mut name = wanted.to_owned();
        let mut n = 0;
        while !self.taken.insert(name.clone()) {
            n += 1;
            name = format!("{wanted}_{n}");
        }
        name
    }

    fn name(&mut self, id: ValueId) -> String {
        if let Some(name) = &self.names[id.index()] {
            return name.clone();
        }
        let name = self.unique(&self.graph.value(id).name);
        self.names[id.index()] = Some(name.clone());
        name
    }

    fn root(&mut self, name: &str) -> Result<GraphProto, Error> {
        let body = self.graph.body();
        for &id in &body.inputs {
            self.name(id);
        }
        let made: HashSet<ValueId> = body.nodes.iter().flat_map(|node| &node.outputs).copied().collect();
        let mut outputs = Vec::new();
        for (name, id) in self.graph.outputs() {
            let name = self.unique(name);
            if made.contains(&id) && self.names[id.index()].is_none() {
                self.names[id.index()] = Some(name.clone());
            }
            outputs.push((name, id));
        }
        self.block(name, body, Some(outputs))
    }

    /// Writes a block. Outputs get their own names by `Identity` where a value cannot have them.
    fn block(
        &mut self,
        name: &str,
        block: &Block,
        outputs: Option<Vec<(String, ValueId)>>,
    ) -> Result<GraphProto, Error> {
        let number = self.n_blocks;
        self.n_blocks += 1;
        let mut proto = GraphProto { name: Some(name.to_owned()), ..GraphProto::default() };
        proto.input = block.inputs.iter().map(|&id| self.info(id)).collect();
        for node in &block.nodes {
            let written = self.node(node)?;
            proto.node.push(written);
            for &id in node.outputs.iter().filter(|id| !block.outputs.contains(id)) {
                if self.used[id.index()] {
                    proto.value_info.push(self.info(id));
                }
            }
        }
        let made: HashSet<ValueId> = block.nodes.iter().flat_map(|node| &node.outputs).copied().collect();
        let outputs = outputs.unwrap_or_else(|| self.block_outputs(block, &made));
        for (name, id) in outputs {
            let own = self.name(id);
            if own != name {
                proto.node.push(identity(&own, &name));
            }
            proto.output.push(ValueInfoProto { name: Some(name), ..self.info(id) });
        }
        let is_here = |home: Home| home == Home::Block(number) || number == 0 && home == Home::Outermost;
        let here: Vec<_> = (0..self.homes.len()).filter(|&at| is_here(self.homes[at])).collect();
        for at in here {
            let id = ValueId::new(at)?;
            if let Some(tensor) = &self.graph.value(id).constant {
                let name = self.name(id);
                proto.initializer.push(TensorProto { name: Some(name), ..tensor_proto(tensor) });
            }
        }
        Ok(proto)
    }

    fn block_outputs(&mut self, block: &Block, made: &HashSet<ValueId>) -> Vec<(String, ValueId)> {
        let mut seen = HashSet::new();
        let mut outputs = Vec::with_capacity(block.outputs.len());
        for &id in &block.outputs {
            let own = self.name(id);
            let name = if made.contains(&id) && seen.insert(id) { own } else { self.unique(&own) };
            outputs.push((name, id));
        }
        outputs
    }

    fn node(&mut self, node: &Node) -> Result<NodeProto, Error> {
        let mut input: Vec<String> =
            node.inputs.iter().map(|id| id.map_or_else(String::new, |id| self.name(id))).collect();
        // A loop names its first two inputs even where it has neither limit nor condition.
        let n_needed = if node.is("Loop") { 2 } else { 0 };
        while input.len() > n_needed && input.last().is_some_and(String::is_empty) {
            input.pop();
        }
        let mut output: Vec<String> = node.outputs.iter().map(|&id| self.output_name(node, id)).collect();
        while output.len() > 1 && output.last().is_some_and(String::is_empty) {
            output.pop();
        }
        if node.domain == SALVER {
            self.has_tables = true;
            return table::write(self.graph, node, &input, output);
        }
        let mut attribute: Vec<AttributeProto> = node
            .attributes
            .iter()
            .map(|(name, value)| attribute_proto(name, value))
            .collect::<Result<_, _>>()?;
        for (key, inner) in &node.blocks {
            let graph = self.block(key, inner, None)?;
            attribute.push(AttributeProto { g: Some(graph), ..attribute_of(key, AttributeType::Graph) });
        }
        Ok(NodeProto {
            name: Some(self.node_name(&node.name)),
            op_type: Some(node.op.clone()),
            domain: Some(node.domain.clone()).filter(|domain| !domain.is_empty()),
            input,
            output,
            attribute,
            ..NodeProto::default()
        })
    }

    /// The node's name, with a number from the second of that name on.
    fn node_name(&mut self, name: &str) -> String {
        let mut candidate = name.to_owned();
        while self.nodes.contains_key(&candidate) {
            let n = self.nodes.entry(name.to_owned()).or_insert(0);
            *n += 1;
            candidate = format!("{name}_{n}");
        }
        self.nodes.insert(candidate.clone(), 0);
        candidate
    }

    /// Outputs that ONNX lets one leave out are left out when nothing uses them.
    fn output_name(&mut self, node: &Node, id: ValueId) -> String {
        let may_lack = matches!(
            node.op.as_str(),
            "GRU" | "LSTM" | "RNN" | "MaxPool" | "Dropout" | "BatchNormalization" | "LayerNormalization"
        );
        if may_lack && !self.used[id.index()] { String::new() } else { self.name(id) }
    }

    fn info(&mut self, id: ValueId) -> ValueInfoProto {
        let value = self.graph.value(id);
        let shape =
            value.dims.as_ref().map(|dims| TensorShapeProto { dim: dims.iter().map(dimension).collect() });
        let tensor = TensorType { elem_type: Some(elem_of(value.dtype)), shape };
        let r#type = TypeProto { value: Some(TypeValue::TensorType(tensor)), ..TypeProto::default() };
        ValueInfoProto { name: Some(self.name(id)), r#type: Some(r#type), ..ValueInfoProto::default() }
    }
}

fn identity(from: &str, to: &str) -> NodeProto {
    NodeProto {
        name: Some(to.to_owned()),
        op_type: Some("Identity".into()),
        input: vec![from.to_owned()],
        output: vec![to.to_owned()],
        ..NodeProto::default()
    }
}

fn dimension(dim: &Dim) -> Dimension {
    let value = match dim {
        Dim::Fixed(size) => i64::try_from(*size).ok().map(dimension::Value::DimValue),
        Dim::Symbol(name) => Some(dimension::Value::DimParam(name.to_string())),
        Dim::Unknown => None,
    };
    Dimension { value, ..Dimension::default() }
}

/// A tensor without a name; its elements are shared.
pub(super) fn tensor_proto(tensor: &Tensor) -> TensorProto {
    let dims = tensor.shape().dims().iter().map(|&dim| i64::try_from(dim).unwrap_or(i64::MAX));
    let mut proto = TensorProto {
        dims: dims.collect(),
        data_type: Some(elem_of(tensor.dtype())),
        ..TensorProto::default()
    };
    match tensor.strings() {
        Some(strings) => proto.string_data = strings.to_vec(),
        None => proto.raw_data = tensor.bytes().cloned(),
    }
    proto
}

pub(super) fn attribute_of(name: &str, r#type: AttributeType) -> AttributeProto {
    AttributeProto { name: Some(name.to_owned()), r#type: Some(r#type.into()), ..AttributeProto::default() }
}

pub(super) fn attribute_proto(name: &str, value: &Attribute) -> Result<AttributeProto, Error> {
    let of = |r#type| attribute_of(name, r#type);
    Ok(match value {
        Attribute::Int(i) => AttributeProto { i: Some(*i), ..of(AttributeType::Int) },
        Attribute::DType(dtype) => {
            AttributeProto { i: Some(elem_of(*dtype).into()), ..of(AttributeType::Int) }
        }
        Attribute::Float(f) => AttributeProto { f: Some(*f), ..of(AttributeType::Float) },
        Attribute::String(s) => {
            AttributeProto { s: Some(s.clone().into_bytes()), ..of(AttributeType::String) }
        }
        Attribute::Ints(ints) => AttributeProto { ints: ints.clone(), ..of(AttributeType::Ints) },
        Attribute::Floats(floats) => AttributeProto { floats: floats.clone(), ..of(AttributeType::Floats) },
        Attribute::Strings(strings) => {
            let strings = strings.iter().map(|s| s.clone().into_bytes()).collect();
            AttributeProto { strings, ..of(AttributeType::Strings) }
        }
        Attribute::Tensor(tensor) => {
            AttributeProto { t: Some(tensor_proto(tensor)), ..of(AttributeType::Tensor) }
        }
        _ => return Err(Error::invalid(format!("attribute '{name}' has no form in ONNX"))),
    })
}

#[cfg(test)]
mod tests {
    use salver_kernels::Attributes;
    use salver_tensor::Shape;

    use super::*;
    use crate::Builder;

    fn written(builder: Builder, outputs: &[(&str, ValueId)]) -> GraphProto {
        let graph = builder.finish(outputs).unwrap();
        model(&graph, &Labels::default()).unwrap().graph.unwrap()
    }

    fn names(infos: &[ValueInfoProto]) -> Vec<&str> {
        infos.iter().map(ValueInfoProto::name).collect()
    }

    fn ops(graph: &GraphProto) -> Vec<&str> {
        graph.node.iter().map(NodeProto::op_type).collect()
    }

    #[test]
    fn outputs_have_the_names_asked_for() {
        let mut b = Builder::new();
        let x = b.input("x", DType::F32, Some(vec![Dim::symbol("batch"), Dim::Fixed(2)]));
        let y = b.op("taken", "Relu", &[x], Attributes::new()).unwrap();
        let z = b.op("z", "Exp", &[y], Attributes::new()).unwrap();
        let c = b.f32(3.0);
        let graph = written(b, &[("taken", z), ("twice", z), ("input", x), ("constant", c), ("x", y)]);
        assert_eq!(names(&graph.output), ["taken", "twice", "input", "constant", "x_1"]);
        assert_eq!(ops(&graph), ["Relu", "Exp", "Identity", "Identity", "Identity"]);
        assert_eq!(graph.node[1].output, ["taken"]);
        let Some(TypeValue::TensorType(tensor)) = &graph.input[0].r#type.as_ref().unwrap().value else {
            panic!("not a tensor");
        };
        let dims: Vec<_> = tensor.shape.as_ref().unwrap().dim.iter().map(|dim| dim.value.clone()).collect();
        let expected = [dimension::Value::DimParam("batch".into()), dimension::Value::DimValue(2)];
        assert_eq!(dims, expected.map(Some));
    }

    #[test]
    fn constants_are_defined_where_they_are_used() {
        let mut b = Builder::new();
        let x = b.input("x", DType::F32, Some(vec![]));
        let flag = b.input("flag", DType::Bool, Some(vec![]));
        let (outer, inner, both) = (b.f32(1.0), b.f32(2.0), b.f32(3.0));
        let y = b.op("y", "Add", &[x, outer], Attributes::new()).unwrap();
        let y = b.op("y", "Add", &[y, both], Attributes::new()).unwrap();
        let mut branches = Vec::new();
        for key in ["then_branch", "else_branch"] {
            b.begin_block().unwrap();
            let constant = if key == "then_branch" { inner } else { both };
            let z = b.op("z", "Mul", &[y, constant], Attributes::new()).unwrap();
            branches.push((key, b.end_block(&[z])));
        }
        let z = b.with_blocks("if", "If", &[Some(flag)], Attributes::new(), branches, 1).unwrap()[0];
        let graph = written(b, &[("z", z)]);
        assert_eq!(graph.initializer.len(), 2);
        let branches: Vec<_> = graph.node[2].attribute.iter().map(|attr| attr.g.as_ref().unwrap()).collect();
        assert_eq!(branches.iter().map(|g| g.initializer.len()).collect::<Vec<_>>(), [1, 0]);
        assert_eq!(branches[0].node[0].input[0], graph.node[1].output[0]);
        assert_eq!(branches[0].node[0].input[1], branches[0].initializer[0].name());
    }

    #[test]
    fn tables_are_written_and_what_has_no_form_is_listed() {
        let texts = |list: &[&'static str]| {
            let elements = list.iter().map(|text| Bytes::from_static(text.as_bytes())).collect();
            Tensor::from_strings(Shape::vector(list.len()).unwrap(), elements).unwrap()
        };
        let mut b = Builder::new();
        let x = b.input("x", DType::String, Some(vec![Dim::Unknown]));
        let default = b.i64(-1);
        let ids = Tensor::from_vec(Shape::vector(2).unwrap(), vec![7i64, 8]).unwrap();
        let table = Attributes::new().with("keys", texts(&["a", "b"])).with("values", ids);
        let inputs = [Some(x), Some(default)];
        let y = b.ops("table", SALVER, "LookupTable", &inputs, table, 1).unwrap()[0];
        let graph = b.finish(&[("y", y)]).unwrap();
        let proto = model(&graph, &Labels::default()).unwrap();
        assert_eq!(proto.opset_import.len(), 2);
        let node = &proto.graph.unwrap().node[0];
        assert_eq!((node.op_type(), node.domain()), ("LabelEncoder", "ai.onnx.ml"));
        let keys: Vec<_> = node.attribute.iter().map(AttributeProto::name).collect();
        assert_eq!(keys, ["keys_strings", "values_int64s", "default_int64"]);

        let mut b = Builder::new();
        let x = b.input("x", DType::String, Some(vec![Dim::Unknown]));
        let lower = b.ops("low", SALVER, "StringLower", &[Some(x)], Attributes::new(), 1).unwrap()[0];
        let error = model(&b.finish(&[("y", lower)]).unwrap(), &Labels::default()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "operators that need host operations, which ONNX has no form for: StringLower (1, such as node 'low')"
        );
    }

    #[test]
    fn a_file_says_how_many_dimensions_there_are() {
        let mut b = Builder::new();
        let x = b.input("x", DType::F32, None);
        let y = b.op("y", "Relu", &[x], Attributes::new()).unwrap();
        let graph = b.finish(&[("y", y)]).unwrap();
        assert!(model(&graph, &Labels::default()).is_ok());
        let error = bytes(&graph, &Labels::default(), Weights::Beside("w")).unwrap_err().to_string();
        assert_eq!(error, "the number of dimensions of 'x' is not known, which an ONNX file has to say");
    }

    #[test]
    fn weights_go_beside_the_model_when_asked() {
        let mut b = Builder::new();
        let x = b.input("x", DType::F32, Some(vec![Dim::Fixed(1), Dim::Fixed(1500)]));
        let large = |value: f32| Tensor::from_vec(Shape::vector(1500).unwrap(), vec![value; 1500]).unwrap();
        let (one, two, small) = (b.constant("one", large(1.0)), b.constant("two", large(2.0)), b.f32(1.0));
        let mut y = x;
        for constant in [one, two, small] {
            y = b.op("y", "Add", &[y, constant], Attributes::new()).unwrap();
        }
        let graph = b.finish(&[("y", y)]).unwrap();
        let written = bytes(&graph, &Labels::default(), Weights::Beside("m.onnx.data")).unwrap();
        let data = written.data.unwrap();
        assert_eq!(data.n_bytes(), 8192 + 6000);
        assert_eq!(data.pieces().map(Bytes::len).sum::<usize>(), data.n_bytes());
        let proto = ModelProto::decode(written.model).unwrap().graph.unwrap();
        let offsets: Vec<_> = proto
            .initializer
            .iter()
            .map(|t| t.external_data.get(1).map_or("", |entry| entry.value()))
            .collect();
        assert_eq!(offsets, ["0", "8192", ""]);
        let inline = bytes(&graph, &Labels::default(), Weights::BesideWhenLarge("m.onnx.data")).unwrap();
        assert!(inline.data.is_none());
    }
}
