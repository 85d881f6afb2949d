use foundation_proto::etf::{BitString, Map, Term, phash2_range};

use super::Element;
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
#[derive(Clone, Debug, Default)]
pub struct MerkleMap {
    root: Tree,
}

#[derive(Clone, Debug, Default)]
enum Tree {
    #[default]
    Empty,
    Leaf {
        key_hash: u32,
        /// Not yet computed since the last change.
        hash: Option<u32>,
        /// Keys whose hashes are equal; almost always one. The value is the term that is hashed and sent.
        contents: Vec<(Key, Term)>,
    },
    Inner {
        hash: Option<u32>,
        left: Box<Self>,
        right: Box<Self>,
    },
}

/// A part of a tree as it is sent: some levels below a place, with the leaves whole.
#[derive(Clone, Debug, PartialEq)]
pub enum Subtree {
    /// No keys.
    Empty,
    /// One key, or several of equal hash.
    Leaf {
        /// Hash of the contents.
        hash: u32,
        /// Hash of the key.
        key_hash: u32,
        /// Keys with their elements.
        contents: Vec<(Key, Term)>,
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

impl MerkleMap {
    /// Puts the elements of a key, as [`elements_term`] writes them.
    pub fn put(&mut self, key: Key, elements: Term) {
        let key_hash = hash_of(&key.0);
        let mut contents = vec![(key, elements)];
        // At once: later, most of it would have to be brought back from memory.
        let hash = contents_hash(&mut contents);
        self.root.put(0, key_hash, hash, contents);
    }

    /// Takes a key out.
    pub fn delete(&mut self, key: &Key) {
        let key_hash = hash_of(&key.0);
        self.root.delete(0, key_hash, key);
    }

    /// The hash of the whole; `None` if the map is empty.
    pub fn root_hash(&mut self) -> Option<u32> {
        self.root.hash()
    }

    /// Some levels below a place.
    pub fn subtree(&mut self, at: Location, levels: u32) -> Subtree {
        self.root.hash();
        let mut tree = &self.root;
        let mut depth = 0;
        while let Tree::Inner { left, right, .. } = tree
            && depth < at.depth
        {
            tree = if bit(at.bits, depth) { right } else { left };
            depth += 1;
        }
        tree.cut(at, levels)
    }

    /// Compares with what a peer sent of its tree at a place.
    pub fn compare(&mut self, at: Location, theirs: &Subtree) -> Differences {
        self.root.hash();
        let mut found = Differences::default();
        found.compare(self.root.at(at), theirs, at.depth);
        found
    }
}

impl Tree {
    /// Puts one key with its elements, whose hash is `new_hash`.
    fn put(&mut self, depth: u32, key_hash: u32, new_hash: u32, new: Vec<(Key, Term)>) {
        match self {
            Self::Empty => *self = Self::Leaf { key_hash, hash: Some(new_hash), contents: new },
            Self::Inner { hash, left, right } => {
                *hash = None;
                let branch = if bit(key_hash, depth) { right } else { left };
                branch.put(depth + 1, key_hash, new_hash, new);
            }
            Self::Leaf { key_hash: found, hash, contents } if *found == key_hash => {
                contents.retain(|(key, _)| new.iter().all(|(other, _)| other != key));
                *hash = contents.is_empty().then_some(new_hash);
                contents.extend(new);
            }
            Self::Leaf { key_hash: found, .. } => {
                let right = bit(*found, depth);
                let leaf = Box::new(std::mem::take(self));
                let (left, right) = if right { (Box::default(), leaf) } else { (leaf, Box::default()) };
                *self = Self::Inner { hash: None, left, right };
                self.put(depth, key_hash, new_hash, new);
            }
        }
    }

    fn delete(&mut self, depth: u32, key_hash: u32, key: &Key) {
        match self {
            Self::Leaf { key_hash: found, hash, contents } if *found == key_hash => {
                contents.retain(|(k, _)| k != key);
                *hash = None;
                if contents.is_empty() {
                    *self = Self::Empty;
                }
            }
            Self::Inner { hash, left, right } => {
                *hash = None;
                let branch = if bit(key_hash, depth) { &mut *right } else { &mut *left };
                branch.delete(depth + 1, key_hash, key);
                match (&mut **left, &mut **right) {
                    (Self::Empty, Self::Empty) => *self = Self::Empty,
                    (Self::Empty, leaf @ Self::Leaf { .. }) | (leaf @ Self::Leaf { .. }, Self::Empty) => {
                        let leaf = std::mem::take(leaf);
                        *self = leaf;
                    }
                    _ => {}
                }
            }
            Self::Empty | Self::Leaf { .. } => {}
        }
    }

    /// Computes what is missing below. The depth is at most 32.
    fn hash(&mut self) -> Option<u32> {
        match self {
            Self::Empty => None,
            Self::Leaf { hash, contents, .. } => Some(*hash.get_or_insert_with(|| contents_hash(contents))),
            Self::Inner { hash: Some(hash), .. } => Some(*hash),
            Self::Inner { hash, left, right } => {
                let both = tuple_of([hash_term(left.hash()), hash_term(right.hash())]);
                Some(*hash.insert(hash_of(&both)))
            }
        }
    }

    /// What is at a place. A leaf hangs higher than a place that only its key is in.
    fn at(&self, at: Location) -> &Self {
        const NOTHING: &Tree = &Tree::Empty;
        let mut tree = self;
        for depth in 0..at.depth {
            tree = match tree {
                Self::Inner { left, right, .. } => {
                    if bit(at.bits, depth) {
                        right
                    } else {
                        left
                    }
                }
                Self::Leaf { key_hash, .. } if !at.has(*key_hash) => NOTHING,
                Self::Leaf { .. } | Self::Empty => break,
            };
        }
        tree
    }

    fn cut(&self, at: Location, levels: u32) -> Subtree {
        match self {
            Self::Empty => Subtree::Empty,
            Self::Leaf { key_hash, hash, contents } => {
                Subtree::Leaf { hash: hash.unwrap_or(0), key_hash: *key_hash, contents: contents.clone() }
            }
            Self::Inner { .. } if levels == 0 => Subtree::Partial(at),
            Self::Inner { hash, left, right } => Subtree::Inner {
                hash: hash.unwrap_or(0),
                left: Box::new(left.cut(at.child(false), levels - 1)),
                right: Box::new(right.cut(at.child(true), levels - 1)),
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
    fn compare(&mut self, ours: &Tree, theirs: &Subtree, depth: u32) {
        match (ours, theirs) {
            (_, Subtree::Partial(at)) => self.places.push(*at),
            (Tree::Empty, _) => self.all_theirs(theirs),
            (_, Subtree::Empty) => self.all_ours(ours),
            (
                Tree::Inner { hash: a, left: al, right: ar },
                Subtree::Inner { hash: b, left: bl, right: br },
            ) => {
                if *a != Some(*b) {
                    self.compare(al, bl, depth + 1);
                    self.compare(ar, br, depth + 1);
                }
            }
            (Tree::Leaf { hash: a, contents: ca, .. }, Subtree::Leaf { hash: b, contents: cb, .. }) => {
                if *a != Some(*b) {
                    for (key, elements) in ca {
                        match cb.iter().find(|(other, _)| other == key) {
                            None => self.lacking.push(key.clone()),
                            Some((_, others)) if others != elements => self.keys.push(key.clone()),
                            Some(_) => {}
                        }
                    }
                    let new = |(key, _): &&(Key, Term)| ca.iter().all(|(other, _)| other != key);
                    self.keys.extend(cb.iter().filter(new).map(|(key, _)| key.clone()));
                }
            }
            (Tree::Inner { left, right, .. }, Subtree::Leaf { key_hash, .. }) => {
                let (with, without) = if bit(*key_hash, depth) { (right, left) } else { (left, right) };
                self.compare(with, theirs, depth + 1);
                self.all_ours(without);
            }
            (Tree::Leaf { key_hash, .. }, Subtree::Inner { left, right, .. }) => {
                let (with, without) = if bit(*key_hash, depth) { (right, left) } else { (left, right) };
                self.compare(ours, with, depth + 1);
                self.all_theirs(without);
            }
        }
    }

    fn all_theirs(&mut self, tree: &Subtree) {
        match tree {
            Subtree::Empty => {}
            Subtree::Leaf { contents, .. } => self.keys.extend(contents.iter().map(|(key, _)| key.clone())),
            Subtree::Inner { left, right, .. } => {
                self.all_theirs(left);
                self.all_theirs(right);
            }
            Subtree::Partial(at) => self.places.push(*at),
        }
    }

    fn all_ours(&mut self, tree: &Tree) {
        match tree {
            Tree::Empty => {}
            Tree::Leaf { contents, .. } => self.lacking.extend(contents.iter().map(|(key, _)| key.clone())),
            Tree::Inner { left, right, .. } => {
                self.all_ours(left);
                self.all_ours(right);
            }
        }
    }
}

/// Bit `depth` of a hash, from the most significant.
fn bit(hash: u32, depth: u32) -> bool {
    hash.checked_shl(depth).unwrap_or(0) >> (BITS - 1) == 1
}

/// `phash2(Term, 2³²)`.
fn hash_of(term: &Term) -> u32 {
    // The range is one that `phash2/2` allows, so there is always a hash.
    phash2_range(term, HASH_RANGE).unwrap_or_default()
}

fn hash_term(hash: Option<u32>) -> Term {
    hash.map_or_else(
        || Term::List(Vec::new().into()),
        |hash| Term::Binary(hash.to_be_bytes().to_vec().into()),
    )
}

fn contents_hash(contents: &mut Vec<(Key, Term)>) -> u32 {
    // Moved into the map and back: a copy takes longer than the hash.
    let pairs = std::mem::take(contents).into_iter().map(|(key, elements)| (key.0, elements));
    let map = Term::Map(pairs.collect());
    let hash = hash_of(&map);
    if let Term::Map(map) = map {
        *contents = map.into_vec().into_iter().map(|(key, elements)| (Key(key), elements)).collect();
    }
    hash
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
