//! Replicated maps together with unmodified `DeltaCrdt` processes: `make ecosystem`.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use foundation_cluster::Key;
use foundation_cluster::sim::Random;
use foundation_interop_tests::beam::Options;
use foundation_interop_tests::case::Unsupported;
use foundation_interop_tests::eventually::{answer_within, eventually_true};
use foundation_interop_tests::wire::Wire;
use foundation_interop_tests::{Beam, Case, Epmd, Release, case};
use foundation_node::service::delta_crdt::DeltaCrdt;
use foundation_proto::Limits;
use foundation_proto::etf::{Map, Term, phash2_range};

use crate::ecosystem::{TOPIC, load, node_with, source};
use crate::rust::{Rust, WAIT};
use crate::soak;

/// How often the BEAM compares: `DeltaCrdt`'s default is 200 ms, Horde's 300 ms.
const INTERVAL: u32 = 200;
/// Seconds after which a silent connection is given up, by four ticks.
const TICKTIME: u32 = 4;
/// Runs of [`delta_crdt_under_faults`], each with writes of its own, and the faults in an order of its own. With `FOUNDATION_SOAK_SEEDS`, so many.
const SEEDS: u64 = 3;
/// How long members may take that have just found each other again: Erlang gives up a connection that is begun after 7 s.
const HEALED: Duration = Duration::from_secs(60);

/// A node with `DeltaCrdt` and what it needs, all from source; `None`, said aloud, if one is not there.
fn node(release: &Release, epmd: &Epmd, name: &str) -> Option<Beam> {
    let sources = [source("telemetry")?, source("merkle_map")?, source("delta_crdt_ex")?];
    Some(node_with(release, epmd, name, &sources))
}

/// The same, at an EPMD of this port, with a short tick: whoever is parted is given up within 5 s.
fn ticking(release: &Release, epmd: u16, name: &str) -> Option<Beam> {
    let sources = [source("telemetry")?, source("merkle_map")?, source("delta_crdt_ex")?];
    let options = Options::new(release, epmd, name).elixir();
    let beam = options
        .args(&format!("-kernel net_ticktime {TICKTIME} -kernel prevent_overlapping_partitions false"))
        .start();
    load(&beam, &sources);
    Some(beam)
}

/// `size` is `max_sync_size`.
fn start_map(beam: &Beam, size: &str) {
    beam.elixir(&format!(
        "{{:ok, _}} = Agent.start(fn -> {{:ok, p}} = DeltaCrdt.start_link(DeltaCrdt.AWLWWMap, name: MyMap, sync_interval: {INTERVAL}, \
         max_sync_size: {size}, on_diffs: fn ds -> if (w = Process.whereis(:watcher)), do: send(w, {{:diffs, ds}}) end); p end, name: :keeper); :ok"
    ));
}

fn set_neighbours(beam: &Beam, nodes: &[&str]) {
    let list: Vec<String> = nodes.iter().map(|node| format!("{{MyMap, :\"{node}@127.0.0.1\"}}")).collect();
    beam.elixir(&format!("DeltaCrdt.set_neighbours(MyMap, [{}])", list.join(", ")));
}

/// Size and hash of the map, the same on both sides if the maps are equal.
fn digest(map: &DeltaCrdt) -> String {
    let pairs = map.to_vec();
    let size = pairs.len();
    let hash = phash2_range(&Term::Map(Map::from_pairs(pairs).unwrap()), 1 << 32).unwrap();
    format!("{{{size}, {hash}}}")
}

fn digest_of(beam: &Beam) -> String {
    beam.elixir("m = DeltaCrdt.to_map(MyMap); {map_size(m), :erlang.phash2(m, 4294967296)}")
}

fn equal(map: &DeltaCrdt, beams: &[&Beam]) {
    eventually_true("all maps are equal", WAIT, || {
        let ours = digest(map);
        beams.iter().all(|beam| digest_of(beam) == ours)
    });
}

fn key(kind: &str, n: i64) -> Term {
    Term::from((Term::atom("key"), Term::from(format!("{kind}{n}"))))
}

#[test]
fn delta_crdt_with_its_defaults() {
    case(
        Case::Smoke,
        TOPIC,
        "DeltaCrdt: a map of Rust and BEAM members, pushed writes, nothing lost at max_sync_size 200, restarts",
        |release| {
            if release.number < 25 {
                return Err(Unsupported("delta_crdt 0.6 wants Elixir 1.12"));
            }
            let epmd = Epmd::start(release);
            let Some(one) = node(release, &epmd, "one") else { return Ok(()) };
            let rust = Rust::start(&epmd, "rust");
            let map = rust.run(async { rust.node.delta_crdt("MyMap") }).unwrap();
            start_map(&one, "200");
            one.elixir("for n <- 1..500, do: DeltaCrdt.put(MyMap, {:key, \"beam#{n}\"}, {n, self()}); :ok");
            // Several messages' worth.
            rust.run(map.merge((1..=2500).map(|n| (key("rust", n), Term::from((n, map.pid().clone()))))))
                .unwrap();

            // Neither side names the other before both hold something.
            set_neighbours(&one, &["rust"]);
            rust.run(map.set_neighbours([("MyMap", "one@127.0.0.1")])).unwrap();
            eventually_true("3000 keys here", WAIT, || map.len() == 3000);
            equal(&map, &[&one]);
            assert!(digest(&map).starts_with("{3000, "), "nothing was lost");
            eventually_true("writes are pushed", WAIT, || map.neighbours().iter().all(|(_, pushed)| *pushed));

            // How long a write of ours takes to be seen there, told by the BEAM's own callback.
            let mut inbox = rust.node.mailbox("inbox").unwrap();
            one.elixir(
                "spawn(fn -> Process.register(self(), :watcher); loop = fn loop -> receive do {:diffs, [{:add, {:probe, n}, _}]} -> \
                 send({:inbox, :\"rust@127.0.0.1\"}, n); _ -> :ok end; loop.(loop) end; loop.(loop) end); :ok",
            );
            eventually_true("the watcher runs", WAIT, || {
                one.elixir("is_pid(Process.whereis(:watcher))") == "true"
            });
            let mut times = Vec::new();
            rust.run(async {
                for n in 0..200_i64 {
                    let begun = Instant::now();
                    map.put(Term::from((Term::atom("probe"), n)), Term::from(n)).await.unwrap();
                    loop {
                        let seen = inbox.recv().await.unwrap().to_term(&Limits::default()).unwrap();
                        if seen.as_i64() == Some(n) {
                            break;
                        }
                    }
                    times.push(begun.elapsed());
                }
            });
            times.sort_unstable();
            println!(
                "ecosystem delta_crdt: OTP {}: a write here is seen on the BEAM, and that is known here, after {:?} (median of 200; \
                 99 %: {:?}; its own interval is {INTERVAL} ms)",
                release.number, times[100], times[197]
            );
            assert!(
                times[100] < Duration::from_millis(100),
                "a write does not wait for the beat: {:?}",
                times[100]
            );

            // As if it were one of theirs.
            one.elixir("DeltaCrdt.put({MyMap, :\"rust@127.0.0.1\"}, :called, 1); :ok");
            assert_eq!(map.get(&Term::atom("called")), Some(Term::from(1)));
            assert_eq!(one.elixir("DeltaCrdt.get({MyMap, :\"rust@127.0.0.1\"}, :called)"), "1");

            // The BEAM's process loses everything and gets everything back.
            equal(&map, &[&one]);
            let before = map.len();
            one.elixir("Agent.stop(:keeper); :ok");
            eventually_true("it has ended", WAIT, || one.elixir("Process.whereis(MyMap)") == "nil");
            rust.run(map.put(key("rust", 1), Term::atom("meanwhile"))).unwrap();
            start_map(&one, "200");
            set_neighbours(&one, &["rust"]);
            equal(&map, &[&one]);
            assert_eq!(before, map.len(), "the same keys");
            Ok(())
        },
    );
}

#[test]
fn delta_crdt_under_churn() {
    case(
        Case::Full,
        TOPIC,
        "DeltaCrdt: equal maps on two BEAMs and a Rust node after churn, a broken connection and a restart of ours",
        |release| {
            if release.number < 25 {
                return Err(Unsupported("delta_crdt 0.6 wants Elixir 1.12"));
            }
            let epmd = Epmd::start(release);
            let Some(one) = node(release, &epmd, "one") else { return Ok(()) };
            let Some(two) = node(release, &epmd, "two") else { return Ok(()) };
            let mut rust = Rust::start(&epmd, "rust");
            let mut map = rust.run(async { rust.node.delta_crdt("MyMap") }).unwrap();
            // With a limit they lose each other's keys.
            start_map(&one, ":infinite");
            start_map(&two, ":infinite");
            set_neighbours(&one, &["two", "rust"]);
            set_neighbours(&two, &["one", "rust"]);
            let both = [("MyMap", "one@127.0.0.1"), ("MyMap", "two@127.0.0.1")];
            rust.run(map.set_neighbours(both)).unwrap();
            for round in 0..6_i64 {
                for (beam, seed) in [(&one, 1), (&two, 2)] {
                    beam.elixir(&format!(
                        "spawn(fn -> :rand.seed(:exsss, {{{seed}, {round}, 7}}); for n <- 1..150 do k = {{:key, \"k#{{:rand.uniform(200)}}\"}}; \
                         if :rand.uniform(4) == 1, do: DeltaCrdt.delete(MyMap, k), else: DeltaCrdt.put(MyMap, k, {{n, {seed}}}) end end); :ok"
                    ));
                }
                rust.run(async {
                    for n in 0..150_i64 {
                        let key = key("k", 1 + (n * 37 + round * 11) % 200);
                        if n % 4 == 0 {
                            map.delete(key).await.unwrap();
                        } else {
                            map.put(key, Term::from((n, 3))).await.unwrap();
                        }
                    }
                });
                match round {
                    2 => {
                        one.elixir("Node.disconnect(:\"rust@127.0.0.1\"); :ok");
                    }
                    4 => {
                        drop(rust);
                        rust = Rust::start(&epmd, "rust");
                        map = rust.run(async { rust.node.delta_crdt("MyMap") }).unwrap();
                        rust.run(map.set_neighbours(both)).unwrap();
                    }
                    _ => {}
                }
            }
            equal(&map, &[&one, &two]);
            println!(
                "ecosystem delta_crdt: OTP {}: {} on all three; {:?}",
                release.number,
                digest(&map),
                map.stats()
            );
            Ok(())
        },
    );
}

/// Three members, and what must stand in the map: each writes keys of its own, one after the other.
struct Three {
    random: Random,
    wire: Wire,
    rust: Rust,
    map: DeltaCrdt,
    beams: [Beam; 2],
    written: i64,
    expected: BTreeMap<Key, Term>,
}

/// What happens to two BEAMs and a Rust node that share a map.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fault {
    /// The Rust node is parted from both BEAMs until it has given them up.
    Partition,
    /// A BEAM stands still (SIGSTOP) until it is given up.
    Stop,
    /// A BEAM closes its connection to the Rust node.
    Disconnect,
    /// All connections between the Rust node and the BEAMs are reset.
    Cut,
    /// The Rust node is stopped, and starts with nothing.
    RestartOurs,
    /// A BEAM's member is stopped, or the BEAM with it, and starts with nothing.
    RestartTheirs,
}

impl Fault {
    /// All of them, in an order of chance.
    pub(crate) fn all(random: &mut Random) -> [Self; 6] {
        let mut faults = [
            Self::Partition,
            Self::Stop,
            Self::Disconnect,
            Self::Cut,
            Self::RestartOurs,
            Self::RestartTheirs,
        ];
        for at in 0..faults.len() {
            let other = at + random.below(faults.len() - at);
            faults.swap(at, other);
        }
        faults
    }
}

const BEAMS: [(&str, &str); 2] = [("MyMap", "one@127.0.0.1"), ("MyMap", "two@127.0.0.1")];

impl Three {
    fn open(rust: &Rust) -> DeltaCrdt {
        let map = rust.run(async { rust.node.delta_crdt("MyMap") }).unwrap();
        rust.run(map.set_neighbours(BEAMS)).unwrap();
        map
    }

    fn node(wire: &Wire) -> Rust {
        Rust::on(wire.a(), "rust", |config| config.net_ticktime(TICKTIME))
    }

    fn join(&self, at: usize) {
        // With a limit they lose each other's keys.
        start_map(&self.beams[at], ":infinite");
        set_neighbours(&self.beams[at], &[["two", "one"][at], "rust"]);
    }

    /// What a member writes next: values that were never there, or nothing more under a key.
    fn writes(&mut self, kind: &str) -> Vec<(i64, Option<i64>)> {
        let mut writes = Vec::new();
        for _ in 0..40 {
            let n = self.random.below(60) as i64;
            self.written += 1;
            let value = (!self.random.chance(25)).then_some(self.written);
            match value {
                Some(value) => self.expected.insert(Key(key(kind, n)), Term::from(value)),
                None => self.expected.remove(&Key(key(kind, n))),
            };
            writes.push((n, value));
        }
        writes
    }

    fn write(&mut self, stopped: Option<usize>) {
        for at in (0..2).filter(|at| Some(*at) != stopped) {
            let kind = ["one", "two"][at];
            let shown = |(n, value): (i64, Option<i64>)| {
                format!("{{{n}, {}}}", value.map_or("nil".to_owned(), |value| value.to_string()))
            };
            let writes: Vec<String> = self.writes(kind).into_iter().map(shown).collect();
            self.beams[at].elixir(&format!(
                "for {{n, v}} <- [{}] do k = {{:key, \"{kind}#{{n}}\"}}; \
                 if v, do: DeltaCrdt.put(MyMap, k, v), else: DeltaCrdt.delete(MyMap, k) end; :ok",
                writes.join(", ")
            ));
        }
        let writes = self.writes("rust");
        self.rust.run(async {
            for (n, value) in writes {
                match value {
                    Some(value) => self.map.put(key("rust", n), Term::from(value)).await.unwrap(),
                    None => self.map.delete(key("rust", n)).await.unwrap(),
                }
            }
        });
    }

    /// Whether the Rust node has a connection to a BEAM.
    fn near(&self, at: usize) -> bool {
        self.rust.is_connected(BEAMS[at].1)
    }

    fn round(&mut self, fault: Fault) {
        let at = self.random.below(2);
        let restarts = matches!(fault, Fault::RestartOurs | Fault::RestartTheirs);
        // A member that starts without its state has told all that it knew; otherwise what was written is still on its way.
        if restarts {
            self.agree(&format!("{fault:?}, before"));
        } else {
            self.write(None);
        }
        match fault {
            Fault::Partition => {
                self.wire.partition();
                self.write(None);
                eventually_true("both are given up", WAIT, || !self.near(0) && !self.near(1));
                self.write(None);
                self.wire.heal();
            }
            Fault::Stop => {
                self.beams[at].pause();
                self.write(Some(at));
                eventually_true("it is given up", WAIT, || !self.near(at));
                self.beams[at].resume();
            }
            Fault::Disconnect => {
                self.beams[at].elixir("Node.disconnect(:\"rust@127.0.0.1\"); :ok");
            }
            Fault::Cut => self.wire.cut(),
            Fault::RestartOurs => {
                let here = self.rust.node.name().clone();
                self.rust.run(self.rust.node.stop());
                for beam in &self.beams {
                    let gone = format!("Enum.member?(Node.list(:connected), :\"{}\")", here.as_str());
                    eventually_true("it is gone", WAIT, || beam.elixir(&gone) == "false");
                }
                self.rust = Self::node(&self.wire);
                self.map = Self::open(&self.rust);
            }
            Fault::RestartTheirs => {
                let beam = &self.beams[at];
                beam.elixir("Agent.stop(:keeper); :ok");
                eventually_true("it has ended", WAIT, || beam.elixir("Process.whereis(MyMap)") == "nil");
                self.join(at);
            }
        }
        // A remove takes away what the member has seen, so it has to have seen what it wrote before.
        if restarts {
            self.agree(&format!("{fault:?}, at once"));
        }
        self.write(None);
        self.agree(&format!("{fault:?}"));
    }

    /// What a member holds, or does not, against what was written.
    fn wrong(&self) -> Option<String> {
        let found: BTreeMap<Key, Term> =
            self.map.to_vec().into_iter().map(|(key, value)| (Key(key), value)).collect();
        let lost = self.expected.iter().find(|(key, value)| found.get(key) != Some(value));
        let extra = found.iter().find(|(key, value)| self.expected.get(key) != Some(value));
        if lost.is_some() || extra.is_some() {
            return Some(format!("ours lacks {lost:?} and has {extra:?}"));
        }
        let ours = digest(&self.map);
        let theirs: Vec<String> = self.beams.iter().map(digest_of).collect();
        theirs.iter().any(|digest| *digest != ours).then(|| format!("ours is {ours}, theirs are {theirs:?}"))
    }

    /// Waits until all hold what was written, and nothing else.
    fn agree(&self, after: &str) {
        if answer_within(HEALED, || self.wrong().is_none().then_some(())).is_none() {
            let wrong = self.wrong();
            panic!("after {after}: {wrong:?}; {:?}", self.map.neighbours());
        }
    }
}

#[test]
fn delta_crdt_under_faults() {
    case(
        Case::Full,
        TOPIC,
        "DeltaCrdt: two BEAMs and a Rust node hold exactly what was written after partitions, a stopped BEAM, broken connections and restarts",
        |release| {
            if release.number < 25 {
                return Err(Unsupported("delta_crdt 0.6 wants Elixir 1.12"));
            }
            for seed in soak::seeds(0..soak::count_or("SEEDS", SEEDS)) {
                let epmd = Epmd::start(release);
                let wire = Wire::new(&epmd);
                let Some(one) = ticking(release, wire.b(), "one") else { return Ok(()) };
                let Some(two) = ticking(release, wire.b(), "two") else { return Ok(()) };
                let rust = Three::node(&wire);
                let map = Three::open(&rust);
                let random = Random::new(seed);
                let (beams, expected) = ([one, two], BTreeMap::new());
                let mut three = Three { random, wire, rust, map, beams, written: 0, expected };
                (0..2).for_each(|at| three.join(at));
                let faults = Fault::all(&mut three.random);
                for fault in faults {
                    three.round(fault);
                }
                println!(
                    "ecosystem delta_crdt: OTP {}: seed {seed}, {faults:?}: {} keys of {} writes on all three; {:?}",
                    release.number,
                    three.expected.len(),
                    three.written,
                    three.map.stats()
                );
            }
            Ok(())
        },
    );
}
