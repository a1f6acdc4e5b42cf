//! Turning a loop that is a recurrent layer into one node.
//!
//! TensorFlow and Keras write a recurrent layer as a loop over its steps, and each version writes the step in another
//! way: weights fused or apart, gates split or sliced, `z h + (1 - z) g` multiplied out or not. So the body's syntax is
//! not compared with anything. It is read as algebra: each value `[batch, width]` is an affine form, with constant
//! matrices, over the step's input, the states, activations and products. The new states then are those of an RNN, GRU
//! or LSTM or they are not. What is found is compared on random numbers with a step of the loop, and only then takes its
//! place; a loop that is not understood stays as it is, correct but slower.

mod atoms;
mod body;
mod cell;
mod check;
mod columns;
mod constants;
mod counts;
mod emit;
mod outputs;
mod plan;
mod row;
#[cfg(test)]
mod tests;
mod weights;

use std::collections::{HashMap, HashSet};

use crate::ir::{Block, Graph, Node, ValueId};
use emit::Emitter;
use plan::{Around, Plan};

/// Puts a `GRU`, `LSTM` or `RNN` in the place of each loop that is one. Returns how many loops were replaced.
pub(crate) fn recurrent(graph: &mut Graph) -> usize {
    let plans = plans(graph, &mut Vec::new());
    if plans.is_empty() {
        return 0;
    }
    let names = graph.values.iter().map(|value| value.name.clone()).collect();
    let mut body = std::mem::take(&mut graph.body);
    let mut rewriting = Rewriting { graph, plans, picks: HashMap::new(), names, n_replaced: 0 };
    rewriting.block(&mut body);
    let n_replaced = rewriting.n_replaced;
    graph.body = body;
    super::dead_code(graph);
    n_replaced
}

/// Each loop that cannot become a recurrent node, with the reason, for people who wonder why a model is slow.
pub fn loops_that_stay(graph: &Graph) -> Vec<String> {
    let mut notes = Vec::new();
    plans(graph, &mut notes);
    notes
}

/// What takes the place of each loop that can be replaced, by the loop's first output.
fn plans(graph: &Graph, notes: &mut Vec<String>) -> HashMap<ValueId, Plan> {
    let (mut producers, mut used) = (HashMap::new(), HashSet::new());
    let mut n_loops = 0;
    used.extend(graph.body.outputs.iter().copied());
    graph.body.visit(&mut |node| {
        n_loops += usize::from(node.is("Loop"));
        producers.extend(node.outputs.iter().map(|&id| (id, node)));
        used.extend(node.present_inputs());
        used.extend(node.blocks.iter().flat_map(|(_, block)| &block.outputs).copied());
    });
    let mut found = HashMap::new();
    if n_loops > 0 {
        search(graph, &graph.body, &producers, &used, &mut found, notes);
    }
    found
}

/// Recursion is bounded by [`crate::MAX_DEPTH`].
fn search<'a>(
    graph: &'a Graph,
    block: &'a Block,
    producers: &HashMap<ValueId, &'a Node>,
    used: &HashSet<ValueId>,
    found: &mut HashMap<ValueId, Plan>,
    notes: &mut Vec<String>,
) {
    for node in &block.nodes {
        if node.is("Loop") {
            let around = Around { graph, producers, used, siblings: &block.nodes };
            match (plan::plan(&around, node), node.outputs.first()) {
                (Ok(plan), Some(&id)) => {
                    found.insert(id, plan);
                    continue;
                }
                (Ok(_), None) => {}
                (Err(why), _) => notes.push(format!("loop '{}' stays a loop: {why}", node.name)),
            }
        }
        for (_, inner) in &node.blocks {
            search(graph, inner, producers, used, found, notes);
        }
    }
}

struct Rewriting<'a> {
    graph: &'a mut Graph,
    plans: HashMap<ValueId, Plan>,
    /// Nodes that take the place of others, by what they give.
    picks: HashMap<ValueId, Node>,
    names: HashSet<String>,
    n_replaced: usize,
}

impl Rewriting<'_> {
    fn block(&mut self, block: &mut Block) {
        for mut node in std::mem::take(&mut block.nodes) {
            let first = node.outputs.first().copied();
            if let Some(pick) = first.and_then(|id| self.picks.remove(&id)) {
                block.nodes.push(pick);
                continue;
            }
            match first.and_then(|id| self.plans.remove(&id)) {
                Some(plan) => self.replace(&plan, node, &mut block.nodes),
                None => {
                    node.blocks.iter_mut().for_each(|(_, inner)| self.block(inner));
                    block.nodes.push(node);
                }
            }
        }
    }

    fn replace(&mut self, plan: &Plan, node: Node, nodes: &mut Vec<Node>) {
        let (graph, names) = (&mut *self.graph, &mut self.names);
        let mut emitter = Emitter { graph, names, name: node.name.clone(), nodes: Vec::new() };
        match emitter.plan(plan) {
            Ok(picks) => {
                nodes.append(&mut emitter.nodes);
                self.picks.extend(picks);
                self.n_replaced += 1;
            }
            // A plan whose shapes do not fit after all: the loop says the same.
            Err(_) => nodes.push(node),
        }
    }
}
