//! What is asked of `erlang` itself.

use std::time::{Duration, SystemTime};

use foundation_proto::etf::{Atom, Pid, Term};

use super::{Answer, Call, Entry, Fault, has_module, statistics, system_info, tells};
use crate::net_kernel::NodeType;
use crate::process::Proc;

pub(super) const FUNCTIONS: &[Entry] = &[
    tells("node", 0, |call| Ok(Term::Atom(call.node.name.clone()))),
    tells("node", 1, node_of),
    tells("nodes", 0, |call| Ok(nodes_of(call, &[NodeType::Visible]))),
    tells("nodes", 1, nodes),
    tells("is_alive", 0, |_| Ok(Term::from(Atom::from(true)))),
    tells("self", 0, |call| Ok(Term::from(call.process.pid()))),
    tells("processes", 0, processes),
    tells("process_info", 1, |call| super::process_info::info(call.node, pid(call, 0)?, None)),
    tells("process_info", 2, |call| super::process_info::info(call.node, pid(call, 0)?, call.args.get(1))),
    tells("registered", 0, |call| Ok(Term::list(call.node.names.all().into_iter().map(Term::Atom)))),
    tells("whereis", 1, whereis),
    tells("is_process_alive", 1, is_process_alive),
    // Connections are no ports of Erlang: nothing could be asked of them or sent to them.
    tells("ports", 0, |_| Ok(Term::nil())),
    tells("memory", 0, |call| statistics::memory(call.node).ok_or_else(notsup)),
    tells("memory", 1, memory),
    tells("system_info", 1, |call| match call.args {
        [item] => system_info::item(call.node, item).ok_or(Fault::Badarg),
        _ => Err(Fault::Badarg),
    }),
    tells("statistics", 1, |call| match call.args {
        [item] => statistics::item(call.node, item).ok_or(Fault::Badarg),
        _ => Err(Fault::Badarg),
    }),
    tells("function_exported", 3, function_exported),
    tells("system_time", 0, |_| Ok(Term::from(since_epoch().as_nanos()))),
    tells("system_time", 1, |call| in_unit(since_epoch(), call)),
    tells("monotonic_time", 0, |call| Ok(Term::from(uptime(call).as_nanos()))),
    tells("monotonic_time", 1, |call| in_unit(uptime(call), call)),
    tells("timestamp", 0, |_| Ok(timestamp())),
];

/// The process that argument `index` names; a pid of another node is no argument for these functions.
fn pid<'a>(call: &'a Call<'_>, index: usize) -> Result<&'a Pid, Fault> {
    let pid = call.args.get(index).and_then(Term::as_pid).ok_or(Fault::Badarg)?;
    if pid.node == call.node.name { Ok(pid) } else { Err(Fault::Badarg) }
}

fn node_of(call: &Call<'_>) -> Answer {
    Ok(Term::from(match call.args {
        [Term::Pid(pid)] => &pid.node,
        [Term::Reference(reference)] => &reference.node,
        [Term::Port(port)] => &port.node,
        _ => return Err(Fault::Badarg),
    }))
}

pub(super) fn nodes_of(call: &Call<'_>, which: &[NodeType]) -> Term {
    let mut nodes: Vec<Atom> = which.iter().flat_map(|&which| call.node.net_kernel.nodes(which)).collect();
    nodes.sort_unstable();
    nodes.dedup();
    Term::list(nodes.into_iter().map(Term::Atom))
}

/// `nodes/1`: one type or a list of them. This node keeps no names of nodes that it is not connected with, so `known` is
/// the connected ones and this one.
pub(super) fn nodes(call: &Call<'_>) -> Answer {
    let types = match call.args {
        [Term::Atom(one)] => vec![one],
        [Term::List(list)] => {
            list.iter().map(Term::as_atom).collect::<Option<Vec<_>>>().ok_or(Fault::Badarg)?
        }
        _ => return Err(Fault::Badarg),
    };
    let (mut which, mut this) = (Vec::new(), false);
    for asked in types {
        match asked.as_str() {
            "visible" => which.push(NodeType::Visible),
            "hidden" => which.push(NodeType::Hidden),
            "connected" => which.push(NodeType::Connected),
            "this" => this = true,
            "known" => {
                which.push(NodeType::Connected);
                this = true;
            }
            _ => return Err(Fault::Badarg),
        }
    }
    match nodes_of(call, &which) {
        Term::List(nodes) if this => {
            let own = Term::Atom(call.node.name.clone());
            Ok(Term::list(core::iter::once(own).chain(nodes.into_vec())))
        }
        nodes => Ok(nodes),
    }
}

/// Those that have not ended.
pub(super) fn alive(node: &crate::node::NodeInner) -> impl Iterator<Item = std::sync::Arc<Proc>> {
    node.processes.all().into_iter().filter(|proc| proc.exit_reason().is_none())
}

pub(super) fn processes(call: &Call<'_>) -> Answer {
    Ok(Term::list(alive(call.node).map(|proc| Term::from(&proc.pid))))
}

pub(super) fn whereis(call: &Call<'_>) -> Answer {
    let [Term::Atom(name)] = call.args else { return Err(Fault::Badarg) };
    let found = call.node.names.whereis(name);
    Ok(found.map_or_else(|| Term::atom("undefined"), |proc| Term::from(&proc.pid)))
}

pub(super) fn is_process_alive(call: &Call<'_>) -> Answer {
    let proc = call.node.process(pid(call, 0)?);
    Ok(Term::from(Atom::from(proc.is_some_and(|proc| proc.exit_reason().is_none()))))
}

/// The types of memory that OTP knows: what is not measured here is `notsup`, as on a BEAM whose allocators do not count.
const MEMORY_TYPES: [&str; 10] = [
    "total",
    "processes",
    "processes_used",
    "system",
    "atom",
    "atom_used",
    "binary",
    "code",
    "ets",
    "maximum",
];

fn notsup() -> Fault {
    Fault::Error(Term::atom("notsup"))
}

/// `memory/1`: one type, or a list of them.
fn memory(call: &Call<'_>) -> Answer {
    let measured = statistics::memory(call.node).ok_or_else(notsup)?;
    let measured = measured.as_list().unwrap_or_default();
    let one = |asked: &Term| {
        let known = measured.iter().find(|pair| pair.as_tuple().and_then(<[Term]>::first) == Some(asked));
        match known {
            Some(pair) => Ok(pair.clone()),
            None if MEMORY_TYPES.iter().any(|known| asked.is_atom(known)) => Err(notsup()),
            None => Err(Fault::Badarg),
        }
    };
    match call.args {
        [Term::List(types)] => Ok(Term::list(types.iter().map(one).collect::<Result<Vec<_>, _>>()?)),
        [asked] => Ok(one(asked)?.as_tuple().and_then(|pair| pair.get(1)).cloned().unwrap_or_else(Term::nil)),
        _ => Err(Fault::Badarg),
    }
}

/// Whether a call of this function would be answered, by an exported function or one of these.
fn function_exported(call: &Call<'_>) -> Answer {
    let [Term::Atom(module), Term::Atom(function), Term::Integer(arity)] = call.args else {
        return Err(Fault::Badarg);
    };
    let exported = u8::try_from(*arity).is_ok_and(|arity| {
        call.node.exports.get(module, function, arity).is_some()
            || has_module(module) && super::find(call.node, module, function, usize::from(arity)).is_some()
    });
    Ok(Term::from(Atom::from(exported)))
}

fn since_epoch() -> Duration {
    // A clock before 1970 is no clock.
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

fn uptime(call: &Call<'_>) -> Duration {
    statistics::uptime(call.node)
}

/// A time in a `time_unit()`; the native unit is the nanosecond.
fn in_unit(time: Duration, call: &Call<'_>) -> Answer {
    let unit = call.args.first().ok_or(Fault::Badarg)?;
    let per_second = match unit {
        Term::Integer(parts) if *parts > 0 => u128::from(parts.unsigned_abs()),
        Term::Atom(unit) => match unit.as_str() {
            "second" | "seconds" => 1,
            "millisecond" | "milli_seconds" => 1_000,
            "microsecond" | "micro_seconds" => 1_000_000,
            "nanosecond" | "nano_seconds" | "native" | "perf_counter" => 1_000_000_000,
            _ => return Err(Fault::Badarg),
        },
        _ => return Err(Fault::Badarg),
    };
    let whole = u128::from(time.as_secs()) * per_second;
    Ok(Term::from(whole + u128::from(time.subsec_nanos()) * per_second / 1_000_000_000))
}

/// `{MegaSecs, Secs, MicroSecs}`.
pub(super) fn timestamp() -> Term {
    let now = since_epoch();
    Term::from((now.as_secs() / 1_000_000, now.as_secs() % 1_000_000, now.subsec_micros()))
}
