use crate::Limits;
use crate::etf::text::{parse_erlang, print, write};

/// Text in Erlang syntax, from a command line or a file.
///
/// Asserts that what can be read prints as text that reads as the same term.
pub fn fuzz_text(data: &[u8]) {
    let Ok(text) = core::str::from_utf8(data) else { return };
    let limits = Limits::default();
    let Ok(term) = parse_erlang(text, &limits) else { return };
    for printed in [print(&term), write(&term)] {
        assert_eq!(parse_erlang(&printed, &limits).as_ref(), Ok(&term), "{printed}");
    }
}
