//! What to listen on, and every bound.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use http::HeaderName;
use salver_wire::json::NonFinite;

/// How a server listens and answers. A listener that is `None` is not opened.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where gRPC is served; port 0 takes a free one.
    pub grpc: Option<SocketAddr>,
    /// The UNIX socket where gRPC is served as well. A stale socket file is replaced.
    pub grpc_unix: Option<PathBuf>,
    /// Where REST is served: TensorFlow Serving's, the Open Inference Protocol's, health and metrics.
    pub rest: Option<SocketAddr>,
    /// A further port for health and metrics alone.
    pub metrics: Option<SocketAddr>,
    /// TLS on the gRPC port (never on the UNIX socket).
    pub grpc_tls: Option<Tls>,
    /// TLS on the REST port.
    pub rest_tls: Option<Tls>,
    /// How many workers there are; [`crate::Server::worker`] is called with each index below it.
    pub workers: NonZeroUsize,
    /// The path of the metrics beside `/metrics`.
    pub metrics_path: String,
    /// Answers preflight requests and adds the CORS headers.
    pub cors: bool,
    /// Does what TensorFlow Serving does even where it helps nobody: query strings are not cut off, `HEAD` and
    /// `GET /v1/models` are malformed, a label on a status URL is ignored.
    pub strict_compat: bool,
    /// Logs one event per request.
    pub access_log: bool,
    /// Answers gRPC Predict with `tensor_content` in place of the typed fields.
    pub tensor_content: bool,
    /// Refuses signatures that are not for inference, as TensorFlow Serving does when it is told to.
    pub check_method_name: bool,
    /// How REST answers write NaN and infinities.
    pub non_finite: NonFinite,
    /// Serves `grpc.health.v1`.
    pub grpc_health: bool,
    /// Serves `grpc.reflection`.
    pub grpc_reflection: bool,
    /// The header, and gRPC metadata, that says who asks, for callers that take turns.
    pub caller_header: HeaderName,
    /// Lets requests change what is served: HandleReloadConfigRequest, and load and unload of the model repository.
    pub model_control: bool,
    /// How long a REST request may take once its body is there.
    pub rest_timeout: Duration,
    /// The version that the Open Inference Protocol's server metadata name.
    pub server_version: String,
    /// The bounds.
    pub limits: Limits,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            grpc: Some(SocketAddr::from(([0, 0, 0, 0], 8500))),
            grpc_unix: None,
            rest: Some(SocketAddr::from(([0, 0, 0, 0], 8501))),
            metrics: None,
            grpc_tls: None,
            rest_tls: None,
            workers: NonZeroUsize::MIN,
            metrics_path: "/monitoring/prometheus/metrics".to_owned(),
            cors: false,
            strict_compat: false,
            access_log: false,
            tensor_content: false,
            check_method_name: false,
            non_finite: NonFinite::default(),
            grpc_health: true,
            grpc_reflection: true,
            caller_header: HeaderName::from_static(crate::terms::CALLER),
            model_control: true,
            rest_timeout: Duration::from_secs(30),
            server_version: env!("CARGO_PKG_VERSION").to_owned(),
            limits: Limits::default(),
        }
    }
}

/// The texts of TensorFlow Serving's `SSLConfig`: PEM, not file names.
#[derive(Clone)]
pub struct Tls {
    /// The private key.
    pub key: String,
    /// The certificate and its chain.
    pub cert: String,
    /// The authorities that clients' certificates are checked against.
    pub custom_ca: Option<String>,
    /// Whether a client must show a certificate.
    pub client_verify: bool,
}

/// Leaves the key out.
impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("client_verify", &self.client_verify).finish_non_exhaustive()
    }
}

/// The bounds of everything that a client can make grow.
#[derive(Debug, Clone)]
pub struct Limits {
    /// The largest body of a REST request and the largest gRPC message, as sent.
    pub body_bytes: usize,
    /// The largest body or message after it is decompressed.
    pub decompressed_bytes: usize,
    /// Bytes of all requests that are being received or answered.
    pub bytes_in_flight: usize,
    /// Connections of all listeners together.
    pub connections: usize,
    /// Bytes of the head of one HTTP/1 request, and of the header list of one HTTP/2 request. At least 8192.
    pub header_bytes: usize,
    /// Header fields of one HTTP/1 request.
    pub headers: usize,
    /// HTTP/2 streams per connection at one time.
    pub streams: u32,
    /// From accepting a connection or its first byte of a request to the end of the request's head; also of the TLS
    /// handshake.
    pub header_timeout: Duration,
    /// The longest pause while a body is received.
    pub read_timeout: Duration,
    /// The longest time to receive one body.
    pub body_timeout: Duration,
    /// The longest time in which a client takes no byte of an answer.
    pub write_timeout: Duration,
    /// How long a connection may stay open with no request.
    pub idle_timeout: Duration,
    /// Nesting of JSON.
    pub json_depth: usize,
    /// Elements of one tensor that is decoded from text.
    pub tensor_elements: usize,
    /// Answers from this size on are compressed when the client accepts it.
    pub compress_from_bytes: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            body_bytes: 256 << 20,
            decompressed_bytes: 256 << 20,
            bytes_in_flight: 1 << 30,
            connections: 10_000,
            header_bytes: 64 << 10,
            headers: 100,
            streams: 256,
            header_timeout: Duration::from_secs(10),
            read_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(120),
            write_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(600),
            json_depth: 64,
            tensor_elements: 1 << 28,
            compress_from_bytes: 1024,
        }
    }
}
