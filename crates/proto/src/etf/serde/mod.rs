//! Terms from and to Rust values, through serde.
//!
//! | Rust | term | also read from |
//! |---|---|---|
//! | `bool` | `true`, `false` | |
//! | integers up to 128 bits | integer | |
//! | `f32`, `f64` (finite) | float | integer |
//! | `char` | integer, as `$a` | binary or atom of one character |
//! | `String`, `&str` | binary of UTF-8 | atom, list of characters |
//! | [`Charlist`] | list of characters | binary, atom |
//! | [`Binary`] | binary; shares the buffer it came in | |
//! | `&[u8]` and what serialises as bytes | binary | list of integers |
//! | `Vec<T>`, sets, iterators | list | for bytes: binary |
//! | `(A, B)`, `[T; N]`, `struct P(A, B)` | tuple | |
//! | `struct N(T)` | as `T` | |
//! | `HashMap<K, V>`, `BTreeMap<K, V>` | map | property list or keyword list |
//! | `struct S { a: A }` | `#{a => A}` | property list or keyword list |
//! | the same with `#[serde(rename = "Elixir.My.Struct")]` | `%My.Struct{a: A}` | |
//! | `struct U;` | the atom `'U'` | |
//! | `()` | `nil` | `undefined`, `ok` |
//! | `Option<T>` | `nil`, or as `T` | `undefined` |
//! | [`OrUndefined<T>`](OrUndefined) | `undefined`, or as `T` | `nil` |
//! | `enum` variant `A` | the atom `'A'` | |
//! | variant `A(T)` | `{'A', T}` | |
//! | variant `A(T, U)` | `{'A', T, U}` | |
//! | variant `A { x: T }` | `{'A', #{x => T}}` | map: property list |
//! | [`Atom`], [`Pid`](crate::etf::Pid), [`Port`](crate::etf::Port), [`Reference`](crate::etf::Reference), [`Term`], [`RawTerm`] | themselves | |
//!
//! Names of structs, fields and variants become atoms as serde gives them, so `#[serde(rename_all = "snake_case")]` makes
//! `{set_limit, 5}` of `SetLimit(5)`. `#[serde(other)]`, `default`, `skip` and the rest work as usual; `untagged` and `flatten` go through
//! serde's own buffers, which cannot hold the last row of the table.
//!
//! ```
//! use foundation_proto::etf::serde::{from_term, to_term};
//! use foundation_proto::etf::text::print;
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Debug, Deserialize, PartialEq, Serialize)]
//! #[serde(rename_all = "snake_case")]
//! enum Request {
//!     Get(String),
//!     Put { key: String, value: Option<i64> },
//!     Stop,
//! }
//!
//! let request = Request::Put { key: "a".into(), value: None };
//! let term = to_term(&request)?;
//! assert_eq!(print(&term), "{put,#{key => <<\"a\">>,value => nil}}");
//! assert_eq!(from_term::<Request>(&term)?, request);
//! # Ok::<(), foundation_proto::etf::serde::Error>(())
//! ```

mod de;
mod direct;
mod error;
mod native;
mod reader;
mod scratch;
mod ser;
mod sink;
mod source;
mod types;

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::Limits;
use crate::etf::decode::uncompressed;
use crate::etf::{Atom, RawTerm, Tape, Term, View, raw};

pub use de::MAX_DEPTH;
pub use error::Error;
pub use scratch::{Scratch, to_scratch};
pub use types::{Binary, Charlist, OrUndefined};

/// The term of a value.
///
/// # Errors
/// If something in the value has no term: a float that is not finite, a name of more than 255 characters.
pub fn to_term<T: Serialize + ?Sized>(value: &T) -> Result<Term, Error> {
    let mut terms = sink::Terms::default();
    value.serialize(ser::Serializer::new(&mut terms))?;
    terms.finish()
}

/// The encoded term of a value, made without a tree in between.
///
/// # Errors
/// As [`to_term`]; also if the value exceeds the default [`Limits`] of what a peer would take, or has a map with a key twice.
pub fn to_raw<T: Serialize + ?Sized>(value: &T) -> Result<RawTerm, Error> {
    to_scratch(value).map(Scratch::into_raw)
}

/// The value of a term.
///
/// # Errors
/// If the term is not what the type wants; says where.
pub fn from_term<'de, T: Deserialize<'de>>(term: &'de Term) -> Result<T, Error> {
    T::deserialize(de::Deserializer::new(term))
}

/// The value of an encoded term.
///
/// # Errors
/// As [`from_term`].
pub fn from_raw<T: DeserializeOwned>(raw: &RawTerm) -> Result<T, Error> {
    from_raw_with(&mut Tape::new(), raw)
}

/// As [`from_raw`], for values that borrow their text and bytes from the term: `&str`, `&[u8]`, `Cow<'_, str>`. The tape is a
/// buffer for forms that are not read straight from the bytes.
///
/// # Errors
/// As [`from_term`].
pub fn from_raw_with<'de, T: Deserialize<'de>>(tape: &'de mut Tape, raw: &'de RawTerm) -> Result<T, Error> {
    if let Some(value) = direct::read(raw.source(), 0..raw.as_bytes().len()) {
        return Ok(value);
    }
    laid_out(raw.view(tape), raw.source())
}

/// The value of the encoded term at the start of `bytes` (no version byte), which is checked while it is read: the quickest
/// way from bytes to a value. What [`RawTerm::new`] and [`from_raw`] give, in one pass instead of two. `atoms` are those of
/// the distribution header, for ATOM_CACHE_REF.
///
/// ```
/// use foundation_proto::{Limits, etf::serde::from_bytes};
///
/// // {ok, [1, 300]}
/// let bytes = vec![104, 2, 119, 2, b'o', b'k', 108, 0, 0, 0, 2, 97, 1, 98, 0, 0, 1, 44, 106];
/// let (tag, numbers): (String, Vec<u32>) = from_bytes(bytes.into(), None, &Limits::default())?;
/// assert_eq!((tag.as_str(), &numbers[..]), ("ok", &[1, 300][..]));
/// # Ok::<(), foundation_proto::etf::serde::Error>(())
/// ```
///
/// # Errors
/// If the bytes are no term within these limits, as [`Tape::parse`] says; otherwise as [`from_term`].
pub fn from_bytes<T: DeserializeOwned>(
    bytes: Bytes,
    atoms: Option<Arc<[Atom]>>,
    limits: &Limits,
) -> Result<T, Error> {
    from_bytes_with(&mut Tape::new(), &bytes, atoms.as_ref(), limits)
}

/// As [`from_bytes`], for values that borrow their text and bytes, so that none is allocated. The tape is a buffer for forms that
/// are not read straight from the bytes.
///
/// ```
/// use foundation_proto::{Limits, etf::{Tape, serde::from_bytes_with}};
///
/// #[derive(serde::Deserialize)]
/// struct Request<'a> {
///     method: &'a str,
///     body: &'a [u8],
/// }
///
/// // #{method => get, body => <<1, 2>>}
/// let bytes = b"t\0\0\0\x02w\x06methodw\x03getw\x04bodym\0\0\0\x02\x01\x02"[..].into();
/// let mut tape = Tape::new();
/// let request: Request<'_> = from_bytes_with(&mut tape, &bytes, None, &Limits::default())?;
/// assert_eq!((request.method, request.body), ("get", &[1, 2][..]));
/// # Ok::<(), foundation_proto::etf::serde::Error>(())
/// ```
///
/// # Errors
/// As [`from_bytes`].
pub fn from_bytes_with<'de, T: Deserialize<'de>>(
    tape: &'de mut Tape,
    bytes: &'de Bytes,
    atoms: Option<&'de Arc<[Atom]>>,
    limits: &Limits,
) -> Result<T, Error> {
    let source = raw::Source { bytes, atoms };
    if let Some(value) = direct::read_unchecked(source, limits) {
        return Ok(value);
    }
    laid_out(tape.parse(bytes, source.atoms(), limits), source)
}

/// The value of a term of `source` that was laid out.
#[inline(never)]
fn laid_out<'de, T: Deserialize<'de>>(
    view: crate::Result<View<'de>>,
    of: raw::Source<'de>,
) -> Result<T, Error> {
    let view = view.map_err(|error| Error::new(error.to_string()))?;
    T::deserialize(de::Deserializer::new(source::Inner { of, view }))
}

/// As [`from_bytes`], for a standalone term with the version byte 131, compressed or not, as `term_to_binary` writes it.
///
/// # Errors
/// As [`from_bytes`], and as [`decode`](crate::etf::decode) for the version byte and what is compressed.
pub fn from_external<T: DeserializeOwned>(bytes: &Bytes, limits: &Limits) -> Result<T, Error> {
    let inside = match uncompressed(bytes, limits).map_err(|error| Error::new(error.to_string()))? {
        Cow::Borrowed(inside) => bytes.slice(bytes.len() - inside.len()..),
        Cow::Owned(inflated) => inflated.into(),
    };
    from_bytes(inside, None, limits)
}

/// The value of a term inside an encoded one, which `view` looks at; text and bytes can be borrowed from it.
///
/// # Errors
/// As [`from_term`].
pub fn from_view<'de, T: Deserialize<'de>>(raw: &'de RawTerm, view: View<'de>) -> Result<T, Error> {
    let source = raw.source();
    if let Some(value) = source.place(view).and_then(|place| direct::read(source, place)) {
        return Ok(value);
    }
    laid_out(Ok(view), source)
}

#[cfg(test)]
mod tests;
