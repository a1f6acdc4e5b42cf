//! Which int64 values surely fit 32 bits.
//!
//! Engines may hold int64 in 32 bits. Sizes of tensors and positions in them fit, and so does what is computed from
//! them and from small constants: a tensor with more elements is refused before. Everything else is not known.

use salver_graph::{Block, Graph, Node, ValueId};
use salver_tensor::{DType, Tensor};

/// What is known of the elements of an integer value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Range {
    /// Any.
    Open,
    /// Each fits 32 bits.
    Fits,
    /// Sizes, positions and small constants: what is computed from them fits, too.
    Size,
}

/// Constants up to this may be computed with as sizes are: few graphs multiply a size by more than two of them.
const SMALL: i64 = 1 << 10;

/// What a counter of a loop may grow by in an iteration and still be taken for a position.
const STEP: i64 = 16;

/// The range of every value of a graph, by its index. Values that are not int64 fit; of int32 it is known too which are
/// sizes.
pub(crate) fn ranges(graph: &Graph) -> Vec<Range> {
    let of = |value: &salver_graph::Value| match &value.constant {
        Some(constant) => of_constant(constant),
        None if value.dtype == DType::I64 => Range::Open,
        None => Range::Fits,
    };
    let mut ranges: Vec<Range> = graph.values().iter().map(of).collect();
    follow(graph, graph.body(), &mut ranges);
    ranges
}

fn of_constant(constant: &Tensor) -> Range {
    let wide = constant.to_slice::<i64>().map(|ints| ints.iter().map(|int| int.unsigned_abs()).max());
    let narrow = || {
        let ints = constant.to_slice::<i32>()?;
        Some(ints.iter().map(|int| u64::from(int.unsigned_abs())).max())
    };
    let Some(largest) = wide.or_else(narrow) else { return Range::Fits };
    let largest = largest.unwrap_or(0);
    match largest {
        largest if largest <= SMALL.unsigned_abs() => Range::Size,
        largest if largest <= i32::MAX.unsigned_abs().into() => Range::Fits,
        _ => Range::Open,
    }
}

fn follow(graph: &Graph, block: &Block, ranges: &mut [Range]) {
    for node in &block.nodes {
        for (key, inner) in &node.blocks {
            enter(graph, node, key, inner, ranges);
            follow(graph, inner, ranges);
        }
        for (at, id) in node.outputs.iter().enumerate() {
            match graph.value(*id).dtype {
                DType::I64 => ranges[id.index()] = of_output(graph, node, at, ranges),
                DType::I32 => ranges[id.index()] = of_output(graph, node, at, ranges).max(Range::Fits),
                _ => {}
            }
        }
    }
}

/// What is known of a body's inputs: the number of the iteration, and what the variables start with.
///
/// A variable keeps what it starts with only if an iteration leaves it as it is or counts it on: what is computed again
/// and again grows without bound.
fn enter(graph: &Graph, node: &Node, key: &str, block: &Block, ranges: &mut [Range]) {
    if node.op != "Loop" || key != "body" {
        return;
    }
    for (at, &id) in block.inputs.iter().enumerate() {
        let start = || node.input(at).map_or(Range::Open, |start| ranges[start.index()]);
        let stays =
            at > 0 && block.outputs.get(at - 1).is_some_and(|&next| counts_on(graph, block, id, next));
        ranges[id.index()] = match graph.value(id).dtype {
            _ if at == 0 => Range::Size,
            DType::I64 if stays => start(),
            DType::I64 => Range::Open,
            _ if stays => start().max(Range::Fits),
            _ => Range::Fits,
        };
    }
}

/// Whether a loop variable's next value is its value, or that and a small constant.
fn counts_on(graph: &Graph, block: &Block, now: ValueId, next: ValueId) -> bool {
    if next == now {
        return true;
    }
    let Some(maker) = block.nodes.iter().find(|node| node.outputs.contains(&next)) else { return false };
    let is_step = |id: ValueId| {
        let constant = graph.value(id).constant.as_ref();
        constant.is_some_and(|constant| {
            let wide = constant
                .to_slice::<i64>()
                .map(|ints| ints.iter().all(|int| int.unsigned_abs() <= STEP.unsigned_abs()));
            let narrow =
                constant.to_slice::<i32>().map(|ints| ints.iter().all(|&int| i64::from(int).abs() <= STEP));
            wide.or(narrow).unwrap_or(false)
        })
    };
    (maker.is("Add") || maker.is("Sub"))
        && maker.present_inputs().all(|id| id == now || is_step(id))
        && maker.present_inputs().filter(|&id| id == now).count() == 1
}

fn of_output(graph: &Graph, node: &Node, at: usize, ranges: &[Range]) -> Range {
    let input = |at: usize| node.input(at).map_or(Range::Size, |id| ranges[id.index()]);
    let lowest = || node.present_inputs().map(|id| ranges[id.index()]).min().unwrap_or(Range::Open);
    match node.op.as_str() {
        _ if !node.domain.is_empty() => Range::Open,
        "Shape" | "Size" | "NonZero" | "ArgMax" | "ArgMin" => Range::Size,
        "TopK" | "Unique" | "MaxPool" if at > 0 => Range::Size,
        "TopK" | "Unique" | "Identity" | "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" | "Transpose"
        | "Slice" | "Split" | "Gather" | "GatherElements" | "GatherND" | "Expand" | "Tile"
        | "ReverseSequence" | "Compress" | "ReduceMax" | "ReduceMin" | "Sign" | "Trilu" | "Dropout" => {
            input(0)
        }
        // The smallest number has no opposite.
        "Neg" | "Abs" if input(0) == Range::Size => Range::Size,
        "Neg" | "Abs" => Range::Open,
        "Concat" | "Max" | "Min" => lowest(),
        "Where" => input(1).min(input(2)),
        "ScatterElements" | "ScatterND" => input(0).min(input(2)),
        "Pad" => input(0).min(input(2)),
        "Clip" => input(0),
        "OneHot" => input(2),
        "ConstantOfShape" => {
            let value = node.attributes.tensor("value").ok().flatten();
            value.map_or(Range::Size, of_constant)
        }
        "Cast" => match node.input(0).map(|id| graph.value(id).dtype) {
            Some(DType::I64) => input(0),
            Some(DType::I32) => input(0).max(Range::Fits),
            Some(DType::Bool | DType::I8 | DType::U8 | DType::I16 | DType::U16) => Range::Fits,
            _ => Range::Open,
        },
        "Add" | "Sub" | "Mul" | "Range" | "ReduceSum" | "ReduceProd" | "CumSum" | "Sum" => {
            if lowest() == Range::Size { Range::Size } else { Range::Open }
        }
        "Div" | "Mod" => lowest(),
        "If" => {
            let ends = node.blocks.iter().filter_map(|(_, block)| block.outputs.get(at));
            ends.map(|id| ranges[id.index()]).min().unwrap_or(Range::Open)
        }
        "Loop" => {
            let end = node.block("body").and_then(|body| body.outputs.get(at + 1));
            let start = node.input(at + 2).map_or(Range::Size, |id| ranges[id.index()]);
            end.map_or(Range::Open, |id| ranges[id.index()].min(start))
        }
        _ => Range::Open,
    }
}

/// Whether a node may take a value that does not surely fit: only where an engine checks it or where the ends of
/// 32 bits mean the same as what lies beyond.
pub(crate) fn may_take_open(node: &Node, at: usize, id: ValueId, graph: &Graph) -> bool {
    let is_constant = graph.value(id).constant.is_some();
    match node.op.as_str() {
        "Slice" => matches!(at, 1 | 2) && is_constant,
        "Loop" => at == 0 && is_constant,
        // A position beyond 32 bits is beyond every tensor.
        "Gather" | "GatherElements" | "GatherND" | "ScatterND" | "ScatterElements" => at == 1,
        _ => false,
    }
}
