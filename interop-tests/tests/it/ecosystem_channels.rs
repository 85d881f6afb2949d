//! Channels together with unmodified `Phoenix.PubSub`s, and topics together with Phoenix's own channels: `make ecosystem`.

use std::path::Path;

use foundation_interop_tests::case::Unsupported;
use foundation_interop_tests::eventually::eventually_true;
use foundation_interop_tests::{Beam, Case, Epmd, Release, case};
use foundation_node::service::channels::{Channel, Channels, Messages, Receipt, Route};
use foundation_node::service::pubsub::Broadcast;
use foundation_proto::Limits;
use foundation_proto::etf::{Map, Term};

use crate::ecosystem::{TOPIC, node_with, source, sources, start_pubsub};
use crate::rust::{Rust, WAIT, shown};

/// Messages that each sender sends on each channel.
const COUNT: i64 = 50;

/// A BEAM node that subscribes to all channels in the process that runs its code.
fn node(release: &Release, epmd: &Epmd, name: &str, source: &Path, pool_size: u32) -> Beam {
    let beam = node_with(release, epmd, name, &[source.to_owned()]);
    beam.elixir(&format!(
        "{{:ok, _}} = :pg.start_link(Phoenix.PubSub)\n\
         {{:ok, _}} = Supervisor.start_link([{{Phoenix.PubSub, name: Foundation.PubSub, pool_size: {pool_size}}}], strategy: :one_for_one)\n\
         for c <- ~w(control events telemetry data), do: :ok = Phoenix.PubSub.subscribe(Foundation.PubSub, \"foundation:\" <> c)\n\
         defmodule Tagged do\n\
           def dispatch(entries, from, message), do: Enum.each(entries, fn {{pid, _}} -> pid != from && send(pid, {{:tagged, from, message}}) end)\n\
         end\n:ok"
    ));
    beam
}

/// The next `count` messages of a BEAM node, and that there are no more.
fn received(beam: &Beam, count: i64) -> String {
    beam.elixir(&format!(
        "all = for _ <- 1..{count}, do: (receive do m -> m after 10_000 -> :nothing end)\n\
         {{all, receive do m -> m after 0 -> :empty end}}"
    ))
}

/// `{[FIRST(1), …], :empty}` as Elixir prints it.
fn numbered(count: i64, each: impl Fn(i64) -> String) -> String {
    let all: Vec<String> = (1..=count).map(each).collect();
    format!("{{[{}], :empty}}", all.join(", "))
}

fn next(rust: &Rust, messages: &mut Messages<Term>) -> String {
    shown(&rust.run(messages.next()).unwrap())
}

fn names(nodes: &[foundation_proto::etf::Atom]) -> Vec<&str> {
    nodes.iter().map(|node| node.as_str().split('@').next().unwrap()).collect()
}

#[test]
fn channels_beside_phoenix_pubsub() {
    for source in sources("phoenix_pubsub") {
        let version = source.file_name().unwrap().to_string_lossy().into_owned();
        case(
            Case::Full,
            TOPIC,
            &format!(
                "channels and Phoenix.PubSub ({version}): all four both ways in order, broadcast_from, direct_broadcast, dispatchers, pools that differ"
            ),
            |release| {
                if release.number < 25 {
                    return Err(Unsupported("Phoenix.PubSub wants a later Elixir"));
                }
                exchange(release, &source);
                Ok(())
            },
        );
    }
}

fn exchange(release: &Release, source: &Path) {
    let epmd = Epmd::start(release);
    let rust = Rust::start(&epmd, "rust");
    let second = Rust::start(&epmd, "second");
    let one = node(release, &epmd, "one", source, 1);
    let three = node(release, &epmd, "three", source, 3);
    let [channels, others]: [Channels; 2] =
        [&rust, &second].map(|of| of.run(async { of.node.channels() }).unwrap());
    for of in [&rust, &second] {
        for name in ["one@127.0.0.1", "three@127.0.0.1", "second@127.0.0.1"] {
            if of.node.name().as_str() != name {
                assert!(of.run(of.node.connect(name)).is_ok(), "{name}");
            }
        }
    }
    // We are hidden, so nobody meets through us.
    one.elixir("true = Node.connect(:\"three@127.0.0.1\")");
    for channel in Channel::ALL {
        eventually_true("each knows who is what", WAIT, || {
            let ((a, plain_a), (b, plain_b)) = (channels.nodes(channel), others.nodes(channel));
            names(&a) == ["second"]
                && names(&b) == ["rust"]
                && [plain_a, plain_b].iter().all(|plain| names(plain) == ["one", "three"])
        });
    }
    let members = "length(:pg.get_members(Phoenix.PubSub, Foundation.PubSub.Adapter))";
    for beam in [&one, &three] {
        eventually_true("the BEAM has all four", WAIT, || beam.elixir(members) == "4");
    }

    // From here to all, on each channel: bare on the BEAM, and once on the other node of ours.
    for channel in Channel::ALL {
        let mut messages = [(&rust, &channels), (&second, &others)]
            .map(|(of, c)| (of, c.subscribe::<Term>(channel).unwrap()));
        for number in 1..=COUNT {
            let message = Term::from((number, Term::atom(channel.name())));
            let receipt: Receipt = rust.run(channels.broadcast(channel, &message)).unwrap();
            // A promise is one between nodes of ours.
            let acknowledged = usize::from(channel == Channel::Control);
            assert_eq!(receipt, Receipt { acknowledged, pending: 0 });
        }
        let expected = numbered(COUNT, |n| format!("{{{n}, :{channel}}}"));
        assert_eq!(received(&one, COUNT), expected);
        assert_eq!(received(&three, COUNT), expected);
        for (of, messages) in &mut messages {
            for number in 1..=COUNT {
                assert_eq!(next(of, messages), format!("{{{number},{channel}}}"));
            }
        }

        // And from a BEAM, by one sender.
        one.elixir(&format!(
            "for n <- 1..{COUNT}, do: :ok = Phoenix.PubSub.broadcast_from(Foundation.PubSub, self(), \"foundation:{channel}\", {{n, :beam}})\n:ok"
        ));
        for (of, messages) in &mut messages {
            for number in 1..=COUNT {
                assert_eq!(next(of, messages), format!("{{{number},beam}}"));
            }
            assert_eq!(messages.mailbox_len(), 0, "each message came once");
        }
        assert_eq!(received(&three, COUNT), numbered(COUNT, |n| format!("{{{n}, :beam}}")));
    }
    assert_eq!(one.elixir("receive do m -> m after 0 -> :empty end"), ":empty", "it sent, and is spared");

    let mut here = channels.subscribe::<Term>(Channel::Events).unwrap();
    let mut there = others.subscribe::<Term>(Channel::Events).unwrap();

    // Ours, sparing the sender.
    let sender = here.pid().clone();
    let topic = Channel::Events.topic();
    rust.run(channels.pubsub().broadcast_from(&sender, topic, &Term::atom("spared"))).unwrap();
    assert_eq!(next(&second, &mut there), "spared");
    assert_eq!(received(&one, 1), "{[:spared], :empty}");
    assert_eq!(received(&three, 1), "{[:spared], :empty}");

    // To one node, both ways.
    one.elixir(&format!(
        ":ok = Phoenix.PubSub.direct_broadcast(:\"rust@127.0.0.1\", Foundation.PubSub, \"{topic}\", :direct)"
    ));
    assert_eq!(next(&rust, &mut here), "direct");
    let to_three = Route::to_node("three@127.0.0.1").channel(Channel::Events);
    rust.run(channels.route_message(&Term::atom("routed"), &to_three)).unwrap();
    assert_eq!(received(&three, 1), "{[:routed], :empty}");

    // With a dispatcher that the application brings.
    let tagged = Term::atom("for_the_module");
    rust.run(channels.pubsub().broadcast_with(topic, &tagged, "Tagged")).unwrap();
    for beam in [&one, &three] {
        assert_eq!(received(beam, 1), "{[{:tagged, :none, :for_the_module}], :empty}");
    }
    assert_eq!(next(&rust, &mut here), "for_the_module");
    assert_eq!(next(&second, &mut there), "for_the_module");
    one.elixir(&format!(
        ":ok = Phoenix.PubSub.broadcast_from(Foundation.PubSub, self(), \"{topic}\", :by_module, Tagged)"
    ));
    assert_eq!(next(&rust, &mut here), "by_module");
    assert_eq!(next(&second, &mut there), "by_module");
    assert_eq!(received(&three, 1), "{[{:tagged, :none, :by_module}], :empty}");
    assert_eq!((here.mailbox_len(), there.mailbox_len()), (0, 0));

    let metrics = channels.metrics()[&Channel::Events];
    assert_eq!((metrics.errors, metrics.lost, metrics.duplicates), (0, 0, 0), "{metrics:?}");
    assert_eq!(metrics.latency, None, "a BEAM's messages carry no time, and nothing came from the other");

    // 2.0 has no pools.
    if three.elixir("Code.ensure_loaded?(Phoenix.PubSub.PG2Worker)") == "true" {
        for of in [&channels, &others] {
            eventually_true("the pools are seen", WAIT, || {
                let sizes = of.pubsub().pool_mismatch().unwrap_or_default();
                let sizes: Vec<String> =
                    sizes.iter().map(|(node, n)| format!("{} {n}", node.as_str())).collect();
                sizes == ["one@127.0.0.1 1", "three@127.0.0.1 3"]
            });
        }
        three.elixir(&format!(
            "for n <- 1..30, do: Task.async(fn -> Phoenix.PubSub.broadcast_from(Foundation.PubSub, self(), \"{topic}\", n) end) |> Task.await()\n:ok"
        ));
        for (of, messages) in [(&rust, &mut here), (&second, &mut there)] {
            let mut all: Vec<i64> =
                (0..30).map(|_| of.run(messages.next()).unwrap().as_i64().unwrap()).collect();
            all.sort_unstable();
            assert_eq!(all, (1..=30).collect::<Vec<_>>(), "none is lost, whichever group it went to");
        }
        drop(three);
        eventually_true("no pools are left that differ", WAIT, || {
            [&channels, &others].iter().all(|of| of.pubsub().pool_mismatch().is_none())
        });
    }
}

/// A channel of a Phoenix application, and a client that has joined it, whose transport is the process that runs the code.
const CHANNEL: &str = r#"
defmodule RoomChannel do
  use Phoenix.Channel
  def join("room:" <> _, _params, socket), do: {:ok, socket}
  def handle_in("say", params, socket) do
    broadcast!(socket, "said", params)
    {:noreply, socket}
  end
end
socket = struct(Phoenix.Socket, endpoint: RoomEndpoint, pubsub_server: MyApp.PubSub, transport: :test, transport_pid: self(),
  serializer: Phoenix.Socket.V2.JSONSerializer)
message = struct(Phoenix.Socket.Message, topic: "room:1", event: "phx_join", payload: %{}, ref: "1", join_ref: "1")
starter = fn _socket, _from, %{start: {m, f, a}} -> apply(m, f, a) end
{:ok, _, pid} = Phoenix.Channel.Server.join(socket, RoomChannel, message, starter: starter)
Process.register(pid, :room)
:ok"#;

#[test]
fn phoenix_channels() {
    let needed = ["telemetry", "jason", "mime", "plug_crypto", "plug", "phoenix_pubsub", "phoenix"];
    let Some(libraries) = needed.map(source).into_iter().collect::<Option<Vec<_>>>() else { return };
    case(
        Case::Full,
        TOPIC,
        "Phoenix.Channel: a broadcast of ours reaches the client of a channel, and the channel's reach us",
        |release| {
            if release.number < 25 {
                return Err(Unsupported("Phoenix wants a later Elixir"));
            }
            let epmd = Epmd::start(release);
            let rust = Rust::start(&epmd, "rust");
            let beam = node_with(release, &epmd, "web", &libraries);
            start_pubsub(&beam, 1);
            beam.elixir(CHANNEL);
            let topics = rust.run(async { rust.node.pubsub("MyApp.PubSub") }).unwrap();
            let mut messages = topics.subscribe("room:1").unwrap();
            assert!(rust.run(rust.node.connect("web@127.0.0.1")).is_ok());
            eventually_true("both are members", WAIT, || topics.nodes().len() == 2);
            let members = "length(:pg.get_members(Phoenix.PubSub, MyApp.PubSub.Adapter))";
            eventually_true("the BEAM sees our worker", WAIT, || beam.elixir(members) == "2");
            let payload = Term::Map([(Term::from("text"), Term::from("hello"))].into_iter().collect::<Map>());

            rust.run(topics.endpoint_broadcast("room:1", "said", &payload)).unwrap();
            let own = rust.run(messages.next()).unwrap().to_term(&Limits::default()).unwrap();
            assert_eq!(Broadcast::from_term(&own).map(|own| own.event).as_deref(), Some("said"));
            // What the client's socket is given to write, and what a process that has subscribed gets.
            assert_eq!(
                beam.elixir(
                    "receive do {:socket_push, :text, json} -> Jason.decode!(json) after 10_000 -> :nothing end"
                ),
                r#"[nil, nil, "room:1", "said", %{"text" => "hello"}]"#
            );
            assert_eq!(
                beam.elixir(
                    "receive do %{__struct__: Phoenix.Socket.Broadcast, event: e, payload: p} -> {e, p} after 10_000 -> :nothing end"
                ),
                r#"{"said", %{"text" => "hello"}}"#
            );

            // A client says something; the channel broadcasts it.
            beam.elixir(
                "send(:room, struct(Phoenix.Socket.Message, topic: \"room:1\", event: \"say\", payload: %{\"text\" => \"hi\"}, ref: \"2\", join_ref: \"1\")); :ok",
            );
            let said = rust.run(messages.next()).unwrap().to_term(&Limits::default()).unwrap();
            let payload = Term::Map([(Term::from("text"), Term::from("hi"))].into_iter().collect::<Map>());
            let expected = Broadcast { topic: "room:1".into(), event: "said".into(), payload };
            assert_eq!(Broadcast::from_term(&said), Some(expected));
            Ok(())
        },
    );
}
