//! Servers that unmodified `gen_server` clients can call, and calls to unmodified `gen_server`s.
//!
//! The wire is OTP's `gen`: a request is `{'$gen_call', {Pid, Tag}, Request}`, its answer `{Tag, Reply}`. Since OTP 24 the
//! tag is `[alias | Ref]` and the answer goes to that alias, so what comes after a timeout is dropped on the way and never
//! lands in a mailbox.

mod client;
mod sys;

use core::future::Future;

pub use client::DEFAULT_TIMEOUT;

use foundation_proto::etf::{Pid, Reference, Term};

use crate::error::{Error, Result};
use crate::process::{Dest, Handle, Message, Process, Reason, SpawnOptions};

/// A server in the manner of OTP's `gen_server`. One message is handled after the other, each to its end.
///
/// Requests that are not of the type [`GenServer::Call`] are answered with `{error, {badarg, Text}}`, other casts are logged
/// and dropped: in Erlang they would end the server, and a server that everybody in the cluster can reach should not end
/// over a stranger's mistake.
pub trait GenServer: Sized + Send + 'static {
    /// What callers ask.
    type Call: TryFrom<Term, Error: Send> + Send;
    /// What they get.
    type Reply: TryInto<Term, Error: Send> + Send;
    /// What comes without anybody waiting for an answer.
    type Cast: TryFrom<Term, Error: Send> + Send;

    /// Runs before the first message; an error ends the server with that reason.
    fn init(&mut self, process: &mut Process) -> impl Future<Output = Result<(), Reason>> + Send {
        let _ = process;
        async { Ok(()) }
    }

    /// Answers a call, now or later through `from`.
    fn handle_call(
        &mut self,
        request: Self::Call,
        from: CallFrom,
        process: &mut Process,
    ) -> impl Future<Output = CallOutcome<Self::Reply>> + Send;

    /// Handles a cast.
    fn handle_cast(
        &mut self,
        message: Self::Cast,
        process: &mut Process,
    ) -> impl Future<Output = Next> + Send {
        let _ = (message, process);
        async { Next::Continue }
    }

    /// Handles everything else: ordinary messages, trapped exits, `DOWN`s.
    fn handle_info(&mut self, message: Message, process: &mut Process) -> impl Future<Output = Next> + Send {
        tracing::warn!(pid = ?process.pid(), ?message, "a server received a message that it does not handle");
        async { Next::Continue }
    }

    /// Runs when the server ends by itself or is told to stop; not when an exit signal ends it.
    fn terminate(&mut self, reason: &Reason, process: &mut Process) -> impl Future<Output = ()> + Send {
        let _ = (reason, process);
        async {}
    }

    /// What `sys:get_state/1` and `:sys.get_state/1` show.
    fn state(&self) -> Term {
        Term::atom("undefined")
    }
}

/// What a handled call comes to; OTP's `{reply, …}`, `{noreply, …}` and `{stop, …}`.
#[derive(Debug)]
pub enum CallOutcome<R> {
    /// The caller gets this.
    Reply(R),
    /// The caller gets an answer later, through [`CallFrom::reply`].
    NoReply,
    /// The caller gets this, then the server ends.
    StopWithReply(Reason, R),
    /// The server ends; the caller learns the reason.
    Stop(Reason),
}

/// How a server goes on.
#[derive(Debug)]
pub enum Next {
    /// With the next message.
    Continue,
    /// It ends.
    Stop(Reason),
}

/// Who called, and under which tag the answer is expected.
#[derive(Clone, Debug, PartialEq)]
pub struct CallFrom {
    /// The caller.
    pub pid: Pid,
    /// What the answer has to repeat.
    pub tag: Term,
}

impl CallFrom {
    /// Reads `{Pid, Tag}`.
    pub(crate) fn from_term(term: Term) -> Option<Self> {
        let Term::Tuple(elements) = term else { return None };
        let [Term::Pid(pid), tag] = <[Term; 2]>::try_from(elements.into_vec()).ok()? else { return None };
        Some(Self { pid, tag })
    }

    /// Where the answer goes: to the alias in the tag, `[alias | Ref]` or `[[alias | Ref] | …]`, else to the caller.
    fn dest(&self) -> Dest {
        match alias_of(&self.tag) {
            Some(alias) => Dest::Alias(alias.clone()),
            None => Dest::Pid(self.pid.clone()),
        }
    }

    /// Answers the call: `{Tag, Reply}` (`gen_server:reply/2`). Any process may do so, once.
    ///
    /// # Errors
    /// As [`Handle::send_raw`].
    pub async fn reply(self, process: &Handle, reply: impl Into<Term>) -> Result<()> {
        let dest = self.dest();
        process.send_term(dest, &Term::from((self.tag, reply.into()))).await
    }
}

/// The alias in the tag of a call.
fn alias_of(tag: &Term) -> Option<&Reference> {
    let Term::ImproperList(list) = tag else { return None };
    match &list.elements[..] {
        [head] if head.is_atom("alias") => list.tail.as_reference(),
        [Term::ImproperList(head)] if head.elements.first().is_some_and(|first| first.is_atom("alias")) => {
            head.tail.as_reference()
        }
        _ => None,
    }
}

impl Handle {
    /// Starts a server; `name` registers it before it can be called.
    ///
    /// # Errors
    /// [`Error::NameTaken`], [`Error::SystemLimit`].
    pub fn start_server<S: GenServer>(&self, name: Option<&str>, server: S) -> Result<Self> {
        self.start_server_opt(name, &SpawnOptions::default(), server)
    }

    /// The same with options.
    ///
    /// # Errors
    /// [`Error::NameTaken`], [`Error::SystemLimit`].
    pub fn start_server_opt<S: GenServer>(
        &self,
        name: Option<&str>,
        options: &SpawnOptions,
        server: S,
    ) -> Result<Self> {
        let handle = Self { proc: self.node.new_proc(Some(&self.proc), options)?, node: self.node.clone() };
        if let Some(name) = name {
            let registered = foundation_proto::etf::Atom::new(name)
                .map_err(|_| {
                    Error::Term(foundation_proto::Error::ApiMisuse("an atom has at most 255 characters"))
                })
                .and_then(|name| handle.register(name));
            if let Err(error) = registered {
                handle.stop(Reason::NORMAL);
                return Err(error);
            }
        }
        self.node.run(&handle.proc, |process| enter_loop(server, process));
        Ok(handle)
    }
}

/// Makes the process a server until it ends (`gen_server:enter_loop/3`); returns the reason to end with.
pub async fn enter_loop<S: GenServer>(mut server: S, mut process: Process) -> Reason {
    if let Err(reason) = server.init(&mut process).await {
        return reason;
    }
    let reason = serve(&mut server, &mut process).await;
    server.terminate(&reason, &mut process).await;
    reason
}

async fn serve<S: GenServer>(server: &mut S, process: &mut Process) -> Reason {
    let parent = process.parent();
    loop {
        let message = match process.recv().await {
            Ok(message) => message,
            Err(error) => return Reason::from(error),
        };
        let next = match Request::from_message(message, process) {
            Request::Call(from, request) => call(server, from, request, process).await,
            Request::Cast(message) => match S::Cast::try_from(message) {
                Ok(message) => server.handle_cast(message, process).await,
                Err(_) => {
                    tracing::warn!(pid = ?process.pid(), "a cast of another type than the server's was dropped");
                    Next::Continue
                }
            },
            Request::System(from, request) => sys::handle(server, from, request, process).await,
            // A parent that ends takes its server with it, trapping or not.
            Request::Info(Message::Exit { from, reason }) if parent.as_ref() == Some(&from) => {
                Next::Stop(reason)
            }
            Request::Info(message) => server.handle_info(message, process).await,
        };
        if let Next::Stop(reason) = next {
            return reason;
        }
    }
}

async fn call<S: GenServer>(server: &mut S, from: CallFrom, request: Term, process: &mut Process) -> Next {
    let Ok(request) = S::Call::try_from(request) else {
        let why = Term::from("the server does not know this request");
        let reply = Term::from((Term::atom("error"), Term::from((Term::atom("badarg"), why))));
        return sent(from.reply(process, reply).await);
    };
    let answer = |reply: S::Reply| reply.try_into().unwrap_or_else(|_| Term::atom("badarg"));
    match server.handle_call(request, from.clone(), process).await {
        CallOutcome::Reply(reply) => sent(from.reply(process, answer(reply)).await),
        CallOutcome::NoReply => Next::Continue,
        CallOutcome::StopWithReply(reason, reply) => {
            sent(from.reply(process, answer(reply)).await);
            Next::Stop(reason)
        }
        CallOutcome::Stop(reason) => Next::Stop(reason),
    }
}

/// A reply that nobody can get any more is no reason to stop serving others.
fn sent(outcome: Result<()>) -> Next {
    if let Err(error) = outcome {
        tracing::debug!(%error, "a reply was not sent");
    }
    Next::Continue
}

/// A message as a server sees it.
pub(crate) enum Request {
    Call(CallFrom, Term),
    Cast(Term),
    System(CallFrom, Term),
    Info(Message),
}

impl Request {
    pub(crate) fn from_message(message: Message, process: &Handle) -> Self {
        let Message::Term(raw) = &message else { return Self::Info(message) };
        let Ok(Term::Tuple(elements)) = raw.to_term(process.node.limits()) else {
            return Self::Info(message);
        };
        let label = match elements.first() {
            Some(label)
                if label.is_atom("$gen_call") || label.is_atom("system") || label.is_atom("$gen_cast") =>
            {
                label.clone()
            }
            _ => return Self::Info(message),
        };
        let mut rest = elements.into_vec().into_iter().skip(1);
        match (rest.next(), rest.next(), rest.next()) {
            (Some(cast), None, None) if label.is_atom("$gen_cast") => Self::Cast(cast),
            (Some(from), Some(request), None) if !label.is_atom("$gen_cast") => {
                match CallFrom::from_term(from) {
                    Some(from) if label.is_atom("system") => Self::System(from, request),
                    Some(from) => Self::Call(from, request),
                    None => Self::Info(message),
                }
            }
            _ => Self::Info(message),
        }
    }
}

/// The type of casts for servers that take none.
#[derive(Debug)]
pub enum Never {}

impl TryFrom<Term> for Never {
    type Error = Term;

    fn try_from(term: Term) -> Result<Self, Term> {
        Err(term)
    }
}
