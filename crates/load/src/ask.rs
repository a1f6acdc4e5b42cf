//! Single questions: what a model takes, and one call to see that it works.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use salver_wire::client::{Described, grpc_error, http_error, oip_grpc, oip_rest, tfs_grpc, tfs_rest};
use salver_wire::proto::inference::ModelMetadataResponse;
use salver_wire::proto::tensorflow::serving::GetModelMetadataResponse;

use crate::budget::Held;
use crate::call::{Call, MAX_ANSWER, Subject};
use crate::connect::{Connections, Keep, Prepared};
use crate::error::{Error, Kind};
use crate::outcome::Reply;
use crate::target::{Protocol, Target, Transport};

/// What came back.
#[derive(Debug, Clone)]
pub struct Answer {
    /// How it ended.
    pub reply: Reply,
    /// The body as far as it was kept.
    pub body: Bytes,
    /// How long the body was.
    pub n_bytes: u64,
    /// Of the Open Inference Protocol over REST: the length of the JSON before binary tensors.
    pub header_len: Option<usize>,
    pub(crate) grpc_message: String,
    /// Whether less of a good answer was kept than was to be.
    pub(crate) is_cut: bool,
    /// What the body takes of what may be kept.
    pub(crate) _held: Option<Arc<Held>>,
}

impl Answer {
    /// The error that it is, if it is one.
    pub fn error(&self) -> Option<Error> {
        let error = match self.reply {
            Reply::Grpc(0) | Reply::Http(200) => return None,
            Reply::Grpc(number) => grpc_error(number, &self.grpc_message),
            Reply::Http(status) => http_error(status, &self.body),
            Reply::None => return Some(Error::new(Kind::Server, "there is no answer")),
        };
        let name = salver_wire::status::name(error.code());
        Some(Error::new(Kind::Server, format!("{name}: {}", error.message())))
    }

    /// The message of a gRPC answer, out of its frame.
    pub(crate) fn message(&self) -> Result<Bytes, Error> {
        let wrong = |why: &str| Error::new(Kind::Server, format!("answer does not decode: {why}"));
        let [flag, a, b, c, d] = *self.body.first_chunk().ok_or_else(|| wrong("it has no frame"))?;
        if flag != 0 {
            return Err(wrong("it is compressed, which was not asked for"));
        }
        let message = self.body.slice(5..);
        if message.len() as u64 != u64::from(u32::from_be_bytes([a, b, c, d])) {
            return Err(wrong("its length is not that of its frame"));
        }
        Ok(message)
    }
}

/// The first address of a server that takes a connection.
pub(crate) fn reachable(target: &Target, timeout: Duration) -> Result<SocketAddr, Error> {
    let mut last = None;
    for address in target.addresses()? {
        match std::net::TcpStream::connect_timeout(&address, timeout) {
            Ok(_) => return Ok(address),
            Err(error) => last = Some(error),
        }
    }
    let why = last.map_or_else(|| "no address".to_owned(), |error| error.to_string());
    Err(Error::new(Kind::Connect, format!("no server answers at {target}: {why}")))
}

/// Sends one call over a connection of its own and waits for the answer, which may be an error of the server's. Blocks.
///
/// # Errors
/// [`Kind::Connect`] when there is no answer within `timeout`.
pub fn ask(target: &Target, call: &Call, timeout: Duration) -> Result<Answer, Error> {
    let address = reachable(target, timeout)?;
    let prepared = Prepared::new(call, address, &[])?;
    exchange(target, address, call.transport, &prepared, timeout)
}

fn exchange(
    target: &Target,
    address: SocketAddr,
    transport: Transport,
    prepared: &Prepared,
    timeout: Duration,
) -> Result<Answer, Error> {
    let failed = |why: String| Error::new(Kind::Connect, format!("{target}: {why}"));
    let runtime = crate::generate::runtime()?;
    runtime.block_on(async {
        let connections = Connections::new(address, 1);
        let keep = Keep { most: MAX_ANSWER, budget: None };
        let sent = connections.send(transport, prepared, None, &keep);
        match tokio::time::timeout(timeout, sent).await {
            Ok(answer) => answer.map_err(|why| failed(why.to_string())),
            Err(_) => Err(failed(format!("no answer within {timeout:?}"))),
        }
    })
}

/// What the server says of a model. Blocks.
///
/// # Errors
/// [`Kind::Connect`] when no server answers, [`Kind::Server`] when it answers with an error, as for a model that it does not
/// have.
pub fn describe(target: &Target, subject: &Subject, timeout: Duration) -> Result<Described, Error> {
    let address = reachable(target, timeout)?;
    let get = |path: String| {
        let transport = Transport::Http1;
        let call = Call { transport, path, headers: Vec::new(), body: Bytes::new(), n_rows: 0, group: 0 };
        Ok((transport, Prepared::new(&call, address, &[])?.get()))
    };
    let grpc = |call: Call| Ok((Transport::Http2, Prepared::new(&call, address, &[])?));
    let spec = &subject.spec;
    let (transport, prepared) = match subject.protocol {
        Protocol::TfsGrpc => grpc(Call::grpc(tfs_grpc::METADATA, &tfs_grpc::metadata_request(spec))?),
        Protocol::OipGrpc => grpc(Call::grpc(oip_grpc::METADATA, &oip_grpc::metadata_request(spec))?),
        Protocol::TfsRest => get(tfs_rest::metadata_path(spec)),
        Protocol::OipRest | Protocol::OipRestBinary => get(oip_rest::metadata_path(spec)),
    }?;
    let answer = exchange(target, address, transport, &prepared, timeout)?;
    let of_model = |why: &dyn std::fmt::Display| {
        Error::new(Kind::Server, format!("{target} says of model '{}': {why}", spec.name))
    };
    if let Some(error) = answer.error() {
        return Err(of_model(&error));
    }
    let described = match subject.protocol {
        Protocol::TfsGrpc => {
            let message =
                GetModelMetadataResponse::decode(answer.message()?).map_err(|error| of_model(&error))?;
            tfs_grpc::decode_metadata(&message)
        }
        Protocol::OipGrpc => {
            let message =
                ModelMetadataResponse::decode(answer.message()?).map_err(|error| of_model(&error))?;
            Ok(oip_grpc::decode_metadata(&message))
        }
        Protocol::TfsRest => tfs_rest::decode_metadata(&answer.body),
        Protocol::OipRest | Protocol::OipRestBinary => oip_rest::decode_metadata(&answer.body),
    };
    described
        .map_err(|error| of_model(&format!("{error}; is {} spoken on this port?", subject.protocol.name())))
}
