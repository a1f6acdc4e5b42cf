//! What a configuration may say, and when a model counts as settled: pure functions with TensorFlow Serving's texts.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use salver_lifecycle::{ModelName, Phase, Version, VersionState};
use salver_predict::{Blame, Code, Error, ModelConfig};

/// How strictly configurations are judged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Strictness {
    /// As TensorFlow Serving does: every model needs a platform, and labels need available versions also at start-up.
    pub(crate) is_strict: bool,
    /// A new label may stand for a version that is not available.
    pub(crate) new_labels_for_unavailable: bool,
}

/// The configured models, by name.
pub(crate) type Configs = BTreeMap<ModelName, ModelConfig>;

/// Checks a whole new configuration against the present one. `is_available` says whether a version answers requests now.
///
/// # Errors
/// With TensorFlow Serving's codes and texts; nothing of the configuration may then be applied.
pub(crate) fn check(
    wanted: Vec<ModelConfig>,
    present: &Configs,
    is_available: impl Fn(&str, Version) -> bool,
    strictness: Strictness,
) -> Result<Configs, Error> {
    let mut configs = Configs::new();
    for config in wanted {
        let name = ModelName::new(&config.name).map_err(|error| Error::invalid(error.to_string()))?;
        check_one(&config, strictness)?;
        if let Some(before) = present.get(&name) {
            check_platform_change(before, &config)?;
        }
        check_labels(&config, present.get(&name), |version| is_available(&name, version), strictness)?;
        if configs.contains_key(&name) {
            return Err(Error::invalid(format!(
                "Illegal to list model {name} multiple times in config list"
            )));
        }
        configs.insert(name, config);
    }
    Ok(configs)
}

fn check_one(config: &ModelConfig, strictness: Strictness) -> Result<(), Error> {
    let ModelConfig { name, base_path, platform, .. } = config;
    let is_uri = base_path.split_once("://").is_some_and(|(scheme, _)| !scheme.is_empty());
    if !is_uri && !Path::new(base_path).is_absolute() {
        return Err(Error::invalid(format!(
            "Expected model {name} to have an absolute path or URI; got base_path()={base_path}"
        )));
    }
    // A model's format is told by its content whatever is said; these are the names that TensorFlow Serving and Triton use.
    match platform.as_str() {
        "tensorflow" | "onnx" | "onnxruntime_onnx" => Ok(()),
        "" if !strictness.is_strict => Ok(()),
        "" => Err(Error::invalid(format!("Model {name} has no model_platform"))),
        _ => Err(Error::invalid(format!("Model {name} requests unsupported platform {platform}"))),
    }
}

/// A model without a platform takes any, so only a change from one to another is one.
fn check_platform_change(before: &ModelConfig, after: &ModelConfig) -> Result<(), Error> {
    let (old, new) = (&before.platform, &after.platform);
    if old.is_empty() || new.is_empty() || old == new {
        return Ok(());
    }
    let text = format!(
        "Illegal to change a model's platform. For model {} platform was {old} and new platform requested was {new}",
        after.name
    );
    Err(Error::invalid(text))
}

/// A label needs an available version, with these exceptions. Strict: with the flag, a label that is new or keeps its
/// version. Otherwise: all labels of a new model, which apply when the version becomes available; a label that keeps its
/// version; with the flag, a new label.
fn check_labels(
    config: &ModelConfig,
    before: Option<&ModelConfig>,
    is_available: impl Fn(Version) -> bool,
    strictness: Strictness,
) -> Result<(), Error> {
    for (label, &number) in &config.labels {
        let old = before.and_then(|before| before.labels.get(label));
        let (is_new, is_kept) = (old.is_none(), old == Some(&number));
        let flag = strictness.new_labels_for_unavailable;
        let is_excused = match strictness.is_strict {
            true => flag && (is_new || is_kept),
            false => before.is_none() || is_kept || (flag && is_new),
        };
        if !is_excused && !Version::from_i64(number).is_some_and(&is_available) {
            return Err(Error::client(
                Code::FailedPrecondition,
                format!(
                    "Request to assign label to version {number} of model {}, which is not currently available for \
                     inference",
                    config.name
                ),
            ));
        }
    }
    Ok(())
}

/// How far a model has come that somebody waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Some version answers requests.
    Available,
    /// No wanted version will, as things are.
    Failed(Failure),
    /// Not decided.
    Loading,
}

/// Why a model did not become available.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The highest version that failed; `None` when there is no version at all.
    pub(crate) version: Option<Version>,
    pub(crate) code: Code,
    pub(crate) message: String,
}

/// Judges one model by its versions' states and by what is wrong with its folder.
pub(crate) fn progress(states: &[VersionState], source_error: Option<&str>) -> Progress {
    let aspired = || states.iter().filter(|state| state.aspired);
    if aspired().any(|state| state.state.phase == Phase::Available) {
        return Progress::Available;
    }
    if aspired().any(|state| state.state.phase != Phase::End) {
        return Progress::Loading;
    }
    let failed = aspired().find_map(|state| Some((state.version, state.state.error.as_ref()?)));
    match (failed, source_error) {
        (Some((version, error)), _) => Progress::Failed(Failure {
            version: Some(version),
            code: crate::report::code(error.kind),
            message: error.message.clone(),
        }),
        (None, Some(message)) => {
            let message = message.to_owned();
            Progress::Failed(Failure { version: None, code: Code::NotFound, message })
        }
        (None, None) => Progress::Loading,
    }
}

/// The one error for all models that did not become available.
pub(crate) fn not_available(failures: &BTreeMap<ModelName, Failure>) -> Error {
    let list: String = failures
        .iter()
        .map(|(name, failure)| match failure.version {
            Some(version) => {
                format!("{{name: {name} version: {version}}} due to error: {}, ", failure.message)
            }
            None => format!("{{name: {name}}} due to error: {}, ", failure.message),
        })
        .collect();
    let text = format!("{} model(s) did not become available: {{{list}}}", failures.len());
    Error::new(Code::Unknown, Blame::Model, text)
}

/// The names of `after` that `before` does not have.
pub(crate) fn new_names(before: &Configs, after: &Configs) -> BTreeSet<ModelName> {
    after.keys().filter(|name| !before.contains_key(*name)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use salver_lifecycle::{ErrorKind, LoadError, State};
    use salver_predict::VersionPolicy;

    use super::*;

    fn config(name: &str, base_path: &str, platform: &str, labels: &[(&str, i64)]) -> ModelConfig {
        ModelConfig {
            name: name.into(),
            base_path: base_path.into(),
            platform: platform.into(),
            policy: VersionPolicy::Latest(1),
            labels: labels.iter().map(|(label, version)| ((*label).to_owned(), *version)).collect(),
        }
    }

    const DEFAULT: Strictness = Strictness { is_strict: false, new_labels_for_unavailable: false };
    const STRICT: Strictness = Strictness { is_strict: true, new_labels_for_unavailable: false };
    const FLAG: Strictness = Strictness { is_strict: false, new_labels_for_unavailable: true };
    const STRICT_FLAG: Strictness = Strictness { is_strict: true, new_labels_for_unavailable: true };

    #[test]
    fn configurations() {
        let present: Configs =
            [(ModelName::new("old").unwrap(), config("old", "/old", "tensorflow", &[]))].into();
        let check = |wanted: Vec<ModelConfig>, strictness, code: Code, message: &str| {
            let error = check(wanted.clone(), &present, |_, _| true, strictness).err();
            let got = error.as_ref().map_or((Code::Ok, ""), |error| (error.code(), error.message()));
            assert_eq!(got, (code, message), "{wanted:?}");
        };
        let one = |base_path, platform| vec![config("m", base_path, platform, &[])];
        let invalid = Code::InvalidArgument;
        check(vec![], DEFAULT, Code::Ok, "");
        check(one("/m", "tensorflow"), STRICT, Code::Ok, "");
        check(one("gs://bucket/m", "onnx"), DEFAULT, Code::Ok, "");
        check(one("/m", "onnxruntime_onnx"), DEFAULT, Code::Ok, "");
        check(one("/m", ""), DEFAULT, Code::Ok, "");
        check(one("/m", ""), STRICT, invalid, "Model m has no model_platform");
        check(one("/m", "hashmap"), DEFAULT, invalid, "Model m requests unsupported platform hashmap");
        check(
            one("m", "onnx"),
            DEFAULT,
            invalid,
            "Expected model m to have an absolute path or URI; got base_path()=m",
        );
        check(
            [one("/a", ""), one("/b", "")].concat(),
            DEFAULT,
            invalid,
            "Illegal to list model m multiple times in config list",
        );
        check(
            one("://m", "onnx"),
            DEFAULT,
            invalid,
            "Expected model m to have an absolute path or URI; got base_path()=://m",
        );
        check(vec![config("", "/m", "", &[])], DEFAULT, invalid, "model name is empty");
        check(vec![config("old", "/new", "", &[])], DEFAULT, Code::Ok, "");
        check(
            vec![config("old", "/new", "onnx", &[])],
            DEFAULT,
            invalid,
            "Illegal to change a model's platform. For model old platform was tensorflow and new platform requested was onnx",
        );
    }

    #[test]
    fn labels() {
        // Version 1 is available. What the model had before, what it is to have, and whether each strictness takes it.
        let check = |before: Option<&[(&str, i64)]>, after: &[(&str, i64)], expected: [bool; 4]| {
            let before = before.map(|labels| config("m", "/m", "", labels));
            let after = config("m", "/m", "", after);
            let got = [DEFAULT, FLAG, STRICT, STRICT_FLAG].map(|strictness| {
                let is_available = |version: Version| version.get() == 1;
                check_labels(&after, before.as_ref(), is_available, strictness).is_ok()
            });
            assert_eq!(got, expected, "{before:?} {after:?}");
        };
        let all = [true; 4];
        check(None, &[("stable", 1)], all);
        check(None, &[("stable", 2)], [true, true, false, true]);
        check(Some(&[]), &[("stable", 1)], all);
        check(Some(&[]), &[("stable", 2)], [false, true, false, true]);
        check(Some(&[("stable", 2)]), &[("stable", 2)], [true, true, false, true]);
        check(Some(&[("stable", 1)]), &[("stable", 2)], [false; 4]);
        check(Some(&[("stable", 1)]), &[("stable", -1)], [false; 4]);
        check(Some(&[("stable", 2)]), &[("stable", 1)], all);
        check(Some(&[("stable", 2)]), &[], all);
        let after = config("m", "/m", "", &[("stable", 2)]);
        let error = check_labels(&after, None, |_| false, STRICT).unwrap_err();
        assert_eq!(error.code(), Code::FailedPrecondition);
        assert_eq!(
            error.message(),
            "Request to assign label to version 2 of model m, which is not currently available for inference"
        );
    }

    fn state(version: u64, aspired: bool, phase: Phase) -> VersionState {
        let error = (phase == Phase::End && aspired)
            .then(|| LoadError::permanent(ErrorKind::Invalid, format!("broken {version}")));
        VersionState { version: Version::new(version).unwrap(), aspired, state: State { phase, error } }
    }

    #[test]
    fn a_model_is_waited_for_until_it_is_settled() {
        let failed = |version: Option<u64>, code, message: &str| {
            let version = version.and_then(Version::new);
            Progress::Failed(Failure { version, code, message: message.into() })
        };
        let check = |states: &[VersionState], source_error: Option<&str>, expected: Progress| {
            assert_eq!(progress(states, source_error), expected, "{states:?}");
        };
        check(&[], None, Progress::Loading);
        check(&[], Some("no folder"), failed(None, Code::NotFound, "no folder"));
        check(&[state(1, false, Phase::End)], None, Progress::Loading);
        check(&[state(1, true, Phase::Loading)], Some("no folder"), Progress::Loading);
        check(&[state(2, true, Phase::End), state(1, true, Phase::Loading)], None, Progress::Loading);
        check(&[state(2, true, Phase::End), state(1, true, Phase::Available)], None, Progress::Available);
        let broken = failed(Some(2), Code::InvalidArgument, "broken 2");
        check(&[state(2, true, Phase::End), state(1, true, Phase::End)], None, broken);
    }

    #[test]
    fn failures_are_told_together() {
        let failure = |version: Option<u64>, message: &str| Failure {
            version: version.and_then(Version::new),
            code: Code::NotFound,
            message: message.into(),
        };
        let name = |name| ModelName::new(name).unwrap();
        let failures = [(name("a"), failure(Some(3), "broken")), (name("b"), failure(None, "no folder"))];
        let error = not_available(&failures.into());
        assert_eq!(error.code(), Code::Unknown);
        assert_eq!(
            error.message(),
            "2 model(s) did not become available: {{name: a version: 3} due to error: broken, {name: b} due to error: \
             no folder, }"
        );
    }
}
