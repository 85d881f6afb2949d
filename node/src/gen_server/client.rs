//! Calls to servers of any node.

use core::time::Duration;

use foundation_proto::dist::DistributionFlags;
use foundation_proto::etf::serde::{from_view, to_raw};
use foundation_proto::etf::{Atom, RawTerm, Tape, Term};
use serde::Serialize;
use serde::de::DeserializeOwned;

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
        request: impl Serialize,
        timeout: Duration,
    ) -> Result<Term> {
        self.call_as(server, request, timeout).await
    }

    /// The same with the answer as a value of a type: anything that serde knows.
    ///
    /// # Errors
    /// As [`Handle::call`]; [`Error::Value`] if the answer is not of the type.
    pub async fn call_as<R: DeserializeOwned>(
        &self,
        server: impl Into<Dest>,
        request: impl Serialize,
        timeout: Duration,
    ) -> Result<R> {
        self.gen_call("$gen_call", server.into(), &request, timeout).await
    }

    /// Sends a request that is not answered (`gen_server:cast/2`). Whether anybody gets it remains unknown.
    ///
    /// # Errors
    /// As [`Handle::send_raw`].
    pub async fn cast(&self, server: impl Into<Dest>, request: impl Serialize) -> Result<()> {
        match self.send(server.into(), &(Atom::new_static("$gen_cast"), request)).await {
            // As in Erlang: a cast to nobody is no error.
            Err(Error::NoProc) => Ok(()),
            sent => sent,
        }
    }

    /// Asks a process what every OTP process answers (stdlib's `sys`): `get_state`, `get_status`, `suspend`, `resume`, ….
    /// The answer to `get_state` is `{ok, State}` from OTP 26.1 on, and `State` before.
    ///
    /// # Errors
    /// As [`Handle::call`].
    pub async fn system_call(
        &self,
        process: impl Into<Dest>,
        request: impl Serialize,
        timeout: Duration,
    ) -> Result<Term> {
        self.gen_call("system", process.into(), &request, timeout).await
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
        let request = (Atom::new_static("terminate"), reason.to_raw());
        let ended = async {
            watcher.gen_call::<Term>("system", server, &request, timeout).await?;
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
    async fn gen_call<R: DeserializeOwned>(
        &self,
        label: &'static str,
        server: Dest,
        request: &impl Serialize,
        timeout: Duration,
    ) -> Result<R> {
        // Before anything waits: a request that has no term is nobody's business but the caller's.
        let request = to_raw(request)?;
        let label = Atom::new_static(label);
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
        match tokio::time::timeout(timeout, call).await {
            Ok(reply) => reply_of(&reply?),
            Err(_) => Err(Error::Timeout),
        }
    }

    /// A call in the name of this very process also towards peers without aliases, for servers that note who asks. An answer of
    /// such a peer that comes after the time is up lands in the mailbox.
    pub(crate) async fn call_as_self<R: DeserializeOwned>(
        &self,
        server: impl Into<Dest>,
        request: &impl Serialize,
        timeout: Duration,
    ) -> Result<R> {
        let call = self.call_by_alias(Atom::new_static("$gen_call"), server.into(), to_raw(request)?);
        match tokio::time::timeout(timeout, call).await {
            Ok(reply) => reply_of(&reply?),
            Err(_) => Err(Error::Timeout),
        }
    }

    async fn call_by_alias(&self, label: Atom, server: Dest, request: RawTerm) -> Result<RawTerm> {
        let node = self.node.remote_node(&server).unwrap_or(&self.node.name).clone();
        let (entry, answer) = Entry::waiting(Some(AliasKind::ReplyDemonitor));
        let (words, reference) = self.monitor_entry(server.clone(), entry).await?;
        let _call = Call::new(&self.node, &self.proc, words);
        let tag = Term::list_with_tail(vec![Term::atom("alias")], Term::from(&reference));
        // A server that is gone says so by the monitor.
        match self.send(server, &(label, (self.pid(), tag), request)).await {
            Ok(()) | Err(Error::NoProc | Error::NoConnection { .. }) => {}
            Err(error) => return Err(error),
        }
        match answer.await {
            Ok(Answer::Reply(reply)) => Ok(reply),
            Ok(Answer::Down(reason)) => Err(Error::from_down(reason, &node)),
            Err(_) => Err(Error::Exited(self.exit_reason().unwrap_or(Reason::NORMAL))),
        }
    }

    /// For peers without aliases: called by a process of its own, so that a late answer finds nobody.
    async fn call_by_pid(&self, label: Atom, server: Dest, request: RawTerm) -> Result<RawTerm> {
        let node = self.node.remote_node(&server).unwrap_or(&self.node.name).clone();
        let mut caller = self.node().process()?;
        let reference = caller.monitor(server.clone()).await?;
        match caller.send(server, &(label, (caller.pid(), &reference), request)).await {
            Ok(()) | Err(Error::NoProc | Error::NoConnection { .. }) => {}
            Err(error) => return Err(error),
        }
        loop {
            match caller.recv().await? {
                Message::Down(down) if down.reference == reference => {
                    return Err(Error::from_down(down.reason, &node));
                }
                Message::Term(raw) => {
                    let mut tape = Tape::new();
                    let tag = raw.view(&mut tape)?.tuple().and_then(|[tag, _]| tag.as_reference());
                    if tag.as_ref() == Some(&reference) {
                        return Ok(raw);
                    }
                }
                _ => {}
            }
        }
    }
}

/// The second element of `{Tag, Reply}`.
fn reply_of<R: DeserializeOwned>(reply: &RawTerm) -> Result<R> {
    let mut tape = Tape::new();
    match reply.view(&mut tape)?.tuple() {
        Some([_, reply_view]) => Ok(from_view(reply, reply_view)?),
        // Whoever answers through the alias of a call but not as `gen` does has misunderstood it.
        None => Err(Error::Exit(Reason::Atom(Atom::new_static("bad_reply")))),
    }
}
