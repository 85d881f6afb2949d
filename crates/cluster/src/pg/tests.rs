use super::*;

fn pid(node: &'static str, id: u32) -> Pid {
    Pid { node: Atom::new_static(node), id, serial: 0, creation: 4 }
}

fn scope() -> Scope {
    Scope::new(pid("me@h", 1))
}

fn drain(scope: &mut Scope) -> Vec<Action> {
    std::iter::from_fn(|| scope.poll_action()).collect()
}

fn sends(scope: &mut Scope) -> Vec<(To, Term)> {
    let sends = drain(scope).into_iter().filter_map(|action| match action {
        Action::Send { to, message } => Some((to, message)),
        _ => None,
    });
    sends.collect()
}

fn term(pid: &Pid) -> Term {
    Term::Pid(pid.clone())
}

fn discover(peer: &Pid) -> Event {
    Event::Message(tuple_of([atom("discover"), term(peer)]))
}

/// Order as OTP keeps it: `sync` first, then a `discover` of one's own to a peer that was not known.
#[test]
fn a_discover_is_answered_before_anything_else() {
    let (mut scope, peer, member) = (scope(), pid("peer@h", 9), pid("me@h", 2));
    scope.handle(Mono::ZERO, Event::Join { group: atom("g"), pids: vec![member.clone()] });
    drain(&mut scope);
    scope.handle(Mono::ZERO, discover(&peer));
    let sync = tuple_of([
        atom("sync"),
        term(&pid("me@h", 1)),
        list_of([tuple_of([atom("g"), list_of([term(&member)])])]),
    ]);
    let own = tuple_of([atom("discover"), term(&pid("me@h", 1))]);
    assert_eq!(sends(&mut scope), [(To::Pid(peer.clone()), cast(sync)), (To::Pid(peer.clone()), own)]);
    scope.handle(Mono::ZERO, discover(&peer));
    assert_eq!(sends(&mut scope).len(), 1, "a known peer gets its answer only");
}

/// OTP 23 to 25 stop on the 3-tuple, so it is never sent first, whatever the peer opened with.
#[test]
fn the_version_is_the_one_we_were_addressed_in() {
    let (mut scope, peer, member) = (scope(), pid("peer@h", 9), pid("me@h", 2));
    scope.handle(Mono::ZERO, Event::NodeUp(Atom::new_static("peer@h")));
    let opened = sends(&mut scope);
    assert_eq!(opened, [(To::Scope(peer.node.clone()), tuple_of([atom("discover"), term(&pid("me@h", 1))]))]);
    let version_1 = tuple_of([atom("discover"), term(&peer), Term::Integer(1)]);
    scope.handle(Mono::ZERO, Event::Message(version_1));
    let Some((_, Term::Tuple(answer))) = sends(&mut scope).into_iter().next() else { panic!("no answer") };
    let Some(Term::Tuple(data)) = answer.get(1) else { panic!("no cast") };
    assert_eq!(data.first(), Some(&atom("local_data")));
    scope.handle(Mono::ZERO, Event::Join { group: atom("g"), pids: vec![member.clone()] });
    let update = tuple_of([
        atom("update"),
        term(&pid("me@h", 1)),
        list_of([tuple_of([atom("g"), list_of([term(&member)]), list_of([])])]),
    ]);
    assert_eq!(sends(&mut scope), [(To::Pid(peer), update)]);
}

#[test]
fn a_process_leaves_as_often_as_it_joined_and_dies_once() {
    let (mut scope, peer, member) = (scope(), pid("peer@h", 9), pid("me@h", 2));
    scope.handle(Mono::ZERO, discover(&peer));
    let join = || Event::Join { group: atom("g"), pids: vec![pid("me@h", 2), pid("me@h", 2)] };
    scope.handle(Mono::ZERO, join());
    scope.handle(Mono::ZERO, Event::Join { group: atom("h"), pids: vec![member.clone()] });
    assert_eq!(scope.members(&atom("g")).len(), 2);
    scope.handle(Mono::ZERO, Event::Leave { group: atom("g"), pids: vec![member.clone()] });
    assert_eq!(scope.members(&atom("g")).len(), 1);
    drain(&mut scope);
    let monitor = *scope.local_monitors.get(&member).unwrap();
    scope.handle(Mono::ZERO, Event::Down { monitor, noconnection: false });
    let leave =
        tuple_of([atom("leave"), term(&pid("me@h", 1)), term(&member), list_of([atom("g"), atom("h")])]);
    assert_eq!(sends(&mut scope), [(To::Pid(peer), leave)]);
    assert_eq!(scope.groups().count(), 0);
}

#[test]
fn updates_of_strangers_wait_for_their_sync() {
    let (mut scope, peer, member) = (scope(), pid("peer@h", 9), pid("peer@h", 10));
    let join = tuple_of([atom("join"), term(&peer), atom("g"), term(&member)]);
    scope.handle(Mono::ZERO, Event::Message(join.clone()));
    assert_eq!((scope.members(&atom("g")).len(), scope.ignored()), (0, 1));
    scope.handle(Mono::ZERO, discover(&peer));
    scope.handle(Mono::ZERO, Event::Message(join));
    assert_eq!(scope.members(&atom("g")), [member]);
}

#[test]
fn nothing_that_a_peer_sends_stops_the_scope() {
    let (mut scope, peer) = (scope(), pid("peer@h", 9));
    scope.handle(Mono::ZERO, discover(&peer));
    let stranger = pid("third@h", 3);
    let bad = [
        Term::Integer(1),
        tuple_of([]),
        tuple_of([atom("discover"), Term::Integer(1)]),
        tuple_of([atom("join"), term(&peer), atom("g"), atom("x")]),
        tuple_of([atom("leave"), term(&peer), list_of([term(&peer)]), atom("g")]),
        cast(tuple_of([atom("sync"), term(&peer), list_of([atom("x")])])),
        cast(atom("x")),
    ];
    let count = bad.len() as u64;
    for message in bad {
        scope.handle(Mono::ZERO, Event::Message(message));
    }
    assert_eq!(scope.ignored(), count);
    let foreign = tuple_of([atom("join"), term(&peer), atom("g"), term(&stranger)]);
    scope.handle(Mono::ZERO, Event::Message(foreign));
    assert_eq!(scope.members(&atom("g")), [], "a peer speaks for its own node only");
}

#[test]
fn a_scope_that_is_not_registered_is_looked_for_with_back_off() {
    let mut scope = scope();
    let node = Atom::new_static("peer@h");
    scope.handle(Mono::ZERO, Event::NodeUp(node.clone()));
    let mut now = Mono::ZERO;
    for pause in [RETRY_MIN, RETRY_MIN * 2, RETRY_MIN * 4] {
        let monitor = scope.nodes.get(&node).and_then(|search| search.monitor).unwrap();
        scope.handle(now, Event::Down { monitor, noconnection: false });
        assert_eq!(scope.poll_timeout(), Some(now + pause));
        now = now + pause;
        drain(&mut scope);
        scope.handle_timeout(now);
        assert_eq!(sends(&mut scope).len(), 1);
    }
    scope.handle(now, Event::NodeDown(node));
    assert_eq!(scope.poll_timeout(), None);
    assert!(scope.monitors.is_empty());
}

#[test]
fn a_sync_replaces_all_that_was_known_of_a_peer() {
    let (mut scope, peer) = (scope(), pid("peer@h", 9));
    let members: Vec<Pid> = (10..14).map(|id| pid("peer@h", id)).collect();
    let sync = |groups: &[(&'static str, &[Pid])]| {
        let groups =
            groups.iter().map(|(group, pids)| tuple_of([atom(group), list_of(pids.iter().map(term))]));
        Event::Message(cast(tuple_of([atom("sync"), term(&peer), list_of(groups)])))
    };
    scope.handle(Mono::ZERO, sync(&[("g", &members), ("h", &members[..1])]));
    assert_eq!(scope.members(&atom("g")), members, "in the order of the list");
    drain(&mut scope);
    scope.handle(Mono::ZERO, sync(&[("g", &members[1..3])]));
    assert_eq!(scope.members(&atom("g")), &members[1..3]);
    assert_eq!(scope.members(&atom("h")), []);
    let changes = drain(&mut scope);
    let left = vec![members[0].clone(), members[3].clone()];
    assert!(changes.contains(&Action::Changed { group: atom("g"), joined: Vec::new(), left }), "{changes:?}");
}
