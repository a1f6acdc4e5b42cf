//! The one OpenVINO of this process: found and loaded when it is first needed, and kept.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use salver_engine::{Error, ErrorKind, Library};

use crate::sys::{self, Core};
use crate::{TESTED, elf};

/// An OpenVINO that is loaded.
#[derive(Debug)]
pub(crate) struct Runtime {
    folder: PathBuf,
    pub(crate) core: Core,
}

/// What was loaded; `None` until a load succeeds.
static LOADED: Mutex<Option<&'static Runtime>> = Mutex::new(None);

/// What an installation is made of: the start of the file's name, and what it is for.
const PARTS: &[&str] = &[
    "libopenvino_c.so",
    "libopenvino.so",
    "libopenvino_intel_cpu_plugin.so",
    "libopenvino_onnx_frontend.so",
    "libtbb.so",
];

impl Runtime {
    /// The OpenVINO of this process, loaded from where `library` finds it if none is yet. After an error the next call
    /// tries again.
    ///
    /// # Errors
    /// Where it is not found, not whole, or another is loaded already: one process can have one.
    pub(crate) fn get(library: &Library) -> Result<&'static Runtime, Error> {
        let folder = library.locate()?;
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(runtime) = *loaded {
            return runtime.fits(&folder).map(|()| runtime);
        }
        let runtime: &'static Runtime = Box::leak(Box::new(load(&folder)?));
        *loaded = Some(runtime);
        Ok(runtime)
    }

    fn fits(&self, folder: &Path) -> Result<(), Error> {
        if self.folder == real(folder) {
            return Ok(());
        }
        let message = format!(
            "OpenVINO is already loaded from {}, and a process can load it once; restart to use this one",
            self.folder.display()
        );
        Err(refused(folder, message))
    }
}

fn real(folder: &Path) -> PathBuf {
    folder.canonicalize().unwrap_or_else(|_| folder.to_path_buf())
}

fn refused(place: &Path, message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Unsupported, message).at(place.display().to_string())
}

fn load(folder: &Path) -> Result<Runtime, Error> {
    let files = PARTS.iter().map(|part| find(folder, part)).collect::<Result<Vec<_>, _>>()?;
    for file in &files {
        elf::check(file).map_err(|what| {
            refused(file, format!("{what}, expected a library of OpenVINO {}", TESTED.join(" or ")))
        })?;
    }
    let main = &files[0];
    let version = sys::open(main).map_err(|what| {
        let message = format!("it cannot be loaded as OpenVINO {}: {what}", TESTED.join(" or "));
        refused(main, message)
    })?;
    if !TESTED.contains(&version.as_str()) {
        tracing::warn!(
            %version,
            tested = TESTED.join(", "),
            "this version of OpenVINO is not one that was tested"
        );
    }
    let core = Core::new().map_err(|failure| {
        refused(main, format!("OpenVINO {version} does not start: {}", failure.message))
    })?;
    Ok(Runtime { folder: real(folder), core })
}

/// The file whose name starts so: without a version behind it, or with the highest in the order of names.
fn find(folder: &Path, part: &str) -> Result<PathBuf, Error> {
    let entries = std::fs::read_dir(folder).map_err(|error| refused(folder, format!("OpenVINO: {error}")))?;
    let is_part =
        |name: &str| name.strip_prefix(part).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    let mut names: Vec<String> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| is_part(name))
        .collect();
    names.sort_unstable_by_key(|name| (name != part, std::cmp::Reverse(name.clone())));
    match names.first() {
        Some(name) => Ok(folder.join(name)),
        None => Err(refused(folder, format!("it holds no {part}, which OpenVINO needs"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_found_with_and_without_a_version() {
        let dir = tempfile::tempdir().unwrap();
        for name in [
            "libopenvino.so.2641",
            "libopenvino.so.2630",
            "libopenvino_c.so.2641",
            "libtbb.so",
            "libtbb.so.12",
        ] {
            std::fs::write(dir.path().join(name), b"").unwrap();
        }
        for (part, expected) in [
            ("libopenvino.so", Some("libopenvino.so.2641")),
            ("libopenvino_c.so", Some("libopenvino_c.so.2641")),
            ("libtbb.so", Some("libtbb.so")),
            ("libopenvino_onnx_frontend.so", None),
        ] {
            let found = find(dir.path(), part).ok();
            assert_eq!(found, expected.map(|name| dir.path().join(name)), "{part}");
        }
    }
}
