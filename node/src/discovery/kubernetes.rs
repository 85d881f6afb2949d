//! Asking the API of Kubernetes: `Cluster.Strategy.Kubernetes` of libcluster.
//!
//! ```toml
//! cluster = "kubernetes"      # with FOUNDATION_APP_NAME=web: the pods with the label app=web in this namespace
//! ```
//! ```toml
//! [cluster]
//! strategy = "kubernetes"
//! kubernetes_selector = "app=web,tier=front"
//! kubernetes_node_basename = "web"
//! ```
//!
//! | `mode` | node |
//! |---|---|
//! | `ip` | `basename@10.0.0.7` |
//! | `hostname` | `basename@HOSTNAME.SERVICE.NAMESPACE.svc.CLUSTER.local` |
//! | `dns` | `basename@10-0-0-7.NAMESPACE.pod.CLUSTER.local` |
//!
//! What there is is listed once, and then watched: a change is known when the API server has it. Where watching is not
//! allowed, the list is asked for again and again. The token and the CA of the service account are read anew for each
//! question, so both may be rotated, and the certificate of the server is always checked. Answers other than 200 are errors, and
//! change nothing.
//!
//! A pod that is being terminated is left alone: its connections live until it ends them, and are not made again. So is
//! an endpoint that is not ready, until it is. Pods are named whether they are ready or not, as in libcluster, unless
//! `ready_only` says otherwise: who is only ready once the others are connected would never be.

mod objects;
#[cfg(test)]
mod tests;
mod watch;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use foundation_proto::dist::NodeName;
use hyper::StatusCode;
use serde::Deserialize;
use tracing::debug;

use self::objects::{Found, Listing};
use self::watch::Ended;
use super::config::{ClusterConfig, Context, Mode as Chosen, StrategyConfig, ms};
use super::default_name::own_address;
use super::http::{Question, Server, encode};
use super::polling::{back_off, pause};
use super::{Candidate, Reports, Running, SourceError, Strategy};

/// Objects in one page of a list, as kubectl asks for them.
const PAGE: usize = 500;
/// The most pages of one list: more objects than may be named.
const MAX_PAGES: usize = 200;
/// The pause before a list that is asked for because the watch has lost its place.
const SOON: Duration = Duration::from_secs(1);
/// How long nothing is watched after that was refused: the role may be mended.
const REFUSED_FOR: Duration = Duration::from_secs(300);
/// Where Kubernetes puts the service account of a pod.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// The keys of this strategy: libcluster's, and shorter names for most.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Options {
    /// Which pods. Default: `app=` and `FOUNDATION_APP_NAME`.
    #[serde(alias = "selector")]
    pub kubernetes_selector: Option<String>,
    /// The part of the nodes' names before the `@`. Default: this node's own.
    #[serde(alias = "basename", alias = "node_basename")]
    pub kubernetes_node_basename: Option<String>,
    /// Default: that of the service account.
    #[serde(alias = "namespace")]
    pub kubernetes_namespace: Option<String>,
    /// How names are made.
    pub mode: Mode,
    /// What is asked for. Default: pods, or endpoints if pods may not be listed.
    #[serde(alias = "lookup")]
    pub kubernetes_ip_lookup_mode: Option<Lookup>,
    /// The headless service: for the mode `hostname`, and for endpoint slices without a selector.
    #[serde(alias = "service")]
    pub kubernetes_service_name: Option<String>,
    /// The domain of the cluster without `.local`. `cluster`.
    pub kubernetes_cluster_name: String,
    /// The API server: a host, or `host:port`. Default: `KUBERNETES_SERVICE_HOST` and `KUBERNETES_SERVICE_PORT`, else
    /// `kubernetes.default.svc`.
    #[serde(alias = "master")]
    pub kubernetes_master: Option<String>,
    /// The directory with `token`, `ca.crt` and `namespace`.
    #[serde(alias = "service_account_path")]
    pub kubernetes_service_account_path: PathBuf,
    /// Whether the server may answer lists from its cache.
    pub kubernetes_use_cached_resources: bool,
    /// Whether pods that are not ready are left alone as well.
    pub ready_only: bool,
    /// Whether changes are watched. If not, the list is asked for in each interval.
    pub watch: bool,
    /// How long the API server has for one answer, in milliseconds. 15,000, as in libcluster.
    #[serde(with = "ms")]
    pub request_timeout: Duration,
    /// The pause between two lists where nothing is watched, in milliseconds. 5,000.
    #[serde(with = "ms")]
    pub polling_interval: Duration,
}

/// How names are made of what the API says.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// By the address.
    #[default]
    #[serde(alias = ":ip")]
    Ip,
    /// By the host name in the headless service.
    #[serde(alias = ":hostname")]
    Hostname,
    /// By the name that DNS has for the address.
    #[serde(alias = ":dns")]
    Dns,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum Lookup {
    /// The pods themselves.
    #[serde(alias = ":pods")]
    Pods,
    /// The addresses behind services; deprecated since Kubernetes 1.33.
    #[serde(alias = ":endpoints")]
    Endpoints,
    /// What has replaced those; where it is not known (before 1.21), endpoints.
    #[serde(alias = ":endpointslices", alias = "endpoint_slices")]
    EndpointSlices,
}

impl Lookup {
    fn resource(self) -> &'static str {
        match self {
            Self::Pods => "pods",
            Self::Endpoints => "endpoints",
            Self::EndpointSlices => "endpointslices",
        }
    }

    fn group(self) -> &'static str {
        match self {
            Self::Pods | Self::Endpoints => "/api/v1",
            Self::EndpointSlices => "/apis/discovery.k8s.io/v1",
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            kubernetes_selector: None,
            kubernetes_node_basename: None,
            kubernetes_namespace: None,
            mode: Mode::default(),
            kubernetes_ip_lookup_mode: None,
            kubernetes_service_name: None,
            kubernetes_cluster_name: "cluster".to_owned(),
            kubernetes_master: None,
            kubernetes_service_account_path: PathBuf::from(SERVICE_ACCOUNT),
            kubernetes_use_cached_resources: false,
            ready_only: false,
            watch: true,
            request_timeout: Duration::from_secs(15),
            polling_interval: Duration::from_secs(5),
        }
    }
}

/// The strategy.
#[derive(Debug)]
pub struct Kubernetes {
    options: Options,
    basename: String,
    /// The value of `FOUNDATION_APP_NAME`.
    app: Option<String>,
    server: Server,
    /// Which of a pod's addresses: one like that in this node's own name.
    ipv6: Option<bool>,
}

/// What has been learned of what this service account may do.
#[derive(Default)]
struct Allowed {
    lookup: Option<Lookup>,
    not_watched_until: Option<tokio::time::Instant>,
}

/// An answer that is none, with its status if there was one.
struct Refused {
    status: Option<StatusCode>,
    error: SourceError,
}

impl From<SourceError> for Refused {
    fn from(error: SourceError) -> Self {
        Self { status: None, error }
    }
}

impl Kubernetes {
    /// The strategy for a node.
    pub fn new(options: Options, context: &Context) -> Self {
        let basename = options.kubernetes_node_basename.clone();
        Self {
            basename: basename.unwrap_or_else(|| context.own.alive().to_owned()),
            app: variable("FOUNDATION_APP_NAME"),
            server: server(&options, variable),
            ipv6: context.own.host().parse().ok().map(|ip: IpAddr| ip.is_ipv6()),
            options,
        }
    }

    /// The part of the names before the `@`.
    pub(super) fn basename(&self) -> &str {
        &self.basename
    }

    /// Lists and watches for ever.
    async fn follow(&self, reports: &Reports) {
        let mut allowed = Allowed::default();
        let mut failures = 0;
        loop {
            let next = match self.list(&mut allowed).await {
                Err(error) => {
                    reports.failed(error).await;
                    back_off(self.options.polling_interval, &mut failures)
                }
                Ok(mut listing) => {
                    failures = 0;
                    reports.found(self.candidates(&listing)).await;
                    self.until_next_list(&mut allowed, &mut listing, reports).await
                }
            };
            pause(next).await;
        }
    }

    /// Watches, if that is possible. Returns how long to wait before the next list.
    async fn until_next_list(
        &self,
        allowed: &mut Allowed,
        listing: &mut Listing,
        reports: &Reports,
    ) -> Duration {
        let now = tokio::time::Instant::now();
        if !self.options.watch || allowed.not_watched_until.is_some_and(|until| now < until) {
            return self.options.polling_interval;
        }
        match self.watch(listing, reports).await {
            Ended::Expired => SOON,
            Ended::Refused(why) => {
                debug!(%why, "changes cannot be watched; the list is asked for instead");
                allowed.not_watched_until = Some(tokio::time::Instant::now() + REFUSED_FOR);
                self.options.polling_interval
            }
            Ended::Broken(why) => {
                // Whether that is an error of the source shows in the next list.
                debug!(%why, "the watch has ended");
                self.options.polling_interval
            }
        }
    }

    /// All objects there are.
    async fn list(&self, allowed: &mut Allowed) -> Result<Listing, SourceError> {
        let written = self.options.kubernetes_ip_lookup_mode;
        let lookup = allowed.lookup.or(written).unwrap_or(Lookup::Pods);
        let refused = match self.list_of(lookup).await {
            Ok(listing) => return Ok(listing),
            Err(refused) => refused,
        };
        // What worked before may not any more: then all is tried again.
        allowed.lookup = None;
        let instead = match refused.status {
            // Roles written for libcluster allow what it asks for by default.
            Some(StatusCode::FORBIDDEN) => written.is_none() && lookup == Lookup::Pods,
            Some(StatusCode::NOT_FOUND) => lookup == Lookup::EndpointSlices,
            _ => false,
        };
        if instead && let Ok(listing) = self.list_of(Lookup::Endpoints).await {
            allowed.lookup = Some(Lookup::Endpoints);
            return Ok(listing);
        }
        Err(refused.error)
    }

    async fn list_of(&self, lookup: Lookup) -> Result<Listing, Refused> {
        let within = self.options.request_timeout;
        let mut listing = Listing::new(lookup);
        let mut next = String::new();
        for _ in 0..MAX_PAGES {
            let mut query = format!("&limit={PAGE}");
            if self.options.kubernetes_use_cached_resources {
                query.push_str("&resourceVersion=0");
            }
            if !next.is_empty() {
                query = format!("&limit={PAGE}&continue={}", encode(&next));
            }
            let answer = self.server.ask(self.question(lookup, &query)?, within).await?;
            let status = answer.status;
            if status != StatusCode::OK {
                let said = answer.message(within).await;
                let error = SourceError::new(format!("{said}{}", advice(status, lookup)));
                return Err(Refused { status: Some(status), error });
            }
            next = listing.read_page(answer, within).await?;
            if next.is_empty() {
                return Ok(listing);
            }
        }
        Err(SourceError::new(format!("{}: the list does not end", self.server)).into())
    }

    /// The question for objects of this kind; `query` goes behind the selector.
    fn question(&self, lookup: Lookup, query: &str) -> Result<Question, SourceError> {
        let options = &self.options;
        if options.mode == Mode::Hostname && options.kubernetes_service_name.is_none() {
            return Err(SourceError::new(
                "mode hostname needs kubernetes_service_name, the headless service that the host names belong to",
            ));
        }
        let namespace = match &options.kubernetes_namespace {
            Some(namespace) => namespace.clone(),
            None => self.account("namespace")?,
        };
        let selector = match (&options.kubernetes_selector, &options.kubernetes_service_name, &self.app) {
            (Some(selector), ..) => selector.clone(),
            (None, Some(service), _) if lookup == Lookup::EndpointSlices => {
                format!("kubernetes.io/service-name={service}")
            }
            (None, _, Some(app)) => format!("app={app}"),
            (None, _, None) => {
                return Err(SourceError::new(
                    "which pods belong to the cluster is not said: set kubernetes_selector, or FOUNDATION_APP_NAME for \
                     app=NAME",
                ));
            }
        };
        let path = format!(
            "{}/namespaces/{}/{}?labelSelector={}{query}",
            lookup.group(),
            encode(&namespace),
            lookup.resource(),
            encode(&selector)
        );
        let token = self.account("token")?;
        Ok(Question::get(path).header("authorization", format!("Bearer {token}")))
    }

    /// A file of the service account.
    fn account(&self, file: &str) -> Result<String, SourceError> {
        let path = self.options.kubernetes_service_account_path.join(file);
        let text = std::fs::read_to_string(&path).map_err(|error| {
            SourceError::new(format!(
                "cannot read {}: {error}; in a pod it is there unless automountServiceAccountToken is false",
                path.display()
            ))
        })?;
        Ok(text.trim().to_owned())
    }

    /// The nodes that a list names. What is named twice (an endpoint that moves from one slice to another, say) is ready if one
    /// says so.
    fn candidates(&self, listing: &Listing) -> Vec<Candidate> {
        super::once_each(listing.found(self.ipv6).into_iter().filter_map(|found| self.candidate(found)))
    }

    fn candidate(&self, found: &Found) -> Option<Candidate> {
        let ip = found.ip(self.ipv6)?;
        let domain = format!("{}.local", self.options.kubernetes_cluster_name);
        let host = match self.options.mode {
            Mode::Ip => ip.to_string(),
            Mode::Dns => {
                format!("{}.{}.pod.{domain}", ip.to_string().replace(['.', ':'], "-"), found.namespace)
            }
            Mode::Hostname => {
                let service = self.options.kubernetes_service_name.as_ref()?;
                format!("{}.{service}.{}.svc.{domain}", found.hostname.as_ref()?, found.namespace)
            }
        };
        let node = NodeName::new(&self.basename, &host).ok()?;
        // Pods count whether they are ready or not, unless the configuration says otherwise.
        let counts = found.ready || (found.is_pod && !self.options.ready_only);
        Some(Candidate {
            addresses: vec![ip],
            stamp: found.stamp(),
            leaving: found.leaving,
            unready: !counts,
            ..Candidate::new(node, found.evidence.clone())
        })
    }
}

impl Strategy for Kubernetes {
    fn run(self: Arc<Self>, reports: Reports) -> Running {
        Box::pin(async move { self.follow(&reports).await })
    }
}

/// What to do about a status.
fn advice(status: StatusCode, lookup: Lookup) -> String {
    match status {
        StatusCode::UNAUTHORIZED => "; the token of the service account is not accepted".to_owned(),
        StatusCode::FORBIDDEN => {
            let resource = lookup.resource();
            format!("; the role of the service account needs the verbs list and watch for {resource}")
        }
        _ => String::new(),
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The API server.
fn server(options: &Options, variable: impl Fn(&str) -> Option<String>) -> Server {
    let authorities = Some(options.kubernetes_service_account_path.join("ca.crt"));
    let named = |name: &str| {
        // As libcluster has it, but other names are left as they are.
        let domain = variable("CLUSTER_DOMAIN")
            .unwrap_or_else(|| format!("{}.local", options.kubernetes_cluster_name));
        match name.ends_with(".svc") {
            true => format!("{name}.{}", domain.trim_matches('.')),
            false => name.trim_end_matches('.').to_owned(),
        }
    };
    let (host, port) = match &options.kubernetes_master {
        Some(master) => match split_port(master) {
            Some(server) => server,
            None => (named(master), 443),
        },
        None => match variable("KUBERNETES_SERVICE_HOST") {
            Some(host) => {
                let port = variable("KUBERNETES_SERVICE_PORT").and_then(|port| port.parse().ok());
                (host, port.unwrap_or(443))
            }
            None => (named("kubernetes.default.svc"), 443),
        },
    };
    Server { host, port, authorities }
}

/// `host:port` or `[address]:port`.
fn split_port(text: &str) -> Option<(String, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let port = port.parse().ok()?;
    match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(host) => Some((host.to_owned(), port)),
        None if host.contains(':') => None,
        None => Some((host.to_owned(), port)),
    }
}

/// How it shows that this process runs in a pod whose service account can ask.
pub(super) fn evidence() -> Option<String> {
    variable("KUBERNETES_SERVICE_HOST")?;
    let directory = Path::new(SERVICE_ACCOUNT);
    if !directory.join("token").exists() {
        return None;
    }
    let namespace = std::fs::read_to_string(directory.join("namespace")).unwrap_or_default();
    Some(format!("service account found, namespace {}", namespace.trim()))
}

/// The name of a node that was given none, but whose configuration says which pods it belongs to:
/// `FOUNDATION_APP_NAME@address`, as the others will call it.
pub(crate) fn default_name(config: &ClusterConfig) -> Option<String> {
    let app = variable("FOUNDATION_APP_NAME")?;
    let asked = match config.mode {
        Chosen::Auto | Chosen::Environment => evidence().is_some(),
        _ => config.sources.iter().any(|source| {
            matches!(&source.strategy, StrategyConfig::Kubernetes(options) if options.mode == Mode::Ip)
        }),
    };
    if !asked {
        return None;
    }
    let written = variable("POD_IP").and_then(|ip| ip.parse::<IpAddr>().ok());
    let found = || own_address(variable("KUBERNETES_SERVICE_HOST")?.parse().ok()?);
    Some(format!("{app}@{}", written.or_else(found)?))
}
