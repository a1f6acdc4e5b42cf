//! Constants of a loop's body: as matrices, as numbers for each column, and what can be computed from them alone.

use salver_kernels as kernels;
use salver_tensor::{DType, Tensor};

use super::body::{Meaning, no_row};
use super::counts::Counts;
use super::row::{Factors, Matrix};
use crate::Error;
use crate::ir::{Dim, Graph, Node, Value, ValueId};

/// A constant that is computed here is at most this large.
const MAX_BYTES: usize = 1 << 28;

/// The outputs, when all inputs are constant.
pub(super) fn fold(
    graph: &Graph,
    node: &Node,
    inputs: &[Option<Meaning>],
) -> Result<Option<Vec<Meaning>>, Error> {
    let mut constants = Vec::with_capacity(inputs.len());
    for input in inputs {
        match input {
            None => constants.push(None),
            Some(Meaning::Constant(constant)) => constants.push(Some(constant)),
            Some(_) => return Ok(None),
        }
    }
    if constants.is_empty() || !crate::infer::is_pure(&node.domain, &node.op) {
        return Ok(None);
    }
    if !node.outputs.iter().all(|&id| is_small(graph.value(id))) {
        return Err(Error::unsupported("a constant that is large"));
    }
    let outputs = kernels::run(&node.domain, &node.op, &node.attributes, &constants, node.outputs.len())?;
    Ok(Some(outputs.into_iter().map(Meaning::Constant).collect()))
}

/// Whether a value takes no more than [`MAX_BYTES`].
fn is_small(value: &Value) -> bool {
    let size = value.dtype.size().unwrap_or(1);
    let dims = value.dims.iter().flatten();
    let n_bytes = dims.map(Dim::fixed).try_fold(size, |product, dim| product.checked_mul(dim?));
    value.dims.is_some() && n_bytes.is_some_and(|n_bytes| n_bytes <= MAX_BYTES)
}

pub(super) fn matrix(meaning: &Meaning, transposed: bool) -> Result<Matrix, Error> {
    let Meaning::Constant(tensor) = meaning else {
        return Err(no_row(meaning).unwrap_or_else(|| Error::unsupported("of two values of the step")));
    };
    let (Some(elements), [n, m]) = (tensor.to_slice::<f32>(), tensor.shape().dims()) else {
        return Err(Error::unsupported("weights that are no matrix of float32"));
    };
    if !transposed {
        return Ok(Matrix { n_rows: *n, n_columns: *m, elements: elements.to_vec() });
    }
    let mut matrix = Matrix::zeros(*m, *n)?;
    for (at, element) in elements.iter().enumerate() {
        matrix.elements[(at % m) * n + at / m] = *element;
    }
    Ok(matrix)
}

/// A constant as numbers for so many columns.
pub(super) fn factors(meaning: &Meaning, width: usize) -> Result<Factors, Error> {
    let Meaning::Constant(tensor) = meaning else {
        return Err(no_row(meaning).unwrap_or_else(|| Error::unsupported("of no constant")));
    };
    let elements = tensor.to_slice::<f32>().ok_or_else(|| Error::unsupported("of no float32"))?;
    let last = tensor.shape().dims().last().copied().unwrap_or(1);
    if last != elements.len() {
        return Err(Error::unsupported("of a constant with rows"));
    }
    let first = elements.first().copied();
    match first {
        Some(first) if elements.iter().all(|&x| x == first) && (last == 1 || last == width) => {
            Ok(Factors::Same(first.into()))
        }
        _ => {
            let each = Factors::Each(elements.iter().copied().map(f64::from).collect());
            Some(each).filter(|each| each.fits(width)).ok_or_else(|| Error::unsupported("of another width"))
        }
    }
}

pub(super) fn number(meaning: &Meaning) -> Result<f64, Error> {
    match factors(meaning, 1)? {
        Factors::Same(number) => Ok(number),
        Factors::Each(_) => Err(Error::unsupported("of bounds that differ by column")),
    }
}

/// One element, when all elements are the same number.
pub(super) fn same_everywhere(tensor: &Tensor) -> Option<Tensor> {
    let elements = tensor.to_slice::<f32>()?;
    let first = *elements.first()?;
    let all = elements.iter().all(|x| x.to_bits() == first.to_bits());
    all.then(|| Tensor::from_vec(salver_tensor::Shape::scalar(), vec![first]).expect("one element"))
}

/// The one number that all elements of a value of around the loop are, as a scalar: what expanding or reshaping such
/// a constant gives.
pub(super) fn uniform(counts: &Counts<'_>, id: ValueId, depth: usize) -> Option<Tensor> {
    let value = counts.graph.value(id);
    if value.dtype != DType::F32 {
        return None;
    }
    if let Some(constant) = &value.constant {
        return same_everywhere(constant);
    }
    let depth = depth.checked_sub(1)?;
    let node = counts.producers.get(&id).filter(|node| node.domain.is_empty())?;
    let of = |at: usize| uniform(counts, node.input(at)?, depth);
    match node.op.as_str() {
        "Identity" | "Expand" | "Tile" | "Reshape" | "Squeeze" | "Unsqueeze" | "Transpose" | "Slice"
        | "Gather" => of(0),
        "ConstantOfShape" => match node.attributes.tensor("value").ok()? {
            Some(constant) => same_everywhere(constant),
            None => Tensor::from_vec(salver_tensor::Shape::scalar(), vec![0f32]).ok(),
        },
        "ReduceSum" | "ReduceMean" | "ReduceMax" => of(0).filter(is_zero),
        _ => None,
    }
}

/// Whether it is one 0.
pub(super) fn is_zero(tensor: &Tensor) -> bool {
    tensor.to_slice::<f32>().is_some_and(|elements| *elements == [0.0])
}
