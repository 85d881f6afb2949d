use core::cmp::Ordering;
use core::hash::{Hash, Hasher};

use super::Atom;

/// A process identifier. `Ord` is Erlang's: serial, id, node name, creation.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Pid {
    /// The node the process lives (or lived) on.
    pub node: Atom,
    /// The number that `~p` prints in the middle.
    pub id: u32,
    /// The number that `~p` prints last: how often `id` was used before.
    pub serial: u32,
    /// The incarnation of the node; 0 only in identifiers of nodes that are not alive.
    pub creation: u32,
}

/// A port identifier. `Ord` is Erlang's: node name, creation, id.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Port {
    /// The node the port lives on.
    pub node: Atom,
    /// The number that `~p` prints last. Beyond 28 bits only since OTP 24.
    pub id: u64,
    /// The incarnation of the node.
    pub creation: u32,
}

/// A reference, which may also be the alias of a process. `Ord` is Erlang's: node name, creation, words from the last.
///
/// Equality ignores zero words at the end, as Erlang does.
#[derive(Clone, Debug)]
pub struct Reference {
    /// The node that made it.
    pub node: Atom,
    /// The incarnation of the node.
    pub creation: u32,
    len: u8,
    words: [u32; Self::MAX_WORDS],
}

impl Reference {
    /// The most words a reference can have (since OTP 24; 3 before).
    pub const MAX_WORDS: usize = 5;

    /// A reference of 1 to 5 words, in wire order; `None` for any other count.
    pub fn new(node: Atom, creation: u32, words: &[u32]) -> Option<Self> {
        let mut all = [0; Self::MAX_WORDS];
        if words.is_empty() {
            return None;
        }
        all.get_mut(..words.len())?.copy_from_slice(words);
        Some(Self { node, creation, len: words.len() as u8, words: all })
    }

    /// The words in wire order; the first is the one of the lowest significance.
    pub fn words(&self) -> &[u32] {
        self.words.get(..usize::from(self.len)).unwrap_or_default()
    }
}

impl PartialEq for Reference {
    fn eq(&self, other: &Self) -> bool {
        self.words == other.words && self.creation == other.creation && self.node == other.node
    }
}

impl Eq for Reference {}

impl Hash for Reference {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.words.hash(state);
        self.creation.hash(state);
        self.node.hash(state);
    }
}

impl Ord for Reference {
    fn cmp(&self, other: &Self) -> Ordering {
        (&self.node, self.creation)
            .cmp(&(&other.node, other.creation))
            .then_with(|| self.words.iter().rev().cmp(other.words.iter().rev()))
    }
}

impl PartialOrd for Reference {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Pid {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.serial, self.id, &self.node, self.creation).cmp(&(
            other.serial,
            other.id,
            &other.node,
            other.creation,
        ))
    }
}

impl PartialOrd for Pid {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Port {
    fn cmp(&self, other: &Self) -> Ordering {
        (&self.node, self.creation, self.id).cmp(&(&other.node, other.creation, other.id))
    }
}

impl PartialOrd for Port {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_ignore_zero_words_at_the_end() {
        let node = Atom::new_static("a@b");
        let short = Reference::new(node.clone(), 4, &[1, 2, 3]).unwrap();
        assert_eq!(short, Reference::new(node.clone(), 4, &[1, 2, 3, 0, 0]).unwrap());
        assert_ne!(short, Reference::new(node.clone(), 4, &[1, 2, 3, 0, 1]).unwrap());
        assert!(Reference::new(node.clone(), 4, &[]).is_none());
        assert!(Reference::new(node, 4, &[0; 6]).is_none());
    }
}
