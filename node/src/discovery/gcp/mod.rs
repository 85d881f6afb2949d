//! Instances of Google Compute Engine by their labels.
//!
//! ```toml
//! [cluster]
//! strategy = "gcp"
//! labels = { cluster = "web" }
//! ```
//!
//! The API is asked for the instances of all zones (`aggregated/instances`), or of those that are written, all pages of it. The token comes
//! from the metadata server of this machine, which the service account of the instance, or of the GKE workload, decides; it is asked
//! for anew before it ends. The node of an instance is `basename@` its address in its network, or what `node_name` says.
//!
//! An instance that is being stopped is left alone: it is not dialled, and not disconnected. One that does not run yet is
//! dialled once it does. Zones that cannot be reached are an error: who is there may be alive.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use foundation_cluster::discovery::Trust;
use hyper::StatusCode;
use serde::{Deserialize, Deserializer};
use tokio::sync::Mutex;

use super::config::{Context, ms};
use super::http::{Answer, Question, Server, encode};
use super::template::{Machine, Template};
use super::{Candidate, Poll, SourceError};

/// Where the metadata server is, if `GCE_METADATA_HOST` does not say otherwise.
const METADATA: &str = "metadata.google.internal";
/// How long it has for an answer: it is on the machine itself.
const METADATA_WITHIN: Duration = Duration::from_secs(5);
/// How long before its end a token is asked for anew. The server has another one five minutes before.
const EARLY: Duration = Duration::from_secs(225);
/// The most instances that the API gives at once.
const PAGE: usize = 500;
/// The most pages of one list.
const MAX_PAGES: usize = 1000;
/// The most instances that one answer may have: the greatest `max_nodes`.
const MAX_MACHINES: usize = 65_536;
/// What a template can have.
const FIELDS: &[&str] = &["ip", "private_ip", "public_ip", "ipv6", "name", "fqdn", "id", "zone", "project"];

/// The keys of this strategy.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Options {
    /// The labels that an instance must have, with these values. Default: `app`, if `FOUNDATION_APP_NAME` is set, which then is its value.
    pub labels: BTreeMap<String, String>,
    /// A filter expression of the API that an instance must match as well.
    pub filter: Option<String>,
    /// The project, by its name. Default: `GOOGLE_CLOUD_PROJECT`, else that of this instance.
    pub project: Option<String>,
    /// The zones to ask. Default: all.
    #[serde(alias = "zone", deserialize_with = "super::config::one_or_many")]
    pub zones: Vec<String>,
    /// The part of the nodes' names before the `@`. Default: this node's own.
    #[serde(alias = "release_name", alias = "basename")]
    pub node_basename: Option<String>,
    /// How nodes are called. `{basename}@{ip}`.
    #[serde(deserialize_with = "node_name")]
    pub node_name: Template,
    /// The service account whose token is used. `default`.
    pub service_account: String,
    /// Where the API is. `https://compute.googleapis.com`.
    pub endpoint: String,
    /// How long the API has for one answer, in milliseconds. 15,000.
    #[serde(with = "ms")]
    pub request_timeout: Duration,
    /// The pause between two questions, in milliseconds. 10,000.
    #[serde(with = "ms")]
    pub polling_interval: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            labels: BTreeMap::new(),
            filter: None,
            project: None,
            zones: Vec::new(),
            node_basename: None,
            node_name: Template::by_address(),
            service_account: "default".to_owned(),
            endpoint: "https://compute.googleapis.com".to_owned(),
            request_timeout: Duration::from_secs(15),
            polling_interval: Duration::from_secs(10),
        }
    }
}

impl Options {
    /// Whether the others call a node by `FOUNDATION_APP_NAME` and its address, if it is given no other name.
    pub(super) fn names_by_address(&self) -> bool {
        self.node_basename.is_none() && self.node_name == Template::by_address()
    }
}

fn node_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Template, D::Error> {
    Template::read(deserializer, FIELDS)
}

/// The strategy.
#[derive(Debug)]
pub struct Gcp {
    options: Options,
    basename: String,
    /// What an instance must match, or why that is not known.
    filter: Result<String, String>,
    /// The project, if it is written.
    project: Option<String>,
    metadata: Result<Server, String>,
    token: Mutex<Option<(String, Instant)>>,
}

/// What the metadata server answers with.
#[derive(Deserialize)]
struct Token {
    access_token: String,
    expires_in: u64,
}

/// A page of `aggregated/instances`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Aggregated {
    kind: String,
    #[serde(default)]
    items: BTreeMap<String, Scope>,
    next_page_token: Option<String>,
    #[serde(default)]
    unreachables: Vec<String>,
}

/// The instances of a zone.
#[derive(Default, Deserialize)]
struct Scope {
    #[serde(default)]
    instances: Vec<Instance>,
}

/// A page of `zones/ZONE/instances`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    kind: String,
    #[serde(default)]
    items: Vec<Instance>,
    next_page_token: Option<String>,
}

/// What is needed of an instance.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Instance {
    id: String,
    name: String,
    zone: String,
    status: String,
    last_start_timestamp: String,
    network_interfaces: Vec<Interface>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Interface {
    #[serde(rename = "networkIP")]
    network_ip: String,
    ipv6_address: String,
    access_configs: Vec<AccessConfig>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct AccessConfig {
    #[serde(rename = "natIP")]
    nat_ip: String,
}

impl Gcp {
    /// The strategy for a node.
    pub fn new(options: Options, context: &Context) -> Self {
        Self::with(options, context, |name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    fn with(options: Options, context: &Context, variable: impl Fn(&str) -> Option<String>) -> Self {
        let host = variable("GCE_METADATA_HOST").unwrap_or_else(|| METADATA.to_owned());
        let app = variable("FOUNDATION_APP_NAME");
        Self {
            basename: options.node_basename.clone().unwrap_or_else(|| context.own.alive().to_owned()),
            filter: filter(&options, app.as_deref()),
            project: options.project.clone().or_else(|| variable("GOOGLE_CLOUD_PROJECT")),
            metadata: Server::of_url(&host, false, None)
                .map(|(server, _)| server)
                .map_err(|why| format!("GCE_METADATA_HOST: {why}")),
            token: Mutex::default(),
            options,
        }
    }

    /// Which names this source may give by itself.
    pub(super) fn trust(&self) -> Trust {
        self.options.node_name.trust(&self.basename)
    }

    /// What the metadata server says under this path.
    async fn metadata(&self, path: &str) -> Result<Answer, SourceError> {
        let server = self.metadata.as_ref().map_err(|why| SourceError::new(why.clone()))?;
        let question =
            Question::get(format!("/computeMetadata/v1/{path}")).header("metadata-flavor", "Google");
        let answer = server.ask(question, METADATA_WITHIN).await.map_err(|error| {
            SourceError::new(format!(
                "the metadata server of Google does not answer: {error}; is this a machine of Google's?"
            ))
        })?;
        // Whoever answers without is somebody else.
        let flavor = answer.headers.get("metadata-flavor").is_some_and(|flavor| flavor == "Google");
        match (answer.status, flavor) {
            (StatusCode::OK, true) => Ok(answer),
            (StatusCode::OK, false) => {
                Err(SourceError::new(format!("{server} is no metadata server of Google")))
            }
            _ => {
                let said = answer.message(METADATA_WITHIN).await;
                Err(SourceError::new(format!("{path} of the metadata server: {said}")))
            }
        }
    }

    async fn token(&self) -> Result<String, SourceError> {
        let mut kept = self.token.lock().await;
        if let Some((token, ends)) = kept.as_ref()
            && Instant::now() + EARLY < *ends
        {
            return Ok(token.clone());
        }
        let asked = Instant::now();
        let path = format!("instance/service-accounts/{}/token", encode(&self.options.service_account));
        let token = async { self.metadata(&path).await?.json::<Token>(METADATA_WITHIN).await }.await;
        match token {
            Ok(token) => {
                // A year is more than any token has.
                let lives = Duration::from_secs(token.expires_in.min(31_536_000));
                *kept = Some((token.access_token.clone(), asked + lives));
                Ok(token.access_token)
            }
            Err(error) => match kept.as_ref().filter(|(_, ends)| Instant::now() < *ends) {
                Some((token, _)) => Ok(token.clone()),
                None => Err(error),
            },
        }
    }

    async fn project(&self) -> Result<String, SourceError> {
        if let Some(project) = &self.project {
            return Ok(project.clone());
        }
        let answer = self.metadata("project/project-id").await?;
        let project = answer.bytes(METADATA_WITHIN).await?;
        let project = String::from_utf8_lossy(&project).trim().to_owned();
        match project.is_empty() {
            false => Ok(project),
            true => Err(SourceError::new("the metadata server says no project: set `project`")),
        }
    }

    /// The answer to one question.
    async fn ask(&self, server: &Server, path: &str) -> Result<Answer, SourceError> {
        let within = self.options.request_timeout;
        let token = self.token().await?;
        let question = Question::get(path).header("authorization", format!("Bearer {token}"));
        let mut answer = server.ask(question, within).await?;
        let advice = match answer.status {
            StatusCode::OK => return Ok(answer),
            StatusCode::UNAUTHORIZED => {
                *self.token.lock().await = None;
                "; the token of the service account is not accepted"
            }
            StatusCode::FORBIDDEN => {
                "; the service account needs compute.instances.list (roles/compute.viewer), and the instance the scope \
                 compute-ro or cloud-platform"
            }
            StatusCode::TOO_MANY_REQUESTS => "; the API is asked too often: raise polling_interval",
            _ => "",
        };
        let body = answer.error_body(within).await;
        Err(SourceError::new(format!("{}{advice}", answer.says(&said(&body)))))
    }

    async fn instances(&self, project: &str) -> Result<Vec<Instance>, SourceError> {
        let filter = self.filter.as_ref().map_err(|why| SourceError::new(why.clone()))?;
        let (server, base) = Server::of_url(&self.options.endpoint, true, None).map_err(SourceError::new)?;
        let base = format!("{}/compute/v1/projects/{}", base.trim_end_matches('/'), encode(project));
        let mut lists = vec![format!("{base}/aggregated/instances")];
        if !self.options.zones.is_empty() {
            let zones = self.options.zones.iter();
            lists = zones.map(|zone| format!("{base}/zones/{}/instances", encode(zone))).collect();
        }
        let mut all = Vec::new();
        for list in lists {
            let mut next = String::new();
            let mut pages = 0;
            loop {
                let path = format!("{list}?maxResults={PAGE}&filter={}{next}", encode(filter));
                let answer = self.ask(&server, &path).await?;
                let token = match self.options.zones.is_empty() {
                    true => {
                        let page: Aggregated = answer.json(self.options.request_timeout).await?;
                        expect(&page.kind, "compute#instanceAggregatedList")?;
                        if let Some(zone) = page.unreachables.first() {
                            return Err(SourceError::new(format!("{server} cannot reach {zone}")));
                        }
                        all.extend(page.items.into_values().flat_map(|scope| scope.instances));
                        page.next_page_token
                    }
                    false => {
                        let page: Listed = answer.json(self.options.request_timeout).await?;
                        expect(&page.kind, "compute#instanceList")?;
                        all.extend(page.items);
                        page.next_page_token
                    }
                };
                if all.len() > MAX_MACHINES {
                    let why =
                        format!("more than {MAX_MACHINES} instances match {filter}; is it the right one?");
                    return Err(SourceError::new(why));
                }
                pages += 1;
                match token.filter(|token| !token.is_empty()) {
                    None => break,
                    Some(_) if pages == MAX_PAGES => {
                        return Err(SourceError::new(format!("{server}: the list does not end")));
                    }
                    Some(token) => next = format!("&pageToken={}", encode(&token)),
                }
            }
        }
        Ok(all)
    }
}

impl Poll for Gcp {
    fn interval(&self) -> Duration {
        self.options.polling_interval
    }

    async fn poll(&self) -> Result<Vec<Candidate>, SourceError> {
        let project = self.project().await?;
        let instances = self.instances(&project).await?;
        let machines = instances.into_iter().filter_map(|instance| instance.machine(&project));
        Ok(self.options.node_name.candidates(&self.basename, machines))
    }
}

/// A list without this is not one of the API: an empty one has it too.
fn expect(kind: &str, wanted: &str) -> Result<(), SourceError> {
    match kind == wanted {
        true => Ok(()),
        false => Err(SourceError::new(format!("the answer is no {wanted} but {kind:?}"))),
    }
}

/// The filter expression: <https://cloud.google.com/compute/docs/reference/rest/v1/instances/aggregatedList>.
fn filter(options: &Options, app: Option<&str>) -> Result<String, String> {
    let labels: Vec<(&str, &str)> = match (options.labels.is_empty(), app) {
        (true, Some(app)) if options.filter.is_none() => vec![("app", app)],
        _ => options.labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect(),
    };
    let mut parts = Vec::new();
    for (key, value) in labels {
        let is_label = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
        if key.is_empty() || !key.chars().all(is_label) || !value.chars().all(is_label) {
            return Err(format!("{key}={value} is no label: they have letters, digits, _ and -"));
        }
        parts.push(format!("(labels.{key} = \"{value}\")"));
    }
    parts.extend(options.filter.as_ref().map(|filter| format!("({filter})")));
    match parts.is_empty() {
        false => Ok(parts.join(" AND ")),
        true => Err(
            "which instances belong to the cluster is not said: set labels, or FOUNDATION_APP_NAME for the label app"
                .to_owned(),
        ),
    }
}

/// What the API says about an error.
fn said(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Body {
        error: Error,
    }
    #[derive(Deserialize)]
    struct Error {
        message: String,
    }
    match serde_json::from_slice::<Body>(body) {
        Ok(body) => body.error.message,
        Err(_) => String::from_utf8_lossy(body).into_owned(),
    }
}

impl Instance {
    /// `None` for what has no node: it does not run, and will not by itself.
    fn machine(self, project: &str) -> Option<Machine> {
        let (leaving, unready) = match self.status.as_str() {
            "RUNNING" => (false, false),
            "PROVISIONING" | "STAGING" => (false, true),
            "PENDING_STOP" | "STOPPING" | "SUSPENDING" | "DEPROVISIONING" => (true, false),
            _ => return None,
        };
        let zone = self.zone.rsplit('/').next().unwrap_or_default().to_owned();
        let interface = self.network_interfaces.into_iter().next().unwrap_or_default();
        let public_ip = interface.access_configs.into_iter().next().unwrap_or_default().nat_ip;
        // An instance without IPv4 has the other.
        let ip =
            if interface.network_ip.is_empty() { &interface.ipv6_address } else { &interface.network_ip };
        let address: Option<IpAddr> = ip.parse().ok();
        Some(Machine {
            address,
            incarnation: format!("{} {}", self.id, self.last_start_timestamp),
            evidence: format!("instance {} in {zone}", self.name),
            leaving,
            unready,
            fields: BTreeMap::from([
                ("ip", address.map(|ip| ip.to_string()).unwrap_or_default()),
                ("private_ip", interface.network_ip),
                ("public_ip", public_ip),
                ("ipv6", interface.ipv6_address),
                ("fqdn", format!("{}.{zone}.c.{project}.internal", self.name)),
                ("name", self.name),
                ("id", self.id),
                ("zone", zone),
                ("project", project.to_owned()),
            ]),
        })
    }
}
