//! Divisions of whole numbers, which the library hands to the processor as they are. The least number divided by -1, and
//! in some versions anything divided by zero, then ends the process; so a file is changed before the library sees it:
//!
//! - In the outer graph such a divisor becomes 1, and an output is added that says where there was one ([`Watch`]), by
//!   which the run is refused.
//! - In the graphs of `If`, `Loop` and `Scan`, in functions, and where the element type cannot be told, a node is put
//!   before the division that fails in such a case ([`TRAP`]).
//!
//! Numbers of 8 and 16 bits and those without sign cannot overflow so. Operator sets before 9 lack what is needed:
//! divisions of whole numbers are refused there, unless by constants that divide all of them.

mod elems;

use std::collections::{HashMap, HashSet};

use salver_engine::Error;
use salver_graph::onnx::proto::attribute_proto::AttributeType;
use salver_graph::onnx::proto::tensor_proto::{DataLocation, DataType};
use salver_graph::onnx::proto::type_proto::{Tensor as TensorType, Value as Type};
use salver_graph::onnx::proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TypeProto,
    ValueInfoProto,
};
use salver_graph::onnx::{dtype_of, elem_of};
use salver_tensor::DType;

use crate::error::unsupported;
use elems::Elems;

/// The oldest operator set that has all that is added.
const MIN_OPSET: i64 = 9;

/// The element that is looked up, in a tensor of one, where the first division with a trap cannot be computed; those after
/// it have the following numbers. The library names the element and changes the names of nodes.
const TRAP: usize = 7_003_000_000_000;

/// Steps that looking for what outputs depend on takes at most. Beyond, each is taken to depend on all divisions.
const MAX_STEPS: usize = 50_000_000;

/// A division that is watched: the output that says where it cannot be computed, and the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Watch {
    pub(crate) output: String,
    pub(crate) place: String,
    /// The outputs of the model that depend on it; `None` for all.
    pub(crate) outputs: Option<HashSet<String>>,
}

/// What was done to a model.
#[derive(Debug, Default)]
pub(crate) struct Guarded {
    pub(crate) watches: Vec<Watch>,
    /// The places of divisions that have a trap.
    pub(crate) traps: Vec<String>,
    pub(crate) is_changed: bool,
}

/// The place of the division whose trap a message of the library is about.
pub(crate) fn trapped<'a>(message: &str, traps: &'a [String]) -> Option<&'a str> {
    let (_, rest) = message.rsplit_once("idx=")?;
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    traps.get(digits.parse::<usize>().ok()?.checked_sub(TRAP)?).map(String::as_str)
}

/// Guards all divisions of whole numbers by anything but constants that divide all of them.
///
/// # Errors
/// When there is one in an operator set that lacks what is needed.
pub(crate) fn guard(model: &mut ModelProto) -> Result<Guarded, Error> {
    let is_new = is_new_enough(&model.opset_import);
    let elems = Elems::of(model);
    let mut guards = Guards { elems, safe: HashSet::new(), n: 0, traps: Vec::new(), is_new };
    let Some(graph) = model.graph.as_mut() else { return Ok(Guarded::default()) };
    let n_outputs = graph.output.len();
    let mut watches = guards.outer(graph)?;
    depend(graph, n_outputs, &mut watches);
    for function in &mut model.functions {
        guards.is_new = function.opset_import.is_empty() || is_new_enough(&function.opset_import);
        guards.elems.enter_function(function);
        guards.safe = constants(&function.node, &[], &HashSet::new());
        guards.nodes(&mut function.node)?;
        guards.elems.leave();
    }
    Ok(Guarded { watches, traps: guards.traps, is_changed: guards.n > 0 })
}

fn is_own(domain: &str) -> bool {
    matches!(domain, "" | "ai.onnx")
}

fn is_new_enough(imports: &[OperatorSetIdProto]) -> bool {
    imports.iter().any(|import| is_own(import.domain()) && import.version() >= MIN_OPSET)
}

/// Names of constants that no division fails by. A value that may be given with a run is none.
fn constants(nodes: &[NodeProto], initial: &[TensorProto], given: &HashSet<String>) -> HashSet<String> {
    let initial = initial.iter().filter(|tensor| !given.contains(tensor.name()) && divides_all(tensor));
    let made = nodes.iter().filter(|node| node.op_type() == "Constant" && is_own(node.domain()));
    let made = made.filter(|node| node.attribute.iter().any(|attr| attr.t.as_ref().is_some_and(divides_all)));
    let made = made.filter_map(|node| node.output.first().cloned());
    initial.map(|tensor| tensor.name().to_owned()).chain(made).collect()
}

/// Where a node is, for people.
fn place_of(node: &NodeProto) -> String {
    let name = node.name.as_deref().filter(|name| !name.is_empty());
    let name = name.or_else(|| node.output.first().map(String::as_str)).unwrap_or_default();
    format!("node '{name}' ({})", node.op_type())
}

struct Guards {
    /// What is known of the values that the nodes at hand can take.
    elems: Elems,
    /// Constants among them that no division fails by.
    safe: HashSet<String>,
    /// Divisions guarded so far.
    n: usize,
    /// The places of those that have a trap.
    traps: Vec<String>,
    /// Whether the operator set has what is needed.
    is_new: bool,
}

impl Guards {
    /// The element type of a division that has to be guarded, 0 where that cannot be told.
    fn elem(&self, node: &NodeProto) -> Result<Option<i32>, Error> {
        let divides = is_own(node.domain()) && matches!(node.op_type(), "Div" | "Mod");
        let [dividend, divisor] = node.input.as_slice() else { return Ok(None) };
        if !divides || self.safe.contains(divisor) {
            return Ok(None);
        }
        let elem = self.elems.get(divisor).or_else(|| self.elems.get(dividend)).unwrap_or(0);
        let is_whole = matches!(dtype_of(elem), Some(DType::I32 | DType::I64));
        if is_whole && !self.is_new {
            let message = format!(
                "whole numbers are divided in an operator set before {MIN_OPSET}, which cannot be guarded; \
                 export the model for a newer one"
            );
            return Err(unsupported(message).at(place_of(node)));
        }
        Ok(Some(elem).filter(|_| is_whole || elem == 0 && self.is_new))
    }

    /// The outer graph and what is in it.
    fn outer(&mut self, graph: &mut GraphProto) -> Result<Vec<Watch>, Error> {
        self.elems.enter_graph(graph);
        let given = graph.input.iter().map(|info| info.name().to_owned()).collect();
        self.safe = constants(&graph.node, &graph.initializer, &given);
        let mut watches = Vec::new();
        for mut node in std::mem::take(&mut graph.node) {
            match self.elem(&node)? {
                Some(0) => self.trap(&mut graph.node, &mut node, 0),
                Some(elem) => watches.push(self.watch(graph, &mut node, elem)),
                None => self.inner(&mut node)?,
            }
            self.elems.after(&node);
            graph.node.push(node);
        }
        self.elems.leave();
        Ok(watches)
    }

    /// The nodes of an inner graph or a function.
    fn nodes(&mut self, nodes: &mut Vec<NodeProto>) -> Result<(), Error> {
        for mut node in std::mem::take(nodes) {
            match self.elem(&node)? {
                Some(elem) => self.trap(nodes, &mut node, elem),
                None => self.inner(&mut node)?,
            }
            self.elems.after(&node);
            nodes.push(node);
        }
        Ok(())
    }

    /// The graphs in a node. What decodes messages bounds how deep they nest.
    fn inner(&mut self, node: &mut NodeProto) -> Result<(), Error> {
        for graph in node.attribute.iter_mut().flat_map(|attr| attr.g.iter_mut().chain(&mut attr.graphs)) {
            self.elems.enter_graph(graph);
            let mut own = constants(&graph.node, &graph.initializer, &HashSet::new());
            own.retain(|name| self.safe.insert(name.clone()));
            self.nodes(&mut graph.node)?;
            for name in &own {
                self.safe.remove(name);
            }
            self.elems.leave();
        }
        Ok(())
    }

    /// Adds what watches a division and gives it another divisor.
    fn watch(&mut self, graph: &mut GraphProto, node: &mut NodeProto, elem: i32) -> Watch {
        let at = self.n;
        self.n += 1;
        let name = |what: &str| format!("salver/division_{at}/{what}");
        let least = if dtype_of(elem) == Some(DType::I32) { i64::from(i32::MIN) } else { i64::MIN };
        // Constants by nodes: in older files initial values have to be inputs, too.
        for (what, value) in [("zero", 0), ("one", 1), ("minus_one", -1), ("least", least)] {
            graph.node.push(constant(name(what), elem, &[], value));
        }
        let (dividend, divisor) = (node.input[0].clone(), node.input[1].clone());
        let mut add =
            |op: &str, inputs: &[&str], output: &str| graph.node.push(made(op, inputs, name(output)));
        add("Equal", &[&divisor, &name("zero")], "is_zero");
        add("Equal", &[&divisor, &name("minus_one")], "is_minus_one");
        add("Equal", &[&dividend, &name("least")], "is_least");
        add("And", &[&name("is_minus_one"), &name("is_least")], "overflows");
        add("Or", &[&name("is_zero"), &name("overflows")], "fails");
        add("Where", &[&name("fails"), &name("one"), &divisor], "divisor");
        node.input[1] = name("divisor");
        let bools = TensorType { elem_type: Some(elem_of(DType::Bool)), shape: None };
        let bools = TypeProto { value: Some(Type::TensorType(bools)), ..TypeProto::default() };
        graph.output.push(ValueInfoProto {
            name: Some(name("fails")),
            r#type: Some(bools),
            ..ValueInfoProto::default()
        });
        Watch { output: name("fails"), place: place_of(node), outputs: None }
    }

    /// Puts nodes before a division of which one fails where the division would: it looks for the second of one element.
    ///
    /// No number of the element type is needed for telling: only -1 and 0 squared are what they are negated, only the least
    /// number and 0 are their own negatives, and no float but 0 is. Without an element type a zero is let through.
    fn trap(&mut self, to: &mut Vec<NodeProto>, node: &mut NodeProto, elem: i32) {
        let at = self.n;
        self.n += 1;
        let name = |what: &str| format!("salver/division_{at}/{what}");
        let (dividend, divisor) = (node.input[0].clone(), node.input[1].clone());
        to.push(constant(name("one_element"), DataType::Int64.into(), &[1], 0));
        let mut add = |op: &str, inputs: &[&str], output: &str| to.push(made(op, inputs, name(output)));
        add("Mul", &[&divisor, &divisor], "square");
        add("Neg", &[&divisor], "negative");
        add("Equal", &[&name("square"), &name("negative")], "is_minus_one");
        add("Neg", &[&dividend], "negative_dividend");
        add("Equal", &[&dividend, &name("negative_dividend")], "is_least_or_zero");
        add("Sub", &[&dividend, &dividend], "zero_dividend");
        add("Equal", &[&dividend, &name("zero_dividend")], "is_nothing");
        add("Not", &[&name("is_nothing")], "is_something");
        add("And", &[&name("is_least_or_zero"), &name("is_something")], "is_least");
        add("And", &[&name("is_minus_one"), &name("is_least")], "overflows");
        let mut fails = "overflows";
        if elem != 0 {
            add("Sub", &[&divisor, &divisor], "zero");
            add("Equal", &[&divisor, &name("zero")], "is_zero");
            add("Or", &[&name("is_zero"), &name("overflows")], "fails");
            fails = "fails";
        }
        let int64 = i32::from(DataType::Int64);
        let element = i64::try_from(TRAP + self.traps.len()).unwrap_or(i64::MAX);
        to.push(constant(name("element"), int64, &[], element));
        to.push(cast(&name(fails), name("is_trapped"), DataType::Int64));
        to.push(made("Mul", &[&name("is_trapped"), &name("element")], name("index")));
        to.push(made("Gather", &[&name("one_element"), &name("index")], name("looked_up")));
        to.push(cast(&name("looked_up"), name("never"), DataType::Bool));
        to.push(made("Where", &[&name("never"), &divisor, &divisor], name("divisor")));
        node.input[1] = name("divisor");
        self.traps.push(place_of(node));
    }
}

fn made(op: &str, inputs: &[&str], output: String) -> NodeProto {
    NodeProto {
        op_type: Some(op.to_owned()),
        name: Some(output.clone()),
        input: inputs.iter().map(|&input| input.to_owned()).collect(),
        output: vec![output],
        ..NodeProto::default()
    }
}

fn cast(input: &str, output: String, to: DataType) -> NodeProto {
    let to = AttributeProto {
        name: Some("to".into()),
        r#type: Some(AttributeType::Int.into()),
        i: Some(i32::from(to).into()),
        ..AttributeProto::default()
    };
    NodeProto { attribute: vec![to], ..made("Cast", &[input], output) }
}

/// Says which of the model's own outputs each watched division has a part in. `graph` has the watches' outputs behind
/// those.
fn depend(graph: &GraphProto, n_outputs: usize, watches: &mut [Watch]) {
    if watches.is_empty() || n_outputs.saturating_mul(graph.node.len()) > MAX_STEPS {
        return;
    }
    let makers = graph.node.iter().enumerate();
    let makers: HashMap<&str, usize> =
        makers.flat_map(|(at, node)| node.output.iter().map(move |name| (name.as_str(), at))).collect();
    let takes: Vec<Vec<usize>> = graph.node.iter().map(|node| used(node, &makers)).collect();
    let of_watch: Vec<Option<usize>> =
        watches.iter().map(|watch| makers.get(watch.output.as_str()).copied()).collect();
    for output in &graph.output[..n_outputs] {
        let mut seen = vec![false; graph.node.len()];
        let mut queue: Vec<usize> = makers.get(output.name()).copied().into_iter().collect();
        while let Some(at) = queue.pop() {
            if !std::mem::replace(&mut seen[at], true) {
                queue.extend(&takes[at]);
            }
        }
        for (watch, at) in watches.iter_mut().zip(&of_watch) {
            let outputs = watch.outputs.get_or_insert_default();
            if at.is_some_and(|at| seen[at]) {
                outputs.insert(output.name().to_owned());
            }
        }
    }
}

/// The nodes whose results a node or the graphs in it take.
fn used(node: &NodeProto, makers: &HashMap<&str, usize>) -> Vec<usize> {
    let mut found: Vec<usize> =
        node.input.iter().filter_map(|name| makers.get(name.as_str()).copied()).collect();
    for graph in node.attribute.iter().flat_map(|attr| attr.g.iter().chain(&attr.graphs)) {
        graph.node.iter().for_each(|inner| found.extend(used(inner, makers)));
        found.extend(graph.output.iter().filter_map(|info| makers.get(info.name()).copied()));
    }
    found
}

fn divides_all(tensor: &TensorProto) -> bool {
    if tensor.data_location() == DataLocation::External {
        return false;
    }
    let raw = tensor.raw_data.as_deref().unwrap_or_default();
    let fits = |x: i64| x != 0 && x != -1;
    let longs = || raw.chunks(8).all(|x| x.try_into().is_ok_and(|x| fits(i64::from_le_bytes(x))));
    let ints = || raw.chunks(4).all(|x| x.try_into().is_ok_and(|x| fits(i64::from(i32::from_le_bytes(x)))));
    match dtype_of(tensor.data_type()) {
        Some(DType::I64) => tensor.int64_data.iter().all(|&x| fits(x)) && longs(),
        Some(DType::I32) => tensor.int32_data.iter().all(|&x| fits(i64::from(x))) && ints(),
        _ => false,
    }
}

/// A node that gives one number in a tensor of these dimensions.
fn constant(name: String, elem: i32, dims: &[i64], value: i64) -> NodeProto {
    let raw = match i32::try_from(value) {
        Ok(value) if dtype_of(elem) == Some(DType::I32) => value.to_le_bytes().to_vec(),
        _ => value.to_le_bytes().to_vec(),
    };
    let tensor = TensorProto {
        data_type: Some(elem),
        dims: dims.to_vec(),
        raw_data: Some(raw.into()),
        ..TensorProto::default()
    };
    let value = AttributeProto {
        name: Some("value".into()),
        r#type: Some(AttributeType::Tensor.into()),
        t: Some(tensor),
        ..AttributeProto::default()
    };
    NodeProto {
        op_type: Some("Constant".into()),
        name: Some(name.clone()),
        output: vec![name],
        attribute: vec![value],
        ..NodeProto::default()
    }
}

#[cfg(test)]
mod tests {
    use salver_graph::{Attributes, Builder, Dim, onnx};
    use salver_tensor::{Shape, Tensor};

    use super::*;

    #[test]
    fn divisions_that_may_fail_are_found() {
        let one_dim = || Some(vec![Dim::symbol("n")]);
        for (dtype, constant, expected) in [
            (DType::I64, None, 1),
            (DType::I32, None, 1),
            (DType::F32, None, 0),
            (DType::I64, Some(3i64), 0),
            (DType::I64, Some(0), 1),
            (DType::I64, Some(-1), 1),
        ] {
            let mut builder = Builder::new();
            let x = builder.input("x", dtype, one_dim());
            let by = match constant {
                Some(value) => {
                    builder.constant("by", Tensor::from_vec(Shape::new(&[1]).unwrap(), vec![value]).unwrap())
                }
                None => builder.input("d", dtype, one_dim()),
            };
            let y = builder.op("cut", "Div", &[x, by], Attributes::new()).unwrap();
            let graph = builder.finish(&[("y", y)]).unwrap();
            let mut model = onnx::model(&graph, &onnx::Labels::default()).unwrap();
            let watches = guard(&mut model).unwrap().watches;
            assert_eq!(watches.len(), expected, "{dtype} by {constant:?}");
            assert!(watches.iter().all(|watch| watch.place == "node 'cut' (Div)"), "{watches:?}");
            assert_eq!(model.graph.unwrap().output.len(), 1 + expected);
        }
    }
}
