use std::sync::Arc;
use std::time::Duration;

use salver_batch::{Refused, RunError, Task};
use salver_engine::{ErrorKind, Format};
use salver_lifecycle::Handle;
use salver_predict::{
    Answer, Asker, Blame, BoxFuture, Call, Code, Error, ModelId, Phases, Target, check_dims, check_inputs,
};
use salver_tensor::Signature;

use crate::Loaded;

/// When to ask again for a model that is just being replaced.
const AFTER_UNLOAD: Duration = Duration::from_millis(100);

/// When an engine whose process ended may be back.
const AFTER_RESTART: Duration = Duration::from_secs(1);

/// A loaded version that a request holds.
#[derive(Debug)]
pub(crate) struct Held(pub(crate) Handle<Loaded>);

impl Target for Held {
    fn id(&self) -> &ModelId {
        &self.0.id
    }

    fn signatures(&self) -> &[Arc<Signature>] {
        self.0.signatures()
    }

    fn platform(&self) -> &str {
        match self.0.info.format {
            Format::Onnx => "onnx",
            Format::Keras => "keras",
            _ => "tensorflow",
        }
    }

    fn refusal(&self, name: &str) -> Option<Error> {
        let (_, reason) = self.0.model.refused().iter().find(|(refused, _)| &**refused == name)?;
        let text = format!("Serving signature key \"{name}\" cannot be run: {reason}");
        Some(Error::new(Code::Unimplemented, Blame::Model, text))
    }

    fn predict(self: Arc<Self>, call: Call) -> BoxFuture<'static, Result<Answer, Error>> {
        Box::pin(async move {
            let Some(position) = position(self.signatures(), &call.signature) else {
                let text = format!("signature '{}' is not one of this model", call.signature.name());
                return Err(Error::new(Code::Internal, Blame::Us, text));
            };
            let result = self.0.answer(position, call).await;
            if let Some(counters) = self.0.counters.get(position) {
                counters.count(&result);
            }
            result
        })
    }
}

impl Loaded {
    async fn answer(&self, position: usize, call: Call) -> Result<Answer, Error> {
        check_inputs(&call.signature, &call.inputs)?;
        if let Some(&at) = call.outputs.iter().find(|&&at| at >= call.signature.outputs().len()) {
            let n_outputs = call.signature.outputs().len();
            return Err(Error::invalid(format!("output {at} is asked for, the signature has {n_outputs}")));
        }
        // A shape that a signature does not have but takes is the likely reason when the run fails.
        let misfit = check_dims(&call.signature, &call.inputs).err();
        let Call { inputs, outputs, deadline, asker: Asker { priority, caller }, .. } = call;
        let task = Task { deadline, priority, caller, ..Task::new(position, inputs, outputs) };
        let failed = |error| match (error, misfit) {
            (RunError::Engine(_), Some(misfit)) => misfit,
            (error, _) => failed(error),
        };
        let done = self.lanes.submit(task).map_err(|error| refused(&error))?.await.map_err(failed)?;
        let phases = Phases { queue: done.queued, run: done.ran };
        Ok(Answer { outputs: done.outputs, phases, version: None })
    }
}

/// Callers nearly always pass one of the model's own.
fn position(signatures: &[Arc<Signature>], wanted: &Arc<Signature>) -> Option<usize> {
    let same = signatures.iter().position(|signature| Arc::ptr_eq(signature, wanted));
    same.or_else(|| signatures.iter().position(|signature| signature == wanted))
}

fn refused(refused: &Refused) -> Error {
    let text = refused.to_string();
    match refused {
        Refused::QueueFull { retry_after, .. }
        | Refused::TooLate { retry_after }
        | Refused::Limited { retry_after }
        | Refused::Displaced { retry_after } => Error::overloaded(Code::Unavailable, text, *retry_after),
        Refused::TooLarge { .. } | Refused::TooManyRows { .. } => Error::invalid(text),
        _ => Error::overloaded(Code::Unavailable, text, AFTER_UNLOAD),
    }
}

fn failed(error: RunError) -> Error {
    let text = error.to_string();
    match error {
        RunError::DeadlineExceeded => Error::new(Code::DeadlineExceeded, Blame::Us, text),
        RunError::Refused(reason) => refused(&reason),
        RunError::Engine(error) => match error.kind() {
            ErrorKind::InvalidInput => Error::invalid(text),
            ErrorKind::ResourceExhausted => Error::new(Code::ResourceExhausted, Blame::Us, text),
            ErrorKind::Unavailable => Error::overloaded(Code::Unavailable, text, AFTER_RESTART),
            _ => Error::new(Code::Internal, Blame::Model, text),
        },
        _ => Error::overloaded(Code::Unavailable, text, AFTER_UNLOAD),
    }
}

#[cfg(test)]
mod tests {
    use salver_engine::Error as EngineError;

    use super::*;

    #[test]
    fn errors_say_who_caused_them() {
        let check = |error: Error, code: Code, blame: Blame, retry: Option<Duration>| {
            assert_eq!((error.code(), error.blame(), error.retry_after()), (code, blame, retry), "{error}");
        };
        let engine = |kind| failed(RunError::Engine(EngineError::new(kind, "x")));
        check(engine(ErrorKind::InvalidInput), Code::InvalidArgument, Blame::Client, None);
        check(engine(ErrorKind::Unsupported), Code::Internal, Blame::Model, None);
        check(engine(ErrorKind::InvalidModel), Code::Internal, Blame::Model, None);
        check(engine(ErrorKind::Internal), Code::Internal, Blame::Model, None);
        check(engine(ErrorKind::ResourceExhausted), Code::ResourceExhausted, Blame::Us, None);
        check(engine(ErrorKind::Unavailable), Code::Unavailable, Blame::Us, Some(AFTER_RESTART));
        check(failed(RunError::DeadlineExceeded), Code::DeadlineExceeded, Blame::Us, None);
        check(failed(RunError::Closed), Code::Unavailable, Blame::Us, Some(AFTER_UNLOAD));
        let retry_after = Duration::from_secs(2);
        for reason in [
            Refused::QueueFull { n_waiting: 3, retry_after },
            Refused::TooLate { retry_after },
            Refused::Limited { retry_after },
            Refused::Displaced { retry_after },
        ] {
            check(refused(&reason), Code::Unavailable, Blame::Us, Some(retry_after));
            check(failed(RunError::Refused(reason)), Code::Unavailable, Blame::Us, Some(retry_after));
        }
        for large in [
            Refused::TooLarge { n_rows: 3, max_batch_size: 2 },
            Refused::TooManyRows { n_rows: 3, max_task_rows: 2 },
        ] {
            check(refused(&large), Code::InvalidArgument, Blame::Client, None);
        }
    }
}
