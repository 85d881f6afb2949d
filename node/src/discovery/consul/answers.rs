//! What Consul answers with, as far as it is needed.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use super::{Endpoint, Service};
use crate::discovery::SourceError;
use crate::discovery::http::Answer;

/// One instance of the service.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Instance {
    pub(super) id: String,
    pub(super) service: String,
    /// Its own address; empty if it has none.
    pub(super) own_address: String,
    /// Of the Consul node that it belongs to.
    pub(super) node_name: String,
    pub(super) node_address: String,
    /// Its node name, if it says that itself.
    pub(super) exact: Option<String>,
    pub(super) passing: bool,
}

/// The instances that an answer has.
pub(super) async fn read(
    answer: Answer,
    endpoint: Endpoint,
    service: Option<&Service>,
    within: Duration,
) -> Result<Vec<Instance>, SourceError> {
    match endpoint {
        Endpoint::Agent if matches!(service, Some(Service::Id(_))) => {
            answer.json::<Described>(within).await.map(|described| vec![described.instance(true)])
        }
        Endpoint::Health | Endpoint::Agent => answer.json::<Vec<Checked>>(within).await.map(checked),
        Endpoint::Catalog => answer.json::<Vec<Listed>>(within).await.map(listed),
    }
}

pub(super) fn checked(all: Vec<Checked>) -> Vec<Instance> {
    let instance = |Checked { node, service, checks, aggregated }: Checked| {
        let every = checks.unwrap_or_default().iter().all(|check| check.status == PASSING);
        let passing = every && aggregated.is_none_or(|status| status == PASSING);
        Instance { node_name: node.node, node_address: node.address, ..service.instance(passing) }
    };
    all.into_iter().map(instance).collect()
}

/// The catalog's own field for the address of an instance is left alone, as in libcluster_consul.
pub(super) fn listed(all: Vec<Listed>) -> Vec<Instance> {
    let instance = |listed: Listed| Instance {
        id: listed.service_id,
        service: listed.service_name,
        own_address: String::new(),
        node_name: listed.node,
        node_address: listed.address,
        exact: exact(listed.service_meta),
        passing: true,
    };
    all.into_iter().map(instance).collect()
}

fn exact(meta: Option<BTreeMap<String, String>>) -> Option<String> {
    meta.and_then(|mut meta| meta.remove("node")).filter(|node| !node.is_empty())
}

const PASSING: &str = "passing";

/// An element of `/v1/health/service/NAME` and of `/v1/agent/health/service/name/NAME`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Checked {
    #[serde(default)]
    node: Node,
    service: Described,
    checks: Option<Vec<Status>>,
    #[serde(rename = "AggregatedStatus")]
    aggregated: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Node {
    node: String,
    address: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Status {
    status: String,
}

/// An instance as its agent describes it.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Described {
    #[serde(rename = "ID")]
    id: String,
    service: String,
    #[serde(default)]
    address: String,
    meta: Option<BTreeMap<String, String>>,
}

impl Described {
    fn instance(self, passing: bool) -> Instance {
        let Self { id, service, address, meta } = self;
        Instance { id, service, own_address: address, exact: exact(meta), passing, ..Instance::default() }
    }
}

/// An element of `/v1/catalog/service/NAME`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Listed {
    node: String,
    address: String,
    #[serde(default, rename = "ServiceID")]
    service_id: String,
    #[serde(default)]
    service_name: String,
    service_meta: Option<BTreeMap<String, String>>,
}
