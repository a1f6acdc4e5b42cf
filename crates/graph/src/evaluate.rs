//! What a graph means, node by node.

use std::collections::HashMap;

use salver_kernels as kernels;
use salver_tensor::{Shape, Tensor};

use crate::{Block, Error, Graph, Node, ValueId};

/// Iterations that an evaluated loop may take.
const MAX_ITERATIONS: u64 = 1 << 20;

/// Computes the outputs of a graph from its inputs, in the graph's order. This is the reference, not the fast way.
/// Blocks for as long as that takes.
///
/// # Errors
/// When the number of inputs is wrong, or a node cannot be computed.
pub fn evaluate(graph: &Graph, inputs: &[Tensor]) -> Result<Vec<Tensor>, Error> {
    let mut scope = Scope { graph, values: HashMap::new() };
    scope.block(&graph.body, inputs)
}

struct Scope<'a> {
    graph: &'a Graph,
    values: HashMap<ValueId, Tensor>,
}

impl Scope<'_> {
    fn get(&self, id: ValueId) -> Result<Tensor, Error> {
        let constant = || self.graph.value(id).constant.clone();
        let value = self.values.get(&id).cloned().or_else(constant);
        value.ok_or_else(|| {
            Error::invalid(format!("value '{}' is used before it is there", self.graph.value(id).name))
        })
    }

    fn block(&mut self, block: &Block, inputs: &[Tensor]) -> Result<Vec<Tensor>, Error> {
        if inputs.len() != block.inputs.len() {
            let (got, want) = (inputs.len(), block.inputs.len());
            return Err(Error::invalid(format!("{got} inputs, expected {want}")));
        }
        self.values.extend(block.inputs.iter().copied().zip(inputs.iter().cloned()));
        for node in &block.nodes {
            let place = || format!("{} node '{}'", node.full_op(), node.name);
            let outputs = self.node(node).map_err(|error| error.at(place()))?;
            self.values.extend(node.outputs.iter().copied().zip(outputs));
        }
        block.outputs.iter().map(|&id| self.get(id)).collect()
    }

    fn node(&mut self, node: &Node) -> Result<Vec<Tensor>, Error> {
        let mut inputs = Vec::with_capacity(node.inputs.len());
        for id in &node.inputs {
            inputs.push(id.map(|id| self.get(id)).transpose()?);
        }
        match node.op.as_str() {
            "If" if node.domain.is_empty() => {
                let condition = truth(inputs.first().and_then(Option::as_ref))?;
                let key = if condition { "then_branch" } else { "else_branch" };
                self.block(block(node, key)?, &[])
            }
            "Loop" if node.domain.is_empty() => self.run_loop(node, &inputs),
            _ => {
                let inputs: Vec<_> = inputs.iter().map(Option::as_ref).collect();
                let (domain, op) = (&node.domain, &node.op);
                Ok(kernels::run(domain, op, &node.attributes, &inputs, node.outputs.len())?)
            }
        }
    }

    fn run_loop(&mut self, node: &Node, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, Error> {
        let body = block(node, "body")?;
        let n_carried = inputs.len().saturating_sub(2);
        let limit = match inputs.first().and_then(Option::as_ref) {
            Some(limit) => u64::try_from(int(limit)?).unwrap_or(0),
            None => u64::MAX,
        };
        let mut go_on = inputs.get(1).and_then(Option::as_ref).map_or(Ok(true), |c| truth(Some(c)))?;
        let missing = || Error::invalid("a loop variable has no initial value");
        let mut carried: Vec<Tensor> =
            inputs.iter().skip(2).map(|v| v.clone().ok_or_else(missing)).collect::<Result<_, _>>()?;
        let mut scans: Vec<Vec<Tensor>> = vec![Vec::new(); body.outputs.len().saturating_sub(1 + n_carried)];
        let mut at = 0u64;
        while go_on && at < limit {
            if at >= MAX_ITERATIONS {
                return Err(Error::too_large(format!("a loop of more than {MAX_ITERATIONS} iterations")));
            }
            let mut given = vec![
                Tensor::from_vec(Shape::scalar(), vec![at as i64]).expect("one element"),
                Tensor::from_bools(Shape::scalar(), &[go_on]).expect("one element"),
            ];
            given.append(&mut carried);
            let mut results = self.block(body, &given)?.into_iter();
            go_on = truth(results.next().as_ref())?;
            carried.extend(results.by_ref().take(n_carried));
            for (scan, value) in scans.iter_mut().zip(results) {
                scan.push(value);
            }
            at += 1;
        }
        for (scan, id) in scans.into_iter().zip(&node.outputs[n_carried.min(node.outputs.len())..]) {
            carried.push(self.stack(&scan, *id)?);
        }
        Ok(carried)
    }

    /// Joins what the iterations gave along a new first axis.
    fn stack(&self, parts: &[Tensor], id: ValueId) -> Result<Tensor, Error> {
        let value = self.graph.value(id);
        let shape_error = |error: &dyn std::fmt::Display| Error::invalid(error.to_string());
        if parts.is_empty() {
            let dims = value.dims.iter().flatten().skip(1).map(|dim| dim.fixed().unwrap_or(0));
            let dims: Vec<usize> = std::iter::once(0).chain(dims).collect();
            let shape = Shape::new(&dims).map_err(|error| shape_error(&error))?;
            let made = match value.dtype.size() {
                None => Tensor::from_strings(shape, Vec::new()),
                Some(_) => Tensor::from_bytes(value.dtype, shape, bytes::Bytes::new()),
            };
            return made.map_err(|error| shape_error(&error));
        }
        let rows: Result<Vec<Tensor>, Error> = parts
            .iter()
            .map(|part| {
                let mut dims = vec![1];
                dims.extend_from_slice(part.shape().dims());
                let shape = Shape::new(&dims).map_err(|error| shape_error(&error))?;
                part.reshape(shape).map_err(|error| shape_error(&error))
            })
            .collect();
        Tensor::concat(&rows?).map_err(|error| shape_error(&error))
    }
}

fn block<'a>(node: &'a Node, key: &str) -> Result<&'a Block, Error> {
    node.block(key).ok_or_else(|| Error::invalid(format!("{} without {key}", node.op)))
}

fn truth(tensor: Option<&Tensor>) -> Result<bool, Error> {
    let byte = tensor.and_then(|tensor| tensor.bytes()).and_then(|bytes| bytes.first().copied());
    byte.map(|byte| byte != 0).ok_or_else(|| Error::invalid("a condition is not one bool"))
}

fn int(tensor: &Tensor) -> Result<i64, Error> {
    let ints = tensor.to_slice::<i64>().and_then(|ints| ints.first().copied());
    ints.ok_or_else(|| Error::invalid("a trip count is not one int64"))
}
