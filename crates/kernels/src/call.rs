//! What an operator is called with.

use salver_tensor::{DType, Tensor};

use crate::layout;
use crate::{Attributes, Error};

/// One call of one operator.
pub(crate) struct Call<'a> {
    /// The operator's name.
    pub(crate) op: &'a str,
    /// Its attributes.
    pub(crate) attributes: &'a Attributes,
    /// Its inputs, `None` where an optional one is left out.
    pub(crate) inputs: &'a [Option<&'a Tensor>],
    /// The number of outputs that the caller wants.
    pub(crate) n_outputs: usize,
}

impl<'a> Call<'a> {
    /// The input at `index`, which the operator cannot do without.
    pub(crate) fn input(&self, index: usize) -> Result<&'a Tensor, Error> {
        self.optional(index).ok_or_else(|| Error::invalid(format!("input {index} of {} is missing", self.op)))
    }

    /// The input at `index`, if it is there.
    pub(crate) fn optional(&self, index: usize) -> Option<&'a Tensor> {
        self.inputs.get(index).copied().flatten()
    }

    /// All inputs of an operator that takes any number of them.
    pub(crate) fn all(&self) -> Result<Vec<&'a Tensor>, Error> {
        if self.inputs.is_empty() {
            return Err(Error::invalid(format!("{} has no inputs, expected at least one", self.op)));
        }
        (0..self.inputs.len()).map(|index| self.input(index)).collect()
    }

    /// The elements of an input of integers with at most one dimension.
    pub(crate) fn ints(&self, index: usize) -> Result<Vec<i64>, Error> {
        let tensor = self.input(index)?;
        if tensor.shape().rank() > 1 {
            let shape = tensor.shape();
            return Err(Error::invalid(format!("input {index} has shape {shape}, expected a list")));
        }
        integers(tensor)
    }

    /// As [`Call::ints`], of an input that may be left out.
    pub(crate) fn optional_ints(&self, index: usize) -> Result<Option<Vec<i64>>, Error> {
        self.optional(index).map(|_| self.ints(index)).transpose()
    }

    /// The only element of an input of integers.
    pub(crate) fn int(&self, index: usize) -> Result<i64, Error> {
        let tensor = self.input(index)?;
        match integers(tensor)?[..] {
            [value] => Ok(value),
            _ => {
                Err(Error::invalid(format!("input {index} has shape {}, expected a scalar", tensor.shape())))
            }
        }
    }

    /// The attribute `axis`, counted from the front.
    pub(crate) fn axis(&self, default: i64, rank: usize) -> Result<usize, Error> {
        layout::axis(self.attributes.int("axis", default)?, rank)
    }

    /// The refusal of an element type.
    pub(crate) fn no_type(&self, dtype: DType) -> Error {
        Error::unsupported(format!("{} does not take {dtype}", self.op))
    }
}

/// The elements of a tensor of integers that mean sizes, positions or axes.
pub(crate) fn integers(tensor: &Tensor) -> Result<Vec<i64>, Error> {
    match tensor.dtype() {
        DType::I64 => Ok(read::<i64>(tensor).to_vec()),
        DType::I32 => Ok(read::<i32>(tensor).iter().map(|&x| i64::from(x)).collect()),
        other => Err(Error::unsupported(format!("{other} where int64 or int32 is expected"))),
    }
}

/// The elements of a tensor whose type was just looked at.
pub(crate) fn read<T: salver_tensor::Element>(tensor: &Tensor) -> std::borrow::Cow<'_, [T]> {
    tensor.to_slice::<T>().expect("the caller matched the element type")
}

/// An integer as a size; negative ones are refused.
pub(crate) fn size(value: i64, what: &str) -> Result<usize, Error> {
    usize::try_from(value).map_err(|_| Error::invalid(format!("{what} is {value}, expected 0 or more")))
}
