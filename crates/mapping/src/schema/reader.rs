//! Records to values, each by the schema that it names.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use salver_records::Header;

use super::avro::Avro;
use super::avro::resolve::Program;
use super::framing::{self, Indexes, Places, SchemaId};
use super::proto::Proto;
use super::proto::read::Shape;
use super::{Framing, SchemaSettings, kind_of};
use crate::value::Value;
use crate::{Error, Format, Refused, Schema, SchemaKind, Schemas};

/// How many schemas a reader keeps compiled.
const MAX_COMPILED: usize = 1024;

/// A schema, ready to read records with.
#[derive(Debug)]
pub(super) enum Compiled {
    /// What is needed to append to records as well.
    Avro {
        schema: Arc<Schema>,
        avro: Avro,
        program: Program,
    },
    Protobuf {
        shape: Shape,
    },
}

/// What a reader remembers of a record for a writer that appends to it.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    pub(super) compiled: Arc<Compiled>,
    /// Where the content starts in the record.
    pub(super) start: usize,
}

/// Which schema, `None` for the file that settings name, and which message of it.
type Key = (Option<SchemaId>, Indexes);

/// Reads records. Keeps the schemas that it has met, and what was wrong with those that cannot be used.
#[derive(Debug)]
pub(crate) struct Reader {
    kind: SchemaKind,
    message: Option<String>,
    source: Source,
    compiled: Memory<Key, Arc<Compiled>>,
    /// The files that messages are found in.
    files: Memory<SchemaId, Proto>,
}

#[derive(Debug)]
enum Source {
    /// Records name their schema; Avro ones are shown as `reader` has them.
    Registry { schemas: Arc<dyn Schemas>, reader: Option<Avro> },
    /// All records are of one type. Framed ones name another that need not be known.
    File { compiled: Arc<Compiled>, framing: Framing },
    /// Records name a message, and the file that has it takes the place of the one that they name.
    Messages(Proto),
}

/// What was found out, and what was wrong.
#[derive(Debug)]
struct Memory<K, T>(RwLock<HashMap<K, Result<T, Refused>>>);

impl<K: Eq + Hash, T: Clone> Memory<K, T> {
    fn new() -> Memory<K, T> {
        Memory(RwLock::new(HashMap::new()))
    }

    fn get(&self, key: &K) -> Option<Result<T, Refused>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    fn put(&self, key: K, found: Result<T, Refused>) -> Result<T, Refused> {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MAX_COMPILED {
            all.clear();
        }
        all.insert(key, found.clone());
        found
    }
}

impl Reader {
    /// `format` is Avro or Protobuf.
    pub(crate) fn new(
        format: Format,
        settings: &SchemaSettings,
        schemas: Option<Arc<dyn Schemas>>,
    ) -> Result<Reader, Error> {
        Error::unless_none(settings.of_output_only())?;
        let kind = kind_of(format)?;
        let given = settings.given(kind)?;
        let framing =
            settings.framing.unwrap_or(if given.is_some() { Framing::None } else { Framing::Registry });
        let wrong = |what: String| Error::new(format!("input.schema.file: {what}"));
        let message = settings.message.clone();
        if kind == SchemaKind::Avro && message.is_some() {
            return Err(Error::new("input.schema.message: it belongs to the format protobuf"));
        }
        let source = match (framing, given) {
            // Avro cannot be read without the schema that it was written with; Protobuf can.
            (Framing::Registry, Some(given)) if kind == SchemaKind::Avro => {
                Source::Registry { schemas: need(schemas)?, reader: Some(avro(&given).map_err(wrong)?) }
            }
            (Framing::Registry, None) => Source::Registry { schemas: need(schemas)?, reader: None },
            (Framing::Registry, Some(given)) if message.is_none() => {
                Source::Messages(proto(&given).map_err(wrong)?)
            }
            (framing, Some(given)) => {
                let compiled = match kind {
                    SchemaKind::Avro => compile_avro(Arc::new(given), None),
                    _ => proto(&given)
                        .and_then(|proto| Shape::new(&proto.named(message.as_deref())?))
                        .map(|shape| Compiled::Protobuf { shape }),
                };
                Source::File { compiled: Arc::new(compiled.map_err(wrong)?), framing }
            }
            (Framing::None, None) => {
                return Err(Error::new(format!(
                    "input.schema.file: expected one, as {format} records without a frame name no schema"
                )));
            }
        };
        Ok(Reader { kind, message, source, compiled: Memory::new(), files: Memory::new() })
    }

    /// The whole record as a value. Its schema is named by its first bytes or by a header. Blocks while a schema is fetched
    /// for the first time.
    pub(crate) fn read(&self, record: &Bytes, headers: &[Header]) -> Result<(Value, Kept), Refused> {
        let places = if self.kind == SchemaKind::Protobuf { Places::Message } else { Places::None };
        let kept = match &self.source {
            Source::File { compiled, framing } => {
                let start = match framing {
                    Framing::None => 0,
                    Framing::Registry => framing::read(record, headers, places)?.start,
                };
                Kept { compiled: Arc::clone(compiled), start }
            }
            Source::Registry { schemas, reader } => {
                let frame = framing::read(record, headers, places)?;
                let compiled = if self.kind == SchemaKind::Protobuf {
                    self.message(Some(frame.id), frame.indexes, || self.file(frame.id, schemas.as_ref()))?
                } else {
                    self.record(frame.id, schemas.as_ref(), reader.as_ref())?
                };
                Kept { compiled, start: frame.start }
            }
            Source::Messages(proto) => {
                let frame = framing::read(record, headers, places)?;
                let compiled = self.message(None, frame.indexes, || Ok(proto.clone()))?;
                Kept { compiled, start: frame.start }
            }
        };
        let value = match &*kept.compiled {
            Compiled::Avro { program, .. } => {
                program.read(record, kept.start).map_err(|what| Refused::format(format!("avro: {what}")))?
            }
            Compiled::Protobuf { shape } => shape
                .read(record.slice(kept.start..))
                .map_err(|what| Refused::format(format!("protobuf: {what}")))?,
        };
        Ok((value, kept))
    }

    /// The Avro schema that a record names.
    fn record(
        &self,
        id: SchemaId,
        schemas: &dyn Schemas,
        reader: Option<&Avro>,
    ) -> Result<Arc<Compiled>, Refused> {
        let key = (Some(id), Indexes::new());
        if let Some(known) = self.compiled.get(&key) {
            return known;
        }
        let compiled = compile_avro(fetch(schemas, id)?, reader);
        self.compiled.put(key, compiled.map(Arc::new).map_err(|what| about(Some(id), &what)))
    }

    /// The message that a record names by its place, or the one that settings name, in a file.
    fn message(
        &self,
        id: Option<SchemaId>,
        place: Indexes,
        file: impl FnOnce() -> Result<Proto, Refused>,
    ) -> Result<Arc<Compiled>, Refused> {
        let key = (id, if self.message.is_some() { Indexes::new() } else { place });
        if let Some(known) = self.compiled.get(&key) {
            return known;
        }
        let file = file()?;
        let found = match &self.message {
            Some(name) => file.named(Some(name)),
            None => file.at(&key.1),
        };
        // What is not there is not remembered: a record may name any place, and the file tells soon.
        let descriptor = found.map_err(|what| about(id, &what))?;
        let shape = Shape::new(&descriptor).map_err(|what| about(id, &what));
        self.compiled.put(key, shape.map(|shape| Arc::new(Compiled::Protobuf { shape })))
    }

    /// The Protobuf file that a record names.
    fn file(&self, id: SchemaId, schemas: &dyn Schemas) -> Result<Proto, Refused> {
        if let Some(known) = self.files.get(&id) {
            return known;
        }
        let file = proto(fetch(schemas, id)?.as_ref());
        self.files.put(id, file.map_err(|what| about(Some(id), &what)))
    }
}

fn fetch(schemas: &dyn Schemas, id: SchemaId) -> Result<Arc<Schema>, Refused> {
    Ok(match id {
        SchemaId::Number(id) => schemas.get(id),
        SchemaId::Guid(guid) => schemas.guid(&framing::guid_text(&guid)),
    }?)
}

#[cold]
fn about(id: Option<SchemaId>, what: &str) -> Refused {
    Refused::schema(match id {
        Some(id) => format!("schema {id}: {what}"),
        None => format!("input.schema.file: {what}"),
    })
}

fn need(schemas: Option<Arc<dyn Schemas>>) -> Result<Arc<dyn Schemas>, Error> {
    schemas.ok_or_else(|| {
        Error::new(
            "input.schema: records name their schema by the id of a registry, and no registry is set; \
             set `registry.urls`, or give `file` and `framing = \"none\"`",
        )
    })
}

pub(super) fn avro(schema: &Schema) -> Result<Avro, String> {
    Avro::parse(&schema.text, schema.references.iter().map(|reference| reference.text.as_str()))
}

fn check_kind(schema: &Schema, kind: SchemaKind) -> Result<(), String> {
    if schema.kind == kind { Ok(()) } else { Err(format!("it is {}, expected {kind}", schema.kind)) }
}

fn compile_avro(schema: Arc<Schema>, reader: Option<&Avro>) -> Result<Compiled, String> {
    check_kind(&schema, SchemaKind::Avro)?;
    let avro = avro(&schema)?;
    let program = Program::new(&avro, reader)?;
    Ok(Compiled::Avro { schema, avro, program })
}

fn proto(schema: &Schema) -> Result<Proto, String> {
    check_kind(schema, SchemaKind::Protobuf)?;
    Proto::compile(&schema.text, &schema.references)
}

/// The content of a record in a frame, for formats that need no schema to be read: JSON written with JSON Schema.
pub(crate) fn payload(record: &Bytes, headers: &[Header]) -> Result<Bytes, Refused> {
    let frame = framing::read(record, headers, Places::None)?;
    Ok(record.slice(frame.start..))
}
