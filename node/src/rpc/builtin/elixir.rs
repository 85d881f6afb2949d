//! What Elixir calls under names of its own.

use foundation_proto::etf::{Atom, Term};

use super::{Answer, Call, Entry, Fault, application, erlang, process_info, tells};
use crate::net_kernel::NodeType;

pub(super) const NODE: &[Entry] = &[
    tells("self", 0, |call| Ok(Term::Atom(call.node.name.clone()))),
    tells("list", 0, |call| Ok(erlang::nodes_of(call, &[NodeType::Visible]))),
    tells("list", 1, erlang::nodes),
    tells("alive?", 0, |_| Ok(Term::from(Atom::from(true)))),
];

pub(super) const PROCESS: &[Entry] = &[
    tells("alive?", 1, erlang::is_process_alive),
    tells("list", 0, erlang::processes),
    tells("info", 1, info),
    tells("info", 2, info),
    tells("whereis", 1, |call| erlang::whereis(call).map(nil_if_undefined)),
    tells("registered", 0, |call| Ok(Term::list(call.node.names.all().into_iter().map(Term::Atom)))),
];

pub(super) const APPLICATION: &[Entry] = &[
    tells("started_applications", 0, |_| Ok(application::applications())),
    tells("started_applications", 1, |_| Ok(application::applications())),
    tells("loaded_applications", 0, |_| Ok(application::applications())),
];

/// Elixir's word for what is not there.
fn nil_if_undefined(term: Term) -> Term {
    if term.is_atom("undefined") { Term::atom("nil") } else { term }
}

/// `Process.info/1,2`: a process without a name has the name `[]` here also if that alone is asked for.
fn info(call: &Call<'_>) -> Answer {
    let [Term::Pid(pid), asked @ ..] = call.args else { return Err(Fault::NoClause) };
    if pid.node != call.node.name {
        return Err(Fault::Badarg);
    }
    let found = process_info::info(call.node, pid, asked.first())?;
    match asked {
        [item] if item.is_atom("registered_name") && found == Term::nil() => {
            Ok(Term::from((item.clone(), found)))
        }
        _ => Ok(nil_if_undefined(found)),
    }
}
