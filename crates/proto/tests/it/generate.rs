//! Terms made from pseudo-random numbers, with the values at which encodings change.

use foundation_proto::etf::{Atom, ExportFun, Map, Pid, Port, Reference, Term};

use crate::fuzz::Random;

const INTEGERS: [i128; 16] = [
    0,
    255,
    256,
    -1,
    (1 << 27) - 1,
    -(1 << 27) - 1,
    i32::MAX as i128,
    i32::MIN as i128,
    1 << 31,
    i64::MAX as i128,
    i64::MIN as i128,
    1 << 63,
    -(1 << 63) - 1,
    1 << 64,
    i128::MAX,
    i128::MIN,
];

const FLOATS: [f64; 9] =
    [0.0, -0.0, 1.0, 1.5, -2.0, 1e300, 5e-324, 9_007_199_254_740_992.0, 1.844_674_407_370_955_2e19];

const ATOMS: [&str; 9] =
    ["", "a", "b", "ok", "true", "Elixir.Foo", "åäö", "日本語", "an atom longer than 22 bytes"];

/// A term of at most `depth` levels.
pub(crate) fn term(random: &mut Random, depth: usize) -> Term {
    let kinds = if depth == 0 { 9 } else { 14 };
    match random.below(kinds) {
        0 => Term::from(random.below(300) as i64 - 20),
        1 => Term::from(INTEGERS[random.below(INTEGERS.len())]),
        2 => Term::Float(FLOATS[random.below(FLOATS.len())]),
        3 => Term::Atom(atom(random)),
        4 => Term::binary(&bytes(random)),
        5 => Term::bits(
            [&bytes(random)[..], &[random.next() as u8]].concat().into(),
            1 + random.below(7) as u8,
        )
        .unwrap(),
        6 => identifier(random),
        7 => ExportFun { module: atom(random), function: atom(random), arity: random.next() as u8 }.into(),
        8 => Term::list(bytes(random).into_iter().map(Term::from)),
        9 => Term::tuple(terms(random, depth)),
        10 | 11 => Term::list(terms(random, depth)),
        12 => {
            let tail = term(random, depth - 1);
            Term::list_with_tail(terms(random, depth), tail)
        }
        _ => {
            let most = [3, 12, 45][random.below(3)] / depth;
            let size = random.below(most);
            let pairs = (0..size).map(|_| (term(random, depth - 1), term(random, depth - 1)));
            Term::Map(pairs.collect::<Map>())
        }
    }
}

fn terms(random: &mut Random, depth: usize) -> Vec<Term> {
    (0..random.below(5)).map(|_| term(random, depth - 1)).collect()
}

fn atom(random: &mut Random) -> Atom {
    Atom::new(ATOMS[random.below(ATOMS.len())]).unwrap()
}

fn bytes(random: &mut Random) -> Vec<u8> {
    (0..random.below(30)).map(|_| random.next() as u8).collect()
}

fn identifier(random: &mut Random) -> Term {
    let node = Atom::new(["a@b", "node@127.0.0.1"][random.below(2)]).unwrap();
    let creation = 1 + random.below(3) as u32;
    match random.below(3) {
        0 => Pid { node, id: random.next() as u32, serial: random.below(3) as u32, creation }.into(),
        1 => Port { node, id: random.next() >> random.below(64), creation }.into(),
        _ => {
            let words: Vec<u32> = (0..=random.below(5)).map(|_| random.next() as u32).collect();
            Reference::new(node, creation, &words[..words.len().min(5)]).unwrap().into()
        }
    }
}
