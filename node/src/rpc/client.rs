//! Calling functions of other nodes, and starting processes there.

use core::time::Duration;
use std::sync::Arc;

use foundation_proto::dist::{ControlMessage, DistributionFlags, SpawnRequest};
use foundation_proto::etf::{Atom, Pid, RawTerm, Reference, Term};
use tokio::sync::oneshot;

use crate::error::{Class, Error, Raised, Result};
use crate::net::{Link, SendError};
use crate::process::{Answer, Dest, Entry, Handle, Message, Reason, RefWords, SpawnWait, transmit};

/// A process that was started on another node.
#[derive(Clone, Debug)]
pub struct RemoteSpawn {
    /// The new process.
    pub pid: Pid,
    /// The monitor, if one was asked for.
    pub monitor: Option<Reference>,
}

/// What to start, as Erlang names it.
struct Mfa {
    module: Atom,
    function: Atom,
    args: Vec<Term>,
}

impl Handle {
    /// Calls `Module:Function(Args…)` on another node and waits for its value (`erpc:call/5`).
    ///
    /// # Errors
    /// [`Error::Raised`] with what the function raised, [`Error::NoConnection`], [`Error::Timeout`], [`Error::Erpc`],
    /// [`Error::Spawn`] if the node does not start processes for others, [`Error::Exited`].
    pub async fn erpc(
        &self,
        node: &Atom,
        module: &str,
        function: &str,
        args: Vec<Term>,
        timeout: Duration,
    ) -> Result<Term> {
        let mfa = Mfa { module: name(module)?, function: name(function)?, args };
        let call = async {
            if *node == self.node.name {
                let leader = self.group_leader();
                return super::server::call_here(self, leader, mfa.module, mfa.function, mfa.args)
                    .await
                    .map_err(|raised| Error::Raised(Box::new(raised)));
            }
            let link = self.node.connection(node).await?;
            if link.is_busy() {
                link.writable().await;
            }
            if link.peer().flags.contains(DistributionFlags::SPAWN) {
                self.execute_call(&link, mfa).await
            } else {
                self.call_rex(node, mfa).await
            }
        };
        tokio::time::timeout(timeout, call).await.unwrap_or(Err(Error::Timeout))
    }

    /// Calls `Module:Function(Args…)` on another node as `rpc:call/5` does: what it raises comes back as the value
    /// `{badrpc, {'EXIT', Reason}}`, and a thrown value as if it were returned.
    ///
    /// # Errors
    /// As [`Handle::erpc`], but never [`Error::Raised`].
    pub async fn rpc(
        &self,
        node: &Atom,
        module: &str,
        function: &str,
        args: Vec<Term>,
        timeout: Duration,
    ) -> Result<Term> {
        match self.erpc(node, module, function, args, timeout).await {
            Err(Error::Raised(raised)) => Ok(super::server::badrpc(*raised)),
            outcome => outcome,
        }
    }

    /// Starts `Module:Function(Args…)` on another node and does not wait for anything (`erpc:cast/4`).
    ///
    /// # Errors
    /// [`Error::NoConnection`], [`Error::Exited`].
    pub async fn rpc_cast(&self, node: &Atom, module: &str, function: &str, args: Vec<Term>) -> Result<()> {
        let args = vec![Term::Atom(name(module)?), Term::Atom(name(function)?), Term::list(args)];
        let mfa = Mfa { module: Atom::new_static("erpc"), function: Atom::new_static("execute_cast"), args };
        let link = self.node.connection(node).await?;
        if link.is_busy() {
            link.writable().await;
        }
        // Nobody waits for the reply; when it comes nothing has to be undone.
        self.request_spawn(&link, mfa, &[], Entry::default()).map(|_| ())
    }

    /// Starts `Module:Function(Args…)` on another node (`spawn/4`, `spawn_link/4`, `spawn_monitor/4`).
    ///
    /// # Errors
    /// [`Error::Spawn`] with the reason of the other node, [`Error::NoConnection`], [`Error::Exited`].
    pub async fn spawn_remote(
        &self,
        node: &Atom,
        module: &str,
        function: &str,
        args: Vec<Term>,
        link_it: bool,
        monitor_it: bool,
    ) -> Result<RemoteSpawn> {
        let mfa = Mfa { module: name(module)?, function: name(function)?, args };
        let link = self.node.connection(node).await?;
        if link.is_busy() {
            link.writable().await;
        }
        let mut options = Vec::new();
        if link_it {
            options.push("link");
        }
        if monitor_it {
            options.push("monitor");
        }
        let mut wait = self.request_spawn(&link, mfa, &options, Entry::default())?;
        let pid = wait.reply().await?;
        Ok(RemoteSpawn { pid, monitor: monitor_it.then(|| wait.keep()) })
    }

    /// `erpc:execute_call/4` on a process of its own; its exit reason is the outcome.
    async fn execute_call(&self, link: &Arc<Link>, mfa: Mfa) -> Result<Term> {
        let (entry, answer) = Entry::waiting(None);
        // Any reference will do; it marks the exit reason as the outcome and not an accident.
        let (_, result) = self.node.ids.reference(self.proc.number);
        let args =
            vec![Term::from(&result), Term::Atom(mfa.module), Term::Atom(mfa.function), Term::list(mfa.args)];
        let call = Mfa { module: Atom::new_static("erpc"), function: Atom::new_static("execute_call"), args };
        let mut wait = self.request_spawn(link, call, &["monitor"], entry)?;
        wait.reply().await?;
        match answer.await {
            Ok(Answer::Down(reason)) => outcome(reason, &result, &link.peer().name, self),
            Ok(Answer::Reply(_)) => Err(Error::Erpc(Atom::new_static("badarg"))),
            Err(_) => Err(Error::Exited(self.exit_reason().unwrap_or(Reason::NORMAL))),
        }
    }

    /// For peers without SPAWN: `{From, {call, M, F, A, GroupLeader}}` to `rex`, answered by `{rex, Result}`.
    async fn call_rex(&self, node: &Atom, mfa: Mfa) -> Result<Term> {
        let mut caller = self.node().process()?;
        let rex = Dest::Remote { name: Atom::new_static("rex"), node: node.clone() };
        let monitor = caller.monitor(rex.clone()).await?;
        let request = Term::from((
            Term::atom("call"),
            Term::Atom(mfa.module),
            Term::Atom(mfa.function),
            Term::list(mfa.args),
            Term::Pid(self.group_leader()),
        ));
        caller.send_term(rex, &Term::from((Term::from(caller.pid()), request))).await?;
        loop {
            match caller.recv().await? {
                Message::Down(down) if down.reference == monitor => {
                    return Err(Error::from_down(down.reason, node));
                }
                Message::Term(raw) => {
                    let Term::Tuple(elements) = raw.to_term(self.node.limits())? else { continue };
                    if let Ok([label, result]) = <[Term; 2]>::try_from(elements.into_vec())
                        && label.is_atom("rex")
                    {
                        return Ok(result);
                    }
                }
                _ => {}
            }
        }
    }

    /// Sends a SPAWN_REQUEST; the reference of `entry` names it, and its monitor if one is asked for.
    fn request_spawn(
        &self,
        link: &Arc<Link>,
        mfa: Mfa,
        options: &[&'static str],
        entry: Entry,
    ) -> Result<SpawnReply<'_>> {
        let arity =
            u8::try_from(mfa.args.len()).map_err(|_| Error::Erpc(Atom::new_static("system_limit")))?;
        let args = RawTerm::from_term(&Term::list(mfa.args))?;
        let (words, reference) = self.node.ids.reference(self.proc.number);
        let (reply, answer) = oneshot::channel();
        let mut state = self.proc.state();
        if let Some(reason) = &state.exited {
            return Err(Error::Exited(reason.clone()));
        }
        if !link.mld().add_own(self.proc.number) {
            return Err(Error::no_connection(&link.peer().name));
        }
        let spawn = Some(SpawnWait { link: Arc::clone(link), reply });
        state.references.insert(words, Entry { spawn, ..entry });
        let control = ControlMessage::SpawnRequest(Box::new(SpawnRequest {
            req_id: reference.clone(),
            from: self.proc.pid.clone(),
            group_leader: state.group_leader.clone(),
            module: mfa.module,
            function: mfa.function,
            arity,
            options: Term::list(options.iter().map(|option| Term::atom(option))),
        }));
        if let Err(SendError::Refused(error)) = link.send(self.proc.lane(), &control, Some(&args)) {
            // Nobody would ever answer.
            state.references.remove(&words);
            link.mld().remove(self.proc.number);
            return Err(Error::Term(error));
        }
        Ok(SpawnReply {
            handle: self,
            link: Arc::clone(link),
            words,
            reference,
            answer: Some(answer),
            kept: false,
        })
    }
}

/// The reply to a SPAWN_REQUEST. Dropped before it came, the request is given up: a process that starts nevertheless is
/// told so when the reply comes. Dropped later, its monitor ends unless it is kept.
struct SpawnReply<'a> {
    handle: &'a Handle,
    link: Arc<Link>,
    words: RefWords,
    reference: Reference,
    answer: Option<oneshot::Receiver<Result<Pid>>>,
    kept: bool,
}

impl SpawnReply<'_> {
    async fn reply(&mut self) -> Result<Pid> {
        let Some(answer) = &mut self.answer else { return Err(Error::Timeout) };
        let pid = answer
            .await
            .unwrap_or_else(|_| Err(Error::Exited(self.handle.exit_reason().unwrap_or(Reason::NORMAL))));
        self.answer = None;
        pid
    }

    /// Leaves the monitor to the process.
    fn keep(&mut self) -> Reference {
        self.kept = true;
        self.reference.clone()
    }
}

impl Drop for SpawnReply<'_> {
    fn drop(&mut self) {
        let Handle { node, proc } = self.handle;
        if !self.kept {
            let entry = proc.state().references.remove(&self.words);
            if let Some(entry) = entry {
                node.drop_entry(proc, self.words, entry);
            }
        }
        // It came, but nobody took it: the new process must not stay linked to somebody who does not know it.
        if let Some(Ok(Ok(child))) = self.answer.as_mut().map(oneshot::Receiver::try_recv)
            && let Some(mut state) = proc.alive()
            && state.links.exit_received(&child).is_some()
        {
            self.link.mld().remove(proc.number);
            let control = ControlMessage::Exit { from: proc.pid.clone(), to: child };
            transmit(&self.link, proc.lane(), &control, Some(&Reason::ABANDONED.to_raw()));
        }
    }
}

fn name(text: &str) -> Result<Atom> {
    Atom::new(text)
        .map_err(|_| Error::Term(foundation_proto::Error::ApiMisuse("an atom has at most 255 characters")))
}

/// What the exit reason of `erpc:execute_call/4` says.
fn outcome(reason: Reason, result: &Reference, node: &Atom, handle: &Handle) -> Result<Term> {
    let raw = match &reason {
        Reason::Term(raw) => raw,
        Reason::Atom(_) if reason.is("noconnection") => return Err(Error::no_connection(node)),
        Reason::Atom(_) => return Err(Error::Exit(reason)),
    };
    let Term::Tuple(elements) = raw.to_term(handle.node.limits())? else { return Err(Error::Exit(reason)) };
    let mut elements = elements.into_vec().into_iter();
    if elements.next().as_ref().and_then(Term::as_reference) != Some(result) {
        // The process was ended by somebody else.
        return Err(Error::Exit(reason));
    }
    let raised = |class, reason, stack| Err(Error::Raised(Box::new(Raised { class, reason, stack })));
    match (elements.next(), elements.next(), elements.next()) {
        (Some(kind), Some(value), None) if kind.is_atom("return") => Ok(value),
        (Some(kind), Some(value), None) if kind.is_atom("throw") => {
            raised(Class::Throw, value, Term::list([]))
        }
        (Some(kind), Some(value), None) if kind.is_atom("exit") => raised(Class::Exit, value, Term::list([])),
        (Some(kind), Some(value), Some(stack)) if kind.is_atom("error") => raised(Class::Error, value, stack),
        (Some(kind), Some(Term::Tuple(erpc)), None) if kind.is_atom("error") => match &erpc[..] {
            [_, Term::Atom(why)] => Err(Error::Erpc(why.clone())),
            _ => Err(Error::Exit(reason)),
        },
        _ => Err(Error::Exit(reason)),
    }
}
