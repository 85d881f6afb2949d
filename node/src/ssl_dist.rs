//! The options of distribution over TLS, from this node's configuration and from OTP's own files.
//!
//! OTP takes them from the file that `-ssl_dist_optfile` names and from `-ssl_dist_opt` arguments; both have a side `server`
//! (this node accepts) and a side `client` (this node dials). The file is read as it is:
//!
//! ```erlang
//! [{server, [{certfile, "node.pem"}, {keyfile, "node.key"}, {cacertfile, "ca.pem"},
//!            {verify, verify_peer}, {fail_if_no_peer_cert, true}]},
//!  {client, [{certfile, "node.pem"}, {keyfile, "node.key"}, {cacertfile, "ca.pem"},
//!            {verify, verify_peer}]}].
//! ```
//!
//! An option that changes whom this node trusts and that it cannot honour is an error; one that only chooses among
//! ciphers, or tunes OTP's implementation, is a warning.

use std::fmt;
use std::path::{Path, PathBuf};

use foundation_proto::Limits;
use foundation_proto::etf::Term;
use foundation_proto::etf::text::parse_erlang_terms;
use serde::{Deserialize, Serialize};
use tracing::warn;

/// The options of both sides.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct SslDistOptions {
    /// When another node connects.
    pub server: SslOptions,
    /// When this node dials.
    pub client: SslOptions,
}

/// The options of one side, by OTP's names.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct SslOptions {
    /// PEM file with this node's certificate, then its intermediate CAs. Intermediates may stand in `cacertfile` as well.
    pub certfile: Option<PathBuf>,
    /// PEM file with its private key, unencrypted. Default: `certfile`.
    pub keyfile: Option<PathBuf>,
    /// PEM file with the CAs that peers' certificates must lead to.
    pub cacertfile: Option<PathBuf>,
    /// Whether peers' certificates are checked. Default: `verify_peer` as client, `verify_none` as server, as in OTP 26.
    pub verify: Option<Verify>,
    /// As server, with `verify_peer`: whether a peer must have a certificate. Default: false, as in OTP.
    pub fail_if_no_peer_cert: Option<bool>,
    /// `tlsv1.2`, `tlsv1.3`. Default: both.
    pub versions: Option<Vec<TlsVersion>>,
    /// As client: the host that certificates must be for, instead of the host part of the node name; `disable` for any.
    pub server_name_indication: Option<String>,
}

/// Whether the certificate of a peer is checked.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verify {
    /// It must lead to a CA of `cacertfile`.
    VerifyPeer,
    /// Anybody's will do.
    VerifyNone,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum TlsVersion {
    /// RFC 5246.
    #[serde(rename = "tlsv1.2")]
    Tls12,
    /// RFC 8446.
    #[serde(rename = "tlsv1.3")]
    Tls13,
}

/// Which of the two lists of options.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Side {
    /// This node accepts.
    Server,
    /// This node dials.
    Client,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Server => "server",
            Self::Client => "client",
        })
    }
}

/// Why distribution over TLS cannot be set up.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum SslDistError {
    /// A file.
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The options of one side.
    Options {
        /// Which side.
        side: Side,
        /// What is wrong with them.
        why: String,
    },
    /// This program was built without the feature `tls`.
    NotBuilt,
}

impl SslDistError {
    pub(crate) fn file(path: &Path, why: impl Into<String>) -> Self {
        Self::File { path: path.to_owned(), why: why.into() }
    }

    #[cfg(feature = "tls")]
    pub(crate) fn options(side: Side, why: impl Into<String>) -> Self {
        Self::Options { side, why: why.into() }
    }

    #[cfg(feature = "tls")]
    pub(crate) fn missing(side: Side, key: &str, what_for: &str) -> Self {
        Self::options(side, format!("{key} is needed {what_for}"))
    }
}

impl fmt::Display for SslDistError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, why } => write!(f, "distribution over TLS: {} {why}", path.display()),
            Self::Options { side, why } => write!(
                f,
                "distribution over TLS, options of the {side}: {why}\nThey stand in the file that ssl_dist_optfile names, or \
                 under ssl_dist_opt.{side}."
            ),
            Self::NotBuilt => f.write_str("this program was built without TLS (feature `tls`)"),
        }
    }
}

impl std::error::Error for SslDistError {}

impl SslDistOptions {
    /// These options, and for what they leave open the ones of OTP's file.
    pub(crate) fn with_optfile(&self, path: Option<&Path>) -> Result<Self, SslDistError> {
        let Some(path) = path else { return Ok(self.clone()) };
        let file = Self::read_optfile(path)?;
        Ok(Self { server: self.server.clone().or(file.server), client: self.client.clone().or(file.client) })
    }

    /// Reads a file for `-ssl_dist_optfile`. Names of files in it are relative to the working directory, as in OTP.
    ///
    /// # Errors
    /// If it cannot be read, is not in the form that OTP expects, or has an option that matters and is not supported.
    pub fn read_optfile(path: &Path) -> Result<Self, SslDistError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| SslDistError::file(path, format!("cannot be read: {error}")))?;
        Self::parse_optfile(&text).map_err(|why| SslDistError::file(path, why))
    }

    fn parse_optfile(text: &str) -> Result<Self, String> {
        let terms = parse_erlang_terms(text, &Limits::default())
            .map_err(|error| format!("is not in Erlang's syntax: {error}"))?;
        let sides = match terms.as_slice() {
            [term] => term.as_list(),
            _ => None,
        };
        let form = "must hold one list, [{server, [Option]}, {client, [Option]}], and a full stop";
        let mut options = Self::default();
        for side in sides.ok_or(form)? {
            let Some([name, list]) = side.as_tuple() else { return Err(form.into()) };
            let (side, target) = match name {
                name if name.is_atom("server") => (Side::Server, &mut options.server),
                name if name.is_atom("client") => (Side::Client, &mut options.client),
                _ => return Err(form.into()),
            };
            for option in list.as_list().ok_or(form)? {
                target.set(side, option).map_err(|why| format!("({side}): {why}"))?;
            }
        }
        Ok(options)
    }
}

/// Options of OTP that change nothing about who may talk to whom: how its own implementation works, and features that
/// distribution does not use.
const WITHOUT_MEANING: [&str; 27] = [
    "anti_replay",
    "beast_mitigation",
    "client_renegotiation",
    "cookie",
    "crl_cache",
    "dh",
    "dhfile",
    "early_data",
    "handshake",
    "hibernate_after",
    "honor_cipher_order",
    "honor_ecc_order",
    "keep_secrets",
    "key_update_at",
    "ktls",
    "log_level",
    "max_handshake_size",
    "middlebox_comp_mode",
    "nodelay",
    "padding_check",
    "receiver_spawn_opts",
    "renegotiate_at",
    "reuse_session",
    "reuse_sessions",
    "secure_renegotiate",
    "sender_spawn_opts",
    "session_tickets",
];

/// Options that choose among algorithms. This node has only ones that none of OTP's releases calls weak.
const ALGORITHMS: [&str; 6] =
    ["ciphers", "depth", "eccs", "signature_algs", "signature_algs_cert", "supported_groups"];

/// Whether an option of OTP changes nothing about who may talk to whom, so that it is taken and not used.
pub fn is_ignored(option: &str) -> bool {
    WITHOUT_MEANING.contains(&option)
}

impl SslOptions {
    fn or(self, other: Self) -> Self {
        Self {
            certfile: self.certfile.or(other.certfile),
            keyfile: self.keyfile.or(other.keyfile),
            cacertfile: self.cacertfile.or(other.cacertfile),
            verify: self.verify.or(other.verify),
            fail_if_no_peer_cert: self.fail_if_no_peer_cert.or(other.fail_if_no_peer_cert),
            versions: self.versions.or(other.versions),
            server_name_indication: self.server_name_indication.or(other.server_name_indication),
        }
    }

    /// Takes one option of OTP's file; the first of a name counts, as in every property list.
    fn set(&mut self, side: Side, option: &Term) -> Result<(), String> {
        let (name, value) = match option.as_tuple() {
            Some([name, value]) => (name, Some(value)),
            Some(_) => return Err(format!("{} is no option", foundation_proto::etf::text::write(option))),
            // `[key]` means `[{key, true}]`.
            None => (option, None),
        };
        let Some(key) = name.as_atom().map(|atom| atom.as_str()) else {
            return Err(format!("{} is no option", foundation_proto::etf::text::write(option)));
        };
        let boolean = value.map_or(Some(true), Term::as_bool);
        let path =
            || value.and_then(text).map(PathBuf::from).ok_or_else(|| format!("{key} must be a string"));
        let one_of = |what: &str| format!("{key} must be {what}");
        match key {
            "certfile" => first(&mut self.certfile, path()?),
            "keyfile" => first(&mut self.keyfile, path()?),
            "cacertfile" => first(&mut self.cacertfile, path()?),
            "verify" => first(
                &mut self.verify,
                match value {
                    Some(value) if value.is_atom("verify_peer") => Verify::VerifyPeer,
                    Some(value) if value.is_atom("verify_none") => Verify::VerifyNone,
                    _ => return Err(one_of("verify_peer or verify_none")),
                },
            ),
            "fail_if_no_peer_cert" => {
                first(&mut self.fail_if_no_peer_cert, boolean.ok_or_else(|| one_of("true or false"))?);
            }
            "versions" => {
                let list = value.and_then(Term::as_list).ok_or_else(|| one_of("a list of versions"))?;
                let versions: Vec<TlsVersion> = list.iter().filter_map(version).collect();
                if versions.is_empty() {
                    return Err(one_of(
                        "a list with 'tlsv1.2', 'tlsv1.3' or both; no older version is supported",
                    ));
                }
                if versions.len() < list.len() {
                    warn!(%side, "of the TLS versions in the options, only tlsv1.2 and tlsv1.3 are used");
                }
                first(&mut self.versions, versions);
            }
            "server_name_indication" if side == Side::Client => {
                let name = match value {
                    Some(value) if value.is_atom("disable") => Some("disable".to_owned()),
                    value => value.and_then(text),
                };
                first(&mut self.server_name_indication, name.ok_or_else(|| one_of("a string or disable"))?);
            }
            "password" => {
                return Err(
                    "password is not supported: decrypt the key (`openssl pkey`) and protect its file".into(),
                );
            }
            "cert" | "key" | "cacerts" | "certs_keys" => {
                return Err(format!("{key} is not supported: use certfile, keyfile and cacertfile"));
            }
            "crl_check" if boolean == Some(false) => {}
            "crl_check" => {
                return Err("crl_check is not supported: revoked certificates would be accepted".into());
            }
            // Its check is made for every peer once `allow` is set.
            "verify_fun" if side == Side::Server && value.is_some_and(is_verify_client) => {}
            key if is_ignored(key) => {}
            key if ALGORITHMS.contains(&key) => {
                warn!(%side, option = key, "this TLS option is not used: this node chooses among its own algorithms");
            }
            key => return Err(format!("{key} is not supported")),
        }
        Ok(())
    }
}

fn first<T>(target: &mut Option<T>, value: T) {
    target.get_or_insert(value);
}

fn version(term: &Term) -> Option<TlsVersion> {
    match term.as_atom()?.as_str() {
        "tlsv1.2" => Some(TlsVersion::Tls12),
        "tlsv1.3" => Some(TlsVersion::Tls13),
        _ => None,
    }
}

/// `{inet_tls_dist, verify_client, State}` or `{fun inet_tls_dist:verify_client/3, State}`.
fn is_verify_client(value: &Term) -> bool {
    match value.as_tuple() {
        Some([module, function, _]) => module.is_atom("inet_tls_dist") && function.is_atom("verify_client"),
        Some([Term::ExportFun(fun), _]) => {
            fun.module.as_str() == "inet_tls_dist" && fun.function.as_str() == "verify_client"
        }
        _ => false,
    }
}

/// An Erlang string or a binary as text.
fn text(term: &Term) -> Option<String> {
    if let Some(text) = term.as_str() {
        return Some(text.to_owned());
    }
    let characters = term.as_list()?.iter();
    characters.map(|c| char::from_u32(u32::try_from(c.as_i64()?).ok()?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_optfile_is_read_as_it_is() {
        let options = SslDistOptions::parse_optfile(
            "%% -*- erlang -*-\n[{server, [{certfile, \"s ü.pem\"}, {keyfile, <<\"s.key\">>}, {verify, verify_peer},\n\
             fail_if_no_peer_cert, {secure_renegotiate, true}, {ciphers, [\"x\"]}, {certfile, \"second.pem\"},\n\
             {verify_fun, {inet_tls_dist, verify_client, []}}]},\n\
             {client, [{cacertfile, \"ca.pem\"}, {verify, verify_none}, {versions, ['tlsv1.3', 'tlsv1.1']},\n\
             {server_name_indication, disable}]}].\n",
        )
        .unwrap();
        assert_eq!(options.server.certfile, Some("s ü.pem".into()));
        assert_eq!(options.server.keyfile, Some("s.key".into()));
        assert_eq!(
            (options.server.verify, options.server.fail_if_no_peer_cert),
            (Some(Verify::VerifyPeer), Some(true))
        );
        assert_eq!(options.client.cacertfile, Some("ca.pem".into()));
        assert_eq!(options.client.verify, Some(Verify::VerifyNone));
        assert_eq!(options.client.versions, Some(vec![TlsVersion::Tls13]));
        assert_eq!(options.client.server_name_indication.as_deref(), Some("disable"));
    }

    #[test]
    fn options_that_cannot_be_honoured_are_named() {
        for (option, word) in [
            ("{password, \"x\"}", "password is not supported"),
            ("{crl_check, peer}", "crl_check is not supported"),
            ("{cacerts, []}", "cacerts is not supported"),
            ("{verify_fun, {my, check, []}}", "verify_fun is not supported"),
            ("{verify, true}", "verify must be verify_peer or verify_none"),
            ("{versions, ['tlsv1.1']}", "'tlsv1.2'"),
            ("{certfile, pem}", "certfile must be a string"),
            ("{cert_file, \"pem\"}", "cert_file is not supported"),
            ("{a, b, c}", "{a,b,c} is no option"),
        ] {
            let error = SslDistOptions::parse_optfile(&format!("[{{server, [{option}]}}].")).unwrap_err();
            assert!(error.contains(word) && error.contains("server"), "{option}: {error}");
        }
        for text in ["", "[].\n[].", "{server, []}.", "[{other, []}].", "[{server, x}].", "[{server, [}]."] {
            SslDistOptions::parse_optfile(text).unwrap_err();
        }
    }
}
