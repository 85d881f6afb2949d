//! Reading Elixir literal syntax.

use super::inspect::{OPERATORS, continues_identifier, is_alias, starts_identifier};
use super::parse_elixir_text::{binary, quoted, sigil, text_atom};
use super::scanner::{Call, ParseError, ParseProblem, Result, Scanner, list, tuple};
use crate::Limits;
use crate::etf::{Atom, ExportFun, Term};

/// Reads one term in Elixir syntax, as a literal in source code or in iex.
///
/// Nothing is evaluated: variables, operators, interpolation and ranges are refused, and so are pids, references and functions in
/// the form in which they print. A struct becomes a map of the fields that are written and `__struct__`; the defaults of the others
/// are known only where its module is.
///
/// ```
/// use foundation_proto::{Limits, etf::text::{inspect, parse_elixir, print}};
///
/// let term = parse_elixir(r#"%{"k" => ~c"abc", user: {:ok, "é", [a: 1]}}"#, &Limits::default())?;
/// assert_eq!(inspect(&term), r#"%{"k" => ~c"abc", :user => {:ok, "é", [a: 1]}}"#);
/// # Ok::<(), foundation_proto::etf::text::ParseError>(())
/// ```
///
/// # Errors
/// Says where and what; the limits that apply are `max_depth`, `max_nodes` and (for binaries) `max_frame`.
pub fn parse_elixir(text: &str, limits: &Limits) -> Result<Term, ParseError> {
    let mut parser = Parser::new(text, limits);
    let term = parser.term()?;
    parser.end("the end of the text; only one literal term is read, and nothing is evaluated")?;
    Ok(term)
}

/// Reads a call in Elixir syntax whose arguments are literals: `:lists.seq(1, 5)`, `Foo.Bar.baz(1, key: 2)`, `Node.self`.
///
/// # Errors
/// As [`parse_elixir`].
pub fn parse_elixir_call(text: &str, limits: &Limits) -> Result<Call, ParseError> {
    let mut parser = Parser::new(text, limits);
    parser.space()?;
    let module = parser.module()?;
    parser.scanner.expect(".")?;
    let function = parser.function()?;
    let mut arguments = Vec::new();
    if parser.scanner.eat("(") {
        parser.stack.push(Open::new(Kind::Arguments));
        if let Term::List(elements) = parser.run()? {
            arguments = elements.into_vec();
        }
    }
    parser.end("the end of the text; one call is read, and its arguments are literals")?;
    Ok(Call { module, function, arguments })
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Kind {
    Tuple,
    List,
    /// The list's tail is next.
    Tail,
    Map,
    Arguments,
}

/// A container whose end is still to come.
struct Open {
    kind: Kind,
    start: usize,
    /// Of a map: keys and values in turn.
    elements: Vec<Term>,
    /// `key: value` at the end of a tuple or of arguments: one list.
    keywords: Vec<Term>,
    /// The key whose value is next.
    keyword: Option<Atom>,
    /// Only keywords may follow.
    only_keywords: bool,
    /// Nothing, or a comma, was read last, so that the container may end here.
    may_end: bool,
    /// `[a | [b` is read as one list with two brackets to close.
    brackets: usize,
}

impl Open {
    fn new(kind: Kind) -> Self {
        Self {
            kind,
            start: 0,
            elements: Vec::new(),
            keywords: Vec::new(),
            keyword: None,
            only_keywords: false,
            may_end: true,
            brackets: 1,
        }
    }

    fn close(&self) -> &'static str {
        match self.kind {
            Kind::Tuple | Kind::Map => "}",
            Kind::List | Kind::Tail => "]",
            Kind::Arguments => ")",
        }
    }

    fn is_at_value(&self) -> bool {
        self.kind == Kind::Map && self.elements.len() % 2 == 1
    }
}

struct Parser<'a> {
    scanner: Scanner<'a>,
    stack: Vec<Open>,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str, limits: &'a Limits) -> Self {
        Self { scanner: Scanner::new(text, limits), stack: Vec::new() }
    }

    /// Skips white space and comments, but not `#PID<0.1.2>`, which looks like one.
    fn space(&mut self) -> Result<()> {
        loop {
            self.scanner.eat_while(char::is_whitespace);
            if self.scanner.peek() != Some('#') {
                return Ok(());
            }
            let rest = self.scanner.rest();
            for (printed, what) in [
                ("#PID<", "this is how a pid prints"),
                ("#Port<", "this is how a port prints"),
                ("#Reference<", "this is how a reference prints"),
                ("#Function<", "this is how a function prints"),
            ] {
                if rest.starts_with(printed) {
                    return Err(self.scanner.not_literal(
                        self.scanner.at(),
                        what,
                        "only a running node has these; they cannot be read from the text they print as",
                    ));
                }
            }
            self.scanner.eat_while(|c| c != '\n');
        }
    }

    fn end(&mut self, expected: &'static str) -> Result<()> {
        self.space()?;
        if self.scanner.rest().is_empty() { Ok(()) } else { Err(self.scanner.unexpected(expected)) }
    }

    fn term(&mut self) -> Result<Term> {
        self.space()?;
        match self.begin()? {
            // Nothing is open, so that the term is the outermost.
            Some(term) => Ok(term),
            None => self.run(),
        }
    }

    /// Reads on until the outermost container is complete.
    fn run(&mut self) -> Result<Term> {
        loop {
            self.space()?;
            let mut term = None;
            if let Some(open) = self.stack.last() {
                if open.may_end
                    && open.keyword.is_none()
                    && !open.is_at_value()
                    && self.scanner.eat(open.close())
                {
                    term = Some(self.close()?);
                } else if open.keyword.is_none() && !open.is_at_value() && open.kind != Kind::Tail {
                    let key = self.keyword()?;
                    if let Some(open) = self.stack.last_mut() {
                        if key.is_none() && open.only_keywords {
                            return Err(self.scanner.unexpected("another `key: value`; these come last"));
                        }
                        open.only_keywords = key.is_some();
                        open.keyword = key;
                    }
                    self.space()?;
                }
            }
            let term = match term {
                Some(term) => term,
                None => match self.begin()? {
                    Some(term) => term,
                    None => continue,
                },
            };
            if let Some(term) = self.finish(term)? {
                return Ok(term);
            }
        }
    }

    /// Gives a complete term to its container, and that to its own if the closing bracket follows, and so on: the outermost
    /// term, or `None` if a separator followed and there is more to read.
    fn finish(&mut self, mut term: Term) -> Result<Option<Term>> {
        loop {
            let Some(open) = self.stack.last_mut() else { return Ok(Some(term)) };
            let after_keyword = open.keyword.is_some();
            match (open.keyword.take(), open.kind) {
                (Some(key), Kind::Map) => open.elements.extend([Term::Atom(key), term]),
                (Some(key), Kind::Tuple | Kind::Arguments) => {
                    open.keywords.push(tuple(vec![Term::Atom(key), term]));
                }
                (Some(key), _) => open.elements.push(tuple(vec![Term::Atom(key), term])),
                (None, _) => open.elements.push(term),
            }
            open.may_end = false;
            self.space()?;
            let Some(open) = self.stack.last_mut() else { return Ok(None) };
            let scanner = &mut self.scanner;
            if open.is_at_value() {
                scanner.expect("=>")?;
                return Ok(None);
            }
            if open.kind != Kind::Tail && scanner.eat(",") {
                // A call's arguments may not end in a comma.
                open.may_end = open.kind != Kind::Arguments;
                return Ok(None);
            }
            if open.kind == Kind::List && !after_keyword && scanner.eat("|") {
                self.space()?;
                let Some(open) = self.stack.last_mut() else { return Ok(None) };
                if self.scanner.eat("[") {
                    open.brackets += 1;
                    open.may_end = true;
                } else {
                    open.kind = Kind::Tail;
                }
                return Ok(None);
            }
            if !scanner.eat(open.close()) {
                return Err(scanner.unexpected(match open.kind {
                    Kind::List => "a comma, | or ]",
                    Kind::Tail => "] after the tail of the list",
                    Kind::Arguments => "a comma or )",
                    Kind::Tuple | Kind::Map => "a comma or }",
                }));
            }
            term = self.close()?;
        }
    }

    /// Takes the innermost container, whose closing bracket has been read.
    fn close(&mut self) -> Result<Term> {
        let Some(mut open) = self.stack.pop() else { return Err(self.scanner.unexpected("a term")) };
        if !open.keywords.is_empty() {
            open.elements.push(Term::List(open.keywords.into()));
        }
        for _ in 1..open.brackets {
            self.space()?;
            if !self.scanner.eat("]") {
                return Err(self.scanner.unexpected("] after the tail of the list"));
            }
        }
        match open.kind {
            Kind::Tuple => Ok(tuple(open.elements)),
            Kind::List | Kind::Arguments => Ok(Term::List(open.elements.into())),
            Kind::Tail => {
                let tail = open.elements.pop().unwrap_or_else(Term::nil);
                Ok(list(open.elements, tail))
            }
            Kind::Map => {
                let mut elements = open.elements.into_iter();
                let mut pairs = Vec::new();
                while let (Some(key), Some(value)) = (elements.next(), elements.next()) {
                    pairs.push((key, value));
                }
                self.scanner.map(open.start, pairs)
            }
        }
    }

    fn open(&mut self, open: Open) -> Result<Option<Term>> {
        if self.stack.len() >= self.scanner.limits.max_depth {
            let max = self.scanner.limits.max_depth as u64;
            return Err(self.scanner.error(ParseProblem::LimitExceeded { limit: "max_depth", max }));
        }
        self.stack.push(open);
        Ok(None)
    }

    /// Reads a term without parts, or opens a container (`None`).
    fn begin(&mut self) -> Result<Option<Term>> {
        self.scanner.count(1)?;
        let start = self.scanner.at();
        let Some(c) = self.scanner.peek() else { return Err(self.scanner.unexpected("a term")) };
        let term = match c {
            '{' => {
                self.scanner.bump();
                return self.open(Open::new(Kind::Tuple));
            }
            '[' => {
                self.scanner.bump();
                return self.open(Open::new(Kind::List));
            }
            '%' => {
                self.scanner.bump();
                let mut open = Open { start, ..Open::new(Kind::Map) };
                if self.scanner.peek() != Some('{') {
                    let name = self.module()?;
                    open.elements.extend([Term::atom("__struct__"), Term::Atom(name)]);
                    // A struct has atoms for keys.
                    open.only_keywords = true;
                }
                self.scanner.expect("{")?;
                return self.open(open);
            }
            '<' if self.scanner.eat("<<") => binary(&mut self.scanner, start)?,
            '"' | '\'' => quoted(&mut self.scanner)?,
            '~' => sigil(&mut self.scanner)?,
            ':' => Term::Atom(self.colon_atom()?),
            '-' | '+' | '?' | '0'..='9' => number(&mut self.scanner)?,
            '&' => self.capture()?,
            'A'..='Z' => Term::Atom(self.alias()?),
            c if starts_identifier(c) => match self.scanner.eat_while(continues_identifier) {
                word @ ("nil" | "true" | "false") => Term::Atom(self.scanner.atom(start, word)?),
                _ => {
                    return Err(self.scanner.not_literal(
                        start,
                        "this is a variable or a call, and nothing is evaluated here",
                        "write a colon before it if an atom is meant, as in :name",
                    ));
                }
            },
            _ => return Err(self.scanner.unexpected("a term")),
        };
        Ok(Some(term))
    }

    /// `key:` or `"key":` before white space, if that is what follows.
    fn keyword(&mut self) -> Result<Option<Atom>> {
        let start = self.scanner.at();
        let name = match self.scanner.peek() {
            Some('"') => {
                let name = text_atom(&mut self.scanner);
                if !self.is_key_colon() {
                    self.scanner.reset(start);
                    return Ok(None);
                }
                name?
            }
            Some(c) if starts_identifier(c) => {
                let word = self.word();
                if !self.is_key_colon() {
                    self.scanner.reset(start);
                    return Ok(None);
                }
                self.scanner.atom(start, word)?
            }
            _ => {
                let Some(operator) = longest_operator(self.scanner.rest()) else { return Ok(None) };
                self.scanner.eat(operator);
                if !self.is_key_colon() {
                    self.scanner.reset(start);
                    return Ok(None);
                }
                self.scanner.atom(start, operator)?
            }
        };
        self.scanner.eat(":");
        Ok(Some(name))
    }

    fn is_key_colon(&self) -> bool {
        self.scanner.peek() == Some(':') && self.scanner.peek_second().is_some_and(char::is_whitespace)
    }

    /// An identifier, perhaps with `?` or `!` at its end.
    fn word(&mut self) -> &'a str {
        let start = self.scanner.at();
        self.scanner.eat_while(continues_identifier);
        if !self.scanner.eat("?") {
            self.scanner.eat("!");
        }
        self.scanner.since(start)
    }

    /// `:name`, `:"any text"`, `:+`.
    fn colon_atom(&mut self) -> Result<Atom> {
        let start = self.scanner.at();
        self.scanner.expect(":")?;
        match self.scanner.peek() {
            Some('"' | '\'') => text_atom(&mut self.scanner),
            Some(c) if starts_identifier(c) => {
                let word = self.word();
                self.scanner.atom(start, word)
            }
            _ => match longest_operator(self.scanner.rest()) {
                Some(operator) => {
                    self.scanner.eat(operator);
                    self.scanner.atom(start, operator)
                }
                None => Err(self.scanner.unexpected("the name of an atom")),
            },
        }
    }

    /// `Foo.Bar`: the atom `'Elixir.Foo.Bar'`.
    fn alias(&mut self) -> Result<Atom> {
        let start = self.scanner.at();
        loop {
            self.scanner.eat_while(|c| c.is_ascii_alphanumeric() || c == '_');
            let more = self.scanner.peek() == Some('.')
                && self.scanner.peek_second().is_some_and(|c| c.is_ascii_uppercase());
            if !more {
                break;
            }
            self.scanner.bump();
        }
        let name = self.scanner.since(start);
        if name == "Elixir" || name.starts_with("Elixir.") {
            return self.scanner.atom(start, name);
        }
        if !is_alias(name) {
            return Err(self.scanner.unexpected("a module name"));
        }
        self.scanner.atom(start, &format!("Elixir.{name}"))
    }

    fn module(&mut self) -> Result<Atom> {
        match self.scanner.peek() {
            Some(':') => self.colon_atom(),
            Some('A'..='Z') => self.alias(),
            _ => Err(self.scanner.unexpected("a module, as in :lists.seq(1, 5) or Enum.count([1])")),
        }
    }

    fn function(&mut self) -> Result<Atom> {
        let start = self.scanner.at();
        match self.scanner.peek() {
            Some('"') => text_atom(&mut self.scanner),
            Some(c) if starts_identifier(c) && !c.is_ascii_uppercase() => {
                let word = self.word();
                self.scanner.atom(start, word)
            }
            _ => Err(self.scanner.unexpected("a function")),
        }
    }

    /// `&String.length/1`.
    fn capture(&mut self) -> Result<Term> {
        let start = self.scanner.at();
        self.scanner.bump();
        if !matches!(self.scanner.peek(), Some(':' | 'A'..='Z')) {
            return Err(self.scanner.not_literal(
                start,
                "a function with a body cannot be made from text",
                "only &Module.function/arity can",
            ));
        }
        let module = self.module()?;
        self.scanner.expect(".")?;
        let function = self.function()?;
        self.scanner.expect("/")?;
        let at = self.scanner.at();
        let arity = self
            .scanner
            .digits(10)?
            .parse()
            .map_err(|_| self.scanner.error_at(at, ParseProblem::BadNumber("an arity is at most 255")))?;
        Ok(Term::ExportFun(Box::new(ExportFun { module, function, arity })))
    }
}

fn longest_operator(text: &str) -> Option<&'static str> {
    OPERATORS.into_iter().filter(|operator| text.starts_with(operator)).max_by_key(|operator| operator.len())
}

/// `-0xff`, `0b101`, `0o17`, `1_000`, `1.0e-3`, `?a`.
pub(super) fn number(scanner: &mut Scanner<'_>) -> Result<Term> {
    let start = scanner.at();
    let mut negative = false;
    if let Some(sign @ ('-' | '+')) = scanner.peek() {
        scanner.bump();
        negative = sign == '-';
        scanner.eat_while(char::is_whitespace);
    }
    if scanner.eat("?") {
        let c = i64::from(u32::from(super::parse_elixir_text::character(scanner)?));
        return Ok(Term::Integer(if negative { -c } else { c }));
    }
    for (prefix, radix) in [("0x", 16), ("0o", 8), ("0b", 2)] {
        if scanner.eat(prefix) {
            let digits = scanner.digits(radix)?;
            return scanner.integer(start, negative, &digits, radix);
        }
    }
    scanner.decimal(start, negative)
}

#[cfg(test)]
mod tests;
