//! Tensors of ONNX files.

use bytes::Bytes;
use salver_tensor::{DType, Shape, Tensor};

use super::dtype_of;
use super::proto::TensorProto;
use super::proto::tensor_proto::DataLocation;
use crate::Error;

/// Gives a range of a file beside the model: name, first byte, number of bytes if it is said.
pub type Beside<'a> = dyn Fn(&str, usize, Option<usize>) -> Result<Bytes, Error> + 'a;

/// The tensor of a message. Raw elements are shared; memory is bounded by what the message or the file holds.
///
/// # Errors
/// When the element type is not one that tensors have, or the elements are not as many as the dimensions say.
pub(super) fn tensor(proto: &TensorProto, beside: &Beside<'_>) -> Result<Tensor, Error> {
    let made = element_type(proto).and_then(|dtype| {
        let dims: Option<Vec<usize>> = proto.dims.iter().map(|&dim| usize::try_from(dim).ok()).collect();
        let dims =
            dims.ok_or_else(|| Error::invalid(format!("dimensions {:?} are not a shape", proto.dims)))?;
        let shape = Shape::new(&dims).map_err(|error| Error::invalid(error.to_string()))?;
        if proto.segment.is_some() {
            return Err(Error::unsupported("tensors in segments are not read"));
        }
        elements(proto, dtype, shape, beside)
    });
    made.map_err(|error| error.at(format!("tensor '{}'", proto.name())))
}

fn element_type(proto: &TensorProto) -> Result<DType, Error> {
    dtype_of(proto.data_type()).ok_or_else(|| {
        let name = super::proto::tensor_proto::DataType::try_from(proto.data_type());
        let name =
            name.map_or_else(|_| proto.data_type().to_string(), |known| known.as_str_name().to_owned());
        Error::unsupported(format!("element type {name} is not one that is read"))
    })
}

fn elements(proto: &TensorProto, dtype: DType, shape: Shape, beside: &Beside<'_>) -> Result<Tensor, Error> {
    let misfit = |error: salver_tensor::TensorError| Error::invalid(error.to_string());
    if dtype == DType::String {
        return Tensor::from_strings(shape, proto.string_data.clone()).map_err(misfit);
    }
    if proto.data_location() == DataLocation::External {
        let n_bytes = dtype.size().and_then(|size| size.checked_mul(shape.n_elements()));
        let bytes = external(proto, n_bytes, beside)?;
        return Tensor::from_bytes(dtype, shape, bytes).map_err(misfit);
    }
    if let Some(raw) = proto.raw_data.as_ref().filter(|raw| !raw.is_empty() || shape.n_elements() == 0) {
        return Tensor::from_bytes(dtype, shape, raw.clone()).map_err(misfit);
    }
    Tensor::from_bytes(dtype, shape, typed(proto, dtype)?.into()).map_err(misfit)
}

fn external(proto: &TensorProto, n_bytes: Option<usize>, beside: &Beside<'_>) -> Result<Bytes, Error> {
    let entry = |key: &str| {
        let found = proto.external_data.iter().find(|entry| entry.key() == key);
        found.map(|entry| entry.value().to_owned())
    };
    let number = |key: &str| match entry(key) {
        None => Ok(None),
        Some(text) => {
            let number =
                text.parse::<usize>().map_err(|_| Error::invalid(format!("external {key} is '{text}'")));
            number.map(Some)
        }
    };
    let location = entry("location").ok_or_else(|| Error::invalid("external data without a location"))?;
    beside(&location, number("offset")?.unwrap_or(0), number("length")?.or(n_bytes))
}

/// The bytes of elements that are in a field of their own type.
fn typed(proto: &TensorProto, dtype: DType) -> Result<Vec<u8>, Error> {
    let ints = || proto.int32_data.iter();
    let outside = |value: i32| Error::invalid(format!("element {value} is not a {dtype}"));
    Ok(match dtype {
        DType::F32 | DType::C64 => proto.float_data.iter().flat_map(|x| x.to_le_bytes()).collect(),
        DType::F64 | DType::C128 => proto.double_data.iter().flat_map(|x| x.to_le_bytes()).collect(),
        DType::I64 => proto.int64_data.iter().flat_map(|x| x.to_le_bytes()).collect(),
        DType::U64 => proto.uint64_data.iter().flat_map(|x| x.to_le_bytes()).collect(),
        DType::U32 => {
            let narrow = |&x: &u64| {
                u32::try_from(x).map_err(|_| Error::invalid(format!("element {x} is not a uint32")))
            };
            let narrow = proto.uint64_data.iter().map(narrow).collect::<Result<Vec<u32>, _>>()?;
            narrow.into_iter().flat_map(u32::to_le_bytes).collect()
        }
        DType::I32 => ints().flat_map(|x| x.to_le_bytes()).collect(),
        DType::Bool => ints().map(|&x| u8::from(x != 0)).collect(),
        DType::I8 => {
            let narrow = |&x: &i32| i8::try_from(x).map(|x| x.to_le_bytes()[0]).map_err(|_| outside(x));
            ints().map(narrow).collect::<Result<_, _>>()?
        }
        DType::U8 => ints().map(|&x| u8::try_from(x).map_err(|_| outside(x))).collect::<Result<_, _>>()?,
        DType::I16 => {
            let narrow = |&x: &i32| i16::try_from(x).map(i16::to_le_bytes).map_err(|_| outside(x));
            ints().map(narrow).collect::<Result<Vec<_>, _>>()?.concat()
        }
        // Small floats are their bits.
        DType::U16 | DType::F16 | DType::BF16 => {
            let narrow = |&x: &i32| u16::try_from(x).map(u16::to_le_bytes).map_err(|_| outside(x));
            ints().map(narrow).collect::<Result<Vec<_>, _>>()?.concat()
        }
        DType::String => Vec::new(),
    })
}
