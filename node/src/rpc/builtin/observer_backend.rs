//! `observer_backend` of runtime_tools: what etop and observer call and start on the node that they look at.
//!
//! Records and messages are those of `observer_backend.hrl`, the same from OTP 23 to 29.

use core::time::Duration;
use std::sync::Arc;

use foundation_proto::etf::{Pid, Term};

use super::{
    Answer, Call, Entry, Fault, Run, Running, VERSION, erlang, mfa, pair, process_info, statistics,
    system_info, tells,
};
use crate::error::Error;
use crate::node::NodeInner;
use crate::process::{Proc, Process};

pub(super) const FUNCTIONS: &[Entry] = &[
    tells("vsn", 0, |_| Ok(Term::from((Term::atom("ok"), Term::charlist(VERSION))))),
    tells("sys_info", 0, sys_info),
    starts("etop_collect", 1, etop_collect),
    starts("procs_info", 1, procs_info),
    starts("fetch_stats", 2, fetch_stats),
    tells("get_port_list", 0, |_| Ok(Term::nil())),
    tells("get_socket_list", 0, |_| Ok(Term::nil())),
    tells("socket_info", 0, |_| Ok(Term::nil())),
    tells("get_table_list", 2, |_| Ok(Term::nil())),
];

/// A function that observer and etop spawn; what it tells comes as messages.
const fn starts(function: &'static str, arity: u8, run: fn(Process, Vec<Term>) -> Running) -> Entry {
    Entry { function, arity, run: Run::Task(run), acts: false }
}

/// Processes in one message of `procs_info/1`.
const CHUNK: usize = 10_000;

/// `fetch_stats/2` sends no more often than this, whatever it was asked.
const LEAST_INTERVAL: Duration = Duration::from_millis(50);

/// What observer's System tab shows, in OTP's order.
fn sys_info(call: &Call<'_>) -> Answer {
    let node = call.node;
    let (received, sent) = statistics::io_bytes(node);
    let uptime = u64::try_from(statistics::uptime(node).as_millis()).unwrap_or(u64::MAX);
    let mut info = vec![
        pair("uptime", uptime),
        pair("run_queue", statistics::run_queue(node)),
        pair("io_input", received),
        pair("io_output", sent),
    ];
    let mut items = |key: &'static str, item: Term| {
        if let Some(value) = system_info::item(node, &item) {
            info.push(pair(key, value));
        }
    };
    for key in [
        "logical_processors",
        "logical_processors_online",
        "logical_processors_available",
        "schedulers",
        "schedulers_online",
    ] {
        items(key, Term::atom(key));
    }
    items("schedulers_available", Term::atom("schedulers_online"));
    for key in ["version", "system_architecture", "kernel_poll", "smp_support", "threads"] {
        items(key, Term::atom(key));
    }
    items("wordsize_internal", Term::atom("wordsize"));
    items("wordsize_external", Term::atom("wordsize"));
    for key in
        ["process_count", "process_limit", "port_limit", "port_count", "ets_count", "dist_buf_busy_limit"]
    {
        items(key, Term::atom(key));
    }
    info.push(pair("alloc_info", Term::nil()));
    if let Some(Term::List(memory)) = statistics::memory(node) {
        info.extend(memory.into_vec());
    }
    Ok(Term::from(info))
}

/// `{Pid, #etop_info{}}` to the collector.
fn etop_collect(process: Process, args: Vec<Term>) -> Running {
    Box::pin(async move {
        let [Term::Pid(collector)] = &args[..] else { return Err(Fault::NoClause) };
        let node = &process.node;
        let processes: Vec<Term> = others(&process).iter().map(|proc| etop_proc_info(proc)).collect();
        // Of the keys that etop prints it takes those that are not there as 0.
        let memory = statistics::memory(node).unwrap_or_else(|| Term::atom("undefined"));
        let info = Term::tuple([
            Term::atom("etop_info"),
            erlang::timestamp(),
            Term::from(processes.len()),
            Term::atom("undefined"), // wall_clock: of OTP before R16 only
            statistics::scheduler_wall_time(node),
            Term::from(statistics::run_queue(node)),
            Term::nil(), // alloc_areas
            memory,
            Term::from(processes),
        ]);
        tell(&process, collector, Term::from((process.pid(), info))).await
    })
}

/// `{procs_info, Pid, [#etop_proc_info{}]}` to the collector, several of them if there are many processes.
fn procs_info(process: Process, args: Vec<Term>) -> Running {
    Box::pin(async move {
        let [Term::Pid(collector)] = &args[..] else { return Err(Fault::NoClause) };
        let others = others(&process);
        // Even without any there is one message: observer waits for it.
        let chunks = others.chunks(CHUNK).chain(others.is_empty().then_some(&[][..]));
        for chunk in chunks {
            let infos = Term::list(chunk.iter().map(|proc| etop_proc_info(proc)));
            let message = Term::from((Term::atom("procs_info"), process.pid(), infos));
            tell(&process, collector, message).await?;
        }
        Ok(Term::atom("ok"))
    })
}

/// `{stats, 1, SchedulerWallTime, IO, Memory}` to the parent, again and again until a message or an exit signal comes.
fn fetch_stats(mut process: Process, args: Vec<Term>) -> Running {
    Box::pin(async move {
        let [Term::Pid(parent), Term::Integer(interval @ 0..)] = &args[..] else {
            return Err(Fault::NoClause);
        };
        let interval = Duration::from_millis(interval.unsigned_abs()).max(LEAST_INTERVAL);
        process.trap_exit(true);
        // Who spawned it without a link is watched all the same: nothing runs on for nobody.
        let _ = process.monitor(parent).await;
        loop {
            match process.recv_timeout(interval).await {
                Err(Error::Timeout) => {}
                _ => return Ok(Term::atom("ok")),
            }
            let node = &process.node;
            let stats = Term::from((
                Term::atom("stats"),
                1,
                statistics::scheduler_wall_time(node),
                statistics::io(node),
                statistics::memory(node).unwrap_or_else(Term::nil),
            ));
            tell(&process, parent, stats).await?;
        }
    })
}

/// Sends a message; a receiver that is gone is no error, but the end of the matter.
async fn tell(process: &Process, to: &Pid, message: Term) -> Answer {
    match process.send_term(to, &message).await {
        Ok(()) => Ok(Term::atom("ok")),
        Err(error) => {
            tracing::debug!(%error, "what observer or etop asked for was not sent");
            Err(Fault::Error(Term::atom("noconnection")))
        }
    }
}

/// All processes but the one that collects.
fn others(process: &Process) -> Vec<Arc<Proc>> {
    let own = process.pid();
    let node: &NodeInner = &process.node;
    erlang::alive(node).filter(|proc| proc.pid != *own).collect()
}

/// `#etop_proc_info{pid, mem, reds, name, runtime, cf, mq}`.
fn etop_proc_info(proc: &Proc) -> Term {
    let name = match process_info::name(proc) {
        Some(name) => Term::Atom(name),
        None => mfa(&process_info::initial_call(proc)),
    };
    Term::tuple([
        Term::atom("etop_proc_info"),
        Term::from(&proc.pid),
        Term::from(process_info::memory(proc)),
        Term::from(0),
        name,
        Term::from(0),
        Term::atom("undefined"),
        Term::from(proc.mailbox.len()),
    ])
}
