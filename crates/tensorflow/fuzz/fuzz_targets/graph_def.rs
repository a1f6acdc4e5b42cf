//! Any bytes as a frozen graph, binary or text: a graph whose tensors can be read within a bound, or a refusal.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use salver_tensorflow::proto::attr_value::Value;
use salver_tensorflow::read::{Budget, decode_tensor, graph_def};

fuzz_target!(|data: &[u8]| {
    let Ok(graph) = graph_def("fuzz", Bytes::copy_from_slice(data)) else { return };
    let budget = Budget::new(1 << 20);
    for attr in graph.node.iter().flat_map(|node| node.attr.values()) {
        if let Some(Value::Tensor(tensor)) = &attr.value {
            let _ = decode_tensor(tensor, &budget);
        }
    }
});
