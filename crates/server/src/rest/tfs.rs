//! TensorFlow Serving's REST interface.

use std::sync::Arc;
use std::time::Instant;

use salver_predict::{Code, Error, ModelSpec, ModelStatus, VersionChoice, VersionStatus};
use salver_tensor::Signature;
use salver_wire::json;
use salver_wire::tfs::{Method, example_tensor};

use crate::access::Entry;
use crate::core::{Core, Question};
use crate::examples::{self, Asked, Inferred};
use crate::metrics::Api;
use crate::rest::body::Received;
use crate::rest::reply::Reply;
use crate::terms::Terms;

/// What is known of a request besides its body.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Circumstances<'a> {
    pub(crate) started: Instant,
    pub(crate) terms: Terms,
    pub(crate) entry: Option<&'a Entry>,
}

/// The bounds of what JSON may ask for.
pub(crate) fn limits(core: &Core) -> json::Limits {
    let limits = &core.config.limits;
    json::Limits { max_depth: limits.json_depth, max_elements: limits.tensor_elements }
}

pub(crate) async fn predict(
    core: &Core,
    spec: &ModelSpec,
    body: &Received,
    about: Circumstances<'_>,
) -> Reply {
    match answer(core, spec, body, about).await {
        Ok(body) => Reply::json(body),
        Err(error) => {
            core.failed(Api::RestPredict, Some(&spec.name), &error);
            Reply::error(&error)
        }
    }
}

/// A body that is not JSON is reported before a model that is not there.
async fn answer(
    core: &Core,
    spec: &ModelSpec,
    body: &Received,
    about: Circumstances<'_>,
) -> Result<Vec<u8>, Error> {
    let target = match core.resolve(spec, about.terms.until).await {
        Ok(target) => target,
        Err(error) => return Err(json::check_request(&body.bytes, limits(core)).err().unwrap_or(error)),
    };
    if let Some(entry) = about.entry {
        entry.answered_by(target.id());
    }
    let find = |name: &str| {
        let signature = target.signature(name)?;
        if core.config.check_method_name {
            salver_wire::tfs::check_method_name(signature)?;
        }
        Ok(Arc::<Signature>::clone(signature))
    };
    let json::Decoded { signature, inputs, format } = json::decode_predict(&body.bytes, find, limits(core))?;
    body.reserve_tensors(&inputs)?;
    let outputs = (0..signature.outputs().len()).collect();
    let question = Question { target, signature, inputs, outputs, terms: about.terms };
    let answered = core.ask(Api::RestPredict, about.started, question).await?;
    let body = json::encode_predict(format, &answered.named(), core.config.non_finite)?;
    core.succeeded(&answered);
    Ok(body)
}

/// Classify and regress.
pub(crate) async fn example(
    core: &Core,
    spec: &ModelSpec,
    method: Method,
    body: &Received,
    about: Circumstances<'_>,
) -> Reply {
    let api = match method {
        Method::Classify => Api::RestClassify,
        Method::Regress => Api::RestRegress,
    };
    match infer(core, spec, method, api, body, about).await {
        Ok(body) => Reply::json(body),
        Err(error) => {
            core.failed(api, Some(&spec.name), &error);
            Reply::error(&error)
        }
    }
}

/// Unlike that of a prediction, the whole body is read before the model is looked for.
async fn infer(
    core: &Core,
    spec: &ModelSpec,
    method: Method,
    api: Api,
    body: &Received,
    about: Circumstances<'_>,
) -> Result<Vec<u8>, Error> {
    let json::Examples { signature_name, input } = json::decode_examples(&body.bytes, limits(core))?;
    let target = core.resolve(spec, about.terms.until).await?;
    if let Some(entry) = about.entry {
        entry.answered_by(target.id());
    }
    let task = examples::task(core, &*target, &signature_name, method)?;
    let tensor = example_tensor(Some(input), core.config.limits.decompressed_bytes)?;
    body.reserve(examples::n_bytes(&tensor))?;
    let (target, examples, terms) = (&target, &tensor, about.terms);
    let asked = Asked { api, started: about.started, target, examples, terms };
    let (answered, inferred) = examples::infer(core, &asked, task).await?;
    let body = match &inferred {
        Inferred::Classes(result) => json::encode_classify(result, core.config.non_finite),
        Inferred::Values(result) => json::encode_regress(result, core.config.non_finite),
    };
    core.succeeded(&answered);
    Ok(body)
}

pub(crate) fn status(core: &Core, spec: &ModelSpec, about: Circumstances<'_>) -> Reply {
    let status = core.models.status(spec.name.as_str());
    let found = find_status(status.as_ref(), spec, core.config.strict_compat);
    finish(core, spec, about, found)
}

pub(crate) async fn metadata(core: &Core, spec: &ModelSpec, about: Circumstances<'_>) -> Reply {
    let target = core.resolve(spec, about.terms.until).await;
    let found = target.map(|target| {
        json::metadata_body(target.id(), target.signatures().iter().map(|signature| &**signature))
    });
    finish(core, spec, about, found)
}

pub(crate) fn models(core: &Core) -> Reply {
    Reply::json(json::models_body(&core.models.list()))
}

fn finish(core: &Core, spec: &ModelSpec, about: Circumstances<'_>, found: Result<Vec<u8>, Error>) -> Reply {
    match found {
        Ok(body) => {
            let of = core.metrics.of_model(Some(&spec.name));
            let latency = crate::clock::now().saturating_duration_since(about.started);
            core.metrics.finish(&of, Api::RestStatus, Code::Ok, latency);
            Reply::json(body)
        }
        Err(error) => {
            core.failed(Api::RestStatus, Some(&spec.name), &error);
            Reply::error(&error)
        }
    }
}

fn find_status(
    status: Option<&ModelStatus>,
    spec: &ModelSpec,
    ignores_labels: bool,
) -> Result<Vec<u8>, Error> {
    let none =
        || Error::client(Code::NotFound, format!("Could not find any versions of model {}", spec.name));
    let status = status.filter(|status| !status.versions.is_empty()).ok_or_else(none)?;
    let wanted = match &spec.version {
        VersionChoice::Latest => None,
        VersionChoice::Label(_) if ignores_labels => None,
        VersionChoice::Number(number) => Some(*number),
        VersionChoice::Label(label) => {
            let version = status
                .labels
                .get(label)
                .ok_or_else(|| Error::invalid(format!("Unrecognized servable version label: {label}")))?;
            Some(i64::try_from(version.0).unwrap_or(i64::MAX))
        }
    };
    let is_wanted =
        |version: &&VersionStatus| wanted.is_none_or(|wanted| u64::try_from(wanted) == Ok(version.version.0));
    let versions: Vec<&VersionStatus> = status.versions.iter().filter(is_wanted).collect();
    match (versions.is_empty(), wanted) {
        (true, Some(wanted)) => {
            let text = format!("Could not find version {wanted} of model {}", spec.name);
            Err(Error::client(Code::NotFound, text))
        }
        _ => Ok(json::status_body(status, versions)),
    }
}
