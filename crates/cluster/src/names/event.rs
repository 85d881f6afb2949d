//! What happens to a registry, and what its host has to do.

use std::sync::Arc;
use std::time::Duration;

use foundation_proto::etf::{Atom, Pid, Term};

use super::MonitorId;
use super::entry::Entry;

/// What becomes of a process that loses a unique key to one with an earlier claim.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum OnConflict {
    /// It gets the exit signal `{name_conflict, {Key, Value}, Registry, Winner}`, as from `Horde.Registry`.
    #[default]
    Exit,
    /// It gets this as a message, and lives on without the key.
    Notify,
}

/// What happens to a registry.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A connection to a node came up.
    NodeUp(Atom),
    /// The connection to a node is gone.
    NodeDown(Atom),
    /// A message arrived, calls included.
    Message {
        /// The message.
        message: Term,
        /// The time of the wall clock, in milliseconds since 1970: for claims that a call makes.
        wall: i64,
    },
    /// A monitor fired.
    Down(MonitorId),
    /// Something that a program on this node wants; [`Action::Done`] follows.
    Command {
        /// A number for [`Action::Done`].
        command: u64,
        /// What.
        what: Command,
        /// The time of the wall clock, in milliseconds since 1970.
        wall: i64,
    },
}

/// What a program wants.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Command {
    /// A process gets a key, until it ends.
    Register {
        /// The key.
        key: Term,
        /// The process: of this node, or of a node that has no registry of its own.
        pid: Pid,
        /// What to keep with it.
        value: Term,
        /// What becomes of it if another turns out to have a better right to the key.
        on_conflict: OnConflict,
    },
    /// A process gives up a key that was registered on this node.
    Unregister {
        /// The key.
        key: Term,
        /// The process.
        pid: Pid,
    },
    /// A process changes what is kept with its key.
    UpdateValue {
        /// The key.
        key: Term,
        /// The process.
        pid: Pid,
        /// What to keep with it from now on.
        value: Term,
    },
    /// Done when all members in reach have what was registered under a key on this node.
    WaitUntilAll {
        /// The key.
        key: Term,
        /// How long at most.
        timeout: Duration,
    },
}

/// What became of a command.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Outcome {
    /// It is done.
    Done,
    /// Another process has the key, or this process has it already.
    AlreadyRegistered(Pid),
    /// This node has registered no such process under the key.
    NotRegistered,
    /// Key and value are larger than [`Config::max_bytes`](super::Config::max_bytes).
    TooLarge,
    /// There is no room for more names, or for more callers that wait.
    SystemLimit,
    /// These nodes did not have it when the time was over.
    Timeout(Vec<Atom>),
}

/// What the host of a registry has to do.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Action {
    /// Send a message, without connecting to a node that is not connected.
    Send {
        /// The receivers; several get the same bytes.
        to: Vec<To>,
        /// The message.
        message: Term,
    },
    /// Answer a `GenServer.call/3`.
    Reply {
        /// The caller, `{Pid, Tag}`.
        from: Term,
        /// The answer.
        reply: Term,
    },
    /// Monitor a process, without connecting to its node: it fires at once if that is not connected.
    Monitor {
        /// How the machine will recognise it.
        monitor: MonitorId,
        /// The process.
        pid: Pid,
    },
    /// Give a monitor up; it must not fire any more.
    Demonitor(MonitorId),
    /// Send an exit signal.
    Exit {
        /// The process.
        to: Pid,
        /// Why.
        reason: Term,
    },
    /// What is found has changed.
    Changed(Vec<Change>),
    /// A command is done.
    Done {
        /// Its number.
        command: u64,
        /// How.
        outcome: Outcome,
    },
}

/// A destination.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum To {
    /// A process.
    Pid(Pid),
    /// The registry on a node.
    Server(Atom),
}

/// What was found under a key and is not any more, or the reverse.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Change {
    /// A process has a key.
    Added(Arc<Entry>),
    /// A process has another value under a key.
    Updated(Arc<Entry>),
    /// A process does not have a key any more, or its node is out of reach.
    Removed(Arc<Entry>),
    /// Two nodes have given a unique key away. `loser` will lose it.
    Conflict {
        /// Who keeps it.
        winner: Arc<Entry>,
        /// Who does not.
        loser: Arc<Entry>,
    },
}

/// What a registry has counted since it started, and how far the members are behind.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Stats {
    /// Messages that could not be understood.
    pub ignored: u64,
    /// Names of other nodes that were not taken in because there was no room.
    pub refused: u64,
    /// Keys of this node's processes that were lost to an earlier claim.
    pub conflicts: u64,
    /// Messages with writes, counted once for each member.
    pub pushed: u64,
    /// The writes of this node that are not known to be everywhere.
    pub behind: u64,
    /// For how long the slowest member has lacked something, as far as it is known: acknowledgements come after 100 ms.
    pub lag: Duration,
    /// The longest such time that has ended.
    pub slowest: Duration,
}
