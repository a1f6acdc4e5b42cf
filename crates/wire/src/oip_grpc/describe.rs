//! What clients ask about models: metadata, configuration, statistics and the repository's index.

use std::time::Duration;

use salver_predict::{Error, ModelId, ModelStatus, State, Target, VersionStatus};
use salver_tensor::{DType, Signature, TensorSpec};

use crate::oip;
use crate::proto::inference as pb;
use crate::proto::inference::model_config::SchedulingChoice;
use crate::proto::inference::model_metadata_response::TensorMetadata;
use crate::proto::inference::model_version_policy::{Latest, PolicyChoice};
use crate::proto::inference::repository_index_response::ModelIndex;

/// A model's inputs and outputs. `versions` are those that answer requests.
///
/// # Errors
/// As [`Target::signature`] for a model without the default signature.
pub fn metadata_response(
    target: &dyn Target,
    versions: Vec<String>,
) -> Result<pb::ModelMetadataResponse, Error> {
    let signature = target.signature("")?;
    Ok(pb::ModelMetadataResponse {
        name: target.id().name.as_str().to_owned(),
        versions,
        platform: target.platform().to_owned(),
        inputs: signature.inputs().iter().map(tensor_metadata).collect(),
        outputs: signature.outputs().iter().map(tensor_metadata).collect(),
    })
}

fn tensor_metadata(spec: &TensorSpec) -> TensorMetadata {
    let (datatype, shape) = oip::tensor_metadata(spec);
    TensorMetadata { name: spec.name.to_string(), datatype: datatype.to_owned(), shape }
}

/// A model's configuration. When the outermost dimension of every input and output is open and `max_batch_size` is not
/// 0, that dimension is the batch: it is left out of the dimensions, as clients expect. Else the maximum is 0.
///
/// # Errors
/// As [`Target::signature`] for a model without the default signature.
pub fn config_response(target: &dyn Target, max_batch_size: u32) -> Result<pb::ModelConfigResponse, Error> {
    let signature = target.signature("")?;
    let is_batched = max_batch_size > 0 && has_open_rows(signature);
    let batching = pb::ModelDynamicBatching::default();
    let config = pb::ModelConfig {
        name: target.id().name.as_str().to_owned(),
        platform: target.platform().to_owned(),
        backend: target.platform().to_owned(),
        version_policy: Some(pb::ModelVersionPolicy {
            policy_choice: Some(PolicyChoice::Latest(Latest { num_versions: 1 })),
        }),
        max_batch_size: if is_batched { i32::try_from(max_batch_size).unwrap_or(i32::MAX) } else { 0 },
        input: signature.inputs().iter().map(|spec| config_input(spec, is_batched)).collect(),
        output: signature.outputs().iter().map(|spec| config_output(spec, is_batched)).collect(),
        scheduling_choice: is_batched.then_some(SchedulingChoice::DynamicBatching(batching)),
        ..pb::ModelConfig::default()
    };
    Ok(pb::ModelConfigResponse { config: Some(config) })
}

fn has_open_rows(signature: &Signature) -> bool {
    let mut specs = signature.inputs().iter().chain(signature.outputs());
    !signature.inputs().is_empty() && specs.all(|spec| spec.dims.has_open_rows())
}

fn config_input(spec: &TensorSpec, is_batched: bool) -> pb::ModelInput {
    pb::ModelInput {
        name: spec.name.to_string(),
        data_type: config_type(spec.dtype).into(),
        dims: config_dims(spec, is_batched),
        optional: spec.default.is_some(),
        ..pb::ModelInput::default()
    }
}

fn config_output(spec: &TensorSpec, is_batched: bool) -> pb::ModelOutput {
    pb::ModelOutput {
        name: spec.name.to_string(),
        data_type: config_type(spec.dtype).into(),
        dims: config_dims(spec, is_batched),
        ..pb::ModelOutput::default()
    }
}

fn config_dims(spec: &TensorSpec, is_batched: bool) -> Vec<i64> {
    oip::shape(&spec.dims).split_off(usize::from(is_batched))
}

fn config_type(dtype: DType) -> pb::DataType {
    match dtype {
        DType::Bool => pb::DataType::TypeBool,
        DType::I8 => pb::DataType::TypeInt8,
        DType::I16 => pb::DataType::TypeInt16,
        DType::I32 => pb::DataType::TypeInt32,
        DType::I64 => pb::DataType::TypeInt64,
        DType::U8 => pb::DataType::TypeUint8,
        DType::U16 => pb::DataType::TypeUint16,
        DType::U32 => pb::DataType::TypeUint32,
        DType::U64 => pb::DataType::TypeUint64,
        DType::F16 => pb::DataType::TypeFp16,
        DType::BF16 => pb::DataType::TypeBf16,
        DType::F32 => pb::DataType::TypeFp32,
        DType::F64 => pb::DataType::TypeFp64,
        DType::String => pb::DataType::TypeString,
        DType::C64 | DType::C128 => pb::DataType::TypeInvalid,
    }
}

/// How often something happened and how long it took in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counter {
    /// How often.
    pub count: u64,
    /// The sum of the times.
    pub total: Duration,
}

impl From<Counter> for pb::StatisticDuration {
    fn from(counter: Counter) -> pb::StatisticDuration {
        let ns = u64::try_from(counter.total.as_nanos()).unwrap_or(u64::MAX);
        pb::StatisticDuration { count: counter.count, ns }
    }
}

/// What was counted of one version of a model since it was loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ModelCounters {
    /// Milliseconds since the Unix epoch of the last request; 0 for none.
    pub last_inference_ms: u64,
    /// Rows that were answered; a request without rows counts as one.
    pub n_inferences: u64,
    /// Runs of the model, each for one batch.
    pub n_executions: u64,
    /// Requests that were answered.
    pub success: Counter,
    /// Requests that failed.
    pub fail: Counter,
    /// Waiting for a run.
    pub queue: Counter,
    /// Decoding the inputs.
    pub compute_input: Counter,
    /// Running the model.
    pub compute_infer: Counter,
    /// Encoding the outputs.
    pub compute_output: Counter,
}

/// The statistics of versions.
pub fn statistics_response(models: &[(ModelId, ModelCounters)]) -> pb::ModelStatisticsResponse {
    pb::ModelStatisticsResponse { model_stats: models.iter().map(|(id, one)| statistics(id, one)).collect() }
}

fn statistics(id: &ModelId, counters: &ModelCounters) -> pb::ModelStatistics {
    pb::ModelStatistics {
        name: id.name.as_str().to_owned(),
        version: id.version.to_string(),
        last_inference: counters.last_inference_ms,
        inference_count: counters.n_inferences,
        execution_count: counters.n_executions,
        inference_stats: Some(pb::InferStatistics {
            success: Some(counters.success.into()),
            fail: Some(counters.fail.into()),
            queue: Some(counters.queue.into()),
            compute_input: Some(counters.compute_input.into()),
            compute_infer: Some(counters.compute_infer.into()),
            compute_output: Some(counters.compute_output.into()),
            cache_hit: Some(Counter::default().into()),
            cache_miss: Some(Counter::default().into()),
        }),
        ..pb::ModelStatistics::default()
    }
}

/// Every version of every model; with `request.ready`, those that answer requests. A model without versions has one
/// entry without a version, which says why.
pub fn index_response(
    request: &pb::RepositoryIndexRequest,
    models: &[ModelStatus],
) -> pb::RepositoryIndexResponse {
    let all = models.iter().flat_map(|model| {
        let name = model.name.as_str().to_owned();
        let none = model.versions.is_empty().then(|| ModelIndex {
            name: name.clone(),
            state: "UNAVAILABLE".to_owned(),
            reason: model.source_error.clone().unwrap_or_default(),
            ..ModelIndex::default()
        });
        none.into_iter().chain(model.versions.iter().map(move |version| index_entry(&name, version)))
    });
    pb::RepositoryIndexResponse { models: all.filter(|one| !request.ready || one.state == "READY").collect() }
}

fn index_entry(name: &str, version: &VersionStatus) -> ModelIndex {
    let state = match version.state {
        State::Start | State::Loading => "LOADING",
        State::Available => "READY",
        State::Unloading => "UNLOADING",
        State::End => "UNAVAILABLE",
    };
    let reason = match (&version.error, version.state) {
        (Some((_, message)), _) => message.clone(),
        (None, State::End) => "unloaded".to_owned(),
        (None, _) => String::new(),
    };
    ModelIndex {
        name: name.to_owned(),
        version: version.version.to_string(),
        state: state.to_owned(),
        reason,
    }
}

#[cfg(test)]
mod tests;
