//! From files to an imported model.

mod folder;
mod onnx;

use std::path::{Path, PathBuf};

use bytes::Bytes;
use salver_engine::{Error, ErrorKind, Format, LoadOptions, ModelSource};
use salver_graph::Model;
use salver_tensorflow::import;
use salver_tensorflow::read::{SAVED_MODEL_PB, SAVED_MODEL_PBTXT};

use crate::engine_error;
use folder::Folder;

/// Reads a model's files and imports it. Blocks.
///
/// # Errors
/// When a file is missing, broken, or asks for what the importers do not have; the error names the file, node or layer.
pub fn import(source: &ModelSource, options: &LoadOptions) -> Result<Model, Error> {
    let model = match source.format {
        Format::SavedModel => saved_model(&source.path, options),
        Format::FrozenGraph => frozen(&source.path),
        Format::Keras => keras(&source.path),
        Format::Onnx => onnx::read(&source.path),
        other => Err(Error::new(ErrorKind::Unsupported, format!("{other} cannot be imported"))),
    };
    let mut model = model.map_err(|error| in_source(&source.path, error))?;
    model.drop_unseen_state();
    Ok(model)
}

/// The content of a file. Blocks.
pub(crate) fn file(path: &Path) -> Result<Bytes, Error> {
    folder::read(path)
}

/// The same error with the path that it is about in front, once.
pub(crate) fn in_source(path: &Path, error: Error) -> Error {
    let path = path.display().to_string();
    match error.location() {
        Some(place) if place.starts_with(&path) => error,
        Some(place) => {
            let place = format!("{path}: {place}");
            error.at(place)
        }
        None => error.at(path),
    }
}

fn saved_model(path: &Path, options: &LoadOptions) -> Result<Model, Error> {
    // The path is that of the folder, or of a file of it that somebody named.
    let folder = if path.is_dir() { path } else { path.parent().unwrap_or(path) };
    let tags: Vec<&str> = options.saved_model_tags.iter().map(String::as_str).collect();
    let named = [SAVED_MODEL_PB, SAVED_MODEL_PBTXT].map(|name| folder.join(name));
    let file = named.iter().find(|file| file.is_file()).unwrap_or(&named[0]);
    let bytes = folder::read(file)?;
    import::import_saved_model(bytes, &tags, &Folder::new(folder))
        .map_err(|error| in_source(file, engine_error(&error)))
}

fn frozen(path: &Path) -> Result<Model, Error> {
    let bytes = folder::read(path)?;
    import::import_frozen(bytes, None, None).map_err(|error| engine_error(&error))
}

fn keras(path: &Path) -> Result<Model, Error> {
    let bytes = folder::read(path)?;
    let architecture = architecture(path)?;
    salver_keras::import(&bytes, architecture.as_deref()).map_err(|error| engine_error(&error))
}

/// Files beside weights that are looked at for the architecture.
const MAX_ENTRIES: usize = 10_000;

/// The JSON file beside a file of weights: the one of the same name, or the only one.
fn architecture(path: &Path) -> Result<Option<Bytes>, Error> {
    let named = path.with_extension("json");
    if named.is_file() {
        return folder::read(&named).map(Some);
    }
    let Some(folder) = path.parent() else { return Ok(None) };
    let Ok(entries) = std::fs::read_dir(if folder.as_os_str().is_empty() { Path::new(".") } else { folder })
    else {
        return Ok(None);
    };
    let is_json = |path: &PathBuf| path.is_file() && path.extension().is_some_and(|ending| ending == "json");
    let mut found = entries.take(MAX_ENTRIES).flatten().map(|entry| entry.path()).filter(is_json);
    match (found.next(), found.next()) {
        (Some(only), None) => folder::read(&only).map(Some),
        _ => Ok(None),
    }
}
