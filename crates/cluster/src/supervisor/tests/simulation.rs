//! Supervisors on a simulated network that breaks connections, keeps pairs and halves apart, crashes nodes, stops them for a while and
//! lets them leave; with children that crash, end, hang, and give their state; wall clocks that are minutes off, and in half of the
//! runs children that need a majority and clocks that run up to 1 % too fast or too slow.
//!
//! Invariants, checked as it goes (2, 6) or after the last fault and a time of rest:
//!
//! 1. Convergence: all nodes know the same specifications, and see the same children, where they are.
//! 2. At most one: no child runs twice; on one node at no time.
//! 3. No lost child: a specification that a living node has known is there unless it was removed; and what it stands for runs, is given
//!    up, or has ended as its restart type allows.
//! 4. No resurrected child: what was terminated does not run and is not known.
//! 5. Safety: a child that needs a lease never runs twice at once, in the true time.
//! 6. Budget: no child is started again more often than its budget allows.
//! 7. A temporary child is not started on a node that knows that it was started, besides being handed over.
//! 8. Bounded state: nothing is left of what is over; no more writers are known than there were.
//! 9. Bounded traffic: an idle network without leases is silent.
//! 10. Nothing that a member sends is ignored by another.
//! 11. No lost state: a child that leaves its node goes on elsewhere with the state that it gave, unless it is told that this is lost (with nodes
//!     that leave, without faults).
//!
//! `FOUNDATION_SIM_SEED=N` runs one seed, `FOUNDATION_SIM_SEEDS=N` that many.

use crate::seeds::seeds;

use super::super::Mutant;
use super::run::{Run, Scenario, leave_together};

fn scenario(seed: u64) -> Scenario {
    Scenario { seed, size: 2 + (seed / 2 % 5) as usize, steps: 200, safe: seed % 2 == 1, mutant: None }
}

#[test]
fn children_run_where_they_should_and_never_twice() {
    let mut delivered = 0;
    for seed in seeds(60) {
        delivered += Run::new(scenario(seed)).all().unwrap_or_else(|what| panic!("{what}"));
    }
    println!("supervisor: {delivered} messages delivered");
}

#[test]
fn states_are_kept_when_nodes_leave_together() {
    for seed in seeds(60) {
        leave_together(seed, None).unwrap_or_else(|what| panic!("{what}"));
    }
}

#[test]
fn a_seed_runs_the_same_way_twice() {
    assert_eq!(Run::new(scenario(5)).all(), Run::new(scenario(5)).all());
}

#[test]
fn a_rule_that_is_left_out_is_noticed() {
    let mutants = [
        Mutant::NoExchange,
        Mutant::IgnoreGap,
        Mutant::KeepRemoved,
        Mutant::IgnoreConflict,
        Mutant::KeepTerminated,
        Mutant::NoBudget,
        Mutant::StartAgain,
        Mutant::IgnoreLost,
        Mutant::ReleaseEarly,
        Mutant::StartWithoutLease,
        Mutant::ForgetHandOff,
        Mutant::KeepToOneself,
    ];
    for mutant in mutants {
        let caught = (0..300).find_map(|seed| {
            if mutant == Mutant::ForgetHandOff {
                return leave_together(seed, Some(mutant)).err();
            }
            let scenario = Scenario { mutant: Some(mutant), ..scenario(seed) };
            Run::new(scenario).all().err()
        });
        let caught = caught.unwrap_or_else(|| panic!("{mutant:?} was not noticed"));
        println!("supervisor: without {mutant:?}: {caught}");
    }
}
