use std::sync::atomic::{AtomicU64, Ordering};

/// Batches are counted by size: up to 1 row, 2, 4, and so on; the last bucket takes the rest.
pub const BATCH_BUCKETS: usize = 12;

/// What one model's lanes have done so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Tasks that wait now.
    pub n_waiting: usize,
    /// Bytes of their inputs.
    pub n_waiting_bytes: usize,
    /// Tasks that lanes run now.
    pub n_running: usize,
    /// Tasks taken, run inline or queued.
    pub n_submitted: u64,
    /// Runs on calling threads.
    pub n_inline_runs: u64,
    /// Runs on lanes, batches counted once.
    pub n_lane_runs: u64,
    /// Runs on lanes by rows: `batch_sizes[i]` counts those of at most `2^i` rows and more than `2^(i-1)`.
    pub batch_sizes: [u64; BATCH_BUCKETS],
    /// Rows of these runs, without those that filled batches up.
    pub n_lane_rows: u64,
    /// Rows that were only there to fill batches up.
    pub n_filler_rows: u64,
    /// Tasks refused because the queue was full.
    pub n_refused: u64,
    /// Tasks refused because they were foreseen to miss their deadline.
    pub n_refused_late: u64,
    /// Tasks refused because as many were under way as are answered in time.
    pub n_refused_limited: u64,
    /// Tasks that waited and had to make room for others.
    pub n_displaced: u64,
    /// Tasks that were not started because their deadline had passed, or would have before they could be done.
    pub n_expired: u64,
    /// Tasks of more rows than a batch that were cut into several.
    pub n_split: u64,
    /// Tasks that were not started because their caller had left.
    pub n_cancelled: u64,
    /// Batches that failed and were run again in parts.
    pub n_retried_batches: u64,
    /// Whether runs can be foreseen well enough to judge deadlines by.
    pub is_steady: bool,
    /// Tasks that may be under way while runs cannot be foreseen.
    pub limit: usize,
}

/// The counters behind a [`Snapshot`].
#[derive(Debug, Default)]
pub(crate) struct Stats {
    pub(crate) submitted: AtomicU64,
    pub(crate) inline_runs: AtomicU64,
    pub(crate) lane_runs: AtomicU64,
    pub(crate) batch_sizes: [AtomicU64; BATCH_BUCKETS],
    pub(crate) lane_rows: AtomicU64,
    pub(crate) filler_rows: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) refused_late: AtomicU64,
    pub(crate) refused_limited: AtomicU64,
    pub(crate) displaced: AtomicU64,
    pub(crate) split: AtomicU64,
    pub(crate) expired: AtomicU64,
    pub(crate) cancelled: AtomicU64,
    pub(crate) retried_batches: AtomicU64,
}

pub(crate) fn count(counter: &AtomicU64, n: usize) {
    counter.fetch_add(n as u64, Ordering::Relaxed);
}

impl Stats {
    pub(crate) fn lane_run(&self, n_rows: usize) {
        count(&self.lane_runs, 1);
        count(&self.lane_rows, n_rows);
        let bucket =
            n_rows.checked_next_power_of_two().map_or(BATCH_BUCKETS, |n| n.trailing_zeros() as usize);
        if let Some(counter) = self.batch_sizes.get(bucket.min(BATCH_BUCKETS - 1)) {
            count(counter, 1);
        }
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Snapshot {
            n_submitted: get(&self.submitted),
            n_inline_runs: get(&self.inline_runs),
            n_lane_runs: get(&self.lane_runs),
            batch_sizes: std::array::from_fn(|at| self.batch_sizes.get(at).map_or(0, get)),
            n_lane_rows: get(&self.lane_rows),
            n_filler_rows: get(&self.filler_rows),
            n_refused: get(&self.refused),
            n_refused_late: get(&self.refused_late),
            n_refused_limited: get(&self.refused_limited),
            n_displaced: get(&self.displaced),
            n_split: get(&self.split),
            n_expired: get(&self.expired),
            n_cancelled: get(&self.cancelled),
            n_retried_batches: get(&self.retried_batches),
            ..Snapshot::default()
        }
    }
}
