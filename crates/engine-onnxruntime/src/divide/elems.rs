//! Element types of values, as far as a file states them or they follow from those of nodes' inputs. The library refuses
//! a file that states others than follow.

use std::collections::HashMap;

use salver_graph::onnx::proto::tensor_proto::DataType;
use salver_graph::onnx::proto::type_proto::Value as Type;
use salver_graph::onnx::proto::{
    AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, TypeProto, ValueInfoProto,
};

/// Rounds in which types go through functions that call others. What is not settled then is not known.
const MAX_ROUNDS: usize = 16;

/// A function: where it is called, what goes in and comes out; 0 for what is not known or differs between calls.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Called {
    inputs: Vec<i32>,
    /// The inputs as this round finds them.
    found: Option<Vec<i32>>,
    outputs: Vec<i32>,
}

/// Element types by name in the graph at hand and those around it. Sequences have the type of their elements.
#[derive(Debug, Default)]
pub(super) struct Elems {
    known: HashMap<String, i32>,
    /// What was known of names before a graph was entered, for each graph entered.
    before: Vec<Vec<(String, Option<i32>)>>,
    functions: HashMap<(String, String), Called>,
}

fn key(domain: &str, name: &str) -> (String, String) {
    (domain.to_owned(), name.to_owned())
}

impl Elems {
    /// What is known before the graph is entered: what goes into functions and comes out of them.
    pub(super) fn of(model: &ModelProto) -> Elems {
        let mut elems = Elems::default();
        for function in &model.functions {
            elems.functions.insert(key(function.domain(), function.name()), Called::default());
        }
        if model.functions.is_empty() {
            return elems;
        }
        for _ in 0..MAX_ROUNDS {
            let before = elems.functions.clone();
            model.graph.iter().for_each(|graph| elems.graph(graph));
            for function in &model.functions {
                elems.enter_function(function);
                function.node.iter().for_each(|node| elems.look_into(node));
                let outputs = function.output.iter().map(|name| elems.get(name).unwrap_or(0)).collect();
                elems.leave();
                if let Some(called) = elems.functions.get_mut(&key(function.domain(), function.name())) {
                    called.outputs = outputs;
                }
            }
            for called in elems.functions.values_mut() {
                called.inputs = called.found.take().unwrap_or_default();
            }
            if elems.functions == before {
                return elems;
            }
        }
        elems.functions.values_mut().for_each(|called| *called = Called::default());
        elems
    }

    pub(super) fn get(&self, name: &str) -> Option<i32> {
        self.known.get(name).copied().filter(|&elem| elem != 0)
    }

    fn set(&mut self, name: &str, elem: i32) {
        let before = self.known.insert(name.to_owned(), elem);
        if let Some(last) = self.before.last_mut() {
            last.push((name.to_owned(), before));
        }
    }

    /// Takes up what a graph states, inside of what is known already.
    pub(super) fn enter_graph(&mut self, graph: &GraphProto) {
        self.before.push(Vec::new());
        // A name of its own hides one around it, also while nothing is known of it.
        graph.input.iter().for_each(|info| self.set(info.name(), 0));
        self.stated(&graph.output);
        self.stated(&graph.value_info);
        self.stated(&graph.input);
        graph.initializer.iter().for_each(|tensor| self.set(tensor.name(), tensor.data_type()));
    }

    /// Takes up what goes into a function wherever it is called.
    pub(super) fn enter_function(&mut self, function: &FunctionProto) {
        self.before.push(Vec::new());
        self.stated(&function.value_info);
        let called = self.functions.get(&key(function.domain(), function.name()));
        let inputs = called.map(|called| called.inputs.clone()).unwrap_or_default();
        for (at, name) in function.input.iter().enumerate() {
            self.set(name, inputs.get(at).copied().unwrap_or(0));
        }
    }

    /// Forgets what the graph or function entered last has.
    pub(super) fn leave(&mut self) {
        for (name, before) in self.before.pop().into_iter().flatten().rev() {
            match before {
                Some(elem) => drop(self.known.insert(name, elem)),
                None => drop(self.known.remove(&name)),
            }
        }
    }

    fn stated(&mut self, infos: &[ValueInfoProto]) {
        for info in infos {
            if let Some(elem) = info.r#type.as_ref().and_then(elem_in) {
                self.set(info.name(), elem);
            }
        }
    }

    fn graph(&mut self, graph: &GraphProto) {
        self.enter_graph(graph);
        graph.node.iter().for_each(|node| self.look_into(node));
        self.leave();
    }

    /// Takes up a node and the calls in it.
    fn look_into(&mut self, node: &NodeProto) {
        node.attribute
            .iter()
            .flat_map(|attr| attr.g.iter().chain(&attr.graphs))
            .for_each(|inner| self.graph(inner));
        let inputs: Vec<i32> = node.input.iter().map(|name| self.get(name).unwrap_or(0)).collect();
        if let Some(called) = self.functions.get_mut(&key(node.domain(), node.op_type())) {
            match &mut called.found {
                None => called.found = Some(inputs),
                Some(known) => {
                    known.truncate(inputs.len());
                    known.iter_mut().zip(&inputs).filter(|(a, b)| a != b).for_each(|(a, _)| *a = 0);
                }
            }
        }
        self.after(node);
    }

    /// Takes up what a node gives.
    pub(super) fn after(&mut self, node: &NodeProto) {
        let given = match self.functions.get(&key(node.domain(), node.op_type())) {
            Some(called) => called.outputs.clone(),
            None if super::is_own(node.domain()) => self.given(node),
            None => Vec::new(),
        };
        for (at, name) in node.output.iter().enumerate() {
            // What is stated is known better.
            if self.get(name).is_none() && !name.is_empty() {
                self.set(name, given.get(at).copied().unwrap_or(0));
            }
        }
    }

    /// The element types of what a node of ONNX's own domain gives, 0 for those that are not known. Most operators give
    /// what their first input has (<https://onnx.ai/onnx/operators/>).
    fn given(&self, node: &NodeProto) -> Vec<i32> {
        let input = |at: usize| node.input.get(at).and_then(|name| self.get(name)).unwrap_or(0);
        let int64 = i32::from(DataType::Int64);
        match node.op_type() {
            "Split" | "Loop" | "Scan" | "If" => self.given_many(node),
            "GRU" | "LSTM" | "RNN" => vec![input(0); 3],
            "TopK" | "MaxPool" => vec![input(0), int64],
            "Unique" => vec![input(0), int64, int64, int64],
            _ => vec![self.given_first(node)],
        }
    }

    fn given_many(&self, node: &NodeProto) -> Vec<i32> {
        let input = |at: usize| node.input.get(at).and_then(|name| self.get(name)).unwrap_or(0);
        if node.op_type() == "Split" {
            return vec![input(0); node.output.len()];
        }
        let of_body = |name: &str| -> Vec<i32> {
            let body = attribute(node, name).and_then(|attr| attr.g.as_ref());
            let outputs = body.map(|body| body.output.as_slice()).unwrap_or_default();
            outputs.iter().map(|info| info.r#type.as_ref().and_then(elem_in).unwrap_or(0)).collect()
        };
        match node.op_type() {
            "If" => of_body("then_branch"),
            // The first says whether to go on.
            "Loop" => of_body("body").into_iter().skip(1).collect(),
            _ => of_body("body"),
        }
    }

    fn given_first(&self, node: &NodeProto) -> i32 {
        let input = |at: usize| node.input.get(at).and_then(|name| self.get(name)).unwrap_or(0);
        let int = |name: &str| attribute(node, name).map(|attr| i32::try_from(attr.i()).unwrap_or(0));
        let of = |data: DataType| i32::from(data);
        match node.op_type() {
            "ArgMax" | "ArgMin" | "NonMaxSuppression" | "NonZero" | "SequenceLength" | "Shape" | "Size" => {
                of(DataType::Int64)
            }
            "And" | "Equal" | "Greater" | "GreaterOrEqual" | "IsInf" | "IsNaN" | "Less" | "LessOrEqual"
            | "Not" | "OptionalHasElement" | "Or" | "RegexFullMatch" | "Xor" => of(DataType::Bool),
            "BitCast" | "Cast" => int("to").unwrap_or(0),
            "CastLike" | "Where" => input(1),
            "Constant" => constant(node),
            "ConstantOfShape" => attribute(node, "value")
                .map_or(of(DataType::Float), |attr| attr.t.as_ref().map_or(0, |tensor| tensor.data_type())),
            "RandomNormal" | "RandomUniform" | "SequenceEmpty" => int("dtype").unwrap_or(of(DataType::Float)),
            "Bernoulli" | "EyeLike" | "RandomNormalLike" | "RandomUniformLike" => {
                int("dtype").unwrap_or_else(|| input(0))
            }
            "Multinomial" => int("dtype").unwrap_or(of(DataType::Int32)),
            "BlackmanWindow" | "HammingWindow" | "HannWindow" | "MelWeightMatrix" => {
                int("output_datatype").unwrap_or(of(DataType::Float))
            }
            "OneHot" => input(2),
            "ConvInteger" | "MatMulInteger" => of(DataType::Int32),
            "TfIdfVectorizer" => of(DataType::Float),
            "DequantizeLinear" => int("output_dtype").filter(|&elem| elem != 0).unwrap_or_else(|| input(1)),
            "DynamicQuantizeLinear" | "ImageDecoder" => of(DataType::Uint8),
            "QLinearConv" | "QLinearMatMul" => input(7),
            "QuantizeLinear" => input(2),
            _ => input(0),
        }
    }
}

fn attribute<'a>(node: &'a NodeProto, name: &str) -> Option<&'a AttributeProto> {
    node.attribute.iter().find(|attr| attr.name() == name)
}

fn constant(node: &NodeProto) -> i32 {
    let [attr] = node.attribute.as_slice() else { return 0 };
    match attr.name() {
        "value" => attr.t.as_ref().map_or(0, |tensor| tensor.data_type()),
        "value_float" | "value_floats" => DataType::Float.into(),
        "value_int" | "value_ints" => DataType::Int64.into(),
        "value_string" | "value_strings" => DataType::String.into(),
        _ => 0,
    }
}

/// The element type of a tensor, or of the tensors of a sequence or an optional value.
fn elem_in(r#type: &TypeProto) -> Option<i32> {
    match r#type.value.as_ref()? {
        Type::TensorType(tensor) => Some(tensor.elem_type()),
        Type::SequenceType(list) => elem_in(list.elem_type.as_deref()?),
        Type::OptionalType(inner) => elem_in(inner.elem_type.as_deref()?),
        _ => None,
    }
}
