//! What can be set.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderMap, HeaderName};
use salver_predict::ModelSpec;

use crate::address::Endpoint;
use crate::balance;
use crate::error::{Error, ErrorKind};
use crate::protocol::Protocol;

/// Headers that say how a request is made and sent, besides those of gRPC's own and that of the caller.
const OWN_HEADERS: [&str; 12] = [
    "connection",
    "content-length",
    "content-type",
    "host",
    "inference-header-content-length",
    "keep-alive",
    "proxy-connection",
    "salver-priority",
    "te",
    "transfer-encoding",
    "upgrade",
    "x-request-timeout-ms",
];

/// How other servers are asked.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The servers. May be empty when [`crate::Peers::set`] names them.
    pub addresses: Vec<Endpoint>,
    /// How they are asked. `None`: TensorFlow Serving's REST for `http` and port 8501; else gRPC, and with the first question it
    /// is found out whether they speak TensorFlow Serving's or the Open Inference Protocol.
    pub protocol: Option<Protocol>,
    /// HTTP/2 connections to each peer: 2. HTTP/1.1 has one for each call under way.
    pub connections: NonZeroUsize,
    /// Threads that own the connections: 1. What they do is to copy, and with TLS to encrypt; tensors are encoded and decoded by
    /// the callers.
    pub threads: NonZeroUsize,
    /// TLS. Needed for `grpcs` and `https`, and used for addresses that do not say.
    pub tls: Option<Tls>,
    /// Headers or metadata that every request carries.
    pub headers: HeaderMap,
    /// The header that carries who asks: `salver-caller`.
    pub caller_header: HeaderName,
    /// Bytes of the largest request that is sent and of the largest answer that is read: 256 MiB.
    pub max_message: usize,
    /// Calls that may be under way at once: 4096. More are refused.
    pub max_calls: NonZeroUsize,
    /// How long a connection may take to come about: 2 s.
    pub connect_timeout: Duration,
    /// How long a call may take with all its retries, where the caller sets no nearer deadline: 30 s.
    pub timeout: Duration,
    /// How long one server may take for one try, after which another is asked. `None`: as long as the call. A process that was
    /// stopped and not ended is noticed by nothing else.
    pub try_timeout: Option<Duration>,
    /// How often host names are looked up again: 10 s.
    pub resolve_every: Duration,
    /// How old what a server says of a model may be before it is asked again: 5 s.
    pub refresh_every: Duration,
    /// Servers that one request is sent to at most: 3.
    pub max_tries: NonZeroUsize,
    /// Retries as a share of requests: 0.2. A few hundred may come at once, ten a second there may be in any
    /// case, and none with 0.
    pub retry_share: f64,
    /// How peers are weighed and when they go out.
    pub balance: balance::Settings,
    /// Models that are asked apart from all others.
    pub apart: Vec<Apart>,
}

/// A model whose calls have threads, connections, an opinion of each server and retries of their own: whatever they come to, the
/// servers of others are used as if there were no such calls. All else is set as for the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Apart {
    /// What it is called where figures are told: `shadow`.
    pub role: String,
    /// How it is asked for. Of several that are asked for alike the first counts.
    pub spec: ModelSpec,
}

/// Whom to trust, and who to be.
#[derive(Debug, Clone)]
pub struct Tls {
    /// A file with the certificates, in PEM form, of those who sign the servers' certificates.
    pub roots: PathBuf,
    /// The name in the servers' certificates, where it is not the host that is asked.
    pub server_name: Option<String>,
    /// This side's own certificate and key, in PEM form, where servers ask for one.
    pub identity: Option<Identity>,
}

/// A certificate and its key.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The file with the certificate and those between it and a root.
    pub certificate: PathBuf,
    /// The file with the private key.
    pub key: PathBuf,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            addresses: Vec::new(),
            protocol: None,
            connections: NonZeroUsize::new(2).unwrap_or(NonZeroUsize::MIN),
            threads: NonZeroUsize::MIN,
            tls: None,
            headers: HeaderMap::new(),
            caller_header: HeaderName::from_static("salver-caller"),
            max_message: 256 << 20,
            max_calls: NonZeroUsize::new(4096).unwrap_or(NonZeroUsize::MIN),
            connect_timeout: Duration::from_secs(2),
            timeout: Duration::from_secs(30),
            try_timeout: None,
            resolve_every: Duration::from_secs(10),
            refresh_every: Duration::from_secs(5),
            max_tries: NonZeroUsize::new(3).unwrap_or(NonZeroUsize::MIN),
            retry_share: 0.2,
            balance: balance::Settings::default(),
            apart: Vec::new(),
        }
    }
}

impl Settings {
    /// # Errors
    /// [`ErrorKind::Settings`] for what makes no sense together.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let wrong = |text: String| Err(Error::new(ErrorKind::Settings, text));
        for address in &self.addresses {
            match (address.wants_tls(), &self.tls) {
                (Some(true), None) => {
                    return wrong(format!(
                        "address '{address}' asks for TLS, which needs a file with the certificates that are trusted"
                    ));
                }
                (Some(false), Some(_)) => {
                    return wrong(format!("address '{address}' is without TLS, but TLS is set up"));
                }
                _ => {}
            }
        }
        if self.protocol.is_none() {
            let mut found = self.addresses.iter().map(Endpoint::default_protocol);
            if let Some(first) = found.next()
                && found.any(|other| other != first)
            {
                return wrong(
                    "some addresses are REST's and some gRPC's; say which protocol to use".to_owned(),
                );
            }
        }
        if let Some(name) = self.headers.keys().find(|name| self.is_own(name)) {
            return wrong(format!("header '{name}' is said by what is sent, expected another one"));
        }
        for (name, value) in [
            ("timeout", self.timeout),
            ("connect timeout", self.connect_timeout),
            ("timeout of one try", self.try_timeout.unwrap_or(self.timeout)),
            ("time between look-ups of names", self.resolve_every),
            ("decay", self.balance.decay),
        ] {
            if value.is_zero() {
                return wrong(format!("{name} is 0, expected more"));
            }
        }
        Ok(())
    }

    /// Whether requests and connections have this header anyway, or their protocol keeps it for itself.
    fn is_own(&self, name: &HeaderName) -> bool {
        OWN_HEADERS.contains(&name.as_str())
            || name.as_str().starts_with("grpc-")
            || *name == self.caller_header
    }

    /// The protocol that settings and addresses say; `None` when it is to be found out.
    pub(crate) fn known_protocol(&self) -> Option<Protocol> {
        self.protocol.or_else(|| self.addresses.first().and_then(Endpoint::default_protocol))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_no_sense_is_refused() {
        let tls = Tls { roots: "ca.pem".into(), server_name: None, identity: None };
        let check = |addresses: &[&str], tls: Option<Tls>, timeout: u64, expected: Option<&str>| {
            let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
            let settings =
                Settings { addresses, tls, timeout: Duration::from_secs(timeout), ..Settings::default() };
            match (settings.check(), expected) {
                (Ok(()), None) => {}
                (Err(error), Some(text)) => assert!(error.to_string().contains(text), "{error}"),
                (result, expected) => panic!("{result:?}, expected {expected:?}"),
            }
        };
        check(&["a:8500", "b:9000", "unix:/s"], None, 1, None);
        check(&[], None, 1, None);
        check(&["grpcs://a:1"], None, 1, Some("asks for TLS"));
        check(&["grpcs://a:1"], Some(tls.clone()), 1, None);
        check(&["a:1"], Some(tls.clone()), 1, None);
        check(&["grpc://a:1"], Some(tls), 1, Some("is without TLS"));
        check(&["a:8500", "a:8501"], None, 1, Some("say which protocol"));
        check(&["a:8500"], None, 0, Some("timeout is 0"));
    }

    #[test]
    fn headers_of_requests_are_not_said_twice() {
        for (name, is_taken) in [
            ("authorization", true),
            ("x-api-key", true),
            ("host", false),
            ("content-type", false),
            ("grpc-timeout", false),
            ("salver-caller", false),
            ("transfer-encoding", false),
        ] {
            let mut settings = Settings::default();
            settings.headers.insert(name, http::HeaderValue::from_static("secret"));
            let text = settings.check().map_err(|error| error.to_string());
            let expected = Err(format!("header '{name}' is said by what is sent, expected another one"));
            assert_eq!(text, if is_taken { Ok(()) } else { expected });
        }
    }
}
