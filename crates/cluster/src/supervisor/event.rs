//! What happens to a supervisor, and what its host has to do.

use std::sync::Arc;

use foundation_proto::etf::{Atom, Pid, Term};

use super::spec::{Child, ChildSpec, Part};
use crate::Key;
pub use crate::names::{MonitorId, To};

/// A start of a child on this node. Numbers are never reused.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct StartId(pub u64);

/// What happens to a supervisor.
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
        /// The time of the wall clock, in milliseconds since 1970.
        wall: i64,
    },
    /// A monitor fired.
    Down(MonitorId),
    /// This node can make children of a kind from now on.
    Factory(Atom),
    /// A child that [`Action::Start`] asked for runs.
    Started {
        /// Which.
        start: StartId,
        /// Its process.
        pid: Pid,
    },
    /// A child has ended, or could not be started: nothing of it runs any more.
    Ended {
        /// Which.
        start: StartId,
        /// Why.
        reason: Term,
        /// The state that it gave for its successor.
        state: Option<Term>,
    },
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
    /// A child is to run from now on, until it is terminated or has ended for good. Done when it runs.
    StartChild(Box<ChildSpec>),
    /// A child is not to run any more. Done when nothing of it is left on the nodes in reach.
    TerminateChild(Term),
    /// A child that was given up is to be tried again.
    RestartChild(Term),
    /// A process of a child is to run on another node, with the state that it gives. Done when that node has it.
    Migrate {
        /// The child.
        id: Term,
        /// Which of its processes.
        part: Part,
        /// The node.
        to: Atom,
    },
    /// This node leaves: its children go to others, and it is given none any more. Done when it has none.
    Drain,
}

/// What became of a command.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Outcome {
    /// It is done.
    Done,
    /// These processes run.
    Started(Vec<(Part, Pid)>),
    /// There is such a child; these of its processes run.
    AlreadyStarted(Vec<(Part, Pid)>),
    /// There is no such child (any more).
    NotFound,
    /// No node in reach has the factory.
    NoFactory,
    /// The child needs a majority, and no members are configured.
    NoMembers,
    /// The node is not in reach, leaves, or lacks the factory.
    NoSuchNode,
    /// It was started too often in too short a time, and is given up.
    GivenUp(Term),
    /// It was not done in time. What was asked for still counts.
    Timeout,
    /// The specification makes no sense, or is too large.
    BadSpec,
    /// There are too many children or callers.
    SystemLimit,
}

/// What the host of a supervisor has to do.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Action {
    /// Send a message, without connecting to a node that is not connected.
    Send {
        /// The receivers.
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
    /// Monitor a process, without connecting to its node.
    Monitor {
        /// How the machine will recognise it.
        monitor: MonitorId,
        /// The process.
        pid: Pid,
    },
    /// Give a monitor up; it must not fire any more.
    Demonitor(MonitorId),
    /// Start a child; [`Event::Started`] or [`Event::Ended`] follows, and at its end [`Event::Ended`].
    Start {
        /// Which.
        start: StartId,
        /// What to start.
        spec: Arc<ChildSpec>,
        /// Which of its processes.
        part: Part,
        /// The state that its predecessor gave.
        state: Option<Term>,
    },
    /// Have a child end. It can come again, with another way to end it.
    Stop {
        /// Which.
        start: StartId,
        /// How.
        how: Stop,
    },
    /// Something that is worth a line in the log.
    Report(Report),
    /// A command is done.
    Done {
        /// Its number.
        command: u64,
        /// How.
        outcome: Outcome,
    },
}

/// How a child is ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stop {
    /// It is asked for its state, and ends.
    HandOff,
    /// It is told to end: the exit signal `shutdown`.
    Shutdown,
    /// It is ended at once: the exit signal `kill`.
    Kill,
}

/// What a supervisor has done or seen.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Report {
    /// A child runs on this node.
    Started {
        /// Which.
        child: Child,
        /// Its process.
        pid: Pid,
        /// Whether it goes on with the state of another.
        with_state: bool,
    },
    /// A child has ended by itself, and is started again.
    Restarted {
        /// Which.
        child: Child,
        /// Why it ended.
        reason: Term,
    },
    /// A child was started too often in too short a time.
    GivenUp {
        /// Which.
        child: Child,
        /// Why it ended the last time.
        reason: Term,
    },
    /// Another node has this child, too, and keeps it: the one here ends.
    Conflict {
        /// Which.
        child: Child,
    },
    /// The lease of a child could not be renewed: it is killed.
    LeaseLost {
        /// Which.
        child: Child,
    },
    /// A child was handed over.
    HandedOff {
        /// Which.
        child: Child,
        /// To which node.
        to: Atom,
    },
    /// No node takes this child over; the state that it gave is lost.
    StateLost {
        /// Which.
        child: Child,
    },
}

/// A process of a child, as it is seen in the cluster.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Place {
    /// The child.
    pub id: Key,
    /// Which of its processes.
    pub part: Part,
    /// The node that has it.
    pub node: Atom,
    /// What it is doing.
    pub status: Status,
    /// Its process, while it has one.
    pub pid: Option<Pid>,
}

/// What a process of a child is doing.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Status {
    /// It is being started.
    Starting,
    /// It runs.
    Running,
    /// It is told to end.
    Stopping,
    /// It goes to that node.
    Moving(Atom),
    /// It is given up, for this reason.
    Failed(Term),
}

/// What a supervisor has counted since it started.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Stats {
    /// Messages that could not be understood.
    pub ignored: u64,
    /// Specifications of others that were not taken in because there was no room.
    pub refused: u64,
    /// Children that were started here.
    pub started: u64,
    /// Those of them that had ended by themselves.
    pub restarted: u64,
    /// Those that were given up.
    pub given_up: u64,
    /// Children here that another node had, too.
    pub conflicts: u64,
    /// Children that went to another node.
    pub handed_off: u64,
    /// Leases that could not be renewed.
    pub leases_lost: u64,
}
