//! The number of iterations, from a condition that compares counters with what is known before the loop.

use std::collections::{BTreeSet, HashMap};

use salver_graph::{Attributes, Block, Item, Node, ValueId};
use salver_tensor::DType;

use super::{Kind, Repeated, Start, Variable};
use crate::Error;
use crate::import::session::Session;
use crate::import::symbol::Symbol;

/// How often a loop runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trips {
    /// That often, an int64 scalar.
    Counted(ValueId),
    /// Until the condition says so.
    Open,
    Never,
}

/// A comparison of a counter with a limit.
struct Limit {
    variable: usize,
    step: i64,
    limit: ValueId,
    inclusive: bool,
}

impl<'a> Session<'_, 'a> {
    /// How often a loop runs whose variables are understood.
    pub(super) fn trips(
        &mut self,
        repeated: &mut Repeated<'_, 'a>,
        variables: &[Variable],
    ) -> Result<Trips, Error> {
        let start = self.start(variables)?;
        let condition = self.condition(repeated, &start.symbols)?;
        let condition = self.value(&condition)?;
        let block = self.builder.end_block(&[]);
        match self.known_truth(condition) {
            Some(false) => return Ok(Trips::Never),
            Some(true) => return Err(Error::unsupported("a loop that never ends")),
            None => {}
        }
        let Some(limits) = self.limits(condition, &block, &start, variables) else { return Ok(Trips::Open) };
        let mut trips: Vec<ValueId> = Vec::new();
        for limit in limits {
            let Some(hoisted) = self.hoisted(&block, limit.limit)? else { return Ok(Trips::Open) };
            let own = self.trips_to(&Limit { limit: hoisted, ..limit }, variables)?;
            if !trips.iter().any(|&known| self.same_int(known, own)) {
                trips.push(own);
            }
        }
        let Some((&first, rest)) = trips.split_first() else { return Ok(Trips::Open) };
        let mut least = first;
        for &next in rest {
            least = self.builder.op("trips", "Min", &[least, next], Attributes::new())?;
        }
        let is_size = self.builder.items(least).is_some_and(|items| matches!(items, [Item::Dim(_)]));
        if !is_size {
            let zero = self.builder.i64(0);
            least = self.builder.op("trips", "Max", &[least, zero], Attributes::new())?;
        }
        Ok(Trips::Counted(least))
    }

    /// The comparisons that must all hold; `None` when the condition is something else.
    fn limits(
        &self,
        condition: ValueId,
        block: &Block,
        start: &Start,
        variables: &[Variable],
    ) -> Option<Vec<Limit>> {
        let makers: HashMap<ValueId, &Node> =
            block.nodes.iter().flat_map(|node| node.outputs.iter().map(move |&id| (id, node))).collect();
        let mut limits = Vec::new();
        let mut queue = vec![(condition, true)];
        while let Some((value, holds)) = queue.pop() {
            if self.known_truth(value) == Some(holds) {
                continue;
            }
            let node = makers.get(&value)?;
            let (a, b) = (node.input(0)?, node.input(1));
            match (node.op.as_str(), holds) {
                _ if !node.domain.is_empty() => return None,
                ("Not", _) => queue.push((a, !holds)),
                ("And", true) | ("Or", false) => queue.extend([(a, holds), (b?, holds)]),
                ("Reshape" | "Squeeze", _) => queue.push((a, holds)),
                (op, _) => limits.push(self.limit(op, holds, a, b?, &makers, start, variables)?),
            }
        }
        Some(limits)
    }

    #[expect(clippy::too_many_arguments, reason = "one comparison in all its parts")]
    fn limit(
        &self,
        op: &str,
        holds: bool,
        a: ValueId,
        b: ValueId,
        makers: &HashMap<ValueId, &Node>,
        start: &Start,
        variables: &[Variable],
    ) -> Option<Limit> {
        let counter = |value: ValueId| {
            let mut value = value;
            while let Some(node) = makers.get(&value).filter(|node| node.is("Cast")) {
                match start.symbols.iter().position(|symbol| *symbol == Symbol::Value(value)) {
                    Some(_) => break,
                    None => value = node.input(0)?,
                }
            }
            let at = start.symbols.iter().position(|symbol| *symbol == Symbol::Value(value))?;
            match variables[at].kind {
                Kind::Counter(step) => Some((at, step)),
                _ => None,
            }
        };
        let (less, inclusive) = match op {
            "Less" => (true, false),
            "LessOrEqual" => (true, true),
            "Greater" => (false, false),
            "GreaterOrEqual" => (false, true),
            _ => return None,
        };
        let (less, inclusive) = if holds { (less, inclusive) } else { (!less, !inclusive) };
        let ((variable, step), limit, less) = match (counter(a), counter(b)) {
            (Some(counter), None) => (counter, b, less),
            (None, Some(counter)) => (counter, a, !less),
            _ => return None,
        };
        // Counting away from the limit may go on for ever.
        (less == (step > 0)).then_some(Limit { variable, step, limit, inclusive })
    }

    /// The same value computed before the loop; `None` when it depends on the iteration.
    fn hoisted(&mut self, block: &Block, value: ValueId) -> Result<Option<ValueId>, Error> {
        let makers: HashMap<ValueId, usize> = (block.nodes.iter().enumerate())
            .flat_map(|(at, node)| node.outputs.iter().map(move |&id| (id, at)))
            .collect();
        let mut needed = BTreeSet::new();
        let mut queue = vec![value];
        while let Some(value) = queue.pop() {
            if block.inputs.contains(&value) {
                return Ok(None);
            }
            let Some(&at) = makers.get(&value) else { continue };
            let node = &block.nodes[at];
            if !node.blocks.is_empty() {
                return Ok(None);
            }
            if needed.insert(at) {
                queue.extend(node.present_inputs());
            }
        }
        let mut moved: HashMap<ValueId, ValueId> = HashMap::new();
        for at in needed {
            let node = &block.nodes[at];
            let inputs: Vec<_> =
                node.inputs.iter().map(|id| id.map(|id| moved.get(&id).copied().unwrap_or(id))).collect();
            let (name, domain, op) = (&node.name, &node.domain, &node.op);
            let attributes = node.attributes.clone();
            let outputs = self.builder.ops(name, domain, op, &inputs, attributes, node.outputs.len())?;
            moved.extend(node.outputs.iter().copied().zip(outputs));
        }
        Ok(Some(moved.get(&value).copied().unwrap_or(value)))
    }

    /// How often a counter can step before it is at its limit; negative when it is beyond from the start.
    fn trips_to(&mut self, limit: &Limit, variables: &[Variable]) -> Result<ValueId, Error> {
        let first = self.value(&variables[limit.variable].initial)?;
        let (first, end) = (self.cast(first, DType::I64)?, self.cast(limit.limit, DType::I64)?);
        let end = self.scalar(end)?;
        let (from, to) = if limit.step > 0 { (first, end) } else { (end, first) };
        let mut way = to;
        if self.builder.known_ints(from) != Some(vec![0]) {
            way = self.builder.op("trips", "Sub", &[to, from], Attributes::new())?;
        }
        let step = limit.step.checked_abs().ok_or_else(|| Error::invalid("a step of -2^63"))?;
        let more = if limit.inclusive { step } else { step - 1 };
        if more != 0 {
            let more = self.builder.i64(more);
            way = self.builder.op("trips", "Add", &[way, more], Attributes::new())?;
        }
        if step != 1 {
            let step = self.builder.i64(step);
            way = self.builder.op("trips", "Div", &[way, step], Attributes::new())?;
        }
        Ok(way)
    }

    /// One element without dimensions.
    pub(super) fn scalar(&mut self, value: ValueId) -> Result<ValueId, Error> {
        if self.builder.rank(value) == Some(0) {
            return Ok(value);
        }
        let empty = self.builder.i64s(&[]);
        self.builder.op("scalar", "Reshape", &[value, empty], Attributes::new())
    }
}
