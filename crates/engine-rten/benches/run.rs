//! What one run of a tiny network costs: inside the engine's pool, as a lane runs it, and outside.

use std::hint::black_box;
use std::num::NonZeroUsize;

use criterion::{Criterion, criterion_group, criterion_main};
use salver_engine::{Engine, LoadOptions, Session};
use salver_engine_rten::RtenEngine;
use salver_tensor::{Shape, Tensor};
use salver_testkit::conformance::Fixture;

fn run(session: &mut dyn Session, input: &Tensor) {
    black_box(session.run(0, std::slice::from_ref(input), &[0])).expect("the network takes this input");
}

fn tiny_network(criterion: &mut Criterion) {
    let engine = RtenEngine::new();
    let model =
        engine.load(&Fixture::read("mlp").source(), &LoadOptions::default()).expect("the network loads");
    let mut session = model.session().expect("a session costs nothing");
    let shape = Shape::new(&[1, 4]).expect("small");
    let input = Tensor::from_vec(shape, vec![0.1f32, 0.2, 0.3, 0.4]).expect("four elements");
    let mut group = criterion.benchmark_group("mlp");
    group.bench_function("outside the pool", |b| b.iter(|| run(&mut *session, &input)));
    engine.enter(NonZeroUsize::MIN, &mut || {
        let mut session = model.session().expect("a session costs nothing");
        group_in_pool(&mut *session, &input);
    });
    group.finish();
}

/// Criterion's groups do not cross threads, and the pool's worker is another one.
fn group_in_pool(session: &mut dyn Session, input: &Tensor) {
    let mut criterion = Criterion::default().configure_from_args();
    criterion.bench_function("mlp/inside the pool", |b| b.iter(|| run(session, input)));
}

criterion_group!(benches, tiny_network);
criterion_main!(benches);
