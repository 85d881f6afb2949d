//! What is measured.

use std::hint::black_box;

use foundation_proto::Limits;
use foundation_proto::etf::{Kind, RawTerm, Tape, View, encode_term};

use crate::{Subject, borrowed, plain, typed};

/// Does the work so many times.
pub(crate) type Work = Box<dyn FnMut(u64)>;

/// What the BEAM does for the same end.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(crate) enum Against {
    Decode,
    Encode,
    Nothing,
}

pub(crate) struct Operation {
    pub(crate) name: &'static str,
    pub(crate) against: Against,
    pub(crate) work: Work,
}

/// All that is done with a term here and in the codecs of the field; what a codec cannot do with it is left out.
pub(crate) fn all(subject: &Subject) -> Vec<Operation> {
    let mut all = ours(subject);
    all.extend(theirs(subject));
    all
}

fn again(mut once: impl FnMut() + 'static) -> Work {
    Box::new(move |count| (0..count).for_each(|_| once()))
}

/// Reads each leaf of the term through views.
fn walk(view: View<'_>) -> u64 {
    match view.kind() {
        Kind::Integer => view.as_i64().unwrap_or(0) as u64,
        Kind::Atom => view.as_atom().and_then(|atom| atom.as_str()).map_or(0, |text| text.len() as u64),
        Kind::Binary => view.as_binary().map_or(0, |bytes| bytes.len() as u64),
        _ => view.elements().map(walk).fold(1, u64::wrapping_add),
    }
}

/// The number of terms inside, itself included.
pub(crate) fn nodes(subject: &Subject) -> usize {
    fn count(view: View<'_>) -> usize {
        1 + match view.as_byte_list() {
            // One piece on the wire.
            Some(_) => 0,
            None => view.elements().map(count).sum::<usize>() + usize::from(view.tail().is_some()),
        }
    }
    let mut tape = Tape::new();
    let bytes = subject.external.slice(1..);
    tape.parse(&bytes, &[], &Limits::default()).map_or(1, count)
}

fn ours(subject: &Subject) -> Vec<Operation> {
    let limits = Limits::default();
    let bytes = subject.external.slice(1..);
    let Ok(raw) = RawTerm::new(bytes.clone(), None, &limits) else { return Vec::new() };
    let Ok(term) = raw.to_term(&limits) else { return Vec::new() };
    let decoding = |name, work| Operation { name, against: Against::Decode, work };
    let encoding = |name, work| Operation { name, against: Against::Encode, work };
    let other = |name, work| Operation { name, against: Against::Nothing, work };
    let mut all = Vec::new();

    let (mut tape, input, l) = (Tape::new(), bytes.clone(), limits.clone());
    all.push(decoding(
        "look",
        again(move || {
            black_box(tape.parse(black_box(&input), &[], &l).is_ok());
        }),
    ));
    let (mut tape, input, l) = (Tape::new(), bytes.clone(), limits.clone());
    all.push(decoding(
        "look, read all",
        again(move || {
            black_box(tape.parse(black_box(&input), &[], &l).map(walk).ok());
        }),
    ));
    let (mut tape, input, l) = (Tape::new(), bytes.clone(), limits.clone());
    all.push(decoding(
        "validate",
        again(move || {
            black_box(RawTerm::with_tape(&mut tape, black_box(input.clone()), None, &l).is_ok());
        }),
    ));
    let (mut tape, source, l) = (Tape::new(), raw.clone(), limits.clone());
    all.push(decoding(
        "owned",
        again(move || {
            black_box(black_box(&source).to_term_with(&mut tape, &l).ok());
        }),
    ));
    if let Some(work) = typed::decoding(&subject.name, &raw) {
        all.push(decoding("typed", work));
    }
    if let Some(work) = typed::reading(&subject.name, &raw) {
        all.push(decoding("typed, checked", work));
    }
    if let Some(work) = typed::remaking(&subject.name, &raw) {
        all.push(decoding("typed, made alone", work));
    }
    if let Some([work, remaking]) = borrowed::decoding(&subject.name, &bytes) {
        all.push(decoding("typed, borrowed", work));
        all.push(decoding("borrowed, made alone", remaking));
    }
    if let Some(work) = plain::decoding(&subject.name, &bytes) {
        all.push(decoding("typed by view", work));
    }
    let (mut out, tree) = (Vec::new(), term.clone());
    all.push(encoding(
        "encode",
        again(move || {
            out.clear();
            black_box(encode_term(black_box(&tree), &mut out).is_ok());
        }),
    ));
    let tree = term.clone();
    all.push(encoding(
        "encode, new buffer",
        again(move || {
            black_box(RawTerm::from_term(black_box(&tree)).ok());
        }),
    ));
    if let Some(work) = typed::encoding(&subject.name, &raw) {
        all.push(encoding("encode typed", work));
    }
    let source = raw.clone();
    all.push(other(
        "phash2 of a view",
        Box::new(move |count| {
            let mut tape = Tape::new();
            if let Ok(view) = source.view(&mut tape) {
                (0..count).for_each(|_| {
                    black_box(black_box(view).phash2());
                });
            }
        }),
    ));
    let tree = term.clone();
    all.push(other(
        "phash2 of a term",
        again(move || {
            black_box(foundation_proto::etf::phash2(black_box(&tree)));
        }),
    ));
    let source = raw;
    all.push(other(
        "skip",
        Box::new(move |count| {
            let mut tape = Tape::new();
            if let Ok(view) = source.view(&mut tape) {
                (0..count).for_each(|_| {
                    black_box(black_box(view).elements().count());
                });
            }
        }),
    ));
    all.push(other(
        "clone and drop",
        again(move || {
            black_box(black_box(&term).clone());
        }),
    ));
    all
}

fn theirs(subject: &Subject) -> Vec<Operation> {
    let mut all = Vec::new();
    let bytes = subject.external.clone();
    if let Ok(term) = eetf::Term::decode(&bytes[..]) {
        let input = bytes.clone();
        all.push(Operation {
            name: "eetf decode",
            against: Against::Decode,
            work: again(move || {
                black_box(eetf::Term::decode(black_box(&input[..])).ok());
            }),
        });
        let mut out = Vec::new();
        all.push(Operation {
            name: "eetf encode",
            against: Against::Encode,
            work: again(move || {
                out.clear();
                black_box(black_box(&term).encode(&mut out).is_ok());
            }),
        });
    }
    if let Ok(term) = erltf::decode(&bytes) {
        let input = bytes.clone();
        all.push(Operation {
            name: "erltf decode",
            against: Against::Decode,
            work: again(move || {
                black_box(erltf::decode(black_box(&input)).ok());
            }),
        });
        let input = bytes;
        all.push(Operation {
            name: "erltf decode_borrowed",
            against: Against::Decode,
            work: again(move || {
                black_box(erltf::decode_borrowed(black_box(&input)).ok());
            }),
        });
        all.push(Operation {
            name: "erltf encode",
            against: Against::Encode,
            work: again(move || {
                black_box(erltf::encode(black_box(&term)).ok());
            }),
        });
    }
    all
}
