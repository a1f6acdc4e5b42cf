//! A model opened to be looked at or converted, not served.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use salver_engine::{ErrorKind, LoadOptions, ModelSource};
use salver_graph::{Model, SignatureGraph};

use crate::discover;

/// An imported model and where it was found.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) source: ModelSource,
    pub(crate) model: Model,
}

/// Finds and imports the model at a path: a model file, a version folder, or a folder with versions, of which the
/// latest is taken. Blocks.
///
/// # Errors
/// When there is no model, or it cannot be imported; the text names the file, and the node or layer.
pub(crate) fn open(path: &Path) -> anyhow::Result<Opened> {
    let source = find(path)?;
    let model = salver_engine_graph::import(&source, &LoadOptions::default())?;
    Ok(Opened { source, model })
}

/// The model at a path, as [`open`] finds it.
pub(crate) fn find(path: &Path) -> anyhow::Result<ModelSource> {
    match ModelSource::find(path) {
        Err(error) if error.kind() == ErrorKind::NotFound && path.is_dir() => match latest(path)? {
            Some(version) => Ok(ModelSource::find(&version)?),
            None => match discover::discover(path) {
                Ok((models, _)) if !models.is_empty() => {
                    let names: Vec<_> = models.iter().map(|model| model.path.display().to_string()).collect();
                    bail!("{}: a folder of models; name one of them: {}", path.display(), names.join(", "))
                }
                _ => Err(error.into()),
            },
        },
        found => Ok(found?),
    }
}

/// Where the model of [`find`] lies as `serve` sees it: the model file, or the version folder. Settings lie beside that.
///
/// # Errors
/// As [`find`].
pub(crate) fn place(path: &Path) -> anyhow::Result<PathBuf> {
    match ModelSource::find(path) {
        Err(error) if error.kind() == ErrorKind::NotFound && path.is_dir() => Ok(latest(path)?.ok_or(error)?),
        found => Ok(found.map(|_| path.to_path_buf())?),
    }
}

/// The version folder with the highest number.
fn latest(path: &Path) -> anyhow::Result<Option<PathBuf>> {
    let mut versions = Vec::new();
    for entry in std::fs::read_dir(path).with_context(|| path.display().to_string())? {
        let child = entry?.path();
        versions.extend(discover::version_number(&child).map(|number| (number, child)));
    }
    Ok(versions.into_iter().max().map(|(_, child)| child))
}

impl Opened {
    /// The signature of that name; without one the default signature, or the only one.
    ///
    /// # Errors
    /// When there is none or several to choose from; the text names them.
    pub(crate) fn signature(&self, name: Option<&str>) -> anyhow::Result<&SignatureGraph> {
        let all = &self.model.signatures;
        let by_name = |name: &str| all.iter().find(|signature| signature.name == name);
        let found = match (name, all.as_slice()) {
            (Some(name), _) => by_name(name),
            (None, [only]) => Some(only),
            (None, _) => by_name(salver_engine::DEFAULT_SIGNATURE),
        };
        if let Some(found) = found {
            return Ok(found);
        }
        let refused = self.model.refused.iter().find(|(refused, _)| Some(refused.as_str()) == name);
        if let Some((name, error)) = refused {
            bail!("signature '{name}' cannot be imported: {error}");
        }
        let names: Vec<_> = all.iter().map(|signature| signature.name.as_str()).collect();
        match name {
            Some(name) => bail!("no signature '{name}' (there is: {})", names.join(", ")),
            None => bail!("several signatures; name one with --signature: {}", names.join(", ")),
        }
    }
}
