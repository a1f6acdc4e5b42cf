//! What a path on the command line means: a model file, a version folder, a model folder with numeric versions, or a
//! folder of models.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use salver_engine::{ErrorKind, ModelSource};
use salver_lifecycle::Version;

use crate::settings;

/// One model found at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// The name that it is served under.
    pub(crate) name: String,
    /// The model file, the version folder, or the folder with the versions.
    pub(crate) path: PathBuf,
    /// The version that a single file or version folder is served as.
    pub(crate) version: Option<u64>,
}

/// What a path holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Layout {
    /// A model file, or a folder that is one version.
    Single,
    /// A folder with numeric version folders.
    Versions,
    /// A folder whose children are models.
    Models,
}

/// Says what a path holds. Blocks on the file system.
///
/// # Errors
/// When the path does not exist or holds no model; the text says what was expected.
pub(crate) fn layout(path: &Path) -> anyhow::Result<Layout> {
    if !path.is_dir() {
        return single(path);
    }
    let children = children(path)?;
    if children.iter().any(|child| version_number(child).is_some()) {
        return Ok(Layout::Versions);
    }
    match ModelSource::find(path) {
        // One model file beside folders with models is one model of several.
        Ok(source)
            if source.path != path && children.iter().any(|child| child.is_dir() && is_model(child)) =>
        {
            Ok(Layout::Models)
        }
        Ok(_) => Ok(Layout::Single),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            if children.iter().any(|child| is_model(child)) {
                return Ok(Layout::Models);
            }
            bail!(
                "{}: no model found (expected a model file such as .onnx, numeric version folders, or folders with models)",
                path.display()
            )
        }
        // Several model files side by side are several models, each named by its file.
        Err(error) if error.kind() == ErrorKind::InvalidModel => Ok(Layout::Models),
        Err(error) => Err(error.into()),
    }
}

fn single(path: &Path) -> anyhow::Result<Layout> {
    if !path.exists() {
        bail!("{}: no such file or folder", path.display());
    }
    ModelSource::find(path)?;
    Ok(Layout::Single)
}

/// The models at a path, sorted by name, and the children of a folder of models that are none.
///
/// # Errors
/// As [`fn@layout`].
pub(crate) fn discover(path: &Path) -> anyhow::Result<(Vec<Found>, Vec<PathBuf>)> {
    // The name comes from the path as it is meant: `.` and a trailing slash have none.
    let path = &path.canonicalize().with_context(|| path.display().to_string())?;
    match layout(path)? {
        Layout::Single => Ok((vec![single_model(path)], Vec::new())),
        Layout::Versions => {
            Ok((vec![Found { name: stem(path), path: path.clone(), version: None }], Vec::new()))
        }
        Layout::Models => {
            let (models, others): (Vec<_>, Vec<_>) =
                children(path)?.into_iter().partition(|child| is_model(child));
            let mut found = Vec::with_capacity(models.len());
            for child in models {
                found.extend(discover(&child)?.0);
            }
            found.sort_by(|a: &Found, b| a.name.cmp(&b.name));
            Ok((found, others))
        }
    }
}

/// A numeric version folder keeps its number and lends its parent's name; anything else is version 1 by its own name.
fn single_model(path: &Path) -> Found {
    let version = version_number(path).filter(|_| path.is_dir());
    let named_by = version.and_then(|_| path.parent()).unwrap_or(path);
    Found { name: stem(named_by), path: path.to_path_buf(), version: Some(version.unwrap_or(1)) }
}

/// A model, but not a folder of models: those do not nest.
fn is_model(child: &Path) -> bool {
    matches!(layout_of_child(child), Some(Layout::Single | Layout::Versions))
}

fn layout_of_child(child: &Path) -> Option<Layout> {
    if !child.is_dir() {
        return single(child).ok();
    }
    if children(child).ok()?.iter().any(|grandchild| version_number(grandchild).is_some()) {
        return Some(Layout::Versions);
    }
    ModelSource::find(child).ok().map(|_| Layout::Single)
}

fn children(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let context = || path.display().to_string();
    let mut children = Vec::new();
    for entry in std::fs::read_dir(path).with_context(context)? {
        let child = entry.with_context(context)?.path();
        let is_hidden = child.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if !is_hidden && !settings::is_settings(&child) {
            children.push(child);
        }
    }
    children.sort();
    Ok(children)
}

/// The number of a version folder.
pub(crate) fn version_number(path: &Path) -> Option<u64> {
    salver_store::version_number(path.file_name()?.to_str()?).map(Version::get)
}

fn stem(path: &Path) -> String {
    let name = if path.is_dir() { path.file_name() } else { path.file_stem() };
    name.map_or_else(|| "default".to_owned(), |name| name.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for file in files {
            let path = dir.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, b"\x08\x08").unwrap();
        }
        dir
    }

    fn check(files: &[&str], path: &str, expected: &[(&str, Option<u64>)]) {
        let dir = tree(files);
        let (found, _) = discover(&dir.path().join(path)).unwrap();
        let found: Vec<_> = found.iter().map(|model| (model.name.as_str(), model.version)).collect();
        assert_eq!(found, expected, "{files:?} at {path}");
    }

    #[test]
    fn a_path_is_told_by_its_content() {
        check(&["net.onnx"], "net.onnx", &[("net", Some(1))]);
        check(&["net/model.onnx"], "net", &[("net", Some(1))]);
        check(&["net/7/model.onnx"], "net/7", &[("net", Some(7))]);
        check(&["net/1/model.onnx", "net/2/model.onnx"], "net", &[("net", None)]);
        check(
            &["all/a/1/m.onnx", "all/b.onnx", "all/b.onnx.salver.toml", "all/c/m.onnx", "all/notes.txt"],
            "all",
            &[("a", None), ("b", Some(1)), ("c", Some(1))],
        );
        check(&["all/a.onnx", "all/b.onnx"], "all", &[("a", Some(1)), ("b", Some(1))]);
    }

    #[test]
    fn nothing_to_serve_is_said_clearly() {
        let dir = tree(&["empty/readme.txt"]);
        for (path, expected) in [("empty", "no model found"), ("missing", "No such file")] {
            let error = format!("{:#}", discover(&dir.path().join(path)).unwrap_err());
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn version_numbers_follow_the_rule() {
        for (name, number) in [
            ("1", Some(1)),
            ("00000123", Some(123)),
            ("-1", None),
            ("+1", None),
            ("1a", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(version_number(Path::new(name)), number, "{name}");
        }
    }
}
