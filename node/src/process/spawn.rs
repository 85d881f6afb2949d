//! Starting processes on this node.

use core::any::Any;
use core::future::{Future, poll_fn};
use core::panic::AssertUnwindSafe;
use core::pin::pin;
use core::task::Poll;
use std::panic::catch_unwind;
use std::sync::Arc;

use bytes::Bytes;
use foundation_proto::etf::{Atom, Pid, Term};

use super::handle::Process;
use super::mailbox::MailboxLimit;
use super::proc::Proc;
use super::reason::Reason;
use crate::error::{Error, Result};
use crate::node::NodeInner;

/// How a process is started.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct SpawnOptions {
    /// How much its mailbox holds; what the node is configured with if not given.
    pub mailbox: Option<MailboxLimit>,
    /// Who prints for it; the starter's group leader if not given.
    pub group_leader: Option<Pid>,
    /// The function that introspection shows as its initial call.
    pub initial_call: Option<(Atom, Atom, u8)>,
    /// Whether it traps exits from the start.
    pub trap_exit: bool,
    /// Whether it is linked with its starter before it runs.
    pub link: bool,
}

impl SpawnOptions {
    /// With a mailbox of this size.
    #[must_use]
    pub fn mailbox(self, limit: MailboxLimit) -> Self {
        Self { mailbox: Some(limit), ..self }
    }

    /// With this group leader.
    #[must_use]
    pub fn group_leader(self, leader: Pid) -> Self {
        Self { group_leader: Some(leader), ..self }
    }

    /// Shown as started by `Module:Function/Arity`.
    #[must_use]
    pub fn initial_call(self, module: Atom, function: Atom, arity: u8) -> Self {
        Self { initial_call: Some((module, function, arity)), ..self }
    }

    /// Linked with its starter before it runs.
    #[must_use]
    pub fn link(self) -> Self {
        Self { link: true, ..self }
    }

    /// Trapping exits from the start, before anybody can send one.
    #[must_use]
    pub fn trap_exit(self) -> Self {
        Self { trap_exit: true, ..self }
    }
}

/// What the function of a process comes to: the reason that the process ends with.
pub trait Outcome {
    /// The reason.
    fn into_reason(self) -> Reason;
}

impl Outcome for () {
    fn into_reason(self) -> Reason {
        Reason::NORMAL
    }
}

impl Outcome for Reason {
    fn into_reason(self) -> Reason {
        self
    }
}

impl Outcome for Result<(), Reason> {
    fn into_reason(self) -> Reason {
        self.err().unwrap_or(Reason::NORMAL)
    }
}

impl Outcome for Result<()> {
    /// The reason that Erlang has for the error; the process's own if it was told to exit.
    fn into_reason(self) -> Reason {
        self.err().map_or(Reason::NORMAL, Reason::from)
    }
}

impl From<Error> for Reason {
    fn from(error: Error) -> Self {
        match error {
            Error::Exit(reason) | Error::Exited(reason) => reason,
            Error::NoProc => Self::NOPROC,
            Error::NoConnection { .. } => Self::NOCONNECTION,
            Error::Timeout => Self::from("timeout"),
            Error::Erpc(reason) => Self::from(Term::Tuple(
                [Term::Atom(Atom::new_static("erpc")), Term::Atom(reason)].into_iter().collect(),
            )),
            Error::Spawn(reason) => Self::Atom(reason),
            Error::Raised(raised) => Self::from(raised.reason),
            Error::NameTaken(_) | Error::Track(_) | Error::Term(_) | Error::Value(_) => Self::from("badarg"),
            Error::Full => Self::from("nosuspend"),
            Error::SystemLimit => Self::from("system_limit"),
            Error::NotMember => Self::from("not_member"),
        }
    }
}

impl NodeInner {
    /// A process that exists from now on, without anything that runs it.
    pub(crate) fn new_proc(&self, parent: Option<&Proc>, options: &SpawnOptions) -> Result<Arc<Proc>> {
        if self.processes.len() >= self.process_limit {
            return Err(Error::SystemLimit);
        }
        let leader = match (&options.group_leader, parent) {
            (Some(leader), _) => leader.clone(),
            (None, Some(parent)) => parent.state().group_leader.clone(),
            (None, None) => self.default_group_leader(),
        };
        let limit = options.mailbox.unwrap_or(self.mailbox_limit);
        loop {
            let number = self.ids.next_number();
            let proc = Proc::new(self.ids.pid(number), number, limit, leader.clone());
            {
                let mut state = proc.state();
                state.trap_exit = options.trap_exit;
                state.parent = parent.map(|parent| parent.pid.clone());
                if let Some(call) = &options.initial_call {
                    state.initial_call = call.clone();
                }
            }
            let proc = Arc::new(proc);
            // A number that is still in use after the count went round is left to its process.
            if self.processes.insert(Arc::clone(&proc)).is_ok() {
                return Ok(proc);
            }
        }
    }

    /// Runs a function as the process, until it is done or the process has to end.
    pub(crate) fn run<F, R>(self: &Arc<Self>, proc: &Arc<Proc>, function: F)
    where
        F: FnOnce(Process) -> R + Send + 'static,
        R: Future<Output: Outcome> + Send + 'static,
    {
        let process = Process::run_by_task(Arc::clone(self), Arc::clone(proc));
        let (node, of_task) = (Arc::clone(self), Arc::clone(proc));
        let task = self.runtime.spawn(async move {
            let mut body = pin!(async move { function(process).await });
            let outcome = poll_fn(|context| {
                match catch_unwind(AssertUnwindSafe(|| body.as_mut().poll(context))) {
                    Ok(poll) => poll.map(Ok),
                    // It is not polled again.
                    Err(panic) => Poll::Ready(Err(panic)),
                }
            });
            let reason = match outcome.await {
                Ok(outcome) => outcome.into_reason(),
                Err(panic) => panicked(&of_task, panic.as_ref()),
            };
            node.exit(&of_task, reason);
        });
        match proc.alive() {
            Some(mut state) => state.task = Some(task.abort_handle()),
            None => task.abort(),
        }
    }
}

/// The reason of a process whose function panicked: `{panic, Message}`.
fn panicked(proc: &Proc, panic: &(dyn Any + Send)) -> Reason {
    let message = panic
        .downcast_ref::<&str>()
        .map(|message| (*message).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_default();
    tracing::error!(pid = ?proc.pid, message, "the function of a process panicked");
    Reason::from(Term::Tuple(
        [Term::Atom(Atom::new_static("panic")), Term::Binary(Bytes::from(message))].into_iter().collect(),
    ))
}
