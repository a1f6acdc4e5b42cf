//! `Pad`.

use salver_tensor::Tensor;

use crate::call::Call;
use crate::datum::{Datum, by_width};
use crate::layout::{self, Dims, output_shape};
use crate::{Error, Outputs};

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Constant,
    Reflect,
    Edge,
    Wrap,
}

impl Mode {
    /// The position along an axis of size `dim` that fills position `at`, which may lie outside.
    fn source(self, at: i64, dim: i64) -> Option<usize> {
        let inside = (0..dim).contains(&at);
        let at = match self {
            _ if inside => at,
            Mode::Constant => return None,
            Mode::Edge => at.clamp(0, dim - 1),
            Mode::Wrap => at.rem_euclid(dim),
            Mode::Reflect if dim == 1 => 0,
            Mode::Reflect => {
                let period = 2 * (dim - 1);
                let at = at.rem_euclid(period);
                at.min(period - at)
            }
        };
        usize::try_from(at).ok()
    }
}

/// `Pad`: a negative number of elements takes some away.
pub(crate) fn pad(call: &Call<'_>) -> Outputs {
    let tensor = call.input(0)?;
    let own = tensor.shape().dims();
    let mode = match call.attributes.text("mode", "constant")? {
        "constant" => Mode::Constant,
        "reflect" => Mode::Reflect,
        "edge" => Mode::Edge,
        "wrap" => Mode::Wrap,
        other => {
            return Err(Error::invalid(format!("mode is '{other}', expected constant, reflect, edge, wrap")));
        }
    };
    let pads = call.ints(1)?;
    let axes = match call.optional_ints(3)? {
        Some(axes) => layout::axes(&axes, own.len())?,
        None => (0..own.len()).collect(),
    };
    if pads.len() != 2 * axes.len() {
        return Err(Error::invalid(format!(
            "{} pads of {} axes, expected two of each",
            pads.len(),
            axes.len()
        )));
    }
    let mut before = vec![0i64; own.len()];
    let mut dims = Dims::from_slice(own);
    for (i, &axis) in axes.iter().enumerate() {
        let size = i128::from(pads[i]) + i128::from(pads[i + axes.len()]) + own[axis] as i128;
        dims[axis] = usize::try_from(size)
            .map_err(|_| Error::invalid(format!("padding leaves {size} elements of axis {axis}")))?;
        before[axis] = pads[i];
    }
    output_shape(tensor.dtype(), &dims)?;
    if mode != Mode::Constant && (0..own.len()).any(|axis| own[axis] == 0 && dims[axis] > 0) {
        return Err(Error::invalid("an empty axis cannot be padded with its own elements"));
    }
    by_width!(tensor.dtype(), T => padded::<T>(tensor, &fill::<T>(call, tensor)?, mode, &before, &dims))
}

/// The value that is put in, zero unless one is given.
fn fill<T: Datum>(call: &Call<'_>, tensor: &Tensor) -> Result<T, Error> {
    match call.optional(2) {
        None => Ok(T::default()),
        Some(value) if value.dtype() == tensor.dtype() && value.shape().n_elements() == 1 => {
            Ok(T::read(value)[0].clone())
        }
        Some(value) if value.shape().n_elements() == 0 => Ok(T::default()),
        Some(value) => Err(Error::invalid(format!("value is {value:?}, expected one {}", tensor.dtype()))),
    }
}

fn padded<T: Datum>(tensor: &Tensor, fill: &T, mode: Mode, before: &[i64], dims: &[usize]) -> Outputs {
    let shape = output_shape(tensor.dtype(), dims)?;
    let own = tensor.shape().dims();
    let steps = layout::strides(own);
    let source = T::read(tensor);
    let mut out: Vec<T> = Vec::with_capacity(shape.n_elements());
    if shape.n_elements() == 0 {
        return Ok(vec![T::tensor(tensor.dtype(), shape, out)?]);
    }
    // For each axis, where the element at each position comes from, in elements of the source.
    let origins: Vec<Vec<Option<usize>>> = (0..dims.len())
        .map(|axis| {
            let origin = |i: usize| mode.source((i as i64).saturating_sub(before[axis]), own[axis] as i64);
            (0..dims[axis]).map(|i| origin(i).map(|at| at * steps[axis] as usize)).collect()
        })
        .collect();
    let Some((inner, outer)) = origins.split_last() else {
        return Ok(vec![tensor.clone()]);
    };
    let mut index = vec![0usize; outer.len()];
    loop {
        let base = outer.iter().zip(&index).try_fold(0, |sum, (origin, &i)| origin[i].map(|at| sum + at));
        match base {
            Some(base) => {
                let element =
                    |at: &Option<usize>| at.map_or_else(|| fill.clone(), |at| source[base + at].clone());
                out.extend(inner.iter().map(element));
            }
            None => out.extend(std::iter::repeat_n(fill, inner.len()).cloned()),
        }
        let Some(axis) = (0..index.len()).rev().find(|&axis| index[axis] + 1 < outer[axis].len()) else {
            return Ok(vec![T::tensor(tensor.dtype(), shape, out)?]);
        };
        index[axis] += 1;
        index[axis + 1..].fill(0);
    }
}
