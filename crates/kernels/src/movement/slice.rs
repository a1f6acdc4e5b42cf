//! `Slice`.

use crate::call::Call;
use crate::datum::{Datum, by_width};
use crate::layout::{self, Dims, output_shape};
use crate::{Error, Outputs};

/// `Slice`: from `starts` to `ends` along `axes` with `steps`, which may be negative.
pub(crate) fn slice(call: &Call<'_>) -> Outputs {
    let tensor = call.input(0)?;
    let own = tensor.shape().dims();
    let (starts, ends) = (call.ints(1)?, call.ints(2)?);
    let axes = match call.optional_ints(3)? {
        Some(axes) => layout::axes(&axes, own.len())?,
        None => (0..own.len().min(starts.len())).collect(),
    };
    let steps = call.optional_ints(4)?.unwrap_or_else(|| vec![1; starts.len()]);
    if [ends.len(), axes.len(), steps.len()] != [starts.len(); 3] {
        return Err(Error::invalid(format!(
            "{} starts, {} ends, {} axes, {} steps, expected as many of each",
            starts.len(),
            ends.len(),
            axes.len(),
            steps.len()
        )));
    }
    let mut dims = Dims::from_slice(own);
    let mut strides = layout::strides(own);
    let mut offset = 0isize;
    for (i, &axis) in axes.iter().enumerate() {
        let (first, n) = range(own[axis], starts[i], ends[i], steps[i])?;
        dims[axis] = n;
        if n > 0 {
            offset = offset.saturating_add((first as isize).saturating_mul(strides[axis]));
            // A step longer than the axis is never taken, since then there is one element.
            strides[axis] = strides[axis].saturating_mul(isize::try_from(steps[i]).unwrap_or(isize::MAX));
        }
    }
    if dims[..] == *own && steps.iter().all(|&step| step > 0) {
        return Ok(vec![tensor.clone()]);
    }
    let shape = output_shape(tensor.dtype(), &dims)?;
    by_width!(tensor.dtype(), T => {
        let elements = layout::copy_strided(&<T as Datum>::read(tensor), offset, &dims, &strides);
        Ok(vec![<T as Datum>::tensor(tensor.dtype(), shape, elements)?])
    })
}

/// The first position and the number of positions of one axis. A start outside of it is moved to its edge.
fn range(dim: usize, start: i64, end: i64, step: i64) -> Result<(usize, usize), Error> {
    if step == 0 {
        return Err(Error::invalid("a step is 0"));
    }
    if dim == 0 {
        return Ok((0, 0));
    }
    let dim = dim as i64;
    let from_front = |at: i64| if at < 0 { at.saturating_add(dim) } else { at };
    let (start, end) = (from_front(start), from_front(end));
    let (first, distance) = if step > 0 {
        let first = start.clamp(0, dim);
        (first, end.clamp(0, dim) - first)
    } else {
        let first = start.clamp(0, dim - 1);
        (first, first - end.clamp(-1, dim - 1))
    };
    let n = u64::try_from(distance).unwrap_or(0).div_ceil(step.unsigned_abs());
    Ok((first as usize, n as usize))
}

#[cfg(test)]
mod tests {
    use super::range;

    #[test]
    fn ranges_are_walks_between_clipped_bounds() {
        fn walked(dim: i64, start: i64, end: i64, step: i64) -> Vec<i64> {
            let clip =
                |at: i64, low, high| (if at < 0 { at.saturating_add(dim) } else { at }).clamp(low, high);
            let mut picked = Vec::new();
            if step > 0 {
                let (mut at, end) = (clip(start, 0, dim), clip(end, 0, dim));
                while at < end {
                    picked.push(at);
                    at += step;
                }
            } else {
                if dim == 0 {
                    return picked;
                }
                let (mut at, end) = (clip(start, 0, dim - 1), clip(end, -1, dim - 1));
                while at > end {
                    picked.push(at);
                    at += step;
                }
            }
            picked
        }
        let bounds = [i64::MIN, -8, -6, -5, -4, -1, 0, 1, 3, 4, 5, 6, 9, i64::MAX];
        for dim in 0..6i64 {
            for start in bounds {
                for end in bounds {
                    for step in [-7, -3, -2, -1, 1, 2, 4, 9] {
                        let (first, n) = range(dim as usize, start, end, step).unwrap();
                        let got: Vec<i64> = (0..n as i64).map(|i| first as i64 + i * step).collect();
                        let want = walked(dim, start, end, step);
                        assert_eq!(got, want, "{dim} {start}:{end}:{step}");
                    }
                }
            }
        }
        assert_eq!(range(5, 4, i64::MIN, i64::MIN).unwrap(), (4, 1));
        assert!(range(5, 0, 1, 0).is_err());
    }
}
