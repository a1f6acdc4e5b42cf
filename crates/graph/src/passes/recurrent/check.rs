//! Comparing a step of the loop with a step of the cell on numbers, before one takes the place of the other.

use std::collections::{HashMap, HashSet};

use salver_kernels as kernels;
use salver_tensor::{Shape, Tensor};

use super::body::{Meaning, Reading};
use super::cell::{Cell, Kind};
use super::weights;
use crate::Error;
use crate::ir::{Node, ValueId};

/// Rows of the batch, and how often.
const BATCH: usize = 2;
const ROUNDS: u64 = 3;

/// How far a step of the loop and one of the cell may differ, relative to 1 and to the value.
const TOLERANCE: f32 = 1e-5;

/// Computes a step of the loop's body, operator by operator, and one of the cell for the same random states and inputs.
///
/// # Errors
/// When a step cannot be computed, or the results differ.
pub(super) fn check(
    reading: &Reading<'_>,
    cell: &Cell,
    widths: &[usize],
    numbers: &[usize],
) -> Result<(), Error> {
    let wanted: Vec<ValueId> = cell.states.iter().map(|&state| reading.carried[state].next).collect();
    let given: HashMap<ValueId, Role> = roles(reading, cell, numbers);
    let nodes = needed(reading, &given, &wanted);
    for round in 0..ROUNDS {
        let mut random = Random(round + 1);
        let mut tensors = Vec::new();
        for &width in widths {
            tensors.push(random.tensor(width)?);
        }
        for _ in &cell.states {
            tensors.push(random.tensor(cell.hidden)?);
        }
        let mut values = HashMap::new();
        for (&id, role) in &given {
            let tensor = match role {
                Role::Input(at) => &tensors[*at],
                Role::State(at) => &tensors[widths.len() + at],
            };
            values.insert(id, in_rank(reading, id, tensor)?);
        }
        let expected = step(reading, &nodes, values, &wanted)?;
        let (inputs, states) = tensors.split_at(widths.len());
        let got = cell_step(cell, widths, inputs, states)?;
        for (expected, got) in expected.iter().zip(&got) {
            compare(expected, got)?;
        }
    }
    Ok(())
}

/// What is given to a step.
#[derive(Clone, Copy)]
enum Role {
    Input(usize),
    State(usize),
}

fn roles(reading: &Reading<'_>, cell: &Cell, numbers: &[usize]) -> HashMap<ValueId, Role> {
    let reads = reading.reads.iter().filter_map(|(id, number)| {
        Some((*id, Role::Input(numbers.iter().position(|known| known == number)?)))
    });
    let states = cell.states.iter().enumerate();
    reads.chain(states.map(|(at, &state)| (reading.carried[state].now, Role::State(at)))).collect()
}

/// The nodes of the body that are needed, in order.
fn needed<'a>(reading: &Reading<'a>, given: &HashMap<ValueId, Role>, wanted: &[ValueId]) -> Vec<&'a Node> {
    let mut open: HashSet<ValueId> = wanted.iter().copied().collect();
    let mut nodes = Vec::new();
    for node in reading.body.nodes.iter().rev() {
        let is_known = |id: &ValueId| {
            given.contains_key(id) || matches!(reading.meanings.get(id), Some(Meaning::Constant(_)))
        };
        let computes = |id: &ValueId| open.contains(id) && !is_known(id);
        if node.outputs.iter().any(computes) {
            open.extend(node.present_inputs());
            nodes.push(node);
        }
    }
    nodes.reverse();
    nodes
}

fn step(
    reading: &Reading<'_>,
    nodes: &[&Node],
    mut values: HashMap<ValueId, Tensor>,
    wanted: &[ValueId],
) -> Result<Vec<Tensor>, Error> {
    let get = |values: &HashMap<ValueId, Tensor>, id: ValueId| {
        let known = || match reading.meaning(id) {
            Meaning::Constant(constant) => Some(constant),
            _ => None,
        };
        let value = values.get(&id).cloned().or_else(known);
        let name = &reading.graph.value(id).name;
        value.ok_or_else(|| {
            Error::unsupported(format!("a step cannot be checked: value '{name}' is not known"))
        })
    };
    for node in nodes {
        let mut inputs = Vec::with_capacity(node.inputs.len());
        for id in &node.inputs {
            inputs.push(id.map(|id| get(&values, id)).transpose()?);
        }
        let inputs: Vec<_> = inputs.iter().map(Option::as_ref).collect();
        let outputs = kernels::run(&node.domain, &node.op, &node.attributes, &inputs, node.outputs.len())
            .map_err(|error| Error::from(error).at(format!("node '{}'", node.name)))?;
        for (&id, output) in node.outputs.iter().zip(outputs) {
            values.entry(id).or_insert(output);
        }
    }
    wanted.iter().map(|&id| get(&values, id)).collect()
}

/// One step of the recurrent operator: the new states.
fn cell_step(
    cell: &Cell,
    widths: &[usize],
    inputs: &[Tensor],
    states: &[Tensor],
) -> Result<Vec<Tensor>, Error> {
    let width = widths.iter().sum();
    let mut x = Vec::with_capacity(BATCH * width);
    for row in 0..BATCH {
        for (input, width) in inputs.iter().zip(widths) {
            let elements = input.to_slice::<f32>().unwrap_or_default();
            x.extend_from_slice(&elements[row * width..(row + 1) * width]);
        }
    }
    let x = tensor(&[1, BATCH, width], x)?;
    let (w, r, b) = weights::tensors(cell, widths)?;
    let mut given = vec![Some(&x), Some(&w), Some(&r), b.as_ref(), None];
    let first: Result<Vec<Tensor>, Error> = states
        .iter()
        .map(|state| tensor(&[1, BATCH, cell.hidden], state.to_slice::<f32>().unwrap_or_default().to_vec()))
        .collect();
    let first = first?;
    given.extend(first.iter().map(Some));
    let n_outputs = if cell.kind == Kind::Lstm { 3 } else { 2 };
    let outputs = kernels::run("", cell.kind.op(), &weights::attributes(cell, false), &given, n_outputs)?;
    Ok(outputs.into_iter().skip(1).collect())
}

fn compare(expected: &Tensor, got: &Tensor) -> Result<(), Error> {
    let (Some(a), Some(b)) = (expected.to_slice::<f32>(), got.to_slice::<f32>()) else {
        return Err(Error::unsupported("a step of the cell is no float32"));
    };
    let agree = |(a, b): (&f32, &f32)| (a - b).abs() <= TOLERANCE * (1.0 + a.abs());
    match a.len() == b.len() && a.iter().zip(b.iter()).all(agree) {
        true => Ok(()),
        false => Err(Error::unsupported("a step of the cell gives other numbers than a step of the loop")),
    }
}

/// The tensor with dimensions of 1 before, when the value has more than two.
fn in_rank(reading: &Reading<'_>, id: ValueId, tensor: &Tensor) -> Result<Tensor, Error> {
    let rank = reading.graph.value(id).dims.as_ref().map_or(2, Vec::len);
    let mut dims = vec![1; rank.saturating_sub(2)];
    dims.extend_from_slice(tensor.shape().dims());
    let shape = Shape::new(&dims).map_err(|error| Error::too_large(error.to_string()))?;
    tensor.reshape(shape).map_err(|error| Error::invalid(error.to_string()))
}

fn tensor(dims: &[usize], elements: Vec<f32>) -> Result<Tensor, Error> {
    let shape = Shape::new(dims).map_err(|error| Error::too_large(error.to_string()))?;
    Tensor::from_vec(shape, elements).map_err(|error| Error::invalid(error.to_string()))
}

/// Numbers that are the same each time: a linear congruential generator, with the constants of Knuth's MMIX.
struct Random(u64);

impl Random {
    /// A number between -1 and 1.
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    fn tensor(&mut self, width: usize) -> Result<Tensor, Error> {
        tensor(&[BATCH, width], (0..BATCH * width).map(|_| self.next()).collect())
    }
}
