//! Phoenix.PubSub, as its default adapter (`Phoenix.PubSub.PG2`, releases 2.0 to 2.2) speaks it.
//!
//! A PubSub called `N` keeps on each node a pool of workers, each registered under the name of a group of the [`pg`](crate::pg)
//! scope `Phoenix.PubSub` and member of it. The adapter's name is `N.Adapter`:
//!
//! | release | groups |
//! |---|---|
//! | 2.0 | `N.Adapter` |
//! | 2.1.0 | `N.Adapter_1` to `N.Adapter_n` (compatible with no other release) |
//! | 2.1.1 and later | `N.Adapter`, `N.Adapter_2` to `N.Adapter_n` |
//!
//! # Messages
//!
//! One only: `{forward_to_local, Topic, Message, Dispatcher}`, sent to every member of one group on other nodes (`broadcast`),
//! or to the name of the group on one node (`direct_broadcast`). The receiver calls
//! `Dispatcher:dispatch(Subscribers, none, Message)`. `Phoenix.PubSub` as dispatcher delivers the message as it is;
//! `Phoenix.Channel.Server` delivers a `%Phoenix.Socket.Broadcast{}` ([`Broadcast`]). A dispatcher that the receiver has not loaded stops its
//! worker, so this side sends no other unless told to. The sender of `broadcast_from` is not transmitted, nothing is
//! acknowledged or replayed, and order holds for one sender and group.
//!
//! # Which group
//!
//! A BEAM sends to the group numbered `phash2(self(), n)`. If the sizes of the pools differ, messages to a group that a node has
//! not joined are lost without a sign (phoenix_pubsub issues 59 and 197). This side joins every group that any other node
//! has joined, so it misses nothing, sends to `N.Adapter`, which every member since 2.0 but 2.1.0 has, and
//! [reports](pool_mismatch) sizes that differ. Its first worker is also member of [`listeners`], which Phoenix.PubSub does not look at,
//! so that others of its kind do not take the groups that it listens on for a pool.

mod broadcast;
mod subscriptions;

use std::collections::BTreeMap;

use foundation_proto::etf::{Atom, Pid, RawTerm, Tape, Term, put_atom, put_binary, put_tuple_header};
use foundation_proto::{Limits, Result};

pub use broadcast::Broadcast;
pub use subscriptions::{Subscriber, Subscriptions};

/// The scope of `pg` that all PubSubs of a node share.
pub const SCOPE: Atom = Atom::new_static("Elixir.Phoenix.PubSub");
/// The dispatcher of plain messages.
pub const DISPATCHER: Atom = Atom::new_static("Elixir.Phoenix.PubSub");
/// The dispatcher of Phoenix channels; its messages are `%Phoenix.Socket.Broadcast{}`.
pub const CHANNEL_DISPATCHER: Atom = Atom::new_static("Elixir.Phoenix.Channel.Server");

const FORWARD: Atom = Atom::new_static("forward_to_local");
const LISTENERS: Atom = Atom::new_static("foundation_pubsub");
/// More workers than any pool has; a bound on what a peer's groups can make this side join.
pub const MAX_POOL: usize = 256;

/// The name of the adapter of a PubSub, which is also its first group; `None` if the name is too long for an atom.
pub fn adapter(pubsub: &Atom) -> Option<Atom> {
    Atom::new(&format!("{}.Adapter", pubsub.as_str())).ok()
}

/// The groups of a pool.
pub fn groups(adapter: &Atom, pool_size: usize) -> Vec<Atom> {
    let numbered =
        (2..=pool_size.min(MAX_POOL)).filter_map(|n| Atom::new(&format!("{}_{n}", adapter.as_str())).ok());
    std::iter::once(adapter.clone()).chain(numbered).collect()
}

/// The group of the workers that listen on the groups of all pools of an adapter.
pub fn listeners(adapter: &Atom) -> Term {
    Term::tuple([Term::Atom(LISTENERS), Term::Atom(adapter.clone())])
}

/// The number of a group in the pool of an adapter: 1 for `N.Adapter` and `N.Adapter_1`; `None` if it is not one of them.
pub fn group_number(adapter: &Atom, group: &Atom) -> Option<usize> {
    let rest = group.as_str().strip_prefix(adapter.as_str())?;
    if rest.is_empty() {
        return Some(1);
    }
    let digits = rest.strip_prefix('_')?;
    let plain = !digits.is_empty() && !digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit());
    digits.parse().ok().filter(|n| plain && (1..=MAX_POOL).contains(n))
}

/// The sizes of the pools of an adapter by node, from the members of its groups, if they are not all equal.
pub fn pool_mismatch<'a>(
    adapter: &Atom,
    members: impl IntoIterator<Item = (&'a Atom, &'a [Pid])>,
) -> Option<BTreeMap<Atom, usize>> {
    let mut sizes: BTreeMap<Atom, usize> = BTreeMap::new();
    for (group, pids) in members {
        let Some(number) = group_number(adapter, group) else { continue };
        for pid in pids {
            let size = sizes.entry(pid.node.clone()).or_default();
            *size = (*size).max(number);
        }
    }
    let first = sizes.values().next().copied();
    sizes.values().any(|size| Some(*size) != first).then_some(sizes)
}

/// What one node forwards to another.
#[derive(Clone, Debug)]
pub struct Forward {
    /// The topic, a binary; any bytes.
    pub topic: RawTerm,
    /// The message, still encoded.
    pub message: RawTerm,
    /// The module that is to deliver it.
    pub dispatcher: Atom,
}

impl Forward {
    /// Reads a message that arrived at a worker; `None` if it is not this one, which PubSub's workers ignore.
    ///
    /// # Errors
    /// Those of looking at the message.
    pub fn decode(message: &RawTerm, tape: &mut Tape) -> Result<Option<Self>> {
        let view = message.view(tape)?;
        let Some([tag, topic, inner, dispatcher]) = view.tuple::<4>() else { return Ok(None) };
        let well_formed = tag.is_atom(FORWARD.as_str()) && topic.as_binary().is_some();
        let (Some(topic), Some(inner), Some(dispatcher)) =
            (message.inner(topic), message.inner(inner), dispatcher.as_atom())
        else {
            return Ok(None);
        };
        Ok(well_formed.then(|| Self { topic, message: inner, dispatcher: dispatcher.to_atom() }))
    }

    /// The message for a worker of another node.
    ///
    /// # Errors
    /// If the message is not a valid term.
    pub fn encode(topic: &[u8], message: &RawTerm, dispatcher: &Atom, limits: &Limits) -> Result<RawTerm> {
        let message = message.to_plain();
        let mut bytes = Vec::with_capacity(64 + topic.len() + message.as_bytes().len());
        put_tuple_header(&mut bytes, 4);
        put_atom(&mut bytes, &FORWARD);
        put_binary(&mut bytes, topic);
        bytes.extend_from_slice(message.as_bytes());
        put_atom(&mut bytes, dispatcher);
        RawTerm::new(bytes.into(), None, limits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Atom {
        Atom::new(text).unwrap()
    }

    #[test]
    fn groups_are_named_as_pg2_names_them() {
        let adapter = adapter(&name("Elixir.MyApp.PubSub")).unwrap();
        assert_eq!(groups(&adapter, 1), [name("Elixir.MyApp.PubSub.Adapter")]);
        let pool: Vec<String> = groups(&adapter, 3).iter().map(|group| group.as_str().to_owned()).collect();
        assert_eq!(pool[1..], ["Elixir.MyApp.PubSub.Adapter_2", "Elixir.MyApp.PubSub.Adapter_3"]);
        for (at, group) in groups(&adapter, 9).iter().enumerate() {
            assert_eq!(group_number(&adapter, group), Some(at + 1));
        }
        for other in [
            "Elixir.MyApp.PubSub.Adapter_",
            "Elixir.MyApp.PubSub.Adapter_02",
            "Elixir.MyApp.PubSub.Adapter_x",
            "x",
        ] {
            assert_eq!(group_number(&adapter, &name(other)), None, "{other}");
        }
    }

    #[test]
    fn pools_of_different_size_are_noticed() {
        let adapter = name("A");
        let pid = |node: &str, id| Pid { node: name(node), id, serial: 0, creation: 4 };
        let (first, second) = (vec![pid("a@h", 1), pid("b@h", 1)], vec![pid("a@h", 2)]);
        let groups = [(name("A"), first), (name("A_2"), second), (name("Other"), vec![pid("c@h", 1)])];
        let members = || groups.iter().map(|(group, pids)| (group, pids.as_slice()));
        let sizes = pool_mismatch(&adapter, members()).unwrap();
        assert_eq!(sizes, BTreeMap::from([(name("a@h"), 2), (name("b@h"), 1)]));
        assert_eq!(pool_mismatch(&adapter, members().take(1)), None);
    }

    #[test]
    fn forwards_are_read_and_written() {
        let limits = Limits::default();
        let message = RawTerm::from_term(&Term::Integer(42)).unwrap();
        let wire = Forward::encode(b"room:1", &message, &DISPATCHER, &limits).unwrap();
        let mut tape = Tape::new();
        let forward = Forward::decode(&wire, &mut tape).unwrap().unwrap();
        assert_eq!(forward.message.to_term(&limits).unwrap(), Term::Integer(42));
        assert_eq!(forward.dispatcher, DISPATCHER);
        assert_eq!(forward.topic.to_term(&limits).unwrap(), Term::Binary("room:1".into()));
        assert!(Forward::decode(&message, &mut tape).unwrap().is_none());
    }
}
