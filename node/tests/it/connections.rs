//! Connections between nodes, and what strangers can do to them.
//!
//! # Invariants
//! 1. A pair of nodes has at most one connection, whoever dials whom and when.
//! 2. `NodeUp` and `NodeDown` of a peer alternate.
//! 3. Whoever has not proved the cookie changes nothing: no connection ends, nobody else is kept out, memory stays flat.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use foundation_node::Node;
use foundation_node::config::{DistAutoConnect, EpmdMode, NodeConfig, Reconnect};
use foundation_node::event::{Event, Events};
use foundation_node::net::{ConnectError, DownReason, StartError};
use foundation_node::net_kernel::NodeType;
use foundation_proto::Error;
use foundation_proto::error::PeerMisbehaved;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{DEADLINE, cluster, eventually, free_port};

fn config(name: &str, epmd_port: u16) -> NodeConfig {
    NodeConfig::new(format!("{name}@127.0.0.1"))
        .cookie("secret")
        .epmd(EpmdMode::Embedded)
        .epmd_port(epmd_port)
        .reconnect(Reconnect::Never)
}

async fn next(events: &mut Events) -> Event {
    tokio::time::timeout(DEADLINE, events.next()).await.unwrap().unwrap()
}

fn connected(node: &Node) -> usize {
    node.nodes(NodeType::Connected).len()
}

/// Checks invariant 2 over what has been seen so far.
fn alternate(events: &[Event]) {
    let mut up = BTreeMap::new();
    for event in events {
        let (node, is_up) = match event {
            Event::NodeUp { node, .. } => (node, true),
            Event::NodeDown { node, .. } => (node, false),
            other => panic!("{other:?}"),
        };
        assert_ne!(up.insert(node.clone(), is_up), Some(is_up), "{events:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crossing_connects_leave_one_connection() {
    let [a, b] = cluster(["a", "b"]).await;
    let (mut seen_a, mut seen_b) = (a.events(), b.events());
    for round in 0..300 {
        let (from_a, from_b) = tokio::join!(a.connect("b@127.0.0.1"), b.connect("a@127.0.0.1"));
        from_a.unwrap_or_else(|error| panic!("round {round}: {error}"));
        from_b.unwrap_or_else(|error| panic!("round {round}: {error}"));
        assert_eq!((connected(&a), connected(&b)), (1, 1), "round {round}");
        // Taken down from alternating sides.
        let (one, other) = if round % 2 == 0 { (&a, &b) } else { (&b, &a) };
        assert!(one.disconnect(other.name().as_str()).await);
        eventually("both are alone", || connected(&a) + connected(&b) == 0).await;
    }
    a.stop().await;
    b.stop().await;
    for events in [&mut seen_a, &mut seen_b] {
        let mut all = Vec::new();
        while let Ok(Some(event)) = tokio::time::timeout(Duration::from_millis(50), events.next()).await {
            all.push(event);
        }
        assert!(all.len() >= 600, "{}", all.len());
        alternate(&all);
    }
}

#[tokio::test]
async fn those_who_connect_at_once_share_one_dial() {
    let [a, b] = cluster(["a", "b"]).await;
    let mut events = b.events();
    let links = futures(20, || a.connect("b@127.0.0.1")).await;
    let first = links[0].as_ref().unwrap();
    assert!(links.iter().all(|link| std::sync::Arc::ptr_eq(link.as_ref().unwrap(), first)));
    assert!(matches!(next(&mut events).await, Event::NodeUp { .. }));
    assert_eq!(connected(&b), 1);
}

async fn futures<T: Send + 'static, F: Future<Output = T>>(count: usize, make: impl Fn() -> F) -> Vec<T> {
    let mut all: Vec<_> = (0..count).map(|_| Box::pin(make())).collect();
    let mut done = Vec::new();
    for one in &mut all {
        done.push(one.await);
    }
    done
}

#[tokio::test]
async fn each_failure_says_what_it_is() {
    let port = free_port();
    let a = Node::start(config("a", port)).await.unwrap();
    let b = Node::start(config("b", port).cookie("another")).await.unwrap();
    let error = |result: Result<_, ConnectError>| result.map(|_: std::sync::Arc<_>| ()).unwrap_err();
    assert!(matches!(
        error(a.connect("b@127.0.0.1").await),
        ConnectError::Handshake { error: Error::PeerMisbehaved(PeerMisbehaved::WrongCookie), .. }
    ));
    assert!(matches!(error(a.connect("nobody@127.0.0.1").await), ConnectError::NotRegistered { .. }));
    assert!(matches!(error(a.connect("b@localhost").await), ConnectError::Style(_)));
    assert!(matches!(error(a.connect("b@host.invalid").await), ConnectError::Resolve { .. }));
    assert!(matches!(error(a.connect("a@127.0.0.1").await), ConnectError::Self_));
    assert!(matches!(error(a.connect("b").await), ConnectError::BadName { .. }));
    assert!(matches!(Node::start(config("a", port)).await.unwrap_err(), StartError::Epmd(_)));
    b.stop().await;
    assert!(matches!(error(b.connect("a@127.0.0.1").await), ConnectError::Stopping));
}

#[tokio::test]
async fn a_cookie_of_its_own_for_one_peer() {
    let port = free_port();
    let mut special = config("a", port);
    special.cookies.insert("b@127.0.0.1".into(), foundation_proto::dist::Cookie::new("another").unwrap());
    let a = Node::start(special).await.unwrap();
    let b = Node::start(config("b", port).cookie("another")).await.unwrap();
    let c = Node::start(config("c", port)).await.unwrap();
    a.connect("b@127.0.0.1").await.unwrap();
    assert!(a.disconnect("b@127.0.0.1").await);
    eventually("b is alone", || connected(&b) == 0).await;
    b.connect("a@127.0.0.1").await.unwrap();
    c.connect("a@127.0.0.1").await.unwrap();
    assert!(c.connect("b@127.0.0.1").await.is_err());
}

#[tokio::test]
async fn sends_connect_as_dist_auto_connect_says() {
    let port = free_port();
    let b = Node::start(config("b", port)).await.unwrap();
    let ping = async |name: &str, how| {
        let mut config = config(name, port);
        config.dist_auto_connect = how;
        let node = Node::start(config).await.unwrap();
        let first = node.ping("b@127.0.0.1").await;
        node.disconnect("b@127.0.0.1").await;
        let second = node.ping("b@127.0.0.1").await;
        node.connect("b@127.0.0.1").await.unwrap();
        (first, second, node.ping("b@127.0.0.1").await)
    };
    assert_eq!(ping("yes", DistAutoConnect::True).await, (true, true, true));
    assert_eq!(ping("once", DistAutoConnect::Once).await, (true, false, true));
    assert_eq!(ping("never", DistAutoConnect::Never).await, (false, false, true));
    b.stop().await;
}

#[tokio::test]
async fn a_node_that_is_not_allowed_is_refused() {
    let port = free_port();
    let mut picky = config("a", port);
    picky.allow = vec!["b@".into()];
    let a = Node::start(picky).await.unwrap();
    let b = Node::start(config("b", port)).await.unwrap();
    let c = Node::start(config("c", port)).await.unwrap();
    b.connect("a@127.0.0.1").await.unwrap();
    assert!(matches!(c.connect("a@127.0.0.1").await, Err(ConnectError::Handshake { .. })));
    assert_eq!(connected(&a), 1);
}

#[tokio::test]
async fn a_lost_peer_is_back_within_a_second_of_its_return() {
    let port = free_port();
    let a = Node::start(config("a", port).reconnect(Reconnect::Lost)).await.unwrap();
    let mut events = a.events();
    let b = Node::start(config("b", port)).await.unwrap();
    a.connect("b@127.0.0.1").await.unwrap();
    assert!(matches!(next(&mut events).await, Event::NodeUp { .. }));
    for _ in 0..3 {
        break_connections(&b).await;
        assert!(matches!(
            next(&mut events).await,
            Event::NodeDown { reason: DownReason::ConnectionClosed, .. }
        ));
        let since = Instant::now();
        assert!(matches!(next(&mut events).await, Event::NodeUp { .. }));
        // 50 to 500 ms by design, as the connection has lasted; the rest is for a busy machine.
        assert!(since.elapsed() < Duration::from_secs(2), "{:?}", since.elapsed());
    }
    // A deliberate end is final.
    assert!(a.disconnect("b@127.0.0.1").await);
    assert!(matches!(next(&mut events).await, Event::NodeDown { reason: DownReason::Disconnect, .. }));
    assert!(tokio::time::timeout(Duration::from_millis(1200), events.next()).await.is_err());
}

#[tokio::test]
async fn a_lost_peer_that_nobody_can_dial_is_not_dialled() {
    let port = free_port();
    let a = Node::start(config("a", port).reconnect(Reconnect::Lost)).await.unwrap();
    let mut events = a.events();
    // As a command of an operator: it connects, and no EPMD knows it.
    let mut unlisted = config("c", 1).epmd(EpmdMode::None);
    unlisted.dist_listen = false;
    unlisted.erl_epmd_node_listen_port = a.addresses().first().map(SocketAddr::port);
    let command = Node::start(unlisted).await.unwrap();
    command.connect("a@127.0.0.1").await.unwrap();
    assert!(matches!(next(&mut events).await, Event::NodeUp { .. }));
    command.stop().await;
    assert!(matches!(next(&mut events).await, Event::NodeDown { .. }));
    // Another node under that name could be dialled. Nobody has asked for it.
    let other = Node::start(config("c", port)).await.unwrap();
    let more = tokio::time::timeout(Duration::from_millis(1200), events.next()).await;
    assert!(more.is_err(), "{more:?}");
    other.connect("a@127.0.0.1").await.unwrap();
    assert!(matches!(next(&mut events).await, Event::NodeUp { .. }));
}

/// Ends all connections of a node, which the other sides cannot tell from a loss.
async fn break_connections(node: &Node) {
    for peer in node.nodes(NodeType::Connected) {
        node.disconnect(peer.as_str()).await;
    }
}

#[tokio::test]
async fn a_node_that_comes_back_under_its_name_replaces_its_old_connection() {
    let [a, b] = cluster(["a", "b"]).await;
    let mut events = a.events();
    b.connect("a@127.0.0.1").await.unwrap();
    // Another incarnation of b, which a has not noticed: it is in no EPMD, and the old connection is still there.
    let mut config = config("b", 1).epmd(EpmdMode::None);
    config.dist_listen = false;
    config.erl_epmd_node_listen_port = a.addresses().first().map(SocketAddr::port);
    let again = Node::start(config).await.unwrap();
    again.connect("a@127.0.0.1").await.unwrap();
    let seen = [next(&mut events).await, next(&mut events).await, next(&mut events).await];
    alternate(&seen);
    assert!(matches!(&seen[1], Event::NodeDown { reason: DownReason::Replaced, .. }), "{seen:?}");
    assert_eq!(connected(&a), 1);
    eventually("the old one has noticed", || connected(&b) == 0).await;
}

#[tokio::test]
async fn strangers_change_nothing() {
    let port = free_port();
    let a = Node::start(config("a", port)).await.unwrap();
    let b = Node::start(config("b", port)).await.unwrap();
    let link = b.connect("a@127.0.0.1").await.unwrap();
    let address = a.addresses()[0];

    // Silent ones, many more than there are places.
    let mut silent = Vec::new();
    for _ in 0..400 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    // The name of a connected node, without its cookie.
    let mut spoofed = TcpStream::connect(address).await.unwrap();
    spoofed.write_all(&hello("b@127.0.0.1")).await.unwrap();
    let mut status = [0; 8];
    spoofed.read_exact(&mut status).await.unwrap();
    assert_eq!(&status, b"\0\x06salive");
    spoofed.write_all(b"\0\x05strue").await.unwrap();
    let mut challenge = [0; 64];
    assert!(spoofed.read(&mut challenge).await.unwrap() > 0);
    spoofed.write_all(&reply([7; 16])).await.unwrap();
    assert_closed(&mut spoofed).await;
    // Anything but a handshake.
    for junk in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        b"\0\0",
        b"\xff\xff",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\0\x01N",
    ] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(junk).await.unwrap();
        stream.shutdown().await.unwrap();
        assert_closed(&mut stream).await;
    }
    // A friend still gets in, and the old connection is the same.
    let c = Node::start(config("c", port)).await.unwrap();
    tokio::time::timeout(Duration::from_secs(5), c.connect("a@127.0.0.1")).await.unwrap().unwrap();
    assert_eq!(connected(&a), 2);
    assert!(!link.is_closing());
    drop(silent);
}

/// A `send_name` with the flags that every release demands.
fn hello(name: &str) -> Vec<u8> {
    let mut message = vec![b'N'];
    message.extend(0x0d_07df_7fbc_u64.to_be_bytes());
    message.extend(4u32.to_be_bytes());
    message.extend((name.len() as u16).to_be_bytes());
    message.extend(name.as_bytes());
    with_length(message)
}

fn reply(digest: [u8; 16]) -> Vec<u8> {
    let mut message = vec![b'r'];
    message.extend(1u32.to_be_bytes());
    message.extend(digest);
    with_length(message)
}

fn with_length(message: Vec<u8>) -> Vec<u8> {
    let mut out = (message.len() as u16).to_be_bytes().to_vec();
    out.extend(message);
    out
}

async fn assert_closed(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    let read = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut rest)).await.unwrap();
    assert!(read.is_err() || rest.len() < 100);
}

#[tokio::test]
async fn a_silent_peer_is_given_up_after_the_tick_time() {
    let port = free_port();
    let a = Node::start(config("a", port).net_ticktime(1)).await.unwrap();
    // The other side ticks only every 15 s.
    let b = Node::start(config("b", port)).await.unwrap();
    let mut events = a.events();
    a.connect("b@127.0.0.1").await.unwrap();
    assert!(matches!(next(&mut events).await, Event::NodeUp { .. }));
    let since = Instant::now();
    assert!(matches!(next(&mut events).await, Event::NodeDown { reason: DownReason::NetTickTimeout, .. }));
    assert!(
        (Duration::from_millis(900)..Duration::from_secs(5)).contains(&since.elapsed()),
        "{:?}",
        since.elapsed()
    );
    drop(b);
}

/// Listens at the port of an EPMD whose node was stopped. The task of the EPMD ends soon after its node.
async fn in_place_of_an_epmd(port: u16) -> TcpListener {
    let mut listener = None;
    eventually("the port of the EPMD is free", || {
        listener = std::net::TcpListener::bind(("127.0.0.1", port)).ok();
        listener.is_some()
    })
    .await;
    let listener = listener.unwrap();
    listener.set_nonblocking(true).unwrap();
    TcpListener::from_std(listener).unwrap()
}

#[tokio::test]
async fn who_waits_for_a_lost_peer_does_not_make_it_come_back_later() {
    let port = free_port();
    let b = Node::start(config("b", port)).await.unwrap();
    let mut alone = config("a", port).epmd(EpmdMode::None).reconnect(Reconnect::default());
    alone.dist_listen = false;
    let a = Node::start(alone).await.unwrap();
    a.connect("b@127.0.0.1").await.unwrap();
    b.stop().await;
    eventually("it is lost", || connected(&a) == 0).await;
    // In the place of its EPMD somebody who says nothing, as behind a partition.
    let silent = in_place_of_an_epmd(port).await;
    let waiting = tokio::spawn({
        let a = a.clone();
        async move {
            loop {
                let _lost = a.connect("b@127.0.0.1").await;
            }
        }
    });
    // A dial that waits for 7 s, as one to a peer that was never up, would leave all others to the first half of this time.
    let since = Instant::now();
    let mut begun = Vec::new();
    while since.elapsed() < Duration::from_secs(5) {
        if let Ok(accepted) = tokio::time::timeout(Duration::from_secs(1), silent.accept()).await {
            begun.push((since.elapsed(), accepted.unwrap()));
        }
    }
    waiting.abort();
    let late = begun.iter().filter(|(at, _)| *at > Duration::from_secs(2)).count();
    assert!(late >= 3, "{:?}", begun.iter().map(|(at, _)| at).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_lost_peers_are_all_dialled_and_all_come_back() {
    const PEERS: usize = 100;
    let port = free_port();
    // As many as there are, one after the other: the first one has the EPMD.
    let start = async || {
        let mut peers = Vec::new();
        for number in 0..PEERS {
            peers.push(Node::start(config(&format!("b{number}"), port)).await.unwrap());
        }
        peers
    };
    let mut alone = config("a", port).epmd(EpmdMode::None).reconnect(Reconnect::Lost);
    alone.dist_listen = false;
    let a = Node::start(alone).await.unwrap();
    let peers = start().await;
    for peer in &peers {
        a.connect(peer.name().as_str()).await.unwrap();
    }
    for peer in peers.into_iter().rev() {
        peer.stop().await;
    }
    eventually("all are lost", || connected(&a) == 0).await;
    // In the place of their EPMD somebody who hears all and answers nothing, as behind a partition. More dials than there are
    // places wait for one, and each of them has to get it again and again.
    let silent = in_place_of_an_epmd(port).await;
    let deadline = Instant::now() + DEADLINE;
    let mut asked: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
    let mut held = Vec::new();
    while asked.len() < PEERS || asked.values().any(|times| *times < 2) {
        assert!(Instant::now() < deadline, "{asked:?}");
        let (mut stream, _) = tokio::time::timeout(DEADLINE, silent.accept()).await.unwrap().unwrap();
        let length = stream.read_u16().await.unwrap();
        let mut request = vec![0; usize::from(length)];
        stream.read_exact(&mut request).await.unwrap();
        *asked.entry(request).or_default() += 1;
        held.push(stream);
    }
    // None is dialled much more often than another.
    let (least, most) = (asked.values().min().unwrap(), asked.values().max().unwrap());
    assert!(most - least <= 3, "{asked:?}");
    drop((silent, held));
    let peers = start().await;
    eventually("all are back", || connected(&a) == PEERS).await;
    drop(peers);
}

#[tokio::test]
async fn peers_that_tick_alike_stay_connected() {
    let port = free_port();
    let a = Node::start(config("a", port).net_ticktime(1)).await.unwrap();
    let b = Node::start(config("b", port).net_ticktime(1)).await.unwrap();
    let mut events = a.events();
    let link = a.connect("b@127.0.0.1").await.unwrap();
    assert!(matches!(next(&mut events).await, Event::NodeUp { .. }));
    assert!(tokio::time::timeout(Duration::from_millis(3500), events.next()).await.is_err());
    // Nothing but ticks of four bytes.
    let (received, sent) = link.bytes();
    assert!((24..=80).contains(&received) && (24..=80).contains(&sent), "{received} {sent}");
    drop(b);
}

#[tokio::test]
async fn cycles_leave_nothing_behind() {
    let [a, b] = cluster(["a", "b"]).await;
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let cycle = async || {
        a.connect("b@127.0.0.1").await.unwrap();
        a.disconnect("b@127.0.0.1").await;
        eventually("b is alone", || connected(&b) == 0).await;
    };
    for _ in 0..20 {
        cycle().await;
    }
    let before = (tasks(), descriptors());
    for _ in 0..300 {
        cycle().await;
    }
    eventually("all tasks and sockets are gone", || tasks() <= before.0 && descriptors() <= before.1).await;
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_hears_of_a_node_finds_it() {
    let [a, b] = cluster(["a", "b"]).await;
    let mut events = b.events();
    for round in 0..200 {
        let connecting = tokio::spawn({
            let a = a.clone();
            async move { a.connect("b@127.0.0.1").await.map(drop) }
        });
        assert!(matches!(next(&mut events).await, Event::NodeUp { .. }));
        assert_eq!(connected(&b), 1, "round {round}");
        connecting.await.unwrap().unwrap();
        a.disconnect("b@127.0.0.1").await;
        assert!(matches!(next(&mut events).await, Event::NodeDown { .. }));
        assert_eq!(connected(&b), 0, "round {round}");
    }
}

#[tokio::test]
async fn a_node_gets_its_name_from_another() {
    let [a] = cluster(["a"]).await;
    let config = NodeConfig::new("undefined@127.0.0.1").cookie("secret").epmd_port(a.config().epmd_port);
    let named = Node::start_named_by(config.clone(), "a@127.0.0.1").await.unwrap();
    assert!(named.name().as_str().ends_with("@127.0.0.1") && named.name() != a.name());
    assert_eq!(a.nodes(NodeType::Hidden), std::slice::from_ref(named.name()));
    assert!(named.ping("a@127.0.0.1").await && a.ping(named.name().as_str()).await);
    let error = Node::start_named_by(config, "nobody@127.0.0.1").await.unwrap_err();
    assert!(
        matches!(error, StartError::NamedBy { error: ConnectError::NotRegistered { .. }, .. }),
        "{error}"
    );
    named.stop().await;
}

#[tokio::test]
async fn a_changed_cookie_counts_for_the_next_handshake() {
    let [a, _b] = cluster(["a", "b"]).await;
    a.connect("b@127.0.0.1").await.unwrap();
    a.set_cookie("another").unwrap();
    assert_eq!(connected(&a), 1);
    a.disconnect("b@127.0.0.1").await;
    let error = a.connect("b@127.0.0.1").await.unwrap_err();
    assert!(matches!(
        error,
        ConnectError::Handshake { error: Error::PeerMisbehaved(PeerMisbehaved::WrongCookie), .. }
    ));
    a.set_cookie_of("b@127.0.0.1", "secret").unwrap();
    a.connect("b@127.0.0.1").await.unwrap();
    assert!(a.set_cookie("").is_err());
}
