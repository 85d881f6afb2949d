//! One registry of an Elixir node with our library and of a Rust node: `Foundation.Registry` and `node.registry`; and the names of
//! `Foundation.ProcessManager` in it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use foundation_interop_tests::case::Unsupported;
use foundation_interop_tests::eventually::eventually_true;
use foundation_interop_tests::{Case, Epmd, Release, beam, built, case, work_dir};
use foundation_node::config::Reconnect;
use foundation_node::service::registry::{Registered, Registry, Waited};
use foundation_proto::etf::{Pid, Term};

use crate::rust::{Rust, WAIT, next};

/// How long compiling the library may take on a busy machine.
const COMPILE: Duration = Duration::from_secs(180);

const TOPIC: &str = "elixir registry";

/// The nodes, as Elixir shows them.
const EX: &str = ":\"ex@127.0.0.1\"";
const RUST: &str = ":\"rust@127.0.0.1\"";

/// A place for the library as a host application has it. The first node of the case that has it compiles it, with the release's own Elixir.
fn library(release: &Release, case: &str) -> Result<PathBuf, Unsupported> {
    if release.number < 25 {
        return Err(Unsupported("the Elixir library wants Elixir 1.14"));
    }
    let application = work_dir("elixir").join(format!("{case}-{}", release.number)).join("foundation");
    // What an earlier run has left is of other sources; it may be absent.
    let _ = std::fs::remove_dir_all(&application);
    let native = application.join("priv/native");
    std::fs::create_dir_all(application.join("ebin")).unwrap();
    std::fs::create_dir_all(&native).unwrap();
    std::fs::copy(built::native(), native.join("foundation_native.so")).unwrap();
    Ok(application)
}

fn start(release: &Release, epmd: &Epmd, name: &str, library: &Path) -> beam::Beam {
    let beam = beam::Options::new(release, epmd.port, name).elixir().start();
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/../erlang/lib/foundation");
    let ebin = library.join("ebin");
    beam.elixir(&format!(
        "true = :code.add_path(String.to_charlist(Path.join([:code.lib_dir(:elixir), \"..\", \"logger\", \"ebin\"])))\n\
         {{:ok, _}} = Application.ensure_all_started(:logger)\n\
         true = :code.add_path(String.to_charlist({ebin:?}))\n\
         files = Path.wildcard(\"{source}/{{native,registry,settings}}.ex\") ++ Path.wildcard(\"{source}/{{native,registry,settings}}/*.ex\")\n\
         unless Code.ensure_loaded?(Foundation.Registry), do: {{:ok, _, []}} = Kernel.ParallelCompiler.compile_to_path(files, {ebin:?})\n\
         :ok = Foundation.Native.load()"
    ));
    beam.elixir("{:ok, _} = Supervisor.start_link([{Foundation.Registry, name: :names}], strategy: :one_for_one); :ok");
    beam.elixir("idle = fn -> spawn(fn -> receive do: (:stop -> :ok) end) end; :ok");
    beam
}

/// An Elixir node that runs the whole library with clustering on, and connects to nobody by itself.
fn start_application(release: &Release, epmd: &Epmd, name: &str, library: &Path) -> beam::Beam {
    let beam = beam::Options::new(release, epmd.port, name).elixir().start();
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/../erlang/lib");
    let ebin = library.join("ebin");
    // Beside the evaluation, which may not take as long as compiling a hundred files on a busy machine.
    beam.elixir(&format!(
        "true = :code.add_path(String.to_charlist(Path.join([:code.lib_dir(:elixir), \"..\", \"logger\", \"ebin\"])))\n\
         {{:ok, _}} = Application.ensure_all_started(:logger)\n\
         true = :code.add_path(String.to_charlist({ebin:?}))\n\
         files = Path.wildcard(\"{source}/foundation/**/*.ex\") ++ [\"{source}/foundation.ex\"]\n\
         spawn(fn -> :persistent_term.put(:compiled, elem(Kernel.ParallelCompiler.compile_to_path(files, {ebin:?}), 0)) end)\n:ok"
    ));
    eventually_true("the library is compiled", COMPILE, || {
        match beam.elixir(":persistent_term.get(:compiled, nil)").as_str() {
            "nil" => false,
            result => {
                assert_eq!(result, ":ok", "{}", beam.log());
                true
            }
        }
    });
    beam.elixir(
        "applications = [:kernel, :stdlib, :elixir, :logger, :crypto]\n\
         :ok = :application.load({:application, :foundation, vsn: ~c\"2.0.0\", modules: [], registered: [], applications: applications, mod: {Foundation.Application, []}})\n\
         :ok = Application.put_env(:foundation, :cluster, strategy: :epmd, hosts: [node()])\n\
         {:ok, _} = Application.ensure_all_started(:foundation)\n:ok",
    );
    assert_eq!(beam.elixir("Foundation.Native.status()"), ":ok");
    eventually_true("clustering is on", WAIT, || {
        beam.elixir("is_pid(Process.whereis(Foundation.ProcessManager.Keeper))") == "true"
    });
    // What is run once in the cluster: it says where it is.
    beam.elixir("defmodule Job do\n  def start_link(_), do: Agent.start_link(fn -> node() end)\nend\n:ok");
    beam
}

fn on(registry: &Registry, key: &str) -> Option<String> {
    registry.whereis_name(&Term::from(key)).map(|pid| pid.node.as_str().to_owned())
}

fn rust_sees(registry: &Registry, key: &str, node: Option<&str>) {
    eventually_true(&format!("Rust sees {key} on {node:?}"), WAIT, || on(registry, key).as_deref() == node);
}

fn elixir_sees(beam: &beam::Beam, key: &str, node: Option<&str>) {
    let expected = node.map_or("[]".to_owned(), |node| format!("[:\"{node}\"]"));
    let code = format!("for {{pid, _}} <- Foundation.Registry.lookup(:names, {key:?}), do: node(pid)");
    eventually_true(&format!("Elixir sees {key} on {node:?}"), WAIT, || beam.elixir(&code) == expected);
}

fn register(rust: &Rust, registry: &Registry, key: &str, pid: &Pid) {
    let registered = rust.run(registry.register(Term::from(key), Term::from(1), pid)).unwrap();
    assert_eq!(registered, Registered::Yes);
}

#[test]
fn an_elixir_node_and_a_rust_node_share_names() {
    case(
        Case::Full,
        TOPIC,
        "names seen both ways, taken, waited for; a node lost and back, killed, started anew",
        |release| {
            let epmd = Epmd::start(release);
            let library = library(release, "names")?;
            let rust = Rust::with(&epmd, "rust", |mut config| {
                config.reconnect = Reconnect::Never;
                config
            });
            let names = rust.node.registry("names").unwrap();
            let worker = rust.node.process().unwrap();
            register(&rust, &names, "from rust", worker.pid());

            let elixir = start(release, &epmd, "ex", &library);
            elixir.elixir("early = idle.(); {:ok, _} = Foundation.Registry.register(:names, \"from elixir\", %{v: 1}, early); :ok");
            rust.run(rust.node.connect("ex@127.0.0.1")).unwrap();
            rust_sees(&names, "from elixir", Some("ex@127.0.0.1"));
            elixir_sees(&elixir, "from rust", Some("rust@127.0.0.1"));
            let is = |code: &str, expected: &str| assert_eq!(elixir.elixir(code), expected, "{code}");
            is("Enum.sort(Foundation.Registry.members(:names))", "[:\"ex@127.0.0.1\", :\"rust@127.0.0.1\"]");

            // What Elixir registers is in Rust when the wait is over, as the term that it is.
            is(
                "{:ok, _} = Foundation.Registry.register(:names, {:t, [1.5, \"x\"]}, [a: nil], early); :ok",
                ":ok",
            );
            is("Foundation.Registry.wait_until_all(:names, {:t, [1.5, \"x\"]}, 20_000)", ":ok");
            let key = Term::from((Term::atom("t"), Term::list([Term::Float(1.5), Term::from("x")])));
            let entry = names.lookup(&key).unwrap();
            assert_eq!(entry.value, Term::list([Term::from((Term::atom("a"), Term::atom("nil")))]));
            // And the reverse.
            register(&rust, &names, "late", worker.pid());
            let waited = rust.run(names.wait_until_all(&Term::from("late"), WAIT)).unwrap();
            assert_eq!(waited, Waited::Everywhere);
            is("[{pid, 1}] = Foundation.Registry.lookup(:names, \"late\"); node(pid)", ":\"rust@127.0.0.1\"");
            is("Enum.sort(Foundation.Registry.keys(:names, pid))", "[\"from rust\", \"late\"]");

            // A key has one process, wherever it is.
            is(
                "Foundation.Registry.register(:names, \"late\", 2, early) == {:error, {:already_registered, pid}}",
                "true",
            );
            let taken =
                rust.run(names.register(Term::from("from elixir"), Term::from(2), worker.pid())).unwrap();
            assert!(matches!(taken, Registered::Already(pid) if pid.node.as_str() == "ex@127.0.0.1"));
            is(
                "send({:via, Foundation.Registry, {:names, \"late\"}} |> GenServer.whereis(), :hello)",
                ":hello",
            );
            is(
                "true = Process.exit(early, :kill); Foundation.Registry.lookup(:names, \"from elixir\")",
                "[]",
            );
            rust_sees(&names, "from elixir", None);

            // Cut off, changed on both sides, together again.
            is(
                "kept = idle.(); {:ok, _} = Foundation.Registry.register(:names, \"kept\", 1, kept); :ok",
                ":ok",
            );
            rust_sees(&names, "kept", Some("ex@127.0.0.1"));
            assert!(rust.run(rust.node.disconnect("ex@127.0.0.1")));
            rust_sees(&names, "kept", None);
            elixir_sees(&elixir, "late", None);
            is("new = idle.(); {:ok, _} = Foundation.Registry.register(:names, \"new\", 1, new); :ok", ":ok");
            assert!(rust.run(names.unregister(Term::from("late"), worker.pid())).unwrap());
            rust.run(rust.node.connect("ex@127.0.0.1")).unwrap();
            rust_sees(&names, "kept", Some("ex@127.0.0.1"));
            rust_sees(&names, "new", Some("ex@127.0.0.1"));
            elixir_sees(&elixir, "from rust", Some("rust@127.0.0.1"));
            elixir_sees(&elixir, "late", None);

            // Killed, and started anew with nothing.
            elixir.kill();
            rust_sees(&names, "kept", None);
            let elixir = start(release, &epmd, "ex", &library);
            rust.run(rust.node.connect("ex@127.0.0.1")).unwrap();
            elixir_sees(&elixir, "from rust", Some("rust@127.0.0.1"));
            assert_eq!(on(&names, "kept"), None);
            Ok(())
        },
    );
}

#[test]
fn a_key_that_elixir_and_rust_gave_away_is_kept_by_the_earlier() {
    case(
        Case::Full,
        TOPIC,
        "conflicts after they have met, both ways round: the later process exits",
        |release| {
            let epmd = Epmd::start(release);
            let rust = Rust::start(&epmd, "rust");
            let names = rust.node.registry("names").unwrap();
            let elixir = start(release, &epmd, "ex", &library(release, "conflict")?);
            let (earlier, mut later) = (rust.node.process().unwrap(), rust.node.process().unwrap());
            let _ = later.trap_exit(true);
            register(&rust, &names, "rust first", earlier.pid());
            elixir
                .elixir("{:ok, _} = Foundation.Registry.register(:names, \"elixir first\", 1, idle.()); :ok");
            tick();
            register(&rust, &names, "elixir first", later.pid());
            elixir.elixir(
            "test = self()\n\
             loser = spawn(fn -> Process.flag(:trap_exit, true); send(test, :ready); receive do: (m -> send(test, {:told, m})) end)\n\
             receive do: (:ready -> :ok)\n\
             {:ok, _} = Foundation.Registry.register(:names, \"rust first\", 7, loser); :ok",
        );
            rust.run(rust.node.connect("ex@127.0.0.1")).unwrap();
            let told = rust.run(next(&mut later));
            assert!(told.contains("{name_conflict,{<<\"elixir first\">>,1},names,"), "{told}");
            assert_eq!(
            elixir.elixir(
                "receive do {:told, {:EXIT, _, {:name_conflict, {\"rust first\", 7}, :names, winner}}} -> node(winner) after 20_000 -> :nothing end"
            ),
            ":\"rust@127.0.0.1\""
        );
            for (key, node) in [("rust first", "rust@127.0.0.1"), ("elixir first", "ex@127.0.0.1")] {
                rust_sees(&names, key, Some(node));
                elixir_sees(&elixir, key, Some(node));
            }
            assert_eq!(elixir.elixir("Foundation.Registry.stats(:names).conflicts"), "1");
            assert_eq!(names.stats().conflicts, 1);
            Ok(())
        },
    );
}

#[test]
fn a_singleton_of_elixir_nodes_and_of_rust_nodes_is_one() {
    case(
        Case::Full,
        TOPIC,
        "Foundation.ProcessManager's names: found both ways, at most one after a partition, taken up again",
        |release| {
            let epmd = Epmd::start(release);
            let rust = Rust::with(&epmd, "rust", |mut config| {
                config.reconnect = Reconnect::Never;
                config
            });
            let names = rust.node.registry("Foundation.ProcessManager.Shared").unwrap();
            let elixir = start_application(release, &epmd, "ex", &library(release, "singletons")?);
            let is = |code: &str, expected: &str| assert_eq!(elixir.elixir(code), expected, "{code}");
            let finds = |key: &str, expected: &str| {
                let code = format!(
                    "case Foundation.ProcessManager.lookup_singleton({key:?}) do\n {{:ok, pid}} -> node(pid)\n none -> none\nend"
                );
                eventually_true(&format!("Elixir finds {key} on {expected}"), WAIT, || {
                    elixir.elixir(&code) == expected
                });
            };
            let start = |key: &str| {
                elixir.elixir(&format!(
                    "{{:ok, pid}} = Foundation.ProcessManager.start_singleton(Job, [], name: {key:?})\n node(pid)"
                ))
            };
            let (worker, mut loser) = (rust.node.process().unwrap(), rust.node.process().unwrap());
            let _ = loser.trap_exit(true);

            // Started on either side, found on both.
            assert_eq!(start("of elixir"), EX);
            register(&rust, &names, "of rust", worker.pid());
            rust.run(rust.node.connect("ex@127.0.0.1")).unwrap();
            rust_sees(&names, "of elixir", Some("ex@127.0.0.1"));
            finds("of rust", RUST);
            let entry = names.lookup(&Term::from("of elixir")).unwrap();
            assert_eq!(entry.value, Term::atom("singleton"));
            let taken =
                rust.run(names.register(Term::from("of elixir"), Term::from(1), worker.pid())).unwrap();
            assert!(matches!(taken, Registered::Already(pid) if pid == entry.pid), "the same process");
            assert_eq!(start("of rust"), RUST);
            is(
                "Foundation.ProcessManager.list_singletons() |> Map.keys() |> Enum.sort()",
                "[\"of elixir\", \"of rust\"]",
            );
            is(
                "{:error, error} = Foundation.ProcessManager.stop_singleton(\"of rust\")\n error.error_type",
                ":process_manager_unavailable",
            );

            // It crashes: its successor has the name.
            let first = entry.pid.clone();
            elixir.elixir("{:ok, pid} = Foundation.ProcessManager.lookup_singleton(\"of elixir\")\nProcess.exit(pid, :kill)");
            eventually_true("the successor is found", WAIT, || {
                names.lookup(&Term::from("of elixir")).is_some_and(|entry| entry.pid != first)
            });

            // Apart, each side starts what it does not find; together again, the earlier is left.
            assert!(rust.run(rust.node.disconnect("ex@127.0.0.1")));
            rust_sees(&names, "of elixir", None);
            finds("of rust", ":not_found");
            register(&rust, &names, "rust first", worker.pid());
            assert_eq!(start("elixir first"), EX);
            tick();
            register(&rust, &names, "elixir first", loser.pid());
            assert_eq!(start("rust first"), EX);
            is(
                "{:ok, loser} = Foundation.ProcessManager.lookup_singleton(\"rust first\")\nProcess.alive?(loser)",
                "true",
            );
            rust.run(rust.node.connect("ex@127.0.0.1")).unwrap();
            for (key, rust_has, elixir_has) in [
                ("rust first", "rust@127.0.0.1", RUST),
                ("elixir first", "ex@127.0.0.1", EX),
                ("of rust", "rust@127.0.0.1", RUST),
            ] {
                rust_sees(&names, key, Some(rust_has));
                finds(key, elixir_has);
            }
            eventually_true("the later process of Elixir has ended", WAIT, || {
                elixir.elixir("Process.alive?(loser)") == "false"
            });
            let told = rust.run(next(&mut loser));
            assert!(told.contains("{name_conflict,{<<\"elixir first\">>,1},"), "{told}");

            // Given up by Rust, it is nobody's until somebody asks for it.
            assert!(rust.run(names.unregister(Term::from("rust first"), worker.pid())).unwrap());
            finds("rust first", ":not_found");
            assert_eq!(start("rust first"), EX);
            rust_sees(&names, "rust first", Some("ex@127.0.0.1"));
            is("Foundation.ProcessManager.stop_singleton(\"rust first\")", ":ok");
            rust_sees(&names, "rust first", None);
            Ok(())
        },
    );
}

/// Claims are milliseconds: until the clock has moved on.
fn tick() {
    let begin = std::time::SystemTime::now();
    eventually_true("the clock moves", WAIT, || begin.elapsed().is_ok_and(|elapsed| elapsed.as_millis() > 2));
}
