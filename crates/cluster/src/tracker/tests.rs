use foundation_proto::Mono;
use foundation_proto::etf::Map;

use super::*;
use crate::Machine;

fn atom(name: &'static str) -> Atom {
    Atom::new_static(name)
}

fn pid(node: &'static str, id: u32) -> Pid {
    Pid { node: atom(node), id, serial: 0, creation: 4 }
}

fn meta() -> Term {
    Term::Map([(Term::Atom(atom("name")), Term::from("x"))].into_iter().collect::<Map>())
}

fn shard(node: &'static str, vsn: i64) -> Shard {
    Shard::new(atom(node), vsn, Config::default(), Mono::ZERO)
}

/// Runs what is due until `until`, and carries messages between two shards until both rest.
fn run(shards: &mut [&mut Shard; 2], until: Mono) -> usize {
    let mut carried = 0;
    loop {
        let mut quiet = true;
        for at in 0..2 {
            if let Some(due) = shards[at].poll_timeout().filter(|due| *due <= until) {
                shards[at].handle_timeout(due);
                quiet = false;
            }
            while let Some(action) = shards[at].poll_action() {
                if let Action::Broadcast(message) | Action::Direct { message, .. } = action {
                    carried += 1;
                    quiet = false;
                    shards[1 - at].handle(until, Event::Message(message));
                }
            }
        }
        if quiet {
            return carried;
        }
    }
}

#[test]
fn names_are_those_of_phoenix() {
    let shard = shard_name(&atom("Elixir.Trk"), 0).unwrap();
    assert_eq!(pubsub_topic(&shard), "phx_presence:Elixir.Trk_shard0");
    // From Elixir: :erlang.phash2("lobby", 8).
    assert_eq!(shard_of("lobby", 8), 5);
    assert_eq!(shard_of("lobby", 0), 0);
}

#[test]
fn a_presence_is_tracked_updated_and_ended() {
    let mut a = shard("a@h", 1);
    let me = pid("a@h", 1);
    a.track(Mono::ZERO, &me, "room", Term::from("k"), meta(), "r1").unwrap();
    assert_eq!(
        a.track(Mono::ZERO, &me, "room", Term::from("k"), meta(), "r2"),
        Err(TrackError::AlreadyTracked)
    );
    assert_eq!(
        a.update(Mono::ZERO, &me, "room", Term::from("other"), meta(), "r2"),
        Err(TrackError::NoPresence)
    );
    assert_eq!(
        a.track(Mono::ZERO, &me, "room", Term::from("l"), Term::Integer(1), "r"),
        Err(TrackError::NotAMap)
    );
    assert_eq!(
        a.track(Mono::ZERO, &pid("b@h", 1), "room", Term::from("k"), meta(), "r"),
        Err(TrackError::NotLocal)
    );
    a.update(Mono::ZERO, &me, "room", Term::from("k"), meta(), "r2").unwrap();
    let [presence] = a.list("room").try_into().unwrap();
    let map = presence.meta.as_map().unwrap();
    assert_eq!(
        (map.get_atom("phx_ref"), map.get_atom("phx_ref_prev")),
        (Some(&Term::from("r2")), Some(&Term::from("r1")))
    );
    a.handle(Mono::ZERO, Event::Down(me));
    assert!(a.is_empty());
}

#[test]
fn deltas_and_transfers_bring_the_same() {
    let (mut a, mut b) = (shard("a@h", 1), shard("b@h", 1));
    let me = pid("a@h", 1);
    // b has not been heard of: its first heartbeat says that it lives, then a's clocks are ahead.
    a.track(Mono::ZERO, &me, "room", Term::from("early"), meta(), "r1").unwrap();
    let late = Mono::ZERO + Duration::from_secs(10);
    run(&mut [&mut a, &mut b], late);
    assert_eq!(b.list("room").len(), 1);
    a.track(late, &me, "room", Term::from("late"), meta(), "r2").unwrap();
    run(&mut [&mut a, &mut b], late + Duration::from_millis(20));
    assert_eq!(b.list("room"), a.list("room"), "a change does not wait for the next beat");
    a.update(late, &me, "room", Term::from("late"), meta(), "r3").unwrap();
    a.untrack(late, &me, "room", Term::from("early"));
    run(&mut [&mut a, &mut b], late + Duration::from_secs(1));
    assert_eq!((b.list("room"), b.len()), (a.list("room"), 1));
    assert_eq!(b.get_by_key("room", &Term::from("late")).len(), 1);
    assert_eq!((a.ignored(), b.ignored()), (0, 0));
    // Whoever comes later gets it by transfer alone.
    let mut c = shard("c@h", 1);
    run(&mut [&mut a, &mut c], late + Duration::from_secs(40));
    assert_eq!(c.list("room"), a.list("room"));
}

#[test]
fn silence_hides_and_a_new_run_replaces() {
    let (mut a, mut b) = (shard("a@h", 1), shard("b@h", 1));
    a.track(Mono::ZERO, &pid("a@h", 1), "room", Term::from("k"), meta(), "r").unwrap();
    let mut now = Mono::ZERO + Duration::from_secs(5);
    run(&mut [&mut a, &mut b], now);
    assert_eq!(b.list("room").len(), 1);
    now = now + Duration::from_secs(40);
    b.handle_timeout(now);
    assert_eq!((b.list("room").len(), b.len()), (0, 1), "down: kept, not listed");
    let mut again = shard("a@h", 2);
    again.track(now, &pid("a@h", 7), "room", Term::from("new"), meta(), "r").unwrap();
    run(&mut [&mut again, &mut b], now + Duration::from_secs(5));
    assert_eq!((b.list("room"), b.len()), (again.list("room"), 1));
    b.handle_timeout(now + Duration::from_secs(1_300));
    assert_eq!(b.len(), 0, "down for good");
}

#[test]
fn nothing_that_a_peer_sends_stops_it() {
    let mut a = shard("a@h", 1);
    for message in [
        Term::Integer(1),
        Term::tuple([]),
        Term::tuple([Term::atom("pub"), Term::atom("heartbeat")]),
        Term::tuple([Term::atom("pub"), Term::atom("graceful_permdown"), Term::Integer(1)]),
        Term::tuple([
            Term::atom("pub"),
            Term::atom("transfer_req"),
            Term::Integer(1),
            Term::Integer(2),
            Term::Integer(3),
        ]),
    ] {
        a.handle(Mono::ZERO, Event::Message(message));
    }
    assert_eq!(a.ignored(), 5);
}
