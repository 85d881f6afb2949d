//! The sources of a configuration, laid over each other.

use std::collections::BTreeMap;
use std::path::Path;

use toml::{Table, Value};

use super::effective::leaves;
use super::{ConfigError, NodeConfig};
use crate::discovery::ClusterConfig;

/// The sources of a configuration, laid over each other: what is set later wins.
#[derive(Clone, Default)]
pub struct Layers {
    pub(super) table: Table,
    /// Where each value comes from, by its key with dots.
    origins: BTreeMap<String, String>,
}

/// Variables with our prefix that are no keys: read by the command line or by other parts of the project.
const OTHER_VARIABLES: [&str; 10] =
    ["CONFIG", "LOG", "LOG_FORMAT", "BIN", "NODE", "ECOSYSTEM", "INTEROP", "BUILT", "ENV", "APP_NAME"];

impl Layers {
    /// Nothing set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lays the keys of a TOML file over what is there.
    ///
    /// # Errors
    /// If it cannot be read, is not TOML, or has a key or value that does not exist; with the line.
    pub fn file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| ConfigError::Unreadable { path: path.into(), why: error.to_string() })?;
        self.text(&text, &path.display().to_string())
    }

    /// The same for a text, with the name to use for it in errors.
    ///
    /// # Errors
    /// As for a file.
    pub fn text(&mut self, text: &str, name: &str) -> Result<(), ConfigError> {
        // Only the message and the line: the snippet that the TOML parser would print could show the cookie.
        let error = |error: toml::de::Error| {
            let line =
                error.span().map_or(1, |span| 1 + text[..span.start.min(text.len())].matches('\n').count());
            ConfigError::Source {
                place: format!("{name}:{line}"),
                why: error.message().replace("field", "key"),
            }
        };
        let table = text.parse::<Table>().map_err(error)?;
        if let Some(Err(mistake)) = table.get("cluster").map(ClusterConfig::from_value) {
            let line = line_of(text, &mistake.key);
            return Err(ConfigError::Source { place: format!("{name}:{line}"), why: mistake.to_string() });
        }
        let _checked: NodeConfig = toml::from_str(text).map_err(error)?;
        for (key, value) in &table {
            self.forget(key);
            leaves(&mut vec![key.clone()], value, &mut |path, _| {
                self.origins.insert(path.join("."), format!("{name}:{}", line_of(text, path)));
            });
        }
        self.table.extend(table);
        Ok(())
    }

    /// Sets one key (`net_ticktime`, `limits.peers`); `place` is how the user wrote it.
    ///
    /// The text is read as a TOML value, and if no key can have that, as a plain string.
    ///
    /// # Errors
    /// If there is no such key or it cannot have this value.
    pub fn set(&mut self, key: &str, text: &str, place: &str) -> Result<(), ConfigError> {
        let parsed = format!("v = {text}").parse::<Table>().ok().and_then(|mut table| table.remove("v"));
        let plain = Value::String(text.to_owned());
        let result = match parsed {
            Some(value) => self.set_value(key, value, place).or_else(|first| {
                // The first error is the better one, unless it complains that a bare word is no string.
                self.set_value(key, plain, place).map_err(|_| first)
            }),
            None => self.set_value(key, plain, place),
        };
        result.map_err(|why| ConfigError::Source { place: place.to_owned(), why })
    }

    /// The same for a key whose value is text, which is not read as anything else: a cookie `true` is a cookie.
    ///
    /// # Errors
    /// As [`Layers::set`].
    pub fn set_text(&mut self, key: &str, text: &str, place: &str) -> Result<(), ConfigError> {
        self.set_value(key, Value::String(text.to_owned()), place)
            .map_err(|why| ConfigError::Source { place: place.to_owned(), why })
    }

    /// Sets the cookie for one node.
    ///
    /// # Errors
    /// If it cannot be a cookie.
    pub fn set_cookie(&mut self, node: &str, cookie: &str, place: &str) -> Result<(), ConfigError> {
        // Node names have dots, so this is no key with dots.
        let mut cookies = self.table.get("cookies").and_then(Value::as_table).cloned().unwrap_or_default();
        cookies.insert(node.to_owned(), Value::String(cookie.to_owned()));
        self.put("cookies", Value::Table(cookies))
            .map_err(|why| ConfigError::Source { place: place.to_owned(), why })?;
        self.origins.insert(format!("cookies.{node}"), place.to_owned());
        Ok(())
    }

    /// Adds a node to the ones to connect to, beside whatever else finds nodes.
    ///
    /// # Errors
    /// If it is no node name.
    pub fn join(&mut self, node: &str, place: &str) -> Result<(), ConfigError> {
        let key = "cluster.join";
        let known = self.table.get("cluster").and_then(|cluster| cluster.get("join"));
        let mut nodes = known.and_then(Value::as_array).cloned().unwrap_or_default();
        nodes.push(Value::String(node.to_owned()));
        self.put(key, Value::Array(nodes))
            .map_err(|why| ConfigError::Source { place: place.to_owned(), why })?;
        let origin = match self.origins.remove(key) {
            Some(earlier) if earlier != place => format!("{earlier}, {place}"),
            _ => place.to_owned(),
        };
        self.origins.insert(key.to_owned(), origin);
        Ok(())
    }

    /// Takes back what earlier layers say about a key.
    pub fn unset(&mut self, key: &str) {
        self.table.remove(key);
        self.forget(key);
    }

    /// Takes over what another reading says about a key and what stands under it.
    pub fn take(&mut self, key: &str, from: &Self) {
        self.unset(key);
        if let Some(value) = from.table.get(key) {
            self.table.insert(key.to_owned(), value.clone());
        }
        let under = |known: &str| {
            known.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        let origins = from.origins.iter().filter(|(known, _)| under(known));
        self.origins.extend(origins.map(|(known, place)| (known.clone(), place.clone())));
    }

    /// Where the value of a key comes from; `None` if nothing says anything about it.
    pub fn origin(&self, key: &str) -> Option<&str> {
        let parents = key.match_indices('.').rev().filter_map(|(at, _)| key.get(..at));
        std::iter::once(key).chain(parents).find_map(|key| self.origins.get(key)).map(String::as_str)
    }

    /// Forgets where a key and what stands under it come from.
    fn forget(&mut self, key: &str) {
        self.origins.retain(|known, _| {
            known.strip_prefix(key).is_none_or(|rest| !rest.is_empty() && !rest.starts_with('.'))
        });
    }

    /// Sets a key, which then comes from this place.
    fn set_value(&mut self, key: &str, value: Value, place: &str) -> Result<(), String> {
        let key = self.put(key, value.clone())?;
        self.forget(&key);
        leaves(&mut vec![key], &value, &mut |path, _| {
            self.origins.insert(path.join("."), place.to_owned());
        });
        Ok(())
    }

    /// Puts a value into the table, and returns the key that it has there.
    fn put(&mut self, key: &str, value: Value) -> Result<String, String> {
        let mut table = self.table.clone();
        // `cluster = "x"` is short for `strategy = "x"` under it, so what else stands there is kept.
        let key = match (key, &value, table.get("cluster")) {
            ("cluster", Value::String(_), Some(Value::Table(_))) => "cluster.strategy",
            _ => key,
        };
        let mut moved = None;
        if key.starts_with("cluster.")
            && let Some(strategy) = table.get("cluster").and_then(|written| match written {
                Value::String(strategy) => Some(strategy.clone()),
                Value::Boolean(true) => Some("auto".to_owned()),
                _ => None,
            })
        {
            let written = Table::from_iter([("strategy".to_owned(), Value::String(strategy))]);
            table.insert("cluster".to_owned(), Value::Table(written));
            moved = self.origins.get("cluster").cloned();
        }
        let mut place = &mut table;
        let (parents, last) = key.rsplit_once('.').map_or(("", key), |(parents, last)| (parents, last));
        for parent in parents.split('.').filter(|parent| !parent.is_empty()) {
            place = place
                .entry(parent)
                .or_insert_with(|| Value::Table(Table::new()))
                .as_table_mut()
                .ok_or_else(|| format!("{parent} is no table"))?;
        }
        place.insert(last.to_owned(), value);
        table.clone().try_into::<NodeConfig>().map_err(|error| error.message().replace("field", "key"))?;
        self.table = table;
        if let Some(origin) = moved {
            self.origins.remove("cluster");
            self.origins.insert("cluster.strategy".to_owned(), origin);
        }
        Ok(key.to_owned())
    }

    /// Lays `ERL_EPMD_*`, `RELEASE_*` and then `FOUNDATION_*` variables over what is there. Of the last, each key is one:
    /// `FOUNDATION_NET_TICKTIME`, `FOUNDATION_LIMITS__PEERS`.
    ///
    /// Returns the names of variables with our prefix that mean nothing, for a warning.
    ///
    /// # Errors
    /// If a variable has a value that its key cannot have.
    pub fn environment(
        &mut self,
        variables: impl Iterator<Item = (String, String)>,
    ) -> Result<Vec<String>, ConfigError> {
        // By name, so that the outcome does not depend on the order of the environment.
        let variables: BTreeMap<String, String> = variables.filter(|(_, value)| !value.is_empty()).collect();
        let get = |name: &str| variables.get(name).map(String::as_str);
        if let Some(port) = get("ERL_EPMD_PORT") {
            self.set("epmd_port", port, "ERL_EPMD_PORT")?;
        }
        for (variable, key) in
            [("RELEASE_NODE", "name"), ("RELEASE_COOKIE", "cookie"), ("FOUNDATION_NODE", "name")]
        {
            if let Some(value) = get(variable) {
                self.set_text(key, value, variable)?;
            }
        }
        if let Some(addresses) = get("ERL_EPMD_ADDRESS") {
            let list: Vec<String> =
                addresses.split(',').map(|address| format!("{:?}", address.trim())).collect();
            self.set("epmd_address", &format!("[{}]", list.join(",")), "ERL_EPMD_ADDRESS")?;
        }
        match get("RELEASE_DISTRIBUTION") {
            Some("name") => self.set("name_domain", "longnames", "RELEASE_DISTRIBUTION")?,
            Some("sname") => self.set("name_domain", "shortnames", "RELEASE_DISTRIBUTION")?,
            Some("none") => self.set("dist_listen", "false", "RELEASE_DISTRIBUTION")?,
            Some(other) => {
                return Err(ConfigError::Source {
                    place: "RELEASE_DISTRIBUTION".into(),
                    why: format!("is {other:?}, must be name, sname or none"),
                });
            }
            None => {}
        }
        let mut unknown = Vec::new();
        for (variable, value) in &variables {
            let Some(key) = variable.strip_prefix("FOUNDATION_").filter(|key| !OTHER_VARIABLES.contains(key))
            else {
                continue;
            };
            let key = key.to_lowercase().replace("__", ".");
            let set = if key == "cookie" {
                self.set_text(&key, value, variable)
            } else {
                self.set(&key, value, variable)
            };
            match set {
                Err(ConfigError::Source { why, .. }) if why.starts_with("unknown key") => {
                    unknown.push(variable.clone())
                }
                result => result?,
            }
        }
        Ok(unknown)
    }

    /// The configuration that the layers add up to.
    ///
    /// # Errors
    /// As [`NodeConfig::check`].
    pub fn finish(self) -> Result<NodeConfig, ConfigError> {
        let config: NodeConfig = self.table.try_into().map_err(|error| ConfigError::Source {
            place: "configuration".into(),
            why: error.message().to_owned(),
        })?;
        let config = config.secured()?;
        config.check()?;
        Ok(config)
    }
}

/// The line of the innermost key of a path that the text has.
fn line_of(text: &str, path: &[String]) -> usize {
    let Ok(root) = toml::de::DeTable::parse(text) else { return 1 };
    let mut table = root.get_ref();
    let mut at = 0;
    for part in path {
        let Some((key, value)) = table.iter().find(|(key, _)| key.get_ref().as_ref() == part.as_str()) else {
            break;
        };
        at = key.span().start;
        let toml::de::DeValue::Table(inner) = value.get_ref() else { break };
        table = inner;
    }
    1 + text.get(..at).map_or(0, |before| before.matches('\n').count())
}

#[cfg(test)]
mod tests;
