//! `Debug` of terms, in Erlang's notation on one line; for exact printing see the text form.

use core::fmt;

use super::atom::AtomRef;
use super::walk::{Shape, Walk};
use super::{List, Map, Term, Tuple, View};

impl fmt::Debug for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_term(self, f)
    }
}

impl fmt::Debug for View<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_term(*self, f)
    }
}

impl fmt::Debug for Tuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl fmt::Debug for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl fmt::Debug for Map {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter().map(|(key, value)| (key, value))).finish()
    }
}

/// What is still to be written.
enum Step<'a, T: Walk<'a>> {
    Term(T),
    /// Elements, how many were written, whether they are keys and values, and what closes them.
    Items(T::Items, usize, bool, &'static str),
    Tail(T),
    Text(&'static str),
}

fn write_term<'a, T: Walk<'a>>(term: T, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut steps = vec![Step::Term(term)];
    while let Some(step) = steps.pop() {
        match step {
            Step::Text(text) => f.write_str(text)?,
            Step::Tail(tail) => {
                f.write_str("|")?;
                steps.push(Step::Term(tail));
            }
            Step::Items(mut items, written, pairs, close) => match items.next() {
                Some(item) => {
                    match written {
                        0 => {}
                        n if pairs && n % 2 == 1 => f.write_str(" => ")?,
                        _ => f.write_str(",")?,
                    }
                    steps.push(Step::Items(items, written + 1, pairs, close));
                    steps.push(Step::Term(item));
                }
                None => f.write_str(close)?,
            },
            Step::Term(term) => write_level(term.shape(), f, &mut steps)?,
        }
    }
    Ok(())
}

fn write_level<'a, T: Walk<'a>>(
    shape: Shape<'a, T>,
    f: &mut fmt::Formatter<'_>,
    steps: &mut Vec<Step<'a, T>>,
) -> fmt::Result {
    match shape {
        Shape::Integer(value) => write!(f, "{value}"),
        Shape::BigInteger(negative, magnitude) => match Term::from_magnitude(negative, magnitude) {
            Term::BigInteger(value) => write!(f, "{value:?}"),
            _ => Ok(()),
        },
        Shape::Float(value) => write!(f, "{value:?}"),
        Shape::Atom(atom) => write_atom(atom, f),
        Shape::Pid(pid) => {
            f.write_str("#Pid<")?;
            write_atom(pid.node, f)?;
            write!(f, ".{}.{}>", pid.id, pid.serial)
        }
        Shape::Port(port) => {
            f.write_str("#Port<")?;
            write_atom(port.node, f)?;
            write!(f, ".{}>", port.id)
        }
        Shape::Reference(reference) => {
            f.write_str("#Ref<")?;
            write_atom(reference.node, f)?;
            reference.words.iter().try_for_each(|word| write!(f, ".{word}"))?;
            f.write_str(">")
        }
        Shape::Bits(bytes, 8) => match core::str::from_utf8(bytes) {
            Ok(text) => write!(f, "<<{text:?}>>"),
            Err(_) => write!(f, "<<{}>>", bytes.escape_ascii()),
        },
        Shape::Bits(bytes, bits) => write!(f, "<<{}:{bits}>>", bytes.escape_ascii()),
        Shape::Tuple(_, items) => {
            steps.push(Step::Items(items, 0, false, "}"));
            f.write_str("{")
        }
        Shape::List(items, tail) => {
            steps.push(Step::Text("]"));
            steps.extend(tail.map(Step::Tail));
            steps.push(Step::Items(items, 0, false, ""));
            f.write_str("[")
        }
        Shape::Map(_, items) => {
            steps.push(Step::Items(items, 0, true, "}"));
            f.write_str("#{")
        }
        Shape::Fun(fun, items) => {
            steps.push(Step::Items(items, 0, false, ")>"));
            f.write_str("#Fun<")?;
            write_atom(fun.module, f)?;
            write!(f, ".{}.{}(", fun.index, fun.old_uniq)
        }
        Shape::ExportFun(module, function, arity) => {
            f.write_str("fun ")?;
            write_atom(module, f)?;
            f.write_str(":")?;
            write_atom(function, f)?;
            write!(f, "/{arity}")
        }
        Shape::Record(record, items) => {
            steps.push(Step::Items(items, 0, false, "}"));
            f.write_str("#")?;
            write_atom(record.module, f)?;
            f.write_str(":")?;
            write_atom(record.name, f)?;
            f.write_str("{")
        }
        Shape::Local(bytes) => write!(f, "#Local<{}>", bytes.escape_ascii()),
    }
}

fn write_atom(atom: AtomRef<'_>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let owned = atom.to_atom();
    let text = owned.as_str();
    let plain = text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '@');
    if plain { f.write_str(text) } else { write!(f, "'{}'", text.escape_default()) }
}
