//! Values to Protobuf messages.

use std::collections::HashMap;
use std::sync::Arc;

use prost::Message as _;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value as Field};

use crate::path::{Path, Step};
use crate::value::{self, Value};

/// How deep values may lie in each other.
const MAX_DEPTH: usize = 64;

/// `Err` unless answers of that kind can be written to the message's field of that name.
pub(in crate::schema) fn check(
    message: &MessageDescriptor,
    name: &str,
    kind: &value::Kind,
) -> Result<(), String> {
    let field = message.get_field_by_name(name);
    let field = field.ok_or_else(|| {
        format!("message `{}` has no field `{name}`, which an answer has for a name", message.full_name())
    })?;
    let wrong = || {
        format!(
            "field `{name}` of message `{}` is {}, and the answer is a {kind}",
            message.full_name(),
            what(&field)
        )
    };
    let single = match (kind, field.is_list()) {
        (value::Kind::List(items), true) => items,
        (_, false) if !matches!(kind, value::Kind::List(_)) => kind,
        _ => return Err(wrong()),
    };
    let fits = match (single, field.kind()) {
        (value::Kind::Bool, kind) => kind == Kind::Bool,
        // What is too large for the field is found when it comes.
        (value::Kind::Int | value::Kind::Long, kind) => {
            is_whole(&kind) || matches!(kind, Kind::Float | Kind::Double)
        }
        (value::Kind::Float | value::Kind::Double, kind) => matches!(kind, Kind::Float | Kind::Double),
        (value::Kind::Text, kind) => matches!(kind, Kind::String | Kind::Bytes | Kind::Enum(_)),
        (value::Kind::Bytes, kind) => kind == Kind::Bytes,
        (value::Kind::Map(fields), Kind::Message(inner)) if !field.is_map() => {
            return fields.iter().try_for_each(|(name, kind)| check(&inner, name, kind));
        }
        (value::Kind::Map(_), Kind::Message(_)) => true,
        _ => false,
    };
    if fits { Ok(()) } else { Err(wrong()) }
}

fn is_whole(kind: &Kind) -> bool {
    !matches!(
        kind,
        Kind::Float
            | Kind::Double
            | Kind::Bool
            | Kind::String
            | Kind::Bytes
            | Kind::Message(_)
            | Kind::Enum(_)
    )
}

fn what(field: &FieldDescriptor) -> String {
    let kind = match field.kind() {
        Kind::Message(message) => format!("message `{}`", message.full_name()),
        Kind::Enum(kind) => format!("enum `{}`", kind.full_name()),
        kind => format!("{kind:?}").to_lowercase(),
    };
    if field.is_map() {
        "a map".into()
    } else if field.is_list() {
        format!("a list of {kind}")
    } else {
        kind
    }
}

/// Appends a message of those fields; null ones are left out. `Err` with the field and what was wrong with it.
pub(in crate::schema) fn write(
    message: &MessageDescriptor,
    fields: &[(Arc<str>, Value)],
    into: &mut Vec<u8>,
) -> Result<(), String> {
    let message = make(message, fields, 0)?;
    message.encode(into).map_err(|error| error.to_string())
}

fn make(
    descriptor: &MessageDescriptor,
    fields: &[(Arc<str>, Value)],
    depth: usize,
) -> Result<DynamicMessage, String> {
    if depth > MAX_DEPTH {
        return Err(format!("values lie more than {MAX_DEPTH} deep"));
    }
    let mut message = DynamicMessage::new(descriptor.clone());
    for (name, value) in fields {
        if matches!(value, Value::Null) {
            continue;
        }
        let field = descriptor.get_field_by_name(name);
        let field =
            field.ok_or_else(|| format!("message `{}` has no field `{name}`", descriptor.full_name()))?;
        let made = field_value(&field, value, depth).map_err(|error| format!("field `{name}`: {error}"))?;
        message.try_set_field(&field, made).map_err(|error| format!("field `{name}`: {error}"))?;
    }
    Ok(message)
}

fn field_value(field: &FieldDescriptor, value: &Value, depth: usize) -> Result<Field, String> {
    let kind = field.kind();
    if field.is_list() {
        return items(value)?
            .iter()
            .map(|item| single(field, &kind, item, depth))
            .collect::<Result<_, _>>()
            .map(Field::List);
    }
    match (value, &kind) {
        (Value::Map(entries), Kind::Message(entry)) if field.is_map() => {
            let (key_kind, value_field) = (entry.map_entry_key_field().kind(), entry.map_entry_value_field());
            let entry = |(key, value): &(Arc<str>, Value)| {
                Ok((map_key(&key_kind, key)?, single(&value_field, &value_field.kind(), value, depth)?))
            };
            entries.iter().map(entry).collect::<Result<HashMap<_, _>, String>>().map(Field::Map)
        }
        _ => single(field, &kind, value, depth),
    }
}

fn items(value: &Value) -> Result<Vec<Value>, String> {
    match value {
        Value::List(items) => Ok(items.clone()),
        Value::Array(array) => {
            let n = array.lens.first().copied().unwrap_or_default();
            let item = |index| {
                value
                    .at(&Path::new(vec![Step::Index(index)]))
                    .ok_or_else(|| "numbers are missing from a list".to_owned())
            };
            (0..n).map(item).collect()
        }
        other => Err(format!("{} was given, expected a list", other.what())),
    }
}

fn map_key(kind: &Kind, key: &str) -> Result<MapKey, String> {
    let wrong = || format!("key `{key}` of a map is not {kind:?}");
    Ok(match kind {
        Kind::String => MapKey::String(key.to_owned()),
        Kind::Bool => MapKey::Bool(key.parse().map_err(|_| wrong())?),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => MapKey::I32(key.parse().map_err(|_| wrong())?),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => MapKey::I64(key.parse().map_err(|_| wrong())?),
        Kind::Uint32 | Kind::Fixed32 => MapKey::U32(key.parse().map_err(|_| wrong())?),
        Kind::Uint64 | Kind::Fixed64 => MapKey::U64(key.parse().map_err(|_| wrong())?),
        _ => return Err(wrong()),
    })
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "floats take the nearest number; whole numbers are checked"
)]
fn single(field: &FieldDescriptor, kind: &Kind, value: &Value, depth: usize) -> Result<Field, String> {
    let wrong = || format!("{} was given, expected {}", value.what(), what(field));
    let whole = match value {
        Value::Int(number) => Some(*number),
        _ => None,
    };
    let number = match value {
        Value::Float(number) => Some(*number),
        Value::Int(number) => Some(*number as f64),
        _ => None,
    };
    Ok(match (kind, value) {
        (Kind::Bool, Value::Bool(value)) => Field::Bool(*value),
        (Kind::Int32 | Kind::Sint32 | Kind::Sfixed32, _) => {
            Field::I32(whole.and_then(|n| i32::try_from(n).ok()).ok_or_else(wrong)?)
        }
        (Kind::Int64 | Kind::Sint64 | Kind::Sfixed64, _) => {
            Field::I64(whole.and_then(|n| i64::try_from(n).ok()).ok_or_else(wrong)?)
        }
        (Kind::Uint32 | Kind::Fixed32, _) => {
            Field::U32(whole.and_then(|n| u32::try_from(n).ok()).ok_or_else(wrong)?)
        }
        (Kind::Uint64 | Kind::Fixed64, _) => {
            Field::U64(whole.and_then(|n| u64::try_from(n).ok()).ok_or_else(wrong)?)
        }
        (Kind::Float, _) => {
            let number = number.ok_or_else(wrong)?;
            let single = number as f32;
            if number.is_finite() && !single.is_finite() {
                return Err(format!("{number:e} is too large for a float"));
            }
            Field::F32(single)
        }
        (Kind::Double, _) => Field::F64(number.ok_or_else(wrong)?),
        (Kind::String, Value::Text(text)) => Field::String(text.to_string()),
        (Kind::Bytes, Value::Bytes(bytes)) => Field::Bytes(bytes.clone()),
        (Kind::Bytes, Value::Text(text)) => Field::Bytes(text.as_bytes().to_vec().into()),
        (Kind::Enum(kind), Value::Text(text)) => {
            let symbol = kind.get_value_by_name(text);
            Field::EnumNumber(
                symbol.ok_or_else(|| format!("`{text}` is not of enum `{}`", kind.full_name()))?.number(),
            )
        }
        (Kind::Enum(_), _) => Field::EnumNumber(whole.and_then(|n| i32::try_from(n).ok()).ok_or_else(wrong)?),
        (Kind::Message(message), Value::Map(fields)) => Field::Message(make(message, fields, depth + 1)?),
        _ => return Err(wrong()),
    })
}
