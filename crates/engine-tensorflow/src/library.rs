//! TensorFlow's libraries: loaded once per process, at the first need, and never given back.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use salver_engine::{Error, ErrorKind, Library};

use crate::sys::TensorFlow;

/// Versions that this engine is tested with. Others are tried.
pub const TESTED: &[&str] = &["2.21.0"];

/// The files, in the order in which they are opened: the second needs the first.
const FILES: [&str; 2] = ["libtensorflow_framework.so.2", "libtensorflow_cc.so.2"];

/// What is loaded. An attempt that fails leaves nothing here, so that a later one tries again.
static LOADED: Mutex<Option<(PathBuf, TensorFlow)>> = Mutex::new(None);

/// TensorFlow from the folder that `library` finds, loaded if it is not yet. Blocks; the first time takes up to seconds.
///
/// # Errors
/// When it is not there, cannot be loaded, or another folder's is loaded already.
pub(crate) fn open(library: &Library) -> Result<TensorFlow, Error> {
    let folder = library.locate()?;
    let folder = folder.canonicalize().map_err(|error| refused(&folder, &error.to_string()))?;
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    match &*loaded {
        Some((from, tensorflow)) if *from == folder => return Ok(*tensorflow),
        Some((from, tensorflow)) => {
            let message = format!(
                "TensorFlow {} is loaded from {} already, and a process can hold one; \
                 start again to use the one in {}",
                tensorflow.version(),
                from.display(),
                folder.display()
            );
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        None => {}
    }
    let [framework, main] = FILES.map(|name| folder.join(name));
    for file in [&framework, &main] {
        check(file).map_err(|what| refused(file, &what))?;
    }
    let tensorflow = TensorFlow::open(&framework, &main).map_err(|what| refused(&main, &what))?;
    let version = tensorflow.version();
    if TESTED.contains(&version.as_str()) {
        tracing::info!(version, folder = %folder.display(), "TensorFlow is loaded");
    } else {
        let tested = TESTED.join(", ");
        tracing::warn!(version, tested, folder = %folder.display(), "this version of TensorFlow is not tested");
    }
    *loaded = Some((folder, tensorflow));
    Ok(tensorflow)
}

/// The version of the TensorFlow in this process, if one is loaded.
pub fn version() -> Option<String> {
    let loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    loaded.as_ref().map(|(_, tensorflow)| tensorflow.version())
}

fn refused(file: &Path, what: &str) -> Error {
    let message = format!(
        "TensorFlow cannot be loaded: {what} (expected {} and {} of TensorFlow {})",
        FILES[0], FILES[1], TESTED[0]
    );
    Error::new(ErrorKind::Unsupported, message).at(file.display().to_string())
}

/// Whether a file is a shared library that is there as a whole. The loader maps a file that was cut off all the same, and
/// the process dies when it touches what is missing.
///
/// The header of ELF files of 64 bits has the position of the section table at byte 40, the size of its entries at byte
/// 58 and their number at byte 60; the table is the last thing in the file.
fn check(path: &Path) -> Result<(), String> {
    let mut file = File::open(path).map_err(|error| error.to_string())?;
    let len = file.metadata().map_err(|error| error.to_string())?.len();
    let mut header = [0u8; 64];
    file.read_exact(&mut header).map_err(|_| format!("{len} bytes are no shared library"))?;
    if !header.starts_with(b"\x7fELF\x02\x01") {
        return Err("not a shared library of a 64-bit machine".into());
    }
    let word = |at: usize| u64::from(u16::from_le_bytes([header[at], header[at + 1]]));
    let mut table = [0u8; 8];
    table.copy_from_slice(&header[40..48]);
    let end = u64::from_le_bytes(table).saturating_add(word(58) * word(60));
    if end > len {
        return Err(format!("the file is cut off: {len} bytes, expected {end}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_whole_library_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let path = folder.path().join("library");
        let check_bytes = |bytes: &[u8], expected: Option<&str>| {
            std::fs::write(&path, bytes).unwrap();
            match (check(&path), expected) {
                (Ok(()), None) => {}
                (Err(error), Some(expected)) => assert!(error.contains(expected), "{error}"),
                (outcome, _) => panic!("{outcome:?}, expected {expected:?}"),
            }
        };
        check_bytes(&own, None);
        check_bytes(&own[..own.len() - 1], Some("cut off"));
        check_bytes(&own[..64], Some("cut off"));
        check_bytes(&own[..63], Some("63 bytes are no shared library"));
        check_bytes(&[b'x'; 100], Some("not a shared library"));
    }
}
