//! `[cluster]`: which sources there are, in three tiers.
//!
//! ```toml
//! cluster = true                # look at the environment and choose
//! ```
//! ```toml
//! cluster = "local_epmd"        # one strategy with its defaults
//! ```
//! ```toml
//! [cluster]                     # one strategy and its keys
//! strategy = "static"
//! hosts = ["a@10.0.0.1", "b@10.0.0.2"]
//! ```
//! ```toml
//! [cluster]                     # several at once, keys in tables of their own
//! strategy = ["static", "local_epmd"]
//! allow = ["10.0.0.0/8"]
//! [cluster.static]
//! hosts = ["a@10.0.0.1"]
//! ```
//! ```toml
//! [cluster.topologies.office]   # libcluster's topologies, with libcluster's names
//! strategy = "Cluster.Strategy.Epmd"
//! config = { hosts = ["a@10.0.0.1"] }
//! ```
//!
//! ```toml
//! [cluster]                     # the same as libcluster has it, in Erlang's or Elixir's syntax; a sys.config will do
//! topologies = """[office: [strategy: Cluster.Strategy.Epmd, config: [hosts: [:"a@10.0.0.1"]]]]"""
//! ```
//! ```toml
//! [cluster]
//! topologies = { file = "releases/sys.config" }
//! ```
//!
//! A value `{ system = "VAR" }` is that of an environment variable, as `{:system, "VAR"}` in Elixir.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::Path;

use foundation_cluster::discovery::{AllowList, Prune};
use foundation_proto::dist::NodeName;
use serde::{Deserialize, Deserializer};
use toml::{Table, Value};

#[cfg(feature = "cloud")]
use super::aws::{ec2, ecs};
#[cfg(feature = "consul")]
use super::consul;
#[cfg(feature = "dns")]
use super::dns;
#[cfg(feature = "cloud")]
use super::gcp;
use super::introduce::{self, Introduce};
#[cfg(feature = "kubernetes")]
use super::kubernetes;
#[cfg(feature = "mdns")]
use super::mdns;
#[cfg(feature = "postgres")]
use super::postgres;
#[cfg(feature = "cloud")]
use super::rancher;
use super::{erlang_hosts, gossip, local_epmd, static_hosts, terms};

/// The most nodes that one source can name, unless it says otherwise. What a directory of a cluster holds.
pub const MAX_NODES: usize = 4096;
/// The same for a source that anybody on the network can write to.
pub const MAX_OPEN_NODES: usize = 256;

/// What `[cluster]` says.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ClusterConfig {
    /// How sources are chosen.
    pub mode: Mode,
    /// What the cluster is called in reports (`cluster_id`). Default: the first part of this node's name.
    pub name: Option<String>,
    /// What may be dialled whichever source names it, as [`AllowList`] reads it.
    pub allow: Vec<String>,
    /// Nodes to stay connected to, beside whatever the sources find.
    pub join: Vec<NodeName>,
    /// Whether this is a developer's machine. Default: what the environment shows.
    pub profile: Option<Profile>,
    /// Whether the nodes that are found are told to connect to each other, and how. Off.
    pub introduce: Option<Introduce>,
    /// The sources, if they are written out.
    pub sources: Vec<SourceConfig>,
}

/// What stands for settings that are not given.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Profile {
    /// A developer's machine: what its network announces may be dialled.
    Development,
    /// None.
    Production,
}

impl Profile {
    fn read(text: &str) -> Result<Self, Mistake> {
        match text.trim_start_matches(':') {
            "development" => Ok(Self::Development),
            "production" => Ok(Self::Production),
            "enterprise" => Err(Mistake::new(
                &["profile"],
                "enterprise is for several clusters, which are written under [clusters.NAME]; a profile may be development or production",
            )),
            _ => Err(Mistake::new(&["profile"], format!("is {text:?}, must be development or production"))),
        }
    }

    /// What it says of this machine, as [`Environment::said`](super::auto::Environment::said) has it.
    pub(super) fn said(self) -> Result<String, String> {
        match self {
            Self::Development => Ok("profile = development".to_owned()),
            Self::Production => Err("profile = production".to_owned()),
        }
    }
}

/// How sources are chosen.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Mode {
    /// There are none. The default of programs.
    #[default]
    Off,
    /// As [`Mode::Auto`], but in no development environment only what the environment asks for. The default of
    /// `foundation start`.
    Environment,
    /// By what the environment offers; on a developer's machine the nodes of this machine and its network.
    Auto,
    /// Those that are written out.
    Written,
}

/// A source as it is written.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SourceConfig {
    /// Its name in reports.
    pub name: String,
    /// The strategy and its keys.
    pub strategy: StrategyConfig,
    /// What happens to nodes that no source names any more.
    pub prune: Option<Prune>,
    /// Its place in the order of failover.
    pub rank: usize,
    /// The most nodes that it can name.
    pub max_nodes: Option<usize>,
}

/// A strategy and its keys.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum StrategyConfig {
    /// Nodes written out.
    Static(static_hosts::Options),
    /// The EPMD of this host.
    LocalEpmd(local_epmd::Options),
    /// The hosts of `.hosts.erlang`.
    ErlangHosts(erlang_hosts::Options),
    /// Heartbeats over multicast.
    Gossip(gossip::Options),
    /// Announcements and answers on the local link.
    #[cfg(feature = "mdns")]
    Mdns(mdns::Options),
    /// Consul's API.
    #[cfg(feature = "consul")]
    Consul(consul::Options),
    /// The API of Kubernetes.
    #[cfg(feature = "kubernetes")]
    Kubernetes(kubernetes::Options),
    /// Instances of EC2.
    #[cfg(feature = "cloud")]
    Ec2(ec2::Options),
    /// Tasks of ECS.
    #[cfg(feature = "cloud")]
    Ecs(ecs::Options),
    /// Instances of Google Compute Engine.
    #[cfg(feature = "cloud")]
    Gcp(gcp::Options),
    /// Containers of Rancher 1.x.
    #[cfg(feature = "cloud")]
    Rancher(rancher::Options),
    /// Heartbeats through PostgreSQL.
    #[cfg(feature = "postgres")]
    Postgres(postgres::Options),
    /// Addresses in DNS.
    #[cfg(feature = "dns")]
    Dns(dns::Options),
    /// A headless service of Kubernetes, by its addresses in DNS.
    #[cfg(feature = "dns")]
    KubernetesDns(dns::KubernetesOptions),
    /// A headless service of Kubernetes, by its services in DNS.
    #[cfg(feature = "dns")]
    KubernetesDnsSrv(dns::KubernetesSrvOptions),
}

/// What strategies know of the node they work for.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Context {
    /// Its name.
    pub own: NodeName,
    /// The port of EPMD.
    pub epmd_port: u16,
    /// Whether it is registered with an EPMD.
    pub uses_epmd: bool,
    /// Where it listens; empty if it does not.
    pub listens: Vec<SocketAddr>,
    /// What its cluster is called, if that is written.
    pub cluster: Option<String>,
}

impl Context {
    /// A node that an EPMD knows and that listens nowhere.
    pub fn new(own: NodeName, epmd_port: u16) -> Self {
        Self { own, epmd_port, uses_epmd: true, listens: Vec::new(), cluster: None }
    }
}

/// A key of `[cluster]` that cannot be used.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Mistake {
    /// The key, from `cluster` on.
    pub key: Vec<String>,
    /// What is wrong, and what would be right.
    pub why: String,
}

impl Mistake {
    pub(super) fn new(key: &[&str], why: impl Into<String>) -> Self {
        Self { key: key.iter().map(|part| (*part).to_owned()).collect(), why: why.into() }
    }

    pub(super) fn under(mut self, parents: &[&str]) -> Self {
        self.key.splice(0..0, parents.iter().map(|part| (*part).to_owned()));
        self
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (at {})", self.why, self.key.join("."))
    }
}

/// The keys that are not those of a strategy.
const OWN_KEYS: [&str; 12] = [
    "strategy",
    "profile",
    "name",
    "join",
    "introduce",
    "allow",
    "topologies",
    "failover",
    "primary",
    "secondary",
    "prune",
    "max_nodes",
];

/// Our name of each strategy, and those that other texts have for it.
const STRATEGIES: &[(&str, &[&str])] = &[
    ("static", &["epmd"]),
    ("local_epmd", &["localepmd"]),
    ("erlang_hosts", &["erlanghosts"]),
    ("gossip", &[]),
    #[cfg(feature = "mdns")]
    ("mdns", &["mdnslite", "mdns_lite"]),
    #[cfg(feature = "consul")]
    ("consul", &[]),
    #[cfg(feature = "kubernetes")]
    ("kubernetes", &[]),
    #[cfg(feature = "cloud")]
    ("ec2", &["aws_ec2", "ec2.tags", "clusterec2.strategy.tags"]),
    #[cfg(feature = "cloud")]
    ("ecs", &["aws_ecs", "clusterecs.strategy"]),
    #[cfg(feature = "cloud")]
    ("gcp", &["gce", "gce.labels"]),
    #[cfg(feature = "cloud")]
    ("rancher", &[]),
    #[cfg(feature = "postgres")]
    ("postgres", &["postgresql", "libclusterpostgres.strategy"]),
    #[cfg(feature = "dns")]
    ("dns", &["dnspoll", "dns_cluster", "dnscluster"]),
    #[cfg(feature = "dns")]
    ("kubernetes_dns", &["kubernetes.dns"]),
    #[cfg(feature = "dns")]
    ("kubernetes_dns_srv", &["kubernetes.dnssrv"]),
];

/// Strategies that others have, and why they are not here.
const NOT_OFFERED: &[(&[&str], &str)] = &[
    #[cfg(not(feature = "mdns"))]
    (&["mdns", "mdnslite", "mdns_lite"], "this program was built without the feature mdns"),
    #[cfg(not(feature = "kubernetes"))]
    (&["kubernetes"], "this program was built without the feature kubernetes"),
    #[cfg(not(feature = "consul"))]
    (&["consul"], "this program was built without the feature consul"),
    #[cfg(not(feature = "dns"))]
    (
        &["dns", "dnspoll", "kubernetes_dns", "kubernetes.dns"],
        "this program was built without the feature dns",
    ),
    #[cfg(not(feature = "cloud"))]
    (
        &[
            "aws",
            "ec2",
            "ecs",
            "aws_ec2",
            "aws_ecs",
            "ec2.tags",
            "clusterec2.strategy.tags",
            "clusterecs.strategy",
            "gcp",
            "gce",
            "gce.labels",
            "rancher",
        ],
        "this program was built without the feature cloud",
    ),
    #[cfg(not(feature = "postgres"))]
    (
        &["postgres", "postgresql", "libclusterpostgres.strategy"],
        "this program was built without the feature postgres",
    ),
    (&["gig", "googlecomputeengine"], "instance groups are not asked for: use `gcp` with a label"),
    (&["hyparview", "partisan"], "it is no way to find nodes"),
];

impl StrategyConfig {
    /// Our name of it.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Static(_) => "static",
            Self::LocalEpmd(_) => "local_epmd",
            Self::ErlangHosts(_) => "erlang_hosts",
            Self::Gossip(_) => "gossip",
            #[cfg(feature = "mdns")]
            Self::Mdns(_) => "mdns",
            #[cfg(feature = "consul")]
            Self::Consul(_) => "consul",
            #[cfg(feature = "kubernetes")]
            Self::Kubernetes(_) => "kubernetes",
            #[cfg(feature = "cloud")]
            Self::Ec2(_) => "ec2",
            #[cfg(feature = "cloud")]
            Self::Ecs(_) => "ecs",
            #[cfg(feature = "cloud")]
            Self::Gcp(_) => "gcp",
            #[cfg(feature = "cloud")]
            Self::Rancher(_) => "rancher",
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => "postgres",
            #[cfg(feature = "dns")]
            Self::Dns(_) => "dns",
            #[cfg(feature = "dns")]
            Self::KubernetesDns(_) => "kubernetes_dns",
            #[cfg(feature = "dns")]
            Self::KubernetesDnsSrv(_) => "kubernetes_dns_srv",
        }
    }

    fn read(word: &str, keys: Table) -> Result<Self, toml::de::Error> {
        Ok(match word {
            "static" => Self::Static(keys.try_into()?),
            "erlang_hosts" => Self::ErlangHosts(keys.try_into()?),
            "gossip" => Self::Gossip(keys.try_into()?),
            #[cfg(feature = "mdns")]
            "mdns" => Self::Mdns(keys.try_into()?),
            #[cfg(feature = "consul")]
            "consul" => Self::Consul(keys.try_into()?),
            #[cfg(feature = "kubernetes")]
            "kubernetes" => Self::Kubernetes(keys.try_into()?),
            #[cfg(feature = "cloud")]
            "ec2" => Self::Ec2(keys.try_into()?),
            #[cfg(feature = "cloud")]
            "ecs" => Self::Ecs(keys.try_into()?),
            #[cfg(feature = "cloud")]
            "gcp" => Self::Gcp(keys.try_into()?),
            #[cfg(feature = "cloud")]
            "rancher" => Self::Rancher(keys.try_into()?),
            #[cfg(feature = "postgres")]
            "postgres" => Self::Postgres(keys.try_into()?),
            #[cfg(feature = "dns")]
            "dns" => Self::Dns(keys.try_into()?),
            #[cfg(feature = "dns")]
            "kubernetes_dns" => Self::KubernetesDns(keys.try_into()?),
            #[cfg(feature = "dns")]
            "kubernetes_dns_srv" => Self::KubernetesDnsSrv(keys.try_into()?),
            _ => Self::LocalEpmd(keys.try_into()?),
        })
    }
}

/// Our name of a strategy, whoever's name is written: `Cluster.Strategy.Epmd`, `:static`, `kubernetes`.
fn strategy_name(written: &str) -> Result<&'static str, String> {
    let name = written.trim_start_matches(':').trim_start_matches("Elixir.");
    let name = ["Cluster.Strategy.", "Foundation.Strategy."]
        .iter()
        .find_map(|prefix| name.strip_prefix(prefix))
        .unwrap_or(name)
        .to_lowercase();
    #[cfg(feature = "cloud")]
    if name == "aws" {
        // What there is to ask depends on where this runs.
        return Ok(if super::aws::is_task() { "ecs" } else { "ec2" });
    }
    if let Some((word, _)) =
        STRATEGIES.iter().find(|(word, names)| *word == name || names.contains(&name.as_str()))
    {
        return Ok(word);
    }
    if let Some((_, why)) = NOT_OFFERED.iter().find(|(names, _)| names.contains(&name.as_str())) {
        return Err(format!("the strategy {written} is not offered: {why}"));
    }
    let known: Vec<&str> = STRATEGIES.iter().map(|(word, _)| *word).collect();
    Err(format!("there is no strategy {written:?}; there are {} and auto", known.join(", ")))
}

impl ClusterConfig {
    /// Reads what stands under `cluster`.
    ///
    /// # Errors
    /// The first key that cannot be used.
    pub fn from_value(value: &Value) -> Result<Self, Mistake> {
        Self::read(value).map_err(|mistake| mistake.under(&["cluster"]))
    }

    fn read(value: &Value) -> Result<Self, Mistake> {
        match value {
            Value::Boolean(false) => Ok(Self::default()),
            Value::Boolean(true) => Ok(Self { mode: Mode::Auto, ..Self::default() }),
            Value::String(name) => {
                let mut table = Table::new();
                table.insert("strategy".into(), Value::String(name.clone()));
                Self::from_table(table)
            }
            Value::Table(table) => Self::from_table(table.clone()),
            _ => Err(Mistake::new(&[], "must be true, false, the name of a strategy, or a table")),
        }
    }

    fn from_table(mut table: Table) -> Result<Self, Mistake> {
        resolve_system(&mut table, &mut Vec::new())?;
        flatten(&mut table)?;
        written_out(&mut table)?;
        let names = strategy_names(table.remove("strategy"))?;
        let mut config = Self { name: text(&mut table, "name")?, ..Self::default() };
        config.allow = list(&mut table, "allow")?;
        config.profile = text(&mut table, "profile")?.map(|text| Profile::read(&text)).transpose()?;
        AllowList::parse(config.allow.iter().map(String::as_str))
            .map_err(|error| Mistake::new(&["allow"], error.to_string()))?;
        if let Some(join) = table.remove("join") {
            config.join = node_names(join).map_err(|error| Mistake::new(&["join"], error.message()))?;
        }
        if let Some(written) = table.remove("introduce") {
            config.introduce = introduce::read(written).map_err(|why| Mistake::new(&["introduce"], why))?;
        }
        let topologies = table.remove("topologies");
        let order = failover(&mut table)?;
        let prune = prune(&mut table)?;
        let max_nodes = max_nodes(&mut table)?;
        config.mode = match names.as_slice() {
            [] if topologies.is_none() && config.join.is_empty() => Mode::Auto,
            [word] if word == "auto" => Mode::Auto,
            [word] if word == "environment" => Mode::Environment,
            _ => Mode::Written,
        };
        for name in names.iter().filter(|name| !["auto", "environment"].contains(&name.as_str())) {
            let word = strategy_name(name).map_err(|why| Mistake::new(&["strategy"], why))?;
            // The keys of a strategy stand in a table with its name, or beside `strategy` if it is the only one.
            let nested = [name.as_str(), word].iter().find_map(|key| table.remove(*key));
            let (keys, place) = match nested {
                Some(Value::Table(keys)) => (keys, Some(word)),
                Some(_) => {
                    return Err(Mistake::new(&[word], "must be a table with the keys of the strategy"));
                }
                None if names.len() == 1 => (std::mem::take(&mut table), None),
                None => (Table::new(), Some(word)),
            };
            let source = SourceConfig::read(word, word, keys)
                .map_err(|mistake| place.map_or(mistake.clone(), |place| mistake.under(&[place])))?;
            config.sources.push(SourceConfig {
                prune: source.prune.or(prune),
                max_nodes: source.max_nodes.or(max_nodes),
                ..source
            });
        }
        if let Some(key) = table.keys().next() {
            return Err(unknown(key, &names));
        }
        if let Some(topologies) = topologies {
            config.read_topologies(topologies).map_err(|mistake| mistake.under(&["topologies"]))?;
        }
        config.rank(&order)?;
        Ok(config)
    }

    /// libcluster's `topologies`.
    fn read_topologies(&mut self, topologies: Value) -> Result<(), Mistake> {
        let topologies = match topologies {
            Value::String(text) => terms::topologies(&text)?,
            Value::Table(table) if table.len() == 1 && table.get("file").is_some_and(Value::is_str) => {
                let file = table.get("file").and_then(Value::as_str).unwrap_or_default();
                terms::topologies_file(Path::new(file))?
            }
            written => written,
        };
        let topologies = match topologies {
            Value::Table(mut topologies) => {
                resolve_system(&mut topologies, &mut Vec::new())?;
                topologies
            }
            Value::Array(empty) if empty.is_empty() => Table::new(),
            _ => {
                return Err(Mistake::new(
                    &[],
                    "must be a table of topologies, a text with them as terms, or { file = … }",
                ));
            }
        };
        for (name, topology) in topologies {
            let mistake = |key: &str, why: String| Mistake::new(&[&name, key], why);
            let Value::Table(mut topology) = topology else {
                return Err(Mistake::new(&[&name], "must be a table with `strategy` and `config`"));
            };
            let Some(Value::String(strategy)) = topology.remove("strategy") else {
                return Err(mistake("strategy", "is missing: the name of a strategy".into()));
            };
            let word = strategy_name(&strategy).map_err(|why| mistake("strategy", why))?;
            let keys = match topology.remove("config") {
                None => Table::new(),
                Some(Value::Table(keys)) => keys,
                // A keyword list without elements.
                Some(Value::Array(empty)) if empty.is_empty() => Table::new(),
                Some(_) => return Err(mistake("config", "must be a table".into())),
            };
            let prune = prune(&mut topology).map_err(|mistake| mistake.under(&[&name]))?;
            let max_nodes = max_nodes(&mut topology).map_err(|mistake| mistake.under(&[&name]))?;
            if let Some(key) = topology.keys().next() {
                let why = match key.as_str() {
                    "connect" | "disconnect" | "list_nodes" => {
                        "is not offered for this node: it connects by itself".to_owned()
                    }
                    _ => format!("unknown key `{key}`, expected strategy, config, prune or max_nodes"),
                };
                return Err(mistake(key, why));
            }
            let source = SourceConfig::read(&name, word, keys).map_err(|m| m.under(&[&name, "config"]))?;
            self.sources.push(SourceConfig { prune, max_nodes, ..source });
        }
        Ok(())
    }

    /// Gives the sources their places in the order of failover; those that are not in it run always.
    fn rank(&mut self, order: &[String]) -> Result<(), Mistake> {
        for (rank, name) in order.iter().enumerate() {
            let word = strategy_name(name).ok();
            // By its own name first: two topologies may have the same strategy.
            let at = self.sources.iter().position(|source| source.name == *name);
            let at = at.or_else(|| self.sources.iter().position(|s| Some(s.strategy.word()) == word));
            let source = at.and_then(|at| self.sources.get_mut(at));
            let source = source.ok_or_else(|| {
                Mistake::new(
                    &["failover"],
                    format!("{name:?} is no source; name it in `strategy` or `topologies`"),
                )
            })?;
            source.rank = rank;
        }
        Ok(())
    }
}

impl SourceConfig {
    /// A source with default keys but those of `strategy`.
    pub fn new(strategy: StrategyConfig) -> Self {
        Self { name: strategy.word().to_owned(), strategy, prune: None, rank: 0, max_nodes: None }
    }

    fn read(name: &str, word: &'static str, mut keys: Table) -> Result<Self, Mistake> {
        let prune = prune(&mut keys)?;
        let max_nodes = max_nodes(&mut keys)?;
        let strategy = StrategyConfig::read(word, keys.clone()).map_err(|error| {
            let why = error.message().replace("field", "key");
            // The table has lost the places of its keys.
            let unknown = why.strip_prefix("unknown key `").and_then(|rest| rest.split('`').next());
            let key = match unknown {
                Some(unknown) => Some(unknown),
                None => {
                    keys.keys().map(String::as_str).find(|key| culprit(word, key, &keys, error.message()))
                }
            };
            let key = key.map(str::to_owned);
            let why = format!("{why} (strategy {word})");
            match key {
                Some(key) => Mistake::new(&[&key], why),
                None => Mistake::new(&[], why),
            }
        })?;
        Ok(Self { name: name.to_owned(), strategy, prune, rank: 0, max_nodes })
    }
}

/// Whether the mistake is in the value of this key: then it goes with the key.
fn culprit(word: &'static str, key: &str, keys: &Table, mistake: &str) -> bool {
    let mut rest = keys.clone();
    rest.remove(key);
    StrategyConfig::read(word, rest).map_or_else(|error| error.message() != mistake, |_| true)
}

fn unknown(key: &str, strategies: &[String]) -> Mistake {
    let why = if strategy_name(key).is_ok() {
        format!("unknown key `{key}`: the strategy is not in `strategy`, which decides what runs")
    } else if strategies.len() > 1 {
        format!(
            "unknown key `{key}`: with several strategies, the keys of each stand in a table of its own ([cluster.{}])",
            strategies.first().map_or("static", String::as_str)
        )
    } else {
        format!("unknown key `{key}`, expected one of {}, or name a strategy", OWN_KEYS.join(", "))
    };
    Mistake::new(&[key], why)
}

/// `strategy = { strategy = …, config = … }`, which is Elixir's `strategy: {Module, options}`: its keys stand beside `strategy`.
fn flatten(table: &mut Table) -> Result<(), Mistake> {
    let Some(Value::Table(_)) = table.get("strategy") else { return Ok(()) };
    let Some(Value::Table(mut written)) = table.remove("strategy") else { return Ok(()) };
    let strategy = written.remove("strategy");
    let config = written.remove("config");
    let (Some(strategy @ Value::String(_)), true) = (strategy, written.is_empty()) else {
        return Err(Mistake::new(&["strategy"], "must be a name, or a table with `strategy` and `config`"));
    };
    table.insert("strategy".to_owned(), strategy);
    if let Some(Value::Table(config)) = config {
        for (key, value) in config {
            table.entry(key).or_insert(value);
        }
    }
    Ok(())
}

/// `primary` and `secondary` may be written out, each a table with `strategy` and its keys: they are topologies of these names then.
fn written_out(table: &mut Table) -> Result<(), Mistake> {
    for key in ["primary", "secondary"] {
        let Some(Value::Table(_)) = table.get(key) else { continue };
        let Some(Value::Table(mut written)) = table.insert(key.to_owned(), Value::String(key.to_owned()))
        else {
            continue;
        };
        flatten(&mut written).map_err(|mistake| mistake.under(&[key]))?;
        let mut topology = Table::new();
        for own in ["strategy", "prune", "max_nodes", "config"] {
            if let Some(value) = written.remove(own) {
                topology.insert(own.to_owned(), value);
            }
        }
        if !written.is_empty() {
            if topology.contains_key("config") {
                return Err(Mistake::new(&[key], "has keys beside `config`; write them into it"));
            }
            topology.insert("config".to_owned(), Value::Table(written));
        }
        let topologies = table.entry("topologies").or_insert_with(|| Value::Table(Table::new()));
        let Some(topologies) = topologies.as_table_mut() else {
            return Err(Mistake::new(&["topologies"], "cannot be a text beside primary and secondary"));
        };
        topologies.insert(key.to_owned(), Value::Table(topology));
    }
    Ok(())
}

fn strategy_names(value: Option<Value>) -> Result<Vec<String>, Mistake> {
    match value {
        None => Ok(Vec::new()),
        Some(Value::String(name)) => Ok(vec![name]),
        Some(value) => value
            .try_into()
            .map_err(|_| Mistake::new(&["strategy"], "must be the name of a strategy, or a list of names")),
    }
}

fn text(table: &mut Table, key: &str) -> Result<Option<String>, Mistake> {
    match table.remove(key) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(Mistake::new(&[key], "must be a string")),
    }
}

fn list(table: &mut Table, key: &str) -> Result<Vec<String>, Mistake> {
    match table.remove(key) {
        None => Ok(Vec::new()),
        Some(Value::String(text)) => Ok(vec![text]),
        Some(value) => value.try_into().map_err(|_| Mistake::new(&[key], "must be a list of strings")),
    }
}

fn failover(table: &mut Table) -> Result<Vec<String>, Mistake> {
    let mut order = list(table, "failover")?;
    for key in ["primary", "secondary"] {
        if let Some(name) = text(table, key)? {
            if order.len() >= 2 && key == "primary" {
                return Err(Mistake::new(&[key], "says the same as `failover`; write one of the two"));
            }
            order.push(name);
        }
    }
    Ok(order)
}

fn prune(table: &mut Table) -> Result<Option<Prune>, Mistake> {
    match table.remove("prune") {
        None => Ok(None),
        Some(Value::Boolean(false)) => Ok(Some(Prune::Never)),
        Some(Value::Boolean(true)) => Ok(Some(Prune::Disconnect)),
        Some(Value::String(word)) if word == "never" => Ok(Some(Prune::Never)),
        Some(Value::String(word)) if word == "forget" => Ok(Some(Prune::Forget)),
        Some(Value::String(word)) if word == "disconnect" => Ok(Some(Prune::Disconnect)),
        Some(_) => Err(Mistake::new(&["prune"], "must be \"never\", \"forget\" or \"disconnect\"")),
    }
}

fn max_nodes(table: &mut Table) -> Result<Option<usize>, Mistake> {
    match table.remove("max_nodes") {
        None => Ok(None),
        Some(Value::Integer(count)) => usize::try_from(count)
            .ok()
            .filter(|count| (1..=65_536).contains(count))
            .map(Some)
            .ok_or_else(|| Mistake::new(&["max_nodes"], "must be 1 to 65536")),
        Some(_) => Err(Mistake::new(&["max_nodes"], "must be a number")),
    }
}

/// How deep tables may be nested; nothing that is meant goes further than five.
pub(super) const MAX_DEPTH: usize = 16;

/// Puts environment variables in the place of `{ system = "VAR" }`.
fn resolve_system(table: &mut Table, path: &mut Vec<String>) -> Result<(), Mistake> {
    if path.len() > MAX_DEPTH {
        return Err(Mistake { key: path.clone(), why: "tables are nested too deep".into() });
    }
    for (key, value) in table.iter_mut() {
        path.push(key.clone());
        if let Value::Table(inner) = value {
            match inner.get("system") {
                Some(Value::String(variable)) if inner.len() == 1 => {
                    let text = std::env::var(variable).map_err(|_| Mistake {
                        key: path.clone(),
                        why: format!("the environment variable {variable} is not set"),
                    })?;
                    *value = Value::String(text);
                }
                _ => resolve_system(inner, path)?,
            }
        }
        path.pop();
    }
    Ok(())
}

impl<'de> Deserialize<'de> for ClusterConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        Self::from_value(&value).map_err(serde::de::Error::custom)
    }
}

/// Something that must not be shown.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// A secret of this text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // The value must not stand in the error, as serde would have it.
        match Value::deserialize(deserializer)? {
            Value::String(text) if !text.is_empty() => Ok(Self(text)),
            _ => Err(serde::de::Error::custom("a secret must be a string that is not empty")),
        }
    }
}

/// One string, or a list of strings.
#[cfg(any(feature = "dns", feature = "consul", feature = "cloud"))]
pub(super) fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::String(text) => Ok(vec![text]),
        value => {
            value.try_into().map_err(|_| serde::de::Error::custom("must be a string or a list of strings"))
        }
    }
}

/// Durations in milliseconds, as libcluster has them; `infinity` is a day.
pub(super) mod ms {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, de::Error};

    const DAY: u64 = 86_400_000;

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Number(u64),
        Word(String),
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
        let wrong = || D::Error::custom("must be a number of milliseconds, 1 to 86400000");
        let written = Written::deserialize(d).map_err(|_| wrong())?;
        match written {
            Written::Number(ms @ 1..=DAY) => Ok(Duration::from_millis(ms)),
            Written::Word(word) if word == "infinity" => Ok(Duration::from_millis(DAY)),
            _ => Err(wrong()),
        }
    }

    pub(in super::super) fn optional<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Duration>, D::Error> {
        deserialize(d).map(Some)
    }
}

/// A list of node names.
pub(super) fn node_names<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<NodeName>, D::Error> {
    let names = Vec::<String>::deserialize(deserializer)
        .map_err(|_| serde::de::Error::custom("must be a list of node names (name@host)"))?;
    let mut seen = BTreeMap::new();
    let mut nodes = Vec::new();
    for name in names {
        let node = NodeName::parse(name.trim_start_matches(':').trim_matches('"'))
            .map_err(|why| serde::de::Error::custom(format!("{name:?} is no node name: {why}")))?;
        if seen.insert(node.clone(), ()).is_none() {
            nodes.push(node);
        }
    }
    Ok(nodes)
}

#[cfg(test)]
mod founding;
#[cfg(test)]
mod tests;
