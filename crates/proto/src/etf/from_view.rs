//! Values straight from views, without serde.

use core::fmt;
use core::hash::{BuildHasher, Hash};
use std::collections::{BTreeMap, HashMap};

use super::atom::{are_equal, ends};
use super::tag::{LIST_EXT, NIL_EXT, SMALL_ATOM_UTF8_EXT, SMALL_TUPLE_EXT};
use super::tape::Node;
use super::view::{integer, rare_atom};
use super::{Atom, AtomRef, Kind, Pid, Port, Reference, Term, View};

/// A value that is read from a view of a term: for code that wants no serde, or text and bytes borrowed from the message.
///
/// | Rust | term |
/// |---|---|
/// | `bool` | `true`, `false` |
/// | integers up to 128 bits | integer that fits |
/// | `f64` | float |
/// | `&str`, `String` | binary of UTF-8 |
/// | `&[u8]` | binary |
/// | [`AtomRef`], [`Atom`] | atom |
/// | [`Pid`], [`Port`], [`Reference`], [`Term`], [`View`] | themselves |
/// | `Option<T>` | `nil` and `undefined`, or as `T` |
/// | `Vec<T>` | list |
/// | `(A, B)` and so on, up to eight | tuple |
/// | `HashMap<K, V>`, `BTreeMap<K, V>` | map |
///
/// A type of the program takes its parts from [`View::fields`] or from a tuple:
///
/// ```
/// use foundation_proto::Limits;
/// use foundation_proto::etf::{FromView, Mismatch, RawTerm, Tape, Term, View};
///
/// struct Host<'a> {
///     name: &'a str,
///     weight: u32,
/// }
///
/// impl<'a> FromView<'a> for Host<'a> {
///     fn from_view(view: View<'a>) -> Result<Self, Mismatch> {
///         let [name, weight] = view.fields(["name", "weight"])?;
///         Ok(Self { name: name.value()?, weight: weight.value()? })
///     }
/// }
///
/// // [{name, <<"a">>}, {weight, 3}], or the same as a map
/// let pairs = [(Term::atom("name"), Term::from("a")), (Term::atom("weight"), 3.into())];
/// let raw = RawTerm::from_term(&Term::list(pairs.map(Term::from)))?;
/// let mut tape = Tape::new();
/// let view = tape.parse(raw.as_bytes(), &[], &Limits::default())?;
/// let host: Host<'_> = view.value()?;
/// assert_eq!((host.name, host.weight), ("a", 3));
/// assert_eq!(view.value::<i64>().unwrap_err().to_string(), "expected an integer at byte 0 of the term, got a List");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait FromView<'a>: Sized {
    /// The value of the term.
    ///
    /// # Errors
    /// If the term is none of this type.
    fn from_view(view: View<'a>) -> Result<Self, Mismatch>;

    /// The values of the elements of a list: what [`Vec`] asks for. As good as one after the other, which is what it does unless
    /// a type knows a quicker way.
    ///
    /// # Errors
    /// If the term is no list, or an element none of this type.
    #[inline]
    fn from_list(list: View<'a>) -> Result<Vec<Self>, Mismatch> {
        one_by_one(list)
    }
}

/// A term that is not of the type that was asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Mismatch {
    /// What was asked for.
    pub expected: &'static str,
    /// The key that is missing, if it is that.
    pub key: Option<&'static str>,
    /// What is there.
    pub got: Kind,
    /// Where it is: the offset of its tag in the bytes that were parsed.
    pub at: usize,
}

impl Mismatch {
    /// The view is not what was expected.
    // Always inline: a view that is handed on as a whole, even where that never happens, is kept in memory from the start.
    #[inline(always)]
    pub fn new(expected: &'static str, view: View<'_>) -> Self {
        Self { expected, key: None, got: view.kind(), at: view.span().start }
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { expected, key, got, at } = self;
        match key {
            Some(key) => write!(f, "the key `{key}` is missing in the {got:?} at byte {at} of the term"),
            None => write!(f, "expected {expected} at byte {at} of the term, got a {got:?}"),
        }
    }
}

impl core::error::Error for Mismatch {}

impl<'a> View<'a> {
    /// The value of the term, of any type that can be read from one.
    ///
    /// # Errors
    /// If the term is none of this type.
    #[inline]
    pub fn value<T: FromView<'a>>(self) -> Result<T, Mismatch> {
        T::from_view(self)
    }

    /// The values of these atom keys, of a map or of a list of pairs, in this order. Other keys are passed over; of a key
    /// that comes twice in a list the first counts. Quickest if the keys come in the order in which they are asked for.
    ///
    /// # Errors
    /// If the term is neither, or has no such key: one that may be missing is asked for by [`get`](Self::get).
    #[inline]
    pub fn fields<const N: usize>(self, names: [&'static str; N]) -> Result<[Self; N], Mismatch> {
        let mut fields = names.map(|name| Field { name, node: NOT_FOUND });
        let known = find(&self, &mut fields).is_some();
        let mismatch = |fields: &[Field]| {
            let Wrong { number, got, at } = no_fields(&self, fields);
            let key = names.get(number as usize).copied();
            Mismatch { expected: FIELDS, key, got, at: at as usize }
        };
        if !known {
            return Err(mismatch(&fields));
        }
        // One loop that ends early and no closure for each, so that it can be taken apart: arrays of views that are moved as a whole are
        // written in small pieces and read in large ones, which stalls.
        let (mut values, nodes) = ([self; N], self.tape.nodes());
        for (value, field) in values.iter_mut().zip(&fields) {
            match nodes.get(field.node) {
                Some(&node) if field.node != NOT_FOUND => (value.index, value.node) = (field.node, node),
                _ => return Err(mismatch(&fields)),
            }
        }
        Ok(values)
    }

    /// Whether the elements of a list have nodes that follow one another, up to the end of the list.
    #[inline]
    fn is_plain_list(self) -> bool {
        matches!(self.bytes.get(self.node.at as usize), Some(&(LIST_EXT | NIL_EXT))) && !self.node.tailed()
    }

    fn is_pair(self) -> bool {
        !self.is_byte() && any_pair(&self, self.tape.nodes(), self.index).is_some()
    }
}

/// What [`View::fields`] reads.
const FIELDS: &str = "a map or a list of pairs";

/// A key, and the node of its value.
struct Field {
    name: &'static str,
    // A whole word, too: what is written in parts is not read as one.
    node: usize,
}

/// The node that is none inside another.
const NOT_FOUND: usize = 0;

/// Why not all fields were found. A [`Mismatch`] would be returned in memory, and the views that are there otherwise kept in it.
struct Wrong {
    /// The number of the key that is missing, if it is that.
    number: u32,
    at: u32,
    got: Kind,
}

#[cold]
#[inline(never)]
fn no_fields(whole: &View<'_>, fields: &[Field]) -> Wrong {
    let wrong = match whole.kind() {
        Kind::Map => None,
        Kind::List => whole.elements().find(|element| !element.is_pair()),
        _ => Some(*whole),
    };
    let missing = fields.iter().position(|field| field.node == NOT_FOUND);
    let number = if wrong.is_none() { missing } else { None };
    let node = wrong.as_ref().unwrap_or(whole).node;
    Wrong { number: number.map_or(u32::MAX, |number| number as u32), at: node.at, got: node.kind }
}

/// Finds the nodes of the values of these keys in a map or list of pairs; `None` if it is anything else.
// A reference, and no inlining: the parts of the view are taken from where it is, and the loops have the registers for themselves.
#[inline(never)]
fn find(whole: &View<'_>, fields: &mut [Field]) -> Option<()> {
    match whole.node.kind {
        Kind::Map => find_in_map(whole, fields),
        Kind::List if whole.is_plain_list() => find_in_list(whole, fields),
        Kind::List => find_in_elements(whole, fields),
        _ => None,
    }
}

#[inline(always)]
fn find_in_map(map: &View<'_>, fields: &mut [Field]) -> Option<()> {
    // Up to the end of the map.
    let nodes = map.tape.nodes().get(..map.node.next as usize)?;
    let (mut index, mut expected) = (map.index + 1, 0);
    while let Some(node) = nodes.get(index) {
        let key = map.bytes.get(node.at as usize..)?;
        // An atom has one node, so that the place of its value is known without waiting for this.
        let value = if key.first() == Some(&SMALL_ATOM_UTF8_EXT) { index + 1 } else { node.next as usize };
        expected = take(fields, expected, key, value, map);
        index = nodes.get(value)?.next as usize;
    }
    Some(())
}

#[inline(never)]
fn find_in_list(list: &View<'_>, fields: &mut [Field]) -> Option<()> {
    let nodes = list.tape.nodes().get(..list.node.next as usize)?;
    let (mut index, mut expected) = (list.index + 1, 0);
    while let Some(node) = nodes.get(index) {
        let (key, value) = match list.bytes.get(node.at as usize..)? {
            // The usual form: two terms, of which the first has a node only for itself.
            [SMALL_TUPLE_EXT, 2, key @ ..] if key.first() == Some(&SMALL_ATOM_UTF8_EXT) => (key, index + 2),
            _ => any_pair(list, nodes, index)?,
        };
        expected = take(fields, expected, key, value, list);
        index = node.next as usize;
    }
    Some(())
}

/// Of a list with a tail, or without nodes for its elements.
#[cold]
#[inline(never)]
fn find_in_elements(list: &View<'_>, fields: &mut [Field]) -> Option<()> {
    let mut expected = 0;
    for element in list.elements() {
        if element.is_byte() {
            return None;
        }
        let (key, value) = any_pair(list, list.tape.nodes(), element.index)?;
        expected = take(fields, expected, key, value, list);
    }
    Some(())
}

/// A tuple of two: what is from its first element on, and the node of the second.
#[cold]
#[inline(never)]
fn any_pair<'a>(whole: &View<'a>, nodes: &[Node], index: usize) -> Option<(&'a [u8], usize)> {
    let (pair, key) = (nodes.get(index)?, nodes.get(index + 1)?);
    let value = nodes.get(key.next as usize)?;
    // A tuple of one ends before that, and one of more than two behind it.
    if pair.kind != Kind::Tuple || key.next >= pair.next || value.next != pair.next {
        return None;
    }
    Some((whole.bytes.get(key.at as usize..)?, key.next as usize))
}

/// Keeps where the value of the key at the front is, if it is one of the names and comes for the first time. `expected` is the
/// number of the name that comes next if they are in order; returns that of the one behind it.
#[inline(always)]
fn take(fields: &mut [Field], expected: usize, key: &[u8], value: usize, whole: &View<'_>) -> usize {
    if let [SMALL_ATOM_UTF8_EXT, len, text @ ..] = key
        && let Some(field) = fields.get_mut(expected)
        && field.node == NOT_FOUND
        && text.get(..usize::from(*len)).is_some_and(|text| are_equal(text, field.name.as_bytes()))
    {
        field.node = value;
        return expected + 1;
    }
    let Some(number) = number(fields, expected, key, whole) else { return expected };
    match fields.get_mut(number) {
        Some(field) if field.node == NOT_FOUND => {
            field.node = value;
            number + 1
        }
        _ => expected,
    }
}

/// Which of the names the term at the front is, if it is an atom.
#[inline(never)]
fn number(fields: &[Field], expected: usize, key: &[u8], whole: &View<'_>) -> Option<usize> {
    let [SMALL_ATOM_UTF8_EXT, len, text @ ..] = key else { return rare_number(fields, expected, key, whole) };
    let len = usize::from(*len);
    let text = text.get(..len)?;
    // Most differ by their lengths already.
    match (ends::<8>(text), ends::<4>(text)) {
        (Some(text), _) if len <= 16 => {
            number_of(fields, expected, |name| name.len() == len && ends(name.as_bytes()) == Some(text))
        }
        (None, Some(text)) => {
            number_of(fields, expected, |name| name.len() == len && ends(name.as_bytes()) == Some(text))
        }
        _ => number_of(fields, expected, |name| name.as_bytes() == text),
    }
}

/// As [`number`], for an atom in another form.
#[cold]
#[inline(never)]
fn rare_number(fields: &[Field], expected: usize, key: &[u8], whole: &View<'_>) -> Option<usize> {
    let key = rare_atom(key, whole.atoms)?;
    number_of(fields, expected, |name| key == *name)
}

/// The number of the name that is meant.
#[inline(always)]
fn number_of(fields: &[Field], expected: usize, is: impl Fn(&str) -> bool) -> Option<usize> {
    match fields.get(expected) {
        Some(field) if is(field.name) => Some(expected),
        _ => fields.iter().position(|field| is(field.name)),
    }
}

#[inline(always)]
fn read<'a, T>(view: View<'a>, read: impl FnOnce(View<'a>) -> Option<T>) -> Option<T> {
    read(view)
}

macro_rules! from_view {
    ($($type:ty, $expected:literal, $read:expr;)*) => {
        $(
            impl<'a> FromView<'a> for $type {
                #[inline]
                fn from_view(view: View<'a>) -> Result<Self, Mismatch> {
                    read(view, $read).ok_or_else(|| Mismatch::new($expected, view))
                }
            }
        )*
    };
}

from_view! {
    bool, "`true` or `false`", View::as_bool;
    i128, "an integer of 128 bits", View::as_i128;
    u128, "an integer from 0 on, of 128 bits", |view| match view.big() {
        Some((false, magnitude)) => {
            let mut bytes = [0; 16];
            bytes.get_mut(..magnitude.len())?.copy_from_slice(magnitude);
            Some(Self::from_le_bytes(bytes))
        }
        _ => view.as_i64()?.try_into().ok(),
    };
    u64, "an integer from 0 on, of 64 bits", |view| match view.as_i64() {
        Some(value) => value.try_into().ok(),
        None => view.as_i128()?.try_into().ok(),
    };
    usize, "an integer that is a size", |view| u64::from_view(view).ok()?.try_into().ok();
    f64, "a float", View::as_f64;
    &'a str, "a binary of UTF-8", View::as_str;
    String, "a binary of UTF-8", |view| view.as_str().map(Self::from);
    &'a [u8], "a binary", View::as_binary;
    AtomRef<'a>, "an atom", View::as_atom;
    Atom, "an atom", View::to_atom;
    Pid, "a pid", View::as_pid;
    Port, "a port", View::as_port;
    Reference, "a reference", View::as_reference;
    Term, "a term", |view| Some(view.to_term());
    View<'a>, "a term", Some;
}

macro_rules! from_integer {
    ($($type:ty, $expected:literal;)*) => {
        $(
            impl<'a> FromView<'a> for $type {
                #[inline]
                fn from_view(view: View<'a>) -> Result<Self, Mismatch> {
                    let value = view.as_i64().and_then(|value| value.try_into().ok());
                    value.ok_or_else(|| Mismatch::new($expected, view))
                }

                #[inline]
                fn from_list(list: View<'a>) -> Result<Vec<Self>, Mismatch> {
                    match integers(list, |value| value.try_into().ok()) {
                        Some(values) => Ok(values),
                        None => one_by_one(list),
                    }
                }
            }
        )*
    };
}

from_integer! {
    i64, "an integer";
    isize, "an integer that is a size";
    u8, "an integer of 0 to 255";
    i8, "an integer of 8 bits";
    u16, "an integer from 0 on, of 16 bits";
    i16, "an integer of 16 bits";
    u32, "an integer from 0 on, of 32 bits";
    i32, "an integer of 32 bits";
}

impl<'a, T: FromView<'a>> FromView<'a> for Option<T> {
    #[inline]
    fn from_view(view: View<'a>) -> Result<Self, Mismatch> {
        match view.as_atom() {
            Some(atom) if atom == "nil" || atom == "undefined" => Ok(None),
            _ => T::from_view(view).map(Some),
        }
    }
}

impl<'a, T: FromView<'a>> FromView<'a> for Vec<T> {
    #[inline]
    fn from_view(view: View<'a>) -> Result<Self, Mismatch> {
        T::from_list(view)
    }
}

/// The values of the elements of a list.
#[inline]
fn one_by_one<'a, T: FromView<'a>>(list: View<'a>) -> Result<Vec<T>, Mismatch> {
    if list.kind() != Kind::List {
        return Err(Mismatch::new("a list", list));
    }
    if !list.is_plain_list() {
        return elements(list);
    }
    // Each takes at least one byte that is there, so that memory is no larger than what came times what an element takes.
    let mut values = Vec::with_capacity(list.counted());
    let nodes = list.tape.nodes().get(..list.node.next as usize).unwrap_or_default();
    let mut index = list.index + 1;
    while let Some(&node) = nodes.get(index) {
        values.push(T::from_view(View { node, index, ..list })?);
        index = node.next as usize;
    }
    Ok(values)
}

/// As [`one_by_one`], of a list with a tail, or without nodes for its elements.
#[inline(never)]
fn elements<'a, T: FromView<'a>>(list: View<'a>) -> Result<Vec<T>, Mismatch> {
    let mut values = Vec::with_capacity(list.len());
    for element in list.elements() {
        values.push(T::from_view(element)?);
    }
    Ok(values)
}

/// As [`one_by_one`], of integers of up to 64 bits; `None` if that has to say what is wrong.
#[inline]
fn integers<T: Copy + Default>(list: View<'_>, convert: impl Fn(i64) -> Option<T>) -> Option<Vec<T>> {
    let mut all = true;
    let mut convert = |value: Option<i64>| {
        let value = value.and_then(&convert);
        all &= value.is_some();
        value.unwrap_or_default()
    };
    let values = match list.as_byte_list() {
        Some(bytes) => bytes.iter().map(|byte| convert(Some((*byte).into()))).collect(),
        None if list.kind() == Kind::List && list.is_plain_list() => {
            let nodes = list.tape.nodes().get(list.index + 1..list.node.next as usize)?;
            // More nodes than elements: there is something inside one of them.
            if nodes.len() != list.counted() {
                return None;
            }
            nodes.iter().map(|node| convert(integer(node, list.bytes))).collect()
        }
        None => return None,
    };
    all.then_some(values)
}

/// Hands the pairs of a map to `insert`.
#[inline]
fn pairs<'a, K: FromView<'a>, V: FromView<'a>>(
    view: View<'a>,
    mut insert: impl FnMut(K, V),
) -> Result<(), Mismatch> {
    let nodes = view.tape.nodes().get(..view.node.next as usize).unwrap_or_default();
    let mut index = view.index + 1;
    while let Some(&key) = nodes.get(index)
        && let Some(&value) = nodes.get(key.next as usize)
    {
        let (key_view, value_view) =
            (View { node: key, index, ..view }, View { node: value, index: key.next as usize, ..view });
        insert(K::from_view(key_view)?, V::from_view(value_view)?);
        index = value.next as usize;
    }
    Ok(())
}

impl<'a, K: FromView<'a> + Eq + Hash, V: FromView<'a>, S: BuildHasher + Default> FromView<'a>
    for HashMap<K, V, S>
{
    #[inline]
    fn from_view(view: View<'a>) -> Result<Self, Mismatch> {
        if view.kind() != Kind::Map {
            return Err(Mismatch::new("a map", view));
        }
        let mut map = Self::with_capacity_and_hasher(view.counted(), S::default());
        pairs(view, |key, value| {
            map.insert(key, value);
        })?;
        Ok(map)
    }
}

impl<'a, K: FromView<'a> + Ord, V: FromView<'a>> FromView<'a> for BTreeMap<K, V> {
    #[inline]
    fn from_view(view: View<'a>) -> Result<Self, Mismatch> {
        if view.kind() != Kind::Map {
            return Err(Mismatch::new("a map", view));
        }
        let mut map = Self::new();
        pairs(view, |key, value| {
            map.insert(key, value);
        })?;
        Ok(map)
    }
}

macro_rules! tuple {
    ($expected:literal $($name:ident)*) => {
        impl<'a, $($name: FromView<'a>),*> FromView<'a> for ($($name,)*) {
            #[allow(non_snake_case, reason = "the names of the types are those of the values")]
            #[inline]
            fn from_view(view: View<'a>) -> Result<Self, Mismatch> {
                let Some([$($name),*]) = view.tuple() else { return Err(Mismatch::new($expected, view)) };
                Ok(($($name::from_view($name)?,)*))
            }
        }
    };
}

tuple!("a tuple of one" A);
tuple!("a tuple of two" A B);
tuple!("a tuple of three" A B C);
tuple!("a tuple of four" A B C D);
tuple!("a tuple of five" A B C D E);
tuple!("a tuple of six" A B C D E F);
tuple!("a tuple of seven" A B C D E F G);
tuple!("a tuple of eight" A B C D E F G H);

#[cfg(test)]
#[path = "from_view/tests.rs"]
mod tests;
