//! Floats as small integers with a scale and a zero point, and back.
//!
//! Meaning: <https://onnx.ai/onnx/operators/onnx__QuantizeLinear.html> and `DequantizeLinear`: a scale and zero point for
//! all, or one for each position along an axis. Scales by blocks are not here.

use salver_tensor::{DType, Element, Tensor};

use crate::call::{Call, read};
use crate::cast::to_type;
use crate::layout::{around, output_shape};
use crate::number::by_type;
use crate::{Error, Outputs};

/// A scale and a zero point for each of `scales.len()` slices along an axis; `after` elements of one slice lie together.
struct Steps {
    scales: Vec<f32>,
    zeros: Vec<f32>,
    after: usize,
}

impl Steps {
    fn new(call: &Call<'_>, zeros: Option<&Tensor>) -> Result<Steps, Error> {
        let (tensor, scale) = (call.input(0)?, call.input(1)?);
        if call.attributes.int("block_size", 0)? != 0 {
            return Err(Error::unsupported(format!("{} with scales by blocks", call.op)));
        }
        if !matches!(scale.dtype(), DType::F32 | DType::F16 | DType::BF16) {
            return Err(call.no_type(scale.dtype()));
        }
        let scales = read::<f32>(&to_type(scale, DType::F32)?).into_owned();
        let zeros = match zeros {
            Some(zeros) => read::<f32>(&to_type(zeros, DType::F32)?).into_owned(),
            None => vec![0.0; scales.len()],
        };
        let dims = tensor.shape().dims();
        let (n, after) = match scale.shape().rank() {
            0 => (1, tensor.shape().n_elements()),
            1 if scales.len() == 1 => (1, tensor.shape().n_elements()),
            _ => {
                let (_, n, after) = around(dims, call.axis(1, dims.len())?);
                (n, after)
            }
        };
        if scale.shape().rank() > 1 || scales.len() != n || zeros.len() != n {
            let shape = scale.shape();
            let found = format!("{} has scales of shape {shape} and {} zero points", call.op, zeros.len());
            return Err(Error::invalid(format!("{found}, expected {n} of each")));
        }
        Ok(Steps { scales, zeros, after: after.max(1) })
    }

    /// One function of an element, its scale and its zero point for all elements.
    fn map<A: Element, B: Element>(
        &self,
        tensor: &Tensor,
        f: impl Fn(A, f32, f32) -> B,
    ) -> Result<Tensor, Error> {
        let shape = output_shape(B::DTYPE, tensor.shape().dims())?;
        let mut elements = Vec::with_capacity(shape.n_elements());
        let steps = self.scales.iter().copied().zip(self.zeros.iter().copied()).cycle();
        for (line, (scale, zero)) in read::<A>(tensor).chunks(self.after).zip(steps) {
            elements.extend(line.iter().map(|&x| f(x, scale, zero)));
        }
        Ok(Tensor::from_vec(shape, elements)?)
    }
}

/// `QuantizeLinear`: `x / scale` rounded, halves to even, plus the zero point, within the bounds of the type.
pub(crate) fn quantise(call: &Call<'_>) -> Outputs {
    let zeros = call.optional(2);
    let dtype = match zeros {
        Some(zeros) => zeros.dtype(),
        None => call.attributes.dtype("output_dtype")?.unwrap_or(DType::U8),
    };
    let steps = Steps::new(call, zeros)?;
    let tensor = call.input(0)?;
    if !matches!(tensor.dtype(), DType::F32 | DType::F16 | DType::BF16) {
        return Err(call.no_type(tensor.dtype()));
    }
    let tensor = to_type(tensor, DType::F32)?;
    let refuse = |dtype| call.no_type(dtype);
    by_type!(dtype, refuse, [I8 = i8, U8 = u8, I16 = i16, U16 = u16], T => {
        let (low, high) = (f32::from(T::MIN), f32::from(T::MAX));
        let quantise = |x: f32, scale: f32, zero: f32| ((x / scale).round_ties_even() + zero).clamp(low, high) as T;
        steps.map(&tensor, quantise)
    })
    .map(|tensor| vec![tensor])
}

/// `DequantizeLinear`: `(x - zero point) * scale`, of the scale's element type.
pub(crate) fn dequantise(call: &Call<'_>) -> Outputs {
    let zeros = call.optional(2);
    let tensor = call.input(0)?;
    if let Some(zeros) = zeros.filter(|zeros| zeros.dtype() != tensor.dtype()) {
        let (own, other) = (tensor.dtype(), zeros.dtype());
        return Err(Error::invalid(format!("{} of {own} with zero points of {other}", call.op)));
    }
    let steps = Steps::new(call, zeros)?;
    let refuse = |dtype| call.no_type(dtype);
    let floats = by_type!(tensor.dtype(), refuse, [I8 = i8, U8 = u8, I16 = i16, U16 = u16, I32 = i32], T => {
        steps.map(tensor, |x: T, scale: f32, zero: f32| (f64::from(x) - f64::from(zero)) as f32 * scale)
    })?;
    Ok(vec![to_type(&floats, call.input(1)?.dtype())?])
}

#[cfg(test)]
mod tests {
    use salver_tensor::Shape;

    use super::*;
    use crate::{Attributes, ErrorKind, run};

    fn of<T: Element>(dims: &[usize], elements: &[T]) -> Tensor {
        Tensor::from_vec(Shape::new(dims).unwrap(), elements.to_vec()).unwrap()
    }

    fn check(op: &str, axis: i64, inputs: &[Tensor], expected: &Tensor) {
        let inputs: Vec<_> = inputs.iter().map(Some).collect();
        let made = run("", op, &Attributes::new().with("axis", axis), &inputs, 1).unwrap();
        assert_eq!(made, std::slice::from_ref(expected), "{op}");
    }

    #[test]
    fn numbers_become_small_integers_and_back() {
        let x = of(&[6], &[0f32, 2.0, 3.0, 1000.0, -254.0, -1000.0]);
        let (scale, zero) = (of(&[], &[2f32]), of(&[], &[128u8]));
        let quantised = of(&[6], &[128u8, 129, 130, 255, 1, 0]);
        check("QuantizeLinear", 1, &[x, scale.clone(), zero.clone()], &quantised);
        check(
            "DequantizeLinear",
            1,
            &[quantised, scale, zero],
            &of(&[6], &[0f32, 2., 4., 254., -254., -256.]),
        );
        // Without a zero point it is 0, of uint8. Halves go to even.
        let halves = of(&[5], &[0.5f32, 1.5, 2.5, -0.5, 300.0]);
        check("QuantizeLinear", 1, &[halves, of(&[], &[1f32])], &of(&[5], &[0u8, 2, 2, 0, 255]));
        let sums = of(&[2], &[-3i32, i32::MAX]);
        check("DequantizeLinear", 1, &[sums, of(&[], &[0.5f32])], &of(&[2], &[-1.5f32, 1_073_741_824.0]));
    }

    #[test]
    fn each_channel_has_its_own_scale() {
        let x = of(&[2, 3], &[1f32, 2.0, 3.0, 4.0, 5.0, -6.0]);
        let zeros = [of(&[2], &[0i8, 1]), of(&[3], &[0i8, 1, -1])];
        let [rows, columns] = &zeros;
        let scales = of(&[2], &[1f32, 0.5]);
        let by_row = of(&[2, 3], &[1i8, 2, 3, 9, 11, -11]);
        check("QuantizeLinear", 0, &[x.clone(), scales.clone(), rows.clone()], &by_row);
        check("DequantizeLinear", 0, &[by_row, scales, rows.clone()], &x);
        let scales = of(&[3], &[1f32, 0.5, 0.25]);
        let by_column = of(&[2, 3], &[1i8, 5, 11, 4, 11, -25]);
        check("QuantizeLinear", -1, &[x.clone(), scales.clone(), columns.clone()], &by_column);
        check("DequantizeLinear", -1, &[by_column, scales, columns.clone()], &x);
        let empty = of::<f32>(&[0, 2], &[]);
        check("QuantizeLinear", 1, &[empty, of(&[2], &[1f32, 1.0]), rows.clone()], &of::<i8>(&[0, 2], &[]));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let x = of(&[2, 3], &[0f32; 6]);
        let one = of(&[], &[1f32]);
        let block = Attributes::new().with("block_size", 2i64);
        let cases: [(&str, Attributes, Vec<Tensor>, ErrorKind); 5] = [
            ("QuantizeLinear", block, vec![x.clone(), one.clone()], ErrorKind::Unsupported),
            ("QuantizeLinear", Attributes::new(), vec![x.clone(), of(&[2], &[1f32; 2])], ErrorKind::Invalid),
            (
                "QuantizeLinear",
                Attributes::new(),
                vec![of(&[1], &[1i32]), one.clone()],
                ErrorKind::Unsupported,
            ),
            ("DequantizeLinear", Attributes::new(), vec![x, one.clone()], ErrorKind::Unsupported),
            (
                "DequantizeLinear",
                Attributes::new(),
                vec![of(&[1], &[1u8]), one, of(&[], &[1i8])],
                ErrorKind::Invalid,
            ),
        ];
        for (op, attributes, inputs, expected) in cases {
            let inputs: Vec<_> = inputs.iter().map(Some).collect();
            let error = run("", op, &attributes, &inputs, 1).unwrap_err();
            assert_eq!(error.kind(), expected, "{error}");
        }
    }
}
