//! Signals that no correct peer would send, given to a node over a real connection.

use core::time::Duration;

use foundation_cluster::sim::Random;
use foundation_proto::dist::control::spawn_reply;
use foundation_proto::dist::{Destination, SpawnRequest};
use foundation_proto::etf::Term;

use super::*;
use crate::config::{EpmdMode, NodeConfig, Reconnect};
use crate::node::Node;
use crate::process::{AliasKind, Message};

pub(super) async fn pair() -> [Node; 2] {
    let epmd_port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut nodes = Vec::new();
    for name in ["a@127.0.0.1", "b@127.0.0.1"] {
        let mut config = NodeConfig::new(name).cookie("secret").epmd(EpmdMode::Embedded);
        config.epmd_port = epmd_port;
        config.reconnect = Reconnect::Never;
        nodes.push(Node::start(config).await.unwrap());
    }
    nodes.try_into().unwrap()
}

fn raw(term: Term) -> RawTerm {
    RawTerm::from_term(&term).unwrap()
}

fn signal(control: ControlMessage, payload: Option<Term>) -> Signal {
    Signal { control, payload: payload.map(raw), token: None }
}

#[tokio::test]
async fn a_peer_speaks_for_its_own_processes_only() {
    let [a, b] = pair().await;
    let link = a.connect("b@127.0.0.1").await.unwrap();
    let ours = a.process().unwrap();
    let theirs = b.process().unwrap();
    let third = Pid { node: Atom::new_static("c@127.0.0.1"), ..theirs.pid().clone() };
    let to = ours.pid().clone();
    let reference = Reference::new(third.node.clone(), 1, &[1, 2, 3]).unwrap();
    let request = SpawnRequest {
        req_id: reference.clone(),
        from: third.clone(),
        group_leader: third.clone(),
        module: Atom::new_static("m"),
        function: Atom::new_static("f"),
        arity: 0,
        options: Term::nil(),
    };
    for (control, payload) in [
        (ControlMessage::Link { from: third.clone(), to: to.clone() }, None),
        (ControlMessage::Unlink { from: third.clone(), to: to.clone() }, None),
        (ControlMessage::UnlinkId { id: 1, from: third.clone(), to: to.clone() }, None),
        (ControlMessage::Exit { from: third.clone(), to: to.clone() }, Some(Term::atom("boom"))),
        (
            ControlMessage::MonitorP { watcher: third.clone(), target: Target::Pid(to.clone()), reference },
            None,
        ),
        (ControlMessage::SpawnRequest(Box::new(request)), Some(Term::nil())),
    ] {
        let what = format!("{control:?}");
        let delivered = deliver(a.inner(), &link, signal(control, payload));
        assert!(
            matches!(delivered, Err(Error::PeerMisbehaved(PeerMisbehaved::ForgedOrigin(_)))),
            "{what}: {delivered:?}"
        );
    }
    assert!(link.mld().is_empty());
    // A message from a third node's process is in order: nodes relay for their C nodes.
    let send = ControlMessage::Send { from: Some(third), to };
    deliver(a.inner(), &link, signal(send, Some(Term::atom("hello")))).unwrap();
    assert_eq!(ours.mailbox_len(), 1);
}

/// What arrives late, twice or for nobody changes nothing.
#[tokio::test]
async fn stray_signals_change_nothing() {
    let [a, b] = pair().await;
    let link = a.connect("b@127.0.0.1").await.unwrap();
    let mut ours = a.process().unwrap();
    ours.trap_exit(true);
    let theirs = b.process().unwrap().pid().clone();
    let to = ours.pid().clone();
    let stale = Pid { creation: to.creation ^ 1, ..to.clone() };
    let alias = ours.alias(AliasKind::Reply).unwrap();
    let node = a.inner();
    let unknown = Reference::new(a.name().clone(), a.creation(), &[5, 6, 7]).unwrap();
    let boom = || Some(Term::atom("boom"));
    for to in [&to, &stale] {
        let (from, to) = (theirs.clone(), to.clone());
        for (control, payload) in [
            (ControlMessage::Exit { from: from.clone(), to: to.clone() }, boom()),
            (ControlMessage::UnlinkIdAck { id: 1, from: from.clone(), to: to.clone() }, None),
            (ControlMessage::UnlinkId { id: 1, from: from.clone(), to: to.clone() }, None),
            (
                ControlMessage::MonitorPExit {
                    target: Target::Pid(from.clone()),
                    watcher: to.clone(),
                    reference: unknown.clone(),
                },
                boom(),
            ),
            (
                ControlMessage::DemonitorP {
                    watcher: from.clone(),
                    target: Target::Pid(to.clone()),
                    reference: unknown.clone(),
                },
                None,
            ),
            (
                ControlMessage::SpawnReply {
                    req_id: unknown.clone(),
                    to: to.clone(),
                    flags: spawn_reply::LINK | spawn_reply::MONITOR,
                    result: Ok(from.clone()),
                },
                None,
            ),
            (ControlMessage::AliasSend { from: from.clone(), alias: unknown.clone() }, boom()),
        ] {
            deliver(node, &link, signal(control, payload)).unwrap();
        }
    }
    assert!(link.mld().is_empty());
    assert_eq!(ours.mailbox_len(), 0);

    // Exactly one of two links, monitors and replies counts.
    for _ in 0..2 {
        deliver(node, &link, signal(ControlMessage::Link { from: theirs.clone(), to: to.clone() }, None))
            .unwrap();
        let monitor = ControlMessage::MonitorP {
            watcher: theirs.clone(),
            target: Target::Pid(to.clone()),
            reference: unknown.clone(),
        };
        deliver(node, &link, signal(monitor, None)).unwrap();
        let send = ControlMessage::AliasSend { from: theirs.clone(), alias: alias.clone() };
        deliver(node, &link, signal(send, Some(Term::atom("reply")))).unwrap();
    }
    assert_eq!(link.mld().len(), 2);
    assert_eq!(ours.mailbox_len(), 1);
    assert!(matches!(ours.recv().await.unwrap(), Message::Term(_)));
    for _ in 0..2 {
        let exit = ControlMessage::Exit { from: theirs.clone(), to: to.clone() };
        deliver(node, &link, signal(exit, boom())).unwrap();
    }
    assert_eq!((link.mld().len(), ours.mailbox_len()), (1, 1));
}

/// The peer sent it before it saw the UNLINK_ID.
#[tokio::test]
async fn an_exit_that_crosses_an_unlink_is_not_heard() {
    let [a, b] = pair().await;
    let link = a.connect("b@127.0.0.1").await.unwrap();
    let theirs = b.process().unwrap();
    for trap_exit in [true, false] {
        let ours = a.process().unwrap();
        ours.trap_exit(trap_exit);
        ours.link(theirs.pid()).await;
        // Nothing is awaited from here on, so the acknowledgement is still to come.
        ours.unlink(theirs.pid());
        let exit = ControlMessage::Exit { from: theirs.pid().clone(), to: ours.pid().clone() };
        deliver(a.inner(), &link, signal(exit, Some(Term::atom("boom")))).unwrap();
        assert_eq!((ours.mailbox_len(), ours.exit_reason()), (0, None));
        assert!(link.mld().is_empty());
    }
}

/// A message whose payload is missing is the peer's fault, not a panic.
#[tokio::test]
async fn a_missing_payload_is_refused() {
    let [a, b] = pair().await;
    let link = a.connect("b@127.0.0.1").await.unwrap();
    let theirs = b.process().unwrap().pid().clone();
    let to = a.pid().clone();
    for control in [
        ControlMessage::Send { from: None, to: to.clone() },
        ControlMessage::RegSend { from: theirs.clone(), to: Atom::new_static("rex") },
        ControlMessage::Exit { from: theirs.clone(), to: to.clone() },
        ControlMessage::Exit2 { from: theirs.clone(), to: to.clone() },
        ControlMessage::Altact { flags: 0, from: theirs, to: Destination::Pid(to) },
    ] {
        assert!(deliver(a.inner(), &link, signal(control, None)).is_err());
    }
}

/// Random signals between a handful of identifiers, real, stale and foreign: nothing panics, and nothing is left when the
/// connection is gone.
#[tokio::test]
async fn random_signals_leave_nothing_behind() {
    let [a, b] = pair().await;
    let before = a.processes().len();
    for seed in 1..=20_u64 {
        let link = a.connect("b@127.0.0.1").await.unwrap();
        let mut numbers = Random::new(seed);
        let mut random = move |below: usize| numbers.below(below);
        let ours: Vec<_> = (0..4).map(|_| a.process().unwrap()).collect();
        ours[0].trap_exit(true);
        let _ = ours[1].register(Atom::new_static("named"));
        let mut pids: Vec<Pid> = ours.iter().map(|process| process.pid().clone()).collect();
        pids.push(Pid { creation: pids[0].creation ^ 1, ..pids[0].clone() });
        pids.push(Pid { id: u32::MAX, serial: u32::MAX, ..pids[0].clone() });
        let peers: Vec<Pid> = (0..3).map(|id| Pid { id: 1000 + id, serial: 0, ..b.pid().clone() }).collect();
        let mut references: Vec<Reference> =
            (0..3).map(|n| Reference::new(b.name().clone(), b.creation(), &[n, 1, 1]).unwrap()).collect();
        references.push(ours[2].alias(AliasKind::Reply).unwrap());
        references.push(ours[2].monitor_alias(&peers[0], AliasKind::ReplyDemonitor).await.unwrap());
        references.push(ours[3].monitor(&peers[1]).await.unwrap());
        ours[3].link(&peers[2]).await;
        for _ in 0..300 {
            let from = peers[random(peers.len())].clone();
            let to = pids[random(pids.len())].clone();
            let reference = references[random(references.len())].clone();
            let target = match random(3) {
                0 => Target::Name(Atom::new_static("named")),
                1 => Target::Name(Atom::new_static("nobody")),
                _ => Target::Pid(to.clone()),
            };
            let reason = ["normal", "kill", "boom"][random(3)];
            let control = match random(14) {
                0 => ControlMessage::Link { from, to },
                1 => ControlMessage::UnlinkId { id: random(3) as u64, from, to },
                2 => ControlMessage::UnlinkIdAck { id: random(3) as u64, from, to },
                3 => ControlMessage::Unlink { from, to },
                4 => ControlMessage::Exit { from, to },
                5 if random(10) == 0 => ControlMessage::Exit2 { from, to },
                6 => ControlMessage::MonitorP { watcher: from, target, reference },
                7 => ControlMessage::DemonitorP { watcher: from, target, reference },
                8 => ControlMessage::MonitorPExit { target, watcher: to, reference },
                9 => ControlMessage::GroupLeader { leader: from, pid: to },
                10 => ControlMessage::AliasSend { from, alias: reference },
                11 => ControlMessage::SpawnReply {
                    req_id: reference,
                    to,
                    flags: random(4) as u32,
                    result: Ok(from),
                },
                12 => ControlMessage::RegSend { from, to: Atom::new_static("named") },
                _ => ControlMessage::Send { from: Some(from), to },
            };
            deliver(a.inner(), &link, signal(control, Some(Term::atom(reason)))).unwrap();
        }
        drop(ours);
        // What the processes had is given back already; the rest goes with the connection.
        assert_eq!(link.mld().len(), 0, "seed {seed}");
        a.disconnect("b@127.0.0.1").await;
        let gone = tokio::time::timeout(Duration::from_secs(20), async {
            while a.processes().len() != before {
                tokio::task::yield_now().await;
            }
        });
        gone.await.unwrap();
    }
}
