//! A shared library that an engine is loaded from at run time.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::Error;

type Locate = dyn Fn() -> Result<PathBuf, Error> + Send + Sync;

/// Where the library of an engine lies. It is looked for when it is first needed, and again until it is found, so that one
/// that is installed while the process runs is found too.
#[derive(Clone)]
pub struct Library {
    locate: Arc<Locate>,
}

impl Library {
    /// A library that `locate` finds: the folder that holds its files, or an error that says how to get it. `locate` may
    /// look at the file system and is called from any thread.
    pub fn new(locate: impl Fn() -> Result<PathBuf, Error> + Send + Sync + 'static) -> Library {
        Library { locate: Arc::new(locate) }
    }

    /// The library in this folder.
    pub fn at(folder: &Path) -> Library {
        let folder = folder.to_path_buf();
        Library::new(move || Ok(folder.clone()))
    }

    /// The folder that holds the library's files.
    ///
    /// # Errors
    /// When it is not there; the message is one line with the command that installs it.
    pub fn locate(&self) -> Result<PathBuf, Error> {
        (self.locate)()
    }
}

impl fmt::Debug for Library {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Library").finish_non_exhaustive()
    }
}
