//! Reads the golden files. How they were made stands in `interop-tests/golden/PROVENANCE.md`.

use std::fs;
use std::path::PathBuf;

/// The releases that were captured.
pub(crate) const RELEASES: [u32; 4] = [23, 25, 27, 29];

/// One golden file of one release.
pub(crate) fn read(release: u32, file: &str) -> String {
    let root = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../interop-tests/golden"));
    let path = root.join(format!("otp-{release}")).join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The rows of a `.tsv` file, split at tabs.
pub(crate) fn rows(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines().map(|line| line.split('\t').collect())
}

/// The lines of one direction (`>` or `<`) of a recording, in order.
pub(crate) fn direction(text: &str, sign: char) -> Vec<Vec<u8>> {
    text.lines().filter_map(|line| line.strip_prefix(sign)).map(|hex| bytes(hex.trim())).collect()
}

/// Bytes from hexadecimal in which `{xx*N}` stands for N times the byte xx.
pub(crate) fn bytes(hex: &str) -> Vec<u8> {
    let digit = |text: &str| u8::from_str_radix(text, 16).unwrap();
    let mut out = Vec::new();
    let mut rest = hex;
    while !rest.is_empty() {
        if let Some(run) = rest.strip_prefix('{') {
            let (run, after) = run.split_once('}').unwrap();
            let (byte, count) = run.split_once('*').unwrap();
            out.resize(out.len() + count.parse::<usize>().unwrap(), digit(byte));
            rest = after;
        } else {
            let (byte, after) = rest.split_at(2);
            out.push(digit(byte));
            rest = after;
        }
    }
    out
}

/// Undoes the escapes of `printed.tsv`.
pub(crate) fn unescape(text: &str) -> String {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        out.push(match (c, c == '\\') {
            (_, true) => match chars.next() {
                Some('n') => '\n',
                Some('t') => '\t',
                Some(c) => c,
                None => panic!("a lone backslash in {text}"),
            },
            (c, _) => c,
        });
    }
    out
}
