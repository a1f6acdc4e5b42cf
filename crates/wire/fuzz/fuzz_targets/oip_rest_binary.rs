//! Any bytes as an Open Inference Protocol request with binary tensors. The first two bytes are the length of the JSON
//! part.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use salver_wire::json::Limits;
use salver_wire::oip_rest::Infer;

fuzz_target!(|data: &[u8]| {
    let Some((length, body)) = data.split_first_chunk::<2>() else { return };
    let length = usize::from(u16::from_le_bytes(*length));
    if let Ok(read) = Infer::decode(&Bytes::copy_from_slice(body), Some(length), Limits::default()) {
        let n_bytes: usize = read.inputs.iter().map(|(_, tensor)| tensor.n_bytes()).sum();
        // An element of JSON data takes up to eight bytes for two of text.
        assert!(n_bytes <= body.len() * 8);
    }
});
