//! The names in a certificate, for the host check that OTP makes (`public_key:pkix_verify_hostname/2`).
//!
//! webpki's own check differs from it: it knows wildcards, and it does not look at the common name of a certificate without
//! a subjectAltName, which is what `openssl req -x509 -subj /CN=host` makes. So the few fields needed are read here.

use std::net::IpAddr;

/// `id-ce-subjectAltName`, 2.5.29.17.
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];
/// `id-at-commonName`, 2.5.4.3.
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];

const SEQUENCE: u8 = 0x30;
const OBJECT_IDENTIFIER: u8 = 0x06;
const OCTET_STRING: u8 = 0x04;
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;
const DNS_NAME: u8 = 0x82;
const IP_ADDRESS: u8 = 0x87;

/// What a certificate says about whose it is.
#[derive(Debug, Default, PartialEq)]
pub(super) struct CertificateNames<'a> {
    /// The distinguished name of the issuer, encoded.
    pub(super) issuer: &'a [u8],
    /// The distinguished name of the owner, encoded.
    pub(super) subject: &'a [u8],
    common_names: Vec<String>,
    has_alternatives: bool,
    dns_names: Vec<String>,
    ip_addresses: Vec<IpAddr>,
}

impl<'a> CertificateNames<'a> {
    /// Reads an X.509 certificate in DER. `None` if it is none.
    pub(super) fn parse(certificate: &'a [u8]) -> Option<Self> {
        let mut signed = Der(Der(certificate).expect(SEQUENCE)?);
        let mut fields = Der(signed.expect(SEQUENCE)?);
        if fields.0.first() == Some(&VERSION) {
            fields.next()?;
        }
        let _serial_number = fields.next()?;
        let _signature = fields.expect(SEQUENCE)?;
        let issuer = fields.expect(SEQUENCE)?;
        let _validity = fields.expect(SEQUENCE)?;
        let subject = fields.expect(SEQUENCE)?;
        let mut names = Self {
            issuer,
            subject,
            common_names: common_names(subject).unwrap_or_default(),
            ..Self::default()
        };
        while let Some((tag, content)) = fields.next() {
            if tag == EXTENSIONS {
                names.read_extensions(content)?;
            }
        }
        Some(names)
    }

    fn read_extensions(&mut self, extensions: &[u8]) -> Option<()> {
        let mut extensions = Der(Der(extensions).expect(SEQUENCE)?);
        while let Some((SEQUENCE, extension)) = extensions.next() {
            let mut extension = Der(extension);
            if extension.expect(OBJECT_IDENTIFIER)? != SUBJECT_ALT_NAME {
                continue;
            }
            // `critical` may stand before the value.
            let value = std::iter::from_fn(|| extension.next()).find(|(tag, _)| *tag == OCTET_STRING)?.1;
            let mut alternatives = Der(Der(value).expect(SEQUENCE)?);
            while let Some((tag, name)) = alternatives.next() {
                self.has_alternatives = true;
                match tag {
                    DNS_NAME => self.dns_names.extend(String::from_utf8(name.to_vec())),
                    IP_ADDRESS => self.ip_addresses.extend(ip_address(name)),
                    _ => {}
                }
            }
        }
        Some(())
    }

    /// Whether the certificate is for a host: one of its dNSNames or iPAddresses; without any alternative name, the common
    /// name, which cannot be an address. ASCII case does not matter, and there are no wildcards, as in OTP.
    ///
    /// Releases differ, and what either accepts is accepted: up to 25 the text of an address is looked for among the
    /// dNSNames, and the common name counts; later ones want an iPAddress, and take no common name.
    pub(super) fn is_for(&self, host: &str) -> bool {
        let same = |name: &String| name.eq_ignore_ascii_case(host);
        let address: Option<IpAddr> = host.parse().ok();
        if !self.has_alternatives {
            return address.is_none() && self.common_names.iter().any(same);
        }
        self.dns_names.iter().any(same) || address.is_some_and(|ip| self.ip_addresses.contains(&ip))
    }

    /// The names that [`Self::is_for`] compares, for messages.
    pub(super) fn presented(&self) -> Vec<String> {
        if !self.has_alternatives {
            return self.common_names.clone();
        }
        self.dns_names.iter().cloned().chain(self.ip_addresses.iter().map(IpAddr::to_string)).collect()
    }
}

fn common_names(subject: &[u8]) -> Option<Vec<String>> {
    let mut names = Vec::new();
    let mut sets = Der(subject);
    while let Some((_, set)) = sets.next() {
        let mut attributes = Der(set);
        while let Some((_, attribute)) = attributes.next() {
            let mut attribute = Der(attribute);
            if attribute.expect(OBJECT_IDENTIFIER)? == COMMON_NAME {
                names.extend(String::from_utf8(attribute.next()?.1.to_vec()));
            }
        }
    }
    Some(names)
}

fn ip_address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(v4.into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

/// What is left of a sequence of DER values.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// The next value: its tag and its content.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, mut rest) = rest.split_first()?;
        let length = if first < 0x80 {
            usize::from(first)
        } else {
            // No certificate is longer than a 24-bit length of TLS can say.
            let (bytes, after) =
                rest.split_at_checked(usize::from(first & 0x7f)).filter(|(b, _)| b.len() <= 3)?;
            rest = after;
            bytes.iter().fold(0, |length, &byte| length << 8 | usize::from(byte))
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, content))
    }

    fn expect(&mut self, wanted: u8) -> Option<&'a [u8]> {
        self.next().filter(|(tag, _)| *tag == wanted).map(|(_, content)| content)
    }
}
