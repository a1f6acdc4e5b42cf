//! Answers: right ones, the same in every company, or a refusal.

use std::sync::Arc;

use bytes::Bytes;
use salver_engine::{Engine, Error, ErrorKind, LoadOptions, Model, Session};
use salver_tensor::{DType, Shape, Tensor};

use super::elements::difference;
use super::fixture::{Case, Fixture};
use super::{Capabilities, Failures, Refusal, Verdict};

/// How far the answer for a row may differ with the company that it is computed in: other batch sizes take other
/// paths through an engine's kernels.
pub(super) const COMPANY: f64 = 2e-6;

fn load(engine: &dyn Engine, fixture: &Fixture) -> Result<Arc<dyn Model>, Error> {
    let Some(source) = fixture.source_for(engine) else {
        return Err(Error::new(ErrorKind::NotFound, "not there in a form that the engine reads"));
    };
    engine.load(&source, &LoadOptions::default())
}

/// A model that every engine runs.
pub(super) fn load_named(
    engine: &dyn Engine,
    name: &str,
    failures: &mut Failures,
) -> Option<(Fixture, Arc<dyn Model>)> {
    let fixture = Fixture::read(name);
    match load(engine, &fixture) {
        Ok(model) => Some((fixture, model)),
        Err(error) => {
            failures.add(format!("{name}: {error}"));
            None
        }
    }
}

/// Inputs in the signature's order.
pub(super) fn inputs(model: &dyn Model, case: &Case) -> Vec<Tensor> {
    let signature = &model.signatures()[0];
    let named =
        |name: &str| case.inputs.iter().find(|(known, _)| known == name).map(|(_, tensor)| tensor.clone());
    signature.inputs().iter().map(|spec| named(&spec.name).expect("the fixture has all inputs")).collect()
}

/// Expected outputs in the signature's order.
pub(super) fn expected(model: &dyn Model, case: &Case) -> Vec<Tensor> {
    let signature = &model.signatures()[0];
    let named =
        |name: &str| case.outputs.iter().find(|(known, _)| known == name).map(|(_, tensor)| tensor.clone());
    signature.outputs().iter().map(|spec| named(&spec.name).expect("the fixture has all outputs")).collect()
}

pub(super) fn run_all(
    model: &dyn Model,
    session: &mut dyn Session,
    inputs: &[Tensor],
) -> Result<Vec<Tensor>, Error> {
    let outputs: Vec<usize> = (0..model.signatures()[0].outputs().len()).collect();
    session.run(0, inputs, &outputs)
}

pub(super) fn compare(
    what: &str,
    got: &[Tensor],
    expected: &[Tensor],
    tolerance: f64,
    failures: &mut Failures,
) {
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
    let refusal = capabilities.refusal(name);
    let model = match (load(engine, fixture), refusal) {
        (Ok(model), None | Some(Refusal::InRuns)) => model,
        (Ok(_), Some(_)) => return failures.add(format!("{name}: loads, expected a refusal")),
        (Err(error), Some(Refusal::AtLoad)) if error.kind() == ErrorKind::Unsupported => return,
        (Err(_), Some(Refusal::NoModel)) if fixture.source_for(engine).is_none() => return,
        (Err(error), _) => {
            return failures.add(format!("{name}: refused to load as {:?}: {error}", error.kind()));
        }
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
                if refusal != Some(Refusal::InRuns) {
                    failures.add(format!("{name}: {error}"));
                }
            }
            Err(error) => failures.add(format!("{name}: {:?}: {error}", error.kind())),
        }
    }
    if refusal == Some(Refusal::InRuns) && n_refused == 0 {
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

/// Outputs come as asked for: some of them, in any order, more than once, or none.
pub(super) fn outputs_in_any_order(engine: &dyn Engine, failures: &mut Failures) {
    let Some((fixture, model)) = load_named(engine, "ports", failures) else { return };
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

/// Inputs that a caller should not have let through give errors that blame them, and do no harm to the session.
pub(super) fn inputs_that_do_not_fit(engine: &dyn Engine, failures: &mut Failures) {
    let Some((fixture, model)) = load_named(engine, "mlp", failures) else { return };
    let Ok(mut session) = model.session() else { return };
    let zeros = |dtype: DType, dims: &[usize]| {
        let shape = Shape::new(dims).expect("small");
        let n_bytes = shape.n_elements() * dtype.size().expect("numbers");
        Tensor::from_bytes(dtype, shape, Bytes::from(vec![0; n_bytes])).expect("as many bytes as asked for")
    };
    let texts = Tensor::from_strings(Shape::new(&[1, 4]).expect("small"), vec![Bytes::new(); 4]);
    let cases = [
        ("too many columns", vec![zeros(DType::F32, &[2, 5])]),
        ("too few columns", vec![zeros(DType::F32, &[2, 3])]),
        ("no columns", vec![zeros(DType::F32, &[2, 0])]),
        ("too low a rank", vec![zeros(DType::F32, &[4])]),
        ("too high a rank", vec![zeros(DType::F32, &[1, 2, 4])]),
        ("a scalar", vec![zeros(DType::F32, &[])]),
        ("int32", vec![zeros(DType::I32, &[2, 4])]),
        ("float64", vec![zeros(DType::F64, &[2, 4])]),
        ("complex64", vec![zeros(DType::C64, &[2, 4])]),
        ("texts", vec![texts.expect("as many as asked for")]),
        ("no inputs", vec![]),
        ("two inputs", vec![zeros(DType::F32, &[2, 4]), zeros(DType::F32, &[2, 4])]),
    ];
    let (good, answer) = (inputs(&*model, &fixture.cases[0]), expected(&*model, &fixture.cases[0]));
    for (what, inputs) in cases {
        match run_all(&*model, &mut *session, &inputs) {
            Ok(_) => failures.add(format!("mlp with {what}: an answer")),
            Err(error) if error.kind() == ErrorKind::InvalidInput => {}
            Err(error) => failures.add(format!("mlp with {what}: {:?}: {error}", error.kind())),
        }
        match run_all(&*model, &mut *session, &good) {
            Ok(got) => compare(&format!("mlp after {what}"), &got, &answer, fixture.tolerance, failures),
            Err(error) => failures.add(format!("mlp after {what}: {error}")),
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
