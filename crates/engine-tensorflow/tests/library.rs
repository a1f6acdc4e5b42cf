//! Finding and loading TensorFlow's libraries: one process, one attempt after the other.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "tensorflow/engine.rs"]
#[allow(dead_code, reason = "shared with the other tests")]
mod engine;

use std::os::unix::fs::symlink;
use std::path::Path;

use salver_engine::{Engine, ErrorKind, Library};
use salver_engine_tensorflow::{TESTED, TensorFlowEngine, version};

const FRAMEWORK: &str = "libtensorflow_framework.so.2";
const MAIN: &str = "libtensorflow_cc.so.2";

#[test]
fn what_is_wrong_is_said_and_a_later_load_tries_again() {
    let Some(good) = engine::library() else { return };
    let folder = tempfile::tempdir().unwrap();
    let at = |folder: &Path| TensorFlowEngine::new(Library::at(folder));
    let check = |folder: &Path, place: &Path, text: &str| {
        assert!(at(folder).is_present());
        let error = engine::load(&at(folder), &engine::own("text")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        let (error, place) = (error.to_string(), place.display());
        assert!(error.starts_with(&format!("{place}: TensorFlow cannot be loaded: ")), "{error}");
        assert!(error.contains(text) && !error.contains('\n'), "{error}");
        let expected = format!("(expected {FRAMEWORK} and {MAIN} of TensorFlow {})", TESTED[0]);
        assert!(error.ends_with(&expected), "{error}");
        assert_eq!(version(), None);
    };
    let [framework, main] = [FRAMEWORK, MAIN].map(|name| folder.path().join(name));
    let missing = folder.path().join("nothing");
    check(&missing, &missing, "No such file or directory");
    check(folder.path(), &framework, "No such file or directory");
    // The first megabyte of it.
    let head = std::fs::read(good.join(FRAMEWORK)).unwrap()[..1 << 20].to_vec();
    std::fs::write(&framework, head).unwrap();
    check(folder.path(), &framework, "the file is cut off: 1048576 bytes");
    std::fs::write(&framework, b"<html>not found</html>".repeat(10)).unwrap();
    check(folder.path(), &framework, "not a shared library");
    std::fs::remove_file(&framework).unwrap();
    symlink(good.join(FRAMEWORK), &framework).unwrap();
    check(folder.path(), &main, "No such file or directory");
    // A library, and another one.
    let other = good.join(FRAMEWORK);
    symlink(&other, &main).unwrap();
    check(folder.path(), &main, "TF_");

    let model = engine::load(&at(&good), &engine::own("text")).unwrap();
    assert_eq!(version().as_deref(), Some(TESTED[0]));
    let error = engine::load(&at(folder.path()), &engine::own("text")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    let expected = format!("TensorFlow {} is loaded from {} already", TESTED[0], good.display());
    assert!(error.to_string().starts_with(&expected), "{error}");
    assert!(error.to_string().contains(&folder.path().display().to_string()), "{error}");
    drop(model);
    assert!(engine::load(&at(&good), &engine::own("text")).is_ok());
}
