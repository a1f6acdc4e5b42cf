use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use crate::{Cores, Error};

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

/// Lanes of one model, and threads of one run, at most: more are no use and may be more than a process can start.
pub const MAX_THREADS: usize = 1024;

/// The numbers of one model's lanes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Batches that run at the same time, at most 1024. Default: one per CPU.
    pub n_lanes: NonZeroUsize,
    /// Threads that one run may use, at most 1024. Default: 1; several lanes use a machine better than several threads per run.
    pub threads: NonZeroUsize,
    /// The threads that all models share, of which each run takes as many as it uses. Default: no bound.
    pub cores: Option<Cores>,
    /// Keep each lane on as many processors as one of its runs uses threads. They are given out in turn, over all models
    /// that share `cores`, and shared by several lanes once all are given out. Default: no.
    pub pinned: bool,
    /// How long runs may take to end once the model is unloaded; those that take longer are abandoned
    /// ([`salver_engine::Model::abandon`]). Default: 10 seconds.
    pub unload_grace: Duration,
    /// Runs that may be made on calling threads at the same time. Default: one per CPU.
    pub n_inline: NonZeroUsize,
    /// What may change while the lanes work.
    pub policy: Policy,
}

impl Default for Config {
    fn default() -> Self {
        let n_cpus = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        Config {
            n_lanes: n_cpus.min(NonZeroUsize::new(MAX_THREADS).expect("1024 is not zero")),
            threads: NonZeroUsize::MIN,
            cores: None,
            pinned: false,
            unload_grace: Duration::from_secs(10),
            n_inline: n_cpus,
            policy: Policy::default(),
        }
    }
}

impl Config {
    /// Checks what types cannot.
    ///
    /// # Errors
    /// [`Error::Config`] with TensorFlow Serving's text where it has one.
    pub fn check(&self) -> Result<(), Error> {
        for (name, value) in [("n_lanes", self.n_lanes), ("threads", self.threads)] {
            if value.get() > MAX_THREADS {
                return Err(Error::Config(format!("{name} is {value}, expected at most {MAX_THREADS}")));
            }
        }
        self.policy.check()
    }

    /// The first of the processors that lane `lane` is kept on, if it is.
    pub(crate) fn first_processor(&self, lane: usize) -> Option<usize> {
        let own = || lane.wrapping_mul(self.threads.get());
        self.pinned.then(|| self.cores.as_ref().map_or_else(own, |cores| cores.processor(self.threads)))
    }
}

/// Who is let in, who is next, and what runs together. All of it may change while lanes work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Tasks that may wait. Default: 1000.
    pub max_queue: NonZeroUsize,
    /// Bytes of inputs that may wait. A task larger than that is taken when nothing else waits. Default: 256 MiB.
    pub max_queued_bytes: usize,
    /// Runs expected to take less than this are made on the calling thread if it is inside the engine. Zero: never.
    /// Default: 50 µs.
    pub inline_below: Duration,
    /// The time that a task has which brings no deadline. Default: no end.
    pub default_timeout: Option<Duration>,
    /// Refuse at once what is foreseen to miss its deadline, and drop what can no longer make it. Default: yes.
    pub refuses_early: bool,
    /// What priorities mean. Default: strict.
    pub priorities: Priorities,
    /// Whether callers of one priority take turns when several have tasks waiting. Default: no.
    pub is_fair: bool,
    /// How tasks are joined. Default: not at all.
    pub batching: Option<Batching>,
}

impl Default for Policy {
    fn default() -> Self {
        Policy {
            max_queue: NonZeroUsize::new(1000).expect("1000 is not zero"),
            max_queued_bytes: 256 << 20,
            inline_below: Duration::from_micros(50),
            default_timeout: None,
            refuses_early: true,
            priorities: Priorities::Strict,
            is_fair: false,
            batching: None,
        }
    }
}

impl Policy {
    /// Checks what types cannot.
    ///
    /// # Errors
    /// As [`Config::check`].
    pub fn check(&self) -> Result<(), Error> {
        if let Priorities::Weighted(weights) = &self.priorities
            && weights.contains(&0)
        {
            return Err(Error::Config(format!(
                "priority weights are {weights:?}, expected positive numbers"
            )));
        }
        self.batching.as_ref().map_or(Ok(()), Batching::check)
    }
}

/// Priorities there are: 1 is served first, 9 last.
pub const N_PRIORITIES: usize = 9;

/// The priority of a task that brings none.
pub const DEFAULT_PRIORITY: u8 = 5;

/// What priorities mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Priorities {
    /// Nothing runs while something more urgent waits.
    Strict,
    /// While several priorities wait, each gets lanes' time in proportion to its weight, that of priority 1 first. None
    /// is zero.
    Weighted([u32; N_PRIORITIES]),
}

/// How tasks are joined to batches. The names are those of TensorFlow Serving's `BatchingParameters` where it has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batching {
    /// Rows in a batch at most, and in a task that is not split. Default: 1000.
    pub max_batch_size: NonZeroUsize,
    /// How long a task may wait for others. Zero: a free lane takes what there is. Default: zero.
    pub batch_timeout: Duration,
    /// Let tasks wait for others as long as their deadlines safely allow: more throughput, at the price of latency. Tasks
    /// without a deadline do not wait. Default: no.
    pub is_deferred: bool,
    /// Take no more rows than are computed faster together, and no more than let the first task make its deadline.
    /// Default: yes.
    pub by_cost: bool,
    /// The sizes that batches are filled up to, ascending; empty: no filling. Default: empty.
    pub allowed_batch_sizes: Vec<usize>,
    /// Cut tasks of more rows than a batch has into several; otherwise they are refused. Default: no.
    pub enable_large_batch_splitting: bool,
    /// Rows of tasks that are split, at most; more are refused. Default: no bound.
    pub max_task_rows: Option<NonZeroUsize>,
    /// How rows of unequal shapes are joined. Default: not at all.
    pub padding: Padding,
    /// Whether rows of signatures are joined of which nobody knows whether answers depend on what a row is joined with
    /// ([`crate::Verdict::Unknown`]). Default: yes.
    pub joins_unchecked: bool,
}

/// How rows of unequal shapes are joined.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Padding {
    /// Not at all: each shape has batches of its own.
    #[default]
    Off,
    /// Each open dimension is filled up to the largest in the batch with the tensor's own first element, as TensorFlow
    /// Serving's `pad_variable_length_inputs` does.
    Longest,
    /// Each open dimension is filled up to the next of these sizes (ascending), with zeros (empty strings), and outputs
    /// that have the padded size are cut to the task's own. Sizes beyond the last stay as they are.
    Buckets(Vec<usize>),
}

impl Default for Batching {
    fn default() -> Self {
        Batching {
            max_batch_size: NonZeroUsize::new(1000).expect("1000 is not zero"),
            batch_timeout: Duration::ZERO,
            is_deferred: false,
            by_cost: true,
            allowed_batch_sizes: Vec::new(),
            enable_large_batch_splitting: false,
            max_task_rows: None,
            padding: Padding::Off,
            joins_unchecked: true,
        }
    }
}

impl Batching {
    fn check(&self) -> Result<(), Error> {
        ascending("padding buckets", if let Padding::Buckets(sizes) = &self.padding { sizes } else { &[] })?;
        ascending("allowed_batch_sizes", &self.allowed_batch_sizes)?;
        match self.allowed_batch_sizes.last() {
            Some(&last) if last != self.max_batch_size.get() => Err(Error::Config(format!(
                "Last entry in allowed_batch_sizes must match max_batch_size; last entry was {last}; expected {}",
                self.max_batch_size
            ))),
            _ => Ok(()),
        }
    }

    /// The rows that a batch of `n_rows` is filled up to.
    pub(crate) fn filled(&self, n_rows: usize) -> usize {
        self.allowed_batch_sizes.iter().copied().find(|&size| size >= n_rows).unwrap_or(n_rows)
    }
}

fn ascending(name: &str, sizes: &[usize]) -> Result<(), Error> {
    if sizes.first() == Some(&0) || !sizes.is_sorted_by(|a, b| a < b) {
        return Err(Error::Config(format!("{name} entries must be positive and ascending, got {sizes:?}")));
    }
    Ok(())
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
            let policy = Policy { batching: Some(batching), ..Policy::default() };
            let config = Config { policy, ..Config::default() };
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
        let order = "padding buckets entries must be positive and ascending, got ";
        check(|b| b.padding = Padding::Buckets(vec![8, 4]), &format!("{order}[8, 4]"));
    }

    #[test]
    fn lanes_and_threads_have_a_bound() {
        let check = |n_lanes, threads, expected: &str| {
            let [n_lanes, threads] = [n_lanes, threads].map(|n| NonZeroUsize::new(n).unwrap());
            let config = Config { n_lanes, threads, ..Config::default() };
            let message = config.check().err().map(|error| error.to_string()).unwrap_or_default();
            assert_eq!(message, expected);
        };
        check(1024, 1024, "");
        check(1025, 1, "n_lanes is 1025, expected at most 1024");
        check(1, 100_000, "threads is 100000, expected at most 1024");
    }

    #[test]
    fn batches_are_filled_up_to_the_next_allowed_size() {
        let batching = Batching { allowed_batch_sizes: vec![2, 4], ..Batching::default() };
        assert_eq!([1, 2, 3, 4].map(|n| batching.filled(n)), [2, 2, 4, 4]);
        assert_eq!(Batching::default().filled(3), 3);
    }
}
