#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    reason = "a test that panics has failed"
)]

use std::collections::BTreeMap;
use std::sync::Arc;

use salver_predict::{Answer, BoxFuture, Call, Code, ModelName, Version};
use salver_tensor::Dims;

use super::*;

#[derive(Debug)]
struct Described(ModelId, Vec<Arc<Signature>>);

impl Target for Described {
    fn id(&self) -> &ModelId {
        &self.0
    }

    fn signatures(&self) -> &[Arc<Signature>] {
        &self.1
    }

    fn platform(&self) -> &str {
        "onnx"
    }

    fn predict(self: Arc<Self>, _: Call) -> BoxFuture<'static, Result<Answer, Error>> {
        Box::pin(std::future::ready(Err(Error::client(Code::Unimplemented, "describes only"))))
    }
}

fn id() -> ModelId {
    ModelId { name: ModelName::new("m").unwrap(), version: Version(3) }
}

fn spec(name: &str, dims: Dims) -> TensorSpec {
    TensorSpec { name: name.into(), tensor_name: name.into(), dtype: DType::F32, dims, default: None }
}

fn target(first: Option<usize>) -> Described {
    let dims = || Dims::new(vec![first, Some(4)]);
    let signature = Signature::new("serving_default", "", vec![spec("x", dims())], vec![spec("y", dims())]);
    Described(id(), vec![Arc::new(signature)])
}

#[test]
fn metadata_lists_inputs_and_outputs() {
    let response = metadata_response(&target(None), vec!["3".into()]).unwrap();
    assert_eq!((&*response.name, &*response.platform), ("m", "onnx"));
    assert_eq!(response.inputs[0].shape, [-1, 4]);
    assert_eq!((&*response.outputs[0].name, &*response.outputs[0].datatype), ("y", "FP32"));
    let error = metadata_response(&Described(id(), vec![]), vec![]).unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition);
}

#[test]
fn the_batch_dimension_is_left_out_of_a_batched_configuration() {
    let cases = [(None, 32, 32, vec![4]), (None, 0, 0, vec![-1, 4]), (Some(1), 32, 0, vec![1, 4])];
    for (first, max, expected_max, dims) in cases {
        let config = config_response(&target(first), max).unwrap().config.unwrap();
        assert_eq!(config.max_batch_size, expected_max);
        assert_eq!((&config.input[0].dims, &config.output[0].dims), (&dims, &dims));
        assert_eq!(config.scheduling_choice.is_some(), expected_max > 0);
        assert_eq!(config.input[0].data_type(), pb::DataType::TypeFp32);
    }
}

#[test]
fn counters_are_sent_in_nanoseconds() {
    let run = Counter { count: 2, total: Duration::from_micros(5) };
    let counters = ModelCounters { n_inferences: 9, compute_infer: run, ..ModelCounters::default() };
    let response = statistics_response(&[(id(), counters)]);
    let one = &response.model_stats[0];
    assert_eq!((&*one.name, &*one.version, one.inference_count), ("m", "3", 9));
    let infer = one.inference_stats.as_ref().unwrap().compute_infer.unwrap();
    assert_eq!((infer.count, infer.ns), (2, 5000));
}

#[test]
fn the_index_lists_states_and_reasons() {
    let version = |version, state, error: Option<&str>| VersionStatus {
        version: Version(version),
        state,
        error: error.map(|text| (Code::Internal, text.to_owned())),
    };
    let status = |name, versions, source_error: Option<&str>| ModelStatus {
        name: ModelName::new(name).unwrap(),
        versions,
        labels: BTreeMap::new(),
        source_error: source_error.map(str::to_owned),
    };
    let models = [
        status(
            "a",
            vec![
                version(3, State::Loading, None),
                version(2, State::Available, None),
                version(1, State::End, Some("broken")),
            ],
            None,
        ),
        status("b", vec![], Some("no folder")),
    ];
    let list = |ready| {
        let request = pb::RepositoryIndexRequest { ready, ..Default::default() };
        index_response(&request, &models)
            .models
            .iter()
            .map(|one| [&one.name, &one.version, &one.state, &one.reason].map(|text| text.clone()).join("|"))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        list(false),
        ["a|3|LOADING|", "a|2|READY|", "a|1|UNAVAILABLE|broken", "b||UNAVAILABLE|no folder"]
    );
    assert_eq!(list(true), ["a|2|READY|"]);
}
