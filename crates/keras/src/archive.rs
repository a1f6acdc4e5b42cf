//! What a `.keras` file holds: a zip of a configuration, weights and vocabularies.

use std::collections::BTreeMap;
use std::io::{Cursor, Read};

use bytes::Bytes;
use salver_graph::Error;
use zip::ZipArchive;

/// The first bytes of a zip with something in it (PKWARE APPNOTE, 4.3.7).
pub(crate) const MAGIC: &[u8] = b"PK\x03\x04";

/// Unpacked bytes may be this many times the file's: Keras stores without compression.
const MAX_EXPANSION: u64 = 16;

/// Unpacked bytes that even a small file may have.
const MIN_BUDGET: u64 = 16 << 20;

const MAX_MEMBERS: usize = 100_000;

/// The members of a `.keras` file, unpacked.
#[derive(Default)]
pub(crate) struct Archive {
    /// `config.json`.
    pub(crate) config: Vec<u8>,
    /// `metadata.json`, if it is there.
    pub(crate) metadata: Option<Vec<u8>>,
    /// `model.weights.h5`, if it is there.
    pub(crate) weights: Option<Bytes>,
    /// What lies under `assets/`, by the path below it.
    pub(crate) assets: BTreeMap<String, Bytes>,
}

impl Archive {
    /// Unpacks the members that matter, within bounds.
    pub(crate) fn read(bytes: &Bytes) -> Result<Archive, Error> {
        let mut budget = (bytes.len() as u64).saturating_mul(MAX_EXPANSION).max(MIN_BUDGET);
        let mut zip = ZipArchive::new(Cursor::new(bytes)).map_err(|error| broken(&error))?;
        if zip.len() > MAX_MEMBERS {
            return Err(Error::too_large(format!(
                "{} files in the archive, expected at most {MAX_MEMBERS}",
                zip.len()
            )));
        }
        let mut archive = Archive::default();
        let mut found = false;
        for at in 0..zip.len() {
            let name = zip.name_for_index(at).unwrap_or_default().to_owned();
            let asset = name.strip_prefix("assets/").filter(|path| !path.is_empty() && !path.ends_with('/'));
            let wanted = matches!(name.as_str(), "config.json" | "metadata.json" | "model.weights.h5");
            if name == "model.weights.npz" {
                return Err(Error::unsupported(
                    "weights as NumPy archive (model.weights.npz): save them as HDF5",
                ));
            }
            if !wanted && asset.is_none() {
                continue;
            }
            let content = member(&mut zip, at, &mut budget).map_err(|error| error.at(format!("'{name}'")))?;
            match (name.as_str(), asset) {
                (_, Some(path)) => {
                    archive.assets.insert(path.to_owned(), Bytes::from(content));
                }
                ("config.json", _) => (archive.config, found) = (content, true),
                ("metadata.json", _) => archive.metadata = Some(content),
                _ => archive.weights = Some(Bytes::from(content)),
            }
        }
        if !found {
            return Err(Error::invalid("a zip without config.json, expected a .keras file"));
        }
        Ok(archive)
    }
}

fn member(zip: &mut ZipArchive<Cursor<&Bytes>>, at: usize, budget: &mut u64) -> Result<Vec<u8>, Error> {
    let file = zip.by_index(at).map_err(|error| broken(&error))?;
    let mut content = Vec::new();
    // The size that the archive claims decides nothing.
    file.take(budget.saturating_add(1))
        .read_to_end(&mut content)
        .map_err(|error| Error::invalid(format!("cannot be unpacked: {error}")))?;
    *budget = budget.checked_sub(content.len() as u64).ok_or_else(|| {
        Error::too_large(format!("unpacks to more than {MAX_EXPANSION} times the size of the archive"))
    })?;
    Ok(content)
}

fn broken(error: &zip::result::ZipError) -> Error {
    Error::invalid(format!("cannot be read as zip: {error}"))
}
