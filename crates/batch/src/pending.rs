use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use salver_tensor::Tensor;
use tokio::sync::oneshot;

use crate::RunError;
use crate::lanes::Shared;

/// A task's result.
#[derive(Debug, Clone)]
pub struct Done {
    /// The outputs asked for, in the order asked for.
    pub outputs: Vec<Tensor>,
    /// From submission to the start of the run.
    pub queued: Duration,
    /// The run, for the whole batch that the task was part of.
    pub ran: Duration,
    /// Rows of that batch, without those that filled it up.
    pub batch_size: usize,
}

/// The result to come of a task. Dropping it takes the task out of the queue if no lane has begun it.
pub struct Pending(State);

enum State {
    Ready(Option<Box<Result<Done, RunError>>>),
    Queued {
        id: u64,
        shared: Arc<Shared>,
        reply: oneshot::Receiver<Result<Done, RunError>>,
        is_answered: bool,
    },
}

impl Pending {
    pub(crate) fn ready(result: Result<Done, RunError>) -> Pending {
        Pending(State::Ready(Some(Box::new(result))))
    }

    pub(crate) fn queued(
        id: u64,
        shared: Arc<Shared>,
        reply: oneshot::Receiver<Result<Done, RunError>>,
    ) -> Pending {
        Pending(State::Queued { id, shared, reply, is_answered: false })
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
        }
    }
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
