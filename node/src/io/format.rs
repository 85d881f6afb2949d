//! `io_lib:format/2`: BEAM processes send the call, not its outcome, for the group leader to carry out.

use foundation_proto::etf::Term;
use foundation_proto::etf::text::Printer;

/// The most columns that a control sequence can ask to be padded to.
const MAX_WIDTH: usize = 10_000;

/// Text from characters, binaries and nested lists of these (`unicode:chardata()`); `None` if it is something else.
pub(super) fn chardata(chars: &Term, latin1: bool) -> Option<String> {
    if !matches!(chars, Term::Binary(_) | Term::List(_) | Term::ImproperList(_)) {
        return None;
    }
    let mut text = String::new();
    // Nested lists, each with the index that comes next.
    let mut open: Vec<(&[Term], usize, Option<&Term>)> = Vec::new();
    let mut next = Some(chars);
    loop {
        match next.take() {
            Some(Term::Integer(code)) => text.push(char::from_u32(u32::try_from(*code).ok()?)?),
            Some(Term::Binary(bytes)) if latin1 => text.extend(bytes.iter().map(|&byte| char::from(byte))),
            Some(Term::Binary(bytes)) => text.push_str(core::str::from_utf8(bytes).ok()?),
            Some(Term::List(list)) => open.push((list, 0, None)),
            Some(Term::ImproperList(list)) => open.push((&list.elements, 0, Some(&list.tail))),
            Some(_) => return None,
            None => {}
        }
        let Some((list, index, tail)) = open.last_mut() else { return Some(text) };
        next = match list.get(*index) {
            Some(element) => {
                *index += 1;
                Some(element)
            }
            None => {
                let tail = *tail;
                open.pop();
                tail
            }
        };
    }
}

/// One control sequence: `~F.P.PadModC`.
struct Control {
    width: Option<usize>,
    left: bool,
    precision: Option<usize>,
    pad: char,
    unicode: bool,
    strings: bool,
    kind: char,
}

/// Text from a format and its arguments; `None` where `io_lib:format/2` raises `badarg`.
pub(super) fn format(format: &Term, args: &[Term]) -> Option<String> {
    let format = match format {
        Term::Atom(atom) => atom.as_str().to_owned(),
        chars => chardata(chars, false)?,
    };
    let mut out = String::new();
    let mut args = args.iter();
    let mut chars = format.chars().peekable();
    while let Some(char) = chars.next() {
        if char != '~' {
            out.push(char);
            continue;
        }
        let control = parse(&mut chars, &mut args)?;
        match control.kind {
            '~' => out.push('~'),
            'n' => out.extend(core::iter::repeat_n('\n', control.width.unwrap_or(1))),
            'i' => {
                args.next()?;
            }
            _ => {
                let column = out.chars().rev().take_while(|&char| char != '\n').count();
                let text = text_of(&control, &mut args, column)?;
                pad(&mut out, &control, &text);
            }
        }
    }
    args.next().is_none().then_some(out)
}

fn parse<'a>(
    chars: &mut core::iter::Peekable<core::str::Chars<'_>>,
    args: &mut impl Iterator<Item = &'a Term>,
) -> Option<Control> {
    let mut control = Control {
        width: None,
        left: false,
        precision: None,
        pad: ' ',
        unicode: false,
        strings: true,
        kind: ' ',
    };
    control.left = chars.next_if_eq(&'-').is_some();
    control.width = number(chars, args)?;
    if chars.next_if_eq(&'.').is_some() {
        control.precision = number(chars, args)?;
        if chars.next_if_eq(&'.').is_some() {
            control.pad = match chars.next()? {
                '*' => char::from_u32(args.next()?.as_i64()?.try_into().ok()?)?,
                pad => pad,
            };
        }
    }
    loop {
        match chars.next()? {
            't' => control.unicode = true,
            'l' => control.strings = false,
            // ~k (ordered maps) and ~K take nothing from the text.
            'k' => {}
            kind => {
                control.kind = kind;
                return Some(control);
            }
        }
    }
}

/// A number, `*` for one from the arguments, or nothing.
fn number<'a>(
    chars: &mut core::iter::Peekable<core::str::Chars<'_>>,
    args: &mut impl Iterator<Item = &'a Term>,
) -> Option<Option<usize>> {
    if chars.next_if_eq(&'*').is_some() {
        return Some(Some(usize::try_from(args.next()?.as_i64()?.unsigned_abs()).ok()?.min(MAX_WIDTH)));
    }
    let mut value: Option<usize> = None;
    while let Some(digit) = chars.peek().and_then(|char| char.to_digit(10)) {
        chars.next();
        value = Some((value.unwrap_or(0) * 10 + digit as usize).min(MAX_WIDTH));
    }
    Some(value)
}

fn text_of<'a>(
    control: &Control,
    args: &mut impl Iterator<Item = &'a Term>,
    column: usize,
) -> Option<String> {
    let printer = || Printer::new().unicode(control.unicode).strings(control.strings);
    let argument = args.next()?;
    Some(match control.kind {
        'p' | 'P' => {
            if control.kind == 'P' {
                // The depth to which it is printed: everything is shown here.
                args.next()?;
            }
            let lines = control.width.unwrap_or(80);
            // The width of ~p is the length of a line, not a field to fill.
            printer().line_length(lines).column(control.precision.unwrap_or(column + 1)).print(argument)
        }
        'w' => printer().write(argument),
        'W' => {
            args.next()?;
            printer().write(argument)
        }
        's' => {
            let text = match argument {
                Term::Atom(atom) => atom.as_str().to_owned(),
                chars => chardata(chars, !control.unicode)?,
            };
            match control.precision.or(control.width) {
                Some(most) => text.chars().take(most).collect(),
                None => text,
            }
        }
        'c' => {
            let char = char::from_u32(u32::try_from(argument.as_i64()?).ok()?)?;
            core::iter::repeat_n(char, control.precision.or(control.width).unwrap_or(1)).collect()
        }
        'b' | 'B' | '+' | '#' => integer(argument, control)?,
        'x' | 'X' => {
            let prefix = match args.next()? {
                Term::Atom(atom) => atom.as_str().to_owned(),
                chars => chardata(chars, false)?,
            };
            let digits = integer(argument, control)?;
            match digits.strip_prefix('-') {
                Some(digits) => format!("-{prefix}{digits}"),
                None => prefix + &digits,
            }
        }
        'f' => format!("{:.*}", control.precision.unwrap_or(6), number_of(argument)?),
        'e' => exponent(number_of(argument)?, control.precision.unwrap_or(6)),
        'g' => {
            let value = number_of(argument)?;
            let precision = control.precision.unwrap_or(6);
            // As many decimals as leave `precision` digits in all.
            let decimals = match value.abs() {
                0.1..1.0 => Some(precision),
                1.0..10.0 => precision.checked_sub(1),
                10.0..100.0 => precision.checked_sub(2),
                100.0..1000.0 => precision.checked_sub(3),
                1000.0..10000.0 => precision.checked_sub(4),
                _ => None,
            };
            match decimals.filter(|&decimals| decimals > 0) {
                Some(decimals) => format!("{value:.decimals$}"),
                None => exponent(value, precision),
            }
        }
        _ => return None,
    })
}

/// An integer in the base that the precision says, upper case for `~B`, `~X` and `~#`.
fn integer(argument: &Term, control: &Control) -> Option<String> {
    let value = argument.as_i128();
    let base = u32::try_from(control.precision.unwrap_or(10)).ok().filter(|base| (2..=36).contains(base))?;
    let Some(value) = value else {
        // Beyond 128 bits only the decimal form is at hand.
        return (matches!(argument, Term::BigInteger(_)) && base == 10)
            .then(|| Printer::new().write(argument));
    };
    let mut rest = value.unsigned_abs();
    let mut digits = Vec::new();
    loop {
        let digit = char::from_digit((rest % u128::from(base)) as u32, base)?;
        digits.push(if control.kind.is_lowercase() || control.kind == '+' {
            digit
        } else {
            digit.to_ascii_uppercase()
        });
        rest /= u128::from(base);
        if rest == 0 {
            break;
        }
    }
    let sign = if value < 0 { "-" } else { "" };
    let prefix = match control.kind {
        '+' | '#' => format!("{base}#"),
        _ => String::new(),
    };
    Some(format!("{sign}{prefix}{}", digits.iter().rev().collect::<String>()))
}

fn number_of(argument: &Term) -> Option<f64> {
    argument.as_f64().or_else(|| argument.as_i64().map(|value| value as f64))
}

/// `1.23457e+3` as Erlang writes it: `precision` digits in all, the sign of the exponent always.
fn exponent(value: f64, precision: usize) -> String {
    let text = format!("{value:.*e}", precision.saturating_sub(1));
    match text.split_once('e') {
        Some((digits, exponent)) => match exponent.strip_prefix('-') {
            Some(exponent) => format!("{digits}e-{exponent}"),
            None => format!("{digits}e+{exponent}"),
        },
        None => text,
    }
}

fn pad(out: &mut String, control: &Control, text: &str) {
    let field = match control.kind {
        'p' | 'P' => 0,
        _ => control.width.unwrap_or(0),
    };
    let len = text.chars().count();
    if matches!(control.kind, 'b' | 'B' | 'w' | 'W' | 'f' | 'e' | 'g' | 'x' | 'X' | '+' | '#')
        && field != 0
        && len > field
    {
        // What does not fit is shown as stars.
        out.extend(core::iter::repeat_n('*', field));
        return;
    }
    let missing = core::iter::repeat_n(control.pad, field.saturating_sub(len));
    if control.left {
        out.push_str(text);
        out.extend(missing);
    } else {
        out.extend(missing);
        out.push_str(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn charlist(text: &str) -> Term {
        Term::list(text.chars().map(|char| Term::Integer(i64::from(u32::from(char)))))
    }

    /// Expected values from `io_lib:format/2` of OTP 25.
    #[test]
    fn formats_as_io_lib_does() {
        for (text, args, expected) in [
            ("a~~b~n", vec![], "a~b\n"),
            ("~p ~w", vec![charlist("hi"), charlist("hi")], "\"hi\" [104,105]"),
            (
                "~s|~10s|~-10s|~.2s|~5.3s",
                vec![charlist("abcdef"); 5],
                "abcdef|    abcdef|abcdef    |ab|  abc",
            ),
            ("~ts", vec![Term::from("å")], "å"),
            ("~b ~.16b ~.16B ~.2b", vec![Term::Integer(255); 4], "255 ff FF 11111111"),
            ("~.16# ~.16+", vec![Term::Integer(-255); 2], "-16#FF -16#ff"),
            ("~.16x", vec![Term::Integer(255), charlist("0x")], "0xff"),
            ("~5w|~2w", vec![Term::Integer(123); 2], "  123|**"),
            ("~3.10.0b", vec![Term::Integer(7)], "007"),
            ("~c~3c", vec![Term::Integer(97), Term::Integer(98)], "abbb"),
            ("~f ~.2f", vec![Term::Float(1.5); 2], "1.500000 1.50"),
            ("~e ~e", vec![Term::Float(12345.678), Term::Float(1.0e-5)], "1.23457e+4 1.00000e-5"),
            ("~g ~g ~g", [2.5, 123.456, 0.001].map(Term::Float).to_vec(), "2.50000 123.456 1.00000e-3"),
            (
                "~3s|~3.2c|~-5b|",
                vec![charlist("abcdef"), Term::Integer(98), Term::Integer(7)],
                "abc| bb|7    |",
            ),
            ("~i~w", vec![Term::Integer(1), Term::Integer(2)], "2"),
            ("~*w", vec![Term::Integer(4), Term::Integer(2)], "   2"),
        ] {
            assert_eq!(format(&charlist(text), &args).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn wrong_formats_are_badarg() {
        for (text, args) in [
            ("~w", vec![]),
            ("", vec![Term::Integer(1)]),
            ("~", vec![]),
            ("~q", vec![Term::Integer(1)]),
            ("~s", vec![Term::Integer(1)]),
            ("~.40b", vec![Term::Integer(1)]),
        ] {
            assert_eq!(format(&charlist(text), &args), None, "{text}");
        }
    }

    #[test]
    fn chardata_is_flattened_however_deep() {
        let mut deep = Term::Integer(97);
        for _ in 0..100_000 {
            deep = Term::list([deep]);
        }
        assert_eq!(chardata(&deep, false).as_deref(), Some("a"));
        let improper = Term::list_with_tail(vec![Term::Integer(97)], Term::from("b"));
        assert_eq!(chardata(&improper, false).as_deref(), Some("ab"));
        assert_eq!(chardata(&Term::binary(&[0xe5]), true).as_deref(), Some("å"));
        assert_eq!(chardata(&Term::binary(&[0xe5]), false), None);
    }
}
