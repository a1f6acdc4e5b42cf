//! The values of one feature, example by example.

use bytes::Bytes;
use salver_tensor::{DType, Shape, Tensor};

use crate::Error;
use crate::call::read;
use crate::generated::feature::Kind;
use crate::layout::{output_shape, scratch};

/// The values of one feature of all examples in a row, and where each example's end.
pub(super) struct Column {
    values: Values,
    ends: Vec<usize>,
}

enum Values {
    Strings(Vec<Bytes>),
    Floats(Vec<f32>),
    Ints(Vec<i64>),
}

impl Values {
    fn len(&self) -> usize {
        match self {
            Values::Strings(values) => values.len(),
            Values::Floats(values) => values.len(),
            Values::Ints(values) => values.len(),
        }
    }
}

impl Column {
    /// No examples yet; `dtype` is one of the three that a feature can have.
    pub(super) fn new(dtype: DType) -> Column {
        let values = match dtype {
            DType::String => Values::Strings(Vec::new()),
            DType::I64 => Values::Ints(Vec::new()),
            _ => Values::Floats(Vec::new()),
        };
        Column { values, ends: Vec::new() }
    }

    /// The values of the next example; they have the column's type.
    pub(super) fn push(&mut self, kind: &Kind) {
        match (&mut self.values, kind) {
            (Values::Strings(values), Kind::BytesList(list)) => values.extend_from_slice(&list.value),
            (Values::Floats(values), Kind::FloatList(list)) => values.extend_from_slice(&list.value),
            (Values::Ints(values), Kind::Int64List(list)) => values.extend_from_slice(&list.value),
            _ => {}
        }
        self.push_none();
    }

    /// The next example has no more values.
    pub(super) fn push_none(&mut self) {
        self.ends.push(self.values.len());
    }

    /// The next example has the values of a default, which has the column's type.
    pub(super) fn push_default(&mut self, default: &Tensor) -> Result<(), Error> {
        scratch(&[self.values.len().saturating_add(default.shape().n_elements())], size_of::<Bytes>())?;
        match (&mut self.values, default.dtype()) {
            (Values::Strings(values), _) => values.extend_from_slice(default.strings().unwrap_or_default()),
            (Values::Floats(values), DType::F32) => values.extend_from_slice(&read::<f32>(default)),
            (Values::Ints(values), DType::I64) => values.extend_from_slice(&read::<i64>(default)),
            _ => {}
        }
        self.push_none();
        Ok(())
    }

    pub(super) fn n_rows(&self) -> usize {
        self.ends.len()
    }

    fn rows(&self) -> impl Iterator<Item = std::ops::Range<usize>> + '_ {
        std::iter::once(&0).chain(&self.ends).zip(&self.ends).map(|(&start, &end)| start..end)
    }

    /// The most values that an example has.
    pub(super) fn longest(&self) -> usize {
        self.rows().map(|row| row.len()).max().unwrap_or(0)
    }

    /// The indices of a sparse tensor: example and position, or the position alone.
    pub(super) fn indices(&self, single: bool) -> Result<Tensor, Error> {
        let width = if single { 1 } else { 2 };
        let shape = output_shape(DType::I64, &[self.values.len(), width])?;
        let mut indices = Vec::with_capacity(shape.n_elements());
        for (row, values) in self.rows().enumerate() {
            for position in 0..values.len() {
                if !single {
                    indices.push(row as i64);
                }
                indices.push(position as i64);
            }
        }
        Ok(Tensor::from_vec(shape, indices)?)
    }

    /// The shape of a sparse tensor: examples and the longest one, or the latter alone.
    pub(super) fn shape(&self, single: bool) -> Result<Tensor, Error> {
        let (rows, longest) = (self.n_rows() as i64, self.longest() as i64);
        let dims = if single { vec![longest] } else { vec![rows, longest] };
        Ok(Tensor::from_vec(Shape::vector(dims.len())?, dims)?)
    }

    /// The row splits of a ragged tensor; a single example has none.
    pub(super) fn splits(&self, dtype: DType, single: bool) -> Result<Tensor, Error> {
        let splits: Vec<usize> = match single {
            true => Vec::new(),
            false => std::iter::once(0).chain(self.ends.iter().copied()).collect(),
        };
        let shape = Shape::vector(splits.len())?;
        if dtype == DType::I64 {
            return Ok(Tensor::from_vec(shape, splits.iter().map(|&at| at as i64).collect())?);
        }
        let narrow: Result<Vec<i32>, _> = splits.iter().map(|&at| i32::try_from(at)).collect();
        let narrow = narrow.map_err(|_| Error::too_large("row splits do not fit in int32"))?;
        Ok(Tensor::from_vec(shape, narrow)?)
    }

    /// All values in a row.
    pub(super) fn values(self) -> Result<Tensor, Error> {
        let shape = Shape::vector(self.values.len())?;
        self.tensor(shape)
    }

    /// All values under a shape.
    pub(super) fn tensor(self, shape: Shape) -> Result<Tensor, Error> {
        Ok(match self.values {
            Values::Strings(values) => Tensor::from_strings(shape, values)?,
            Values::Floats(values) => Tensor::from_vec(shape, values)?,
            Values::Ints(values) => Tensor::from_vec(shape, values)?,
        })
    }

    /// Every row filled up to `len` values with a default, or with nothing if there is none. The caller has checked
    /// that so many values fit in memory.
    pub(super) fn padded(self, len: usize, default: Option<&Tensor>) -> Result<Column, Error> {
        let rows: Vec<_> = self.rows().collect();
        let ends = (1..=rows.len()).map(|row| row * len).collect();
        let values = match self.values {
            Values::Strings(values) => {
                let filler = default.and_then(Tensor::strings).and_then(|all| all.first()).cloned();
                Values::Strings(pad(&values, &rows, len, &filler.unwrap_or_default()))
            }
            Values::Floats(values) => {
                let filler = default.and_then(Tensor::to_slice::<f32>).and_then(|all| all.first().copied());
                Values::Floats(pad(&values, &rows, len, &filler.unwrap_or_default()))
            }
            Values::Ints(values) => {
                let filler = default.and_then(Tensor::to_slice::<i64>).and_then(|all| all.first().copied());
                Values::Ints(pad(&values, &rows, len, &filler.unwrap_or_default()))
            }
        };
        Ok(Column { values, ends })
    }
}

fn pad<T: Clone>(values: &[T], rows: &[std::ops::Range<usize>], len: usize, filler: &T) -> Vec<T> {
    let mut padded = Vec::with_capacity(rows.len() * len);
    for row in rows {
        padded.extend_from_slice(&values[row.clone()]);
        padded.extend(std::iter::repeat_n(filler, len - row.len()).cloned());
    }
    padded
}
