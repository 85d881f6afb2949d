//! Values straight from views, without serde.

use core::fmt;
use core::hash::{BuildHasher, Hash};
use std::collections::{BTreeMap, HashMap};

use super::tag::{LIST_EXT, SMALL_ATOM_UTF8_EXT, STRING_EXT};
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
        const EXPECTED: &str = "a map or a list of pairs";
        // The nodes of the values; 0 is none inside another.
        let mut found = [0; N];
        let mut next = 0;
        let mut take = |key: u32, value: u32| {
            let Some(key) = self.sibling(key) else { return };
            let expected = names.get(next).is_some_and(|name| key.is_named(name));
            let number = if expected { Some(next) } else { names.iter().position(|name| key.is_named(name)) };
            if let Some(number) = number
                && let Some(found @ 0) = found.get_mut(number)
            {
                (*found, next) = (value, number + 1);
            }
        };
        let nodes = self.tape.nodes();
        let after = |index: u32| nodes.get(index as usize).map_or(u32::MAX, |node| node.next);
        match self.kind() {
            Kind::Map => {
                let mut key = self.index + 1;
                while key < self.node.next {
                    let value = after(key);
                    take(key, value);
                    key = after(value);
                }
            }
            Kind::List => {
                for pair in self.elements() {
                    let (key, value) = (pair.index + 1, after(pair.index + 1));
                    if pair.kind() != Kind::Tuple || value >= pair.node.next || after(value) != pair.node.next
                    {
                        return Err(Mismatch::new(EXPECTED, pair));
                    }
                    take(key, value);
                }
            }
            _ => return Err(Mismatch::new(EXPECTED, self)),
        }
        match names.iter().zip(found).find(|(_, found)| *found == 0) {
            None => Ok(found.map(|found| self.sibling(found).unwrap_or(self))),
            Some((name, _)) => Err(Mismatch { key: Some(name), ..Mismatch::new(EXPECTED, self) }),
        }
    }

    /// As [`is_atom`](Self::is_atom), for the form that nearly all atoms have.
    #[inline]
    fn is_named(self, name: &str) -> bool {
        match self.bytes.get(self.node.at as usize..) {
            Some([SMALL_ATOM_UTF8_EXT, len, text @ ..]) if !self.byte => {
                usize::from(*len) == name.len() && text.starts_with(name.as_bytes())
            }
            _ => self.as_atom().is_some_and(|atom| atom == name),
        }
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
    i64, "an integer", View::as_i64;
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
    isize, "an integer that is a size", |view| view.as_i64()?.try_into().ok();
    u8, "an integer of 0 to 255", |view| view.as_i64()?.try_into().ok();
    i8, "an integer of 8 bits", |view| view.as_i64()?.try_into().ok();
    u16, "an integer from 0 on, of 16 bits", |view| view.as_i64()?.try_into().ok();
    i16, "an integer of 16 bits", |view| view.as_i64()?.try_into().ok();
    u32, "an integer from 0 on, of 32 bits", |view| view.as_i64()?.try_into().ok();
    i32, "an integer of 32 bits", |view| view.as_i64()?.try_into().ok();
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

impl<'a, T: FromView<'a>> FromView<'a> for Option<T> {
    #[inline]
    fn from_view(view: View<'a>) -> Result<Self, Mismatch> {
        if view.kind() == Kind::Atom && (view.is_named("nil") || view.is_named("undefined")) {
            return Ok(None);
        }
        T::from_view(view).map(Some)
    }
}

impl<'a, T: FromView<'a>> FromView<'a> for Vec<T> {
    #[inline]
    fn from_view(view: View<'a>) -> Result<Self, Mismatch> {
        if view.kind() != Kind::List {
            return Err(Mismatch::new("a list", view));
        }
        match view.bytes.get(view.node.at as usize) {
            Some(&LIST_EXT) if !view.node.tailed() => {}
            Some(&STRING_EXT) => {
                let mut values = Self::with_capacity(view.len());
                for element in view.elements() {
                    values.push(T::from_view(element)?);
                }
                return Ok(values);
            }
            _ => return view.elements().map(T::from_view).collect(),
        }
        // Each takes at least one byte that is there, so that memory is no larger than what came times what an element takes.
        let mut values = Self::with_capacity(view.len());
        let (nodes, mut index) = (view.tape.nodes(), view.index + 1);
        while index < view.node.next
            && let Some(&node) = nodes.get(index as usize)
        {
            values.push(T::from_view(View { node, index, byte: false, ..view })?);
            index = node.next;
        }
        Ok(values)
    }
}

/// Hands the pairs of a map to `insert`.
#[inline]
fn pairs<'a, K: FromView<'a>, V: FromView<'a>>(
    view: View<'a>,
    mut insert: impl FnMut(K, V),
) -> Result<(), Mismatch> {
    let (nodes, mut index) = (view.tape.nodes(), view.index + 1);
    while index < view.node.next
        && let Some(&key) = nodes.get(index as usize)
        && let Some(&value) = nodes.get(key.next as usize)
    {
        let (key_view, value_view) =
            (View { node: key, index, ..view }, View { node: value, index: key.next, ..view });
        insert(K::from_view(key_view)?, V::from_view(value_view)?);
        index = value.next;
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
        let mut map = Self::with_capacity_and_hasher(view.len(), S::default());
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
mod tests {
    use super::*;
    use crate::Limits;
    use crate::etf::{Tape, encode_term};

    fn with<R>(term: &Term, look: impl FnOnce(View<'_>) -> R) -> R {
        let mut bytes = Vec::new();
        encode_term(term, &mut bytes).unwrap();
        let mut tape = Tape::new();
        look(tape.parse(&bytes, &[], &Limits::default()).unwrap())
    }

    #[test]
    fn integers_of_each_size() {
        for value in
            [i128::MIN, -(1 << 64), i64::MIN.into(), -129, -1, 0, 255, 256, 1 << 63, 1 << 64, i128::MAX]
        {
            with(&Term::from(value), |view| {
                assert_eq!(view.value().ok(), Some(value));
                assert_eq!(view.value().ok(), u128::try_from(value).ok());
                assert_eq!(view.value().ok(), i64::try_from(value).ok());
                assert_eq!(view.value().ok(), u64::try_from(value).ok());
                assert_eq!(view.value().ok(), usize::try_from(value).ok());
                assert_eq!(view.value().ok(), isize::try_from(value).ok());
                assert_eq!(view.value().ok(), i32::try_from(value).ok());
                assert_eq!(view.value().ok(), u32::try_from(value).ok());
                assert_eq!(view.value().ok(), i16::try_from(value).ok());
                assert_eq!(view.value().ok(), u16::try_from(value).ok());
                assert_eq!(view.value().ok(), i8::try_from(value).ok());
                assert_eq!(view.value().ok(), u8::try_from(value).ok());
            });
        }
    }

    #[test]
    fn leaves_and_containers() {
        let pid = Pid { node: Atom::new_static("a@b"), id: 1, serial: 2, creation: 3 };
        let term = Term::from((Term::atom("ok"), "text", Term::Float(0.5), true, pid.clone()));
        with(&term, |view| {
            let (tag, text, float, truth, found): (AtomRef<'_>, &str, f64, bool, Pid) = view.value().unwrap();
            assert_eq!((tag == "ok", text, float, truth, found), (true, "text", 0.5, true, pid));
            let owned: (Atom, String, Term, Option<bool>, View<'_>) = view.value().unwrap();
            assert_eq!(
                (owned.0 == "ok", owned.1.as_str(), owned.2, owned.3),
                (true, "text", Term::Float(0.5), Some(true))
            );
            assert_eq!(owned.4.kind(), Kind::Pid);
            let wrong = view.value::<(Atom, i64, f64, bool, Pid)>().unwrap_err();
            assert_eq!(wrong, Mismatch { expected: "an integer", key: None, got: Kind::Binary, at: 6 });
            assert!(view.value::<(Atom, String)>().is_err() && view.value::<Vec<Term>>().is_err());
        });
        // As LIST_EXT, as STRING_EXT, and with a list as its tail.
        with(&Term::list([1.into(), 300.into()]), |view| assert_eq!(view.value(), Ok(vec![1, 300])));
        with(&Term::charlist("ab"), |view| assert_eq!(view.value(), Ok(b"ab".to_vec())));
        with(&Term::nil(), |view| assert_eq!(view.value(), Ok(Vec::<u8>::new())));
        let mut tape = Tape::new();
        let tailed = tape.parse(b"l\0\0\0\x01a\x01k\0\x02\x02\x03", &[], &Limits::default()).unwrap();
        assert_eq!(tailed.value(), Ok(vec![1, 2, 3]));
        for nothing in ["nil", "undefined"] {
            with(&Term::atom(nothing), |view| assert_eq!(view.value(), Ok(None::<i64>)));
        }
        with(
            &Term::Map([(Term::from("a"), 1.into()), ("b".into(), 2.into())].into_iter().collect()),
            |view| {
                assert_eq!(view.value(), Ok(HashMap::<_, _>::from([("a", 1), ("b", 2)])));
                assert_eq!(view.value(), Ok(BTreeMap::from([("a".to_owned(), 1), ("b".to_owned(), 2)])));
                assert!(view.value::<HashMap<&str, bool>>().is_err());
            },
        );
    }

    #[test]
    fn atoms_are_keys() {
        let mut tape = Tape::new();
        // An atom in Latin-1 and the same in UTF-8: values of two maps.
        let latin1 = tape.parse(b"t\0\0\0\x01d\0\x01\xE4a\x01", &[], &Limits::default()).unwrap();
        let map: HashMap<AtomRef<'_>, i64> = latin1.value().unwrap();
        with(&Term::from(Atom::new("ä").unwrap()), |view| {
            assert_eq!(map.get(&view.as_atom().unwrap()), Some(&1));
        });
    }

    #[test]
    fn fields_in_any_order_of_maps_and_lists() {
        let pair = |name: &'static str, value: i64| (Term::atom(name), Term::from(value));
        let all = [pair("b", 2), pair("other", 9), pair("a", 1), (7.into(), 8.into())];
        let map = Term::Map(all.iter().cloned().collect());
        let list = Term::list(all.iter().cloned().chain([pair("a", 5)]).map(Term::from));
        for term in [map, list] {
            with(&term, |view| {
                assert_eq!(view.fields(["a", "b"]).unwrap().map(View::as_i64), [Some(1), Some(2)]);
                let missing = view.fields(["a", "c"]).unwrap_err();
                assert_eq!((missing.key, missing.got, missing.at), (Some("c"), view.kind(), 0));
                assert!(missing.to_string().starts_with("the key `c` is missing"), "{missing}");
            });
        }
        with(&Term::list([1.into()]), |view| assert!(view.fields(["a"]).is_err()));
        with(&Term::charlist("w\0w\0"), |view| assert!(view.fields([""]).is_err()));
        with(&Term::nil(), |view| assert!(view.fields::<0>([]).is_ok()));
    }
}
