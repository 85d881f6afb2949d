//! The mesh by hand, laws of queries and choices over random cases, and the mesh in the simulator.

mod calls;
mod checks;
mod laws;
mod routing;
mod simulation;

use super::*;
use foundation_proto::etf::Map;

fn pid(node: &str, id: u32) -> Pid {
    Pid { node: Atom::new(node).unwrap(), id, serial: 0, creation: 1 }
}

fn mesh() -> Mesh {
    mesh_with(Config::new())
}

fn mesh_with(config: Config) -> Mesh {
    Mesh::new(Atom::new_static("m"), pid("a@h", 1), config)
}

fn drain(mesh: &mut Mesh) -> Vec<Action> {
    std::iter::from_fn(|| mesh.poll_action()).collect()
}

fn at(millis: u64) -> Mono {
    Mono::ZERO + Duration::from_millis(millis)
}

/// Carries out a command, and what else it led to.
fn command(mesh: &mut Mesh, now: Mono, what: Command) -> (Outcome, Vec<Action>) {
    mesh.handle(now, Event::Command { command: 9, what, wall: 1000 });
    let mut actions = drain(mesh);
    let at = actions.iter().position(|action| matches!(action, Action::Done { .. })).unwrap();
    let Action::Done { command: 9, outcome } = actions.remove(at) else { panic!("not done") };
    (outcome, actions)
}

fn register(mesh: &mut Mesh, registration: Registration) -> Outcome {
    command(mesh, Mono::ZERO, Command::Register(registration)).0
}

fn changes(actions: &[Action]) -> Vec<&Change> {
    let of = |action: &'_ Action| matches!(action, Action::Changed(_));
    let all = actions.iter().filter(|action| of(action));
    all.flat_map(|action| if let Action::Changed(changes) = action { changes.as_slice() } else { &[] })
        .collect()
}

fn metadata<const N: usize>(pairs: [(&'static str, Term); N]) -> Map {
    pairs.into_iter().map(|(key, value)| (atom(key), value)).collect()
}

#[test]
fn a_service_has_several_instances_until_they_end() {
    let mut mesh = mesh();
    let (one, two) = (pid("a@h", 7), pid("a@h", 8));
    let capabilities = [atom("refunds"), atom("cards")];
    let registration = Registration::new(atom("payment"), &one)
        .capabilities(capabilities)
        .metadata(metadata([("level", atom("high"))]));
    let (outcome, actions) = command(&mut mesh, Mono::ZERO, Command::Register(registration));
    assert_eq!(outcome, Outcome::Done);
    assert!(
        matches!(changes(&actions)[..], [Change::Registered(service)] if service.pid == one),
        "{actions:?}"
    );
    assert_eq!(register(&mut mesh, Registration::new(atom("payment"), &two)), Outcome::Done);
    assert_eq!(mesh.len(), 2);
    let found = |mesh: &Mesh, query: Query| {
        mesh.discover(&query).iter().map(|service| service.pid.id).collect::<Vec<_>>()
    };
    assert_eq!(found(&mesh, Query::new()), [7, 8]);
    assert_eq!(found(&mesh, Query::new().name(atom("payment"))), [7, 8]);
    assert_eq!(found(&mesh, Query::new().name(Term::from("payment"))), [] as [u32; 0]);
    assert_eq!(found(&mesh, Query::new().capability(atom("cards"))), [7]);
    assert_eq!(found(&mesh, Query::new().capabilities([atom("cards"), atom("loans")])), [] as [u32; 0]);
    assert_eq!(found(&mesh, Query::new().metadata(atom("level"), atom("high"))), [7]);
    assert_eq!(found(&mesh, Query::new().node(Atom::new_static("b@h"))), [] as [u32; 0]);
    assert_eq!(found(&mesh, Query::new().health_check(|service| service.pid.id == 8)), [8]);

    // Again: another description, at a later time.
    let again = Registration::new(atom("payment"), &one);
    mesh.handle(at(1), Event::Command { command: 9, what: Command::Register(again), wall: 2000 });
    let actions = drain(&mut mesh);
    assert!(matches!(changes(&actions)[..], [Change::Updated(service)] if service.capabilities.is_empty()));
    assert_eq!(found(&mesh, Query::new()), [8, 7], "the one registered first is in front");

    let gone = Command::Deregister { name: atom("payment"), pid: two.clone() };
    let (outcome, actions) = command(&mut mesh, at(2), gone.clone());
    assert_eq!(outcome, Outcome::Done);
    assert!(matches!(changes(&actions)[..], [Change::Deregistered(service)] if service.pid == two));
    assert_eq!(command(&mut mesh, at(2), gone).0, Outcome::NotRegistered);

    // It ends.
    mesh.handle(at(3), Event::Down(names::MonitorId(1)));
    assert!(matches!(changes(&drain(&mut mesh))[..], [Change::Deregistered(service)] if service.pid == one));
    assert!(mesh.is_empty() && mesh.discover(&Query::new()).is_empty());
}

#[test]
fn what_may_not_be_registered() {
    let mut config = Config::new();
    config.names.max_bytes = 2000;
    config.names.max_names = 1;
    let mut mesh = mesh_with(config);
    let own = pid("a@h", 7);
    let many = Registration::new(atom("x"), &own).capabilities((0..257).map(Term::Integer));
    assert_eq!(register(&mut mesh, many), Outcome::TooLarge);
    let large = Registration::new(atom("x"), &own).metadata(metadata([("blob", Term::binary(&[0; 2000]))]));
    assert_eq!(register(&mut mesh, large), Outcome::TooLarge);
    let check = metadata([("health_check", atom("magic"))]);
    let unchecked = Registration::new(atom("x"), &own).metadata(check);
    assert_eq!(register(&mut mesh, unchecked), Outcome::BadHealthCheck);
    assert!(mesh.is_empty() && mesh.checks.next(1).is_none());
    // A process of a BEAM node, and no room for another.
    assert_eq!(register(&mut mesh, Registration::new(atom("x"), &pid("beam@h", 3))), Outcome::Done);
    assert_eq!(register(&mut mesh, Registration::new(atom("x"), &own)), Outcome::SystemLimit);
    assert_eq!(mesh.discover(&Query::new()).first().unwrap().node().as_str(), "beam@h");
}

#[test]
fn two_registrations_of_one_process_are_one_instance() {
    let mut index = Index::default();
    let process = pid("beam@h", 3);
    let service = |registrar: &str, registered_at| Service {
        name: atom("x"),
        pid: process.clone(),
        registrar: Atom::new(registrar).unwrap(),
        capabilities: Vec::new(),
        metadata: Map::new(),
        registered_at,
        health: Health::Healthy,
    };
    let set = |index: &mut Index, service: Option<Service>, registrar: &str| {
        let replaced = index.set(&atom("x"), &process, &Atom::new(registrar).unwrap(), service);
        let registrar =
            |service: Option<Arc<Service>>| service.map(|service| service.registrar.as_str().to_owned());
        (registrar(replaced.before), registrar(replaced.after), index.len())
    };
    let (a, b) = (Some("a@h".to_owned()), Some("b@h".to_owned()));
    assert_eq!(set(&mut index, Some(service("a@h", 5)), "a@h"), (None, a.clone(), 1));
    assert_eq!(set(&mut index, Some(service("b@h", 5)), "b@h"), (a.clone(), a.clone(), 1), "the lesser node");
    assert_eq!(set(&mut index, Some(service("b@h", 6)), "b@h"), (a, b.clone(), 1), "the later one");
    assert_eq!(set(&mut index, None, "a@h"), (b.clone(), b.clone(), 1));
    assert_eq!(set(&mut index, None, "b@h"), (b, None, 0));
    assert_eq!(set(&mut index, None, "b@h"), (None, None, 0));
}

#[test]
fn the_load_is_told_when_it_has_changed() {
    let mut mesh = mesh();
    assert_eq!(mesh.poll_timeout(), Some(Mono::ZERO));
    let sample =
        |busy, all| Sample { ticks: Some((busy, all)), memory: Some((50, 100)), ..Sample::default() };
    let measure = |mesh: &mut Mesh, now: Mono, sample: Sample| {
        mesh.handle_timeout(now);
        assert_eq!(drain(mesh), [Action::Measure]);
        mesh.handle(now, Event::Measured { sample, wall: 1 });
        let version = mesh.names.iter().map(|entry| entry.version).max();
        drain(mesh);
        (mesh.loads.get(&Atom::new_static("a@h")).copied().and_then(|load| load.cpu), version)
    };
    assert_eq!(measure(&mut mesh, at(0), sample(0, 0)), (None, Some(1)), "half the memory");
    assert_eq!(mesh.poll_timeout(), Some(at(1000)), "soon, for the processors");
    assert_eq!(measure(&mut mesh, at(1000), sample(100, 1000)), (Some(100), Some(2)));
    assert_eq!(mesh.poll_timeout(), Some(at(6000)));
    assert_eq!(measure(&mut mesh, at(6000), sample(240, 2000)), (Some(100), Some(2)), "140 is near enough");
    assert_eq!(measure(&mut mesh, at(11000), sample(390, 3000)), (Some(150), Some(3)));
    assert_eq!(measure(&mut mesh, at(16000), Sample::default()), (None, Some(4)));
    assert!(mesh.loads.is_empty(), "nothing is known any more");

    let mut config = Config::new();
    config.load_interval = None;
    let mut silent = mesh_with(config);
    silent.handle_timeout(at(0));
    assert_eq!((drain(&mut silent), silent.poll_timeout()), (Vec::new(), None));
}

#[test]
fn entries_that_are_none_of_ours_are_counted() {
    let mut mesh = mesh();
    let mut write = |key: Term, value: Term, pid: Pid| mesh.put(key, pid, value, 1);
    let own = pid("a@h", 7);
    for (key, value) in [
        (atom("x"), atom("y")),
        (key(&atom("x"), &own), atom("y")),
        (
            key(&atom("y"), &own),
            Term::from((2, Term::nil(), Term::Map(Map::new()), 1, Health::Healthy.term())),
        ),
        (key(&atom("z"), &own), Term::from((1, Term::nil(), Term::Map(Map::new()), 1, atom("splendid")))),
        (key(&atom("x"), &pid("a@h", 8)), atom("y")),
    ] {
        assert_eq!(write(key, value, own.clone()), Outcome::Done);
    }
    // Nobody speaks for the load of another node.
    assert_eq!(
        write(atom("load"), Load { memory: Some(1), ..Load::default() }.term(), pid("b@h", 1)),
        Outcome::Done
    );
    assert_eq!(mesh.ignored(), 6);
    assert!(mesh.is_empty() && mesh.loads().is_empty());
}
