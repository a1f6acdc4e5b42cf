//! Sockets, TLS, limits of connections, and the shutdown.

use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use salver_server::{Config, ErrorKind, Limits, Server, Tls};
use salver_wire::proto::tensorflow::serving::prediction_service_client::PredictionServiceClient;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::client::{Channel, get, http1, origin, post, read, request};
use crate::grpc::{answer, ask};
use crate::play::{Running, Stage, config, with_limits};

const PREDICT: &str = "/v1/models/double:predict";
const BODY: &str = r#"{"instances": [1.0]}"#;

/// An authority, and what it vouches for.
struct Authority {
    pem: String,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Authority { pem: issuer.pem(), issuer }
    }

    /// A certificate and its key.
    fn vouch(&self) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    fn tls(&self, client_verify: bool) -> Tls {
        let (cert, key) = self.vouch();
        Tls { key, cert, custom_ca: client_verify.then(|| self.pem.clone()), client_verify }
    }

    fn connector(&self, alpn: &str, with_certificate: bool) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut client = if with_certificate {
            let (cert, key) = self.vouch();
            let chain = vec![CertificateDer::from_pem_slice(cert.as_bytes()).unwrap()];
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        } else {
            builder.with_no_client_auth()
        };
        client.alpn_protocols = vec![alpn.as_bytes().to_vec()];
        TlsConnector::from(Arc::new(client))
    }
}

#[tokio::test]
async fn tls_and_client_certificates() {
    let authority = Authority::new();
    let localhost = ServerName::try_from("localhost").unwrap();
    for (verify, with_certificate, works) in [(false, false, true), (true, true, true), (true, false, false)]
    {
        let tls = Some(authority.tls(verify));
        let running = Running::start(Config { grpc_tls: tls.clone(), rest_tls: tls, ..config() });
        let (rest, grpc) = (running.addresses().rest.unwrap(), running.addresses().grpc.unwrap());
        let connect = async |address, alpn| {
            let socket = TcpStream::connect(address).await.unwrap();
            authority.connector(alpn, with_certificate).connect(localhost.clone(), socket).await
        };
        // With TLS 1.3 a client without a certificate is refused after its own handshake.
        if !works {
            let mut stream = connect(rest, "http/1.1").await.unwrap();
            let mut bytes = Vec::new();
            drop(stream.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await);
            assert!(stream.read_to_end(&mut bytes).await.is_err(), "answered without a certificate");
            running.stop().await;
            continue;
        }
        let mut sender = http1(connect(rest, "http/1.1").await.unwrap()).await;
        let reply = read(sender.send_request(request("POST", PREDICT, &[], BODY)).await.unwrap()).await;
        assert_eq!(reply.status, 200);
        for address in [grpc, rest] {
            let stream = connect(address, "h2").await.unwrap();
            assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
            if address == grpc {
                let mut client = PredictionServiceClient::with_origin(Channel::over(stream).await, origin());
                let response = client.predict(ask("double", &[1.0])).await.unwrap().into_inner();
                assert_eq!(answer(&response), [2.0]);
            }
        }
        running.stop().await;
    }
}

#[test]
fn unusable_keys_are_refused() {
    let authority = Authority::new();
    let good = authority.tls(false);
    let other = authority.tls(false);
    let cases = [
        (Tls { key: String::new(), ..good.clone() }, "server_key is not a private key"),
        (Tls { cert: "x".to_owned(), ..good.clone() }, "server_cert holds no certificate"),
        (Tls { key: other.key, ..good.clone() }, "cannot be used together"),
        (Tls { client_verify: true, ..good.clone() }, "client_verify needs custom_ca"),
        (Tls { custom_ca: Some(String::new()), ..good }, "custom_ca holds no certificate"),
    ];
    for (tls, text) in cases {
        let stage = Stage::new();
        let registry = prometheus::Registry::new();
        let config = Config { grpc_tls: Some(tls), ..config() };
        let error = Server::bind(config, Arc::<Stage>::clone(&stage), stage, &registry).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Tls);
        assert!(error.to_string().contains(text), "{error}");
    }
}

#[tokio::test]
async fn ports_open_at_once_and_are_exclusive() {
    let stage = Stage::new();
    let registry = prometheus::Registry::new();
    let server = Server::bind(config(), Arc::<Stage>::clone(&stage), Arc::<Stage>::clone(&stage), &registry);
    let addresses = server.as_ref().unwrap().addresses().clone();
    // Nobody accepts yet.
    TcpStream::connect(addresses.rest.unwrap()).await.unwrap();
    let taken = Config { rest: addresses.rest, ..config() };
    let error =
        Server::bind(taken, Arc::<Stage>::clone(&stage), stage, &prometheus::Registry::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Bind);
    assert!(error.to_string().starts_with("cannot listen on 127.0.0.1:"), "{error}");
}

#[tokio::test]
async fn unix_sockets() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("salver.sock");
    // A socket that a server left behind.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let running = Running::start(Config { grpc_unix: Some(path.clone()), ..config() });
    let channel = Channel::over(UnixStream::connect(&path).await.unwrap()).await;
    let mut client = PredictionServiceClient::with_origin(channel, origin());
    let response = client.predict(ask("double", &[1.0])).await.unwrap().into_inner();
    assert_eq!(answer(&response), [2.0]);
    running.stop().await;
    assert!(!path.exists(), "the socket file is removed");
}

#[tokio::test]
async fn connections_have_a_bound() {
    let running = Running::start(with_limits(Limits { connections: 2, ..Limits::default() }));
    let address = running.addresses().rest.unwrap();
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut sender = http1(TcpStream::connect(address).await.unwrap()).await;
        let reply = read(sender.send_request(request("GET", "/livez", &[], "")).await.unwrap()).await;
        assert_eq!(reply.status, 200);
        held.push(sender);
    }
    let mut third = TcpStream::connect(address).await.unwrap();
    let mut text = String::new();
    third.read_to_string(&mut text).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 503 ") && text.contains("too many connections"), "{text}");
    drop(held);
    // The places come back when the server has seen the connections close.
    let in_time = tokio::time::timeout(Duration::from_secs(10), async {
        loop {
            let mut socket = TcpStream::connect(address).await.unwrap();
            let head = "GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
            let mut text = String::new();
            drop(socket.write_all(head.as_bytes()).await);
            drop(socket.read_to_string(&mut text).await);
            if text.starts_with("HTTP/1.1 200 ") {
                break;
            }
        }
    });
    in_time.await.unwrap();
    running.stop().await;
}

#[tokio::test]
async fn slow_clients_are_cut_off() {
    let limits = Limits {
        header_timeout: Duration::from_millis(300),
        read_timeout: Duration::from_millis(300),
        ..Limits::default()
    };
    let running = Running::start(with_limits(limits));
    let address = running.addresses().rest.unwrap();
    let body = format!("POST {PREDICT} HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n{{");
    for (name, bytes, expected) in
        [("nothing", "", ""), ("half a head", "POST / HT", ""), ("half a body", &body, "HTTP/1.1 408 ")]
    {
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket.write_all(bytes.as_bytes()).await.unwrap();
        let mut got = Vec::new();
        tokio::time::timeout(Duration::from_secs(20), socket.read_to_end(&mut got)).await.unwrap().unwrap();
        let text = String::from_utf8(got).unwrap();
        assert!(text.starts_with(expected) && text.is_empty() == expected.is_empty(), "{name}: {text}");
    }
    assert_eq!(post(Some(address), PREDICT, BODY).await.status, 200);
    running.stop().await;
}

#[tokio::test]
async fn heads_have_bounds() {
    let running =
        Running::start(with_limits(Limits { header_bytes: 8192, headers: 20, ..Limits::default() }));
    let address = running.addresses().rest.unwrap();
    let many: String = (0..30).map(|i| format!("x-{i}: 1\r\n")).collect();
    let large = format!("x-large: {}\r\n", "a".repeat(20_000));
    for extra in [many, large] {
        let mut socket = TcpStream::connect(address).await.unwrap();
        let head = format!("GET /livez HTTP/1.1\r\nhost: x\r\n{extra}\r\n");
        drop(socket.write_all(head.as_bytes()).await);
        let mut got = Vec::new();
        drop(socket.read_to_end(&mut got).await);
        let text = String::from_utf8(got).unwrap();
        assert!(text.starts_with("HTTP/1.1 431 ") || text.is_empty(), "{text}");
    }
    assert_eq!(get(Some(address), "/livez").await.status, 200);
    running.stop().await;
}

#[tokio::test]
async fn a_shutdown_finishes_what_runs() {
    let running = Running::start(config());
    let rest = running.addresses().rest;
    let channel = Channel::to(running.addresses().grpc).await;
    let mut grpc = PredictionServiceClient::with_origin(channel, origin());
    // An idle connection, which is closed. It is idle once its answer has begun: a request that the server has not read
    // when it closes is answered by a reset.
    let mut idle = TcpStream::connect(rest.unwrap()).await.unwrap();
    idle.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    assert_eq!(idle.read_u8().await.unwrap(), b'H');
    let over_rest = post(rest, "/v1/models/gated:predict", BODY);
    let over_grpc = grpc.predict(ask("gated", &[1.0]));
    let shutdown = async {
        running.stage.gate.entered().await;
        running.stage.gate.entered().await;
        let ended = running.server.shutdown(Duration::from_secs(30));
        let released = async {
            let mut bytes = Vec::new();
            idle.read_to_end(&mut bytes).await.unwrap();
            // The listeners are closed by now or soon.
            while TcpStream::connect(rest.unwrap()).await.is_ok() {
                tokio::task::yield_now().await;
            }
            running.stage.gate.release();
            running.stage.gate.release();
        };
        tokio::join!(ended, released).0
    };
    let (over_rest, over_grpc, n_cut) = tokio::join!(over_rest, over_grpc, shutdown);
    assert_eq!((over_rest.status.as_u16(), over_rest.header("connection")), (200, "close"));
    assert_eq!(answer(&over_grpc.unwrap().into_inner()), [2.0]);
    assert_eq!(n_cut, 0);
    running.stop().await;
}

#[tokio::test]
async fn a_watch_does_not_delay_the_shutdown() {
    let running = Running::start(config());
    let channel = Channel::to(running.addresses().grpc).await;
    let mut client = HealthClient::with_origin(channel, origin());
    let mut watched = client.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    while watched.message().await.unwrap().map(|message| message.status)
        != Some(ServingStatus::Serving as i32)
    {}
    let shutdown = running.server.shutdown(Duration::from_secs(60));
    let shutdown = tokio::time::timeout(Duration::from_secs(20), shutdown);
    // A state may be told again before it changes; the stream ends only after the last one.
    let told = async {
        let mut last = None;
        while let Ok(Some(message)) = watched.message().await {
            last = Some(message.status);
            if last == Some(ServingStatus::NotServing as i32) {
                break;
            }
        }
        last
    };
    let (n_cut, told) = tokio::join!(shutdown, told);
    assert_eq!(n_cut, Ok(0));
    assert_eq!(told, Some(ServingStatus::NotServing as i32));
    running.stop().await;
}

#[tokio::test]
async fn a_grace_that_is_over_cuts_off() {
    let running = Running::start(config());
    let rest = running.addresses().rest;
    let socket = TcpStream::connect(rest.unwrap()).await.unwrap();
    let mut sender = http1(socket).await;
    let cut = sender.send_request(request("POST", "/v1/models/gated:predict", &[], BODY));
    let shutdown = async {
        running.stage.gate.entered().await;
        running.server.shutdown(Duration::from_millis(50)).await
    };
    let (cut, n_cut) = tokio::join!(cut, shutdown);
    assert!(cut.is_err());
    assert_eq!(n_cut, 1);
    running.stop().await;
}
