//! The models: made by Keras or taken from the test data, converted to ONNX, with inputs and TensorFlow's answers to them.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use salver_tensor::{DType, Shape, Tensor};
use serde_json::{Value, json};

use super::Places;
use crate::Common;

const PROGRAM: &str = "crates/bench/python/models.py";

/// A model that is measured.
struct Known {
    name: &'static str,
    title: &'static str,
    /// In the test data; `None` for one that is made.
    path: Option<&'static str>,
    /// Dimensions of one row of the input.
    row: &'static [usize],
}

const KNOWN: [Known; 6] = [
    Known { name: "inception_v3", title: "Inception v3", path: None, row: &[299, 299, 3] },
    Known { name: "mobilenet_v2", title: "MobileNetV2", path: None, row: &[224, 224, 3] },
    Known { name: "resnet_50", title: "ResNet-50", path: None, row: &[224, 224, 3] },
    Known { name: "weather", title: "Weather GRU", path: Some("jena/savedmodel/weather/2"), row: &[120, 14] },
    Known { name: "crayfish", title: "Crayfish", path: Some("crayfish/savedmodel_ffnn/1"), row: &[784] },
    Known { name: "bert_mini", title: "BERT-mini", path: None, row: &[128] },
];

/// A model on disk.
#[derive(Debug, Clone)]
pub(crate) struct Made {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    /// The SavedModel.
    pub(crate) saved_model: PathBuf,
    /// The same as `salver convert` writes it.
    pub(crate) onnx: PathBuf,
    /// The input in TensorFlow's graph, as `node:0`.
    pub(crate) input_node: String,
    /// The outputs there, in the order of their names.
    pub(crate) output_nodes: Vec<String>,
    /// The version of TensorFlow that made the answers.
    pub(crate) tensorflow: String,
    row: &'static [usize],
    dtype: DType,
    folder: PathBuf,
}

/// Makes what is missing; an empty list of names means all.
pub(crate) fn make(
    common: &Common,
    places: &Places,
    names: &[String],
    batches: &[usize],
) -> Result<Vec<Made>> {
    let unknown: Vec<_> =
        names.iter().filter(|name| KNOWN.iter().all(|known| known.name != **name)).collect();
    let all = KNOWN.map(|known| known.name).join(", ");
    ensure!(unknown.is_empty(), "no models {unknown:?}, expected some of {all}");
    let mut models = Vec::new();
    for known in KNOWN.iter().filter(|known| names.is_empty() || names.iter().any(|name| name == known.name))
    {
        let path = match (known.path, &common.testdata) {
            (Some(path), Some(data)) => Some(data.join(path)),
            (Some(_), None) => {
                println!("{} is left out: SALVER_TESTDATA is not set", known.title);
                continue;
            }
            (None, _) => None,
        };
        models.push((known, path));
    }
    let asked: Vec<Value> = models
        .iter()
        .map(|(known, path)| json!({ "name": known.name, "path": path, "row": known.row }))
        .collect();
    let request = json!({ "folder": places.folder, "batches": batches, "models": asked });
    let answers = python(&places.python, &request)?;
    ensure!(answers.len() == models.len(), "TensorFlow's process told of {} models", answers.len());
    let made = models.iter().zip(&answers).map(|((known, _), about)| Made::new(known, about, common, places));
    made.collect()
}

/// Asks the program in Python and gives its lines.
fn python(python: &Path, request: &Value) -> Result<Vec<Value>> {
    println!("making models and TensorFlow's answers ...");
    let mut child = Command::new(python)
        .arg(PROGRAM)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", python.display()))?;
    write!(child.stdin.take().context("the program's standard input")?, "{request}")?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "{PROGRAM} failed");
    let lines = String::from_utf8(output.stdout)?;
    lines.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
}

impl Made {
    fn new(known: &Known, about: &Value, common: &Common, places: &Places) -> Result<Made> {
        let text = |key: &str| about[key].as_str().with_context(|| format!("{key} of {about}"));
        let dtype = match text("dtype")? {
            "float32" => DType::F32,
            "int32" => DType::I32,
            other => bail!("{}: an input of {other}", known.name),
        };
        let saved_model = PathBuf::from(text("path")?);
        let onnx = places.folder.join(format!("{}.onnx", known.name));
        let mut convert = Command::new(&common.salver);
        let status =
            convert.arg("convert").arg(&saved_model).arg("-o").arg(&onnx).stdout(Stdio::null()).status();
        let status = status.with_context(|| format!("cannot start {}", common.salver.display()))?;
        ensure!(status.success(), "{} cannot be converted", known.name);
        Ok(Made {
            name: known.name,
            title: known.title,
            saved_model,
            onnx,
            input_node: text("input")?.to_owned(),
            output_nodes: about["outputs"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect(),
            tensorflow: text("tensorflow")?.to_owned(),
            row: known.row,
            dtype,
            folder: places.folder.clone(),
        })
    }

    /// The input for a batch of a size that was asked for.
    pub(crate) fn input(&self, batch: usize) -> Result<Tensor> {
        let dims: Vec<usize> = [batch].into_iter().chain(self.row.iter().copied()).collect();
        let bytes = self.read(batch, "in")?;
        let shape = Shape::new(&dims)?;
        // Made of elements, so that it lies where engines can use it in place.
        Ok(match self.dtype {
            DType::F32 => Tensor::from_vec(shape, floats(&bytes))?,
            _ => {
                Tensor::from_vec(shape, bytes.as_chunks().0.iter().map(|b| i32::from_le_bytes(*b)).collect())?
            }
        })
    }

    /// What TensorFlow answers: the elements of all outputs, in the order of their names.
    pub(crate) fn answer(&self, batch: usize) -> Result<Vec<f32>> {
        Ok(floats(&self.read(batch, "out")?))
    }

    fn read(&self, batch: usize, ending: &str) -> Result<Vec<u8>> {
        let path = self.folder.join(format!("{}.{batch}.{ending}", self.name));
        std::fs::read(&path).with_context(|| path.display().to_string())
    }
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}
