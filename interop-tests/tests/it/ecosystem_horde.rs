//! Names together with an unmodified `Horde.Registry`: `make ecosystem`.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use foundation_interop_tests::beam::Options;
use foundation_interop_tests::case::Unsupported;
use foundation_interop_tests::eventually::{answer_within, eventually_true};
use foundation_interop_tests::{Beam, Case, Epmd, Release, case};
use foundation_node::process::{Message, SpawnOptions};
use foundation_node::service::horde::Registered;
use foundation_proto::Limits;
use foundation_proto::etf::Term;

use crate::ecosystem::{TOPIC, load, source, sources};
use crate::rust::{Rust, WAIT, next, shown};

/// A node with Horde and what it needs, all from source; `None`, said aloud, if one is not there. It does not leave nodes because
/// others have lost them: what a broken connection does to Horde is to be seen, not what it does to `global`.
pub(crate) fn node(release: &Release, epmd: &Epmd, horde: &Path, name: &str) -> Option<Beam> {
    let sources = libraries(horde)?;
    let options = Options::new(release, epmd.port, name);
    let beam = options.args("-kernel prevent_overlapping_partitions false").elixir().start();
    load(&beam, &sources);
    Some(beam)
}

/// Horde after what it needs; `None`, said aloud, if one is not there.
pub(crate) fn libraries(horde: &Path) -> Option<[PathBuf; 6]> {
    Some([
        source("telemetry")?,
        source("telemetry_poller")?,
        source("merkle_map")?,
        source("delta_crdt_ex")?,
        source("libring")?,
        horde.to_owned(),
    ])
}

/// Runs a case with each version of Horde that is there.
pub(crate) fn with_horde(what: &str, run: impl Fn(&Release, &Path) -> Result<(), Unsupported>) {
    for horde in sources("horde") {
        let version = horde.file_name().expect("a folder").to_string_lossy().into_owned();
        case(Case::Full, TOPIC, &format!("{what} ({version})"), |release| {
            if release.number < 25 {
                return Err(Unsupported("horde wants Elixir 1.12"));
            }
            run(release, &horde)
        });
    }
}

pub(crate) fn start_registry(beam: &Beam, members: &[&str]) {
    let list: Vec<String> = members.iter().map(|node| format!("{{MyReg, :\"{node}@127.0.0.1\"}}")).collect();
    beam.elixir(&format!(
        "{{:ok, _}} = Supervisor.start_link([{{Horde.Registry, name: MyReg, keys: :unique, members: [{}]}}], strategy: :one_for_one); :ok",
        list.join(", ")
    ));
}

/// The names there, in order.
pub(crate) fn names(beam: &Beam) -> String {
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
            let Some(horde) = source("horde") else { return Ok(()) };
            let Some(one) = node(release, &epmd, &horde, "one") else { return Ok(()) };
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

/// A visible node of ours that leaves nobody because others have lost it, as the BEAM nodes.
pub(crate) fn visible(epmd: &Epmd) -> Rust {
    Rust::with(epmd, "rust", |mut config| {
        config.prevent_overlapping_partitions = false;
        config.hidden(false)
    })
}

/// Starts the registry, with all visible nodes as members.
pub(crate) fn start_registry_auto(beam: &Beam) {
    beam.elixir(
        "{:ok, _} = Supervisor.start_link([{Horde.Registry, name: MyReg, keys: :unique, members: :auto}], strategy: :one_for_one); :ok",
    );
}

/// Starts a process there that registers `name` and tells `test` why it exits.
pub(crate) fn registers(beam: &Beam, name: &str) {
    beam.elixir(&format!(
        "test = self(); spawn(fn -> Process.flag(:trap_exit, true); {{:ok, _}} = Horde.Registry.register(MyReg, \"{name}\", :theirs); \
         send(test, :registered); receive do {{:EXIT, _, reason}} -> send(test, {{:exited, reason}}) end end); \
         receive do :registered -> :ok after 5000 -> raise \"not registered\" end"
    ));
}

#[test]
fn horde_registry_visible() {
    with_horde(
        "Horde.Registry, visible: lookup, :via, whereis_name, select, count, keys and sends reach Rust processes, conflicts both ways, names come back with their node",
        |release, horde| {
            let epmd = Epmd::start(release);
            let Some(one) = node(release, &epmd, horde, "one") else { return Ok(()) };
            // Of concurrent registrations the member wins that has been up longest: `one`, then ours, then `two`.
            let rust = visible(&epmd);
            let registry = rust.run(async { rust.node.horde_registry("MyReg") }).unwrap();
            rust.echo();
            let echo = rust.node.whereis("echo").unwrap();
            let echo_name = (Term::from("echo"), Term::from((Term::atom("meta"), 1)));
            rust.run(registry.register(echo_name.0.clone(), echo_name.1.clone(), &echo)).unwrap();
            // A BEAM's clock begins up to a second ahead of its start.
            let started = Instant::now();
            eventually_true("this node is ahead", WAIT, || started.elapsed() > Duration::from_secs(3));
            let Some(two) = node(release, &epmd, horde, "two") else { return Ok(()) };
            start_registry_auto(&one);
            start_registry_auto(&two);
            two.elixir("true = Node.connect(:\"one@127.0.0.1\"); :ok");
            one.elixir("{:ok, _} = Horde.Registry.register(MyReg, \"theirs\", :kept); :ok");
            rust.run(rust.node.connect("one@127.0.0.1")).unwrap();
            rust.run(rust.node.connect("two@127.0.0.1")).unwrap();

            // Nobody was told of anybody: Horde takes this node for a member, and the map tells of the rest.
            let found = |beam: &Beam| {
                beam.elixir(
                    "match?([{pid, {:meta, 1}}] when is_pid(pid), Horde.Registry.lookup(MyReg, \"echo\"))",
                )
            };
            for beam in [&one, &two] {
                eventually_true("our process is found", WAIT, || found(beam) == "true");
                eventually_true("and theirs", WAIT, || names(beam) == "[\"echo\", \"theirs\"]");
                assert_eq!(
                    beam.elixir("node(Horde.Registry.whereis_name({MyReg, \"echo\"}))"),
                    ":\"rust@127.0.0.1\""
                );
                assert_eq!(beam.elixir("Horde.Registry.count(MyReg)"), "2");
                assert_eq!(
                    beam.elixir(
                        "[{pid, _}] = Horde.Registry.lookup(MyReg, \"echo\"); Horde.Registry.keys(MyReg, pid)"
                    ),
                    "[\"echo\"]"
                );
                assert_eq!(
                    beam.elixir("Horde.Registry.send({MyReg, \"echo\"}, {self(), :hello}); receive do {:echo, :hello} -> :ok after 5000 -> :nothing end"),
                    ":ok"
                );
                assert_eq!(
                    beam.elixir("send(GenServer.whereis({:via, Horde.Registry, {MyReg, \"echo\"}}), {self(), :via}); receive do {:echo, :via} -> :ok after 5000 -> :nothing end"),
                    ":ok"
                );
                assert_eq!(
                    beam.elixir("{:error, {:already_registered, pid}} = Horde.Registry.register(MyReg, \"echo\", nil); node(pid)"),
                    ":\"rust@127.0.0.1\""
                );
            }
            eventually_true("theirs is found here", WAIT, || {
                registry.lookup(&Term::from("theirs")).is_some()
            });
            // The command reads the map of any node that has it.
            for node in ["two@127.0.0.1", "rust@127.0.0.1"] {
                let listed = crate::cli::run(&epmd, &["horde", node, "MyReg"]);
                let lines: Vec<&str> = listed.out.lines().collect();
                let [echo, theirs] = lines[..] else { panic!("{}{}", listed.out, listed.err) };
                assert!(
                    echo.starts_with("<<\"echo\">>\t<") && echo.ends_with(">\trust@127.0.0.1\t{meta,1}"),
                    "{echo}"
                );
                assert!(theirs.ends_with(">\tone@127.0.0.1\tkept"), "{theirs}");
            }
            let listed = crate::cli::run(&epmd, &["horde", "two@127.0.0.1", "NoReg"]);
            assert_eq!((listed.out.as_str(), listed.code), ("", Some(1)), "{}", listed.err);

            // What has ended is not found, whatever the map says.
            let short = rust.node.process().unwrap();
            rust.run(registry.register(Term::from("short"), Term::atom("nil"), short.pid())).unwrap();
            eventually_true("it is found", WAIT, || {
                two.elixir("length(Horde.Registry.lookup(MyReg, \"short\"))") == "1"
            });
            drop(short);
            eventually_true("and is gone", WAIT, || names(&two) == "[\"echo\", \"theirs\"]");

            // A name that both give away. `one` has been up longer than this node: ours loses.
            let mut loser = rust.node.process_opt(&SpawnOptions::default().trap_exit()).unwrap();
            registers(&one, "fight1");
            rust.run(registry.register(Term::from("fight1"), Term::atom("ours"), loser.pid())).unwrap();
            let Message::Exit(exit) = rust.run(loser.recv()).unwrap() else { panic!("no exit") };
            let reason = shown(&exit.reason.to_term(&Limits::default()).unwrap());
            assert!(reason.starts_with("{name_conflict,{<<\"fight1\">>,ours},'Elixir.MyReg',<"), "{reason}");
            // Whichever member sees it first sends the signal.
            eventually_true("the other has the name", WAIT, || {
                registry.lookup(&Term::from("fight1")).is_some_and(|found| found.pid.node == "one@127.0.0.1")
            });
            // `two` has not: theirs loses. Rarely both do: if `two` wrote its name over ours before its registry had heard of ours,
            // theirs is what stands, and its registry ends the one when it hears of ours and the other when it hears of its own.
            let mut fights = (2..12).map(|number| format!("fight{number}"));
            let (fight2, winner) = loop {
                let name = fights.next().expect("a fight that one of both has survived");
                let winner = rust.node.process().unwrap();
                registers(&two, &name);
                let value = Term::atom("ours");
                let here =
                    rust.run(registry.register(Term::from(name.as_str()), value, winner.pid())).unwrap();
                if matches!(here, Registered::Already(_)) {
                    println!(
                        "ecosystem horde: {name} of theirs was here before ours, so that there was no conflict"
                    );
                    two.elixir(&format!(
                        "Process.exit(Horde.Registry.whereis_name({{MyReg, \"{name}\"}}), :kill); :ok"
                    ));
                    eventually_true("it is gone", WAIT, || {
                        !names(&one).contains(&name) && !names(&two).contains(&name)
                    });
                    continue;
                }
                assert_eq!(here, Registered::Yes);
                let exited = format!(
                    "receive do {{:exited, {{:name_conflict, {{\"{name}\", :theirs}}, MyReg, pid}}}} -> node(pid) after 15000 -> :nothing end"
                );
                assert_eq!(two.elixir(&exited), ":\"rust@127.0.0.1\"");
                // Where this has come from `two`, all has that came before it.
                two.elixir("{:ok, _} = Horde.Registry.register(MyReg, \"settled\", nil); :ok");
                eventually_true("what came before it is here", WAIT, || {
                    registry.lookup(&Term::from("settled")).is_some() && names(&one).contains("settled")
                });
                two.elixir("Horde.Registry.unregister(MyReg, \"settled\")");
                for beam in [&one, &two] {
                    let answer = beam.elixir(
                        "send(Horde.Registry.whereis_name({MyReg, \"echo\"}), {self(), :settled}); receive do {:echo, :settled} -> :ok after 5000 -> :nothing end",
                    );
                    assert_eq!(answer, ":ok");
                }
                match winner.exit_reason() {
                    None => break (name, winner),
                    Some(why) => println!("ecosystem horde: both have lost {name}: {why:?}"),
                }
            };

            // The connections break: both drop this node and its names. It comes back with them, and theirs have stayed.
            for beam in [&one, &two] {
                beam.elixir("true = Node.disconnect(:\"rust@127.0.0.1\"); :ok");
            }
            let all = format!("[\"echo\", \"fight1\", \"{fight2}\", \"theirs\"]");
            for beam in [&one, &two] {
                let state = || (found(beam), names(beam), beam.elixir("Horde.Cluster.members(MyReg)"));
                let back = answer_within(WAIT, || {
                    let (found, names, _) = state();
                    (found == "true" && names == all).then_some(())
                });
                let ours = (winner.exit_reason(), registry.select());
                assert!(back.is_some(), "not back on {}: {:?}; here: {ours:?}", beam.name(), state());
            }
            eventually_true("theirs are here", WAIT, || registry.count() == 4);
            assert_eq!(
                two.elixir("Horde.Registry.send({MyReg, \"echo\"}, {self(), :again}); receive do {:echo, :again} -> :ok after 5000 -> :nothing end"),
                ":ok"
            );
            // It leaves for good.
            drop(rust);
            let left = "[\"fight1\", \"theirs\"]";
            for beam in [&one, &two] {
                eventually_true("its names are gone", WAIT, || names(beam) == left);
            }
            Ok(())
        },
    );
}

#[test]
fn horde_registry_hidden_auto() {
    with_horde(
        "Horde.Registry and Horde.DynamicSupervisor with members: :auto take a hidden node of ours out at each node that comes; it is back with its names",
        |release, horde| {
            let epmd = Epmd::start(release);
            let Some(one) = node(release, &epmd, horde, "one") else { return Ok(()) };
            let rust = Rust::start(&epmd, "rust");
            let registry = rust.run(async { rust.node.horde_registry("MyReg") }).unwrap();
            let worker = rust.node.process().unwrap();
            rust.run(registry.register(Term::from("ours"), Term::atom("nil"), worker.pid())).unwrap();
            start_registry_auto(&one);
            crate::ecosystem_horde_supervisor::start_supervisor(&one, "UniformQuorumDistribution");
            rust.run(registry.set_members([("MyReg", "one@127.0.0.1")])).unwrap();
            let supervisor = rust.run(async { rust.node.horde_supervisor("MySup") }).unwrap();
            rust.run(supervisor.join("MySup", "one@127.0.0.1")).unwrap();
            eventually_true("it is a member", WAIT, || names(&one) == "[\"ours\"]");
            let both = "[{\"one\", :alive}, {\"rust\", :shutting_down}]";
            let members = || crate::ecosystem_horde_supervisor::members(&one);
            eventually_true("of the supervisor too", WAIT, || members() == both);
            // As the node listeners do when a node comes or goes.
            let begun = Instant::now();
            one.elixir(
                "for l <- [MyReg.NodeListener, MySup.NodeListener], do: send(l, {:nodeup, :nobody, []}); :ok",
            );
            eventually_true("it is taken out", WAIT, || {
                names(&one) == "[]" && members() == "[{\"one\", :alive}]"
            });
            eventually_true("it is back", 3 * WAIT, || names(&one) == "[\"ours\"]" && members() == both);
            println!("ecosystem horde: a hidden node was back {:?} after it was taken out", begun.elapsed());
            assert_eq!(registry.lookup(&Term::from("ours")).unwrap().pid, *worker.pid());
            let started = crate::ecosystem_horde_supervisor::start_children(&one, 1, 3);
            assert_eq!(started, "[:\"one@127.0.0.1\"]");
            eventually_true("children are seen", WAIT, || supervisor.children().len() == 3);
            Ok(())
        },
    );
}
