//! Products of matrices.

use ndarray::linalg::general_mat_mul;
use ndarray::{ArrayView2, ArrayViewMut2, ShapeBuilder};
use salver_tensor::{DType, Tensor};

use crate::call::{Call, read};
use crate::layout::{self, Walk, broadcast, broadcast_strides, output_shape};
use crate::number::{Number, Ring, by_number, by_ring};
use crate::{Error, Kernel, Outputs, cast};

/// A matrix in a slice: steps between rows and between columns.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Matrix<'a, T> {
    pub(crate) elements: &'a [T],
    pub(crate) row_step: usize,
    pub(crate) column_step: usize,
}

impl<'a, T> Matrix<'a, T> {
    /// One whose rows follow each other.
    pub(crate) fn rows(elements: &'a [T], columns: usize) -> Matrix<'a, T> {
        Matrix { elements, row_step: columns, column_step: 1 }
    }

    /// The same with rows and columns exchanged.
    pub(crate) fn transposed(self) -> Matrix<'a, T> {
        Matrix { elements: self.elements, row_step: self.column_step, column_step: self.row_step }
    }
}

/// Elements that matrices are multiplied of.
pub(crate) trait Product: Ring {
    /// Adds the product of `a` (m x k) and `b` (k x n) to `c` (m x n, with `c_step` from row to row).
    fn multiply_add(
        [m, k, n]: [usize; 3],
        a: Matrix<'_, Self>,
        b: Matrix<'_, Self>,
        c: &mut [Self],
        c_step: usize,
    ) {
        simple([m, k, n], a, b, c, c_step);
    }
}

fn simple<T: Ring>([m, k, n]: [usize; 3], a: Matrix<'_, T>, b: Matrix<'_, T>, c: &mut [T], c_step: usize) {
    for i in 0..m {
        let c = &mut c[i * c_step..i * c_step + n];
        for p in 0..k {
            let x = a.elements[i * a.row_step + p * a.column_step];
            let row = &b.elements[p * b.row_step..];
            match b.column_step {
                1 => c.iter_mut().zip(row).for_each(|(c, &y)| *c = Ring::add(*c, Ring::mul(x, y))),
                step => c.iter_mut().zip(row.iter().step_by(step)).for_each(|(c, &y)| {
                    *c = Ring::add(*c, Ring::mul(x, y));
                }),
            }
        }
    }
}

/// Below so many multiplications, or rows, packing the matrices costs more than it gains.
const SMALL: usize = 4096;

macro_rules! blocked {
    ($($float:ty),*) => {
        $(impl Product for $float {
            fn multiply_add(
                [m, k, n]: [usize; 3],
                a: Matrix<'_, $float>,
                b: Matrix<'_, $float>,
                c: &mut [$float],
                c_step: usize,
            ) {
                let small = m.saturating_mul(k).saturating_mul(n) < SMALL || (m <= 2 && b.column_step == 1);
                if small {
                    return simple([m, k, n], a, b, c, c_step);
                }
                let left = ArrayView2::from_shape((m, k).strides((a.row_step, a.column_step)), a.elements);
                let right = ArrayView2::from_shape((k, n).strides((b.row_step, b.column_step)), b.elements);
                match (left, right, ArrayViewMut2::from_shape((m, n).strides((c_step, 1)), c)) {
                    (Ok(left), Ok(right), Ok(mut result)) => general_mat_mul(1.0, &left, &right, 1.0, &mut result),
                    _ => unreachable!("matrices of {m} x {k} and {k} x {n} lie in their slices"),
                }
            }
        })*
    };
}

blocked!(f32, f64);

macro_rules! unblocked {
    ($($element:ty),*) => {
        $(impl Product for $element {})*
    };
}

unblocked!(i8, i16, i32, i64, u8, u16, u32, u64, half::f16, half::bf16, [f32; 2], [f64; 2]);

/// Runs an operator on half-width floats in `f32`: the inputs of that type are widened, the outputs rounded.
pub(crate) fn widened(call: &Call<'_>, kernel: Kernel) -> Outputs {
    let dtype = call.input(0)?.dtype();
    let wide: Vec<Option<Tensor>> = call
        .inputs
        .iter()
        .map(|input| match input {
            Some(tensor) if tensor.dtype() == dtype => cast::to_type(tensor, DType::F32).map(Some),
            other => Ok(other.cloned()),
        })
        .collect::<Result<_, Error>>()?;
    let inputs: Vec<Option<&Tensor>> = wide.iter().map(Option::as_ref).collect();
    let outputs = kernel(&Call { inputs: &inputs, ..*call })?;
    outputs
        .iter()
        .map(|output| match output.dtype() {
            DType::F32 => cast::to_type(output, dtype),
            _ => Ok(output.clone()),
        })
        .collect()
}

/// Whether elements of this type are computed with in `f32`.
pub(crate) fn is_half(tensor: &Tensor) -> bool {
    matches!(tensor.dtype(), DType::F16 | DType::BF16)
}

/// `MatMul`, by NumPy's rules.
pub(crate) fn matmul(call: &Call<'_>) -> Outputs {
    let (a, b) = (call.input(0)?, call.input(1)?);
    if a.dtype() != b.dtype() {
        return Err(Error::invalid(format!(
            "inputs of types {} and {}, expected one type",
            a.dtype(),
            b.dtype()
        )));
    }
    if is_half(a) {
        return widened(call, matmul);
    }
    by_ring!(a.dtype(), |t| call.no_type(t), T => product::<T>(a, b))
}

fn product<T: Product>(a: &Tensor, b: &Tensor) -> Outputs {
    let misfit = || Error::invalid(format!("matrices of shapes {} and {}", a.shape(), b.shape()));
    let (a_dims, b_dims) = (a.shape().dims(), b.shape().dims());
    let (a_batch, m, k) = match a_dims {
        [] => return Err(misfit()),
        [k] => (&[][..], 1, *k),
        [batch @ .., m, k] => (batch, *m, *k),
    };
    let (b_batch, k_b, n) = match b_dims {
        [] => return Err(misfit()),
        [k] => (&[][..], *k, 1),
        [batch @ .., k, n] => (batch, *k, *n),
    };
    if k != k_b {
        return Err(misfit());
    }
    let batch = broadcast(a_batch, b_batch)?;
    let mut dims = batch.clone();
    dims.extend((a_dims.len() > 1).then_some(m));
    dims.extend((b_dims.len() > 1).then_some(n));
    let shape = output_shape(T::DTYPE, &dims)?;
    let mut out = vec![T::zeroed(); shape.n_elements()];
    let (x, y) = (read::<T>(a), read::<T>(b));
    if out.is_empty() || k == 0 {
        return Ok(vec![Tensor::from_vec(shape, out)?]);
    }
    if b_batch.iter().all(|&dim| dim == 1) {
        // One right matrix: the left ones are one tall matrix.
        let rows = out.len() / n;
        T::multiply_add([rows, k, n], Matrix::rows(&x, k), Matrix::rows(&y, n), &mut out, n);
        return Ok(vec![Tensor::from_vec(shape, out)?]);
    }
    let steps = [broadcast_strides(a_batch, &batch), broadcast_strides(b_batch, &batch)];
    let mut results = out.chunks_exact_mut(m * n);
    Walk::new(&batch, [&steps[0], &steps[1]]).each([0, 0], |[i, j]| {
        let (x, y) = (&x[i * m * k..(i + 1) * m * k], &y[j * k * n..(j + 1) * k * n]);
        if let Some(result) = results.next() {
            T::multiply_add([m, k, n], Matrix::rows(x, k), Matrix::rows(y, n), result, n);
        }
    });
    Ok(vec![Tensor::from_vec(shape, out)?])
}

/// `Gemm`: the product of two matrices, each transposed if asked, times `alpha`, plus the third input times `beta`.
pub(crate) fn gemm(call: &Call<'_>) -> Outputs {
    let a = call.input(0)?;
    if is_half(a) {
        return widened(call, gemm);
    }
    by_number!(a.dtype(), |t| call.no_type(t), T => general::<T>(call))
}

fn general<T: Product + Number>(call: &Call<'_>) -> Outputs {
    let (a, b, c) = (call.input(0)?, call.input(1)?, call.optional(2));
    if [Some(b), c].into_iter().flatten().any(|input| input.dtype() != T::DTYPE) {
        return Err(Error::invalid("inputs of different types"));
    }
    let factor = |name| -> Result<T, Error> {
        let value = f64::from(call.attributes.float(name, 1.0)?);
        if T::INTEGER && value.fract() != 0.0 {
            return Err(Error::unsupported(format!("{name} is {value} and the inputs are integers")));
        }
        Ok(T::from_f64(value))
    };
    let (alpha, beta) = (factor("alpha")?, factor("beta")?);
    let matrix = |tensor: &Tensor, flip: &str| -> Result<(usize, usize, bool), Error> {
        let flip = call.attributes.flag(flip, false)?;
        match *tensor.shape().dims() {
            [rows, columns] if flip => Ok((columns, rows, flip)),
            [rows, columns] => Ok((rows, columns, flip)),
            _ => Err(Error::invalid(format!("input has shape {}, expected a matrix", tensor.shape()))),
        }
    };
    let (m, k, flip_a) = matrix(a, "transA")?;
    let (k_b, n, flip_b) = matrix(b, "transB")?;
    if k != k_b {
        return Err(Error::invalid(format!("matrices of {m} x {k} and {k_b} x {n}")));
    }
    let shape = output_shape(T::DTYPE, &[m, n])?;
    let mut out = vec![T::default(); shape.n_elements()];
    let (x, y) = (read::<T>(a), read::<T>(b));
    let x = if flip_a { Matrix::rows(&x, m).transposed() } else { Matrix::rows(&x, k) };
    let y = if flip_b { Matrix::rows(&y, k).transposed() } else { Matrix::rows(&y, n) };
    if !out.is_empty() && k > 0 {
        T::multiply_add([m, k, n], x, y, &mut out, n);
    }
    if alpha != T::ONE {
        out.iter_mut().for_each(|x| *x = Ring::mul(*x, alpha));
    }
    if let Some(c) = c {
        let dims = [m, n];
        if layout::broadcast(c.shape().dims(), &dims)?[..] != dims {
            return Err(Error::invalid(format!("bias {} does not fit {shape}", c.shape())));
        }
        let source = read::<T>(c);
        let steps = broadcast_strides(c.shape().dims(), &dims);
        let mut results = out.iter_mut();
        Walk::new(&dims, [&steps]).each([0], |[at]| {
            if let Some(result) = results.next() {
                *result = Ring::add(*result, Ring::mul(beta, source[at]));
            }
        });
    }
    Ok(vec![Tensor::from_vec(shape, out)?])
}
