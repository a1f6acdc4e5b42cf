//! Plans from settings, over whole records.
#![allow(clippy::unwrap_used, reason = "a test whose input is wrong should stop")]

mod formats;
mod hostile;
mod properties;
mod refusals;

use std::time::Duration;

use bytes::Bytes;
use salver_mapping::{About, Plan, Refused, Settings, Written};
use salver_predict::{ModelName, Version};
use salver_records::{Record, Slot};
use salver_tensor::{DType, Dims, Shape, Signature, Tensor, TensorSpec};

/// An input or output; `None` is an open dimension.
fn spec(name: &str, dtype: DType, dims: &[Option<usize>]) -> TensorSpec {
    TensorSpec {
        name: name.into(),
        tensor_name: name.into(),
        dtype,
        dims: Dims::new(dims.to_vec()),
        default: None,
    }
}

fn signature(inputs: Vec<TensorSpec>, outputs: Vec<TensorSpec>) -> Signature {
    Signature::new("serving_default", "tensorflow/serving/predict", inputs, outputs)
}

/// One input `x` of rows of `n` floats, one output `y` of rows of `m`.
fn floats(n: usize, m: usize) -> Signature {
    signature(vec![spec("x", DType::F32, &[None, Some(n)])], vec![spec("y", DType::F32, &[None, Some(m)])])
}

fn settings(text: &str) -> Settings {
    toml::from_str(text).unwrap()
}

fn plan(text: &str, signature: &Signature) -> Plan {
    Plan::new(&settings(text), signature, None, None, None).unwrap()
}

fn record(content: impl Into<Bytes>) -> Record {
    Record {
        slot: Slot(0),
        offset: 0,
        key: None,
        value: Some(content.into()),
        headers: Vec::new(),
        timestamp_ms: None,
    }
}

fn tensor(dims: &[usize], elements: &[f32]) -> Tensor {
    Tensor::from_vec(Shape::new(dims).unwrap(), elements.to_vec()).unwrap()
}

fn inputs(plan: &Plan, content: impl Into<Bytes>) -> Result<Vec<Tensor>, Refused> {
    plan.inputs(&plan.decode(&record(content))?, &[])
}

/// The answer to a record, for a model that gives these outputs.
fn answer(plan: &Plan, content: impl Into<Bytes>, outputs: &[Tensor]) -> Result<Written, Refused> {
    let record = record(content);
    let decoded = plan.decode(&record)?;
    let inputs = plan.inputs(&decoded, &[])?;
    let model = ModelName::new("m").unwrap();
    let about = About { model: &model, version: Version(7), latency: Duration::from_micros(1500) };
    plan.encode(&record, &decoded, &inputs, outputs, &about)
}

fn text(written: Result<Written, Refused>) -> String {
    String::from_utf8(written.unwrap().value.unwrap().to_vec()).unwrap()
}
