//! From the messages of TensorFlow's files to graphs, one per signature.
//!
//! A graph is made by computing with symbols, from the outputs that a signature asks for back to its inputs: each
//! TensorFlow tensor becomes a value of the graph, a variable, a lookup table or a list. Function calls are inlined.
//! What is known is decided: a condition on a constant, a branch that is never taken. Work that waits lies on a stack of
//! our own, so that a chain of a million nodes needs no more of the thread's stack than one of ten; only functions,
//! conditions and loops within each other do, and their depth has a bound.
//!
//! # The form of loops
//!
//! A loop becomes `Loop(M, cond, carried..)`. If its condition compares counters (variables that grow by a constant)
//! with what is known before the loop, `M` is the number of iterations, `cond` is left out, and the body's first output
//! is the constant true. Otherwise `M` is left out.
//!
//! - Counters are not carried: they are computed from the iteration number (`Cast`, `Mul`, `Add`). What no iteration
//!   changes is not carried either: the body uses the value from outside.
//! - A list or array that is only read is a tensor from outside, read with `Gather(axis 0)` by the iteration number.
//! - A list that gets one element per iteration, in order, is a scan output. When it is as long as there are iterations
//!   it is that output; otherwise zeros, or what was in it before, are joined to it behind the loop.
//! - Other lists are carried: up to eight elements each by itself, longer ones as one tensor that `ScatterND` changes.
//!   A short list that only gets a state's next value (Keras keeps the last output so) becomes that state.
//! - Carried values that nothing needs are left out.
//!
//! A recurrent layer is thus `Loop(M = steps, -, state..)` over a sequence `[steps, batch, features]`, with the states
//! carried and the outputs per step as scan outputs.

mod branch;
mod flow;
mod frame;
mod list;
mod model;
mod net;
mod node;
mod outline;
mod outputs;
mod repeat;
mod session;
mod signature;
mod symbol;
mod table;

use bytes::Bytes;
use salver_graph::Model;

use crate::Error;
pub use outline::{Outline, PortOutline, SignatureOutline, outline, outline_frozen};

use crate::proto::{TensorInfo, tensor_info};
use crate::read::{Files, graph_def, meta_graph, saved_model_bytes};

/// Signatures that are not for clients: TensorFlow runs them itself.
const INIT_OP: &str = "__saved_model_init_op";
const TRAIN_OP: &str = "__saved_model_train_op";

/// Imports the graph of a SavedModel that has exactly these tags, with all of its signatures. `bytes` are those of
/// `saved_model.pb` or `saved_model.pbtxt`; checkpoint and assets are read from `files`. Blocks.
///
/// A signature that cannot be imported is in [`Model::refused`] and does not stop the others.
///
/// # Errors
/// When the file is broken, no graph has these tags, or it has no signatures.
pub fn import_saved_model(bytes: Bytes, tags: &[&str], files: &dyn Files) -> Result<Model, Error> {
    let saved = saved_model_bytes("the SavedModel", bytes)?;
    let meta = meta_graph(saved, tags)?;
    signature::import(&meta, files)
}

/// Imports a frozen graph, binary or text, as the signature `serving_default`. Blocks.
///
/// `inputs` and `outputs` are names of tensors (`node` or `node:1`). Without them, the inputs are the placeholders that
/// the outputs need, and the outputs are the nodes that compute something that no other node uses.
///
/// # Errors
/// When the file is broken, a name is not there, or operators are not supported.
pub fn import_frozen(
    bytes: Bytes,
    inputs: Option<&[&str]>,
    outputs: Option<&[&str]>,
) -> Result<Model, Error> {
    let graph = graph_def("the graph", bytes)?;
    signature::import_frozen(&graph, inputs, outputs)
}

/// The name of a tensor that is one tensor.
fn tensor_name(info: &TensorInfo) -> Option<&str> {
    match &info.encoding {
        Some(tensor_info::Encoding::Name(name)) => Some(name),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
