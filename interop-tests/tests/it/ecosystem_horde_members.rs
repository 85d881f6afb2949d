//! Members of an unmodified `Horde.Registry` that die, are parted, and leave: `make ecosystem`.

use std::path::Path;
use std::time::Instant;

use foundation_interop_tests::beam::Options;
use foundation_interop_tests::case::Unsupported;
use foundation_interop_tests::eventually::eventually_true;
use foundation_interop_tests::wire::Wire;
use foundation_interop_tests::{Beam, Epmd, Release};
use foundation_node::Error;
use foundation_node::process::Process;
use foundation_node::service::horde::{HordeRegistry, Registered};
use foundation_proto::etf::Term;

use crate::ecosystem::load;
use crate::ecosystem_horde::{libraries, names, node, registers, start_registry, visible, with_horde};
use crate::rust::{Rust, WAIT};

/// Seconds after which a silent connection is given up, by four ticks.
const TICKTIME: u32 = 4;

fn register(
    rust: &Rust,
    registry: &HordeRegistry,
    name: &str,
    process: &Process,
) -> Result<Registered, Error> {
    rust.run(registry.register(Term::from(name), Term::atom("ours"), process.pid()))
}

/// On which node a process has a name, as Horde's `lookup` finds it.
fn owner(beam: &Beam, name: &str) -> String {
    beam.elixir(&format!("for {{pid, _}} <- Horde.Registry.lookup(MyReg, \"{name}\"), do: node(pid)"))
}

fn found(registry: &HordeRegistry) -> Vec<String> {
    let all = registry.select();
    assert_eq!(all.len(), registry.count());
    let found = |name: &Term| registry.lookup(name).is_some();
    assert!(all.iter().all(|registration| found(&registration.name.0)));
    all.iter().map(|found| String::from_utf8(found.name.0.as_binary().unwrap().to_vec()).unwrap()).collect()
}

fn members(beam: &Beam) -> String {
    beam.elixir("Horde.Cluster.members(MyReg) |> Enum.map(&elem(&1, 1)) |> Enum.sort()")
}

fn dead_and_parted(release: &Release, horde: &Path) -> Result<(), Unsupported> {
    let Some(libraries) = libraries(horde) else { return Ok(()) };
    let epmd = Epmd::start(release);
    let wire = Wire::new(&epmd);
    let beam = |name| {
        let options = Options::new(release, wire.b(), name).elixir();
        let quiet = format!("-kernel net_ticktime {TICKTIME} -kernel prevent_overlapping_partitions false");
        let beam = options.args(&quiet).start();
        load(&beam, &libraries);
        start_registry(&beam, &["one", "two"]);
        beam
    };
    let (one, two) = (beam("one"), beam("two"));
    assert_eq!(one.elixir("Node.connect(:\"two@127.0.0.1\")"), "true");
    let rust = Rust::on(wire.a(), "rust", |mut config| {
        config.prevent_overlapping_partitions = false;
        config.net_ticktime(TICKTIME).hidden(false)
    });
    let registry = rust.run(async { rust.node.horde_registry("MyReg") }).unwrap();
    rust.run(registry.set_members([("MyReg", "one@127.0.0.1"), ("MyReg", "two@127.0.0.1")])).unwrap();
    let worker = rust.node.process().unwrap();
    registers(&one, "kept");
    registers(&one, "parted");
    registers(&two, "dead");
    eventually_true("all are here", WAIT, || found(&registry) == ["dead", "kept", "parted"]);
    let taken = register(&rust, &registry, "dead", &worker).unwrap();
    assert!(matches!(taken, Registered::Already(pid) if pid.node == "two@127.0.0.1"));
    for beam in [&one, &two] {
        eventually_true("ours is a member", WAIT, || members(beam).contains("rust@"));
    }

    // Nobody takes a dead node out of a list that is fixed: its names stand in the map, and are free.
    two.kill();
    eventually_true("its name is not found", WAIT, || found(&registry) == ["kept", "parted"]);
    assert_eq!(names(&one), "[\"dead\", \"kept\", \"parted\"]");
    assert_eq!(owner(&one, "dead"), "[]");
    assert_eq!(register(&rust, &registry, "dead", &worker).unwrap(), Registered::Yes);
    assert_eq!(
        register(&rust, &registry, "dead", &worker).unwrap(),
        Registered::Already(worker.pid().clone())
    );
    eventually_true("it is ours everywhere", WAIT, || owner(&one, "dead") == "[:\"rust@127.0.0.1\"]");
    assert_eq!(found(&registry), ["dead", "kept", "parted"]);

    // A node that only seems to be dead gives up what was taken, and has what was not.
    wire.partition();
    eventually_true("its names are not found", WAIT, || found(&registry) == ["dead"]);
    assert_eq!(register(&rust, &registry, "parted", &worker).unwrap(), Registered::Yes);
    wire.heal();
    eventually_true("they are connected", 3 * WAIT, || rust.is_connected("one@127.0.0.1"));
    let reason = "receive do {:exited, {:name_conflict, {\"parted\", :theirs}, MyReg, pid}} -> node(pid) after 15000 -> :nothing end";
    assert_eq!(one.elixir(reason), ":\"rust@127.0.0.1\"");
    eventually_true("it is ours everywhere", WAIT, || owner(&one, "parted") == "[:\"rust@127.0.0.1\"]");
    assert_eq!(owner(&one, "kept"), "[:\"one@127.0.0.1\"]");
    assert_eq!(found(&registry), ["dead", "kept", "parted"]);
    for (name, node) in [("dead", "rust@127.0.0.1"), ("kept", "one@127.0.0.1"), ("parted", "rust@127.0.0.1")]
    {
        assert_eq!(registry.lookup(&Term::from(name)).unwrap().pid.node, node);
    }
    assert_eq!(worker.exit_reason().map(|why| why.to_string()), None);
    Ok(())
}

#[test]
fn horde_registry_dead_owner() {
    with_horde(
        "Horde.Registry, fixed members: a name of a killed or parted BEAM is taken over from Rust; the loser is told when they meet, the other names come back",
        dead_and_parted,
    );
}

fn in_and_out(release: &Release, horde: &Path) -> Result<(), Unsupported> {
    let epmd = Epmd::start(release);
    let Some(one) = node(release, &epmd, horde, "one") else { return Ok(()) };
    start_registry(&one, &["one"]);
    one.elixir("{:ok, _} = Horde.Registry.register(MyReg, \"theirs\", nil); :ok");
    let rust = visible(&epmd);
    let registry = rust.run(async { rust.node.horde_registry("MyReg") }).unwrap();
    let join = || rust.run(registry.set_members([("MyReg", "one@127.0.0.1")])).unwrap();
    let worker = rust.node.process().unwrap();
    let (both, alone) = ("[:\"one@127.0.0.1\", :\"rust@127.0.0.1\"]", "[:\"one@127.0.0.1\"]");
    join();
    assert_eq!(register(&rust, &registry, "ours", &worker).unwrap(), Registered::Yes);
    let shown = || (names(&one), members(&one));
    let with = |names: &str, members: &str| (names.to_owned(), members.to_owned());
    let ours = || with("[\"ours\", \"theirs\"]", both);
    let none = || with("[\"theirs\"]", alone);
    eventually_true("ours is there", WAIT, || shown() == ours());

    // Somebody who does not have the name unregisters it.
    one.elixir("Horde.Registry.unregister(MyReg, \"ours\")");
    eventually_true("it is there again", WAIT, || shown() == ours());

    // It leaves: for a while, and with its node.
    let begun = Instant::now();
    rust.run(registry.leave()).unwrap();
    println!("ecosystem horde: leaving took {:?}", begun.elapsed());
    eventually_true("nothing is left of it", WAIT, || shown() == none());
    assert_eq!(found(&registry), ["theirs"]);
    assert!(matches!(register(&rust, &registry, "ours", &worker), Err(Error::NotMember)));
    join();
    assert_eq!(register(&rust, &registry, "ours", &worker).unwrap(), Registered::Yes);
    eventually_true("it is back", WAIT, || shown() == ours());
    let begun = Instant::now();
    rust.run(rust.node.stop());
    println!("ecosystem horde: stopping took {:?}", begun.elapsed());
    eventually_true("nothing is left of it", WAIT, || shown() == none());
    assert_eq!(one.elixir("Horde.Registry.count(MyReg)"), "1");
    Ok(())
}

#[test]
fn horde_registry_in_and_out() {
    with_horde(
        "Horde.Registry, fixed members: a member of ours leaves nothing behind when it leaves or stops, and is in again when it joins; its names stay when others unregister them",
        in_and_out,
    );
}
