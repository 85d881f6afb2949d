//! The registry by hand, and in the simulator.

mod external;
mod many;
mod node;
mod run;
mod simulation;

use super::*;
use crate::message::list_of;

fn pid(node: &str, id: u32) -> Pid {
    Pid { node: Atom::new(node).unwrap(), id, serial: 0, creation: 1 }
}

fn names(node: &str, config: Config) -> Names {
    Names::new(Atom::new_static("r"), pid(node, 1), config)
}

fn drain(names: &mut Names) -> Vec<Action> {
    std::iter::from_fn(|| names.poll_action()).collect()
}

fn command(names: &mut Names, what: Command) -> (Outcome, Vec<Action>) {
    names.handle(Mono::ZERO, Event::Command { command: 9, what, wall: 1000 });
    let mut actions = drain(names);
    let at = actions.iter().position(|action| matches!(action, Action::Done { .. })).unwrap();
    let Action::Done { command: 9, outcome } = actions.remove(at) else { panic!("not done") };
    (outcome, actions)
}

fn register(names: &mut Names, key: i64, process: u32) -> Outcome {
    let pid = pid(names.me.node.as_str(), process);
    let what = Command::Register {
        key: Term::Integer(key),
        pid,
        value: Term::atom("v"),
        on_conflict: OnConflict::Exit,
    };
    command(names, what).0
}

fn ask(names: &mut Names, request: Term) -> Term {
    let from = Term::from((Term::from(&pid("caller@h", 5)), Term::Integer(1)));
    let message = tuple_of([atom("$gen_call"), from.clone(), request]);
    names.handle(Mono::ZERO, Event::Message { message, wall: 1000 });
    let reply = drain(names).into_iter().find_map(|action| match action {
        Action::Reply { from: to, reply } if to == from => Some(reply),
        _ => None,
    });
    reply.expect("an answer")
}

#[test]
fn a_unique_key_has_one_process_until_it_ends() {
    let mut names = names("a@h", Config::new(Keys::Unique));
    assert_eq!(register(&mut names, 1, 7), Outcome::Done);
    assert_eq!(register(&mut names, 1, 8), Outcome::AlreadyRegistered(pid("a@h", 7)));
    assert_eq!(register(&mut names, 2, 7), Outcome::Done);
    assert_eq!(names.lookup(&Term::Integer(1))[0].pid, pid("a@h", 7));
    assert_eq!(names.keys_of(&pid("a@h", 7)), [Term::Integer(1), Term::Integer(2)]);
    // One monitor for both.
    assert_eq!(names.processes.len(), 1);
    let monitor = names.processes[&pid("a@h", 7)];
    names.handle(Mono::ZERO, Event::Down(monitor));
    assert!(names.is_empty() && names.processes.is_empty() && names.monitors.is_empty());
    assert_eq!(names.own.size(), 2, "two removals");
    assert_eq!(register(&mut names, 1, 8), Outcome::Done);
    assert_eq!(names.own.size(), 2, "a write takes the place of the removal");
}

#[test]
fn a_duplicate_key_has_each_process_once() {
    let mut names = names("a@h", Config::new(Keys::Duplicate));
    assert_eq!(register(&mut names, 1, 7), Outcome::Done);
    assert_eq!(register(&mut names, 1, 8), Outcome::Done);
    assert_eq!(register(&mut names, 1, 8), Outcome::AlreadyRegistered(pid("a@h", 8)));
    assert_eq!(names.lookup(&Term::Integer(1)).len(), 2);
    let what = Command::Unregister { key: Term::Integer(1), pid: pid("a@h", 7) };
    let (outcome, actions) = command(&mut names, what);
    assert_eq!(outcome, Outcome::Done);
    assert!(
        matches!(&actions[..], [Action::Demonitor(_), Action::Changed(changes)] if changes.len() == 1),
        "{actions:?}"
    );
    assert_eq!(names.lookup(&Term::Integer(1)).len(), 1);
}

#[test]
fn limits_are_kept() {
    let mut config = Config::new(Keys::Unique);
    config.max_names = 2;
    config.max_bytes = 100;
    let mut names = names("a@h", config);
    assert_eq!((register(&mut names, 1, 7), register(&mut names, 2, 7)), (Outcome::Done, Outcome::Done));
    assert_eq!(register(&mut names, 3, 7), Outcome::SystemLimit);
    let what =
        Command::UpdateValue { key: Term::Integer(1), pid: pid("a@h", 7), value: Term::binary(&[0; 100]) };
    assert_eq!(command(&mut names, what).0, Outcome::TooLarge);
}

#[test]
fn calls_are_answered() {
    let mut names = names("a@h", Config::new(Keys::Unique));
    let process = pid("a@h", 7);
    let register =
        |key: i64| tuple_of([atom("register"), Term::Integer(key), atom("v"), Term::from(&process)]);
    assert_eq!(ask(&mut names, register(1)), Term::from((atom("ok"), Term::from(&pid("a@h", 1)))));
    let taken = Term::from((atom("already_registered"), Term::from(&process)));
    assert_eq!(ask(&mut names, register(1)), Term::from((atom("error"), taken)));
    for key in 2..=5 {
        ask(&mut names, register(key));
    }
    let found = ask(&mut names, tuple_of([atom("lookup"), Term::Integer(1)]));
    assert_eq!(found, list_of([Term::from((Term::from(&process), atom("v")))]));
    assert_eq!(ask(&mut names, tuple_of([atom("whereis_name"), Term::Integer(9)])), atom("undefined"));
    assert_eq!(ask(&mut names, atom("count")), Term::Integer(5));
    let mut after = atom("first");
    let mut keys = Vec::new();
    while !after.is_atom("end") {
        let page = ask(&mut names, tuple_of([atom("select"), after, Term::Integer(2)]));
        let [_, page, next] = crate::message::tuple(page).unwrap();
        keys.extend(
            crate::message::list(page).unwrap().into_iter().map(|one| one.as_tuple().unwrap()[0].clone()),
        );
        after = next;
    }
    assert_eq!(keys, (1..=5).map(Term::Integer).collect::<Vec<_>>());
    assert_eq!(
        ask(&mut names, tuple_of([atom("wait_until_all"), Term::Integer(1), Term::Integer(0)])),
        atom("ok")
    );
    assert_eq!(
        ask(&mut names, tuple_of([atom("unregister"), Term::Integer(1), Term::from(&process)])),
        atom("ok")
    );
    let bad = Term::from((atom("error"), atom("badarg")));
    for request in [
        atom("nonsense"),
        Term::tuple([]),
        Term::Integer(1),
        tuple_of([atom("select"), atom("x"), Term::Integer(1)]),
    ] {
        assert_eq!(ask(&mut names, request), bad);
    }
    assert_eq!(names.stats.ignored, 4);
}

#[test]
fn what_cannot_be_read_is_counted_and_changes_nothing() {
    let mut names = names("a@h", Config::new(Keys::Unique));
    let stranger = Term::from(&pid("b@h", 3));
    let messages = [
        atom("hello"),
        tuple_of([atom("hello"), Term::Integer(2), atom("unique"), stranger.clone(), Term::Integer(1)]),
        tuple_of([atom("hello"), Term::Integer(1), atom("duplicate"), stranger.clone(), Term::Integer(1)]),
        tuple_of([atom("have"), stranger.clone(), Term::Integer(1), Term::Integer(i64::MAX), atom("true")]),
        tuple_of([atom("have"), stranger.clone(), Term::Integer(1), Term::Integer(-1), atom("true")]),
        tuple_of([atom("have"), stranger.clone(), Term::Integer(1), Term::Integer(5), atom("true")]),
        tuple_of([atom("head"), stranger.clone(), Term::Integer(1), Term::Integer(1)]),
    ];
    let count = messages.len() as u64;
    for message in messages {
        names.handle(Mono::ZERO, Event::Message { message, wall: 0 });
    }
    assert_eq!(names.stats.ignored, count);
    assert!(names.peers.is_empty() && names.held.is_empty() && drain(&mut names).is_empty());
    // Understood, but nobody follows that registry.
    let writes = tuple_of([
        atom("writes"),
        stranger,
        Term::Integer(0),
        Term::Integer(0),
        Term::Integer(1),
        atom("true"),
        list_of([]),
        list_of([]),
    ]);
    names.handle(Mono::ZERO, Event::Message { message: writes, wall: 0 });
    assert!(names.held.is_empty() && names.stats.ignored == count);
}
