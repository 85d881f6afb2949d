//! The machine by hand, and in the simulator.

mod beam;
mod node;
mod simulation;

use super::*;

fn pid(node: &str, id: u32) -> Pid {
    Pid { node: Atom::new(node).unwrap(), id, serial: 0, creation: 4 }
}

fn member(node: &str) -> Member {
    Member { name: Atom::new_static("Elixir.Reg"), node: Atom::new(node).unwrap() }
}

fn registry() -> HordeRegistry {
    let mut registry = HordeRegistry::new(Atom::new_static("Elixir.Reg"), pid("rust@h", 1));
    registry.handle(Event::SetMembers(vec![member("beam@h")]));
    actions(&mut registry);
    registry
}

/// What is to be done, besides telling readers what is found.
fn actions(registry: &mut HordeRegistry) -> Vec<Action> {
    let actions = std::iter::from_fn(|| registry.poll_action());
    actions.filter(|action| !matches!(action, Action::Found(_))).collect()
}

fn register(registry: &mut HordeRegistry, name: i64, id: u32) {
    let event = Event::Register { name: Term::Integer(name), value: atom("v"), pid: pid("rust@h", id) };
    registry.handle(event);
}

/// What the map says of a name.
fn entry_of(node: &str, id: u32) -> Term {
    tuple_of([member(node).to_term(), Term::Pid(pid(node, id)), atom("v")])
}

/// A name of this node is removed from the map, if it is that process's still.
fn taken(n: i64, id: u32) -> Action {
    Action::RemoveValue(name(n), entry_of("rust@h", id))
}

fn name(n: i64) -> Key {
    entry(&Key(Term::Integer(n)))
}

#[test]
fn a_registry_joins_with_all_members_and_finds_what_they_register() {
    let mut registry = HordeRegistry::new(Atom::new_static("Elixir.Reg"), pid("rust@h", 1));
    registry.handle(Event::SetMembers(vec![member("beam@h")]));
    let map = Address::Name { name: Atom::new_static("Elixir.Reg.Crdt"), node: Atom::new_static("beam@h") };
    assert_eq!(
        actions(&mut registry),
        [
            Action::Put(member("rust@h").key(), Term::Integer(1)),
            Action::Put(member("beam@h").key(), Term::Integer(1)),
            Action::Put(member("rust@h").key(), Term::Integer(1)),
            Action::SetNeighbours(vec![map.clone()]),
        ]
    );
    registry.handle(Event::Changed(Change::Put(name(1), entry_of("beam@h", 7))));
    registry.handle(Event::Changed(Change::Put(name(2), entry_of("stranger@h", 7))));
    assert_eq!(registry.lookup(&Term::Integer(1)).unwrap().pid, pid("beam@h", 7));
    assert_eq!(registry.lookup(&Term::Integer(2)), None, "its node is no member");
    assert_eq!(registry.keys(&pid("beam@h", 7)).count(), 1);
    assert_eq!(actions(&mut registry), [], "processes elsewhere are not monitored");
    registry.handle(Event::Changed(Change::Removed(member("beam@h").key())));
    assert_eq!(registry.lookup(&Term::Integer(1)), None);
    assert_eq!(
        actions(&mut registry),
        [Action::RemoveValue(name(1), entry_of("beam@h", 7)), Action::SetNeighbours(vec![map])],
        "it was named here, and may come back where nobody else tells of it"
    );
}

#[test]
fn a_name_is_found_at_once_and_ends_with_its_process() {
    let mut registry = registry();
    register(&mut registry, 1, 5);
    register(&mut registry, 2, 5);
    assert_eq!(registry.lookup(&Term::Integer(1)).unwrap().value, atom("v"));
    let told = actions(&mut registry);
    assert_eq!(told.iter().filter(|action| matches!(action, Action::Monitor(_))).count(), 1);
    registry.handle(Event::Changed(Change::Put(name(1), entry_of("rust@h", 5))));
    assert_eq!(actions(&mut registry), [], "the echo of a write of this member");
    registry.handle(Event::Down(pid("rust@h", 5)));
    assert_eq!(registry.lookup(&Term::Integer(1)), None);
    assert_eq!(actions(&mut registry), [taken(1, 5), taken(2, 5)]);
}

#[test]
fn whoever_loses_a_name_is_told_why() {
    let mut registry = registry();
    register(&mut registry, 1, 5);
    actions(&mut registry);
    registry.handle(Event::Changed(Change::Put(name(1), entry_of("beam@h", 7))));
    assert_eq!(
        actions(&mut registry),
        [conflict(1, 5, pid("beam@h", 7)), Action::Demonitor(pid("rust@h", 5))]
    );
    assert_eq!(registry.lookup(&Term::Integer(1)).unwrap().pid, pid("beam@h", 7));
}

fn record(node: &str) -> Key {
    member(node).key()
}

fn removed(key: Key) -> Event {
    Event::Changed(Change::Removed(key))
}

fn put(n: i64, node: &str, id: u32) -> Event {
    Event::Changed(Change::Put(name(n), entry_of(node, id)))
}

fn ask(registry: &mut HordeRegistry, request: Term) -> Vec<Action> {
    let from = Term::tuple([Term::Pid(pid("beam@h", 3)), Term::Integer(1)]);
    registry.handle(Event::Call { from, request });
    actions(registry)
}

fn conflict(n: i64, loser: u32, winner: Pid) -> Action {
    let lost = tuple_of([Term::Integer(n), atom("v")]);
    let reason = tuple_of([atom("name_conflict"), lost, atom("Elixir.Reg"), Term::Pid(winner)]);
    Action::Exit { to: pid("rust@h", loser), reason }
}

#[test]
fn a_node_that_was_thought_to_be_gone_comes_back_with_its_names() {
    let mut registry = registry();
    register(&mut registry, 1, 5);
    actions(&mut registry);
    registry.handle(removed(record("rust@h")));
    registry.handle(removed(name(1)));
    assert_eq!(
        actions(&mut registry),
        [Action::Put(record("rust@h"), Term::Integer(1)), Action::Put(name(1), entry_of("rust@h", 5))]
    );
    for event in [Event::Missing(vec![record("rust@h")]), Event::NodeUp(Atom::new_static("beam@h"))] {
        registry.handle(event);
        assert_eq!(actions(&mut registry), [Action::Put(record("rust@h"), Term::Integer(1))]);
    }
}

/// It may have taken this member out while it was none here: nobody has told.
#[test]
fn whoever_is_told_of_a_new_member_puts_itself_back() {
    let mut registry = registry();
    registry.handle(Event::SetMembers(Vec::new()));
    actions(&mut registry);
    registry.handle(Event::SetMembers(vec![member("beam@h")]));
    let joins = Action::Put(record("rust@h"), Term::Integer(1));
    assert!(actions(&mut registry).contains(&joins));
    registry.handle(Event::SetMembers(vec![member("beam@h")]));
    assert!(!actions(&mut registry).contains(&joins));
}

/// Whatever of this member a neighbour has lost, it has lost its record, too; another may have written that.
#[test]
fn whoever_lacks_a_name_of_this_member_has_taken_it_out() {
    let mut registry = registry();
    register(&mut registry, 1, 5);
    registry.handle(put(2, "beam@h", 7));
    actions(&mut registry);
    registry.handle(Event::Missing(vec![name(2), record("beam@h")]));
    assert_eq!(actions(&mut registry), []);
    let joins = [Action::Put(record("rust@h"), Term::Integer(1))];
    registry.handle(Event::Missing(vec![name(1)]));
    assert_eq!(actions(&mut registry), joins);
    registry.handle(Event::Changed(Change::Put(record("rust@h"), Term::Integer(1))));
    assert_eq!(actions(&mut registry), joins);
}

/// Two BEAMs that lose each other take each other out, and a hidden node with them.
#[test]
fn a_member_that_was_named_here_is_compared_with_while_it_is_out() {
    let mut registry = registry();
    registry.handle(Event::Changed(Change::Put(record("other@h"), Term::Integer(1))));
    actions(&mut registry);
    registry.handle(removed(record("beam@h")));
    registry.handle(removed(record("other@h")));
    let neighbours = |told: &[Action]| match told {
        [.., Action::SetNeighbours(neighbours)] => neighbours.clone(),
        _ => panic!("{told:?}"),
    };
    assert_eq!(neighbours(&actions(&mut registry)), Vec::from_iter(member("beam@h").map()));
    registry.handle(Event::NodeUp(Atom::new_static("beam@h")));
    assert_eq!(actions(&mut registry), [Action::Put(record("rust@h"), Term::Integer(1))]);
    registry.handle(Event::SetMembers(Vec::new()));
    assert_eq!(neighbours(&actions(&mut registry)), []);
}

/// `Horde.Cluster.set_members/2` that asks this member of all.
#[test]
fn set_members_without_this_member_leaves_it_in() {
    let mut registry = registry();
    register(&mut registry, 1, 5);
    actions(&mut registry);
    let told = ask(&mut registry, tuple_of([atom("set_members"), list_of([member("other@h").to_term()])]));
    assert!(
        told.contains(&Action::Remove(record("beam@h"))) && !told.contains(&Action::Remove(record("rust@h")))
    );
    assert!(registry.lookup(&Term::Integer(1)).is_some());
}

#[test]
fn a_member_that_leaves_takes_its_names_along_and_stays_away() {
    let mut registry = registry();
    register(&mut registry, 1, 5);
    registry.handle(put(2, "beam@h", 7));
    actions(&mut registry);
    registry.handle(Event::Leave);
    let told = actions(&mut registry);
    assert!(told.contains(&Action::Remove(record("rust@h"))) && told.contains(&taken(1, 5)));
    assert!(registry.lookup(&Term::Integer(2)).is_some(), "the names of others are found as before");
    let request = tuple_of([atom("register"), Term::Integer(1), atom("v"), Term::Pid(pid("beam@h", 8))]);
    let [Action::Reply { reply, .. }] = &ask(&mut registry, request)[..] else { panic!() };
    assert_eq!(*reply, tuple_of([atom("error"), atom("not_member")]));
    // Whoever has not heard of it yet puts nothing back.
    registry.handle(Event::NodeUp(Atom::new_static("beam@h")));
    registry.handle(Event::Changed(Change::Put(record("rust@h"), Term::Integer(1))));
    registry.handle(put(1, "rust@h", 5));
    assert_eq!(actions(&mut registry), [Action::Remove(record("rust@h")), taken(1, 5)]);
    registry.handle(Event::SetMembers(vec![member("beam@h")]));
    assert!(registry.is_member());
    assert_eq!(actions(&mut registry)[0], Action::Put(record("rust@h"), Term::Integer(1)));
}

/// The entry of a loser comes to light again when the winner's is removed by somebody who has not seen it.
#[test]
fn what_the_map_says_of_own_entries_counts() {
    let mut registry = registry();
    register(&mut registry, 1, 5);
    registry.handle(put(1, "beam@h", 7));
    actions(&mut registry);
    registry.handle(put(1, "rust@h", 5));
    assert_eq!(registry.lookup(&Term::Integer(1)).unwrap().pid, pid("rust@h", 5));
    assert_eq!(actions(&mut registry), [Action::Monitor(pid("rust@h", 5))], "which may have ended since");
    registry.handle(Event::Down(pid("rust@h", 5)));
    assert_eq!(actions(&mut registry), [taken(1, 5)]);
    // And of two processes of this node.
    register(&mut registry, 2, 5);
    actions(&mut registry);
    registry.handle(put(2, "rust@h", 6));
    assert!(actions(&mut registry).contains(&conflict(2, 5, pid("rust@h", 6))));
}

#[test]
fn what_an_earlier_incarnation_had_is_over() {
    let mut registry = registry();
    register(&mut registry, 1, 5);
    actions(&mut registry);
    let old = |n| {
        let entry = tuple_of([
            member("rust@h").to_term(),
            Term::Pid(Pid { creation: 3, ..pid("rust@h", 9) }),
            atom("v"),
        ]);
        Event::Changed(Change::Put(name(n), entry))
    };
    registry.handle(old(2));
    assert!(matches!(&actions(&mut registry)[..], [Action::RemoveValue(key, _)] if *key == name(2)));
    registry.handle(old(1));
    assert_eq!(actions(&mut registry), [Action::Put(name(1), entry_of("rust@h", 5))]);
}

#[test]
fn a_name_that_the_map_has_no_room_for_is_not_registered() {
    let mut registry = registry();
    register(&mut registry, 1, 5);
    actions(&mut registry);
    registry.handle(Event::Refused(name(1)));
    assert_eq!((registry.lookup(&Term::Integer(1)), registry.count(|_, _| true)), (None, 0));
}

/// Whoever has missed changes looks at these again.
#[test]
fn all_that_came_from_the_map_is_known_by_its_key() {
    let mut registry = registry();
    registry.handle(put(1, "beam@h", 7));
    let color = tuple_of([atom("registry"), atom("color")]);
    registry.handle(Event::Changed(Change::Put(Key(color.clone()), atom("red"))));
    let known = registry.known();
    assert_eq!(known, [name(1), record("beam@h"), record("rust@h"), Key(color)]);
    let gone = known.into_iter().filter(|key| *key != record("rust@h"));
    gone.for_each(|key| registry.handle(removed(key)));
    assert_eq!((registry.known(), registry.meta(&atom("color"))), (vec![record("rust@h")], None));
}

#[test]
fn names_of_nodes_that_are_not_reached_are_free() {
    let mut registry = registry();
    register(&mut registry, 1, 5);
    registry.handle(put(2, "beam@h", 7));
    registry.handle(put(3, "beam@h", 7));
    registry.handle(put(4, "stranger@h", 7));
    let found = |registry: &HordeRegistry, gone: &str| {
        let reached = |node: &Atom, creation| creation == 4 && *node != gone;
        let names = registry.names(reached).count();
        assert_eq!(names, registry.count(reached));
        names
    };
    assert_eq!((found(&registry, "nobody"), found(&registry, "beam@h")), (3, 1));
    register(&mut registry, 2, 5);
    assert_eq!((found(&registry, "nobody"), found(&registry, "beam@h")), (3, 2));
    registry.handle(removed(record("beam@h")));
    assert_eq!(found(&registry, "nobody"), 2);
}

#[test]
fn callers_register_as_with_horde() {
    let mut registry = registry();
    let reply = |registry: &mut HordeRegistry, request: Term| {
        ask(registry, request).into_iter().find_map(|action| match action {
            Action::Reply { reply, .. } => Some(reply),
            _ => None,
        })
    };
    let (name, worker) = (Term::Integer(1), Term::Pid(pid("beam@h", 8)));
    let request = tuple_of([atom("register"), name.clone(), atom("v"), worker.clone()]);
    assert_eq!(reply(&mut registry, request), Some(tuple_of([atom("ok"), Term::Pid(pid("rust@h", 1))])));
    assert_eq!(reply(&mut registry, tuple_of([atom("put_meta"), atom("k"), atom("v")])), Some(atom("ok")));
    assert_eq!(reply(&mut registry, atom("members")).unwrap().as_list().unwrap().len(), 2);
    assert_eq!(reply(&mut registry, tuple_of([atom("unregister"), name, worker])), Some(atom("ok")));
    assert_eq!(reply(&mut registry, atom("nonsense")), Some(tuple_of([atom("error"), atom("badarg")])));
    assert_eq!((registry.names(|_, _| true).count(), registry.meta(&atom("k"))), (0, Some(&atom("v"))));
    // A name that is taken goes over, and the loser is told.
    register(&mut registry, 2, 5);
    let request = tuple_of([atom("register"), Term::Integer(2), atom("v"), Term::Pid(pid("beam@h", 8))]);
    assert!(ask(&mut registry, request).contains(&conflict(2, 5, pid("beam@h", 8))));
}

/// Readers keep a copy of what is found.
#[test]
fn replaying_what_is_told_of_names_gives_what_is_found() {
    let mut registry = registry();
    let mut copy: BTreeMap<Arc<Key>, Arc<Registration>> = BTreeMap::new();
    let joins = |node| Event::Changed(Change::Put(member(node).key(), Term::Integer(1)));
    let leaves = |node| Event::Changed(Change::Removed(member(node).key()));
    let register =
        |n, id| Event::Register { name: Term::Integer(n), value: atom("v"), pid: pid("rust@h", id) };
    let events = [
        register(1, 5),
        put(2, "beam@h", 7),
        put(3, "stranger@h", 8),
        put(1, "beam@h", 7),
        joins("stranger@h"),
        put(2, "stranger@h", 8),
        register(4, 5),
        Event::Down(pid("rust@h", 5)),
        put(2, "nobody@h", 9),
        leaves("beam@h"),
        Event::SetMembers(vec![member("nobody@h")]),
        Event::Changed(Change::Removed(name(2))),
    ];
    let mut seen = 0;
    for event in events {
        registry.handle(event);
        while let Some(action) = registry.poll_action() {
            let Action::Found(found) = action else { continue };
            for found in found {
                match found {
                    Found::There(registration) => copy.insert(Arc::clone(&registration.name), registration),
                    Found::Gone(registration) => copy.remove(&registration.name),
                };
            }
        }
        for n in 1..5 {
            let found = registry.lookup(&Term::Integer(n));
            assert_eq!(copy.get(&Key(Term::Integer(n))), found);
            seen += usize::from(found.is_some());
        }
    }
    assert_eq!((seen, copy.len()), (24, 0));
}
