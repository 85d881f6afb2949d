//! Tasks of a service of ECS: `ClusterEcs.Strategy` of libcluster_ecs.
//!
//! ```toml
//! cluster = "ecs"           # in a task: the tasks of its own service
//! ```
//! ```toml
//! [cluster]
//! strategy = "ecs"
//! cluster = "production"
//! service_name = "web"
//! region = "eu-central-1"
//! ```
//!
//! `ListTasks` names the tasks, `DescribeTasks` their addresses. What is not written is that of the task that this node runs in, by
//! the metadata of the container (`ECS_CONTAINER_METADATA_URI_V4`): its cluster, its service or, if it has none, its family. Tasks
//! need addresses of their own, which those of the network mode `awsvpc` have.
//!
//! A task that is being stopped is left alone: it is not dialled, and not disconnected. One that does not run yet is dialled once it does.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use foundation_cluster::discovery::Trust;
use hyper::StatusCode;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use tokio::sync::{Mutex, OnceCell};

use super::{Api, MAX_MACHINES, MAX_PAGES, no_function, variable};
use crate::discovery::config::{Context, ms};
use crate::discovery::http::{Question, Server};
use crate::discovery::template::{Machine, Template};
use crate::discovery::{Candidate, Poll, SourceError};

/// What a template can have.
const FIELDS: &[&str] = &["ip", "private_ip", "ipv6", "private_dns", "task", "zone"];
/// The most tasks that `ListTasks` gives at once, and that `DescribeTasks` takes.
const PAGE: usize = 100;
/// How long the metadata of the container may take: they come from the machine itself.
const METADATA_WITHIN: Duration = Duration::from_secs(5);

/// The keys of this strategy: libcluster_ecs's, and more.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Options {
    /// The cluster, by its name or ARN. Default: that of the task this node runs in.
    pub cluster: Option<String>,
    /// The service or services, by name or ARN. Default: that of the task this node runs in.
    #[serde(alias = "service", deserialize_with = "crate::discovery::config::one_or_many")]
    pub service_name: Vec<String>,
    /// The family of task definitions, instead of a service.
    pub family: Option<String>,
    /// The part of the nodes' names before the `@`. Default: this node's own.
    #[serde(alias = "app_prefix", alias = "basename")]
    pub node_basename: Option<String>,
    /// How nodes are called. `{basename}@{ip}`.
    #[serde(deserialize_with = "node_name")]
    pub node_name: Template,
    /// The region. Default: `AWS_REGION`, `AWS_DEFAULT_REGION`, else that of the task.
    pub region: Option<String>,
    /// Where the API is. Default: `AWS_ENDPOINT_URL_ECS`, `AWS_ENDPOINT_URL`, else that of the region.
    pub endpoint: Option<String>,
    /// How long the API has for one answer, in milliseconds. 15,000.
    #[serde(with = "ms")]
    pub request_timeout: Duration,
    /// The pause between two questions, in milliseconds. 5,000.
    #[serde(with = "ms")]
    pub polling_interval: Duration,
    /// libcluster_ecs's, a function.
    #[serde(deserialize_with = "no_function")]
    pub ip_to_nodename: (),
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cluster: None,
            service_name: Vec::new(),
            family: None,
            node_basename: None,
            node_name: Template::by_address(),
            region: None,
            endpoint: None,
            request_timeout: Duration::from_secs(15),
            polling_interval: Duration::from_secs(5),
            ip_to_nodename: (),
        }
    }
}

impl Options {
    /// Whether the others call a node by `FOUNDATION_APP_NAME` and its address, if it is given no other name.
    pub(in crate::discovery) fn names_by_address(&self) -> bool {
        self.node_basename.is_none() && self.node_name == Template::by_address()
    }
}

fn node_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Template, D::Error> {
    Template::read(deserializer, FIELDS)
}

/// The strategy.
#[derive(Debug)]
pub struct Ecs {
    options: Options,
    basename: String,
    api: Api,
    /// The value of `ECS_CONTAINER_METADATA_URI_V4`.
    metadata: Option<String>,
    /// The task that this node runs in.
    own: OnceCell<OwnTask>,
    /// The tasks that ran when they were last asked for: one that is being stopped is on no list.
    known: Mutex<BTreeSet<String>>,
}

/// What the metadata of the container say of its task.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct OwnTask {
    cluster: String,
    #[serde(rename = "TaskARN")]
    task_arn: String,
    family: String,
    #[serde(default)]
    service_name: String,
}

/// Which tasks.
enum Group<'a> {
    Service(&'a str),
    Family(&'a str),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ListTasks<'a> {
    cluster: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    service_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    family: Option<&'a str>,
    desired_status: &'a str,
    max_results: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    task_arns: Vec<String>,
    next_token: Option<String>,
}

#[derive(Serialize)]
struct DescribeTasks<'a> {
    cluster: &'a str,
    tasks: &'a [String],
}

#[derive(Deserialize)]
struct Described {
    tasks: Vec<Task>,
}

/// A task, as far as it is needed.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Task {
    task_arn: String,
    last_status: String,
    desired_status: String,
    availability_zone: Option<String>,
    attachments: Vec<Attachment>,
    containers: Vec<Container>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Attachment {
    details: Vec<Detail>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Detail {
    name: Option<String>,
    value: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Container {
    network_interfaces: Vec<Interface>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Interface {
    private_ipv4_address: Option<String>,
    ipv6_address: Option<String>,
}

impl Ecs {
    /// The strategy for a node.
    pub fn new(options: Options, context: &Context) -> Self {
        Self::with(options, context, variable)
    }

    pub(super) fn with(
        options: Options,
        context: &Context,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Self {
        let (region, endpoint) = (options.region.as_deref(), options.endpoint.as_deref());
        let actions = "ecs:ListTasks and ecs:DescribeTasks";
        Self {
            basename: options.node_basename.clone().unwrap_or_else(|| context.own.alive().to_owned()),
            api: Api::new("ecs", actions, region, endpoint, options.request_timeout, &variable),
            metadata: variable("ECS_CONTAINER_METADATA_URI_V4"),
            own: OnceCell::new(),
            known: Mutex::default(),
            options,
        }
    }

    /// Which names this source may give by itself.
    pub(in crate::discovery) fn trust(&self) -> Trust {
        self.options.node_name.trust(&self.basename)
    }

    /// The task that this node runs in.
    async fn own(&self) -> Result<&OwnTask, SourceError> {
        let ask = || async {
            let url = self.metadata.as_deref().ok_or_else(|| {
                SourceError::new(
                    "which tasks belong to the cluster is not said: set cluster and service_name; this is no task of ECS, \
                     ECS_CONTAINER_METADATA_URI_V4 is not set",
                )
            })?;
            let (server, path) = Server::of_url(url, false, None)
                .map_err(|why| SourceError::new(format!("ECS_CONTAINER_METADATA_URI_V4: {why}")))?;
            let question = Question::get(format!("{}/task", path.trim_end_matches('/')));
            let answer = server.ask(question, METADATA_WITHIN).await?;
            match answer.status {
                StatusCode::OK => answer.json::<OwnTask>(METADATA_WITHIN).await,
                _ => Err(SourceError::new(answer.message(METADATA_WITHIN).await)),
            }
        };
        self.own.get_or_try_init(ask).await
    }

    /// The answer to one question.
    async fn ask<T: DeserializeOwned>(
        &self,
        action: &str,
        parameters: &impl Serialize,
    ) -> Result<T, SourceError> {
        // In a task the region goes without saying.
        if self.api.written_region.is_none() && self.metadata.is_some() && self.api.region.get().is_none() {
            let arn = &self.own().await?.task_arn;
            if let Some(region) = arn.split(':').nth(3).filter(|region| !region.is_empty()) {
                // Somebody else may have set it to the same.
                let _ = self.api.region.set(region.to_owned());
            }
        }
        let body = serde_json::to_string(parameters).map_err(|error| SourceError::new(error.to_string()))?;
        let target = format!("AmazonEC2ContainerServiceV20141113.{action}");
        let answer = self.api.ask("application/x-amz-json-1.1", Some(&target), body).await?;
        serde_json::from_slice(&answer).map_err(|error| {
            SourceError::new(format!("the answer of ECS to {action} is not what was expected: {error}"))
        })
    }

    /// The tasks that shall run.
    async fn list(&self, cluster: &str, group: &Group<'_>) -> Result<Vec<String>, SourceError> {
        let mut all = Vec::new();
        let mut next_token = None;
        for _ in 0..MAX_PAGES {
            let (service_name, family) = match group {
                Group::Service(name) => (Some(*name), None),
                Group::Family(name) => (None, Some(*name)),
            };
            let question = ListTasks {
                cluster,
                service_name,
                family,
                desired_status: "RUNNING",
                max_results: PAGE,
                next_token,
            };
            let page: Listed = self.ask("ListTasks", &question).await?;
            all.extend(page.task_arns);
            if all.len() > MAX_MACHINES {
                return Err(SourceError::new(format!("the service has more than {MAX_MACHINES} tasks")));
            }
            match page.next_token.filter(|token| !token.is_empty()) {
                None => return Ok(all),
                next => next_token = next,
            }
        }
        Err(SourceError::new("the list of ECS does not end"))
    }

    async fn tasks(&self) -> Result<Vec<Task>, SourceError> {
        let cluster = match &self.options.cluster {
            Some(cluster) => cluster.as_str(),
            None => self.own().await?.cluster.as_str(),
        };
        let groups: Vec<Group<'_>> = match (self.options.service_name.as_slice(), &self.options.family) {
            ([], Some(family)) => vec![Group::Family(family)],
            ([], None) => {
                let own = self.own().await?;
                vec![match own.service_name.as_str() {
                    "" => Group::Family(&own.family),
                    service => Group::Service(service),
                }]
            }
            (services, _) => services.iter().map(|name| Group::Service(name)).collect(),
        };
        let mut known = self.known.lock().await;
        let mut arns = known.clone();
        for group in &groups {
            arns.extend(self.list(cluster, group).await?);
        }
        let arns: Vec<String> = arns.into_iter().collect();
        let mut tasks = Vec::new();
        for page in arns.chunks(PAGE) {
            let described: Described =
                self.ask("DescribeTasks", &DescribeTasks { cluster, tasks: page }).await?;
            tasks.extend(described.tasks.into_iter().filter(|task| !task.has_ended()));
        }
        *known = tasks.iter().map(|task| task.task_arn.clone()).collect();
        Ok(tasks)
    }

    fn candidates(&self, tasks: Vec<Task>) -> Result<Vec<Candidate>, SourceError> {
        let runs = tasks.iter().any(|task| task.last_status == "RUNNING");
        if runs && tasks.iter().all(|task| task.address().is_none()) {
            return Err(SourceError::new(
                "the tasks have no addresses of their own: they need the network mode awsvpc",
            ));
        }
        Ok(self.options.node_name.candidates(&self.basename, tasks.into_iter().map(Task::machine)))
    }
}

impl Poll for Ecs {
    fn interval(&self) -> Duration {
        self.options.polling_interval
    }

    async fn poll(&self) -> Result<Vec<Candidate>, SourceError> {
        self.candidates(self.tasks().await?)
    }
}

impl Task {
    /// Nothing of it runs any more.
    fn has_ended(&self) -> bool {
        ["DEPROVISIONING", "STOPPED", "DELETED"].contains(&self.last_status.as_str())
    }

    fn detail(&self, name: &str) -> Option<&str> {
        let details = self.attachments.iter().flat_map(|attachment| &attachment.details);
        details
            .filter(|detail| detail.name.as_deref() == Some(name))
            .find_map(|detail| detail.value.as_deref())
    }

    fn interface(&self, address: impl Fn(&Interface) -> Option<&str>) -> Option<&str> {
        self.containers.iter().flat_map(|container| &container.network_interfaces).find_map(address)
    }

    /// Its address: in the attachment, and with its containers too once they run.
    fn address(&self) -> Option<IpAddr> {
        let own = self.detail("privateIPv4Address");
        own.or_else(|| self.interface(|interface| interface.private_ipv4_address.as_deref()))?.parse().ok()
    }

    fn machine(self) -> Machine {
        let address = self.address();
        let ip = address.map(|ip| ip.to_string()).unwrap_or_default();
        let id = self.task_arn.rsplit('/').next().unwrap_or_default().to_owned();
        let text = |value: Option<&str>| value.unwrap_or_default().to_owned();
        Machine {
            address,
            incarnation: self.task_arn.clone(),
            evidence: format!("task {id}"),
            leaving: self.desired_status == "STOPPED" || self.last_status == "STOPPING",
            unready: ["PROVISIONING", "PENDING", "ACTIVATING"].contains(&self.last_status.as_str()),
            fields: BTreeMap::from([
                ("ip", ip.clone()),
                ("private_ip", ip),
                ("ipv6", text(self.interface(|interface| interface.ipv6_address.as_deref()))),
                ("private_dns", text(self.detail("privateDnsName"))),
                ("task", id),
                ("zone", text(self.availability_zone.as_deref())),
            ]),
        }
    }
}
