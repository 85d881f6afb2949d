//! Calls of other nodes.

use std::sync::Arc;

use foundation_proto::dist::control::spawn_reply;
use foundation_proto::dist::{ControlMessage, Lane, LaneClass, SpawnRequest};
use foundation_proto::etf::{Atom, Pid, RawTerm, Term};

use super::builtin;
use super::exports::RemoteCall;
use crate::error::{Class, Raised};
use crate::net::Link;
use crate::node::NodeInner;
use crate::process::{Handle, Process, Reason, SpawnOptions, Watcher, WatcherKind, lane_of, transmit};

/// What a request to start a process asks for.
#[derive(Clone, Copy, Debug, Default)]
struct Options {
    link: bool,
    monitor: bool,
}

/// Reads the options of a SPAWN_REQUEST; those that tune a BEAM's memory and schedulers mean nothing here.
fn options(list: &Term) -> Option<Options> {
    let mut options = Options::default();
    for option in list.as_list()? {
        match option {
            Term::Atom(option) if option == "link" => options.link = true,
            Term::Atom(option) if option == "monitor" => options.monitor = true,
            Term::Tuple(pair) => match &pair[..] {
                [Term::Atom(key), _] if IGNORED.contains(&key.as_str()) => {}
                _ => return None,
            },
            _ => return None,
        }
    }
    Some(options)
}

/// `erlang:spawn_opt/4`.
const IGNORED: [&str; 8] = [
    "priority",
    "min_heap_size",
    "max_heap_size",
    "min_bin_vheap_size",
    "fullsweep_after",
    "message_queue_data",
    "async_dist",
    "scheduler",
];

/// A peer asks for a process. It always gets a reply, and the reply comes before anything else from the new process.
pub(crate) fn spawn_requested(
    node: &Arc<NodeInner>,
    link: &Arc<Link>,
    request: SpawnRequest,
    arguments: RawTerm,
) -> foundation_proto::Result<()> {
    let SpawnRequest { req_id, from, group_leader, module, function, arity, options: asked } = request;
    let refuse = |reason: &'static str| {
        let control = ControlMessage::SpawnReply {
            req_id: req_id.clone(),
            to: from.clone(),
            flags: 0,
            result: Err(Atom::new_static(reason)),
        };
        transmit(link, lane_of(&from), &control, None);
    };
    let Some(asked) = options(&asked) else {
        refuse("badopt");
        return Ok(());
    };
    let start = SpawnOptions::default().group_leader(group_leader).initial_call(
        module.clone(),
        function.clone(),
        arity,
    );
    let Ok(proc) = node.new_proc(None, &start) else {
        refuse("system_limit");
        return Ok(());
    };
    let mut flags = 0;
    {
        let mut state = proc.state();
        state.parent = Some(from.clone());
        if asked.link && link.mld().add_own(proc.number) {
            state.links.link_received(&from, &Some(Arc::clone(link)));
            flags |= spawn_reply::LINK;
        }
        if asked.monitor && link.mld().add_own(proc.number) {
            let by = WatcherKind::Remote { link: Arc::clone(link), pid: from.clone() };
            state.watchers.insert(req_id.clone(), Watcher { by, name: None });
            flags |= spawn_reply::MONITOR;
        }
    }
    let lane = Lane { sender: proc.number, class: LaneClass::Control };
    let control = ControlMessage::SpawnReply { req_id, to: from, flags, result: Ok(proc.pid.clone()) };
    transmit(link, lane, &control, None);
    node.run(&proc, move |process| run_spawned(process, module, function, arity, arguments));
    Ok(())
}

/// The life of a process that a peer asked for.
async fn run_spawned(
    process: Process,
    module: Atom,
    function: Atom,
    arity: u8,
    arguments: RawTerm,
) -> Reason {
    let args = match arguments.to_term(process.node.limits()) {
        Ok(Term::List(args)) if args.len() == usize::from(arity) => args.into_vec(),
        _ => return Reason::from("badarg"),
    };
    if module == "erpc" {
        let args = match <[Term; 4]>::try_from(args) {
            Ok([result, Term::Atom(m), Term::Atom(f), Term::List(a)]) if function == "execute_call" => {
                let outcome = apply(process, m, f, a.into_vec()).await;
                return execute_call_reason(result, outcome);
            }
            Ok(args) => Vec::from(args),
            Err(args) => args,
        };
        return match <[Term; 3]>::try_from(args) {
            Ok([Term::Atom(m), Term::Atom(f), Term::List(a)]) if function == "execute_cast" => {
                exit_reason(apply(process, m, f, a.into_vec()).await)
            }
            Ok(args) => exit_reason(Err(Raised::undef(module, function, Vec::from(args)))),
            Err(args) => exit_reason(Err(Raised::undef(module, function, args))),
        };
    }
    exit_reason(apply(process, module, function, args).await)
}

/// How `erpc:execute_call/4` ends its process, so that the caller finds the outcome in the `DOWN`.
fn execute_call_reason(result: Term, outcome: Result<Term, Raised>) -> Reason {
    Reason::from(match outcome {
        Ok(value) => Term::from((result, Term::atom("return"), value)),
        Err(Raised { class: Class::Throw, reason, .. }) => Term::from((result, Term::atom("throw"), reason)),
        Err(Raised { class: Class::Exit, reason, .. }) => Term::from((result, Term::atom("exit"), reason)),
        Err(Raised { class: Class::Error, reason, stack }) => {
            Term::from((result, Term::atom("error"), reason, stack))
        }
    })
}

/// How a process ends whose function returned or raised.
pub(crate) fn exit_reason(outcome: Result<Term, Raised>) -> Reason {
    match outcome {
        Ok(_) => Reason::NORMAL,
        Err(Raised { class: Class::Exit, reason, .. }) => Reason::from(reason),
        Err(Raised { class: Class::Error, reason, stack }) => Reason::from(Term::from((reason, stack))),
        Err(Raised { class: Class::Throw, reason, stack }) => {
            let reason = Term::from((Term::atom("nocatch"), reason));
            Reason::from(Term::from((reason, stack)))
        }
    }
}

/// Calls an exported function on this process, or a built-in one; `undef` if there is none.
pub(crate) async fn apply(
    process: Process,
    module: Atom,
    function: Atom,
    args: Vec<Term>,
) -> Result<Term, Raised> {
    let (module, function, args) = match resolve(module, function, args) {
        Ok(mfa) => mfa,
        Err(raised) => return Err(raised),
    };
    let exported =
        u8::try_from(args.len()).ok().and_then(|arity| process.node.exports.get(&module, &function, arity));
    if let Some(run) = exported {
        return run(RemoteCall { args, process }).await;
    }
    match builtin::find(&process.node, &module, &function, args.len()) {
        Some(builtin) => builtin.run(process, module, function, args).await,
        None => Err(Raised::undef(module, function, args)),
    }
}

/// What `erlang:apply/2` and `erlang:apply/3` call. A fun other than `fun M:F/A` is code that only its own node has.
fn resolve(module: Atom, function: Atom, args: Vec<Term>) -> Result<(Atom, Atom, Vec<Term>), Raised> {
    if module != "erlang" || function != "apply" {
        return Ok((module, function, args));
    }
    let args = match <[Term; 2]>::try_from(args) {
        Ok([Term::ExportFun(fun), Term::List(args)]) if args.len() == usize::from(fun.arity) => {
            return Ok((fun.module.clone(), fun.function.clone(), args.into_vec()));
        }
        Ok([Term::Fun(fun), Term::List(args)]) => {
            let at = (Term::Atom(fun.module.clone()), Term::atom("-fun-"), Term::List(args), Term::list([]));
            return Err(Raised {
                class: Class::Error,
                reason: Term::atom("undef"),
                stack: Term::list([Term::from(at)]),
            });
        }
        Ok(args) => return Err(Raised::badarg("erlang", "apply", Vec::from(args))),
        Err(args) => args,
    };
    match <[Term; 3]>::try_from(args) {
        Ok([Term::Atom(module), Term::Atom(function), Term::List(args)]) => {
            Ok((module, function, args.into_vec()))
        }
        Ok(args) => Err(Raised::badarg("erlang", "apply", Vec::from(args))),
        Err(args) => Err(Raised::undef(module, function, args)),
    }
}

/// Calls a function of this node on a process of its own, which prints through `leader`.
pub(super) async fn call_here(
    caller: &Handle,
    leader: Pid,
    module: Atom,
    function: Atom,
    args: Vec<Term>,
) -> Result<Term, Raised> {
    let start = SpawnOptions::default().group_leader(leader);
    match caller.node().process_opt(&start) {
        Ok(process) => apply(process, module, function, args).await,
        Err(_) => Err(Raised::error(Term::atom("system_limit"))),
    }
}

/// What `rpc:call/4` returns for an exception.
pub(super) fn badrpc(raised: Raised) -> Term {
    let reason = match raised {
        Raised { class: Class::Throw, reason, .. } => return reason,
        Raised { class: Class::Exit, reason, .. } => reason,
        Raised { class: Class::Error, reason, stack } => Term::from((reason, stack)),
    };
    Term::from((Term::atom("badrpc"), Term::from((Term::atom("EXIT"), reason))))
}
