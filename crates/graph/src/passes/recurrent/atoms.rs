//! What affine forms are made of: inputs, states, activations and products, each known once.

use std::rc::Rc;

use super::row::{AtomId, Coefficients, Factors, Row, close};
use crate::Error;

/// Atoms that one loop may have.
const MAX_ATOMS: usize = 4096;

/// Factors that one product may have, and summands that a row may have to be multiplied out.
const MAX_FACTORS: usize = 4;
const MAX_SUMMANDS: usize = 8;

/// A function of one number, as ONNX's recurrent operators name them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Activation {
    Sigmoid,
    Tanh,
    Relu,
    /// `max(0, min(1, alpha x + beta))`.
    HardSigmoid {
        alpha: f64,
        beta: f64,
    },
    Elu {
        alpha: f64,
    },
    LeakyRelu {
        alpha: f64,
    },
    ThresholdedRelu {
        alpha: f64,
    },
    Softsign,
    Softplus,
    /// The number itself.
    Linear,
    /// `min(x, bound)`: only half of a clip, which no operator has.
    Below {
        bound: f64,
    },
}

impl Activation {
    /// Whether `1 - f(x)` is `f(-x)`.
    pub(super) fn is_symmetric(self) -> bool {
        match self {
            Activation::Sigmoid => true,
            Activation::HardSigmoid { beta, .. } => close(beta, 0.5),
            _ => false,
        }
    }
}

/// A part of a value.
#[derive(Debug)]
pub(super) enum Atom {
    /// The step's input of that number.
    Input(usize),
    /// The loop variable of that number, before the step.
    State(usize),
    /// A function of each column.
    Active(Activation, Rc<Row>),
    /// Columns multiplied with columns; the factors are sorted.
    Product(Vec<Unit>),
    /// An affine form that is a factor.
    Linear(Rc<Row>),
}

/// Columns of an atom from `start` on, as many as the context says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Unit {
    pub(super) atom: AtomId,
    pub(super) start: usize,
}

/// Units multiplied with each other and with a number for each column.
#[derive(Debug, Clone)]
pub(super) struct Monomial {
    pub(super) factors: Vec<Unit>,
    pub(super) by: Vec<f64>,
}

impl Monomial {
    /// Whether the number is the same for all columns, and this one.
    pub(super) fn is_times(&self, number: f64) -> bool {
        self.by.iter().all(|&by| close(by, number))
    }
}

/// All atoms of a loop's body.
#[derive(Debug, Default)]
pub(super) struct Atoms {
    atoms: Vec<(Atom, usize)>,
}

impl Atoms {
    pub(super) fn get(&self, id: AtomId) -> &Atom {
        &self.atoms[id].0
    }

    pub(super) fn width(&self, id: AtomId) -> usize {
        self.atoms[id].1
    }

    fn add(&mut self, atom: Atom, width: usize) -> Result<AtomId, Error> {
        if self.atoms.len() >= MAX_ATOMS {
            return Err(Error::too_large("the body has too many parts"));
        }
        self.atoms.push((atom, width));
        Ok(self.atoms.len() - 1)
    }

    /// The atom that `is` accepts, or a new one.
    fn known(
        &mut self,
        width: usize,
        is: impl Fn(&Atom) -> bool,
        make: impl FnOnce() -> Atom,
    ) -> Result<AtomId, Error> {
        match self.atoms.iter().position(|(atom, w)| *w == width && is(atom)) {
            Some(id) => Ok(id),
            None => self.add(make(), width),
        }
    }

    /// The whole step's input of that number.
    pub(super) fn input(&mut self, number: usize, width: usize) -> Result<Rc<Row>, Error> {
        let is = |atom: &Atom| matches!(atom, Atom::Input(n) if *n == number);
        let id = self.known(width, is, || Atom::Input(number))?;
        Ok(Rc::new(Row::of_atom(id, width, 0, width)))
    }

    /// A whole loop variable before the step.
    pub(super) fn state(&mut self, number: usize, width: usize) -> Result<Rc<Row>, Error> {
        let is = |atom: &Atom| matches!(atom, Atom::State(n) if *n == number);
        let id = self.known(width, is, || Atom::State(number))?;
        Ok(Rc::new(Row::of_atom(id, width, 0, width)))
    }

    /// A function of each column.
    pub(super) fn activate(&mut self, activation: Activation, of: &Rc<Row>) -> Result<Rc<Row>, Error> {
        let width = of.width();
        let is = |atom: &Atom| match atom {
            Atom::Active(known, row) => *known == activation && Rc::ptr_eq(row, of),
            _ => false,
        };
        let id = self.known(width, is, || Atom::Active(activation, of.clone()))?;
        Ok(Rc::new(Row::of_atom(id, width, 0, width)))
    }

    /// `max(low, min(high, row))`, one of which may be infinite, as an activation times a number and a number more.
    pub(super) fn clip(&mut self, row: &Rc<Row>, low: f64, high: f64) -> Result<Rc<Row>, Error> {
        if let Some((inner, scale, shift, inner_low, inner_high)) = self.clipped(row)? {
            let (low, high) = ((low - shift) / scale, (high - shift) / scale);
            let (low, high) = (low.max(inner_low), high.min(inner_high));
            let clipped = self.clip_once(&inner, low, high)?;
            return Ok(Row::shifted(&Row::scaled(&clipped, &Factors::Same(scale)), &Factors::Same(shift)));
        }
        self.clip_once(row, low, high)
    }

    fn clip_once(&mut self, row: &Rc<Row>, low: f64, high: f64) -> Result<Rc<Row>, Error> {
        if low >= high || low.is_nan() || high.is_nan() {
            return Err(Error::unsupported("a clip whose bounds leave nothing"));
        }
        match (low.is_finite(), high.is_finite()) {
            (false, false) => Ok(row.clone()),
            (false, true) => self.activate(Activation::Below { bound: high }, row),
            (true, false) => {
                let above = if low == 0.0 { row.clone() } else { Row::shifted(row, &Factors::Same(-low)) };
                let active = self.activate(Activation::Relu, &above)?;
                Ok(if low == 0.0 { active } else { Row::shifted(&active, &Factors::Same(low)) })
            }
            (true, true) => {
                let size = high - low;
                let (inner, scale, shift) = match &row.origin {
                    Some(origin) => (origin.row.clone(), origin.scale, origin.shift),
                    None => (row.clone(), 1.0, 0.0),
                };
                let (alpha, beta) = (scale / size, (shift - low) / size);
                // What is more than a half belongs to the bias: a gate may have one before it is scaled.
                let more = Factors::Same((beta - 0.5) / alpha);
                let inner = if beta == 0.5 { inner } else { Row::shifted(&inner, &more) };
                let active = self.activate(Activation::HardSigmoid { alpha, beta: 0.5 }, &inner)?;
                Ok(Row::shifted(&Row::scaled(&active, &Factors::Same(size)), &Factors::Same(low)))
            }
        }
    }

    /// Of a row that is half a clip times a positive number and a number more: what is clipped, those numbers, and
    /// the bounds.
    #[allow(clippy::type_complexity, reason = "five numbers of one use")]
    fn clipped(&self, row: &Row) -> Result<Option<(Rc<Row>, f64, f64, f64, f64)>, Error> {
        let [(atom, coefficients)] = &row.terms[..] else { return Ok(None) };
        let Atom::Active(activation, inner) = self.get(*atom) else { return Ok(None) };
        let bounds = match activation {
            Activation::Relu => (0.0, f64::INFINITY),
            Activation::Below { bound } => (f64::NEG_INFINITY, *bound),
            _ => return Ok(None),
        };
        let Some((start, factors)) = coefficients.run() else { return Ok(None) };
        let (Some(&scale), Some(&shift)) = (factors.first(), row.bias.first()) else { return Ok(None) };
        if scale <= 0.0 || factors.iter().any(|&x| x != scale) || row.bias.iter().any(|&x| x != shift) {
            return Ok(None);
        }
        let inner = self.part(inner, start, row.width())?;
        Ok(Some((inner, scale, shift, bounds.0, bounds.1)))
    }

    /// The columns of a row from `start` on.
    pub(super) fn part(&self, row: &Rc<Row>, start: usize, width: usize) -> Result<Rc<Row>, Error> {
        if start == 0 && width == row.width() {
            return Ok(row.clone());
        }
        let columns: Vec<_> = (start..start + width).collect();
        Ok(Rc::new(row.columns(&columns)?))
    }

    /// The row as a sum of products and a bias, if it is not more than that.
    pub(super) fn monomials(&self, row: &Row) -> Option<Vec<Monomial>> {
        let mut sum = Vec::with_capacity(row.terms.len());
        for (atom, coefficients) in &row.terms {
            let (start, by) = coefficients.run()?;
            let factors = match self.get(*atom) {
                Atom::Product(units) => {
                    units.iter().map(|unit| Unit { start: unit.start + start, ..*unit }).collect()
                }
                _ => vec![Unit { atom: *atom, start }],
            };
            sum.push(Monomial { factors, by });
        }
        Some(sum).filter(|sum| sum.len() <= MAX_SUMMANDS)
    }

    /// The sum of products that a row is as a factor: multiplied out, or itself as one atom.
    fn factor(&mut self, row: &Rc<Row>) -> Result<(Vec<Monomial>, Vec<f64>), Error> {
        let width = row.width();
        if let Some(sum) = self.monomials(row) {
            return Ok((sum, row.bias.clone()));
        }
        let is = |atom: &Atom| matches!(atom, Atom::Linear(known) if Rc::ptr_eq(known, row));
        let atom = self.known(width, is, || Atom::Linear(row.clone()))?;
        let whole = Monomial { factors: vec![Unit { atom, start: 0 }], by: vec![1.0; width] };
        Ok((vec![whole], vec![0.0; width]))
    }

    /// The product of two rows of the same width, column by column.
    pub(super) fn product(&mut self, a: &Rc<Row>, b: &Rc<Row>) -> Result<Rc<Row>, Error> {
        let (a, a_bias) = self.factor(a)?;
        let (b, b_bias) = self.factor(b)?;
        let times = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).collect::<Vec<_>>();
        let mut product = Row::new(Vec::new(), times(&a_bias, &b_bias));
        let mut summands = Vec::new();
        for x in &a {
            summands.push(Monomial { factors: x.factors.clone(), by: times(&x.by, &b_bias) });
            for y in &b {
                let mut factors = x.factors.clone();
                factors.extend(&y.factors);
                factors.sort_unstable();
                summands.push(Monomial { factors, by: times(&x.by, &y.by) });
            }
        }
        summands.extend(b.iter().map(|y| Monomial { factors: y.factors.clone(), by: times(&y.by, &a_bias) }));
        for summand in summands.iter().filter(|summand| summand.by.iter().any(|&by| by != 0.0)) {
            product = product.plus(&*self.monomial(summand)?)?;
        }
        Ok(Rc::new(product))
    }

    /// One product as a row.
    pub(super) fn monomial(&mut self, monomial: &Monomial) -> Result<Rc<Row>, Error> {
        let width = monomial.by.len();
        if monomial.factors.len() > MAX_FACTORS {
            return Err(Error::unsupported("a product of more factors than a cell has"));
        }
        let row = match &monomial.factors[..] {
            [unit] => match self.get(unit.atom) {
                Atom::Linear(row) => self.part(row, unit.start, width)?,
                _ => Rc::new(Row::of_atom(unit.atom, self.width(unit.atom), unit.start, width)),
            },
            factors => {
                let is = |atom: &Atom| matches!(atom, Atom::Product(known) if known == factors);
                let id = self.known(width, is, || Atom::Product(factors.to_vec()))?;
                Rc::new(Row::of_atom(id, width, 0, width))
            }
        };
        if monomial.is_times(1.0) {
            return Ok(row);
        }
        Ok(Row::scaled(&row, &Factors::Each(monomial.by.clone())))
    }

    /// What an atom is, for messages.
    pub(super) fn describe(&self, id: AtomId) -> &'static str {
        match self.get(id) {
            Atom::Input(_) => "the step's input",
            Atom::State(_) => "another loop variable",
            Atom::Active(..) => "an activation",
            Atom::Product(_) => "a product",
            Atom::Linear(_) => "a weighted sum",
        }
    }
}

/// The coefficients as a dense matrix of so many rows.
pub(super) fn is_run_of_ones(coefficients: &Coefficients) -> Option<usize> {
    let (start, by) = coefficients.run()?;
    by.iter().all(|&by| close(by, 1.0)).then_some(start)
}
