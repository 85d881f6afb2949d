use crate::Limits;
use crate::etf::text::{
    inspect, parse_elixir, parse_elixir_call, parse_erlang, parse_erlang_call, print, to_json, write,
};
use crate::etf::{Term, decode};

/// Text in Erlang syntax, from a command line or a file.
///
/// Asserts that what can be read prints as text that reads as the same term.
pub fn fuzz_text(data: &[u8]) {
    let Ok(text) = core::str::from_utf8(data) else { return };
    let limits = Limits::default();
    let _ = parse_erlang_call(text, &limits);
    let Ok(term) = parse_erlang(text, &limits) else { return };
    for printed in [print(&term), write(&term)] {
        assert_eq!(parse_erlang(&printed, &limits).as_ref(), Ok(&term), "{printed}");
    }
}

/// Text in Elixir syntax.
///
/// Asserts that what can be read prints as text that reads as the same term.
pub fn fuzz_elixir_text(data: &[u8]) {
    let Ok(text) = core::str::from_utf8(data) else { return };
    let limits = Limits::default();
    let _ = parse_elixir_call(text, &limits);
    let Ok(term) = parse_elixir(text, &limits) else { return };
    let printed = inspect(&term);
    assert_eq!(parse_elixir(&printed, &limits).as_ref(), Ok(&term), "{printed}");
}

/// A term in the external format, as anyone may send it to be printed.
///
/// Asserts that the printed forms read as the same term in their language, unless it holds something that no text can name.
pub fn fuzz_print(data: &[u8]) {
    let limits = Limits::default();
    let Ok(term) = decode(data, &limits) else { return };
    let (erlang, flat, elixir) = (print(&term), write(&term), inspect(&term));
    let _ = to_json(&term);
    if !has_a_name(&term) {
        return;
    }
    assert_eq!(parse_erlang(&erlang, &limits).as_ref(), Ok(&term), "{erlang}");
    assert_eq!(parse_erlang(&flat, &limits).as_ref(), Ok(&term), "{flat}");
    assert_eq!(parse_elixir(&elixir, &limits).as_ref(), Ok(&term), "{elixir}");
}

/// Whether text can stand for the term: it holds no identifiers, local funs, native records or integers that print in base 16.
fn has_a_name(term: &Term) -> bool {
    let mut rest = vec![term];
    while let Some(term) = rest.pop() {
        match term {
            Term::Pid(_)
            | Term::Port(_)
            | Term::Reference(_)
            | Term::Fun(_)
            | Term::Record(_)
            | Term::Local(_) => {
                return false;
            }
            Term::BigInteger(integer) if integer.magnitude().len() > 4096 => return false,
            Term::Tuple(elements) => rest.extend(elements.iter()),
            Term::List(elements) => rest.extend(elements.iter()),
            Term::ImproperList(list) => rest.extend(list.elements.iter().chain([&list.tail])),
            Term::Map(pairs) => rest.extend(pairs.iter().flat_map(|(key, value)| [key, value])),
            _ => {}
        }
    }
    true
}
