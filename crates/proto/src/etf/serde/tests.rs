use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Binary, Charlist, Error, OrUndefined, from_raw, from_term, from_view, to_raw, to_term};
use crate::Limits;
use crate::etf::text::{Printer, parse_erlang};
use crate::etf::{Atom, Pid, Port, RawTerm, Reference, Tape, Term};

fn term(erlang: &str) -> Term {
    parse_erlang(erlang, &Limits::default()).unwrap_or_else(|error| panic!("{erlang}: {error}"))
}

fn written(term: &Term) -> String {
    Printer::new().line_length(0).print(term)
}

/// The value as a term, both ways of making one, and back again from either.
#[track_caller]
fn both_ways<T: Serialize + for<'de> Deserialize<'de> + PartialEq + core::fmt::Debug>(
    value: &T,
    erlang: &str,
) {
    let made = to_term(value).unwrap();
    assert_eq!(written(&made), erlang);
    let raw = to_raw(value).unwrap();
    assert_eq!(raw.to_term(&Limits::default()).unwrap(), made);
    assert_eq!(&from_term::<T>(&made).unwrap(), value);
    assert_eq!(&from_raw::<T>(&raw).unwrap(), value);
}

#[track_caller]
fn reads<T: for<'de> Deserialize<'de> + PartialEq + core::fmt::Debug>(erlang: &str, value: &T) {
    let term = term(erlang);
    assert_eq!(&from_term::<T>(&term).unwrap(), value);
    assert_eq!(&from_raw::<T>(&RawTerm::from_term(&term).unwrap()).unwrap(), value);
}

#[track_caller]
fn fails<T: for<'de> Deserialize<'de> + core::fmt::Debug>(erlang: &str, message: &str) {
    let term = term(erlang);
    assert_eq!(from_term::<T>(&term).unwrap_err().to_string(), message);
    assert_eq!(from_raw::<T>(&RawTerm::from_term(&term).unwrap()).unwrap_err().to_string(), message);
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
struct Item {
    name: String,
    price: f64,
    #[serde(rename = "type")]
    kind: Option<Box<Self>>,
}

#[derive(Debug, Deserialize, PartialEq, Serialize)]
struct Point(i32, i32);

#[derive(Debug, Deserialize, PartialEq, Serialize)]
struct Meters(u64);

#[derive(Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename = "pong")]
struct Pong;

#[derive(Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename = "Elixir.My.User")]
struct User {
    id: u64,
    tags: Vec<Atom>,
}

#[derive(Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Request {
    Stop,
    SetLimit(i64),
    Move(i64, i64),
    Nested(Point),
    Put { key: String, value: Option<i64> },
}

#[test]
fn scalars() {
    both_ways(&true, "true");
    both_ways(&-5i8, "-5");
    both_ways(&u64::MAX, "18446744073709551615");
    both_ways(&i128::MIN, "-170141183460469231731687303715884105728");
    both_ways(&u128::MAX, "340282366920938463463374607431768211455");
    both_ways(&1.5f64, "1.5");
    both_ways(&0.25f32, "0.25");
    both_ways(&'é', "233");
    both_ways(&"héllo".to_owned(), "<<\"hÃ©llo\">>");
    both_ways(&(), "nil");
    both_ways(&Some(3), "3");
    both_ways(&None::<i32>, "nil");
    both_ways(&OrUndefined(None::<i32>), "undefined");
    both_ways(&OrUndefined(Some(3)), "3");
    both_ways(&Charlist("abc".into()), "\"abc\"");
    both_ways(&Charlist::default(), "[]");
    both_ways(&Binary(Bytes::from_static(&[1, 2])), "<<1,2>>");
    both_ways(&Pong, "pong");
    reads("undefined", &None::<i32>);
    reads("nil", &OrUndefined(None::<i32>));
    reads("ok", &());
    reads("2", &2.0f64);
    reads("\"abc\"", &"abc".to_owned());
    reads("abc", &"abc".to_owned());
    reads("[]", &String::new());
    reads("<<\"abc\">>", &Charlist("abc".into()));
    reads("<<\"x\">>", &'x');
    reads("<<1,2,3>>", &vec![1u8, 2, 3]);
    reads("[1,2,3]", &vec![1u8, 2, 3]);
    assert!(to_term(&f64::NAN).is_err());
    assert!(to_raw(&f64::INFINITY).is_err());
}

#[test]
fn containers() {
    both_ways(&vec![1, 2, 300], "[1,2,300]");
    both_ways(&Vec::<i32>::new(), "[]");
    both_ways(&(1, "a".to_owned(), Some(true)), "{1,<<\"a\">>,true}");
    both_ways(&[1u8, 2], "{1,2}");
    both_ways(&Point(1, -1), "{1,-1}");
    both_ways(&Meters(7), "7");
    both_ways(
        &BTreeMap::from([("a".to_owned(), 1), ("b".to_owned(), 2)]),
        "#{<<\"a\">> => 1,<<\"b\">> => 2}",
    );
    both_ways(&BTreeMap::from([(1, vec![(2, 3)])]), "#{1 => [{2,3}]}");
    let item = Item {
        name: "a".into(),
        price: 1.5,
        kind: Some(Box::new(Item { name: "b".into(), price: 0.5, kind: None })),
    };
    both_ways(
        &item,
        "#{name => <<\"a\">>,price => 1.5,type => #{name => <<\"b\">>,price => 0.5,type => nil}}",
    );
    reads("[{price, 2}, {name, x}, {unknown, 1}]", &Item { name: "x".into(), price: 2.0, kind: None });
    reads(
        "[{a, 1}, b]",
        &BTreeMap::from([
            (Atom::new_static("a"), Some(Term::Integer(1))),
            (Atom::new_static("b"), Some(Term::atom("true"))),
        ]),
    );
    both_ways(
        &User { id: 7, tags: vec![Atom::new_static("x")] },
        "#{'__struct__' => 'Elixir.My.User',id => 7,tags => [x]}",
    );
}

#[test]
fn enums() {
    both_ways(&Request::Stop, "stop");
    both_ways(&Request::SetLimit(5), "{set_limit,5}");
    both_ways(&Request::Move(1, 2), "{move,1,2}");
    both_ways(&Request::Nested(Point(1, 2)), "{nested,{1,2}}");
    both_ways(&Request::Put { key: "k".into(), value: None }, "{put,#{key => <<\"k\">>,value => nil}}");
    both_ways(&Ok::<i32, Atom>(1), "{'Ok',1}");
    fails::<Request>("{stop, 1}", "expected the atom 'stop' alone, got a tuple of 2 with the tag 'stop'");
    fails::<Request>("set_limit", "expected {set_limit, Value}, got the atom 'set_limit'");
    fails::<Request>(
        "{move, 1}",
        "expected a tuple of 3 with the tag 'move', got a tuple of 2 with the tag 'move'",
    );
    fails::<Request>("{move, 1, x}", "[2]: expected i64, got the atom 'x'");
    fails::<Request>("{set_limit, x}", ".set_limit: expected i64, got the atom 'x'");
    fails::<Request>("{1, 2}", "expected enum Request, got a tuple of 2");
    fails::<Request>(
        "go",
        "unknown variant `go`, expected one of `stop`, `set_limit`, `move`, `nested`, `put`",
    );
}

#[derive(Debug, Deserialize)]
#[allow(dead_code, reason = "only read")]
struct Order {
    items: Vec<Item>,
}

#[test]
fn errors_say_where() {
    fails::<Order>(
        "#{items => [#{name => <<\"a\">>, price => 1}, #{name => 5, price => 1}]}",
        ".items[1].name: expected a string, got the integer 5",
    );
    fails::<Order>("#{}", "the key `items` is missing");
    fails::<Order>("#{items => [#{name => a}]}", ".items[0]: the key `price` is missing");
    fails::<Order>("#{items => #{}}", ".items: expected a sequence, got a map of 0");
    fails::<Vec<u8>>("[1, 300]", "[1]: expected u8, got integer `300`");
    fails::<(i32, i32)>("{1, 2, 3}", "expected a tuple of 2, got a tuple of 3");
    fails::<i32>(
        "99999999999999999999999999999999999999999999",
        "expected i32, got an integer beyond 128 bits",
    );
    fails::<bool>("<<\"true\">>", "expected a boolean, got the binary \"true\"");
    fails::<String>("<<255>>", "expected a string, got a binary that is not UTF-8");
    fails::<Pid>("[1]", "expected a pid, got a list of 1");
    fails::<Pong>("ping", "expected the atom 'pong', got the atom 'ping'");
    fails::<User>(
        "#{id => 1, tags => []}",
        "expected the struct Elixir.My.User, got a map without __struct__",
    );
    fails::<User>(
        "#{'__struct__' => 'Elixir.Other', id => 1, tags => []}",
        ".__struct__: expected the struct Elixir.My.User, got the atom 'Elixir.Other'",
    );
    fails::<BTreeMap<i32, i32>>("[{1, 2, 3}]", "[0]: expected a key and a value, got a tuple of 3");
}

#[test]
fn identifiers_and_terms_pass_unchanged() {
    let node = Atom::new_static("a@b");
    let pid = Pid { node: node.clone(), id: 1, serial: 2, creation: 3 };
    let reference = Reference::new(node.clone(), 3, &[1, 2, 3]).unwrap();
    let port = Port { node, id: 5, creation: 3 };
    #[derive(Debug, Deserialize, PartialEq, Serialize)]
    struct All {
        pid: Pid,
        reference: Reference,
        port: Option<Port>,
        term: Term,
        terms: Vec<Term>,
    }
    let all = All {
        pid: pid.clone(),
        reference,
        port: Some(port),
        term: term("{a, [b | c], #{1 => \"x\"}}"),
        terms: vec![Term::from(pid.clone()), term("[]")],
    };
    let made = to_term(&all).unwrap();
    assert_eq!(from_term::<All>(&made).unwrap(), all);
    let raw = to_raw(&all).unwrap();
    assert_eq!(raw.to_term(&Limits::default()).unwrap(), made);
    assert_eq!(from_raw::<All>(&raw).unwrap(), all);
    assert_eq!(from_term::<Pid>(&Term::from(pid.clone())).unwrap(), pid);

    // An encoded term within one stays encoded, and shares its bytes.
    #[derive(Deserialize, Serialize)]
    struct Envelope {
        to: Atom,
        body: RawTerm,
        data: Binary,
    }
    let body = to_raw(&all).unwrap();
    let data = Binary(Bytes::from_static(b"0123456789"));
    let raw = to_raw(&Envelope { to: Atom::new_static("x"), body: body.clone(), data }).unwrap();
    let read: Envelope = from_raw(&raw).unwrap();
    assert_eq!(read.body, body);
    assert_eq!(read.to, "x");
    let whole = raw.as_bytes().as_ptr_range();
    assert!(whole.contains(&read.body.as_bytes().as_ptr()));
    assert!(whole.contains(&read.data.0.as_ptr()));
}

#[test]
fn text_and_bytes_can_be_borrowed() {
    #[derive(Debug, Deserialize, PartialEq)]
    struct Borrowed<'a> {
        name: &'a str,
        tag: &'a str,
        #[serde(borrow)]
        data: &'a [u8],
    }
    let raw = RawTerm::from_term(&term("#{name => <<\"n\">>, tag => t, data => <<255>>}")).unwrap();
    let mut tape = Tape::new();
    let view = raw.view(&mut tape).unwrap();
    assert_eq!(
        from_view::<Borrowed<'_>>(&raw, view).unwrap(),
        Borrowed { name: "n", tag: "t", data: &[255] }
    );
}

#[test]
fn a_term_cannot_drive_a_recursive_type_through_the_stack() {
    #[derive(Debug, Deserialize)]
    #[allow(dead_code, reason = "only read")]
    struct Nest(Option<Box<(Self,)>>);
    let deep = term(&format!("{}nil{}", "{".repeat(50_000), "}".repeat(50_000)));
    let error: Error = from_term::<Nest>(&deep).unwrap_err();
    assert!(error.message().contains("nest deeper"), "{error}");
    assert_eq!(from_term::<Term>(&deep).unwrap(), deep);
    assert!(from_term::<serde::de::IgnoredAny>(&deep).is_ok());
}

#[test]
fn a_map_with_a_key_twice_is_not_sent() {
    struct Twice;
    impl Serialize for Twice {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_map([(1, 1), (1, 2)])
        }
    }
    assert!(to_raw(&Twice).is_err());
    assert_eq!(written(&to_term(&Twice).unwrap()), "#{1 => 2}");
}
