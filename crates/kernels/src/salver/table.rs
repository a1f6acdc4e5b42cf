//! Lookup tables.

use std::cmp::Ordering;
use std::collections::HashMap;

use salver_tensor::{DType, Tensor};

use crate::Error;
use crate::call::Call;
use crate::datum::{Datum, by_width};

/// Finds each key in a table and gives its value, or the default.
///
/// The table is the attributes `keys` and `values`, two lists of equal length. With the attribute `order` (see
/// [`table_order`]) a key is found by bisection; without it all keys are hashed on every call.
pub(super) fn lookup(call: &Call<'_>) -> Result<Tensor, Error> {
    let asked = call.input(0)?;
    let default = call.input(1)?;
    let keys = call.needed("keys", call.attributes.tensor("keys")?)?;
    let values = call.needed("values", call.attributes.tensor("values")?)?;
    if asked.dtype() != keys.dtype() {
        return Err(Error::invalid(format!("keys are {}, the table's are {}", asked.dtype(), keys.dtype())));
    }
    if default.dtype() != values.dtype() || default.shape().n_elements() != 1 {
        return Err(Error::invalid(format!(
            "the default value is {} {}, expected one {}",
            default.dtype(),
            default.shape(),
            values.dtype()
        )));
    }
    if keys.shape().n_elements() != values.shape().n_elements() {
        let (keys, values) = (keys.shape(), values.shape());
        return Err(Error::invalid(format!("a table of keys {keys} has values {values}")));
    }
    let (asked_texts, keys) = (Keys::new(asked), Keys::new(keys));
    let found = match call.attributes.tensor("order")?.and_then(Tensor::to_slice::<i64>) {
        Some(order) => asked_texts.iter().map(|key| bisect(&keys, &order, key)).collect(),
        None => hash(&keys, &asked_texts),
    };
    by_width!(values.dtype(), T => select::<T>(asked, values, default, &found))
}

fn select<T: Datum>(
    asked: &Tensor,
    values: &Tensor,
    default: &Tensor,
    found: &[Option<usize>],
) -> Result<Tensor, Error> {
    let (from, default) = (T::read(values), T::read(default));
    let picked = found.iter().map(|at| at.and_then(|at| from.get(at)).unwrap_or(&default[0]).clone());
    T::tensor(values.dtype(), asked.shape().clone(), picked.collect())
}

/// Keys as bytes; numbers are equal when their bytes are.
enum Keys<'a> {
    Strings(&'a [bytes::Bytes]),
    Fixed { bytes: &'a [u8], width: usize },
}

impl<'a> Keys<'a> {
    fn new(tensor: &'a Tensor) -> Keys<'a> {
        match (tensor.strings(), tensor.bytes(), tensor.dtype().size()) {
            (Some(strings), ..) => Keys::Strings(strings),
            (_, Some(bytes), Some(width)) => Keys::Fixed { bytes, width },
            _ => Keys::Strings(&[]),
        }
    }

    fn len(&self) -> usize {
        match self {
            Keys::Strings(strings) => strings.len(),
            Keys::Fixed { bytes, width } => bytes.len() / width,
        }
    }

    fn get(&self, at: usize) -> Option<&'a [u8]> {
        match self {
            Keys::Strings(strings) => strings.get(at).map(|text| &**text),
            Keys::Fixed { bytes, width } => bytes.get(at * width..(at + 1) * width),
        }
    }

    fn iter(&self) -> impl Iterator<Item = &'a [u8]> + '_ {
        (0..self.len()).filter_map(|at| self.get(at))
    }
}

fn hash(keys: &Keys<'_>, asked: &Keys<'_>) -> Vec<Option<usize>> {
    let positions: HashMap<&[u8], usize> = keys.iter().enumerate().map(|(at, key)| (key, at)).collect();
    asked.iter().map(|key| positions.get(key).copied()).collect()
}

fn bisect(keys: &Keys<'_>, order: &[i64], wanted: &[u8]) -> Option<usize> {
    let key = |&at: &i64| usize::try_from(at).ok().and_then(|at| keys.get(at));
    let found = order.binary_search_by(|at| key(at).map_or(Ordering::Greater, |key| key.cmp(wanted))).ok()?;
    usize::try_from(order[found]).ok()
}

/// The attribute `order` of a `LookupTable` with these keys: their positions, sorted by key. Made once, it spares every
/// lookup from hashing the whole table.
///
/// # Errors
/// When a key occurs twice.
pub fn table_order(keys: &Tensor) -> Result<Tensor, Error> {
    let list = Keys::new(keys);
    let mut order: Vec<usize> = (0..list.len()).collect();
    order.sort_by(|&a, &b| list.get(a).cmp(&list.get(b)));
    if let Some(pair) = order.windows(2).find(|pair| list.get(pair[0]) == list.get(pair[1])) {
        let (first, second) = (pair[0].min(pair[1]), pair[0].max(pair[1]));
        let shown = match (list.get(first), keys.dtype()) {
            (Some(text), DType::String) => {
                format!(" '{}'", String::from_utf8_lossy(&text[..text.len().min(256)]))
            }
            _ => String::new(),
        };
        let text = format!("a table has the key{shown} twice, at positions {first} and {second}");
        return Err(Error::invalid(text));
    }
    let order: Vec<i64> = order.iter().filter_map(|&at| i64::try_from(at).ok()).collect();
    let shape = salver_tensor::Shape::vector(order.len())?;
    Ok(Tensor::from_vec(shape, order)?)
}
