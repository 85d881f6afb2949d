use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use foundation_proto::etf::{Map, Term};

use super::*;
use crate::config::{EpmdMode, NodeConfig};
use crate::eventually::eventually;

async fn lonely() -> Node {
    let mut config = NodeConfig::new("mesh@127.0.0.1").cookie("secret").epmd(EpmdMode::None);
    config.dist_listen = false;
    Node::start(config).await.unwrap()
}

/// The next change that is no other than these.
async fn next(monitor: &mut Monitor) -> Change {
    tokio::time::timeout(Duration::from_secs(20), monitor.next()).await.unwrap().unwrap()
}

#[tokio::test]
async fn a_service_is_found_chosen_and_gone_with_its_process() {
    let node = lonely().await;
    let mesh = node.services().unwrap();
    let mut monitor = mesh.monitor();
    let (one, two) = (node.process().unwrap(), node.process().unwrap());
    let name = Term::atom("payment");
    let metadata = Map::from([(foundation_proto::etf::Atom::new_static("level"), Term::atom("high"))]);
    let registration = Registration::new(name.clone(), one.pid()).capabilities([Term::atom("cards")]);
    mesh.register(registration.metadata(metadata)).await.unwrap();
    mesh.register(Registration::new(name.clone(), two.pid())).await.unwrap();
    assert_eq!(mesh.len(), 2);
    assert!(matches!(next(&mut monitor).await, Change::Registered(service) if service.pid == *one.pid()));
    assert!(matches!(next(&mut monitor).await, Change::Registered(service) if service.pid == *two.pid()));
    assert_eq!(mesh.discover(&Query::new().capability(Term::atom("cards"))).len(), 1);
    assert_eq!(Resolver::capability(&mesh, "cards"), [node.name().clone()]);
    assert_eq!(Resolver::service(&mesh, "payment").len(), 2);

    // Routes are connections while they live.
    let routing = Routing::default();
    let first = mesh.route(&name, &routing).unwrap();
    let second = mesh.route(&name, &routing).unwrap();
    assert_ne!(first.pid(), second.pid());
    assert_eq!(mesh.connections(first.pid()), 1);
    let pid = first.pid().clone();
    drop(first);
    assert_eq!(mesh.connections(&pid), 0);
    assert_eq!(*mesh.route(&name, &routing).unwrap().pid(), pid);
    assert!(matches!(
        mesh.route(&Term::atom("other"), &routing),
        Err(RouteError::NoInstance { unhealthy: 0 })
    ));

    // A function of the program may ask the mesh.
    let (asked, wanted) = (mesh.clone(), two.pid().clone());
    let query = Query::new().health_check(move |service| asked.len() == 2 && service.pid == wanted);
    assert_eq!(mesh.discover(&query).len(), 1);
    let routing_checked = Routing::new(Strategy::RoundRobin).query(query);
    for _ in 0..3 {
        assert_eq!(mesh.route(&name, &routing_checked).unwrap().pid(), two.pid());
    }

    assert!(mesh.mark(name.clone(), one.pid(), Health::Unhealthy).await.unwrap());
    assert!(
        matches!(next(&mut monitor).await, Change::Health(service) if service.health == Health::Unhealthy)
    );
    assert_eq!(Resolver::service(&mesh, "payment"), [two.pid().clone()]);
    assert!(mesh.deregister(name.clone(), two.pid()).await.unwrap());
    assert!(!mesh.deregister(name.clone(), two.pid()).await.unwrap());
    assert!(matches!(next(&mut monitor).await, Change::Deregistered(service) if service.pid == *two.pid()));
    assert!(matches!(mesh.route(&name, &routing), Err(RouteError::NoInstance { unhealthy: 1 })));
    let ended = one.pid().clone();
    drop(one);
    assert!(matches!(next(&mut monitor).await, Change::Deregistered(service) if service.pid == ended));
    let dead = mesh.register(Registration::new(name, &ended)).await;
    assert!(matches!(dead, Err(RegisterError::ProcessDead(pid)) if pid == ended));
    assert!(matches!(node.registry("foundation_services"), Err(Error::NameTaken(_))));
    node.stop().await;
}

#[tokio::test]
#[cfg(target_os = "linux")]
async fn constraints_are_met_by_this_machine() {
    let node = lonely().await;
    let mesh = node.services().unwrap();
    let worker = node.process().unwrap();
    mesh.register(Registration::new("x", worker.pid())).await.unwrap();
    let known = || mesh.loads().values().any(|load| load.cpu.is_some() && load.memory.is_some());
    eventually(Duration::from_secs(20), async || known()).await;
    let under = |percent| Routing::default().constraints(Constraints::new().memory_under(percent));
    mesh.route(&Term::from("x"), &under(100.1)).unwrap();
    let refused = mesh.route(&Term::from("x"), &under(0.0)).unwrap_err();
    assert!(
        matches!(&refused, RouteError::Overloaded { busy, .. } if busy == &[node.name().clone()]),
        "{refused}"
    );
    node.stop().await;
}

#[tokio::test]
async fn a_check_of_the_program_that_hangs_or_panics_has_failed() {
    let node = lonely().await;
    let mesh = node.services().unwrap();
    let mut monitor = mesh.monitor();
    let worker = node.process().unwrap();
    let mut rules = Rules::new();
    rules.interval = Duration::from_millis(20);
    rules.timeout = Duration::from_millis(20);
    let hang = Arc::new(AtomicBool::new(true));
    let seen = Arc::clone(&hang);
    let check = move |_: Arc<Service>| {
        let hang = seen.load(Ordering::Relaxed);
        async move {
            if hang {
                std::future::pending::<()>().await;
            }
            true
        }
    };
    mesh.register_checked(Registration::new("x", worker.pid()), Some(rules), check).await.unwrap();
    assert!(matches!(next(&mut monitor).await, Change::Registered(_)));
    assert!(
        matches!(next(&mut monitor).await, Change::Health(service) if service.health == Health::Unhealthy)
    );
    hang.store(false, Ordering::Relaxed);
    // Long enough for a busy machine: a check that succeeds must not be late.
    assert!(matches!(next(&mut monitor).await, Change::Health(service) if service.health == Health::Healthy));
    mesh.deregister(Term::from("x"), worker.pid()).await.unwrap();

    let panics = |_: Arc<Service>| async { panic!("on purpose") };
    rules.timeout = Duration::from_secs(20);
    mesh.register_checked(Registration::new("y", worker.pid()), Some(rules), panics).await.unwrap();
    let unhealthy = |change: &Change| matches!(change, Change::Health(service) if service.name == Term::from("y") && service.health == Health::Unhealthy);
    while !unhealthy(&next(&mut monitor).await) {}
    node.stop().await;
}
