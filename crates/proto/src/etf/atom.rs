use core::cmp::Ordering;
use core::fmt;
use core::hash::{Hash, Hasher};
use std::sync::Arc;

/// An Erlang atom: 0 to 255 characters of UTF-8 text.
///
/// There is no atom table. An atom of the program costs nothing (`Atom::new_static("ok")`), a short one from a peer lives
/// inside the value, a long one is a counted string. So a peer that invents atoms uses memory only as long as somebody
/// keeps them, and no table can fill up. Comparison is by text, which is Erlang's order of atoms (code points).
#[derive(Clone)]
pub struct Atom(Repr);

/// The longest text that is stored inside the value.
const INLINE: usize = 22;

#[derive(Clone)]
enum Repr {
    Inline { len: u8, bytes: [u8; INLINE] },
    Static(&'static str),
    Shared(Arc<str>),
}

/// A text of more than 255 characters cannot be an atom.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct AtomTooLong {
    /// The number of characters that were given.
    pub characters: usize,
}

impl Atom {
    /// The most characters an atom can have.
    pub const MAX_CHARACTERS: usize = 255;
    /// The most bytes of UTF-8 an atom can have.
    pub const MAX_BYTES: usize = 4 * Self::MAX_CHARACTERS;

    /// An atom of the program itself; free to make and to clone.
    ///
    /// # Panics
    /// If the text has more than 255 bytes; used in a `const`, at compile time.
    #[allow(
        clippy::panic,
        reason = "the text is the program's own, and a const evaluates this at compile time"
    )]
    pub const fn new_static(text: &'static str) -> Self {
        if text.len() > Self::MAX_CHARACTERS {
            panic!("an atom has at most 255 characters");
        }
        Self(Repr::Static(text))
    }

    /// An atom from any text.
    ///
    /// # Errors
    /// If the text has more than 255 characters.
    pub fn new(text: &str) -> Result<Self, AtomTooLong> {
        // A character takes at least one byte, so only long texts need counting.
        if text.len() > Self::MAX_CHARACTERS {
            let characters = text.chars().count();
            if characters > Self::MAX_CHARACTERS {
                return Err(AtomTooLong { characters });
            }
        }
        let mut bytes = [0; INLINE];
        Ok(match bytes.get_mut(..text.len()) {
            Some(room) => {
                room.copy_from_slice(text.as_bytes());
                Self(Repr::Inline { len: text.len() as u8, bytes })
            }
            None => Self(Repr::Shared(Arc::from(text))),
        })
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        match &self.0 {
            // Only ever filled from a `str`, so the check cannot fail; the fallback keeps this free of panics.
            Repr::Inline { len, bytes } => {
                core::str::from_utf8(bytes.get(..usize::from(*len)).unwrap_or_default()).unwrap_or_default()
            }
            Repr::Static(text) => text,
            Repr::Shared(text) => text,
        }
    }

    /// The text as bytes of UTF-8.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Repr::Inline { len, bytes } => bytes.get(..usize::from(*len)).unwrap_or_default(),
            Repr::Static(text) => text.as_bytes(),
            Repr::Shared(text) => text.as_bytes(),
        }
    }
}

impl PartialEq for Atom {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Atom {}

impl PartialEq<str> for Atom {
    #[inline]
    fn eq(&self, other: &str) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl PartialEq<&str> for Atom {
    #[inline]
    fn eq(&self, other: &&str) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl PartialOrd for Atom {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Atom {
    fn cmp(&self, other: &Self) -> Ordering {
        // The byte order of UTF-8 is the order of code points.
        self.as_bytes().cmp(other.as_bytes())
    }
}

impl Hash for Atom {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

impl fmt::Debug for Atom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Atom({:?})", self.as_str())
    }
}

impl TryFrom<&str> for Atom {
    type Error = AtomTooLong;

    fn try_from(text: &str) -> Result<Self, AtomTooLong> {
        Self::new(text)
    }
}

impl From<bool> for Atom {
    fn from(b: bool) -> Self {
        Self::new_static(if b { "true" } else { "false" })
    }
}

impl fmt::Display for AtomTooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an atom has at most 255 characters, this text has {}", self.characters)
    }
}

impl core::error::Error for AtomTooLong {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_representations_are_one_atom() {
        let long = "x".repeat(INLINE + 1);
        for (a, b) in [
            (Atom::new_static("ok"), Atom::new("ok").unwrap()),
            (Atom::new(&long).unwrap(), Atom::new(&long).unwrap()),
        ] {
            assert_eq!(a, b);
            assert_eq!(a.as_str(), b.as_str());
            assert_eq!(a.cmp(&b), Ordering::Equal);
        }
        assert!(Atom::new("").unwrap() < Atom::new("a").unwrap());
    }

    #[test]
    fn the_limit_counts_characters_not_bytes() {
        assert!(Atom::new(&"€".repeat(255)).is_ok());
        assert_eq!(Atom::new(&"€".repeat(256)), Err(AtomTooLong { characters: 256 }));
    }

    #[test]
    fn an_atom_is_three_words() {
        assert_eq!(size_of::<Atom>(), 24);
    }
}
