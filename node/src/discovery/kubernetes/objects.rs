//! What the API answers with, as far as it is needed, and what is kept of it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::Lookup;
use crate::discovery::SourceError;
use crate::discovery::http::Answer;

/// The most addresses that a selector may select: the greatest `max_nodes`.
const MAX_FOUND: usize = 65_536;

/// An endpoint of the cluster with what is needed to name its node.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Found {
    /// Its addresses, the preferred one first.
    pub(super) addresses: Vec<IpAddr>,
    pub(super) hostname: Option<String>,
    pub(super) namespace: String,
    pub(super) evidence: String,
    /// Of the pod; empty if unknown.
    pub(super) uid: String,
    pub(super) ready: bool,
    pub(super) leaving: bool,
    pub(super) is_pod: bool,
}

impl Found {
    /// The address to use: the first of the preferred family, else the first.
    pub(super) fn ip(&self, ipv6: Option<bool>) -> Option<IpAddr> {
        let preferred = self.addresses.iter().find(|ip| Some(ip.is_ipv6()) == ipv6);
        preferred.or(self.addresses.first()).copied()
    }

    /// A number that changes with the pod (FNV-1a); 0 if nothing is known.
    pub(super) fn stamp(&self) -> u64 {
        if self.uid.is_empty() {
            return 0;
        }
        let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        self.uid.bytes().fold(0xcbf2_9ce4_8422_2325, step)
    }
}

/// All objects of one kind, as of one version.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) lookup: Lookup,
    /// Where a watch goes on.
    pub(super) version: String,
    objects: BTreeMap<String, Vec<Found>>,
    /// How many there are in all.
    count: usize,
}

/// What an event of a watch has changed.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Change {
    /// What there is.
    Objects,
    /// Only how far the watch has come.
    Version,
    /// The watch cannot go on.
    Expired,
}

impl Listing {
    pub(super) fn new(lookup: Lookup) -> Self {
        Self { lookup, version: String::new(), objects: BTreeMap::new(), count: 0 }
    }

    /// Takes one page of a list. Returns where the next one begins; nothing, if this was the last.
    pub(super) async fn read_page(
        &mut self,
        answer: Answer,
        within: Duration,
    ) -> Result<String, SourceError> {
        match self.lookup {
            Lookup::Pods => self.take_page::<Pod>(answer.json(within).await?),
            Lookup::Endpoints => self.take_page::<Endpoints>(answer.json(within).await?),
            Lookup::EndpointSlices => self.take_page::<Slice>(answer.json(within).await?),
        }
    }

    pub(super) fn take_page<T: Object>(&mut self, page: List<T>) -> Result<String, SourceError> {
        for object in page.items.unwrap_or_default() {
            self.put(object)?;
        }
        self.version = page.metadata.resource_version;
        Ok(page.metadata.next)
    }

    fn put<T: Object>(&mut self, object: T) -> Result<(), SourceError> {
        let name = object.metadata().name.clone();
        let found = object.found();
        self.remove(&name);
        self.count += found.len();
        self.objects.insert(name, found);
        if self.count > MAX_FOUND || self.objects.len() > MAX_FOUND {
            return Err(SourceError::new(format!(
                "the selector selects more than {MAX_FOUND} addresses; is it the right one?"
            )));
        }
        Ok(())
    }

    fn remove(&mut self, name: &str) {
        self.count -= self.objects.remove(name).map_or(0, |found| found.len());
    }

    /// Takes one event of a watch.
    pub(super) fn apply(&mut self, line: &[u8]) -> Result<Change, SourceError> {
        match self.lookup {
            Lookup::Pods => self.apply_to::<Pod>(line),
            Lookup::Endpoints => self.apply_to::<Endpoints>(line),
            Lookup::EndpointSlices => self.apply_to::<Slice>(line),
        }
    }

    fn apply_to<T: Object>(&mut self, line: &[u8]) -> Result<Change, SourceError> {
        let Kind { kind } = event(line)?;
        if kind == "ERROR" {
            let Event { object: Status { code, message } } = event(line)?;
            if code == 410 {
                return Ok(Change::Expired);
            }
            return Err(SourceError::new(format!("the watch was ended with {code}: {message}")));
        }
        let Event { object }: Event<T> = event(line)?;
        let version = object.metadata().resource_version.clone();
        let change = match kind.as_str() {
            "ADDED" | "MODIFIED" => {
                self.put(object)?;
                Change::Objects
            }
            "DELETED" => {
                self.remove(&object.metadata().name);
                Change::Objects
            }
            // BOOKMARK, and what later servers may add.
            _ => Change::Version,
        };
        if !version.is_empty() {
            self.version = version;
        }
        Ok(change)
    }

    /// What there is, each pod once: the endpoints of a pod with two families of addresses stand in two slices.
    pub(super) fn found(&self, ipv6: Option<bool>) -> Vec<&Found> {
        let all = || self.objects.values().flatten();
        if self.lookup != Lookup::EndpointSlices {
            return all().collect();
        }
        let wanted = ipv6.unwrap_or(false);
        let is_wanted = |found: &Found| found.ip(ipv6).is_some_and(|ip| ip.is_ipv6() == wanted);
        let mut families: BTreeMap<&str, bool> = BTreeMap::new();
        for found in all().filter(|found| !found.uid.is_empty()) {
            *families.entry(&found.uid).or_default() |= is_wanted(found);
        }
        let other = |found: &Found| !is_wanted(found) && families.get(found.uid.as_str()) == Some(&true);
        all().filter(|found| !other(found)).collect()
    }
}

fn event<T: DeserializeOwned>(line: &[u8]) -> Result<T, SourceError> {
    serde_json::from_slice(line)
        .map_err(|error| SourceError::new(format!("an event of the watch cannot be read: {error}")))
}

/// One kind of object.
pub(super) trait Object: DeserializeOwned {
    fn metadata(&self) -> &Metadata;
    fn found(self) -> Vec<Found>;
}

#[derive(Deserialize)]
struct Kind {
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
struct Event<T> {
    object: T,
}

#[derive(Deserialize)]
struct Status {
    #[serde(default)]
    code: u32,
    #[serde(default)]
    message: String,
}

#[derive(Deserialize)]
pub(super) struct List<T> {
    #[serde(default)]
    metadata: ListMetadata,
    /// Go writes an empty list as null at times.
    items: Option<Vec<T>>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ListMetadata {
    resource_version: String,
    #[serde(rename = "continue")]
    next: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Metadata {
    name: String,
    namespace: String,
    uid: String,
    resource_version: String,
    deletion_timestamp: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Pod {
    metadata: Metadata,
    spec: PodSpec,
    status: PodStatus,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PodSpec {
    hostname: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct PodStatus {
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    #[serde(rename = "podIPs")]
    pod_ips: Option<Vec<PodIp>>,
    phase: Option<String>,
    conditions: Option<Vec<Condition>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PodIp {
    ip: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

impl Object for Pod {
    fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// None while it has no address, or not any more: that of a pod that has ended may be another's.
    fn found(self) -> Vec<Found> {
        let Self { metadata, spec, status } = self;
        if matches!(status.phase.as_deref(), Some("Failed" | "Succeeded")) {
            return Vec::new();
        }
        let others = status.pod_ips.into_iter().flatten().map(|address| address.ip);
        let addresses: Vec<IpAddr> =
            status.pod_ip.into_iter().chain(others).filter_map(|ip| ip.parse().ok()).collect();
        if addresses.is_empty() {
            return Vec::new();
        }
        let mut conditions = status.conditions.into_iter().flatten();
        vec![Found {
            addresses,
            hostname: spec.hostname,
            evidence: format!("pod {} in namespace {}", metadata.name, metadata.namespace),
            ready: conditions.any(|condition| condition.kind == "Ready" && condition.status == "True"),
            leaving: metadata.deletion_timestamp.is_some(),
            is_pod: true,
            namespace: metadata.namespace,
            uid: metadata.uid,
        }]
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Endpoints {
    metadata: Metadata,
    subsets: Option<Vec<Subset>>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Subset {
    addresses: Option<Vec<Address>>,
    not_ready_addresses: Option<Vec<Address>>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Address {
    ip: String,
    hostname: Option<String>,
    target_ref: Option<Metadata>,
}

impl Object for Endpoints {
    fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// An address without a pod behind it counts as well; libcluster fails over it.
    fn found(self) -> Vec<Found> {
        let Self { metadata, subsets } = self;
        let evidence = format!("endpoints {} in namespace {}", metadata.name, metadata.namespace);
        let mut all = Vec::new();
        for subset in subsets.unwrap_or_default() {
            let ready = subset.addresses.unwrap_or_default().into_iter().map(|address| (address, true));
            let unready = subset.not_ready_addresses.unwrap_or_default();
            for (address, ready) in ready.chain(unready.into_iter().map(|address| (address, false))) {
                let Ok(ip) = address.ip.parse() else { continue };
                let target = address.target_ref.unwrap_or_default();
                all.push(Found {
                    addresses: vec![ip],
                    hostname: address.hostname,
                    namespace: either(target.namespace, &metadata.namespace),
                    evidence: evidence.clone(),
                    uid: target.uid,
                    ready,
                    ..Found::default()
                });
            }
        }
        all
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Slice {
    metadata: Metadata,
    endpoints: Option<Vec<Endpoint>>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Endpoint {
    addresses: Option<Vec<String>>,
    conditions: Conditions,
    hostname: Option<String>,
    target_ref: Option<Metadata>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Conditions {
    ready: Option<bool>,
    terminating: Option<bool>,
}

impl Object for Slice {
    fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// A slice of the type FQDN has no addresses, and says nothing here.
    fn found(self) -> Vec<Found> {
        let Self { metadata, endpoints } = self;
        let evidence = format!("endpointslice {} in namespace {}", metadata.name, metadata.namespace);
        let mut all = Vec::new();
        for endpoint in endpoints.unwrap_or_default() {
            // The addresses of one endpoint are interchangeable: the first is enough.
            let first = endpoint.addresses.unwrap_or_default().into_iter().next();
            let Some(ip) = first.and_then(|ip| ip.parse().ok()) else { continue };
            let target = endpoint.target_ref.unwrap_or_default();
            all.push(Found {
                addresses: vec![ip],
                hostname: endpoint.hostname,
                namespace: either(target.namespace, &metadata.namespace),
                evidence: evidence.clone(),
                uid: target.uid,
                // What is unknown counts as ready, says the API.
                ready: endpoint.conditions.ready != Some(false),
                leaving: endpoint.conditions.terminating == Some(true),
                is_pod: false,
            });
        }
        all
    }
}

fn either(own: String, other: &str) -> String {
    if own.is_empty() { other.to_owned() } else { own }
}
