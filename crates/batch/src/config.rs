use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use crate::Error;

/// Where lanes read the time from; tests pass one that they move by hand.
pub trait Clock: Send + Sync + 'static {
    /// The present moment. Never goes backwards.
    fn now(&self) -> Instant;
}

impl<F: Fn() -> Instant + Send + Sync + 'static> Clock for F {
    fn now(&self) -> Instant {
        self()
    }
}

/// The numbers of one model's lanes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Batches that run at the same time. Default: one per CPU.
    pub n_lanes: NonZeroUsize,
    /// Threads that one run may use. Default: 1; several lanes use a machine better than several threads per run.
    pub threads: NonZeroUsize,
    /// Tasks that may wait. Default: 1000.
    pub max_queue: NonZeroUsize,
    /// Bytes of inputs that may wait. A task larger than that is taken when nothing else waits. Default: 256 MiB.
    pub max_queued_bytes: usize,
    /// Runs expected to take less than this are made on the calling thread if it is inside the engine. Zero: never.
    /// Default: 50 µs.
    pub inline_below: Duration,
    /// Runs that may be made on calling threads at the same time. Default: one per CPU.
    pub n_inline: NonZeroUsize,
    /// How tasks are joined. Default: not at all.
    pub batching: Option<Batching>,
}

impl Default for Config {
    fn default() -> Self {
        let n_cpus = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        Config {
            n_lanes: n_cpus,
            threads: NonZeroUsize::MIN,
            max_queue: NonZeroUsize::new(1000).expect("1000 is not zero"),
            max_queued_bytes: 256 << 20,
            inline_below: Duration::from_micros(50),
            n_inline: n_cpus,
            batching: None,
        }
    }
}

impl Config {
    /// Checks what types cannot.
    ///
    /// # Errors
    /// [`Error::Config`] with TensorFlow Serving's text where it has one.
    pub fn check(&self) -> Result<(), Error> {
        self.batching.as_ref().map_or(Ok(()), Batching::check)
    }
}

/// How tasks are joined to batches. The names and defaults are those of TensorFlow Serving's `BatchingParameters`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batching {
    /// Rows in a batch at most, and in a task that can be joined. Default: 1000.
    pub max_batch_size: NonZeroUsize,
    /// How long a task may wait for others. Zero: a free lane takes what there is. Default: zero.
    pub batch_timeout: Duration,
    /// The sizes that batches are filled up to, ascending; empty: no filling. Default: empty.
    pub allowed_batch_sizes: Vec<usize>,
    /// Refused when set: not supported yet.
    pub enable_large_batch_splitting: bool,
    /// Refused when set: not supported yet.
    pub pad_variable_length_inputs: bool,
}

impl Default for Batching {
    fn default() -> Self {
        Batching {
            max_batch_size: NonZeroUsize::new(1000).expect("1000 is not zero"),
            batch_timeout: Duration::ZERO,
            allowed_batch_sizes: Vec::new(),
            enable_large_batch_splitting: false,
            pad_variable_length_inputs: false,
        }
    }
}

impl Batching {
    fn check(&self) -> Result<(), Error> {
        if self.enable_large_batch_splitting {
            return Err(Error::Config("enable_large_batch_splitting is not supported yet".into()));
        }
        if self.pad_variable_length_inputs {
            return Err(Error::Config("pad_variable_length_inputs is not supported yet".into()));
        }
        let Some(&last) = self.allowed_batch_sizes.last() else { return Ok(()) };
        if self.allowed_batch_sizes.first() == Some(&0)
            || !self.allowed_batch_sizes.is_sorted_by(|a, b| a < b)
        {
            return Err(Error::Config(format!(
                "allowed_batch_sizes entries must be positive and ascending, got {:?}",
                self.allowed_batch_sizes
            )));
        }
        if last != self.max_batch_size.get() {
            return Err(Error::Config(format!(
                "Last entry in allowed_batch_sizes must match max_batch_size; last entry was {last}; expected {}",
                self.max_batch_size
            )));
        }
        Ok(())
    }

    /// The rows that a batch of `n_rows` is filled up to.
    pub(crate) fn filled(&self, n_rows: usize) -> usize {
        self.allowed_batch_sizes.iter().copied().find(|&size| size >= n_rows).unwrap_or(n_rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batching_parameters_are_checked() {
        let check = |edit: fn(&mut Batching), expected: &str| {
            let mut batching =
                Batching { max_batch_size: NonZeroUsize::new(8).unwrap(), ..Batching::default() };
            edit(&mut batching);
            let config = Config { batching: Some(batching), ..Config::default() };
            let message = config.check().err().map(|error| error.to_string()).unwrap_or_default();
            assert_eq!(message, expected);
        };
        check(|_| (), "");
        check(|b| b.allowed_batch_sizes = vec![1, 4, 8], "");
        check(
            |b| b.allowed_batch_sizes = vec![1, 4],
            "Last entry in allowed_batch_sizes must match max_batch_size; last entry was 4; expected 8",
        );
        let order = "allowed_batch_sizes entries must be positive and ascending, got ";
        check(|b| b.allowed_batch_sizes = vec![4, 4, 8], &format!("{order}[4, 4, 8]"));
        check(|b| b.allowed_batch_sizes = vec![0, 8], &format!("{order}[0, 8]"));
        check(|b| b.enable_large_batch_splitting = true, "enable_large_batch_splitting is not supported yet");
        check(|b| b.pad_variable_length_inputs = true, "pad_variable_length_inputs is not supported yet");
    }

    #[test]
    fn batches_are_filled_up_to_the_next_allowed_size() {
        let batching = Batching { allowed_batch_sizes: vec![2, 4], ..Batching::default() };
        assert_eq!([1, 2, 3, 4].map(|n| batching.filled(n)), [2, 2, 4, 4]);
        assert_eq!(Batching::default().filled(3), 3);
    }
}
