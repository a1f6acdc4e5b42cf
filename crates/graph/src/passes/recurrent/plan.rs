//! Deciding what takes the place of a loop: which cells, what they read, and what becomes of the loop's outputs.

use std::collections::{HashMap, HashSet};

use salver_tensor::Tensor;

use super::body::{Input, Meaning, Reading, Source};
use super::cell::{self, Cell, Next};
use super::constants::{is_zero, uniform};
use super::counts::{Count, Counts, length};
use super::outputs::{Output, Outputs};
use super::{check, weights};
use crate::Error;
use crate::ir::{Block, Dim, Graph, Node, ValueId};
use salver_kernels::Attributes;

/// Loop variables that are looked at.
const MAX_STATES: usize = 64;

/// Cells that one loop may step through.
const MAX_CELLS: usize = 16;

/// One recurrent node.
#[derive(Debug)]
pub(super) struct Layer {
    pub(super) op: &'static str,
    pub(super) attributes: Attributes,
    pub(super) w: Tensor,
    pub(super) r: Tensor,
    pub(super) b: Option<Tensor>,
    /// What the sequence is made of, side by side.
    pub(super) sources: Vec<Source>,
    /// The initial state and cell state `[batch, hidden]`, unless they are 0.
    pub(super) initial: Vec<Option<ValueId>>,
}

/// What takes the place of a loop.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) steps: ValueId,
    pub(super) layers: Vec<Layer>,
    /// Sequences that may be longer than the loop: only so many steps of them are read.
    pub(super) longer: HashSet<ValueId>,
    pub(super) outputs: Vec<(ValueId, Output)>,
    /// Picks of the last step from an output with all steps: the picking node's output, the layer, and whether a first
    /// dimension of 1 stays.
    pub(super) last_picks: Vec<(ValueId, Output)>,
}

/// A cell that was found.
pub(super) struct Found {
    pub(super) cell: Cell,
    /// Which row of its sequences iteration `i` reads.
    pub(super) at: Count,
    /// What it reads: the numbers of the step's inputs, and where these come from.
    numbers: Vec<usize>,
    sources: Vec<Source>,
    initial: Vec<ValueId>,
}

/// A loop's body with the cells that were found in it.
struct Read<'a> {
    found: Vec<Found>,
    reading: Reading<'a>,
    /// Why the other states are no cells.
    rest: Option<Error>,
}

/// The graph around a loop.
pub(super) struct Around<'a> {
    pub(super) graph: &'a Graph,
    pub(super) producers: &'a HashMap<ValueId, &'a Node>,
    pub(super) used: &'a HashSet<ValueId>,
    /// The nodes of the block that the loop is in.
    pub(super) siblings: &'a [Node],
}

/// Plans what takes the place of the loop.
///
/// # Errors
/// The reason why the loop must stay.
pub(super) fn plan(around: &Around<'_>, node: &Node) -> Result<Plan, Error> {
    let body = node.block("body").ok_or_else(|| Error::invalid("a loop without body"))?;
    let steps = steps(around.graph, node, body)?;
    let mut counts = Counts { graph: around.graph, producers: around.producers, known: HashMap::new() };
    let n_steps = counts.of(steps).filter(|count| count.fixed().is_some()).unwrap_or(Count::STEPS);
    counts.known.insert(steps, n_steps);
    let Read { found, reading, rest } = cells(&counts, node, body, n_steps)?;
    let mut plan = Plan {
        steps,
        layers: Vec::new(),
        longer: HashSet::new(),
        outputs: Vec::new(),
        last_picks: Vec::new(),
    };
    let outputs = Outputs { around, reading: &reading, found: &found, n_steps };
    for (at, &id) in node.outputs.iter().enumerate().filter(|(_, id)| around.used.contains(*id)) {
        let output = outputs.output(at).map_err(|error| rest.clone().unwrap_or(error))?;
        plan.outputs.push((id, output));
    }
    plan.last_picks = outputs.last_picks(&plan.outputs);
    for found in &found {
        plan.longer.extend(found.sources.iter().filter_map(|source| match source {
            Source::Sequence { id, axis } => {
                Some(*id).filter(|id| length(&reading.counts, *id, *axis) != Some(n_steps))
            }
            Source::Cell(_) => None,
        }));
        plan.layers.push(layer(&reading, found)?);
    }
    Ok(plan)
}

/// The number of steps, when the loop does just so many.
fn steps(graph: &Graph, node: &Node, body: &Block) -> Result<ValueId, Error> {
    let is_true = |id: ValueId| {
        let constant = graph.value(id).constant.as_ref().and_then(Tensor::bytes);
        constant.is_some_and(|bytes| bytes.iter().all(|&byte| byte == 1))
    };
    let stays = match (body.inputs.get(1), body.outputs.first()) {
        (Some(before), Some(after)) => before == after || is_true(*after),
        _ => false,
    };
    let starts = node.input(1).is_none_or(is_true);
    let steps = node.input(0).filter(|_| stays && starts);
    let endless = |id: &ValueId| {
        let limit = graph.value(*id).constant.as_ref().and_then(|limit| limit.to_slice::<i64>());
        limit.is_some_and(|limit| limit.contains(&i64::MAX))
    };
    let steps = steps.filter(|id| !endless(id));
    steps.ok_or_else(|| Error::unsupported("the number of its steps depends on a condition"))
}

/// Finds one cell after another; each may take what those before it give.
fn cells<'a>(counts: &Counts<'a>, node: &Node, body: &'a Block, n_steps: Count) -> Result<Read<'a>, Error> {
    let mut found: Vec<Found> = Vec::new();
    let mut bound: Vec<(ValueId, Input)> = Vec::new();
    loop {
        let mut reading = Reading::new(counts.clone(), node, body, &bound)?;
        if found.len() >= MAX_CELLS {
            return Err(Error::too_large("more cells than a loop may have"));
        }
        let taken: HashSet<usize> = found.iter().flat_map(|found| found.cell.states.clone()).collect();
        let next = match find(&mut reading, &taken, n_steps) {
            Ok(Some(next)) => next,
            Ok(None) => return Ok(Read { found, reading, rest: None }),
            Err(why) if found.is_empty() => return Err(why),
            Err(why) => return Ok(Read { found, reading, rest: Some(why) }),
        };
        check::check(&reading, &next.cell, &widths(&next), &next.numbers)?;
        let output = next.cell.states[0];
        let row = reading.row(reading.carried[output].next)?;
        let input = Input { source: Source::Cell(found.len()), at: next.at };
        let same = reading.meanings.iter().filter(|(_, meaning)| match meaning {
            Meaning::Row(other) => std::rc::Rc::ptr_eq(other, &row),
            _ => false,
        });
        bound.extend(same.map(|(id, _)| (*id, input)));
        found.push(next);
    }
}

/// One more cell; `None` when no state is left.
fn find(reading: &mut Reading<'_>, taken: &HashSet<usize>, n_steps: Count) -> Result<Option<Found>, Error> {
    let mut states = Vec::new();
    let mut why = None;
    for (number, carried) in reading.carried.iter().enumerate().filter(|(number, _)| !taken.contains(number))
    {
        let is_state = matches!(reading.meanings.get(&carried.now), Some(Meaning::Row(_)));
        if carried.now == carried.next || !is_state {
            continue;
        }
        match reading.row(carried.next) {
            Ok(row) => states.push(Next { number, row }),
            Err(error) => why = Some(error),
        }
    }
    states.truncate(MAX_STATES);
    for output in &states {
        for cell in states.iter().filter(|cell| cell.number != output.number) {
            match cell::pair(&mut reading.atoms, output, cell) {
                Ok(Some(cell)) => return placed(reading, cell, n_steps).map(Some),
                Ok(None) => {}
                Err(error) => why = Some(error),
            }
        }
    }
    for state in &states {
        match cell::single(&mut reading.atoms, state) {
            Ok(cell) => return placed(reading, cell, n_steps).map(Some),
            Err(error) => why = why.or(Some(error)),
        }
    }
    why.map_or(Ok(None), Err)
}

/// The cell with what it reads: all of it in one order.
fn placed(reading: &Reading<'_>, mut cell: Cell, n_steps: Count) -> Result<Found, Error> {
    let mut numbers: Vec<usize> =
        cell.gates.iter().flat_map(|gate| gate.inputs.iter().map(|(number, _)| *number)).collect();
    numbers.sort_unstable();
    numbers.dedup();
    let inputs: Vec<Input> = numbers.iter().map(|&number| reading.inputs[number]).collect();
    for gate in &mut cell.gates {
        for (number, _) in &mut gate.inputs {
            *number = numbers.binary_search(number).unwrap_or(0);
        }
    }
    let at = inputs.first().map_or(Count::ITERATION, |input| input.at);
    if inputs.iter().any(|input| input.at != at) {
        return Err(Error::unsupported("a step reads more than one place of its sequences"));
    }
    if at != Count::ITERATION && Some(at) != Count::from_the_end(n_steps) {
        return Err(Error::unsupported("the sequence is not read from one end to the other"));
    }
    let sources = inputs.into_iter().map(|input| input.source).collect();
    let initial = cell.states.iter().map(|&state| reading.carried[state].initial).collect();
    Ok(Found { cell, at, numbers, sources, initial })
}

fn layer(reading: &Reading<'_>, found: &Found) -> Result<Layer, Error> {
    let widths: Vec<usize> = widths(found);
    let (w, r, b) = weights::tensors(&found.cell, &widths)?;
    let mut initial = Vec::new();
    for &id in &found.initial {
        if uniform(&reading.counts, id, 32).is_some_and(|constant| is_zero(&constant)) {
            initial.push(None);
            continue;
        }
        let dims = reading.graph.value(id).dims.as_deref();
        match dims {
            Some([batch, _]) if *batch != Dim::Fixed(1) || is_single(reading, found) => {
                initial.push(Some(id))
            }
            _ => return Err(Error::unsupported("the initial state is not [batch, units]")),
        }
    }
    let is_reverse = found.at != Count::ITERATION;
    let attributes = weights::attributes(&found.cell, is_reverse);
    let (op, sources) = (found.cell.kind.op(), found.sources.clone());
    Ok(Layer { op, attributes, w, r, b, sources, initial })
}

/// The widths of what a cell reads.
fn widths(found: &Found) -> Vec<usize> {
    let width = |number: usize| {
        let gates = found.cell.gates.iter().flat_map(|gate| &gate.inputs);
        gates.filter(|(n, _)| *n == number).map(|(_, matrix)| matrix.n_rows).next()
    };
    (0..found.sources.len()).filter_map(width).collect()
}

/// Whether the batch is always of one row.
fn is_single(reading: &Reading<'_>, found: &Found) -> bool {
    found.sources.iter().all(|source| match source {
        Source::Sequence { id, axis } => {
            let dims = reading.graph.value(*id).dims.as_deref();
            dims.and_then(|dims| dims.get(usize::from(*axis == 0))) == Some(&Dim::Fixed(1))
        }
        Source::Cell(_) => false,
    })
}
