//! Avro and Protobuf records, framed for a schema registry or plain.
//!
//! A reader finds the schema that a record was written with (by its first bytes, by a header, or it is the one of a file),
//! compiles it once, and shows the record as a [`Value`](crate::value::Value). A writer makes answers into records of a
//! schema of their own, or appends them to the record that was read: behind the fields of an Avro record its reader finds more fields, and
//! messages of Protobuf are joined by putting their bytes together, so that nothing of the original is read and written anew.

mod avro;
mod framing;
mod proto;
mod reader;
mod writer;

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::{Error, Reference, Schema, SchemaKind};

pub(crate) use reader::{Kept, Reader, payload};
pub(crate) use writer::Writer;

/// The header that names the schema of a record's value. It is not true of a value that was written anew: whoever passes headers on
/// leaves it out.
pub const SCHEMA_HEADER: &str = framing::VALUE_HEADER;

/// Settings of Avro and Protobuf, `[input.schema]` and `[output.schema]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SchemaSettings {
    /// Whether records name their schema in their first bytes or a header. Of the input: `registry` unless `file` is given; of the output:
    /// `registry` if there is a registry.
    pub framing: Option<Framing>,
    /// A file with a schema, `.avsc` or `.proto`. Of plain input: what the records were written with. Of framed input: what
    /// they are read as. Of the output: what answers are written as.
    pub file: Option<String>,
    /// Files that `file` refers to, by the name that it uses.
    pub imports: BTreeMap<String, String>,
    /// The Protobuf message, by its full name. Of the input: whatever a frame says; without it and without a frame, the first of the
    /// file. Of the output: the first of the schema unless said.
    pub message: Option<String>,
    /// Output only: the full name of the Avro record that is made for answers alone; `salver.Prediction` unless said.
    pub name: Option<String>,
    /// Output only: the subject that the schema is under; made by `subject_strategy` unless said.
    pub subject: Option<String>,
    /// Output only: how the subject is made.
    pub subject_strategy: SubjectStrategy,
    /// Output only: whether a schema that the subject does not have is registered.
    pub auto_register: bool,
    /// Output only: whether answers are written as the newest schema of the subject.
    pub use_latest: bool,
    /// Output only, and not a setting: the topic that answers go to, as far as the strategy needs it.
    #[serde(skip)]
    pub topic: Option<String>,
    /// Not settings: the texts of `file` and `imports`, once [`SchemaSettings::load`] has them.
    #[serde(skip)]
    texts: Option<Texts>,
}

/// Whether records name their schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Framing {
    /// A record begins with its schema's id, or a header has it.
    Registry,
    /// A record is its content.
    None,
}

/// How the subject of a schema is made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SubjectStrategy {
    /// `TOPIC-value`
    #[default]
    Topic,
    /// The full name of the record or message.
    Record,
    /// `TOPIC-` and the full name of the record or message.
    TopicRecord,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Texts {
    own: String,
    imports: Vec<(String, String)>,
}

impl SchemaSettings {
    /// Reads the files that are named, by a function that gives the text of a path. Does nothing where none is named.
    ///
    /// # Errors
    /// With the setting and what `read` said.
    pub fn load(&mut self, read: &mut dyn FnMut(&str) -> Result<String, String>) -> Result<(), Error> {
        let Some(file) = &self.file else {
            return if self.imports.is_empty() {
                Ok(())
            } else {
                Err(Error::new("schema.imports: expected a `file` that imports them"))
            };
        };
        let mut get =
            |path: &str| read(path).map_err(|error| Error::new(format!("schema file `{path}`: {error}")));
        let own = get(file)?;
        let imports = self
            .imports
            .iter()
            .map(|(name, path)| Ok((name.clone(), get(path)?)))
            .collect::<Result<_, Error>>()?;
        self.texts = Some(Texts { own, imports });
        Ok(())
    }

    /// The schema of the files, if one is named.
    fn given(&self, kind: SchemaKind) -> Result<Option<Schema>, Error> {
        match (&self.file, &self.texts) {
            (None, _) => Ok(None),
            (Some(file), None) => Err(Error::new(format!("schema.file `{file}` was not loaded"))),
            (Some(_), Some(texts)) => {
                let reference = |(name, text): &(String, String)| Reference {
                    name: name.clone(),
                    text: text.clone(),
                    registered: None,
                };
                let references = texts.imports.iter().map(reference).collect();
                Ok(Some(Schema { kind, text: texts.own.clone(), references }))
            }
        }
    }

    /// What of these settings means nothing for input.
    fn of_output_only(&self) -> Vec<String> {
        let set = [
            ("name", self.name.is_some()),
            ("subject", self.subject.is_some()),
            ("subject_strategy", self.subject_strategy != SubjectStrategy::Topic),
            ("auto_register", self.auto_register),
            ("use_latest", self.use_latest),
        ];
        let problem = |name: &str| format!("input.schema.{name}: it belongs to `[output.schema]`");
        set.iter().filter(|(_, is_set)| *is_set).map(|(name, _)| problem(name)).collect()
    }

    /// The subject for records of a type of that name.
    fn subject_for(&self, name: &str) -> Result<String, String> {
        if let Some(subject) = &self.subject {
            return Ok(subject.clone());
        }
        let topic = || {
            self.topic.as_deref().ok_or_else(|| {
                "output.schema.subject: expected one, as the output is no topic that it could be made of"
                    .to_owned()
            })
        };
        Ok(match self.subject_strategy {
            SubjectStrategy::Topic => format!("{}-value", topic()?),
            SubjectStrategy::Record => name.to_owned(),
            SubjectStrategy::TopicRecord => format!("{}-{name}", topic()?),
        })
    }
}

/// The kind of schema that a format has.
fn kind_of(format: crate::Format) -> Result<SchemaKind, Error> {
    match format {
        crate::Format::Avro => Ok(SchemaKind::Avro),
        crate::Format::Protobuf => Ok(SchemaKind::Protobuf),
        other => Err(Error::new(format!("format {other} has no schemas; avro and protobuf have"))),
    }
}

#[cfg(test)]
mod tests;
