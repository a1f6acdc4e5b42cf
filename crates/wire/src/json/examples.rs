//! The bodies of classify and regress requests, and their answers.
#![cfg_attr(
    not(test),
    deny(clippy::cast_possible_truncation, clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]

use bytes::Bytes;
use jiter::Peek;
use salver_predict::Error;

use super::decode::{of_body, open_body};
use super::number::{Float as _, NonFinite};
use super::text::kind;
use super::{Limits, Scalar as _, Text, write_string};
use crate::proto::tensorflow::feature::Kind;
use crate::proto::tensorflow::serving::{
    ClassificationResult, ExampleListWithContext, Input, RegressionResult, input,
};
use crate::proto::tensorflow::{BytesList, Feature, Features, FloatList, Int64List};
use crate::tfs::SerializedExample;

/// A classify or regress request.
#[derive(Debug, Clone)]
pub struct Examples {
    /// The signature asked for; empty for the default one.
    pub signature_name: String,
    /// The examples, with their context.
    pub input: Input,
}

/// Reads the body of a classify or regress request: `examples`, a list of objects of features, and perhaps `context`,
/// one such object. Integers and booleans are `int64`, numbers with a fraction or an exponent are `float`, strings and
/// base64 objects are `bytes`; a feature's values are of one kind. Of a key that comes twice in the body the first counts;
/// of a feature the values are joined.
///
/// # Errors
/// [`salver_predict::Code::InvalidArgument`], with TensorFlow Serving's texts. Of several errors the first in this order
/// is reported: syntax, the signature's name, the context, the examples.
pub fn decode_examples(body: &[u8], limits: Limits) -> Result<Examples, Error> {
    let mut text = Text::new(body, limits);
    open_body(&mut text)?;
    let mut name = None;
    let mut context = None;
    let mut examples = None;
    let mut room = limits.max_elements;
    let mut key = text.object_first(str::to_owned)?;
    while let Some(found) = key {
        let peek = text.peek()?;
        let (at, depth) = (text.at(), text.depth());
        // An error of what a value means waits until the syntax of all of them is known.
        let failed = match found.as_str() {
            "signature_name" if name.is_none() => name.insert(read_name(&mut text, peek)).is_err(),
            "context" if context.is_none() => {
                context.insert(read_example(&mut text, peek, &mut room)).is_err()
            }
            "examples" if examples.is_none() => {
                examples.insert(read_examples(&mut text, peek, &mut room)).is_err()
            }
            _ => {
                text.skip(peek)?;
                false
            }
        };
        if failed {
            text.seek(at, depth);
            text.skip(peek)?;
        }
        key = text.object_step(str::to_owned)?;
    }
    let signature_name = name.transpose()?.unwrap_or_default();
    let context = context.transpose()?;
    let missing = || Error::invalid("When method is classify, key 'examples' is expected and was not found");
    let examples = examples.ok_or_else(missing)??;
    let list = ExampleListWithContext { examples, context };
    Ok(Examples { signature_name, input: Input { kind: Some(input::Kind::ExampleListWithContext(list)) } })
}

fn read_name(text: &mut Text<'_>, peek: Peek) -> Result<String, Error> {
    if peek == Peek::String {
        return text.string().map(str::to_owned);
    }
    Err(of_body(text, "not formatted correctly. 'signature_name' key must be a string value."))
}

fn read_examples(text: &mut Text<'_>, peek: Peek, room: &mut usize) -> Result<Vec<SerializedExample>, Error> {
    if peek != Peek::Array {
        return Err(Error::invalid("Expecting 'examples' value to be an list/array"));
    }
    let mut examples = Vec::new();
    let mut next = text.array_first()?;
    while let Some(peek) = next {
        take(text, room)?;
        examples.push(read_example(text, peek, room)?);
        next = text.array_step()?;
    }
    if examples.is_empty() {
        return Err(Error::invalid("'examples' value is an empty array"));
    }
    Ok(examples)
}

/// Counts an example or a value.
fn take(text: &Text<'_>, room: &mut usize) -> Result<(), Error> {
    let max = text.limits().max_elements;
    let full = || Error::invalid(format!("the examples have more than {max} values, the most there may be"));
    *room = room.checked_sub(1).ok_or_else(full)?;
    Ok(())
}

fn read_example(text: &mut Text<'_>, peek: Peek, room: &mut usize) -> Result<SerializedExample, Error> {
    if peek != Peek::Object {
        let got = kind(peek);
        return Err(Error::invalid(format!("Example must be JSON object but got JSON {got}")));
    }
    let mut features = Features::default();
    let mut key = text.object_first(str::to_owned)?;
    while let Some(name) = key {
        let peek = text.peek()?;
        let feature = features.feature.entry(name.clone()).or_default();
        read_feature(text, peek, &name, feature, room)?;
        key = text.object_step(str::to_owned)?;
    }
    Ok(SerializedExample::from(&features))
}

/// A value, or a list of values.
fn read_feature(
    text: &mut Text<'_>,
    peek: Peek,
    name: &str,
    feature: &mut Feature,
    room: &mut usize,
) -> Result<(), Error> {
    take(text, room)?;
    if peek != Peek::Array {
        return read_value(text, peek, name, feature);
    }
    let mut next = text.array_first()?;
    while let Some(peek) = next {
        take(text, room)?;
        read_value(text, peek, name, feature)?;
        next = text.array_step()?;
    }
    Ok(())
}

fn read_value(text: &mut Text<'_>, peek: Peek, name: &str, feature: &mut Feature) -> Result<(), Error> {
    match peek {
        Peek::True | Peek::False => {
            let value = bool::read(text, peek)?;
            push_int(feature, name, i64::from(value))
        }
        Peek::String => push_bytes(feature, name, Bytes::read(text, peek)?),
        Peek::Object if text.is_b64() => push_bytes(feature, name, Bytes::read(text, peek)?),
        Peek::Null | Peek::Array | Peek::Object => {
            let got = kind(peek);
            Err(Error::invalid(format!("Feature: {name} has element with unexpected JSON type: {got}")))
        }
        _ => read_number(text, peek, name, feature),
    }
}

fn read_number(text: &mut Text<'_>, peek: Peek, name: &str, feature: &mut Feature) -> Result<(), Error> {
    let (at, depth) = (text.at(), text.depth());
    let digits = text.jiter.known_number_bytes(peek).ok();
    let is_integer =
        digits.is_some_and(|digits| digits.iter().all(|&byte| byte.is_ascii_digit() || byte == b'-'));
    if is_integer {
        let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok()).unwrap_or_default();
        if let Ok(value) = digits.parse::<i64>() {
            return push_int(feature, name, value);
        }
        if digits.parse::<u64>().is_ok() {
            let text = format!("Feature: {name} has uint64_t element. Only int64_t is supported.");
            return Err(Error::invalid(text));
        }
    }
    // Everything else is a double: with a fraction or an exponent, too long for 64 bits, or no number at all.
    text.seek(at, depth);
    let peek = text.peek()?;
    let value = f32::read(text, peek)?;
    push_float(feature, name, value)
}

fn mixed(name: &str, expected: &Kind) -> Error {
    let expected = match expected {
        Kind::BytesList(_) => "bytes",
        Kind::FloatList(_) => "float",
        Kind::Int64List(_) => "int64",
    };
    Error::invalid(format!("Unexpected element type in feature: {name} expecting type: {expected}"))
}

macro_rules! push {
    ($push:ident, $kind:ident, $list:ident, $value:ty) => {
        fn $push(feature: &mut Feature, name: &str, value: $value) -> Result<(), Error> {
            match feature.kind.get_or_insert_with(|| Kind::$kind($list::default())) {
                Kind::$kind(list) => {
                    list.value.push(value);
                    Ok(())
                }
                other => Err(mixed(name, other)),
            }
        }
    };
}

push!(push_int, Int64List, Int64List, i64);
push!(push_float, FloatList, FloatList, f32);
push!(push_bytes, BytesList, BytesList, Bytes);

/// Writes the answer to a classify request: for each example a list of `[label, score]`.
pub fn encode_classify(result: &ClassificationResult, non_finite: NonFinite) -> Vec<u8> {
    results(&result.classifications, |out, row| {
        list(out, &row.classes, |out, class| {
            out.push(b'[');
            write_string(out, class.label.as_bytes());
            out.extend_from_slice(b", ");
            class.score.write(out, non_finite);
            out.push(b']');
        });
    })
}

/// Writes the answer to a regress request: a value for each example.
pub fn encode_regress(result: &RegressionResult, non_finite: NonFinite) -> Vec<u8> {
    results(&result.regressions, |out, row| row.value.write(out, non_finite))
}

fn results<T>(rows: &[T], write: impl Fn(&mut Vec<u8>, &T)) -> Vec<u8> {
    let mut out = b"{\"results\": ".to_vec();
    list(&mut out, rows, write);
    out.extend_from_slice(b"}\n");
    out
}

fn list<T>(out: &mut Vec<u8>, items: &[T], write: impl Fn(&mut Vec<u8>, &T)) {
    out.push(b'[');
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            out.extend_from_slice(b", ");
        }
        write(out, item);
    }
    out.push(b']');
}

#[cfg(test)]
mod tests;
