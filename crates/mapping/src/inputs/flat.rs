//! The elements of a field.

use std::borrow::Cow;

use smallvec::SmallVec;

use crate::value::{Lens, Value};

/// The elements of a field, in a row.
#[derive(Clone)]
pub(super) struct Flat<'v> {
    /// The lengths of its nested lists; none for a single value.
    pub(super) lens: Lens,
    pub(super) items: Items<'v>,
}

#[derive(Clone)]
pub(super) enum Items<'v> {
    Floats(Cow<'v, [f64]>),
    Ints(Cow<'v, [i64]>),
    Values(SmallVec<[&'v Value; 1]>),
}

impl<'v> Flat<'v> {
    pub(super) fn n(&self) -> usize {
        match &self.items {
            Items::Floats(numbers) => numbers.len(),
            Items::Ints(numbers) => numbers.len(),
            Items::Values(values) => values.len(),
        }
    }

    /// A single value, as many times as the lengths say.
    pub(super) fn repeated(mut self, lens: Lens) -> Flat<'v> {
        let n = lens.iter().product();
        if let Items::Values(values) = &mut self.items
            && let [value] = *values.as_slice()
        {
            values.resize(n, value);
        }
        self.lens = lens;
        self
    }

    pub(super) fn part(&self, start: usize, n: usize) -> Flat<'v> {
        let range = start..start + n;
        let items = match &self.items {
            Items::Floats(numbers) => Items::Floats(Cow::Owned(numbers[range].to_vec())),
            Items::Ints(numbers) => Items::Ints(Cow::Owned(numbers[range].to_vec())),
            Items::Values(values) => Items::Values(SmallVec::from_slice(&values[range])),
        };
        Flat { lens: Lens::from_slice(&[n]), items }
    }

    pub(super) fn values(&self) -> Box<dyn Iterator<Item = Cow<'_, Value>> + '_> {
        match &self.items {
            Items::Floats(numbers) => {
                Box::new(numbers.iter().map(|&number| Cow::Owned(Value::Float(number))))
            }
            Items::Ints(numbers) => {
                Box::new(numbers.iter().map(|&number| Cow::Owned(Value::Int(i128::from(number)))))
            }
            Items::Values(values) => Box::new(values.iter().map(|&value| Cow::Borrowed(value))),
        }
    }
}

/// The lengths of nested lists, by the first of each level. Recursion ends where no list is.
pub(super) fn lens(value: &Value) -> Lens {
    let mut lens = Lens::new();
    let mut here = value;
    loop {
        match here {
            Value::List(items) if lens.len() < salver_tensor::MAX_RANK => {
                lens.push(items.len());
                match items.first() {
                    Some(first) => here = first,
                    None => return lens,
                }
            }
            Value::Array(array) => {
                lens.extend_from_slice(&array.lens);
                return lens;
            }
            Value::Tensor(tensor) => {
                lens.extend_from_slice(tensor.shape().dims());
                return lens;
            }
            _ => return lens,
        }
    }
}

/// Collects the elements of lists that have these lengths; `false` if they have not. Recursion ends with the lengths.
pub(super) fn flatten<'v>(value: &'v Value, lens: &[usize], into: &mut SmallVec<[&'v Value; 1]>) -> bool {
    match (value, lens.split_first()) {
        (Value::List(items), Some((&len, inner))) => {
            items.len() == len && items.iter().all(|item| flatten(item, inner, into))
        }
        (Value::List(_) | Value::Array(_) | Value::Tensor(_), _) | (_, Some(_)) => false,
        (value, None) => {
            into.push(value);
            true
        }
    }
}
