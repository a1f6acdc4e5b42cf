//! The one copy of the library that the process has.

use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ort::LoadDynamicError;
use ort::environment::Environment;
use ort::logging::LogLevel;
use salver_engine::{Error, ErrorKind, Library};

use crate::error::unsupported;

/// The versions of ONNX Runtime that this engine is tested with. Others are loaded, and a line in the log says so.
pub const TESTED: &[&str] = &["1.32.0"];

/// The oldest version that has all that is called here.
const OLDEST: &str = "1.17";

/// How the file is named: with or without a version behind it.
#[cfg(not(any(target_os = "macos", windows)))]
const NAMES: (&str, &str) = ("libonnxruntime.so", "");
#[cfg(target_os = "macos")]
const NAMES: (&str, &str) = ("libonnxruntime", ".dylib");
#[cfg(windows)]
const NAMES: (&str, &str) = ("onnxruntime", ".dll");

/// Files of a folder that are looked at.
const MAX_ENTRIES: usize = 10_000;

/// The library, ready to load models.
#[derive(Clone)]
pub(crate) struct Runtime {
    pub(crate) environment: Environment,
    /// The library's minor version, behind `1.`; 0 where it says none.
    pub(crate) minor: u32,
}

/// What the process has loaded. The library stays even when setting it up fails.
struct Loaded {
    path: PathBuf,
    runtime: Option<Runtime>,
}

static LOADED: Mutex<Option<Loaded>> = Mutex::new(None);

/// The library in this folder, loaded now unless it already is. Blocks while another thread loads it.
pub(crate) fn runtime(library: &Library) -> Result<Runtime, Error> {
    let path = file_in(&library.locate()?)?;
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    match &mut *loaded {
        Some(loaded) if loaded.path != path => {
            Err(other_is_loaded(&loaded.path).at(path.display().to_string()))
        }
        Some(Loaded { runtime: Some(runtime), .. }) => Ok(runtime.clone()),
        _ => {
            open(&path).map_err(|error| error.at(path.display().to_string()))?;
            let loaded = loaded.insert(Loaded { path: path.clone(), runtime: None });
            let environment = set_up().map_err(|error| error.at(path.display().to_string()))?;
            let version = crate::ffi::version(&path).unwrap_or_default();
            warn_if_untested(&path, &version);
            let runtime = Runtime { environment, minor: minor(&version) };
            loaded.runtime = Some(runtime.clone());
            Ok(runtime)
        }
    }
}

/// The library's environment, of which a process has one: for programs that call the library beside this engine, as
/// benchmarks do. Loads the library unless it is loaded.
///
/// # Errors
/// As loading a model, when the library cannot be found or loaded.
pub fn environment(library: &Library) -> Result<Environment, Error> {
    Ok(runtime(library)?.environment)
}

fn other_is_loaded(path: &Path) -> Error {
    unsupported(format!(
        "this process has loaded {} and cannot load a second ONNX Runtime; start it again to change",
        path.display()
    ))
}

/// The library's file in a folder: the one of the plain name if it is there, else the one with a version behind it.
fn file_in(folder: &Path) -> Result<PathBuf, Error> {
    let (start, end) = NAMES;
    let wrong = |text: String| unsupported(text).at(folder.display().to_string());
    let plain = folder.join(format!("{start}{end}"));
    if plain.is_file() {
        return Ok(real(&plain));
    }
    let entries =
        std::fs::read_dir(folder).map_err(|error| wrong(format!("ONNX Runtime is not there: {error}")))?;
    let mut found: Vec<PathBuf> = Vec::new();
    for entry in entries.take(MAX_ENTRIES).flatten() {
        let name = entry.file_name();
        let version =
            name.to_str().and_then(|name| name.strip_prefix(start)?.strip_suffix(end)?.strip_prefix('.'));
        if version.is_some_and(|version| version.split('.').all(|part| part.parse::<u32>().is_ok())) {
            found.push(real(&entry.path()));
        }
    }
    found.sort();
    found.dedup();
    match found.as_slice() {
        [one] => Ok(one.clone()),
        [] => Err(wrong(format!(
            "no ONNX Runtime here, expected a file {start}{end} or one with its version, such as {start}.{}{end}",
            TESTED[0]
        ))),
        [first, second, ..] => Err(wrong(format!(
            "several ONNX Runtimes here, expected one: {} and {}",
            first.display(),
            second.display()
        ))),
    }
}

/// The path with links followed, so that one file has one name.
fn real(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_path_buf())
}

/// Makes the file this process's ONNX Runtime.
fn open(path: &Path) -> Result<(), Error> {
    // What is said by calls comes too late: setting the library up starts what reports.
    if !crate::ffi::is_silent() {
        return Err(unsupported(
            "ONNX Runtime would report to its maker: start the process with ORT_DISABLE_TELEMETRY=1",
        ));
    }
    #[cfg(all(target_os = "linux", target_pointer_width = "64"))]
    crate::elf::fault(path).map_err(|what| {
        unsupported(format!("this is not a library of ONNX Runtime that can be loaded: {what}"))
    })?;
    // A library that is something else may have a function of that name which gives nothing.
    let opened = catch_unwind(|| ort::init_from(path).map(drop));
    opened
        .map_err(|_| {
            unsupported(format!("this is not ONNX Runtime {OLDEST} or newer: it has no table of functions"))
        })?
        .map_err(|error| open_error(&error))
}

fn open_error(error: &LoadDynamicError) -> Error {
    unsupported(match error {
        LoadDynamicError::Dlopen { error, .. } => {
            let mut text = error.to_string();
            if let Some(source) = std::error::Error::source(error) {
                text = format!("{text}: {source}");
            }
            format!("ONNX Runtime cannot be loaded: {text}")
        }
        LoadDynamicError::MissingApi { .. } => {
            "this is not ONNX Runtime: it has no function 'OrtGetApiBase'".to_owned()
        }
        LoadDynamicError::InvalidVersionString => {
            "this is not ONNX Runtime: it does not say its version".to_owned()
        }
        LoadDynamicError::BadVersion { version_str, .. } => {
            format!(
                "ONNX Runtime {version_str} is too old, expected {OLDEST} or newer (tested: {})",
                TESTED.join(", ")
            )
        }
    })
}

fn set_up() -> Result<Environment, Error> {
    let environment = catch_unwind(|| {
        ort::init().with_name("salver").with_telemetry(false).with_logger(Arc::new(log)).build()
    });
    let environment = environment
        .map_err(|_| Error::new(ErrorKind::Unsupported, "ONNX Runtime cannot be set up"))?
        .map_err(|error| {
            Error::new(ErrorKind::Unsupported, format!("ONNX Runtime cannot be set up: {error}"))
        })?;
    environment.set_log_level(LogLevel::Error);
    Ok(environment)
}

/// What the library logs. All its errors come back to the caller too, who knows whose fault they are; so they are for
/// those who look for them.
fn log(level: LogLevel, category: &str, _id: &str, location: &str, message: &str) {
    match level {
        LogLevel::Fatal => tracing::error!(target: "onnxruntime", category, location, "{message}"),
        LogLevel::Error => tracing::debug!(target: "onnxruntime", category, location, "{message}"),
        LogLevel::Warning | LogLevel::Info | LogLevel::Verbose => {
            tracing::trace!(target: "onnxruntime", category, location, "{message}");
        }
    }
}

/// The second number of a version; all have 1 as the first.
fn minor(version: &str) -> u32 {
    version.split('.').nth(1).and_then(|minor| minor.parse().ok()).unwrap_or(0)
}

fn warn_if_untested(path: &Path, version: &str) {
    if !TESTED.contains(&version) {
        let version = if version.is_empty() { "of an unknown version" } else { version };
        tracing::warn!(
            path = %path.display(),
            "ONNX Runtime {version} is not a version that this server is tested with ({})",
            TESTED.join(", ")
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_found_under_its_names() {
        let names = |files: &[&str]| {
            let folder = tempfile::tempdir().unwrap();
            for name in files {
                std::fs::write(folder.path().join(name), name).unwrap();
            }
            file_in(folder.path())
                .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
                .map_err(|error| error.to_string().replace(&*folder.path().to_string_lossy(), "DIR"))
        };
        let with = |version: &str| format!("{}{version}{}", NAMES.0, NAMES.1);
        assert_eq!(names(&[&with(""), &with(".1")]), Ok(with("")));
        assert_eq!(names(&[&with(".1.32.0"), "other.so"]), Ok(with(".1.32.0")));
        assert_eq!(names(&[&with(".1")]), Ok(with(".1")));
        let none = names(&[&with("_providers_shared"), &with(".txt")]).unwrap_err();
        assert!(none.starts_with("DIR: no ONNX Runtime here, expected a file "), "{none}");
        let two = names(&[&with(".1.31.0"), &with(".1.32.0")]).unwrap_err();
        assert!(two.contains("several ONNX Runtimes here"), "{two}");
    }

    #[test]
    fn an_old_library_is_refused_with_its_version() {
        let error =
            open_error(&LoadDynamicError::BadVersion { version_str: "1.16.3".into(), path: "x".into() });
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert_eq!(
            error.to_string(),
            "ONNX Runtime 1.16.3 is too old, expected 1.17 or newer (tested: 1.32.0)"
        );
    }
}
