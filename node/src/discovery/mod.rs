//! Finding the other nodes of a cluster, and connecting to them.
//!
//! A [`Strategy`] is a source: it reports [`Candidate`]s, with what it has seen as evidence, or that it failed. What
//! follows from the reports is decided in one place for all of them, by the machine in [`foundation_cluster::discovery`],
//! whose rules stand there: an error is no empty answer, nobody alive is disconnected because a source is sick, each source
//! owns the nodes it named, and a name from a source that anybody can write to is dialled only if it is allowed.
//!
//! | module | strategy | `strategy =` | in libcluster |
//! |---|---|---|---|
//! | [`static_hosts`] | nodes written out | `static` | `Cluster.Strategy.Epmd` |
//! | [`local_epmd`] | the EPMD of this host | `local_epmd` | `Cluster.Strategy.LocalEpmd` |
//! | [`erlang_hosts`] | the EPMDs of the hosts in `.hosts.erlang` | `erlang_hosts` | `Cluster.Strategy.ErlangHosts` |
//! | [`gossip`] | heartbeats over multicast | `gossip` | `Cluster.Strategy.Gossip` |
//! | `mdns` (feature `mdns`) | the local link, by multicast DNS | `mdns` | |
//! | `kubernetes` (feature `kubernetes`) | pods and endpoints, by the API of Kubernetes | `kubernetes` | `Cluster.Strategy.Kubernetes` |
//! | `consul` (feature `consul`) | instances of a service, by Consul | `consul` | libcluster_consul's `Cluster.Strategy.Consul` |
//! | `aws::ec2` (feature `cloud`) | instances of EC2, by their tags | `ec2`, `aws` | libcluster_ec2's `ClusterEC2.Strategy.Tags` |
//! | `aws::ecs` | tasks of ECS | `ecs`, `aws` in a task | libcluster_ecs's `ClusterEcs.Strategy` |
//! | `gcp` (feature `cloud`) | instances of Google Compute Engine, by their labels | `gcp` | |
//! | `rancher` (feature `cloud`) | containers of a service of Rancher 1.x | `rancher` | `Cluster.Strategy.Rancher` |
//! | `postgres` (feature `postgres`) | heartbeats through PostgreSQL | `postgres` | libcluster_postgres's `LibclusterPostgres.Strategy` |
//! | `dns` (feature `dns`) | addresses in DNS | `dns` | `Cluster.Strategy.DNSPoll`, `DNSCluster` |
//! | `dns` | headless services of Kubernetes | `kubernetes_dns`, `kubernetes_dns_srv` | `Cluster.Strategy.Kubernetes.DNS`, `….DNSSRV` |
//!
//! [`config`] reads `[cluster]`, [`auto`] looks at the environment, [`mod@survey`] looks without dialling, [`engine`] runs sources and carries out what the machine
//! decides, [`event`] is what others see of it, [`introduce`] makes BEAM nodes known to each other, [`companion`] does the same for an Elixir node, [`terms`] reads configurations as Erlang has them.
//!
//! # A strategy of one's own
//! ```
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! use foundation_node::discovery::{Candidate, Poll, Polling, SourceError, Strategy};
//!
//! /// Node names, one a line, in a file that somebody else keeps.
//! struct NodesFile(std::path::PathBuf);
//!
//! impl Poll for NodesFile {
//!     fn interval(&self) -> Duration {
//!         Duration::from_secs(5)
//!     }
//!
//!     async fn poll(&self) -> Result<Vec<Candidate>, SourceError> {
//!         let text = std::fs::read_to_string(&self.0).map_err(|error| SourceError::new(error.to_string()))?;
//!         let nodes = text.lines().map(str::parse).collect::<Result<Vec<_>, _>>();
//!         let nodes = nodes.map_err(|error| SourceError::new(format!("{}: {error}", self.0.display())))?;
//!         Ok(nodes.into_iter().map(|node| Candidate::new(node, self.0.display().to_string())).collect())
//!     }
//! }
//!
//! # fn build() {
//! let strategy: Arc<dyn Strategy> = Arc::new(Polling(NodesFile("nodes.txt".into())));
//! // `node.discover("nodes_file", strategy)` runs it beside the configured ones.
//! # let _ = strategy;
//! # }
//! ```

pub mod auto;
#[cfg(feature = "cloud")]
pub mod aws;
pub mod companion;
pub mod config;
#[cfg(feature = "consul")]
pub mod consul;
mod default_name;
#[cfg(feature = "dns")]
pub mod dns;
pub mod engine;
pub mod erlang_hosts;
pub mod event;
#[cfg(feature = "cloud")]
pub mod gcp;
pub mod gossip;
mod heard;
#[cfg(feature = "http")]
mod http;
pub mod introduce;
#[cfg(feature = "kubernetes")]
pub mod kubernetes;
pub mod local_epmd;
#[cfg(feature = "mdns")]
pub mod mdns;
mod polling;
#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(feature = "cloud")]
pub mod rancher;
mod sources;
pub mod static_hosts;
pub mod survey;
#[cfg(feature = "cloud")]
pub mod template;
pub mod terms;

#[cfg(any(feature = "cloud", feature = "kubernetes"))]
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

pub use config::ClusterConfig;
pub(crate) use default_name::default_name;
pub use engine::Source;
pub use event::{DiscoveryEvent, DiscoveryEvents};
pub use foundation_cluster::discovery::{AllowList, Candidate, Prune, Trust};
use foundation_cluster::discovery::{Event, SourceId};
use foundation_proto::dist::NodeName;
pub use polling::{Poll, Polling};
use tokio::sync::mpsc;

/// A source of candidates.
///
/// It runs until it is dropped; what has to be tidied up then belongs into a `Drop`. It may be run again after that.
/// Strategies that ask again and again implement [`Poll`] instead.
pub trait Strategy: Send + Sync + 'static {
    /// Reports what there is, for as long as there may be more.
    fn run(self: Arc<Self>, reports: Reports) -> Running;

    /// Takes back what others were told of this node, once it stops and `run` was dropped. It has two seconds.
    fn stop(self: Arc<Self>) -> Running {
        Box::pin(std::future::ready(()))
    }
}

/// A source at work.
pub type Running = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Each node once, in the order of their names. What is named twice is leaving, or not ready, only if everything that names it says so.
#[cfg(any(feature = "cloud", feature = "kubernetes"))]
fn once_each(candidates: impl IntoIterator<Item = Candidate>) -> Vec<Candidate> {
    let mut nodes: BTreeMap<NodeName, Candidate> = BTreeMap::new();
    for candidate in candidates {
        match nodes.get_mut(&candidate.node) {
            Some(known) => {
                known.leaving &= candidate.leaving;
                known.unready &= candidate.unready;
            }
            None => {
                nodes.insert(candidate.node.clone(), candidate);
            }
        }
    }
    nodes.into_values().collect()
}

/// Why a source has no answer. The text says what was asked, what came, and how to mend it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SourceError(String);

impl SourceError {
    /// An error with this text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for SourceError {}

/// Where a source reports to. Reporting waits while the reports before have not been taken.
#[derive(Clone, Debug)]
pub struct Reports {
    source: SourceId,
    sender: mpsc::Sender<Event>,
}

impl Reports {
    pub(crate) fn new(source: SourceId, sender: mpsc::Sender<Event>) -> Self {
        Self { source, sender }
    }

    /// A complete answer: these are all nodes there are. A node that is missing often enough is given up.
    pub async fn found(&self, candidates: Vec<Candidate>) {
        self.send(Event::Answer { source: self.source, candidates }).await;
    }

    /// This node is there; others are not spoken of.
    pub async fn seen(&self, candidate: Candidate) {
        self.send(Event::Seen { source: self.source, candidate }).await;
    }

    /// The source was told that this node is gone.
    pub async fn gone(&self, node: NodeName) {
        self.send(Event::Gone { source: self.source, node }).await;
    }

    /// There is no answer. What was reported before stands.
    pub async fn failed(&self, error: SourceError) {
        self.send(Event::Failed { source: self.source, why: error.0 }).await;
    }

    async fn send(&self, event: Event) {
        // Nobody listens to a source that is being stopped.
        let _ = self.sender.send(event).await;
    }
}
