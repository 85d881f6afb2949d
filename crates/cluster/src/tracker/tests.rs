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

/// What a tracker of phoenix_pubsub 2.2.0 on OTP 25 with Elixir 1.14 broadcast: nothing yet; a presence; its update; silence; its end.
const PHOENIX: [&str; 5] = [
    "836805640003707562640009686561727462656174680264000e676f6c64403132372e302e302e316e070017718a4cd160066400\
     05656d7074796802680264000e676f6c64403132372e302e302e316e070017718a4cd160067400000001680264000e676f6c6440\
     3132372e302e302e316e070017718a4cd160066100",
    "836805640003707562640009686561727462656174680264000e676f6c64403132372e302e302e316e070017718a4cd160067400\
     00000a64000a5f5f7374727563745f5f64001c456c697869722e50686f656e69782e547261636b65722e5374617465640006636c\
     6f7564737400000001680264000e676f6c64403132372e302e302e316e070017718a4cd16006740000000364000a5f5f73747275\
     63745f5f64000d456c697869722e4d61705365746400036d617074000000016802680264000e676f6c64403132372e302e302e31\
     6e070017718a4cd1600661016a64000776657273696f6e6102640007636f6e74657874740000000064000564656c746164000575\
     6e7365746400046d6f646564000564656c7461640004706964736400036e696c64000572616e676568027400000001680264000e\
     676f6c64403132372e302e302e316e070017718a4cd1600661007400000001680264000e676f6c64403132372e302e302e316e07\
     0017718a4cd1600661016400077265706c696361680264000e676f6c64403132372e302e302e316e070017718a4cd16006640008\
     7265706c69636173740000000064000676616c75657374000000016802680264000e676f6c64403132372e302e302e316e070017\
     718a4cd16006610168045864000e676f6c64403132372e302e302e3100000076000000006b0222146d00000006726f6f6d3a316d\
     000000016274000000026400046e616d656d000000046265616d6400077068785f7265666d00000010474f6f786b76344d314f50\
     52657742426802680264000e676f6c64403132372e302e302e316e070017718a4cd160067400000001680264000e676f6c644031\
     32372e302e302e316e070017718a4cd160066101",
    "836805640003707562640009686561727462656174680264000e676f6c64403132372e302e302e316e070017718a4cd160067400\
     00000a64000a5f5f7374727563745f5f64001c456c697869722e50686f656e69782e547261636b65722e5374617465640006636c\
     6f7564737400000001680264000e676f6c64403132372e302e302e316e070017718a4cd16006740000000364000a5f5f73747275\
     63745f5f64000d456c697869722e4d61705365746400036d617074000000036802680264000e676f6c64403132372e302e302e31\
     6e070017718a4cd1600661016a6802680264000e676f6c64403132372e302e302e316e070017718a4cd1600661026a6802680264\
     000e676f6c64403132372e302e302e316e070017718a4cd1600661036a64000776657273696f6e6102640007636f6e7465787474\
     0000000064000564656c7461640005756e7365746400046d6f646564000564656c7461640004706964736400036e696c64000572\
     616e676568027400000001680264000e676f6c64403132372e302e302e316e070017718a4cd1600661017400000001680264000e\
     676f6c64403132372e302e302e316e070017718a4cd1600661036400077265706c696361680264000e676f6c64403132372e302e\
     302e316e070017718a4cd160066400087265706c69636173740000000064000676616c75657374000000016802680264000e676f\
     6c64403132372e302e302e316e070017718a4cd16006610368045864000e676f6c64403132372e302e302e310000007600000000\
     6b0222146d00000006726f6f6d3a316d000000016274000000036400046e616d656d00000004627573796400077068785f726566\
     6d00000010474f6f786b774658594333526577425264000c7068785f7265665f707265766d00000010474f6f786b76344d314f50\
     52657742426802680264000e676f6c64403132372e302e302e316e070017718a4cd160067400000001680264000e676f6c644031\
     32372e302e302e316e070017718a4cd160066103",
    "836805640003707562640009686561727462656174680264000e676f6c64403132372e302e302e316e070017718a4cd160066400\
     05656d7074796802680264000e676f6c64403132372e302e302e316e070017718a4cd160067400000001680264000e676f6c6440\
     3132372e302e302e316e070017718a4cd160066103",
    "836805640003707562640009686561727462656174680264000e676f6c64403132372e302e302e316e070017718a4cd160067400\
     00000a64000a5f5f7374727563745f5f64001c456c697869722e50686f656e69782e547261636b65722e5374617465640006636c\
     6f7564737400000001680264000e676f6c64403132372e302e302e316e070017718a4cd16006740000000364000a5f5f73747275\
     63745f5f64000d456c697869722e4d61705365746400036d617074000000026802680264000e676f6c64403132372e302e302e31\
     6e070017718a4cd1600661036a6802680264000e676f6c64403132372e302e302e316e070017718a4cd1600661046a6400077665\
     7273696f6e6102640007636f6e74657874740000000064000564656c7461640005756e7365746400046d6f646564000564656c74\
     61640004706964736400036e696c64000572616e676568027400000001680264000e676f6c64403132372e302e302e316e070017\
     718a4cd1600661037400000001680264000e676f6c64403132372e302e302e316e070017718a4cd1600661046400077265706c69\
     6361680264000e676f6c64403132372e302e302e316e070017718a4cd160066400087265706c6963617374000000006400067661\
     6c75657374000000006802680264000e676f6c64403132372e302e302e316e070017718a4cd160067400000001680264000e676f\
     6c64403132372e302e302e316e070017718a4cd160066104",
];

fn phoenix(at: usize) -> Event {
    let hex = PHOENIX[at].as_bytes();
    let bytes: Vec<u8> = hex
        .chunks(2)
        .map(|pair| u8::from_str_radix(core::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect();
    Event::Message(foundation_proto::etf::decode(&bytes, &foundation_proto::Limits::default()).unwrap())
}

#[test]
fn what_phoenix_sends_is_understood() {
    let mut a = shard("a@h", 1);
    let name = |shard: &Shard| -> Vec<Term> {
        let meta = |presence: Presence| presence.meta.as_map().unwrap().get_atom("name").unwrap().clone();
        shard.get_by_key("room:1", &Term::from("b")).into_iter().map(meta).collect()
    };
    let listed = [vec![], vec!["beam"], vec!["busy"], vec!["busy"], vec![]];
    for (at, listed) in listed.into_iter().enumerate() {
        a.handle(Mono::ZERO, phoenix(at));
        assert_eq!(name(&a), listed.into_iter().map(Term::from).collect::<Vec<_>>(), "message {at}");
        assert_eq!(a.ignored(), 0);
    }
}
