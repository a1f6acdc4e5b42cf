//! Answers as JSON.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::Kept;
use crate::Refused;
use crate::value::{Kind, Numbers, Value};

/// A named answer, ready to be written.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) name: Arc<str>,
    /// `None` where any value may come.
    pub(crate) kind: Option<Kind>,
    /// The name as JSON, with its colon.
    key: Vec<u8>,
}

impl Answer {
    pub(crate) fn new(name: &str, kind: Option<Kind>) -> Answer {
        let mut key = Vec::new();
        write_string(&mut key, name);
        key.push(b':');
        Answer { name: name.into(), kind, key }
    }
}

/// The record with the answers behind its own fields: its bytes are copied as they are.
pub(crate) fn append(
    record: &[u8],
    kept: Kept,
    under: Option<&Answer>,
    answers: &[Answer],
    values: &[Value],
) -> Result<Vec<u8>, Refused> {
    let Kept::Object { close, is_empty } = kept else {
        return Err(Refused::shape(
            "the record is a list or a single value, to which no field can be appended: expected an object",
        ));
    };
    let (before, after) = record.split_at(close.min(record.len()));
    let mut out = Vec::with_capacity(record.len() + 64 + 24 * answers.len());
    out.extend_from_slice(before);
    if !answers.is_empty() {
        if !is_empty {
            out.push(b',');
        }
        match under {
            None => members(&mut out, answers, values),
            Some(under) => {
                out.extend_from_slice(&under.key);
                out.push(b'{');
                members(&mut out, answers, values);
                out.push(b'}');
            }
        }
    }
    out.extend_from_slice(after);
    Ok(out)
}

/// The answers alone.
pub(crate) fn object(under: Option<&Answer>, answers: &[Answer], values: &[Value]) -> Vec<u8> {
    let mut out = vec![b'{'];
    if let Some(under) = under {
        out.extend_from_slice(&under.key);
        out.push(b'{');
    }
    members(&mut out, answers, values);
    if under.is_some() {
        out.push(b'}');
    }
    out.push(b'}');
    out
}

fn members(out: &mut Vec<u8>, answers: &[Answer], values: &[Value]) {
    for (i, (answer, value)) in answers.iter().zip(values).enumerate() {
        if i > 0 {
            out.push(b',');
        }
        out.extend_from_slice(&answer.key);
        write_value(out, value, answer.kind.as_ref());
    }
}

/// Writes a value. Numbers of single precision are written with as few digits as give them back. What is no number in
/// JSON is `null`; bytes that are no text are `{"b64": "..."}`.
pub(crate) fn write_value(out: &mut Vec<u8>, value: &Value, kind: Option<&Kind>) {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Int(number) => write_int(out, *number),
        Value::Float(number) => write_float(out, *number, kind),
        Value::Text(text) => write_string(out, text),
        Value::Bytes(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) if kind != Some(&Kind::Bytes) => write_string(out, text),
            _ => {
                out.extend_from_slice(b"{\"b64\":\"");
                out.extend_from_slice(STANDARD.encode(bytes).as_bytes());
                out.extend_from_slice(b"\"}");
            }
        },
        Value::List(items) => {
            let inner = item_kind(kind);
            list(out, items.len(), |out, i| write_value(out, &items[i], inner));
        }
        Value::Array(array) => {
            let mut at = 0;
            write_array(out, &array.lens, &array.numbers, &mut at, kind);
        }
        Value::Tensor(tensor) => match crate::answers::tensor_value(tensor) {
            Some(value) => write_value(out, &value, kind),
            None => out.extend_from_slice(b"null"),
        },
        Value::Map(members) => {
            out.push(b'{');
            for (i, (name, value)) in members.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                write_string(out, name);
                out.push(b':');
                write_value(out, value, member_kind(kind, i));
            }
            out.push(b'}');
        }
    }
}

fn item_kind(kind: Option<&Kind>) -> Option<&Kind> {
    match kind {
        Some(Kind::List(inner)) => Some(inner),
        // Of an output whose dimensions are not known, the kind of its elements is.
        other => other,
    }
}

fn member_kind(kind: Option<&Kind>, index: usize) -> Option<&Kind> {
    match kind {
        Some(Kind::Map(members)) => members.get(index).map(|(_, kind)| kind),
        _ => None,
    }
}

/// Recursion ends at the number of dimensions.
fn write_array(out: &mut Vec<u8>, lens: &[usize], numbers: &Numbers, at: &mut usize, kind: Option<&Kind>) {
    let Some((&len, inner)) = lens.split_first() else {
        match numbers {
            Numbers::Floats(numbers) => write_float(out, numbers[*at], kind),
            Numbers::Ints(numbers) => write_int(out, i128::from(numbers[*at])),
        }
        *at += 1;
        return;
    };
    let inner_kind = item_kind(kind);
    list(out, len, |out, _| write_array(out, inner, numbers, at, inner_kind));
}

fn list(out: &mut Vec<u8>, len: usize, mut item: impl FnMut(&mut Vec<u8>, usize)) {
    out.push(b'[');
    for i in 0..len {
        if i > 0 {
            out.push(b',');
        }
        item(out, i);
    }
    out.push(b']');
}

fn write_int(out: &mut Vec<u8>, number: i128) {
    out.extend_from_slice(number.to_string().as_bytes());
}

fn write_float(out: &mut Vec<u8>, number: f64, kind: Option<&Kind>) {
    if number.is_finite() {
        out.extend_from_slice(digits(&mut ryu::Buffer::new(), number, kind).as_bytes());
    } else {
        out.extend_from_slice(b"null");
    }
}

/// The shortest digits that give a finite number back.
#[expect(clippy::cast_possible_truncation, reason = "a number of kind float comes from single precision")]
pub(crate) fn digits<'b>(buffer: &'b mut ryu::Buffer, number: f64, kind: Option<&Kind>) -> &'b str {
    if kind == Some(&Kind::Float) && (number as f32).is_finite() {
        buffer.format_finite(number as f32)
    } else {
        buffer.format_finite(number)
    }
}

fn write_string(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(&mut *out, text)
        .expect("a vector takes all that is written and text is always JSON");
}
