//! Where a server is and what it speaks.

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::str::FromStr;

use crate::error::{Error, Kind};

/// What a call travels over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// HTTP/1.1: one call at a time on a connection.
    Http1,
    /// gRPC over HTTP/2: many calls share a connection.
    Http2,
}

/// The interface that is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// TensorFlow Serving over gRPC.
    TfsGrpc,
    /// TensorFlow Serving over REST.
    TfsRest,
    /// The Open Inference Protocol over gRPC, with raw contents.
    OipGrpc,
    /// The Open Inference Protocol over REST, tensors as JSON.
    OipRest,
    /// The Open Inference Protocol over REST, tensors as bytes.
    OipRestBinary,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Protocol; 5] =
        [Protocol::TfsGrpc, Protocol::TfsRest, Protocol::OipGrpc, Protocol::OipRest, Protocol::OipRestBinary];

    /// The name, such as `tfs-grpc`.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::TfsGrpc => "tfs-grpc",
            Protocol::TfsRest => "tfs-rest",
            Protocol::OipGrpc => "oip-grpc",
            Protocol::OipRest => "oip-rest",
            Protocol::OipRestBinary => "oip-rest-binary",
        }
    }

    /// What it travels over.
    pub fn transport(self) -> Transport {
        match self {
            Protocol::TfsGrpc | Protocol::OipGrpc => Transport::Http2,
            Protocol::TfsRest | Protocol::OipRest | Protocol::OipRestBinary => Transport::Http1,
        }
    }
}

impl FromStr for Protocol {
    type Err = Error;

    fn from_str(text: &str) -> Result<Protocol, Error> {
        Protocol::ALL.into_iter().find(|one| one.name() == text).ok_or_else(|| {
            let names = Protocol::ALL.map(Protocol::name).join(", ");
            Error::input(format!("protocol is '{text}', expected one of {names}"))
        })
    }
}

/// A server's address: `HOST:PORT`, `grpc://HOST:PORT` or `http://HOST:PORT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    host: String,
    port: u16,
    transport: Option<Transport>,
}

impl Target {
    /// What the address says of the transport.
    pub fn transport(&self) -> Option<Transport> {
        self.transport
    }

    /// TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The interface to use where nothing is said: TensorFlow Serving's, by the transport of the address, else by the port
    /// that it has for REST, else gRPC.
    pub fn default_protocol(&self) -> Protocol {
        match (self.transport, self.port) {
            (Some(Transport::Http1), _) | (None, 8501) => Protocol::TfsRest,
            _ => Protocol::TfsGrpc,
        }
    }

    /// The addresses of the host. Asks the resolver and may block.
    ///
    /// # Errors
    /// [`Kind::Connect`] when the name has no address.
    pub fn addresses(&self) -> Result<Vec<SocketAddr>, Error> {
        let failed = |why: String| Error::new(Kind::Connect, format!("{self}: {why}"));
        let found =
            (self.host.as_str(), self.port).to_socket_addrs().map_err(|error| failed(error.to_string()))?;
        let all: Vec<SocketAddr> = found.collect();
        if all.is_empty() { Err(failed("the name has no address".to_owned())) } else { Ok(all) }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl FromStr for Target {
    type Err = Error;

    fn from_str(text: &str) -> Result<Target, Error> {
        let wrong = |why: &str| Error::input(format!("address '{text}': {why}"));
        let (scheme, rest) =
            text.split_once("://").map_or((None, text), |(scheme, rest)| (Some(scheme), rest));
        let transport = match scheme {
            None => None,
            Some("http") => Some(Transport::Http1),
            Some("grpc") => Some(Transport::Http2),
            Some("https" | "grpcs") => {
                return Err(wrong("TLS is not spoken here; ask the server's plain port"));
            }
            Some(other) => {
                return Err(wrong(&format!(
                    "scheme is '{other}', expected grpc or http, or HOST:PORT alone"
                )));
            }
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains('/') {
            return Err(wrong("a path has no meaning here; name the model with --model"));
        }
        let authority: http::uri::Authority =
            rest.parse().map_err(|_| wrong("expected HOST:PORT, grpc://HOST:PORT or http://HOST:PORT"))?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = authority.port_u16().ok_or_else(|| wrong("it has no port"))?;
        if host.is_empty() || port == 0 {
            return Err(wrong("expected HOST:PORT, grpc://HOST:PORT or http://HOST:PORT"));
        }
        Ok(Target { host, port, transport })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        let check = |text: &str, shown: &str, transport, protocol| {
            let target: Target = text.parse().unwrap();
            assert_eq!((target.to_string().as_str(), target.transport()), (shown, transport), "{text}");
            assert_eq!(target.default_protocol(), protocol, "{text}");
        };
        check("localhost:8500", "localhost:8500", None, Protocol::TfsGrpc);
        check("localhost:8501", "localhost:8501", None, Protocol::TfsRest);
        check("grpc://10.0.0.1:8501", "10.0.0.1:8501", Some(Transport::Http2), Protocol::TfsGrpc);
        check("http://[::1]:80/", "[::1]:80", Some(Transport::Http1), Protocol::TfsRest);
    }

    #[test]
    fn other_addresses_are_refused() {
        for (text, expected) in [
            ("https://a:1", "TLS is not spoken here"),
            ("ftp://a:1", "scheme is 'ftp'"),
            ("a", "it has no port"),
            ("a:0", "expected HOST:PORT"),
            ("", "expected HOST:PORT"),
            ("a b:1", "expected HOST:PORT"),
            ("http://a:1/v1", "a path has no meaning"),
            ("a:99999", "it has no port"),
        ] {
            let error = text.parse::<Target>().unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
        assert!("tfs".parse::<Protocol>().unwrap_err().to_string().contains("expected one of tfs-grpc"));
        assert!(Protocol::ALL.iter().all(|one| one.name().parse() == Ok(*one)));
    }
}
