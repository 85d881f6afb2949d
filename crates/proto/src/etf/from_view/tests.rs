use super::*;
use crate::Limits;
use crate::etf::{Tape, encode_term};
use crate::random::Random;

fn with<R>(term: &Term, look: impl FnOnce(View<'_>) -> R) -> R {
    let mut bytes = Vec::new();
    encode_term(term, &mut bytes).unwrap();
    let mut tape = Tape::new();
    look(tape.parse(&bytes, &[], &Limits::default()).unwrap())
}

#[test]
fn integers_of_each_size() {
    for value in [i128::MIN, -(1 << 64), i64::MIN.into(), -129, -1, 0, 255, 256, 1 << 63, 1 << 64, i128::MAX]
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
    with(&Term::Map([(Term::from("a"), 1.into()), ("b".into(), 2.into())].into_iter().collect()), |view| {
        assert_eq!(view.value(), Ok(HashMap::<_, _>::from([("a", 1), ("b", 2)])));
        assert_eq!(view.value(), Ok(BTreeMap::from([("a".to_owned(), 1), ("b".to_owned(), 2)])));
        assert!(view.value::<HashMap<&str, bool>>().is_err());
    });
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

const NAMES: [&str; 5] = ["a", "of", "name", "weight", "measurements"];

fn atoms() -> Vec<Atom> {
    ["name", "of"].map(Atom::new_static).into()
}

/// An atom in one of its forms, mostly one of the names.
fn any_atom(random: &mut Random) -> Vec<u8> {
    let others = ["true", "nil", "undefined", "nam", "nams", "a_name_of_more_than_16", "\u{e4}", ""];
    let text = if random.below(3) > 0 { random.pick(&NAMES) } else { random.pick(&others) };
    let len = text.len() as u8;
    match random.below(6) {
        0 => [&[118, 0, len], text.as_bytes()].concat(),
        1 => [&[100, 0, len], text.as_bytes()].concat(),
        2 => vec![82, random.below(2) as u8],
        _ => [&[119, len], text.as_bytes()].concat(),
    }
}

fn any(random: &mut Random, depth: u64) -> Vec<u8> {
    let count = random.below(5);
    let many = |random: &mut Random, count: u64| -> Vec<u8> {
        (0..count).flat_map(|_| any(random, depth - 1)).collect()
    };
    match random.below(if depth > 0 { 18 } else { 10 }) {
        0 => vec![97, random.below(256) as u8],
        1 => [vec![98], random.bytes(4)].concat(),
        2 | 3 => {
            let len = random.below(10);
            [vec![110, len as u8, random.below(2) as u8], random.bytes(len)].concat()
        }
        4 => [vec![111, 0, 0, 0, 8, 1], random.bytes(8)].concat(),
        5 => [vec![70], random.below(9).to_be_bytes().to_vec()].concat(),
        6 => [vec![107, 0, count as u8], random.bytes(count)].concat(),
        7 => [vec![88], any_atom(random), vec![7; 12]].concat(),
        8 => [vec![109, 0, 0, 0, count as u8], random.bytes(count)].concat(),
        9 => any_atom(random),
        10 | 11 => [vec![104, count as u8], many(random, count)].concat(),
        12 | 13 => {
            // Of integers mostly, so that they are a row.
            let inside = if random.below(2) == 0 {
                (0..count).flat_map(|_| [98, 0, 0, 1, 2]).collect()
            } else {
                many(random, count)
            };
            let tail = if random.below(3) == 0 { any(random, depth - 1) } else { vec![106] };
            [vec![108, 0, 0, 0, count as u8], inside, tail].concat()
        }
        form => {
            let pair = |random: &mut Random| [any_atom(random), any(random, depth - 1)].concat();
            let pairs: Vec<Vec<u8>> = (0..count).map(|_| pair(random)).collect();
            if form < 16 {
                return [vec![116, 0, 0, 0, count as u8], pairs.concat()].concat();
            }
            let tail = if form == 17 { any(random, depth - 1) } else { vec![106] };
            let tuples = pairs.iter().flat_map(|pair| [&[104, 2][..], pair].concat()).collect();
            [vec![108, 0, 0, 0, count as u8], tuples, tail].concat()
        }
    }
}

/// What [`View::fields`] says, by other ways of a view.
fn slow_fields<'a>(view: View<'a>, names: &[&'static str]) -> Result<Vec<View<'a>>, Mismatch> {
    let wrong = |view| Mismatch::new("a map or a list of pairs", view);
    let pairs: Vec<(View<'_>, View<'_>)> = match view.kind() {
        Kind::Map => view.pairs().collect(),
        Kind::List => view
            .elements()
            .map(|pair| pair.tuple().map(|[key, value]| (key, value)).ok_or_else(|| wrong(pair)))
            .collect::<Result<_, _>>()?,
        _ => return Err(wrong(view)),
    };
    let value = |name: &&'static str| {
        let found = pairs.iter().find(|(key, _)| key.to_term() == Term::atom(name));
        found.map(|(_, value)| *value).ok_or(Mismatch { key: Some(name), ..wrong(view) })
    };
    names.iter().map(value).collect()
}

fn list<'a, T: FromView<'a>>(view: View<'a>) -> Result<Vec<T>, Mismatch> {
    if view.kind() != Kind::List {
        return Err(Mismatch::new("a list", view));
    }
    view.elements().map(View::value).collect()
}

fn places(views: &[View<'_>]) -> Vec<usize> {
    views.iter().map(|view| view.index).collect()
}

fn looked_at(view: View<'_>) {
    let term = view.to_term();
    for names in [["name", "weight"], ["weight", "name"], ["measurements", "a"], ["of", "measurements"]] {
        let found = view.fields(names).map(|views| places(&views));
        assert_eq!(found, slow_fields(view, &names).map(|views| places(&views)), "{term:?}");
    }
    assert_eq!(view.fields(NAMES).map(|v| places(&v)), slow_fields(view, &NAMES).map(|v| places(&v)));
    assert_eq!(view.fields([]).map(|v| places(&v)), slow_fields(view, &[]).map(|v| places(&v)));
    assert_eq!(view.value::<Vec<i64>>(), list(view), "{term:?}");
    assert_eq!(view.value::<Vec<u8>>(), list(view));
    assert_eq!(view.value::<Vec<i8>>(), list(view));
    assert_eq!(view.value::<Vec<u16>>(), list(view));
    assert_eq!(view.value::<Vec<u64>>(), list(view));
    assert_eq!(view.value::<Vec<AtomRef<'_>>>(), list(view));
    assert_eq!(view.as_i64(), term.as_i64(), "{term:?}");
    assert_eq!(view.value::<i64>().ok(), term.as_i64());
    let float = if let Term::Float(value) = &term { Some(*value) } else { None };
    assert_eq!(view.as_f64(), float);
    let pid = if let Term::Pid(pid) = &term { Some(pid.clone()) } else { None };
    assert_eq!((view.as_pid(), view.pid_ref().map(super::super::walk::PidRef::to_pid)), (pid.clone(), pid));
    let truth = [false, true].into_iter().find(|truth| term == Term::Atom((*truth).into()));
    assert_eq!(view.as_bool(), truth);
    let nothing = term == Term::atom("nil") || term == Term::atom("undefined");
    assert_eq!(view.value::<Option<View<'_>>>().map(|value| value.is_none()), Ok(nothing));
    if let (Some(atom), Term::Atom(owned)) = (view.as_atom(), &term) {
        let state = std::hash::BuildHasherDefault::<std::hash::DefaultHasher>::new();
        assert_eq!(state.hash_one(atom), state.hash_one(owned));
        assert!(atom == *owned && atom == AtomRef::from(owned) && atom == owned.as_str());
        assert!(
            NAMES
                .iter()
                .all(|name| (atom == *name) == (owned == name) && view.is_atom(name) == (owned == name))
        );
    }
    if let Some(elements) = term.as_list() {
        assert_eq!(view.elements().map(View::to_term).collect::<Vec<_>>(), elements);
    }
    view.elements().for_each(looked_at);
}

#[test]
fn quick_ways_agree_with_others() {
    let (mut random, mut tape, atoms, mut accepted) = (Random(11), Tape::new(), atoms(), 0);
    for case in 0..20_000 {
        let mut bytes = any(&mut random, 3);
        if case % 2 == 0 {
            for _ in 0..random.below(4) {
                let at = random.below(bytes.len() as u64) as usize;
                bytes[at] = random.below(256) as u8;
            }
        }
        // What follows a term may be read with it, but is no part of it.
        let behind = random.below(12);
        bytes.extend(random.bytes(behind));
        if let Ok(view) = tape.parse(&bytes, &atoms, &Limits::default()) {
            looked_at(view);
            accepted += 1;
        }
    }
    assert!(accepted > 8_000, "{accepted}");
}
