//! Atoms and quoted text as OTP's `io_lib` writes them.

use core::fmt::Write;

/// Which characters may stand for themselves in quoted text, and which lists and binaries look like text.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Charset {
    /// ISO Latin-1: `~p` and `~w`.
    Latin1,
    /// All of Unicode: `~tp` and `~tw` of a node started with `+pc unicode`.
    Unicode,
}

impl Charset {
    /// `io_lib:printable_latin1_list/1` and `io_lib:printable_unicode_list/1`, for one character.
    pub(super) fn is_printable(self, c: u32) -> bool {
        match c {
            0x08..=0x0D | 0x1B | 0x20..=0x7E | 0xA0..=0xFF => true,
            0x100.. => self == Self::Unicode && is_unicode_graphic(c),
            _ => false,
        }
    }
}

fn is_unicode_graphic(c: u32) -> bool {
    matches!(c, 0xA0..=0xD7FF | 0xE000..=0xFFFD | 0x1_0000..=0x10_FFFF)
}

/// The words that Erlang reserves. `else` and `maybe` are reserved since OTP 27 and legal in quotes before.
const RESERVED: [&str; 29] = [
    "after", "and", "andalso", "band", "begin", "bnot", "bor", "bsl", "bsr", "bxor", "case", "catch", "cond",
    "div", "else", "end", "fun", "if", "let", "maybe", "not", "of", "or", "orelse", "receive", "rem", "try",
    "when", "xor",
];

/// Whether Erlang source needs quotes around an atom of this text.
pub(super) fn is_reserved(text: &str) -> bool {
    RESERVED.contains(&text)
}

/// Whether `c` can begin an atom without quotes: a lower-case letter of Latin-1.
pub(super) fn starts_atom(c: char) -> bool {
    matches!(c, 'a'..='z' | 'ß'..='ö' | 'ø'..='ÿ')
}

/// Whether `c` can follow in an atom or variable without quotes.
pub(super) fn continues_name(c: char) -> bool {
    starts_atom(c) || matches!(c, 'A'..='Z' | 'À'..='Ö' | 'Ø'..='Þ' | '0'..='9' | '_' | '@')
}

/// Writes an atom, in quotes if it needs them.
pub(super) fn write_atom(out: &mut String, text: &str, charset: Charset) {
    let mut chars = text.chars();
    let plain = chars.next().is_some_and(starts_atom) && chars.all(continues_name) && !is_reserved(text);
    if plain {
        out.push_str(text);
    } else {
        write_quoted(out, text.chars().map(u32::from), '\'', charset);
    }
}

/// Writes characters in `quote`s, escaped as `io_lib:write_string/2` does.
pub(super) fn write_quoted(
    out: &mut String,
    characters: impl Iterator<Item = u32>,
    quote: char,
    charset: Charset,
) {
    out.push(quote);
    for c in characters {
        write_escaped(out, c, quote, charset);
    }
    out.push(quote);
}

fn write_escaped(out: &mut String, c: u32, quote: char, charset: Charset) {
    let letter = match c {
        0x08 => 'b',
        0x09 => 't',
        0x0A => 'n',
        0x0B => 'v',
        0x0C => 'f',
        0x0D => 'r',
        0x1B => 'e',
        0x7F => 'd',
        0x5C => '\\',
        _ if c == u32::from(quote) => quote,
        _ => {
            let literal = match c {
                0x20..=0x7E | 0xA0..=0xFF => true,
                0x100.. => charset == Charset::Unicode && is_unicode_graphic(c),
                _ => false,
            };
            match char::from_u32(c) {
                Some(c) if literal => out.push(c),
                // Writing to a `String` cannot fail.
                _ if c < 0xA0 => {
                    let _ = write!(out, "\\{c:03o}");
                }
                _ => {
                    let _ = write!(out, "\\x{{{c:X}}}");
                }
            }
            return;
        }
    };
    out.push('\\');
    out.push(letter);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn atom(text: &str, charset: Charset) -> String {
        let mut out = String::new();
        write_atom(&mut out, text, charset);
        out
    }

    #[test]
    fn atoms_are_quoted_by_the_rules_of_io_lib() {
        // As printed by OTP 25 and 29.
        for (text, latin1, unicode) in [
            ("ok", "ok", "ok"),
            ("Ok", "'Ok'", "'Ok'"),
            ("", "''", "''"),
            ("a@b_C1", "a@b_C1", "a@b_C1"),
            ("a-b", "'a-b'", "'a-b'"),
            ("case", "'case'", "'case'"),
            ("it's", r"'it\'s'", r"'it\'s'"),
            ("a\\\n\u{1}\u{7f}\u{85}", r"'a\\\n\001\d\205'", r"'a\\\n\001\d\205'"),
            ("éa", "éa", "éa"),
            ("÷", "'÷'", "'÷'"),
            ("€uro", r"'\x{20AC}uro'", "'€uro'"),
            ("Elixir.Foo", "'Elixir.Foo'", "'Elixir.Foo'"),
        ] {
            assert_eq!(atom(text, Charset::Latin1), latin1);
            assert_eq!(atom(text, Charset::Unicode), unicode);
        }
    }
}
