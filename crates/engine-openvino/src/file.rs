//! Reading an ONNX file, and the files beside it that hold its weights, as a graph.

use std::cell::RefCell;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};

use bytes::Bytes;
use salver_engine::{Error, ErrorKind};
use salver_graph::{Graph, onnx};
use salver_tensor::Signature;

use crate::signature;

/// The largest file that is read; a bound against devices and sparse files, not a memory budget.
const MAX_FILE_BYTES: u64 = 1 << 36;

/// Reads a model and the signature that it declares.
pub(crate) fn read(path: &Path) -> Result<(Graph, Signature), Error> {
    let bytes = read_range(path, 0, None).map_err(|error| error.at(path.display().to_string()))?;
    let proto = onnx::decode(bytes).map_err(|error| graph_error(&error))?;
    // What a file beside the model was refused for, which the graph's own errors have no kind for.
    let refused = RefCell::new(None);
    let beside = |name: &str, start: usize, length: Option<usize>| {
        let read = path_beside(path, name).and_then(|path| {
            read_range(&path, start, length).map_err(|error| error.at(path.display().to_string()))
        });
        read.map_err(|error| {
            let shown = salver_graph::Error::invalid(error.to_string());
            *refused.borrow_mut() = Some(error);
            shown
        })
    };
    let graph = onnx::graph(&proto, &beside);
    let graph = graph.map_err(|error| refused.take().unwrap_or_else(|| graph_error(&error)))?;
    let declared =
        proto.graph.as_ref().ok_or_else(|| Error::new(ErrorKind::InvalidModel, "the file holds no graph"))?;
    let signature = signature::of_file(&graph, declared)?;
    Ok((graph, signature))
}

pub(crate) fn graph_error(error: &salver_graph::Error) -> Error {
    let kind = match error.kind() {
        salver_graph::ErrorKind::Unsupported => ErrorKind::Unsupported,
        salver_graph::ErrorKind::TooLarge => ErrorKind::ResourceExhausted,
        _ => ErrorKind::InvalidModel,
    };
    let made = Error::new(kind, error.message());
    match error.place() {
        Some(place) => made.at(place),
        None => made,
    }
}

fn io_error(error: &std::io::Error) -> Error {
    let kind = if error.kind() == std::io::ErrorKind::NotFound { ErrorKind::NotFound } else { ErrorKind::Io };
    Error::new(kind, error.to_string())
}

/// Bytes of a regular file from `start` on: as many as `length` says, or to its end as it is now.
fn read_range(path: &Path, start: usize, length: Option<usize>) -> Result<Bytes, Error> {
    let mut file = File::open(path).map_err(|error| io_error(&error))?;
    let meta = file.metadata().map_err(|error| io_error(&error))?;
    if !meta.is_file() {
        return Err(Error::new(ErrorKind::InvalidModel, "not a regular file"));
    }
    let too_large = || {
        let message = format!("{} bytes do not fit in memory (bound: {MAX_FILE_BYTES})", meta.len());
        Error::new(ErrorKind::ResourceExhausted, message)
    };
    let has =
        usize::try_from(meta.len()).ok().filter(|_| meta.len() <= MAX_FILE_BYTES).ok_or_else(too_large)?;
    let rest = has.checked_sub(start);
    let length =
        rest.and_then(|rest| length.or(Some(rest)).filter(|&length| length <= rest)).ok_or_else(|| {
            Error::new(ErrorKind::InvalidModel, format!("it has {has} bytes, fewer than the model says"))
        })?;
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(length).map_err(|_| too_large())?;
    file.seek(SeekFrom::Start(start as u64)).map_err(|error| io_error(&error))?;
    file.take(length as u64).read_to_end(&mut bytes).map_err(|error| io_error(&error))?;
    if bytes.len() < length {
        return Err(Error::new(ErrorKind::Io, "it became shorter while it was read"));
    }
    Ok(bytes.into())
}

/// Where a location beside the model is: a relative path without `..` that does not lead out of the folder by way of links
/// either.
fn path_beside(model: &Path, location: &str) -> Result<PathBuf, Error> {
    let refuse =
        |why: &str| Error::new(ErrorKind::InvalidModel, format!("weights in file '{location}', which {why}"));
    let is_plain = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
    if location.is_empty() || !Path::new(location).components().all(is_plain) {
        return Err(refuse("is not a path inside the model's folder"));
    }
    let folder = model.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let found =
        |path: &Path| path.canonicalize().map_err(|error| io_error(&error).at(path.display().to_string()));
    let folder = found(folder)?;
    let path = found(&folder.join(location))?;
    if path.starts_with(&folder) { Ok(path) } else { Err(refuse("leads out of the model's folder")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_read_from_the_models_folder_alone() {
        let dir = tempfile::tempdir().unwrap();
        let inside = dir.path().join("model");
        std::fs::create_dir(&inside).unwrap();
        std::fs::write(inside.join("w.data"), b"12345678").unwrap();
        std::fs::write(dir.path().join("secret"), b"1234").unwrap();
        std::os::unix::fs::symlink(dir.path().join("secret"), inside.join("link")).unwrap();
        let model = inside.join("m.onnx");
        let check = |location: &str, start, length| {
            path_beside(&model, location)
                .and_then(|path| read_range(&path, start, length))
                .map(|bytes| bytes.to_vec())
                .map_err(|error| error.kind())
        };
        for (location, start, length, expected) in [
            ("w.data", 2, Some(3), Ok(b"345".to_vec())),
            ("./w.data", 6, None, Ok(b"78".to_vec())),
            ("w.data", 6, Some(3), Err(ErrorKind::InvalidModel)),
            ("w.data", 9, None, Err(ErrorKind::InvalidModel)),
            ("w.data", 1, Some(usize::MAX), Err(ErrorKind::InvalidModel)),
            ("missing", 0, None, Err(ErrorKind::NotFound)),
            ("../secret", 0, None, Err(ErrorKind::InvalidModel)),
            ("link", 0, None, Err(ErrorKind::InvalidModel)),
            ("", 0, None, Err(ErrorKind::InvalidModel)),
            ("/etc/hostname", 0, None, Err(ErrorKind::InvalidModel)),
        ] {
            assert_eq!(check(location, start, length), expected, "{location:?} {start} {length:?}");
        }
    }
}
