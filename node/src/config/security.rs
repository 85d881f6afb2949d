//! `[security]`: cookie and TLS under the names that the Elixir library has for them (`config :foundation, security: [...]`).
//!
//! ```toml
//! [security]
//! erlang_cookie = { system = "ERLANG_COOKIE" }
//! tls_enabled = true
//! certificate_file = "/etc/ssl/certs/cluster.pem"
//! ```

use std::fmt;
use std::path::PathBuf;

use foundation_proto::dist::Cookie;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use toml::Value;

use super::{ConfigError, NodeConfig, ProtoDist};

/// Cookie and TLS. A value may be `{ system = "VAR" }`, that of an environment variable.
#[derive(Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Security {
    /// The cookie, unless `cookie` or `cookie_file` says it.
    #[serde(deserialize_with = "cookie")]
    pub erlang_cookie: Option<Cookie>,
    /// Whether all connections use TLS: `proto_dist = "inet_tls"`, or `inet6_tls` in the place of `inet6_tcp`.
    #[serde(deserialize_with = "switch")]
    pub tls_enabled: Option<bool>,
    /// PEM file with this node's certificate, its key, and the CA's certificate that peers' lead to: `certfile` of the server and `cacertfile`
    /// of the client, unless `ssl_dist_opt` or `ssl_dist_optfile` says them.
    #[serde(deserialize_with = "path")]
    pub certificate_file: Option<PathBuf>,
}

impl fmt::Debug for Security {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Security")
            .field("erlang_cookie", &self.erlang_cookie.as_ref().map(|_| ".."))
            .field("tls_enabled", &self.tls_enabled)
            .field("certificate_file", &self.certificate_file)
            .finish()
    }
}

impl NodeConfig {
    /// Puts what `[security]` says where the node looks for it; doing so twice changes nothing.
    ///
    /// # Errors
    /// If it contradicts other keys.
    pub(crate) fn secured(mut self) -> Result<Self, ConfigError> {
        let security = self.security.clone();
        if self.cookie.is_none() && self.cookie_file.is_none() {
            self.cookie = security.erlang_cookie;
        }
        match (security.tls_enabled, self.proto_dist) {
            (Some(true), ProtoDist::InetTcp) => self.proto_dist = ProtoDist::InetTls,
            (Some(true), ProtoDist::Inet6Tcp) => self.proto_dist = ProtoDist::Inet6Tls,
            (Some(false), proto) if proto.is_tls() => {
                let why = "is false, and proto_dist is one of TLS; take one of the two away";
                return Err(ConfigError::Invalid { key: "security.tls_enabled", why: why.to_owned() });
            }
            _ => {}
        }
        if let Some(file) = security.certificate_file {
            if !self.proto_dist.is_tls() {
                let why = "is written, and neither security.tls_enabled = true nor a proto_dist of TLS";
                return Err(ConfigError::Invalid { key: "security.certificate_file", why: why.to_owned() });
            }
            if self.ssl_dist_optfile.is_none() {
                let options = &mut self.ssl_dist_opt;
                options.server.certfile.get_or_insert_with(|| file.clone());
                options.client.cacertfile.get_or_insert(file);
            }
        }
        Ok(self)
    }
}

/// A cookie that is written, or that an environment variable has.
///
/// # Errors
/// Why it cannot be used, without showing it.
pub(crate) fn cookie_of(value: &Value) -> Result<Cookie, String> {
    super::cookie_from(&meant(value.clone())?)
}

fn resolved<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
    meant(Value::deserialize(deserializer)?).map_err(D::Error::custom)
}

/// The value that is meant: that of an environment variable where one is named.
fn meant(value: Value) -> Result<Value, String> {
    let Value::Table(table) = &value else { return Ok(value) };
    match table.get("system") {
        Some(Value::String(variable)) if table.len() == 1 => std::env::var(variable)
            .map(Value::String)
            .map_err(|_| format!("the environment variable {variable} is not set")),
        _ => Err("must be a value or { system = \"VARIABLE\" }".to_owned()),
    }
}

fn cookie<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Cookie>, D::Error> {
    super::cookie_from(&resolved(deserializer)?).map(Some).map_err(D::Error::custom)
}

fn switch<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<bool>, D::Error> {
    match resolved(deserializer)? {
        Value::Boolean(on) => Ok(Some(on)),
        Value::String(text) if text == "true" => Ok(Some(true)),
        Value::String(text) if text == "false" => Ok(Some(false)),
        _ => Err(D::Error::custom("must be true or false")),
    }
}

fn path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PathBuf>, D::Error> {
    match resolved(deserializer)? {
        Value::String(path) if !path.is_empty() => Ok(Some(path.into())),
        _ => Err(D::Error::custom("must be the path of a file")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Layers;

    fn read(text: &str) -> Result<NodeConfig, ConfigError> {
        let mut layers = Layers::new();
        layers.text(text, "f.toml")?;
        layers.finish()
    }

    #[test]
    fn it_says_cookie_and_tls() {
        // Any variable that there is, and whose value can be a cookie.
        let usable = |value: &str| value.len() > 8 && Cookie::new(value).is_ok();
        let Some((variable, path)) = std::env::vars().find(|(_, value)| usable(value)) else { return };
        let config = read(&format!(
            "[security]\nerlang_cookie = {{ system = {variable:?} }}\ntls_enabled = true\ncertificate_file = '/c.pem'\n"
        ))
        .unwrap();
        assert_eq!(config.cookie, Cookie::new(&path).ok());
        assert!(!format!("{config:?}").contains(&path));
        assert_eq!(config.proto_dist, ProtoDist::InetTls);
        assert_eq!(config.ssl_dist_opt.server.certfile, Some("/c.pem".into()));
        assert_eq!(config.ssl_dist_opt.client.cacertfile, Some("/c.pem".into()));
        // What has a key of its own wins, except that TLS is never taken away.
        let config = read(
            "cookie = 'c'\nproto_dist = 'inet6_tcp'\nssl_dist_opt = { server = { certfile = 'own.pem' } }\n\
             [security]\nerlang_cookie = 'other'\ntls_enabled = true\ncertificate_file = '/c.pem'\n",
        )
        .unwrap();
        assert_eq!(config.cookie, Cookie::new("c").ok());
        assert_eq!(config.proto_dist, ProtoDist::Inet6Tls);
        assert_eq!(config.ssl_dist_opt.server.certfile, Some("own.pem".into()));
        assert_eq!(read("[security]\ntls_enabled = false\n").unwrap().proto_dist, ProtoDist::InetTcp);
    }

    #[test]
    fn errors_name_the_key_and_show_no_secret() {
        for (text, words) in [
            ("[security]\nerlang_cookie = { system = 'NO_SUCH_VARIABLE_HERE' }", "NO_SUCH_VARIABLE_HERE"),
            ("[security]\nerlang_cookie = 5", "string"),
            ("[security]\ntls_enabled = 'yes'", "true or false"),
            ("[security]\ntls = true", "tls_enabled"),
            ("[security]\ncertificate_file = '/c.pem'", "security.certificate_file"),
            ("proto_dist = 'inet_tls'\n[security]\ntls_enabled = false", "security.tls_enabled"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
        let mut layers = Layers::new();
        layers.text("[security]\nerlang_cookie = 'hush'\n", "f.toml").unwrap();
        let shown = layers.effective().unwrap();
        let line = shown.iter().find(|line| line.key == "security.erlang_cookie").unwrap();
        assert_eq!((line.value.as_deref(), line.origin.as_str()), (Some("\"***\""), "f.toml:2"));
    }
}
