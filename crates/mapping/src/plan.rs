//! Everything that is known before the first record.

mod build;
mod features;
mod picture;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use salver_predict::{ModelName, Version};
use salver_records::Record;
use salver_tensor::{Signature, Tensor};

use crate::codec::{Codec, Kept};
use crate::encode::{Encoder, Material};
use crate::filter::Filter;
use crate::inputs::{Input, Lead, Made, Place, Rows};
use crate::settings::{InputSettings, Settings};
use crate::value::Value;
use crate::{Error, Refused, Schemas};

/// An input of the model that is collected row by row: a record gives one row of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// The input's name.
    pub input: String,
    /// How many rows the model takes at once.
    pub rows: usize,
}

/// A table whose records are joined to those of the stream. Its fields have paths such as `customers.age`, by the table's
/// name.
#[derive(Debug, Clone, Copy)]
pub struct TableFormat<'a> {
    /// The name by which paths know it.
    pub name: &'a str,
    /// How its records are read. Its `tensors` are not looked at.
    pub input: &'a InputSettings,
    /// The names of its columns, if they are known from elsewhere.
    pub columns: Option<&'a [String]>,
}

/// What a plan is made for, besides settings and a signature.
#[derive(Debug, Clone, Default)]
pub struct Around<'a> {
    /// The input that is collected row by row.
    pub window: Option<&'a Window>,
    /// The names of the records' columns, where the source has a header.
    pub columns: Option<&'a [String]>,
    /// Tables that are joined, in the order in which [`Plan::inputs`] gets their records.
    pub tables: &'a [TableFormat<'a>],
    /// Where schemas come from.
    pub schemas: Option<Arc<dyn Schemas>>,
}

/// How records become tensors and answers become records, for one signature of a model. Shared by threads; nothing in it
/// changes but what readers of schemas remember.
#[derive(Debug)]
pub struct Plan {
    codec: Codec,
    tables: Vec<Codec>,
    inputs: Vec<Input>,
    /// The windowed input.
    window: Option<usize>,
    filter: Filter,
    encoder: Encoder,
}

/// The fields of a record that a plan needs.
#[derive(Debug, Clone)]
pub struct Decoded {
    pub(crate) fields: Vec<Option<Value>>,
    pub(crate) kept: Kept,
}

/// Who answered, for answers that say so.
#[derive(Debug, Clone, Copy)]
pub struct About<'a> {
    /// The model.
    pub model: &'a ModelName,
    /// Its version.
    pub version: Version,
    /// How long it took, from reading the record on.
    pub latency: Duration,
}

/// An answer as a record's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The content.
    pub value: Option<Bytes>,
    /// What it is, for a header.
    pub content_type: Option<&'static str>,
}

impl Plan {
    /// Checks settings against a signature. `window` is the input that is collected row by row, `columns` are the names in
    /// the source's header. May block, where a schema has to be fetched to check anything.
    ///
    /// # Errors
    /// Everything that is wrong, each problem with the setting and what was expected.
    pub fn new(
        settings: &Settings,
        signature: &Signature,
        window: Option<&Window>,
        columns: Option<&[String]>,
        schemas: Option<Arc<dyn Schemas>>,
    ) -> Result<Plan, Error> {
        Plan::around(settings, signature, &Around { window, columns, schemas, tables: &[] })
    }

    /// The same, with tables that are joined.
    ///
    /// # Errors
    /// As [`Plan::new`].
    pub fn around(settings: &Settings, signature: &Signature, around: &Around<'_>) -> Result<Plan, Error> {
        build::build(settings, signature, around)
    }

    /// Reads the fields of a record. Blocks only where a schema is met for the first time.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn decode(&self, record: &Record) -> Result<Decoded, Refused> {
        decode(&self.codec, record)
    }

    /// Reads the fields of a table's record; `table` counts the tables of [`Around::tables`].
    ///
    /// # Errors
    /// When it cannot be read, or there is no such table.
    pub fn decode_table(&self, table: usize, record: &Record) -> Result<Decoded, Refused> {
        let codec =
            self.tables.get(table).ok_or_else(|| Refused::shape(format!("there is no table {table}")))?;
        decode(codec, record)
    }

    /// Whether the filters let the record through.
    ///
    /// # Errors
    /// When a field has not the type that a filter compares.
    pub fn keep(&self, decoded: &Decoded) -> Result<bool, Refused> {
        self.filter.holds(&decoded.fields)
    }

    /// All inputs of the signature, in its order. Where the model's outermost dimension is open, it is the number of the
    /// record's rows; of a windowed input, one row is given, as `[1, ...]`. `joined` are the tables' records, `None` where a
    /// table has none.
    ///
    /// # Errors
    /// When a field is missing, or of the wrong type or length.
    pub fn inputs(&self, decoded: &Decoded, joined: &[Option<Decoded>]) -> Result<Vec<Tensor>, Refused> {
        let find = |place| find(decoded, joined, place);
        let made: Result<Vec<Made>, Refused> = self.inputs.iter().map(|input| input.make(find)).collect();
        let mut made = made?;
        let n_rows = self.check_rows(&made)?;
        for (input, made) in self.inputs.iter().zip(&mut made) {
            if n_rows > 1 && input.constant.is_some() && input.target.lead == Lead::Rows {
                let rows = vec![made.tensor.clone(); n_rows];
                made.tensor = Tensor::concat(&rows).map_err(|error| Refused::shape(error.to_string()))?;
            }
        }
        Ok(made.into_iter().map(|made| made.tensor).collect())
    }

    /// The number of rows, in which all inputs agree.
    fn check_rows(&self, made: &[Made]) -> Result<usize, Refused> {
        let mut first: Option<(&Input, usize)> = None;
        let rows = self.inputs.iter().zip(made).filter_map(|(input, made)| Some((input, made.rows?.n)));
        for (input, n) in rows.filter(|(input, _)| input.target.lead == Lead::Rows) {
            let (other, expected) = *first.get_or_insert((input, n));
            if n != expected {
                return Err(Refused::shape(format!(
                    "input `{}` has {n} rows, input `{}` has {expected}",
                    input.name, other.name
                )));
            }
        }
        Ok(first.map_or(1, |(_, n)| n))
    }

    /// The answer to a record. `inputs` are what the model was given, `outputs` what it gave: those that [`Plan::outputs`]
    /// names, in that order, or all of the signature; of both, the rows of this record.
    ///
    /// # Errors
    /// When outputs have other shapes than expected, or the record cannot be appended to.
    pub fn encode(
        &self,
        record: &Record,
        decoded: &Decoded,
        inputs: &[Tensor],
        outputs: &[Tensor],
        about: &About<'_>,
    ) -> Result<Written, Refused> {
        static NOTHING: Bytes = Bytes::new();
        let content = record.value.as_ref().unwrap_or(&NOTHING);
        let rows = self.rows(decoded, inputs);
        self.encoder.write(&Material { record: content, decoded, rows, inputs, outputs, about })
    }

    /// How many rows the record has, and whether as a list.
    fn rows(&self, decoded: &Decoded, inputs: &[Tensor]) -> Rows {
        if self.window.is_some() {
            return Rows { n: 1, is_list: false };
        }
        let with_rows =
            || self.inputs.iter().zip(inputs).filter(|(input, _)| input.target.lead == Lead::Rows);
        let n = with_rows()
            .find(|(input, _)| input.constant.is_none())
            .and_then(|(_, tensor)| tensor.shape().n_rows());
        let find = |place| find(decoded, &[], place);
        let is_list = with_rows().find_map(|(input, _)| input.rows(find)).is_some_and(|rows| rows.is_list);
        let n = n.unwrap_or(1);
        Rows { n, is_list: is_list || n > 1 }
    }

    /// The outputs that are needed, by their place in the signature, rising.
    pub fn outputs(&self) -> &[usize] {
        self.encoder.needed()
    }

    /// The names of an answer's columns, for a sink that writes a header; `None` where answers are not CSV, or are appended
    /// to lines without names.
    pub fn output_columns(&self) -> Option<Vec<String>> {
        self.encoder.columns().map(<[String]>::to_vec)
    }
}

fn decode(codec: &Codec, record: &Record) -> Result<Decoded, Refused> {
    let Some(content) = &record.value else {
        return Err(Refused::format(format!("the record has no content, expected {}", codec.format())));
    };
    let (fields, kept) = codec.read(content, &record.headers)?;
    Ok(Decoded { fields, kept })
}

fn find<'d>(decoded: &'d Decoded, joined: &'d [Option<Decoded>], place: Place) -> Option<&'d Value> {
    match place {
        Place::Record(slot) => decoded.fields.get(slot)?.as_ref(),
        Place::Table(table, slot) => joined.get(table)?.as_ref()?.fields.get(slot)?.as_ref(),
    }
}
