//! Terms as Elixir's `inspect/2` prints them.

use core::slice;
use std::collections::BTreeMap;

use super::algebra::Document;
use super::number::{DecimalWork, write_float};
use crate::etf::{Atom, Term};

/// How terms print in Elixir syntax.
#[derive(Clone, Debug)]
pub(super) struct ElixirStyle<'a> {
    pub(super) node: Option<&'a Atom>,
    /// `'abc'` instead of `~c"abc"`.
    pub(super) single_quoted_charlists: bool,
    pub(super) strings: bool,
}

/// The document for a term.
pub(super) fn document(term: &Term, style: &ElixirStyle<'_>) -> Document {
    let mut writer = Writer {
        document: Document::default(),
        style,
        nodes: BTreeMap::new(),
        work: DecimalWork::default(),
        stack: Vec::new(),
    };
    writer.run(term);
    writer.document
}

/// The prefix of the atoms that are aliases, and of modules of Elixir.
const ELIXIR: &str = "Elixir.";

enum Todo<'a> {
    Elements {
        rest: slice::Iter<'a, Term>,
        tail: Option<&'a Term>,
        layout: Layout,
    },
    Tail(Layout),
    Pairs {
        rest: slice::Iter<'a, (Term, Term)>,
        /// `key: value` instead of `key => value`.
        keyword: bool,
        /// Without the key `__struct__`.
        is_struct: bool,
        first: bool,
    },
    Keywords(slice::Iter<'a, Term>),
    Value(&'a Term),
}

/// How the elements between two brackets are laid out.
#[derive(Clone, Copy)]
struct Layout {
    /// As many as fit on each line, or each on a line of its own.
    flexible: bool,
    close: &'static str,
}

struct Writer<'a> {
    document: Document,
    style: &'a ElixirStyle<'a>,
    /// The first numbers in the identifiers of other nodes.
    nodes: BTreeMap<&'a Atom, usize>,
    work: DecimalWork,
    stack: Vec<Todo<'a>>,
}

impl<'a> Writer<'a> {
    fn run(&mut self, term: &'a Term) {
        self.term(term);
        while let Some(todo) = self.stack.pop() {
            match todo {
                Todo::Elements { mut rest, tail, layout } => match (rest.next(), tail) {
                    (Some(element), _) => {
                        self.document.text(",");
                        self.document.line_break(layout.flexible, true);
                        self.stack.push(Todo::Elements { rest, tail, layout });
                        self.term(element);
                    }
                    (None, Some(tail)) => {
                        self.document.text(" |");
                        self.document.line_break(layout.flexible, true);
                        self.stack.push(Todo::Tail(layout));
                        self.term(tail);
                    }
                    (None, None) => self.close(layout),
                },
                Todo::Tail(layout) => self.close(layout),
                Todo::Keywords(mut rest) => match rest.next() {
                    Some(Term::Tuple(pair)) => {
                        self.separate();
                        self.stack.push(Todo::Keywords(rest));
                        self.keyword(pair);
                    }
                    _ => self.close(Layout { flexible: false, close: "]" }),
                },
                Todo::Pairs { mut rest, keyword, is_struct, first } => match rest.next() {
                    // The name of a struct stands before its brace.
                    Some((key, _)) if is_struct && is_struct_key(key) => {
                        self.stack.push(Todo::Pairs { rest, keyword, is_struct, first });
                    }
                    Some((key, value)) => {
                        if !first {
                            self.separate();
                        }
                        self.stack.push(Todo::Pairs { rest, keyword, is_struct, first: false });
                        match key {
                            Term::Atom(key) if keyword => {
                                self.document.write(|text| write_key(text, key.as_str()));
                                self.term(value);
                            }
                            key => {
                                self.stack.push(Todo::Value(value));
                                self.term(key);
                            }
                        }
                    }
                    None => self.close(Layout { flexible: false, close: "}" }),
                },
                Todo::Value(value) => {
                    self.document.text(" => ");
                    self.term(value);
                }
            }
        }
    }

    fn term(&mut self, term: &'a Term) {
        match term {
            Term::Tuple(tuple) => {
                let mut rest = tuple.iter();
                let Some(first) = rest.next() else { return self.document.text("{}") };
                self.open("{", true);
                self.stack.push(Todo::Elements {
                    rest,
                    tail: None,
                    layout: Layout { flexible: true, close: "}" },
                });
                self.term(first);
            }
            Term::List(list) => self.list(list),
            Term::ImproperList(list) => {
                let mut rest = list.elements.iter();
                let Some(first) = rest.next() else { return self.term(&list.tail) };
                let flexible =
                    list.elements.iter().all(|element| self.is_simple(element)) && self.is_simple(&list.tail);
                self.open("[", flexible);
                self.stack.push(Todo::Elements {
                    rest,
                    tail: Some(&list.tail),
                    layout: Layout { flexible, close: "]" },
                });
                self.term(first);
            }
            Term::Map(map) => self.map(map),
            Term::Binary(bytes) => match printable(bytes).filter(|_| self.style.strings) {
                Some(string) => self.document.write(|text| write_quoted(text, string.chars(), '"')),
                None => self.bits(bytes, 8),
            },
            Term::BitString(bits) => self.bits(&bits.bytes, bits.last_bits),
            _ => self.leaf(term),
        }
    }

    fn list(&mut self, list: &'a [Term]) {
        let mut rest = list.iter();
        let Some(first) = rest.next() else { return self.document.text("[]") };
        if let Some(characters) = self.charlist(list) {
            let single = self.style.single_quoted_charlists;
            return self.document.write(|text| {
                text.push_str(if single { "" } else { "~c" });
                write_quoted(text, characters, if single { '\'' } else { '"' });
            });
        }
        if let Term::Tuple(pair) = first
            && list.iter().all(is_keyword)
        {
            self.open("[", false);
            self.stack.push(Todo::Keywords(rest));
            return self.keyword(pair);
        }
        let flexible = list.iter().all(|element| self.is_simple(element));
        self.open("[", flexible);
        self.stack.push(Todo::Elements { rest, tail: None, layout: Layout { flexible, close: "]" } });
        self.term(first);
    }

    fn map(&mut self, map: &'a [(Term, Term)]) {
        let keyword = map.iter().all(|(key, _)| is_key(key));
        let name = map.iter().find_map(|(key, value)| match value {
            Term::Atom(name) if keyword && is_struct_key(key) && is_module(name.as_str()) => Some(name),
            _ => None,
        });
        let mut open = "%".to_owned();
        if let Some(name) = name {
            write_atom(&mut open, name.as_str());
        }
        open.push('{');
        if map.len() == usize::from(name.is_some()) {
            open.push('}');
            return self.document.text(&open);
        }
        self.open(&open, false);
        self.stack.push(Todo::Pairs { rest: map.iter(), keyword, is_struct: name.is_some(), first: true });
    }

    /// `key: value`, of a tuple of two.
    fn keyword(&mut self, pair: &'a [Term]) {
        if let [Term::Atom(key), value] = pair {
            self.document.write(|text| write_key(text, key.as_str()));
            self.term(value);
        }
    }

    fn leaf(&mut self, term: &'a Term) {
        match term {
            Term::Atom(atom) => self.document.write(|text| write_atom(text, atom.as_str())),
            Term::Integer(integer) => self.document.text(&integer.to_string()),
            Term::BigInteger(integer) => {
                let work = &mut self.work;
                self.document.write(|text| work.write(text, integer, "0x"));
            }
            Term::Float(float) if float.abs() >= 1.0 && float.abs() < 1e16 && float.fract() == 0.0 => {
                self.document.text(&format!("{float:.1}"));
            }
            Term::Float(float) => self.document.write(|text| write_float(text, *float)),
            Term::Pid(pid) => {
                let node = self.number(&pid.node);
                self.document.text(&format!("#PID<{node}.{}.{}>", pid.id, pid.serial));
            }
            Term::Port(port) => {
                let node = self.number(&port.node);
                self.document.text(&format!("#Port<{node}.{}>", port.id));
            }
            Term::Reference(reference) => {
                let node = self.number(&reference.node);
                self.document.write(|text| {
                    text.push_str(&format!("#Reference<{node}"));
                    reference.words().iter().rev().for_each(|word| text.push_str(&format!(".{word}")));
                    text.push('>');
                });
            }
            Term::ExportFun(fun) => self.document.write(|text| {
                text.push('&');
                let module = fun.module.as_str();
                if OPERATORS.contains(&module) {
                    // The dot after it would be read as part of the operator.
                    text.push(':');
                    write_quoted(text, module.chars(), '"');
                } else {
                    write_atom(text, module);
                }
                text.push('.');
                write_function(text, fun.function.as_str());
                text.push_str(&format!("/{}", fun.arity));
            }),
            Term::Fun(fun) => self.document.write(|text| {
                text.push_str(&format!("#Function<{}.{}/{} in ", fun.old_index, fun.old_uniq, fun.arity));
                write_atom(text, fun.module.as_str());
                text.push('>');
            }),
            Term::Record(record) => self.document.write(|text| {
                text.push_str("#Record<");
                write_atom(text, record.module.as_str());
                text.push('.');
                write_function(text, record.name.as_str());
                text.push_str(&format!("/{}>", record.fields.len()));
            }),
            Term::Local(bytes) => self.document.text(&format!("#Local<{}>", bytes.len())),
            // Containers are dealt with in `term`.
            _ => {}
        }
    }

    fn bits(&mut self, bytes: &[u8], last_bits: u8) {
        let Some((last, init)) = bytes.split_last() else { return self.document.text("<<>>") };
        self.document.begin_group();
        self.document.text("<<");
        self.document.begin_nest(2);
        for byte in init {
            self.document.text(&format!("{byte},"));
            self.document.line_break(true, true);
        }
        if last_bits < 8 {
            self.document.text(&format!("{}::size({last_bits})", last >> (8 - last_bits)));
        } else {
            self.document.text(&last.to_string());
        }
        self.document.end_nest();
        self.document.text(">>");
        self.document.end_group();
    }

    fn open(&mut self, open: &str, flexible: bool) {
        self.document.begin_group();
        if flexible {
            self.document.text(open);
            self.document.begin_nest(1);
        } else {
            self.document.begin_nest(2);
            self.document.text(open);
            self.document.line_break(false, false);
        }
    }

    fn close(&mut self, layout: Layout) {
        self.document.end_nest();
        if !layout.flexible {
            self.document.line_break(false, false);
        }
        self.document.text(layout.close);
        self.document.end_group();
    }

    fn separate(&mut self) {
        self.document.text(",");
        self.document.line_break(false, true);
    }

    /// The characters of a list that prints as text: ASCII only.
    fn charlist(&self, list: &'a [Term]) -> Option<impl Iterator<Item = char> + use<'a>> {
        fn character(element: &Term) -> Option<char> {
            match element {
                Term::Integer(c @ (0x07..=0x0D | 0x1B | 0x20..=0x7E)) => char::from_u32(*c as u32),
                _ => None,
            }
        }
        let all =
            self.style.strings && !list.is_empty() && list.iter().all(|element| character(element).is_some());
        all.then(|| list.iter().filter_map(character))
    }

    /// Whether a term prints as one piece of text.
    fn is_simple(&self, term: &'a Term) -> bool {
        match term {
            Term::Tuple(elements) => elements.is_empty(),
            Term::List(elements) => elements.is_empty() || self.charlist(elements).is_some(),
            Term::Map(pairs) => pairs.is_empty(),
            Term::ImproperList(_) | Term::BitString(_) => false,
            Term::Binary(bytes) => bytes.is_empty() || (self.style.strings && printable(bytes).is_some()),
            _ => true,
        }
    }

    /// The first number of an identifier: 0 for those of the style's node, else nodes are numbered as they appear.
    fn number(&mut self, node: &'a Atom) -> usize {
        if self.style.node == Some(node) {
            return 0;
        }
        let next = self.nodes.len() + 1;
        *self.nodes.entry(node).or_insert(next)
    }
}

/// The text of a binary that prints as a string: `String.printable?/1`.
fn printable(bytes: &[u8]) -> Option<&str> {
    core::str::from_utf8(bytes).ok().filter(|text| text.chars().all(is_printable))
}

fn is_printable(c: char) -> bool {
    matches!(
        c,
        '\u{07}'..='\u{0D}' | '\u{1B}' | ' '..='~' | '\u{7F}' | '\u{A0}'..='\u{D7FF}' | '\u{E000}'..='\u{FFFD}'
            | '\u{10000}'..
    )
}

/// Whether an element can be written `key: value`.
fn is_keyword(element: &Term) -> bool {
    matches!(element, Term::Tuple(pair) if pair.len() == 2 && pair.first().is_some_and(is_key))
}

fn is_key(key: &Term) -> bool {
    matches!(key, Term::Atom(key) if !key.as_str().starts_with(ELIXIR))
}

fn is_struct_key(key: &Term) -> bool {
    matches!(key, Term::Atom(key) if *key == "__struct__")
}

fn is_module(atom: &str) -> bool {
    atom.strip_prefix(ELIXIR).is_some_and(is_alias)
}

/// `:ok`, `:"a b"`, `nil`, `Foo.Bar`.
fn write_atom(out: &mut String, atom: &str) {
    if matches!(atom, "nil" | "true" | "false") {
        return out.push_str(atom);
    }
    if atom == "Elixir" || is_module(atom) {
        // `Elixir.Foo` in source is `Foo`, so that what begins so twice keeps both.
        let short = atom.strip_prefix(ELIXIR).filter(|rest| *rest != "Elixir" && !rest.starts_with(ELIXIR));
        return out.push_str(short.unwrap_or(atom));
    }
    out.push(':');
    write_name(out, atom);
}

/// `key: `, `"a b": `.
fn write_key(out: &mut String, key: &str) {
    if key == "Elixir" {
        out.push_str("\"Elixir\"");
    } else {
        write_name(out, key);
    }
    out.push_str(": ");
}

/// A function after its module and a dot.
fn write_function(out: &mut String, function: &str) {
    if is_identifier(function) && !function.starts_with(|c: char| c.is_ascii_uppercase()) {
        out.push_str(function);
    } else {
        write_quoted(out, function.chars(), '"');
    }
}

fn write_name(out: &mut String, name: &str) {
    if is_identifier(name) || OPERATORS.contains(&name) {
        out.push_str(name);
    } else {
        write_quoted(out, name.chars(), '"');
    }
}

/// The operators and other signs that are atoms without quotes, in Elixir 1.14 and 1.20 alike.
pub(super) const OPERATORS: [&str; 48] = [
    "!", "!=", "!==", "%", "%{}", "&", "&&", "&&&", "*", "**", "+", "++", "+++", "-", "--", "---", "->", ".",
    "..", "...", "..//", "/", "<", "<-", "<<<", "<<>>", "<<~", "<=", "<>", "<~", "<~>", "=", "==", "===",
    "=~", ">", ">=", ">>>", "@", "\\\\", "^", "{}", "|", "|>", "||", "|||", "~>", "~>>",
];

/// `Foo.Bar`: parts that begin with a capital letter.
pub(super) fn is_alias(text: &str) -> bool {
    text.split('.').all(|part| {
        part.starts_with(|c: char| c.is_ascii_uppercase())
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    })
}

/// A letter or underscore, then letters, digits, underscores and `@`, then perhaps `?` or `!`. Letters beyond Latin-1 are left to
/// quotes, because which of them Elixir takes depends on its release.
fn is_identifier(text: &str) -> bool {
    let text = text.strip_suffix(['?', '!']).unwrap_or(text);
    let mut chars = text.chars();
    chars.next().is_some_and(starts_identifier) && chars.all(continues_identifier)
}

pub(super) fn starts_identifier(c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_' || matches!(c, 'À'..='Ö' | 'Ø'..='ö' | 'ø'..='ÿ')
}

pub(super) fn continues_identifier(c: char) -> bool {
    starts_identifier(c) || c.is_ascii_digit() || matches!(c, '@' | '·')
}

fn write_quoted(out: &mut String, characters: impl Iterator<Item = char>, quote: char) {
    out.push(quote);
    let mut characters = characters.peekable();
    while let Some(c) = characters.next() {
        match c {
            '\u{00}' => out.push_str("\\0"),
            '\u{07}' => out.push_str("\\a"),
            '\u{08}' => out.push_str("\\b"),
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\u{0B}' => out.push_str("\\v"),
            '\u{0C}' => out.push_str("\\f"),
            '\r' => out.push_str("\\r"),
            '\u{1B}' => out.push_str("\\e"),
            '\u{7F}' => out.push_str("\\d"),
            '\\' => out.push_str("\\\\"),
            '#' if characters.peek() == Some(&'{') => out.push_str("\\#"),
            // Characters that nobody sees, or that reorder what one sees.
            '\u{A0}'
            | '\u{200B}'..='\u{200F}'
            | '\u{2028}'..='\u{202E}'
            | '\u{2060}'..='\u{2069}'
            | '\u{FEFF}' => {
                out.push_str(&format!("\\u{:04X}", u32::from(c)));
            }
            c if c == quote => out.extend(['\\', c]),
            c if is_printable(c) => out.push(c),
            c if u32::from(c) < 0x80 => out.push_str(&format!("\\x{:02X}", u32::from(c))),
            // Elixir itself writes these with \x, and cannot read that.
            c if u32::from(c) < 0x1_0000 => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => out.push_str(&format!("\\u{{{:X}}}", u32::from(c))),
        }
    }
    out.push(quote);
}

#[cfg(test)]
mod tests;
