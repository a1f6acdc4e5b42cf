//! What a run through the engine costs beside one by the crate `ort` alone, for a model of some microseconds. Needs
//! `SALVER_RUNTIMES`.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a benchmark, run by hand")]

use std::path::Path;

use criterion::{Criterion, criterion_group, criterion_main};
use ort::session::Session;
use ort::value::TensorRef;
use salver_engine::{Engine, Library, LoadOptions};
use salver_engine_onnxruntime::{OnnxRuntimeEngine, TESTED, environment};
use salver_tensor::{Shape, Tensor};
use salver_testkit::conformance::Fixture;

fn run(c: &mut Criterion) {
    let root = std::env::var_os("SALVER_RUNTIMES").expect("SALVER_RUNTIMES is set");
    let library = Library::at(&Path::new(&root).join("onnxruntime").join(TESTED[0]));
    let fixture = Fixture::read("mlp");
    let model =
        OnnxRuntimeEngine::new(library.clone()).load(&fixture.source(), &LoadOptions::default()).unwrap();
    let mut session = model.session().unwrap();
    let name = model.signatures()[0].outputs()[0].name.clone();
    let mut direct =
        Session::builder(&environment(&library).unwrap()).unwrap().with_intra_threads(1).unwrap();
    let mut direct = direct.commit_from_file(fixture.path()).unwrap();

    let mut group = c.benchmark_group("run mlp");
    for rows in [1, 32] {
        let x = Tensor::from_vec(Shape::new(&[rows, 4]).unwrap(), vec![0.5f32; rows * 4]).unwrap();
        group.bench_function(format!("engine, {rows} rows"), |b| {
            b.iter(|| session.run(0, std::slice::from_ref(&x), &[0]).unwrap());
        });
        group.bench_function(format!("ort alone, {rows} rows"), |b| {
            b.iter(|| {
                let view =
                    TensorRef::from_array_view((x.shape().dims(), x.as_slice::<f32>().unwrap())).unwrap();
                let outputs = direct.run(ort::inputs![view]).unwrap();
                outputs[&*name].try_extract_tensor::<f32>().unwrap().1.to_vec()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, run);
criterion_main!(benches);
