//! Names of a `Horde.Registry` through one of its BEAM nodes, without a member of ours: nothing is replicated here.
//!
//! For a hidden node, a short program, or a cluster whose members are fixed. What is registered here is that BEAM node's: its registry
//! links to the process, and drops the name when the process ends or the connection breaks. Each operation is a request to that node;
//! [`HordeRegistry`](super::HordeRegistry) answers lookups by itself.
//!
//! Other BEAM nodes show a name of a hidden node's process by `select`, `count` and `keys`. Their `lookup` and `:via` do not, because
//! Horde looks for processes only on the nodes of `Node.list/0`.
//!
//! ```no_run
//! # async fn example(node: foundation_node::Node) -> foundation_node::Result<()> {
//! use foundation_proto::etf::Term;
//! let names = node.horde_client("MyApp.Registry", "app@host")?;
//! let worker = node.process()?;
//! names.register(Term::from("worker"), Term::atom("nil"), worker.pid()).await?;
//! if let Some((pid, _)) = names.lookup(&Term::from("theirs")).await? {
//!     worker.send_term(&pid, &Term::atom("hello")).await?;
//! }
//! # Ok(())
//! # }
//! ```

use std::time::Duration;

use foundation_proto::etf::{Atom, Pid, Term};

use super::Registered;
use crate::error::{Error, Result};
use crate::gen_server::DEFAULT_TIMEOUT;
use crate::net_kernel::NodeType;
use crate::node::Node;

const HORDE: &str = "Elixir.Horde.Registry";

/// A `Horde.Registry` as one BEAM node has it; cheap to clone.
#[derive(Clone, Debug)]
pub struct HordeClient {
    node: Node,
    registry: Atom,
    /// Horde's table of names, by its own rule.
    table: Atom,
    through: Atom,
    timeout: Duration,
}

impl HordeClient {
    pub(in crate::service) fn new(node: &Node, registry: Atom, through: Atom) -> Result<Self> {
        let table = crate::node::atom(&format!("keys_{}", registry.as_str()))?;
        Ok(Self { node: node.clone(), registry, table, through, timeout: DEFAULT_TIMEOUT })
    }

    /// How long a request may take: 5 s.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// The node that is asked.
    pub fn through(&self) -> &Atom {
        &self.through
    }

    /// Who has this name, and with which value.
    ///
    /// A process on a node that the BEAM node does not see is found if it lives and this node is connected to its node, or has it itself.
    ///
    /// # Errors
    /// As [`Handle::erpc`](crate::Handle::erpc): [`Error::Raised`] if no such registry runs there, [`Error::NoConnection`],
    /// [`Error::Timeout`]; [`Error::Term`] if the answer is none of Horde's. So for all that asks the node.
    pub async fn lookup(&self, name: &Term) -> Result<Option<(Pid, Term)>> {
        if let [found] = &self.list("lookup", vec![name.clone()]).await?[..] {
            return pid_and_value(found).map(Some).ok_or_else(unexpected);
        }
        let table = vec![Term::Atom(self.table.clone()), name.clone()];
        let entries = list(self.node.erpc(&self.through, "ets", "lookup", table, self.timeout).await?)?;
        let Some(entry) = entries.first() else { return Ok(None) };
        let found =
            entry.as_tuple().and_then(<[Term]>::last).and_then(pid_and_value).ok_or_else(unexpected)?;
        Ok(self.is_alive(&found.0).await?.then_some(found))
    }

    async fn is_alive(&self, pid: &Pid) -> Result<bool> {
        if pid.node == *self.node.name() {
            return Ok(self.node.is_process_alive(pid));
        }
        if !self.node.nodes(NodeType::Connected).contains(&pid.node) {
            return Ok(false);
        }
        let args = vec![Term::Pid(pid.clone())];
        let alive = self.node.erpc(&pid.node, "erlang", "is_process_alive", args, self.timeout).await?;
        Ok(alive.is_atom("true"))
    }

    /// Gives a process of this node a name. As with Horde, two that register one name on two nodes at once both hear
    /// [`Registered::Yes`], and the process that loses gets the exit signal `{name_conflict, {Name, Value}, Registry, Winner}`.
    ///
    /// # Errors
    /// As [`HordeClient::lookup`] and [`Handle::call`](crate::Handle::call).
    pub async fn register(&self, name: Term, value: Term, pid: &Pid) -> Result<Registered> {
        if let Some((holder, _)) = self.lookup(&name).await? {
            return Ok(Registered::Already(holder));
        }
        let answer = self.call([Term::atom("register"), name, value, Term::Pid(pid.clone())]).await?;
        match answer.as_tuple() {
            Some([ok, _]) if ok.is_atom("ok") => Ok(Registered::Yes),
            _ => Err(unexpected()),
        }
    }

    /// Takes a name from a process. Nothing happens if it does not have it: Horde would take it from whoever has.
    ///
    /// # Errors
    /// As [`HordeClient::register`].
    pub async fn unregister(&self, name: Term, pid: &Pid) -> Result<()> {
        if !self.keys(pid).await?.contains(&name) {
            return Ok(());
        }
        self.done([Term::atom("unregister"), name, Term::Pid(pid.clone())]).await
    }

    /// The names of a process, as the node has them.
    ///
    /// # Errors
    /// As [`HordeClient::lookup`].
    pub async fn keys(&self, pid: &Pid) -> Result<Vec<Term>> {
        self.list("keys", vec![Term::Pid(pid.clone())]).await
    }

    /// How many names there are.
    ///
    /// # Errors
    /// As [`HordeClient::lookup`].
    pub async fn count(&self) -> Result<usize> {
        let count = self.ask("count", Vec::new()).await?;
        count.as_i64().and_then(|count| usize::try_from(count).ok()).ok_or_else(unexpected)
    }

    /// All names with their processes and values, in one answer.
    ///
    /// # Errors
    /// As [`HordeClient::lookup`].
    pub async fn select(&self) -> Result<Vec<(Term, Pid, Term)>> {
        let pattern = || Term::tuple(["$1", "$2", "$3"].map(Term::atom));
        // A match specification: whatever it is, each of its three parts, as a tuple.
        let spec = Term::tuple([pattern(), Term::list([]), Term::list([Term::tuple([pattern()])])]);
        let entries = self.list("select", vec![Term::list([spec])]).await?;
        let entry = |entry: Term| match entry.as_tuple() {
            Some([name, Term::Pid(pid), value]) => Ok((name.clone(), pid.clone(), value.clone())),
            _ => Err(unexpected()),
        };
        entries.into_iter().map(entry).collect()
    }

    /// A value that belongs to the registry itself.
    ///
    /// # Errors
    /// As [`HordeClient::lookup`].
    pub async fn meta(&self, key: &Term) -> Result<Option<Term>> {
        let meta = self.ask("meta", vec![key.clone()]).await?;
        match meta.as_tuple() {
            Some([ok, value]) if ok.is_atom("ok") => Ok(Some(value.clone())),
            _ if meta.is_atom("error") => Ok(None),
            _ => Err(unexpected()),
        }
    }

    /// Writes such a value; `None` removes it.
    ///
    /// # Errors
    /// As [`HordeClient::register`].
    pub async fn put_meta(&self, key: Term, value: Option<Term>) -> Result<()> {
        match value {
            Some(value) => self.done([Term::atom("put_meta"), key, value]).await,
            None => self.done([Term::atom("delete_meta"), key]).await,
        }
    }

    /// Sends to whoever has this name.
    ///
    /// # Errors
    /// [`Error::NoProc`] if nobody has it; as [`HordeClient::lookup`] and [`Handle::send_raw`](crate::Handle::send_raw).
    pub async fn send(&self, name: &Term, message: &Term) -> Result<()> {
        let (pid, _) = self.lookup(name).await?.ok_or(Error::NoProc)?;
        self.node.send_term(&pid, message).await
    }

    /// A function of `Horde.Registry` with the registry as its first argument.
    async fn ask(&self, function: &str, more: Vec<Term>) -> Result<Term> {
        let mut args = vec![Term::Atom(self.registry.clone())];
        args.extend(more);
        self.node.erpc(&self.through, HORDE, function, args, self.timeout).await
    }

    async fn list(&self, function: &str, more: Vec<Term>) -> Result<Vec<Term>> {
        list(self.ask(function, more).await?)
    }

    /// A request to the registry's process.
    async fn call<const N: usize>(&self, request: [Term; N]) -> Result<Term> {
        let to = (self.registry.clone(), self.through.clone());
        self.node.call(to, Term::tuple(request), self.timeout).await
    }

    async fn done<const N: usize>(&self, request: [Term; N]) -> Result<()> {
        if self.call(request).await?.is_atom("ok") { Ok(()) } else { Err(unexpected()) }
    }
}

/// `{Pid, Value}`.
fn pid_and_value(term: &Term) -> Option<(Pid, Term)> {
    match term.as_tuple()? {
        [Term::Pid(pid), value] => Some((pid.clone(), value.clone())),
        _ => None,
    }
}

fn list(term: Term) -> Result<Vec<Term>> {
    match term {
        Term::List(elements) => Ok(elements.into_vec()),
        _ => Err(unexpected()),
    }
}

/// An answer that Horde does not give.
fn unexpected() -> Error {
    Error::Term(foundation_proto::Error::ApiMisuse("the registry's answer is none of Horde's"))
}
