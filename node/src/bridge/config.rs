//! `[clusters.NAME]`: the clusters that one process is in.

use std::collections::BTreeMap;

use foundation_proto::dist::{Cookie, NameStyle, NodeName};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use toml::{Table, Value};

use crate::config::{NameDomain, NodeConfig};
use crate::discovery::ClusterConfig;

/// Clusters of one process: each has a node with its own sockets.
const MAX_CLUSTERS: usize = 16;

/// The clusters by name.
pub type Clusters = BTreeMap<String, NamedCluster>;

/// A cluster, and who this process is there.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct NamedCluster {
    /// The name of the node there. Default: that of the configuration with `_` and the cluster's name before the `@`.
    pub node: Option<String>,
    /// The cookie there. Default: that of the configuration.
    pub cookie: Option<Cookie>,
    /// How the others are found.
    pub cluster: ClusterConfig,
}

impl NamedCluster {
    /// A cluster that is found so, with the cookie of the configuration.
    pub fn new(cluster: ClusterConfig) -> Self {
        Self { node: None, cookie: None, cluster }
    }

    /// What the node in this cluster is started with.
    pub(super) fn config(self, name: &str, base: &NodeName, config: &NodeConfig) -> NodeConfig {
        let mut config = config.clone();
        config.name_domain.get_or_insert(match base.style() {
            NameStyle::Short => NameDomain::ShortNames,
            NameStyle::Long => NameDomain::LongNames,
        });
        config.name = Some(self.node.unwrap_or_else(|| format!("{}_{name}@{}", base.alive(), base.host())));
        // A visible node would bring the nodes of its cluster into the mesh of this process's peers.
        config.hidden = true;
        if self.cookie.is_some() {
            config.cookie = self.cookie;
            config.cookie_file = None;
        }
        config.cluster = self.cluster;
        config.cluster.name.get_or_insert_with(|| name.to_owned());
        config
    }
}

/// Reads the tables under `clusters`.
pub(crate) fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Clusters, D::Error> {
    let written = Table::deserialize(deserializer)?;
    if written.len() > MAX_CLUSTERS {
        return Err(D::Error::custom(format!("there may be {MAX_CLUSTERS} clusters")));
    }
    written
        .into_iter()
        .map(|(name, value)| {
            let cluster =
                cluster(&name, value).map_err(|why| D::Error::custom(format!("clusters.{name}: {why}")))?;
            Ok((name, cluster))
        })
        .collect()
}

fn cluster(name: &str, value: Value) -> Result<NamedCluster, String> {
    if NodeName::new(name, "h").is_err() || name.len() > 64 {
        return Err("the name of a cluster stands in the name of a node, so it has letters, digits, _ and -"
            .to_owned());
    }
    let mut table = match value {
        Value::Table(table) => table,
        short => return Ok(NamedCluster::new(ClusterConfig::from_value(&short).map_err(|m| m.to_string())?)),
    };
    let node = match table.remove("node") {
        None => None,
        Some(Value::String(node)) => Some(node),
        Some(_) => return Err("node must be a string".to_owned()),
    };
    let cookie = table.remove("erlang_cookie").map(|value| crate::config::cookie_of(&value)).transpose()?;
    let cluster = ClusterConfig::from_value(&Value::Table(table)).map_err(|mut mistake| {
        // It reads a table that is called `cluster` elsewhere.
        if let Some(first) = mistake.key.first_mut() {
            *first = format!("clusters.{name}");
        }
        mistake.to_string()
    })?;
    Ok(NamedCluster { node, cookie, cluster })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Layers;

    fn finish(text: &str) -> Result<NodeConfig, String> {
        let mut layers = Layers::new();
        layers.text(text, "f.toml").map_err(|error| error.to_string())?;
        layers.finish().map_err(|error| error.to_string())
    }

    #[test]
    fn each_cluster_has_its_own_name_cookie_and_strategy() {
        let config = finish(
            "name = 'bridge@10.0.0.5'\ncookie = 'all'\n[clusters]\nplain = 'local_epmd'\n[clusters.app]\nstrategy = 'static'\n\
             hosts = ['a@10.0.0.1']\n[clusters.ai]\nstrategy = 'local_epmd'\nerlang_cookie = 'other'\nnode = 'x@10.0.0.5'\n",
        )
        .unwrap();
        let base = NodeName::parse("bridge@10.0.0.5").unwrap();
        let of = |name: &str| config.clusters[name].clone().config(name, &base, &config);
        let (app, ai, plain) = (of("app"), of("ai"), of("plain"));
        assert_eq!(app.name.as_deref(), Some("bridge_app@10.0.0.5"));
        assert_eq!(ai.name.as_deref(), Some("x@10.0.0.5"));
        assert_eq!((app.cookie, ai.cookie), (Cookie::new("all").ok(), Cookie::new("other").ok()));
        assert_eq!(app.cluster.name.as_deref(), Some("app"));
        assert_eq!(plain.cluster.sources.len(), 1);
        assert!(app.hidden && !format!("{config:?}").contains("other"));
    }

    #[test]
    fn mistakes_name_the_cluster() {
        for (text, words) in [
            ("[clusters.ai]\nstrategy = 'moon'", "clusters.ai.strategy"),
            ("[clusters.ai]\nstrategy = 'gossip'\nports = 1", "clusters.ai.ports"),
            ("[clusters.ai]\nnode = 1", "clusters.ai: node"),
            ("[clusters.ai]\nerlang_cookie = { system = 'NO_SUCH_VARIABLE_HERE' }", "NO_SUCH_VARIABLE_HERE"),
            ("[clusters.'a@b']\nstrategy = 'gossip'", "name of a cluster"),
        ] {
            let error = finish(text).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
