//! Any bytes as an Open Inference Protocol request in JSON.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use salver_wire::json::Limits;
use salver_wire::oip_rest::Infer;

fuzz_target!(|data: &[u8]| {
    if let Ok(read) = Infer::decode(&Bytes::copy_from_slice(data), None, Limits::default()) {
        let n_elements: usize = read.inputs.iter().map(|(_, tensor)| tensor.shape().n_elements()).sum();
        assert!(n_elements <= data.len());
    }
});
