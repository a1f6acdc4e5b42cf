//! Parsing of `tensorflow.Example` messages.

mod column;
mod config;

use bytes::Bytes;
use prost::Message as _;
use salver_tensor::{DType, Shape, Tensor};

use column::Column;
use config::{Config, Dense};

use super::tf_name;
use crate::Error;
use crate::call::Call;
use crate::generated::{Example, Feature, feature::Kind};
use crate::layout::output_shape;

/// Parses serialised examples into columns. A vector of them is a batch; a scalar is one example, whose columns lack
/// the batch dimension.
///
/// A serialised example may be several joined together: of features of one name the last counts.
pub(super) fn parse_example(call: &Call<'_>) -> Result<Vec<Tensor>, Error> {
    let config = Config::new(call)?;
    let serialised = call.strings(0)?;
    let shape = call.input(0)?.shape();
    if shape.rank() > 1 {
        let text = format!("Expected serialized to be a scalar or vector, got shape: {shape}");
        return Err(Error::invalid(text));
    }
    let single = shape.rank() == 0;
    let mut columns = Columns::new(&config);
    for (index, bytes) in serialised.iter().enumerate() {
        let place = if single { Place::Single } else { Place::Batch(index) };
        columns.add(&config, bytes, place)?;
    }
    columns.finish(&config, single)
}

/// Where an example lies, for messages.
#[derive(Clone, Copy)]
enum Place {
    Single,
    Batch(usize),
}

impl Place {
    fn about_key(self, key: &str, what: &str) -> Error {
        Error::invalid(match self {
            Place::Single => format!("Key: {key}.  {what}"),
            Place::Batch(index) => format!("Name: <unknown>, Key: {key}, Index: {index}.  {what}"),
        })
    }

    fn missing(self, key: &str, dtype: DType) -> Error {
        let dtype = tf_name(dtype);
        let name = match self {
            Place::Single => "",
            Place::Batch(_) => "Name: <unknown>, ",
        };
        Error::invalid(format!(
            "{name}Feature: {key} (data type: {dtype}) is required but could not be found."
        ))
    }
}

/// The values of all examples, one column for each key.
struct Columns {
    sparse: Vec<Column>,
    dense: Vec<Column>,
    ragged: Vec<Column>,
}

fn dtype_of(kind: &Kind) -> DType {
    match kind {
        Kind::BytesList(_) => DType::String,
        Kind::FloatList(_) => DType::F32,
        Kind::Int64List(_) => DType::I64,
    }
}

fn unmatched(place: Place, key: &str, expected: DType, got: DType) -> Error {
    let (expected, got) = (tf_name(expected), tf_name(got));
    place.about_key(key, &format!("Data types don't match. Expected type: {expected}, Actual type: {got}"))
}

impl Columns {
    fn new(config: &Config<'_>) -> Columns {
        let columns = |dtypes: &[DType]| dtypes.iter().map(|&dtype| Column::new(dtype)).collect();
        Columns {
            sparse: columns(config.sparse_types),
            dense: config.dense.iter().map(|dense| Column::new(dense.dtype)).collect(),
            ragged: columns(config.ragged_types),
        }
    }

    fn add(&mut self, config: &Config<'_>, bytes: &Bytes, place: Place) -> Result<(), Error> {
        let example = Example::decode(bytes.clone()).map_err(|_| unparsable(bytes))?;
        let features = example.features.unwrap_or_default().feature;
        // A feature of no kind is as good as none.
        let find = |key: &str| features.get(key).and_then(|Feature { kind }| kind.as_ref());
        let lists = [
            (&mut self.sparse, config.sparse_keys, config.sparse_types),
            (&mut self.ragged, config.ragged_keys, config.ragged_types),
        ];
        for (columns, keys, dtypes) in lists {
            for ((column, key), &dtype) in columns.iter_mut().zip(keys).zip(dtypes) {
                match find(key) {
                    Some(kind) if dtype_of(kind) != dtype => {
                        return Err(unmatched(place, key, dtype, dtype_of(kind)));
                    }
                    Some(kind) => column.push(kind),
                    None => column.push_none(),
                }
            }
        }
        // A feature of the wrong type is reported before one that is missing.
        for dense in &config.dense {
            find(dense.key).map_or(Ok(()), |kind| dense.check(kind, place))?;
        }
        for (column, dense) in self.dense.iter_mut().zip(&config.dense) {
            match (find(dense.key), dense.default) {
                (Some(kind), _) => column.push(kind),
                (None, _) if dense.variable => column.push_none(),
                (None, Some(default)) => column.push_default(default)?,
                (None, None) => return Err(place.missing(dense.key, dense.dtype)),
            }
        }
        Ok(())
    }

    fn finish(self, config: &Config<'_>, single: bool) -> Result<Vec<Tensor>, Error> {
        let mut indices = Vec::new();
        let mut shapes = Vec::new();
        for column in &self.sparse {
            indices.push(column.indices(single)?);
            shapes.push(column.shape(single)?);
        }
        let mut outputs = indices;
        for column in self.sparse {
            outputs.push(column.values()?);
        }
        outputs.extend(shapes);
        for (column, dense) in self.dense.into_iter().zip(&config.dense) {
            outputs.push(dense.tensor(column, single)?);
        }
        let mut splits = Vec::new();
        for (column, &dtype) in self.ragged.iter().zip(config.split_types) {
            splits.push(column.splits(dtype, single)?);
        }
        for column in self.ragged {
            outputs.push(column.values()?);
        }
        outputs.extend(splits);
        Ok(outputs)
    }
}

fn unparsable(bytes: &Bytes) -> Error {
    let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(1024)]);
    Error::invalid(format!("Could not parse example input, value: '{shown}'"))
}

impl Dense<'_> {
    fn check(&self, kind: &Kind, place: Place) -> Result<(), Error> {
        let got = dtype_of(kind);
        if got != self.dtype {
            let (expected, got) = (tf_name(self.dtype), tf_name(got));
            let what = format!("Data types don't match. Data type: {got} but expected type: {expected}");
            return Err(place.about_key(self.key, &what));
        }
        let (n, name) = match kind {
            Kind::BytesList(list) => (list.value.len(), "bytes"),
            Kind::FloatList(list) => (list.value.len(), "float"),
            Kind::Int64List(list) => (list.value.len(), "int64"),
        };
        let shape = self.shown();
        if self.variable && !n.is_multiple_of(self.stride) {
            let what = format!(
                "Number of {name} values is not a multiple of stride length. Saw {n} values but output shape is: {shape}"
            );
            return Err(place.about_key(self.key, &what));
        }
        if !self.variable && n != self.stride {
            let what =
                format!("Number of {name} values != expected.  Values size: {n} but output shape: {shape}");
            return Err(place.about_key(self.key, &what));
        }
        Ok(())
    }

    /// The column as a tensor; rows of different length are filled up with the default.
    fn tensor(&self, column: Column, single: bool) -> Result<Tensor, Error> {
        let mut dims = Vec::new();
        if !single {
            dims.push(column.n_rows());
        }
        if self.variable {
            dims.push(column.longest() / self.stride);
        }
        dims.extend(&self.dims);
        let shape: Shape = output_shape(self.dtype, &dims)?;
        if !self.variable {
            return column.tensor(shape);
        }
        let row = column.longest();
        column.padded(row, self.default)?.tensor(shape)
    }
}
