//! Integers that count: which step of a sequence a loop's iteration reads and writes.

use std::collections::HashMap;

use crate::ir::{Dim, Graph, Item, Node, ValueId};

/// How far an integer is followed back through nodes.
const MAX_DEPTH: usize = 48;

/// How many values are looked at for one integer.
const MAX_VISITS: usize = 1024;

/// `iterations · i + steps · M + add`, where `i` is the iteration from 0 on and `M` the number of iterations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Count {
    pub(super) iterations: i64,
    pub(super) steps: i64,
    pub(super) add: i64,
}

impl Count {
    pub(super) const ITERATION: Count = Count { iterations: 1, steps: 0, add: 0 };
    pub(super) const STEPS: Count = Count { iterations: 0, steps: 1, add: 0 };

    pub(super) fn number(add: i64) -> Count {
        Count { iterations: 0, steps: 0, add }
    }

    pub(super) fn plus(self, other: Count) -> Option<Count> {
        Some(Count {
            iterations: self.iterations.checked_add(other.iterations)?,
            steps: self.steps.checked_add(other.steps)?,
            add: self.add.checked_add(other.add)?,
        })
    }

    pub(super) fn times(self, by: i64) -> Option<Count> {
        Some(Count {
            iterations: self.iterations.checked_mul(by)?,
            steps: self.steps.checked_mul(by)?,
            add: self.add.checked_mul(by)?,
        })
    }

    /// `M - 1 - i`, of so many steps.
    pub(super) fn from_the_end(n_steps: Count) -> Option<Count> {
        n_steps.plus(Count::number(-1))?.plus(Count::ITERATION.times(-1)?)
    }

    /// The number, when it is always the same.
    pub(super) fn fixed(self) -> Option<i64> {
        (self.iterations == 0 && self.steps == 0).then_some(self.add)
    }
}

/// Follows integers of one graph, each a scalar or a single element.
#[derive(Clone)]
pub(super) struct Counts<'a> {
    pub(super) graph: &'a Graph,
    pub(super) producers: &'a HashMap<ValueId, &'a Node>,
    /// What is known beside constants.
    pub(super) known: HashMap<ValueId, Count>,
}

impl Counts<'_> {
    /// The value as a count, if it is one.
    pub(super) fn of(&self, id: ValueId) -> Option<Count> {
        self.follow(id, MAX_DEPTH, &mut { MAX_VISITS })
    }

    fn follow(&self, id: ValueId, depth: usize, visits: &mut usize) -> Option<Count> {
        if let Some(count) = self.known.get(&id) {
            return Some(*count);
        }
        let value = self.graph.value(id);
        if let Some([Item::Int(number)]) = value.items.as_deref() {
            return Some(Count::number(*number));
        }
        if let Some(tensor) = &value.constant {
            let one = tensor.shape().n_elements() == 1;
            let wide = tensor.to_slice::<i64>().and_then(|ints| ints.first().copied());
            let narrow = || tensor.to_slice::<i32>().and_then(|ints| ints.first().copied().map(i64::from));
            return wide.or_else(narrow).filter(|_| one).map(Count::number);
        }
        let depth = depth.checked_sub(1)?;
        *visits = visits.checked_sub(1)?;
        let node = self.producers.get(&id).filter(|node| node.domain.is_empty())?;
        let mut input = |at: usize| self.follow(node.input(at)?, depth, visits);
        match node.op.as_str() {
            "Identity" | "Cast" | "Squeeze" | "Unsqueeze" | "Reshape" => input(0),
            "Concat" if node.inputs.len() == 1 => input(0),
            "Neg" => input(0)?.times(-1),
            "Add" => input(0)?.plus(input(1)?),
            "Sub" => input(0)?.plus(input(1)?.times(-1)?),
            "Mul" => match (input(0)?, input(1)?) {
                (count, by) if by.fixed().is_some() => count.times(by.fixed()?),
                (by, count) => count.times(by.fixed()?),
            },
            // The size of a dimension that the number of iterations is known to be: the same items.
            _ => {
                let items = value.items.as_deref().filter(|items| items.len() == 1)?;
                let same = self.known.iter().find(|(id, count)| {
                    **count == Count::STEPS && self.graph.value(**id).items.as_deref() == Some(items)
                });
                same.filter(|_| matches!(items, [Item::Dim(_)])).map(|(_, count)| *count)
            }
        }
    }
}

/// A dimension of a value, as far as it can be counted.
pub(super) fn length(counts: &Counts<'_>, id: ValueId, axis: usize) -> Option<Count> {
    match counts.graph.value(id).dims.as_deref().and_then(|dims| dims.get(axis)) {
        Some(Dim::Fixed(size)) => return i64::try_from(*size).ok().map(Count::number),
        Some(Dim::Symbol(name)) => {
            let is_steps = counts.known.iter().any(|(id, count)| {
                let items = counts.graph.value(*id).items.as_deref();
                *count == Count::STEPS && matches!(items, Some([Item::Dim(dim)]) if dim == name)
            });
            if is_steps {
                return Some(Count::STEPS);
            }
        }
        _ => {}
    }
    let node = counts.producers.get(&id).filter(|node| node.domain.is_empty() && axis == 0)?;
    let shape = match node.op.as_str() {
        "Expand" => node.input(1)?,
        "ConstantOfShape" => node.input(0)?,
        _ => return None,
    };
    let sizes = counts.producers.get(&shape).filter(|node| node.is("Concat"))?;
    let first = sizes.input(0)?;
    let is_one = counts.graph.value(first).dims.as_deref() == Some(&[Dim::Fixed(1)]);
    counts.of(first).filter(|_| is_one)
}
