use std::borrow::Borrow;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// The longest model name, in bytes.
pub const MAX_NAME_BYTES: usize = 1024;

/// The name of a model: not empty, at most [`MAX_NAME_BYTES`] long, without control characters. Cheap to
/// clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModelName(Arc<str>);

impl ModelName {
    /// Checks and takes a name.
    pub fn new(name: &str) -> Result<Self, NameError> {
        if name.is_empty() {
            Err(NameError::Empty)
        } else if name.len() > MAX_NAME_BYTES {
            Err(NameError::TooLong { n_bytes: name.len() })
        } else if name.chars().any(char::is_control) {
            Err(NameError::ControlCharacter)
        } else {
            Ok(Self(name.into()))
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Deref for ModelName {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for ModelName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for ModelName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl TryFrom<&str> for ModelName {
    type Error = NameError;

    fn try_from(name: &str) -> Result<Self, NameError> {
        Self::new(name)
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// Why a text cannot be a model name.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum NameError {
    /// The text is empty.
    Empty,
    /// The text is longer than [`MAX_NAME_BYTES`].
    TooLong {
        /// Its length in bytes.
        n_bytes: usize,
    },
    /// The text holds a control character.
    ControlCharacter,
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("model name is empty"),
            Self::TooLong { n_bytes } => {
                write!(f, "model name is {n_bytes} bytes long, expected at most {MAX_NAME_BYTES}")
            }
            Self::ControlCharacter => f.write_str("model name holds a control character"),
        }
    }
}

impl std::error::Error for NameError {}

/// The number of a version. It fits an `i64`, because the interfaces say it in one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(u64);

impl Version {
    /// A version with this number, or `None` if the number does not fit an `i64`.
    pub const fn new(number: u64) -> Option<Self> {
        if number > i64::MAX as u64 { None } else { Some(Self(number)) }
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The number as the interfaces carry it.
    pub const fn as_i64(self) -> i64 {
        // Never wraps: `new` refuses what does not fit.
        self.0 as i64
    }

    /// The version that a signed number names, or `None` if it is negative.
    pub fn from_i64(number: i64) -> Option<Self> {
        u64::try_from(number).ok().map(Self)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// One version of one model.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id {
    /// The model's name.
    pub name: ModelName,
    /// The version's number.
    pub version: Version,
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{name: {} version: {}}}", self.name, self.version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        let check = |text: &str, expected: Result<(), NameError>| {
            assert_eq!(
                ModelName::new(text).map(|name| assert_eq!(name.as_str(), text)),
                expected,
                "{text:?}"
            );
        };
        check("m", Ok(()));
        check("a model/with: anything", Ok(()));
        check("", Err(NameError::Empty));
        check("a\nb", Err(NameError::ControlCharacter));
        check(&"x".repeat(1024), Ok(()));
        check(&"x".repeat(1025), Err(NameError::TooLong { n_bytes: 1025 }));
    }

    #[test]
    fn versions_fit_i64() {
        assert_eq!(Version::new(u64::MAX), None);
        assert_eq!(Version::new(i64::MAX as u64).map(Version::as_i64), Some(i64::MAX));
        assert_eq!(Version::from_i64(-1), None);
        assert_eq!(Version::from_i64(7).map(Version::get), Some(7));
    }
}
