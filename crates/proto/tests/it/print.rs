//! Terms print as each release prints them, and what is printed can be read again.

use foundation_proto::Limits;
use foundation_proto::etf::text::{Printer, parse_erlang, print, write};
use foundation_proto::etf::{Atom, decode};

use crate::golden;

#[test]
fn what_otp_wrote_is_read_and_printed_alike() {
    let mut printed = 0;
    for release in golden::RELEASES {
        let text = golden::read(release, "printed.tsv");
        for row in golden::rows(&text) {
            let [name, w, p] = row[..] else { panic!("three columns: {row:?}") };
            if (release, name) == (23, "float_large_integer") {
                continue; // from OTP 24 on, integers beyond 2^53 print with an exponent, as they do here
            }
            if name.starts_with("record_") {
                continue; // native records print, but cannot be read without their definition
            }
            let (w, p) = (golden::unescape(w), golden::unescape(p));
            let term = parse_erlang(&w, &Limits::default())
                .unwrap_or_else(|error| panic!("OTP {release} {name}: {error}: {w}"));
            assert_eq!(write(&term), w, "OTP {release} {name}");
            assert_eq!(print(&term), p, "OTP {release} {name}");
            printed += 1;
        }
    }
    println!("{printed} terms of {} releases", golden::RELEASES.len());
}

/// The printer of a node that is not alive, as the one that wrote the files.
fn printer() -> Printer {
    Printer::new().node(Atom::new_static("nonode@nohost"))
}

#[test]
fn every_encoded_term_prints_as_otp_prints_it() {
    let mut printed = 0;
    for release in [25, 29] {
        let text = golden::read(release, "print.tsv");
        for (line, row) in golden::rows(&text).enumerate() {
            let [encoded, w, p, tp] = row[..] else { panic!("four columns: {row:?}") };
            let term = decode(&golden::bytes(encoded), &Limits::default()).unwrap();
            let at = format!("OTP {release}, line {}", line + 1);
            assert_eq!(printer().write(&term), golden::unescape(w), "{at}");
            assert_eq!(printer().print(&term), golden::unescape(p), "{at}");
            assert_eq!(printer().unicode(true).print(&term), golden::unescape(tp), "{at}");
            printed += 1;
        }
    }
    println!("{printed} terms, three forms each");
}

#[test]
fn every_encoded_term_prints_as_elixir_inspects_it() {
    let text = golden::read(25, "inspect.tsv");
    let mut printed = 0;
    for (line, row) in golden::rows(&text).enumerate() {
        let [encoded, wide, narrow] = row[..] else { panic!("three columns: {row:?}") };
        let term = decode(&golden::bytes(encoded), &Limits::default()).unwrap();
        let (wide, narrow) = (golden::unescape(wide), golden::unescape(narrow));
        if wide.contains('\u{A0}')
            || wide.contains("\\x8")
            || wide.contains("\\x9")
            || wide.contains("#Function")
        {
            // Elixir 1.14 writes the no-break space as it is and C1 controls as escapes that it cannot read, and knows more of
            // its own functions than their terms tell.
            continue;
        }
        let printer = printer().single_quoted_charlists(true);
        assert_eq!(printer.inspect(&term), wide, "line {}", line + 1);
        assert_eq!(printer.line_length(20).inspect(&term), narrow, "line {}", line + 1);
        printed += 1;
    }
    println!("{printed} terms at two widths");
}
