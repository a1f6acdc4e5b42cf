//! Loops, of functions or of nodes, as ONNX's `Loop`; the form is written down in [`super`].
//!
//! What a loop variable is shows when the body is tried: one that comes out as it went in is not a variable, one that
//! grows by a constant is the number of the iteration in disguise, a list that gets its next element is an output per
//! iteration. Trying is repeated until nothing new shows; then the condition is read as a number of iterations, if it
//! compares counters with what is known before the loop.

use salver_graph::{Dim, ValueId};
use salver_tensor::DType;

use super::frame::Frame;
use super::node::Symbols;
use super::session::Session;
use super::symbol::{Content, Open, SetAt, Symbol};
use crate::Error;

mod emit;
mod exit;
mod trips;
mod understand;

/// How often a body is tried before a loop is given up.
const MAX_PASSES: usize = 24;

/// Lists up to this length are carried element by element when they cannot be outputs per iteration.
const MAX_CARRIED_ITEMS: usize = 8;

/// The condition and the body of a loop.
pub(super) enum Repeated<'r, 'a> {
    Functions {
        condition: &'r str,
        body: &'r str,
    },
    /// A loop of the frame's control flow, and the positions of those of its variables that are needed.
    Nodes {
        frame: &'r mut Frame<'a>,
        at: usize,
        positions: Vec<usize>,
    },
}

/// A loop variable, as far as it is understood.
#[derive(Debug, Clone)]
struct Variable {
    initial: Symbol,
    /// How long an initial list is, an int64 scalar.
    length: Option<ValueId>,
    kind: Kind,
}

#[derive(Debug, Clone, PartialEq)]
enum Kind {
    /// The same in all iterations.
    Fixed,
    /// The initial value plus so much per iteration.
    Counter(i64),
    Carried(DType, Option<Vec<Dim>>),
    /// A list that gets one element per iteration, in order.
    Scanned,
    /// A short list, element by element.
    Items(Vec<Option<Vec<Dim>>>),
    /// A list as one tensor of these dimensions.
    Stacked(Option<Vec<Dim>>),
}

/// The start of an iteration.
#[derive(Debug)]
struct Start {
    iteration: ValueId,
    symbols: Vec<Symbol>,
    /// The block's inputs of each variable.
    inputs: Vec<Vec<ValueId>>,
    opens: Vec<Option<Open>>,
    /// Whether the variable grows by one per iteration.
    counts: Vec<bool>,
}

/// What is known of an iteration's list.
fn set_of(symbol: &Symbol, open: Option<Open>) -> Option<(SetAt, ValueId)> {
    let Symbol::List(list) = symbol else { return None };
    match &list.content {
        Content::Set(own, at, item) if Some(*own) == open => Some((*at, *item)),
        _ => None,
    }
}

/// What two ways to one value have in common.
fn common(a: Option<&[Dim]>, b: Option<&[Dim]>) -> Option<Vec<Dim>> {
    let (a, b) = (a?, b?);
    let dim = |(a, b): (&Dim, &Dim)| if a == b { a.clone() } else { Dim::Unknown };
    (a.len() == b.len()).then(|| a.iter().zip(b).map(dim).collect())
}

impl<'a> Session<'_, 'a> {
    /// A loop with these variables; `wanted` says of which the last value is used.
    pub(super) fn repeat(
        &mut self,
        name: &str,
        repeated: &mut Repeated<'_, 'a>,
        initial: Vec<Symbol>,
        wanted: &[bool],
    ) -> Symbols {
        if let Some(special) = [Symbol::Dead, Symbol::Missing].into_iter().find(|one| initial.contains(one)) {
            return Ok(vec![special; initial.len().max(1)]);
        }
        let depth = self.builder.depth();
        let before = self.current.clone();
        let first_open = self.last_opens.len();
        let outcome = self.repeat_in(name, repeated, initial, wanted, depth);
        self.last_opens.truncate(first_open);
        if outcome.is_err() {
            self.close_blocks(depth);
            self.current = before;
        }
        outcome
    }

    fn repeat_in(
        &mut self,
        name: &str,
        repeated: &mut Repeated<'_, 'a>,
        initial: Vec<Symbol>,
        wanted: &[bool],
        depth: usize,
    ) -> Symbols {
        let first_open = self.last_opens.len();
        let mut variables = Vec::with_capacity(initial.len());
        for symbol in initial {
            variables.push(self.loop_variable(symbol)?);
        }
        for _ in 0..MAX_PASSES {
            let ids = self.n_open;
            let missing = self.missing.clone();
            match self.pass(name, repeated, &mut variables, wanted, first_open) {
                Ok(Some(results)) => return Ok(results),
                Ok(None) => self.missing = missing,
                Err(error) => match self.failed_open.filter(|&id| id >= ids) {
                    None => return Err(error),
                    Some(_) => {
                        self.close_blocks(depth);
                        self.missing = missing;
                        self.demote_failed(&mut variables, first_open)?;
                    }
                },
            }
        }
        Err(Error::unsupported("a loop whose variables do not settle"))
    }

    /// Tries the body once more; makes the loop when nothing new shows.
    fn pass(
        &mut self,
        name: &str,
        repeated: &mut Repeated<'_, 'a>,
        variables: &mut [Variable],
        wanted: &[bool],
        first_open: usize,
    ) -> Result<Option<Vec<Symbol>>, Error> {
        let before = self.current.clone();
        self.last_opens.truncate(first_open);
        let start = self.start(variables)?;
        let outputs = self.body(repeated, &start.symbols)?;
        if self.current != before {
            return Err(Error::unsupported("a loop that assigns to a variable"));
        }
        let mut values = Vec::with_capacity(outputs.len());
        for (variable, output) in variables.iter().zip(&outputs) {
            values.push(match (&variable.kind, output) {
                (_, Symbol::Missing | Symbol::Dead) => None,
                (Kind::Carried(..) | Kind::Counter(_) | Kind::Stacked(_), output) => {
                    Some(self.value(output)?)
                }
                _ => None,
            });
        }
        let block = self.builder.end_block(&[]);
        let mut changed = false;
        for (at, variable) in variables.iter_mut().enumerate() {
            changed |= self.understand(variable, at, &start, &block, &outputs[at], values[at])?;
        }
        if !changed {
            for (at, variable) in variables.iter_mut().enumerate() {
                if variable.kind == Kind::Scanned && !scans(&start, at, &outputs[at]) {
                    self.demote(variable, Some(&outputs[at]))?;
                    changed = true;
                }
            }
        }
        if changed {
            return Ok(None);
        }
        if outputs.contains(&Symbol::Missing) {
            return Ok(Some(vec![Symbol::Missing; variables.len()]));
        }
        self.make(name, repeated, variables, wanted).map(Some)
    }

    fn loop_variable(&mut self, initial: Symbol) -> Result<Variable, Error> {
        let (length, kind) = match &initial {
            Symbol::List(list) => (Some(self.length(list)?), Kind::Scanned),
            Symbol::Value(_) | Symbol::Stored(_) => {
                let value = self.value(&initial)?;
                let dims = self.builder.dims(value).map(<[Dim]>::to_vec);
                (None, Kind::Carried(self.builder.dtype(value), dims))
            }
            _ => (None, Kind::Fixed),
        };
        Ok(Variable { initial, length, kind })
    }

    /// Begins the block of the body and makes its inputs.
    fn start(&mut self, variables: &[Variable]) -> Result<Start, Error> {
        self.builder.begin_block()?;
        let iteration = self.builder.block_input("iteration", DType::I64, Some(vec![]));
        self.builder.block_input("go_on", DType::Bool, Some(vec![]));
        let mut start = Start {
            iteration,
            symbols: Vec::new(),
            inputs: Vec::new(),
            opens: Vec::new(),
            counts: Vec::new(),
        };
        for (at, variable) in variables.iter().enumerate() {
            let (mut inputs, mut open) = (Vec::new(), None);
            let symbol = match (&variable.kind, &variable.initial) {
                (Kind::Fixed, initial) => initial.clone(),
                (Kind::Counter(step), initial) => Symbol::Value(self.counter(iteration, initial, *step)?),
                (Kind::Carried(dtype, dims), _) => {
                    let value = self.builder.block_input(&format!("state_{at}"), *dtype, dims.clone());
                    inputs.push(value);
                    Symbol::Value(value)
                }
                (Kind::Scanned, Symbol::List(list)) => {
                    let length = variable.length.ok_or_else(|| Error::invalid("a list without length"))?;
                    let new = Open { id: self.n_open, length };
                    self.n_open += 1;
                    self.last_opens.push((new.id, at));
                    open = Some(new);
                    list.with(Content::Open(new))
                }
                (Kind::Items(dims), Symbol::List(list)) => {
                    for dims in dims {
                        let name = format!("state_{at}");
                        inputs.push(self.builder.block_input(&name, list.dtype, dims.clone()));
                    }
                    list.with(Content::Items(inputs.iter().copied().map(Some).collect()))
                }
                (Kind::Stacked(dims), Symbol::List(list)) => {
                    let value = self.builder.block_input(&format!("state_{at}"), list.dtype, dims.clone());
                    inputs.push(value);
                    list.with(Content::Stacked(value))
                }
                _ => return Err(Error::invalid("a loop variable that is a list and is not")),
            };
            start.symbols.push(symbol);
            start.inputs.push(inputs);
            start.opens.push(open);
            start.counts.push(variable.kind == Kind::Counter(1));
        }
        Ok(start)
    }

    fn counter(&mut self, iteration: ValueId, initial: &Symbol, step: i64) -> Result<ValueId, Error> {
        use salver_graph::Attributes;
        let first = self.value(initial)?;
        let dtype = self.builder.dtype(first);
        let mut count = self.cast(iteration, dtype)?;
        if step != 1 {
            let step = self.int(step, dtype)?;
            count = self.builder.op("counter", "Mul", &[count, step], Attributes::new())?;
        }
        if self.builder.known_ints(first) != Some(vec![0]) {
            return self.builder.op("counter", "Add", &[count, first], Attributes::new());
        }
        if step == 1 {
            self.iterations.insert(count, iteration);
        }
        Ok(count)
    }

    /// The condition at the start of an iteration.
    fn condition(&mut self, repeated: &mut Repeated<'_, 'a>, symbols: &[Symbol]) -> Result<Symbol, Error> {
        match repeated {
            Repeated::Functions { condition, .. } => {
                let outputs = self.call(condition, symbols.to_vec())?;
                outputs.into_iter().next().ok_or_else(|| Error::invalid("a condition that gives nothing"))
            }
            Repeated::Nodes { frame, at, positions } => {
                let net = frame.net.clone();
                let flow = net.flow.as_ref().ok_or_else(|| Error::invalid("a loop without control flow"))?;
                let source = flow.loops[*at].condition;
                let mark = frame.mark();
                for (&position, symbol) in positions.iter().zip(symbols) {
                    let merge = flow.loops[*at].variables[position].merge;
                    frame.bind(merge, vec![symbol.clone(), Symbol::Missing]);
                }
                let outcome = self.compute(frame, &[source.node]).and_then(|()| frame.get(source));
                frame.undo(mark);
                outcome
            }
        }
    }

    /// The variables after an iteration.
    fn body(&mut self, repeated: &mut Repeated<'_, 'a>, symbols: &[Symbol]) -> Symbols {
        let outputs = match repeated {
            Repeated::Functions { body, .. } => self.call(body, symbols.to_vec())?,
            Repeated::Nodes { frame, at, positions } => {
                let net = frame.net.clone();
                let flow = net.flow.as_ref().ok_or_else(|| Error::invalid("a loop without control flow"))?;
                let variables: Vec<_> =
                    positions.iter().map(|&at_| &flow.loops[*at].variables[at_]).collect();
                let mark = frame.mark();
                for (variable, symbol) in variables.iter().zip(symbols) {
                    frame.bind(variable.merge, vec![symbol.clone(), Symbol::Missing]);
                    if let Some(switch) = variable.switch {
                        frame.bind(switch, vec![Symbol::Dead, symbol.clone()]);
                    }
                }
                let targets: Vec<usize> = variables.iter().map(|variable| variable.next.node).collect();
                let outcome = self.compute(frame, &targets).and_then(|()| {
                    variables.iter().map(|variable| frame.get(variable.next)).collect::<Symbols>()
                });
                frame.undo(mark);
                outcome?
            }
        };
        if outputs.len() != symbols.len() {
            let (n, expected) = (outputs.len(), symbols.len());
            return Err(Error::invalid(format!("the body of a loop gives {n} values, expected {expected}")));
        }
        // A reference to a variable stands for what is in it now.
        let mut read = Vec::with_capacity(outputs.len());
        for (output, before) in outputs.into_iter().zip(symbols) {
            read.push(match output {
                Symbol::Variable(_) if matches!(before, Symbol::Value(_)) => {
                    Symbol::Value(self.value(&output)?)
                }
                Symbol::Stored(_) => Symbol::Value(self.value(&output)?),
                output => output,
            });
        }
        Ok(read)
    }
}

/// Whether a list gets its next element in this iteration.
fn scans(start: &Start, at: usize, output: &Symbol) -> bool {
    match set_of(output, start.opens[at]) {
        Some((SetAt::End, _)) => true,
        Some((SetAt::Index(index), _)) => start.counter_of(index).is_some(),
        None => false,
    }
}

impl Start {
    /// The variable that counts the iterations and is this index; its own position for the number of the iteration.
    fn counter_of(&self, index: ValueId) -> Option<Option<usize>> {
        if index == self.iteration {
            return Some(None);
        }
        let own = |(symbol, counts): (&Symbol, &bool)| *counts && *symbol == Symbol::Value(index);
        self.symbols.iter().zip(&self.counts).position(own).map(Some)
    }
}
