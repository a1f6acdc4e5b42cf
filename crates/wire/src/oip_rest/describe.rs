//! What clients ask about servers and models: the messages of the gRPC form, written as JSON with the field names of
//! the protocol files and with integers as numbers, as Triton does and its clients read.

use prost::Message;
use prost_reflect::{DynamicMessage, SerializeOptions};
use salver_predict::{Error, ModelId, ModelStatus, Target};

use crate::oip_grpc::{
    ModelCounters, config_response, index_response, metadata_response, statistics_response,
};
use crate::proto::inference as pb;
use crate::text_config::POOL;

/// The server's name, version and extensions of the protocol.
pub fn server_body(name: &str, version: &str) -> Vec<u8> {
    let message = pb::ServerMetadataResponse {
        name: name.to_owned(),
        version: version.to_owned(),
        extensions: ["binary_tensor_data", "model_configuration", "model_repository", "statistics"]
            .map(str::to_owned)
            .to_vec(),
    };
    json("inference.ServerMetadataResponse", &message)
}

/// As [`metadata_response`].
///
/// # Errors
/// As [`metadata_response`].
pub fn metadata_body(target: &dyn Target, versions: Vec<String>) -> Result<Vec<u8>, Error> {
    let message = metadata_response(target, versions)?;
    Ok(json("inference.ModelMetadataResponse", &message))
}

/// As [`config_response`].
///
/// # Errors
/// As [`config_response`].
pub fn config_body(target: &dyn Target, max_batch_size: u32) -> Result<Vec<u8>, Error> {
    let message = config_response(target, max_batch_size)?.config.unwrap_or_default();
    Ok(json("inference.ModelConfig", &message))
}

/// As [`statistics_response`].
pub fn statistics_body(models: &[(ModelId, ModelCounters)]) -> Vec<u8> {
    json("inference.ModelStatisticsResponse", &statistics_response(models))
}

/// The list of [`index_response`]; with `only_ready`, only the versions that answer requests.
pub fn index_body(models: &[ModelStatus], only_ready: bool) -> Vec<u8> {
    let request = pb::RepositoryIndexRequest { ready: only_ready, ..Default::default() };
    let entries = index_response(&request, models).models;
    let entries: Vec<Vec<u8>> =
        entries.iter().map(|entry| json("inference.RepositoryIndexResponse.ModelIndex", entry)).collect();
    let mut body = b"[".to_vec();
    body.extend_from_slice(&entries.join(b", ".as_slice()));
    body.push(b']');
    body
}

/// Writes a message, all of its fields included, by its full name.
fn json(name: &str, message: &impl Message) -> Vec<u8> {
    let descriptor = POOL.get_message_by_name(name).expect("the committed descriptors hold the message");
    let message = DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice())
        .expect("the generated code and the committed descriptors have one source");
    let mut body = Vec::new();
    let options = SerializeOptions::new()
        .stringify_64_bit_integers(false)
        .use_proto_field_name(true)
        .skip_default_fields(false);
    message
        .serialize_with_options(&mut serde_json::Serializer::new(&mut body), &options)
        .expect("a message has a JSON form");
    body
}
