//! Recurrent layers: `RNN`, `GRU`, `LSTM`.
//!
//! What the gates take from the inputs is computed for all steps by one product of matrices. A step then multiplies the
//! state with the recurrent weights, which lie transposed, so that the innermost loops run along memory.

mod activation;
mod cell;

use salver_tensor::Tensor;

use crate::call::{Call, integers, read, size};
use crate::layout::{output_shape, scratch};
use crate::matmul::{Matrix, Product, is_half, widened};
use crate::movement::arrange::permuted;
use crate::number::{Float, by_float};
use crate::{Error, Outputs};
use activation::Activation;
use cell::Cell;

/// What differs between the layers.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Rnn,
    Gru,
    Lstm,
}

impl Kind {
    fn n_gates(self) -> usize {
        match self {
            Kind::Rnn => 1,
            Kind::Gru => 3,
            Kind::Lstm => 4,
        }
    }

    fn activations(self) -> &'static [&'static str] {
        match self {
            Kind::Rnn => &["Tanh"],
            Kind::Gru => &["Sigmoid", "Tanh"],
            Kind::Lstm => &["Sigmoid", "Tanh", "Tanh"],
        }
    }
}

/// `RNN`, `GRU`, `LSTM`.
pub(crate) fn recurrent(call: &Call<'_>) -> Outputs {
    let x = call.input(0)?;
    if is_half(x) {
        return widened(call, recurrent);
    }
    if !call.attributes.flag("layout", false)? {
        return by_float!(x.dtype(), |t| call.no_type(t), T => layer::<T>(call));
    }
    // Batch first: the axes are exchanged on the way in and out.
    let flip = |tensor: &Tensor| match tensor.shape().rank() {
        3 => permuted(tensor, &[1, 0, 2]),
        _ => Err(Error::invalid(format!("input has shape {}, expected 3 dimensions", tensor.shape()))),
    };
    let flipped: Vec<Option<Tensor>> = (0..call.inputs.len())
        .map(|i| match call.optional(i) {
            Some(tensor) if matches!(i, 0 | 5 | 6) => flip(tensor).map(Some),
            other => Ok(other.cloned()),
        })
        .collect::<Result<_, Error>>()?;
    let inputs: Vec<Option<&Tensor>> = flipped.iter().map(Option::as_ref).collect();
    let inner = Call { inputs: &inputs, ..*call };
    let outputs = by_float!(x.dtype(), |t| call.no_type(t), T => layer::<T>(&inner))?;
    outputs
        .iter()
        .enumerate()
        .map(|(i, output)| if i == 0 { permuted(output, &[2, 0, 1, 3]) } else { flip(output) })
        .collect()
}

/// The sizes of a layer, and what holds for all its directions.
struct Layer<T> {
    kind: Kind,
    steps: usize,
    batch: usize,
    input: usize,
    hidden: usize,
    /// Steps of each example, if not all.
    lens: Option<Vec<usize>>,
    clip: Option<T>,
    /// Whether a GRU resets the state after its product with the weights.
    reset_after: bool,
    /// Whether an LSTM forgets as much as it takes in.
    coupled: bool,
}

/// The weights of one direction.
struct Direction<'a, T> {
    reverse: bool,
    activations: &'a [Activation],
    /// Gates by inputs.
    weights: &'a [T],
    /// Gates by state.
    recurrent: &'a [T],
    /// For the inputs, then for the state; may be empty.
    bias: &'a [T],
    /// Of an LSTM: input, output, forget; may be empty.
    peepholes: &'a [T],
}

fn layer<T: Float + Product>(call: &Call<'_>) -> Outputs {
    let kind = match call.op {
        "GRU" => Kind::Gru,
        "LSTM" => Kind::Lstm,
        _ => Kind::Rnn,
    };
    let reversed: &[bool] = match call.attributes.text("direction", "forward")? {
        "forward" => &[false],
        "reverse" => &[true],
        "bidirectional" => &[false, true],
        other => return Err(Error::invalid(format!("direction is '{other}'"))),
    };
    let n_dirs = reversed.len();
    let layer = Layer::<T>::new(call, kind, n_dirs)?;
    let (steps, batch, hidden) = (layer.steps, layer.batch, layer.hidden);
    let gates = kind.n_gates() * hidden;
    let activations = activation::read(call, n_dirs, kind.activations())?;
    let per_direction = kind.activations().len();

    let operand = |index: usize, dims: &[usize]| operand::<T>(call, index, dims);
    let x = operand(0, &[steps, batch, layer.input])?.unwrap_or_default();
    let weights = operand(1, &[n_dirs, gates, layer.input])?.unwrap_or_default();
    let recurrent = operand(2, &[n_dirs, gates, hidden])?.unwrap_or_default();
    let bias = operand(3, &[n_dirs, 2 * gates])?.unwrap_or_default();
    let state_dims = [n_dirs, batch, hidden];
    let state_len = output_shape(T::DTYPE, &state_dims)?.n_elements();
    let initial = |index| -> Result<Vec<T>, Error> {
        Ok(operand(index, &state_dims)?.map_or_else(|| vec![T::default(); state_len], |s| s.into_owned()))
    };
    let mut state = initial(5)?;
    let (mut cells, peepholes) = match kind {
        Kind::Lstm => (initial(6)?, operand(7, &[n_dirs, 3 * hidden])?.unwrap_or_default()),
        _ => (Vec::new(), Vec::new().into()),
    };

    let y_shape = output_shape(T::DTYPE, &[steps, n_dirs, batch, hidden])?;
    let mut y = vec![T::default(); y_shape.n_elements()];
    let part = |elements: &[T], d: usize| -> std::ops::Range<usize> {
        let n = elements.len() / n_dirs;
        d * n..(d + 1) * n
    };
    for (d, &reverse) in reversed.iter().enumerate() {
        let direction = Direction {
            reverse,
            activations: &activations[d * per_direction..(d + 1) * per_direction],
            weights: &weights[part(&weights, d)],
            recurrent: &recurrent[part(&recurrent, d)],
            bias: &bias[part(&bias, d)],
            peepholes: &peepholes[part(&peepholes, d)],
        };
        let (range, cell_range) = (part(&state, d), part(&cells, d));
        let rows = &mut y;
        layer.run(&direction, &x, &mut state[range], &mut cells[cell_range], &mut |step, example, h| {
            let at = ((step * n_dirs + d) * batch + example) * hidden;
            rows[at..at + hidden].copy_from_slice(h);
        })?;
    }
    let state_shape = output_shape(T::DTYPE, &state_dims)?;
    let mut outputs = vec![Tensor::from_vec(y_shape, y)?, Tensor::from_vec(state_shape.clone(), state)?];
    if kind == Kind::Lstm {
        outputs.push(Tensor::from_vec(state_shape, cells)?);
    }
    Ok(outputs)
}

/// An input of the layer's type and of a given shape.
fn operand<'a, T: Product>(
    call: &Call<'a>,
    index: usize,
    dims: &[usize],
) -> Result<Option<std::borrow::Cow<'a, [T]>>, Error> {
    match call.optional(index) {
        None => Ok(None),
        Some(tensor) if tensor.dtype() == T::DTYPE && tensor.shape().dims() == dims => {
            Ok(Some(read::<T>(tensor)))
        }
        Some(tensor) => {
            Err(Error::invalid(format!("input {index} is {tensor:?}, expected {} {dims:?}", T::DTYPE)))
        }
    }
}

impl<T: Float + Product> Layer<T> {
    fn new(call: &Call<'_>, kind: Kind, n_dirs: usize) -> Result<Layer<T>, Error> {
        let (x, r) = (call.input(0)?, call.input(2)?);
        call.input(1)?;
        let (&[steps, batch, input], &[_, _, hidden]) = (x.shape().dims(), r.shape().dims()) else {
            let (x, r) = (x.shape(), r.shape());
            return Err(Error::invalid(format!("input of shape {x} and recurrent weights of shape {r}")));
        };
        let given = call.attributes.int("hidden_size", hidden as i64)?;
        if given != hidden as i64 || hidden > 1 << 24 {
            return Err(Error::invalid(format!("hidden_size is {given}, the weights have {hidden}")));
        }
        output_shape(T::DTYPE, &[n_dirs, batch, kind.n_gates() * hidden])?;
        let lens = match call.optional(4) {
            None => None,
            Some(tensor) => {
                let lens =
                    integers(tensor)?.iter().map(|&n| size(n, "a length")).collect::<Result<Vec<_>, _>>()?;
                if lens.len() != batch || lens.iter().any(|&len| len > steps) {
                    return Err(Error::invalid(format!("lengths {lens:?} of {batch} sequences of {steps}")));
                }
                Some(lens)
            }
        };
        let clip = match call.attributes.get("clip") {
            Some(_) => Some(T::of(call.attributes.float("clip", 0.0)?)),
            None => None,
        };
        Ok(Layer {
            kind,
            steps,
            batch,
            input,
            hidden,
            lens,
            clip,
            reset_after: call.attributes.flag("linear_before_reset", false)?,
            coupled: call.attributes.flag("input_forget", false)?,
        })
    }

    /// Runs one direction over all steps; `emit` is given each state with its step and example.
    fn run(
        &self,
        direction: &Direction<'_, T>,
        x: &[T],
        state: &mut [T],
        cells: &mut [T],
        emit: &mut dyn FnMut(usize, usize, &[T]),
    ) -> Result<(), Error> {
        let n = self.hidden;
        let gates_len = self.kind.n_gates() * n;
        if n == 0 || self.batch == 0 || self.steps == 0 {
            return Ok(());
        }
        let mut cell = Cell::new(self, direction);
        let projected = self.project_inputs(direction, x)?;
        let mut gates = vec![T::default(); self.batch * gates_len];
        let mut next = state.to_vec();
        let mut next_cells = cells.to_vec();
        for t in 0..self.steps {
            let place = |example: usize| {
                let len = self.lens.as_ref().map_or(self.steps, |lens| lens[example]);
                (t < len).then(|| if direction.reverse { len - 1 - t } else { t })
            };
            for (example, gates) in gates.chunks_exact_mut(gates_len).enumerate() {
                let at = place(example).unwrap_or(0) * self.batch + example;
                gates.copy_from_slice(&projected[at * gates_len..(at + 1) * gates_len]);
            }
            cell.step(&mut gates, state, cells, &mut next, &mut next_cells);
            for example in 0..self.batch {
                let Some(at) = place(example) else { continue };
                let range = example * n..(example + 1) * n;
                state[range.clone()].copy_from_slice(&next[range.clone()]);
                if !cells.is_empty() {
                    cells[range.clone()].copy_from_slice(&next_cells[range.clone()]);
                }
                emit(at, example, &state[range]);
            }
        }
        Ok(())
    }

    /// What the gates take from the inputs of all steps, with all biases that do not depend on the state.
    fn project_inputs(&self, direction: &Direction<'_, T>, x: &[T]) -> Result<Vec<T>, Error> {
        let gates_len = self.kind.n_gates() * self.hidden;
        let rows = self.steps * self.batch;
        let mut projected = vec![T::default(); scratch(&[rows, gates_len], size_of::<T>())?];
        if !direction.bias.is_empty() {
            let (of_inputs, of_state) = direction.bias.split_at(gates_len);
            let mut bias = of_inputs.to_vec();
            // A state that is reset after the product keeps the bias of that product to itself.
            let shared = if self.kind == Kind::Gru && self.reset_after { 2 * self.hidden } else { gates_len };
            bias[..shared].iter_mut().zip(of_state).for_each(|(b, &s)| *b = b.add(s));
            projected.chunks_exact_mut(gates_len).for_each(|row| row.copy_from_slice(&bias));
        }
        if self.input > 0 {
            let weights = Matrix::rows(direction.weights, self.input).transposed();
            let x = Matrix::rows(x, self.input);
            T::multiply_add([rows, self.input, gates_len], x, weights, &mut projected, gates_len);
        }
        Ok(projected)
    }
}
