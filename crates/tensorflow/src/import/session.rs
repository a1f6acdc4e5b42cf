//! Making one graph: nodes of a network are computed on demand, each once, without calling itself for each node.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use salver_graph::{Attributes, Builder, Dim, ValueId};
use salver_tensor::{DType, Shape, Tensor};

use super::flow::decider;
use super::frame::{Frame, MissingOps, Slot};
use super::model::Shared;
use super::net::Source;
use super::symbol::Symbol;
use super::table::TableContent;
use crate::ops::{self, View};
use crate::proto::NodeDef;
use crate::{Error, ErrorKind};

/// How many nodes may be computed for one graph; functions that call others twice at each level make many.
const MAX_STEPS: usize = 1_000_000;

/// How deep functions may call each other.
const MAX_CALLS: usize = 24;

/// What a graph is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To be run.
    Signature,
    /// To learn what is restored or initialised: what cannot be computed is left out.
    Load,
}

/// One graph while it is made.
pub(super) struct Session<'m, 'a> {
    pub(super) model: &'m Shared<'a>,
    pub(super) purpose: Purpose,
    pub(super) builder: Builder,
    /// Variables whose content is not that of the checkpoint.
    pub(super) current: BTreeMap<usize, Symbol>,
    pub(super) tables: BTreeMap<usize, TableContent>,
    constants: HashMap<usize, ValueId>,
    /// Variables that were assigned to, and all that were used.
    pub(super) assigned: BTreeSet<usize>,
    pub(super) used: BTreeSet<usize>,
    pub(super) missing: MissingOps,
    calls: Vec<String>,
    n_steps: usize,
    /// Values that count from zero in steps of one, with their end.
    pub(super) ranges: HashMap<ValueId, ValueId>,
    /// Values that are all ones.
    ones: HashSet<ValueId>,
    /// The number of the iteration by the loop counters that are the same.
    pub(super) iterations: HashMap<ValueId, ValueId>,
    pub(super) n_open: usize,
    /// The list variable of a loop that was used in a way that needs all of it.
    pub(super) failed_open: Option<usize>,
    /// The list variables of the loop that is tried, with their positions.
    pub(super) last_opens: Vec<(usize, usize)>,
    /// Graph inputs, where sizes can be read at run time.
    pub(super) inputs: Vec<ValueId>,
}

impl<'m, 'a> Session<'m, 'a> {
    pub(super) fn new(model: &'m Shared<'a>, purpose: Purpose) -> Session<'m, 'a> {
        Session {
            model,
            purpose,
            builder: Builder::new(),
            current: BTreeMap::new(),
            tables: BTreeMap::new(),
            constants: HashMap::new(),
            assigned: BTreeSet::new(),
            used: BTreeSet::new(),
            missing: MissingOps::default(),
            calls: Vec::new(),
            n_steps: 0,
            ranges: HashMap::new(),
            ones: HashSet::new(),
            iterations: HashMap::new(),
            n_open: 0,
            failed_open: None,
            last_opens: Vec::new(),
            inputs: Vec::new(),
        }
    }

    /// Computes these nodes and all that they need.
    ///
    /// # Errors
    /// When the graph is broken; an operator that is missing is only noted.
    pub(super) fn compute(&mut self, frame: &mut Frame<'a>, targets: &[usize]) -> Result<(), Error> {
        let mut stack: Vec<usize> = targets.iter().rev().copied().collect();
        while let Some(&node) = stack.last() {
            if frame.is_done(node) {
                stack.pop();
                continue;
            }
            if matches!(frame.slots[node], Slot::Empty) {
                frame.slots[node] = Slot::Running;
                frame.log.push(node);
            }
            let waits_for = self.waits_for(frame, node)?;
            if waits_for.is_empty() {
                let outputs = self.node(frame, node)?;
                frame.slots[node] = Slot::Done(outputs);
                stack.pop();
                continue;
            }
            for &next in waits_for.iter().rev() {
                if matches!(frame.slots[next], Slot::Running) {
                    let message = "the graph has a cycle outside of loops";
                    return Err(Error::invalid(message).at(format!("node '{}'", frame.name(next))));
                }
                stack.push(next);
            }
        }
        Ok(())
    }

    /// The nodes that must be computed before this one and are not yet.
    fn waits_for(&mut self, frame: &mut Frame<'a>, at: usize) -> Result<Vec<usize>, Error> {
        let net = frame.net.clone();
        let Some(node) = net.nodes.get(at) else {
            return Err(Error::invalid("an argument of a function has no value"));
        };
        let mut needed: Vec<usize> = net.controls(at).collect();
        match node.def.op.as_str() {
            "Merge" | "RefMerge" => needed.extend(self.merge_waits_for(frame, at)?),
            "Exit" | "RefExit" => needed.extend(self.exit_waits_for(frame, at)?),
            // The name of the file does not matter.
            "RestoreV2" | "Restore" | "RestoreSlice" => {
                needed.extend(node.inputs.iter().skip(1).map(|source| source.node));
            }
            "Placeholder" | "PlaceholderV2" | "Const" => {}
            _ => needed.extend(node.inputs.iter().map(|source| source.node)),
        }
        needed.retain(|&next| !frame.is_done(next));
        Ok(needed)
    }

    fn node(&mut self, frame: &mut Frame<'a>, at: usize) -> Result<Vec<Symbol>, Error> {
        self.n_steps += 1;
        if self.n_steps > MAX_STEPS {
            return Err(Error::too_large(format!("more than {MAX_STEPS} nodes after functions are inlined")));
        }
        let net = frame.net.clone();
        let def = net.nodes[at].def;
        match self.structural(frame, at) {
            Ok(outputs) => Ok(outputs),
            Err(_) if self.failed_open.is_some() => Err(Error::unsupported("a list is needed as a whole")),
            Err(error) if error.kind() == ErrorKind::Unsupported => {
                self.note_missing(def, Some(error.message().to_owned()));
                Ok(vec![Symbol::Missing])
            }
            Err(error) if error.place().is_some() => Err(error),
            Err(error) => Err(error.at(format!("{} node '{}'", def.op, def.name))),
        }
    }

    /// Notes that an operator is not there, or not with these attributes.
    pub(super) fn note_missing(&mut self, def: &NodeDef, reason: Option<String>) {
        self.missing.add(&def.op, &def.name, reason);
    }

    /// A node that computes something from values.
    pub(super) fn pure(&mut self, def: &'a NodeDef, inputs: &[Symbol]) -> Result<Vec<Symbol>, Error> {
        if inputs.contains(&Symbol::Dead) {
            return Ok(vec![Symbol::Dead]);
        }
        if !ops::is_known(&def.op) {
            self.note_missing(def, None);
            return Ok(vec![Symbol::Missing]);
        }
        if inputs.iter().any(|input| self.is_missing(input)) {
            return Ok(vec![Symbol::Missing]);
        }
        let mut values = Vec::with_capacity(inputs.len());
        for input in inputs {
            values.push(self.value(input)?);
        }
        if let Some(same) = self.times_one(def, &values) {
            return Ok(vec![Symbol::Value(same)]);
        }
        let outputs = ops::map(&mut self.builder, &self.model.budget, &View::of(def), &values)?;
        if let ("Range", [start, limit, step], [range]) =
            (def.op.as_str(), values.as_slice(), outputs.as_slice())
            && self.builder.known_ints(*start) == Some(vec![0])
            && self.builder.known_ints(*step) == Some(vec![1])
        {
            self.ranges.insert(*range, *limit);
        }
        if let [filled] = outputs.as_slice()
            && (def.op == "OnesLike"
                || (def.op == "Fill" && values.get(1).is_some_and(|&one| self.is_one(one))))
        {
            self.ones.insert(*filled);
        }
        Ok(outputs.into_iter().map(Symbol::Value).collect())
    }

    fn is_one(&self, value: ValueId) -> bool {
        let one = self.builder.constant_of(value).filter(|tensor| tensor.shape().n_elements() == 1);
        one.and_then(|tensor| tensor.to_slice::<f32>()).is_some_and(|one| one.first() == Some(&1.0))
    }

    /// What is multiplied by ones of the same shape, as layers do with the dropout that they do not have now.
    fn times_one(&self, def: &NodeDef, values: &[ValueId]) -> Option<ValueId> {
        let [a, b] = values else { return None };
        let (ones, other) = match (self.ones.contains(a), self.ones.contains(b)) {
            _ if def.op != "Mul" => return None,
            (true, _) => (a, b),
            (_, true) => (b, a),
            _ => return None,
        };
        let (ones, dims) = (self.builder.dims(*ones)?, self.builder.dims(*other)?);
        let fits = ones.len() == dims.len() && ones.iter().zip(dims).all(|(one, dim)| one.is_same(dim));
        fits.then_some(*other)
    }

    /// Whether it cannot be computed because an operator is missing.
    pub(super) fn is_missing(&self, input: &Symbol) -> bool {
        let lost = |at| self.current.get(at) == Some(&Symbol::Missing);
        *input == Symbol::Missing || matches!(input, Symbol::Variable(at) if lost(at))
    }

    /// The value that a symbol stands for.
    ///
    /// # Errors
    /// When it is none, such as a table.
    pub(super) fn value(&mut self, symbol: &Symbol) -> Result<ValueId, Error> {
        match symbol {
            Symbol::Value(value) => Ok(*value),
            Symbol::Variable(at) => self.read(*at),
            Symbol::Stored(stored) => {
                let tensor = self.model.stored_tensor(stored)?;
                Ok(self.builder.constant(&stored.key, tensor))
            }
            Symbol::List(list) => self.stacked(list),
            Symbol::Table(_) => Err(Error::unsupported("a table is used as a tensor")),
            Symbol::Array => Err(Error::unsupported("the handle of a TensorArray is used as a tensor")),
            Symbol::Dead | Symbol::Missing => Err(Error::unsupported("a tensor that is not there is used")),
        }
    }

    /// The content of a variable.
    ///
    /// # Errors
    /// When neither the checkpoint nor an initialiser has it.
    pub(super) fn read(&mut self, at: usize) -> Result<ValueId, Error> {
        self.used.insert(at);
        if let Some(symbol) = self.current.get(&at).cloned() {
            return match symbol {
                Symbol::Variable(_) => Err(Error::invalid("a variable that holds a variable")),
                Symbol::Missing => Err(Error::unsupported("a variable is set to what cannot be computed")),
                symbol => self.value(&symbol),
            };
        }
        if let Some(&value) = self.constants.get(&at) {
            return Ok(value);
        }
        let tensor = self.model.initial(at)?;
        let value = self.builder.constant(&self.model.variable_name(at), tensor);
        self.constants.insert(at, value);
        Ok(value)
    }

    /// Sets a variable.
    pub(super) fn write(&mut self, at: usize, symbol: Symbol) {
        self.used.insert(at);
        self.assigned.insert(at);
        self.current.insert(at, symbol);
    }

    /// Computes a function of the model's library with these arguments.
    ///
    /// # Errors
    /// When there is no such function, it calls itself, or calls are nested too deep.
    pub(super) fn call(&mut self, name: &str, arguments: Vec<Symbol>) -> Result<Vec<Symbol>, Error> {
        let place = || format!("function '{name}'");
        if self.calls.iter().any(|running| running == name) {
            return Err(Error::invalid("the function calls itself").at(place()));
        }
        if self.calls.len() >= MAX_CALLS {
            return Err(Error::too_large(format!("functions nested more than {MAX_CALLS} deep")).at(place()));
        }
        let net = self.model.function(name).map_err(|error| error.at(place()))?;
        if arguments.len() != net.n_arguments {
            let (given, taken) = (arguments.len(), net.n_arguments);
            return Err(Error::invalid(format!("{given} arguments given, it takes {taken}")).at(place()));
        }
        let mut frame = Frame::new(net.clone(), &net.returns);
        let first = net.nodes.len();
        for (at, argument) in arguments.into_iter().enumerate() {
            frame.bind(first + at, vec![argument]);
        }
        // A large function of which little is needed costs something too.
        self.n_steps = self.n_steps.saturating_add(net.len() / 64);
        self.calls.push(name.to_owned());
        let effects = net.control_returns.iter().copied().filter(|&node| net.has_effect(node));
        let targets: Vec<usize> = net.returns.iter().map(|source| source.node).chain(effects).collect();
        let outcome = self.compute(&mut frame, &targets);
        self.calls.pop();
        outcome?;
        net.returns.iter().map(|&source| frame.get(source)).collect()
    }

    /// The branch that is taken, if it is known now: what decides is a constant, or we are in a branch of it.
    pub(super) fn known_branch(&self, frame: &Frame<'a>, source: Source) -> Option<usize> {
        let decides = decider(&frame.net, source);
        if let Some(branch) = frame.assumption(decides) {
            return Some(branch);
        }
        let Ok(Symbol::Value(value)) = frame.get(source) else { return None };
        if let Some(holds) = self.known_truth(value) {
            return Some(usize::from(holds));
        }
        match self.builder.known_ints(value).as_deref() {
            Some([index]) => Some(usize::try_from(*index).unwrap_or(usize::MAX)),
            _ => None,
        }
    }

    /// A truth that is known at import.
    pub(super) fn known_truth(&self, value: ValueId) -> Option<bool> {
        let tensor = self.builder.constant_of(value)?;
        let one = tensor.dtype() == DType::Bool && tensor.shape().n_elements() == 1;
        one.then(|| tensor.bytes().is_some_and(|bytes| bytes.first().is_some_and(|&byte| byte != 0)))
    }

    pub(super) fn truth(&mut self, holds: &[bool]) -> ValueId {
        let tensor = Tensor::from_bools(Shape::scalar(), holds).expect("one element");
        self.builder.constant("truth", tensor)
    }

    /// A constant int64 or int32 scalar.
    pub(super) fn int(&mut self, value: i64, dtype: DType) -> Result<ValueId, Error> {
        let int = self.builder.i64(value);
        self.cast(int, dtype)
    }

    pub(super) fn cast(&mut self, value: ValueId, dtype: DType) -> Result<ValueId, Error> {
        self.builder.op("cast", "Cast", &[value], Attributes::new().with("to", dtype))
    }

    /// Zeros (empty strings, false) of these dimensions. Open ones are read at run time from an input of the graph that
    /// has a dimension of the same name.
    ///
    /// # Errors
    /// When a dimension is not known in any way.
    pub(super) fn zeros(&mut self, dtype: DType, dims: &[Dim]) -> Result<ValueId, Error> {
        let scalar = Shape::scalar();
        let zero = match dtype.size() {
            None => Tensor::from_strings(scalar, vec![bytes::Bytes::new()]),
            Some(size) => Tensor::from_bytes(dtype, scalar, vec![0; size].into()),
        };
        let zero = zero.map_err(|error| Error::invalid(error.to_string()))?;
        let zero = self.builder.constant("zero", zero);
        let mut sizes = Vec::with_capacity(dims.len());
        for dim in dims {
            sizes.push(self.size(dim)?);
        }
        if sizes.is_empty() {
            return Ok(zero);
        }
        let shape = self.builder.op("shape", "Concat", &sizes, Attributes::new().with("axis", 0i64))?;
        self.builder.op("zeros", "Expand", &[zero, shape], Attributes::new())
    }

    /// A dimension as an int64 vector of one element.
    fn size(&mut self, dim: &Dim) -> Result<ValueId, Error> {
        match dim {
            Dim::Fixed(size) => {
                let size = i64::try_from(*size).map_err(|_| Error::too_large("a dimension beyond 2^63"))?;
                Ok(self.builder.i64s(&[size]))
            }
            Dim::Unknown => Err(Error::unsupported("the shape of an element of a list is not known")),
            Dim::Symbol(_) => {
                let at = |value: &ValueId| self.builder.dims(*value)?.iter().position(|own| own == dim);
                let found = self.inputs.iter().find_map(|value| Some((*value, at(value)?)));
                let (value, axis) = found
                    .ok_or_else(|| Error::unsupported("the shape of an element of a list is not known"))?;
                let shape = self.builder.op("shape", "Shape", &[value], Attributes::new())?;
                let axis = self.builder.i64s(&[i64::try_from(axis).unwrap_or(0)]);
                self.builder.op("size", "Gather", &[shape, axis], Attributes::new().with("axis", 0i64))
            }
        }
    }

    /// Drops the blocks that an error left open.
    pub(super) fn close_blocks(&mut self, depth: usize) {
        while self.builder.depth() > depth {
            self.builder.drop_block();
        }
    }
}
