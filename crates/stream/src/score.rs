//! One batch through the model: read, join by shape, ask, split, write.

mod group;
mod write;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use salver_predict::{Answer, Asker, Call, Code, ModelId, Target};
use salver_records::{Outgoing, Partition, Record};
use salver_tensor::{Signature, Tensor};
use tokio::time::timeout_at;

use crate::core::{Part, Queued, Ticket};
use crate::header::Names;
use crate::refuse::{Origin, Outputs, Refusals};
use crate::status::{Meter, add};
use crate::{Class, Config, Error, Mapped, Plan, Refused, Retry, clock};
use group::{Group, groups};

/// How much longer than its deadline a call may take before it is given up from here.
const PATIENCE: Duration = Duration::from_secs(1);

/// A record that waits for its answer.
#[derive(Debug)]
pub(crate) struct Work {
    pub(crate) record: Record,
    pub(crate) partition: Arc<Partition>,
    /// The window that the record completed, where there are windows.
    pub(crate) window: Option<Tensor>,
    /// What was read of the record already, and by which plan.
    pub(crate) mapped: Option<Box<(Arc<dyn Plan>, Mapped)>>,
    /// Written with the answer, whatever that is.
    pub(crate) changes: Vec<Outgoing>,
}

/// For whom a model answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Primary,
    Canary,
    Shadow,
}

impl Role {
    /// What its answers say of that, where they are not the primary's.
    fn part(self) -> Option<&'static str> {
        match self {
            Role::Primary => None,
            Role::Canary => Some("canary"),
            Role::Shadow => Some("shadow"),
        }
    }
}

/// One version of a model with its mapping.
#[derive(Debug)]
pub(crate) struct Scorer {
    pub(crate) id: Arc<ModelId>,
    pub(crate) signature: Arc<Signature>,
    pub(crate) plan: Arc<dyn Plan>,
    /// The input that windows collect.
    pub(crate) window: Option<usize>,
    role: Role,
    model: Bytes,
    version: Bytes,
    /// Whether records may be asked together.
    pub(crate) joins: AtomicBool,
}

impl Scorer {
    pub(crate) fn new(
        id: &ModelId,
        signature: Arc<Signature>,
        plan: Arc<dyn Plan>,
        window: Option<usize>,
        role: Role,
    ) -> Scorer {
        let has_rows =
            |specs: &[salver_tensor::TensorSpec]| specs.iter().all(|spec| spec.dims.has_open_rows());
        let joins =
            has_rows(signature.inputs()) && !signature.inputs().is_empty() && !signature.keeps_state();
        Scorer {
            model: Bytes::copy_from_slice(id.name.as_str().as_bytes()),
            version: Bytes::from(id.version.to_string()),
            id: Arc::new(id.clone()),
            signature,
            plan,
            window,
            role,
            joins: AtomicBool::new(joins),
        }
    }
}

/// A batch for a worker.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) worker: usize,
    pub(crate) part: Part,
    pub(crate) scorer: Arc<Scorer>,
    pub(crate) target: Arc<dyn Target>,
    pub(crate) batch: Vec<Queued<Work>>,
}

/// What comes of a record: what is written, and where it came from.
#[derive(Debug)]
pub(crate) struct Parcel {
    pub(crate) outputs: Outputs,
    pub(crate) origin: Origin,
}

/// What comes of a batch.
#[derive(Debug)]
pub(crate) struct Scored {
    pub(crate) worker: usize,
    pub(crate) part: Part,
    pub(crate) done: Vec<(Ticket, Parcel)>,
    /// Records to be tried again, in order, and why.
    pub(crate) again: Vec<Queued<Work>>,
    pub(crate) trouble: Option<String>,
    /// Records that end the pipeline.
    pub(crate) stop: Vec<(Ticket, Error)>,
    pub(crate) n_answered: usize,
}

/// What all workers share.
#[derive(Debug)]
pub(crate) struct Scoring {
    max_rows: usize,
    max_record_bytes: usize,
    timeout: Duration,
    retry: Retry,
    has_source_headers: bool,
    keeps_partition: bool,
    names: Names,
    pub(crate) refusals: Refusals,
    pub(crate) meter: Arc<Meter>,
}

/// What became of one record of a batch so far.
enum State {
    Read(Mapped),
    Done(Outputs),
    Again(String),
    Stop(Error),
}

struct Item {
    queued: Queued<Work>,
    state: State,
}

impl Scoring {
    pub(crate) fn new(config: &Config, meter: Arc<Meter>) -> Scoring {
        Scoring {
            max_rows: config.max_batch.get(),
            max_record_bytes: config.max_record_bytes,
            timeout: config.timeout,
            retry: config.retry.clone(),
            has_source_headers: config.source_headers,
            keeps_partition: config.keep_partition,
            names: Names::default(),
            refusals: Refusals::new(config, Arc::clone(&meter)),
            meter,
        }
    }

    /// Answers a batch. Never fails as a whole: each record is answered, refused, or to be tried again.
    pub(crate) async fn score(&self, job: Job) -> Scored {
        let Job { worker, part, scorer, target, batch } = job;
        let mut items = self.read_all(&scorer, batch);
        let joins = scorer.joins.load(Relaxed);
        let mut calls = FuturesUnordered::new();
        for group in groups(inputs_of(&items), joins, self.max_rows) {
            calls.push(self.ask(&scorer, &target, group, &items));
        }
        let mut n_answered = 0;
        while let Some((group, answer)) = calls.next().await {
            match self.look(&scorer, &group, answer) {
                Looked::Answered(answer) => {
                    n_answered += group.members.len();
                    self.write_all(&scorer, &group, &answer, &mut items);
                }
                Looked::Halve => {
                    for half in group.halves() {
                        calls.push(self.ask(&scorer, &target, half, &items));
                    }
                }
                Looked::Failed(failure) => {
                    for index in group.members {
                        items[index].state = self.after(&failure, &items[index].queued, Some(&scorer.id));
                    }
                }
            }
        }
        drop(calls);
        self.sort_out(worker, part, &scorer, items, n_answered)
    }

    // Reading

    fn read_all(&self, scorer: &Scorer, batch: Vec<Queued<Work>>) -> Vec<Item> {
        let (start, n) = (clock::now(), batch.len());
        let items = batch.into_iter().map(|mut queued| {
            let state = self.read(scorer, &mut queued);
            Item { queued, state }
        });
        let items: Vec<Item> = items.collect();
        let each =
            clock::now().saturating_duration_since(start) / u32::try_from(n.max(1)).unwrap_or(u32::MAX);
        self.meter.stages.decode.record_n(each, u64::try_from(n).unwrap_or(u64::MAX));
        items
    }

    fn read(&self, scorer: &Scorer, queued: &mut Queued<Work>) -> State {
        let mapped = match queued.work.mapped.take() {
            Some(mapped) if Arc::ptr_eq(&mapped.0, &scorer.plan) => Ok(Some(mapped.1)),
            _ => match self.read_record(&*scorer.plan, &queued.work.record) {
                Err(refused) => Err(refused),
                Ok(mapped) => Ok(mapped),
            },
        };
        match mapped {
            Ok(Some(mut mapped)) => {
                if let (Some(window), Some(index)) = (&queued.work.window, scorer.window)
                    && let Some(input) = mapped.inputs.get_mut(index)
                {
                    *input = window.clone();
                }
                State::Read(mapped)
            }
            Ok(None) => {
                add(&self.meter.counters.filtered, 1);
                State::Done(Outputs::new())
            }
            Err(refused) => self.after(&Failure::of(refused), queued, Some(&scorer.id)),
        }
    }

    /// What a plan makes of a record; `None` if it is filtered out.
    pub(crate) fn read_record(&self, plan: &dyn Plan, record: &Record) -> Result<Option<Mapped>, Refused> {
        let refused = |class, message| Err(Refused { class, message, is_passing: false });
        if let Some(n) = record.cut_from() {
            return refused(Class::Oversize, format!("the value has {n} bytes, more than the source keeps"));
        }
        let Some(value) = &record.value else {
            return refused(Class::Tombstone, "the record has no value".into());
        };
        if value.len() > self.max_record_bytes {
            let (n, max) = (value.len(), self.max_record_bytes);
            return refused(Class::Oversize, format!("the value has {n} bytes, expected at most {max}"));
        }
        plan.read(record)
    }

    // Asking

    fn ask(
        &self,
        scorer: &Scorer,
        target: &Arc<dyn Target>,
        group: Group,
        items: &[Item],
    ) -> impl Future<Output = (Group, Result<Answer, Failure>)> + use<> {
        let joined = join(&scorer.signature, &group, items);
        let deadline = clock::now() + self.timeout;
        let (meter, target) = (Arc::clone(&self.meter), Arc::clone(target));
        let (signature, outputs) = (Arc::clone(&scorer.signature), scorer.plan.outputs().to_vec());
        async move {
            let inputs = match joined {
                Ok(inputs) => inputs,
                Err(message) => return (group, Err(Failure::lasting(Class::Shape, message))),
            };
            let asker = Asker::default();
            let call = Call { signature, inputs, outputs, deadline: Some(deadline), asker };
            let start = clock::now();
            let late = tokio::time::Instant::from_std(deadline + PATIENCE);
            let answer = match timeout_at(late, target.predict(call)).await {
                Ok(answer) => answer.map_err(|error| Failure::of_call(&error)),
                Err(_) => Err(Failure::of_call(&salver_predict::Error::new(
                    Code::DeadlineExceeded,
                    salver_predict::Blame::Peer,
                    "the call did not end after its deadline",
                ))),
            };
            meter.stages.predict.record(clock::now().saturating_duration_since(start));
            add(&meter.counters.calls, 1);
            (group, answer)
        }
    }

    /// What to do about an answer, or the want of one.
    fn look(&self, scorer: &Scorer, group: &Group, answer: Result<Answer, Failure>) -> Looked {
        let n_members = group.members.len();
        let answer = match answer {
            Ok(answer) => answer,
            // What takes too long together may be in time apart.
            Err(failure) if n_members > 1 && (!failure.is_passing || failure.class == Class::Timeout) => {
                return Looked::Halve;
            }
            Err(failure) => return Looked::Failed(failure),
        };
        let expected = scorer.plan.outputs().len();
        let outputs = &answer.outputs;
        if outputs.len() != expected {
            let message = format!("the model gave {} outputs, expected {expected}", outputs.len());
            return Looked::Failed(Failure::lasting(Class::Model, message));
        }
        let has_rows = outputs.iter().all(|output| output.shape().n_rows() == Some(group.n_rows));
        if n_members > 1 && !has_rows {
            if scorer.joins.swap(false, Relaxed) {
                tracing::warn!(
                    model = scorer.id.name.as_str(),
                    "answers are not rows: records are scored one by one"
                );
            }
            return Looked::Halve;
        }
        add(&self.meter.counters.rows, group.n_rows);
        add(&self.meter.counters.records_scored, n_members);
        Looked::Answered(answer)
    }

    /// What becomes of a record after a failure: tried again, if that may help and it was not tried too often, else refused.
    fn after(&self, failure: &Failure, queued: &Queued<Work>, model: Option<&Arc<ModelId>>) -> State {
        let may_help = failure.is_passing && (failure.class != Class::Timeout || self.retry.timeouts);
        if may_help && queued.n_attempts.saturating_add(1) < self.retry.attempts {
            return State::Again(failure.message.clone());
        }
        let origin = Origin {
            record: queued.work.record.clone(),
            partition: Arc::clone(&queued.work.partition),
            n_attempts: queued.n_attempts,
            model: model.cloned(),
        };
        match self.refusals.refuse(failure.class, &failure.message, &origin) {
            Ok(outputs) => State::Done(outputs),
            Err(error) => State::Stop(error),
        }
    }

    // Ending

    fn sort_out(
        &self,
        worker: usize,
        part: Part,
        scorer: &Arc<Scorer>,
        items: Vec<Item>,
        n_answered: usize,
    ) -> Scored {
        let (done, again, stop) = (Vec::with_capacity(items.len()), Vec::new(), Vec::new());
        let mut scored = Scored { worker, part, done, again, trouble: None, stop, n_answered };
        for Item { queued, state } in items {
            match state {
                State::Done(mut outputs) => {
                    let Queued { ticket, n_attempts, work, .. } = queued;
                    outputs.extend(work.changes);
                    let (record, partition) = (work.record, work.partition);
                    let origin =
                        Origin { record, partition, n_attempts, model: Some(Arc::clone(&scorer.id)) };
                    scored.done.push((ticket, Parcel { outputs, origin }));
                }
                State::Again(message) => {
                    scored.trouble.get_or_insert(message);
                    scored.again.push(queued);
                }
                State::Stop(error) => scored.stop.push((queued.ticket, error)),
                State::Read(_) => {
                    let message =
                        format!("offset {} of {} was not asked", queued.offset, queued.work.partition);
                    scored.stop.push((queued.ticket, Error::new(crate::ErrorKind::Internal, message)));
                }
            }
        }
        add(&self.meter.counters.retries, scored.again.len());
        scored
    }
}

/// Why there is no answer.
#[derive(Debug, Clone)]
struct Failure {
    class: Class,
    message: String,
    is_passing: bool,
}

impl Failure {
    fn lasting(class: Class, message: String) -> Failure {
        Failure { class, message, is_passing: false }
    }

    fn of(refused: Refused) -> Failure {
        Failure { class: refused.class, message: refused.message, is_passing: refused.is_passing }
    }

    /// A version that is gone may be another one by the next try.
    fn of_call(error: &salver_predict::Error) -> Failure {
        let (class, is_passing) = match error.code() {
            Code::Unavailable | Code::ResourceExhausted | Code::NotFound | Code::Aborted => {
                (Class::Unavailable, true)
            }
            Code::DeadlineExceeded | Code::Cancelled => (Class::Timeout, true),
            _ => (Class::Model, false),
        };
        Failure { class, message: error.message().to_owned(), is_passing }
    }
}

enum Looked {
    Answered(Answer),
    /// Ask in halves, to find the record at fault.
    Halve,
    Failed(Failure),
}

fn inputs_of(items: &[Item]) -> impl Iterator<Item = (usize, &[Tensor])> {
    items.iter().enumerate().filter_map(|(index, item)| match &item.state {
        State::Read(mapped) => Some((index, mapped.inputs.as_slice())),
        _ => None,
    })
}

/// The inputs of all records of a group, one after the other.
fn join(signature: &Signature, group: &Group, items: &[Item]) -> Result<Vec<Tensor>, String> {
    let own = |index: usize| match &items[index].state {
        State::Read(mapped) => mapped.inputs.as_slice(),
        _ => &[],
    };
    if let [only] = group.members.as_slice() {
        return Ok(own(*only).to_vec());
    }
    let mut parts = Vec::with_capacity(group.members.len());
    (0..signature.inputs().len())
        .map(|input| {
            parts.clear();
            parts.extend(group.members.iter().filter_map(|index| own(*index).get(input)).cloned());
            Tensor::concat(&parts)
                .map_err(|error| format!("input '{}': {error}", signature.inputs()[input].name))
        })
        .collect()
}
