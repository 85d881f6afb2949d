//! Terms print as each release prints them, and what is printed can be read again.

use foundation_proto::Limits;
use foundation_proto::etf::text::{parse_erlang, print, write};

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
