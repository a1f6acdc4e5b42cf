//! The Open Inference Protocol over REST.

use salver_server::Config;

use crate::client::{get, post, send};
use crate::play::{Running, config};

#[tokio::test]
async fn every_url_has_its_answer() {
    let running = Running::start(config());
    let rest = running.addresses().rest;
    let infer = r#"{"id": "7", "inputs": [{"name": "x", "shape": [2], "datatype": "FP32", "data": [1, 2]}]}"#;
    let cases = [
        ("GET", "/v2", "", 200, "\"salver\""),
        ("GET", "/v2/health/live", "", 200, ""),
        ("GET", "/v2/health/ready", "", 200, ""),
        ("GET", "/v2/models/double", "", 200, "FP32"),
        ("GET", "/v2/models/double/versions/1", "", 200, "FP32"),
        ("GET", "/v2/models/none", "", 404, "Servable not found"),
        ("GET", "/v2/models/double/ready", "", 200, ""),
        ("GET", "/v2/models/double/versions/9/ready", "", 404, ""),
        ("GET", "/v2/models/double/config", "", 200, "max_batch_size"),
        ("GET", "/v2/models/double/stats", "", 200, "model_stats"),
        ("GET", "/v2/models/stats", "", 200, "model_stats"),
        ("POST", "/v2/models/double/infer", infer, 200, "\"id\": \"7\""),
        ("POST", "/v2/models/double/versions/1/infer", infer, 200, "\"model_version\": \"1\""),
        ("POST", "/v2/models/none/infer", infer, 404, "Servable not found"),
        ("POST", "/v2/models/double/infer", "{}", 400, "input size does not match signature"),
        ("POST", "/v2/models/double/infer", "{", 400, "error"),
        ("POST", "/v2/repository/index", "", 200, "UNAVAILABLE"),
        ("POST", "/v2/repository/models/double/load", "{}", 200, ""),
        ("POST", "/v2/repository/models/none/load", "", 404, "no model none"),
        ("POST", "/v2/repository/models/double/unload", "", 200, ""),
        ("GET", "/v2/models/double/infer", "", 405, "expected one of POST"),
        ("GET", "/v2/else", "", 404, "there is nothing"),
    ];
    for (method, path, body, status, text) in cases {
        let reply = send(rest, method, path, &[], body).await;
        assert_eq!(reply.status, status, "{method} {path}: {}", reply.text());
        assert!(reply.text().contains(text), "{method} {path}: {}", reply.text());
    }
    let index = post(rest, "/v2/repository/index", r#"{"ready": true}"#).await;
    assert!(!index.text().contains("UNAVAILABLE"));
    let loads = running.stage.loads.lock().unwrap().clone();
    assert_eq!(loads, ["load double", "load none", "unload double"]);
    running.stop().await;
}

#[tokio::test]
async fn binary_tensors_both_ways() {
    let running = Running::start(config());
    let rest = running.addresses().rest;
    let header = r#"{"inputs": [{"name": "x", "shape": [2], "datatype": "FP32", "parameters": {"binary_data_size": 8}}], "outputs": [{"name": "y", "parameters": {"binary_data": true}}]}"#;
    let mut body = header.as_bytes().to_vec();
    body.extend([1.0f32, 2.5].iter().flat_map(|value| value.to_le_bytes()));
    let length = header.len().to_string();
    let headers = [("inference-header-content-length", length.as_str())];
    let reply = send(rest, "POST", "/v2/models/double/infer", &headers, body.clone()).await;
    assert_eq!((reply.status.as_u16(), reply.header("content-type")), (200, "application/octet-stream"));
    let at: usize = reply.header("inference-header-content-length").parse().unwrap();
    let doubled: Vec<u8> = [2.0f32, 5.0].iter().flat_map(|value| value.to_le_bytes()).collect();
    assert_eq!(reply.body[at..], doubled);
    for wrong in ["x", "-1", "99999", "99999999999999999999999"] {
        let headers = [("inference-header-content-length", wrong)];
        let reply = send(rest, "POST", "/v2/models/double/infer", &headers, body.clone()).await;
        assert_eq!(reply.status, 400, "{wrong}");
    }
    running.stop().await;
}

#[tokio::test]
async fn control_can_be_switched_off() {
    let running = Running::start(Config { model_control: false, ..config() });
    let rest = running.addresses().rest;
    for verb in ["load", "unload"] {
        let reply = post(rest, &format!("/v2/repository/models/double/{verb}"), "").await;
        assert_eq!(reply.status, 403, "{verb}");
    }
    assert!(running.stage.loads.lock().unwrap().is_empty());
    assert_eq!(get(rest, "/v2/models/double").await.status, 200);
    running.stop().await;
}
