//! What a response says about nodes.

use foundation_proto::dist::NodeName;

use super::message::{Data, Record, same_name};

/// The service that says where the EPMD of a host is. Nerves announces it, without more; this node adds its name.
pub(super) const EPMD: &str = "_epmd._tcp.local";
/// The service of a node of this kind.
pub(super) const FOUNDATION: &str = "_foundation._tcp.local";

/// Services of one message that are looked at. A node answers for itself, a host for what runs on it.
const MAX_SERVICES: usize = 64;

/// An instance of one of the two.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Service {
    /// Its full name.
    pub(super) instance: String,
    /// It is taken back.
    pub(super) goodbye: bool,
    /// Who it says it is.
    pub(super) names: Names,
    /// The cluster that it says it belongs to.
    pub(super) cluster: Option<String>,
    /// Host and port.
    pub(super) server: Option<(String, u16)>,
}

/// Who a service says it is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Names {
    /// This node.
    Node(NodeName),
    /// Whoever the EPMD at its port knows.
    Epmd,
    /// Nothing that can be used.
    Nothing,
}

/// All services of a response.
pub(super) fn services(records: &[Record]) -> Vec<Service> {
    let mut services = Vec::new();
    for record in records {
        let Data::Ptr(instance) = &record.data else { continue };
        let epmd = same_name(&record.name, EPMD);
        if !epmd && !same_name(&record.name, FOUNDATION) {
            continue;
        }
        if services.len() == MAX_SERVICES {
            break;
        }
        let of_instance = || records.iter().filter(|record| same_name(&record.name, instance));
        let mut txt = None;
        let mut server = None;
        for record in of_instance() {
            match &record.data {
                Data::Txt(strings) => txt = txt.or(Some(strings)),
                Data::Srv { port, target } => server = server.or_else(|| Some((target.clone(), *port))),
                _ => {}
            }
        }
        let value = |key| txt.and_then(|strings| value(strings, key));
        let names = match value("node") {
            Some(node) => NodeName::parse(node).map_or(Names::Nothing, Names::Node),
            None if epmd => Names::Epmd,
            None => Names::Nothing,
        };
        let cluster = value("cluster").map(str::to_owned);
        services.push(Service {
            instance: instance.clone(),
            goodbye: record.ttl == 0,
            names,
            cluster,
            server,
        });
    }
    services
}

/// The value of a key of a TXT record (RFC 6763 section 6): the first counts, and the case of the key does not.
fn value<'a>(strings: &'a [Vec<u8>], key: &str) -> Option<&'a str> {
    strings.iter().filter_map(|string| core::str::from_utf8(string).ok()).find_map(|string| {
        let (written, value) = string.split_once('=')?;
        written.eq_ignore_ascii_case(key).then_some(value)
    })
}
