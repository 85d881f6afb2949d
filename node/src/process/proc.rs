//! What a process is to everybody else: its identity, its mailbox and what it is connected with.

use core::fmt;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foundation_proto::dist::{Lane, LaneClass, Target};
use foundation_proto::etf::{Atom, Pid, RawTerm, Reference};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use super::id::RefWords;
use super::link_table::LinkTable;
use super::mailbox::{Mailbox, MailboxLimit};
use super::reason::Reason;
use super::small_map::SmallMap;
use crate::error::Error;
use crate::net::Link;

/// How much a process sends to other nodes before others get their turn: some 2,000 small messages, which take well under 1 ms.
const TURN: usize = 256 << 10;

/// What the smallest message counts for, because it costs more than its bytes.
const SENT_AT_LEAST: usize = 64;

/// A process of this node, as the table holds it.
///
/// Locks are taken in one order: the states of two processes by ascending number, then a mailbox or the outbound side of a
/// connection. Nothing is ever sent or delivered for a process after it ended: both happen under its state, or, for most messages,
/// under the lock of the connection, see [`Proc::has_exited`].
pub(crate) struct Proc {
    pub(crate) pid: Pid,
    pub(crate) number: u64,
    pub(crate) mailbox: Mailbox,
    state: Mutex<State>,
    /// Calls whose replies are waited for. Only while there are any does a message have to be looked at on arrival.
    pub(crate) calls: AtomicUsize,
    system: bool,
    /// Set with [`State::exited`], for those who do not take the lock; see [`Proc::has_exited`].
    gone: AtomicBool,
    /// How urgent what it sends is; a [`LaneClass`].
    class: AtomicU8,
    /// Bytes sent to other nodes since it last let others have their turn.
    sent: AtomicUsize,
}

/// Everything about a process that others change. All maps are empty once it has ended.
#[derive(Debug)]
pub(crate) struct State {
    /// Why the process ended.
    pub(crate) exited: Option<Reason>,
    pub(crate) trap_exit: bool,
    pub(crate) group_leader: Pid,
    pub(crate) name: Option<Atom>,
    /// `None` as the connection is a link within this node.
    pub(crate) links: LinkTable<Option<Arc<Link>>>,
    /// By the references of this process: monitors, aliases, calls and spawn requests.
    pub(crate) references: BTreeMap<RefWords, Entry>,
    /// Who monitors this process.
    pub(crate) watchers: SmallMap<Reference, Watcher>,
    /// The task that runs the process, if it was spawned with one.
    pub(crate) task: Option<AbortHandle>,
    /// What the process runs, for those who ask.
    pub(crate) initial_call: (Atom, Atom, u8),
    pub(crate) parent: Option<Pid>,
    /// The serial number of the last message that it sent with a sequential trace token.
    pub(crate) seq_trace_clock: u64,
}

impl State {
    /// The serial number of a message that is sent with a token, after all that it has sent and after the one that it answers.
    pub(crate) fn seq_trace_serial(&mut self, answered: u64) -> u64 {
        self.seq_trace_clock = self.seq_trace_clock.max(answered).saturating_add(1);
        self.seq_trace_clock
    }
}

/// What one reference of a process stands for.
#[derive(Debug, Default)]
pub(crate) struct Entry {
    pub(crate) monitor: Option<Monitor>,
    pub(crate) alias: Option<AliasKind>,
    /// The alias accepts priority messages.
    pub(crate) priority_alias: bool,
    /// The `DOWN` is a priority message.
    pub(crate) priority_monitor: bool,
    pub(crate) spawn: Option<SpawnWait>,
    /// Who waits for what comes through this reference; the mailbox if nobody does.
    pub(crate) waiting: Option<oneshot::Sender<Answer>>,
}

/// How an alias ends. See `erlang:alias/1` and the option `alias` of `erlang:monitor/3`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum AliasKind {
    /// Only by `unalias`.
    ExplicitUnalias,
    /// With the first message that comes through it.
    Reply,
    /// With its monitor: by `demonitor` or when the `DOWN` is delivered.
    Demonitor,
    /// As [`AliasKind::Demonitor`], or with the first message that comes through it, which removes the monitor too.
    ReplyDemonitor,
}

/// What a monitor of this process watches.
#[derive(Debug)]
pub(crate) enum Monitor {
    /// A process of this node; the name if it was monitored by that.
    Local { number: u64, pid: Pid, name: Option<Atom> },
    /// Something on the other end of a connection.
    Remote { link: Arc<Link>, target: Target },
}

/// Somebody who monitors this process.
#[derive(Debug)]
pub(crate) struct Watcher {
    pub(crate) by: WatcherKind,
    /// The name that this process was monitored by, which may not be its name any more.
    pub(crate) name: Option<Atom>,
}

#[derive(Debug)]
pub(crate) enum WatcherKind {
    /// A process of this node.
    Local(u64),
    /// A process on the other end of a connection.
    Remote { link: Arc<Link>, pid: Pid },
}

/// A spawn request that was not answered yet.
#[derive(Debug)]
pub(crate) struct SpawnWait {
    pub(crate) link: Arc<Link>,
    /// Dropped by a caller that gave up.
    pub(crate) reply: oneshot::Sender<Result<Pid, Error>>,
}

/// What came through a reference that somebody waits for.
#[derive(Debug)]
pub(crate) enum Answer {
    /// The message that was sent to the alias.
    Reply(RawTerm),
    /// The end of the process that was asked.
    Down(Reason),
}

impl Proc {
    pub(crate) fn new(pid: Pid, number: u64, limit: MailboxLimit, group_leader: Pid) -> Self {
        Self {
            pid,
            number,
            mailbox: Mailbox::new(limit),
            state: Mutex::new(State {
                exited: None,
                trap_exit: false,
                group_leader,
                name: None,
                links: LinkTable::default(),
                references: BTreeMap::new(),
                watchers: SmallMap::default(),
                task: None,
                initial_call: (Atom::new_static("proc_lib"), Atom::new_static("init_p"), 5),
                parent: None,
                seq_trace_clock: 0,
            }),
            calls: AtomicUsize::new(0),
            system: false,
            gone: AtomicBool::new(false),
            class: AtomicU8::new(LaneClass::Normal as u8),
            sent: AtomicUsize::new(0),
        }
    }

    /// The process in whose name a node itself acts: nobody ends it, and what is sent to it is nobody's.
    pub(crate) fn system(pid: Pid, number: u64) -> Self {
        let system = Self { system: true, ..Self::new(pid.clone(), number, MailboxLimit::DEFAULT, pid) };
        system.mailbox.close();
        system
    }

    /// Whether it is the process in whose name the node itself acts.
    pub(crate) fn is_system(&self) -> bool {
        self.system
    }

    /// The state, whether or not the process has ended.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state of a process that has not ended.
    pub(crate) fn alive(&self) -> Option<MutexGuard<'_, State>> {
        Some(self.state()).filter(|state| state.exited.is_none())
    }

    /// The process ends: under its state, before any of its exit signals is sent.
    pub(crate) fn set_exited(&self, state: &mut State, reason: Reason) {
        state.exited = Some(reason);
        self.gone.store(true, Ordering::Release);
    }

    /// Whether the process has ended. Asked under the lock that a connection sends under, this is as good as holding
    /// the state: what is sent after a no goes before the exit signals, which need that lock, too.
    #[inline]
    pub(crate) fn has_exited(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    /// Why the process ended; `None` while it lives.
    pub(crate) fn exit_reason(&self) -> Option<Reason> {
        self.state().exited.clone()
    }

    /// The lane of the messages that this process sends.
    #[inline]
    pub(crate) fn lane(&self) -> Lane {
        let class = match self.class.load(Ordering::Relaxed) {
            class if class == LaneClass::Control as u8 => LaneClass::Control,
            class if class == LaneClass::Bulk as u8 => LaneClass::Bulk,
            _ => LaneClass::Normal,
        };
        Lane { sender: self.number, class }
    }

    /// How urgent what it sends from now on is, compared with what others send. Its own messages stay in order.
    pub(crate) fn set_lane_class(&self, class: LaneClass) {
        self.class.store(class as u8, Ordering::Relaxed);
    }

    /// Counts what the process is about to send to another node. Whether it has sent so much without waiting that others of
    /// its thread should get their turn first: the reader and the ticks of connections are among them, and a socket whose
    /// other end is fast never makes a sender wait.
    pub(crate) fn has_had_its_turn(&self, bytes: usize) -> bool {
        let long = !self.stays_in_its_turn(bytes);
        if long {
            self.sent.store(0, Ordering::Relaxed);
        }
        long
    }

    /// Counts it in the same way, unless that would end the turn: then [`Proc::has_had_its_turn`] has to be asked.
    #[inline]
    pub(crate) fn stays_in_its_turn(&self, bytes: usize) -> bool {
        let sent = self.sent.load(Ordering::Relaxed).saturating_add(bytes).saturating_add(SENT_AT_LEAST);
        let stays = sent <= TURN;
        if stays {
            self.sent.store(sent, Ordering::Relaxed);
        }
        stays
    }

    /// The states of two different processes, the first one's first. Taken in the order that makes it safe.
    pub(crate) fn both<'a>(a: &'a Self, b: &'a Self) -> (MutexGuard<'a, State>, MutexGuard<'a, State>) {
        if a.number < b.number {
            let first = a.state();
            (first, b.state())
        } else {
            let second = b.state();
            (a.state(), second)
        }
    }

    #[inline]
    pub(crate) fn has_calls(&self) -> bool {
        self.calls.load(Ordering::Relaxed) != 0
    }
}

impl fmt::Debug for Proc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proc").field("pid", &self.pid).finish_non_exhaustive()
    }
}
