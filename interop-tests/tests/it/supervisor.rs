//! The supervisor of Rust children, called by an unmodified Elixir node.

use std::time::Instant;

use foundation_interop_tests::eventually::eventually_true;
use foundation_interop_tests::{Case, Epmd, beam, case};
use foundation_node::process::Reason;
use foundation_node::service::supervisor::{Config, Part, Status, Supervisor};
use foundation_proto::etf::Term;

use crate::cli;
use crate::rust::{Rust, WAIT};

const TOPIC: &str = "supervisor";

/// A supervisor whose children count what they are sent, and leave the count when they move.
fn supervisor(rust: &Rust) -> Supervisor {
    let supervisor = rust.node.supervisor("jobs", Config::default()).unwrap();
    let made = supervisor.factory("worker", |start, mut process| async move {
        let mut count = start.take_state().and_then(|state| state.as_i64()).unwrap_or(0);
        loop {
            tokio::select! {
                message = process.recv() => {
                    let Ok(message) = message else { return Reason::NORMAL };
                    count += 1;
                    if let Ok(Term::Pid(from)) = message.to_term(&foundation_proto::Limits::default()) {
                        let _ = process.send_term(&from, &Term::Integer(count)).await;
                    }
                }
                () = start.leaving() => return start.hand_off(count),
            }
        }
    });
    rust.run(made).unwrap();
    supervisor
}

fn runs_on(supervisor: &Supervisor, id: &str) -> Option<String> {
    let place = supervisor.lookup(&Term::Atom(foundation_proto::etf::Atom::new(id).unwrap()), &Part::Only)?;
    (place.status == Status::Running).then(|| place.node.as_str().to_owned())
}

#[test]
fn elixir_starts_moves_and_ends_rust_children() {
    case(
        Case::Full,
        TOPIC,
        "GenServer.call and Supervisor.which_children to a supervisor of Rust children from a BEAM; fail-over",
        |release| {
            let epmd = Epmd::start(release);
            let (a, b) = (Rust::start(&epmd, "ra"), Rust::start(&epmd, "rb"));
            let (sup_a, sup_b) = (supervisor(&a), supervisor(&b));
            a.run(a.node.connect("rb@127.0.0.1")).unwrap();
            eventually_true("both know each other", WAIT, || {
                sup_a.members().len() == 2 && sup_b.members().len() == 2
            });

            let node = beam::Options::new(release, epmd.port, "ex").elixir().start();
            node.elixir("jobs = {:jobs, :\"ra@127.0.0.1\"}; other = {:jobs, :\"rb@127.0.0.1\"}");
            let is = |code: &str, expected: &str| assert_eq!(node.elixir(code), expected, "{code}");
            is(
                "{:ok, pid} = GenServer.call(jobs, {:start_singleton, %{id: :one, factory: :worker}}); is_pid(pid)",
                "true",
            );
            is("GenServer.call(other, {:lookup_singleton, :one}) == {:ok, pid}", "true");
            is(
                "GenServer.call(other, {:start_singleton, %{id: :one, factory: :worker}}) == {:error, {:already_started, pid}}",
                "true",
            );
            is("Supervisor.which_children(jobs) == [{:one, pid, :worker, [:worker]}]", "true");
            // How a map is printed differs between releases.
            is(
                "Supervisor.count_children(other) == %{active: 1, specs: 1, supervisors: 0, workers: 1}",
                "true",
            );
            is(
                "GenServer.call(jobs, {:start_singleton, %{id: :x, factory: :unknown}})",
                "{:error, :no_factory}",
            );
            is("GenServer.call(jobs, {:start_singleton, %{id: :x}})", "{:error, :bad_spec}");
            is("GenServer.call(jobs, {:lookup_singleton, :x})", "{:error, :not_found}");
            is("GenServer.call(jobs, {:nonsense})", "{:error, :badarg}");
            is(
                "{:ok, parts} = GenServer.call(jobs, {:start_partitioned, %{id: \"parts\", factory: :worker}, 3}); Enum.map(parts, &elem(&1, 0))",
                "[0, 1, 2]",
            );
            is(
                "{:ok, each} = GenServer.call(jobs, {:start_replicated, %{id: :each, factory: :worker}}); Enum.map(each, &elem(&1, 0))",
                "[:\"ra@127.0.0.1\", :\"rb@127.0.0.1\"]",
            );
            is("GenServer.call(jobs, :count_children)", "[specs: 6, active: 6, supervisors: 0, workers: 6]");
            is("Supervisor.terminate_child(jobs, \"parts\")", ":ok");
            is("Supervisor.terminate_child(jobs, :each)", ":ok");

            // It moves with what it has counted.
            is("send(pid, :one); send(pid, self()); receive do n -> n end", "2");
            is(
                "to = if node(pid) == :\"ra@127.0.0.1\", do: :\"rb@127.0.0.1\", else: :\"ra@127.0.0.1\"; GenServer.call(jobs, {:migrate, :one, to})",
                ":ok",
            );
            eventually_true("it runs there", WAIT, || {
                node.elixir("case GenServer.call(jobs, {:lookup, :one}) do [{:only, ^to, :running, _}] -> true; _ -> false end") == "true"
            });
            is(
                "{:ok, moved} = GenServer.call(jobs, {:lookup_singleton, :one}); send(moved, self()); receive do n -> n end",
                "3",
            );
            is("GenServer.call(jobs, {:migrate, :one, :\"nowhere@127.0.0.1\"})", "{:error, :no_such_node}");

            let listed = cli::run(&epmd, &["singleton", "ra@127.0.0.1", "jobs"]);
            assert_eq!(listed.code, Some(0), "{}", listed.err);
            assert!(
                listed.out.starts_with("one\tonly\t'r") && listed.out.contains("\trunning\t<"),
                "{}",
                listed.out
            );
            let back = if runs_on(&sup_a, "one").as_deref() == Some("ra@127.0.0.1") { "rb" } else { "ra" };
            let target = format!("{back}@127.0.0.1");
            let moved = cli::run(&epmd, &["singleton", "ra@127.0.0.1", "jobs", "one", "--to", &target]);
            assert_eq!(moved.code, Some(0), "{}", moved.err);
            eventually_true("it runs there", WAIT, || {
                runs_on(&sup_b, "one").as_deref() == Some(target.as_str())
            });
            let absent = cli::run(&epmd, &["singleton", "ra@127.0.0.1", "jobs", "absent"]);
            assert_eq!(absent.code, Some(1), "{}", absent.err);

            // A third node has it, and is gone without a word.
            let third = Rust::start(&epmd, "rc");
            let sup_c = supervisor(&third);
            for other in ["ra@127.0.0.1", "rb@127.0.0.1"] {
                third.run(third.node.connect(other)).unwrap();
            }
            eventually_true("three members", WAIT, || {
                sup_a.members().len() == 3 && sup_b.members().len() == 3
            });
            is("GenServer.call(jobs, {:migrate, :one, :\"rc@127.0.0.1\"})", ":ok");
            eventually_true("it runs there", WAIT, || {
                runs_on(&sup_b, "one").as_deref() == Some("rc@127.0.0.1")
            });
            let begin = Instant::now();
            drop((sup_c, third));
            eventually_true("it runs again", WAIT, || {
                let at = runs_on(&sup_a, "one").filter(|at| at != "rc@127.0.0.1");
                at.is_some() && runs_on(&sup_b, "one") == at
            });
            println!("supervisor: it ran again {:?} after its node was gone", begin.elapsed());
            is(
                "{:ok, again} = GenServer.call(jobs, {:lookup_singleton, :one}); Supervisor.terminate_child(jobs, again)",
                ":ok",
            );
            // The answer is that of the member which was asked; the others hear of it.
            eventually_true("the other member knows it", WAIT, || {
                node.elixir("Supervisor.which_children(other)") == "[]"
            });
            Ok(())
        },
    );
}
