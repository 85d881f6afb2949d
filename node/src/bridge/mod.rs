//! Several named clusters in one process: one identity in each, and a bridge between them.
//!
//! ```toml
//! name = "bridge@10.0.0.5"
//! [clusters.app]                          # here it is bridge_app@10.0.0.5
//! strategy = "kubernetes"
//! erlang_cookie = { system = "APP_COOKIE" }
//! [clusters.ai]                           # and here bridge_ai@10.0.0.5
//! strategy = "dns"
//! query = "ai.internal"
//! erlang_cookie = { system = "AI_COOKIE" }
//! ```
//!
//! Each identity is a hidden node of its own, with its own cookie and its own way to find the others; the nodes of one cluster never
//! connect to those of another, and need not know their cookie. What passes is what the bridge is asked to pass:
//!
//! | asked of the process `foundation_bridge` by `gen_server:call/2` | answer |
//! |---|---|
//! | `{send_to_cluster, Cluster, Service, Message}` | `ok`, once the message is on its way to all instances; `{error, Reason}`. As a cast: no answer |
//! | `{discover_services, Cluster, Service}`, or without `Service` | `{ok, [#{cluster, name, node, capabilities, metadata, registered_at}]}` |
//! | `clusters` | `{ok, [Cluster]}` |
//!
//! Reasons are `{unknown_cluster, Cluster}`, `service_not_found` and `badarg`.
//!
//! A service is what `Foundation.ServiceMesh` has under that name, or else a group of that name in OTP's own scope of `pg`. The bridge registers
//! itself in the mesh of each cluster as `foundation_bridge`, with the names of the other clusters as its capabilities, so that it is
//! found like any other service. Delivery is at most once, as of `erlang:send/2`. Pids in what passes lead nowhere on the other side.

mod config;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::{SystemTime, UNIX_EPOCH};

use foundation_proto::etf::{Atom, Map, Pid, RawTerm, Term};
use tracing::{debug, info};

pub(crate) use self::config::read;
pub use self::config::{Clusters, NamedCluster};
use crate::config::NodeConfig;
use crate::error::Error;
use crate::gen_server::{CallFrom, CallOutcome, GenServer, Next};
use crate::net::StartError;
use crate::net::endpoint::own_name;
use crate::node::Node;
use crate::process::Process;
use crate::service::pg::Groups;

/// The name of the process that others ask, and of the service.
pub const NAME: &str = "foundation_bridge";
/// The scope of the services of the Elixir library.
const MESH: &str = "Elixir.Foundation.ServiceMesh";
/// The scope of plain groups.
const PG: &str = "pg";
/// Services in one answer. Whoever has more asks for one by its name.
const MAX_SERVICES: usize = 1000;

/// One node in each of several clusters.
#[derive(Clone, Debug)]
pub struct Bridge {
    clusters: Arc<BTreeMap<String, Joined>>,
}

#[derive(Debug)]
struct Joined {
    node: Node,
    mesh: Groups,
    groups: Groups,
}

/// An instance of a service in another cluster.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Service {
    /// Its name.
    pub name: Term,
    /// The process.
    pub pid: Pid,
    /// What it says that it can do.
    pub capabilities: Term,
    /// What else it says.
    pub metadata: Term,
    /// When it was registered, in milliseconds since 1970 by the clock of its node; 0 for a plain group.
    pub registered_at: i64,
}

/// Why a bridge does not start, or cannot pass something on.
#[derive(Debug)]
#[non_exhaustive]
pub enum BridgeError {
    /// The node in this cluster cannot be started.
    Start {
        /// The cluster.
        cluster: String,
        /// Why.
        error: Box<StartError>,
    },
    /// There is no cluster of this name.
    UnknownCluster {
        /// The name.
        cluster: String,
        /// Those that there are.
        known: Vec<String>,
    },
    /// Nobody offers this service there.
    ServiceNotFound,
    /// The node in that cluster cannot send.
    Node(Error),
}

impl fmt::Display for BridgeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start { cluster, error } => write!(f, "the node in the cluster {cluster}: {error}"),
            Self::UnknownCluster { cluster, known } => {
                write!(f, "there is no cluster {cluster:?}; there are {}", known.join(", "))
            }
            Self::ServiceNotFound => f.write_str("nobody offers this service in that cluster"),
            Self::Node(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for BridgeError {}

impl From<Error> for BridgeError {
    fn from(error: Error) -> Self {
        Self::Node(error)
    }
}

impl Bridge {
    /// Starts a node in each of `config.clusters`; every other key holds for all of them.
    ///
    /// # Errors
    /// If one of them cannot be started; then none runs.
    pub async fn start(mut config: NodeConfig) -> Result<Self, BridgeError> {
        let clusters = std::mem::take(&mut config.clusters);
        let failed =
            |cluster: &str, error| BridgeError::Start { cluster: cluster.to_owned(), error: Box::new(error) };
        let base = own_name(&config).map_err(|error| failed("(all)", error))?;
        let mut joined = BTreeMap::new();
        for (name, cluster) in clusters {
            let node = match Node::start(cluster.config(&name, &base, &config)).await {
                Ok(node) => node,
                Err(error) => {
                    Self { clusters: Arc::new(joined) }.stop().await;
                    return Err(failed(&name, error));
                }
            };
            let (mesh, groups) = (node.groups(MESH)?, node.groups(PG)?);
            info!(cluster = name, "bridge: {} is in this cluster", node.name().as_str());
            joined.insert(name, Joined { node, mesh, groups });
        }
        let bridge = Self { clusters: Arc::new(joined) };
        for (name, joined) in bridge.clusters.iter() {
            bridge.serve(name, joined).await?;
        }
        Ok(bridge)
    }

    /// Lets others ask this node.
    async fn serve(&self, name: &str, joined: &Joined) -> Result<(), Error> {
        let server = Server { clusters: Arc::downgrade(&self.clusters) };
        let server = joined.node.start_server(Some(NAME), server)?;
        let others = self.clusters.keys().filter(|other| *other != name);
        let others = others.filter_map(|other| Atom::new(other).ok()).map(Term::Atom);
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let group = Term::tuple([
            Term::atom("service"),
            Term::atom(NAME),
            Term::list(others),
            Term::Map(Map::default()),
            Term::from(since.as_millis() as u64),
        ]);
        joined.mesh.join(&group, server.pid()).await
    }

    /// The names of the clusters, in order.
    pub fn clusters(&self) -> impl Iterator<Item = &str> {
        self.clusters.keys().map(String::as_str)
    }

    /// The node in a cluster.
    pub fn node(&self, cluster: &str) -> Option<&Node> {
        self.clusters.get(cluster).map(|joined| &joined.node)
    }

    /// The services of a cluster, or those of one name, as far as they are known here.
    ///
    /// # Errors
    /// [`BridgeError::UnknownCluster`].
    pub fn discover_services(&self, cluster: &str, name: Option<&Term>) -> Result<Vec<Service>, BridgeError> {
        services(&self.clusters, cluster, name)
    }

    /// Sends to all instances of a service in a cluster, and says how many there were.
    ///
    /// # Errors
    /// [`BridgeError::UnknownCluster`], [`BridgeError::ServiceNotFound`], [`BridgeError::Node`].
    pub async fn send_to_cluster(
        &self,
        cluster: &str,
        service: &Term,
        message: &Term,
    ) -> Result<usize, BridgeError> {
        send(&self.clusters, cluster, service, message).await
    }

    /// Stops all nodes.
    pub async fn stop(&self) {
        for joined in self.clusters.values() {
            joined.node.stop().await;
        }
    }
}

fn lookup<'a>(clusters: &'a BTreeMap<String, Joined>, cluster: &str) -> Result<&'a Joined, BridgeError> {
    clusters.get(cluster).ok_or_else(|| BridgeError::UnknownCluster {
        cluster: cluster.to_owned(),
        known: clusters.keys().cloned().collect(),
    })
}

fn services(
    clusters: &BTreeMap<String, Joined>,
    cluster: &str,
    name: Option<&Term>,
) -> Result<Vec<Service>, BridgeError> {
    let joined = lookup(clusters, cluster)?;
    let mut found = Vec::new();
    for group in joined.mesh.which_groups() {
        let [tag, of, capabilities, metadata, registered_at] = group.as_tuple().unwrap_or_default() else {
            continue;
        };
        if !tag.is_atom("service") || of.is_atom(NAME) || name.is_some_and(|name| name != of) {
            continue;
        }
        for pid in joined.mesh.members(&group) {
            found.push(Service {
                name: of.clone(),
                pid,
                capabilities: capabilities.clone(),
                metadata: metadata.clone(),
                registered_at: registered_at.as_i64().unwrap_or(0),
            });
        }
    }
    let plain = |group: &Term| {
        joined
            .groups
            .members(group)
            .into_iter()
            .map(|pid| Service {
                name: group.clone(),
                pid,
                capabilities: Term::list([]),
                metadata: Term::Map(Map::default()),
                registered_at: 0,
            })
            .collect::<Vec<_>>()
    };
    match name {
        // One in the mesh is the one that is meant.
        Some(name) if found.is_empty() => found.extend(plain(name)),
        Some(_) => {}
        None => {
            for group in joined.groups.which_groups() {
                found.extend(plain(&group));
            }
        }
    }
    found.sort_by(|one, other| {
        one.registered_at
            .cmp(&other.registered_at)
            .then_with(|| one.pid.node.as_str().cmp(other.pid.node.as_str()))
    });
    Ok(found)
}

async fn send(
    clusters: &BTreeMap<String, Joined>,
    cluster: &str,
    service: &Term,
    message: &Term,
) -> Result<usize, BridgeError> {
    let instances = services(clusters, cluster, Some(service))?;
    if instances.is_empty() {
        return Err(BridgeError::ServiceNotFound);
    }
    let node = &lookup(clusters, cluster)?.node;
    let message = RawTerm::from_term(message).map_err(Error::Term)?;
    for instance in &instances {
        node.send_raw(&instance.pid, message.clone()).await?;
    }
    Ok(instances.len())
}

/// What the nodes of a cluster ask.
struct Server {
    clusters: Weak<BTreeMap<String, Joined>>,
}

impl GenServer for Server {
    type Call = Term;
    type Reply = Term;
    type Cast = Term;

    async fn handle_call(&mut self, request: Term, _: CallFrom, _: &mut Process) -> CallOutcome<Term> {
        CallOutcome::Reply(self.answer(&request).await)
    }

    async fn handle_cast(&mut self, request: Term, _: &mut Process) -> Next {
        let answer = self.answer(&request).await;
        if !answer.is_atom("ok") {
            debug!(?answer, "bridge: a cast could not be passed on");
        }
        Next::Continue
    }
}

fn error(reason: Term) -> Term {
    Term::tuple([Term::atom("error"), reason])
}

fn refused(error_of: &BridgeError) -> Term {
    match error_of {
        BridgeError::UnknownCluster { cluster, .. } => {
            let cluster = Atom::new(cluster).map_or_else(|_| Term::atom("undefined"), Term::Atom);
            error(Term::tuple([Term::atom("unknown_cluster"), cluster]))
        }
        BridgeError::ServiceNotFound => error(Term::atom("service_not_found")),
        other => error(Term::binary(other.to_string().as_bytes())),
    }
}

impl Server {
    async fn answer(&self, request: &Term) -> Term {
        let Some(clusters) = self.clusters.upgrade() else { return error(Term::atom("noproc")) };
        let done = match request.as_tuple().unwrap_or_default() {
            [tag, cluster, service, message] if tag.is_atom("send_to_cluster") => match name(cluster) {
                Some(cluster) => send(&clusters, cluster, service, message).await.map(|_| Term::atom("ok")),
                None => return error(Term::atom("badarg")),
            },
            [tag, cluster, rest @ ..] if tag.is_atom("discover_services") && rest.len() < 2 => {
                match name(cluster) {
                    Some(cluster) => {
                        services(&clusters, cluster, rest.first()).map(|found| listed(cluster, &found))
                    }
                    None => return error(Term::atom("badarg")),
                }
            }
            _ if request.is_atom("clusters") => {
                let names = clusters.keys().filter_map(|name| Atom::new(name).ok()).map(Term::Atom);
                Ok(Term::tuple([Term::atom("ok"), Term::list(names)]))
            }
            _ => return error(Term::atom("badarg")),
        };
        done.unwrap_or_else(|error| refused(&error))
    }
}

/// The name of a cluster: an atom, or a string.
fn name(term: &Term) -> Option<&str> {
    term.as_atom().map(Atom::as_str).or_else(|| term.as_str())
}

/// Services as those of another cluster are told of them: without pids, which lead nowhere there.
fn listed(cluster: &str, found: &[Service]) -> Term {
    let cluster = Atom::new(cluster).map_or_else(|_| Term::atom("undefined"), Term::Atom);
    let service = |service: &Service| {
        let pairs = vec![
            (Term::atom("cluster"), cluster.clone()),
            (Term::atom("name"), service.name.clone()),
            (Term::atom("node"), Term::Atom(service.pid.node.clone())),
            (Term::atom("capabilities"), service.capabilities.clone()),
            (Term::atom("metadata"), service.metadata.clone()),
            (Term::atom("registered_at"), Term::from(service.registered_at)),
        ];
        // The keys are all different.
        Map::from_pairs(pairs).map_or_else(|_| Term::list([]), Term::Map)
    };
    Term::tuple([Term::atom("ok"), Term::list(found.iter().take(MAX_SERVICES).map(service))])
}
