//! Keys for the records of files: a field of theirs, since lines have no keys of their own.

use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use salver_files::Form;
use salver_mapping::Format;
use salver_mapping::settings::CsvSettings;
use salver_records::{Error, Event, Group, Lag, Partition, Position, Record, Slot, Source};
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};

use crate::stream::config::Config;

/// A source whose records get keys.
#[derive(Debug)]
pub(in crate::stream) struct Keyed {
    inner: Box<dyn Source>,
    key: Key,
}

/// Where a key comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::stream) enum Key {
    /// A field of a JSON object: the content of a string, or a number as it is written.
    Field(String),
    /// A column of separated values.
    Column { number: usize, delimiter: u8, quote: u8 },
    /// The same for all: the file is one sequence.
    Whole,
}

impl Keyed {
    /// The same source with the keys that settings ask for. A window without a key takes the whole file for one sequence.
    ///
    /// # Errors
    /// For a key that the format cannot have, and for a column that there is not.
    pub(super) fn over(
        inner: Box<dyn Source>,
        config: &Config,
        columns: Option<&[String]>,
    ) -> anyhow::Result<Box<dyn Source>> {
        let key = match (&config.source.key, &config.window) {
            (Some(name), _) => Key::of(name, form_of_records(config), columns).context("source.key")?,
            (None, Some(_)) => Key::Whole,
            (None, None) => return Ok(inner),
        };
        Ok(Box::new(Keyed { inner, key }))
    }
}

/// How fields lie in records, if they are found without a reader.
pub(in crate::stream) fn form_of_records(config: &Config) -> Option<Form> {
    match config.mapping.input.format {
        Some(Format::Csv) => Some(csv_form(&config.mapping.input.csv)),
        None | Some(Format::Json) => Some(Form::JsonLines),
        Some(_) => None,
    }
}

/// How rows lie in a file of the dialect that settings name. Characters that no dialect may have are told of by the mapping.
pub(in crate::stream) fn csv_form(settings: &CsvSettings) -> Form {
    let byte = |said: char, unsaid: u8| u8::try_from(said).unwrap_or(unsaid);
    Form::Csv { delimiter: byte(settings.delimiter, b','), quote: byte(settings.quote, b'"') }
}

impl Key {
    /// The field, or the column, of that name.
    ///
    /// # Errors
    /// For a format without fields, and for a column that there is not.
    pub(in crate::stream) fn of(
        name: &str,
        form: Option<Form>,
        columns: Option<&[String]>,
    ) -> anyhow::Result<Key> {
        match form {
            Some(Form::JsonLines) => Ok(Key::Field(name.to_owned())),
            Some(Form::Csv { delimiter, quote }) => {
                let columns = columns.context("the columns have no names: say them in source.columns")?;
                let number = columns
                    .iter()
                    .position(|column| column == name)
                    .with_context(|| format!("no column '{name}' (there is: {})", columns.join(", ")))?;
                Ok(Key::Column { number, delimiter, quote })
            }
            None => bail!("'{name}': only JSON and CSV have fields that could be keys"),
        }
    }

    /// The key of a record; `None` where it has none.
    pub(in crate::stream) fn find(&self, value: &[u8]) -> Option<Bytes> {
        match self {
            Key::Field(name) => field(value, name).map(Bytes::from),
            Key::Column { number, delimiter, quote } => {
                column(value, *number, *delimiter, *quote).map(Bytes::from)
            }
            Key::Whole => Some(Bytes::new()),
        }
    }
}

/// The field of a JSON object, as text. A value that is no JSON has none: what is wrong with it, its reader says.
fn field(value: &[u8], name: &str) -> Option<String> {
    struct Find<'a>(&'a str);

    impl<'de> Visitor<'de> for Find<'_> {
        type Value = Option<serde_json::Value>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut found = None;
            while let Some(key) = map.next_key::<std::borrow::Cow<'_, str>>()? {
                if key == self.0 {
                    found = Some(map.next_value()?);
                } else {
                    map.next_value::<IgnoredAny>()?;
                }
            }
            Ok(found)
        }
    }

    let mut reader = serde_json::Deserializer::from_slice(value);
    match reader.deserialize_map(Find(name)).ok()?? {
        serde_json::Value::String(text) => Some(text),
        serde_json::Value::Number(number) => Some(number.to_string()),
        serde_json::Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    }
}

/// A column of a line (RFC 4180), without its quotes.
fn column(line: &[u8], number: usize, delimiter: u8, quote: u8) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    let (mut at, mut is_quoted, mut is_first) = (0, false, true);
    let mut bytes = line.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        // Only at the beginning of a column a quote is one.
        let may_open = std::mem::take(&mut is_first);
        if is_quoted && byte == quote {
            // Doubled, it stands for itself.
            is_quoted = bytes.next_if_eq(&quote).is_some();
            if !is_quoted {
                continue;
            }
        } else if may_open && byte == quote {
            is_quoted = true;
            continue;
        } else if !is_quoted && byte == delimiter {
            if at == number {
                break;
            }
            at += 1;
            is_first = true;
            continue;
        }
        if at == number {
            text.push(byte);
        }
    }
    (at == number).then_some(text)
}

impl Source for Keyed {
    fn poll(
        &mut self,
        wait: Duration,
        max_bytes: usize,
        records: &mut Vec<Record>,
        events: &mut Vec<Event>,
    ) -> Result<(), Error> {
        let before = records.len();
        let polled = self.inner.poll(wait, max_bytes, records, events);
        for record in records.iter_mut().skip(before) {
            record.key = record.value.as_deref().and_then(|value| self.key.find(value));
        }
        polled
    }

    fn partition(&self, slot: Slot) -> &Partition {
        self.inner.partition(slot)
    }

    fn pause(&mut self, slots: &[Slot]) {
        self.inner.pause(slots);
    }

    fn resume(&mut self, slots: &[Slot]) {
        self.inner.resume(slots);
    }

    fn rewind(&mut self, to: &[Position]) -> Result<(), Error> {
        self.inner.rewind(to)
    }

    fn give_up(&mut self, slots: &[Slot]) -> Result<(), Error> {
        self.inner.give_up(slots)
    }

    fn commit(&mut self, positions: &[Position]) -> Result<(), Error> {
        self.inner.commit(positions)
    }

    fn settle(&mut self) -> Result<(), Error> {
        self.inner.settle()
    }

    fn group(&self) -> Option<Group> {
        self.inner.group()
    }

    fn lags(&mut self) -> Vec<Lag> {
        self.inner.lags()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_fields() {
        let check = |key: &Key, value: &str, expected: Option<&str>| {
            let found = key.find(value.as_bytes());
            assert_eq!(found.as_deref(), expected.map(str::as_bytes), "{key:?} {value}");
        };
        let field = Key::of("id", Some(Form::JsonLines), None).unwrap();
        check(&field, r#"{"a": {"id": 1}, "id": "x\u0041", "b": [1]}"#, Some("xA"));
        check(&field, r#"{"id": 12}"#, Some("12"));
        check(&field, r#"{"id": null}"#, None);
        check(&field, r#"{"other": 1}"#, None);
        check(&field, "[1", None);
        let columns = ["a".to_owned(), "id".to_owned()];
        let column = Key::of("id", Some(Form::csv(b',')), Some(&columns)).unwrap();
        check(&column, "1,x,2", Some("x"));
        check(&column, "\"1,\"\"5\",\"x,\"\"y\"", Some("x,\"y"));
        check(&column, "5\" pipe,x", Some("x"));
        check(&column, "1,", Some(""));
        check(&column, "1", None);
        check(&Key::Whole, "anything", Some(""));
        let error = Key::of("none", Some(Form::csv(b',')), Some(&columns)).unwrap_err();
        assert_eq!(error.to_string(), "no column 'none' (there is: a, id)");
        let settings = CsvSettings { delimiter: ';', quote: '\'', ..CsvSettings::default() };
        let column = Key::of("id", Some(csv_form(&settings)), Some(&columns)).unwrap();
        check(&column, "1;'x;\"'", Some("x;\""));
    }
}
