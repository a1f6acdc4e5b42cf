//! The suite that every engine passes: it loads small models whose answers are known and runs them in all the ways in
//! which the rooms above will.

mod documented;
mod elements;
mod failures;
mod fixture;
mod lanes;
mod runs;
mod texts;

use std::path::Path;

use salver_engine::{Engine, Error};

use failures::Failures;
pub use fixture::{Case, Fixture};

/// What an engine cannot do. Everything else is demanded of it, and so are these: a difference that does not show fails the
/// suite as one that is not listed does. An engine may say that it cannot, but never answer wrongly.
#[derive(Debug, Clone, Copy, Default)]
pub struct Capabilities {
    /// Each as a row of `docs/engine-differences.md`; the suite fails when that page says otherwise.
    pub differences: &'static [Difference],
}

/// Models of the suite that an engine does not run as others do, and why.
#[derive(Debug, Clone, Copy)]
pub struct Difference {
    /// What the engine does with them.
    pub refusal: Refusal,
    /// The names of the models.
    pub models: &'static [&'static str],
    /// Why, for a person: one line in the table.
    pub reason: &'static str,
}

/// How an engine says that it cannot run a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// It refuses to load it, as [`salver_engine::ErrorKind::Unsupported`].
    AtLoad,
    /// It loads it and refuses at least one case as an invalid input; it answers the others.
    InRuns,
    /// The model is not there in a form that the engine reads.
    NoModel,
}

impl Capabilities {
    /// What is expected of the engine for this model; `None` when it is to run it.
    fn refusal(&self, model: &str) -> Option<Refusal> {
        self.differences.iter().find(|d| d.models.contains(&model)).map(|d| d.refusal)
    }
}

/// Runs the whole suite. Blocks for some seconds.
///
/// With the variable `SALVER_WRITE_DOCS` set, it writes the engine's rows of `docs/engine-differences.md` instead of
/// comparing them.
///
/// # Panics
/// When the engine fails any of it, with everything that it failed.
pub fn run(engine: &dyn Engine, capabilities: &Capabilities) {
    let mut failures = Failures::default();
    let fixtures = fixture::all();
    documented::names(capabilities, &fixtures, &mut failures);
    for fixture in &fixtures {
        runs::answers(engine, capabilities, fixture, &mut failures);
    }
    runs::outputs_in_any_order(engine, &mut failures);
    runs::inputs_that_do_not_fit(engine, &mut failures);
    lanes::together(engine, &mut failures);
    lanes::sessions_come_and_go(engine, &mut failures);
    lanes::sessions_outlive_their_model(engine, &mut failures);
    texts::broken_files(engine, &mut failures);
    texts::missing_operators(engine, capabilities, &mut failures);
    texts::loads_leave_nothing(engine, &mut failures);
    documented::page(engine, capabilities, &mut failures);
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

/// Judges an engine on the models of the suite, in the form that it reads; those that have none are left out. For engines
/// that stand on others and have no rows of their own in `docs/engine-differences.md`.
///
/// # Panics
/// When the models cannot be read.
pub fn judge_suite(engine: &dyn Engine) -> Vec<(String, Verdict)> {
    let fixtures = fixture::all().into_iter().filter(|fixture| fixture.source_for(engine).is_some());
    fixtures.map(|fixture| (fixture.name.clone(), runs::verdict(engine, &fixture))).collect()
}

/// Judges an engine on all models of a folder, each `NAME.onnx` with its answers in `NAME.json` as `make.py` writes
/// them.
///
/// # Panics
/// When the folder cannot be read.
pub fn judge(engine: &dyn Engine, folder: &Path) -> Vec<(String, Verdict)> {
    fixture::all_in(folder).into_iter().map(|f| (f.name.clone(), runs::verdict(engine, &f))).collect()
}
