//! Asking Consul: `Cluster.Strategy.Consul` of libcluster_consul.
//!
//! ```toml
//! cluster = "consul"          # with FOUNDATION_APP_NAME=web: the instances of the service web, this node among them
//! ```
//! ```toml
//! [cluster]
//! strategy = "consul"
//! service = "web"
//! base_url = "http://consul.service.dc1.consul:8500"
//! register = true
//! ```
//!
//! | `list_using` | asks for | node |
//! |---|---|---|
//! | `health` | `/v1/health/service/NAME` | `basename@` the instance's address, else that of the Consul node |
//! | `agent` | `/v1/agent/health/service/name/NAME`, or `/v1/agent/service/ID` | `basename@` the instance's address |
//! | `catalog` | `/v1/catalog/service/NAME` | `basename@` the Consul node's address |
//!
//! An instance with the meta key `node` is named by that, exactly: so do nodes that register themselves. With one question to
//! `health` or `catalog` Consul answers when something has changed (blocking queries); otherwise it is asked in each interval.
//!
//! An instance whose checks fail is left alone: it is not dialled, and not disconnected. An answer other than 200 is an error and
//! changes nothing, except those of `agent`, which are whole answers with the state of the instances as their status.

mod answers;
mod registration;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use foundation_proto::dist::NodeName;
use hyper::StatusCode;
use serde::{Deserialize, Deserializer};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until};
use toml::Value;

use self::answers::Instance;
pub use self::registration::Check;
use self::registration::Registration;
use super::config::{Context, Secret, ms};
use super::http::{Answer, Question, Server, encode};
use super::polling::{back_off, pause};
use super::{Candidate, Reports, Running, SourceError, Strategy};

/// How long Consul has for one answer that it need not wait for.
const WITHIN: Duration = Duration::from_secs(15);
/// How long Consul waits for a change. It adds up to a sixteenth of it.
const WAIT: Duration = Duration::from_secs(55);
/// The least time between two questions: a service that changes all the time must not keep this node busy.
const LEAST: Duration = Duration::from_millis(250);
/// The most instances that one answer may have: the greatest `max_nodes`.
const MAX_INSTANCES: usize = 65_536;

/// The keys of this strategy: libcluster_consul's, and those of the registration.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Options {
    /// Where Consul is. Default: `CONSUL_HTTP_ADDR`, else `http://localhost:8500`.
    pub base_url: Option<String>,
    /// The ACL token. Default: `CONSUL_HTTP_TOKEN`, else what the file `CONSUL_HTTP_TOKEN_FILE` says each time.
    pub access_token: Option<Secret>,
    /// With `https`, the file with the CAs of Consul's certificate. Default: `CONSUL_CACERT`, else those of this system.
    pub cacert: Option<PathBuf>,
    /// Which instances: `"web"`, `{ name = "web" }` or `{ id = "web-1" }`. Default: `FOUNDATION_APP_NAME`.
    #[serde(deserialize_with = "service")]
    pub service: Option<Service>,
    /// The part of the nodes' names before the `@`. Default: this node's own.
    #[serde(alias = "basename")]
    pub node_basename: Option<String>,
    /// What is asked. `health`.
    #[serde(deserialize_with = "endpoints")]
    pub list_using: Vec<Endpoint>,
    /// The datacenter, or several. Default: that of the agent.
    #[serde(alias = "datacenters", deserialize_with = "super::config::one_or_many")]
    pub dc: Vec<String>,
    /// A filter expression that instances must match.
    pub filter: Option<String>,
    /// Whether instances are left alone whose checks do not all pass. Yes.
    pub passing: bool,
    /// Whether nodes are named by addresses or, where the instance has none, by the name of its Consul node.
    pub expected: Expected,
    /// Whether this node registers itself. Default: if `service` is not written.
    pub register: Option<bool>,
    /// The tags of the registration. `erlang`.
    pub tags: Vec<String>,
    /// How Consul checks this node.
    pub check: Check,
    /// After how long without a sign of life Consul takes this node for dead, in milliseconds. 15,000.
    #[serde(with = "ms")]
    pub ttl: Duration,
    /// libcluster_consul's. Discovery never holds up the start of this node.
    #[serde(alias = "async_initial_connection?")]
    pub async_initial_connection: bool,
    /// libcluster_consul's. Certificates are always checked.
    #[serde(alias = "disable_verify_ssl?", deserialize_with = "never")]
    pub disable_verify_ssl: bool,
    /// The pause between two questions where Consul does not wait for changes, in milliseconds. 5,000.
    #[serde(with = "ms")]
    pub polling_interval: Duration,
}

/// Which instances.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Service {
    /// All of the service of this name.
    Name(String),
    /// The one of this ID, at the agent.
    Id(String),
}

/// What is asked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Endpoint {
    /// The catalog with the checks of each instance.
    Health,
    /// The agent's own instances.
    Agent,
    /// The catalog without checks.
    Catalog,
}

/// How an instance without an address of its own is named.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum Expected {
    /// By the address of its Consul node.
    #[default]
    #[serde(alias = ":ip")]
    Ip,
    /// By the name of its Consul node.
    #[serde(alias = ":host")]
    Host,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            base_url: None,
            access_token: None,
            cacert: None,
            service: None,
            node_basename: None,
            list_using: vec![Endpoint::Health],
            dc: Vec::new(),
            filter: None,
            passing: true,
            expected: Expected::Ip,
            register: None,
            tags: vec!["erlang".to_owned()],
            check: Check::Ttl,
            ttl: Duration::from_secs(15),
            async_initial_connection: true,
            disable_verify_ssl: false,
            polling_interval: Duration::from_secs(5),
        }
    }
}

/// `"web"`, `{ name = "web" }` or `{ id = "web-1" }`.
fn service<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Service>, D::Error> {
    let wrong = || serde::de::Error::custom("service must be a name, { name = … } or { id = … }");
    match Value::deserialize(deserializer)? {
        Value::String(name) if !name.is_empty() => Ok(Some(Service::Name(name))),
        table @ Value::Table(_) => table.try_into().map(Some).map_err(|_| wrong()),
        _ => Err(wrong()),
    }
}

fn endpoints<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Endpoint>, D::Error> {
    let names: Vec<String> = match Value::deserialize(deserializer)? {
        Value::String(name) => vec![name],
        // libcluster_consul's `[{Cluster.Strategy.Consul.Health, [passing: true]}]`.
        Value::Table(table) => {
            let refused =
                table.values().any(|options| options.get("passing") == Some(&Value::Boolean(false)));
            if refused {
                return Err(serde::de::Error::custom(
                    "list_using with passing: false is written as passing = false beside it",
                ));
            }
            table.into_iter().map(|(name, _)| name).collect()
        }
        names => names
            .try_into()
            .map_err(|_| serde::de::Error::custom("list_using must be a name or a list of names"))?,
    };
    if names.is_empty() {
        return Err(serde::de::Error::custom("list_using must name what is asked: health, agent or catalog"));
    }
    let endpoint = |name: &String| {
        let name = name.trim_start_matches("Elixir.").trim_start_matches("Cluster.Strategy.Consul.");
        match name.to_lowercase().as_str() {
            "health" => Ok(Endpoint::Health),
            "agent" => Ok(Endpoint::Agent),
            "catalog" => Ok(Endpoint::Catalog),
            "multisite" => Err(serde::de::Error::custom(
                "list_using has no multisite here: name the datacenters in `dc`, and health or catalog",
            )),
            _ => Err(serde::de::Error::custom(format!(
                "list_using has no {name:?}; there are health, agent and catalog"
            ))),
        }
    };
    names.iter().map(endpoint).collect()
}

fn never<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    match bool::deserialize(deserializer)? {
        false => Ok(false),
        true => Err(serde::de::Error::custom(
            "disable_verify_ssl is not offered: name the CA of Consul's certificate in `cacert`",
        )),
    }
}

/// The strategy.
#[derive(Debug)]
pub struct Consul {
    options: Options,
    basename: String,
    service: Option<Service>,
    api: Result<Api, String>,
    registration: Option<Registration>,
}

/// Consul's HTTP API.
#[derive(Clone, Debug)]
struct Api {
    server: Server,
    token: Token,
}

/// The ACL token.
#[derive(Clone, Debug)]
enum Token {
    None,
    Written(Secret),
    File(PathBuf),
}

/// One question, and what it was last answered with.
struct Asked {
    endpoint: Endpoint,
    path: String,
    last: Option<Vec<Instance>>,
}

impl Consul {
    /// The strategy for a node.
    pub fn new(options: Options, context: &Context) -> Self {
        let app = variable("FOUNDATION_APP_NAME").map(Service::Name);
        let service = options.service.clone().or(app);
        let registers = options.register.unwrap_or(options.service.is_none());
        let registration = match &service {
            Some(Service::Name(name)) if registers => Some(Registration::new(name, &options, context)),
            _ => None,
        };
        Self {
            basename: options.node_basename.clone().unwrap_or_else(|| context.own.alive().to_owned()),
            api: Api::new(&options, variable),
            service,
            registration,
            options,
        }
    }

    /// Asks for ever.
    async fn follow(&self, reports: &Reports) {
        let mut failures = 0;
        let (api, mut asked) = loop {
            match self.api.clone().and_then(|api| Ok((api, self.questions()?))) {
                Ok(ready) => break ready,
                Err(why) => {
                    reports.failed(SourceError::new(why)).await;
                    pause(back_off(self.options.polling_interval, &mut failures)).await;
                }
            }
        };
        match asked.as_mut_slice() {
            [one] if one.endpoint != Endpoint::Agent => self.wait_for_changes(&api, one, reports).await,
            several => self.poll(&api, several, reports).await,
        }
    }

    /// Blocking queries (<https://developer.hashicorp.com/consul/api-docs/features/blocking>).
    async fn wait_for_changes(&self, api: &Api, asked: &mut Asked, reports: &Reports) {
        let mut index = 0_u64;
        let mut failures = 0;
        let period = self.options.polling_interval;
        loop {
            let begun = Instant::now();
            let (path, within) = match index {
                0 => (asked.path.clone(), WITHIN),
                _ => {
                    let path = with(&asked.path, "index", &index.to_string());
                    let path = with(&path, "wait", &format!("{}s", WAIT.as_secs()));
                    (path, WAIT + WAIT / 16 + WITHIN)
                }
            };
            // While nothing changes, what was said stands, and is reported as often as polling would.
            let mut again = interval_at(begun + period, period);
            again.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let question = self.ask(api, asked.endpoint, path, within);
            tokio::pin!(question);
            let answer = loop {
                tokio::select! {
                    answer = &mut question => break answer,
                    _ = again.tick() => {
                        if let Some(last) = &asked.last {
                            reports.found(self.candidates(last)).await;
                        }
                    }
                }
            };
            match answer {
                Ok((instances, at)) => {
                    failures = 0;
                    // An index that goes back is that of another Consul: what changed since is not known.
                    index = if at < index { 0 } else { at.max(1) };
                    reports.found(self.candidates(&instances)).await;
                    asked.last = Some(instances);
                    // Who gives no index does not wait for changes either.
                    sleep_until(begun + if at == 0 { period } else { LEAST }).await;
                }
                Err(error) => {
                    index = 0;
                    asked.last = None;
                    reports.failed(error).await;
                    pause(back_off(period, &mut failures)).await;
                }
            }
        }
    }

    /// Asks all questions in each interval. If one of them fails, its last answer is kept.
    async fn poll(&self, api: &Api, asked: &mut [Asked], reports: &Reports) {
        let mut failures = 0;
        loop {
            let mut failure = None;
            let mut answered = false;
            for question in asked.iter_mut() {
                match self.ask(api, question.endpoint, question.path.clone(), WITHIN).await {
                    Ok((instances, _)) => {
                        answered = true;
                        question.last = Some(instances);
                    }
                    Err(error) => failure = failure.or(Some(error)),
                }
            }
            let known = asked.iter().flat_map(|question| question.last.as_deref().unwrap_or_default());
            let candidates = self.candidates(known);
            match failure {
                // With one answer, whoever the others named stays named; without any there is nothing new to say.
                Some(failure) if !answered || candidates.is_empty() => {
                    reports.failed(failure).await;
                    pause(back_off(self.options.polling_interval, &mut failures)).await;
                }
                _ => {
                    failures = 0;
                    reports.found(candidates).await;
                    pause(self.options.polling_interval).await;
                }
            }
        }
    }

    /// One question: the instances, and the index that the answer is for.
    async fn ask(
        &self,
        api: &Api,
        endpoint: Endpoint,
        path: String,
        within: Duration,
    ) -> Result<(Vec<Instance>, u64), SourceError> {
        let answer = api.server.ask(api.authorized(Question::get(path))?, within).await?;
        let whole = match answer.status {
            StatusCode::OK => true,
            // The worst state among the instances, which are all there.
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                endpoint == Endpoint::Agent && is_json(&answer)
            }
            // The agent has none.
            StatusCode::NOT_FOUND => {
                let by_name = matches!(self.service, Some(Service::Name(_)));
                endpoint == Endpoint::Agent && by_name && is_json(&answer)
            }
            _ => false,
        };
        if !whole {
            return Err(refusal(answer).await);
        }
        let header = |name| answer.headers.get(name).and_then(|text| text.to_str().ok());
        let index = header("x-consul-index").and_then(|text| text.parse().ok()).unwrap_or(0);
        let is_filtered = header("x-consul-results-filtered-by-acls") == Some("true");
        let instances = answers::read(answer, endpoint, self.service.as_ref(), WITHIN).await?;
        if instances.is_empty() && is_filtered {
            let why = "Consul has instances, and does not show them to this token: it needs service:read and node:read";
            return Err(SourceError::new(why));
        }
        if instances.len() > MAX_INSTANCES {
            let why = format!("the service has more than {MAX_INSTANCES} instances; is it the right one?");
            return Err(SourceError::new(why));
        }
        Ok((instances, index))
    }

    fn questions(&self) -> Result<Vec<Asked>, String> {
        let service = self
            .service
            .as_ref()
            .ok_or("which service is the cluster is not said: set `service`, or FOUNDATION_APP_NAME")?;
        let mut all = Vec::new();
        let datacenters: Vec<Option<&String>> = match self.options.dc.is_empty() {
            true => vec![None],
            false => self.options.dc.iter().map(Some).collect(),
        };
        for endpoint in &self.options.list_using {
            let path = match (endpoint, service) {
                (Endpoint::Health, Service::Name(name)) => format!("health/service/{}", encode(name)),
                (Endpoint::Catalog, Service::Name(name)) => format!("catalog/service/{}", encode(name)),
                (Endpoint::Agent, Service::Name(name)) => {
                    format!("agent/health/service/name/{}", encode(name))
                }
                (Endpoint::Agent, Service::Id(id)) => format!("agent/service/{}", encode(id)),
                (_, Service::Id(_)) => {
                    return Err(
                        "an instance can be asked for by its ID with list_using = \"agent\" only".into()
                    );
                }
            };
            for dc in &datacenters {
                let mut path = format!("/v1/{path}");
                for (key, value) in [("dc", *dc), ("filter", self.options.filter.as_ref())] {
                    if let Some(value) = value {
                        path = with(&path, key, &encode(value));
                    }
                }
                all.push(Asked { endpoint: *endpoint, path, last: None });
            }
        }
        Ok(all)
    }

    fn candidates<'a>(&self, instances: impl IntoIterator<Item = &'a Instance>) -> Vec<Candidate> {
        let mut nodes: BTreeMap<NodeName, Candidate> = BTreeMap::new();
        for instance in instances {
            let host = match self.options.expected {
                Expected::Host if instance.own_address.is_empty() => &instance.node_name,
                _ if instance.own_address.is_empty() => &instance.node_address,
                _ => &instance.own_address,
            };
            let exact = instance.exact.as_deref().map(NodeName::parse);
            let Ok(node) = exact.unwrap_or_else(|| NodeName::new(&self.basename, host)) else { continue };
            let unready = self.options.passing && !instance.passing;
            nodes.entry(node.clone()).and_modify(|known| known.unready &= unready).or_insert_with(|| {
                Candidate {
                    addresses: host.parse().ok().into_iter().collect(),
                    unready,
                    ..Candidate::new(
                        node,
                        format!("instance {} of the service {}", instance.id, instance.service),
                    )
                }
            });
        }
        nodes.into_values().collect()
    }
}

impl Strategy for Consul {
    fn run(self: Arc<Self>, reports: Reports) -> Running {
        Box::pin(async move {
            match (&self.registration, &self.api) {
                (Some(registration), Ok(api)) => {
                    tokio::join!(self.follow(&reports), registration.keep(api));
                }
                _ => self.follow(&reports).await,
            }
        })
    }

    fn stop(self: Arc<Self>) -> Running {
        Box::pin(async move {
            if let (Some(registration), Ok(api)) = (&self.registration, &self.api) {
                registration.withdraw(api).await;
            }
        })
    }
}

/// A path with one more parameter.
fn with(path: &str, key: &str, value: &str) -> String {
    format!("{path}{}{key}={value}", if path.contains('?') { '&' } else { '?' })
}

fn is_json(answer: &Answer) -> bool {
    let kind = answer.headers.get("content-type").and_then(|kind| kind.to_str().ok());
    kind.is_some_and(|kind| kind.starts_with("application/json"))
}

/// What a status means that is no answer.
async fn refusal(answer: Answer) -> SourceError {
    let advice = match answer.status {
        StatusCode::FORBIDDEN => {
            "; the token needs service:read and node:read, and service:write if this node registers itself \
             (access_token, or CONSUL_HTTP_TOKEN)"
        }
        _ => "",
    };
    SourceError::new(format!("{}{advice}", answer.message(WITHIN).await))
}

impl Api {
    fn new(options: &Options, variable: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let written = options.base_url.clone().or_else(|| variable("CONSUL_HTTP_ADDR"));
        let url = written.unwrap_or_else(|| "http://localhost:8500".to_owned());
        let tls = matches!(variable("CONSUL_HTTP_SSL").as_deref(), Some("1" | "true"));
        let authorities = options.cacert.clone().or_else(|| variable("CONSUL_CACERT").map(PathBuf::from));
        let (server, path) = Server::of_url(&url, tls, authorities)?;
        if path != "/" {
            return Err(format!(
                "{url:?} is no address of Consul: write http://HOST:PORT or https://HOST:PORT"
            ));
        }
        let token = match (
            &options.access_token,
            variable("CONSUL_HTTP_TOKEN"),
            variable("CONSUL_HTTP_TOKEN_FILE"),
        ) {
            (Some(token), ..) => Token::Written(token.clone()),
            (None, Some(token), _) => Token::Written(Secret::new(token)),
            (None, None, Some(file)) => Token::File(file.into()),
            (None, None, None) => Token::None,
        };
        Ok(Self { server, token })
    }

    /// The question with the token.
    fn authorized(&self, question: Question) -> Result<Question, SourceError> {
        let token = match &self.token {
            Token::None => return Ok(question),
            Token::Written(token) => String::from_utf8_lossy(token.as_bytes()).into_owned(),
            Token::File(file) => std::fs::read_to_string(file)
                .map_err(|error| SourceError::new(format!("cannot read {}: {error}", file.display())))?,
        };
        Ok(question.header("x-consul-token", token.trim()))
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
