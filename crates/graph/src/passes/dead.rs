//! Leaving out what no output needs.

use crate::ir::{Block, Graph, ValueId};

/// Takes out nodes of which no output is used. Operators have no side effects, so nothing else changes. Returns how
/// many nodes went.
pub(crate) fn dead_code(graph: &mut Graph) -> usize {
    let mut live = vec![false; graph.values.len()];
    sweep(&mut graph.body, &mut live)
}

fn sweep(block: &mut Block, live: &mut [bool]) -> usize {
    mark(&block.outputs, live);
    let mut n_gone = 0;
    // From the back: what uses a value comes after it, so each node is seen when all its uses are.
    for node in block.nodes.iter_mut().rev() {
        if node.outputs.iter().any(|id| live[id.index()]) {
            for (_, inner) in &mut node.blocks {
                n_gone += sweep(inner, live);
            }
            let inputs: Vec<_> = node.present_inputs().collect();
            mark(&inputs, live);
        }
    }
    let before = block.nodes.len();
    block.nodes.retain(|node| node.outputs.iter().any(|id| live[id.index()]));
    n_gone + before - block.nodes.len()
}

fn mark(ids: &[ValueId], live: &mut [bool]) {
    for id in ids {
        live[id.index()] = true;
    }
}
