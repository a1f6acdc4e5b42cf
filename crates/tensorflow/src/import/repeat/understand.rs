//! What an iteration says of a loop's variables.

use std::rc::Rc;

use salver_graph::{Block, Dim, ValueId};
use salver_tensor::DType;

use super::{Kind, MAX_CARRIED_ITEMS, Start, Variable, common};
use crate::Error;
use crate::import::list::refined;
use crate::import::session::Session;
use crate::import::symbol::{Content, List, Symbol};

impl Session<'_, '_> {
    /// What an iteration says of a variable; whether that is new.
    pub(super) fn understand(
        &mut self,
        variable: &mut Variable,
        at: usize,
        start: &Start,
        block: &Block,
        output: &Symbol,
        value: Option<ValueId>,
    ) -> Result<bool, Error> {
        if matches!(output, Symbol::Missing | Symbol::Dead) {
            return Ok(false);
        }
        if *output == start.symbols[at] && variable.kind != Kind::Fixed {
            variable.kind = Kind::Fixed;
            return Ok(true);
        }
        match (&variable.kind, value) {
            (Kind::Fixed, _) if *output != start.symbols[at] => {
                Err(Error::unsupported("a loop that replaces something that is not a tensor"))
            }
            (Kind::Carried(dtype, dims), Some(value)) => {
                let next = self.builder.dtype(value);
                if next != *dtype {
                    return Err(Error::invalid(format!("a loop variable is {dtype} and becomes {next}")));
                }
                if let Some(step) = self.step(start, at, block, value) {
                    variable.kind = Kind::Counter(step);
                    return Ok(true);
                }
                let joined = common(dims.as_deref(), self.builder.dims(value));
                let changed = joined != *dims;
                variable.kind = Kind::Carried(*dtype, joined);
                Ok(changed)
            }
            (Kind::Stacked(dims), Some(value)) => {
                let joined = common(dims.as_deref(), self.builder.dims(value));
                let changed = joined != *dims;
                variable.kind = Kind::Stacked(joined);
                Ok(changed)
            }
            (Kind::Items(dims), _) => self.understand_items(variable, &dims.clone(), output),
            _ => Ok(false),
        }
    }

    fn understand_items(
        &mut self,
        variable: &mut Variable,
        dims: &[Option<Vec<Dim>>],
        output: &Symbol,
    ) -> Result<bool, Error> {
        let (Symbol::List(initial), Symbol::List(next)) = (variable.initial.clone(), output) else {
            return Err(Error::invalid("a list becomes a tensor"));
        };
        let Content::Items(next) = &next.content else {
            self.demote(variable, Some(output))?;
            return Ok(true);
        };
        if next.len() != dims.len() {
            self.demote(variable, Some(output))?;
            return Ok(true);
        }
        let is_set = |at: usize| match &initial.content {
            Content::Items(items) => items.get(at).is_some_and(Option::is_some),
            _ => false,
        };
        let mut joined = Vec::with_capacity(dims.len());
        for (at, (old, next)) in dims.iter().zip(next).enumerate() {
            let next = next.and_then(|value| self.builder.dims(value)).map(<[Dim]>::to_vec);
            joined.push(match (old, &next) {
                // Nothing is set before the loop, so the first iteration says what it is.
                (None, next) if !is_set(at) => next.clone(),
                (Some(old), Some(next)) if !is_set(at) => refined(Some(old), Some(next)),
                (old, next) => common(old.as_deref(), next.as_deref()),
            });
        }
        let changed = joined != dims;
        variable.kind = Kind::Items(joined);
        Ok(changed)
    }

    /// By how much a whole number grows, when the block adds a constant to it.
    fn step(&self, start: &Start, at: usize, block: &Block, value: ValueId) -> Option<i64> {
        let [input] = start.inputs[at].as_slice() else { return None };
        if !matches!(self.builder.dtype(value), DType::I32 | DType::I64)
            || self.builder.rank(*input) != Some(0)
        {
            return None;
        }
        let node = block.nodes.iter().find(|node| node.outputs.contains(&value))?;
        let known = |id: Option<ValueId>| match self.builder.known_ints(id?)?.as_slice() {
            [step] if *step != 0 => Some(*step),
            _ => None,
        };
        let (a, b) = (node.input(0), node.input(1));
        match (a == Some(*input), b == Some(*input)) {
            (true, _) if node.is("Add") => known(b),
            (_, true) if node.is("Add") => known(a),
            (true, _) if node.is("Sub") => known(b)?.checked_neg(),
            _ => None,
        }
    }

    pub(super) fn demote_failed(
        &mut self,
        variables: &mut [Variable],
        first_open: usize,
    ) -> Result<(), Error> {
        let failed = self.failed_open.take();
        let at = self.last_opens[first_open..].iter().find(|(id, _)| Some(*id) == failed).map(|(_, at)| *at);
        let at = at.ok_or_else(|| Error::unsupported("a list of a loop around is needed as a whole"))?;
        self.demote(&mut variables[at], None)
    }

    /// Carries a list, as single elements or as one tensor.
    pub(super) fn demote(&mut self, variable: &mut Variable, output: Option<&Symbol>) -> Result<(), Error> {
        let Symbol::List(list) = &variable.initial else {
            return Err(Error::invalid("a loop variable that is not a list"));
        };
        let next = match output {
            Some(Symbol::List(next)) => next.dims.as_deref(),
            _ => None,
        };
        let list = Rc::new(List { dims: refined(list.dims.as_deref(), next), ..List::clone(list) });
        let items = match &list.content {
            Content::Items(items) => Some(items.clone()),
            Content::Unset(n) => match self.builder.known_ints(*n).as_deref() {
                Some([n]) => {
                    usize::try_from(*n).ok().filter(|&n| n <= MAX_CARRIED_ITEMS).map(|n| vec![None; n])
                }
                _ => None,
            },
            _ => None,
        };
        let single = items
            .filter(|items| variable.kind == Kind::Scanned && (1..=MAX_CARRIED_ITEMS).contains(&items.len()));
        variable.kind = match single {
            Some(items) => {
                let dims = items.iter().map(|item| match item {
                    Some(item) => self.builder.dims(*item).map(<[Dim]>::to_vec),
                    None => list.dims.clone(),
                });
                Kind::Items(dims.collect())
            }
            None => Kind::Stacked(
                list.dims
                    .as_ref()
                    .map(|dims| std::iter::once(Dim::Unknown).chain(dims.iter().cloned()).collect()),
            ),
        };
        variable.initial = Symbol::List(list);
        Ok(())
    }
}
