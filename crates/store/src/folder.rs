use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use salver_lifecycle::Version;

use crate::content::cannot_read;
use crate::{Child, Layout, SourceError, SourceErrorKind, Watched};

/// How much of the disk is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Files and folders within one version, and children of one base path. Default: 100,000.
    pub max_entries: usize,
    /// Folders within folders of one version. Default: 32.
    pub max_depth: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_entries: 100_000, max_depth: 32 }
    }
}

/// The local path that a text names: a path as it is, or one written as `file://PATH`. Every other URI is
/// refused.
pub fn local_path(text: &Path) -> Result<PathBuf, SourceError> {
    let Some((scheme, rest)) = text.to_str().and_then(|text| text.split_once("://")) else {
        return Ok(text.to_owned());
    };
    let is_scheme = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
    match scheme {
        "file" => Ok(rest.into()),
        _ if scheme.is_empty() || !scheme.chars().all(is_scheme) => Ok(text.to_owned()),
        _ => Err(SourceError::new(
            SourceErrorKind::Unsupported,
            format!("base path {} has the scheme {scheme}://, expected a local path", text.display()),
        )),
    }
}

/// What lies at a base path: the versions, from the highest down, and what is odd about them.
pub(crate) fn list(watched: &Watched, limits: &Limits) -> Result<(Vec<Child>, Vec<String>), SourceError> {
    let path = local_path(&watched.base_path)?;
    match watched.layout {
        Layout::Single(version) => {
            fs::metadata(&path).map_err(|error| listing_error(&path, &error))?;
            Ok((vec![Child { version, path }], Vec::new()))
        }
        Layout::Versions => {
            let names = child_names(&path, limits).map_err(|error| listing_error(&path, &error))?;
            Ok(children(&path, names))
        }
    }
}

fn listing_error(path: &Path, error: &io::Error) -> SourceError {
    if error.kind() == io::ErrorKind::NotFound {
        let message = format!("base path {} does not exist", path.display());
        SourceError::new(SourceErrorKind::NotFound, message)
    } else {
        SourceError::new(SourceErrorKind::Unreadable, format!("base path: {}", cannot_read(path, error)))
    }
}

fn child_names(path: &Path, limits: &Limits) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(path)? {
        if names.len() == limits.max_entries {
            return Err(io::Error::other(format!("more than {} entries", limits.max_entries)));
        }
        names.push(entry?.file_name());
    }
    Ok(names)
}

/// The children that are versions. Of several names with one number the last in order counts.
fn children(base_path: &Path, mut names: Vec<OsString>) -> (Vec<Child>, Vec<String>) {
    names.sort_unstable();
    let mut found: BTreeMap<Version, &OsString> = BTreeMap::new();
    let mut warnings = Vec::new();
    for name in &names {
        let Some(version) = name.to_str().and_then(version_number) else { continue };
        if let Some(other) = found.insert(version, name) {
            warnings.push(format!(
                "{} and {} in {} both name version {version}; the latter counts",
                other.display(),
                name.display(),
                base_path.display()
            ));
        }
    }
    let child = |(version, name): (Version, &OsString)| Child { version, path: base_path.join(name) };
    (found.into_iter().rev().map(child).collect(), warnings)
}

/// The version that a child's name stands for: decimal digits, with any number of leading zeros, that fit an `i64`.
pub fn version_number(name: &str) -> Option<Version> {
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    name.parse().ok().and_then(Version::new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use salver_lifecycle::ModelName;

    #[test]
    fn paths_and_uris() {
        let check = |text: &str, expected: Result<&str, &str>| {
            let got = local_path(Path::new(text));
            let got = got.as_ref().map(|path| path.to_str().unwrap()).map_err(ToString::to_string);
            assert_eq!(got, expected.map_err(str::to_owned), "{text}");
        };
        check("/models/m", Ok("/models/m"));
        check("m", Ok("m"));
        check("file:///models/m", Ok("/models/m"));
        check("/odd/a://b", Ok("/odd/a://b"));
        check("gs://bucket/m", Err("base path gs://bucket/m has the scheme gs://, expected a local path"));
        check("s3://b", Err("base path s3://b has the scheme s3://, expected a local path"));
    }

    #[test]
    fn children_that_are_versions() {
        let check = |names: &[&str], expected: &[(u64, &str)], n_warnings: usize| {
            let names = names.iter().map(OsString::from).collect();
            let (children, warnings) = children(Path::new("/m"), names);
            let got: Vec<_> = children.iter().map(|c| (c.version.get(), c.path.to_str().unwrap())).collect();
            assert_eq!(got, expected);
            assert_eq!(warnings.len(), n_warnings, "{warnings:?}");
        };
        check(&[], &[], 0);
        check(&["2", "10", "tmp", "1.tmp", "-1", "+3", " 4", ""], &[(10, "/m/10"), (2, "/m/2")], 0);
        check(&["00000123"], &[(123, "/m/00000123")], 0);
        check(&["1", "01", "001"], &[(1, "/m/1")], 2);
        check(&["9223372036854775807"], &[(i64::MAX as u64, "/m/9223372036854775807")], 0);
        check(&["9223372036854775808", "99999999999999999999999"], &[], 0);
        check(&["0"], &[(0, "/m/0")], 0);
    }

    #[test]
    fn base_paths_that_cannot_be_listed() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), "").unwrap();
        for n in 0..3 {
            fs::create_dir_all(folder.path().join(format!("full/{n}"))).unwrap();
        }
        let limits = Limits { max_entries: 2, max_depth: 1 };
        let check = |name: &str, kind: SourceErrorKind, text: &str| {
            let watched = Watched::new(ModelName::new("m").unwrap(), folder.path().join(name));
            let error = list(&watched, &limits).unwrap_err();
            assert_eq!(error.kind, kind, "{error}");
            assert!(error.message.contains(text) && error.message.contains(name), "{error}");
        };
        check("missing", SourceErrorKind::NotFound, "does not exist");
        check("file", SourceErrorKind::Unreadable, "cannot read");
        check("full", SourceErrorKind::Unreadable, "more than 2 entries");
    }
}
