//! Telling by algebra which recurrent cell a loop's states follow, and taking its weights.

use std::rc::Rc;

use super::atoms::{Activation, Atom, Atoms, Monomial, Unit, is_run_of_ones};
use super::row::{AtomId, Factors, Matrix, Row};
use crate::Error;

/// Which cell, after ONNX's operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// `h' = f(W x + R h + b)`.
    Rnn,
    /// `h' = z h + (1 - z) g(W x + R (r h) + b)`, or `g(W x + b + r (R h + c))` when linear before the reset.
    Gru { linear_before_reset: bool },
    /// `c' = f c + i g(..)`, `h' = o g(c')`.
    Lstm,
}

impl Kind {
    /// ONNX's operator.
    pub(super) fn op(self) -> &'static str {
        match self {
            Kind::Rnn => "RNN",
            Kind::Gru { .. } => "GRU",
            Kind::Lstm => "LSTM",
        }
    }

    /// The activations that ONNX takes when none are given.
    pub(super) fn default_activations(self) -> &'static [Activation] {
        match self {
            Kind::Rnn => &[Activation::Tanh],
            Kind::Gru { .. } => &[Activation::Sigmoid, Activation::Tanh],
            Kind::Lstm => &[Activation::Sigmoid, Activation::Tanh, Activation::Tanh],
        }
    }
}

/// The weights of one gate.
#[derive(Debug)]
pub(super) struct Gate {
    /// Of the step's inputs by number, each `[width, hidden]`.
    pub(super) inputs: Vec<(usize, Matrix)>,
    /// Of the state, `[hidden, hidden]`.
    pub(super) recurrent: Matrix,
    pub(super) bias: Vec<f64>,
    /// Only of the hidden gate of a GRU that is linear before the reset.
    pub(super) recurrent_bias: Option<Vec<f64>>,
}

/// A recurrent cell.
#[derive(Debug)]
pub(super) struct Cell {
    pub(super) kind: Kind,
    pub(super) hidden: usize,
    /// The loop variable of the output, and of an LSTM that of the cell state.
    pub(super) states: Vec<usize>,
    /// In ONNX's order: GRU `z r h`, LSTM `i o f c`.
    pub(super) gates: Vec<Gate>,
    /// In ONNX's order: those of the gates, of the hidden value and of the cell state's output.
    pub(super) activations: Vec<Activation>,
}

/// A state and what it is after the step.
pub(super) struct Next {
    pub(super) number: usize,
    pub(super) row: Rc<Row>,
}

/// What the algebra needs at hand.
struct Algebra<'a> {
    atoms: &'a mut Atoms,
    hidden: usize,
    state: usize,
}

/// A function of an affine form, of the columns of one gate.
struct Active {
    activation: Activation,
    row: Rc<Row>,
}

/// A cell with one state.
///
/// # Errors
/// The reason why it is none.
pub(super) fn single(atoms: &mut Atoms, next: &Next) -> Result<Cell, Error> {
    let mut algebra = Algebra { atoms, hidden: next.row.width(), state: next.number };
    match algebra.gru(&next.row)? {
        Some(cell) => Ok(cell),
        None => algebra.rnn(&next.row),
    }
}

/// A cell with an output and a cell state; `None` when these two are not bound to each other as in an LSTM.
///
/// # Errors
/// The reason why they are no LSTM, although they look like one.
pub(super) fn pair(atoms: &mut Atoms, output: &Next, cell: &Next) -> Result<Option<Cell>, Error> {
    let hidden = output.row.width();
    if cell.row.width() != hidden {
        return Ok(None);
    }
    Algebra { atoms, hidden, state: output.number }.lstm(&output.row, cell)
}

impl Algebra<'_> {
    fn rnn(&mut self, next: &Rc<Row>) -> Result<Cell, Error> {
        let active = match self.atoms.monomials(next).as_deref() {
            Some([Monomial { factors, by }])
                if factors.len() == 1
                    && matches!(self.atoms.get(factors[0].atom), Atom::Active(..))
                    && by.iter().all(|&by| by == 1.0)
                    && next.bias.iter().all(|&bias| bias == 0.0) =>
            {
                self.active(factors[0])?
            }
            _ => Active { activation: Activation::Linear, row: next.clone() },
        };
        let gate = self.gate(&active.row)?;
        self.cell(Kind::Rnn, vec![gate], vec![active.activation])
    }

    /// `None` when the state's next value has no part that is the state times a gate.
    fn gru(&mut self, next: &Rc<Row>) -> Result<Option<Cell>, Error> {
        let products = self.products(next);
        let state = |unit: &Unit| self.is_state(*unit, self.state);
        let kept =
            products.iter().find(|product| product.factors.len() == 2 && product.factors.iter().any(state));
        let Some(kept) = kept else { return Ok(None) };
        let Some(&z) = kept.factors.iter().find(|unit| !state(unit)) else { return Ok(None) };
        let new = products.iter().find(|product| {
            product.factors.len() == 2 && product.factors.contains(&z) && product.factors != kept.factors
        });
        let Some(new) = new else { return Ok(None) };
        let h = *new.factors.iter().find(|unit| **unit != z).unwrap_or(&z);
        // Both arrangements, built anew, tell whether there is anything else in the next value.
        let keeps = kept.is_times(1.0) && new.is_times(-1.0);
        let rest = if keeps { self.whole(h)? } else { self.atoms.state(self.state, self.hidden)? };
        let expected = self.atoms.monomial(kept)?.plus(&*self.atoms.monomial(new)?)?.plus(&rest)?;
        let complement = kept.is_times(-1.0) && new.is_times(1.0);
        if !(keeps || complement) || !expected.is_close(next)? {
            return Err(Error::unsupported("the state is gated, but not as in a GRU"));
        }
        let mut update = self.active(z)?;
        if complement {
            if !update.activation.is_symmetric() {
                return Err(Error::unsupported("the update gate's complement is no activation"));
            }
            update.row = Row::scaled(&update.row, &Factors::Same(-1.0));
        }
        let hidden = self.active(h)?;
        let (linear_before_reset, reset, hidden_gate) = self.hidden_gate(&hidden.row)?;
        if reset.activation != update.activation {
            return Err(Error::unsupported("the update and reset gates have different activations"));
        }
        let gates = vec![self.gate(&update.row)?, self.gate(&reset.row)?, hidden_gate];
        let activations = vec![update.activation, hidden.activation];
        self.cell(Kind::Gru { linear_before_reset }, gates, activations).map(Some)
    }

    /// The reset gate and the weights of the hidden gate, and whether the state is weighted before it is reset.
    fn hidden_gate(&mut self, row: &Rc<Row>) -> Result<(bool, Active, Gate), Error> {
        let none = || Error::unsupported("the hidden value has no reset gate");
        let is_product = |(id, _): &&(AtomId, _)| matches!(self.atoms.get(*id), Atom::Product(_));
        let (id, coefficients) = row.terms.iter().find(is_product).ok_or_else(none)?.clone();
        let Atom::Product(factors) = self.atoms.get(id) else { return Err(none()) };
        let [a, b] = factors[..] else { return Err(none()) };
        let others = row.terms.iter().filter(|(other, _)| *other != id).cloned().collect();
        let others = Rc::new(Row::new(others, row.bias.clone()));
        let mut gate = self.gate(&others)?;
        if gate.recurrent.elements.iter().any(|&x| x != 0.0) {
            return Err(Error::unsupported("the hidden value takes the state without a reset gate, too"));
        }
        let state = [a, b].iter().position(|&unit| self.is_state(unit, self.state));
        if let (Some(at), true) = (state, self.atoms.width(id) == self.hidden) {
            gate.recurrent = coefficients.to_dense()?;
            return Ok((false, self.active([b, a][at])?, gate));
        }
        let start = is_run_of_ones(&coefficients).ok_or_else(none)?;
        let at = |unit: Unit| Unit { start: unit.start + start, ..unit };
        let is_linear = |unit: &Unit| matches!(self.atoms.get(unit.atom), Atom::Linear(_));
        let linear = [a, b].iter().position(is_linear).ok_or_else(none)?;
        let (linear, reset) = (at([a, b][linear]), at([b, a][linear]));
        let weighted = self.gate(&*self.whole(linear)?)?;
        if !weighted.inputs.is_empty() {
            return Err(Error::unsupported("the reset gate acts on the step's input"));
        }
        gate.recurrent = weighted.recurrent;
        gate.recurrent_bias = Some(weighted.bias);
        Ok((true, self.active(reset)?, gate))
    }

    fn lstm(&mut self, output: &Rc<Row>, cell: &Next) -> Result<Option<Cell>, Error> {
        let Some(sum) = self.atoms.monomials(&cell.row) else { return Ok(None) };
        let is_cell = |unit: &Unit| self.is_state(*unit, cell.number);
        let kept =
            sum.iter().position(|product| product.factors.len() == 2 && product.factors.iter().any(is_cell));
        let (Some(kept), 2) = (kept, sum.len()) else { return Ok(None) };
        let Some(&f) = sum[kept].factors.iter().find(|unit| !is_cell(unit)) else { return Ok(None) };
        let new = &sum[1 - kept];
        let [a, b] = new.factors[..] else { return Ok(None) };
        if !sum.iter().all(|product| product.is_times(1.0)) || cell.row.bias.iter().any(|&bias| bias != 0.0) {
            return Ok(None);
        }
        let Some((o, last)) = self.output_gate(output, &cell.row)? else { return Ok(None) };
        let (forget, out) = (self.active(f)?, self.active(o)?);
        let (a, b) = (self.active(a)?, self.active(b)?);
        let (input, new) = if a.activation == forget.activation { (a, b) } else { (b, a) };
        if input.activation != forget.activation || out.activation != forget.activation {
            return Err(Error::unsupported("the gates of an LSTM have different activations"));
        }
        let activations = vec![forget.activation, new.activation, last];
        let rows = [input.row, out.row, forget.row, new.row];
        let gates: Result<_, Error> = rows.iter().map(|row| self.gate(row)).collect();
        let mut found = self.cell(Kind::Lstm, gates?, activations)?;
        found.states.push(cell.number);
        Ok(Some(found))
    }

    /// The gate by which the activated cell state is multiplied, and its activation.
    fn output_gate(&mut self, output: &Rc<Row>, cell: &Rc<Row>) -> Result<Option<(Unit, Activation)>, Error> {
        let Some(sum) = self.atoms.monomials(output) else { return Ok(None) };
        if let [product] = &sum[..]
            && let [a, b] = product.factors[..]
            && product.is_times(1.0)
            && output.bias.iter().all(|&bias| bias == 0.0)
        {
            for (gate, of_cell) in [(a, b), (b, a)] {
                let active = self.active(of_cell)?;
                if active.activation != Activation::Linear && active.row.is_close(cell)? {
                    return Ok(Some((gate, active.activation)));
                }
            }
        }
        let candidates = sum.first().map(|product| product.factors.clone()).unwrap_or_default();
        for gate in candidates {
            let factor =
                Rc::new(Row::of_atom(gate.atom, self.atoms.width(gate.atom), gate.start, self.hidden));
            if self
                .atoms
                .product(&factor, cell)
                .is_ok_and(|product| product.is_close(output).unwrap_or(false))
            {
                return Ok(Some((gate, Activation::Linear)));
            }
        }
        Ok(None)
    }

    /// All products in a row that stand there column by column.
    fn products(&self, row: &Row) -> Vec<Monomial> {
        let single = |term: &(AtomId, _)| {
            let row = Row::new(vec![term.clone()], row.bias.clone());
            matches!(self.atoms.get(term.0), Atom::Product(_)).then(|| self.atoms.monomials(&row))
        };
        row.terms.iter().filter_map(single).flatten().flatten().collect()
    }

    fn is_state(&self, unit: Unit, number: usize) -> bool {
        let whole = unit.start == 0 && self.atoms.width(unit.atom) == self.hidden;
        whole && matches!(self.atoms.get(unit.atom), Atom::State(n) if *n == number)
    }

    /// The row that a unit is: of an affine form itself, of anything else the atom's columns.
    fn whole(&self, unit: Unit) -> Result<Rc<Row>, Error> {
        match self.atoms.get(unit.atom) {
            Atom::Linear(row) => self.atoms.part(row, unit.start, self.hidden),
            _ => Ok(Rc::new(Row::of_atom(unit.atom, self.atoms.width(unit.atom), unit.start, self.hidden))),
        }
    }

    /// A unit as a function of an affine form.
    fn active(&self, unit: Unit) -> Result<Active, Error> {
        match self.atoms.get(unit.atom) {
            Atom::Active(activation, row) => {
                if let Activation::Below { .. } = activation {
                    return Err(Error::unsupported("an activation that is cut off above only"));
                }
                let row = self.atoms.part(row, unit.start, self.hidden)?;
                Ok(Active { activation: *activation, row })
            }
            _ => Ok(Active { activation: Activation::Linear, row: self.whole(unit)? }),
        }
    }

    /// The weights of an affine form over the step's inputs and the state, and nothing else.
    fn gate(&self, row: &Row) -> Result<Gate, Error> {
        let mut gate = Gate {
            inputs: Vec::new(),
            recurrent: Matrix::zeros(self.hidden, self.hidden)?,
            bias: row.bias.clone(),
            recurrent_bias: None,
        };
        for (id, coefficients) in &row.terms {
            match self.atoms.get(*id) {
                Atom::Input(number) => gate.inputs.push((*number, coefficients.to_dense()?)),
                Atom::State(number) if *number == self.state => gate.recurrent = coefficients.to_dense()?,
                _ => {
                    let what = self.atoms.describe(*id);
                    return Err(Error::unsupported(format!(
                        "a gate takes {what}, beside the input and the state"
                    )));
                }
            }
        }
        Ok(gate)
    }

    fn cell(&self, kind: Kind, gates: Vec<Gate>, activations: Vec<Activation>) -> Result<Cell, Error> {
        if gates.iter().all(|gate| gate.inputs.is_empty()) {
            return Err(Error::unsupported("no gate takes an input of the step"));
        }
        let below = |activation: &Activation| matches!(activation, Activation::Below { .. });
        if activations.iter().any(below) {
            return Err(Error::unsupported("an activation that is cut off above only"));
        }
        Ok(Cell { kind, hidden: self.hidden, states: vec![self.state], gates, activations })
    }
}
