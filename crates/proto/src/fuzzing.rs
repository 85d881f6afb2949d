//! Bodies of the fuzz targets: plain functions of bytes that panic if a rule is broken.
//!
//! They run in two places: under a coverage-guided fuzzer (`fuzz/`), and with seeded mutations in `cargo test`. Each
//! checks more than the absence of panics: what it asserts stands in its documentation.

mod channel;
mod connection;
mod epmd;
mod handshake;
mod term;
mod text;

pub use channel::{fuzz_control, fuzz_fragment, fuzz_header, fuzz_inbound};
pub use connection::fuzz_connection;
pub use epmd::{fuzz_epmd_request, fuzz_epmd_response, fuzz_epmd_server};
pub use handshake::{fuzz_handshake_acceptor, fuzz_handshake_initiator};
pub use term::fuzz_term;
pub use text::{fuzz_elixir_text, fuzz_print, fuzz_text};

/// The pieces in which `data` arrives, after a moment of nothing: all at once, byte by byte, and cut where its own bytes
/// say.
fn splits(data: &[u8]) -> [Vec<&[u8]>; 3] {
    let nothing: &[u8] = &[];
    let mut cut = vec![nothing];
    let mut rest = data;
    while let Some(first) = rest.first() {
        let (piece, tail) = rest.split_at(usize::from(first % 23 + 1).min(rest.len()));
        cut.push(piece);
        rest = tail;
    }
    [vec![nothing, data], core::iter::once(nothing).chain(data.chunks(1)).collect(), cut]
}
