//! The named constants of an operator.

use std::collections::BTreeMap;

use salver_tensor::{DType, Tensor};

use crate::Error;

/// The value of an attribute.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Attribute {
    /// An integer; also a flag, 0 or 1.
    Int(i64),
    /// A number.
    Float(f32),
    /// A text.
    String(String),
    /// Integers.
    Ints(Vec<i64>),
    /// Numbers.
    Floats(Vec<f32>),
    /// Texts.
    Strings(Vec<String>),
    /// A tensor.
    Tensor(Tensor),
    /// An element type, such as `to` of `Cast`.
    DType(DType),
    /// Element types.
    DTypes(Vec<DType>),
}

macro_rules! from {
    ($($rust:ty => $variant:ident),* $(,)?) => {
        $(impl From<$rust> for Attribute {
            fn from(value: $rust) -> Attribute {
                Attribute::$variant(value.into())
            }
        })*
    };
}

from! {
    i64 => Int, f32 => Float, String => String, &str => String, Vec<i64> => Ints, &[i64] => Ints,
    Vec<f32> => Floats, Vec<String> => Strings, Tensor => Tensor, DType => DType, Vec<DType> => DTypes,
}

impl<const N: usize> From<[i64; N]> for Attribute {
    fn from(value: [i64; N]) -> Attribute {
        Attribute::Ints(value.to_vec())
    }
}

/// The attributes of one node, by name.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Attributes(BTreeMap<String, Attribute>);

impl Attributes {
    /// None.
    pub fn new() -> Attributes {
        Attributes::default()
    }

    /// The same with one more; one of that name is replaced.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Attribute>) -> Attributes {
        self.0.insert(name.to_owned(), value.into());
        self
    }

    /// Adds one; one of that name is replaced.
    pub fn set(&mut self, name: &str, value: impl Into<Attribute>) {
        self.0.insert(name.to_owned(), value.into());
    }

    /// Takes one out.
    pub fn remove(&mut self, name: &str) -> Option<Attribute> {
        self.0.remove(name)
    }

    /// The attribute of that name.
    pub fn get(&self, name: &str) -> Option<&Attribute> {
        self.0.get(name)
    }

    /// All, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Attribute)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// An integer, or `default` where there is none.
    ///
    /// # Errors
    /// When the attribute is something else.
    pub fn int(&self, name: &str, default: i64) -> Result<i64, Error> {
        match self.get(name) {
            None => Ok(default),
            Some(Attribute::Int(value)) => Ok(*value),
            Some(other) => Err(wrong(name, "an integer", other)),
        }
    }

    /// Whether an integer is there and not 0; `default` where there is none.
    ///
    /// # Errors
    /// When the attribute is something else.
    pub fn flag(&self, name: &str, default: bool) -> Result<bool, Error> {
        Ok(self.int(name, i64::from(default))? != 0)
    }

    /// A number, or `default` where there is none.
    ///
    /// # Errors
    /// When the attribute is something else.
    pub fn float(&self, name: &str, default: f32) -> Result<f32, Error> {
        match self.get(name) {
            None => Ok(default),
            Some(Attribute::Float(value)) => Ok(*value),
            Some(other) => Err(wrong(name, "a number", other)),
        }
    }

    /// A text, or `default` where there is none.
    ///
    /// # Errors
    /// When the attribute is something else.
    pub fn text<'a>(&'a self, name: &str, default: &'a str) -> Result<&'a str, Error> {
        match self.get(name) {
            None => Ok(default),
            Some(Attribute::String(value)) => Ok(value),
            Some(other) => Err(wrong(name, "a text", other)),
        }
    }

    /// Integers, if they are there.
    ///
    /// # Errors
    /// When the attribute is something else.
    pub fn ints(&self, name: &str) -> Result<Option<&[i64]>, Error> {
        match self.get(name) {
            None => Ok(None),
            Some(Attribute::Ints(values)) => Ok(Some(values)),
            Some(other) => Err(wrong(name, "integers", other)),
        }
    }

    /// Numbers, if they are there.
    ///
    /// # Errors
    /// When the attribute is something else.
    pub fn floats(&self, name: &str) -> Result<Option<&[f32]>, Error> {
        match self.get(name) {
            None => Ok(None),
            Some(Attribute::Floats(values)) => Ok(Some(values)),
            Some(other) => Err(wrong(name, "numbers", other)),
        }
    }

    /// Texts, if they are there.
    ///
    /// # Errors
    /// When the attribute is something else.
    pub fn texts(&self, name: &str) -> Result<Option<&[String]>, Error> {
        match self.get(name) {
            None => Ok(None),
            Some(Attribute::Strings(values)) => Ok(Some(values)),
            Some(other) => Err(wrong(name, "texts", other)),
        }
    }

    /// A tensor, if it is there.
    ///
    /// # Errors
    /// When the attribute is something else.
    pub fn tensor(&self, name: &str) -> Result<Option<&Tensor>, Error> {
        match self.get(name) {
            None => Ok(None),
            Some(Attribute::Tensor(value)) => Ok(Some(value)),
            Some(other) => Err(wrong(name, "a tensor", other)),
        }
    }

    /// An element type, if it is there.
    ///
    /// # Errors
    /// When the attribute is something else.
    pub fn dtype(&self, name: &str) -> Result<Option<DType>, Error> {
        match self.get(name) {
            None => Ok(None),
            Some(Attribute::DType(value)) => Ok(Some(*value)),
            Some(other) => Err(wrong(name, "an element type", other)),
        }
    }

    /// Element types, if they are there.
    ///
    /// # Errors
    /// When the attribute is something else.
    pub fn dtypes(&self, name: &str) -> Result<Option<&[DType]>, Error> {
        match self.get(name) {
            None => Ok(None),
            Some(Attribute::DTypes(values)) => Ok(Some(values)),
            Some(other) => Err(wrong(name, "element types", other)),
        }
    }
}

fn wrong(name: &str, expected: &str, got: &Attribute) -> Error {
    let got = match got {
        Attribute::Int(_) => "an integer",
        Attribute::Float(_) => "a number",
        Attribute::String(_) => "a text",
        Attribute::Ints(_) => "integers",
        Attribute::Floats(_) => "numbers",
        Attribute::Strings(_) => "texts",
        Attribute::Tensor(_) => "a tensor",
        Attribute::DType(_) => "an element type",
        Attribute::DTypes(_) => "element types",
    };
    Error::invalid(format!("attribute '{name}' is {got}, expected {expected}"))
}
