//! The `Loop` itself.

use std::collections::{HashMap, HashSet};

use salver_graph::{Attributes, Block, Dim, Node, ValueId};
use salver_tensor::DType;

use super::trips::Trips;
use super::{Kind, Repeated, Start, Variable, set_of};
use crate::Error;
use crate::import::session::Session;
use crate::import::symbol::{Content, List, SetAt, Symbol};

/// A value that goes from one iteration to the next.
struct Carried {
    variable: usize,
    initial: ValueId,
    /// Whether the initial value only stands for "nothing is set".
    is_unset: bool,
    input: ValueId,
    output: ValueId,
}

/// A value of each iteration, given back along a new first axis.
struct Scan {
    variable: usize,
    at: SetAt,
    counter: Option<usize>,
    item: ValueId,
}

impl<'a> Session<'_, 'a> {
    /// Makes the loop of variables that are understood, and gives their last values.
    pub(super) fn make(
        &mut self,
        name: &str,
        repeated: &mut Repeated<'_, 'a>,
        variables: &[Variable],
        wanted: &[bool],
    ) -> Result<Vec<Symbol>, Error> {
        let initial = || variables.iter().map(|variable| variable.initial.clone()).collect::<Vec<_>>();
        let trips = self.trips(repeated, variables)?;
        let (limit, go_on) = match trips {
            Trips::Never => return Ok(initial()),
            Trips::Counted(trips) => (Some(trips), None),
            Trips::Open => {
                let condition = self.condition(repeated, &initial())?;
                let condition = self.value(&condition)?;
                if self.known_truth(condition) == Some(false) {
                    return Ok(initial());
                }
                (None, Some(self.scalar(condition)?))
            }
        };
        let firsts = self.initial_values(variables)?;
        let start = self.start(variables)?;
        let outputs = self.body(repeated, &start.symbols)?;
        let next = match limit {
            Some(_) => self.truth(&[true]),
            None => {
                let condition = self.condition(repeated, &outputs)?;
                let condition = self.value(&condition)?;
                self.scalar(condition)?
            }
        };
        let (carried, scans) = self.ends(variables, &start, &outputs, &firsts, limit.is_some(), wanted)?;
        let mut block = self.builder.end_block(&[]);
        let makers = makers(&block);
        let (kept, used) = needed(&carried, &scans, next, &block, &makers, wanted);
        let twins = twins(&carried, &kept, &used);
        let kept: Vec<usize> = kept.into_iter().filter(|at| !twins.contains_key(at)).collect();
        let mut inputs = vec![limit, go_on];
        inputs.extend(kept.iter().map(|&at| Some(carried[at].initial)));
        let (iteration, condition) = (block.inputs[0], block.inputs[1]);
        block.inputs = vec![iteration, condition];
        block.inputs.extend(kept.iter().map(|&at| carried[at].input));
        block.outputs = vec![next];
        block.outputs.extend(kept.iter().map(|&at| carried[at].output));
        block.outputs.extend(scans.iter().map(|scan| scan.item));
        block.nodes.retain(|node| node.outputs.iter().any(|output| used.contains(output)));
        let n = kept.len() + scans.len();
        let values = if n == 0 {
            Vec::new()
        } else {
            self.builder.with_blocks(name, "Loop", &inputs, Attributes::new(), vec![("body", block)], n)?
        };
        let place = |at: usize| kept.iter().position(|&own| own == at).map(|position| values[position]);
        let last: Vec<Option<ValueId>> =
            (0..carried.len()).map(|at| place(twins.get(&at).copied().unwrap_or(at))).collect();
        let stacks: Vec<ValueId> = values[kept.len()..].to_vec();
        self.results(variables, &outputs, &carried, &last, &scans, &stacks, limit)
    }

    /// The initial values of what is carried, and whether each only stands for "nothing is set".
    fn initial_values(&mut self, variables: &[Variable]) -> Result<Vec<Vec<(ValueId, bool)>>, Error> {
        let mut all = Vec::with_capacity(variables.len());
        for variable in variables {
            all.push(match (&variable.kind, &variable.initial) {
                (Kind::Carried(..) | Kind::Counter(_), initial) => vec![(self.value(initial)?, false)],
                (Kind::Stacked(_), Symbol::List(list)) => vec![(self.stacked(list)?, false)],
                (Kind::Items(dims), Symbol::List(list)) => {
                    let mut values = Vec::with_capacity(dims.len());
                    for (at, dims) in dims.iter().enumerate() {
                        let item = match &list.content {
                            Content::Items(items) => items.get(at).copied().flatten(),
                            _ => None,
                        };
                        values.push(match item {
                            Some(item) => (item, false),
                            None => (self.nothing(list.dtype, dims.as_deref())?, true),
                        });
                    }
                    values
                }
                _ => Vec::new(),
            });
        }
        Ok(all)
    }

    /// Zeros for an element that is not set. Where a dimension is not known it is 1: TensorFlow cannot read such an
    /// element before it is set either.
    fn nothing(&mut self, dtype: DType, dims: Option<&[Dim]>) -> Result<ValueId, Error> {
        let dims =
            dims.ok_or_else(|| Error::unsupported("the shape of an element of a list is not known"))?;
        if let Ok(zeros) = self.zeros(dtype, dims) {
            return Ok(zeros);
        }
        let fixed: Vec<Dim> = dims.iter().map(|dim| Dim::Fixed(dim.fixed().unwrap_or(1))).collect();
        self.zeros(dtype, &fixed)
    }

    fn ends(
        &mut self,
        variables: &[Variable],
        start: &Start,
        outputs: &[Symbol],
        firsts: &[Vec<(ValueId, bool)>],
        is_counted: bool,
        wanted: &[bool],
    ) -> Result<(Vec<Carried>, Vec<Scan>), Error> {
        let (mut carried, mut scans) = (Vec::new(), Vec::new());
        for (at, variable) in variables.iter().enumerate() {
            let mut ends = Vec::new();
            let mut inputs = start.inputs[at].clone();
            match (&variable.kind, &outputs[at]) {
                (Kind::Carried(..), output) => ends.push(self.value(output)?),
                // The last value of a counter is not known when the number of iterations is not.
                (Kind::Counter(_), output) if !is_counted && wanted.get(at) == Some(&true) => {
                    let value = self.value(output)?;
                    inputs.push(self.builder.block_input("counter", self.builder.dtype(value), Some(vec![])));
                    ends.push(value);
                }
                (Kind::Stacked(_), Symbol::List(list)) => ends.push(self.stacked(list)?),
                (Kind::Items(_), Symbol::List(list)) => match &list.content {
                    Content::Items(items) => ends.extend(items.iter().flatten()),
                    _ => return Err(Error::invalid("a short list that became something else")),
                },
                (Kind::Scanned, output) if wanted.get(at) == Some(&true) => {
                    let (set_at, item) = set_of(output, start.opens[at])
                        .ok_or_else(|| Error::invalid("a list that did not get its element"))?;
                    let counter = match set_at {
                        SetAt::Index(index) => start.counter_of(index).flatten(),
                        SetAt::End => None,
                    };
                    scans.push(Scan { variable: at, at: set_at, counter, item });
                }
                _ => {}
            }
            let kept = firsts[at].iter().zip(inputs).zip(ends);
            carried.extend(kept.map(|((&(initial, is_unset), input), output)| Carried {
                variable: at,
                initial,
                is_unset,
                input,
                output,
            }));
        }
        Ok((carried, scans))
    }

    /// The variables after the loop.
    #[expect(clippy::too_many_arguments, reason = "all that the loop gave")]
    fn results(
        &mut self,
        variables: &[Variable],
        outputs: &[Symbol],
        carried: &[Carried],
        last: &[Option<ValueId>],
        scans: &[Scan],
        stacks: &[ValueId],
        limit: Option<ValueId>,
    ) -> Result<Vec<Symbol>, Error> {
        let mut results = Vec::with_capacity(variables.len());
        for (at, variable) in variables.iter().enumerate() {
            let own: Vec<Option<ValueId>> = carried
                .iter()
                .zip(last)
                .filter(|(one, _)| one.variable == at)
                .map(|(_, last)| *last)
                .collect();
            let one = own.first().copied().flatten();
            results.push(match (&variable.kind, &outputs[at]) {
                (Kind::Fixed, _) => variable.initial.clone(),
                (Kind::Counter(step), _) => match (limit, one) {
                    (Some(trips), _) => Symbol::Value(self.counted_to(variable, *step, trips)?),
                    (None, Some(last)) => Symbol::Value(last),
                    (None, None) => Symbol::Missing,
                },
                (Kind::Carried(..), _) => one.map_or(Symbol::Missing, Symbol::Value),
                (Kind::Stacked(_), Symbol::List(list)) => {
                    one.map_or(Symbol::Missing, |value| list.with(Content::Stacked(value)))
                }
                (Kind::Items(_), Symbol::List(list)) => {
                    let all = own.iter().all(Option::is_some);
                    if all { list.with(Content::Items(own)) } else { Symbol::Missing }
                }
                (Kind::Scanned, Symbol::List(list)) => {
                    let scan = scans.iter().position(|scan| scan.variable == at);
                    match scan {
                        None => Symbol::Missing,
                        Some(scan) => {
                            self.scanned(variable, list, &scans[scan], stacks[scan], variables, limit)?
                        }
                    }
                }
                _ => return Err(Error::invalid("a loop variable that is a list and is not")),
            });
        }
        Ok(results)
    }

    fn counted_to(&mut self, variable: &Variable, step: i64, trips: ValueId) -> Result<ValueId, Error> {
        let first = self.value(&variable.initial)?;
        let dtype = self.builder.dtype(first);
        let mut way = trips;
        if step != 1 {
            let step = self.builder.i64(step);
            way = self.builder.op("counter", "Mul", &[way, step], Attributes::new())?;
        }
        let way = self.cast(way, dtype)?;
        if self.builder.known_ints(first) == Some(vec![0]) {
            return Ok(way);
        }
        self.builder.op("counter", "Add", &[first, way], Attributes::new())
    }

    /// A list that got an element per iteration: what was before them, they, and what comes behind them.
    fn scanned(
        &mut self,
        variable: &Variable,
        list: &List,
        scan: &Scan,
        stack: ValueId,
        variables: &[Variable],
        limit: Option<ValueId>,
    ) -> Result<Symbol, Error> {
        let Symbol::List(initial) = &variable.initial else {
            return Err(Error::invalid("a loop variable that is not a list"));
        };
        let length = variable.length.ok_or_else(|| Error::invalid("a list without length"))?;
        let axis = || Attributes::new().with("axis", 0i64);
        let known_length = self.builder.known_ints(length);
        let before = List { dtype: list.dtype, dims: list.dims.clone(), content: initial.content.clone() };
        if known_length == Some(vec![0]) {
            return Ok(list.with(Content::Stacked(stack)));
        }
        if scan.at == SetAt::End {
            let before = self.stacked(&before)?;
            let joined = self.builder.op("list", "Concat", &[before, stack], axis())?;
            return Ok(list.with(Content::Stacked(joined)));
        }
        let trips = match limit {
            Some(trips) => trips,
            None => self.length(&List { content: Content::Stacked(stack), ..list.clone() })?,
        };
        let first = match scan.counter {
            None => self.builder.i64(0),
            Some(counter) => {
                let first = self.value(&variables[counter].initial)?;
                self.cast(first, DType::I64)?
            }
        };
        let from_start = self.builder.known_ints(first) == Some(vec![0]);
        if from_start && self.same_int(length, trips) {
            return Ok(list.with(Content::Stacked(stack)));
        }
        let axes = self.builder.i64s(&[0]);
        let vector = |session: &mut Self, value: ValueId| {
            let one = session.builder.i64s(&[1]);
            session.builder.op("position", "Reshape", &[value, one], Attributes::new())
        };
        let is_unset = match &initial.content {
            Content::Unset(_) => true,
            Content::Items(items) => items.iter().all(Option::is_none),
            _ => false,
        };
        if from_start && is_unset {
            let rest = self.builder.op("rest", "Sub", &[length, trips], Attributes::new())?;
            let rest = vector(self, rest)?;
            let shape = self.builder.op("shape", "Shape", &[stack], Attributes::new())?;
            let (one, end) = (self.builder.i64s(&[1]), self.builder.i64s(&[i64::MAX]));
            let sizes = self.builder.op("shape", "Slice", &[shape, one, end], Attributes::new())?;
            let shape = self.builder.op("shape", "Concat", &[rest, sizes], axis())?;
            let zero = self.zeros(list.dtype, &[])?;
            let zeros = self.builder.op("rest", "Expand", &[zero, shape], Attributes::new())?;
            let joined = self.builder.op("list", "Concat", &[stack, zeros], axis())?;
            return Ok(list.with(Content::Stacked(joined)));
        }
        let before = self.stacked(&before)?;
        let end = self.builder.op("end", "Add", &[first, trips], Attributes::new())?;
        let (first, end) = (vector(self, first)?, vector(self, end)?);
        let (zero, far) = (self.builder.i64s(&[0]), self.builder.i64s(&[i64::MAX]));
        let head = self.builder.op("head", "Slice", &[before, zero, first, axes], Attributes::new())?;
        let tail = self.builder.op("tail", "Slice", &[before, end, far, axes], Attributes::new())?;
        let joined = self.builder.op("list", "Concat", &[head, stack, tail], axis())?;
        Ok(list.with(Content::Stacked(joined)))
    }
}

fn makers(block: &Block) -> HashMap<ValueId, usize> {
    let nodes = block.nodes.iter().enumerate();
    nodes.flat_map(|(at, node)| node.outputs.iter().map(move |&id| (id, at))).collect()
}

/// The carried values that the wanted results need, and all values that are used.
fn needed(
    carried: &[Carried],
    scans: &[Scan],
    next: ValueId,
    block: &Block,
    makers: &HashMap<ValueId, usize>,
    wanted: &[bool],
) -> (Vec<usize>, HashSet<ValueId>) {
    let by_input: HashMap<ValueId, usize> =
        carried.iter().enumerate().map(|(at, one)| (one.input, at)).collect();
    let mut kept: Vec<bool> = carried.iter().map(|one| wanted.get(one.variable) == Some(&true)).collect();
    let mut used = HashSet::new();
    let mut queue = vec![next];
    queue.extend(scans.iter().map(|scan| scan.item));
    queue.extend(carried.iter().zip(&kept).filter(|(_, kept)| **kept).map(|(one, _)| one.output));
    while let Some(value) = queue.pop() {
        if !used.insert(value) {
            continue;
        }
        if let Some(&at) = by_input.get(&value) {
            if !std::mem::replace(&mut kept[at], true) {
                queue.push(carried[at].output);
            }
        } else if let Some(&at) = makers.get(&value) {
            inputs_of(&block.nodes[at], &mut queue);
        }
    }
    ((0..carried.len()).filter(|&at| kept[at]).collect(), used)
}

/// All values that a node uses, those in its blocks too.
fn inputs_of(node: &Node, values: &mut Vec<ValueId>) {
    values.extend(node.present_inputs());
    for (_, block) in &node.blocks {
        values.extend(&block.outputs);
        block.visit(&mut |inner| {
            values.extend(inner.present_inputs());
            values.extend(inner.blocks.iter().flat_map(|(_, block)| &block.outputs));
        });
    }
}

/// Carried values that no iteration reads and that are always the same as another one: what stands for an element that
/// is not set, or what starts with the same value.
fn twins(carried: &[Carried], kept: &[usize], used: &HashSet<ValueId>) -> HashMap<usize, usize> {
    let mut twins = HashMap::new();
    for &at in kept {
        let one = &carried[at];
        let same = |other: &&usize| {
            let two = &carried[**other];
            **other != at
                && two.output == one.output
                && !twins.contains_key(*other)
                && (one.is_unset && !two.is_unset || one.initial == two.initial && **other < at)
        };
        if used.contains(&one.input) {
            continue;
        }
        if let Some(&other) = kept.iter().find(same) {
            twins.insert(at, other);
        }
    }
    twins
}
