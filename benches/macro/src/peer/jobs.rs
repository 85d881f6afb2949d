//! A singleton that runs on one of three nodes.

use std::sync::OnceLock;

use foundation_node::Node;
use foundation_node::process::Reason;
use foundation_node::service::supervisor::{ChildSpec, Config, Requirement, Supervisor};
use foundation_proto::etf::{Atom, Term};

use super::ops::{Result, why};
use crate::stats::{Numbers, clock};

const NAME: &str = "bench_jobs";
const CHILD: &str = "one";
const FACTORY: Atom = Atom::new_static("bench_job");

/// When the child was started here, in microseconds of the system's clock; it runs once on a node of this bench at the most.
static STARTED: OnceLock<f64> = OnceLock::new();

pub(super) async fn run(
    node: &Node,
    operation: &str,
    get: &impl Fn(&str) -> Result<usize>,
) -> Result<Numbers> {
    let one = |name: &str, value: f64| Ok(Numbers::from([(name.to_owned(), value)]));
    let members = crate::lines::JOBS.map(|name| Atom::new(&format!("{name}@127.0.0.1")));
    let members = members.into_iter().collect::<std::result::Result<Vec<_>, _>>().map_err(why)?;
    let jobs: Supervisor = node.supervisor(NAME, Config::default().members(members)).map_err(why)?;
    match operation {
        "jobs_open" => {
            jobs.factory(FACTORY.as_str(), |_, mut process| async move {
                STARTED.get_or_init(clock);
                while process.recv().await.is_ok() {}
                Reason::NORMAL
            })
            .await
            .map_err(why)?;
            one("ok", 1.0)
        }
        "jobs_members" => one("count", jobs.members().len() as f64),
        "jobs_start" => {
            let requirement = if get("safe")? > 0 { Requirement::Safety } else { Requirement::Availability };
            let spec = ChildSpec::new(CHILD, FACTORY).requirement(requirement);
            jobs.start_singleton(spec).await.map_err(why)?;
            one("ok", 1.0)
        }
        "jobs_known" => {
            one("known", f64::from(u8::from(jobs.lookup_singleton(&Term::from(CHILD)).is_some())))
        }
        "jobs_started" => one("at", STARTED.get().copied().unwrap_or(0.0)),
        other => Err(format!("unknown operation {other}")),
    }
}
