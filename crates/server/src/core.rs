//! What every request needs, and the way that every prediction takes.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::poll_immediate;
use salver_predict::{
    Answer, Blame, Call, Code, Error, ModelName, ModelSpec, Models, Phases, Predictor, Target,
};
use salver_tensor::{Signature, Tensor};

use tokio::sync::watch;
use tokio::time::timeout_at;

use crate::Config;
use crate::budget::Budget;
use crate::clock;
use crate::metrics::{Api, Metrics, OfSignature, Refused};
use crate::terms::{Askers, Terms};

#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) config: Config,
    pub(crate) predictor: Arc<dyn Predictor>,
    pub(crate) models: Arc<dyn Models>,
    pub(crate) registry: prometheus::Registry,
    pub(crate) metrics: Metrics,
    pub(crate) budget: Arc<Budget>,
    pub(crate) askers: Askers,
    /// When the grace of the shutdown is over, once there is one.
    pub(crate) stop: watch::Sender<Option<tokio::time::Instant>>,
}

/// A question that is decoded.
pub(crate) struct Question {
    pub(crate) target: Arc<dyn Target>,
    pub(crate) signature: Arc<Signature>,
    pub(crate) inputs: Vec<Tensor>,
    pub(crate) outputs: Vec<usize>,
    pub(crate) terms: Terms,
}

/// A question that is answered.
pub(crate) struct Answered {
    pub(crate) target: Arc<dyn Target>,
    pub(crate) signature: Arc<Signature>,
    pub(crate) outputs: Vec<usize>,
    pub(crate) tensors: Vec<Tensor>,
    api: Api,
    of: Arc<OfSignature>,
    n_rows: usize,
    decode: Duration,
    phases: Phases,
    ran: Instant,
    started: Instant,
}

impl Core {
    /// Finds the version that is meant.
    pub(crate) async fn resolve(
        &self,
        spec: &ModelSpec,
        end: Option<Instant>,
    ) -> Result<Arc<dyn Target>, Error> {
        until(end, self.predictor.resolve(spec)).await
    }

    /// Runs the model. `started` is when the request's head was there.
    pub(crate) async fn ask(
        &self,
        api: Api,
        started: Instant,
        question: Question,
    ) -> Result<Answered, Error> {
        let Question { target, signature, inputs, outputs, terms } = question;
        let of = self.metrics.of_signature(target.id(), &signature, target.platform());
        let n_rows = inputs.first().and_then(|tensor| tensor.shape().n_rows()).unwrap_or(1);
        let Terms { deadline, until: end, asker } = terms;
        let call =
            Call { signature: Arc::clone(&signature), inputs, outputs: outputs.clone(), deadline, asker };
        let decoded = clock::now();
        let Answer { outputs: tensors, phases, .. } = until(end, Arc::clone(&target).predict(call)).await?;
        Ok(Answered {
            target,
            signature,
            outputs,
            tensors,
            api,
            of,
            n_rows,
            decode: decoded.saturating_duration_since(started),
            phases,
            ran: clock::now(),
            started,
        })
    }

    /// Records a request that was answered, once its answer is encoded.
    pub(crate) fn succeeded(&self, answered: &Answered) {
        self.all_succeeded(std::iter::once(answered));
    }

    /// Records a request that took several runs.
    pub(crate) fn all_succeeded<'a>(&self, runs: impl Iterator<Item = &'a Answered>) {
        let now = clock::now();
        for (at, run) in runs.enumerate() {
            let encode = now.saturating_duration_since(run.ran);
            run.of.answered(run.api, run.n_rows, run.decode, run.phases, encode);
            if at == 0 {
                let latency = now.saturating_duration_since(run.started);
                self.metrics.finish(run.of.model(), run.api, Code::Ok, latency);
            }
        }
    }

    /// Records a request that failed. A name that is not a model's is counted as unknown.
    pub(crate) fn failed(&self, api: Api, name: Option<&ModelName>, error: &Error) {
        let known = name.filter(|name| self.models.status(name.as_str()).is_some());
        self.metrics.finish(&self.metrics.of_model(known), api, error.code(), Duration::ZERO);
        if error.retry_after().is_some() {
            self.metrics.refuse(Refused::Queue);
        }
    }
}

impl Answered {
    /// The outputs with their names.
    pub(crate) fn named(&self) -> Vec<(&str, &Tensor)> {
        let specs = self.outputs.iter().filter_map(|&index| self.signature.outputs().get(index));
        specs.map(|spec| &*spec.name).zip(&self.tensors).collect()
    }
}

/// Waits no longer than the deadline. What is ready at once is taken even then, and costs no timer.
pub(crate) async fn until<T>(
    deadline: Option<Instant>,
    future: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let Some(deadline) = deadline else { return future.await };
    let mut future = std::pin::pin!(future);
    if let Some(result) = poll_immediate(future.as_mut()).await {
        return result;
    }
    let text = "deadline exceeded before the model answered";
    let late = |_| Err(Error::new(Code::DeadlineExceeded, Blame::Us, text));
    timeout_at(deadline.into(), future).await.unwrap_or_else(late)
}
