//! Processes of this node: the table, mailboxes, links, monitors, aliases, registered names and exit signals.
//!
//! A process is what it is to an Erlang node: a pid, a mailbox, links, monitors. What runs it is an ordinary tokio task, or
//! no task at all: a [`Process`] is a value that whoever holds it receives from. Signals take effect when they arrive, on
//! the task that brings them, so a process that does not run can still be linked, monitored and killed.

mod dest;
mod exit;
mod handle;
mod id;
mod link_table;
mod mailbox;
mod message;
mod mon_lnk_dist;
mod proc;
mod reason;
mod relate;
mod seq_trace;
mod small_map;
mod spawn;
mod table;
mod undelivered;

pub use dest::{Dest, Recipient};
pub use handle::{Handle, Process};
pub use mailbox::{MailboxLimit, Overflow};
pub use message::{Down, Exit, Message, Monitored};
pub use mon_lnk_dist::MonLnkDist;
pub use proc::AliasKind;
pub use reason::Reason;
pub use seq_trace::SeqTraceToken;
pub use spawn::{Outcome, SpawnOptions};
pub use undelivered::Undelivered;

pub(crate) use exit::{ExitKind, lane_of, transmit};
pub(crate) use id::{Ids, RefWords};
pub(crate) use mon_lnk_dist::AddError;
pub(crate) use proc::{Answer, Entry, Monitor, Proc, SpawnWait, Watcher, WatcherKind};
pub(crate) use relate::Call;
pub(crate) use table::{AtomHash, Names, ProcessTable};
