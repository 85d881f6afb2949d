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
        Format::Erlang => text::Printer::new().node(own.clone()).print(term),
        Format::Elixir => text::inspect(term),
        Format::Json => text::to_json(term),
    }
}

/// The same on one line, however long.
pub(crate) fn show_line(term: &Term, format: Format, own: &Atom) -> String {
    match format {
        Format::Erlang => text::Printer::new().node(own.clone()).line_length(0).print(term),
        Format::Elixir | Format::Json => show(term, format, own),
    }
}

/// A term in Erlang or Elixir syntax. A text that is one in both is read as Erlang, unless results are wanted in Elixir's form:
/// `"a"` is a list there and a binary here.
pub(crate) fn parse(source: &str, format: Format) -> Result<Term, Failure> {
    either(source, "term", format, text::parse_erlang, text::parse_elixir)
}

/// A call in Erlang or Elixir syntax.
pub(crate) fn parse_call(source: &str, format: Format) -> Result<Call, Failure> {
    either(source, "call", format, text::parse_erlang_call, text::parse_elixir_call)
}

type Parse<T> = fn(&str, &Limits) -> Result<T, text::ParseError>;

fn either<T>(
    source: &str,
    what: &str,
    format: Format,
    erlang: Parse<T>,
    elixir: Parse<T>,
) -> Result<T, Failure> {
    let limits = Limits::default();
    let (first, second) = if format == Format::Elixir { (elixir, erlang) } else { (erlang, elixir) };
    first(source, &limits).or_else(|one| {
        second(source, &limits).map_err(|other| {
            // The reading that came further is the one that was meant.
            let error = if (other.line, other.column) > (one.line, one.column) { other } else { one };
            Failure::Usage(format!(
                "{source:?} is no {what}: {error}\nQuote it for the shell: 'lists:seq(1, 5)' or ':lists.seq(1, 5)'."
            ))
        })
    })
}

/// A module, function or registered name as somebody writes it in a shell: `lists`, `:lists`, `'a b'`, `Enum`, `Elixir.Enum`.
pub(crate) fn name(text: &str) -> Result<Atom, Failure> {
    let bare = text.strip_prefix(':').unwrap_or(text);
    let bare = bare.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\'')).unwrap_or(bare);
    let alias = text.starts_with(|c: char| c.is_ascii_uppercase()) && !text.starts_with("Elixir.");
    let full = if alias { format!("Elixir.{bare}") } else { bare.to_owned() };
    Atom::new(&full).map_err(|error| Failure::Usage(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_languages_are_read() {
        for (source, format, printed) in [
            ("{ok, \"a\"}", Format::Erlang, "{ok,\"a\"}"),
            ("{:ok, \"a\"}", Format::Erlang, "{ok,<<\"a\">>}"),
            ("\"a\"", Format::Elixir, "<<\"a\">>"),
            ("%{a: 1}", Format::Erlang, "#{a => 1}"),
        ] {
            assert_eq!(text::print(&parse(source, format).unwrap()), printed, "{source}");
        }
        for call in ["lists:seq(1, 5)", ":lists.seq(1, 5)"] {
            let call = parse_call(call, Format::Erlang).unwrap();
            assert_eq!(
                (call.module.as_str(), call.function.as_str(), call.arguments.len()),
                ("lists", "seq", 2)
            );
        }
        assert_eq!(parse_call("Enum.sum([1])", Format::Erlang).unwrap().module.as_str(), "Elixir.Enum");
        let error = parse_call(":lists.seq(1, oops()", Format::Erlang).unwrap_err().to_string();
        assert!(error.contains("column 1"), "{error}");
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
