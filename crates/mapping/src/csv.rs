//! Records of separated values: one line each.

use std::sync::{Mutex, PoisonError};

use csv_core::{ReadRecordResult, ReaderBuilder};

use crate::error::show;
use crate::fields::{Hint, Slot};
use crate::json::digits;
use crate::path::Step;
use crate::settings::{CsvSettings, LimitSettings};
use crate::value::{Kind, Numbers, Value};
use crate::{Error, Refused};

/// The bytes that have a meaning.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dialect {
    delimiter: u8,
    quote: u8,
}

impl Dialect {
    pub(crate) fn new(settings: &CsvSettings) -> Result<Dialect, Error> {
        let byte = |key: &str, c: char| {
            u8::try_from(c)
                .ok()
                .filter(|byte| byte.is_ascii() && !matches!(byte, b'\r' | b'\n'))
                .ok_or_else(|| Error::new(format!("csv.{key} is {c:?}, expected one ASCII character")))
        };
        let dialect = Dialect {
            delimiter: byte("delimiter", settings.delimiter)?,
            quote: byte("quote", settings.quote)?,
        };
        if dialect.delimiter == dialect.quote {
            return Err(Error::new("csv.delimiter and csv.quote are the same character"));
        }
        Ok(dialect)
    }

    /// A column, quoted where it has to be.
    pub(crate) fn write(self, out: &mut Vec<u8>, column: &[u8]) {
        let is_special =
            |&byte: &u8| byte == self.delimiter || byte == self.quote || matches!(byte, b'\r' | b'\n');
        if !column.iter().any(is_special) {
            out.extend_from_slice(column);
            return;
        }
        out.push(self.quote);
        for &byte in column {
            if byte == self.quote {
                out.push(self.quote);
            }
            out.push(byte);
        }
        out.push(self.quote);
    }
}

/// Reads the columns that are needed.
#[derive(Debug)]
pub(crate) struct Reader {
    /// Readers that were made, because their tables take time: one for each thread that reads at the same time. They are
    /// not cloned, since a clone of `csv-core` 0.1.13 forgets which bytes separate.
    idle: Mutex<Vec<csv_core::Reader>>,
    dialect: Dialect,
    /// By slot, the column and how it is read.
    columns: Vec<(usize, Hint)>,
    /// The number of columns, if it is known.
    n_columns: Option<usize>,
    null: Vec<Vec<u8>>,
    max_columns: usize,
}

impl Reader {
    pub(crate) fn new(
        settings: &CsvSettings,
        slots: &[Slot],
        names: Option<&[String]>,
        n_columns: Option<usize>,
        limits: &LimitSettings,
    ) -> Result<Reader, Error> {
        let dialect = Dialect::new(settings)?;
        let mut problems = Vec::new();
        let mut columns = Vec::with_capacity(slots.len());
        for slot in slots {
            match column(slot, names) {
                Ok(index) => columns.push((index, slot.hint)),
                Err(problem) => problems.push(problem),
            }
        }
        Error::unless_none(problems)?;
        Ok(Reader {
            idle: Mutex::default(),
            dialect,
            columns,
            n_columns: names.map(<[String]>::len).or(n_columns),
            null: settings.null.iter().map(|text| text.clone().into_bytes()).collect(),
            max_columns: limits.max_elements,
        })
    }

    /// The columns, in the order of the slots.
    pub(crate) fn read(&self, record: &[u8]) -> Result<Vec<Option<Value>>, Refused> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut reader = idle.unwrap_or_else(|| {
            ReaderBuilder::new().delimiter(self.dialect.delimiter).quote(self.dialect.quote).build()
        });
        reader.reset();
        let line = Line::read(&mut reader, trim_end(record), self.n_columns, self.max_columns);
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(reader);
        let line = line?;
        if let Some(n) = self.n_columns
            && n != line.ends.len()
        {
            return Err(Refused::shape(format!("the line has {} columns, expected {n}", line.ends.len())));
        }
        self.columns
            .iter()
            .map(|&(index, hint)| match line.column(index) {
                None => Ok(None),
                Some(text) if hint != Hint::AsIs && self.null.iter().any(|null| null == text) => {
                    Ok(Some(Value::Null))
                }
                Some(text) => value(text, hint, index).map(Some),
            })
            .collect()
    }
}

/// The bytes of a line without its end.
pub(crate) fn trim_end(record: &[u8]) -> &[u8] {
    let record = record.strip_suffix(b"\n").unwrap_or(record);
    record.strip_suffix(b"\r").unwrap_or(record)
}

/// The number of the column that a slot means.
fn column(slot: &Slot, names: Option<&[String]>) -> Result<usize, String> {
    let [Step::Key(name)] = slot.path.steps() else {
        return Err(format!("field `{}`: a line has columns only, expected the name of one", slot.path));
    };
    match names {
        Some(names) => {
            let mut places = (0..names.len()).filter(|&place| *names[place] == **name);
            match (places.next(), places.next()) {
                (Some(place), None) => Ok(place),
                (Some(_), Some(_)) => Err(format!(
                    "field `{name}`: several columns have this name; give them names of their own in csv.columns"
                )),
                (None, _) => {
                    let shown: Vec<&str> = names.iter().take(20).map(String::as_str).collect();
                    Err(format!("field `{name}`: there is no such column; columns are {}", shown.join(", ")))
                }
            }
        }
        None => name.parse().map_err(|_| {
            format!(
                "field `{name}`: the columns have no names; expected a number from 0, or names in csv.columns"
            )
        }),
    }
}

/// The columns of a line, unquoted.
struct Line {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Line {
    fn read(
        reader: &mut csv_core::Reader,
        record: &[u8],
        n_columns: Option<usize>,
        max_columns: usize,
    ) -> Result<Line, Refused> {
        if record.is_empty() {
            return Ok(Line { bytes: Vec::new(), ends: vec![0] });
        }
        // Unquoting makes nothing longer, and there are never more columns than bytes and one.
        let mut bytes = vec![0; record.len() + 1];
        let mut ends = vec![0; n_columns.map_or(64, |n| n + 1).min(record.len() + 1).min(max_columns)];
        let (mut n_in, mut n_out, mut n_ends) = (0, 0, 0);
        loop {
            let rest = record.get(n_in..).unwrap_or_default();
            // A line feed after the last byte ends the record, but for one in quotes.
            let (is_end, input) = if rest.is_empty() { (true, &b"\n"[..]) } else { (false, rest) };
            let (result, read, wrote, ended) =
                reader.read_record(input, &mut bytes[n_out..], &mut ends[n_ends..]);
            (n_out, n_ends) = (n_out + wrote, n_ends + ended);
            n_in += if is_end { 0 } else { read };
            match result {
                ReadRecordResult::InputEmpty if is_end => {
                    return Err(Refused::format(format!(
                        "column {n_ends} begins with a quote that is not closed"
                    )));
                }
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::OutputFull => bytes.resize(bytes.len() + 64, 0),
                ReadRecordResult::OutputEndsFull if ends.len() >= max_columns => {
                    return Err(Refused::too_large(format!("the line has more than {max_columns} columns")));
                }
                ReadRecordResult::OutputEndsFull => {
                    ends.resize((ends.len() * 2).min(record.len() + 2).min(max_columns), 0);
                }
                ReadRecordResult::Record | ReadRecordResult::End => break,
            }
        }
        if n_in < record.len() {
            let rest = record.get(n_in..).unwrap_or_default();
            return Err(Refused::format(format!(
                "the record has more than one line; the next is `{}`",
                show(rest)
            )));
        }
        ends.truncate(n_ends);
        Ok(Line { bytes, ends })
    }

    fn column(&self, index: usize) -> Option<&[u8]> {
        let end = *self.ends.get(index)?;
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        self.bytes.get(start..end)
    }
}

fn value(text: &[u8], hint: Hint, index: usize) -> Result<Value, Refused> {
    let utf8 = std::str::from_utf8(text);
    let number = match hint {
        Hint::Float => utf8.ok().and_then(|text| text.trim().parse().ok()).map(Value::Float),
        Hint::Int | Hint::Any => utf8.ok().and_then(|text| number(text.trim())),
        Hint::Json => utf8.ok().and_then(json_number),
        Hint::Text | Hint::AsIs => None,
    };
    match number {
        // Infinity in words is what it says.
        Some(Value::Float(number)) if number.is_infinite() && text.iter().any(u8::is_ascii_digit) => {
            let shown = show(text);
            return Err(Refused::format(format!("column {index}: `{shown}` is too large for a double")));
        }
        Some(number) => return Ok(number),
        None => {}
    }
    let stays_text = matches!(hint, Hint::Text | Hint::Json | Hint::AsIs);
    match utf8 {
        Ok("true") if hint == Hint::Json => Ok(Value::Bool(true)),
        Ok("false") if hint == Hint::Json => Ok(Value::Bool(false)),
        Ok("true" | "True" | "TRUE") if !stays_text => Ok(Value::Bool(true)),
        Ok("false" | "False" | "FALSE") if !stays_text => Ok(Value::Bool(false)),
        Ok(text) => Ok(Value::Text(text.into())),
        Err(_) if stays_text => Ok(Value::Bytes(bytes::Bytes::copy_from_slice(text))),
        Err(_) => Err(Refused::format(format!("column {index} is not UTF-8: `{}`", show(text)))),
    }
}

/// A whole number, exact, or any other.
fn number(text: &str) -> Option<Value> {
    text.parse().map(Value::Int).ok().or_else(|| text.parse().map(Value::Float).ok())
}

/// A number that JSON would take for one. With zeros in front, or with more digits than are exact, it is a name for something.
fn json_number(text: &str) -> Option<Value> {
    let is_trimmed = text.bytes().all(|byte| !byte.is_ascii_whitespace());
    serde_json::from_str::<serde_json::Number>(text).ok().filter(|_| is_trimmed)?;
    match text.parse() {
        Ok(whole) => Some(Value::Int(whole)),
        Err(_) if text.contains(['.', 'e', 'E']) => text.parse().ok().map(Value::Float),
        Err(_) => None,
    }
}

/// How many columns a kind of answer takes, by the ends of their names; `None` where it is not known before.
pub(crate) fn column_names(name: &str, kind: &Kind, lens: Option<&[usize]>) -> Option<Vec<String>> {
    match kind {
        Kind::List(_) => {
            let n = lens?.iter().try_fold(1usize, |n, &len| n.checked_mul(len)).filter(|&n| n <= 65_536)?;
            let mut inner = kind;
            while let Kind::List(next) = inner {
                inner = next;
            }
            match inner {
                Kind::Map(members) => Some(
                    (1..=n)
                        .flat_map(|i| members.iter().map(move |(member, _)| format!("{name}_{i}_{member}")))
                        .collect(),
                ),
                _ if n == 1 => Some(vec![name.to_owned()]),
                _ => Some((0..n).map(|i| format!("{name}_{i}")).collect()),
            }
        }
        Kind::Map(members) => Some(members.iter().map(|(member, _)| format!("{name}_{member}")).collect()),
        _ => Some(vec![name.to_owned()]),
    }
}

/// Writes a value as one column or several, each with a delimiter in front but the line's first.
pub(crate) fn write_value(
    out: &mut Vec<u8>,
    dialect: Dialect,
    value: &Value,
    kind: Option<&Kind>,
    is_first: &mut bool,
) {
    let mut column = |text: &[u8]| {
        if !std::mem::take(is_first) {
            out.push(dialect.delimiter);
        }
        dialect.write(out, text);
    };
    match value {
        Value::Null => column(b""),
        Value::Bool(true) => column(b"true"),
        Value::Bool(false) => column(b"false"),
        Value::Int(number) => column(number.to_string().as_bytes()),
        Value::Float(number) => column(float(&mut ryu::Buffer::new(), *number, kind).as_bytes()),
        Value::Text(text) => column(text.as_bytes()),
        Value::Bytes(bytes) => column(bytes),
        Value::List(items) => {
            let inner = inner_kind(kind);
            items.iter().for_each(|item| write_value(out, dialect, item, inner, is_first));
        }
        Value::Array(array) => {
            let mut inner = kind;
            while matches!(inner, Some(Kind::List(_))) {
                inner = inner_kind(inner);
            }
            match &array.numbers {
                Numbers::Floats(numbers) => {
                    let mut buffer = ryu::Buffer::new();
                    numbers.iter().for_each(|&number| column(float(&mut buffer, number, inner).as_bytes()));
                }
                Numbers::Ints(numbers) => {
                    numbers.iter().for_each(|number| column(number.to_string().as_bytes()))
                }
            }
        }
        Value::Tensor(tensor) => {
            if let Some(value) = crate::answers::tensor_value(tensor) {
                write_value(out, dialect, &value, kind, is_first);
            }
        }
        Value::Map(members) => {
            for (i, (_, value)) in members.iter().enumerate() {
                let kind = match kind {
                    Some(Kind::Map(kinds)) => kinds.get(i).map(|(_, kind)| kind),
                    _ => None,
                };
                write_value(out, dialect, value, kind, is_first);
            }
        }
    }
}

fn inner_kind(kind: Option<&Kind>) -> Option<&Kind> {
    match kind {
        Some(Kind::List(inner)) => Some(inner),
        other => other,
    }
}

fn float<'b>(buffer: &'b mut ryu::Buffer, number: f64, kind: Option<&Kind>) -> &'b str {
    match number {
        number if number.is_nan() => "NaN",
        f64::INFINITY => "inf",
        f64::NEG_INFINITY => "-inf",
        number => digits(buffer, number, kind),
    }
}
