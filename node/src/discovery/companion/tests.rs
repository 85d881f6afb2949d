use std::os::unix::net::UnixStream;
use std::time::Duration;

use foundation_proto::Limits;
use foundation_proto::etf::text::{inspect, parse_elixir};
use foundation_proto::etf::{decode, encode};

use super::*;

/// A node that has started a companion: the other end of its streams.
struct Owner {
    stream: UnixStream,
    companion: tokio::task::JoinHandle<Ended>,
}

impl Owner {
    fn new() -> Self {
        let (stream, other) = UnixStream::pair().unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let input = other.try_clone().unwrap();
        Self { stream, companion: tokio::spawn(run(input, other)) }
    }

    fn says(&mut self, elixir: &str) {
        let term = parse_elixir(elixir, &Limits::default()).unwrap();
        let mut bytes = Vec::new();
        encode(&term, &mut bytes).unwrap();
        self.raw(&bytes);
    }

    fn raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(&[&(bytes.len() as u32).to_be_bytes(), bytes].concat()).unwrap();
    }

    /// What the companion says next, as Elixir shows it.
    async fn hears(&mut self) -> String {
        let mut stream = self.stream.try_clone().unwrap();
        let frame = tokio::task::spawn_blocking(move || read_frame(&mut stream)).await.unwrap().unwrap();
        let text = inspect(&decode(&frame.expect("the stream goes on"), &Limits::default()).unwrap());
        // On one line, however long it is.
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// The next one that begins so.
    async fn hears_of(&mut self, start: &str) -> String {
        loop {
            let heard = self.hears().await;
            if heard.starts_with(start) {
                return heard;
            }
        }
    }

    async fn ends(self) -> Ended {
        drop(self.stream);
        self.companion.await.unwrap()
    }
}

const START: &str = r#"{:start, %{node: :"a@127.0.0.1", epmd_port: 1, connected: [:"c@127.0.0.1"],
    cluster: %{topologies: [shop: [strategy: Cluster.Strategy.Epmd, config: [hosts: [:"b@127.0.0.1", :"c@127.0.0.1"]]]]}}}"#;

#[tokio::test]
async fn it_asks_to_dial_and_is_told_how_it_went() {
    let mut owner = Owner::new();
    owner.says(START);
    let ready = owner.hears().await;
    assert!(ready.starts_with("{:ready, 1, \"") && ready.contains("shop: written"), "{ready}");
    // The one that is connected is not dialled.
    assert_eq!(owner.hears().await, r#"{:connect, "b@127.0.0.1", "shop"}"#);
    owner.says(r#"{:not_connected, :"b@127.0.0.1", "unreachable"}"#);
    // All have been tried, and one is there.
    let formed = owner.hears_of("{:report, :formed").await;
    for part in ["node_count: 2", "strategy: \"shop\"", "cluster_id: \"a\"", "formation_time_ms: "] {
        assert!(formed.contains(part), "{part} in {formed}");
    }
    // After a pause of half a second at most.
    assert_eq!(owner.hears_of("{:connect").await, r#"{:connect, "b@127.0.0.1", "shop"}"#);
    owner.says(r#"{:up, "b@127.0.0.1"}"#);
    owner.says(r#"{:down, :"b@127.0.0.1", false}"#);
    assert_eq!(owner.hears_of("{:connect").await, r#"{:connect, "b@127.0.0.1", "shop"}"#);
    assert_eq!(owner.ends().await, Ended::Owner);
}

#[tokio::test]
async fn what_anybody_can_send_is_refused_unless_the_owner_develops() {
    for (development, ready) in [("nil", "no name is dialled"), ("\"run by mix\"", "(run by mix)")] {
        let mut owner = Owner::new();
        owner.says(&format!(
            r#"{{:start, %{{node: "a@127.0.0.1", development: {development}, cluster: [strategy: :gossip, port: 0]}}}}"#
        ));
        let heard = owner.hears().await;
        // Whoever runs the tests may have said that this is a developer's machine.
        assert!(heard.contains(ready) || std::env::var_os("FOUNDATION_ENV").is_some(), "{heard}");
        assert_eq!(owner.ends().await, Ended::Owner);
    }
}

#[tokio::test]
async fn a_configuration_that_cannot_be_used_is_said_to_the_owner() {
    for (start, word) in [
        (r#"{:start, %{node: :"a@h", cluster: [strategy: :gosip]}}"#, "gosip"),
        (r#"{:start, %{node: :"a@h", cluster: [strategy: :gossip, secrets: "hush"]}}"#, "cluster.secrets"),
        (r#"{:start, %{node: :a, cluster: true}}"#, "no node name"),
        (r#"{:start, %{cluster: true}}"#, "no node"),
        (r#"{:start, %{node: :"a@h", cluster: true, listens: ["x"]}}"#, "no address"),
        (r#"{:up, :"a@h"}"#, "not start"),
        (r#"{:hello}"#, "neither"),
    ] {
        let mut owner = Owner::new();
        owner.says(start);
        let said = owner.hears().await;
        assert!(
            said.starts_with("{:error,") && said.contains(word) && !said.contains("hush"),
            "{start}: {said}"
        );
        assert!(matches!(owner.ends().await, Ended::Refused(why) if why.contains(word)));
    }
}

#[tokio::test]
async fn a_broken_stream_ends_it() {
    // Nothing at all; half a frame; a frame that claims too much; no term.
    for bytes in [&[][..], &[0, 0, 0, 9, 131], &[255, 0, 0, 0, 1], &[0, 0, 0, 2, 131, 0]] {
        let mut owner = Owner::new();
        owner.stream.write_all(bytes).unwrap();
        let ended = owner.ends().await;
        assert_eq!(
            ended == Ended::Owner,
            bytes.len() < 5 || bytes[0] == 0 && bytes.len() == 5,
            "{bytes:?}: {ended:?}"
        );
    }
}
