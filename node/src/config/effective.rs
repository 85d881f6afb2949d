//! The configuration in force, key by key, and where each value comes from.

use std::collections::BTreeMap;

use serde::Serialize;
use toml::{Table, Value};

use super::{ConfigError, Layers, NodeConfig};

/// A key of the configuration.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Effective {
    /// Its name, with dots.
    pub key: String,
    /// Its value as it is written in TOML, a secret as `"***"`; `None` if it is not set and has no default.
    pub value: Option<String>,
    /// `default`, `file:line`, a variable, or a flag.
    pub origin: String,
}

/// A key whose value is another one now. Secrets differ without being shown.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Change {
    /// Its name, with dots.
    pub key: String,
    /// What it was; `None` if it was not set.
    pub from: Option<String>,
    /// What it is.
    pub to: Option<String>,
}

/// What stands in the place of a secret.
const MASK: &str = "\"***\"";
/// Keys whose values are not shown, whatever they stand under.
const SECRETS: [&str; 5] = ["cookie", "cookies", "secret", "token", "password"];
/// Text with topologies as terms, which may hold secrets: it is looked into by nobody here.
const TEXT: &str = "cluster.topologies";
/// The origin of what nobody has written.
const DEFAULT: &str = "default";

impl Layers {
    /// Every key with its value and its origin, in order.
    ///
    /// # Errors
    /// As [`Layers::finish`].
    pub fn effective(&self) -> Result<Vec<Effective>, ConfigError> {
        Ok(self.entries()?.into_values().map(|(_, line)| line).collect())
    }

    /// The keys whose values differ from those of an earlier reading, in order.
    ///
    /// # Errors
    /// As [`Layers::finish`].
    pub fn changes_from(&self, earlier: &Self) -> Result<Vec<Change>, ConfigError> {
        let (mut before, after) = (earlier.entries()?, self.entries()?);
        let mut changes = Vec::new();
        for (key, (value, line)) in after {
            let (old, from) = before.remove(&key).map_or((None, None), |(old, line)| (old, line.value));
            if old != value {
                changes.push(Change { key, from, to: line.value });
            }
        }
        let gone = before.into_iter().filter(|(_, (old, _))| old.is_some());
        changes.extend(gone.map(|(key, (_, line))| Change { key, from: line.value, to: None }));
        changes.sort_by(|one, other| one.key.cmp(&other.key));
        Ok(changes)
    }

    /// Every key with its value and what may be shown of it.
    fn entries(&self) -> Result<BTreeMap<String, (Option<Value>, Effective)>, ConfigError> {
        let config = self.clone().finish()?;
        let mut entries = BTreeMap::new();
        for (key, value) in values(&config) {
            // What was written there says more than what became of it.
            let written = ["cluster", "clusters", "cookie", "cookies", "security"].contains(&key);
            match if written { self.table.get(key).cloned() } else { value } {
                Some(value) => leaves(&mut vec![key.to_owned()], &value, &mut |path, value| {
                    let key = path.join(".");
                    let line = self.line(&key, Some(value));
                    entries.insert(key, (Some(value.clone()), line));
                }),
                None => {
                    entries.insert(key.to_owned(), (None, self.line(key, None)));
                }
            }
        }
        Ok(entries)
    }

    fn line(&self, key: &str, value: Option<&Value>) -> Effective {
        let value = value.map(|value| if is_secret(key) { MASK.to_owned() } else { written(value) });
        let origin = self.origin(key).unwrap_or(DEFAULT).to_owned();
        Effective { key: key.to_owned(), value, origin }
    }
}

/// Whether a key, or what it stands under, is a secret. The name of a variable that holds one is none.
fn is_secret(key: &str) -> bool {
    // `access_token` and `erlang_cookie` are such as well.
    let secret = |part: &str| SECRETS.contains(&part.rsplit('_').next().unwrap_or(part));
    key == TEXT
        || !key.ends_with(".system") && key.split('.').any(|part| part != "cookie_file" && secret(part))
}

/// Calls `each` with every value that is no table, and its path. The parser of TOML bounds how deep tables are nested.
pub(super) fn leaves(path: &mut Vec<String>, value: &Value, each: &mut impl FnMut(&[String], &Value)) {
    match value {
        Value::Table(table) if !table.is_empty() => {
            for (part, value) in table {
                path.push(part.clone());
                leaves(path, value, each);
                path.pop();
            }
        }
        value => each(path, value),
    }
}

/// Every key of the configuration with its value. Whoever adds a field is told by the compiler to add it here.
fn values(config: &NodeConfig) -> Vec<(&'static str, Option<Value>)> {
    let NodeConfig {
        name,
        name_domain,
        cookie: _,
        cookie_file,
        cookies: _,
        hidden,
        connect_all,
        prevent_overlapping_partitions,
        horde,
        allow,
        epmd,
        epmd_port,
        epmd_address,
        erl_epmd_node_listen_port,
        dist_listen,
        inet_dist_use_interface,
        inet_dist_listen_min,
        inet_dist_listen_max,
        proto_dist,
        ssl_dist_optfile,
        ssl_dist_opt,
        dist_nodelay,
        dist_auto_connect,
        net_ticktime,
        net_tickintensity,
        net_setuptime,
        wide_identifiers,
        reconnect,
        builtins,
        cluster: _,
        clusters: _,
        security: _,
        log,
        limits,
        bad_cookie: _,
    } = config;
    vec![
        ("name", value(name)),
        ("name_domain", value(name_domain)),
        ("cookie", None),
        ("cookie_file", value(cookie_file)),
        ("cookies", None),
        ("hidden", value(hidden)),
        ("connect_all", value(connect_all)),
        ("prevent_overlapping_partitions", value(prevent_overlapping_partitions)),
        ("horde", value(horde)),
        ("allow", value(allow)),
        ("epmd", value(epmd)),
        ("epmd_port", value(epmd_port)),
        ("epmd_address", value(epmd_address)),
        ("erl_epmd_node_listen_port", value(erl_epmd_node_listen_port)),
        ("dist_listen", value(dist_listen)),
        ("inet_dist_use_interface", value(inet_dist_use_interface)),
        ("inet_dist_listen_min", value(inet_dist_listen_min)),
        ("inet_dist_listen_max", value(inet_dist_listen_max)),
        ("proto_dist", value(proto_dist)),
        ("ssl_dist_optfile", value(ssl_dist_optfile)),
        ("ssl_dist_opt", value(ssl_dist_opt)),
        ("dist_nodelay", value(dist_nodelay)),
        ("dist_auto_connect", value(dist_auto_connect)),
        ("net_ticktime", value(net_ticktime)),
        ("net_tickintensity", value(net_tickintensity)),
        ("net_setuptime", value(net_setuptime)),
        ("wide_identifiers", value(wide_identifiers)),
        ("reconnect", value(reconnect)),
        ("builtins", value(builtins)),
        ("cluster", None),
        ("clusters", None),
        ("security", None),
        ("log", value(log)),
        ("limits", value(limits)),
    ]
}

/// A value as the configuration has it; `None` for one that is not set.
fn value(value: &impl Serialize) -> Option<Value> {
    Value::try_from(value).ok()
}

/// A value as it is written in TOML, on one line.
fn written(value: &Value) -> String {
    match value {
        Value::String(text) => quoted(text),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Boolean(word) => word.to_string(),
        Value::Datetime(time) => time.to_string(),
        Value::Array(elements) => {
            format!("[{}]", elements.iter().map(written).collect::<Vec<_>>().join(", "))
        }
        Value::Table(table) => inline(table),
    }
}

fn inline(table: &Table) -> String {
    if table.is_empty() {
        return "{}".to_owned();
    }
    let pairs = table.iter().map(|(key, value)| format!("{} = {}", quoted(key), written(value)));
    format!("{{ {} }}", pairs.collect::<Vec<_>>().join(", "))
}

/// A basic string of TOML.
fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            control if control.is_control() => out.push_str(&format!("\\u{:04X}", control as u32)),
            other => out.push(other),
        }
    }
    out.push('"');
    out
}
