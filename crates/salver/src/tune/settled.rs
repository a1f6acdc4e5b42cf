//! The machine's clocks, and its memory after the allocator has given back what nobody uses.

use std::time::Duration;

use salver_tune::{Machine, MemoryUse, Meter};

/// As [`Machine`]. The allocator keeps what was freed for up to a second, and gives it back when it next frees a large block; without that, the memory that an importer used would be counted as the model's.
#[derive(Debug)]
pub(super) struct Settled(Machine);

/// What makes the allocator look: blocks of so many bytes, so often, after so long.
const BLOCK: usize = 48 << 20;
const N_BLOCKS: usize = 5;
const PAUSE: Duration = Duration::from_millis(300);

impl Settled {
    pub(super) fn new() -> Settled {
        Settled(Machine::new())
    }
}

impl Meter for Settled {
    fn now(&self) -> Duration {
        self.0.now()
    }

    fn cpu(&self) -> Duration {
        self.0.cpu()
    }

    fn memory(&self) -> Option<MemoryUse> {
        for _ in 0..N_BLOCKS {
            // It may return early, which does no harm.
            std::thread::park_timeout(PAUSE);
            drop(std::hint::black_box(vec![0u8; BLOCK]));
        }
        self.0.memory()
    }
}
