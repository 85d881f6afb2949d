//! Phoenix LiveDashboard: the functions of the module that it loads into the node that it shows.
//!
//! LiveDashboard lists hidden nodes too, and a call that fails takes its page down. These are the calls of 0.6 to 0.8, by name and
//! number of arguments: Home, Processes and Applications have real data, the pages about what a native node does not have
//! are empty.

use foundation_proto::etf::text::inspect;
use foundation_proto::etf::{Atom, Pid, Term};

use super::application::{DESCRIPTION, NAME};
use super::{
    Answer, Call, Entry, Fault, VERSION, erlang, map, mfa, pair, process_info, statistics, system_info, tells,
};
use crate::node::NodeInner;
use crate::process::Proc;

/// What the dashboard calls on other nodes.
pub(super) const MODULE: &str = "Elixir.Phoenix.LiveDashboard.SystemInfo";

pub(super) const FUNCTIONS: &[Entry] = &[
    tells("capabilities_callback", 0, capabilities),
    tells("capabilities_callback", 1, capabilities),
    tells("info_callback", 1, info),
    tells("info_callback", 2, info),
    tells("usage_callback", 0, |call| Ok(usage(call.node))),
    tells("processes_callback", 4, processes),
    tells("processes_callback", 5, processes),
    tells("process_info_callback", 1, process_info_callback),
    tells("process_info_callback", 2, process_info_callback),
    tells("applications_info_callback", 4, applications),
    tells("app_tree_callback", 1, error),
    tells("ports_callback", 4, none),
    tells("port_info_callback", 1, error),
    tells("port_info_callback", 2, error),
    tells("sockets_callback", 4, none),
    tells("socket_info_callback", 1, error),
    tells("socket_info_callback", 2, error),
    tells("ets_callback", 4, none),
    tells("ets_info_callback", 1, error),
    tells("memory_allocators_callback", 1, |_| Ok(Term::from((Term::nil(), map([]))))),
];

fn nil() -> Term {
    Term::atom("nil")
}

/// A page without rows.
fn none(_: &Call<'_>) -> Answer {
    Ok(Term::from((Term::nil(), 0)))
}

/// The dashboard's word for what does not exist (any more).
fn error(_: &Call<'_>) -> Answer {
    Ok(Term::atom("error"))
}

/// `system_info` is compared with the hash of the dashboard's own code, which this is not. A dashboard does not run here, and
/// nothing is here that its further pages want (applications, modules, processes, os_mon).
fn capabilities(call: &Call<'_>) -> Answer {
    let version = ("system_info", Term::from(VERSION));
    if call.args.is_empty() {
        return Ok(map([version, ("dashboard", nil()), ("os_mon", nil())]));
    }
    Ok(map([
        version,
        ("dashboard_running?", Term::from(Atom::from(false))),
        ("applications", Term::nil()),
        ("modules", Term::nil()),
        ("processes", Term::nil()),
    ]))
}

/// The page Home: `info_callback(EnvironmentKeys, Application)`.
fn info(call: &Call<'_>) -> Answer {
    let node = call.node;
    // "None" is what the dashboard itself writes for an application that is not there.
    let none = || Term::from("None");
    let app_version = match call.args.get(1) {
        Some(app) if app.is_atom(NAME) => Term::charlist(VERSION),
        _ => none(),
    };
    let system = map([
        ("banner", Term::charlist(&system_info::banner(node))),
        ("elixir_version", none()),
        ("phoenix_version", none()),
        ("dashboard_version", none()),
        ("app_version", app_version),
        ("system_architecture", Term::charlist(&system_info::architecture())),
    ]);
    // There is no table of atoms that could fill up.
    let limits = map([
        ("atoms", nil()),
        ("ports", Term::from(system_info::port_limit(node))),
        ("processes", Term::from(node.process_limit)),
    ]);
    // The environment is not shown: the keys, each without a value.
    let environment = match call.args.first() {
        Some(Term::List(keys)) => Term::list(keys.iter().map(|key| Term::from((key.clone(), nil())))),
        _ => nil(),
    };
    Ok(map([
        ("system_info", system),
        ("system_limits", limits),
        ("system_usage", usage(node)),
        ("environment", environment),
    ]))
}

fn usage(node: &NodeInner) -> Term {
    let (received, sent) = statistics::io_bytes(node);
    let queue = statistics::run_queue(node);
    let total = statistics::resident().unwrap_or(0);
    let process = statistics::processes_memory(node).min(total);
    // Parts that are not there are not drawn; what is not known is part of the rest.
    let memory = map([
        ("total", Term::from(total)),
        ("process", Term::from(process)),
        ("other", Term::from(total - process)),
    ]);
    map([
        ("atoms", nil()),
        ("ports", Term::from(system_info::port_count(node))),
        ("processes", Term::from(system_info::process_count(node))),
        ("io", Term::from((received, sent))),
        ("uptime", Term::from(statistics::uptime(node).as_millis())),
        ("memory", memory),
        ("total_run_queue", Term::from(queue)),
        ("cpu_run_queue", Term::from(queue)),
    ])
}

/// One row of the page Processes.
struct Row {
    pid: Pid,
    name: String,
    memory: usize,
    queue: usize,
}

impl Row {
    fn new(proc: &Proc) -> Self {
        Self {
            pid: proc.pid.clone(),
            name: name_or_initial_call(proc),
            memory: process_info::memory(proc),
            queue: proc.mailbox.len(),
        }
    }

    fn into_term(self) -> Term {
        Term::list([
            pair("pid", self.pid),
            pair("name_or_initial_call", self.name),
            pair("reductions_diff", 0),
            pair("memory", self.memory),
            pair("reductions", 0),
            pair("message_queue_len", self.queue),
            pair("current_function", Term::atom("undefined")),
        ])
    }
}

/// `processes_callback(Search, SortBy, SortDir, Limit[, Previous])` gives the rows and how many there are; with five
/// arguments also what the next call gets as `Previous`, which is for differences of reductions.
fn processes(call: &Call<'_>) -> Answer {
    let [search, sort_by, direction, limit, previous @ ..] = call.args else { return Err(Fault::NoClause) };
    let limit = limit.as_i64().and_then(|limit| usize::try_from(limit).ok()).ok_or(Fault::NoClause)?;
    let search = match search {
        Term::Binary(_) => Some(search.as_str().ok_or(Fault::NoClause)?),
        search if search.is_atom("nil") => None,
        _ => return Err(Fault::NoClause),
    };
    let mut rows: Vec<Row> = erlang::alive(call.node).map(|proc| Row::new(&proc)).collect();
    if let Some(search) = search {
        rows.retain(|row| {
            let pid = format!("<0.{}.{}>", row.pid.id, row.pid.serial);
            pid.contains(search) || row.name.to_lowercase().contains(search)
        });
    }
    let count = rows.len();
    let key: fn(&Row) -> usize = match sort_by.as_atom().map(Atom::as_str) {
        Some("memory") => |row| row.memory,
        Some("message_queue_len") => |row| row.queue,
        // The same for all: they stay in the order of their pids.
        Some("reductions" | "reductions_diff") => |_| 0,
        _ => return Err(Fault::NoClause),
    };
    match direction.as_atom().map(Atom::as_str) {
        Some("asc") => rows.sort_by_key(key),
        Some("desc") => rows.sort_by_key(|row| core::cmp::Reverse(key(row))),
        _ => return Err(Fault::NoClause),
    }
    rows.truncate(limit);
    let rows = Term::list(rows.into_iter().map(Row::into_term));
    if previous.is_empty() {
        return Ok(Term::from((rows, count)));
    }
    Ok(Term::from((rows, count, map([]))))
}

/// The registered name, or else the function it was started with, as Elixir writes them.
fn name_or_initial_call(proc: &Proc) -> String {
    match process_info::name(proc) {
        Some(name) => inspect(&Term::Atom(name)),
        None => {
            let (module, function, arity) = process_info::initial_call(proc);
            format!("{}.{}/{arity}", inspect(&Term::Atom(module)), function.as_str())
        }
    }
}

/// What the dashboard shows of one process, in its order.
const DETAILS: [&str; 18] = [
    "links",
    "monitors",
    "monitored_by",
    "registered_name",
    "current_function",
    "status",
    "message_queue_len",
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
    "current_stacktrace",
];

/// `process_info_callback(Pid)`: `{ok, Details}` or `error`. Up to 0.6 the dashboard gives the items to tell, and wants them
/// as they are.
fn process_info_callback(call: &Call<'_>) -> Answer {
    let Some(Term::Pid(pid)) = call.args.first() else { return Err(Fault::NoClause) };
    let ok = |details: Term| Ok(Term::from((Term::atom("ok"), details)));
    let details = Term::list(DETAILS.iter().map(|item| Term::atom(item)));
    let found = process_info::info(call.node, pid, Some(call.args.get(1).unwrap_or(&details)))?;
    let (Term::List(pairs), Some(proc)) = (found, call.node.process(pid)) else {
        return Ok(Term::atom("error"));
    };
    if call.args.len() == 2 {
        return ok(Term::List(pairs));
    }
    let mut shown = vec![
        pair("initial_call", mfa(&process_info::initial_call(&proc))),
        pair("ancestors", Term::nil()),
        pair("label", nil()),
    ];
    for item in pairs.into_vec() {
        let Some([key, value]) = item.as_tuple() else { continue };
        let value = match key.as_atom().map(Atom::as_str) {
            Some("links" | "monitored_by") => details_of_each(call.node, value, |process| Some(process)),
            Some("monitors") => details_of_each(call.node, value, |pair| pair.as_tuple()?.get(1)),
            Some("group_leader") => process_details(call.node, value),
            _ => value.clone(),
        };
        shown.push(Term::from((key.clone(), value)));
    }
    ok(Term::from(shown))
}

fn details_of_each(node: &NodeInner, list: &Term, pick: fn(&Term) -> Option<&Term>) -> Term {
    let each = list.as_list().unwrap_or_default().iter().filter_map(pick);
    Term::list(each.map(|process| process_details(node, process)))
}

/// `%ProcessDetails{}` for a pid, or for a name and node that stand for one.
fn process_details(node: &NodeInner, process: &Term) -> Term {
    let proc = match process {
        Term::Pid(pid) => node.process(pid),
        Term::Tuple(parts) => match &parts[..] {
            [Term::Atom(name), Term::Atom(at)] if *at == node.name => node.names.whereis(name),
            _ => None,
        },
        _ => None,
    };
    let (pid, name, initial_call) = match &proc {
        Some(proc) => (
            Term::from(&proc.pid),
            Term::from(name_or_initial_call(proc)),
            mfa(&process_info::initial_call(proc)),
        ),
        None => (process.clone(), nil(), nil()),
    };
    map([
        ("__struct__", Term::atom("Elixir.Phoenix.LiveDashboard.SystemInfo.ProcessDetails")),
        ("pid", pid),
        ("name_or_initial_call", name),
        ("initial_call", initial_call),
    ])
}

/// `applications_info_callback(Search, SortBy, SortDir, Limit)`: the one there is.
fn applications(call: &Call<'_>) -> Answer {
    let [search, _, _, limit] = call.args else { return Err(Fault::NoClause) };
    let wanted = search.as_str().is_none_or(|search| {
        NAME.contains(search) || DESCRIPTION.to_lowercase().contains(search) || VERSION.contains(search)
    });
    if !wanted {
        return none(call);
    }
    let row = Term::list([
        pair("name", Term::atom(NAME)),
        pair("description", DESCRIPTION),
        pair("version", VERSION),
        pair("state", Term::atom("started")),
        pair("tree?", Atom::from(false)),
    ]);
    let shown = if limit.as_i64().is_some_and(|limit| limit > 0) { vec![row] } else { Vec::new() };
    Ok(Term::from((Term::from(shown), 1)))
}
