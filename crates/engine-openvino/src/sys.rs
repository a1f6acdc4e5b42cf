//! OpenVINO's C interface, wrapped so that nothing outside this module is unsafe.
//!
//! Handles own what they stand for and free it when they are dropped; memory that is lent to OpenVINO is kept alive by the
//! handle that it was lent to. Functions are called through the crate `openvino-sys` once [`open`] has seen that the library
//! has all of them.

#![expect(unsafe_code, reason = "OpenVINO is called through its C interface")]

mod request;

use std::ffi::{CStr, CString, c_char, c_void};
use std::mem::ManuallyDrop;
use std::path::Path;
use std::ptr::{self, NonNull};

use openvino_sys::{
    self as ov, ov_compiled_model_t, ov_core_t, ov_element_type_e, ov_model_t, ov_output_const_port_t,
    ov_property_t, ov_status_e, ov_version_t,
};

pub(crate) use request::{Output, Request};

/// The functions that are used here. One that is missing shows an OpenVINO that is too old.
const FUNCTIONS: &[&str] = &[
    "ov_compiled_model_create_infer_request",
    "ov_compiled_model_free",
    "ov_compiled_model_get_property",
    "ov_compiled_model_input_by_index",
    "ov_compiled_model_inputs_size",
    "ov_compiled_model_output_by_index",
    "ov_compiled_model_outputs_size",
    "ov_core_compile_model_props",
    "ov_core_create",
    "ov_core_free",
    "ov_core_read_model",
    "ov_core_read_model_from_memory_buffer",
    "ov_free",
    "ov_get_error_info",
    "ov_get_last_err_msg",
    "ov_get_openvino_version",
    "ov_infer_request_free",
    "ov_infer_request_get_input_tensor_by_index",
    "ov_infer_request_get_output_tensor_by_index",
    "ov_infer_request_infer",
    "ov_infer_request_set_input_tensor_by_index",
    "ov_infer_request_start_async",
    "ov_infer_request_wait",
    "ov_model_free",
    "ov_output_const_port_free",
    "ov_port_get_element_type",
    "ov_shape_free",
    "ov_tensor_create_from_host_ptr",
    "ov_tensor_data",
    "ov_tensor_free",
    "ov_tensor_get_byte_size",
    "ov_tensor_get_element_type",
    "ov_tensor_get_shape",
    "ov_version_free",
];

/// Why OpenVINO did not do something.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    /// What it says. The text is the process's last one, so that it may be another thread's.
    pub(crate) message: String,
}

type Outcome<T> = Result<T, Failure>;

/// An element type by OpenVINO's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Elem(pub(crate) u32);

/// Loads the library for good and returns its version, such as `2026.4.1`. What it depends on is found by its own means.
///
/// # Errors
/// What the system says when it cannot be loaded, or what is missing in it; then nothing stays loaded.
pub(crate) fn open(file: &Path) -> Result<String, String> {
    // SAFETY: loading a library runs what it runs at its start; the caller names a file that is OpenVINO's, and looked at
    // its form.
    let library = unsafe { libloading::Library::new(file) }.map_err(|error| in_full(&error))?;
    for name in FUNCTIONS {
        // SAFETY: the symbol is only looked for, not called.
        let found = unsafe { library.get::<unsafe extern "C" fn()>(name.as_bytes()) };
        if found.is_err() {
            return Err(format!("it has no function {name}"));
        }
    }
    // SAFETY: the type is the one that OpenVINO's header gives these functions.
    let version = unsafe {
        let get = library.get::<unsafe extern "C" fn(*mut ov_version_t) -> i32>(b"ov_get_openvino_version");
        let free = library.get::<unsafe extern "C" fn(*mut ov_version_t)>(b"ov_version_free");
        let (Ok(get), Ok(free)) = (get, free) else { return Err("it has no version".into()) };
        let mut version = ov_version_t { buildNumber: ptr::null(), description: ptr::null() };
        if get(&raw mut version) != 0 || version.buildNumber.is_null() {
            return Err("it does not say its version".into());
        }
        let text = CStr::from_ptr(version.buildNumber).to_string_lossy().into_owned();
        free(&raw mut version);
        text
    };
    let number = version.split('-').next().unwrap_or_default().to_owned();
    let n_numbers = number.split('.').map_while(|part| part.parse::<u32>().ok()).count();
    if n_numbers < 2 {
        return Err(format!("its version is '{version}', expected one such as 2026.4.1"));
    }
    openvino_sys::library::load_from(file)?;
    // What OpenVINO starts runs on: its threads would be left without their code.
    let _kept = ManuallyDrop::new(library);
    Ok(number)
}

/// The error with what it was caused by: the system's own words stand there.
fn in_full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// Turns a status into a result, with the last message.
fn check(status: ov_status_e) -> Outcome<()> {
    if status == ov_status_e::OK {
        return Ok(());
    }
    // SAFETY: both functions return null or a text that ends in a null byte; the first makes a copy for its caller.
    let message = unsafe {
        // A call that is turned away by its parameters leaves the message of an older error standing.
        let is_old = status == ov_status_e::INVALID_C_PARAM;
        let text = if is_old { ptr::null() } else { ov::ov_get_last_err_msg() };
        if text.is_null() {
            let info = ov::ov_get_error_info(status);
            if info.is_null() { String::new() } else { CStr::from_ptr(info).to_string_lossy().into_owned() }
        } else {
            let message = CStr::from_ptr(text).to_string_lossy().into_owned();
            ov::ov_free(text);
            message
        }
    };
    Err(Failure { message })
}

/// Calls `make` with a place for a handle.
fn made<T>(make: impl FnOnce(*mut *mut T) -> ov_status_e) -> Outcome<NonNull<T>> {
    let mut handle: *mut T = ptr::null_mut();
    check(make(&raw mut handle))?;
    NonNull::new(handle).ok_or_else(|| Failure { message: "OpenVINO returned nothing".into() })
}

fn c_text(text: &str) -> Outcome<CString> {
    CString::new(text)
        .map_err(|_| Failure { message: format!("'{}' holds a null byte", text.escape_debug()) })
}

/// OpenVINO's root: devices and what reads models.
#[derive(Debug)]
pub(crate) struct Core {
    handle: NonNull<ov_core_t>,
}

// SAFETY: OpenVINO documents its core as safe to use from several threads.
unsafe impl Send for Core {}
// SAFETY: as above.
unsafe impl Sync for Core {}

impl Core {
    /// A core. [`open`] must have succeeded.
    pub(crate) fn new() -> Outcome<Core> {
        // SAFETY: the place for the handle is valid.
        made(|place| unsafe { ov::ov_core_create(place) }).map(|handle| Core { handle })
    }

    /// Reads the content of a model's file.
    pub(crate) fn read_bytes(&self, bytes: &[u8]) -> Outcome<ReadModel> {
        // SAFETY: the bytes are readable for the length given while the call lasts, and OpenVINO copies what it keeps of
        // ONNX; no tensor of weights is given.
        let made = made(|place| unsafe {
            ov::ov_core_read_model_from_memory_buffer(
                self.handle.as_ptr(),
                bytes.as_ptr().cast::<c_char>(),
                bytes.len(),
                ptr::null(),
                place,
            )
        });
        made.map(|handle| ReadModel { handle })
    }

    /// Reads a model's file and the files beside it that it refers to.
    pub(crate) fn read_file(&self, path: &Path) -> Outcome<ReadModel> {
        let path = c_text(&path.to_string_lossy())?;
        // SAFETY: the path ends in a null byte; no file of weights is given.
        let made = made(|place| unsafe {
            ov::ov_core_read_model(self.handle.as_ptr(), path.as_ptr(), ptr::null(), place)
        });
        made.map(|handle| ReadModel { handle })
    }

    /// Compiles a model for the CPU, with these properties for it alone.
    pub(crate) fn compile(&self, model: &ReadModel, properties: &[(&str, String)]) -> Outcome<Compiled> {
        let texts = properties.iter().map(|(key, value)| Ok((c_text(key)?, c_text(value)?)));
        let texts = texts.collect::<Outcome<Vec<_>>>()?;
        let properties: Vec<_> = texts
            .iter()
            .map(|(key, value)| ov_property_t { key: key.as_ptr(), value: value.as_ptr().cast::<c_void>() })
            .collect();
        // SAFETY: the properties are texts that end in null bytes and live until after the call; both handles are alive.
        let made = made(|place| unsafe {
            ov::ov_core_compile_model_props(
                self.handle.as_ptr(),
                model.handle.as_ptr(),
                c"CPU".as_ptr(),
                properties.len(),
                properties.as_ptr(),
                place,
            )
        });
        made.map(|handle| Compiled { handle })
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        // SAFETY: the handle is ours and is not used after this.
        unsafe { ov::ov_core_free(self.handle.as_ptr()) }
    }
}

/// A model that was read and is not compiled.
#[derive(Debug)]
pub(crate) struct ReadModel {
    handle: NonNull<ov_model_t>,
}

impl Drop for ReadModel {
    fn drop(&mut self) {
        // SAFETY: the handle is ours and is not used after this.
        unsafe { ov::ov_model_free(self.handle.as_ptr()) }
    }
}

/// A model that can be run.
#[derive(Debug)]
pub(crate) struct Compiled {
    handle: NonNull<ov_compiled_model_t>,
}

// SAFETY: OpenVINO documents compiled models as safe to use from several threads.
unsafe impl Send for Compiled {}
// SAFETY: as above.
unsafe impl Sync for Compiled {}

/// Inputs or outputs.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Side {
    Inputs,
    Outputs,
}

impl Compiled {
    /// The element types of all inputs or outputs, in the model's order.
    pub(crate) fn elems(&self, side: Side) -> Outcome<Vec<Elem>> {
        let mut n = 0;
        // SAFETY: the handle is alive and the place for the number valid.
        check(unsafe {
            match side {
                Side::Inputs => ov::ov_compiled_model_inputs_size(self.handle.as_ptr(), &raw mut n),
                Side::Outputs => ov::ov_compiled_model_outputs_size(self.handle.as_ptr(), &raw mut n),
            }
        })?;
        (0..n).map(|at| self.elem(side, at)).collect()
    }

    fn elem(&self, side: Side, at: usize) -> Outcome<Elem> {
        let model = self.handle.as_ptr();
        // SAFETY: the handle is alive; a position that is none gives an error.
        let port: NonNull<ov_output_const_port_t> = made(|place| unsafe {
            match side {
                Side::Inputs => ov::ov_compiled_model_input_by_index(model, at, place),
                Side::Outputs => ov::ov_compiled_model_output_by_index(model, at, place),
            }
        })?;
        let mut elem = 0u32;
        // SAFETY: the port is alive. The number is written as a plain integer, as which it may be any.
        let status = unsafe {
            ov::ov_port_get_element_type(port.as_ptr(), (&raw mut elem).cast::<ov_element_type_e>())
        };
        let result = check(status);
        // SAFETY: the port is ours and is not used after this.
        unsafe { ov::ov_output_const_port_free(port.as_ptr()) };
        result.map(|()| Elem(elem))
    }

    /// The value of a property as a text.
    pub(crate) fn property(&self, key: &str) -> Outcome<String> {
        let key = c_text(key)?;
        // SAFETY: the key ends in a null byte and the place for the text is valid.
        let text: NonNull<c_char> = made(|place| unsafe {
            ov::ov_compiled_model_get_property(self.handle.as_ptr(), key.as_ptr(), place)
        })?;
        // SAFETY: the text ends in a null byte and was made for us; it is not used after it is freed.
        unsafe {
            let value = CStr::from_ptr(text.as_ptr()).to_string_lossy().into_owned();
            ov::ov_free(text.as_ptr());
            Ok(value)
        }
    }

    /// What one thread needs to run the model.
    pub(crate) fn request(&self, n_inputs: usize) -> Outcome<Request> {
        // SAFETY: the handle is alive. A request keeps what it needs of its model alive.
        let made =
            made(|place| unsafe { ov::ov_compiled_model_create_infer_request(self.handle.as_ptr(), place) });
        made.and_then(|handle| Request::new(handle, n_inputs))
    }
}

impl Drop for Compiled {
    fn drop(&mut self) {
        // SAFETY: the handle is ours and is not used after this.
        unsafe { ov::ov_compiled_model_free(self.handle.as_ptr()) }
    }
}
