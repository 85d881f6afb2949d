use core::cmp::Ordering;

use super::atom::AtomRef;
use super::integer::{to_i64, trimmed};
use super::leaf::{Context, UsualPid, float_text, usual_pid};
use super::order::{Mode, compare};
use super::tag::*;
use super::tape::{Node, Tape};
use super::walk::{PidRef, PortRef, ReferenceRef};
use super::{Atom, Kind, Pid, Port, Reference, Term};

/// A look at one term of an encoded message, made by [`Tape::parse`].
///
/// Copying is free, stepping over a term takes the same time however large it is, and nothing is allocated.
#[derive(Clone, Copy)]
pub struct View<'a> {
    pub(super) tape: &'a Tape,
    pub(super) bytes: &'a [u8],
    pub(super) atoms: &'a [Atom],
    // No wider than it has to be, there would be room behind the node, which is read with it from where it was not written.
    pub(super) index: usize,
    pub(super) node: Node,
}

impl<'a> View<'a> {
    #[inline]
    pub(super) fn at(tape: &'a Tape, bytes: &'a [u8], atoms: &'a [Atom], index: u32) -> Option<Self> {
        let index = index as usize;
        let node = *tape.nodes().get(index)?;
        Some(Self { tape, bytes, atoms, index, node })
    }

    /// The node of the first term inside, if there is one.
    #[inline]
    pub(super) fn first(self) -> u32 {
        self.index as u32 + 1
    }

    /// An element of a STRING_EXT: an integer without a tag, and without a node of its own.
    pub(super) fn is_byte(self) -> bool {
        self.node.kind == Kind::Integer && self.node.size == 1
    }

    #[inline]
    pub(super) fn sibling(self, index: u32) -> Option<Self> {
        Self::at(self.tape, self.bytes, self.atoms, index)
    }

    /// What the term is.
    #[inline]
    pub fn kind(self) -> Kind {
        self.node.kind
    }

    /// Where the term is in the bytes that were parsed.
    pub(crate) fn span(self) -> core::ops::Range<usize> {
        let start = self.node.at as usize;
        start..start + self.node.size as usize
    }

    /// The encoded term, without a version byte. Atoms may be references into the distribution header.
    ///
    /// An element of a list in the form STRING_EXT is a single byte without a tag.
    pub fn encoded(self) -> &'a [u8] {
        self.bytes.get(self.span()).unwrap_or_default()
    }

    /// The encoded term and all that follows it.
    #[inline]
    fn rest(self) -> Option<&'a [u8]> {
        self.bytes.get(self.node.at as usize..)
    }

    /// The tag and what follows it.
    #[inline]
    fn tag_and_body(self) -> Option<(u8, &'a [u8])> {
        self.encoded().split_first().map(|(tag, body)| (*tag, body))
    }

    fn context(self) -> Context<'a> {
        Context { atoms: self.atoms, max_integer_bytes: usize::MAX }
    }

    /// The integer, if it is one of 64 bits.
    #[inline]
    pub fn as_i64(self) -> Option<i64> {
        integer(&self.node, self.bytes)
    }

    /// The integer, if it is one of 128 bits.
    pub fn as_i128(self) -> Option<i128> {
        match self.node.kind {
            Kind::Integer => self.as_i64().map(i128::from),
            Kind::BigInteger => self.to_term().as_i128(),
            _ => None,
        }
    }

    /// Sign and little-endian magnitude of an integer in a BIG form.
    pub(super) fn big(self) -> Option<(bool, &'a [u8])> {
        big(self.encoded())
    }

    /// The float, if it is one. An integer is none.
    #[inline]
    pub fn as_f64(self) -> Option<f64> {
        if self.node.kind != Kind::Float {
            return None;
        }
        match self.rest()? {
            [NEW_FLOAT_EXT, body @ ..] => Some(f64::from_be_bytes(*body.first_chunk()?)),
            rest => old_float(rest),
        }
    }

    /// The atom, if it is one.
    #[inline]
    pub fn as_atom(self) -> Option<AtomRef<'a>> {
        if self.node.kind != Kind::Atom {
            return None;
        }
        match self.rest()? {
            // Checked while parsing.
            [SMALL_ATOM_UTF8_EXT, len, text @ ..] => text.get(..usize::from(*len)).map(AtomRef::utf8),
            rest => rare_atom(rest, self.atoms),
        }
    }

    /// An owned copy of the atom, if it is one; allocates only for texts of more than 22 bytes.
    #[inline]
    pub fn to_atom(self) -> Option<Atom> {
        match self.rest() {
            Some([SMALL_ATOM_UTF8_EXT, len, text @ ..]) if self.node.kind == Kind::Atom => {
                Some(Atom::from_checked(text, usize::from(*len)))
            }
            _ => self.as_atom().map(AtomRef::to_atom),
        }
    }

    /// Whether it is the atom with this text.
    #[inline]
    pub fn is_atom(self, text: &str) -> bool {
        self.as_atom().is_some_and(|atom| atom == text)
    }

    /// `true` or `false`, if it is one of these two atoms.
    #[inline]
    pub fn as_bool(self) -> Option<bool> {
        let atom = self.as_atom()?;
        if atom == "true" {
            return Some(true);
        }
        if atom == "false" { Some(false) } else { None }
    }

    /// The bytes, if it is a binary.
    #[inline]
    pub fn as_binary(self) -> Option<&'a [u8]> {
        if self.node.kind != Kind::Binary {
            return None;
        }
        match self.encoded() {
            [BINARY_EXT, _, _, _, _, bytes @ ..] => Some(bytes),
            other => other.get(6..),
        }
    }

    /// The text, if it is a binary of UTF-8: an Elixir string.
    #[inline]
    pub fn as_str(self) -> Option<&'a str> {
        core::str::from_utf8(self.as_binary()?).ok()
    }

    /// The bytes and how many bits of the last one count (8 for whole bytes), if it is a binary or a bit string.
    pub fn as_bits(self) -> Option<(&'a [u8], u8)> {
        match (self.node.kind, self.tag_and_body()?) {
            (Kind::Binary, _) => self.as_binary().map(|bytes| (bytes, 8)),
            (Kind::BitString, (_, [_, _, _, _, bits, bytes @ ..])) => Some((bytes, *bits)),
            _ => None,
        }
    }

    /// The bytes, if it is a list in the form STRING_EXT: integers 0 to 255.
    pub fn as_byte_list(self) -> Option<&'a [u8]> {
        if self.node.kind != Kind::List {
            return None;
        }
        match self.tag_and_body()? {
            (STRING_EXT, body) => body.get(2..),
            _ => None,
        }
    }

    pub(super) fn pid_ref(self) -> Option<PidRef<'a>> {
        let (tag, body) = self.tag_and_body().filter(|_| self.node.kind == Kind::Pid)?;
        if let Some(UsualPid { name, len, id, serial, creation }) = usual_pid(self.encoded()) {
            // Checked while parsing.
            return Some(PidRef { serial, id, node: AtomRef::utf8(name.get(..len)?), creation });
        }
        Some(self.context().pid(tag, body, false).ok()?.0)
    }

    pub(super) fn port_ref(self) -> Option<PortRef<'a>> {
        let (tag, body) = self.tag_and_body().filter(|_| self.node.kind == Kind::Port)?;
        Some(self.context().port(tag, body, false).ok()?.0)
    }

    pub(super) fn reference_ref(self) -> Option<ReferenceRef<'a>> {
        let (tag, body) = self.tag_and_body().filter(|_| self.node.kind == Kind::Reference)?;
        Some(self.context().reference(tag, body, false).ok()?.0)
    }

    /// The pid, if it is one.
    #[inline]
    pub fn as_pid(self) -> Option<Pid> {
        if self.node.kind != Kind::Pid {
            return None;
        }
        match usual_pid(self.rest()?) {
            // Checked while parsing.
            Some(pid) => Some(pid.to_pid()),
            None => rare_pid(self.rest()?, self.atoms),
        }
    }

    /// The port, if it is one.
    pub fn as_port(self) -> Option<Port> {
        let PortRef { node, id, creation } = self.port_ref()?;
        Some(Port { node: node.to_atom(), id, creation })
    }

    /// The reference, if it is one.
    pub fn as_reference(self) -> Option<Reference> {
        let ReferenceRef { node, creation, mut words } = self.reference_ref()?;
        words.reverse();
        let count = match self.tag_and_body()? {
            (REFERENCE_EXT, _) => 1,
            (_, [_, count, ..]) => usize::from(*count),
            _ => return None,
        };
        Reference::new(node.to_atom(), creation, words.get(..count)?)
    }

    /// Module, function and arity of `fun M:F/A`.
    pub(super) fn export_fun(self) -> Option<(AtomRef<'a>, AtomRef<'a>, u8)> {
        let (_, mut rest) = self.tag_and_body().filter(|_| self.node.kind == Kind::ExportFun)?;
        let mut atom = || {
            let (tag, body) = rest.split_first()?;
            let (atom, size) = self.context().atom(*tag, body).ok()?;
            rest = body.get(size..)?;
            Some(atom)
        };
        let (module, function) = (atom()?, atom()?);
        let arity = match rest {
            // Any form of an integer that fits; the value is in its least significant byte.
            [SMALL_BIG_EXT, _, _, arity, ..] | [LARGE_BIG_EXT, _, _, _, _, _, arity, ..] => *arity,
            [SMALL_BIG_EXT | LARGE_BIG_EXT, ..] => 0,
            [.., arity] => *arity,
            [] => return None,
        };
        Some((module, function, arity))
    }

    /// The fixed fields of NEW_FUN_EXT.
    pub(super) fn fun_head(self) -> Option<FunHead> {
        let (_, body) = self.tag_and_body().filter(|_| self.node.kind == Kind::Fun)?;
        let (_, body) = body.split_first_chunk::<4>()?;
        let (arity, body) = body.split_first()?;
        let (uniq, body) = body.split_first_chunk()?;
        let (index, body) = body.split_first_chunk()?;
        let free = body.first_chunk()?;
        Some(FunHead {
            arity: *arity,
            uniq: *uniq,
            index: u32::from_be_bytes(*index),
            free: u32::from_be_bytes(*free) as usize,
        })
    }

    /// Whether a record is exported, and the atoms in front of its values.
    pub(super) fn record_head(self) -> Option<(bool, impl Iterator<Item = AtomRef<'a>>)> {
        let (_, body) = self.tag_and_body().filter(|_| self.node.kind == Kind::Record)?;
        let exported = body.get(4)? & 1 == 1;
        // All of them are leaves, so that their nodes follow each other.
        let names = self.first()..self.first() + 2 + self.record_fields();
        Some((exported, names.filter_map(move |index| self.sibling(index)?.as_atom())))
    }

    /// The elements, if it is a tuple of `N` elements: `let [tag, pid, request] = view.tuple()?`.
    #[inline]
    pub fn tuple<const N: usize>(self) -> Option<[Self; N]> {
        if self.node.kind != Kind::Tuple {
            return None;
        }
        let mut elements = [self; N];
        let (nodes, mut index, end) = (self.tape.nodes(), self.index + 1, self.node.next as usize);
        for element in &mut elements {
            if index >= end {
                return None;
            }
            (element.node, element.index) = (*nodes.get(index)?, index);
            index = element.node.next as usize;
        }
        (index == end).then_some(elements)
    }

    /// The number of elements of a tuple or list (a tail not counted), of pairs of a map, of bytes of a binary or bit
    /// string; 0 for anything else. Takes time only for a list whose tail is a list.
    pub fn len(self) -> usize {
        let counted = |body: &[u8]| body.first_chunk().map_or(0, |len| u32::from_be_bytes(*len) as usize);
        match (self.node.kind, self.tag_and_body()) {
            (Kind::Tuple, Some((SMALL_TUPLE_EXT, [arity, ..]))) => usize::from(*arity),
            (Kind::List, Some((STRING_EXT, [_, _, bytes @ ..]))) => bytes.len(),
            (Kind::List | Kind::ImproperList, Some((LIST_EXT, body))) => {
                if self.node.tailed() {
                    self.elements().count()
                } else {
                    counted(body)
                }
            }
            (Kind::Tuple | Kind::Map | Kind::Binary | Kind::BitString, Some((_, body))) => counted(body),
            _ => 0,
        }
    }

    /// The 32 bits behind the tag: the number of elements of a LIST_EXT without a tail, or of pairs of a map.
    #[inline]
    pub(super) fn counted(self) -> usize {
        match self.rest() {
            Some([LIST_EXT | MAP_EXT, a, b, c, d, ..]) => u32::from_be_bytes([*a, *b, *c, *d]) as usize,
            _ => 0,
        }
    }

    /// Whether [`len`](Self::len) is 0.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// The elements of a tuple or list, keys and values of a map in turn, the free variables of a fun, the values of a
    /// record; nothing for any other term. The tail of an improper list is not among them, see [`tail`](Self::tail).
    pub fn elements(self) -> Elements<'a> {
        let mut elements =
            Elements { of: self, next: self.first(), end: self.node.next, bytes: 0..0, tail: false };
        match self.node.kind {
            Kind::Tuple | Kind::Map => {}
            Kind::List | Kind::ImproperList => elements.enter(self),
            Kind::Fun => elements.skip_nodes(4),
            Kind::Record => {
                let count = self.record_fields();
                elements.skip_nodes(2 + count);
            }
            _ => elements.end = 0,
        }
        elements
    }

    pub(super) fn record_fields(self) -> u32 {
        match self.tag_and_body() {
            Some((RECORD_EXT, body)) => body.first_chunk().map_or(0, |count| u32::from_be_bytes(*count)),
            _ => 0,
        }
    }

    /// The nodes of the terms directly inside, without any interpretation.
    pub(super) fn part(self, number: u32) -> Option<Self> {
        self.sibling(self.first() + number)
    }

    /// The pairs of a map; nothing for any other term.
    pub fn pairs(self) -> Pairs<'a> {
        let mut elements = self.elements();
        if self.node.kind != Kind::Map {
            elements.end = 0;
        }
        Pairs(elements)
    }

    /// The value of an atom key of a map. Walks the pairs.
    pub fn get(self, key: &str) -> Option<Self> {
        self.pairs().find(|(k, _)| k.is_atom(key)).map(|(_, value)| value)
    }

    /// The tail of an improper list.
    pub fn tail(self) -> Option<Self> {
        if self.node.kind != Kind::ImproperList {
            return None;
        }
        let mut elements = self.elements();
        elements.by_ref().for_each(drop);
        elements.take_tail()
    }

    /// An owned copy of the term.
    pub fn to_term(self) -> Term {
        super::decode::build(self, None)
    }
}

/// The integer of this node, if it is one of 64 bits.
#[inline]
pub(super) fn integer(node: &Node, bytes: &[u8]) -> Option<i64> {
    if node.kind != Kind::Integer {
        return None;
    }
    let (size, rest) = (node.size, bytes.get(node.at as usize..)?);
    // The most usual forms at once, without a branch between them: nobody can guess which one comes next. An element of STRING_EXT
    // is a byte without a tag.
    if let Some([tag @ (SMALL_INTEGER_EXT | INTEGER_EXT), value @ ..]) = rest.first_chunk::<5>()
        && size > 1
    {
        let [least, ..] = *value;
        let (short, long) = (i64::from(least), i64::from(i32::from_be_bytes(*value)));
        return Some(core::hint::select_unpredictable(*tag == SMALL_INTEGER_EXT, short, long));
    }
    // Two bytes of tag and length, a sign, and up to eight bytes, which are read at once with what follows them.
    if let Some([SMALL_BIG_EXT, len @ 1..=8, negative, magnitude @ ..]) = rest.first_chunk::<11>()
        && size > 1
    {
        let value = u64::from_le_bytes(*magnitude) & (u64::MAX >> (64 - 8 * u32::from(*len)));
        return if *negative != 0 { 0i64.checked_sub_unsigned(value) } else { i64::try_from(value).ok() };
    }
    rare_integer(rest, size)
}

// What is rare, of the parts of a view that it needs: a view that is handed on as a whole is kept in memory.

/// Sign and little-endian magnitude of an integer in a BIG form.
fn big(encoded: &[u8]) -> Option<(bool, &[u8])> {
    let (negative, magnitude) = match encoded {
        [SMALL_BIG_EXT, _, negative, magnitude @ ..] => (negative, magnitude),
        [LARGE_BIG_EXT, _, _, _, _, negative, magnitude @ ..] => (negative, magnitude),
        _ => return None,
    };
    Some((*negative != 0, trimmed(magnitude)))
}

#[cold]
#[inline(never)]
fn rare_pid(rest: &[u8], atoms: &[Atom]) -> Option<Pid> {
    let (tag, body) = rest.split_first()?;
    let context = Context { atoms, max_integer_bytes: usize::MAX };
    Some(context.pid(*tag, body, false).ok()?.0.to_pid())
}

#[cold]
#[inline(never)]
fn old_float(rest: &[u8]) -> Option<f64> {
    match rest {
        [FLOAT_EXT, body @ ..] => float_text(body).ok(),
        _ => None,
    }
}

#[cold]
#[inline(never)]
fn rare_integer(rest: &[u8], size: u32) -> Option<i64> {
    match (size, rest) {
        (1, [byte, ..]) | (2, [_, byte, ..]) => Some(i64::from(*byte)),
        _ => {
            let (negative, magnitude) = big(rest.get(..size as usize)?)?;
            to_i64(negative, magnitude)
        }
    }
}

/// The atom at the front, in any form.
#[cold]
#[inline(never)]
pub(super) fn rare_atom<'a>(rest: &'a [u8], atoms: &'a [Atom]) -> Option<AtomRef<'a>> {
    let (tag, body) = rest.split_first()?;
    let context = Context { atoms, max_integer_bytes: usize::MAX };
    context.atom(*tag, body).ok().map(|(atom, _)| atom)
}

/// The fixed fields of a local fun.
pub(super) struct FunHead {
    pub(super) arity: u8,
    pub(super) uniq: [u8; 16],
    pub(super) index: u32,
    pub(super) free: usize,
}

/// The terms inside another one; see [`View::elements`].
#[derive(Clone, Debug)]
pub struct Elements<'a> {
    of: View<'a>,
    /// The node of the next element, and the first one after the last.
    next: u32,
    end: u32,
    /// Where the bytes of a STRING_EXT that are still to come stand in the input.
    bytes: core::ops::Range<u32>,
    /// The last node before `end` is the tail of the list.
    tail: bool,
}

impl<'a> Elements<'a> {
    /// Goes on with the elements of `list`.
    fn enter(&mut self, list: View<'a>) {
        self.of = list;
        self.next = list.first();
        self.end = list.node.next;
        self.tail = list.node.tailed();
        if list.bytes.get(list.node.at as usize) == Some(&STRING_EXT) {
            self.bytes = list.node.at + 3..list.node.at + list.node.size;
        }
    }

    /// The tail, if there is one, after the last element was taken.
    pub(super) fn take_tail(&mut self) -> Option<View<'a>> {
        let tail = if self.tail && self.next < self.end { self.of.sibling(self.next) } else { None };
        self.next = self.end;
        tail
    }

    fn skip_nodes(&mut self, count: u32) {
        self.next = (self.next + count).min(self.end);
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = View<'a>;

    #[inline]
    fn next(&mut self) -> Option<View<'a>> {
        // Neither a list with a tail nor a STRING_EXT, which has no nodes inside.
        if self.next < self.end && !self.tail {
            let element = self.of.sibling(self.next)?;
            self.next = element.node.next;
            return Some(element);
        }
        self.rare()
    }
}

impl<'a> Elements<'a> {
    /// The next element, if it is one of a list with a tail, or in the form STRING_EXT.
    #[inline(never)]
    fn rare(&mut self) -> Option<View<'a>> {
        loop {
            if let Some(at) = self.bytes.next() {
                let node = Node::leaf(Kind::Integer, at, 1, self.of.node.next);
                return Some(View { node, ..self.of });
            }
            if self.next >= self.end {
                return None;
            }
            let element = self.of.sibling(self.next)?;
            if self.tail && element.node.next == self.end {
                if matches!(element.node.kind, Kind::List | Kind::ImproperList) {
                    self.enter(element);
                    continue;
                }
                return None;
            }
            self.next = element.node.next;
            return Some(element);
        }
    }
}

/// The pairs of a map; see [`View::pairs`].
#[derive(Clone, Debug)]
pub struct Pairs<'a>(Elements<'a>);

impl<'a> Iterator for Pairs<'a> {
    type Item = (View<'a>, View<'a>);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        Some((self.0.next()?, self.0.next()?))
    }
}

/// Erlang's `=:=`.
impl PartialEq for View<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.kind() == other.kind() && compare(*self, *other, Mode::Equality).is_eq()
    }
}

impl Eq for View<'_> {}

impl View<'_> {
    /// As [`Term::cmp_erlang`].
    pub fn cmp_erlang(self, other: View<'_>) -> Ordering {
        compare(self, other, Mode::Value)
    }

    /// As [`Term::cmp_exact`].
    pub fn cmp_exact(self, other: View<'_>) -> Ordering {
        compare(self, other, Mode::Exact)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Limits;

    #[test]
    fn an_integer_has_one_value_in_all_its_forms() {
        let (mut tape, limits) = (Tape::new(), Limits::default());
        for value in [0i64, 1, 255, 256, -1, 0x0005_0403_0201, -0x0005_0403_0201, i64::MAX, i64::MIN] {
            let magnitude = value.unsigned_abs().to_le_bytes();
            let (negative, least) =
                (u8::from(value < 0), 8 - value.unsigned_abs().leading_zeros() as usize / 8);
            for len in least..=8 {
                let magnitude = &magnitude[..len];
                let small = [&[SMALL_BIG_EXT, len as u8, negative], magnitude].concat();
                let large = [&[LARGE_BIG_EXT, 0, 0, 0, len as u8, negative], magnitude].concat();
                for bytes in [small, large] {
                    assert_eq!(tape.parse(&bytes, &[], &limits).unwrap().as_i64(), Some(value), "{bytes:?}");
                }
            }
            if let Ok(value) = i32::try_from(value) {
                let bytes = [&[INTEGER_EXT][..], &value.to_be_bytes()].concat();
                assert_eq!(tape.parse(&bytes, &[], &limits).unwrap().as_i64(), Some(value.into()));
            }
        }
        assert_eq!(tape.parse(&[SMALL_INTEGER_EXT, 255], &[], &limits).unwrap().as_i64(), Some(255));
        let beyond = [&[SMALL_BIG_EXT, 8, 0][..], &[0xFF; 8]].concat();
        assert_eq!(tape.parse(&beyond, &[], &limits).unwrap().as_i64(), None);
    }
}
