//! Kernel's `rex` server: `rpc:block_call`, the calls of releases before OTP 23, and of C nodes.

use foundation_proto::etf::{Atom, Pid, RawTerm, Term};

use super::server::{badrpc, call_here};
use crate::error::Result;
use crate::gen_server::Incoming;
use crate::process::{Dest, Handle, Message, Process};

/// Handles one message.
pub(crate) async fn handle(message: Message, process: &Process) -> Result<()> {
    match Incoming::<Term, Term>::read(message) {
        Incoming::Call(from, Ok(request)) => match Mfa::from_call(request) {
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
        Incoming::Cast(Ok(request)) => match Mfa::from_call(request) {
            Some(mfa) => {
                process.spawn(move |worker: Process| async move {
                    run_here(&worker, mfa).await;
                })?;
                Ok(())
            }
            None => Ok(()),
        },
        Incoming::Info(Message::Term(raw)) => {
            let Ok(Term::Tuple(elements)) = raw.to_term(process.node.limits()) else { return Ok(()) };
            let Ok([Term::Pid(from), request]) = <[Term; 2]>::try_from(elements.into_vec()) else {
                return Ok(());
            };
            from_c_node(from, request, process).await
        }
        _ => Ok(()),
    }
}

/// `{From, Request}` as C nodes and old releases send it; the answer is `{rex, Result}`.
async fn from_c_node(from: Pid, request: Term, process: &Process) -> Result<()> {
    if request.is_atom("features_request") {
        let node = Term::Atom(process.node.name.clone());
        let reply = (Term::atom("features_reply"), node, Term::list([Term::atom("erpc")]));
        // Every `rex` asks this as soon as it is connected. If that has been ended meanwhile, an answer must not connect anew.
        return process.send_now(Dest::from(&from), RawTerm::from_term(&Term::from(reply))?);
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
