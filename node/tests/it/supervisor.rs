//! Children that run somewhere in a cluster of several real nodes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use foundation_node::Node;
use foundation_node::process::Reason;
use foundation_node::service::supervisor::{
    ChildSpec, Config, Part, Placement, Refused, Requirement, Restart, Status, Supervisor,
};
use foundation_proto::etf::{Atom, Pid, Term};

use crate::support::{DEADLINE, cluster, eventually};

/// What runs of one test at a moment, over all of its nodes.
#[derive(Debug, Default)]
struct Running {
    now: AtomicUsize,
    most: AtomicUsize,
    starts: AtomicUsize,
}

struct Counted(Arc<Running>);

impl Counted {
    fn new(running: &Arc<Running>) -> Self {
        let now = running.now.fetch_add(1, Ordering::SeqCst) + 1;
        running.most.fetch_max(now, Ordering::SeqCst);
        running.starts.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(running))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A supervisor with a factory `counter`.
async fn supervisor(node: &Node, config: &Config, running: &Arc<Running>) -> Supervisor {
    let supervisor = node.supervisor("jobs", config.clone()).unwrap();
    factory(&supervisor, "counter", running).await;
    supervisor
}

/// A factory whose children add what they are sent to their count, end with the atom that they are sent, and leave their count when they
/// have to move.
async fn factory(supervisor: &Supervisor, name: &str, running: &Arc<Running>) {
    let running = Arc::clone(running);
    supervisor
        .factory(name, move |start, mut process| {
            let running = Arc::clone(&running);
            async move {
                let _counted = Counted::new(&running);
                let mut count = start.take_state().and_then(|state| state.as_i64()).unwrap_or(0);
                loop {
                    tokio::select! {
                        message = process.recv() => {
                            let Ok(message) = message else { return Reason::NORMAL };
                            let limits = foundation_proto::Limits::default();
                            match message.to_term(&limits) {
                                Ok(Term::Atom(reason)) => return Reason::from(reason),
                                Ok(Term::Integer(more)) => count += more,
                                Ok(Term::Pid(pid)) => {
                                    let answer = Term::from((Term::Pid(process.pid().clone()), count));
                                    let _ = process.send_term(&pid, &answer).await;
                                }
                                _ => {}
                            }
                        }
                        () = start.leaving() => return start.hand_off(count),
                    }
                }
            }
        })
        .await
        .unwrap();
}

fn spec(id: &str) -> ChildSpec {
    ChildSpec::new(id, Atom::new_static("counter"))
}

async fn mesh<const N: usize>(
    names: [&'static str; N],
    config: Config,
) -> ([Node; N], [Supervisor; N], Arc<Running>) {
    let nodes = cluster(names).await;
    let running = Arc::default();
    let mut supervisors = Vec::new();
    for (at, node) in nodes.iter().enumerate() {
        for other in &names[..at] {
            node.connect(&format!("{other}@127.0.0.1")).await.unwrap();
        }
        supervisors.push(supervisor(node, &config, &running).await);
    }
    let supervisors: [Supervisor; N] = supervisors.try_into().unwrap();
    eventually("all know each other", || supervisors.iter().all(|s| s.members().len() == N)).await;
    (nodes, supervisors, running)
}

/// Leases that a busy machine does not lose.
fn with_majority(members: [Atom; 3]) -> Config {
    let mut config = Config::default().members(members);
    (config.lease, config.margin) = (Duration::from_secs(2), Duration::from_millis(300));
    config
}

fn node_name(name: &str) -> Atom {
    Atom::new(&format!("{name}@127.0.0.1")).unwrap()
}

/// The count of a child.
async fn count(node: &Node, pid: &Pid) -> i64 {
    let mut process = node.process().unwrap();
    let me = Term::Pid(process.pid().clone());
    process.send_term(pid, &me).await.unwrap();
    let answer = crate::support::recv_term(&mut process).await;
    answer.as_tuple().unwrap()[1].as_i64().unwrap()
}

async fn all_see(supervisors: &[Supervisor], id: &str, part: Part, wanted: Option<&Pid>) {
    let id = Term::from(id);
    eventually("all see the same", || {
        supervisors.iter().all(|s| {
            let place = s.lookup(&id, &part).filter(|place| place.status == Status::Running);
            place.and_then(|place| place.pid).as_ref() == wanted
        })
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_singleton_runs_again_within_two_seconds_of_the_loss_of_its_node() {
    let members = ["a", "b", "c"].map(node_name);
    for (config, requirement, bound) in [
        (Config::default(), Requirement::Availability, Duration::from_secs(2)),
        // A lease of 2 s has to run out, and on a busy machine everything takes its time.
        (with_majority(members), Requirement::Safety, Duration::from_secs(8)),
    ] {
        let (nodes, supervisors, running) = mesh(["a", "b", "c"], config).await;
        let pid = supervisors[0].start_singleton(spec("one").requirement(requirement)).await.unwrap();
        all_see(&supervisors, "one", Part::Only, Some(&pid)).await;
        let again = supervisors[1].start_singleton(spec("one")).await.unwrap_err();
        assert_eq!(again, Refused::AlreadyStarted(vec![(Part::Only, pid.clone())]));

        let mut rest: Vec<(Node, Supervisor)> = nodes.into_iter().zip(supervisors).collect();
        let lost = rest.iter().position(|(node, _)| *node.name() == pid.node).unwrap();
        let (node, supervisor) = rest.remove(lost);
        let begin = Instant::now();
        node.stop().await;
        drop(supervisor);
        let id = Term::from("one");
        eventually("it runs on another node", || {
            let found = rest[0].1.lookup_singleton(&id).filter(|found| found.node != pid.node);
            found.is_some() && rest[1].1.lookup_singleton(&id) == found
        })
        .await;
        let took = begin.elapsed();
        println!("supervisor: {requirement:?}: it ran again after {took:?}");
        assert!(took < bound, "{took:?}");
        if requirement == Requirement::Safety {
            // Processes of a node that was stopped live on.
            assert_eq!(running.most.load(Ordering::SeqCst), 1, "never two at once");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_moves_with_its_state() {
    let (nodes, supervisors, running) = mesh(["a", "b", "c"], Config::default()).await;
    let id = Term::from("one");
    let pid = supervisors[0].start_singleton(spec("one")).await.unwrap();
    let sender = nodes[0].process().unwrap();
    for number in 1..=4i64 {
        sender.send_term(&pid, &Term::Integer(number)).await.unwrap();
    }
    assert_eq!(count(&nodes[0], &pid).await, 10);
    let names = ["a", "b", "c"].map(node_name);
    let to = names.iter().find(|name| **name != pid.node).unwrap();
    // Any node may be asked.
    let asked = names.iter().position(|name| name != to && *name != pid.node).unwrap();
    all_see(&supervisors, "one", Part::Only, Some(&pid)).await;
    supervisors[asked].migrate(&id, to).await.unwrap();
    eventually("it runs there", || {
        let place = supervisors[0].lookup(&id, &Part::Only);
        place.is_some_and(|place| place.status == Status::Running && place.node == *to)
    })
    .await;
    let moved = supervisors[0].lookup_singleton(&id).unwrap();
    assert_eq!(count(&nodes[0], &moved).await, 10);
    // Until it has heard so, the node that is asked next does not know whom to ask.
    all_see(&supervisors, "one", Part::Only, Some(&moved)).await;
    let nowhere = supervisors[asked].migrate(&id, &node_name("nowhere")).await;
    assert_eq!(nowhere, Err(Refused::NoSuchNode));

    // Its node leaves, with a part of another child.
    let parts = supervisors[0].start_partitioned(spec("parts"), 12).await.unwrap();
    assert_eq!(parts.len(), 12);
    let leaves = names.iter().position(|name| name == to).unwrap();
    let there = parts.iter().find(|(_, pid)| pid.node == *to).expect("twelve are spread");
    sender.send_term(&there.1, &Term::Integer(7)).await.unwrap();
    assert_eq!(count(&nodes[0], &there.1).await, 7);
    supervisors[leaves].drain().await.unwrap();
    let stays = (leaves + 1) % 3;
    eventually("all run elsewhere", || {
        let places = supervisors[stays].which_children();
        places.len() == 13 && places.iter().all(|place| place.status == Status::Running && place.node != *to)
    })
    .await;
    let moved = supervisors[stays].lookup_singleton(&id).unwrap();
    assert_eq!(count(&nodes[stays], &moved).await, 10);
    let part = supervisors[stays].lookup(&Term::from("parts"), &there.0).unwrap().pid.unwrap();
    assert_eq!(count(&nodes[stays], &part).await, 7);
    assert_eq!(running.now.load(Ordering::SeqCst), 13);

    supervisors[stays].terminate_child(&id).await.unwrap();
    supervisors[stays].terminate_child(&Term::from("parts")).await.unwrap();
    assert_eq!(supervisors[stays].terminate_child(&id).await, Err(Refused::NotFound));
    eventually("nothing is left", || running.now.load(Ordering::SeqCst) == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_that_ends_too_often_is_given_up() {
    let (nodes, supervisors, running) = mesh(["a", "b"], Config::default()).await;
    let id = Term::from("one");
    let mut reports = [supervisors[0].monitor(), supervisors[1].monitor()];
    let pid = supervisors[0].start_singleton(spec("one").budget(2, 3600)).await.unwrap();
    all_see(&supervisors, "one", Part::Only, Some(&pid)).await;
    let sender = nodes[0].process().unwrap();
    let mut last = None;
    for _ in 0..3 {
        eventually("it runs", || {
            let place = supervisors[0].lookup(&id, &Part::Only).unwrap();
            place.status == Status::Running && place.pid.is_some() && place.pid != last
        })
        .await;
        last = supervisors[0].lookup_singleton(&id);
        sender.send_term(last.as_ref().unwrap(), &Term::atom("boom")).await.unwrap();
    }
    let boom = Status::Failed(Term::atom("boom"));
    for supervisor in &supervisors {
        eventually("it is given up", || {
            supervisor.lookup(&id, &Part::Only).is_some_and(|place| place.status == boom)
        })
        .await;
    }
    assert_eq!(running.starts.load(Ordering::SeqCst), 3);
    assert_eq!(running.now.load(Ordering::SeqCst), 0);
    supervisors[1].restart_child(&id).await.unwrap();
    eventually("it runs again", || running.now.load(Ordering::SeqCst) == 1).await;
    let at = usize::from(pid.node.as_str().starts_with("b@"));
    let first = tokio::time::timeout(DEADLINE, reports[at].next()).await.unwrap().unwrap();
    assert!(matches!(first, foundation_node::service::supervisor::Report::Started { .. }), "{first:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_needs_a_majority_runs_only_with_one() {
    let members = ["a", "b", "c"].map(node_name);
    let (nodes, supervisors, running) = mesh(["a", "b", "c"], with_majority(members)).await;
    let alone = Arc::default();
    for supervisor in &supervisors {
        factory(supervisor, "alone", &alone).await;
    }
    let safe = ChildSpec::new("safe", Atom::new_static("alone")).requirement(Requirement::Safety);
    let pid = supervisors[0].start_singleton(safe).await.unwrap();
    all_see(&supervisors, "safe", Part::Only, Some(&pid)).await;
    let quorum = spec("quorum").placement(Placement::Quorum);
    supervisors[1].start_singleton(quorum).await.unwrap();
    let at = nodes.iter().position(|node| *node.name() == pid.node).unwrap();
    // The node that has it is cut off from both others, which go on together.
    for (other, node) in nodes.iter().enumerate() {
        if other != at {
            nodes[at].disconnect(node.name().as_str()).await;
        }
    }
    let other = (at + 1) % 3;
    let id = Term::from("safe");
    eventually("it runs where the majority is", || {
        let place = supervisors[other].lookup(&id, &Part::Only);
        place.is_some_and(|place| place.status == Status::Running)
    })
    .await;
    eventually("nothing runs without a majority", || supervisors[at].which_children().is_empty()).await;
    eventually("both run", || [&alone, &running].map(|running| running.now.load(Ordering::SeqCst)) == [1, 1])
        .await;
    // The other may overlap: it is placed by who is seen, without a lease.
    assert_eq!(alone.most.load(Ordering::SeqCst), 1, "never two of one");
    for (other, node) in nodes.iter().enumerate() {
        if other != at {
            nodes[at].connect(node.name().as_str()).await.unwrap();
        }
    }
    let found = supervisors[other].lookup_singleton(&id);
    all_see(&supervisors, "safe", Part::Only, found.as_ref()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_are_on_each_node_and_temporary_children_end_for_good() {
    let (nodes, supervisors, running) = mesh(["a", "b"], Config::default()).await;
    let pids = supervisors[0].start_replicated(spec("each")).await.unwrap();
    assert_eq!(pids.len(), 2);
    let once = spec("once").restart(Restart::Temporary);
    let pid = supervisors[1].start_singleton(once).await.unwrap();
    assert_eq!(supervisors[0].count_children().specs, 2);
    let sender = nodes[0].process().unwrap();
    sender.send_term(&pid, &Term::atom("boom")).await.unwrap();
    eventually("it is forgotten", || {
        supervisors.iter().all(|s| s.get_childspec(&Term::from("once")).is_none())
    })
    .await;
    assert_eq!(running.now.load(Ordering::SeqCst), 2);
    let taken = supervisors[0].factory("counter", |_, _| async {}).await;
    assert!(matches!(taken, Err(foundation_node::Error::NameTaken(_))), "{taken:?}");
    let unknown = ChildSpec::new("x", Atom::new_static("unknown"));
    assert_eq!(supervisors[0].start_singleton(unknown).await, Err(Refused::NoFactory));
    let safe = spec("x").requirement(Requirement::Safety);
    assert_eq!(supervisors[0].start_singleton(safe).await, Err(Refused::NoMembers));
}

/// Both sides start what they do not see; when they meet, one of the two ends.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_partition_one_of_two_is_left() {
    let (nodes, supervisors, running) = mesh(["a", "b"], Config::default()).await;
    let pid = supervisors[0].start_singleton(spec("one")).await.unwrap();
    all_see(&supervisors, "one", Part::Only, Some(&pid)).await;
    nodes[0].disconnect("b@127.0.0.1").await;
    eventually("both have it", || running.now.load(Ordering::SeqCst) == 2).await;
    nodes[0].connect("b@127.0.0.1").await.unwrap();
    eventually("one is left", || running.now.load(Ordering::SeqCst) == 1).await;
    all_see(&supervisors, "one", Part::Only, Some(&pid)).await;
}
