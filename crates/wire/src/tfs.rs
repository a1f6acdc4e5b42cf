//! The TensorFlow Serving messages: tensors, predictions, metadata, state and configuration.
//!
//! A prediction goes: [`request_spec`], then the caller finds the version, then [`decode_inputs`], then the caller
//! runs the model, then [`encode_response`]. With examples it goes: [`request_spec`], [`example_signature`],
//! [`Method::outputs`], [`example_tensor`], then [`classification_result`] or [`regression_result`].

mod dtype;
mod examples;
mod inference;
mod management;
mod metadata;
mod predict;
mod tensor;

pub use dtype::{dtype_from_number, dtype_number};
pub use examples::{SerializedExample, example_tensor};
pub use inference::{Method, Task, classification_result, example_signature, plan_tasks, regression_result};
pub use management::{reload_models, resolve_models, status_proto, status_response};
pub use metadata::{SIGNATURE_DEF_TYPE_URL, metadata_response, metadata_spec, signature_def};
pub use predict::{
    check_method_name, decode_inputs, effective_spec, encode_request, encode_response, request_spec,
    signature_name,
};
pub use tensor::{Encoding, TensorProtoError, decode_tensor, encode_tensor};
