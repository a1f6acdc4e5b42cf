//! Records of raw little-endian elements, without any frame.

use std::sync::Arc;

use bytes::Bytes;
use salver_tensor::{DType, Shape, Tensor};

use crate::Refused;
use crate::fields::Slot;
use crate::value::Value;

/// One tensor of a record.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) name: Arc<str>,
    pub(crate) dtype: DType,
    /// The dimensions of a row.
    pub(crate) row: Vec<usize>,
    /// The bytes of a row.
    pub(crate) n_bytes: usize,
}

/// Cuts a record into its tensors.
#[derive(Debug)]
pub(crate) struct Reader {
    parts: Vec<Part>,
    slots: Vec<Slot>,
    n_bytes: usize,
}

impl Reader {
    pub(crate) fn new(parts: Vec<Part>, slots: &[Slot]) -> Result<Reader, String> {
        let n_bytes = parts.iter().try_fold(0usize, |sum, part| sum.checked_add(part.n_bytes));
        match n_bytes {
            Some(n_bytes) if n_bytes > 0 => Ok(Reader { parts, slots: slots.to_vec(), n_bytes }),
            _ => Err("format raw: the inputs take no bytes, or more than there are".into()),
        }
    }

    /// The tensors, in the order of the slots. Nothing is copied.
    pub(crate) fn read(&self, record: &Bytes) -> Result<Vec<Option<Value>>, Refused> {
        let n_rows = match self.parts.as_slice() {
            [_] if record.len().is_multiple_of(self.n_bytes) => record.len() / self.n_bytes,
            _ if record.len() == self.n_bytes => 1,
            _ => 0,
        };
        if n_rows == 0 {
            let (n, got) = (self.n_bytes, record.len());
            let or = if self.parts.len() == 1 { " or a multiple" } else { "" };
            return Err(Refused::shape(format!("the record has {got} bytes, expected {n}{or}")));
        }
        let mut start = 0;
        let mut members = Vec::with_capacity(self.parts.len());
        for part in &self.parts {
            let end = start + part.n_bytes * n_rows;
            let mut dims = if n_rows == 1 { Vec::new() } else { vec![n_rows] };
            dims.extend(&part.row);
            let shape = Shape::new(&dims).map_err(|error| Refused::shape(error.to_string()))?;
            let tensor = Tensor::from_bytes(part.dtype, shape, record.slice(start..end));
            let wrong = |error| Refused::shape(format!("input `{}`: {error}", part.name));
            members.push((part.name.clone(), Value::Tensor(tensor.map_err(wrong)?)));
            start = end;
        }
        let whole = Value::Map(members);
        Ok(self.slots.iter().map(|slot| whole.at(&slot.path)).collect())
    }
}

/// Writes tensors one after the other.
pub(crate) fn write(tensors: &[&Tensor]) -> Vec<u8> {
    let mut out = Vec::with_capacity(tensors.iter().map(|tensor| tensor.n_bytes()).sum());
    tensors.iter().filter_map(|tensor| tensor.bytes()).for_each(|bytes| out.extend_from_slice(bytes));
    out
}
