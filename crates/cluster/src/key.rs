use std::cmp::Ordering;

use foundation_proto::etf::Term;

/// A term as a key: compared by `=:=`, never by its encoding, which differs between releases.
#[derive(Clone, Debug)]
pub struct Key(pub Term);

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.cmp_exact(&other.0)
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Key {}

impl From<Term> for Key {
    fn from(term: Term) -> Self {
        Self(term)
    }
}
