//! Any bytes as a `.keras` file.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = salver_keras::import(&Bytes::copy_from_slice(data), None);
});
