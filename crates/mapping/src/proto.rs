//! TensorFlow's own messages: `PredictRequest`, `PredictResponse` and `Example`.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use salver_predict::ModelId;
use salver_tensor::{Signature, Tensor};
use salver_wire::proto::tensorflow::serving::PredictRequest;
use salver_wire::proto::tensorflow::{
    BytesList, Feature, Features, FloatList, Int64List, feature::Kind as List,
};
use salver_wire::tfs::{Encoding, decode_tensor, encode_response};

use crate::fields::{Finder, Slot};
use crate::json::Answer;
use crate::value::{Kind, Numbers, Value};
use crate::{About, Refused};

/// A `PredictRequest`: its inputs, by alias. The model that it names is not looked at.
pub(crate) fn read_request(record: &Bytes, max_bytes: usize) -> Result<Value, Refused> {
    let request = PredictRequest::decode(record.clone())
        .map_err(|error| Refused::format(format!("not a PredictRequest: {error}")))?;
    let mut left = max_bytes;
    let mut members = Vec::with_capacity(request.inputs.len());
    for (alias, proto) in request.inputs {
        let tensor = decode_tensor(proto, left).map_err(|error| {
            Refused::shape(format!("input `{}`: {error}", crate::error::show(alias.as_bytes())))
        })?;
        left = left.saturating_sub(tensor.n_bytes());
        members.push((alias.into(), Value::Tensor(tensor)));
    }
    Ok(Value::Map(members))
}

/// A `PredictResponse` with these outputs.
pub(crate) fn write_response(
    signature: &Signature,
    outputs: &[usize],
    tensors: &[Tensor],
    about: &About<'_>,
) -> Vec<u8> {
    let id = ModelId { name: about.model.clone(), version: about.version };
    encode_response(&id, signature, outputs, tensors, Encoding::Fields).encode_to_vec()
}

/// `tensorflow.Example`. Two of them joined mean what protobuf's merging means: of features of one name the last counts.
#[derive(Clone, PartialEq, Message)]
struct Example {
    #[prost(message, optional, tag = "1")]
    features: Option<Features>,
}

/// The features of an example. `$` is its bytes; a feature of one value is that value, and one of none is missing.
pub(crate) fn read_example(
    record: &Bytes,
    slots: &[Slot],
    finder: &Finder,
) -> Result<Vec<Option<Value>>, Refused> {
    let example = Example::decode(record.clone())
        .map_err(|error| Refused::format(format!("not a tensorflow.Example: {error}")))?;
    let mut features = example.features.unwrap_or_default().feature;
    let mut members = Vec::new();
    // Only what is needed is turned into values.
    for slot in slots {
        if let Some(crate::path::Step::Key(key)) = slot.path.steps().first()
            && let Some(value) = features.remove(&**key).and_then(feature_value)
        {
            members.push((key.clone(), value));
        }
    }
    let mut found = finder.find(&Value::Map(members));
    for (field, slot) in found.iter_mut().zip(slots) {
        if slot.path.steps().is_empty() {
            *field = Some(Value::Bytes(record.clone()));
        }
    }
    Ok(found)
}

fn feature_value(feature: Feature) -> Option<Value> {
    Some(match feature.kind? {
        List::FloatList(FloatList { value }) => match value.as_slice() {
            [] => return None,
            [one] => Value::Float(f64::from(*one)),
            all => Value::floats(all.iter().map(|&number| f64::from(number)).collect()),
        },
        List::Int64List(Int64List { value }) => match value.as_slice() {
            [] => return None,
            [one] => Value::Int(i128::from(*one)),
            _ => Value::ints(value),
        },
        List::BytesList(BytesList { value }) => match value.as_slice() {
            [] => return None,
            [one] => Value::Bytes(one.clone()),
            _ => Value::List(value.into_iter().map(Value::Bytes).collect()),
        },
    })
}

/// Whether a feature can hold answers of that kind.
pub(crate) fn is_feature(kind: &Kind) -> bool {
    match kind {
        Kind::Map(_) => false,
        Kind::List(inner) => is_feature(inner),
        _ => true,
    }
}

/// The record with the answers as further features, or the answers alone. Lists of lists become one list.
pub(crate) fn write_example(
    record: Option<&Bytes>,
    answers: &[Answer],
    values: &[Value],
) -> Result<Vec<u8>, Refused> {
    let mut features = Features::default();
    for (answer, value) in answers.iter().zip(values) {
        let mut list = None;
        push(value, &mut list).map_err(|what| {
            let name: &Arc<str> = &answer.name;
            Refused::shape(format!("field `{name}`: {what}, expected values that a feature holds"))
        })?;
        features.feature.insert(answer.name.to_string(), Feature { kind: list });
    }
    let mut out = record.map(|record| record.to_vec()).unwrap_or_default();
    Example { features: Some(features) }.encode(&mut out).expect("a vector takes all that is written");
    Ok(out)
}

/// Recursion ends with the nesting of the answer.
fn push(value: &Value, list: &mut Option<List>) -> Result<(), String> {
    let mixed = || "it has values of different types".to_owned();
    match value {
        Value::List(items) => items.iter().try_for_each(|item| push(item, list)),
        Value::Array(array) => match &array.numbers {
            Numbers::Floats(numbers) => {
                numbers.iter().try_for_each(|&number| push(&Value::Float(number), list))
            }
            Numbers::Ints(numbers) => {
                numbers.iter().try_for_each(|&number| push(&Value::Int(i128::from(number)), list))
            }
        },
        Value::Float(number) => {
            let List::FloatList(floats) = list.get_or_insert_with(|| List::FloatList(FloatList::default()))
            else {
                return Err(mixed());
            };
            #[expect(clippy::cast_possible_truncation, reason = "features are of single precision")]
            floats.value.push(*number as f32);
            Ok(())
        }
        Value::Int(number) => {
            let number = i64::try_from(*number).map_err(|_| format!("{number} does not fit int64"))?;
            push_int(number, list).ok_or_else(mixed)
        }
        Value::Bool(value) => push_int(i64::from(*value), list).ok_or_else(mixed),
        Value::Text(text) => push_bytes(Bytes::copy_from_slice(text.as_bytes()), list).ok_or_else(mixed),
        Value::Bytes(bytes) => push_bytes(bytes.clone(), list).ok_or_else(mixed),
        Value::Null => Ok(()),
        Value::Tensor(_) | Value::Map(_) => Err(format!("it is {}", value.what())),
    }
}

fn push_int(number: i64, list: &mut Option<List>) -> Option<()> {
    match list.get_or_insert_with(|| List::Int64List(Int64List::default())) {
        List::Int64List(ints) => ints.value.push(number),
        _ => return None,
    }
    Some(())
}

fn push_bytes(bytes: Bytes, list: &mut Option<List>) -> Option<()> {
    match list.get_or_insert_with(|| List::BytesList(BytesList::default())) {
        List::BytesList(all) => all.value.push(bytes),
        _ => return None,
    }
    Some(())
}
