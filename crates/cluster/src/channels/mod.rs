//! Channels: classes of traffic between nodes, each a topic of Phoenix.PubSub, with delivery promises between our own nodes.
//!
//! A channel is the topic `foundation:<channel>` of the PubSub `Foundation.PubSub`. Any BEAM node with a Phoenix.PubSub of that
//! name takes part: it is sent [`pubsub::Forward`](crate::pubsub::Forward)s of the bare message, at most once, as PubSub has it.
//! A node that runs this machine joins its channel process to the group `{foundation_channel, Channel}` of the `pg` scope that all
//! PubSubs share, which Phoenix.PubSub does not look at. The members of that group are sent envelopes instead.
//!
//! # Messages between channel processes
//!
//! | message | meaning |
//! |---|---|
//! | `{foundation_channel, 1, Sender, Seq, Base, SentAt, Clock, AckMs, Payload}` | message number `Seq` of the channel process `Sender` |
//! | `{foundation_channel_relay, 1, Sender, SentAt, AckMs, Fanout, Payload, [{Receiver, Seq, Base, Clock}, …]}` | the same for several receivers; the first, which gets it, passes it on to the others |
//! | `{foundation_channel_gossip, 1, Sender, Number, SentAt, Fanout, Hops, Payload}` | message `Number` of `Sender`, for whoever does not know it yet |
//! | `{foundation_channel_leave, 1, Sender}` | nothing need be kept for `Sender` any more: it does not come back |
//! | `{foundation_channel_ack, 1, Receiver, Expected, Gap, SentAt, ReceivedAt, AckedAt}` | all numbers below `Expected` have arrived |
//!
//! * `Seq` counts the messages from one channel process to one node, from any start. `Base` is the lowest number that the sender
//!   can still send again: whoever waits for a lower one does so in vain.
//! * `Payload` is `{plain, Message}` or `{compressed, Binary}`, the binary being `term_to_binary(Message, [compressed])`.
//! * `AckMs` is how long the receiver may hold the acknowledgement back. `Gap` is `true` if a number was skipped.
//! * `SentAt`, `ReceivedAt` and `AckedAt` are microseconds of wall-clock time on the clocks of sender, receiver, receiver; an
//!   acknowledgement repeats `SentAt` of the message that arrived last. `Clock` is `undefined`, or `{Offset, Error}`: what the sender
//!   takes the receiver's clock to be ahead of its own, and by how much that may be wrong, in microseconds.
//!
//! # Promises
//!
//! | reliability | to nodes with this machine | to other nodes |
//! |---|---|---|
//! | [`BestEffort`](Reliability::BestEffort) | at most once | at most once |
//! | [`AtLeastOnce`](Reliability::AtLeastOnce) | kept and sent again until acknowledged, also across a lost connection, for [`Config::retain`] | at most once |
//! | [`Guaranteed`](Reliability::Guaranteed) | the same, acknowledged at once; the sender learns of it | at most once |
//!
//! Messages of one sender and channel arrive in order, whatever the reliability, but for [`Fanout::Gossip`]. A receiving process takes each message once; the
//! process that follows it after a restart of its node may be given again what the first had not acknowledged. What is given up
//! (more than [`Config::buffer_size`] waiting, or out of reach for longer than `retain`) is counted as lost on both sides.

//!
//! # Fan-out
//!
//! A broadcast is one message from the sender to each node, unless [`Config::fanout`] has others pass it on.
//!
//! * In stages ([`Fanout::Staged`]): the nodes that are in reach and wait for nothing else are cut into a few parts. The first of each gets
//!   the message with the list of its part, cuts that likewise, and so on. What is to be kept is kept by the sender alone: every receiver
//!   acknowledges to it, and what is sent again goes directly. So a stage that fails costs time and no message, where the channel
//!   promises its messages. A node passes on only to channel processes that it knows, and not over a busy connection.
//! * As gossip ([`Fanout::Gossip`]): each node that hears of a message for the first time passes it on to a few others, drawn anew by each
//!   node for each message. No list travels and no single failure costs much; but a node may be left out (with six, of 1,000
//!   about 0.3 %), nothing is acknowledged, and messages may pass each other.

mod envelope;
mod exchange;
mod peer;
mod relay;
mod source;

use core::fmt;
use core::str::FromStr;
use core::time::Duration;

use foundation_proto::etf::{Atom, Term};

pub use envelope::{Ack, Clock, Envelope, Received};
pub use exchange::{Action, Event, Exchange, Receipt, Statistics};
pub use relay::{Gossip, Relay};

/// The PubSub whose topics the channels are.
pub const PUBSUB: &str = "Elixir.Foundation.PubSub";
/// From this many encoded bytes on, a message without a channel or a high priority goes by [`Channel::Data`].
pub const LARGE: usize = 10_240;

const MEMBERS: Atom = Atom::new_static("foundation_channel");

/// A class of traffic.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Channel {
    /// What coordinates the cluster; small and urgent.
    Control,
    /// What happened.
    Events,
    /// Measurements; may be lost.
    Telemetry,
    /// Large messages.
    Data,
}

impl Channel {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Control, Self::Events, Self::Telemetry, Self::Data];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Events => "events",
            Self::Telemetry => "telemetry",
            Self::Data => "data",
        }
    }

    /// Its topic.
    pub const fn topic(self) -> &'static str {
        match self {
            Self::Control => "foundation:control",
            Self::Events => "foundation:events",
            Self::Telemetry => "foundation:telemetry",
            Self::Data => "foundation:data",
        }
    }

    /// The group of the channel processes that understand envelopes.
    pub fn group(self) -> Term {
        Term::tuple([Term::Atom(MEMBERS), Term::Atom(Atom::new_static(self.name()))])
    }

    /// The channel that suits a message, as `Foundation.Channels.route_message/2` chooses it.
    pub fn for_message(priority: Priority, bytes: usize) -> Self {
        match priority {
            Priority::High => Self::Control,
            Priority::Low | Priority::Normal if bytes >= LARGE => Self::Data,
            Priority::Low | Priority::Normal => Self::Events,
        }
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The name of no channel.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct UnknownChannel(String);

impl fmt::Display for UnknownChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is no channel; control, events, telemetry and data are", self.0)
    }
}

impl core::error::Error for UnknownChannel {}

impl FromStr for Channel {
    type Err = UnknownChannel;

    /// `coordination` and `gossip` are older names of `control` and `telemetry`.
    fn from_str(text: &str) -> Result<Self, UnknownChannel> {
        match text.strip_prefix(':').unwrap_or(text) {
            "control" | "coordination" => Ok(Self::Control),
            "events" => Ok(Self::Events),
            "telemetry" | "gossip" => Ok(Self::Telemetry),
            "data" => Ok(Self::Data),
            _ => Err(UnknownChannel(text.to_owned())),
        }
    }
}

/// How urgent a message or a channel is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Priority {
    /// After everything else.
    Low,
    /// As the messages of ordinary processes.
    #[default]
    Normal,
    /// Before everything else.
    High,
}

/// What is promised about the messages of a channel; see the [module documentation](self).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reliability {
    /// At most once.
    BestEffort,
    /// At least once.
    AtLeastOnce,
    /// At least once, and the sender learns of the acknowledgements.
    Guaranteed,
}

/// Which connections the messages of a channel take. The order of one sender's messages holds also when this is changed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Connection {
    /// Those of the node, with all other traffic.
    #[default]
    Shared,
    /// To nodes with this machine, connections of the channel's own.
    Own,
    /// To all nodes.
    OwnToAll,
}

/// Who sends a broadcast to whom; see the [module documentation](self).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Fanout {
    /// The sender to each node.
    #[default]
    Direct,
    /// Each node to at most so many, until all have it. Up to this many nodes it is direct.
    Staged(u8),
    /// Each node to so many others that are drawn, at most once and in no order. On a channel that promises more, in stages.
    Gossip(u8),
}

/// How a channel behaves.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Config {
    /// How urgent its messages are among those of other channels and processes.
    pub priority: Priority,
    /// What is promised.
    pub reliability: Reliability,
    /// How many messages may wait for the acknowledgement of one node. Beyond it senders wait; for a node out of reach the
    /// oldest are given up.
    pub buffer_size: usize,
    /// How many bytes of messages may wait for the acknowledgement of one node; a single message may be longer.
    pub buffer_bytes: usize,
    /// Whether messages of [`COMPRESS_FROM`](Self::COMPRESS_FROM) bytes or more are compressed on their way to nodes that
    /// understand envelopes.
    pub compression: bool,
    /// How long messages are kept for a node that is out of reach.
    pub retain: Duration,
    /// Which connections its messages take.
    pub connection: Connection,
    /// How broadcasts reach nodes with this machine.
    pub fanout: Fanout,
}

impl Config {
    /// Below this, compressing costs more than it saves.
    pub const COMPRESS_FROM: usize = 1024;

    /// The configuration of a channel unless it is changed.
    pub const fn of(channel: Channel) -> Self {
        let (priority, reliability, buffer_size, compression) = match channel {
            Channel::Control => (Priority::High, Reliability::Guaranteed, 1_000, false),
            Channel::Events => (Priority::Normal, Reliability::AtLeastOnce, 5_000, false),
            Channel::Telemetry => (Priority::Low, Reliability::BestEffort, 5_000, true),
            Channel::Data => (Priority::Low, Reliability::BestEffort, 10_000, true),
        };
        Self {
            priority,
            reliability,
            buffer_size,
            // As much as a connection may have queued before it is closed.
            buffer_bytes: 64 << 20,
            compression,
            // Longer than a restart or a lost connection takes, shorter than anybody waits for an event.
            retain: Duration::from_secs(60),
            connection: Connection::Shared,
            fanout: Fanout::Direct,
        }
    }

    /// The same with another promise.
    #[must_use]
    pub fn reliability(self, reliability: Reliability) -> Self {
        Self { reliability, ..self }
    }

    /// The same with other connections.
    #[must_use]
    pub fn connection(self, connection: Connection) -> Self {
        Self { connection, ..self }
    }

    /// The same with another fan-out.
    #[must_use]
    pub fn fanout(self, fanout: Fanout) -> Self {
        Self { fanout, ..self }
    }

    /// How long a receiver may hold its acknowledgement back, in milliseconds.
    fn ack_ms(&self) -> u32 {
        match self.reliability {
            Reliability::Guaranteed => 0,
            Reliability::AtLeastOnce => 50,
            // Nobody waits for it; it carries the clock.
            Reliability::BestEffort => 1_000,
        }
    }

    fn is_reliable(&self) -> bool {
        self.reliability != Reliability::BestEffort
    }
}

#[cfg(test)]
mod tests;
