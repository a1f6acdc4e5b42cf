//! Where servers are: what is written in settings, and the peers that it stands for.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use crate::error::{Error, ErrorKind};
use crate::protocol::Protocol;

/// A server as settings name it: `HOST:PORT`, the same behind `grpc://`, `grpcs://`, `http://` or `https://`, or `unix:/PATH`.
/// A host name stands for all addresses it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    scheme: Option<Scheme>,
    place: Place,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scheme {
    Grpc,
    Grpcs,
    Http,
    Https,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    Name { host: String, port: u16 },
    Address(SocketAddr),
    Unix(PathBuf),
}

impl Endpoint {
    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// Whether the address asks for TLS; `None` where it does not say.
    pub(crate) fn wants_tls(&self) -> Option<bool> {
        self.scheme.map(|scheme| matches!(scheme, Scheme::Grpcs | Scheme::Https))
    }

    /// The protocol where settings say nothing: TensorFlow Serving's REST by the scheme, or at the port it has for REST. `None` for
    /// gRPC, where it is found out which one.
    pub(crate) fn default_protocol(&self) -> Option<Protocol> {
        let port = match &self.place {
            Place::Name { port, .. } => *port,
            Place::Address(address) => address.port(),
            Place::Unix(_) => 0,
        };
        match (self.scheme, port) {
            (Some(Scheme::Http | Scheme::Https), _) | (None, 8501) => Some(Protocol::TfsRest),
            _ => None,
        }
    }

    /// The peer, for an endpoint that is no name.
    pub(crate) fn peer(&self) -> Option<Peer> {
        match &self.place {
            Place::Name { .. } => None,
            Place::Address(address) => Some(Peer::new(*address)),
            Place::Unix(path) => Some(Peer::unix(path)),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Name { host, port } => write!(f, "{host}:{port}"),
            Place::Address(address) => address.fmt(f),
            Place::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl FromStr for Endpoint {
    type Err = Error;

    fn from_str(text: &str) -> Result<Endpoint, Error> {
        let wrong = |why: &str| Error::new(ErrorKind::Settings, format!("address '{text}': {why}"));
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return match path.starts_with('/') {
                true => Ok(Endpoint { scheme: None, place: Place::Unix(path.into()) }),
                false => Err(wrong("expected the socket's full path behind 'unix:'")),
            };
        }
        let (scheme, rest) =
            text.split_once("://").map_or((None, text), |(scheme, rest)| (Some(scheme), rest));
        let scheme = match scheme {
            None => None,
            Some("grpc") => Some(Scheme::Grpc),
            Some("grpcs") => Some(Scheme::Grpcs),
            Some("http") => Some(Scheme::Http),
            Some("https") => Some(Scheme::Https),
            Some(other) => {
                let expected = "expected grpc, grpcs, http or https, or HOST:PORT alone";
                return Err(wrong(&format!("scheme is '{other}', {expected}")));
            }
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains('/') {
            return Err(wrong("a path has no meaning here; the model is named elsewhere"));
        }
        let expected = "expected HOST:PORT or unix:/PATH";
        let authority: http::uri::Authority = rest.parse().map_err(|_| wrong(expected))?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = authority.port_u16().filter(|port| *port > 0).ok_or_else(|| wrong("it has no port"))?;
        if host.is_empty() || rest.contains('@') {
            return Err(wrong(expected));
        }
        let place = match host.parse::<IpAddr>() {
            Ok(address) => Place::Address(SocketAddr::new(address, port)),
            Err(_) => Place::Name { host, port },
        };
        Ok(Endpoint { scheme, place })
    }
}

/// Where a peer listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    /// TCP.
    Tcp(SocketAddr),
    /// A UNIX socket.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(address) => address.fmt(f),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// One server that calls can go to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Where it listens.
    pub address: Address,
    /// What it is called in requests (`host`, `:authority`), with the port. Without the port it is what its certificate is to say.
    pub authority: Arc<str>,
    /// Twice the weight means twice the calls, other things being equal.
    pub weight: NonZeroU32,
}

impl Peer {
    /// A server by its address.
    pub fn new(address: SocketAddr) -> Peer {
        Peer::named(address, &address.to_string())
    }

    /// One of the addresses of a name. `authority` is `HOST:PORT`.
    pub fn named(address: SocketAddr, authority: &str) -> Peer {
        Peer { address: Address::Tcp(address), authority: authority.into(), weight: NonZeroU32::MIN }
    }

    /// A server at a UNIX socket.
    pub fn unix(path: impl Into<PathBuf>) -> Peer {
        Peer { address: Address::Unix(path.into()), authority: "localhost".into(), weight: NonZeroU32::MIN }
    }

    /// The same with another weight.
    #[must_use]
    pub fn with_weight(self, weight: NonZeroU32) -> Peer {
        Peer { weight, ..self }
    }

    /// The host without the port.
    pub(crate) fn host(&self) -> &str {
        let authority: &str = &self.authority;
        let host = match authority.rsplit_once(':') {
            // In an IPv6 address without a port the last colon separates nothing.
            Some((host, port)) if !port.contains(']') && (!host.contains(':') || host.ends_with(']')) => host,
            _ => authority,
        };
        host.trim_start_matches('[').trim_end_matches(']')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        let check = |text: &str, shown: &str, tls, protocol, is_peer: bool| {
            let endpoint: Endpoint = text.parse().unwrap();
            assert_eq!(endpoint.to_string(), shown, "{text}");
            assert_eq!((endpoint.wants_tls(), endpoint.default_protocol()), (tls, protocol), "{text}");
            assert_eq!(endpoint.peer().is_some(), is_peer, "{text}");
        };
        let rest = Some(Protocol::TfsRest);
        check("models:8500", "models:8500", None, None, false);
        check("models:8501", "models:8501", None, rest, false);
        check("10.0.0.1:9000", "10.0.0.1:9000", None, None, true);
        check("grpc://10.0.0.1:8501", "10.0.0.1:8501", Some(false), None, true);
        check("grpcs://a.b:443/", "a.b:443", Some(true), None, false);
        check("http://[::1]:80/", "[::1]:80", Some(false), rest, true);
        check("https://a:1", "a:1", Some(true), rest, false);
        check("unix:/run/s.sock", "unix:/run/s.sock", None, None, true);
        check("unix:///run/s.sock", "unix:/run/s.sock", None, None, true);
    }

    #[test]
    fn other_addresses_are_refused() {
        for (text, expected) in [
            ("ftp://a:1", "scheme is 'ftp'"),
            ("a", "it has no port"),
            ("a:0", "it has no port"),
            ("a:99999", "it has no port"),
            ("", "expected HOST:PORT"),
            ("a b:1", "expected HOST:PORT"),
            ("me@a:1", "expected HOST:PORT"),
            ("http://a:1/v1", "a path has no meaning"),
            ("unix:s.sock", "expected the socket's full path"),
        ] {
            let error = text.parse::<Endpoint>().unwrap_err();
            assert!(error.to_string().contains(expected), "{text}: {error}");
            assert_eq!(error.kind(), ErrorKind::Settings);
        }
    }

    #[test]
    fn hosts_are_told_from_ports() {
        for (authority, expected) in [
            ("a.b:1", "a.b"),
            ("a.b", "a.b"),
            ("[::1]:80", "::1"),
            ("[::1]", "::1"),
            ("10.0.0.1:5", "10.0.0.1"),
        ] {
            let address = SocketAddr::from(([127, 0, 0, 1], 1));
            assert_eq!(Peer::named(address, authority).host(), expected, "{authority}");
        }
    }
}
