//! Taking part of a graph out as a graph of its own.

use std::collections::HashMap;

use crate::ir::{Block, Graph, Node, ValueId};

impl Graph {
    /// The values that a node uses: its inputs, and what its blocks use of the blocks around them. Each once, in order
    /// of first use.
    pub fn used_by(&self, node: &Node) -> Vec<ValueId> {
        let mut found = Vec::new();
        let mut seen = vec![];
        uses(node, &mut seen, &mut found);
        found
    }

    /// Nodes of this graph as a graph of their own, with these values as inputs and outputs. Constants come along.
    /// The nodes must be in an order in which they can be computed, and use nothing else.
    pub fn extract(&self, nodes: &[Node], inputs: &[ValueId], outputs: &[(String, ValueId)]) -> Graph {
        let mut part = Part { from: self, to: Graph::default(), moved: HashMap::new() };
        let inputs = inputs.iter().map(|&id| part.value(id)).collect();
        let nodes = nodes.iter().map(|node| part.node(node)).collect();
        let values = outputs.iter().map(|(_, id)| part.value(*id)).collect();
        part.to.body = Block { inputs, nodes, outputs: values };
        part.to.output_names = outputs.iter().map(|(name, _)| name.clone()).collect();
        part.to
    }
}

/// Collects what a node uses from outside of it. `own` are the values that its blocks define.
fn uses(node: &Node, own: &mut Vec<ValueId>, found: &mut Vec<ValueId>) {
    let mut take = |id: ValueId, own: &[ValueId]| {
        if !own.contains(&id) && !found.contains(&id) {
            found.push(id);
        }
    };
    node.present_inputs().for_each(|id| take(id, own));
    for (_, block) in &node.blocks {
        let before = own.len();
        own.extend(&block.inputs);
        for inner in &block.nodes {
            uses(inner, own, found);
            own.extend(&inner.outputs);
        }
        for &id in &block.outputs {
            if !own.contains(&id) && !found.contains(&id) {
                found.push(id);
            }
        }
        own.truncate(before);
    }
}

/// A graph being made of part of another.
struct Part<'a> {
    from: &'a Graph,
    to: Graph,
    moved: HashMap<ValueId, ValueId>,
}

impl Part<'_> {
    fn value(&mut self, id: ValueId) -> ValueId {
        if let Some(&moved) = self.moved.get(&id) {
            return moved;
        }
        let moved = ValueId::new(self.to.values.len()).expect("no more values than in the whole graph");
        self.to.values.push(self.from.value(id).clone());
        self.moved.insert(id, moved);
        moved
    }

    fn block(&mut self, block: &Block) -> Block {
        Block {
            inputs: block.inputs.iter().map(|&id| self.value(id)).collect(),
            nodes: block.nodes.iter().map(|node| self.node(node)).collect(),
            outputs: block.outputs.iter().map(|&id| self.value(id)).collect(),
        }
    }

    fn node(&mut self, node: &Node) -> Node {
        Node {
            name: node.name.clone(),
            domain: node.domain.clone(),
            op: node.op.clone(),
            inputs: node.inputs.iter().map(|id| id.map(|id| self.value(id))).collect(),
            outputs: node.outputs.iter().map(|&id| self.value(id)).collect(),
            attributes: node.attributes.clone(),
            blocks: node.blocks.iter().map(|(key, block)| (key.clone(), self.block(block))).collect(),
        }
    }
}
