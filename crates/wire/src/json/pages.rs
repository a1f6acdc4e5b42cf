//! Bodies that are no predictions: errors, status, metadata, the list of models.

use std::collections::BTreeMap;

use salver_predict::{Code, ModelId, ModelStatus, State, VersionStatus};
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
        state: match version.state {
            State::Start => "START",
            State::Loading => "LOADING",
            State::Available => "AVAILABLE",
            State::Unloading => "UNLOADING",
            State::End => "END",
        },
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
        inputs: tensor_pages(signature.inputs()),
        outputs: tensor_pages(signature.outputs()),
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
