//! Element types and, where it is simple, dimensions of what a node makes.

use salver_engine::Error;

use super::{Dims, Fact, MAX_KNOWN_INTS, invalid};
use crate::element::{Elem, elem, shown};
use crate::proto::NodeExt;
use salver_graph::onnx::proto::NodeProto;

/// Operators whose inputs all have the same element type, from the given one on.
const UNIFORM: &[(&str, usize)] = &[
    ("Add", 0),
    ("Concat", 0),
    ("Div", 0),
    ("Equal", 0),
    ("Gemm", 0),
    ("Greater", 0),
    ("GreaterOrEqual", 0),
    ("Less", 0),
    ("LessOrEqual", 0),
    ("MatMul", 0),
    ("Max", 0),
    ("Mean", 0),
    ("Min", 0),
    ("Mod", 0),
    ("Mul", 0),
    ("Range", 0),
    ("Sub", 0),
    ("Sum", 0),
    ("Where", 1),
];

fn attr_elem(node: &NodeProto, name: &str) -> Option<Elem> {
    let number = node.attr_int(name).filter(|&number| number != 0)?;
    Some(i32::try_from(number).map_or(Elem::Undefined, elem))
}

/// What is known of output `at`, but for its range.
pub(super) fn output(node: &NodeProto, inputs: &[Option<Fact>], at: usize) -> Result<Fact, Error> {
    check_uniform(node, inputs)?;
    let elem = output_elem(node, inputs, at).ok_or_else(|| invalid("an input that it needs is missing"))?;
    let first = inputs.first().and_then(Option::as_ref);
    Ok(Fact {
        dims: first.and_then(|fact| dims(node, fact)),
        ints: ints(node, inputs),
        is_narrow: elem == Elem::Double,
        ..Fact::of(elem)
    })
}

fn check_uniform(node: &NodeProto, inputs: &[Option<Fact>]) -> Result<(), Error> {
    let Some((_, from)) = UNIFORM.iter().find(|(op, _)| *op == node.op()) else { return Ok(()) };
    let mut elems = inputs.iter().skip(*from).flatten().map(|fact| fact.elem);
    let Some(first) = elems.next() else { return Ok(()) };
    match elems.find(|&other| other != first) {
        None => Ok(()),
        Some(other) => {
            Err(invalid(format!("it takes {} and {}, expected one element type", shown(first), shown(other))))
        }
    }
}

fn output_elem(node: &NodeProto, inputs: &[Option<Fact>], at: usize) -> Option<Elem> {
    let input = |at: usize| inputs.get(at).and_then(Option::as_ref).map(|fact| fact.elem);
    match (node.op(), at) {
        (
            "And" | "Equal" | "Greater" | "GreaterOrEqual" | "IsInf" | "IsNaN" | "Less" | "LessOrEqual"
            | "Not" | "Or" | "Xor",
            _,
        )
        | ("Dropout", 1) => Some(Elem::Bool),
        ("ArgMax" | "ArgMin" | "NonMaxSuppression" | "NonZero" | "SequenceLength" | "Shape" | "Size", _)
        | ("MaxPool" | "TopK", 1) => Some(Elem::Int64),
        ("Cast" | "BitCast", _) => Some(attr_elem(node, "to").unwrap_or(Elem::Undefined)),
        ("ConstantOfShape", _) => {
            let value = node.attr("value").and_then(|attr| attr.t.as_ref());
            Some(value.map_or(Elem::Float, |tensor| elem(tensor.data_type())))
        }
        ("EyeLike" | "RandomNormalLike" | "RandomUniformLike", _) => attr_elem(node, "dtype").or(input(0)),
        ("RandomNormal" | "RandomUniform" | "SequenceEmpty", _) => {
            Some(attr_elem(node, "dtype").unwrap_or(Elem::Float))
        }
        ("Multinomial", _) => Some(attr_elem(node, "dtype").unwrap_or(Elem::Int32)),
        ("OneHot", _) => input(2),
        ("Where" | "DequantizeLinear", _) => input(1),
        ("QuantizeLinear", _) => input(2).or(attr_elem(node, "output_dtype")).or(Some(Elem::Uint8)),
        ("DynamicQuantizeLinear", 1) => Some(Elem::Float),
        ("DynamicQuantizeLinear", _) => Some(Elem::Uint8),
        ("ConvInteger" | "MatMulInteger", _) => Some(Elem::Int32),
        _ => input(0),
    }
}

fn dims(node: &NodeProto, first: &Fact) -> Option<Dims> {
    let dims = first.dims.clone()?;
    match node.op() {
        "Identity" | "Cast" | "DequantizeLinear" | "QuantizeLinear" | "Dropout" | "Relu" | "Neg"
        | "Softmax" => Some(dims),
        "Transpose" => {
            let reversed = || (0..dims.len()).rev().collect::<Vec<_>>();
            let perm =
                node.attr_ints("perm").map(|perm| perm.iter().map(|&at| usize::try_from(at).ok()).collect());
            let perm: Vec<usize> = perm.unwrap_or_else(|| Some(reversed()))?;
            perm.iter().map(|&at| dims.get(at).copied()).collect()
        }
        _ => None,
    }
}

/// Whole numbers that stay known.
fn ints(node: &NodeProto, inputs: &[Option<Fact>]) -> Option<Vec<i64>> {
    let all = || inputs.iter().map(|fact| fact.as_ref()?.ints.clone());
    match node.op() {
        "Identity" | "Cast" | "Reshape" | "Squeeze" | "Unsqueeze" => all().next()?,
        "Concat" => {
            let joined = all().collect::<Option<Vec<_>>>()?.concat();
            Some(joined).filter(|ints| ints.len() <= MAX_KNOWN_INTS)
        }
        _ => None,
    }
}
