//! The service mesh between our own nodes over sockets, and from unmodified BEAM nodes.

use foundation_interop_tests::eventually::eventually_true;
use foundation_interop_tests::{Case, Epmd, beam, case};
use foundation_node::service::mesh::{Mesh, Query, Registration, Routing, Strategy};
use foundation_proto::etf::Term;

use crate::cli;
use crate::rust::{Rust, WAIT};

const TOPIC: &str = "service mesh";

fn wait_for(mesh: &Mesh, query: &Query, count: usize) {
    eventually_true(&format!("{count} of {query:?}"), WAIT, || mesh.discover(query).len() == count);
}

#[test]
fn a_beam_registers_its_own_and_finds_those_of_rust() {
    case(
        Case::Smoke,
        TOPIC,
        "GenServer.call to a mesh: register, discover, pick, checks of a BEAM's functions",
        |release| {
            let epmd = Epmd::start(release);
            let (a, b) = (Rust::start(&epmd, "ma"), Rust::start(&epmd, "mb"));
            let (mesh_a, mesh_b) = (a.node.services().unwrap(), b.node.services().unwrap());
            a.run(a.node.connect("mb@127.0.0.1")).unwrap();
            let worker = b.node.process().unwrap();
            let rust =
                Registration::new(Term::atom("payment"), worker.pid()).capabilities([Term::atom("refunds")]);
            b.run(mesh_b.register(rust)).unwrap();
            wait_for(&mesh_a, &Query::new().name(Term::atom("payment")), 1);

            let node = beam::Options::new(release, epmd.port, "ex").elixir().start();
            node.elixir("mesh = {:foundation_services, :\"ma@127.0.0.1\"}");
            let is = |code: &str, expected: &str| assert_eq!(node.elixir(code), expected, "{code}");
            is(
                "[%{name: :payment, pid: rust, node: :\"mb@127.0.0.1\", capabilities: [:refunds], metadata: %{}, registered_at: at, health: :healthy}] = GenServer.call(mesh, {:discover_services, name: :payment}); is_pid(rust) and is_integer(at)",
                "true",
            );
            // Its own, with metadata, checked by a function of its own that an agent controls.
            is(
                "{:ok, agent} = Agent.start(fn -> true end); own = spawn(fn -> receive do: (:stop -> :ok) end); check = {Agent, :get, [Access, :get, []]}; is_tuple(check)",
                "true",
            );
            is(
                "well = fn _info -> Agent.get(agent, & &1) end; GenServer.call(mesh, {:register_service, :payment, own, [:cards], %{security_level: :high, weight: 3, health_check: [check: well, interval: 20, timeout: 5000, unhealthy_after: 2]}})",
                ":ok",
            );
            is("GenServer.call(mesh, {:wait_until_all, :payment, own, 5000})", ":ok");
            let high = Query::new().metadata(Term::atom("security_level"), Term::atom("high"));
            wait_for(&mesh_b, &high, 1);
            is(
                "other = {:foundation_services, :\"mb@127.0.0.1\"}; [%{pid: ^own, metadata: %{weight: 3}}] = GenServer.call(other, {:discover_services, capabilities: [:cards], security_level: :high}); :ok",
                ":ok",
            );
            is("length(GenServer.call(mesh, :discover_services))", "2");
            is("GenServer.call(mesh, {:discover_services, %{node: :nowhere}})", "[]");
            is(
                "GenServer.call(mesh, {:discover_services, health_check: fn _ -> true end})",
                "{:error, {:unsupported, :health_check}}",
            );
            is(
                "picks = for _ <- 1..4, do: (fn -> {:ok, %{pid: pid}} = GenServer.call(mesh, {:pick, :payment, strategy: :weighted}); pid end).(); {Enum.count(picks, & &1 == own), Enum.count(picks, & &1 == rust)}",
                "{3, 1}",
            );
            // This BEAM tells no load, so it meets no constraint.
            is(
                "GenServer.call(mesh, {:pick, :payment, constraints: [security_level: :high, cpu_usage: :under_100_percent]})",
                "{:error, {:load_unknown, [:\"ex@127.0.0.1\"]}}",
            );
            is(
                "{:ok, first, {:after, :payment, _} = next} = GenServer.call(mesh, {:select_services, [], :first, 1}); {:ok, rest, :end} = GenServer.call(mesh, {:select_services, [], next, 1}); length(first ++ rest)",
                "2",
            );

            let listed = cli::run(&epmd, &["services", "ma@127.0.0.1", "[{security_level,high}]"]);
            assert_eq!(listed.code, Some(0), "{}", listed.err);
            assert!(
                listed.out.starts_with("payment\t<") && listed.out.contains("\thealthy\t[cards]\t"),
                "{}",
                listed.out
            );
            assert_eq!(cli::run(&epmd, &["services", "ma@127.0.0.1", "--mesh", "absent"]).code, Some(1));
            assert_eq!(cli::run(&epmd, &["services", "ma@127.0.0.1", "--loads"]).code, Some(0));

            // The function says no twice: nobody chooses it any more, and all are told.
            is("Agent.update(agent, fn _ -> false end)", ":ok");
            let unhealthy = |is: bool| {
                eventually_true(&format!("unhealthy: {is}"), WAIT, || {
                    node.elixir("for %{pid: ^own, health: health} <- GenServer.call(other, :discover_services), do: health")
                    == if is { "[:unhealthy]" } else { "[:healthy]" }
                });
            };
            unhealthy(true);
            is(
                "[%{metadata: %{health: :unhealthy}}] = GenServer.call(mesh, {:discover_services, health: :unhealthy}); :ok",
                ":ok",
            );
            let routed = mesh_a.route(&Term::atom("payment"), &Routing::new(Strategy::RoundRobin)).unwrap();
            assert_eq!(routed.pid(), worker.pid());
            is("Agent.update(agent, fn _ -> true end)", ":ok");
            unhealthy(false);

            // It ends, and so does its registration.
            node.elixir("send(own, :stop)");
            wait_for(&mesh_b, &high, 0);
            is("GenServer.call(mesh, {:register_service, :payment, rust})", "{:error, :remote_process}");
            is("GenServer.call(mesh, {:deregister_service, :payment, own})", ":ok");
            is("GenServer.call(mesh, {:nonsense})", "{:error, :badarg}");
            Ok(())
        },
    );
}

#[test]
fn erlang_calls_a_mesh_and_its_processes_are_called() {
    case(
        Case::Full,
        TOPIC,
        "a gen_server of a BEAM registered from Erlang, called through the mesh by Rust",
        |release| {
            let epmd = Epmd::start(release);
            let rust = Rust::start(&epmd, "ma");
            let mesh = rust.node.services().unwrap();
            let node = beam::Options::new(release, epmd.port, "er").start();
            // The rex server answers any call that it does not know with an error of its own: it is there on every release.
            let registered = node.eval(
            "gen_server:call({foundation_services, 'ma@127.0.0.1'}, {register_service, <<\"rex\">>, whereis(rex), [rpc], #{health_check => alive}}).",
        );
            assert_eq!(registered, "ok");
            wait_for(&mesh, &Query::new().capability(Term::atom("rpc")), 1);
            let call = Term::from((
                Term::atom("call"),
                Term::atom("erlang"),
                Term::atom("node"),
                Term::nil(),
                Term::from(rust.node.services().unwrap().pid()),
            ));
            let answer = rust.run(mesh.call(&Term::from("rex"), &call, &Routing::default(), WAIT)).unwrap();
            assert!(answer.is_atom("er@127.0.0.1"), "{answer:?}");
            assert_eq!(mesh.connections(&mesh.discover(&Query::new())[0].pid), 0);
            // The node goes, and what it had registered.
            drop(node);
            wait_for(&mesh, &Query::new(), 0);
            Ok(())
        },
    );
}
