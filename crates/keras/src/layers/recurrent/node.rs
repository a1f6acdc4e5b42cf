//! Recurrent cells that ONNX has as one operator.

use salver_graph::{Attributes, Error, ValueId};
use salver_tensor::DType;

use super::{Options, Ran};
use crate::activation::Activation;
use crate::architecture::Keras;
use crate::attrs;
use crate::emit::Emit;
use crate::layers::cells::{Cell, Gates};

/// A cell that ONNX has as an operator.
pub(super) struct Node<'a> {
    pub(super) op: &'static str,
    pub(super) gates: &'a Gates,
    /// Which of Keras' gates comes where in ONNX.
    pub(super) order: &'static [usize],
    pub(super) recurrent_bias: Option<ValueId>,
    pub(super) reset_after: bool,
    /// Name, alpha, beta, in the order of the operator.
    pub(super) activations: Vec<(&'static str, f32, f32)>,
}

impl<'a> Node<'a> {
    /// `None` where ONNX has no such cell or not with these functions.
    pub(super) fn of(keras: Keras, cell: &'a Cell) -> Option<Node<'a>> {
        let node = |op, gates: &'a Gates, order, functions: &[&Activation]| {
            let activations: Option<Vec<_>> =
                functions.iter().map(|function| function.recurrent(keras)).collect();
            Some(Node {
                op,
                gates,
                order,
                recurrent_bias: None,
                reset_after: false,
                activations: activations?,
            })
        };
        match cell {
            Cell::Simple(gates) => node("RNN", gates, &[0], &[&gates.activation]),
            Cell::Gru { gates, reset_after, recurrent_bias } => {
                let made = node("GRU", gates, &[0, 1, 2], &[&gates.gate, &gates.activation])?;
                Some(Node { recurrent_bias: *recurrent_bias, reset_after: *reset_after, ..made })
            }
            // Keras: input, forget, candidate, output. ONNX: input, output, forget, candidate.
            Cell::Lstm(gates) => {
                node("LSTM", gates, &[0, 3, 1, 2], &[&gates.gate, &gates.activation, &gates.activation])
            }
            Cell::ConvLstm(_) | Cell::Stacked(_) => None,
        }
    }

    /// A kernel `[inputs, gates * units]` as `[1, gates * units, inputs]`, gates in ONNX's order.
    pub(super) fn kernel(&self, cx: &mut Emit, kernel: ValueId) -> Result<ValueId, Error> {
        let ordered = self.reorder(cx, kernel, 1)?;
        let rows = cx.transpose(ordered, &[1, 0])?;
        cx.unsqueeze(rows, &[0])
    }

    fn reorder(&self, cx: &mut Emit, x: ValueId, axis: i64) -> Result<ValueId, Error> {
        if self.order.windows(2).all(|pair| pair[0] < pair[1]) {
            return Ok(x);
        }
        let parts = cx.split(x, axis, self.order.len())?;
        let parts: Vec<ValueId> = self.order.iter().map(|&at| parts[at]).collect();
        cx.concat(&parts, axis)
    }

    /// Both biases in a row, `[1, 2 * gates * units]`.
    pub(super) fn bias(&self, cx: &mut Emit) -> Result<Option<ValueId>, Error> {
        let Some(bias) = self.gates.bias else { return Ok(None) };
        let own = self.reorder(cx, bias, 0)?;
        let recurrent = match self.recurrent_bias {
            Some(recurrent) => recurrent,
            None => {
                let n = self.gates.units * self.order.len();
                cx.floats("zeros", &[n], vec![0.0; n], cx.dtype(own))?
            }
        };
        let both = cx.concat(&[own, recurrent], 0)?;
        cx.unsqueeze(both, &[0]).map(Some)
    }

    pub(super) fn n_states(&self) -> usize {
        if self.op == "LSTM" { 2 } else { 1 }
    }

    pub(super) fn attributes(nodes: &[&Node<'_>], direction: &str) -> Attributes {
        let first = nodes[0];
        let activations: Vec<_> = nodes.iter().flat_map(|node| &node.activations).collect();
        let names: Vec<String> = activations.iter().map(|(name, _, _)| (*name).to_owned()).collect();
        let mut attrs =
            attrs!("hidden_size": first.gates.units as i64, "direction": direction, "activations": names);
        // Functions that take an alpha or beta take the next one of the list.
        let takes_alpha = |name: &str| matches!(name, "Affine" | "HardSigmoid" | "Elu" | "LeakyRelu");
        let takes_beta = |name: &str| matches!(name, "Affine" | "HardSigmoid");
        let alphas: Vec<f32> = activations.iter().filter(|a| takes_alpha(a.0)).map(|a| a.1).collect();
        let betas: Vec<f32> = activations.iter().filter(|a| takes_beta(a.0)).map(|a| a.2).collect();
        if !alphas.is_empty() {
            attrs.set("activation_alpha", alphas);
        }
        if !betas.is_empty() {
            attrs.set("activation_beta", betas);
        }
        if first.op == "GRU" {
            attrs.set("linear_before_reset", i64::from(first.reset_after));
        }
        attrs
    }
}

/// A state `[batch, units]` as `[1, batch, units]`.
pub(super) fn stack_state(cx: &mut Emit, state: ValueId, dtype: DType) -> Result<ValueId, Error> {
    let state = cx.float(state, dtype)?;
    cx.unsqueeze(state, &[0])
}

pub(super) fn single(
    cx: &mut Emit,
    node: &Node<'_>,
    options: &Options,
    x: ValueId,
    states: Option<&[ValueId]>,
) -> Result<Ran, Error> {
    let direction = if options.backwards { "reverse" } else { "forward" };
    let steps = cx.transpose(x, &[1, 0, 2])?;
    let mut inputs = vec![
        Some(steps),
        Some(node.kernel(cx, node.gates.kernel)?),
        Some(node.kernel(cx, node.gates.recurrent)?),
        node.bias(cx)?,
    ];
    if let Some(states) = states {
        inputs.push(None);
        for &state in states {
            inputs.push(Some(stack_state(cx, state, cx.dtype(x))?));
        }
    }
    let outputs = cx.ops(node.op, &inputs, Node::attributes(&[node], direction), 1 + node.n_states())?;
    // [steps, 1, batch, units], in the order of time.
    let mut states = Vec::new();
    for &state in &outputs[1..] {
        states.push(cx.squeeze(state, &[0])?);
    }
    let sequence = if options.return_sequences {
        let mut sequence = cx.squeeze(outputs[0], &[1])?;
        if options.backwards {
            sequence = cx.reverse(sequence, 0)?;
        }
        Some(cx.transpose(sequence, &[1, 0, 2])?)
    } else {
        None
    };
    Ok(Ran { sequence, last: states[0], states })
}
