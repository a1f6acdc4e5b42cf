//! The attributes of a node, by type.

use std::collections::BTreeMap;

use salver_tensor::DType;

use crate::Error;
use crate::proto::attr_value::{ListValue, Value};
use crate::proto::{AttrValue, NodeDef, TensorProto, TensorShapeProto};
use crate::read::{dtype_from_number, dtype_name};

/// One node, as an operator's mapping sees it. Attributes that a file leaves out have their default values.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// The node's name, for messages and for the names of values.
    pub name: &'a str,
    /// The operator.
    pub op: &'a str,
    /// The attributes, placeholders of functions replaced.
    pub attributes: &'a BTreeMap<String, AttrValue>,
}

impl<'a> View<'a> {
    /// The node as it stands in a graph.
    pub fn of(node: &'a NodeDef) -> View<'a> {
        View { name: &node.name, op: &node.op, attributes: &node.attr }
    }

    fn get(&self, name: &str) -> Option<&'a Value> {
        self.attributes.get(name).and_then(|attribute| attribute.value.as_ref())
    }

    fn wrong(name: &str, expected: &str) -> Error {
        Error::invalid(format!("attribute '{name}' is not {expected}"))
    }

    fn missing(name: &str) -> Error {
        Error::invalid(format!("attribute '{name}' is missing"))
    }

    /// Whether there is an attribute of that name.
    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// An integer.
    ///
    /// # Errors
    /// When the attribute is something else.
    pub fn int(&self, name: &str, default: i64) -> Result<i64, Error> {
        match self.get(name) {
            None => Ok(default),
            Some(Value::I(value)) => Ok(*value),
            Some(_) => Err(Self::wrong(name, "an integer")),
        }
    }

    /// A number of things, such as outputs; at most a million.
    ///
    /// # Errors
    /// When the attribute is missing, something else or out of range.
    pub fn count(&self, name: &str) -> Result<usize, Error> {
        if !self.has(name) {
            return Err(Self::missing(name));
        }
        let value = self.int(name, 0)?;
        let count = usize::try_from(value).ok().filter(|&count| count <= 1_000_000);
        count.ok_or_else(|| Error::invalid(format!("attribute '{name}' is {value}, expected 0 to 1000000")))
    }

    /// A number.
    ///
    /// # Errors
    /// When the attribute is something else.
    pub fn float(&self, name: &str, default: f32) -> Result<f32, Error> {
        match self.get(name) {
            None => Ok(default),
            Some(Value::F(value)) => Ok(*value),
            Some(_) => Err(Self::wrong(name, "a number")),
        }
    }

    /// A truth.
    ///
    /// # Errors
    /// When the attribute is something else.
    pub fn flag(&self, name: &str, default: bool) -> Result<bool, Error> {
        match self.get(name) {
            None => Ok(default),
            Some(Value::B(value)) => Ok(*value),
            Some(_) => Err(Self::wrong(name, "a truth value")),
        }
    }

    /// A text.
    ///
    /// # Errors
    /// When the attribute is something else or not UTF-8.
    pub fn text(&self, name: &str, default: &'a str) -> Result<&'a str, Error> {
        match self.get(name) {
            None => Ok(default),
            Some(Value::S(bytes)) => std::str::from_utf8(bytes).map_err(|_| Self::wrong(name, "a text")),
            Some(_) => Err(Self::wrong(name, "a text")),
        }
    }

    /// An element type.
    ///
    /// # Errors
    /// When the attribute is something else, or a type that no tensor here has.
    pub fn dtype(&self, name: &str, default: DType) -> Result<DType, Error> {
        match self.get(name) {
            None => Ok(default),
            Some(Value::Type(number)) => element(*number),
            Some(_) => Err(Self::wrong(name, "an element type")),
        }
    }

    /// Element types; none where there is no such attribute.
    ///
    /// # Errors
    /// When the attribute is something else, or one is a type that no tensor here has.
    pub fn dtypes(&self, name: &str) -> Result<Vec<DType>, Error> {
        let Some(list) = self.list(name)? else { return Ok(Vec::new()) };
        list.r#type.iter().map(|&number| element(number)).collect()
    }

    /// A tensor.
    ///
    /// # Errors
    /// When the attribute is missing or something else.
    pub fn tensor(&self, name: &str) -> Result<&'a TensorProto, Error> {
        match self.get(name) {
            None => Err(Self::missing(name)),
            Some(Value::Tensor(value)) => Ok(value),
            Some(_) => Err(Self::wrong(name, "a tensor")),
        }
    }

    /// A shape.
    ///
    /// # Errors
    /// When the attribute is something else.
    pub fn shape(&self, name: &str) -> Result<Option<&'a TensorShapeProto>, Error> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Shape(value)) => Ok(Some(value)),
            Some(_) => Err(Self::wrong(name, "a shape")),
        }
    }

    /// Shapes; none where there is no such attribute.
    ///
    /// # Errors
    /// When the attribute is something else.
    pub fn shapes(&self, name: &str) -> Result<&'a [TensorShapeProto], Error> {
        Ok(self.list(name)?.map(|list| list.shape.as_slice()).unwrap_or_default())
    }

    /// Integers; `None` where there is no such attribute.
    ///
    /// # Errors
    /// When the attribute is something else.
    pub fn ints(&self, name: &str) -> Result<Option<&'a [i64]>, Error> {
        Ok(self.list(name)?.map(|list| list.i.as_slice()))
    }

    /// Numbers; none where there is no such attribute.
    ///
    /// # Errors
    /// When the attribute is something else.
    pub fn floats(&self, name: &str) -> Result<&'a [f32], Error> {
        Ok(self.list(name)?.map(|list| list.f.as_slice()).unwrap_or_default())
    }

    /// Texts; none where there is no such attribute.
    ///
    /// # Errors
    /// When the attribute is something else or one is not UTF-8.
    pub fn texts(&self, name: &str) -> Result<Vec<String>, Error> {
        let Some(list) = self.list(name)? else { return Ok(Vec::new()) };
        let text =
            |bytes: &bytes::Bytes| String::from_utf8(bytes.to_vec()).map_err(|_| Self::wrong(name, "texts"));
        list.s.iter().map(text).collect()
    }

    fn list(&self, name: &str) -> Result<Option<&'a ListValue>, Error> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::List(list)) => Ok(Some(list)),
            Some(_) => Err(Self::wrong(name, "a list")),
        }
    }
}

fn element(number: i32) -> Result<DType, Error> {
    dtype_from_number(number).ok_or_else(|| {
        Error::unsupported(format!("tensors of type {} are not supported", dtype_name(number)))
    })
}
