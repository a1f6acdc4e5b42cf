//! Elements put to positions given by index.

use salver_tensor::{Element, Tensor};

use super::gather::{element_positions, tuple_positions};
use crate::call::{Call, integers, read};
use crate::datum::{Datum, by_width};
use crate::number::{Number, Ring, by_number, by_ring};
use crate::{Error, Outputs};

/// `ScatterElements`.
pub(crate) fn scatter_elements(call: &Call<'_>) -> Outputs {
    let (tensor, indices, updates) = (call.input(0)?, call.input(1)?, call.input(2)?);
    let axis = call.axis(0, tensor.shape().rank())?;
    if indices.shape() != updates.shape() {
        let (a, b) = (indices.shape(), updates.shape());
        return Err(Error::invalid(format!(
            "indices of shape {a} and updates of shape {b}, expected one shape"
        )));
    }
    let positions = element_positions(tensor.shape().dims(), indices, axis)?;
    put(call, &positions, 1)
}

/// `ScatterND`.
pub(crate) fn scatter_nd(call: &Call<'_>) -> Outputs {
    let (tensor, indices, updates) = (call.input(0)?, call.input(1)?, call.input(2)?);
    let (own, index_dims) = (tensor.shape().dims(), indices.shape().dims());
    let misfit = || {
        let (index, update) = (indices.shape(), updates.shape());
        Error::invalid(format!("indices {index} and updates {update} do not fit data of shape {own:?}"))
    };
    let (&len, outer) = index_dims.split_last().ok_or_else(misfit)?;
    if len > own.len() || *updates.shape().dims() != [outer, &own[len..]].concat() {
        return Err(misfit());
    }
    let (mut positions, slice) = tuple_positions(own, &integers(indices)?, len)?;
    if len == 0 && updates.shape().n_elements() > 0 {
        positions = vec![0; updates.shape().n_elements() / slice.max(1)];
    }
    put(call, &positions, slice)
}

/// The data (input 0) with the updates (input 2) put or reduced to `positions`, `len` elements at each.
fn put(call: &Call<'_>, positions: &[usize], len: usize) -> Outputs {
    let (tensor, updates) = (call.input(0)?, call.input(2)?);
    if tensor.dtype() != updates.dtype() {
        let (a, b) = (tensor.dtype(), updates.dtype());
        return Err(Error::invalid(format!("data of type {a} and updates of type {b}, expected one type")));
    }
    let dtype = tensor.dtype();
    let result = match call.attributes.text("reduction", "none")? {
        "none" => by_width!(dtype, T => {
            let mut out = <T as Datum>::read(tensor).into_owned();
            combine(&mut out, &<T as Datum>::read(updates), positions, len, |_, new| new.clone());
            <T as Datum>::tensor(dtype, tensor.shape().clone(), out)
        }),
        "add" => by_ring!(dtype, |t| call.no_type(t), T => {
            reduce(tensor, updates, positions, len, |old: &T, new| Ring::add(*old, *new))
        }),
        "mul" => by_ring!(dtype, |t| call.no_type(t), T => {
            reduce(tensor, updates, positions, len, |old: &T, new| Ring::mul(*old, *new))
        }),
        "max" => by_number!(dtype, |t| call.no_type(t), T => {
            reduce(tensor, updates, positions, len, |old: &T, new| old.greater(*new))
        }),
        "min" => by_number!(dtype, |t| call.no_type(t), T => {
            reduce(tensor, updates, positions, len, |old: &T, new| old.lesser(*new))
        }),
        other => Err(Error::invalid(format!("reduction is '{other}', expected none, add, mul, max or min"))),
    };
    Ok(vec![result?])
}

fn combine<T>(out: &mut [T], updates: &[T], positions: &[usize], len: usize, f: impl Fn(&T, &T) -> T) {
    if len == 0 {
        return;
    }
    for (&at, new) in positions.iter().zip(updates.chunks_exact(len)) {
        for (old, new) in out[at..at + len].iter_mut().zip(new) {
            *old = f(old, new);
        }
    }
}

fn reduce<T: Element>(
    tensor: &Tensor,
    updates: &Tensor,
    positions: &[usize],
    len: usize,
    f: impl Fn(&T, &T) -> T,
) -> Result<Tensor, Error> {
    let mut out = read::<T>(tensor).into_owned();
    combine(&mut out, &read::<T>(updates), positions, len, f);
    Ok(Tensor::from_vec(tensor.shape().clone(), out)?)
}
