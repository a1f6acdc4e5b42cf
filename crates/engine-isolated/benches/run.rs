//! What a run costs in a process of its own, beside the same run in this process. The worker is this program, told so by an
//! argument.

use std::hint::black_box;
use std::num::NonZeroUsize;
use std::process::{Command, ExitCode};
use std::sync::Arc;

use criterion::Criterion;
use salver_engine::{Engine, LoadOptions, Model, ModelSource, Registry, Session};
use salver_engine_isolated::{IsolatedEngine, Spawn, serve};
use salver_engine_rten::RtenEngine;
use salver_tensor::{Shape, Tensor};
use salver_testkit::conformance::Fixture;
use salver_testkit::puppet::{FnModel, PuppetEngine, half_plus_two_signature};

const WORKER: &str = "engine-worker";

fn main() -> ExitCode {
    if std::env::args().nth(1).is_some_and(|argument| argument == WORKER) {
        return serve(&Registry::new(vec![Arc::new(RtenEngine::new()), Arc::new(nothing())]));
    }
    let mlp = Fixture::read("mlp").source();
    compare("mlp", Arc::new(RtenEngine::new()), &mlp, &floats(&[1, 4]));
    for n_bytes in [16, 16_000, 600_000, 6_000_000] {
        let name = format!("{n_bytes} bytes in, 4 out");
        compare(&name, Arc::new(nothing()), &mlp, &floats(&[n_bytes / 4]));
    }
    ExitCode::SUCCESS
}

/// An engine that computes nothing: what its runs cost is the way there and back.
fn nothing() -> PuppetEngine {
    let answer = floats(&[1]);
    PuppetEngine::of(FnModel::new(half_plus_two_signature(), move |_| Ok(vec![answer.clone()])))
}

fn floats(dims: &[usize]) -> Tensor {
    let shape = Shape::new(dims).expect("small");
    let elements = vec![0.5f32; shape.n_elements()];
    Tensor::from_vec(shape, elements).expect("as many elements as the shape has")
}

fn compare(name: &str, inner: Arc<dyn Engine>, source: &ModelSource, input: &Tensor) {
    let spawn = Spawn::new(|what| {
        let mut command = Command::new(std::env::current_exe()?);
        command.args([WORKER, what]);
        Ok(command)
    });
    let options = LoadOptions::default();
    let here = inner.load(source, &options).expect("the model loads");
    let apart = IsolatedEngine::new(inner, spawn).load(source, &options).expect("the model loads");
    measure(&format!("{name}/in process"), &*here, input);
    measure(&format!("{name}/in a process of its own"), &*apart, input);
}

fn measure(name: &str, model: &dyn Model, input: &Tensor) {
    model.enter(NonZeroUsize::MIN, &mut || {
        // Criterion does not cross threads, and an engine may enter another one.
        let mut criterion = Criterion::default().configure_from_args();
        let mut session = model.session().expect("a session");
        criterion.bench_function(name, |b| b.iter(|| run(&mut *session, input)));
    });
}

fn run(session: &mut dyn Session, input: &Tensor) {
    black_box(session.run(0, std::slice::from_ref(input), &[0])).expect("the model takes this input");
}
