//! TensorFlow's C API, as a program that links it calls it: a SavedModel is loaded, tensors are copied in and out.
#![expect(unsafe_code, reason = "a C API is called")]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::num::NonZeroUsize;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::{null, null_mut};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use salver_tensor::{DType, Shape, Tensor};

use super::Direct;

/// Something of TensorFlow's.
type Handle = *mut c_void;

/// `TF_Output`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Output {
    oper: Handle,
    index: c_int,
}

/// The functions that are called, with their C types.
struct Api {
    new_status: unsafe extern "C" fn() -> Handle,
    code: unsafe extern "C" fn(Handle) -> c_int,
    message: unsafe extern "C" fn(Handle) -> *const c_char,
    delete_status: unsafe extern "C" fn(Handle),
    new_options: unsafe extern "C" fn() -> Handle,
    set_config: unsafe extern "C" fn(Handle, *const c_void, usize, Handle),
    new_graph: unsafe extern "C" fn() -> Handle,
    load: unsafe extern "C" fn(
        Handle,
        *const c_void,
        *const c_char,
        *const *const c_char,
        c_int,
        Handle,
        Handle,
        Handle,
    ) -> Handle,
    operation: unsafe extern "C" fn(Handle, *const c_char) -> Handle,
    allocate: unsafe extern "C" fn(c_int, *const i64, c_int, usize) -> Handle,
    delete_tensor: unsafe extern "C" fn(Handle),
    data: unsafe extern "C" fn(Handle) -> *mut u8,
    size: unsafe extern "C" fn(Handle) -> usize,
    dtype: unsafe extern "C" fn(Handle) -> c_int,
    n_dims: unsafe extern "C" fn(Handle) -> c_int,
    dim: unsafe extern "C" fn(Handle, c_int) -> i64,
    run: unsafe extern "C" fn(
        Handle,
        *const c_void,
        *const Output,
        *const Handle,
        c_int,
        *const Output,
        *mut Handle,
        c_int,
        *const c_void,
        c_int,
        Handle,
        Handle,
    ),
}

impl Api {
    fn open(folder: &Path) -> Result<Api> {
        // The second file needs the first. Neither is given back: TensorFlow cannot be unloaded.
        let mut library = None;
        for name in ["libtensorflow_framework.so.2", "libtensorflow_cc.so.2"] {
            // SAFETY: the files are TensorFlow's, which the person who measures installed.
            let opened = unsafe { Library::open(Some(folder.join(name)), RTLD_NOW | RTLD_LOCAL) }?;
            library = Some(&*Box::leak(Box::new(opened)));
        }
        let library = library.context("two files are opened")?;
        macro_rules! symbol {
            ($name:literal) => {
                // SAFETY: the field has the type that TensorFlow's header has.
                *unsafe { library.get(concat!($name, "\0").as_bytes()) }?
            };
        }
        Ok(Api {
            new_status: symbol!("TF_NewStatus"),
            code: symbol!("TF_GetCode"),
            message: symbol!("TF_Message"),
            delete_status: symbol!("TF_DeleteStatus"),
            new_options: symbol!("TF_NewSessionOptions"),
            set_config: symbol!("TF_SetConfig"),
            new_graph: symbol!("TF_NewGraph"),
            load: symbol!("TF_LoadSessionFromSavedModel"),
            operation: symbol!("TF_GraphOperationByName"),
            allocate: symbol!("TF_AllocateTensor"),
            delete_tensor: symbol!("TF_DeleteTensor"),
            data: symbol!("TF_TensorData"),
            size: symbol!("TF_TensorByteSize"),
            dtype: symbol!("TF_TensorType"),
            n_dims: symbol!("TF_NumDims"),
            dim: symbol!("TF_Dim"),
            run: symbol!("TF_SessionRun"),
        })
    }

    /// Calls with a new status and gives what the call gives, unless the status tells of an error.
    fn checked<T>(&self, call: impl FnOnce(Handle) -> T) -> Result<T> {
        // SAFETY: the status lives until the end of this function; its message ends in zero.
        unsafe {
            let status = (self.new_status)();
            let result = call(status);
            let message = match (self.code)(status) {
                0 => None,
                _ => Some(CStr::from_ptr((self.message)(status)).to_string_lossy().into_owned()),
            };
            (self.delete_status)(status);
            match message {
                None => Ok(result),
                Some(message) => bail!("TensorFlow: {message}"),
            }
        }
    }

    /// The output `node:1` of a graph.
    fn output(&self, graph: Handle, name: &str) -> Result<Output> {
        let (node, index) = name.rsplit_once(':').unwrap_or((name, "0"));
        let node = CString::new(node)?;
        // SAFETY: graph and name live.
        let oper = unsafe { (self.operation)(graph, node.as_ptr()) };
        ensure!(!oper.is_null(), "there is no tensor '{name}'");
        Ok(Output { oper, index: index.parse()? })
    }

    fn tensor_in(&self, tensor: &Tensor) -> Result<Handle> {
        let dims: Vec<i64> = tensor.shape().dims().iter().map(|&dim| dim as i64).collect();
        let bytes = tensor.bytes().context("an input of strings")?;
        // SAFETY: the tensor is made with room for the bytes.
        unsafe {
            let made =
                (self.allocate)(number(tensor.dtype())?, dims.as_ptr(), count(dims.len())?, bytes.len());
            ensure!(!made.is_null(), "no memory for an input");
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), (self.data)(made), bytes.len());
            Ok(made)
        }
    }

    fn tensor_out(&self, handle: Handle) -> Result<Tensor> {
        // SAFETY: the tensor lives until the end of this function, and its bytes with it.
        let (dtype, dims, bytes) = unsafe {
            let dims = (0..(self.n_dims)(handle)).map(|at| usize::try_from((self.dim)(handle, at)));
            let dims = dims.collect::<Result<Vec<_>, _>>();
            let elements = std::slice::from_raw_parts((self.data)(handle), (self.size)(handle));
            let found = ((self.dtype)(handle), dims, Bytes::copy_from_slice(elements));
            (self.delete_tensor)(handle);
            found
        };
        let dtype = NUMBERS.iter().find(|(_, known)| *known == dtype).context("an output of another type")?.0;
        Ok(Tensor::from_bytes(dtype, Shape::new(&dims?)?, bytes)?)
    }
}

/// Numbers of `TF_DataType`.
const NUMBERS: [(DType, c_int); 4] = [(DType::F32, 1), (DType::F64, 2), (DType::I32, 3), (DType::I64, 9)];

fn number(dtype: DType) -> Result<c_int> {
    let found = NUMBERS.iter().find(|(known, _)| *known == dtype);
    found.map(|(_, number)| *number).with_context(|| format!("an input of {dtype}"))
}

fn count(len: usize) -> Result<c_int> {
    Ok(c_int::try_from(len)?)
}

/// Loads the graph `serve` of a SavedModel. `library` is the folder with TensorFlow's files; `inputs` and `outputs` are the
/// names of tensors in the graph (`node:0`), in the order in which runs take and give them. The session stays for the life
/// of the process, on threads of its own if a run takes more than one.
pub(crate) fn open(
    library: &Path,
    model: &Path,
    inputs: &[String],
    outputs: &[String],
    threads: NonZeroUsize,
) -> Result<Direct> {
    let api = Api::open(library)?;
    let threads = u8::try_from(threads.get()).ok().filter(|&n| n < 128).context("too many threads")?;
    // A ConfigProto: threads within operators; operators run on the thread that calls (-1).
    let config = [0x10, threads, 0x28, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    let path = CString::new(model.as_os_str().as_bytes())?;
    let tags = [c"serve".as_ptr()];
    // SAFETY: no preconditions.
    let (options, graph) = unsafe { ((api.new_options)(), (api.new_graph)()) };
    // SAFETY: all pointers are to what lives here; run options and the buffer for the description may be null.
    api.checked(|status| unsafe {
        (api.set_config)(options, config.as_ptr().cast(), config.len(), status);
    })?;
    // SAFETY: as above.
    let session = api.checked(|status| unsafe {
        (api.load)(options, null(), path.as_ptr(), tags.as_ptr(), 1, graph, null_mut(), status)
    })?;
    let feeds = inputs.iter().map(|name| api.output(graph, name)).collect::<Result<Vec<_>>>()?;
    let fetches = outputs.iter().map(|name| api.output(graph, name)).collect::<Result<Vec<_>>>()?;
    Ok(Box::new(move |inputs| {
        ensure!(inputs.len() == feeds.len(), "{} inputs, expected {}", inputs.len(), feeds.len());
        let given = inputs.iter().map(|tensor| api.tensor_in(tensor)).collect::<Result<Vec<_>>>()?;
        let mut results = vec![null_mut(); fetches.len()];
        let (n_feeds, n_fetches) = (count(feeds.len())?, count(fetches.len())?);
        // SAFETY: session, tensors and lists live, and the lists are as long as said.
        let ran = api.checked(|status| unsafe {
            (api.run)(
                session,
                null(),
                feeds.as_ptr(),
                given.as_ptr(),
                n_feeds,
                fetches.as_ptr(),
                results.as_mut_ptr(),
                n_fetches,
                null(),
                0,
                null_mut(),
                status,
            );
        });
        // SAFETY: each was made above and is deleted once; TensorFlow keeps its own references.
        given.into_iter().for_each(|tensor| unsafe { (api.delete_tensor)(tensor) });
        ran?;
        results.into_iter().map(|handle| api.tensor_out(handle)).collect()
    }))
}
