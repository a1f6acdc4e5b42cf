//! Reading a model's file, and the files beside it that hold its weights.

use std::fs::File;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use bytes::Bytes;
use prost::Message;
use salver_engine::{Error, ErrorKind};
use salver_graph::onnx;

use crate::element::{elem, file_size};
use crate::proto::subgraphs_mut;
use salver_graph::onnx::proto::tensor_proto::DataLocation;
use salver_graph::onnx::proto::{GraphProto, ModelProto, StringStringEntryProto, TensorProto};

/// The largest file that is read; a bound against devices and sparse files, not a memory budget.
const MAX_FILE_BYTES: u64 = 1 << 36;

/// Files beside the model that one model may refer to.
const MAX_FILES: usize = 4096;

/// Reads and decodes a model.
pub(crate) fn read_model(path: &Path) -> Result<ModelProto, Error> {
    let bytes = read(path).map_err(|error| error.at(path.display().to_string()))?;
    decode(Bytes::from(bytes)).map_err(|error| error.at(path.display().to_string()))
}

/// Decodes a model; raw weights stay slices of `bytes`.
pub(crate) fn decode(bytes: Bytes) -> Result<ModelProto, Error> {
    if bytes.is_empty() {
        return Err(Error::new(ErrorKind::InvalidModel, "the file is empty, expected an ONNX model"));
    }
    ModelProto::decode(bytes)
        .map_err(|error| Error::new(ErrorKind::InvalidModel, format!("not a complete ONNX model: {error}")))
}

fn io_error(error: &std::io::Error) -> Error {
    let kind = if error.kind() == std::io::ErrorKind::NotFound { ErrorKind::NotFound } else { ErrorKind::Io };
    Error::new(kind, error.to_string())
}

/// The content of a regular file, read to its end as it is now.
fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let file = File::open(path).map_err(|error| io_error(&error))?;
    let meta = file.metadata().map_err(|error| io_error(&error))?;
    if !meta.is_file() {
        return Err(Error::new(ErrorKind::InvalidModel, "not a regular file"));
    }
    let too_large = || {
        let message = format!("{} bytes do not fit in memory (bound: {MAX_FILE_BYTES})", meta.len());
        Error::new(ErrorKind::ResourceExhausted, message)
    };
    let mut bytes = Vec::new();
    let len =
        usize::try_from(meta.len()).ok().filter(|_| meta.len() <= MAX_FILE_BYTES).ok_or_else(too_large)?;
    bytes.try_reserve_exact(len).map_err(|_| too_large())?;
    file.take(MAX_FILE_BYTES).read_to_end(&mut bytes).map_err(|error| io_error(&error))?;
    Ok(bytes)
}

/// The files beside a model that hold its weights, read whole.
#[derive(Debug, Default)]
pub(crate) struct Files {
    files: Vec<(PathBuf, Vec<u8>)>,
}

impl Files {
    /// Reads every file that a tensor of the graph refers to, and makes the references complete: each gets an
    /// offset and a length, and names its file as [`Files::into_named`] does. Tensors that do not lie at a multiple
    /// of their element's size are moved into the graph.
    pub(crate) fn resolve(graph: &mut GraphProto, model: Option<&Path>) -> Result<Files, Error> {
        let mut files = Files::default();
        for_each_tensor(graph, &mut |tensor| {
            if tensor.data_location() != DataLocation::External {
                return Ok(());
            }
            let place = format!("tensor '{}'", tensor.name());
            files.resolve_tensor(tensor, model).map_err(|error| match error.location() {
                None => error.at(place),
                Some(_) => error,
            })
        })?;
        Ok(files)
    }

    /// Moves a model's large weights into one piece of memory, and refers to them as [`Files::resolve`] does.
    pub(crate) fn in_memory(model: &mut ModelProto) -> Files {
        let data = onnx::externalise(model, &file_name(0));
        if data.n_bytes() == 0 {
            return Files::default();
        }
        let mut bytes = Vec::with_capacity(data.n_bytes());
        data.pieces().for_each(|piece| bytes.extend_from_slice(piece));
        Files { files: vec![(PathBuf::new(), bytes)] }
    }

    fn resolve_tensor(&mut self, tensor: &mut TensorProto, model: Option<&Path>) -> Result<(), Error> {
        let invalid = |message: String| Error::new(ErrorKind::InvalidModel, message);
        let model = model
            .ok_or_else(|| invalid("its elements are in another file, but no folder is known".into()))?;
        let entry = |key: &str| {
            let entry = tensor.external_data.iter().find(|entry| entry.key.as_deref() == Some(key));
            entry.and_then(|entry| entry.value.as_deref())
        };
        let number = |key: &str| match entry(key) {
            None => Ok(None),
            Some(text) => {
                text.parse::<usize>().map(Some).map_err(|_| invalid(format!("external {key} is '{text}'")))
            }
        };
        let location = entry("location").ok_or_else(|| invalid("external data without a location".into()))?;
        let (offset, length) = (number("offset")?.unwrap_or(0), number("length")?);
        let at = self.open(model, location)?;
        let needed = n_bytes(tensor)?;
        let length = length.unwrap_or(needed);
        let bytes = &self.files[at].1;
        let slice = offset.checked_add(length).and_then(|end| bytes.get(offset..end)).ok_or_else(|| {
            let has = bytes.len();
            invalid(format!("bytes {offset} and {length} more of '{location}' are wanted, but it has {has}"))
        })?;
        if length != needed {
            return Err(invalid(format!("{length} bytes in '{location}', expected {needed} for its shape")));
        }
        if offset % file_size(elem(tensor.data_type())).unwrap_or(1) == 0 {
            tensor.external_data = reference(at, offset, length);
        } else {
            tensor.raw_data = Some(Bytes::copy_from_slice(slice));
            tensor.external_data.clear();
            tensor.data_location = None;
        }
        Ok(())
    }

    /// The position of a file, read if it is not yet.
    fn open(&mut self, model: &Path, location: &str) -> Result<usize, Error> {
        let path = path_beside(model, location)?;
        if let Some(at) = self.files.iter().position(|(known, _)| *known == path) {
            return Ok(at);
        }
        if self.files.len() == MAX_FILES {
            let message = format!("external data in more than {MAX_FILES} files");
            return Err(Error::new(ErrorKind::ResourceExhausted, message));
        }
        let bytes = read(&path).map_err(|error| error.at(path.display().to_string()))?;
        self.files.push((path, bytes));
        Ok(self.files.len() - 1)
    }

    /// The bytes of a tensor that [`Files::resolve`] has seen; `None` when they are not in a file.
    pub(crate) fn bytes(&self, tensor: &TensorProto) -> Option<&[u8]> {
        if tensor.data_location() != DataLocation::External {
            return None;
        }
        let [location, offset, length] = tensor.external_data.as_slice() else { return None };
        let number = |entry: &StringStringEntryProto| entry.value().parse::<usize>().ok();
        let at = location.value().strip_suffix(".data")?.parse::<usize>().ok()?;
        let (offset, length) = (number(offset)?, number(length)?);
        self.files.get(at)?.1.get(offset..offset.checked_add(length)?)
    }

    /// The contents with the names that the tensors now use.
    pub(crate) fn into_named(self) -> impl Iterator<Item = (String, Vec<u8>)> {
        self.files.into_iter().enumerate().map(|(at, (_, bytes))| (file_name(at), bytes))
    }
}

fn file_name(at: usize) -> String {
    format!("{at}.data")
}

fn reference(at: usize, offset: usize, length: usize) -> Vec<StringStringEntryProto> {
    let entry =
        |key: &str, value: String| StringStringEntryProto { key: Some(key.into()), value: Some(value) };
    vec![
        entry("location", file_name(at)),
        entry("offset", offset.to_string()),
        entry("length", length.to_string()),
    ]
}

/// Where a location beside the model is: a relative path without `..` that does not lead out of the folder by way
/// of links either.
fn path_beside(model: &Path, location: &str) -> Result<PathBuf, Error> {
    let refuse = |why: &str| {
        Error::new(ErrorKind::InvalidModel, format!("external data in '{location}', which {why}"))
    };
    let relative = Path::new(location);
    let plain = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
    if location.is_empty() || !relative.components().all(plain) {
        return Err(refuse("is not a path inside the model's folder"));
    }
    let folder = model.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder = folder.canonicalize().map_err(|error| io_error(&error).at(folder.display().to_string()))?;
    let path = folder.join(relative);
    let path = path.canonicalize().map_err(|error| io_error(&error).at(path.display().to_string()))?;
    if !path.starts_with(&folder) {
        return Err(refuse("leads out of the model's folder"));
    }
    Ok(path)
}

/// The number of elements that a tensor's dimensions ask for.
pub(crate) fn n_elements(tensor: &TensorProto) -> Result<usize, Error> {
    tensor.dims.iter().try_fold(1usize, |n, &dim| n.checked_mul(usize::try_from(dim).ok()?)).ok_or_else(
        || {
            let message = format!("dimensions {:?} are not a shape", tensor.dims);
            Error::new(ErrorKind::InvalidModel, message).at(format!("tensor '{}'", tensor.name()))
        },
    )
}

/// The bytes that a tensor's elements take in a file.
pub(crate) fn n_bytes(tensor: &TensorProto) -> Result<usize, Error> {
    let kind = elem(tensor.data_type());
    let place = || format!("tensor '{}'", tensor.name());
    let size = file_size(kind).ok_or_else(|| {
        let message =
            format!("element type {} is not one the embedded engine has", crate::element::shown(kind));
        Error::new(ErrorKind::Unsupported, message).at(place())
    })?;
    n_elements(tensor)?.checked_mul(size).ok_or_else(|| {
        Error::new(ErrorKind::InvalidModel, format!("dimensions {:?} are not a shape", tensor.dims))
            .at(place())
    })
}

/// Calls `visit` on every tensor of a graph, those in attributes and inner graphs included.
fn for_each_tensor(
    graph: &mut GraphProto,
    visit: &mut dyn FnMut(&mut TensorProto) -> Result<(), Error>,
) -> Result<(), Error> {
    graph.initializer.iter_mut().try_for_each(&mut *visit)?;
    for node in &mut graph.node {
        for attr in &mut node.attribute {
            attr.t.iter_mut().chain(&mut attr.tensors).try_for_each(&mut *visit)?;
        }
        for graph in subgraphs_mut(node) {
            for_each_tensor(graph, visit)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn external_paths_stay_in_the_folder() {
        let dir = tempfile::tempdir().unwrap();
        let inside = dir.path().join("model");
        std::fs::create_dir(&inside).unwrap();
        std::fs::write(inside.join("w.data"), b"1234").unwrap();
        std::fs::write(dir.path().join("secret"), b"1234").unwrap();
        std::os::unix::fs::symlink(dir.path().join("secret"), inside.join("link")).unwrap();
        let model = inside.join("m.onnx");
        for (location, expected) in [
            ("w.data", Ok(())),
            ("./w.data", Ok(())),
            ("missing", Err(ErrorKind::NotFound)),
            ("../secret", Err(ErrorKind::InvalidModel)),
            ("link", Err(ErrorKind::InvalidModel)),
            ("", Err(ErrorKind::InvalidModel)),
            ("/etc/hostname", Err(ErrorKind::InvalidModel)),
        ] {
            let found = path_beside(&model, location).map(|_| ()).map_err(|error| error.kind());
            assert_eq!(found, expected, "{location:?}");
        }
    }

    #[test]
    fn dimensions_that_overflow_are_refused() {
        for dims in [vec![-1], vec![i64::MAX, i64::MAX], vec![1 << 40, 1 << 40]] {
            let tensor = TensorProto { dims, data_type: Some(1), ..Default::default() };
            assert_eq!(n_bytes(&tensor).unwrap_err().kind(), ErrorKind::InvalidModel);
        }
    }
}
