//! Models on disk, for tests: nothing else here knows paths.

use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::Error;
use crate::read::Files;

/// The files below a folder.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Files for Folder {
    fn read(&self, name: &str) -> Result<Option<Bytes>, Error> {
        match std::fs::read(self.0.join(name)) {
            Ok(bytes) => Ok(Some(bytes.into())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::invalid(error.to_string()).at(name)),
        }
    }
}

/// A path in the data that is not part of the project, if it is there.
#[expect(clippy::disallowed_methods, reason = "tests find the models so")]
pub(crate) fn shared(path: &str) -> Option<PathBuf> {
    let Some(root) = std::env::var_os("SALVER_TESTDATA") else {
        eprintln!("skipped: SALVER_TESTDATA is not set");
        return None;
    };
    Some(Path::new(&root).join(path))
}
