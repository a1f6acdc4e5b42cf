//! Batches tried before a version is available: whether its requests may be joined, and what batches cost.

use std::time::Duration;

use bytes::Bytes;
use salver_batch::{Batching, CostModel, LaneSet, Point, Rows, Task, Verdict, is_joinable};
use salver_engine::{DEFAULT_SIGNATURE, Model};
use salver_lifecycle::{Cancel, Clock, Id};
use salver_predict::ModelId;
use salver_tensor::{DType, Shape, Signature, Tensor, TensorSpec};

use crate::KnownCosts;
use crate::warmup::{self, WarmupRequest};

/// Different rows that are joined, at most; two are enough to see whether answers depend on neighbours.
const MAX_ROWS: usize = 4;

/// With runs that take longer than this, two rows must do.
const DEAR: Duration = Duration::from_millis(10);

/// With runs that take longer than this, nothing is checked while rows are not to be joined.
const TOO_DEAR: Duration = Duration::from_secs(1);

/// Bytes of input that are made up, at most.
const MAX_BYTES: usize = 16 << 20;

/// What open dimensions of made-up rows are, one after the other until a model takes them.
const OPEN_DIMS: [usize; 2] = [1, 32];

/// What is tried of one version.
pub(crate) struct Trials<'a> {
    pub(crate) lanes: &'a LaneSet,
    pub(crate) model: &'a dyn Model,
    pub(crate) id: &'a Id,
    /// Recorded requests, which have run.
    pub(crate) requests: &'a [WarmupRequest],
    /// For the costs of batches of all signatures together; whether rows may be joined is found out in any case.
    pub(crate) budget: Duration,
    pub(crate) cancel: &'a Cancel,
}

/// What came of joining rows of one signature.
struct Checked {
    rows: Rows,
    /// Those that ran, for further trials.
    tasks: Vec<Task>,
}

impl Trials<'_> {
    /// Tries every signature whose rows could be joined, and keeps what comes of it in the lanes. Rows are those of recorded
    /// requests, else made up; made-up rows need not make sense to the model, so nothing fails here. What costs are known for
    /// is only asked whether its rows may be joined, and so is everything where the policy joins nothing: it may change.
    pub(crate) fn run(&self, known: Option<&KnownCosts>, clock: &dyn Clock) {
        let joinable = || self.model.signatures().iter().enumerate().filter(|(_, one)| is_joinable(one));
        let mut n_left = u32::try_from(joinable().count()).unwrap_or(u32::MAX);
        let mut left = self.budget;
        for (position, signature) in joinable() {
            if self.cancel.is_cancelled() {
                return;
            }
            let started = clock.now();
            let known = known.filter(|known| known.signature == **signature.name());
            self.one(position, signature, known, left / n_left.max(1));
            left = left.saturating_sub(clock.now().saturating_duration_since(started));
            n_left = n_left.saturating_sub(1);
        }
    }

    fn one(&self, position: usize, signature: &Signature, known: Option<&KnownCosts>, budget: Duration) {
        let policy = self.lanes.policy();
        let batching = joining(policy.batching.as_ref());
        let slowest = self.slowest(position);
        if batching.is_none() && slowest > TOO_DEAR {
            return;
        }
        let n_rows = if slowest > DEAR { 2 } else { MAX_ROWS };
        let Checked { rows, mut tasks } = self.check(position, signature, n_rows);
        let Some(batching) = batching else {
            tracing::debug!(id = %self.id, signature = %signature.name(), "rows tried, though none are joined: {rows:?}");
            return;
        };
        if self.cancel.is_cancelled() || !self.report(signature, &rows, batching) {
            return;
        }
        if tasks.is_empty() {
            let zeros = warmup::zeros(signature);
            tasks.extend(zeros.map(|inputs| Task::new(position, inputs, all_outputs(signature))));
        }
        match (known, tasks.first()) {
            (Some(known), Some(task)) => self.lanes.seed(task, &known.runs),
            (None, Some(_)) if !budget.is_zero() => {
                let called_off = || self.cancel.is_cancelled();
                if let Err(error) = self.lanes.try_sizes(&tasks, budget, &called_off) {
                    tracing::debug!(id = %self.id, signature = %signature.name(), "batches could not be tried: {error}");
                }
            }
            _ => (),
        }
        if let Some(costs) = self.costs(position) {
            let (model, version, signature) = (self.id.name.as_str(), self.id.version, signature.name());
            tracing::info!(model, %version, %signature, "{}", told(&costs, batching.max_batch_size.get()));
        }
    }

    /// Joins rows until something is told: recorded ones, with others like the first if they are too few, then made-up
    /// ones.
    fn check(&self, position: usize, signature: &Signature, n_rows: usize) -> Checked {
        let recorded = varied(self.recorded(position, signature, n_rows), n_rows);
        let made_up = OPEN_DIMS.into_iter().map(|open| {
            let make = |spec: &TensorSpec, row, max_bytes| made_up(spec, row, max_bytes, open);
            tasks(position, signature, n_rows, make)
        });
        let called_off = || self.cancel.is_cancelled();
        let mut unknown = "no rows could be made up".to_owned();
        let mut ran = Vec::new();
        for tasks in std::iter::once(recorded).chain(made_up).filter(|tasks| tasks.len() > 1) {
            match self.lanes.check_rows(&tasks, &called_off) {
                Ok(Rows::Unknown(reason)) => {
                    unknown = reason;
                    if ran.is_empty() {
                        ran = tasks;
                    }
                }
                Ok(rows) => return Checked { rows, tasks: if ran.is_empty() { tasks } else { ran } },
                Err(error) => unknown = format!("rows tried are refused: {error}"),
            }
            if called_off() {
                break;
            }
        }
        Checked { rows: Rows::Unknown(unknown), tasks: ran }
    }

    /// Says what came of it if rows are not joined; says whether they are.
    fn report(&self, signature: &Signature, rows: &Rows, batching: &Batching) -> bool {
        let (model, version, signature) = (self.id.name.as_str(), self.id.version, signature.name());
        match rows {
            Rows::Independent => return true,
            Rows::Dependent(reason) => {
                tracing::warn!(model, %version, %signature, "requests are not joined: {reason}");
            }
            Rows::Unknown(reason) if batching.joins_unchecked => {
                tracing::info!(model, %version, %signature, "requests are joined as the settings say, though it is not known whether answers depend on what a row is joined with: {reason}");
                return true;
            }
            Rows::Unknown(reason) => {
                tracing::warn!(model, %version, %signature, "requests are not joined, because it is not known whether answers depend on what a row is joined with: {reason}; {UNCHECKED}");
            }
        }
        false
    }

    /// The cost model of this signature that knows most sizes.
    fn costs(&self, position: usize) -> Option<CostModel> {
        let all = self.lanes.costs().into_iter().filter(|(signature, _)| *signature == position);
        all.map(|(_, model)| model).max_by_key(|model| model.points().len())
    }

    /// The longest run of this signature so far.
    fn slowest(&self, position: usize) -> Duration {
        let points = self.costs(position).map(|model| model.points().to_vec()).unwrap_or_default();
        points.iter().map(|point| point.estimate.p50).max().unwrap_or_default()
    }

    /// Single rows of the recorded requests for this signature that have the shapes of the first.
    fn recorded(&self, position: usize, signature: &Signature, n_rows: usize) -> Vec<Task> {
        let mut rows: Vec<Task> = Vec::new();
        for request in self.requests {
            let is_own = |name: &&String| {
                let name = if name.is_empty() { DEFAULT_SIGNATURE } else { name.as_str() };
                name == &**signature.name()
            };
            let Some(name) = request.signature_names.iter().find(is_own) else { continue };
            let Ok(task) = warmup::task(self.model, name, request) else { continue };
            debug_assert_eq!(task.signature, position);
            for row in single_rows(&task, n_rows) {
                let is_like = |first: &Task| {
                    let shapes = |task: &Task| {
                        task.inputs.iter().map(|input| input.shape().clone()).collect::<Vec<_>>()
                    };
                    shapes(first) == shapes(&row) && first.outputs == row.outputs
                };
                let is_new = !rows.iter().any(|known| known.inputs == row.inputs);
                if rows.first().is_none_or(is_like) && is_new {
                    rows.push(row);
                }
                if rows.len() >= n_rows {
                    return rows;
                }
            }
        }
        rows
    }
}

/// What batches cost, for a log; `max` rows may be joined.
fn told(costs: &CostModel, max: usize) -> String {
    let per_row = |point: &Point| point.estimate.p50 / u32::try_from(point.n_rows).unwrap_or(u32::MAX).max(1);
    let said = |point: &Point| match point.n_rows {
        1 => format!("{:.1?} for 1 row", per_row(point)),
        n_rows => format!("{:.1?} per row in a batch of {n_rows}", per_row(point)),
    };
    let pays = match costs.enough(max) {
        1 => "joining does not pay".to_owned(),
        enough => format!("batches of {enough} pay"),
    };
    match costs.points() {
        [] => "no batches were tried".to_owned(),
        [only] => {
            format!("{}; there was no time to try batches, serving will tell what they cost", said(only))
        }
        [first, .., last] => format!("{}, {}: {pays}", said(first), said(last)),
    }
}

/// What to do where nothing could be told.
const UNCHECKED: &str =
    "warm-up requests that the model takes would tell, or max_batch_size says that it is all the same";

/// How the policy joins rows, if it does.
fn joining(batching: Option<&Batching>) -> Option<&Batching> {
    batching.filter(|batching| batching.max_batch_size.get() > 1)
}

/// Says what is not joined by a policy that has just come to join rows.
pub(crate) fn tell_of_change(lanes: &LaneSet, model: &dyn Model, id: &ModelId, before: Option<&Batching>) {
    let policy = lanes.policy();
    let Some(batching) = joining(policy.batching.as_ref()).filter(|_| joining(before).is_none()) else {
        return;
    };
    let (name, version) = (id.name.as_str(), id.version);
    for (position, signature) in model.signatures().iter().enumerate().filter(|(_, one)| is_joinable(one)) {
        let signature = signature.name();
        match lanes.verdict(position) {
            Verdict::Never => {
                tracing::warn!(model = name, %version, %signature, "requests are not joined: answers depend on what a row is joined with");
            }
            Verdict::Unknown if !batching.joins_unchecked => {
                tracing::warn!(model = name, %version, %signature, "requests are not joined, because it is not known whether answers depend on what a row is joined with; {UNCHECKED}");
            }
            Verdict::Unknown | Verdict::Independent => (),
        }
    }
}

/// These rows, and others like the first where there is but one: floats scaled and shifted, all else turned around.
fn varied(mut rows: Vec<Task>, n_rows: usize) -> Vec<Task> {
    let ([first], true) = (rows.as_slice(), n_rows > 1) else { return rows };
    let first = first.clone();
    for row in 1..n_rows {
        let like = |halves: bool| {
            let inputs = first.inputs.iter().map(|input| vary(input, row, halves));
            inputs
                .collect::<Option<Vec<_>>>()
                .map(|inputs| Task::new(first.signature, inputs, first.outputs.clone()))
        };
        let is_new = |task: &Task| !rows.iter().any(|known: &Task| known.inputs == task.inputs);
        let turned = like(false).filter(is_new);
        let new = turned.or_else(|| like(true).filter(is_new));
        rows.extend(new);
    }
    rows
}

/// A tensor like this one. Whole numbers, truth values and strings are those of the tensor in another place, which are as
/// likely to make sense, or numbers of half their size.
fn vary(tensor: &Tensor, row: usize, halves: bool) -> Option<Tensor> {
    let shape = tensor.shape().clone();
    let mut noise = Noise::of_row(row);
    let (scale, shift) = (0.5 + noise.unit(), 0.1 * noise.unit());
    let mut other = |x: f32| x * scale * (0.8 + 0.4 * noise.unit()) + shift;
    match tensor.dtype() {
        DType::F32 => {
            Tensor::from_vec(shape, tensor.to_slice::<f32>()?.iter().map(|&x| other(x)).collect()).ok()
        }
        DType::F64 => {
            let other = |&x: &f64| x * f64::from(other(1.0));
            Tensor::from_vec(shape, tensor.to_slice::<f64>()?.iter().map(other).collect()).ok()
        }
        DType::F16 => {
            let other = |x: &half::f16| half::f16::from_f32(other(x.to_f32()));
            Tensor::from_vec(shape, tensor.to_slice::<half::f16>()?.iter().map(other).collect()).ok()
        }
        DType::BF16 => {
            let other = |x: &half::bf16| half::bf16::from_f32(other(x.to_f32()));
            Tensor::from_vec(shape, tensor.to_slice::<half::bf16>()?.iter().map(other).collect()).ok()
        }
        DType::I32 if halves => {
            Tensor::from_vec(shape, tensor.to_slice::<i32>()?.iter().map(|x| x >> row).collect()).ok()
        }
        DType::I64 if halves => {
            Tensor::from_vec(shape, tensor.to_slice::<i64>()?.iter().map(|x| x >> row).collect()).ok()
        }
        DType::U8 if halves => {
            Tensor::from_vec(shape, tensor.to_slice::<u8>()?.iter().map(|x| x >> row).collect()).ok()
        }
        _ => turned(tensor, row),
    }
}

/// The elements of one row so many places further, those from the end first.
fn turned(tensor: &Tensor, n: usize) -> Option<Tensor> {
    let shape = tensor.shape();
    let n_elements = shape.n_elements();
    if n_elements < 2 {
        return Some(tensor.clone());
    }
    let flat = tensor.reshape(Shape::vector(n_elements).ok()?).ok()?;
    let n = n % n_elements;
    let parts = [flat.rows(n_elements - n, n)?, flat.rows(0, n_elements - n)?];
    Tensor::concat(parts.get(usize::from(n == 0)..)?).ok()?.reshape(shape.clone()).ok()
}

/// The first rows of a request, as requests of one row.
fn single_rows(task: &Task, max: usize) -> Vec<Task> {
    let n_rows = task.inputs.iter().map(|input| input.shape().n_rows().unwrap_or(0)).min().unwrap_or(0);
    let row = |at: usize| {
        let inputs = task.inputs.iter().map(|input| input.rows(at, 1)).collect::<Option<Vec<_>>>()?;
        Some(Task::new(task.signature, inputs, task.outputs.clone()))
    };
    (0..n_rows.min(max)).filter_map(row).collect()
}

fn all_outputs(signature: &Signature) -> Vec<usize> {
    (0..signature.outputs().len()).collect()
}

/// Requests of one row each, whose elements `make` makes up; none where an input is too large or of unknown dimensions.
fn tasks(
    position: usize,
    signature: &Signature,
    n_rows: usize,
    make: impl Fn(&TensorSpec, usize, usize) -> Option<Tensor>,
) -> Vec<Task> {
    let task = |row: usize| {
        let mut left = MAX_BYTES / n_rows.max(1);
        let inputs = signature.inputs().iter().map(|spec| {
            let made = make(spec, row, left)?;
            left = left.checked_sub(made.n_bytes())?;
            Some(made)
        });
        Some(Task::new(position, inputs.collect::<Option<Vec<_>>>()?, all_outputs(signature)))
    };
    (0..n_rows).map(task).collect::<Option<Vec<_>>>().unwrap_or_default()
}

/// One row: floats from 0 to 1, whole numbers and truth values 0 and 1 in turn, strings `a` and `b`. Open dimensions
/// but that of rows are `open`.
fn made_up(spec: &TensorSpec, row: usize, max_bytes: usize, open: usize) -> Option<Tensor> {
    let known = spec.dims.known()?.iter().enumerate();
    let dims: Vec<usize> = known.map(|(at, dim)| dim.unwrap_or(if at == 0 { 1 } else { open })).collect();
    let shape = Shape::new(&dims).ok()?;
    let n = shape.n_elements();
    let size = spec.dtype.size().unwrap_or(size_of::<Bytes>());
    n.checked_mul(size).filter(|&n_bytes| n_bytes <= max_bytes)?;
    let mut noise = Noise::of_row(row);
    let parity = |at: usize| (at + row) % 2 == 1;
    match spec.dtype {
        DType::F32 => Tensor::from_vec(shape, (0..n).map(|_| noise.unit()).collect()).ok(),
        DType::F64 => Tensor::from_vec(shape, (0..n).map(|_| f64::from(noise.unit())).collect()).ok(),
        DType::F16 => {
            Tensor::from_vec(shape, (0..n).map(|_| half::f16::from_f32(noise.unit())).collect()).ok()
        }
        DType::BF16 => {
            Tensor::from_vec(shape, (0..n).map(|_| half::bf16::from_f32(noise.unit())).collect()).ok()
        }
        DType::String => {
            let strings = (0..n).map(|at| Bytes::from_static(if parity(at) { b"b" } else { b"a" }));
            Tensor::from_strings(shape, strings.collect()).ok()
        }
        DType::Bool | DType::I8 | DType::I16 | DType::I32 | DType::I64 => whole(spec.dtype, shape, parity),
        DType::U8 | DType::U16 | DType::U32 | DType::U64 => whole(spec.dtype, shape, parity),
        _ => None,
    }
}

/// Zeros and ones: the first byte of each element is its lowest.
fn whole(dtype: DType, shape: Shape, is_one: impl Fn(usize) -> bool) -> Option<Tensor> {
    let size = dtype.size()?;
    let mut bytes = vec![0u8; shape.n_elements().checked_mul(size)?];
    for (at, element) in bytes.chunks_exact_mut(size).enumerate() {
        if let Some(lowest) = element.first_mut() {
            *lowest = u8::from(is_one(at));
        }
    }
    Tensor::from_bytes(dtype, shape, Bytes::from(bytes)).ok()
}

/// The same numbers for the same row, whenever they are asked for: splitmix64 (Steele, Lea and Flood, 2014).
struct Noise(u64);

impl Noise {
    fn of_row(row: usize) -> Noise {
        Noise((row as u64).wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }

    /// From 0 to 1.
    fn unit(&mut self) -> f32 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        (z >> 40) as f32 / (1u32 << 24) as f32
    }
}

#[cfg(test)]
mod tests {
    use salver_tensor::Dims;

    use super::*;

    fn spec(dtype: DType, dims: Dims) -> TensorSpec {
        TensorSpec { name: "x".into(), tensor_name: "x".into(), dtype, dims, default: None }
    }

    #[test]
    fn rows_of_every_type_are_made_up_and_differ() {
        let dims = Dims::new(vec![None, Some(3), None]);
        for dtype in DType::ALL {
            let rows: Vec<_> =
                (0..2).map(|row| made_up(&spec(dtype, dims.clone()), row, 1 << 10, 1)).collect();
            let Some(first) = &rows[0] else { continue };
            assert_eq!((first.dtype(), first.shape().dims()), (dtype, &[1, 3, 1][..]));
            assert_ne!(rows[0], rows[1], "{dtype}");
        }
        let floats = made_up(&spec(DType::F32, dims.clone()), 0, 1 << 10, 1).unwrap();
        assert!(floats.to_slice::<f32>().unwrap().iter().all(|x| (0.0..1.0).contains(x)));
        let ints = made_up(&spec(DType::I64, dims.clone()), 1, 1 << 10, 1).unwrap();
        assert_eq!(ints.to_slice::<i64>().unwrap().to_vec(), [1, 0, 1]);
        assert_eq!(made_up(&spec(DType::F32, Dims::unknown()), 0, 1 << 10, 1), None);
        assert_eq!(made_up(&spec(DType::F32, dims), 0, 8, 1), None);
    }

    #[test]
    fn a_single_recorded_row_is_varied() {
        let check = |inputs: Vec<Tensor>, n_rows: usize| {
            let first = Task::new(0, inputs, vec![0]);
            let rows = varied(vec![first.clone()], 4);
            assert_eq!(rows.len(), n_rows, "{rows:?}");
            for (at, row) in rows.iter().enumerate() {
                let of = |task: &Task| {
                    task.inputs.iter().map(|input| (input.dtype(), input.shape().clone())).collect::<Vec<_>>()
                };
                assert_eq!(of(row), of(&first));
                assert!(rows.iter().skip(at + 1).all(|other| other.inputs != row.inputs));
            }
        };
        let shape = || Shape::new(&[1, 3]).unwrap();
        let ints = |values: &[i64]| Tensor::from_vec(shape(), values.to_vec()).unwrap();
        check(vec![Tensor::from_vec(shape(), vec![1f32, 2.0, 3.0]).unwrap()], 4);
        check(vec![Tensor::from_vec(shape(), vec![0f32; 3]).unwrap()], 4);
        check(vec![Tensor::from_vec(shape(), vec![1f64, 2.0, 3.0]).unwrap()], 4);
        check(vec![ints(&[1, 2, 3]), ints(&[1, 1, 1])], 4);
        check(vec![ints(&[9, 9, 9])], 4);
        check(vec![ints(&[0, 0, 0])], 1);
        let words = ["a", "b", "c"].map(|word| Bytes::from_static(word.as_bytes()));
        check(vec![Tensor::from_strings(shape(), words.to_vec()).unwrap()], 3);
        let turned = varied(vec![Task::new(0, vec![ints(&[1, 2, 3])], vec![0])], 2);
        assert_eq!(turned[1].inputs, [ints(&[3, 1, 2])]);
    }

    #[test]
    fn recorded_requests_are_cut_into_rows() {
        let tensor = Tensor::from_vec(Shape::new(&[3, 1]).unwrap(), vec![1f32, 2.0, 3.0]).unwrap();
        let task = Task::new(0, vec![tensor], vec![0]);
        let rows = single_rows(&task, 2);
        let values: Vec<f32> = rows.iter().map(|row| row.inputs[0].to_slice::<f32>().unwrap()[0]).collect();
        assert_eq!(values, [1.0, 2.0]);
    }
}
