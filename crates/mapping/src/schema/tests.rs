//! Records that fastavro and Confluent's serializers wrote (`testdata/schemas/make.py`), hostile bytes, and answers read back.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use proptest::prelude::*;
use salver_records::Header;
use serde_json::Value as Json;

use super::avro::Avro;
use super::avro::resolve::Program;
use super::*;
use crate::value::{Kind, Value};
use crate::{Format, RefusedClass, Registered, SchemaError, Schemas, Unregistered};

const GOLDEN: &str = include_str!("../../testdata/schemas/golden.json");
const WEATHER: &str = include_str!("../../testdata/schemas/weather.proto");
const PLACE: &str = include_str!("../../testdata/schemas/place.proto");

/// A registry in memory.
#[derive(Debug, Default)]
struct Book {
    /// The schema of every id and every GUID.
    all: Option<Schema>,
    /// What was registered: subjects and schemas, by id less 1.
    registered: Mutex<Vec<(String, Schema)>>,
    is_away: bool,
}

impl Book {
    fn of(schema: Schema) -> Arc<Book> {
        Arc::new(Book { all: Some(schema), ..Book::default() })
    }

    fn check(&self) -> Result<(), SchemaError> {
        if self.is_away { Err(SchemaError { message: "away".into(), passing: true }) } else { Ok(()) }
    }
}

impl Schemas for Book {
    fn get(&self, id: u32) -> Result<Arc<Schema>, SchemaError> {
        self.check()?;
        let registered = self.registered.lock().unwrap();
        let index = usize::try_from(id).unwrap().wrapping_sub(1);
        let schema = registered.get(index).map(|(_, schema)| schema.clone()).or_else(|| self.all.clone());
        schema
            .map(Arc::new)
            .ok_or_else(|| SchemaError { message: format!("schema {id} is not there"), passing: true })
    }

    fn latest(&self, subject: &str) -> Result<(u32, Arc<Schema>), SchemaError> {
        self.check()?;
        let registered = self.registered.lock().unwrap();
        let found = registered.iter().rposition(|(known, _)| known == subject);
        let index = found.ok_or_else(|| SchemaError {
            message: format!("subject {subject} is not there"),
            passing: true,
        })?;
        Ok((u32::try_from(index).unwrap() + 1, Arc::new(registered[index].1.clone())))
    }

    fn guid(&self, guid: &str) -> Result<Arc<Schema>, SchemaError> {
        assert_eq!(guid.len(), 36);
        self.get(0)
    }

    fn id_of(&self, subject: &str, schema: &Schema, unknown: Unregistered) -> Result<u32, SchemaError> {
        self.check()?;
        let mut registered = self.registered.lock().unwrap();
        let found = registered.iter().position(|known| known == &(subject.to_owned(), schema.clone()));
        if found.is_none() && unknown == Unregistered::Refuse {
            return Err(SchemaError {
                message: format!("subject {subject} does not have it"),
                passing: false,
            });
        }
        let index = found.unwrap_or_else(|| {
            registered.push((subject.to_owned(), schema.clone()));
            registered.len() - 1
        });
        Ok(u32::try_from(index).unwrap() + 1)
    }
}

fn hex(text: &str) -> Bytes {
    let digit = |i: usize| u8::from_str_radix(&text[i..i + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(digit).collect()
}

/// Whether a value is what the JSON says: bytes are `{"bytes": hex}`, numbers that JSON cannot hold `{"int": text}`.
fn is_same(value: &Value, json: &Json) -> bool {
    match (value, json) {
        (Value::Null, Json::Null) => true,
        (Value::Bool(one), Json::Bool(other)) => one == other,
        (Value::Int(one), Json::Number(other)) => other.as_i64().map(i128::from) == Some(*one),
        (Value::Float(one), Json::Number(other)) => other.as_f64() == Some(*one),
        (Value::Text(one), Json::String(other)) => &**one == other,
        (Value::Bytes(one), Json::Object(other)) => {
            other["bytes"].as_str().is_some_and(|other| hex(other) == one)
        }
        (Value::Int(one), Json::Object(other)) => other["int"].as_str() == Some(&one.to_string()),
        (Value::List(items), Json::Array(others)) => {
            items.len() == others.len() && items.iter().zip(others).all(|(one, other)| is_same(one, other))
        }
        (Value::Array(array), Json::Array(others)) => {
            let item =
                |index| value.at(&crate::path::Path::new(vec![crate::path::Step::Index(index)])).unwrap();
            array.lens[0] == others.len()
                && others.iter().enumerate().all(|(i, other)| is_same(&item(i), other))
        }
        (Value::Map(fields), Json::Object(others)) => {
            let mut fields = fields.iter();
            fields.len() == others.len()
                && fields.all(|(name, value)| others.get(&**name).is_some_and(|other| is_same(value, other)))
        }
        _ => false,
    }
}

fn golden() -> Vec<Json> {
    serde_json::from_str(GOLDEN).unwrap()
}

fn case(name: &str) -> Json {
    golden().into_iter().find(|case| case["name"] == name).unwrap()
}

fn text_of(json: &Json) -> String {
    json.as_str().map_or_else(|| json.to_string(), str::to_owned)
}

/// The schema of a case.
fn schema_of(case: &Json) -> Schema {
    if case["kind"] == "avro" {
        return Schema { kind: SchemaKind::Avro, text: text_of(&case["schema"]), references: vec![] };
    }
    weather(WEATHER, PLACE)
}

fn weather(text: &str, place: &str) -> Schema {
    let registered = Some(Registered { subject: "place".into(), version: 1 });
    let place = Reference { name: "example/place.proto".into(), text: place.into(), registered };
    Schema { kind: SchemaKind::Protobuf, text: text.into(), references: vec![place] }
}

/// Settings whose files have these texts.
fn with_file(settings: SchemaSettings, schema: &Schema) -> SchemaSettings {
    let mut settings = SchemaSettings { file: Some("own".into()), ..settings };
    settings.imports =
        schema.references.iter().map(|reference| (reference.name.clone(), reference.name.clone())).collect();
    let texts = |path: &str| match schema.references.iter().find(|reference| reference.name == path) {
        Some(reference) => Ok(reference.text.clone()),
        None if path == "own" => Ok(schema.text.clone()),
        None => Err("no such file".to_owned()),
    };
    settings.load(&mut { texts }).unwrap();
    settings
}

/// A reader for the records of a case, and its headers.
fn reader_of(case: &Json) -> (Format, Reader, Vec<Header>) {
    let format = if case["kind"] == "avro" { Format::Avro } else { Format::Protobuf };
    let schema = schema_of(case);
    let mut settings =
        SchemaSettings { message: case["message"].as_str().map(str::to_owned), ..SchemaSettings::default() };
    if case["plain"] == true {
        settings = with_file(settings, &schema);
    }
    let schemas: Arc<dyn Schemas> = Book::of(schema);
    let header = |(name, value): (&String, &Json)| Header {
        name: name.as_str().into(),
        value: Some(hex(value.as_str().unwrap())),
    };
    let headers = case["headers"].as_object().map(|headers| headers.iter().map(header).collect());
    (format, Reader::new(format, &settings, Some(schemas)).unwrap(), headers.unwrap_or_default())
}

fn records() -> impl Iterator<Item = Json> {
    golden().into_iter().filter(|case| case["record"].is_string() && case["reader"].is_null())
}

#[test]
fn records_of_other_serializers_are_read() {
    let mut n = 0;
    for case in records() {
        let (_, reader, headers) = reader_of(&case);
        let (value, _) = reader.read(&hex(case["record"].as_str().unwrap()), &headers).unwrap();
        assert!(is_same(&value, &case["shown"]), "{}:\n{value:?}\nexpected {}", case["name"], case["shown"]);
        n += 1;
    }
    assert_eq!(n, 8);
}

#[test]
fn a_readers_schema_shows_the_record_as_fastavro_does() {
    let case = case("avro through a reader's schema");
    let schema = schema_of(&case);
    let reader = Schema { text: text_of(&case["reader"]), ..schema.clone() };
    let record = hex(case["record"].as_str().unwrap());
    let framed: Bytes = [&[0, 0, 0, 0, 9][..], &record].concat().into();
    let settings =
        with_file(SchemaSettings { framing: Some(Framing::Registry), ..SchemaSettings::default() }, &reader);
    let reader = Reader::new(Format::Avro, &settings, Some(Book::of(schema))).unwrap();
    let (value, _) = reader.read(&framed, &[]).unwrap();
    assert!(is_same(&value, &case["shown"]), "{value:?}\nexpected {}", case["shown"]);
}

#[test]
fn what_was_read_is_written_as_it_was() {
    let case = case("avro plain");
    let avro = Avro::parse(&text_of(&case["schema"]), []).unwrap();
    let record = hex(case["record"].as_str().unwrap());
    let value = Program::new(&avro, None).unwrap().read(&record, 0).unwrap();
    let mut written = vec![];
    avro.write(&value, &mut written).unwrap();
    assert_eq!(Bytes::from(written), record);
}

#[test]
fn descriptors_do_for_text() {
    let case = case("protobuf, descriptors");
    let text = |key: &str| {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.encode(hex(case[key].as_str().unwrap()))
    };
    let framed = golden().into_iter().find(|case| case["name"] == "protobuf framed, second message").unwrap();
    let book = Book::of(weather(&text("weather"), &text("place")));
    let reader = Reader::new(Format::Protobuf, &SchemaSettings::default(), Some(book)).unwrap();
    let (value, _) = reader.read(&hex(framed["record"].as_str().unwrap()), &[]).unwrap();
    assert!(is_same(&value, &framed["shown"]), "{value:?}");
}

#[test]
fn damaged_records_are_refused_or_read_and_nothing_else() {
    for case in records() {
        let (_, reader, headers) = reader_of(&case);
        let record = hex(case["record"].as_str().unwrap());
        for end in 0..record.len() {
            let cut = reader.read(&record.slice(..end), &headers);
            // A Protobuf message may end after any of its fields.
            assert!(case["kind"] == "protobuf" || cut.is_err(), "{} cut at {end}", case["name"]);
        }
        for at in 0..record.len() {
            for with in [0, 1, 2, 0x7f, 0x80, 0xfe, 0xff] {
                let mut damaged = record.to_vec();
                damaged[at] = with;
                if let Err(refused) = reader.read(&damaged.into(), &headers) {
                    assert!(!refused.message.is_empty());
                }
            }
        }
    }
}

#[test]
fn schemas_do_not_let_small_records_become_large_or_deep() {
    let check = |schema: &str, record: Vec<u8>, expected: &str| {
        let avro = Avro::parse(schema, []).unwrap();
        let error = Program::new(&avro, None).unwrap().read(&record.into(), 0).unwrap_err();
        assert!(error.contains(expected), "{error}");
    };
    let node =
        r#"{"type": "record", "name": "Node", "fields": [{"name": "next", "type": ["null", "Node"]}]}"#;
    check(node, vec![2; 1 << 20], "deep");
    check(r#"{"type": "record", "name": "R", "fields": [{"name": "r", "type": "R"}]}"#, vec![], "deep");
    let many = vec![0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
    check(r#"{"type": "array", "items": "null"}"#, many.clone(), "more items");
    check(r#"{"type": "array", "items": "double"}"#, many.clone(), "more items");
    check(r#"{"type": "array", "items": "double"}"#, vec![0x80, 0x80, 2], "bytes were expected");
    check(r#""bytes""#, many.clone(), "bytes were expected");
    check(r#"{"type": "map", "values": "null"}"#, many, "more items");
    check(
        r#"{"type": "array", "items": "null"}"#,
        [vec![0xfe, 0xff, 3, 0xfe, 0xff, 3], vec![0xfe, 0xff, 3]].concat(),
        "more items",
    );
    // Each type holds the one before twice, and none takes a byte.
    let mut doubled = r#"{"type": "record", "name": "R0", "fields": []}"#.to_owned();
    for i in 1..40 {
        let last = i - 1;
        doubled = format!(
            r#"{{"type": "record", "name": "R{i}", "fields": [{{"name": "a", "type": {doubled}}}, {{"name": "b", "type": "R{last}"}}]}}"#
        );
    }
    check(&doubled, vec![], "more values");
    check(r#""int""#, vec![0xff; 10], "64 bits");
    check(r#""int""#, vec![0xfe, 0xff, 0xff, 0xff, 0x1f], "32 bits");
    check(r#""boolean""#, vec![2], "expected 0 or 1");
    check(r#""string""#, vec![4, 0xff, 0xfe], "UTF-8");
    check(r#"["null", "int"]"#, vec![4], "branch 2 of a union of 2");
    check(r#"{"type": "enum", "name": "E", "symbols": ["A"]}"#, vec![2], "symbol 1 of an enum of 1");
    check(r#""null""#, vec![0], "left over");
}

/// Types that name each other, the last one first.
#[test]
fn a_chain_of_types_may_be_as_long_as_its_schema() {
    let mut chain = r#"[{"type": "record", "name": "T0", "fields": []}"#.to_owned();
    for i in 1..20_000 {
        let last = i - 1;
        chain += &format!(
            r#", {{"type": "record", "name": "T{i}", "fields": [{{"name": "f", "type": "T{last}"}}]}}"#
        );
    }
    chain.push(']');
    let avro = Avro::parse("T19999", [chain.as_str()]).unwrap();
    for reader in [None, Some(&avro)] {
        let error = Program::new(&avro, reader).unwrap().read(&Bytes::new(), 0).unwrap_err();
        assert!(error.contains("deep"), "{error}");
    }
}

#[test]
fn defaults_do_not_let_small_schemas_become_large() {
    let writer = Avro::parse(r#"{"type": "record", "name": "R", "fields": []}"#, []).unwrap();
    let mut doubled = r#"{"type": "record", "name": "R0", "fields": []}"#.to_owned();
    for i in 1..36 {
        let last = i - 1;
        doubled = format!(
            r#"{{"type": "record", "name": "R{i}", "fields": [{{"name": "a", "type": {doubled}, "default": {{}}}}, {{"name": "b", "type": "R{last}", "default": {{}}}}]}}"#
        );
    }
    let reader = Avro::parse(
        &format!(
            r#"{{"type": "record", "name": "R", "fields": [{{"name": "r", "type": {doubled}, "default": {{}}}}]}}"#
        ),
        [],
    );
    let error = Program::new(&writer, Some(&reader.unwrap())).unwrap().read(&Bytes::new(), 0).unwrap_err();
    assert!(error.contains("default of the reader's field `r`: it has more than"), "{error}");
}

#[test]
fn messages_do_not_show_what_has_no_bound() {
    let avro = Avro::parse(r#"{"type": "map", "values": "boolean"}"#, []).unwrap();
    let record = [&[2, 0xa0, 0x9c, 1][..], &[b'k'; 10_000], &[7]].concat();
    let error = Program::new(&avro, None).unwrap().read(&record.into(), 0).unwrap_err();
    assert!(error.contains("kkk...`: a boolean is 7") && error.len() < 200, "{error}");
    let name = "n".repeat(100_000);
    let text = format!(r#"{{"type": "record", "name": "R", "fields": [{{"name": "f", "type": "{name}"}}]}}"#);
    let book = Book::of(Schema { kind: SchemaKind::Avro, text, references: vec![] });
    let reader = Reader::new(Format::Avro, &SchemaSettings::default(), Some(book)).unwrap();
    let refused = reader.read(&Bytes::from_static(&[0, 0, 0, 0, 1]), &[]).unwrap_err();
    assert!(refused.message.starts_with("schema 1: record `R`") && refused.message.len() < 1100);
}

#[test]
fn an_alias_is_for_a_field_that_was_not_written_under_its_name() {
    let parse = |fields: &str| {
        Avro::parse(&format!(r#"{{"type": "record", "name": "R", "fields": [{fields}]}}"#), []).unwrap()
    };
    let reader = parse(r#"{"name": "a", "type": "int", "aliases": ["b", "c"]}"#);
    let check = |writer: &str, record: &'static [u8], expected: i128| {
        let program = Program::new(&parse(writer), Some(&reader)).unwrap();
        let got = program.read(&Bytes::from_static(record), 0).unwrap();
        assert_eq!(got, Value::Map(vec![("a".into(), Value::Int(expected))]), "{writer}");
    };
    check(r#"{"name": "a", "type": "int"}, {"name": "b", "type": "int"}"#, &[2, 4], 1);
    check(r#"{"name": "b", "type": "int"}, {"name": "a", "type": "int"}"#, &[2, 4], 2);
    check(r#"{"name": "b", "type": "int"}, {"name": "c", "type": "int"}"#, &[2, 4], 1);
    check(r#"{"name": "c", "type": "int"}"#, &[6], 3);
}

#[test]
fn a_union_takes_the_branch_that_loses_nothing() {
    let avro = Avro::parse(
        r#"{"type": "array", "items": ["null", {"type": "map", "values": "int"}, "float", "double",
            {"type": "record", "name": "A", "fields": [{"name": "id", "type": "int"}]},
            {"type": "record", "name": "B", "fields": [{"name": "id", "type": "int"}, {"name": "n", "type": "int", "default": 0},
                {"name": "z", "type": "int", "default": 0}]},
            {"type": "record", "name": "C", "fields": [{"name": "id", "type": "int"}, {"name": "n", "type": "int"}]}]}"#,
        [],
    )
    .unwrap();
    let map = |names: &[&str]| Value::Map(names.iter().map(|name| ((*name).into(), Value::Int(1))).collect());
    let items = vec![
        Value::Float(0.1),
        Value::Float(0.5),
        map(&["id"]),
        map(&["id", "n"]),
        map(&["id", "z"]),
        map(&["k"]),
    ];
    let mut written = vec![];
    avro.write(&Value::List(items.clone()), &mut written).unwrap();
    let Value::List(read) = Program::new(&avro, None).unwrap().read(&written.into(), 0).unwrap() else {
        panic!("a list was written")
    };
    assert_eq!((&read[..4], &read[5]), (&items[..4], &items[5]));
    // The one record that has both, and a default for the third.
    let expected = [("id", 1), ("n", 0), ("z", 1)].map(|(name, number)| (name.into(), Value::Int(number)));
    assert_eq!(read[4], Value::Map(expected.to_vec()));
}

#[test]
fn a_file_in_place_of_the_registrys_has_its_messages_at_places_too() {
    let schema = proto(
        "syntax = \"proto3\"; message A { int32 x = 1; } message B { string name = 1; message C { bool b = 1; } }",
    );
    let settings =
        with_file(SchemaSettings { framing: Some(Framing::Registry), ..SchemaSettings::default() }, &schema);
    let reader = Reader::new(Format::Protobuf, &settings, None).unwrap();
    let check = |record: &'static [u8], name: &str, expected: Value| {
        let (value, _) = reader.read(&Bytes::from_static(record), &[]).unwrap();
        assert_eq!(value, Value::Map(vec![(name.into(), expected)]));
    };
    check(&[0, 0, 0, 0, 9, 0, 8, 3], "x", Value::Int(3));
    check(&[0, 0, 0, 0, 9, 2, 2, 10, 1, b'n'], "name", Value::text("n"));
    check(&[0, 0, 0, 0, 8, 4, 2, 0, 8, 1], "b", Value::Bool(true));
    let refused = reader.read(&Bytes::from_static(&[0, 0, 0, 0, 9, 2, 8]), &[]).unwrap_err();
    assert_eq!(refused.message, "input.schema.file: the schema has no message at [4]");
}

/// Says how often it was asked.
#[derive(Debug)]
struct Counter(Schema, std::sync::atomic::AtomicU32);

impl Schemas for Counter {
    fn get(&self, _: u32) -> Result<Arc<Schema>, SchemaError> {
        self.1.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Ok(Arc::new(self.0.clone()))
    }

    fn latest(&self, _: &str) -> Result<(u32, Arc<Schema>), SchemaError> {
        self.get(0).map(|schema| (0, schema))
    }

    fn guid(&self, _: &str) -> Result<Arc<Schema>, SchemaError> {
        self.get(0)
    }

    fn id_of(&self, _: &str, _: &Schema, _: Unregistered) -> Result<u32, SchemaError> {
        Ok(0)
    }
}

#[test]
fn a_schema_is_compiled_once_whatever_places_records_name() {
    let counter = Arc::new(Counter(weather(WEATHER, PLACE), 0.into()));
    let reader = Reader::new(
        Format::Protobuf,
        &SchemaSettings::default(),
        Some(Arc::clone(&counter) as Arc<dyn Schemas>),
    );
    let reader = reader.unwrap();
    for place in 0..60 {
        let record = Bytes::from(vec![0, 0, 0, 0, 1, 2, place * 2]);
        assert_eq!(reader.read(&record, &[]).is_ok(), place < 2, "{place}");
    }
    assert_eq!(counter.1.load(std::sync::atomic::Ordering::Relaxed), 1);
}

#[test]
fn messages_end_at_a_depth() {
    let schema = weather(WEATHER, PLACE);
    let settings =
        with_file(SchemaSettings { message: Some("Reading".into()), ..SchemaSettings::default() }, &schema);
    let reader = Reader::new(Format::Protobuf, &settings, None).unwrap();
    // Field 28, a message, in itself again and again.
    let mut record = vec![];
    for _ in 0..2000 {
        let mut outer = vec![0xe2, 0x01];
        prost::encoding::encode_varint(record.len() as u64, &mut outer);
        outer.append(&mut record);
        record = outer;
    }
    let refused = reader.read(&record.into(), &[]).unwrap_err();
    assert!(refused.message.contains("recursion limit"), "{refused}");
}

proptest! {
    #[test]
    fn any_bytes_are_refused_or_read(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        for name in ["avro plain", "protobuf plain"] {
            let (_, reader, _) = reader_of(&case(name));
            if let Err(refused) = reader.read(&Bytes::from(bytes.clone()), &[]) {
                prop_assert!(refused.class == RefusedClass::Format && !refused.passing);
            }
        }
    }

    #[test]
    fn answers_are_read_back(scores in proptest::collection::vec(any::<f32>().prop_filter("a number", |x| !x.is_nan()), 0..20), label in ".*", n in any::<i64>()) {
        let answers: Vec<(Arc<str>, Kind)> =
            vec![("scores".into(), Kind::List(Box::new(Kind::Float))), ("label".into(), Kind::Text), ("n".into(), Kind::Long)];
        let scores = Value::floats(scores.into_iter().map(f64::from).collect());
        let values: Vec<(Arc<str>, Value)> =
            vec![("scores".into(), scores), ("label".into(), Value::text(&label)), ("n".into(), Value::Int(n.into()))];
        let book = Arc::new(Book::default());
        let settings = SchemaSettings { auto_register: true, subject: Some("s".into()), ..SchemaSettings::default() };
        let writer = Writer::new(Format::Avro, &settings, false, &answers, Some(book.clone())).unwrap();
        let record = writer.write(None, &values).unwrap();
        let reader = Reader::new(Format::Avro, &SchemaSettings::default(), Some(book)).unwrap();
        prop_assert_eq!(reader.read(&record, &[]).unwrap().0, Value::Map(values));
    }
}

fn answer_kinds() -> Vec<(Arc<str>, Kind)> {
    vec![("score".into(), Kind::Double), ("probabilities".into(), Kind::List(Box::new(Kind::Float)))]
}

fn answers() -> Vec<(Arc<str>, Value)> {
    vec![("score".into(), Value::Float(0.75)), ("probabilities".into(), Value::floats(vec![0.25, 0.5]))]
}

#[test]
fn answers_are_appended_to_avro_records_without_touching_them() {
    let case = case("avro framed");
    let book = Book::of(schema_of(&case));
    let record = hex(case["record"].as_str().unwrap());
    let reader = Reader::new(Format::Avro, &SchemaSettings::default(), Some(book.clone())).unwrap();
    let (value, kept) = reader.read(&record, &[]).unwrap();
    let settings =
        SchemaSettings { auto_register: true, topic: Some("out".into()), ..SchemaSettings::default() };
    let writer = Writer::new(Format::Avro, &settings, true, &answer_kinds(), Some(book.clone())).unwrap();
    let written = writer.write(Some((&record, &kept)), &answers()).unwrap();
    assert_eq!(written[5..record.len()], record[5..], "the record's own bytes come first");
    assert_eq!(book.registered.lock().unwrap()[0].0, "out-value");
    // The schema that the book has under that id now is the extended one.
    let reader = Reader::new(Format::Avro, &SchemaSettings::default(), Some(book.clone())).unwrap();
    let Value::Map(mut expected) = value else { panic!("a record is a map") };
    expected.extend(answers());
    assert_eq!(reader.read(&written, &[]).unwrap().0, Value::Map(expected));
    // The next one asks nobody.
    assert_eq!(writer.write(Some((&record, &kept)), &answers()).unwrap(), written);
    assert_eq!(book.registered.lock().unwrap().len(), 1);
}

#[test]
fn answers_are_appended_to_avro_records_of_a_given_schema() {
    let schema = Schema {
        kind: SchemaKind::Avro,
        text: r#"{"type": "record", "name": "In", "fields": [{"name": "x", "type": "int"}, {"name": "y", "type": "string"}]}"#.into(),
        references: vec![],
    };
    let output = Schema {
        text: r#"{"type": "record", "name": "Out", "fields": [{"name": "score", "type": ["null", "float"]}, {"name": "x", "type": "long"},
            {"name": "probabilities", "type": {"type": "array", "items": "double"}}, {"name": "unit", "type": "string", "default": "K"}]}"#
            .into(),
        ..schema.clone()
    };
    let reader = Reader::new(Format::Avro, &with_file(SchemaSettings::default(), &schema), None).unwrap();
    let settings = with_file(SchemaSettings::default(), &output);
    let writer = Writer::new(Format::Avro, &settings, true, &answer_kinds(), None).unwrap();
    let record = Bytes::from_static(&[6, 2, b'a']);
    let (_, kept) = reader.read(&record, &[]).unwrap();
    let written = writer.write(Some((&record, &kept)), &answers()).unwrap();
    let back = Reader::new(Format::Avro, &settings, None).unwrap().read(&written, &[]).unwrap().0;
    let expected: Vec<(Arc<str>, Value)> = vec![
        ("score".into(), Value::Float(0.75)),
        ("x".into(), Value::Int(3)),
        ("probabilities".into(), Value::floats(vec![0.25, 0.5])),
        ("unit".into(), Value::text("K")),
    ];
    assert_eq!(back, Value::Map(expected));
}

const SCORED: &str = r#"syntax = "proto3"; package example.weather; message Other {}
    message Station { string name = 1; double score = 2; repeated float probabilities = 3; }"#;

fn proto(text: &str) -> Schema {
    Schema { kind: SchemaKind::Protobuf, text: text.into(), references: vec![] }
}

#[test]
fn answers_are_appended_to_protobuf_records_by_the_outputs_schema() {
    let case = case("protobuf framed, first message");
    let book = Book::of(schema_of(&case));
    book.registered.lock().unwrap().push(("out-value".into(), proto(SCORED)));
    let record = hex(case["record"].as_str().unwrap());
    let reader = Reader::new(Format::Protobuf, &SchemaSettings::default(), Some(book.clone())).unwrap();
    let (_, kept) =
        Reader::new(Format::Protobuf, &SchemaSettings::default(), Some(Book::of(schema_of(&case))))
            .unwrap()
            .read(&record, &[])
            .unwrap();
    let settings = SchemaSettings {
        use_latest: true,
        topic: Some("out".into()),
        message: Some("Station".into()),
        ..SchemaSettings::default()
    };
    let writer = Writer::new(Format::Protobuf, &settings, true, &answer_kinds(), Some(book)).unwrap();
    let written = writer.write(Some((&record, &kept)), &answers()).unwrap();
    assert_eq!(written[..7], [0, 0, 0, 0, 1, 2, 2], "schema 1, the second message");
    let mut expected: Vec<(Arc<str>, Value)> = vec![("name".into(), Value::text("x"))];
    expected.extend(answers());
    assert_eq!(reader.read(&written, &[]).unwrap().0, Value::Map(expected));
}

#[test]
fn answers_alone_are_protobuf_by_a_given_schema() {
    let settings = with_file(
        SchemaSettings { message: Some("example.weather.Station".into()), ..SchemaSettings::default() },
        &proto(SCORED),
    );
    let writer = Writer::new(Format::Protobuf, &settings, false, &answer_kinds(), None).unwrap();
    let written = writer.write(None, &answers()).unwrap();
    assert_eq!(written[..], [0x11, 0, 0, 0, 0, 0, 0, 0xe8, 0x3f, 0x1a, 8, 0, 0, 0x80, 0x3e, 0, 0, 0, 0x3f]);
    let large = vec![answers()[0].clone(), ("probabilities".into(), Value::floats(vec![1e300]))];
    let refused = writer.write(None, &large).unwrap_err();
    assert!(refused.message.ends_with("field `probabilities`: 1e300 is too large for a float"));
    let infinite = vec![answers()[0].clone(), ("probabilities".into(), Value::floats(vec![f64::INFINITY]))];
    assert!(writer.write(None, &infinite).is_ok());
}

#[test]
fn what_cannot_be_written_is_told_before_the_first_record() {
    let refuse = |format: Format,
                  settings: &SchemaSettings,
                  appends: bool,
                  book: Option<Arc<Book>>,
                  expected: &str| {
        let schemas = book.map(|book| book as Arc<dyn Schemas>);
        let error = Writer::new(format, settings, appends, &answer_kinds(), schemas).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    let plain = SchemaSettings::default();
    let book = || Some(Arc::new(Book::default()));
    refuse(Format::Protobuf, &plain, true, book(), "output.format = \"json\"");
    refuse(Format::Protobuf, &plain, false, None, "Protobuf is written by a schema");
    refuse(Format::Json, &plain, false, None, "has no schemas");
    refuse(Format::Avro, &plain, false, book(), "output.schema.subject");
    let subject = SchemaSettings { subject: Some("s".into()), ..plain.clone() };
    refuse(Format::Avro, &subject, false, book(), "does not have it");
    refuse(Format::Avro, &SchemaSettings { use_latest: true, ..subject.clone() }, false, book(), "not there");
    refuse(
        Format::Avro,
        &SchemaSettings { framing: Some(Framing::Registry), ..plain.clone() },
        false,
        None,
        "registry.urls",
    );
    refuse(
        Format::Avro,
        &SchemaSettings { name: Some("a-b".into()), ..plain.clone() },
        false,
        None,
        "`a-b` is not a name",
    );
    let small = r#"{"type": "record", "name": "R", "fields": [{"name": "score", "type": "double"}]}"#;
    let small = Schema { kind: SchemaKind::Avro, text: small.into(), references: vec![] };
    refuse(Format::Avro, &with_file(plain.clone(), &small), false, None, "no field `probabilities`");
    let wrong =
        proto("syntax = \"proto3\"; message M { string score = 1; repeated float probabilities = 2; }");
    refuse(
        Format::Protobuf,
        &with_file(plain.clone(), &wrong),
        false,
        None,
        "field `score` of message `M` is string, and the answer is a double",
    );
    assert!(
        Writer::new(
            Format::Avro,
            &subject,
            false,
            &answer_kinds(),
            Some(Arc::new(Book { is_away: true, ..Book::default() }))
        )
        .is_ok()
    );
}

#[test]
fn records_that_cannot_be_extended_are_refused() {
    let check = |input: &Schema, message: &str, output: &str, record: &'static [u8], expected: &str| {
        let settings =
            with_file(SchemaSettings { message: Some(message.into()), ..SchemaSettings::default() }, input);
        let reader = Reader::new(Format::Protobuf, &settings, None).unwrap();
        let record = Bytes::from_static(record);
        let (_, kept) = reader.read(&record, &[]).unwrap();
        let settings = with_file(
            SchemaSettings { message: Some("Station".into()), ..SchemaSettings::default() },
            &proto(output),
        );
        let writer = Writer::new(Format::Protobuf, &settings, true, &answer_kinds(), None).unwrap();
        for _ in 0..2 {
            let refused = writer.write(Some((&record, &kept)), &answers()).unwrap_err();
            assert!(refused.message.contains(expected) && refused.class == RefusedClass::Schema, "{refused}");
        }
    };
    let weather = weather(WEATHER, PLACE);
    check(&weather, "Reading", SCORED, &[], "already");
    let other = SCORED.replace("name = 1", "name = 9");
    check(&weather, "Station", &other, &[], "field `name` = 1");
}

#[test]
fn trouble_with_schemas_says_whether_it_passes() {
    let check = |book: Book, record: &'static [u8], expected: &str, passing: bool| {
        let reader = Reader::new(Format::Avro, &SchemaSettings::default(), Some(Arc::new(book))).unwrap();
        let refused = reader.read(&Bytes::from_static(record), &[]).unwrap_err();
        assert!(refused.message.contains(expected), "{refused}");
        assert_eq!((refused.class, refused.passing), (RefusedClass::Schema, passing));
    };
    let record = &[0, 0, 0, 0, 1, 2];
    check(Book { is_away: true, ..Book::default() }, record, "away", true);
    check(Book::default(), record, "schema 1 is not there", true);
    check(
        Book { all: Some(proto(SCORED)), ..Book::default() },
        record,
        "schema 1: it is Protobuf, expected Avro",
        false,
    );
    let broken = Schema { kind: SchemaKind::Avro, text: "{".into(), references: vec![] };
    check(Book { all: Some(broken), ..Book::default() }, record, "schema 1: the schema is not JSON", false);
    check(Book::default(), b"{\"a\": 1}", "not framed", false);
}

#[test]
fn settings_of_input_are_checked() {
    let check = |format: Format, settings: &SchemaSettings, expected: &str| {
        let error = Reader::new(format, settings, None).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    let plain = SchemaSettings::default();
    check(Format::Avro, &plain, "no registry is set");
    check(
        Format::Avro,
        &SchemaSettings { framing: Some(Framing::None), ..plain.clone() },
        "input.schema.file",
    );
    check(
        Format::Avro,
        &SchemaSettings { auto_register: true, ..plain.clone() },
        "input.schema.auto_register",
    );
    check(
        Format::Avro,
        &SchemaSettings { message: Some("M".into()), ..plain.clone() },
        "input.schema.message",
    );
    check(Format::Avro, &SchemaSettings { file: Some("a.avsc".into()), ..plain.clone() }, "was not loaded");
    check(
        Format::Protobuf,
        &with_file(plain.clone(), &proto("message M {")),
        "input.schema.file: the schema cannot be compiled",
    );
    let mut missing = SchemaSettings { file: Some("x.avsc".into()), ..plain };
    let error = missing.load(&mut |_| Err("no such file".into())).unwrap_err();
    assert!(error.to_string().contains("`x.avsc`: no such file"), "{error}");
}

#[test]
fn json_of_a_registry_loses_its_frame() {
    let framed = Bytes::from_static(b"\0\0\0\0\x07{\"a\": 1}");
    assert_eq!(payload(&framed, &[]).unwrap(), "{\"a\": 1}");
    assert!(payload(&Bytes::from_static(b"{}"), &[]).is_err());
}
