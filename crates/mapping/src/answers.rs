//! Outputs of a model to the fields of an answer.

mod elements;

use std::cmp::Ordering;
use std::sync::Arc;

use salver_tensor::{DType, Dims, Signature, Tensor};

use crate::Refused;
use crate::settings::{FieldSettings, NonFinite, Reduce};
use crate::value::{Array, Kind, Lens, Numbers, Value};

use elements::{Elements, string_value};

pub(crate) use elements::{tensor_numbers, tensor_value};

/// One field of an answer.
#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) name: Arc<str>,
    /// The output, by its place in the signature.
    pub(crate) output: usize,
    /// What a row of it becomes.
    pub(crate) kind: Kind,
    /// The lengths of its lists, if they are known.
    pub(crate) lens: Option<Lens>,
    output_name: Arc<str>,
    /// Whether the elements are strings of bytes.
    is_bytes: bool,
    op: Op,
    above: Option<f64>,
    decimals: Option<u8>,
    non_finite: NonFinite,
    /// Whether the output has a row for each row of the inputs.
    has_rows: bool,
}

#[derive(Debug)]
enum Op {
    Whole,
    Select(Vec<usize>),
    Argmax(Option<Vec<Arc<str>>>),
    TopK(usize, Option<Vec<Arc<str>>>),
    Reduce(Reduce, Option<usize>),
}

impl Field {
    /// A field that is an output as it is.
    pub(crate) fn whole(
        signature: &Signature,
        output: usize,
        non_finite: NonFinite,
    ) -> Result<Field, String> {
        let name = signature.outputs().get(output).map(|spec| spec.name.to_string());
        Field::new(&FieldSettings { output: name, ..FieldSettings::default() }, signature, non_finite)
    }

    pub(crate) fn new(
        settings: &FieldSettings,
        signature: &Signature,
        non_finite: NonFinite,
    ) -> Result<Field, String> {
        let output = find_output(settings, signature)?;
        let spec = &signature.outputs()[output];
        let name: Arc<str> = settings.name.as_deref().unwrap_or(&spec.name).into();
        let wrong = |what: String| format!("output.fields `{name}`: {what}");
        if matches!(spec.dtype, DType::C64 | DType::C128) {
            return Err(wrong(format!(
                "output `{}` has element type {}, which no format here writes",
                spec.name, spec.dtype
            )));
        }
        let has_rows = has_rows(signature, &spec.dims);
        let row = row_dims(&spec.dims, has_rows);
        let n_row = row.as_ref().and_then(|row| known(row)).map(|lens| lens.iter().product::<usize>());
        let op = find_op(settings, signature, n_row).map_err(&wrong)?;
        let is_number = spec.dtype != DType::String;
        if !is_number && !matches!(op, Op::Whole | Op::Select(_)) {
            return Err(wrong(format!("output `{}` holds strings, expected numbers", spec.name)));
        }
        let is_bytes = !is_number && spec.name.ends_with("_bytes");
        let single = if is_bytes { Kind::Bytes } else { scalar_kind(spec.dtype) };
        let rounded = match (&single, settings.decimals) {
            (Kind::Float | Kind::Double, Some(_)) => Kind::Double,
            (single, _) => single.clone(),
        };
        if settings.decimals.is_some_and(|decimals| decimals > 15) {
            return Err(wrong("decimals is above 15".into()));
        }
        let (mut kind, lens) = match &op {
            Op::Whole => {
                let rank = row.as_ref().map_or(0, Vec::len);
                let kind = (0..rank).fold(rounded, |kind, _| Kind::List(Box::new(kind)));
                (kind, row.as_ref().and_then(|row| known(row)))
            }
            Op::Select(indices) if indices.len() == 1 => (rounded, Some(Lens::new())),
            Op::Select(indices) => (Kind::List(Box::new(rounded)), Some(Lens::from_slice(&[indices.len()]))),
            Op::Argmax(labels) => (index_kind(labels.as_deref()), Some(Lens::new())),
            Op::TopK(k, labels) => {
                let named = if labels.is_some() { "label" } else { "index" };
                let members = vec![(named.into(), index_kind(labels.as_deref())), ("score".into(), rounded)];
                (Kind::List(Box::new(Kind::Map(members))), Some(Lens::from_slice(&[*k])))
            }
            Op::Reduce(..) => (Kind::Double, Some(Lens::new())),
        };
        if settings.above.is_some() {
            if !matches!(kind, Kind::Bool | Kind::Int | Kind::Long | Kind::Float | Kind::Double)
                || matches!(op, Op::Argmax(_))
            {
                return Err(wrong(
                    "`above` needs a single number: add `select` with one index, or `reduce`".into(),
                ));
            }
            kind = Kind::Bool;
        }
        let (above, decimals) = (settings.above, settings.decimals);
        let output_name = spec.name.clone();
        Ok(Field {
            name,
            output,
            kind,
            lens,
            output_name,
            is_bytes,
            op,
            above,
            decimals,
            non_finite,
            has_rows,
        })
    }

    /// Whether the field is the output as it is.
    pub(crate) fn is_whole(&self) -> bool {
        matches!(self.op, Op::Whole) && self.above.is_none() && self.decimals.is_none()
    }

    /// Whether the number of dimensions of a row is known.
    pub(crate) fn is_typed(&self, signature: &Signature) -> bool {
        !matches!(self.op, Op::Whole) || signature.outputs()[self.output].dims.known().is_some()
    }

    /// The field for a row of the output; `n_rows` is how many rows the inputs had.
    pub(crate) fn value(
        &self,
        output: &Tensor,
        row: usize,
        n_rows: usize,
        inputs: &[Tensor],
    ) -> Result<Value, Refused> {
        let part = self.row(output, row, n_rows)?;
        let value = match &self.op {
            Op::Whole => {
                tensor_value(&part).ok_or_else(|| self.wrong("it has an element type without values"))?
            }
            Op::Select(indices) => {
                let elements = self.elements(&part)?;
                let select = |&index: &usize| {
                    let n = elements.len();
                    let missing =
                        || self.wrong(&format!("a row has {n} elements, element {index} is wanted"));
                    elements.get(index).ok_or_else(missing)
                };
                match indices.as_slice() {
                    [index] => select(index)?,
                    indices => Value::List(indices.iter().map(select).collect::<Result<_, _>>()?),
                }
            }
            Op::Argmax(labels) => {
                let floats = self.elements(&part)?.floats();
                let best = self.order(&floats)?.first().copied();
                label(labels.as_deref(), best.ok_or_else(|| self.wrong("a row has no elements"))?)
            }
            Op::TopK(k, labels) => {
                let elements = self.elements(&part)?;
                let mut best = self.order(&elements.floats())?;
                best.truncate(*k);
                let named: Arc<str> = if labels.is_some() { "label".into() } else { "index".into() };
                let entry = |index: usize| {
                    let score = elements.get(index).map_or(Value::Null, |score| self.round(score));
                    Value::Map(vec![
                        (named.clone(), label(labels.as_deref(), index)),
                        ("score".into(), score),
                    ])
                };
                Value::List(best.into_iter().map(entry).collect())
            }
            Op::Reduce(reduce, against) => {
                Value::Float(self.reduce(*reduce, *against, &part, row, n_rows, inputs)?)
            }
        };
        if self.non_finite == NonFinite::Refuse && !is_finite(&value) {
            return Err(self.wrong("it has a number that is not finite"));
        }
        if let Some(above) = self.above {
            return Ok(Value::Bool(crate::inputs::as_float(&value).is_some_and(|number| number > above)));
        }
        Ok(if self.is_bytes { as_bytes(value) } else { self.round(value) })
    }

    fn row(&self, output: &Tensor, row: usize, n_rows: usize) -> Result<Tensor, Refused> {
        let shape = output.shape();
        if !self.has_rows || shape.rank() == 0 {
            return Ok(output.clone());
        }
        if shape.n_rows() != Some(n_rows) {
            return Err(
                self.wrong(&format!("it has shape {shape}, expected {n_rows} rows, as the inputs have"))
            );
        }
        let cut = output.rows(row, 1).and_then(|part| {
            let shape = salver_tensor::Shape::new(part.shape().row_dims()).ok()?;
            part.reshape(shape).ok()
        });
        cut.ok_or_else(|| self.wrong(&format!("row {row} is missing")))
    }

    fn elements(&self, part: &Tensor) -> Result<Elements, Refused> {
        let elements = match part.strings() {
            Some(strings) => Some(Elements::Strings(strings.iter().map(string_value).collect())),
            None => tensor_numbers(part).map(Elements::Numbers),
        };
        elements.ok_or_else(|| self.wrong("it has an element type without values"))
    }

    /// The numbers of the elements, largest first, equal ones in their own order. What is no number is left out.
    fn order(&self, floats: &[f64]) -> Result<Vec<usize>, Refused> {
        let mut order: Vec<usize> = (0..floats.len()).filter(|&index| !floats[index].is_nan()).collect();
        if order.is_empty() {
            return Err(self.wrong("a row has no number"));
        }
        let falling = |a: usize, b: usize| floats[b].partial_cmp(&floats[a]).unwrap_or(Ordering::Equal);
        order.sort_by(|&a, &b| falling(a, b).then(a.cmp(&b)));
        Ok(order)
    }

    fn reduce(
        &self,
        reduce: Reduce,
        against: Option<usize>,
        part: &Tensor,
        row: usize,
        n_rows: usize,
        inputs: &[Tensor],
    ) -> Result<f64, Refused> {
        let mut numbers = self.elements(part)?.floats();
        if let Some(against) = against {
            let input =
                inputs.get(against).ok_or_else(|| self.wrong("the input to compare with is missing"))?;
            let input = match input.shape().n_rows() {
                Some(n) if n == n_rows => input.rows(row, 1).unwrap_or_else(|| input.clone()),
                _ => input.clone(),
            };
            let expected = self.elements(&input)?.floats();
            if expected.len() != numbers.len() {
                let (got, n) = (numbers.len(), expected.len());
                return Err(
                    self.wrong(&format!("a row has {got} elements, the input to compare with has {n}"))
                );
            }
            numbers.iter_mut().zip(&expected).for_each(|(number, expected)| *number -= expected);
        }
        if numbers.is_empty() {
            return Err(self.wrong("a row has no elements"));
        }
        let n = count(numbers.len());
        let squares = || numbers.iter().map(|number| number * number).sum::<f64>();
        let sum = || numbers.iter().sum::<f64>();
        Ok(match reduce {
            Reduce::Mean => sum() / n,
            Reduce::Sum => sum(),
            Reduce::Min => numbers.iter().copied().fold(f64::INFINITY, least),
            Reduce::Max => numbers.iter().copied().fold(f64::NEG_INFINITY, largest),
            Reduce::Norm => squares().sqrt(),
            Reduce::Mse => squares() / n,
            Reduce::Rmse => (squares() / n).sqrt(),
            Reduce::Mae => numbers.iter().map(|number| number.abs()).sum::<f64>() / n,
            Reduce::MaxError => numbers.iter().map(|number| number.abs()).fold(0.0, largest),
        })
    }

    fn round(&self, value: Value) -> Value {
        let Some(decimals) = self.decimals else { return value };
        let power = 10f64.powi(i32::from(decimals));
        let round = |number: f64| {
            let rounded = (number * power).round() / power;
            if rounded.is_finite() { rounded } else { number }
        };
        match value {
            Value::Float(number) => Value::Float(round(number)),
            Value::List(items) => Value::List(items.into_iter().map(|item| self.round(item)).collect()),
            Value::Array(Array { lens, numbers: Numbers::Floats(numbers) }) => Value::Array(Array {
                lens,
                numbers: Numbers::Floats(numbers.into_iter().map(round).collect()),
            }),
            other => other,
        }
    }

    #[cold]
    fn wrong(&self, what: &str) -> Refused {
        Refused::shape(format!("output `{}`, for field `{}`: {what}", self.output_name, self.name))
    }
}

/// The smaller number; not-a-number if one of them is. `f64::min` would pass over it, and nobody would see that there was one.
fn least(a: f64, b: f64) -> f64 {
    if b < a || b.is_nan() { b } else { a }
}

/// The larger number; not-a-number if one of them is.
fn largest(a: f64, b: f64) -> f64 {
    if b > a || b.is_nan() { b } else { a }
}

fn find_output(settings: &FieldSettings, signature: &Signature) -> Result<usize, String> {
    let names = || {
        let names: Vec<&str> = signature.outputs().iter().map(|spec| &*spec.name).collect();
        names.join(", ")
    };
    match (&settings.output, signature.outputs()) {
        (Some(output), _) => signature
            .output_index(output)
            .ok_or_else(|| format!("output.fields: the model has no output `{output}`; it has {}", names())),
        (None, [_]) => Ok(0),
        (None, _) => Err(format!("output.fields: `output` is not set, expected one of {}", names())),
    }
}

fn find_op(settings: &FieldSettings, signature: &Signature, n_row: Option<usize>) -> Result<Op, String> {
    let FieldSettings { select, argmax, top_k, reduce, against, labels, .. } = settings;
    let n_ops = usize::from(select.is_some())
        + usize::from(*argmax)
        + usize::from(top_k.is_some())
        + usize::from(reduce.is_some());
    if n_ops > 1 {
        return Err("expected one of `select`, `argmax`, `top_k` and `reduce` at most".into());
    }
    if labels.is_some() && !argmax && top_k.is_none() {
        return Err("`labels` goes with `argmax` or `top_k`".into());
    }
    if let (Some(labels), Some(n)) = (labels, n_row)
        && labels.len() != n
    {
        return Err(format!("there are {} labels for rows of {n} elements", labels.len()));
    }
    let labels = labels.as_ref().map(|labels| labels.iter().map(|label| label.as_str().into()).collect());
    if against.is_some() && !reduce.is_some_and(compares) {
        return Err("`against` goes with `mse`, `rmse`, `mae` or `max_error`".into());
    }
    if let Some(select) = select {
        if select.is_empty() {
            return Err("`select` is empty".into());
        }
        if let Some(index) = select.iter().find(|&&index| n_row.is_some_and(|n| index >= n)) {
            return Err(format!("`select` wants element {index} of rows of {} elements", n_row.unwrap_or(0)));
        }
        return Ok(Op::Select(select.clone()));
    }
    if *argmax {
        return Ok(Op::Argmax(labels));
    }
    if let Some(k) = *top_k {
        let most = n_row.unwrap_or(usize::MAX);
        if k == 0 || k > most {
            return Err(format!("`top_k` is {k}, expected 1 to {most}"));
        }
        return Ok(Op::TopK(k, labels));
    }
    let Some(reduce) = *reduce else { return Ok(Op::Whole) };
    if !compares(reduce) {
        return Ok(Op::Reduce(reduce, None));
    }
    let input = match (against, signature.inputs()) {
        (Some(name), _) => {
            signature.input_index(name).ok_or_else(|| format!("the model has no input `{name}`"))?
        }
        (None, [_]) => 0,
        (None, _) => return Err("`against` is not set, expected one of the model's inputs".into()),
    };
    if signature.inputs()[input].dtype == DType::String {
        return Err(format!("input `{}` holds strings, expected numbers", signature.inputs()[input].name));
    }
    Ok(Op::Reduce(reduce, Some(input)))
}

/// Text as its bytes. Recursion ends with the dimensions of an output.
fn as_bytes(value: Value) -> Value {
    match value {
        Value::Text(text) => Value::Bytes(bytes::Bytes::copy_from_slice(text.as_bytes())),
        Value::List(items) => Value::List(items.into_iter().map(as_bytes).collect()),
        other => other,
    }
}

fn compares(reduce: Reduce) -> bool {
    matches!(reduce, Reduce::Mse | Reduce::Rmse | Reduce::Mae | Reduce::MaxError)
}

/// Whether an output has a row for each row of the inputs: neither does where no input has rows.
fn has_rows(signature: &Signature, dims: &Dims) -> bool {
    let may_have = |dims: &Dims| dims.known().is_none_or(|dims| matches!(dims, [None | Some(1), ..]));
    may_have(dims) && signature.inputs().iter().any(|input| may_have(&input.dims))
}

/// The dimensions of what a row becomes, or of all where there are no rows.
fn row_dims(dims: &Dims, has_rows: bool) -> Option<Vec<Option<usize>>> {
    let dims = dims.known()?;
    Some(if has_rows { dims.get(1..).unwrap_or_default().to_vec() } else { dims.to_vec() })
}

fn known(row: &[Option<usize>]) -> Option<Lens> {
    row.iter().copied().collect()
}

fn scalar_kind(dtype: DType) -> Kind {
    match dtype {
        DType::Bool => Kind::Bool,
        DType::I8 | DType::I16 | DType::I32 | DType::U8 | DType::U16 => Kind::Int,
        DType::I64 | DType::U32 | DType::U64 => Kind::Long,
        DType::F16 | DType::BF16 | DType::F32 => Kind::Float,
        DType::F64 | DType::C64 | DType::C128 => Kind::Double,
        DType::String => Kind::Text,
    }
}

fn index_kind(labels: Option<&[Arc<str>]>) -> Kind {
    if labels.is_some() { Kind::Text } else { Kind::Long }
}

fn label(labels: Option<&[Arc<str>]>, index: usize) -> Value {
    match labels.and_then(|labels| labels.get(index)) {
        Some(label) => Value::Text(label.clone()),
        None => Value::Int(index as i128),
    }
}

fn is_finite(value: &Value) -> bool {
    match value {
        Value::Float(number) => number.is_finite(),
        Value::Array(Array { numbers: Numbers::Floats(numbers), .. }) => {
            numbers.iter().all(|number| number.is_finite())
        }
        Value::List(items) => items.iter().all(is_finite),
        Value::Map(members) => members.iter().all(|(_, value)| is_finite(value)),
        _ => true,
    }
}

#[expect(clippy::cast_precision_loss, reason = "no tensor has 2^53 elements")]
fn count(n: usize) -> f64 {
    n as f64
}
