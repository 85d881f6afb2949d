use crate::Limits;
use crate::etf::text::write;
use crate::etf::{RawTerm, Tape, decode, encode, encoded_len, phash2};

/// A peer sends any bytes as a term.
///
/// Asserts that tape, raw term and tree accept the same bytes and hold the same term with the same hash, that a term is
/// equal to itself and neither less nor greater, and that what is written reads as the same term, is written the same way
/// again, and is as long as foretold. Values that are read from bytes that nobody has checked are those of the tree, and there are
/// none where there is no term.
pub fn fuzz_term(data: &[u8]) {
    let limits = limits();
    let raw = RawTerm::from_external(data, &limits);
    let decoded = decode(data, &limits);
    #[cfg(feature = "serde")]
    typed::check(data, decoded.as_ref().ok(), &limits);
    let Ok(term) = decoded else {
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

#[cfg(feature = "serde")]
mod typed {
    use core::fmt::Debug;
    use std::collections::BTreeMap;

    use bytes::Bytes;
    use serde::Deserialize;
    use serde::de::DeserializeOwned;

    use crate::Limits;
    use crate::etf::serde::{Charlist, from_external, from_term};
    use crate::etf::{Pid, RawTerm, Term};

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(rename_all = "snake_case")]
    enum Part {
        Name(String),
        Number {
            value: i64,
            #[serde(default)]
            ratio: Option<f64>,
        },
        Pair(Term, RawTerm),
        Pid(Pid),
        Other,
    }

    fn same<T: DeserializeOwned + Debug + PartialEq>(bytes: &Bytes, term: Option<&Term>, limits: &Limits) {
        let value: Result<T, _> = from_external(bytes, limits);
        match (value, term.map(from_term::<T>)) {
            (Ok(value), Some(expected)) => assert_eq!(Ok(value), expected),
            (Ok(value), None) => unreachable!("{value:?} of bytes that are no term"),
            (Err(error), Some(Ok(value))) => unreachable!("{error} instead of {value:?}"),
            (Err(_), _) => {}
        }
    }

    pub(super) fn check(data: &[u8], term: Option<&Term>, limits: &Limits) {
        let bytes = Bytes::copy_from_slice(data);
        same::<Term>(&bytes, term, limits);
        same::<Vec<Term>>(&bytes, term, limits);
        same::<(Term, RawTerm)>(&bytes, term, limits);
        same::<BTreeMap<String, Term>>(&bytes, term, limits);
        same::<Vec<(Charlist, Option<i64>)>>(&bytes, term, limits);
        same::<Vec<Part>>(&bytes, term, limits);
    }
}
