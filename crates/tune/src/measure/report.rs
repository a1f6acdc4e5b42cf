//! What comes out of a measurement.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use salver_engine::Precision;

use crate::{Agreement, Candidate, Footprint, Sharing};

/// All that was found.
#[derive(Debug, Clone)]
pub struct Report {
    /// The position of the reference among the candidates.
    pub reference: usize,
    /// One entry per candidate, in their order.
    pub candidates: Vec<CandidateReport>,
    /// What was measured, by candidate, threads, lanes and batch size. A candidate that was not measured further has the one
    /// row of its first figure.
    pub measured: Vec<Measured>,
    /// The position of the best among the measurements; `None` when none may be chosen.
    pub choice: Option<usize>,
    /// What could not be measured.
    pub failures: Vec<Failure>,
    /// What a person should know about how it was measured.
    pub notes: Vec<String>,
}

/// What is known of a candidate.
#[derive(Debug, Clone)]
pub struct CandidateReport {
    /// The engine's name.
    pub engine: Arc<str>,
    /// What it computes in.
    pub precision: Precision,
    /// How far its answers are from the reference's; `None` when it gave none.
    pub agreement: Option<Arc<Agreement>>,
    /// The shortest time for one caller on one thread.
    pub one_caller: Option<Duration>,
    /// Why it does not run the model at all.
    pub failure: Option<String>,
    /// Why it may not be chosen.
    pub refusal: Option<String>,
    /// How many times slower than the best of its precision it is, if it was not measured further for that.
    pub times_slower: Option<f64>,
}

/// One way to run the model, and what it takes.
#[derive(Debug, Clone)]
pub struct Measured {
    /// The position among the candidates; the earlier is the simpler.
    pub candidate: usize,
    /// The engine's name.
    pub engine: Arc<str>,
    /// What it computes in.
    pub precision: Precision,
    /// Threads and lanes.
    pub sharing: Sharing,
    /// Rows per run.
    pub batch: NonZeroUsize,
    /// The median time of one run of one row (or the smallest batch size of the plan) while nothing else runs.
    pub one_caller: Duration,
    /// The median time of one run of `batch` rows while all lanes run.
    pub p50: Duration,
    /// The time that 99 of 100 such runs do not exceed.
    pub p99: Duration,
    /// Rows per second of all lanes together.
    pub rows_per_second: f64,
    /// Time that all threads of the process compute for one row.
    pub cpu_per_row: Duration,
    /// Memory that the model takes under these settings, after runs of every batch size; `None` where the system does not say.
    pub footprint: Option<Footprint>,
    /// Time that loading took.
    pub load_time: Duration,
    /// Runs that count.
    pub n_runs: usize,
    /// Rounds that the figures are medians of.
    pub n_rounds: usize,
    /// How far the candidate's answers are from the reference's.
    pub agreement: Arc<Agreement>,
}

/// What could not be measured, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The position among the candidates.
    pub candidate: usize,
    /// The engine's name.
    pub engine: Arc<str>,
    /// What it computes in.
    pub precision: Precision,
    /// Threads and lanes, if it is not the candidate as a whole.
    pub sharing: Option<Sharing>,
    /// The batch size, if it is not all of them.
    pub batch: Option<NonZeroUsize>,
    /// The engine's own words.
    pub reason: String,
}

/// What happens, for a progress bar.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A stage begins that has about so many steps.
    Stage {
        /// What is done.
        name: &'a str,
        /// How many [`Event::Step`] follow.
        n_steps: usize,
    },
    /// A step begins.
    Step {
        /// What is done.
        what: &'a str,
    },
}

/// Why nothing could be measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    message: String,
}

impl Error {
    pub(super) fn no_reference(reasons: &[String]) -> Error {
        let message = match reasons {
            [] => "no engine is here that could say what the right answers are".to_owned(),
            reasons => format!("no engine runs this model at f32: {}", reasons.join("; ")),
        };
        Error { message }
    }

    pub(super) fn requests(message: String) -> Error {
        Error { message }
    }

    pub(super) fn no_answers(engine: &str, why: &str) -> Error {
        Error { message: format!("{engine} answers none of the requests: {why}") }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl CandidateReport {
    pub(super) fn new(candidate: &Candidate) -> CandidateReport {
        CandidateReport {
            engine: Arc::clone(&candidate.engine),
            precision: candidate.precision,
            agreement: None,
            one_caller: None,
            failure: None,
            refusal: None,
            times_slower: None,
        }
    }

    /// Bytes that a model of this candidate takes, going by those that were loaded.
    pub(super) fn footprint_about(&self, measured: &[Measured]) -> u64 {
        let own =
            measured.iter().filter(|one| (&one.engine, one.precision) == (&self.engine, self.precision));
        own.filter_map(|one| one.footprint).map(Footprint::total).max().unwrap_or(0)
    }
}
