//! Certificates. What is below the calls otherwise, proxies, is tested with the program, since the
//! variables that name them are those of a whole process.

use std::path::Path;
use std::sync::Arc;

use forgejo_runner::Trust;
use forgejo_runner::client::{self, RpcErrorKind};
use simulators::forgejo::{Forge, Profile};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// A certificate for `localhost` by an authority of its own, both of use for nothing else.
const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data");

/// Puts TLS in front of a forge, and gives the address.
async fn with_tls(forge: &Forge) -> String {
    let data = Path::new(DATA);
    let certificate = CertificateDer::from_pem_file(data.join("localhost.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(data.join("localhost.key")).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let behind = forge.url().trim_start_matches("http://").to_owned();
    tokio::spawn(async move {
        while let Ok((plain, _)) = listener.accept().await {
            let (acceptor, behind) = (acceptor.clone(), behind.clone());
            tokio::spawn(async move {
                // A client that does not trust the certificate ends here.
                let Ok(mut outside) = acceptor.accept(plain).await else { return };
                let mut inside = TcpStream::connect(behind).await.unwrap();
                drop(tokio::io::copy_bidirectional(&mut outside, &mut inside).await);
            });
        }
    });
    format!("https://localhost:{port}")
}

#[tokio::test]
async fn a_certificate_is_believed_as_the_settings_say() {
    let forge = Forge::start(Profile::V15).await;
    let url = with_tls(&forge).await.parse().unwrap();
    let error = client::ping(&url, &Trust::Host).await.unwrap_err();
    assert_eq!(error.kind, RpcErrorKind::Unavailable);
    assert!(error.message.to_lowercase().contains("certificate"), "{error}");
    let authority = Path::new(DATA).join("authority.pem");
    client::ping(&url, &Trust::Also(authority)).await.unwrap();
    client::ping(&url, &Trust::Any).await.unwrap();
    let version = client::version(&url, &Trust::Any).await.unwrap().unwrap();
    assert_eq!(version.kind, client::Kind::Forgejo);

    for (path, expected) in
        [("nothing.pem", "No such file"), ("localhost.key", "no PEM certificate")]
    {
        let trust = Trust::Also(Path::new(DATA).join(path));
        let error = client::ping(&url, &trust).await.unwrap_err();
        assert!(error.message.contains(expected), "{error}");
    }
}
