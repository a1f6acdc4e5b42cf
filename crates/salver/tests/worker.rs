//! The program as the worker of an isolated engine.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "tests")]

use std::process::{Command, Stdio};
use std::sync::Arc;

use salver_engine::{Engine, ErrorKind, Format, LoadOptions, ModelSource};
use salver_engine_isolated::{IsolatedEngine, Spawn};
use salver_engine_rten::RtenEngine;
use salver_tensor::{DType, Shape, Tensor};
use salver_testkit::conformance::Fixture;

fn engine() -> IsolatedEngine {
    let spawn = Spawn::new(|what| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_salver"));
        command.args(["engine-worker", "--log_format=json", "--log_level=warn", "--", what]);
        Ok(command)
    });
    IsolatedEngine::new(Arc::new(RtenEngine::new()), spawn)
}

#[test]
fn a_model_runs_in_a_process_of_the_program() {
    let fixture = Fixture::read("mlp");
    let model = engine().load(&fixture.source(), &LoadOptions::default()).unwrap();
    let signature = &model.signatures()[0];
    assert_eq!((signature.inputs().len(), signature.inputs()[0].dtype), (1, DType::F32));
    let input = Tensor::from_vec(Shape::new(&[1, 4]).unwrap(), vec![0.1f32, 0.2, 0.3, 0.4]).unwrap();
    let apart = model.session().unwrap().run(0, std::slice::from_ref(&input), &[0]).unwrap();
    let here = RtenEngine::new().load(&fixture.source(), &LoadOptions::default()).unwrap();
    assert_eq!(apart, here.session().unwrap().run(0, &[input], &[0]).unwrap());
}

#[test]
fn a_model_that_is_not_there_is_not_found() {
    let source = ModelSource { path: "/no/such/model.onnx".into(), format: Format::Onnx };
    let error = engine().load(&source, &LoadOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(error.location(), Some("/no/such/model.onnx"));
}

/// Nobody needs to know of the command, and one who starts it by hand sees it end.
#[test]
fn the_command_is_hidden_and_ends_without_a_server() {
    let salver = || Command::new(env!("CARGO_BIN_EXE_salver"));
    let help = salver().arg("--help").output().unwrap();
    assert!(!String::from_utf8(help.stdout).unwrap().contains("engine-worker"));
    let output = salver().args(["engine-worker", "by hand"]).stdin(Stdio::null()).output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8(output.stderr).unwrap().contains("a process of an engine: "));
}
