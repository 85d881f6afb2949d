//! The service mesh among Rust nodes: found everywhere, chosen in turn, marked when checks fail, with what is logged.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use foundation_node::Node;
use foundation_node::service::channels::{Channel, Route, Target};
use foundation_node::service::mesh::{
    Check, Config, Constraints, Health, HealthCheck, Mesh, Query, Registration, RouteError, Routing, Rules,
    Strategy,
};
use foundation_node::service::registry::Waited;
use foundation_proto::etf::Term;
use tracing_subscriber::fmt::MakeWriter;

use crate::support::{DEADLINE, cluster, eventually};

/// What was logged, as text.
#[derive(Clone, Default)]
struct Logged(Arc<Mutex<Vec<u8>>>);

impl Logged {
    fn lines(&self) -> Vec<String> {
        String::from_utf8_lossy(&self.0.lock().unwrap()).lines().map(str::to_owned).collect()
    }

    /// The lines that say this, without what stands before it.
    fn saying(&self, message: &str) -> Vec<String> {
        let lines = self.lines().into_iter();
        lines.filter_map(|line| line.split_once(message).map(|(_, rest)| rest.trim().to_owned())).collect()
    }
}

impl Write for Logged {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Logged {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// Logs of this thread, on which the runtime of such a test runs everything.
fn logged() -> (Logged, tracing::subscriber::DefaultGuard) {
    let logged = Logged::default();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(logged.clone())
        .with_ansi(false)
        .with_max_level(tracing::Level::INFO);
    (logged, tracing::subscriber::set_default(subscriber.finish()))
}

async fn connected(nodes: &[Node]) -> Vec<Mesh> {
    let meshes: Vec<Mesh> = nodes.iter().map(|node| node.services().unwrap()).collect();
    for (n, node) in nodes.iter().enumerate() {
        for other in &nodes[..n] {
            node.connect(other.name().as_str()).await.unwrap();
        }
    }
    let count = nodes.len() - 1;
    eventually("all are members", || meshes.iter().all(|mesh| mesh.members().len() == count)).await;
    meshes
}

#[tokio::test]
async fn three_nodes_share_services() {
    let (logged, _guard) = logged();
    let nodes = cluster(["a", "b", "c"]).await;
    let meshes = connected(&nodes).await;
    let name = Term::atom("orders");
    let mut workers = Vec::new();
    for (n, (node, mesh)) in nodes.iter().zip(&meshes).enumerate() {
        let worker = node.process().unwrap();
        let capability = if n == 0 { "write" } else { "read" };
        let registration =
            Registration::new(name.clone(), worker.pid()).capabilities([Term::atom(capability)]);
        mesh.register(registration).await.unwrap();
        let waited = mesh.wait_until_all(name.clone(), worker.pid(), DEADLINE).await.unwrap();
        assert_eq!(waited, Waited::Everywhere);
        workers.push(worker);
    }
    for mesh in &meshes {
        assert_eq!(mesh.discover(&Query::new().name(name.clone())).len(), 3);
        assert_eq!(mesh.discover(&Query::new().capability(Term::atom("read"))).len(), 2);
        assert_eq!(mesh.discover(&Query::new().node(nodes[1].name().clone())).len(), 1);
    }
    assert_eq!(logged.saying("service registered").len(), 3);

    // In turn, over all nodes.
    let mut counts = BTreeMap::new();
    let routing = Routing::new(Strategy::RoundRobin);
    for _ in 0..30 {
        let route = meshes[2].route(&name, &routing).unwrap();
        *counts.entry(route.service().node().as_str().to_owned()).or_insert(0) += 1;
    }
    assert!(counts.len() == 3 && counts.values().all(|count| *count == 10), "{counts:?}");

    // A node goes, and with it what it had; another stops offering it.
    nodes[0].stop().await;
    let left = |mesh: &Mesh| mesh.discover(&Query::new()).len();
    eventually("two are left", || left(&meshes[1]) == 2 && left(&meshes[2]) == 2).await;
    drop(workers.remove(1));
    eventually("one is left", || left(&meshes[1]) == 1 && left(&meshes[2]) == 1).await;
    assert_eq!(meshes[1].route(&name, &routing).unwrap().pid(), workers[1].pid());
    eventually("its end is logged", || {
        logged.saying("service deregistered").iter().any(|line| line.contains("node=\"b@127.0.0.1\""))
    })
    .await;
}

#[tokio::test]
async fn a_service_that_does_not_answer_is_marked_everywhere_and_logged() {
    let (logged, _guard) = logged();
    let nodes = cluster(["a", "b"]).await;
    let meshes = connected(&nodes).await;
    let [a, b] = &meshes[..] else { panic!("two") };
    // It is a server, but for the moment it answers nothing.
    let mut worker = nodes[0].process().unwrap();
    let mut rules = Rules::new();
    rules.interval = Duration::from_millis(30);
    rules.timeout = Duration::from_millis(30);
    let check = HealthCheck { check: Check::Call(Term::atom("ping")), rules: Some(rules) };
    a.register(Registration::new(Term::atom("users"), worker.pid()).health_check(check)).await.unwrap();
    let health = |mesh: &Mesh| mesh.discover(&Query::new()).first().map(|service| service.health);
    eventually("it is unhealthy on both", || {
        health(a) == Some(Health::Unhealthy) && health(b) == Some(Health::Unhealthy)
    })
    .await;
    let refused = b.route(&Term::atom("users"), &Routing::default()).unwrap_err();
    assert_eq!(refused, RouteError::NoInstance { unhealthy: 1 });
    assert_eq!(b.discover(&Query::new().health(Health::Unhealthy)).len(), 1);
    // Once for each failure until it is marked.
    let said = logged.saying("Service health check failed");
    assert_eq!(said.len(), 3, "{said:?}");
    for (n, line) in said.iter().enumerate() {
        let action = if n == 2 { "marking_unhealthy" } else { "retrying" };
        let failures = format!("consecutive_failures={}", n + 1);
        for part in ["service=users", "node=\"a@127.0.0.1\"", &failures, &format!("action=\"{action}\"")] {
            assert!(line.contains(part), "{part} is not in {line}");
        }
    }
    assert!(
        logged
            .lines()
            .iter()
            .any(|line| line.contains("WARN") && line.contains("Service health check failed"))
    );

    // Now it answers.
    tokio::spawn(async move {
        while let Ok(message) = worker.recv().await {
            let Ok(request) = message.to_term(&foundation_proto::Limits::default()) else { continue };
            if let Some([_, Term::Tuple(from), _]) = request.as_tuple()
                && let [Term::Pid(caller), tag] = &**from
            {
                // The tag is `[alias | Reference]`: its tail is where the answer is awaited.
                let reply = Term::from((tag.clone(), Term::atom("ok")));
                let alias = match tag {
                    Term::ImproperList(list) => list.tail.as_reference().cloned(),
                    _ => None,
                };
                let _ = match alias {
                    Some(alias) => worker.send_term(alias, &reply).await,
                    None => worker.send_term(caller, &reply).await,
                };
            }
        }
    });
    eventually("it is healthy on both", || {
        health(a) == Some(Health::Healthy) && health(b) == Some(Health::Healthy)
    })
    .await;
    assert!(!logged.saying("Service health check succeeded again").is_empty());
}

#[tokio::test]
#[cfg(target_os = "linux")]
async fn constraints_need_figures_of_the_node() {
    let nodes = cluster(["a", "b"]).await;
    let mut silent = Config::new();
    silent.load_interval = None;
    // Before anybody asks with the defaults.
    nodes[1].mesh_with("foundation_services", silent).unwrap();
    let meshes = connected(&nodes).await;
    let workers = [nodes[0].process().unwrap(), nodes[1].process().unwrap()];
    meshes[1].register(Registration::new("x", workers[1].pid())).await.unwrap();
    let name = Term::from("x");
    eventually("it is found", || meshes[0].len() == 1).await;
    eventually("the load of one is known", || meshes[1].loads().contains_key(nodes[0].name())).await;
    let routing = Routing::default().constraints(Constraints::new().memory_under(100.1));
    let refused = meshes[0].route(&name, &routing).unwrap_err();
    assert_eq!(refused, RouteError::LoadUnknown { unknown: vec![nodes[1].name().clone()] });
    meshes[0].register(Registration::new("x", workers[0].pid())).await.unwrap();
    eventually("the other is found", || meshes[1].len() == 2).await;
    for _ in 0..3 {
        assert_eq!(meshes[1].route(&name, &routing).unwrap().pid(), workers[0].pid());
    }
}

#[tokio::test]
async fn registrations_are_broadcast_where_channels_are_used() {
    let [a, b] = cluster(["a", "b"]).await;
    let mut events = b.channels().unwrap().subscribe::<Term>(Channel::Events).unwrap();
    let channels = a.channels().unwrap();
    let meshes = connected(&[a.clone(), b]).await;
    eventually("the channel is known", || {
        let (ours, others) = channels.nodes(Channel::Events);
        ours.len() + others.len() == 1
    })
    .await;
    let worker = a.process().unwrap();
    meshes[0].register(Registration::new("x", worker.pid())).await.unwrap();
    let told = tokio::time::timeout(DEADLINE, events.next()).await.unwrap().unwrap();
    let Some([word, name, info]) = told.as_tuple() else { panic!("{told:?}") };
    assert!(word.is_atom("service_registered") && *name == Term::from("x"));
    assert_eq!(info.as_map().unwrap().get_atom("pid"), Some(&Term::from(worker.pid())));

    // A channel delivers to whoever offers a service.
    channels.set_resolver(std::sync::Arc::new(meshes[0].clone()));
    let mut route = Route::default();
    route.to = Target::Service("x".to_owned());
    let mut worker = worker;
    channels.route_message(&Term::atom("work"), &route).await.unwrap();
    assert_eq!(crate::support::recv_term(&mut worker).await, Term::atom("work"));
    route.to = Target::Service("nobody".to_owned());
    assert!(channels.route_message(&Term::atom("work"), &route).await.is_err());
}
