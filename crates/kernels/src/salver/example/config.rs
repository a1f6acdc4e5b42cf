//! What examples are parsed into.

use salver_tensor::{DType, Tensor};

use crate::Error;
use crate::call::Call;

/// The attributes of `ParseExample`, checked.
pub(super) struct Config<'a> {
    pub(super) sparse_keys: &'a [String],
    pub(super) sparse_types: &'a [DType],
    pub(super) dense: Vec<Dense<'a>>,
    pub(super) ragged_keys: &'a [String],
    pub(super) ragged_types: &'a [DType],
    pub(super) split_types: &'a [DType],
}

/// A feature that every example has as many values of as its shape says.
pub(super) struct Dense<'a> {
    pub(super) key: &'a str,
    pub(super) dtype: DType,
    /// The dimensions of one example, without an open first one.
    pub(super) dims: Vec<usize>,
    /// Whether examples may have any number of `dims`.
    pub(super) variable: bool,
    /// Values in `dims`.
    pub(super) stride: usize,
    /// What stands for a missing feature, or fills up a short one; `None` when the feature is required.
    pub(super) default: Option<&'a Tensor>,
}

impl<'a> Config<'a> {
    pub(super) fn new(call: &Call<'a>) -> Result<Config<'a>, Error> {
        let attributes = call.attributes;
        let sparse_keys = attributes.texts("sparse_keys")?.unwrap_or_default();
        let sparse_types = attributes.dtypes("sparse_types")?.unwrap_or_default();
        let ragged_keys = attributes.texts("ragged_keys")?.unwrap_or_default();
        let ragged_types = attributes.dtypes("ragged_value_types")?.unwrap_or_default();
        let split_types = attributes.dtypes("ragged_split_types")?.unwrap_or_default();
        same_length("sparse", sparse_keys.len(), sparse_types.len())?;
        same_length("ragged", ragged_keys.len(), ragged_types.len())?;
        same_length("ragged", ragged_keys.len(), split_types.len())?;
        for dtype in sparse_types.iter().chain(ragged_types) {
            is_feature_type(*dtype)?;
        }
        if let Some(other) = split_types.iter().find(|dtype| !matches!(dtype, DType::I32 | DType::I64)) {
            return Err(Error::invalid(format!("row splits are {other}, expected int32 or int64")));
        }
        let dense = dense(call)?;
        Ok(Config { sparse_keys, sparse_types, dense, ragged_keys, ragged_types, split_types })
    }
}

fn same_length(what: &str, keys: usize, types: usize) -> Result<(), Error> {
    match keys == types {
        true => Ok(()),
        false => Err(Error::invalid(format!("{keys} {what} keys with {types} types"))),
    }
}

fn is_feature_type(dtype: DType) -> Result<(), Error> {
    match dtype {
        DType::String | DType::F32 | DType::I64 => Ok(()),
        other => Err(Error::invalid(format!("a feature is {other}, expected string, float32 or int64"))),
    }
}

fn dense<'a>(call: &Call<'a>) -> Result<Vec<Dense<'a>>, Error> {
    let attributes = call.attributes;
    let keys = attributes.texts("dense_keys")?.unwrap_or_default();
    let types = attributes.dtypes("dense_types")?.unwrap_or_default();
    let ranks = attributes.ints("dense_ranks")?.unwrap_or_default();
    let mut dims = attributes.ints("dense_dims")?.unwrap_or_default();
    same_length("dense", keys.len(), types.len())?;
    same_length("dense", keys.len(), ranks.len())?;
    let mut all = Vec::with_capacity(keys.len());
    for (index, ((key, &dtype), &rank)) in keys.iter().zip(types).zip(ranks).enumerate() {
        is_feature_type(dtype)?;
        let n = usize::try_from(rank).ok().filter(|&rank| rank <= dims.len());
        let (own, rest) = dims.split_at(n.ok_or_else(|| Error::invalid("dense_dims ends too early"))?);
        dims = rest;
        all.push(Dense::new(call, index, key, dtype, own)?);
    }
    Ok(all)
}

impl<'a> Dense<'a> {
    fn new(
        call: &Call<'a>,
        index: usize,
        key: &'a str,
        dtype: DType,
        dims: &[i64],
    ) -> Result<Dense<'a>, Error> {
        let variable = dims.first() == Some(&-1);
        let fixed = &dims[usize::from(variable)..];
        let sizes: Option<Vec<usize>> = fixed.iter().map(|&dim| usize::try_from(dim).ok()).collect();
        let unknown = || Error::invalid(format!("dense feature '{key}' has dimensions {dims:?}"));
        let dims = sizes.ok_or_else(unknown)?;
        let stride = dims.iter().try_fold(1usize, |n, &dim| n.checked_mul(dim)).ok_or_else(unknown)?;
        if variable && stride == 0 {
            return Err(unknown());
        }
        let given = call.optional(1 + index).filter(|default| default.shape().n_elements() > 0 || variable);
        let dense = Dense { key, dtype, dims, variable, stride, default: given };
        dense.check_default(index)?;
        Ok(dense)
    }

    fn check_default(&self, index: usize) -> Result<(), Error> {
        let Some(default) = self.default else { return Ok(()) };
        let (got, shape) = (default.dtype(), self.shown());
        if got != self.dtype {
            let expected = self.dtype;
            return Err(Error::invalid(format!(
                "the default of '{}' is {got}, expected {expected}",
                self.key
            )));
        }
        if self.variable && default.shape().n_elements() != 1 {
            return Err(Error::invalid(format!(
                "dense_shape[{index}] is a variable length shape: {shape}, therefore def_value[{index}] must contain a \
                 single element (the padding element).  But its shape is: {}",
                default.shape()
            )));
        }
        if !self.variable && *default.shape().dims() != *self.dims {
            return Err(Error::invalid(format!(
                "def_value[{index}].shape() == {} is not compatible with dense_shapes_[{index}] == {shape}",
                default.shape()
            )));
        }
        Ok(())
    }

    /// The shape of one example as TensorFlow prints it: `[?,2]`.
    pub(super) fn shown(&self) -> String {
        let open = self.variable.then_some("?".to_owned());
        let dims: Vec<String> = open.into_iter().chain(self.dims.iter().map(usize::to_string)).collect();
        format!("[{}]", dims.join(","))
    }
}
