use core::cmp::Ordering;
use core::fmt;
use core::hash::{Hash, Hasher};
use std::sync::Arc;

use super::tag::SMALL_ATOM_UTF8_EXT;

/// An Erlang atom: 0 to 255 characters of UTF-8 text.
///
/// There is no atom table. An atom of the program costs nothing (`Atom::new_static("ok")`), a short one from a peer lives
/// inside the value, a long one is a counted string. So a peer that invents atoms uses memory only as long as somebody
/// keeps them, and no table can fill up. Comparison is by text, which is Erlang's order of atoms (code points).
#[derive(Clone)]
pub struct Atom(Repr);

/// The longest text that is stored inside the value.
const INLINE: usize = Atom::INLINE;

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

    /// An atom of the first `len` bytes, which were checked to be UTF-8 of at most 255 characters.
    #[inline]
    pub(super) fn from_checked(bytes: &[u8], len: usize) -> Self {
        if len <= INLINE {
            // What lies behind the text is copied with it and never read: one copy of fixed size.
            if let Some(whole) = bytes.first_chunk() {
                return Self(Repr::Inline { len: len as u8, bytes: *whole });
            }
            let mut room = [0; INLINE];
            room.iter_mut().zip(bytes.get(..len).unwrap_or_default()).for_each(|(room, byte)| *room = *byte);
            return Self(Repr::Inline { len: len as u8, bytes: room });
        }
        let text = core::str::from_utf8(bytes.get(..len).unwrap_or_default()).unwrap_or_default();
        Self::new(text).unwrap_or_else(|_| Self::new_static(""))
    }

    /// An atom of this text, if it is ASCII and fits into the value.
    #[cfg(feature = "serde")]
    #[inline]
    pub(super) fn from_short_ascii(text: &[u8]) -> Option<Self> {
        let mut bytes = [0; INLINE];
        let room = bytes.get_mut(..text.len())?;
        if !text.is_ascii() {
            return None;
        }
        room.copy_from_slice(text);
        Some(Self(Repr::Inline { len: text.len() as u8, bytes }))
    }

    /// The most bytes of text that an atom holds without another allocation.
    pub(super) const INLINE: usize = 22;

    /// The most bytes that [`encoded`](Self::encoded) returns.
    pub(super) const ENCODED: usize = INLINE + 2;

    /// The atom in the form SMALL_ATOM_UTF8_EXT and how many of the bytes count, if the text is inside the value.
    #[inline]
    pub(super) fn encoded(&self) -> Option<([u8; Self::ENCODED], usize)> {
        let Repr::Inline { len, bytes } = &self.0 else { return None };
        let mut all = [0; Self::ENCODED];
        let (head, text) = all.split_at_mut(2);
        head.copy_from_slice(&[SMALL_ATOM_UTF8_EXT, *len]);
        text.copy_from_slice(bytes);
        Some((all, 2 + usize::from(*len)))
    }

    /// Whether it counts nothing, so that there is nothing to release.
    #[inline]
    pub(super) fn is_plain(&self) -> bool {
        !matches!(self.0, Repr::Shared(_))
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
        match (&self.0, &other.0) {
            (Repr::Inline { len, bytes }, Repr::Inline { len: other_len, bytes: other }) => {
                len == other_len && starts_equal(bytes, other, *len)
            }
            _ => self.as_bytes() == other.as_bytes(),
        }
    }
}

/// Whether the first `len` bytes are the same. A message compares the names of nodes several times, and a call for each
/// costs more than comparing them all; so this names each word, where iterators become calls in a build without
/// link-time optimisation.
#[inline]
fn starts_equal(one: &[u8; INLINE], other: &[u8; INLINE], len: u8) -> bool {
    let Some([first, second, last]) = STARTS.get(usize::from(len)) else { return false };
    (word::<{ WORDS[0] }>(one) ^ word::<{ WORDS[0] }>(other)) & first
        | (word::<{ WORDS[1] }>(one) ^ word::<{ WORDS[1] }>(other)) & second
        | (word::<{ WORDS[2] }>(one) ^ word::<{ WORDS[2] }>(other)) & last
        == 0
}

/// Eight bytes, from `AT` on, of a text that is stored inside the value.
#[inline]
fn word<const AT: usize>(bytes: &[u8; INLINE]) -> u64 {
    match bytes.split_at(AT).1.first_chunk() {
        Some(word) => u64::from_le_bytes(*word),
        None => 0,
    }
}

/// Where the three words that hold a text inside the value begin; some bytes are in two.
const WORDS: [usize; 3] = [0, 8, INLINE - 8];

/// For each length the bits of these words that belong to the text.
static STARTS: [[u64; 3]; INLINE + 1] = {
    let mut masks = [[0; 3]; INLINE + 1];
    let mut len = 0;
    while len <= INLINE {
        let mut word = 0;
        while word < WORDS.len() {
            let mut byte = 0;
            while byte < 8 && WORDS[word] + byte < len {
                masks[len][word] |= 0xFF << (8 * byte);
                byte += 1;
            }
            word += 1;
        }
        len += 1;
    }
    masks
};

/// Whether two texts are the same: most are short, and a call costs more than two words, which may overlap.
#[inline(always)]
pub(super) fn are_equal(one: &[u8], other: &[u8]) -> bool {
    let len = one.len();
    if len != other.len() {
        return false;
    }
    if len < 4 {
        // These are all of up to three.
        let bytes = |text: &[u8]| (text.first().copied(), text.get(len / 2).copied(), text.last().copied());
        return bytes(one) == bytes(other);
    }
    if len < 8 {
        return ends::<4>(one) == ends::<4>(other);
    }
    if len <= 16 { ends::<8>(one) == ends::<8>(other) } else { one == other }
}

/// The first and the last bytes.
#[inline(always)]
pub(super) fn ends<const N: usize>(text: &[u8]) -> Option<(&[u8; N], &[u8; N])> {
    Some((text.first_chunk()?, text.last_chunk()?))
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
    #[inline]
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

/// An atom inside an encoded term: a look at its text, without a copy.
///
/// Compares by characters, so that the same atom in different encodings is equal.
#[derive(Clone, Copy)]
pub struct AtomRef<'a> {
    bytes: &'a [u8],
    text: Text,
}

/// What the bytes of an [`AtomRef`] are.
// A word and not a byte: it is written by itself and copied with what is beside it, which stalls if that is larger.
#[derive(Clone, Copy, Eq, PartialEq)]
#[repr(u64)]
enum Text {
    Utf8,
    /// Not all ASCII (ATOM_EXT of OTP 25 and earlier).
    Latin1,
}

impl<'a> AtomRef<'a> {
    /// Checked UTF-8 of at most 255 characters.
    #[inline]
    pub(super) fn utf8(bytes: &'a [u8]) -> Self {
        Self { bytes, text: Text::Utf8 }
    }

    pub(super) fn latin1(bytes: &'a [u8]) -> Self {
        Self { bytes, text: if bytes.is_ascii() { Text::Utf8 } else { Text::Latin1 } }
    }

    /// The text; `None` for the rare Latin-1 encoding with a character beyond ASCII, see [`to_atom`](Self::to_atom).
    pub fn as_str(self) -> Option<&'a str> {
        if self.text == Text::Latin1 { None } else { core::str::from_utf8(self.bytes).ok() }
    }

    /// An owned copy; allocates only for texts of more than 22 bytes.
    pub fn to_atom(self) -> Atom {
        let mut room = String::new();
        let text = self.utf8_bytes(&mut room);
        Atom::from_checked(text, text.len())
    }

    /// The bytes of UTF-8 (copied if need be into `room`).
    pub(super) fn utf8_bytes<'b>(self, room: &'b mut String) -> &'b [u8]
    where
        'a: 'b,
    {
        if self.text == Text::Utf8 {
            return self.bytes;
        }
        room.clear();
        room.extend(self.chars());
        room.as_bytes()
    }

    fn chars(self) -> impl Iterator<Item = char> {
        self.bytes.iter().map(|byte| char::from(*byte))
    }
}

impl<'a> From<&'a Atom> for AtomRef<'a> {
    fn from(atom: &'a Atom) -> Self {
        Self::utf8(atom.as_bytes())
    }
}

impl PartialEq<str> for AtomRef<'_> {
    #[inline]
    fn eq(&self, other: &str) -> bool {
        if self.text == Text::Latin1 {
            self.chars().eq(other.chars())
        } else {
            are_equal(self.bytes, other.as_bytes())
        }
    }
}

impl PartialEq<&str> for AtomRef<'_> {
    #[inline]
    fn eq(&self, other: &&str) -> bool {
        self == *other
    }
}

impl PartialEq<Atom> for AtomRef<'_> {
    fn eq(&self, other: &Atom) -> bool {
        self.cmp(&other.into()).is_eq()
    }
}

impl PartialEq for AtomRef<'_> {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        if self.text == other.text { are_equal(self.bytes, other.bytes) } else { self.cmp(other).is_eq() }
    }
}

impl Eq for AtomRef<'_> {}

/// As [`Atom`]'s.
impl Hash for AtomRef<'_> {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        if self.text == Text::Latin1 { self.to_atom().hash(state) } else { self.bytes.hash(state) }
    }
}

impl Ord for AtomRef<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        if self.text == other.text {
            return self.bytes.cmp(other.bytes);
        }
        let (mut left, mut right) = (String::new(), String::new());
        self.utf8_bytes(&mut left).cmp(other.utf8_bytes(&mut right))
    }
}

impl PartialOrd for AtomRef<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Debug for AtomRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_atom().fmt(f)
    }
}

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

    /// What lies behind the text differs between atoms that were made in different ways, and each byte of the text counts.
    #[test]
    fn equality_is_that_of_the_text() {
        let text = *b"abcdefghijklmnopqrstuvwxyz0123456789";
        for len in 0..=INLINE + 1 {
            let atom = Atom::from_checked(&text, len);
            assert_eq!(atom, Atom::new(str::from_utf8(&text[..len]).unwrap()).unwrap());
            assert_ne!(atom, Atom::from_checked(&text, len + 1));
            for at in 0..len {
                let mut other = text;
                other[at] = b'!';
                assert_ne!(atom, Atom::from_checked(&other, len), "{len} {at}");
            }
        }
    }

    #[cfg(feature = "serde")]
    #[test]
    fn short_ascii() {
        for len in 0..30 {
            let text = &b"abcdefghijklmnopqrstuvwxyz0123456789"[..len];
            let atom = Atom::from_short_ascii(text);
            assert_eq!(atom, (len <= INLINE).then(|| Atom::new(str::from_utf8(text).unwrap()).unwrap()));
            for at in 0..len {
                let mut other = text.to_vec();
                other[at] |= 0x80;
                assert!(Atom::from_short_ascii(&other).is_none());
            }
        }
    }

    #[test]
    fn an_atom_is_three_words() {
        assert_eq!(size_of::<Atom>(), 24);
    }
}
