//! Classify, Regress and MultiInference, whichever front they came in by: from examples to a result.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use salver_predict::{Error, Target};
use salver_tensor::Tensor;
use salver_wire::proto::tensorflow::serving::{ClassificationResult, RegressionResult};
use salver_wire::tfs::{self, Method, Task};

use crate::core::{Answered, Core, Question};
use crate::metrics::Api;
use crate::terms::Terms;

/// What examples are turned into.
#[derive(Debug)]
pub(crate) enum Inferred {
    Classes(ClassificationResult),
    Values(RegressionResult),
}

/// A question about examples to one version of a model.
pub(crate) struct Asked<'a> {
    pub(crate) api: Api,
    pub(crate) started: Instant,
    pub(crate) target: &'a Arc<dyn Target>,
    /// One serialised example per element.
    pub(crate) examples: &'a Tensor,
    pub(crate) terms: Terms,
}

/// What a request with a single signature asks for. The structure of the signature decides; its method name only where
/// the server is told to check that.
pub(crate) fn task(core: &Core, target: &dyn Target, name: &str, method: Method) -> Result<Task, Error> {
    let signature = Arc::clone(tfs::example_signature(target.signatures(), name)?);
    if core.config.check_method_name {
        method.check_name(&signature)?;
    }
    let outputs = method.outputs(&signature)?;
    Ok(Task { signature, method, outputs })
}

/// Memory that a tensor of examples takes.
pub(crate) fn n_bytes(examples: &Tensor) -> usize {
    examples.n_bytes().saturating_add(examples.shape().n_elements().saturating_mul(size_of::<Bytes>()))
}

/// Runs one task.
pub(crate) async fn infer(core: &Core, asked: &Asked<'_>, task: Task) -> Result<(Answered, Inferred), Error> {
    let Task { signature, method, outputs } = task;
    let n_examples = asked.examples.shape().n_elements();
    let question = Question {
        target: Arc::clone(asked.target),
        signature,
        inputs: vec![asked.examples.clone()],
        outputs,
        terms: asked.terms,
    };
    let answered = core.ask(asked.api, asked.started, question).await?;
    let outputs = answered.named();
    let inferred = match method {
        Method::Classify => Inferred::Classes(tfs::classification_result(&outputs, n_examples)?),
        Method::Regress => Inferred::Values(tfs::regression_result(&outputs, n_examples)?),
    };
    drop(outputs);
    Ok((answered, inferred))
}
