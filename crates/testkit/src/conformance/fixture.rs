//! The models of the suite and their answers, made by `fixtures/make.py`.

use std::path::{Path, PathBuf};

use salver_engine::{Engine, Format, ModelSource};
use salver_tensor::Tensor;
use serde_json::Value;

use super::elements::tensor;

/// One model and what it answers.
#[derive(Debug, Clone)]
pub struct Fixture {
    /// The folder that it lies in.
    folder: PathBuf,
    /// The file's name without its ending.
    pub name: String,
    /// Whether the first dimension of all inputs and outputs is a batch of independent rows.
    pub has_rows: bool,
    /// The relative difference from the stored answers that is allowed.
    pub tolerance: f64,
    /// Inputs and their answers.
    pub cases: Vec<Case>,
}

/// Inputs by name and the answers to them.
#[derive(Debug, Clone)]
pub struct Case {
    /// All inputs of the model.
    pub inputs: Vec<(String, Tensor)>,
    /// All outputs of the model.
    pub outputs: Vec<(String, Tensor)>,
}

fn own_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

/// All fixtures of this crate, by name.
pub(super) fn all() -> Vec<Fixture> {
    all_in(&own_folder())
}

/// All fixtures of a folder, by name.
pub(super) fn all_in(folder: &Path) -> Vec<Fixture> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut names: Vec<String> = entries
        .filter_map(|entry| Some(entry.ok()?.file_name().to_str()?.strip_suffix(".onnx")?.to_owned()))
        .collect();
    names.sort();
    names.iter().map(|name| Fixture::read_in(folder, name)).collect()
}

impl Fixture {
    /// Reads a fixture of this crate.
    ///
    /// # Panics
    /// When there is none of this name.
    pub fn read(name: &str) -> Fixture {
        Fixture::read_in(&own_folder(), name)
    }

    fn read_in(folder: &Path, name: &str) -> Fixture {
        let path = folder.join(format!("{name}.json"));
        let text = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let json: Value = serde_json::from_slice(&text).expect("make.py writes JSON");
        let cases = json["cases"].as_array().expect("make.py writes cases").iter().map(case).collect();
        Fixture {
            folder: folder.to_owned(),
            name: name.to_owned(),
            has_rows: json["rows"].as_bool().expect("make.py writes rows"),
            tolerance: json["tolerance"].as_f64().expect("make.py writes a tolerance"),
            cases,
        }
    }

    /// Where the model lies.
    pub fn path(&self) -> PathBuf {
        self.folder.join(format!("{}.onnx", self.name))
    }

    /// What to load, for engines that read ONNX.
    pub fn source(&self) -> ModelSource {
        ModelSource { path: self.path(), format: Format::Onnx }
    }

    /// What this engine is to load: the ONNX model, or the same written as a SavedModel. `None` when there is no form that
    /// it reads.
    pub fn source_for(&self, engine: &dyn Engine) -> Option<ModelSource> {
        if engine.supports(Format::Onnx) {
            return Some(self.source());
        }
        let path = self.folder.join("saved_models").join(&self.name);
        (engine.supports(Format::SavedModel) && path.is_dir())
            .then_some(ModelSource { path, format: Format::SavedModel })
    }
}

fn case(json: &Value) -> Case {
    let tensors = |json: &Value| {
        let tensors = json.as_object().expect("make.py writes tensors by name");
        tensors.iter().map(|(name, json)| (name.clone(), tensor(json))).collect()
    };
    Case { inputs: tensors(&json["inputs"]), outputs: tensors(&json["outputs"]) }
}
