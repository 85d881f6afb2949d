//! Control messages: what one node tells another about its processes.
//!
//! A [`ControlMessage`] is normalised: the many opcodes that OTP has given to one meaning over the years (plain, with a
//! trace token, with the reason inside or after the tuple) are one variant here. Decoding accepts all of them; encoding
//! picks the one that the flags of the connection allow.
//!
//! Source: erts "Distribution Protocol", section "Protocol between Connected Nodes"; `erts/emulator/beam/dist.h`
//! (`DOP_*`) and `erts_net_message` in `dist.c`.

mod decode;
mod encode;
mod operation;

use crate::etf::{Atom, Pid, RawTerm, Reference, Term};

pub use decode::LocalPid;
pub(crate) use decode::{Decoded, Ends, Payload, decode, decode_receiver, decode_send};
pub(crate) use encode::Encoder;
pub use operation::{OPERATIONS, Operation, PayloadKind};

/// One control message, whichever opcode carried it.
///
/// "Payload" is the term that follows the control tuple; it travels beside this value as a [`RawTerm`] (in a received
/// [`Signal`], or as an argument when sending). Variants that say "payload: the reason" carry it as payload here even if
/// an old peer put it inside the tuple.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum ControlMessage {
    /// LINK `{1, From, To}`: link the two processes. No payload.
    Link {
        /// The process of the sending node.
        from: Pid,
        /// The process of the receiving node.
        to: Pid,
    },
    /// UNLINK `{4, From, To}`: the link protocol of peers without UNLINK_ID (OTP 23). No payload, no acknowledgement.
    Unlink {
        /// The process that removed the link.
        from: Pid,
        /// The process it was linked to.
        to: Pid,
    },
    /// UNLINK_ID `{35, Id, From, To}`: remove the link; must be answered with [`ControlMessage::UnlinkIdAck`]. No payload.
    UnlinkId {
        /// 1 to 2^64-1, unique among the unacknowledged ones of the pair.
        id: u64,
        /// The process that removed the link.
        from: Pid,
        /// The process it was linked to.
        to: Pid,
    },
    /// UNLINK_ID_ACK `{36, Id, From, To}`: the answer to UNLINK_ID. No payload.
    UnlinkIdAck {
        /// The id of the UNLINK_ID that is acknowledged.
        id: u64,
        /// The process that acknowledges.
        from: Pid,
        /// The process that sent the UNLINK_ID.
        to: Pid,
    },
    /// SEND `{2, '', To}`, SEND_TT `{12, '', To, Token}`, SEND_SENDER `{22, From, To}` and SEND_SENDER_TT
    /// `{23, From, To, Token}`: a message to a process. Payload: the message.
    Send {
        /// The sender, which may live on a third node; unknown with SEND and SEND_TT.
        from: Option<Pid>,
        /// The receiver.
        to: Pid,
    },
    /// REG_SEND `{6, From, '', ToName}` and REG_SEND_TT `{16, From, '', ToName, Token}`: a message to a registered name.
    /// Payload: the message.
    RegSend {
        /// The sender, which may live on a third node.
        from: Pid,
        /// The registered name on the receiving node.
        to: Atom,
    },
    /// ALIAS_SEND `{33, From, Alias}` and ALIAS_SEND_TT `{34, From, Alias, Token}`: a message to a process alias.
    /// Payload: the message. Sent as [`ControlMessage::Altact`] to peers that have ALTACT_SIG.
    AliasSend {
        /// The sender, which may live on a third node.
        from: Pid,
        /// The alias, made by the receiving node.
        alias: Reference,
    },
    /// ALTACT_SIG_SEND `{37, Flags, From, To}` or `{37, Flags, From, To, Token}` (OTP 28): a message to, or an exit signal for,
    /// any kind of destination, with an optional priority. Payload: the message or the reason.
    Altact {
        /// [`altact::PRIORITY`] and [`altact::EXIT`]. Which kind of destination it is and whether there is a token is
        /// read from `to` and the token; the bits for these are set and cleared by the codec. Bits that nobody
        /// has assigned are dropped.
        flags: u64,
        /// The sender, which may live on a third node.
        from: Pid,
        /// The receiver.
        to: Destination,
    },
    /// EXIT `{3, From, To, Reason}`, EXIT_TT `{13, From, To, Token, Reason}`, PAYLOAD_EXIT `{24, From, To}` and
    /// PAYLOAD_EXIT_TT `{25, From, To, Token}`: a process ended, its link to `to` is broken. Payload: the reason.
    Exit {
        /// The process that ended.
        from: Pid,
        /// The process it was linked to.
        to: Pid,
    },
    /// EXIT2 `{8, From, To, Reason}`, EXIT2_TT `{18, From, To, Token, Reason}`, PAYLOAD_EXIT2 `{26, From, To}` and
    /// PAYLOAD_EXIT2_TT `{27, From, To, Token}`: `exit(To, Reason)` was called. Payload: the reason.
    Exit2 {
        /// The caller.
        from: Pid,
        /// The process that is to exit.
        to: Pid,
    },
    /// MONITOR_P `{19, Watcher, Target, Ref}`: watch a process. No payload.
    MonitorP {
        /// The process that wants to know.
        watcher: Pid,
        /// The process that is watched.
        target: Target,
        /// Names this monitor in the signals that follow.
        reference: Reference,
    },
    /// DEMONITOR_P `{20, Watcher, Target, Ref}`: stop watching. No payload.
    DemonitorP {
        /// The process that wanted to know.
        watcher: Pid,
        /// As in the MONITOR_P.
        target: Target,
        /// As in the MONITOR_P.
        reference: Reference,
    },
    /// MONITOR_P_EXIT `{21, Target, Watcher, Ref, Reason}` and PAYLOAD_MONITOR_P_EXIT `{28, Target, Watcher, Ref}`: a watched
    /// process ended, or never was. Payload: the reason.
    MonitorPExit {
        /// The process that ended, in the form of the MONITOR_P.
        target: Target,
        /// The process that wanted to know.
        watcher: Pid,
        /// As in the MONITOR_P.
        reference: Reference,
    },
    /// GROUP_LEADER `{7, Leader, Pid}`: `group_leader(Leader, Pid)` was called. No payload.
    GroupLeader {
        /// The new group leader, of any node.
        leader: Pid,
        /// The process that gets it.
        pid: Pid,
    },
    /// SPAWN_REQUEST `{29, ReqId, From, GroupLeader, {Module, Function, Arity}, Options}` and SPAWN_REQUEST_TT
    /// `{30, …, Token}`: start a process. Payload: the list of arguments. Must be answered with [`ControlMessage::SpawnReply`].
    SpawnRequest(Box<SpawnRequest>),
    /// SPAWN_REPLY `{31, ReqId, To, Flags, Result}` and SPAWN_REPLY_TT `{32, …, Token}`: the outcome of a SPAWN_REQUEST.
    /// No payload.
    SpawnReply {
        /// As in the request.
        req_id: Reference,
        /// The process that asked.
        to: Pid,
        /// [`spawn_reply::LINK`] and [`spawn_reply::MONITOR`]: what was set up; 0 if the request failed.
        flags: u32,
        /// The new process, or why there is none (`notsup`, `badopt`, `system_limit`, …).
        result: Result<Pid, Atom>,
    },
}

impl ControlMessage {
    /// Whether it is a message to a process, and no other signal.
    pub fn is_message(&self) -> bool {
        match self {
            Self::Send { .. } | Self::RegSend { .. } | Self::AliasSend { .. } => true,
            Self::Altact { flags, .. } => flags & altact::EXIT == 0,
            _ => false,
        }
    }

    /// Whether a payload belongs to it: the message, the reason or the list of arguments.
    pub fn has_payload(&self) -> bool {
        match self {
            Self::Send { .. }
            | Self::RegSend { .. }
            | Self::AliasSend { .. }
            | Self::Altact { .. }
            | Self::Exit { .. }
            | Self::Exit2 { .. }
            | Self::MonitorPExit { .. }
            | Self::SpawnRequest(_) => true,
            Self::Link { .. }
            | Self::Unlink { .. }
            | Self::UnlinkId { .. }
            | Self::UnlinkIdAck { .. }
            | Self::MonitorP { .. }
            | Self::DemonitorP { .. }
            | Self::GroupLeader { .. }
            | Self::SpawnReply { .. } => false,
        }
    }
}

/// The fields of [`ControlMessage::SpawnRequest`].
#[derive(Clone, Debug, PartialEq)]
pub struct SpawnRequest {
    /// Names the request in the reply, and the monitor if one is asked for.
    pub req_id: Reference,
    /// The process that asks: the parent.
    pub from: Pid,
    /// The group leader of the new process.
    pub group_leader: Pid,
    /// The module of the function to run.
    pub module: Atom,
    /// The function to run.
    pub function: Atom,
    /// How many arguments it gets.
    pub arity: u8,
    /// The proper list of options, as sent: `link`, `monitor`, `{priority, _}`, ….
    pub options: Term,
}

/// What is watched by a monitor.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Target {
    /// A process.
    Pid(Pid),
    /// Whatever process has this registered name when the MONITOR_P arrives.
    Name(Atom),
}

/// Where an ALTACT signal goes.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Destination {
    /// To a process.
    Pid(Pid),
    /// To a registered name.
    Name(Atom),
    /// To a process alias.
    Alias(Reference),
}

/// The flag bits of [`ControlMessage::Altact`].
pub mod altact {
    /// The signal goes before those without it, if the receiver accepts priority messages through this alias.
    pub const PRIORITY: u64 = 1;
    /// The tuple has a trace token. Set by the codec.
    pub const TOKEN: u64 = 2;
    /// The destination is an alias. Set by the codec.
    pub const ALIAS: u64 = 4;
    /// The destination is a registered name. Set by the codec.
    pub const NAME: u64 = 8;
    /// The payload is the reason of an exit signal, as with EXIT2, and not a message.
    pub const EXIT: u64 = 16;
}

/// The flag bits of [`ControlMessage::SpawnReply`].
pub mod spawn_reply {
    /// The new process is linked to the one that asked.
    pub const LINK: u32 = 1;
    /// The process that asked monitors the new one.
    pub const MONITOR: u32 = 2;
}

/// A control message as it arrived, with what came along.
#[derive(Clone, Debug)]
pub struct Signal {
    /// The control message.
    pub control: ControlMessage,
    /// The message, reason or argument list: present exactly for the control messages that document one.
    pub payload: Option<RawTerm>,
    /// The sequential trace token `{Flags, Label, Serial, Sender, LastCnt}` of the variants that carry one. It may be
    /// ignored; [`Outbound::send_traced`](super::Outbound::send_traced) passes it on.
    pub token: Option<RawTerm>,
}
