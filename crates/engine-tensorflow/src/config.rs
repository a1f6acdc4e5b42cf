//! TensorFlow's settings as encoded messages. Field numbers are those of `tensorflow/core/protobuf/config.proto`.

use std::num::NonZeroUsize;

/// Threads that a pool of TensorFlow's may have.
const MAX_THREADS: usize = 1024;

/// A `ConfigProto` for a model that `n_lanes` threads run at the same time, each with `threads`.
///
/// A run on one thread stays on the thread that calls: then operators are not split. More threads are one pool
/// that all runs of a session share, so that its size is for all lanes together. Nodes that are pinned to a device
/// that is not there run where they can.
pub(crate) fn config(threads: NonZeroUsize, n_lanes: NonZeroUsize) -> Vec<u8> {
    let intra_op = match threads.get() {
        1 => 1,
        threads => threads.saturating_mul(n_lanes.get()).min(MAX_THREADS),
    };
    let mut bytes = Vec::new();
    field(&mut bytes, 2, intra_op as u64); // intra_op_parallelism_threads
    field(&mut bytes, 5, MINUS_ONE); // inter_op_parallelism_threads
    field(&mut bytes, 7, 1); // allow_soft_placement
    bytes
}

/// How protobuf writes an `int32` of -1.
const MINUS_ONE: u64 = u64::MAX;

/// One field with a number.
fn field(bytes: &mut Vec<u8>, number: u8, value: u64) {
    bytes.push(number << 3);
    let mut rest = value;
    while rest >= 0x80 {
        bytes.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    bytes.push(rest as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn n(number: usize) -> NonZeroUsize {
        NonZeroUsize::new(number).unwrap()
    }

    #[test]
    fn one_thread_means_the_calling_one() {
        let minus_one = [&[0xff; 9][..], &[1]].concat();
        let expected = |intra: &[u8]| [&[0x10], intra, &[0x28], &minus_one, &[0x38, 1]].concat();
        assert_eq!(config(n(1), n(4)), expected(&[1]));
        assert_eq!(config(n(2), n(4)), expected(&[8]));
        assert_eq!(config(n(100), n(2)), expected(&[0xc8, 1]));
        assert_eq!(config(n(usize::MAX), n(2)), expected(&[0x80, 8]));
    }
}
