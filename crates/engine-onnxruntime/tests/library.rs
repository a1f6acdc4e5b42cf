//! Finding and loading the library: what is wrong is said, and a later load tries again. All of it is one test, because a
//! process has one library.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking and may say what it did"
)]

use std::path::Path;

use salver_engine::{Engine, Error, ErrorKind, Format, Library, LoadOptions, ModelSource};
use salver_engine_onnxruntime::OnnxRuntimeEngine;
use salver_testkit::conformance::Fixture;

#[path = "engine/native.rs"]
mod native;

fn load(library: Library) -> Result<(), Error> {
    let source = Fixture::read("mlp").source();
    OnnxRuntimeEngine::new(library).load(&source, &LoadOptions::default()).map(drop)
}

fn load_at(folder: &Path) -> Result<(), Error> {
    load(Library::at(folder))
}

const NAME: &str = "libonnxruntime.so";

#[test]
fn a_library_that_cannot_be_loaded_is_described_and_tried_again() {
    let Some(folder) = native::folder() else { return };
    let whole = std::fs::read_dir(&folder).unwrap().flatten().map(|entry| entry.path());
    let whole = whole.into_iter().find(|path| path.to_string_lossy().contains("libonnxruntime.so")).unwrap();
    let bytes = std::fs::read(&whole).unwrap();
    let other = std::fs::read(folder.join("libonnxruntime_providers_shared.so")).unwrap();
    let mut foreign = bytes[..4096].to_vec();
    foreign[18] = 22;
    let cases: &[(&str, &[u8], &str)] = &[
        (
            "missing.txt",
            b"",
            "no ONNX Runtime here, expected a file libonnxruntime.so or one with its version",
        ),
        (NAME, b"", "it is too short for a shared library"),
        (
            NAME,
            b"a text of more than sixty-four letters, which is nothing that can be loaded",
            "it is not a 64-bit",
        ),
        (NAME, &bytes[..bytes.len() / 2], "it is cut off"),
        (NAME, &bytes[..2000], "it is cut off"),
        (NAME, &foreign, "it is for s390x, expected"),
        (NAME, &other, "it has no function 'OrtGetApiBase'"),
    ];
    let temporary = tempfile::tempdir().unwrap();
    for (at, (name, content, expected)) in cases.iter().enumerate() {
        let folder = temporary.path().join(at.to_string());
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join(name), content).unwrap();
        let error = load_at(&folder).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        let text = error.to_string();
        assert!(text.contains(expected), "{text}, expected {expected}");
        assert!(text.contains(&*folder.to_string_lossy()), "{text}, expected the path");
    }
    let none = || Library::new(|| Err(Error::new(ErrorKind::Unsupported, "run: salver runtime install")));
    assert!(!OnnxRuntimeEngine::new(none()).is_present());
    assert_eq!(load(none()).unwrap_err().to_string(), "run: salver runtime install");

    assert!(OnnxRuntimeEngine::new(native::library().unwrap()).is_present());
    load_at(&folder).unwrap();
    load_at(&folder).unwrap();
    let second = temporary.path().join("second");
    std::fs::create_dir(&second).unwrap();
    std::fs::write(second.join(NAME), &bytes).unwrap();
    let text = load_at(&second).unwrap_err().to_string();
    assert!(text.contains("this process has loaded") && text.contains(&*folder.to_string_lossy()), "{text}");
}

#[test]
fn formats_and_precisions_that_are_not_its_own_are_refused_before_the_library_is_looked_for() {
    let engine = OnnxRuntimeEngine::new(Library::new(|| panic!("the library is not needed")));
    let source = ModelSource { path: "a.pb".into(), format: Format::FrozenGraph };
    assert!(engine.supports(Format::Onnx) && !engine.supports(Format::FrozenGraph));
    let error = engine.load(&source, &LoadOptions::default()).unwrap_err();
    assert_eq!(error.to_string(), "a.pb: a frozen TensorFlow graph is not a format of ONNX Runtime");
}
