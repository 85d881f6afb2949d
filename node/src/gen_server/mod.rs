//! Servers that unmodified `gen_server` clients can call, and calls to unmodified `gen_server`s.
//!
//! The wire is OTP's `gen`: a request is `{'$gen_call', {Pid, Tag}, Request}`, its answer `{Tag, Reply}`. Since OTP 24 the
//! tag is `[alias | Ref]` and the answer goes to that alias, so what comes after a timeout is dropped on the way and never
//! lands in a mailbox.

mod client;
mod sys;

use core::future::Future;

use foundation_proto::etf::serde::{from_view, to_raw};
use foundation_proto::etf::{self, Atom, Pid, RawTerm, Reference, Tape, Term, View};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use client::DEFAULT_TIMEOUT;

use crate::error::{Error, Result};
use crate::process::{Dest, Handle, Message, Process, Reason, SpawnOptions};

/// A server in the manner of OTP's `gen_server`. One message is handled after the other, each to its end.
///
/// The types are anything that serde knows, [`Term`] and [`RawTerm`] for what should stay a term:
///
/// ```
/// use foundation_node::gen_server::{CallFrom, CallOutcome, GenServer, Next};
/// use foundation_node::process::Process;
///
/// struct Counter(i64);
///
/// /// `get`, or `{add, N}`.
/// #[derive(serde::Deserialize)]
/// #[serde(rename_all = "snake_case")]
/// enum Request {
///     Get,
///     Add(i64),
/// }
///
/// impl GenServer for Counter {
///     type Call = Request;
///     type Reply = i64;
///     type Cast = Request;
///
///     async fn handle_call(&mut self, request: Request, _: CallFrom, _: &mut Process) -> CallOutcome<i64> {
///         if let Request::Add(n) = request {
///             self.0 += n;
///         }
///         CallOutcome::Reply(self.0)
///     }
/// }
/// ```
///
/// Requests that are not of the type [`GenServer::Call`] are answered with `{error, {badarg, Text}}`, other casts are logged
/// and dropped: in Erlang they would end the server, and a server that everybody in the cluster can reach should not end
/// over a stranger's mistake.
pub trait GenServer: Sized + Send + 'static {
    /// What callers ask.
    type Call: DeserializeOwned + Send;
    /// What they get.
    type Reply: Serialize + Send + Sync;
    /// What comes without anybody waiting for an answer.
    type Cast: DeserializeOwned + Send;

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
#[derive(Clone, Debug)]
pub struct CallFrom {
    /// The caller.
    pub pid: Pid,
    /// What the answer has to repeat, as it came.
    tag: RawTerm,
    /// Where the answer goes, if the tag says so: `[alias | Ref]` or `[[alias | Ref] | …]`.
    alias: Option<Reference>,
}

impl CallFrom {
    /// Reads `{Pid, Tag}`.
    fn read(message: &RawTerm, from: View<'_>) -> Option<Self> {
        let [pid, tag] = from.tuple()?;
        let is_alias = |list: View<'_>| {
            let mut elements = list.elements();
            elements.next().is_some_and(|first| first.is_atom("alias")) && elements.next().is_none()
        };
        let head = tag.elements().next().filter(|head| is_alias(*head));
        let alias = head.or_else(|| Some(tag).filter(|tag| is_alias(*tag)));
        Some(Self {
            pid: pid.as_pid()?,
            tag: message.inner(tag)?,
            alias: alias.and_then(View::tail).and_then(View::as_reference),
        })
    }

    /// Reads `{Pid, Tag}` where it is a whole term.
    pub(crate) fn from_raw(from: &RawTerm) -> Option<Self> {
        Self::read(from, from.view(&mut Tape::new()).ok()?)
    }

    /// Answers the call: `{Tag, Reply}` (`gen_server:reply/2`). Any process may do so, once.
    ///
    /// # Errors
    /// As [`Handle::send_raw`]; [`Error::Value`] if the reply has no term.
    pub async fn reply(self, process: &Handle, reply: impl Serialize) -> Result<()> {
        let message = to_raw(&(&self.tag, reply))?;
        process.send_raw(self.dest(), message).await
    }

    /// The same without waiting for a busy connection: for services that answer many.
    pub(crate) fn reply_now(self, process: &Handle, reply: &Term) -> Result<()> {
        let message = to_raw(&(&self.tag, reply))?;
        process.send_now(self.dest(), message)
    }

    fn dest(self) -> Dest {
        self.alias.map_or_else(|| Dest::from(self.pid), Dest::from)
    }

    /// Whether the caller runs OTP 26 or later: its aliases have five words, which carry its pid.
    fn is_otp_26(&self) -> bool {
        self.alias.as_ref().is_some_and(|alias| alias.words().len() == Reference::MAX_WORDS)
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
            let registered = Atom::new(name)
                .map_err(|_| {
                    Error::Term(foundation_proto::Error::ApiMisuse("an atom has at most 255 characters"))
                })
                .and_then(|name| handle.register(name));
            if let Err(error) = registered {
                handle.stop(Reason::NORMAL);
                return Err(error);
            }
        }
        if options.link {
            self.node.link_local(&self.proc, handle.pid());
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
        let next = match Incoming::read(message) {
            Incoming::Call(from, request) => call(server, from, request, process).await,
            Incoming::Cast(Ok(message)) => server.handle_cast(message, process).await,
            Incoming::Cast(Err(error)) => {
                tracing::warn!(pid = ?process.pid(), %error, "a cast that the server does not know was dropped");
                Next::Continue
            }
            Incoming::System(from, request) => sys::handle(server, from, request, process).await,
            // A parent that ends takes its server with it, trapping or not.
            Incoming::Info(Message::Exit(exit)) if parent.as_ref() == Some(&exit.from) => {
                Next::Stop(exit.reason)
            }
            Incoming::Info(message) => server.handle_info(message, process).await,
        };
        if let Next::Stop(reason) = next {
            return reason;
        }
    }
}

async fn call<S: GenServer>(
    server: &mut S,
    from: CallFrom,
    request: Result<S::Call, etf::serde::Error>,
    process: &mut Process,
) -> Next {
    let request = match request {
        Ok(request) => request,
        Err(error) => {
            let why = (Atom::new_static("badarg"), error.to_string());
            return sent(from.reply(process, (Atom::new_static("error"), why)).await);
        }
    };
    match server.handle_call(request, from.clone(), process).await {
        CallOutcome::Reply(reply) => sent(from.reply(process, reply).await),
        CallOutcome::NoReply => Next::Continue,
        CallOutcome::StopWithReply(reason, reply) => {
            sent(from.reply(process, reply).await);
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

/// A message as a server sees it, with the requests as values if they are of the types it knows.
pub(crate) enum Incoming<C, K> {
    /// `{'$gen_call', From, Request}`.
    Call(CallFrom, Result<C, etf::serde::Error>),
    /// `{'$gen_cast', Message}`.
    Cast(Result<K, etf::serde::Error>),
    /// `{system, From, Request}`.
    System(CallFrom, Term),
    /// Anything else.
    Info(Message),
}

impl<C: DeserializeOwned, K: DeserializeOwned> Incoming<C, K> {
    pub(crate) fn read(message: Message) -> Self {
        let mut tape = Tape::new();
        let incoming = message.as_raw().and_then(|raw| {
            let view = raw.view(&mut tape).ok()?;
            if let Some([label, from, request]) = view.tuple() {
                if label.is_atom("$gen_call") {
                    return Some(Self::Call(CallFrom::read(raw, from)?, from_view(raw, request)));
                }
                if label.is_atom("system") {
                    return Some(Self::System(CallFrom::read(raw, from)?, request.to_term()));
                }
            }
            let [label, request] = view.tuple()?;
            label.is_atom("$gen_cast").then(|| Self::Cast(from_view(raw, request)))
        });
        incoming.unwrap_or(Self::Info(message))
    }
}

/// The type of casts and calls for servers that take none.
#[derive(Debug, Deserialize)]
pub enum Never {}
