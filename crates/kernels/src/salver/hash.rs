//! Strings to buckets.

use std::hash::Hasher as _;

use bytes::Bytes;
use salver_tensor::Tensor;
use siphasher::sip::SipHasher24;

use super::farm;
use crate::Error;
use crate::call::Call;

/// By FarmHash's 64-bit fingerprint.
pub(super) fn fast(call: &Call<'_>) -> Result<Tensor, Error> {
    buckets(call, farm::fingerprint)
}

/// By SipHash-2-4 under a key of two numbers.
pub(super) fn strong(call: &Call<'_>) -> Result<Tensor, Error> {
    let key = call.needed("key", call.attributes.ints("key")?)?;
    let &[first, second] = key else {
        return Err(Error::invalid(format!("Key must have 2 elements, got {}", key.len())));
    };
    buckets(call, |text| {
        let mut hasher = SipHasher24::new_with_keys(first.cast_unsigned(), second.cast_unsigned());
        hasher.write(text);
        hasher.finish()
    })
}

/// By TensorFlow's own hash.
pub(super) fn legacy(call: &Call<'_>) -> Result<Tensor, Error> {
    buckets(call, hash64)
}

fn buckets(call: &Call<'_>, hash: impl Fn(&[u8]) -> u64) -> Result<Tensor, Error> {
    let n = call.attributes.int("num_buckets", 0)?;
    let n = u64::try_from(n).ok().filter(|&n| n > 0);
    let n = n.ok_or_else(|| Error::invalid(format!("num_buckets of {} must be 1 or more", call.op)))?;
    let bucket = |text: &Bytes| i64::try_from(hash(text) % n).unwrap_or(i64::MAX);
    let found = call.strings(0)?.iter().map(bucket).collect();
    Ok(Tensor::from_vec(call.input(0)?.shape().clone(), found)?)
}

/// MurmurHash64A with TensorFlow's seed (tensorflow/core/platform/hash.cc).
fn hash64(text: &[u8]) -> u64 {
    const M: u64 = 0xc6a4_a793_5bd1_e995;
    const SEED: u64 = 0x00de_cafc_affe;
    let mut hash = SEED ^ (text.len() as u64).wrapping_mul(M);
    let (words, rest) = text.as_chunks::<8>();
    for word in words {
        let mut k = u64::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> 47;
        hash = (hash ^ k.wrapping_mul(M)).wrapping_mul(M);
    }
    if !rest.is_empty() {
        let tail = rest.iter().rev().fold(0u64, |tail, &byte| tail << 8 | u64::from(byte));
        hash = (hash ^ tail).wrapping_mul(M);
    }
    hash ^= hash >> 47;
    hash = hash.wrapping_mul(M);
    hash ^ hash >> 47
}
