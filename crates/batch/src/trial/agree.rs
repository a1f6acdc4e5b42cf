//! Whether two answers are the same but for rounding.

use half::{bf16, f16};
use salver_tensor::{DType, Tensor};

/// Floats may differ by this part of what they are compared by: low precisions round differently in other kernels.
const TOLERANCE: f64 = 0.02;

/// A column whose elements are smaller than this part of the largest of all may be nothing but rounding.
const NOISE: f64 = 1e-5;

/// Whether two tensors are equal: of floats, within 2 % of the largest.
pub(super) fn of_the_largest(a: &Tensor, b: &Tensor) -> bool {
    match (floats(a), floats(b)) {
        (Some(a), Some(b)) => {
            let tolerance = TOLERANCE * largest(&b).max(1e-30);
            a.len() == b.len() && a.iter().zip(&b).all(|(&a, &b)| is_near(a, b, tolerance))
        }
        _ => a == b,
    }
}

/// Whether two tensors are equal: of floats, each within 2 % of the largest that its column (position in the innermost
/// dimension; a vector is one column) has in `all`, so that a column of large elements hides no other.
pub(super) fn by_column(a: &Tensor, b: &Tensor, all: [&Tensor; 2]) -> bool {
    let (Some(a_floats), Some(b_floats)) = (floats(a), floats(b)) else { return a == b };
    let n_columns = match a.shape().dims() {
        [_, .., last] => (*last).max(1),
        _ => 1,
    };
    let mut columns = vec![0f64; n_columns];
    for element in all.into_iter().filter_map(floats) {
        for (at, y) in element.iter().enumerate().filter(|(_, y)| y.is_finite()) {
            if let Some(most) = columns.get_mut(at % n_columns) {
                *most = most.max(y.abs());
            }
        }
    }
    let least = NOISE * columns.iter().copied().fold(1e-25, f64::max);
    let tolerance = |at: usize| TOLERANCE * columns.get(at % n_columns).copied().unwrap_or(0.0) + least;
    a_floats.len() == b_floats.len()
        && a_floats.iter().zip(&b_floats).enumerate().all(|(at, (&a, &b))| is_near(a, b, tolerance(at)))
}

/// Whether all parts of so many rows are exactly the same.
pub(super) fn are_alike(tensor: &Tensor, n_rows: usize) -> bool {
    let n_parts = tensor.shape().n_rows().unwrap_or(0) / n_rows.max(1);
    let first = tensor.rows(0, n_rows);
    (1..n_parts).all(|part| tensor.rows(part * n_rows, n_rows) == first)
}

fn largest(floats: &[f64]) -> f64 {
    floats.iter().filter(|y| y.is_finite()).fold(0f64, |largest, y| largest.max(y.abs()))
}

fn is_near(a: f64, b: f64, tolerance: f64) -> bool {
    a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= tolerance
}

fn floats(tensor: &Tensor) -> Option<Vec<f64>> {
    match tensor.dtype() {
        DType::F32 => Some(tensor.to_slice::<f32>()?.iter().map(|&y| f64::from(y)).collect()),
        DType::F64 => Some(tensor.to_slice::<f64>()?.to_vec()),
        DType::F16 => Some(tensor.to_slice::<f16>()?.iter().map(|y| y.to_f64()).collect()),
        DType::BF16 => Some(tensor.to_slice::<bf16>()?.iter().map(|y| y.to_f64()).collect()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use salver_tensor::Shape;

    use super::*;

    fn matrix(dims: &[usize], elements: &[f32]) -> Tensor {
        Tensor::from_vec(Shape::new(dims).unwrap(), elements.to_vec()).unwrap()
    }

    #[test]
    fn each_column_is_compared_by_its_own_size() {
        let check = |a: &[f32], b: &[f32], expected: [bool; 2]| {
            let [a, b] = [a, b].map(|row| matrix(&[1, row.len()], row));
            let agree = [of_the_largest(&a, &b), by_column(&a, &b, [&a, &b])];
            assert_eq!(agree, expected, "{a:?} {b:?}");
        };
        check(&[1.0, 2.0], &[1.01, 2.01], [true, true]);
        // A large column hides a small one from the first only.
        check(&[1000.0, 0.5], &[1000.0, -0.5], [true, false]);
        check(&[1000.0, 0.5], &[1100.0, 0.5], [false, false]);
        // Rounding of sums that cancel out, and the small ones of a softmax.
        check(&[10.0, 1e-6], &[10.0, -1e-6], [true, true]);
        check(&[0.999_999, 1e-9], &[0.999_999, 3e-9], [true, true]);
        check(&[0.9, 1e-2], &[0.9, 3e-2], [false, false]);
        check(&[f32::NAN, f32::INFINITY], &[f32::NAN, f32::INFINITY], [true, true]);
        check(&[f32::NAN, 1.0], &[0.0, 1.0], [false, false]);
        check(&[0.0, 0.0], &[0.0, 0.0], [true, true]);
    }

    #[test]
    fn a_vector_is_one_column_and_rows_that_are_alike_are_seen() {
        let [a, b] = [matrix(&[3], &[1.0, 100.0, 0.0]), matrix(&[3], &[1.5, 100.0, 0.0])];
        assert!(by_column(&a, &b, [&a, &b]));
        let check = |dims: &[usize], elements: &[f32], n_rows: usize, expected: bool| {
            assert_eq!(are_alike(&matrix(dims, elements), n_rows), expected, "{elements:?}");
        };
        check(&[3, 1], &[1.0, 1.0, 1.0], 1, true);
        check(&[3, 1], &[1.0, 1.0, 2.0], 1, false);
        check(&[4, 1], &[1.0, 2.0, 1.0, 2.0], 2, true);
    }
}
