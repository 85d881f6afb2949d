//! The `eetf` crate (0.11) as a second opinion on terms, where it has one.
//!
//! Left out is what it is known to get wrong: lists of small integers with a negative one among them (it writes them as
//! STRING_EXT), FLOAT_EXT (read as 32 bits), Latin-1 atoms, NaN-like bytes, and hostile input, at which it panics or aborts.

use foundation_proto::Limits;
use foundation_proto::etf::{Term, decode, encode};

use crate::fuzz::Random;
use crate::generate::term;

#[test]
fn eetf_reads_what_we_write_and_we_read_what_it_writes() {
    let mut random = Random(5);
    let mut compared = 0;
    for _ in 0..3_000 {
        let term = term(&mut random, 3);
        let mut bytes = Vec::new();
        encode(&term, &mut bytes).unwrap();
        let theirs = eetf::Term::decode(&bytes[..]).unwrap_or_else(|error| panic!("{error}: {term:?}"));
        if has_known_bug(&term) {
            continue;
        }
        let mut again = Vec::new();
        theirs.encode(&mut again).unwrap();
        assert_eq!(decode(&again, &Limits::default()).as_ref(), Ok(&term), "{theirs}");
        compared += 1;
    }
    assert!(compared > 1_500, "only {compared} compared");
}

/// Whether eetf is known to write this term wrongly.
fn has_known_bug(term: &Term) -> bool {
    let small = |element: &Term| matches!(element.as_i64(), Some(value) if value < 256 && i32::try_from(value).is_ok());
    match term {
        Term::List(list) => {
            (!list.is_empty() && list.iter().all(small) && list.iter().any(|e| e.as_i64() < Some(0)))
                || list.iter().any(has_known_bug)
        }
        Term::ImproperList(list) => list.elements.iter().any(has_known_bug) || has_known_bug(&list.tail),
        Term::Tuple(tuple) => tuple.iter().any(has_known_bug),
        // Its maps are tables in which 0.0 and -0.0 are one key.
        Term::Map(map) => {
            map.iter().any(|(key, value)| has_known_bug(key) || has_known_bug(value) || has_zero(key))
        }
        _ => false,
    }
}

fn has_zero(key: &Term) -> bool {
    format!("{key:?}").contains("0.0")
}
