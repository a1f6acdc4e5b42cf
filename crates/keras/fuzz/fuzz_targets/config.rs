//! Any bytes as the architecture beside weights. The weights are those of a real model, so that layers find some.
#![no_main]

use std::io::{Cursor, Read};
use std::sync::LazyLock;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;

static WEIGHTS: LazyLock<Bytes> = LazyLock::new(|| {
    let mut archive = zip::ZipArchive::new(Cursor::new(include_bytes!("../../testdata/nest.keras"))).unwrap();
    let mut weights = Vec::new();
    archive.by_name("model.weights.h5").unwrap().read_to_end(&mut weights).unwrap();
    Bytes::from(weights)
});

fuzz_target!(|data: &[u8]| {
    let _ = salver_keras::import(&WEIGHTS, Some(data));
});
