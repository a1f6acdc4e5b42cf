//! Calls of the library that the crate `ort` has no safe form for: runs of one session on several threads, tensors that
//! share memory with ours, and strings that need not be UTF-8.
//!
//! All pointers that this module makes are owned by its types and released by them. The functions are those of
//! <https://onnxruntime.ai/docs/api/c/struct_ort_api.html>.

#![expect(unsafe_code, reason = "the library speaks C")]

mod process;

use std::ffi::{CStr, CString, c_char, c_void};
use std::marker::PhantomData;
use std::path::Path;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use bytes::Bytes;
use ort::AsPointer;
use ort::session::Session;
use ort::session::builder::SessionBuilder;
use ort::sys::{
    ONNXTensorElementDataType as Elem, OrtAllocator, OrtAllocatorType, OrtApiBase, OrtMemType, OrtMemoryInfo,
    OrtStatusPtr, OrtTensorTypeAndShapeInfo, OrtValue,
};
use salver_tensor::{DType, MAX_RANK, Shape, Tensor};

pub(crate) use process::is_silent;
pub use process::prepare_process;

/// Outputs of at most this many bytes are copied: that costs less than keeping the library's memory for them.
const MAX_COPIED: usize = 1 << 14;

/// What went wrong, in words.
pub(crate) enum Fault {
    /// The library said so.
    Library(ort::Error),
    /// The library gave something that it should not have given.
    Answer(String),
}

impl From<ort::Error> for Fault {
    fn from(error: ort::Error) -> Fault {
        Fault::Library(error)
    }
}

fn check(status: OrtStatusPtr) -> Result<(), ort::Error> {
    // SAFETY: every caller hands on the status of a call just made, which is owned by the caller of it.
    unsafe { ort::Error::result_from_status(status) }
}

/// The version that the library in this file says it is. The file is loaded while this looks at it.
pub(crate) fn version(path: &Path) -> Option<String> {
    type Base = unsafe extern "C" fn() -> *const OrtApiBase;
    // SAFETY: this is called for the library that the process has loaded, so nothing of it runs now; the function has this
    // form in every version, and so does the start of what it gives.
    unsafe {
        let library = libloading::Library::new(path).ok()?;
        let base = library.get::<Base>(b"OrtGetApiBase\0").ok()?().as_ref()?;
        let text = (base.GetVersionString)();
        (!text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy().into_owned())
    }
}

/// Says that tensors lie in memory that the processor reads.
struct Cpu(NonNull<OrtMemoryInfo>);

// SAFETY: it is never changed after it was made.
unsafe impl Send for Cpu {}
// SAFETY: as above.
unsafe impl Sync for Cpu {}

/// Made once and kept as long as the library is.
static CPU: std::sync::OnceLock<Cpu> = std::sync::OnceLock::new();

fn cpu() -> Result<*const OrtMemoryInfo, ort::Error> {
    if let Some(cpu) = CPU.get() {
        return Ok(cpu.0.as_ptr());
    }
    let mut made = ptr::null_mut();
    let (kind, memory) = (OrtAllocatorType::OrtDeviceAllocator, OrtMemType::OrtMemTypeDefault);
    // SAFETY: `made` outlives the call.
    check(unsafe { (ort::api().CreateCpuMemoryInfo)(kind, memory, &mut made) })?;
    let made = NonNull::new(made).ok_or_else(|| ort::Error::new("no description of memory"))?;
    // Two threads may both come here; what the second made is a few bytes that stay.
    Ok(CPU.get_or_init(|| Cpu(made)).0.as_ptr())
}

fn allocator() -> Result<*mut OrtAllocator, ort::Error> {
    let mut found = ptr::null_mut();
    // SAFETY: `found` outlives the call; what it gets belongs to the library.
    check(unsafe { (ort::api().GetAllocatorWithDefaultOptions)(&mut found) })?;
    Ok(found)
}

/// A value of the library.
pub(crate) struct Value(NonNull<OrtValue>);

// SAFETY: a value is a counted reference to a tensor; the library releases it on any thread.
unsafe impl Send for Value {}
// SAFETY: shared access only reads: no function of this module changes a value after it was made.
unsafe impl Sync for Value {}

impl Drop for Value {
    fn drop(&mut self) {
        // SAFETY: this is the only owner.
        unsafe { (ort::api().ReleaseValue)(self.0.as_ptr()) };
    }
}

/// A value of the library for the time of a run, over memory of `'a` or of its own.
pub(crate) struct Input<'a> {
    value: Value,
    /// Where its elements lie, in our memory.
    start: usize,
    end: usize,
    _copy: Vec<u128>,
    _lent: PhantomData<&'a Tensor>,
}

/// Lends a tensor to the library; only elements at odd addresses and strings are copied.
pub(crate) fn lend(tensor: &Tensor) -> Result<Input<'_>, Fault> {
    let dims = dims_of(tensor.shape());
    let dims = &dims[..tensor.shape().rank()];
    if let Some(strings) = tensor.strings() {
        let value = text_value(dims, strings)?;
        return Ok(Input { value, start: 0, end: 0, _copy: Vec::new(), _lent: PhantomData });
    }
    let elem = elem_of(tensor.dtype())
        .ok_or_else(|| Fault::Answer(format!("element type {} is not one that is passed", tensor.dtype())))?;
    let bytes: &[u8] = tensor.bytes().map(AsRef::as_ref).unwrap_or_default();
    let align = tensor.dtype().size().unwrap_or(1);
    let mut copy = Vec::new();
    let start = if !bytes.is_empty() && bytes.as_ptr().addr().is_multiple_of(align) {
        bytes.as_ptr()
    } else {
        copy = vec![0u128; bytes.len().div_ceil(16)];
        bytemuck::cast_slice_mut::<u128, u8>(&mut copy)[..bytes.len()].copy_from_slice(bytes);
        copy.as_ptr().cast()
    };
    let mut made = ptr::null_mut();
    // SAFETY: the elements and the dimensions are `bytes.len()` and `dims.len()` long, and the elements outlive the value
    // by `'a` or by lying in `copy`, whose memory stays where it is. The library takes a pointer to mutable memory and
    // only reads it: the value is an input of `OrtRun` alone, which takes it as constant.
    check(unsafe {
        (ort::api().CreateTensorWithDataAsOrtValue)(
            cpu()?,
            start.cast_mut().cast::<c_void>(),
            bytes.len(),
            dims.as_ptr(),
            dims.len(),
            elem,
            &mut made,
        )
    })?;
    let (start, end) = (start.addr(), start.addr() + bytes.len());
    Ok(Input { value: owned(made)?, start, end, _copy: copy, _lent: PhantomData })
}

fn owned(made: *mut OrtValue) -> Result<Value, Fault> {
    NonNull::new(made).map(Value).ok_or_else(|| Fault::Answer("a value is missing".to_owned()))
}

/// A tensor of strings that the library owns.
fn text_value(dims: &[i64], strings: &[Bytes]) -> Result<Value, Fault> {
    let elem = Elem::ONNX_TENSOR_ELEMENT_DATA_TYPE_STRING;
    let mut made = ptr::null_mut();
    // SAFETY: the dimensions are `dims.len()` long; `made` outlives the call.
    check(unsafe {
        (ort::api().CreateTensorAsOrtValue)(allocator()?, dims.as_ptr(), dims.len(), elem, &mut made)
    })?;
    let value = owned(made)?;
    for (at, text) in strings.iter().enumerate().filter(|(_, text)| !text.is_empty()) {
        let mut to: *mut c_char = ptr::null_mut();
        // SAFETY: a tensor has as many strings as its shape says. What comes back has room for `text.len()` bytes and is
        // nobody else's.
        unsafe {
            let resize = ort::api().GetResizedStringTensorElementBuffer;
            check(resize(value.0.as_ptr(), at, text.len(), &mut to))?;
            if to.is_null() {
                return Err(Fault::Answer("a string has no room".to_owned()));
            }
            ptr::copy_nonoverlapping(text.as_ptr(), to.cast::<u8>(), text.len());
        }
    }
    Ok(value)
}

/// Runs a session, from any number of threads at once, and blocks until the outputs of these names are there.
pub(crate) fn run(
    session: &Session,
    input_names: &[CString],
    inputs: &[Input<'_>],
    output_names: &[&CStr],
) -> Result<Vec<Value>, Fault> {
    if input_names.len() != inputs.len() {
        return Err(Fault::Answer(format!("{} inputs, expected {}", inputs.len(), input_names.len())));
    }
    let names: Vec<*const c_char> = input_names.iter().map(|name| name.as_ptr()).collect();
    let values: Vec<*const OrtValue> =
        inputs.iter().map(|input| input.value.0.as_ptr().cast_const()).collect();
    let wanted: Vec<*const c_char> = output_names.iter().map(|name| name.as_ptr()).collect();
    let mut made: Vec<*mut OrtValue> = vec![ptr::null_mut(); wanted.len()];
    // SAFETY: names and values are alive and as many as is said. `OrtRun` is documented to be safe to call for one session
    // from several threads at once; `ort` asks for exclusive access for the sake of execution providers other than the
    // processor's, and only that one is ever used here.
    let status = unsafe {
        (ort::api().Run)(
            session.ptr().cast_mut(),
            ptr::null(),
            names.as_ptr(),
            values.as_ptr(),
            values.len(),
            wanted.as_ptr(),
            wanted.len(),
            made.as_mut_ptr(),
        )
    };
    let values: Vec<Option<Value>> = made.into_iter().map(|made| NonNull::new(made).map(Value)).collect();
    check(status)?;
    let all: Option<Vec<Value>> = values.into_iter().collect();
    all.ok_or_else(|| Fault::Answer("an output is missing".to_owned()))
}

/// An output as a tensor of this element type. Large ones keep the library's memory, and with it the session that it comes
/// from; those that lie in the memory of an input are copied.
pub(crate) fn take(
    value: Value,
    dtype: DType,
    inputs: &[Input<'_>],
    session: &Arc<Session>,
) -> Result<Tensor, Fault> {
    let (elem, shape) = type_of(&value)?;
    if Some(elem) != elem_of(dtype) {
        return Err(Fault::Answer(format!("its element type is another than {dtype}")));
    }
    let misfit = |error: salver_tensor::TensorError| Fault::Answer(error.to_string());
    if dtype == DType::String {
        let strings = strings_of(&value, shape.n_elements())?;
        return Tensor::from_strings(shape, strings).map_err(misfit);
    }
    let len = shape.n_elements() * dtype.size().unwrap_or(1);
    let mut start: *mut c_void = ptr::null_mut();
    // SAFETY: the value is a tensor of numbers; `start` outlives the call.
    check(unsafe { (ort::api().GetTensorMutableData)(value.0.as_ptr(), &mut start) })?;
    let start = match NonNull::new(start.cast::<u8>()) {
        Some(start) => start,
        None if len == 0 => NonNull::<u128>::dangling().cast(),
        None => return Err(Fault::Answer("it has no elements".to_owned())),
    };
    let from = start.as_ptr().addr();
    let is_lent = inputs.iter().any(|input| from < input.end && input.start < from.saturating_add(len));
    let owner = Owner { start, len, _value: value, _session: session.clone() };
    let bytes = if is_lent || len <= MAX_COPIED {
        Bytes::copy_from_slice(owner.as_ref())
    } else {
        Bytes::from_owner(owner)
    };
    Tensor::from_bytes(dtype, shape, bytes).map_err(misfit)
}

/// Elements in the library's memory, and what keeps them there.
struct Owner {
    start: NonNull<u8>,
    len: usize,
    _value: Value,
    _session: Arc<Session>,
}

// SAFETY: the elements belong to the value, which may be sent, and nothing changes them.
unsafe impl Send for Owner {}
// SAFETY: as above.
unsafe impl Sync for Owner {}

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the value holds `len` bytes here, all set by the run, and stays as it is while this owns it: the library
        // gives each run outputs of its own, or shares constants of the session, which it does not change either.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

/// Element type and shape of a tensor.
fn type_of(value: &Value) -> Result<(Elem, Shape), Fault> {
    struct Info(*mut OrtTensorTypeAndShapeInfo);
    impl Drop for Info {
        fn drop(&mut self) {
            // SAFETY: this is the only owner, and null is allowed.
            unsafe { (ort::api().ReleaseTensorTypeAndShapeInfo)(self.0) };
        }
    }
    let api = ort::api();
    let mut is_tensor = 0;
    let mut info = Info(ptr::null_mut());
    let mut elem = Elem::ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
    let (mut rank, mut dims) = (0, [0i64; MAX_RANK]);
    // SAFETY: everything written to outlives the calls, and `dims` has room for `rank`. Only tensors are asked for more.
    unsafe {
        check((api.IsTensor)(value.0.as_ptr(), &mut is_tensor))?;
        if is_tensor == 0 {
            return Err(Fault::Answer("it is no tensor".to_owned()));
        }
        check((api.GetTensorTypeAndShape)(value.0.as_ptr(), &mut info.0))?;
        check((api.GetTensorElementType)(info.0, &mut elem))?;
        check((api.GetDimensionsCount)(info.0, &mut rank))?;
        if rank > MAX_RANK {
            return Err(Fault::Answer(format!("it has {rank} dimensions, expected at most {MAX_RANK}")));
        }
        check((api.GetDimensions)(info.0, dims.as_mut_ptr(), rank))?;
    }
    let sizes: Option<Vec<usize>> = dims[..rank].iter().map(|&dim| usize::try_from(dim).ok()).collect();
    let shape = sizes.and_then(|sizes| Shape::new(&sizes).ok());
    Ok((elem, shape.ok_or_else(|| Fault::Answer(format!("its shape is {:?}", &dims[..rank])))?))
}

fn strings_of(value: &Value, n: usize) -> Result<Vec<Bytes>, Fault> {
    let api = ort::api();
    let mut total = 0;
    // SAFETY: the value is a tensor of strings; `total` outlives the call.
    check(unsafe { (api.GetStringTensorDataLength)(value.0.as_ptr(), &mut total) })?;
    let (mut all, mut starts) = (vec![0u8; total], vec![0usize; n]);
    // SAFETY: there is room for as many bytes as the library said, and for the start of each string.
    check(unsafe {
        (api.GetStringTensorContent)(value.0.as_ptr(), all.as_mut_ptr().cast(), total, starts.as_mut_ptr(), n)
    })?;
    let all = Bytes::from(all);
    let ends = starts.iter().skip(1).copied().chain([total]);
    let pairs: Option<Vec<Bytes>> = starts
        .iter()
        .zip(ends)
        .map(|(&start, end)| (start <= end && end <= total).then(|| all.slice(start..end)))
        .collect();
    pairs.ok_or_else(|| Fault::Answer("its strings overlap".to_owned()))
}

/// Gives a session that is being made the elements of constants which its message says to lie elsewhere. The library
/// copies them while it makes the session.
pub(crate) fn add_constants(
    builder: &mut SessionBuilder,
    constants: &[(CString, Input<'_>)],
) -> Result<(), ort::Error> {
    let names: Vec<*const c_char> = constants.iter().map(|(name, _)| name.as_ptr()).collect();
    let values: Vec<*const OrtValue> =
        constants.iter().map(|(_, input)| input.value.0.as_ptr().cast_const()).collect();
    // SAFETY: names and values are alive, as many as is said, and only read.
    check(unsafe {
        (ort::api().AddExternalInitializers)(builder.ptr_mut(), names.as_ptr(), values.as_ptr(), values.len())
    })
}

/// Dimensions as the library takes them; the first `rank` count. Sizes of a shape fit 48 bits.
fn dims_of(shape: &Shape) -> [i64; MAX_RANK] {
    let mut dims = [0; MAX_RANK];
    for (to, &from) in dims.iter_mut().zip(shape.dims()) {
        *to = i64::try_from(from).unwrap_or(i64::MAX);
    }
    dims
}

fn elem_of(dtype: DType) -> Option<Elem> {
    Some(match dtype {
        DType::Bool => Elem::ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL,
        DType::I8 => Elem::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8,
        DType::I16 => Elem::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT16,
        DType::I32 => Elem::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32,
        DType::I64 => Elem::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64,
        DType::U8 => Elem::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8,
        DType::U16 => Elem::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT16,
        DType::U32 => Elem::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT32,
        DType::U64 => Elem::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT64,
        DType::F16 => Elem::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16,
        DType::BF16 => Elem::ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16,
        DType::F32 => Elem::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT,
        DType::F64 => Elem::ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE,
        DType::String => Elem::ONNX_TENSOR_ELEMENT_DATA_TYPE_STRING,
        DType::C64 | DType::C128 => return None,
    })
}
