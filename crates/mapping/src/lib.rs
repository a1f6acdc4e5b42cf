//! Records to tensors and answers to records: formats, fields and filters.
//!
//! A [`Plan`] is made once for a signature of a model, from [`Settings`]; what can be wrong with them is found then. For
//! each record it reads the fields that are needed ([`Plan::decode`]), says whether the record is wanted
//! ([`Plan::keep`]), makes the model's inputs ([`Plan::inputs`]) and writes the answer ([`Plan::encode`]). A record that
//! does not fit is [`Refused`], with the field and what was expected of it.
//!
//! This room knows formats and tensors. It knows no brokers, sockets, files, loaded models or threads: schemas come
//! through the trait [`Schemas`]. What comes in is not trusted: no reader panics, recurses without bound or reserves
//! memory for a length that it was told.

mod answers;
mod codec;
mod csv;
mod encode;
mod error;
mod fields;
mod filter;
mod format;
mod image;
mod inputs;
mod json;
mod path;
mod plan;
mod proto;
mod raw;
mod schema;
mod schemas;
pub mod settings;
mod value;

pub use error::{Error, Refused, RefusedClass};
pub use format::Format;
pub use plan::{About, Around, Decoded, Plan, TableFormat, Window, Written};
pub use schema::{SCHEMA_HEADER, SchemaSettings};
pub use schemas::{Reference, Registered, Schema, SchemaError, SchemaKind, Schemas, Unregistered};
pub use settings::Settings;
