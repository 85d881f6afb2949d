//! Names together with an unmodified `Horde.Registry`: `make ecosystem`.

use foundation_interop_tests::case::Unsupported;
use foundation_interop_tests::eventually::eventually_true;
use foundation_interop_tests::{Beam, Case, Epmd, Release, case};
use foundation_node::service::horde::Registered;
use foundation_proto::etf::Term;

use crate::ecosystem::{TOPIC, node_with, source};
use crate::rust::{Rust, WAIT, next};

/// A node with Horde and what it needs, all from source; `None`, said aloud, if one is not there.
fn node(release: &Release, epmd: &Epmd, name: &str) -> Option<Beam> {
    let sources = [
        source("telemetry")?,
        source("telemetry_poller")?,
        source("merkle_map")?,
        source("delta_crdt_ex")?,
        source("libring")?,
        source("horde")?,
    ];
    Some(node_with(release, epmd, name, &sources))
}

fn start_registry(beam: &Beam, members: &[&str]) {
    let list: Vec<String> = members.iter().map(|node| format!("{{MyReg, :\"{node}@127.0.0.1\"}}")).collect();
    beam.elixir(&format!(
        "{{:ok, _}} = Supervisor.start_link([{{Horde.Registry, name: MyReg, keys: :unique, members: [{}]}}], strategy: :one_for_one); :ok",
        list.join(", ")
    ));
}

/// The names there, in order.
fn names(beam: &Beam) -> String {
    beam.elixir("Horde.Registry.select(MyReg, [{{:\"$1\", :_, :_}, [], [:\"$1\"]}]) |> Enum.sort()")
}

#[test]
fn horde_registry_hidden() {
    case(
        Case::Smoke,
        TOPIC,
        "Horde.Registry, hidden: names both ways, sends, metadata, registering through our member",
        |release| {
            if release.number < 25 {
                return Err(Unsupported("horde 0.10 wants Elixir 1.12"));
            }
            let epmd = Epmd::start(release);
            let Some(one) = node(release, &epmd, "one") else { return Ok(()) };
            let rust = Rust::start(&epmd, "rust");
            let registry = rust.run(async { rust.node.horde_registry("MyReg") }).unwrap();
            let mut worker = rust.node.process().unwrap();
            let ours = (Term::from("ours"), Term::from((Term::atom("meta"), 1)));
            let got = rust.run(registry.register(ours.0.clone(), ours.1.clone(), worker.pid())).unwrap();
            assert_eq!(got, Registered::Yes);
            assert_eq!(registry.lookup(&ours.0).unwrap().value, ours.1, "found at once");

            start_registry(&one, &["one"]);
            one.elixir("{:ok, _} = Horde.Registry.register(MyReg, \"theirs\", :kept); :ok");
            // One side names the other; the map tells the rest.
            rust.run(registry.set_members([("MyReg", "one@127.0.0.1")])).unwrap();
            eventually_true("their name is here", WAIT, || registry.lookup(&Term::from("theirs")).is_some());
            eventually_true("our name is there", WAIT, || names(&one) == "[\"ours\", \"theirs\"]");
            assert_eq!(one.elixir("Horde.Registry.count(MyReg)"), "2");
            eventually_true("both are members there", WAIT, || {
                one.elixir("Horde.Cluster.members(MyReg) |> Enum.map(&elem(&1, 1)) |> Enum.sort()")
                    == "[:\"one@127.0.0.1\", :\"rust@127.0.0.1\"]"
            });

            // Both can send to what they find. To `lookup` and `:via`, Horde's rule about visible nodes applies.
            rust.run(registry.send(&Term::from("theirs"), &Term::atom("from_rust"))).unwrap();
            assert_eq!(one.elixir("receive do :from_rust -> true after 5000 -> :nothing end"), "true");
            one.elixir(
                "[{pid, {:meta, 1}}] = Horde.Registry.select(MyReg, [{{\"ours\", :\"$1\", :\"$2\"}, [], [{{:\"$1\", :\"$2\"}}]}]); send(pid, :from_beam); :ok",
            );
            assert_eq!(rust.run(next(&mut worker)), "from_beam");
            assert_eq!(one.elixir("Horde.Registry.lookup(MyReg, \"ours\")"), "[]");
            let taken =
                rust.run(registry.register(Term::from("theirs"), Term::atom("nil"), worker.pid())).unwrap();
            assert!(matches!(taken, Registered::Already(pid) if pid.node.as_str() == "one@127.0.0.1"));

            one.elixir(":ok = Horde.Registry.put_meta(MyReg, :color, :red)");
            eventually_true("metadata arrive", WAIT, || {
                registry.meta(&Term::atom("color")) == Some(Term::atom("red"))
            });
            rust.run(registry.put_meta(Term::atom("size"), Some(Term::from(3)))).unwrap();
            eventually_true("and leave", WAIT, || {
                one.elixir("Horde.Registry.meta(MyReg, :size)") == "{:ok, 3}"
            });

            // Registered through us, as if we were one of theirs.
            one.elixir("{:ok, _} = GenServer.call({MyReg, :\"rust@127.0.0.1\"}, {:register, \"through\", nil, self()}); :ok");
            eventually_true("it is there", WAIT, || names(&one) == "[\"ours\", \"theirs\", \"through\"]");
            Ok(())
        },
    );
}
