//! Any bytes as a warm-up file, and as one record with right checksums.
#![no_main]

use libfuzzer_sys::fuzz_target;
use salver_wire::warmup::{WarmupReader, write_record};

fuzz_target!(|data: &[u8]| {
    let _ = WarmupReader::new(data, 1 << 16).count();
    let mut framed = Vec::new();
    write_record(&mut framed, data).expect("a vector takes every write");
    assert!(WarmupReader::new(framed.as_slice(), u64::MAX).count() <= 1);
});
