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
                Error::new(
                    ErrorKind::NotFound,
                    "not a model file of a known format (expected .onnx, .h5, .keras, .pb or .pbtxt)",
                )
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
                "no model found: expected one .onnx, .h5, .keras, .pb or saved_model.pb file in this folder",
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

/// The format of a file: by its first bytes where they tell, else by its ending. What belongs to a model without being
/// one (labels, settings, Keras' metadata) is none.
fn recognise_file(path: &Path) -> Result<Option<ModelSource>, Error> {
    let ending = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    let found = |format| Ok(Some(ModelSource { path: path.to_path_buf(), format }));
    match ending.as_str() {
        "onnx" => return found(Format::Onnx),
        "tflite" => return found(Format::TfLite),
        "h5" | "hdf5" | "keras" => return found(Format::Keras),
        "pb" | "pbtxt" if matches!(stem, "keras_metadata" | "fingerprint") => return Ok(None),
        "pb" | "pbtxt" if stem == "saved_model" => return found(Format::SavedModel),
        _ => {}
    }
    let head = head(path)?;
    match ending.as_str() {
        _ if head.starts_with(HDF5) => found(Format::Keras),
        "pb" if is_onnx(&head) => found(Format::Onnx),
        "pb" => found(Format::FrozenGraph),
        "pbtxt" if is_graph_text(&head) => found(Format::FrozenGraph),
        _ => Ok(None),
    }
}

/// Bytes at the start of a file that are looked at.
const HEAD: usize = 4096;

/// The first bytes of every HDF5 file.
const HDF5: &[u8] = b"\x89HDF\r\n\x1a\n";

fn head(path: &Path) -> Result<Vec<u8>, Error> {
    let mut head = Vec::with_capacity(HEAD);
    let file = File::open(path).map_err(|error| io_error(path, &error))?;
    file.take(HEAD as u64).read_to_end(&mut head).map_err(|error| io_error(path, &error))?;
    Ok(head)
}

/// An ONNX `ModelProto` starts with its IR version: field 1 as a varint, so the byte 8 and a small number. A
/// `GraphDef` starts with a node: field 1 with a length, so the byte 10.
fn is_onnx(head: &[u8]) -> bool {
    matches!(head, [8, 3..=64, ..])
}

/// A `GraphDef` as text starts with a node, perhaps behind comments; other messages in text (labels, configurations)
/// do not.
fn is_graph_text(head: &[u8]) -> bool {
    let text = String::from_utf8_lossy(head);
    let first = text.lines().map(str::trim_start).find(|line| !line.is_empty() && !line.starts_with('#'));
    first
        .and_then(|line| line.strip_prefix("node"))
        .is_some_and(|rest| rest.trim_start().starts_with(['{', ':']))
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
            (&[("weights.h5", b"\x89HDF"), ("model.json", b"{}")], Ok(Format::Keras)),
            (&[("model.bin", b"\x89HDF\r\n\x1a\n\0\0")], Ok(Format::Keras)),
            (
                &[("frozen.pbtxt", b"# a graph\n\nnode {\n"), ("labels.pbtxt", b"item { id: 1 }")],
                Ok(Format::FrozenGraph),
            ),
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
