//! Records as Crayfish sends them, and what is read of the answers.

use std::io::Write;

use serde_json::Value;

/// Distinct rows of numbers; records repeat them under their own time of creation.
const N_ROWS: u64 = 256;
const BEGIN: &str = "{\"creationTimestamp\":";

/// What a record's value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// JSON with the time of creation, the sizes, and the numbers as text with eight digits after the point.
    Json,
    /// The numbers alone, little-endian.
    Raw,
}

/// Makes the values of records of a model that takes so many numbers.
#[derive(Debug)]
pub(crate) struct Records {
    form: Form,
    rows: Vec<Vec<u8>>,
}

impl Records {
    pub(crate) fn new(form: Form, n_numbers: usize) -> Records {
        let rows = (0..N_ROWS).map(|row| (0..n_numbers as u64).map(move |i| number(row * 65_536 + i)));
        let rows = match form {
            Form::Raw => rows.map(|row| row.flat_map(f32::to_le_bytes).collect()).collect(),
            Form::Json => rows
                .map(|row| {
                    let texts: Vec<String> = row.map(|number| format!("{number:.8}")).collect();
                    let numbers = texts.join(",");
                    format!("\"dataPointSz1\":1,\"dataPointSz2\":{n_numbers},\"dataPoint\":[[{numbers}]]}}")
                        .into_bytes()
                })
                .collect(),
        };
        Records { form, rows }
    }

    /// Writes the value of the record that was created at this millisecond into an empty buffer.
    pub(crate) fn write(&self, index: u64, created_ms: i64, value: &mut Vec<u8>) {
        value.clear();
        if self.form == Form::Json {
            // Writing to memory does not fail.
            let _written = write!(value, "{BEGIN}{created_ms},");
        }
        value.extend_from_slice(&self.rows[(index % N_ROWS) as usize]);
    }
}

/// Between 0 and 1, spread without a pattern.
fn number(index: u64) -> f32 {
    let mixed = (index + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    (mixed as f64 / f64::from(1 << 24)) as f32
}

/// The time of creation that an answer begins with.
pub(crate) fn created(value: &[u8]) -> Option<i64> {
    let rest = value.strip_prefix(BEGIN.as_bytes())?;
    let n = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    str::from_utf8(&rest[..n]).ok()?.parse().ok()
}

/// The numbers of the field `prediction`, however they are nested.
pub(crate) fn prediction(value: &[u8]) -> Option<Vec<f64>> {
    fn flat(value: &Value, into: &mut Vec<f64>) {
        match value {
            Value::Array(items) => items.iter().for_each(|item| flat(item, into)),
            other => into.extend(other.as_f64()),
        }
    }
    let value: Value = serde_json::from_slice(value).ok()?;
    let mut numbers = Vec::new();
    flat(value.get("prediction")?, &mut numbers);
    Some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_says_when_it_was_made() {
        let records = Records::new(Form::Json, 784);
        let mut value = Vec::new();
        records.write(3, 1_700_000_000_123, &mut value);
        assert!((8_000..9_000).contains(&value.len()), "{}", value.len());
        assert_eq!(created(&value), Some(1_700_000_000_123));
        let parsed: Value = serde_json::from_slice(&value).unwrap();
        assert_eq!(parsed["dataPoint"][0].as_array().map(Vec::len), Some(784));
        assert_eq!(created(b"{\"x\":1}"), None);
        Records::new(Form::Raw, 784).write(3, 0, &mut value);
        assert_eq!(value.len(), 3_136);
    }

    #[test]
    fn predictions_are_found_in_any_nesting() {
        for (text, expected) in [
            (r#"{"prediction":[[0.5,1]]}"#, Some(vec![0.5, 1.0])),
            (r#"{"prediction":[2.0]}"#, Some(vec![2.0])),
            (r#"{"x":1}"#, None),
        ] {
            assert_eq!(prediction(text.as_bytes()), expected, "{text}");
        }
    }
}
