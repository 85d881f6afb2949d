use core::fmt;

use super::atom::Charset;
use super::flat::{Style, flatten};
use super::inspect::{self, ElixirStyle};
use super::json;
use super::pretty::pretty;
use crate::etf::{Atom, Term};

/// Prints terms; the defaults are those of `io:format("~p", [Term])` at the beginning of a line.
///
/// Output grows in proportion to the term: every walk is iterative, integers of more than 4,096 bytes, and further ones
/// once a second went into decimal digits, are written in base 16, and the indentation of one output ends at [`MAX_INDENTATION`].
///
/// Maps are printed in wire order. A term that is private to the node that encoded it prints as `#Local<Bytes>`. The atoms `else` and `maybe` are quoted, as OTP 27 and
/// later quote them and every release reads them.
///
/// ```
/// use foundation_proto::etf::text::Printer;
/// use foundation_proto::etf::{Term, Atom};
///
/// let term = Term::List(["a", "b"].map(|atom| Term::Atom(Atom::new_static(atom))).into_iter().collect());
/// assert_eq!(Printer::new().print(&term), "[a,b]");
/// assert_eq!(Printer::new().line_length(4).print(&term), "[a,\n b]");
/// ```
///
/// [`MAX_INDENTATION`]: super::MAX_INDENTATION
#[derive(Clone, Debug)]
pub struct Printer {
    column: usize,
    line_length: usize,
    style: Style,
    single_quoted_charlists: bool,
}

impl Default for Printer {
    fn default() -> Self {
        Self::new()
    }
}

impl Printer {
    /// 80 columns, Latin-1.
    pub fn new() -> Self {
        let style = Style { charset: Charset::Latin1, strings: true, node: None };
        Self { column: 1, line_length: 80, style, single_quoted_charlists: false }
    }

    /// The columns of a line, 80 by default; the field width of `~p`. 0: everything on one line, as `~0p`.
    #[must_use]
    pub fn line_length(mut self, columns: usize) -> Self {
        self.line_length = columns;
        self
    }

    /// The column where the output begins, from 1.
    #[must_use]
    pub fn column(mut self, column: usize) -> Self {
        self.column = column;
        self
    }

    /// Whether characters beyond Latin-1 are printed and make text (`~tp` under `+pc unicode`) or are escaped (`~p`, the default).
    #[must_use]
    pub fn unicode(mut self, unicode: bool) -> Self {
        self.style.charset = if unicode { Charset::Unicode } else { Charset::Latin1 };
        self
    }

    /// Whether lists and binaries that look like text are printed as text (`~p`, the default) or as numbers (`~lp`).
    #[must_use]
    pub fn strings(mut self, strings: bool) -> Self {
        self.style.strings = strings;
        self
    }

    /// The node whose pids, ports and references begin with 0, as they do in its own shell.
    ///
    /// The first number of an identifier is no part of it: every BEAM prints 0 for its own and otherwise what number it happens
    /// to have given to the node. Here, other nodes are numbered from 1 in the order in which they occur in the term.
    #[must_use]
    pub fn node(mut self, node: Atom) -> Self {
        self.style.node = Some(node);
        self
    }

    /// Whether `inspect` writes `'abc'`, as Elixir before 1.15 does, instead of `~c"abc"`, which every release reads.
    #[must_use]
    pub fn single_quoted_charlists(mut self, single: bool) -> Self {
        self.single_quoted_charlists = single;
        self
    }

    /// The term as `~p` prints it.
    pub fn print(&self, term: &Term) -> String {
        if self.line_length == 0 {
            return flatten(term, &self.style, false).text;
        }
        pretty(flatten(term, &self.style, true), self.column, self.line_length)
    }

    /// The term as `~w` prints it: on one line, text as numbers.
    pub fn write(&self, term: &Term) -> String {
        flatten(term, &Style { strings: false, ..self.style.clone() }, false).text
    }

    /// The term as Elixir's `inspect(term, pretty: true, limit: :infinity)` prints it.
    ///
    /// Any map with atom keys whose `__struct__` is a module name prints as a struct with all its fields: this node has no module that
    /// could print it in a way of its own, as Elixir does for dates or sets.
    pub fn inspect(&self, term: &Term) -> String {
        let style = ElixirStyle {
            node: self.style.node.as_ref(),
            single_quoted_charlists: self.single_quoted_charlists,
            strings: self.style.strings,
        };
        let width = (self.line_length > 0).then_some(self.line_length);
        inspect::document(term, &style).layout(width)
    }

    /// The term as JSON on one line, for tools; it cannot be read back, because JSON has fewer types:
    ///
    /// | term | JSON |
    /// |---|---|
    /// | `true`, `false` | `true`, `false` |
    /// | `nil`, `undefined`, `null` | `null` |
    /// | any other atom, a binary of UTF-8, a list that prints as text | string |
    /// | integer, float | number, with all its digits |
    /// | list, tuple | array |
    /// | map | object; a key that is neither an atom nor UTF-8 is the text in which it prints |
    /// | native record | object of its fields, with `__record__` in front |
    /// | anything else | string: the text in which it prints in Erlang |
    pub fn json(&self, term: &Term) -> String {
        json::json(term, &self.style)
    }
}

/// The term as JSON, Unicode text as text; see [`Printer::json`].
pub fn to_json(term: &Term) -> String {
    Printer::new().unicode(true).json(term)
}

/// The term as Elixir's `inspect/2` prints it, at 80 columns and in full.
pub fn inspect(term: &Term) -> String {
    Printer::new().inspect(term)
}

/// The term as `io:format("~p", [Term])` prints it: at 80 columns.
pub fn print(term: &Term) -> String {
    Printer::new().print(term)
}

/// The term as `io:format("~w", [Term])` prints it: on one line, text as numbers.
pub fn write(term: &Term) -> String {
    Printer::new().write(term)
}

/// On one line as `~0tp`, or with `{:#}` at 80 columns as `~tp`.
impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line_length = if f.alternate() { 80 } else { 0 };
        f.write_str(&Printer::new().unicode(true).line_length(line_length).print(self))
    }
}
