//! Finding the one model in a file or a version folder, by content.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::{Error, ErrorKind};

/// How a model is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// An ONNX `ModelProto`.
    Onnx,
    /// A TensorFlow SavedModel folder.
    SavedModel,
    /// A frozen TensorFlow `GraphDef`.
    FrozenGraph,
    /// A Keras model in HDF5 or `.keras`.
    Keras,
    /// A TensorFlow Lite flat buffer.
    TfLite,
    /// TensorFlow's session bundle, given up by TensorFlow itself.
    SessionBundle,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Format::Onnx => "an ONNX model",
            Format::SavedModel => "a TensorFlow SavedModel",
            Format::FrozenGraph => "a frozen TensorFlow graph",
            Format::Keras => "a Keras model",
            Format::TfLite => "a TensorFlow Lite model",
            Format::SessionBundle => "a TensorFlow session bundle",
        })
    }
}

/// Where a model lies and how it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelSource {
    /// The file, or for formats that are folders, the folder.
    pub path: PathBuf,
    /// How it is stored.
    pub format: Format,
}

/// Entries of a version folder that are looked at; the rest is ignored.
const MAX_ENTRIES: usize = 10_000;

impl ModelSource {
    /// Finds the model at `path`: a model file, or a version folder that holds exactly one model. Blocks on the file
    /// system; reads no more than the first bytes of each candidate.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when there is none, [`ErrorKind::InvalidModel`] when there are several,
    /// [`ErrorKind::Io`] when the path cannot be read.
    pub fn find(path: &Path) -> Result<ModelSource, Error> {
        let meta = std::fs::metadata(path).map_err(|error| io_error(path, &error))?;
        if !meta.is_dir() {
            return recognise_file(path)?.ok_or_else(|| {
                Error::new(ErrorKind::NotFound, "not a model file of a known format (expected .onnx)")
                    .at(path.display().to_string())
            });
        }
        let mut found = Vec::new();
        let entries = std::fs::read_dir(path).map_err(|error| io_error(path, &error))?;
        for entry in entries.take(MAX_ENTRIES) {
            let entry = entry.map_err(|error| io_error(path, &error))?;
            found.extend(recognise_entry(path, &entry.path())?);
        }
        found.sort_by(|a: &ModelSource, b| a.path.cmp(&b.path));
        match found.as_slice() {
            [one] => Ok(one.clone()),
            [] => Err(Error::new(
                ErrorKind::NotFound,
                "no model found: expected one .onnx file or another known model format in this folder",
            )
            .at(path.display().to_string())),
            [first, second, ..] => Err(Error::new(
                ErrorKind::InvalidModel,
                format!(
                    "{} models found ({}, {}, ...), expected one per version folder",
                    found.len(),
                    first.path.display(),
                    second.path.display()
                ),
            )
            .at(path.display().to_string())),
        }
    }
}

fn io_error(path: &Path, error: &std::io::Error) -> Error {
    let kind = if error.kind() == std::io::ErrorKind::NotFound { ErrorKind::NotFound } else { ErrorKind::Io };
    Error::new(kind, error.to_string()).at(path.display().to_string())
}

/// What one entry of a version folder is, if it is a model or marks the folder as one.
fn recognise_entry(folder: &Path, entry: &Path) -> Result<Option<ModelSource>, Error> {
    let whole = |format| Ok(Some(ModelSource { path: folder.to_path_buf(), format }));
    match entry.file_name().and_then(|name| name.to_str()) {
        Some("saved_model.pb" | "saved_model.pbtxt") => whole(Format::SavedModel),
        Some("export.meta") => whole(Format::SessionBundle),
        _ if entry.is_dir() => Ok(None),
        _ => recognise_file(entry),
    }
}

/// The format of a file, by its ending and, where an ending is shared, by its first bytes.
fn recognise_file(path: &Path) -> Result<Option<ModelSource>, Error> {
    let ending = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
    let format = match ending.as_str() {
        "onnx" => Format::Onnx,
        "tflite" => Format::TfLite,
        "h5" | "hdf5" | "keras" => Format::Keras,
        "pb" | "pbtxt" if looks_like_onnx(path)? => Format::Onnx,
        "pb" | "pbtxt" if path.file_stem().is_some_and(|stem| stem == "saved_model") => Format::SavedModel,
        "pb" | "pbtxt"
            if path.file_stem().is_some_and(|stem| stem == "keras_metadata" || stem == "fingerprint") =>
        {
            return Ok(None);
        }
        "pb" | "pbtxt" => Format::FrozenGraph,
        _ => return Ok(None),
    };
    Ok(Some(ModelSource { path: path.to_path_buf(), format }))
}

/// An ONNX `ModelProto` starts with its IR version: field 1 as a varint, so the byte 8 and a small number. A
/// `GraphDef` starts with a node: field 1 with a length, so the byte 10.
fn looks_like_onnx(path: &Path) -> Result<bool, Error> {
    let mut head = [0u8; 2];
    let mut file = File::open(path).map_err(|error| io_error(path, &error))?;
    let n_read = file.read(&mut head).map_err(|error| io_error(path, &error))?;
    Ok(n_read == 2 && head[0] == 8 && (3..=64).contains(&head[1]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, content) in files {
            std::fs::write(dir.path().join(name), content).unwrap();
        }
        dir
    }

    type Files = &'static [(&'static str, &'static [u8])];

    #[test]
    fn a_version_folder_is_told_by_its_content() {
        let cases: &[(Files, Result<Format, ErrorKind>)] = &[
            (&[("model.onnx", b"\x08\x08"), ("labels.txt", b"a")], Ok(Format::Onnx)),
            (&[("net.pb", b"\x08\x07\x12")], Ok(Format::Onnx)),
            (&[("frozen.pb", b"\x0a\x20node")], Ok(Format::FrozenGraph)),
            (
                &[("saved_model.pb", b"\x08\x01"), ("fingerprint.pb", b"x"), ("keras_metadata.pb", b"x")],
                Ok(Format::SavedModel),
            ),
            (&[("model.keras", b"PK")], Ok(Format::Keras)),
            (&[("export.meta", b"")], Ok(Format::SessionBundle)),
            (&[("a.onnx", b"\x08\x08"), ("b.onnx", b"\x08\x08")], Err(ErrorKind::InvalidModel)),
            (&[("readme.txt", b"")], Err(ErrorKind::NotFound)),
            (&[], Err(ErrorKind::NotFound)),
        ];
        for (files, expected) in cases {
            let dir = folder(files);
            let found = ModelSource::find(dir.path());
            assert_eq!(
                found.as_ref().map(|s| s.format).map_err(Error::kind),
                *expected,
                "{files:?}: {found:?}"
            );
        }
    }

    #[test]
    fn a_missing_path_is_not_found() {
        let error = ModelSource::find(Path::new("no/such/model.onnx")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.to_string().starts_with("no/such/model.onnx: "), "{error}");
    }
}
