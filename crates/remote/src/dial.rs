//! Sockets: TCP, UNIX, TLS over either.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::address::{Address, Peer};
use crate::error::{Error, ErrorKind};
use crate::protocol::Transport;
use crate::settings::{Settings, Tls};

/// A peer that is gone without a word is noticed when what was sent is not taken for this long, or nothing comes for about as
/// long on a connection that is idle.
const GONE_AFTER: Duration = Duration::from_secs(10);

pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

pub(crate) type Io = TokioIo<Box<dyn Stream>>;

/// Makes connections.
pub(crate) struct Dialer {
    connect_timeout: Duration,
    tls: Option<Secure>,
}

impl std::fmt::Debug for Dialer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dialer").field("tls", &self.tls.is_some()).finish_non_exhaustive()
    }
}

struct Secure {
    http1: TlsConnector,
    http2: TlsConnector,
    server_name: Option<ServerName<'static>>,
}

impl Dialer {
    /// Reads certificates; blocks as long as that takes.
    ///
    /// # Errors
    /// [`ErrorKind::Tls`] for files that cannot be used.
    pub(crate) fn new(settings: &Settings) -> Result<Dialer, Error> {
        let tls = settings.tls.as_ref().map(secure).transpose()?;
        Ok(Dialer { connect_timeout: settings.connect_timeout, tls })
    }

    pub(crate) fn is_secure(&self) -> bool {
        self.tls.is_some()
    }

    /// # Errors
    /// Why there is no connection.
    pub(crate) async fn dial(&self, peer: &Peer, transport: Transport) -> Result<Io, String> {
        match timeout(self.connect_timeout, self.open(peer, transport)).await {
            Ok(result) => result.map_err(|error| format!("cannot connect: {error}")),
            Err(_) => Err(format!("cannot connect: no answer within {:?}", self.connect_timeout)),
        }
    }

    async fn open(&self, peer: &Peer, transport: Transport) -> std::io::Result<Io> {
        let stream: Box<dyn Stream> = match &peer.address {
            Address::Unix(path) => Box::new(UnixStream::connect(path).await?),
            Address::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                let socket = SockRef::from(&stream);
                socket.set_tcp_user_timeout(Some(GONE_AFTER))?;
                let keepalive = TcpKeepalive::new().with_time(GONE_AFTER).with_interval(GONE_AFTER / 4);
                socket.set_tcp_keepalive(&keepalive)?;
                Box::new(stream)
            }
        };
        let Some(tls) = &self.tls else { return Ok(TokioIo::new(stream)) };
        let name = match &tls.server_name {
            Some(name) => name.clone(),
            None => ServerName::try_from(peer.host().to_owned()).map_err(std::io::Error::other)?,
        };
        let connector = match transport {
            Transport::Http1 => &tls.http1,
            Transport::Http2 => &tls.http2,
        };
        let stream: Box<dyn Stream> = Box::new(connector.connect(name, stream).await?);
        Ok(TokioIo::new(stream))
    }
}

fn secure(tls: &Tls) -> Result<Secure, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&tls.roots)? {
        roots.add(certificate).map_err(|error| fail(&tls.roots, "holds an unusable certificate", &error))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::new(ErrorKind::Tls, format!("cannot offer any version of TLS: {error}")))?
        .with_root_certificates(roots);
    let config = match &tls.identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let key = PrivateKeyDer::from_pem_file(&identity.key)
                .map_err(|error| fail(&identity.key, "is not a private key in PEM form", &error))?;
            let chain = certificates(&identity.certificate)?;
            let unfit = |error| fail(&identity.certificate, "cannot be used with the key", &error);
            builder.with_client_auth_cert(chain, key).map_err(unfit)?
        }
    };
    let server_name =
        match &tls.server_name {
            None => None,
            Some(name) => Some(ServerName::try_from(name.clone()).map_err(|error| {
                Error::new(ErrorKind::Tls, format!("server name '{name}' is none: {error}"))
            })?),
        };
    let connector = |protocol: &str| {
        let mut config = config.clone();
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        TlsConnector::from(Arc::new(config))
    };
    Ok(Secure { http1: connector("http/1.1"), http2: connector("h2"), server_name })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let found = found.map_err(|error| fail(path, "is not a file of certificates in PEM form", &error))?;
    match found.is_empty() {
        true => Err(Error::new(ErrorKind::Tls, format!("'{}' holds no certificate", path.display()))),
        false => Ok(found),
    }
}

fn fail(path: &Path, what: &str, error: &dyn std::fmt::Display) -> Error {
    Error::new(ErrorKind::Tls, format!("'{}' {what}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::settings::Identity;

    #[test]
    fn files_that_are_no_certificates_are_refused() {
        let file = |text: &str| {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            file.write_all(text.as_bytes()).unwrap();
            file
        };
        let own = rcgen::generate_simple_self_signed(vec!["a".to_owned()]).unwrap();
        let (good, empty) = (file(&own.cert.pem()), file(""));
        let broken = file("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
        let key = file(&own.signing_key.serialize_pem());
        let check = |roots: &Path, name: Option<&str>, identity: Option<(&Path, &Path)>, expected: &str| {
            let identity = identity
                .map(|(certificate, key)| Identity { certificate: certificate.into(), key: key.into() });
            let tls = Tls { roots: roots.into(), server_name: name.map(str::to_owned), identity };
            let settings = Settings { tls: Some(tls), ..Settings::default() };
            match Dialer::new(&settings) {
                Ok(_) => assert_eq!(expected, ""),
                Err(error) => {
                    assert!(!expected.is_empty() && error.to_string().contains(expected), "{error}");
                    assert_eq!(error.kind(), ErrorKind::Tls);
                }
            }
        };
        check(good.path(), None, None, "");
        check(good.path(), Some("b.c"), Some((good.path(), key.path())), "");
        check(Path::new("/nowhere.pem"), None, None, "is not a file of certificates");
        check(empty.path(), None, None, "holds no certificate");
        check(broken.path(), None, None, "holds an unusable certificate");
        check(good.path(), Some("no name"), None, "is none");
        check(good.path(), None, Some((good.path(), empty.path())), "is not a private key");
    }
}
