//! Reading files whole, within bounds.

use std::fs::File;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use bytes::Bytes;
use salver_engine::{Error, ErrorKind};

/// The largest file that is read; a bound against devices and sparse files, not a memory budget.
const MAX_FILE_BYTES: u64 = 1 << 36;

/// The folder of a model, from which files below it are read.
#[derive(Debug)]
pub(super) struct Folder {
    root: PathBuf,
}

impl Folder {
    pub(super) fn new(root: &Path) -> Folder {
        Folder { root: root.to_path_buf() }
    }
}

impl salver_tensorflow::read::Files for Folder {
    fn read(&self, name: &str) -> Result<Option<Bytes>, salver_graph::Error> {
        let inside = Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
        if name.is_empty() || !inside {
            let message = format!("file '{name}' of the model does not lie in its folder");
            return Err(salver_graph::Error::invalid(message));
        }
        match read(&self.root.join(name)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(salver_graph::Error::invalid(error.to_string())),
        }
    }
}

fn io_error(path: &Path, error: &std::io::Error) -> Error {
    let kind = if error.kind() == std::io::ErrorKind::NotFound { ErrorKind::NotFound } else { ErrorKind::Io };
    Error::new(kind, error.to_string()).at(path.display().to_string())
}

/// The content of a regular file, read to its end as it is now.
pub(super) fn read(path: &Path) -> Result<Bytes, Error> {
    let file = File::open(path).map_err(|error| io_error(path, &error))?;
    let meta = file.metadata().map_err(|error| io_error(path, &error))?;
    let place = || path.display().to_string();
    if !meta.is_file() {
        return Err(Error::new(ErrorKind::InvalidModel, "not a regular file").at(place()));
    }
    let too_large = || {
        let message = format!("{} bytes do not fit in memory (bound: {MAX_FILE_BYTES})", meta.len());
        Error::new(ErrorKind::ResourceExhausted, message).at(place())
    };
    let len =
        usize::try_from(meta.len()).ok().filter(|_| meta.len() <= MAX_FILE_BYTES).ok_or_else(too_large)?;
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(len).map_err(|_| too_large())?;
    file.take(MAX_FILE_BYTES).read_to_end(&mut bytes).map_err(|error| io_error(path, &error))?;
    Ok(Bytes::from(bytes))
}
