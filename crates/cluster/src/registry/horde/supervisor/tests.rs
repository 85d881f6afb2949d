use super::*;

const SUP: &str = "Elixir.Sup";

fn member(node: &'static str) -> Member {
    Member { name: Atom::new_static(SUP), node: Atom::new_static(node) }
}

fn map_of(node: &'static str) -> Address {
    Address::Name { name: Atom::new_static("Elixir.Sup.Crdt"), node: Atom::new_static(node) }
}

fn supervisor() -> HordeSupervisor {
    let pid = Pid { node: Atom::new_static("rust@h"), id: 3, serial: 0, creation: 1 };
    HordeSupervisor::new(Atom::new_static(SUP), pid)
}

fn record(node: &'static str, status: &'static str) -> Term {
    let fields = [("__struct__", atom(MEMBER)), ("name", member(node).to_term()), ("status", atom(status))];
    Term::Map(fields.into_iter().map(|(key, value)| (atom(key), value)).collect())
}

fn says(supervisor: &mut HordeSupervisor, node: &'static str, status: &'static str) {
    supervisor.handle(Event::Changed(Change::Put(member(node).key(), Term::Integer(1))));
    supervisor.handle(Event::Changed(Change::Put(record_key(&member(node)), record(node, status))));
}

fn actions(supervisor: &mut HordeSupervisor) -> Vec<Action> {
    let mut seen = Vec::new();
    let plain = |mut action: Action| {
        if let Action::Put(_, Term::Map(record)) = &mut action {
            let announced = record.remove(&atom("announced"));
            assert!(announced.is_some() && !seen.contains(&announced), "{announced:?}");
            seen.push(announced);
        }
        action
    };
    std::iter::from_fn(|| supervisor.poll_action()).map(plain).collect()
}

/// The record of this member; how often it was written is taken out, and must never be the same.
fn announcement() -> Action {
    Action::Put(record_key(&member("rust@h")), record("rust@h", "shutting_down"))
}

#[test]
fn it_says_that_it_shuts_down_and_says_so_again_whenever_that_may_be_lost() {
    let mut supervisor = supervisor();
    assert_eq!(actions(&mut supervisor), [announcement()], "before anybody has made it a member");
    supervisor.handle(Event::Met(member("beam@h")));
    assert_eq!(actions(&mut supervisor), [announcement(), Action::SetNeighbours(vec![map_of("beam@h")])]);
    says(&mut supervisor, "rust@h", "shutting_down");
    assert_eq!(actions(&mut supervisor), [], "its own record comes back");
    says(&mut supervisor, "rust@h", "dead");
    assert_eq!(actions(&mut supervisor), [announcement()]);
    supervisor.handle(Event::Changed(Change::Removed(record_key(&member("rust@h")))));
    assert_eq!(actions(&mut supervisor), [announcement()]);
    supervisor.handle(Event::Missing(vec![record_key(&member("rust@h"))]));
    assert_eq!(actions(&mut supervisor), [announcement()]);
    supervisor.handle(Event::Changed(Change::Removed(member("rust@h").key())));
    assert_eq!(actions(&mut supervisor), [], "whether it is a member is for the others to say");
}

#[test]
fn a_program_that_names_a_member_makes_it_one() {
    let mut supervisor = supervisor();
    actions(&mut supervisor);
    supervisor.handle(Event::Join(member("beam@h")));
    let joined = Action::Put(member("rust@h").key(), Term::Integer(1));
    let neighbours = Action::SetNeighbours(vec![map_of("beam@h")]);
    assert_eq!(actions(&mut supervisor), [announcement(), joined.clone(), neighbours]);
    supervisor.handle(Event::Changed(Change::Removed(member("rust@h").key())));
    assert_eq!(actions(&mut supervisor), [announcement(), joined]);
    supervisor.handle(Event::NodeDown(Atom::new_static("beam@h")));
    assert_eq!(actions(&mut supervisor), [], "it is looked for again");
}

#[test]
fn only_members_that_run_children_are_compared_with() {
    let mut supervisor = supervisor();
    supervisor.handle(Event::Met(member("a@h")));
    actions(&mut supervisor);
    says(&mut supervisor, "b@h", "alive");
    assert_eq!(actions(&mut supervisor), [Action::SetNeighbours(vec![map_of("a@h"), map_of("b@h")])]);
    says(&mut supervisor, "other_rust@h", "shutting_down");
    assert_eq!(actions(&mut supervisor), []);
    // One that stops has more to tell until it is gone.
    says(&mut supervisor, "b@h", "shutting_down");
    assert_eq!(actions(&mut supervisor), []);
    assert_eq!(supervisor.alive().count(), 0);
    supervisor.handle(Event::Changed(Change::Removed(record_key(&member("b@h")))));
    assert_eq!(actions(&mut supervisor), [Action::SetNeighbours(vec![map_of("a@h")])]);
    supervisor.handle(Event::NodeDown(Atom::new_static("a@h")));
    assert_eq!(actions(&mut supervisor), [Action::SetNeighbours(vec![])]);
    supervisor.handle(Event::Alone);
    assert_eq!(actions(&mut supervisor), [Action::Forget]);
}

#[test]
fn what_it_is_asked_goes_to_those_that_run_children() {
    let mut supervisor = supervisor();
    says(&mut supervisor, "b@h", "alive");
    says(&mut supervisor, "c@h", "dead");
    says(&mut supervisor, "d@h", "alive");
    says(&mut supervisor, "rust@h", "shutting_down");
    actions(&mut supervisor);
    let from = tuple_of([atom("pid"), atom("tag")]);
    let request = tuple_of([atom("start_child"), atom("spec")]);
    let forwarded = tuple_of([atom("proxy_operation"), request.clone(), from.clone()]);
    let asked = [
        tuple_of([atom("$gen_call"), from.clone(), request.clone()]),
        tuple_of([atom("proxy_operation"), request.clone(), from.clone()]),
        tuple_of([atom("proxy_operation"), request, from.clone(), Term::Integer(3)]),
    ];
    for message in asked {
        supervisor.handle(Event::Message(message));
        let told = actions(&mut supervisor);
        let [Action::Forward { to, message, .. }] = &told[..] else { panic!("{told:?}") };
        assert_eq!((to, message), (&vec![member("b@h"), member("d@h")], &forwarded));
    }
    let mut ask = |request: Term| {
        supervisor.handle(Event::Message(tuple_of([atom("$gen_call"), from.clone(), request])));
        actions(&mut supervisor)
    };
    let members = ["b@h", "c@h", "d@h", "rust@h"].map(|node| member(node).to_term());
    assert_eq!(ask(atom("members")), [Action::Reply { from: from.clone(), reply: list_of(members) }]);
    let [Action::Reply { reply, .. }] = &ask(tuple_of([atom("set_members"), list_of([])]))[..] else {
        panic!()
    };
    assert!(reply.as_tuple().is_some_and(|reply| reply[0].is_atom("error")), "{reply:?}");
    supervisor.handle(Event::Message(atom("nonsense")));
    assert_eq!(actions(&mut supervisor), []);
}

#[test]
fn children_are_read_from_the_map() {
    let pid = Pid { node: Atom::new_static("b@h"), id: 7, serial: 0, creation: 1 };
    let key = tuple_of([atom("process"), Term::Integer(5)]);
    let running = tuple_of([member("b@h").to_term(), atom("spec"), Term::Pid(pid.clone())]);
    let child = Child::read(&key, &running).unwrap();
    assert_eq!((child.spec, child.running), (atom("spec"), Some((member("b@h"), pid.clone()))));
    assert_eq!(Child::read(&key, &tuple_of([atom("nil"), atom("spec")])).unwrap().running, None);
    assert_eq!(Child::read(&member("b@h").key().0, &running), None);
    assert_eq!(Child::read(&key, &atom("odd")), None);
    let ok = tuple_of([atom("ok"), Term::Pid(pid.clone())]);
    assert_eq!(StartChild::read(ok), Some(StartChild::Ok(pid, None)));
    assert_eq!(StartChild::read(atom("ignore")), Some(StartChild::Ignore));
    let error = tuple_of([atom("error"), atom("quorum_not_met")]);
    assert_eq!(StartChild::read(error), Some(StartChild::Error(atom("quorum_not_met"))));
    let expired = tuple_of([atom("error"), atom("proxy_operation_ttl_expired"), atom("text")]);
    assert_eq!(StartChild::read(expired), Some(StartChild::Error(atom("proxy_operation_ttl_expired"))));
    assert_eq!(StartChild::read(atom("odd")), None);
}
