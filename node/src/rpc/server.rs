//! Calls of other nodes.

use std::sync::Arc;

use foundation_proto::dist::control::spawn_reply;
use foundation_proto::dist::{ControlMessage, Lane, LaneClass, SpawnRequest};
use foundation_proto::etf::{Atom, Pid, RawTerm, Term};

use super::exports::RemoteCall;
use crate::error::{Class, Raised, Result};
use crate::gen_server::{CallFrom, Request};
use crate::net::Link;
use crate::node::NodeInner;
use crate::process::{
    Handle, Message, Process, Reason, SpawnOptions, Watcher, WatcherKind, lane_of, transmit,
};

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
fn exit_reason(outcome: Result<Term, Raised>) -> Reason {
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

/// Calls an exported function on this process; `undef` if there is none.
async fn apply(process: Process, module: Atom, function: Atom, args: Vec<Term>) -> Result<Term, Raised> {
    let (module, function, args) = match resolve(module, function, args) {
        Ok(mfa) => mfa,
        Err(raised) => return Err(raised),
    };
    let exported =
        u8::try_from(args.len()).ok().and_then(|arity| process.node.exports.get(&module, &function, arity));
    match exported {
        Some(run) => run(RemoteCall { args, process }).await,
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

/// Starts the servers that answer to `rex` and `net_kernel`.
pub(crate) fn start(node: &Arc<NodeInner>) {
    let system = node.handle(&node.system());
    for (name, run) in [("rex", Server::Rex), ("net_kernel", Server::NetKernel)] {
        let Ok(proc) = node.new_proc(Some(&system.proc), &SpawnOptions::default().trap_exit()) else {
            continue;
        };
        // The names are free: nothing else runs yet.
        let _ = node.handle(&proc).register(Atom::new_static(name));
        node.run(&proc, move |process| serve(run, process));
    }
}

#[derive(Clone, Copy)]
enum Server {
    Rex,
    NetKernel,
}

async fn serve(server: Server, mut process: Process) -> Result<()> {
    loop {
        let message = process.recv().await?;
        let handled = match server {
            Server::Rex => rex(message, &process).await,
            Server::NetKernel => net_kernel(message, &process).await,
        };
        if let Err(error) = handled {
            tracing::debug!(%error, "an answer was not sent");
        }
    }
}

/// Kernel's `rpc` server: OTP before 23, `rpc:block_call`, and C nodes.
async fn rex(message: Message, process: &Process) -> Result<()> {
    match Request::from_message(message, process) {
        Request::Call(from, request) => match Mfa::from_call(request) {
            Some(mfa) if mfa.block => {
                let result = run_here(process, mfa).await;
                from.reply(process, result).await
            }
            Some(mfa) => {
                process.spawn(move |worker: Process| async move {
                    let result = run_here(&worker, mfa).await;
                    // The caller may be gone; then nobody misses it.
                    let _ = from.reply(&worker, result).await;
                })?;
                Ok(())
            }
            None => Ok(()),
        },
        // {cast, M, F, A, GroupLeader}
        Request::Cast(request) => match Mfa::from_call(request) {
            Some(mfa) => {
                process.spawn(move |worker: Process| async move {
                    run_here(&worker, mfa).await;
                })?;
                Ok(())
            }
            None => Ok(()),
        },
        Request::Info(Message::Term(raw)) => {
            let Ok(Term::Tuple(elements)) = raw.to_term(process.node.limits()) else { return Ok(()) };
            let Ok([Term::Pid(from), request]) = <[Term; 2]>::try_from(elements.into_vec()) else {
                return Ok(());
            };
            from_c_node(from, request, process).await
        }
        Request::System(..) | Request::Info(_) => Ok(()),
    }
}

/// `{From, Request}` as C nodes and old releases send it; the answer is `{rex, Result}`.
async fn from_c_node(from: Pid, request: Term, process: &Process) -> Result<()> {
    if request.is_atom("features_request") {
        let node = Term::Atom(process.node.name.clone());
        let reply = (Term::atom("features_reply"), node, Term::list([Term::atom("erpc")]));
        return process.send_term(&from, &Term::from(reply)).await;
    }
    if let Some([what, Term::Atom(name), message]) = request.as_tuple()
        && (what.is_atom("send") || what.is_atom("sbcast"))
    {
        let send = what.is_atom("send");
        // A `send` carries whom to answer, and that is up to the receiver; an `sbcast` is confirmed here.
        let message = if send { Term::from((&from, message.clone())) } else { message.clone() };
        let here = Term::Atom(process.node.name.clone());
        let answer = match process.send_term(name.clone(), &message).await {
            Ok(()) if send => return Ok(()),
            Ok(()) => here.clone(),
            Err(_) => Term::from((Term::atom("nonexisting_name"), Term::Atom(name.clone()))),
        };
        return process.send_term(&from, &Term::from((Term::atom("rex"), here, answer))).await;
    }
    let Some(mfa) = Mfa::from_call(request) else { return Ok(()) };
    process.spawn(move |worker: Process| async move {
        let result = run_here(&worker, mfa).await;
        let _ = worker.send_term(&from, &Term::from((Term::atom("rex"), result))).await;
    })?;
    Ok(())
}

/// `{call | block_call | cast, Module, Function, Args, GroupLeader}`.
struct Mfa {
    block: bool,
    module: Atom,
    function: Atom,
    args: Vec<Term>,
    group_leader: Option<Pid>,
}

impl Mfa {
    fn from_call(request: Term) -> Option<Self> {
        let Term::Tuple(elements) = request else { return None };
        let [kind, module, function, args, leader] = <[Term; 5]>::try_from(elements.into_vec()).ok()?;
        let block = kind.is_atom("block_call");
        if !block && !kind.is_atom("call") && !kind.is_atom("cast") {
            return None;
        }
        let (Term::Atom(module), Term::Atom(function), Term::List(args)) = (module, function, args) else {
            return None;
        };
        // C nodes write the name `user` in its place.
        Some(Self { block, module, function, args: args.into_vec(), group_leader: leader.as_pid().cloned() })
    }
}

/// Runs a function as `rpc` does: the value, or `{badrpc, {'EXIT', Reason}}`; a thrown value is a value.
async fn run_here(worker: &Handle, mfa: Mfa) -> Term {
    let leader = mfa.group_leader.unwrap_or_else(|| worker.group_leader());
    match call_here(worker, leader, mfa.module, mfa.function, mfa.args).await {
        Ok(value) => value,
        Err(raised) => badrpc(raised),
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

/// What is asked of every node's `net_kernel`.
async fn net_kernel(message: Message, process: &Process) -> Result<()> {
    let Request::Call(from, request) = Request::from_message(message, process) else { return Ok(()) };
    let Some(elements) = request.as_tuple() else { return Ok(()) };
    match elements {
        // `net_adm:ping/1`: whoever got here has proved the cookie.
        [what, _] if what.is_atom("is_auth") => from.reply(process, Term::atom("yes")).await,
        // How OTP 23 spawns on peers without SPAWN.
        [what, Term::Atom(module), Term::Atom(function), Term::List(args), leader]
            if what.is_atom("spawn") =>
        {
            let pid = spawn_for(process, &from, module, function, args.to_vec(), leader, false)?;
            from.reply(process, pid).await
        }
        [what, Term::Atom(module), Term::Atom(function), Term::List(args), leader]
            if what.is_atom("spawn_link") =>
        {
            let pid = spawn_for(process, &from, module, function, args.to_vec(), leader, true)?;
            from.reply(process, pid).await
        }
        [what, Term::Atom(module), Term::Atom(function), Term::List(args), _, link, leader]
            if what.is_atom("spawn_opt") =>
        {
            let pid =
                spawn_for(process, &from, module, function, args.to_vec(), leader, link.is_atom("link"))?;
            from.reply(process, pid).await
        }
        _ => Ok(()),
    }
}

fn spawn_for(
    process: &Process,
    from: &CallFrom,
    module: &Atom,
    function: &Atom,
    args: Vec<Term>,
    leader: &Term,
    link: bool,
) -> Result<Term> {
    let leader = leader.as_pid().unwrap_or(&from.pid).clone();
    let start = SpawnOptions::default().group_leader(leader);
    let (module, function) = (module.clone(), function.clone());
    let caller = from.pid.clone();
    let child = process.spawn_opt(&start, move |child: Process| async move {
        if link {
            child.link(&caller).await;
        }
        exit_reason(apply(child, module, function, args).await)
    })?;
    Ok(Term::from(child.pid()))
}
