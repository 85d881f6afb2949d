//! Asking DNS: `DNSPoll`, `Kubernetes.DNS` and `Kubernetes.DNSSRV` of libcluster, and `dns_cluster`.
//!
//! ```toml
//! [cluster]
//! strategy = "dns"
//! query = "app.internal"          # or DNS_CLUSTER_QUERY
//! ```
//!
//! | `strategy =` | asks for | node |
//! |---|---|---|
//! | `dns` | A and AAAA of `query` (and SRV, if `resource_types` has it) | `basename@address` |
//! | `kubernetes_dns` | A of `service`, with the search list of `/etc/resolv.conf` | `application_name@address` |
//! | `kubernetes_dns_srv` | SRV of `service.namespace.svc.cluster.local` | `application_name@target` |
//!
//! Nothing is cached: a changed answer counts at once. That a name does not exist is an answer (nobody is there), that a server
//! does not answer or fails is an error. If one of several questions fails, its last answer is kept.
//!
//! The names that come out are of this strategy's own making, with the basename that the configuration says (this node's own
//! by default), so they are dialled without an entry of the allow-list. Plain DNS can be forged; distribution over TLS is the answer to that.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use foundation_proto::dist::NodeName;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{RData, RecordType};
use serde::Deserialize;

use super::config::{Context, ms};
use super::{Candidate, Poll, SourceError};

/// The keys of `dns`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Options {
    /// The name or names to ask for. Default: `DNS_CLUSTER_QUERY`, several separated by commas.
    #[serde(deserialize_with = "super::config::one_or_many")]
    pub query: Vec<String>,
    /// The part of the nodes' names before the `@`. Default: this node's own.
    #[serde(alias = "node_basename")]
    pub basename: Option<String>,
    /// `a`, `aaaa`, `srv`. Default: the first two.
    pub resource_types: Vec<ResourceType>,
    /// The pause between two questions, in milliseconds. 5,000.
    #[serde(alias = "interval", alias = "poll_interval", with = "ms")]
    pub polling_interval: Duration,
    /// Name servers to ask (`address` or `address:port`) instead of those in `/etc/resolv.conf`.
    pub servers: Vec<String>,
}

/// The keys of `kubernetes_dns`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct KubernetesOptions {
    /// The headless service.
    pub service: String,
    /// The part of the nodes' names before the `@`.
    #[serde(alias = "basename")]
    pub application_name: String,
    /// The pause between two questions, in milliseconds. 5,000.
    #[serde(default = "five_seconds", with = "ms")]
    pub polling_interval: Duration,
    /// As for `dns`.
    #[serde(default)]
    pub servers: Vec<String>,
}

/// The keys of `kubernetes_dns_srv`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct KubernetesSrvOptions {
    /// The headless service.
    pub service: String,
    /// Its namespace.
    pub namespace: String,
    /// The part of the nodes' names before the `@`.
    #[serde(alias = "basename")]
    pub application_name: String,
    /// The domain of the cluster. Default: `CLUSTER_DOMAIN`, else `cluster.local.`
    #[serde(default)]
    pub cluster_domain: Option<String>,
    /// The pause between two questions, in milliseconds. 5,000.
    #[serde(default = "five_seconds", with = "ms")]
    pub polling_interval: Duration,
    /// As for `dns`.
    #[serde(default)]
    pub servers: Vec<String>,
}

/// What to ask for.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd)]
#[serde(rename_all = "lowercase")]
pub enum ResourceType {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
    /// Services, whose targets are then asked for their addresses.
    Srv,
}

fn five_seconds() -> Duration {
    Duration::from_secs(5)
}

impl Default for Options {
    fn default() -> Self {
        Self {
            query: Vec::new(),
            basename: None,
            resource_types: vec![ResourceType::A, ResourceType::Aaaa],
            polling_interval: five_seconds(),
            servers: Vec::new(),
        }
    }
}

/// The three strategies.
#[derive(Debug)]
pub struct Dns {
    questions: Vec<(String, RecordType)>,
    basename: String,
    /// An SRV target is the host part itself, and is not resolved further.
    targets: bool,
    interval: Duration,
    servers: Vec<String>,
    resolver: OnceLock<TokioResolver>,
    /// What each question was last answered with.
    last: Mutex<BTreeMap<usize, BTreeSet<String>>>,
}

impl Dns {
    /// `dns` for a node.
    pub fn new(options: Options, context: &Context) -> Self {
        let queries = match options.query.is_empty() {
            false => options.query,
            true => std::env::var("DNS_CLUSTER_QUERY")
                .unwrap_or_default()
                .split(',')
                .map(|name| name.trim().to_owned())
                .filter(|name| !name.is_empty())
                .collect(),
        };
        let types = options.resource_types.iter().map(|kind| match kind {
            ResourceType::A => RecordType::A,
            ResourceType::Aaaa => RecordType::AAAA,
            ResourceType::Srv => RecordType::SRV,
        });
        let types: Vec<RecordType> = types.collect();
        // inet_res:lookup/3, which libcluster and dns_cluster use, knows no search list either.
        let questions = queries
            .iter()
            .map(|name| format!("{}.", name.trim_end_matches('.')))
            .flat_map(|name| types.iter().map(move |kind| (name.clone(), *kind)).collect::<Vec<_>>());
        let basename = options.basename.unwrap_or_else(|| context.own.alive().to_owned());
        Self::with(questions.collect(), basename, false, options.polling_interval, options.servers)
    }

    /// `kubernetes_dns`.
    pub fn kubernetes(options: KubernetesOptions) -> Self {
        let questions = vec![(options.service, RecordType::A)];
        Self::with(questions, options.application_name, false, options.polling_interval, options.servers)
    }

    /// `kubernetes_dns_srv`.
    pub fn kubernetes_srv(options: KubernetesSrvOptions) -> Self {
        let domain = options.cluster_domain.or_else(|| std::env::var("CLUSTER_DOMAIN").ok());
        let domain = domain.unwrap_or_else(|| "cluster.local.".to_owned());
        let name = format!("{}.{}.svc.{}.", options.service, options.namespace, domain.trim_end_matches('.'));
        let questions = vec![(name, RecordType::SRV)];
        Self::with(questions, options.application_name, true, options.polling_interval, options.servers)
    }

    fn with(
        questions: Vec<(String, RecordType)>,
        basename: String,
        targets: bool,
        interval: Duration,
        servers: Vec<String>,
    ) -> Self {
        let (resolver, last) = (OnceLock::new(), Mutex::default());
        Self { questions, basename, targets, interval, servers, resolver, last }
    }

    /// The part of the names before the `@`.
    pub(super) fn basename(&self) -> &str {
        &self.basename
    }

    fn resolver(&self) -> Result<&TokioResolver, SourceError> {
        if let Some(resolver) = self.resolver.get() {
            return Ok(resolver);
        }
        let wrong = |error: &dyn std::fmt::Display| {
            SourceError::new(format!(
                "no name server can be asked: {error}; see /etc/resolv.conf, or `servers`"
            ))
        };
        let mut builder = if self.servers.is_empty() {
            TokioResolver::builder_tokio().map_err(|error| wrong(&error))?
        } else {
            let servers = self.servers.iter().map(|server| name_server(server)).collect::<Result<_, _>>();
            let config = ResolverConfig::from_name_servers(servers.map_err(SourceError::new)?);
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        };
        let options = builder.options_mut();
        options.cache_size = 0;
        options.positive_max_ttl = Some(Duration::ZERO);
        options.negative_max_ttl = Some(Duration::ZERO);
        options.attempts = 1;
        let resolver = builder.build().map_err(|error| wrong(&error))?;
        Ok(self.resolver.get_or_init(|| resolver))
    }

    /// The host parts that answer one question.
    async fn ask(&self, name: &str, kind: RecordType) -> Result<BTreeSet<String>, SourceError> {
        let resolver = self.resolver()?;
        let mut hosts = BTreeSet::new();
        for answer in lookup(resolver, name, kind).await? {
            match answer {
                RData::A(ip) => {
                    hosts.insert(IpAddr::V4(ip.0).to_string());
                }
                RData::AAAA(ip) => {
                    hosts.insert(IpAddr::V6(ip.0).to_string());
                }
                RData::SRV(service) => {
                    let target = service.target.to_utf8();
                    if self.targets {
                        hosts.insert(target.trim_end_matches('.').to_owned());
                        continue;
                    }
                    for kind in [RecordType::A, RecordType::AAAA] {
                        for answer in lookup(resolver, &target, kind).await? {
                            match answer {
                                RData::A(ip) => hosts.insert(IpAddr::V4(ip.0).to_string()),
                                RData::AAAA(ip) => hosts.insert(IpAddr::V6(ip.0).to_string()),
                                _ => false,
                            };
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(hosts)
    }
}

impl Poll for Dns {
    fn interval(&self) -> Duration {
        self.interval
    }

    async fn poll(&self) -> Result<Vec<Candidate>, SourceError> {
        if self.questions.is_empty() {
            return Err(SourceError::new("there is nothing to ask for: set `query`, or DNS_CLUSTER_QUERY"));
        }
        let mut failure = None;
        let mut answered = false;
        for (index, (name, kind)) in self.questions.iter().enumerate() {
            match self.ask(name, *kind).await {
                Ok(hosts) => {
                    answered = true;
                    self.last.lock().unwrap_or_else(PoisonError::into_inner).insert(index, hosts);
                }
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let candidates: Vec<Candidate> = self
            .questions
            .iter()
            .enumerate()
            .flat_map(|(index, question)| {
                last.get(&index).into_iter().flatten().map(move |host| (host, question))
            })
            .filter_map(|(host, (name, kind))| {
                let node = NodeName::new(&self.basename, host).ok()?;
                let addresses = host.parse().ok().into_iter().collect();
                Some(Candidate { addresses, ..Candidate::new(node, format!("{kind} record of {name}")) })
            })
            .collect();
        match failure {
            // With one answer, whoever the other question named stays named; without any there is nothing new to say.
            Some(failure) if !answered || candidates.is_empty() => Err(failure),
            _ => Ok(candidates),
        }
    }
}

/// How long to wait for an answer. The resolver's own bound covers one exchange with one server, not what it tries after that.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// The records of a name; none, if the server says that there are none.
async fn lookup(resolver: &TokioResolver, name: &str, kind: RecordType) -> Result<Vec<RData>, SourceError> {
    let answer = tokio::time::timeout(ANSWER_TIMEOUT, resolver.lookup(name, kind)).await;
    match answer.map_err(|_| SourceError::new(format!("the {kind} records of {name}: no answer in time")))? {
        Ok(lookup) => Ok(lookup.answers().iter().map(|record| record.data.clone()).collect()),
        Err(NetError::Dns(DnsError::NoRecordsFound(none)))
            if matches!(none.response_code, ResponseCode::NoError | ResponseCode::NXDomain) =>
        {
            Ok(Vec::new())
        }
        Err(error) => Err(SourceError::new(format!("the {kind} records of {name}: {error}"))),
    }
}

/// `address` or `address:port`.
fn name_server(text: &str) -> Result<NameServerConfig, String> {
    let address = match text.parse::<IpAddr>() {
        Ok(ip) => SocketAddr::new(ip, 53),
        Err(_) => text.parse::<SocketAddr>().map_err(|_| {
            format!(
                "{text:?} is no name server: write its address, with a port if it is not 53 (127.0.0.1:5353)"
            )
        })?,
    };
    let mut server = NameServerConfig::udp_and_tcp(address.ip());
    for connection in &mut server.connections {
        connection.port = address.port();
    }
    Ok(server)
}
