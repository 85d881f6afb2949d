//! Nodes that are written out: `Cluster.Strategy.Epmd` of libcluster.
//!
//! ```toml
//! [cluster]
//! strategy = "static"
//! hosts = ["a@10.0.0.1", "b@10.0.0.2"]
//! ```

use std::sync::Arc;

use foundation_proto::dist::NodeName;
use serde::Deserialize;

use super::config::ms;
use super::{Candidate, Reports, Running, Strategy};

/// The keys of this strategy.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Options {
    /// The nodes.
    #[serde(alias = "nodes", deserialize_with = "super::config::node_names")]
    pub hosts: Vec<NodeName>,
    /// libcluster's pause between two attempts; here each node has its own.
    #[serde(default, deserialize_with = "ms::optional")]
    pub timeout: Option<std::time::Duration>,
}

/// The strategy.
#[derive(Debug)]
pub struct StaticHosts(pub Options);

impl Strategy for StaticHosts {
    fn run(self: Arc<Self>, reports: Reports) -> Running {
        Box::pin(async move {
            let hosts = self.0.hosts.iter().cloned();
            reports
                .found(hosts.map(|node| Candidate::new(node, "written in the configuration")).collect())
                .await;
            std::future::pending().await
        })
    }
}
