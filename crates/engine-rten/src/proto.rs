//! Reading and writing attributes of ONNX nodes.

use salver_graph::onnx::proto::attribute_proto::AttributeType;
use salver_graph::onnx::proto::{AttributeProto, GraphProto, NodeProto, TensorProto};

/// Deepest nesting of graphs in `If` and `Loop`.
pub(crate) const MAX_NESTING: usize = 16;

/// What a node says about itself, and ways to change it.
pub(crate) trait NodeExt {
    fn op(&self) -> &str;

    /// The operator as a person knows it: with its domain unless that is ONNX's own.
    fn full_op(&self) -> String;

    fn is_onnx(&self) -> bool;

    /// Where an error is: the node's name, or its first output when it has none.
    fn place(&self) -> String;

    fn attr(&self, name: &str) -> Option<&AttributeProto>;

    fn attr_int(&self, name: &str) -> Option<i64>;

    /// A list attribute; `None` also when it is empty.
    fn attr_ints(&self, name: &str) -> Option<&[i64]>;

    fn attr_str(&self, name: &str) -> Option<&str>;

    fn remove(&mut self, name: &str);

    fn set_ints(&mut self, name: &str, ints: Vec<i64>);

    fn set_int(&mut self, name: &str, value: i64);

    fn set_str(&mut self, name: &str, value: &str);

    fn set_tensor(&mut self, name: &str, tensor: TensorProto);

    /// A node of ONNX's own domain, named after its output.
    fn new(op: &str, inputs: &[&str], output: &str) -> Self
    where
        Self: Sized;
}

impl NodeExt for NodeProto {
    fn op(&self) -> &str {
        self.op_type.as_deref().unwrap_or_default()
    }

    fn full_op(&self) -> String {
        match self.domain() {
            "" | "ai.onnx" => self.op().to_owned(),
            domain => format!("{domain}.{}", self.op()),
        }
    }

    fn is_onnx(&self) -> bool {
        matches!(self.domain(), "" | "ai.onnx")
    }

    fn place(&self) -> String {
        let name = self.name.as_deref().filter(|name| !name.is_empty());
        let name = name.or_else(|| self.output.first().map(String::as_str)).unwrap_or_default();
        format!("node '{name}' ({})", self.full_op())
    }

    fn attr(&self, name: &str) -> Option<&AttributeProto> {
        self.attribute.iter().find(|attr| attr.name.as_deref() == Some(name))
    }

    fn attr_int(&self, name: &str) -> Option<i64> {
        self.attr(name).map(|attr| attr.i.unwrap_or_default())
    }

    fn attr_ints(&self, name: &str) -> Option<&[i64]> {
        self.attr(name).map(|attr| attr.ints.as_slice()).filter(|ints| !ints.is_empty())
    }

    fn attr_str(&self, name: &str) -> Option<&str> {
        self.attr(name).and_then(|attr| std::str::from_utf8(attr.s.as_deref()?).ok())
    }

    fn remove(&mut self, name: &str) {
        self.attribute.retain(|attr| attr.name.as_deref() != Some(name));
    }

    fn set_ints(&mut self, name: &str, ints: Vec<i64>) {
        self.remove(name);
        self.attribute.push(AttributeProto {
            name: Some(name.into()),
            r#type: Some(AttributeType::Ints.into()),
            ints,
            ..Default::default()
        });
    }

    fn set_int(&mut self, name: &str, value: i64) {
        self.remove(name);
        self.attribute.push(AttributeProto {
            name: Some(name.into()),
            r#type: Some(AttributeType::Int.into()),
            i: Some(value),
            ..Default::default()
        });
    }

    fn set_str(&mut self, name: &str, value: &str) {
        self.remove(name);
        self.attribute.push(AttributeProto {
            name: Some(name.into()),
            r#type: Some(AttributeType::String.into()),
            s: Some(value.into()),
            ..Default::default()
        });
    }

    fn set_tensor(&mut self, name: &str, tensor: TensorProto) {
        self.remove(name);
        self.attribute.push(AttributeProto {
            name: Some(name.into()),
            r#type: Some(AttributeType::Tensor.into()),
            t: Some(tensor),
            ..Default::default()
        });
    }

    fn new(op: &str, inputs: &[&str], output: &str) -> NodeProto {
        NodeProto {
            op_type: Some(op.into()),
            name: Some(output.into()),
            input: inputs.iter().map(|&input| input.to_owned()).collect(),
            output: vec![output.to_owned()],
            ..Default::default()
        }
    }
}

/// The graphs inside a node.
pub(crate) fn subgraphs(node: &NodeProto) -> impl Iterator<Item = &GraphProto> {
    node.attribute.iter().flat_map(|attr| attr.g.iter().chain(&attr.graphs))
}

/// As [`subgraphs`], to change them.
pub(crate) fn subgraphs_mut(node: &mut NodeProto) -> impl Iterator<Item = &mut GraphProto> {
    node.attribute.iter_mut().flat_map(|attr| attr.g.iter_mut().chain(&mut attr.graphs))
}
