use super::*;
use crate::message::{cast, list_of};

fn node(text: &'static str) -> Atom {
    Atom::new_static(text)
}

fn pid(at: &'static str, id: u32) -> Pid {
    Pid { node: node(at), id, serial: 0, creation: 4 }
}

fn global() -> Global {
    Global::new(pid("m@h", 1), Config::default(), 7)
}

fn drain(global: &mut Global) -> Vec<Action> {
    std::iter::from_fn(|| global.poll_action()).collect()
}

fn tell(global: &mut Global, message: Term) {
    global.handle(Mono::ZERO, Event::Message(message));
}

fn call(global: &mut Global, from: &Pid, request: Term) -> Option<Term> {
    tell(global, tuple_of([atom("$gen_call"), tuple_of([Term::Pid(from.clone()), atom("tag")]), request]));
    drain(global).into_iter().find_map(|action| match action {
        Action::Reply { to, tag, reply } if to == *from && tag.is_atom("tag") => Some(reply),
        _ => None,
    })
}

fn lock(requester: &'static str) -> Term {
    tuple_of([atom("set_lock"), tuple_of([atom("resource"), atom(requester)])])
}

fn init_connect(version: i64, from: &'static str) -> Term {
    let locker = tuple_of([atom("locker"), atom("no_longer_a_pid"), Term::list([]), Term::Pid(pid(from, 9))]);
    let version = tuple_of([Term::Integer(version), Term::Integer(77)]);
    cast(tuple_of([atom("init_connect"), version, Term::Atom(node(from)), locker]))
}

/// OTP 23 has version 5: `global:sync/0` there must not wait for this node, and nothing more is begun with it.
#[test]
fn an_old_global_gets_in_sync() {
    let mut global = global();
    global.handle(Mono::ZERO, Event::NodeUp(node("old@h")));
    drain(&mut global);
    tell(&mut global, init_connect(5, "old@h"));
    let expected = Action::Send { to: To::Server(node("old@h")), message: cast(in_sync(&node("m@h"))) };
    assert_eq!(drain(&mut global), [expected]);
    assert_eq!(global.known().count(), 0);
}

/// The acknowledgement names the receiver's tag first.
#[test]
fn a_session_is_acknowledged() {
    let mut global = global();
    global.handle(Mono::ZERO, Event::NodeUp(node("peer@h")));
    let opened = drain(&mut global);
    let [Action::Send { message, .. }] = opened.as_slice() else { panic!("{opened:?}") };
    let mine = message.as_tuple().unwrap()[1].as_tuple().unwrap()[1].as_tuple().unwrap()[1].clone();
    tell(&mut global, init_connect(8, "peer@h"));
    let ack = tuple_of([atom("init_connect_ack"), Term::Atom(node("m@h")), Term::Integer(77), mine.clone()]);
    assert_eq!(drain(&mut global), [Action::Send { to: To::Server(node("peer@h")), message: ack }]);
    // The other side's acknowledgement of another session ends this one, and a new one begins a little later.
    let wrong =
        tuple_of([atom("init_connect_ack"), Term::Atom(node("peer@h")), Term::Integer(0), Term::Integer(77)]);
    tell(&mut global, wrong);
    let cancelled = drain(&mut global);
    assert!(
        cancelled.iter().all(|action| matches!(
            action,
            Action::Send { message, .. } if message.as_tuple().unwrap()[0].is_atom("cancel_connect")
        )) && !cancelled.is_empty(),
        "{cancelled:?}"
    );
    let due = global.poll_timeout().unwrap();
    global.handle_timeout(due);
    assert_eq!(drain(&mut global).len(), 1);
}

#[test]
fn locks_are_re_entrant_and_go_with_their_owners() {
    let mut global = global();
    let (one, two) = (pid("a@h", 1), pid("b@h", 2));
    assert_eq!(call(&mut global, &one, lock("req")), Some(Term::from(true)));
    assert_eq!(call(&mut global, &two, lock("other")), Some(Term::from(false)));
    assert_eq!(call(&mut global, &two, lock("req")), Some(Term::from(true)));
    let down: Vec<MonitorId> = global.monitors.keys().copied().collect();
    assert_eq!(down.len(), 2);
    global.handle(Mono::ZERO, Event::Down(down[0]));
    assert_eq!(call(&mut global, &one, lock("other")), Some(Term::from(false)), "one owner is left");
    global.handle(Mono::ZERO, Event::Down(down[1]));
    assert_eq!(call(&mut global, &one, lock("other")), Some(Term::from(true)));
}

/// The last message of a peer that has gone since must not have it dialled; what a name stands for may be on a node that is
/// not connected yet.
#[test]
fn whoever_asks_for_a_lock_is_not_connected_for_it() {
    let mut global = global();
    let from = pid("a@h", 1);
    let call = tuple_of([atom("$gen_call"), tuple_of([Term::Pid(from), atom("tag")]), lock("req")]);
    tell(&mut global, call);
    global.watch(&pid("b@h", 2), Watched::Name(Key(atom("name"))));
    let connects: Vec<bool> = drain(&mut global)
        .into_iter()
        .filter_map(|action| match action {
            Action::Monitor { connect, .. } => Some(connect),
            _ => None,
        })
        .collect();
    assert_eq!(connects, [false, true]);
}

/// A node that never answers keeps nobody waiting for ever, and gets no lock that nobody would take away.
#[test]
fn a_silent_node_counts_as_refusing() {
    let mut global = global();
    global.handle(Mono::ZERO, Event::NodeUp(node("silent@h")));
    drain(&mut global);
    let what = Command::SetLock {
        resource: atom("resource"),
        requester: atom("req"),
        owner: pid("m@h", 5),
        nodes: None,
        retries: Some(0),
    };
    global.handle(Mono::ZERO, Event::Command { command: 1, what });
    assert_eq!(drain(&mut global).len(), 1, "the call");
    global.handle_timeout(Mono::ZERO + CALL_TIMEOUT);
    let actions = drain(&mut global);
    assert!(actions.contains(&Action::Done { command: 1, result: false }), "{actions:?}");
    assert!(actions.iter().any(|action| format!("{action:?}").contains("del_lock")), "{actions:?}");
    assert!(global.locks.is_empty() && global.calls.is_empty());
}

#[test]
fn nothing_that_a_peer_sends_stops_it() {
    let mut global = global();
    global.handle(Mono::ZERO, Event::NodeUp(node("peer@h")));
    let bad = [
        atom("x"),
        Term::Float(1.0),
        tuple_of([]),
        tuple_of([atom("$gen_call"), atom("x"), atom("y")]),
        tuple_of([atom("$gen_call"), tuple_of([Term::Pid(pid("peer@h", 1)), atom("t")]), list_of([])]),
        cast(atom("x")),
        cast(tuple_of([atom("init_connect"), atom("x"), atom("y"), atom("z")])),
        cast(tuple_of([
            atom("exchange"),
            atom("peer@h"),
            list_of([atom("x")]),
            list_of([]),
            Term::Integer(1),
        ])),
        cast(tuple_of([
            atom("new_nodes"),
            atom("peer@h"),
            list_of([]),
            list_of([]),
            list_of([Term::Integer(1)]),
            list_of([]),
        ])),
        tuple_of([atom("lost_connection"), atom("a"), atom("b"), atom("c"), atom("d")]),
        tuple_of([atom("remove_connection"), Term::Integer(1)]),
        tuple_of([atom("lock_set"), atom("x"), atom("true"), list_of([])]),
    ];
    let count = bad.len() as u64;
    for message in bad {
        tell(&mut global, message);
    }
    assert_eq!(global.ignored(), count);
    // Answers that nobody waits for are none of those.
    tell(&mut global, tuple_of([Term::Integer(12), atom("true")]));
    assert_eq!(global.ignored(), count);
}
