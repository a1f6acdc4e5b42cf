//! Any bytes as a record of any format. The first byte picks the plan.
#![no_main]

use std::sync::LazyLock;
use std::time::Duration;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use salver_mapping::{About, Plan, Settings};
use salver_predict::{ModelName, Version};
use salver_records::{Record, Slot};
use salver_tensor::{DType, Dims, Shape, Signature, Tensor, TensorSpec};

const PLANS: [(&str, DType, &[Option<usize>]); 11] = [
    ("", DType::F32, &[None, Some(3)]),
    ("[[input.tensors]]\ninput = \"x\"\nfields = [\"a\", \"b.c[1]\", \"d\"]\nmissing = 0", DType::F64, &[None, Some(3)]),
    ("", DType::I64, &[None, None]),
    ("", DType::String, &[None]),
    ("[input]\nformat = \"csv\"", DType::F32, &[None, Some(3)]),
    ("[input]\nformat = \"raw\"", DType::F32, &[None, Some(3)]),
    ("[input]\nformat = \"predict_request\"", DType::F32, &[None, Some(3)]),
    ("[input]\nformat = \"example\"", DType::F32, &[None, Some(3)]),
    ("[input]\nformat = \"avro\"\nschema = { file = \"avro\" }", DType::F32, &[None, Some(3)]),
    (
        "[input]\nformat = \"protobuf\"\nschema = { file = \"proto\" }\n[output]\nformat = \"json\"",
        DType::F32,
        &[None, Some(3)],
    ),
    ("[input]\nformat = \"image\"\n[input.limits]\nmax_pixels = 65536", DType::F32, &[None, Some(8), Some(8), Some(3)]),
];

const AVRO: &str = r#"{"type": "record", "name": "R", "fields": [{"name": "x", "type": {"type": "array", "items": ["float", "long"]}},
    {"name": "more", "type": ["null", "R", {"type": "map", "values": ["bytes", "R"]}]},
    {"name": "d", "type": {"type": "bytes", "logicalType": "decimal", "precision": 20, "scale": 3}}]}"#;
const PROTO: &str = "syntax = \"proto3\"; message R { repeated float x = 1; R more = 2; map<string, R> named = 3; oneof o { int64 n = 4; string s = 5; } }";

fn spec(name: &str, dtype: DType, dims: &[Option<usize>]) -> TensorSpec {
    TensorSpec { name: name.into(), tensor_name: name.into(), dtype, dims: Dims::new(dims.to_vec()), default: None }
}

static COMPILED: LazyLock<Vec<(Plan, Signature)>> = LazyLock::new(|| {
    let compile = |&(text, dtype, dims): &(&str, DType, &[Option<usize>])| {
        let outputs = vec![spec("y", DType::F32, &[None, Some(1)])];
        let signature = Signature::new("serving_default", "", vec![spec("x", dtype, dims)], outputs);
        let mut settings: Settings = toml::from_str(text).unwrap();
        let schema = |name: &str| Ok::<_, String>(if name == "avro" { AVRO } else { PROTO }.to_owned());
        settings.input.schema.load(&mut { schema }).unwrap();
        (Plan::new(&settings, &signature, None, None, None).unwrap(), signature)
    };
    PLANS.iter().map(compile).collect()
});

fuzz_target!(|data: &[u8]| {
    let Some((&first, content)) = data.split_first() else { return };
    let (plan, signature) = &COMPILED[usize::from(first) % PLANS.len()];
    let value = Some(Bytes::copy_from_slice(content));
    let record = Record { slot: Slot(0), offset: 0, key: None, value, headers: Vec::new(), timestamp_ms: None };
    let Ok(decoded) = plan.decode(&record) else { return };
    let Ok(inputs) = plan.inputs(&decoded, &[]) else { return };
    assert!(signature.inputs()[0].dims.accepts(inputs[0].shape()));
    let n_rows = inputs[0].shape().n_rows().unwrap();
    let output = Tensor::from_vec(Shape::new(&[n_rows, 1]).unwrap(), vec![0.5f32; n_rows]).unwrap();
    let model = ModelName::new("m").unwrap();
    let about = About { model: &model, version: Version(1), latency: Duration::ZERO };
    let _ = plan.encode(&record, &decoded, &inputs, &[output], &about);
});
