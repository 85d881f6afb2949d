//! Calls to servers of any node.

use core::time::Duration;

use foundation_proto::dist::DistributionFlags;
use foundation_proto::etf::{Atom, Reference, Term};

use crate::error::{Error, Result};
use crate::process::{AliasKind, Answer, Call, Dest, Entry, Handle, Message, Reason};

/// How long `gen_server:call/2` and `GenServer.call/2` wait.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);

impl Handle {
    /// Calls a server and waits for its answer (`gen_server:call/3`). Any number of calls may be under way at once.
    ///
    /// # Errors
    /// [`Error::NoProc`], [`Error::NoConnection`], [`Error::Timeout`], [`Error::Exit`] with the reason of a server that
    /// ended meanwhile, [`Error::Exited`].
    pub async fn call(
        &self,
        server: impl Into<Dest>,
        request: impl Into<Term>,
        timeout: Duration,
    ) -> Result<Term> {
        self.gen_call("$gen_call", server.into(), request.into(), timeout).await
    }

    /// Sends a request that is not answered (`gen_server:cast/2`). Whether anybody gets it remains unknown.
    ///
    /// # Errors
    /// As [`Handle::send_raw`].
    pub async fn cast(&self, server: impl Into<Dest>, request: impl Into<Term>) -> Result<()> {
        let message = Term::from((Term::atom("$gen_cast"), request.into()));
        match self.send_term(server, &message).await {
            // As in Erlang: a cast to nobody is no error.
            Err(Error::NoProc) => Ok(()),
            sent => sent,
        }
    }

    /// Asks a process what every OTP process answers (stdlib's `sys`): `get_state`, `get_status`, `suspend`, `resume`, …. The
    /// answer is what `sys` gets, `{ok, State}` for one.
    ///
    /// # Errors
    /// As [`Handle::call`].
    pub async fn system_call(
        &self,
        process: impl Into<Dest>,
        request: impl Into<Term>,
        timeout: Duration,
    ) -> Result<Term> {
        self.gen_call("system", process.into(), request.into(), timeout).await
    }

    /// Tells a server to end, and waits until it has (`gen_server:stop/3`).
    ///
    /// # Errors
    /// As [`Handle::call`]; [`Error::Exit`] if it ended with another reason than this one.
    pub async fn stop_server(
        &self,
        server: impl Into<Dest>,
        reason: impl Into<Reason>,
        timeout: Duration,
    ) -> Result<()> {
        let server = server.into();
        let reason = reason.into();
        let mut watcher = self.node().process()?;
        let monitor = watcher.monitor(server.clone()).await?;
        let request = Term::from((Term::atom("terminate"), reason.to_term(self.node.limits())?));
        let ended = async {
            watcher.gen_call("system", server, request, timeout).await?;
            let is_down =
                |message: &Message| matches!(message, Message::Down(down) if down.reference == monitor);
            match watcher.recv_match(is_down).await? {
                Message::Down(down) if down.reason == reason => Ok(()),
                Message::Down(down) => Err(Error::Exit(down.reason)),
                _ => Err(Error::Timeout),
            }
        };
        tokio::time::timeout(timeout, ended).await.unwrap_or(Err(Error::Timeout))
    }

    /// A request and its answer in the protocol of `gen`, whatever the label.
    pub(crate) async fn gen_call(
        &self,
        label: &'static str,
        server: Dest,
        request: Term,
        timeout: Duration,
    ) -> Result<Term> {
        // One deadline for everything, connecting included.
        let call = async {
            if let Some(node) = self.node.remote_node(&server) {
                let link = self.node.connection(node).await?;
                if !link.peer().flags.contains(DistributionFlags::ALIAS) {
                    return self.call_by_pid(label, server, request).await;
                }
            }
            self.call_by_alias(label, server, request).await
        };
        tokio::time::timeout(timeout, call).await.unwrap_or(Err(Error::Timeout))
    }

    async fn call_by_alias(&self, label: &'static str, server: Dest, request: Term) -> Result<Term> {
        let node = self.node.remote_node(&server).unwrap_or(&self.node.name).clone();
        let (entry, answer) = Entry::waiting(Some(AliasKind::ReplyDemonitor));
        let (words, reference) = self.monitor_entry(server.clone(), entry).await?;
        let _call = Call::new(&self.node, &self.proc, words);
        let tag = Term::list_with_tail(vec![Term::atom("alias")], Term::from(&reference));
        let from = Term::from((Term::from(self.pid()), tag));
        // A server that is gone says so by the monitor.
        match self.send_term(server, &Term::from((Term::atom(label), from, request))).await {
            Ok(()) | Err(Error::NoProc | Error::NoConnection { .. }) => {}
            Err(error) => return Err(error),
        }
        match answer.await {
            Ok(Answer::Reply(raw)) => reply_of(raw.to_term(self.node.limits())?),
            Ok(Answer::Down(reason)) => Err(Error::from_down(reason, &node)),
            Err(_) => Err(Error::Exited(self.exit_reason().unwrap_or(Reason::NORMAL))),
        }
    }

    /// For peers without aliases: called by a process of its own, so that a late answer finds nobody.
    async fn call_by_pid(&self, label: &'static str, server: Dest, request: Term) -> Result<Term> {
        let node = self.node.remote_node(&server).unwrap_or(&self.node.name).clone();
        let mut caller = self.node().process()?;
        let reference = caller.monitor(server.clone()).await?;
        let from = Term::from((Term::from(caller.pid()), Term::from(&reference)));
        match caller.send_term(server, &Term::from((Term::atom(label), from, request))).await {
            Ok(()) | Err(Error::NoProc | Error::NoConnection { .. }) => {}
            Err(error) => return Err(error),
        }
        loop {
            match caller.recv().await? {
                Message::Down(down) if down.reference == reference => {
                    return Err(Error::from_down(down.reason, &node));
                }
                Message::Term(raw) => {
                    let term = raw.to_term(self.node.limits())?;
                    if is_reply(&term, &reference) {
                        return reply_of(term);
                    }
                }
                _ => {}
            }
        }
    }
}

fn is_reply(term: &Term, tag: &Reference) -> bool {
    matches!(term.as_tuple(), Some([first, _]) if first.as_reference() == Some(tag))
}

/// The second element of `{Tag, Reply}`.
fn reply_of(term: Term) -> Result<Term> {
    let Term::Tuple(elements) = term else { return Err(bad_reply()) };
    elements.into_vec().into_iter().nth(1).ok_or_else(bad_reply)
}

#[cold]
fn bad_reply() -> Error {
    Error::Exit(Reason::Atom(Atom::new_static("bad_reply")))
}
