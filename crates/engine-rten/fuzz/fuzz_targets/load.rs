//! Any bytes are a model or an error: no panic gets out, and memory stays in proportion to the bytes.
//!
//! Start it with the conformance fixtures as the corpus:
//! `cargo fuzz run load ../../testkit/fixtures -- -rss_limit_mb=2048`

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    // rten's own panics are caught and returned as errors; the default hook of the fuzzer would end at them.
    std::panic::set_hook(Box::new(|_| {}));
    let _ = salver_engine_rten::load_bytes(bytes.to_vec());
});
