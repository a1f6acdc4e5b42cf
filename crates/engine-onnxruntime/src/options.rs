//! How the library is told to load a model.

use std::num::NonZeroUsize;

use ort::logging::LogLevel;
use ort::session::Session;
use ort::session::builder::{BuilderResult, GraphOptimizationLevel, SessionBuilder};
use salver_engine::Error;

use crate::error::internal;
use crate::library::Runtime;

/// What a model needs of the sessions made for it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    /// Threads that one run may use.
    pub(crate) threads: NonZeroUsize,
    /// Whether where intermediate results go is remembered for each shape of the inputs. That saves a tenth of a run of a
    /// few microseconds; of larger models it saves nothing and makes them keep a third more memory.
    pub(crate) keeps_patterns: bool,
}

/// Options for sessions. Each has memory of its own, which it keeps between runs and gives back when it is dropped.
pub(crate) fn builder(runtime: &Runtime, plan: Plan) -> Result<SessionBuilder, Error> {
    let builder = Session::builder(&runtime.environment).map_err(|error| internal(&error))?;
    let builder = plain(builder.with_log_level(LogLevel::Error))?;
    let builder = plain(builder.with_optimization_level(GraphOptimizationLevel::All))?;
    let builder = plain(builder.with_intra_threads(plan.threads.get()))?;
    let builder = plain(builder.with_inter_threads(1))?;
    let builder = plain(builder.with_parallel_execution(false))?;
    // Waking a thread for each operator costs up to a third of a run. The threads end to spin with the run.
    let builder = plain(builder.with_intra_op_spinning(plan.threads.get() > 1))?;
    let builder = plain(builder.with_config_entry("session.force_spinning_stop", "1"))?;
    let exact = if sums_may_overflow() { "1" } else { "0" };
    let builder = plain(builder.with_config_entry("session.x64quantprecision", exact))?;
    plain(builder.with_memory_pattern(plan.keeps_patterns))
}

/// Whether this processor sums products of signed and unsigned 8-bit numbers in 16 bits, where they may overflow. The
/// library's other kernels do not and are slower; on processors with VNNI they would be of no use.
#[cfg(target_arch = "x86_64")]
fn sums_may_overflow() -> bool {
    use std::arch::is_x86_feature_detected;

    !is_x86_feature_detected!("avx512vnni") && !is_x86_feature_detected!("avxvnni")
}

/// As above: only processors of that kind do.
#[cfg(not(target_arch = "x86_64"))]
fn sums_may_overflow() -> bool {
    false
}

fn plain(result: BuilderResult) -> Result<SessionBuilder, Error> {
    result.map_err(|error| internal(&error))
}
