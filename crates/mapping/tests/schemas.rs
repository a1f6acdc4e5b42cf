//! Plans over records of a schema registry: from the settings' text to what is written.
#![allow(clippy::unwrap_used, reason = "a test whose input is wrong should stop")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use salver_mapping::{
    About, Plan, Reference, Schema, SchemaError, SchemaKind, Schemas, Settings, Unregistered,
};
use salver_predict::{ModelName, Version};
use salver_records::{Header, Record, Slot};
use salver_tensor::{DType, Dims, Shape, Signature, Tensor, TensorSpec};
use serde_json::Value as Json;

const GOLDEN: &str = include_str!("../testdata/schemas/golden.json");

/// Schemas by id, from 1.
#[derive(Debug, Default)]
struct Book(Mutex<Vec<Schema>>);

impl Schemas for Book {
    fn get(&self, id: u32) -> Result<Arc<Schema>, SchemaError> {
        let index = usize::try_from(id).unwrap() - 1;
        let found = self.0.lock().unwrap().get(index).cloned();
        found.map(Arc::new).ok_or(SchemaError { message: format!("no schema {id}"), passing: true })
    }

    fn latest(&self, subject: &str) -> Result<(u32, Arc<Schema>), SchemaError> {
        Err(SchemaError { message: format!("no subject {subject}"), passing: false })
    }

    fn guid(&self, _: &str) -> Result<Arc<Schema>, SchemaError> {
        self.get(1)
    }

    fn id_of(&self, _: &str, schema: &Schema, unknown: Unregistered) -> Result<u32, SchemaError> {
        assert_eq!(unknown, Unregistered::Register);
        let mut all = self.0.lock().unwrap();
        all.push(schema.clone());
        Ok(u32::try_from(all.len()).unwrap())
    }
}

fn golden(name: &str) -> Json {
    let all: Vec<Json> = serde_json::from_str(GOLDEN).unwrap();
    all.into_iter().find(|case| case["name"] == name).unwrap()
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

fn record(case: &Json) -> Record {
    let header = |(name, value): (&String, &Json)| Header {
        name: name.as_str().into(),
        value: Some(hex(value.as_str().unwrap()).into()),
    };
    Record {
        slot: Slot(0),
        offset: 0,
        key: None,
        value: Some(hex(case["record"].as_str().unwrap()).into()),
        headers: case["headers"]
            .as_object()
            .map(|headers| headers.iter().map(header).collect())
            .unwrap_or_default(),
        timestamp_ms: None,
    }
}

fn signature(n_inputs: usize) -> Signature {
    let spec = |name: &str, n| TensorSpec {
        name: name.into(),
        tensor_name: name.into(),
        dtype: DType::F32,
        dims: Dims::new(vec![None, Some(n)]),
        default: None,
    };
    Signature::new("serving_default", "", vec![spec("x", n_inputs)], vec![spec("y", 2)])
}

fn plan(toml: &str, n_inputs: usize, book: &Arc<Book>) -> Plan {
    let settings: Settings = toml::from_str(toml).unwrap();
    Plan::new(&settings, &signature(n_inputs), None, None, Some(Arc::clone(book) as Arc<dyn Schemas>))
        .unwrap()
}

/// The model's input for a record, and what is written for the answer [0.25, 0.75].
fn run(plan: &Plan, record: &Record) -> (Vec<f32>, Bytes) {
    let decoded = plan.decode(record).unwrap();
    let inputs = plan.inputs(&decoded, &[]).unwrap();
    let outputs = [Tensor::from_vec(Shape::new(&[1, 2]).unwrap(), vec![0.25f32, 0.75]).unwrap()];
    let model = ModelName::new("m").unwrap();
    let about = About { model: &model, version: Version(1), latency: Duration::from_millis(1) };
    let written = plan.encode(record, &decoded, &inputs, &outputs, &about).unwrap();
    (inputs[0].as_slice::<f32>().unwrap().to_vec(), written.value.unwrap())
}

fn avro_book() -> Arc<Book> {
    let text = golden("avro framed")["schema"].to_string();
    Arc::new(Book(Mutex::new(vec![Schema { kind: SchemaKind::Avro, text, references: vec![] }])))
}

#[test]
fn avro_records_are_scored_and_answers_appended() {
    let book = avro_book();
    let toml = r#"
        [input]
        format = "avro"
        [[input.tensors]]
        input = "x"
        fields = ["temperature", "pressure", "wind", "grid[2]", "count"]
        [output.schema]
        auto_register = true
        subject = "out-value"
    "#;
    for name in ["avro framed", "avro with its id in a header"] {
        let record = record(&golden(name));
        let (input, written) = run(&plan(toml, 8, &book), &record);
        assert_eq!(input, [21.5, 1013.25, 0.5, -1.25, 3.0, 5.0, 6.0, -70000.0]);
        let bare = hex(golden("avro plain")["record"].as_str().unwrap());
        assert_eq!(written[5..5 + bare.len()], bare, "the record comes first, as it was");
        // What was written is a record of its own, for the next one in the line.
        let again = Record { value: Some(written), headers: vec![], ..record };
        let toml = r#"
            [input]
            format = "avro"
            [[input.tensors]]
            input = "x"
            fields = ["temperature", "y"]
            [output]
            format = "json"
            mode = "replace"
        "#;
        let (input, written) = run(&plan(toml, 3, &book), &again);
        assert_eq!(input, [21.5, 0.25, 0.75]);
        assert_eq!(serde_json::from_slice::<Json>(&written).unwrap(), serde_json::json!({"y": [0.25, 0.75]}));
    }
}

#[test]
fn avro_answers_alone_are_of_a_schema_of_their_own() {
    let book = avro_book();
    let toml = r#"
        [input]
        format = "avro"
        [[input.tensors]]
        input = "x"
        field = "wind"
        [output]
        mode = "replace"
        [output.schema]
        auto_register = true
        subject = "out-value"
        name = "example.Score"
    "#;
    let (_, written) = run(&plan(toml, 3, &book), &record(&golden("avro framed")));
    // Schema 2, then a block of two floats and its end.
    assert_eq!(written[..], [0, 0, 0, 0, 2, 4, 0, 0, 0x80, 0x3e, 0, 0, 0x40, 0x3f, 0]);
    let registered: Json = serde_json::from_str(&book.0.lock().unwrap()[1].text).unwrap();
    assert_eq!(registered["name"], "example.Score");
}

#[test]
fn protobuf_records_are_scored_and_answered_in_json() {
    let place = Reference {
        name: "example/place.proto".into(),
        text: include_str!("../testdata/schemas/place.proto").into(),
        registered: None,
    };
    let weather = Schema {
        kind: SchemaKind::Protobuf,
        text: include_str!("../testdata/schemas/weather.proto").into(),
        references: vec![place],
    };
    // The golden records have the id 2.
    let book = Arc::new(Book(Mutex::new(vec![weather.clone(), weather])));
    let toml = r#"
        [input]
        format = "protobuf"
        [[input.tensors]]
        input = "x"
        fields = ["temperature", "wind", "place.latitude", "sensors[1].offset", "more.a[0]"]
        [output]
        format = "json"
        mode = "replace"
    "#;
    for name in ["protobuf framed, second message", "protobuf with its id in a header"] {
        let (input, written) = run(&plan(toml, 7, &book), &record(&golden(name)));
        assert_eq!(input, [21.5, 0.5, -1.25, 3.0, 52.5, 4.0, 1.0]);
        assert_eq!(serde_json::from_slice::<Json>(&written).unwrap(), serde_json::json!({"y": [0.25, 0.75]}));
    }
}
