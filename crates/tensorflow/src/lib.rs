//! Reads TensorFlow models into graphs: SavedModel, frozen graph, checkpoints.
//!
//! [`read`] turns bytes into messages and tensors, [`ops`] maps single operators to ONNX's through a graph's builder.
//! This room knows nothing of execution, engines, threads or paths: it reads files through [`read::Files`], which the
//! caller gives. What it reads is not trusted.

pub mod import;
#[cfg(test)]
mod on_disk;
pub mod ops;
pub mod proto;
pub mod read;

pub use salver_graph::{Error, ErrorKind};
