//! What `term_to_binary` of each release wrote: read, hashed, ordered, printed, and written again.

use std::collections::BTreeMap;

use foundation_proto::Limits;
use foundation_proto::etf::text::{print, write};
use foundation_proto::etf::{RawTerm, Tape, Term, decode, encode, phash2, phash2_range};

use crate::golden;

/// One line of `encodings.tsv`.
struct Encoding {
    release: u32,
    name: String,
    option: String,
    bytes: Vec<u8>,
}

impl Encoding {
    fn what(&self) -> String {
        format!("OTP {} {} {}", self.release, self.name, self.option)
    }

    fn term(&self) -> Term {
        decode(&self.bytes, &Limits::default()).unwrap_or_else(|error| panic!("{}: {error}", self.what()))
    }

    /// Whether it is of the node that was captured, and so different in each release.
    fn is_local(&self) -> bool {
        self.name.starts_with("local_")
    }
}

fn encodings(release: u32) -> Vec<Encoding> {
    let text = golden::read(release, "encodings.tsv");
    golden::rows(&text)
        .map(|row| {
            let [name, option, hex] = row[..] else { panic!("three columns: {row:?}") };
            Encoding { release, name: name.to_owned(), option: option.to_owned(), bytes: golden::bytes(hex) }
        })
        .collect()
}

/// The terms of one release by name, from the encoding without options.
fn terms(release: u32) -> BTreeMap<String, Term> {
    let plain = encodings(release).into_iter().filter(|encoding| encoding.option == "default");
    plain.map(|encoding| (encoding.name.clone(), encoding.term())).collect()
}

fn encoded(term: &Term) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(term, &mut bytes).unwrap();
    bytes
}

#[test]
fn all_encodings_of_a_term_are_that_term() {
    let mut first: BTreeMap<String, (String, Term)> = BTreeMap::new();
    let mut count = 0;
    for encoding in golden::RELEASES.into_iter().flat_map(encodings) {
        let term = encoding.term();
        let key = if encoding.is_local() {
            format!("{} {}", encoding.release, encoding.name)
        } else {
            encoding.name.clone()
        };
        let (what, expected) = first.entry(key).or_insert_with(|| (encoding.what(), term.clone()));
        assert_eq!(&term, expected, "{} is not {what}", encoding.what());

        // The view and the encoded term are that term too.
        if encoding.option != "compressed" {
            let mut tape = Tape::new();
            let view = tape.parse(&encoding.bytes[1..], &[], &Limits::default()).unwrap();
            assert_eq!(view.encoded().len(), encoding.bytes.len() - 1, "{}", encoding.what());
            assert_eq!(view.phash2(), phash2(&term), "{}", encoding.what());
            assert_eq!(view.to_term(), term, "{}", encoding.what());
        }
        let raw = RawTerm::from_external(&encoding.bytes, &Limits::default()).unwrap();
        assert_eq!(raw.to_term(&Limits::default()).as_ref(), Ok(&term), "{}", encoding.what());
        count += 1;
    }
    println!("{count} encodings");
}

/// We write what OTP 26 and later write, and what OTP 23 and 25 write when asked for UTF-8 atoms, byte for byte.
#[test]
fn terms_are_written_as_otp_writes_them() {
    for release in golden::RELEASES {
        let mut newest: BTreeMap<String, Encoding> = BTreeMap::new();
        for encoding in encodings(release) {
            // The lines of a term are in the order of the options: minor_2, if it differs, comes after the default.
            if matches!(encoding.option.as_str(), "default" | "minor_2") {
                newest.insert(encoding.name.clone(), encoding);
            }
        }
        for encoding in newest.values() {
            // Before OTP 26, ports within 28 bits have a tag of their own, which V4_PORT_EXT has replaced.
            if release < 26 && encoding.name.contains("port") {
                continue;
            }
            assert_eq!(encoded(&encoding.term()), encoding.bytes, "{}", encoding.what());
        }
    }
}

#[test]
fn hashes_are_otps() {
    for release in golden::RELEASES {
        let terms = terms(release);
        for row in golden::rows(&golden::read(release, "terms.tsv")) {
            let [name, hash, wide] = row[..] else { panic!("three columns: {row:?}") };
            let term = &terms[name];
            assert_eq!(phash2(term).to_string(), hash, "OTP {release} {name}");
            assert_eq!(phash2_range(term, 1 << 32).unwrap().to_string(), wide, "OTP {release} {name}");
        }
    }
}

#[test]
fn order_is_otps() {
    for release in golden::RELEASES {
        let terms = terms(release);
        let text = golden::read(release, "order.txt");
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split(' ').collect()).collect();
        for (index, line) in lines.iter().enumerate() {
            for name in line {
                assert!(
                    terms[line[0]].cmp_erlang(&terms[*name]).is_eq(),
                    "OTP {release}: {} == {name}",
                    line[0]
                );
                for later in lines[index + 1..].iter().flatten() {
                    assert!(
                        terms[*name].cmp_erlang(&terms[*later]).is_lt(),
                        "OTP {release}: {name} < {later}"
                    );
                    assert!(
                        terms[*later].cmp_erlang(&terms[*name]).is_gt(),
                        "OTP {release}: {later} > {name}"
                    );
                }
            }
        }
    }
}

#[test]
fn decoded_terms_print_as_otp_prints_them() {
    for release in golden::RELEASES {
        let terms = terms(release);
        for row in golden::rows(&golden::read(release, "printed.tsv")) {
            let [name, w, p] = row[..] else { panic!("three columns: {row:?}") };
            // OTP 23 prints two floats differently, and no release prints a map of more than 32 keys in the order in which
            // term_to_binary writes it.
            if release == 23 && name.starts_with("float_") || ["map_33", "map_100"].contains(&name) {
                continue;
            }
            assert_eq!(write(&terms[name]), golden::unescape(w), "OTP {release} {name}");
            assert_eq!(print(&terms[name]), golden::unescape(p), "OTP {release} {name}");
        }
    }
}
