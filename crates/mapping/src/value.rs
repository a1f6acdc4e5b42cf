//! What a field holds, in whatever format it came: the seam between formats and tensors.
//!
//! A format shows a record as a [`Value`]: usually a [`Value::Map`] of fields. [`Value::at`] follows a
//! [`Path`]. Answers are values too, and a format writes them; their [`Kind`] is known before any is made.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use salver_tensor::Tensor;
use smallvec::SmallVec;

use crate::path::{Path, Step};

/// The lengths of evenly nested lists, outermost first.
pub(crate) type Lens = SmallVec<[usize; 4]>;

/// A field of a record, or an answer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    /// Nothing: JSON's `null`, an empty CSV field, Avro's `null` branch.
    Null,
    /// A boolean.
    Bool(bool),
    /// A whole number, exact.
    Int(i128),
    /// A number.
    Float(f64),
    /// Text.
    Text(Arc<str>),
    /// Bytes that need not be text.
    Bytes(Bytes),
    /// Values of any kind.
    List(Vec<Value>),
    /// Numbers in lists of even lengths: what long lists are kept as.
    Array(Array),
    /// A tensor as it came: it fits a model's input as it is or not at all.
    Tensor(Tensor),
    /// Named values, in the order in which they came. Of two of one name the last counts.
    Map(Vec<(Arc<str>, Value)>),
}

/// Numbers in lists of even lengths, row by row. `lens` has one entry at least, and their product is the number of
/// numbers.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Array {
    pub(crate) lens: Lens,
    pub(crate) numbers: Numbers,
}

/// The numbers of an [`Array`].
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Numbers {
    Floats(Vec<f64>),
    Ints(Vec<i64>),
}

impl Numbers {
    pub(crate) fn len(&self) -> usize {
        match self {
            Numbers::Floats(numbers) => numbers.len(),
            Numbers::Ints(numbers) => numbers.len(),
        }
    }

    pub(crate) fn get(&self, index: usize) -> Option<Value> {
        match self {
            Numbers::Floats(numbers) => numbers.get(index).map(|&number| Value::Float(number)),
            Numbers::Ints(numbers) => numbers.get(index).map(|&number| Value::Int(i128::from(number))),
        }
    }

    fn slice(&self, start: usize, end: usize) -> Option<Numbers> {
        Some(match self {
            Numbers::Floats(numbers) => Numbers::Floats(numbers.get(start..end)?.to_vec()),
            Numbers::Ints(numbers) => Numbers::Ints(numbers.get(start..end)?.to_vec()),
        })
    }
}

impl Value {
    /// A list of floats.
    pub(crate) fn floats(numbers: Vec<f64>) -> Value {
        Value::Array(Array { lens: Lens::from_slice(&[numbers.len()]), numbers: Numbers::Floats(numbers) })
    }

    /// A list of whole numbers.
    pub(crate) fn ints(numbers: Vec<i64>) -> Value {
        Value::Array(Array { lens: Lens::from_slice(&[numbers.len()]), numbers: Numbers::Ints(numbers) })
    }

    /// Text.
    pub(crate) fn text(text: &str) -> Value {
        Value::Text(text.into())
    }

    /// What the path leads to, copied; `None` where it leads nowhere.
    pub(crate) fn at(&self, path: &Path) -> Option<Value> {
        let mut here = self;
        let mut steps = path.steps().iter();
        for step in steps.by_ref() {
            here = match (here, step) {
                (Value::Map(fields), Step::Key(key)) => {
                    fields.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value)?
                }
                (Value::List(items), Step::Index(index)) => items.get(*index)?,
                (Value::Array(_) | Value::Tensor(_), Step::Index(index)) => {
                    return here.item(*index)?.at(&Path::new(steps.cloned().collect()));
                }
                _ => return None,
            };
        }
        Some(here.clone())
    }

    /// An item of a list, an array or a tensor.
    pub(crate) fn item(&self, index: usize) -> Option<Value> {
        match self {
            Value::List(items) => items.get(index).cloned(),
            Value::Array(array) => array.item(index),
            Value::Tensor(tensor) => {
                let row = tensor.rows(index, 1)?;
                let shape = salver_tensor::Shape::new(row.shape().row_dims()).ok()?;
                row.reshape(shape).ok().map(Value::Tensor)
            }
            _ => None,
        }
    }

    /// What it is, for messages.
    pub(crate) fn what(&self) -> String {
        match self {
            Value::Null => "null".into(),
            Value::Bool(_) => "a boolean".into(),
            Value::Int(_) => "a whole number".into(),
            Value::Float(_) => "a number".into(),
            Value::Text(_) => "text".into(),
            Value::Bytes(bytes) => format!("{} bytes", bytes.len()),
            Value::List(items) => format!("a list of {}", items.len()),
            Value::Array(array) => format!("numbers in lists of {:?}", array.lens.as_slice()),
            Value::Tensor(tensor) => format!("a tensor {} {}", tensor.dtype(), tensor.shape()),
            Value::Map(_) => "an object".into(),
        }
    }
}

impl Array {
    fn item(&self, index: usize) -> Option<Value> {
        let (&len, inner) = self.lens.split_first()?;
        if index >= len {
            return None;
        }
        if inner.is_empty() {
            return self.numbers.get(index);
        }
        let n = inner.iter().try_fold(1usize, |n, &len| n.checked_mul(len))?;
        let start = index.checked_mul(n)?;
        let numbers = self.numbers.slice(start, start.checked_add(n)?)?;
        Some(Value::Array(Array { lens: Lens::from_slice(inner), numbers }))
    }
}

/// What kind of value an answer will be, for formats that have types.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// [`Value::Bool`]
    Bool,
    /// [`Value::Int`], of 32 bits.
    Int,
    /// [`Value::Int`], of 64 bits.
    Long,
    /// [`Value::Float`], of single precision.
    Float,
    /// [`Value::Float`]
    Double,
    /// [`Value::Text`]
    Text,
    /// [`Value::Bytes`]
    Bytes,
    /// [`Value::List`] or [`Value::Array`] of that kind; lists of lists are nested.
    List(Box<Kind>),
    /// [`Value::Map`] with these names, always all of them and in this order.
    Map(Vec<(Arc<str>, Kind)>),
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::Bool => f.write_str("boolean"),
            Kind::Int => f.write_str("int"),
            Kind::Long => f.write_str("long"),
            Kind::Float => f.write_str("float"),
            Kind::Double => f.write_str("double"),
            Kind::Text => f.write_str("text"),
            Kind::Bytes => f.write_str("bytes"),
            Kind::List(inner) => write!(f, "list of {inner}"),
            Kind::Map(_) => f.write_str("object"),
        }
    }
}
