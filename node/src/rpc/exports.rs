//! The functions of this node that others can call.

use core::fmt;
use core::future::Future;
use core::pin::Pin;
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use foundation_proto::etf::{Atom, Pid, Term};

use crate::error::{Class, Raised, Result};
use crate::node::Node;
use crate::process::Process;

/// A function that other nodes can call.
pub type Function =
    Arc<dyn Fn(RemoteCall) -> Pin<Box<dyn Future<Output = Result<Term, Raised>> + Send>> + Send + Sync>;

/// One call of an exported function, on the process that runs it.
#[derive(Debug)]
pub struct RemoteCall {
    /// The arguments.
    pub args: Vec<Term>,
    /// The process that was started for it. Its group leader prints where the caller is.
    pub process: Process,
}

impl RemoteCall {
    /// The process that asked; `None` if it was called within this node.
    pub fn caller(&self) -> Option<Pid> {
        self.process.parent()
    }
}

/// The table of exported functions.
#[derive(Default)]
pub(crate) struct Exports(RwLock<HashMap<(Atom, Atom, u8), Function>>);

impl Exports {
    pub(crate) fn get(&self, module: &Atom, function: &Atom, arity: u8) -> Option<Function> {
        let key = (module.clone(), function.clone(), arity);
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(&key).cloned()
    }

    pub(crate) fn insert(&self, module: Atom, function: Atom, arity: u8, run: Function) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert((module, function, arity), run);
    }

    pub(crate) fn remove(&self, module: &Atom, function: &Atom, arity: u8) -> bool {
        let key = (module.clone(), function.clone(), arity);
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(&key).is_some()
    }
}

impl fmt::Debug for Exports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.0.read().unwrap_or_else(PoisonError::into_inner).len();
        f.debug_tuple("Exports").field(&count).finish()
    }
}

impl Node {
    /// Offers a function to other nodes, as `Module:Function/Arity`: to `rpc`, `erpc` and `spawn`. It replaces an earlier
    /// one of that name. In Elixir a module `Lists` is the atom `'Elixir.Lists'`.
    pub fn export<F, R>(&self, module: &'static str, function: &'static str, arity: u8, run: F)
    where
        F: Fn(Vec<Term>) -> R + Send + Sync + 'static,
        R: Future<Output = Result<Term, Raised>> + Send + 'static,
    {
        self.export_call(module, function, arity, move |call: RemoteCall| {
            let RemoteCall { args, process } = call;
            let value = run(args);
            async move {
                let value = value.await;
                drop(process);
                value
            }
        });
    }

    /// The same for a function that wants to know who calls, or prints, or receives.
    pub fn export_call<F, R>(&self, module: &'static str, function: &'static str, arity: u8, run: F)
    where
        F: Fn(RemoteCall) -> R + Send + Sync + 'static,
        R: Future<Output = Result<Term, Raised>> + Send + 'static,
    {
        self.inner().exports.insert(
            Atom::new_static(module),
            Atom::new_static(function),
            arity,
            Arc::new(move |call| Box::pin(run(call))),
        );
    }

    /// Takes an exported function back; `false` if there was none. Calls under way go on.
    pub fn unexport(&self, module: &Atom, function: &Atom, arity: u8) -> bool {
        self.inner().exports.remove(module, function, arity)
    }
}

impl Raised {
    /// `erlang:error(Reason)`, without a stack.
    pub fn error(reason: impl Into<Term>) -> Self {
        Self { class: Class::Error, reason: reason.into(), stack: Term::list([]) }
    }

    /// `exit(Reason)`.
    pub fn exit(reason: impl Into<Term>) -> Self {
        Self { class: Class::Exit, reason: reason.into(), stack: Term::list([]) }
    }

    /// `throw(Value)`.
    pub fn throw(value: impl Into<Term>) -> Self {
        Self { class: Class::Throw, reason: value.into(), stack: Term::list([]) }
    }

    /// `undef` with the stack that Erlang gives it: `[{Module, Function, Args, []}]`.
    pub fn undef(module: Atom, function: Atom, args: Vec<Term>) -> Self {
        let at = Term::from((module, function, Term::list(args), Term::list([])));
        Self { class: Class::Error, reason: Term::atom("undef"), stack: Term::list([at]) }
    }

    /// `badarg` in a function.
    pub fn badarg(module: &'static str, function: &'static str, args: Vec<Term>) -> Self {
        let at = Term::from((Term::atom(module), Term::atom(function), Term::list(args), Term::list([])));
        Self { class: Class::Error, reason: Term::atom("badarg"), stack: Term::list([at]) }
    }
}
