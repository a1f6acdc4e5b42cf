//! Reading a loop's body: what each value of it is, as an affine form over the step's inputs and the states.

use std::collections::HashMap;
use std::rc::Rc;

use salver_tensor::{DType, Tensor};

use super::atoms::{Activation, Atoms};
use super::constants::{factors, fold, matrix, number, same_everywhere, uniform};
use super::counts::{Count, Counts};
use super::row::{Factors, Matrix, Row};
use crate::Error;
use crate::ir::{Block, Dim, Graph, Node, ValueId};

/// Columns that a row may have.
pub(super) const MAX_WIDTH: usize = 1 << 18;

/// Elements that all coefficients of a body may have.
const MAX_ELEMENTS: usize = 1 << 27;

/// What a value of the body is.
#[derive(Debug, Clone)]
pub(super) enum Meaning {
    /// The same in each step and known; of a scalar or uniform one, one element.
    Constant(Tensor),
    /// One affine form per row of the batch, `[batch, width]`, perhaps with dimensions of 1 before.
    Row(Rc<Row>),
    /// A value of around the loop that is not known.
    Outer(ValueId),
    /// A value of no use here, with the reason.
    Other(Rc<str>),
}

/// Where a step's input comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// A step of a value of around the loop: `[batch, width]` without the axis of the steps.
    Sequence { id: ValueId, axis: usize },
    /// What a cell of the same loop gives in this step.
    Cell(usize),
}

/// An input of each step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Input {
    pub(super) source: Source,
    /// Which row of the sequence iteration `i` reads.
    pub(super) at: Count,
}

/// A loop variable.
#[derive(Debug, Clone, Copy)]
pub(super) struct Carried {
    /// Before the loop.
    pub(super) initial: ValueId,
    /// In the body, before the step.
    pub(super) now: ValueId,
    /// In the body, after the step.
    pub(super) next: ValueId,
}

/// A body as far as it is read.
pub(super) struct Reading<'a> {
    pub(super) graph: &'a Graph,
    pub(super) body: &'a Block,
    pub(super) counts: Counts<'a>,
    pub(super) carried: Vec<Carried>,
    pub(super) atoms: Atoms,
    pub(super) inputs: Vec<Input>,
    pub(super) meanings: HashMap<ValueId, Meaning>,
    /// Values that are a whole input of the step, with its number.
    pub(super) reads: Vec<(ValueId, usize)>,
}

impl<'a> Reading<'a> {
    /// Reads the whole body. `cells` are values of the body that are taken as what a cell found before gives.
    ///
    /// # Errors
    /// When the body is too large to be read.
    pub(super) fn new(
        counts: Counts<'a>,
        node: &Node,
        body: &'a Block,
        cells: &[(ValueId, Input)],
    ) -> Result<Reading<'a>, Error> {
        let graph = counts.graph;
        let initials = node.inputs.get(2..).unwrap_or_default().iter();
        let ends = body.inputs.iter().skip(2).zip(body.outputs.iter().skip(1));
        let carried = initials
            .zip(ends)
            .filter_map(|(initial, (&now, &next))| Some(Carried { initial: (*initial)?, now, next }));
        let carried = carried.collect();
        let (atoms, meanings, inputs, reads) = (Atoms::default(), HashMap::new(), Vec::new(), Vec::new());
        let mut reading = Reading { graph, body, counts, carried, atoms, inputs, meanings, reads };
        reading.start()?;
        let mut n_elements = 0usize;
        for node in &body.nodes {
            if n_elements > MAX_ELEMENTS {
                return Err(Error::too_large("the weights of its cells are too large"));
            }
            let meanings = match reading.node(node) {
                Ok(meanings) => meanings,
                Err(error) if error.kind() == crate::ErrorKind::TooLarge => return Err(error),
                Err(error) => {
                    vec![Meaning::Other(reading.why(node, &error)); node.outputs.len()]
                }
            };
            for (&id, meaning) in node.outputs.iter().zip(meanings) {
                if let Meaning::Row(row) = &meaning {
                    n_elements = n_elements.saturating_add(row.n_own_elements());
                }
                reading.meanings.insert(id, meaning);
            }
            for (id, input) in cells.iter().filter(|(id, _)| node.outputs.contains(id)) {
                if let Some(Meaning::Row(row)) = reading.meanings.get(id) {
                    let width = row.width();
                    let row = reading.input(*id, *input, width)?;
                    reading.meanings.insert(*id, Meaning::Row(row));
                }
            }
        }
        Ok(reading)
    }

    /// Why a node's outputs are of no use: what came first, not what follows from it.
    fn why(&self, node: &Node, error: &Error) -> Rc<str> {
        let first = node.present_inputs().find_map(|id| match self.meanings.get(&id) {
            Some(Meaning::Other(why)) if error.message() == &**why => Some(why.clone()),
            _ => None,
        });
        first.unwrap_or_else(|| format!("{} node '{}': {error}", node.full_op(), node.name).into())
    }

    /// What the body's own inputs are.
    fn start(&mut self) -> Result<(), Error> {
        if let Some(&iteration) = self.body.inputs.first() {
            self.counts.known.insert(iteration, Count::ITERATION);
        }
        for (number, carried) in self.carried.clone().into_iter().enumerate() {
            let now = self.graph.value(carried.now);
            let meaning = if carried.next == carried.now {
                if let Some(count) = self.counts.of(carried.initial) {
                    self.counts.known.insert(carried.now, count);
                }
                self.outer(carried.initial)
            } else if matches!(now.dtype, DType::I32 | DType::I64) {
                if let Some(count) = self.counter(carried) {
                    self.counts.known.insert(carried.now, count);
                }
                Meaning::Other("an integer loop variable".into())
            } else if let (DType::F32, Some(width)) = (now.dtype, self.state_width(carried)) {
                Meaning::Row(self.atoms.state(number, width)?)
            } else {
                Meaning::Other(format!("loop variable '{}' is no state of a cell", now.name).into())
            };
            self.meanings.insert(carried.now, meaning);
        }
        Ok(())
    }

    /// An integer variable that grows by the same number in each step.
    fn counter(&self, carried: Carried) -> Option<Count> {
        let known = HashMap::from([(carried.now, Count::ITERATION)]);
        let step = Counts { known, ..self.counts }.of(carried.next)?;
        let step = Some(step).filter(|step| step.iterations == 1 && step.steps == 0)?;
        let initial = self.counts.of(carried.initial)?;
        Count { iterations: step.add, steps: 0, add: 0 }.plus(initial)
    }

    /// The width of a variable `[batch, width]`.
    fn state_width(&self, carried: Carried) -> Option<usize> {
        let ids = [carried.now, carried.next, carried.initial];
        let mut width = None;
        for dims in ids.iter().filter_map(|&id| self.graph.value(id).dims.as_deref()) {
            let [_, last] = dims else { return None };
            width = width.or(last.fixed());
        }
        width.filter(|&width| width > 0 && width <= MAX_WIDTH)
    }

    /// A whole input of the step as a row.
    pub(super) fn input(&mut self, id: ValueId, input: Input, width: usize) -> Result<Rc<Row>, Error> {
        let number = self.inputs.iter().position(|known| *known == input).unwrap_or_else(|| {
            self.inputs.push(input);
            self.inputs.len() - 1
        });
        self.reads.push((id, number));
        self.atoms.input(number, width)
    }

    /// What a value is, of the body or of around it.
    pub(super) fn meaning(&self, id: ValueId) -> Meaning {
        match self.meanings.get(&id) {
            Some(meaning) => meaning.clone(),
            None => self.outer(id),
        }
    }

    /// The row that a value is.
    ///
    /// # Errors
    /// The reason why it is none.
    pub(super) fn row(&self, id: ValueId) -> Result<Rc<Row>, Error> {
        match self.meaning(id) {
            Meaning::Row(row) => Ok(row),
            Meaning::Other(why) => Err(Error::unsupported(&*why)),
            Meaning::Constant(_) | Meaning::Outer(_) => {
                let name = &self.graph.value(id).name;
                Err(Error::unsupported(format!("value '{name}' does not come from the step")))
            }
        }
    }

    fn outer(&self, id: ValueId) -> Meaning {
        match self.graph.value(id).constant.clone().or_else(|| uniform(&self.counts, id, 32)) {
            Some(constant) => Meaning::Constant(constant),
            None => Meaning::Outer(id),
        }
    }

    fn node(&mut self, node: &Node) -> Result<Vec<Meaning>, Error> {
        let unknown = || Error::unsupported("not an operator of a recurrent cell");
        if !node.domain.is_empty() || !node.blocks.is_empty() {
            return Err(unknown());
        }
        let inputs: Vec<_> = node.inputs.iter().map(|id| id.map(|id| self.meaning(id))).collect();
        if let Some(constants) = fold(self.graph, node, &inputs)? {
            return Ok(constants);
        }
        let given = |at: usize| inputs.get(at).and_then(Option::as_ref).ok_or_else(unknown);
        let one = |row: Rc<Row>| Ok(vec![Meaning::Row(row)]);
        match node.op.as_str() {
            "Identity" | "Dropout" => Ok(vec![given(0)?.clone()]),
            "Add" | "Sub" | "Mul" | "Div" | "Max" | "Min" => {
                one(self.arithmetic(&node.op, given(0)?, given(1)?)?)
            }
            "Neg" => one(Row::scaled(&row(given(0)?)?, &Factors::Same(-1.0))),
            "MatMul" => one(Rc::new(times(&*row(given(0)?)?, &matrix(given(1)?, false)?)?)),
            "Gemm" => one(self.gemm(node, &inputs)?),
            "Clip" => {
                let bound = |at: usize, open: f64| match inputs.get(at).and_then(Option::as_ref) {
                    None => Ok(open),
                    Some(bound) => number(bound),
                };
                let (low, high) = (bound(1, f64::NEG_INFINITY)?, bound(2, f64::INFINITY)?);
                one(self.atoms.clip(&row(given(0)?)?, low, high)?)
            }
            "Gather" => self.gather(node, &inputs),
            "Slice" => one(self.slice(node, &inputs)?),
            "Split" => self.split(node, &inputs),
            "Concat" => one(self.concat(node, &inputs)?),
            "ConstantOfShape" => {
                let first = node.outputs.first().and_then(|&id| uniform(&self.counts, id, 1));
                Ok(vec![Meaning::Constant(first.ok_or_else(unknown)?)])
            }
            "Reshape" | "Squeeze" | "Unsqueeze" | "Expand" => Ok(vec![self.reshaped(node, given(0)?)?]),
            _ => {
                let activation = activation(node)?.ok_or_else(unknown)?;
                one(self.atoms.activate(activation, &row(given(0)?)?)?)
            }
        }
    }

    fn arithmetic(&mut self, op: &str, a: &Meaning, b: &Meaning) -> Result<Rc<Row>, Error> {
        match (op, a, b) {
            (_, Meaning::Row(a), Meaning::Row(b)) => {
                if a.width() != b.width() {
                    let (a, b) = (a.width(), b.width());
                    return Err(Error::unsupported(format!("rows of {a} and {b} columns")));
                }
                match op {
                    "Add" => Ok(Rc::new(a.plus(b)?)),
                    "Sub" => Ok(Rc::new(a.minus(b)?)),
                    "Mul" => self.atoms.product(a, b),
                    _ => Err(Error::unsupported("of two values of the step")),
                }
            }
            ("Max", Meaning::Row(a), b) | ("Max", b, Meaning::Row(a)) => {
                self.atoms.clip(a, number(b)?, f64::INFINITY)
            }
            ("Min", Meaning::Row(a), b) | ("Min", b, Meaning::Row(a)) => {
                self.atoms.clip(a, f64::NEG_INFINITY, number(b)?)
            }
            ("Add", Meaning::Row(a), b) | ("Add", b, Meaning::Row(a)) => {
                Ok(Row::shifted(a, &factors(b, a.width())?))
            }
            ("Sub", Meaning::Row(a), b) => Ok(Row::shifted(a, &factors(b, a.width())?.map(|x| -x))),
            ("Sub", a, Meaning::Row(b)) => {
                Ok(Row::shifted(&Row::scaled(b, &Factors::Same(-1.0)), &factors(a, b.width())?))
            }
            ("Mul", Meaning::Row(a), b) | ("Mul", b, Meaning::Row(a)) => {
                Ok(Row::scaled(a, &factors(b, a.width())?))
            }
            ("Div", Meaning::Row(a), b) => Ok(Row::scaled(a, &factors(b, a.width())?.map(|x| 1.0 / x))),
            _ => Err(no_row(a)
                .or_else(|| no_row(b))
                .unwrap_or_else(|| Error::unsupported("no arithmetic of a cell"))),
        }
    }

    fn gemm(&mut self, node: &Node, inputs: &[Option<Meaning>]) -> Result<Rc<Row>, Error> {
        let [Some(a), Some(b), rest @ ..] = inputs else { return Err(Error::invalid("lacks inputs")) };
        if node.attributes.flag("transA", false)? {
            return Err(Error::unsupported("a transposed row"));
        }
        let weights = matrix(b, node.attributes.flag("transB", false)?)?;
        let alpha = Factors::Same(node.attributes.float("alpha", 1.0)?.into());
        let product = Row::scaled(&Rc::new(times(&*row(a)?, &weights)?), &alpha);
        let beta = f64::from(node.attributes.float("beta", 1.0)?);
        match rest.first().and_then(Option::as_ref) {
            None => Ok(product),
            Some(Meaning::Row(c)) if c.width() == product.width() => {
                Ok(Rc::new(product.plus(&Row::scaled(c, &Factors::Same(beta)))?))
            }
            Some(c) => Ok(Row::shifted(&product, &factors(c, product.width())?.map(|x| x * beta))),
        }
    }

    /// A row stays one when only dimensions of 1 come or go before it.
    fn reshaped(&self, node: &Node, data: &Meaning) -> Result<Meaning, Error> {
        let dims = node.outputs.first().and_then(|&id| self.graph.value(id).dims.as_deref());
        let width = dims.and_then(|dims| dims.last()?.fixed());
        match data {
            Meaning::Row(row) => {
                let rest = dims.and_then(|dims| dims.len().checked_sub(2).map(|n| &dims[..n]));
                let stays = rest.is_some_and(|rest| rest.iter().all(|dim| *dim == Dim::Fixed(1)));
                let stays = stays && width == Some(row.width());
                stays.then(|| data.clone()).ok_or_else(|| Error::unsupported("a row that changes its shape"))
            }
            Meaning::Constant(constant) if node.is("Expand") => {
                let constant = same_everywhere(constant).unwrap_or_else(|| constant.clone());
                Ok(Meaning::Constant(constant))
            }
            other => Err(no_row(other).unwrap_or_else(|| Error::unsupported("not of the step"))),
        }
    }
}

pub(super) fn row(meaning: &Meaning) -> Result<Rc<Row>, Error> {
    match meaning {
        Meaning::Row(row) => Ok(row.clone()),
        other => Err(no_row(other).unwrap_or_else(|| Error::unsupported("of a constant"))),
    }
}

/// The reason why a value can be no part of a row.
pub(super) fn no_row(meaning: &Meaning) -> Option<Error> {
    match meaning {
        Meaning::Other(why) => Some(Error::unsupported(&**why)),
        Meaning::Outer(_) => Some(Error::unsupported("of a value of around the loop")),
        _ => None,
    }
}

fn times(row: &Row, by: &Matrix) -> Result<Row, Error> {
    if row.width() != by.n_rows {
        let (width, n_rows) = (row.width(), by.n_rows);
        return Err(Error::invalid(format!("a row of {width} columns times a matrix of {n_rows} rows")));
    }
    row.times(by)
}

fn activation(node: &Node) -> Result<Option<Activation>, Error> {
    let number = |name: &str, default: f32| node.attributes.float(name, default).map(f64::from);
    Ok(Some(match node.op.as_str() {
        "Sigmoid" => Activation::Sigmoid,
        "Tanh" => Activation::Tanh,
        "Relu" => Activation::Relu,
        "HardSigmoid" => Activation::HardSigmoid { alpha: number("alpha", 0.2)?, beta: number("beta", 0.5)? },
        "Elu" => Activation::Elu { alpha: number("alpha", 1.0)? },
        "LeakyRelu" => Activation::LeakyRelu { alpha: number("alpha", 0.01)? },
        "ThresholdedRelu" => Activation::ThresholdedRelu { alpha: number("alpha", 1.0)? },
        "Softsign" => Activation::Softsign,
        "Softplus" => Activation::Softplus,
        _ => return Ok(None),
    }))
}
