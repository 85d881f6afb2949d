//! `net_kernel`: the name of this node and its connections.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use foundation_proto::dist::NameStyle;
use foundation_proto::etf::{Atom, Term};

use super::{Answer, Call, Entry, Fault, pair, tells};
use crate::net::Link;

pub(super) const FUNCTIONS: &[Entry] = &[
    tells("nodename", 0, |call| Ok(Term::Atom(call.node.name.clone()))),
    tells("longnames", 0, |call| {
        let long = call.node.net_kernel.identity().style == NameStyle::Long;
        Ok(Term::from(Atom::from(long)))
    }),
    tells("get_net_ticktime", 0, |call| Ok(Term::from(call.node.config.net_ticktime))),
    tells("epmd_module", 0, |_| Ok(Term::atom("erl_epmd"))),
    tells("nodes_info", 0, nodes_info),
    tells("node_info", 1, node_info),
    tells("node_info", 2, node_info),
];

/// `{ok, [{Node, Info}]}` for every connection.
fn nodes_info(call: &Call<'_>) -> Answer {
    let links = call.node.net_kernel.links();
    let nodes = links.iter().map(|link| Term::from((&link.peer().name, info(link))));
    Ok(Term::from((Term::atom("ok"), Term::list(nodes))))
}

/// `{ok, Info}` or, with a key, `{ok, Value}`.
fn node_info(call: &Call<'_>) -> Answer {
    let error = |why| Ok(Term::from((Term::atom("error"), Term::atom(why))));
    let Some(Term::Atom(node)) = call.args.first() else { return Err(Fault::NoClause) };
    let Some(link) = call.node.net_kernel.link(node) else { return error("bad_node") };
    let info = info(&link);
    let Some(key) = call.args.get(1) else { return Ok(Term::from((Term::atom("ok"), info))) };
    let pairs = info.as_list().unwrap_or_default();
    let found = pairs.iter().filter_map(Term::as_tuple).find(|pair| pair.first() == Some(key));
    match found.and_then(|pair| pair.get(1)) {
        Some(value) => Ok(Term::from((Term::atom("ok"), value.clone()))),
        None => error("invalid_key"),
    }
}

/// What `net_kernel` knows of a connection. There is no process that owns it, and signals are not counted.
fn info(link: &Arc<Link>) -> Term {
    let peer = link.peer();
    Term::list([
        pair("state", Term::atom("up")),
        pair("address", net_address(&peer.name, peer.address)),
        pair("type", Term::atom(if peer.hidden { "hidden" } else { "normal" })),
    ])
}

/// The record `#net_address{address, host, protocol, family}`.
fn net_address(name: &Atom, address: SocketAddr) -> Term {
    let host = name.as_str().split_once('@').map_or("", |(_, host)| host);
    let (ip, family) = match address.ip() {
        IpAddr::V4(ip) => (Term::tuple(ip.octets().map(Term::from)), "inet"),
        IpAddr::V6(ip) => (Term::tuple(ip.segments().map(Term::from)), "inet6"),
    };
    Term::from((
        Term::atom("net_address"),
        Term::from((ip, address.port())),
        Term::charlist(host),
        Term::atom("tcp"),
        Term::atom(family),
    ))
}
