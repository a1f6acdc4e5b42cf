//! TensorFlow Serving's REST interface, and what holds for all of REST.

use std::io::Write;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::StatusCode;
use salver_server::{Config, Limits};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::{self, get, post, read, request, send, send_chunks};
use crate::play::{Running, config, with_limits};

const PREDICT: &str = "/v1/models/double:predict";
const EXAMPLES: &str = r#"{"examples": [{}, {"x": 1}]}"#;

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn every_url_has_its_answer() {
    let running = Running::start(config());
    let rest = running.addresses().rest;
    let ask = r#"{"instances": [1.0, 2.5]}"#;
    let cases = [
        ("POST", PREDICT, ask, 200, "[2.0, 5.0]"),
        ("POST", "/v1/models/double/versions/1:predict?x=1", ask, 200, "predictions"),
        ("POST", "/v1/models/double/labels/stable:predict", ask, 200, "predictions"),
        ("POST", PREDICT, r#"{"inputs": [1.5]}"#, 200, "outputs"),
        ("POST", "/v1/models/double/labels/x:predict", ask, 400, "Unrecognized servable version label: x"),
        ("POST", "/v1/models/none:predict", ask, 404, "Servable not found for request: Latest(none)"),
        ("POST", "/v1/models/none:predict", "{", 400, "JSON Parse error"),
        ("POST", PREDICT, "", 400, "JSON Parse error: The document is empty"),
        ("POST", PREDICT, r#"{"signature_name": "x"}"#, 400, r#"Serving signature key \"x\" not found."#),
        ("POST", "/v1/models/full:predict", ask, 503, "the queue is full"),
        ("POST", "/v1/models/double:classify", "{}", 400, "key 'examples' is expected and was not found"),
        ("POST", "/v1/models/double:classify", EXAMPLES, 400, "No classification inputs found"),
        ("POST", "/v1/models/none:regress", EXAMPLES, 404, "Servable not found"),
        ("POST", "/v1/models/lengths:regress", EXAMPLES, 200, "{\"results\": [2.0, 14.0]}"),
        (
            "POST",
            "/v1/models/lengths/versions/4:classify",
            r#"{"signature_name": "c", "examples": [{}]}"#,
            200,
            r#"{"results": [[["\n\u0000", 2.0]]]}"#,
        ),
        ("POST", "/v1/models/lengths:classify", EXAMPLES, 400, "Expected classification signature outputs"),
        (
            "POST",
            "/v1/models/lengths:regress",
            r#"{"signature_name": "x", "examples": [{}]}"#,
            400,
            "No signature was found with the name: x",
        ),
        ("POST", "/v1/models/double:Predict", ask, 400, "Malformed request: POST /v1/models/double:Predict"),
        ("PUT", "/v1/models/double", "", 400, "Malformed request: PUT /v1/models/double"),
        ("GET", "/v1/models/double", "", 200, "\"AVAILABLE\""),
        ("GET", "/v1/models/double/versions/1", "", 200, "\"1\""),
        ("GET", "/v1/models/double/versions/9", "", 404, "Could not find version 9 of model double"),
        ("GET", "/v1/models/none", "", 404, "Could not find any versions of model none"),
        ("GET", "/v1/models/failed", "", 200, "no such operator"),
        ("GET", "/v1/models/double/metadata", "", 200, "signature_def"),
        ("GET", "/v1/models", "", 200, "\"double\""),
        ("GET", "/livez", "", 200, "live"),
        ("GET", "/readyz", "", 200, "true"),
        ("GET", "/nothing", "", 404, "there is nothing at GET /nothing"),
        ("POST", "/metrics", "", 405, "expected one of GET, HEAD"),
    ];
    for (method, path, body, status, text) in cases {
        let reply = send(rest, method, path, &[], body).await;
        assert_eq!(reply.status, status, "{method} {path}: {}", reply.text());
        assert!(reply.text().contains(text), "{method} {path}: {}", reply.text());
        assert_eq!(reply.header("content-type"), "application/json", "{method} {path}");
        if status >= 400 {
            assert!(reply.json()["error"].is_string(), "{method} {path}");
        }
    }
    running.stop().await;
}

#[tokio::test]
async fn a_label_on_a_status_url_counts() {
    for (strict_compat, n_versions) in [(false, 1), (true, 2)] {
        let running = Running::start(Config { strict_compat, ..config() });
        let reply = get(running.addresses().rest, "/v1/models/double/labels/stable").await;
        assert_eq!(reply.json()["model_version_status"].as_array().unwrap().len(), n_versions);
        running.stop().await;
    }
}

#[tokio::test]
async fn http2_with_prior_knowledge() {
    let running = Running::start(config());
    let socket = TcpStream::connect(running.addresses().rest.unwrap()).await.unwrap();
    let mut sender = client::http2(socket).await;
    for _ in 0..3 {
        let mut request = request("POST", PREDICT, &[], r#"{"instances": [1.0]}"#);
        request.headers_mut().remove("host");
        let reply = read(sender.send_request(request).await.unwrap()).await;
        assert_eq!((reply.status, reply.json()), (StatusCode::OK, serde_json::json!({"predictions": [2.0]})));
    }
    running.stop().await;
}

#[tokio::test]
async fn head_is_get_without_a_body() {
    let running = Running::start(config());
    let rest = running.addresses().rest;
    for path in ["/v1/models/double", "/metrics", "/livez", "/v2"] {
        let (head, full) = (send(rest, "HEAD", path, &[], "").await, get(rest, path).await);
        assert_eq!((head.status, head.body.len()), (full.status, 0), "{path}");
        if path != "/metrics" {
            assert_eq!(head.header("content-length"), full.body.len().to_string(), "{path}");
        }
    }
    running.stop().await;
}

#[tokio::test]
async fn cors() {
    let cases = [
        (true, vec![("origin", "https://example.org")], 200, "*"),
        (true, vec![], 400, "*"),
        (true, vec![("origin", "file:")], 400, "*"),
        (false, vec![("origin", "https://example.org")], 400, ""),
    ];
    for (cors, headers, status, allowed) in cases {
        let running = Running::start(Config { cors, ..config() });
        let rest = running.addresses().rest;
        let preflight = send(rest, "OPTIONS", PREDICT, &headers, "").await;
        assert_eq!(preflight.status, status, "{cors} {headers:?}");
        let answer = send(rest, "POST", PREDICT, &headers, r#"{"instances": [1.0]}"#).await;
        for reply in [preflight, answer] {
            assert_eq!(reply.header("access-control-allow-origin"), allowed);
            assert_eq!(reply.header("access-control-allow-methods").is_empty(), !cors);
            assert_eq!(reply.header("access-control-allow-headers").is_empty(), !cors);
        }
        assert_eq!(get(rest, "/livez").await.header("access-control-allow-origin"), "");
        running.stop().await;
    }
}

#[tokio::test]
async fn compressed_bodies() {
    let limits = Limits { decompressed_bytes: 1 << 20, ..Limits::default() };
    let running = Running::start(with_limits(limits));
    let rest = running.addresses().rest;
    let text = br#"{"instances": [1.0, 2.0]}"#;
    let mut spaces = text.to_vec();
    spaces.resize(2 << 20, b' ');
    let zlib = {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    };
    let cut = gzip(text)[..20].to_vec();
    let cases: [(&str, Vec<u8>, u16, &str); 9] = [
        ("gzip", gzip(text), 200, "predictions"),
        ("zstd", zstd::bulk::compress(text, 1).unwrap(), 200, "predictions"),
        ("deflate", zlib, 200, "predictions"),
        ("identity", text.to_vec(), 200, "predictions"),
        ("gzip", text.to_vec(), 400, "the body is not valid gzip"),
        ("gzip", cut, 400, "the body is not valid gzip"),
        ("gzip", gzip(&spaces), 413, "decompressed body is larger than the limit of 1048576 bytes"),
        ("zstd", zstd::bulk::compress(&spaces, 1).unwrap(), 413, "decompressed body is larger"),
        ("br", text.to_vec(), 415, "content-encoding is 'br'"),
    ];
    for (coding, body, status, expected) in cases {
        let reply = send(rest, "POST", PREDICT, &[("content-encoding", coding)], body).await;
        assert_eq!(reply.status, status, "{coding}: {}", reply.text());
        assert!(reply.text().contains(expected), "{coding}: {}", reply.text());
    }
    running.stop().await;
}

#[tokio::test]
async fn answers_are_compressed_when_it_pays() {
    let running = Running::start(config());
    let rest = running.addresses().rest;
    let body = |n| serde_json::json!({ "instances": vec![1.5; n] }).to_string();
    let plain = post(rest, PREDICT, body(1000)).await.body;
    for (accepted, n, expected) in
        [("gzip, deflate", 1000, "gzip"), ("zstd, gzip", 1000, "zstd"), ("br", 1000, ""), ("gzip", 10, "")]
    {
        let reply = send(rest, "POST", PREDICT, &[("accept-encoding", accepted)], body(n)).await;
        assert_eq!(reply.header("content-encoding"), expected, "{accepted} {n}");
        match expected {
            "gzip" => {
                let mut text = Vec::new();
                let mut decoder = flate2::bufread::GzDecoder::new(&*reply.body);
                std::io::Read::read_to_end(&mut decoder, &mut text).unwrap();
                assert_eq!(text, plain);
            }
            "zstd" => assert_eq!(zstd::decode_all(&*reply.body).unwrap(), plain),
            _ => assert_eq!(reply.json()["predictions"].as_array().unwrap().len(), n),
        }
    }
    running.stop().await;
}

#[tokio::test]
async fn bodies_that_are_too_large() {
    let running = Running::start(with_limits(Limits { body_bytes: 100_000, ..Limits::default() }));
    let rest = running.addresses().rest;
    // By its length alone: the body is never sent.
    let mut socket = TcpStream::connect(rest.unwrap()).await.unwrap();
    let head = format!(
        "POST {PREDICT} HTTP/1.1\r\nhost: x\r\ncontent-length: 100001\r\nexpect: 100-continue\r\n\r\n"
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut text = String::new();
    socket.read_to_string(&mut text).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 413 "), "{text}");
    assert!(text.contains("larger than the limit of 100000 bytes"), "{text}");
    // While it comes.
    let chunk = Bytes::from(vec![b' '; 60_000]);
    let reply = send_chunks(rest, PREDICT, vec![chunk.clone(), chunk]).await;
    assert_eq!(reply.status, 413);
    // The largest that fits.
    let mut body = br#"{"instances": [1.0]}"#.to_vec();
    body.resize(100_000, b' ');
    assert_eq!(post(rest, PREDICT, body.clone()).await.status, 200);
    let halves = vec![Bytes::from(body[..50_000].to_vec()), Bytes::from(body[50_000..].to_vec())];
    assert_eq!(send_chunks(rest, PREDICT, halves).await.status, 200);
    running.stop().await;
}

#[tokio::test]
async fn expect_continue_is_honoured() {
    let running = Running::start(config());
    let mut socket = TcpStream::connect(running.addresses().rest.unwrap()).await.unwrap();
    let body = r#"{"instances": [1.0]}"#;
    let head = format!(
        "POST {PREDICT} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\nexpect: 100-continue\r\n\r\n",
        body.len()
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut go_on = [0; 25];
    socket.read_exact(&mut go_on).await.unwrap();
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    socket.write_all(body.as_bytes()).await.unwrap();
    let mut text = String::new();
    socket.read_to_string(&mut text).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 200 OK"), "{text}");
    running.stop().await;
}

#[tokio::test]
async fn bytes_in_flight_have_a_bound() {
    let running = Running::start(with_limits(Limits { bytes_in_flight: 1000, ..Limits::default() }));
    let rest = running.addresses().rest;
    let mut body = br#"{"instances": [1.0]}"#.to_vec();
    body.resize(600, b' ');
    let first = async { post(rest, "/v1/models/gated:predict", body.clone()).await };
    let second = async {
        running.stage.gate.entered().await;
        let reply = post(rest, PREDICT, body.clone()).await;
        running.stage.gate.release();
        reply
    };
    let (first, second) = tokio::join!(first, second);
    assert_eq!(first.status, 200);
    assert_eq!((second.status, second.header("retry-after")), (StatusCode::TOO_MANY_REQUESTS, "1"));
    assert_eq!(post(rest, PREDICT, body).await.status, 200, "what was taken comes back");
    running.stop().await;
}

#[tokio::test]
async fn overload_says_when_to_come_back() {
    let running = Running::start(config());
    let reply = post(running.addresses().rest, "/v1/models/full:predict", r#"{"instances": [1.0]}"#).await;
    assert_eq!((reply.status, reply.header("retry-after")), (StatusCode::SERVICE_UNAVAILABLE, "2"));
    running.stop().await;
}

#[tokio::test]
async fn deadlines_end_a_request() {
    let running = Running::start(config());
    let headers = [("x-request-timeout-ms", "50")];
    let body = r#"{"instances": [1.0]}"#;
    let reply = send(running.addresses().rest, "POST", "/v1/models/gated:predict", &headers, body).await;
    assert_eq!(reply.status, 504);
    assert!(reply.text().contains("deadline exceeded"));
    running.stop().await;
}

#[tokio::test]
async fn terms_reach_the_model() {
    let running = Running::start(config());
    let rest = running.addresses().rest;
    let tensor = r#"{"name": "x", "datatype": "FP32", "shape": [1], "data": [1.0]}"#;
    let v2 = |parameters: &str| format!(r#"{{"inputs": [{tensor}], "parameters": {{{parameters}}}}}"#);
    let v1 = || r#"{"instances": [1.0]}"#.to_owned();
    // What the server gives up on by itself is no deadline of the client's.
    for (path, headers, body, expected) in [
        ("/v1/models/terms:predict", &[][..], v1(), "[5.0,0.0,0.0]"),
        (
            "/v1/models/terms:predict",
            &[("salver-priority", "1"), ("salver-caller", "k")],
            v1(),
            "[1.0,1.0,0.0]",
        ),
        ("/v1/models/terms:predict", &[("x-request-timeout-ms", "5000")], v1(), "[5.0,0.0,1.0]"),
        ("/v2/models/terms/infer", &[], v2(r#""priority": 0"#), "[5.0,0.0,0.0]"),
        ("/v2/models/terms/infer", &[], v2(r#""priority": 77, "timeout": 5000000"#), "[9.0,0.0,1.0]"),
        ("/v2/models/terms/infer", &[("salver-priority", "3")], v2(r#""priority": 4"#), "[4.0,0.0,0.0]"),
    ] {
        let reply = send(rest, "POST", path, headers, body.clone()).await;
        let text = reply.text().replace(' ', "");
        assert!(reply.status == 200 && text.contains(expected), "{path} {headers:?} {body}: {text}");
    }
    for path in ["/v1/models/terms:predict", "/v2/models/terms/infer"] {
        let reply = send(rest, "POST", path, &[("salver-priority", "urgent")], v2("")).await;
        assert_eq!(reply.status, 400);
        assert!(
            reply.text().contains("salver-priority is 'urgent', expected a number from 1"),
            "{}",
            reply.text()
        );
    }
    running.stop().await;
}

#[tokio::test]
async fn hostile_json_is_refused() {
    let running = Running::start(config());
    let rest = running.addresses().rest;
    let deep = "[".repeat(50_000);
    for body in [deep.clone(), format!("{{\"instances\": {deep}"), format!("{{\"x\": {deep}")] {
        let reply = post(rest, PREDICT, body).await;
        assert_eq!(reply.status, 400);
    }
    assert_eq!(post(rest, PREDICT, r#"{"instances": [1.0]}"#).await.status, 200);
    running.stop().await;
}

#[tokio::test]
async fn readiness_names_what_is_missing() {
    let running = Running::start(config());
    running.stage.ready.store(false, Ordering::Relaxed);
    let reply = get(running.addresses().rest, "/readyz").await;
    assert_eq!(reply.status, 503);
    assert_eq!(reply.json(), serde_json::json!({"ready": false, "unready": ["failed"]}));
    assert_eq!(get(running.addresses().rest, "/livez").await.status, 200);
    running.stop().await;
}

#[tokio::test]
async fn metrics_have_tensorflow_servings_names() {
    let any = Some(([127, 0, 0, 1], 0).into());
    let running = Running::start(Config { metrics: any, ..config() });
    let rest = running.addresses().rest;
    for path in [PREDICT, "/v1/models/none:predict"] {
        post(rest, path, r#"{"instances": [1.0]}"#).await;
    }
    get(rest, "/v1/models/double").await;
    let expected = [
        r#":tensorflow:serving:request_count{model_name="double",status="OK"} 2"#,
        r#":tensorflow:serving:request_count{model_name="unknown",status="NOT_FOUND"} 1"#,
        r#":tensorflow:serving:request_latency_count{API="predict",entrypoint="REST",model_name="double"} 1"#,
        r#":tensorflow:serving:request_latency_bucket{API="predict",entrypoint="REST",model_name="double",le="18"}"#,
        r#":tensorflow:serving:runtime_latency_sum{API="Predict",model_name="double",runtime="played"} 3"#,
        r#"salver_request_phase_seconds_count{model_name="double",phase="run",signature="serving_default",version="2"} 1"#,
        "# HELP :tensorflow:serving:request_count ",
        "salver_requests_in_flight",
        "salver_request_bytes_in_flight 0",
    ];
    let own = running.addresses().metrics;
    for (address, path) in [(rest, "/metrics"), (rest, "/monitoring/prometheus/metrics"), (own, "/metrics")] {
        let reply = get(address, path).await;
        assert!(reply.header("content-type").starts_with("text/plain"));
        for line in expected {
            assert!(reply.text().contains(line), "{path} lacks {line}:\n{}", reply.text());
        }
    }
    assert_eq!(get(own, "/v1/models/double").await.status, 404);
    running.stop().await;
}
