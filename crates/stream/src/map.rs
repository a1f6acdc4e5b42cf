//! What the pipeline asks of a mapping: records to tensors and back.

use std::any::Any;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use salver_predict::{ModelName, Version};
use salver_records::Record;
use salver_tensor::{Signature, Tensor};

use crate::Class;

/// Makes plans for the signatures of models. Shared by all threads of a pipeline.
pub trait Mapping: Debug + Send + Sync {
    /// Compiles the mapping for a signature. May block on a schema registry.
    ///
    /// # Errors
    /// What in the mapping does not fit the signature.
    fn plan(&self, signature: &Signature) -> Result<Arc<dyn Plan>, String>;
}

/// A mapping compiled for one signature. Shared by workers.
pub trait Plan: Debug + Send + Sync {
    /// Reads a record that has a value. `None`: a filter leaves it out.
    ///
    /// # Errors
    /// Why it cannot be read.
    fn read(&self, record: &Record) -> Result<Option<Mapped>, Refused>;

    /// Writes the answer. `outputs` are those that [`Plan::outputs`] says, in that order.
    ///
    /// # Errors
    /// Why it cannot be written.
    fn write(
        &self,
        record: &Record,
        mapped: &Mapped,
        outputs: &[Tensor],
        about: &About<'_>,
    ) -> Result<Written, Refused>;

    /// Which outputs of the signature are needed, by position.
    fn outputs(&self) -> &[usize];
}

/// A record that was read.
#[derive(Debug)]
pub struct Mapped {
    /// All inputs of the signature, in its order. An input that a window collects is one row of it.
    pub inputs: Vec<Tensor>,
    /// What the mapping keeps for [`Plan::write`].
    pub fields: Box<dyn Any + Send>,
}

/// Who answered.
#[derive(Debug, Clone, Copy)]
pub struct About<'a> {
    /// The model.
    pub model: &'a ModelName,
    /// Its version.
    pub version: Version,
    /// From reading the record until its answer.
    pub latency: Duration,
}

/// The content of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The value; `None` writes a tombstone.
    pub value: Option<Bytes>,
    /// The value of the header `content-type`, if there is to be one.
    pub content_type: Option<&'static str>,
}

/// Why a record cannot be read or its answer cannot be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The class that the policy goes by.
    pub class: Class,
    /// What was wrong, what was expected and in which field.
    pub message: String,
    /// Whether the same may work later.
    pub is_passing: bool,
}
