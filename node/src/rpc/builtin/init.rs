//! `init`: whether the node is up, and stopping it.

use core::time::Duration;
use std::sync::Arc;

use foundation_proto::etf::Term;

use super::{Entry, Fault, Run, Running, tells};
use crate::node::Node;
use crate::process::Process;

pub(super) const FUNCTIONS: &[Entry] = &[
    tells("get_status", 0, |_| Ok(Term::from((Term::atom("started"), Term::atom("started"))))),
    Entry { function: "stop", arity: 0, run: Run::Task(stop), acts: true },
    Entry { function: "stop", arity: 1, run: Run::Task(stop), acts: true },
];

/// How long the caller has to get its answer before its connection ends; a BEAM takes longer than that to stop.
const ANSWER: Duration = Duration::from_millis(100);

/// Stops the node as [`Node::stop`] does. The operating-system process goes on: it may hold other nodes, and only the program
/// knows what else it is there for, so the status that `stop/1` gives is not used.
fn stop(process: Process, args: Vec<Term>) -> Running {
    Box::pin(async move {
        match &args[..] {
            [] | [Term::Integer(0..)] => {}
            [Term::List(text)] if text.iter().all(|char| char.as_i64().is_some()) => {}
            _ => return Err(Fault::NoClause),
        }
        let node = Node::from_inner(Arc::clone(&process.node));
        tracing::info!(by = ?process.parent(), "init:stop was called");
        process.node.runtime.spawn(async move {
            tokio::time::sleep(ANSWER).await;
            node.stop().await;
        });
        Ok(Term::atom("ok"))
    })
}
