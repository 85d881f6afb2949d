//! The functions of OTP that tools call on any node, answered for a node that is no BEAM.
//!
//! observer, etop, LiveDashboard and operators in a shell ask a node about itself by remote calls of these modules. Each is
//! answered from what this node knows, in OTP's shape:
//!
//! | module | functions |
//! |---|---|
//! | `erlang` | [`erlang`]: nodes, processes, memory, system information, statistics, time |
//! | `application`, `code`, `init`, `net_kernel`, `os`, `proc_lib` | what tools ask of these |
//! | `global` | what its peers ask of a node that takes part |
//! | `observer_backend` | [`observer_backend`]: etop, and observer's System and Processes tabs |
//! | `Node`, `Process`, `Application` of Elixir | [`elixir`] |
//! | `Phoenix.LiveDashboard.SystemInfo` | [`live_dashboard`]: LiveDashboard's pages |
//!
//! # What a native node does not have
//! Nothing is made up. A list of properties leaves out what is not measured here (the memory of atoms, a number of atoms);
//! asking for such a property alone raises what Erlang raises for one that it does not know: `badarg`, or `notsup` in
//! `erlang:memory/1`. Some properties have a true value without any meaning: a native process runs no BEAM code, so it
//! has used 0 reductions and 0 words of heap, and its current function is `undefined`, which is what OTP says of native code.
//!
//! # What is served
//! [`Builtins`] in the configuration. Functions that only tell are served by default; none of them shows the environment,
//! the cookie, or what is in messages. A function of the same name that the program exports comes first.

mod application;
mod code;
mod elixir;
mod erlang;
mod global;
mod init;
mod live_dashboard;
mod net_kernel;
mod observer_backend;
mod os;
mod proc_lib;
mod process_info;
mod statistics;
mod system_info;

use core::future::Future;
use core::pin::Pin;
use std::sync::Arc;

use foundation_proto::etf::{Atom, Map, Term};

pub(crate) use statistics::Statistics;

use crate::config::Builtins;
use crate::error::{Class, Raised};
use crate::node::NodeInner;
use crate::process::Process;

/// The version that this node reports of itself where a release would report its own.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A call of a built-in function, on the process that was started for it.
struct Call<'a> {
    node: &'a Arc<NodeInner>,
    process: &'a Process,
    args: &'a [Term],
}

/// What a built-in function raises.
enum Fault {
    /// `badarg`, as of a BIF.
    Badarg,
    /// `function_clause`, as of a function that is written in Erlang.
    NoClause,
    /// Another error, as `notsup`.
    Error(Term),
}

type Answer = Result<Term, Fault>;

/// A function under way.
type Running = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// How a built-in function runs.
#[derive(Clone, Copy)]
enum Run {
    /// It has its answer at once.
    Now(fn(&Call<'_>) -> Answer),
    /// It sends messages, or runs for a while.
    Task(fn(Process, Vec<Term>) -> Running),
}

/// One function of a module.
struct Entry {
    function: &'static str,
    arity: u8,
    run: Run,
    /// Whether it changes something.
    acts: bool,
}

/// A function that only tells.
const fn tells(function: &'static str, arity: u8, run: fn(&Call<'_>) -> Answer) -> Entry {
    Entry { function, arity, run: Run::Now(run), acts: false }
}

/// Every module that this node has functions of.
const MODULES: &[(&str, &[Entry])] = &[
    ("erlang", erlang::FUNCTIONS),
    ("application", application::FUNCTIONS),
    ("code", code::FUNCTIONS),
    ("global", global::FUNCTIONS),
    ("init", init::FUNCTIONS),
    ("net_kernel", net_kernel::FUNCTIONS),
    ("proc_lib", proc_lib::FUNCTIONS),
    ("os", os::FUNCTIONS),
    ("observer_backend", observer_backend::FUNCTIONS),
    ("Elixir.Node", elixir::NODE),
    ("Elixir.Process", elixir::PROCESS),
    ("Elixir.Application", elixir::APPLICATION),
    (live_dashboard::MODULE, live_dashboard::FUNCTIONS),
];

/// A function that was found and is served.
pub(super) struct Builtin(Run);

/// The built-in function of this name, if there is one and it is served.
pub(super) fn find(node: &NodeInner, module: &Atom, function: &Atom, arity: usize) -> Option<Builtin> {
    let entry = entry(module, function, arity)?;
    let served = match node.config.builtins {
        Builtins::None => false,
        Builtins::Read => !entry.acts,
        Builtins::Stop => true,
    };
    served.then_some(Builtin(entry.run))
}

fn entry(module: &Atom, function: &Atom, arity: usize) -> Option<&'static Entry> {
    let (_, functions) = MODULES.iter().find(|(name, _)| module == name)?;
    functions.iter().find(|entry| usize::from(entry.arity) == arity && function == entry.function)
}

/// Whether this node has functions of a module.
fn has_module(module: &Atom) -> bool {
    MODULES.iter().any(|(name, _)| module == name)
}

impl Builtin {
    pub(super) async fn run(
        self,
        process: Process,
        module: Atom,
        function: Atom,
        args: Vec<Term>,
    ) -> Result<Term, Raised> {
        let answer = match self.0 {
            Run::Now(run) => run(&Call { node: &process.node, process: &process, args: &args }),
            Run::Task(run) => run(process, args.clone()).await,
        };
        answer.map_err(|fault| {
            let reason = match fault {
                Fault::Badarg => Term::atom("badarg"),
                Fault::NoClause => Term::atom("function_clause"),
                Fault::Error(reason) => reason,
            };
            let at = Term::from((module, function, Term::list(args), Term::nil()));
            Raised { class: Class::Error, reason, stack: Term::list([at]) }
        })
    }
}

/// `{Key, Value}`.
fn pair(key: &'static str, value: impl Into<Term>) -> Term {
    Term::from((Term::atom(key), value.into()))
}

/// A map with atoms as keys.
fn map(pairs: impl IntoIterator<Item = (&'static str, Term)>) -> Term {
    Term::Map(pairs.into_iter().map(|(key, value)| (Term::atom(key), value)).collect::<Map>())
}

/// `{Module, Function, Arity}`.
fn mfa((module, function, arity): &(Atom, Atom, u8)) -> Term {
    Term::from((module, function, *arity))
}

#[cfg(test)]
mod tests;
