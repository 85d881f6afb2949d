//! Who is chosen, and when nobody is.

use super::*;

fn weighted(mesh: &mut Mesh, weights: &[i64]) {
    for (n, weight) in weights.iter().enumerate() {
        let own = pid("a@h", 10 + n as u32);
        let registration =
            Registration::new(atom("x"), &own).metadata(metadata([("weight", Term::Integer(*weight))]));
        assert_eq!(register(mesh, registration), Outcome::Done);
    }
}

fn picks(mesh: &mut Mesh, strategy: Strategy, count: usize) -> Vec<u32> {
    let routing = Routing::new(strategy);
    (0..count).map(|n| mesh.pick(&atom("x"), &routing, n as u64).unwrap().pid.id).collect()
}

#[test]
fn in_turn() {
    let mut mesh = mesh();
    weighted(&mut mesh, &[1, 1, 1]);
    assert_eq!(picks(&mut mesh, Strategy::RoundRobin, 7), [10, 11, 12, 10, 11, 12, 10]);
    // One goes, one comes: nobody is passed over.
    command(&mut mesh, at(1), Command::Deregister { name: atom("x"), pid: pid("a@h", 11) });
    register(&mut mesh, Registration::new(atom("x"), &pid("a@h", 13)));
    assert_eq!(picks(&mut mesh, Strategy::RoundRobin, 4), [12, 13, 10, 12]);
    assert_eq!(picks(&mut mesh, Strategy::Random, 3), [10, 12, 13], "the host's numbers");
}

#[test]
fn by_weight() {
    let mut mesh = mesh();
    weighted(&mut mesh, &[5, 1, 0, 1]);
    // The sequence of nginx's documentation of smooth weighted round robin: a a b a c a a.
    assert_eq!(picks(&mut mesh, Strategy::Weighted, 7), [10, 10, 11, 10, 13, 10, 10]);
    let mut mesh = self::mesh();
    weighted(&mut mesh, &[0, 0]);
    let refused = mesh.pick(&atom("x"), &Routing::new(Strategy::Weighted), 0);
    assert_eq!(refused.unwrap_err(), RouteError::NoInstance { unhealthy: 0 });
}

#[test]
fn by_connections_and_health() {
    let mut mesh = mesh();
    weighted(&mut mesh, &[1, 1, 1]);
    mesh.begin(&pid("a@h", 10));
    assert_eq!(picks(&mut mesh, Strategy::LeastConnections, 3), [11, 12, 11]);
    mesh.begin(&pid("a@h", 11));
    mesh.begin(&pid("a@h", 12));
    mesh.begin(&pid("a@h", 12));
    mesh.end(&pid("a@h", 10));
    assert_eq!(picks(&mut mesh, Strategy::LeastConnections, 2), [10, 10]);
    mesh.end(&pid("a@h", 10));
    assert_eq!((mesh.connections(&pid("a@h", 10)), mesh.connections(&pid("a@h", 12))), (0, 2));

    let mark = |mesh: &mut Mesh, id, health| {
        command(mesh, at(1), Command::Mark { name: atom("x"), pid: pid("a@h", id), health }).0
    };
    assert_eq!(mark(&mut mesh, 10, Health::Degraded), Outcome::Done);
    assert_eq!(picks(&mut mesh, Strategy::LeastConnections, 1), [10]);
    assert_eq!(picks(&mut mesh, Strategy::HealthBased, 1), [11]);
    assert_eq!(mark(&mut mesh, 11, Health::Unhealthy), Outcome::Done);
    assert_eq!(mark(&mut mesh, 12, Health::Unhealthy), Outcome::Done);
    assert_eq!(picks(&mut mesh, Strategy::HealthBased, 1), [10]);
    assert_eq!(picks(&mut mesh, Strategy::RoundRobin, 2), [10, 10]);
    assert_eq!(mark(&mut mesh, 10, Health::Unhealthy), Outcome::Done);
    let refused = mesh.pick(&atom("x"), &Routing::default(), 0);
    assert_eq!(refused.unwrap_err(), RouteError::NoInstance { unhealthy: 3 });
    assert_eq!(mark(&mut mesh, 99, Health::Healthy), Outcome::NotRegistered);
    assert_eq!(register(&mut mesh, Registration::new(atom("x"), &pid("a@h", 10))), Outcome::Done);
    assert_eq!(picks(&mut mesh, Strategy::RoundRobin, 1), [10], "registered anew, it is well");
}

#[test]
fn constraints_are_met_by_figures_and_never_by_guesses() {
    let mut mesh = mesh();
    for node in ["a@h", "b@h", "c@h"] {
        register(&mut mesh, Registration::new(atom("x"), &pid(node, 10)));
    }
    let node = |name: &str| Atom::new(name).unwrap();
    let pick = |mesh: &mut Mesh, constraints: Constraints| {
        let routing = Routing::new(Strategy::RoundRobin).constraints(constraints);
        let mut nodes = Vec::new();
        for _ in 0..3 {
            nodes.push(mesh.pick(&atom("x"), &routing, 0)?.node().as_str().to_owned());
        }
        nodes.sort();
        nodes.dedup();
        Ok(nodes.join(" "))
    };
    let cpu = Constraints::new().cpu_under(80.0);
    let unknown = vec![node("a@h"), node("b@h"), node("c@h")];
    assert_eq!(pick(&mut mesh, cpu), Err(RouteError::LoadUnknown { unknown }));
    assert_eq!(pick(&mut mesh, Constraints::new()).unwrap(), "a@h b@h c@h");
    let mut load = |name: &str, load: Load| mesh.loads.insert(node(name), load);
    load("a@h", Load { cpu: Some(800), memory: Some(100), average: Some((150, 2)) });
    load("b@h", Load { cpu: Some(799), memory: Some(900), average: Some((150, 1)) });
    assert_eq!(pick(&mut mesh, cpu).unwrap(), "b@h", "80 is not under 80");
    assert_eq!(pick(&mut mesh, Constraints::new().memory_under(50.0)).unwrap(), "a@h");
    assert_eq!(pick(&mut mesh, Constraints::new().load_under(1.0)).unwrap(), "a@h");
    assert_eq!(pick(&mut mesh, Constraints::new().load_under(2.0)).unwrap(), "a@h b@h");
    let both = cpu.memory_under(50.0);
    let (busy, unknown) = (vec![node("a@h"), node("b@h")], vec![node("c@h")]);
    assert_eq!(pick(&mut mesh, both), Err(RouteError::Overloaded { busy, unknown }));
    assert!(pick(&mut mesh, Constraints::new().cpu_under(f64::NAN)).is_err());
    // One figure of several is missing.
    mesh.loads.insert(node("c@h"), Load { cpu: Some(1), ..Load::default() });
    assert_eq!(pick(&mut mesh, cpu).unwrap(), "b@h c@h");
    assert!(
        matches!(pick(&mut mesh, both), Err(RouteError::Overloaded { unknown, .. }) if unknown == [node("c@h")])
    );
}

#[test]
fn options_are_those_of_the_elixir_library() {
    let keyword = |pairs: Vec<(&'static str, Term)>| {
        Term::list(pairs.into_iter().map(|(key, value)| Term::from((atom(key), value))))
    };
    let constraints = keyword(vec![
        ("cpu_usage", atom("under_80_percent")),
        ("memory_usage", Term::Integer(90)),
        ("load", Term::Float(1.5)),
        ("capabilities", Term::list([atom("cards")])),
    ]);
    let options = keyword(vec![("strategy", atom("round_robin")), ("constraints", constraints)]);
    let routing = Routing::read(&options).unwrap();
    assert_eq!(routing.strategy, Strategy::RoundRobin);
    assert_eq!(routing.constraints, Constraints::new().cpu_under(80.0).memory_under(90.0).load_under(1.5));
    let service = |capabilities: Vec<Term>| Service {
        name: atom("x"),
        pid: pid("a@h", 1),
        registrar: Atom::new_static("a@h"),
        capabilities,
        metadata: Map::new(),
        registered_at: 0,
        health: Health::Healthy,
    };
    assert!(routing.query.matches(&service(vec![atom("cards")])) && !routing.query.matches(&service(vec![])));
    for strategy in ["least_connections", "round_robin", "weighted", "health_based", "random"] {
        let options = keyword(vec![("strategy", atom(strategy))]);
        assert_eq!(Routing::read(&options).unwrap().strategy.as_str(), strategy);
    }
    for usage in ["under_0_percent", "under_101_percent", "under_80", "80_percent"] {
        let constraints = keyword(vec![("cpu_usage", atom(usage))]);
        assert!(Routing::read(&keyword(vec![("constraints", constraints)])).is_err(), "{usage}");
    }
}

#[test]
fn nothing_is_left_of_what_is_gone() {
    let mut mesh = mesh();
    weighted(&mut mesh, &[1, 2, 3]);
    for strategy in [Strategy::Weighted, Strategy::RoundRobin] {
        picks(&mut mesh, strategy, 10);
    }
    mesh.begin(&pid("a@h", 10));
    for id in 10..13 {
        command(&mut mesh, at(1), Command::Deregister { name: atom("x"), pid: pid("a@h", id) });
    }
    mesh.end(&pid("a@h", 10));
    let shown = format!("{:?}", mesh.balancer);
    assert_eq!(shown, format!("{:?}", Balancer::default()));
}
