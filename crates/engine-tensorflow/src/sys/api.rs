//! The functions of the C API that are used, and their types.
#![allow(non_snake_case, reason = "the names are TensorFlow's")]

use std::ffi::{c_char, c_int, c_uchar, c_void};

use libloading::os::unix::Library;

/// A type of which only pointers are seen.
macro_rules! opaque {
    ($($name:ident)*) => {
        $(
            #[repr(C)]
            pub(super) struct $name {
                _private: [u8; 0],
            }
        )*
    };
}

opaque! { TfBuffer TfGraph TfImportOptions TfOperation TfSession TfSessionOptions TfStatus TfTensor }

/// `TF_Output`: one output of an operation.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TfOutput {
    pub(super) oper: *mut TfOperation,
    pub(super) index: c_int,
}

/// `TF_TString`, a byte string of TensorFlow's. It is read and written through functions only.
#[repr(C, align(8))]
#[derive(Debug, Clone, Copy)]
pub(super) struct TfString {
    _private: [u8; 24],
}

/// Frees the memory of a tensor: data, its length, and what was given with it.
pub(super) type Deallocator = extern "C" fn(*mut c_void, usize, *mut c_void);

/// Takes what `Print` operators print.
pub(super) type Listener = extern "C" fn(*const c_char);

/// Declares the functions once: as fields, and as names to look up. Written by hand, each would stand in three places.
macro_rules! functions {
    ($(fn $name:ident($($argument:ty),*) $(-> $result:ty)?;)*) => {
        /// Pointers to the functions.
        pub(super) struct Api {
            $(pub(super) $name: unsafe extern "C" fn($($argument),*) $(-> $result)?,)*
        }

        impl Api {
            /// Looks up all functions.
            ///
            /// # Safety
            /// The library is TensorFlow's and stays loaded for as long as the functions are used.
            pub(super) unsafe fn look_up(library: &Library) -> Result<Api, libloading::Error> {
                Ok(Api {
                    $(
                        // SAFETY: the type is that of the header; the caller sees to the rest.
                        $name: *unsafe { library.get(concat!(stringify!($name), "\0").as_bytes()) }?,
                    )*
                })
            }
        }
    };
}

functions! {
    fn TF_Version() -> *const c_char;
    fn TF_RegisterLogListener(Listener);

    fn TF_NewStatus() -> *mut TfStatus;
    fn TF_DeleteStatus(*mut TfStatus);
    fn TF_GetCode(*const TfStatus) -> c_int;
    fn TF_Message(*const TfStatus) -> *const c_char;

    fn TF_NewBufferFromString(*const c_void, usize) -> *mut TfBuffer;
    fn TF_DeleteBuffer(*mut TfBuffer);

    fn TF_NewTensor(c_int, *const i64, c_int, *mut c_void, usize, Deallocator, *mut c_void) -> *mut TfTensor;
    fn TF_AllocateTensor(c_int, *const i64, c_int, usize) -> *mut TfTensor;
    fn TF_DeleteTensor(*mut TfTensor);
    fn TF_TensorType(*const TfTensor) -> c_int;
    fn TF_NumDims(*const TfTensor) -> c_int;
    fn TF_Dim(*const TfTensor, c_int) -> i64;
    fn TF_TensorByteSize(*const TfTensor) -> usize;
    fn TF_TensorData(*const TfTensor) -> *mut c_void;
    fn TF_TensorDefaultAlignment() -> usize;

    fn TF_StringInit(*mut TfString);
    fn TF_StringCopy(*mut TfString, *const c_char, usize);
    fn TF_StringGetDataPointer(*const TfString) -> *const c_char;
    fn TF_StringGetSize(*const TfString) -> usize;
    fn TF_StringDealloc(*mut TfString);

    fn TF_NewGraph() -> *mut TfGraph;
    fn TF_DeleteGraph(*mut TfGraph);
    fn TF_NewImportGraphDefOptions() -> *mut TfImportOptions;
    fn TF_DeleteImportGraphDefOptions(*mut TfImportOptions);
    fn TF_GraphImportGraphDef(*mut TfGraph, *const TfBuffer, *const TfImportOptions, *mut TfStatus);
    fn TF_GraphOperationByName(*mut TfGraph, *const c_char) -> *mut TfOperation;
    fn TF_OperationNumOutputs(*mut TfOperation) -> c_int;
    fn TF_OperationOutputType(TfOutput) -> c_int;
    fn TF_GraphGetTensorNumDims(*mut TfGraph, TfOutput, *mut TfStatus) -> c_int;
    fn TF_GraphGetTensorShape(*mut TfGraph, TfOutput, *mut i64, c_int, *mut TfStatus);

    fn TF_NewSessionOptions() -> *mut TfSessionOptions;
    fn TF_DeleteSessionOptions(*mut TfSessionOptions);
    fn TF_SetConfig(*mut TfSessionOptions, *const c_void, usize, *mut TfStatus);
    fn TF_NewSession(*mut TfGraph, *const TfSessionOptions, *mut TfStatus) -> *mut TfSession;
    fn TF_LoadSessionFromSavedModel(
        *const TfSessionOptions,
        *const TfBuffer,
        *const c_char,
        *const *const c_char,
        c_int,
        *mut TfGraph,
        *mut TfBuffer,
        *mut TfStatus
    ) -> *mut TfSession;
    fn TF_ExtendSession(*mut TfSession, *mut TfStatus);
    fn TF_CloseSession(*mut TfSession, *mut TfStatus);
    fn TF_DeleteSession(*mut TfSession, *mut TfStatus);
    fn TF_SessionRun(
        *mut TfSession,
        *const TfBuffer,
        *const TfOutput,
        *const *mut TfTensor,
        c_int,
        *const TfOutput,
        *mut *mut TfTensor,
        c_int,
        *const *const TfOperation,
        c_int,
        *mut TfBuffer,
        *mut TfStatus
    );
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api").finish_non_exhaustive()
    }
}

/// `TF_DataType` of strings.
pub(super) const TF_STRING: c_int = 7;

/// The C type of small flags, kept for the size of `bool` in the API.
const _: () = assert!(size_of::<c_uchar>() == 1 && size_of::<TfString>() == 24);
