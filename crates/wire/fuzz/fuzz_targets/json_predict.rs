//! Any bytes as the JSON body of a predict request. The first byte picks the element type.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use salver_tensor::{DType, Dims, Signature, TensorSpec};
use salver_wire::json::{Limits, NonFinite, check_request, decode_predict, encode_predict};

fn spec(name: &str, dtype: DType) -> TensorSpec {
    TensorSpec { name: name.into(), tensor_name: name.into(), dtype, dims: Dims::unknown(), default: None }
}

fuzz_target!(|data: &[u8]| {
    let Some((&first, body)) = data.split_first() else { return };
    let dtype = DType::ALL[usize::from(first) % DType::ALL.len()];
    let mut inputs = vec![spec("x", dtype)];
    if first >= 128 {
        inputs.push(spec("y", DType::F32));
    }
    let signature = Arc::new(Signature::new("serving_default", "", inputs, Vec::new()));
    let _ = check_request(body, Limits::default());
    let Ok(decoded) = decode_predict(body, |_| Ok(signature.clone()), Limits::default()) else { return };
    let names = signature.inputs().iter().map(|input| &*input.name);
    let outputs: Vec<_> = names.zip(&decoded.inputs).collect();
    // Rows of nothing are the only answer that cannot be written.
    if let Ok(answer) = encode_predict(decoded.format, &outputs, NonFinite::Null) {
        assert!(check_request(&answer, Limits::default()).is_ok());
    }
});
