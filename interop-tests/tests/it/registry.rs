//! The registry between our own nodes over sockets, and what a BEAM node makes of it.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use foundation_interop_tests::eventually::eventually_true;
use foundation_interop_tests::{Case, Epmd, beam, built, case};
use foundation_node::config::Reconnect;
use foundation_node::service::registry::{Config, Keys, Registered, Registry, Waited};
use foundation_proto::etf::Term;

use crate::cli;
use crate::rust::{Rust, WAIT, next};

const TOPIC: &str = "registry";

fn wait_for(registry: &Registry, key: &str, node: Option<&str>) {
    eventually_true(&format!("{key} is on {node:?}"), WAIT, || {
        let found = registry.whereis_name(&Term::from(key));
        found.as_ref().map(|pid| pid.node.as_str()) == node
    });
}

fn wait_for_members(registry: &Registry, count: usize) {
    eventually_true(&format!("{count} members"), WAIT, || registry.members().len() == count);
}

fn register(rust: &Rust, registry: &Registry, key: &str, pid: &foundation_proto::etf::Pid) {
    let registered = rust.run(registry.register(Term::from(key), Term::from(1), pid)).unwrap();
    assert_eq!(registered, Registered::Yes);
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // It may have been killed already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn three_nodes_share_names_and_one_is_killed() {
    case(
        Case::Full,
        TOPIC,
        "names on three Rust nodes: seen at once, waited for, gone with a killed node, back after a disconnect",
        |release| {
            let epmd = Epmd::start(release);
            let (a, b) = (Rust::start(&epmd, "ra"), Rust::start(&epmd, "rb"));
            let (names_a, names_b) = (a.node.registry("names").unwrap(), b.node.registry("names").unwrap());
            let (worker_a, worker_b) = (a.node.process().unwrap(), b.node.process().unwrap());
            register(&a, &names_a, "early", worker_a.pid());
            a.run(a.node.connect("rb@127.0.0.1")).unwrap();
            wait_for(&names_b, "early", Some("ra@127.0.0.1"));

            let start = || {
                let child = Command::new(built::example("registry"))
                    .args(["rc@127.0.0.1", "names", "third", "ra@127.0.0.1", "rb@127.0.0.1"])
                    .env("FOUNDATION_COOKIE", beam::COOKIE)
                    .env("ERL_EPMD_PORT", epmd.port.to_string())
                    .stdin(Stdio::null())
                    .spawn()
                    .unwrap();
                Killed(child)
            };
            let mut third = start();
            wait_for(&names_a, "third", Some("rc@127.0.0.1"));
            wait_for(&names_b, "third", Some("rc@127.0.0.1"));
            wait_for_members(&names_a, 2);

            // Whoever waits knows that all have it.
            register(&a, &names_a, "late", worker_a.pid());
            let waited = a.run(names_a.wait_until_all(&Term::from("late"), WAIT)).unwrap();
            assert_eq!(waited, Waited::Everywhere);
            assert_eq!(names_b.whereis_name(&Term::from("late")).as_ref(), Some(worker_a.pid()));
            let taken = b.run(names_b.register(Term::from("late"), Term::from(2), worker_b.pid())).unwrap();
            assert_eq!(taken, Registered::Already(worker_a.pid().clone()));

            third.0.kill().unwrap();
            wait_for(&names_a, "third", None);
            wait_for(&names_b, "third", None);
            // Another incarnation begins with its own.
            third.0.wait().unwrap();
            let _third = start();
            wait_for(&names_a, "third", Some("rc@127.0.0.1"));
            wait_for(&names_b, "third", Some("rc@127.0.0.1"));

            // The same incarnation comes back with what it had, and without what it gave up meanwhile.
            register(&b, &names_b, "given up", worker_b.pid());
            register(&b, &names_b, "kept", worker_b.pid());
            wait_for(&names_a, "kept", Some("rb@127.0.0.1"));
            assert!(a.run(a.node.disconnect("rb@127.0.0.1")));
            wait_for(&names_a, "kept", None);
            assert!(b.run(names_b.unregister(Term::from("given up"), worker_b.pid())).unwrap());
            a.run(a.node.connect("rb@127.0.0.1")).unwrap();
            wait_for(&names_a, "kept", Some("rb@127.0.0.1"));
            assert_eq!(names_a.whereis_name(&Term::from("given up")), None);

            // Silent once all is known.
            let waited = b.run(names_b.wait_until_all(&Term::from("kept"), WAIT)).unwrap();
            assert_eq!(waited, Waited::Everywhere);
            eventually_true("all is acknowledged", WAIT, || names_b.stats().behind == 0);
            Ok(())
        },
    );
}

#[test]
fn a_key_that_two_nodes_gave_away_is_kept_by_the_earlier() {
    case(Case::Full, TOPIC, "a conflict after two nodes have met: the later process exits", |release| {
        let epmd = Epmd::start(release);
        let never = |mut config: foundation_node::config::NodeConfig| {
            config.reconnect = Reconnect::Never;
            config
        };
        let (a, b) = (Rust::with(&epmd, "ra", never), Rust::with(&epmd, "rb", never));
        let (names_a, names_b) = (a.node.registry("names").unwrap(), b.node.registry("names").unwrap());
        let (earlier, mut later) = (a.node.process().unwrap(), b.node.process().unwrap());
        let _ = later.trap_exit(true);
        register(&a, &names_a, "one", earlier.pid());
        // Claims are milliseconds: wait until the clock has moved on.
        let begin = std::time::SystemTime::now();
        eventually_true("the clock moves", WAIT, || {
            begin.elapsed().is_ok_and(|e| e > Duration::from_millis(2))
        });
        register(&b, &names_b, "one", later.pid());
        a.run(a.node.connect("rb@127.0.0.1")).unwrap();
        let told = b.run(next(&mut later));
        let expected = "{name_conflict,{<<\"one\">>,1},names,";
        assert!(told.contains(expected), "{told}");
        wait_for(&names_b, "one", Some("ra@127.0.0.1"));
        wait_for(&names_a, "one", Some("ra@127.0.0.1"));
        assert_eq!((names_a.stats().conflicts, names_b.stats().conflicts), (0, 1));

        let duplicate = Config::new(Keys::Duplicate);
        let many_a = a.node.registry_with("many", duplicate.clone()).unwrap();
        let many_b = b.node.registry_with("many", duplicate).unwrap();
        register(&a, &many_a, "both", earlier.pid());
        register(&b, &many_b, "both", later.pid());
        for registry in [&many_a, &many_b] {
            eventually_true("both have the key", WAIT, || {
                registry.lookup_all(&Term::from("both")).len() == 2
            });
        }
        Ok(())
    });
}

#[test]
fn elixir_calls_a_registry() {
    case(Case::Smoke, TOPIC, "GenServer.call to a registry from a BEAM: all requests", |release| {
        let epmd = Epmd::start(release);
        let (a, b) = (Rust::start(&epmd, "ra"), Rust::start(&epmd, "rb"));
        let (names_a, names_b) = (a.node.registry("names").unwrap(), b.node.registry("names").unwrap());
        a.run(a.node.connect("rb@127.0.0.1")).unwrap();
        wait_for_members(&names_a, 1);
        let worker = b.node.process().unwrap();
        register(&b, &names_b, "worker", worker.pid());
        wait_for(&names_a, "worker", Some("rb@127.0.0.1"));

        let node = beam::Options::new(release, epmd.port, "ex").elixir().start();
        node.elixir("names = {:names, :\"ra@127.0.0.1\"}");
        let is = |code: &str, expected: &str| assert_eq!(node.elixir(code), expected, "{code}");
        is("[{pid, 1}] = GenServer.call(names, {:lookup, \"worker\"}); node(pid)", ":\"rb@127.0.0.1\"");
        is("GenServer.call(names, {:whereis_name, \"worker\"}) == pid", "true");
        is("GenServer.call(names, {:whereis_name, :nobody})", ":undefined");
        is("GenServer.call(names, {:keys, pid})", "[\"worker\"]");
        is("GenServer.call(names, :members)", "[:\"ra@127.0.0.1\", :\"rb@127.0.0.1\"]");
        // A process of the BEAM gets a name; the Rust node keeps it for it.
        is(
            "holder = spawn(fn -> receive do: (:stop -> :ok) end); {:ok, server} = GenServer.call(names, {:register, {:beam, 1}, %{v: 1}, holder}); node(server)",
            ":\"ra@127.0.0.1\"",
        );
        is(
            "GenServer.call(names, {:register, {:beam, 1}, 2, self()}) == {:error, {:already_registered, holder}}",
            "true",
        );
        is("GenServer.call(names, {:wait_until_all, {:beam, 1}, 5000})", ":ok");
        is(
            "GenServer.call({:names, :\"rb@127.0.0.1\"}, {:lookup, {:beam, 1}}) == [{holder, %{v: 1}}]",
            "true",
        );
        is("GenServer.call(names, {:update_value, {:beam, 1}, 3, holder})", ":ok");
        is("GenServer.call(names, {:lookup, {:beam, 1}}) == [{holder, 3}]", "true");
        is("GenServer.call(names, :count)", "2");
        is(
            "{:ok, [{{:beam, 1}, ^holder, 3}], next} = GenServer.call(names, {:select, :first, 1}); next",
            "{:after, {:beam, 1}}",
        );
        is("{:ok, [{\"worker\", ^pid, 1}], :end} = GenServer.call(names, {:select, next, 1}); :ok", ":ok");
        is("GenServer.call(names, {:wait_until_all, :nobody, 0})", "{:error, :not_registered}");
        is("GenServer.call(names, {:wait_until_all, {:beam, 1}, 5000})", ":ok");
        is("GenServer.call(names, :stats).behind", "0");
        is("GenServer.call(names, {:nonsense})", "{:error, :badarg}");

        let listed = cli::run(&epmd, &["registry", "ra@127.0.0.1", "names"]);
        assert_eq!(listed.code, Some(0), "{}", listed.err);
        let lines: Vec<&str> = listed.out.lines().collect();
        assert!(
            matches!(&lines[..], [one, two] if one.starts_with("{beam,1}\t<") && one.ends_with("\t3") && two.starts_with("<<\"worker\">>\t<")),
            "{}",
            listed.out
        );
        let absent = cli::run(&epmd, &["registry", "ra@127.0.0.1", "absent"]);
        assert_eq!(absent.code, Some(1), "{}", absent.err);

        // It ends, and so does its name.
        node.elixir("send(holder, :stop)");
        wait_for_gone(&names_b);
        is("GenServer.call(names, {:unregister, {:beam, 1}, self()})", ":ok");
        Ok(())
    });
}

fn wait_for_gone(registry: &Registry) {
    let key = Term::from((Term::atom("beam"), Term::from(1)));
    eventually_true("the name of the process that ended is gone", WAIT, || registry.lookup(&key).is_none());
}
