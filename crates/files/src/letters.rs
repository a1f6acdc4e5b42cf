//! Records as lines of an output, and dead letters as JSON.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use salver_records::{Error, Outgoing, Severity};
use serde_json::{Map, Value};

use crate::Form;

/// Appends a record as a line or row.
pub(crate) fn append(record: &Outgoing, form: Form, to: &mut Vec<u8>) -> Result<(), Error> {
    let refused =
        |what: &str| Err(Error::new(Severity::Record, format!("cannot be written to a file: {what}")));
    let value = match (&record.value, form) {
        (Some(value), _) => &value[..],
        (None, Form::JsonLines) => b"null",
        (None, Form::Csv { .. }) => return refused("a tombstone, which CSV has no row for"),
    };
    let value = value.strip_suffix(b"\n").unwrap_or(value);
    let value = value.strip_suffix(b"\r").unwrap_or(value);
    if value.is_empty() {
        return refused("an empty value, which is no line");
    }
    let start = to.len();
    to.extend_from_slice(value);
    if form == Form::JsonLines {
        if std::str::from_utf8(value).is_err() {
            to.truncate(start);
            return refused("a value that is not UTF-8, which JSON is");
        }
        // Between the tokens of JSON a line break is a space; within them there is none.
        for byte in &mut to[start..] {
            if matches!(*byte, b'\n' | b'\r') {
                *byte = b' ';
            }
        }
    }
    to.push(b'\n');
    Ok(())
}

/// Appends a dead letter as a line of JSON: everything that is known of the record.
pub(crate) fn append_dead(record: &Outgoing, to: &mut Vec<u8>) -> Result<(), Error> {
    let mut letter = Map::new();
    put(&mut letter, "key", record.key.as_deref());
    put(&mut letter, "value", record.value.as_deref());
    letter.insert("timestamp_ms".into(), record.timestamp_ms.into());
    let mut headers = Map::new();
    for header in &record.headers {
        let value = header.value.as_deref().map_or(Value::Null, |value| match std::str::from_utf8(value) {
            Ok(text) => text.into(),
            Err(_) => serde_json::json!({ "base64": STANDARD.encode(value) }),
        });
        // A name that comes again becomes a list.
        match headers.get_mut(&*header.name) {
            None => drop(headers.insert(header.name.to_string(), value)),
            Some(Value::Array(values)) => values.push(value),
            Some(first) => *first = Value::Array(vec![first.take(), value]),
        }
    }
    letter.insert("headers".into(), headers.into());
    serde_json::to_writer(&mut *to, &letter)
        .map_err(|error| Error::new(Severity::Record, format!("cannot be written as JSON: {error}")))?;
    to.push(b'\n');
    Ok(())
}

fn put(letter: &mut Map<String, Value>, name: &str, bytes: Option<&[u8]>) {
    let (name, value) = match bytes.map(|bytes| std::str::from_utf8(bytes).map_err(|_| bytes)) {
        None => (name.to_owned(), Value::Null),
        Some(Ok(text)) => (name.to_owned(), text.into()),
        Some(Err(bytes)) => (format!("{name}_base64"), STANDARD.encode(bytes).into()),
    };
    letter.insert(name, value);
}

/// The header row of CSV, where there are names.
pub(crate) fn append_header(columns: Option<&[String]>, form: Form, to: &mut Vec<u8>) {
    let (Form::Csv { delimiter, quote }, Some(columns)) = (form, columns) else { return };
    for (index, column) in columns.iter().enumerate() {
        if index > 0 {
            to.push(delimiter);
        }
        let quoted = |byte: u8| byte == delimiter || byte == quote || matches!(byte, b'\n' | b'\r');
        if column.bytes().any(quoted) || (columns.len() == 1 && column.is_empty()) {
            to.push(quote);
            for byte in column.bytes() {
                to.extend(std::iter::repeat_n(byte, if byte == quote { 2 } else { 1 }));
            }
            to.push(quote);
        } else {
            to.extend_from_slice(column.as_bytes());
        }
    }
    to.push(b'\n');
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use salver_records::{Header, Output};

    use super::*;

    fn outgoing(value: Option<&'static [u8]>) -> Outgoing {
        let value = value.map(Bytes::from_static);
        Outgoing {
            output: Output::Main,
            partition: None,
            key: None,
            value,
            headers: Vec::new(),
            timestamp_ms: None,
        }
    }

    #[test]
    fn lines() {
        let csv = Form::csv(b',');
        type Case = (Form, Option<&'static [u8]>, Option<&'static str>);
        let cases: [Case; 10] = [
            (Form::JsonLines, Some(b"{}"), Some("{}\n")),
            (Form::JsonLines, Some(b"{}\r\n"), Some("{}\n")),
            (Form::JsonLines, Some(b"{\n \"a\":\r\n1}"), Some("{  \"a\":  1}\n")),
            (Form::JsonLines, None, Some("null\n")),
            (Form::JsonLines, Some(b""), None),
            (Form::JsonLines, Some(b"\xff"), None),
            (csv, Some(b"1,\"a\nb\""), Some("1,\"a\nb\"\n")),
            (csv, Some(b"1,2\n"), Some("1,2\n")),
            (csv, None, None),
            (csv, Some(b"\n"), None),
        ];
        for (form, value, expected) in cases {
            let mut to = b"before\n".to_vec();
            let result = append(&outgoing(value), form, &mut to);
            assert_eq!(result.is_ok(), expected.is_some(), "{value:?}");
            assert!(result.err().is_none_or(|error| error.severity == Severity::Record));
            assert_eq!(to, [b"before\n", expected.unwrap_or_default().as_bytes()].concat());
        }
    }

    #[test]
    fn dead_letters() {
        let mut record = outgoing(Some(b"\xff{"));
        record.key = Some(Bytes::from_static(b"k"));
        let header = |value: Option<&'static [u8]>| Header {
            name: "reason".into(),
            value: value.map(Bytes::from_static),
        };
        record.headers = vec![header(Some(b"a")), header(None), header(Some(b"\xfe"))];
        let mut to = Vec::new();
        append_dead(&record, &mut to).unwrap();
        let expected = r#"{"headers":{"reason":["a",null,{"base64":"/g=="}]},"key":"k","timestamp_ms":null,"value_base64":"/3s="}"#;
        let got: Value = serde_json::from_slice(&to).unwrap();
        assert_eq!(got, serde_json::from_str::<Value>(expected).unwrap());
        assert!(to.ends_with(b"\n"));
    }

    #[test]
    fn headers() {
        let check = |form, columns: &[&str], expected: &str| {
            let columns: Vec<String> = columns.iter().map(|column| (*column).to_owned()).collect();
            let mut to = Vec::new();
            append_header(Some(&columns), form, &mut to);
            assert_eq!(String::from_utf8(to).unwrap(), expected);
        };
        check(Form::csv(b','), &["a", "b,c", "d\""], "a,\"b,c\",\"d\"\"\"\n");
        check(Form::csv(b'\t'), &["a,b", "c\td"], "a,b\t\"c\td\"\n");
        check(Form::csv(b','), &[""], "\"\"\n");
        check(Form::Csv { delimiter: b';', quote: b'\'' }, &["a'", "b\"", "c,"], "'a''';b\";c,\n");
        check(Form::JsonLines, &["a"], "");
    }
}
