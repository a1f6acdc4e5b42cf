//! Whether a graph holds what passes and engines rely on.

use std::collections::HashSet;

use crate::infer::show;
use crate::ir::{Block, Dim, Graph, Node, Value, ValueId};
use crate::{Builder, Error, MAX_DEPTH};

/// Checks that every value is made once and before it is used, that blocks take and give what their nodes need, and
/// that inference finds the same element types and nothing against the dimensions. Takes time in proportion to the
/// graph.
///
/// # Errors
/// The first thing that does not hold, with its node.
pub fn verify(graph: &Graph) -> Result<(), Error> {
    let mut walk = Walk {
        graph,
        builder: Builder::resume(graph.values.clone()),
        made: vec![false; graph.values.len()],
        visible: vec![false; graph.values.len()],
        depth: 0,
    };
    if graph.output_names.len() != graph.body.outputs.len() {
        let (names, outputs) = (graph.output_names.len(), graph.body.outputs.len());
        return Err(Error::invalid(format!("{names} names of outputs for {outputs} outputs")));
    }
    for (at, value) in graph.values.iter().enumerate().filter(|(_, value)| value.constant.is_some()) {
        walk.visible[at] = true;
        constant(value).map_err(|error| error.at(format!("constant '{}'", value.name)))?;
    }
    walk.block(&graph.body)?;
    unique_names(graph, &walk.made)
}

fn constant(value: &Value) -> Result<(), Error> {
    let Some(tensor) = &value.constant else { return Ok(()) };
    let dims: Vec<Dim> = tensor.shape().dims().iter().copied().map(Dim::Fixed).collect();
    if tensor.dtype() != value.dtype || value.dims.as_ref() != Some(&dims) {
        let (dtype, shape) = (value.dtype, show(value.dims.as_deref()));
        let (own, own_shape) = (tensor.dtype(), tensor.shape());
        return Err(Error::invalid(format!("said to be {dtype}{shape}, but it is {own}{own_shape}")));
    }
    Ok(())
}

/// Names of values that are made; constants that nothing uses may linger.
fn unique_names(graph: &Graph, made: &[bool]) -> Result<(), Error> {
    let mut names = HashSet::new();
    for (value, _) in graph.values.iter().zip(made).filter(|(_, made)| **made) {
        if !names.insert(value.name.as_str()) {
            return Err(Error::invalid(format!("two values are called '{}'", value.name)));
        }
    }
    Ok(())
}

struct Walk<'a> {
    graph: &'a Graph,
    builder: Builder,
    made: Vec<bool>,
    visible: Vec<bool>,
    depth: usize,
}

impl Walk<'_> {
    fn name(&self, id: ValueId) -> String {
        self.graph
            .values
            .get(id.index())
            .map_or_else(|| format!("#{}", id.index()), |value| value.name.clone())
    }

    fn make(&mut self, id: ValueId) -> Result<(), Error> {
        let name = self.name(id);
        let Some(made) = self.made.get_mut(id.index()) else {
            return Err(Error::invalid(format!("there is no value {name}")));
        };
        if std::mem::replace(made, true) || self.graph.values[id.index()].constant.is_some() {
            return Err(Error::invalid(format!("value '{name}' is made twice")));
        }
        self.visible[id.index()] = true;
        Ok(())
    }

    fn see(&self, id: ValueId) -> Result<(), Error> {
        if self.visible.get(id.index()) == Some(&true) {
            return Ok(());
        }
        Err(Error::invalid(format!("value '{}' is used where it is not there", self.name(id))))
    }

    fn block(&mut self, block: &Block) -> Result<(), Error> {
        if self.depth > MAX_DEPTH {
            return Err(Error::too_large(format!("blocks nested more than {MAX_DEPTH} deep")));
        }
        self.depth += 1;
        block.inputs.iter().try_for_each(|&id| self.make(id))?;
        for node in &block.nodes {
            let place = || format!("{} node '{}'", node.full_op(), node.name);
            self.node(node).map_err(|error| error.at(place()))?;
        }
        block.outputs.iter().try_for_each(|&id| self.see(id))?;
        // What a block makes is not seen outside of it.
        for id in block.inputs.iter().chain(block.nodes.iter().flat_map(|node| &node.outputs)) {
            self.visible[id.index()] = false;
        }
        self.depth -= 1;
        Ok(())
    }

    fn node(&mut self, node: &Node) -> Result<(), Error> {
        node.present_inputs().try_for_each(|id| self.see(id))?;
        for (_, block) in &node.blocks {
            self.block(block)?;
        }
        node.outputs.iter().try_for_each(|&id| self.make(id))?;
        let outcomes = self.builder.infer(node, node.outputs.len())?;
        for (&id, outcome) in node.outputs.iter().zip(&outcomes) {
            let value = self.graph.value(id);
            if value.dtype != outcome.dtype {
                let (said, found) = (value.dtype, outcome.dtype);
                return Err(Error::invalid(format!(
                    "'{}' is said to be {said}, but it is {found}",
                    value.name
                )));
            }
            if !can_be_same(value.dims.as_deref(), outcome.dims.as_deref()) {
                let (said, found) = (show(value.dims.as_deref()), show(outcome.dims.as_deref()));
                return Err(Error::invalid(format!(
                    "'{}' is said to be {said}, but it is {found}",
                    value.name
                )));
            }
        }
        Ok(())
    }
}

/// Whether some shape fits both.
fn can_be_same(a: Option<&[Dim]>, b: Option<&[Dim]>) -> bool {
    let (Some(a), Some(b)) = (a, b) else { return true };
    let fits = |(a, b): (&Dim, &Dim)| a.fixed().is_none() || b.fixed().is_none() || a.fixed() == b.fixed();
    a.len() == b.len() && a.iter().zip(b).all(fits)
}

#[cfg(test)]
mod tests {
    use salver_kernels::Attributes;
    use salver_tensor::DType;

    use super::*;

    fn chain() -> Graph {
        let mut b = Builder::new();
        let x = b.input("x", DType::F32, Some(vec![Dim::symbol("batch"), Dim::Fixed(3)]));
        let y = b.op("first", "Relu", &[x], Attributes::new()).unwrap();
        let z = b.op("second", "Exp", &[y], Attributes::new()).unwrap();
        b.finish(&[("z", z)]).unwrap()
    }

    #[test]
    fn what_does_not_hold_is_named() {
        assert_eq!(verify(&chain()), Ok(()));
        type Break = fn(&mut Graph);
        let cases: [(Break, &str); 6] = [
            (|g| g.body.nodes.swap(0, 1), "Exp node 'second': value 'first' is used where it is not there"),
            (
                |g| {
                    let id = g.body.nodes[0].outputs[0];
                    g.values[id.index()].dtype = DType::F64;
                },
                "Relu node 'first': 'first' is said to be float64, but it is float32",
            ),
            (
                |g| {
                    let id = g.body.nodes[1].outputs[0];
                    g.values[id.index()].dims = Some(vec![Dim::Fixed(1), Dim::Fixed(4)]);
                },
                "Exp node 'second': 'second' is said to be [1,4], but it is [batch,3]",
            ),
            (
                |g| {
                    let again = g.body.nodes[0].clone();
                    g.body.nodes.push(again);
                },
                "Relu node 'first': value 'first' is made twice",
            ),
            (|g| g.output_names.clear(), "0 names of outputs for 1 outputs"),
            (
                |g| {
                    let x = g.body.inputs[0];
                    g.values[x.index()].name = "first".into();
                },
                "two values are called 'first'",
            ),
        ];
        for (change, expected) in cases {
            let mut graph = chain();
            change(&mut graph);
            assert_eq!(verify(&graph).unwrap_err().to_string(), expected);
        }
    }
}
