//! What recurrent cells compute in one step, node by node.

use std::collections::HashMap;

use salver_graph::{Error, ValueId};
use salver_tensor::DType;

use crate::activation::Activation;
use crate::architecture::{Keras, Layer, inner_layer};
use crate::attrs;
use crate::emit::Emit;
use crate::layers::{self, conv};
use crate::weights::{Slots, Weights};

/// A cell with its weights in the graph: what one step of a recurrent layer computes.
pub(super) enum Cell {
    Simple(Gates),
    Gru { gates: Gates, reset_after: bool, recurrent_bias: Option<ValueId> },
    Lstm(Gates),
    ConvLstm(Box<ConvLstm>),
    Stacked(Vec<Cell>),
}

/// An LSTM whose products are convolutions.
pub(super) struct ConvLstm {
    pub(super) gates: Gates,
    pub(super) convolution: conv::Spec,
    pub(super) recurrent: conv::Spec,
    /// Of the states, without the batch.
    pub(super) output_dims: Vec<Option<usize>>,
    /// Where the channels are.
    pub(super) axis: i64,
}

/// Weights and functions that all cells have.
pub(super) struct Gates {
    pub(super) units: usize,
    pub(super) kernel: ValueId,
    pub(super) recurrent: ValueId,
    pub(super) bias: Option<ValueId>,
    pub(super) activation: Activation,
    pub(super) gate: Activation,
}

/// The slots of a cell that is a list of cells.
pub(super) fn stacked_slots(keras: Keras, layer: &Layer) -> Result<Slots, Error> {
    let mut slots = Slots::of(layer);
    let mut counts = HashMap::new();
    for cell in stacked(keras, layer)? {
        let key = layers::numbered(&cell.class, &mut counts);
        let path = format!("cells/{key}");
        let child = layers::slots(keras, &cell)?;
        slots = slots.child(&key, &[&path], child);
    }
    Ok(slots)
}

fn stacked(keras: Keras, layer: &Layer) -> Result<Vec<Layer>, Error> {
    let cells = layer.config.json("cells").and_then(serde_json::Value::as_array);
    let cells = cells.ok_or_else(|| Error::invalid("StackedRNNCells without cells"))?;
    cells.iter().map(|cell| layers::listed(keras, cell)).collect()
}

impl Cell {
    /// The cell of a recurrent layer over sequences of `n_inputs` features.
    pub(super) fn of_layer(
        cx: &mut Emit,
        layer: &Layer,
        weights: &Weights,
        n_inputs: usize,
    ) -> Result<Cell, Error> {
        let dtype = layer.policy.compute;
        match layer.class.as_str() {
            "RNN" => {
                let cell = inner_layer(cx.keras, &layer.config, "cell")?;
                Cell::of_cell(cx, &cell, weights.child("cell")?, n_inputs, dtype)
            }
            _ => Cell::of_cell(cx, layer, weights.child("cell")?, n_inputs, dtype),
        }
    }

    fn of_cell(
        cx: &mut Emit,
        layer: &Layer,
        weights: &Weights,
        n_inputs: usize,
        dtype: DType,
    ) -> Result<Cell, Error> {
        let c = &layer.config;
        Ok(match layer.class.as_str() {
            "SimpleRNN" | "SimpleRNNCell" => Cell::Simple(gates(cx, layer, weights, n_inputs, 1, dtype)?),
            "LSTM" | "LSTMCell" => Cell::Lstm(gates(cx, layer, weights, n_inputs, 4, dtype)?),
            "GRU" | "GRUCell" => {
                let reset_after = c.flag("reset_after", true)?;
                let mut gates = gates(cx, layer, weights, n_inputs, 3, dtype)?;
                let mut recurrent_bias = None;
                if let Some(bias) = gates.bias.filter(|_| reset_after) {
                    let rows = cx.split(bias, 0, 2)?;
                    gates.bias = Some(cx.squeeze(rows[0], &[0])?);
                    recurrent_bias = Some(cx.squeeze(rows[1], &[0])?);
                }
                Cell::Gru { gates, reset_after, recurrent_bias }
            }
            "StackedRNNCells" => {
                let mut cells = Vec::new();
                let mut counts = HashMap::new();
                let mut n_inputs = n_inputs;
                for cell in stacked(cx.keras, layer)? {
                    let key = layers::numbered(&cell.class, &mut counts);
                    let made = Cell::of_cell(cx, &cell, weights.child(&key)?, n_inputs, dtype)
                        .map_err(|error| layers::at(&cell, error))?;
                    n_inputs = made.n_outputs();
                    cells.push(made);
                }
                Cell::Stacked(cells)
            }
            _ => return Err(layers::custom(layer)),
        })
    }

    /// The size of the last dimension of what a step gives.
    pub(super) fn n_outputs(&self) -> usize {
        match self {
            Cell::Simple(gates) | Cell::Lstm(gates) | Cell::Gru { gates, .. } => gates.units,
            Cell::ConvLstm(cell) => cell.gates.units,
            Cell::Stacked(cells) => cells.last().map_or(0, Cell::n_outputs),
        }
    }

    /// The dimensions of the states, without the batch. Those of cells inside follow each other.
    pub(super) fn state_dims(&self) -> Vec<Vec<Option<usize>>> {
        match self {
            Cell::Simple(gates) | Cell::Gru { gates, .. } => vec![vec![Some(gates.units)]],
            Cell::Lstm(gates) => vec![vec![Some(gates.units)]; 2],
            Cell::ConvLstm(cell) => vec![cell.output_dims.clone(); 2],
            Cell::Stacked(cells) => cells.iter().flat_map(Cell::state_dims).collect(),
        }
    }

    /// One step: the input of the step and the states to the output and the new states.
    pub(super) fn step(
        &self,
        cx: &mut Emit,
        x: ValueId,
        states: &[ValueId],
    ) -> Result<(ValueId, Vec<ValueId>), Error> {
        match self {
            Cell::Simple(gates) => {
                let h = cx.op("MatMul", &[x, gates.kernel])?;
                let h = with_bias(cx, h, gates.bias)?;
                let recurrent = cx.op("MatMul", &[states[0], gates.recurrent])?;
                let sum = cx.add(h, recurrent)?;
                let output = gates.activation.apply(cx, sum)?;
                Ok((output, vec![output]))
            }
            Cell::Gru { gates, reset_after, recurrent_bias } => {
                let h = gru(cx, gates, *reset_after, *recurrent_bias, x, states[0])?;
                Ok((h, vec![h]))
            }
            Cell::Lstm(gates) => {
                let z = cx.op("MatMul", &[x, gates.kernel])?;
                let recurrent = cx.op("MatMul", &[states[0], gates.recurrent])?;
                let z = cx.add(z, recurrent)?;
                let z = with_bias(cx, z, gates.bias)?;
                lstm(cx, gates, z, states[1], 1)
            }
            Cell::ConvLstm(cell) => {
                let z = cell.convolution.apply(cx, x, cell.gates.kernel)?;
                let z = with_bias(cx, z, cell.gates.bias)?;
                let r = cell.recurrent.apply(cx, states[0], cell.gates.recurrent)?;
                let z = cx.add(z, r)?;
                lstm(cx, &cell.gates, z, states[1], cell.axis)
            }
            Cell::Stacked(cells) => {
                let mut x = x;
                let mut new_states = Vec::new();
                let mut states = states;
                for cell in cells {
                    let (own, rest) = states.split_at(cell.state_dims().len());
                    let (output, mut new) = cell.step(cx, x, own)?;
                    new_states.append(&mut new);
                    (x, states) = (output, rest);
                }
                Ok((x, new_states))
            }
        }
    }
}

/// Reads a cell's options and weights. `n_gates` is how many kernels lie side by side.
fn gates(
    cx: &mut Emit,
    layer: &Layer,
    weights: &Weights,
    n_inputs: usize,
    n_gates: usize,
    dtype: DType,
) -> Result<Gates, Error> {
    let c = &layer.config;
    let units = c.size("units")?;
    let wide = units.saturating_mul(n_gates);
    let kernel = cx.weight(weights.get("kernel")?, "kernel", &[n_inputs, wide], dtype)?;
    let recurrent = cx.weight(weights.get("recurrent_kernel")?, "recurrent_kernel", &[units, wide], dtype)?;
    let bias = if c.flag("use_bias", true)? {
        let twice = layer.class.starts_with("GRU") && c.flag("reset_after", true)?;
        let variable = weights.get("bias")?;
        if twice && variable.tensor.shape().dims() == [2 * wide] {
            // cuDNN layers of Keras 2 store both biases in one row.
            let bias = cx.weight(variable, "bias", &[2 * wide], dtype)?;
            Some(cx.reshape(bias, &[2, wide as i64])?)
        } else {
            let dims: &[usize] = if twice { &[2, wide] } else { &[wide] };
            Some(cx.weight(variable, "bias", dims, dtype)?)
        }
    } else {
        None
    };
    // A cuDNN LSTM has two biases, which are only ever added up.
    let activation = Activation::read(cx.keras, c.json("activation"))?;
    let gate = Activation::read(cx.keras, c.json("recurrent_activation"))?;
    Ok(Gates { units, kernel, recurrent, bias, activation, gate })
}

fn with_bias(cx: &mut Emit, x: ValueId, bias: Option<ValueId>) -> Result<ValueId, Error> {
    bias.map_or(Ok(x), |bias| cx.add(x, bias))
}

fn gru(
    cx: &mut Emit,
    gates: &Gates,
    reset_after: bool,
    recurrent_bias: Option<ValueId>,
    x: ValueId,
    h: ValueId,
) -> Result<ValueId, Error> {
    let inner = cx.op("MatMul", &[x, gates.kernel])?;
    let inner = with_bias(cx, inner, gates.bias)?;
    let x_parts = cx.split(inner, -1, 3)?;
    let (z, r, candidate);
    if reset_after {
        let inner = cx.op("MatMul", &[h, gates.recurrent])?;
        let inner = with_bias(cx, inner, recurrent_bias)?;
        let h_parts = cx.split(inner, -1, 3)?;
        (z, r) = update_and_reset(cx, gates, &x_parts, &h_parts)?;
        let reset = cx.mul(r, h_parts[2])?;
        candidate = cx.add(x_parts[2], reset)?;
    } else {
        let kernels = cx.split(gates.recurrent, 1, 3)?;
        let h_parts = [cx.op("MatMul", &[h, kernels[0]])?, cx.op("MatMul", &[h, kernels[1]])?];
        (z, r) = update_and_reset(cx, gates, &x_parts, &h_parts)?;
        let reset = cx.mul(r, h)?;
        let recurrent = cx.op("MatMul", &[reset, kernels[2]])?;
        candidate = cx.add(x_parts[2], recurrent)?;
    }
    let candidate = gates.activation.apply(cx, candidate)?;
    let kept = cx.mul(z, h)?;
    let one = cx.scalar(1.0, z)?;
    let share = cx.sub(one, z)?;
    let new = cx.mul(share, candidate)?;
    cx.add(kept, new)
}

fn update_and_reset(
    cx: &mut Emit,
    gates: &Gates,
    x: &[ValueId],
    h: &[ValueId],
) -> Result<(ValueId, ValueId), Error> {
    let z = cx.add(x[0], h[0])?;
    let r = cx.add(x[1], h[1])?;
    Ok((gates.gate.apply(cx, z)?, gates.gate.apply(cx, r)?))
}

/// The gates `z` (input, forget, candidate, output along an axis) and the carried state to output and new states.
fn lstm(
    cx: &mut Emit,
    gates: &Gates,
    z: ValueId,
    carry: ValueId,
    axis: i64,
) -> Result<(ValueId, Vec<ValueId>), Error> {
    let parts = cx.ops("Split", &[Some(z)], attrs!("axis": axis, "num_outputs": 4), 4)?;
    let input = gates.gate.apply(cx, parts[0])?;
    let forget = gates.gate.apply(cx, parts[1])?;
    let candidate = gates.activation.apply(cx, parts[2])?;
    let output = gates.gate.apply(cx, parts[3])?;
    let kept = cx.mul(forget, carry)?;
    let new = cx.mul(input, candidate)?;
    let carry = cx.add(kept, new)?;
    let shown = gates.activation.apply(cx, carry)?;
    let h = cx.mul(output, shown)?;
    Ok((h, vec![h, carry]))
}
