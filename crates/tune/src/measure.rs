//! The order in which things are measured.

mod group;
mod report;
mod weigh;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use salver_tensor::Signature;

pub use report::{CandidateReport, Error, Event, Failure, Measured, Report};
pub use weigh::weigh;

use crate::choose::choose;
use crate::feed::{Answered, Batch, Feed};
use crate::loaded::{Bound, Loaded};
use crate::rounds::Rounds;
use crate::trial::{self, Length};
use crate::{Agreement, Candidate, Footprint, Goal, Meter, Plan, Request, Requests, Sharing};

/// A candidate that is so much slower than the best of its precision, on one thread, is not measured further.
const TOO_SLOW: f64 = 3.0;

/// The shortest and the longest time that one thing is run for in one round.
const TURN: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(400));

/// What is measured, and what for.
#[derive(Debug, Clone, Copy)]
pub struct Job<'a> {
    /// What there is to choose from, the simplest first.
    pub candidates: &'a [Candidate],
    /// Positions of candidates: the first that loads says what the right answers are.
    pub references: &'a [usize],
    /// What is tried.
    pub plan: &'a Plan,
    /// What is wanted. Candidates that may not be chosen are not measured further than it takes to know that.
    pub goal: &'a Goal,
}

/// Measures the candidates. Blocks for about [`Plan::budget`], and longer where loading and running everything once takes
/// longer than that.
///
/// `requests` is called once, with the signatures of the reference. Signatures that keep state are not asked.
///
/// # Errors
/// When no reference loads, or the reference answers none of the requests. Any other candidate that fails is reported.
pub fn tune(
    job: &Job<'_>,
    requests: &Requests<'_>,
    meter: &dyn Meter,
    observe: &mut dyn FnMut(Event<'_>),
) -> Result<Report, Error> {
    let Job { candidates, references, plan, goal } = *job;
    let started = meter.now();
    let reports = candidates.iter().map(CandidateReport::new).collect();
    let mut driver = Driver {
        candidates,
        plan,
        goal,
        meter,
        observe,
        started,
        reference: 0,
        reports,
        failures: Vec::new(),
        notes: Vec::new(),
        first_files: BTreeMap::new(),
        measured: Vec::new(),
        kept: Vec::new(),
    };
    (driver.observe)(Event::Stage { name: "the reference", n_steps: 1 });
    let reference = driver.load_reference(references)?;
    let signatures = reference.model.signatures().to_vec();
    let asked = requests(&signatures).map_err(Error::requests)?;
    let (answered, reference_time) = driver.ask_reference(reference, &signatures, asked)?;
    let feed = Feed::new(&answered, &signatures);
    driver.check_all(&answered, &signatures, &feed, reference_time);
    driver.measure_all(&feed);
    Ok(driver.report())
}

struct Driver<'a> {
    candidates: &'a [Candidate],
    plan: &'a Plan,
    goal: &'a Goal,
    meter: &'a dyn Meter,
    observe: &'a mut dyn FnMut(Event<'_>),
    started: Duration,
    reference: usize,
    reports: Vec<CandidateReport>,
    failures: Vec<Failure>,
    notes: Vec<String>,
    /// How much an engine's first load made the pages of files grow: mostly its library.
    first_files: BTreeMap<Arc<str>, u64>,
    measured: Vec<Measured>,
    /// Models that are loaded and will be measured.
    kept: Vec<Loaded>,
}

impl<'a> Driver<'a> {
    fn elapsed(&self) -> Duration {
        self.meter.now().saturating_sub(self.started)
    }

    fn step(&mut self, candidate: usize, what: &str) {
        let candidate = &self.candidates[candidate];
        let what = format!("{} {}: {what}", candidate.engine, candidate.precision);
        (self.observe)(Event::Step { what: &what });
    }

    fn load(&mut self, candidate: usize, sharing: Sharing) -> Result<Loaded, String> {
        Loaded::load(candidate, &self.candidates[candidate], sharing, self.meter)
            .map_err(|error| error.to_string())
    }

    fn fail(
        &mut self,
        candidate: usize,
        sharing: Option<Sharing>,
        batch: Option<NonZeroUsize>,
        reason: String,
    ) {
        let Candidate { engine, precision, .. } = &self.candidates[candidate];
        let engine = Arc::clone(engine);
        self.failures.push(Failure { candidate, engine, precision: *precision, sharing, batch, reason });
    }

    fn load_reference(&mut self, references: &[usize]) -> Result<Loaded, Error> {
        let mut reasons = Vec::new();
        for &at in references.iter().filter(|&&at| at < self.candidates.len()) {
            self.step(at, "load");
            match self.load(at, Sharing::ONE) {
                Ok(loaded) => {
                    self.reference = at;
                    return Ok(loaded);
                }
                Err(reason) => {
                    reasons.push(format!("{}: {reason}", self.candidates[at].engine));
                    self.reports[at].failure = Some(reason.clone());
                    self.fail(at, None, None, reason);
                }
            }
        }
        Err(Error::no_reference(&reasons))
    }

    /// The reference's answers to as many requests as a twentieth of the time allows, and the time that took.
    fn ask_reference(
        &mut self,
        mut loaded: Loaded,
        signatures: &[Arc<Signature>],
        asked: Vec<Request>,
    ) -> Result<(Vec<Answered>, Duration), Error> {
        // The requests are not part of what the model takes.
        loaded.mark(self.meter);
        let (n_asked, started) = (asked.len(), self.meter.now());
        let (mut answered, mut first_error, mut n_failed) = (Vec::new(), None, 0);
        for request in asked {
            let taken = self.meter.now().saturating_sub(started);
            if !answered.is_empty() && taken > self.plan.budget / 20 {
                let n = answered.len();
                self.notes
                    .push(format!("answers are compared for {n} of {n_asked} requests, for lack of time"));
                break;
            }
            match ask(&mut loaded, signatures, &request) {
                Ok(answers) => answered.push(Answered { request, answers }),
                Err(error) => {
                    n_failed += 1;
                    first_error = first_error.or(Some(error));
                }
            }
        }
        let taken = self.meter.now().saturating_sub(started);
        if answered.is_empty() {
            let why = first_error.unwrap_or_else(|| "there are no requests".to_owned());
            return Err(Error::no_answers(&self.candidates[self.reference].engine, &why));
        }
        if let Some(error) = first_error {
            self.notes.push(format!("{n_failed} of {n_asked} requests are left out: {error}"));
        }
        self.kept.push(loaded);
        Ok((answered, taken))
    }

    /// Loads every candidate for one thread and one lane, compares its answers, and takes a first figure.
    fn check_all(
        &mut self,
        answered: &[Answered],
        signatures: &[Arc<Signature>],
        feed: &Feed,
        reference_time: Duration,
    ) {
        (self.observe)(Event::Stage { name: "answers", n_steps: self.candidates.len() });
        let mut reference = self.kept.pop();
        let mut order: Vec<usize> = (0..self.candidates.len()).collect();
        order.sort_by_key(|&at| at != self.reference);
        let time = (reference_time * 4).max(self.plan.budget / 20);
        let batch = self.plan.batch_sizes.first().copied().unwrap_or(NonZeroUsize::MIN);
        let batches = feed.batches(batch);
        for at in order {
            self.step(at, "answers");
            if self.reports[at].failure.is_some() {
                continue;
            }
            let loaded = match reference.take() {
                Some(loaded) => Ok(loaded),
                None => self.load(at, Sharing::ONE),
            };
            let checked = loaded.and_then(|mut loaded| {
                let agreement = self.check(&mut loaded, answered, signatures, time)?;
                self.reports[at].agreement = Some(Arc::new(agreement));
                self.first_figure(loaded, batch, &batches)
            });
            if let Err(reason) = checked {
                self.reports[at].failure = Some(reason.clone());
                self.fail(at, None, None, reason);
            }
        }
    }

    /// How far the answers are from the reference's; asks at least once, and no more after `time`.
    fn check(
        &mut self,
        loaded: &mut Loaded,
        answered: &[Answered],
        signatures: &[Arc<Signature>],
        time: Duration,
    ) -> Result<Agreement, String> {
        let mut agreement = Agreement::default();
        let started = self.meter.now();
        for one in answered {
            if agreement.n_rows > 0 && self.meter.now().saturating_sub(started) > time {
                break;
            }
            let signature = signatures.iter().find(|signature| *signature.name() == one.request.signature);
            let Some(signature) = signature else { continue };
            // The reference need not be asked twice.
            let answers = match loaded.candidate == self.reference {
                true => one.answers.clone(),
                false => ask(loaded, signatures, &one.request)?,
            };
            agreement.add(signature, &one.answers, &answers)?;
        }
        Ok(agreement)
    }

    /// Times one caller on one thread, and keeps the model if there is room for it.
    fn first_figure(
        &mut self,
        mut loaded: Loaded,
        batch: NonZeroUsize,
        batches: &[Batch],
    ) -> Result<(), String> {
        let length = Length { n_lanes: 1, time: TURN.1, min_runs: 3, is_warmed_up: true };
        let bound = loaded.bind(batches).map_err(|error| error.to_string())?;
        let trial = trial::run(&mut loaded, &bound, length, self.meter).map_err(|error| error.to_string())?;
        self.settle(&mut loaded);
        // Whatever else the machine does makes a run longer, never shorter.
        self.reports[loaded.candidate].one_caller = trial.runs.iter().min().copied();
        let mut rounds = Rounds::default();
        rounds.add(trial);
        let one_caller = rounds.p50().unwrap_or_default();
        self.add_measured(&loaded, batch, one_caller, &rounds);
        let n_loaded: u64 = self.kept.iter().filter_map(|kept| kept.footprint).map(Footprint::total).sum();
        let own = loaded.footprint.map_or(0, Footprint::total);
        if n_loaded.saturating_add(own) <= self.plan.max_loaded_bytes
            && self.plan.sharings.contains(&Sharing::ONE)
        {
            self.kept.push(loaded);
        }
        Ok(())
    }

    /// Looks at what the model takes. The files that the first model of an engine brought in count for all of them.
    fn settle(&mut self, loaded: &mut Loaded) {
        loaded.settle(self.meter);
        let engine = Arc::clone(&self.candidates[loaded.candidate].engine);
        if let Some(footprint) = &mut loaded.footprint {
            let first = *self.first_files.entry(engine).or_insert(footprint.files);
            footprint.files = footprint.files.max(first);
        }
    }

    fn add_measured(&mut self, loaded: &Loaded, batch: NonZeroUsize, one_caller: Duration, rounds: &Rounds) {
        let Candidate { engine, precision, .. } = &self.candidates[loaded.candidate];
        self.measured.push(Measured {
            candidate: loaded.candidate,
            engine: Arc::clone(engine),
            precision: *precision,
            sharing: loaded.sharing,
            batch,
            one_caller,
            p50: rounds.p50().unwrap_or_default(),
            p99: rounds.p99().unwrap_or_default(),
            rows_per_second: rounds.rows_per_second(),
            cpu_per_row: rounds.cpu_per_row(),
            footprint: loaded.footprint,
            load_time: loaded.load_time,
            n_runs: rounds.n_runs(),
            n_rounds: rounds.n_rounds(),
            // Put in when all is known.
            agreement: Arc::default(),
        });
    }

    /// Whether a candidate is measured further; notes why not.
    fn goes_on(&mut self, at: usize) -> bool {
        let report = &self.reports[at];
        let (Some(one_caller), Some(agreement)) = (report.one_caller, &report.agreement) else {
            return false;
        };
        if let Some(refusal) = self.goal.refusal(report.precision, agreement) {
            self.reports[at].refusal = Some(refusal);
            return at == self.reference;
        }
        let fair = |other: &&CandidateReport| {
            let is_fair = |agreement| self.goal.refusal(other.precision, agreement).is_none();
            other.precision == report.precision && other.agreement.as_deref().is_some_and(is_fair)
        };
        let best = self.reports.iter().filter(fair).filter_map(|other| other.one_caller).min();
        let slower = one_caller.as_secs_f64() / best.unwrap_or(one_caller).as_secs_f64().max(1e-9);
        if slower > TOO_SLOW && at != self.reference {
            self.reports[at].times_slower = Some(slower);
            return false;
        }
        true
    }

    /// Leaves out what there is no time for. The quickest of each precision stays, and so does the reference.
    fn in_time(&mut self, mut going_on: Vec<usize>) -> Vec<usize> {
        let one_caller = |at: usize| self.reports[at].one_caller.unwrap_or_default();
        going_on.sort_by_key(|&at| one_caller(at));
        let mut left = self.plan.budget.saturating_sub(self.elapsed());
        let (mut stays, mut precisions, mut out) = (Vec::new(), Vec::new(), Vec::new());
        for at in going_on {
            let report = &self.reports[at];
            let is_quickest = !precisions.contains(&report.precision);
            let cost = self.cost(at);
            if is_quickest || at == self.reference || cost <= left {
                precisions.push(report.precision);
                stays.push(at);
                left = left.saturating_sub(cost);
            } else {
                out.push(format!("{} {}", report.engine, report.precision));
            }
        }
        if !out.is_empty() {
            let out = out.join(", ");
            self.notes.push(format!("for lack of time not measured under all settings: {out}"));
        }
        stays.sort_unstable();
        stays
    }

    /// About how long loading a candidate under all settings and running everything twice takes.
    fn cost(&self, at: usize) -> Duration {
        let one_caller = self.reports[at].one_caller.unwrap_or_default();
        let load =
            self.measured.iter().find(|one| one.candidate == at).map(|one| one.load_time).unwrap_or_default();
        let rows: usize = self.sizes_of(at).into_iter().map(NonZeroUsize::get).sum();
        let runs = one_caller.saturating_mul(u32::try_from(rows * 2).unwrap_or(u32::MAX));
        (load + runs).saturating_mul(u32::try_from(self.plan.sharings.len()).unwrap_or(u32::MAX))
    }

    /// Measures what is left under every way to share the cores and every batch size.
    fn measure_all(&mut self, feed: &Feed) {
        let going_on: Vec<usize> = (0..self.candidates.len()).filter(|&at| self.goes_on(at)).collect();
        let going_on = self.in_time(going_on);
        self.kept.retain(|loaded| going_on.contains(&loaded.candidate));
        let mut wanted: Vec<(usize, Sharing)> = Vec::new();
        for &sharing in &self.plan.sharings {
            wanted.extend(going_on.iter().map(|&at| (at, sharing)));
        }
        let batches: BTreeMap<NonZeroUsize, Vec<Batch>> = match feed.is_joinable() {
            true => self.plan.batch_sizes.iter().map(|&rows| (rows, feed.batches(rows))).collect(),
            false => self.plan.batch_sizes.iter().take(1).map(|&rows| (rows, feed.batches(rows))).collect(),
        };
        let n_wanted = wanted.len();
        (self.observe)(Event::Stage { name: "loading", n_steps: n_wanted });
        let mut done = 0;
        while !wanted.is_empty() {
            let group = self.load_group(&mut wanted, &batches);
            if !wanted.is_empty() {
                self.notes.retain(|note| note != GROUPS);
                self.notes.push(GROUPS.to_owned());
            }
            // A group has its share of the time that is left.
            done = (n_wanted - wanted.len()).max(done + 1);
            let left = self.plan.budget.saturating_sub(self.elapsed());
            let share = (group.len().max(1)) as f64 / (group.len() + wanted.len()).max(1) as f64;
            self.measure_group(group, &batches, left.mul_f64(share));
        }
    }

    /// Loads models until memory is used up, at least one.
    fn load_group(
        &mut self,
        wanted: &mut Vec<(usize, Sharing)>,
        batches: &BTreeMap<NonZeroUsize, Vec<Batch>>,
    ) -> Vec<Loaded> {
        let mut group = Vec::<Loaded>::new();
        let mut n_bytes = 0u64;
        while let Some(&(at, sharing)) = wanted.first() {
            let known = self.reports[at].footprint_about(&self.measured);
            if !group.is_empty() && n_bytes.saturating_add(known) > self.plan.max_loaded_bytes {
                break;
            }
            wanted.remove(0);
            self.step(at, &format!("load for {} threads, {} lanes", sharing.threads, sharing.lanes));
            let is_kept = |loaded: &Loaded| (loaded.candidate, loaded.sharing) == (at, sharing);
            let loaded = match self.kept.iter().position(is_kept) {
                Some(kept) => Ok(self.kept.swap_remove(kept)),
                None => self.load(at, sharing),
            };
            match loaded.and_then(|loaded| self.warm_up(loaded, batches)) {
                Ok(loaded) => {
                    n_bytes = n_bytes.saturating_add(loaded.footprint.map_or(known, Footprint::total));
                    group.push(loaded);
                }
                Err(reason) => self.fail(at, Some(sharing), None, reason),
            }
        }
        group
    }

    /// Runs one batch of every size, and looks at the answers: joined requests must get what they get alone. A size that
    /// fails is left out.
    fn warm_up(
        &mut self,
        mut loaded: Loaded,
        batches: &BTreeMap<NonZeroUsize, Vec<Batch>>,
    ) -> Result<Loaded, String> {
        let mut agreement = Agreement::default();
        loaded.mark(self.meter);
        for rows in self.sizes_of(loaded.candidate) {
            let Some(first) = batches.get(&rows).and_then(|batches| batches.first()) else { continue };
            match compare_one(&mut loaded, first, &mut agreement) {
                Ok(()) => loaded.sizes.push(rows),
                Err(reason) => self.fail(loaded.candidate, Some(loaded.sharing), Some(rows), reason),
            }
        }
        self.settle(&mut loaded);
        let known = &mut self.reports[loaded.candidate].agreement;
        Arc::make_mut(known.get_or_insert_default()).widen(&agreement);
        Ok(loaded)
    }

    fn sizes_of(&self, candidate: usize) -> Vec<NonZeroUsize> {
        self.plan.batches_for(self.reports[candidate].one_caller.unwrap_or_default())
    }

    fn report(self) -> Report {
        let Driver { mut measured, mut reports, failures, notes, reference, goal, .. } = self;
        for report in &mut reports {
            let agreement = report.agreement.as_deref();
            // Joined requests may have told more than single ones.
            report.refusal = agreement.and_then(|agreement| goal.refusal(report.precision, agreement));
        }
        for one in &mut measured {
            if let Some(agreement) = &reports[one.candidate].agreement {
                one.agreement = Arc::clone(agreement);
            }
        }
        measured.sort_by_key(|one| (one.candidate, one.sharing, one.batch));
        let choice = choose(&measured, goal);
        Report { reference, candidates: reports, measured, choice, failures, notes }
    }
}

const GROUPS: &str = "there is not enough memory to load everything together; it was measured in groups";

/// Runs one batch, and adds how far its answers are from the expected.
fn compare_one(loaded: &mut Loaded, batch: &Batch, agreement: &mut Agreement) -> Result<(), String> {
    let bound = loaded.bind(std::slice::from_ref(batch)).map_err(|error| error.to_string())?;
    for bound in &bound {
        let answers = trial::answer(loaded, bound).map_err(|error| error.to_string())?;
        let signature = &loaded.model.signatures()[bound.signature];
        agreement.add(signature, &batch.expected, &answers)?;
    }
    Ok(())
}

/// One request to a model whose signatures may lie elsewhere than the reference's.
fn ask(
    loaded: &mut Loaded,
    signatures: &[Arc<Signature>],
    request: &Request,
) -> Result<Vec<salver_tensor::Tensor>, String> {
    let name = &request.signature;
    let reference = signatures.iter().find(|signature| signature.name() == name);
    let reference = reference.ok_or_else(|| format!("no signature '{name}'"))?;
    let (at, signature) = loaded.signature(reference).map_err(|error| error.to_string())?;
    if signature.keeps_state() {
        return Err(format!("signature '{name}' keeps state, which a run would change"));
    }
    let n_outputs = signature.outputs().len();
    let inputs = request.inputs.clone();
    let batch = Batch { signature: Arc::clone(name), inputs, expected: Vec::new(), n_rows: 1 };
    let bound = Bound { batch: &batch, signature: at, outputs: (0..n_outputs).collect() };
    trial::answer(loaded, &bound).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests;
