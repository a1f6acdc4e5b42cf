//! Bodies that are no predictions: errors, status, metadata, the list of models.

use std::collections::BTreeMap;

use salver_predict::{Code, ModelId, ModelStatus, VersionStatus};
use salver_tensor::{DType, Signature, TensorSpec};
use serde::Serialize;

use super::write_string;
use crate::proto::tensorflow::DataType;
use crate::{status, tfs};

/// `{"error": "..."}`.
pub fn error_body(message: &str) -> Vec<u8> {
    let mut body = b"{\n    \"error\": ".to_vec();
    write_string(&mut body, message.as_bytes());
    body.extend_from_slice(b"\n}");
    body
}

fn pretty(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec_pretty(value).expect("names and numbers have a JSON form")
}

#[derive(Serialize)]
struct StatusPage<'a> {
    model_version_status: Vec<VersionPage>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<&'a str, String>,
}

#[derive(Serialize)]
struct VersionPage {
    version: String,
    state: &'static str,
    status: ErrorPage,
}

#[derive(Serialize)]
struct ErrorPage {
    error_code: &'static str,
    error_message: String,
}

fn version_page(version: &VersionStatus) -> VersionPage {
    let (code, message) = version.error.clone().unwrap_or((Code::Ok, String::new()));
    VersionPage {
        version: version.version.to_string(),
        state: version.state.name(),
        status: ErrorPage { error_code: status::name(code), error_message: message },
    }
}

fn labels(model: &ModelStatus) -> BTreeMap<&str, String> {
    model.labels.iter().map(|(label, version)| (label.as_str(), version.to_string())).collect()
}

/// The status of some versions of a model, in TensorFlow Serving's form. `labels` is added when the model has any.
pub fn status_body<'a>(
    model: &ModelStatus,
    versions: impl IntoIterator<Item = &'a VersionStatus>,
) -> Vec<u8> {
    let model_version_status = versions.into_iter().map(version_page).collect();
    pretty(&StatusPage { model_version_status, labels: labels(model) })
}

#[derive(Serialize)]
struct ModelsPage<'a> {
    models: Vec<ModelPage<'a>>,
}

#[derive(Serialize)]
struct ModelPage<'a> {
    name: &'a str,
    versions: Vec<VersionPage>,
    labels: BTreeMap<&'a str, String>,
    /// Why the model's folder gives no versions, if it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

/// The list of models, which TensorFlow Serving does not have:
/// `{"models": [{"name": ..., "versions": [...], "labels": {...}}]}`.
pub fn models_body(models: &[ModelStatus]) -> Vec<u8> {
    pretty(&ModelsPage { models: models.iter().map(model_page).collect() })
}

fn model_page(model: &ModelStatus) -> ModelPage<'_> {
    ModelPage {
        name: model.name.as_str(),
        versions: model.versions.iter().map(version_page).collect(),
        labels: labels(model),
        error: model.source_error.as_deref(),
    }
}

#[derive(Serialize)]
struct MetadataPage<'a> {
    model_spec: SpecPage<'a>,
    metadata: OuterPage<'a>,
}

#[derive(Serialize)]
struct SpecPage<'a> {
    name: &'a str,
    signature_name: &'a str,
    version: String,
}

#[derive(Serialize)]
struct OuterPage<'a> {
    signature_def: InnerPage<'a>,
}

#[derive(Serialize)]
struct InnerPage<'a> {
    signature_def: BTreeMap<&'a str, SignaturePage<'a>>,
}

#[derive(Serialize)]
struct SignaturePage<'a> {
    inputs: BTreeMap<&'a str, TensorPage<'a>>,
    outputs: BTreeMap<&'a str, TensorPage<'a>>,
    method_name: &'a str,
    /// TensorFlow Serving prints this object, and it is empty there.
    defaults: BTreeMap<&'a str, ()>,
}

#[derive(Serialize)]
struct TensorPage<'a> {
    dtype: &'static str,
    tensor_shape: ShapePage,
    name: &'a str,
}

#[derive(Serialize)]
struct ShapePage {
    dim: Vec<DimPage>,
    unknown_rank: bool,
}

#[derive(Serialize)]
struct DimPage {
    size: String,
    name: &'static str,
}

/// The signatures of one version of a model, in TensorFlow Serving's form.
pub fn metadata_body<'a>(id: &ModelId, signatures: impl IntoIterator<Item = &'a Signature>) -> Vec<u8> {
    let signatures = signatures.into_iter().map(|signature| (&**signature.name(), signature_page(signature)));
    pretty(&MetadataPage {
        model_spec: SpecPage { name: id.name.as_str(), signature_name: "", version: id.version.to_string() },
        metadata: OuterPage { signature_def: InnerPage { signature_def: signatures.collect() } },
    })
}

fn signature_page(signature: &Signature) -> SignaturePage<'_> {
    SignaturePage {
        inputs: tensor_pages(signature.declared_inputs()),
        outputs: tensor_pages(signature.declared_outputs()),
        method_name: signature.method_name(),
        defaults: BTreeMap::new(),
    }
}

fn tensor_pages(specs: &[TensorSpec]) -> BTreeMap<&str, TensorPage<'_>> {
    let page = |spec: &TensorSpec| DimPage::of(spec);
    specs
        .iter()
        .map(|spec| {
            let tensor_shape = ShapePage { dim: page(spec), unknown_rank: spec.dims.known().is_none() };
            (&*spec.name, TensorPage { dtype: type_name(spec.dtype), tensor_shape, name: &spec.tensor_name })
        })
        .collect()
}

impl DimPage {
    fn of(spec: &TensorSpec) -> Vec<DimPage> {
        let size = |size: &Option<usize>| size.map_or_else(|| "-1".to_owned(), |size| size.to_string());
        let dims = spec.dims.known().unwrap_or_default();
        dims.iter().map(|dim| DimPage { size: size(dim), name: "" }).collect()
    }
}

/// The name in TensorFlow's messages, such as `DT_FLOAT`.
fn type_name(dtype: DType) -> &'static str {
    DataType::try_from(tfs::dtype_number(dtype)).unwrap_or(DataType::DtInvalid).as_str_name()
}

#[cfg(test)]
mod tests {
    use salver_predict::{ModelName, State, Version};
    use salver_tensor::Dims;
    use serde_json::{Value, json};

    use super::*;

    fn parse(body: &[u8]) -> Value {
        serde_json::from_slice(body).unwrap()
    }

    fn name() -> ModelName {
        ModelName::new("m").unwrap()
    }

    fn spec(name: &str, dtype: DType, dims: Dims) -> TensorSpec {
        TensorSpec { name: name.into(), tensor_name: format!("{name}:0").into(), dtype, dims, default: None }
    }

    #[test]
    fn errors_are_objects_of_one_key() {
        assert_eq!(error_body("a \"b\""), b"{\n    \"error\": \"a \\\"b\\\"\"\n}");
    }

    #[test]
    fn status_lists_versions_and_labels() {
        let versions = vec![
            VersionStatus { version: Version(2), state: State::Available, error: None },
            VersionStatus {
                version: Version(1),
                state: State::End,
                error: Some((Code::NotFound, "gone".into())),
            },
        ];
        let labels = BTreeMap::from([("stable".to_owned(), Version(2))]);
        let mut model = ModelStatus { name: name(), versions, labels, source_error: None };
        let ok = json!({"error_code": "OK", "error_message": ""});
        let gone = json!({"error_code": "NOT_FOUND", "error_message": "gone"});
        let pages = json!([
            {"version": "2", "state": "AVAILABLE", "status": ok},
            {"version": "1", "state": "END", "status": gone},
        ]);
        let expected = json!({"model_version_status": pages, "labels": {"stable": "2"}});
        assert_eq!(parse(&status_body(&model, &model.versions)), expected);
        let listed = json!({"models": [{"name": "m", "versions": pages, "labels": {"stable": "2"}}]});
        assert_eq!(parse(&models_body(std::slice::from_ref(&model))), listed);
        model.labels.clear();
        let one = json!({"model_version_status": [{"version": "2", "state": "AVAILABLE", "status": ok}]});
        assert_eq!(parse(&status_body(&model, &model.versions[..1])), one);
    }

    #[test]
    fn metadata_has_the_signatures() {
        let dims = Dims::new(vec![None, Some(1)]);
        let inputs = vec![spec("x", DType::F32, dims.clone())];
        let outputs = vec![spec("y", DType::String, Dims::unknown())];
        let signature = Signature::new("serving_default", "tensorflow/serving/predict", inputs, outputs);
        let id = ModelId { name: name(), version: Version(123) };
        let dim = json!([{"size": "-1", "name": ""}, {"size": "1", "name": ""}]);
        let expected = json!({
            "model_spec": {"name": "m", "signature_name": "", "version": "123"},
            "metadata": {"signature_def": {"signature_def": {"serving_default": {
                "inputs": {"x": {"dtype": "DT_FLOAT", "tensor_shape": {"dim": dim, "unknown_rank": false}, "name": "x:0"}},
                "outputs": {"y": {"dtype": "DT_STRING", "tensor_shape": {"dim": [], "unknown_rank": true}, "name": "y:0"}},
                "method_name": "tensorflow/serving/predict",
                "defaults": {},
            }}}},
        });
        assert_eq!(parse(&metadata_body(&id, [&signature])), expected);
    }

    /// The golden files are TensorFlow Serving's own; a signature read from one is written as it is there.
    #[test]
    fn metadata_equals_the_golden_files() {
        #[expect(clippy::disallowed_methods, reason = "test data lies where the environment says")]
        let Ok(root) = std::env::var("SALVER_TESTDATA") else {
            eprintln!("skipped: SALVER_TESTDATA is not set");
            return;
        };
        for file in [
            "half_plus_two_model_metadata.json",
            "saved_model_half_plus_two_2_versions_metadata.json",
            "saved_model_half_plus_two_tf2_2_versions_metadata.json",
        ] {
            let mut golden = parse(&std::fs::read(format!("{root}/tfserving/{file}")).unwrap());
            let signatures = &mut golden["metadata"]["signature_def"]["signature_def"];
            // Its output has no element type, which a signature cannot say.
            signatures.as_object_mut().unwrap().remove("__saved_model_init_op");
            let signatures = read_signatures(signatures);
            let id = ModelId {
                name: ModelName::new(golden["model_spec"]["name"].as_str().unwrap()).unwrap(),
                version: Version(golden["model_spec"]["version"].as_str().unwrap().parse().unwrap()),
            };
            assert_eq!(parse(&metadata_body(&id, &signatures)), golden, "{file}");
        }
    }

    fn read_signatures(signatures: &Value) -> Vec<Signature> {
        let read = |(name, page): (&String, &Value)| {
            let method = page["method_name"].as_str().unwrap();
            Signature::new(name.as_str(), method, read_specs(&page["inputs"]), read_specs(&page["outputs"]))
        };
        signatures.as_object().unwrap().iter().map(read).collect()
    }

    fn read_specs(specs: &Value) -> Vec<TensorSpec> {
        let size = |dim: &Value| dim["size"].as_str().unwrap().parse::<usize>().ok();
        let read = |(name, page): (&String, &Value)| {
            let shape = &page["tensor_shape"];
            let dims = match shape["unknown_rank"].as_bool().unwrap() {
                true => Dims::unknown(),
                false => Dims::new(shape["dim"].as_array().unwrap().iter().map(size).collect()),
            };
            let dtype = DType::ALL.into_iter().find(|&dtype| page["dtype"] == type_name(dtype));
            TensorSpec {
                tensor_name: page["name"].as_str().unwrap().into(),
                ..spec(name, dtype.unwrap(), dims)
            }
        };
        specs.as_object().unwrap().iter().map(read).collect()
    }
}
