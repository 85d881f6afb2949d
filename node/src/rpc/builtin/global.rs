//! `global`: what other visible nodes call when names conflict.

use foundation_proto::etf::Term;

use super::{Entry, Fault, Run};
use crate::process::Process;
use crate::service::global;

/// `resolve_it/4` belongs to the protocol of `global`, so it is served with what only tells. Whoever calls it could as well send
/// the exit signal that it may send.
pub(super) const FUNCTIONS: &[Entry] =
    &[Entry { function: "resolve_it", arity: 4, run: Run::Task(resolve_it), acts: false }];

fn resolve_it(process: Process, args: Vec<Term>) -> super::Running {
    Box::pin(async move { global::resolve_it(&process, &args).await.ok_or(Fault::NoClause) })
}
