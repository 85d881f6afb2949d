//! Distribution over TLS (`-proto_dist inet_tls`): the TLS handshake comes first, right behind the TCP connect, and then the
//! distribution protocol as over plain TCP, with lengths of four bytes throughout.
//!
//! | module | what |
//! |---|---|
//! | [`session`] | one session over one socket |
//! | [`verify`] | the check of a dialled node's certificate |
//! | [`names`] | the names in a certificate |
//! | [`files`] | certificates and keys from PEM files |
//! | `https` | sessions with servers that are no nodes |
//! | [`error`] | what went wrong, in words that help |
//!
//! A node with TLS never talks without it, in neither direction.

mod error;
mod files;
#[cfg(feature = "http")]
mod https;
mod names;
mod session;
mod verify;

use std::net::IpAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, SignatureVerificationAlgorithm};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{
    CipherSuite, ClientConfig, ClientConnection, ServerConfig, ServerConnection, SignatureScheme,
    SupportedProtocolVersion,
};
use tokio::net::TcpStream;
use tokio::time::timeout;

#[cfg(feature = "http")]
pub(crate) use self::https::https;
use self::names::CertificateNames;
pub(crate) use self::session::Session;
use self::verify::NodeVerifier;
use super::stream::Stream;
use super::{TlsError, TlsInfo};
use crate::ssl_dist::{Side, SslDistError, SslDistOptions, SslOptions, TlsVersion, Verify};

/// Both roles of a node, ready for connections.
pub(crate) struct Tls {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
    /// Instead of the peer's host (`server_name_indication`).
    server_name: Option<String>,
}

impl Tls {
    /// Reads the certificates and keys that the options name.
    pub(crate) fn new(options: &SslDistOptions) -> Result<Self, SslDistError> {
        let provider = Arc::new(provider());
        Ok(Self {
            client: Arc::new(client_config(&options.client, &provider)?),
            server: Arc::new(server_config(&options.server, &provider)?),
            server_name: options.client.server_name_indication.clone().filter(|name| name != "disable"),
        })
    }

    /// The TLS handshake with a node at `host` that was connected to.
    pub(crate) async fn connect(
        &self,
        tcp: TcpStream,
        host: &str,
        within: Duration,
    ) -> Result<Stream, TlsError> {
        let host = self.server_name.as_deref().unwrap_or(host);
        let name = ServerName::try_from(host.to_owned()).map_err(|_| TlsError::HostName(host.to_owned()))?;
        let connection = ClientConnection::new(Arc::clone(&self.client), name).map_err(error::from_rustls)?;
        shake_hands(tcp, Session::new(connection.into()), within).await
    }

    /// The TLS handshake with a node that has connected.
    pub(crate) async fn accept(&self, tcp: TcpStream, within: Duration) -> Result<Stream, TlsError> {
        let connection = ServerConnection::new(Arc::clone(&self.server)).map_err(error::from_rustls)?;
        shake_hands(tcp, Session::new(connection.into()), within).await
    }
}

async fn shake_hands(tcp: TcpStream, session: Session, within: Duration) -> Result<Stream, TlsError> {
    match timeout(within, session.handshake(&tcp)).await {
        Ok(Ok(())) => Ok(Stream::encrypted(tcp, session)),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(session.timed_out()),
    }
}

impl Session {
    /// Those entries of `net_kernel:allow/1` that the peer's certificate is for, and its address if the certificate names it;
    /// all of them if it has sent none. What `inet_tls_dist` does.
    pub(crate) fn narrow(&self, allow: &[String], peer: IpAddr) -> Vec<String> {
        let Some(certificate) = self.peer_certificate() else { return allow.to_vec() };
        let Some(names) = CertificateNames::parse(&certificate) else { return Vec::new() };
        let named = allow.iter().filter(|entry| names.is_for(entry.rsplit('@').next().unwrap_or_default()));
        let address = Some(peer.to_canonical().to_string()).filter(|address| names.is_for(address));
        named.cloned().chain(address).collect()
    }
}

/// ring, with the suites in an order of our own.
///
/// AES-GCM may encrypt 2^24 records with one key. TLS 1.3 then changes the key; TLS 1.2 cannot, and the connection would have
/// to end: a matter of minutes at full rate. ChaCha20-Poly1305 has no such bound, so over TLS 1.2 it goes first.
fn provider() -> CryptoProvider {
    let mut provider = ring::default_provider();
    provider.cipher_suites.sort_by_key(|suite| match suite.suite() {
        CipherSuite::TLS13_AES_256_GCM_SHA384 | CipherSuite::TLS13_AES_128_GCM_SHA256 => 0,
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => 1,
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
        | CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => 2,
        _ => 3,
    });
    provider.signature_verification_algorithms.mapping = &SIGNATURE_SCHEMES;
    provider
}

/// What a peer may sign with, P-256 first: over TLS 1.3 OTP 23 takes the first ECDSA scheme that it is offered, whether or not
/// it is the one for the curve of its key.
static SIGNATURE_SCHEMES: LazyLock<Vec<SchemeAlgorithms>> = LazyLock::new(|| {
    let mut schemes = ring::default_provider().signature_verification_algorithms.mapping.to_vec();
    schemes.sort_by_key(|(scheme, _)| *scheme != SignatureScheme::ECDSA_NISTP256_SHA256);
    schemes
});

type SchemeAlgorithms = (SignatureScheme, &'static [&'static dyn SignatureVerificationAlgorithm]);

fn client_config(options: &SslOptions, provider: &Arc<CryptoProvider>) -> Result<ClientConfig, SslDistError> {
    let authorities = authorities(options)?;
    let roots = match (options.verify.unwrap_or(Verify::VerifyPeer), &options.cacertfile) {
        (Verify::VerifyNone, _) => None,
        (Verify::VerifyPeer, Some(path)) => Some(files::roots(&authorities, path)?),
        (Verify::VerifyPeer, None) => {
            return Err(SslDistError::missing(
                Side::Client,
                "cacertfile",
                "to check the certificates of nodes that are dialled; {verify, verify_none} would trust everybody",
            ));
        }
    };
    let verifier = NodeVerifier {
        roots,
        check_host: options.server_name_indication.as_deref() != Some("disable"),
        algorithms: provider.signature_verification_algorithms,
    };
    let wrong = |error: rustls::Error| SslDistError::options(Side::Client, error.to_string());
    let builder = ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&versions(options))
        .map_err(wrong)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match own_certificate(options, &authorities)? {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).map_err(wrong)?,
        None => builder.with_no_client_auth(),
    };
    config.enable_sni = options.server_name_indication.as_deref() != Some("disable");
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

fn server_config(options: &SslOptions, provider: &Arc<CryptoProvider>) -> Result<ServerConfig, SslDistError> {
    let authorities = authorities(options)?;
    let wrong = |error: rustls::Error| SslDistError::options(Side::Server, error.to_string());
    let verifier = match (options.verify.unwrap_or(Verify::VerifyNone), &options.cacertfile) {
        (Verify::VerifyNone, _) => WebPkiClientVerifier::no_client_auth(),
        (Verify::VerifyPeer, None) => {
            return Err(SslDistError::missing(
                Side::Server,
                "cacertfile",
                "to check the certificates of nodes that connect",
            ));
        }
        (Verify::VerifyPeer, Some(path)) => {
            let roots = Arc::new(files::roots(&authorities, path)?);
            let builder = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(provider));
            let builder = match options.fail_if_no_peer_cert {
                Some(true) => builder,
                _ => builder.allow_unauthenticated(),
            };
            builder.build().map_err(|error| SslDistError::options(Side::Server, error.to_string()))?
        }
    };
    let (chain, key) = own_certificate(options, &authorities)?
        .ok_or_else(|| SslDistError::missing(Side::Server, "certfile", "to prove who this node is"))?;
    let mut config = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&versions(options))
        .map_err(wrong)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(wrong)?;
    config.ignore_client_order = true;
    // A connection lives for days and is set up in full each time.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

fn authorities(options: &SslOptions) -> Result<Vec<CertificateDer<'static>>, SslDistError> {
    options.cacertfile.as_deref().map_or(Ok(Vec::new()), files::certificates)
}

type OwnCertificate = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// The chain to send and its key; the key stands in the same file unless there is a `keyfile`.
fn own_certificate(
    options: &SslOptions,
    authorities: &[CertificateDer<'static>],
) -> Result<Option<OwnCertificate>, SslDistError> {
    let Some(certfile) = options.certfile.as_deref() else { return Ok(None) };
    let mut chain = files::certificates(certfile)?;
    files::complete(&mut chain, authorities);
    let key = files::private_key(options.keyfile.as_deref().unwrap_or(certfile))?;
    Ok(Some((chain, key)))
}

fn versions(options: &SslOptions) -> Vec<&'static SupportedProtocolVersion> {
    let wanted = options.versions.as_deref().unwrap_or(&[TlsVersion::Tls13, TlsVersion::Tls12]);
    let known = [(TlsVersion::Tls13, &rustls::version::TLS13), (TlsVersion::Tls12, &rustls::version::TLS12)];
    known.into_iter().filter(|(version, _)| wanted.contains(version)).map(|(_, version)| version).collect()
}

#[cfg(test)]
mod tests;
