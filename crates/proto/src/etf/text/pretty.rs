//! Breaking one line into several, as `io_lib_pretty` of OTP's stdlib does for `~p`.
//!
//! The rules, in short: what fits on the rest of the line stays in one piece. Elements follow one another on a line as long as
//! they are atomic and fit; every other element has a line of its own. The elements of a tuple whose first is an atom are
//! indented behind that atom, or by 4 columns, or by 1, whichever is the first that does not push anything beyond
//! half of the line: that is found by a trial run, for the whole term at once. OTP's own corner cases (the width of a line so
//! far is not counted alike everywhere) are kept, because the result is to be the same to the character.

use super::flat::{Flat, Kind, Part};

/// The most columns of indentation in one output. Where every element is indented behind its container's, the output grows
/// with the square of the nesting; once this much is spent, which no text for a reader ever is, lines begin in column 1.
pub const MAX_INDENTATION: usize = 16 << 20;

/// Breaks the line of `flat` for output that begins in `column` (from 1) of a line of `line_length` columns.
pub(super) fn pretty(flat: Flat, column: usize, line_length: usize) -> String {
    let Some(root) = flat.parts.first() else { return flat.text };
    let line_length = i64::try_from(line_length).unwrap_or(i64::MAX / 4).min(i64::MAX / 4);
    let column = i64::try_from(column).unwrap_or(i64::MAX / 4).clamp(1, line_length.max(1));
    let len = root.len as i64;
    if line_length == 0 || len < line_length - column || matches!(root.kind, Kind::Atomic) {
        return flat.text;
    }
    let walk = |tag_indent, trial| Walk {
        flat: &flat,
        line_length,
        max_chars: len,
        tag_indent,
        trial,
        out: String::new(),
        indentation: MAX_INDENTATION,
        stack: Vec::new(),
    };
    let tag_indent =
        [BEHIND_TAG, 4].into_iter().find(|&indent| walk(indent, true).run(column).is_some()).unwrap_or(1);
    let mut walk = walk(tag_indent, false);
    walk.out.reserve(flat.text.len() + flat.text.len() / 4);
    match walk.run(column) {
        Some(()) => walk.out,
        // Only a trial gives up.
        None => flat.text,
    }
}

/// `tag_indent`: the elements of a tagged tuple stand behind its tag.
const BEHIND_TAG: i64 = -1;

/// Something does not fit with this `tag_indent`.
type Fits = Option<()>;

/// Where on the page a part begins.
#[derive(Clone, Copy)]
struct At {
    /// The column.
    column: i64,
    /// The spaces before further lines.
    indent: i64,
    /// How many closing brackets follow the last line of the part.
    last_depth: i64,
    /// What OTP counts as the characters of this line so far.
    width: i64,
}

/// The elements of a container that are still to be written.
struct Rest {
    /// The part that is next.
    part: usize,
    /// The part after the container.
    end: usize,
    /// What the last of them is.
    tail: bool,
    /// The column where elements begin.
    first_column: i64,
    /// `column`: where the next element would continue the line.
    at: At,
    of: Of,
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Of {
    Elements,
    Pairs,
    Fields,
}

enum Todo {
    Put(&'static str),
    Rest(Rest),
    /// The value of a pair that does not fit on the line of its key.
    Value(usize, At),
}

struct Walk<'a> {
    flat: &'a Flat,
    line_length: i64,
    max_chars: i64,
    tag_indent: i64,
    /// Only find out whether `tag_indent` is good.
    trial: bool,
    out: String,
    indentation: usize,
    stack: Vec<Todo>,
}

impl Walk<'_> {
    fn run(&mut self, column: i64) -> Fits {
        self.part(0, At { column, indent: column - 1, last_depth: 0, width: 0 })?;
        while let Some(todo) = self.stack.pop() {
            match todo {
                Todo::Put(text) => self.put(text),
                Todo::Rest(rest) => self.rest(rest)?,
                Todo::Value(part, at) => {
                    self.put(" =>");
                    self.new_line(at.indent);
                    self.part(part, at)?;
                }
            }
        }
        Some(())
    }

    /// One part, broken if need be.
    fn part(&mut self, index: usize, at: At) -> Fits {
        let part = self.get(index)?;
        if self.fits(part, at) || part.kind == Kind::Atomic {
            self.put_flat(part);
            return Some(());
        }
        let first = index + 1;
        match part.kind {
            Kind::Atomic => {}
            Kind::Binary => self.binary(part, at),
            Kind::TaggedTuple => {
                self.open("{", "}");
                return self.tagged(first, part.next, At { width: at.width + 1, ..at });
            }
            Kind::Tuple | Kind::List | Kind::ImproperList => {
                if part.kind == Kind::Tuple {
                    self.open("{", "}");
                } else {
                    self.open("[", "]");
                }
                let at = At { column: at.column + 1, indent: at.indent + 1, width: at.width + 1, ..at };
                return self.elements(first, part.next, part.kind == Kind::ImproperList, at);
            }
            Kind::Map => {
                self.open("#{", "}");
                let width = at.width + if self.trial { 2 } else { 1 };
                let at = At { column: at.column + 2, indent: at.indent + 2, width, ..at };
                return self.pairs(first, part.next, at);
            }
            Kind::Record => return self.record(part, first, at),
            // These stand only in maps and records, which call `pair` and `field`.
            Kind::Pair => drop(self.pair(index, at)?),
            Kind::Field => drop(self.field(index, at)?),
        }
        Some(())
    }

    /// The elements of a tuple whose first, the tag, is an atom.
    fn tagged(&mut self, tag: usize, end: usize, at: At) -> Fits {
        let part = self.get(tag)?;
        let len = part.len as i64;
        let behind = at.column + len + 2;
        self.put_flat(part);
        if self.tag_indent > 0 && len + 2 > self.tag_indent {
            let first_column = at.column + self.tag_indent;
            self.must_leave_room(first_column, false)?;
            let at = At { column: behind, indent: at.indent + self.tag_indent, width: at.width + len, ..at };
            self.push(Rest { part: part.next, end, tail: false, first_column, at, of: Of::Elements });
            Some(())
        } else {
            self.must_leave_room(behind, true)?;
            self.put(",");
            let at = At { column: behind, indent: at.indent + len + 2, width: at.width + len + 1, ..at };
            self.elements(part.next, end, false, at)
        }
    }

    /// In a trial: gives up if an indentation leaves too little of the line.
    fn must_leave_room(&self, column: i64, behind_tag: bool) -> Fits {
        let room = self.max_chars + column;
        let enough = if behind_tag {
            room < self.line_length || column < self.line_length / 2
        } else {
            room <= self.line_length || column <= self.line_length / 2
        };
        (!self.trial || enough).then_some(())
    }

    /// The first element, and then the others.
    fn elements(&mut self, first: usize, end: usize, tail: bool, at: At) -> Fits {
        let part = self.get(first)?;
        let here = At { last_depth: self.last_depth(part, end, tail, at), ..at };
        let width = self.element_width(part, here);
        let after = At { column: at.column + width, width: at.width + width, ..at };
        self.push(Rest { part: part.next, end, tail, first_column: at.column, at: after, of: Of::Elements });
        self.part(first, here)
    }

    fn pairs(&mut self, first: usize, end: usize, at: At) -> Fits {
        let part = self.get(first)?;
        let here = At { last_depth: self.last_depth(part, end, false, at), ..at };
        let width = self.item_width(first, part, here);
        let line = if self.trial { at.width + width } else { width };
        let after = At { column: at.column + width, width: line, ..at };
        self.push(Rest {
            part: part.next,
            end,
            tail: false,
            first_column: at.column,
            at: after,
            of: Of::Pairs,
        });
        self.pair(first, here)
    }

    fn record(&mut self, part: Part, first: usize, at: At) -> Fits {
        let flat: &Flat = self.flat;
        let name_end = if first < part.next { self.get(first)?.start - 1 } else { part.end - 2 };
        let name = flat.text.get(part.start..name_end).unwrap_or_default();
        self.put(name);
        self.open("{", "}");
        if first >= part.next {
            return Some(());
        }
        let len = name.chars().count() as i64;
        let at = At { width: at.width + len + 1, ..at };
        let (at, broken) = self.record_indent(len + 1, at)?;
        if broken {
            self.new_line(at.indent);
        }
        let field = self.get(first)?;
        let here = At { last_depth: self.last_depth(field, part.next, false, at), ..at };
        let width = self.item_width(first, field, here);
        let after = At { column: at.column + width, width: at.width + width, ..at };
        let (part, end, first_column) = (field.next, part.next, at.column);
        self.push(Rest { part, end, tail: false, first_column, at: after, of: Of::Fields });
        self.field(first, here)
    }

    /// Where what follows `len` characters of a record or field name begins, and whether that is a new line.
    fn record_indent(&self, len: i64, at: At) -> Option<(At, bool)> {
        let broken = self.tag_indent > 0 && len > self.tag_indent;
        let by = if broken { self.tag_indent } else { len };
        let column = at.column + by;
        self.must_leave_room(column, false)?;
        let width = if broken { 0 } else { at.width };
        Some((At { column, indent: at.indent + by, width, ..at }, broken))
    }

    /// The second and further elements, pairs or fields: as many as the line takes, then one that is broken or begins a line.
    fn rest(&mut self, mut rest: Rest) -> Fits {
        while rest.part < rest.end {
            let index = rest.part;
            let part = self.get(index)?;
            let len = part.len as i64;
            let at = rest.at;
            if rest.tail && part.next == rest.end {
                return self.improper_tail(index, part, &rest);
            }
            let last_depth = self.last_depth(part, rest.end, rest.tail, at);
            // After the last comes at least one bracket, after the others a comma.
            let after = last_depth.max(1);
            if len + 1 + after < self.line_length - at.column
                && at.width + len + 1 + after <= self.max_chars
                && self.is_atomic(index, part, rest.of)
            {
                self.put(",");
                self.put_flat(part);
                rest.at.column += len + 1;
                rest.at.width += len + 1;
                rest.part = part.next;
                continue;
            }
            self.put(",");
            self.new_line(at.indent);
            let here = At { column: rest.first_column, last_depth, width: 0, ..at };
            let width = match rest.of {
                Of::Elements => self.element_width(part, here),
                Of::Pairs | Of::Fields => self.item_width(index, part, here),
            };
            rest.at.column = rest.first_column + width;
            rest.at.width = width;
            rest.part = part.next;
            let of = rest.of;
            self.push(rest);
            return match of {
                Of::Elements => self.part(index, here),
                Of::Pairs => self.pair(index, here),
                Of::Fields => self.field(index, here),
            };
        }
        Some(())
    }

    fn improper_tail(&mut self, index: usize, part: Part, rest: &Rest) -> Fits {
        let at = rest.at;
        let len = part.len as i64;
        let last_depth = at.last_depth + 1;
        self.put("|");
        if len + 1 + last_depth < self.line_length - at.column
            && len + 1 + at.width + last_depth <= self.max_chars
            && part.kind == Kind::Atomic
        {
            self.put_flat(part);
            return Some(());
        }
        self.new_line(at.indent);
        let column = if self.trial { at.column } else { rest.first_column };
        self.part(index, At { column, last_depth, width: 0, ..at })
    }

    fn pair(&mut self, index: usize, at: At) -> Fits {
        let part = self.get(index)?;
        if self.fits(part, at) {
            self.put_flat(part);
            return Some(());
        }
        let by = if self.tag_indent > 0 { self.tag_indent } else { 4 };
        let key = index + 1;
        let value = self.get(key)?.next;
        let below = At { column: at.column + by, indent: at.indent + by, width: 0, ..at };
        self.stack.push(Todo::Value(value, below));
        self.part(key, at)
    }

    fn field(&mut self, index: usize, at: At) -> Fits {
        let part = self.get(index)?;
        if self.fits(part, at) {
            self.put_flat(part);
            return Some(());
        }
        let flat: &Flat = self.flat;
        let value = self.get(index + 1)?;
        let name = flat.text.get(part.start..value.start - 3).unwrap_or_default();
        let len = name.chars().count() as i64 + 3;
        let (at, broken) = self.record_indent(len, At { width: at.width + len, ..at })?;
        self.put(name);
        if broken {
            self.put(" =");
            self.new_line(at.indent);
        } else {
            self.put(" = ");
        }
        self.part(index + 1, at)
    }

    /// `<<1,2,3>>`, broken after commas.
    fn binary(&mut self, part: Part, at: At) {
        if self.trial {
            return;
        }
        let flat: &Flat = self.flat;
        let numbers = flat.text.get(part.start + 2..part.end - 2).unwrap_or_default();
        let room = (self.line_length - (at.column + 2)).min(self.max_chars - 4 - at.width) - at.last_depth;
        let room = room.max(8);
        let mut left = room;
        self.put("<<");
        for number in numbers.split_inclusive(',') {
            let len = number.len() as i64;
            if len > left {
                self.new_line(at.indent + 2);
                left = room;
            }
            self.put(number);
            left -= len;
        }
        self.put(">>");
    }

    fn fits(&self, part: Part, at: At) -> bool {
        let len = part.len as i64;
        len < self.line_length - at.column - at.last_depth && len + at.width + at.last_depth <= self.max_chars
    }

    /// How far an element moves the column: a whole line unless it is atomic and fits, so that nothing follows it there.
    fn element_width(&self, part: Part, at: At) -> i64 {
        if self.fits(part, at) && part.kind == Kind::Atomic { part.len as i64 } else { self.line_length }
    }

    /// The same for a pair or a field.
    fn item_width(&self, index: usize, part: Part, at: At) -> i64 {
        if self.fits(part, at) && self.is_atomic(index, part, Of::Pairs) {
            part.len as i64
        } else {
            self.line_length
        }
    }

    /// Whether an element is atomic, or all parts of a pair or field are.
    fn is_atomic(&self, index: usize, part: Part, of: Of) -> bool {
        match of {
            Of::Elements => part.kind == Kind::Atomic,
            Of::Pairs | Of::Fields => self
                .flat
                .parts
                .get(index + 1..part.next)
                .is_some_and(|inner| inner.iter().all(|part| part.kind == Kind::Atomic)),
        }
    }

    /// The closing brackets after an element: none unless it is the last.
    fn last_depth(&self, part: Part, end: usize, tail: bool, at: At) -> i64 {
        let last = part.next >= end || (tail && self.get(part.next).is_none_or(|next| next.next >= end));
        if last { at.last_depth + 1 } else { 0 }
    }

    fn get(&self, index: usize) -> Option<Part> {
        self.flat.parts.get(index).copied()
    }

    fn push(&mut self, rest: Rest) {
        self.stack.push(Todo::Rest(rest));
    }

    fn open(&mut self, open: &'static str, close: &'static str) {
        self.put(open);
        self.stack.push(Todo::Put(close));
    }

    fn put(&mut self, text: &str) {
        if !self.trial {
            self.out.push_str(text);
        }
    }

    fn put_flat(&mut self, part: Part) {
        let flat: &Flat = self.flat;
        self.put(flat.text.get(part.start..part.end).unwrap_or_default());
    }

    fn new_line(&mut self, indent: i64) {
        if self.trial {
            return;
        }
        let spaces = usize::try_from(indent).unwrap_or(0).min(self.indentation);
        self.indentation -= spaces;
        self.out.push('\n');
        self.out.extend(core::iter::repeat_n(' ', spaces));
    }
}

#[cfg(test)]
mod tests {
    use super::MAX_INDENTATION;
    use crate::Limits;
    use crate::etf::text::{Printer, parse_erlang};

    #[test]
    fn nesting_takes_no_stack_and_the_output_is_bounded() {
        let deep = format!("{}1{}", "{a,".repeat(50_000), "}".repeat(50_000));
        let term = parse_erlang(&deep, &Limits::default()).unwrap();
        let printed = Printer::new().print(&term);
        assert!(printed.len() <= MAX_INDENTATION + 2 * deep.len(), "{}", printed.len());
        assert_eq!(parse_erlang(&printed, &Limits::default()).unwrap(), term);
    }
}
