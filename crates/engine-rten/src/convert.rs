//! Tensors on their way into rten and out of it.

use half::f16;
use rten::{Value, ValueOrView, ValueView};
use rten_tensor::prelude::*;
use rten_tensor::{Tensor as RtenTensor, TensorView};
use salver_engine::{Error, ErrorKind};
use salver_tensor::{DType, Element, Shape, Tensor, TensorSpec};

/// The most elements that a tensor may have, so that every size and position fits the engine's whole numbers.
const MAX_ELEMENTS: usize = i32::MAX as usize;

/// An input as rten takes it: in place where type and alignment allow it, else converted.
pub(crate) fn input<'a>(spec: &TensorSpec, tensor: &'a Tensor) -> Result<ValueOrView<'a>, Error> {
    let refuse =
        |message: String| Error::new(ErrorKind::InvalidInput, message).at(format!("input '{}'", spec.name));
    if tensor.dtype() != spec.dtype {
        return Err(refuse(format!("element type is {}, expected {}", tensor.dtype(), spec.dtype)));
    }
    let dims = tensor.shape().dims();
    if tensor.shape().n_elements() > MAX_ELEMENTS || dims.iter().any(|&dim| dim > MAX_ELEMENTS) {
        return Err(refuse(format!("shape {} has more than {MAX_ELEMENTS} elements", tensor.shape())));
    }
    match spec.dtype {
        DType::F32 => plain::<f32>(tensor),
        DType::I32 => plain::<i32>(tensor),
        DType::I8 => plain::<i8>(tensor),
        DType::U8 => plain::<u8>(tensor),
        DType::F16 => converted::<f16, f32>(tensor, |&x| Ok(x.to_f32())),
        DType::I64 => converted::<i64, i32>(tensor, |&x| i32::try_from(x).map_err(|_| x))
            .map_err(|_| refuse(too_wide(tensor))),
        DType::Bool => owned(tensor, tensor.bytes().map(|b| b.iter().map(|&b| i32::from(b)).collect())),
        other => return Err(refuse(format!("element type {other} is not one the embedded engine has"))),
    }
    .map_err(|error| if error.location().is_some() { error } else { refuse(error.to_string()) })
}

fn mismatch() -> Error {
    Error::new(ErrorKind::InvalidInput, "its bytes are not what its element type and shape ask for")
}

fn plain<'a, T>(tensor: &'a Tensor) -> Result<ValueOrView<'a>, Error>
where
    T: Element,
    ValueView<'a>: From<TensorView<'a, T>>,
    Value: From<RtenTensor<T>>,
{
    match tensor.as_slice::<T>() {
        Some(elements) => {
            let view = TensorView::try_from_data(tensor.shape().dims(), elements).map_err(|_| mismatch())?;
            Ok(ValueOrView::View(view.into()))
        }
        None => owned(tensor, tensor.to_slice::<T>().map(std::borrow::Cow::into_owned)),
    }
}

fn converted<T, U>(
    tensor: &Tensor,
    convert: impl Fn(&T) -> Result<U, T>,
) -> Result<ValueOrView<'static>, Error>
where
    T: Element,
    Value: From<RtenTensor<U>>,
{
    let elements = tensor.to_slice::<T>().ok_or_else(mismatch)?;
    let elements = elements.iter().map(convert).collect::<Result<Vec<U>, T>>().map_err(|_| mismatch())?;
    owned(tensor, Some(elements))
}

fn owned<T>(tensor: &Tensor, elements: Option<Vec<T>>) -> Result<ValueOrView<'static>, Error>
where
    Value: From<RtenTensor<T>>,
{
    let elements = elements.ok_or_else(mismatch)?;
    let value = RtenTensor::try_from_data(tensor.shape().dims(), elements).map_err(|_| mismatch())?;
    Ok(ValueOrView::Value(value.into()))
}

/// Says which element does not fit 32 bits.
fn too_wide(tensor: &Tensor) -> String {
    let elements = tensor.to_slice::<i64>().unwrap_or_default();
    let found = elements.iter().enumerate().find(|(_, x)| i32::try_from(**x).is_err());
    let (at, value) = found.map_or((0, 0), |(at, &value)| (at, value));
    format!(
        "element {at} is {value}, expected a value of at most 32 bits ({} to {}): the embedded engine computes int64 in 32 bits",
        i32::MIN,
        i32::MAX
    )
}

/// An output as clients expect it, in the element type that the model declares. Takes over rten's memory where the
/// types are the same.
pub(crate) fn output(spec: &TensorSpec, value: Value) -> Result<Tensor, Error> {
    let tensor = match (spec.dtype, value) {
        (DType::F32, Value::FloatTensor(t)) => tensor(t, |x: Vec<f32>| x),
        (DType::F16, Value::FloatTensor(t)) => {
            tensor(t, |x: Vec<f32>| x.into_iter().map(f16::from_f32).collect::<Vec<_>>())
        }
        (DType::I32, Value::Int32Tensor(t)) => tensor(t, |x: Vec<i32>| x),
        (DType::I64, Value::Int32Tensor(t)) => {
            tensor(t, |x: Vec<i32>| x.into_iter().map(i64::from).collect::<Vec<_>>())
        }
        (DType::Bool, Value::Int32Tensor(t)) => bools(t),
        (DType::I8, Value::Int8Tensor(t)) => tensor(t, |x: Vec<i8>| x),
        (DType::U8, Value::UInt8Tensor(t)) => tensor(t, |x: Vec<u8>| x),
        (dtype, value) => Err(format!("the engine returned {}, expected {dtype}", value.dtype())),
    };
    tensor.map_err(|message| Error::new(ErrorKind::Internal, message).at(format!("output '{}'", spec.name)))
}

fn shape_of<T>(tensor: &RtenTensor<T>) -> Result<Shape, String> {
    Shape::new(tensor.shape()).map_err(|error| error.to_string())
}

fn tensor<T: Clone, U: Element>(
    tensor: RtenTensor<T>,
    convert: impl Fn(Vec<T>) -> Vec<U>,
) -> Result<Tensor, String> {
    let shape = shape_of(&tensor)?;
    Tensor::from_vec(shape, convert(tensor.into_data())).map_err(|error| error.to_string())
}

fn bools(tensor: RtenTensor<i32>) -> Result<Tensor, String> {
    let shape = shape_of(&tensor)?;
    let elements: Vec<bool> = tensor.into_data().into_iter().map(|x| x != 0).collect();
    Tensor::from_bools(shape, &elements).map_err(|error| error.to_string())
}
