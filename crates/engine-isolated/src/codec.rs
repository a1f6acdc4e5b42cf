//! Values as bytes: fixed-size numbers are little-endian, everything of open length has its length before it.
//!
//! What is read comes from another process and may be anything: nothing is allocated on a claimed length, nothing recurses.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use salver_engine::{Error, ErrorKind, Format, LoadOptions, ModelSource, Precision};
use salver_tensor::{DType, Dims, Shape, Signature, Tensor, TensorSpec};

/// Bytes that are not what was expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) String);

impl Malformed {
    pub(crate) fn new(text: impl Into<String>) -> Malformed {
        Malformed(text.into())
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What has a form in bytes. Every value takes at least one byte.
pub(crate) trait Wire: Sized {
    fn put(&self, out: &mut Vec<u8>);
    fn get(from: &mut Reader<'_>) -> Result<Self, Malformed>;
}

/// The bytes that are still to be read.
#[derive(Debug, Clone)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    /// How many bytes are left.
    pub(crate) fn n_left(&self) -> usize {
        self.rest.len()
    }

    /// The next `n` bytes.
    fn bytes(&mut self, n: usize) -> Result<&'a [u8], Malformed> {
        let (head, rest) = self
            .rest
            .split_at_checked(n)
            .ok_or_else(|| Malformed(format!("{n} bytes expected, {} left", self.rest.len())))?;
        self.rest = rest;
        Ok(head)
    }

    /// The bytes behind a length.
    fn counted(&mut self) -> Result<&'a [u8], Malformed> {
        let n = usize::get(self)?;
        self.bytes(n)
    }

    /// Checks that nothing is left.
    pub(crate) fn end(&self) -> Result<(), Malformed> {
        match self.rest.len() {
            0 => Ok(()),
            n => Err(Malformed(format!("{n} bytes more than expected"))),
        }
    }
}

/// All of `bytes` as one value.
pub(crate) fn read<T: Wire>(bytes: &[u8]) -> Result<T, Malformed> {
    let mut reader = Reader::new(bytes);
    let value = T::get(&mut reader)?;
    reader.end()?;
    Ok(value)
}

fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    bytes.len().put(out);
    out.extend_from_slice(bytes);
}

impl Wire for u8 {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(*self);
    }

    fn get(from: &mut Reader<'_>) -> Result<u8, Malformed> {
        Ok(from.bytes(1)?[0])
    }
}

impl Wire for u64 {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_le_bytes());
    }

    fn get(from: &mut Reader<'_>) -> Result<u64, Malformed> {
        let bytes = from.bytes(8)?.try_into().expect("eight bytes were taken");
        Ok(u64::from_le_bytes(bytes))
    }
}

impl Wire for usize {
    fn put(&self, out: &mut Vec<u8>) {
        (*self as u64).put(out);
    }

    fn get(from: &mut Reader<'_>) -> Result<usize, Malformed> {
        let number = u64::get(from)?;
        usize::try_from(number).map_err(|_| Malformed(format!("{number} is not a size")))
    }
}

impl Wire for bool {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }

    fn get(from: &mut Reader<'_>) -> Result<bool, Malformed> {
        match u8::get(from)? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(Malformed(format!("{other} is neither yes nor no"))),
        }
    }
}

impl Wire for String {
    fn put(&self, out: &mut Vec<u8>) {
        put_bytes(self.as_bytes(), out);
    }

    fn get(from: &mut Reader<'_>) -> Result<String, Malformed> {
        let bytes = from.counted()?;
        let text = std::str::from_utf8(bytes).map_err(|error| Malformed(format!("a text: {error}")))?;
        Ok(text.to_owned())
    }
}

impl Wire for Arc<str> {
    fn put(&self, out: &mut Vec<u8>) {
        put_bytes(self.as_bytes(), out);
    }

    fn get(from: &mut Reader<'_>) -> Result<Arc<str>, Malformed> {
        String::get(from).map(Into::into)
    }
}

impl Wire for Bytes {
    fn put(&self, out: &mut Vec<u8>) {
        put_bytes(self, out);
    }

    fn get(from: &mut Reader<'_>) -> Result<Bytes, Malformed> {
        from.counted().map(Bytes::copy_from_slice)
    }
}

impl Wire for PathBuf {
    fn put(&self, out: &mut Vec<u8>) {
        put_bytes(self.as_os_str().as_bytes(), out);
    }

    fn get(from: &mut Reader<'_>) -> Result<PathBuf, Malformed> {
        Ok(OsString::from_vec(from.counted()?.to_vec()).into())
    }
}

impl<T: Wire> Wire for Option<T> {
    fn put(&self, out: &mut Vec<u8>) {
        self.is_some().put(out);
        self.iter().for_each(|value| value.put(out));
    }

    fn get(from: &mut Reader<'_>) -> Result<Option<T>, Malformed> {
        bool::get(from)?.then(|| T::get(from)).transpose()
    }
}

impl<T: Wire> Wire for Vec<T> {
    fn put(&self, out: &mut Vec<u8>) {
        put_all(self, out);
    }

    fn get(from: &mut Reader<'_>) -> Result<Vec<T>, Malformed> {
        let n = usize::get(from)?;
        // Each value takes a byte, so that more than there are bytes cannot come.
        if n > from.n_left() {
            return Err(Malformed(format!("{n} values in {} bytes", from.n_left())));
        }
        (0..n).map(|_| T::get(from)).collect()
    }
}

pub(crate) fn put_all<T: Wire>(values: &[T], out: &mut Vec<u8>) {
    values.len().put(out);
    values.iter().for_each(|value| value.put(out));
}

impl<A: Wire, B: Wire> Wire for (A, B) {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
        self.1.put(out);
    }

    fn get(from: &mut Reader<'_>) -> Result<(A, B), Malformed> {
        Ok((A::get(from)?, B::get(from)?))
    }
}

impl<T: Wire> Wire for Arc<T> {
    fn put(&self, out: &mut Vec<u8>) {
        T::put(self, out);
    }

    fn get(from: &mut Reader<'_>) -> Result<Arc<T>, Malformed> {
        T::get(from).map(Arc::new)
    }
}

/// Values that are their positions in a list. One that is not in it is written as a position that nobody reads.
macro_rules! listed {
    ($($name:ident in $all:expr;)*) => {
        $(
            impl Wire for $name {
                fn put(&self, out: &mut Vec<u8>) {
                    let at = $all.iter().position(|one| one == self);
                    out.push(at.and_then(|at| u8::try_from(at).ok()).unwrap_or(u8::MAX));
                }

                fn get(from: &mut Reader<'_>) -> Result<$name, Malformed> {
                    let at = u8::get(from)?;
                    let one = $all.get(usize::from(at)).copied();
                    one.ok_or_else(|| Malformed(format!("no {} {at}", stringify!($name))))
                }
            }
        )*
    };
}

listed! {
    DType in DType::ALL;
    Precision in Precision::ALL;
    Format in FORMATS;
    ErrorKind in ERROR_KINDS;
}

const FORMATS: [Format; 6] = [
    Format::Onnx,
    Format::SavedModel,
    Format::FrozenGraph,
    Format::Keras,
    Format::TfLite,
    Format::SessionBundle,
];

const ERROR_KINDS: [ErrorKind; 8] = [
    ErrorKind::NotFound,
    ErrorKind::Io,
    ErrorKind::InvalidModel,
    ErrorKind::Unsupported,
    ErrorKind::InvalidInput,
    ErrorKind::ResourceExhausted,
    ErrorKind::Unavailable,
    ErrorKind::Internal,
];

impl Wire for Error {
    fn put(&self, out: &mut Vec<u8>) {
        self.kind().put(out);
        put_bytes(self.message().as_bytes(), out);
        self.location().map(str::to_owned).put(out);
    }

    fn get(from: &mut Reader<'_>) -> Result<Error, Malformed> {
        let error = Error::new(ErrorKind::get(from)?, String::get(from)?);
        Ok(match Option::<String>::get(from)? {
            Some(place) => error.at(place),
            None => error,
        })
    }
}

impl Wire for ModelSource {
    fn put(&self, out: &mut Vec<u8>) {
        self.path.put(out);
        self.format.put(out);
    }

    fn get(from: &mut Reader<'_>) -> Result<ModelSource, Malformed> {
        Ok(ModelSource { path: PathBuf::get(from)?, format: Format::get(from)? })
    }
}

impl Wire for LoadOptions {
    fn put(&self, out: &mut Vec<u8>) {
        self.saved_model_tags.put(out);
        self.threads.get().put(out);
        self.n_lanes.get().put(out);
        self.precision.put(out);
        self.ranges.put(out);
    }

    fn get(from: &mut Reader<'_>) -> Result<LoadOptions, Malformed> {
        fn number(from: &mut Reader<'_>) -> Result<std::num::NonZeroUsize, Malformed> {
            usize::get(from)?.try_into().map_err(|_| Malformed::new("0 threads or lanes"))
        }
        let mut options = LoadOptions::default();
        options.saved_model_tags = Vec::get(from)?;
        options.threads = number(from)?;
        options.n_lanes = number(from)?;
        options.precision = Precision::get(from)?;
        options.ranges = Option::get(from)?;
        Ok(options)
    }
}

impl Wire for Shape {
    fn put(&self, out: &mut Vec<u8>) {
        put_all(self.dims(), out);
    }

    fn get(from: &mut Reader<'_>) -> Result<Shape, Malformed> {
        Shape::new(&Vec::get(from)?).map_err(|error| Malformed(error.to_string()))
    }
}

impl Wire for Dims {
    fn put(&self, out: &mut Vec<u8>) {
        self.known().map(<[_]>::to_vec).put(out);
    }

    fn get(from: &mut Reader<'_>) -> Result<Dims, Malformed> {
        Ok(Option::get(from)?.map_or_else(Dims::unknown, Dims::new))
    }
}

/// A tensor with its elements, for those that are few; runs pass theirs through shared memory.
impl Wire for Tensor {
    fn put(&self, out: &mut Vec<u8>) {
        self.dtype().put(out);
        self.shape().put(out);
        match (self.bytes(), self.strings()) {
            (Some(bytes), _) => bytes.put(out),
            (None, strings) => put_all(strings.unwrap_or_default(), out),
        }
    }

    fn get(from: &mut Reader<'_>) -> Result<Tensor, Malformed> {
        let (dtype, shape) = (DType::get(from)?, Shape::get(from)?);
        let tensor = match dtype {
            DType::String => Tensor::from_strings(shape, Vec::get(from)?),
            _ => Tensor::from_bytes(dtype, shape, Bytes::get(from)?),
        };
        tensor.map_err(|error| Malformed(error.to_string()))
    }
}

impl Wire for TensorSpec {
    fn put(&self, out: &mut Vec<u8>) {
        self.name.put(out);
        self.tensor_name.put(out);
        self.dtype.put(out);
        self.dims.put(out);
        self.default.put(out);
    }

    fn get(from: &mut Reader<'_>) -> Result<TensorSpec, Malformed> {
        Ok(TensorSpec {
            name: Wire::get(from)?,
            tensor_name: Wire::get(from)?,
            dtype: Wire::get(from)?,
            dims: Wire::get(from)?,
            default: Wire::get(from)?,
        })
    }
}

impl Wire for Signature {
    fn put(&self, out: &mut Vec<u8>) {
        self.name().put(out);
        put_bytes(self.method_name().as_bytes(), out);
        for specs in [self.inputs(), self.outputs(), self.declared_inputs(), self.declared_outputs()] {
            put_all(specs, out);
        }
        self.takes_any_shape().put(out);
        self.keeps_state().put(out);
    }

    fn get(from: &mut Reader<'_>) -> Result<Signature, Malformed> {
        let (name, method) = (<Arc<str>>::get(from)?, <Arc<str>>::get(from)?);
        let (inputs, outputs) = (Vec::get(from)?, Vec::get(from)?);
        let mut signature =
            Signature::new(name, method, inputs, outputs).with_declared(Vec::get(from)?, Vec::get(from)?);
        if bool::get(from)? {
            signature = signature.with_any_shape();
        }
        if bool::get(from)? {
            signature = signature.with_state();
        }
        Ok(signature)
    }
}

#[cfg(test)]
mod tests;
