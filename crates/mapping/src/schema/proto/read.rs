//! Protobuf messages to values.
//!
//! The decoder is prost's, by way of prost-reflect: it ends at 100 messages in each other and takes memory for what is there.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use prost_reflect::{
    DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, ReflectMessage as _, Value as Field,
};

use crate::value::Value;

/// How long a message may be: an item of a list may take a byte there and sixty in memory.
const MAX_BYTES: usize = 64 << 20;
/// How many messages may belong together.
const MAX_MESSAGES: usize = 20_000;

type At = usize;

/// How messages of one type are shown.
#[derive(Debug, Clone)]
pub(in crate::schema) struct Shape {
    messages: Vec<Message>,
}

#[derive(Debug, Clone)]
struct Message {
    descriptor: MessageDescriptor,
    known: Option<Known>,
    fields: Vec<Shown>,
}

/// A field, its name as it is shown, and the message that it holds.
#[derive(Debug, Clone)]
struct Shown {
    name: Arc<str>,
    field: FieldDescriptor,
    message: Option<At>,
}

/// Messages that have a meaning of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    /// A number or a text that may be absent.
    Wrapper,
    /// Seconds and nanoseconds.
    Time,
    /// What JSON may hold.
    Json,
}

fn known(name: &str) -> Option<Known> {
    Some(match name.strip_prefix("google.protobuf.")? {
        "DoubleValue" | "FloatValue" | "Int64Value" | "UInt64Value" | "Int32Value" | "UInt32Value"
        | "BoolValue" | "StringValue" | "BytesValue" => Known::Wrapper,
        "Timestamp" | "Duration" => Known::Time,
        "Struct" | "Value" | "ListValue" => Known::Json,
        _ => return None,
    })
}

impl Shape {
    /// For messages of that type and all they may hold. `Err` if they are too many.
    pub(in crate::schema) fn new(descriptor: &MessageDescriptor) -> Result<Shape, String> {
        let mut places = HashMap::from([(descriptor.full_name().to_owned(), 0)]);
        let mut messages: Vec<Message> = Vec::new();
        let mut left = vec![descriptor.clone()];
        // Messages are met in the order of their places.
        while let Some(descriptor) = left.get(messages.len()).cloned() {
            let mut fields = Vec::new();
            for field in descriptor.fields() {
                let message = held(&field).map(|held| {
                    *places.entry(held.full_name().to_owned()).or_insert_with(|| {
                        left.push(held);
                        left.len() - 1
                    })
                });
                fields.push(Shown { name: field.name().into(), field, message });
            }
            if left.len() > MAX_MESSAGES {
                return Err(format!(
                    "message `{}` holds more than {MAX_MESSAGES} others",
                    descriptor.full_name()
                ));
            }
            messages.push(Message { known: known(descriptor.full_name()), descriptor, fields });
        }
        Ok(Shape { messages })
    }

    /// The type of the messages.
    pub(in crate::schema) fn descriptor(&self) -> &MessageDescriptor {
        &self.message(0).descriptor
    }

    /// Reads one message. `Err` with what was wrong.
    pub(in crate::schema) fn read(&self, bytes: Bytes) -> Result<Value, String> {
        if bytes.len() > MAX_BYTES {
            return Err(format!("the message has {} bytes, expected {MAX_BYTES} at most", bytes.len()));
        }
        let message = DynamicMessage::decode(self.descriptor().clone(), bytes)
            .map_err(|error| format!("it is not a message `{}`: {error}", self.descriptor().full_name()))?;
        Ok(self.show(0, &message))
    }

    fn message(&self, at: At) -> &Message {
        self.messages.get(at).expect("every place that a shape holds is one of its list")
    }

    /// Goes as deep as the decoder has let the message be.
    fn show(&self, at: At, message: &DynamicMessage) -> Value {
        let shape = self.message(at);
        match shape.known {
            Some(Known::Wrapper) => {
                shape.fields.first().map_or(Value::Null, |shown| self.field(shown, message))
            }
            Some(Known::Time) => Value::Float(seconds(message)),
            Some(Known::Json) => json(message),
            None => {
                let field = |shown: &Shown| (Arc::clone(&shown.name), self.field(shown, message));
                Value::Map(shape.fields.iter().map(field).collect())
            }
        }
    }

    /// A field that says whether it is there is null when it is not; another one has its default.
    fn field(&self, shown: &Shown, message: &DynamicMessage) -> Value {
        if shown.field.supports_presence() && !message.has_field(&shown.field) {
            return Value::Null;
        }
        let value = message.get_field(&shown.field);
        match &*value {
            Field::List(items) => self.list(shown, items),
            Field::Map(entries) => {
                let value_field = match shown.field.kind() {
                    Kind::Message(entry) => Some(entry.map_entry_value_field()),
                    _ => None,
                };
                let kind = value_field.map_or_else(|| shown.field.kind(), |field| field.kind());
                let mut entries: Vec<(Arc<str>, Value)> = entries
                    .iter()
                    .map(|(key, value)| (key_text(key), self.single(shown.message, &kind, value)))
                    .collect();
                // The bytes may have them in any order; replaying a record gives the same again.
                entries.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
                Value::Map(entries)
            }
            single => self.single(shown.message, &shown.field.kind(), single),
        }
    }

    fn list(&self, shown: &Shown, items: &[Field]) -> Value {
        match shown.field.kind() {
            Kind::Float | Kind::Double => Value::floats(
                items
                    .iter()
                    .filter_map(|item| item.as_f64().or_else(|| item.as_f32().map(f64::from)))
                    .collect(),
            ),
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => {
                Value::ints(items.iter().filter_map(|item| item.as_i32().map(i64::from)).collect())
            }
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => {
                Value::ints(items.iter().filter_map(Field::as_i64).collect())
            }
            Kind::Uint32 | Kind::Fixed32 => {
                Value::ints(items.iter().filter_map(|item| item.as_u32().map(i64::from)).collect())
            }
            kind => Value::List(items.iter().map(|item| self.single(shown.message, &kind, item)).collect()),
        }
    }

    fn single(&self, message: Option<At>, kind: &Kind, value: &Field) -> Value {
        match value {
            Field::Bool(value) => Value::Bool(*value),
            Field::I32(value) => Value::Int((*value).into()),
            Field::I64(value) => Value::Int((*value).into()),
            Field::U32(value) => Value::Int((*value).into()),
            Field::U64(value) => Value::Int((*value).into()),
            Field::F32(value) => Value::Float((*value).into()),
            Field::F64(value) => Value::Float(*value),
            Field::String(value) => Value::text(value),
            Field::Bytes(value) => Value::Bytes(value.clone()),
            Field::EnumNumber(number) => {
                let name = kind.as_enum().and_then(|kind| kind.get_value(*number));
                name.map_or_else(|| Value::Int((*number).into()), |name| Value::text(name.name()))
            }
            Field::Message(inner) => message.map_or(Value::Null, |at| self.show(at, inner)),
            // Neither lies within a list or a map.
            Field::List(_) | Field::Map(_) => Value::Null,
        }
    }
}

/// The message that a field holds, or that the values of a map are.
fn held(field: &FieldDescriptor) -> Option<MessageDescriptor> {
    match field.kind() {
        Kind::Message(entry) if field.is_map() => entry.map_entry_value_field().kind().as_message().cloned(),
        Kind::Message(message) => Some(message),
        _ => None,
    }
}

fn key_text(key: &MapKey) -> Arc<str> {
    match key {
        MapKey::Bool(key) => key.to_string().into(),
        MapKey::I32(key) => key.to_string().into(),
        MapKey::I64(key) => key.to_string().into(),
        MapKey::U32(key) => key.to_string().into(),
        MapKey::U64(key) => key.to_string().into(),
        MapKey::String(key) => key.as_str().into(),
    }
}

/// Seconds since 1970, or that something took; to about a microsecond these days.
#[allow(clippy::cast_precision_loss, reason = "seconds of dates are far from 53 bits")]
fn seconds(message: &DynamicMessage) -> f64 {
    let seconds = message.get_field_by_name("seconds").and_then(|value| value.as_i64()).unwrap_or_default();
    let nanos = message.get_field_by_name("nanos").and_then(|value| value.as_i32()).unwrap_or_default();
    seconds as f64 + f64::from(nanos) / 1e9
}

/// `google.protobuf.Struct`, `Value` and `ListValue` as what they stand for.
fn json(message: &DynamicMessage) -> Value {
    let inner = |value: &Field| value.as_message().map_or(Value::Null, json);
    match message.fields().next() {
        None => match message.descriptor().name() {
            "Struct" => Value::Map(Vec::new()),
            "ListValue" => Value::List(Vec::new()),
            _ => Value::Null,
        },
        Some((_, value)) => match value {
            Field::Bool(value) => Value::Bool(*value),
            Field::F64(value) => Value::Float(*value),
            Field::String(value) => Value::text(value),
            Field::Message(message) => json(message),
            Field::List(items) => Value::List(items.iter().map(inner).collect()),
            Field::Map(entries) => {
                let mut entries: Vec<(Arc<str>, Value)> =
                    entries.iter().map(|(key, value)| (key_text(key), inner(value))).collect();
                entries.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
                Value::Map(entries)
            }
            _ => Value::Null,
        },
    }
}
