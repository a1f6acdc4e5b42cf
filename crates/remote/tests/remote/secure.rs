//! TLS.

use std::io::Write as _;
use std::net::SocketAddr;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use salver_predict::Code;
use salver_remote::{Identity, Protocol, Remote, Settings, Tls};
use salver_server::Config;
use tempfile::NamedTempFile;

use crate::play::{Running, Script, Stage, ask, ask_good, run, settings};

fn file(text: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

/// One that signs certificates.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Authority { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap() }
    }

    fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A certificate for this name, and its key.
    fn sign(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }
}

#[test]
fn servers_are_trusted_by_their_certificate() {
    run(async {
        let (authority, stranger) = (Authority::new(), Authority::new());
        let (cert, key) = authority.sign("models.internal");
        let own = salver_server::Tls { key, cert, custom_ca: Some(authority.pem()), client_verify: true };
        let any = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
        let config = Config {
            grpc: any,
            rest: any,
            grpc_tls: Some(own.clone()),
            rest_tls: Some(own),
            ..Config::default()
        };
        let server = Running::with(Stage::new(Script::Double), config);
        let (roots, others) = (file(&authority.pem()), file(&stranger.pem()));
        let (cert, key) = authority.sign("client");
        let (cert, key) = (file(&cert), file(&key));
        let identity = Identity { certificate: cert.path().into(), key: key.path().into() };
        for protocol in Protocol::ALL {
            let address = match protocol {
                Protocol::TfsGrpc | Protocol::OipGrpc => server.grpc(),
                Protocol::TfsRest | Protocol::OipRest => server.rest(),
            };
            let remote = |roots: &NamedTempFile, name: Option<&str>, identity: Option<&Identity>| {
                let tls = Tls {
                    roots: roots.path().into(),
                    server_name: name.map(str::to_owned),
                    identity: identity.cloned(),
                };
                let settings = settings(&[address.to_string()]);
                Remote::new(Settings { tls: Some(tls), protocol: Some(protocol), ..settings }).unwrap()
            };
            ask_good(&remote(&roots, Some("models.internal"), Some(&identity))).await;
            for wrong in [
                remote(&others, Some("models.internal"), Some(&identity)),
                remote(&roots, Some("other.internal"), Some(&identity)),
                remote(&roots, None, Some(&identity)),
                remote(&roots, Some("models.internal"), None),
            ] {
                let error = ask(&wrong, &[1.0]).await.unwrap_err();
                assert_eq!(error.code(), Code::Unavailable, "{protocol}: {error}");
            }
        }
        server.stop().await;
    });
}
