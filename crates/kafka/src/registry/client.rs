//! The registry's calls over HTTP. Blocking.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC};
use salver_mapping::{Reference, Registered, Schema, SchemaKind};
use serde::{Deserialize, Serialize};
use ureq::Agent;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig};

use super::{Env, RegistrySettings};

/// What the registry's own calls are written in.
const CONTENT_TYPE: &str = "application/vnd.schemaregistry.v1+json";
/// How long an answer may be.
const MAX_ANSWER_BYTES: u64 = 8 << 20;
/// How many other schemas one may refer to, directly or through others.
const MAX_REFERENCES: usize = 256;
/// How deep they may refer to each other.
const MAX_REFERENCE_DEPTH: usize = 32;
/// What stands for itself in a path is left so: some servers do not like to see a dot that is escaped.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// Where systems keep the certificates that they trust.
const SYSTEM_ROOTS: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// How a call went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// No registry answered, or none was able to.
    Away(String),
    /// The registry says that there is no such thing.
    NotFound(String),
    /// The registry does not do it.
    Refused(String),
    /// The answer makes no sense.
    Nonsense(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Failure::Away(text)
        | Failure::NotFound(text)
        | Failure::Refused(text)
        | Failure::Nonsense(text)) = self;
        f.write_str(text)
    }
}

/// Calls one of several addresses of a registry: the one that answered last, and the others in turn when it does not.
#[derive(Debug)]
pub(super) struct Client {
    agent: Agent,
    urls: Vec<String>,
    authorization: Option<String>,
    /// The address that answered last.
    current: AtomicUsize,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SchemaAnswer {
    schema: String,
    schema_type: Option<String>,
    #[serde(default)]
    references: Vec<ReferenceAnswer>,
    /// Absent in answers about an id.
    id: Option<u32>,
}

#[derive(Debug, Deserialize)]
struct ReferenceAnswer {
    name: String,
    subject: String,
    version: u32,
}

#[derive(Debug, Deserialize)]
struct IdAnswer {
    id: u32,
}

#[derive(Debug, Deserialize)]
struct ErrorAnswer {
    message: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct SchemaQuestion<'a> {
    schema: &'a str,
    schema_type: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    references: Vec<ReferenceQuestion<'a>>,
}

#[derive(Debug, Serialize)]
struct ReferenceQuestion<'a> {
    name: &'a str,
    subject: &'a str,
    version: u32,
}

enum Method<'a> {
    Get,
    Post(&'a [u8]),
}

impl Client {
    /// `Err` with what is wrong with the settings.
    pub(super) fn new(settings: &RegistrySettings, env: Env<'_>) -> Result<Client, String> {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None)
            .timeout_global(Some(settings.timeout()))
            .max_idle_connections(8)
            .max_idle_connections_per_host(4)
            .max_redirects(3)
            .user_agent("salver")
            .tls_config(tls(settings)?)
            .build();
        Ok(Client {
            agent: config.new_agent(),
            urls: settings.checked_urls()?,
            authorization: settings.authorization(env)?,
            current: AtomicUsize::new(0),
        })
    }

    /// The schema that a path leads to, with all it refers to, and the id that the answer names.
    pub(super) fn schema(&self, path: &str) -> Result<(Option<u32>, Schema), Failure> {
        let answer: SchemaAnswer = self.call(path, &Method::Get)?;
        let kind = kind(&answer, path)?;
        let mut references = Vec::new();
        self.references(&answer.references, kind, 1, &mut references)?;
        Ok((answer.id, Schema { kind, text: answer.schema, references }))
    }

    /// Adds what is referred to, each after what it needs itself.
    fn references(
        &self,
        wanted: &[ReferenceAnswer],
        of: SchemaKind,
        depth: usize,
        into: &mut Vec<Reference>,
    ) -> Result<(), Failure> {
        for reference in wanted {
            if into.iter().any(|known| known.name == reference.name) {
                continue;
            }
            if depth > MAX_REFERENCE_DEPTH || into.len() >= MAX_REFERENCES {
                return Err(Failure::Nonsense(format!(
                    "reference `{}`: more than {MAX_REFERENCES} references, or deeper than {MAX_REFERENCE_DEPTH}",
                    reference.name
                )));
            }
            // A reference lives on after the version that it names was deleted for others.
            let path = format!(
                "subjects/{}/versions/{}?deleted=true",
                escape(&reference.subject),
                reference.version
            );
            let answer: SchemaAnswer = self.call(&path, &Method::Get)?;
            if kind(&answer, &path)? != of {
                return Err(Failure::Nonsense(format!(
                    "reference `{}` is not of the kind {of}",
                    reference.name
                )));
            }
            self.references(&answer.references, of, depth + 1, into)?;
            into.push(Reference {
                name: reference.name.clone(),
                text: answer.schema,
                registered: Some(Registered {
                    subject: reference.subject.clone(),
                    version: reference.version,
                }),
            });
        }
        Ok(())
    }

    /// The id of a schema, told by a path that takes one.
    pub(super) fn id_of(&self, path: &str, schema: &Schema) -> Result<u32, Failure> {
        let references = schema.references.iter().map(|reference| {
            let registered = reference.registered.as_ref().ok_or_else(|| {
                Failure::Refused(format!(
                    "reference `{}` is in no registry; register it first",
                    reference.name
                ))
            })?;
            let Registered { subject, version } = registered;
            Ok(ReferenceQuestion { name: &reference.name, subject, version: *version })
        });
        let references = references.collect::<Result<Vec<_>, Failure>>()?;
        let question = SchemaQuestion { schema: &schema.text, schema_type: schema.kind.name(), references };
        let body = serde_json::to_vec(&question).map_err(|error| Failure::Nonsense(error.to_string()))?;
        self.call::<IdAnswer>(path, &Method::Post(&body)).map(|answer| answer.id)
    }

    /// Asks one address after the other until one is able to answer.
    fn call<T: for<'de> Deserialize<'de>>(&self, path: &str, method: &Method<'_>) -> Result<T, Failure> {
        let first = self.current.load(Ordering::Relaxed);
        let mut failures = Vec::new();
        for i in 0..self.urls.len() {
            let index = (first + i) % self.urls.len();
            let Some(url) = self.urls.get(index) else { continue };
            match self.call_one(url, path, method) {
                Err(Failure::Away(failure)) => failures.push(failure),
                answer => {
                    self.current.store(index, Ordering::Relaxed);
                    return answer;
                }
            }
        }
        Err(Failure::Away(failures.join("; ")))
    }

    fn call_one<T: for<'de> Deserialize<'de>>(
        &self,
        url: &str,
        path: &str,
        method: &Method<'_>,
    ) -> Result<T, Failure> {
        let at = format!("{url}/{path}");
        let mut request = ureq::http::Request::builder().uri(&at).header("accept", CONTENT_TYPE);
        if let Some(authorization) = &self.authorization {
            request = request.header("authorization", authorization);
        }
        let sent = match method {
            Method::Get => {
                request.body(()).map_err(|error| error.to_string()).map(|request| self.agent.run(request))
            }
            Method::Post(body) => request
                .method("POST")
                .header("content-type", CONTENT_TYPE)
                .body(*body)
                .map_err(|error| error.to_string())
                .map(|request| self.agent.run(request)),
        };
        let sent = sent.map_err(|error| Failure::Refused(format!("{at}: {error}")))?;
        let mut response = sent.map_err(|error| Failure::Away(format!("{at}: {error}")))?;
        let status = response.status().as_u16();
        let body = response.body_mut().with_config().limit(MAX_ANSWER_BYTES).read_to_vec();
        let body = body.map_err(|error| Failure::Away(format!("{at}: {error}")))?;
        judge(&at, status, &body)
    }
}

/// What an answer means.
fn judge<T: for<'de> Deserialize<'de>>(at: &str, status: u16, body: &[u8]) -> Result<T, Failure> {
    if (200..300).contains(&status) {
        return serde_json::from_slice(body)
            .map_err(|error| Failure::Nonsense(format!("{at}: the answer is not understood: {error}")));
    }
    let said = serde_json::from_slice::<ErrorAnswer>(body).map(|answer| answer.message).unwrap_or_default();
    let said: String = said.chars().take(500).collect();
    let text = format!("{at}: status {status} {said}").trim_end().to_owned();
    Err(match status {
        404 => Failure::NotFound(text),
        // Overload, trouble inside, and addresses or passwords that somebody is about to correct.
        401 | 403 | 408 | 429 | 500.. => Failure::Away(text),
        _ => Failure::Refused(text),
    })
}

/// The kind of schema that an answer holds.
fn kind(answer: &SchemaAnswer, path: &str) -> Result<SchemaKind, Failure> {
    // Registries leave the kind out where it is Avro.
    match answer.schema_type.as_deref() {
        None | Some("AVRO") => Ok(SchemaKind::Avro),
        Some("PROTOBUF") => Ok(SchemaKind::Protobuf),
        Some("JSON") => Ok(SchemaKind::Json),
        Some(other) => Err(Failure::Nonsense(format!(
            "{path}: a schema of type `{other}`, expected AVRO, PROTOBUF or JSON"
        ))),
    }
}

/// A subject as one segment of a path.
pub(super) fn escape(subject: &str) -> String {
    percent_encoding::utf8_percent_encode(subject, ESCAPED).to_string()
}

fn tls(settings: &RegistrySettings) -> Result<TlsConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let roots = if settings.is_tls() { roots(settings.ca_file.as_deref())? } else { Vec::new() };
    Ok(TlsConfig::builder()
        .unversioned_rustls_crypto_provider(provider)
        .root_certs(RootCerts::from(roots))
        .build())
}

/// The certificates that the registry's is held against.
fn roots(file: Option<&std::path::Path>) -> Result<Vec<Certificate<'static>>, String> {
    let paths = match file {
        Some(file) => vec![file],
        None => SYSTEM_ROOTS.iter().map(std::path::Path::new).filter(|path| path.exists()).take(1).collect(),
    };
    let path = *paths
        .first()
        .ok_or("registry.ca_file: the system's certificates were not found; name a file of them")?;
    let text =
        std::fs::read(path).map_err(|error| format!("registry.ca_file {}: {error}", path.display()))?;
    let mut certificates = Vec::new();
    for item in ureq::tls::parse_pem(&text) {
        if let PemItem::Certificate(certificate) =
            item.map_err(|error| format!("registry.ca_file {}: {error}", path.display()))?
        {
            certificates.push(certificate);
        }
    }
    if certificates.is_empty() {
        return Err(format!("registry.ca_file {}: it holds no certificate, expected PEM", path.display()));
    }
    Ok(certificates)
}
