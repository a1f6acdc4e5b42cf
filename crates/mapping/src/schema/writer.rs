//! Answers to records, alone or behind the record that was read.

use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use bytes::Bytes;
use prost_reflect::MessageDescriptor;

use super::avro::resolve::Program;
use super::avro::{self, Avro};
use super::framing::{self, Indexes};
use super::proto::{self, Proto};
use super::reader::{Compiled, Kept};
use super::{Framing, SchemaSettings, kind_of};
use crate::value::{Kind, Value};
use crate::{Error, Format, Refused, Schema, SchemaKind, Schemas, Unregistered};

/// The name of records of answers alone.
const NAME: &str = "salver.Prediction";
/// How many schemas of records a writer remembers.
const MAX_SCHEMAS: usize = 256;

/// Writes answers.
#[derive(Debug)]
pub(crate) struct Writer {
    kind: SchemaKind,
    appends: bool,
    answers: Vec<(Arc<str>, Kind)>,
    settings: SchemaSettings,
    /// The registry, where records are framed.
    registry: Option<Arc<dyn Schemas>>,
    /// What all records are written as; `None` where each is extended by its own schema.
    target: Option<Target>,
    /// The records' schemas with the answers' fields behind their own.
    extended: BySchema<Arc<Target>>,
    /// Whether the target has all that records of a schema have.
    extends: BySchema<()>,
    /// How records are read as they were written.
    plain: BySchema<Arc<Program>>,
}

/// A schema that records are written as.
#[derive(Debug)]
struct Target {
    schema: Schema,
    form: Form,
    /// Its id, once it is known; never where records are not framed.
    id: OnceLock<u32>,
    subject: Option<String>,
}

#[derive(Debug)]
enum Form {
    Avro(Avro),
    Protobuf { message: MessageDescriptor, place: Indexes },
}

/// What was found out about the schemas that records were written with.
#[derive(Debug)]
struct BySchema<T>(RwLock<Vec<Found<T>>>);

type Found<T> = (Arc<Compiled>, Result<T, Refused>);

impl<T: Clone> BySchema<T> {
    fn new() -> Self {
        BySchema(RwLock::new(Vec::new()))
    }

    /// Finds out the first time, and remembers a refusal as well.
    fn get(&self, kept: &Kept, find: impl FnOnce() -> Result<T, Refused>) -> Result<T, Refused> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, found)) = known.iter().find(|(compiled, _)| Arc::ptr_eq(compiled, &kept.compiled)) {
            return found.clone();
        }
        drop(known);
        let found = find();
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_SCHEMAS {
            known.clear();
        }
        known.push((Arc::clone(&kept.compiled), found.clone()));
        found
    }
}

impl Writer {
    /// `format` is Avro or Protobuf. `answers` are the fields to write, in order; `appends` to the record that was read (then
    /// it is of the same format and [`Writer::write`] gets what was kept), or alone. Blocks while a registry is asked for what
    /// can be known before.
    pub(crate) fn new(
        format: Format,
        settings: &SchemaSettings,
        appends: bool,
        answers: &[(Arc<str>, Kind)],
        schemas: Option<Arc<dyn Schemas>>,
    ) -> Result<Writer, Error> {
        let kind = kind_of(format)?;
        let framing =
            settings.framing.unwrap_or(if schemas.is_some() { Framing::Registry } else { Framing::None });
        let registry = match (framing, schemas) {
            (Framing::None, _) => None,
            (Framing::Registry, Some(schemas)) => Some(schemas),
            (Framing::Registry, None) => {
                return Err(Error::new(
                    "output.schema.framing: expected `registry.urls` for records that name their schema",
                ));
            }
        };
        let mut writer = Writer {
            kind,
            appends,
            answers: answers.to_vec(),
            settings: settings.clone(),
            registry,
            target: None,
            extended: BySchema::new(),
            extends: BySchema::new(),
            plain: BySchema::new(),
        };
        writer.target =
            writer.find_target().map_err(|problem| Error::new(format!("output.schema: {problem}")))?;
        writer.check_early()?;
        Ok(writer)
    }

    /// One record. `answers` are in the order told before; `record` is the original's bytes and what was kept of it, where answers
    /// are appended.
    pub(crate) fn write(
        &self,
        record: Option<(&Bytes, &Kept)>,
        answers: &[(Arc<str>, Value)],
    ) -> Result<Bytes, Refused> {
        let record = if self.appends { record } else { None };
        let mut into = Vec::new();
        match (&self.target, record) {
            (Some(target), None) => {
                self.frame(target, &mut into)?;
                self.alone(target, answers, &mut into)?;
            }
            (Some(target), Some((record, kept))) => {
                self.frame(target, &mut into)?;
                self.joined(target, record, kept, answers, &mut into)?;
            }
            (None, Some((record, kept))) => {
                let target = self.extended(kept)?;
                self.frame(&target, &mut into)?;
                into.extend_from_slice(record.get(kept.start..).unwrap_or_default());
                let Form::Avro(avro) = &target.form else {
                    return Err(Refused::schema(
                        "only records of Avro are extended without a schema of the output",
                    ));
                };
                appended(avro, answers, &mut into).map_err(refuse)?;
            }
            (None, None) => return Err(Refused::schema("there is no record to append the answers to")),
        }
        Ok(into.into())
    }

    /// What all records are written as.
    fn find_target(&self) -> Result<Option<Target>, String> {
        let given = self.settings.given(self.kind).map_err(|error| error.to_string())?;
        if given.is_some() && self.settings.use_latest {
            return Err("expected `file` or `use_latest`, not both".into());
        }
        if self.settings.use_latest {
            let registry = self
                .registry
                .as_ref()
                .ok_or("use_latest: expected `registry.urls`, and records that are framed")?;
            let subject = match (&self.settings.subject, self.settings.subject_strategy) {
                (None, super::SubjectStrategy::Topic) | (Some(_), _) => self.settings.subject_for("")?,
                _ => return Err("use_latest: expected `subject`, or the subject made of the topic".into()),
            };
            let (id, schema) = registry.latest(&subject).map_err(|error| error.to_string())?;
            let target =
                self.target_of((*schema).clone()).map_err(|error| format!("subject `{subject}`: {error}"))?;
            // The id is the first that this cell is told.
            return Ok(Some(Target { id: OnceLock::from(id), ..target }));
        }
        if let Some(given) = given {
            return self.target_of(given).map(Some).map_err(|error| format!("file: {error}"));
        }
        match (self.kind, self.appends) {
            (SchemaKind::Avro, true) => Ok(None),
            (SchemaKind::Avro, false) => {
                let name = self.settings.name.as_deref().unwrap_or(NAME);
                let text = avro::text::alone(name, &self.answers)?;
                self.target_of(Schema { kind: SchemaKind::Avro, text, references: Vec::new() }).map(Some)
            }
            _ => Err("Protobuf is written by a schema: give `file`, or `use_latest` with a registry, whose message has a field \
                      for each answer (and, to append to records, all of their fields with their numbers); or write the \
                      answers as another format, as `output.format = \"json\"` does for input of any format"
                .into()),
        }
    }

    fn target_of(&self, schema: Schema) -> Result<Target, String> {
        if schema.kind != self.kind {
            return Err(format!("it is {}, expected {}", schema.kind, self.kind));
        }
        let (form, name) = if self.kind == SchemaKind::Avro {
            let avro = super::reader::avro(&schema)?;
            let name = avro.record().ok_or("it is not a record")?.0.to_string();
            (Form::Avro(avro), name)
        } else {
            let proto = Proto::compile(&schema.text, &schema.references)?;
            let message = proto.named(self.settings.message.as_deref())?;
            if self.registry.is_some() && !proto.holds(&message) {
                return Err(format!(
                    "message `{}` is in a file that it imports, which frames cannot name",
                    message.full_name()
                ));
            }
            let name = message.full_name().to_owned();
            (Form::Protobuf { place: proto::place_of(&message), message }, name)
        };
        let subject = self.registry.is_some().then(|| self.settings.subject_for(&name)).transpose()?;
        Ok(Target { schema, form, id: OnceLock::new(), subject })
    }

    /// What can be told before the first record. A registry that is away is asked again by records.
    fn check_early(&self) -> Result<(), Error> {
        let Some(target) = &self.target else { return Ok(()) };
        let check = |(name, kind): &(Arc<str>, Kind)| match &target.form {
            Form::Protobuf { message, .. } => proto::write::check(message, name, kind).err(),
            Form::Avro(avro) => {
                let fields = avro.record().map(|(_, fields)| fields).unwrap_or_default();
                let is_there = fields.iter().any(|field| field.name == *name);
                (!is_there)
                    .then(|| format!("the record has no field `{name}`, which an answer has for a name"))
            }
        };
        let problems =
            self.answers.iter().filter_map(check).map(|problem| format!("output.schema: {problem}"));
        Error::unless_none(problems.collect())?;
        match self.id(target) {
            Err(refused) if !refused.passing => Err(Error::new(format!("output.schema: {refused}"))),
            _ => Ok(()),
        }
    }

    /// The id of a schema; `None` where records are not framed. Asks the registry the first time.
    fn id(&self, target: &Target) -> Result<Option<u32>, Refused> {
        let (Some(registry), Some(subject)) = (&self.registry, &target.subject) else { return Ok(None) };
        if let Some(id) = target.id.get() {
            return Ok(Some(*id));
        }
        let unknown = if self.settings.auto_register { Unregistered::Register } else { Unregistered::Refuse };
        let id = registry.id_of(subject, &target.schema, unknown)?;
        Ok(Some(*target.id.get_or_init(|| id)))
    }

    fn frame(&self, target: &Target, into: &mut Vec<u8>) -> Result<(), Refused> {
        let place: &[u32] = match &target.form {
            Form::Avro(_) => &[],
            Form::Protobuf { place, .. } => place,
        };
        if let Some(id) = self.id(target)? {
            framing::write(id, place, into);
        }
        Ok(())
    }

    fn alone(
        &self,
        target: &Target,
        answers: &[(Arc<str>, Value)],
        into: &mut Vec<u8>,
    ) -> Result<(), Refused> {
        match &target.form {
            Form::Avro(avro) => avro.write(&Value::Map(answers.to_vec()), into),
            Form::Protobuf { message, .. } => proto::write::write(message, answers, into),
        }
        .map_err(refuse)
    }

    /// A record and answers as one of a schema that has the fields of both.
    fn joined(
        &self,
        target: &Target,
        record: &Bytes,
        kept: &Kept,
        answers: &[(Arc<str>, Value)],
        into: &mut Vec<u8>,
    ) -> Result<(), Refused> {
        match (&target.form, &*kept.compiled) {
            (Form::Avro(avro), Compiled::Avro { avro: writer, .. }) => {
                let plain = self
                    .plain
                    .get(kept, || Program::new(writer, None).map(Arc::new).map_err(Refused::schema))?;
                let value = plain
                    .read(record, kept.start)
                    .map_err(|what| Refused::format(format!("avro: {what}")))?;
                let Value::Map(mut fields) = value else {
                    return Err(Refused::schema(
                        "answers are appended to records, and this is of another type",
                    ));
                };
                fields.extend(answers.iter().cloned());
                avro.write(&Value::Map(fields), into).map_err(refuse)
            }
            (Form::Protobuf { message, .. }, Compiled::Protobuf { shape }) => {
                self.extends.get(kept, || self.check_extends(shape.descriptor(), message))?;
                into.extend_from_slice(record.get(kept.start..).unwrap_or_default());
                proto::write::write(message, answers, into).map_err(refuse)
            }
            _ => Err(Refused::schema("answers are appended to records of their own format only")),
        }
    }

    /// How records of a schema are extended: its fields, then those of the answers.
    fn extended(&self, kept: &Kept) -> Result<Arc<Target>, Refused> {
        let Compiled::Avro { schema, .. } = &*kept.compiled else {
            return Err(Refused::schema("answers are appended to records of their own format only"));
        };
        self.extended.get(kept, || {
            let text = avro::text::appended(&schema.text, &self.answers);
            text.and_then(|text| self.target_of(Schema { text, ..(**schema).clone() }))
                .map(Arc::new)
                .map_err(|what| Refused::schema(format!("output.schema: {what}")))
        })
    }

    /// Whether messages of a type may have the answers behind them and be the output's.
    fn check_extends(&self, from: &MessageDescriptor, to: &MessageDescriptor) -> Result<(), Refused> {
        let is_taken = |name: &str| {
            to.get_field_by_name(name).is_some_and(|field| from.get_field(field.number()).is_some())
        };
        let checked = match self.answers.iter().find(|(name, _)| is_taken(name)) {
            Some((name, _)) => Err(format!(
                "the record has a field for answer `{name}` already; give the answer another name"
            )),
            None => proto::check_extends(from, to),
        };
        checked.map_err(|what| Refused::schema(format!("output.schema: {what}")))
    }
}

/// Appends answers behind the bytes of a record that has them as its last fields, each of which may be null.
fn appended(avro: &Avro, answers: &[(Arc<str>, Value)], into: &mut Vec<u8>) -> Result<(), String> {
    let fields = avro.record().map(|(_, fields)| fields).unwrap_or_default();
    let start = fields
        .len()
        .checked_sub(answers.len())
        .ok_or("the record has fewer fields than there are answers")?;
    for (field, (name, value)) in fields.iter().skip(start).zip(answers) {
        debug_assert_eq!(field.name, *name, "the schema was extended by these answers, in this order");
        avro.write_at(field.node, value, into, 0).map_err(|error| format!("answer `{name}`: {error}"))?;
    }
    Ok(())
}

fn refuse(mut what: String) -> Refused {
    what.insert_str(0, "output: ");
    Refused::shape(what)
}
