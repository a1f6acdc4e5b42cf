//! Any bytes as the index and the only shard of a checkpoint: tensors no larger than the shard, or refusals.
//! The first two bytes say where the index ends.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use salver_tensorflow::Error;
use salver_tensorflow::read::{Bundle, Files};

struct Two {
    index: Bytes,
    shard: Bytes,
}

impl Files for Two {
    fn read(&self, name: &str) -> Result<Option<Bytes>, Error> {
        Ok(Some(if name.ends_with(".index") { self.index.clone() } else { self.shard.clone() }))
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((split, rest)) = data.split_first_chunk::<2>() else { return };
    let split = usize::from(u16::from_le_bytes(*split)).min(rest.len());
    let (index, shard) = rest.split_at(split);
    let files = Two { index: Bytes::copy_from_slice(index), shard: Bytes::copy_from_slice(shard) };
    let Ok(Some(bundle)) = Bundle::open(&files, "v") else { return };
    for name in bundle.names().take(64) {
        if let Ok(Some(tensor)) = bundle.read(name) {
            assert!(tensor.n_bytes() <= shard.len());
        }
    }
});
