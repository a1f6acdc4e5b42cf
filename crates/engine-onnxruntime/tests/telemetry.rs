//! The library reports nothing about this process: seen by what it leaves in the home folder of a process of its own.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking and may say what it did"
)]

use std::process::Command;

use salver_engine::{Engine, LoadOptions};
use salver_engine_onnxruntime::OnnxRuntimeEngine;
use salver_testkit::conformance::Fixture;

#[path = "engine/native.rs"]
mod native;

#[test]
#[ignore = "the other test runs it in a process of its own"]
fn load() {
    let Some(library) = native::library() else { return };
    let engine = OnnxRuntimeEngine::new(library);
    match engine.load(&Fixture::read("mlp").source(), &LoadOptions::default()) {
        Ok(model) => println!("loaded {}", model.signatures().len()),
        Err(error) => println!("refused: {error}"),
    }
}

/// The library is silent where `CI` is set, so the process gets an environment without it.
#[test]
#[expect(clippy::disallowed_methods, reason = "the process gets the folder that this one has")]
fn nothing_is_reported() {
    let Some(_) = native::library() else { return };
    let runtimes = std::env::var_os("SALVER_RUNTIMES").unwrap();
    for (variable, expected) in [
        (Some("1"), "loaded 1"),
        (None, "ONNX Runtime would report to its maker: start the process with ORT_DISABLE_TELEMETRY=1"),
    ] {
        let home = tempfile::tempdir().unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "load", "--ignored", "--nocapture"]).env_clear();
        command.env("HOME", home.path()).env("SALVER_RUNTIMES", &runtimes);
        command.envs(variable.map(|value| ("ORT_DISABLE_TELEMETRY", value)));
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains(expected), "{variable:?}: {text}, expected {expected}");
        let left: Vec<_> = std::fs::read_dir(home.path()).unwrap().flatten().map(|e| e.path()).collect();
        assert!(left.is_empty(), "{variable:?}: {left:?}");
    }
}
