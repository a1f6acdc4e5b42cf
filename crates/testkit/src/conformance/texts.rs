//! Files that are no models, models that the engine lacks operators for, and what loading leaves behind.

use std::path::{Path, PathBuf};

use salver_engine::{Engine, ErrorKind, Format, LoadOptions, ModelSource};

use super::fixture::Fixture;
use super::runs::{inputs, load_named, run_all};
use super::{Capabilities, Failures, Refusal};

/// Memory that a hundred loads may leave behind; the models take a few kilobytes each.
const MAX_GROWTH: usize = 4 << 20;

/// Hundreds of loads, of which the one that leaves least behind counts: caches fill, and heaps settle, while what is never
/// given back grows with each.
const N_HUNDREDS: usize = 4;

/// Where a model of the engine's format is written to, and what the whole of it is.
fn file(engine: &dyn Engine, folder: &Path) -> Option<(PathBuf, ModelSource, Vec<u8>)> {
    let whole = Fixture::read("mlp").source_for(engine)?;
    let (original, path, source) = match whole.format {
        Format::SavedModel => {
            let name = "saved_model.pb";
            (whole.path.join(name), folder.join(name), folder.to_path_buf())
        }
        _ => (whole.path.clone(), folder.join("model.onnx"), folder.join("model.onnx")),
    };
    let bytes = std::fs::read(original).expect("the fixtures are part of the checkout");
    Some((path, ModelSource { path: source, format: whole.format }, bytes))
}

/// Broken and missing files give errors of the right kind, at their place.
pub(super) fn broken_files(engine: &dyn Engine, failures: &mut Failures) {
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    let Some((path, source, whole)) = file(engine, folder.path()) else {
        return failures.add("mlp: not there in a form that the engine reads".to_owned());
    };
    let mut files =
        vec![("empty".to_owned(), Vec::new()), ("text".to_owned(), b"not a model at all".to_vec())];
    files.extend((1..8).map(|part| (format!("{part}/8"), whole[..whole.len() * part / 8].to_vec())));
    let place = source.path.display().to_string();
    for (what, content) in files {
        std::fs::write(&path, content).expect("temporary files can be written");
        match engine.load(&source, &LoadOptions::default()) {
            Ok(_) => failures.add(format!("broken file ({what}): loads")),
            Err(error) if error.kind() == ErrorKind::InvalidModel && error.to_string().contains(&place) => {}
            Err(error) => failures.add(format!("broken file ({what}): {:?}: {error}", error.kind())),
        }
    }
    let missing = ModelSource { path: folder.path().join("missing"), format: source.format };
    match engine.load(&missing, &LoadOptions::default()) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        other => failures.add(format!("missing file: {other:?}")),
    }
}

/// A refusal for want of operators names all of them.
pub(super) fn missing_operators(engine: &dyn Engine, capabilities: &Capabilities, failures: &mut Failures) {
    let fixture = Fixture::read("missing_operators");
    if capabilities.refusal(&fixture.name) != Some(Refusal::AtLoad) {
        return;
    }
    match engine.load(&fixture.source(), &LoadOptions::default()) {
        Err(error) if ["LRN (2", "Shrink (1"].iter().all(|part| error.to_string().contains(part)) => {}
        other => failures.add(format!("missing operators: {other:?}")),
    }
}

/// Models that are loaded, run once and dropped give their memory back.
pub(super) fn loads_leave_nothing(engine: &dyn Engine, failures: &mut Failures) {
    let mut grown = Vec::new();
    for _ in 0..N_HUNDREDS {
        let before = resident();
        for _ in 0..100 {
            let Some((fixture, model)) = load_named(engine, "mlp", failures) else { return };
            let ran = model
                .session()
                .and_then(|mut session| run_all(&*model, &mut *session, &inputs(&*model, &fixture.cases[0])));
            if let Err(error) = ran {
                return failures.add(format!("100 loads: {error}"));
            }
        }
        grown.push(resident().saturating_sub(before));
        if grown.last().is_some_and(|&growth| growth <= MAX_GROWTH) {
            return;
        }
    }
    failures.add(format!("100 loads: each time more bytes are resident, by {grown:?}"));
}

/// Resident memory in bytes, about; 0 where the system does not say.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    text.split_whitespace().nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0) * 4096
}
