//! Who is where: Phoenix.Tracker, on which Phoenix.Presence is built (phoenix_pubsub 1.1 to 2.2).
//!
//! A tracker is a pool of shards, `<Tracker>_shard0` and so on; the shard of a topic is `phash2(Topic, PoolSize)`. The shards of one
//! name on all nodes replicate which process of which node is present under which topic and key, with what metadata. Each node
//! writes for its own processes only.
//!
//! # Messages
//!
//! All are messages of a PubSub topic, `phx_presence:<shard>`. A replica is `{Node, Vsn}`, with a new `Vsn` whenever it starts. `Clocks` is
//! `#{Replica => Counter}` without replicas that are down.
//!
//! | message | to | meaning |
//! |---|---|---|
//! | `{pub, heartbeat, Replica, empty or Delta, {Replica, Clocks}}` | all | "I live", and what has changed here since the last one |
//! | `{pub, transfer_req, Ref, Replica, {Replica, Clocks}}` | one | asks a replica whose clocks are ahead for what is missing |
//! | `{pub, transfer_ack, Ref, Replica, Delta or {State, Values}}` | one | the answer |
//! | `{pub, graceful_permdown, Replica}` | all | "I do not come back" |
//!
//! The state is a set of values, each with a tag `{Replica, Counter}`, that grows and shrinks causally: `context` says up to which
//! counter of each replica everything was seen, `clouds` which tags beyond; a tag that was seen and has no value was removed.
//! Values are taken from replicas in the context only, so a replica is put there with its first heartbeat.
//!
//! # Differences from Phoenix
//!
//! * A change leaves [`Config::flush_after`] later instead of with the next beat, up to 1.5 s later: receivers take deltas at any time.
//! * A transfer is always answered with the whole state. Phoenix keeps generations of deltas for this; they save bytes only.
//! * Nothing that a peer sends stops it; what cannot be read is counted in [`Shard::ignored`].

mod shard;
mod state;
mod wire;

use core::time::Duration;

use foundation_proto::etf::{Atom, Pid, Term, phash2_range};

pub use shard::{Action, Diff, Event, Shard, TrackError};
pub use state::Replica;

/// The name of a shard; `None` if it is too long for an atom.
pub fn shard_name(tracker: &Atom, number: u32) -> Option<Atom> {
    Atom::new(&format!("{}_shard{number}", tracker.as_str())).ok()
}

/// The PubSub topic of a shard.
pub fn pubsub_topic(shard: &Atom) -> String {
    format!("phx_presence:{}", shard.as_str())
}

/// The shard that a topic belongs to.
pub fn shard_of(topic: &str, pool_size: u32) -> u32 {
    phash2_range(&Term::binary(topic.as_bytes()), u64::from(pool_size.max(1))).unwrap_or_default()
}

/// How a shard behaves; the defaults are those of Phoenix. All nodes should have the same.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Config {
    /// Between two beats.
    pub broadcast_period: Duration,
    /// A heartbeat without a change is sent after so many beats of silence.
    pub max_silent_periods: u32,
    /// After this silence a replica is down: its values are not listed, and kept.
    pub down_period: Duration,
    /// After this silence it is down for good, and its values are dropped.
    pub permdown_period: Duration,
    /// After so many beats the clocks heard of are compared, and what is missing is asked for.
    pub clock_sample_periods: u32,
    /// How long changes are gathered before they are sent.
    pub flush_after: Duration,
    /// How many values of other nodes are kept; what comes beyond is counted and ignored. Far above what a tracker is used for.
    pub max_values: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            broadcast_period: Duration::from_millis(1_500),
            max_silent_periods: 10,
            down_period: Duration::from_secs(30),
            permdown_period: Duration::from_secs(1_200),
            clock_sample_periods: 2,
            flush_after: Duration::from_millis(20),
            max_values: 1 << 20,
        }
    }
}

/// A presence.
#[derive(Clone, Debug, PartialEq)]
pub struct Presence {
    /// The process.
    pub pid: Pid,
    /// The key.
    pub key: Term,
    /// The metadata, a map with `phx_ref`, and `phx_ref_prev` after an update.
    pub meta: Term,
}

#[cfg(test)]
mod tests;
