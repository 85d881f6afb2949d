//! Presences together with unmodified `Phoenix.Tracker`s: `make ecosystem`.

use std::path::Path;
use std::time::Duration;

use foundation_interop_tests::case::Unsupported;
use foundation_interop_tests::eventually::eventually_true;
use foundation_interop_tests::{Beam, Case, Epmd, Release, case};
use foundation_node::Error;
use foundation_node::service::tracker::{Config, Options, Presence, Tracker};
use foundation_proto::etf::{Map, Term};

use crate::ecosystem::{TOPIC, node_with, sources, start_pubsub};
use crate::rust::{Rust, WAIT};

/// Between two beats, and until a silent replica is down: short, so that a case sees both.
const BEAT_MS: u64 = 50;
const DOWN_MS: u64 = 1_500;

/// A tracker of a program, told of its diffs by a process.
const TRACKER: &str = r"
defmodule MyTracker do
  use Phoenix.Tracker
  def start_link(opts), do: Phoenix.Tracker.start_link(__MODULE__, opts, opts)
  def init(opts), do: {:ok, opts[:watcher]}
  def handle_diff(diff, watcher) do
    send(watcher, {:diff, diff})
    {:ok, watcher}
  end
end
:ok";

/// A BEAM node with a PubSub and a tracker.
fn node(release: &Release, epmd: &Epmd, name: &str, source: &Path, pool_size: u32) -> Beam {
    let beam = node_with(release, epmd, name, &[source.to_owned()]);
    start_pubsub(&beam, 1);
    beam.elixir(TRACKER);
    beam.elixir(&format!(
        "{{:ok, _}} = MyTracker.start_link(name: MyTracker, pubsub_server: MyApp.PubSub, watcher: self(), pool_size: {pool_size}, \
         broadcast_period: {BEAT_MS}, max_silent_periods: 3, down_period: {DOWN_MS}, permdown_period: 60_000); :ok"
    ));
    beam
}

fn start_tracker(rust: &Rust, pool_size: u32) -> Tracker {
    let mut config = Config::default();
    config.broadcast_period = Duration::from_millis(BEAT_MS);
    config.max_silent_periods = 3;
    config.down_period = Duration::from_millis(DOWN_MS);
    config.permdown_period = Duration::from_secs(60);
    rust.run(async { rust.node.tracker("MyApp.PubSub", "MyTracker", Options { pool_size, config }) }).unwrap()
}

/// Keys and the name in the metadata of who is present, sorted, as both sides write them.
fn listed(presences: &[Presence]) -> String {
    let text = |term: &Term| String::from_utf8(term.as_binary().unwrap().to_vec()).unwrap();
    let mut all: Vec<String> = presences
        .iter()
        .map(|presence| {
            let name = presence.meta.as_map().unwrap().get(&Term::atom("name")).unwrap();
            format!("{} {}", text(&presence.key), text(name))
        })
        .collect();
    all.sort();
    all.join(", ")
}

fn listed_by(beam: &Beam, topic: &str) -> String {
    let code = format!(
        "Phoenix.Tracker.list(MyTracker, \"{topic}\") |> Enum.map(fn {{k, m}} -> k <> \" \" <> m.name end) |> Enum.sort() |> Enum.join(\", \")"
    );
    beam.elixir(&code).trim_matches('"').to_owned()
}

fn meta(name: &str) -> Term {
    Term::Map(Map::from_pairs(vec![(Term::atom("name"), Term::from(name))]).unwrap())
}

#[test]
fn phoenix_tracker() {
    for source in sources("phoenix_pubsub") {
        let version = source.file_name().unwrap().to_string_lossy().into_owned();
        for pool_size in [1, 4] {
            case(
                Case::Full,
                TOPIC,
                &format!(
                    "Phoenix.Tracker ({version}, pool of {pool_size}): presences both ways, late joiners, lost nodes"
                ),
                |release| {
                    if release.number < 25 {
                        return Err(Unsupported("Phoenix.PubSub wants a later Elixir"));
                    }
                    presences(release, &source, pool_size);
                    Ok(())
                },
            );
        }
    }
}

fn presences(release: &Release, source: &Path, pool_size: u32) {
    let epmd = Epmd::start(release);
    let rust = Rust::start(&epmd, "rust");
    let one = node(release, &epmd, "one", source, pool_size);
    let tracker = start_tracker(&rust, pool_size);
    let connect = |name: &str| assert!(rust.run(rust.node.connect(name)).is_ok());
    connect("one@127.0.0.1");
    let everywhere = |beams: &[&Beam], topic: &str, expected: &str| {
        eventually_true(&format!("all list {expected:?} under {topic}"), WAIT, || {
            listed(&tracker.list(topic)) == expected
                && beams.iter().all(|beam| listed_by(beam, topic) == expected)
        });
    };

    // Ours, seen by a BEAM, changed, and told as a diff.
    let worker = rust.node.process().unwrap();
    let first = tracker.track(worker.pid(), "room:1", Term::from("w"), meta("worker")).unwrap();
    assert!(matches!(
        tracker.track(worker.pid(), "room:1", Term::from("w"), meta("again")),
        Err(Error::Track(_))
    ));
    everywhere(&[&one], "room:1", "w worker");
    assert_eq!(
        one.elixir(
            "receive do {:diff, %{\"room:1\" => {[{\"w\", %{name: n, phx_ref: r}}], []}}} -> {n, r} after 10_000 -> :nothing end"
        ),
        format!("{{\"worker\", \"{first}\"}}"),
    );
    let second = tracker.update(worker.pid(), "room:1", Term::from("w"), meta("busy")).unwrap();
    everywhere(&[&one], "room:1", "w busy");
    assert_eq!(
        one.elixir(
            "[{_, m}] = Phoenix.Tracker.get_by_key(MyTracker, \"room:1\", \"w\") |> Enum.map(fn {p, m} -> {p, m} end); {m.phx_ref, m.phx_ref_prev}"
        ),
        format!("{{\"{second}\", \"{first}\"}}"),
    );

    // A BEAM's, seen here, until the process ends.
    one.elixir(
        "w = spawn(fn -> Process.sleep(:infinity) end); Process.register(w, :tracked)\n\
         {:ok, _} = Phoenix.Tracker.track(MyTracker, w, \"room:1\", \"b\", %{name: \"beam\"})\n\
         {:ok, _} = Phoenix.Tracker.track(MyTracker, w, \"room:2\", \"b\", %{name: \"beam\"}); :ok",
    );
    everywhere(&[&one], "room:1", "b beam, w busy");
    everywhere(&[&one], "room:2", "b beam");
    assert_eq!(tracker.get_by_key("room:1", &Term::from("b"))[0].pid.node.as_str(), "one@127.0.0.1");

    // A node that comes later learns all of it from the others.
    let two = node(release, &epmd, "two", source, pool_size);
    connect("two@127.0.0.1");
    // We are hidden, so nobody else meets through us.
    two.elixir("true = Node.connect(:\"one@127.0.0.1\")");
    everywhere(&[&one, &two], "room:1", "b beam, w busy");
    two.elixir("w = spawn(fn -> Process.sleep(:infinity) end); {:ok, _} = Phoenix.Tracker.track(MyTracker, w, \"room:1\", \"t\", %{name: \"two\"}); :ok");
    everywhere(&[&one, &two], "room:1", "b beam, t two, w busy");

    one.elixir("Process.exit(Process.whereis(:tracked), :kill)");
    everywhere(&[&one, &two], "room:1", "t two, w busy");
    everywhere(&[&one, &two], "room:2", "");

    // A process of ours that ends, and one that says so.
    let other = rust.node.process().unwrap();
    tracker.track(other.pid(), "room:1", Term::from("o"), meta("other")).unwrap();
    everywhere(&[&one, &two], "room:1", "o other, t two, w busy");
    drop(other);
    tracker.untrack(worker.pid(), "room:1", Term::from("w"));
    everywhere(&[&one, &two], "room:1", "t two");

    // A node that is killed is down after its silence; what it had is told as leaving.
    drop(two);
    everywhere(&[&one], "room:1", "");
    // It comes back as a new replica.
    let two = node(release, &epmd, "two", source, pool_size);
    connect("two@127.0.0.1");
    // We are hidden, so nobody else meets through us.
    two.elixir("true = Node.connect(:\"one@127.0.0.1\")");
    two.elixir("w = spawn(fn -> Process.sleep(:infinity) end); {:ok, _} = Phoenix.Tracker.track(MyTracker, w, \"room:1\", \"t\", %{name: \"two again\"}); :ok");
    tracker.track(worker.pid(), "room:1", Term::from("w"), meta("worker")).unwrap();
    everywhere(&[&one, &two], "room:1", "t two again, w worker");

    // Told that we do not come back, they need not wait.
    tracker.graceful_permdown();
    rust.run(rust.node.stop());
    for beam in [&one, &two] {
        eventually_true("ours are gone", WAIT, || !listed_by(beam, "room:1").contains("worker"));
    }
}
