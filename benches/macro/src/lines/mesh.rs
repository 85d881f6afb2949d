//! What it costs to find services and to choose one: reads of one node's own picture, on one thread.

use std::time::{Duration, Instant};

use foundation_node::Node;
use foundation_node::config::{EpmdMode, NodeConfig};
use foundation_node::process::Process;
use foundation_node::service::mesh::{Mesh, Query, Registration, Routing, Strategy};
use foundation_proto::etf::Term;

use super::Request;
use crate::placement::Placement;
use crate::table::{Line, Sample};

/// Instances that have one name, and the name.
const GROUPS: [(i64, &str); 3] = [(10, "ten"), (100, "hundred"), (1000, "thousand")];
const STRATEGIES: [(&str, Strategy); 4] = [
    ("round robin", Strategy::RoundRobin),
    ("weighted", Strategy::Weighted),
    ("least connections", Strategy::LeastConnections),
    ("random", Strategy::Random),
];

pub(super) fn lines(request: &Request, show: &mut dyn FnMut(Line<'_>)) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let (node, mesh, workers) = runtime.block_on(filled()).expect("a node with services");
    for (count, name) in GROUPS {
        let mut line = Line::new(format!("choosing one of {count} instances"), Placement::Unpinned, "ns");
        for (strategy_name, strategy) in STRATEGIES {
            let (mesh, name, routing) = (&mesh, Term::from(name), Routing::new(strategy));
            line = line.with(strategy_name, move || {
                each(request.millis, || mesh.route(&name, &routing).is_ok()).ok_or("no route".to_owned())
            });
        }
        show(line);
        let (mesh, query) = (&mesh, Query::new().name(name).capability(Term::from(3)));
        let line = Line::new(format!("finding a tenth of {count} instances"), Placement::Unpinned, "ns");
        show(line.with("name, capability", move || {
            each(request.millis, || mesh.discover(&query).len() as i64 == count / 10)
                .ok_or("not a tenth was found".to_owned())
        }));
    }
    drop(workers);
    runtime.block_on(node.stop());
}

/// A node without peers whose mesh has the instances of [`GROUPS`]; each tenth of them has a capability of its own.
async fn filled() -> Result<(Node, Mesh, Vec<Process>), Box<dyn std::error::Error>> {
    let mut config = NodeConfig::new("mesh@127.0.0.1").cookie("secret").epmd(EpmdMode::None);
    config.dist_listen = false;
    let node = Node::start(config).await?;
    let mesh = node.services()?;
    let mut workers = Vec::new();
    for (count, name) in GROUPS {
        for n in 0..count {
            let worker = node.process()?;
            let registration = Registration::new(name, worker.pid()).capabilities([Term::from(n % 10)]);
            mesh.register(registration).await?;
            workers.push(worker);
        }
    }
    Ok((node, mesh, workers))
}

/// Nanoseconds a turn, over about `millis`; `None` if one went wrong.
fn each(millis: f64, mut turn: impl FnMut() -> bool) -> Option<Sample> {
    /// Turns between two looks at the clock.
    const BATCH: u32 = 32;
    let (start, most) = (Instant::now(), Duration::from_secs_f64(millis / 1e3));
    let mut turns = 0_u32;
    while start.elapsed() < most {
        for _ in 0..BATCH {
            if !turn() {
                return None;
            }
        }
        turns += BATCH;
    }
    Some((start.elapsed().as_nanos() as f64 / f64::from(turns)).into())
}
