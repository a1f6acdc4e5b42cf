//! Rows of unequal shapes made equal, and what came of it cut again.

use bytes::Bytes;
use salver_engine::{Error, ErrorKind};
use salver_tensor::{Shape, Tensor};

/// What fills a tensor up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Fill {
    /// Its own first element, as TensorFlow Serving does.
    First,
    /// Zeros, empty strings.
    Zeros,
}

fn internal(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Internal, message)
}

/// The tensor with its rows enlarged to these dimensions, at their ends; itself if they have them.
pub(crate) fn pad(tensor: &Tensor, row_dims: &[usize], fill: Fill) -> Result<Tensor, Error> {
    if tensor.shape().row_dims() == row_dims {
        return Ok(tensor.clone());
    }
    let from = tensor.shape().dims();
    let mut to = vec![from.first().copied().unwrap_or(1)];
    to.extend_from_slice(row_dims);
    if from.len() != to.len() || from.iter().zip(&to).any(|(from, to)| from > to) {
        return Err(internal(format!("rows of {from:?} do not fit into {to:?}")));
    }
    resize(tensor, &to, fill)
}

/// The first part of a tensor, of these dimensions, none of which exceeds its own.
pub(crate) fn cut(tensor: &Tensor, dims: &[usize]) -> Result<Tensor, Error> {
    if tensor.shape().dims() == dims {
        return Ok(tensor.clone());
    }
    resize(tensor, dims, Fill::Zeros)
}

/// Moves what fits; the rest is filled.
fn resize(tensor: &Tensor, to: &[usize], fill: Fill) -> Result<Tensor, Error> {
    let from = tensor.shape().dims();
    let shape = Shape::new(to).map_err(|error| internal(error.to_string()))?;
    let n = shape.n_elements();
    if let Some(strings) = tensor.strings() {
        let first = strings.first().filter(|_| fill == Fill::First).cloned().unwrap_or_default();
        let mut elements: Vec<Bytes> = vec![first; n];
        runs(from, to, |source, target, len| {
            if let (Some(from), Some(to)) =
                (strings.get(source..source + len), elements.get_mut(target..target + len))
            {
                to.clone_from_slice(from);
            }
        });
        return Tensor::from_strings(shape, elements).map_err(|error| internal(error.to_string()));
    }
    let (Some(size), Some(bytes)) = (tensor.dtype().size(), tensor.bytes()) else {
        return Err(internal(format!("{} cannot be padded", tensor.dtype())));
    };
    let mut target = vec![0u8; n.checked_mul(size).ok_or_else(|| internal("a padded batch is too large"))?];
    if let Some(first) = bytes.get(..size).filter(|_| fill == Fill::First) {
        target.chunks_exact_mut(size).for_each(|element| element.copy_from_slice(first));
    }
    runs(from, to, |source, at, len| {
        let (source, at, len) = (source * size, at * size, len * size);
        if let (Some(from), Some(to)) = (bytes.get(source..source + len), target.get_mut(at..at + len)) {
            to.copy_from_slice(from);
        }
    });
    Tensor::from_bytes(tensor.dtype(), shape, target.into()).map_err(|error| internal(error.to_string()))
}

/// Calls `each` with source, target and length, in elements, of every stretch that both shapes have.
fn runs(from: &[usize], to: &[usize], mut each: impl FnMut(usize, usize, usize)) {
    let common: Vec<usize> = from.iter().zip(to).map(|(from, to)| *from.min(to)).collect();
    let Some((&len, outer)) = common.split_last() else { return each(0, 0, 1) };
    if common.contains(&0) {
        return;
    }
    let strides = |dims: &[usize]| -> Vec<usize> {
        let mut strides = vec![1; dims.len()];
        for at in (1..dims.len()).rev() {
            strides[at - 1] = strides[at] * dims[at];
        }
        strides
    };
    let (source, target) = (strides(from), strides(to));
    let mut index = vec![0; outer.len()];
    loop {
        let at = |strides: &[usize]| index.iter().zip(strides).map(|(i, stride)| i * stride).sum();
        each(at(&source), at(&target), len);
        let mut axis = outer.len();
        loop {
            let Some(next) = axis.checked_sub(1) else { return };
            axis = next;
            index[axis] += 1;
            if index[axis] < outer[axis] {
                break;
            }
            index[axis] = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use salver_tensor::DType;

    use super::*;

    fn tensor(dims: &[usize], elements: &[i32]) -> Tensor {
        Tensor::from_vec(Shape::new(dims).unwrap(), elements.to_vec()).unwrap()
    }

    #[test]
    fn rows_are_enlarged_at_their_ends() {
        let check = |from: &Tensor, row_dims: &[usize], fill: Fill, expected: &Tensor| {
            assert_eq!(&pad(from, row_dims, fill).unwrap(), expected);
        };
        let x = tensor(&[2, 2], &[1, 2, 3, 4]);
        check(&x, &[2], Fill::Zeros, &x);
        check(&x, &[3], Fill::Zeros, &tensor(&[2, 3], &[1, 2, 0, 3, 4, 0]));
        check(&x, &[3], Fill::First, &tensor(&[2, 3], &[1, 2, 1, 3, 4, 1]));
        let deep = tensor(&[1, 2, 1], &[5, 6]);
        check(&deep, &[2, 2], Fill::Zeros, &tensor(&[1, 2, 2], &[5, 0, 6, 0]));
        check(&deep, &[3, 1], Fill::First, &tensor(&[1, 3, 1], &[5, 6, 5]));
        let words = |dims: &[usize], words: &[&'static str]| {
            let words = words.iter().map(|word| Bytes::from_static(word.as_bytes())).collect();
            Tensor::from_strings(Shape::new(dims).unwrap(), words).unwrap()
        };
        check(&words(&[1, 1], &["a"]), &[2], Fill::Zeros, &words(&[1, 2], &["a", ""]));
        check(&words(&[1, 1], &["a"]), &[2], Fill::First, &words(&[1, 2], &["a", "a"]));
        // Nothing to repeat: zeros.
        let empty = Tensor::from_bytes(DType::I32, Shape::new(&[1, 0]).unwrap(), Bytes::new()).unwrap();
        check(&empty, &[2], Fill::First, &tensor(&[1, 2], &[0, 0]));
        assert!(pad(&x, &[1], Fill::Zeros).is_err() && pad(&x, &[2, 2], Fill::Zeros).is_err());
    }

    proptest! {
        #[test]
        fn what_is_padded_and_cut_is_as_it_was(
            dims in prop::collection::vec(1usize..4, 1..5),
            more in prop::collection::vec(0usize..3, 5),
        ) {
            let shape = Shape::new(&dims).unwrap();
            let elements = (0..shape.n_elements() as i32).collect();
            let x = Tensor::from_vec(shape, elements).unwrap();
            let row_dims: Vec<usize> = dims[1..].iter().zip(&more).map(|(dim, more)| dim + more).collect();
            for fill in [Fill::First, Fill::Zeros] {
                let padded = pad(&x, &row_dims, fill).unwrap();
                prop_assert_eq!(padded.shape().row_dims(), &row_dims[..]);
                prop_assert_eq!(cut(&padded, &dims).unwrap(), x.clone());
            }
        }
    }
}
