//! Operators that move elements of any type and compute none.

pub(crate) mod arrange;
pub(crate) mod gather;
pub(crate) mod make;
pub(crate) mod pad;
pub(crate) mod pick;
pub(crate) mod scatter;
pub(crate) mod shape;
pub(crate) mod slice;

use salver_tensor::Tensor;

use crate::Error;
use crate::call::Call;
use crate::layout::reshaped;

/// The input of an operator that works along an axis, and that axis: without one, the flat input and its only axis.
fn along(call: &Call<'_>, tensor: &Tensor) -> Result<(Tensor, usize), Error> {
    match call.attributes.get("axis") {
        Some(_) => Ok((tensor.clone(), call.axis(0, tensor.shape().rank())?)),
        None => Ok((reshaped(tensor, &[tensor.shape().n_elements()])?, 0)),
    }
}
