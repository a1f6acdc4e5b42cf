//! Fields to the inputs of a model.

mod cell;
mod fit;
mod flat;
mod scale;

use std::borrow::Cow;
use std::sync::Arc;

use salver_tensor::{DType, Tensor};
use smallvec::SmallVec;

use crate::Refused;
use crate::answers::tensor_numbers;
use crate::error::show;
use crate::settings::{RowsSettings, Unknown};
use crate::value::{Lens, Numbers, Value};

pub(crate) use cell::{Cell, Flag, with_cell};
use flat::{Flat, Items, flatten, lens};

pub(crate) use fit::{Lead, Rows, Target};
pub(crate) use scale::Scale;

/// Where a field is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// In the record, by slot.
    Record(usize),
    /// In the record of a table, by table and slot.
    Table(usize, usize),
}

/// One field on its way into an input.
#[derive(Debug)]
pub(crate) struct Feature {
    pub(crate) place: Place,
    /// Its path, for messages.
    pub(crate) name: Arc<str>,
    /// The categories that become one column each.
    pub(crate) one_hot: Option<Vec<Value>>,
}

/// How one input is made.
#[derive(Debug)]
pub(crate) struct Input {
    pub(crate) name: Arc<str>,
    pub(crate) dtype: DType,
    pub(crate) target: Target,
    pub(crate) rows: RowsSettings,
    pub(crate) features: Vec<Feature>,
    /// Instead of features: the same row for every record.
    pub(crate) constant: Option<Tensor>,
    pub(crate) scale: Option<Scale>,
    pub(crate) unknown: Unknown,
    pub(crate) missing: Option<Value>,
    /// What the model takes where its only field is missing.
    pub(crate) default: Option<Tensor>,
    pub(crate) max_elements: usize,
}

/// An input of a record.
pub(crate) struct Made {
    pub(crate) tensor: Tensor,
    /// `None` if it says nothing of the number of rows.
    pub(crate) rows: Option<Rows>,
}

impl Input {
    /// Makes the input; `find` gives the value of a place.
    pub(crate) fn make<'v>(&self, find: impl Fn(Place) -> Option<&'v Value>) -> Result<Made, Refused> {
        if let Some(constant) = &self.constant {
            return Ok(Made { tensor: constant.clone(), rows: None });
        }
        if let ([feature], Some(default), None) = (self.features.as_slice(), &self.default, &self.missing)
            && find(feature.place).is_none_or(|value| *value == Value::Null)
        {
            return Ok(Made { tensor: default.clone(), rows: None });
        }
        if let [feature] = self.features.as_slice()
            && let Some(Value::Tensor(tensor)) = find(feature.place)
            && tensor.dtype() == self.dtype
            && self.scale.is_none()
            && feature.one_hot.is_none()
        {
            let fit = self.fit(tensor.shape().dims(), feature)?;
            let tensor =
                tensor.reshape(fit.shape).map_err(|error| self.about(feature, &error.to_string()))?;
            return Ok(Made { tensor, rows: Some(fit.rows) });
        }
        let (tensor, rows) = with_cell!(self.dtype, Elem => self.collect::<Elem>(&find), {
            Err(Refused::shape(format!("input `{}`: {} is not made from fields", self.name, self.dtype)))
        })?;
        Ok(Made { tensor, rows: Some(rows) })
    }

    /// The number of rows, as [`Input::make`] would find it; `None` if the input says nothing of it.
    pub(crate) fn rows<'v>(&self, find: impl Fn(Place) -> Option<&'v Value>) -> Option<Rows> {
        if self.constant.is_some() {
            return None;
        }
        match self.features.as_slice() {
            [feature] if feature.one_hot.is_none() => {
                let value = find(feature.place).filter(|value| **value != Value::Null);
                match value {
                    None if self.missing.is_some() => Some(Rows { n: 1, is_list: false }),
                    None => None,
                    Some(value) => {
                        let lens = lens(value);
                        self.target.fit(&lens, self.rows).ok().map(|fit| fit.rows)
                    }
                }
            }
            [feature, ..] if self.rows == RowsSettings::Many => {
                let n = lens(find(feature.place)?).first().copied()?;
                Some(Rows { n, is_list: true })
            }
            _ => Some(Rows { n: 1, is_list: false }),
        }
    }

    fn collect<'v, C: Cell>(
        &self,
        find: &impl Fn(Place) -> Option<&'v Value>,
    ) -> Result<(Tensor, Rows), Refused> {
        let mut cells: Vec<C> = Vec::new();
        if let [feature] = self.features.as_slice()
            && feature.one_hot.is_none()
        {
            let flat = self.flat(feature, find(feature.place))?;
            let fit = self.fit(&flat.lens, feature)?;
            self.check_size(flat.n())?;
            cells.reserve_exact(flat.n());
            self.push(&flat, 0, feature, &mut cells)?;
            let tensor =
                C::tensor(fit.shape, cells).map_err(|error| self.about(feature, &error.to_string()))?;
            return Ok((tensor, fit.rows));
        }
        let flats: Result<Vec<Flat<'_>>, Refused> =
            self.features.iter().map(|feature| self.flat(feature, find(feature.place))).collect();
        let flats = flats?;
        let n_rows = self.n_rows(&flats)?;
        self.check_size(flats.iter().zip(&self.features).map(|(flat, feature)| feature.n(flat.n())).sum())?;
        for row in 0..n_rows {
            let start = cells.len();
            for (feature, flat) in self.features.iter().zip(&flats) {
                let n = flat.n() / n_rows;
                let part = if n_rows == 1 { Cow::Borrowed(flat) } else { Cow::Owned(flat.part(row * n, n)) };
                match &feature.one_hot {
                    None => self.push(&part, cells.len() - start, feature, &mut cells)?,
                    Some(categories) => self.push_one_hot(&part, categories, feature, &mut cells)?,
                }
            }
        }
        let first = &self.features[0];
        let width = cells.len() / n_rows;
        let is_list = self.rows == RowsSettings::Many;
        let lens: &[usize] = if is_list { &[n_rows, width] } else { &[width] };
        let fit = self.target.fit(lens, self.rows).map_err(|expected| {
            let (n, name) = (self.features.len(), &self.name);
            Refused::shape(format!(
                "input `{name}`: its {n} fields give {width} elements, expected {expected}"
            ))
        })?;
        let tensor = C::tensor(fit.shape, cells).map_err(|error| self.about(first, &error.to_string()))?;
        Ok((tensor, Rows { n: n_rows, is_list }))
    }

    /// How many rows several fields give.
    fn n_rows(&self, flats: &[Flat<'_>]) -> Result<usize, Refused> {
        if self.rows != RowsSettings::Many {
            return Ok(1);
        }
        let mut n_rows = None;
        for (flat, feature) in flats.iter().zip(&self.features) {
            let n = flat.lens.first().copied().filter(|&n| n > 0);
            let n = n.ok_or_else(|| self.about(feature, "it is no list of rows"))?;
            if n != *n_rows.get_or_insert(n) {
                let expected = n_rows.unwrap_or(n);
                return Err(
                    self.about(feature, &format!("it has {n} rows, the fields before it have {expected}"))
                );
            }
        }
        Ok(n_rows.unwrap_or(1))
    }

    fn check_size(&self, n: usize) -> Result<(), Refused> {
        if n > self.max_elements {
            let (name, max) = (&self.name, self.max_elements);
            return Err(Refused::too_large(format!(
                "input `{name}`: {n} elements, at most {max} are allowed"
            )));
        }
        Ok(())
    }

    fn fit(&self, lens: &[usize], feature: &Feature) -> Result<fit::Fit, Refused> {
        self.target.fit(lens, self.rows).map_err(|expected| {
            self.about(feature, &format!("it has {}, expected {expected}", fit::show_lens(lens)))
        })
    }

    #[cold]
    fn about(&self, feature: &Feature, what: &str) -> Refused {
        Refused::shape(format!("field `{}`, for input `{}`: {what}", feature.name, self.name))
    }

    fn flat<'v>(&'v self, feature: &Feature, value: Option<&'v Value>) -> Result<Flat<'v>, Refused> {
        match value {
            None | Some(Value::Null) => match &self.missing {
                Some(missing) => {
                    Ok(Flat { lens: Lens::new(), items: Items::Values(SmallVec::from_slice(&[missing])) }
                        .repeated(self.missing_lens(feature)))
                }
                None if feature.one_hot.is_some() && self.unknown == Unknown::Zeros => Ok(Flat {
                    lens: Lens::new(),
                    items: Items::Values(SmallVec::from_slice(&[&Value::Null])),
                }),
                None => {
                    let what = if value.is_none() { "it is missing" } else { "it is null" };
                    Err(self.about(feature, &format!("{what}, and no value for missing fields is set")))
                }
            },
            Some(Value::Tensor(tensor)) => {
                let numbers = tensor_numbers(tensor)
                    .ok_or_else(|| self.about(feature, &format!("its type is {}", tensor.dtype())))?;
                let items = match numbers {
                    Numbers::Floats(numbers) => Items::Floats(Cow::Owned(numbers)),
                    Numbers::Ints(numbers) => Items::Ints(Cow::Owned(numbers)),
                };
                Ok(Flat { lens: Lens::from_slice(tensor.shape().dims()), items })
            }
            Some(Value::Array(array)) => {
                let items = match &array.numbers {
                    Numbers::Floats(numbers) => Items::Floats(Cow::Borrowed(numbers)),
                    Numbers::Ints(numbers) => Items::Ints(Cow::Borrowed(numbers)),
                };
                Ok(Flat { lens: array.lens.clone(), items })
            }
            Some(value @ Value::List(_)) => {
                let mut items = SmallVec::new();
                let lens = lens(value);
                if !flatten(value, &lens, &mut items) {
                    return Err(self.about(feature, "its lists have different lengths"));
                }
                Ok(Flat { lens, items: Items::Values(items) })
            }
            Some(value) => {
                Ok(Flat { lens: Lens::new(), items: Items::Values(SmallVec::from_slice(&[value])) })
            }
        }
    }

    /// The lengths that a missing field has: a whole row where it is the only field and the row's size is known.
    fn missing_lens(&self, feature: &Feature) -> Lens {
        match self.features.as_slice() {
            [_] if feature.one_hot.is_none() => self.target.row_lens().unwrap_or_default(),
            _ => Lens::new(),
        }
    }

    /// Appends the elements, scaled; `at` is the place in the row of the first.
    fn push<C: Cell>(
        &self,
        flat: &Flat<'_>,
        at: usize,
        feature: &Feature,
        into: &mut Vec<C>,
    ) -> Result<(), Refused> {
        let wrong = |value: Value| self.wrong(feature, &value);
        match (&flat.items, &self.scale) {
            (Items::Floats(numbers), None) => {
                C::push_floats(numbers, into).map_err(|index| wrong(Value::Float(numbers[index])))
            }
            (Items::Floats(numbers), Some(scale)) => {
                for (i, &number) in numbers.iter().enumerate() {
                    let scaled = scale.apply(number, at + i).map(Value::Float);
                    let cell = scaled.as_ref().and_then(C::of);
                    into.push(cell.ok_or_else(|| wrong(scaled.unwrap_or(Value::Float(number))))?);
                }
                Ok(())
            }
            (Items::Ints(numbers), scale) => {
                for (i, &number) in numbers.iter().enumerate() {
                    let value = Value::Int(i128::from(number));
                    let scaled = match scale {
                        Some(scale) => {
                            as_float(&value).and_then(|x| scale.apply(x, at + i)).map(Value::Float)
                        }
                        None => Some(value.clone()),
                    };
                    let cell = scaled.as_ref().and_then(C::of);
                    into.push(cell.ok_or_else(|| wrong(scaled.unwrap_or(value)))?);
                }
                Ok(())
            }
            (Items::Values(values), scale) => {
                for (i, &value) in values.iter().enumerate() {
                    let value = match (value, &self.missing) {
                        (Value::Null, Some(missing)) => missing,
                        (Value::Null, None) => {
                            let what = "it has a null, and no value for missing fields is set";
                            return Err(self.about(feature, what));
                        }
                        (value, _) => value,
                    };
                    let cell = match (scale, as_float(value)) {
                        (Some(scale), Some(x)) => {
                            scale.apply(x, at + i).map(Value::Float).as_ref().and_then(C::of)
                        }
                        _ => C::of(value),
                    };
                    into.push(cell.ok_or_else(|| self.wrong(feature, value))?);
                }
                Ok(())
            }
        }
    }

    fn push_one_hot<C: Cell>(
        &self,
        flat: &Flat<'_>,
        categories: &[Value],
        feature: &Feature,
        into: &mut Vec<C>,
    ) -> Result<(), Refused> {
        let column =
            |value: i128| C::of(&Value::Int(value)).ok_or_else(|| self.wrong(feature, &Value::Int(value)));
        let (zero, one) = (column(0)?, column(1)?);
        for value in flat.values() {
            let value = match (&*value, &self.missing) {
                (Value::Null, Some(missing)) => Cow::Borrowed(missing),
                _ => value,
            };
            let hot = categories.iter().position(|category| equal(category, &value));
            if hot.is_none() && self.unknown == Unknown::Refuse {
                let n = categories.len();
                let what = format!("{}, expected one of its {n} categories", describe(&value));
                return Err(self.about(feature, &what));
            }
            into.extend(
                (0..categories.len()).map(|i| if Some(i) == hot { one.clone() } else { zero.clone() }),
            );
        }
        Ok(())
    }

    #[cold]
    fn wrong(&self, feature: &Feature, value: &Value) -> Refused {
        let expected = match self.dtype {
            DType::String => "text",
            DType::Bool => "true or false",
            DType::F16 | DType::BF16 | DType::F32 | DType::F64 => "a number that fits",
            _ => "a whole number that fits",
        };
        self.about(feature, &format!("{}, expected {expected} ({})", describe(value), self.dtype))
    }
}

impl Feature {
    /// How many columns so many values take.
    fn n(&self, n_values: usize) -> usize {
        n_values.saturating_mul(self.one_hot.as_ref().map_or(1, Vec::len))
    }
}

/// The number that a value is. Whole numbers are rounded to the nearest double.
#[expect(clippy::cast_precision_loss, reason = "rounds to nearest, as documented")]
pub(crate) fn as_float(value: &Value) -> Option<f64> {
    match value {
        Value::Int(number) => Some(*number as f64),
        Value::Float(number) => Some(*number),
        Value::Bool(value) => Some(f64::from(u8::from(*value))),
        _ => None,
    }
}

/// Whether two values are the same; numbers are, whatever they were written as.
pub(crate) fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Int(a), Value::Int(b)) => a == b,
        (Value::Int(_) | Value::Float(_), Value::Int(_) | Value::Float(_)) => as_float(a) == as_float(b),
        (Value::Bytes(bytes), Value::Text(text)) | (Value::Text(text), Value::Bytes(bytes)) => {
            text.as_bytes() == &bytes[..]
        }
        _ => a == b,
    }
}

/// A value for a message.
#[cold]
pub(crate) fn describe(value: &Value) -> String {
    match value {
        Value::Text(text) => format!("`{}` is text", show(text.as_bytes())),
        Value::Int(number) => format!("{number} is a whole number"),
        Value::Float(number) => format!("{number} is a number"),
        Value::Bool(value) => format!("{value} is a boolean"),
        other => format!("it is {}", other.what()),
    }
}
