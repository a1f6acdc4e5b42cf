//! TensorFlow's C API, and safe types around what it hands out. All `unsafe` of this room lies here.
//!
//! Functions and their types are those of `tensorflow/c/c_api.h`, `tf_tensor.h`, `tf_tstring.h` and `tf_status.h`.
#![expect(unsafe_code, reason = "a C API is called")]

mod api;
mod process;
mod session;
mod value;

use std::ffi::{CStr, CString, c_char};
use std::path::Path;
use std::ptr::NonNull;

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};

use api::{Api, TfBuffer, TfStatus};
pub use process::prepare_process;
pub(crate) use session::{Call, Port, Session};
pub(crate) use value::{Memory, Value};

/// What TensorFlow says went wrong.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    /// A `TF_Code`.
    pub(crate) code: i32,
    pub(crate) message: String,
}

impl Failure {
    fn internal(message: &str) -> Failure {
        Failure { code: 13, message: message.to_owned() }
    }

    fn invalid(message: &str) -> Failure {
        Failure { code: 3, message: message.to_owned() }
    }
}

/// The loaded library. It is never given back: TensorFlow's threads and static objects live until the process ends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TensorFlow(&'static Api);

impl TensorFlow {
    /// Loads both files into the process and looks up what is needed. They keep their symbols to themselves, because other
    /// engines' libraries bring some of the same.
    pub(crate) fn open(framework: &Path, main: &Path) -> Result<TensorFlow, String> {
        let open = |path: &Path| {
            // SAFETY: the initialisers of the libraries are TensorFlow's; the caller found the files where whoever runs
            // this process installed them.
            unsafe { Library::open(Some(path), RTLD_NOW | RTLD_LOCAL) }.map_err(|error| error.to_string())
        };
        Box::leak(Box::new(open(framework)?));
        // The symbols of the first file are found through the second, which was linked with it.
        let library = Box::leak(Box::new(open(main)?));
        // SAFETY: the types are those of TensorFlow's headers, and the library is never given back.
        let api = unsafe { Api::look_up(library) }.map_err(|error| error.to_string())?;
        let tensorflow = TensorFlow(Box::leak(Box::new(api)));
        // SAFETY: the function takes any string that ends in zero, and does not unwind.
        unsafe { (tensorflow.0.TF_RegisterLogListener)(printed) };
        Ok(tensorflow)
    }

    pub(crate) fn version(self) -> String {
        // SAFETY: the text is static.
        let text = unsafe { CStr::from_ptr((self.0.TF_Version)()) };
        text.to_string_lossy().into_owned()
    }
}

/// What a model's own `Print` operators print.
extern "C" fn printed(message: *const c_char) {
    if !message.is_null() {
        // SAFETY: TensorFlow gives a string that ends in zero and lives for this call.
        let text = unsafe { CStr::from_ptr(message) }.to_string_lossy();
        tracing::debug!(target: "tensorflow", "{}", text.trim_end());
    }
}

/// A `TF_Status`.
struct Status {
    api: &'static Api,
    raw: NonNull<TfStatus>,
}

impl Status {
    fn new(api: &'static Api) -> Result<Status, Failure> {
        // SAFETY: no preconditions.
        let raw = NonNull::new(unsafe { (api.TF_NewStatus)() });
        raw.map(|raw| Status { api, raw }).ok_or_else(|| Failure::internal("no status could be made"))
    }

    fn as_ptr(&self) -> *mut TfStatus {
        self.raw.as_ptr()
    }

    fn check(&self) -> Result<(), Failure> {
        // SAFETY: the status lives.
        let code = unsafe { (self.api.TF_GetCode)(self.as_ptr()) };
        if code == 0 {
            return Ok(());
        }
        // SAFETY: the status lives, and with it its message, which ends in zero.
        let message = unsafe { CStr::from_ptr((self.api.TF_Message)(self.as_ptr())) };
        Err(Failure { code, message: message.to_string_lossy().into_owned() })
    }
}

impl Drop for Status {
    fn drop(&mut self) {
        // SAFETY: made by TF_NewStatus, deleted once.
        unsafe { (self.api.TF_DeleteStatus)(self.as_ptr()) };
    }
}

/// A `TF_Buffer` with a copy of some bytes. Nobody writes to it.
struct Buffer {
    api: &'static Api,
    raw: NonNull<TfBuffer>,
}

impl Buffer {
    fn new(api: &'static Api, bytes: &[u8]) -> Result<Buffer, Failure> {
        // SAFETY: the bytes are copied.
        let raw = NonNull::new(unsafe { (api.TF_NewBufferFromString)(bytes.as_ptr().cast(), bytes.len()) });
        raw.map(|raw| Buffer { api, raw }).ok_or_else(|| Failure::internal("no buffer could be made"))
    }

    fn as_ptr(&self) -> *const TfBuffer {
        self.raw.as_ptr()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: made by TF_NewBufferFromString, deleted once.
        unsafe { (self.api.TF_DeleteBuffer)(self.raw.as_ptr()) };
    }
}

fn c_string(text: &str) -> Result<CString, Failure> {
    CString::new(text).map_err(|_| Failure::invalid(&format!("'{}' holds a zero byte", text.escape_debug())))
}
