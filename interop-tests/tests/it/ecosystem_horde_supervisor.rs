//! A visible node beside an unmodified `Horde.DynamicSupervisor`: `make ecosystem`.

use std::path::Path;
use std::time::{Duration, Instant};

use foundation_interop_tests::case::Unsupported;
use foundation_interop_tests::eventually::{eventually_eq, eventually_true};
use foundation_interop_tests::{Beam, Epmd, Release};
use foundation_node::service::horde::supervisor::{HordeSupervisor, StartChild, Status};
use foundation_proto::etf::{Map, Term};

use crate::ecosystem_horde::{node, visible, with_horde};
use crate::rust::{Rust, WAIT, term};

/// How long a supervisor may take to answer.
const ANSWER: Duration = Duration::from_secs(20);

pub(crate) fn start_supervisor(beam: &Beam, strategy: &str) {
    beam.elixir(&format!(
        "{{:ok, _}} = Supervisor.start_link([{{Horde.DynamicSupervisor, name: MySup, strategy: :one_for_one, members: :auto, \
         distribution_strategy: Horde.{strategy}}}], strategy: :one_for_one, name: MyTop); :ok"
    ));
}

/// Node and status of each member, as a BEAM node has them.
pub(crate) fn members(beam: &Beam) -> String {
    beam.elixir(
        "s = :sys.get_state(MySup); Map.take(s.members_info, Map.keys(s.members)) |> Enum.map(fn {{_, n}, i} -> \
         {hd(String.split(to_string(n), \"@\")), i.status} end) |> Enum.sort()",
    )
}

/// Waits until all of these have exactly these members.
fn wait_members(beams: &[&Beam], expected: &str) {
    let all = vec![expected.to_owned(); beams.len()];
    eventually_eq("the members", WAIT, &all, || beams.iter().map(|beam| members(beam)).collect());
}

/// Starts children `from..=to` there; answers on which nodes they are.
pub(crate) fn start_children(beam: &Beam, from: u32, to: u32) -> String {
    beam.elixir(&format!(
        "for n <- {from}..{to} do {{:ok, pid}} = Horde.DynamicSupervisor.start_child(MySup, \
         %{{id: n, start: {{Agent, :start_link, [Kernel, :max, [n, n]]}}}}); node(pid) end |> Enum.uniq() |> Enum.sort()"
    ))
}

/// Children that run, as a BEAM node has them.
fn active(beam: &Beam) -> String {
    beam.elixir("Horde.DynamicSupervisor.count_children(MySup).active")
}

/// The processes of all children, as a BEAM node shows them.
fn pids(beam: &Beam) -> Vec<String> {
    let shown = beam.elixir(
        "Horde.DynamicSupervisor.which_children(MySup) |> Enum.map_join(\",\", &inspect(elem(&1, 1)))",
    );
    shown.trim_matches('"').split(',').map(str::to_owned).collect()
}

fn quorum(beam: &Beam, strategy: &str) -> String {
    beam.elixir(&format!(
        "s = :sys.get_state(MySup); Horde.{strategy}.has_quorum?(Map.values(Map.take(s.members_info, Map.keys(s.members))))"
    ))
}

/// A visible node that has joined: the record of it is on all of `beams`.
fn join(epmd: &Epmd, beams: &[&Beam], expected: &str) -> (Rust, HordeSupervisor) {
    let rust = visible(epmd);
    for beam in beams {
        rust.run(rust.node.connect(beam.name())).unwrap();
    }
    let begun = Instant::now();
    wait_members(beams, expected);
    println!("ecosystem horde: the record of this node was there within {:?}", begun.elapsed());
    let supervisor = rust.run(async { rust.node.horde_supervisor("MySup") }).unwrap();
    (rust, supervisor)
}

fn spec(n: u32) -> Map {
    let text = format!(
        "#{{id => {n}, start => {{'Elixir.Agent', start_link, ['Elixir.Kernel', max, [{n}, {n}]]}}}}"
    );
    let Term::Map(spec) = term(&text) else { panic!("{text}") };
    spec
}

fn beside(release: &Release, horde: &Path, strategy: &str) -> Result<(), Unsupported> {
    let epmd = Epmd::start(release);
    let Some(one) = node(release, &epmd, horde, "one") else { return Ok(()) };
    let Some(two) = node(release, &epmd, horde, "two") else { return Ok(()) };
    start_supervisor(&one, strategy);
    two.elixir("true = Node.connect(:\"one@127.0.0.1\"); :ok");
    start_supervisor(&two, strategy);
    let both = "[{\"one\", :alive}, {\"two\", :alive}]";
    wait_members(&[&one, &two], both);
    let on_both = "[:\"one@127.0.0.1\", :\"two@127.0.0.1\"]";
    assert_eq!(start_children(&one, 1, 20), on_both);
    eventually_true("their children run", WAIT, || active(&two) == "20");
    let before = pids(&two);
    assert_eq!(before.len(), 20);

    // It joins: nothing that ran stops, and nothing comes to it.
    let with_us = "[{\"one\", :alive}, {\"rust\", :shutting_down}, {\"two\", :alive}]";
    let (rust, supervisor) = join(&epmd, &[&one, &two], with_us);
    assert_eq!(start_children(&two, 21, 40), on_both);
    assert_eq!((active(&one), active(&two)), ("40".to_owned(), "40".to_owned()));
    let after = pids(&two);
    assert!(before.iter().all(|pid| after.contains(pid)), "none was started again: {before:?} {after:?}");
    assert_eq!((quorum(&one, strategy), quorum(&two, strategy)), ("true".to_owned(), "true".to_owned()));

    // What this node knows of the children is where they run, and where it says that they are put.
    eventually_true("all children are known here", WAIT, || supervisor.children().len() == 40);
    for child in supervisor.children() {
        let (member, pid) = child.running.expect("it runs");
        let Term::Map(spec) = child.spec else { panic!("{:?}", child.spec) };
        let (_, chosen) = supervisor.choose_node(&spec).expect("two are alive");
        assert_eq!((&member.node, &pid.node), (&chosen, &chosen), "{spec:?}");
    }
    let known: Vec<Status> = supervisor.members().into_iter().map(|(_, _, status)| status).collect();
    assert_eq!(known, [Status::Alive, Status::ShuttingDown, Status::Alive]);

    // It has children started and stopped.
    let (_, chosen) = supervisor.choose_node(&spec(100)).unwrap();
    let started = rust.run(supervisor.start_child(spec(100), ANSWER)).unwrap();
    let StartChild::Ok(pid, None) = started else { panic!("{started:?}") };
    assert_eq!(pid.node, chosen, "where it said");
    let count = rust.run(supervisor.count_children(ANSWER)).unwrap();
    assert_eq!((count.active, count.workers, count.supervisors), (41, 41, 0));
    assert_eq!(rust.run(supervisor.which_children(ANSWER)).unwrap().len(), 41);
    eventually_true("it is known on both", WAIT, || {
        let known = "Enum.count(DeltaCrdt.to_map(MySup.Crdt), &match?({{:process, _}, _}, &1))";
        one.elixir(known) == "41" && two.elixir(known) == "41"
    });
    assert!(rust.run(supervisor.terminate_child(&pid, ANSWER)).unwrap());
    eventually_true("it is gone", WAIT, || active(&one) == "40");
    let nobody = rust.node.process().unwrap();
    assert!(!rust.run(supervisor.terminate_child(nobody.pid(), ANSWER)).unwrap());
    // Asked as if it were one of theirs, it passes the question on.
    let through = "GenServer.call({MySup, :\"rust@127.0.0.1\"}, {:start_child, %{id: 1, start: {Agent, :start_link, [Kernel, :max, [200, 200]]}}})";
    assert_eq!(one.elixir(&format!("{{:ok, pid}} = {through}; node(pid) in {on_both}")), "true");
    assert_eq!(one.elixir("length(GenServer.call({MySup, :\"rust@127.0.0.1\"}, :which_children))"), "41");
    assert_eq!(one.elixir("length(Horde.Cluster.members({MySup, :\"rust@127.0.0.1\"}))"), "3");

    // The command reads the map of any node that has it.
    let mut listed = Vec::new();
    eventually_true("the command lists all children", WAIT, || {
        let out = crate::cli::run(&epmd, &["horde", "two@127.0.0.1", "MySup"]).out;
        listed = out.lines().map(str::to_owned).collect();
        listed.len() == 41
    });
    let first = "{'Elixir.Agent',start_link,['Elixir.Kernel',max,[1,1]]}\t<";
    let line = listed.iter().find(|line| line.starts_with(first)).unwrap_or_else(|| panic!("{listed:?}"));
    assert!(line.ends_with("\tone@127.0.0.1") || line.ends_with("\ttwo@127.0.0.1"), "{line}");

    // It leaves and comes back.
    drop((rust, supervisor));
    wait_members(&[&one, &two], both);
    assert_eq!(start_children(&one, 41, 50), on_both);
    let (rust, supervisor) = join(&epmd, &[&one, &two], with_us);
    assert_eq!(start_children(&two, 51, 60), on_both);
    assert_eq!(active(&two), "61");
    // The connections break, and nothing else.
    one.elixir("Node.disconnect(:\"rust@127.0.0.1\"); :ok");
    two.elixir("Node.disconnect(:\"rust@127.0.0.1\"); :ok");
    wait_members(&[&one, &two], with_us);
    assert_eq!(active(&two), "61");
    eventually_true("and knows all again", WAIT, || supervisor.children().len() == 61);

    // One of two BEAM nodes leaves: the other has its quorum, as it would without this node.
    one.kill();
    let without_one = "[{\"rust\", :shutting_down}, {\"two\", :alive}]";
    wait_members(&[&two], without_one);
    assert_eq!(quorum(&two, strategy), "true");
    assert_eq!(start_children(&two, 61, 70), "[:\"two@127.0.0.1\"]");

    // The last supervisor starts again. What this node knew of the one before is not given back to it.
    two.elixir("Supervisor.stop(MyTop); :ok");
    eventually_true("everything is forgotten", WAIT, || supervisor.children().is_empty());
    start_supervisor(&two, strategy);
    wait_members(&[&two], without_one);
    assert_eq!(start_children(&two, 1, 3), "[:\"two@127.0.0.1\"]");
    eventually_true("the new children are known here", WAIT, || supervisor.children().len() == 3);
    let counted = "GenServer.call(MySup, :get_telemetry).global_supervised_process_count";
    assert_eq!(two.elixir(counted), "3");
    drop(rust);
    Ok(())
}

#[test]
fn horde_supervisor_quorum() {
    with_horde(
        "Horde.DynamicSupervisor, members: :auto, quorum distribution: a visible node of ours takes no children and costs no quorum, leaves, comes back, starts and stops children",
        |release, horde| beside(release, horde, "UniformQuorumDistribution"),
    );
}

#[test]
fn horde_supervisor_uniform() {
    with_horde(
        "Horde.DynamicSupervisor, members: :auto, uniform distribution: the same",
        |release, horde| beside(release, horde, "UniformDistribution"),
    );
}
