//! The client of schema registries, against one that does as it is told.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Barrier, Mutex};
use std::thread;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use salver_kafka::{Aside, Registry, RegistrySettings, Secret};
use salver_mapping::{Reference, Registered, Schema, SchemaKind, Schemas, Unregistered};
use serde_json::{Value, json};

/// What a registry does when it is asked.
#[derive(Debug, Clone)]
enum Reply {
    Answer(u16, Value),
    /// Bytes that are no answer of a registry.
    Nonsense(&'static str),
    /// Nothing, for as long as the caller waits.
    Silence,
}

/// A registry of a test: replies by method and path, and what it was asked.
#[derive(Debug)]
struct Stub {
    url: String,
    replies: Mutex<HashMap<String, Reply>>,
    asked: Mutex<Vec<(String, String, Value)>>,
}

impl Stub {
    fn start(replies: impl IntoIterator<Item = (&'static str, Reply)>) -> Arc<Stub> {
        Stub::start_with(replies, None)
    }

    fn start_with(
        replies: impl IntoIterator<Item = (&'static str, Reply)>,
        tls: Option<Arc<ServerConfig>>,
    ) -> Arc<Stub> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let replies = replies.into_iter().map(|(at, reply)| (at.to_owned(), reply)).collect();
        let address = listener.local_addr().unwrap();
        let url = if tls.is_some() {
            format!("https://localhost:{}", address.port())
        } else {
            format!("http://{address}")
        };
        let stub = Arc::new(Stub { url, replies: Mutex::new(replies), asked: Mutex::default() });
        let serving = Arc::clone(&stub);
        // Ends with the process of the test.
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (serving, stream, tls) = (Arc::clone(&serving), stream.unwrap(), tls.clone());
                thread::spawn(move || match tls {
                    Some(tls) => serving.serve(StreamOwned::new(ServerConnection::new(tls).unwrap(), stream)),
                    None => serving.serve(stream),
                });
            }
        });
        stub
    }

    /// One request for each connection.
    fn serve(&self, stream: impl Read + Write) -> Option<()> {
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let at = line.rsplit_once(' ')?.0.to_owned();
        let (mut length, mut authorization) = (0, String::new());
        loop {
            line.clear();
            reader.read_line(&mut line).ok()?;
            let Some((name, value)) = line.trim().split_once(": ") else { break };
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.parse().ok()?,
                "authorization" => authorization = value.to_owned(),
                _ => {}
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        let body = serde_json::from_slice(&body).unwrap_or_default();
        self.asked.lock().unwrap().push((at.clone(), authorization, body));
        let reply = self.replies.lock().unwrap().get(&at).cloned();
        let not_found = Reply::Answer(404, json!({"error_code": 40403, "message": "Schema not found"}));
        let (status, text) = match reply.unwrap_or(not_found) {
            Reply::Answer(status, body) => (status, body.to_string()),
            Reply::Nonsense(text) => (200, text.to_owned()),
            Reply::Silence => {
                // The caller ends the connection.
                let mut rest = vec![];
                reader.read_to_end(&mut rest).ok()?;
                return None;
            }
        };
        let head =
            format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", text.len());
        reader.get_mut().write_all(format!("{head}{text}").as_bytes()).ok()?;
        reader.get_mut().flush().ok()
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().iter().map(|(at, _, _)| at.clone()).collect()
    }

    fn set(&self, at: &str, reply: Reply) {
        self.replies.lock().unwrap().insert(at.to_owned(), reply);
    }
}

fn settings(urls: &[&str]) -> RegistrySettings {
    RegistrySettings {
        urls: urls.iter().map(|&url| url.to_owned()).collect(),
        timeout_ms: Some(300),
        ..RegistrySettings::at("")
    }
}

fn opened(settings: &RegistrySettings) -> Result<Registry, salver_records::Error> {
    Registry::new(settings, &|name| (name == "THERE").then(|| "secret".to_owned()))
}

fn registry(stub: &Stub) -> Registry {
    opened(&settings(&[&stub.url])).unwrap()
}

fn avro(text: &str) -> Schema {
    Schema { kind: SchemaKind::Avro, text: text.into(), references: vec![] }
}

#[test]
fn a_schema_is_asked_for_once() {
    let stub = Stub::start([
        ("GET /schemas/ids/7", Reply::Answer(200, json!({"schema": "\"string\""}))),
        (
            "GET /schemas/guids/00010203-0405-0607-0809-0a0b0c0d0e0f",
            Reply::Answer(200, json!({"schema": "\"int\"", "guid": "x"})),
        ),
    ]);
    let registry = registry(&stub);
    for _ in 0..3 {
        assert_eq!(*registry.get(7).unwrap(), avro("\"string\""));
        assert_eq!(*registry.guid("00010203-0405-0607-0809-0a0b0c0d0e0f").unwrap(), avro("\"int\""));
    }
    assert_eq!(stub.asked().len(), 2);
}

#[test]
fn threads_that_want_the_same_schema_ask_once() {
    let stub = Stub::start([("GET /schemas/ids/7", Reply::Answer(200, json!({"schema": "\"string\""})))]);
    let registry = registry(&stub);
    let start = Barrier::new(8);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                start.wait();
                assert_eq!(registry.get(7).unwrap().text, "\"string\"");
            });
        }
    });
    assert_eq!(stub.asked().len(), 1);
}

#[test]
fn references_come_along_each_after_its_own() {
    let of = |schema: &str, references: Value| {
        Reply::Answer(
            200,
            json!({"schema": schema, "schemaType": "PROTOBUF", "references": references, "id": 5, "version": 2}),
        )
    };
    let a = json!({"name": "a.proto", "subject": "sub/a", "version": 2});
    let b = json!({"name": "b.proto", "subject": "b", "version": 1});
    let stub = Stub::start([
        ("GET /schemas/ids/1", of("main", json!([a, b]))),
        ("GET /subjects/sub%2Fa/versions/2?deleted=true", of("text of a", json!([b]))),
        ("GET /subjects/b/versions/1?deleted=true", of("text of b", json!([]))),
    ]);
    let reference = |name: &str, text: &str, subject: &str, version| Reference {
        name: name.into(),
        text: text.into(),
        registered: Some(Registered { subject: subject.into(), version }),
    };
    let expected = Schema {
        kind: SchemaKind::Protobuf,
        text: "main".into(),
        references: vec![
            reference("b.proto", "text of b", "b", 1),
            reference("a.proto", "text of a", "sub/a", 2),
        ],
    };
    assert_eq!(*registry(&stub).get(1).unwrap(), expected);
    assert_eq!(stub.asked().len(), 3, "b is asked for once");
}

#[test]
fn an_unknown_id_is_left_alone_for_a_while() {
    let stub = Stub::start([]);
    let registry = registry(&stub);
    for _ in 0..3 {
        let error = registry.get(9).unwrap_err();
        assert!(
            error.passing && error.message.contains("schema 9") && error.message.contains("Schema not found"),
            "{error}"
        );
    }
    assert_eq!(stub.asked(), ["GET /schemas/ids/9"]);
}

#[test]
fn a_registry_that_is_away_stops_nobody_who_knows() {
    let known = [("GET /schemas/ids/7", Reply::Answer(200, json!({"schema": "\"string\""})))];
    for trouble in [
        Reply::Answer(500, json!({"message": "oh"})),
        Reply::Answer(503, json!(null)),
        Reply::Silence,
        Reply::Answer(401, json!({})),
    ] {
        let stub = Stub::start(known.clone());
        let registry = registry(&stub);
        assert!(registry.get(7).is_ok());
        stub.set("GET /schemas/ids/8", trouble.clone());
        let error = registry.get(8).unwrap_err();
        assert!(error.passing && error.message.contains("away"), "{trouble:?}: {error}");
        // It is not asked again at once, whatever is wanted; what is known is known.
        assert!(registry.get(10).unwrap_err().passing);
        assert!(registry.get(7).is_ok());
        assert_eq!(stub.asked().len(), 2, "{trouble:?}");
    }
}

#[test]
fn who_must_not_wait_is_told_that_a_schema_may_come() {
    let stub = Stub::start([("GET /schemas/ids/7", Reply::Answer(200, json!({"schema": "\"string\""})))]);
    // It would be waited for until the test is over.
    stub.set("GET /schemas/ids/8", Reply::Silence);
    let settings = RegistrySettings { timeout_ms: Some(600_000), ..settings(&[&stub.url]) };
    let aside = Aside::start(opened(&settings).unwrap()).unwrap();
    let schema = loop {
        match aside.get(7) {
            Ok(schema) => break schema,
            Err(error) => assert!(error.passing, "{error}"),
        }
    };
    assert_eq!(schema.text, "\"string\"");
    for _ in 0..3 {
        let error = aside.get(8).unwrap_err();
        assert!(error.passing && error.message.contains("schema 8"), "{error}");
    }
    // What is known is given while something else is waited for, and one that nobody has is left alone.
    assert!(aside.get(7).is_ok() && aside.get(9).unwrap_err().passing);
    let n_asked = |at: &str| stub.asked().iter().filter(|asked| *asked == at).count();
    assert!(n_asked("GET /schemas/ids/8") <= 1 && n_asked("GET /schemas/ids/9") == 0);
}

#[test]
fn another_address_is_asked_when_one_is_away() {
    let schema = ("GET /schemas/ids/7", Reply::Answer(200, json!({"schema": "\"string\""})));
    let second =
        Stub::start([schema, ("GET /schemas/ids/8", Reply::Answer(200, json!({"schema": "\"int\""})))]);
    let broken = Stub::start([("GET /schemas/ids/7", Reply::Answer(500, json!({})))]);
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for first in [broken.url.clone(), format!("http://{gone}/")] {
        let registry = opened(&settings(&[&first, &second.url])).unwrap();
        assert_eq!(registry.get(7).unwrap().text, "\"string\"");
        assert_eq!(registry.get(8).unwrap().text, "\"int\"");
    }
    assert_eq!(broken.asked().len(), 1, "the address that answered is asked first from then on");
}

#[test]
fn answers_that_make_no_sense_are_errors_that_stay() {
    let check = |reply: Reply, expected: &str| {
        let stub = Stub::start([("GET /schemas/ids/1", reply)]);
        let error = registry(&stub).get(1).unwrap_err();
        assert!(!error.passing && error.message.contains(expected), "{error}");
    };
    check(Reply::Nonsense("<html>"), "not understood");
    check(Reply::Nonsense("{}"), "not understood");
    check(Reply::Answer(200, json!({"schema": "x", "schemaType": "THRIFT"})), "`THRIFT`");
    check(Reply::Answer(422, json!({"message": "no"})), "status 422 no");
}

#[test]
fn references_in_a_circle_end() {
    let of = |name: &str| {
        let reference = json!({"name": name, "subject": name, "version": 1});
        Reply::Answer(200, json!({"schema": "x", "references": [reference]}))
    };
    let stub = Stub::start([
        ("GET /schemas/ids/1", of("a")),
        ("GET /subjects/a/versions/1?deleted=true", of("b")),
        ("GET /subjects/b/versions/1?deleted=true", of("a")),
    ]);
    let error = registry(&stub).get(1).unwrap_err();
    assert!(error.message.contains("deeper than"), "{error}");
    assert!(stub.asked().len() < 50);
}

#[test]
fn schemas_are_looked_up_or_registered() {
    let stub = Stub::start([
        (
            "POST /subjects/out-value",
            Reply::Answer(200, json!({"subject": "out-value", "id": 3, "version": 1, "schema": "x"})),
        ),
        ("POST /subjects/new-value/versions", Reply::Answer(200, json!({"id": 4}))),
        (
            "POST /subjects/old-value/versions",
            Reply::Answer(409, json!({"error_code": 409, "message": "incompatible"})),
        ),
    ]);
    let registry = registry(&stub);
    let mut schema = avro("\"string\"");
    for _ in 0..2 {
        assert_eq!(registry.id_of("out-value", &schema, Unregistered::Refuse), Ok(3));
        assert_eq!(registry.id_of("new-value", &schema, Unregistered::Register), Ok(4));
    }
    let error = registry.id_of("missing", &schema, Unregistered::Refuse).unwrap_err();
    assert!(error.passing && error.message.contains("auto_register"), "{error}");
    let error = registry.id_of("old-value", &schema, Unregistered::Register).unwrap_err();
    assert!(!error.passing && error.message.contains("incompatible"), "{error}");
    assert_eq!(stub.asked().len(), 4);
    let body = stub.asked.lock().unwrap()[0].2.clone();
    assert_eq!(body, json!({"schema": "\"string\"", "schemaType": "AVRO"}));

    let registered = Some(Registered { subject: "place".into(), version: 4 });
    schema.references = vec![Reference { name: "P".into(), text: "x".into(), registered }];
    schema.text = "other".into();
    assert_eq!(registry.id_of("new-value", &schema, Unregistered::Register), Ok(4));
    let body = stub.asked.lock().unwrap().last().unwrap().2.clone();
    assert_eq!(body["references"], json!([{"name": "P", "subject": "place", "version": 4}]));
    schema.text = "third".into();
    schema.references[0].registered = None;
    let error = registry.id_of("new-value", &schema, Unregistered::Register).unwrap_err();
    assert!(!error.passing && error.message.contains("in no registry"), "{error}");
}

#[test]
fn the_newest_schema_of_a_subject_has_an_id() {
    let answer = json!({"subject": "s", "version": 3, "id": 12, "schema": "\"long\""});
    let stub = Stub::start([("GET /subjects/s/versions/latest", Reply::Answer(200, answer))]);
    let registry = registry(&stub);
    for _ in 0..2 {
        let (id, schema) = registry.latest("s").unwrap();
        assert_eq!((id, schema.text.as_str()), (12, "\"long\""));
    }
    assert_eq!(stub.asked().len(), 1);
}

#[test]
fn names_and_passwords_are_sent_and_not_shown() {
    let check = |settings: RegistrySettings, expected: &str| {
        let stub = Stub::start([("GET /base/schemas/ids/1", Reply::Answer(200, json!({"schema": "x"})))]);
        let settings = RegistrySettings { urls: vec![format!("{}/base/", stub.url)], ..settings };
        assert!(!format!("{settings:?}").contains("secret"));
        assert!(opened(&settings).unwrap().get(1).is_ok());
        assert_eq!(stub.asked.lock().unwrap()[0].1, expected);
    };
    let plain = settings(&[]);
    check(
        RegistrySettings {
            username: Some("me".into()),
            password: Some(Secret("secret".into())),
            ..plain.clone()
        },
        "Basic bWU6c2VjcmV0",
    );
    check(RegistrySettings { token: Some(Secret("secret".into())), ..plain.clone() }, "Bearer secret");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("held");
    std::fs::write(&file, "secret\n").unwrap();
    let named = RegistrySettings { username: Some("me".into()), ..plain.clone() };
    let basic = "Basic bWU6c2VjcmV0";
    check(RegistrySettings { password_env: Some("THERE".into()), ..named.clone() }, basic);
    check(RegistrySettings { password_file: Some(file.clone()), ..named }, basic);
    check(RegistrySettings { token_env: Some("THERE".into()), ..plain.clone() }, "Bearer secret");
    check(RegistrySettings { token_file: Some(file), ..plain.clone() }, "Bearer secret");
    check(plain, "");
}

#[test]
fn a_registry_behind_tls_is_held_against_the_roots_that_are_named() {
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let chain = vec![CertificateDer::from_pem_slice(certificate.pem().as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
    let tls = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let schema = ("GET /schemas/ids/7", Reply::Answer(200, json!({"schema": "\"string\""})));
    let stub = Stub::start_with([schema], Some(Arc::new(tls)));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("roots.pem");
    std::fs::write(&file, issuer.pem()).unwrap();
    let settings = settings(&[&stub.url]);
    let trusting = opened(&RegistrySettings {
        ca_file: Some(file.clone()),
        timeout_ms: Some(10_000),
        ..settings.clone()
    });
    assert_eq!(trusting.unwrap().get(7).unwrap().text, "\"string\"");
    let other =
        CertifiedIssuer::self_signed(CertificateParams::new(vec![]).unwrap(), KeyPair::generate().unwrap())
            .unwrap();
    std::fs::write(&file, other.pem()).unwrap();
    let wary = opened(&RegistrySettings {
        ca_file: Some(file.clone()),
        timeout_ms: Some(10_000),
        ..settings.clone()
    });
    let error = wary.unwrap().get(7).unwrap_err();
    assert!(error.passing && error.message.contains("certificate"), "{error}");
    std::fs::write(&file, "nothing").unwrap();
    assert!(opened(&RegistrySettings { ca_file: Some(file), ..settings }).is_err());
}

#[test]
fn settings_that_are_wrong_are_refused() {
    let check = |settings: RegistrySettings, expected: &str| {
        let error = opened(&settings).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    check(settings(&[]), "registry.urls");
    for url in ["registry:8081", "http://", "ftp://x", "http://a b", "http://x?y"] {
        check(settings(&[url]), "http://registry:8081");
    }
    check(settings(&["http://me:secret@x"]), "`username`");
    let plain = settings(&["http://x"]);
    check(RegistrySettings { username: Some("me".into()), ..plain.clone() }, "`password_env`");
    check(
        RegistrySettings { password_env: Some("AWAY".into()), ..plain.clone() },
        "password_env names AWAY, which is not set",
    );
    check(
        RegistrySettings { token_file: Some("/no/such".into()), ..plain.clone() },
        "cannot read token_file /no/such",
    );
    check(
        RegistrySettings {
            token: Some(Secret("x".into())),
            token_env: Some("THERE".into()),
            ..plain.clone()
        },
        "only one of token, token_env and token_file",
    );
    let both =
        RegistrySettings { token_env: Some("THERE".into()), password_env: Some("THERE".into()), ..plain };
    check(both, "together");
    check(
        RegistrySettings { ca_file: Some("/nowhere.pem".into()), ..settings(&["https://x"]) },
        "/nowhere.pem",
    );
}
