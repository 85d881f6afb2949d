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
//! All questions are asked at once, so that name servers that are gone cost one `timeout` and not one for each question. Within it
//! each question is put twice, to two servers at a time; over UDP it is sent three times each time as long as nothing comes.
//!
//! The names that come out are of this strategy's own making, with the basename that the configuration says (this node's own
//! by default), so they are dialled without an entry of the allow-list. Plain DNS can be forged; distribution over TLS is the answer to that.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
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
use tokio::task::JoinSet;

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
    /// How long all name servers together have to answer one question, in milliseconds. 5,000.
    #[serde(with = "ms")]
    pub timeout: Duration,
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
    #[serde(default = "five_seconds", with = "ms")]
    pub timeout: Duration,
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
    #[serde(default = "five_seconds", with = "ms")]
    pub timeout: Duration,
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
            timeout: five_seconds(),
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
    timeout: Duration,
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
        let (interval, timeout) = (options.polling_interval, options.timeout);
        Self::with(questions.collect(), basename, false, interval, timeout, options.servers)
    }

    /// `kubernetes_dns`.
    pub fn kubernetes(options: KubernetesOptions) -> Self {
        let questions = vec![(options.service, RecordType::A)];
        let (interval, timeout) = (options.polling_interval, options.timeout);
        Self::with(questions, options.application_name, false, interval, timeout, options.servers)
    }

    /// `kubernetes_dns_srv`.
    pub fn kubernetes_srv(options: KubernetesSrvOptions) -> Self {
        let domain = options.cluster_domain.or_else(|| std::env::var("CLUSTER_DOMAIN").ok());
        let domain = domain.unwrap_or_else(|| "cluster.local.".to_owned());
        let name = format!("{}.{}.svc.{}.", options.service, options.namespace, domain.trim_end_matches('.'));
        let questions = vec![(name, RecordType::SRV)];
        let (interval, timeout) = (options.polling_interval, options.timeout);
        Self::with(questions, options.application_name, true, interval, timeout, options.servers)
    }

    fn with(
        questions: Vec<(String, RecordType)>,
        basename: String,
        targets: bool,
        interval: Duration,
        timeout: Duration,
        servers: Vec<String>,
    ) -> Self {
        let (resolver, last) = (OnceLock::new(), Mutex::default());
        Self { questions, basename, targets, interval, timeout, servers, resolver, last }
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
        // Once more after the first time, which lets the servers go first that have answered. Together less than the timeout.
        options.attempts = 1;
        options.timeout = self.timeout.mul_f64(0.4);
        let resolver = builder.build().map_err(|error| wrong(&error))?;
        Ok(self.resolver.get_or_init(|| resolver))
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
        let resolver = self.resolver()?;
        let (timeout, targets) = (self.timeout, self.targets);
        let asking = self
            .questions
            .iter()
            .map(|(name, kind)| ask(resolver.clone(), name.clone(), *kind, timeout, targets));
        for (index, answer) in all(asking).await {
            match answer {
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

/// Questions that are asked at once.
const AT_ONCE: usize = 16;

/// The outcomes of all futures, by their place. A few run at once.
async fn all<F>(futures: impl Iterator<Item = F>) -> BTreeMap<usize, F::Output>
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    let mut futures = futures.enumerate();
    let (mut running, mut outcomes) = (JoinSet::new(), BTreeMap::new());
    loop {
        while running.len() < AT_ONCE
            && let Some((index, future)) = futures.next()
        {
            running.spawn(async move { (index, future.await) });
        }
        match running.join_next().await {
            Some(outcome) => outcomes.extend(outcome),
            None => return outcomes,
        }
    }
}

/// The host parts that answer one question.
async fn ask(
    resolver: TokioResolver,
    name: String,
    kind: RecordType,
    timeout: Duration,
    targets: bool,
) -> Result<BTreeSet<String>, SourceError> {
    let (mut hosts, mut further) = (BTreeSet::new(), BTreeSet::new());
    for answer in lookup(&resolver, &name, kind, timeout).await? {
        match answer {
            RData::SRV(service) if targets => {
                hosts.insert(service.target.to_utf8().trim_end_matches('.').to_owned());
            }
            RData::SRV(service) => {
                further.insert(service.target.to_utf8());
            }
            answer => hosts.extend(address(&answer)),
        }
    }
    let further =
        further.into_iter().flat_map(|target| [(target.clone(), RecordType::A), (target, RecordType::AAAA)]);
    let asking = further.map(|(target, kind)| {
        let resolver = resolver.clone();
        async move { lookup(&resolver, &target, kind, timeout).await }
    });
    for answers in all(asking).await.into_values() {
        hosts.extend(answers?.iter().filter_map(address));
    }
    Ok(hosts)
}

/// The address in a record.
fn address(record: &RData) -> Option<String> {
    match record {
        RData::A(ip) => Some(IpAddr::V4(ip.0).to_string()),
        RData::AAAA(ip) => Some(IpAddr::V6(ip.0).to_string()),
        _ => None,
    }
}

/// The records of a name; none, if the server says that there are none.
async fn lookup(
    resolver: &TokioResolver,
    name: &str,
    kind: RecordType,
    timeout: Duration,
) -> Result<Vec<RData>, SourceError> {
    // The resolver's own bound covers one exchange, not what it tries after that.
    let answer = tokio::time::timeout(timeout, resolver.lookup(name, kind)).await;
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

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    /// RFC 1035 section 4: a header, the question as it came, and the address that was asked for.
    fn answer(query: &[u8]) -> Option<(u8, Vec<u8>)> {
        let end = 12 + query.get(12..)?.iter().position(|byte| *byte == 0)? + 5;
        let kind = *query.get(end - 3)?;
        let address: Vec<u8> = match kind {
            1 => vec![127, 0, 0, 1],
            28 => std::net::Ipv6Addr::LOCALHOST.octets().to_vec(),
            _ => return None,
        };
        let mut out = query.get(..2)?.to_vec();
        out.extend([0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
        out.extend(query.get(12..end)?);
        out.extend([0xC0, 12, 0, kind, 0, 1, 0, 0, 0, 1, 0, address.len() as u8]);
        out.extend(address);
        Some((kind, out))
    }

    /// Answers nothing before it has heard as many different questions as are expected.
    fn waiting_server(expected: usize) -> u16 {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        std::thread::spawn(move || {
            let mut held = BTreeMap::new();
            let mut query = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut query) {
                let Some((kind, response)) = answer(&query[..length]) else { continue };
                // Without the letters, which a resolver may write large or small.
                held.insert((length, kind), (response, from));
                if held.len() >= expected {
                    for (response, from) in held.values() {
                        let _gone = socket.send_to(response, from);
                    }
                }
            }
        });
        port
    }

    fn dns(queries: &[&str], port: u16, timeout: Duration) -> Dns {
        let questions = queries
            .iter()
            .flat_map(|name| [RecordType::A, RecordType::AAAA].map(|kind| (format!("{name}."), kind)));
        let servers = vec![format!("127.0.0.1:{port}")];
        Dns::with(questions.collect(), "shop".into(), false, Duration::from_secs(5), timeout, servers)
    }

    #[tokio::test]
    async fn all_questions_are_asked_before_one_is_answered() {
        let dns = dns(&["a.internal", "ab.internal"], waiting_server(4), Duration::from_secs(60));
        let found = dns.poll().await.unwrap();
        let names: BTreeSet<&str> = found.iter().map(|candidate| candidate.node.as_str()).collect();
        assert_eq!(names, BTreeSet::from(["shop@127.0.0.1", "shop@::1"]));
        assert_eq!(found.len(), 4, "each question has its answer");
    }

    #[tokio::test]
    async fn a_server_that_is_silent_is_an_error_after_the_timeout() {
        let dns = dns(&["a.internal"], waiting_server(3), Duration::from_millis(300));
        let error = dns.poll().await.unwrap_err().to_string();
        assert!(error.contains("records of a.internal."), "{error}");
    }
}
