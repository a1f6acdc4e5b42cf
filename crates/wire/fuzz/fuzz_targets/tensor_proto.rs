//! Any bytes as a TensorProto: a tensor within the bound, or a refusal. What was read is written and read again.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use prost::Message as _;
use salver_wire::proto::tensorflow::TensorProto;
use salver_wire::tfs::{Encoding, decode_tensor, encode_tensor};

const MAX_BYTES: usize = 1 << 20;

fuzz_target!(|data: &[u8]| {
    let Ok(proto) = TensorProto::decode(Bytes::copy_from_slice(data)) else { return };
    let Ok(tensor) = decode_tensor(proto, MAX_BYTES) else { return };
    assert!(tensor.n_bytes() <= MAX_BYTES);
    for encoding in [Encoding::Fields, Encoding::Content] {
        let again = decode_tensor(encode_tensor(&tensor, encoding), usize::MAX);
        assert_eq!(again.as_ref(), Ok(&tensor));
    }
});
