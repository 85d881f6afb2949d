//! Instances of EC2 by their tags: `ClusterEC2.Strategy.Tags` of libcluster_ec2.
//!
//! ```toml
//! [cluster]
//! strategy = "ec2"
//! ec2_tagname = "cluster"
//! ec2_tagvalue = "web"
//! ```
//!
//! `DescribeInstances` is asked for the instances with that tag, all pages of it. Without `ec2_tagvalue` they are those whose tag has
//! the value that it has on this instance. The node of an instance is `basename@` its private address, or what `node_name` says.
//!
//! An instance that is being stopped is left alone: it is not dialled, and not disconnected.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use foundation_cluster::discovery::Trust;
use roxmltree::Node;
use serde::{Deserialize, Deserializer};
use tokio::sync::OnceCell;
use toml::Value;

use super::{Api, MAX_MACHINES, MAX_PAGES, no_function, variable, xml};
use crate::discovery::config::{Context, ms};
use crate::discovery::http::encode;
use crate::discovery::template::{Machine, Template};
use crate::discovery::{Candidate, Poll, SourceError};

/// The version of the API that is spoken.
const VERSION: &str = "2016-11-15";
/// What a template can have.
const FIELDS: &[&str] =
    &["ip", "private_ip", "public_ip", "ipv6", "private_dns", "public_dns", "hostname", "id", "name", "zone"];

/// The keys of this strategy: libcluster_ec2's, and more.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Options {
    /// The key of the tag. Default: `app`, if `FOUNDATION_APP_NAME` is set, which then is its value.
    #[serde(alias = "tag_name")]
    pub ec2_tagname: Option<String>,
    /// The value of the tag. Default: the value that it has on this instance.
    #[serde(alias = "tag_value")]
    pub ec2_tagvalue: Option<String>,
    /// More filters of `DescribeInstances`: `{ "vpc-id" = "vpc-1", "tag:stage" = ["a", "b"] }`.
    #[serde(deserialize_with = "filters")]
    pub filters: BTreeMap<String, Vec<String>>,
    /// The part of the nodes' names before the `@`. Default: this node's own.
    #[serde(alias = "app_prefix", alias = "basename")]
    pub node_basename: Option<String>,
    /// Which address `{ip}` is. `private`.
    pub ip_type: IpType,
    /// How nodes are called. `{basename}@{ip}`.
    #[serde(deserialize_with = "node_name")]
    pub node_name: Template,
    /// The region. Default: `AWS_REGION`, `AWS_DEFAULT_REGION`, else that of this instance.
    pub region: Option<String>,
    /// Where the API is. Default: `AWS_ENDPOINT_URL_EC2`, `AWS_ENDPOINT_URL`, else that of the region.
    pub endpoint: Option<String>,
    /// How many instances are asked for at once, 5 to 1,000. 1,000.
    #[serde(deserialize_with = "page_size")]
    pub page_size: u16,
    /// How long the API has for one answer, in milliseconds. 15,000.
    #[serde(with = "ms")]
    pub request_timeout: Duration,
    /// The pause between two questions, in milliseconds. 5,000.
    #[serde(with = "ms")]
    pub polling_interval: Duration,
    /// libcluster_ec2's. What is logged here is said by `log`.
    pub show_debug: bool,
    /// libcluster_ec2's, a function.
    #[serde(deserialize_with = "no_function")]
    pub ip_to_nodename: (),
}

/// Which of an instance's addresses.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum IpType {
    /// That in its network.
    #[default]
    #[serde(alias = ":private")]
    Private,
    /// That from outside.
    #[serde(alias = ":public")]
    Public,
    /// Its IPv6 address.
    Ipv6,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            ec2_tagname: None,
            ec2_tagvalue: None,
            filters: BTreeMap::new(),
            node_basename: None,
            ip_type: IpType::Private,
            node_name: Template::by_address(),
            region: None,
            endpoint: None,
            page_size: 1000,
            request_timeout: Duration::from_secs(15),
            polling_interval: Duration::from_secs(5),
            show_debug: false,
            ip_to_nodename: (),
        }
    }
}

impl Options {
    /// Whether the others call a node by `FOUNDATION_APP_NAME` and its address, if it is given no other name.
    pub(in crate::discovery) fn names_by_address(&self) -> bool {
        self.node_basename.is_none()
            && self.ip_type == IpType::Private
            && self.node_name == Template::by_address()
    }
}

fn node_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Template, D::Error> {
    Template::read(deserializer, FIELDS)
}

fn page_size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    match u16::deserialize(deserializer) {
        Ok(size @ 5..=1000) => Ok(size),
        _ => Err(serde::de::Error::custom("page_size must be 5 to 1000")),
    }
}

fn filters<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, Vec<String>>, D::Error> {
    let wrong = || {
        serde::de::Error::custom(
            "filters must be a table, each value a string or a list: { \"vpc-id\" = \"vpc-1\" }",
        )
    };
    let table = toml::Table::deserialize(deserializer).map_err(|_| wrong())?;
    let values = |value| match value {
        Value::String(text) => Ok(vec![text]),
        other => other.try_into::<Vec<String>>().map_err(|_| wrong()),
    };
    table.into_iter().map(|(name, value)| Ok((name, values(value)?))).collect()
}

/// The strategy.
#[derive(Debug)]
pub struct Ec2 {
    options: Options,
    basename: String,
    api: Api,
    /// The value of `FOUNDATION_APP_NAME`.
    app: Option<String>,
    /// The value of the tag on this instance.
    own_value: OnceCell<String>,
}

impl Ec2 {
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
        Self {
            basename: options.node_basename.clone().unwrap_or_else(|| context.own.alive().to_owned()),
            api: Api::new(
                "ec2",
                "ec2:DescribeInstances",
                region,
                endpoint,
                options.request_timeout,
                &variable,
            ),
            app: variable("FOUNDATION_APP_NAME"),
            own_value: OnceCell::new(),
            options,
        }
    }

    /// Which names this source may give by itself.
    pub(in crate::discovery) fn trust(&self) -> Trust {
        self.options.node_name.trust(&self.basename)
    }

    /// The tag that the instances have.
    async fn tag(&self) -> Result<(&str, &str), SourceError> {
        let written = (self.options.ec2_tagname.as_deref(), self.options.ec2_tagvalue.as_deref());
        match (written, self.app.as_deref()) {
            ((Some(name), Some(value)), _) => Ok((name, value)),
            ((None, Some(value)), _) => Ok(("app", value)),
            ((None, None), Some(app)) => Ok(("app", app)),
            ((Some(name), None), _) => {
                let value = self.own_value.get_or_try_init(|| self.own_value(name)).await?;
                Ok((name, value))
            }
            ((None, None), None) => Err(SourceError::new(
                "which instances belong to the cluster is not said: set ec2_tagname, or FOUNDATION_APP_NAME for the tag app",
            )),
        }
    }

    async fn own_value(&self, name: &str) -> Result<String, SourceError> {
        let id = self.api.metadata.get("/latest/meta-data/instance-id").await.map_err(|error| {
            SourceError::new(format!(
                "what the tag {name} is on this instance is not known: {error}; set ec2_tagvalue"
            ))
        })?;
        let page = self.page(&format!("&InstanceId.1={}", encode(&id))).await?;
        let own = page.instances.iter().find(|instance| instance.id == id);
        own.and_then(|instance| instance.tags.get(name)).cloned().ok_or_else(|| {
            SourceError::new(format!(
                "this instance, {id}, has no tag {name}: give it one, or set ec2_tagvalue"
            ))
        })
    }

    /// `DescribeInstances` with these parameters behind the others.
    async fn page(&self, parameters: &str) -> Result<Page, SourceError> {
        let body = format!("Action=DescribeInstances&Version={VERSION}{parameters}");
        let kind = "application/x-www-form-urlencoded; charset=utf-8";
        let answer = self.api.ask(kind, None, body).await?;
        Page::read(&answer)
            .map_err(|why| SourceError::new(format!("the answer of EC2 is not what was expected: {why}")))
    }

    /// The instances of all pages.
    async fn instances(&self) -> Result<Vec<Instance>, SourceError> {
        let (name, value) = self.tag().await?;
        let mut filters = vec![
            (format!("tag:{name}"), vec![value.to_owned()]),
            // The others have no address any more, or none yet.
            (
                "instance-state-name".to_owned(),
                ["running", "stopping", "shutting-down"].map(str::to_owned).to_vec(),
            ),
        ];
        filters.extend(self.options.filters.clone());
        let mut parameters = format!("&MaxResults={}", self.options.page_size);
        for ((name, values), at) in filters.iter().zip(1..) {
            parameters.push_str(&format!("&Filter.{at}.Name={}", encode(name)));
            for (value, of) in values.iter().zip(1..) {
                parameters.push_str(&format!("&Filter.{at}.Value.{of}={}", encode(value)));
            }
        }
        let mut all = Vec::new();
        let mut next = String::new();
        for _ in 0..MAX_PAGES {
            let page = self.page(&format!("{parameters}{next}")).await?;
            all.extend(page.instances);
            if all.len() > MAX_MACHINES {
                let why = format!(
                    "more than {MAX_MACHINES} instances have the tag {name}={value}; is it the right one?"
                );
                return Err(SourceError::new(why));
            }
            match page.next {
                None => return Ok(all),
                Some(token) => next = format!("&NextToken={}", encode(&token)),
            }
        }
        Err(SourceError::new("the list of EC2 does not end"))
    }

    fn candidates(&self, instances: Vec<Instance>) -> Vec<Candidate> {
        let machines = instances.into_iter().map(|instance| instance.machine(self.options.ip_type));
        self.options.node_name.candidates(&self.basename, machines)
    }
}

impl Poll for Ec2 {
    fn interval(&self) -> Duration {
        self.options.polling_interval
    }

    async fn poll(&self) -> Result<Vec<Candidate>, SourceError> {
        Ok(self.candidates(self.instances().await?))
    }
}

/// A page of `DescribeInstances`.
#[derive(Debug, Default, Eq, PartialEq)]
pub(super) struct Page {
    pub(super) instances: Vec<Instance>,
    pub(super) next: Option<String>,
}

/// What is needed of an instance.
#[derive(Debug, Default, Eq, PartialEq)]
pub(super) struct Instance {
    id: String,
    state: String,
    launched: String,
    zone: String,
    private_ip: String,
    public_ip: String,
    ipv6: String,
    private_dns: String,
    public_dns: String,
    tags: BTreeMap<String, String>,
}

impl Page {
    pub(super) fn read(body: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(body).map_err(|_| "it is no text".to_owned())?;
        let document = xml(text).map_err(|error| error.to_string())?;
        let root = document.root_element();
        let reservations = child(root, "reservationSet").filter(|_| named(root, "DescribeInstancesResponse"));
        let reservations = reservations.ok_or("it has no DescribeInstancesResponse with a reservationSet")?;
        let all = items(reservations).filter_map(|reservation| child(reservation, "instancesSet"));
        let instances = all.flat_map(items).map(Instance::read).collect();
        let next = Some(word(root, "nextToken")).filter(|token| !token.is_empty());
        Ok(Self { instances, next })
    }
}

impl Instance {
    /// Elements of the same names stand deeper too, for each interface: only those of the instance itself count.
    fn read(node: Node<'_, '_>) -> Self {
        let under = |parent, name| child(node, parent).map(|parent| word(parent, name)).unwrap_or_default();
        let tags = child(node, "tagSet").into_iter().flat_map(items);
        let interface = child(node, "networkInterfaceSet").and_then(|set| items(set).next());
        let addresses = interface.and_then(|interface| child(interface, "ipv6AddressesSet"));
        let ipv6 = addresses.and_then(|set| items(set).next()).map(|item| word(item, "ipv6Address"));
        Self {
            id: word(node, "instanceId"),
            state: under("instanceState", "name"),
            launched: word(node, "launchTime"),
            zone: under("placement", "availabilityZone"),
            private_ip: word(node, "privateIpAddress"),
            public_ip: word(node, "ipAddress"),
            ipv6: ipv6.unwrap_or_else(|| word(node, "ipv6Address")),
            private_dns: word(node, "privateDnsName"),
            public_dns: word(node, "dnsName"),
            tags: tags.map(|tag| (word(tag, "key"), word(tag, "value"))).collect(),
        }
    }

    fn machine(self, kind: IpType) -> Machine {
        let ip = match kind {
            IpType::Private => &self.private_ip,
            IpType::Public => &self.public_ip,
            IpType::Ipv6 => &self.ipv6,
        };
        // Node names have addresses as Erlang writes them.
        let address: Option<IpAddr> = ip.parse().ok();
        let hostname = self.private_dns.split('.').next().unwrap_or_default().to_owned();
        Machine {
            address,
            incarnation: format!("{} {}", self.id, self.launched),
            evidence: format!("instance {} in {}", self.id, self.zone),
            leaving: self.state != "running",
            unready: false,
            fields: BTreeMap::from([
                ("ip", address.map(|ip| ip.to_string()).unwrap_or_default()),
                ("private_ip", self.private_ip),
                ("public_ip", self.public_ip),
                ("ipv6", self.ipv6),
                ("private_dns", self.private_dns),
                ("public_dns", self.public_dns),
                ("hostname", hostname),
                ("id", self.id),
                ("name", self.tags.get("Name").cloned().unwrap_or_default()),
                ("zone", self.zone),
            ]),
        }
    }
}

fn named(node: Node<'_, '_>, name: &str) -> bool {
    node.is_element() && node.tag_name().name() == name
}

fn child<'a, 'input>(node: Node<'a, 'input>, name: &str) -> Option<Node<'a, 'input>> {
    node.children().find(|child| named(*child, name))
}

fn items<'a, 'input>(node: Node<'a, 'input>) -> impl Iterator<Item = Node<'a, 'input>> {
    node.children().filter(|child| named(*child, "item"))
}

/// The text of a child; nothing if there is none.
fn word(node: Node<'_, '_>, name: &str) -> String {
    child(node, name).and_then(|child| child.text()).unwrap_or_default().trim().to_owned()
}
