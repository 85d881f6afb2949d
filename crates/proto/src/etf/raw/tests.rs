use super::*;
use crate::etf::decode;

fn atoms(texts: &[&str]) -> Option<Arc<[Atom]>> {
    Some(texts.iter().map(|text| Atom::new(text).unwrap()).collect())
}

#[test]
fn cache_references_are_resolved_and_written_out() {
    // {'node@host', <'node@host'.1.2>, ref, fun lists:map/2, #Fun}
    let mut bytes = vec![104, 5, 82, 1];
    bytes.extend([88, 82, 1, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3]);
    bytes.extend([90, 0, 1, 82, 1, 0, 0, 0, 3, 0, 0, 0, 9]);
    bytes.extend([113, 119, 5, b'l', b'i', b's', b't', b's', 82, 0, 97, 2]);
    let fun_at = bytes.len();
    bytes.extend([112, 0, 0, 0, 0, 1]);
    bytes.extend([7; 16]);
    bytes.extend([
        0, 0, 0, 5, 0, 0, 0, 1, 82, 0, 97, 1, 97, 2, 88, 82, 1, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 82, 0,
    ]);
    let size = (bytes.len() - fun_at - 1) as u8;
    bytes[fun_at + 4] = size;
    bytes.extend([99, 99]);

    let limits = Limits::default();
    let raw = RawTerm::new(bytes.into(), atoms(&["map", "node@host"]), &limits).unwrap();
    let plain = raw.to_plain();
    assert!(plain.atoms().is_empty());
    assert!(!raw.as_bytes().ends_with(&[99]), "what follows the term is dropped");
    let term = raw.to_term(&limits).unwrap();
    assert_eq!(plain.to_term(&limits).unwrap(), term);
    assert_eq!(raw, plain);
    // Every length is right, that of the fun included: our own encoder computes it from the term.
    assert_eq!(RawTerm::from_term(&term).unwrap().as_bytes(), plain.as_bytes());
    assert_eq!(decode(&raw.to_external(), &limits).unwrap(), term);
    assert_eq!(decode(&raw.to_external_compressed(), &limits).unwrap(), term);
    // A term inside keeps what it needs to be understood.
    let mut tape = Tape::new();
    let view = raw.view(&mut tape).unwrap();
    let [_, pid, ..] = view.tuple::<5>().unwrap();
    assert_eq!(raw.inner(pid).unwrap().to_term(&limits).unwrap(), term.as_tuple().unwrap()[1]);
}

#[test]
fn without_references_nothing_is_copied() {
    let raw =
        RawTerm::new(Bytes::from_static(b"m\0\0\0\x01x"), atoms(&["unused"]), &Limits::default()).unwrap();
    assert!(raw.atoms().is_empty());
    assert_eq!(raw.to_plain().as_bytes().as_ptr(), raw.as_bytes().as_ptr());
    let mut tape = Tape::new();
    let view = raw.view(&mut tape).unwrap();
    assert_eq!(raw.slice(view).unwrap().as_ptr(), raw.as_bytes()[5..].as_ptr());
    let other = raw.as_bytes().to_vec();
    let mut tape = Tape::new();
    assert!(
        raw.slice(tape.parse(&other, &[], &Limits::default()).unwrap()).is_none(),
        "a view of something else"
    );
}

#[test]
fn references_outside_of_the_header_are_refused() {
    assert!(RawTerm::new(Bytes::from_static(&[82, 1]), atoms(&["a"]), &Limits::default()).is_err());
    assert!(RawTerm::new(Bytes::from_static(&[82, 0]), None, &Limits::default()).is_err());
    let local = Bytes::from_static(&[121, 1, 2, 3, 4, 82, 0]);
    assert!(RawTerm::new(local, atoms(&["a"]), &Limits::default()).is_err());
}

#[test]
fn compressing_is_undone_and_never_makes_longer() {
    let limits = Limits::default();
    for (term, shorter) in [(Term::binary(&[7; 10_000]), true), (Term::Integer(1), false)] {
        let raw = RawTerm::from_term(&term).unwrap();
        let external = raw.to_external_compressed();
        assert_eq!(external.len() < raw.to_external().len(), shorter);
        assert_eq!(RawTerm::from_external(&external, &limits).unwrap().to_term(&limits).unwrap(), term);
    }
}

#[test]
fn large_binaries_are_never_copied() {
    let large = vec![7; 1 << 20];
    let raw = RawTerm::from_term(&Term::from((Term::binary(&large), vec![Term::binary(&large)]))).unwrap();
    let inside = |bytes: &Bytes| raw.as_bytes().as_ptr_range().contains(&bytes.as_ptr());
    let check = |term: &Term| {
        let [first, rest] = term.as_tuple().unwrap() else { panic!("{term:?}") };
        assert!(
            inside(first.as_binary().unwrap()) && inside(rest.as_list().unwrap()[0].as_binary().unwrap())
        );
    };
    check(&raw.to_term(&Limits::default()).unwrap());
    let mut tape = Tape::new();
    let view = raw.view(&mut tape).unwrap();
    assert!(inside(&raw.slice(view.elements().next().unwrap()).unwrap()));
    let external = raw.to_external();
    let term = crate::etf::decode_bytes(&external, &Limits::default()).unwrap();
    let first = term.as_tuple().unwrap()[0].as_binary().unwrap();
    assert!(external.as_ptr_range().contains(&first.as_ptr()));
    // A clone and a term inside share the memory, too.
    assert!(inside(raw.clone().as_bytes()) && inside(raw.inner(view).unwrap().as_bytes()));
}
