//! The readers of all formats, behind one call.

use std::sync::Arc;

use bytes::Bytes;
use salver_records::Header;

use crate::fields::{Finder, Slot};
use crate::schema::Framing;
use crate::settings::InputSettings;
use crate::value::Value;
use crate::{Error, Format, Refused, Schemas, csv, image, json, proto, raw, schema};

/// Reads the fields that are needed of one kind of record.
#[derive(Debug)]
pub(crate) struct Codec {
    format: Format,
    reader: Reader,
    max_bytes: usize,
}

#[derive(Debug)]
enum Reader {
    Json(json::Reader, IsFramed),
    Csv(Box<csv::Reader>),
    Raw(raw::Reader),
    Request(Finder),
    Example(Vec<Slot>, Finder),
    Image(image::Reader),
    Schema(schema::Reader, Finder),
}

/// Whether the id of a schema stands before the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum IsFramed {
    No,
    Yes,
}

/// What a reader remembers of a record for a writer that appends to it.
#[derive(Debug, Clone)]
pub(crate) enum Kept {
    Nothing,
    /// Also where the text starts in the record.
    Json(json::Kept, usize),
    Schema(schema::Kept),
}

/// What a reader needs besides settings.
#[derive(Debug, Default)]
pub(crate) struct Needs<'a> {
    pub(crate) slots: &'a [Slot],
    /// The slot of a JSON record that is no object.
    pub(crate) bare: Option<usize>,
    pub(crate) columns: Option<&'a [String]>,
    /// How many columns a line without names has, if it is known.
    pub(crate) n_columns: Option<usize>,
    pub(crate) parts: Vec<raw::Part>,
    pub(crate) picture: Option<image::Picture>,
    pub(crate) schemas: Option<Arc<dyn Schemas>>,
}

impl Codec {
    pub(crate) fn new(format: Format, settings: &InputSettings, needs: Needs<'_>) -> Result<Codec, Error> {
        let limits = &settings.limits;
        let slots = needs.slots;
        let reader = match format {
            Format::Json => {
                let is_framed = match settings.schema.framing {
                    Some(Framing::Registry) => IsFramed::Yes,
                    _ => IsFramed::No,
                };
                Reader::Json(json::Reader::new(slots, needs.bare, limits), is_framed)
            }
            Format::Csv => {
                let reader = csv::Reader::new(&settings.csv, slots, needs.columns, needs.n_columns, limits)?;
                Reader::Csv(Box::new(reader))
            }
            Format::Raw => Reader::Raw(raw::Reader::new(needs.parts, slots).map_err(Error::new)?),
            Format::PredictRequest => Reader::Request(Finder::new(slots)),
            Format::Example => Reader::Example(slots.to_vec(), Finder::new(slots)),
            Format::Image => {
                Reader::Image(image::Reader::new(needs.picture, slots, limits).map_err(Error::new)?)
            }
            Format::Avro | Format::Protobuf => {
                let reader = schema::Reader::new(format, &settings.schema, needs.schemas)?;
                Reader::Schema(reader, Finder::new(slots))
            }
        };
        Ok(Codec { format, reader, max_bytes: limits.max_bytes })
    }

    /// The fields, in the order of the slots.
    pub(crate) fn read(
        &self,
        record: &Bytes,
        headers: &[Header],
    ) -> Result<(Vec<Option<Value>>, Kept), Refused> {
        if record.len() > self.max_bytes {
            let (got, max) = (record.len(), self.max_bytes);
            return Err(Refused::too_large(format!("the record has {got} bytes, at most {max} are allowed")));
        }
        Ok(match &self.reader {
            Reader::Json(reader, IsFramed::No) => {
                let (fields, kept) = reader.read(record)?;
                (fields, Kept::Json(kept, 0))
            }
            Reader::Json(reader, IsFramed::Yes) => {
                let text = schema::payload(record, headers)?;
                let (fields, kept) = reader.read(&text)?;
                (fields, Kept::Json(kept, record.len() - text.len()))
            }
            Reader::Csv(reader) => (reader.read(record)?, Kept::Nothing),
            Reader::Raw(reader) => (reader.read(record)?, Kept::Nothing),
            Reader::Request(finder) => {
                (finder.find(&proto::read_request(record, self.max_decoded())?), Kept::Nothing)
            }
            Reader::Example(slots, finder) => (proto::read_example(record, slots, finder)?, Kept::Nothing),
            Reader::Image(reader) => (reader.read(record)?, Kept::Nothing),
            Reader::Schema(reader, finder) => {
                let (whole, kept) = reader.read(record, headers)?;
                (finder.find(&whole), Kept::Schema(kept))
            }
        })
    }

    /// What tensors may take that a few bytes of a message can stand for.
    fn max_decoded(&self) -> usize {
        self.max_bytes.saturating_mul(4)
    }

    pub(crate) fn format(&self) -> Format {
        self.format
    }
}
