//! Which tasks can be joined, and which cost alike.

use salver_tensor::{Dims, Signature, Tensor};

use crate::pad::Fill;
use crate::{Batching, Padding, Refused, Task};

/// In place of a dimension that is filled up to the largest in the batch.
const LONGEST: usize = usize::MAX;

/// Tasks with equal keys may be joined: one signature, one choice of outputs, rows that have one shape, or are given one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) signature: usize,
    pub(crate) outputs: Vec<usize>,
    /// The shape that rows of each input are given, with a mark for what is filled up to the largest in the batch.
    row_dims: Vec<Vec<usize>>,
    /// What rows are filled up with, where they have to be.
    pub(crate) fill: Option<Fill>,
}

/// What kind of task it is: how it is joined, what it costs, how many rows it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Class {
    /// `None` when it must run alone.
    pub(crate) key: Option<Key>,
    pub(crate) kind: u32,
    /// 1 when it must run alone.
    pub(crate) n_rows: usize,
}

impl Key {
    /// The dimensions that rows of this input are given in this batch.
    pub(crate) fn row_dims(&self, input: usize, tensors: &[Tensor]) -> Vec<usize> {
        let wanted = self.row_dims.get(input).map_or(&[][..], Vec::as_slice);
        let longest = |at: usize| {
            let sizes = tensors.iter().filter_map(|tensor| tensor.shape().row_dims().get(at).copied());
            sizes.max().unwrap_or(0)
        };
        wanted.iter().enumerate().map(|(at, &dim)| if dim == LONGEST { longest(at) } else { dim }).collect()
    }
}

/// What kind of task this is.
///
/// # Errors
/// [`Refused::TooLarge`] and [`Refused::TooManyRows`] for more rows than a batch or a task may have.
pub(crate) fn classify(
    task: &Task,
    signature: Option<&Signature>,
    is_joinable: bool,
    batching: Option<&Batching>,
) -> Result<Class, Refused> {
    let alone = || Class {
        key: None,
        kind: kind(task.signature, true, task.inputs.iter().map(Tensor::n_bytes).sum()),
        n_rows: 1,
    };
    let (Some(batching), true, Some(n_rows)) = (batching, is_joinable, common_rows(&task.inputs)) else {
        return Ok(alone());
    };
    let most = match (batching.enable_large_batch_splitting, batching.max_task_rows) {
        (false, _) => batching.max_batch_size.get(),
        (true, most) => most.map_or(usize::MAX, std::num::NonZeroUsize::get),
    };
    if n_rows > most {
        let is_own = batching.enable_large_batch_splitting && batching.by_cost;
        return Err(match is_own {
            true => Refused::TooManyRows { n_rows, max_task_rows: most },
            false => Refused::TooLarge { n_rows, max_batch_size: most },
        });
    }
    let mut fill = None;
    let row_dims = task.inputs.iter().enumerate().map(|(at, input)| {
        let dims = signature.and_then(|signature| signature.inputs().get(at)).map(|spec| &spec.dims);
        padded(input, dims, &batching.padding, &mut fill)
    });
    let row_dims = row_dims.collect();
    let row_bytes = task.inputs.iter().map(|input| input.n_bytes() / n_rows).sum();
    let key = Key { signature: task.signature, outputs: task.outputs.clone(), row_dims, fill };
    Ok(Class { key: Some(key), kind: kind(task.signature, false, row_bytes), n_rows })
}

/// The dimensions that rows of this input are given.
fn padded(input: &Tensor, dims: Option<&Dims>, padding: &Padding, fill: &mut Option<Fill>) -> Vec<usize> {
    let own = input.shape().row_dims();
    let open = dims.and_then(Dims::known).and_then(|dims| dims.get(1..)).unwrap_or(&[]);
    let mut size_of = |at: usize, size: usize| {
        if open.get(at).copied() != Some(None) {
            return size;
        }
        match padding {
            Padding::Off => size,
            Padding::Longest => {
                *fill = Some(Fill::First);
                LONGEST
            }
            Padding::Buckets(sizes) => {
                *fill = Some(Fill::Zeros);
                sizes.iter().copied().find(|&bucket| bucket >= size).unwrap_or(size)
            }
        }
    };
    own.iter().enumerate().map(|(at, &size)| size_of(at, size)).collect()
}

/// Signature, whether it runs alone, and the size of a row (or of all) by powers of two: the number of rows alone would not
/// tell a long sequence from a short one.
pub(crate) fn kind(signature: usize, is_alone: bool, n_bytes: usize) -> u32 {
    let signature = u32::try_from(signature).unwrap_or(u32::MAX).min((1 << 24) - 1);
    let size = (usize::BITS - n_bytes.leading_zeros()).min(63);
    signature << 7 | u32::from(is_alone) << 6 | size
}

/// The mark of tasks that run although they are foreseen to be late, so that what is foreseen can be found wrong.
const PROBE: u32 = 1 << 31;

/// The same kind, but nothing is known of what it costs.
pub(crate) fn probe(kind: u32) -> u32 {
    kind | PROBE
}

/// The kind without that mark.
pub(crate) fn known(kind: u32) -> u32 {
    kind & !PROBE
}

/// The signature that a kind is of.
pub(crate) fn signature_of(kind: u32) -> usize {
    (kind >> 7) as usize
}

/// The number of rows that all inputs have; `None` when they differ or are none.
pub(crate) fn common_rows(inputs: &[Tensor]) -> Option<usize> {
    let n_rows = inputs.first()?.shape().n_rows().filter(|&n_rows| n_rows > 0)?;
    inputs.iter().all(|input| input.shape().n_rows() == Some(n_rows)).then_some(n_rows)
}

/// Whether the rows of several requests of this signature could be joined.
pub fn is_joinable(signature: &Signature) -> bool {
    let mut specs = signature.inputs().iter().chain(signature.outputs());
    !signature.inputs().is_empty() && !signature.keeps_state() && specs.all(|spec| spec.dims.has_open_rows())
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use salver_tensor::{DType, Shape, TensorSpec};

    use super::*;

    fn tensor(dims: &[usize]) -> Tensor {
        let shape = Shape::new(dims).unwrap();
        Tensor::from_vec(shape.clone(), vec![0f32; shape.n_elements()]).unwrap()
    }

    fn signature() -> Signature {
        let spec = TensorSpec {
            name: "x".into(),
            tensor_name: "x".into(),
            dtype: DType::F32,
            dims: Dims::new(vec![None, None, Some(2)]),
            default: None,
        };
        Signature::new("s", "m", vec![spec], vec![])
    }

    #[test]
    fn rows_of_one_shape_or_one_bucket_have_one_key() {
        let check = |padding: Padding, a: &[usize], b: &[usize], expected: bool| {
            let batching = Batching { padding: padding.clone(), ..Batching::default() };
            let class = |dims| {
                let task = Task::new(0, vec![tensor(dims)], vec![0]);
                classify(&task, Some(&signature()), true, Some(&batching)).unwrap().key
            };
            assert_eq!(class(a) == class(b), expected, "{padding:?} {a:?} {b:?}");
        };
        check(Padding::Off, &[1, 3, 2], &[2, 3, 2], true);
        check(Padding::Off, &[1, 3, 2], &[1, 4, 2], false);
        check(Padding::Longest, &[1, 3, 2], &[1, 4, 2], true);
        // Only open dimensions are filled up.
        check(Padding::Longest, &[1, 3, 2], &[1, 3, 3], false);
        check(Padding::Buckets(vec![4, 8]), &[1, 3, 2], &[1, 4, 2], true);
        check(Padding::Buckets(vec![4, 8]), &[1, 4, 2], &[1, 5, 2], false);
        check(Padding::Buckets(vec![4, 8]), &[1, 9, 2], &[1, 10, 2], false);
    }

    #[test]
    fn rows_have_a_bound() {
        let check = |is_split: bool, max_task_rows: Option<usize>, n_rows: usize, expected: Option<usize>| {
            let batching = Batching {
                max_batch_size: NonZeroUsize::new(4).unwrap(),
                enable_large_batch_splitting: is_split,
                max_task_rows: max_task_rows.and_then(NonZeroUsize::new),
                ..Batching::default()
            };
            let task = Task::new(0, vec![tensor(&[n_rows, 1, 2])], vec![0]);
            let refused = classify(&task, Some(&signature()), true, Some(&batching)).err();
            let expected = expected.map(|most| match is_split {
                true => Refused::TooManyRows { n_rows, max_task_rows: most },
                false => Refused::TooLarge { n_rows, max_batch_size: most },
            });
            assert_eq!(refused, expected, "{n_rows} rows");
        };
        check(false, None, 4, None);
        check(false, None, 5, Some(4));
        check(true, None, 1000, None);
        check(true, Some(8), 8, None);
        check(true, Some(8), 9, Some(8));
    }

    #[test]
    fn kinds_tell_signatures_and_sizes_apart() {
        let kinds = [kind(0, false, 8), kind(0, true, 8), kind(1, false, 8), kind(0, false, 16)];
        let distinct: std::collections::HashSet<u32> = kinds.into_iter().collect();
        assert_eq!(distinct.len(), kinds.len());
        assert_eq!(kind(0, false, 8), kind(0, false, 15));
        assert_eq!(kinds.map(signature_of), [0, 0, 1, 0]);
        assert_eq!(signature_of(kind(usize::MAX, true, usize::MAX)), (1 << 24) - 1);
    }
}
