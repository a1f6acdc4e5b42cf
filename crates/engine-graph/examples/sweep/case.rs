//! Cases as `tests/sweep` writes them; its README has the layout.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use salver_tensor::{DType, Shape, Tensor};
use serde::Deserialize;

/// One network in several formats.
#[derive(Debug, Deserialize)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) family: String,
    pub(crate) layer: String,
    pub(crate) options: String,
    /// What may be refused from a Keras file, by name.
    pub(crate) refuse: Option<String>,
    pub(crate) models: Vec<Stored>,
    pub(crate) missing: Vec<Missing>,
    #[serde(skip)]
    pub(crate) folder: PathBuf,
}

/// A model in one format.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Stored {
    pub(crate) format: String,
    pub(crate) path: String,
    pub(crate) runs: Vec<Run>,
    /// Why Keras cannot read its own file.
    pub(crate) unread: Option<String>,
}

impl Stored {
    /// Whether layers have names in it; a graph has only operators.
    pub(crate) fn is_keras(&self) -> bool {
        matches!(&*self.format, "h5" | "keras")
    }
}

/// A format that TensorFlow cannot save.
#[derive(Debug, Deserialize)]
pub(crate) struct Missing {
    pub(crate) format: String,
    pub(crate) reason: String,
}

/// Inputs and TensorFlow's answers to them.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Run {
    pub(crate) signature: Option<String>,
    pub(crate) inputs: Vec<Named>,
    pub(crate) outputs: Vec<Named>,
}

/// A tensor in a file of its own.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Named {
    pub(crate) name: String,
    also: Vec<String>,
    dtype: String,
    shape: Vec<usize>,
    file: String,
}

impl Named {
    pub(crate) fn is_called(&self, name: &str) -> bool {
        self.name == name || self.also.iter().any(|other| other == name)
    }

    pub(crate) fn read(&self, folder: &Path) -> Result<Tensor> {
        let path = folder.join(&self.file);
        let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let shape = Shape::new(&self.shape)?;
        let dtype = DType::ALL.into_iter().find(|dtype| dtype.name() == self.dtype);
        match dtype.with_context(|| format!("unknown element type {}", self.dtype))? {
            DType::String => Ok(Tensor::from_strings(shape, texts(&bytes)?)?),
            dtype => Ok(Tensor::from_bytes(dtype, shape, Bytes::from(bytes))?),
        }
    }
}

/// Each text is its length in four bytes and then its bytes.
fn texts(mut bytes: &[u8]) -> Result<Vec<Bytes>> {
    let mut texts = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk::<4>() {
        let length = usize::try_from(u32::from_le_bytes(*length))?;
        let (text, rest) = rest.split_at_checked(length).context("a text ends early")?;
        texts.push(Bytes::copy_from_slice(text));
        bytes = rest;
    }
    Ok(texts)
}

/// All cases of a folder, by name.
pub(crate) fn read_all(folder: &Path) -> Result<Vec<Case>> {
    let entries = std::fs::read_dir(folder).with_context(|| {
        format!("cannot read {}; `cargo xtask sweep --generate-only` makes it", folder.display())
    })?;
    let mut cases = Vec::new();
    for entry in entries {
        let folder = entry?.path();
        let hidden = folder.file_name().is_none_or(|name| name.to_string_lossy().starts_with('.'));
        let path = folder.join("cases.json");
        if hidden || !path.exists() {
            continue;
        }
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut case: Case =
            serde_json::from_str(&text).with_context(|| format!("{} is not a case", path.display()))?;
        if case.models.is_empty() {
            bail!("{} has no models", path.display());
        }
        case.folder = folder;
        cases.push(case);
    }
    cases.sort_by(|a, b| (&a.family, &a.name).cmp(&(&b.family, &b.name)));
    Ok(cases)
}
