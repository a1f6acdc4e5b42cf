//! Recurrent layers: one ONNX node where ONNX has it, a loop over steps where it has not.

mod node;
mod steps;
mod wrappers;

use salver_graph::{Dim, Error, ValueId};
use salver_tensor::Shape;

use crate::architecture::Layer;
use crate::config::Config;
use crate::emit::{Emit, Kept};
use crate::layers::cells::Cell;
use crate::layers::conv;
use crate::network::{Inputs, Value};
use crate::weights::Weights;

use node::{Node, single};
use steps::looped;
pub(super) use wrappers::{bidirectional, directions, time_distributed};

/// Numbers that one state may have.
const MAX_STATE: usize = 1 << 26;

/// What a recurrent layer is asked for.
struct Options {
    return_sequences: bool,
    return_state: bool,
    backwards: bool,
    zero_masked: bool,
    stateful: bool,
}

impl Options {
    fn read(c: &Config) -> Result<Options, Error> {
        if c.flag("time_major", false)? {
            return Err(Error::unsupported("time_major"));
        }
        if c.flag("__cudnn", false)? {
            return Err(Error::unsupported(
                "a CuDNN layer, whose weights lie in cuDNN's order: load and save the model with Keras 2.3 or newer, which \
                 changes it to GRU or LSTM",
            ));
        }
        Ok(Options {
            return_sequences: c.flag("return_sequences", false)?,
            return_state: c.flag("return_state", false)?,
            backwards: c.flag("go_backwards", false)?,
            zero_masked: c.flag("zero_output_for_mask", false)?,
            stateful: c.flag("stateful", false)?,
        })
    }
}

/// What running over a sequence gives.
struct Ran {
    /// All outputs, steps in the order in which they ran.
    sequence: Option<ValueId>,
    last: ValueId,
    states: Vec<ValueId>,
}

pub(super) fn call(
    cx: &mut Emit,
    layer: &Layer,
    weights: &Weights,
    inputs: &Inputs,
) -> Result<Vec<Value>, Error> {
    let options = Options::read(&layer.config)?;
    let (x, states, mask) = arguments(inputs)?;
    let ran = run(cx, layer, weights, &options, x, states.as_deref(), mask)?;
    let output = match ran.sequence {
        Some(sequence) if options.return_sequences => Value { id: sequence, mask },
        _ => Value::from(ran.last),
    };
    let mut values = vec![output];
    if options.return_state {
        values.extend(ran.states.into_iter().map(Value::from));
    }
    Ok(values)
}

/// Sequence, initial states, mask.
type Arguments = (ValueId, Option<Vec<ValueId>>, Option<ValueId>);

/// The arguments of a call. Keras 2 gives states in a list with the sequence.
fn arguments(inputs: &Inputs) -> Result<Arguments, Error> {
    let first = inputs.values();
    let x = first.first().ok_or_else(|| Error::invalid("called without a sequence"))?;
    let mut states: Vec<ValueId> = first[1..].iter().map(|value| value.id).collect();
    if inputs.kwarg("constants").is_some() {
        return Err(Error::unsupported("constants of a recurrent layer"));
    }
    if let Some(given) = inputs.arg(1, "initial_state") {
        states.extend(given.tensors().iter().map(|value| value.id));
    }
    Ok((x.id, (!states.is_empty()).then_some(states), inputs.mask()))
}

fn run(
    cx: &mut Emit,
    layer: &Layer,
    weights: &Weights,
    options: &Options,
    x: ValueId,
    states: Option<&[ValueId]>,
    mask: Option<ValueId>,
) -> Result<Ran, Error> {
    let convolutional = layer.class.starts_with("ConvLSTM");
    let cell = if convolutional {
        conv::lstm_cell(cx, layer, weights.child("cell")?, x)?
    } else {
        cx.expect_rank(x, 3)?;
        let n_inputs = cx.last_dim(x)?;
        Cell::of_layer(cx, layer, weights, n_inputs)?
    };
    let x = cx.float(x, layer.policy.compute)?;
    let n_states = cell.state_dims().len();
    if let Some(states) = states
        && states.len() != n_states
    {
        return Err(Error::invalid(format!(
            "called with {} initial states, expected {n_states}",
            states.len()
        )));
    }
    let kept = if options.stateful && states.is_none() { Some(kept_states(cx, &cell, x)?) } else { None };
    let before: Option<Vec<ValueId>> =
        kept.as_ref().map(|kept| kept.iter().map(|&at| cx.kept[at].after).collect());
    let states = before.as_deref().or(states);
    let node = if mask.is_none() { Node::of(cx.keras, &cell) } else { None };
    let ran = match node {
        Some(node) => single(cx, &node, options, x, states)?,
        None => looped(cx, &cell, options, x, states, mask)?,
    };
    for (at, &after) in kept.iter().flatten().zip(&ran.states) {
        cx.kept[*at].after = after;
    }
    Ok(ran)
}

/// The states that a layer keeps, by their positions; the same ones when it is called again.
fn kept_states(cx: &mut Emit, cell: &Cell, x: ValueId) -> Result<Vec<usize>, Error> {
    let batch = cx.dims(x)?.first().copied().flatten();
    let batch = batch.ok_or_else(|| Error::invalid("stateful, which needs a batch of a fixed size"))?;
    let place = cx.place();
    let mut positions = Vec::new();
    for (n, dims) in cell.state_dims().into_iter().enumerate() {
        let name = format!("{place}/state_{n}");
        if let Some(at) = cx.kept.iter().position(|kept| kept.name == name) {
            positions.push(at);
            continue;
        }
        let dims: Option<Vec<usize>> = std::iter::once(Some(batch)).chain(dims).collect();
        let dims =
            dims.ok_or_else(|| Error::unsupported("a state over pictures of a size that is not known"))?;
        let zeros = {
            let n = Shape::new(&dims).map_err(|error| Error::too_large(error.to_string()))?.n_elements();
            if n > MAX_STATE {
                return Err(Error::too_large(format!(
                    "a state of {n} numbers, expected at most {MAX_STATE}"
                )));
            }
            let zeros = cx.floats("zeros", &dims, vec![0.0; n], cx.dtype(x))?;
            cx.b.constant_of(zeros).cloned().ok_or_else(|| Error::invalid("zeros are no constant"))?
        };
        if cx.b.depth() > 0 {
            return Err(Error::unsupported("stateful inside of a loop"));
        }
        let known = dims.into_iter().map(Dim::Fixed).collect();
        let before = cx.b.input(&name, cx.dtype(x), Some(known));
        positions.push(cx.kept.len());
        cx.kept.push(Kept { name, initial: zeros, before, after: before });
    }
    Ok(positions)
}
