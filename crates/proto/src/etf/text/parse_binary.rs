//! Reading `<<1, 2:4, "abc", "é"/utf8, 1.5:32/float-little>>`.

use super::bits::Bits;
use super::parse_erlang::{number, quoted};
use super::scanner::{ParseProblem, Result, Scanner};
use crate::etf::Term;

/// What a segment holds before it is encoded.
enum Value {
    Number(Term),
    /// Each character is a segment of its own.
    Text(Vec<u32>),
}

#[derive(Clone, Copy, Eq, PartialEq)]
pub(super) enum Type {
    Integer,
    Float,
    Utf8,
    Utf16,
    Utf32,
}

pub(super) struct Spec {
    pub(super) size: Option<usize>,
    pub(super) unit: usize,
    pub(super) ty: Type,
    pub(super) little: bool,
}

/// The binary that begins at `start`, after its `<<`.
pub(super) fn binary(scanner: &mut Scanner<'_>, start: usize) -> Result<Term> {
    let mut bits = Bits::default();
    scanner.skip_space('%');
    if scanner.eat(">>") {
        return Ok(bits.into_term());
    }
    loop {
        scanner.skip_space('%');
        let at = scanner.at();
        let value = match scanner.peek() {
            Some('"') => Value::Text(quoted(scanner, "string")?),
            Some('-' | '+' | '0'..='9' | '$') => Value::Number(number(scanner)?),
            None => return Err(scanner.error_at(start, ParseProblem::Unterminated("binary"))),
            _ => return Err(scanner.unexpected("a number or a string in the binary")),
        };
        let spec = specification(scanner)?;
        push(scanner, at, &mut bits, &value, &spec)?;
        scanner.skip_space('%');
        if scanner.eat(">>") {
            return Ok(bits.into_term());
        }
        if !scanner.eat(",") {
            return Err(scanner.unexpected("a comma or >>"));
        }
    }
}

/// `:16/little-unsigned-integer-unit:8`, each part optional.
fn specification(scanner: &mut Scanner<'_>) -> Result<Spec> {
    let mut spec = Spec { size: None, unit: 1, ty: Type::Integer, little: false };
    let number = |scanner: &mut Scanner<'_>| {
        let at = scanner.at();
        let digits = scanner.digits(10)?;
        digits.parse::<usize>().map_err(|_| scanner.error_at(at, TOO_LARGE))
    };
    scanner.skip_space('%');
    if scanner.eat(":") {
        scanner.skip_space('%');
        spec.size = Some(number(scanner)?);
        scanner.skip_space('%');
    }
    if !scanner.eat("/") {
        return Ok(spec);
    }
    loop {
        scanner.skip_space('%');
        let at = scanner.at();
        match scanner.eat_while(|c| c.is_ascii_alphanumeric()) {
            "integer" => spec.ty = Type::Integer,
            "float" => spec.ty = Type::Float,
            "utf8" => spec.ty = Type::Utf8,
            "utf16" => spec.ty = Type::Utf16,
            "utf32" => spec.ty = Type::Utf32,
            "big" => spec.little = false,
            "little" => spec.little = true,
            "signed" | "unsigned" => {}
            "unit" => {
                scanner.expect(":")?;
                spec.unit = number(scanner)?;
                if !(1..=256).contains(&spec.unit) {
                    return Err(scanner.error_at(at, ParseProblem::BadSegment("a unit is 1 to 256")));
                }
            }
            "native" => {
                return Err(scanner.not_literal(
                    at,
                    "native byte order depends on the machine",
                    "write big or little",
                ));
            }
            _ => {
                return Err(scanner.error_at(
                    at,
                    ParseProblem::BadSegment(
                        "expected integer, float, utf8, utf16, utf32, big, little, signed, unsigned or unit:N",
                    ),
                ));
            }
        }
        if !scanner.eat("-") {
            return Ok(spec);
        }
    }
}

pub(super) const TOO_LARGE: ParseProblem =
    ParseProblem::BadSegment("this segment is larger than an integer can be");

fn push(scanner: &mut Scanner<'_>, at: usize, bits: &mut Bits, value: &Value, spec: &Spec) -> Result<()> {
    match value {
        Value::Number(number) => segment(scanner, at, bits, number, spec),
        Value::Text(characters) => characters
            .iter()
            .try_for_each(|&c| segment(scanner, at, bits, &Term::Integer(i64::from(c)), spec)),
    }
}

pub(super) fn segment(
    scanner: &mut Scanner<'_>,
    at: usize,
    bits: &mut Bits,
    number: &Term,
    spec: &Spec,
) -> Result<()> {
    let bad = |scanner: &Scanner<'_>, why| Err(scanner.error_at(at, ParseProblem::BadSegment(why)));
    if matches!(spec.ty, Type::Utf8 | Type::Utf16 | Type::Utf32) {
        let Some(c) = code_point(number) else { return bad(scanner, "this is no Unicode code point") };
        if spec.size.is_some() {
            return bad(scanner, "utf8, utf16 and utf32 segments have no size");
        }
        return unicode(scanner, at, bits, c, spec);
    }
    let default = if spec.ty == Type::Float { 64 } else { 8 };
    let size = spec.size.unwrap_or(default).checked_mul(spec.unit);
    let Some(size) = size.filter(|size| size / 8 <= scanner.limits.max_integer_bytes) else {
        return Err(scanner.error_at(at, TOO_LARGE));
    };
    scanner.count_bytes(size.div_ceil(8))?;
    match (spec.ty, number) {
        (Type::Integer, Term::Float(_)) => bad(scanner, "a float needs the type float, as in 1.5/float"),
        (Type::Integer, _) => {
            bits.push_integer(number, size, spec.little);
            Ok(())
        }
        (_, number) => {
            let float = match number {
                Term::Float(float) => *float,
                Term::Integer(integer) => *integer as f64,
                _ => return bad(scanner, "this integer is too large for a float"),
            };
            let encoded = match size {
                64 => float.to_bits(),
                32 if (float as f32).is_finite() => u64::from((float as f32).to_bits()),
                32 => return bad(scanner, "this float does not fit into 32 bits"),
                _ => return bad(scanner, "a float has 32 or 64 bits here"),
            };
            let encoded = Term::from_magnitude(false, &encoded.to_le_bytes());
            bits.push_integer(&encoded, size, spec.little);
            Ok(())
        }
    }
}

fn code_point(number: &Term) -> Option<u32> {
    match number {
        Term::Integer(c) => u32::try_from(*c).ok().filter(|&c| char::from_u32(c).is_some()),
        _ => None,
    }
}

fn unicode(scanner: &mut Scanner<'_>, at: usize, bits: &mut Bits, c: u32, spec: &Spec) -> Result<()> {
    match spec.ty {
        Type::Utf16 => {
            let mut units = [0; 2];
            let units = char::from_u32(c).unwrap_or_default().encode_utf16(&mut units);
            scanner.count_bytes(2 * units.len())?;
            for unit in units {
                bits.push_integer(&Term::Integer(i64::from(*unit)), 16, spec.little);
            }
            Ok(())
        }
        Type::Utf32 => {
            scanner.count_bytes(4)?;
            bits.push_integer(&Term::Integer(i64::from(c)), 32, spec.little);
            Ok(())
        }
        _ => push_utf8(scanner, at, bits, c),
    }
}

/// Appends one character in UTF-8.
pub(super) fn push_utf8(scanner: &mut Scanner<'_>, at: usize, bits: &mut Bits, c: u32) -> Result<()> {
    let Some(c) = char::from_u32(c) else {
        return Err(scanner.error_at(at, ParseProblem::BadSegment("this is no Unicode code point")));
    };
    let mut bytes = [0; 4];
    let bytes = c.encode_utf8(&mut bytes);
    scanner.count_bytes(bytes.len())?;
    bytes.bytes().for_each(|byte| bits.push_byte(byte));
    Ok(())
}
