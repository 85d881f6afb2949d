use std::sync::Arc;

use foundation_proto::etf::{BitString, Map, Term, phash2_range};

use super::{Element, Entry};
use crate::Key;
use crate::message::{atom, tuple_of};

/// How many levels of the tree one message carries; both sides must use the same (`DeltaCrdt.CausalCrdt`).
pub const LEVELS: u32 = 8;
/// Bits of a key's hash, and so the greatest depth.
pub(super) const BITS: u32 = 32;
const HASH_RANGE: u64 = 1 << BITS;

/// The hash tree over the keys and elements of a map (`MerkleMap`), for finding where two maps differ.
///
/// A key hangs at the shallowest place where the bits of its hash, from the most significant, are its own; the shape
/// follows from the set of keys alone. The hash of a leaf is `phash2(#{Key => Elements}, 2³²)`, that of an inner node
/// `phash2({Left, Right}, 2³²)` over the four-byte binaries below it, `[]` standing for nothing.
///
/// It keeps hashes alone: keys and elements are those of the map.
#[derive(Clone, Debug, Default)]
pub struct MerkleMap {
    shape: MapSetShape,
    root: Tree,
}

/// Two words: there are some three nodes for each key.
#[derive(Clone, Debug, Default)]
enum Tree {
    #[default]
    Empty,
    Leaf(u32, Arc<Entry>),
    /// Keys whose hashes are equal: of 100,000 keys one pair.
    Leaves(Box<Leaves>),
    Inner(Box<Inner>),
}

#[derive(Clone, Debug)]
struct Leaves {
    /// Not yet computed since the last change: a peer may have chosen many keys of one hash.
    hash: Option<u32>,
    entries: Vec<Arc<Entry>>,
}

#[derive(Clone, Debug)]
struct Inner {
    /// Not yet computed since the last change.
    hash: Option<u32>,
    left: Tree,
    right: Tree,
}

/// A part of a tree as it is sent: some levels below a place, with the leaves whole. Of what a peer sends only the keys are kept.
#[derive(Clone, Debug, PartialEq)]
pub enum Subtree<Contents = Vec<Key>> {
    /// No keys.
    Empty,
    /// One key, or several of equal hash.
    Leaf {
        /// Hash of the contents.
        hash: u32,
        /// Hash of the key.
        key_hash: u32,
        /// Keys, with their elements if this is to be sent.
        contents: Contents,
    },
    /// Two subtrees.
    Inner {
        /// Hash of both.
        hash: u32,
        /// Keys whose next bit is 0.
        left: Box<Self>,
        /// Keys whose next bit is 1.
        right: Box<Self>,
    },
    /// More levels than fit: to be asked for.
    Partial(Location),
}

/// A part of the own tree.
pub type OwnSubtree = Subtree<Vec<Arc<Entry>>>;

/// A place in the tree: the bits that lead there from the root.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Location {
    bits: u32,
    depth: u32,
}

/// How peers write a `MapSet`, which depends on the Elixir they run; it is part of what is hashed.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub enum MapSetShape {
    /// Elixir 1.14 and before: with the key `version`.
    Versioned,
    /// Since Elixir 1.15.
    #[default]
    Plain,
}

impl Location {
    /// The root.
    pub const ROOT: Self = Self { bits: 0, depth: 0 };

    fn child(self, right: bool) -> Self {
        let bit = u32::from(right) << (BITS - 1 - self.depth.min(BITS - 1));
        Self { bits: self.bits | bit, depth: self.depth + 1 }
    }

    /// How many bits lead there.
    pub(super) fn depth(self) -> u32 {
        self.depth
    }

    #[cfg(test)]
    pub(super) fn children(self) -> (Self, Self) {
        (self.child(false), self.child(true))
    }

    /// Whether a key of this hash is there.
    fn has(self, key_hash: u32) -> bool {
        let differs = self.bits ^ key_hash;
        differs.leading_zeros() >= self.depth
    }

    /// The bit string that peers use.
    pub fn to_term(self) -> Term {
        let bytes = self.bits.to_be_bytes();
        let used = bytes.get(..self.depth.div_ceil(8) as usize).unwrap_or_default().to_vec();
        match self.depth % 8 {
            0 => Term::Binary(used.into()),
            bits => Term::BitString(Box::new(BitString { bytes: used.into(), last_bits: bits as u8 })),
        }
    }

    /// Reads a bit string of at most 32 bits.
    pub fn from_term(term: &Term) -> Option<Self> {
        let (bytes, depth) = match term {
            Term::Binary(bytes) => (bytes, bytes.len() * 8),
            Term::BitString(b) => (&b.bytes, (b.bytes.len().checked_sub(1)?) * 8 + usize::from(b.last_bits)),
            _ => return None,
        };
        let mut all = [0; 4];
        all.get_mut(..bytes.len())?.copy_from_slice(bytes);
        let depth = depth as u32;
        let mask = u32::MAX.checked_shl(BITS - depth).unwrap_or(0);
        Some(Self { bits: u32::from_be_bytes(all) & mask, depth })
    }
}

impl OwnSubtree {
    /// As a peer reads it.
    pub fn keys(&self) -> Subtree {
        match self {
            Self::Empty => Subtree::Empty,
            Self::Leaf { hash, key_hash, contents } => Subtree::Leaf {
                hash: *hash,
                key_hash: *key_hash,
                contents: contents.iter().map(|entry| entry.key().clone()).collect(),
            },
            Self::Inner { hash, left, right } => {
                Subtree::Inner { hash: *hash, left: Box::new(left.keys()), right: Box::new(right.keys()) }
            }
            Self::Partial(at) => Subtree::Partial(*at),
        }
    }
}

impl MerkleMap {
    /// An empty tree as peers have it whose sets are of this shape.
    pub fn new(shape: MapSetShape) -> Self {
        Self { shape, root: Tree::Empty }
    }

    /// Puts a key with its elements.
    pub fn put(&mut self, entry: &Arc<Entry>) {
        // At once: later, most of it would have to be brought back from memory.
        let hash = contents_hash([&**entry], self.shape);
        self.root.put(0, hash, Arc::clone(entry));
    }

    /// Takes a key out, the entry of which was put.
    pub fn delete(&mut self, entry: &Entry) {
        self.root.delete(0, entry, self.shape);
    }

    /// The hash of the whole; `None` if the map is empty.
    pub fn root_hash(&mut self) -> Option<u32> {
        self.root.hash(self.shape)
    }

    /// Some levels below a place.
    pub fn subtree(&mut self, at: Location, levels: u32) -> OwnSubtree {
        self.root.hash(self.shape);
        let mut tree = &self.root;
        let mut depth = 0;
        while let Tree::Inner(inner) = tree
            && depth < at.depth
        {
            tree = inner.branch(at.bits, depth);
            depth += 1;
        }
        tree.cut(at, levels)
    }

    /// Compares with what a peer sent of its tree at a place.
    pub fn compare(&mut self, at: Location, theirs: Subtree) -> Differences {
        self.root.hash(self.shape);
        let mut found = Differences::default();
        found.compare(self.root.at(at), theirs, at.depth);
        found
    }
}

impl Leaves {
    fn is_at(&self, key_hash: u32) -> bool {
        self.entries.first().is_some_and(|entry| entry.key_hash() == key_hash)
    }
}

impl Inner {
    fn branch(&self, key_hash: u32, depth: u32) -> &Tree {
        if bit(key_hash, depth) { &self.right } else { &self.left }
    }

    fn branch_mut(&mut self, key_hash: u32, depth: u32) -> &mut Tree {
        if bit(key_hash, depth) { &mut self.right } else { &mut self.left }
    }
}

impl Tree {
    /// The hash of the keys that hang here, if it is a leaf.
    fn key_hash(&self) -> Option<u32> {
        self.contents().first().map(|entry| entry.key_hash())
    }

    /// The keys that hang here, if it is a leaf.
    fn contents(&self) -> &[Arc<Entry>] {
        match self {
            Self::Leaf(_, entry) => std::slice::from_ref(entry),
            Self::Leaves(leaves) => &leaves.entries,
            Self::Empty | Self::Inner(_) => &[],
        }
    }

    /// Puts one key with its elements, whose hash is `hash`.
    fn put(&mut self, depth: u32, hash: u32, new: Arc<Entry>) {
        match self {
            Self::Empty => *self = Self::Leaf(hash, new),
            Self::Inner(inner) => {
                inner.hash = None;
                inner.branch_mut(new.key_hash(), depth).put(depth + 1, hash, new);
            }
            Self::Leaf(found, entry) if entry.key() == new.key() => (*found, *entry) = (hash, new),
            Self::Leaf(_, entry) if entry.key_hash() == new.key_hash() => {
                let entries = vec![Arc::clone(entry), new];
                *self = Self::Leaves(Box::new(Leaves { hash: None, entries }));
            }
            Self::Leaves(leaves) if leaves.is_at(new.key_hash()) => {
                leaves.hash = None;
                leaves.entries.retain(|entry| entry.key() != new.key());
                leaves.entries.push(new);
            }
            Self::Leaf(..) | Self::Leaves(_) => {
                let right = self.key_hash().is_some_and(|found| bit(found, depth));
                let leaf = std::mem::take(self);
                let (left, right) = if right { (Self::Empty, leaf) } else { (leaf, Self::Empty) };
                *self = Self::Inner(Box::new(Inner { hash: None, left, right }));
                self.put(depth, hash, new);
            }
        }
    }

    fn delete(&mut self, depth: u32, gone: &Entry, shape: MapSetShape) {
        match self {
            Self::Inner(inner) => {
                inner.hash = None;
                inner.branch_mut(gone.key_hash(), depth).delete(depth + 1, gone, shape);
                match (&mut inner.left, &mut inner.right) {
                    (Self::Empty, Self::Inner(_)) | (Self::Inner(_), Self::Empty) => {}
                    (Self::Empty, rest) | (rest, Self::Empty) => {
                        let rest = std::mem::take(rest);
                        *self = rest;
                    }
                    _ => {}
                }
            }
            Self::Leaf(_, entry) if entry.key() == gone.key() => *self = Self::Empty,
            Self::Leaves(leaves) if leaves.is_at(gone.key_hash()) => {
                leaves.hash = None;
                leaves.entries.retain(|entry| entry.key() != gone.key());
                if let [last] = &*leaves.entries {
                    *self = Self::Leaf(contents_hash([&**last], shape), Arc::clone(last));
                }
            }
            Self::Empty | Self::Leaf(..) | Self::Leaves(_) => {}
        }
    }

    /// Computes what is missing below. The depth is at most 32.
    fn hash(&mut self, shape: MapSetShape) -> Option<u32> {
        match self {
            Self::Empty => None,
            Self::Leaf(hash, _) => Some(*hash),
            Self::Leaves(leaves) => {
                let Leaves { hash, entries } = &mut **leaves;
                let entries = entries.iter().map(|entry| &**entry);
                Some(*hash.get_or_insert_with(|| contents_hash(entries, shape)))
            }
            Self::Inner(inner) => inner.hash.or_else(|| {
                let both = tuple_of([hash_term(inner.left.hash(shape)), hash_term(inner.right.hash(shape))]);
                Some(*inner.hash.insert(hash_of(&both)))
            }),
        }
    }

    /// The same, once that has computed it.
    fn computed_hash(&self) -> Option<u32> {
        match self {
            Self::Empty => None,
            Self::Leaf(hash, _) => Some(*hash),
            Self::Leaves(leaves) => leaves.hash,
            Self::Inner(inner) => inner.hash,
        }
    }

    /// What is at a place. A leaf hangs higher than a place that only its key is in.
    fn at(&self, at: Location) -> &Self {
        const NOTHING: &Tree = &Tree::Empty;
        let mut tree = self;
        for depth in 0..at.depth {
            match tree {
                Self::Inner(inner) => tree = inner.branch(at.bits, depth),
                leaf if leaf.key_hash().is_some_and(|hash| !at.has(hash)) => return NOTHING,
                _ => break,
            }
        }
        tree
    }

    fn cut(&self, at: Location, levels: u32) -> OwnSubtree {
        match self {
            Self::Empty => Subtree::Empty,
            Self::Leaf(..) | Self::Leaves(_) => Subtree::Leaf {
                hash: self.computed_hash().unwrap_or_default(),
                key_hash: self.key_hash().unwrap_or_default(),
                contents: self.contents().to_vec(),
            },
            Self::Inner(_) if levels == 0 => Subtree::Partial(at),
            Self::Inner(inner) => Subtree::Inner {
                hash: inner.hash.unwrap_or(0),
                left: Box::new(inner.left.cut(at.child(false), levels - 1)),
                right: Box::new(inner.right.cut(at.child(true), levels - 1)),
            },
        }
    }
}

/// Where a tree differs from a peer's.
#[derive(Clone, Debug, Default)]
pub struct Differences {
    /// Keys that only the peer has, or that both have with other elements.
    pub keys: Vec<Key>,
    /// Keys that the peer does not have.
    pub lacking: Vec<Key>,
    /// Where to go on: the peer has keys there that it has not shown.
    pub places: Vec<Location>,
}

impl Differences {
    /// The depth of what a peer sends is bounded when it is read, and that of the own tree is at most 32.
    fn compare(&mut self, ours: &Tree, theirs: Subtree, depth: u32) {
        match (ours, theirs) {
            (_, Subtree::Partial(at)) => self.places.push(at),
            (Tree::Empty, theirs) => self.all_theirs(theirs),
            (_, Subtree::Empty) => self.all_ours(ours),
            (Tree::Inner(inner), Subtree::Inner { hash, left, right }) => {
                if inner.hash != Some(hash) {
                    self.compare(&inner.left, *left, depth + 1);
                    self.compare(&inner.right, *right, depth + 1);
                }
            }
            (Tree::Leaf(..) | Tree::Leaves(_), Subtree::Leaf { hash, contents, .. }) => {
                // Of several keys with equal hashes one differs, and which is not known: all of them are told.
                if ours.computed_hash() != Some(hash) {
                    let lacking = |entry: &&Arc<Entry>| !contents.contains(entry.key());
                    let lacking = ours.contents().iter().filter(lacking);
                    self.lacking.extend(lacking.map(|entry| entry.key().clone()));
                    self.keys.extend(contents);
                }
            }
            (Tree::Inner(inner), theirs @ Subtree::Leaf { key_hash, .. }) => {
                let right_has_it = bit(key_hash, depth);
                self.compare(inner.branch(key_hash, depth), theirs, depth + 1);
                self.all_ours(if right_has_it { &inner.left } else { &inner.right });
            }
            (Tree::Leaf(..) | Tree::Leaves(_), Subtree::Inner { left, right, .. }) => {
                let right_has_it = ours.key_hash().is_some_and(|hash| bit(hash, depth));
                let (with, without) = if right_has_it { (right, left) } else { (left, right) };
                self.compare(ours, *with, depth + 1);
                self.all_theirs(*without);
            }
        }
    }

    fn all_theirs(&mut self, tree: Subtree) {
        match tree {
            Subtree::Empty => {}
            Subtree::Leaf { contents, .. } => self.keys.extend(contents),
            Subtree::Inner { left, right, .. } => {
                self.all_theirs(*left);
                self.all_theirs(*right);
            }
            Subtree::Partial(at) => self.places.push(at),
        }
    }

    fn all_ours(&mut self, tree: &Tree) {
        self.lacking.extend(tree.contents().iter().map(|entry| entry.key().clone()));
        if let Tree::Inner(inner) = tree {
            self.all_ours(&inner.left);
            self.all_ours(&inner.right);
        }
    }
}

/// Bit `depth` of a hash, from the most significant.
fn bit(hash: u32, depth: u32) -> bool {
    hash.checked_shl(depth).unwrap_or(0) >> (BITS - 1) == 1
}

/// `phash2(Term, 2³²)`.
pub(super) fn hash_of(term: &Term) -> u32 {
    // The range is one that `phash2/2` allows, so there is always a hash.
    phash2_range(term, HASH_RANGE).unwrap_or_default()
}

fn hash_term(hash: Option<u32>) -> Term {
    hash.map_or_else(
        || Term::List(Vec::new().into()),
        |hash| Term::Binary(hash.to_be_bytes().to_vec().into()),
    )
}

fn contents_hash<'a>(entries: impl IntoIterator<Item = &'a Entry>, shape: MapSetShape) -> u32 {
    let pairs =
        entries.into_iter().map(|entry| (entry.key().0.clone(), elements_term(entry.elements(), shape)));
    hash_of(&Term::Map(pairs.collect()))
}

/// The elements of a key as peers hold them: `%{{Value, Timestamp} => MapSet.new(Dots)}`.
pub fn elements_term(elements: &[Element], shape: MapSetShape) -> Term {
    let pairs = elements.iter().map(|element| {
        let dots: Map = element
            .dots
            .iter()
            .map(|dot| {
                (
                    tuple_of([Term::Integer(dot.replica), Term::Integer(dot.number)]),
                    Term::List(Vec::new().into()),
                )
            })
            .collect();
        let mut set = vec![(atom("__struct__"), atom("Elixir.MapSet")), (atom("map"), Term::Map(dots))];
        if shape == MapSetShape::Versioned {
            set.push((atom("version"), Term::Integer(2)));
        }
        let set: Map = set.into_iter().collect();
        (tuple_of([element.value.clone(), Term::Integer(element.timestamp)]), Term::Map(set))
    });
    Term::Map(pairs.collect())
}

#[cfg(test)]
mod tests;
