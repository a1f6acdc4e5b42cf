//! Requests and the reference's answers, joined to batches of any size.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;

use salver_tensor::{DType, Signature, Tensor};

use crate::Request;

/// Batches of one size made of one group at most: enough that not all runs see the same numbers.
const MAX_BATCHES: usize = 8;

/// Groups that are measured at most, those with the most rows.
const MAX_GROUPS: usize = 16;

/// A request and what the reference answered.
#[derive(Debug, Clone)]
pub(crate) struct Answered {
    pub(crate) request: Request,
    pub(crate) answers: Vec<Tensor>,
}

/// What one run is given.
#[derive(Debug, Clone)]
pub(crate) struct Batch {
    pub(crate) signature: Arc<str>,
    pub(crate) inputs: Vec<Tensor>,
    pub(crate) expected: Vec<Tensor>,
    pub(crate) n_rows: usize,
}

/// Requests whose rows may be joined, joined.
#[derive(Debug)]
struct Group {
    signature: Arc<str>,
    inputs: Vec<Tensor>,
    answers: Vec<Tensor>,
    n_rows: NonZeroUsize,
}

/// All that is asked while time is taken.
#[derive(Debug, Default)]
pub(crate) struct Feed {
    groups: Vec<Group>,
    /// Requests that run as they are and alone.
    alone: Vec<Batch>,
}

/// What must be equal for rows to be joined: signature, element types and row shapes of inputs and outputs.
type Key = (Arc<str>, Vec<(DType, Vec<usize>)>);

impl Feed {
    /// Sorts requests by what may be joined. `signatures` are those of the reference.
    pub(crate) fn new(answered: &[Answered], signatures: &[Arc<Signature>]) -> Feed {
        let mut by_key: BTreeMap<Key, Vec<&Answered>> = BTreeMap::new();
        let mut alone = Vec::new();
        for one in answered {
            let name = &one.request.signature;
            let signature = signatures.iter().find(|signature| signature.name() == name);
            let is_joinable = signature.is_some_and(|signature| salver_batch::is_joinable(signature));
            match n_rows(one).filter(|_| is_joinable) {
                Some(_) => by_key.entry(key(one)).or_default().push(one),
                None => alone.push(Batch {
                    signature: Arc::clone(name),
                    inputs: one.request.inputs.clone(),
                    expected: one.answers.clone(),
                    n_rows: input_rows(&one.request.inputs).unwrap_or(1).max(1),
                }),
            }
        }
        let mut groups: Vec<Group> = by_key.into_values().filter_map(|all| Group::new(&all)).collect();
        groups.sort_by_key(|group| std::cmp::Reverse(group.n_rows));
        groups.truncate(MAX_GROUPS);
        alone.truncate(MAX_BATCHES);
        Feed { groups, alone }
    }

    /// Whether there is anything to join.
    pub(crate) fn is_joinable(&self) -> bool {
        !self.groups.is_empty()
    }

    /// Batches of so many rows each; of 1 row also the requests that cannot be joined, as they are.
    pub(crate) fn batches(&self, n_rows: NonZeroUsize) -> Vec<Batch> {
        let mut batches: Vec<Batch> = self.groups.iter().flat_map(|group| group.batches(n_rows)).collect();
        if n_rows == NonZeroUsize::MIN {
            batches.extend(self.alone.iter().cloned());
        }
        batches
    }
}

fn key(one: &Answered) -> Key {
    let tensors = one.request.inputs.iter().chain(&one.answers);
    let shapes = tensors.map(|tensor| (tensor.dtype(), tensor.shape().row_dims().to_vec())).collect();
    (Arc::clone(&one.request.signature), shapes)
}

/// The rows that all inputs have.
fn input_rows(inputs: &[Tensor]) -> Option<usize> {
    let n_rows = inputs.first()?.shape().n_rows()?;
    inputs.iter().all(|tensor| tensor.shape().n_rows() == Some(n_rows)).then_some(n_rows)
}

/// The rows that all inputs and answers have; `None` when there are none or they differ.
fn n_rows(one: &Answered) -> Option<NonZeroUsize> {
    let n_rows = input_rows(&one.request.inputs)?;
    let fits = one.answers.iter().all(|tensor| tensor.shape().n_rows() == Some(n_rows));
    NonZeroUsize::new(n_rows).filter(|_| fits)
}

impl Group {
    fn new(all: &[&Answered]) -> Option<Group> {
        let first = all.first()?;
        let n_rows = all.iter().filter_map(|one| n_rows(one)).map(NonZeroUsize::get).sum();
        Some(Group {
            signature: Arc::clone(&first.request.signature),
            inputs: join(all, |one| &one.request.inputs)?,
            answers: join(all, |one| &one.answers)?,
            n_rows: NonZeroUsize::new(n_rows)?,
        })
    }

    /// Batches of so many rows, one behind another, starting over at the end.
    fn batches(&self, n_rows: NonZeroUsize) -> Vec<Batch> {
        let n_batches = (self.n_rows.get() / n_rows).clamp(1, MAX_BATCHES);
        let batch = |at: usize| {
            let start = at * n_rows.get() % self.n_rows;
            let cut = |all: &[Tensor]| {
                all.iter().map(|tensor| around(tensor, start, n_rows.get())).collect::<Option<Vec<Tensor>>>()
            };
            Some(Batch {
                signature: Arc::clone(&self.signature),
                inputs: cut(&self.inputs)?,
                expected: cut(&self.answers)?,
                n_rows: n_rows.get(),
            })
        };
        (0..n_batches).filter_map(batch).collect()
    }
}

fn join(all: &[&Answered], tensors: impl Fn(&Answered) -> &[Tensor]) -> Option<Vec<Tensor>> {
    let n = tensors(all.first()?).len();
    let column = |at: usize| {
        let parts: Option<Vec<Tensor>> = all.iter().map(|one| tensors(one).get(at).cloned()).collect();
        Tensor::concat(&parts?).ok()
    };
    (0..n).map(column).collect()
}

/// So many rows from `start` on, starting over at the end as often as needed.
fn around(tensor: &Tensor, start: usize, n_rows: usize) -> Option<Tensor> {
    let n_all = tensor.shape().n_rows().filter(|&n| n > 0)?;
    let (mut parts, mut at, mut left) = (Vec::new(), start, n_rows);
    while left > 0 {
        let n = left.min(n_all - at);
        parts.push(tensor.rows(at, n)?);
        (at, left) = (0, left - n);
    }
    Tensor::concat(&parts).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use salver_tensor::{DEFAULT_SIGNATURE, Shape};
    use salver_testkit::puppet::half_plus_two_signature;

    fn vector(elements: &[f32]) -> Tensor {
        Tensor::from_vec(Shape::vector(elements.len()).unwrap(), elements.to_vec()).unwrap()
    }

    fn answered(x: &[f32]) -> Answered {
        let request = Request { signature: DEFAULT_SIGNATURE.into(), inputs: vec![vector(x)] };
        let y: Vec<f32> = x.iter().map(|x| x / 2.0 + 2.0).collect();
        Answered { request, answers: vec![vector(&y)] }
    }

    fn rows(feed: &Feed, n: usize) -> Vec<Vec<f32>> {
        let batches = feed.batches(NonZeroUsize::new(n).unwrap());
        let all = |batch: &Batch| batch.inputs[0].to_slice::<f32>().unwrap().to_vec();
        batches.iter().map(all).collect()
    }

    #[test]
    fn rows_of_requests_are_joined_and_go_round() {
        let feed =
            Feed::new(&[answered(&[1.0, 2.0]), answered(&[3.0])], &[Arc::new(half_plus_two_signature())]);
        assert!(feed.is_joinable());
        assert_eq!(rows(&feed, 1), [[1.0], [2.0], [3.0]]);
        assert_eq!(rows(&feed, 2), [[1.0, 2.0]]);
        assert_eq!(rows(&feed, 7), [[1.0, 2.0, 3.0, 1.0, 2.0, 3.0, 1.0]]);
        let batch = &feed.batches(NonZeroUsize::new(2).unwrap())[0];
        assert_eq!(*batch.expected[0].to_slice::<f32>().unwrap(), [2.5, 3.0]);
    }

    #[test]
    fn what_cannot_be_joined_runs_as_it_is() {
        // The answer has no rows that belong to those of the input.
        let sum = Answered { answers: vec![vector(&[3.0])], ..answered(&[1.0, 2.0]) };
        let feed = Feed::new(std::slice::from_ref(&sum), &[Arc::new(half_plus_two_signature())]);
        assert!(!feed.is_joinable());
        assert_eq!((rows(&feed, 1), rows(&feed, 2).len()), (vec![vec![1.0, 2.0]], 0));
        assert_eq!(feed.batches(NonZeroUsize::MIN)[0].n_rows, 2);
        // Nor are rows of a signature that forbids it.
        let alone = half_plus_two_signature().with_state();
        let feed = Feed::new(&[answered(&[1.0]), answered(&[2.0])], &[Arc::new(alone)]);
        assert_eq!((feed.is_joinable(), rows(&feed, 1).len()), (false, 2));
    }

    #[test]
    fn there_are_not_too_many_batches() {
        let many: Vec<f32> = (0..100u8).map(f32::from).collect();
        let feed = Feed::new(&[answered(&many)], &[Arc::new(half_plus_two_signature())]);
        assert_eq!((rows(&feed, 1).len(), rows(&feed, 32).len()), (MAX_BATCHES, 3));
    }
}
