use std::num::NonZeroUsize;
use std::time::Duration;

use crate::Policy;
use crate::model::Rules;

/// The numbers that a manager works with.
#[derive(Debug, Clone)]
pub struct Config {
    /// In which order versions are swapped. Default: availability preserving.
    pub policy: Policy,
    /// Loads that run at the same time. Default: the number of CPUs, at least 2, so that a slow one does not
    /// hold up the rest.
    pub n_load_threads: NonZeroUsize,
    /// Servables that are dropped at the same time. Default: 2.
    pub n_unload_threads: NonZeroUsize,
    /// How often a load is tried again after an error that can pass. Default: 5.
    pub max_retries: u32,
    /// The wait before the first retry; it doubles with each further one. Waiting occupies no thread.
    /// Default: 1 s.
    pub retry_interval: Duration,
    /// The longest wait before a retry, unless `retry_interval` is longer. Default: 60 s.
    pub max_retry_interval: Duration,
    /// How many ended, no longer wanted versions of each name are remembered; the latest to end stay.
    /// Default: 16.
    pub n_ended_kept: usize,
}

impl Default for Config {
    fn default() -> Self {
        let n_cpus = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Self {
            policy: Policy::default(),
            n_load_threads: NonZeroUsize::new(n_cpus.max(2)).expect("at least 2"),
            n_unload_threads: NonZeroUsize::new(2).expect("2 is not zero"),
            max_retries: 5,
            retry_interval: Duration::from_secs(1),
            max_retry_interval: Duration::from_secs(60),
            n_ended_kept: 16,
        }
    }
}

impl Config {
    pub(crate) fn rules(&self) -> Rules {
        Rules {
            policy: self.policy,
            max_retries: self.max_retries,
            retry_interval: self.retry_interval,
            max_retry_interval: self.max_retry_interval,
            n_ended_kept: self.n_ended_kept,
        }
    }
}
