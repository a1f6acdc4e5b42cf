//! The text of schemas of ours: of answers alone, and of a record with answers behind its own fields.

use std::sync::Arc;

use serde_json::{Value as Json, json};

use super::{is_name, unqualified};
use crate::value::Kind;

/// A schema of a record of that full name whose fields are the answers.
pub(in crate::schema) fn alone(name: &str, answers: &[(Arc<str>, Kind)]) -> Result<String, String> {
    if !name.split('.').all(is_name) {
        return Err(format!(
            "`{name}` is not a name, expected letters, digits and underscores with dots in between"
        ));
    }
    Ok(record(name, answers)?.to_string())
}

/// The writer's schema with the answers behind its own fields, each of which may be null. What was written by the one is the
/// beginning of what is written by the other.
pub(in crate::schema) fn appended(schema: &str, answers: &[(Arc<str>, Kind)]) -> Result<String, String> {
    let mut json: Json =
        serde_json::from_str(schema).map_err(|error| format!("the schema is not JSON: {error}"))?;
    let not_a_record =
        || "answers are appended to records, and the record's schema is of another type".to_owned();
    if json.get("type").and_then(Json::as_str) != Some("record") {
        return Err(not_a_record());
    }
    let name = json.get("name").and_then(Json::as_str).map(unqualified).ok_or_else(not_a_record)?.to_owned();
    let fields = json.get_mut("fields").and_then(Json::as_array_mut).ok_or_else(not_a_record)?;
    for (answer, kind) in answers {
        check(answer)?;
        if fields.iter().any(|field| field.get("name").and_then(Json::as_str) == Some(answer)) {
            return Err(format!("the record has a field `{answer}` already; give the answer another name"));
        }
        let kind = type_of(&format!("{name}_{answer}"), kind)?;
        fields.push(json!({"name": &**answer, "type": ["null", kind], "default": null}));
    }
    Ok(json.to_string())
}

fn check(name: &str) -> Result<(), String> {
    if is_name(name) {
        return Ok(());
    }
    Err(format!(
        "answer `{name}`: Avro's names are letters, digits and underscores; give the answer another name"
    ))
}

fn record(name: &str, fields: &[(Arc<str>, Kind)]) -> Result<Json, String> {
    let field = |(field, kind): &(Arc<str>, Kind)| {
        check(field)?;
        Ok(json!({"name": &**field, "type": type_of(&format!("{}_{field}", unqualified(name)), kind)?}))
    };
    let fields = fields.iter().map(field).collect::<Result<Vec<Json>, String>>()?;
    Ok(json!({"type": "record", "name": name, "fields": fields}))
}

/// The type for a kind of answer; a record is given that name.
fn type_of(name: &str, kind: &Kind) -> Result<Json, String> {
    Ok(match kind {
        Kind::Bool => json!("boolean"),
        Kind::Int => json!("int"),
        Kind::Long => json!("long"),
        Kind::Float => json!("float"),
        Kind::Double => json!("double"),
        Kind::Text => json!("string"),
        Kind::Bytes => json!("bytes"),
        Kind::List(items) => json!({"type": "array", "items": type_of(name, items)?}),
        Kind::Map(fields) => record(name, fields)?,
    })
}

#[cfg(test)]
mod tests {
    use super::super::Avro;
    use super::*;

    fn answers() -> Vec<(Arc<str>, Kind)> {
        let label = Kind::Map(vec![("name".into(), Kind::Text), ("score".into(), Kind::Float)]);
        vec![
            ("scores".into(), Kind::List(Box::new(Kind::List(Box::new(Kind::Float))))),
            ("label".into(), label),
        ]
    }

    #[test]
    fn answers_alone_are_a_record() {
        let text = alone("salver.Prediction", &answers()).unwrap();
        let avro = Avro::parse(&text, []).unwrap();
        let (name, fields) = avro.record().unwrap();
        assert_eq!((&**name, fields.len()), ("salver.Prediction", 2));
        assert_eq!(avro.what(fields[1].node), "record `salver.Prediction_label`");
    }

    #[test]
    fn answers_go_behind_the_fields_of_the_record() {
        let original = r#"{"type": "record", "name": "Row", "namespace": "a", "doc": "kept",
            "fields": [{"name": "x", "type": "long", "doc": "kept too"}]}"#;
        let text = appended(original, &answers()).unwrap();
        let avro = Avro::parse(&text, []).unwrap();
        let (name, fields) = avro.record().unwrap();
        let names: Vec<&str> = fields.iter().map(|field| &*field.name).collect();
        assert_eq!((&**name, names), ("a.Row", vec!["x", "scores", "label"]));
        assert!(text.contains("kept too"));
    }

    #[test]
    fn what_cannot_be_written_is_refused() {
        let check = |result: Result<String, String>, expected: &str| {
            let error = result.unwrap_err();
            assert!(error.contains(expected), "{error}");
        };
        let odd = [(Arc::from("dense/x:0"), Kind::Float)];
        check(alone("a.B", &odd), "answer `dense/x:0`");
        check(alone("a b", &[]), "`a b` is not a name");
        check(appended("\"long\"", &answers()), "another type");
        check(appended(r#"["null", "long"]"#, &answers()), "another type");
        let taken = r#"{"type": "record", "name": "R", "fields": [{"name": "label", "type": "int"}]}"#;
        check(appended(taken, &answers()), "field `label` already");
    }
}
