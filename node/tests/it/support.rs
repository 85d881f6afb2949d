//! Nodes for tests, and waiting for what must happen.

use std::time::Duration;

use foundation_node::Node;
use foundation_node::config::{EpmdMode, NodeConfig, Reconnect};
use foundation_node::process::{Down, Message, Process, Reason};
use foundation_proto::Limits;
use foundation_proto::etf::{Pid, Term};

pub(crate) use crate::free_port::free_port;

/// Longer than anything here takes on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// A node that nobody can connect to.
pub(crate) async fn lonely() -> Node {
    let mut config = NodeConfig::new("lonely@127.0.0.1").cookie("secret").epmd(EpmdMode::None);
    config.dist_listen = false;
    Node::start(config).await.unwrap()
}

/// Nodes that find each other through an EPMD of their own.
pub(crate) async fn cluster<const N: usize>(names: [&str; N]) -> [Node; N] {
    let epmd_port = free_port();
    let mut nodes = Vec::new();
    for name in names {
        let mut config =
            NodeConfig::new(format!("{name}@127.0.0.1")).cookie("secret").epmd(EpmdMode::Embedded);
        config.epmd_port = epmd_port;
        config.reconnect = Reconnect::Never;
        nodes.push(Node::start(config).await.unwrap());
    }
    nodes.try_into().unwrap()
}

/// Links, monitors and spawn requests between the nodes of a test.
pub(crate) fn relations(node: &Node) -> usize {
    node.links().iter().map(|link| link.mld().len()).sum()
}

pub(crate) async fn recv(process: &mut Process) -> Message {
    process.recv_timeout(DEADLINE).await.unwrap()
}

pub(crate) async fn recv_term(process: &mut Process) -> Term {
    match recv(process).await {
        Message::Term(raw) => raw.to_term(&Limits::default()).unwrap(),
        other => panic!("expected an ordinary message, not {other:?}"),
    }
}

pub(crate) async fn recv_down(process: &mut Process) -> Down {
    match recv(process).await {
        Message::Down(down) => *down,
        other => panic!("expected DOWN, not {other:?}"),
    }
}

pub(crate) async fn recv_exit(process: &mut Process) -> (Pid, Reason) {
    match recv(process).await {
        Message::Exit(exit) => (exit.from, exit.reason),
        other => panic!("expected EXIT, not {other:?}"),
    }
}

/// Whether nothing is in the mailbox, once everything sent so far has arrived: told by a message to oneself.
pub(crate) async fn assert_empty(process: &mut Process) {
    let marker = Term::atom("marker");
    let to = process.pid().clone();
    process.send_term(&to, &marker).await.unwrap();
    assert_eq!(recv_term(process).await, marker);
}

/// Waits until `condition` holds.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + DEADLINE;
    while !condition() {
        assert!(tokio::time::Instant::now() < deadline, "{what} did not happen in time");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
