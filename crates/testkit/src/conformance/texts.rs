//! Files that are no models, models that the engine lacks operators for, and what loading leaves behind.

use salver_engine::{Engine, ErrorKind, Format, LoadOptions, ModelSource};

use super::fixture::Fixture;
use super::{Capabilities, Failures};

/// Memory that a hundred loads may leave behind; the models take a few kilobytes each.
const MAX_GROWTH: usize = 16 << 20;

/// Broken and missing files give errors of the right kind.
pub(super) fn broken_files(engine: &dyn Engine, failures: &mut Failures) {
    let whole = std::fs::read(Fixture::read("mlp").path()).expect("the fixtures are part of the checkout");
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    let mut files =
        vec![("empty".to_owned(), Vec::new()), ("text".to_owned(), b"not a model at all".to_vec())];
    files.extend((1..8).map(|part| (format!("{part}/8"), whole[..whole.len() * part / 8].to_vec())));
    for (what, content) in files {
        let path = folder.path().join("model.onnx");
        std::fs::write(&path, content).expect("temporary files can be written");
        let source = ModelSource { path, format: Format::Onnx };
        match engine.load(&source, &LoadOptions::default()) {
            Ok(_) => failures.add(format!("broken file ({what}): loads")),
            Err(error)
                if error.kind() == ErrorKind::InvalidModel && error.to_string().contains("model.onnx") => {}
            Err(error) => failures.add(format!("broken file ({what}): {:?}: {error}", error.kind())),
        }
    }
    let source = ModelSource { path: folder.path().join("missing.onnx"), format: Format::Onnx };
    match engine.load(&source, &LoadOptions::default()) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        other => failures.add(format!("missing file: {other:?}")),
    }
}

/// A refusal for want of operators names all of them.
pub(super) fn missing_operators(engine: &dyn Engine, capabilities: &Capabilities, failures: &mut Failures) {
    let fixture = Fixture::read("missing_operators");
    if !capabilities.refused_at_load.contains(&fixture.name.as_str()) {
        return;
    }
    match engine.load(&fixture.source(), &LoadOptions::default()) {
        Err(error) if ["LRN (2", "Shrink (1"].iter().all(|part| error.to_string().contains(part)) => {}
        other => failures.add(format!("missing operators: {other:?}")),
    }
}

/// Models that are dropped give their memory back.
pub(super) fn loads_leave_nothing(engine: &dyn Engine, failures: &mut Failures) {
    let fixture = Fixture::read("mlp");
    let load = || engine.load(&fixture.source(), &LoadOptions::default()).map(drop);
    if load().is_err() {
        return;
    }
    let before = resident();
    let n_failed = (0..100).filter(|_| load().is_err()).count();
    let growth = resident().saturating_sub(before);
    if n_failed > 0 || growth > MAX_GROWTH {
        failures.add(format!("100 loads: {n_failed} failed, {growth} bytes more resident"));
    }
}

/// Resident memory in bytes, about; 0 where the system does not say.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    text.split_whitespace().nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0) * 4096
}
