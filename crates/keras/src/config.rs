//! The JSON configuration of a layer, read with types.

use salver_graph::Error;
use salver_tensor::DType;
use serde_json::{Map, Value};

/// The largest size, count or factor that a configuration may say. Everything above is a mistake or an attack.
pub(crate) const MAX_SIZE: i64 = 1 << 31;

/// The `config` object of a layer. A key that is `null` is as one that is missing.
#[derive(Debug, Clone, Default)]
pub(crate) struct Config(Map<String, Value>);

impl Config {
    pub(crate) fn new(value: Map<String, Value>) -> Config {
        Config(value)
    }

    pub(crate) fn json(&self, key: &str) -> Option<&Value> {
        self.0.get(key).filter(|value| !value.is_null())
    }

    /// The value of a key, also where it is `null`.
    pub(crate) fn raw(&self, key: &str) -> Option<&Value> {
        self.0.get(key)
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value))
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        self.json(key).is_some()
    }

    pub(crate) fn set(&mut self, key: &str, value: Value) {
        self.0.insert(key.to_owned(), value);
    }

    pub(crate) fn take(&mut self, key: &str) -> Option<Value> {
        self.0.remove(key)
    }

    /// Gives a key another name, unless the new one is there.
    pub(crate) fn rename(&mut self, from: &str, to: &str) {
        if let Some(value) = self.0.remove(from) {
            self.0.entry(to.to_owned()).or_insert(value);
        }
    }

    pub(crate) fn opt_int(&self, key: &str) -> Result<Option<i64>, Error> {
        self.json(key).map(|value| int(value).ok_or_else(|| wrong(key, "an integer", value))).transpose()
    }

    pub(crate) fn int_or(&self, key: &str, default: i64) -> Result<i64, Error> {
        Ok(self.opt_int(key)?.unwrap_or(default))
    }

    pub(crate) fn int(&self, key: &str) -> Result<i64, Error> {
        self.opt_int(key)?.ok_or_else(|| missing(key))
    }

    /// A count or size from 1 on.
    pub(crate) fn size(&self, key: &str) -> Result<usize, Error> {
        let value = self.int(key)?;
        size(key, value)
    }

    pub(crate) fn size_or(&self, key: &str, default: usize) -> Result<usize, Error> {
        self.opt_int(key)?.map_or(Ok(default), |value| size(key, value))
    }

    pub(crate) fn opt_float(&self, key: &str) -> Result<Option<f64>, Error> {
        self.json(key).map(|value| float(value).ok_or_else(|| wrong(key, "a number", value))).transpose()
    }

    pub(crate) fn float_or(&self, key: &str, default: f64) -> Result<f64, Error> {
        Ok(self.opt_float(key)?.unwrap_or(default))
    }

    pub(crate) fn flag(&self, key: &str, default: bool) -> Result<bool, Error> {
        match self.json(key) {
            None => Ok(default),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(Value::Number(number)) => Ok(number.as_f64() != Some(0.0)),
            Some(other) => Err(wrong(key, "true or false", other)),
        }
    }

    pub(crate) fn opt_text(&self, key: &str) -> Result<Option<&str>, Error> {
        self.json(key).map(|value| value.as_str().ok_or_else(|| wrong(key, "a text", value))).transpose()
    }

    pub(crate) fn text_or<'a>(&'a self, key: &str, default: &'a str) -> Result<&'a str, Error> {
        Ok(self.opt_text(key)?.unwrap_or(default))
    }

    /// Integers: a list, or one integer alone.
    pub(crate) fn opt_ints(&self, key: &str) -> Result<Option<Vec<i64>>, Error> {
        self.json(key).map(|value| ints(value).ok_or_else(|| wrong(key, "integers", value))).transpose()
    }

    /// `n` counts from 1 on: a list of `n`, or one for all.
    pub(crate) fn sizes(&self, key: &str, n: usize, default: Option<usize>) -> Result<Vec<usize>, Error> {
        let Some(mut values) = self.opt_ints(key)? else {
            return default.map(|size| vec![size; n]).ok_or_else(|| missing(key));
        };
        if values.len() == 1 {
            values = vec![values[0]; n];
        }
        if values.len() != n {
            return Err(Error::invalid(format!("{key} has {} numbers, expected {n}", values.len())));
        }
        values.into_iter().map(|value| size(key, value)).collect()
    }

    pub(crate) fn opt_floats(&self, key: &str) -> Result<Option<Vec<f64>>, Error> {
        self.json(key)
            .map(|value| {
                let mut flat = Vec::new();
                floats(value, &mut flat).then_some(flat).ok_or_else(|| wrong(key, "numbers", value))
            })
            .transpose()
    }

    /// Whether the channels are the last dimension, as they are unless the configuration says otherwise.
    pub(crate) fn channels_last(&self) -> Result<bool, Error> {
        match self.text_or("data_format", "channels_last")? {
            "channels_last" | "None" => Ok(true),
            "channels_first" => Ok(false),
            other => Err(Error::invalid(format!(
                "data_format is '{other}', expected 'channels_last' or 'channels_first'"
            ))),
        }
    }
}

/// The list in an array that Keras wrote as an object with its class.
pub(crate) fn plain(value: &Value) -> &Value {
    match value.get("class_name").and_then(Value::as_str) {
        Some("__numpy__" | "__tensor__" | "__tuple__") => {
            let config = value.get("config").unwrap_or(value);
            config.get("value").unwrap_or(config)
        }
        _ if value.get("class_name").is_none() && value.get("type").is_some() => {
            value.get("value").unwrap_or(value)
        }
        _ => value,
    }
}

pub(crate) fn int(value: &Value) -> Option<i64> {
    match plain(value) {
        Value::Number(number) => number.as_i64().or_else(|| {
            let float = number.as_f64().filter(|float| float.fract() == 0.0 && float.abs() < 9e15)?;
            Some(float as i64)
        }),
        _ => None,
    }
}

pub(crate) fn float(value: &Value) -> Option<f64> {
    match plain(value) {
        Value::Number(number) => number.as_f64(),
        Value::Array(list) if list.len() == 1 => float(&list[0]),
        _ => None,
    }
}

pub(crate) fn ints(value: &Value) -> Option<Vec<i64>> {
    match plain(value) {
        Value::Array(list) => list.iter().map(int).collect(),
        other => int(other).map(|value| vec![value]),
    }
}

/// Flattens numbers in lists into `flat`; false when something else is among them. Depth is bounded by the parser.
pub(crate) fn floats(value: &Value, flat: &mut Vec<f64>) -> bool {
    match plain(value) {
        Value::Array(list) => list.iter().all(|item| floats(item, flat)),
        Value::Number(number) => {
            flat.extend(number.as_f64());
            true
        }
        _ => false,
    }
}

fn size(key: &str, value: i64) -> Result<usize, Error> {
    usize::try_from(value)
        .ok()
        .filter(|_| (1..=MAX_SIZE).contains(&value))
        .ok_or_else(|| Error::invalid(format!("{key} is {value}, expected 1 to {MAX_SIZE}")))
}

pub(crate) fn missing(key: &str) -> Error {
    Error::invalid(format!("the configuration has no {key}"))
}

fn wrong(key: &str, expected: &str, got: &Value) -> Error {
    let mut got = got.to_string();
    if got.len() > 80 {
        let end = (0..=80).rev().find(|&end| got.is_char_boundary(end)).unwrap_or(0);
        got.truncate(end);
        got.push_str("...");
    }
    Error::invalid(format!("{key} is {got}, expected {expected}"))
}

/// An element type by Keras' name.
pub(crate) fn dtype_named(name: &str) -> Result<DType, Error> {
    let found = DType::ALL.into_iter().find(|dtype| dtype.name() == name);
    found.ok_or_else(|| Error::unsupported(format!("element type '{name}'")))
}

/// What a layer computes with and gives back, of its dtype policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Policy {
    /// What it computes with here: float64 stays, smaller floats become float32.
    pub(crate) compute: DType,
    /// What Keras computes with and gives back.
    pub(crate) declared: DType,
}

impl Policy {
    /// Reads the `dtype` of a layer: a name, or a policy as an object.
    pub(crate) fn read(value: Option<&Value>) -> Result<Policy, Error> {
        let name = match value {
            None | Some(Value::Null) => "float32",
            Some(Value::String(name)) => name,
            Some(object) => {
                let class = object.get("class_name").and_then(Value::as_str).unwrap_or_default();
                if class.contains("Quantized") || class.contains("DTypePolicyMap") {
                    return Err(Error::unsupported(format!(
                        "dtype policy '{class}': save the model unquantised"
                    )));
                }
                let config = object.get("config").unwrap_or(object);
                config.get("name").and_then(Value::as_str).unwrap_or("float32")
            }
        };
        let declared = match name {
            "mixed_float16" => DType::F16,
            "mixed_bfloat16" => DType::BF16,
            // Keras 1 has no types; a policy may also be inferred.
            "_infer" | "floatx" => DType::F32,
            name => dtype_named(name)?,
        };
        let compute = match declared {
            DType::F64 => DType::F64,
            _ => DType::F32,
        };
        Ok(Policy { compute, declared })
    }
}
