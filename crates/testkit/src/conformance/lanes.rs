//! Several sessions of one model: side by side, coming and going, and after the model is let go.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use salver_engine::{Engine, Error, LoadOptions, Model};
use salver_tensor::Tensor;

use super::Failures;
use super::elements::difference;
use super::fixture::Fixture;
use super::runs::{COMPANY, compare, expected, inputs, load_named, run_all};

const N_LANES: usize = 4;
const N_RUNS: usize = 50;

/// Rows of the first case, and the answers to them: other rows, and another number of them, for each lane.
fn rows(model: &dyn Model, fixture: &Fixture, lane: usize) -> (Vec<Tensor>, Vec<Tensor>) {
    let case = &fixture.cases[0];
    let take = |tensors: Vec<Tensor>| {
        let rows = |tensor: &Tensor| tensor.rows(lane, 1 + lane % 2).expect("the case has five rows");
        tensors.iter().map(rows).collect()
    };
    (take(inputs(model, case)), take(expected(model, case)))
}

/// Sessions of one model on several threads, inside the engine's own threads and outside, each with inputs of its own.
pub(super) fn together(engine: &dyn Engine, failures: &mut Failures) {
    let fixture = Fixture::read("mlp");
    let Some(source) = fixture.source_for(engine) else { return };
    let mut options = LoadOptions::default();
    options.n_lanes = NonZeroUsize::new(N_LANES).expect("more than none");
    let model = match engine.load(&source, &options) {
        Ok(model) => model,
        Err(error) => return failures.add(format!("mlp for {N_LANES} lanes: {error}")),
    };
    let lanes: Vec<_> = (0..N_LANES).map(|lane| rows(&*model, &fixture, lane)).collect();
    let answers: Vec<_> = std::thread::scope(|scope| {
        let run = |(lane, (inputs, _)): (usize, &(Vec<Tensor>, _))| {
            let (model, inputs) = (&*model, inputs.clone());
            scope.spawn(move || many(model, &inputs, lane % 2 == 0))
        };
        let threads: Vec<_> = lanes.iter().enumerate().map(run).collect();
        threads.into_iter().map(|thread| thread.join().expect("sessions do not panic")).collect()
    });
    for (answers, (_, expected)) in answers.into_iter().zip(&lanes) {
        match answers {
            Ok(answers) if answers.iter().all(|got| got == &answers[0]) => {
                compare("mlp on threads", &answers[0], expected, fixture.tolerance, failures);
            }
            Ok(_) => failures.add("mlp on threads: answers to one input differ".into()),
            Err(error) => failures.add(format!("mlp on threads: {error}")),
        }
    }
}

fn many(model: &dyn Model, inputs: &[Tensor], enters: bool) -> Result<Vec<Vec<Tensor>>, Error> {
    let mut answers = Ok(Vec::new());
    let mut body = || {
        assert!(!enters || model.is_entered(), "a thread knows that it is entered");
        answers = (|| {
            let mut session = model.session()?;
            (0..N_RUNS).map(|_| run_all(model, &mut *session, inputs)).collect()
        })();
    };
    if enters {
        model.enter(NonZeroUsize::MIN, &mut body);
    } else {
        body();
    }
    answers
}

/// A session that is given up between two batches does not disturb those that run on beside it: its lane stops, and the
/// next one begins.
pub(super) fn sessions_come_and_go(engine: &dyn Engine, failures: &mut Failures) {
    let Some((fixture, model)) = load_named(engine, "mlp", failures) else { return };
    let n_wrong = AtomicUsize::new(0);
    let check = |lane: usize, n_runs: usize| {
        let (inputs, expected) = rows(&*model, &fixture, lane);
        let Ok(mut session) = model.session() else {
            n_wrong.fetch_add(1, Ordering::Relaxed);
            return;
        };
        for _ in 0..n_runs {
            let is_right = run_all(&*model, &mut *session, &inputs).is_ok_and(|got| {
                got.iter().zip(&expected).all(|(got, expected)| {
                    difference(got, expected).is_some_and(|far| far <= COMPANY.max(fixture.tolerance))
                })
            });
            n_wrong.fetch_add(usize::from(!is_right), Ordering::Relaxed);
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| check(0, N_RUNS));
        scope.spawn(|| check(1, N_RUNS));
        scope.spawn(|| (0..N_RUNS).for_each(|at| check(2 + at % 2, 1 + at % 3)));
    });
    match n_wrong.into_inner() {
        0 => {}
        n => failures.add(format!("mlp beside sessions that come and go: {n} wrong or failed")),
    }
}

/// A model that is let go while sessions of it live is there until the last of them ends, on whatever thread.
pub(super) fn sessions_outlive_their_model(engine: &dyn Engine, failures: &mut Failures) {
    let Some((fixture, model)) = load_named(engine, "mlp", failures) else { return };
    let (inputs, expected) = rows(&*model, &fixture, 1);
    let outputs: Vec<usize> = (0..model.signatures()[0].outputs().len()).collect();
    let (Ok(mut first), Ok(mut second)) = (model.session(), model.session()) else {
        return failures.add("mlp: no two sessions".to_owned());
    };
    let weights = Arc::downgrade(&model);
    drop(model);
    let answers = std::thread::scope(|scope| {
        let (inputs, outputs) = (&inputs, &outputs);
        let other = scope.spawn(move || first.run(0, inputs, outputs));
        [second.run(0, inputs, outputs), other.join().expect("sessions do not panic")]
    });
    drop(second);
    for answer in answers {
        match answer {
            Ok(got) => compare("mlp let go", &got, &expected, fixture.tolerance, failures),
            Err(error) => failures.add(format!("mlp let go: {error}")),
        }
    }
    if weights.upgrade().is_some() {
        failures.add("mlp let go: the model is there without sessions".to_owned());
    }
}
