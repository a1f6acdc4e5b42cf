//! Where schemas come from.

use std::fmt;
use std::sync::Arc;

/// Gives schemas of a registry. Implementers keep what they were told: an id means one schema for ever.
pub trait Schemas: fmt::Debug + Send + Sync {
    /// The schema of that id. Blocks while it is fetched for the first time; every later call is quick.
    ///
    /// # Errors
    /// When there is none, or the registry cannot be asked now.
    fn get(&self, id: u32) -> Result<Arc<Schema>, SchemaError>;

    /// The newest schema of a subject, with its id. May block.
    ///
    /// # Errors
    /// As [`Schemas::get`].
    fn latest(&self, subject: &str) -> Result<(u32, Arc<Schema>), SchemaError>;

    /// The schema of that GUID, in the form 8-4-4-4-12 of lower case hexadecimal digits. Blocks as [`Schemas::get`].
    ///
    /// # Errors
    /// As [`Schemas::get`].
    fn guid(&self, guid: &str) -> Result<Arc<Schema>, SchemaError>;

    /// The id of a schema under a subject. Blocks when it is asked for the first time; every later call is quick.
    ///
    /// # Errors
    /// When the subject does not have it and it is not to be registered, when the registry does not take it (it is not compatible
    /// with an earlier one, say), or when the registry cannot be asked now.
    fn id_of(&self, subject: &str, schema: &Schema, unknown: Unregistered) -> Result<u32, SchemaError>;
}

/// What to do with a schema that a subject does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unregistered {
    /// Make it the subject's newest version.
    Register,
    /// Leave the registry as it is.
    Refuse,
}

/// The language of a schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SchemaKind {
    /// Avro, as JSON.
    Avro,
    /// Protobuf, as the text of a `.proto` file.
    Protobuf,
    /// JSON Schema.
    Json,
}

impl SchemaKind {
    /// The name that registries use: `AVRO`, `PROTOBUF`, `JSON`.
    pub const fn name(self) -> &'static str {
        match self {
            SchemaKind::Avro => "AVRO",
            SchemaKind::Protobuf => "PROTOBUF",
            SchemaKind::Json => "JSON",
        }
    }
}

impl fmt::Display for SchemaKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SchemaKind::Avro => "Avro",
            SchemaKind::Protobuf => "Protobuf",
            SchemaKind::Json => "JSON Schema",
        })
    }
}

/// A schema as a registry has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schema {
    /// Its language.
    pub kind: SchemaKind,
    /// Its text.
    pub text: String,
    /// What the text refers to, in an order in which each comes after those it needs itself.
    pub references: Vec<Reference>,
}

/// Another schema that a schema refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// The name that the text uses: the full name of an Avro type, the path of an imported `.proto` file.
    pub name: String,
    /// The text of the other schema.
    pub text: String,
    /// Where a registry has it; `None` for one that came from elsewhere.
    pub registered: Option<Registered>,
}

/// A version of a subject.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Registered {
    /// The subject.
    pub subject: String,
    /// The number, from 1.
    pub version: u32,
}

/// Why there is no schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemaError {
    /// What was wrong, and with which id or subject.
    pub message: String,
    /// Whether the same call may work later: the registry is away.
    pub passing: bool,
}

impl fmt::Display for SchemaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for SchemaError {}
