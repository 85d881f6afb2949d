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
//! `FOUNDATION_SIM_SEED=N` runs one seed, `FOUNDATION_SIM_SEEDS=N` that many.

use crate::seeds::{number, seeds};

use super::super::Mutant;
use super::node::Faults;
use super::run::{Run, Scenario, grown};

fn scenario(seed: u64) -> Scenario {
    let lossy = seed % 3 == 2;
    Scenario {
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
        delivered += Run::new(scenario(seed)).all().unwrap_or_else(|what| panic!("{what}"));
    }
    println!("names: {delivered} messages delivered");
}

#[test]
fn a_seed_runs_the_same_way_twice() {
    assert_eq!(Run::new(scenario(5)).all(), Run::new(scenario(5)).all());
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
            let scenario = Scenario { mutant: Some(mutant), ..scenario(seed) };
            Run::new(scenario).all().err()
        });
        let caught = caught.unwrap_or_else(|| panic!("{mutant:?} was not noticed"));
        println!("names: without {mutant:?}: {caught}");
    }
}

/// As many nodes as `FOUNDATION_SIM_NODES` says, 100 otherwise.
#[test]
fn a_large_network_settles_and_is_silent() {
    let size = number("FOUNDATION_SIM_NODES").unwrap_or(100) as usize;
    let base = Scenario { size, keys: size * 10, steps: 0, faults: Faults::default(), ..scenario(1) };
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
