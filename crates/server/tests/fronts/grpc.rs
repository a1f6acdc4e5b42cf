//! The gRPC services.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::Request;
use http_body_util::{BodyExt, Full};
use prost::Message;
use salver_predict::{ModelName, ModelSpec, VersionChoice};
use salver_server::{Config, Limits};
use salver_tensor::{Shape, Tensor};
use salver_wire::proto::inference as oip;
use salver_wire::proto::inference::grpc_inference_service_client::GrpcInferenceServiceClient;
use salver_wire::proto::tensorflow::serving as tfs;
use salver_wire::proto::tensorflow::serving::inference_result::Result as Outcome;
use salver_wire::proto::tensorflow::serving::model_service_client::ModelServiceClient;
use salver_wire::proto::tensorflow::serving::prediction_service_client::PredictionServiceClient;
use salver_wire::tfs::{Encoding, SerializedExample, decode_tensor, encode_request};
use tokio::net::TcpStream;
use tonic::Code;
use tonic::codec::CompressionEncoding;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::client::{Channel, http2, origin};
use crate::play::{Running, config, with_limits};

pub(crate) fn ask(model: &str, values: &[f32]) -> tfs::PredictRequest {
    let spec = ModelSpec { name: ModelName::new(model).unwrap(), version: VersionChoice::Latest };
    let tensor = Tensor::from_vec(Shape::vector(values.len()).unwrap(), values.to_vec()).unwrap();
    encode_request(&spec, "", &[("x", tensor)], Encoding::Fields)
}

pub(crate) fn answer(response: &tfs::PredictResponse) -> Vec<f32> {
    let tensor = decode_tensor(response.outputs["y"].clone(), 1 << 20).unwrap();
    tensor.to_slice::<f32>().unwrap().into_owned()
}

async fn client(running: &Running) -> PredictionServiceClient<Channel> {
    PredictionServiceClient::with_origin(Channel::to(running.addresses().grpc).await, origin())
}

fn spec(name: &str) -> Option<tfs::ModelSpec> {
    Some(tfs::ModelSpec { name: name.to_owned(), ..Default::default() })
}

#[tokio::test]
async fn predict() {
    for tensor_content in [false, true] {
        let running = Running::start(Config { tensor_content, ..config() });
        let response = client(&running).await.predict(ask("double", &[1.0, 2.5])).await.unwrap().into_inner();
        assert_eq!(answer(&response), [2.0, 5.0]);
        let spec = response.model_spec.unwrap();
        assert_eq!((spec.name.as_str(), spec.signature_name.as_str()), ("double", "serving_default"));
        assert_eq!(spec.version_choice, Some(tfs::model_spec::VersionChoice::Version(2)));
        assert_eq!(response.outputs["y"].tensor_content.is_empty(), !tensor_content);
        running.stop().await;
    }
}

#[tokio::test]
async fn failures_have_their_codes_and_texts() {
    let running = Running::start(config());
    let mut client = client(&running).await;
    let request = |change: fn(&mut tfs::PredictRequest)| {
        let mut request = ask("double", &[1.0]);
        change(&mut request);
        request
    };
    fn model(request: &mut tfs::PredictRequest) -> &mut tfs::ModelSpec {
        request.model_spec.as_mut().unwrap()
    }
    let cases: [(tfs::PredictRequest, Code, &str); 10] = [
        (request(|r| r.model_spec = None), Code::InvalidArgument, "Missing ModelSpec"),
        (request(|r| model(r).name.clear()), Code::InvalidArgument, "ModelSpec has no name specified."),
        (ask("none", &[1.0]), Code::NotFound, "Servable not found for request: Latest(none)"),
        (
            request(|r| model(r).version_choice = Some(tfs::model_spec::VersionChoice::Version(9))),
            Code::NotFound,
            "Servable not found for request: Specific(double, 9)",
        ),
        (
            request(|r| model(r).signature_name = "x".to_owned()),
            Code::FailedPrecondition,
            "Serving signature key \"x\" not found.",
        ),
        (request(|r| r.inputs.clear()), Code::InvalidArgument, "input size does not match signature: 0!=1"),
        (
            request(|r| r.inputs.get_mut("x").unwrap().dtype = 0),
            Code::InvalidArgument,
            "tensor parsing error: x",
        ),
        (
            request(|r| r.output_filter = vec!["z".to_owned()]),
            Code::InvalidArgument,
            "output tensor alias not found in signature: z Outputs expected to be in the set {y}.",
        ),
        (
            request(|r| r.output_filter = vec!["y".to_owned(), "y".to_owned()]),
            Code::InvalidArgument,
            "duplicate output tensor alias: y",
        ),
        (ask("full", &[1.0]), Code::Unavailable, "the queue is full"),
    ];
    for (request, code, text) in cases {
        let status = client.predict(request).await.unwrap_err();
        assert_eq!(status.code(), code, "{text}: {status}");
        assert!(status.message().starts_with(text), "{status}");
        let retry = status.metadata().get("grpc-retry-pushback-ms").map(|value| value.to_str().unwrap());
        assert_eq!(retry, (code == Code::Unavailable).then_some("1200"));
    }
    let long = client.predict(ask("broken", &[1.0])).await.unwrap_err();
    assert_eq!(long.message().len(), 1024 + "...TRUNCATED".len());
    running.stop().await;
}

/// Two examples, of 2 and 4 bytes.
fn examples() -> Option<tfs::Input> {
    let examples = [&b"\x0a\x00"[..], b"\x0a\x00\x0a\x00"];
    let examples = examples.map(|bytes| SerializedExample::decode(bytes).unwrap()).to_vec();
    Some(tfs::Input { kind: Some(tfs::input::Kind::ExampleList(tfs::ExampleList { examples })) })
}

fn signature(model: &str, name: &str) -> Option<tfs::ModelSpec> {
    spec(model).map(|spec| tfs::ModelSpec { signature_name: name.to_owned(), ..spec })
}

fn labels(result: Option<&tfs::ClassificationResult>) -> Vec<(&str, f32)> {
    let rows = result.iter().flat_map(|result| &result.classifications);
    rows.flat_map(|row| &row.classes).map(|class| (class.label.as_str(), class.score)).collect()
}

fn values(result: Option<&tfs::RegressionResult>) -> Vec<f32> {
    result.iter().flat_map(|result| &result.regressions).map(|one| one.value).collect()
}

#[tokio::test]
async fn examples_are_classified_and_regressed() {
    let running = Running::start(config());
    let mut client = client(&running).await;
    let request = tfs::ClassificationRequest { model_spec: signature("lengths", "c"), input: examples() };
    let classified = client.classify(request).await.unwrap().into_inner();
    let expected = [("\n\0", 2.0), ("\n\0\n\0", 4.0)];
    assert_eq!(labels(classified.result.as_ref()), expected);
    let spec = classified.model_spec.unwrap();
    assert_eq!((spec.name.as_str(), spec.signature_name.as_str()), ("lengths", "c"));
    assert_eq!(spec.version_choice, Some(tfs::model_spec::VersionChoice::Version(4)));

    let request = tfs::RegressionRequest { model_spec: signature("lengths", ""), input: examples() };
    let regressed = client.regress(request).await.unwrap().into_inner();
    assert_eq!(values(regressed.result.as_ref()), [2.0, 4.0]);
    assert_eq!(regressed.model_spec.unwrap().signature_name, "serving_default");

    let task = |name: &str, method: &str| tfs::InferenceTask {
        model_spec: signature("lengths", name),
        method_name: format!("tensorflow/serving/{method}"),
    };
    let tasks = vec![task("", "regress"), task("c", "classify")];
    let request = tfs::MultiInferenceRequest { tasks, input: examples() };
    let results = client.multi_inference(request).await.unwrap().into_inner().results;
    let [first, second] = results.as_slice() else { panic!("{results:?}") };
    assert_eq!(first.model_spec.as_ref().unwrap().signature_name, "serving_default");
    let Some(Outcome::RegressionResult(result)) = &first.result else { panic!("{first:?}") };
    assert_eq!(values(Some(result)), [2.0, 4.0]);
    let Some(Outcome::ClassificationResult(result)) = &second.result else { panic!("{second:?}") };
    assert_eq!(labels(Some(result)), expected);
    running.stop().await;
}

#[tokio::test]
async fn what_cannot_be_classified_or_regressed_says_so() {
    let running = Running::start(config());
    let mut client = client(&running).await;
    let cases = [
        (spec("none"), examples(), Code::NotFound, "Servable not found for request: Latest(none)"),
        (None, examples(), Code::InvalidArgument, "Missing ModelSpec"),
        (spec("double"), examples(), Code::InvalidArgument, "No regression inputs found in SignatureDef"),
        (spec("lengths"), None, Code::InvalidArgument, "Input is empty."),
        (
            signature("lengths", "x"),
            examples(),
            Code::InvalidArgument,
            "No signature was found with the name: x",
        ),
        (signature("lengths", "c"), examples(), Code::InvalidArgument, "Expected one output Tensor."),
    ];
    for (model_spec, input, code, text) in cases {
        let status = client.regress(tfs::RegressionRequest { model_spec, input }).await.unwrap_err();
        assert_eq!(status.code(), code, "{text}: {status}");
        assert!(status.message().starts_with(text), "{status}");
    }
    let none = client.multi_inference(tfs::MultiInferenceRequest::default()).await.unwrap_err();
    assert_eq!(none.message(), "ModelSpec has no name specified.");
    let task = tfs::InferenceTask { model_spec: spec("lengths"), method_name: "x".to_owned() };
    let request = tfs::MultiInferenceRequest { tasks: vec![task], input: examples() };
    let status = client.multi_inference(request).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::Unimplemented, "Unsupported signature method_name: x")
    );
    running.stop().await;
}

#[tokio::test]
async fn method_names_are_checked_if_that_is_wanted() {
    let running = Running::start(Config { check_method_name: true, ..config() });
    let mut client = client(&running).await;
    let request = tfs::ClassificationRequest { model_spec: signature("lengths", "c"), input: examples() };
    assert!(client.classify(request).await.is_ok());
    let request = tfs::RegressionRequest { model_spec: signature("lengths", "c"), input: examples() };
    let text = "Expected regression signature method_name to be tensorflow/serving/regress. Was: \
                tensorflow/serving/classify";
    assert_eq!(client.regress(request).await.unwrap_err().message(), text);
    running.stop().await;
}

#[tokio::test]
async fn metadata_and_status() {
    let running = Running::start(config());
    let request = tfs::GetModelMetadataRequest {
        model_spec: spec("double"),
        metadata_field: vec!["signature_def".to_owned()],
    };
    let response = client(&running).await.get_model_metadata(request).await.unwrap().into_inner();
    let any = &response.metadata["signature_def"];
    let map = tfs::SignatureDefMap::decode(any.value.as_slice()).unwrap();
    assert_eq!(map.signature_def.keys().collect::<Vec<_>>(), ["other", "serving_default"]);

    let mut models = ModelServiceClient::with_origin(Channel::to(running.addresses().grpc).await, origin());
    let status = |name| tfs::GetModelStatusRequest { model_spec: spec(name) };
    let found = models.get_model_status(status("double")).await.unwrap().into_inner();
    let versions: Vec<i64> = found.model_version_status.iter().map(|version| version.version).collect();
    assert_eq!(versions, [2, 1]);
    let none = models.get_model_status(status("none")).await.unwrap_err();
    assert_eq!(none.message(), "Could not find any versions of model none");
    running.stop().await;
}

#[tokio::test]
async fn reload_replaces_the_models_if_it_may() {
    for model_control in [true, false] {
        let running = Running::start(Config { model_control, ..config() });
        let mut models =
            ModelServiceClient::with_origin(Channel::to(running.addresses().grpc).await, origin());
        let one = tfs::ModelConfig {
            name: "new".to_owned(),
            base_path: "/models/new".to_owned(),
            ..Default::default()
        };
        let list = tfs::ModelConfigList { config: vec![one] };
        let config = Some(tfs::model_server_config::Config::ModelConfigList(list));
        let request = tfs::ReloadConfigRequest {
            config: Some(tfs::ModelServerConfig { config }),
            ..Default::default()
        };
        let result = models.handle_reload_config_request(request).await;
        let reloads = running.stage.reloads.lock().unwrap().clone();
        if model_control {
            assert_eq!(result.unwrap().into_inner().status.unwrap().error_code, 0);
            assert_eq!(reloads[0][0].name, "new");
        } else {
            assert_eq!(result.unwrap_err().code(), Code::PermissionDenied);
            assert!(reloads.is_empty());
        }
        running.stop().await;
    }
}

#[tokio::test]
async fn compressed_messages() {
    let running = Running::start(config());
    let values = vec![1.5; 10_000];
    for encoding in [CompressionEncoding::Gzip, CompressionEncoding::Zstd] {
        let mut client = client(&running).await.send_compressed(encoding).accept_compressed(encoding);
        let response = client.predict(ask("double", &values)).await.unwrap();
        assert!(response.metadata().contains_key("grpc-encoding"), "{encoding:?}");
        assert_eq!(answer(response.get_ref())[9_999], 3.0);
    }
    let mut plain = client(&running).await.accept_compressed(CompressionEncoding::Gzip);
    let response = plain.predict(ask("double", &values)).await.unwrap();
    assert!(!response.metadata().contains_key("grpc-encoding"), "a client that does not compress");
    running.stop().await;
}

#[tokio::test]
async fn messages_have_bounds() {
    let limits = Limits {
        body_bytes: 100_000,
        decompressed_bytes: 200_000,
        bytes_in_flight: 90_000,
        ..Limits::default()
    };
    let running = Running::start(with_limits(limits));
    let mut plain = client(&running).await;
    let too_large = plain.predict(ask("double", &vec![1.0; 30_000])).await.unwrap_err();
    assert_eq!(too_large.code(), Code::ResourceExhausted);
    assert!(too_large.message().contains("larger than the limit of 100000 bytes"), "{too_large}");
    let no_room = plain.predict(ask("double", &vec![1.0; 24_000])).await.unwrap_err();
    assert_eq!(no_room.code(), Code::ResourceExhausted);
    assert!(no_room.message().contains("of 90000 bytes in flight"), "{no_room}");
    assert!(no_room.metadata().contains_key("grpc-retry-pushback-ms"));
    let mut gzip = client(&running).await.send_compressed(CompressionEncoding::Gzip);
    let bomb = gzip.predict(ask("double", &vec![1.0; 100_000])).await.unwrap_err();
    assert_eq!(bomb.code(), Code::ResourceExhausted, "{bomb}");
    assert_eq!(answer(&plain.predict(ask("double", &[1.0])).await.unwrap().into_inner()), [2.0]);
    running.stop().await;
}

/// Sends bytes as a call and gives the status.
async fn raw(running: &Running, path: &str, body: Bytes) -> String {
    let socket = TcpStream::connect(running.addresses().grpc.unwrap()).await.unwrap();
    let mut sender = http2(socket).await;
    let request = Request::post(format!("http://test{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::new(body))
        .unwrap();
    let response = sender.send_request(request).await.unwrap();
    let head = response.headers().get("grpc-status").cloned();
    let trailers = response.into_body().collect().await.unwrap().trailers().cloned();
    let status = head.or_else(|| trailers?.get("grpc-status").cloned());
    status.map_or(String::new(), |value| value.to_str().unwrap().to_owned())
}

#[tokio::test]
async fn hostile_messages_are_refused() {
    let running = Running::start(config());
    let predict = "/tensorflow.serving.PredictionService/Predict";
    let message = ask("double", &[1.0]).encode_to_vec();
    let framed = |claimed: u32, bytes: &[u8]| {
        let mut body = BytesMut::new();
        body.put_u8(0);
        body.put_u32(claimed);
        body.put_slice(bytes);
        body.freeze()
    };
    let length = u32::try_from(message.len()).unwrap();
    let cases = [
        ("whole", predict, framed(length, &message), "0"),
        ("truncated protobuf", predict, framed(length - 3, &message[..message.len() - 3]), "13"),
        ("ends early", predict, framed(length, &message[..10]), "13"),
        ("no bytes", predict, Bytes::new(), "13"),
        ("claims too much", predict, framed(u32::MAX, b"x"), "8"),
        ("unknown method", "/tensorflow.serving.PredictionService/Nothing", framed(0, b""), "12"),
        ("session", "/tensorflow.serving.SessionService/SessionRun", framed(0, b""), "12"),
        ("profiler", "/tensorflow.ProfilerService/Profile", framed(0, b""), "12"),
        ("no path", "/", framed(0, b""), "12"),
    ];
    for (name, path, body, status) in cases {
        assert_eq!(raw(&running, path, body).await, status, "{name}");
    }
    running.stop().await;
}

#[tokio::test]
async fn deadlines_end_a_call() {
    let running = Running::start(config());
    let mut client = client(&running).await;
    let mut request = tonic::Request::new(ask("gated", &[1.0]));
    request.metadata_mut().insert("grpc-timeout", "50m".parse().unwrap());
    let status = client.predict(request).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    let mut request = tonic::Request::new(ask("double", &[1.0]));
    request.set_timeout(Duration::from_secs(60));
    client.predict(request).await.unwrap();
    running.stop().await;
}

#[tokio::test]
async fn terms_reach_the_model() {
    let running = Running::start(Config { caller_header: "x-api-key".parse().unwrap(), ..config() });
    let mut client = client(&running).await;
    for (metadata, expected) in [
        (&[][..], Ok([5.0, 0.0, 0.0])),
        (&[("salver-priority", "2"), ("x-api-key", "k"), ("grpc-timeout", "10S")], Ok([2.0, 1.0, 1.0])),
        (&[("salver-priority", "9"), ("salver-caller", "k")], Ok([9.0, 0.0, 0.0])),
        (&[("salver-priority", "0")], Err(Code::InvalidArgument)),
    ] {
        let mut request = tonic::Request::new(ask("terms", &[1.0]));
        for (key, value) in metadata {
            request.metadata_mut().insert(*key, value.parse().unwrap());
        }
        let terms = client.predict(request).await.map(|response| answer(response.get_ref()));
        assert_eq!(
            terms.map_err(|status| status.code()),
            expected.map(|terms| terms.to_vec()),
            "{metadata:?}"
        );
    }
    running.stop().await;
}

async fn health(client: &mut HealthClient<Channel>, service: &str) -> Result<i32, Code> {
    let request = HealthCheckRequest { service: service.to_owned() };
    let response = client.check(request).await.map_err(|status| status.code())?;
    Ok(response.into_inner().status)
}

#[tokio::test]
async fn health_follows_the_models() {
    let running = Running::start(config());
    let channel = Channel::to(running.addresses().grpc).await;
    let mut client = HealthClient::with_origin(channel, origin());
    let request = HealthCheckRequest { service: String::new() };
    let mut watched = client.watch(request).await.unwrap().into_inner();
    let status = |message: Option<HealthCheckResponse>| message.map(|message| message.status);
    while status(watched.message().await.unwrap()) != Some(ServingStatus::Serving as i32) {}
    let services = [
        "",
        "tensorflow.serving.PredictionService",
        "tensorflow.serving.ModelService",
        "inference.GRPCInferenceService",
        "PredictionService",
        "ModelService",
        "double",
    ];
    for service in services {
        assert_eq!(health(&mut client, service).await, Ok(ServingStatus::Serving as i32), "{service}");
    }
    assert_eq!(health(&mut client, "failed").await, Ok(ServingStatus::NotServing as i32));
    assert_eq!(health(&mut client, "none").await, Err(Code::NotFound));
    running.stage.ready.store(false, Ordering::Relaxed);
    while status(watched.message().await.unwrap()) != Some(ServingStatus::NotServing as i32) {}
    assert_eq!(health(&mut client, "double").await, Ok(ServingStatus::Serving as i32));
    running.stop().await;
}

#[tokio::test]
async fn reflection_lists_the_services() {
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
    use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};

    let running = Running::start(config());
    let channel = Channel::to(running.addresses().grpc).await;
    let mut client = ServerReflectionClient::with_origin(channel, origin());
    let ask = |what| ServerReflectionRequest { host: String::new(), message_request: Some(what) };
    let requests = futures_util::stream::iter([
        ask(MessageRequest::ListServices(String::new())),
        ask(MessageRequest::FileContainingSymbol("tensorflow.serving.PredictionService".to_owned())),
    ]);
    let mut answers = client.server_reflection_info(requests).await.unwrap().into_inner();
    let mut next = async || {
        let answer: Option<ServerReflectionResponse> = answers.message().await.unwrap();
        answer.and_then(|answer| answer.message_response)
    };
    let Some(MessageResponse::ListServicesResponse(services)) = next().await else { panic!("no list") };
    let names: Vec<&str> = services.service.iter().map(|service| service.name.as_str()).collect();
    for name in
        ["tensorflow.serving.PredictionService", "inference.GRPCInferenceService", "grpc.health.v1.Health"]
    {
        assert!(names.contains(&name), "{name} is not among {names:?}");
    }
    let Some(MessageResponse::FileDescriptorResponse(files)) = next().await else { panic!("no file") };
    assert!(!files.file_descriptor_proto.is_empty());
    drop(answers);
    running.stop().await;
}

#[tokio::test]
async fn open_inference() {
    let running = Running::start(config());
    let mut client =
        GrpcInferenceServiceClient::with_origin(Channel::to(running.addresses().grpc).await, origin());
    assert!(client.server_live(oip::ServerLiveRequest {}).await.unwrap().into_inner().live);
    assert!(client.server_ready(oip::ServerReadyRequest {}).await.unwrap().into_inner().ready);
    for (name, version, ready) in [("double", "", true), ("double", "9", false), ("none", "", false)] {
        let request = oip::ModelReadyRequest { name: name.to_owned(), version: version.to_owned() };
        assert_eq!(client.model_ready(request).await.unwrap().into_inner().ready, ready, "{name} {version}");
    }
    let request = oip::ModelMetadataRequest { name: "double".to_owned(), version: String::new() };
    let metadata = client.model_metadata(request).await.unwrap().into_inner();
    assert_eq!((metadata.platform.as_str(), metadata.versions.len()), ("played", 2));
    let input = oip::model_infer_request::InferInputTensor {
        name: "x".to_owned(),
        datatype: "FP32".to_owned(),
        shape: vec![2],
        ..Default::default()
    };
    let raw: Vec<u8> = [1.0f32, 2.0].iter().flat_map(|value| value.to_le_bytes()).collect();
    let infer = |model: &str| oip::ModelInferRequest {
        model_name: model.to_owned(),
        id: "7".to_owned(),
        inputs: vec![input.clone()],
        raw_input_contents: vec![raw.clone().into()],
        ..Default::default()
    };
    let response = client.model_infer(infer("double")).await.unwrap().into_inner();
    let doubled: Vec<u8> = [2.0f32, 4.0].iter().flat_map(|value| value.to_le_bytes()).collect();
    assert_eq!((response.id.as_str(), &*response.raw_output_contents[0]), ("7", &*doubled));
    let requests = futures_util::stream::iter([infer("double"), infer("none"), infer("double")]);
    let mut answers = client.model_stream_infer(requests).await.unwrap().into_inner();
    let mut errors = Vec::new();
    while let Some(answer) = answers.message().await.unwrap() {
        errors.push(answer.error_message);
    }
    assert_eq!(errors, ["", "Servable not found for request: Latest(none)", ""]);
    let request = oip::ModelStatisticsRequest { name: "double".to_owned(), version: String::new() };
    let statistics = client.model_statistics(request).await.unwrap().into_inner();
    let counts: Vec<(String, u64)> =
        statistics.model_stats.into_iter().map(|one| (one.version, one.inference_count)).collect();
    assert_eq!(counts, [("2".to_owned(), 6), ("1".to_owned(), 0)]);
    let request = oip::RepositoryModelLoadRequest { model_name: "double".to_owned(), ..Default::default() };
    client.repository_model_load(request).await.unwrap();
    assert_eq!(*running.stage.loads.lock().unwrap(), ["load double"]);
    running.stop().await;
}
