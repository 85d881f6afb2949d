use super::*;
use crate::error::PeerMisbehaved;

const BOTH: HeaderMode = HeaderMode::Header { atom_cache: true, fragments: true };

pub(crate) fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(core::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn atoms(cache: &mut ReceiveCache, frame: &[u8]) -> (Vec<String>, usize) {
    match Header::read(BOTH, frame, cache).unwrap() {
        Header::Message { atoms, body } => {
            (atoms.iter().flat_map(|list| list.iter()).map(|atom| atom.as_str().to_owned()).collect(), body)
        }
        other => panic!("{other:?}"),
    }
}

/// Headers that an OTP 29 node sent on one connection, in order.
const S1: [(&str, &[&str]); 4] = [
    (
        "8344048c9d000a0d6e3239403132372e302e302e3105007903726578bd1066656174757265735f72657175657374",
        &["n29@127.0.0.1", "", "rex", "features_request"],
    ),
    (
        "834409049daa8a0c0a05a812676c6f62616c5f6e616d655f736572766572a1092467656e5f636173741a0c696e69745f636f6e6e6563743b066c6f636b
         6572990f6e6f5f6c6f6e6765725f615f706964a30d636f6e6e656374696f6e5f6964a80c7273403132372e302e302e31",
        &[
            "n29@127.0.0.1",
            "",
            "global_name_server",
            "$gen_cast",
            "init_connect",
            "locker",
            "no_longer_a_pid",
            "connection_id",
            "rs@127.0.0.1",
        ],
    ),
    ("834404449b000aa864046563686ffa026f6b", &["n29@127.0.0.1", "rs@127.0.0.1", "echo", "ok"]),
    ("8344044413000aa864fa", &["n29@127.0.0.1", "rs@127.0.0.1", "echo", "ok"]),
];

#[test]
fn headers_of_otp_29_resolve_in_order() {
    let mut cache = ReceiveCache::default();
    for (frame, expected) in S1 {
        let frame = hex(frame);
        let (got, body) = atoms(&mut cache, &frame);
        assert_eq!(got, expected);
        assert_eq!(body, frame.len());
    }
    let long = format!("83440444c3010aa864aa010e{}", "e282ac".repeat(90));
    let (got, body) = atoms(&mut cache, &hex(&long));
    assert_eq!(got[3], "€".repeat(90));
    assert_eq!(body, long.len() / 2);
}

#[test]
fn a_repeated_header_shares_its_list_until_a_slot_changes() {
    let mut cache = ReceiveCache::default();
    for (frame, _) in S1 {
        atoms(&mut cache, &hex(frame));
    }
    let list = |cache: &mut ReceiveCache| match Header::read(BOTH, &hex(S1[3].0), cache).unwrap() {
        Header::Message { atoms: Some(atoms), .. } => atoms,
        other => panic!("{other:?}"),
    };
    let first = list(&mut cache);
    assert!(Arc::ptr_eq(&first, &list(&mut cache)));
    // Slot 3·256 + 0x64, `echo` so far.
    atoms(&mut cache, &hex("8344010b640178"));
    assert_eq!(list(&mut cache)[2], "x");
    assert_eq!(first[2], "echo");
}

#[test]
fn every_truncation_is_an_error() {
    let frames = [S1[0].0, S1[1].0].map(hex);
    for frame in &frames {
        for len in 0..frame.len() {
            let mut cache = ReceiveCache::default();
            for slot in 0..2048 {
                cache.set(slot, Atom::new_static("x"));
            }
            assert_eq!(
                Header::read(BOTH, &frame[..len], &mut cache).unwrap_err(),
                truncated(len),
                "{len} bytes"
            );
        }
    }
}

#[test]
fn what_otp_closes_on_is_an_error() {
    let mut cache = ReceiveCache::default();
    let mut read = |frame: &str| Header::read(BOTH, &hex(frame), &mut cache);
    let tag = |at, tag| Error::malformed("frame", at, Problem::UnknownTag(tag));
    assert_eq!(read("7083680161").unwrap_err(), tag(0, 112), "pass-through frame in header mode");
    assert_eq!(read("836801610100").unwrap_err(), tag(1, 104), "no header");
    assert_eq!(
        read("8344010005").unwrap_err(),
        Error::PeerMisbehaved(PeerMisbehaved::EmptyCacheSlot(5)),
        "cached reference to an empty slot"
    );
    assert!(read("83440108050161").is_ok());
    let not_utf8 = read("834401080501ff").unwrap_err();
    assert_eq!(not_utf8, Error::malformed("distribution header", 6, Problem::NotUtf8));
}

#[test]
fn pass_through_wants_the_version_byte_only() {
    let mut cache = ReceiveCache::default();
    let mut read = |frame: &str| Header::read(HeaderMode::PassThrough, &hex(frame), &mut cache);
    assert!(matches!(read("70836801"), Ok(Header::PassThrough { body: 2 })));
    assert!(matches!(read("00836801"), Ok(Header::PassThrough { body: 2 })));
    assert!(read("83440068").is_err(), "a header frame");
    assert!(read("70").is_err());
}

fn written(writer: &HeaderWriter) -> Vec<u8> {
    let mut out = vec![VERSION_MAGIC, DIST_HEADER];
    writer.write(&mut out);
    assert_eq!(out.len() - 2, writer.len());
    out
}

#[test]
fn what_is_written_is_read_with_every_number_of_atoms_and_any_length() {
    let mut writer = HeaderWriter::new(BOTH);
    let mut cache = ReceiveCache::default();
    for round in 0..3 {
        for count in 0..=255 {
            writer.clear();
            let mut expected = Vec::new();
            for n in 0..count {
                let text =
                    if n == 200 { "€".repeat(100) } else { format!("atom_{}", (n * 7 + count) % 400) };
                if let Some(index) = writer.reference(&Atom::new(&text).unwrap()) {
                    if usize::from(index) == expected.len() {
                        expected.push(text);
                    } else {
                        assert_eq!(expected[usize::from(index)], text);
                    }
                }
            }
            assert_eq!(atoms(&mut cache, &written(&writer)).0, expected, "round {round}");
        }
    }
}

#[test]
fn a_header_lists_at_most_255_atoms() {
    let mut writer = HeaderWriter::new(BOTH);
    let indices: Vec<_> =
        (0..2000).filter_map(|n| writer.reference(&Atom::new(&format!("{n}")).unwrap())).collect();
    assert_eq!(indices.len(), 255);
    let mut cache = ReceiveCache::default();
    assert_eq!(atoms(&mut cache, &written(&writer)).0.len(), 255);
}

#[test]
fn the_list_of_a_relayed_payload_is_adopted_as_it_is() {
    let list: Vec<Atom> = ["a@b", "c@d", "ok"].map(|text| Atom::new(text).unwrap()).to_vec();
    let mut writer = HeaderWriter::new(BOTH);
    assert!(writer.adopt(&list));
    assert_eq!(writer.reference(&list[1]), Some(1));
    assert_eq!(writer.reference(&Atom::new_static("new")), Some(3));
    writer.clear();
    let twice = [list[0].clone(), list[0].clone()];
    assert!(!writer.adopt(&twice));
    assert!(!HeaderWriter::new(HeaderMode::PassThrough).adopt(&list));
}
