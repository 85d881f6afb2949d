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
            Action::SetNeighbours(vec![map]),
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
    assert_eq!(actions(&mut registry), [Action::Remove(name(1)), Action::SetNeighbours(Vec::new())]);
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
    assert_eq!(
        actions(&mut registry),
        [Action::Remove(name(1)), Action::Demonitor(pid("rust@h", 5)), Action::Remove(name(2))]
    );
}

#[test]
fn whoever_loses_a_name_is_told_why() {
    let mut registry = registry();
    register(&mut registry, 1, 5);
    actions(&mut registry);
    registry.handle(Event::Changed(Change::Put(name(1), entry_of("beam@h", 7))));
    let lost = tuple_of([Term::Integer(1), atom("v")]);
    let winner = Term::Pid(pid("beam@h", 7));
    let reason = tuple_of([atom("name_conflict"), lost, atom("Elixir.Reg"), winner]);
    assert_eq!(
        actions(&mut registry),
        [Action::Exit { to: pid("rust@h", 5), reason }, Action::Demonitor(pid("rust@h", 5))]
    );
    assert_eq!(registry.lookup(&Term::Integer(1)).unwrap().pid, pid("beam@h", 7));
}

#[test]
fn a_node_that_was_thought_to_be_gone_comes_back_with_its_names() {
    let mut registry = registry();
    register(&mut registry, 1, 5);
    actions(&mut registry);
    registry.handle(Event::Changed(Change::Removed(member("rust@h").key())));
    registry.handle(Event::Changed(Change::Removed(name(1))));
    assert_eq!(
        actions(&mut registry),
        [Action::Put(member("rust@h").key(), Term::Integer(1)), Action::Put(name(1), entry_of("rust@h", 5))]
    );
    // What it had before it was restarted is over.
    let old = Pid { creation: 3, ..pid("rust@h", 9) };
    let entry = tuple_of([member("rust@h").to_term(), Term::Pid(old), atom("v")]);
    registry.handle(Event::Changed(Change::Put(name(2), entry)));
    assert_eq!(actions(&mut registry), [Action::Remove(name(2))]);
}

#[test]
fn callers_register_as_with_horde() {
    let mut registry = registry();
    let from = Term::tuple([Term::Pid(pid("beam@h", 3)), Term::Integer(1)]);
    let mut ask = |request: Term| {
        registry.handle(Event::Call { from: from.clone(), request });
        let told = actions(&mut registry);
        told.into_iter().find_map(|action| match action {
            Action::Reply { reply, .. } => Some(reply),
            _ => None,
        })
    };
    let (name, worker) = (Term::Integer(1), Term::Pid(pid("beam@h", 8)));
    let request = tuple_of([atom("register"), name.clone(), atom("v"), worker.clone()]);
    assert_eq!(ask(request), Some(tuple_of([atom("ok"), Term::Pid(pid("rust@h", 1))])));
    assert_eq!(ask(tuple_of([atom("put_meta"), atom("k"), atom("v")])), Some(atom("ok")));
    assert_eq!(ask(atom("members")).unwrap().as_list().unwrap().len(), 2);
    assert_eq!(ask(tuple_of([atom("unregister"), name, worker])), Some(atom("ok")));
    assert_eq!(ask(atom("nonsense")), Some(tuple_of([atom("error"), atom("badarg")])));
    assert_eq!((registry.names().count(), registry.meta(&atom("k"))), (0, Some(&atom("v"))));
}

/// Readers keep a copy of what is found.
#[test]
fn replaying_what_is_told_of_names_gives_what_is_found() {
    let mut registry = registry();
    let mut copy: BTreeMap<Arc<Key>, Arc<Registration>> = BTreeMap::new();
    let put = |n, node, id| Event::Changed(Change::Put(name(n), entry_of(node, id)));
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
