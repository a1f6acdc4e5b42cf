//! TLS from PEM texts.

use std::sync::Arc;

use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::{Error, ErrorKind, Tls};

/// `alpn` lists the protocols offered, the preferred one first.
pub(crate) fn server_config(tls: &Tls, alpn: &[&str]) -> Result<Arc<ServerConfig>, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| fail("cannot offer any version of TLS", error))?;
    let builder = match client_roots(tls)? {
        None => builder.with_no_client_auth(),
        Some(roots) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier = if tls.client_verify { verifier } else { verifier.allow_unauthenticated() };
            let verifier =
                verifier.build().map_err(|error| fail("cannot check clients by custom_ca", error))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let key = PrivateKeyDer::from_pem_slice(tls.key.as_bytes())
        .map_err(|error| fail("server_key is not a private key in PEM form", error))?;
    let mut config = builder
        .with_single_cert(certificates("server_cert", &tls.cert)?, key)
        .map_err(|error| fail("server_key and server_cert cannot be used together", error))?;
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    Ok(Arc::new(config))
}

fn client_roots(tls: &Tls) -> Result<Option<RootCertStore>, Error> {
    let Some(pem) = &tls.custom_ca else {
        if tls.client_verify {
            return Err(Error::plain(ErrorKind::Tls, "client_verify needs custom_ca, which is empty"));
        }
        return Ok(None);
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates("custom_ca", pem)? {
        roots.add(certificate).map_err(|error| fail("custom_ca holds an unusable certificate", error))?;
    }
    Ok(Some(roots))
}

fn certificates(what: &str, pem: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|error| fail(&format!("{what} is not in PEM form"), error))?;
    if found.is_empty() {
        return Err(Error::plain(ErrorKind::Tls, format!("{what} holds no certificate in PEM form")));
    }
    Ok(found)
}

fn fail(what: &str, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::new(ErrorKind::Tls, what, error)
}
