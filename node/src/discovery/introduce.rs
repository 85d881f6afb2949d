//! Introducing BEAM nodes to each other: nodes that run nothing of ours and do not know of each other are told, as libcluster tells its own
//! node, to connect (`net_kernel:connect_node/1`) to the others that this node has found.
//!
//! ```toml
//! [cluster]
//! strategy = "kubernetes"
//! introduce = true                    # or { connect = true, disconnect = true, interval = 5000 }
//! ```
//!
//! In each round every connected node that a source names is asked whom it is connected to (`erlang:nodes/1`), and of each pair
//! that is not connected one is told to connect to the other; if that fails, the other way round. A node that cannot be asked or told, because
//! it is none of Erlang's, finds its peers by itself and is left out until it is connected anew.
//!
//! With `disconnect`, a node that is given up and disconnected here (`prune = "disconnect"`) is disconnected by the others as well.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use foundation_proto::dist::NodeName;
use foundation_proto::etf::Term;
use serde::Deserialize;
use tokio::task::JoinSet;
use toml::Value;
use tracing::{debug, info};

use super::config::ms;
use crate::Error;
use crate::process::Handle;

/// How long a node may take to answer. Connecting takes 7 s where nobody answers (`net_setuptime`).
const WITHIN: Duration = Duration::from_secs(15);
/// Nodes that are asked or told at once.
const AT_ONCE: usize = 32;
/// Pairs in one round; the others follow in the next.
const PAIRS: usize = 256;
/// What is waited for after a node came, so that nodes that come together are introduced together.
pub(super) const SOON: Duration = Duration::from_millis(200);

/// What others are told.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Introduce {
    /// Whether they are told to connect. Yes.
    pub connect: bool,
    /// Whether they are told to disconnect from nodes that are given up here. No.
    pub disconnect: bool,
    /// The pause between two rounds, in milliseconds. 5,000, libcluster's.
    #[serde(with = "ms")]
    pub interval: Duration,
}

impl Default for Introduce {
    fn default() -> Self {
        Self { connect: true, disconnect: false, interval: Duration::from_secs(5) }
    }
}

/// `true`, `false` or a table.
pub(super) fn read(value: Value) -> Result<Option<Introduce>, String> {
    match value {
        Value::Boolean(on) => Ok(on.then(Introduce::default)),
        table @ Value::Table(_) => Introduce::deserialize(table)
            .map(Some)
            .map_err(|error: toml::de::Error| error.message().replace("field", "key")),
        _ => Err("must be true, false, or a table with connect, disconnect and interval".to_owned()),
    }
}

/// Nodes by whom they say that they are connected to; `None` for one that cannot be asked.
type Known = BTreeMap<NodeName, Option<BTreeSet<NodeName>>>;

/// Who is told to connect to whom: of each pair of which neither knows the other, the first that can be told.
fn pairs(known: &Known) -> Vec<(NodeName, NodeName)> {
    let mut pairs = Vec::new();
    for (one, of_one) in known {
        let later = (std::ops::Bound::Excluded(one), std::ops::Bound::Unbounded);
        for (other, of_other) in known.range::<NodeName, _>(later) {
            let apart = !of_one.as_ref().is_some_and(|nodes| nodes.contains(other))
                && !of_other.as_ref().is_some_and(|nodes| nodes.contains(one));
            match (of_one, of_other) {
                _ if !apart => {}
                (Some(_), _) => pairs.push((one.clone(), other.clone())),
                (None, Some(_)) => pairs.push((other.clone(), one.clone())),
                // Neither is a BEAM.
                (None, None) => {}
            }
            if pairs.len() >= PAIRS {
                return pairs;
            }
        }
    }
    pairs
}

/// One round. Returns the nodes that cannot be asked.
pub(super) async fn round(
    node: Handle,
    nodes: Vec<NodeName>,
    left_out: BTreeSet<NodeName>,
) -> BTreeSet<NodeName> {
    let mut known = Known::new();
    let mut asked = JoinSet::new();
    for name in nodes {
        if left_out.contains(&name) {
            known.insert(name, None);
            continue;
        }
        if asked.len() >= AT_ONCE {
            note(&mut known, asked.join_next().await);
        }
        let node = node.clone();
        asked.spawn(async move {
            let connected = connected(&node, &name).await;
            (name, connected)
        });
    }
    while !asked.is_empty() {
        note(&mut known, asked.join_next().await);
    }
    let mut told = JoinSet::new();
    for (one, other) in pairs(&known) {
        if told.len() >= AT_ONCE {
            told.join_next().await;
        }
        let both_ways = known.get(&other).is_some_and(Option::is_some);
        told.spawn(introduce(node.clone(), one, other, both_ways));
    }
    while told.join_next().await.is_some() {}
    known.into_iter().filter_map(|(name, nodes)| nodes.is_none().then_some(name)).collect()
}

/// What one said: whom it is connected to, or that it cannot be told anything.
type Asked = (NodeName, Result<Option<BTreeSet<NodeName>>, Error>);

/// A node that does not answer in time is asked again in the next round and not introduced in this one.
fn note(known: &mut Known, asked: Option<Result<Asked, tokio::task::JoinError>>) {
    match asked {
        Some(Ok((name, Ok(nodes)))) => {
            known.insert(name, nodes);
        }
        Some(Ok((name, Err(Error::Raised(_))))) => {
            known.insert(name, None);
        }
        Some(Ok((name, Err(error)))) => debug!("{name} does not say whom it is connected to: {error}"),
        _ => {}
    }
}

/// Whom a node is connected to, hidden nodes among them.
async fn connected(node: &Handle, of: &NodeName) -> Result<Option<BTreeSet<NodeName>>, Error> {
    let loaded = [Term::atom("net_kernel"), Term::atom("connect_node"), Term::from(1)];
    // A node of another kind may answer for nodes/1 and yet not be told anything.
    let exported = node.erpc(of.as_atom(), "erlang", "function_exported", loaded.to_vec(), WITHIN).await?;
    if exported.as_bool() != Some(true) {
        return Ok(None);
    }
    let nodes = node.erpc(of.as_atom(), "erlang", "nodes", vec![Term::atom("connected")], WITHIN).await?;
    let names = nodes.as_list().unwrap_or_default().iter();
    Ok(Some(names.filter_map(|name| NodeName::try_from(name.as_atom()?).ok()).collect()))
}

async fn introduce(node: Handle, one: NodeName, other: NodeName, both_ways: bool) {
    if tell(&node, &one, "net_kernel", "connect_node", &other).await {
        info!("introduced {one} to {other}");
    } else if both_ways && tell(&node, &other, "net_kernel", "connect_node", &one).await {
        info!("introduced {other} to {one}");
    } else {
        debug!("{one} and {other} cannot connect to each other");
    }
}

async fn tell(node: &Handle, one: &NodeName, module: &str, function: &str, other: &NodeName) -> bool {
    let args = vec![Term::Atom(other.as_atom().clone())];
    let outcome = node.erpc(one.as_atom(), module, function, args, WITHIN).await;
    if let Err(error) = &outcome {
        debug!("{one} cannot be told of {other}: {error}");
    }
    outcome.is_ok_and(|done| done.as_bool() == Some(true))
}

/// Tells all of these nodes to end their connections to one that is given up.
pub(super) async fn part(node: Handle, nodes: Vec<NodeName>, from: NodeName) {
    let mut told = JoinSet::new();
    for one in nodes {
        if told.len() >= AT_ONCE {
            told.join_next().await;
        }
        let (node, from) = (node.clone(), from.clone());
        told.spawn(async move {
            if tell(&node, &one, "erlang", "disconnect_node", &from).await {
                info!("{one} is told that {from} is given up");
            }
        });
    }
    while told.join_next().await.is_some() {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> NodeName {
        NodeName::parse(text).unwrap()
    }

    fn known(nodes: &[(&str, Option<&[&str]>)]) -> Known {
        let names = |nodes: &[&str]| nodes.iter().map(|node| name(node)).collect();
        nodes.iter().map(|(node, of)| (name(node), of.map(names))).collect()
    }

    #[test]
    fn each_pair_that_is_apart_is_introduced_once() {
        let told = |nodes: &[(&str, Option<&[&str]>)]| {
            let pairs = pairs(&known(nodes));
            pairs.iter().map(|(one, other)| format!("{one}-{other}")).collect::<Vec<_>>()
        };
        assert_eq!(
            told(&[("a@h", Some(&[])), ("b@h", Some(&[])), ("c@h", Some(&[]))]),
            ["a@h-b@h", "a@h-c@h", "b@h-c@h"]
        );
        // One that knows the other is enough: a connection has two ends.
        assert_eq!(
            told(&[("a@h", Some(&["b@h"])), ("b@h", Some(&["c@h"])), ("c@h", Some(&[]))]),
            ["a@h-c@h"]
        );
        // A node that cannot be told is told of by the others; two such are left alone.
        assert_eq!(told(&[("a@h", None), ("b@h", Some(&[])), ("c@h", None)]), ["b@h-a@h", "b@h-c@h"]);
    }

    #[test]
    fn a_round_is_bounded() {
        let names: Vec<String> = (0..200).map(|n| format!("n{n}@h")).collect();
        let nodes: Vec<(&str, Option<&[&str]>)> =
            names.iter().map(|name| (name.as_str(), Some(&[][..]))).collect();
        assert_eq!(pairs(&known(&nodes)).len(), PAIRS);
    }

    #[test]
    fn it_is_read_as_true_or_a_table() {
        let value = |text: &str| format!("v = {text}").parse::<toml::Table>().unwrap().remove("v").unwrap();
        assert_eq!(read(value("true")), Ok(Some(Introduce::default())));
        assert_eq!(read(value("false")), Ok(None));
        let slow = read(value("{ disconnect = true, interval = 100 }")).unwrap().unwrap();
        assert_eq!((slow.connect, slow.disconnect, slow.interval), (true, true, Duration::from_millis(100)));
        assert!(read(value("{ conect = true }")).unwrap_err().contains("conect"));
        assert!(read(value("1")).is_err());
    }
}
