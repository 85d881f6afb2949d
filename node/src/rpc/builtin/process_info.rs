//! `erlang:process_info/1,2`.

use std::sync::Arc;

use foundation_proto::dist::Target;
use foundation_proto::etf::{Atom, Pid, Term};

use super::{Answer, Fault, mfa, pair};
use crate::node::NodeInner;
use crate::process::{Monitor, Proc, WatcherKind};

/// The items of `process_info/1`, in OTP's order; `registered_name` stands before them if there is one.
const DEFAULT_ITEMS: [&str; 16] = [
    "current_function",
    "initial_call",
    "status",
    "message_queue_len",
    "links",
    "dictionary",
    "trap_exit",
    "error_handler",
    "priority",
    "group_leader",
    "total_heap_size",
    "heap_size",
    "stack_size",
    "reductions",
    "garbage_collection",
    "suspending",
];

/// About one process: the default items, one item, or a list of items. `undefined` if there is no such process.
pub(super) fn info(node: &NodeInner, pid: &Pid, asked: Option<&Term>) -> Answer {
    let proc = node.process(pid).filter(|proc| proc.exit_reason().is_none());
    let Some(proc) = proc else { return Ok(Term::atom("undefined")) };
    match asked {
        None => Ok(default_items(node, &proc)),
        Some(Term::List(items)) => {
            let values: Option<Vec<Term>> = items
                .iter()
                .map(|item| Some(Term::from((item.clone(), value(node, &proc, item)?))))
                .collect();
            values.map(Term::from).ok_or(Fault::Badarg)
        }
        // What Erlang does for the sake of old programs: without a name there is no pair either.
        Some(item) if item.is_atom("registered_name") && name(&proc).is_none() => Ok(Term::nil()),
        Some(item) => {
            value(node, &proc, item).map(|value| Term::from((item.clone(), value))).ok_or(Fault::Badarg)
        }
    }
}

fn default_items(node: &NodeInner, proc: &Arc<Proc>) -> Term {
    let named = name(proc).map(|name| pair("registered_name", name));
    let items = DEFAULT_ITEMS
        .iter()
        .filter_map(|item| Some(Term::from((Term::atom(item), value(node, proc, &Term::atom(item))?))));
    Term::list(named.into_iter().chain(items))
}

/// Its registered name.
pub(super) fn name(proc: &Proc) -> Option<Atom> {
    proc.state().name.clone()
}

/// Bytes that the process holds: its entry in the process table and the encoded messages in its mailbox. What the Rust
/// code that runs it has allocated is not counted by anybody.
pub(super) fn memory(proc: &Proc) -> usize {
    size_of::<Proc>() + proc.mailbox.bytes()
}

/// The function it was started with; OTP's `{proc_lib, init_p, 5}` if it was started from Rust code.
pub(super) fn initial_call(proc: &Proc) -> (Atom, Atom, u8) {
    proc.state().initial_call.clone()
}

/// The value of an item; `None` if there is no such item, or nothing true can be said.
fn value(node: &NodeInner, proc: &Arc<Proc>, item: &Term) -> Option<Term> {
    let item = match item {
        Term::Atom(item) => item,
        // A native process has no process dictionary.
        Term::Tuple(parts) => match &parts[..] {
            [what, _] if what.is_atom("dictionary") => return Some(Term::atom("undefined")),
            _ => return None,
        },
        _ => return None,
    };
    Some(match item.as_str() {
        "registered_name" => name(proc).map_or_else(Term::nil, Term::Atom),
        "initial_call" => mfa(&initial_call(proc)),
        // What OTP says of a process that executes native code.
        "current_function" | "current_location" => Term::atom("undefined"),
        "current_stacktrace" => Term::nil(),
        // Not waiting for a message is all that is known of one that runs, or waits for something else.
        "status" => Term::atom(if proc.mailbox.is_waited_for() { "waiting" } else { "running" }),
        "message_queue_len" => Term::from(proc.mailbox.len()),
        "memory" => Term::from(memory(proc)),
        "links" => Term::list(proc.state().links.active().iter().map(Term::from)),
        "monitors" => monitors(node, proc),
        "monitored_by" => monitored_by(node, proc),
        "trap_exit" => Term::from(Atom::from(proc.state().trap_exit)),
        "group_leader" => Term::from(&proc.state().group_leader),
        "parent" => match &proc.state().parent {
            Some(parent) => Term::from(parent),
            None => Term::atom("undefined"),
        },
        "priority" => Term::atom("normal"),
        "error_handler" => Term::atom("undefined"),
        "message_queue_data" => Term::atom("off_heap"),
        // There is no BEAM code, heap, dictionary, tracing or suspending that these could be about.
        "reductions" | "total_heap_size" | "heap_size" | "stack_size" | "catchlevel" | "trace" => {
            Term::from(0)
        }
        "dictionary" | "garbage_collection" | "suspending" | "sequential_trace_token" | "binary" => {
            Term::nil()
        }
        "last_calls" => Term::from(Atom::from(false)),
        _ => return None,
    })
}

/// `{process, Pid}` or `{process, {Name, Node}}` for each.
fn monitors(node: &NodeInner, proc: &Proc) -> Term {
    let state = proc.state();
    let named = |name: &Atom, node: &Atom| Term::from((name, node));
    Term::list(state.references.values().filter_map(|entry| {
        let watched = match entry.monitor.as_ref()? {
            Monitor::Local { name: Some(name), .. } => named(name, &node.name),
            Monitor::Local { pid, .. } => Term::from(pid),
            Monitor::Remote { target: Target::Pid(pid), .. } => Term::from(pid),
            Monitor::Remote { target: Target::Name(name), link } => named(name, &link.peer().name),
        };
        Some(pair("process", watched))
    }))
}

fn monitored_by(node: &NodeInner, proc: &Proc) -> Term {
    let state = proc.state();
    Term::list(state.watchers.values().map(|watcher| match &watcher.by {
        WatcherKind::Local(number) => Term::from(node.ids.pid(*number)),
        WatcherKind::Remote { pid, .. } => Term::from(pid),
    }))
}
