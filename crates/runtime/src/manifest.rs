//! What was installed, written beside it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Component, Path};

use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};

use crate::{Error, ErrorKind};

/// The name of the file in a library's folder.
pub(crate) const FILE_NAME: &str = "salver-runtime.json";

/// The folder for licences in a library's folder.
pub(crate) const LICENSES: &str = "LICENSES";

const MAX_BYTES: u64 = 1 << 20;

/// What was installed, from where and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) name: String,
    pub(crate) version: String,
    /// The Python package.
    pub(crate) package: String,
    /// The file name of the wheel.
    pub(crate) wheel: String,
    pub(crate) wheel_sha256: String,
    /// The command that got the wheel, or the path that it was read from.
    pub(crate) from: String,
    /// Seconds since 1970.
    pub(crate) installed_at: u64,
    /// By name in the folder, with `/` between its parts.
    pub(crate) files: BTreeMap<String, Entry>,
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) sha256: String,
    pub(crate) bytes: u64,
}

impl Manifest {
    /// The manifest of a folder; none where the folder was not made by an installation.
    pub(crate) fn read(folder: &Path) -> Result<Option<Manifest>, Error> {
        let path = folder.join(FILE_NAME);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("read", &path, &error)),
        };
        let mut text = Vec::new();
        file.take(MAX_BYTES).read_to_end(&mut text).map_err(|error| Error::io("read", &path, &error))?;
        let broken = |why: String| Error::new(ErrorKind::Damaged, format!("{}: {why}", path.display()));
        let manifest: Manifest =
            serde_json::from_slice(&text).map_err(|error| broken(format!("is no manifest: {error}")))?;
        let is_inside =
            |name: &String| Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
        match manifest.files.keys().find(|name| !is_inside(name)) {
            Some(outside) => Err(broken(format!("names '{outside}', which is not in the folder"))),
            None => Ok(Some(manifest)),
        }
    }

    /// What is wrong with a folder as far as names and sizes tell.
    pub(crate) fn glance(&self, folder: &Path) -> Result<(), Error> {
        self.files.iter().try_for_each(|(name, entry)| {
            let path = folder.join(name);
            let found = std::fs::metadata(&path).map_err(|error| Error::of_file(&path, &error))?;
            if found.len() == entry.bytes {
                return Ok(());
            }
            let text = format!("{name} has {} bytes, expected {}", found.len(), entry.bytes);
            Err(Error::new(ErrorKind::Damaged, text))
        })
    }

    /// Everything that is wrong with a folder; reads all of it.
    pub(crate) fn compare(&self, folder: &Path) -> Vec<Error> {
        let wrong = |(name, entry): (&String, &Entry)| {
            let path = folder.join(name);
            match sha256(&path) {
                Err(error) => Some(Error::of_file(&path, &error)),
                Ok(found) if found != entry.sha256 => {
                    Some(Error::new(ErrorKind::Damaged, format!("{name} has changed (sha256)")))
                }
                Ok(_) => None,
            }
        };
        self.files.iter().filter_map(wrong).collect()
    }
}

/// The SHA-256 of a file, in hexadecimal digits.
pub(crate) fn sha256(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let mut context = Context::new(&SHA256);
    let mut buffer = vec![0; 1 << 18];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex(context.finish().as_ref())),
            n => context.update(&buffer[..n]),
        }
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
