//! What rustls says, in the words of this node.

use rustls::{AlertDescription, Error};

use crate::net::TlsError;

/// The first byte of every TLS record: change_cipher_spec, alert, handshake, application_data.
pub(super) const RECORD_TYPES: std::ops::RangeInclusive<u8> = 0x14..=0x17;

pub(super) fn from_rustls(error: Error) -> TlsError {
    match error {
        Error::InvalidCertificate(why) => TlsError::PeerCertificate(why.to_string()),
        Error::NoCertificatesPresented => TlsError::PeerCertificate("it has sent none".to_owned()),
        Error::AlertReceived(alert) => TlsError::Refused(alert_text(alert)),
        Error::PeerIncompatible(why) => TlsError::Incompatible(format!("{why:?}")),
        error => TlsError::Protocol(error.to_string()),
    }
}

/// The alert by its name in OTP's messages, and what it means between nodes.
fn alert_text(alert: AlertDescription) -> String {
    let (name, meaning) = match alert {
        AlertDescription::CertificateRequired => {
            ("certificate_required", "this node has sent no certificate")
        }
        AlertDescription::UnknownCA => {
            ("unknown_ca", "no CA in the peer's cacertfile has signed this node's certificate")
        }
        AlertDescription::BadCertificate => {
            ("bad_certificate", "the peer does not accept this node's certificate")
        }
        AlertDescription::CertificateExpired => {
            ("certificate_expired", "this node's certificate is not valid now")
        }
        AlertDescription::CertificateUnknown => {
            ("certificate_unknown", "the peer does not accept this node's certificate")
        }
        AlertDescription::UnsupportedCertificate => {
            ("unsupported_certificate", "the peer cannot use this node's certificate")
        }
        AlertDescription::HandshakeFailure => (
            "handshake_failure",
            "no common cipher suite, or the certificate is not accepted for this node's host name",
        ),
        AlertDescription::ProtocolVersion => {
            ("protocol_version", "no common TLS version: compare the `versions`")
        }
        other => return format!("{other:?}"),
    };
    format!("{name}: {meaning}")
}
