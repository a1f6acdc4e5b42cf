//! One step of a recurrent layer.

use super::{Direction, Kind, Layer};
use crate::matmul::{Matrix, Product};
use crate::number::Float;

/// One direction at work.
pub(super) struct Cell<'a, T> {
    layer: &'a Layer<T>,
    direction: &'a Direction<'a, T>,
    /// State by gates: of a GRU the update and reset gates, of others all gates.
    recurrent: Vec<T>,
    /// State by candidate, of a GRU.
    candidate: Vec<T>,
    /// Room for one value per unit and example.
    room: Vec<T>,
}

impl<'a, T: Float + Product> Cell<'a, T> {
    pub(super) fn new(layer: &'a Layer<T>, direction: &'a Direction<'a, T>) -> Cell<'a, T> {
        let n = layer.hidden;
        let n_gates = layer.kind.n_gates();
        let joint = if layer.kind == Kind::Gru { 2 } else { n_gates };
        let transposed = |rows: &[T]| -> Vec<T> {
            let n_rows = rows.len() / n;
            let mut out = vec![T::default(); rows.len()];
            for (i, row) in rows.chunks_exact(n).enumerate() {
                row.iter().enumerate().for_each(|(j, &w)| out[j * n_rows + i] = w);
            }
            out
        };
        Cell {
            layer,
            direction,
            recurrent: transposed(&direction.recurrent[..joint * n * n]),
            candidate: transposed(&direction.recurrent[joint * n * n..]),
            room: vec![T::default(); layer.batch * n],
        }
    }

    /// One step of all examples: from what the gates take from the inputs, and the state, to the next state.
    pub(super) fn step(
        &mut self,
        gates: &mut [T],
        state: &[T],
        cells: &[T],
        next: &mut [T],
        next_cells: &mut [T],
    ) {
        match self.layer.kind {
            Kind::Rnn => {
                multiply(state, &self.recurrent, self.layer.hidden, gates, self.layer.hidden);
                self.direction.activations[0].apply(gates, self.layer.clip);
                next.copy_from_slice(gates);
            }
            Kind::Gru => self.gru(gates, state, next),
            Kind::Lstm => self.lstm(gates, state, cells, next, next_cells),
        }
    }

    fn gru(&mut self, gates: &mut [T], state: &[T], next: &mut [T]) {
        let (n, clip) = (self.layer.hidden, self.layer.clip);
        let [f, g] = [0, 1].map(|i| self.direction.activations[i]);
        multiply(state, &self.recurrent, n, gates, 3 * n);
        for gates in gates.chunks_exact_mut(3 * n) {
            f.apply(&mut gates[..2 * n], clip);
        }
        let examples = || state.chunks_exact(n);
        if self.layer.reset_after {
            match self.direction.bias {
                [] => self.room.fill(T::default()),
                bias => self.room.chunks_exact_mut(n).for_each(|room| room.copy_from_slice(&bias[5 * n..])),
            }
            multiply(state, &self.candidate, n, &mut self.room, n);
            for (gates, room) in gates.chunks_exact_mut(3 * n).zip(self.room.chunks_exact(n)) {
                let (reset, candidate) = gates[n..].split_at_mut(n);
                candidate.iter_mut().zip(&*reset).zip(room).for_each(|((c, &r), &x)| *c = c.add(r.mul(x)));
            }
        } else {
            for ((gates, room), state) in
                gates.chunks_exact(3 * n).zip(self.room.chunks_exact_mut(n)).zip(examples())
            {
                room.iter_mut().zip(&gates[n..2 * n]).zip(state).for_each(|((x, &r), &h)| *x = r.mul(h));
            }
            multiply(&self.room, &self.candidate, n, &mut gates[2 * n..], 3 * n);
        }
        for ((gates, next), state) in
            gates.chunks_exact_mut(3 * n).zip(next.chunks_exact_mut(n)).zip(examples())
        {
            let (update, candidate) = gates.split_at_mut(2 * n);
            g.apply(candidate, clip);
            for (((next, &h), &z), &c) in next.iter_mut().zip(state).zip(&update[..n]).zip(&*candidate) {
                *next = T::ONE.sub(z).mul(c).add(z.mul(h));
            }
        }
    }

    fn lstm(&mut self, gates: &mut [T], state: &[T], cells: &[T], next: &mut [T], next_cells: &mut [T]) {
        let (n, clip) = (self.layer.hidden, self.layer.clip);
        let [f, g, h] = [0, 1, 2].map(|i| self.direction.activations[i]);
        multiply(state, &self.recurrent, n, gates, 4 * n);
        let peepholes = (!self.direction.peepholes.is_empty()).then_some(self.direction.peepholes);
        let look = |gate: &mut [T], weights: Option<&[T]>, cell: &[T]| {
            if let Some(weights) = weights {
                gate.iter_mut().zip(weights).zip(cell).for_each(|((x, &w), &c)| *x = x.add(w.mul(c)));
            }
        };
        let examples = gates.chunks_exact_mut(4 * n).zip(cells.chunks_exact(n));
        let results = next.chunks_exact_mut(n).zip(next_cells.chunks_exact_mut(n));
        for ((gates, cell), (next, next_cell)) in examples.zip(results) {
            let (input, rest) = gates.split_at_mut(n);
            let (output, rest) = rest.split_at_mut(n);
            let (forget, candidate) = rest.split_at_mut(n);
            look(input, peepholes.map(|p| &p[..n]), cell);
            f.apply(input, clip);
            if self.layer.coupled {
                forget.iter_mut().zip(&*input).for_each(|(f, &i)| *f = T::ONE.sub(i));
            } else {
                look(forget, peepholes.map(|p| &p[2 * n..]), cell);
                f.apply(forget, clip);
            }
            g.apply(candidate, clip);
            let terms = input.iter().zip(&*candidate).zip(&*forget).zip(cell);
            for (next, (((&i, &c), &f), &old)) in next_cell.iter_mut().zip(terms) {
                *next = f.mul(old).add(i.mul(c));
            }
            look(output, peepholes.map(|p| &p[n..2 * n]), next_cell);
            f.apply(output, clip);
            next.copy_from_slice(next_cell);
            h.apply(next, None);
            next.iter_mut().zip(&*output).for_each(|(x, &o)| *x = x.mul(o));
        }
    }
}

/// From so many examples on, a product of matrices is faster than one product with a vector for each.
const MANY: usize = 8;

/// Adds the product of the rows of `a` (each of `k`) and `b` (`k` rows) to the rows of `out`, which lie `step` apart.
fn multiply<T: Float + Product>(a: &[T], b: &[T], k: usize, out: &mut [T], step: usize) {
    let n = b.len() / k;
    let rows = a.len() / k;
    if rows >= MANY {
        return T::multiply_add([rows, k, n], Matrix::rows(a, k), Matrix::rows(b, n), out, step);
    }
    for (row, out) in a.chunks_exact(k).zip(out.chunks_mut(step)) {
        vector_product(row, b, &mut out[..n]);
    }
}

/// Adds the product of a vector and a matrix (rows of the length of `out`) to `out`. A block of columns is summed up in
/// registers.
fn vector_product<T: Float>(vector: &[T], matrix: &[T], out: &mut [T]) {
    const BLOCK: usize = 16;
    let n = out.len();
    let mut blocks = out.chunks_exact_mut(BLOCK);
    let mut first = 0;
    for block in &mut blocks {
        let mut sums = [T::default(); BLOCK];
        sums.copy_from_slice(block);
        for (&x, row) in vector.iter().zip(matrix.chunks_exact(n)) {
            let row = &row[first..first + BLOCK];
            for i in 0..BLOCK {
                sums[i] = sums[i].add(x.mul(row[i]));
            }
        }
        block.copy_from_slice(&sums);
        first += BLOCK;
    }
    let rest = blocks.into_remainder();
    for (&x, row) in vector.iter().zip(matrix.chunks_exact(n)) {
        rest.iter_mut().zip(&row[first..]).for_each(|(sum, &w)| *sum = sum.add(x.mul(w)));
    }
}
