//! Answers: right ones, the same in every company, or a refusal.

use std::num::NonZeroUsize;
use std::sync::Arc;

use bytes::Bytes;
use salver_engine::{Engine, Error, ErrorKind, LoadOptions, Model, Session};
use salver_tensor::{DType, Shape, Tensor};

use super::fixture::{Case, Fixture, difference};
use super::{Capabilities, Failures, Verdict};

/// How far the answer for a row may differ with the company that it is computed in: other batch sizes take other
/// paths through an engine's kernels.
const COMPANY: f64 = 2e-6;

fn load(engine: &dyn Engine, fixture: &Fixture) -> Result<Arc<dyn Model>, Error> {
    engine.load(&fixture.source(), &LoadOptions::default())
}

/// Inputs in the signature's order.
fn inputs(model: &dyn Model, case: &Case) -> Vec<Tensor> {
    let signature = &model.signatures()[0];
    let named =
        |name: &str| case.inputs.iter().find(|(known, _)| known == name).map(|(_, tensor)| tensor.clone());
    signature.inputs().iter().map(|spec| named(&spec.name).expect("the fixture has all inputs")).collect()
}

/// Expected outputs in the signature's order.
fn expected(model: &dyn Model, case: &Case) -> Vec<Tensor> {
    let signature = &model.signatures()[0];
    let named =
        |name: &str| case.outputs.iter().find(|(known, _)| known == name).map(|(_, tensor)| tensor.clone());
    signature.outputs().iter().map(|spec| named(&spec.name).expect("the fixture has all outputs")).collect()
}

fn run_all(model: &dyn Model, session: &mut dyn Session, inputs: &[Tensor]) -> Result<Vec<Tensor>, Error> {
    let outputs: Vec<usize> = (0..model.signatures()[0].outputs().len()).collect();
    session.run(0, inputs, &outputs)
}

fn compare(what: &str, got: &[Tensor], expected: &[Tensor], tolerance: f64, failures: &mut Failures) {
    if got.len() != expected.len() {
        failures.add(format!("{what}: {} outputs, expected {}", got.len(), expected.len()));
    }
    for (at, (got, expected)) in got.iter().zip(expected).enumerate() {
        match difference(got, expected) {
            Some(far) if far <= tolerance => {}
            Some(far) => {
                failures.add(format!("{what}: output {at} is off by {far:e}, allowed {tolerance:e}"))
            }
            None => failures.add(format!("{what}: output {at} is {got:?}, expected {expected:?}")),
        }
    }
}

/// Loads a fixture and runs its cases, whole, row by row, turned around, unaligned and with no rows at all.
pub(super) fn answers(
    engine: &dyn Engine,
    capabilities: &Capabilities,
    fixture: &Fixture,
    failures: &mut Failures,
) {
    let name = fixture.name.as_str();
    let model = match (load(engine, fixture), capabilities.refused_at_load.contains(&name)) {
        (Ok(model), false) => model,
        (Ok(_), true) => return failures.add(format!("{name}: loads, expected a refusal")),
        (Err(error), false) => return failures.add(format!("{name}: {error}")),
        (Err(error), true) if error.kind() == ErrorKind::Unsupported => return,
        (Err(error), true) => return failures.add(format!("{name}: refused as {:?}: {error}", error.kind())),
    };
    let mut session = match model.session() {
        Ok(session) => session,
        Err(error) => return failures.add(format!("{name}: no session: {error}")),
    };
    let mut n_refused = 0;
    for case in &fixture.cases {
        let (inputs, expected) = (inputs(&*model, case), expected(&*model, case));
        match run_all(&*model, &mut *session, &inputs) {
            Ok(got) => {
                compare(name, &got, &expected, fixture.tolerance, failures);
                in_company(fixture, &*model, &mut *session, &inputs, &got, failures);
            }
            Err(error) if error.kind() == ErrorKind::InvalidInput => {
                n_refused += 1;
                if !capabilities.refused_in_runs.contains(&name) {
                    failures.add(format!("{name}: {error}"));
                }
            }
            Err(error) => failures.add(format!("{name}: {:?}: {error}", error.kind())),
        }
    }
    if capabilities.refused_in_runs.contains(&name) && n_refused == 0 {
        failures.add(format!("{name}: all cases are answered, expected a refusal"));
    }
}

fn in_company(
    fixture: &Fixture,
    model: &dyn Model,
    session: &mut dyn Session,
    inputs: &[Tensor],
    whole: &[Tensor],
    failures: &mut Failures,
) {
    let name = &fixture.name;
    let unaligned: Vec<_> = inputs.iter().map(shifted).collect();
    match run_all(model, session, &unaligned) {
        Ok(got) => compare(&format!("{name} unaligned"), &got, whole, 0.0, failures),
        Err(error) => failures.add(format!("{name} unaligned: {error}")),
    }
    let n_rows = inputs.first().and_then(|tensor| tensor.shape().n_rows());
    let Some(n_rows) = n_rows.filter(|_| fixture.has_rows) else { return };
    let tolerance = if fixture.tolerance == 0.0 { 0.0 } else { COMPANY.max(fixture.tolerance / 100.0) };
    let row =
        |tensors: &[Tensor], at: usize| tensors.iter().map(|t| t.rows(at, 1)).collect::<Option<Vec<_>>>();
    for at in 0..n_rows {
        let (Some(one), Some(expected)) = (row(inputs, at), row(whole, at)) else {
            return failures.add(format!("{name}: outputs have fewer rows than inputs"));
        };
        match run_all(model, session, &one) {
            Ok(got) => compare(&format!("{name} row {at}"), &got, &expected, tolerance, failures),
            Err(error) => failures.add(format!("{name} row {at}: {error}")),
        }
    }
    let (turned, expected) = (reversed(inputs, n_rows), reversed(whole, n_rows));
    match run_all(model, session, &turned) {
        Ok(got) => compare(&format!("{name} turned around"), &got, &expected, tolerance, failures),
        Err(error) => failures.add(format!("{name} turned around: {error}")),
    }
    no_rows(fixture, model, session, inputs, failures);
}

/// No rows give no rows, or an error that blames the input.
fn no_rows(
    fixture: &Fixture,
    model: &dyn Model,
    session: &mut dyn Session,
    inputs: &[Tensor],
    failures: &mut Failures,
) {
    let name = &fixture.name;
    let none: Vec<_> = inputs.iter().filter_map(|tensor| tensor.rows(0, 0)).collect();
    match run_all(model, session, &none) {
        Ok(got) => {
            if got.iter().any(|tensor| tensor.shape().n_rows() != Some(0)) {
                failures.add(format!("{name} without rows: got {got:?}"));
            }
        }
        Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Internal) => {}
        Err(error) => failures.add(format!("{name} without rows: {:?}: {error}", error.kind())),
    }
}

fn reversed(tensors: &[Tensor], n_rows: usize) -> Vec<Tensor> {
    let turn = |tensor: &Tensor| {
        let rows: Vec<_> = (0..n_rows).rev().filter_map(|at| tensor.rows(at, 1)).collect();
        Tensor::concat(&rows).expect("rows of one tensor fit each other")
    };
    tensors.iter().map(turn).collect()
}

/// The same tensor at an odd address.
fn shifted(tensor: &Tensor) -> Tensor {
    let Some(bytes) = tensor.bytes() else { return tensor.clone() };
    let mut padded = vec![0u8; bytes.len() + 17];
    let start = (0..16).find(|start| (padded.as_ptr() as usize + start) % 2 == 1).unwrap_or(1);
    padded[start..start + bytes.len()].copy_from_slice(bytes);
    let bytes = Bytes::from(padded).slice(start..start + bytes.len());
    Tensor::from_bytes(tensor.dtype(), tensor.shape().clone(), bytes).expect("as many bytes as before")
}

/// Sessions of one model on several threads, inside the engine's own threads and outside, agree.
pub(super) fn together(engine: &dyn Engine, failures: &mut Failures) {
    let fixture = Fixture::read("mlp");
    let Ok(model) = load(engine, &fixture) else { return };
    let inputs = inputs(&*model, &fixture.cases[0]);
    let entered = (0..4).map(|at| at % 2 == 0);
    let answers: Vec<_> = std::thread::scope(|scope| {
        let run = |entered| {
            let (model, inputs) = (&*model, &inputs);
            scope.spawn(move || many(model, inputs, entered))
        };
        let threads: Vec<_> = entered.map(run).collect();
        threads.into_iter().map(|thread| thread.join().expect("sessions do not panic")).collect()
    });
    for answers in answers {
        match answers {
            Ok(answers) if answers.iter().all(|got| got == &answers[0]) => {
                compare("mlp on threads", &answers[0], &expected(&*model, &fixture.cases[0]), 1e-5, failures);
            }
            Ok(_) => failures.add("mlp on threads: answers differ".into()),
            Err(error) => failures.add(format!("mlp on threads: {error}")),
        }
    }
}

fn many(model: &dyn Model, inputs: &[Tensor], entered: bool) -> Result<Vec<Vec<Tensor>>, Error> {
    let mut answers = Ok(Vec::new());
    let mut body = || {
        assert_eq!(model.is_entered(), entered, "a thread knows whether it is entered");
        answers = (|| {
            let mut session = model.session()?;
            (0..50).map(|_| run_all(model, &mut *session, inputs)).collect()
        })();
    };
    if entered {
        model.enter(NonZeroUsize::MIN, &mut body);
    } else {
        body();
    }
    answers
}

/// Outputs come as asked for: some of them, in any order, more than once, or none.
pub(super) fn outputs_in_any_order(engine: &dyn Engine, failures: &mut Failures) {
    let fixture = Fixture::read("ports");
    let Ok(model) = load(engine, &fixture) else { return };
    let Ok(mut session) = model.session() else { return };
    let (inputs, all) = (inputs(&*model, &fixture.cases[0]), expected(&*model, &fixture.cases[0]));
    for wanted in [&[2, 0][..], &[1], &[1, 1, 0], &[]] {
        let expected: Vec<_> = wanted.iter().map(|&at: &usize| all[at].clone()).collect();
        match session.run(0, &inputs, wanted) {
            Ok(got) => compare(&format!("ports {wanted:?}"), &got, &expected, 1e-6, failures),
            Err(error) => failures.add(format!("ports {wanted:?}: {error}")),
        }
    }
}

/// Inputs that a caller should not have let through give errors that blame them.
pub(super) fn inputs_that_do_not_fit(engine: &dyn Engine, failures: &mut Failures) {
    let fixture = Fixture::read("mlp");
    let Ok(model) = load(engine, &fixture) else { return };
    let Ok(mut session) = model.session() else { return };
    let zeros = |dtype: DType, dims: &[usize]| {
        let shape = Shape::new(dims).expect("small");
        let n_bytes = shape.n_elements() * dtype.size().expect("numbers");
        Tensor::from_bytes(dtype, shape, Bytes::from(vec![0; n_bytes])).expect("as many bytes as asked for")
    };
    let cases = [
        ("too many columns", vec![zeros(DType::F32, &[2, 5])]),
        ("wrong rank", vec![zeros(DType::F32, &[4])]),
        ("wrong element type", vec![zeros(DType::I32, &[2, 4])]),
        ("no inputs", vec![]),
    ];
    for (what, inputs) in cases {
        match run_all(&*model, &mut *session, &inputs) {
            Ok(_) => failures.add(format!("mlp with {what}: an answer")),
            Err(error) if error.kind() == ErrorKind::InvalidInput => {}
            Err(error) => failures.add(format!("mlp with {what}: {:?}: {error}", error.kind())),
        }
    }
}

/// Runs the cases of a fixture and nothing else.
pub(super) fn verdict(engine: &dyn Engine, fixture: &Fixture) -> Verdict {
    let mut failures = Failures::default();
    let mut run = || -> Result<(), Error> {
        let model = load(engine, fixture)?;
        let mut session = model.session()?;
        for case in &fixture.cases {
            let got = run_all(&*model, &mut *session, &inputs(&*model, case))?;
            compare("answer", &got, &expected(&*model, case), fixture.tolerance, &mut failures);
        }
        Ok(())
    };
    match run() {
        Err(error) => Verdict::Refused(error),
        Ok(()) => match failures.into_lines().as_slice() {
            [] => Verdict::Right,
            lines => Verdict::Wrong(lines.join("; ")),
        },
    }
}
