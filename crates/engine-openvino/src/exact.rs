//! What of a file's graph OpenVINO would compute otherwise than ONNX says, and does not say so.
//!
//! `int64` is kept in 32 bits. Each value has a bound, from the constants, dimensions and types that it is computed from;
//! what may leave 32 bits is refused. Dimensions that are open have a bound, too, as large as the arithmetic allows it to be:
//! larger ones are refused in runs, as inputs outside of 32 bits are.

use std::collections::BTreeMap;

use salver_engine::{Error, ErrorKind};
use salver_graph::{Block, Dim, Graph, Node, ValueId};
use salver_tensor::{DType, Tensor};

use crate::facts::{Condition, Facts, of_constant};
use crate::support::{self, MAX_DIM};

/// The largest magnitude that the elements of a value may have.
type Bound = u64;

/// Not known, or outside of 32 bits.
const OPEN: Bound = Bound::MAX;

/// Each fits 32 bits.
const FITS: Bound = 1 << 31;

/// Bounds of open dimensions that are tried, from the largest down.
const OPEN_DIMS: &[usize] = &[MAX_DIM, 1 << 20, 1 << 15, 1 << 12, 1 << 10, 1 << 8];

/// Operators that are listed in one message.
const MAX_LISTED: usize = 50;

/// Looks at every node, and returns the largest size that open dimensions may have.
///
/// # Errors
/// [`ErrorKind::Unsupported`]: the operators that are missing, all of them, or the first node or value that would not be
/// computed exactly.
pub(crate) fn check(facts: &Facts<'_>) -> Result<usize, Error> {
    let graph = facts.graph;
    let mut missing: BTreeMap<String, (usize, &str)> = BTreeMap::new();
    support::visit(graph, &mut |node, depth| {
        if !support::has(facts, node, depth) {
            missing.entry(node.full_op()).or_insert((0, &node.name)).0 += 1;
        }
    });
    if !missing.is_empty() {
        let listed = missing.iter().take(MAX_LISTED);
        let listed: Vec<_> =
            listed.map(|(op, (n, name))| format!("{op} ({n}, such as node '{name}')")).collect();
        let more = missing.len().saturating_sub(MAX_LISTED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let message = format!(
            "operators that OpenVINO does not have, or not in this form: {}{more}",
            listed.join(", ")
        );
        return Err(Error::new(ErrorKind::Unsupported, message));
    }
    for id in graph.inputs().iter().copied().chain(graph.outputs().map(|(_, id)| id)) {
        check_type(graph, id)?;
    }
    let conditions = support::conditions(facts)?;
    let mut refused = None;
    for &open_dim in OPEN_DIMS {
        match Ranges::new(facts, &conditions, open_dim).follow(graph.body()) {
            Ok(()) => return Ok(open_dim),
            Err(error) => refused = refused.or(Some(error)),
        }
    }
    refused.map_or(Ok(MAX_DIM), Err)
}

fn unsupported(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Unsupported, message)
}

fn of_tensor(constant: &Tensor) -> Bound {
    let Some((low, high)) = of_constant(constant) else { return FITS };
    if i32::try_from(low).is_ok() && i32::try_from(high).is_ok() {
        low.unsigned_abs().max(high.unsigned_abs())
    } else {
        OPEN
    }
}

/// Refuses element types that OpenVINO keeps as others of which it does not hold every value.
fn check_type(graph: &Graph, id: ValueId) -> Result<(), Error> {
    let value = graph.value(id);
    let why = match value.dtype {
        DType::F32 | DType::F16 | DType::I32 | DType::I64 | DType::I8 | DType::U8 | DType::Bool => {
            return Ok(());
        }
        DType::F64 => "float64 is computed as float32 by OpenVINO",
        DType::String => "OpenVINO has no strings on the CPU",
        _ => "OpenVINO computes in another element type instead",
    };
    let message = format!("element type {}: {why}; this model needs another engine", value.dtype);
    Err(unsupported(message).at(format!("value '{}'", value.name)))
}

/// Where the ends of 32 bits mean the same as numbers beyond them.
fn may_saturate(node: &Node, at: usize) -> bool {
    match node.op.as_str() {
        "Slice" | "Clip" => at == 1 || at == 2,
        "Loop" => at == 0,
        _ => false,
    }
}

/// What is computed, if it surely fits.
fn computed(bound: Option<Bound>) -> Bound {
    bound.filter(|&bound| bound < FITS).unwrap_or(OPEN)
}

/// The bounds of all values, as far as they are followed.
struct Ranges<'f, 'a> {
    facts: &'f Facts<'a>,
    graph: &'a Graph,
    bounds: Vec<Bound>,
    open_dim: usize,
}

impl<'f, 'a> Ranges<'f, 'a> {
    fn new(facts: &'f Facts<'a>, conditions: &[Condition], open_dim: usize) -> Ranges<'f, 'a> {
        let graph = facts.graph;
        let of_value = |value: &salver_graph::Value| value.constant.as_ref().map_or(FITS, of_tensor);
        let mut bounds: Vec<Bound> = graph.values().iter().map(of_value).collect();
        for condition in conditions {
            if let Condition::Within { input, from, to } = condition {
                let bound = from.unsigned_abs().max(to.unsigned_abs());
                bounds[input.index()] = bounds[input.index()].min(bound);
            }
        }
        Ranges { facts, graph, bounds, open_dim }
    }

    fn follow(&mut self, block: &'a Block) -> Result<(), Error> {
        for node in &block.nodes {
            self.node(node).map_err(|error| {
                let place = format!("node '{}' ({})", node.name, node.full_op());
                let inner = error.location().map_or(place.clone(), |inner| format!("{place}: {inner}"));
                error.at(inner)
            })?;
        }
        Ok(())
    }

    fn node(&mut self, node: &'a Node) -> Result<(), Error> {
        for (at, id) in node.inputs.iter().enumerate() {
            let Some(id) = *id else { continue };
            check_type(self.graph, id)?;
            if self.bounds[id.index()] == OPEN && !may_saturate(node, at) {
                return Err(unsupported(
                    "it takes an int64 that may not fit the 32 bits that OpenVINO computes in",
                ));
            }
        }
        for (_, inner) in &node.blocks {
            for id in &inner.inputs {
                // What is computed again and again grows without bound.
                let is_wide = self.graph.value(*id).dtype == DType::I64;
                self.bounds[id.index()] = if is_wide { OPEN } else { FITS };
            }
            self.follow(inner)?;
        }
        for (at, &id) in node.outputs.iter().enumerate() {
            check_type(self.graph, id)?;
            let bound = self.of_output(node, at);
            match self.graph.value(id).dtype {
                DType::I64 if bound == OPEN => {
                    let message = "its int64 result may leave the 32 bits that OpenVINO computes in";
                    return Err(unsupported(message));
                }
                // What leaves 32 bits wraps in them, as it should.
                DType::I32 => self.bounds[id.index()] = bound.min(FITS),
                DType::I64 => self.bounds[id.index()] = bound,
                _ => {}
            }
        }
        Ok(())
    }

    fn of(&self, id: ValueId) -> Bound {
        match self.graph.value(id).dtype {
            DType::I64 | DType::I32 => self.bounds[id.index()],
            DType::Bool => 1,
            DType::I8 | DType::U8 => 1 << 8,
            _ => OPEN,
        }
    }

    /// The largest size of a dimension.
    fn size(&self, dim: &Dim) -> Bound {
        match dim {
            Dim::Fixed(size) => *size as Bound,
            Dim::Symbol(symbol) if self.facts.is_of_inputs(symbol) => self.open_dim as Bound,
            _ => FITS - 1,
        }
    }

    fn dims(&self, node: &'a Node) -> &'a [Dim] {
        let dims = node.input(0).and_then(|id| self.graph.value(id).dims.as_deref());
        dims.unwrap_or_default()
    }

    /// The largest size of a dimension of the first input.
    fn largest_dim(&self, node: &'a Node) -> Bound {
        self.dims(node).iter().map(|dim| self.size(dim)).max().unwrap_or(1)
    }

    /// How many elements the first input has at most.
    fn count(&self, node: &'a Node) -> Option<Bound> {
        self.dims(node).iter().try_fold(1u64, |product, dim| product.checked_mul(self.size(dim)))
    }

    /// The bound of an integer output.
    fn of_output(&self, node: &'a Node, at: usize) -> Bound {
        let input = |at: usize| node.input(at).map_or(0, |id| self.of(id));
        let inputs = |positions: &[usize]| positions.iter().map(|&at| input(at)).max().unwrap_or(0);
        let each = || node.present_inputs().map(|id| self.of(id));
        let all = || each().max().unwrap_or(0);
        match node.op.as_str() {
            "Shape" | "ArgMax" | "ArgMin" | "NonZero" => self.largest_dim(node),
            "TopK" if at > 0 => self.largest_dim(node),
            "Size" | "NonMaxSuppression" => FITS - 1,
            "MaxPool" | "Unique" if at > 0 => FITS - 1,
            "Range" => all(),
            "Identity" | "Reshape" | "Squeeze" | "Unsqueeze" | "Transpose" | "Gather" | "GatherElements"
            | "GatherND" | "Slice" | "Split" | "Flatten" | "Expand" | "Tile" | "DepthToSpace"
            | "SpaceToDepth" | "ReduceMax" | "ReduceMin" | "MaxPool" | "ReverseSequence" | "TopK"
            | "Trilu" | "Unique" | "Relu" | "Compress" | "Cast" | "Clip" => input(0),
            "Concat" | "Max" | "Min" => all(),
            "Where" => inputs(&[1, 2]),
            "OneHot" => input(2),
            "Pad" => inputs(&[0, 2]),
            "ScatterElements" | "ScatterND" if node.attributes.text("reduction", "none") == Ok("none") => {
                inputs(&[0, 2])
            }
            "Sign" => 1,
            "ConstantOfShape" => node.attributes.tensor("value").ok().flatten().map_or(0, of_tensor),
            "If" => {
                let ends = node.blocks.iter().filter_map(|(_, block)| block.outputs.get(at));
                ends.map(|&id| self.of(id)).max().unwrap_or(OPEN)
            }
            // The quotient of the lowest number and -1 does not fit.
            "Div" | "Neg" | "Abs" => computed(Some(input(0))),
            "Mod" => computed(Some(all())),
            "Add" | "Sub" | "Sum" => computed(each().try_fold(0u64, Bound::checked_add)),
            "Mul" => computed(each().try_fold(1u64, Bound::checked_mul)),
            "ReduceSum" | "ReduceL1" | "CumSum" => {
                computed(self.count(node).and_then(|count| count.checked_mul(input(0))))
            }
            "ReduceProd" => {
                let count = self.count(node).and_then(|count| u32::try_from(count).ok());
                computed(count.and_then(|count| input(0).max(1).checked_pow(count)))
            }
            _ => OPEN,
        }
    }
}
