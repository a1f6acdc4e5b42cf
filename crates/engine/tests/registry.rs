//! Which engine a model gets.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use salver_engine::{
    Choice, Engine, Error, ErrorKind, Format, LoadOptions, Model, ModelSource, Precision, Registry, Session,
};
use salver_tensor::Signature;

/// What an engine does with every model.
#[derive(Debug, Clone, Copy)]
enum Does {
    /// Loads all of it.
    All,
    /// Loads so many signatures and refuses one.
    Some(usize),
    /// Fails in this way.
    Fails(ErrorKind),
    /// Fails in this way at a place of its own.
    FailsAt(ErrorKind, &'static str),
}

#[derive(Debug)]
struct Fake {
    name: &'static str,
    is_present: bool,
    formats: &'static [Format],
    precisions: &'static [Precision],
    does: Does,
}

#[derive(Debug)]
struct FakeModel {
    signatures: Vec<Arc<Signature>>,
    refused: Vec<(Arc<str>, Error)>,
}

fn signature(at: usize) -> Arc<Signature> {
    Arc::new(Signature::new(at.to_string(), "predict", Vec::new(), Vec::new()))
}

impl Engine for Fake {
    fn name(&self) -> &'static str {
        self.name
    }

    fn supports(&self, format: Format) -> bool {
        self.formats.contains(&format)
    }

    fn takes(&self, format: Format, options: &LoadOptions) -> bool {
        self.supports(format) && self.precisions.contains(&options.precision)
    }

    fn is_present(&self) -> bool {
        self.is_present
    }

    fn load(&self, source: &ModelSource, _: &LoadOptions) -> Result<Arc<dyn Model>, Error> {
        let refused = || (Arc::from("odd"), Error::new(ErrorKind::Unsupported, "no operator Odd"));
        let place = source.path.display().to_string();
        match self.does {
            Does::All => Ok(Arc::new(FakeModel { signatures: vec![signature(0)], refused: Vec::new() })),
            Does::Some(n) => {
                let signatures = (0..n).map(signature).collect();
                Ok(Arc::new(FakeModel { signatures, refused: vec![refused()] }))
            }
            Does::FailsAt(kind, place) => Err(Error::new(kind, format!("{} cannot", self.name)).at(place)),
            Does::Fails(kind) => Err(Error::new(kind, format!("{} cannot", self.name)).at(place)),
        }
    }
}

impl Model for FakeModel {
    fn signatures(&self) -> &[Arc<Signature>] {
        &self.signatures
    }

    fn refused(&self) -> &[(Arc<str>, Error)] {
        &self.refused
    }

    fn session(&self) -> Result<Box<dyn Session>, Error> {
        Err(Error::new(ErrorKind::Internal, "not run here"))
    }

    fn enter(&self, _: NonZeroUsize, body: &mut (dyn FnMut() + Send)) {
        body();
    }

    fn is_entered(&self) -> bool {
        true
    }

    fn n_bytes(&self) -> u64 {
        0
    }
}

const ALL: &[Format] = &[Format::Onnx, Format::SavedModel];
const PLAIN: &[Precision] = &[Precision::F32];

fn fake(name: &'static str, does: Does) -> Fake {
    Fake { name, is_present: true, formats: ALL, precisions: PLAIN, does }
}

fn load(engines: Vec<Fake>, choice: &str, precision: Precision) -> Result<(&'static str, usize), Error> {
    let engines = engines.into_iter().map(|engine| Arc::new(engine) as Arc<dyn Engine>).collect();
    let source = ModelSource { path: PathBuf::from("/m/net"), format: Format::SavedModel };
    let mut options = LoadOptions::default();
    options.precision = precision;
    let loaded = Registry::new(engines).load(&source, &options, &Choice::from_name(choice))?;
    Ok((loaded.engine, loaded.notes.len()))
}

#[test]
fn auto_takes_the_first_that_runs_all_of_a_model() {
    let check = |engines: Vec<Fake>, expected: (&'static str, usize)| {
        let text = format!("{engines:?}");
        assert_eq!(load(engines, "auto", Precision::F32), Ok(expected), "{text}");
    };
    let lacks = Does::Fails(ErrorKind::Unsupported);
    check(vec![fake("a", Does::All), fake("b", Does::All)], ("a", 0));
    check(vec![Fake { is_present: false, ..fake("a", Does::All) }, fake("b", Does::All)], ("b", 0));
    check(vec![Fake { formats: &[Format::Onnx], ..fake("a", Does::All) }, fake("b", Does::All)], ("b", 0));
    check(vec![fake("a", lacks), fake("b", Does::All)], ("b", 1));
    // What one takes for broken another may read.
    check(vec![fake("a", Does::Fails(ErrorKind::InvalidModel)), fake("b", Does::All)], ("b", 1));
    check(vec![fake("a", Does::Some(2)), fake("b", Does::All)], ("b", 1));
    check(vec![fake("a", Does::Some(1)), fake("b", lacks)], ("a", 2));
    check(vec![fake("a", Does::Some(1)), fake("b", Does::Some(3)), fake("c", Does::Some(2))], ("b", 3));
}

#[test]
fn a_precision_is_only_computed_where_it_can_be() {
    let both: &[Precision] = &[Precision::F32, Precision::Bf16];
    let engines = || vec![fake("a", Does::All), Fake { precisions: both, ..fake("b", Does::All) }];
    assert_eq!(load(engines(), "auto", Precision::F32), Ok(("a", 0)));
    assert_eq!(load(engines(), "auto", Precision::Bf16), Ok(("b", 0)));
    let message = |choice, precision| load(engines(), choice, precision).unwrap_err().to_string();
    assert_eq!(message("a", Precision::Bf16), "/m/net: engine 'a' does not compute in bf16");
    assert_eq!(
        message("auto", Precision::Int8),
        "/m/net: a TensorFlow SavedModel cannot be loaded in int8 by any engine here (a, b)"
    );
}

#[test]
fn refusals_say_what_would_do() {
    let check = |engines: Vec<Fake>, choice: &str, expected: &str| {
        let error = load(engines, choice, Precision::F32).unwrap_err();
        assert_eq!(error.to_string(), expected);
    };
    let lacks = Does::Fails(ErrorKind::Unsupported);
    check(vec![fake("a", lacks)], "auto", "/m/net: a cannot");
    check(vec![fake("a", lacks), fake("b", lacks)], "auto", "/m/net: a cannot; b: /m/net: b cannot");
    // A named engine that is not there says itself what is missing.
    check(vec![Fake { is_present: false, ..fake("a", lacks) }], "a", "/m/net: a cannot");
    let onnx_only = |name| Fake { formats: &[Format::Onnx], ..fake(name, lacks) };
    check(
        vec![onnx_only("a"), Fake { is_present: false, ..fake("b", lacks) }],
        "auto",
        "/m/net: a TensorFlow SavedModel cannot be loaded by any engine here (a, b); engine 'b' would, and is not installed",
    );
    check(vec![onnx_only("a")], "a", "/m/net: engine 'a' does not load a TensorFlow SavedModel");
    check(vec![onnx_only("a")], "x", "/m/net: no engine 'x' (expected auto, a)");
}

#[test]
fn what_cannot_be_read_is_not_tried_again() {
    for (does, expected) in [
        (Does::Fails(ErrorKind::NotFound), Err(ErrorKind::NotFound)),
        (Does::FailsAt(ErrorKind::Io, "/m/net/saved_model.pb"), Err(ErrorKind::Io)),
        (Does::FailsAt(ErrorKind::Io, "/m/net: node 'x'"), Err(ErrorKind::Io)),
        // What only this engine needs is not the model.
        (Does::FailsAt(ErrorKind::Io, "/m/net-cache"), Ok(("b", 1))),
        (Does::FailsAt(ErrorKind::NotFound, "/tmp/worker"), Ok(("b", 1))),
    ] {
        let engines = vec![fake("a", does), fake("b", Does::All)];
        let loaded = load(engines, "auto", Precision::F32).map_err(|error| error.kind());
        assert_eq!(loaded, expected, "{does:?}");
    }
}

#[test]
fn names_of_choices() {
    for (name, expected) in [
        ("", Choice::Auto),
        ("auto", Choice::Auto),
        ("rten", Choice::Named("embedded".into())),
        ("embedded", Choice::Named("embedded".into())),
        ("openvino", Choice::Named("openvino".into())),
    ] {
        assert_eq!(Choice::from_name(name), expected, "{name}");
    }
}
