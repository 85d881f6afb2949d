//! What the readers of both syntaxes share: a cursor with positions, errors, numbers, the containers under construction.

use core::fmt;

use crate::Limits;
use crate::etf::{Atom, BigInteger, ImproperList, Map, Term, Tuple};

/// Text that is not the term, the terms or the call that it should be.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ParseError {
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// The offset in bytes.
    pub offset: usize,
    /// What is wrong there.
    pub problem: ParseProblem,
}

/// What is wrong with a text.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ParseProblem {
    /// Something other than what the syntax allows here.
    Unexpected {
        /// What stands there; empty at the end of the text.
        found: String,
        /// What could stand there.
        expected: &'static str,
    },
    /// Something that is no literal, or one that this node does not make: what it is, and what to write instead.
    NotLiteral {
        /// What stands there.
        what: &'static str,
        /// What to do.
        instead: &'static str,
    },
    /// Something begun here that the text never ends.
    Unterminated(&'static str),
    /// A backslash with something after it that is no escape.
    BadEscape,
    /// A number that is none, or none that a term can hold.
    BadNumber(&'static str),
    /// A size or type that a segment of a binary cannot have.
    BadSegment(&'static str),
    /// An atom of more than 255 characters.
    AtomTooLong,
    /// A map with a key twice.
    DuplicateKey,
    /// A bound was reached.
    LimitExceeded {
        /// The field of [`Limits`].
        limit: &'static str,
        /// What is allowed.
        max: u64,
    },
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}: {}", self.line, self.column, self.problem)
    }
}

impl core::error::Error for ParseError {}

impl fmt::Display for ParseProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unexpected { found, expected } if found.is_empty() => {
                write!(f, "the text ends where {expected} should follow")
            }
            Self::Unexpected { found, expected } => write!(f, "expected {expected}, found {found:?}"),
            Self::NotLiteral { what, instead } => write!(f, "{what}; {instead}"),
            Self::Unterminated(what) => write!(f, "the {what} that begins here never ends"),
            Self::BadEscape => f.write_str("unknown escape sequence; write \\\\ for a backslash"),
            Self::BadNumber(why) | Self::BadSegment(why) => f.write_str(why),
            Self::AtomTooLong => f.write_str("an atom has at most 255 characters"),
            Self::DuplicateKey => f.write_str("a key occurs twice in this map; remove one of them"),
            Self::LimitExceeded { limit, max } => write!(f, "more than the limit `{limit}` of {max} allows"),
        }
    }
}

/// A function call: `lists:seq(1, 5)` or `:lists.seq(1, 5)`.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// The module.
    pub module: Atom,
    /// The function.
    pub function: Atom,
    /// The arguments.
    pub arguments: Vec<Term>,
}

pub(super) type Result<T, E = ParseError> = core::result::Result<T, E>;

/// A cursor over the text.
pub(super) struct Scanner<'a> {
    text: &'a str,
    at: usize,
    pub(super) limits: &'a Limits,
    /// The terms made so far.
    nodes: usize,
    /// The bytes of binaries that may still be made.
    bytes: usize,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(text: &'a str, limits: &'a Limits) -> Self {
        Self { text, at: 0, limits, nodes: 0, bytes: limits.max_frame }
    }

    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// The text from here.
    pub(super) fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// The text from an earlier position to here.
    pub(super) fn since(&self, start: usize) -> &'a str {
        self.text.get(start..self.at).unwrap_or_default()
    }

    pub(super) fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    /// The character after the next.
    pub(super) fn peek_second(&self) -> Option<char> {
        self.rest().chars().nth(1)
    }

    pub(super) fn bump(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    pub(super) fn eat(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    pub(super) fn expect(&mut self, token: &'static str) -> Result<()> {
        if self.eat(token) { Ok(()) } else { Err(self.unexpected(token)) }
    }

    pub(super) fn eat_while(&mut self, accept: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let len = rest.find(|c| !accept(c)).unwrap_or(rest.len());
        self.at += len;
        rest.get(..len).unwrap_or_default()
    }

    /// Skips white space and comments that begin with `comment`.
    pub(super) fn skip_space(&mut self, comment: char) {
        loop {
            self.eat_while(|c| c.is_whitespace() || c.is_control());
            if self.peek() != Some(comment) {
                return;
            }
            self.eat_while(|c| c != '\n');
        }
    }

    pub(super) fn error_at(&self, offset: usize, problem: ParseProblem) -> ParseError {
        let before = self.text.get(..offset).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        ParseError {
            line: before.matches('\n').count() + 1,
            column: before.get(line_start..).unwrap_or_default().chars().count() + 1,
            offset,
            problem,
        }
    }

    pub(super) fn error(&self, problem: ParseProblem) -> ParseError {
        self.error_at(self.at, problem)
    }

    pub(super) fn unexpected(&self, expected: &'static str) -> ParseError {
        let rest = self.rest();
        let word = |c: char| c.is_alphanumeric() || c == '_';
        let len = match rest.chars().next() {
            Some(c) if word(c) => rest.find(|c| !word(c)).unwrap_or(rest.len()),
            Some(c) => c.len_utf8(),
            None => 0,
        };
        let found = rest.get(..len).unwrap_or_default().chars().take(40).collect();
        self.error(ParseProblem::Unexpected { found, expected })
    }

    pub(super) fn not_literal(&self, at: usize, what: &'static str, instead: &'static str) -> ParseError {
        self.error_at(at, ParseProblem::NotLiteral { what, instead })
    }

    /// Counts terms against the limit.
    pub(super) fn count(&mut self, nodes: usize) -> Result<()> {
        self.nodes += nodes;
        if self.nodes > self.limits.max_nodes {
            let max = self.limits.max_nodes as u64;
            return Err(self.error(ParseProblem::LimitExceeded { limit: "max_nodes", max }));
        }
        Ok(())
    }

    /// Counts bytes of binaries against the limit of what could be sent at all.
    pub(super) fn count_bytes(&mut self, bytes: usize) -> Result<()> {
        match self.bytes.checked_sub(bytes) {
            Some(left) => {
                self.bytes = left;
                Ok(())
            }
            None => {
                let max = self.limits.max_frame as u64;
                Err(self.error(ParseProblem::LimitExceeded { limit: "max_frame", max }))
            }
        }
    }

    /// An atom of this text, which begins at `start`.
    pub(super) fn atom(&self, start: usize, text: &str) -> Result<Atom> {
        Atom::new(text).map_err(|_| self.error_at(start, ParseProblem::AtomTooLong))
    }

    /// A map of these pairs, which begins at `start`.
    pub(super) fn map(&self, start: usize, pairs: Vec<(Term, Term)>) -> Result<Term> {
        match Map::from_pairs(pairs) {
            Ok(map) => Ok(Term::Map(map)),
            Err(_) => Err(self.error_at(start, ParseProblem::DuplicateKey)),
        }
    }

    /// Goes back to an earlier position.
    pub(super) fn reset(&mut self, at: usize) {
        self.at = at;
    }

    /// Digits of a base with single underscores between them, as both languages write them.
    pub(super) fn digits(&mut self, radix: u32) -> Result<String> {
        let mut digits = String::new();
        loop {
            digits.push_str(self.eat_while(|c| c.is_digit(radix)));
            let underscore_between = !digits.is_empty()
                && self.peek() == Some('_')
                && self.peek_second().is_some_and(|c| c.is_digit(radix));
            if !underscore_between {
                break;
            }
            self.bump();
        }
        if digits.is_empty() { Err(self.unexpected("a digit")) } else { Ok(digits) }
    }

    /// The integer of these digits.
    pub(super) fn integer(&self, start: usize, negative: bool, digits: &str, radix: u32) -> Result<Term> {
        if let Ok(value) = i64::from_str_radix(digits, radix) {
            // The magnitude of a positive number can always be negated.
            return Ok(Term::Integer(if negative { -value } else { value }));
        }
        let signed = if negative { format!("-{digits}") } else { digits.to_owned() };
        BigInteger::parse(&signed, radix).ok_or_else(|| {
            self.error_at(
                start,
                ParseProblem::BadNumber("an integer of more than 9,864 decimal digits; send it as a binary"),
            )
        })
    }

    /// The rest of a decimal number after its first digits: `.5e-3`, or nothing if it is an integer.
    pub(super) fn decimal(&mut self, start: usize, negative: bool) -> Result<Term> {
        let mut digits = self.digits(10)?;
        if !(self.peek() == Some('.') && self.peek_second().is_some_and(|c| c.is_ascii_digit())) {
            return self.integer(start, negative, &digits, 10);
        }
        self.bump();
        digits.push('.');
        digits.push_str(&self.digits(10)?);
        if matches!(self.peek(), Some('e' | 'E')) {
            self.bump();
            digits.push('e');
            match self.peek() {
                Some('-') => {
                    self.bump();
                    digits.push('-');
                }
                Some('+') => {
                    self.bump();
                }
                _ => {}
            }
            digits.push_str(&self.digits(10)?);
        }
        match digits.parse::<f64>() {
            Ok(float) if float.is_finite() => Ok(Term::Float(if negative { -float } else { float })),
            _ => Err(self.error_at(start, ParseProblem::BadNumber("a float beyond what 64 bits can hold"))),
        }
    }
}

/// The list of `elements` and a tail: `[a | [b]]` is `[a, b]`.
pub(super) fn list(mut elements: Vec<Term>, tail: Term) -> Term {
    match tail {
        Term::List(tail) => {
            elements.extend(tail.into_vec());
            Term::List(elements.into())
        }
        Term::ImproperList(tail) => {
            let (more, tail) = tail.into_parts();
            elements.extend(more.into_vec());
            Term::ImproperList(Box::new(ImproperList { elements: elements.into(), tail }))
        }
        tail if elements.is_empty() => tail,
        tail => Term::ImproperList(Box::new(ImproperList { elements: elements.into(), tail })),
    }
}

pub(super) fn tuple(elements: Vec<Term>) -> Term {
    Term::Tuple(Tuple::from(elements))
}

/// A list of characters.
pub(super) fn charlist(characters: impl Iterator<Item = u32>) -> Vec<Term> {
    characters.map(|c| Term::Integer(i64::from(c))).collect()
}
