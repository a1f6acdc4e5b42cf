//! The suite that every engine passes: it loads small models whose answers are known and runs them in all the ways in
//! which the rooms above will.

mod failures;
mod fixture;
mod runs;
mod texts;

use std::path::Path;

use salver_engine::{Engine, Error};

use failures::Failures;
pub use fixture::{Case, Fixture};

/// What an engine cannot do. Everything else is demanded of it, and these are demanded to be refused: an engine may
/// say that it cannot, but never answer wrongly.
#[derive(Debug, Clone, Copy, Default)]
pub struct Capabilities {
    /// Fixtures that it refuses to load.
    pub refused_at_load: &'static [&'static str],
    /// Fixtures of which it refuses at least one case as an invalid input, and answers the others.
    pub refused_in_runs: &'static [&'static str],
}

/// Runs the whole suite.
///
/// # Panics
/// When the engine fails any of it, with everything that it failed.
pub fn run(engine: &dyn Engine, capabilities: &Capabilities) {
    let mut failures = Failures::default();
    for fixture in fixture::all() {
        runs::answers(engine, capabilities, &fixture, &mut failures);
    }
    runs::together(engine, &mut failures);
    runs::outputs_in_any_order(engine, &mut failures);
    runs::inputs_that_do_not_fit(engine, &mut failures);
    texts::broken_files(engine, &mut failures);
    texts::missing_operators(engine, capabilities, &mut failures);
    texts::loads_leave_nothing(engine, &mut failures);
    failures.check();
}

/// How an engine did on one model.
#[derive(Debug)]
pub enum Verdict {
    /// Its answers are the stored ones.
    Right,
    /// It did not load the model or gave an error for an input.
    Refused(Error),
    /// Its answers are others.
    Wrong(String),
}

/// Judges an engine on all models of a folder, each `NAME.onnx` with its answers in `NAME.json` as `make.py` writes
/// them.
///
/// # Panics
/// When the folder cannot be read.
pub fn judge(engine: &dyn Engine, folder: &Path) -> Vec<(String, Verdict)> {
    fixture::all_in(folder).into_iter().map(|f| (f.name.clone(), runs::verdict(engine, &f))).collect()
}
