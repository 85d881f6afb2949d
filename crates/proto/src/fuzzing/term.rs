use crate::Limits;
use crate::etf::text::write;
use crate::etf::{RawTerm, Tape, decode, encode, encoded_len, phash2};

/// A peer sends any bytes as a term.
///
/// Asserts that tape, raw term and tree accept the same bytes and hold the same term with the same hash, that a term is
/// equal to itself and neither less nor greater, and that what is written reads as the same term, is written the same way
/// again, and is as long as foretold.
pub fn fuzz_term(data: &[u8]) {
    let limits = limits();
    let raw = RawTerm::from_external(data, &limits);
    let Ok(term) = decode(data, &limits) else {
        assert!(raw.is_err(), "the raw term accepts what the tree refuses");
        return;
    };
    let Ok(raw) = raw else { unreachable!("the raw term refuses what the tree accepts: {raw:?}") };
    assert_eq!(raw.to_term(&limits).as_ref(), Ok(&term));
    assert!(term.cmp_erlang(&term).is_eq() && term.cmp_exact(&term).is_eq());

    let mut tape = Tape::new();
    let view = raw.view(&mut tape);
    assert_eq!(view.as_ref().map(|view| view.phash2()), Ok(phash2(&term)));

    let mut written = Vec::new();
    if encode(&term, &mut written).is_err() {
        return; // an integer or a list beyond what the format can hold cannot come from decoding
    }
    assert_eq!(encoded_len(&term), Ok(written.len() - 1));
    let again = decode(&written, &limits);
    assert_eq!(again.as_ref(), Ok(&term), "what was written is another term");
    let mut twice = Vec::new();
    if let Ok(again) = again {
        assert!(encode(&again, &mut twice).is_ok());
    }
    assert_eq!(written, twice);
    let _ = write(&term);
}

/// Small enough that an input of some kilobytes cannot make a term of many megabytes.
fn limits() -> Limits {
    Limits { max_inflated: 1 << 20, max_nodes: 1 << 16, ..Limits::default() }
}
