//! Replicated maps together with unmodified `DeltaCrdt` processes: `make ecosystem`.

use std::time::{Duration, Instant};

use foundation_interop_tests::case::Unsupported;
use foundation_interop_tests::eventually::eventually_true;
use foundation_interop_tests::{Beam, Case, Epmd, Release, case};
use foundation_node::service::delta_crdt::DeltaCrdt;
use foundation_proto::Limits;
use foundation_proto::etf::{Map, Term, phash2_range};

use crate::ecosystem::{TOPIC, node_with, source};
use crate::rust::{Rust, WAIT};

/// How often the BEAM compares: `DeltaCrdt`'s default is 200 ms, Horde's 300 ms.
const INTERVAL: u32 = 200;

/// A node with `DeltaCrdt` and what it needs, all from source; `None`, said aloud, if one is not there.
fn node(release: &Release, epmd: &Epmd, name: &str) -> Option<Beam> {
    let sources = [source("telemetry")?, source("merkle_map")?, source("delta_crdt_ex")?];
    Some(node_with(release, epmd, name, &sources))
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
            rust.run(map.merge((1..=500).map(|n| (key("rust", n), Term::from((n, map.pid().clone()))))))
                .unwrap();

            // Neither side names the other before both hold something.
            set_neighbours(&one, &["rust"]);
            rust.run(map.set_neighbours([("MyMap", "one@127.0.0.1")])).unwrap();
            eventually_true("1000 keys here", WAIT, || map.len() == 1000);
            equal(&map, &[&one]);
            assert!(digest(&map).starts_with("{1000, "), "nothing was lost");
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
