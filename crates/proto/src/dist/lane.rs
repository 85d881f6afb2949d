/// Whose signal it is and how urgent: the second decides which sender goes first, never the order within one.
///
/// Erlang promises that the signals from one process to another arrive in the order they were sent. So a lane belongs to a
/// sending process, never to a message: all signals with the same `sender` leave in the order they were handed over,
/// whatever their classes are. What a process needs to send past its own bulk data has to come from another process.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Lane {
    /// Any number that identifies the sending process on this connection.
    pub sender: u64,
    /// How urgent the sender's signals are, compared with those of other senders.
    pub class: LaneClass,
}

/// How urgent a [`Lane`] is. Among senders that have something queued, a more urgent class goes first; within a
/// class the senders take turns.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum LaneClass {
    /// What the runtime answers for a process: acknowledgements, `noproc`, spawn replies.
    Control,
    /// The messages of ordinary processes.
    #[default]
    Normal,
    /// Traffic that should stand back behind all others.
    Bulk,
}
