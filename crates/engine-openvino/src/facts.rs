//! What a graph says of the whole numbers in it: what they are made of, and between which bounds they lie.
//!
//! OpenVINO does not look at every position and size that it is given: some that lie outside of a tensor make it read or
//! write other memory. What is not known to lie inside is not given to it, or is looked at when a run begins
//! ([`Condition`]).

use std::cell::OnceCell;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use salver_graph::{Dim, Graph, Item, Node, ValueId};
use salver_tensor::{DType, Tensor};

/// What must be so of a run's inputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Condition {
    /// No element of an integer input is below the one or above the other.
    Within { input: ValueId, from: i64, to: i64 },
    /// No dimension of that name is smaller.
    AtLeast { symbol: Arc<str>, size: usize },
    /// All dimensions of that name are the same size.
    Alike { symbol: Arc<str> },
}

/// The smallest and the largest of some elements.
type Bounds = (i64, i64);

/// How many nodes are followed from a value to what it is made of.
const MAX_STEPS: usize = 64;

/// A graph and, once it is asked for, which node makes which value.
#[derive(Debug)]
pub(crate) struct Facts<'a> {
    pub(crate) graph: &'a Graph,
    makers: OnceCell<HashMap<ValueId, &'a Node>>,
}

impl<'a> Facts<'a> {
    pub(crate) fn new(graph: &'a Graph) -> Facts<'a> {
        Facts { graph, makers: OnceCell::new() }
    }

    fn maker(&self, id: ValueId) -> Option<&'a Node> {
        let makers = self.makers.get_or_init(|| {
            let mut makers = HashMap::new();
            self.graph.body().visit(&mut |node| makers.extend(node.outputs.iter().map(|&id| (id, node))));
            makers
        });
        makers.get(&id).copied()
    }

    fn constant(&self, id: ValueId) -> Option<&'a Tensor> {
        self.graph.value(id).constant.as_ref()
    }

    /// Whether an input of the graph has a dimension of that name.
    pub(crate) fn is_of_inputs(&self, symbol: &str) -> bool {
        self.graph.inputs().iter().any(|&id| {
            let dims = self.graph.value(id).dims.as_deref().unwrap_or_default();
            dims.iter().any(|dim| matches!(dim, Dim::Symbol(name) if &**name == symbol))
        })
    }

    /// Whether a value is computed from nothing but constants and shapes.
    pub(crate) fn is_settled(&self, id: ValueId) -> bool {
        let (mut seen, mut left) = (HashSet::from([id]), vec![id]);
        while let Some(id) = left.pop() {
            let value = self.graph.value(id);
            let is_known = value.constant.is_some()
                || value.items.as_ref().is_some_and(|items| !items.contains(&Item::Unknown));
            if is_known {
                continue;
            }
            let Some(maker) = self.maker(id).filter(|maker| maker.blocks.is_empty()) else { return false };
            if !maker.is("Shape") && !maker.is("Size") {
                left.extend(maker.present_inputs().filter(|&id| seen.insert(id)));
            }
        }
        true
    }

    /// Bounds of an integer value, given those of the graph's inputs that it is made of, which are added to `leaves`.
    fn bounds(
        &self,
        id: ValueId,
        given: Bounds,
        leaves: &mut Vec<ValueId>,
        n_steps: usize,
    ) -> Option<Bounds> {
        let value = self.graph.value(id);
        if let Some(constant) = &value.constant {
            return of_constant(constant);
        }
        match value.dtype {
            DType::Bool => return Some((0, 1)),
            DType::U8 => return Some((0, u8::MAX.into())),
            DType::I8 => return Some((i8::MIN.into(), i8::MAX.into())),
            DType::I32 | DType::I64 => {}
            _ => return None,
        }
        if let Some(known) = value.items.as_deref().and_then(of_items) {
            return Some(known);
        }
        if self.graph.inputs().contains(&id) {
            leaves.push(id);
            return Some(given);
        }
        let node = self.maker(id).filter(|node| node.domain.is_empty())?;
        let n_steps = n_steps.checked_sub(1)?;
        self.of_node(node, id, given, leaves, n_steps)
    }

    fn of_node(
        &self,
        node: &Node,
        id: ValueId,
        given: Bounds,
        leaves: &mut Vec<ValueId>,
        n_steps: usize,
    ) -> Option<Bounds> {
        let mut of = |at: usize| self.bounds(node.input(at)?, given, leaves, n_steps);
        match node.op.as_str() {
            "Identity" | "Reshape" | "Squeeze" | "Unsqueeze" | "Transpose" | "Flatten" | "Expand"
            | "Slice" | "Tile" | "Split" | "Cast" | "DepthToSpace" | "SpaceToDepth" => of(0),
            "Concat" => {
                let all = (0..node.inputs.len()).map(of).collect::<Option<Vec<_>>>()?;
                all.into_iter().reduce(joined)
            }
            "Add" => {
                let (a, b) = (of(0)?, of(1)?);
                narrow(a.0.checked_add(b.0)?, a.1.checked_add(b.1)?)
            }
            "Sub" => {
                let (a, b) = (of(0)?, of(1)?);
                narrow(a.0.checked_sub(b.1)?, a.1.checked_sub(b.0)?)
            }
            "Max" | "Min" if node.inputs.len() == 2 => {
                let (a, b) = (of(0)?, of(1)?);
                if node.op == "Max" {
                    Some((a.0.max(b.0), a.1.max(b.1)))
                } else {
                    Some((a.0.min(b.0), a.1.min(b.1)))
                }
            }
            "ArgMax" | "ArgMin" => {
                let dims = self.graph.value(node.input(0)?).dims.as_deref()?;
                let size = dims.get(axis(node, dims.len())?)?.fixed()?;
                Some((0, i64::try_from(size).ok()?.checked_sub(1)?))
            }
            "Shape" => Some((0, i32::MAX.into())),
            "Where" => self.wrapped(node, given, leaves, n_steps).or_else(|| {
                Some(joined(
                    self.bounds(node.input(1)?, given, leaves, n_steps)?,
                    self.bounds(node.input(2)?, given, leaves, n_steps)?,
                ))
            }),
            _ => None,
        }
        .filter(|_| node.outputs.contains(&id))
    }

    /// Of `Where(x < 0, x + n, x)`, as negative positions are counted from the end.
    fn wrapped(
        &self,
        node: &Node,
        given: Bounds,
        leaves: &mut Vec<ValueId>,
        n_steps: usize,
    ) -> Option<Bounds> {
        let (is_below, plus, x) = (node.input(0)?, node.input(1)?, node.input(2)?);
        let is = |id: ValueId, int: i64| self.constant(id).and_then(of_constant) == Some((int, int));
        let less = self.maker(is_below).filter(|node| node.is("Less"))?;
        let add = self.maker(plus).filter(|node| node.is("Add"))?;
        if less.input(0)? != x || !is(less.input(1)?, 0) {
            return None;
        }
        let by = match (add.input(0)?, add.input(1)?) {
            (a, by) if a == x => by,
            (by, a) if a == x => by,
            _ => return None,
        };
        let by = self.constant(by).and_then(of_constant).filter(|by| by.0 == by.1)?.0;
        let (low, high) = self.bounds(x, given, leaves, n_steps)?;
        let below = (low < 0).then(|| Some((low.checked_add(by)?, high.min(-1).checked_add(by)?)));
        let above = (high >= 0).then_some((low.max(0), high));
        match (below, above) {
            (None, above) => above,
            (Some(below), None) => below,
            (Some(below), Some(above)) => Some(joined(below?, above)),
        }
    }

    /// What must be so for all elements of `index` to be positions in a dimension, counted from its start or, if negative,
    /// from its end; `None` when that cannot be told.
    pub(crate) fn lies_in(&self, index: ValueId, dim: &Dim) -> Option<Vec<Condition>> {
        let size = match dim {
            Dim::Fixed(size) => i64::try_from(*size).ok()?,
            Dim::Symbol(_) => i64::from(i32::MAX),
            Dim::Unknown => return None,
        };
        let (from, to) = (size.checked_neg()?, size.checked_sub(1)?);
        let mut leaves = Vec::new();
        let (low, high) = self.bounds(index, (from, to), &mut leaves, MAX_STEPS)?;
        self.holds((low, high), dim).filter(|_| leaves.is_empty() || dim.fixed().is_some()).map(|mut all| {
            leaves.sort_unstable();
            leaves.dedup();
            all.extend(leaves.into_iter().map(|input| Condition::Within { input, from, to }));
            all
        })
    }

    /// As [`Facts::lies_in`], of elements between these bounds.
    pub(crate) fn holds(&self, (low, high): Bounds, dim: &Dim) -> Option<Vec<Condition>> {
        let least = high.checked_add(1)?.max(low.checked_neg()?);
        let least = usize::try_from(least.max(0)).ok()?;
        self.is_at_least(dim, least)
    }

    /// What must be so for a dimension to have that size or more.
    pub(crate) fn is_at_least(&self, dim: &Dim, size: usize) -> Option<Vec<Condition>> {
        match dim {
            Dim::Fixed(fixed) => (*fixed >= size).then(Vec::new),
            Dim::Symbol(symbol) => {
                self.is_of_inputs(symbol).then(|| vec![Condition::AtLeast { symbol: symbol.clone(), size }])
            }
            Dim::Unknown => None,
        }
    }

    /// What must be so for two dimensions to be of one size.
    pub(crate) fn is_alike(&self, a: &Dim, b: &Dim) -> Option<Vec<Condition>> {
        match (a, b) {
            (Dim::Fixed(a), Dim::Fixed(b)) => (a == b).then(Vec::new),
            (Dim::Symbol(a), Dim::Symbol(b)) => {
                (a == b).then(|| vec![Condition::Alike { symbol: a.clone() }])
            }
            _ => None,
        }
    }

    /// Whether float32 holds every element of an integer value, so that it may be compared with any other.
    pub(crate) fn is_small(&self, id: ValueId) -> bool {
        const LARGEST: i64 = (1 << 24) - 1;
        let any = (i32::MIN.into(), i32::MAX.into());
        let bounds = self.bounds(id, any, &mut Vec::new(), MAX_STEPS);
        bounds.is_some_and(|(low, high)| low >= -LARGEST && high <= LARGEST)
    }
}

/// An attribute `axis`, counted from the start.
pub(crate) fn axis(node: &Node, rank: usize) -> Option<usize> {
    let axis = node.attributes.int("axis", 0).ok()?;
    let axis = if axis < 0 { axis.checked_add(i64::try_from(rank).ok()?)? } else { axis };
    usize::try_from(axis).ok().filter(|&axis| axis < rank)
}

/// The elements of a constant of whole numbers.
pub(crate) fn ints(constant: &Tensor) -> Option<Vec<i64>> {
    if let Some(ints) = constant.to_slice::<i64>() {
        return Some(ints.into_owned());
    }
    constant.to_slice::<i32>().map(|ints| ints.iter().map(|&int| int.into()).collect())
}

/// Of no elements, those of a zero.
pub(crate) fn of_constant(constant: &Tensor) -> Option<Bounds> {
    let ints = ints(constant)?;
    Some((ints.iter().copied().min().unwrap_or(0), ints.iter().copied().max().unwrap_or(0)))
}

fn of_items(items: &[Item]) -> Option<Bounds> {
    let ints = items.iter().map(|item| match item {
        Item::Int(int) => Some((*int, *int)),
        Item::Dim(_) => Some((0, i32::MAX.into())),
        Item::Unknown => None,
    });
    ints.collect::<Option<Vec<_>>>()?.into_iter().reduce(joined)
}

fn joined(a: Bounds, b: Bounds) -> Bounds {
    (a.0.min(b.0), a.1.max(b.1))
}

/// Bounds that fit the 32 bits that OpenVINO computes in.
fn narrow(low: i64, high: i64) -> Option<Bounds> {
    (i32::try_from(low).is_ok() && i32::try_from(high).is_ok()).then_some((low, high))
}
