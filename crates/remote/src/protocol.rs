//! The interfaces that are spoken.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, ErrorKind};

/// How servers are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// TensorFlow Serving over gRPC.
    TfsGrpc,
    /// TensorFlow Serving over REST. Its answers do not say which version gave them.
    TfsRest,
    /// The Open Inference Protocol over gRPC, with raw contents.
    OipGrpc,
    /// The Open Inference Protocol over REST, with binary tensors.
    OipRest,
}

/// What a call travels over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    /// HTTP/1.1: one call at a time on a connection.
    Http1,
    /// gRPC over HTTP/2: many calls share a connection.
    Http2,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Protocol; 4] =
        [Protocol::TfsGrpc, Protocol::TfsRest, Protocol::OipGrpc, Protocol::OipRest];

    /// The name, such as `tfs-grpc`.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::TfsGrpc => "tfs-grpc",
            Protocol::TfsRest => "tfs-rest",
            Protocol::OipGrpc => "oip-grpc",
            Protocol::OipRest => "oip-rest",
        }
    }

    pub(crate) fn transport(self) -> Transport {
        match self {
            Protocol::TfsGrpc | Protocol::OipGrpc => Transport::Http2,
            Protocol::TfsRest | Protocol::OipRest => Transport::Http1,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Protocol {
    type Err = Error;

    fn from_str(text: &str) -> Result<Protocol, Error> {
        Protocol::ALL.into_iter().find(|one| one.name() == text).ok_or_else(|| {
            let names = Protocol::ALL.map(Protocol::name).join(", ");
            Error::new(ErrorKind::Settings, format!("protocol is '{text}', expected one of {names}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_have_names() {
        assert!(Protocol::ALL.iter().all(|one| one.name().parse() == Ok(*one)));
        assert!(
            "tfs".parse::<Protocol>().unwrap_err().to_string().contains("expected one of tfs-grpc, tfs-rest")
        );
    }
}
