//! Names and children of an unmodified Horde while connections, nodes and the network between them fail: `make ecosystem`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use foundation_cluster::sim::Random;
use foundation_interop_tests::beam::Options;
use foundation_interop_tests::case::Unsupported;
use foundation_interop_tests::eventually::{answer_within, eventually_true};
use foundation_interop_tests::wire::{Host, Wire};
use foundation_interop_tests::{Beam, Epmd, Release};
use foundation_node::process::Process;
use foundation_node::service::horde::supervisor::HordeSupervisor;
use foundation_node::service::horde::{HordeRegistry, Registered};
use foundation_proto::etf::{Map, Term, phash2_range};

use crate::ecosystem::load;
use crate::ecosystem_delta_crdt::Fault;
use crate::ecosystem_horde::{libraries, start_registry_auto, with_horde};
use crate::ecosystem_horde_supervisor::{members, start_children, start_supervisor};
use crate::rust::{Rust, WAIT};
use crate::soak;

/// Seconds after which a silent connection is given up, by four ticks.
const TICKTIME: u32 = 4;
/// Runs, each with names of its own, and the faults in an order of its own. With `FOUNDATION_SOAK_SEEDS`, so many.
const SEEDS: u64 = 1;
/// How long members may take that have just found each other again: Erlang gives up a connection that is begun after 7 s.
const HEALED: Duration = Duration::from_secs(60);
/// Children of the supervisors at the start.
const CHILDREN: u32 = 6;
const BEAMS: [&str; 2] = ["one@127.0.0.1", "two@127.0.0.1"];
const RUST: &str = "rust@127.0.0.1";

/// Names with their values, of each node that has registered them: `one`, `two`, and ours.
type Names = [BTreeMap<String, i64>; 3];

struct Three {
    random: Random,
    wire: Wire,
    rust: Rust,
    registry: HordeRegistry,
    supervisor: HordeSupervisor,
    worker: Process,
    beams: Vec<Beam>,
    written: i64,
    expected: Names,
}

/// The Rust node, with what it shares.
fn ours(wire: &Wire) -> (Rust, HordeRegistry, HordeSupervisor, Process) {
    let rust = Rust::on(wire.a(), "rust", |mut config| {
        config.prevent_overlapping_partitions = false;
        config.net_ticktime(TICKTIME).hidden(false)
    });
    let registry = rust.run(async { rust.node.horde_registry("MyReg") }).unwrap();
    for beam in BEAMS {
        rust.run(rust.node.connect(beam)).unwrap();
    }
    let supervisor = rust.run(async { rust.node.horde_supervisor("MySup") }).unwrap();
    let worker = rust.node.process().unwrap();
    (rust, registry, supervisor, worker)
}

fn start(beam: &Beam, libraries: &[PathBuf]) {
    load(beam, libraries);
    start_registry_auto(beam);
    start_supervisor(beam, "UniformDistribution");
}

impl Three {
    /// Each member that takes part gives names away, or gives up those that it has.
    fn write(&mut self, stopped: Option<usize>) {
        for at in (0..3).filter(|at| Some(*at) != stopped) {
            let kind = ["one", "two", "rust"][at];
            for _ in 0..12 {
                let name = format!("{kind}#{}", self.random.below(24));
                self.written += 1;
                let value = match self.expected[at].remove(&name) {
                    Some(_) => None,
                    None => Some(self.written),
                };
                self.expected[at].extend(value.map(|value| (name.clone(), value)));
                self.write_one(at, &name, value);
            }
        }
    }

    fn write_one(&self, at: usize, name: &str, value: Option<i64>) {
        match (self.beams.get(at), value) {
            (Some(beam), Some(value)) => {
                drop(beam.elixir(&format!(
                    "{{:ok, _}} = Horde.Registry.register(MyReg, \"{name}\", {value}); :ok"
                )))
            }
            (Some(beam), None) => drop(beam.elixir(&format!("Horde.Registry.unregister(MyReg, \"{name}\")"))),
            (None, Some(value)) => {
                let registered =
                    self.registry.register(Term::from(name), Term::from(value), self.worker.pid());
                assert_eq!(self.rust.run(registered).unwrap(), Registered::Yes);
            }
            (None, None) => {
                self.rust.run(self.registry.unregister(Term::from(name), self.worker.pid())).unwrap()
            }
        }
    }

    fn near(&self, at: usize) -> bool {
        self.rust.is_connected(BEAMS[at])
    }

    fn round(&mut self, fault: Fault, libraries: &[PathBuf]) {
        let at = self.random.below(2);
        self.write(None);
        match fault {
            Fault::Partition => {
                // Both ways, or one.
                match self.random.below(3) {
                    0 => self.wire.partition(),
                    1 => self.wire.stall_from(Host::A),
                    _ => self.wire.stall_from(Host::B),
                }
                self.write(None);
                eventually_true("both are given up", WAIT, || !self.near(0) && !self.near(1));
                self.write(None);
                self.wire.heal();
            }
            // Horde drops the names of whoever it takes for gone, also if it lives.
            Fault::Stop => {
                let other = 1 - at;
                self.beams[at].pause();
                self.write(Some(at));
                let gone = format!("Enum.member?(Node.list(), :\"{}\")", BEAMS[at]);
                eventually_true("it is given up", WAIT, || {
                    !self.near(at) && self.beams[other].elixir(&gone) == "false"
                });
                self.beams[at].resume();
                self.meet();
            }
            Fault::Disconnect => drop(self.beams[at].elixir(&format!("Node.disconnect(:\"{RUST}\"); :ok"))),
            // Both sides hear of it, or one.
            Fault::Cut => match self.random.below(3) {
                0 => self.wire.cut(),
                1 => self.wire.half_open(Host::A),
                _ => self.wire.half_open(Host::B),
            },
            Fault::RestartOurs => {
                self.rust.run(self.rust.node.stop());
                for beam in &self.beams {
                    let there = format!("Enum.member?(Node.list(), :\"{RUST}\")");
                    eventually_true("it is gone", WAIT, || beam.elixir(&there) == "false");
                }
                (self.rust, self.registry, self.supervisor, self.worker) = ours(&self.wire);
                self.expected[2].clear();
            }
            Fault::RestartTheirs => {
                let beam = self.beams.remove(at);
                beam.kill();
                let other = &self.beams[0];
                let there = format!("Enum.member?(Node.list(), :\"{}\")", BEAMS[at]);
                eventually_true("it is gone", WAIT, || other.elixir(&there) == "false" && !self.near(at));
                let beam = beam.restart();
                start(&beam, libraries);
                self.beams.insert(at, beam);
                self.expected[at].clear();
                self.meet();
            }
        }
        self.write(None);
        self.agree(fault);
    }

    /// Nodes of a BEAM that have lost each other do not look for each other.
    fn meet(&self) {
        eventually_true("the BEAMs are connected", WAIT, || {
            self.beams[0].elixir(&format!("Node.connect(:\"{}\")", BEAMS[1])) == "true"
        });
    }

    /// What is wrong. What Horde may have dropped by its own rule need not be there, but must be gone everywhere.
    fn wrong(&self, fault: Fault) -> Option<String> {
        let found: BTreeMap<String, (i64, String)> = self
            .registry
            .select()
            .into_iter()
            .filter_map(|found| {
                let name = String::from_utf8(found.name.0.as_binary()?.to_vec()).ok()?;
                Some((name, (found.value.as_i64()?, found.pid.node.as_str().to_owned())))
            })
            .collect();
        let nodes = [BEAMS[0], BEAMS[1], RUST];
        for (at, (node, names)) in nodes.iter().zip(&self.expected).enumerate() {
            let may_lack = fault == Fault::Stop && at < 2;
            for (name, value) in names {
                match found.get(name) {
                    Some((there, on)) if there == value && on == node => {}
                    None if may_lack => {}
                    other => return Some(format!("{name} of {node} is {other:?} here, not {value}")),
                }
            }
        }
        let known = |name: &String| self.expected.iter().any(|names| names.contains_key(name));
        if let Some(extra) = found.keys().find(|name| !known(name)) {
            return Some(format!("{extra} is here: {:?}", found.get(extra)));
        }
        // In the order of names, as there.
        let all = found
            .iter()
            .map(|(name, (value, _))| Term::from((Term::from(name.as_str()), Term::from(*value))));
        let ours = phash2_range(&Term::list(all), 1 << 32)?.to_string();
        for (beam, name) in self.beams.iter().zip(BEAMS) {
            let theirs = beam.elixir(
                "Horde.Registry.select(MyReg, [{{:\"$1\", :_, :\"$2\"}, [], [{{:\"$1\", :\"$2\"}}]}]) |> Enum.sort() |> :erlang.phash2(4294967296)",
            );
            if theirs != ours {
                let count = beam.elixir("Horde.Registry.count(MyReg)");
                return Some(format!("{name} has {count} other names than the {} here", found.len()));
            }
            let owned: Vec<String> =
                found.iter().map(|(name, (_, on))| format!("{{\"{name}\", :\"{on}\"}}")).collect();
            let lost = beam.elixir(&format!(
                "Enum.reject([{}], fn {{n, on}} -> match?([{{p, _}}] when node(p) == on, Horde.Registry.lookup(MyReg, n)) end)",
                owned.join(", ")
            ));
            if lost != "[]" {
                return Some(format!("{name} does not find {lost}"));
            }
        }
        let unfound = found.keys().find(|name| self.registry.lookup(&Term::from(name.as_str())).is_none());
        if let Some(name) = unfound {
            return Some(format!("{name} is not found here"));
        }
        self.wrong_maps()
    }

    /// Whether the maps under the names and under the children are the same, and this node counts for no quorum. How many children
    /// there are is Horde's: who was taken for gone and lives has its children started elsewhere, too.
    fn wrong_maps(&self) -> Option<String> {
        for (name, map) in [("MyReg", self.registry.map()), ("MySup", self.supervisor.map())] {
            let pairs = map.to_vec();
            let size = pairs.len();
            let hash = phash2_range(&Term::Map(Map::from_pairs(pairs).ok()?), 1 << 32)?;
            let ours = format!("{{{size}, {hash}}}");
            for beam in &self.beams {
                let theirs = beam.elixir(&format!(
                    "m = DeltaCrdt.to_map({name}.Crdt); {{map_size(m), :erlang.phash2(m, 4294967296)}}"
                ));
                if theirs != ours {
                    return Some(format!("the map of {name} is {theirs} on {}, {ours} here", beam.name()));
                }
            }
        }
        let all = "[{\"one\", :alive}, {\"rust\", :shutting_down}, {\"two\", :alive}]";
        let wrong = self.beams.iter().find(|beam| members(beam) != all)?;
        // What stands in the map that both share says which of them has not followed it.
        let stands = wrong.elixir(
            "DeltaCrdt.to_map(MySup.Crdt) |> Enum.filter(fn {k, _} -> elem(k, 0) in [:member, :member_node_info] end) |> inspect()",
        );
        let state = wrong.elixir("s = :sys.get_state(MySup); inspect({s.members, s.members_info})");
        Some(format!(
            "members of the supervisor are {} on {}, whose state is {state} and whose map {stands}",
            members(wrong),
            wrong.name()
        ))
    }

    /// Waits until all hold the same, and what must be there.
    fn agree(&mut self, fault: Fault) {
        if answer_within(HEALED, || self.wrong(fault).is_none().then_some(())).is_none() {
            panic!("after {fault:?}: {:?}; {:?}", self.wrong(fault), self.registry.map().neighbours());
        }
        for names in &mut self.expected[..2] {
            names.retain(|name, _| self.registry.lookup(&Term::from(name.as_str())).is_some());
        }
    }
}

fn under_faults(release: &Release, horde: &Path) -> Result<(), Unsupported> {
    let Some(libraries) = libraries(horde) else { return Ok(()) };
    for seed in soak::seeds(0..soak::count_or("SEEDS", SEEDS)) {
        let epmd = Epmd::start(release);
        let wire = Wire::new(&epmd);
        let beam = |name| {
            let options = Options::new(release, wire.b(), name).elixir();
            let beam = options
                .args(&format!(
                    "-kernel net_ticktime {TICKTIME} -kernel prevent_overlapping_partitions false"
                ))
                .start();
            start(&beam, &libraries);
            beam
        };
        let beams = vec![beam("one"), beam("two")];
        let (rust, registry, supervisor, worker) = ours(&wire);
        let mut three = Three {
            random: Random::new(seed),
            wire,
            rust,
            registry,
            supervisor,
            worker,
            beams,
            written: 0,
            expected: Names::default(),
        };
        three.meet();
        let all = "[{\"one\", :alive}, {\"rust\", :shutting_down}, {\"two\", :alive}]";
        eventually_true("all are members", WAIT, || three.beams.iter().all(|beam| members(beam) == all));
        start_children(&three.beams[0], 1, CHILDREN);
        let faults = Fault::all(&mut three.random);
        for fault in faults {
            three.round(fault, &libraries);
        }
        println!(
            "ecosystem horde: OTP {}: seed {seed}, {faults:?}: {} names after {} writes and {} children, alike on all three",
            release.number,
            three.registry.count(),
            three.written,
            three.supervisor.children().len()
        );
    }
    Ok(())
}

#[test]
fn horde_under_faults() {
    with_horde(
        "Horde.Registry and Horde.DynamicSupervisor: two BEAMs and a Rust node have the same names, and the same map of children, after partitions, a stopped BEAM, broken connections and restarts; what Horde does not drop is there",
        under_faults,
    );
}
