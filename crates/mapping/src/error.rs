//! What can be wrong with settings and with records.

use std::fmt;

use crate::SchemaError;

/// Why settings cannot be used with a signature. Everything that was found is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    problems: Vec<String>,
}

impl Error {
    /// An error of one problem.
    pub(crate) fn new(problem: impl Into<String>) -> Error {
        Error { problems: vec![problem.into()] }
    }

    /// Nothing if there is no problem.
    pub(crate) fn unless_none(problems: Vec<String>) -> Result<(), Error> {
        if problems.is_empty() { Ok(()) } else { Err(Error { problems }) }
    }

    /// One text for each problem: which setting, what was wrong, what was expected.
    pub fn problems(&self) -> &[String] {
        &self.problems
    }

    /// The same problems, as a list to add to.
    pub(crate) fn into_problems(self) -> Vec<String> {
        self.problems
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problems.join("; "))
    }
}

impl std::error::Error for Error {}

/// What kind of trouble a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RefusedClass {
    /// The bytes are not of the format.
    Format,
    /// The record can be read and does not fit the model or the settings: a field is missing, or of the wrong type or
    /// length.
    Shape,
    /// The record's schema is unknown, or does not fit its bytes.
    Schema,
    /// The record, or what it would become, is larger than allowed.
    TooLarge,
}

impl RefusedClass {
    /// Every class.
    pub const ALL: [RefusedClass; 4] =
        [RefusedClass::Format, RefusedClass::Shape, RefusedClass::Schema, RefusedClass::TooLarge];

    /// The name for headers, metrics and settings: `format`, `shape`, `schema`, `too_large`.
    pub const fn name(self) -> &'static str {
        match self {
            RefusedClass::Format => "format",
            RefusedClass::Shape => "shape",
            RefusedClass::Schema => "schema",
            RefusedClass::TooLarge => "too_large",
        }
    }
}

impl fmt::Display for RefusedClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How long a message may be, in bytes: names in schemas have no bounds of their own, and a message goes into a header.
const MAX_MESSAGE: usize = 1000;

/// A record that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// What kind of trouble it is.
    pub class: RefusedClass,
    /// The field, what was wrong with it and what was expected. Shows 100 bytes of the record at most.
    pub message: String,
    /// Whether the same record may be taken later: a schema registry is away.
    pub passing: bool,
}

impl Refused {
    /// A record that will never be taken.
    pub(crate) fn new(class: RefusedClass, message: impl Into<String>) -> Refused {
        let mut message = message.into();
        if message.len() > MAX_MESSAGE {
            message.truncate(message.floor_char_boundary(MAX_MESSAGE));
            message.push_str("...");
        }
        Refused { class, message, passing: false }
    }

    /// The bytes are not of the format.
    #[cold]
    pub(crate) fn format(message: impl Into<String>) -> Refused {
        Refused::new(RefusedClass::Format, message)
    }

    /// The record does not fit.
    #[cold]
    pub(crate) fn shape(message: impl Into<String>) -> Refused {
        Refused::new(RefusedClass::Shape, message)
    }

    /// The record is too large.
    #[cold]
    pub(crate) fn too_large(message: impl Into<String>) -> Refused {
        Refused::new(RefusedClass::TooLarge, message)
    }

    /// Trouble with a schema that will stay.
    #[cold]
    pub(crate) fn schema(message: impl Into<String>) -> Refused {
        Refused::new(RefusedClass::Schema, message)
    }
}

impl From<SchemaError> for Refused {
    fn from(error: SchemaError) -> Refused {
        Refused { passing: error.passing, ..Refused::new(RefusedClass::Schema, error.message) }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Refused {}

/// How much of a record's content a message shows, in bytes.
const SHOWN: usize = 100;

/// Content for a message: as text, cut.
#[cold]
pub(crate) fn show(content: &[u8]) -> String {
    let cut = content.get(..SHOWN).unwrap_or(content);
    let text = String::from_utf8_lossy(cut);
    if cut.len() < content.len() { format!("{text}...") } else { text.into_owned() }
}
