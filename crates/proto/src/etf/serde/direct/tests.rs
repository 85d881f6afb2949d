//! Whatever is read straight from the bytes is what a view gives.

use std::collections::{BTreeMap, HashMap};
use std::marker::PhantomData;
use std::sync::Arc;

use bytes::Bytes;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use crate::Limits;
use crate::etf::serde::{
    Binary, Charlist, OrUndefined, de, direct, from_bytes, from_bytes_with, from_external, from_raw_with,
    source, to_raw,
};
use crate::etf::text::parse_erlang;
use crate::etf::{Atom, Pid, RawTerm, Tape, Term, raw};

#[derive(Debug, Deserialize, PartialEq, Serialize)]
struct Plain {
    #[serde(alias = "old")]
    name: String,
    #[serde(default)]
    count: u32,
    inner: Option<Box<Self>>,
}

#[derive(Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename = "Elixir.My.Struct")]
struct Named {
    a: Atom,
    b: Term,
}

#[derive(Debug, Deserialize, PartialEq, Serialize)]
struct Flat {
    count: i64,
    #[serde(flatten)]
    rest: BTreeMap<String, i64>,
}

#[derive(Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Choice {
    Nothing,
    One(i64),
    Two(String, bool),
    Fields {
        name: String,
        count: u8,
    },
    #[serde(other)]
    Else,
}

#[derive(Debug, Deserialize, PartialEq, Serialize)]
#[serde(untagged)]
enum Any {
    Number(i64),
    Text(String),
    List(Vec<Self>),
    Map(BTreeMap<String, Self>),
}

#[derive(Debug, Deserialize, PartialEq, Serialize)]
struct Unit;

#[derive(Debug, Deserialize, PartialEq, Serialize)]
struct New(Vec<u8>);

/// Takes what is there, and nothing for what does not fit.
#[derive(Debug, PartialEq)]
struct Lenient(Option<(i64, String)>);

impl<'de> Deserialize<'de> for Lenient {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(Deserialize::deserialize(deserializer).ok()))
    }
}

fn same<T: for<'de> Deserialize<'de> + core::fmt::Debug + PartialEq>(raw: &RawTerm) -> usize {
    let mut tape = Tape::new();
    let view = raw.view(&mut tape).unwrap();
    let slow = T::deserialize(de::Deserializer::new(source::Inner { of: raw.source(), view }));
    match direct::read::<T>(raw.source(), 0..raw.as_bytes().len()) {
        Some(value) => {
            assert_eq!(Ok(value), slow, "{raw:?}");
            1
        }
        None => 0,
    }
}

/// Bytes that nobody has checked: a value that is made of them is that of the term that they are.
fn same_unchecked<T: for<'de> Deserialize<'de> + core::fmt::Debug + PartialEq>(
    bytes: &[u8],
    atoms: &Arc<[Atom]>,
    limits: &Limits,
) -> usize {
    let input = bytes.to_vec().into();
    let unchecked = raw::Source { bytes: &input, atoms: Some(atoms) };
    let Some(value) = direct::read_unchecked::<T>(unchecked, limits) else { return 0 };
    let raw = RawTerm::new(bytes.to_vec().into(), Some(atoms.clone()), limits);
    let raw = raw.unwrap_or_else(|error| panic!("{value:?} of {bytes:?}, which is {error}"));
    let mut tape = Tape::new();
    let view = raw.view(&mut tape).unwrap();
    let slow = T::deserialize(de::Deserializer::new(source::Inner { of: raw.source(), view }));
    assert_eq!(Ok(value), slow, "{bytes:?}");
    1
}

fn all_unchecked(bytes: &[u8], atoms: &Arc<[Atom]>, limits: &Limits) -> usize {
    same_unchecked::<i64>(bytes, atoms, limits)
        + same_unchecked::<f64>(bytes, atoms, limits)
        + same_unchecked::<String>(bytes, atoms, limits)
        + same_unchecked::<Vec<i64>>(bytes, atoms, limits)
        + same_unchecked::<Vec<Lenient>>(bytes, atoms, limits)
        + same_unchecked::<Vec<Term>>(bytes, atoms, limits)
        + same_unchecked::<(i64, String)>(bytes, atoms, limits)
        + same_unchecked::<(i64, RawTerm)>(bytes, atoms, limits)
        + same_unchecked::<BTreeMap<String, i64>>(bytes, atoms, limits)
        + same_unchecked::<HashMap<Term, Term>>(bytes, atoms, limits)
        + same_unchecked::<Plain>(bytes, atoms, limits)
        + same_unchecked::<Named>(bytes, atoms, limits)
        + same_unchecked::<Flat>(bytes, atoms, limits)
        + same_unchecked::<Vec<Choice>>(bytes, atoms, limits)
        + same_unchecked::<Any>(bytes, atoms, limits)
        + same_unchecked::<New>(bytes, atoms, limits)
        + same_unchecked::<Charlist>(bytes, atoms, limits)
        + same_unchecked::<Binary>(bytes, atoms, limits)
        + same_unchecked::<Atom>(bytes, atoms, limits)
        + same_unchecked::<Pid>(bytes, atoms, limits)
        + same_unchecked::<Term>(bytes, atoms, limits)
        + same_unchecked::<RawTerm>(bytes, atoms, limits)
        + same_unchecked::<Blind>(bytes, atoms, limits)
        + same_unchecked::<Vec<Blind>>(bytes, atoms, limits)
        + same_unchecked::<(Blind, i64)>(bytes, atoms, limits)
        + same_unchecked::<Option<Blind>>(bytes, atoms, limits)
        + same_unchecked::<BTreeMap<i64, Blind>>(bytes, atoms, limits)
        + same_unchecked::<Vec<TagOnly>>(bytes, atoms, limits)
}

/// Looks at nothing.
#[derive(Debug, PartialEq)]
struct Blind;

impl<'de> Deserialize<'de> for Blind {
    fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Ok(Self)
    }
}

/// Looks at the tag of an enum, and not at what is behind it.
#[derive(Debug, PartialEq)]
struct TagOnly(String);

impl<'de> Deserialize<'de> for TagOnly {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = TagOnly;

            fn expecting(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.write_str("an enum")
            }

            fn visit_enum<A: serde::de::EnumAccess<'de>>(self, access: A) -> Result<TagOnly, A::Error> {
                Ok(TagOnly(access.variant::<String>()?.0))
            }
        }
        deserializer.deserialize_enum("TagOnly", &["one", "two"], Visitor)
    }
}

fn all(raw: &RawTerm) -> usize {
    let mut ignored = Tape::new();
    let view = raw.view(&mut ignored).unwrap();
    let end = direct::read::<IgnoredAny>(raw.source(), 0..raw.as_bytes().len());
    let slow = IgnoredAny::deserialize(de::Deserializer::new(source::Inner { of: raw.source(), view }));
    assert!(end.is_none() || slow.is_ok());
    same::<i64>(raw)
        + same::<u8>(raw)
        + same::<u64>(raw)
        + same::<i128>(raw)
        + same::<f64>(raw)
        + same::<bool>(raw)
        + same::<char>(raw)
        + same::<()>(raw)
        + same::<String>(raw)
        + same::<Option<String>>(raw)
        + same::<OrUndefined<i64>>(raw)
        + same::<Vec<i64>>(raw)
        + same::<Vec<Option<u8>>>(raw)
        + same::<Vec<Lenient>>(raw)
        + same::<Vec<Term>>(raw)
        + same::<(i64, String)>(raw)
        + same::<[u8; 3]>(raw)
        + same::<BTreeMap<String, i64>>(raw)
        + same::<HashMap<Term, Term>>(raw)
        + same::<Plain>(raw)
        + same::<Named>(raw)
        + same::<Flat>(raw)
        + same::<Choice>(raw)
        + same::<Vec<Choice>>(raw)
        + same::<Any>(raw)
        + same::<Unit>(raw)
        + same::<New>(raw)
        + same::<Charlist>(raw)
        + same::<Binary>(raw)
        + same::<Atom>(raw)
        + same::<Pid>(raw)
        + same::<Term>(raw)
        + same::<RawTerm>(raw)
        + same::<Lenient>(raw)
}

fn plain(inner: Option<Box<Plain>>) -> Plain {
    Plain { name: "Ada ä".into(), count: 3, inner }
}

fn values() -> Vec<RawTerm> {
    let pid = Pid { node: Atom::new_static("a@h"), id: 1, serial: 2, creation: 3 };
    let named = Named { a: Atom::new_static("x"), b: Term::from((1, vec![Term::nil(), pid.clone().into()])) };
    let choices = [
        Choice::Nothing,
        Choice::One(i64::MIN),
        Choice::Two("t".into(), true),
        Choice::Fields { name: "f".into(), count: 255 },
        Choice::Else,
    ];
    let flat = Flat { count: 1, rest: [("x".to_owned(), 2), ("y".to_owned(), -3)].into() };
    let raws = [
        to_raw(&[0i64, 255, 256, -1, i64::MAX, i64::MIN, 1 << 40]),
        to_raw(&vec![0i64, 255, 256, -1, i64::MAX, i64::MIN, 1 << 40]),
        to_raw(&(7, "text")),
        to_raw(&vec![(7, "text"), (8, "more")]),
        to_raw(&u64::MAX),
        to_raw(&u128::MAX),
        to_raw(&1.5),
        to_raw(&true),
        to_raw(&'c'),
        to_raw(&None::<i64>),
        to_raw(&plain(Some(Box::new(plain(None))))),
        to_raw(&named),
        to_raw(&choices),
        to_raw(&choices.into_iter().collect::<Vec<_>>()),
        to_raw(&flat),
        to_raw(&Unit),
        to_raw(&New(vec![1, 2, 3])),
        to_raw(&Charlist("abc".into())),
        to_raw(&Binary(bytes::Bytes::from_static(b"\xFFabc"))),
        to_raw(&pid),
        to_raw(&BTreeMap::from([("k", 1), ("l", 2)])),
    ];
    let mut all: Vec<RawTerm> = raws.into_iter().map(Result::unwrap).collect();
    // Text as OTP writes it: property lists, strings, charlists, improper lists.
    for text in [
        "[{name,<<\"Ada\">>},{count,4},{inner,undefined}]",
        "[{name,<<\"Ada\">>},count,{inner,nil}]",
        "#{name => \"Ada\", old => <<\"B\">>}",
        "#{'__struct__' => 'Elixir.My.Struct', a => b, b => [1|2]}",
        "#{'__struct__' => 'Elixir.Other', a => b, b => c}",
        "#{a => b, b => [1,2|[3]]}",
        "[1|2]",
        "\"\\x01\\x02\\x03\"",
        "[]",
        "{}",
        "#{}",
        "{one,7,8}",
        "[nothing,{one,7},{two,\"t\",false},{unknown,1}]",
        "[{1,<<\"a\">>},{x,2},3]",
    ] {
        let term = parse_erlang(text, &Limits::default()).unwrap();
        all.push(RawTerm::from_term(&term).unwrap());
    }
    // Forms of old releases, and lists in lists' tails.
    for bytes in [
        &b"\x64\0\x02ok"[..],
        b"\x64\0\x01\xE4",
        b"\x6C\0\0\0\x01\x61\x01\x6C\0\0\0\x01\x61\x02\x6A",
        b"\x6C\0\0\0\x01\x61\x01\x6B\0\x02ab",
        b"\x62\0\0\0\x05",
        b"\x6E\x02\0\x05\0",
        b"\x6F\0\0\0\x01\0\x05",
        b"\x69\0\0\0\x02\x61\x07\x6D\0\0\0\x01x",
        b"\x74\0\0\0\x01\x64\0\x04name\x6D\0\0\0\x01x",
    ] {
        all.push(RawTerm::new(bytes.into(), None, &Limits::default()).unwrap());
    }
    all
}

#[test]
fn agree() {
    let limits = Limits::default();
    let mut read = 0;
    for raw in values() {
        read += all(&raw);
        let bytes = raw.as_bytes().to_vec();
        for at in 0..bytes.len() {
            for change in [1, 2, 7, 0x80, bytes[at] ^ 0x6A, bytes[at] ^ 0x61, bytes[at] ^ 0x6C] {
                let mut changed = bytes.clone();
                changed[at] ^= change;
                if let Ok(raw) = RawTerm::new(changed.into(), None, &limits) {
                    read += all(&raw);
                }
            }
        }
    }
    assert!(read > 10_000, "{read}");
}

/// The same maps and property lists as a peer might damage them: keys that come twice in the same or another form, names that
/// are no text, counts that are not true.
#[test]
fn what_nobody_has_checked_agrees() {
    let limits = Limits::default();
    let atoms: Arc<[Atom]> = ["name", "count", "a", "b"].map(Atom::new_static).into();
    let mut terms: Vec<Vec<u8>> = values().iter().map(|raw| raw.as_bytes().to_vec()).collect();
    for pairs in [
        &[&b"w\x04namem\0\0\0\x01x"[..], b"w\x05counta\x05"][..],
        &[b"R\0m\0\0\0\x01x", b"R\x01a\x05", b"w\x01xj", b"w\x01yR\x02"],
        &[b"w\x04namem\0\0\0\x01x", b"R\0m\0\0\0\x01x", b"R\x01a\x05"],
        &[b"w\x04namem\0\0\0\x01x", b"d\0\x04namem\0\0\0\x01x"],
        &[b"w\x04namem\0\0\0\x01x", b"a\x01a\x02", b"b\0\0\0\x01a\x02"],
        &[b"w\x04namem\0\0\0\x01x", b"a\x01a\x02", b"a\x03a\x02", b"m\0\0\0\x04nam3j", b"h\0j"],
        &[b"w\x0a__struct__w\x11Elixir.My.Struct\0", b"w\x01aw\x01b", b"w\x01bF\x40\0\0\0\0\0\0\0"],
        &[b"w\x0a__struct__w\x10Elixir.My.Struct", b"w\x01aw\x01b", b"w\x01bF\x40\0\0\0\0\0\0\0"],
        &[b"w\x0a__struct__w\x10Elixir.My.Struct", b"w\x0a__struct__j", b"w\x01aw\x01b", b"w\x01bj"],
        &[b"w\x04namem\0\0\0\x01x", b"w\x0a__struct__w\x02\xC3\xA4"],
        &[b"m\0\0\0\x01kb\0\0\x01\0", b"m\0\0\0\x01la\x01", b"w\x01ka\x01"],
    ] {
        let mut map = vec![b't', 0, 0, 0, pairs.len() as u8];
        let mut list = vec![b'l', 0, 0, 0, pairs.len() as u8];
        for pair in pairs {
            map.extend_from_slice(pair);
            list.extend_from_slice(b"h\x02");
            list.extend_from_slice(pair);
        }
        list.push(b'j');
        terms.extend([map, list]);
    }
    // Around them.
    for term in terms.clone() {
        terms.push([&b"h\x02a\x07"[..], &term].concat());
        terms.push([&b"l\0\0\0\x01"[..], &term, b"j"].concat());
        terms.push([&b"l\0\0\0\0"[..], &term].concat());
        terms.push([&term[..], b"\x07"].concat());
    }
    let mut read = 0;
    for bytes in &terms {
        read += all_unchecked(bytes, &atoms, &limits);
        for at in 0..bytes.len() {
            for change in
                [1, 2, 7, 0x80, bytes[at] ^ 0x6A, bytes[at] ^ 0x61, bytes[at] ^ 0x74, bytes[at] ^ 0x52]
            {
                let mut changed = bytes.clone();
                changed[at] ^= change;
                read += all_unchecked(&changed, &atoms, &limits);
            }
        }
        for cut in 0..bytes.len() {
            all_unchecked(&bytes[..cut], &atoms, &limits);
        }
    }
    assert!(read > 20_000, "{read}");
}

#[test]
fn limits_hold_for_what_nobody_has_checked() {
    let nested = |levels: usize| [b"h\x01".repeat(levels), b"j".to_vec()].concat();
    let narrow = Limits { max_depth: 300, ..Limits::default() };
    for (levels, fits) in [(250, true), (300, true), (301, false)] {
        for bytes in [nested(levels), [&b"l\0\0\0\x01"[..], &nested(levels - 1), b"j"].concat()] {
            assert_eq!(
                from_bytes::<IgnoredAny>(bytes.clone().into(), None, &narrow).is_ok(),
                fits,
                "{levels}"
            );
            assert_eq!(from_bytes::<Term>(bytes.clone().into(), None, &narrow).is_ok(), fits, "{levels}");
            assert_eq!(from_bytes::<RawTerm>(bytes.into(), None, &narrow).is_ok(), fits, "{levels}");
        }
    }
    let few = Limits { max_nodes: 3, ..Limits::default() };
    assert_eq!(from_bytes::<Vec<u8>>(b"l\0\0\0\x02a\x01a\x02j"[..].into(), None, &few), Ok(vec![1, 2]));
    assert!(from_bytes::<Vec<u8>>(b"l\0\0\0\x03a\x01a\x02a\x03j"[..].into(), None, &few).is_err());
}

/// Whatever a peer says how many there are: of those that are made without a look, not even as many as there are bytes.
#[test]
fn types_that_read_nothing_are_not_made_endlessly() {
    let limits = Limits::default();
    let head: &[u8] = b"l\x7F\xFF\xFF\xFF";
    for bytes in
        [head.to_vec(), [&b"h\x01"[..], head].concat(), head.repeat(1000), b"l\0\0\x40\0".repeat(20_000)]
    {
        for bytes in [bytes.clone(), [&bytes[..], &[b'j'; 20_000]].concat()] {
            assert!(from_bytes::<Vec<Blind>>(bytes.clone().into(), None, &limits).is_err());
            assert!(from_bytes::<Vec<Vec<Blind>>>(bytes.clone().into(), None, &limits).is_err());
            assert!(from_bytes::<Vec<(Vec<Blind>, Vec<Blind>)>>(bytes.into(), None, &limits).is_err());
        }
    }
}

#[test]
fn standalone_terms() {
    let raw = to_raw(&plain(None)).unwrap();
    let limits = Limits::default();
    for bytes in [raw.to_external(), raw.to_external_compressed()] {
        assert_eq!(from_external(&bytes, &limits), Ok(plain(None)));
        assert!(from_external::<Plain>(&bytes.slice(1..), &limits).is_err());
        assert!(from_external::<Plain>(&bytes.slice(..bytes.len() - 1), &limits).is_err());
    }
    let text = vec!["a long enough text, which is worth compressing as it is long long long".to_owned(); 9];
    let external = to_raw(&text).unwrap().to_external_compressed();
    assert_eq!(external[1], 80);
    assert_eq!(from_external(&external, &limits), Ok(text));
}

#[test]
fn the_usual_needs_no_tape() {
    let raw = to_raw(&plain(Some(Box::new(plain(None))))).unwrap();
    assert_eq!(
        direct::read::<Plain>(raw.source(), 0..raw.as_bytes().len()),
        Some(plain(Some(Box::new(plain(None)))))
    );
    let raw = to_raw(&vec![Choice::One(1), Choice::Nothing]).unwrap();
    assert!(direct::read::<Vec<Choice>>(raw.source(), 0..raw.as_bytes().len()).is_some());
    assert!(direct::read::<IgnoredAny>(raw.source(), 0..raw.as_bytes().len()).is_some());
}

#[test]
fn keys_that_are_equal_are_found_without_a_tape() {
    struct Twice(usize);
    impl Serialize for Twice {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_map((0..self.0).chain([0]).map(|key| (format!("key {key}"), key)))
        }
    }
    for keys in [1, 5, 32, 33, 500] {
        assert!(to_raw(&Twice(keys)).is_err(), "{keys}");
        assert!(to_raw(&(1, vec![Twice(keys)])).is_err(), "{keys}");
    }
    let differing: BTreeMap<String, usize> = (0..5000).map(|key| (format!("key {key}"), key)).collect();
    let raw = to_raw(&differing).unwrap();
    assert_eq!(RawTerm::new(raw.as_bytes().clone(), None, &Limits::default()), Ok(raw));
}

#[derive(Debug, Deserialize, PartialEq)]
struct Borrowing<'a> {
    name: &'a str,
    zone: &'a str,
    body: &'a [u8],
    rest: Option<&'a str>,
    from: Pid,
}

#[test]
fn text_and_bytes_are_borrowed() {
    let limits = Limits::default();
    let erlang = "#{name => <<\"a name\">>, zone => eu, body => <<1, 2>>, rest => nil}";
    let mut term = parse_erlang(erlang, &limits).unwrap();
    // A name that is as short as names get, and nothing behind it: a pid that ends the bytes.
    let pid = Pid { node: "n@h".try_into().unwrap(), id: 7, serial: 1, creation: 3 };
    if let Term::Map(map) = &mut term {
        map.insert(Term::atom("from"), Term::Pid(pid.clone()));
    }
    let raw = RawTerm::from_term(&term).unwrap();
    let inside = |text: &[u8]| raw.as_bytes().as_ptr_range().contains(&text.as_ptr());
    let expected = Borrowing { name: "a name", zone: "eu", body: &[1, 2], rest: None, from: pid };
    let (mut one, mut other) = (Tape::new(), Tape::new());
    let checked: Borrowing<'_> = from_raw_with(&mut one, &raw).unwrap();
    let unchecked: Borrowing<'_> = from_bytes_with(&mut other, raw.as_bytes(), None, &limits).unwrap();
    for value in [checked, unchecked] {
        assert_eq!(value, expected);
        assert!(inside(value.name.as_bytes()) && inside(value.zone.as_bytes()) && inside(value.body));
    }
    // A form that needs the tape: the text of a list without a tail of its own is that of its tail.
    let bytes = Bytes::from_static(&[108, 0, 0, 0, 0, 109, 0, 0, 0, 2, b'h', b'i']);
    let mut tape = Tape::new();
    assert_eq!(from_bytes_with::<&str>(&mut tape, &bytes, None, &limits), Ok("hi"));
    // Text that has to be made cannot be borrowed.
    let latin = Bytes::from_static(&[100, 0, 1, 0xe9]);
    assert!(from_bytes_with::<&str>(&mut tape, &latin, None, &limits).is_err());
    assert_eq!(from_bytes_with::<String>(&mut tape, &latin, None, &limits), Ok("é".to_owned()));
}

#[test]
fn pids_of_every_form() {
    let limits = Limits::default();
    let atoms: Arc<[Atom]> = [Atom::new("node@host").unwrap()].into();
    let forms: [(&[u8], &str); 4] = [
        (&[88, 119, 3, b'a', b'@', b'b', 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3], "a@b"),
        (&[88, 119, 4, b'a', b'@', 0xc3, 0xa9, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3], "a@é"),
        (&[88, 82, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3], "node@host"),
        (&[103, 100, 0, 3, b'a', b'@', b'b', 0, 0, 0, 1, 0, 0, 0, 2, 3], "a@b"),
    ];
    for (bytes, node) in forms {
        let expected = Pid { node: node.try_into().unwrap(), id: 1, serial: 2, creation: 3 };
        assert_eq!(from_bytes(Bytes::from_static(bytes), Some(atoms.clone()), &limits), Ok(expected));
    }
    let (no_text, cut) = ([88, 119, 1, 0xff, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3], &forms[0].0[..17]);
    for bytes in [&no_text[..], cut, &[97, 1]] {
        let bytes = Bytes::copy_from_slice(bytes);
        assert!(from_bytes::<Pid>(bytes.clone(), None, &limits).is_err());
        careless::<Pid>(bytes, &limits);
    }
}

#[test]
fn atoms_that_are_no_text() {
    for bytes in [&[119, 1, 0xff][..], &[119, 2, b'a'], &[119, 1, b'a'], &[97, 1]] {
        careless::<Atom>(Bytes::copy_from_slice(bytes), &Limits::default());
    }
}

/// What is no term is none for a type that does not care either.
#[track_caller]
fn careless<T: for<'de> Deserialize<'de>>(bytes: Bytes, limits: &Limits) {
    let swallowed = from_bytes::<Careless<T>>(bytes.clone(), None, limits);
    assert_eq!(swallowed.is_ok(), RawTerm::new(bytes, None, limits).is_ok());
}

/// A value, or whatever is there.
struct Careless<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Careless<T> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let _ = T::deserialize(deserializer);
        Ok(Self(PhantomData))
    }
}

#[test]
fn what_is_left_of_a_swallowed_error_is_noticed() {
    struct Swallows;
    impl Serialize for Swallows {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            use serde::ser::SerializeSeq;
            let mut list = serializer.serialize_seq(None)?;
            let _ = list.serialize_element(&(1, f64::NAN));
            list.serialize_element(&2)?;
            list.end()
        }
    }
    assert!(to_raw(&Swallows).is_err());
    assert!(to_raw(&[Swallows]).is_err());
}
