use std::collections::BTreeMap;

use foundation_proto::etf::Pid;

/// The links of one process, and the unlinks that its peers have not acknowledged yet.
///
/// Two processes of different nodes can link and unlink each other at the same time. So a removed link stays as inactive
/// until the other side has acknowledged the removal: what that side sent before it knew is recognised by it. The rules
/// are those of erts' "Distribution Protocol", section "Link Protocol". `C` stands for the connection that a link
/// crosses; it never outlives it.
///
/// | event | absent | active | inactive (id) |
/// |---|---|---|---|
/// | [`link`](Self::link) | active, send LINK | – | active, send LINK |
/// | [`link_received`](Self::link_received) | active | – | – |
/// | [`unlink`](Self::unlink) | – | inactive with a fresh id, send UNLINK_ID | – |
/// | [`unlink_received`](Self::unlink_received) | – | absent | – |
/// | [`unlink_ack_received`](Self::unlink_ack_received) | – | – | absent if the ids are equal |
/// | [`exit_received`](Self::exit_received) | – | absent, act on it | absent |
///
/// The UNLINK_ID_ACK that answers an UNLINK_ID is sent in every case, before anything else to that sender.
#[derive(Debug)]
pub(crate) struct LinkTable<C> {
    links: BTreeMap<Pid, Entry<C>>,
    last_unlink_id: u64,
}

#[derive(Debug)]
struct Entry<C> {
    /// The id of the UNLINK_ID that is not acknowledged yet; `None` while the link is active.
    unlinking: Option<u64>,
    connection: C,
}

/// What a removed link needs on the wire.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Unlink<C> {
    /// There was no active link.
    Nothing,
    /// Send UNLINK_ID; the entry stays until the acknowledgement.
    WithId { id: u64, connection: C },
    /// Send the old UNLINK, which is not acknowledged; the entry is gone.
    Old { connection: C },
}

/// What [`LinkTable::link`] found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Linked {
    /// A new entry: send LINK.
    New,
    /// An entry that was being removed is active again: send LINK.
    Again,
    /// The link was active: nothing to do.
    Already,
}

impl<C> Default for LinkTable<C> {
    fn default() -> Self {
        Self { links: BTreeMap::new(), last_unlink_id: 0 }
    }
}

impl<C: Clone> LinkTable<C> {
    /// The local process links itself to `peer`.
    pub(crate) fn link(&mut self, peer: &Pid, connection: &C) -> Linked {
        match self.links.get_mut(peer) {
            None => {
                self.links.insert(peer.clone(), Entry { unlinking: None, connection: connection.clone() });
                Linked::New
            }
            Some(Entry { unlinking: None, .. }) => Linked::Already,
            Some(entry) => {
                entry.unlinking = None;
                Linked::Again
            }
        }
    }

    /// LINK arrived; `true` if it made a new entry.
    pub(crate) fn link_received(&mut self, peer: &Pid, connection: &C) -> bool {
        // An inactive entry stays so: the peer sent this before it saw the UNLINK_ID.
        if self.links.contains_key(peer) {
            return false;
        }
        self.links.insert(peer.clone(), Entry { unlinking: None, connection: connection.clone() });
        true
    }

    /// The local process removes its link to `peer`. `acknowledged`: whether the peer knows UNLINK_ID.
    pub(crate) fn unlink(&mut self, peer: &Pid, acknowledged: impl FnOnce(&C) -> bool) -> Unlink<C> {
        let Some(entry) = self.links.get_mut(peer).filter(|entry| entry.unlinking.is_none()) else {
            return Unlink::Nothing;
        };
        if !acknowledged(&entry.connection) {
            return match self.links.remove(peer) {
                Some(entry) => Unlink::Old { connection: entry.connection },
                None => Unlink::Nothing,
            };
        }
        // 0 is no id.
        self.last_unlink_id = self.last_unlink_id.wrapping_add(1).max(1);
        entry.unlinking = Some(self.last_unlink_id);
        Unlink::WithId { id: self.last_unlink_id, connection: entry.connection.clone() }
    }

    /// UNLINK_ID (or UNLINK) arrived; `true` if an entry was removed.
    pub(crate) fn unlink_received(&mut self, peer: &Pid) -> bool {
        if self.links.get(peer).is_some_and(|entry| entry.unlinking.is_none()) {
            self.links.remove(peer);
            return true;
        }
        false
    }

    /// UNLINK_ID_ACK arrived; `true` if an entry was removed.
    pub(crate) fn unlink_ack_received(&mut self, peer: &Pid, id: u64) -> bool {
        if self.links.get(peer).is_some_and(|entry| entry.unlinking == Some(id)) {
            self.links.remove(peer);
            return true;
        }
        false
    }

    /// The exit signal of a link arrived: `Some(true)` if the link was active, so that the signal counts, `Some(false)` if
    /// it was being removed, `None` if there was none.
    pub(crate) fn exit_received(&mut self, peer: &Pid) -> Option<bool> {
        self.links.remove(peer).map(|entry| entry.unlinking.is_none())
    }

    /// Removes the entries that `lost` says crossed a connection that ended. Returns each peer and whether the link was active.
    pub(crate) fn remove_lost(&mut self, lost: impl Fn(&C) -> bool) -> Vec<(Pid, bool)> {
        self.links
            .extract_if(.., |_, entry| lost(&entry.connection))
            .map(|(peer, entry)| (peer, entry.unlinking.is_none()))
            .collect()
    }

    /// The process ends: all entries, each with whether it was active.
    pub(crate) fn take(&mut self) -> Vec<(Pid, bool, C)> {
        core::mem::take(&mut self.links)
            .into_iter()
            .map(|(peer, entry)| (peer, entry.unlinking.is_none(), entry.connection))
            .collect()
    }

    /// The peers of the active links, in Erlang's order.
    pub(crate) fn active(&self) -> Vec<Pid> {
        self.links
            .iter()
            .filter(|(_, entry)| entry.unlinking.is_none())
            .map(|(peer, _)| peer.clone())
            .collect()
    }

    /// Entries, active or not.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.links.len()
    }
}

#[cfg(test)]
mod tests {
    use foundation_proto::etf::Atom;

    use super::*;

    fn peer() -> Pid {
        Pid { node: Atom::new_static("b@h"), id: 1, serial: 0, creation: 1 }
    }

    fn unlink(table: &mut LinkTable<u8>) -> u64 {
        match table.unlink(&peer(), |_| true) {
            Unlink::WithId { id, connection: 9 } => id,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_link_is_made_once() {
        let mut table = LinkTable::default();
        assert_eq!(table.link(&peer(), &9), Linked::New);
        assert_eq!(table.link(&peer(), &9), Linked::Already);
        assert!(!table.link_received(&peer(), &9));
        assert_eq!(table.active(), [peer()]);
    }

    #[test]
    fn an_unlinked_peer_is_not_heard_until_it_acknowledges() {
        let mut table = LinkTable::default();
        table.link(&peer(), &9);
        let id = unlink(&mut table);
        assert_eq!(table.unlink(&peer(), |_| true), Unlink::Nothing);
        // Sent by the peer before it saw the UNLINK_ID.
        assert!(!table.link_received(&peer(), &9));
        assert!(!table.unlink_received(&peer()));
        assert!(table.active().is_empty());
        assert!(!table.unlink_ack_received(&peer(), id + 1));
        assert!(table.unlink_ack_received(&peer(), id));
        assert_eq!(table.len(), 0);
        assert!(table.link_received(&peer(), &9));
    }

    #[test]
    fn a_stale_acknowledgement_does_not_end_a_renewed_link() {
        let mut table = LinkTable::default();
        table.link(&peer(), &9);
        let first = unlink(&mut table);
        assert_eq!(table.link(&peer(), &9), Linked::Again);
        assert!(!table.unlink_ack_received(&peer(), first));
        assert_eq!(table.active(), [peer()]);
        let second = unlink(&mut table);
        assert_ne!(first, second);
        assert!(!table.unlink_ack_received(&peer(), first));
        assert!(table.unlink_ack_received(&peer(), second));
    }

    #[test]
    fn an_exit_counts_only_while_the_link_is_active() {
        let mut table = LinkTable::default();
        assert_eq!(table.exit_received(&peer()), None);
        table.link(&peer(), &9);
        assert_eq!(table.exit_received(&peer()), Some(true));
        table.link(&peer(), &9);
        unlink(&mut table);
        assert_eq!(table.exit_received(&peer()), Some(false));
        assert_eq!(table.len(), 0);
    }

    #[test]
    fn a_peer_without_unlink_id_gets_the_old_signal_and_is_forgotten_at_once() {
        let mut table = LinkTable::default();
        table.link(&peer(), &9);
        assert_eq!(table.unlink(&peer(), |_| false), Unlink::Old { connection: 9 });
        assert_eq!(table.len(), 0);
    }

    #[test]
    fn only_the_links_of_the_lost_connection_go() {
        let mut table = LinkTable::default();
        let other = Pid { node: Atom::new_static("c@h"), ..peer() };
        table.link(&peer(), &9);
        table.link(&other, &8);
        unlink(&mut table);
        assert_eq!(table.remove_lost(|connection| *connection == 9), [(peer(), false)]);
        assert_eq!(table.active(), [other]);
    }
}
