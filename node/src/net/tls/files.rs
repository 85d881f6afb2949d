//! Certificates and keys from PEM files.

use std::path::Path;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::names::CertificateNames;
use crate::ssl_dist::SslDistError;

/// More certificates than any chain that a peer would follow.
const MAX_CHAIN: usize = 10;

/// All certificates of a file, at least one.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, SslDistError> {
    let text = read(path)?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .map_err(|error| SslDistError::file(path, format!("is no PEM file: {error}")))?;
    if certificates.is_empty() {
        return Err(SslDistError::file(path, "has no certificate (a PEM section CERTIFICATE)"));
    }
    Ok(certificates)
}

/// The first private key of a file.
pub(super) fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, SslDistError> {
    let text = read(path)?;
    let encrypted = b"ENCRYPTED";
    if text.windows(encrypted.len()).any(|window| window == encrypted) {
        return Err(SslDistError::file(
            path,
            "holds an encrypted private key, and passwords are not supported: decrypt it with `openssl pkey` and \
             protect the file instead",
        ));
    }
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| {
        SslDistError::file(
            path,
            format!("has no private key that can be used (a PEM section PRIVATE KEY): {error}"),
        )
    })
}

/// The certificates that everybody's chain must end in.
pub(super) fn roots(
    certificates: &[CertificateDer<'static>],
    path: &Path,
) -> Result<RootCertStore, SslDistError> {
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(certificates.iter().cloned());
    if added == 0 {
        return Err(SslDistError::file(path, "has no certificate that can be used as a CA"));
    }
    Ok(roots)
}

/// Adds the intermediate CAs that `chain` lacks and `authorities` have, as OTP does: a peer may know the root only.
pub(super) fn complete(chain: &mut Vec<CertificateDer<'static>>, authorities: &[CertificateDer<'static>]) {
    while chain.len() < MAX_CHAIN {
        let Some(last) = chain.last().and_then(|last| CertificateNames::parse(last)) else { return };
        let issuer = authorities.iter().find(|authority| {
            CertificateNames::parse(authority)
                .is_some_and(|names| names.subject == last.issuer && names.issuer != names.subject)
        });
        match issuer {
            Some(issuer) if last.issuer != last.subject && !chain.contains(issuer) => {
                chain.push(issuer.clone())
            }
            _ => return,
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, SslDistError> {
    std::fs::read(path).map_err(|error| SslDistError::file(path, format!("cannot be read: {error}")))
}
