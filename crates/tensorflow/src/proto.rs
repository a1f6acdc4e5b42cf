//! The messages of TensorFlow's files, generated from `proto/` by `cargo xtask codegen`.

#![allow(missing_debug_implementations, unreachable_pub, clippy::all, reason = "generated code")]

include!("generated/tensorflow.rs");

/// All descriptors as an encoded `google.protobuf.FileDescriptorSet`, for the text format.
pub(crate) const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!("generated/descriptors.bin");
