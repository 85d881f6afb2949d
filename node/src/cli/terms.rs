//! Terms on the command line and on the standard output.

use std::io::Write as _;

use foundation_proto::Limits;
use foundation_proto::etf::text::{self, Call};
use foundation_proto::etf::{Atom, Term};

use super::args::Format;
use super::exit::Failure;

/// Prints a line on the standard output. A reader that has gone away is its own business.
pub(crate) fn line(text: &str) {
    let mut out = std::io::stdout().lock();
    let _closed =
        out.write_all(text.as_bytes()).and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush());
}

/// Prints a result.
pub(crate) fn print(term: &Term, format: Format, own: &Atom) {
    line(&show(term, format, own));
}

/// A term in the form that was asked for.
pub(crate) fn show(term: &Term, format: Format, own: &Atom) -> String {
    match format {
        Format::Erlang => text::Printer::new().unicode(true).node(own.clone()).print(term),
        Format::Elixir => text::inspect(term),
        Format::Json => json(term),
    }
}

/// A term in Erlang syntax.
pub(crate) fn parse(source: &str) -> Result<Term, Failure> {
    text::parse_erlang(source, &Limits::default()).map_err(|error| unreadable("term", source, &error))
}

/// A call in Erlang syntax.
pub(crate) fn parse_call(source: &str) -> Result<Call, Failure> {
    text::parse_erlang_call(source, &Limits::default()).map_err(|error| unreadable("call", source, &error))
}

fn unreadable(what: &str, source: &str, error: &text::ParseError) -> Failure {
    Failure::Usage(format!("{source:?} is no {what}: {error}\nQuote it for the shell: 'lists:seq(1, 5)'."))
}

/// A module, function or registered name as somebody writes it in a shell: `lists`, `:lists`, `'a b'`, `Enum`, `Elixir.Enum`.
pub(crate) fn name(text: &str) -> Result<Atom, Failure> {
    let bare = text.strip_prefix(':').unwrap_or(text);
    let bare = bare.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\'')).unwrap_or(bare);
    let alias = text.starts_with(|c: char| c.is_ascii_uppercase()) && !text.starts_with("Elixir.");
    let full = if alias { format!("Elixir.{bare}") } else { bare.to_owned() };
    Atom::new(&full).map_err(|error| Failure::Usage(error.to_string()))
}

/// A piece of work on the way through a term; the walk is iterative, because a peer chooses the depth.
enum Step<'a> {
    Term(&'a Term),
    Key(&'a Term),
    Text(&'static str),
}

/// JSON: atoms and binaries are strings (`true`, `false`, `nil`, `null` and `undefined` themselves), tuples and lists are
/// arrays, maps are objects; whatever has no counterpart is a string of its Erlang form. A charlist stays an array of numbers.
fn json(term: &Term) -> String {
    let mut out = String::new();
    let mut steps = vec![Step::Term(term)];
    while let Some(step) = steps.pop() {
        match step {
            Step::Text(text) => out.push_str(text),
            Step::Key(Term::Atom(atom)) => string(&mut out, atom.as_str()),
            Step::Key(Term::Binary(bytes)) if std::str::from_utf8(bytes).is_ok() => {
                string(&mut out, std::str::from_utf8(bytes).unwrap_or_default());
            }
            Step::Key(term) => string(&mut out, &text::write(term)),
            Step::Term(term) => match term {
                Term::Atom(atom) => match atom.as_str() {
                    "true" | "false" => out.push_str(atom.as_str()),
                    "nil" | "null" | "undefined" => out.push_str("null"),
                    text => string(&mut out, text),
                },
                Term::Integer(number) => out.push_str(&number.to_string()),
                Term::BigInteger(_) | Term::Float(_) => out.push_str(&text::write(term)),
                Term::Binary(bytes) => match std::str::from_utf8(bytes) {
                    Ok(text) => string(&mut out, text),
                    Err(_) => {
                        sequence(&mut out, &mut steps, "[", "]");
                        // Bytes that are no text: their numbers.
                        let numbers: Vec<String> = bytes.iter().map(u8::to_string).collect();
                        out.push_str(&numbers.join(","));
                    }
                },
                Term::Tuple(elements) => {
                    sequence(&mut out, &mut steps, "[", "]");
                    elements_of(&mut steps, elements);
                }
                Term::List(elements) => {
                    sequence(&mut out, &mut steps, "[", "]");
                    elements_of(&mut steps, elements);
                }
                Term::Map(map) => {
                    sequence(&mut out, &mut steps, "{", "}");
                    let first = steps.len();
                    for (key, value) in map.iter().rev() {
                        steps.extend([Step::Text(","), Step::Term(value), Step::Text(":"), Step::Key(key)]);
                    }
                    last_comma(&mut steps, first);
                }
                other => string(&mut out, &text::write(other)),
            },
        }
    }
    out
}

fn sequence(out: &mut String, steps: &mut Vec<Step<'_>>, open: &str, close: &'static str) {
    out.push_str(open);
    steps.push(Step::Text(close));
}

fn elements_of<'a>(steps: &mut Vec<Step<'a>>, elements: &'a [Term]) {
    let first = steps.len();
    for element in elements.iter().rev() {
        steps.extend([Step::Text(","), Step::Term(element)]);
    }
    last_comma(steps, first);
}

/// Each element was put before a comma; the last one, which lies deepest, has none.
fn last_comma(steps: &mut Vec<Step<'_>>, first: usize) {
    if steps.len() > first {
        steps.remove(first);
    }
}

fn string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_as_json() {
        for (erlang, expected) in [
            (
                "{ok, [1, -2.5, <<\"a\\\"b\">>], #{a => nil, <<\"k\">> => []}}",
                r#"["ok",[1,-2.5,"a\"b"],{"a":null,"k":[]}]"#,
            ),
            ("[]", "[]"),
            ("#{}", "{}"),
            ("{}", "[]"),
            ("#{{1,2} => true}", r#"{"{1,2}":true}"#),
            ("<<255,0>>", "[255,0]"),
            ("[a|b]", r#""[a|b]""#),
            ("123456789012345678901234567890", "123456789012345678901234567890"),
        ] {
            let term = text::parse_erlang(erlang, &Limits::default()).unwrap();
            assert_eq!(json(&term), expected, "{erlang}");
        }
    }

    #[test]
    fn names_as_they_are_written_in_a_shell() {
        for (text, atom) in [
            ("lists", "lists"),
            (":lists", "lists"),
            ("'a b'", "a b"),
            ("Enum", "Elixir.Enum"),
            ("Elixir.Enum", "Elixir.Enum"),
        ] {
            assert_eq!(name(text).unwrap().as_str(), atom);
        }
    }
}
