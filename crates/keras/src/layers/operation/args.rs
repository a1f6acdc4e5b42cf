//! The arguments of an operation, and which of them were understood.

use std::cell::RefCell;
use std::collections::BTreeSet;

use salver_graph::{Error, ValueId};
use salver_tensor::{DType, Shape, Tensor};
use serde_json::Value as Json;

use crate::architecture::Layer;
use crate::config;
use crate::emit::Emit;
use crate::layers::merge;
use crate::network::{Given, Inputs};

/// The arguments of an operation: those of the call, then those that it was made with.
pub(super) struct Args<'a> {
    pub(super) layer: &'a Layer,
    pub(super) inputs: &'a Inputs,
    pub(super) dtype: DType,
    /// Whether it is a function of TensorFlow, whose defaults differ from those of Keras.
    pub(super) tensorflow: bool,
    read: RefCell<BTreeSet<String>>,
    read_at: RefCell<BTreeSet<usize>>,
}

/// Which dimensions an operation is over.
pub(super) enum Axis {
    /// Nothing is said.
    Missing,
    /// `None` is said, or is the default of Keras.
    Null,
    These(Vec<i64>),
}

impl<'a> Args<'a> {
    pub(super) fn new(layer: &'a Layer, inputs: &'a Inputs, dtype: DType, tensorflow: bool) -> Args<'a> {
        Args { layer, inputs, dtype, tensorflow, read: RefCell::default(), read_at: RefCell::default() }
    }

    /// An argument by position or by one of its names, also where it is `null`. What is found counts as read.
    fn raw(&self, at: usize, names: &[&str]) -> Option<Given> {
        let mut found: Vec<(Option<&str>, Given)> = Vec::new();
        for &name in names {
            let named = self.inputs.kwargs.iter().find(|(key, _)| key == name);
            found.extend(named.map(|(_, given)| (Some(name), given.clone())));
        }
        found.extend(self.inputs.args.get(at).map(|given| (None, given.clone())));
        for &name in names {
            found.extend(self.layer.config.raw(name).map(|json| (Some(name), Given::Json(json.clone()))));
        }
        let chosen = found.iter().position(|(_, given)| !given.is_null()).unwrap_or(0);
        let (name, given) = found.into_iter().nth(chosen)?;
        match name {
            Some(name) => self.read.borrow_mut().insert(name.to_owned()),
            None => self.read_at.borrow_mut().insert(at),
        };
        Some(given)
    }

    pub(super) fn given(&self, at: usize, names: &[&str]) -> Option<Given> {
        self.raw(at, names).filter(|given| !given.is_null())
    }

    /// All arguments by position, which count as read.
    pub(super) fn positional(&self) -> &[Given] {
        self.read_at.borrow_mut().extend(0..self.inputs.args.len());
        &self.inputs.args
    }

    /// Refuses an argument that was not read: it would change the result unnoticed. `results` are the operation's.
    pub(super) fn refuse_unread(&self, cx: &Emit, name: &str, results: &[ValueId]) -> Result<(), Error> {
        let refused = |argument: &str| {
            Err(Error::unsupported(format!(
                "the argument {argument} of the operation '{name}': export the model as a SavedModel (model.export)"
            )))
        };
        let (read, read_at) = (self.read.borrow(), self.read_at.borrow());
        for (at, given) in self.inputs.args.iter().enumerate() {
            if !given.is_null() && !read_at.contains(&at) {
                return refused(&format!("number {at}"));
            }
        }
        let has_dtype = |json: &Json| {
            json.as_str().is_some_and(|name| results.iter().all(|&id| cx.dtype(id).name() == name))
        };
        for (key, given) in &self.inputs.kwargs {
            let json = given.json();
            let plain = json.as_ref().is_some_and(|json| {
                is_default(key, json) || matches!(key.as_str(), "dtype" | "out_type") && has_dtype(json)
            });
            if !(given.is_null() || read.contains(key) || plain) {
                return refused(&format!("'{key}'"));
            }
        }
        for (key, json) in self.layer.config.entries() {
            // The type of TensorFlow's functions is that of the wrapper, an object is a policy.
            let own_type = key == "dtype" && (self.tensorflow || json.is_object() || has_dtype(json));
            let own = own_type || matches!(key, "function" | "trainable" | "__build_shape" | "autocast");
            if !(json.is_null() || own || read.contains(key) || is_default(key, json)) {
                return refused(&format!("'{key}'"));
            }
        }
        Ok(())
    }

    pub(super) fn json(&self, at: usize, names: &[&str]) -> Result<Option<Json>, Error> {
        let Some(given) = self.given(at, names) else { return Ok(None) };
        let computed = || Error::unsupported(format!("the argument '{}' that is computed", names[0]));
        given.json().map(Some).ok_or_else(computed)
    }

    pub(super) fn ints(&self, at: usize, names: &[&str]) -> Result<Option<Vec<i64>>, Error> {
        let Some(json) = self.json(at, names)? else { return Ok(None) };
        config::ints(&json)
            .map(Some)
            .ok_or_else(|| Error::invalid(format!("{} is {json}, expected integers", names[0])))
    }

    /// The dimensions that the operation is over.
    pub(super) fn axis(&self, at: usize) -> Result<Axis, Error> {
        const NAMES: &[&str] = &["axis", "dim", "dimension"];
        match self.raw(at, NAMES) {
            None => Ok(Axis::Missing),
            Some(given) if given.is_null() => Ok(Axis::Null),
            Some(_) => Ok(self.ints(at, NAMES)?.map_or(Axis::Null, Axis::These)),
        }
    }

    /// One dimension; `None` where the operation is over the flattened tensor. TensorFlow's functions have a default
    /// instead of that.
    pub(super) fn one_axis(&self, at: usize, default: i64) -> Result<Option<i64>, Error> {
        match self.axis(at)? {
            Axis::These(axes) => match axes[..] {
                [axis] => Ok(Some(axis)),
                _ => Err(Error::invalid(format!("axis is {axes:?}, expected one"))),
            },
            _ if self.tensorflow => Ok(Some(default)),
            Axis::Missing | Axis::Null => Ok(None),
        }
    }

    pub(super) fn int(&self, at: usize, names: &[&str], default: i64) -> Result<i64, Error> {
        let Some(json) = self.json(at, names)? else { return Ok(default) };
        config::int(&json)
            .ok_or_else(|| Error::invalid(format!("{} is {json}, expected an integer", names[0])))
    }

    pub(super) fn float(&self, at: usize, names: &[&str], default: f64) -> Result<f64, Error> {
        let Some(json) = self.json(at, names)? else { return Ok(default) };
        config::float(&json)
            .ok_or_else(|| Error::invalid(format!("{} is {json}, expected a number", names[0])))
    }

    pub(super) fn flag(&self, at: usize, names: &[&str], default: bool) -> Result<bool, Error> {
        let Some(json) = self.json(at, names)? else { return Ok(default) };
        json.as_bool()
            .ok_or_else(|| Error::invalid(format!("{} is {json}, expected true or false", names[0])))
    }

    pub(super) fn text(&self, at: usize, names: &[&str]) -> Result<Option<String>, Error> {
        let Some(json) = self.json(at, names)? else { return Ok(None) };
        let text = json.as_str().map(|text| Some(text.to_owned()));
        text.ok_or_else(|| Error::invalid(format!("{json}, expected a text")))
    }

    /// The first argument as a tensor.
    pub(super) fn x(&self, cx: &mut Emit) -> Result<ValueId, Error> {
        self.x_or(
            cx,
            &[
                "x",
                "inputs",
                "input",
                "input_tensor",
                "tensor",
                "features",
                "logits",
                "images",
                "x1",
                "value",
                "a",
            ],
        )
    }

    /// The first argument, by other names.
    pub(super) fn x_or(&self, cx: &mut Emit, names: &[&str]) -> Result<ValueId, Error> {
        let first = self.given(0, names).ok_or_else(|| Error::invalid("an operation without a tensor"))?;
        operand(cx, &first, None, self.dtype)
    }

    /// Two tensors, numbers as the type of the other.
    pub(super) fn pair(&self, cx: &mut Emit) -> Result<[ValueId; 2], Error> {
        let missing = || Error::invalid("an operation without its second tensor");
        let first = self.given(0, &["x1", "x", "a", "value"]).ok_or_else(missing)?;
        let second = self.given(1, &["x2", "y", "b", "bias"]).ok_or_else(missing)?;
        let a_like = first.tensor().map(|value| value.id);
        let b_like = second.tensor().map(|value| value.id);
        let mut pair = [operand(cx, &first, b_like, self.dtype)?, operand(cx, &second, a_like, self.dtype)?];
        merge::same_dtype(cx, &mut pair, self.dtype)?;
        Ok(pair)
    }

    /// The tensors of a list that is the first argument.
    pub(super) fn list(&self, cx: &mut Emit) -> Result<Vec<ValueId>, Error> {
        let Some(Given::List(list)) = self.given(0, &["xs", "inputs", "values", "x", "arrays"]) else {
            return Err(Error::invalid("an operation that needs a list of tensors"));
        };
        let like = list.iter().find_map(Given::tensor).map(|value| value.id);
        let mut ids =
            list.iter().map(|given| operand(cx, given, like, self.dtype)).collect::<Result<Vec<_>, _>>()?;
        merge::same_dtype(cx, &mut ids, self.dtype)?;
        Ok(ids)
    }
}

/// Arguments that say no more than their absence.
fn is_default(key: &str, json: &Json) -> bool {
    match key {
        "name" => true,
        "training" | "conjugate" | "validate_indices" | "a_is_sparse" | "b_is_sparse" | "grad_a"
        | "grad_b" => json.as_bool() == Some(false),
        "optimize" => json.as_bool() == Some(true),
        "data_format" => json.as_str().is_some_and(|name| matches!(name, "NHWC" | "N...C" | "channels_last")),
        _ => false,
    }
}

/// A tensor, or numbers as a constant of the type of `like`.
pub(super) fn operand(
    cx: &mut Emit,
    given: &Given,
    like: Option<ValueId>,
    float: DType,
) -> Result<ValueId, Error> {
    if let Some(value) = given.tensor() {
        return Ok(value.id);
    }
    let json =
        given.json().ok_or_else(|| Error::unsupported("an argument that is no tensor and no number"))?;
    if let Some(flag) = json.as_bool() {
        let tensor = Tensor::from_bools(Shape::scalar(), &[flag]);
        return Ok(cx.tensor("constant", tensor.map_err(|error| Error::invalid(error.to_string()))?));
    }
    let mut numbers = Vec::new();
    if !config::floats(&json, &mut numbers) {
        return Err(Error::unsupported(format!("the argument {json}")));
    }
    let dims = nested_dims(&json);
    let whole = numbers.iter().all(|number| number.fract() == 0.0) && !json.to_string().contains('.');
    let dtype = match like.map(|like| cx.dtype(like)) {
        Some(DType::Bool) | None => {
            if whole {
                DType::I32
            } else {
                float
            }
        }
        Some(dtype) if whole || matches!(dtype, DType::F16 | DType::BF16 | DType::F32 | DType::F64) => dtype,
        Some(_) => float,
    };
    cx.floats("constant", &dims, numbers, DType::F64).and_then(|id| cx.cast(id, dtype))
}

/// The dimensions of numbers in nested lists.
fn nested_dims(json: &Json) -> Vec<usize> {
    let mut dims = Vec::new();
    let mut at = config::plain(json);
    while let Some(list) = at.as_array() {
        dims.push(list.len());
        match list.first() {
            Some(first) => at = first,
            None => break,
        }
    }
    dims
}
