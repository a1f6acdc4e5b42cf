//! Tensors on their way into TensorFlow and out of it.

use std::ffi::{c_char, c_int, c_void};
use std::ptr::NonNull;

use bytes::Bytes;
use salver_tensor::{DType, Shape, Tensor};
use salver_tensorflow::read::{dtype_from_number, dtype_name, dtype_number};

use super::api::{Api, TF_STRING, TfString, TfTensor};
use super::{Failure, TensorFlow};

/// Whether a tensor's memory may be used by both sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Memory {
    /// It is used in place and kept for as long as either side needs it.
    Shared,
    /// Each side has its own.
    Copied,
}

/// A `TF_Tensor`.
pub(crate) struct Value {
    api: &'static Api,
    raw: NonNull<TfTensor>,
}

// SAFETY: a tensor is counted memory that nobody writes to; TensorFlow itself passes them between threads.
unsafe impl Send for Value {}
// SAFETY: as above.
unsafe impl Sync for Value {}

impl Drop for Value {
    fn drop(&mut self) {
        // SAFETY: this one's own reference, given back once.
        unsafe { (self.api.TF_DeleteTensor)(self.raw.as_ptr()) };
    }
}

impl Value {
    /// A tensor for TensorFlow. Elements that lie as TensorFlow wants them are used where they are if `memory` allows it;
    /// TensorFlow never writes to memory that it did not reserve itself.
    pub(crate) fn new(tensorflow: TensorFlow, tensor: &Tensor, memory: Memory) -> Result<Value, Failure> {
        let api = tensorflow.0;
        let dims = dims_of(tensor.shape())?;
        if let Some(strings) = tensor.strings() {
            return Value::of_strings(api, &dims, strings);
        }
        let bytes = tensor.bytes().ok_or_else(|| Failure::internal("a tensor without elements"))?;
        let dtype = dtype_number(tensor.dtype());
        // SAFETY: no preconditions.
        let alignment = unsafe { (api.TF_TensorDefaultAlignment)() }.max(1);
        if memory == Memory::Shared && !bytes.is_empty() && bytes.as_ptr().addr().is_multiple_of(alignment) {
            Value::over(api, dtype, &dims, bytes.clone())
        } else {
            Value::copy_of(api, dtype, &dims, bytes)
        }
    }

    fn made(api: &'static Api, raw: *mut TfTensor) -> Result<Value, Failure> {
        let none = || Failure { code: 8, message: "no memory for a tensor".into() };
        NonNull::new(raw).map(|raw| Value { api, raw }).ok_or_else(none)
    }

    fn copy_of(api: &'static Api, dtype: c_int, dims: &[i64], bytes: &[u8]) -> Result<Value, Failure> {
        // SAFETY: the dimensions lie where the pointer says, and the length is what they ask for.
        let raw = unsafe { (api.TF_AllocateTensor)(dtype, dims.as_ptr(), rank(dims), bytes.len()) };
        let value = Value::made(api, raw)?;
        if !bytes.is_empty() {
            // SAFETY: the tensor was made with room for as many bytes, and nobody else has it yet.
            unsafe {
                let to = (api.TF_TensorData)(value.raw.as_ptr()).cast::<u8>();
                std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len());
            }
        }
        Ok(value)
    }

    fn over(api: &'static Api, dtype: c_int, dims: &[i64], bytes: Bytes) -> Result<Value, Failure> {
        extern "C" fn release(_: *mut c_void, _: usize, owner: *mut c_void) {
            // SAFETY: `owner` is the box that was given with the memory; TensorFlow calls this once.
            drop(unsafe { Box::from_raw(owner.cast::<Bytes>()) });
        }
        let (data, len) = (bytes.as_ptr().cast_mut().cast(), bytes.len());
        let owner = Box::into_raw(Box::new(bytes)).cast();
        // SAFETY: the bytes live until `release` is called, also if the tensor cannot be made. TensorFlow marks memory
        // that it is given as not its own and does not write to it.
        let raw = unsafe { (api.TF_NewTensor)(dtype, dims.as_ptr(), rank(dims), data, len, release, owner) };
        Value::made(api, raw)
    }

    fn of_strings(api: &'static Api, dims: &[i64], strings: &[Bytes]) -> Result<Value, Failure> {
        extern "C" fn release(_: *mut c_void, _: usize, owner: *mut c_void) {
            // SAFETY: as in `over`.
            drop(unsafe { Box::from_raw(owner.cast::<Strings>()) });
        }
        let mut list = Strings::new(api, strings.len())?;
        for (at, string) in strings.iter().enumerate() {
            // SAFETY: the list has as many strings, all of them initialised; the bytes are copied.
            unsafe { (api.TF_StringCopy)(list.at(at), string.as_ptr().cast::<c_char>(), string.len()) };
        }
        let (data, len) = (list.at(0).cast(), list.len * size_of::<TfString>());
        let owner = Box::into_raw(Box::new(list)).cast();
        // SAFETY: the strings live until `release` is called. They own their bytes, so that what an operator copies of
        // them owns its bytes too.
        let raw =
            unsafe { (api.TF_NewTensor)(TF_STRING, dims.as_ptr(), rank(dims), data, len, release, owner) };
        Value::made(api, raw)
    }

    pub(super) fn as_ptr(&self) -> *mut TfTensor {
        self.raw.as_ptr()
    }

    /// Takes over a tensor that TensorFlow gave.
    ///
    /// # Safety
    /// `raw` is a tensor of which the caller owns a reference, or null.
    pub(super) unsafe fn from_raw(api: &'static Api, raw: *mut TfTensor) -> Option<Value> {
        NonNull::new(raw).map(|raw| Value { api, raw })
    }

    /// The tensor as everybody else knows it.
    pub(crate) fn into_tensor(self, memory: Memory) -> Result<Tensor, Failure> {
        let (api, raw) = (self.api, self.raw.as_ptr());
        // SAFETY: the tensor lives.
        let (number, n_dims) = unsafe { ((api.TF_TensorType)(raw), (api.TF_NumDims)(raw)) };
        let dtype = dtype_from_number(number).ok_or_else(|| {
            Failure::internal(&format!("an output is of type {}, which is not supported", dtype_name(number)))
        })?;
        // SAFETY: the position is below the number of dimensions.
        let dims = (0..n_dims).map(|at| usize::try_from(unsafe { (api.TF_Dim)(raw, at) }));
        let dims = dims.collect::<Result<Vec<usize>, _>>();
        let dims = dims.map_err(|_| Failure::internal("an output has an unknown dimension"))?;
        let shape = Shape::new(&dims).map_err(|error| Failure::internal(&format!("an output: {error}")))?;
        let made = match dtype {
            DType::String => {
                let strings = self.strings(shape.n_elements())?;
                Tensor::from_strings(shape, strings)
            }
            _ => {
                let elements = Elements::new(self);
                let bytes = match memory {
                    Memory::Shared => Bytes::from_owner(elements),
                    Memory::Copied => Bytes::copy_from_slice(elements.as_ref()),
                };
                Tensor::from_bytes(dtype, shape, bytes)
            }
        };
        made.map_err(|error| Failure::internal(&format!("an output: {error}")))
    }

    /// The strings, copied into one piece of memory.
    fn strings(&self, n_elements: usize) -> Result<Vec<Bytes>, Failure> {
        let api = self.api;
        // SAFETY: the tensor lives.
        let (data, n_bytes) =
            unsafe { ((api.TF_TensorData)(self.as_ptr()), (api.TF_TensorByteSize)(self.as_ptr())) };
        if n_bytes != n_elements.saturating_mul(size_of::<TfString>()) || (data.is_null() && n_elements > 0) {
            return Err(Failure::internal("an output of strings has an unexpected size"));
        }
        if n_elements == 0 {
            return Ok(Vec::new());
        }
        let slice = |at: usize| {
            // SAFETY: the tensor holds as many strings, initialised, and lives for as long as the slice.
            unsafe {
                let string = data.cast::<TfString>().add(at);
                let (start, len) = ((api.TF_StringGetDataPointer)(string), (api.TF_StringGetSize)(string));
                if len == 0 { &[][..] } else { std::slice::from_raw_parts(start.cast::<u8>(), len) }
            }
        };
        let total = (0..n_elements).map(|at| slice(at).len()).sum();
        let mut joined = Vec::with_capacity(total);
        (0..n_elements).for_each(|at| joined.extend_from_slice(slice(at)));
        let mut rest = Bytes::from(joined);
        Ok((0..n_elements).map(|at| rest.split_to(slice(at).len())).collect())
    }
}

/// The elements of a tensor of TensorFlow's, in its memory.
struct Elements {
    /// Keeps the memory.
    _value: Value,
    data: *const u8,
    len: usize,
}

// SAFETY: nobody writes to the elements while there is a reference to the tensor, see `Session::run`.
unsafe impl Send for Elements {}
// SAFETY: as above.
unsafe impl Sync for Elements {}

impl Elements {
    fn new(value: Value) -> Elements {
        let raw = value.as_ptr();
        // SAFETY: the tensor lives.
        let (data, len) = unsafe { ((value.api.TF_TensorData)(raw), (value.api.TF_TensorByteSize)(raw)) };
        let len = if data.is_null() { 0 } else { len };
        Elements { _value: value, data: data.cast_const().cast(), len }
    }
}

impl AsRef<[u8]> for Elements {
    fn as_ref(&self) -> &[u8] {
        if self.len == 0 {
            return &[];
        }
        // SAFETY: the tensor has as many bytes there and is kept.
        unsafe { std::slice::from_raw_parts(self.data, self.len) }
    }
}

/// Memory as TensorFlow wants it: at addresses that are multiples of 64. It ends the process for strings that are not.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
struct Block([u8; 64]);

/// Strings of TensorFlow's in memory of ours.
struct Strings {
    api: &'static Api,
    blocks: Vec<Block>,
    len: usize,
}

impl Strings {
    /// That many empty strings.
    fn new(api: &'static Api, len: usize) -> Result<Strings, Failure> {
        let none = || Failure { code: 8, message: format!("no memory for {len} strings") };
        let n_bytes = len.checked_mul(size_of::<TfString>()).ok_or_else(none)?;
        let n_blocks = n_bytes.div_ceil(size_of::<Block>()).max(1);
        let mut blocks = Vec::new();
        blocks.try_reserve_exact(n_blocks).map_err(|_| none())?;
        blocks.resize(n_blocks, Block([0; 64]));
        let mut strings = Strings { api, blocks, len };
        for at in 0..len {
            // SAFETY: there is room for as many.
            unsafe { (api.TF_StringInit)(strings.at(at)) };
        }
        Ok(strings)
    }

    /// The string at a position. It is in the list if the position is less than the length.
    fn at(&mut self, at: usize) -> *mut TfString {
        self.blocks.as_mut_ptr().cast::<TfString>().wrapping_add(at)
    }
}

impl Drop for Strings {
    fn drop(&mut self) {
        for at in 0..self.len {
            // SAFETY: initialised when the list was made, and not used after this.
            unsafe { (self.api.TF_StringDealloc)(self.at(at)) };
        }
    }
}

fn rank(dims: &[i64]) -> c_int {
    c_int::try_from(dims.len()).expect("a shape has few dimensions")
}

fn dims_of(shape: &Shape) -> Result<Vec<i64>, Failure> {
    let dims = shape.dims().iter().map(|&dim| i64::try_from(dim)).collect::<Result<_, _>>();
    dims.map_err(|_| Failure::invalid(&format!("shape {shape} is out of range")))
}
