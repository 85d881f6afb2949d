//! A term as one line of Erlang syntax, with an outline of where in it each part stands.
//!
//! This is the first half of both `~w` and `~p`. The outline is what `pretty` needs to know to break the line: it never looks
//! at the term again, only moves pieces of this text.

use core::slice;
use std::collections::BTreeMap;

use super::atom::{Charset, write_atom, write_quoted};
use super::number::{DecimalWork, write_float};
use crate::etf::{Atom, Reference, Term};

/// How the parts of a term are written.
#[derive(Clone, Debug)]
pub(super) struct Style {
    pub(super) charset: Charset,
    /// Lists and binaries that look like text are written as text.
    pub(super) strings: bool,
    /// The node whose identifiers begin with 0.
    pub(super) node: Option<Atom>,
}

/// What a part of the text is, as far as breaking lines goes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    /// Never broken; text, however long, and empty containers.
    Atomic,
    /// `<<1,2,3>>`, which may be broken after each comma.
    Binary,
    /// A tuple of at least two elements whose first is an atom.
    TaggedTuple,
    Tuple,
    List,
    /// The last part is the tail.
    ImproperList,
    Map,
    /// A key and a value.
    Pair,
    /// A native record; its parts are fields.
    Record,
    /// A name and one part, the value.
    Field,
}

/// A part of the text. Parts are in the order in which they begin, so the parts of a container follow it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    pub(super) kind: Kind,
    /// The index of the first part that is not inside of this one.
    pub(super) next: usize,
    /// Where it begins and ends in the text, in bytes.
    pub(super) start: usize,
    pub(super) end: usize,
    /// Its length in characters.
    pub(super) len: usize,
}

/// The single line and its outline.
#[derive(Debug, Default)]
pub(super) struct Flat {
    pub(super) text: String,
    pub(super) parts: Vec<Part>,
}

/// Writes a term as one line; the outline stays empty if it is not wanted.
pub(super) fn flatten(term: &Term, style: &Style, outline: bool) -> Flat {
    let mut writer = Writer {
        flat: Flat::default(),
        style,
        outline,
        counted: 0,
        chars: 0,
        nodes: BTreeMap::new(),
        work: DecimalWork::default(),
        stack: Vec::new(),
    };
    writer.run(term);
    writer.flat
}

/// What is left to do once a part is finished.
enum Todo<'a> {
    Elements { part: usize, rest: slice::Iter<'a, Term>, tail: Option<&'a Term>, close: char },
    Tail { part: usize, close: char },
    Pairs { part: usize, rest: slice::Iter<'a, (Term, Term)> },
    Value { part: usize, value: &'a Term },
    Fields { part: usize, rest: slice::Iter<'a, (Atom, Term)> },
    End { part: usize },
}

struct Writer<'a> {
    flat: Flat,
    style: &'a Style,
    outline: bool,
    /// The bytes of the text whose characters are counted in `chars`.
    counted: usize,
    chars: usize,
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
                Todo::Elements { part, mut rest, tail, close } => match (rest.next(), tail) {
                    (Some(element), _) => {
                        self.flat.text.push(',');
                        self.stack.push(Todo::Elements { part, rest, tail, close });
                        self.term(element);
                    }
                    (None, Some(tail)) => {
                        self.flat.text.push('|');
                        self.stack.push(Todo::Tail { part, close });
                        self.term(tail);
                    }
                    (None, None) => self.close(part, close),
                },
                Todo::Tail { part, close } => self.close(part, close),
                Todo::Pairs { part, mut rest } => match rest.next() {
                    Some(pair) => {
                        self.flat.text.push(',');
                        self.stack.push(Todo::Pairs { part, rest });
                        self.pair(pair);
                    }
                    None => self.close(part, '}'),
                },
                Todo::Value { part, value } => {
                    self.flat.text.push_str(" => ");
                    self.stack.push(Todo::End { part });
                    self.term(value);
                }
                Todo::Fields { part, mut rest } => match rest.next() {
                    Some(field) => {
                        self.flat.text.push(',');
                        self.stack.push(Todo::Fields { part, rest });
                        self.field(field);
                    }
                    None => self.close(part, '}'),
                },
                Todo::End { part } => self.end(part),
            }
        }
    }

    fn term(&mut self, term: &'a Term) {
        match term {
            Term::Tuple(tuple) => {
                let mut rest = tuple.iter();
                let Some(first) = rest.next() else { return self.atomic(|writer| writer.push_str("{}")) };
                let tagged = matches!(first, Term::Atom(_)) && tuple.len() > 1;
                let part = self.begin(if tagged { Kind::TaggedTuple } else { Kind::Tuple });
                self.flat.text.push('{');
                self.stack.push(Todo::Elements { part, rest, tail: None, close: '}' });
                self.term(first);
            }
            Term::List(list) => {
                let mut rest = list.iter();
                let Some(first) = rest.next() else { return self.atomic(|writer| writer.push_str("[]")) };
                if self.style.strings && list.iter().all(|element| self.character(element).is_some()) {
                    let style = self.style;
                    let characters = list.iter().filter_map(|element| match element {
                        Term::Integer(c) => u32::try_from(*c).ok(),
                        _ => None,
                    });
                    return self.atomic(|text| write_quoted(text, characters, '"', style.charset));
                }
                let part = self.begin(Kind::List);
                self.flat.text.push('[');
                self.stack.push(Todo::Elements { part, rest, tail: None, close: ']' });
                self.term(first);
            }
            Term::ImproperList(list) => {
                let mut rest = list.elements.iter();
                let Some(first) = rest.next() else { return self.term(&list.tail) };
                let part = self.begin(Kind::ImproperList);
                self.flat.text.push('[');
                self.stack.push(Todo::Elements { part, rest, tail: Some(&list.tail), close: ']' });
                self.term(first);
            }
            Term::Map(map) => {
                let mut rest = map.iter();
                let Some(first) = rest.next() else { return self.atomic(|text| text.push_str("#{}")) };
                let part = self.begin(Kind::Map);
                self.flat.text.push_str("#{");
                self.stack.push(Todo::Pairs { part, rest });
                self.pair(first);
            }
            Term::Record(record) => {
                let part = self.begin(Kind::Record);
                self.flat.text.push('#');
                write_atom(&mut self.flat.text, record.module.as_str(), self.style.charset);
                self.flat.text.push(':');
                write_atom(&mut self.flat.text, record.name.as_str(), self.style.charset);
                self.flat.text.push('{');
                let mut rest = record.fields.iter();
                match rest.next() {
                    Some(first) => {
                        self.stack.push(Todo::Fields { part, rest });
                        self.field(first);
                    }
                    None => self.close(part, '}'),
                }
            }
            Term::Binary(bytes) => self.bits(bytes, 8),
            Term::BitString(bits) => self.bits(&bits.bytes, bits.last_bits),
            _ => self.leaf(term),
        }
    }

    fn leaf(&mut self, term: &'a Term) {
        let charset = self.style.charset;
        match term {
            Term::Atom(atom) => self.atomic(|text| write_atom(text, atom.as_str(), charset)),
            Term::Integer(integer) => self.atomic(|text| text.push_str(&integer.to_string())),
            Term::BigInteger(integer) => {
                let part = self.begin(Kind::Atomic);
                self.work.write(&mut self.flat.text, integer, "16#");
                self.end(part);
            }
            Term::Float(float) => self.atomic(|text| write_float(text, *float)),
            Term::Pid(pid) => {
                let node = self.number(&pid.node);
                self.atomic(|text| text.push_str(&format!("<{node}.{}.{}>", pid.id, pid.serial)));
            }
            Term::Port(port) => {
                let node = self.number(&port.node);
                self.atomic(|text| text.push_str(&format!("#Port<{node}.{}>", port.id)));
            }
            Term::Reference(reference) => {
                let node = self.number(&reference.node);
                self.atomic(|text| write_reference(text, node, reference));
            }
            Term::ExportFun(fun) => self.atomic(|text| {
                text.push_str("fun ");
                write_atom(text, fun.module.as_str(), Charset::Latin1);
                text.push(':');
                write_atom(text, fun.function.as_str(), Charset::Latin1);
                text.push_str(&format!("/{}", fun.arity));
            }),
            Term::Fun(fun) => self.atomic(|text| {
                text.push_str("#Fun<");
                write_atom(text, fun.module.as_str(), Charset::Latin1);
                text.push_str(&format!(".{}.{}>", fun.old_index, fun.old_uniq));
            }),
            // Opaque outside of the node that encoded it, and no BEAM ever prints one.
            Term::Local(bytes) => self.atomic(|text| text.push_str(&format!("#Local<{}>", bytes.len()))),
            // Containers are dealt with in `term`.
            _ => {}
        }
    }

    fn bits(&mut self, bytes: &[u8], last_bits: u8) {
        let style = self.style;
        if bytes.is_empty() {
            return self.atomic(|text| text.push_str("<<>>"));
        }
        if style.strings && last_bits == 8 {
            match style.charset {
                Charset::Unicode => {
                    if let Ok(utf8) = core::str::from_utf8(bytes) {
                        if utf8.chars().all(|c| style.charset.is_printable(u32::from(c))) {
                            return self.atomic(|text| {
                                text.push_str("<<");
                                write_quoted(text, utf8.chars().map(u32::from), '"', style.charset);
                                text.push_str(if utf8.is_ascii() { ">>" } else { "/utf8>>" });
                            });
                        }
                        return self.numbers(bytes, last_bits);
                    }
                }
                Charset::Latin1 => {}
            }
            if bytes.iter().all(|&byte| Charset::Latin1.is_printable(u32::from(byte))) {
                return self.atomic(|text| {
                    text.push_str("<<");
                    write_quoted(text, bytes.iter().copied().map(u32::from), '"', style.charset);
                    text.push_str(">>");
                });
            }
        }
        self.numbers(bytes, last_bits);
    }

    fn numbers(&mut self, bytes: &[u8], last_bits: u8) {
        let part = self.begin(Kind::Binary);
        let text = &mut self.flat.text;
        text.push_str("<<");
        if let Some((last, init)) = bytes.split_last() {
            for byte in init {
                text.push_str(&byte.to_string());
                text.push(',');
            }
            if last_bits < 8 {
                text.push_str(&format!("{}:{last_bits}", last >> (8 - last_bits)));
            } else {
                text.push_str(&last.to_string());
            }
        }
        text.push_str(">>");
        self.end(part);
    }

    fn pair(&mut self, (key, value): &'a (Term, Term)) {
        let part = self.begin(Kind::Pair);
        self.stack.push(Todo::Value { part, value });
        self.term(key);
    }

    fn field(&mut self, (name, value): &'a (Atom, Term)) {
        let part = self.begin(Kind::Field);
        write_atom(&mut self.flat.text, name.as_str(), self.style.charset);
        self.flat.text.push_str(" = ");
        self.stack.push(Todo::End { part });
        self.term(value);
    }

    fn character(&self, term: &Term) -> Option<u32> {
        match term {
            Term::Integer(c) => u32::try_from(*c).ok().filter(|&c| self.style.charset.is_printable(c)),
            _ => None,
        }
    }

    /// The first number of an identifier: 0 for those of `Style::node`, else nodes are numbered as they appear.
    fn number(&mut self, node: &'a Atom) -> usize {
        if self.style.node.as_ref() == Some(node) {
            return 0;
        }
        let next = self.nodes.len() + 1;
        *self.nodes.entry(node).or_insert(next)
    }

    fn atomic(&mut self, write: impl FnOnce(&mut String)) {
        let part = self.begin(Kind::Atomic);
        write(&mut self.flat.text);
        self.end(part);
    }

    fn begin(&mut self, kind: Kind) -> usize {
        if !self.outline {
            return 0;
        }
        let len = self.count();
        let start = self.flat.text.len();
        self.flat.parts.push(Part { kind, next: 0, start, end: start, len });
        self.flat.parts.len() - 1
    }

    fn close(&mut self, part: usize, close: char) {
        self.flat.text.push(close);
        self.end(part);
    }

    fn end(&mut self, part: usize) {
        if !self.outline {
            return;
        }
        let (chars, end, next) = (self.count(), self.flat.text.len(), self.flat.parts.len());
        if let Some(part) = self.flat.parts.get_mut(part) {
            // Until now `len` was the number of characters before it.
            part.len = chars - part.len;
            part.end = end;
            part.next = next;
        }
    }

    /// The characters of the text so far.
    fn count(&mut self) -> usize {
        if let Some(new) = self.flat.text.get(self.counted..) {
            self.chars +=
                if new.is_ascii() { new.len() } else { new.chars().filter(|&c| !extends(c)).count() };
        }
        self.counted = self.flat.text.len();
        self.chars
    }
}

/// Whether a character joins the one before it: OTP counts those as one (`string:length/1`). The blocks of combining marks, joiners
/// and variation selectors; what joins only in the scripts of South Asia is counted by itself, and Hangul by the letter.
fn extends(c: char) -> bool {
    matches!(
        c,
        '\u{300}'..='\u{36F}'
            | '\u{483}'..='\u{489}'
            | '\u{591}'..='\u{5BD}'
            | '\u{610}'..='\u{61A}'
            | '\u{64B}'..='\u{65F}'
            | '\u{1AB0}'..='\u{1AFF}'
            | '\u{1DC0}'..='\u{1DFF}'
            | '\u{200C}'..='\u{200D}'
            | '\u{20D0}'..='\u{20FF}'
            | '\u{FE00}'..='\u{FE0F}'
            | '\u{FE20}'..='\u{FE2F}'
            | '\u{E0100}'..='\u{E01EF}'
    )
}

fn write_reference(text: &mut String, node: usize, reference: &Reference) {
    text.push_str(&format!("#Ref<{node}"));
    for word in reference.words().iter().rev() {
        text.push_str(&format!(".{word}"));
    }
    text.push('>');
}
