//! The models of the suite and their answers, made by `fixtures/make.py`.

use std::path::{Path, PathBuf};

use half::f16;
use salver_engine::{Format, ModelSource};
use salver_tensor::{DType, Shape, Tensor};
use serde_json::Value;

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

    /// What to load.
    pub fn source(&self) -> ModelSource {
        ModelSource { path: self.path(), format: Format::Onnx }
    }
}

fn case(json: &Value) -> Case {
    let tensors = |json: &Value| {
        let tensors = json.as_object().expect("make.py writes tensors by name");
        tensors.iter().map(|(name, json)| (name.clone(), tensor(json))).collect()
    };
    Case { inputs: tensors(&json["inputs"]), outputs: tensors(&json["outputs"]) }
}

fn tensor(json: &Value) -> Tensor {
    let whole = |json: &Value| json.as_i64().expect("make.py writes whole numbers for whole numbers");
    let dims: Vec<usize> =
        json["shape"].as_array().into_iter().flatten().map(|dim| whole(dim) as usize).collect();
    let data = json["data"].as_array().expect("make.py writes the elements");
    let shape = Shape::new(&dims).expect("fixtures are small");
    macro_rules! whole_numbers {
        ($t:ty) => {
            Tensor::from_vec(
                shape,
                data.iter().map(|x| <$t>::try_from(whole(x)).expect("in range")).collect(),
            )
        };
    }
    let made = match json["dtype"].as_str().expect("make.py writes the element type") {
        "float32" => Tensor::from_vec(shape, data.iter().map(|x| float(x) as f32).collect()),
        "float64" => Tensor::from_vec(shape, data.iter().map(float).collect()),
        "float16" => Tensor::from_vec(shape, data.iter().map(|x| f16::from_f64(float(x))).collect()),
        "int8" => whole_numbers!(i8),
        "int32" => whole_numbers!(i32),
        "int64" => whole_numbers!(i64),
        "uint8" => whole_numbers!(u8),
        "uint16" => whole_numbers!(u16),
        "uint32" => whole_numbers!(u32),
        "bool" => Tensor::from_bools(shape, &data.iter().map(|x| whole(x) != 0).collect::<Vec<_>>()),
        other => panic!("unknown element type {other}"),
    };
    made.expect("make.py writes as many elements as the shape asks for")
}

fn float(json: &Value) -> f64 {
    json.as_f64()
        .unwrap_or_else(|| json.as_str().and_then(|text| text.parse().ok()).expect("a number or its name"))
}

/// The largest difference of two tensors of one element type and shape, relative to numbers above one; NaN equals
/// NaN. `None` when element types or shapes differ.
pub(super) fn difference(a: &Tensor, b: &Tensor) -> Option<f64> {
    if a.dtype() != b.dtype() || a.shape() != b.shape() {
        return None;
    }
    let (a, b) = (numbers(a), numbers(b));
    Some(a.iter().zip(&b).map(|(&a, &b)| distance(a, b)).fold(0.0, f64::max))
}

fn distance(a: f64, b: f64) -> f64 {
    if a == b || (a.is_nan() && b.is_nan()) {
        return 0.0;
    }
    let distance = (a - b).abs() / b.abs().max(1.0);
    if distance.is_nan() { f64::INFINITY } else { distance }
}

/// The elements as `f64`; whole numbers of the fixtures are below 2^53.
pub(super) fn numbers(tensor: &Tensor) -> Vec<f64> {
    macro_rules! all {
        ($t:ty, $convert:expr) => {
            tensor.to_slice::<$t>().unwrap_or_default().iter().map($convert).collect()
        };
    }
    match tensor.dtype() {
        DType::F32 => all!(f32, |&x| f64::from(x)),
        DType::F64 => all!(f64, |&x| x),
        DType::F16 => all!(f16, |x| x.to_f64()),
        DType::I8 => all!(i8, |&x| f64::from(x)),
        DType::I32 => all!(i32, |&x| f64::from(x)),
        DType::I64 => all!(i64, |&x| x as f64),
        DType::U8 => all!(u8, |&x| f64::from(x)),
        DType::U16 => all!(u16, |&x| f64::from(x)),
        DType::U32 => all!(u32, |&x| f64::from(x)),
        DType::Bool => tensor.bytes().map(|b| b.iter().map(|&b| f64::from(b)).collect()).unwrap_or_default(),
        other => panic!("no fixture has {other}"),
    }
}
