//! Values to Avro's binary encoding.
//! Source: the Avro specification 1.12, "Binary Encoding".

use std::sync::Arc;

use super::resolve::value_of;
use super::{At, Avro, Field, Node};
use crate::value::{Numbers, Value};

/// How deep values may lie in each other.
const MAX_DEPTH: usize = 96;

impl Avro {
    /// Appends a value of the schema's own type. `Err` with the field and what was wrong with it; what was written of it is then
    /// left behind.
    pub(in crate::schema) fn write(&self, value: &Value, into: &mut Vec<u8>) -> Result<(), String> {
        self.write_at(self.root(), value, into, 0)
    }

    /// Appends a value of one of the schema's types.
    pub(in crate::schema) fn write_at(
        &self,
        at: At,
        value: &Value,
        into: &mut Vec<u8>,
        depth: usize,
    ) -> Result<(), String> {
        if depth > MAX_DEPTH {
            return Err(format!("values lie more than {MAX_DEPTH} deep"));
        }
        let wrong = || format!("{} was given, expected {}", value.what(), self.what(at));
        match (self.node(at), value) {
            (Node::Null, Value::Null) => {}
            (Node::Boolean, Value::Bool(value)) => into.push(u8::from(*value)),
            (Node::Int, value) => {
                long(whole(value).and_then(|n| i32::try_from(n).ok()).ok_or_else(wrong)?.into(), into)
            }
            (Node::Long, value) => {
                long(whole(value).and_then(|n| i64::try_from(n).ok()).ok_or_else(wrong)?, into)
            }
            (Node::Float, value) => into.extend_from_slice(&single(value).ok_or_else(wrong)?.to_le_bytes()),
            (Node::Double, value) => into.extend_from_slice(&number(value).ok_or_else(wrong)?.to_le_bytes()),
            (Node::Text, Value::Text(text)) => bytes(text.as_bytes(), into),
            (Node::Bytes, Value::Bytes(value)) => bytes(value, into),
            (Node::Bytes, Value::Text(text)) => bytes(text.as_bytes(), into),
            (Node::Fixed { size, .. }, Value::Bytes(value)) if value.len() == *size => {
                into.extend_from_slice(value)
            }
            (Node::Decimal { size, precision, scale }, value) => {
                decimal(value, *size, *precision, *scale, into).ok_or_else(wrong)?;
            }
            (Node::Uuid, Value::Text(text)) => into.extend_from_slice(&uuid(text).ok_or_else(wrong)?),
            (Node::Duration, Value::Map(fields)) => duration(fields, into).ok_or_else(wrong)?,
            (Node::Enum { symbols, .. }, Value::Text(text)) => {
                let number = symbols.iter().position(|symbol| symbol == text);
                let number =
                    number.ok_or_else(|| format!("symbol `{text}` is not one of {}", self.what(at)))?;
                long(i64::try_from(number).map_err(|_| wrong())?, into);
            }
            (Node::Array(items), Value::List(values)) => {
                head(values.len(), into)?;
                for value in values {
                    self.write_at(*items, value, into, depth + 1)?;
                }
                end(into);
            }
            (Node::Array(items), Value::Array(array)) => {
                let n = array.lens.first().copied().unwrap_or_default();
                head(n, into)?;
                self.items(*items, array, n, into, depth)?;
                end(into);
            }
            (Node::Map(values), Value::Map(entries)) => {
                head(entries.len(), into)?;
                for (key, value) in entries {
                    bytes(key.as_bytes(), into);
                    self.write_at(*values, value, into, depth + 1)
                        .map_err(|error| format!("`{key}`: {error}"))?;
                }
                end(into);
            }
            (Node::Record { fields, .. }, Value::Map(values)) => self.fields(fields, values, into, depth)?,
            (Node::Union(branches), value) => self.union(branches, value, into, depth).ok_or_else(wrong)?,
            _ => return Err(wrong()),
        }
        Ok(())
    }

    #[allow(
        clippy::cast_possible_truncation,
        reason = "a float answer is kept as a double and was a float before"
    )]
    fn items(
        &self,
        items: At,
        array: &crate::value::Array,
        n: usize,
        into: &mut Vec<u8>,
        depth: usize,
    ) -> Result<(), String> {
        if let (Node::Float, Numbers::Floats(numbers), 1) =
            (self.node(items), &array.numbers, array.lens.len())
        {
            into.extend(numbers.iter().flat_map(|number| (*number as f32).to_le_bytes()));
            return Ok(());
        }
        let whole = Value::Array(array.clone());
        for index in 0..n {
            let path = crate::path::Path::new(vec![crate::path::Step::Index(index)]);
            let item = whole.at(&path).ok_or("numbers are missing from a list")?;
            self.write_at(items, &item, into, depth + 1)?;
        }
        Ok(())
    }

    fn fields(
        &self,
        fields: &[Field],
        values: &[(Arc<str>, Value)],
        into: &mut Vec<u8>,
        depth: usize,
    ) -> Result<(), String> {
        for field in fields {
            let given = values.iter().rev().find(|(name, _)| *name == field.name).map(|(_, value)| value);
            let written = match (given, &field.default) {
                (Some(value), _) => self.write_at(field.node, value, into, depth + 1),
                (None, Some(default)) => {
                    let value = value_of(self, field.node, default)?;
                    self.write_at(field.node, &value, into, depth + 1)
                }
                (None, None) => self
                    .write_at(field.node, &Value::Null, into, depth + 1)
                    .map_err(|_| "nothing was given, and the schema has no default".to_owned()),
            };
            written.map_err(|error| format!("field `{}`: {error}", field.name))?;
        }
        Ok(())
    }

    /// Writes the first branch that the value fits, of those that fit best.
    fn union(&self, branches: &[At], value: &Value, into: &mut Vec<u8>, depth: usize) -> Option<()> {
        let start = into.len();
        for fit in [Fit::Same, Fit::Near, Fit::Far, Fit::Lossy] {
            for (number, &branch) in branches.iter().enumerate() {
                if self.fit(branch, value) == fit {
                    long(i64::try_from(number).ok()?, into);
                    if self.write_at(branch, value, into, depth + 1).is_ok() {
                        return Some(());
                    }
                    into.truncate(start);
                }
            }
        }
        None
    }

    fn fit(&self, at: At, value: &Value) -> Fit {
        match (self.node(at), value) {
            (Node::Float, Value::Float(number)) if !is_single(*number) => Fit::Near,
            (Node::Record { fields, .. }, Value::Map(values)) => fit_of(fields, values),
            (Node::Map(_), Value::Map(_)) => Fit::Far,
            (Node::Null, Value::Null)
            | (Node::Boolean, Value::Bool(_))
            | (Node::Int | Node::Long, Value::Int(_))
            | (Node::Float | Node::Double | Node::Decimal { .. }, Value::Float(_))
            | (Node::Text | Node::Enum { .. } | Node::Uuid, Value::Text(_))
            | (Node::Bytes | Node::Fixed { .. }, Value::Bytes(_))
            | (Node::Array(_), Value::List(_) | Value::Array(_))
            | (Node::Duration, Value::Map(_)) => Fit::Same,
            _ => Fit::Near,
        }
    }
}

/// How well a value fits a branch of a union. Which branch it was read from, it does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fit {
    /// It is of that type.
    Same,
    /// It may be of that type: of a record, all the fields are there that are given, and some are not given.
    Near,
    /// Named values as a map: a record has fewer names to choose from.
    Far,
    /// The record has no place for some of the fields that are given.
    Lossy,
}

fn fit_of(fields: &[Field], values: &[(Arc<str>, Value)]) -> Fit {
    let is_there = |(name, _): &(Arc<str>, Value)| fields.iter().any(|field| field.name == *name);
    match values.iter().all(is_there) {
        false => Fit::Lossy,
        true if fields.len() == values.len() => Fit::Same,
        true => Fit::Near,
    }
}

/// Whether single precision holds the number as it is.
fn is_single(number: f64) -> bool {
    #[allow(clippy::cast_possible_truncation, reason = "it is looked whether something is lost")]
    let single = number as f32;
    f64::from(single) == number || number.is_nan()
}

/// The number of items of the one block that a list or a map has; nothing for none, as the end says it.
fn head(n: usize, into: &mut Vec<u8>) -> Result<(), String> {
    if n > 0 {
        long(i64::try_from(n).map_err(|_| "a list is too long")?, into);
    }
    Ok(())
}

/// The end of a list or a map.
fn end(into: &mut Vec<u8>) {
    into.push(0);
}

/// A zigzag varint.
fn long(value: i64, into: &mut Vec<u8>) {
    let mut rest = (value.cast_unsigned() << 1) ^ (value >> 63).cast_unsigned();
    while rest >= 0x80 {
        into.push(rest.to_le_bytes()[0] | 0x80);
        rest >>= 7;
    }
    into.push(rest.to_le_bytes()[0]);
}

fn bytes(value: &[u8], into: &mut Vec<u8>) {
    long(i64::try_from(value.len()).unwrap_or(i64::MAX), into);
    into.extend_from_slice(value);
}

/// A number without anything after its point.
fn whole(value: &Value) -> Option<i128> {
    match value {
        Value::Int(number) => Some(*number),
        #[allow(clippy::cast_possible_truncation, reason = "checked to be whole and within 53 bits")]
        Value::Float(number) if number.trunc() == *number && number.abs() <= 9_007_199_254_740_992.0 => {
            Some(*number as i128)
        }
        _ => None,
    }
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Float(number) => Some(*number),
        #[allow(
            clippy::cast_precision_loss,
            reason = "a whole number is written as a float where the schema says float"
        )]
        Value::Int(number) => Some(*number as f64),
        _ => None,
    }
}

/// A number as a float; `None` for a finite one that a float cannot hold.
fn single(value: &Value) -> Option<f32> {
    let double = number(value)?;
    #[allow(clippy::cast_possible_truncation, reason = "the nearest float is meant")]
    let single = double as f32;
    (single.is_finite() || !double.is_finite()).then_some(single)
}

/// A number or text of one as a decimal, if it has no more digits than that holds.
fn decimal(value: &Value, size: Option<usize>, precision: u32, scale: u32, into: &mut Vec<u8>) -> Option<()> {
    let text = match value {
        Value::Int(number) => number.to_string(),
        // The shortest text that reads back as the number; with more digits than that it holds, it would be made up.
        Value::Float(number) if number.is_finite() => format!("{number}"),
        Value::Text(text) => text.to_string(),
        _ => return None,
    };
    let (digits, negative) = text.strip_prefix('-').map_or((text.as_str(), false), |digits| (digits, true));
    let (before, after) = digits.split_once('.').unwrap_or((digits, ""));
    let scale = usize::try_from(scale).ok()?;
    let after = after.trim_end_matches('0');
    if after.len() > scale || scale > 38 || (before.is_empty() && after.is_empty()) {
        return None;
    }
    let all = format!("{before}{after}{}", "0".repeat(scale - after.len()));
    if !all.bytes().all(|byte| byte.is_ascii_digit())
        || all.trim_start_matches('0').len() > usize::try_from(precision).ok()?
    {
        return None;
    }
    let number: i128 = all.parse().ok()?;
    let bytes_of = if negative { -number } else { number }.to_be_bytes();
    let sign = if bytes_of.first()? & 0x80 == 0 { 0u8 } else { 0xff };
    // The fewest bytes whose first bit is the sign.
    let mut start = 0;
    while start < 15 && bytes_of.get(start) == Some(&sign) && (bytes_of.get(start + 1)? ^ sign) & 0x80 == 0 {
        start += 1;
    }
    let short = bytes_of.get(start..)?;
    match size {
        None => bytes(short, into),
        Some(size) => {
            let fill = size.checked_sub(short.len())?;
            into.extend(std::iter::repeat_n(sign, fill));
            into.extend_from_slice(short);
        }
    }
    Some(())
}

/// Reads 8-4-4-4-12 hexadecimal digits.
fn uuid(text: &str) -> Option<[u8; 16]> {
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b'-').collect();
    let value = (digits.len() == 32 && text.len() == 36).then(|| std::str::from_utf8(&digits).ok())??;
    u128::from_str_radix(value, 16).ok().map(u128::to_be_bytes)
}

fn duration(fields: &[(Arc<str>, Value)], into: &mut Vec<u8>) -> Option<()> {
    for name in ["months", "days", "milliseconds"] {
        let value =
            fields.iter().rev().find(|(field, _)| &**field == name).and_then(|(_, value)| whole(value))?;
        into.extend_from_slice(&u32::try_from(value).ok()?.to_le_bytes());
    }
    Some(())
}
