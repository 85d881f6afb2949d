//! The nodes that are registered with the EPMD of this host: `Cluster.Strategy.LocalEpmd` of libcluster.
//!
//! ```toml
//! [cluster]
//! strategy = "local_epmd"
//! ```
//!
//! Their names are completed with the host part of this node's own name, as `erl_epmd:names/0` leaves them to the caller.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use foundation_proto::dist::NodeName;
use serde::Deserialize;

use super::config::{Context, ms};
use super::{Candidate, Poll, SourceError};
use crate::epmd::{EpmdError, client};

/// The keys of this strategy.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Options {
    /// The pause between two questions, in milliseconds. 1,000: one exchange on the loopback interface costs some 100 µs.
    #[serde(with = "ms")]
    pub polling_interval: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { polling_interval: Duration::from_secs(1) }
    }
}

/// The strategy.
#[derive(Debug)]
pub struct LocalEpmd {
    options: Options,
    epmd_port: u16,
    host: String,
}

impl LocalEpmd {
    /// The strategy for a node.
    pub fn new(options: Options, context: &Context) -> Self {
        Self { options, epmd_port: context.epmd_port, host: context.own.host().to_owned() }
    }
}

impl Poll for LocalEpmd {
    fn interval(&self) -> Duration {
        self.options.polling_interval
    }

    async fn poll(&self) -> Result<Vec<Candidate>, SourceError> {
        let v4 = IpAddr::V4(Ipv4Addr::LOCALHOST);
        match names_at(v4, self.epmd_port, &self.host).await {
            Err(EpmdError::Unreachable { .. }) => {
                names_at(IpAddr::V6(Ipv6Addr::LOCALHOST), self.epmd_port, &self.host).await
            }
            answer => answer,
        }
        .map_err(|error| SourceError::new(format!("the epmd of this host: {error}")))
    }
}

/// The nodes that the EPMD at an address knows, as nodes of `host`.
pub(super) async fn names_at(ip: IpAddr, port: u16, host: &str) -> Result<Vec<Candidate>, EpmdError> {
    let answer = client::names(SocketAddr::new(ip, port)).await?;
    let nodes = answer.nodes.iter().filter_map(|(alive, port)| {
        // What cannot be a name of a node cannot be dialled either.
        let node = NodeName::new(alive, host).ok()?;
        Some(Candidate {
            addresses: vec![ip],
            // A node that was started anew listens on another port.
            stamp: u64::from(*port),
            ..Candidate::new(node, format!("registered with the epmd of {host}, port {port}"))
        })
    });
    Ok(nodes.collect())
}
