//! Very many processes of one key: work for each of them must not grow with their number, or this does not end.

use super::node::{Faults, Node};
use super::*;
use crate::sim::{Conditions, Network, NodeId};

const MANY: u32 = 20_000;

fn key() -> Key {
    Key(Term::atom("all"))
}

fn register(node: &mut Node, io: &mut crate::sim::Io<super::node::Wire>, process: u32) {
    let pid = node.process(process);
    node.processes.insert(pid.clone(), [key()].into());
    let what =
        Command::Register { key: key().0, pid, value: Term::from(process), on_conflict: OnConflict::Exit };
    assert_eq!(node.command(io, u64::from(process), what), Some(Outcome::Done));
}

fn found(network: &Network<Node>, at: NodeId) -> usize {
    let node = network.node(at).unwrap();
    let found = node.names.lookup(&key().0).len();
    assert_eq!((node.replay.len(), node.names.len(), &node.broken), (found, found, &None));
    found
}

#[test]
fn twenty_thousand_have_one_key() {
    let mut network = Network::new(1, Conditions::default());
    for id in 0..2 {
        let node = Node::new(id, 1, Config::new(Keys::Duplicate), Faults::default(), 1);
        network.start(id, node);
    }
    network.run_for(Duration::from_secs(1));
    // One by one, and what is written at once reaches the other in parts.
    network.with(0, |node, io| (0..MANY).for_each(|process| register(node, io, process)));
    network.run_for(Duration::from_secs(5));
    assert_eq!([0, 1].map(|id| found(&network, id)), [MANY as usize; 2]);
    // All vanish together, and are back.
    network.allow(0, 1, false);
    network.run_for(Duration::from_secs(5));
    assert_eq!([0, 1].map(|id| found(&network, id)), [MANY as usize, 0]);
    network.with(1, |node, io| register(node, io, 1));
    network.allow(0, 1, true);
    network.run_for(Duration::from_secs(5));
    assert_eq!([0, 1].map(|id| found(&network, id)), [MANY as usize + 1; 2]);
    // One by one again.
    network.with(0, |node, io| {
        for process in 0..MANY {
            let what = Command::Unregister { key: key().0, pid: node.process(process) };
            assert_eq!(node.command(io, 1, what), Some(Outcome::Done));
        }
    });
    network.run_for(Duration::from_secs(5));
    assert_eq!([0, 1].map(|id| found(&network, id)), [1, 1]);
}

/// No member sends it; what came first must not stay behind.
#[test]
fn an_entry_that_stands_twice_in_a_message_counts_once() {
    let here = pid("a@h", 1);
    let entry = |version: u64, value: &'static str| Entry {
        key: Arc::new(key()),
        pid: pid("b@h", 7),
        value: Term::atom(value),
        node: Atom::new_static("b@h"),
        claim: version as i64,
        version,
    };
    let mut held = Held::new(here, Keys::Duplicate);
    let (effect, refused) = held.written(vec![entry(1, "one"), entry(2, "two")], Vec::new(), 2, 10);
    assert_eq!((effect.gone.len(), effect.come.len(), refused), (0, 1, 0));
    assert_eq!((effect.come[0].version, held.len()), (2, 1));
    let first = Arc::clone(&effect.come[0]);
    let (effect, _) = held.written(vec![entry(3, "three"), entry(4, "four")], Vec::new(), 4, 10);
    assert!(matches!(&effect.gone[..], [gone] if Arc::ptr_eq(gone, &first)));
    assert_eq!(effect.come[0].version, 4);
}
