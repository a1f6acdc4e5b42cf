//! What a pipeline counts and measures while it runs. Everything is read without stopping a thread.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use salver_predict::ModelId;
use salver_records::Partition;

use crate::Class;

/// Buckets per doubling.
const PER_DOUBLING: u32 = 4;

/// Doublings from one microsecond: the last bucket ends at 2^26 µs, about 67 seconds.
const DOUBLINGS: u32 = 26;

const N_BUCKETS: usize = (DOUBLINGS * PER_DOUBLING) as usize;

/// Times, counted in buckets that are a fifth wider each. Written and read without a lock; a reading while others write may miss
/// what is being added.
#[derive(Debug)]
pub struct Histogram {
    buckets: Box<[AtomicU64; N_BUCKETS]>,
    total_nanos: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Self {
        let buckets = Box::new(std::array::from_fn(|_| AtomicU64::new(0)));
        Histogram { buckets, total_nanos: AtomicU64::new(0) }
    }
}

impl Histogram {
    /// Counts one time.
    pub fn record(&self, time: Duration) {
        self.record_n(time, 1);
    }

    /// Counts the same time for several records.
    pub fn record_n(&self, time: Duration, n: u64) {
        self.buckets[bucket(time)].fetch_add(n, Relaxed);
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.total_nanos.fetch_add(nanos.saturating_mul(n), Relaxed);
    }

    /// What was counted so far.
    pub fn read(&self) -> Times {
        let counts = self.buckets.iter().map(|bucket| bucket.load(Relaxed)).collect();
        Times { counts, total: Duration::from_nanos(self.total_nanos.load(Relaxed)) }
    }
}

/// The bucket of a time, by its leading bits.
fn bucket(time: Duration) -> usize {
    let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    // A thousand nanoseconds count as 1024, which keeps the bounds powers of two; 2.4 % off is within a bucket.
    let units = (nanos >> 8).max(1);
    let doubling = units.ilog2();
    if doubling < 2 {
        return 0;
    }
    let part = (units >> (doubling - 2)) & 3;
    let index = u64::from((doubling - 2) * PER_DOUBLING) + part;
    usize::try_from(index).unwrap_or(usize::MAX).min(N_BUCKETS - 1)
}

/// The time at which a bucket ends.
fn bound(bucket: usize) -> Duration {
    let bucket = u32::try_from(bucket).unwrap_or(u32::MAX).min(DOUBLINGS * PER_DOUBLING);
    let (doubling, part) = (bucket / PER_DOUBLING, u64::from(bucket % PER_DOUBLING));
    Duration::from_nanos(((5 + part) << doubling) << 8)
}

/// Times that were counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Times {
    counts: Vec<u64>,
    total: Duration,
}

impl Times {
    /// How many.
    pub fn n(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Their sum.
    pub fn total(&self) -> Duration {
        self.total
    }

    /// The time that this share of all (0 to 1) did not exceed, to within a fifth; zero when there are none.
    pub fn quantile(&self, share: f64) -> Duration {
        let n = self.n();
        let wanted = (share.clamp(0.0, 1.0) * n as f64).ceil().max(1.0);
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen as f64 >= wanted {
                return bound(index);
            }
        }
        Duration::ZERO
    }

    /// Up to where each bucket goes and how many times lie in it, in rising order.
    pub fn buckets(&self) -> impl Iterator<Item = (Duration, u64)> + '_ {
        self.counts.iter().enumerate().map(|(index, count)| (bound(index), *count))
    }

    /// What was counted since an earlier reading.
    #[must_use]
    pub fn since(&self, earlier: &Times) -> Times {
        let differences =
            self.counts.iter().zip(&earlier.counts).map(|(now, then)| now.saturating_sub(*then));
        Times { counts: differences.collect(), total: self.total.saturating_sub(earlier.total) }
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counters that the threads of a pipeline share.
        #[derive(Debug, Default)]
        pub(crate) struct Counters { $(pub(crate) $name: AtomicU64,)* }

        /// What was counted since the start.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub struct Counts { $($(#[$doc])* pub $name: u64,)* }

        impl Counters {
            fn read(&self) -> Counts {
                Counts { $($name: self.$name.load(Relaxed),)* }
            }
        }
    };
}

counters! {
    /// Records read.
    records_in,
    /// Bytes of records read.
    bytes_in,
    /// Answers written and known to last.
    records_out,
    /// Bytes of answers.
    bytes_out,
    /// Records that are done with, whatever became of them, and whose position may be committed.
    records_done,
    /// Records left out by a filter.
    filtered,
    /// Records whose window has not enough rows yet.
    gathering,
    /// Dead letters and changes of windows written without their value, as they were too large for where they go.
    emptied,
    /// Outputs left out that are no answers and were too large even so.
    left_out,
    /// Rows that the model answered.
    rows,
    /// Records that the model answered.
    records_scored,
    /// Calls of the model.
    calls,
    /// Records tried again.
    retries,
    /// Records that went to the canary.
    canary,
    /// Records of the canary's share that went to the primary model, as the canary was gone.
    canary_away,
    /// Transactions, or positions, committed.
    commits,
    /// Times that what was under way was thrown away and begun again.
    rollbacks,
    /// Partitions that were given to this process.
    assigned,
    /// Partitions that were asked back.
    revoked,
    /// Partitions that were lost.
    lost,
    /// Times that the assignment changed.
    rebalances,
    /// Answers of the shadow that last.
    shadow_scored,
    /// Records that the shadow left out: too many waited, or the end came first.
    shadow_dropped,
    /// Records that the shadow could not answer or write.
    shadow_failed,
    /// Model versions that took over from another.
    switches,
}

/// What became of refused records of one class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RefusedCounts {
    /// Left out.
    pub skipped: u64,
    /// Written to the dead letters.
    pub dead: u64,
    /// Answered by an error record.
    pub emitted: u64,
    /// Passed on as they came (tombstones).
    pub passed: u64,
    /// Ended the pipeline.
    pub failed: u64,
}

/// One partition of the source.
#[derive(Debug, Clone, PartialEq)]
pub struct PartitionStatus {
    /// Which one.
    pub partition: Partition,
    /// The first offset that is not committed, if any is known.
    pub committed: Option<i64>,
    /// The first offset that was not read, if any is known.
    pub read: Option<i64>,
    /// Records between what is committed and the newest, if the source knows.
    pub lag: Option<u64>,
    /// The age of the oldest record that is not committed (of the last committed one if none was read since), by the
    /// records' own times; zero when there is no lag. While windows are restored, how long that has taken.
    pub lag_time: Option<Duration>,
    /// Records read and not done.
    pub in_flight: usize,
    /// Whether the source is held back.
    pub is_paused: bool,
    /// Whether all of a bounded run was read.
    pub is_ended: bool,
    /// Whether its windows are being restored, and nothing is read.
    pub is_restoring: bool,
}

/// What a pipeline does at a moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Status {
    /// Counted since the start.
    pub counts: Counts,
    /// Refused records, by class.
    pub refused: Vec<(Class, RefusedCounts)>,
    /// The version that answers, and that of the canary, if one is known.
    pub model: Option<ModelId>,
    /// The version of the canary.
    pub canary: Option<ModelId>,
    /// Partitions assigned: in order those whose windows, if there are any, are there, then those whose windows are being restored.
    pub partitions: Vec<PartitionStatus>,
    /// How many of them are being restored.
    pub n_restoring: usize,
    /// Records read and not done.
    pub records_in_flight: u64,
    /// The memory they take.
    pub bytes_in_flight: u64,
    /// Records that wait for a worker.
    pub records_waiting: u64,
    /// Batches that workers have.
    pub batches_in_flight: u64,
    /// How long ago positions were last committed, or the start if none were.
    pub commit_age: Duration,
    /// Whether versions of the models are known, the source can be read, windows are restored, and the last attempt to write did
    /// not fail. A member of a group that has no partitions, yet or for now, is ready too.
    pub is_ready: bool,
    /// Bytes that the state of windows takes.
    pub state_bytes: u64,
    /// Times of the stages.
    pub stages: Stages<Times>,
}

impl Status {
    /// Rows in a call of the model on average, if there was one.
    pub fn batch_fill(&self) -> Option<f64> {
        (self.counts.calls > 0).then(|| self.counts.rows as f64 / self.counts.calls as f64)
    }
}

/// Where the time of records goes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Stages<T> {
    /// From reading a record to giving it to a worker.
    pub queue: T,
    /// Decoding a batch, divided by its records.
    pub decode: T,
    /// One call of the model.
    pub predict: T,
    /// Encoding the answers of a batch, divided by its records.
    pub encode: T,
    /// From reading a record to handing its answer to the sink's thread.
    pub release: T,
    /// From reading a record to knowing that its answer lasts.
    pub total: T,
    /// One commit.
    pub commit: T,
}

impl Stages<Histogram> {
    fn read(&self) -> Stages<Times> {
        Stages {
            queue: self.queue.read(),
            decode: self.decode.read(),
            predict: self.predict.read(),
            encode: self.encode.read(),
            release: self.release.read(),
            total: self.total.read(),
            commit: self.commit.read(),
        }
    }
}

/// What the driver publishes from time to time.
#[derive(Debug, Clone, Default)]
pub(crate) struct Published {
    pub(crate) partitions: Vec<PartitionStatus>,
    pub(crate) model: Option<ModelId>,
    pub(crate) canary: Option<ModelId>,
    pub(crate) commit_age: Duration,
    pub(crate) n_restoring: usize,
}

#[derive(Debug, Default)]
struct RefusedCounters {
    skipped: AtomicU64,
    dead: AtomicU64,
    emitted: AtomicU64,
    passed: AtomicU64,
    failed: AtomicU64,
}

/// What the threads of a pipeline write into.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    pub(crate) counters: Counters,
    pub(crate) stages: Stages<Histogram>,
    refused: [RefusedCounters; Class::ALL.len()],
    pub(crate) records_in_flight: AtomicU64,
    pub(crate) bytes_in_flight: AtomicU64,
    pub(crate) records_waiting: AtomicU64,
    pub(crate) batches_in_flight: AtomicU64,
    pub(crate) state_bytes: AtomicU64,
    pub(crate) is_ready: AtomicBool,
    published: Mutex<Published>,
}

/// Adds to a counter.
pub(crate) fn add(counter: &AtomicU64, n: usize) {
    counter.fetch_add(u64::try_from(n).unwrap_or(u64::MAX), Relaxed);
}

/// Sets a gauge.
pub(crate) fn set(gauge: &AtomicU64, n: usize) {
    gauge.store(u64::try_from(n).unwrap_or(u64::MAX), Relaxed);
}

impl Meter {
    /// Counts a refused record. Gives how many of its class met the same.
    pub(crate) fn refused(&self, class: Class, policy: crate::Policy) -> u64 {
        let counters = &self.refused[class.index()];
        let counter = match policy {
            crate::Policy::Fail => &counters.failed,
            crate::Policy::Skip => &counters.skipped,
            crate::Policy::Dead => &counters.dead,
            crate::Policy::Emit => &counters.emitted,
            crate::Policy::Pass => &counters.passed,
        };
        counter.fetch_add(1, Relaxed) + 1
    }

    pub(crate) fn publish(&self, published: Published) {
        *self.published.lock().unwrap_or_else(PoisonError::into_inner) = published;
    }

    pub(crate) fn read(&self) -> Status {
        let published = self.published.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let refused = Class::ALL.iter().map(|class| {
            let counters = &self.refused[class.index()];
            let counts = RefusedCounts {
                skipped: counters.skipped.load(Relaxed),
                dead: counters.dead.load(Relaxed),
                emitted: counters.emitted.load(Relaxed),
                passed: counters.passed.load(Relaxed),
                failed: counters.failed.load(Relaxed),
            };
            (*class, counts)
        });
        Status {
            counts: self.counters.read(),
            refused: refused.collect(),
            model: published.model,
            canary: published.canary,
            partitions: published.partitions,
            n_restoring: published.n_restoring,
            records_in_flight: self.records_in_flight.load(Relaxed),
            bytes_in_flight: self.bytes_in_flight.load(Relaxed),
            records_waiting: self.records_waiting.load(Relaxed),
            batches_in_flight: self.batches_in_flight.load(Relaxed),
            commit_age: published.commit_age,
            is_ready: self.is_ready.load(Relaxed),
            state_bytes: self.state_bytes.load(Relaxed),
            stages: self.stages.read(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_lies_in_its_bucket() {
        let mut last = 0;
        for nanos in (0..40u32).flat_map(|power| [1u64 << power, (1 << power) + (1 << power) / 3]) {
            let time = Duration::from_nanos(nanos);
            let index = bucket(time);
            assert!(index >= last, "{time:?}");
            last = index;
            assert!(time < bound(index) || index == N_BUCKETS - 1, "{time:?} {index} {:?}", bound(index));
            assert!(index == 0 || time >= bound(index - 1), "{time:?} {index} {:?}", bound(index - 1));
        }
        assert_eq!(last, N_BUCKETS - 1);
    }

    #[test]
    fn quantiles_and_differences() {
        let histogram = Histogram::default();
        histogram.record_n(Duration::from_millis(1), 99);
        let before = histogram.read();
        histogram.record(Duration::from_millis(100));
        let after = histogram.read();
        let within = |got: Duration, want: f64| {
            let ratio = got.as_secs_f64() / want;
            assert!((1.0..=1.25).contains(&ratio), "{got:?} {want}");
        };
        within(after.quantile(0.5), 0.001);
        within(after.quantile(0.99), 0.001);
        within(after.quantile(1.0), 0.1);
        assert_eq!((after.n(), after.since(&before).n()), (100, 1));
        within(after.since(&before).quantile(0.5), 0.1);
        assert_eq!(Histogram::default().read().quantile(0.5), Duration::ZERO);
    }
}
