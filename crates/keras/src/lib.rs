//! Reads Keras models into a graph: `.h5`, `.keras`, weights beside an architecture JSON.
//!
//! Keras 1 as far as it goes, Keras 2, tf.keras and Keras 3; sequential and functional models. What a model is made of
//! comes from its JSON, the numbers from HDF5. Nothing in the file is run: layers that are Python code are refused by
//! name. Nothing the file says about sizes is trusted.
//!
//! This room knows nothing of engines, paths or threads: it takes bytes and gives a [`Model`].

mod activation;
mod architecture;
mod archive;
mod config;
mod emit;
mod keras_one;
mod layers;
mod legacy;
mod network;
mod signature;
mod store;
mod weights;

use bytes::Bytes;
use salver_graph::{Error, Model};

use crate::architecture::Architecture;
use crate::archive::Archive;
use crate::store::Store;

/// The kinds of files that Keras writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// HDF5: a whole model, or weights alone.
    Hdf5,
    /// A zip with configuration and weights.
    Keras,
}

impl FileKind {
    /// Tells a file by its first bytes; `None` when it is neither.
    pub fn of(head: &[u8]) -> Option<FileKind> {
        if head.starts_with(store::MAGIC) {
            Some(FileKind::Hdf5)
        } else if head.starts_with(archive::MAGIC) {
            Some(FileKind::Keras)
        } else {
            None
        }
    }
}

/// Imports a model from the bytes of a `.h5` or `.keras` file. `architecture` is the model's JSON (`model.to_json()`),
/// needed for a file that holds weights only; for a whole model it is left aside. The weights share the file's memory
/// only as far as the formats allow: most are copied once.
///
/// Blocks for as long as the reading takes. Memory is bounded by a multiple of the file's size.
///
/// # Errors
/// Says the part of the file or the layer: a file that is broken, weights without architecture, layers that are not
/// known here or hold code.
pub fn import(file: &Bytes, architecture: Option<&[u8]>) -> Result<Model, Error> {
    match FileKind::of(file) {
        Some(FileKind::Keras) => {
            let archive = Archive::read(file)?;
            let version = archive.metadata.as_deref().and_then(|json| serde_json::from_slice(json).ok());
            let version =
                version.as_ref().and_then(|value: &serde_json::Value| value["keras_version"].as_str());
            let model = Architecture::read(&archive.config, version.or(Some("3")))?;
            let store = archive.weights.map(|bytes| Store::open(bytes, "model.weights.h5")).transpose()?;
            signature::import(&model, store.as_ref(), archive.assets)
        }
        Some(FileKind::Hdf5) => {
            let store = Store::open(file.clone(), "the file")?;
            let config = store.text("", "model_config")?;
            let version = match store.text("", "keras_version")? {
                Some(version) => Some(version),
                None => store.text("model_weights", "keras_version")?,
            };
            let model = match (&config, architecture) {
                (Some(config), _) => Architecture::read(config.as_bytes(), version.as_deref())?,
                (None, Some(json)) => Architecture::read(json, version.as_deref())?,
                (None, None) if weights::has_weights(&store)? => {
                    return Err(Error::invalid(
                        "weights without architecture: put the model's JSON (model.to_json()) beside the file, or save \
                         the whole model (model.save)",
                    ));
                }
                (None, None) => return Err(Error::invalid("an HDF5 file without a Keras model")),
            };
            signature::import(&model, Some(&store), Default::default())
        }
        None => Err(Error::invalid("neither HDF5 nor zip, expected a Keras model (.h5 or .keras)")),
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests read where the test data lies from the environment")]
mod tests;
