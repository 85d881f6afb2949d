//! What else `Horde.Registry` offers, names of every kind, and members of several releases: `make ecosystem`.

use std::path::Path;

use foundation_interop_tests::case::Unsupported;
use foundation_interop_tests::eventually::{eventually_eq, eventually_true};
use foundation_interop_tests::{Beam, Case, Epmd, Release, case, otp};
use foundation_node::Error;
use foundation_node::service::horde::Registered;
use foundation_proto::etf::Term;

use crate::ecosystem::{TOPIC, source};
use crate::ecosystem_horde::{node, start_registry_auto, visible};
use crate::rust::{Rust, WAIT};

/// Runs a case where the newest Horde runs.
fn with_latest(what: &str, run: impl Fn(&Release, &Path) -> Result<(), Unsupported>) {
    case(Case::Full, TOPIC, what, |release| {
        if release.number < 25 {
            return Err(Unsupported("horde 0.10 wants Elixir 1.12"));
        }
        source("horde").map_or(Ok(()), |horde| run(release, &horde))
    });
}

/// Two nodes with a registry.
fn two_members(release: &Release, epmd: &Epmd, horde: &Path) -> Option<[Beam; 2]> {
    let nodes = [node(release, epmd, horde, "one")?, node(release, epmd, horde, "two")?];
    nodes.iter().for_each(start_registry_auto);
    Some(nodes)
}

#[test]
fn horde_registry_whole_api() {
    with_latest(
        "Horde.Registry, visible: match, count_match, unregister_match, dispatch, update_value, delete_meta, listeners and :via with a value, of names on both sides",
        |release, horde| {
            let epmd = Epmd::start(release);
            let Some(one) = node(release, &epmd, horde, "one") else { return Ok(()) };
            let is = |code: &str, expected: &str| assert_eq!(one.elixir(code), expected, "{code}");
            // Whoever answers here has a name already.
            is(
                "{:registered_name, listens} = Process.info(self(), :registered_name); is_atom(listens)",
                "true",
            );
            is(
                "{:ok, _} = Supervisor.start_link([{Horde.Registry, name: MyReg, keys: :unique, members: :auto, listeners: [listens]}], strategy: :one_for_one); :ok",
                ":ok",
            );
            let rust = visible(&epmd);
            let registry = rust.run(async { rust.node.horde_registry("MyReg") }).unwrap();
            rust.echo();
            let echo = rust.node.whereis("echo").unwrap();
            let (name, value) = (Term::from("job"), Term::from((Term::atom("meta"), 1)));
            rust.run(rust.node.connect("one@127.0.0.1")).unwrap();
            let got = rust.run(registry.register(name.clone(), value, &echo)).unwrap();
            assert_eq!(got, Registered::Yes);

            // Listeners hear of ours as of theirs.
            is(
                "job = receive do {:register, MyReg, \"job\", pid, {:meta, 1}} -> pid after 20000 -> self() end; node(job)",
                ":\"rust@127.0.0.1\"",
            );
            is("Horde.Registry.match(MyReg, \"job\", {:meta, :_}) == [{job, {:meta, 1}}]", "true");
            is("Horde.Registry.match(MyReg, \"job\", {:\"$1\", :_}, [{:==, :\"$1\", :other}])", "[]");
            is("Horde.Registry.count_match(MyReg, \"job\", {:meta, :\"$1\"}, [{:<, :\"$1\", 2}])", "1");
            is("Horde.Registry.count_match(MyReg, \"job\", :other)", "0");
            is(
                "me = self(); Horde.Registry.dispatch(MyReg, \"job\", fn [{pid, {:meta, 1}}] -> send(pid, {me, :dispatched}) end)",
                ":ok",
            );
            is("receive do {:echo, :dispatched} -> :ok after 20000 -> :nothing end", ":ok");
            // Only an own process may do these: it has not the name.
            is("Horde.Registry.unregister_match(MyReg, \"job\", :_)", ":ok");
            is("Horde.Registry.update_value(MyReg, \"job\", fn value -> value end)", ":error");

            // A process under a name that is ours, and under one with a value.
            let via =
                |name: &str| format!("Agent.start(fn -> 1 end, name: {{:via, Horde.Registry, {name}}})");
            is(&format!("{} == {{:error, {{:already_started, job}}}}", via("{MyReg, \"job\"}")), "true");
            is(&format!("{{:ok, agent}} = {}; :ok", via("{MyReg, \"agent\", :kept}")), ":ok");
            eventually_true("the value is here", WAIT, || {
                registry.lookup(&Term::from("agent")).is_some_and(|found| found.value == Term::atom("kept"))
            });
            is("Process.exit(agent, :kill)", "true");
            eventually_true("its name is gone", WAIT, || registry.lookup(&Term::from("agent")).is_none());

            // Values that change.
            is("{:ok, _} = Horde.Registry.register(MyReg, \"counter\", 1); :ok", ":ok");
            let counter = || registry.lookup(&Term::from("counter")).and_then(|found| found.value.as_i64());
            eventually_eq("the first value", WAIT, &Some(1), counter);
            is("Horde.Registry.update_value(MyReg, \"counter\", &(&1 + 1))", "{2, 1}");
            eventually_eq("the second", WAIT, &Some(2), counter);
            is("Horde.Registry.unregister_match(MyReg, \"counter\", 3)", ":ok");
            is("Horde.Registry.unregister_match(MyReg, \"counter\", 2)", ":ok");
            eventually_eq("it is given up", WAIT, &None, counter);

            // Metadata come and go.
            is("Horde.Registry.put_meta(MyReg, :color, :red)", ":ok");
            let color = || registry.meta(&Term::atom("color"));
            eventually_eq("metadata", WAIT, &Some(Term::atom("red")), color);
            is("Horde.Registry.delete_meta(MyReg, :color)", ":ok");
            eventually_eq("they are gone", WAIT, &None, color);
            rust.run(registry.put_meta(Term::atom("size"), Some(Term::from(3)))).unwrap();
            eventually_true("ours are there", WAIT, || {
                one.elixir("Horde.Registry.meta(MyReg, :size)") == "{:ok, 3}"
            });
            rust.run(registry.put_meta(Term::atom("size"), None)).unwrap();
            eventually_true("and gone", WAIT, || one.elixir("Horde.Registry.meta(MyReg, :size)") == ":error");

            // A new value, of who has the name alone.
            let update = |name: &str, to: i64| {
                rust.run(registry.update_value(Term::from(name), to.into(), &echo)).unwrap()
            };
            assert!(update("job", 2));
            assert_eq!(registry.lookup(&name).unwrap().value, Term::from(2));
            eventually_true("the new value is there", WAIT, || {
                one.elixir("Horde.Registry.lookup(MyReg, \"job\") == [{job, 2}]") == "true"
            });
            is("{:ok, _} = Horde.Registry.register(MyReg, \"theirs\", 1); :ok", ":ok");
            let theirs = || registry.lookup(&Term::from("theirs")).map(|found| found.value.clone());
            eventually_eq("theirs is here", WAIT, &Some(Term::from(1)), theirs);
            assert!(!update("theirs", 3) && !update("nobody's", 3));
            assert_eq!(theirs(), Some(Term::from(1)));
            is("Horde.Registry.unregister(MyReg, \"theirs\")", ":ok");

            // Given up here.
            rust.run(registry.unregister(name, &echo)).unwrap();
            is("receive do {:unregister, MyReg, \"job\", ^job} -> :ok after 20000 -> :nothing end", ":ok");
            is("Horde.Registry.count(MyReg)", "0");
            is("Horde.Registry.keys(MyReg, job)", "[]");
            Ok(())
        },
    );
}

/// Keys that a map may confuse, or a codec write in two ways. References, pids and ports are those of the node itself.
const KEYS: &str = "[1, 1.0, -1, 0, 256, 65_536, 2_147_483_648, -9_223_372_036_854_775_808, 18_446_744_073_709_551_616, \
    -340_282_366_920_938_463_463_374_607_431_768_211_456, 1.0e300, 5.0e-324, :a, :\"\", :\"ü\", :\"with space\", nil, true, \"\", \"a\", \"ü\", <<255>>, <<1::3>>, \
    [], [1], [1, 2, 300], 'abc', [:a | :b], [[]], {}, {:a}, {1, {2, {3}}}, List.to_tuple(Enum.to_list(1..300)), %{}, %{a: 1}, %{1 => :i, 1.0 => :f}, \
    Map.new(1..32, &{&1, &1}), Map.new(1..100, &{{:k, &1}, Integer.to_string(&1)}), %{%{a: 1} => %{b: %{c: []}}}, ~D[2026-11-23], 1..3, \
    self(), make_ref(), hd(:erlang.ports()), String.duplicate(\"long\", 5_000), Enum.to_list(1..3_000), :erlang.phash2(1), &Enum.map/2]";

#[test]
fn horde_registry_keys_of_every_kind() {
    with_latest(
        "Horde.Registry, visible: names of every kind of term, registered on both sides, after a partition, and given up",
        |release, horde| {
            let epmd = Epmd::start(release);
            let Some([one, two]) = two_members(release, &epmd, horde) else { return Ok(()) };
            let rust = visible(&epmd);
            let registry = rust.run(async { rust.node.horde_registry("MyReg") }).unwrap();
            rust.run(rust.node.connect("one@127.0.0.1")).unwrap();
            let count: usize = one
                .elixir(&format!(
                    "keys = {KEYS}\nfor key <- keys, do: {{:ok, _}} = Horde.Registry.register(MyReg, key, {{:of, key}})\nlength(keys)"
                ))
                .parse()
                .unwrap();
            eventually_eq("all are here", WAIT, &count, || registry.count());
            for found in registry.select() {
                assert_eq!(found.value.as_tuple().unwrap()[1], found.name.0);
                assert_eq!(registry.lookup(&found.name.0).unwrap().pid, found.pid, "{}", found.name.0);
            }

            // The same terms as names of ours.
            let worker = rust.node.process().unwrap();
            for found in registry.select() {
                let name = Term::from((Term::atom("ours"), found.name.0.clone()));
                let got = rust.run(registry.register(name, found.name.0.clone(), worker.pid())).unwrap();
                assert_eq!(got, Registered::Yes, "{}", found.name.0);
            }
            let all_there = "Enum.filter(keys, fn key -> not match?([{pid, ^key}] when node(pid) == :\"rust@127.0.0.1\", Horde.Registry.lookup(MyReg, {:ours, key})) end)";
            eventually_eq("all are there", WAIT, &"[]".to_owned(), || one.elixir(all_there));

            // A member that has nothing gets everything, from whomever.
            two.elixir("true = Node.connect(:\"one@127.0.0.1\"); :ok");
            rust.run(rust.node.connect("two@127.0.0.1")).unwrap();
            let both = (2 * count).to_string();
            let counted = |beam: &Beam| beam.elixir("Horde.Registry.count(MyReg)");
            eventually_eq("the second has all", WAIT, &both, || counted(&two));
            // They part and meet again: Horde drops names, and what comes back is what was.
            for beam in [&one, &two] {
                beam.elixir("true = Node.disconnect(:\"rust@127.0.0.1\"); :ok");
            }
            eventually_eq("all of ours are back", WAIT, &"[]".to_owned(), || one.elixir(all_there));
            for beam in [&one, &two] {
                eventually_eq("and all in all", WAIT, &both, || counted(beam));
            }
            eventually_eq("and here", WAIT, &(2 * count), || registry.count());

            // Given up, each on its side.
            one.elixir("for key <- keys, do: :ok = Horde.Registry.unregister(MyReg, key)\n:ok");
            for found in registry.select() {
                if found.pid == *worker.pid() {
                    rust.run(registry.unregister(found.name.0.clone(), worker.pid())).unwrap();
                }
            }
            for beam in [&one, &two] {
                eventually_eq("none is left", WAIT, &"0".to_owned(), || counted(beam));
            }
            eventually_eq("nor here", WAIT, &0, || registry.count());
            Ok(())
        },
    );
}

#[test]
fn horde_registry_of_several_releases() {
    with_latest(
        "Horde.Registry, visible: two BEAM nodes of different OTP and Elixir, as while a cluster is upgraded, and a Rust node: names of all three, ends, and a partition",
        |release, horde| {
            let others = otp::matrix().iter().rev().filter(|other| other.number >= 25);
            let Some(other) = others.clone().find(|other| other.number != release.number) else {
                return Err(Unsupported("no other release is installed"));
            };
            let epmd = Epmd::start(release);
            let Some(one) = node(release, &epmd, horde, "one") else { return Ok(()) };
            let Some(two) = node(other, &epmd, horde, "two") else { return Ok(()) };
            println!("ecosystem horde: OTP {} and {}", release.number, other.number);
            start_registry_auto(&one);
            start_registry_auto(&two);
            let rust = visible(&epmd);
            let registry = rust.run(async { rust.node.horde_registry("MyReg") }).unwrap();
            for name in ["one@127.0.0.1", "two@127.0.0.1"] {
                rust.run(rust.node.connect(name)).unwrap();
            }
            two.elixir("true = Node.connect(:\"one@127.0.0.1\"); :ok");
            let worker = rust.node.process().unwrap();
            for number in 0..50_i64 {
                let name = Term::from((Term::atom("rust"), number));
                let got = rust.run(registry.register(name, Term::from(number), worker.pid())).unwrap();
                assert_eq!(got, Registered::Yes);
            }
            for (beam, name) in [(&one, "one"), (&two, "two")] {
                beam.elixir(&format!(
                    "for n <- 1..50, do: {{:ok, _}} = Horde.Registry.register(MyReg, {{:{name}, n}}, n)\n:ok"
                ));
            }
            let counted = |beam: &Beam| beam.elixir("Horde.Registry.count(MyReg)");
            let all = |count: usize| {
                for beam in [&one, &two] {
                    eventually_eq("all there", WAIT, &count.to_string(), || counted(beam));
                }
                eventually_eq("all here", WAIT, &count, || registry.count());
            };
            all(150);
            two.elixir("for n <- 1..25, do: :ok = Horde.Registry.unregister(MyReg, {:two, n})\n:ok");
            all(125);
            // This node is lost, and returns with its names, to both.
            for beam in [&one, &two] {
                beam.elixir("true = Node.disconnect(:\"rust@127.0.0.1\"); :ok");
            }
            all(125);
            drop(worker);
            all(75);
            // One of them ends: its names do, on the other and here.
            two.kill();
            eventually_eq("the other's names", WAIT, &"50".to_owned(), || counted(&one));
            eventually_true("and here", WAIT, || {
                registry.select().iter().all(|found| found.pid.node == "one@127.0.0.1")
            });
            eventually_eq("all of them", WAIT, &50, || registry.count());
            Ok(())
        },
    );
}

#[test]
fn horde_registry_through_a_beam_node() {
    with_latest(
        "Horde.Registry through one of its nodes, hidden, without a member of ours: names both ways, conflicts, ends, metadata, sends",
        |release, horde| {
            let epmd = Epmd::start(release);
            let Some([one, two]) = two_members(release, &epmd, horde) else { return Ok(()) };
            two.elixir(&format!("true = Node.connect(:\"{}\"); :ok", one.name()));
            let rust = Rust::start(&epmd, "rust");
            let names = rust.node.horde_client("MyReg", "one@127.0.0.1").unwrap();
            let worker = rust.node.process().unwrap();
            let [ours, theirs, nobody] = ["ours", "theirs", "nobody"].map(Term::from);

            two.elixir("{:ok, _} = Horde.Registry.register(MyReg, \"theirs\", [1, 2]); :ok");
            let value = Term::list([Term::from(1), Term::from(2)]);
            eventually_true("theirs is found", WAIT, || {
                let found = rust.run(names.lookup(&theirs)).unwrap();
                found.is_some_and(|(pid, got)| pid.node == "two@127.0.0.1" && got == value)
            });
            let taken = rust.run(names.register(theirs.clone(), Term::atom("nil"), worker.pid())).unwrap();
            assert!(matches!(taken, Registered::Already(pid) if pid.node == "two@127.0.0.1"));
            // Nobody loses a name to somebody who never had it.
            rust.run(names.unregister(theirs.clone(), worker.pid())).unwrap();
            assert!(rust.run(names.lookup(&theirs)).unwrap().is_some());
            rust.run(names.send(&theirs, &Term::atom("hello"))).unwrap();
            assert_eq!(two.elixir("receive do :hello -> :ok after 20000 -> :nothing end"), ":ok");
            assert_eq!(rust.run(names.lookup(&nobody)).unwrap(), None);
            assert!(matches!(rust.run(names.send(&nobody, &Term::atom("hello"))), Err(Error::NoProc)));

            let got = rust.run(names.register(ours.clone(), Term::from(7), worker.pid())).unwrap();
            assert_eq!(got, Registered::Yes);
            let mine = Some((worker.pid().clone(), Term::from(7)));
            eventually_eq("ours is found", WAIT, &mine, || rust.run(names.lookup(&ours)).unwrap());
            let again = rust.run(names.register(ours.clone(), Term::from(8), worker.pid())).unwrap();
            assert_eq!(again, Registered::Already(worker.pid().clone()));
            assert_eq!(rust.run(names.keys(worker.pid())).unwrap(), std::slice::from_ref(&ours));
            let shown =
                "Horde.Registry.select(MyReg, [{{\"ours\", :\"$1\", :\"$2\"}, [], [{{:\"$1\", :\"$2\"}}]}])";
            eventually_eq("the other node shows it", WAIT, &"true".to_owned(), || {
                two.elixir(&format!("match?([{{pid, 7}}] when node(pid) == :\"rust@127.0.0.1\", {shown})"))
            });
            assert_eq!(rust.run(names.count()).unwrap(), 2);
            let mut all = rust.run(names.select()).unwrap();
            all.sort_by(|a, b| a.0.cmp_erlang(&b.0));
            assert_eq!(all[0], (ours.clone(), worker.pid().clone(), Term::from(7)));
            assert_eq!((&all[1].0, &all[1].2), (&theirs, &value));

            rust.run(names.put_meta(Term::atom("size"), Some(Term::from(3)))).unwrap();
            assert_eq!(rust.run(names.meta(&Term::atom("size"))).unwrap(), Some(Term::from(3)));
            rust.run(names.put_meta(Term::atom("size"), None)).unwrap();
            assert_eq!(rust.run(names.meta(&Term::atom("size"))).unwrap(), None);

            // Given up, and ended.
            rust.run(names.unregister(ours.clone(), worker.pid())).unwrap();
            eventually_eq("it is given up", WAIT, &"[]".to_owned(), || two.elixir(shown));
            let got = rust.run(names.register(ours.clone(), Term::from(7), worker.pid())).unwrap();
            assert_eq!(got, Registered::Yes);
            eventually_eq("it is back", WAIT, &mine, || rust.run(names.lookup(&ours)).unwrap());
            drop(worker);
            eventually_eq("its process has ended", WAIT, &1, || rust.run(names.count()).unwrap());
            eventually_eq("also there", WAIT, &"[]".to_owned(), || two.elixir(shown));

            let none = rust.node.horde_client("NoReg", "one@127.0.0.1").unwrap();
            assert!(matches!(rust.run(none.lookup(&ours)), Err(Error::Raised(_))));
            Ok(())
        },
    );
}
