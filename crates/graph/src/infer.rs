//! What can be said of an operator's outputs before anything runs: element type, dimensions, small integers.

mod compute;
mod control;
mod elementwise;
mod movement;
mod salver;

use salver_kernels::Attributes;
use salver_tensor::{DType, Tensor};

use crate::ir::{Dim, Item};
use crate::{Error, ErrorKind, SALVER};

/// What is known of an input.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Known<'a> {
    pub(crate) dtype: DType,
    pub(crate) dims: Option<&'a [Dim]>,
    pub(crate) constant: Option<&'a Tensor>,
    pub(crate) items: Option<&'a [Item]>,
}

impl Known<'_> {
    pub(crate) fn rank(&self) -> Option<usize> {
        self.dims.map(<[Dim]>::len)
    }

    /// The elements of a small integer tensor, when all are known.
    pub(crate) fn ints(&self) -> Option<Vec<i64>> {
        if let Some(items) = self.items {
            return items
                .iter()
                .map(|item| if let Item::Int(int) = item { Some(*int) } else { None })
                .collect();
        }
        let constant = self.constant?;
        match constant.dtype() {
            DType::I64 => constant.to_slice::<i64>().map(|ints| ints.to_vec()),
            DType::I32 => {
                constant.to_slice::<i32>().map(|ints| ints.iter().map(|&int| i64::from(int)).collect())
            }
            _ => None,
        }
    }

    /// How many elements there are, when it is known.
    pub(crate) fn n_elements(&self) -> Option<usize> {
        self.dims?.iter().try_fold(1usize, |product, dim| product.checked_mul(dim.fixed()?))
    }
}

/// What is known of a body's ends.
#[derive(Debug)]
pub(crate) struct KnownBlock<'a> {
    pub(crate) key: &'a str,
    pub(crate) inputs: Vec<Known<'a>>,
    pub(crate) outputs: Vec<Known<'a>>,
}

/// What is known of an output.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Outcome {
    pub(crate) dtype: DType,
    pub(crate) dims: Option<Vec<Dim>>,
    pub(crate) items: Option<Vec<Item>>,
}

impl Outcome {
    pub(crate) fn new(dtype: DType, dims: Option<Vec<Dim>>) -> Outcome {
        Outcome { dtype, dims, items: None }
    }

    pub(crate) fn with_items(mut self, items: Option<Vec<Item>>) -> Outcome {
        self.items = items.filter(|items| items.len() <= crate::builder::MAX_ITEMS);
        self
    }

    /// Bytes that the value takes, when it is known; strings count as one byte each.
    pub(crate) fn n_bytes(&self) -> Option<usize> {
        let size = self.dtype.size().unwrap_or(1);
        self.dims.as_ref()?.iter().try_fold(size, |product, dim| product.checked_mul(dim.fixed()?))
    }
}

/// One operator with what is known of its inputs.
pub(crate) struct Asked<'a> {
    pub(crate) op: &'a str,
    pub(crate) attributes: &'a Attributes,
    pub(crate) inputs: &'a [Option<Known<'a>>],
    pub(crate) blocks: &'a [KnownBlock<'a>],
    pub(crate) n_outputs: usize,
}

impl<'a> Asked<'a> {
    /// An input that must be there.
    pub(crate) fn input(&self, at: usize) -> Result<Known<'a>, Error> {
        self.optional(at).ok_or_else(|| Error::invalid(format!("{} lacks input {at}", self.op)))
    }

    /// An input that may be left out.
    pub(crate) fn optional(&self, at: usize) -> Option<Known<'a>> {
        self.inputs.get(at).copied().flatten()
    }

    /// The inputs that are there.
    pub(crate) fn present(&self) -> impl Iterator<Item = Known<'a>> + '_ {
        self.inputs.iter().copied().flatten()
    }

    /// An axis between 0 and the rank, from one that may be negative.
    pub(crate) fn axis(&self, axis: i64, rank: usize) -> Result<usize, Error> {
        let signed = i64::try_from(rank).unwrap_or(i64::MAX);
        let from_front = if axis < 0 { axis.checked_add(signed) } else { Some(axis) };
        let axis_ok = from_front.filter(|&at| at >= 0 && at < signed).and_then(|at| usize::try_from(at).ok());
        axis_ok.ok_or_else(|| {
            Error::invalid(format!("axis {axis} of {}, expected one of {rank} dimensions", self.op))
        })
    }
}

/// The types of inputs that an operator needs to be the same.
pub(crate) fn same_dtype(asked: &Asked<'_>) -> Result<DType, Error> {
    let dtype = asked.input(0)?.dtype;
    match asked.present().find(|input| input.dtype != dtype) {
        None => Ok(dtype),
        Some(other) => Err(Error::invalid(format!(
            "{} of {dtype} and {}, expected one element type",
            asked.op, other.dtype
        ))),
    }
}

/// Infers the outputs of an operator.
pub(crate) fn infer(
    domain: &str,
    op: &str,
    attributes: &Attributes,
    inputs: &[Option<Known<'_>>],
    blocks: &[KnownBlock<'_>],
    n_outputs: usize,
) -> Result<Vec<Outcome>, Error> {
    let asked = Asked { op, attributes, inputs, blocks, n_outputs };
    let outcomes = match domain {
        "" => [elementwise::infer, movement::infer, compute::infer, control::infer]
            .into_iter()
            .find_map(|family| family(&asked).transpose())
            .unwrap_or_else(|| Err(Error::unsupported(format!("operator {op} is not known"))))?,
        SALVER => salver::infer(&asked)?,
        _ => return Err(Error::unsupported(format!("operators of domain {domain} are not known ({op})"))),
    };
    if outcomes.len() < n_outputs {
        let n = outcomes.len();
        return Err(Error::invalid(format!("{op} has {n} outputs, expected {n_outputs}")));
    }
    Ok(outcomes.into_iter().take(n_outputs).collect())
}

/// Whether an operator of ONNX's own domain is one that can be inferred.
pub(crate) fn is_known(op: &str) -> bool {
    let asked = infer("", op, &Attributes::new(), &[], &[], 1);
    !asked.is_err_and(|error| error.kind() == ErrorKind::Unsupported)
}

/// Whether an operator gives the same for the same inputs.
pub(crate) fn is_pure(domain: &str, op: &str) -> bool {
    !domain.is_empty()
        || !matches!(
            op,
            "RandomNormal"
                | "RandomNormalLike"
                | "RandomUniform"
                | "RandomUniformLike"
                | "Multinomial"
                | "Bernoulli"
        )
}

/// The dimensions of two shapes that are broadcast to one.
pub(crate) fn broadcast(a: Option<&[Dim]>, b: Option<&[Dim]>) -> Result<Option<Vec<Dim>>, Error> {
    let (Some(a), Some(b)) = (a, b) else { return Ok(None) };
    let rank = a.len().max(b.len());
    let at =
        |dims: &[Dim], i: usize| i.checked_sub(rank - dims.len()).map_or(Dim::Fixed(1), |i| dims[i].clone());
    let mut joined = Vec::with_capacity(rank);
    for i in 0..rank {
        joined.push(match (at(a, i), at(b, i)) {
            (Dim::Fixed(1), other) | (other, Dim::Fixed(1)) => other,
            (Dim::Fixed(x), Dim::Fixed(y)) if x == y => Dim::Fixed(x),
            (Dim::Fixed(x), Dim::Fixed(y)) => {
                return Err(Error::invalid(format!(
                    "shapes {} and {} do not broadcast ({x} against {y})",
                    show(Some(a)),
                    show(Some(b))
                )));
            }
            // The open one is this size or 1: the result has this size, or 0 rows never mix with others.
            (Dim::Fixed(x), _) | (_, Dim::Fixed(x)) => Dim::Fixed(x),
            (x, y) if x.is_same(&y) => x,
            _ => Dim::Unknown,
        });
    }
    Ok(Some(joined))
}

/// `[batch,120,14]`, for messages.
pub(crate) fn show(dims: Option<&[Dim]>) -> String {
    let Some(dims) = dims else { return "<unknown>".into() };
    let dims: Vec<_> = dims.iter().map(Dim::to_string).collect();
    format!("[{}]", dims.join(","))
}

/// What two ways to one value have in common.
pub(crate) fn common(a: Option<&[Dim]>, b: Option<&[Dim]>) -> Option<Vec<Dim>> {
    let (a, b) = (a?, b?);
    let dim = |(x, y): (&Dim, &Dim)| if x == y { x.clone() } else { Dim::Unknown };
    (a.len() == b.len()).then(|| a.iter().zip(b).map(dim).collect())
}
