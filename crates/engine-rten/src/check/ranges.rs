//! Ranges of what a node makes, and whether whole numbers of 64 bits stay within the 32 that the engine has.

use super::Fact;
use super::guard::{Guarded, Shadow};
use crate::bound::{Bound, Kind};
use crate::element::Elem;
use crate::proto::NodeExt;
use salver_graph::onnx::proto::NodeProto;

/// What is known of an output's range.
pub(super) enum Outcome {
    /// Its elements lie in this range.
    In(Bound),
    /// Its elements may lie outside 32 bits, which a check in every run shows.
    Guarded(Guarded),
    /// Whole numbers of 64 bits that this engine cannot be trusted with.
    Unknown,
}

/// What an operator does to ranges.
enum Effect {
    /// The result's range, before it is known whether the element type holds it; `None` when it is not known.
    Known(Bound),
    /// Arithmetic with this range, that a guard can watch.
    Arithmetic(Bound, Guarded),
    /// Nothing is known.
    Unknown,
}

/// The range of output `at`.
pub(super) fn output(node: &NodeProto, inputs: &[Option<Fact>], elem: Elem, at: usize) -> Outcome {
    let all = Bound::of(elem);
    match (effect(node, inputs, elem, at), elem) {
        (Effect::Known(bound) | Effect::Arithmetic(bound, _), _) if bound.is_within(all) => {
            Outcome::In(bound)
        }
        (Effect::Arithmetic(_, guarded), Elem::Int64) => Outcome::Guarded(guarded),
        (_, Elem::Int64) => Outcome::Unknown,
        // The other whole numbers wrap around in the engine as they do in ONNX.
        _ => Outcome::In(all),
    }
}

const CASTS: Guarded = Guarded { shadow: Shadow::Magnitude, limit: Guarded::EXACT };
const TERMS: Guarded = Guarded { shadow: Shadow::OfCasts, limit: Guarded::NEAR };
const SUMS: Guarded = Guarded { shadow: Shadow::OfMagnitudes, limit: Guarded::FAR };
const POWERS: Guarded = Guarded { shadow: Shadow::OfCasts, limit: Guarded::FAR };

fn effect(node: &NodeProto, inputs: &[Option<Fact>], elem: Elem, at: usize) -> Effect {
    let input = |at: usize| inputs.get(at).and_then(Option::as_ref).map(|fact| fact.bound);
    let is_float = matches!(elem, Elem::Float | Elem::Float16);
    let Some(first) = input(0) else { return unary_or_made(node, Bound::ANY, elem) };
    let second = input(1).unwrap_or(Bound::ANY);
    match node.op() {
        "Add" => Effect::Arithmetic(first.add(second), TERMS),
        "Sub" => Effect::Arithmetic(first.sub(second), TERMS),
        "Mul" => Effect::Arithmetic(first.mul(second), TERMS),
        "Neg" => Effect::Arithmetic(first.neg(), TERMS),
        "Abs" => Effect::Arithmetic(first.abs(), TERMS),
        "Sum" => {
            let bound = inputs.iter().skip(1).flatten().fold(first, |sum, fact| sum.add(fact.bound));
            Effect::Arithmetic(bound, SUMS)
        }
        "Pow" => Effect::Arithmetic(power(first, second), POWERS),
        "ReduceSum" | "CumSum" | "ReduceL1" => Effect::Arithmetic(sum(first), SUMS),
        "ReduceProd" if first.kind == Kind::Size => Effect::Known(first),
        "ReduceProd" | "ReduceSumSquare" => Effect::Arithmetic(Bound::ANY, SUMS),
        "Div" if is_float && second.abs().lo < 1.0 => Effect::Known(Bound::ANY),
        // The one quotient that would not fit, of the lowest number and -1, makes the run fail.
        "Div" if !is_float => Effect::Known(first.div_shrinking(second).clip(Bound::I32.lo, Bound::I32.hi)),
        "Div" => Effect::Known(first.div_shrinking(second)),
        "Mod" if !is_float => Effect::Known(first.modulo(second).clip(Bound::I32.lo, Bound::I32.hi)),
        "Mod" => Effect::Known(Bound::ANY),
        "Cast" => cast(first, elem),
        "Clip" => {
            let lo = input(1).map_or(f64::NEG_INFINITY, |bound| bound.lo);
            let hi = input(2).map_or(f64::INFINITY, |bound| bound.hi);
            Effect::Known(if lo <= hi { first.clip(lo, hi) } else { first })
        }
        "Range" => Effect::Known(first.hull(second)),
        "Where" => Effect::Known(second.hull(input(2).unwrap_or(Bound::ANY))),
        "OneHot" => Effect::Known(input(2).unwrap_or(Bound::ANY)),
        "Pad" => Effect::Known(first.hull(input(2).unwrap_or(Bound::ZERO))),
        "Scatter" | "ScatterElements" | "ScatterND" => match node.attr_str("reduction") {
            None | Some("none" | "min" | "max") => Effect::Known(first.hull(input(2).unwrap_or(Bound::ANY))),
            _ => Effect::Unknown,
        },
        "Concat" | "Max" | "Min" | "SequenceConstruct" | "SequenceInsert" => {
            // The position that SequenceInsert takes is a whole number as well and only widens the range.
            Effect::Known(inputs.iter().flatten().fold(first, |hull, fact| hull.hull(fact.bound)))
        }
        "TopK" | "MaxPool" if at == 1 => Effect::Known(Bound::SIZE),
        "BitCast" if elem == Elem::Int32 => Effect::Known(Bound::I32),
        _ => unary_or_made(node, first, elem),
    }
}

/// Operators that move elements of their first input about, or make them from nothing else.
fn unary_or_made(node: &NodeProto, first: Bound, elem: Elem) -> Effect {
    let known = match node.op() {
        "Identity" | "Reshape" | "Squeeze" | "Unsqueeze" | "Transpose" | "Gather" | "GatherElements"
        | "GatherND" | "Slice" | "Split" | "Flatten" | "Expand" | "Tile" | "DepthToSpace" | "ReduceMax"
        | "ReduceMin" | "MaxPool" | "GlobalMaxPool" | "ReverseSequence" | "TopK" | "Dropout"
        | "SplitToSequence" | "ConcatFromSequence" | "SequenceAt" | "SequenceErase" => first,
        "Trilu" | "Relu" => first.hull(Bound::ZERO),
        "Floor" | "Ceil" | "Round" if first.kind == Kind::Size => first,
        "Floor" | "Ceil" | "Round" => Bound::new(first.lo - 1.0, first.hi + 1.0),
        "Shape" | "Size" | "ArgMax" | "ArgMin" | "NonZero" | "NonMaxSuppression" | "SequenceLength"
        | "Multinomial" => Bound::SIZE,
        "Sign" | "Tanh" | "Erf" | "Sin" | "Cos" => Bound::new(-1.0, 1.0),
        "Sigmoid" | "Softmax" | "HardSigmoid" | "EyeLike" => Bound::UNIT,
        "SequenceEmpty" => Bound::ZERO,
        "ConstantOfShape" => return constant_of_shape(node, elem),
        _ => return Effect::Unknown,
    };
    Effect::Known(known)
}

fn constant_of_shape(node: &NodeProto, kind: Elem) -> Effect {
    let Some(tensor) = node.attr("value").and_then(|attr| attr.t.as_ref()) else {
        return Effect::Known(Bound::ZERO);
    };
    let wide = tensor.int64_data.first().copied();
    let raw = tensor.raw_data.as_deref().and_then(|raw| raw.try_into().ok()).map(i64::from_le_bytes);
    match (kind, wide.or(raw)) {
        (Elem::Int64, Some(value)) => Effect::Known(Bound::constant(value as f64, value as f64)),
        _ => Effect::Known(Bound::of(kind)),
    }
}

/// Sums of counts and flags are counts; sums of sizes of one tensor's axes are few.
fn sum(first: Bound) -> Bound {
    match first {
        _ if first.kind == Kind::Size => first,
        _ if first.is_within(Bound::UNIT) => Bound::SIZE,
        _ if first.is_within(Bound::new(-1.0, 1.0)) => Bound { lo: -Bound::SIZE.hi, ..Bound::SIZE },
        _ => Bound::ANY,
    }
}

fn power(base: Bound, exponent: Bound) -> Bound {
    if exponent.lo < 0.0 {
        return Bound::ANY;
    }
    let most = base.magnitude().max(1.0).powf(exponent.hi);
    Bound::new(if base.lo >= 0.0 { 0.0 } else { -most }, most)
}

/// Whole numbers keep their value; fractions are cut off, and those outside 32 bits would be saturated.
fn cast(first: Bound, to: Elem) -> Effect {
    match to {
        Elem::Int64 => Effect::Arithmetic(first, CASTS),
        _ => Effect::Known(first),
    }
}
