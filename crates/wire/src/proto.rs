//! The messages and services, generated from `proto/` by `cargo xtask codegen`.
//!
//! Server traits are always there; client stubs need the feature `client`. Both work over any transport.

#![allow(missing_debug_implementations, unreachable_pub, clippy::all, reason = "generated code")]

/// Tensors, signatures and examples.
pub mod tensorflow {
    include!("generated/tensorflow.rs");

    /// Status codes.
    pub mod error {
        include!("generated/tensorflow.error.rs");
    }

    /// The TensorFlow Serving services, their configuration and logs.
    pub mod serving {
        include!("generated/tensorflow.serving.rs");
    }
}

/// The Open Inference Protocol.
pub mod inference {
    include!("generated/inference.rs");
}

/// All descriptors as an encoded `google.protobuf.FileDescriptorSet`, for reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!("generated/descriptors.bin");
