//! What the members of a cluster decide, from messages and time alone.
//!
//! Every feature here is a deterministic machine: events go in, actions come out. A machine never sends, waits, reads a
//! clock or draws a random number; its host does. The node hosts machines on tokio, the NIF inside the BEAM, the simulator
//! (`sim`, a feature) in virtual time, and tests by hand: the same code in all four.
//!
//! # Contract of a machine
//!
//! 1. Hand in one event with [`Machine::handle`], with the current time.
//! 2. Carry out [`Machine::poll_action`] until it returns `None`.
//! 3. Call [`Machine::handle`] again with the next event, or [`Machine::handle_timeout`] when [`Machine::poll_timeout`] is due.
//!
//! Actions must be carried out in the order in which they come; messages to one destination must not overtake each other.
//! Every machine speaks the wire protocol of an unmodified counterpart, which its module header writes down.
//!
//! # Layout
//!
//! | module | machine | counterpart |
//! |---|---|---|
//! | [`channels`] | classes of traffic with delivery promises between our own nodes | Phoenix.PubSub topics, at most once |
//! | [`discovery`] | which nodes to connect to | `libcluster`'s strategies, together |
//! | [`global`] | names and locks of a fully connected cluster | OTP's `global`, protocols 7 and 8 |
//! | [`lease`] | names that never have two holders at once, by a majority of configured members | none |
//! | [`mesh`] | services: who offers what, how well they are, who gets the next piece of work | none: a BEAM calls it as a `GenServer` |
//! | [`names`] | keys of processes, unique or duplicate, between our own nodes | none: a BEAM calls it as a `GenServer` |
//! | [`pg`] | process groups of one scope | OTP's `pg`, protocols 0 and 1 |
//! | [`pubsub`] | topics and their subscribers | Phoenix.PubSub 2.0 to 2.2 (its PG2 adapter) |
//! | [`registry`] | the replicated map under names and placement | `DeltaCrdt.AWLWWMap` and `MerkleMap`, as Horde runs them |
//! | [`ring`] | no machine: which node has a key | libring's `HashRing` |
//! | [`supervisor`] | children that run once, once a node, or in parts, somewhere between our own nodes | `Horde.DynamicSupervisor`'s task; a BEAM calls it as a `GenServer` |
//! | [`tracker`] | who is present where | Phoenix.Tracker, and Phoenix.Presence on it |
//! | `sim` | virtual time and a seeded network (feature `sim`) | – |

pub mod channels;
pub mod discovery;
pub mod global;
mod key;
pub mod lease;
pub mod mesh;
mod message;
mod mutant;
pub mod names;
pub mod pg;
pub mod pubsub;
#[cfg_attr(not(any(test, feature = "sim")), allow(unreachable_pub, reason = "public where the simulator is"))]
mod random;
pub mod registry;
pub mod ring;
#[cfg(test)]
#[path = "../tests/it/seeds.rs"]
mod seeds;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
pub mod supervisor;
pub mod tracker;

use foundation_proto::Mono;
pub use key::Key;

/// A deterministic state machine; see the [crate documentation](crate) for the order of the calls.
pub trait Machine {
    /// What happens to it: commands of its user, messages of peers, connections and monitors.
    type Event;
    /// What its host has to do.
    type Action;

    /// Takes in one event.
    fn handle(&mut self, now: Mono, event: Self::Event);

    /// Does what is due at `now`.
    fn handle_timeout(&mut self, now: Mono);

    /// The next thing to do, in order.
    fn poll_action(&mut self) -> Option<Self::Action>;

    /// When [`Machine::handle_timeout`] wants to be called next.
    fn poll_timeout(&self) -> Option<Mono>;
}
