//! Answers to records.

use std::sync::Arc;

use bytes::Bytes;
use salver_tensor::{DType, Signature, Tensor};

use crate::answers::{Field, tensor_numbers};
use crate::codec::Kept;
use crate::csv::{self, Dialect};
use crate::fields::Hint;
use crate::inputs::Rows;
use crate::json::{self, Answer};
use crate::settings::{AboutField, Mode, NonFinite, Settings};
use crate::value::{Kind, Numbers, Value};
use crate::{About, Decoded, Error, Format, Refused, Schemas, Written, proto, raw, schema};

/// Writes the answers of one plan.
#[derive(Debug)]
pub(crate) struct Encoder {
    mode: Mode,
    writer: Writer,
    under: Option<Answer>,
    /// Of all that is kept, all fields and all facts, in this order.
    answers: Vec<Answer>,
    keep: Vec<usize>,
    fields: Vec<Field>,
    about: Vec<AboutField>,
    non_finite: NonFinite,
    /// The outputs that the fields are made of, rising.
    needed: Vec<usize>,
    /// Whether every record is a list of rows.
    are_lists: bool,
    columns: Option<Vec<String>>,
}

#[derive(Debug)]
enum Writer {
    Json,
    Csv(Dialect),
    Raw,
    Response(Signature),
    Example,
    Schema(Box<schema::Writer>),
}

/// What an encoder is made from.
pub(crate) struct Sketch<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) signature: &'a Signature,
    /// The names of the record's columns.
    pub(crate) columns: Option<&'a [String]>,
    /// Whether every record is a list of rows.
    pub(crate) are_lists: bool,
    pub(crate) schemas: Option<Arc<dyn Schemas>>,
    /// Gives the slot of a field of the record.
    pub(crate) slot: &'a mut dyn FnMut(&str, Hint) -> Result<usize, String>,
}

/// What there is to write.
pub(crate) struct Material<'a> {
    pub(crate) record: &'a Bytes,
    pub(crate) decoded: &'a Decoded,
    pub(crate) rows: Rows,
    pub(crate) inputs: &'a [Tensor],
    pub(crate) outputs: &'a [Tensor],
    pub(crate) about: &'a About<'a>,
}

impl Encoder {
    pub(crate) fn new(sketch: Sketch<'_>) -> Result<Encoder, Error> {
        let Sketch { settings, signature, columns, are_lists, schemas, slot } = sketch;
        let output = &settings.output;
        let source = settings.input.format.unwrap_or(Format::Json);
        let format = output.format.unwrap_or(if source == Format::Image { Format::Json } else { source });
        let mode = output.mode.unwrap_or(if can_append(source) && format == source {
            Mode::Append
        } else {
            Mode::Replace
        });
        let mut problems = Vec::new();
        let fields: Vec<Result<Field, String>> = if output.fields.is_empty() {
            (0..signature.outputs().len())
                .map(|index| Field::whole(signature, index, output.non_finite))
                .collect()
        } else {
            output.fields.iter().map(|field| Field::new(field, signature, output.non_finite)).collect()
        };
        let fields = gather(fields, &mut problems);
        let hint = match (source, format) {
            (Format::Csv, Format::Csv) => Hint::AsIs,
            (Format::Csv, _) => Hint::Json,
            _ => Hint::Any,
        };
        let keep = output
            .keep
            .iter()
            .map(|name| slot(name, hint).map_err(|problem| format!("output.keep: {problem}")));
        let keep = gather(keep.collect(), &mut problems);
        let mut answers: Vec<Answer> = output.keep.iter().map(|name| Answer::new(name, None)).collect();
        answers.extend(
            fields.iter().map(|field| Answer::new(&field.name, Some(listed(field.kind.clone(), are_lists)))),
        );
        answers.extend(output.about.iter().map(|fact| Answer::new(fact.name(), Some(fact.kind()))));
        let mut encoder = Encoder {
            mode,
            writer: Writer::Json,
            under: output.under.as_ref().map(|name| Answer::new(name, None)),
            answers,
            keep,
            fields,
            about: output.about.clone(),
            non_finite: output.non_finite,
            needed: Vec::new(),
            are_lists,
            columns: None,
        };
        encoder.needed = encoder.fields.iter().map(|field| field.output).collect();
        encoder.needed.sort_unstable();
        encoder.needed.dedup();
        problems.extend(encoder.check(source, format, signature));
        Error::unless_none(problems)?;
        encoder.writer = encoder.writer(settings, format, signature, schemas)?;
        if format == Format::Csv {
            encoder.columns = encoder.find_columns(columns, are_lists)?;
        }
        Ok(encoder)
    }

    fn writer(
        &self,
        settings: &Settings,
        format: Format,
        signature: &Signature,
        schemas: Option<Arc<dyn Schemas>>,
    ) -> Result<Writer, Error> {
        Ok(match format {
            Format::Json | Format::Image => Writer::Json,
            Format::Csv => Writer::Csv(Dialect::new(&settings.input.csv)?),
            Format::Raw => Writer::Raw,
            Format::PredictRequest => Writer::Response(signature.clone()),
            Format::Example => Writer::Example,
            Format::Avro | Format::Protobuf => {
                let kinds: Vec<(Arc<str>, Kind)> = self
                    .answers
                    .iter()
                    .filter_map(|answer| Some((answer.name.clone(), answer.kind.clone()?)))
                    .collect();
                let kinds = match &self.under {
                    Some(under) => vec![(under.name.clone(), Kind::Map(kinds))],
                    None => kinds,
                };
                let appends = self.mode == Mode::Append;
                let writer = schema::Writer::new(format, &settings.output.schema, appends, &kinds, schemas)?;
                Writer::Schema(Box::new(writer))
            }
        })
    }

    /// What the format and the mode cannot do.
    fn check(&self, source: Format, format: Format, signature: &Signature) -> Vec<String> {
        let mut problems = Vec::new();
        let mut when = |is_wrong: bool, problem: String| {
            if is_wrong {
                problems.push(problem);
            }
        };
        let appends = self.mode == Mode::Append;
        when(
            appends && (format != source || !can_append(source)),
            format!(
                "output.mode is `append`, which the formats {source} to {format} cannot: expected `replace`, with \
                 `keep` for fields of the record"
            ),
        );
        when(format == Format::Image, "output.format is `image`: answers are no pictures".into());
        when(
            appends && !self.keep.is_empty(),
            "output.keep goes with `replace`: what is appended to has its fields".into(),
        );
        let is_plain = self.keep.is_empty() && self.under.is_none();
        when(
            self.mode == Mode::Only && (self.answers.len() != 1 || !is_plain),
            format!(
                "output.mode is `only`, for one field without `keep`, `under` or `about`: there are {}",
                self.answers.len()
            ),
        );
        let is_bare = matches!(format, Format::Raw | Format::PredictRequest);
        when(
            is_bare && (!is_plain || !self.about.is_empty() || !self.fields.iter().all(Field::is_whole)),
            format!(
                "output.format is `{format}`, which holds outputs as they are: expected no `select`, `argmax`, `top_k`, \
                     `reduce`, `above`, `decimals`, `keep`, `under` or `about`"
            ),
        );
        for field in &self.fields {
            let spec = &signature.outputs()[field.output];
            when(
                format == Format::Raw && spec.dtype == DType::String,
                format!("output `{}` holds strings, which raw bytes cannot", spec.name),
            );
            when(
                format == Format::PredictRequest && field.name != spec.name,
                format!("output.fields `{}`: a PredictResponse names outputs as the model does", field.name),
            );
            when(
                format == Format::Example && !proto::is_feature(&field.kind),
                format!("output.fields `{}`: an Example holds no objects", field.name),
            );
            when(
                matches!(format, Format::Avro | Format::Protobuf) && !field.is_typed(signature),
                format!(
                    "output.fields `{}`: the number of dimensions of output `{}` is not known, which {format} needs",
                    field.name, spec.name
                ),
            );
        }
        let is_flat = matches!(format, Format::Csv | Format::Example);
        when(is_flat && self.under.is_some(), format!("output.under: {format} has no objects"));
        when(
            matches!(format, Format::Avro | Format::Protobuf) && !self.keep.is_empty(),
            format!(
                "output.keep: the types of the record's fields are not known before, which {format} needs"
            ),
        );
        for (i, answer) in self.answers.iter().enumerate() {
            let comes_twice = self.answers.iter().take(i).any(|other| other.name == answer.name);
            when(comes_twice, format!("output: two fields have the name `{}`", answer.name));
        }
        problems
    }

    /// The names of the columns of a line.
    fn find_columns(&self, source: Option<&[String]>, are_lists: bool) -> Result<Option<Vec<String>>, Error> {
        if are_lists {
            return Err(Error::new(
                "output.format is `csv`: a line holds one row, and records have lists of rows",
            ));
        }
        let mut columns = Vec::new();
        for (i, answer) in self.answers.iter().enumerate() {
            let field = i.checked_sub(self.keep.len()).and_then(|i| self.fields.get(i));
            let names = match (&answer.kind, field) {
                (Some(kind), Some(field)) => csv::column_names(&answer.name, kind, field.lens.as_deref()),
                _ => Some(vec![answer.name.to_string()]),
            };
            let unknown = || {
                let name = &answer.name;
                Error::new(format!(
                    "output.fields `{name}`: how many columns it takes is not known before; use `select`"
                ))
            };
            columns.extend(names.ok_or_else(unknown)?);
        }
        if self.mode != Mode::Append {
            return Ok(Some(columns));
        }
        Ok(source.map(|source| source.iter().cloned().chain(columns).collect()))
    }

    pub(crate) fn needed(&self) -> &[usize] {
        &self.needed
    }

    pub(crate) fn columns(&self) -> Option<&[String]> {
        self.columns.as_deref()
    }

    pub(crate) fn write(&self, material: &Material<'_>) -> Result<Written, Refused> {
        let outputs = self.outputs(material.outputs)?;
        if matches!(self.writer, Writer::Raw | Writer::Response(_)) {
            self.check_finite(&outputs)?;
        }
        let (value, content_type) = match &self.writer {
            Writer::Raw => (raw::write(&outputs), Some("application/octet-stream")),
            Writer::Response(signature) => {
                let tensors: Vec<Tensor> = outputs.into_iter().cloned().collect();
                let response = proto::write_response(signature, &self.needed, &tensors, material.about);
                (response, Some("application/x-protobuf"))
            }
            Writer::Json => {
                let values = self.values(material, &outputs)?;
                (self.json(material, &values)?, Some("application/json"))
            }
            Writer::Csv(dialect) => {
                let values = self.values(material, &outputs)?;
                (self.csv(*dialect, material, &values)?, Some("text/csv"))
            }
            Writer::Example => {
                let values = self.values(material, &outputs)?;
                let record = (self.mode == Mode::Append).then_some(material.record);
                (proto::write_example(record, &self.answers, &values)?, Some("application/x-protobuf"))
            }
            Writer::Schema(writer) => {
                if material.rows.is_list && !self.are_lists {
                    let n = material.rows.n;
                    return Err(Refused::shape(format!(
                        "the record has a list of {n} rows, expected one row: with `rows = \"many\"` answers are lists"
                    )));
                }
                let values = self.values(material, &outputs)?;
                let record = match (&material.decoded.kept, self.mode) {
                    (Kept::Schema(kept), Mode::Append) => Some((material.record, kept)),
                    _ => None,
                };
                let value = writer.write(record, &self.named(values))?;
                return Ok(Written { value: Some(value), content_type: None });
            }
        };
        Ok(Written { value: Some(Bytes::from(value)), content_type })
    }

    /// The needed outputs, out of those or out of all.
    fn outputs<'t>(&self, outputs: &'t [Tensor]) -> Result<Vec<&'t Tensor>, Refused> {
        if outputs.len() == self.needed.len() {
            return Ok(outputs.iter().collect());
        }
        let all: Option<Vec<&Tensor>> = self.needed.iter().map(|&index| outputs.get(index)).collect();
        all.ok_or_else(|| {
            Refused::shape(format!(
                "the model gave {} outputs, expected {}",
                outputs.len(),
                self.needed.len()
            ))
        })
    }

    fn check_finite(&self, outputs: &[&Tensor]) -> Result<(), Refused> {
        let is_finite = |tensor: &Tensor| match tensor_numbers(tensor) {
            Some(Numbers::Floats(numbers)) => numbers.iter().all(|number| number.is_finite()),
            _ => true,
        };
        if self.non_finite == NonFinite::Refuse && !outputs.iter().all(|tensor| is_finite(tensor)) {
            return Err(Refused::shape("an output has a number that is not finite"));
        }
        Ok(())
    }

    fn values(&self, material: &Material<'_>, outputs: &[&Tensor]) -> Result<Vec<Value>, Refused> {
        let Rows { n, is_list } = material.rows;
        if is_list && matches!(self.writer, Writer::Csv(_)) {
            return Err(Refused::shape(format!(
                "the record has a list of {n} rows, a line of the answer holds one row"
            )));
        }
        let mut values = Vec::with_capacity(self.answers.len());
        let kept =
            |&slot: &usize| material.decoded.fields.get(slot).cloned().flatten().unwrap_or(Value::Null);
        values.extend(self.keep.iter().map(kept));
        for field in &self.fields {
            let place = self.needed.binary_search(&field.output).ok();
            let output = place.and_then(|place| outputs.get(place));
            let output = output.ok_or_else(|| Refused::shape("an output is missing"))?;
            let value = |row| field.value(output, row, n, material.inputs);
            values.push(if is_list {
                Value::List((0..n).map(value).collect::<Result<_, _>>()?)
            } else {
                value(0)?
            });
        }
        values.extend(self.about.iter().map(|fact| fact.value(material.about)));
        Ok(values)
    }

    fn json(&self, material: &Material<'_>, values: &[Value]) -> Result<Vec<u8>, Refused> {
        let under = self.under.as_ref();
        match (self.mode, &material.decoded.kept) {
            (Mode::Append, Kept::Json(kept, start)) => {
                let text = material.record.get(*start..).unwrap_or_default();
                json::append(text, *kept, under, &self.answers, values)
            }
            (Mode::Only, _) => {
                let mut out = Vec::new();
                for (answer, value) in self.answers.iter().zip(values) {
                    json::write_value(&mut out, value, answer.kind.as_ref());
                }
                Ok(out)
            }
            _ => Ok(json::object(under, &self.answers, values)),
        }
    }

    fn csv(&self, dialect: Dialect, material: &Material<'_>, values: &[Value]) -> Result<Vec<u8>, Refused> {
        let mut out = Vec::with_capacity(material.record.len() + 16 * values.len());
        let mut is_first = true;
        if self.mode == Mode::Append {
            out.extend_from_slice(csv::trim_end(material.record));
            is_first = false;
        }
        for (answer, value) in self.answers.iter().zip(values) {
            if answer.kind.is_none() && matches!(value, Value::List(_) | Value::Array(_) | Value::Map(_)) {
                let what = value.what();
                return Err(Refused::shape(format!(
                    "field `{}`: it is {what}, expected a single value",
                    answer.name
                )));
            }
            csv::write_value(&mut out, dialect, value, answer.kind.as_ref(), &mut is_first);
        }
        Ok(out)
    }

    fn named(&self, values: Vec<Value>) -> Vec<(Arc<str>, Value)> {
        let named: Vec<(Arc<str>, Value)> =
            self.answers.iter().map(|answer| answer.name.clone()).zip(values).collect();
        match &self.under {
            Some(under) => vec![(under.name.clone(), Value::Map(named))],
            None => named,
        }
    }
}

fn can_append(format: Format) -> bool {
    matches!(format, Format::Json | Format::Csv | Format::Example | Format::Avro | Format::Protobuf)
}

fn listed(kind: Kind, are_lists: bool) -> Kind {
    if are_lists { Kind::List(Box::new(kind)) } else { kind }
}

fn gather<T>(results: Vec<Result<T, String>>, problems: &mut Vec<String>) -> Vec<T> {
    let mut found = Vec::with_capacity(results.len());
    for result in results {
        match result {
            Ok(value) => found.push(value),
            Err(problem) => problems.push(problem),
        }
    }
    found
}

impl AboutField {
    fn name(self) -> &'static str {
        match self {
            AboutField::Model => "model",
            AboutField::Version => "model_version",
            AboutField::Latency => "latency_ms",
        }
    }

    fn kind(self) -> Kind {
        match self {
            AboutField::Model => Kind::Text,
            AboutField::Version => Kind::Long,
            AboutField::Latency => Kind::Double,
        }
    }

    fn value(self, about: &About<'_>) -> Value {
        match self {
            AboutField::Model => Value::text(about.model.as_str()),
            AboutField::Version => Value::Int(i128::from(about.version.0)),
            AboutField::Latency => Value::Float(about.latency.as_secs_f64() * 1000.0),
        }
    }
}
