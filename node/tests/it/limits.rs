//! Each bound of `NodeLimits` that a peer or a process can reach: what is allowed at the limit, and what happens one beyond.

use std::time::Duration;

use foundation_node::config::{EpmdMode, NodeConfig, Reconnect};
use foundation_node::event::Event;
use foundation_node::net::{ConnectError, DownReason};
use foundation_node::process::{MailboxLimit, Process, Reason, SpawnOptions};
use foundation_node::{Error, Node};
use foundation_proto::Limits;
use foundation_proto::error::PeerIncompatible;
use foundation_proto::etf::{RawTerm, Term};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};

use crate::support::{DEADLINE, eventually, free_port, recv_down, recv_term};

fn config(name: &str, epmd_port: u16) -> NodeConfig {
    NodeConfig::new(format!("{name}@127.0.0.1"))
        .cookie("secret")
        .epmd(EpmdMode::Embedded)
        .epmd_port(epmd_port)
        .reconnect(Reconnect::Never)
}

fn overflow(messages: i64) -> Term {
    Term::from((Term::atom("mailbox_overflow"), Term::Integer(messages)))
}

/// Sends `count` messages and returns the reason that the process ends with.
async fn overflowed(node: &Node, process: &Process, message: &RawTerm, count: usize) -> Term {
    let mut watcher = node.process().unwrap();
    watcher.monitor(process.pid()).await.unwrap();
    for _ in 0..count {
        node.send_raw(process.pid(), message.clone()).await.unwrap();
    }
    recv_down(&mut watcher).await.reason.to_term(&Limits::default()).unwrap()
}

#[tokio::test]
async fn as_many_peers_as_allowed_and_no_more() {
    let port = free_port();
    let mut small = config("a", port);
    small.limits.peers = 2;
    let a = Node::start(small).await.unwrap();
    let mut others = Vec::new();
    for name in ["b", "c", "d"] {
        others.push(Node::start(config(name, port)).await.unwrap());
    }
    others[0].connect("a@127.0.0.1").await.unwrap();
    others[1].connect("a@127.0.0.1").await.unwrap();
    let refused = others[2].connect("a@127.0.0.1").await;
    assert!(
        matches!(
            &refused,
            Err(ConnectError::Handshake {
                error: foundation_proto::Error::PeerIncompatible(PeerIncompatible::NotAllowed),
                ..
            })
        ),
        "{refused:?}"
    );
    assert_eq!(a.links().len(), 2);
    assert!(a.disconnect("b@127.0.0.1").await);
    others[2].connect("a@127.0.0.1").await.unwrap();
}

#[tokio::test]
async fn as_many_processes_as_allowed_and_no_more() {
    let mut small = config("a", 1).epmd(EpmdMode::None);
    small.dist_listen = false;
    small.limits.processes = 50;
    let node = Node::start(small).await.unwrap();
    let mut processes = Vec::new();
    let refused = loop {
        match node.process() {
            Ok(process) => processes.push(process),
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, Error::SystemLimit), "{refused:?}");
    assert_eq!(node.processes().len(), 50);
    processes.pop();
    assert!(node.process().is_ok(), "the place of one that ended is free");
}

/// Whoever asked would wait for ever if it were not.
#[tokio::test]
async fn a_spawn_request_beyond_the_processes_is_answered() {
    let port = free_port();
    let mut small = config("a", port);
    small.limits.processes = 50;
    let a = Node::start(small).await.unwrap();
    let b = Node::start(config("b", port)).await.unwrap();
    let process = b.process().unwrap();
    let spawn = async || {
        let spawn = process.spawn_remote(a.name(), "erlang", "node", vec![], true, true);
        tokio::time::timeout(DEADLINE, spawn).await.unwrap()
    };
    spawn().await.unwrap();
    let mut processes = Vec::new();
    while let Ok(process) = a.process() {
        processes.push(process);
    }
    let refused = spawn().await;
    assert!(matches!(&refused, Err(Error::Spawn(reason)) if *reason == "system_limit"), "{refused:?}");
    drop(processes);
    spawn().await.unwrap();
}

#[tokio::test]
async fn a_mailbox_holds_its_bytes_and_no_more() {
    let mut small = config("a", 1).epmd(EpmdMode::None);
    small.dist_listen = false;
    small.limits.mailbox_messages = 5;
    let node = Node::start(small).await.unwrap();
    let message = RawTerm::from_term(&Term::from("0123456789")).unwrap();
    // The limit of the configuration is that of every process that has none of its own.
    assert_eq!(overflowed(&node, &node.process().unwrap(), &message, 6).await, overflow(5));
    let size = message.as_bytes().len();
    for (bytes, holds) in [(2 * size, 2), (2 * size + 1, 3)] {
        let mut limit = MailboxLimit::messages(100);
        limit.bytes = bytes;
        let process = node.process_opt(&SpawnOptions::default().mailbox(limit)).unwrap();
        assert_eq!(overflowed(&node, &process, &message, 4).await, overflow(holds), "{bytes} bytes");
    }
    // What was received does not count any more.
    let mut limit = MailboxLimit::messages(100);
    limit.bytes = 2 * size;
    let mut process = node.process_opt(&SpawnOptions::default().mailbox(limit)).unwrap();
    for _ in 0..10 {
        node.send_raw(process.pid(), message.clone()).await.unwrap();
        assert_eq!(recv_term(&mut process).await, Term::from("0123456789"));
    }
}

#[tokio::test]
async fn a_peer_is_read_no_further_than_the_undelivered_bytes_allow() {
    const LIMIT: usize = 1 << 20;
    const MESSAGES: usize = 640;
    let port = free_port();
    let mut small = config("b", port);
    small.limits.undelivered_bytes = LIMIT;
    let b = Node::start(small).await.unwrap();
    let a = Node::start(config("a", port)).await.unwrap();
    let mut slow = b.mailbox("slow").unwrap();
    let message = RawTerm::from_term(&Term::binary(&[7; 50_000])).unwrap();
    let (sender, to) = (a.clone(), slow.pid().clone());
    let sending = tokio::spawn(async move {
        for _ in 0..MESSAGES {
            sender.send_raw(&to, message.clone()).await.unwrap();
        }
    });
    let undelivered = || b.links().first().map_or(0, |link| link.mld().undelivered().bytes());
    eventually("as much as may wait", || undelivered() > LIMIT).await;
    // One read brings at most 64 KiB beyond the message that it completes.
    for _ in 0..50 {
        assert!(undelivered() <= LIMIT + (256 << 10), "{} bytes wait", undelivered());
        tokio::task::yield_now().await;
    }
    assert!(!sending.is_finished());
    // And it is read on once the process catches up.
    for _ in 0..MESSAGES {
        recv_term(&mut slow).await;
    }
    sending.await.unwrap();
    assert_eq!(undelivered(), 0);
}

/// Exit signals cannot wait, so nothing but the end of the connection bounds them.
#[tokio::test]
async fn a_connection_with_more_queued_than_allowed_is_closed() {
    let port = free_port();
    let mut small = config("a", port);
    small.limits.wire.max_queued = 1 << 20;
    let a = Node::start(small).await.unwrap();
    // Reads no further as soon as one message waits.
    let mut deaf = config("b", port);
    deaf.limits.undelivered_bytes = 1;
    let b = Node::start(deaf).await.unwrap();
    let far = b.mailbox("far").unwrap();
    let mut events = a.events();
    let mut linked = Vec::new();
    for _ in 0..400 {
        let process = a.process().unwrap();
        process.link(far.pid()).await;
        linked.push(process);
    }
    a.send_term(far.pid(), &Term::from("waits")).await.unwrap();
    let is_full = || b.links().first().is_some_and(|link| link.mld().undelivered().is_full());
    eventually("b reads no further", is_full).await;
    let reason = Reason::from(Term::binary(&[7; 60_000]));
    for process in linked {
        process.stop(reason.clone());
    }
    let mut next = async || tokio::time::timeout(DEADLINE, events.next()).await.unwrap().unwrap();
    assert!(matches!(next().await, Event::NodeUp { .. }));
    let down = next().await;
    assert!(matches!(&down, Event::NodeDown { reason: DownReason::Overflow, .. }), "{down:?}");
}

#[tokio::test]
async fn as_many_dials_at_once_as_allowed() {
    // An EPMD that never answers: a dial is under way as long as it waits for it.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut small = config("a", silent.local_addr().unwrap().port()).epmd(EpmdMode::None);
    small.dist_listen = false;
    small.limits.dials = 2;
    let a = Node::start(small).await.unwrap();
    for name in ["x@127.0.0.1", "y@127.0.0.1", "z@127.0.0.1"] {
        let a = a.clone();
        tokio::spawn(async move { a.connect(name).await.map(drop) });
    }
    let accept = async |within| tokio::time::timeout(within, silent.accept()).await;
    let first = accept(DEADLINE).await.unwrap().unwrap();
    let _second = accept(DEADLINE).await.unwrap().unwrap();
    assert!(accept(Duration::from_millis(300)).await.is_err(), "a third dial beside two");
    drop(first);
    accept(DEADLINE).await.unwrap().unwrap();
}

/// One connection more without a proof of the cookie takes the place of the oldest, and of no other.
#[tokio::test]
async fn as_many_unproved_connections_as_allowed() {
    for per_ip in [true, false] {
        let mut small = config("a", free_port());
        (small.limits.unauthenticated, small.limits.unauthenticated_per_ip) =
            if per_ip { (100, 3) } else { (3, 100) };
        let a = Node::start(small).await.unwrap();
        let mut streams = Vec::new();
        for _ in 0..4 {
            streams.push(TcpStream::connect(a.addresses()[0]).await.unwrap());
        }
        let mut byte = [0];
        let closed = tokio::time::timeout(DEADLINE, streams[0].read(&mut byte)).await.unwrap();
        assert!(matches!(closed, Ok(0) | Err(_)), "{closed:?}");
        for stream in &mut streams[1..] {
            let read = tokio::time::timeout(Duration::from_millis(50), stream.read(&mut byte)).await;
            assert!(read.is_err(), "one that is not the oldest was closed: {read:?}");
        }
    }
}
