//! Channels between nodes of ours: promises, routes, order, what is counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use foundation_node::net_kernel::NodeType;
use foundation_node::service::channels::{
    Channel, Channels, Config, Connection, Event, Fanout, Receipt, Reliability, Resolver, Route, RouteError,
};
use foundation_node::{Error, Node};
use foundation_proto::etf::{Atom, Pid, Term};

use crate::support::{DEADLINE, cluster, eventually, lonely, recv_term};

/// Nodes that are connected, each with its channels, which know each other.
async fn connected<const N: usize>(names: [&str; N]) -> ([Node; N], Vec<Channels>) {
    let nodes = cluster(names).await;
    for (at, node) in nodes.iter().enumerate() {
        for other in nodes.iter().skip(at + 1) {
            node.connect(other.name().as_str()).await.unwrap();
        }
    }
    let channels: Vec<Channels> = nodes.iter().map(|node| node.channels().unwrap()).collect();
    for of in &channels {
        for channel in Channel::ALL {
            eventually("all know each other", || of.nodes(channel).0.len() == N - 1).await;
        }
    }
    (nodes, channels)
}

#[tokio::test(flavor = "multi_thread")]
async fn values_reach_the_subscribers_of_all_nodes_once() {
    let (_nodes, channels) = connected(["a", "b", "c"]).await;
    for channel in Channel::ALL {
        let mut messages: Vec<_> =
            channels.iter().map(|of| of.subscribe::<(String, i64)>(channel).unwrap()).collect();
        for number in 0..20 {
            let receipt = channels[0].broadcast(channel, &(channel.name(), number)).await.unwrap();
            let expected = if channel == Channel::Control { 2 } else { 0 };
            assert_eq!(receipt, Receipt { acknowledged: expected, pending: 0 });
        }
        for of in &mut messages {
            for number in 0..20 {
                assert_eq!(of.next().await.unwrap(), (channel.name().to_owned(), number));
            }
            assert_eq!(of.mailbox_len(), 0);
        }
    }
    for of in &channels[1..] {
        let metrics = of.metrics()[&Channel::Control];
        assert_eq!((metrics.received, metrics.duplicates, metrics.lost, metrics.sent), (20, 0, 0, 0));
        // Both clocks are the same here, so what is told has to be near; the bound is for a busy machine.
        let latency = metrics.latency.expect("the clocks were compared with the first acknowledgement");
        assert!(latency.messages >= 10 && latency.mean < DEADLINE, "{latency:?}");
    }
    assert_eq!(channels[0].metrics()[&Channel::Control].sent, 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_while_a_node_is_away_follows_when_it_is_back() {
    let (nodes, channels) = connected(["a", "b"]).await;
    let mut events = channels[1].subscribe::<i64>(Channel::Events).unwrap();
    let mut telemetry = channels[1].subscribe::<i64>(Channel::Telemetry).unwrap();
    channels[0].broadcast(Channel::Events, &0).await.unwrap();
    assert_eq!(events.next().await.unwrap(), 0);
    eventually("it is acknowledged", || channels[0].metrics()[&Channel::Events].queued == 0).await;

    assert!(nodes[0].disconnect("b@127.0.0.1").await);
    eventually("the node is away", || channels[0].nodes(Channel::Events).0.is_empty()).await;
    for number in 1..=5 {
        channels[0].broadcast(Channel::Events, &number).await.unwrap();
        channels[0].broadcast(Channel::Telemetry, &number).await.unwrap();
    }
    assert_eq!(channels[0].metrics()[&Channel::Events].queued, 5);
    nodes[0].connect("b@127.0.0.1").await.unwrap();
    for number in 1..=5 {
        assert_eq!(events.next().await.unwrap(), number);
    }
    eventually("all is acknowledged", || channels[0].metrics()[&Channel::Events].queued == 0).await;
    eventually("telemetry is back", || channels[0].nodes(Channel::Telemetry).0.len() == 1).await;
    channels[0].broadcast(Channel::Telemetry, &6).await.unwrap();
    assert_eq!(telemetry.next().await.unwrap(), 6, "best effort keeps nothing");
    assert_eq!(channels[1].metrics()[&Channel::Events].duplicates, 0);
}

struct Mesh {
    pid: Pid,
    node: Atom,
}

impl Resolver for Mesh {
    fn service(&self, name: &str) -> Vec<Pid> {
        if name == "orders" { vec![self.pid.clone()] } else { Vec::new() }
    }

    fn capability(&self, name: &str) -> Vec<Atom> {
        if name == "gpu" { vec![self.node.clone()] } else { Vec::new() }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_goes_where_its_route_says() {
    let (nodes, channels) = connected(["a", "b", "c"]).await;
    let [a, b] = [&channels[0], &channels[1]];
    let mut at_b = b.subscribe::<Term>(Channel::Control).unwrap();
    let mut at_c = channels[2].subscribe::<Term>(Channel::Control).unwrap();

    let to_b = Route::to_node("b@127.0.0.1").urgent();
    let receipt = a.route_message("for b", &to_b).await.unwrap();
    assert_eq!(receipt, Receipt { acknowledged: 1, pending: 0 });
    assert_eq!(at_b.next().await.unwrap(), Term::from("for b"));
    a.broadcast(Channel::Control, "for all").await.unwrap();
    assert_eq!(at_c.next().await.unwrap(), Term::from("for all"), "c was not sent the first");
    assert_eq!(at_b.next().await.unwrap(), Term::from("for all"));
    b.route_message("for itself", &to_b).await.unwrap();
    assert_eq!(at_b.next().await.unwrap(), Term::from("for itself"));

    let mut worker = nodes[1].process().unwrap();
    let service = Route::to_service("orders");
    assert!(
        matches!(a.route_message("x", &service).await, Err(RouteError::NoServiceInstances(name)) if name == "orders")
    );
    a.set_resolver(Arc::new(Mesh { pid: worker.pid().clone(), node: nodes[1].name().clone() }));
    a.route_message("order", &service).await.unwrap();
    assert_eq!(recv_term(&mut worker).await, Term::from("order"));
    a.route_message("job", &Route::to_capability("gpu").urgent()).await.unwrap();
    assert_eq!(at_b.next().await.unwrap(), Term::from("job"));
    for (route, expected) in [
        (Route::to_capability("tpu"), "no_capable_nodes"),
        (Route::to_service("other"), "no_service_instances"),
        (Route::to_node("nobody@127.0.0.1"), "node_not_available"),
    ] {
        let error = a.route_message("x", &route).await.unwrap_err();
        assert!(error.to_string().starts_with(expected), "{error}");
    }

    // By size, and compressed: what arrives is what was sent.
    let mut data = b.subscribe::<String>(Channel::Data).unwrap();
    let long = "long ".repeat(100_000);
    a.route_message(&long, &Route::default()).await.unwrap();
    assert_eq!(data.next().await.unwrap(), long);
    assert_eq!(a.metrics()[&Channel::Data].sent, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn senders_in_parallel_each_keep_their_order() {
    let (_nodes, channels) = connected(["a", "b"]).await;
    let mut messages = channels[1].subscribe::<(usize, i64)>(Channel::Events).unwrap();
    let senders: Vec<_> = (0..8)
        .map(|sender| {
            let channels = channels[0].clone();
            tokio::spawn(async move {
                for number in 0..500 {
                    channels.broadcast(Channel::Events, &(sender, number)).await.unwrap();
                }
            })
        })
        .collect();
    let mut next = [0; 8];
    for _ in 0..8 * 500 {
        let (sender, number) = messages.next().await.unwrap();
        assert_eq!(number, next[sender]);
        next[sender] += 1;
    }
    for sender in senders {
        sender.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_tell_what_was_sent_and_received() {
    let (nodes, channels) = connected(["a", "b"]).await;
    let (mut sent, mut received) = (channels[0].events(), channels[1].events());
    channels[0].broadcast(Channel::Control, &1).await.unwrap();
    assert!(matches!(sent.next().await, Ok(Event::Sent { channel: Channel::Control, size: 2 })));
    let event = received.next().await.unwrap();
    let Event::Received { channel, size, from, .. } = event else { panic!("{event:?}") };
    assert_eq!((channel, size, from.as_ref()), (Channel::Control, 2, Some(nodes[0].name())));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_alone_and_a_value_of_another_type() {
    let node = lonely().await;
    let channels = node.channels().unwrap();
    let mut numbers = channels.subscribe::<i64>(Channel::Control).unwrap();
    let receipt = channels.broadcast(Channel::Control, "text").await.unwrap();
    assert_eq!(receipt, Receipt::default());
    channels.broadcast(Channel::Control, &7).await.unwrap();
    assert!(matches!(numbers.next().await, Err(Error::Value(_))));
    assert_eq!(numbers.next().await.unwrap(), 7);
    let config = Config::of(Channel::Control).reliability(Reliability::BestEffort);
    channels.configure(Channel::Control, config.clone());
    assert_eq!(channels.config(Channel::Control), config);
    numbers.unsubscribe();
    tokio::time::timeout(Duration::from_secs(5), channels.broadcast(Channel::Control, &8))
        .await
        .unwrap()
        .unwrap();
}

/// Numbers are sent without a pause while the channel takes connections of its own, loses one, and leaves them again.
#[tokio::test(flavor = "multi_thread")]
async fn connections_of_a_channels_own_keep_the_order() {
    let (nodes, channels) = connected(["a", "b"]).await;
    let mut data = channels[1].subscribe::<i64>(Channel::Data).unwrap();
    let mut events = channels[1].subscribe::<i64>(Channel::Events).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let sender = tokio::spawn({
        let (channels, stop) = (channels[0].clone(), Arc::clone(&stop));
        async move {
            let mut number = 0;
            while !stop.load(Ordering::Acquire) {
                channels.broadcast(Channel::Data, &number).await.unwrap();
                channels.broadcast(Channel::Events, &number).await.unwrap();
                number += 1;
                tokio::task::yield_now().await;
            }
            number
        }
    });
    let receiver = tokio::spawn(async move {
        // The promise of `events`: each, in order. That of `data`: at most once, in order.
        let (mut next, mut last) = (0, -1);
        loop {
            tokio::select! {
                number = events.next() => match number.unwrap() {
                    -1 => break (next, last),
                    number => {
                        assert_eq!(number, next);
                        next += 1;
                    }
                },
                number = data.next() => {
                    let number = number.unwrap();
                    assert!(number > last, "{number} after {last}");
                    last = number;
                }
            }
        }
    });
    let own = |channel| channels[0].own_links(channel).len();
    for channel in [Channel::Data, Channel::Events] {
        let config = channels[0].config(channel).connection(Connection::Own);
        channels[0].configure(channel, config);
        eventually("the channel has its connection", || own(channel) == 1).await;
    }
    let name = Atom::new_static("a_channel_events@127.0.0.1");
    assert!(nodes[1].nodes(NodeType::Hidden).contains(&name));
    let before = channels[0].own_links(Channel::Events)[0].bytes().1;
    eventually("it is used", || {
        channels[0].own_links(Channel::Events).iter().any(|link| link.bytes().1 > before + 10_000)
    })
    .await;

    // It is lost; the other node's view counts.
    assert!(nodes[1].disconnect(name.as_str()).await);
    eventually("it is gone", || own(Channel::Events) == 0).await;
    eventually("it is back", || own(Channel::Events) == 1).await;
    for channel in [Channel::Data, Channel::Events] {
        let config = channels[0].config(channel).connection(Connection::Shared);
        channels[0].configure(channel, config);
    }
    eventually("the other node is left", || nodes[1].nodes(NodeType::Hidden).len() == 1).await;
    stop.store(true, Ordering::Release);
    let sent = sender.await.unwrap();
    eventually("all is acknowledged", || channels[0].metrics()[&Channel::Events].queued == 0).await;
    channels[0].broadcast(Channel::Events, &-1).await.unwrap();
    let (next, last) = receiver.await.unwrap();
    assert_eq!(next, sent, "each event came");
    assert!(last > 0 && sent > 0, "{last} of {sent}");
    assert_eq!(channels[1].metrics()[&Channel::Events].lost, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stops_takes_its_channels_connections_with_it() {
    let (nodes, channels) = connected(["a", "b"]).await;
    let config = channels[0].config(Channel::Data).connection(Connection::OwnToAll);
    channels[0].configure(Channel::Data, config);
    eventually("the channel's identity is there", || nodes[1].nodes(NodeType::Hidden).len() == 2).await;
    nodes[0].stop().await;
    eventually("nobody is left", || nodes[1].nodes(NodeType::Connected).is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn others_pass_broadcasts_on() {
    let (_nodes, channels) = connected(["a", "b", "c", "d", "e"]).await;
    let staged = Config::of(Channel::Events).fanout(Fanout::Staged(1));
    let gossip = Config::of(Channel::Telemetry).fanout(Fanout::Gossip(4));
    channels[0].configure(Channel::Events, staged);
    for of in &channels {
        of.configure(Channel::Telemetry, gossip.clone());
    }
    let mut events: Vec<_> =
        channels.iter().map(|of| of.subscribe::<i64>(Channel::Events).unwrap()).collect();
    let mut told: Vec<_> =
        channels.iter().map(|of| of.subscribe::<i64>(Channel::Telemetry).unwrap()).collect();
    for number in 0..50 {
        channels[0].broadcast(Channel::Events, &number).await.unwrap();
        channels[0].broadcast(Channel::Telemetry, &number).await.unwrap();
    }
    for of in &mut events {
        for number in 0..50 {
            assert_eq!(of.next().await.unwrap(), number);
        }
    }
    // Four nodes, and each message is told to four.
    for of in &mut told {
        let mut all = Vec::new();
        for _ in 0..50 {
            all.push(of.next().await.unwrap());
        }
        all.sort_unstable();
        assert_eq!(all, (0..50).collect::<Vec<_>>());
        assert_eq!(of.mailbox_len(), 0);
    }
    let relayed = |at: usize| channels[at].metrics()[&Channel::Events].relayed;
    assert!((1..4).all(|at| relayed(at) > 0), "each stage is one node, which passes on");
    assert_eq!((relayed(0), relayed(4)), (0, 0));
    eventually("all is acknowledged", || channels[0].metrics()[&Channel::Events].queued == 0).await;
}
