//! Any bytes as an HDF5 file: a whole model, or weights for a small architecture.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;

const ARCHITECTURE: &[u8] = br#"{"class_name": "Sequential", "config": {"name": "m", "layers": [
    {"class_name": "InputLayer", "config": {"name": "x", "batch_shape": [null, 3]}},
    {"class_name": "Dense", "config": {"name": "dense", "units": 2}},
    {"class_name": "BatchNormalization", "config": {"name": "bn"}}]}}"#;

fuzz_target!(|data: &[u8]| {
    let mut file = b"\x89HDF\r\n\x1a\n".to_vec();
    file.extend_from_slice(data);
    let _ = salver_keras::import(&Bytes::from(file), Some(ARCHITECTURE));
    let whole = Bytes::copy_from_slice(data);
    let _ = salver_keras::import(&whole, None);
});
