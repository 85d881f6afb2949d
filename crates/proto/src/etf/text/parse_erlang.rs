//! Reading Erlang term syntax.

use super::atom::{continues_name, is_reserved, starts_atom};
use super::bits::Bits;
use super::parse_binary::binary;
use super::scanner::{Call, ParseError, ParseProblem, Result, Scanner, charlist, list, tuple};
use crate::Limits;
use crate::etf::{Atom, ExportFun, Term};

/// Reads one term in Erlang syntax, as `file:consult/1` and the shell read it; a full stop at the end is optional.
///
/// Literals only: nothing is evaluated, variables and records are refused, and so are pids, ports, references and funs in the
/// form in which they print, because the text does not say which node or process it means.
///
/// ```
/// use foundation_proto::{Limits, etf::text::{parse_erlang, print}};
///
/// let term = parse_erlang("#{ok => [1, $a, 16#ff], <<\"k\">> => {'A b', 1.0e3}}.", &Limits::default())?;
/// assert_eq!(print(&term), "#{ok => [1,97,255],<<\"k\">> => {'A b',1.0e3}}");
///
/// let error = parse_erlang("{ok,\n  Pid}", &Limits::default()).unwrap_err();
/// assert_eq!((error.line, error.column), (2, 3));
/// # Ok::<(), foundation_proto::etf::text::ParseError>(())
/// ```
///
/// # Errors
/// Says where and what; the limits that apply are `max_depth`, `max_nodes` and (for binaries) `max_frame`.
pub fn parse_erlang(text: &str, limits: &Limits) -> Result<Term, ParseError> {
    let mut parser = Parser::new(text, limits);
    let term = parser.term()?;
    parser.end("the end of the text; only one literal term is read, and nothing is evaluated")?;
    Ok(term)
}

/// Reads terms in Erlang syntax that each end with a full stop, as `file:consult/1` does.
///
/// # Errors
/// As [`parse_erlang`].
pub fn parse_erlang_terms(text: &str, limits: &Limits) -> Result<Vec<Term>, ParseError> {
    let mut parser = Parser::new(text, limits);
    let mut terms = Vec::new();
    loop {
        parser.space();
        if parser.scanner.peek().is_none() {
            return Ok(terms);
        }
        terms.push(parser.term()?);
        if !parser.full_stop() {
            return Err(parser.scanner.unexpected("a full stop and white space after the term"));
        }
    }
}

/// Reads a call in Erlang syntax whose arguments are literals: `lists:seq(1, 5)`.
///
/// # Errors
/// As [`parse_erlang`].
pub fn parse_erlang_call(text: &str, limits: &Limits) -> Result<Call, ParseError> {
    let mut parser = Parser::new(text, limits);
    parser.space();
    let module = parser.name("a module, as in lists:seq(1, 5)")?;
    parser.token(":")?;
    let function = parser.name("a function")?;
    parser.token("(")?;
    parser.stack.push(Open::Arguments(Vec::new()));
    let Term::List(arguments) = parser.run()? else { return Err(parser.scanner.unexpected("arguments")) };
    parser.end("the end of the text; one call is read, and its arguments are literals")?;
    Ok(Call { module, function, arguments: arguments.into_vec() })
}

/// A container whose end is still to come.
enum Open {
    Tuple(Vec<Term>),
    /// `[a|[b` is read as one list with two brackets to close.
    List {
        elements: Vec<Term>,
        brackets: usize,
        /// Nothing was read since the last bracket.
        fresh: bool,
    },
    /// The list's tail is next.
    Tail {
        elements: Vec<Term>,
        brackets: usize,
    },
    Map {
        start: usize,
        pairs: Vec<(Term, Term)>,
        key: Option<Term>,
    },
    Arguments(Vec<Term>),
}

struct Parser<'a> {
    scanner: Scanner<'a>,
    stack: Vec<Open>,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str, limits: &'a Limits) -> Self {
        Self { scanner: Scanner::new(text, limits), stack: Vec::new() }
    }

    fn space(&mut self) {
        self.scanner.skip_space('%');
    }

    fn token(&mut self, token: &'static str) -> Result<()> {
        self.space();
        self.scanner.expect(token)
    }

    /// A full stop: a dot before white space, a comment or the end.
    fn full_stop(&mut self) -> bool {
        self.space();
        let ends = self.scanner.peek_second().is_none_or(|c| c.is_whitespace() || c == '%');
        ends && self.scanner.eat(".")
    }

    fn end(&mut self, expected: &'static str) -> Result<()> {
        self.full_stop();
        self.space();
        if self.scanner.rest().is_empty() { Ok(()) } else { Err(self.scanner.unexpected(expected)) }
    }

    fn term(&mut self) -> Result<Term> {
        match self.begin()? {
            // Nothing is open, so that the term is the outermost.
            Some(term) => Ok(term),
            None => self.run(),
        }
    }

    /// Reads on until the outermost container is complete.
    fn run(&mut self) -> Result<Term> {
        loop {
            // Right after an opening bracket, its closing one may follow.
            self.space();
            let empty = match self.stack.last() {
                Some(Open::Tuple(elements)) => elements.is_empty() && self.scanner.eat("}"),
                Some(Open::List { fresh, .. }) => *fresh && self.scanner.eat("]"),
                Some(Open::Map { pairs, key: None, .. }) => pairs.is_empty() && self.scanner.eat("}"),
                Some(Open::Arguments(elements)) => elements.is_empty() && self.scanner.eat(")"),
                _ => false,
            };
            let term = if empty { Some(self.close()?) } else { self.begin()? };
            let Some(term) = term else { continue };
            if let Some(term) = self.finish(term)? {
                return Ok(term);
            }
        }
    }

    /// Gives a complete term to its container, and that to its own if the closing bracket follows, and so on: the outermost
    /// term, or `None` if a separator followed and there is more to read.
    fn finish(&mut self, mut term: Term) -> Result<Option<Term>> {
        loop {
            self.scanner.skip_space('%');
            let scanner = &mut self.scanner;
            let closed = match self.stack.last_mut() {
                None => return Ok(Some(term)),
                Some(Open::Tuple(elements)) => {
                    elements.push(term);
                    if scanner.eat(",") {
                        return Ok(None);
                    }
                    scanner.eat("}")
                }
                Some(Open::Arguments(elements)) => {
                    elements.push(term);
                    if scanner.eat(",") {
                        return Ok(None);
                    }
                    scanner.eat(")")
                }
                Some(Open::List { elements, brackets, fresh }) => {
                    elements.push(term);
                    *fresh = false;
                    if scanner.eat(",") {
                        return Ok(None);
                    }
                    if scanner.eat("|") {
                        scanner.skip_space('%');
                        if scanner.eat("[") {
                            *brackets += 1;
                            *fresh = true;
                            return Ok(None);
                        }
                        let (elements, brackets) = (core::mem::take(elements), *brackets);
                        self.stack.pop();
                        self.stack.push(Open::Tail { elements, brackets });
                        return Ok(None);
                    }
                    scanner.eat("]")
                }
                Some(Open::Tail { elements, brackets }) => {
                    let (elements, brackets) = (core::mem::take(elements), *brackets);
                    self.stack.pop();
                    self.brackets(brackets)?;
                    term = list(elements, term);
                    continue;
                }
                Some(Open::Map { pairs, key, .. }) => match key.take() {
                    None => {
                        scanner.expect("=>")?;
                        *key = Some(term);
                        return Ok(None);
                    }
                    Some(key) => {
                        pairs.push((key, term));
                        if scanner.eat(",") {
                            return Ok(None);
                        }
                        scanner.eat("}")
                    }
                },
            };
            if !closed {
                let expected = match self.stack.last() {
                    Some(Open::List { .. }) => "a comma, | or ]",
                    Some(Open::Arguments(_)) => "a comma or )",
                    _ => "a comma or }",
                };
                return Err(self.scanner.unexpected(expected));
            }
            term = self.close()?;
        }
    }

    /// Takes the innermost container, whose closing bracket has been read.
    fn close(&mut self) -> Result<Term> {
        match self.stack.pop() {
            Some(Open::Tuple(elements)) => Ok(tuple(elements)),
            Some(Open::List { elements, brackets, .. } | Open::Tail { elements, brackets }) => {
                self.brackets(brackets - 1)?;
                Ok(Term::List(elements.into()))
            }
            Some(Open::Arguments(elements)) => Ok(Term::List(elements.into())),
            Some(Open::Map { start, pairs, .. }) => self.scanner.map(start, pairs),
            None => Err(self.scanner.unexpected("a term")),
        }
    }

    /// The brackets that close a list.
    fn brackets(&mut self, count: usize) -> Result<()> {
        for _ in 0..count {
            self.space();
            if !self.scanner.eat("]") {
                return Err(self.scanner.unexpected("] after the tail of the list"));
            }
        }
        Ok(())
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
        self.space();
        self.scanner.count(1)?;
        let start = self.scanner.at();
        let Some(c) = self.scanner.peek() else { return Err(self.scanner.unexpected("a term")) };
        let term = match c {
            '{' => {
                self.scanner.bump();
                return self.open(Open::Tuple(Vec::new()));
            }
            '[' => {
                self.scanner.bump();
                return self.open(Open::List { elements: Vec::new(), brackets: 1, fresh: true });
            }
            '#' if self.scanner.eat("#{") => {
                return self.open(Open::Map { start, pairs: Vec::new(), key: None });
            }
            '<' if self.scanner.eat("<<") => binary(&mut self.scanner, start)?,
            '"' => {
                let mut elements = Vec::new();
                while self.scanner.peek() == Some('"') {
                    let text = quoted(&mut self.scanner, "string")?;
                    self.scanner.count(text.len())?;
                    elements.extend(charlist(text.into_iter()));
                    self.space();
                }
                Term::List(elements.into())
            }
            '$' => {
                self.scanner.bump();
                Term::Integer(i64::from(character(&mut self.scanner)?))
            }
            '-' | '+' | '0'..='9' => number(&mut self.scanner)?,
            '\'' => Term::Atom(self.name("an atom")?),
            '~' => sigil(&mut self.scanner)?,
            c if starts_atom(c) => {
                let word = self.scanner.eat_while(continues_name);
                if word == "fun" {
                    return self.export_fun(start).map(Some);
                }
                if is_reserved(word) && word != "maybe" && word != "else" {
                    return Err(self.scanner.not_literal(
                        start,
                        "this is a reserved word of Erlang",
                        "quote it if an atom is meant, as in 'end'",
                    ));
                }
                Term::Atom(self.scanner.atom(start, word)?)
            }
            _ => return Err(self.no_term(start, c)),
        };
        Ok(Some(term))
    }

    #[cold]
    fn no_term(&self, start: usize, c: char) -> ParseError {
        const PRINTED: &str =
            "only a running node has these; they cannot be read from the text they print as";
        let rest = self.scanner.rest();
        let what = match c {
            '<' => "this is how a pid prints",
            '#' if rest.starts_with("#Ref<") => "this is how a reference prints",
            '#' if rest.starts_with("#Port<") => "this is how a port prints",
            '#' if rest.starts_with("#Fun<") => "this is how a fun prints",
            '#' => {
                return self.scanner.not_literal(
                    start,
                    "record syntax needs the record's definition",
                    "write the tuple instead: {name, Field1, Field2}",
                );
            }
            'A'..='Z' | '_' | 'À'..='Ö' | 'Ø'..='Þ' => {
                return self.scanner.not_literal(
                    start,
                    "this is a variable, and variables have no value here",
                    "quote it if an atom is meant, as in 'Name'",
                );
            }
            _ => return self.scanner.unexpected("a term"),
        };
        self.scanner.not_literal(start, what, PRINTED)
    }

    /// An atom, quoted or not.
    fn name(&mut self, expected: &'static str) -> Result<Atom> {
        self.space();
        let start = self.scanner.at();
        match self.scanner.peek() {
            Some('\'') => {
                let text: Option<String> =
                    quoted(&mut self.scanner, "quoted atom")?.into_iter().map(char::from_u32).collect();
                match text {
                    Some(text) => self.scanner.atom(start, &text),
                    None => Err(self.scanner.error_at(start, ParseProblem::BadEscape)),
                }
            }
            Some(c) if starts_atom(c) => {
                let word = self.scanner.eat_while(continues_name);
                self.scanner.atom(start, word)
            }
            _ => Err(self.scanner.unexpected(expected)),
        }
    }

    /// `lists:map/2`, after the word `fun`.
    fn export_fun(&mut self, start: usize) -> Result<Term> {
        self.space();
        if !self.scanner.peek().is_some_and(|c| c == '\'' || starts_atom(c)) {
            return Err(self.scanner.not_literal(
                start,
                "a fun with a body cannot be made from text",
                "only fun Module:Function/Arity can",
            ));
        }
        let module = self.name("a module")?;
        self.token(":")?;
        let function = self.name("a function")?;
        self.token("/")?;
        self.space();
        let at = self.scanner.at();
        let digits = self.scanner.digits(10)?;
        let arity = digits
            .parse()
            .map_err(|_| self.scanner.error_at(at, ParseProblem::BadNumber("an arity is at most 255")))?;
        Ok(Term::ExportFun(Box::new(ExportFun { module, function, arity })))
    }
}

/// `-16#ff`, `1_000`, `1.0e-3`.
pub(super) fn number(scanner: &mut Scanner<'_>) -> Result<Term> {
    let start = scanner.at();
    let mut negative = false;
    if let Some(sign @ ('-' | '+')) = scanner.peek() {
        scanner.bump();
        negative = sign == '-';
        scanner.skip_space('%');
    }
    if scanner.peek() == Some('$') {
        scanner.bump();
        let c = i64::from(character(scanner)?);
        return Ok(Term::Integer(if negative { -c } else { c }));
    }
    let at = scanner.at();
    let number = scanner.decimal(start, negative)?;
    if scanner.peek() != Some('#') || !matches!(number, Term::Integer(_)) {
        return Ok(number);
    }
    let radix: u32 = scanner.since(at).parse().unwrap_or(0);
    if !(2..=36).contains(&radix) {
        return Err(scanner.error_at(start, ParseProblem::BadNumber("the base of a number is 2 to 36")));
    }
    scanner.bump();
    let digits = scanner.digits(radix)?;
    scanner.integer(start, negative, &digits, radix)
}

/// The characters of a string or atom, up to the closing quote that is like the opening one.
pub(super) fn quoted(scanner: &mut Scanner<'_>, what: &'static str) -> Result<Vec<u32>> {
    let start = scanner.at();
    if scanner.rest().starts_with("\"\"\"") {
        return Err(scanner.not_literal(
            start,
            "triple-quoted strings are not read here",
            "use a string in single \" with \\n for line breaks",
        ));
    }
    let quote = scanner.bump();
    let mut characters = Vec::new();
    loop {
        match scanner.peek() {
            None => return Err(scanner.error_at(start, ParseProblem::Unterminated(what))),
            c if c == quote => {
                scanner.bump();
                return Ok(characters);
            }
            Some(_) => characters.push(character(scanner)?),
        }
    }
}

/// One character, which may be escaped.
fn character(scanner: &mut Scanner<'_>) -> Result<u32> {
    let start = scanner.at();
    let bad = |scanner: &Scanner<'_>| scanner.error_at(start, ParseProblem::BadEscape);
    let Some(c) = scanner.bump() else { return Err(scanner.unexpected("a character")) };
    if c != '\\' {
        return Ok(u32::from(c));
    }
    let Some(c) = scanner.bump() else { return Err(bad(scanner)) };
    Ok(match c {
        'b' => 0x08,
        'd' => 0x7F,
        'e' => 0x1B,
        'f' => 0x0C,
        'n' => 0x0A,
        'r' => 0x0D,
        's' => 0x20,
        't' => 0x09,
        'v' => 0x0B,
        '^' => match scanner.bump() {
            Some(c @ '\u{0}'..='\u{7F}') => u32::from(c) & 31,
            _ => return Err(bad(scanner)),
        },
        'x' => {
            let braces = scanner.eat("{");
            let digits = scanner.rest();
            let most = if braces { 8 } else { 2 };
            let len = digits.chars().take(most).take_while(char::is_ascii_hexdigit).count();
            let value = u32::from_str_radix(digits.get(..len).unwrap_or_default(), 16);
            for _ in 0..len {
                scanner.bump();
            }
            match value {
                Ok(value) if (braces && scanner.eat("}")) || (!braces && len == 2) => {
                    if char::from_u32(value).is_none() {
                        return Err(bad(scanner));
                    }
                    value
                }
                _ => return Err(bad(scanner)),
            }
        }
        '0'..='7' => {
            let mut value = u32::from(c) - u32::from('0');
            for _ in 0..2 {
                let Some(c @ '0'..='7') = scanner.peek() else { break };
                scanner.bump();
                value = value * 8 + u32::from(c) - u32::from('0');
            }
            value
        }
        c => u32::from(c),
    })
}

/// `~"text"`, `~b"text"`, `~s"text"` and, without escapes, `~B"text"` and `~S"text"` (OTP 27): after `~`, `~b`, `~B` a binary.
fn sigil(scanner: &mut Scanner<'_>) -> Result<Term> {
    let start = scanner.at();
    scanner.bump();
    let kind = match scanner.peek() {
        Some(c @ ('b' | 's' | 'B' | 'S')) => {
            scanner.bump();
            c
        }
        _ => 'b',
    };
    if scanner.peek() != Some('"') {
        return Err(scanner.unexpected("b, s, B or S and a string in \""));
    }
    let text = if kind.is_ascii_uppercase() {
        scanner.bump();
        let text = scanner.eat_while(|c| c != '"');
        if !scanner.eat("\"") {
            return Err(scanner.error_at(start, ParseProblem::Unterminated("string")));
        }
        text.chars().map(u32::from).collect()
    } else {
        quoted(scanner, "string")?
    };
    scanner.count(text.len())?;
    if kind.eq_ignore_ascii_case(&'s') {
        return Ok(Term::List(charlist(text.into_iter()).into()));
    }
    let mut bits = Bits::default();
    for c in text {
        super::parse_binary::push_utf8(scanner, start, &mut bits, c)?;
    }
    Ok(bits.into_term())
}

#[cfg(test)]
mod tests;
