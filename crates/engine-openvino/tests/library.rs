//! What loading says when the library is not there, not whole, or another one.

#![allow(clippy::unwrap_used, reason = "a test")]

mod installed;

use std::path::Path;

use salver_engine::{Engine, Error, ErrorKind, Library, LoadOptions};
use salver_engine_openvino::OpenVinoEngine;
use salver_graph::{Attributes, Builder, Dim, Graph};
use salver_tensor::DType;

fn graph() -> Graph {
    let mut b = Builder::new();
    let x = b.input("x", DType::F32, Some(vec![Dim::Unknown]));
    let y = b.op("y", "Abs", &[x], Attributes::new()).unwrap();
    b.finish(&[("y", y)]).unwrap()
}

fn load(library: Library) -> Result<(), Error> {
    OpenVinoEngine::new(library).load_graph(&graph(), &LoadOptions::default()).map(drop)
}

/// Files by the start of their names: with another content, or gone.
type Changes<'a> = &'a [(&'a str, Option<&'a [u8]>)];

/// A folder with the installation's files by link, but for some that are other files.
fn changed(real: &Path, changes: Changes<'_>) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(real).unwrap() {
        let name = entry.unwrap().file_name();
        let change = changes.iter().find(|(part, _)| name.to_str().unwrap().starts_with(part));
        let place = dir.path().join(&name);
        match change {
            None => std::os::unix::fs::symlink(real.join(&name), place).unwrap(),
            Some((_, Some(content))) => std::fs::write(place, content).unwrap(),
            Some((_, None)) => {}
        }
    }
    dir
}

/// One after the other in one process: after each failure the next load tries again, and what is loaded stays.
#[test]
fn a_library_that_is_not_right_is_told_and_tried_again() {
    let refused = || Library::new(|| Err(Error::new(ErrorKind::Unsupported, "not installed: run this")));
    assert_eq!(load(refused()).unwrap_err().to_string(), "not installed: run this");
    assert!(!OpenVinoEngine::new(refused()).is_present());

    let Some(real) = installed::folder() else { return };
    let file = |start: &str| {
        let names = std::fs::read_dir(&real).unwrap().map(|entry| entry.unwrap().path());
        let mut found = names.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(start));
        std::fs::read(found.next().unwrap()).unwrap()
    };
    let (main, tbb) = (file("libopenvino_c.so"), file("libtbb.so"));
    let half = &main[..main.len() / 2];
    let cases: &[(Changes<'_>, &str)] = &[
        (&[("libopenvino_c.so", None)], "it holds no libopenvino_c.so, which OpenVINO needs"),
        (
            &[("libopenvino_intel_cpu", None)],
            "it holds no libopenvino_intel_cpu_plugin.so, which OpenVINO needs",
        ),
        (&[("libopenvino_c.so", Some(half))], "it is cut short at"),
        (
            &[("libopenvino_c.so", Some(b"text"))],
            "it is 4 bytes long and no library, expected a library of OpenVINO 2026",
        ),
        (
            &[("libopenvino_c.so", Some(&tbb))],
            "it cannot be loaded as OpenVINO 2026.4.1: it has no function ov_",
        ),
    ];
    for (changes, expected) in cases {
        let dir = changed(&real, changes);
        let error = load(Library::at(dir.path())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        let text = error.to_string();
        assert!(text.contains(expected) && text.starts_with(dir.path().to_str().unwrap()), "{text}");
    }

    load(Library::at(&real)).unwrap();
    let other = changed(&real, &[]);
    let error = load(Library::at(other.path())).unwrap_err();
    let expected = format!("OpenVINO is already loaded from {}", real.canonicalize().unwrap().display());
    assert!(error.to_string().contains(&expected), "{error}");
    load(Library::at(&real)).unwrap();
}
