//! How much two members say to each other while one of them writes: what is sent depends on nothing but time, so it can be counted.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use foundation_proto::Mono;
use foundation_proto::etf::{Atom, Pid, Term, encoded_len};

use super::super::{Action, CausalCrdt, Config, Event};
use super::delta_crdt::DeltaCrdt;
use super::pid;
use crate::registry::{Address, Change};
use crate::{Key, Machine};

/// From one member to the other.
const LATENCY: Duration = Duration::from_millis(1);

type Member = Box<dyn Machine<Event = Event, Action = Action>>;

/// Two members whose connection holds.
struct Pair {
    now: Mono,
    members: [Member; 2],
    /// What is on its way, in the order of its arrival: when, and to whom.
    way: VecDeque<(Mono, usize, Term)>,
    /// Messages and bytes by sender and kind.
    sent: BTreeMap<(usize, String), (usize, usize)>,
    /// When each name was written.
    written: BTreeMap<Key, Mono>,
    /// The longest time until the other member had a name, by writer.
    lag: [Duration; 2],
}

fn node(at: usize) -> Atom {
    Atom::new(&format!("n{at}@h")).unwrap()
}

fn process(at: usize) -> Pid {
    pid(node(at).as_str(), 1)
}

impl Pair {
    fn new(members: [Member; 2]) -> Self {
        let (now, way, sent) = (Mono::ZERO, VecDeque::new(), BTreeMap::new());
        let mut pair = Self { now, members, way, sent, written: BTreeMap::new(), lag: Default::default() };
        for at in 0..2 {
            let named = |at| Address::Name { name: Atom::new_static("map"), node: node(at) };
            let neighbours = vec![named(0), named(1)];
            pair.event(at, Event::SetNeighbours(neighbours));
        }
        pair
    }

    fn event(&mut self, at: usize, event: Event) {
        self.members[at].handle(self.now, event);
        self.carry_out(at);
    }

    fn carry_out(&mut self, at: usize) {
        while let Some(action) = self.members[at].poll_action() {
            let (to, message) = match action {
                Action::Send { to, message } => (to, message),
                Action::Changed(changes) => {
                    for change in changes {
                        let Change::Put(key, _) = change else { panic!("{change:?}") };
                        let written = *self.written.entry(key).or_insert(self.now);
                        self.lag[1 - at] = self.lag[1 - at].max(self.now.saturating_since(written));
                    }
                    continue;
                }
                _ => continue,
            };
            assert_eq!(to.len(), 1);
            let what = format!("{:?}", message.as_tuple().unwrap()[0]);
            let what = format!("{what}/{}", message.as_tuple().unwrap().len());
            let (count, bytes) = self.sent.entry((at, what)).or_default();
            *count += 1;
            *bytes += encoded_len(&message).unwrap();
            self.way.push_back((self.now + LATENCY, 1 - at, message));
        }
    }

    /// Lets time pass.
    fn rest(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let arrives = self.way.front().map(|(at, ..)| *at);
            let wakes = (0..2).filter_map(|at| Some((self.members[at].poll_timeout()?, at))).min();
            match (arrives, wakes) {
                (Some(at), wakes) if at <= end && wakes.is_none_or(|(wakes, _)| at <= wakes) => {
                    let (at, to, message) = self.way.pop_front().unwrap();
                    self.now = at;
                    self.event(to, super::message(message));
                }
                (_, Some((wakes, at))) if wakes <= end => {
                    self.now = self.now.max(wakes);
                    self.members[at].handle_timeout(self.now);
                    self.carry_out(at);
                }
                _ => break,
            }
        }
        self.now = end;
    }

    fn put(&mut self, at: usize, name: usize) {
        let (key, value) = entry(at, name);
        self.event(at, Event::Put { key, value });
    }

    /// A member writes so many names, one every 10 ms; gives the bytes of both directions for each.
    fn write(&mut self, at: usize, first: usize, names: usize) -> usize {
        self.sent.clear();
        for name in first..first + names {
            self.put(at, name);
            self.rest(Duration::from_millis(10));
        }
        self.rest(Duration::from_secs(1));
        for ((at, what), (count, bytes)) in &self.sent {
            println!("{at} {what}: {count} of {} bytes", bytes / count);
        }
        self.sent.values().map(|(_, bytes)| bytes).sum::<usize>() / names
    }
}

/// What Horde.Registry keeps of a name.
fn entry(at: usize, name: usize) -> (Key, Term) {
    let process = Term::Pid(Pid { id: name as u32, ..process(at) });
    let name = Term::Binary(format!("name-{name}").into_bytes().into());
    let member = Term::tuple([super::atom("names"), Term::Atom(node(at))]);
    (Key(Term::tuple([super::atom("key"), name])), Term::tuple([member, process, super::atom("nil")]))
}

fn ours(at: usize) -> Member {
    Box::new(CausalCrdt::new(process(at), Config::new(10 + at as i64)))
}

fn theirs(at: usize) -> Member {
    Box::new(DeltaCrdt::new(process(at), 10 + at as i64))
}

/// Two members that hold 10,000 names.
fn pair(members: [Member; 2]) -> Pair {
    let mut pair = Pair::new(members);
    for name in 0..10_000 {
        pair.put(0, name);
    }
    pair.rest(Duration::from_secs(5));
    pair
}

/// Bytes of both directions for each of 200 names that the first member writes beside 10,000.
fn bytes_of_a_name(what: &str, members: [Member; 2]) -> usize {
    let bytes = pair(members).write(0, 10_000, 200);
    println!("{what}: {bytes} bytes a name");
    bytes
}

#[test]
fn writes_beside_many_names_cost_a_fraction_of_what_delta_crdts_say_among_themselves() {
    let among_themselves = bytes_of_a_name("DeltaCrdt to DeltaCrdt", [theirs(0), theirs(1)]);
    let from_theirs = bytes_of_a_name("DeltaCrdt to ours", [theirs(0), ours(1)]);
    let to_theirs = bytes_of_a_name("ours to DeltaCrdt", [ours(0), theirs(1)]);
    let among_ours = bytes_of_a_name("ours to ours", [ours(0), ours(1)]);
    // What a DeltaCrdt writes comes at its beat, with a comparison each time; what is written here is pushed.
    assert!(from_theirs * 5 < among_themselves, "{from_theirs} beside {among_themselves}");
    assert!(to_theirs * 25 < among_themselves, "{to_theirs} beside {among_themselves}");
    assert!(among_ours * 50 < among_themselves, "{among_ours} beside {among_themselves}");
}

#[test]
fn a_comparison_of_which_nothing_comes_delays_no_other() {
    let mut pair = pair([theirs(0), ours(1)]);
    // What is pushed while the DeltaCrdt starts to compare differs at first, and no more when the answer is there.
    let beat = pair.members[0].poll_timeout().unwrap();
    pair.rest(beat.saturating_since(pair.now).saturating_sub(LATENCY / 2));
    pair.put(1, 10_000);
    pair.sent.clear();
    pair.rest(LATENCY * 8);
    let answered = pair.sent.keys().any(|(at, what)| *at == 1 && what.ends_with("/2"));
    assert!(answered && !pair.sent.contains_key(&(0, "diff/3".to_owned())), "{:?}", pair.sent);
    pair.lag = Default::default();
    pair.put(0, 10_001);
    pair.rest(Duration::from_secs(3));
    let [theirs, _] = pair.lag;
    assert!(theirs > Duration::ZERO && theirs < Duration::from_millis(310), "{theirs:?}");
}
