//! Registries on a simulated network that breaks connections, keeps pairs apart in one direction or both, crashes nodes, stops
//! them for a while, loses, doubles and delays messages; with wall clocks that are minutes off.
//!
//! Invariants, checked at each step (9, 10) or after the last fault and a time of rest:
//!
//! 1. Convergence: all nodes find the same, and know that they do.
//! 2. No resurrected name: what is found is what a living process has, and was not given up.
//! 3. No lost name: what a living process was given, and has not given up or lost by a conflict it was told of, is found.
//! 4. At most one owner: no two processes believe that they have the same unique key.
//! 5. Changes tell the whole story: replaying them gives what is found.
//! 6. Bounded state: a node keeps its entries, a limited number of removals, and one incarnation of each other node.
//! 7. Bounded traffic: an idle network is silent.
//! 8. Nothing that a member sends is ignored by another.
//! 9. Read your writes: who registers a key finds it at once where it was registered.
//! 10. `wait_until_all` does not lie: when it is done, each member has the write; and it ends.
//!
//! `FOUNDATION_SIM_SEED=N` runs one seed, `FOUNDATION_SIM_SEEDS=N` that many. A seed that fails prints what happened as a scenario
//! ([`crate::sim::scenario`]); the files of `crates/cluster/scenarios` are run too.

use crate::seeds::{number, seeds};

use super::super::Mutant;
use super::node::Faults;
use super::run::{Plan, Run, grown};
use crate::sim::scenario::{Scenario, committed};

fn plan(seed: u64) -> Plan {
    let lossy = seed % 3 == 2;
    Plan {
        seed,
        size: 2 + (seed % 6) as usize,
        keys: 12,
        steps: 250,
        unique: seed % 4 != 3,
        faults: if lossy { Faults { loss: 10, double: 10, delay: 20 } } else { Faults::default() },
        max_removed: [2, 1000][(seed / 2 % 2) as usize],
        mutant: None,
    }
}

#[test]
fn names_converge_and_none_is_lost_or_comes_back() {
    let mut delivered = 0;
    for seed in seeds(60) {
        delivered += Run::new(plan(seed)).all().unwrap_or_else(|what| panic!("{what}"));
    }
    println!("names: {delivered} messages delivered");
}

#[test]
fn a_seed_runs_the_same_way_twice() {
    let run = || Run::new(plan(5)).all().unwrap_or_else(|failed| panic!("{failed}"));
    assert_eq!(run(), run());
}

fn holds_among(file: &str, scenario: &Scenario, size: usize) {
    let run = Run::of(scenario, size, None).unwrap_or_else(|what| panic!("{file}: {what}"));
    let delivered = run.replay(scenario).unwrap_or_else(|failed| panic!("{file}, {size} nodes: {failed}"));
    println!("names: {file}, {size} nodes: {delivered} messages delivered");
}

#[test]
fn scenarios_of_files_hold() {
    for (file, scenario) in committed().into_iter().filter(|(_, scenario)| scenario.is_for("names")) {
        scenario.nodes.iter().for_each(|size| holds_among(&file, &scenario, *size));
    }
}

/// Half a million pairs of members, each of which knows the other.
#[test]
#[ignore = "three gigabytes and a quarter of an hour: cargo test -p foundation-cluster --lib names:: -- --ignored"]
fn two_halves_of_a_thousand_meet() {
    let found = committed().into_iter().find(|(file, _)| file == "halves.scenario");
    let (file, scenario) = found.expect("the file");
    holds_among(&file, &scenario, 1000);
}

#[test]
fn a_rule_that_is_left_out_is_noticed() {
    let mutants = [
        Mutant::KeepOldIncarnation,
        Mutant::ShowLost,
        Mutant::AckTarget,
        Mutant::IgnoreGap,
        Mutant::ForgetRemovals,
        Mutant::NoSweep,
        Mutant::NoProbe,
        Mutant::KeepLost,
        Mutant::PreferOwn,
        Mutant::IgnoreExit,
    ];
    for mutant in mutants {
        let caught = (0..200).find_map(|seed| {
            let plan = Plan { mutant: Some(mutant), ..plan(seed) };
            Run::new(plan).all().err()
        });
        let caught = caught.unwrap_or_else(|| panic!("{mutant:?} was not noticed"));
        // What is printed runs the same way again.
        let scenario = Scenario::parse(&caught.scenario.to_string()).unwrap();
        let run = Run::of(&scenario, scenario.nodes[0], Some(mutant)).unwrap();
        let again = run.replay(&scenario).unwrap_err();
        assert!(caught.what.contains(&again.what), "{caught} and {again}");
        let what = caught.what;
        println!("names: without {mutant:?}: {what}");
    }
}

/// As many nodes as `FOUNDATION_SIM_NODES` says, 100 otherwise.
#[test]
fn a_large_network_settles_and_is_silent() {
    let size = number("FOUNDATION_SIM_NODES").unwrap_or(100) as usize;
    let base = Plan { size, keys: size * 10, steps: 0, faults: Faults::default(), ..plan(1) };
    let mut run = grown(base, 3).unwrap_or_else(|what| panic!("{what}"));
    let before = run.delivered();
    run.register(0).unwrap();
    run.network().run_for(std::time::Duration::from_secs(2));
    let each = run.delivered() - before;
    // The write to each member, and what each acknowledges; nothing if the key was taken.
    assert!(each <= 2 * size as u64, "{each} messages for a write");
    run.check().unwrap_or_else(|what| panic!("{what}"));
    println!("names: {} messages delivered among {size}", run.delivered());
}
