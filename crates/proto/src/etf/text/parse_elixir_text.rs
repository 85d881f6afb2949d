//! Reading Elixir's strings, charlists, sigils and `<<1, 2::4, "é"::utf16>>`.

use super::bits::Bits;
use super::parse_binary::{Spec, TOO_LARGE, Type, segment};
use super::parse_elixir::number;
use super::scanner::{ParseProblem, Result, Scanner, charlist};
use crate::etf::{Atom, Term};

/// `"text"`, a binary, or `'text'`, a list of characters.
pub(super) fn quoted(scanner: &mut Scanner<'_>) -> Result<Term> {
    let start = scanner.at();
    let is_charlist = scanner.peek() == Some('\'');
    let bytes = string(scanner)?;
    text_term(scanner, start, bytes, is_charlist)
}

fn text_term(scanner: &mut Scanner<'_>, start: usize, bytes: Vec<u8>, is_charlist: bool) -> Result<Term> {
    if !is_charlist {
        scanner.count_bytes(bytes.len())?;
        return Ok(Term::Binary(bytes.into()));
    }
    let text = utf8(scanner, start, bytes)?;
    scanner.count(text.len())?;
    Ok(Term::List(charlist(text.chars().map(u32::from)).into()))
}

fn utf8(scanner: &Scanner<'_>, start: usize, bytes: Vec<u8>) -> Result<String> {
    String::from_utf8(bytes).map_err(|_| scanner.error_at(start, ParseProblem::BadEscape))
}

/// The atom of a quoted text.
pub(super) fn text_atom(scanner: &mut Scanner<'_>) -> Result<Atom> {
    let start = scanner.at();
    let bytes = string(scanner)?;
    let text = utf8(scanner, start, bytes)?;
    scanner.atom(start, &text)
}

/// The bytes between two quotes, of which the first is next.
fn string(scanner: &mut Scanner<'_>) -> Result<Vec<u8>> {
    let start = scanner.at();
    for heredoc in ["\"\"\"", "'''"] {
        if scanner.rest().starts_with(heredoc) {
            return Err(scanner.not_literal(
                start,
                "heredocs are not read here",
                "use a string in single \" with \\n for line breaks",
            ));
        }
    }
    let Some(quote) = scanner.bump() else { return Err(scanner.unexpected("a string")) };
    delimited(scanner, start, quote, true)
}

/// The bytes up to `close`; with `escapes`, as in a string, and otherwise as they stand.
fn delimited(scanner: &mut Scanner<'_>, start: usize, close: char, escapes: bool) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    loop {
        let at = scanner.at();
        match scanner.bump() {
            None => return Err(scanner.error_at(start, ParseProblem::Unterminated("string"))),
            Some(c) if c == close => return Ok(bytes),
            Some('#') if escapes && scanner.peek() == Some('{') => {
                return Err(scanner.not_literal(
                    at,
                    "this is an interpolation, and nothing is evaluated here",
                    "write \\# if a # before { is meant",
                ));
            }
            Some('\\') if escapes => escape(scanner, at, &mut bytes)?,
            // Without escapes, a backslash still keeps the delimiter from being one.
            Some('\\') if scanner.peek() == Some(close) => {
                scanner.bump();
                push(&mut bytes, close);
            }
            Some(c) => push(&mut bytes, c),
        }
    }
}

fn push(bytes: &mut Vec<u8>, c: char) {
    bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
}

/// What follows a backslash.
fn escape(scanner: &mut Scanner<'_>, at: usize, bytes: &mut Vec<u8>) -> Result<()> {
    let bad = |scanner: &Scanner<'_>| scanner.error_at(at, ParseProblem::BadEscape);
    let Some(c) = scanner.bump() else { return Err(bad(scanner)) };
    match c {
        '0' => bytes.push(0),
        'a' => bytes.push(0x07),
        'b' => bytes.push(0x08),
        'd' => bytes.push(0x7F),
        'e' => bytes.push(0x1B),
        'f' => bytes.push(0x0C),
        'n' => bytes.push(b'\n'),
        'r' => bytes.push(b'\r'),
        's' => bytes.push(b' '),
        't' => bytes.push(b'\t'),
        'v' => bytes.push(0x0B),
        '\n' => {}
        // One byte, whatever it makes of the text.
        'x' => match hex(scanner, 2).and_then(|value| u8::try_from(value).ok()) {
            Some(byte) => bytes.push(byte),
            None => return Err(bad(scanner)),
        },
        'u' => {
            let value = if scanner.eat("{") {
                let len = scanner.rest().chars().take(6).take_while(char::is_ascii_hexdigit).count();
                hex(scanner, len).filter(|_| scanner.eat("}"))
            } else {
                hex(scanner, 4)
            };
            match value.and_then(char::from_u32) {
                Some(c) => push(bytes, c),
                None => return Err(bad(scanner)),
            }
        }
        c => push(bytes, c),
    }
    Ok(())
}

/// Exactly so many digits of base 16.
fn hex(scanner: &mut Scanner<'_>, digits: usize) -> Option<u32> {
    let text = scanner.rest().get(..digits)?;
    if !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let value = u32::from_str_radix(text, 16).ok()?;
    scanner.eat(text);
    Some(value)
}

/// The character after `?`.
pub(super) fn character(scanner: &mut Scanner<'_>) -> Result<char> {
    let at = scanner.at();
    match scanner.bump() {
        None => Err(scanner.unexpected("a character")),
        Some('\\') => {
            let mut bytes = Vec::new();
            escape(scanner, at, &mut bytes)?;
            let text = utf8(scanner, at, bytes)?;
            text.chars().next().ok_or_else(|| scanner.error_at(at, ParseProblem::BadEscape))
        }
        Some(c) => Ok(c),
    }
}

/// `~c"text"`, `~s(text)`, `~w[a b]a`, and the same in capitals without escapes.
pub(super) fn sigil(scanner: &mut Scanner<'_>) -> Result<Term> {
    let start = scanner.at();
    scanner.bump();
    let kind = match scanner.peek() {
        Some(c @ ('c' | 'C' | 's' | 'S' | 'w' | 'W')) => {
            scanner.bump();
            c
        }
        _ => return Err(scanner.unexpected("one of the sigils ~c, ~s and ~w")),
    };
    let close = match scanner.bump() {
        Some('(') => ')',
        Some('[') => ']',
        Some('{') => '}',
        Some('<') => '>',
        Some(c @ ('"' | '\'' | '/' | '|')) => c,
        _ => return Err(scanner.error_at(start, ParseProblem::Unterminated("sigil"))),
    };
    let bytes = delimited(scanner, start, close, kind.is_ascii_lowercase())?;
    match kind.to_ascii_lowercase() {
        'c' => text_term(scanner, start, bytes, true),
        's' => text_term(scanner, start, bytes, false),
        _ => words(scanner, start, bytes),
    }
}

/// `~w(a b)`: strings, or with a modifier atoms (`a`), strings (`s`) or charlists (`c`).
fn words(scanner: &mut Scanner<'_>, start: usize, bytes: Vec<u8>) -> Result<Term> {
    let text = utf8(scanner, start, bytes)?;
    let modifier = match scanner.peek() {
        Some(c @ ('a' | 's' | 'c')) => {
            scanner.bump();
            c
        }
        _ => 's',
    };
    let mut words = Vec::new();
    for word in text.split_whitespace() {
        scanner.count(1)?;
        words.push(match modifier {
            'a' => Term::Atom(scanner.atom(start, word)?),
            _ => text_term(scanner, start, word.as_bytes().to_vec(), modifier == 'c')?,
        });
    }
    Ok(Term::List(words.into()))
}

/// The binary that begins at `start`, after its `<<`.
pub(super) fn binary(scanner: &mut Scanner<'_>, start: usize) -> Result<Term> {
    let mut bits = Bits::default();
    scanner.skip_space('#');
    if scanner.eat(">>") {
        return Ok(bits.into_term());
    }
    loop {
        scanner.skip_space('#');
        let at = scanner.at();
        match scanner.peek() {
            Some('"') => {
                let bytes = string(scanner)?;
                text_segment(scanner, at, &mut bits, bytes)?;
            }
            Some('-' | '+' | '0'..='9' | '?') => {
                let value = number(scanner)?;
                let default = if matches!(value, Term::Float(_)) { Type::Float } else { Type::Integer };
                let (spec, _) = specification(scanner, default)?;
                segment(scanner, at, &mut bits, &value, &spec)?;
            }
            None => return Err(scanner.error_at(start, ParseProblem::Unterminated("binary"))),
            _ => return Err(scanner.unexpected("a number or a string in the binary")),
        }
        scanner.skip_space('#');
        if scanner.eat(">>") {
            return Ok(bits.into_term());
        }
        if !scanner.eat(",") {
            return Err(scanner.unexpected("a comma or >>"));
        }
    }
}

/// A string in a binary: its bytes, or its characters in one of the encodings.
fn text_segment(scanner: &mut Scanner<'_>, at: usize, bits: &mut Bits, bytes: Vec<u8>) -> Result<()> {
    let (spec, typed) = specification(scanner, Type::Utf8)?;
    if spec.ty == Type::Utf8 && spec.size.is_none() {
        scanner.count_bytes(bytes.len())?;
        bytes.into_iter().for_each(|byte| bits.push_byte(byte));
        return Ok(());
    }
    if !typed || matches!(spec.ty, Type::Integer | Type::Float) {
        let why = "a string in a binary has no size, and its type is binary, utf8, utf16 or utf32";
        return Err(scanner.error_at(at, ParseProblem::BadSegment(why)));
    }
    let text = utf8(scanner, at, bytes)?;
    for c in text.chars() {
        segment(scanner, at, bits, &Term::Integer(u32::from(c).into()), &spec)?;
    }
    Ok(())
}

/// `::size(16)-little-unit(8)`, `::16`, `::utf8`, if it is there, and whether it names a type.
fn specification(scanner: &mut Scanner<'_>, default: Type) -> Result<(Spec, bool)> {
    let mut spec = Spec { size: None, unit: 1, ty: default, little: false };
    let mut typed = false;
    scanner.skip_space('#');
    if !scanner.eat("::") {
        return Ok((spec, typed));
    }
    loop {
        scanner.skip_space('#');
        let at = scanner.at();
        if scanner.peek().is_some_and(|c| c.is_ascii_digit()) {
            spec.size = Some(number_of(scanner)?);
        } else {
            let word = scanner.eat_while(|c| c.is_ascii_alphanumeric());
            let ty = match word {
                "integer" => Some(Type::Integer),
                "float" => Some(Type::Float),
                // A string is bytes of UTF-8 already.
                "utf8" | "binary" | "bytes" | "bitstring" | "bits" => Some(Type::Utf8),
                "utf16" => Some(Type::Utf16),
                "utf32" => Some(Type::Utf32),
                _ => None,
            };
            match word {
                "binary" | "bytes" | "bitstring" | "bits" if default != Type::Utf8 => {
                    return Err(
                        scanner.error_at(at, ParseProblem::BadSegment("only a string has this type here"))
                    );
                }
                "size" | "unit" => {
                    scanner.expect("(")?;
                    let value = number_of(scanner)?;
                    scanner.expect(")")?;
                    if word == "size" {
                        spec.size = Some(value);
                    } else if (1..=256).contains(&value) {
                        spec.unit = value;
                    } else {
                        return Err(scanner.error_at(at, ParseProblem::BadSegment("a unit is 1 to 256")));
                    }
                }
                "big" => spec.little = false,
                "little" => spec.little = true,
                "signed" | "unsigned" => {}
                "native" => {
                    return Err(scanner.not_literal(
                        at,
                        "native byte order depends on the machine",
                        "write big or little",
                    ));
                }
                _ => match ty {
                    Some(ty) => (spec.ty, typed) = (ty, true),
                    None => {
                        return Err(scanner.error_at(
                            at,
                            ParseProblem::BadSegment(
                                "expected size(N), unit(N), integer, float, binary, utf8, utf16, utf32, big, little, \
                                 signed or unsigned",
                            ),
                        ));
                    }
                },
            }
        }
        if !scanner.eat("-") {
            return Ok((spec, typed));
        }
    }
}

fn number_of(scanner: &mut Scanner<'_>) -> Result<usize> {
    let at = scanner.at();
    scanner.digits(10)?.parse().map_err(|_| scanner.error_at(at, TOO_LARGE))
}
