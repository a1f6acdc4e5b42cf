//! Any bytes as a SavedModel, binary or text: a graph for serving, or a refusal.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use salver_tensorflow::read::{SAVED_MODEL_PB, SERVE, meta_graph, saved_model_bytes};

fuzz_target!(|data: &[u8]| {
    if let Ok(model) = saved_model_bytes(SAVED_MODEL_PB, Bytes::copy_from_slice(data)) {
        let _ = meta_graph(model, &[SERVE]);
    }
});
