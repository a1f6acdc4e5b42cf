use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use salver_engine::{Error, ErrorKind};
use salver_tensor::Tensor;

use crate::RunError;
use crate::lanes::Shared;
use crate::queue::Reply;

/// A task's result.
#[derive(Debug, Clone)]
pub struct Done {
    /// The outputs asked for, in the order asked for.
    pub outputs: Vec<Tensor>,
    /// From submission to the start of the run; of a task that was split, of the part that waited longest.
    pub queued: Duration,
    /// The run, for the whole batch that the task was part of; of a task that was split, the longest.
    pub ran: Duration,
    /// Rows of that batch, without those that filled it up; the largest, of a task that was split.
    pub batch_size: usize,
}

/// The result to come of a task. Dropping it takes the task out of the queue if no lane has begun it.
pub struct Pending(State);

enum State {
    Ready(Option<Box<Result<Done, RunError>>>),
    Queued { id: u64, shared: Arc<Shared>, reply: Reply, is_answered: bool },
    Parts { parts: Vec<Pending>, done: Vec<Option<Done>> },
}

impl Pending {
    pub(crate) fn ready(result: Result<Done, RunError>) -> Pending {
        Pending(State::Ready(Some(Box::new(result))))
    }

    pub(crate) fn queued(id: u64, shared: Arc<Shared>, reply: Reply) -> Pending {
        Pending(State::Queued { id, shared, reply, is_answered: false })
    }

    /// The result of a task whose rows are spread over these, in order. The first that fails is its result, and the others
    /// are dropped then.
    pub(crate) fn parts(parts: Vec<Pending>) -> Pending {
        let done = parts.iter().map(|_| None).collect();
        Pending(State::Parts { parts, done })
    }
}

impl Future for Pending {
    type Output = Result<Done, RunError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            State::Ready(result) => {
                Poll::Ready(*result.take().expect("a future is not polled after it is ready"))
            }
            State::Queued { reply, is_answered, .. } => Pin::new(reply).poll(context).map(|received| {
                *is_answered = true;
                received.unwrap_or(Err(RunError::Closed))
            }),
            State::Parts { parts, done } => {
                // One after the other: to poll all of many parts whenever one is done would take their number squared.
                for (part, done) in parts.iter_mut().zip(done.iter_mut()).filter(|(_, done)| done.is_none()) {
                    match Pin::new(part).poll(context) {
                        Poll::Pending => return Poll::Pending,
                        Poll::Ready(Ok(result)) => *done = Some(result),
                        Poll::Ready(Err(error)) => {
                            parts.clear();
                            return Poll::Ready(Err(error));
                        }
                    }
                }
                Poll::Ready(together(&std::mem::take(done).into_iter().flatten().collect::<Vec<_>>()))
            }
        }
    }
}

/// One result of the results of parts.
fn together(parts: &[Done]) -> Result<Done, RunError> {
    let n_outputs = parts.first().map_or(0, |part| part.outputs.len());
    let output = |at: usize| {
        let tensors: Vec<Tensor> = parts.iter().filter_map(|part| part.outputs.get(at).cloned()).collect();
        Tensor::concat(&tensors).map_err(|error| {
            let text = format!("outputs of the parts of a request that was split cannot be joined: {error}");
            RunError::Engine(Error::new(ErrorKind::Internal, text))
        })
    };
    Ok(Done {
        outputs: (0..n_outputs).map(output).collect::<Result<_, _>>()?,
        queued: parts.iter().map(|part| part.queued).max().unwrap_or_default(),
        ran: parts.iter().map(|part| part.ran).max().unwrap_or_default(),
        batch_size: parts.iter().map(|part| part.batch_size).max().unwrap_or_default(),
    })
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let State::Queued { id, shared, is_answered: false, .. } = &self.0 {
            shared.cancel(*id);
        }
    }
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending").field("is_ready", &matches!(self.0, State::Ready(_))).finish()
    }
}
