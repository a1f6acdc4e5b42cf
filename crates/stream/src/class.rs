//! The classes of trouble that a record can have.

use std::fmt;

/// Why a record has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// The value cannot be read in its format, or a key that is needed is not there.
    Format,
    /// The schema is not there or does not fit.
    Schema,
    /// The fields do not fit the model's inputs.
    Shape,
    /// There is no value.
    Tombstone,
    /// The record, or its answer, is larger than what is taken.
    Oversize,
    /// The model refuses the record or fails.
    Model,
    /// The model did not answer in time.
    Timeout,
    /// Nobody answered.
    Unavailable,
}

impl Class {
    /// All classes.
    pub const ALL: [Class; 8] = [
        Class::Format,
        Class::Schema,
        Class::Shape,
        Class::Tombstone,
        Class::Oversize,
        Class::Model,
        Class::Timeout,
        Class::Unavailable,
    ];

    /// The name in settings, headers and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Class::Format => "format",
            Class::Schema => "schema",
            Class::Shape => "shape",
            Class::Tombstone => "tombstone",
            Class::Oversize => "oversize",
            Class::Model => "model",
            Class::Timeout => "timeout",
            Class::Unavailable => "unavailable",
        }
    }

    pub(crate) fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
