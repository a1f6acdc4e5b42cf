//! Models with Keras' own answers: `testdata/make.py` makes them.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use salver_graph::{Model, evaluate};
use salver_tensor::{DType, Shape, Tensor};
use serde_json::Value as Json;

use crate::import;

/// A tensor as the answers' JSON has it.
fn tensor(json: &Json) -> Tensor {
    let dims: Vec<usize> =
        json["shape"].as_array().unwrap().iter().map(|dim| dim.as_u64().unwrap() as usize).collect();
    let shape = Shape::new(&dims).unwrap();
    let values = json["values"].as_array().unwrap();
    let floats = || values.iter().map(|v| v.as_f64().unwrap_or(f64::NAN));
    let ints = || values.iter().map(|v| v.as_i64().unwrap());
    match json["dtype"].as_str().unwrap() {
        "float32" => Tensor::from_vec(shape, floats().map(|v| v as f32).collect::<Vec<_>>()),
        "float64" => Tensor::from_vec(shape, floats().collect::<Vec<_>>()),
        "int32" => Tensor::from_vec(shape, ints().map(|v| v as i32).collect::<Vec<_>>()),
        "int64" => Tensor::from_vec(shape, ints().collect::<Vec<_>>()),
        "bool" => Tensor::from_bools(shape, &values.iter().map(|v| v.as_bool().unwrap()).collect::<Vec<_>>()),
        "string" => Tensor::from_strings(
            shape,
            values.iter().map(|v| Bytes::copy_from_slice(v.as_str().unwrap().as_bytes())).collect(),
        ),
        other => panic!("type {other}"),
    }
    .unwrap()
}

/// The inputs' names in the graph's order.
fn run(model: &Model, inputs: &dyn Fn(&str) -> Tensor) -> Result<Vec<(String, Tensor)>, String> {
    let signature = &model.signatures[0];
    let given: Vec<Tensor> = signature.inputs.iter().map(|port| inputs(&port.name)).collect();
    let results = evaluate(&signature.graph, &given).map_err(|error| error.to_string())?;
    let names = signature.graph.outputs().map(|(name, _)| name.to_owned());
    Ok(names.zip(results).collect())
}

fn numbers(tensor: &Tensor) -> Vec<f64> {
    match tensor.dtype() {
        DType::F32 => tensor.to_slice::<f32>().unwrap().iter().map(|&v| v.into()).collect(),
        DType::F64 => tensor.to_slice::<f64>().unwrap().to_vec(),
        DType::I32 => tensor.to_slice::<i32>().unwrap().iter().map(|&v| v.into()).collect(),
        DType::I64 => tensor.to_slice::<i64>().unwrap().iter().map(|&v| v as f64).collect(),
        DType::Bool => tensor.bytes().unwrap().iter().map(|&v| v.into()).collect(),
        other => panic!("numbers of {other}"),
    }
}

/// Compares with a tolerance of 1e-4 of the largest value.
fn compare(got: &Tensor, want: &Tensor) -> Result<(), String> {
    if got.shape() != want.shape() || got.dtype() != want.dtype() {
        return Err(format!("{} {}, expected {} {}", got.dtype(), got.shape(), want.dtype(), want.shape()));
    }
    if let (Some(got), Some(want)) = (got.strings(), want.strings()) {
        return if got == want { Ok(()) } else { Err(format!("{got:?}, expected {want:?}")) };
    }
    let (got, want) = (numbers(got), numbers(want));
    let scale = want.iter().filter(|v| v.is_finite()).fold(1e-3f64, |max, v| max.max(v.abs()));
    for (at, (got, want)) in got.iter().zip(&want).enumerate() {
        let same = (got.is_nan() && want.is_nan()) || (got - want).abs() <= 1e-4 * scale;
        if !same {
            return Err(format!("element {at} is {got}, expected {want}"));
        }
    }
    Ok(())
}

/// The bytes of a model's file; one that ends in `.zip` holds the file packed.
fn read(path: &Path) -> Bytes {
    let bytes = std::fs::read(path).unwrap();
    if path.extension().is_none_or(|extension| extension != "zip") {
        return Bytes::from(bytes);
    }
    let mut zip = zip::ZipArchive::new(std::io::Cursor::new(bytes)).unwrap();
    let mut content = Vec::new();
    std::io::copy(&mut zip.by_index(0).unwrap(), &mut content).unwrap();
    Bytes::from(content)
}

fn check(path: &Path, answers: &Json) -> Vec<String> {
    let bytes = read(path);
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    let model = match import(&bytes, None) {
        Ok(model) => model,
        Err(error) => return vec![format!("{name}: {error}")],
    };
    let given = |name: &str| tensor(&answers["inputs"][name]);
    let results = match run(&model, &given) {
        Ok(results) => results,
        Err(error) => return vec![format!("{name}: {error}")],
    };
    let mut wrong = Vec::new();
    for (output, got) in results {
        let json = &answers["outputs"][&output];
        if json.is_null() {
            wrong.push(format!("{name}: an output '{output}' that Keras does not have"));
            continue;
        }
        if let Err(error) = compare(&got, &tensor(json)) {
            wrong.push(format!("{name}: output '{output}': {error}"));
        }
    }
    wrong
}

fn folder() -> PathBuf {
    match std::env::var_os("SALVER_KERAS_CASES") {
        Some(folder) => PathBuf::from(folder),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata"),
    }
}

#[test]
fn models_compute_what_keras_computes() {
    let mut wrong = Vec::new();
    let mut n_checked = 0;
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    for path in files.iter().filter(|path| path.extension().is_some_and(|ext| ext == "json")) {
        let answers: Json = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        for extension in ["keras", "h5", "h5.zip"] {
            let model = path.with_extension(extension);
            if model.exists() {
                n_checked += 1;
                wrong.append(&mut check(&model, &answers));
            }
        }
    }
    assert!(n_checked > 0, "no models in {}", folder().display());
    assert!(wrong.is_empty(), "{} of {n_checked} models:\n{}", wrong.len(), wrong.join("\n"));
}

mod broken;
mod operations;
mod real;
