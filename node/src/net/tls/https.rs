//! TLS sessions with servers that are no nodes: the APIs that discovery asks.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use tokio::net::TcpStream;

use super::{Session, error, files, provider, shake_hands};
use crate::net::TlsError;
use crate::net::stream::Stream;

/// A TLS session over `tcp`. The server's certificate must be for `host`, a name or an address, and lead to one of the CAs in
/// the file `authorities`, which is read anew each time: it may have been replaced.
///
/// # Errors
/// Why there is none, in words.
pub(crate) async fn https(
    tcp: TcpStream,
    host: &str,
    authorities: &Path,
    within: Duration,
) -> Result<Stream, String> {
    let certificates = files::certificates(authorities).map_err(|error| error.to_string())?;
    let roots = files::roots(&certificates, authorities).map_err(|error| error.to_string())?;
    let config = ClientConfig::builder_with_provider(Arc::new(provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| format!("{host:?} cannot be the name of a TLS server"))?;
    let connection = ClientConnection::new(Arc::new(config), name)
        .map_err(|problem| error::from_rustls(problem).to_string())?;
    shake_hands(tcp, Session::new(connection.into()), within).await.map_err(|error| match error {
        TlsError::PeerCertificate(why) => format!(
            "the server's certificate is not accepted: {why}; it must be for {host} and lead to a CA in {}",
            authorities.display()
        ),
        TlsError::PlainPeer => "the server does not speak TLS".to_owned(),
        TlsError::NoAnswer | TlsError::Closed | TlsError::TimedOut => {
            "the server has not completed the TLS handshake".to_owned()
        }
        other => other.to_string(),
    })
}
