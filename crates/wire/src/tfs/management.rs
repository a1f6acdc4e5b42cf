//! ModelService: the state of versions, and configurations that replace the set of models.

use salver_predict::{Code, Error, ModelConfig, ModelStatus, State, VersionPolicy, VersionStatus};

use crate::proto::tensorflow::serving as pb;
use crate::proto::tensorflow::serving::file_system_storage_path_source_config::ServableVersionPolicy;
use crate::proto::tensorflow::serving::file_system_storage_path_source_config::servable_version_policy::PolicyChoice;
use crate::proto::tensorflow::serving::model_server_config::Config;
use crate::proto::tensorflow::serving::model_spec::VersionChoice;
use crate::proto::tensorflow::serving::model_version_status::State as ProtoState;
use crate::status;
use crate::tfs::predict::request_spec;

/// Answers GetModelStatus: the version asked for, or all of them, the highest first. A label in the request is
/// ignored. `find` looks a model up by its name.
///
/// # Errors
/// [`Code::InvalidArgument`] when no model is named; [`Code::NotFound`] with TensorFlow Serving's texts when the model
/// has no such version, or none.
pub fn status_response(
    request: &pb::GetModelStatusRequest,
    find: impl FnOnce(&str) -> Option<ModelStatus>,
) -> Result<pb::GetModelStatusResponse, Error> {
    let spec = request_spec(request.model_spec.as_ref())?;
    let mut versions = find(spec.name.as_str()).map(|status| status.versions).unwrap_or_default();
    let choice = request.model_spec.as_ref().and_then(|spec| spec.version_choice.as_ref());
    if let Some(VersionChoice::Version(wanted)) = choice {
        versions.retain(|version| u64::try_from(*wanted) == Ok(version.version.0));
        if versions.is_empty() {
            let text = format!("Could not find version {wanted} of model {}", spec.name);
            return Err(Error::client(Code::NotFound, text));
        }
    }
    if versions.is_empty() {
        let text = format!("Could not find any versions of model {}", spec.name);
        return Err(Error::client(Code::NotFound, text));
    }
    versions.sort_by_key(|version| std::cmp::Reverse(version.version));
    Ok(pb::GetModelStatusResponse { model_version_status: versions.iter().map(version_status).collect() })
}

fn version_status(version: &VersionStatus) -> pb::ModelVersionStatus {
    let state = match version.state {
        State::Start => ProtoState::Start,
        State::Loading => ProtoState::Loading,
        State::Available => ProtoState::Available,
        State::Unloading => ProtoState::Unloading,
        State::End => ProtoState::End,
    };
    let (code, message) = version.error.clone().unwrap_or((Code::Ok, String::new()));
    pb::ModelVersionStatus {
        version: i64::try_from(version.version.0).unwrap_or(i64::MAX),
        state: state.into(),
        status: Some(status_proto(code, message)),
    }
}

/// An outcome inside a message.
pub fn status_proto(code: Code, message: String) -> pb::StatusProto {
    pb::StatusProto { error_code: status::number(code), error_message: message }
}

/// The models that a HandleReloadConfigRequest asks for. Whether they may be served together is not judged here.
///
/// # Errors
/// [`Code::InvalidArgument`] for anything but a list of models, and as [`resolve_models`].
pub fn reload_models(request: pb::ReloadConfigRequest) -> Result<Vec<ModelConfig>, Error> {
    match request.config.and_then(|config| config.config) {
        Some(Config::ModelConfigList(list)) => resolve_list(list),
        None | Some(Config::CustomModelConfig(_)) => Err(Error::invalid(
            "ServerModelConfig type not supported by HandleReloadConfigRequest. Only ModelConfigList is currently \
             supported",
        )),
    }
}

/// The models of a configuration file; an empty one gives none. Whether they may be served together is not judged here.
///
/// # Errors
/// [`Code::InvalidArgument`] with TensorFlow Serving's texts: a model without a name, a platform given in both ways or as
/// `OTHER`, or a setting that is not supported. A missing platform is accepted.
pub fn resolve_models(config: pb::ModelServerConfig) -> Result<Vec<ModelConfig>, Error> {
    match config.config {
        None => Ok(Vec::new()),
        Some(Config::ModelConfigList(list)) => resolve_list(list),
        Some(Config::CustomModelConfig(_)) => {
            Err(Error::invalid("custom_model_config is not supported, expected model_config_list"))
        }
    }
}

fn resolve_list(list: pb::ModelConfigList) -> Result<Vec<ModelConfig>, Error> {
    list.config.into_iter().map(resolve_model).collect()
}

fn resolve_model(model: pb::ModelConfig) -> Result<ModelConfig, Error> {
    if model.name.is_empty() {
        return Err(Error::invalid("a model in the config list has no name"));
    }
    if model.logging_config.is_some() {
        return Err(Error::invalid("No request-logger-creator provided."));
    }
    Ok(ModelConfig {
        platform: platform(&model)?,
        name: model.name,
        base_path: model.base_path,
        policy: policy(model.model_version_policy),
        labels: model.version_labels,
    })
}

#[expect(deprecated, reason = "old configuration files carry the field")]
fn platform(model: &pb::ModelConfig) -> Result<String, Error> {
    let model_type = pb::ModelType::try_from(model.model_type).unwrap_or(pb::ModelType::Other);
    match (model_type, model.model_platform.is_empty()) {
        (pb::ModelType::Unspecified, _) => Ok(model.model_platform.clone()),
        (_, false) => Err(Error::invalid(
            "Illegal setting both ModelServerConfig::model_type(deprecated) and ModelServerConfig::model_platform.",
        )),
        (pb::ModelType::Tensorflow, true) => Ok("tensorflow".to_owned()),
        (pb::ModelType::Other, true) => {
            Err(Error::invalid(format!("Model {} requests unsupported platform OTHER", model.name)))
        }
    }
}

fn policy(policy: Option<ServableVersionPolicy>) -> VersionPolicy {
    match policy.and_then(|policy| policy.policy_choice) {
        None => VersionPolicy::Latest(1),
        Some(PolicyChoice::Latest(latest)) => VersionPolicy::Latest(latest.num_versions.max(1)),
        Some(PolicyChoice::All(_)) => VersionPolicy::All,
        Some(PolicyChoice::Specific(specific)) => VersionPolicy::Specific(specific.versions),
    }
}

#[cfg(test)]
mod tests;
