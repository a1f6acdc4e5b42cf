#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    reason = "a test that panics has failed"
)]

use std::collections::BTreeMap;

use salver_predict::{ModelName, Version};

use super::*;
use crate::text_config;

fn status(states: &[(u64, State, Option<&str>)]) -> ModelStatus {
    let versions = states
        .iter()
        .map(|&(version, state, error)| VersionStatus {
            version: Version(version),
            state,
            error: error.map(|text| (Code::Internal, text.to_owned())),
        })
        .collect();
    ModelStatus { name: ModelName::new("m").unwrap(), versions, labels: BTreeMap::new(), source_error: None }
}

fn request(name: &str, version_choice: Option<VersionChoice>) -> pb::GetModelStatusRequest {
    let spec = pb::ModelSpec { name: name.into(), version_choice, ..pb::ModelSpec::default() };
    pb::GetModelStatusRequest { model_spec: Some(spec) }
}

#[test]
fn versions_are_listed_from_the_highest() {
    let known = || {
        Some(status(&[
            (123, State::End, None),
            (7, State::End, Some("broken")),
            (124, State::Available, None),
        ]))
    };
    let all = status_response(&request("m", None), |_| known()).unwrap();
    let listed: Vec<(i64, i32, i32, &str)> = all
        .model_version_status
        .iter()
        .map(|one| {
            (
                one.version,
                one.state,
                one.status.as_ref().unwrap().error_code,
                &*one.status.as_ref().unwrap().error_message,
            )
        })
        .collect();
    assert_eq!(listed, [(124, 30, 0, ""), (123, 50, 0, ""), (7, 50, 13, "broken")]);

    let one = status_response(&request("m", Some(VersionChoice::Version(123))), |_| known()).unwrap();
    assert_eq!(one.model_version_status.len(), 1);
    let label = request("m", Some(VersionChoice::VersionLabel("unknown".into())));
    assert_eq!(status_response(&label, |_| known()).unwrap(), all);
}

#[test]
fn unknown_models_and_versions_are_not_found() {
    let known = || Some(status(&[(1, State::Available, None)]));
    let cases = [
        (
            request("m", Some(VersionChoice::Version(2))),
            known(),
            Code::NotFound,
            "Could not find version 2 of model m",
        ),
        (
            request("m", Some(VersionChoice::Version(-1))),
            known(),
            Code::NotFound,
            "Could not find version -1 of model m",
        ),
        (request("x", None), None, Code::NotFound, "Could not find any versions of model x"),
        (request("m", None), Some(status(&[])), Code::NotFound, "Could not find any versions of model m"),
        (pb::GetModelStatusRequest::default(), None, Code::InvalidArgument, "Missing ModelSpec"),
    ];
    for (request, found, code, text) in cases {
        let error = status_response(&request, |_| found).unwrap_err();
        assert_eq!((error.code(), error.message()), (code, text));
    }
}

fn resolve(text: &str) -> Result<Vec<ModelConfig>, Error> {
    resolve_models(text_config::model_server_config(text).unwrap())
}

#[test]
fn a_list_becomes_models() {
    let models = resolve(
        "model_config_list { config { name: 'a' base_path: '/m/a' model_platform: 'tensorflow'
           model_version_policy { specific { versions: [42, 43] } } version_labels { key: 'stable' value: 43 } }
         config { name: 'b' base_path: 's3://m/b' model_type: TENSORFLOW model_version_policy { latest {} } }
         config { name: 'c' base_path: '/m/c' model_version_policy { all {} } } }",
    )
    .unwrap();
    let summary: Vec<_> = models
        .iter()
        .map(|model| (&*model.name, &*model.platform, model.policy.clone(), model.labels.len()))
        .collect();
    assert_eq!(
        summary,
        [
            ("a", "tensorflow", VersionPolicy::Specific(vec![42, 43]), 1),
            ("b", "tensorflow", VersionPolicy::Latest(1), 0),
            ("c", "", VersionPolicy::All, 0),
        ]
    );
    assert_eq!(resolve("").unwrap(), []);
}

#[test]
fn what_cannot_be_served_is_refused() {
    let cases = [
        ("config { base_path: '/x' }", "a model in the config list has no name"),
        (
            "config { name: 'a' base_path: '/x' model_type: OTHER }",
            "Model a requests unsupported platform OTHER",
        ),
        (
            "config { name: 'a' base_path: '/x' model_platform: 'onnx' model_type: TENSORFLOW }",
            "Illegal setting both ModelServerConfig::model_type(deprecated) and ModelServerConfig::model_platform.",
        ),
        ("config { name: 'a' base_path: '/x' logging_config {} }", "No request-logger-creator provided."),
    ];
    for (list, expected) in cases {
        let error = resolve(&format!("model_config_list {{ {list} }}")).unwrap_err();
        assert_eq!((error.code(), error.message()), (Code::InvalidArgument, expected));
    }
    let custom = resolve("custom_model_config { type_url: 'x' }").unwrap_err();
    assert_eq!(custom.code(), Code::InvalidArgument);
}

#[test]
fn a_reload_takes_a_list_only() {
    let reload = |config| reload_models(pb::ReloadConfigRequest { config, metric_names: vec![] });
    let list =
        pb::ModelServerConfig { config: Some(Config::ModelConfigList(pb::ModelConfigList::default())) };
    assert_eq!(reload(Some(list)).unwrap(), []);
    for config in [None, Some(pb::ModelServerConfig::default())] {
        let text = reload(config).unwrap_err().to_string();
        assert!(
            text.starts_with("ServerModelConfig type not supported by HandleReloadConfigRequest."),
            "{text}"
        );
    }
}
